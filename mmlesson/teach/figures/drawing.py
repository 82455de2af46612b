"""Figures of lesson 4: sizes of networks, next tokens, completed pictures and their nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mmlesson.teach.figures.style import (
    BLUE,
    CLEAR,
    FRAME,
    INK,
    MARK,
    QUIET,
    STYLE,
    Picture,
    bars,
    finished,
    new_figure,
    percent,
    show,
    tallest,
    wrap,
)


def sizes(parameters: Mapping[str, float], mark: str | None = None) -> Picture:
    """Numbers of parameters as bars over a logarithmic axis, each with its number in words.

    parameters: name → how many. mark: the name whose bar is bold and outlined.

    Raises ValueError for no parameters, for a number that is not above 0, and for a `mark` that is not among the names.
    """
    names, values = list(parameters), [float(value) for value in parameters.values()]
    if not values or min(values) <= 0:
        raise ValueError("a logarithmic axis shows numbers above 0, one or more.")
    if mark is not None and mark not in names:
        raise ValueError(f"there is no {mark!r} among {', '.join(names)}.")
    first, last = int(np.floor(np.log10(min(values) / 3))), int(np.floor(np.log10(max(values))))  # powers of ten
    every = -(-(last + 1 - first) // 7)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8, 1 + 0.46 * len(names))
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
                bbox=CLEAR,
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
        axes.set_yticks(range(len(names)), [wrap(name, 24) for name in names])
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set_fontweight("bold" if name == mark else "normal")
        axes.grid(axis="x", color=FRAME, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.invert_yaxis()
        described = "; ".join(
            f"{name}: {_in_words(value)}" + (" (marked)" if name == mark else "")
            for name, value in zip(names, values, strict=True)
        )
        return finished(figure, f"Numbers of parameters on a logarithmic axis. {described}.")


def _in_words(number: float) -> str:
    """7300000 → "7.3 million": three digits and a word."""
    number = float(f"{number:.3g}")
    for size, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= size:
            return f"{number / size:.3g}{word}"
    return f"{number:.3g}"


def next_tokens(
    names: Sequence[str], probabilities, tiles: Sequence[Image.Image] | None = None, title: str = ""
) -> Picture:
    """How likely the likeliest next tokens are, as bars with their values, and what all others have together.

    probabilities: one a name, the highest first. tiles: a picture of each code, beside its name.

    Raises ValueError where there is not one probability, and one tile, for each name.
    """
    values = [float(value) for value in np.asarray(probabilities).ravel()]
    if not len(names) == len(values) == len(names if tiles is None else tiles):
        raise ValueError("each token has one name, one probability and, where there are tiles, one tile.")
    rest = 1 - sum(values)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, (0.9 if title else 0.6) + (0.36 if tiles is None else 0.52) * len(names))
        axes = figure.add_subplot()
        bars(axes, names, values, _tenths, max(values))
        for place, tile in enumerate(tiles or ()):
            picture = OffsetImage(np.asarray(tile.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)), zoom=0.46)
            box = dict(xybox=(-22, 0), xycoords=("axes fraction", "data"), boxcoords="offset points", pad=0.1)
            axes.add_artist(AnnotationBbox(picture, (0, place), bboxprops=dict(edgecolor=QUIET, linewidth=0.8), **box))
        axes.tick_params(axis="y", pad=4 if tiles is None else 44)
        if rest >= 0.0005:
            axes.set_xlabel(f"all other tokens together: {_tenths(rest)}", loc="left", fontsize=10)
        if title:
            figure.suptitle(title, fontsize=12)
        described = ", ".join(f"{name} {_tenths(value)}" for name, value in zip(names, values, strict=True))
        others = f"; all others together {_tenths(rest)}" if rest >= 0.0005 else ""
        return finished(figure, f"{title or 'The likeliest next tokens'}: {described}{others}.")


def _tenths(value: float) -> str:
    """Per cent, with a tenth below ten."""
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}" if value < 0.0995 else f"{value:.0%}"


def completion(
    images: Sequence[Image.Image],
    given_rows: int,
    rows: int,
    captions: Sequence[str] = (),
    original: Image.Image | None = None,
) -> Picture:
    """Square pictures in a row. Their upper `given_rows` of `rows` rows of codes were given, and the others were drawn.

    original: the picture that the given codes are from. It stands apart, on the left, because no part of it was drawn.

    Raises ValueError for no picture, for given_rows outside 1 … rows - 1, and for captions that are not one a picture.
    """
    if not images or not 0 < given_rows < rows:
        raise ValueError(f"a completion has pictures and 1 to {rows - 1} given rows, not {given_rows}.")
    if captions and len(captions) != len(images):
        raise ValueError(f"{len(images)} pictures need as many captions, not {len(captions)}.")
    n, border = len(images), given_rows / rows
    beside = 0 if original is None else 1.1  # the room of the original, in pictures, which are 1 × 1 here
    side = min(2.3, max(1.4, 10 / (n + beside)))  # inches of a picture; 0.06 are between two
    letters = round(12 * side)
    under = 0.2 * max(tallest(captions, letters), original is not None) / side
    words = 0.72 / side  # the width of "given" and "drawn"
    first = -words - beside  # where the figure begins; the completed pictures begin at 0
    with matplotlib.rc_context(STYLE):
        figure = new_figure(side * (1.06 * n - 0.03 - first), side * (1.05 + under) + 0.1)
        axes = figure.add_subplot()
        if original is not None:
            _framed(axes, original, first, "the original", letters)
        for place, image in enumerate(images):
            left, right = 1.06 * place, 1.06 * place + 1
            _framed(axes, image, left, captions[place] if captions else "", letters)
            axes.plot(
                [left, left, right, right], [border, 0, 0, border], color=MARK, linewidth=2.5, solid_joinstyle="miter"
            )
            axes.plot([left, right], [border, border], color="white", linewidth=3)  # so that it is seen on any picture
            axes.plot([left, right], [border, border], color=MARK, linewidth=2, linestyle="--")
        for word, middle in (("given", border / 2), ("drawn", (1 + border) / 2)):
            place = dict(x=-0.06, y=middle, ha="right", va="center")
            axes.text(s=word, **place, fontsize=12, fontweight="bold", color=MARK if word == "given" else INK)
        axes.plot([0.02 - words, 0], [border, border], color=MARK, linewidth=2, linestyle="--")
        axes.set(xlim=(first - 0.01, 1.06 * n - 0.04), ylim=(1.02 + under, -0.02), aspect="equal")
        axes.set_axis_off()
        alt = "" if original is None else "The original, and beside it "
        alt += f"{n} picture{'s' * (n != 1)}: the upper {given_rows} of {rows} rows of codes are given, "
        alt += f"the other {rows - given_rows} are drawn"
        return finished(figure, alt + (f": {'; '.join(captions)}." if captions else "."))


def _framed(axes, image: Image.Image, left: float, caption: str, letters: int) -> None:
    """A picture of 1 × 1 with a thin line around it and its caption under it."""
    axes.imshow(image, extent=(left, left + 1, 1, 0), interpolation="antialiased")
    axes.add_patch(Rectangle((left, 0), 1, 1, fill=False, edgecolor=FRAME, linewidth=0.8))
    if caption:
        axes.text(left + 0.5, 1.03, wrap(caption, letters), ha="center", va="top", fontsize=10)


def nearest(
    pairs: Sequence[tuple[Image.Image, Image.Image]],
    distances: Sequence[float],
    among: Sequence[float],
    threshold: float,
    copy: float | None = None,
) -> Picture:
    """Are these copies? Drawn pictures above their nearest training pictures, and a histogram of distances.

    pairs: (drawn picture, its nearest training picture).
    distances: of each pair. A triangle under the histogram shows each.
    among: distances of training scenes to their own nearest training scenes. The histogram shows these.
    threshold: what is nearer than this may be a copy.
    copy: the distance of a typical real copy, if it is known; a dotted line.

    Raises ValueError for no pair, and where pairs and distances differ in number.
    """
    near = [float(each) for each in distances]
    if not pairs or len(pairs) != len(near):
        raise ValueError(f"{len(pairs)} pairs of pictures need as many distances, and at least one, not {len(near)}.")
    among = np.asarray(among, dtype=float)
    n, side = len(pairs), min(1.6, max(1.2, 9 / len(pairs)))
    digits = 1 if threshold >= 1 else 3  # behind the point
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(7.5, 0.6 + side * n), 2 * side + 0.55 + 2.9)
        above, below = figure.subfigures(2, 1, height_ratios=(2 * side + 0.55, 2.9))
        shown = above.subplots(2, max(n, 4))  # few stay together on the left
        for axes in shown[:, n:].flat:
            axes.set_axis_off()
        for column, (pair, distance) in enumerate(zip(pairs, near, strict=True)):
            for axes, image in zip(shown[:, column], pair, strict=True):
                show(axes, image)
            words, weight = ("\na copy?", "bold") if distance < threshold else ("", "normal")
            shown[1, column].set_xlabel(f"{distance:.{digits}f}{words}", fontsize=11, fontweight=weight)
        shown[0, 0].set_ylabel("drawn")
        shown[1, 0].set_ylabel("nearest in\ntraining, with\nits distance")
        axes = below.add_subplot()
        everything = np.concatenate([among, near, [threshold], [] if copy is None else [copy]])
        edges = np.linspace(min(among.min(), *near), max(among.max(), *near), 41)
        most = axes.hist(among, edges, color=BLUE, edgecolor="white", label="training scenes to their nearest")[0].max()
        marker = dict(marker="^", markersize=10, linestyle="none", color=MARK, markeredgecolor="white", clip_on=False)
        axes.plot(near, [-0.08 * most] * n, label="the pictures above", **marker)
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.5)
        right = threshold > everything.min() + 0.7 * np.ptp(everything)
        axes.text(
            threshold, 1.5 * most, f" threshold {threshold:.{digits}f} ", va="top", ha="right" if right else "left"
        )
        if copy is not None:
            axes.axvline(copy, color=INK, linestyle=":", linewidth=1.5)
            axes.text(copy, 1.2 * most, f" a typical\n copy {copy:.{digits}f}", va="top")
        axes.axhline(0, color=QUIET, linewidth=0.8)
        axes.set(
            xlabel="distance to the nearest training picture",
            ylabel="how many",
            yticks=MaxNLocator(3, integer=True).tick_values(0, most)[:-1],
            ylim=(-0.17 * most, 1.55 * most),
        )
        axes.legend(frameon=False, fontsize=10, loc="upper left" if right else "upper right")
        described = "; ".join(f"picture {i + 1}: {distance:.{digits}f}" for i, distance in enumerate(near))
        closer = f"{sum(distance < threshold for distance in near)} of {n} are nearer than the threshold"
        closer += f" {threshold:.{digits}f}"
        alt = f"{n} drawn pictures above their nearest training pictures, with distances. {described}; {closer}."
        alt += f" Of {len(among)} training scenes, the distance to their own nearest has the median"
        alt += f" {np.median(among):.{digits}f}"
        copied = "" if copy is None else f" A typical copy has the distance {copy:.{digits}f}."
        return finished(
            figure, f"{alt}, and {percent((among < threshold).mean())} are nearer than the threshold.{copied}"
        )
