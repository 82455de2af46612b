"""widgets.py without a browser: values are set and buttons clicked as the front end would, and the answers read."""

import base64
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

from mmlesson import world
from mmlesson.dalle import GUIDANCE, TEMPERATURE
from mmlesson.pixels import ImageError
from mmlesson.teach import figures, widgets


class Model:
    """Stands in for a CLIP: it likes the colour that a text names, and has learned few words."""

    name = "stand-in"
    temperature = 0.05
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}

    def similarity(self, images, texts):
        rows = []
        for image in images:
            means = np.asarray(image.convert("RGB"), dtype=float).mean((0, 1)) / 255
            rows.append(
                [
                    0.2 + 0.1 * sum(means @ np.array(rgb) for word, rgb in self.colours.items() if word in text)
                    for text in texts
                ]
            )
        return np.array(rows, dtype=np.float32)

    def classify(self, images, labels, templates=None, temperature=None):
        logits = self.similarity(images, [templates[0].replace("{}", label) for label in labels]) / (
            temperature or self.temperature
        )
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
        asked.append(
            {
                "image": image,
                "labels": list(labels),
                "probabilities": np.asarray(probabilities, dtype=float),
                "title": title,
            }
        )
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
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    control.value = (
        {
            "name": name,
            "type": "image/png",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": moment,
        },
    )


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
        from mmlesson.painter import PaintStep

        if self.made == self.asked["steps"]:
            raise StopIteration
        self.begun += 1
        self.allowed.acquire()
        if self.fails:
            raise self.fails
        self.made += 1
        score = 0.1 * self.made if self.made < self.asked["steps"] else 0.0
        image = Image.new("RGB", (96, 96), (self.made, 0, 0))
        step = PaintStep(
            self.made, image, 1 - score, {name: score - place for place, name in enumerate(self.names)}, None
        )
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


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def painting_threads() -> list[threading.Thread]:
    return threads("painting")


def drawing_threads() -> list[threading.Thread]:
    return threads("drawing")


PROMPT = "a cat on a blue background"


