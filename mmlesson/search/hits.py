"""What a search returns: pictures that were found, and how a notebook shows them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from mmlesson.models.familiar import UNFAMILIAR
from mmlesson.pixels import ImageError, image_grid, thumbnail
from mmlesson.words import shown

if TYPE_CHECKING:
    from mmlesson.search.index import ImageIndex

AS_TEXT = "mathjax_ignore tex2jax_ignore"  # or JupyterLab would typeset a caption "$x$" as a formula


@dataclass(frozen=True)
class Hit:
    """A picture that was found."""

    path: Path | None  # None where the index was built from pictures or scenes, not from files
    score: float  # the cosine of query and picture, in -1…1
    caption: str | None  # where there is one
    id: int  # its number in the index: in a list of pictures or scenes its place, from 0
    _index: ImageIndex = field(repr=False, compare=False)
    address: str | None = None  # of a picture in a list or a table, and of one on a server: s3://…

    @property
    def image(self) -> Image.Image:
        """The picture, RGB: the file at its full size, a scene drawn anew, one of a list at most 256 pixels large.

        Raises ImageError where the file is gone or damaged by now.
        """
        return self._index.image(self)

    @property
    def name(self) -> str:
        """What to call the picture: its caption, or the name of its file, or its number."""
        file = self.path.name if self.path is not None else (self.address or "").rpartition("/")[2]
        return self.caption or file or f"picture {self.id}"

    def __str__(self) -> str:
        parts = [shown(self.path) if self.path is not None else shown(self.address or ""), shown(self.caption or "")]
        named = " ".join(filter(None, parts)) or f"picture {self.id}"
        return f"{self.score:.3f}  {named}"


class Hits(list):
    """The pictures found, best first: a list of `Hit` that a notebook shows as a captioned grid.

    query      the sentence that was searched; "" for other queries
    best       the highest score in the whole collection; None where nothing was searched
    min_score  the score below which nothing was returned; None for no limit
    """

    def __init__(
        self, hits: Iterable[Hit] = (), query: str = "", best: float | None = None, min_score: float | None = None
    ):
        super().__init__(hits)
        self.query = query
        self.best = best
        self.min_score = min_score

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or self._nothing()

    def _nothing(self) -> str:
        if self.best is None:
            return "Nothing was searched: no picture passes the filter, or the index is empty."
        limit = f", below {self.min_score:.3f}" if self.min_score is not None and self.best < self.min_score else ""
        return f"Nothing fits: the best score is {self.best:.3f}{limit}."

    def note(self, most: int = 10) -> str:
        """A sentence where pictures among the first `most` are unlike those that the CLIP learned from; or ""."""
        clip = self[0]._index.clip if self else None
        if clip is None or clip.familiarity is None:
            return ""
        images = []
        for hit in self[:most]:
            try:
                images.append(hit.image)
            except ImageError:  # gone or damaged since it was indexed
                continue
        strange = int((clip.familiar(images) < UNFAMILIAR).sum()) if images else 0
        if not strange:
            return ""
        verb, its = ("is", "its place") if strange == 1 else ("are", "their places")
        return (
            f"{strange} of the first {len(images)} pictures {verb} unlike those that {clip.name} learned from"
            f"{f' ({clip.knows})' if clip.knows else ''}: do not rely on {its}."
        )

    def grid(self, columns: int = 5, size: int = 128) -> Image.Image:
        """The pictures with scores and captions as one RGB picture. Raises ImageError where there is no hit."""
        labels = [f"{hit.score:.3f} {hit.name}" for hit in self]
        return image_grid([_thumbnail(hit, size) for hit in self], columns, labels)

    def _repr_html_(self) -> str:
        if not self:
            return f'<p class="{AS_TEXT}">{html.escape(self._nothing())}</p>'
        return f'<div class="{AS_TEXT}" style="display:flex;flex-wrap:wrap;gap:8px">{"".join(map(_figure, self))}</div>'


def _thumbnail(hit: Hit, size: int) -> Image.Image:
    try:
        return thumbnail(hit.image, size)
    except ImageError:  # the file is gone or damaged since it was indexed: show a grey square
        return Image.new("RGB", (size, size), "#cccccc")


def _figure(hit: Hit) -> str:
    """One hit as HTML. The name comes from outside, so it is escaped."""
    buffer = io.BytesIO()
    _thumbnail(hit, 128).save(buffer, "WEBP", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    name = html.escape(hit.name, quote=True)
    return (
        '<figure style="margin:0;width:132px;font-size:12px;line-height:1.3">'
        f'<img src="data:image/webp;base64,{data}" alt="{name}" title="{name}" style="max-width:128px">'
        f"<figcaption><b>{hit.score:.3f}</b> {name}</figcaption></figure>"
    )
