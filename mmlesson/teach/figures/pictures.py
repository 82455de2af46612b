"""Pictures in rows: a gallery, a table of pictures, reconstructions, a strip of film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from mmlesson.teach.figures.style import (
    INK,
    STYLE,
    Picture,
    box_of,
    finished,
    new_figure,
    show,
    show_in_box,
    tallest,
    wrap,
)


def gallery(
    images: Sequence[Image.Image], captions: Sequence[str], columns: int = 4, marks: Sequence[str] | None = None
) -> Picture:
    """Pictures in rows, each with its caption under it; `marks` adds a bold line above it ("right", "wrong").

    A line break in a caption stays one. Pictures of several shapes stand in boxes of one size.
    More than five columns have smaller pictures: a wider figure would be shrunk on its page, and its words with it.

    Raises ValueError where there is not one caption, and one mark, for each picture.
    """
    columns = max(1, min(columns, len(images)))  # no empty places beside a few pictures
    side = min(2.35, 11.75 / columns)  # inches
    size = 10 if columns <= 5 else 11.5  # points: a full row is shrunk on its page
    letters = round(110 * side / size)
    box = box_of(images)
    with matplotlib.rc_context(STYLE):
        rows = -(-len(images) // columns)
        long = max(0, tallest(captions, letters) - 3) + max(0, tallest(marks or (), letters - 2) - 1)  # lines
        line = 0.0185 * size  # inches
        height = (side * box[1] / box[0] + 0.4 + (0.25 if marks else 0) + line * long) * rows + (0.15 if marks else 0)
        figure = new_figure(side * columns, height)
        for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
            axes = figure.add_subplot(rows, columns, index + 1)
            show_in_box(axes, image, box)
            axes.set_xlabel(wrap(caption, letters), fontsize=size)
            if marks:
                axes.set_title(wrap(marks[index], letters - 2), fontsize=size, fontweight="bold")
        described = "; ".join(
            f"{caption} ({mark})" if mark else caption
            for caption, mark in zip(captions, marks or [""] * len(captions), strict=True)
        ).replace("\n", ", ")
        return finished(figure, f"{len(images)} picture{'s' * (len(images) != 1)}: {described}.")


def versus(
    rows: Mapping[str, Sequence[Image.Image]],
    marks: Mapping[str, Sequence[str]] | None = None,
    columns: Sequence[str] = (),
) -> Picture:
    """A table of pictures: a label before each row, a heading above each column, and a mark under each picture.

    rows: label → its images, as many as there are.
    marks: label → a text for each of its images (what the guide says of it, what the judge says). A row may have none.
    columns: headings from the left; the last columns may have none.

    Raises ValueError for no rows, for marks of a row that is not there or that has another number of pictures, and for
    more headings than columns.
    """
    width = max((len(pictures) for pictures in rows.values()), default=0)
    if width == 0:
        raise ValueError("a table of pictures needs at least one picture.")
    for label, texts in (marks or {}).items():
        if label not in rows:
            raise ValueError(f"there are marks for {label!r}, and there is no such row among {', '.join(rows)}.")
        if len(texts) != len(rows[label]):
            raise ValueError(f"{label!r} has {len(rows[label])} pictures and {len(texts)} marks.")
    if len(columns) > width:
        raise ValueError(f"there are {len(columns)} headings and only {width} columns.")
    with matplotlib.rc_context(STYLE):
        return finished(_table(rows, marks or {}, columns), _described(rows, marks or {}, columns))


def _table(
    rows: Mapping[str, Sequence[Image.Image]], marks: Mapping[str, Sequence[str]], columns: Sequence[str]
) -> Figure:
    width = max(map(len, rows.values()))
    side = min(2.3, max(1.5, 9.5 / width))  # inches of a picture
    letters = round(12 * side)
    lines = tallest(columns, letters) + sum(tallest(marks.get(label, ()), letters) for label in rows)
    figure = new_figure(1.25 + (side + 0.1) * width, (side + 0.1) * len(rows) + 0.185 * lines)
    table = figure.subplots(len(rows), width + 1, squeeze=False, width_ratios=(1.15, *[side] * width))
    for row, (label, pictures) in zip(table, rows.items(), strict=True):
        words = row[0].text(0.5, 0.5, wrap(label, 12), ha="center", va="center", fontsize=11, fontweight="bold")
        words.set_in_layout(False)  # else long words take the room of the pictures
        for axes in (row[0], *row[len(pictures) + 1 :]):
            axes.set_axis_off()
        for place, image in enumerate(pictures):
            axes = row[place + 1]
            show(axes, image)
            if place < len(marks.get(label, ())):
                axes.set_xlabel(wrap(marks[label][place], letters), fontsize=10)
    for axes, text in zip(table[0, 1:], columns, strict=False):  # the last columns may have no heading
        axes.set_title(wrap(text, letters), fontsize=10)
    return figure


def _described(
    rows: Mapping[str, Sequence[Image.Image]], marks: Mapping[str, Sequence[str]], columns: Sequence[str]
) -> str:
    said = []
    for label, pictures in rows.items():
        names = [columns[place] if place < len(columns) else f"picture {place + 1}" for place in range(len(pictures))]
        texts = [f": {text}" for text in marks[label]] if label in marks else [""] * len(pictures)
        said.append(f"{label} ({', '.join(f'{name}{text}' for name, text in zip(names, texts, strict=True))})")
    return f"{len(rows)} rows of pictures: {'; '.join(said)}."


def reconstructions(
    originals: Sequence[Image.Image],
    reconstructed: Sequence[Image.Image],
    captions: Sequence[str],
    rows: tuple[str, str] = ("scene", "after 144 codes"),
) -> Picture:
    """Pictures with their captions, and what was made of each under it; `rows` names the two rows.

    Under each reconstruction stands the mean absolute error of its pixels, 0…1.
    """
    errors = []
    for image, other in zip(originals, reconstructed, strict=True):
        same_size = image.resize(other.size, Image.Resampling.BOX)
        pixels, others = (np.asarray(each.convert("RGB"), dtype=float) / 255 for each in (same_size, other))
        errors.append(f"error {np.abs(pixels - others).mean():.3f}")
    n = len(originals)
    with matplotlib.rc_context(STYLE):
        figure = _table({rows[0]: originals, rows[1]: reconstructed}, {rows[1]: errors}, captions)
        described = "; ".join(f"{caption}, {error}" for caption, error in zip(captions, errors, strict=True))
        alt = f"{n} picture{'s' * (n != 1)} ({rows[0]}), and under each what was made of it ({rows[1]}): {described}."
        return finished(figure, alt)


def film(images: Sequence[Image.Image], captions: Sequence[str]) -> Picture:
    """A strip of film: pictures in their order, each with its caption under it. A caption is broken at its commas."""
    n = len(images)
    lines = ["\n".join(wrap(part, 16) for part in caption.split(", ")) for caption in captions]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.36 * n + 0.1, 1.36 * 1.32 + 0.18 * max(caption.count("\n") + 1 for caption in lines))
        axes = figure.add_subplot()
        axes.add_patch(Rectangle((0, 0), n, 1.26, color=INK, linewidth=0, zorder=-2))
        for hole in range(6 * n):
            for top in (0.035, 1.165):
                axes.add_patch(Rectangle((hole / 6 + 0.05, top), 0.065, 0.06, color="white", linewidth=0, zorder=-1))
        for place, (image, caption) in enumerate(zip(images, lines, strict=True)):
            half = 0.47 * np.array(image.size) / max(image.size)  # of a frame, its longer side across it
            extent = (place + 0.5 - half[0], place + 0.5 + half[0], 0.63 + half[1], 0.63 - half[1])
            axes.imshow(image, extent=extent, interpolation="antialiased")
            axes.text(place + 0.5, 1.31, caption, ha="center", va="top", fontsize=10)
        axes.set(xlim=(0, n), ylim=(1.28, 0), aspect="equal")
        axes.set_axis_off()
        return finished(figure, f"A film of {n} pictures: {'; '.join(captions)}.")
