"""The course's controls in a notebook: try a model by hand, with nothing to type but words.

Each function returns an ipywidgets box; as the last line of a cell it shows itself.

    own_picture(clip)                    a picture of the learner's own, classified among labels of their own
    temperature(clip, image, texts)      a slider that shows what the temperature makes of the same cosines
    compose(clip)                        a scene of the learner's making: does the order of the words count?
    search_box(index)                    pictures found by a sentence, and by "more like this" and "less like that"
    painter_box(guide, vqgan)            a picture grows out of random codes until it shows what a sentence says
    token_explorer(dalle, vqgan)         what a DALL-E expects at a place of a picture, and what comes of another code there
    sampler_box(dalle, vqgan)            pictures of a sentence, drawn code by code under settings of the learner's own

What a learner does wrong (no picture, a broken file, no labels) is answered by a sentence in the widget,
never by a traceback; wrong arguments in code raise. Every control is described, every picture has a text
alternative, and nothing is told by colour alone. This is the only module that imports ipywidgets.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import html
import inspect
import io
import math
import re
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw

from mmlesson import world
from mmlesson.pixels import ImageError, load_image, thumbnail
from mmlesson.teach import figures

if TYPE_CHECKING:
    from torch import Tensor

    from mmlesson.clip import CLIP
    from mmlesson.dalle import DALLE
    from mmlesson.painter import Painting, PaintStep
    from mmlesson.search import Hit, ImageIndex
    from mmlesson.vqgan import VQGAN

SHOWN_SIDE = 360  # pixels of a picture's longer side, as a widget shows it
MOST_BARS = 10  # more bars than this no room can read
TILE = 120  # pixels of a found picture's longer side
MOST_TILES = 24
PAINTING_SIDE = 288  # pixels of a growing picture, as a widget shows it
MOST_STEPS = 1000
MOST_SEED = 2**31 - 1
REFRESH = 0.25  # seconds from one look at a growing picture to the next, at least
EXPLORED_SIDE = 240  # pixels of a picture whose places are looked at
DRAWN_SIDE = 144  # pixels of one of several pictures that are drawn together
MOST_DRAWN = 16
NOT_DRAWN = "#b8b8b8"
LAST_STEP = 20  # seconds that a kernel which exits waits for the step that is under way, at most
UPLOAD_MB = 10  # what a JupyterLab left as it comes carries to the kernel; a larger file never arrives

# Layouts and styles are dicts, which each control makes its own from: an ipywidgets.Layout is itself a widget.
LABEL_WIDTH = "9em"
STYLE = {"description_width": LABEL_WIDTH}
FIELD = {"width": "min(46em, 98%)"}
HALF_FIELD = {"width": "min(23em, 98%)"}
BUTTON = {"width": "auto", "min_width": "12em", "margin": "2px 10px 2px 2px"}
ROW = {"flex_flow": "row wrap", "align_items": "center", "margin": "2px 0"}
FRAME = {
    "border": "1px solid var(--jp-border-color2, #bbb)",
    "padding": "10px 14px",
    "margin": "4px 0",
    "overflow": "visible",
}
TEXT = "font-size: 1.15em; line-height: 1.5;"


# ------------------------------------------------------------------------------------------ widgets


def own_picture(
    clip: CLIP, labels: Sequence[str] = ("cat", "dog", "person"), template: str = "a picture of a {}"
) -> ipywidgets.VBox:
    """A picture from the learner's computer, classified among labels that they can change.

    `labels` and `template` are what the fields hold at first; `{}` stands for the label. The picture goes to
    the kernel and nowhere else. Of more than ten labels the ten likeliest are shown.
    """
    upload = ipywidgets.FileUpload(
        accept="image/*",
        multiple=False,
        description="Choose a picture",
        tooltip="Choose a picture from your computer",
        layout=BUTTON,
    )
    limits = ipywidgets.HTML(f"JPEG, PNG, WebP or GIF, up to {UPLOAD_MB} MB")
    label_field = ipywidgets.Text(
        ", ".join(labels), description="Labels", placeholder="cat, dog, person",
        tooltip="Labels, with commas between them", style=STYLE, layout=FIELD,
    )  # fmt: skip
    template_field = ipywidgets.Text(
        template, description="Prompt template", placeholder="a picture of a {}",
        tooltip="A text in which {} stands for the label", style=STYLE, layout=FIELD,
    )  # fmt: skip
    button = ipywidgets.Button(
        description="Classify",
        icon="play",
        button_style="primary",
        tooltip="Classify the picture among the labels",
        layout=BUTTON,
    )
    answer = _Answer(clip)
    answer.say("Choose a picture, then press “Classify”. The labels are yours to change, with commas between them.")
    chosen: dict = {}  # "image" and "name", once there is a picture that can be read

    @answer.shows
    def choose() -> None:
        if not upload.value:
            return
        chosen.clear()
        file = upload.value[0]
        try:
            image = load_image(bytes(file["content"]))
        except ImageError as error:
            why = re.sub(r"^the [\d,]+ bytes given", "it", str(error))
            raise ImageError(f"“{file['name']}” cannot be used: {why}") from error
        chosen.update(image=image, name=file["name"])
        answer.clear()
        answer.picture(_png(thumbnail(image, SHOWN_SIDE)), f"Your picture, {file['name']}")
        answer.say(f"“{file['name']}”, {image.width}×{image.height} pixels. Press “Classify”.")

    @answer.shows
    def classify() -> list[str]:
        if not chosen:
            raise ValueError("There is no picture yet: press “Choose a picture” first.")
        names = list(dict.fromkeys(filter(None, map(str.strip, re.split(r"[,;\n]", label_field.value)))))
        if not names:
            raise ValueError("There are no labels: write a few, with commas between them, such as cat, dog, person.")
        template = template_field.value.strip()
        if "{}" not in template:
            raise ValueError(
                f"The prompt template “{template}” has no {{}}, which stands for the label, as in “a picture of a {{}}”."
            )
        prompts = [template.replace("{}", name) for name in names]
        probabilities = _numbers(clip.classify([chosen["image"]], names, templates=[template]))[0]  # [n_labels]

        shown = (
            np.argsort(-probabilities, kind="stable")[:MOST_BARS] if len(names) > MOST_BARS else np.arange(len(names))
        )
        answer.chart(chosen["image"], [names[i] for i in shown], probabilities[shown], title=_short(chosen["name"]))
        best = int(probabilities.argmax())
        answer.say(
            f"Highest: “{prompts[best]}”, {_percent(probabilities[best])}.",
            f"The {MOST_BARS} likeliest of {len(names)} labels are shown." if len(names) > MOST_BARS else "",
            "A single label gets the whole probability, whatever the picture shows: add another."
            if len(names) == 1
            else "",
        )
        return prompts

    upload.observe(choose, names="value")
    button.on_click(classify)
    return _framed("Your own picture", _row(upload, limits), label_field, template_field, _row(button), answer)


def temperature(clip: CLIP, image, texts: Sequence[str]) -> ipywidgets.VBox:
    """softmax(cosines / temperature) of one picture and some texts, live under a slider on which the model's own is marked.

    `image` is any picture that `images.load_image` takes. Raises ValueError for no texts, ImageError where
    there is no picture.
    """
    if isinstance(texts, str) or not list(texts):
        raise ValueError("temperature needs a list of texts, such as ['a picture of a cat', 'a picture of a dog'].")
    texts = list(texts)
    image = load_image(image)
    own = float(clip.temperature)
    place = math.log10(own)
    low, high = min(-3, math.floor(place)), max(1, math.ceil(place))  # 0.001 to 10, and own lies in it
    step = (place - low) / max(
        1, round((place - low) / 0.05)
    ) or 0.05  # own is on a step: else it would move there when shown

    slider = ipywidgets.FloatLogSlider(
        own, base=10, min=low, max=high, step=step, description="Temperature", readout_format=".3g",
        tooltip="What the cosines are divided by before the softmax", style={**STYLE, "handle_color": figures.BLUE}, layout=FIELD,
    )  # fmt: skip
    scale = ipywidgets.HTML(_scale(low, high, own), layout=FIELD)
    back = ipywidgets.Button(
        description=f"Back to the model's own ({own:.3g})",
        icon="undo",
        tooltip="Set the temperature that the model learned",
        layout=BUTTON,
    )
    answer = _Answer(clip)
    cosines: list[np.ndarray] = []  # [n_texts], once: no temperature changes them

    @answer.shows
    def draw() -> list[str]:
        if not cosines:
            cosines.append(_numbers(clip.similarity([image], texts))[0])
        probabilities = _softmax(cosines[0] / slider.value)
        best = int(probabilities.argmax())
        is_own = math.isclose(slider.value, own, rel_tol=1e-6)
        whose = "the model's own" if is_own else f"the model's own: {own:.3g}"
        answer.chart(image, texts, probabilities, title=f"temperature {slider.value:.3g} ({whose})")
        answer.table(
            ("text", "cosine (stays)", "probability"),
            [
                (text, f"{cosine:+.3f}", _percent(share))
                for text, cosine, share in zip(texts, cosines[0], probabilities, strict=True)
            ],
            best,
        )
        answer.say(
            f"At temperature {slider.value:.3g} ({whose}) the highest is “{texts[best]}”, {_percent(probabilities[best])}."
        )
        return texts

    @answer.shows
    def reset() -> list[str]:
        slider.value = own  # which draws
        return texts

    slider.observe(draw, names="value")
    back.on_click(reset)
    draw()
    return _framed("What the temperature does", slider, scale, _row(back), answer)


def compose(
    clip: CLIP, first: str = "cat", second: str = "dog", background: str = "blue", relation: str = "left of"
) -> ipywidgets.VBox:
    """A scene of two objects of the learner's choice, and how well three captions match it.

    They are the true one, the same with its two objects swapped (the same words in another order), and the same
    with another background. Raises KeyError or ValueError where the pocket world has no such object, background
    or relation.
    """
    first, second = world.concept(first).name, world.concept(second).name
    world.scene(first, second, background=background, relation=relation)  # wrong arguments fail here
    names = sorted((concept.name for concept in world.concepts()), key=str.casefold)

    def dropdown(description: str, options: Iterable[str], value: str, tooltip: str) -> ipywidgets.Dropdown:
        return ipywidgets.Dropdown(
            options=list(options), value=value, description=description, tooltip=tooltip, style=STYLE, layout=HALF_FIELD
        )

    one = dropdown("First object", names, first, "The left or upper object")
    other = dropdown("Second object", names, second, "The right or lower object")
    how = dropdown("Relation", ("left of", "above"), relation, "How the first object stands to the second")
    colour = dropdown("Background", world.BACKGROUNDS, background, "The colour of the background")
    seed = ipywidgets.BoundedIntText(
        0, min=0, max=9999, description="Arrangement", tooltip="Another number: the same caption, other sizes and places",
        style=STYLE, layout=HALF_FIELD,
    )  # fmt: skip
    button = ipywidgets.Button(
        description="Draw and compare",
        icon="play",
        button_style="primary",
        tooltip="Draw the scene, compare the captions",
        layout=BUTTON,
    )
    answer = _Answer(clip)

    @answer.shows
    def compare() -> list[str]:
        if one.value == other.value:
            raise ValueError("Choose two different objects: with the same one twice, swapping them changes nothing.")
        scene = world.scene(one.value, other.value, background=colour.value, relation=how.value, seed=seed.value)
        colours = list(world.BACKGROUNDS)
        wrong = colours[(colours.index(colour.value) + len(colours) // 2) % len(colours)]
        elsewhere = world.scene(one.value, other.value, background=wrong, relation=how.value)
        kinds = ["true", "objects swapped", "wrong background"]
        captions = [scene.caption, scene.swapped().caption, elsewhere.caption]
        image = scene.render(SHOWN_SIDE)
        cosines = _numbers(clip.similarity([image], captions))[0]  # [3]
        probabilities = _softmax(cosines / clip.temperature)

        best = int(probabilities.argmax())
        verdict = (
            "The true caption wins",
            "The caption with its objects swapped wins, as if the order of the words did not count",
            "The caption with the wrong background wins",
        )[best]
        answer.chart(image, kinds, probabilities, title=scene.caption)
        rows = zip(kinds, captions, cosines, probabilities, strict=True)
        answer.table(
            ("", "caption", "cosine", "probability"),
            [(kind, caption, f"{cosine:+.3f}", _percent(share)) for kind, caption, cosine, share in rows],
            best,
        )
        answer.say(
            f"{verdict}: {_percent(probabilities[best])}. True minus swapped: {cosines[0] - cosines[1]:+.3f} in cosine."
        )
        return captions

    @answer.shows
    def change() -> None:
        answer.say(f"Changed: press “{button.description}”.")
        answer.clear()

    for control in (one, other, how, colour, seed):
        control.observe(change, names="value")
    button.on_click(compare)
    compare()
    fields = ipywidgets.Box([one, other, how, colour, seed], layout={**ROW, "max_width": "48em"})
    return _framed("Does the order of the words count?", fields, _row(button), answer)


def search_box(index: ImageIndex, text: str = "a cat", k: int = 8) -> ipywidgets.VBox:
    """Search by a sentence, then by pointing: + and − under a found picture make it an example of what is wanted or not.

    What is searched is the sum of the sentence (1), each + picture (0.5) and each − picture (-0.5). Where the index
    was calibrated and nothing reaches its threshold, the answer says so, and shows the nearest only when asked to.
    Raises ValueError for `k` outside 1…24 or an empty index.
    """
    if not len(index):
        raise ValueError("the index is empty: there is nothing to search.")
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_TILES:
        raise ValueError(f"k, how many pictures to find, is a whole number of 1 to {MOST_TILES}, not {k!r}.")
    field = ipywidgets.Text(
        text, description="Sentence", placeholder="a cat on a green background", tooltip="What the picture shows",
        style=STYLE, layout=FIELD, continuous_update=False,
    )  # fmt: skip
    count = ipywidgets.BoundedIntText(
        k,
        min=1,
        max=MOST_TILES,
        description="How many",
        tooltip="How many pictures to find, k",
        style=STYLE,
        layout=HALF_FIELD,
    )
    button = ipywidgets.Button(
        description="Search",
        icon="search",
        button_style="primary",
        tooltip="Find the pictures that fit best",
        layout=BUTTON,
    )
    clear = ipywidgets.Button(
        description="No examples", icon="times", tooltip="Forget all + and − examples", layout=BUTTON
    )
    anyway = ipywidgets.Checkbox(
        False, description="Show the nearest even where nothing fits", tooltip="Search without the calibrated threshold",
        indent=False, layout={"width": "auto"},
    )  # fmt: skip
    answer, tiles = _Answer(index.clip), ipywidgets.Box(layout={**ROW, "align_items": "stretch", "overflow": "visible"})
    answer.children = (answer.children[0], tiles, *answer.children[1:])  # below the sentence
    examples: dict[int, tuple[float, Hit]] = {}  # by the picture's number: its weight and the hit

    @answer.shows
    def search() -> list[str]:
        sentence = field.value.strip()
        parts = [(1.0, sentence)] if sentence else []
        parts += examples.values()
        try:
            if not any(weight > 0 for weight, _ in parts):
                raise ValueError(
                    "Say what to look for, or choose a picture with +: “less like this” alone describes nothing."
                )
            hits = index.search(parts if examples else sentence, count.value, min_score=-1.0 if anyway.value else None)
        except Exception:
            show([])
            raise
        show(hits)
        answer.say(_found(hits, sentence, [weight for weight, _ in examples.values()]))
        return [sentence] if sentence else []

    def show(hits: Sequence[Hit]) -> None:
        # tiles are made once, filled, emptied and hidden: a browser that is still drawing one cannot lose track
        tiles.children += tuple(_Tile(point) for _ in range(len(hits) - len(tiles.children)))
        for place, tile in enumerate(tiles.children):
            hit = hits[place] if place < len(hits) else None
            tile.show(hit, examples[hit.id][0] if hit and hit.id in examples else 0.0)

    def point(hit: Hit, weight: float) -> None:
        if examples.get(hit.id, (0.0, hit))[0] == weight:
            del examples[hit.id]  # a second press takes it back
        else:
            examples[hit.id] = (weight, hit)
        clear.description = f"No examples (now {len(examples)})" if examples else "No examples"
        search()

    def forget(_event=None) -> None:
        examples.clear()
        clear.description = "No examples"
        search()

    for control in (field, count, anyway):
        control.observe(search, names="value")
    button.on_click(search)
    clear.on_click(forget)
    search()
    return _framed("Search by what a picture shows", field, count, _row(button, clear, anyway), answer)


def _found(hits, sentence: str, weights: Sequence[float]) -> str:
    """What a search found, in words."""
    wanted = f"“{sentence}”" if sentence else ""
    more, less = sum(weight > 0 for weight in weights), sum(weight < 0 for weight in weights)
    pointed = [
        f"more like {more} picture{'s' * (more > 1)}" if more else "",
        f"less like {less} picture{'s' * (less > 1)}" if less else "",
    ]
    what = ", ".join(filter(None, [wanted, *pointed]))
    if hits:
        return f"{what}: {len(hits)} found, scores {hits[0].score:.3f} to {hits[-1].score:.3f}."
    limit = f" and fits less than the calibrated {hits.min_score:.3f}" if hits.min_score is not None else ""
    return f"{what}: nothing fits. The nearest picture scores {hits.best:.3f}{limit}."


class _Tile(ipywidgets.VBox):
    """A found picture with its score and caption, and the buttons that make it an example."""

    def __init__(self, point: Callable[[Hit, float], None]):
        self._picture, self._hit = ipywidgets.HTML(), None
        self._buttons = {}
        for sign, weight in (("+", 0.5), ("−", -0.5)):
            button = ipywidgets.Button(description=sign, layout={"width": "3.4em", "margin": "1px 4px 1px 0"})
            button.on_click(lambda _, weight=weight: point(self._hit, weight))
            self._buttons[weight] = button
        layout = {"width": f"{TILE + 20}px", "margin": "4px", "justify_content": "space-between"}
        super().__init__([self._picture, _row(*self._buttons.values())], layout=layout)

    def show(self, hit: Hit | None, weight: float) -> None:
        """`weight`: what the picture counts as an example, 0 for none. `hit` None hides the tile."""
        self._hit = hit
        self.layout.display = "none" if hit is None else None
        self._picture.value = "" if hit is None else self._figure(hit, weight)
        name = "" if hit is None else _name(hit)
        for each, button in self._buttons.items():
            button.button_style = "info" if each == weight else ""
            button.tooltip = f"{'More' if each > 0 else 'Less'} like this: {name}"

    @staticmethod
    def _figure(hit: Hit, weight: float) -> str:
        try:
            image = thumbnail(hit.image, TILE)
        except ImageError:  # its file is gone or damaged by now
            image = Image.new("RGB", (TILE, TILE), "#cccccc")
        data, name = base64.b64encode(_png(image)).decode(), _name(hit)
        mark = {0.5: "+ example, ", -0.5: "− example, "}.get(weight, "")
        return (
            f'<figure style="margin: 0; line-height: 1.3;"><img src="data:image/png;base64,{data}" alt="{_e(name)}"'
            f' width="{image.width}" height="{image.height}" style="display: block; border-radius: 4px;">'
            f"<figcaption><b>{mark}{hit.score:.3f}</b> {_e(_short(name))}</figcaption></figure>"
        )


def _name(hit: Hit) -> str:
    return hit.caption or (hit.path.name if hit.path else f"picture {hit.id}")


# ------------------------------------------------------------------------------------------ painting


def painter_box(
    clip: CLIP, vqgan: VQGAN, prompt: str = "a cat on a blue background", steps: int = 60, seed: int = 0, **options
) -> ipywidgets.VBox:
    """A picture that grows out of random codes until it shows what a sentence says, with its loss and score at every step.

    It is painted in a thread, so that the kernel is free for other cells; a kernel paints one picture at a time, so
    Start stops what this box or another one paints. Closing the box ends its painting. `prompt`, `steps` and `seed` are what
    the fields hold at first; `options` go to `painter.paint`. Raises ValueError for `steps` outside 1…1000, `seed` outside
    0…2**31-1 or an option of a wrong value, TypeError for an option that `paint` does not have.
    """
    from mmlesson import painter

    _check_whole("steps", steps, 1, MOST_STEPS)
    _check_whole("seed", seed, 0, MOST_SEED)
    named = inspect.signature(painter.paint).parameters
    painter.PaintOptions(
        steps, seed, **{name: value for name, value in options.items() if name not in named}
    )  # wrong ones fail here

    field = ipywidgets.Text(
        prompt, description="Prompt", placeholder="a cat on a blue background", style=STYLE, layout=FIELD,
        tooltip="What to paint; several parts with | between them, a weight after a colon: a cat:1 | a dog:-0.5",
    )  # fmt: skip
    count = _number_field("Steps", steps, 1, MOST_STEPS, "How many steps to paint")
    seed_field = _number_field(
        "Seed", seed, 0, MOST_SEED, "Another number: other random codes to begin with, another picture"
    )
    start = ipywidgets.Button(
        description="Start", icon="play", button_style="primary", tooltip="Paint from the beginning", layout=BUTTON
    )
    pause = ipywidgets.Button(description="Pause", icon="pause", disabled=True, layout=BUTTON)
    stop = ipywidgets.Button(
        description="Stop", icon="stop", disabled=True, tooltip="End the painting and show the best step", layout=BUTTON
    )
    answer = _Answer(clip)
    answer.growing(None, "No picture yet", "")
    answer.say("Press “Start” and watch. Other cells can run meanwhile.")
    runs: list[_PaintRun] = []  # the latest one

    def set_buttons(run: _PaintRun | None) -> None:
        paused = run is not None and run.is_paused
        pause.description, pause.icon = ("Resume", "play") if paused else ("Pause", "pause")
        pause.tooltip = "Go on painting" if paused else "Wait after this step"
        pause.disabled = stop.disabled = run is None or run.is_over

    def show(run: _PaintRun) -> None:
        if run.error is not None:
            answer.problem(run.error)
        elif run.last is None:
            answer.say(f"Stopped before the first of {run.total} steps.")
        else:
            step = run.best if run.is_over else run.last
            which = (
                f"The best of {run.last.index} steps, step {step.index}"
                if run.is_over
                else f"Step {step.index} of {run.total}"
            )
            answer.growing(
                step.image,
                f"{which}{', paused' * run.is_paused}: {run.prompt}",
                _curve(run.losses, run.scores, run.total),
            )
            if run.is_over:
                done = f"Done: {run.last.index} steps in {_duration(run.seconds)}"
                how = f"Stopped at step {run.last.index} of {run.total}" if run.is_stopped else done
                answer.say(f"{how}.", f"The best is shown: step {step.index}, {_measured(step)}.")
            else:
                left = math.ceil(run.seconds / len(run.losses) * (run.total - step.index))
                told = f"step {step.index} of {run.total}: {_measured(step)}, {left} s left."
                if run.is_paused:
                    answer.say(f"Paused at {told}")
                else:
                    answer.mutter(f"At {told}")
        set_buttons(run)

    def leave() -> None:
        while runs:
            runs.pop().leave()
        set_buttons(None)

    @answer.shows
    def begin() -> list[str]:
        leave()
        texts = [part.content for part in painter.parse_prompts(field.value)]
        clip.tokenize(texts)  # what it has to warn of, it warns of here: a warning from a thread lands anywhere
        answer.growing(None, "No picture yet", "")
        answer.say(f"Starting “{field.value.strip()}” …")
        paint = functools.partial(
            painter.paint, field.value, clip, vqgan, steps=count.value, seed=seed_field.value, **options
        )
        runs.append(_PaintRun(paint, show, field.value.strip(), count.value))
        set_buttons(runs[0])
        return texts

    def tell(_event, what: Callable[[_Run], None]) -> None:
        for run in runs:
            what(run)
            set_buttons(run)

    start.on_click(begin)
    pause.on_click(functools.partial(tell, what=_Run.pause_or_resume))
    stop.on_click(functools.partial(tell, what=_Run.stop))
    set_buttons(None)
    fields = ipywidgets.Box([count, seed_field], layout={**ROW, "max_width": "48em"})
    box = _framed("Paint what a sentence says", field, fields, _row(start, pause, stop), answer)
    _on_close(box, leave)
    return box


class _Run(threading.Thread):
    """A work of many steps in a thread of its own; a kernel has one at a time, of whatever kind.

    `begin()` returns the steps, an iterator that can be closed. The thread calls `show(run)` when there is something new to see: every
    `REFRESH` seconds, at a pause, after it, and at the end. What went wrong is in `error` then. Each kind of work overrides `took`,
    and `prepare` and `finish` where something takes long before it can be shown: while these run, the kernel waits for nothing.
    """

    kind = "working"  # the name of the thread
    _latest: _Run | None = None  # in this kernel

    def __init__(self, begin: Callable[[], Iterator], show: Callable[[_Run], None], prompt: str, total: int):
        super().__init__(name=self.kind, daemon=True)  # a daemon, and `end`: nothing waits for the whole work
        self._begin, self._show, self.prompt, self.total = begin, show, prompt, total
        self._going, self._stopping, self._showing, self._is_left = (
            threading.Event(),
            threading.Event(),
            threading.Lock(),
            False,
        )
        self._going.set()
        self.last = None  # the latest step
        self.seconds = 0.0  # of work: a pause is none
        self.is_over, self.error = False, None
        self._before, _Run._latest = _Run._latest, self
        if self._before is not None:
            self._before.stop()
        atexit.register(self.end)
        self.start()

    def took(self, steps: Iterator, step) -> None:
        """`step` has come out of `steps`."""
        self.last = step

    def prepare(self) -> None:
        """Before a look at the work under way."""

    def finish(self) -> None:
        """Before the last look, also where the work was stopped."""

    @property
    def is_paused(self) -> bool:
        return not self._going.is_set()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    def pause_or_resume(self) -> None:
        if self.is_paused:
            self._going.set()
        else:
            self._going.clear()
        if self.is_stopped or self.is_over:
            self._going.set()  # too late for a pause, also where another thread said stop a moment ago

    def stop(self) -> None:
        """After the step that is under way."""
        self._stopping.set()
        self._going.set()

    def leave(self) -> None:
        """Stop, and show nothing any more from now on."""
        with self._showing:
            self._is_left = True
        self.stop()

    def end(self) -> None:
        """Leave, and wait for the step to end: a kernel that exits in the middle of one is aborted by torch."""
        self.leave()
        self.join(LAST_STEP)

    def run(self) -> None:
        _print_into_no_cell()
        if self._before is not None:
            self._before.join()
            self._before = None
        try:
            if not self.is_stopped:
                with contextlib.closing(self._begin()) as steps:
                    self._follow(steps)
            if not self._is_left:
                self.finish()
        except Exception as error:
            self.error = error
        self.is_over = True
        atexit.unregister(self.end)
        self._tell()

    def _follow(self, steps: Iterator) -> None:
        due = -math.inf
        while not self.is_stopped:
            began = time.monotonic()
            step = next(steps, None)
            if step is None:
                return
            self.seconds += time.monotonic() - began
            self.took(steps, step)
            if self.is_paused:
                self._look()
                self._going.wait()
                due = -math.inf
            if time.monotonic() >= due and not self.is_stopped:
                due = self._look()

    def _look(self) -> float:
        """Show how far it is; returns when to show it again. Preparing takes a third of the time at most, the work gets the rest."""
        began = time.monotonic()
        if not self._is_left:
            self.prepare()
        ready = time.monotonic()
        self._tell()
        return ready + max(REFRESH, 2 * (ready - began))

    def _tell(self) -> None:
        with self._showing:
            if not self._is_left:
                self._show(self)


class _PaintRun(_Run):
    """A painting in a thread: its steps are what `painter.paint` returns."""

    kind = "painting"

    def __init__(self, begin: Callable[[], Painting], show: Callable[[_PaintRun], None], prompt: str, total: int):
        self.best: PaintStep | None = None
        self.losses: list[float] = []
        self.scores: dict[str, list[float]] = {}
        super().__init__(begin, show, prompt, total)  # which starts it

    def took(self, steps: Painting, step: PaintStep) -> None:
        self.last, self.best = step, steps.best
        self.losses.append(step.loss)
        for name, score in step.scores.items():
            self.scores.setdefault(name, []).append(score)


def _print_into_no_cell() -> None:
    """What the calling thread prints goes to the kernel's log. Jupyter would show it under whichever cell ran last."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "set_thread_parent"):  # ipykernel 7
            stream.set_thread_parent({})


