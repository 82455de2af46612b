"""The pictures of a collection that may be too large for one machine, one row at a time and in a fixed order.

A collection is a folder, a list, or a table, on a disk or at an address such as s3://bucket/pictures (gs:// too; by
fsspec, filesystem-spec.readthedocs.io):

    pictures/            every picture below the folder
    pictures.txt         a list: a path or an address a line
    pictures.parquet     a table: a column of paths, or of the bytes of picture files; a file or a folder of files
    pictures.lance       a table of LanceDB, with the same columns

Nothing here holds the collection in memory: rows are generators, and go into the files of a plan (see `fragments`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from PIL import Image

from mmlesson.gates import AssetError, open_file, reason
from mmlesson.models import reading
from mmlesson.pixels import SUFFIXES, ImageError, list_images, load_image
from mmlesson.search.source import (
    LATEST,
    MAX_BYTES,
    Entry,
    absolute,
    file_entry,
    list_entries,
    scene_from_json,
    scene_to_json,
    unreadable_folder,
)
from mmlesson.words import shown
from mmlesson.world import Scene

LISTS = (".txt", ".list")
PATHS = ("path", "url", "uri", "file", "file_name")  # names of the column of paths; the first that is there counts
PICTURES = ("image", "bytes", "picture", "jpg", "jpeg", "png", "webp", "data")  # … of the column of bytes
CAPTIONS = ("caption", "text")
AT_ONCE = 16  # pictures that a worker asks a server for at the same time


@dataclass(frozen=True)
class Row:
    """A picture of the collection, and where its bytes are. Everything in it can be kept in a table."""

    path: str  # as in `Entry`
    size: int = 0
    modified: int = 0
    caption: str | None = None
    error: str = ""
    kind: str = "file"  # file, address, item, scene, picture, parquet or lance: how it is read
    at: str = ""  # the file, address or table
    place: int = -1  # of a table: the row
    data: bytes | None = None  # a scene, or a picture of a list

    @property
    def mark(self) -> int:
        """63 bits by which a picture is known again, as long as it has not changed as far as its source says."""
        digest = hashlib.blake2b(f"{self.path}\0{self.size}\0{self.modified}\0{self.caption}".encode(), digest_size=8)
        digest.update(b"" if self.data is None else hashlib.sha256(self.data).digest())
        return int.from_bytes(digest.digest(), "big") >> 1


# ------------------------------------------------------------------------------------------ addresses


def is_address(path: object) -> bool:
    """Whether a path is an address of a server, such as s3://bucket/pictures."""
    return isinstance(path, str) and "://" in path


def open_address(address: str):
    """The file system of fsspec for an address, and the path in it. Raises AssetError where its package is missing."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise AssetError(
            f"{shown(address)} cannot be opened ({reading.short(error)}): install what reads it, with "
            '`pip install "mmlesson[cluster]"` (s3fs for s3://, gcsfs for gs://).'
        ) from error


@contextlib.contextmanager
def reachable(address: str) -> Iterator[None]:
    """Errors of a server or a network become an AssetError, in a sentence."""
    try:
        yield
    except (AssetError, ImageError):
        raise
    except Exception as error:  # each file system raises what its own library raises
        raise AssetError(
            f"{shown(address)} cannot be read or written ({reading.short(error)}): check the address, the network and "
            "your rights there."
        ) from error


# ------------------------------------------------------------------------------------------- sources


def is_collection(source: object) -> bool:
    """Whether a source is one that only this file reads: an address, a list in a file, or a table."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    text = os.fspath(source)
    if is_address(text):
        return True
    if isinstance(text, bytes):
        return False
    return text.rstrip("/").lower().endswith((".lance", ".parquet", *LISTS))


