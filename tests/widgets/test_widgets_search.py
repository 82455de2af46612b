"""The widget of lesson 2: search_box."""

import re

import ipywidgets
import pytest
from PIL import Image
from widget_tools import controls, is_problem, note, sentence, shown

from mmlesson import world
from mmlesson.teach import widgets

THINGS = ("cat", "dog", "rocket", "red apple", "pizza", "owl")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    from mmlesson import ImageIndex, load_clip

    scenes = [
        world.scene(name, background=colour, seed=seed)
        for seed, name in enumerate(THINGS)
        for colour in ("green", "orange")
    ]
    return ImageIndex.build(scenes, load_clip("pocket-clip", "cpu"), path=tmp_path_factory.mktemp("search") / "index")


@pytest.fixture
def search(index):
    (index.folder / "calibration.json").unlink(missing_ok=True)
    return widgets.search_box(index, "a cat on a green background", k=4)


def tiles(box) -> list[ipywidgets.VBox]:
    """Those in sight."""
    return [tile for tile in box.children[-1].children[1].children if tile.layout.display != "none"]


def captions(box) -> list[str]:
    return [re.search(r'alt="([^"]+)"', tile.children[0].value)[1] for tile in tiles(box)]


def press(box, caption: str, sign: str) -> None:
    (tile,) = (tile for tile, said in zip(tiles(box), captions(box), strict=True) if said == caption)
    (button,) = (button for button in tile.children[1].children if button.description == sign)
    button.click()


def panel(box) -> dict[str, ipywidgets.Widget]:
    """The controls above the pictures found; "No examples" without its count."""
    above = controls(ipywidgets.VBox(box.children[:-1]))
    return {description.split(" (")[0]: control for description, control in above.items()}


def test_search_finds_and_every_control_is_described(index, search):
    hits = index.search("a cat on a green background", 4)
    assert captions(search) == [hit.caption for hit in hits] and captions(search)[0] == "a cat on a green background"
    assert f"4 found, scores {hits[0].score:.3f} to {hits[-1].score:.3f}" in sentence(search)
    for control in panel(search).values():
        assert control.tooltip
    tooltips = [button.tooltip for tile in tiles(search) for button in tile.children[1].children]
    assert len(set(tooltips)) == 8 and tooltips[0] == "More like this: a cat on a green background"

    panel(search)["Sentence"].value = "an owl"
    assert {"an owl on a green background", "an owl on an orange background"} == set(captions(search)[:2])
    panel(search)["How many"].value = 2
    assert len(tiles(search)) == 2
    hidden = [tile for tile in search.children[-1].children[1].children if tile not in tiles(search)]
    assert len(hidden) == 2 and not any(tile.children[0].value for tile in hidden)


def test_search_by_pointing_is_the_weighted_sum(index, search):
    panel(search)["How many"].value = 12
    press(search, "a rocket on an orange background", "+")
    rocket = world.scene("rocket", background="orange", seed=THINGS.index("rocket"))
    picture = index.search(rocket.caption, 1)[0]
    assert captions(search) == [
        hit.caption for hit in index.search(["a cat on a green background", (0.5, picture)], 12)
    ]
    assert "more like 1 picture" in sentence(search) and "1" in panel(search)["No examples"].description
    (mine,) = (tile for tile, said in zip(tiles(search), captions(search), strict=True) if said == rocket.caption)
    assert "+ example" in mine.children[0].value

    press(search, "a rocket on an orange background", "−")
    assert captions(search) == [
        hit.caption for hit in index.search(["a cat on a green background", (-0.5, picture)], 12)
    ]
    press(search, "a rocket on an orange background", "−")  # taken back
    plain = [hit.caption for hit in index.search("a cat on a green background", 12)]
    assert captions(search) == plain and "example" not in tiles(search)[0].children[0].value

    press(search, "a rocket on an orange background", "+")
    panel(search)["No examples"].click()
    assert captions(search) == plain