def _measured(step: PaintStep) -> str:
    """The loss and the score of a step, or the score of each of several prompts, in words."""
    if len(step.scores) == 1:
        return f"loss {step.loss:.2f}, score {next(iter(step.scores.values())):.2f}"
    return f"loss {step.loss:.2f}, scores " + ", ".join(
        f"{score:.2f} (“{name}”)" for name, score in step.scores.items()
    )


def _curve(losses: Sequence[float], scores: Mapping[str, Sequence[float]], total: int) -> str:
    """The loss and up to three scores over the steps so far, as SVG: a hundredth of the time that matplotlib takes."""
    names = ["score" if len(scores) == 1 else f"score of “{_short(name)}”" for name in scores]
    lines = [("loss", losses), *zip(names, scores.values(), strict=True)][:4]
    width, height, left, right, top, bottom = 380, 220, 34, 8, 8, 34
    values = [value for _, series in lines for value in series if math.isfinite(value)]
    low, high = min([0.0, *values]), max([1.0, *values])

    def x(step: float) -> float:
        return left + (width - left - right) * (step - 1) / max(1, total - 1)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * (value - low) / (high - low)

    drawn = []
    for tick in range(math.ceil(2 * low), math.floor(2 * high) + 1):  # every half
        drawn.append(
            f'<path d="M{left} {y(tick / 2):.1f}H{width - right}" stroke="currentColor" stroke-opacity="0.2"/>'
        )
        drawn.append(f'<text x="{left - 6}" y="{y(tick / 2) + 4:.1f}" text-anchor="end">{tick / 2:g}</text>')
    for step, anchor in ((1, "start"), (total, "end")):
        drawn.append(f'<text x="{x(step):.1f}" y="{height - bottom + 16}" text-anchor="{anchor}">{step}</text>')
    drawn.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">step</text>')
    keys, told = [], []
    for (name, series), colour, dash in zip(lines, figures.SERIES, ("none", "7 4", "2 3", "9 3 2 3"), strict=True):
        stroke = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"'
        points = [(x(step), y(value)) for step, value in enumerate(series, 1) if math.isfinite(value)]
        drawn.append(f'<polyline {stroke} points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
        drawn += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in points[-1:]]
        sample = f'<svg width="30" height="8" aria-hidden="true"><path {stroke} d="M0 4H30"/></svg>'
        keys.append(
            f'<span style="margin-right: 1.4em; display: inline-block;">{sample} {_e(name)} {series[-1]:.2f}</span>'
        )
        told.append(f"{name} from {series[0]:.2f} to {series[-1]:.2f}")
    alt = f"Curves over {len(losses)} of {total} steps: {', '.join(told)}"
    return (
        f'<svg role="img" aria-label="{_e(alt)}" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' style="max-width: 100%; height: auto; display: block;" font-size="12" fill="currentColor">{"".join(drawn)}</svg>'
        f'<div style="max-width: {width}px; line-height: 1.5;">{"".join(keys)}</div>'
    )


