"""The recipe of the pocket DALL-E: `mmlesson train dalle --minutes 154`.

Scenes of the training split are rendered, and encoded by the pocket VQGAN, once. Each time a scene comes up it gets
another caption: one of its wordings. Caption and codes are one stream, and the transformer has to predict each token
of it from those before. One caption in ten is empty, so that the network also learns what pictures look like when
nobody asks for anything. Guidance needs both predictions.

The objects stand in the middle, on whole codes, with one size alone and another size in pairs
(`world.middle`). An object that moves by one pixel has entirely different codes. With few places there is less
to learn, and hours on two cores are enough.

Many rows of the codebook look the same, and chance decides which of them is the nearest: a plain blue background is
sometimes one code, sometimes another. So the target is not one code but a share for each code, by its distance (*soft
labels*). The codes that the network reads are drawn from these shares too, as they will be when it draws (Lee et al.
2022, "Autoregressive Image Generation using Residual Quantization").

A few rows of a picture say much about the rest of it, and then the caption teaches little. So in half of the streams
some codes are blanked out, a few or nearly all, and the network needs the words (Bowman et al. 2016, "Generating
Sentences from a Continuous Space", word dropout).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from mmlesson import dalle as dalles
from mmlesson import gates, runtime, world
from mmlesson import vqgan as vqgans
from mmlesson.models.folders import save_folder
from mmlesson.pixels import to_pixels
from mmlesson.train import run
from mmlesson.train.clip import caption_parts
from mmlesson.train.data import ignore_interrupts
from mmlesson.train.muon import Muon
from mmlesson.world.middle import SQUARES, scenes_in_the_middle


@dataclass(frozen=True)
class Recipe(run.Recipe):
    """The recipe of the pocket DALL-E."""

    batch_size: int = 24
    learning_rate: float = 8e-3
    weight_decay: float = 0.05
    n_scenes: int = 24_000  # of the training split, of one object or two
    single_object_share: float = 0.75  # of the scenes that come up; alone, an object fills four times as many codes
    soft_label_temperature: float = 1.0  # above 0, in squared distances of the codebook
    blanked_stream_share: float = 0.5  # streams in which codes are blanked out; in each, a random share of the codes
    canonical_share: float = 0.5  # of captions; the others have any wording, with other names of things
    empty_caption_share: float = 0.1


class Training(run.Training):
    """Trains a DALL-E on the codes of `vqgan` (None: the pocket VQGAN). `config` are fields of `DALLEConfig`.

    The loss is in nats a token, where the text counts for an eighth. It contains the entropy of the soft labels, which
    cannot be learned. Thermometer: the loss on 200 held-out scenes.
    """

    name = dalles.POCKET
    evaluation = "dalle"

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device | str | None = None,
        vqgan: vqgans.VQGAN | None = None,
        **config,
    ):
        super().__init__(recipe, device)
        self.vqgan = vqgans.load_vqgan(device=self.device) if vqgan is None else vqgan
        dalle = new_model(self.vqgan, recipe.seed, **config).train()
        matrices = [parameter for parameter in dalle.h.parameters() if parameter.ndim == 2]
        inside = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in dalle.parameters() if id(parameter) not in inside]
        self.form = asdict(dalle.config)
        self.parts = {"model": dalle, "optimizer": Muon(matrices, others, recipe.learning_rate, recipe.weight_decay)}

    def begin(self, first_step: int, state: Path | None) -> None:
        recipe = self.recipe
        self.scenes = scenes_in_the_middle(recipe.n_scenes, "train", recipe.seed)
        self.latents = self._stored_latents(state)  # [scenes, dim, h, w]
        is_single = torch.tensor([len(scene.things) == 1 for scene in self.scenes])
        of_single = recipe.single_object_share / is_single.sum().clamp(min=1)
        of_pair = (1 - recipe.single_object_share) / (~is_single).sum().clamp(min=1)
        self.probabilities = torch.where(is_single, of_single, of_pair)  # [scenes]
        self.heldout = scenes_in_the_middle(200, "heldout", 1)
        self.heldout_latents = encoded(self.heldout, self.vqgan)

    def _stored_latents(self, state: Path | None) -> Tensor:
        """The latents of the training scenes, from a file in `state` where an earlier run has written it."""
        recipe = self.recipe
        if state is None:
            return encoded(self.scenes, self.vqgan, recipe.workers)
        squares = "-".join(map(str, SQUARES))
        path = state / f"scenes-{recipe.seed}-{recipe.n_scenes}-{squares}-{self.vqgan.sha256[:12]}.latents"
        stored = gates.read_sealed(path)
        if stored is not None:
            return load(stored)["latents"]
        latents = encoded(self.scenes, self.vqgan, recipe.workers)
        gates.write_atomically(path, gates.sealed(save({"latents": latents})))
        return latents

    def take_step(self, step: int, progress: float) -> tuple[float, dict[str, float]]:
        recipe = self.recipe
        generator = runtime.generator((recipe.seed << 32) + step)
        rng = np.random.default_rng([recipe.seed, step])
        chosen = torch.multinomial(self.probabilities, recipe.batch_size, replacement=True, generator=generator)
        captions = [training_caption(self.scenes[number], recipe, rng) for number in chosen.tolist()]
        loss = self._loss(self.latents[chosen], captions, generator, recipe.blanked_stream_share)
        return run.descend(loss, self.optimizer, self.model.parameters()), {}

    def _loss(self, latents: Tensor, captions: list[str], generator: torch.Generator, blanked_share: float) -> Tensor:
        """The loss of latents [n, dim, h, w] with their captions."""
        dalle = self.model
        # float32, because bfloat16 is too coarse for distances
        latents = latents.to(self.device).float()
        shares = self.vqgan.soft_codes(latents, self.recipe.soft_label_temperature)  # [n, h, w, n_codes]
        stream = dalle.streams(dalle.text_tokens(captions), _draw_codes(shares, generator))  # [n, length]
        blanked = _blanked(len(stream), dalle.config.grid**2, blanked_share, generator)  # [n, grid²]
        stream[:, dalle.config.text_length :].masked_fill_(blanked.to(stream.device), dalle.config.padding)
        with runtime.autocast(self.device):
            return dalle.loss(stream, shares)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        recipe = replace(self.recipe, empty_caption_share=0.0)
        rng, generator = np.random.default_rng(1), runtime.generator(1)
        captions = [training_caption(scene, recipe, rng) for scene in self.heldout]
        self.model.eval()
        losses = []
        for first in range(0, len(captions), 50):
            part = slice(first, first + 50)
            losses.append(self._loss(self.heldout_latents[part], captions[part], generator, blanked_share=0.0))
        self.model.train()
        return {"loss": torch.stack(losses).mean().item()}

    def save(self, folder: Path) -> None:
        save_folder(self.model.eval(), folder)


def new_model(vqgan: vqgans.VQGAN, /, seed: int = 0, **config) -> dalles.DALLE:
    """A fresh DALL-E for the codes of a VQGAN, whose text tokens are the words that training captions consist of."""
    values = {
        "pieces": dalles.pieces_of(caption_parts()),
        "n_codes": len(vqgan.codebook),
        "grid": vqgan.config.grid,
        "vqgan": vqgan.sha256,
    }
    return dalles.new_dalle(dalles.DALLEConfig(**(values | config)), seed).to(vqgan.device)


# ---------------------------------------------------------------------------------------------------
# Scenes and captions


def encoded(some: Sequence[world.Scene], vqgan: vqgans.VQGAN, workers: int = 0) -> Tensor:
    """The latents of scenes before they are quantised: float16 `[n, dim, h, w]`, on the CPU.

    `workers` processes render them.
    """
    render = functools.partial(_rendered, side=vqgan.config.image_size)
    loader = torch.utils.data.DataLoader(
        some, 50, num_workers=workers, collate_fn=render, worker_init_fn=ignore_interrupts
    )
    parts = []
    with torch.no_grad():
        for pixels in runtime.progress(loader, description="scenes", unit="batch"):
            parts.append(vqgan.encode_pixels(pixels.to(vqgan.device)).half().cpu())
    return torch.cat(parts).contiguous()


def _rendered(some: Sequence[world.Scene], side: int) -> Tensor:
    pixels = to_pixels([scene.render(side) for scene in some])  # [n, 3, side, side]
    return pixels.contiguous(memory_format=torch.channels_last)


def training_caption(scene: world.Scene, recipe: Recipe, rng: np.random.Generator) -> str:
    """A caption of a scene: empty, canonical, or in any wording."""
    if rng.random() < recipe.empty_caption_share:
        return ""
    return scene.caption if rng.random() < recipe.canonical_share else scene.phrase(rng)[0]


def _blanked(n: int, n_codes: int, stream_share: float, generator: torch.Generator) -> Tensor:
    """Which codes of which streams are blanked out: bool [n, n_codes]."""
    share = torch.rand(n, 1, generator=generator) * (torch.rand(n, 1, generator=generator) < stream_share)
    return torch.rand(n, n_codes, generator=generator) < share


def _draw_codes(shares: Tensor, generator: torch.Generator) -> Tensor:
    """Draws a code for each place, by its share: [n, h, w, n_codes] → int64 [n, h, w]."""
    # By the inverse of their cumulative sums: on a CPU this is ten times as fast as torch.multinomial.
    sums = shares.flatten(0, 2).cumsum(dim=1)  # [n · h · w, n_codes]
    dice = torch.rand(len(sums), 1, generator=generator).to(sums.device) * sums[:, -1:]
    return torch.searchsorted(sums, dice, right=True).clamp(max=shares.shape[-1] - 1).view(shares.shape[:3])
