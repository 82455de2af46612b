"""The second widget of lesson 4: sampler_box."""

import re
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from widget_tools import (
    PROMPT,
    Model,
    alternative,
    controls,
    drawing_threads,
    explored,
    fail_with,
    has_picture,
    is_problem,
    note,
    pixels,
    sentence,
    shown,
    started,
    until,
)

from mmlesson.dalle import GUIDANCE, TEMPERATURE
from mmlesson.teach import widgets
from mmlesson.teach.widgets import sampler
from mmlesson.teach.widgets.codes import NOT_DRAWN, drawn_so_far


class Ranker(Model):
    """A CLIP whose cosines come as a tensor, as the real one's do; the last picture is the best."""

    def similarity(self, images, texts):
        import torch

        assert len(texts) == 1
        return torch.linspace(0.1, 0.3, len(images))[:, None]


def drawn(box) -> list[np.ndarray]:
    return [pixels(source) for _, source in explored(box)]


def test_pictures_grow_code_by_code_while_the_kernel_is_free(dalle, vqgan, gate):
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
    assert re.fullmatch(r"Done: 3 pictures in (less than a second|\d+ s)\.", sentence(box)) and control["Stop"].disabled
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


def test_finished_pictures_are_ranked_and_stopped_ones_are_not(dalle, vqgan, gate):
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
    assert sentence(box).endswith("The best is first. Below each is its cosine with the sentence, 0.300 to 0.100.")


def test_draw_while_it_draws_begins_again(dalle, vqgan, gate):
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
def test_a_sampler_that_is_closed_ends_its_drawing(dalle, vqgan, gate, how):
    box = widgets.sampler_box(dalle, vqgan, Ranker())
    controls(box)["Draw"].click()
    gate.allow(2)
    until(lambda: "At code 2 of 16" in sentence(box) and gate.begun == 3)
    before = shown(box)
    ipywidgets.Widget.close_all() if how == "all" else box.close()
    gate.allow(1)
    until(lambda: not drawing_threads())
    assert gate.made == 3 and shown(box) == before


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
        patch.setattr(Ranker, "similarity", fail_with(ZeroDivisionError("no way")))
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


@pytest.mark.filterwarnings("ignore:new never met")  # the thread reads the prompt once more
def test_words_that_the_dalle_or_the_clip_never_read_are_noted_before_it_draws(dalle, vqgan, gate):
    box = widgets.sampler_box(dalle, vqgan, Ranker(), "a cat, unsharp", n=1)
    for _ in range(2):
        controls(box)["Draw"].click()
        assert f"{dalle.name} never met the word &#x27;unsharp&#x27;" in note(box) and note(box).count("unsharp") == 2
        assert "stand-in never met the word &#x27;unsharp&#x27;" in note(box)
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
        for image in drawn_so_far(vqgan, codes):
            cells = np.asarray(image).reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1, 3)  # [codes, pixels, 3]
            assert [(cell == 184).all() for cell in cells] == [place >= filled for place in range(16)]


def test_a_look_draws_as_many_pictures_as_there_is_time_for(monkeypatch):
    clock = [0.0]

    def draw(vqgan, codes):
        clock[0] += 0.04 * len(codes)  # seconds
        return [Image.new("RGB", (8, 8), (int(code), 0, 0)) for code in codes.flatten(1)[:, 0]]

    monkeypatch.setattr(sampler, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sampler, "drawn_so_far", draw)
    work = sampler.DrawWork.__new__(sampler.DrawWork)
    work._vqgan, work.images, work._next, work._share = None, [], 0, 1
    looks = []
    for number in range(1, 10):
        work.last = SimpleNamespace(codes=torch.full((8, 2, 2), number))
        began = clock[0]
        work.prepare()
        looks.append([image.getpixel((0, 0))[0] for image in work.images])
        assert clock[0] - began <= sampler.LOOK + 1e-9
        assert number in looks[-1]  # every frame is a new one
    grey = ImageColor.getrgb(NOT_DRAWN)[0]
    assert looks[0] == [1] + [grey] * 7
    assert looks[1] == [1, 2, 2, 2] + [grey] * 4
    assert all(newest - min(look) <= 3 for newest, look in list(enumerate(looks, 1))[3:])  # and none stays behind