# ------------------------------------------------------------------------------------------- drawing


def token_explorer(
    dalle: DALLE, vqgan: VQGAN, image=None, prompt: str = "a cat on a blue background", k: int = 8
) -> ipywidgets.VBox:
    """What a DALL-E expects at a place of a picture, given the caption and all codes before it; any code can be put there.

    `image` is any picture that `images.load_image` takes, None what `dalle` draws of the prompt with seed 0. The `k` likeliest codes
    are shown, the one that is there now among them or below. "Let it draw the rest" keeps the rows above the chosen one. Raises
    ValueError for `k` outside 1…10 or an empty prompt, ImageError where there is no picture, AssetError where `dalle` learned the codes
    of another VQGAN.
    """
    dalle.check_vqgan(vqgan)
    _check_whole("k", k, 1, MOST_BARS)
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"prompt is a text, such as 'a cat on a blue background', not {prompt!r}.")
    c = dalle.config
    if image is not None:
        codes = vqgan.encode(load_image(image))[0]  # [grid, grid]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # unknown words are noted below
            codes = dalle.generate(prompt, 1, seed=0)[0]
    history = [codes]  # the latest last

    field = ipywidgets.Text(
        prompt, description="Prompt", placeholder="a cat on a blue background", tooltip="The caption in front of the codes",
        style=STYLE, layout=FIELD, continuous_update=False,
    )  # fmt: skip

    middle = c.grid // 2 + 1
    row = _number_field("Row", middle, 1, c.grid, f"The row of the place, 1 to {c.grid} from above")
    column = _number_field("Column", middle, 1, c.grid, f"The column of the place, 1 to {c.grid} from the left")
    seed = _number_field("Seed", 0, 0, MOST_SEED, "Another number: another way to draw the rest")
    likeliest = ipywidgets.Button(
        description="Put the likeliest here",
        icon="star",
        button_style="primary",
        tooltip="Put the likeliest code there",
        layout=BUTTON,
    )
    undo = ipywidgets.Button(
        description="Undo", icon="undo", disabled=True, tooltip="Take the last change back", layout=BUTTON
    )
    choice = ipywidgets.Dropdown(
        options=[("", -1)],
        description="Put in",
        tooltip="A code to put there: the likeliest first",
        style=STYLE,
        layout=HALF_FIELD,
    )
    put_in = ipywidgets.Button(
        description="Put it here", icon="pencil", tooltip="Put the chosen code at the place", layout=BUTTON
    )
    rest = ipywidgets.Button(
        description="Let it draw the rest",
        icon="play",
        tooltip="Keep the rows above, draw all others anew",
        layout=BUTTON,
    )
    answer = _Answer()
    tiles: dict[int, str] = {}  # a code and its picture, as the address of an image

    def chances(codes: Tensor) -> tuple[Tensor, np.ndarray]:
        """The stream up to the place, int64 [length], and how likely each code is to come next, [n_codes]."""
        captions = dalle.text_tokens(_prompt(field))  # [1, text_length]
        before = c.text_length + c.grid * (row.value - 1) + column.value - 1
        stream = dalle.streams(captions, codes[None].to(dalle.device))[0, :before]
        return stream, _numbers(dalle.next_token(stream)[c.first_code :])

    def show(codes: Tensor, before: Tensor | None = None, told: str = "") -> None:
        stream, shares = chances(codes)
        place, filled = (row.value - 1, column.value - 1), len(stream) - c.text_length
        order = np.argsort(-shares, kind="stable")
        now, best = int(codes[place]), [int(code) for code in order[:k]]
        rank = int((shares > shares[now]).sum()) + 1

        where = f"row {row.value}, column {column.value}"
        (whole,) = vqgan.decode(codes)
        if before is None:
            read = codes.flatten().clone()
            read[filled:] = -1
            (part,) = _drawn_so_far(vqgan, read.view(1, c.grid, c.grid))
            first = part, f"What it has read of the picture: {_count(filled, 'code')}", "what it has read"
            second = whole, f"The picture, {where} outlined", "the whole picture"
        else:
            first = vqgan.decode(before)[0], f"The picture before, {where} outlined", "before"
            second = whole, f"The picture after, {where} outlined", "after"
        shown = [(_outlined(picture, *place, c.grid), alt, caption) for picture, alt, caption in (first, second)]
        _picture_codes(vqgan, tiles, [*best, now])
        answer.pictures(shown, EXPLORED_SIDE, 2, _stream(dalle, stream), _chances(shares, best, now, rank, tiles))
        choice.options = [(f"{n}: code {code}, {_fine_percent(shares[code])}", code) for n, code in enumerate(best, 1)]
        answer.say(
            told,
            f"At {where}, given the caption and {_count(filled, 'code')}, the likeliest is code {best[0]}, {_fine_percent(shares[best[0]])}.",
            f"There now: code {now}, rank {rank:,} of {c.n_codes:,}, {_fine_percent(shares[now])}.",
        )

    def change(codes: Tensor, told: str) -> None:
        show(codes, history[-1], told)  # nothing has changed where this fails
        history.append(codes)
        undo.disabled = False

    def put(code: int) -> None:
        place, codes = (row.value - 1, column.value - 1), history[-1].clone()
        if code == codes[place]:
            show(codes, told=f"Code {code} is there already.")
            return
        was, codes[place] = int(codes[place]), code
        below = (
            f"Choose row {row.value + 1} and let it draw the rest, to see what it makes of that."
            if row.value < c.grid
            else ""
        )
        change(codes, " ".join(filter(None, [f"Code {code} is there instead of code {was}.", below])))

    @answer.shows
    def look() -> None:
        show(history[-1])

    @answer.shows
    def put_likeliest() -> None:
        put(int(chances(history[-1])[1].argmax()))

    @answer.shows
    def put_chosen() -> None:
        put(choice.value)

    @answer.shows
    def draw_rest() -> None:
        kept = history[-1][: row.value - 1]
        drawn = dalle.generate(_prompt(field), 1, seed=seed.value, prefix_codes=kept if len(kept) else None)[0]
        what = (
            "The whole picture is"
            if not len(kept)
            else f"Rows {row.value} to {c.grid} are"
            if row.value < c.grid
            else "The last row is"
        )
        change(drawn, f"{what} drawn anew, with seed {seed.value}.")

    @answer.shows
    def take_back() -> None:
        if len(history) > 1:
            show(history[-2], history[-1], "The last change is taken back.")
            history.pop()
        undo.disabled = len(history) == 1

    for control in (field, row, column):
        control.observe(look, names="value")
    for button, handler in ((likeliest, put_likeliest), (undo, take_back), (put_in, put_chosen), (rest, draw_rest)):
        button.on_click(handler)
    look()
    places = ipywidgets.Box([row, column], layout={**ROW, "max_width": "48em"})
    buttons = [_row(likeliest, undo), _row(choice, put_in), _row(seed, rest)]
    return _framed("Which code comes next?", field, places, *buttons, answer)


