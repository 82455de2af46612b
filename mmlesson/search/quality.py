"""How well an index finds known answers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mmlesson import runtime
from mmlesson.search.index import ImageIndex


@dataclass(frozen=True)
class Retrieval:
    """How well an index finds known answers; `intervals` has the 95 % bootstrap interval of each figure."""

    n: int  # queries
    recall_at_1: float  # share of queries whose answer is the first hit
    recall_at_5: float
    recall_at_10: float
    mrr: float  # mean reciprocal rank: the mean of 1 / rank
    median_rank: float
    intervals: dict[str, tuple[float, float]] = field(compare=False)

    def __str__(self) -> str:
        lines = [f"{self.n} queries"]
        lines += [
            f"{name:13} {getattr(self, name):6.3f}  ({low:.3f} … {high:.3f})"
            for name, (low, high) in self.intervals.items()
        ]
        return "\n".join(lines)


def evaluate_retrieval(index: ImageIndex, pairs: Iterable[tuple], resamples: int = 1000, seed: int = 0) -> Retrieval:
    """How often, and how high, the known answer of each query is found among all pictures of the index.

    pairs: (query, answer); an answer is a `Hit.path` or a path relative to the folder, or for a list a place in it.
    resamples: how many bootstrap samples of the queries are drawn, at least 1. Each interval holds 95 % of them
        (Efron 1979).
    Ranks are those of exact search. Scores within 1e-6 are a tie, and a tie goes to the picture that came first.
    Raises ValueError where there is no pair, or where an answer is not in the index.
    """
    pairs = list(pairs)
    if not pairs:
        raise ValueError("there is nothing to evaluate: give at least one (query, answer).")
    if resamples < 1:
        raise ValueError(f"resamples is a number of bootstrap samples, at least 1, not {resamples!r}.")
    places = {path: place for place, path in enumerate(index._rows["path"].to_pylist())}
    truth = torch.tensor([_place(index, places, answer) for _, answer in pairs])[:, None]  # [n_queries, 1]
    ranks = []
    for start in range(0, len(pairs), 256):  # queries at a time
        rows = truth[start : start + 256]  # [256, 1]
        scores = index.scores([query for query, _ in pairs[start : start + 256]])  # [256, n]
        own = scores.gather(1, rows)  # [256, 1]
        before = torch.arange(len(index)) < rows
        tie = (scores - own).abs() <= 1e-6  # a matrix product rounds equal rows in different ways
        ranks.append(1 + ((scores > own) & ~tie | tie & before).sum(dim=1))
    ranks = torch.cat(ranks).double()  # [n_queries]

    figures = {
        "recall_at_1": lambda ranks: (ranks <= 1).double().mean(-1),
        "recall_at_5": lambda ranks: (ranks <= 5).double().mean(-1),
        "recall_at_10": lambda ranks: (ranks <= 10).double().mean(-1),
        "mrr": lambda ranks: (1 / ranks).mean(-1),
        "median_rank": lambda ranks: ranks.quantile(0.5, dim=-1),
    }
    samples = torch.randint(len(ranks), (resamples, len(ranks)), generator=runtime.generator(seed))
    drawn = ranks[samples]  # [resamples, n_queries]
    limits = torch.tensor([0.025, 0.975], dtype=torch.float64)
    intervals = {name: tuple(figure(drawn).quantile(limits).tolist()) for name, figure in figures.items()}
    return Retrieval(
        len(ranks), **{name: figure(ranks).item() for name, figure in figures.items()}, intervals=intervals
    )


def _place(index: ImageIndex, places: dict[str, int], answer) -> int:
    """The place of an answer in the index."""
    key = f"#{answer}"
    if isinstance(answer, (str, os.PathLike)):
        path = Path(answer)
        if index.source is not None and path.is_relative_to(index.source):
            path = path.relative_to(index.source)
        key = path.as_posix()
    if key not in places:
        raise ValueError(f"the answer {answer!r} is not in the index.")
    return places[key]
