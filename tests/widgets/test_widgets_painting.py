"""The widget of lesson 3: painter_box."""

import re
import time
import warnings

import ipywidgets
import pytest
from widget_tools import (
    alternative,
    controls,
    fail_with,
    has_picture,
    is_problem,
    note,
    painting_threads,
    sentence,
    shown,
    started,
    until,
)

from mmlesson.teach import widgets
from mmlesson.teach.widgets import work
from mmlesson.teach.widgets.painting import _curve


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
    assert re.fullmatch(
        r"Done: 3 steps in (less than a second|\d+ s)\. The best is shown: step 2, loss 0\.80, score 0\.20\.",
        sentence(box),
    )
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
    monkeypatch.setattr(work, "pause_after", lambda preparing: float("inf"))
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
        patch.setattr(painter, "paint", fail_with(ZeroDivisionError("no way")))
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
        assert "never met the words &#x27;unsharp&#x27;, &#x27;unicorns&#x27;" in note(box)
        assert "too long: [&#x27;a cat&#x27;, &#x27;unsharp unicorns&#x27;]" in note(box)
        until(lambda: paintings)
        paintings[0].allow(2)
        until(lambda: not painting_threads())
    assert not leaked and "unsharp" in note(box)
    assert sentence(box).endswith("step 1, loss 0.90, scores 0.10 (“a cat”), -0.90 (“unsharp unicorns”).")
    assert "score of “unsharp unicorns” from -0.90" in shown(box)
    assert "Read as: “a cat” with the weight 1, “unsharp unicorns” with the weight -0.5" in shown(box)


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
        ({"prompts": "a dog"}, TypeError),
        ({"prompt": None}, ValueError),
        ({"cutouts": 0}, ValueError),
    ],
)
def test_wrong_arguments_of_the_painter_raise(clip, paintings, wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        widgets.painter_box(clip, None, **wrong)


def test_a_curve_that_is_not_drawn_is_named():
    scores = {name: [0.1, 0.2] for name in ("one", "two", "three", "four", "five")}
    assert "Not drawn: score of “four”, score of “five”" in _curve([0.5, 0.4], scores, 2)
    del scores["four"], scores["five"]
    drawn = _curve([0.5, 0.4], scores, 2)
    assert "Not drawn" not in drawn and "score of “three” from 0.10 to 0.20" in drawn


def test_the_curve_copes_with_any_number():
    nan = float("nan")
    for losses, scores, total in [
        ([0.5], {"a": [0.5]}, 1),
        ([nan, 0.5], {"<a>": [0.5, nan], "b": [0, 0]}, 5),
        ([2.0, -1.0], {}, 2),
        ([0.5] * 3, {name: [0.1] * 3 for name in "abcdef"}, 3),
    ]:
        drawn = _curve(losses, scores, total)
        places = re.findall(r'\b(?:points|cx|cy|x|y)="([^"]*)"', drawn)
        numbers = [float(number) for place in places for number in re.split("[ ,]", place) if number]
        assert all(0 <= number <= 380 for number in numbers) and "<a>" not in drawn
        assert (
            drawn.count("<polyline") == min(4, 1 + len(scores)) == len(set(re.findall(r'dasharray="([^"]*)"', drawn)))
        )
