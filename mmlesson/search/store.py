"""The folder of an index and the LanceDB table in it (docs.lancedb.com): one row for each picture.

LanceDB keeps what a picture is called and when it changed, answers filters in SQL, and survives a crash: each change
is a new version of the table, whole or not there. The embeddings are in files of their own; see `vectors`.

An index is a cache, and is never believed blindly. Each row has the sum of its embedding (`vectors.sums_of`).
`sums.json` has the sum of each file of the table, which LanceDB writes once and never changes. Whoever opens an index
compares them. Whoever builds or updates one makes again what is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmlesson import gates, runtime
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.models import assets, reading
from mmlesson.pixels import load_image
from mmlesson.search import cells, vectors
from mmlesson.search.source import Entry, Read, pixel_hash, scene_to_json, stays_inside
from mmlesson.words import shown
from mmlesson.world import Scene

if TYPE_CHECKING:
    import pyarrow

TABLE = "pictures"
SUMS = "sums.json"
FORMAT = 3  # of the folder; an older one is built anew
VERSIONS = 16  # of the table: when there are more, its many small files become one


# ------------------------------------------------------------------------------------- the folder


def place(source_root: Path | None, entries: Sequence[Entry], clip: CLIP) -> Path:
    """The folder in the cache for the index of a source, the same one every time."""
    if source_root is not None:
        name = re.sub(r"[^a-z0-9-]+", "-", source_root.name.lower()).strip("-")[:40] or "pictures"
        key = str(source_root)
    else:
        items = [entry.item for entry in entries]
        parts = [scene_to_json(item) if isinstance(item, Scene) else pixel_hash(load_image(item)) for item in items]
        name = "list"
        key = " ".join(map(str, parts))
    key = f"{key} {clip.fingerprint()} {FORMAT}".encode(errors="surrogateescape")  # a path may be no Unicode
    return indexes() / f"{name}-{hashlib.sha256(key).hexdigest()[:12]}"


def indexes() -> Path:
    """The folder in the cache that holds all indexes without a path of their own."""
    return assets.cache_dir() / "indexes"


def check_place(folder: Path) -> None:
    """Raises AssetError for the path of an index that LanceDB cannot open: it takes no line break and no such sign."""
    text = str(folder)
    if any(ord(letter) < 32 or ord(letter) == 127 or "\ud800" <= letter <= "\udfff" for letter in text):
        raise AssetError(
            f"An index cannot be in {shown(folder)}: its path has a line break, a control character or bytes that are "
            "not UTF-8. Give it another path; for the cache, set MMLESSON_CACHE."
        )


@contextlib.contextmanager
def writing(folder: Path, timeout: float = 600.0) -> Iterator[None]:
    """One process at a time changes an index; others may read it meanwhile. timeout: seconds to wait for the other."""
    check_place(folder)
    with gates.lock(folder / "index", timeout, f"writing the index {shown(folder)}"):
        try:
            with writable(folder, lambda error: str(error).startswith("lance error")):
                yield
        finally:
            _note_sums(folder)


@contextlib.contextmanager
def writable(folder: Path, of_the_disk: Callable[[Exception], bool] = lambda error: True) -> Iterator[None]:
    """A context in which errors of the disk (full, no permission) are a sentence; `of_the_disk` tells which are."""
    try:
        yield
    except AssetError:
        raise
    except (OSError, RuntimeError) as error:
        if not of_the_disk(error):
            raise
        raise AssetError(
            f"The index {shown(folder)} cannot be written ({reading.short(error)}): free some space and call it again."
        ) from error


class DamagedError(AssetError):
    """Files of an index are not as they were written."""

    def __init__(self, folder: Path, why: str):
        super().__init__(
            f"The index {shown(folder)} is damaged ({why}): build it again, with `mmlesson search` or "
            "ImageIndex.build, which makes anew what is damaged."
        )
        self.why = why


def is_gone(folder: Path) -> bool:
    return not os.path.isdir(folder / f"{TABLE}.lance")


def unreadable(folder: Path, error: OSError) -> AssetError:
    return AssetError(
        f"The index {shown(folder)} cannot be read ({gates.reason(error)}): change its permissions, or give another "
        "path."
    )


def gone(folder: Path) -> AssetError:
    return AssetError(f"The index {shown(folder)} has been removed meanwhile: build it again with ImageIndex.build.")


class Mapped:
    """The file of the embeddings that this process has mapped: a mapped file that is made shorter ends the process."""

    def __init__(self, vectors: np.ndarray):
        self.file = getattr(vectors, "filename", None)  # None where there are no embeddings
        self.bytes = vectors.nbytes
        self.number = None if self.file is None else os.stat(self.file).st_ino

    def check(self, folder: Path) -> None:
        """Raise AssetError where the file has become shorter since. A file that was removed can still be read."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if self.file is not None:
                now = os.stat(self.file)
                if now.st_ino == self.number and now.st_size < self.bytes:
                    raise DamagedError(folder, f"{Path(self.file).name} has become shorter")


