"""What a build leaves on the way: the plan, and the fragments of the pictures that are embedded already.

    OUT/building/plan-00000.parquet         the pictures that are still to be embedded, in their order
    OUT/building/fragment-<sha256>.arrow    the embeddings of some of them, with sums, captions and reasons

OUT is a folder that all machines of a cluster see: a shared disk, or an address such as s3://bucket/index. A fragment
is named after the pictures in it, and is written whole or not at all, with its sha256 behind it. So the fragments that
are there are what a build need not do again, whoever was killed: each says by `mark` which pictures it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlesson import gates
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.search import vectors
from mmlesson.search.collection import Row, entries_of, is_address, open_address, reachable
from mmlesson.search.source import read_entry
from mmlesson.words import shown

if TYPE_CHECKING:
    import pyarrow

FOLDER = "building"
PARTS_OF_A_SIZE = 256  # of a plan; then its parts become twice as large: few files for many pictures
BEAT = 15.0  # seconds: so often a build at a server says that it is alive
DEAD_AFTER = 120.0  # seconds without that


class Place:
    """The folder of a build, on a disk or on a server: files that are written whole, and read whole."""

    def __init__(self, out: str | os.PathLike):
        self.out = os.fspath(out)
        self.is_remote = is_address(self.out)
        self.folder = f"{self.out.rstrip('/')}/{FOLDER}" if self.is_remote else str(Path(self.out, FOLDER))
        if self.is_remote:
            self.system, self.path = open_address(self.folder)

    def write(self, name: str, data: bytes) -> None:
        """Raises AssetError where the disk is full or the server refuses it; then no file of this name is there."""
        if self.is_remote:
            with reachable(self.out):
                self.system.pipe_file(f"{self.path}/{name}", data)
        else:
            gates.write_atomically(Path(self.folder, name), data)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            if not self.is_remote:
                return Path(self.folder, name).read_bytes()
            with reachable(self.out):
                try:
                    return self.system.cat_file(f"{self.path}/{name}")
                except FileNotFoundError:
                    return None
        return None

    def names(self, start: str) -> list[str]:
        """The files whose names begin so, sorted."""
        if self.is_remote:
            with reachable(self.out):
                try:
                    found = [path.rpartition("/")[2] for path in self.system.ls(self.path, detail=False, refresh=True)]
                except FileNotFoundError:
                    found = []
        else:
            found = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        return sorted(name for name in found if name.startswith(start))

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                if self.is_remote:
                    self.system.rm_file(f"{self.path}/{name}")
                else:
                    os.unlink(os.path.join(self.folder, name))

    def clear(self) -> None:
        """Remove the plan and the fragments, once the index holds all of it."""
        self.remove([*self.names("plan-"), *self.names("fragment-")])
        if not self.is_remote:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)


# ------------------------------------------------------------------------------------- one builder at a time


@contextlib.contextmanager
def alone(place: Place) -> Iterator[threading.Event]:
    """One build at a time at an address; a second one is refused. The event is set when another has taken it over.

    The lock is an object that only one process can create (a conditional put). Its owner renews it; one that has not
    been renewed for two minutes, or whose process on this machine is gone, belongs to a build that was killed.
    On a disk `store.writing` is the lock.
    """
    name = f"{place.path}/lock.json"
    mine = {"token": secrets.token_hex(8), "host": socket.gethostname(), "process": os.getpid(), "started": _started()}

    def create() -> bool:
        try:
            place.system.pipe_file(name, json.dumps(mine | {"time": time.time()}).encode(), mode="create")
        except FileExistsError:
            return False
        return True

    with reachable(place.out):
        if not create():
            owner = _owner(place)
            if _lives(owner):
                raise AssetError(
                    f"Another process is writing the index {shown(place.out)} at this moment (process "
                    f"{owner.get('process')} on {owner.get('host')}). Wait for it, or choose another place."
                )
            place.system.rm_file(name)
            if not create():
                raise AssetError(
                    f"Another process has just begun to write the index {shown(place.out)}: choose another place."
                )
    lost, done = threading.Event(), threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            with contextlib.suppress(Exception):  # a network that is away for a moment: the next beat tells
                if _owner(place).get("token") != mine["token"]:
                    lost.set()
                    return
                place.system.pipe_file(name, json.dumps(mine | {"time": time.time()}).encode())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()
        if _owner(place).get("token") == mine["token"]:
            place.remove(["lock.json"])


def _owner(place: Place) -> dict:
    try:
        owner = json.loads(place.read("lock.json") or b"")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _started() -> float:
    import psutil

    return psutil.Process().create_time()


def _lives(owner: dict) -> bool:
    import psutil

    if owner.get("host") == socket.gethostname():
        try:
            return psutil.Process(owner["process"]).create_time() == owner.get("started")
        except (psutil.Error, KeyError, TypeError, ValueError):
            return False
    stamp = owner.get("time")
    return isinstance(stamp, (int, float)) and time.time() - stamp < DEAD_AFTER


# ------------------------------------------------------------------------------------------- the plan


def write_plan(place: Place, rows: Iterable[Row], size: int) -> list[str]:
    """Write the rows into files, some for `size` pictures, later ones for more; returns their names."""
    import pyarrow as pa

    types = {"size": pa.int64(), "modified": pa.int64(), "place": pa.int64(), "data": pa.binary()}
    names = [name for name in Row.__dataclass_fields__]
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    place.remove(place.names("plan-"))
    parts: list[str] = []
    waiting: list[dict] = []

    def flush() -> None:
        sink = pa.BufferOutputStream()
        import pyarrow.parquet as parquet

        parquet.write_table(pa.Table.from_pylist(waiting, schema=schema), sink)
        parts.append(f"plan-{len(parts):05}.parquet")
        place.write(parts[-1], sink.getvalue().to_pybytes())
        waiting.clear()

    for row in rows:
        waiting.append(asdict(row))
        if len(waiting) >= size * 2 ** (len(parts) // PARTS_OF_A_SIZE):
            flush()
    if waiting:
        flush()
    return parts


def read_plan(place: Place, name: str) -> list[Row]:
    """The rows of one file of the plan."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    return [Row(**row) for row in parquet.read_table(pa.BufferReader(place.read(name))).to_pylist()]


