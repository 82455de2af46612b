"""The recipe of the pocket prior: `mmlesson train prior --steps 5000`.

The pocket VQGAN encodes a scene of the training split that shows one object, large and so in the middle: a narrow world is learned with little, which is
why generators of faces are trained on faces cut out and aligned (Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial
Networks"). Its latents, rows of the codebook, are blended with those of random codes; from the blend the prior has to say which code stood in each place.
The loss is the cross-entropy of the right code.
Clarities are drawn as squares of even numbers in 0…1, so that most blends are murky: above a clarity of one half
the nearest code gives the answer away. No caption takes part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import prior as priors
from mmlesson import runtime, vqgan, world
from mmlesson.models.folders import save_folder
from mmlesson.train import run as checkpoint
from mmlesson.train.vqgan import scene_batches


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on. Two runs of one recipe bounded by steps give the same weights on one machine."""

    minutes: float | None = None  # of training, evaluation and checkpoints left out; the schedule follows the clock
    steps: int | None = None  # or this many steps: the schedule follows the count
    smallest: float = 0.9  # scenes of one object that fills at least so much of the side, and so stands in the middle
    batch_size: int = 8  # scenes
    blends: int = (
        4  # of each, at clarities spread over the range: drawing and encoding a scene costs as much as one of them
    )
    learning_rate: float = 1e-3  # at its peak
    warmup: float = 0.02  # share of the run in which the rate rises
    weight_decay: float = 0.01
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
    loss: float  # nats a code; the logarithm of the number of codes where nothing is known
    learning_rate: float
    heldout_loss: float | None = None  # of 200 held-out scenes, where it was measured at this step


def train(
    recipe: Recipe,
    state: Path | None = None,
    device: torch.device | str | None = None,
    model: vqgan.VQGAN | None = None,
    config: priors.PriorConfig | None = None,
) -> Iterator[tuple[Step, priors.Prior]]:
    """Trains a prior over the codes of `model` (None: the pocket VQGAN); yields every step with the prior as it is then.

    state: a folder for checkpoints and `log.jsonl`. A checkpoint of the same recipe found there is resumed;
    leaving the generator (Ctrl-C, close) writes one. The last step yielded is the end of the schedule.
    """
    device = runtime.device(device)
    model = model or vqgan.load_vqgan(device=device)
    prior, parts = _parts(recipe, model, config)

    def start(first_step: int):
        batches = scene_batches(recipe, model.config.image_size, first_step, objects=1, smallest=recipe.smallest)

        def learn(step: int, progress: float) -> dict:
            pixels = next(batches).to(device).float() / 255
            loss = _loss(prior, model, pixels, recipe.blends, runtime.generator((recipe.seed << 32) + step))
            return {
                "loss": checkpoint.descend(loss, parts["optimizer"], prior.parameters()),
                "pictures": (step + 1) * recipe.batch_size,
            }

        return learn

    def evaluate() -> dict:
        return {"heldout_loss": _quick_evaluation(prior, model, recipe.smallest)}

    yield from checkpoint.run(recipe, state, asdict(prior.config), parts, start, evaluate, Step)


def _parts(recipe: Recipe, model: vqgan.VQGAN, config: priors.PriorConfig | None):
    """A fresh prior, and what a checkpoint of it holds."""
    prior = priors.new_prior(model, config, recipe.seed).to(memory_format=torch.channels_last).train()
    return prior, {
        "model": prior,
        "optimizer": checkpoint.adamw(prior, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98)),
    }


def _loss(prior: priors.Prior, model: vqgan.VQGAN, pixels: Tensor, blends: int, generator: torch.Generator) -> Tensor:
    """Mean cross-entropy of the codes of pixels [n, 3, side, side], each picture blended at `blends` clarities."""
    with runtime.autocast(pixels.device):
        with torch.no_grad():
            codes = model.quantise(
                model.encode_pixels(pixels.contiguous(memory_format=torch.channels_last))
            ).codes  # [n, h, w]
            codes = codes.repeat(blends, 1, 1)  # [blends · n, h, w]
            latents = F.embedding(codes, prior.codebook).permute(0, 3, 1, 2)  # [blends · n, dim, h, w]
            random = prior.random_latents(len(codes), codes.shape[1], generator)
            even = (
                torch.arange(len(codes)) // len(pixels) / blends + torch.rand(len(codes), generator=generator) / blends
            )
            clarity = priors.schedule(even).to(pixels.device)  # [blends · n]
            blended = priors.blend(latents, random, clarity)
        return F.cross_entropy(prior(blended, clarity), codes)


@torch.no_grad()
def _quick_evaluation(prior: priors.Prior, model: vqgan.VQGAN, smallest: float) -> float:
    """A thermometer on 200 held-out scenes, not the evaluation."""
    scenes = world.dataset(200, "heldout", seed=1, size=model.config.image_size, objects=1, smallest=smallest)
    prior.eval()
    losses = []
    for first in range(0, len(scenes), 50):
        pixels = torch.stack([scenes[i][0] for i in range(first, first + 50)]).to(model.device).float() / 255
        losses.append(_loss(prior, model, pixels, 1, runtime.generator(first)))
    prior.train()
    return torch.stack(losses).mean().item()


def main(arguments) -> int:
    """`mmlesson train prior`: trains, prints a line now and then, saves the prior at the end."""
    recipe, state = checkpoint.asked(arguments, Recipe, priors.POCKET)

    def sentence(step: Step) -> str:
        found = "" if step.heldout_loss is None else f"  200 held-out scenes: {step.heldout_loss:.3f}"
        rate = step.pictures / step.seconds
        return f"{step.seconds / 60:6.1f} min  step {step.step:6d}  {rate:4.0f} pictures/s  loss {step.loss:.3f}{found}"

    prior = checkpoint.told(
        train(recipe, state, arguments.device), state, sentence, lambda step: step.heldout_loss is not None
    )
    if prior is None:  # the schedule of the checkpoint had already ended
        prior, parts = _parts(recipe, vqgan.load_vqgan(device=arguments.device), None)
        checkpoint.load(state, recipe, asdict(prior.config), parts)
    folder = save_folder(prior.eval(), Path(arguments.out or f"build/{priors.POCKET}"))
    print(f"The prior is in {folder}.")
    return 0
