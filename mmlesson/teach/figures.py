"""Every picture that a lesson shows.

Each function returns a `Picture`: a PNG with a text alternative, which Jupyter shows where it is the last
line of a cell. Nothing is told by colour alone: values stand in their cells, the best is outlined.
"""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from mmlesson.pixels import ImageError, load_image, thumbnail
from mmlesson.world import BACKGROUNDS

INK, QUIET, MARK = "#1c2330", "#8a93a3", "#d1495b"  # text and axes; the rest; what to look at
BLUE, ORANGE, GREEN = "#3c6e9f", "#e08e2b", "#4f9d69"
SERIES = (BLUE, ORANGE, GREEN, MARK)  # with HATCHES, so that bars differ without colour
HATCHES = ("", "//", "..", "xx")
DPI = 100
STYLE = {
    "font.size": 11,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a learner's "$" is a dollar
}


@dataclass(frozen=True)
class Picture:
    """A finished figure: `png` bytes and `alt`, the text that says the same to those who cannot see it."""

    png: bytes = field(repr=False)
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}

    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.png)).convert("RGB")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _finished(figure: Figure, alt: str) -> Picture:
    """PNG of few colours: a third of the size, no visible difference."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    image = Image.open(buffer).convert("RGB").quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return Picture(buffer.getvalue(), alt)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or " "


def _percent(value: float) -> str:
    return f"{value:.0%}" if value >= 0.005 or value == 0 else "<1%"


def gallery(
    images: Sequence[Image.Image], captions: Sequence[str], columns: int = 4, marks: Sequence[str] | None = None
) -> Picture:
    """Pictures in rows, each with its caption under it; `marks` adds a second, bold line ("right", "wrong")."""
    with matplotlib.rc_context(STYLE):
        rows = -(-len(images) // columns)
        figure = _figure(2.35 * columns, (2.75 + (0.25 if marks else 0)) * rows)
        for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
            axes = figure.add_subplot(rows, columns, index + 1)
            axes.imshow(image, interpolation="antialiased")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="#d5d9e0")
            axes.set_xlabel(_wrap(caption, 26), fontsize=10)
            if marks:
                axes.set_title(marks[index], fontsize=10, fontweight="bold")
        told = "; ".join(
            f"{caption} ({mark})" if mark else caption
            for caption, mark in zip(captions, marks or [""] * len(captions), strict=True)
        )
        return _finished(figure, f"{len(images)} pictures: {told}.")


def similarity(
    images: Sequence[Image.Image], texts: Sequence[str], matrix, title: str = "", symbols: bool = False
) -> Picture:
    """Cosines of pictures (rows) and texts (columns), [n_images, n_texts]; the best text of each picture is outlined.

    `symbols` writes I₁ … and T₁ … beside the rows and columns, as the CLIP paper does.
    """
    matrix = np.asarray(matrix, dtype=float)
    n, m = matrix.shape
    with matplotlib.rc_context(STYLE):
        figure = _figure(2.1 + 1.12 * m, 1.5 + 0.86 * n)
        axes = figure.add_subplot()
        axes.imshow(matrix, cmap="Blues", vmin=min(0.0, matrix.min()), vmax=matrix.max() * 1.35, aspect="auto")
        for (row, column), value in np.ndenumerate(matrix):
            best = value == matrix[row].max()
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontweight="bold" if best else "normal")
            if best:
                axes.add_patch(
                    Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=MARK, linewidth=2)
                )
        names = [
            f"T{_subscript(i + 1)}\n{_wrap(text, 13)}" if symbols else _wrap(text, 13) for i, text in enumerate(texts)
        ]
        axes.set_xticks(range(m), names, fontsize=9)
        axes.xaxis.tick_top()
        axes.set_yticks(range(n), [f"I{_subscript(i + 1)}" if symbols else "" for i in range(n)])
        axes.tick_params(length=0, pad=4)
        axes.tick_params(axis="y", pad=66)
        axes.spines[:].set_visible(False)
        for row, image in enumerate(images):
            thumbnail = OffsetImage(np.asarray(image.resize((120, 120), Image.Resampling.LANCZOS)), zoom=0.44)
            box = dict(xybox=(-36, 0), xycoords=("axes fraction", "data"), boxcoords="offset points", frameon=False)
            axes.add_artist(AnnotationBbox(thumbnail, (0, row), **box))
        if title:
            figure.suptitle(title, fontsize=12)
        best = [
            f"picture {i + 1} matches “{texts[j]}” best ({matrix[i, j]:.2f})" for i, j in enumerate(matrix.argmax(1))
        ]
        return _finished(figure, f"{title or 'Matrix of cosines'}. {n} pictures by {m} texts: {'; '.join(best)}.")


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def probabilities(image: Image.Image, labels: Sequence[str], probabilities, title: str = "") -> Picture:
    """A picture beside the probability of each label, as bars with their values."""
    values = [float(value) for value in np.asarray(probabilities).ravel()]
    with matplotlib.rc_context(STYLE):
        figure = _figure(8, max(2.4, 0.9 + 0.42 * len(labels)))
        left, right = figure.subplots(1, 2, width_ratios=(1, 2.2))
        left.imshow(image, interpolation="antialiased")
        left.set(xticks=[], yticks=[])
        left.spines[:].set(visible=True, color="#d5d9e0")
        _bars(right, labels, values, _percent, 1.0)
        if title:
            figure.suptitle(title, fontsize=12)
        told = ", ".join(f"{label} {_percent(value)}" for label, value in zip(labels, values, strict=True))
        return _finished(figure, f"{title or 'Probabilities of the labels'}: {told}.")


def _bars(axes, labels, values, form, most: float, width: int = 34) -> None:
    best = max(values)
    places = range(len(labels))  # and not the labels themselves: equal ones would share a bar
    axes.set_yticks(places, [_wrap(label, width) for label in labels])
    bars = axes.barh(places, values, color=[MARK if value == best else BLUE for value in values])
    axes.bar_label(bars, [form(value) for value in values], padding=4, fontsize=10)
    axes.set_xlim(min(0, *values), most * 1.16)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def temperature(labels: Sequence[str], cosines, temperatures: Sequence[float], own: float | None = None) -> Picture:
    """softmax(cosines / T) for several temperatures T side by side; `own` marks the one that the model learned."""
    cosines = np.asarray(cosines, dtype=float).ravel()
    with matplotlib.rc_context(STYLE):
        figure = _figure(2.6 * len(temperatures) + 1.2, 0.9 + 0.5 * len(labels))
        shown = figure.subplots(1, len(temperatures), sharey=True)
        told = []
        for axes, value in zip(np.atleast_1d(shown), temperatures, strict=True):
            logits = cosines / value
            share = np.exp(logits - logits.max())
            share /= share.sum()
            _bars(axes, labels, share.tolist(), _percent, 1.0, width=22)
            learned = own is not None and abs(value - own) < 1e-9
            axes.set_title(f"T = {value:.3g}" + ("\n(the model's own)" if learned else "\n "), fontsize=11)
            told.append(f"T = {value:.3g}: " + ", ".join(_percent(each) for each in share))
        np.atleast_1d(shown)[0].set_ylim(len(labels) - 0.5, -0.5)  # the first label on top; the axis is shared
        alt = f"Softmax of the same cosines at {len(temperatures)} temperatures, for {', '.join(labels)}. {'; '.join(told)}."
        return _finished(figure, alt)


def loss_curve(losses: Sequence[float], chance: float, smooth: int = 10) -> Picture:
    """The loss of every step and its running mean, beside what blind guessing costs."""
    losses = np.asarray(losses, dtype=float)
    mean = np.convolve(losses, np.ones(smooth) / smooth, mode="valid")
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, 3.2)
        axes = figure.add_subplot()
        axes.plot(losses, color=BLUE, alpha=0.35, linewidth=1)
        axes.plot(np.arange(smooth - 1, len(losses)), mean, color=BLUE, linewidth=2.2)
        axes.axhline(chance, color=MARK, linestyle="--", linewidth=1.5)
        axes.text(len(losses), chance, f"blind guessing: {chance:.2f} ", ha="right", va="bottom", color=MARK)
        axes.text(len(losses), mean[-1], f" {mean[-1]:.2f}", va="center", fontweight="bold", color=BLUE)
        axes.set(
            xlabel="step",
            ylabel="contrastive loss",
            ylim=(0, max(losses.max(), chance) * 1.12),
            xlim=(0, len(losses) * 1.08),
        )
        alt = (
            f"Loss over {len(losses)} steps: from {losses[0]:.2f} to {mean[-1]:.2f}; blind guessing costs {chance:.2f}."
        )
        return _finished(figure, alt)


def sharpening(matrices: Mapping[int, np.ndarray]) -> Picture:
    """Matrices of cosines, [n, n], at several steps of training: the diagonal appears."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(2.5 * len(matrices), 3.1)
        told = []
        for index, (step, matrix) in enumerate(matrices.items()):
            matrix = np.asarray(matrix, dtype=float)
            diagonal = np.diag(matrix).mean()
            rest = (matrix.sum() - np.diag(matrix).sum()) / (matrix.size - len(matrix))
            axes = figure.add_subplot(1, len(matrices), index + 1)
            axes.imshow(matrix, cmap="Blues", vmin=-0.2, vmax=1)
            axes.set_title(f"step {step}", fontsize=11)
            axes.set_xlabel(f"diagonal {diagonal:.2f}\nelsewhere {rest:.2f}", fontsize=10)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="#d5d9e0")
            told.append(f"at step {step} the diagonal is {diagonal:.2f} on average, the rest {rest:.2f}")
        figure.supylabel("pictures", fontsize=10)
        figure.suptitle("texts →", fontsize=10)
        return _finished(figure, f"Matrix of cosines in training: {'; '.join(told)}.")


