"""The recipe of the pocket DALL-E: `mmlesson train dalle --minutes 154`.

Scenes of the training split are drawn and shown to the pocket VQGAN once. Each time that one of them is met it is said anew, in one of its wordings; caption
and codes are one stream, and the transformer has to say every token of it from those before. One caption in ten is left empty, so that the network also learns
what pictures look like when nobody asks for anything: guidance needs both answers.

The objects of the scenes stand in the middle, on whole codes, at one size alone and another in pairs (`world.in_the_middle`). An object that moves by a pixel
is other codes altogether: where each has few places there is less to learn, and hours on two cores suffice.

The codebook has many rows for what looks the same, and which of them is the nearest is settled by chance: a plain blue ground is now this code, now that.
So the answer is never one code but a share for each, by its distance (*soft labels*), and the stream that the network reads is drawn from these shares, as it
will be when the network draws (Lee et al. 2022, "Autoregressive Image Generation using Residual Quantization").

A few rows of a picture say well enough how it goes on, and then the caption teaches little. So in half of the streams some codes are blanked out, a few
or nearly all, and what comes next has to be known from the words (Bowman et al. 2016, "Generating Sentences from a Continuous Space", word dropout).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmlesson import dalle as dalles
from mmlesson import gates, runtime, world
from mmlesson import vqgan as vqgans
from mmlesson.models.folders import save_folder
from mmlesson.pixels import to_pixels
from mmlesson.train import run as checkpoint
from mmlesson.train.clip import caption_parts
from mmlesson.train.muon import Muon


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on. Two runs of one recipe bounded by steps give the same weights on one machine."""

    minutes: float | None = None  # of training, evaluation and checkpoints left out; the schedule follows the clock
    steps: int | None = None  # or this many steps: the schedule follows the count
    batch_size: int = 24
    scenes: int = 24_000  # drawn from the training split, of one object or two
    alone: float = 0.75  # share of the scenes met that show one object: it fills four times as many codes as one of two
    squares: tuple[int, int] = (10, 5)  # of twelve, that an object fills along a side, alone and in pairs
    softness: float = 1.0  # temperature of the soft labels, above 0, in squared distances of the codebook
    forgetting: float = (
        0.5  # share of streams in which codes are blanked out; of each such stream a share drawn from 0…1
    )
    canonical: float = (
        0.5  # share of captions in the canonical wording; the others are in any, with other names of things
    )
    dropout: float = 0.1  # share of captions left empty
    learning_rate: float = 8e-3  # at its peak
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
    loss: (
        float  # nats a token, text an eighth of it; the entropy of the soft labels is part of it, and cannot be learned
    )
    learning_rate: float
    heldout_loss: float | None = None  # of 200 held-out scenes, where it was measured at this step


def scenes(n: int, split: str, seed: int, recipe: Recipe) -> list[world.Scene]:
    """Scenes of one object or two, as this recipe has them stand."""
    return [world.in_the_middle(scene, recipe.squares) for scene in world.sample(n, split, seed)]


def encoded(drawn: Sequence[world.Scene], vqgan: vqgans.VQGAN, workers: int = 0) -> Tensor:
    """The latents of scenes, before they are quantised: float16 `[n, dim, h, w]`, on the CPU. `workers` are processes that render."""
    loader = torch.utils.data.DataLoader(
        drawn, 50, num_workers=workers, collate_fn=functools.partial(_rendered, side=vqgan.config.image_size)
    )
    with torch.no_grad():
        parts = [
            vqgan.encode_pixels(pixels.to(vqgan.device)).half().cpu()
            for pixels in runtime.progress(loader, description="scenes", unit="batch")
        ]
    return torch.cat(parts).contiguous()


def _rendered(some: Sequence[world.Scene], side: int) -> Tensor:
    return to_pixels([scene.render(side) for scene in some]).contiguous(
        memory_format=torch.channels_last
    )  # [n, 3, side, side]


