"""widgets.py without a browser: values are set and buttons clicked as the front end would, and the answers read."""

import datetime
import io
import re
import subprocess
import sys
import warnings

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from mmlesson import figures, widgets, world
from mmlesson.images import ImageError


class Model:
    """Stands in for a CLIP: it likes the colour that a text names, and has learned few words."""

    name = "stand-in"
    temperature = 0.05
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}

    def similarity(self, images, texts):
        rows = []
        for image in images:
            means = np.asarray(image.convert("RGB"), dtype=float).mean((0, 1)) / 255
            rows.append([0.2 + 0.1 * sum(means @ np.array(rgb) for word, rgb in self.colours.items() if word in text) for text in texts])
        return np.array(rows, dtype=np.float32)

    def classify(self, images, labels, templates=None, temperature=None):
        logits = self.similarity(images, [templates[0].replace("{}", label) for label in labels]) / (temperature or self.temperature)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def unknown_words(self, texts):
        words = (word for text in texts for word in re.findall(r"\w+", text))
        return [word for word in dict.fromkeys(words) if word.startswith("un")]


@pytest.fixture
def clip():
    return Model()


@pytest.fixture
def charts(monkeypatch):
    """What each chart was asked to show, in order."""
    asked = []
    real = figures.probabilities

    def recorded(image, labels, probabilities, title=""):
        asked.append({"image": image, "labels": list(labels), "probabilities": np.asarray(probabilities, dtype=float), "title": title})
        return real(image, labels, probabilities, title=title)

    monkeypatch.setattr(figures, "probabilities", recorded)
    return asked


def controls(box) -> dict[str, ipywidgets.Widget]:
    """Every control in a box by its description; two of one description would be an error for a screen reader too."""
    found = {}
    for child in getattr(box, "children", ()):
        inner = controls(child) if hasattr(child, "children") else {}
        if not hasattr(child, "children") and not isinstance(child, ipywidgets.HTML):
            assert child.description.strip(), f"a {type(child).__name__} has no description"
            inner = {child.description: child}
        assert not found.keys() & inner.keys()
        found |= inner
    return found


def shown(box) -> str:
    """All that the answer of a widget holds, as HTML."""
    return "".join(child.value for child in box.children[-1].children)


def sentence(box) -> str:
    return re.sub(r"<[^>]+>", "", box.children[-1].children[0].value)


def note(box) -> str:
    return box.children[-1].children[-1].value


def is_problem(box) -> bool:
    return 'data-kind="problem"' in box.children[-1].children[0].value


def has_picture(box) -> bool:
    return "<img " in shown(box)


def upload(control, name: str, content: bytes) -> None:
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    control.value = ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content), "last_modified": moment},)