def grouped_bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    ylabel: str,
    chance: float | None = None,
    form=_percent,
) -> Picture:
    """Bars of several series side by side for each group, with their values; `chance` draws a line."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(max(5.5, 1.1 * len(groups) * len(series) + 1.5), 3.3)
        axes = figure.add_subplot()
        width, places = 0.8 / len(series), np.arange(len(groups))
        for index, (name, values) in enumerate(series.items()):
            at = places + (index - (len(series) - 1) / 2) * width
            colour, hatch = SERIES[index % len(SERIES)], HATCHES[index % len(HATCHES)]
            bars = axes.bar(at, values, width * 0.92, label=name, color=colour, hatch=hatch, edgecolor="white")
            axes.bar_label(bars, [form(value) for value in values], padding=2, fontsize=10)
        if chance is not None:
            axes.axhline(chance, color=INK, linestyle="--", linewidth=1.2)
            axes.text(len(groups) - 0.5, chance, " chance", va="center", fontsize=10)
        top = max(max(values) for values in series.values())
        axes.set_xticks(places, [_wrap(group, 22) for group in groups])
        axes.set(ylabel=ylabel, ylim=(0, top * 1.15))
        if top <= 1:
            axes.set_yticks(np.arange(0, top + 0.01, 0.25 if top > 0.4 else 0.1))
        axes.tick_params(axis="x", length=0)
        if len(series) > 1:
            axes.legend(frameon=False, loc="upper center", ncols=len(series), fontsize=10, bbox_to_anchor=(0.5, 1.18))
        told = []
        for name, values in series.items():
            told.append(
                f"{name}: " + ", ".join(f"{group} {form(value)}" for group, value in zip(groups, values, strict=True))
            )
        return _finished(
            figure, f"{ylabel}. {'; '.join(told)}." + (f" Chance is {form(chance)}." if chance is not None else "")
        )


def histogram(series: Mapping[str, Sequence[float]], xlabel: str, threshold: float | None = None) -> Picture:
    """How often each value occurs, for several series over one axis; `threshold` draws a line."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, 3.2)
        axes = figure.add_subplot()
        everything = np.concatenate([np.asarray(values, dtype=float) for values in series.values()])
        edges = np.linspace(everything.min(), everything.max(), 36)
        told = []
        for index, (name, values) in enumerate(series.items()):
            colour, hatch = SERIES[index % len(SERIES)], HATCHES[index % len(HATCHES)]
            axes.hist(values, edges, label=name, color=colour, hatch=hatch, edgecolor="white", alpha=0.75)
            told.append(f"{name} around {np.median(values):.2f}")
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.5)
            axes.text(threshold, axes.get_ylim()[1], f" threshold {threshold:.2f}", va="top")
        axes.set(xlabel=xlabel, ylabel="how many", yticks=[])
        axes.legend(frameon=False, fontsize=10)
        return _finished(figure, f"Histogram of {xlabel}: {'; '.join(told)}.")


def leaning(names: Sequence[str], values: Sequence[float], left: str, right: str) -> Picture:
    """Bars that lean to one of two sides, sorted; 0 is in the middle."""
    order = np.argsort(values)
    names, values = [names[i] for i in order], [float(values[i]) for i in order]
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, 0.8 + 0.3 * len(names))
        axes = figure.add_subplot()
        colours = [ORANGE if value < 0 else BLUE for value in values]
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, [f"{value:+.2f}" for value in values], padding=3, fontsize=9)
        reach = max(abs(value) for value in values) * 1.3
        axes.axvline(0, color=INK, linewidth=1)
        axes.set(xlim=(-reach, reach), xticks=[])
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(f"← nearer to “{left}”        nearer to “{right}” →", fontsize=11)
        told = ", ".join(f"{name} {value:+.2f}" for name, value in zip(names, values, strict=True))
        return _finished(figure, f"Difference of two cosines, “{right}” minus “{left}”: {told}.")


