"""What a picture shows, in the words of a CLIP: which of the 597 concepts, on which of the 12 backgrounds.

    namer = Namer(load_judge())
    namer.first(pictures)                      # ["cat", "tomato", …]
    namer.rank(picture, "cat")                 # 1 where "cat" fits best

It is zero-shot classification (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision"). Every measurement that asks what a picture shows asks it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import world
from mmlesson.clip import CLIP

OTHERS = 50  # captions of other scenes that a pair's own caption has to beat, besides the swapped one


@dataclass(frozen=True)
class Ranks:
    """The ranks of the right names, 1 is the best: two int64 tensors `[n]`, one number for each picture."""

    concepts: Tensor
    backgrounds: Tensor


class Namer:
    """Names the concept and the background of pictures of one object. `clip` is what `load_clip` returns."""

    def __init__(self, clip: CLIP):
        self.clip = clip
        self.concepts = [concept.name for concept in world.concepts()]  # 597 names
        self.backgrounds = list(world.BACKGROUNDS)  # 12 names

    @cached_property
    def concept_features(self) -> Tensor:
        """Embeddings of "a picture of a cat", …: float32 `[597, dim]` of unit length."""
        return self.clip.encode_texts([f"a picture of {concept}" for concept in world.concepts()])

    @cached_property
    def background_features(self) -> Tensor:
        """Embeddings of the backgrounds, each the mean over 25 things before it: float32 `[12, dim]`, unit length."""
        things = world.concepts()[::24]
        prompts = [
            f"{thing} on {world.with_article(background)} background"
            for background in self.backgrounds
            for thing in things
        ]
        each = self.clip.encode_texts(prompts).unflatten(0, (len(self.backgrounds), len(things)))  # [12, 25, dim]
        return F.normalize(each.mean(1), dim=-1)

    def concept_ranks(self, image_features: Tensor, concepts: Sequence[str]) -> Tensor:
        """The rank of each picture's concept among all: int64 `[n]`. `image_features` is float32 `[n, dim]`."""
        return _ranks(image_features @ self.concept_features.T, [self.concepts.index(name) for name in concepts])

    def background_ranks(self, image_features: Tensor, backgrounds: Sequence[str]) -> Tensor:
        """The rank of each picture's background among the 12: int64 `[n]`. `image_features` is float32 `[n, dim]`."""
        truth = [self.backgrounds.index(name) for name in backgrounds]
        return _ranks(image_features @ self.background_features.T, truth)

    def ranks(self, pictures: Sequence, pairs: Sequence[tuple[str, str]]) -> Ranks:
        """The ranks for pictures whose right (concept, background) are `pairs`."""
        image_features = self.clip.encode_images(pictures)  # [n, dim]
        return Ranks(
            self.concept_ranks(image_features, [concept for concept, _ in pairs]),
            self.background_ranks(image_features, [background for _, background in pairs]),
        )

    def rank(self, picture, concept: str) -> int:
        """The rank of a concept for one picture, 1 is the best."""
        return int(self.concept_ranks(self.clip.encode_images([picture]), [concept])[0])

    def first(self, pictures: Sequence) -> list[str]:
        """The concept that fits each picture best."""
        best = (self.clip.encode_images(pictures) @ self.concept_features.T).argmax(1)  # [n]
        return [self.concepts[number] for number in best.tolist()]

    def caption_ranks(self, pictures: Sequence, scenes: Sequence[world.Scene]) -> Tensor:
        """The rank of each picture's own caption among itself, the swapped one, and OTHERS of other scenes.

        `scenes` have two objects each and different captions. Returns int64 `[n]`, 1 is the best.
        """
        image_features = self.clip.encode_images(pictures)  # [n, dim]
        own = self.clip.encode_texts([scene.caption for scene in scenes])  # [n, dim]
        swapped = self.clip.encode_texts([scene.swapped().caption for scene in scenes])  # [n, dim]
        rivals = [swapped, *(own.roll(shift, 0) for shift in range(1, min(OTHERS, len(scenes) - 1) + 1))]
        cosines = torch.stack([(image_features * texts).sum(1) for texts in (own, *rivals)], dim=1)  # [n, rivals + 1]
        return _ranks(cosines, [0] * len(scenes))


def share(right: Tensor) -> float:
    """The share of True in bools of any shape, 0…1."""
    return right.float().mean().item()


def _ranks(cosines: Tensor, truth: Sequence[int]) -> Tensor:
    """Cosines `[n, names]` and the right column of each row → its rank, int64 `[n]`.

    A name with an equal cosine counts as better: a network that finds all names alike has found none.
    """
    if len(cosines) != len(truth):
        raise ValueError(f"There are {len(cosines)} pictures and {len(truth)} right names: each picture needs one.")
    own = cosines[torch.arange(len(cosines)), torch.as_tensor(truth, dtype=torch.long)]  # [n]
    return (cosines >= own[:, None]).sum(1)
