"""Bring an index and its source together: embed what is new, drop what is gone, keep the rest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from mmlesson import gates, runtime
from mmlesson.search import filters, store, vectors
from mmlesson.search.source import Entry, Read, is_unchanged, read_entry

if TYPE_CHECKING:
    from mmlesson.clip import CLIP
    from mmlesson.search.index import ImageIndex

COMMIT_EVERY = (10.0, 4096)  # seconds or pictures: what a crash may cost


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


def synchronise(index: ImageIndex, entries: list[Entry], batch_size: int) -> Update:
    """Make an index hold exactly `entries`; commits every few seconds, so that little is lost by a stop.

    Call it inside `store.writing`. Ctrl-C keeps what is done, and says how much that is.
    """
    gates.whole_number("batch_size", batch_size, 1)
    work = _Work(index)
    todo = [entry for entry in entries if not is_unchanged(entry, work.known.get(entry.path))]
    failed: list[Read] = []
    done = fresh = same = 0
    pending: list[tuple[Read, torch.Tensor | None]] = []
    last = time.monotonic()
    try:
        for batch in _read_batches(todo, batch_size, index.clip, work.embedded):
            failed += [each for each in batch if each.error]
            read = [each for each in batch if not each.error]
            pending += work.embed(read)
            fresh += sum(each.prepared is not None for each in read)
            same += sum(_says_the_same(each, work.known.get(each.entry.path)) for each in read)
            if time.monotonic() - last > COMMIT_EVERY[0] or len(pending) >= COMMIT_EVERY[1]:
                done += work.commit(pending)
                pending = []
                last = time.monotonic()
    except KeyboardInterrupt:
        done += work.commit(pending)
        index._load()
        raise KeyboardInterrupt(
            f"{done} of {len(todo)} new pictures are in the index {index.folder}; the same call goes on from there."
        ) from None
    done += work.commit(pending)

    index.skipped = [(each.entry.path, each.error) for each in failed]
    unread = {id(each.entry) for each in failed}  # by identity: two names that are not Unicode may look the same
    gone = work.known.keys() - {entry.path for entry in entries if id(entry) not in unread}
    store.delete(index._table, sorted(gone))
    index._settle()
    added = sum(entry.path not in work.known for entry in todo if id(entry) not in unread)
    unchanged = len(entries) - len(todo) + same
    return Update(added, done - added - same, len(gone), unchanged, fresh, len(failed))


def _read_batches(todo: list[Entry], batch_size: int, clip: CLIP, embedded: dict[str, int]) -> Iterator[list[Read]]:
    """Read the entries, a batch at a time, in several threads."""
    waiting = runtime.progress(iter(todo), len(todo), "indexing", "picture")
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        while batch := list(islice(waiting, batch_size)):
            yield list(pool.map(lambda entry: read_entry(entry, clip, embedded), batch))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Work:
    """What is in an index before the work, and how a picture gets into it."""

    def __init__(self, index: ImageIndex):
        rows = index._select("id", "key", "sum", *filters.COLUMNS).to_pylist()
        self.index = index
        self.known = {row["path"]: row for row in rows}
        self.embedded = {row["sha256"]: row["id"] for row in rows}  # what need not be read again
        self.next_id = max((row["id"] for row in rows), default=-1) + 1

    def embed(self, read: list[Read]) -> list[tuple[Read, torch.Tensor | None]]:
        """Each picture with its embedding `[dim]`; with None where its path has this very embedding already."""
        new = [each.prepared for each in read if each.prepared is not None]
        features = iter(self.index.clip.encode_prepared(new) if new else [])  # [n, dim]
        pairs: list[tuple[Read, torch.Tensor | None]] = []
        for each in read:
            row = self.known.get(each.entry.path)
            if each.prepared is not None:
                pairs.append((each, next(features)))
            elif row is not None and row["sha256"] == each.sha256:
                pairs.append((each, None))
            else:  # moved or copied
                place = self.index._place_of(self.embedded[each.sha256])
                pairs.append((each, self.index._vectors[place].clone()))
        return pairs

    def commit(self, pending: list[tuple[Read, torch.Tensor | None]]) -> int:
        """Write pictures to the index in one step, in place of those with the same path; returns how many."""
        if not pending:
            return 0
        folder = self.index.folder
        fresh = [features for _, features in pending if features is not None]
        with store.writable(folder):
            new_keys = iter(vectors.append(folder, torch.stack(fresh)).tolist() if fresh else [])
        new_sums = iter(vectors.sums_of(torch.stack(fresh).numpy()).tolist() if fresh else [])
        ids, keys, sums = [], [], []
        for read, features in pending:
            if self.index.source is None:
                number = int(read.entry.path[1:])
            elif features is None:
                number = self.known[read.entry.path]["id"]
            else:
                number = self.next_id
                self.next_id += 1
            ids.append(number)
            keys.append(self.known[read.entry.path]["key"] if features is None else next(new_keys))
            sums.append(self.known[read.entry.path]["sum"] if features is None else next(new_sums))
        replace = any(read.entry.path in self.known for read, _ in pending)
        store.write(self.index._table, folder, [read for read, _ in pending], ids, keys, sums, replace)
        return len(pending)


def _says_the_same(read: Read, row: dict | None) -> bool:
    """Whether a picture that was read again turned out to be what it was: a touched file, an equal item of a list."""
    return row is not None and (row["sha256"], row["caption"]) == (read.sha256, read.entry.caption)