def hits(rows: Mapping[str, Sequence], columns: int = 5, right: Mapping[str, Sequence[int]] | None = None) -> Picture:
    """Search results, a row for each query: its words, then the pictures found, each with score and caption.

    rows: query → what `ImageIndex.search` returned. right: query → ids of hits that are marked as right.
    """
    with matplotlib.rc_context(STYLE):
        figure = _figure(1.9 + 1.75 * columns, 2.6 * len(rows))
        told = []
        for number, (query, found) in enumerate(rows.items()):
            axes = figure.add_subplot(len(rows), columns + 1, number * (columns + 1) + 1)
            words = axes.text(
                0.5, 0.5, _wrap(f"“{query}”", 18), ha="center", va="center", fontsize=11, fontweight="bold"
            )
            words.set_in_layout(False)  # else long words take the room of the pictures
            axes.set_axis_off()
            for place, hit in enumerate(found[:columns]):
                axes = figure.add_subplot(len(rows), columns + 1, number * (columns + 1) + place + 2)
                axes.imshow(thumbnail(hit.image, 192), interpolation="antialiased")
                is_right = right is not None and hit.id in right.get(query, ())
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(
                    visible=True, color=MARK if is_right else "#d5d9e0", linewidth=2.5 if is_right else 0.8
                )
                axes.set_title(f"{hit.score:.2f}" + (" ✓" if is_right else ""), fontsize=10, fontweight="bold")
                axes.set_xlabel(_wrap(hit.caption or "", 22), fontsize=8.5)
            names = ", ".join(f"{hit.caption or 'a picture'} ({hit.score:.2f})" for hit in found[:columns])
            told.append(f"“{query}” finds {names or 'nothing'}")
        return _finished(figure, f"Search results. {'; '.join(told)}.")


def tradeoff(
    milliseconds: Sequence[float], recalls: Sequence[float], labels: Sequence[str], exact_ms: float
) -> Picture:
    """Recall of an approximate search over the time of a query, a point for each setting; exact search beside it."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, 3.6)
        axes = figure.add_subplot()
        axes.plot(milliseconds, recalls, color=BLUE, marker="o", linewidth=1.5)
        for place, (x, y, label) in enumerate(zip(milliseconds, recalls, labels, strict=True)):
            right = place % 2 == 0  # beside the curve, in turn on either side; the last one above
            offset = (0, 7) if place == len(labels) - 1 else (8, -9) if right else (-8, -2)
            side = "left" if right else "right"
            axes.annotate(label, (x, y), xytext=offset, textcoords="offset points", fontsize=9, ha=side)
        axes.plot([exact_ms], [1.0], color=MARK, marker="s", linestyle="none")
        axes.annotate(
            "exact",
            (exact_ms, 1.0),
            xytext=(6, -13),
            textcoords="offset points",
            fontsize=10,
            color=MARK,
            fontweight="bold",
        )
        axes.set(
            xlabel="milliseconds a query", ylabel="recall@10 against exact", ylim=(min(0.9, min(recalls)) - 0.05, 1.08)
        )
        axes.set_xlim(0, max(*milliseconds, exact_ms) * 1.15)
        told = "; ".join(
            f"{label}: {y:.0%} in {x:.1f} ms" for x, y, label in zip(milliseconds, recalls, labels, strict=True)
        )
        return _finished(
            figure, f"Recall over time of approximate search. {told}; exact search: 100% in {exact_ms:.1f} ms."
        )


def growth(sizes: Sequence[int], series: Mapping[str, Sequence[float | None]], stored: Sequence[bool]) -> Picture:
    """Milliseconds a query over the size of the collection, both axes logarithmic; what was stored and not just measured is hollow."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, 3.6)
        axes = figure.add_subplot()
        told = []
        for index, (name, values) in enumerate(series.items()):
            points = [
                (size, value, old) for size, value, old in zip(sizes, values, stored, strict=True) if value is not None
            ]
            colour, marker = SERIES[index % len(SERIES)], "osD^"[index % 4]
            axes.plot(
                [size for size, *_ in points],
                [value for _, value, _ in points],
                color=colour,
                linewidth=1.5,
                label=name,
            )
            for size, value, old in points:
                face = "white" if old else colour
                axes.plot(
                    [size], [value], marker=marker, color=colour, markerfacecolor=face, markersize=8, linestyle="none"
                )
                axes.annotate(
                    f"{value:.2g}", (size, value), xytext=(0, 8), textcoords="offset points", fontsize=9, ha="center"
                )
            spoken = (f"{size:,} in {value:.2g} ms" + (" (stored)" if old else "") for size, value, old in points)
            told.append(f"{name}: {', '.join(spoken)}")
        axes.set(xscale="log", yscale="log", xlabel="pictures in the collection", ylabel="milliseconds a query")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.3, high * 1.9)
        axes.legend(frameon=False, fontsize=10, loc="upper left")
        if any(stored):
            axes.text(
                0.99,
                0.03,
                "hollow: from a stored benchmark",
                transform=axes.transAxes,
                ha="right",
                fontsize=9,
                color=INK,
            )
        return _finished(figure, f"Time of a query over the size of the collection. {'; '.join(told)}.")


# ---------------------------------------------------------------------------------------------------
# Lesson 3: codes, patches, paintings


def codes_over(image: Image.Image, codes, mark: Sequence[tuple[int, int]] = ()) -> Picture:
    """A picture under the lines of its grid, and beside it the numbers of its codes, [h, w], each in its place.

    mark: the (row, column) of cells that are outlined in both. Behind each number lies the mean colour of its cell, paled.
    """
    codes = np.asarray(codes)
    h, w = codes.shape
    cells = np.asarray(image.resize((w, h), Image.Resampling.BOX)) / 255  # [h, w, 3]: what each code is the name of
    with matplotlib.rc_context(STYLE):
        figure = _figure(w, 0.455 * h + 0.45)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.18))  # four digits need a little more than a square
        left.imshow(image, interpolation="antialiased", extent=(-0.5, w - 0.5, h - 0.5, -0.5))
        right.imshow(0.75 + 0.25 * cells, aspect="auto")
        for (row, column), number in np.ndenumerate(codes):
            weight = "bold" if (row, column) in mark else "normal"
            right.text(column, row, str(number), ha="center", va="center", fontsize=11, fontweight=weight)
        for axes in (left, right):
            axes.set_xticks(np.arange(w - 1) + 0.5, [])
            axes.set_yticks(np.arange(h - 1) + 0.5, [])
            axes.grid(color=QUIET, linewidth=0.8, alpha=0.7)
            axes.set_box_aspect(h / w if axes is left else h / w / 1.18)
            axes.tick_params(length=0)
            axes.spines[:].set(visible=True, color="#d5d9e0")
            for row, column in mark:
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=5))
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=MARK, linewidth=2.5))
        left.set_xlabel(f"{image.width}×{image.height} pixels")
        right.set_xlabel(f"{h}×{w} codes")
        alt = f"A picture of {image.width}×{image.height} pixels beside its {h}×{w} codes, {len(np.unique(codes))} of them different."
        alt += f" The first row is {', '.join(map(str, codes[0]))}."
        outlined = ", ".join(f"row {row + 1}, column {column + 1}: code {codes[row, column]}" for row, column in mark)
        return _finished(figure, alt + (f" Outlined: {outlined}." if mark else ""))


