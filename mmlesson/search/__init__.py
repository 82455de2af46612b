"""Image search: a collection of pictures, a sentence, and the pictures that fit it.

    index = ImageIndex.build("pictures/", clip)        # reads every picture once
    hits = index.search("a red apple", k=5)            # Hit(path, score, caption, image)

Every picture becomes a CLIP embedding of length 1, a row of one matrix. A query becomes another such vector,
one product of matrix and vector gives all cosines, and the largest win. That is the whole of exact search,
and it is fast: the matrix is a file mapped into memory. What the matrix cannot do (files, captions, filters,
changes, crashes, an approximate index for millions of pictures) is LanceDB's part, a database in a folder
(docs.lancedb.com). The approximate index is an inverted file: k-means cells, of which a query visits a few
(Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search", section IV).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import gates, runtime
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.models import assets
from mmlesson.pixels import ImageError, as_list, image_grid, list_images, load_image, thumbnail, walk_images
from mmlesson.world import Scene, Thing

if TYPE_CHECKING:
    import pyarrow

TABLE = "pictures"
FORMAT = 1  # of the table; an older one is built anew
COLUMNS = ("path", "size", "modified", "sha256", "caption")  # what a filter may ask for
EXACT_UP_TO = 200_000  # pictures; above, an approximate index answers faster (`mmlesson bench search` prints both)
PROBES = 64  # cells that an approximate search visits, of about sqrt(n)
COMMIT_EVERY = (10.0, 4096)  # seconds or pictures: what a crash may cost
MAX_BYTES = 500_000_000  # of one picture file
THUMBNAIL = 256  # pixels of the longer side that are kept of pictures that are not files


@dataclass(frozen=True)
class Hit:
    """A picture that was found."""

    path: Path | None  # None where the index was built from pictures or scenes, not from files
    score: float  # the cosine of query and picture, in -1…1
    caption: str | None  # where there is one
    id: int  # its number in the index: in a list of pictures or scenes its place, from 0
    _index: ImageIndex = field(repr=False, compare=False)

    @property
    def image(self) -> Image.Image:
        """The picture, RGB: the file at its full size, a scene drawn anew, of a list of pictures at most 256 pixels.

        Raises ImageError where the file is gone or damaged by now.
        """
        return self._index.image(self)

    def __str__(self) -> str:
        named = " ".join(filter(None, [self.path and str(self.path), self.caption])) or f"picture {self.id}"
        return f"{self.score:.3f}  {named}"


class Hits(list):
    """The pictures found, best first: a list of `Hit` that a notebook shows as a captioned grid.

    best       the highest score in the whole collection; None where nothing was searched
    min_score  the score below which nothing was returned; None for no limit
    """

    def __init__(
        self, hits: Iterable[Hit] = (), query: str = "", best: float | None = None, min_score: float | None = None
    ):
        super().__init__(hits)
        self.query, self.best, self.min_score = query, best, min_score

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or self._nothing()

    def _nothing(self) -> str:
        if self.best is None:
            return "Nothing was searched: no picture passes the filter, or the index is empty."
        limit = f", below {self.min_score:.3f}" if self.min_score is not None and self.best < self.min_score else ""
        return f"Nothing fits: the best score is {self.best:.3f}{limit}."

    def grid(self, columns: int = 5, size: int = 128) -> Image.Image:
        """The pictures with scores and captions as one picture. Raises ImageError for no hit."""
        labels = [f"{hit.score:.3f} {hit.caption or (hit.path.name if hit.path else '')}".strip() for hit in self]
        return image_grid([_thumbnail(hit, size) for hit in self], columns, labels)

    def _repr_html_(self) -> str:
        if not self:
            return f"<p>{html.escape(self._nothing())}</p>"
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(map(_figure, self))}</div>'


def _thumbnail(hit: Hit, size: int) -> Image.Image:
    try:
        return thumbnail(hit.image, size)
    except ImageError:  # gone or damaged since it was indexed: a grey square says so by its caption
        return Image.new("RGB", (size, size), "#cccccc")


def _figure(hit: Hit) -> str:
    """One hit as HTML; whatever comes from outside is escaped."""
    buffer = io.BytesIO()
    _thumbnail(hit, 128).save(buffer, "WEBP", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    name = html.escape(hit.caption or (hit.path.name if hit.path else f"picture {hit.id}"), quote=True)
    return (
        '<figure style="margin:0;width:132px;font-size:12px;line-height:1.3">'
        f'<img src="data:image/webp;base64,{data}" alt="{name}" title="{name}" style="max-width:128px">'
        f"<figcaption><b>{hit.score:.3f}</b> {name}</figcaption></figure>"
    )


@dataclass(frozen=True)
class Update:
    """What an update did, in pictures."""

    added: int
    changed: int
    removed: int
    unchanged: int
    embedded: int  # how many had to be read by the CLIP: moved and copied files keep their embedding
    skipped: int  # files that cannot be read; `ImageIndex.skipped` says why

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.changed} changed, {self.removed} removed, {self.unchanged} unchanged"
        return f"{counts}; {self.embedded} embedded" + (f", {self.skipped} skipped" if self.skipped else "")


@dataclass(frozen=True)
class _Entry:
    """A picture of the source, before it is read."""

    path: str  # of a file: relative to the folder, with forward slashes; of an item of a list: "#3"
    size: int = 0  # bytes
    modified: int = 0  # nanoseconds since 1970
    caption: str | None = None
    item: Path | Image.Image | Scene | None = None
    error: str = ""  # why it cannot even be tried


@dataclass
class _Read:
    """What reading an entry gave."""

    entry: _Entry
    sha256: str = ""
    prepared: torch.Tensor | None = None  # [3, image_size, image_size]; None where its embedding is known
    stored: bytes | None = None  # what is kept to show the picture by
    error: str = ""


class ImageIndex:
    """An index of pictures on disk, searched by sentences and pictures. `build` makes one, `open` opens one.

    folder   where it is kept: a LanceDB table and the matrix of its embeddings
    source   the folder whose pictures it holds; None for a list
    clip     the CLIP that made the embeddings
    skipped  (path, reason) of each file that the last build or update could not read
    """

    def __init__(self, folder: Path, clip: CLIP, table):
        self.folder, self.clip, self._table = folder, clip, table
        about = _about(table)
        self.source = Path(about["source"]) if about["source"] else None
        self.skipped: list[tuple[str, str]] = []
        self._load()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"ImageIndex({len(self)} pictures of {self.source or 'a list'}, {self.clip.name!r}, in {self.folder})"

    # ------------------------------------------------------------------------------------- making

    @classmethod
    def build(
        cls,
        source,
        clip: CLIP,
        path: str | os.PathLike | None = None,
        captions: Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> ImageIndex:
        """An index of `source`: a folder (with all below it), a list of PIL pictures, or scenes of the pocket world.

        path: the folder to keep it in; None is one in the user's cache, never the picture folder. Where an index
        of the same CLIP is there already it is brought up to date, so that a build that was stopped goes on.
        captions: one for each picture of a list. A scene has its own; a file has that of `name.txt` beside `name.jpg`.
        Broken, unreadable and absurdly large files are left out and listed in `skipped`.
        Memory grows with `batch_size`, not with the collection. What was done when Ctrl-C came is kept.
        Raises ImageError where there is no such folder or no picture that can be read, AssetError where nothing can
        be written or the index there was made with another CLIP.
        """
        entries, root = _entries(source, captions)
        folder = Path(path).expanduser().absolute() if path else _place(source, root, entries, clip)
        if root is not None and folder == root:
            raise AssetError(f"{folder} holds the pictures: give the index a folder of its own.")
        with _writing(folder):
            table = _open_table(folder) or _create_table(folder, clip, root)
            _check_clip(table, clip, folder)
            index = cls(folder, clip, table)
            if index.source != root:
                raise AssetError(
                    f"{folder} is an index of {index.source or 'a list'}: give this one another path, or delete that."
                )
            index._synchronise(entries, batch_size)
        if not len(index):
            reasons = "; ".join(f"{name}: {why}" for name, why in index.skipped[:3])
            raise ImageError(f"None of the {len(entries)} pictures can be read. {reasons}")
        return index

    @classmethod
    def open(cls, path: str | os.PathLike, clip: CLIP) -> ImageIndex:
        """The index at `path`: its own folder, or the picture folder whose index is in the cache. Reads no picture.

        Raises AssetError where there is none, it is damaged, or it was made with another CLIP.
        """
        folder = Path(path).expanduser().absolute()
        table = _open_table(folder)
        if table is None and folder.is_dir():
            folder = _place(folder, folder, [], clip)
            table = _open_table(folder)
        if table is None:
            raise AssetError(
                f"There is no index of {clip.name} at {path}: make one with ImageIndex.build({str(path)!r}, clip)."
            )
        _check_clip(table, clip, folder)
        return cls(folder, clip, table)

    def update(self, batch_size: int = 64) -> Update:
        """Bring the index of a folder up to date: embeds what is new or changed, drops what is gone; says how many of each.

        A file is unchanged while its size and time are; one that was only moved, copied or touched (equal sha256)
        keeps its embedding. A stop or crash in the middle leaves an index that works; the next update goes on.
        Raises ImageError where the folder is gone, ValueError for the index of a list (build it again instead).
        """
        if self.source is None:
            raise ValueError(
                "this index was built from a list, which cannot be read again: call ImageIndex.build with the new list."
            )
        with _writing(self.folder):
            self._table.checkout_latest()
            return self._synchronise(_folder_entries(self.source), batch_size)

    def optimise(self, approximate: bool | None = None) -> None:
        """Compact the table, and make the approximate index where there are more than EXACT_UP_TO pictures.

        approximate: True makes it for any number from 1,000 on, False leaves it. It is an inverted file with about
        sqrt(n) cells (LanceDB's IVF_FLAT, dot product): a search visits some of the cells and is exact within them.
        Raises ValueError where there are too few pictures.
        """
        from lancedb.index import IvfFlat

        if approximate is None:
            approximate = len(self) > EXACT_UP_TO
        if approximate and len(self) < 1000:
            raise ValueError(
                f"an approximate index needs 1,000 pictures or more, and this one has {len(self)}: exact search is faster."
            )
        with _writing(self.folder):
            self._table.checkout_latest()
            self._table.optimize(
                cleanup_older_than=timedelta(hours=1)
            )  # another process may still read an older version
            if approximate:
                cells = max(4, round(len(self) ** 0.5))
                self._table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=cells))
            self._load()

    @property
    def is_approximate(self) -> bool:
        """Whether there is an approximate index."""
        return self._cells

    def _synchronise(self, entries: list[_Entry], batch_size: int) -> Update:
        """Make the table hold exactly `entries`; commits every few seconds, so that little is lost by a stop."""
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is a number of pictures, at least 1, not {batch_size!r}.")
        columns = ["id", *COLUMNS]
        known = {row["path"]: row for row in self._table.search().select(columns).to_arrow().to_pylist()}
        self._next_id = max((row["id"] for row in known.values()), default=-1) + 1
        embedded = {row["sha256"]: row["id"] for row in known.values()}  # what need not be read again
        vectors = self._vectors_by_id()

        todo = [entry for entry in entries if not _is_unchanged(entry, known.get(entry.path))]
        done, fresh, same = 0, 0, 0
        self.skipped = []
        pending: list[tuple[_Read, torch.Tensor]] = []
        last, commits = time.monotonic(), 0
        waiting = runtime.progress(iter(todo), len(todo), "indexing", "picture")
        threads = min(16, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            try:
                while batch := list(islice(waiting, batch_size)):
                    read = list(pool.map(lambda entry: self._read(entry, embedded), batch))
                    self.skipped += [(each.entry.path, each.error) for each in read if each.error]
                    read = [each for each in read if not each.error]
                    new = [each for each in read if each.prepared is not None]
                    features = iter(
                        self.clip.encode_prepared([each.prepared for each in new]) if new else []
                    )  # [n, dim]
                    pending += [
                        (each, next(features) if each.prepared is not None else vectors(embedded[each.sha256]))
                        for each in read
                    ]
                    fresh += len(new)
                    same += sum(_says_the_same(each, known.get(each.entry.path)) for each in read)
                    if time.monotonic() - last > COMMIT_EVERY[0] or len(pending) >= COMMIT_EVERY[1]:
                        done += self._commit(pending, known)
                        last, commits, pending = time.monotonic(), commits + 1, []
            except KeyboardInterrupt:
                done += self._commit(pending, known)
                self._load()
                raise KeyboardInterrupt(
                    f"{done} of {len(todo)} new pictures are in the index {self.folder}; the same call goes on from there."
                ) from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        done += self._commit(pending, known)

        gone = known.keys() - ({entry.path for entry in entries} - {path for path, _ in self.skipped})
        self._delete(sorted(gone))
        if commits > 16:
            self._table.optimize()  # many small files make one large
        self._load()
        new_paths = sum(entry.path not in known for entry in todo) - sum(path not in known for path, _ in self.skipped)
        changed = done - new_paths - same
        unchanged = len(entries) - len(todo) + same
        return Update(new_paths, changed, len(gone), unchanged, fresh, len(self.skipped))

    def _read(self, entry: _Entry, embedded: dict[str, int]) -> _Read:
        """Hash a picture and prepare it for the CLIP, or say why that cannot be done. Runs in a thread."""
        read = _Read(entry)
        try:
            if entry.error:
                raise ImageError(entry.error)
            if isinstance(entry.item, Path):
                if entry.size > MAX_BYTES:
                    raise ImageError(
                        f"it has {entry.size / 1e6:,.0f} MB, more than {MAX_BYTES // 10**6}: make it smaller first."
                    )
                read.sha256 = assets.sha256(entry.item)
                picture = entry.item
            elif isinstance(entry.item, Scene):
                read.stored = _scene_to_json(entry.item)
                read.sha256 = hashlib.sha256(read.stored).hexdigest()
                picture = entry.item.render(self.clip.image_size) if read.sha256 not in embedded else None
            else:
                picture = load_image(entry.item)
                read.sha256 = _pixel_hash(picture)
                buffer = io.BytesIO()
                thumbnail(picture, THUMBNAIL).save(buffer, "WEBP", quality=90)
                read.stored = buffer.getvalue()
            if read.sha256 not in embedded:
                read.prepared = self.clip.prepare(picture)
        except ImageError as error:
            read.error = str(error)
        except OSError as error:  # from the hash
            read.error = f"it cannot be read ({(error.strerror or str(error)).lower()})."
        except (MemoryError, RuntimeError) as error:  # one picture may not stop the work on all others
            read.error = f"it cannot be prepared ({error})."
        return read

    def _commit(self, rows: list[tuple[_Read, torch.Tensor]], known: dict) -> int:
        """Write rows to the table in one step, in place of those with the same path; returns how many."""
        import pyarrow as pa

        if not rows:
            return 0
        columns: dict[str, list] = {name: [] for name in ("id", *COLUMNS, "stored")}
        for read, _ in rows:
            entry = read.entry
            number = int(entry.path[1:]) if self.source is None else self._next_id
            self._next_id += 1
            values = (number, entry.path, entry.size, entry.modified, read.sha256, entry.caption, read.stored)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        schema = self._table.schema
        flat = torch.stack([features for _, features in rows]).numpy().ravel()
        arrays = [pa.array(values, schema.field(name).type) for name, values in columns.items()]
        data = pa.table([*arrays, pa.FixedSizeListArray.from_arrays(flat, self.clip.dim)], schema=schema)
        try:
            if any(read.entry.path in known for read, _ in rows):
                self._table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(data)
            else:
                self._table.add(data)
        except (OSError, RuntimeError) as error:  # LanceDB's errors of a full disk or a folder without permission
            raise AssetError(
                f"The index {self.folder} cannot be written ({error}): free some space and call it again."
            ) from error
        return len(rows)

    def _delete(self, paths: list[str]) -> None:
        for start in range(0, len(paths), 1000):
            listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths[start : start + 1000])
            self._table.delete(f"path IN ({listed})")

    # ------------------------------------------------------------------------------------ loading

    def _load(self) -> None:
        """Take the table as it is now: its rows in the order of their ids, and the matrix of embeddings in the same order."""
        try:
            rows = self._table.search().select(["id", "path", "caption"]).to_arrow()
            self._rows: pyarrow.Table = rows.sort_by("id")
            self._ids = self._rows["id"].to_numpy()  # [n] int64, rising
            self._vectors = self._map_vectors()  # [n, dim] float32
            self._cells = any("vector" in index.columns for index in self._table.list_indices())
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(self.folder, error) from error

    def _map_vectors(self) -> torch.Tensor:
        """The matrix from its file, mapped and not read; the file is written anew from the table where it is not this version's."""
        n, dim = len(self._ids), self.clip.dim
        if not n:
            return torch.zeros(0, dim)
        file = self.folder / f"vectors-{self._table.version}.npy"
        array = _mapped(file, (n, dim))
        if array is None:
            with contextlib.suppress(AssetError):  # nothing can be written here: hold the matrix in memory instead
                gates.write_atomically(file, self._write_vectors)
                for old in self.folder.glob("vectors-*.npy"):
                    if old != file:
                        with contextlib.suppress(OSError):  # another process has it open (Windows)
                            old.unlink()
            array = _mapped(file, (n, dim))
        if array is None:
            array = self._fill(np.empty((n, dim), np.float32))
        return torch.from_numpy(array)

    def _write_vectors(self, path: Path) -> None:
        array = np.lib.format.open_memmap(path, "w+", np.float32, (len(self._ids), self.clip.dim))
        self._fill(array).flush()

    def _fill(self, array: np.ndarray) -> np.ndarray:
        for batch in self._table.search().select(["id", "vector"]).to_batches():
            places = np.searchsorted(self._ids, batch["id"].to_numpy())
            array[places] = batch["vector"].flatten().to_numpy(zero_copy_only=False).reshape(-1, self.clip.dim)
        return array

    def _vectors_by_id(self):
        ids, vectors = self._ids, self._vectors  # as they are before the update
        return lambda number: vectors[int(np.searchsorted(ids, number))].clone()

    # ---------------------------------------------------------------------------------- searching

    def search(
        self,
        query,
        k: int = 10,
        where: str | None = None,
        min_score: float | None = None,
        exact: bool | None = None,
        probes: int = PROBES,
    ) -> Hits:
        """The `k` pictures that fit a query best, best first; ties in the order of insertion.

        query: a sentence (str); a picture (a path as pathlib.Path, PIL, an array `[h, w, 3]`); a `Hit`; an embedding
            `[dim]`; or a list of these, each alone or as `(weight, query)`, whose weighted sum is searched:
            `["a red car", (-0.5, "snow")]`.
        where: a filter in SQL over path, size (bytes), modified (ns), sha256, caption: `"caption LIKE '%cat%'"`.
        min_score: nothing below it is returned. None is what `calibrate` found, for queries of one sentence, and no
            limit for others: cosines between pictures are higher than those between a sentence and a picture.
        exact: compare with every picture (True) or only with those in the nearest cells of the approximate index
            (False, after `optimise`). None: exact up to EXACT_UP_TO pictures, or where there is no approximate index.
        probes: how many cells an approximate search visits: more find more, and take longer.
        Raises ValueError for a query, filter or number that is none, ImageError for a picture that cannot be read.
        """
        for name, value in (("k, how many pictures to find,", k), ("probes, how many cells to visit,", probes)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {value!r}.")
        features = self.embed(query)  # [dim]
        if min_score is None and isinstance(query, str):
            min_score = self.min_score
        if exact is None:
            exact = len(self) <= EXACT_UP_TO or not self.is_approximate
        places, scores = self._exact(features, k, where) if exact else self._approximate(features, k, where, probes)
        best = float(scores[0]) if len(scores) else None
        hits = [
            self._hit(place, score)
            for place, score in zip(places, scores, strict=True)
            if min_score is None or score >= min_score
        ]
        return Hits(hits, query if isinstance(query, str) else "", best, min_score)

    def _exact(self, features: torch.Tensor, k: int, where: str | None) -> tuple[list[int], list[float]]:
        """Places and scores of the k best among all rows, or among those that pass the filter."""
        allowed = None if where is None else self._passing(where)
        vectors = self._vectors if allowed is None else self._vectors[allowed]
        scores = torch.from_numpy(
            vectors.numpy() @ features.numpy()
        )  # [n]; twice as fast as torch's product with one vector
        k = min(k, len(scores))
        if not k:
            return [], []
        last = scores.topk(k).values[-1]  # among equal scores topk takes any: all of them stand for choice
        chosen = (scores >= last).nonzero()[:, 0]
        chosen = chosen[scores[chosen].sort(descending=True, stable=True).indices[:k]]
        places = chosen if allowed is None else allowed[chosen]
        return places.tolist(), scores[chosen].tolist()

    def _passing(self, where: str) -> torch.Tensor:
        """The places, rising, of the rows for which the filter holds."""
        with _readable_filter(where):
            ids = self._table.search().where(where).select(["id"]).to_arrow()["id"].to_numpy()
        return torch.from_numpy(np.searchsorted(self._ids, np.sort(ids)))

    def _approximate(
        self, features: torch.Tensor, k: int, where: str | None, probes: int
    ) -> tuple[list[int], list[float]]:
        if not self.is_approximate:
            raise ValueError("there is no approximate index here: call index.optimise(approximate=True) first.")
        query = (
            self._table.search(features.numpy())
            .distance_type("dot")
            .nprobes(probes)
            .limit(k)
            .select(["id", "_distance"])
        )
        if where is not None:
            query = query.where(where, prefilter=True)
        with _readable_filter(where):
            found = query.to_arrow()
        places = np.searchsorted(self._ids, found["id"].to_numpy())
        return places.tolist(), [1 - distance for distance in found["_distance"].to_pylist()]  # LanceDB's is 1 - cosine

    def scores(self, queries) -> torch.Tensor:
        """The cosine of each of a list of queries with each picture: float32 `[n_queries, n]`, columns in the order of ids."""
        queries = list(queries)
        if queries and all(isinstance(query, str) for query in queries):
            features = self.clip.encode_texts(queries)  # [n_queries, dim], at once
        else:
            features = torch.stack([self.embed(query) for query in queries] or [torch.zeros(self.clip.dim)])[
                : len(queries)
            ]
        return features @ self._vectors.T

    def embed(self, query) -> torch.Tensor:
        """The embedding of a query, as `search` takes them: float32 `[dim]` of unit length."""
        if isinstance(query, list):
            return self._mix(query)
        if isinstance(query, str):
            if not query.strip():
                raise ValueError("the query is empty: say what the picture shows, such as 'a red apple'.")
            return self.clip.encode_texts([query])[0]
        if isinstance(query, Hit):
            return self._vectors[self._place_of(query.id)]
        if isinstance(query, (np.ndarray, torch.Tensor)) and query.ndim == 1:
            vector = torch.as_tensor(query, dtype=torch.float32).detach().cpu()
            if len(vector) != self.clip.dim or not vector.isfinite().all() or not vector.any():
                raise ValueError(f"an embedding of {self.clip.name} is {self.clip.dim} finite numbers, not all 0.")
            return F.normalize(vector, dim=0)
        if isinstance(query, (tuple, dict, int, float)) or query is None:
            raise ValueError(
                f"a query is a sentence, a picture, an embedding or a list of (weight, query), not {query!r}."
            )
        return self.clip.encode_images(query)[0]

    def _mix(self, parts: list) -> torch.Tensor:
        total = torch.zeros(self.clip.dim)
        for part in parts:
            weight, query = part if isinstance(part, tuple) and len(part) == 2 else (1.0, part)
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not np.isfinite(weight):
                raise ValueError(f"a weighted query is (weight, query), such as (-0.5, 'snow'), not {part!r}.")
            total = total + weight * self.embed(query)
        if total.norm() < 1e-6:
            raise ValueError("these queries cancel out, or there is none: give at least one with a weight above 0.")
        return F.normalize(total, dim=0)

    def _hit(self, place: int, score: float) -> Hit:
        row = self._rows.slice(place, 1).to_pylist()[0]
        path = None if self.source is None else self.source / row["path"]
        return Hit(path, float(score), row["caption"], row["id"], self)

    def _place_of(self, number: int) -> int:
        place = int(np.searchsorted(self._ids, number))
        if place == len(self._ids) or self._ids[place] != number:
            raise ValueError(f"picture {number} is not in the index any more: search again.")
        return place

    def image(self, hit: Hit) -> Image.Image:
        """The picture of a hit; see `Hit.image`."""
        if hit.path is not None:
            return load_image(hit.path)
        rows = self._table.search().where(f"id = {hit.id}").select(["stored"]).to_arrow()["stored"].to_pylist()
        if not rows:
            raise ImageError(f"picture {hit.id} is not in the index any more: search again.")
        return _scene_from_json(rows[0]).render(THUMBNAIL) if rows[0][:1] == b"{" else load_image(rows[0])

    # -------------------------------------------------------------------------------- nothing fits

    @property
    def min_score(self) -> float | None:
        """The score that `calibrate` found; None before."""
        try:
            return float(json.loads((self.folder / "calibration.json").read_text())["min_score"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def calibrate(self, absent: Iterable[str], false_hits: float = 0.05) -> float:
        """Measure the score from which on a hit means something, and keep it as `min_score`; returns it.

        absent: sentences that nothing in the collection fits, fifty or more, worded as queries will be.
        false_hits: the share of them whose best picture may still pass; `min_score` is that quantile of their best
        scores. A larger collection has better best scores: calibrate again after it has grown a lot.
        Raises ValueError for too few sentences, an empty index or another share.
        """
        absent = list(absent)
        if len(absent) < 20:
            raise ValueError(
                f"a threshold from {len(absent)} sentences is a guess: give 20 or more that nothing here fits."
            )
        if not 0 < false_hits < 1:
            raise ValueError(f"false_hits is a share between 0 and 1, such as 0.05, not {false_hits!r}.")
        if not len(self):
            raise ValueError("the index is empty: there is nothing to calibrate on.")
        best = (self.clip.encode_texts(absent) @ self._vectors.T).amax(dim=1)  # [n_absent]
        found = best.quantile(1 - false_hits).item()
        kept = {"min_score": found, "false_hits": false_hits, "sentences": len(absent), "pictures": len(self)}
        gates.write_atomically(self.folder / "calibration.json", (json.dumps(kept) + "\n").encode())
        return found


# ---------------------------------------------------------------------------------------------------
# Evaluation


@dataclass(frozen=True)
class Retrieval:
    """How well an index finds known answers; `intervals` has the 95 % bootstrap interval of each figure."""

    n: int  # queries
    recall_at_1: float  # share of queries whose answer is the first hit
    recall_at_5: float
    recall_at_10: float
    mrr: float  # mean reciprocal rank: the mean of 1 / rank
    median_rank: float
    intervals: dict[str, tuple[float, float]] = field(compare=False)

    def __str__(self) -> str:
        lines = [f"{self.n} queries"]
        lines += [
            f"{name:13} {getattr(self, name):6.3f}  ({low:.3f} … {high:.3f})"
            for name, (low, high) in self.intervals.items()
        ]
        return "\n".join(lines)


def evaluate_retrieval(index: ImageIndex, pairs: Iterable[tuple], resamples: int = 1000, seed: int = 0) -> Retrieval:
    """How often, and how high, the known answer of each query is found among all pictures of the index.

    pairs: (query, answer); an answer is a `Hit.path` or a path relative to the folder, or for a list a place in it.
    Ranks are those of exact search; scores within 1e-6 are a tie. The intervals are those in which 95 % of `resamples`
    bootstrap samples of the queries fall (Efron 1979). Raises ValueError for no pair or an answer that is not in the index.
    """
    pairs = list(pairs)
    if not pairs:
        raise ValueError("there is nothing to evaluate: give at least one (query, answer).")
    places = {path: place for place, path in enumerate(index._rows["path"].to_pylist())}
    answers = []
    for _, answer in pairs:
        if isinstance(answer, (str, os.PathLike)):
            path = Path(answer)
            key = path.relative_to(index.source).as_posix() if path.is_absolute() and index.source else path.as_posix()
        else:
            key = f"#{answer}"
        if key not in places:
            raise ValueError(f"the answer {answer!r} is not in the index.")
        answers.append(places[key])
    truth = torch.tensor(answers)[:, None]  # [n_queries, 1]
    ranks = []
    for start in range(0, len(pairs), 256):  # queries at a time
        rows, scores = truth[start : start + 256], index.scores([query for query, _ in pairs[start : start + 256]])
        own = scores.gather(1, rows)  # [256, 1]
        before = torch.arange(len(index)) < rows  # a tie goes to the one that was inserted first
        tie = (scores - own).abs() <= 1e-6  # a matrix product rounds equal rows in different ways
        ranks.append(1 + ((scores > own) & ~tie | tie & before).sum(dim=1))
    ranks = torch.cat(ranks).double()  # [n_queries]

    figures = {
        "recall_at_1": lambda ranks: (ranks <= 1).double().mean(-1),
        "recall_at_5": lambda ranks: (ranks <= 5).double().mean(-1),
        "recall_at_10": lambda ranks: (ranks <= 10).double().mean(-1),
        "mrr": lambda ranks: (1 / ranks).mean(-1),
        "median_rank": lambda ranks: ranks.quantile(0.5, dim=-1),
    }
    drawn = ranks[
        torch.randint(len(ranks), (resamples, len(ranks)), generator=runtime.generator(seed))
    ]  # [resamples, n]
    limits = torch.tensor([0.025, 0.975], dtype=torch.float64)
    intervals = {name: tuple(figure(drawn).quantile(limits).tolist()) for name, figure in figures.items()}
    return Retrieval(len(ranks), *(figure(ranks).item() for figure in figures.values()), intervals)


# ---------------------------------------------------------------------------------------------------
# The source


def _entries(source, captions: Sequence[str] | None) -> tuple[list[_Entry], Path | None]:
    """The pictures of a source, and its folder if it is one."""
    if isinstance(source, (str, os.PathLike)):
        if captions is not None:
            raise ValueError(
                "captions are for a list of pictures; for a folder write each into name.txt beside name.jpg."
            )
        root = Path(source).expanduser().absolute()
        entries = _folder_entries(root) if root.is_dir() else []
        if not entries:
            list_images(root)  # says what is wrong with a folder that is none, or has no picture
        return entries, root
    items = as_list(source) if not isinstance(source, Scene) else [source]
    if not items:
        raise ImageError("the list holds no picture.")
    if captions is None:
        captions = [item.caption if isinstance(item, Scene) else None for item in items]
    if len(captions) != len(items):
        raise ValueError(f"{len(captions)} captions for {len(items)} pictures: give one each.")
    return [
        _Entry(f"#{number}", caption=caption, item=item)
        for number, (item, caption) in enumerate(zip(items, captions, strict=True))
    ], None


def _folder_entries(root: Path) -> list[_Entry]:
    """The picture files below a folder, by path. Raises ImageError where the folder is gone."""
    if not root.is_dir():
        raise ImageError(f"{root}, the folder of the pictures, is gone: put it back, or build an index of another.")
    entries, start = [], len(str(root)) + (not str(root).endswith(os.sep))
    for path in walk_images(root):
        relative = str(path)[start:].replace(os.sep, "/")
        try:
            relative.encode()
            stat = path.stat()
            caption = _caption_beside(path)
        except UnicodeEncodeError:
            shown = relative.encode(errors="replace").decode()  # question marks in place of what is no text
            entries.append(_Entry(shown, item=path, error="its name is not valid Unicode: rename it."))
            continue
        except OSError:  # a link to nowhere, or a file deleted just now: reading it will say so
            entries.append(_Entry(relative, item=path))
            continue
        entries.append(_Entry(relative, stat.st_size, stat.st_mtime_ns, caption, path))
    return sorted(entries, key=lambda entry: entry.path.split("/"))


def _caption_beside(path: Path) -> str | None:
    try:
        return path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _is_unchanged(entry: _Entry, row: dict | None) -> bool:
    if row is None or entry.caption != row["caption"] or not isinstance(entry.item, Path):
        return False
    return (entry.size, entry.modified) == (row["size"], row["modified"])


def _says_the_same(read: _Read, row: dict | None) -> bool:
    """Whether a picture that was read again turned out to be what it was: a touched file, an equal item of a list."""
    return row is not None and (row["sha256"], row["caption"]) == (read.sha256, read.entry.caption)


def _pixel_hash(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def _scene_to_json(scene: Scene) -> bytes:
    return json.dumps(asdict(scene)).encode()


def _scene_from_json(stored: bytes) -> Scene:
    values = json.loads(stored)
    return Scene(tuple(Thing(**thing) for thing in values["things"]), values["background"], values["relation"])


# ---------------------------------------------------------------------------------------------------
# The folder and the table


def _place(source, root: Path | None, entries: list[_Entry], clip: CLIP) -> Path:
    """The folder in the cache for the index of a source, the same one every time."""
    if root is not None:
        name, key = re.sub(r"[^\w-]+", "-", root.name).strip("-").lower()[:40] or "pictures", str(root)
    else:
        items = [entry.item for entry in entries]
        parts = [_scene_to_json(item) if isinstance(item, Scene) else _pixel_hash(load_image(item)) for item in items]
        name, key = "list", " ".join(map(str, parts))
    digest = hashlib.sha256(f"{key} {clip.fingerprint()} {FORMAT}".encode()).hexdigest()[:12]
    return assets.cache_dir() / "indexes" / f"{name}-{digest}"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """One process at a time changes an index; others may read it meanwhile."""
    with gates.lock(folder / "index", what=f"writing the index {folder}"):
        yield


def _open_table(folder: Path):
    """The table in a folder, or None where there is none."""
    import lancedb

    if not (folder / f"{TABLE}.lance").is_dir():
        return None
    try:
        return lancedb.connect(folder).open_table(TABLE)
    except Exception as error:  # LanceDB raises what its parts raise
        if not any((folder / f"{TABLE}.lance").rglob("*.manifest")):
            shutil.rmtree(folder / f"{TABLE}.lance")  # a process was killed before its first commit: nothing is lost
            return None
        raise _damaged(folder, error) from error


def _create_table(folder: Path, clip: CLIP, root: Path | None):
    import lancedb
    import pyarrow as pa

    about = {
        "format": FORMAT,
        "clip": clip.name,
        "fingerprint": clip.fingerprint(),
        "source": None if root is None else str(root),
    }
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("stored", pa.binary()),
        pa.field("vector", pa.list_(pa.float32(), clip.dim), nullable=False),
    ]
    schema = pa.schema(fields, metadata={"mmlesson": json.dumps(about)})
    try:
        return lancedb.connect(folder).create_table(TABLE, schema=schema)
    except (OSError, RuntimeError) as error:
        raise AssetError(
            f"No index can be made in {folder} ({_first_line(error)}): give a path that you may write to."
        ) from error


def _about(table) -> dict:
    try:
        return json.loads(table.schema.metadata[b"mmlesson"])
    except (KeyError, TypeError, ValueError):
        return {"format": 0, "clip": "something else", "fingerprint": "", "source": None}


def _check_clip(table, clip: CLIP, folder: Path) -> None:
    about = _about(table)
    if about["format"] != FORMAT:
        raise AssetError(f"{folder} was not made by this version of mmlesson: delete it and build it again.")
    if about["fingerprint"] != clip.fingerprint():
        what = "other weights of the same name" if about["clip"] == clip.name else f"load_clip({about['clip']!r})"
        raise AssetError(
            f"The index {folder} was made with {what}, and its embeddings cannot be compared with those of {clip.name!r}: "
            "open it with the CLIP that made it, or build another in a folder of its own."
        )


@contextlib.contextmanager
def _readable_filter(where: str | None) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if where is None:
            raise
        columns = ", ".join(COLUMNS)
        raise ValueError(f"where={where!r} is not a filter in SQL over {columns} ({_first_line(error)}).") from error


def _mapped(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The array of a file, mapped into memory; None where it is not there or not what it should be."""
    try:
        array = np.load(file, mmap_mode="c", allow_pickle=False)  # "c": a write would stay in memory
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.float32 else None


def _damaged(folder: Path, error: Exception) -> AssetError:
    return AssetError(f"The index {folder} is damaged ({_first_line(error)}): delete that folder and build it again.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
