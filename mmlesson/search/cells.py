"""The approximate index: an inverted file (Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search", IV).

k-means finds about √n centres. Each embedding belongs to the cell of its nearest centre. A query compares itself with
the centres first, and then only with the embeddings in the few nearest cells; it misses what lies in other cells.

The file `cells.npz` holds the centres and the cell of each embedding, by its key and its sum, and no embedding: it is
small. An embedding that was added later is in no cell yet, and every query compares itself with it.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmlesson import gates, runtime

FILE = "cells.npz"
SAMPLE = 128  # embeddings for each centre that k-means works on: more give the same centres, later
ROUNDS = 10  # of k-means


@dataclass(frozen=True)
class Cells:
    """The cells of a collection of n embeddings."""

    centres: np.ndarray  # float32 [n_cells, dim] of unit length
    rows: np.ndarray  # int64: the embeddings, cell after cell
    starts: np.ndarray  # int64 [n_cells + 1]: cell c is rows[starts[c] : starts[c + 1]]
    others: np.ndarray  # int64: the embeddings that are in no cell

    def near(self, features: np.ndarray, probes: int) -> list[np.ndarray]:
        """The rows in the `probes` cells nearest to a query `[dim]`, an array for each cell, and those in no cell."""
        scores = self.centres @ features  # [n_cells]
        probes = min(probes, len(scores))
        nearest = np.argpartition(-scores, probes - 1)[:probes]
        return [*(self.rows[self.starts[cell] : self.starts[cell + 1]] for cell in nearest), self.others]


def make(folder: Path, vectors: torch.Tensor, keys: np.ndarray, sums: np.ndarray, seed: int = 0) -> None:
    """Sort embeddings `[n, dim]` into about √n cells, and keep these in the folder. Raises AssetError (a full disk)."""
    centres = _k_means(vectors, max(4, round(len(vectors) ** 0.5)), seed)
    cells = _nearest(vectors, centres).numpy().astype(np.int32)

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, centres=centres.numpy(), cells=cells, keys=keys, sums=sums)

    gates.write_atomically(folder / FILE, write)


def load(folder: Path, keys: np.ndarray, sums: np.ndarray, dim: int) -> Cells | None:
    """The cells in a folder, for the embeddings with these keys and sums in this order; None where there are none."""
    try:
        with np.load(folder / FILE, allow_pickle=False) as stored:
            centres, cells, known, of_known = (stored[name] for name in ("centres", "cells", "keys", "sums"))
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zlib.error, NotImplementedError, zipfile.BadZipFile):
        return None  # not there, or damaged: exact search is left
    if centres.ndim != 2 or centres.shape[1] != dim or not len(known) or not len(known) == len(cells) == len(of_known):
        return None  # of another index
    if np.array_equal(known, keys) and np.array_equal(of_known, sums):
        cell = cells
    else:  # the collection has changed since
        order = np.argsort(known, kind="stable")
        found = order[np.searchsorted(known, keys, sorter=order).clip(max=len(order) - 1)]
        cell = np.where((known[found] == keys) & (of_known[found] == sums), cells[found], -1)
    rows = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[rows], np.arange(len(centres) + 1))
    return Cells(centres, rows, starts, rows[: starts[0]])


def remove(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)


def _k_means(vectors: torch.Tensor, n_cells: int, seed: int) -> torch.Tensor:
    """Centres of unit length, float32 `[n_cells, dim]`, by the cosine (Dhillon and Modha 2001), on a random sample."""
    generator = runtime.generator(seed)
    chosen = torch.randperm(len(vectors), generator=generator)[: SAMPLE * n_cells].sort().values
    sample = vectors[chosen]  # [n_sample, dim]
    centres = sample[torch.randperm(len(sample), generator=generator)[:n_cells]]  # [n_cells, dim]
    for _ in range(ROUNDS):
        cells = _nearest(sample, centres)
        sums = torch.zeros_like(centres).index_add_(0, cells, sample)
        empty = torch.bincount(cells, minlength=n_cells) == 0
        sums[empty] = centres[empty]
        centres = F.normalize(sums, dim=1)
    return centres


def _nearest(vectors: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The centre with the largest cosine for each embedding: int64 `[n]`."""
    return torch.cat([(part @ centres.T).argmax(dim=1) for part in vectors.split(8192)])