def codebook(tiles: Sequence[Image.Image], numbers: Sequence[int], columns: int = 16) -> Picture:
    """Pictures of single codes, small and square, row by row, each with the number of its code under it."""
    columns, side = min(columns, len(tiles)), 64
    rows = -(-len(tiles) // columns)
    with matplotlib.rc_context(STYLE):
        figure = _figure(max(2.2, 0.66 * columns + 0.2), 0.86 * rows + 0.1)
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
                Rectangle((column + 0.06, 1.3 * row + 0.06), 0.88, 0.88, fill=False, edgecolor="#d5d9e0", linewidth=0.8)
            )
            axes.text(column + 0.5, 1.3 * row + 0.97, str(number), ha="center", va="top", fontsize=10)
            by_colour.setdefault(_colour_name(pixels), []).append(str(number))
        axes.set(xlim=(0, columns), ylim=(1.3 * rows, 0), aspect="equal")
        axes.set_axis_off()
        told = "; ".join(f"nearest to {colour}: {', '.join(names)}" for colour, names in by_colour.items())
        return _finished(
            figure, f"{len(tiles)} codes of a codebook, each as a small picture. By their mean colour, {told}."
        )


def _colour_name(pixels) -> str:
    """The background colour of the pocket world that is nearest to the mean of pixels [h, w, 3], 0…255."""
    mean = np.asarray(pixels, dtype=float).reshape(-1, 3).mean(0)
    return min(BACKGROUNDS, key=lambda name: np.abs(mean - BACKGROUNDS[name]).sum())


def versus(
    rows: Mapping[str, Sequence[Image.Image]],
    marks: Mapping[str, Sequence[str]] | None = None,
    columns: Sequence[str] = (),
) -> Picture:
    """A table of pictures: a label before each row, `columns` over the pictures, and under each its mark.

    rows: label → images. marks: label → a text an image (what the guide says of it, what the judge says); rows may lack one.
    """
    with matplotlib.rc_context(STYLE):
        return _finished(_table(rows, marks or {}, columns), _told(rows, marks or {}, columns))


def _table(
    rows: Mapping[str, Sequence[Image.Image]], marks: Mapping[str, Sequence[str]], columns: Sequence[str]
) -> Figure:
    width = max(map(len, rows.values()))
    side = min(2.3, max(1.5, 9.5 / width))  # inches of a picture
    letters = round(12 * side)
    lines = _tallest(columns, letters) + sum(_tallest(marks.get(label, ()), letters) for label in rows)
    figure = _figure(1.25 + (side + 0.1) * width, (side + 0.1) * len(rows) + 0.185 * lines)
    table = figure.subplots(len(rows), width + 1, squeeze=False, width_ratios=(1.15, *[side] * width))
    for row, (label, pictures) in zip(table, rows.items(), strict=True):
        words = row[0].text(0.5, 0.5, _wrap(label, 12), ha="center", va="center", fontsize=11, fontweight="bold")
        words.set_in_layout(False)  # else long words take the room of the pictures
        for axes in (row[0], *row[len(pictures) + 1 :]):
            axes.set_axis_off()
        for place, image in enumerate(pictures):
            axes = row[place + 1]
            axes.imshow(image, interpolation="antialiased")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="#d5d9e0")
            if place < len(marks.get(label, ())):
                axes.set_xlabel(_wrap(marks[label][place], letters), fontsize=10)
    for axes, text in zip(table[0, 1:], columns, strict=True):
        axes.set_title(_wrap(text, letters), fontsize=10)
    return figure


def _tallest(texts: Sequence[str], letters: int) -> int:
    """Lines of the longest of some texts, 0 where there is none."""
    return max((_wrap(text, letters).count("\n") + 1 for text in texts), default=0)


def _told(rows: Mapping[str, Sequence[Image.Image]], marks: Mapping[str, Sequence[str]], columns: Sequence[str]) -> str:
    said = []
    for label, pictures in rows.items():
        names = [columns[place] if place < len(columns) else f"picture {place + 1}" for place in range(len(pictures))]
        texts = [f": {text}" for text in marks.get(label, ())] + [""] * len(pictures)
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
    with matplotlib.rc_context(STYLE):
        figure = _table({rows[0]: originals, rows[1]: reconstructed}, {rows[1]: errors}, captions)
        told = "; ".join(f"{caption}, {error}" for caption, error in zip(captions, errors, strict=True))
        return _finished(
            figure, f"{len(originals)} pictures ({rows[0]}), and under each what was made of it ({rows[1]}): {told}."
        )


def patch_map(images: Sequence[Image.Image], scores, titles: Sequence[str], most: int = 6) -> Picture:
    """What a patch discriminator says of each place of pictures: how real it looks in per cent, on the picture and as shades under it.

    scores: [n, h, w] in 0…1, averaged to at most `most` × `most` places, so that the numbers can be read.
    """
    scores = np.asarray(scores, dtype=float)
    with matplotlib.rc_context(STYLE):
        figure = _figure(max(3.2, 2.7 * len(images) + 0.4), 5.7)
        shown = figure.subplots(2, len(images), squeeze=False)
        told = []
        for column, (image, score, title) in enumerate(zip(images, scores, titles, strict=True)):
            coarse = _averaged(score, most)
            h, w = coarse.shape
            above, under = shown[:, column]
            above.imshow(image, interpolation="antialiased", extent=(-0.5, w - 0.5, h - 0.5, -0.5))
            under.imshow(coarse, cmap="Greys_r", vmin=0, vmax=1)
            for (row, place), value in np.ndenumerate(coarse):
                under.text(
                    place,
                    row,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=11,
                    color="white" if value < 0.5 else INK,
                )
            for axes in (above, under):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(visible=True, color=QUIET)
            above.set_title(_wrap(title, 26), fontsize=11)
            under.set_xlabel(f"{_percent(score.mean())} real on average", fontsize=11)
            low, high = coarse.min(), coarse.max()
            told.append(
                f"{title}: {_percent(score.mean())} on average, its places from {_percent(low)} to {_percent(high)}"
            )
        shown[1, 0].set_ylabel("how real, in per cent", fontsize=11)
        return _finished(
            figure, f"How real a patch discriminator finds each place of {len(images)} pictures. {'; '.join(told)}."
        )


def _averaged(values: np.ndarray, most: int) -> np.ndarray:
    """[h, w] → at most [most, most], each the mean of the block that it stands for."""
    for axis in (0, 1):
        parts = np.array_split(values, min(most, values.shape[axis]), axis=axis)
        values = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return values


