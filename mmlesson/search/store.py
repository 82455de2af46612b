"""The folder of an index and the LanceDB table in it (docs.lancedb.com): one row for each picture.

LanceDB keeps what a picture is called and when it changed, answers filters in SQL, and survives a crash: each change
is a new version of the table, whole or not there. The embeddings are in files of their own; see `vectors`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmlesson import gates
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.models import assets
from mmlesson.pixels import load_image
from mmlesson.search import vectors
from mmlesson.search.source import Entry, Read, pixel_hash, scene_to_json
from mmlesson.words import without_places
from mmlesson.world import Scene

if TYPE_CHECKING:
    import pyarrow

TABLE = "pictures"
FORMAT = 2  # of the folder; an older one is built anew
COLUMNS = ("path", "size", "modified", "sha256", "caption")  # what a filter may ask for
VERSIONS = 16  # of the table: when there are more, its many small files become one


# ------------------------------------------------------------------------------------- the folder


def place(source_root: Path | None, entries: Sequence[Entry], clip: CLIP) -> Path:
    """The folder in the cache for the index of a source, the same one every time."""
    if source_root is not None:
        name = re.sub(r"[^\w-]+", "-", source_root.name).strip("-").lower()[:40] or "pictures"
        key = str(source_root)
    else:
        items = [entry.item for entry in entries]
        parts = [scene_to_json(item) if isinstance(item, Scene) else pixel_hash(load_image(item)) for item in items]
        name = "list"
        key = " ".join(map(str, parts))
    digest = hashlib.sha256(f"{key} {clip.fingerprint()} {FORMAT}".encode()).hexdigest()[:12]
    return assets.cache_dir() / "indexes" / f"{name}-{digest}"


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """One process at a time changes an index; others may read it meanwhile."""
    with gates.lock(folder / "index", what=f"writing the index {folder}"):
        yield


def damaged(folder: Path, why: str) -> AssetError:
    return AssetError(f"The index {folder} is damaged ({why}): delete that folder and build it again.")


def first_line(error: Exception) -> str:
    return (without_places(str(error)).splitlines() or [type(error).__name__])[0][:200]


# -------------------------------------------------------------------------------------- the table


def open_table(folder: Path):
    """The newest version of the table in a folder; None where there is none. An empty table is falsy: ask `is None`."""
    import lancedb

    if not (folder / f"{TABLE}.lance").is_dir():
        return None
    try:
        return lancedb.connect(folder).open_table(TABLE)
    except Exception as error:  # LanceDB raises what its parts raise
        if not _has_a_version(folder):
            return None  # a process was killed before its first commit
        raise damaged(folder, first_line(error)) from error


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
    ]
    schema = pa.schema(fields, metadata={"mmlesson": json.dumps(about)})
    if not _has_a_version(folder):  # what a process left that was killed before its first commit
        shutil.rmtree(folder / f"{TABLE}.lance", ignore_errors=True)
    try:
        return lancedb.connect(folder).create_table(TABLE, schema=schema)
    except (OSError, RuntimeError) as error:
        raise AssetError(
            f"No index can be made in {folder} ({first_line(error)}): give a path that you may write to."
        ) from error


def about(table) -> dict:
    try:
        return json.loads(table.schema.metadata[b"mmlesson"])
    except (KeyError, TypeError, ValueError):
        return {"format": 0, "clip": "something else", "fingerprint": "", "source": None}


def check_clip(table, clip: CLIP, folder: Path) -> None:
    """Raises AssetError where the table was made by another version of the package, or with another CLIP."""
    made = about(table)
    if made["format"] != FORMAT:
        raise AssetError(f"{folder} was not made by this version of mmlesson: delete it and build it again.")
    if made["fingerprint"] != clip.fingerprint():
        what = "other weights of the same name" if made["clip"] == clip.name else f"load_clip({made['clip']!r})"
        raise AssetError(
            f"The index {folder} was made with {what}, and its embeddings cannot be compared with those of "
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


@contextlib.contextmanager
def readable_filter(where: str | None) -> Iterator[None]:
    """LanceDB's errors about a filter become a ValueError that says what a filter is."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if where is None:
            raise
        columns = ", ".join(COLUMNS)
        raise ValueError(f"where={where!r} is not a filter in SQL over {columns} ({first_line(error)}).") from error


# --------------------------------------------------------------------------------------- writing


def write(table, folder: Path, read: Sequence[Read], ids: Sequence[int], keys: Sequence[int], replace: bool) -> None:
    """Write one row for each picture that was read, in one step.

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
    }
    data = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    with writable(folder):
        if replace:
            table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(data)
        else:
            table.add(data)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # of a full disk, or of a folder without permission
        raise AssetError(
            f"The index {folder} cannot be written ({error}): free some space and call it again."
        ) from error


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
    }
    table.add(pa.table([pa.array(columns[field.name], field.type) for field in table.schema], schema=table.schema))