def sampler_box(
    dalle: DALLE,
    vqgan: VQGAN,
    clip: CLIP | None = None,
    prompt: str = "a cat on a blue background",
    n: int = 8,
    seed: int = 0,
) -> ipywidgets.VBox:
    """Pictures of a sentence, drawn code by code while one watches, under settings of the learner's own.

    They are drawn in a thread, so that the kernel is free for other cells; a kernel draws or paints one thing at a time, so Draw stops
    what this box or another one does. Closing the box ends its drawing. With a `clip` the finished pictures stand in the order of
    their cosines with the sentence, the best first. `prompt`, `n` and `seed` are what the fields hold at first. Raises ValueError for a
    prompt that is no text, `n` outside 1…16 or `seed` outside 0…2**31-1, AssetError where `dalle` learned the codes of another VQGAN.
    """
    from mmlesson.dalle import GUIDANCE, TEMPERATURE

    dalle.check_vqgan(vqgan)
    _check_whole("n", n, 1, MOST_DRAWN)
    _check_whole("seed", seed, 0, MOST_SEED)
    if not isinstance(prompt, str):
        raise ValueError(f"prompt is a text, not {prompt!r}.")
    total = dalle.config.grid**2

    field = ipywidgets.Text(
        prompt,
        description="Prompt",
        placeholder="a cat on a blue background",
        tooltip="What to draw",
        style=STYLE,
        layout=FIELD,
    )

    def slider(
        description: str, value: float, least: float, most: float, step: float, tooltip: str
    ) -> ipywidgets.FloatSlider:
        return ipywidgets.FloatSlider(
            value, min=least, max=most, step=step, description=description, tooltip=tooltip, style=STYLE, layout=FIELD
        )

    count = _number_field("Pictures", n, 1, MOST_DRAWN, "How many pictures to draw together")
    seed_field = _number_field("Seed", seed, 0, MOST_SEED, "Another number: other pictures")
    heat = slider(
        "Temperature", TEMPERATURE, 0.1, 2, 0.1, "Below 1 likely codes come still more often, above 1 rare ones do"
    )
    top_k = _number_field(
        "Top-k", 0, 0, dalle.config.n_codes, "Draw from so many of the likeliest codes only; 0: from all"
    )
    guidance = slider(
        "Guidance",
        GUIDANCE,
        1,
        4,
        0.25,
        "Above 1: away from what would be drawn without a prompt, so many times as far",
    )
    start = ipywidgets.Button(
        description="Draw",
        icon="play",
        button_style="primary",
        tooltip="Draw pictures from the beginning",
        layout=BUTTON,
    )
    stop = ipywidgets.Button(
        description="Stop",
        icon="stop",
        disabled=True,
        tooltip="End the drawing and show how far it came",
        layout=BUTTON,
    )
    answer = _Answer(clip)
    answer.growing(None, "No picture yet", "")
    answer.say("Press “Draw” and watch. Other cells can run meanwhile.")
    runs: list[_DrawRun] = []  # the latest one

    def set_buttons(run: _DrawRun | None) -> None:
        stop.disabled = run is None or run.is_over

    def show(run: _DrawRun) -> None:
        if run.error is not None:
            answer.problem(run.error)
        elif run.last is None:
            answer.say(f"Stopped before the first of {run.total} codes.")
        else:
            _show_drawn(answer, run)
        set_buttons(run)

    def leave() -> None:
        while runs:
            runs.pop().leave()
        set_buttons(None)

    @answer.shows
    def begin() -> list[str]:
        leave()
        text = _prompt(field)
        dalle.text_tokens(text)  # what they have to warn of, they warn of here: a warning from a thread lands anywhere
        if clip is not None:
            clip.tokenize([text])
        answer.growing(None, "No picture yet", "")
        answer.say(f"Starting “{text}” …")
        options = {"temperature": heat.value, "top_k": top_k.value or None, "guidance": guidance.value}
        draw = functools.partial(dalle.generate_steps, text, count.value, seed_field.value, **options)
        runs.append(_DrawRun(draw, show, text, total, vqgan, clip))
        set_buttons(runs[0])
        return [text] if clip is not None else []

    def end(_event=None) -> None:
        for run in runs:
            run.stop()

    start.on_click(begin)
    stop.on_click(end)
    fields = ipywidgets.Box([count, seed_field, top_k], layout={**ROW, "max_width": "48em"})
    box = _framed("Draw what a sentence says", field, fields, heat, guidance, _row(start, stop), answer)
    _on_close(box, leave)
    return box


