"""Random scenes of a split, and the same as pixels and captions for training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from mmlesson.world.concepts import BACKGROUNDS, concepts
from mmlesson.world.scenes import ALONE, PAIRED, Scene, one_thing, two_things


def random_scene(
    rng: np.random.Generator, split: str, objects: int | None, colour: int | None = None, smallest: float = 0.0
) -> Scene:
    """A scene of a split with `objects` objects (None: one or two), each at least `smallest` of the side.

    colour: the number of its background; None draws one.
    """
    everything = concepts()
    colours = tuple(BACKGROUNDS)
    while True:  # about one in five drawn scenes is held out: neither split waits long
        background = colours[rng.integers(len(colours)) if colour is None else colour]
        if (rng.integers(1, 3) if objects is None else objects) == 1:
            drawn = one_thing(rng, everything[rng.integers(len(everything))].name, background)
        else:
            pair = [everything[i].name for i in rng.choice(len(everything), 2, replace=False)]
            drawn = two_things(rng, pair, background, ("left of", "above")[rng.integers(2)])
        if drawn.held_out == (split == "heldout") and min(thing.size for thing in drawn.things) >= smallest:
            return drawn


def sample(n: int, split: str = "train", seed: int = 0, objects: int | None = None) -> list[Scene]:
    """`n` random scenes of a split.

    Args:
        split: "train", or "heldout" for scenes with a pair that no training has seen.
        seed: scene i of a seed is the same whatever `n` is, on every machine.
        objects: 1 or 2; None draws both evenly before the split is applied (a pair is held out more often).
    """
    return list(itertools.islice(_stream(split, seed, objects), n))


def _stream(split: str, seed: int, objects: int | None) -> Iterator[Scene]:
    if split not in ("train", "heldout"):
        raise ValueError(f'A split is "train" or "heldout", not {split!r}.')
    if objects not in (None, 1, 2):
        raise ValueError(f"A scene shows 1 or 2 objects, not {objects!r}.")
    for index in itertools.count():
        yield random_scene(np.random.default_rng([seed, index]), split, objects)


RUNS = {1: 1, 2: 64, 3: 8}  # in each stage of a curriculum, how many scenes in a row share their background


class _SceneDataset:
    """Map-style dataset: item `index` depends on the seed and the index alone, so workers never repeat each other."""

    def __init__(
        self,
        n: int,
        split: str,
        seed: int,
        size: int,
        objects: int | None,
        curriculum: tuple[int, int] | None,
        smallest: float = 0.0,
    ):
        next(_stream(split, seed, objects))  # wrong arguments fail here, not in a worker
        if not 0 <= smallest < (ALONE if objects == 1 else PAIRED)[1]:
            raise ValueError(f"No object of these scenes fills {smallest} of the side.")
        if curriculum is not None and (len(curriculum) != 2 or not 0 <= curriculum[0] <= curriculum[1]):
            raise ValueError(f"A curriculum is the numbers at which stages 2 and 3 begin, not {curriculum!r}.")
        self.n = n
        self.split = split
        self.seed = seed
        self.size = size
        self.objects = objects
        self.curriculum = curriculum
        self.smallest = smallest

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        import torch

        if not 0 <= index < self.n:
            raise IndexError(f"Scene {index} of a dataset of {self.n}.")
        stage = 3 if self.curriculum is None else 1 + sum(index >= start for start in self.curriculum)
        run = 1 if self.curriculum is None else RUNS[stage]
        rng = np.random.default_rng([self.seed, index])
        colour = (
            int(np.random.default_rng([self.seed, index // run, run]).integers(len(BACKGROUNDS))) if run > 1 else None
        )
        scene = random_scene(rng, self.split, self.objects, colour, self.smallest)
        caption, wrong = scene.phrase(rng, stage)
        pixels = np.asarray(scene.render(self.size)).transpose(2, 0, 1)
        return torch.from_numpy(pixels.copy()), caption, wrong


def dataset(
    n: int,
    split: str = "train",
    seed: int = 0,
    size: int = 64,
    objects: int | None = None,
    curriculum: tuple[int, int] | None = None,
    smallest: float = 0.0,
) -> _SceneDataset:
    """Scenes for torch's DataLoader, rendered as they are asked for.

    Each item is `(pixels, caption, wrong)`: uint8 `[3, size, size]` in 0…255; a random way of saying what it shows;
    and a wrong caption in the same words (see `Scene.phrase`; "" where there is none).

    A curriculum gives the numbers of the scenes at which its second and third stage begin:
        1. canonical captions on any background: what order means;
        2. half of the wordings, 64 scenes in a row on one background, so that only objects tell them apart: what
           things look like;
        3. all wordings, 8 scenes in a row on one background, other backgrounds among the wrong captions: language
           and colour.
    Without one, every scene has any background and any wording.

    `smallest` leaves out scenes with an object that fills less than that share of the side.
    """
    return _SceneDataset(n, split, seed, size, objects, curriculum, smallest)
