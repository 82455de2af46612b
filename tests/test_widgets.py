"""widgets.py without a browser: values are set and buttons clicked as the front end would, and the answers read."""

import datetime
import io
import re
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import ipywidgets
import nbclient
import nbformat
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

    def tokenize(self, texts):
        return [[0]] * len(texts)

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


class FakePainting:
    """Stands in for what `painter.paint` returns: it makes a step when the test allows one, and the second last is the best."""

    def __init__(self, prompts, vqgan, steps, seed, cutouts=4):
        self.asked = {"prompts": prompts, "vqgan": vqgan, "steps": steps, "seed": seed, "cutouts": cutouts}
        self.names = [part.split(":")[0].strip() for part in prompts.split("|")]
        self.allowed, self.begun, self.made = threading.Semaphore(0), 0, 0
        self.best, self.is_closed, self.fails = None, False, None

    def allow(self, steps: int) -> None:
        self.allowed.release(steps)

    def __iter__(self):
        return self

    def __next__(self):
        from mmlesson.painter import Step

        if self.made == self.asked["steps"]:
            raise StopIteration
        self.begun += 1
        self.allowed.acquire()
        if self.fails:
            raise self.fails
        self.made += 1
        score = 0.1 * self.made if self.made < self.asked["steps"] else 0.0
        image = Image.new("RGB", (96, 96), (self.made, 0, 0))
        step = Step(self.made, image, 1 - score, {name: score - place for place, name in enumerate(self.names)}, None)
        if self.best is None or step.loss < self.best.loss:
            self.best = step
        return step

    def close(self):
        self.is_closed = True


@pytest.fixture
def paintings(monkeypatch):
    """Every painting that was begun, in order; their threads have ended afterwards."""
    from mmlesson import painter

    begun = []

    def paint(prompts, clip, vqgan, prior="auto", start=None, **options):
        begun.append(FakePainting(prompts, vqgan, **options))
        return begun[-1]

    monkeypatch.setattr(painter, "paint", paint)
    monkeypatch.setattr(widgets, "REFRESH", 0)
    yield begun
    for _ in range(3):  # a run that waits for another begins when that one ends
        for thread in painting_threads():
            thread.stop()
        for painting in begun:
            painting.allow(1000)
    until(lambda: not painting_threads())


def painting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "painting"]