# -------------------------------------------------------------------------------------- the fragments


@dataclass(frozen=True)
class Work:
    """What a worker needs to know. It travels to other machines, so it holds names and no objects."""

    out: str
    clip: str  # as `load_clip` takes it
    fingerprint: str
    batch_size: int
    fragment: int  # pictures
    keep: bool  # a small copy of each picture, where the index has no folder to show pictures from


@dataclass(frozen=True)
class Done:
    """What became of some pictures."""

    pictures: int
    embedded: int  # in this run; fewer where a fragment was there already
    failed: int
    stop: str = ""  # why the whole build cannot go on


def name_of(marks: Sequence[int], fingerprint: str) -> str:
    digest = hashlib.sha256(fingerprint.encode() + np.array(marks, np.int64).tobytes()).hexdigest()
    return f"fragment-{digest[:40]}.arrow"


def embed(place: Place, work: Work, clip: CLIP, rows: list[Row]) -> Done:
    """Read, decode and embed some pictures, and write their fragment; nothing where it is there, and whole.

    The pictures pass `read_entry` and `CLIP.encode_prepared`, batch by batch, as in a build without a cluster.
    """
    import pyarrow as pa

    marks = [row.mark for row in rows]
    name = name_of(marks, work.fingerprint)
    known = read(place, name)
    if known is not None:  # by a worker that was killed before it could say so
        return Done(len(rows), 0, sum(error != "" for error in known["error"].to_pylist()))
    columns: dict[str, list] = {
        name: [] for name in ("path", "size", "modified", "sha256", "caption", "stored", "error")
    }
    features = np.zeros((len(rows), clip.dim), np.float32)  # [n, dim]; 0 where there is no picture
    for start in range(0, len(rows), work.batch_size):
        batch = [read_entry(entry, clip, ()) for entry in entries_of(rows[start : start + work.batch_size])]
        good = [number for number, each in enumerate(batch) if not each.error]
        if good:
            prepared = [batch[number].prepared for number in good]
            features[[start + number for number in good]] = clip.encode_prepared(prepared).numpy()
        for row, each in zip(rows[start : start + work.batch_size], batch, strict=True):
            columns["path"].append(row.path)
            columns["size"].append(each.entry.size)
            columns["modified"].append(row.modified)
            columns["sha256"].append(each.sha256)
            columns["caption"].append(row.caption)
            columns["stored"].append(each.stored if work.keep else None)
            columns["error"].append(each.error)
            each.prepared = None
    table = pa.table(
        {
            "mark": pa.array(marks, pa.int64()),
            "path": pa.array(columns["path"], pa.string()),
            "size": pa.array(columns["size"], pa.int64()),
            "modified": pa.array(columns["modified"], pa.int64()),
            "sha256": pa.array(columns["sha256"], pa.string()),
            "caption": pa.array(columns["caption"], pa.string()),
            "stored": pa.array(columns["stored"], pa.binary()),
            "error": pa.array(columns["error"], pa.string()),
            "sum": pa.array(vectors.sums_of(features), pa.int64()),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), clip.dim),
        },
        metadata={"fingerprint": work.fingerprint},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    place.write(name, gates.sealed(sink.getvalue().to_pybytes()))
    failed = sum(error != "" for error in columns["error"])
    return Done(len(rows), len(rows) - failed, failed)


def read(place: Place, name: str) -> pyarrow.Table | None:
    """A fragment; None where it is not there, or not as it was written. Raises AssetError where it cannot be read."""
    import pyarrow as pa

    content = place.read(name)
    if content is None or hashlib.sha256(content[:-32]).digest() != content[-32:]:
        return None
    return pa.ipc.open_stream(content[:-32]).read_all()


def whole(place: Place, fingerprint: str) -> Iterator[tuple[str, pyarrow.Table]]:
    """The fragments that are whole, and of this CLIP; what is not is removed. One is in memory at a time."""
    for name in place.names("fragment-"):
        table = read(place, name)
        if table is None or (table.schema.metadata or {}).get(b"fingerprint") != fingerprint.encode():
            place.remove([name])
            continue
        yield name, table


def features_of(table: pyarrow.Table) -> np.ndarray:
    """The embeddings of a fragment: float32 `[n, dim]`."""
    column = table["features"].combine_chunks()
    return column.values.to_numpy().reshape(len(table), -1)