class _DrawRun(_Run):
    """Pictures that a DALL-E draws in a thread: the steps are those of `generate_steps`. `scores` are there once they are ranked."""

    kind = "drawing"

    def __init__(
        self,
        begin: Callable[[], Iterator],
        show: Callable[[_DrawRun], None],
        prompt: str,
        total: int,
        vqgan: VQGAN,
        clip,
    ):
        self._vqgan, self._clip = vqgan, clip
        self.images: list[Image.Image] = []
        self.scores: list[float] = []
        super().__init__(begin, show, prompt, total)  # which starts it

    def prepare(self) -> None:
        self.images = _drawn_so_far(self._vqgan, self.last.codes)

    def finish(self) -> None:
        from mmlesson.dalle import rerank

        if self.last is None:
            return
        self.prepare()
        if self._clip is not None and self.last.filled == self.total:
            ranked = rerank(self.images, self.prompt, self._clip)
            self.images, self.scores = ranked.images, ranked.scores


def _show_drawn(answer: _Answer, run: _DrawRun) -> None:
    """The pictures as far as they are drawn, and how far that is."""
    n, filled = len(run.images), run.last.filled
    far = f"code {filled} of {run.total}"
    shown = []
    for place, image in enumerate(run.images):
        score = f"{run.scores[place]:.3f}" if run.scores else ""
        told = f", cosine {score}" if score else f", {far}" if filled < run.total else ""
        shown.append((image, f"Picture {place + 1} of {n}{told}: {run.prompt}", score))
    answer.pictures(shown, PAINTING_SIDE if n == 1 else DRAWN_SIDE, columns=4)
    if not run.is_over:
        answer.mutter(f"At {far}, {math.ceil(run.seconds / filled * (run.total - filled))} s left.")
    elif filled < run.total:
        answer.say(f"Stopped at {far}. What is grey was not drawn.")
    else:
        order = (
            f"The best first, by the cosine that stands below each: {run.scores[0]:.3f} to {run.scores[-1]:.3f}."
            if run.scores
            else ""
        )
        answer.say(f"Done: {_count(n, 'picture')} in {_duration(run.seconds)}.", order)


