"""The embeddings of an index: two files that only grow, next to the table.

    vectors-0.f32   one embedding after another: float32, `dim` numbers each
    keys-0.i64      the key of each embedding: int64, in the same order

The table keeps the key of each picture, the sum of its embedding (CRC-32), and no embedding. So every embedding is on
disk once, and exact search reads it as a file that is mapped into memory. A key is never used twice. An embedding is
believed where its sum is that of the table: bytes that a disk changed, or the files of another index, are found.

A crash loses nothing: an embedding counts when its key is written, and a picture when its row is in the table. What
was written and does not count is overwritten or left out by `compact`, which writes a new pair of files (-1, -2, …)
without the embeddings of pictures that are gone. Readers that have mapped the old pair go on with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmlesson import gates
from mmlesson.gates import AssetError

ROWS_AT_ONCE = 50_000  # how many embeddings `compact` copies in one step
SAMPLE = 64  # blocks of so many embeddings are checked where checking all would take long


@dataclass(frozen=True)
class Embeddings:
    """All embeddings of a folder, as they are on disk now."""

    keys: np.ndarray  # int64 [n], each once
    vectors: np.ndarray  # float32 [n, dim], mapped into memory

    def places(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key: int64 `[len(keys)]`; -1 where the key is not there."""
        if len(keys) <= len(self.keys) and np.array_equal(self.keys[: len(keys)], keys):
            return np.arange(len(keys))
        if not len(self.keys):
            return np.full(len(keys), -1)
        order = np.argsort(self.keys, kind="stable")
        found = np.searchsorted(self.keys, keys, sorter=order).clip(max=len(order) - 1)
        rows = order[found]
        return np.where(self.keys[rows] == keys, rows, -1)

    def take(self, places: np.ndarray) -> torch.Tensor:
        """The embeddings in these rows: float32 `[n, dim]`. The first n in order stay mapped; others are copied."""
        if np.array_equal(places, np.arange(len(places))):
            return torch.from_numpy(self.vectors[: len(places)])
        return torch.from_numpy(self.vectors[places])

    def are_whole(self, places: np.ndarray, sums: np.ndarray, most: int | None = None) -> np.ndarray:
        """Whether the embedding in each of these rows (-1: none) is the one whose sum is given: bool `[len(places)]`.

        most: with more rows than this only a sample of them is read, in blocks; the others count as whole.
        """
        whole = places >= 0
        chosen = np.flatnonzero(whole)
        if most is not None and len(chosen) > most:
            starts = np.linspace(0, len(chosen) - SAMPLE, most // SAMPLE).astype(np.int64)
            chosen = chosen[np.unique(starts[:, None] + np.arange(SAMPLE))]
        for start in range(0, len(chosen), ROWS_AT_ONCE):
            part = chosen[start : start + ROWS_AT_ONCE]
            whole[part] = sums_of(self.vectors[places[part]]) == sums[part]
        return whole


def sums_of(vectors: np.ndarray) -> np.ndarray:
    """The CRC-32 of each embedding, float32 `[n, dim]`, by which a damaged one is known: int64 `[n]`."""
    rows = np.ascontiguousarray(vectors, np.float32)
    return np.fromiter((zlib.crc32(row) for row in rows), np.int64, len(rows))


def load(folder: Path, dim: int) -> Embeddings:
    """The embeddings in a folder, mapped and not read; none where there are no files."""
    while True:
        number = _latest(folder)
        vectors_file, keys_file = _files(folder, 0 if number is None else number)
        try:
            n = _complete(vectors_file, keys_file, dim)
            if n:
                keys = np.fromfile(keys_file, np.int64, n)
                vectors = np.memmap(vectors_file, np.float32, "c", shape=(n, dim))  # "c": a write stays in memory
                return Embeddings(keys, vectors)
        except FileNotFoundError:
            pass
        if _latest(folder) == number:  # else another process has just made a newer pair: take that
            return Embeddings(np.zeros(0, np.int64), np.zeros((0, dim), np.float32))


def append(folder: Path, vectors: torch.Tensor) -> np.ndarray:
    """Write embeddings `[n, dim]` to the end; returns their keys, int64 `[n]`. One process at a time may do so.

    Raises OSError where the disk is full or the folder is not writable; what was there before is then unchanged.
    """
    number = _latest(folder) or 0
    vectors_file, keys_file = _files(folder, number)
    dim = vectors.shape[1]
    start = _complete(vectors_file, keys_file, dim)
    keys = number * 2**40 + start + np.arange(len(vectors))
    _write_at(vectors_file, start * dim * 4, np.ascontiguousarray(vectors.numpy(), np.float32))
    _write_at(keys_file, start * 8, keys)  # after the embeddings: a key says that its embedding is complete
    return keys


def compact(folder: Path, dim: int, keys: np.ndarray) -> None:
    """Keep only the embeddings with these keys, in this order. One process at a time may do so.

    Where they are so already nothing is written. Where the disk has no room all stays as it is.
    """
    for left in [*folder.glob(".vectors-*"), *folder.glob(".keys-*")]:  # of a process that was killed in here
        with contextlib.suppress(OSError):
            left.unlink()
    stored = load(folder, dim)
    if not np.array_equal(stored.keys, keys):
        places = stored.places(keys)

        def write(path: Path) -> None:
            with open(path, "wb") as file:
                for start in range(0, len(places), ROWS_AT_ONCE):
                    stored.vectors[places[start : start + ROWS_AT_ONCE]].tofile(file)

        latest = _latest(folder)
        vectors_file, keys_file = _files(folder, 0 if latest is None else latest + 1)
        try:
            gates.write_atomically(vectors_file, write)
            gates.write_atomically(keys_file, keys.astype(np.int64).tobytes())  # from now on the new pair counts
        except AssetError:
            with contextlib.suppress(OSError):
                vectors_file.unlink()
            return
    _remove_all_but(folder, _latest(folder))


def _remove_all_but(folder: Path, number: int | None) -> None:
    kept = () if number is None else _files(folder, number)
    for file in [*folder.glob("keys-*.i64"), *folder.glob("vectors-*.f32")]:
        if file not in kept:
            with contextlib.suppress(OSError):  # another process has it open (Windows): the next time removes it
                file.unlink()


def _files(folder: Path, number: int) -> Sequence[Path]:
    return folder / f"vectors-{number}.f32", folder / f"keys-{number}.i64"


def _latest(folder: Path) -> int | None:
    """The number of the newest pair of files that is complete; None where there is none."""
    numbers = [int(match[1]) for file in folder.glob("keys-*.i64") if (match := re.fullmatch(r"keys-(\d+)", file.stem))]
    return max(numbers, default=None)


def _complete(vectors_file: Path, keys_file: Path, dim: int) -> int:
    """How many embeddings are there with their keys; 0 where a file is missing."""
    if not keys_file.exists() or not vectors_file.exists():
        return 0
    return min(vectors_file.stat().st_size // (4 * dim), keys_file.stat().st_size // 8)


def _write_at(file: Path, offset: int, array: np.ndarray) -> None:
    """Write over what may lie behind `offset`; never make the file shorter, because a reader may have mapped it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    with os.fdopen(descriptor, "r+b") as handle:
        handle.seek(offset)
        handle.write(array.tobytes())
        handle.flush()
        os.fsync(handle.fileno())