def film(images: Sequence[Image.Image], captions: Sequence[str]) -> Picture:
    """A strip of film: pictures in the order in which they came, each with its caption under it, broken at commas."""
    n = len(images)
    lines = ["\n".join(_wrap(part, 16) for part in caption.split(", ")) for caption in captions]
    with matplotlib.rc_context(STYLE):
        figure = _figure(1.36 * n + 0.1, 1.36 * 1.32 + 0.18 * max(caption.count("\n") + 1 for caption in lines))
        axes = figure.add_subplot()
        axes.add_patch(Rectangle((0, 0), n, 1.26, color=INK, linewidth=0, zorder=-2))
        for hole in range(6 * n):
            for top in (0.035, 1.165):
                axes.add_patch(Rectangle((hole / 6 + 0.05, top), 0.065, 0.06, color="white", linewidth=0, zorder=-1))
        for place, (image, caption) in enumerate(zip(images, lines, strict=True)):
            axes.imshow(image, extent=(place + 0.03, place + 0.97, 1.1, 0.16), interpolation="antialiased")
            axes.text(place + 0.5, 1.31, caption, ha="center", va="top", fontsize=10)
        axes.set(xlim=(0, n), ylim=(1.28, 0), aspect="equal")
        axes.set_axis_off()
        return _finished(figure, f"A film of {n} pictures: {'; '.join(captions)}.")


