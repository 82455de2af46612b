"""Where words may stand in a figure: beside their points, and on no line, no marker and no other words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

DIRECTIONS = {  # from a point to the middle of its words, y upwards; in this order they are tried
    "above": (0, 1),
    "below": (0, -1),
    "right": (1, 0),
    "left": (-1, 0),
    "right below": (1, -1),
    "left above": (-1, 1),
    "right above": (1, 1),
    "left below": (-1, -1),
}
GAPS = (7, 13, 20)  # points between a point and its words; the near ones are tried first
ROOM = 1.5  # points that words keep around them


def label_points(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], first: Sequence[str] = (), fontsize=9
) -> None:
    """Writes each text beside its point (x, y), where it covers no line, no marker, no legend and no other words.

    first: for each point the direction of DIRECTIONS that is tried first. Where every place covers something, the
    one that covers least is taken. Call it last: what is drawn later is not seen, and the layout is settled here.
    """
    figure = axes.figure
    figure.canvas.draw()  # settles the layout
    renderer = figure.canvas.get_renderer()
    pixels = figure.dpi / 72  # of a point
    taken = [each.get_window_extent(renderer) for each in axes.texts]
    if axes.get_legend():
        taken.append(axes.get_legend().get_window_extent(renderer))
    lines = _along_lines(axes)
    inside = axes.get_window_extent(renderer)
    for place, (point, text) in enumerate(zip(points, texts, strict=True)):
        words = axes.annotate(
            text, point, xytext=(0, 0), textcoords="offset points", fontsize=fontsize, ha="center", va="center"
        )
        words.set_in_layout(False)  # it stays where it is put, and moves nothing
        size = words.get_window_extent(renderer)
        half = np.array([size.width, size.height]) / 2
        middle = axes.transData.transform(point)
        order = sorted(DIRECTIONS, key=lambda name, place=place: name not in first[place : place + 1])
        best, least = None, np.inf
        for gap in GAPS:
            for name in order:
                away = np.array(DIRECTIONS[name]) * (half + gap * pixels * (0.75 if " " in name else 1))
                box = Bbox([middle + away - half, middle + away + half]).padded(ROOM * pixels)
                covered = _covered(box, lines, taken, inside)
                if covered < least:
                    best, least = (away, box), covered
            if least == 0:
                break
        words.xyann = tuple(best[0] / pixels)
        taken.append(best[1])


def lift_over(axes: Axes, texts: Sequence, height: float) -> None:
    """Moves the numbers of bars up where a line at this height (y of the data) would strike through them.

    texts: the annotations of `axes.bar_label`. Call it when the limits of the axes are set.
    """
    figure = axes.figure
    figure.canvas.draw()
    line = axes.transData.transform((0, height))[1]
    for text in texts:
        box = text.get_window_extent().padded(2 * figure.dpi / 72)
        if box.y0 < line < box.y1:
            x, y = text.xyann
            text.xyann = (x, y + (line - box.y0) * 72 / figure.dpi)


def _along_lines(axes: Axes) -> np.ndarray:
    """Pixels along every line and at every marker of some axes, closer together than letters are wide: [n, 2]."""
    found = []
    for line in axes.lines:
        path = axes.transData.transform(np.column_stack(line.get_data()).astype(float))  # [points, 2]
        path = path[np.isfinite(path).all(axis=1)]
        reach = line.get_markersize() / 2 if line.get_marker() not in ("", "None", None) else 0
        for dx, dy in [(0, 0), *((reach, 0), (-reach, 0), (0, reach), (0, -reach))] if reach else [(0, 0)]:
            found.append(path + np.array([dx, dy]) * axes.figure.dpi / 72)
        if line.get_linestyle() not in ("", "None", None) and len(path) > 1:
            for start, end in zip(path[:-1], path[1:], strict=True):
                steps = max(2, int(np.hypot(*(end - start)) / 2))
                found.append(start + np.linspace(0, 1, steps)[:, None] * (end - start))
    return np.concatenate(found) if found else np.zeros((0, 2))


def _covered(box: Bbox, lines: np.ndarray, taken: Sequence[Bbox], inside: Bbox) -> float:
    """How much words in a box would cover: points of lines, other words (these weigh more), the edge of the axes."""
    on_lines = ((lines > box.min) & (lines < box.max)).all(axis=1).sum()
    on_words = sum(box.overlaps(other) for other in taken)
    outside = not (inside.contains(*box.min) and inside.contains(*box.max))
    return float(on_lines + 30 * on_words + 40 * outside)
