"""The recipe of the pocket VQGAN: `mmlesson train vqgan --steps 12000`.

A picture goes through the encoder, the quantiser and the decoder, and should come out unchanged. Four terms of the loss
say what "unchanged" means:

L1            the mean absolute difference of the pixels
perceptual    the difference of what the first layers of the pocket CLIP's image tower see: edges and parts. L1 alone
              accepts blurred pictures (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a
              Perceptual Metric")
commitment    the distance of the latents from their codes (van den Oord et al. 2017)
adversarial   the patch discriminator learns to tell reconstructions from scenes, and the decoder learns to deceive it,
              with the hinge loss. It joins late, when the pictures are good enough (Esser et al. 2021)

The adversarial gradient is scaled to a tenth of the length of the gradient of L1 and perceptual term, at the pixels.
(Taming Transformers balances the two at the last layer of the decoder.)

The codebook joins after a few hundred steps, when the latents have settled. It starts as a sample of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import clip, runtime, vqgan, world
from mmlesson.models.folders import save_folder
from mmlesson.pixels import to_pixels
from mmlesson.train import run
from mmlesson.train.data import pixels_only, scene_batches


@dataclass(frozen=True)
class Recipe(run.Recipe):
    """The recipe of the pocket VQGAN."""

    learning_rate: float = 8e-4
    perceptual_weight: float = 0.5  # the weight of L1 is 1
    commitment_weight: float = 0.25
    adversarial_share: float = 0.1  # length of the adversarial gradient at the pixels, as a share of the others'
    adversarial_start: float = 0.7  # share of the training after which it joins
    discriminator_learning_rate: float = 3e-4
    quantise_from_step: int = 300
    restart_codes_every: int = 50  # steps


class Training(run.Training):
    """Trains a VQGAN.

    Details for the log: the terms of the loss; `discriminator`, its hinge loss (2 where it knows nothing, 0 where it is
    never wrong); `restarted`, how many codes were. Thermometer, on 200 held-out scenes: L1, and the number of different
    codes.
    """

    name = vqgan.POCKET
    evaluation = "vqgan"

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device | str | None = None,
        config: vqgan.VQGANConfig | None = None,
    ):
        super().__init__(recipe, device)
        config = vqgan.VQGANConfig() if config is None else config
        self.form = asdict(config)
        model = vqgan.new_vqgan(config, recipe.seed).to(self.device).to(memory_format=torch.channels_last).train()
        self.generator = nn.ModuleList([model.encoder, model.decoder])
        optimizer = run.adamw(self.generator, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98))
        self.discriminator_optimizer = run.adamw(
            model.discriminator, recipe.discriminator_learning_rate, recipe.weight_decay, betas=(0.5, 0.98)
        )
        self.parts = {
            "model": model,
            "optimizer": optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def begin(self, first_step: int, state: Path | None) -> None:
        self.batches = scene_batches(self.recipe, first_step, pixels_only, self.model.config.image_size)
        self.perceptual = Perceptual(clip.load_clip(clip.POCKET, self.device)).eval().requires_grad_(False)

    def take_step(self, step: int, progress: float) -> tuple[float, dict[str, float]]:
        recipe, model = self.recipe, self.model
        pixels = (next(self.batches).to(self.device).float() / 255).contiguous(memory_format=torch.channels_last)

        with runtime.autocast(self.device):
            latents = model.encode_pixels(pixels)
            quantised, commitment, restarted = self._quantise(latents, step)
            made = model.decoder(quantised).float()  # [n, 3, side, side]

            # The losses are computed at the pixels, where the lengths of their gradients can be compared.
            shown = made.detach().requires_grad_()
            l1 = F.l1_loss(shown, pixels)
            perceptual = self.perceptual(shown, pixels)
            at_pixels = l1 + recipe.perceptual_weight * perceptual
            (gradient,) = torch.autograd.grad(at_pixels, shown)
            hinge = 2.0
            if progress >= recipe.adversarial_start:
                (deceiving,) = torch.autograd.grad(-model.discriminator(shown).float().mean(), shown)
                gradient += deceiving * (recipe.adversarial_share * gradient.norm() / (deceiving.norm() + 1e-12))
                hinge = self._train_discriminator(pixels, made.detach())
        weighted_commitment = recipe.commitment_weight * commitment
        # (made * gradient) has this gradient, as if it came from a loss
        run.descend(weighted_commitment + (made * gradient).sum(), self.optimizer, self.generator.parameters())
        details = {
            "l1": l1.item(),
            "perceptual": perceptual.item(),
            "commitment": commitment.item(),
            "discriminator": hinge,
            "restarted": restarted,
        }
        return (at_pixels + weighted_commitment).item(), details

    def _quantise(self, latents: Tensor, step: int) -> tuple[Tensor, Tensor, int]:
        """Latents [n, dim, h, w] → quantised ones, the commitment loss, and how many codes were restarted."""
        recipe, quantiser = self.recipe, self.model.quantiser
        if step < recipe.quantise_from_step:
            return latents, latents.new_zeros(()), 0
        restarted = 0
        if (step - recipe.quantise_from_step) % recipe.restart_codes_every == 0:
            if step == recipe.quantise_from_step:
                quantiser.counts.zero_()  # no code is in use yet: all of them become a sample of the latents
            restarted = quantiser.restart(latents, runtime.generator((recipe.seed << 32) + step))
        found = self.model.quantise(latents)
        return found.latents, found.commitment, restarted

    def _train_discriminator(self, real: Tensor, fake: Tensor) -> float:
        """One step of the discriminator on scenes and reconstructions, both [n, 3, side, side]; returns its loss."""
        logits = self.model.discriminator(torch.cat([real, fake])).float()  # [2 n, h, w]
        loss = hinge_loss(*logits.chunk(2))
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        model = self.model
        scenes = world.sample(200, "heldout", seed=1)
        pixels = to_pixels([scene.render(model.config.image_size) for scene in scenes]).to(self.device)
        model.eval()
        codes, errors = [], []
        with runtime.autocast(self.device):
            for part in pixels.split(25):
                found = model.quantise(model.encode_pixels(part))
                codes.append(found.codes)
                errors.append((model.decode_latents(found.latents) - part).abs().mean())
        model.train()
        return {"l1": torch.stack(errors).mean().item(), "codes": len(torch.cat(codes).unique())}

    def save(self, folder: Path) -> None:
        save_folder(self.model.eval(), folder)


# ---------------------------------------------------------------------------------------------------
# The terms of the loss


class Perceptual(nn.Module):
    """How differently the stem and the first two stages of a CLIP's ModifiedResNet see two batches of pictures."""

    def __init__(self, pocket: clip.CLIP):
        super().__init__()
        visual = pocket.model.visual
        stem = nn.Sequential(visual.conv1, visual.bn1, visual.act1, visual.conv2, visual.bn2, visual.act2)
        first = nn.Sequential(visual.conv3, visual.bn3, visual.act3, visual.avgpool, visual.layer1)
        self.stages = nn.ModuleList([stem, first, visual.layer2])

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Of pixels [n, 3, side, side] in 0…1, after each stage: the channels of each place, scaled to length 1."""
        x = 2 * pixels - 1
        features = []
        for stage in self.stages:
            x = stage(x)  # [n, channels, side / 2, side / 2], then side / 4, then side / 8
            features.append(F.normalize(x.float(), dim=1))
        return features

    def forward(self, pixels: Tensor, target: Tensor) -> Tensor:
        """A scalar: 0 where both look the same."""
        with torch.no_grad():
            wanted = self.features(target)
        seen = self.features(pixels)
        return sum((a - b).square().sum(1).mean() for a, b in zip(seen, wanted, strict=True)) / len(wanted)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss on logits of real and of reconstructed patches (Lim and Ye 2017, "Geometric GAN")."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
