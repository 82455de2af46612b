"""Figures of lesson 1: cosines, probabilities, training, and the bars that compare models."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from PIL import Image

from mmlesson.pixels import thumbnail
from mmlesson.teach.figures.labels import lift_over
from mmlesson.teach.figures.style import (
    BLUE,
    CLEAR,
    FRAME,
    HATCHES,
    INK,
    MARK,
    ORANGE,
    QUIET,
    SERIES,
    STYLE,
    Picture,
    bars,
    finished,
    frame,
    new_figure,
    percent,
    readable_on,
    show,
    wrap,
)


def similarity(
    images: Sequence[Image.Image], texts: Sequence[str], matrix, title: str = "", symbols: bool = False
) -> Picture:
    """Cosines of pictures (rows) and texts (columns), [n_images, n_texts]; the best text of each picture is outlined.

    Rows and columns have numbers. `symbols` makes I₁ … and T₁ … of them, as the CLIP paper does.
    """
    matrix = np.asarray(matrix, dtype=float)
    n, m = matrix.shape
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.1 + 1.12 * m, 1.5 + 0.86 * n)
        axes = figure.add_subplot()
        low, high = min(0.0, matrix.min()), max(0.1, 1.35 * matrix.max())
        shades = axes.imshow(matrix, cmap="Blues", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(matrix):
            best = value == matrix[row].max()
            weight = "bold" if best else "normal"
            colour = readable_on(shades.to_rgba(value))
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontweight=weight, color=colour)
            if best:
                axes.add_patch(
                    Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=MARK, linewidth=2)
                )
        rows, columns = (
            [f"{letter}{_subscript(i + 1)}" if symbols else f"{i + 1}" for i in range(count)]
            for letter, count in (("I", n), ("T", m))
        )
        axes.set_xticks(
            range(m), [f"{name}\n{wrap(text, 13)}" for name, text in zip(columns, texts, strict=True)], fontsize=9
        )
        axes.xaxis.tick_top()
        axes.set_yticks(range(n), rows)
        axes.tick_params(length=0, pad=4)
        axes.tick_params(axis="y", pad=66)
        axes.spines[:].set_visible(False)
        for row, image in enumerate(images):
            small = OffsetImage(np.asarray(thumbnail(image, 120)), zoom=0.44)
            box = dict(xybox=(-36, 0), xycoords=("axes fraction", "data"), boxcoords="offset points", frameon=False)
            axes.add_artist(AnnotationBbox(small, (0, row), **box))
        if title:
            figure.suptitle(title, fontsize=12)
        best = [
            f"picture {i + 1} matches “{texts[j]}” best ({matrix[i, j]:.2f})" for i, j in enumerate(matrix.argmax(1))
        ]
        return finished(figure, f"{title or 'Matrix of cosines'}. {n} pictures by {m} texts: {'; '.join(best)}.")


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def probabilities(
    image: Image.Image, labels: Sequence[str], probabilities, title: str = "", cosines=None, note: str = ""
) -> Picture:
    """A picture beside the probability of each label, as bars with their values.

    cosines: one for each label, written beside the probability. note: a sentence below the title, such as what
    `clip.note_on` says of the picture.
    """
    values = [float(value) for value in np.asarray(probabilities).ravel()]
    written = [percent(value) for value in values]
    if cosines is not None:
        of_label = np.asarray(cosines, dtype=float).ravel()
        written = [f"{share} (cosine {cosine:.2f})" for share, cosine in zip(written, of_label, strict=True)]
    note = "\n".join(textwrap.wrap(note, 90))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8, max(2.4, 0.9 + 0.42 * len(labels)) + (0.25 * (note.count("\n") + 1) if note else 0))
        left, right = figure.subplots(1, 2, width_ratios=(1, 2.2))
        show(left, image)
        bars(right, labels, values, written, 1.0 if cosines is None else 1.4)
        if title or note:
            figure.suptitle("\n".join(filter(None, [title, note])), fontsize=12)
        described = ", ".join(f"{label} {text}" for label, text in zip(labels, written, strict=True))
        return finished(figure, f"{title or 'Probabilities of the labels'}: {described}.{f' {note}' if note else ''}")


def answers(images: Sequence[Image.Image], labels: Sequence[str], probabilities) -> Picture:
    """Pictures side by side, and under each the probability of each label as bars, [n_images, n_labels]."""
    shares = np.asarray(probabilities, dtype=float)
    n = len(images)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.2 + 2.9 * n, 3.1 + 0.36 * len(labels))
        grid = figure.subplots(2, n, squeeze=False, sharey="row", height_ratios=(2.6, 0.4 + 0.36 * len(labels)))
        described = []
        for above, below, image, row in zip(*grid, images, shares, strict=True):
            side = max(image.size)  # a square place for every shape: the bars below keep their width
            room = Image.new("RGB", (side, side), "white")
            room.paste(image, ((side - image.width) // 2, side - image.height))
            room = thumbnail(room, 260)
            above.imshow(room, interpolation="antialiased", extent=(0, 1, 1, 0))  # the axis is shared
            above.set_axis_off()
            bars(below, labels, row.tolist(), percent, 1.0, width=22)
            described.append(", ".join(f"{label} {percent(share)}" for label, share in zip(labels, row, strict=True)))
        grid[1, 0].set_ylim(len(labels) - 0.5, -0.5)  # the first label on top; the axis is shared
        pictures = "; ".join(f"picture {number}: {text}" for number, text in enumerate(described, start=1))
        return finished(figure, f"{n} picture{'s' * (n != 1)} and the probability of each label. {pictures}.")


def gap(pairs: Mapping[str, tuple]) -> Picture:
    """The embeddings of pictures and of their texts, seen along the two directions in which they differ most.

    pairs: the name of a CLIP → image_features and text_features, both [n, dim], row i of one belonging to row i of the
    other. A thin line joins each pair, and a thick one the two means, which are the large marks. All panels have the
    same scale. The modality gap in each title is the distance between the two means in the whole space.
    """
    seen, described, titles = [], [], []
    for name, (images, texts) in pairs.items():
        images, texts = np.asarray(images, dtype=float), np.asarray(texts, dtype=float)
        both = np.concatenate([images, texts])
        both = both - both.mean(axis=0)
        _, _, directions = np.linalg.svd(both, full_matrices=False)
        places = both @ directions[:2].T  # [2 n, 2]
        seen.append((places[: len(images)], places[len(images) :]))
        between = np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0))
        within = np.linalg.norm(images - texts, axis=1).mean()
        titles.append(f"{name}\nmodality gap {between:.2f}, inside a pair {within:.2f}")
        described.append(
            f"{name}: {len(images)} pairs, the modality gap is {between:.2f}, "
            f"and the mean distance inside a pair {within:.2f}"
        )
    reach = 1.12 * max(np.abs(place).max() for two in seen for place in two)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.6 * len(pairs), 4.9)
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axes, title, (images, texts) in zip(panels, titles, seen, strict=True):
            for one, other in zip(images, texts, strict=True):
                axes.plot(*np.stack([one, other]).T, color=QUIET, linewidth=0.8, zorder=1)
            look = dict(edgecolor=INK, linewidth=0.6, s=52, zorder=2)
            axes.scatter(*images.T, marker="o", color=BLUE, label="picture", **look)
            axes.scatter(*texts.T, marker="^", color=ORANGE, label="its text", **look)
            means = np.stack([images.mean(axis=0), texts.mean(axis=0)])
            axes.plot(*means.T, color=INK, linewidth=3, zorder=3)
            large = dict(edgecolor="white", linewidth=1.5, s=200, zorder=4)
            axes.scatter(*means[0], marker="o", color=INK, label="mean of the pictures", **large)
            axes.scatter(*means[1], marker="^", color=MARK, label="mean of the texts", **large)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
            axes.set_title(title, fontsize=11)
            frame(axes)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        return finished(figure, f"Embeddings of pictures and of their texts in two dimensions. {'; '.join(described)}.")


def temperature(labels: Sequence[str], cosines, temperatures: Sequence[float], own: float | None = None) -> Picture:
    """softmax(cosines / T) for several temperatures T side by side; `own` marks the one that the model learned."""
    cosines = np.asarray(cosines, dtype=float).ravel()
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.6 * len(temperatures) + 1.2, 0.9 + 0.5 * len(labels))
        shown = figure.subplots(1, len(temperatures), sharey=True)
        described = []
        for axes, value in zip(np.atleast_1d(shown), temperatures, strict=True):
            logits = cosines / value
            share = np.exp(logits - logits.max())
            share /= share.sum()
            bars(axes, labels, share.tolist(), percent, 1.0, width=22)
            learned = own is not None and abs(value - own) < 1e-9
            axes.set_title(f"T = {value:.3g}" + ("\n(the model's own)" if learned else "\n "), fontsize=11)
            described.append(f"T = {value:.3g}: " + ", ".join(percent(each) for each in share))
        np.atleast_1d(shown)[0].set_ylim(len(labels) - 0.5, -0.5)  # the first label on top; the axis is shared
        alt = f"Softmax of the same cosines at {len(temperatures)} temperatures, for {', '.join(labels)}."
        return finished(figure, f"{alt} {'; '.join(described)}.")


def loss_curve(losses: Sequence[float], chance: float, smooth: int = 10) -> Picture:
    """The loss of every step and its running mean, beside what blind guessing costs."""
    losses = np.asarray(losses, dtype=float)
    mean = np.convolve(losses, np.ones(smooth) / smooth, mode="valid")
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, 3.2)
        axes = figure.add_subplot()
        axes.plot(losses, color=BLUE, alpha=0.35, linewidth=1)
        axes.plot(np.arange(smooth - 1, len(losses)), mean, color=BLUE, linewidth=2.2)
        axes.axhline(chance, color=MARK, linestyle="--", linewidth=1.5)
        top = max(losses.max(), chance)
        axes.text(
            len(losses),
            chance + 0.02 * top,
            f"blind guessing: {chance:.2f} ",
            ha="right",
            va="bottom",
            color=MARK,
            bbox=CLEAR,
        )
        axes.text(len(losses), mean[-1], f" {mean[-1]:.2f}", va="center", fontweight="bold", color=BLUE, bbox=CLEAR)
        axes.set(
            xlabel="step",
            ylabel="contrastive loss",
            ylim=(0, top * 1.2),
            xlim=(0, len(losses) * 1.08),
        )
        alt = (
            f"Loss over {len(losses)} steps: from {losses[0]:.2f} to {mean[-1]:.2f}; blind guessing costs {chance:.2f}."
        )
        return finished(figure, alt)


def sharpening(matrices: Mapping[int, np.ndarray]) -> Picture:
    """Matrices of cosines, [n, n], at several steps of training: the diagonal appears."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.5 * len(matrices), 3.5)
        described = []
        for index, (step, matrix) in enumerate(matrices.items()):
            matrix = np.asarray(matrix, dtype=float)
            diagonal = np.diag(matrix).mean()
            rest = (matrix.sum() - np.diag(matrix).sum()) / (matrix.size - len(matrix))
            axes = figure.add_subplot(1, len(matrices), index + 1)
            axes.imshow(matrix, cmap="Blues", vmin=-0.2, vmax=1)
            axes.set_title(f"step {step}", fontsize=11)
            hardest = np.where(np.eye(len(matrix), dtype=bool), -1, matrix).max(axis=1).mean()  # of each row
            words = f"texts\ndiagonal {diagonal:.2f}\nelsewhere {rest:.2f}\nhighest wrong {hardest:.2f}"
            axes.set_xlabel(words, fontsize=10)
            frame(axes)
            numbers = range(1, len(matrix) + 1)
            axes.set_xticks(range(len(matrix)), numbers, fontsize=8)
            axes.set_yticks(range(len(matrix)), numbers, fontsize=8)
            described.append(
                f"at step {step} the diagonal is {diagonal:.2f} on average, the rest {rest:.2f}, "
                f"the highest wrong cell of a row {hardest:.2f}"
            )
        figure.supylabel("pictures", fontsize=10)
        return finished(figure, f"Matrix of cosines in training: {'; '.join(described)}.")


