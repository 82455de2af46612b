"""Figures of lesson 2: what a search found, and what speed costs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib
from PIL import Image

from mmlesson.pixels import thumbnail
from mmlesson.teach.figures.labels import label_points
from mmlesson.teach.figures.style import (
    BLUE,
    GREEN,
    INK,
    MARK,
    SERIES,
    STYLE,
    Picture,
    box_of,
    finished,
    new_figure,
    show_in_box,
    tallest,
    wrap,
)

LETTERS = 19  # in a line under a picture that was found


def hits(
    rows: Mapping[str, Sequence],
    columns: int = 5,
    right: Mapping[str, Sequence[int]] | None = None,
    pictures: Mapping[str, Image.Image] | None = None,
) -> Picture:
    """Search results, a row for each query: its words, then the pictures found, each with score and caption.

    rows: query → what `ImageIndex.search` returned. right: query → ids of hits that are marked as right.
    pictures: query → the picture that was asked with; it stands above the words. Words that were searched as they
    stand are in quotation marks.
    """
    with matplotlib.rc_context(STYLE):
        found_images = {query: [thumbnail(hit.image, 192) for hit in found[:columns]] for query, found in rows.items()}
        box = box_of(
            [*itertools.chain(*found_images.values()), *(pictures or {}).values()] or [Image.new("RGB", (1, 1))]
        )
        lines = tallest([hit.caption or "" for found in rows.values() for hit in found[:columns]], LETTERS)
        figure = new_figure(1.9 + 1.75 * columns, (1.75 * box[1] / box[0] + 0.45 + 0.2 * lines) * len(rows))
        described = []
        for number, (query, found) in enumerate(rows.items()):
            axes = figure.add_subplot(len(rows), columns + 1, number * (columns + 1) + 1)
            typed = getattr(found, "query", None) == query
            words = wrap(f"“{query}”" if typed else query, 17)
            if pictures and query in pictures:
                show_in_box(axes, thumbnail(pictures[query], 192), box)
                axes.set_xlabel(words, fontsize=11, fontweight="bold")
            else:
                label = axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=11, fontweight="bold")
                label.set_in_layout(False)  # else long words take the room of the pictures
                axes.set_axis_off()
            for place, hit in enumerate(found[:columns]):
                axes = figure.add_subplot(len(rows), columns + 1, number * (columns + 1) + place + 2)
                show_in_box(axes, found_images[query][place], box)
                is_right = right is not None and hit.id in right.get(query, ())
                if is_right:
                    axes.spines[:].set(color=GREEN, linewidth=3)
                axes.set_title(f"{hit.score:.2f}" + (" ✓" if is_right else ""), fontsize=10, fontweight="bold")
                axes.set_xlabel(wrap(hit.caption or "", LETTERS), fontsize=10)
            names = ", ".join(f"{hit.caption or 'a picture'} ({hit.score:.2f})" for hit in found[:columns])
            described.append(f"“{query}” finds {names or 'nothing'}")
        return finished(figure, f"Search results. {'; '.join(described)}.")


def tradeoff(
    milliseconds: Sequence[float], recalls: Sequence[float], labels: Sequence[str], exact_ms: float
) -> Picture:
    """Recall of an approximate search over the time of a query, a point for each setting; exact search beside it.

    Times are measured, so a setting can come out slower than one that finds more. The line joins only the settings
    that no other setting beats in both: it rises from left to right.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, 3.6)
        axes = figure.add_subplot()
        points = list(zip(milliseconds, recalls, strict=True))
        axes.plot(*zip(*unbeaten(points), strict=True), color=BLUE, linewidth=1.5)
        axes.plot(milliseconds, recalls, color=BLUE, marker="o", linestyle="none")
        axes.plot([exact_ms], [1.0], color=MARK, marker="s", linestyle="none")
        axes.annotate(
            "exact",
            (exact_ms, 1.0),
            xytext=(0, 9),
            textcoords="offset points",
            fontsize=10,
            color=MARK,
            fontweight="bold",
            ha="center",
        )
        axes.set(
            xlabel="milliseconds a query", ylabel="recall@10 against exact", ylim=(min(0.9, min(recalls)) - 0.1, 1.13)
        )
        axes.set_xlim(0, max(*milliseconds, exact_ms) * 1.15)
        axes.set_yticks([tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick < 1.001])  # no recall above 1
        label_points(axes, points, labels)
        described = "; ".join(
            f"{label}: {y:.0%} in {x:.1f} ms" for x, y, label in zip(milliseconds, recalls, labels, strict=True)
        )
        return finished(
            figure, f"Recall over time of approximate search. {described}; exact search: 100% in {exact_ms:.1f} ms."
        )


def unbeaten(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (time, recall) that no other one beats: from the fastest on, each with a higher recall than all before it."""
    kept: list[tuple[float, float]] = []
    for time, recall in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or recall > kept[-1][1]:
            kept.append((time, recall))
    return kept


def growth(sizes: Sequence[int], series: Mapping[str, Sequence[float | None]], stored: Sequence[bool]) -> Picture:
    """Milliseconds a query over the size of the collection, on two logarithmic axes.

    sizes: pictures in the collection. series: name → milliseconds at each size, None where it was not measured.
    stored: for each size, whether its numbers come from a stored benchmark; their points are hollow, and a broken line
    leads to them.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, 3.6)
        axes = figure.add_subplot()
        described, shown = [], []
        for index, (name, values) in enumerate(series.items()):
            points = [
                (size, value, old) for size, value, old in zip(sizes, values, stored, strict=True) if value is not None
            ]
            colour, marker = SERIES[index % len(SERIES)], "osD^"[index % 4]
            axes.plot([], [], color=colour, marker=marker, markersize=8, linewidth=1.5, label=name)
            for (size, value, old), (next_size, next_value, next_old) in itertools.pairwise(points):
                across = "--" if old != next_old else "-"  # measured at two times, perhaps on two machines
                axes.plot([size, next_size], [value, next_value], color=colour, linestyle=across, linewidth=1.5)
            for size, value, old in points:
                face = "white" if old else colour
                axes.plot(
                    [size], [value], marker=marker, color=colour, markerfacecolor=face, markersize=8, linestyle="none"
                )
            shown += [(size, value) for size, value, _ in points]
            spoken = (f"{size:,} in {value:.2g} ms" + (" (stored)" if old else "") for size, value, old in points)
            described.append(f"{name}: {', '.join(spoken)}")
        axes.set(xscale="log", yscale="log", xlabel="pictures in the collection", ylabel="milliseconds a query")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.9, high * 1.9)
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
        highest = {size: max(value for other, value in shown if other == size) for size, _ in shown}
        sides = ["above" if value == highest[size] else "below" for size, value in shown]
        label_points(axes, shown, [f"{value:.2g}" for _, value in shown], first=sides)
        return finished(figure, f"Time of a query over the size of the collection. {'; '.join(described)}.")
