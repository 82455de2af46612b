"""What a build by fragments has to do, and the one commit at its end.

The driver knows each picture by two numbers, its marks, and by its place: 40 bytes a picture, whatever its path is. The
fragments pass through its memory one at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmlesson.gates import AssetError
from mmlesson.search import fragments, store, vectors
from mmlesson.search.collection import Row, rows_of
from mmlesson.search.fragments import Place

if TYPE_CHECKING:
    import pyarrow

    from mmlesson.search.index import ImageIndex


# ------------------------------------------------------------------------------------------- listing


def _mark_of_path(path: str) -> int:
    return Row(path).mark


class Known:
    """The rows of the index before the build, as numbers: 40 bytes for each picture, whatever its path is."""

    def __init__(self, table, folder: Path):
        rows = store.select(table, folder, ["id", "path", "size", "modified", "caption"])
        paths, marks, ids = array("q"), array("q"), array("q")
        for batch in rows.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                paths.append(_mark_of_path(row["path"]))
                marks.append(Row(row["path"], row["size"], row["modified"], row["caption"]).mark)
                ids.append(row["id"])
        ids = np.array(ids, np.int64)
        order = np.argsort(np.array(paths, np.int64), kind="stable")
        self.paths = np.array(paths, np.int64)[order]  # rising
        self.marks = np.array(marks, np.int64)[order]
        self.ids = ids[order]
        self.next_id = int(ids.max(initial=-1)) + 1

    def place(self, path_mark: int) -> int:
        """Where a path is in the arrays; -1 where it is not."""
        place = int(np.searchsorted(self.paths, path_mark))
        return place if place < len(self.paths) and self.paths[place] == path_mark else -1


class Listed:
    """The pictures of the source, by their marks: 16 bytes for each, in the order of the source."""

    def __init__(self, source, captions, known: Known, place: Place, fingerprint: str):
        self.rows = rows_of(source, captions)
        self.known = known
        self.marks, self.paths, self.unchanged = array("q"), array("q"), array("b")
        self.to_embed = self.found = self.found_failed = 0
        marks, errors = array("q"), array("b")
        for _, table in fragments.whole(place, fingerprint):
            marks.extend(table["mark"].to_pylist())
            errors.extend(error != "" for error in table["error"].to_pylist())
        order = np.argsort(np.array(marks, np.int64), kind="stable")
        self._there = np.array(marks, np.int64)[order]
        self._bad = np.array(errors, np.int8)[order]

    def missing(self) -> Iterator[Row]:
        """The rows that are still to be embedded; notes all on the way. A path that stands there twice counts once."""
        seen: set[int] = set()
        for row in self.rows:
            path, mark = _mark_of_path(row.path), row.mark
            if row.kind != "file":  # a folder holds each name once
                if path in seen:
                    continue
                seen.add(path)
            place = self.known.place(path) if len(self.known.paths) else -1
            unchanged = place >= 0 and self.known.marks[place] == mark and row.modified > 0 and not row.error
            self.paths.append(path)
            self.marks.append(mark)
            self.unchanged.append(int(unchanged))
            if unchanged:
                continue
            self.to_embed += 1
            there = int(np.searchsorted(self._there, mark))
            if there < len(self._there) and self._there[there] == mark:
                self.found += 1
                self.found_failed += int(self._bad[there])
                continue
            yield row


# ------------------------------------------------------------------------------------------- the commit


def commit(clip, folder: Path, table, place: Place, fingerprint: str, listed: Listed, known: Known) -> ImageIndex:
    """Stream the fragments into the index: embeddings to the end of their file, rows in one version of the table."""
    from mmlesson.search.index import ImageIndex

    index = ImageIndex(folder, clip, table)
    vectors.compact(folder, clip.dim, index._keys)  # what a commit left that was stopped in the middle
    index._load()
    marks, paths = np.array(listed.marks, np.int64), np.array(listed.paths, np.int64)
    rows = _Rows(marks, paths, np.array(listed.unchanged, bool), known, folder, place)
    skipped = rows.number(fingerprint)
    data = rows.reader(table.schema)
    with store.writable(folder):
        try:
            if rows.replaces:
                table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(data)
            elif rows.n:
                table.add(data)
        except (OSError, RuntimeError, ValueError) as error:
            raise rows.error or error from None
        gone = np.concatenate([known.ids[~np.isin(known.paths, paths)], rows.failed_known()])
        for start in range(0, len(gone), 1000):
            table.delete(f"id IN ({', '.join(map(str, gone[start : start + 1000].tolist()))})")
    index._settle()
    index.skipped = skipped
    return index


class _Rows:
    """The rows of the fragments, in the order of the source, one fragment at a time."""

    def __init__(
        self, marks: np.ndarray, paths: np.ndarray, unchanged: np.ndarray, known: Known, folder: Path, place: Place
    ):
        self.order = np.argsort(marks, kind="stable")
        self.sorted = marks[self.order]
        self.paths, self.known = paths, known
        self.unchanged = unchanged
        self.folder, self.place = folder, place
        self.n = 0
        self.replaces = False
        self.error: Exception | None = None
        self.state = np.zeros(len(marks), np.int8)  # of each picture: 1 embedded, 2 failed
        self.ids = np.full(len(marks), -1, np.int64)

    def numbers_of(self, table: pyarrow.Table) -> np.ndarray:
        """The number in the source of each row of a fragment: int64 `[n]`; -1 where it is not there any more."""
        marks = table["mark"].to_numpy()
        if not len(self.sorted):
            return np.full(len(marks), -1)
        found = np.searchsorted(self.sorted, marks).clip(max=len(self.sorted) - 1)
        return np.where(self.sorted[found] == marks, self.order[found], -1)

    def number(self, fingerprint: str) -> list[tuple[str, str]]:
        """Look through the fragments: which go first, and which id each picture gets; returns what cannot be read."""
        first: list[tuple[int, str]] = []
        failed: list[tuple[int, str, str]] = []
        named: dict[int, int] = {}
        for name, table in fragments.whole(self.place, fingerprint):
            numbers = self.numbers_of(table)
            errors = table["error"].to_pylist()
            for number, path, error in zip(numbers.tolist(), table["path"].to_pylist(), errors, strict=True):
                if number < 0 or self.state[number] or self.unchanged[number]:
                    continue
                self.state[number] = 2 if error else 1
                if error:
                    failed.append((number, path, error))
                elif path.startswith("#"):
                    named[number] = int(path[1:])  # a picture of a list: its id is its place there
            if (numbers >= 0).any():
                first.append((int(numbers[numbers >= 0].min()), name))
        self.names = [name for _, name in sorted(first)]
        next_id = self.known.next_id
        for number in np.flatnonzero(self.state == 1).tolist():
            place = self.known.place(int(self.paths[number])) if len(self.known.paths) else -1
            if number in named:
                self.ids[number] = named[number]
            else:  # also where a picture has changed, as in an update by one process
                self.ids[number] = next_id
                next_id += 1
            self.replaces |= place >= 0
            self.n += 1
        return [(path, error) for _, path, error in sorted(failed)]

    def failed_known(self) -> np.ndarray:
        """The ids of rows of the index whose picture cannot be read any more."""
        failed = self.paths[self.state == 2]
        return self.known.ids[np.isin(self.known.paths, failed)]

    def reader(self, schema: pyarrow.Schema):
        """The rows as LanceDB reads them: the embeddings of a fragment are written just before its rows are given."""
        import pyarrow as pa

        def batches() -> Iterator[pa.RecordBatch]:
            written = np.zeros(len(self.state), bool)
            try:
                for name in self.names:
                    table = fragments.read(self.place, name)
                    if table is None:
                        raise AssetError(f"{name} has changed since it was written: call it again.")
                    numbers = self.numbers_of(table)
                    good = np.flatnonzero(numbers >= 0)
                    good = good[(self.state[numbers[good]] == 1) & ~written[numbers[good]]]
                    good = good[[error == "" for error in table["error"].take(good).to_pylist()]]
                    if not len(good):
                        continue
                    good = good[np.argsort(numbers[good], kind="stable")]
                    written[numbers[good]] = True
                    features = fragments.features_of(table)[good]
                    keys = vectors.append(self.folder, torch.from_numpy(features))
                    rows = table.take(good)
                    columns = {name: rows[name].combine_chunks() for name in rows.column_names if name in schema.names}
                    columns |= {"id": pa.array(self.ids[numbers[good]]), "key": pa.array(keys)}
                    yield pa.record_batch([columns[field.name].cast(field.type) for field in schema], schema=schema)
            except (AssetError, OSError) as error:  # LanceDB would tell of it in its own words
                self.error = error
                raise

        return pa.RecordBatchReader.from_batches(schema, batches())