def grouped_bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    ylabel: str,
    chance: float | None = None,
    form=percent,
) -> Picture:
    """Bars of several series side by side for each group, with their values; `chance` draws a line."""
    with matplotlib.rc_context(STYLE):
        across = max(5.5, 1.1 * len(groups) * len(series) + 1.5)
        letters = min(22, int(9 * across / len(groups)))  # of a name that has no neighbour's room
        figure = new_figure(across, 3.3)
        axes = figure.add_subplot()
        width, places, numbers = 0.8 / len(series), np.arange(len(groups)), []
        for index, (name, values) in enumerate(series.items()):
            at = places + (index - (len(series) - 1) / 2) * width
            colour, hatch = SERIES[index % len(SERIES)], HATCHES[index % len(HATCHES)]
            bars = axes.bar(at, values, width * 0.92, label=name, color=colour, hatch=hatch, edgecolor="white")
            texts = axes.bar_label(
                bars, [form(value) for value in values], padding=2, fontsize=10, bbox=CLEAR, zorder=4
            )
            numbers += texts
        if chance is not None:
            axes.axhline(chance, color=INK, linestyle="--", linewidth=1.2)
            axes.text(len(groups) - 0.5, chance, " chance", va="center", fontsize=10, bbox=CLEAR)
        top = max(max(values) for values in series.values())
        axes.set_xticks(places, [wrap(group, letters) for group in groups])
        axes.set(ylabel=ylabel, ylim=(0, top * 1.15))
        if form is percent and top <= 1:
            if top > 0.4:  # the whole is seen too
                axes.set(ylim=(0, 1.15))
            axes.set_yticks(np.linspace(0, 1, 5) if top > 0.4 else np.arange(0, top + 0.01, 0.1))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.tick_params(axis="x", length=0)
        if chance is not None:
            lift_over(axes, numbers, chance)
        if len(series) > 1:
            axes.legend(frameon=False, loc="upper center", ncols=len(series), fontsize=10, bbox_to_anchor=(0.5, 1.18))
        described = []
        for name, values in series.items():
            described.append(
                f"{name}: " + ", ".join(f"{group} {form(value)}" for group, value in zip(groups, values, strict=True))
            )
        return finished(
            figure, f"{ylabel}. {'; '.join(described)}." + (f" Chance is {form(chance)}." if chance is not None else "")
        )


