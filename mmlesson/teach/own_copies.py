"""A learner's own copies of the lessons: made once, and brought up to date without losing what they wrote.

A small file beside the copies, `RECORD`, keeps the sha256 of each course notebook that was copied. So it is known
whether the learner changed a copy, and whether the course changed its notebook.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from mmlesson import gates

RECORD = ".mmlesson-copies.json"
EARLIER = "earlier"  # the folder for copies that `fresh` puts aside


def own_copies(source: Path, target: Path, fresh: bool = False) -> Iterator[str]:
    """Copy the notebooks of `source` to the learner's folder `target`; yields a sentence for each that it writes.

    - A copy that is not there is made. One that nobody changed follows the course's notebook.
    - A copy that the learner changed stays as it is. When the course changes its notebook, the new one is written
      beside it, under a new name, once.
    - With `fresh` every copy is made anew; one that the learner changed moves to the folder `earlier`.

    Raises AssetError where the folder cannot be written.
    """
    record = _read(target / RECORD)
    for notebook in sorted(source.glob("*.ipynb")):
        content = notebook.read_bytes()
        now = _sum(content)
        own = target / notebook.name
        copied = record.get(notebook.name)  # None in a folder of before there was a record
        record[notebook.name] = now
        if not own.exists():
            gates.write_atomically(own, content)
            yield f"copied {own.name} to {target}"
            continue
        current = _sum(own.read_bytes())
        if current == now:
            continue
        if current == copied:
            gates.write_atomically(own, content)
            yield f"{own.name} follows the course's new one: you had not changed it"
        elif fresh:
            kept = _free(target / EARLIER / f"{own.stem}-{time.strftime('%Y-%m-%d-%H%M%S')}.ipynb")
            gates.write_atomically(kept, own.read_bytes())
            gates.write_atomically(own, content)
            yield f"{own.name} starts anew; yours is {kept.relative_to(target)}"
        elif copied != now:
            beside = _free(own.with_stem(f"{own.stem}_new"))
            gates.write_atomically(beside, content)
            yield f"the course has a new {own.name}: it is {beside.name}, beside yours, which stays as it is"
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    if _read(target / RECORD) != record:
        gates.write_atomically(target / RECORD, text.encode())


def is_the_copied(own: Path, content: bytes) -> bool:
    """Whether `content` is what was copied to `own`, as the record beside it says."""
    return _read(own.parent / RECORD).get(own.name) == _sum(content)


def _read(path: Path) -> dict[str, str]:
    """The record, empty where there is none or where it cannot be read: then no copy is overwritten."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _free(path: Path) -> Path:
    """The path, or the first with a number behind it that is not taken."""
    number, free = 2, path
    while free.exists():
        free = path.with_stem(f"{path.stem}_{number}")
        number += 1
    return free