@pytest.fixture(scope="module")
def vqgan():
    """Untrained, 4×4 codes of 20."""
    from mmlesson.vqgan import VQGANConfig, new_vqgan

    made = new_vqgan(VQGANConfig(image_size=32, n_codes=20, dim=4, channels=(16, 16, 32), discriminator=16), seed=3)
    made.sha256 = "ab" * 32
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def dalle():
    """Untrained, its weights large enough that nothing is nearly equal, and it has read few words."""
    import torch

    from mmlesson.dalle import DALLEConfig, new_dalle, pieces_of

    pieces = pieces_of([PROMPT, "a dog on a red one"])
    made = new_dalle(
        DALLEConfig(pieces, text_length=12, n_codes=20, grid=4, dim=32, layers=2, heads=2, vqgan="ab" * 32), seed=1
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return made.eval().requires_grad_(False)


def until(condition, seconds: float = 30) -> None:
    """Wait until a condition holds: AssertionError where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


# --------------------------------------------------------------------------------------- every widget


@pytest.fixture(params=["own_picture", "temperature", "compose", "painter_box", "token_explorer", "sampler_box"])
def box(request, clip, paintings, dalle, vqgan):
    image = Image.new("RGB", (40, 40), "red")
    return {
        "own_picture": lambda: widgets.own_picture(clip),
        "temperature": lambda: widgets.temperature(clip, image, ["red", "green"]),
        "compose": lambda: widgets.compose(clip),
        "painter_box": lambda: widgets.painter_box(clip, None),
        "token_explorer": lambda: widgets.token_explorer(dalle, vqgan),
        "sampler_box": lambda: widgets.sampler_box(dalle, vqgan, clip),
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
        "import mmlesson.teach.widgets\n"
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
            assert (
                note(box).count("unicorn") == 1 and "the text is too long" in note(box) and "business" not in note(box)
            )
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
    assert (
        image.tobytes()
        == world.scene("red apple", "dog", background="green", relation="above").render(image.width).tobytes()
    )
    assert charts[-1]["labels"] == ["true", "objects swapped", "wrong background"] and charts[-1]["title"] == texts[0]
    np.testing.assert_allclose(charts[-1]["probabilities"], np.exp([10, 8, 2]) / np.exp([10, 8, 2]).sum(), rtol=1e-6)
    assert "The true caption wins: 88%" in sentence(box) and "+0.100 in cosine" in sentence(box)
    assert all(text in shown(box) for text in texts) and "+0.500" in shown(box)


@pytest.mark.parametrize(
    "cosines, said", [((0.1, 0.3, 0.2), "objects swapped wins"), ((0.1, 0.2, 0.3), "wrong background wins")]
)
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
    assert (
        control["Pause"].description == "Pause"
        and control["Pause"].disabled
        and painting.is_closed
        and painting.made == 8
    )


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
    assert [text.split(":")[0] for text in said] == [
        "Starting “a cat on a blue background” …",
        "At step 1 of 50",
        "Done",
    ]


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


@pytest.mark.parametrize(
    "prompt, said", [("", "There is no prompt"), (" | ", "There is no prompt"), ("a cat:-1", "also what to paint")]
)
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
        assert (
            drawn.count("<polyline") == min(4, 1 + len(scores)) == len(set(re.findall(r'dasharray="([^"]*)"', drawn)))
        )


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
            self.best = painter.PaintStep(self.index, Image.new("RGB", (8, 8)), 0.5, {"a cat": 0.5}, None)
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
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    printed = ["".join(output.get("text", output.output_type) for output in cell.outputs) for cell in notebook.cells]
    assert printed == ["", "mine\n", "mine too\n", ""]


# --------------------------------------------------------------------------------------- token_explorer


def pixels(source: str) -> np.ndarray:
    """The picture that stands in the source of an image."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split("base64,")[1]))).convert("RGB"))


def explored(box) -> list[tuple[str, str]]:
    """The alternatives and the sources of the large pictures."""
    return [(alt, source) for source, alt in re.findall(r'<img src="([^"]+)" alt="([^"]*)" decoding', shown(box))]


def listed(box) -> list[list[str]]:
    """The rows of the table of codes, as texts."""
    rows = shown(box).split("<tr>")[2:]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def put_options(box) -> list[int]:
    return [code for _, code in controls(box)["Put in"].options]


def test_the_explorer_shows_what_the_model_expects(dalle, vqgan):
    image = Image.linear_gradient("L")
    box = widgets.token_explorer(dalle, vqgan, image, PROMPT, k=3)
    control, codes = controls(box), vqgan.encode(image)[0]
    assert (control["Row"].value, control["Column"].value) == (3, 3) and (
        control["Row"].max,
        control["Column"].min,
    ) == (4, 1)
    control["Row"].value, control["Column"].value = 2, 4

    stream = dalle.streams(dalle.text_tokens(PROMPT), codes[None])[0, : 12 + 7]
    chances = dalle.next_token(stream)[dalle.config.first_code :].numpy()
    order, now = (-chances).argsort(kind="stable"), int(codes[1, 3])
    rank = order.tolist().index(now) + 1
    rows = listed(box)
    for number, (code, row) in enumerate(zip(order[:3], rows, strict=True), 1):
        assert row == [str(number), "", f"{code} ◀ there now" if code == now else str(code), f"{chances[code]:.1%}"]
    assert shown(box).count("◀ there now") == 1
    if rank > 3:
        assert rows[3] == [str(rank), "", f"{now} ◀ there now", f"{chances[now]:.1%}"]
    assert rows[-1][2] == "all others"
    assert sum(float(row[3].strip("<%")) for row in rows) == pytest.approx(100, abs=0.5)
    assert put_options(box) == order[:3].tolist()
    assert (
        f"At row 2, column 4, given the caption and 7 codes, the likeliest is code {order[0]}, {chances[order[0]]:.1%}."
        in sentence(box)
    )
    assert f"There now: code {now}, rank {rank} of 20, {chances[now]:.1%}." in sentence(box)

    names = re.findall(
        r"<span[^>]*>([^<]*)</span>", shown(box).split('aria-label="The stream up to the place"')[1].split("</div>")[0]
    )
    last = [f"code {code}" for code in codes.flatten()[3:7].tolist()]
    assert names == ["start", *PROMPT.split(), "end", "padding × 4", "… 3 codes …", *last, "?"]
    assert [alt for alt, _ in explored(box)] == [
        "What it has read of the picture: 7 codes",
        "The picture, row 2, column 4 outlined",
    ]


def test_the_place_is_outlined_and_what_is_not_read_is_grey(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    controls(box)["Row"].value, controls(box)["Column"].value = 2, 4
    (_, read), (_, whole) = explored(box)
    read, whole = pixels(read), pixels(whole)  # [240, 240, 3], 60 a code
    grey, mark = (184, 184, 184), (209, 73, 91)
    assert read.shape == whole.shape == (240, 240, 3)
    for picture in (read, whole):
        assert (
            tuple(picture[60, 200])
            == tuple(picture[119, 200])
            == tuple(picture[90, 180])
            == tuple(picture[90, 239])
            == mark
        )
        assert tuple(picture[58, 200]) == (255, 255, 255)
    # where it is made larger, the border is soft by 15 pixels
    assert (
        (read[136:] == grey).all()
        and (read[76:104, 196:230] == grey).all()
        and not (read[:104, :164] == grey).all(-1).any()
    )
    assert not (whole == grey).all(-1).any()
    controls(box)["Row"].value, controls(box)["Column"].value = 1, 1  # nothing is read yet
    assert (pixels(explored(box)[0][1])[64:] == grey).all() and "given the caption and 0 codes" in sentence(box)
    controls(box)["Row"].value, controls(box)["Column"].value = 4, 4
    assert "given the caption and 15 codes" in sentence(box) and not is_problem(box)


def test_without_a_picture_it_explores_what_is_drawn_of_the_prompt(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan, prompt=PROMPT)
    code = int(dalle.generate(PROMPT, 1, seed=0)[0, 2, 2])
    assert f"There now: code {code}," in sentence(box)


def test_another_caption_changes_what_is_expected_and_not_the_picture(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    before, whole = listed(box), explored(box)[1]
    controls(box)["Prompt"].value = " a dog  on a red one "
    assert listed(box) != before and explored(box)[1] == whole
    assert ">dog</span>" in shown(box) and ">cat</span>" not in shown(box)
    controls(box)["Prompt"].value = PROMPT
    assert listed(box) == before


def test_a_code_is_put_in_and_taken_back(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    control = controls(box)
    assert control["Undo"].disabled
    old, (_, second) = explored(box)[1][1], put_options(box)[:2]
    control["Put in"].value = second
    control["Put it here"].click()
    assert f"Code {second} is there instead of code" in sentence(
        box
    ) and f"There now: code {second}, rank 2 of 20" in sentence(box)
    assert "Choose row 4" in sentence(box)
    (before_alt, before), (after_alt, after) = explored(box)
    assert (before_alt, after_alt) == (
        "The picture before, row 3, column 3 outlined",
        "The picture after, row 3, column 3 outlined",
    )
    assert before == old != after and not control["Undo"].disabled

    control["Put the likeliest here"].click()
    first = put_options(box)[0]
    assert f"Code {first} is there instead of code {second}." in sentence(box) and "rank 1 of 20" in sentence(box)
    likeliest = explored(box)[1][1]
    assert explored(box)[0][1] == after != likeliest
    control["Put the likeliest here"].click()
    assert f"Code {first} is there already." in sentence(box) and explored(box)[1] == (
        "The picture, row 3, column 3 outlined",
        likeliest,
    )

    control["Undo"].click()
    assert "taken back" in sentence(box) and explored(box)[0][1] == likeliest and explored(box)[1][1] == after
    control["Undo"].click()
    assert explored(box)[1][1] == old and control["Undo"].disabled
    control["Undo"].click()
    assert not is_problem(box) and explored(box)[1][1] == old
    control["Column"].value = 2
    assert explored(box)[0][0].startswith("What it has read")


def test_the_rest_is_drawn_and_the_rows_above_stay(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    control, codes = controls(box), dalle.generate(PROMPT, 1, seed=0)[0]

    def holds(expected) -> bool:
        picture = widgets._outlined(vqgan.decode(expected)[0], control["Row"].value - 1, control["Column"].value - 1, 4)
        return np.array_equal(pixels(explored(box)[1][1]), np.asarray(picture))

    assert holds(codes)
    control["Seed"].value = 7
    control["Let it draw the rest"].click()
    drawn = dalle.generate(PROMPT, 1, seed=7, prefix_codes=codes[:2])[0]
    assert (
        holds(drawn)
        and sentence(box).startswith("Rows 3 to 4 are drawn anew, with seed 7.")
        and "before" in explored(box)[0][0]
    )
    control["Undo"].click()
    assert holds(codes)
    control["Row"].value = 1
    control["Let it draw the rest"].click()
    assert holds(dalle.generate(PROMPT, 1, seed=7)[0]) and "The whole picture is drawn anew" in sentence(box)
    control["Row"].value = 4
    control["Put the likeliest here"].click()
    assert "Choose row" not in sentence(box)
    control["Let it draw the rest"].click()
    assert "The last row is drawn anew" in sentence(box)


@pytest.mark.parametrize("press", ["Put the likeliest here", "Put it here", "Let it draw the rest", "Undo"])
def test_without_a_prompt_nothing_changes_in_the_explorer(dalle, vqgan, press):
    box = widgets.token_explorer(dalle, vqgan)
    control = controls(box)
    control["Seed"].value = 5
    control["Let it draw the rest"].click()
    _, drawn = explored(box)[1]
    control["Prompt"].value = "  "
    assert is_problem(box) and "There is no prompt" in sentence(box) and not has_picture(box)
    control[press].click()
    assert is_problem(box) and "There is no prompt" in sentence(box) and not control["Undo"].disabled
    control["Prompt"].value = PROMPT
    assert not is_problem(box) and explored(box)[1][1] == drawn


def test_words_that_the_dalle_never_read_are_noted_every_time(dalle, vqgan):
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        box = widgets.token_explorer(dalle, vqgan, prompt="a <zeppelin>")
        assert note(box).count("has never read &#x27;zeppelin&#x27;") == 1
        controls(box)["Row"].value = 1
        controls(box)["Let it draw the rest"].click()
        assert note(box).count("has never read &#x27;zeppelin&#x27;") == 1
        controls(box)["Prompt"].value = PROMPT
    assert note(box) == "" and not leaked


WRONG = [{"k": 0}, {"k": 11}, {"k": True}, {"k": 2.5}, {"prompt": " "}, {"prompt": 7}, {"image": "nowhere.png"}]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments_of_the_explorer_raise(dalle, vqgan, wrong):
    with pytest.raises(ValueError, match=wrong.get("image", next(iter(wrong)))):
        widgets.token_explorer(dalle, vqgan, **wrong)


@pytest.mark.parametrize("widget", [widgets.token_explorer, widgets.sampler_box])
def test_the_codes_of_another_vqgan_are_refused(dalle, vqgan, widget):
    from mmlesson.gates import AssetError
    from mmlesson.vqgan import new_vqgan

    with pytest.raises(AssetError, match="load the one that it was trained with"):
        widget(dalle, new_vqgan(vqgan.config))


# ------------------------------------------------------------------------------------------ sampler_box


class Gate:
    """Stands before `generate_steps`: a code is drawn when the test allows one."""

    def __init__(self, steps):
        self.steps, self.allowed, self.asked, self.begun, self.made = steps, threading.Semaphore(0), [], 0, 0
        self.is_open, self.fails = False, None

    def allow(self, codes: int) -> None:
        self.allowed.release(codes)

    def __call__(self, *arguments, **options):
        self.asked.append((arguments, options))
        self.begun, self.made = 0, 0
        for step in self.steps(*arguments, **options):
            self.begun += 1
            self.is_open or self.allowed.acquire()
            if self.fails:
                raise self.fails
            self.made += 1
            yield step


@pytest.fixture
def gate(dalle, monkeypatch):
    gate = Gate(dalle.generate_steps)
    monkeypatch.setattr(dalle, "generate_steps", gate)
    monkeypatch.setattr(widgets, "REFRESH", 0)
    yield gate
    gate.is_open = True
    for _ in range(3):
        for thread in drawing_threads():
            thread.stop()
        gate.allow(1000)
    until(lambda: not drawing_threads())


@pytest.fixture
def at_once(monkeypatch):
    """Every code is shown: preparing takes no time."""
    monkeypatch.setattr(widgets._DrawRun, "_look", lambda run: (run.prepare(), run._tell(), 0)[-1])


class Ranker(Model):
    """A CLIP whose cosines come as a tensor, as the real one's do; the last picture is the best."""

    def similarity(self, images, texts):
        import torch

        assert len(texts) == 1
        return torch.linspace(0.1, 0.3, len(images))[:, None]


def drawn(box) -> list[np.ndarray]:
    return [pixels(source) for _, source in explored(box)]


def test_pictures_grow_code_by_code_while_the_kernel_is_free(dalle, vqgan, gate, at_once):
    box = widgets.sampler_box(dalle, vqgan, prompt=PROMPT, n=3, seed=5)
    control = controls(box)
    assert alternative(box) == "No picture yet" and control["Stop"].disabled and not drawing_threads()
    control["Draw"].click()  # comes back at once: no code is allowed yet
    assert sentence(box) == f"Starting “{PROMPT}” …" and not control["Stop"].disabled
    gate.allow(6)
    until(lambda: "At code 6 of 16" in sentence(box))
    assert re.fullmatch(r"At code 6 of 16, \d+ s left\.", sentence(box)) and 'aria-live="off"' in shown(box)
    assert [alt for alt, _ in explored(box)] == [f"Picture {place} of 3, code 6 of 16: {PROMPT}" for place in (1, 2, 3)]
    for picture in drawn(box):  # 8×8 pixels a code
        assert (picture[16:] == 184).all() and (picture[8:16, 16:] == 184).all()
        assert not (picture[:8] == 184).all(-1).any() and not (picture[8:16, :16] == 184).all(-1).any()
    gate.allow(10)
    until(lambda: not drawing_threads())
    assert sentence(box) == "Done: 3 pictures in less than a second." and control["Stop"].disabled
    assert 'aria-live="off"' not in shown(box)
    gate.is_open = True
    expected = vqgan.decode(dalle.generate(PROMPT, 3, seed=5))
    assert all(np.array_equal(picture, np.asarray(image)) for picture, image in zip(drawn(box), expected, strict=True))
    assert [alt for alt, _ in explored(box)] == [f"Picture {place} of 3: {PROMPT}" for place in (1, 2, 3)]
    assert "<figcaption>" not in shown(box)


def test_the_settings_are_those_of_the_controls(dalle, vqgan, gate):
    gate.is_open = True
    box = widgets.sampler_box(dalle, vqgan, n=2)
    control = controls(box)
    assert (control["Temperature"].value, control["Guidance"].value) == (TEMPERATURE, GUIDANCE), (
        "what `generate` would take"
    )
    for settings in [(PROMPT, 2, 0, 1.0, 0, 1.0), ("a dog", 1, 9, 0.3, 5, 2.5)]:
        for name, value in zip(
            ("Prompt", "Pictures", "Seed", "Temperature", "Top-k", "Guidance"), settings, strict=True
        ):
            control[name].value = value
        control["Draw"].click()
        until(lambda: not drawing_threads())
        prompt, n, seed, temperature, top_k, guidance = settings
        assert gate.asked[-1] == (
            (prompt, n, seed),
            {"temperature": temperature, "top_k": top_k or None, "guidance": guidance},
        )
        assert len(explored(box)) == n and "Done" in sentence(box)
    for name, least, most in [
        ("Pictures", 1, 16),
        ("Temperature", 0.1, 2),
        ("Top-k", 0, 20),
        ("Guidance", 1, 4),
        ("Seed", 0, 2**31 - 1),
    ]:
        control[name].value = -1
        assert control[name].value == least
        control[name].value = 2**40
        assert control[name].value == most


def test_finished_pictures_are_ranked_and_stopped_ones_are_not(dalle, vqgan, gate, at_once):
    box = widgets.sampler_box(dalle, vqgan, Ranker(), n=3)
    control = controls(box)
    control["Draw"].click()
    gate.allow(5)
    until(lambda: "At code 5 of 16" in sentence(box) and gate.begun == 6)
    control["Stop"].click()
    gate.allow(1)
    until(lambda: not drawing_threads())
    assert sentence(box) == "Stopped at code 6 of 16. What is grey was not drawn." and "<figcaption>" not in shown(box)
    assert (drawn(box)[0][16:] == 184).all() and control["Stop"].disabled

    gate.is_open = True
    control["Draw"].click()
    until(lambda: not drawing_threads())
    expected = vqgan.decode(dalle.generate(PROMPT, 3))[::-1]
    assert all(np.array_equal(picture, np.asarray(image)) for picture, image in zip(drawn(box), expected, strict=True))
    assert re.findall("<figcaption>(.*?)</figcaption>", shown(box)) == ["0.300", "0.200", "0.100"]
    assert explored(box)[0][0] == f"Picture 1 of 3, cosine 0.300: {PROMPT}"
    assert sentence(box).endswith("The best first, by the cosine that stands below each: 0.300 to 0.100.")


def test_draw_while_it_draws_begins_again(dalle, vqgan, gate, at_once):
    box = widgets.sampler_box(dalle, vqgan, n=1)
    controls(box)["Draw"].click()
    gate.allow(2)
    until(lambda: "At code 2 of 16" in sentence(box) and gate.begun == 3)
    controls(box)["Prompt"].value = "a dog"
    controls(box)["Draw"].click()
    assert sentence(box) == "Starting “a dog” …" and len(gate.asked) == 1
    gate.allow(1)
    until(lambda: len(gate.asked) == 2)
    assert sentence(box) == "Starting “a dog” …"  # the old one does not say that it was stopped
    gate.is_open = True
    gate.allow(1)
    until(lambda: not drawing_threads())
    assert "Done: 1 picture in" in sentence(box) and alternative(box) == "Picture 1 of 1: a dog"


def test_a_kernel_that_draws_stops_its_painting(clip, dalle, vqgan, gate, paintings):
    painter, box = widgets.painter_box(clip, None, steps=9), widgets.sampler_box(dalle, vqgan)
    painting = started(painter, paintings, allow=1)
    gate.is_open = True
    controls(box)["Draw"].click()
    assert not gate.asked
    painting.allow(1)
    until(lambda: "Done" in sentence(box))
    assert "Stopped at step 2 of 9" in sentence(painter) and painting.is_closed


def test_a_stop_before_the_first_code(dalle, vqgan, gate):
    one, other = widgets.sampler_box(dalle, vqgan), widgets.sampler_box(dalle, vqgan)
    controls(one)["Draw"].click()
    until(lambda: gate.begun == 1)
    controls(other)["Draw"].click()  # waits for the code of the first one
    controls(other)["Stop"].click()
    gate.allow(1)
    until(lambda: not drawing_threads())
    assert sentence(other) == "Stopped before the first of 16 codes." and alternative(other) == "No picture yet"
    assert "Stopped at code 1 of 16" in sentence(one) and len(gate.asked) == 1


@pytest.mark.parametrize("how", ["box", "all"])
def test_a_sampler_that_is_closed_ends_its_drawing(dalle, vqgan, gate, at_once, how):
    box = widgets.sampler_box(dalle, vqgan, Ranker())
    controls(box)["Draw"].click()
    gate.allow(2)
    until(lambda: "At code 2 of 16" in sentence(box) and gate.begun == 3)
    before = shown(box)
    ipywidgets.Widget.close_all() if how == "all" else box.close()
    gate.allow(1)
    until(lambda: not drawing_threads())
    assert gate.made == 3 and shown(box) == before


def test_preparing_takes_a_third_of_the_time_at_most(dalle, vqgan, gate, monkeypatch):
    looks = []

    def prepare(run):
        looks.append(run.last.filled)
        time.sleep(0.1)

    monkeypatch.setattr(widgets._DrawRun, "prepare", prepare)
    monkeypatch.setattr(widgets, "_show_drawn", lambda answer, run: None)
    gate.is_open = True
    box = widgets.sampler_box(dalle, vqgan, n=1)
    controls(box)["Draw"].click()
    until(lambda: not drawing_threads())
    assert looks[0] == 1 and looks[-1] == 16 and len(looks) < 16


def test_what_goes_wrong_while_it_draws_or_ranks_is_a_sentence(dalle, vqgan, gate, monkeypatch):
    box = widgets.sampler_box(dalle, vqgan, Ranker(), n=2)
    controls(box)["Draw"].click()
    gate.allow(2)
    until(lambda: gate.begun == 3)
    gate.fails = RuntimeError("the memory of the <GPU> is full.")
    gate.allow(1)
    until(lambda: not drawing_threads())
    assert is_problem(box) and sentence(box) == "⚠ The memory of the &lt;GPU&gt; is full." and not has_picture(box)
    gate.fails, gate.is_open = None, True
    with monkeypatch.context() as patch:
        patch.setattr(Ranker, "similarity", lambda *_: (_ for _ in ()).throw(ZeroDivisionError("no way")))
        controls(box)["Draw"].click()
        until(lambda: not drawing_threads())
    assert is_problem(box) and sentence(box) == "⚠ ZeroDivisionError: no way" and controls(box)["Stop"].disabled
    controls(box)["Draw"].click()
    until(lambda: not drawing_threads())
    assert not is_problem(box) and "Done" in sentence(box)


def test_an_empty_prompt_is_a_sentence_and_stops_what_runs(dalle, vqgan, gate):
    box = widgets.sampler_box(dalle, vqgan)
    controls(box)["Draw"].click()
    until(lambda: gate.begun == 1)
    controls(box)["Prompt"].value = " "
    controls(box)["Draw"].click()
    gate.allow(1)
    until(lambda: not drawing_threads())
    assert is_problem(box) and "There is no prompt" in sentence(box) and len(gate.asked) == 1 and not has_picture(box)


def test_words_that_the_dalle_or_the_clip_never_read_are_noted_before_it_draws(dalle, vqgan, gate):
    box = widgets.sampler_box(dalle, vqgan, Ranker(), "a cat, unsharp", n=1)
    for _ in range(2):
        controls(box)["Draw"].click()
        assert f"{dalle.name} has never read &#x27;unsharp&#x27;" in note(box) and note(box).count("unsharp") == 2
        assert "stand-in never met &#x27;unsharp&#x27;" in note(box)
    box = widgets.sampler_box(dalle, vqgan, None, "a <zeppelin>", n=1)
    controls(box)["Draw"].click()
    assert note(box).count("zeppelin") == 1 and "a &lt;zeppelin&gt;" in shown(box)
    gate.is_open = True
    gate.allow(1)
    until(lambda: "Done" in sentence(box))
    assert "a &lt;zeppelin&gt;" in alternative(box) and note(box).count("zeppelin") == 1


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"n": 17}, {"n": True}, {"n": 2.5}, {"seed": -1}, {"seed": 2**31}, {"prompt": None}]
)
def test_wrong_arguments_of_the_sampler_raise(dalle, vqgan, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        widgets.sampler_box(dalle, vqgan, **wrong)


def test_what_is_not_drawn_is_grey_wherever_it_begins(vqgan):
    import torch

    for filled in range(17):
        codes = torch.arange(32).view(2, 4, 4) % 20
        codes.flatten(1)[:, filled:] = -1
        for image in widgets._drawn_so_far(vqgan, codes):
            cells = np.asarray(image).reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1, 3)  # [codes, pixels, 3]
            assert [(cell == 184).all() for cell in cells] == [place >= filled for place in range(16)]


# --------------------------------------------------------------------------------------- the real model


def test_with_the_pocket_model(charts):
    from mmlesson.clip import load_clip

    clip = load_clip(device="cpu")
    photo = world.photos()[0]
    texts = ["a picture of a cat", "a picture of a dog", "a picture of a person"]
    box = widgets.temperature(clip, photo.image, texts)
    np.testing.assert_allclose(charts[-1]["probabilities"], clip.classify([photo.image], texts).numpy()[0], atol=1e-6)
    controls(box)["Temperature"].value = 1.0
    np.testing.assert_allclose(
        charts[-1]["probabilities"], clip.classify([photo.image], texts, temperature=1.0).numpy()[0], atol=1e-6
    )

    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "scene.png", png(world.scene("cat").render(200)))
    controls(box)["Labels"].value = "cat, zxqv"
    controls(box)["Classify"].click()
    assert not is_problem(box) and "zxqv" in note(box)

    box = widgets.compose(clip)
    assert not is_problem(box) and has_picture(box)
