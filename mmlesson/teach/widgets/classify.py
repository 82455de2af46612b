"""Widgets of lesson 1, CLIP: a learner's own picture, the temperature, and the order of words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
from PIL import Image

from mmlesson import world
from mmlesson.pixels import ImageError, load_image, thumbnail
from mmlesson.teach import figures
from mmlesson.teach.widgets import parts
from mmlesson.teach.widgets.always import say_that_it_waits
from mmlesson.teach.widgets.answer import SHOWN_SIDE, Answer
from mmlesson.teach.widgets.frame import framed

if TYPE_CHECKING:
    from mmlesson.clip import CLIP

MOST_BARS = 10  # a chart with more bars is hard to read
FORMATS = "JPEG, PNG, GIF, WebP, AVIF, BMP or TIFF"  # as the error of `load_image` names them
UPLOAD_MB = 10  # JupyterLab, as it is installed, sends larger files to no kernel


# ---------------------------------------------------------------------------------------------- own picture


def own_picture(
    clip: CLIP | None = None,
    labels: Sequence[str] = ("cat", "dog", "person"),
    template: str = "a picture of a {}",
) -> ipywidgets.VBox:
    """A picture from the learner's computer, classified among labels that they can change.

    `clip` None is the photo CLIP. `labels` and `template` are what the fields hold at first; `{}` stands for the label.
    The picture goes to the kernel and nowhere else. Where there are more than ten labels, the ten likeliest are shown.
    Raises ValueError where `labels` is no list of texts or `template` is no text.
    """
    if clip is None:
        from mmlesson.clip import PHOTO, load_clip  # here, so that importing widgets costs nothing

        clip = load_clip(PHOTO)
    labels = parts.check_texts("labels", labels)
    parts.check_text("template", template)
    upload = ipywidgets.FileUpload(
        accept="image/*",
        multiple=False,
        description="Choose a picture",
        tooltip="Choose a picture from your computer",
        layout=parts.BUTTON,
    )
    limits = ipywidgets.HTML(f"{FORMATS}, up to {UPLOAD_MB} MB")
    label_field = parts.text_field(
        "Labels", ", ".join(labels), "cat, dog, person", "What the picture may show, with commas between the labels"
    )
    template_field = parts.text_field(
        "Prompt template", template, "a picture of a {}", "A text in which {} stands for the label"
    )
    button = parts.button("Classify", "play", "Compare the picture with each label", main=True)
    answer = Answer(clip)
    answer.say(
        "Choose a picture, then press “Classify”. You can change the labels: write commas between them.",
        f"{clip.name} answers." + (f" It learned from {clip.knows}." if clip.knows else ""),
    )
    chosen: list[tuple[Image.Image, str]] = []  # the picture and its name, once there is one that can be read

    @answer.handles
    def choose() -> None:
        if not upload.value:
            return
        chosen.clear()
        name = upload.value[0]["name"]
        try:
            image = _read_upload(name, bytes(upload.value[0]["content"]))
        except ImageError:
            upload.value = ()  # so that the button does not count what cannot be used
            raise
        chosen.append((image, name))
        answer.clear()
        answer.show_picture(parts.png(thumbnail(image, SHOWN_SIDE)), f"Your picture, {name}")
        answer.say(f"“{name}”, {image.width}×{image.height} pixels. Press “Classify”.")

    @answer.handles
    def classify() -> list[str]:
        if not chosen:
            raise ValueError("There is no picture yet: press “Choose a picture” first.")
        image, picture_name = chosen[0]
        names = _labels_in(label_field.value)
        template = _template_in(template_field.value)
        prompts = [template.replace("{}", name) for name in names]
        cosines = parts.as_array(clip.similarity([image], prompts))[0]  # [n_labels]
        probabilities = parts.softmax(cosines / clip.temperature)

        order = np.arange(len(names))
        if len(names) > MOST_BARS:
            order = np.argsort(-probabilities, kind="stable")[:MOST_BARS]
        shown = [names[i] for i in order]
        answer.show_chart(image, shown, probabilities[order], parts.short(picture_name), cosines[order])
        best = int(probabilities.argmax())
        answer.say(
            clip.note_on(image),
            f"Highest: “{prompts[best]}”, {parts.percent(probabilities[best])}, cosine {cosines[best]:.2f}.",
            f"The chart shows the {MOST_BARS} likeliest of {len(names)} labels." if len(names) > MOST_BARS else "",
            "A single label gets the whole probability, whatever the picture shows: add another."
            if len(names) == 1
            else "",
        )
        return prompts

    upload.observe(choose, names="value")
    button.on_click(classify)
    say_that_it_waits(answer, button)
    controls = [parts.row(upload, limits), label_field, template_field, parts.row(button)]
    return framed("Your own picture", *controls, answer)


def _read_upload(name: str, content: bytes) -> Image.Image:
    """The picture in an uploaded file. Raises ImageError with the file's name."""
    try:
        return load_image(content)
    except ImageError as error:
        why = re.sub(r"^the [\d,]+ bytes given", "it", str(error))
        raise ImageError(f"“{name}” cannot be used: {why}") from error