def _on_close(box: ipywidgets.Widget, leave: Callable[[], None]) -> None:
    """Call `leave` when a box is closed, by hand or by the collector."""
    box.observe(lambda event: leave() if event.new is None else None, names="comm")


def _number_field(description: str, value: int, least: int, most: int, tooltip: str) -> ipywidgets.BoundedIntText:
    return ipywidgets.BoundedIntText(
        value, min=least, max=most, description=description, tooltip=tooltip, style=STYLE, layout=HALF_FIELD
    )


def _prompt(field: ipywidgets.Text) -> str:
    text = " ".join(field.value.split())
    if not text:
        raise ValueError("There is no prompt: write what the picture shows, such as a cat on a blue background.")
    return text


def _drawn_so_far(vqgan: VQGAN, codes: Tensor) -> list[Image.Image]:
    """Pictures of codes, int64 [n, h, w], that are -1 from the same place on in all of them: grey where nothing is drawn yet."""
    import torch

    n, h, w = codes.shape
    filled = int((codes[0] >= 0).sum())
    # the decoder looks around each code: under the grey lie those above once more, so that the border looks as if it went on
    source = torch.arange(h * w)
    while filled and source.max() >= filled:
        source = torch.where(source >= filled, source - w, source)
    images = vqgan.decode(codes.flatten(1)[:, source.clamp(min=0)].clamp(min=0).view(n, h, w))
    row, column = divmod(filled, w)
    for image in images:
        across, down = image.width // w, image.height // h  # pixels a code
        image.paste(NOT_DRAWN, (column * across, row * down, image.width, (row + 1) * down))
        image.paste(NOT_DRAWN, (0, (row + 1) * down, image.width, image.height))
    return images


