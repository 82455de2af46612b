"""The widgets of lesson 1: own_picture, temperature and compose."""

import re
import warnings

import ipywidgets
import numpy as np
import pytest
from PIL import Image
from widget_tools import Model, controls, has_picture, is_problem, note, png, sentence, shown, upload

from mmlesson import world
from mmlesson.pixels import ImageError
from mmlesson.teach import figures, widgets


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
    assert "“something red”, 79%, cosine 0.30" in sentence(box) and "black" not in sentence(box)
    np.testing.assert_allclose(charts[0]["cosines"], [0.3, 0.2, 0.2], rtol=1e-5)
    alt = figures.probabilities(**charts[0]).alt
    assert f'alt="{alt.replace("<", "&lt;").replace(">", "&gt;")}"' in shown(box)

    control["Labels"].value = " blue ; green,\nblue,, "
    control["Classify"].click()
    assert charts[-1]["labels"] == ["blue", "green"]


def test_a_picture_unlike_those_that_the_clip_knows_is_said_to_be(clip):
    box = widgets.own_picture(clip)
    assert "stand-in answers. It learned from colours." in sentence(box)
    upload(controls(box)["Choose a picture"], "night.png", png("black"))
    controls(box)["Classify"].click()
    assert "This picture is all black. Highest: " in sentence(box)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP", "GIF"])
def test_the_kinds_of_files_that_it_names_are_read(clip, form):
    box = widgets.own_picture(clip)
    assert form in box.children[1].children[1].value
    upload(controls(box)["Choose a picture"], "a picture", png(form=form.upper()))
    assert "30×20 pixels" in sentence(box) and has_picture(box)


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


@pytest.mark.parametrize("wrong", [{"labels": "cat, dog"}, {"labels": []}, {"labels": [1, 2]}, {"template": None}])
def test_wrong_labels_and_templates_raise(clip, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a"):
        widgets.own_picture(clip, **wrong)


def test_a_label_that_is_written_twice_counts_once(clip, charts):
    box = widgets.own_picture(clip)
    upload(controls(box)["Choose a picture"], "good.png", png())
    controls(box)["Labels"].value = "red, green, red"
    controls(box)["Classify"].click()
    assert charts[0]["labels"] == ["red", "green"]
    np.testing.assert_allclose(charts[0]["probabilities"], np.exp([2, 0]) / (np.exp(2) + 1), rtol=1e-5)


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
    real = clip.similarity

    def similarity(*arguments, **options):
        warnings.warn("stand-in never met the word 'unicorn'", stacklevel=2)
        warnings.warn("the text is too long", stacklevel=2)
        warnings.warn("somebody else's business", stacklevel=1)
        return real(*arguments, **options)

    monkeypatch.setattr(clip, "similarity", similarity)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        for _ in range(2):
            controls(box)["Classify"].click()
            assert (
                note(box).count("unicorn") == 1 and "the text is too long" in note(box) and "business" not in note(box)
            )
    assert not leaked
    controls(box)["Labels"].value = "red, green"
    monkeypatch.setattr(clip, "similarity", real)
    controls(box)["Classify"].click()
    assert note(box) == ""


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


def test_two_equal_texts_are_two_rows(clip, charts):
    box = widgets.temperature(clip, Image.new("RGB", (40, 40), "red"), ["a red thing", "a red thing"])
    assert charts[-1]["labels"] == ["a red thing"] * 2 and charts[-1]["probabilities"].tolist() == [0.5, 0.5]
    assert shown(box).count("+0.300") == 2


@pytest.mark.parametrize("texts", [[], "a red thing"])
def test_temperature_needs_texts(clip, texts):
    with pytest.raises(ValueError, match="list of texts"):
        widgets.temperature(clip, Image.new("RGB", (4, 4)), texts)


def test_temperature_needs_a_picture(clip):
    with pytest.raises(ImageError, match="does not exist"):
        widgets.temperature(clip, "nowhere.png", ["red", "green"])


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