def test_examples_alone_and_less_like_alone(search):
    panel(search)["How many"].value = 12
    press(search, "a pizza on a green background", "+")
    panel(search)["Sentence"].value = ""
    assert captions(search)[0] == "a pizza on a green background" and sentence(search).startswith("more like 1 picture")
    press(search, "a pizza on a green background", "−")
    assert is_problem(search) and "describes nothing" in sentence(search) and tiles(search) == []
    panel(search)["No examples"].click()
    assert is_problem(search)
    panel(search)["Sentence"].value = "a pizza"
    assert not is_problem(search) and len(tiles(search)) == 12


def test_nothing_fits_is_said_and_the_nearest_are_shown_when_asked_for(index, search):
    absent = [
        f"a {thing} on a {colour} background"
        for thing in ("bicycle", "violin", "castle")
        for colour in list(world.BACKGROUNDS)[:8]
    ]
    limit = index.calibrate(absent)
    panel(search)["Sentence"].value = "a ship on a purple background"
    assert "nothing fits" in sentence(search) and f"{limit:.3f}" in sentence(search) and tiles(search) == []
    panel(search)["Show the nearest even where nothing fits"].value = True
    assert len(tiles(search)) == 4
    panel(search)["Sentence"].value = "a zxqv"
    assert "zxqv" in note(search)


def test_what_comes_from_outside_is_escaped(index, tmp_path):
    from mmlesson import ImageIndex

    evil = ImageIndex.build(
        [Image.new("RGB", (20, 20), "red")], index.clip, tmp_path / "index", captions=['<script>"x"</script>']
    )
    box = widgets.search_box(evil, "<b>red</b>", k=1)
    assert "<script" not in tiles(box)[0].children[0].value and "&lt;script&gt;" in tiles(box)[0].children[0].value
    assert "&lt;b&gt;" in shown(ipywidgets.VBox([ipywidgets.VBox([box.children[-1].children[0]])]))


def test_a_sentence_that_is_too_long_is_noted(search):
    panel(search)["Sentence"].value = "a cat " * 60
    assert "is left out" in note(search) and not is_problem(search)


def test_two_pictures_of_one_caption_are_two_tiles_and_two_examples(index, tmp_path):
    from mmlesson import ImageIndex

    pictures = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    twins = ImageIndex.build(pictures, index.clip, tmp_path / "index", captions=["a square", "a square"])
    box = widgets.search_box(twins, "a square", k=2)
    assert captions(box) == ["a square", "a square"]
    one, other = tiles(box)
    one.children[1].children[0].click()
    other.children[1].children[0].click()
    assert "more like 2 pictures" in sentence(box) and "2" in panel(box)["No examples"].description


def test_an_empty_index_raises():
    with pytest.raises(ValueError, match="The index is empty"):
        widgets.search_box([])


@pytest.mark.parametrize("text", [None, 7, ["a cat"]])
def test_a_sentence_that_is_no_text_raises(index, text):
    with pytest.raises(ValueError, match="text is a text"):
        widgets.search_box(index, text)


@pytest.mark.parametrize("k", [0, 25, True, 2.5])
def test_a_wrong_number_of_pictures_raises(index, k):
    with pytest.raises(ValueError, match="whole number from 1 to 24"):
        widgets.search_box(index, k=k)


def test_a_picture_whose_file_is_gone_is_a_grey_square(index, tmp_path):
    from mmlesson import ImageIndex

    (tmp_path / "pictures").mkdir()
    for name in ("cat", "dog"):
        world.scene(name).render(64).save(tmp_path / "pictures" / f"{name}.png")
    files = ImageIndex.build(tmp_path / "pictures", index.clip, tmp_path / "index")
    (tmp_path / "pictures" / "cat.png").unlink()
    box = widgets.search_box(files, "a cat", k=2)
    assert captions(box) == ["cat.png (its file is gone or damaged)", "dog.png"] and not is_problem(box)
    assert "gone or damaged)</figcaption>" in tiles(box)[0].children[0].value
    press(box, "cat.png (its file is gone or damaged)", "+")  # what the index knows of it is still there
    assert "more like 1 picture" in sentence(box)
