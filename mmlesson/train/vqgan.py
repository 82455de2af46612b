"""The recipe of the pocket VQGAN: `mmlesson train vqgan --steps 12000`.

A picture goes through the encoder, the quantiser and the decoder, and should come out the same. Four things say what "the
same" means. *L1*: the mean absolute difference of the pixels. *Perceptual*: the difference of what the first layers of the
pocket CLIP's image tower see, edges and parts, where L1 alone is content with a blur (Zhang et al. 2018, "The Unreasonable
Effectiveness of Deep Features as a Perceptual Metric"). *Commitment*: latents stay near their codes (van den Oord et al.
2017). *Adversarial*: the patch discriminator learns to tell the reconstructions from the scenes, the decoder to deceive it
(hinge loss); it joins late, when there is something worth deceiving with (Esser et al. 2021).

The adversarial term gets a fixed share of the decoder's attention: its gradient is scaled to a tenth of that of the other
terms where the two meet, at the pixels. (Taming Transformers balances the same two at the decoder's last layer.)

The codebook joins after the first few hundred steps, when the latents have found their places, and starts as a sample of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import clip, runtime, vqgan, world
from mmlesson.models.folders import save_folder
from mmlesson.train import run as checkpoint

ENDLESS = 2**40  # more scenes than any training draws


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on. Two runs of one recipe bounded by steps give the same weights on one machine."""

    minutes: float | None = None  # of training, evaluation and checkpoints left out; the schedule follows the clock
    steps: int | None = None  # or this many steps: the schedule follows the count
    batch_size: int = 16
    learning_rate: float = 8e-4  # at its peak
    warmup: float = 0.02  # share of the run in which the rate rises
    weight_decay: float = 0.01
    perceptual: float = 0.5  # weight of the perceptual term; that of L1 is 1
    commitment: float = 0.25
    adversarial: float = 0.1  # share of the gradient at the pixels
    adversarial_from: float = 0.7  # share of the run at which it begins
    discriminator_rate: float = 3e-4
    quantise_from: int = 300  # steps after which the codebook joins
    restart_every: int = 50  # steps
    seed: int = 0
    workers: int = 1  # processes that render scenes
    evaluate_every: float = 300.0  # seconds
    checkpoint_every: float = 120.0  # seconds

    def __post_init__(self):
        checkpoint.check_length(self)


@dataclass(frozen=True)
class Step:
    """One step of training, as it is logged."""

    step: int
    pictures: int  # seen so far
    seconds: float  # trained so far
    l1: float  # 0…1
    perceptual: float
    commitment: float
    discriminator: float  # its hinge loss: 2 where it knows nothing, 0 where it is never wrong
    restarted: int  # codes
    learning_rate: float
    heldout_l1: float | None = None  # of 200 held-out scenes, where it was measured at this step
    heldout_codes: int | None = None  # different codes in them


# ---------------------------------------------------------------------------------------------------
# The terms of the loss


class Perceptual(nn.Module):
    """How differently the stem and the first two stages of a CLIP's ModifiedResNet see two batches of pictures."""

    def __init__(self, tower: clip.CLIP):
        super().__init__()
        visual = tower.model.visual
        self.stages = nn.ModuleList([nn.Sequential(visual.conv1, visual.bn1, visual.act1, visual.conv2, visual.bn2, visual.act2),
                                     nn.Sequential(visual.conv3, visual.bn3, visual.act3, visual.avgpool, visual.layer1),
                                     visual.layer2])  # fmt: skip

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Of pixels [n, 3, side, side] in 0…1: after each stage, each place's channels scaled to length 1."""
        x, seen = 2 * pixels - 1, []
        for stage in self.stages:
            x = stage(x)  # [n, channels, side / 2, side / 2], then a quarter, then an eighth
            seen.append(F.normalize(x.float(), dim=1))
        return seen

    def forward(self, pixels: Tensor, target: Tensor) -> Tensor:
        """A scalar, 0 where they look the same, 2 at most a stage."""
        with torch.no_grad():
            wanted = self.features(target)
        return sum((a - b).square().sum(1).mean() for a, b in zip(self.features(pixels), wanted, strict=True)) / len(
            wanted
        )


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss on logits of real and of reconstructed patches (Lim and Ye 2017, "Geometric GAN")."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


# ---------------------------------------------------------------------------------------------------
# Training


def scene_batches(recipe: Recipe, size: int, first_step: int = 0, **which) -> Iterator[Tensor]:
    """Endless batches of training scenes (`which`: see `world.dataset`) from step `first_step` on: uint8 [batch_size, 3, size, size]."""
    data = world.dataset(ENDLESS, "train", recipe.seed, size, **which)
    return checkpoint.batches(data, recipe, first_step, _pixels)


def _pixels(items) -> Tensor:
    return torch.stack([pixels for pixels, _, _ in items])


