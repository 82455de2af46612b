"""Sentences about things that a collection hardly holds: from them an index finds its own threshold of "nothing fits".

Nobody tells an index what is absent from a learner's folder. But of several hundred different things, most are absent
from any folder. So the best scores of sentences about them show how high a score becomes by chance, in this very
collection and under this very CLIP.
"""

from __future__ import annotations

import torch

from mmlesson import runtime, words, world
from mmlesson.clip import CLIP, POCKET
from mmlesson.models.photo_form import class_names

N = 600  # sentences
# The share of the sentences whose best picture may still pass. It is high, because some of the things are there.
FALSE_HITS = 0.1
PLACES = (
    *("on the grass", "on a table", "in a street", "in the water"),
    *("in a room", "in the snow", "on a beach", "in a forest"),
)


def sentences(clip: CLIP, seed: int = 0) -> list[str]:
    """`N` sentences in words that the CLIP knows; fewer where it knows few of them.

    For the pocket CLIP, scenes of one thing in the pocket world. For any other, names of ImageNet in everyday places.
    """
    if clip.name == POCKET:
        return [scene.caption for scene in world.sample(N, "train", seed=seed, objects=1)]
    generator = runtime.generator(seed)
    names = [names[0] for names in class_names()]
    order = torch.randperm(len(names), generator=generator)[:N].tolist()
    places = torch.randint(len(PLACES), (len(order),), generator=generator).tolist()
    found = [f"a {names[name]} {PLACES[place]}" for name, place in zip(order, places, strict=True)]
    known = clip.vocabulary
    return found if known is None else [text for text in found if not words.unknown([text], known.__contains__)]
