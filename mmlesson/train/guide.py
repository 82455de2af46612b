"""The recipe of the pocket guide: `mmlesson train guide --steps 1700`.

The guide is the pocket CLIP with image towers that have learned to look at half-finished pictures. A scene of one
large object, as in the training of the prior, is encoded by the pocket VQGAN, blended with random codes at some
clarity, restored by the pocket prior, and decoded. So a painting looks on its way. From such a picture a tower has to
find the caption, among those of all one-object scenes of the training split. A CLIP that was trained on clear
pictures alone says "cat" to a blur with the right details. One that was trained on blurs says what they may become,
and its gradient shows how (Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis": a classifier
that guides is trained on what it will see).

There are two towers, which are trained apart. The first continues from the pocket CLIP's own. The second has another
architecture and starts from random weights, at first with clear pictures. A picture that exploits a weakness of one
tower does not impress the other.

The text tower is the pocket CLIP's own and does not change. So all these CLIPs give a text the same features.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import clip, gates, runtime, world
from mmlesson import prior as priors
from mmlesson import vqgan as vqgans
from mmlesson.models.pocket_forms import FORMS, IMAGE_SIZE
from mmlesson.models.towers import GUIDE_WEIGHTS, SECOND_TOWER, Towers, guide_towers
from mmlesson.pixels import to_pixels
from mmlesson.train import run
from mmlesson.train.checkpoint import half_precision
from mmlesson.train.clip import augment, normalised
from mmlesson.train.data import ENDLESS, pixels_and_captions, scene_batches


@dataclass(frozen=True)
class Recipe(run.Recipe):
    """The recipe of the pocket guide."""

    batch_size: int = 48
    learning_rate: float = 6e-4
    warmup: float = 0.05
    weight_decay: float = 0.05
    smallest_object: float = 0.9  # share of the side that the object fills at least
    clear_share: float = 0.5  # share of the training with clear pictures, from which the second tower alone learns


class Training(run.Training):
    """Trains the image towers of a guide, a `models.towers.Towers`.

    The loss is the sum of both towers' losses. While pictures are clear it is that of the second tower alone.
    Thermometer: of 200 held-out scenes of one object, restored from a clarity of one quarter, the share that is named
    right among all concepts, by both towers together and by each alone.
    """

    name = clip.GUIDE

    def __init__(self, recipe: Recipe, device: torch.device | str | None = None, prior: priors.Prior | None = None):
        super().__init__(recipe, device)
        self.vqgan = vqgans.load_vqgan(device=self.device)
        self.prior = priors.load_prior(self.vqgan) if prior is None else prior
        self.clip = clip.load_clip(clip.POCKET, self.device)
        towers = copy.deepcopy(guide_towers(self.clip, recipe.seed)).requires_grad_(True).train()
        towers = towers.to(memory_format=torch.channels_last)
        optimizer = run.adamw(towers, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98))
        pocket = FORMS[clip.POCKET]
        self.form = {
            "vision_cfg": pocket["vision_cfg"],
            "embed_dim": pocket["embed_dim"],
            "second": SECOND_TOWER,
        }
        self.parts = {"model": towers, "optimizer": optimizer}

    def begin(self, first_step: int, state: Path | None) -> None:
        captions = one_object_captions()
        self.numbers = {caption: number for number, caption in enumerate(captions)}
        self.text_features = self.clip.encode_texts(captions).to(self.device)  # [captions, dim]
        self.batches = scene_batches(
            self.recipe,
            first_step,
            pixels_and_captions,
            self.vqgan.config.image_size,
            objects=1,
            curriculum=(ENDLESS, ENDLESS),  # its first stage alone: canonical captions
            smallest=self.recipe.smallest_object,
        )

    def take_step(self, step: int, progress: float) -> tuple[float, dict[str, float]]:
        pixels, captions = next(self.batches)
        pixels = pixels.to(self.device).float() / 255
        generator = runtime.generator((self.recipe.seed << 32) + step)
        if progress < self.recipe.clear_share:
            towers = self.model.towers[1:]
        else:
            towers = self.model.towers
            clarity = priors.schedule(torch.rand(len(pixels), generator=generator)).to(self.device)
            pixels = half_finished(pixels, self.vqgan, self.prior, clarity, generator)
        target = torch.tensor([self.numbers[caption] for caption in captions], device=self.device)
        pixels = augment(_small(pixels), generator)
        scale = self.clip.logit_scale
        loss = sum(F.cross_entropy(scale * _features(tower, pixels) @ self.text_features.T, target) for tower in towers)
        return run.descend(loss, self.optimizer, towers.parameters()), {}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        scenes = world.sample(200, "heldout", seed=1, objects=1)
        names = [concept.name for concept in world.concepts()]
        texts = self.clip.encode_texts([f"a picture of {concept}" for concept in world.concepts()]).to(self.device)
        pixels = to_pixels([scene.render(self.vqgan.config.image_size) for scene in scenes]).to(self.device)
        generator = runtime.generator(0)
        seen = []
        for part in pixels.split(50):
            clarity = torch.full((len(part),), 0.25, device=self.device)
            seen.append(_small(half_finished(part, self.vqgan, self.prior, clarity, generator)))

        def share_named_right(tower: nn.Module) -> float:
            tower.eval()
            found = [names[number] for part in seen for number in (_features(tower, part) @ texts.T).argmax(1).tolist()]
            tower.train()
            return sum(name == scene.concepts[0] for name, scene in zip(found, scenes, strict=True)) / len(scenes)

        first, second = self.model.towers
        return {
            "top1": share_named_right(self.model),
            "top1_first_tower": share_named_right(first),
            "top1_second_tower": share_named_right(second),
        }

    def save(self, folder: Path) -> None:
        save_guide(self.model, folder)


def one_object_captions() -> list[str]:
    """The canonical captions, all different, of the one-object scenes of the training split."""
    pairs = itertools.product(world.concepts(), world.BACKGROUNDS)
    scenes = (world.scene(concept.name, background=colour) for concept, colour in pairs)
    return list(dict.fromkeys(scene.caption for scene in scenes if not scene.held_out))


@torch.no_grad()
def half_finished(
    pixels: Tensor, vqgan: vqgans.VQGAN, prior: priors.Prior, clarity: Tensor, generator: torch.Generator
) -> Tensor:
    """What the prior restores of pictures that were blended with random codes: `[n, 3, side, side]` in 0…1.

    pixels    `[n, 3, side, side]` in 0…1
    clarity   `[n]`, the share of each picture's own latents in the blend, 0…1
    """
    with runtime.autocast(pixels.device):
        found = vqgan.quantise(vqgan.encode_pixels(pixels.contiguous(memory_format=torch.channels_last)))
        random = prior.random_latents(len(pixels), found.codes.shape[1], generator)  # [n, dim, h, w]
        return vqgan.decode_latents(prior.restore(priors.blend(found.latents, random, clarity), clarity))


def _small(pixels: Tensor) -> Tensor:
    """Pixels [n, 3, side, side] at the size of the towers."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def _features(tower: nn.Module, pixels: Tensor) -> Tensor:
    """Unit features [n, dim] of pixels [n, 3, 64, 64] in 0…1."""
    with runtime.autocast(pixels.device):
        features = tower(normalised(pixels).contiguous(memory_format=torch.channels_last))
    return F.normalize(features.float(), dim=-1)


def save_guide(towers: Towers, folder: Path) -> None:
    """Writes the image towers as float16 safetensors, as `load_guide` reads them."""
    from safetensors.torch import save_file

    tensors = half_precision(towers)
    path = folder / GUIDE_WEIGHTS
    gates.write_atomically(path, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
