"""The recipe of the pocket prior: `mmlesson train prior --steps 5000`.

The pocket VQGAN encodes a scene of the training split. The scene shows one object, which is large and therefore in
the middle. Such a narrow world needs less training. For the same reason, generators of faces are trained on faces
that were cut out and aligned (Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial
Networks").

The latents of the scene, rows of the codebook, are blended with those of random codes. From the blend, the prior has
to say which code stood in each place. The loss is the cross-entropy of the right code. The clarity of a blend is the
square of an even number in 0…1, so that most blends are unclear: above a clarity of one half, the nearest code is the
answer. Captions take no part.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import prior as priors
from mmlesson import runtime, world
from mmlesson import vqgan as vqgans
from mmlesson.models.folders import save_folder
from mmlesson.train import run
from mmlesson.train.data import pixels_only, scene_batches


@dataclass(frozen=True)
class Recipe(run.Recipe):
    """The recipe of the pocket prior."""

    batch_size: int = 8  # scenes
    smallest_object: float = 0.9  # share of the side that the object fills at least
    blends_per_scene: int = 4  # at clarities spread over the range; to render and encode a scene costs as much as one


class Training(run.Training):
    """Trains a prior over the codes of `vqgan` (None: the pocket VQGAN).

    The loss is in nats a code; where nothing is known it is the logarithm of the number of codes.
    Thermometer: the loss on 200 held-out scenes.
    """

    name = priors.POCKET

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device | str | None = None,
        vqgan: vqgans.VQGAN | None = None,
        config: priors.PriorConfig | None = None,
    ):
        super().__init__(recipe, device)
        self.vqgan = vqgans.load_vqgan(device=self.device) if vqgan is None else vqgan
        prior = priors.new_prior(self.vqgan, config, recipe.seed).to(memory_format=torch.channels_last).train()
        optimizer = run.adamw(prior, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98))
        self.form = asdict(prior.config)
        self.parts = {"model": prior, "optimizer": optimizer}

    def begin(self, first_step: int, state: Path | None) -> None:
        size, smallest = self.vqgan.config.image_size, self.recipe.smallest_object
        self.batches = scene_batches(self.recipe, first_step, pixels_only, size, objects=1, smallest=smallest)

    def take_step(self, step: int, progress: float) -> tuple[float, dict[str, float]]:
        pixels = next(self.batches).to(self.device).float() / 255
        loss = self._loss(pixels, self.recipe.blends_per_scene, runtime.generator((self.recipe.seed << 32) + step))
        return run.descend(loss, self.optimizer, self.model.parameters()), {}

    def _loss(self, pixels: Tensor, blends: int, generator: torch.Generator) -> Tensor:
        """Mean cross-entropy of the codes of pixels [n, 3, side, side], each picture blended at `blends` clarities."""
        prior, n = self.model, len(pixels)
        with runtime.autocast(self.device):
            with torch.no_grad():
                latents = self.vqgan.encode_pixels(pixels.contiguous(memory_format=torch.channels_last))
                codes = self.vqgan.quantise(latents).codes.repeat(blends, 1, 1)  # [blends · n, h, w]
                latents = F.embedding(codes, prior.codebook).permute(0, 3, 1, 2)  # [blends · n, dim, h, w]
                random = prior.random_latents(len(codes), codes.shape[1], generator)
                even = torch.arange(len(codes)) // n / blends + torch.rand(len(codes), generator=generator) / blends
                clarity = priors.schedule(even).to(self.device)  # [blends · n]
                blended = priors.blend(latents, random, clarity)
            return F.cross_entropy(prior(blended, clarity), codes)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        size, smallest = self.vqgan.config.image_size, self.recipe.smallest_object
        scenes = world.dataset(200, "heldout", seed=1, size=size, objects=1, smallest=smallest)
        self.model.eval()
        losses = []
        for first in range(0, len(scenes), 50):
            pixels = torch.stack([scenes[i][0] for i in range(first, first + 50)]).to(self.device).float() / 255
            losses.append(self._loss(pixels, 1, runtime.generator(first)))
        self.model.train()
        return {"loss": torch.stack(losses).mean().item()}

    def save(self, folder: Path) -> None:
        save_folder(self.model.eval(), folder)
