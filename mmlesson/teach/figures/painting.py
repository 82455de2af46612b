"""Figures of lesson 3: codes, patches and paintings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from mmlesson.teach.figures.style import (
    FRAME,
    MARK,
    QUIET,
    SERIES,
    STYLE,
    Picture,
    finished,
    new_figure,
    readable_on,
    wrap,
)
from mmlesson.world import BACKGROUNDS


def codes_over(image: Image.Image, codes, mark: Sequence[tuple[int, int]] = ()) -> Picture:
    """A picture under the lines of its grid, and beside it the numbers of its codes, [h, w], each in its place.

    mark: the (row, column) of cells that are outlined in both. Behind each number lies a pale mean colour of its cell.
    """
    codes = np.asarray(codes)
    h, w = codes.shape
    cells = np.asarray(image.resize((w, h), Image.Resampling.BOX)) / 255  # [h, w, 3]: what each code is the name of
    with matplotlib.rc_context(STYLE):
        figure = new_figure(w, 0.49 * h + 0.4)
        left, right = figure.subplots(1, 2)  # of one size, so that a code is found in the place of its patch
        left.imshow(image, interpolation="antialiased", extent=(-0.5, w - 0.5, h - 0.5, -0.5))
        right.imshow(0.75 + 0.25 * cells)
        for (row, column), number in np.ndenumerate(codes):
            weight = "bold" if (row, column) in mark else "normal"
            right.text(column, row, str(number), ha="center", va="center", fontsize=11, fontweight=weight)
        for axes in (left, right):
            axes.set_xticks(np.arange(w - 1) + 0.5, [])
            axes.set_yticks(np.arange(h - 1) + 0.5, [])
            axes.grid(color=QUIET, linewidth=0.8, alpha=0.7)
            axes.set_box_aspect(h / w)
            axes.tick_params(length=0)
            axes.spines[:].set(visible=True, color=FRAME)
            for row, column in mark:
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=5))
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=MARK, linewidth=2.5))
        left.set_xlabel(f"{image.width}×{image.height} pixels")
        right.set_xlabel(f"{h}×{w} codes")
        alt = f"A picture of {image.width}×{image.height} pixels beside its {h}×{w} codes, "
        alt += f"{len(np.unique(codes))} of them different. The first row is {', '.join(map(str, codes[0]))}."
        outlined = ", ".join(f"row {row + 1}, column {column + 1}: code {codes[row, column]}" for row, column in mark)
        return finished(figure, alt + (f" Outlined: {outlined}." if mark else ""))


def codebook(tiles: Sequence[Image.Image], numbers: Sequence[int], columns: int = 16) -> Picture:
    """Pictures of single codes, small and square, row by row, each with the number of its code under it."""
    columns, side = min(columns, len(tiles)), 64
    rows = -(-len(tiles) // columns)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(2.2, 0.66 * columns + 0.2), 0.86 * rows + 0.1)
        axes = figure.add_subplot()
        by_colour: dict[str, list[str]] = {}
        for place, (tile, number) in enumerate(zip(tiles, numbers, strict=True)):
            row, column = divmod(place, columns)
            pixels = np.asarray(tile.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
            axes.imshow(
                pixels,
                extent=(column + 0.06, column + 0.94, 1.3 * row + 0.94, 1.3 * row + 0.06),
                interpolation="antialiased",
            )
            axes.add_patch(
                Rectangle((column + 0.06, 1.3 * row + 0.06), 0.88, 0.88, fill=False, edgecolor=FRAME, linewidth=0.8)
            )
            axes.text(column + 0.5, 1.3 * row + 0.97, str(number), ha="center", va="top", fontsize=10)
            by_colour.setdefault(_colour_name(pixels), []).append(str(number))
        axes.set(xlim=(0, columns), ylim=(1.3 * rows, 0), aspect="equal")
        axes.set_axis_off()
        described = "; ".join(f"nearest to {colour}: {', '.join(names)}" for colour, names in by_colour.items())
        return finished(
            figure, f"{len(tiles)} codes of a codebook, each as a small picture. By their mean colour, {described}."
        )


def _colour_name(pixels) -> str:
    """The background colour of the pocket world that is nearest to the mean of pixels [h, w, 3], 0…255."""
    mean = np.asarray(pixels, dtype=float).reshape(-1, 3).mean(0)
    return min(BACKGROUNDS, key=lambda name: np.abs(mean - BACKGROUNDS[name]).sum())


def patch_map(images: Sequence[Image.Image], scores, titles: Sequence[str], most: int = 6) -> Picture:
    """The verdicts of a patch discriminator on each place of some pictures, from 0 to 100: the higher, the more real.

    scores: [n, h, w] in 0…1. They are averaged to at most `most` × `most` places, so that the numbers can be read.
    They are no probabilities: the hinge loss, which trained the discriminator, only asks that scenes score higher.
    """
    scores = np.asarray(scores, dtype=float)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(3.2, 2.7 * len(images) + 0.4), 5.7)
        shown = figure.subplots(2, len(images), squeeze=False)
        described = []
        for column, (image, score, title) in enumerate(zip(images, scores, titles, strict=True)):
            coarse = _averaged(score, most)
            above, under = shown[:, column]
            above.imshow(image, interpolation="antialiased")
            shades = under.imshow(coarse, cmap="Greys_r", vmin=0, vmax=1)
            for (row, place), value in np.ndenumerate(coarse):
                colour = readable_on(shades.to_rgba(value))
                under.text(place, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=11, color=colour)
            for axes in (above, under):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(visible=True, color=QUIET)
            above.set_title(wrap(title, 26), fontsize=11)
            mean, low, high = (f"{100 * each:.0f}" for each in (score.mean(), coarse.min(), coarse.max()))
            under.set_xlabel(f"mean verdict {mean} of 100", fontsize=11)
            described.append(f"{title}: mean verdict {mean}, its places from {low} to {high}")
        shown[1, 0].set_ylabel("verdicts, 0 to 100", fontsize=11)
        alt = f"The verdicts of a patch discriminator on each place of {len(images)} picture{'s' * (len(images) != 1)}"
        return finished(figure, f"{alt}, from 0 to 100, the higher the more real. {'; '.join(described)}.")


def _averaged(values: np.ndarray, most: int) -> np.ndarray:
    """[h, w] → at most [most, most], each the mean of the block that it stands for."""
    for axis in (0, 1):
        parts = np.array_split(values, min(most, values.shape[axis]), axis=axis)
        values = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return values


def painting_curves(losses: Sequence[float], scores: Mapping[str, Sequence[float]]) -> Picture:
    """How a painting went: the loss of every step, and beside it the score of each prompt.

    The last value of each line stands at its end. The name of a single prompt stands above its line. Several prompts
    stand at the ends of theirs, each behind the sign that its line is marked with.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10.5, 3.5)
        left, right = figure.subplots(1, 2)
        described = [_lines(left, {"loss": losses}, [f"{losses[-1]:.2f}"])]
        ends = [f"{values[-1]:.2f}" for values in scores.values()]
        if len(scores) == 1:
            right.set_title(wrap(next(iter(scores)), 48), fontsize=11)
        else:
            ends = [wrap(f"{'●■◆▲'[i % 4]} {ends[i]} {name}", 28) for i, name in enumerate(scores)]
        described.append(_lines(right, scores, ends))
        left.set(xlabel="step", ylabel="loss", ylim=(0, max(losses) * 1.1))
        right.set(xlabel="step", ylabel="score (cosine)")
        for axes in (left, right):
            axes.set_xticks(range(0, len(losses) + 1, max(1, len(losses) // 4)))  # the same under both
        return finished(figure, f"A painting of {len(losses)} steps. {'; '.join(described)}.")


def _lines(axes, series: Mapping[str, Sequence[float]], ends: Sequence[str]) -> str:
    """Draws each series over its steps, 1 …, and writes its end beside its last point; returns the same in words."""
    longest = max(map(len, series.values()))
    values = np.concatenate([np.asarray(each, dtype=float) for each in series.values()])
    room = max(values.max() - values.min(), 1e-3)
    tall = [0.09 * room * (text.count("\n") + 1) for text in ends]
    places = [float(each[-1]) for each in series.values()]
    order, floor, ceiling = np.argsort(places, kind="stable"), -np.inf, values.max() + room / 20
    for i in order:  # from the lowest end upwards, none on another; then down again, none above the top
        places[i] = max(places[i], floor + tall[i] / 2)
        floor = places[i] + tall[i] / 2
    for i in order[::-1]:
        places[i] = min(places[i], ceiling - tall[i] / 2)
        ceiling = places[i] - tall[i] / 2
    described = []
    for i, (name, each) in enumerate(series.items()):
        style = dict(color=SERIES[i % len(SERIES)], linestyle=("-", "--", "-.", ":")[i % 4], linewidth=2)
        if len(series) > 1:  # a sign on a single line would ask what it means
            style |= dict(marker="osD^"[i % 4], markersize=6, markevery=_every(len(each)))
        axes.plot(range(1, len(each) + 1), each, **style)
        axes.annotate(
            ends[i], (len(each), places[i]), xytext=(9, 0), textcoords="offset points", va="center", fontsize=10,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        described.append(
            f"{name}: from {each[0]:.2f} to {each[-1]:.2f}, lowest {min(each):.2f}, highest {max(each):.2f}"
        )
    axes.set_xlim(0, longest * 1.02 + 1)
    return "; ".join(described)


def _every(n: int) -> list[int]:
    """Where a line of n points has its markers: about six of them, the last at its end."""
    return sorted({round(place) for place in np.linspace(0, n - 1, min(n, 6))})