def _kept(state: Path | None, recipe: Recipe, drawn: Sequence[world.Scene], vqgan: vqgans.VQGAN) -> Tensor:
    """`encoded`, from a file in `state` where it was written before."""
    if state is None:
        return encoded(drawn, vqgan, recipe.workers)
    path = (
        state
        / f"scenes-{recipe.seed}-{len(drawn)}-{'-'.join(map(str, recipe.squares))}-{vqgan.sha256[:12]}.safetensors"
    )
    if not path.exists():
        latents = encoded(drawn, vqgan, recipe.workers)
        gates.write_atomically(path, lambda where: save_file({"latents": latents}, where))
    return load_file(path)["latents"]


def new_model(vqgan: vqgans.VQGAN, /, seed: int = 0, **config) -> dalles.DALLE:
    """A fresh DALL-E for the codes of a VQGAN, its text tokens those that training captions are made of."""
    values = {
        "pieces": dalles.pieces_of(caption_parts()),
        "n_codes": len(vqgan.codebook),
        "grid": vqgan.config.grid,
        "vqgan": vqgan.sha256,
    }
    return dalles.new_dalle(dalles.DALLEConfig(**(values | config)), seed).to(vqgan.device)


def train(
    recipe: Recipe,
    state: Path | None = None,
    device: torch.device | str | None = None,
    vqgan: vqgans.VQGAN | None = None,
    **config,
) -> Iterator[tuple[Step, dalles.DALLE]]:
    """Trains a DALL-E on the codes of `vqgan` (None: the pocket VQGAN); yields every step with the network as it is then.

    state: a folder for checkpoints, `log.jsonl`, and the latents of the scenes. A checkpoint of the same recipe found there is resumed;
    leaving the generator (Ctrl-C, close) writes one. `config` are fields of `DALLEConfig`.
    """
    device = runtime.device(device)
    vqgan = vqgan or vqgans.load_vqgan(device=device)
    dalle, parts = _parts(recipe, vqgan, config)

    drawn = scenes(recipe.scenes, "train", recipe.seed, recipe)
    latents = _kept(state, recipe, drawn, vqgan)  # [scenes, dim, h, w]
    is_alone = torch.tensor([len(scene.things) == 1 for scene in drawn])
    shares = torch.where(
        is_alone, recipe.alone / is_alone.sum().clamp(min=1), (1 - recipe.alone) / (~is_alone).sum().clamp(min=1)
    )  # [scenes]

    def start(first_step: int):
        def learn(step: int, progress: float) -> dict:
            generator, rng = runtime.generator((recipe.seed << 32) + step), np.random.default_rng([recipe.seed, step])
            places = torch.multinomial(shares, recipe.batch_size, replacement=True, generator=generator)
            captions = [_said(drawn[place], recipe, rng) for place in places.tolist()]
            loss = checkpoint.descend(
                _loss(dalle, vqgan, latents[places], captions, recipe, generator),
                parts["optimizer"],
                dalle.parameters(),
            )
            return {"loss": loss, "pictures": (step + 1) * recipe.batch_size}

        return learn

    heldout = scenes(200, "heldout", 1, recipe)
    of_heldout = encoded(heldout, vqgan)

    def evaluate() -> dict:
        return {"heldout_loss": _quick_evaluation(dalle, vqgan, heldout, of_heldout, recipe)}

    yield from checkpoint.run(recipe, state, asdict(dalle.config), parts, start, evaluate, Step)


def _parts(recipe: Recipe, vqgan: vqgans.VQGAN, config: dict):
    """A fresh DALL-E, and what a checkpoint of it holds."""
    dalle = new_model(vqgan, recipe.seed, **config).train()
    matrices = [parameter for parameter in dalle.h.parameters() if parameter.ndim == 2]
    inside = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in dalle.parameters() if id(parameter) not in inside]
    return dalle, {"model": dalle, "optimizer": Muon(matrices, others, recipe.learning_rate, recipe.weight_decay)}


