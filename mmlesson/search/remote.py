"""An index at an address, such as s3://bucket/index: written once it is complete, and read through a copy in the cache.

    OUT/index.json       the files of the index, with their sha256 and sizes: it is written last, and that is the commit
    OUT/files/<sha256>   their contents, each under its own sum, so that none is ever changed

A reader fetches what its copy lacks, and believes no file whose sum is another one. While an index is replaced, readers
of the former one go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mmlesson import gates
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.models import reading
from mmlesson.search import store
from mmlesson.search.collection import open_address, reachable
from mmlesson.words import shown

LIST = "index.json"
COPIED = "mirror.json"  # in the copy: the files as they came, with their times
OWN = re.compile(r"\..*|.*\.lock|mirror\.json|calibration\.json")  # files of a copy that are not of the index


def copy_of(address: str, clip: CLIP) -> Path:
    """The folder in the cache for the copy of an index at an address."""
    key = hashlib.sha256(f"{address.rstrip('/')} {clip.fingerprint()} {store.FORMAT}".encode()).hexdigest()[:12]
    name = re.sub(r"[^a-z0-9-]+", "-", address.rstrip("/").rpartition("/")[2].lower()).strip("-")[:40] or "index"
    return store.indexes() / f"{name}-{key}"


def fetch(address: str, folder: Path) -> bool:
    """Bring the copy in `folder` up to date, and check what came; False where there is no index at the address.

    Call it inside `store.writing(folder)` or `reading_copy`. Raises AssetError where a file is damaged or out of reach.
    """
    system, path = open_address(address)
    for attempt in range(3):
        listed = _listed(address, system, path)
        if listed is None:
            return False
        try:
            _fetch_files(address, system, path, folder, listed)
            return True
        except FileNotFoundError:  # a build has just replaced it: take the newer one
            if attempt == 2:
                raise AssetError(f"The index {shown(address)} lacks files: build it again.") from None
    return False


def _listed(address: str, system, path: str) -> dict[str, list] | None:
    with reachable(address):
        try:
            content = json.loads(system.cat_file(f"{path}/{LIST}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise AssetError(f"The index {shown(address)} is damaged ({LIST}): build it again.") from error
    try:
        files = {str(name): [str(value[0]), int(value[1])] for name, value in content["files"].items()}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise AssetError(f"The index {shown(address)} is damaged ({reading.short(error)}): build it again.") from error
    for name in files:
        if name.startswith("/") or ".." in name.split("/") or "\\" in name or OWN.fullmatch(name):
            raise AssetError(f"The index {shown(address)} names a file {name!r}: it was not made by this package.")
    return files


def _fetch_files(address: str, system, path: str, folder: Path, listed: dict[str, list]) -> None:
    copied = _copied(folder)
    now = {}
    for name, (total, size) in listed.items():
        target = folder / name
        if copied.get(name) != [total, *_stamp(target)]:
            target.parent.mkdir(parents=True, exist_ok=True)

            def write(temporary: Path, total=total, size=size) -> None:
                with _not_found(), reachable(address):
                    system.get_file(f"{path}/files/{total}", str(temporary))
                if _sum(temporary) != [total, size]:
                    raise AssetError(f"A file of the index {shown(address)} has changed there: build it again.")

            gates.write_atomically(target, write)
        now[name] = [total, *_stamp(target)]
    for name in _files(folder):
        if name not in listed:
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    if now != copied:
        gates.write_atomically(folder / COPIED, json.dumps(now).encode())


@contextlib.contextmanager
def _not_found() -> Iterator[None]:
    """A file that is gone stays a FileNotFoundError, in whatever it was wrapped."""
    try:
        yield
    except AssetError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise FileNotFoundError(str(error)) from error
        raise


def publish(address: str, folder: Path) -> None:
    """Write the index in `folder` to the address: files first, their list last, and then remove what is not needed."""
    system, path = open_address(address)
    listed = {name: _sum(folder / name) for name in _files(folder)}
    with reachable(address):
        try:
            there = {name.rpartition("/")[2] for name in system.ls(f"{path}/files", detail=False, refresh=True)}
        except FileNotFoundError:
            there = set()
        for name, (total, _) in listed.items():
            if total not in there:
                system.put_file(str(folder / name), f"{path}/files/{total}")
                there.add(total)
        text = json.dumps({"format": store.FORMAT, "files": listed}, indent=1) + "\n"
        system.pipe_file(f"{path}/{LIST}", text.encode())
        for total in there - {total for total, _ in listed.values()}:
            with contextlib.suppress(OSError):
                system.rm_file(f"{path}/files/{total}")
    copied = {name: [total, *_stamp(folder / name)] for name, (total, _) in listed.items()}
    gates.write_atomically(folder / COPIED, json.dumps(copied).encode())


def opened(address: str, clip: CLIP) -> Path:
    """The folder of the copy of an index, up to date. Raises AssetError where there is no index at the address."""
    folder = copy_of(address, clip)
    with gates.lock(folder / "index", what=f"copying the index {shown(address)}"):
        if not fetch(address, folder):
            raise AssetError(
                f"There is no index at {shown(address)}: make one with "
                f"`mmlesson index SOURCE --out {shown(address)}` or ImageIndex.build."
            )
        wrong = None
        try:
            if store.open_table(folder) is not None:
                return folder
        except store.DamagedError as error:
            wrong = error
        shutil.rmtree(folder / f"{store.TABLE}.lance", ignore_errors=True)  # of the copy alone: fetch it again
        (folder / COPIED).unlink(missing_ok=True)
        fetch(address, folder)
        if store.open_table(folder) is None:
            raise AssetError(f"The index {shown(address)} is damaged ({wrong}): build it again.")
    return folder


def _copied(folder: Path) -> dict[str, list]:
    try:
        copied = json.loads((folder / COPIED).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return copied if isinstance(copied, dict) else {}


def _files(folder: Path) -> list[str]:
    """The files of an index in a folder, relative to it."""
    found = []
    for here, _, names in os.walk(folder):
        relative = Path(here).relative_to(folder)
        found += [(relative / name).as_posix() for name in names if not OWN.fullmatch(name)]
    return sorted(found)


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _sum(path: Path) -> list:
    with gates.open_file(path) as file:
        return [hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size]
