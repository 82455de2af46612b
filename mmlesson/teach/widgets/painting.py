"""The widget of lesson 3, VQGAN+CLIP: a picture that grows while one watches."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets

from mmlesson import gates
from mmlesson.teach import figures
from mmlesson.teach.widgets import parts
from mmlesson.teach.widgets.always import answer_always, say_that_it_waits
from mmlesson.teach.widgets.answer import Answer
from mmlesson.teach.widgets.frame import framed
from mmlesson.teach.widgets.work import Desk, LongWork, reason

if TYPE_CHECKING:
    from mmlesson.clip import CLIP
    from mmlesson.painter import Painting, PaintStep
    from mmlesson.vqgan import VQGAN

MOST_STEPS = 1000
MOST_SCORES = 3  # lines beside that of the loss
DASHES = ("none", "7 4", "2 3", "9 3 2 3")  # so that the lines differ without colour


def painter_box(
    clip: CLIP, vqgan: VQGAN, prompt: str = "a cat on a blue background", steps: int = 60, seed: int = 0, **options
) -> ipywidgets.VBox:
    """A picture that grows out of random codes until it shows what a sentence says.

    Beside it stand its loss and its score at each step. It is painted in a thread, so that the kernel is free for
    other cells. A kernel paints one picture at a time: Start stops what this box or another one paints. Closing the
    box ends its painting. `prompt`, `steps` and `seed` are what the fields hold at first; `options` go to
    `painter.paint`. Raises ValueError for a prompt that is no text, `steps` outside 1…1000, `seed` outside
    0…2**31-1 or an option of a wrong value, TypeError for an option that `paint` does not have.
    """
    from mmlesson import painter

    parts.check_text("prompt", prompt)
    gates.whole_number("steps", steps, 1, MOST_STEPS)
    gates.whole_number("seed", seed, 0, parts.MOST_SEED)
    # a wrong option raises here, and not in the thread
    named = inspect.signature(painter.paint).parameters.keys() - {"prompts", "clip", "vqgan", "options"}
    painter.PaintOptions(steps, seed, **{name: value for name, value in options.items() if name not in named})

    field = parts.text_field(
        "Prompt",
        prompt,
        "a cat on a blue background",
        "What to paint. Several prompts with | between them; a weight after a colon: a cat:1 | a dog:-0.5",
    )
    count = parts.number_field("Steps", steps, 1, MOST_STEPS, "How many steps to paint")
    seed_field = parts.number_field(
        "Seed", seed, 0, parts.MOST_SEED, "Another number gives other random codes to begin with, and another picture"
    )
    start = parts.button("Start", "play", "Paint from the beginning", main=True)
    pause = parts.button("Pause", "pause", "Wait after this step", disabled=True)
    stop = parts.button("Stop", "stop", "End the painting and show the best step", disabled=True)
    answer = Answer(clip)

    def set_buttons(work: LongWork | None) -> None:
        is_paused = work is not None and work.is_paused
        pause.description = "Resume" if is_paused else "Pause"
        pause.icon = "play" if is_paused else "pause"
        pause.tooltip = "Go on painting" if is_paused else "Wait after this step"
        pause.disabled = stop.disabled = work is None or work.is_over

    desk = Desk(answer, "steps", functools.partial(_show_painting, answer), set_buttons)
    answer.say("Press “Start” and watch. Other cells can run meanwhile: “Pause” and “Stop” answer all the same.")

    @answer.handles
    def begin() -> list[str]:
        desk.leave()
        texts = [part.content for part in painter.parse_prompts(field.value)]
        clip.tokenize(texts)  # a warning comes here, into the note: from the thread it would land under any cell
        paint = functools.partial(
            painter.paint, field.value, clip, vqgan, steps=count.value, seed=seed_field.value, **options
        )
        desk.start(PaintWork, paint, field.value.strip(), count.value)
        return texts

    start.on_click(begin)
    pause.on_click(desk.pause_or_resume)
    stop.on_click(desk.stop)
    answer_always(pause, stop)
    say_that_it_waits(answer, start)
    fields = parts.half_fields(count, seed_field)
    box = framed("Paint what a sentence says", field, fields, parts.row(start, pause, stop), answer)
    desk.leave_with(box)
    return box


class PaintWork(LongWork):
    """A painting in its thread: the steps are what `painter.paint` returns."""

    kind = "painting"

    def __init__(self, begin: Callable[[], Painting], show: Callable[[PaintWork], None], prompt: str, total: int):
        self.best: PaintStep | None = None
        self.losses: list[float] = []
        self.scores: dict[str, list[float]] = {}  # the name of a prompt -> its score at each step
        super().__init__(begin, show, prompt, total)  # which starts the thread

    def take_step(self, steps: Painting, step: PaintStep) -> None:
        self.last = step
        self.best = steps.best
        self.losses.append(step.loss)
        for name, score in step.scores.items():
            self.scores.setdefault(name, []).append(score)


def _show_painting(answer: Answer, work: PaintWork) -> None:
    """The latest step, or the best one at the end, with the curves and how far the painting is."""
    step = work.best if work.is_over else work.last
    which = f"Step {step.index} of {work.total}"
    if work.is_over:
        which = f"The best of {work.last.index} steps, step {step.index}"
    elif work.is_paused:
        which += ", paused"
    beside = _as_read(work.prompt) + _curve(work.losses, work.scores, work.total)
    answer.show_growing(step.image, f"{which}: {work.prompt}", beside)

    if work.is_over:
        how = f"Done: {parts.counted(work.last.index, 'step')} in {parts.duration(work.seconds)}"
        if work.is_stopped:
            how = f"Stopped at step {work.last.index} of {work.total}{reason(work)}"
        answer.say(f"{how}.", f"The best is shown: step {step.index}, {_measured(step)}.")
        return
    left = math.ceil(work.seconds / len(work.losses) * (work.total - step.index))
    progress = f"step {step.index} of {work.total}: {_measured(step)}, {left} s left."
    if work.is_paused:
        answer.say(f"Paused at {progress}")
    else:
        answer.say_progress(f"At {progress}")


def _as_read(text: str) -> str:
    """How a text with weights or several prompts was read, as HTML; "" for a sentence that stays as it is."""
    from mmlesson.painter import parse_prompts

    prompts = parse_prompts(text)
    if [(prompt.name, prompt.weight) for prompt in prompts] == [(text, 1)]:
        return ""
    return f'<div style="line-height: 1.5;">Read as: {parts.escape(", ".join(map(str, prompts)))}</div>'


def _measured(step: PaintStep) -> str:
    """The loss of a step and the score of each prompt, in words."""
    if len(step.scores) == 1:
        (score,) = step.scores.values()
        return f"loss {step.loss:.2f}, score {score:.2f}"
    scores = ", ".join(f"{score:.2f} (“{name}”)" for name, score in step.scores.items())
    return f"loss {step.loss:.2f}, scores {scores}"


# ---------------------------------------------------------------------------------------------------- curves


def _curve(losses: Sequence[float], scores: Mapping[str, Sequence[float]], total: int) -> str:
    """The loss and up to three scores over the steps so far, as SVG: it takes a hundredth of matplotlib's time."""
    names = ["score" if len(scores) == 1 else f"score of “{parts.short(name)}”" for name in scores]
    lines = [("loss", losses), *zip(names, scores.values(), strict=True)]
    lines, left_out = lines[: 1 + MOST_SCORES], lines[1 + MOST_SCORES :]
    width, height = 380, 220
    left, right, top, bottom = 34, 8, 8, 34
    values = [value for _, series in lines for value in series if math.isfinite(value)]
    low = min([0.0, *values])
    high = max([1.0, *values])

    def x(step: float) -> float:
        return left + (width - left - right) * (step - 1) / max(1, total - 1)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * (value - low) / (high - low)

    drawn = []
    for half in range(math.ceil(2 * low), math.floor(2 * high) + 1):  # a line at every half
        at = y(half / 2)
        drawn.append(f'<path d="M{left} {at:.1f}H{width - right}" stroke="currentColor" stroke-opacity="0.2"/>')
        drawn.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{half / 2:g}</text>')
    for step, anchor in ((1, "start"), (total, "end")):
        drawn.append(f'<text x="{x(step):.1f}" y="{height - bottom + 16}" text-anchor="{anchor}">{step}</text>')
    drawn.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">step</text>')

    keys = []
    described = []
    for number, (name, series) in enumerate(lines):
        colour = figures.SERIES[number]
        stroke = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{DASHES[number]}"'
        points = [(x(step), y(value)) for step, value in enumerate(series, 1) if math.isfinite(value)]
        drawn.append(f'<polyline {stroke} points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
        drawn += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in points[-1:]]
        sample = f'<svg width="30" height="8" aria-hidden="true"><path {stroke} d="M0 4H30"/></svg>'
        key = f"{sample} {parts.escape(name)} {series[-1]:.2f}"
        keys.append(f'<span style="margin-right: 1.4em; display: inline-block;">{key}</span>')
        described.append(f"{name} from {series[0]:.2f} to {series[-1]:.2f}")
    if left_out:
        keys.append(f"<span>Not drawn: {parts.escape(', '.join(name for name, _ in left_out))}</span>")
    alt = f"Curves over {len(losses)} of {total} steps: {', '.join(described)}"
    style = "max-width: 100%; height: auto; display: block;"
    return (
        f'<svg role="img" aria-label="{parts.escape(alt)}" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" style="{style}" font-size="12" fill="currentColor">{"".join(drawn)}</svg>'
        f'<div style="max-width: {width}px; line-height: 1.5;">{"".join(keys)}</div>'
    )