def _loss(
    dalle: dalles.DALLE,
    vqgan: vqgans.VQGAN,
    latents: Tensor,
    captions: list[str],
    recipe: Recipe,
    generator: torch.Generator,
) -> Tensor:
    """The loss of latents [n, dim, h, w] with their captions."""
    soft = vqgan.soft_codes(
        latents.to(dalle.device).float(), recipe.softness
    )  # [n, h, w, n_codes]; bfloat16 is too coarse for distances
    stream = dalle.streams(dalle.text_tokens(captions), _drawn(soft, generator))  # [n, length]
    gone = _gone(len(stream), dalle.config.grid**2, recipe.forgetting, generator)  # [n, grid²]
    stream[:, dalle.config.text_length :].masked_fill_(gone.to(stream.device), dalle.config.padding)
    with runtime.autocast(dalle.device):
        return dalle.loss(stream, soft)


def _said(scene: world.Scene, recipe: Recipe, rng: np.random.Generator) -> str:
    """A caption of a scene, or none."""
    if rng.random() < recipe.dropout:
        return ""
    return scene.caption if rng.random() < recipe.canonical else scene.phrase(rng)[0]


def _gone(n: int, n_codes: int, forgetting: float, generator: torch.Generator) -> Tensor:
    """Which codes of which streams are blanked out: bool [n, n_codes]."""
    share = torch.rand(n, 1, generator=generator) * (torch.rand(n, 1, generator=generator) < forgetting)
    return torch.rand(n, n_codes, generator=generator) < share


def _drawn(shares: Tensor, generator: torch.Generator) -> Tensor:
    """A code for each place, by its share: [n, h, w, n_codes] → int64 [n, h, w]."""
    sums = shares.flatten(0, 2).cumsum(
        dim=1
    )  # by the inverse of their sums: on a processor ten times as fast as torch.multinomial
    dice = torch.rand(len(sums), 1, generator=generator).to(sums.device) * sums[:, -1:]
    return torch.searchsorted(sums, dice, right=True).clamp(max=shares.shape[-1] - 1).view(shares.shape[:3])


@torch.no_grad()
def _quick_evaluation(
    dalle: dalles.DALLE, vqgan: vqgans.VQGAN, heldout: Sequence[world.Scene], latents: Tensor, recipe: Recipe
) -> float:
    """A thermometer on held-out scenes and their latents, not the evaluation."""
    dalle.eval()
    rng, generator, recipe = (
        np.random.default_rng(1),
        runtime.generator(1),
        replace(recipe, dropout=0.0, forgetting=0.0),
    )
    captions = [_said(scene, recipe, rng) for scene in heldout]
    losses = [
        _loss(dalle, vqgan, latents[i : i + 50], captions[i : i + 50], recipe, generator)
        for i in range(0, len(heldout), 50)
    ]
    dalle.train()
    return torch.stack(losses).mean().item()


def main(arguments) -> int:
    """`mmlesson train dalle`: trains, prints a line now and then, saves the model at the end."""
    recipe, state = checkpoint.asked(arguments, Recipe, dalles.POCKET)

    def sentence(step: Step) -> str:
        found = "" if step.heldout_loss is None else f"  200 held-out scenes: {step.heldout_loss:.3f}"
        rate = step.pictures / step.seconds
        return f"{step.seconds / 60:6.1f} min  step {step.step:6d}  {rate:4.0f} pictures/s  loss {step.loss:.3f}{found}"

    dalle = checkpoint.told(
        train(recipe, state, arguments.device), state, sentence, lambda step: step.heldout_loss is not None
    )
    if dalle is None:  # the schedule of the checkpoint had already ended
        dalle, parts = _parts(recipe, vqgans.load_vqgan(device=arguments.device), {})
        checkpoint.load(state, recipe, asdict(dalle.config), parts)
    folder = save_folder(dalle.eval(), Path(arguments.out or f"build/{dalles.POCKET}"))
    print(f"The DALL-E is in {folder}.")
    return 0
