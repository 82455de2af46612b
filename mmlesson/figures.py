"""Every picture that a lesson shows.

Each function returns a `Picture`: a PNG with a text alternative, which Jupyter shows where it is the last
line of a cell. Nothing is told by colour alone: values stand in their cells, the best is outlined.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from PIL import Image

from mmlesson.images import thumbnail

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


def gallery(images: Sequence[Image.Image], captions: Sequence[str], columns: int = 4, marks: Sequence[str] | None = None) -> Picture:
    """Pictures in rows, each with its caption under it; `marks` adds a second, bold line ("right", "wrong")."""
    with matplotlib.rc_context(STYLE):
        rows = -(-len(images) // columns)
        figure = _figure(2.35 * columns, (2.75 + (0.25 if marks else 0)) * rows)
        for index, (image, caption) in enumerate(zip(images, captions)):
            axes = figure.add_subplot(rows, columns, index + 1)
            axes.imshow(image, interpolation="antialiased")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="#d5d9e0")
            axes.set_xlabel(_wrap(caption, 26), fontsize=10)
            if marks:
                axes.set_title(marks[index], fontsize=10, fontweight="bold")
        told = "; ".join(f"{caption} ({mark})" if mark else caption for caption, mark in zip(captions, marks or [""] * len(captions)))
        return _finished(figure, f"{len(images)} pictures: {told}.")


def similarity(images: Sequence[Image.Image], texts: Sequence[str], matrix, title: str = "", symbols: bool = False) -> Picture:
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
                axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=MARK, linewidth=2))
        names = [f"T{_subscript(i + 1)}\n{_wrap(text, 13)}" if symbols else _wrap(text, 13) for i, text in enumerate(texts)]
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
        best = [f"picture {i + 1} matches “{texts[j]}” best ({matrix[i, j]:.2f})" for i, j in enumerate(matrix.argmax(1))]
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
        told = ", ".join(f"{label} {_percent(value)}" for label, value in zip(labels, values))
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
        for axes, value in zip(np.atleast_1d(shown), temperatures):
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
        axes.set(xlabel="step", ylabel="contrastive loss", ylim=(0, max(losses.max(), chance) * 1.12), xlim=(0, len(losses) * 1.08))
        alt = f"Loss over {len(losses)} steps: from {losses[0]:.2f} to {mean[-1]:.2f}; blind guessing costs {chance:.2f}."
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
    groups: Sequence[str], series: Mapping[str, Sequence[float]], ylabel: str, chance: float | None = None, form=_percent
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
            told.append(f"{name}: " + ", ".join(f"{group} {form(value)}" for group, value in zip(groups, values)))
        return _finished(figure, f"{ylabel}. {'; '.join(told)}." + (f" Chance is {form(chance)}." if chance is not None else ""))


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
        told = ", ".join(f"{name} {value:+.2f}" for name, value in zip(names, values))
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
            words = axes.text(0.5, 0.5, _wrap(f"“{query}”", 18), ha="center", va="center", fontsize=11, fontweight="bold")
            words.set_in_layout(False)  # else long words take the room of the pictures
            axes.set_axis_off()
            for place, hit in enumerate(found[:columns]):
                axes = figure.add_subplot(len(rows), columns + 1, number * (columns + 1) + place + 2)
                axes.imshow(thumbnail(hit.image, 192), interpolation="antialiased")
                is_right = right is not None and hit.id in right.get(query, ())
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(visible=True, color=MARK if is_right else "#d5d9e0", linewidth=2.5 if is_right else 0.8)
                axes.set_title(f"{hit.score:.2f}" + (" ✓" if is_right else ""), fontsize=10, fontweight="bold")
                axes.set_xlabel(_wrap(hit.caption or "", 22), fontsize=8.5)
            names = ", ".join(f"{hit.caption or 'a picture'} ({hit.score:.2f})" for hit in found[:columns])
            told.append(f"“{query}” finds {names or 'nothing'}")
        return _finished(figure, f"Search results. {'; '.join(told)}.")


def tradeoff(milliseconds: Sequence[float], recalls: Sequence[float], labels: Sequence[str], exact_ms: float) -> Picture:
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
        axes.annotate("exact", (exact_ms, 1.0), xytext=(6, -13), textcoords="offset points", fontsize=10, color=MARK, fontweight="bold")
        axes.set(xlabel="milliseconds a query", ylabel="recall@10 against exact", ylim=(min(0.9, min(recalls)) - 0.05, 1.08))
        axes.set_xlim(0, max(*milliseconds, exact_ms) * 1.15)
        told = "; ".join(f"{label}: {y:.0%} in {x:.1f} ms" for x, y, label in zip(milliseconds, recalls, labels, strict=True))
        return _finished(figure, f"Recall over time of approximate search. {told}; exact search: 100% in {exact_ms:.1f} ms.")


def growth(sizes: Sequence[int], series: Mapping[str, Sequence[float | None]], stored: Sequence[bool]) -> Picture:
    """Milliseconds a query over the size of the collection, both axes logarithmic; what was stored and not just measured is hollow."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, 3.6)
        axes = figure.add_subplot()
        told = []
        for index, (name, values) in enumerate(series.items()):
            points = [(size, value, old) for size, value, old in zip(sizes, values, stored, strict=True) if value is not None]
            colour, marker = SERIES[index % len(SERIES)], "osD^"[index % 4]
            axes.plot([size for size, *_ in points], [value for _, value, _ in points], color=colour, linewidth=1.5, label=name)
            for size, value, old in points:
                face = "white" if old else colour
                axes.plot([size], [value], marker=marker, color=colour, markerfacecolor=face, markersize=8, linestyle="none")
                axes.annotate(f"{value:.2g}", (size, value), xytext=(0, 8), textcoords="offset points", fontsize=9, ha="center")
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
            axes.text(0.99, 0.03, "hollow: from a stored benchmark", transform=axes.transAxes, ha="right", fontsize=9, color=INK)
        return _finished(figure, f"Time of a query over the size of the collection. {'; '.join(told)}.")
