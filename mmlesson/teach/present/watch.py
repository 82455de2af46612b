"""While a cell runs truly, a class sees it move: the picture that is painted, the curve of a training, or the time.

A cell needs no line for that. A thread looks several times a second at the step that `paint` took last, and at the
lists that the cell fills: one of numbers becomes a curve, the last of a list of pictures is shown. When the cell has
ended, only its own outputs stay.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real

from PIL import Image

REFRESH = 0.3  # seconds between two looks
AFTER = 1.0  # seconds that a cell runs before there is something to see
SIDE = 288  # pixels of a picture
MOST_CURVES = 2
MOST_POINTS = 400


class Place:
    """An output of the cell that runs now, which any thread may change later."""

    _number = 0

    def __init__(self, shell, metadata: Mapping | None = None):
        Place._number += 1
        self._pub = shell.display_pub
        self._parent = getattr(self._pub, "parent_header", {})
        self._metadata = dict(metadata or {})
        self._name = f"mmlesson-{id(self)}-{Place._number}"
        self._is_there = False

    def show(self, page: str, text: str) -> None:
        """Show HTML, or `text` where there is none. The first time it goes below what the cell has shown so far."""
        content = {
            "data": {"text/html": page, "text/plain": text},
            "metadata": self._metadata,
            "transient": {"display_id": self._name},
        }
        kind = "update_display_data" if self._is_there else "display_data"
        self._pub.session.send(self._pub.pub_socket, kind, content, parent=self._parent, ident=self._pub.topic)
        self._is_there = True

    def empty(self) -> None:
        """Show nothing any more."""
        if self._is_there:
            self.show("", "")


class Watch:
    """What there is to see of the cell that runs in this thread.

    names     the names that the cell sets
    seconds   how long it took when its result was stored, 0 where nobody knows
    """

    def __init__(
        self,
        variables: Mapping,
        names: Iterable[str],
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._variables = variables
        self._names = sorted(names)
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._before = {name: _size(variables.get(name)) for name in self._names}
        self.thread = threading.get_ident()
        self.step = None  # the latest of `paint`, and how many there will be
        self.total = 0

    def frame(self) -> str | None:
        """What a class sees now, as HTML; None where the cell has run too short."""
        ran = self._clock() - self._began
        if ran < AFTER:
            return None
        return _bar(ran, self._seconds) + (self._picture() or self._curves())

    def _picture(self) -> str:
        if self.step is not None:
            return _image(self.step.image, f"step {self.step.index} of {self.total}")
        for name in self._names:
            values = self._grown(name)
            if values and isinstance(values[-1], Image.Image):
                return _image(values[-1], f"{name}: picture {len(values)}")
        return ""

    def _curves(self) -> str:
        grown = {name: self._grown(name) for name in self._names}
        curves = [_curve(name, values) for name, values in grown.items() if len(values) > 1 and _are_numbers(values)]
        return "".join(curves[:MOST_CURVES])

    def _grown(self, name: str) -> list:
        """The list of this name, if this cell has made it or filled it."""
        value = self._variables.get(name)
        return list(value) if type(value) is list and _size(value) != self._before[name] else []


def _size(value) -> tuple[int, int]:
    return (id(value), len(value)) if type(value) is list else (0, 0)


def _are_numbers(values: Sequence) -> bool:
    return all(isinstance(value, Real) and not isinstance(value, bool) for value in values)


# ---------------------------------------------------------------------------------------------- what is drawn


def _bar(ran: float, seconds: float) -> str:
    """How long the cell has run, beside how long it took when its result was stored."""
    said = f"Running truly: {ran:.0f} s"
    if seconds < 1:
        return f'<div class="mmlesson-runs">{said}</div>'
    share = min(1.0, ran / seconds)
    bar = f'<progress max="1" value="{share:.3f}" aria-label="How far the cell is, about"></progress>'
    return f'<div class="mmlesson-runs">{said}; stored in {seconds:.0f} s. {bar}</div>'


def _image(image: Image.Image, caption: str) -> str:
    small = image if max(image.size) <= SIDE else image.resize((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    said = html.escape(caption)
    picture = f'<img src="{address}" alt="{said}" decoding="sync" width="{SIDE}" height="{SIDE}">'
    return f'<figure style="margin: 0;">{picture}<figcaption>{said}</figcaption></figure>'


def _curve(name: str, values: Sequence[Real]) -> str:
    """Numbers as a curve with their name, the lowest and the highest."""
    width, height, left = 620, 190, 60
    every = max(1, len(values) // MOST_POINTS)
    points = [(i, float(v)) for i, v in enumerate(values) if i % every == 0 or i == len(values) - 1]
    points = [(i, v) for i, v in points if math.isfinite(v)]
    if not points:
        return ""
    low, high = min(v for _, v in points), max(v for _, v in points)
    spread = (high - low) or 1.0

    def at(i: int, value: float) -> str:
        x = left + (width - left - 10) * i / max(1, len(values) - 1)
        return f"{x:.1f},{10 + (height - 20) * (high - value) / spread:.1f}"

    line = " ".join(at(i, v) for i, v in points)
    x, y = at(*points[-1]).split(",")
    said = html.escape(f"{name}: {len(values)} values, now {points[-1][1]:.3g}")
    return (
        f'<figure style="margin: 0;"><svg role="img" aria-label="{said}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-size="14" fill="currentColor" style="max-width: 100%;">'
        f'<text x="{left - 6}" y="18" text-anchor="end">{high:.3g}</text>'
        f'<text x="{left - 6}" y="{height - 6}" text-anchor="end">{low:.3g}</text>'
        f'<polyline points="{line}" fill="none" stroke="#1c6dd0" stroke-width="3"/>'
        f'<circle cx="{x}" cy="{y}" r="5" fill="#1c6dd0"/></svg><figcaption>{said}</figcaption></figure>'
    )


# ------------------------------------------------------------------------------------------- in the kernel

_now: tuple[Watch, threading.Event] | None = None


def begin(shell, names: Iterable[str], seconds: float) -> None:
    """Show from now on how far the cell is that runs in this thread, until `end`."""
    global _now
    end()
    watch, ended = Watch(shell.user_ns, names, seconds), threading.Event()
    _now = watch, ended
    threading.Thread(target=_follow, args=(watch, Place(shell), ended), name="watch", daemon=True).start()


def end() -> None:
    global _now
    if _now is not None:
        _now[1].set()
        _now = None


def _follow(watch: Watch, place: Place, ended: threading.Event) -> None:
    shown = None
    while not ended.wait(REFRESH):
        _see_paintings()
        frame = watch.frame()
        if frame is not None and frame != shown and not ended.is_set():
            place.show(frame, "The cell runs.")
            shown = frame
    place.empty()


def _see_paintings() -> None:
    """From now on every step of `paint` in the cell's own thread is what the watch shows."""
    painter = sys.modules.get("mmlesson.painter")
    kind = getattr(painter, "Painting", None)
    if kind is None or hasattr(kind.__next__, "__wrapped__"):
        return
    take = kind.__next__

    @functools.wraps(take)
    def seen(painting):
        step = take(painting)
        if _now is not None and _now[0].thread == threading.get_ident():
            _now[0].step, _now[0].total = step, painting.total
        return step

    kind.__next__ = seen
