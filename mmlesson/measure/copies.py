"""Does DALL-E copy? The training scene nearest to each drawing, and how near training scenes are to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmlesson import runtime
from mmlesson.measure.namer import share
from mmlesson.pixels import to_pixels
from mmlesson.world.middle import scenes_in_the_middle


@dataclass(frozen=True)
class Nearest:
    """How near pictures are to training scenes. Distances are Euclidean, of pixels in 0…1 at 32 × 32."""

    distances: Tensor  # [pictures], to the nearest scene
    among: Tensor  # [scenes], of each scene to the nearest other one
    images: list[Image.Image] = field(repr=False)  # of each picture, the nearest scene

    @property
    def copies(self) -> float:
        """The share of pictures that are nearer to a scene than 95 % of the scenes are to another."""
        return share(self.distances < self.among.quantile(0.05))


class Neighbours:
    """Finds the training scenes that are nearest to pictures, among `n` different ones (at least 2).

    The scenes that pocket-dalle's recipe trains on come first, then others of the training split.
    """

    def __init__(self, n: int = 20_000, side: int = 96):
        if n < 2:
            raise ValueError(f"It takes at least 2 scenes to compare their distances, not {n}.")
        drawn = scenes_in_the_middle(2 * n, "train", seed=0)
        self.scenes, self.side = list(dict.fromkeys(drawn))[:n], side
        if len(self.scenes) < n:
            raise ValueError(f"Among {2 * n} scenes only {len(self.scenes)} are different, and {n} were asked for.")
        shown = runtime.progress(self.scenes, description="training scenes", unit="scene")
        self.small = torch.cat([_small(to_pixels(scene.render(side))) for scene in shown])  # [n, 3 · 32 · 32]
        parts = self.small.split(1000)
        # of the two nearest, the first is the scene itself
        self.among = torch.cat([torch.cdist(part, self.small).topk(2, largest=False).values[:, 1] for part in parts])

    def of(self, pictures: Sequence[Image.Image]) -> Nearest:
        """The nearest scene of each picture."""
        # through a matrix product it would be faster, but a copy would be 0.1 away from itself
        exactly = "donot_use_mm_for_euclid_dist"
        distances, places = torch.cdist(_small(to_pixels(pictures)), self.small, compute_mode=exactly).min(1)
        return Nearest(distances, self.among, [self.scenes[place].render(self.side) for place in places.tolist()])


def _small(pixels: Tensor) -> Tensor:
    """Pixels [n, 3, side, side] → [n, 3 · 32 · 32]."""
    return F.interpolate(pixels, size=(32, 32), mode="area").flatten(1)