def rows_of(source, captions: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a source, in the order of its pictures. Raises ImageError where it is nothing of the kind."""
    if not isinstance(source, (str, os.PathLike)):
        return _of_items(source, captions)
    if captions is not None:
        raise ValueError("captions are for a list of pictures; for a folder write each into name.txt beside name.jpg.")
    text = os.fspath(source)
    if not is_collection(source):
        return _of_folder(absolute(source))
    where = text if is_address(text) else str(absolute(text))
    kind = where.rstrip("/").lower()
    if kind.endswith(".lance"):
        return _of_lance(where.rstrip("/"))
    if kind.endswith(".parquet"):
        return _of_parquet(where.rstrip("/"))
    if kind.endswith(LISTS):
        return _of_list(where)
    return _of_address(where)


def _of_folder(root: Path) -> Iterator[Row]:
    """The files below a folder, by path, as `folder_entries` has them, without keeping more than a folder's names."""
    if not os.path.isdir(root):
        list_images(root)  # says what is wrong
    start = len(str(root)) + (not str(root).endswith(os.sep))
    problems: list[OSError] = []
    for path in sorted_images(str(root), problems.append):
        while problems:
            yield _of_entry(unreadable_folder(root, start, problems.pop(0)))
        yield _of_entry(file_entry(Path(path), path[start:].replace(os.sep, "/")))
    for problem in problems:
        yield _of_entry(unreadable_folder(root, start, problem))


def sorted_images(folder: str, unreadable: Callable[[OSError], None]) -> Iterator[str]:
    """As `walk_images`, sorted by the parts of the paths."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        unreadable(error)
        return
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            if not os.path.islink(path):
                yield from sorted_images(path, unreadable)
        elif os.path.splitext(name)[1].lower() in SUFFIXES:
            yield path


def _of_entry(entry: Entry) -> Row:
    return Row(entry.path, entry.size, entry.modified, entry.caption, entry.error, "file", str(entry.item or ""))


def _of_items(source, captions: Sequence[str] | None) -> Iterator[Row]:
    for entry in list_entries(source, captions):
        row = Row(entry.path, caption=entry.caption)
        if isinstance(entry.item, Scene):
            yield replace(row, kind="scene", data=scene_to_json(entry.item))
        elif isinstance(entry.item, (str, os.PathLike)):
            kind = "file" if isinstance(entry.item, Path) else "item"
            yield replace(row, kind=kind, at=str(absolute(entry.item)))
        else:
            try:
                buffer = io.BytesIO()
                load_image(entry.item).save(buffer, "PNG", compress_level=1)
                yield replace(row, kind="picture", data=buffer.getvalue())
            except ImageError as error:
                yield replace(row, kind="picture", error=str(error))


def _of_address(address: str) -> Iterator[Row]:
    system, root = open_address(address)
    found = False
    with reachable(address):
        for here, folders, files in system.walk(root, detail=True):
            for name in [name for name in folders if name.startswith(".")]:
                del folders[name]
            for name in sorted(files):
                about = files[name]
                if name.startswith(".") or os.path.splitext(name)[1].lower() not in SUFFIXES:
                    continue
                found = True
                url = system.unstrip_protocol(f"{here}/{name}")
                yield Row(url, about.get("size") or 0, _version(about), kind="address", at=url)
    if not found:
        raise ImageError(f"{shown(address)} holds no picture: give the address of a folder of pictures.")


def _version(about: dict) -> int:
    """A number that changes when a file of a server changes: from its time, or from what the server calls its state."""
    stamp = about.get("LastModified") or about.get("mtime") or about.get("created") or about.get("updated")
    if hasattr(stamp, "timestamp"):
        return min(int(stamp.timestamp() * 1e9), LATEST)
    if isinstance(stamp, (int, float)):
        return min(int(stamp * 1e9), LATEST)
    return 0


def _of_list(where: str) -> Iterator[Row]:
    """Each line a path, which counts from the folder of the list, or an address."""
    base = where.rpartition("/")[0]
    number = 0
    with _opened(where) as file:
        for line in io.TextIOWrapper(file, "utf-8", errors="replace"):
            path = line.strip()
            if not path or path.startswith("#"):
                continue
            yield _of_path(path, base)
            number += 1
    if not number:
        raise ImageError(f"{shown(where)} names no picture: write a path or an address into each line.")


def _of_path(path: str, base: str, caption: str | None = None) -> Row:
    if not is_address(path) and not os.path.isabs(path):
        path = f"{base}/{path}"
    row = Row(path, caption=caption, kind="address", at=path)
    if is_address(path):
        return row
    try:
        stat = os.stat(path)
    except OSError:  # reading it will say so
        return row
    return replace(row, size=stat.st_size, modified=min(stat.st_mtime_ns, LATEST))


def _of_parquet(where: str) -> Iterator[Row]:
    import pyarrow.parquet as parquet

    number = 0
    for name, version in _parquet_files(where):
        with _opened(name) as file, _a_table(where):
            opened = parquet.ParquetFile(file)
            paths, pictures, captions = _columns(where, opened.schema_arrow.names)
            wanted = [column for column in (paths, captions) if column]
            place = 0
            for group in range(opened.num_row_groups):
                columns = opened.read_row_group(group, columns=wanted).to_pydict() if wanted else {}
                for each in range(opened.metadata.row_group(group).num_rows):
                    path, caption = (columns[name][each] if name else None for name in (paths, captions))
                    if pictures is None and path:
                        yield _of_path(path, where.rpartition("/")[0], caption)
                    elif pictures is None:
                        yield Row(f"#{number}", caption=caption, error="this row of the table names no picture.")
                    else:
                        known = path or f"#{number}"
                        yield Row(known, 0, version, caption, kind="parquet", at=name, place=place)
                    number, place = number + 1, place + 1


def _parquet_files(where: str) -> Iterator[tuple[str, int]]:
    """The file that a Parquet table is, or the files in its folder, by name; each with a number of its version."""
    if is_address(where):
        system, path = open_address(where)
        with reachable(where):
            names = sorted(system.find(path)) if system.isdir(path) else [path]
            for name in names:
                if name.endswith(".parquet"):
                    yield system.unstrip_protocol(name), _version(system.info(name))
        return
    path = Path(where)
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        with _found(where):
            yield str(file), min(file.stat().st_mtime_ns, LATEST)


def _of_lance(where: str) -> Iterator[Row]:
    with _a_table(where):
        table = open_lance(where)
        paths, pictures, captions = _columns(where, table.schema.names)
        version = table.version
        query = table.search().select([column for column in (paths, captions) if column]).with_row_id(True).limit(None)
        number = 0
        for batch in query.to_batches():
            columns = batch.to_pydict()
            for each, row_id in enumerate(columns["_rowid"]):
                path, caption = (columns[name][each] if name else None for name in (paths, captions))
                if pictures is None and path:
                    yield _of_path(path, where.rpartition("/")[0], caption)
                elif pictures is None:
                    yield Row(f"#{number}", caption=caption, error="this row of the table names no picture.")
                else:
                    yield Row(path or f"#{number}", 0, version, caption, kind="lance", at=where, place=row_id)
                number += 1


def open_lance(where: str):
    """The LanceDB table at a path or an address that ends in .lance."""
    import lancedb

    folder, _, name = where.rpartition("/")
    return lancedb.connect(folder).open_table(name.removesuffix(".lance"))


def _columns(where: str, names: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """The columns of paths, pictures and captions of a table; raises ImageError where there is no picture."""
    paths, pictures, captions = (
        next((name for name in known if name in names), None) for known in (PATHS, PICTURES, CAPTIONS)
    )
    if paths is None and pictures is None:
        raise ImageError(
            f"{shown(where)} has the columns {', '.join(names)}: name one of paths `path`, or one of bytes `image`."
        )
    return paths, pictures, captions


@contextlib.contextmanager
def _opened(where: str) -> Iterator:
    """A file of the disk or of a server, for reading."""
    if is_address(where):
        system, path = open_address(where)
        with reachable(where), system.open(path, "rb") as file:
            yield file
    else:
        with _found(where), open_file(where) as file:
            yield file


@contextlib.contextmanager
def _found(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImageError(f"{shown(where)} cannot be read ({reason(error)}): give a file that can be read.") from error


@contextlib.contextmanager
def _a_table(where: str) -> Iterator[None]:
    """What pyarrow and LanceDB raise about a table that is damaged or not there becomes an ImageError."""
    try:
        yield
    except (ImageError, AssetError):
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise ImageError(
            f"{shown(where)} is no table that can be read ({reading.short(error)}): give a Parquet or a Lance table."
        ) from error


# ------------------------------------------------------------------------------------------- reading


def entries_of(rows: Iterable[Row]) -> list[Entry]:
    """The rows as entries that `read_entry` reads: what lies in a table or on a server has been fetched."""
    rows = list(rows)
    fetched: dict[int, object] = {}
    for (kind, at), group in groupby(enumerate(rows), lambda pair: (pair[1].kind, pair[1].at)):
        if kind in ("parquet", "lance"):
            numbers, places = zip(*((number, row.place) for number, row in group), strict=True)
            try:
                fetched |= dict(zip(numbers, _from_table(kind, at, places), strict=True))
            except (AssetError, ImageError) as error:
                fetched |= dict.fromkeys(numbers, error)
    slow = [number for number, row in enumerate(rows) if row.kind == "address" and not row.error]
    if slow:
        with ThreadPoolExecutor(AT_ONCE if is_address(rows[slow[0]].at) else 1) as pool:
            fetched |= dict(zip(slow, pool.map(lambda number: _fetched(rows[number].at), slow), strict=True))
    return [_entry(row, fetched.get(number)) for number, row in enumerate(rows)]


def _entry(row: Row, fetched: object) -> Entry:
    entry = Entry(row.path, row.size, row.modified, row.caption, None, row.error)
    if row.error:
        return entry
    if isinstance(fetched, Exception):
        return replace(entry, error=str(fetched))
    if row.kind == "file":
        return replace(entry, item=Path(row.at))
    if row.kind == "item":
        return replace(entry, item=row.at)
    if row.kind == "scene":
        return replace(entry, item=scene_from_json(row.data))
    if row.kind == "picture":
        return replace(entry, item=Image.open(io.BytesIO(row.data)))
    if not isinstance(fetched, bytes):
        return replace(entry, error="the table has no bytes in this row.")
    return replace(entry, size=len(fetched), item=fetched)


def _fetched(where: str) -> bytes | Exception:
    """The bytes of one picture, or the error that says why there are none."""
    try:
        with _opened(where) as file:
            data = file.read(MAX_BYTES + 1)
    except (AssetError, ImageError) as error:
        return error
    if len(data) > MAX_BYTES:
        return ImageError(f"it has more than {MAX_BYTES // 10**6} MB: make it smaller first.")
    return data


def _from_table(kind: str, at: str, places: Sequence[int]) -> list[bytes | None]:
    """The bytes in these rows of a table."""
    import pyarrow.parquet as parquet

    if kind == "lance":
        with _a_table(at):
            table = open_lance(at)
            _, column, _ = _columns(at, table.schema.names)
            found = table.take_row_ids(list(places)).with_row_id().select([column]).to_arrow().to_pydict()
            by_place = dict(zip(found["_rowid"], found[column], strict=True))
            return [_bytes(by_place.get(place)) for place in places]
    values: dict[int, bytes | None] = {}
    with _opened(at) as file, _a_table(at):
        opened = parquet.ParquetFile(file)
        _, column, _ = _columns(at, opened.schema_arrow.names)
        start = 0
        for group in range(opened.num_row_groups):
            end = start + opened.metadata.row_group(group).num_rows
            mine = [place for place in places if start <= place < end]
            if mine:
                taken = opened.read_row_group(group, columns=[column])[column].take([place - start for place in mine])
                values |= {place: _bytes(value) for place, value in zip(mine, taken.to_pylist(), strict=True)}
            start = end
    return [values.get(place) for place in places]


def _bytes(value: object) -> bytes | None:
    """The bytes in a cell of a table; a data set of Hugging Face has them as a part of a record."""
    value = value.get("bytes") if isinstance(value, dict) else value
    return value if isinstance(value, bytes) else None