def train(
    recipe: Recipe,
    state: Path | None = None,
    device: torch.device | str | None = None,
    config: vqgan.VQGANConfig = vqgan.VQGANConfig(),  # noqa: B008 (frozen)
) -> Iterator[tuple[Step, vqgan.VQGAN]]:
    """Trains a VQGAN; yields every step with the model as it is then.

    state: a folder for checkpoints and `log.jsonl`. A checkpoint of the same recipe found there is resumed;
    leaving the generator (Ctrl-C, close) writes one. The last step yielded is the end of the schedule.
    """
    device = runtime.device(device)
    model, parts = _parts(recipe, config, device)
    optimizer, judging = parts["optimizer"], parts["judging"]
    perceptual = Perceptual(clip.load_clip(clip.POCKET, device)).eval().requires_grad_(False)

    def start(first_step: int):
        batches = scene_batches(recipe, config.image_size, first_step)

        def learn(step: int, progress: float) -> dict:
            pixels = (next(batches).to(device).float() / 255).contiguous(memory_format=torch.channels_last)

            with runtime.autocast(device):
                latents = model.encode_pixels(pixels)
                quantised, restarted = latents, 0
                commitment = latents.new_zeros(())
                if step >= recipe.quantise_from:
                    if (step - recipe.quantise_from) % recipe.restart_every == 0:
                        if step == recipe.quantise_from:
                            model.quantiser.counts.zero_()  # all of them are dead: the codebook starts as a sample of latents
                        restarted = model.quantiser.restart(latents, runtime.generator((recipe.seed << 32) + step))
                    found = model.quantise(latents)
                    quantised, commitment = found.latents, found.commitment
                made = model.decoder(quantised).float()  # [n, 3, side, side]

                # The losses are taken at the pixels, so that their gradients can be weighed against each other there.
                shown = made.detach().requires_grad_()
                l1, seen = F.l1_loss(shown, pixels), perceptual(shown, pixels)
                (gradient,) = torch.autograd.grad(l1 + recipe.perceptual * seen, shown)
                told = 2.0
                if progress >= recipe.adversarial_from:
                    (deceive,) = torch.autograd.grad(-model.discriminator(shown).float().mean(), shown)
                    gradient += deceive * (recipe.adversarial * gradient.norm() / (deceive.norm() + 1e-12))
                    told = _teach(model.discriminator, judging, pixels, made.detach())
            loss = recipe.commitment * commitment + (made * gradient).sum()  # as if the gradient came from a loss
            checkpoint.descend(loss, optimizer, _painting(model))
            values = {
                "l1": l1.item(),
                "perceptual": seen.item(),
                "commitment": commitment.item(),
                "discriminator": told,
            }
            return values | {"restarted": restarted, "pictures": (step + 1) * recipe.batch_size}

        return learn

    yield from checkpoint.run(recipe, state, asdict(config), parts, start, lambda: _quick_evaluation(model), Step)


def _painting(model: vqgan.VQGAN) -> list[nn.Parameter]:
    return [*model.encoder.parameters(), *model.decoder.parameters()]


def _parts(recipe: Recipe, config: vqgan.VQGANConfig, device: torch.device):
    """A fresh model, and what a checkpoint of it holds."""
    model = vqgan.new_vqgan(config, recipe.seed).to(device).to(memory_format=torch.channels_last).train()
    painting = nn.ModuleList([model.encoder, model.decoder])
    optimizer = checkpoint.adamw(painting, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98))
    judging = checkpoint.adamw(model.discriminator, recipe.discriminator_rate, recipe.weight_decay, betas=(0.5, 0.98))
    return model, {"model": model, "optimizer": optimizer, "judging": judging}


def _teach(discriminator: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor) -> float:
    """One step of the discriminator; returns its loss."""
    logits = discriminator(torch.cat([real, fake])).float()  # [2 n, h, w]
    loss = hinge(*logits.chunk(2))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def _quick_evaluation(model: vqgan.VQGAN) -> dict:
    """A thermometer on 200 held-out scenes, not the evaluation."""
    from mmlesson.pixels import to_pixels

    pixels = to_pixels([scene.render(model.config.image_size) for scene in world.sample(200, "heldout", seed=1)]).to(
        model.device
    )
    model.eval()
    codes, errors = [], []
    with runtime.autocast(model.device):
        for part in pixels.split(25):
            found = model.quantise(model.encode_pixels(part))
            codes.append(found.codes)
            errors.append((model.decode_latents(found.latents) - part).abs().mean())
    model.train()
    return {"heldout_l1": torch.stack(errors).mean().item(), "heldout_codes": len(torch.cat(codes).unique())}


def main(arguments) -> int:
    """`mmlesson train vqgan`: trains, prints a line now and then, saves the model at the end."""
    recipe, state = checkpoint.asked(arguments, Recipe, vqgan.POCKET)

    def sentence(step: Step) -> str:
        found = (
            ""
            if step.heldout_l1 is None
            else f"  200 held-out scenes: L1 {step.heldout_l1:.4f}, {step.heldout_codes} codes"
        )
        return (
            f"{step.seconds / 60:6.1f} min  step {step.step:6d}  {step.pictures / step.seconds:4.0f} pictures/s  L1 {step.l1:.4f}  "
            f"perceptual {step.perceptual:.3f}  discriminator {step.discriminator:.2f}{found}"
        )

    model = checkpoint.told(
        train(recipe, state, arguments.device), state, sentence, lambda step: step.heldout_l1 is not None
    )
    if model is None:  # the schedule of the checkpoint had already ended
        model, parts = _parts(recipe, vqgan.VQGANConfig(), runtime.device(arguments.device))
        checkpoint.load(state, recipe, asdict(vqgan.VQGANConfig()), parts)
    folder = save_folder(model.eval(), Path(arguments.out or f"build/{vqgan.POCKET}"))
    print(f"The model is in {folder}; `mmlesson eval vqgan --model local-dir:{folder}` measures it.")
    return 0
