"""The recipe of the pocket DALL-E: `mmlesson train dalle --minutes 150`.

A scene of the training split is drawn and said in one of its wordings; the pocket VQGAN makes its picture 144 codes; caption and codes are one
stream, and the transformer has to say every token of it from those before. One caption in ten is left empty, so that the network also learns
what pictures look like when nobody asks for anything: guidance needs both answers.

The objects of the scenes stand in the middle, on whole codes, at one size alone and another in pairs (`world.in_the_middle`). An object that moves by a pixel
is other codes altogether: where each has few places there is less to learn, and hours on two cores suffice.

The codebook has many rows for what looks the same, and which of them is the nearest is settled by chance: a plain blue ground is a dozen different codes.
So the answer is never one code but a share for each, by its distance (*soft labels*), and the stream that the network reads is drawn from these shares, as it
will be when the network draws (Lee et al. 2022, "Autoregressive Image Generation using Residual Quantization").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmlesson import runtime, vqgan, world
from mmlesson import dalle as dalles
from mmlesson.folders import save_folder
from mmlesson.train import checkpoint
from mmlesson.train.clip import caption_parts
from mmlesson.train.muon import Muon

ENDLESS = 2**40  # more scenes than any training draws


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on. Two runs of one recipe bounded by steps give the same weights on one machine."""

    minutes: float | None = None  # of training, evaluation and checkpoints left out; the schedule follows the clock
    steps: int | None = None  # or this many steps: the schedule follows the count
    batch_size: int = 24
    squares: tuple[int, int] = (10, 5)  # of twelve, that an object fills along a side, alone and in pairs
    softness: float = 1.0  # temperature of the soft labels, in squared distances of the codebook; 0: the nearest code alone
    dropout: float = 0.1  # share of captions left empty
    learning_rate: float = 3e-3  # at its peak
    warmup: float = 0.02  # share of the run in which the rate rises
    weight_decay: float = 0.05
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
    loss: float  # nats a token, text an eighth of it; no network comes below the entropy of the soft labels
    learning_rate: float
    heldout_loss: float | None = None  # of 200 held-out scenes, where it was measured at this step


def scenes(n: int, split: str, seed: int, recipe: Recipe, config: vqgan.Config):
    """Scenes of one object or two, each with a caption in any wording, for the codes of a VQGAN."""
    return world.dataset(n, split, seed, config.image_size, squares=recipe.squares)


def scene_batches(recipe: Recipe, config: vqgan.Config, first_step: int = 0) -> Iterator[tuple[Tensor, list[str]]]:
    """Endless batches of training scenes: uint8 `[batch_size, 3, side, side]`, and their captions."""
    return checkpoint.batches(scenes(ENDLESS, "train", recipe.seed, recipe, config), recipe, first_step, _columns)


def _columns(items) -> tuple[Tensor, list[str]]:
    pixels, captions, _ = zip(*items)
    return torch.stack(pixels), list(captions)


def new_model(model: vqgan.VQGAN, seed: int = 0, **config) -> dalles.DALLE:
    """A fresh DALL-E for the codes of a VQGAN, its text tokens those that training captions are made of."""
    values = {"pieces": dalles.pieces_of(caption_parts()), "n_codes": len(model.codebook), "grid": model.config.grid, "vqgan": model.sha256}
    return dalles.new_dalle(dalles.Config(**(values | config)), seed).to(model.device)