def _outlined(image: Image.Image, row: int, column: int, grid: int) -> Image.Image:
    """A picture as a widget shows it, one of its `grid` × `grid` places outlined in two colours, one of which is always seen."""
    cell = max(1, EXPLORED_SIDE // grid)
    large = image.resize((grid * cell, grid * cell), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(large)
    left, top = column * cell, row * cell
    draw.rectangle((left - 2, top - 2, left + cell + 1, top + cell + 1), outline="white", width=2)
    draw.rectangle((left, top, left + cell - 1, top + cell - 1), outline=figures.MARK, width=2)
    return large


def _picture_codes(vqgan: VQGAN, tiles: dict[int, str], codes: Iterable[int]) -> None:
    """Adds to `tiles` those of the codes that it lacks: as addresses of images."""
    import torch

    missing = [code for code in dict.fromkeys(codes) if code not in tiles]
    if missing:
        for code, image in zip(missing, vqgan.code_images(torch.tensor(missing)), strict=True):
            tiles[code] = f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"


def _stream(dalle: DALLE, stream: Tensor) -> str:
    """The tokens of the caption, the last few codes before the place, and the place, as HTML."""
    names = [dalle.token_name(token) for token in stream.tolist()]
    caption, codes = names[: dalle.config.text_length], names[dalle.config.text_length :]
    padding = caption.count("padding")
    parts = [name for name in caption if name != "padding"] + ([f"padding × {padding}"] if padding else [])
    few = codes if len(codes) <= 5 else [f"… {len(codes) - 4} codes …", *codes[-4:]]
    box = "display: inline-block; border: 1px solid var(--jp-border-color2, #bbb); border-radius: 4px; padding: 0 6px; margin: 2px 4px 2px 0;"
    shown = [f'<span style="{box}">{_e(name)}</span>' for name in (*parts, *few)]
    shown.append(
        f'<span style="{box} border: 2px solid {figures.MARK}; font-weight: bold;" role="img" aria-label="the place">?</span>'
    )
    return f'<div role="group" aria-label="The stream up to the place" style="line-height: 1.6; margin: 4px 0;">{"".join(shown)}</div>'


def _chances(shares: np.ndarray, best: Sequence[int], now: int, rank: int, tiles: Mapping[int, str]) -> str:
    """The likeliest codes, each with its picture and its share as a bar, and the code that is there now; as HTML."""
    cell = "padding: 2px 12px 2px 2px; text-align: left;"
    lines = [
        "".join(f'<th scope="col" style="{cell}">{name}</th>' for name in ("rank", "picture", "code", "probability"))
    ]

    def line(number: str, code: int | None, share: float) -> str:
        picture = (
            f'<img src="{tiles[code]}" alt="Code {code} alone" width="28" height="28" style="display: block;">'
            if code in tiles
            else ""
        )
        name = "all others" if code is None else f"{code} ◀ there now" if code == now else str(code)
        weight = "bold" if code == now else "normal"
        bar = f"width: {160 * share:.1f}px; height: 0.9em; margin-right: 8px; background: {figures.BLUE};"
        bar = f'<div style="display: flex; align-items: center;"><div style="{bar}"></div>{_e(_fine_percent(share))}</div>'
        cells = (number, picture, f'<span style="font-weight: {weight};">{name}</span>', bar)
        return "".join(f'<td style="{cell}">{content}</td>' for content in cells)

    lines += [line(str(number), code, shares[code]) for number, code in enumerate(best, 1)]
    listed = list(best)
    if now not in best:
        lines.append(line(f"{rank:,}", now, shares[now]))
        listed.append(now)
    if len(listed) < len(shares):
        lines.append(line("", None, max(0.0, shares.sum() - shares[listed].sum())))
    body = "".join(f"<tr>{content}</tr>" for content in lines)
    return f'<table style="border-collapse: collapse; white-space: nowrap;" aria-label="The likeliest codes at the place">{body}</table>'


# ------------------------------------------------------------------------------ what came out of it


class _Answer(ipywidgets.VBox):
    """Where a widget says what came out: a sentence, a picture with its text alternative, a table, a note."""

    def __init__(self, clip: CLIP | None = None):
        self._clip = clip
        self._sentence, self._picture, self._table, self._note = (ipywidgets.HTML() for _ in range(4))
        super().__init__([self._sentence, self._picture, self._table, self._note])

    def shows(self, handler: Callable[[], list[str] | None]) -> Callable:
        """A callback for controls that runs `handler`; what goes wrong in it becomes a sentence.

        The handler returns the texts that it showed to the model. Words of them that the model never met are noted
        below, each time: the model's own warning comes once, and from a callback into a log that nobody opens.
        """

        @functools.wraps(handler)
        def handle(_event=None) -> None:
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", UserWarning)
                    texts = handler()
                    unknown = self._clip.unknown_words(texts) if texts else []
            except Exception as error:
                self.problem(error)
                return
            notes = list(
                dict.fromkeys(str(warning.message) for warning in caught if warning.filename == __file__)
            )  # the models', of the texts we gave
            if unknown:
                notes = [
                    text
                    for text in notes
                    if not (text.startswith(self._clip.name) and any(repr(word) in text for word in unknown))
                ]
                words = ", ".join(map(repr, unknown))
                notes.append(f"{self._clip.name} never met {words} in its training: what it makes of that is a guess.")
            self._note.value = f'<div style="{TEXT}"><b>Note.</b> {_e(" ".join(notes))}</div>' if notes else ""

        return handle

    def say(self, *sentences: str) -> None:
        """What came out, in words, which screen readers announce; said last, when all else is there."""
        self._say(" ".join(filter(None, sentences)), "result")

    def mutter(self, text: str) -> None:
        """How far it is: to be seen, and not announced at every change."""
        self._say(text, "progress")

    def problem(self, error: Exception) -> None:
        """What went wrong, in place of what was shown."""
        self.clear()
        self._say(_sentence(error), "problem")

    def _say(self, text: str, kind: str) -> None:
        sign, edge, live = "", "", ' aria-live="off"' * (kind == "progress")
        if kind == "problem":
            sign = '<span role="img" aria-label="Problem:">⚠</span> '
            edge = "border-left: 4px solid #c25b00; padding-left: 10px;"
        style = f"{TEXT} margin: 6px 2px; {edge}"
        self._sentence.value = f'<div role="status"{live} data-kind="{kind}" style="{style}">{sign}{_e(text)}</div>'

    def clear(self) -> None:
        """Nothing stays that belongs to other settings."""
        self._picture.value = self._table.value = self._note.value = ""

    def chart(self, image: Image.Image, labels: Sequence[str], probabilities: np.ndarray, title: str) -> None:
        figure = figures.probabilities(thumbnail(image, SHOWN_SIDE), list(labels), probabilities, title=title)
        self.picture(figure.png, figure.alt)

    def picture(self, png: bytes, alt: str) -> None:
        """A PNG at its own size where there is room, at the width of the notebook where there is not."""
        width, height = struct.unpack(">II", png[16:24])  # they keep the place while the browser decodes: nothing jumps
        source = base64.b64encode(png).decode()
        self._picture.value = (
            f'<img src="data:image/png;base64,{source}" alt="{_e(alt)}" width="{width}" height="{height}"'
            ' style="max-width: 100%; height: auto; display: block; border-radius: 4px;">'
        )

    def growing(self, image: Image.Image | None, alt: str, beside: str) -> None:
        """A picture that changes in its place, with HTML beside it; the browser makes it larger. None keeps the place free."""
        size = f"width: {PAINTING_SIDE}px; height: {PAINTING_SIDE}px; border-radius: 4px;"
        if image is None:
            shown = f'<div role="img" aria-label="{_e(alt)}" style="{size} border: 1px dashed currentColor; opacity: 0.5;"></div>'
        else:
            small = image if max(image.size) <= PAINTING_SIDE else thumbnail(image, PAINTING_SIDE)
            source = base64.b64encode(_png(small)).decode()
            shown = f'<img src="data:image/png;base64,{source}" alt="{_e(alt)}" decoding="sync" style="{size}">'
        row = "display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start;"
        self._picture.value = f'<div style="{row}">{shown}<div style="min-width: 0;">{beside}</div></div>'

    def pictures(
        self, shown: Sequence[tuple[Image.Image, str, str]], side: int, columns: int, above: str = "", beside: str = ""
    ) -> None:
        """Pictures with their text alternatives and what stands under them, `columns` in a row; HTML above them and beside them."""
        tiles = []
        for image, alt, caption in shown:
            source = base64.b64encode(_png(image if max(image.size) <= side else thumbnail(image, side))).decode()
            size = f"width: {side}px; height: {side}px; display: block; border-radius: 4px;"
            tiles.append(
                f'<figure style="margin: 0; line-height: 1.4;"><img src="data:image/png;base64,{source}" alt="{_e(alt)}" decoding="sync"'
                f' style="{size}">{f"<figcaption>{_e(caption)}</figcaption>" if caption else ""}</figure>'
            )
        row = "display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-start;"
        sheet = f'<div style="{row} max-width: {columns * (side + 8)}px;">{"".join(tiles)}</div>'
        sheet = (
            f'<div style="{row} column-gap: 24px;">{sheet}<div style="min-width: 0;">{beside}</div></div>'
            if beside
            else sheet
        )
        self._picture.value = above + sheet

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], best: int) -> None:
        """Rows of texts; the best one is bold and marked with ▶."""
        style = 'style="padding: 3px 16px 3px 4px; text-align: left;"'
        lines = ["".join(f'<th scope="col" {style}>{_e(name)}</th>' for name in ("", *head))]
        for number, row in enumerate(rows):
            mark, weight = (
                ('<span role="img" aria-label="highest">▶</span>', "bold") if number == best else ("", "normal")
            )
            cells = [mark, *map(_e, row)]
            lines.append(
                "".join(f'<td {style}><span style="font-weight: {weight};">{cell}</span></td>' for cell in cells)
            )
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        self._table.value = f'<table style="{TEXT} border-collapse: collapse; margin: 4px 0;">{body}</table>'