def clear(folder: Path) -> None:
    """Remove the files of an index, and no other file that may be in the folder. Call it inside `writing`."""
    shutil.rmtree(folder / f"{TABLE}.lance", ignore_errors=True)
    for file in (*folder.glob("vectors-*.f32"), *folder.glob("keys-*.i64"), folder / "cells.npz", folder / SUMS):
        with contextlib.suppress(OSError):
            file.unlink()


# ---------------------------------------------------------------------------------------- the sums of the table's files


def _table_files(folder: Path) -> dict[str, Path]:
    """The files of the table that are written once: their names in `sums.json` and their paths.

    Raises OSError where a folder of it cannot be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else another process has just removed it
            raise error

    found = {}
    for here, _, names in os.walk(folder / f"{TABLE}.lance", onerror=refuse):
        for name in names:
            if name.endswith((".lance", ".manifest", ".arrow", ".bin")):
                path = Path(here, name)
                found[path.relative_to(folder).as_posix()] = path
    return found


def _sum(path: Path) -> list[int]:
    """The bytes of a file and their CRC-32; reads it in parts."""
    size = value = 0
    with gates.open_file(path) as file:
        while part := file.read(2**20):
            size += len(part)
            value = zlib.crc32(part, value)
    return [size, value]


def _noted_sums(folder: Path) -> dict[str, list[int]]:
    """What `sums.json` says; nothing where it is missing or damaged, and then nothing is compared."""
    try:
        noted = json.loads((folder / SUMS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _note_sums(folder: Path) -> None:
    """Write `sums.json`: what it says of files that are still there, and the sums of new ones."""
    noted = _noted_sums(folder)
    try:
        now = {name: noted[name] if name in noted else _sum(path) for name, path in _table_files(folder).items()}
        if now != noted:
            gates.write_atomically(folder / SUMS, (json.dumps(now) + "\n").encode())
    except (OSError, AssetError):  # a full disk: the files without a sum are noted by the next process that writes
        pass


def changed_file(folder: Path) -> str | None:
    """The name of a file of the table that is not as it was written; None where there is none."""
    noted = _noted_sums(folder)
    for name, path in _table_files(folder).items():
        try:
            if name in noted and _sum(path) != noted[name]:
                return path.name
        except FileNotFoundError:  # another process has just removed it, with the version that it belonged to
            continue
        except PermissionError:
            raise
        except OSError:  # a broken disk, or something that is no file
            return path.name
    return None


# -------------------------------------------------------------------------------------- the table


def open_table(folder: Path):
    """The newest version of the table in a folder; None where there is none. An empty table is falsy: ask `is None`."""
    import lancedb

    try:
        if not (folder / f"{TABLE}.lance").is_dir():
            return None
        check_place(folder)
        wrong = changed_file(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
    if wrong is not None:
        raise DamagedError(folder, f"{wrong} has changed since it was written")
    try:
        return lancedb.connect(folder).open_table(TABLE)
    except Exception as error:  # LanceDB raises what its parts raise
        if not _has_a_version(folder):
            return None  # a process was killed before its first commit
        raise DamagedError(folder, reading.short(error)) from error


def table_to_write(folder: Path, clip: CLIP, root: Path | None):
    """The table of an index that is to be built or updated. Call it inside `writing`.

    Where there is none it is made. Where it is damaged the index is only a cache: it is made again, with a warning.
    Raises AssetError where it belongs to another CLIP or another source, or cannot be written.
    """
    try:
        table = open_table(folder)
        if table is not None:
            check_clip(table, clip, folder)
            _check_source(table, folder, root)
            _drop_damaged(table, folder, clip.dim)
            return table
    except (DamagedError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, AssetError) and not isinstance(error, DamagedError):
            raise
        if isinstance(error, PermissionError):
            raise unreadable(folder, error) from error
        why = error.why if isinstance(error, DamagedError) else reading.short(error)
        if not os.access(folder, os.W_OK) or "ermission denied" in why or "oo many open files" in why:
            raise AssetError(f"The index {shown(folder)} cannot be read or written ({why}).") from error
        runtime.warn(f"The index {shown(folder)} was damaged, and is made again ({why}).")
        clear(folder)
    return create_table(folder, clip, root)


def examine(folder: Path) -> tuple[dict, str | None]:
    """What an index in a folder says of itself (see `about`), and what is wrong with it; None where it is whole.

    It reads every embedding and every file of the table, needs no CLIP, and changes nothing.
    """
    made = about(None)
    try:
        table = open_table(folder)
        if table is None:
            return made, None  # a process is making it, or was stopped before it had anything to keep
        made = about(table)
        if made["format"] != FORMAT:
            return made, None  # of another version of this package, which does not use it
        paths, whole = _paths(table, folder, made["dim"])
    except DamagedError as error:
        return made, error.why
    except Exception as error:  # LanceDB raises what its parts raise
        return made, reading.short(error)
    if not whole.all():
        return made, f"{(~whole).sum()} of {len(whole)} embeddings are lost or have changed"
    if not all(map(stays_inside, paths)):
        return made, f"it leads to files outside of {made['source']}"
    return made, None


def _paths(table, folder: Path, dim: int) -> tuple[list[str], np.ndarray]:
    """The path of each picture, and whether its embedding is there and whole: bool `[n]`. Reads every embedding."""
    rows = select(table, folder, ["path", "key", "sum"])
    stored = vectors.load(folder, dim)
    return rows["path"].to_pylist(), stored.are_whole(stored.places(rows["key"].to_numpy()), rows["sum"].to_numpy())


def _check_source(table, folder: Path, root: Path | None) -> None:
    made_of = about(table)["source"]
    if made_of != (None if root is None else str(root)):
        what = "a list" if made_of is None else made_of
        raise AssetError(f"{shown(folder)} is an index of {what}: give this one another path, or delete that.")


def _drop_damaged(table, folder: Path, dim: int) -> None:
    """Drop the rows whose embedding is lost or damaged, so that these pictures are embedded again.

    And those that lead out of the source: this package does not write them.
    """
    paths, whole = _paths(table, folder, dim)
    lost = [path for path, good in zip(paths, whole, strict=True) if not (good and stays_inside(path))]
    if lost:
        delete(table, lost)
        cells.remove(folder)  # it may hold keys that will be given again


def _has_a_version(folder: Path) -> bool:
    return any((folder / f"{TABLE}.lance").rglob("*.manifest"))


def create_table(folder: Path, clip: CLIP, root: Path | None):
    """A new, empty table for the pictures of `root` (None for a list). Call it inside `writing`."""
    import lancedb
    import pyarrow as pa

    about = {
        "format": FORMAT,
        "clip": clip.name,
        "fingerprint": clip.fingerprint(),
        "source": None if root is None else str(root),
        "dim": clip.dim,
    }
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("stored", pa.binary()),
        pa.field("key", pa.int64(), nullable=False),  # of its embedding
        pa.field("sum", pa.int64(), nullable=False),  # of its embedding
    ]
    schema = pa.schema(fields, metadata={"mmlesson": json.dumps(about)})
    if not _has_a_version(folder):  # what a process left that was killed before its first commit
        shutil.rmtree(folder / f"{TABLE}.lance", ignore_errors=True)
    try:
        return lancedb.connect(folder).create_table(TABLE, schema=schema)
    except (OSError, RuntimeError, ValueError) as error:
        raise AssetError(
            f"No index can be made in {shown(folder)} ({reading.short(error)}): give a path that you may write to."
        ) from error


def about(table) -> dict:
    try:
        made = json.loads(table.schema.metadata[b"mmlesson"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        made = None
    known = {"format": 0, "clip": "something else", "fingerprint": "", "source": None, "dim": 0}
    if not isinstance(made, dict) or not isinstance(made.get("source"), str | None):
        return known
    return known | made


def check_clip(table, clip: CLIP, folder: Path) -> None:
    """Raises AssetError where the table was made by another version of the package, or with another CLIP."""
    made = about(table)
    if made["format"] != FORMAT:
        raise AssetError(f"{shown(folder)} was not made by this version of mmlesson: delete it and build it again.")
    if made["fingerprint"] != clip.fingerprint():
        what = "other weights of the same name" if made["clip"] == clip.name else f"load_clip({made['clip']!r})"
        raise AssetError(
            f"The index {shown(folder)} was made with {what}, and its embeddings cannot be compared with those of "
            f"{clip.name!r}: open it with the CLIP that made it, or build another in a folder of its own."
        )


# --------------------------------------------------------------------------------------- reading


def select(table, folder: Path, columns: Sequence[str], where: str | None = None) -> pyarrow.Table:
    """Columns of the rows for which the filter holds.

    Another process may have removed the version that `table` shows; then the rows are those of the newest version.
    """

    def ask(table):
        query = table.search().select(list(columns)).limit(None)
        return (query if where is None else query.where(where)).to_arrow()

    try:
        return ask(table)
    except (OSError, RuntimeError, ValueError):
        newest = open_table(folder)
        if newest is None:
            raise
        return ask(newest)


# --------------------------------------------------------------------------------------- writing


def write(
    table,
    folder: Path,
    read: Sequence[Read],
    ids: Sequence[int],
    keys: Sequence[int],
    sums: Sequence[int],
    replace: bool,
) -> None:
    """Write one row for each picture that was read, in one step, with the key and the sum of its embedding.

    replace: some of the paths are in the table already, and the new rows take their places.
    Raises AssetError where the disk is full or the folder is not writable; the table is then unchanged.
    """
    import pyarrow as pa

    schema = table.schema
    columns = {
        "id": ids,
        "path": [each.entry.path for each in read],
        "size": [each.entry.size for each in read],
        "modified": [each.entry.modified for each in read],
        "sha256": [each.sha256 for each in read],
        "caption": [each.entry.caption for each in read],
        "stored": [each.stored for each in read],
        "key": keys,
        "sum": sums,
    }
    data = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    with writable(folder):
        if replace:
            table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(data)
        else:
            table.add(data)


def delete(table, paths: Sequence[str]) -> None:
    for start in range(0, len(paths), 1000):
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths[start : start + 1000])
        table.delete(f"path IN ({listed})")


def tidy(table, always: bool = False) -> None:
    """Make one file of the many small ones, and remove the older versions of the table with their files."""
    if always or len(table.list_versions()) > VERSIONS:
        # 1 ms and not 0: LanceDB warns that readers of older versions fail, and here they go on (see `select`)
        table.optimize(cleanup_older_than=timedelta(milliseconds=1))


def add_vectors(folder: Path, table, features: torch.Tensor) -> None:
    """Add embeddings `[n, dim]` without pictures, for measuring: rows "#0", "#1", … behind those that are there."""
    import pyarrow as pa

    start = table.count_rows()
    ids = np.arange(start, start + len(features))
    zeros = np.zeros(len(features), np.int64)
    columns = {
        "id": ids,
        "path": [f"#{number}" for number in ids],
        "size": zeros,
        "modified": zeros,
        "sha256": [""] * len(features),
        "caption": [None] * len(features),
        "stored": [None] * len(features),
        "key": vectors.append(folder, features),
        "sum": vectors.sums_of(features.numpy()),
    }
    table.add(pa.table([pa.array(columns[field.name], field.type) for field in table.schema], schema=table.schema))