def histogram(series: Mapping[str, Sequence[float]], xlabel: str, threshold: float | None = None) -> Picture:
    """Which share of each series has each value, for several series over one axis; `threshold` draws a line."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, 3.2)
        axes = figure.add_subplot()
        everything = np.concatenate([np.asarray(values, dtype=float) for values in series.values()])
        edges, most = np.linspace(everything.min(), everything.max(), 36), 0
        described = []
        for index, (name, values) in enumerate(series.items()):
            colour, hatch = SERIES[index % len(SERIES)], HATCHES[index % len(HATCHES)]
            each = np.full(len(values), 1 / max(1, len(values)))  # series of different lengths can be compared
            look = dict(color=colour, hatch=hatch, edgecolor="white", alpha=0.75)
            shares, _, _ = axes.hist(values, edges, weights=each, label=name, **look)
            most = max(most, shares.max())
            described.append(f"{name} around {np.median(values):.2f}")
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.5)
            right = threshold > everything.min() + 0.75 * np.ptp(everything)  # its words would leave the figure
            words = dict(va="top", ha="right" if right else "left")
            axes.text(threshold, 1.22 * most, f" threshold {threshold:.2f} ", **words)  # above every bar
        axes.set(xlabel=xlabel, ylabel="share of each group", ylim=(0, 1.25 * most))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(frameon=False, fontsize=10, loc="lower center", ncols=len(series), bbox_to_anchor=(0.5, 1))
        return finished(figure, f"Histogram of {xlabel}: {'; '.join(described)}.")


def leaning(
    names: Sequence[str],
    values: Sequence[float],
    left: str,
    right: str,
    usual: tuple[float, float] | None = None,
) -> Picture:
    """Bars that lean to one of two sides, sorted; 0 is in the middle.

    usual: the range of what says nothing. It is a grey band, and bars that end in it are pale.
    """
    order = np.argsort(values)
    names, values = [names[i] for i in order], [float(values[i]) for i in order]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, 0.8 + 0.3 * len(names))
        axes = figure.add_subplot()
        colours = [ORANGE if value < 0 else BLUE for value in values]
        places = range(len(names))  # and not the names themselves: equal ones would share a bar
        axes.set_yticks(places, names)
        bars = axes.barh(places, values, color=colours)
        axes.bar_label(bars, [f"{value:+.2f}" for value in values], padding=3, fontsize=9)
        if usual is not None:
            axes.axvspan(*usual, color=FRAME, alpha=0.8, linewidth=0, zorder=0)
            for bar, value in zip(bars, values, strict=True):
                bar.set_alpha(0.35 if usual[0] <= value <= usual[1] else 1)
        reach = max(map(abs, [*values, *(usual or ())])) * 1.3
        axes.axvline(0, color=INK, linewidth=1)
        axes.set(xlim=(-reach, reach), xticks=[])
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(f"← nearer to “{left}”        nearer to “{right}” →", fontsize=11)
        described = ", ".join(f"{name} {value:+.2f}" for name, value in zip(names, values, strict=True))
        band = f" A grey band from {usual[0]:+.2f} to {usual[1]:+.2f}." if usual is not None else ""
        return finished(figure, f"Difference of two cosines, “{right}” minus “{left}”: {described}.{band}")