def _framed(title: str, *children: ipywidgets.Widget) -> ipywidgets.VBox:
    heading = ipywidgets.HTML(f'<div style="font-size: 1.35em; font-weight: bold; margin: 2px;">{_e(title)}</div>')
    return ipywidgets.VBox([heading, *children], layout=FRAME)


def _row(*children: ipywidgets.Widget) -> ipywidgets.HBox:
    return ipywidgets.HBox(children, layout=ROW)


def _scale(low: int, high: int, own: float) -> str:
    """The powers of ten under a slider of `FIELD` and `STYLE`, and a mark at `own`.

    The margins are those of ipywidgets' slider: description, gap and half a handle before the track; half a
    handle, gap and readout behind it.
    """

    def place(exponent: float) -> str:
        return f"position: absolute; left: {100 * (exponent - low) / (high - low):.2f}%; white-space: nowrap;"

    ticks = "".join(
        f'<span style="{place(exponent)} transform: translateX(-50%); opacity: 0.75;">{10.0**exponent:g}</span>'
        for exponent in range(low, high + 1)
    )
    mark = f'<span data-mark="own" style="{place(math.log10(own))} top: 1.3em; transform: translateX(-0.5em);">'
    mark += f'<span style="display: inline-block; width: 1em; text-align: center;">▲</span> <b>the model\'s own: {own:.3g}</b></span>'
    before = f"calc({LABEL_WIDTH} + 2 * var(--jp-widgets-inline-margin, 4px) + 6px)"
    behind = "calc(var(--jp-widgets-inline-width-tiny, 72px) + var(--jp-widgets-inline-margin, 4px) + 6px)"
    return f'<div style="position: relative; height: 2.8em; line-height: 1.3; margin: -4px {behind} 0 {before};">{ticks}{mark}</div>'


# ------------------------------------------------------------------------------- numbers and words


def _numbers(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def _percent(share: float) -> str:
    """As the charts write it."""
    return f"{share:.0%}" if share >= 0.005 or share == 0 else "<1%"


def _fine_percent(share: float) -> str:
    """For shares among many, most of them small."""
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else "<0.1%"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'s' * (n != 1)}"


def _check_whole(name: str, value, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is a whole number of {least} to {most}, not {value!r}.")


def _short(name: str) -> str:
    """A file name that fits over a chart, its beginning and its end kept."""
    return name if len(name) <= 60 else f"{name[:36]}…{name[-22:]}"


def _sentence(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # str(KeyError) adds quotes
    if not isinstance(error, (ValueError, KeyError, RuntimeError, OSError)) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text[:1].upper() + text[1:]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _e(text: str) -> str:
    return html.escape(str(text))
