"""ImageIndex: build an index of pictures, keep it up to date, search it."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import gates, words
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.models import reading
from mmlesson.pixels import ImageError, load_image
from mmlesson.search import cells, cluster, filters, remote, store, vectors
from mmlesson.search.absent import FALSE_HITS, sentences
from mmlesson.search.collection import is_address
from mmlesson.search.hits import Hit, Hits
from mmlesson.search.source import absolute, folder_entries, list_entries, picture_of, root_of, stays_inside
from mmlesson.search.synchronise import Update, synchronise

if TYPE_CHECKING:
    import pyarrow

EXACT_UP_TO = 200_000  # pictures; above, an approximate index answers faster (`mmlesson bench search` prints both)
CHECKED_AT_OPEN = 16_384  # embeddings; of more than these `open` checks a sample. `build` and `update` check all
LARGEST_WEIGHT = 1e6  # of a query in a list; weights count in relation to each other, and float32 holds no more
PROBES = 64  # cells that an approximate search visits, of about √n


class ImageIndex:
    """An index of pictures on disk, searched by sentences and pictures. `build` makes one, `open` opens one.

    folder   where it is kept: a LanceDB table and the matrix of its embeddings
    source   the folder whose pictures it holds; None for a list
    clip     the CLIP that made the embeddings
    skipped  (path, reason) of each file that the last build or update could not read
    """

    def __init__(self, folder: Path, clip: CLIP, table):
        self.folder = folder
        self.clip = clip
        self._table = table
        made_of = store.about(table)["source"]
        self.source = None if made_of is None else Path(made_of)
        self.skipped: list[tuple[str, str]] = []
        self._load()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        what = "a list" if self.source is None else self.source
        return f"ImageIndex({len(self)} pictures of {what}, {self.clip.name!r}, in {self.folder})"

    # ------------------------------------------------------------------------------------- making

    @classmethod
    def build(
        cls,
        source,
        clip: CLIP,
        path: str | os.PathLike | None = None,
        captions: Sequence[str] | None = None,
        batch_size: int = 64,
        engine: str = "local",
        address: str | None = None,
        workers: int | None = None,
    ) -> ImageIndex:
        """An index of `source`: a folder (with all below it), a list of PIL pictures, or scenes of the pocket world.

        source may also be an address (s3://bucket/pictures), a list in a file, or a table (see search/collection.py).
        path: the folder to keep it in; None is one in the user's cache, never the picture folder. Where an index
        of the same CLIP is there already it is brought up to date. So a build that was stopped goes on.
        It may be an address (s3://bucket/index), too.
        engine: "local" embeds in this process, "ray" on a cluster (search/cluster.py); the index is the same.
        address: of a Ray cluster, such as "auto"; None starts a small one on this machine. workers: how many embed.
        captions: one for each picture of a list. A scene has its own; a file has that of `name.txt` beside `name.jpg`.
        Broken, unreadable and absurdly large files are left out and listed in `skipped`.
        What is damaged in an index that is there already is made again.
        Memory grows with `batch_size`, not with the collection; whatever the files are, it stays below 1.5 GB with the
        pocket CLIP. Ctrl-C keeps what is done.
        Raises ImageError where there is no such folder or no picture that can be read, AssetError where nothing can
        be written or the index there was made with another CLIP.
        """
        how = cluster.Engine(engine, address, workers)
        if cluster.is_needed(source, path, how):
            return cluster.build(source, clip, path, captions, batch_size, how)
        entries = list_entries(source, captions)
        root = root_of(source)
        folder = store.place(root, entries, clip) if path is None else absolute(path)
        if root is not None and folder == root:
            raise AssetError(f"{words.shown(folder)} holds the pictures: give the index a folder of its own.")
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise AssetError(f"{words.shown(folder)} is a file or a broken link: give the index a folder of its own.")
        with store.writing(folder):
            index = cls(folder, clip, store.table_to_write(folder, clip, root))
            synchronise(index, entries, batch_size)
        if not len(index):
            reasons = "; ".join(f"{name}: {why}" for name, why in index.skipped[:3])
            raise ImageError(f"None of the {len(entries)} pictures can be read. {reasons}")
        return index

    @classmethod
    def open(cls, path: str | os.PathLike, clip: CLIP) -> ImageIndex:
        """The index at `path`: its own folder, or the picture folder whose index is in the cache. Reads no picture.

        path may be an address (s3://bucket/index): a copy in the cache is brought up to date, and opened.
        Raises AssetError where there is none, it is damaged, or it was made with another CLIP.
        """
        folder = remote.opened(path, clip) if is_address(path) else absolute(path)
        table = store.open_table(folder)
        if table is None and os.path.isdir(folder):
            folder = store.place(folder, [], clip)
            table = store.open_table(folder)
        if table is None:
            raise AssetError(
                f"There is no index of {clip.name} at {words.shown(path)}: make one with "
                f"ImageIndex.build({str(path)!r}, clip)."
            )
        store.check_clip(table, clip, folder)
        return cls(folder, clip, table)

    def update(self, batch_size: int = 64) -> Update:
        """Bring the index of a folder up to date: embed what is new or changed, drop what is gone.

        Returns how many pictures of each there were. A file is unchanged while its size and time are. A file that
        was only moved, copied or touched (equal sha256) keeps its embedding. A stop or crash in the middle leaves an
        index that works, and the next update goes on.
        Raises ImageError where the folder is gone, ValueError for the index of a list (build it again instead).
        """
        if self.source is None:
            raise ValueError(
                "this index was built from a list, which cannot be read again: call ImageIndex.build with the new list."
            )
        with store.writing(self.folder):
            self._table = store.table_to_write(self.folder, self.clip, self.source)
            self._load()
            return synchronise(self, folder_entries(self.source), batch_size)

    def optimise(self, approximate: bool | None = None) -> None:
        """Compact the files, and make the approximate index where there are more than EXACT_UP_TO pictures.

        approximate: True makes it for any number from 1,000 on; False leaves it as it is. It is an inverted file with
        about √n cells: a search visits some of the cells and is exact within them.
        Raises ValueError where there are too few pictures, AssetError where the disk is full.
        """
        if approximate is None:
            approximate = len(self) > EXACT_UP_TO
        if approximate and len(self) < 1000:
            raise ValueError(
                f"an approximate index needs 1,000 pictures or more, and this one has {len(self)}: "
                "exact search is faster."
            )
        with store.writing(self.folder):
            self._newest()
            self._settle(always=True)
            if approximate:
                cells.make(self.folder, self._vectors, self._keys, self._sums)
                self._cells = cells.load(self.folder, self._keys, self._sums, self.clip.dim)

    @property
    def is_approximate(self) -> bool:
        """Whether there is an approximate index."""
        return self._cells is not None

    # ------------------------------------------------------------------------------------ loading

    def _select(self, *columns: str, where: str | None = None) -> pyarrow.Table:
        return store.select(self._table, self.folder, columns, where)

    def _newest(self) -> None:
        table = store.open_table(self.folder)
        if table is None:
            raise store.gone(self.folder)
        self._table = table

    def _settle(self, always: bool = False) -> None:
        """Remove from the disk what no picture needs any more, and load what is there now."""
        keys = self._select("id", "key").sort_by("id")["key"].to_numpy()
        vectors.compact(self.folder, self.clip.dim, keys)
        store.tidy(self._table, always)
        self._load()

    def _load(self) -> None:
        """Take the index as it is now: the rows in the order of their ids, and the embeddings in the same order."""
        try:
            for _ in range(10):
                self._rows = self._select("id", "key", "sum", "path", "caption").sort_by("id")
                self._ids = self._rows["id"].to_numpy()  # [n] int64, rising
                self._keys = self._rows["key"].to_numpy()  # [n] int64
                self._sums = self._rows["sum"].to_numpy()  # [n] int64
                stored = vectors.load(self.folder, self.clip.dim)
                places = stored.places(self._keys)
                if (places >= 0).all():
                    break
                self._table.checkout_latest()  # another process has just removed pictures with their embeddings
            else:
                raise store.DamagedError(self.folder, f"it has lost {(places < 0).sum()} of {len(places)} embeddings")
        except AssetError:
            raise
        except PermissionError as error:
            raise store.unreadable(self.folder, error) from error
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise store.DamagedError(self.folder, reading.short(error)) from error
        wrong = ~stored.are_whole(places, self._sums, CHECKED_AT_OPEN)
        if wrong.any():
            raise store.DamagedError(self.folder, f"{wrong.sum()} of {len(places)} embeddings have changed on the disk")
        self._vectors = stored.take(places)  # [n, dim] float32
        self._mapped = store.Mapped(stored.vectors)
        self._cells = cells.load(self.folder, self._keys, self._sums, self.clip.dim)

    def _check(self, places: Sequence[int], scores: Sequence[float] = ()) -> None:
        """Raise AssetError where what was found is damaged: a changed embedding, or a score that is no cosine.

        It looks at what a search returns, and at nothing else, so that it takes no time.
        """
        found = vectors.sums_of(self._vectors[list(places)].numpy())
        if not np.array_equal(found, self._sums[list(places)]) or not all(-1.001 <= score <= 1.001 for score in scores):
            raise store.DamagedError(self.folder, "an embedding that was found has changed on the disk")

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
        Raises ValueError for a query, filter or number that is not valid, ImageError for an unreadable picture.
        """
        for name, value in (("k, how many pictures to find,", k), ("probes, how many cells to visit,", probes)):
            gates.whole_number(name, value, 1)
        if min_score is not None and not (_is_number(min_score) and -math.inf <= min_score <= math.inf):
            raise ValueError(f"min_score is a cosine, such as 0.2, not {min_score!r:.60}.")
        self._mapped.check(self.folder)
        features = self.embed(query)  # [dim]
        if min_score is None and isinstance(query, str):
            min_score = self.min_score
        if exact is None:
            exact = len(self) <= EXACT_UP_TO or not self.is_approximate
        places, scores = self._exact(features, where) if exact else self._approximate(features, where, probes)
        places, scores = _best(places, scores, k)
        self._check(places, scores)
        hits = [
            self._hit(place, score)
            for place, score in zip(places, scores, strict=True)
            if min_score is None or score >= min_score
        ]
        best = scores[0] if scores else None
        return Hits(hits, query if isinstance(query, str) else "", best, min_score)

    def _exact(self, features: torch.Tensor, where: str | None) -> tuple[np.ndarray, np.ndarray]:
        """The places of all rows, or of those that pass the filter, and their scores."""
        matrix = self._vectors.numpy()  # numpy's product with one vector is twice as fast as torch's
        if where is None:
            return np.arange(len(self)), matrix @ features.numpy()
        places = self._passing(where)
        return places, matrix[places] @ features.numpy()

    def _approximate(self, features: torch.Tensor, where: str | None, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """The places of the rows in the nearest cells that pass the filter, and their scores."""
        if self._cells is None:
            raise ValueError("there is no approximate index here: call index.optimise(approximate=True) first.")
        query = features.numpy()
        parts = self._cells.near(query, probes)
        if where is not None:
            passing = np.zeros(len(self), bool)
            passing[self._passing(where)] = True
            parts = [part[passing[part]] for part in parts]
        matrix = self._vectors.numpy()
        return np.concatenate(parts), np.concatenate([matrix[part] @ query for part in parts])  # a cell fits the cache

    def _passing(self, where: str) -> np.ndarray:
        """The places, rising, of the rows for which the filter holds."""
        if store.is_gone(self.folder):
            raise store.gone(self.folder)
        with filters.readable(where):
            rows = self._select("id", "key", where=where)
        places = np.searchsorted(self._ids, rows["id"].to_numpy()).clip(max=max(len(self) - 1, 0))
        if not len(self):
            return places[:0]
        # of another version of the table than this one: a picture that has changed since does not count
        return np.sort(places[self._keys[places] == rows["key"].to_numpy()])

    def scores(self, queries) -> torch.Tensor:
        """The cosine of each query with each picture: float32 `[n_queries, n]`, columns in the order of ids."""
        if not isinstance(queries, Iterable):
            raise ValueError(f"queries is a list of queries, such as ['a cat', 'a dog'], not {queries!r:.60}.")
        queries = [queries] if isinstance(queries, str) else list(queries)
        if not queries:
            return torch.zeros(0, len(self))
        if all(isinstance(query, str) for query in queries):
            features = self.clip.encode_texts(queries)  # [n_queries, dim], at once
        else:
            features = torch.stack([self.embed(query) for query in queries])
        self._mapped.check(self.folder)
        found = features @ self._vectors.T
        if found.numel() and not found.abs().amax() <= 1.001:  # also where one is not a number
            raise store.DamagedError(self.folder, "an embedding has changed on the disk")
        return found

    def embed(self, query) -> torch.Tensor:
        """The embedding of a query, as `search` takes them: float32 `[dim]` of unit length."""
        if isinstance(query, list):
            return self._mix(query)
        if isinstance(query, str):
            words.check(self.clip.name, [query])
            return self.clip.encode_texts([query])[0]
        if isinstance(query, Hit):
            place = self._place_of(query.id)
            self._check([place])
            return self._vectors[place]
        if isinstance(query, (np.ndarray, torch.Tensor)) and query.ndim == 1:
            is_real = query.dtype.kind in "fiu" if isinstance(query, np.ndarray) else not query.is_complex()
            vector = torch.as_tensor(query if is_real else [], dtype=torch.float32).detach().cpu()
            if len(vector) != self.clip.dim or not vector.isfinite().all() or not vector.any():
                raise ValueError(f"an embedding of {self.clip.name} is {self.clip.dim} finite numbers, not all 0.")
            return F.normalize(vector, dim=0)
        if isinstance(query, (tuple, dict, int, float)) or query is None:
            raise ValueError(
                f"a query is a sentence, a picture, an embedding or a list of (weight, query), not {query!r}."
            )
        return self.clip.encode_images(query)[0]

    def _mix(self, parts: list, depth: int = 1) -> torch.Tensor:
        if depth > 20:
            raise ValueError("a query is a list in a list in a list, and so on: give one list of queries.")
        total = torch.zeros(self.clip.dim)
        for part in parts:
            weight, query = part if isinstance(part, tuple) and len(part) == 2 else (1.0, part)
            if not _is_number(weight) or not abs(weight) <= LARGEST_WEIGHT:
                raise ValueError(
                    f"a weighted query is (weight, query), such as (-0.5, 'snow'), not {part!r:.60}; a weight is "
                    f"a number from {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}."
                )
            features = self._mix(query, depth + 1) if isinstance(query, list) else self.embed(query)
            total = total + float(weight) * features
        if total.norm() < 1e-6:
            raise ValueError("these queries cancel out, or there is none: give at least one with a weight above 0.")
        return F.normalize(total, dim=0)

    def _hit(self, place: int, score: float) -> Hit:
        row = self._rows.slice(place, 1).to_pylist()[0]
        if self.source is not None and not stays_inside(row["path"]):
            raise AssetError(
                f"The index {words.shown(self.folder)} leads to {row['path']!r}, outside of {self.source}, "
                "the folder of its pictures: it was not made by this package. Delete it, or build it again."
            )
        path = None if self.source is None else self.source / row["path"]
        address = row["path"] if path is None and not row["path"].startswith("#") else None
        return Hit(path, score, row["caption"], row["id"], self, address)

    def _place_of(self, number: int) -> int:
        place = int(np.searchsorted(self._ids, number))
        if place == len(self._ids) or self._ids[place] != number:
            raise ValueError(f"picture {number} is not in the index any more: search again.")
        return place

    def image(self, hit: Hit) -> Image.Image:
        """The picture of a hit; see `Hit.image`."""
        if hit.path is not None:
            return load_image(hit.path)
        try:
            stored = self._select("stored", where=f"id = {hit.id}")["stored"].to_pylist()
        except (OSError, RuntimeError, ValueError) as error:
            raise ImageError(f"picture {hit.id} cannot be read: {store.gone(self.folder)}") from error
        if not stored:
            raise ImageError(f"picture {hit.id} is not in the index any more: search again.")
        return picture_of(stored[0])

    # -------------------------------------------------------------------------------- nothing fits

    @property
    def min_score(self) -> float | None:
        """The score that `calibrate` found; None before."""
        return self._calibration()[0]

    def _calibration(self) -> tuple[float | None, int]:
        """What `calibrate` found, and on how many pictures; None and 0 where it has not, or its file is damaged."""
        try:
            kept = json.loads((self.folder / "calibration.json").read_bytes())
            score = gates.real_number("min_score", kept["min_score"], least=-1, most=1)
            return score, gates.whole_number("pictures", kept["pictures"], 1)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None, 0

    def keep_calibrated(self) -> float | None:
        """Calibrate with the sentences of search/absent.py where that is due; returns `min_score`.

        It is due where the index was never calibrated, and where more than a fifth of the pictures came or went since.
        Takes a few seconds. None for an empty index, and for a CLIP that knows too few words for these sentences.
        """
        found, n = self._calibration()
        if found is not None and abs(len(self) - n) <= n / 5:
            return found
        absent = sentences(self.clip) if len(self) else []
        return self.calibrate(absent, FALSE_HITS) if len(absent) >= 20 else None

    def calibrate(self, absent: Iterable[str] | None = None, false_hits: float | None = None) -> float:
        """Measure the score from which on a hit means something, keep it as `min_score`, and return it.

        absent: sentences that nothing in the collection fits, fifty or more, worded as queries will be. None: sentences
            about several hundred things, most of which no collection holds (search/absent.py).
        false_hits: the share of them whose best picture may still pass; `min_score` is that quantile of their best
        scores; None is 0.05 for sentences that are given, and 0.1 for others, some of which may fit.
        A larger collection has better best scores: calibrate again after it has grown a lot.
        Raises ValueError for too few sentences, an empty index, or a share that is not between 0 and 1.
        """
        if false_hits is None:
            false_hits = FALSE_HITS if absent is None else 0.05
        if absent is None:
            absent = sentences(self.clip)
        absent = [absent] if isinstance(absent, str) else list(absent)
        if len(absent) < 20:
            raise ValueError(
                f"a threshold from {len(absent)} sentences is a guess: give 20 or more that nothing here fits."
            )
        if not (_is_number(false_hits) and 0 < false_hits < 1):
            raise ValueError(f"false_hits is a share between 0 and 1, such as 0.05, not {false_hits!r:.60}.")
        if not len(self):
            raise ValueError("the index is empty: there is nothing to calibrate on.")
        best = self.scores(absent).amax(dim=1)  # [n_absent]
        found = best.quantile(1 - false_hits).item()
        kept = {"min_score": found, "false_hits": false_hits, "sentences": len(absent), "pictures": len(self)}
        gates.write_atomically(self.folder / "calibration.json", (json.dumps(kept) + "\n").encode())
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _best(places: np.ndarray, scores: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """The k highest scores and their places, best first; among equal scores the first place."""
    k = min(k, len(scores))
    if not k:
        return [], []
    top = torch.from_numpy(scores).topk(k).values
    if not top[0].isfinite():  # a damaged embedding, which the caller is to see: nothing is greater or less than NaN
        place = int(np.flatnonzero(~np.isfinite(scores))[0])
        return [int(places[place])], [float(scores[place])]
    last = top[-1].item()  # among equal scores topk takes any one: look at them all
    chosen = np.flatnonzero(scores >= last)
    order = np.lexsort((places[chosen], -scores[chosen]))[:k]
    return places[chosen][order].tolist(), scores[chosen][order].tolist()
