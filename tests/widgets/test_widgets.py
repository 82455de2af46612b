"""Every widget: its controls, its errors, and one look at the real model."""

import subprocess
import sys

import ipywidgets
import numpy as np
import pytest
from PIL import Image
from widget_tools import controls, fail_with, has_picture, is_problem, note, png, sentence, upload

from mmlesson import world
from mmlesson.teach import widgets


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
        monkeypatch.setattr(clip, "similarity", fail_with(error))
        controls(box)["Classify"].click()
        assert is_problem(box) and sentence(box) == f"⚠ {said}" and not has_picture(box)


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