def png(picture="red", size=(30, 20), form="PNG", **options) -> bytes:
    """A picture file: of one colour, or of a PIL picture."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.new("RGB", size, picture)
    image.save(buffer, form, **options)
    return buffer.getvalue()


# --------------------------------------------------------------------------------------- every widget


@pytest.fixture(params=["own_picture", "temperature", "compose"])
def box(request, clip):
    image = Image.new("RGB", (40, 40), "red")
    return {
        "own_picture": lambda: widgets.own_picture(clip),
        "temperature": lambda: widgets.temperature(clip, image, ["red", "green"]),
        "compose": lambda: widgets.compose(clip),
    }[request.param]()


def test_each_is_a_box_and_each_control_is_described_and_wide_enough(box):
    assert isinstance(box, ipywidgets.Box)
    for description, control in controls(box).items():
        assert control.tooltip, f"{description} has no tooltip"
        if isinstance(control, (ipywidgets.Button, ipywidgets.FileUpload)):
            assert control.layout.width == "auto"
        else:
            assert len(description) < float(control.style.description_width.removesuffix("em")) * 2


def test_two_of_a_kind_share_nothing(clip):
    one, other = widgets.own_picture(clip), widgets.own_picture(clip)
    upload(controls(one)["Choose a picture"], "red.png", png())
    controls(one)["Labels"].value = "red"
    controls(other)["Classify"].click()
    assert has_picture(one) and not has_picture(other)
    assert is_problem(other) and controls(other)["Labels"].value == "cat, dog, person"


def test_importing_makes_no_widget_and_no_model():
    code = (
        "import ipywidgets, sys\n"
        "made = []\n"
        "ipywidgets.Widget.on_widget_constructed(made.append)\n"
        "import mmlesson.widgets\n"
        "assert not made, made\n"
        "assert 'open_clip' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_nobody_thought_of_is_a_sentence_too(clip, monkeypatch):
    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "red.png", png())
    for error, said in [
        (ZeroDivisionError("no way"), "ZeroDivisionError: no way"),
        (RuntimeError("the <weights> are gone"), "The &lt;weights&gt; are gone"),
        (KeyError("There is no such thing."), "There is no such thing."),
        (ValueError(), "ValueError"),
    ]:
        monkeypatch.setattr(clip, "classify", lambda *_, error=error, **__: (_ for _ in ()).throw(error), raising=False)
        controls(box)["Classify"].click()
        assert is_problem(box) and sentence(box) == f"⚠ {said}" and not has_picture(box)


# ------------------------------------------------------------------------------------------ own_picture


def test_own_picture_is_shown_and_classified(clip, charts):
    box = widgets.own_picture(clip, labels=("red", "green", "blue"), template="something {}")
    control = controls(box)
    assert control["Labels"].value == "red, green, blue" and control["Prompt template"].value == "something {}"
    assert control["Choose a picture"].accept == "image/*" and not has_picture(box)

    upload(control["Choose a picture"], "my <photo>.png", png("red"))
    assert "30×20" in sentence(box) and "my &lt;photo&gt;.png" in sentence(box)
    assert 'alt="Your picture, my &lt;photo&gt;.png"' in shown(box) and not charts

    control["Classify"].click()
    assert len(charts) == 1
    assert charts[0]["labels"] == ["red", "green", "blue"] and charts[0]["title"] == "my <photo>.png"
    np.testing.assert_allclose(charts[0]["probabilities"], np.exp([2, 0, 0]) / (np.exp(2) + 2), rtol=1e-5)
    assert "“something red”, 79%" in sentence(box)
    alt = figures.probabilities(**charts[0]).alt
    assert f'alt="{alt.replace("<", "&lt;").replace(">", "&gt;")}"' in shown(box)

    control["Labels"].value = " blue ; green,\nblue,, "
    control["Classify"].click()
    assert charts[-1]["labels"] == ["blue", "green"]


def test_own_picture_keeps_the_right_way_up(clip):
    box = widgets.own_picture(clip)
    orientation = Image.Exif()
    orientation[0x0112] = 6  # lying on its side
    upload(controls(box)["Choose a picture"], "phone.jpg", png(form="JPEG", exif=orientation))
    assert "20×30" in sentence(box)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"this is a text", "is not a picture"),
        (b"", "is empty"),
        (png(size=(64, 64), form="PNG")[:-30], "damaged or cut off"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture"),
    ],
)
def test_a_broken_file_is_a_sentence(clip, content, said):
    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "good.png", png())
    upload(controls(box)["Choose a picture"], "broken.png", content)
    assert is_problem(box) and said in sentence(box) and "“broken.png”" in sentence(box) and not has_picture(box)
    controls(box)["Classify"].click()  # not the picture before
    assert is_problem(box) and "no picture yet" in sentence(box)
    upload(controls(box)["Choose a picture"], "good.png", png())
    assert not is_problem(box) and has_picture(box)


@pytest.mark.parametrize(
    "field, text, said",
    [
        ("Labels", " , ,\n", "There are no labels"),
        ("Prompt template", "a picture", "has no {}"),
        ("Prompt template", "", "has no {}"),
    ],
)
def test_fields_that_cannot_be_used_are_a_sentence(clip, charts, field, text, said):
    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "good.png", png())
    kept = controls(box)[field].value
    controls(box)[field].value = text
    controls(box)["Classify"].click()
    assert is_problem(box) and said in sentence(box) and not charts
    controls(box)[field].value = kept
    controls(box)["Classify"].click()
    assert not is_problem(box) and len(charts) == 1


def test_many_labels_show_the_likeliest_and_one_label_says_what_it_is_worth(clip, charts):
    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "good.png", png())
    controls(box)["Labels"].value = ", ".join([f"thing {i}" for i in range(30)] + ["red"])
    controls(box)["Classify"].click()
    assert len(charts[0]["labels"]) == 10 and charts[0]["labels"][0] == "red"
    assert "10 likeliest of 31 labels" in sentence(box)
    controls(box)["Labels"].value = "green"
    controls(box)["Classify"].click()
    assert "100%" in sentence(box) and "whole probability" in sentence(box)


def test_unknown_words_and_the_models_own_warnings_are_noted_every_time(clip, monkeypatch):
    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "good.png", png())
    controls(box)["Labels"].value = "red, unicorn"
    real = clip.classify

    def classify(*arguments, **options):
        warnings.warn("stand-in never met the word 'unicorn'", stacklevel=2)
        warnings.warn("the text is too long", stacklevel=2)
        warnings.warn("somebody else's business", stacklevel=1)
        return real(*arguments, **options)

    monkeypatch.setattr(clip, "classify", classify)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        for _ in range(2):
            controls(box)["Classify"].click()
            assert note(box).count("unicorn") == 1 and "the text is too long" in note(box) and "business" not in note(box)
    assert not leaked
    controls(box)["Labels"].value = "red, green"
    monkeypatch.setattr(clip, "classify", real)
    controls(box)["Classify"].click()
    assert note(box) == ""


# ------------------------------------------------------------------------------------------ temperature


def test_temperature_is_the_softmax_of_the_same_cosines(clip, charts):
    texts = ["red thing", "green thing", "dark thing"]
    image = Image.new("RGB", (40, 40), "red")
    box = widgets.temperature(clip, image, texts)
    control = controls(box)
    assert isinstance(control["Temperature"], ipywidgets.FloatLogSlider)
    assert control["Temperature"].value == clip.temperature and "the model's own" in charts[-1]["title"]

    cosines = clip.similarity([image], texts)[0].astype(float)
    for value in (0.001, 0.02, 1.0, 10.0):
        control["Temperature"].value = value
        logits = cosines / value
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose(charts[-1]["probabilities"], expected, rtol=1e-6)
        assert f"temperature {value:.3g} (the model's own: 0.05)" == charts[-1]["title"]
        assert f"{expected[0]:.0%}" in sentence(box)
    assert charts[-1]["probabilities"].max() < 0.34  # hot: all alike
    before = shown(box)
    control["Back to the model's own (0.05)"].click()
    assert control["Temperature"].value == 0.05 and shown(box) != before
    assert "+0.300" in shown(box) and 'data-mark="own"' in box.children[2].value


def test_temperature_computes_the_cosines_once(clip, monkeypatch):
    calls = []
    real = clip.similarity
    monkeypatch.setattr(clip, "similarity", lambda *arguments: calls.append(1) or real(*arguments))
    box = widgets.temperature(clip, Image.new("RGB", (40, 40), "red"), ("red", "green"))
    controls(box)["Temperature"].value = 0.3
    assert len(calls) == 1


@pytest.mark.parametrize("own", [0.0005, 0.01, 30.0])
def test_the_models_own_temperature_always_fits_the_slider(clip, own):
    clip.temperature = own
    box = widgets.temperature(clip, Image.new("RGB", (40, 40), "red"), ["red", "green"])
    slider = next(control for name, control in controls(box).items() if name == "Temperature")
    assert slider.value == own and 10**slider.min <= own <= 10**slider.max


@pytest.mark.parametrize("texts", [[], "a red thing"])
def test_temperature_needs_texts(clip, texts):
    with pytest.raises(ValueError, match="list of texts"):
        widgets.temperature(clip, Image.new("RGB", (4, 4)), texts)


def test_temperature_needs_a_picture(clip):
    with pytest.raises(ImageError, match="does not exist"):
        widgets.temperature(clip, "nowhere.png", ["red", "green"])


# ---------------------------------------------------------------------------------------------- compose


class Reader(Model):
    """Stands in for a CLIP whose cosines are known beforehand."""

    def __init__(self, *cosines):
        self.cosines, self.asked = cosines, []

    def similarity(self, images, texts):
        self.asked.append((images[0], list(texts)))
        return np.array([self.cosines])


def test_compose_compares_true_swapped_and_wrong_background(charts):
    clip = Reader(0.5, 0.4, 0.1)
    box = widgets.compose(clip, "red apple", "dog", background="green", relation="above")
    assert len(clip.asked) == 1  # a result is there at once
    image, texts = clip.asked[0]
    assert texts[0] == "a red apple above a dog on a green background"
    assert texts[1] == "a dog above a red apple on a green background"
    assert re.fullmatch(r"a red apple above a dog on a (?!green).* background", texts[2])
    assert image.tobytes() == world.scene("red apple", "dog", background="green", relation="above").render(image.width).tobytes()
    assert charts[-1]["labels"] == ["true", "objects swapped", "wrong background"] and charts[-1]["title"] == texts[0]
    np.testing.assert_allclose(charts[-1]["probabilities"], np.exp([10, 8, 2]) / np.exp([10, 8, 2]).sum(), rtol=1e-6)
    assert "The true caption wins: 88%" in sentence(box) and "+0.100 in cosine" in sentence(box)
    assert all(text in shown(box) for text in texts) and "+0.500" in shown(box)


@pytest.mark.parametrize("cosines, said", [((0.1, 0.3, 0.2), "objects swapped wins"), ((0.1, 0.2, 0.3), "wrong background wins")])
def test_compose_says_who_wins(cosines, said):
    box = widgets.compose(Reader(*cosines))
    assert said in sentence(box)
    winner = next(row for row in shown(box).split("<tr>") if "▶" in row)
    assert "+0.300" in winner and shown(box).count("▶") == 1


def test_compose_follows_its_controls():
    clip = Reader(0.5, 0.4, 0.1)
    box = widgets.compose(clip)
    control = controls(box)
    assert list(control["Background"].options) == list(world.BACKGROUNDS)
    assert set(control["First object"].options) == {concept.name for concept in world.concepts()}

    control["First object"].value, control["Second object"].value = "pizza", "astronaut"
    control["Relation"].value, control["Background"].value = "above", "pink"
    assert len(clip.asked) == 1 and "press “Draw and compare”" in sentence(box) and not has_picture(box)
    control["Draw and compare"].click()
    first, texts = clip.asked[-1]
    assert texts[0] == "a pizza above an astronaut on a pink background" and has_picture(box)

    control["Arrangement"].value = 1
    control["Draw and compare"].click()
    second, again = clip.asked[-1]
    assert again == texts and second.tobytes() != first.tobytes()

    control["Second object"].value = "pizza"
    control["Draw and compare"].click()
    assert is_problem(box) and "two different objects" in sentence(box) and len(clip.asked) == 3


@pytest.mark.parametrize("background", list(world.BACKGROUNDS))
def test_the_wrong_background_is_never_the_right_one(background):
    clip = Reader(0.5, 0.4, 0.1)
    widgets.compose(clip, background=background)
    true, _, wrong = clip.asked[0][1]
    assert true != wrong


@pytest.mark.parametrize(
    "wrong, error",
    [({"first": "catt"}, KeyError), ({"background": "transparent"}, ValueError), ({"relation": "inside"}, ValueError)],
)
def test_wrong_arguments_raise(clip, wrong, error):
    with pytest.raises(error):
        widgets.compose(clip, **wrong)


# ------------------------------------------------------------------------------------------- search_box


THINGS = ("cat", "dog", "rocket", "red apple", "pizza", "owl")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    from mmlesson import ImageIndex, load_clip

    scenes = [world.scene(name, background=colour, seed=seed) for seed, name in enumerate(THINGS) for colour in ("green", "orange")]
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
    (tile,) = (tile for tile, said in zip(tiles(box), captions(box)) if said == caption)
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
    assert captions(search) == [hit.caption for hit in index.search(["a cat on a green background", (0.5, picture)], 12)]
    assert "more like 1 picture" in sentence(search) and "1" in panel(search)["No examples"].description
    (mine,) = (tile for tile, said in zip(tiles(search), captions(search)) if said == rocket.caption)
    assert "+ example" in mine.children[0].value

    press(search, "a rocket on an orange background", "−")
    assert captions(search) == [hit.caption for hit in index.search(["a cat on a green background", (-0.5, picture)], 12)]
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
    absent = [f"a {thing} on a {colour} background" for thing in ("bicycle", "violin", "castle") for colour in list(world.BACKGROUNDS)[:8]]
    limit = index.calibrate(absent)
    panel(search)["Sentence"].value = "a ship on a purple background"
    assert "nothing fits" in sentence(search) and f"{limit:.3f}" in sentence(search) and tiles(search) == []
    panel(search)["Show the nearest even where nothing fits"].value = True
    assert len(tiles(search)) == 4
    panel(search)["Sentence"].value = "a zxqv"
    assert "zxqv" in note(search)


def test_what_comes_from_outside_is_escaped(index, tmp_path):
    from mmlesson import ImageIndex

    evil = ImageIndex.build([Image.new("RGB", (20, 20), "red")], index.clip, tmp_path / "index", captions=['<script>"x"</script>'])
    box = widgets.search_box(evil, "<b>red</b>", k=1)
    assert "<script" not in tiles(box)[0].children[0].value and "&lt;script&gt;" in tiles(box)[0].children[0].value
    assert "&lt;b&gt;" in shown(ipywidgets.VBox([ipywidgets.VBox([box.children[-1].children[0]])]))


@pytest.mark.parametrize("k", [0, 25, True, 2.5])
def test_a_wrong_number_of_pictures_raises(index, k):
    with pytest.raises(ValueError, match="whole number of 1 to 24"):
        widgets.search_box(index, k=k)


def test_a_picture_whose_file_is_gone_is_a_grey_square(index, tmp_path):
    from mmlesson import ImageIndex

    (tmp_path / "pictures").mkdir()
    for name in ("cat", "dog"):
        world.scene(name).render(64).save(tmp_path / "pictures" / f"{name}.png")
    files = ImageIndex.build(tmp_path / "pictures", index.clip, tmp_path / "index")
    (tmp_path / "pictures" / "cat.png").unlink()
    box = widgets.search_box(files, "a cat", k=2)
    assert captions(box) == ["cat.png", "dog.png"] and not is_problem(box)


# --------------------------------------------------------------------------------------- the real model


def test_with_the_pocket_model(charts):
    from mmlesson.clip import load_clip

    clip = load_clip(device="cpu")
    photo = world.photos()[0]
    texts = ["a picture of a cat", "a picture of a dog", "a picture of a person"]
    box = widgets.temperature(clip, photo.image, texts)
    np.testing.assert_allclose(charts[-1]["probabilities"], clip.classify([photo.image], texts).numpy()[0], atol=1e-6)
    controls(box)["Temperature"].value = 1.0
    np.testing.assert_allclose(charts[-1]["probabilities"], clip.classify([photo.image], texts, temperature=1.0).numpy()[0], atol=1e-6)

    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "scene.png", png(world.scene("cat").render(200)))
    controls(box)["Labels"].value = "cat, zxqv"
    controls(box)["Classify"].click()
    assert not is_problem(box) and "zxqv" in note(box)

    box = widgets.compose(clip)
    assert not is_problem(box) and has_picture(box)

