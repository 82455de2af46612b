"""Batches for trainings. Their order depends on the seed alone, so that a resumed training sees the same scenes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmlesson import world

if TYPE_CHECKING:
    from mmlesson.train.run import Recipe

ENDLESS = 2**40  # more scenes than any training uses


def batches(data, recipe: Recipe, first_step: int, collate: Callable) -> Iterator:
    """Batches of a dataset in its order, from step `first_step` on. `recipe.workers` processes make the items."""
    loader = torch.utils.data.DataLoader(
        data,
        recipe.batch_size,
        sampler=range(first_step * recipe.batch_size, len(data)),
        num_workers=recipe.workers,
        collate_fn=collate,
        prefetch_factor=3 if recipe.workers > 0 else None,
        worker_init_fn=ignore_interrupts,
    )
    return iter(loader)


def ignore_interrupts(worker: int) -> None:
    """What a worker process does first. A terminal sends Ctrl-C to it too, and the training still needs its batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def scene_batches(recipe: Recipe, first_step: int, collate: Callable, size: int, **options) -> Iterator:
    """Endless batches of scenes of the training split, `size` pixels a side, from step `first_step` on.

    collate   makes a batch from a list of items (pixels, caption, wrong caption), see `world.dataset`
    options   further arguments of `world.dataset`
    """
    return batches(world.dataset(ENDLESS, "train", recipe.seed, size, **options), recipe, first_step, collate)


def pixels_only(items) -> Tensor:
    """A `collate`: the pictures as uint8 `[n, 3, size, size]`."""
    return torch.stack([pixels for pixels, _, _ in items])


def pixels_and_captions(items) -> tuple[Tensor, list[str]]:
    """A `collate`: the pictures as uint8 `[n, 3, size, size]`, and their captions."""
    pixels, captions, _ = zip(*items, strict=True)
    return torch.stack(pixels), list(captions)
