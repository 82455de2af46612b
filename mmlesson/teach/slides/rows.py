"""A figure with rows of pictures in parts, for several slides: all rows on one would be too small to read."""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .pages import Figure

if TYPE_CHECKING:
    from PIL import Image

ENCODED = re.compile(r"data:image/[\w+]+;base64,([A-Za-z0-9+/=]+)")
ALT = re.compile(r'\balt="([^"]*)"')
WHITE = 245  # a line of pixels that are all lighter than this is empty
REACH = 0.3  # of a row's height: how far a gap may lie from where it would be if all rows were equally high


def divided(figure: Figure, counts: Sequence[int]) -> list[Figure]:
    """The figure in parts with so many rows each; the whole figure where there are no such gaps between its rows."""
    found = ENCODED.search(figure.html)
    if len(counts) < 2 or figure.size is None or found is None:
        return [figure]
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(found[1])))
    cuts = [_gap(image, place, sum(counts)) for place in itertools.accumulate(counts[:-1])]
    if None in cuts:
        return [figure]
    said = ALT.search(figure.html)
    parts, row = [], 1
    for count, (top, bottom) in zip(counts, itertools.pairwise([0, *cuts, image.height]), strict=True):
        which = f"row {row}" if count == 1 else f"rows {row} to {row + count - 1}"
        alt = f"Of the following, {which} of {sum(counts)}: {html.unescape(said[1]) if said else ''}"
        parts.append(_encoded(image.crop((0, top, image.width, bottom)), alt))
        row += count
    return parts


def _gap(image: Image.Image, row: int, rows: int) -> int | None:
    """The middle of the widest empty band near the end of a row, in pixels from the top."""
    height = image.height / rows
    start, end = int((row - REACH) * height), int((row + REACH) * height)
    strip = image.convert("L").crop((0, start, image.width, end))
    empty = [strip.crop((0, y, strip.width, y + 1)).getextrema()[0] >= WHITE for y in range(strip.height)]
    best, best_length, since = None, 2, None
    for y, is_empty in enumerate([*empty, False]):
        if is_empty and since is None:
            since = y
        elif not is_empty and since is not None:
            if y - since > best_length:
                best, best_length = start + (since + y) // 2, y - since
            since = None
    return best


def _encoded(image: Image.Image, alt: str) -> Figure:
    buffer = io.BytesIO()
    form = "PNG" if image.mode == "P" else "WEBP"
    image.save(buffer, form, **({"optimize": True} if form == "PNG" else {"quality": 90}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return Figure(f'<img src="data:image/{form.lower()};base64,{data}" alt="{html.escape(alt)}">', image.size)