def _labels_in(text: str) -> list[str]:
    """The labels in a field, each once: the same label twice would share its probability with itself."""
    names = list(dict.fromkeys(filter(None, map(str.strip, re.split(r"[,;\n]", text)))))
    if not names:
        raise ValueError("There are no labels: write a few with commas between them, such as cat, dog, person.")
    return names


def _template_in(text: str) -> str:
    template = text.strip()
    if "{}" not in template:
        raise ValueError(
            f"The prompt template “{template}” has no {{}}. Write {{}} where the label stands: “a picture of a {{}}”."
        )
    return template


# ---------------------------------------------------------------------------------------------- temperature


def temperature(clip: CLIP, image, texts: Sequence[str]) -> ipywidgets.VBox:
    """softmax(cosines / temperature) of one picture and some texts, under a slider that sets the temperature.

    A mark below the slider shows the temperature that the model learned. `image` is any picture that
    `pixels.load_image` takes. Raises ValueError for no texts, ImageError where there is no picture.
    """
    texts = parts.check_texts("texts", texts)
    image = load_image(image)
    own = float(clip.temperature)
    place = math.log10(own)
    low = min(-3, math.floor(place))
    high = max(1, math.ceil(place))  # 0.001 to 10, or more where the model's own lies outside
    steps = max(1, round((place - low) / 0.05))
    step = (place - low) / steps or 0.05  # the model's own lies on a step: else the slider would move from it at once

    slider = ipywidgets.FloatLogSlider(
        own,
        base=10,
        min=low,
        max=high,
        step=step,
        description="Temperature",
        readout_format=".3g",
        tooltip="The cosines are divided by this number before the softmax",
        style={**parts.STYLE, "handle_color": figures.BLUE},
        layout=parts.FIELD,
    )
    slider.add_class("mmlesson-scaled")
    scale = ipywidgets.HTML(_scale(low, high, own), layout=parts.FIELD)
    back = parts.button(
        f"Back to the model's own ({own:.3g})", "undo", "Set the temperature that the model learned in its training"
    )
    answer = Answer(clip)
    cosines: list[np.ndarray] = []  # [n_texts], computed once: no temperature changes them

    @answer.handles
    def draw() -> list[str]:
        if not cosines:
            cosines.append(parts.as_array(clip.similarity([image], texts))[0])
        probabilities = parts.softmax(cosines[0] / slider.value)
        best = int(probabilities.argmax())
        is_own = math.isclose(slider.value, own, rel_tol=1e-6)
        whose = "the model's own" if is_own else f"the model's own: {own:.3g}"
        answer.show_chart(image, texts, probabilities, title=f"temperature {slider.value:.3g} ({whose})")
        rows = [
            (text, f"{cosine:+.3f}", parts.percent(share))
            for text, cosine, share in zip(texts, cosines[0], probabilities, strict=True)
        ]
        answer.show_table(("text", "cosine (stays)", "probability"), rows, best)
        highest = f"the highest is “{texts[best]}”, {parts.percent(probabilities[best])}"
        answer.say(f"At temperature {slider.value:.3g} ({whose}) {highest}.")
        return texts

    @answer.handles
    def reset() -> list[str]:
        slider.value = own  # which calls draw
        return texts

    slider.observe(draw, names="value")
    back.on_click(reset)
    draw()
    return framed("What the temperature does", slider, scale, parts.row(back), answer)