def until(condition, seconds: float = 30) -> None:
    """Wait until a condition holds: AssertionError where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


# --------------------------------------------------------------------------------------- every widget


@pytest.fixture(params=["own_picture", "temperature", "compose", "painter_box"])
def box(request, clip, paintings):
    image = Image.new("RGB", (40, 40), "red")
    return {
        "own_picture": lambda: widgets.own_picture(clip),
        "temperature": lambda: widgets.temperature(clip, image, ["red", "green"]),
        "compose": lambda: widgets.compose(clip),
        "painter_box": lambda: widgets.painter_box(clip, None),
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


# ------------------------------------------------------------------------------------------- painter_box


def alternative(box) -> str:
    """The text that stands for the picture."""
    return re.search(r'<(?:img|div role="img")[^>]* (?:alt|aria-label)="([^"]*)"', shown(box))[1]


def started(box, paintings, allow: int) -> FakePainting:
    """Press Start; the painting that began, as many steps made as allowed and the next one under way."""
    count = len(paintings)
    controls(box)["Start"].click()
    until(lambda: len(paintings) > count)
    painting = paintings[-1]
    painting.allow(allow)
    until(lambda: painting.begun == min(allow + 1, painting.asked["steps"]))
    return painting


def test_a_picture_grows_while_the_kernel_is_free(clip, paintings):
    box = widgets.painter_box(clip, "the VQGAN", "a red cat", steps=3, seed=5, cutouts=7)
    control = controls(box)
    assert alternative(box) == "No picture yet" and "Press “Start”" in sentence(box)
    assert control["Pause"].disabled and control["Stop"].disabled and not painting_threads()

    control["Start"].click()  # comes back at once: no step is allowed yet
    assert sentence(box) == "Starting “a red cat” …" and alternative(box) == "No picture yet"
    assert not control["Pause"].disabled and not control["Stop"].disabled and not control["Start"].disabled
    until(lambda: paintings)
    (painting,) = paintings
    assert painting.asked == {"prompts": "a red cat", "vqgan": "the VQGAN", "steps": 3, "seed": 5, "cutouts": 7}

    painting.allow(1)
    until(lambda: "step 1 of 3" in sentence(box))
    assert re.fullmatch(r"At step 1 of 3: loss 0\.90, score 0\.10, \d+ s left\.", sentence(box))
    assert 'aria-live="off"' in shown(box)  # a screen reader is not told every step
    assert alternative(box) == "Step 1 of 3: a red cat" and "data:image/png" in shown(box)
    assert "Curves over 1 of 3 steps: loss from 0.90 to 0.90, score from 0.10 to 0.10" in shown(box)

    painting.allow(2)
    until(lambda: not painting_threads())
    assert sentence(box) == "Done: 3 steps in less than a second. The best is shown: step 2, loss 0.80, score 0.20."
    assert 'aria-live="off"' not in shown(box) and alternative(box) == "The best of 3 steps, step 2: a red cat"
    assert "loss from 0.90 to 1.00" in shown(box) and painting.is_closed
    assert control["Pause"].disabled and control["Stop"].disabled
    control["Stop"].click()
    control["Pause"].click()  # too late for both
    assert "Done" in sentence(box) and control["Pause"].description == "Pause"


def test_pause_holds_resume_goes_on_and_stop_shows_the_best(clip, paintings):
    box = widgets.painter_box(clip, None, steps=9)
    control = controls(box)
    painting = started(box, paintings, allow=2)
    assert "step 2 of 9" in sentence(box)
    control["Pause"].click()
    assert control["Pause"].description == "Resume" and control["Pause"].tooltip == "Go on painting"
    painting.allow(5)  # the step under way ends, no other begins
    until(lambda: "Paused at step 3 of 9" in sentence(box))
    assert "paused" in alternative(box)
    time.sleep(0.05)
    assert painting.made == 3 and painting_threads()

    control["Pause"].click()
    assert control["Pause"].description == "Pause"
    until(lambda: painting.made == 7 and "At step 7 of 9" in sentence(box))
    control["Pause"].click()
    painting.allow(1)
    until(lambda: "Paused at step 8 of 9" in sentence(box))
    control["Stop"].click()
    until(lambda: not painting_threads())
    assert sentence(box) == "Stopped at step 8 of 9. The best is shown: step 8, loss 0.20, score 0.80."
    assert control["Pause"].description == "Pause" and control["Pause"].disabled and painting.is_closed and painting.made == 8


def test_a_stop_before_the_first_step(clip, paintings):
    one, other = widgets.painter_box(clip, None), widgets.painter_box(clip, None, steps=9)
    painting = started(one, paintings, allow=1)
    controls(other)["Start"].click()  # waits for the step of the first one
    controls(other)["Pause"].click()
    controls(other)["Stop"].click()
    painting.allow(1)
    until(lambda: not painting_threads())
    assert sentence(other) == "Stopped before the first of 9 steps." and alternative(other) == "No picture yet"
    assert paintings == [painting] and controls(other)["Stop"].disabled


def test_start_while_it_paints_begins_again_when_the_old_one_has_ended(clip, paintings):
    box = widgets.painter_box(clip, None, "a dog", steps=9)
    control = controls(box)
    old = started(box, paintings, allow=2)
    assert "step 2 of 9" in sentence(box)
    control["Prompt"].value, control["Steps"].value, control["Seed"].value = " a red owl ", 4, 77
    for _ in range(3):
        control["Start"].click()
    assert sentence(box) == "Starting “a red owl” …" and alternative(box) == "No picture yet"
    time.sleep(0.05)
    assert paintings == [old] and not old.is_closed  # its step is still under way
    old.allow(5)
    until(lambda: len(paintings) == 2)
    assert old.is_closed and old.made == 3 and paintings[1].asked["seed"] == 77
    assert sentence(box) == "Starting “a red owl” …"  # the old one does not say that it was stopped
    paintings[1].allow(4)
    until(lambda: not painting_threads())
    assert "Done: 4 steps" in sentence(box) and len(paintings) == 2 and alternative(box).endswith("a red owl")


def test_a_kernel_paints_one_picture_at_a_time(clip, paintings):
    one, other = widgets.painter_box(clip, None, "a dog", steps=5), widgets.painter_box(clip, None, "a cat", steps=5)
    first = started(one, paintings, allow=2)
    assert "step 2 of 5" in sentence(one)
    controls(one)["Pause"].click()
    first.allow(1)
    until(lambda: "Paused" in sentence(one))
    second = started(other, paintings, allow=5)
    until(lambda: not painting_threads())
    assert "Stopped at step 3 of 5" in sentence(one) and "Done" in sentence(other)
    assert first.is_closed and second.made == 5 and alternative(one).endswith("a dog")


@pytest.mark.parametrize("how", ["box", "all", "paused"])
def test_a_box_that_is_closed_ends_its_painting(clip, paintings, how):
    box = widgets.painter_box(clip, None, steps=9)
    painting = started(box, paintings, allow=1)
    assert "step 1 of 9" in sentence(box)
    if how == "paused":
        controls(box)["Pause"].click()
        painting.allow(1)
        until(lambda: "Paused" in sentence(box))
    before = sentence(box)
    ipywidgets.Widget.close_all() if how == "all" else box.close()
    painting.allow(1)
    until(lambda: not painting_threads())
    assert painting.is_closed and painting.made <= 2 and sentence(box) == before


def test_only_now_and_then_is_it_shown(clip, paintings, monkeypatch):
    monkeypatch.setattr(widgets, "REFRESH", 1000)
    box = widgets.painter_box(clip, None, steps=50)
    said = []
    box.children[-1].children[0].observe(lambda change: said.append(re.sub(r"<[^>]+>", "", change.new)), names="value")
    started(box, paintings, allow=50)
    until(lambda: not painting_threads())
    assert [text.split(":")[0] for text in said] == ["Starting “a cat on a blue background” …", "At step 1 of 50", "Done"]


def test_what_goes_wrong_in_the_thread_is_a_sentence(clip, paintings, monkeypatch):
    from mmlesson import painter

    box = widgets.painter_box(clip, None, steps=9)
    painting = started(box, paintings, allow=1)
    assert "step 1 of 9" in sentence(box)
    painting.fails = RuntimeError("the memory of the <GPU> is full.")
    painting.allow(1)
    until(lambda: not painting_threads())
    assert is_problem(box) and sentence(box) == "⚠ The memory of the &lt;GPU&gt; is full." and not has_picture(box)
    assert painting.is_closed and controls(box)["Stop"].disabled

    with monkeypatch.context() as patch:
        patch.setattr(painter, "paint", lambda *_, **__: (_ for _ in ()).throw(ZeroDivisionError("no way")))
        controls(box)["Start"].click()
        until(lambda: not painting_threads())
    assert is_problem(box) and sentence(box) == "⚠ ZeroDivisionError: no way"
    started(box, paintings, allow=9)
    until(lambda: not painting_threads())
    assert not is_problem(box) and "Done" in sentence(box)


@pytest.mark.parametrize("prompt, said", [("", "There is no prompt"), (" | ", "There is no prompt"), ("a cat:-1", "also what to paint")])
def test_a_prompt_that_cannot_be_painted_is_a_sentence_and_stops_what_runs(clip, paintings, prompt, said):
    box = widgets.painter_box(clip, None, steps=9)
    painting = started(box, paintings, allow=1)
    assert "step 1 of 9" in sentence(box)
    controls(box)["Prompt"].value = prompt
    controls(box)["Start"].click()
    painting.allow(5)
    until(lambda: not painting_threads())
    assert is_problem(box) and said in sentence(box) and len(paintings) == 1 and not has_picture(box)


def test_unknown_words_and_what_the_model_warns_of_are_noted_before_the_thread_begins(clip, paintings, monkeypatch):
    monkeypatch.setattr(clip, "tokenize", lambda texts: warnings.warn(f"too long: {texts}", stacklevel=2))
    box = widgets.painter_box(clip, None, "a cat:1 | unsharp unicorns:-0.5", steps=2)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        controls(box)["Start"].click()
        assert "never met &#x27;unsharp&#x27;, &#x27;unicorns&#x27;" in note(box)
        assert "too long: [&#x27;a cat&#x27;, &#x27;unsharp unicorns&#x27;]" in note(box)
        until(lambda: paintings)
        paintings[0].allow(2)
        until(lambda: not painting_threads())
    assert not leaked and "unsharp" in note(box)
    assert sentence(box).endswith("step 1, loss 0.90, scores 0.10 (“a cat”), -0.90 (“unsharp unicorns”).")
    assert "score of “unsharp unicorns” from -0.90" in shown(box)


def test_steps_and_seed_stay_in_their_range(clip, paintings):
    box = widgets.painter_box(clip, None, steps=1, seed=2**31 - 1)
    control = controls(box)
    assert control["Seed"].value == 2**31 - 1
    control["Seed"].value, control["Steps"].value = -3, 10**9
    assert (control["Seed"].value, control["Steps"].value) == (0, 1000)


@pytest.mark.parametrize(
    "wrong, error",
    [
        ({"steps": 0}, ValueError),
        ({"steps": 2.5}, ValueError),
        ({"steps": True}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 2**31}, ValueError),
        ({"cutout": 4}, TypeError),
        ({"cutouts": 0}, ValueError),
    ],
)
def test_wrong_arguments_of_the_painter_raise(clip, paintings, wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        widgets.painter_box(clip, None, **wrong)


def test_the_curve_copes_with_any_number():
    nan = float("nan")
    for losses, scores, total in [
        ([0.5], {"a": [0.5]}, 1),
        ([nan, 0.5], {"<a>": [0.5, nan], "b": [0, 0]}, 5),
        ([2.0, -1.0], {}, 2),
        ([0.5] * 3, {name: [0.1] * 3 for name in "abcdef"}, 3),
    ]:
        drawn = widgets._curve(losses, scores, total)
        places = re.findall(r'\b(?:points|cx|cy|x|y)="([^"]*)"', drawn)
        numbers = [float(number) for place in places for number in re.split("[ ,]", place) if number]
        assert all(0 <= number <= 380 for number in numbers) and "<a>" not in drawn
        assert drawn.count("<polyline") == min(4, 1 + len(scores)) == len(set(re.findall(r'dasharray="([^"]*)"', drawn)))


AT_WORK = """
    import sys, torch, warnings
    from PIL import Image
    from mmlesson import painter, widgets

    class Clip:
        name = "stand-in"
        tokenize = unknown_words = staticmethod(lambda texts: [])

    class Painting:
        best = None
        def __init__(self, prompts, clip, vqgan, *, steps, seed):
            self.index = 0
            self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3))
        def __next__(self):
            print("out of the thread")
            warnings.warn(f"out of the thread, {self.index}")
            self.net(torch.rand(4, 3, 64, 64)).square().mean().backward()
            self.index += 1
            self.best = painter.Step(self.index, Image.new("RGB", (8, 8)), 0.5, {"a cat": 0.5}, None)
            return self.best
        def close(self):
            pass

    painter.paint = Painting
    box = widgets.painter_box(Clip(), None, steps=1000)
    start, pause, stop = box.children[3].children
    start.click()
"""


def test_a_process_that_exits_while_it_paints_ends_well():
    code = textwrap.dedent(AT_WORK) + "import time; time.sleep(0.5)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""  # torch would abort it in the middle of a step


def test_in_a_kernel_other_cells_run_and_what_the_thread_prints_stands_under_none(tmp_path):
    waiting = """
        import time
        while "At step" not in box.children[-1].children[0].value:
            time.sleep(0.01)
        print("mine")
    """
    sources = [AT_WORK, waiting, "start.click(); time.sleep(0.5); print('mine too')", "box.close()"]
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    printed = ["".join(output.get("text", output.output_type) for output in cell.outputs) for cell in notebook.cells]
    assert printed == ["", "mine\n", "mine too\n", ""]


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