def train(
    recipe: Recipe, state: Path | None = None, device: torch.device | str | None = None, model: vqgan.VQGAN | None = None, **config
) -> Iterator[tuple[Step, dalles.DALLE]]:
    """Trains a DALL-E on the codes of `model` (None: the pocket VQGAN); yields every step with the network as it is then.

    state: a folder for checkpoints and `log.jsonl`. A checkpoint of the same recipe found there is resumed;
    leaving the generator (Ctrl-C, close) writes one. `config` are fields of `dalle.Config`.
    """
    device = runtime.device(device)
    model = model or vqgan.load_vqgan(device=device)
    dalle, parts = _parts(recipe, model, config)

    def start(first_step: int):
        batches = scene_batches(recipe, model.config, first_step)

        def learn(step: int, progress: float) -> dict:
            pixels, captions = next(batches)
            generator = runtime.generator((recipe.seed << 32) + step)
            kept = torch.rand(len(captions), generator=generator) >= recipe.dropout
            captions = [caption if keep else "" for caption, keep in zip(captions, kept)]
            loss = checkpoint.descend(_loss(dalle, model, pixels, captions, recipe.softness, generator), parts["optimizer"], dalle.parameters())
            return {"loss": loss, "pictures": (step + 1) * recipe.batch_size}

        return learn

    def evaluate() -> dict:
        return {"heldout_loss": _quick_evaluation(dalle, model, recipe)}

    yield from checkpoint.run(recipe, state, asdict(dalle.config), parts, start, evaluate, Step)


def _parts(recipe: Recipe, model: vqgan.VQGAN, config: dict):
    """A fresh DALL-E, and what a checkpoint of it holds."""
    dalle = new_model(model, recipe.seed, **config).train()
    matrices = [parameter for parameter in dalle.blocks.parameters() if parameter.ndim == 2]
    inside = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in dalle.parameters() if id(parameter) not in inside]
    return dalle, {"model": dalle, "optimizer": Muon(matrices, others, recipe.learning_rate, recipe.weight_decay)}


def _loss(dalle: dalles.DALLE, model: vqgan.VQGAN, pixels: Tensor, captions: list[str], softness: float, generator: torch.Generator) -> Tensor:
    """The loss of uint8 pixels [n, 3, side, side] with their captions."""
    pixels = pixels.to(dalle.device).float() / 255
    with runtime.autocast(pixels.device):
        with torch.no_grad():
            latents = model.encode_pixels(pixels.contiguous(memory_format=torch.channels_last))  # [n, dim, h, w]
            soft = model.soft_codes(latents, softness) if softness else None  # [n, h, w, n_codes]
            codes = _drawn(soft, generator) if softness else model.quantise(latents).codes  # [n, h, w]
        return dalle.loss(dalle.streams(dalle.text_tokens(captions), codes), soft)


def _drawn(shares: Tensor, generator: torch.Generator) -> Tensor:
    """A code for each place, by its share: [n, h, w, n_codes] → int64 [n, h, w]."""
    return torch.multinomial(shares.flatten(0, 2).cpu(), 1, generator=generator).view(shares.shape[:3]).to(shares.device)


@torch.no_grad()
def _quick_evaluation(dalle: dalles.DALLE, model: vqgan.VQGAN, recipe: Recipe) -> float:
    """A thermometer on 200 held-out scenes, not the evaluation."""
    heldout = scenes(200, "heldout", 1, recipe, model.config)
    dalle.eval()
    generator = runtime.generator(1)
    parts = [_columns([heldout[i] for i in range(first, first + 50)]) for first in range(0, len(heldout), 50)]
    losses = [_loss(dalle, model, *part, recipe.softness, generator) for part in parts]
    dalle.train()
    return torch.stack(losses).mean().item()


def main(arguments) -> int:
    """`mmlesson train dalle`: trains, prints a line now and then, saves the model at the end."""
    recipe, state = checkpoint.asked(arguments, Recipe, dalles.POCKET)

    def sentence(step: Step) -> str:
        found = "" if step.heldout_loss is None else f"  200 held-out scenes: {step.heldout_loss:.3f}"
        rate = step.pictures / step.seconds
        return f"{step.seconds / 60:6.1f} min  step {step.step:6d}  {rate:4.0f} pictures/s  loss {step.loss:.3f}{found}"

    dalle = checkpoint.told(train(recipe, state, arguments.device), state, sentence, lambda step: step.heldout_loss is not None)
    if dalle is None:  # the schedule of the checkpoint had already ended
        dalle, parts = _parts(recipe, vqgan.load_vqgan(device=arguments.device), {})
        checkpoint.load(state, recipe, asdict(dalle.config), parts)
    folder = save_folder(dalle.eval(), Path(arguments.out or f"build/{dalles.POCKET}"))
    print(f"The DALL-E is in {folder}.")
    return 0