def _scale(low: int, high: int, own: float) -> str:
    """The powers of ten below a slider of the width `FIELD`, and a mark at `own`.

    The description stands above the track. The margins are those of ipywidgets' slider. Before the track: gap and half
    a handle. Behind it: half a handle, gap and readout.
    """

    def place(exponent: float) -> str:
        return f"position: absolute; left: {100 * (exponent - low) / (high - low):.2f}%; white-space: nowrap;"

    ticks = "".join(
        f'<span style="{place(exponent)} transform: translateX(-50%); opacity: 0.75;">{10.0**exponent:g}</span>'
        for exponent in range(low, high + 1)
    )
    triangle = '<span style="display: inline-block; width: 1em; text-align: center;">▲</span>'
    mark = (
        f'<span data-mark="own" style="{place(math.log10(own))} top: 1.3em; transform: translateX(-0.5em);">'
        f"{triangle} <b>the model's own: {own:.3g}</b></span>"
    )
    before = "calc(var(--jp-widgets-inline-margin, 4px) + 6px)"
    behind = "calc(var(--jp-widgets-inline-width-tiny, 72px) + var(--jp-widgets-inline-margin, 4px) + 6px)"
    style = f"position: relative; height: 2.8em; line-height: 1.3; margin: -4px {behind} 0 {before};"
    return f'<div style="{style}">{ticks}{mark}</div>'


# --------------------------------------------------------------------------------------------------- compose


def compose(
    clip: CLIP, first: str = "cat", second: str = "dog", background: str = "blue", relation: str = "left of"
) -> ipywidgets.VBox:
    """A scene of two objects of the learner's choice, and how well three captions match it.

    The captions are the true one, the same with its two objects swapped (the same words in another order), and the same
    with another background. Raises KeyError or ValueError where the pocket world has no such object, background or
    relation.
    """
    first, second = world.concept(first).name, world.concept(second).name
    world.scene(first, second, background=background, relation=relation)  # raises where an argument is wrong
    names = sorted((concept.name for concept in world.concepts()), key=str.casefold)

    one = parts.choice_field("First object", names, first, "The left or upper object")
    other = parts.choice_field("Second object", names, second, "The right or lower object")
    how = parts.choice_field("Relation", ("left of", "above"), relation, "Where the first object is")
    colour = parts.choice_field("Background", world.BACKGROUNDS, background, "The colour of the background")
    seed = parts.number_field(
        "Arrangement", 0, 0, 9999, "Another number gives other sizes and places with the same caption"
    )
    button = parts.button("Draw and compare", "play", "Draw the scene and compare the captions", main=True)
    answer = Answer(clip)

    @answer.handles
    def compare() -> list[str]:
        if one.value == other.value:
            raise ValueError("Choose two different objects: if both are the same, swapping them changes nothing.")
        scene = world.scene(one.value, other.value, background=colour.value, relation=how.value, seed=seed.value)
        elsewhere = world.scene(one.value, other.value, background=_wrong(colour.value), relation=how.value)
        kinds = ["true", "objects swapped", "wrong background"]
        captions = [scene.caption, scene.swapped().caption, elsewhere.caption]
        image = scene.render(SHOWN_SIDE)
        cosines = parts.as_array(clip.similarity([image], captions))[0]  # [3]
        probabilities = parts.softmax(cosines / clip.temperature)

        best = int(probabilities.argmax())
        verdicts = (
            "The true caption wins",
            "The caption with its objects swapped wins, as if the order of the words did not count",
            "The caption with the wrong background wins",
        )
        answer.show_chart(image, kinds, probabilities, title=scene.caption)
        rows = [
            (kind, caption, f"{cosine:+.3f}", parts.percent(share))
            for kind, caption, cosine, share in zip(kinds, captions, cosines, probabilities, strict=True)
        ]
        answer.show_table(("", "caption", "cosine", "probability"), rows, best)
        answer.say(
            f"{verdicts[best]}: {parts.percent(probabilities[best])}.",
            f"True minus swapped: {cosines[0] - cosines[1]:+.3f} in cosine.",
        )
        return captions

    @answer.handles
    def change() -> None:
        answer.say(f"You changed the scene: press “{button.description}”.")
        answer.clear()

    for control in (one, other, how, colour, seed):
        control.observe(change, names="value")
    button.on_click(compare)
    say_that_it_waits(answer, button)
    compare()
    fields = parts.half_fields(one, other, how, colour, seed)
    return framed("Does the order of the words count?", fields, parts.row(button), answer)


def _wrong(background: str) -> str:
    """Another background: half the list further on."""
    colours = list(world.BACKGROUNDS)
    return colours[(colours.index(background) + len(colours) // 2) % len(colours)]