def painting_curves(losses: Sequence[float], scores: Mapping[str, Sequence[float]]) -> Picture:
    """How a painting went: the loss of every step, and beside it the score of each prompt; the last values stand at the ends."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(10.5, 3.5)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
        told = [_lines(left, {"loss": losses}, [f"{losses[-1]:.2f}"])]
        signs = "●■◆▲" if len(scores) > 1 else " "  # the marker of the line that an end belongs to
        ends = [
            _wrap(f"{signs[i % len(signs)]} {values[-1]:.2f} {name}", 28)
            for i, (name, values) in enumerate(scores.items())
        ]
        told.append(_lines(right, scores, ends))
        left.set(xlabel="step", ylabel="loss", ylim=(0, max(losses) * 1.1))
        right.set(xlabel="step", ylabel="score (cosine)")
        return _finished(figure, f"A painting of {len(losses)} steps. {'; '.join(told)}.")


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
    told = []
    for i, (name, each) in enumerate(series.items()):
        style = dict(
            color=SERIES[i % len(SERIES)], linestyle=("-", "--", "-.", ":")[i % 4], marker="osD^"[i % 4], markersize=6
        )
        steps = range(1, len(each) + 1)
        axes.plot(steps, each, linewidth=2, markevery=_every(len(each)), **style)
        axes.annotate(
            ends[i], (len(each), places[i]), xytext=(9, 0), textcoords="offset points", va="center", fontsize=10,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        told.append(f"{name}: from {each[0]:.2f} to {each[-1]:.2f}, lowest {min(each):.2f}, highest {max(each):.2f}")
    axes.set_xlim(0, longest * 1.02 + 1)
    return "; ".join(told)


def _every(n: int) -> list[int]:
    """Where a line of n points has its markers: about six of them, the last at its end."""
    return sorted({round(place) for place in np.linspace(0, n - 1, min(n, 6))})


@dataclass(frozen=True)
class Animation:
    """A film that moves by itself: `gif` bytes, shown `width` × `height` pixels large, and `alt`, what it shows in words.

    Viewers that show no HTML, and readers who asked their system for less motion, get `png`, the last picture.
    """

    gif: bytes = field(repr=False)
    png: bytes = field(repr=False)
    alt: str
    width: int
    height: int

    def _repr_mimebundle_(self, include=None, exclude=None):
        moving, still = (base64.b64encode(each).decode() for each in (self.gif, self.png))
        size = f'width="{self.width}" height="{self.height}"'
        page = (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="data:image/png;base64,{still}">'
            f'<img src="data:image/gif;base64,{moving}" alt="{html.escape(self.alt)}" {size}></picture>'
        )
        shown = {"alt": self.alt, "width": self.width, "height": self.height}
        return {"text/html": page, "image/png": self.png, "text/plain": self.alt}, {"image/png": shown}


def animation(
    images: Sequence[Image.Image], alt: str, fps: float = 12, scale: float = 3, most: int = 300_000
) -> Animation:
    """Pictures of one size as a film that repeats, shown `scale` times as large as they are; the last is held for two seconds.

    `alt` says what happens in it. `most` is the size in bytes that the film has to fit: colours are taken away, pixels that
    hardly change are left as they were, and only where that does not do, pictures are left out. Raises ImageError for no
    picture, different sizes or an `fps` outside 0.1…50, ValueError where `alt` says nothing.
    """
    if not alt.strip():
        raise ValueError("an animation needs a text alternative: say in `alt` what happens in it.")
    frames = [load_image(image) for image in images]
    if not frames:
        raise ImageError("an animation needs at least one picture.")
    if len({frame.size for frame in frames}) > 1:
        raise ImageError("the pictures of an animation must all have the same size.")
    if not 0.1 <= fps <= 50:
        raise ImageError(f"fps is pictures a second, from 0.1 to 50, not {fps}.")
    every = 1
    while True:
        kept = frames[::-1][::every][::-1]  # the last is always among them
        for colours, tolerance in ((128, 6), (96, 10), (64, 14), (48, 20)):
            gif = _gif(kept, every / fps, colours, tolerance)
            if len(gif) <= most:
                break
        if len(gif) <= most or len(kept) == 1:
            break
        every += 1
    buffer = io.BytesIO()
    frames[-1].quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return Animation(gif, buffer.getvalue(), alt, round(frames[0].width * scale), round(frames[0].height * scale))


def _gif(frames: list[Image.Image], seconds: float, colours: int, tolerance: int) -> bytes:
    """A GIF with one palette for all frames; a pixel stays as it was until it has changed by more than `tolerance`, 0…255."""
    shown, settled = np.asarray(frames[0]).astype(np.int16), []
    for frame in frames:
        pixels = np.asarray(frame).astype(np.int16)
        changed = np.abs(pixels - shown).max(-1, keepdims=True) > tolerance
        shown = np.where(changed, pixels, shown)
        settled.append(shown.astype(np.uint8))
    palette = Image.fromarray(np.concatenate(settled)).quantize(colours, Image.Quantize.MEDIANCUT)
    indexed = [Image.fromarray(each).quantize(palette=palette, dither=Image.Dither.NONE) for each in settled]
    durations = [round(100 * seconds) * 10] * (len(frames) - 1) + [
        2000
    ]  # milliseconds, in whole hundredths of a second
    buffer = io.BytesIO()
    indexed[0].save(buffer, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------
# Lesson 4: streams, guesses, samples

PALE = {ORANGE: "#fbe6cc", BLUE: "#d9e5f1", GREEN: "#dcebdc"}  # behind words


def sizes(parameters: Mapping[str, float], mark: str | None = None) -> Picture:
    """Numbers of parameters as bars over a logarithmic axis, each with its number in words; the bar of `mark` is bold and outlined.

    parameters: name → how many. Raises ValueError for none, for one that is not above 0, and for a `mark` that is not among them.
    """
    names, values = list(parameters), [float(value) for value in parameters.values()]
    if not values or min(values) <= 0:
        raise ValueError("a logarithmic axis shows numbers above 0, one or more.")
    if mark is not None and mark not in names:
        raise ValueError(f"there is no {mark!r} among {', '.join(names)}.")
    first, last = int(np.floor(np.log10(min(values) / 3))), int(np.floor(np.log10(max(values))))  # powers of ten
    every = -(-(last + 1 - first) // 7)
    with matplotlib.rc_context(STYLE):
        figure = _figure(8, 1 + 0.46 * len(names))
        axes = figure.add_subplot()
        bars = axes.barh(range(len(names)), values, height=0.66, color=BLUE)
        for place, (name, value, bar) in enumerate(zip(names, values, bars, strict=True)):
            weight = "bold" if name == mark else "normal"
            axes.annotate(
                _in_words(value),
                (value, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontweight=weight,
                fontsize=11,
            )
            if name == mark:
                bar.set(edgecolor=MARK, linewidth=2.5)
        axes.set(xscale="log", xlim=(10.0**first, max(values) * 10 ** (0.2 * (last + 1 - first))))
        axes.set_xlabel(f"parameters; each line is {10**every:,} times the one before")
        axes.minorticks_off()
        powers = range(first, last + 1, every)
        axes.set_xticks(
            [10.0**power for power in powers],
            [_in_words(10.0**power).replace(" ", "\n") for power in powers],
            fontsize=10,
        )
        axes.set_yticks(range(len(names)), [_wrap(name, 24) for name in names])
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set_fontweight("bold" if name == mark else "normal")
        axes.grid(axis="x", color="#d5d9e0", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.invert_yaxis()
        told = "; ".join(
            f"{name}: {_in_words(value)}" + (" (marked)" if name == mark else "")
            for name, value in zip(names, values, strict=True)
        )
        return _finished(figure, f"Numbers of parameters on a logarithmic axis. {told}.")


def _in_words(number: float) -> str:
    """7300000 → "7.3 million": three digits and a word."""
    number = float(f"{number:.3g}")
    for size, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= size:
            return f"{number / size:.3g}{word}"
    return f"{number:.3g}"


def stream(names: Sequence[str], codes, tiles: Sequence[Image.Image] | None = None, shown: int = 24) -> Picture:
    """One stream of tokens as boxes in reading order: those of the caption with their words, then the picture's codes with their numbers.

    names: what `DALLE.token_name` says of each text token; "padding" is a quiet dot. codes: integers [h, w], a row of the picture a line,
    or [n], 12 a line; the first `shown` have boxes, and `tiles`, where given, holds a picture of each of these. The small numbers are
    places in the stream, from 1. Raises ValueError where there are not as many tiles as boxes.
    """
    codes = np.asarray(codes)
    columns, codes = codes.shape[1] if codes.ndim == 2 else 12, codes.ravel().tolist()
    boxed, n, total = codes[:shown], len(names), len(names) + len(codes)
    if tiles is not None and len(tiles) != len(boxed):
        raise ValueError(f"{len(boxed)} codes are shown, and there are {len(tiles)} tiles.")
    wide, tall = 0.76, 0.38 if tiles is None else 0.98  # of a code, in inches, as everything here
    reach, places, x, y = columns * wide, [], 0.0, 0.34
    for name in names:
        width = 0.24 if name == "padding" else 0.2 + 0.09 * max(2, len(name))
        if x + width > reach:
            x, y = 0.0, y + 0.64
        places.append((x, y, width))
        x += width + 0.06
    top = y + 1.06  # of the codes
    places += [
        (place % columns * wide, top + place // columns * (tall + 0.24), wide - 0.06) for place in range(len(boxed))
    ]
    x, y = (0.0, top) if not boxed else (places[-1][0] + wide, places[-1][1])  # of the codes that have no box
    with matplotlib.rc_context(STYLE):
        figure = _figure(reach + 1.1, y + tall + 0.32)
        axes = figure.add_subplot()
        for place, (left, upper, width) in enumerate(places):
            is_code, blank = place >= n, place < n and names[place] == "padding"
            colour, height = (BLUE, tall) if is_code else (ORANGE, 0.38)
            edge = dict(edgecolor=QUIET if blank else colour, linewidth=0.8 if blank else 1.2)
            axes.add_patch(
                Rectangle((left, upper), width, height, facecolor="white" if blank else PALE[colour], **edge)
            )
            word = str(boxed[place - n]) if is_code else "·" if blank else names[place]
            words = (
                dict(ha="center", va="center", color=QUIET, fontweight="bold")
                if blank
                else dict(ha="center", va="center")
            )
            axes.text(left + width / 2, upper + height - 0.19, word, **words)
            if is_code and tiles is not None:
                pixels = np.asarray(tiles[place - n].convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))
                axes.imshow(pixels, extent=(left + 0.07, left + width - 0.07, upper + 0.63, upper + 0.07), zorder=2)
            if place + 1 in (1, n, n + 1, total):
                axes.text(left + width / 2, upper + height + 0.03, str(place + 1), ha="center", va="top", fontsize=9)
        axes.text(0, 0.2, f"caption: {n} tokens" + (" (· is padding)" if "padding" in names else ""), fontweight="bold")
        axes.text(0, top - 0.14, f"picture: {len(codes)} codes", fontweight="bold")
        if len(boxed) < len(codes):
            axes.text(x + 0.05, y + tall - 0.19, f"… {len(codes) - len(boxed)} more", va="center")
            axes.text(x + 0.95, y + tall + 0.03, str(total), ha="right", va="top", fontsize=9)
        axes.set(xlim=(-0.03, reach + 1.05), ylim=(y + tall + 0.26, 0), aspect="equal")
        axes.set_axis_off()
        words = [name for name in names if name != "padding"]
        blanks = f", and padding {n - len(words)} times" if len(words) < n else ""
        rest = f", and {len(codes) - len(boxed)} more" if len(boxed) < len(codes) else ""
        told = f"caption: {n} tokens, at places 1 to {n}: {', '.join(words)}{blanks}"
        told += f"; picture: {len(codes)} codes, at places {n + 1} to {total}: {', '.join(map(str, boxed))}{rest}"
        return _finished(figure, f"A stream of {total} tokens. {told}.")


def causal_mask(text_length: int, n_codes: int) -> Picture:
    """Which token of a stream (row) may look at which (column): itself and those before it; a caption's tokens come first, then codes.

    Raises ValueError where there is not one token of each kind.
    """
    if text_length < 1 or n_codes < 1:
        raise ValueError("a stream has at least one token of text and one code.")
    length = text_length + n_codes
    is_code = np.arange(length) >= text_length
    names = (
        "never: what has not been said yet",
        "caption looks at caption",
        "picture looks at caption",
        "picture looks at picture",
    )
    kind = np.tril(1 + is_code[:, None].astype(int) + is_code)  # [length, length], numbers of names
    counts = np.bincount(kind.ravel(), minlength=4)
    with matplotlib.rc_context(STYLE):
        figure = _figure(6.6, 6.2)
        axes = figure.add_subplot()
        shades = ListedColormap(["white", PALE[ORANGE], PALE[GREEN], PALE[BLUE]])
        axes.imshow(kind, cmap=shades, vmin=0, vmax=3, extent=(0, length, length, 0), interpolation="nearest")
        steps = np.arange(length + 1)
        axes.step(steps, steps, where="post", color=INK, linewidth=1)  # the edge of what may be looked at
        for line in (axes.axhline, axes.axvline):
            line(text_length, color=INK, linewidth=1.4, linestyle="--")
        middle = text_length + n_codes / 2
        words = dict(ha="center", va="center", fontsize=12)
        axes.text(text_length + 0.36 * n_codes, text_length + 0.7 * n_codes, "picture looks\nat picture", **words)
        axes.text(text_length / 2, middle, "picture looks at caption", rotation=90, **words)
        axes.text(
            text_length + 0.66 * n_codes, text_length + 0.28 * n_codes, "never:\nwhat has not\nbeen said yet", **words
        )
        arrow = dict(arrowstyle="->", color=INK, linewidth=1.2)
        at, to = (0.4 * text_length, 0.7 * text_length), (text_length + 0.1 * n_codes, 0.5 * text_length)
        axes.annotate("caption looks at caption", at, to, va="center", fontsize=12, arrowprops=arrow)
        spans = f"caption\n1 … {text_length}", f"picture\n{text_length + 1} … {length}"
        axes.set_xticks([text_length / 2, middle], spans)
        axes.set_yticks([text_length / 2, middle], spans, rotation=90, va="center", multialignment="center")
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_ylabel("this token …", fontweight="bold", labelpad=10)
        axes.set_xlabel("… may look at this token", fontweight="bold", labelpad=10)
        axes.tick_params(length=0)
        axes.spines[:].set(visible=True, color=INK)
        told = "; ".join(f"{names[i]}: {counts[i]:,} pairs" for i in (1, 2, 3, 0))
        alt = f"Which of {length} tokens, {text_length} of a caption and then {n_codes} codes, may look at which: each at itself"
        return _finished(
            figure, f"{alt} and at those before it, {length**2 - counts[0]:,} of {length**2:,} pairs. {told}."
        )


def next_tokens(
    names: Sequence[str], probabilities, tiles: Sequence[Image.Image] | None = None, title: str = ""
) -> Picture:
    """How likely the likeliest next tokens are, as bars with their values, and what all others have together.

    probabilities: one a name, the highest first. tiles: a picture of each code, beside its name. ValueError where their numbers differ.
    """
    values = [float(value) for value in np.asarray(probabilities).ravel()]
    if not len(names) == len(values) == len(names if tiles is None else tiles):
        raise ValueError("each token has one name, one probability and, where there are tiles, one tile.")
    rest = 1 - sum(values)
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, (0.9 if title else 0.6) + (0.36 if tiles is None else 0.52) * len(names))
        axes = figure.add_subplot()
        _bars(axes, names, values, _tenths, max(values))
        for place, tile in enumerate(tiles or ()):
            picture = OffsetImage(np.asarray(tile.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)), zoom=0.46)
            box = dict(xybox=(-22, 0), xycoords=("axes fraction", "data"), boxcoords="offset points", pad=0.1)
            axes.add_artist(AnnotationBbox(picture, (0, place), bboxprops=dict(edgecolor=QUIET, linewidth=0.8), **box))
        axes.tick_params(axis="y", pad=4 if tiles is None else 44)
        if rest >= 0.0005:
            axes.set_xlabel(f"all other tokens together: {_tenths(rest)}", loc="left", fontsize=10)
        if title:
            figure.suptitle(title, fontsize=12)
        told = ", ".join(f"{name} {_tenths(value)}" for name, value in zip(names, values, strict=True))
        others = f"; all others together {_tenths(rest)}" if rest >= 0.0005 else ""
        return _finished(figure, f"{title or 'The likeliest next tokens'}: {told}{others}.")


def _tenths(value: float) -> str:
    """Per cent, with a tenth below ten."""
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}" if value < 0.0995 else f"{value:.0%}"


def completion(images: Sequence[Image.Image], given_rows: int, rows: int, captions: Sequence[str] = ()) -> Picture:
    """Square pictures in a row, of which the upper `given_rows` of `rows` rows of codes were given and the others drawn.

    Raises ValueError for no picture, for given_rows outside 1 … rows - 1, and for captions that are not one a picture.
    """
    if not images or not 0 < given_rows < rows:
        raise ValueError(f"a completion has pictures and 1 to {rows - 1} given rows, not {given_rows}.")
    if captions and len(captions) != len(images):
        raise ValueError(f"{len(images)} pictures need as many captions, not {len(captions)}.")
    n, border = len(images), given_rows / rows
    side = min(2.3, max(1.4, 10 / n))  # inches of a picture, which is 1 × 1 here; 0.06 are between two
    letters = round(12 * side)
    under = 0.2 * _tallest(captions, letters) / side
    with matplotlib.rc_context(STYLE):
        figure = _figure(side * (1.06 * n + 0.03) + 0.75, side * (1.05 + under) + 0.1)
        axes = figure.add_subplot()
        for place, image in enumerate(images):
            left, right = 1.06 * place, 1.06 * place + 1
            axes.imshow(image, extent=(left, right, 1, 0), interpolation="antialiased")
            axes.add_patch(Rectangle((left, 0), 1, 1, fill=False, edgecolor="#d5d9e0", linewidth=0.8))
            axes.plot(
                [left, left, right, right], [border, 0, 0, border], color=MARK, linewidth=2.5, solid_joinstyle="miter"
            )
            axes.plot([left, right], [border, border], color="white", linewidth=3)  # so that it is seen on any picture
            axes.plot([left, right], [border, border], color=MARK, linewidth=2, linestyle="--")
            if captions:
                axes.text(left + 0.5, 1.03, _wrap(captions[place], letters), ha="center", va="top", fontsize=10)
        for word, middle in (("given", border / 2), ("drawn", (1 + border) / 2)):
            axes.text(
                -0.06,
                middle,
                word,
                ha="right",
                va="center",
                fontsize=12,
                fontweight="bold",
                color=MARK if word == "given" else INK,
            )
        axes.plot([-0.7 / side, 0], [border, border], color=MARK, linewidth=2, linestyle="--")
        axes.set(xlim=(-0.72 / side, 1.06 * n - 0.04), ylim=(1.02 + under, -0.02), aspect="equal")
        axes.set_axis_off()
        alt = f"{n} pictures: the upper {given_rows} of {rows} rows of codes are given, the other {rows - given_rows} are drawn"
        return _finished(figure, alt + (f": {'; '.join(captions)}." if captions else "."))


def nearest(
    pairs: Sequence[tuple[Image.Image, Image.Image]],
    distances: Sequence[float],
    among: Sequence[float],
    threshold: float,
) -> Picture:
    """Are these copies? Drawn pictures above the training pictures nearest to them, and how far training scenes lie from each other.

    pairs: (drawn, its nearest of training). distances: of each pair. among: of training scenes to their own nearest, for the histogram,
    under which a triangle stands for each pair. threshold: what is nearer than that may be a copy. Raises ValueError for no pair, and where
    pairs and distances differ in number.
    """
    near = [float(each) for each in distances]
    if not pairs or len(pairs) != len(near):
        raise ValueError(f"{len(pairs)} pairs of pictures need as many distances, and at least one, not {len(near)}.")
    among = np.asarray(among, dtype=float)
    n, side = len(pairs), min(1.6, max(1.2, 9 / len(pairs)))
    with matplotlib.rc_context(STYLE):
        figure = _figure(max(7.5, 0.6 + side * n), 2 * side + 0.55 + 2.9)
        above, below = figure.subfigures(2, 1, height_ratios=(2 * side + 0.55, 2.9))
        shown = above.subplots(2, max(n, 4))  # few stay together on the left
        for axes in shown[:, n:].flat:
            axes.set_axis_off()
        for column, (pair, distance) in enumerate(zip(pairs, near, strict=True)):
            for axes, image in zip(shown[:, column], pair, strict=True):
                axes.imshow(image, interpolation="antialiased")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(visible=True, color="#d5d9e0")
            words, weight = ("\na copy?", "bold") if distance < threshold else ("", "normal")
            shown[1, column].set_xlabel(f"distance {distance:.3f}{words}", fontsize=10, fontweight=weight)
        shown[0, 0].set_ylabel("drawn")
        shown[1, 0].set_ylabel("nearest in\ntraining")
        axes = below.add_subplot()
        everything = np.concatenate([among, near, [threshold]])
        edges = np.linspace(everything.min(), everything.max(), 41)
        most = axes.hist(among, edges, color=BLUE, edgecolor="white", label="training scenes to their nearest")[0].max()
        marker = dict(marker="^", markersize=10, linestyle="none", color=MARK, markeredgecolor="white", clip_on=False)
        axes.plot(near, [-0.07 * most] * n, label="the pictures above", **marker)
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.5)
        right = threshold > everything.min() + 0.7 * np.ptp(everything)
        axes.text(threshold, 1.2 * most, f" threshold {threshold:.3f} ", va="top", ha="right" if right else "left")
        axes.axhline(0, color=QUIET, linewidth=0.8)
        axes.set(
            xlabel="distance to the nearest training picture",
            ylabel="how many",
            yticks=[],
            ylim=(-0.15 * most, 1.22 * most),
        )
        axes.legend(frameon=False, fontsize=10, loc="upper left" if right else "upper right")
        told = "; ".join(f"picture {i + 1}: {distance:.3f}" for i, distance in enumerate(near))
        closer = (
            f"{sum(distance < threshold for distance in near)} of {n} are nearer than the threshold {threshold:.3f}"
        )
        alt = f"{n} drawn pictures above their nearest training pictures, with distances. {told}; {closer}."
        alt += (
            f" Of {len(among)} training scenes, the distance to their own nearest has the median {np.median(among):.3f}"
        )
        return _finished(figure, f"{alt}, and {_percent((among < threshold).mean())} are nearer than the threshold.")


def dalle2_parts() -> Picture:
    """The parts of DALL-E 2 below those of DALL-E 1.

    Round: what goes in and comes out. Thick outline: networks trained for this. Hatched, dashed: trained before, then frozen. Left out: the
    prior reads the caption too, and so may the decoder. From Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation", and Ramesh et al.
    2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents".
    """
    one = (
        ("caption\ntokens", ""),
        ("one\ntransformer", "trained"),
        ("codes", ""),
        ("dVAE\ndecoder", "frozen"),
        ("picture", ""),
    )
    text = (
        ("text", ""),
        ("CLIP text\nencoder", "frozen"),
        ("CLIP text\nembedding", ""),
        ("prior", "trained"),
        ("CLIP image\nembedding", ""),
    )
    drawing = (
        ("diffusion\ndecoder\n64×64", "trained"),
        *((f"upsampler\n{side}×{side}", "trained") for side in (256, 1024)),
        ("picture", ""),
    )
    with matplotlib.rc_context(STYLE):
        figure = _figure(10.2, 6.0)
        axes = figure.add_subplot()
        axes.text(0, 0.15, "DALL-E 1 (2021)", fontsize=13, fontweight="bold")
        _chain(axes, one, 0.3, 0.75)
        axes.text(0, 1.75, "DALL-E 2 (2022)", fontsize=13, fontweight="bold")
        _chain(axes, text, 1.9, 0.95)
        _chain(axes, drawing, 3.5, 0.95)
        axes.plot(
            [9.2, 9.2, 0.8], [2.85, 3.17, 3.17], color=INK, linewidth=1.6
        )  # from the end of a line to the start of the next
        _arrow(axes, (0.8, 3.17), (0.8, 3.5))
        keys = (
            ("", "what goes in and comes out"),
            ("trained", "trained for this"),
            ("frozen", "trained before, then frozen"),
        )
        for x, (kind, meaning) in zip((0, 3.7, 6.4), keys, strict=True):
            _part(axes, x, 4.95, 0.6, 0.4, "", kind)
            axes.text(x + 0.75, 5.15, meaning, va="center", fontsize=12)
        axes.set(xlim=(-0.05, 10.05), ylim=(5.45, -0.1), aspect="equal")
        axes.set_axis_off()
        first, second = (
            " → ".join(words.replace("\n", " ") + (f" ({kind})" if kind else "") for words, kind in parts)
            for parts in (one, text + drawing)
        )
        return _finished(figure, f"DALL-E 1: {first}. DALL-E 2: {second}. Frozen: trained before, and left as it was.")


def _chain(axes, parts: Sequence[tuple[str, str]], y: float, height: float) -> None:
    """Parts, (words, kind) each, from left to right, and arrows between them."""
    for place, (words, kind) in enumerate(parts):
        _part(axes, 2.1 * place, y, 1.6, height, words, kind)
        if place:
            _arrow(axes, (2.1 * place - 0.5, y + height / 2), (2.1 * place, y + height / 2))


def _part(axes, x: float, y: float, width: float, height: float, words: str, kind: str) -> None:
    style = {
        "": dict(boxstyle="round,pad=0,rounding_size=0.2", facecolor="white", edgecolor=QUIET, linewidth=1.2),
        "trained": dict(boxstyle="square,pad=0", facecolor=PALE[ORANGE], edgecolor=INK, linewidth=2.2),
        "frozen": dict(
            boxstyle="square,pad=0", facecolor=PALE[BLUE], edgecolor=BLUE, linewidth=1.6, linestyle="--", hatch="//"
        ),
    }[kind]
    axes.add_patch(FancyBboxPatch((x, y), width, height, **style))
    back = dict(facecolor=style["facecolor"], edgecolor="none", pad=1.5)  # the hatch leaves room for the words
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=12, bbox=back if words else None)


def _arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = dict(arrowstyle="-|>", color=INK, linewidth=1.6, shrinkA=0, shrinkB=0, mutation_scale=16)
    axes.annotate("", end, start, arrowprops=style)
