"""A prior over codes: what grids of codes look like, learned from scenes alone. It has never read a word.

    prior = load_prior(vqgan)
    logits = prior(latents, clarity)       # which code belongs in each place of a half-forgotten grid
    latents = prior.restore(latents, clarity)
    codes = prior.sample(8, seed=0)        # int64 [8, 12, 12]: pictures of nothing in particular

Random codes decode to a patchwork, since hardly any of the 1024^144 grids is a picture. The prior knows which are. Its
training takes the latents of a scene and *blends* them with those of random codes: `clarity` 1 is the scene, 0 the random
codes, between them a picture that shines through noise. From that blend it says, for every place, how likely each of the
codes is. Doing so again and again, from clarity 0 up to 1, turns random codes into a picture; lesson 3 lets CLIP push on the way.

The network is a small U-Net (Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation") on
the grid, its half and its quarter, with one layer of attention. Ho et al. 2020, "Denoising Diffusion Probabilistic Models" and Lipman
et al. 2023, "Flow Matching for Generative Modeling" (learning to undo a blend with noise); Dieleman et al. 2022, "Continuous
diffusion for categorical data" (the answer is a distribution over codes, its mean a latent). Van den Oord et al. 2017 (VQ-VAE) called
a model of the grid a prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import runtime
from mmlesson.gates import AssetError
from mmlesson.models.folders import find_folder, load_folder
from mmlesson.vqgan import VQGAN

POCKET = "pocket-prior"


@dataclass(frozen=True)
class Config:
    """What a prior is built from. The grid and the codebook are its VQGAN's."""

    n_codes: int = 1024
    dim: int = 16  # numbers in a code's vector
    widths: tuple[int, int, int] = (128, 192, 384)  # channels on the grid, its half and its quarter
    blocks: tuple[int, int, int] = (
        2,
        3,
        2,
    )  # residual blocks: on the grid before and after, on the half, on the quarter
    heads: int = 4  # of the attention in the middle


class Block(nn.Module):
    """A residual block that is told the clarity: a gain and an offset for each channel (Perez et al. 2018, "FiLM")."""

    def __init__(self, before: int, width: int, told: int):
        super().__init__()
        self.skip = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
        self.norm1, self.conv1 = nn.GroupNorm(16, before), nn.Conv2d(before, width, 3, padding=1)
        self.film = nn.Linear(told, 2 * width)
        self.norm2, self.conv2 = nn.GroupNorm(16, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))  # [n, width, h, w]
        gain, offset = self.film(told)[:, :, None, None].chunk(2, dim=1)  # [n, width, 1, 1] each
        return self.skip(x) + self.conv2(F.silu(self.norm2(y) * (1 + gain) + offset))


class Attention(nn.Module):
    """Every place of the half grid looks at every other: what is left of the picture has to go with what is right."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(16, width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, width, h, w = x.shape
        qkv = (
            self.qkv(self.norm(x)).view(n, 3, self.heads, width // self.heads, h * w).transpose(-1, -2)
        )  # [n, 3, heads, hw, c]
        q, k, v = qkv.unbind(1)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)  # [n, heads, hw, hw]
        return x + self.out((weights @ v).transpose(-1, -2).reshape(n, width, h, w))


class Prior(nn.Module):
    """Blended latents and their clarity → for every place, how likely each code is."""

    def __init__(self, config: Config, name: str = "new"):
        super().__init__()
        self.config, self.name = config, name
        (grid, half, quarter), (outer, inner, inmost), told = config.widths, config.blocks, 2 * config.widths[0]
        self.register_buffer("codebook", torch.zeros(config.n_codes, config.dim))  # its VQGAN's, [n_codes, dim]
        self.clock = nn.Sequential(nn.Linear(32, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.enter = nn.Conv2d(config.dim, grid, 3, padding=1)
        self.before = nn.ModuleList([Block(grid, grid, told) for _ in range(outer)])
        self.down = nn.Conv2d(grid, half, 3, stride=2, padding=1)
        self.middle = nn.ModuleList([Block(half, half, told) for _ in range(inner)])
        self.attention = Attention(half, config.heads)
        self.deeper = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.inmost = nn.ModuleList([Block(quarter, quarter, told) for _ in range(inmost)])
        self.back = nn.Conv2d(quarter, half, 1)
        self.up = nn.Conv2d(half, grid, 1)
        self.after = nn.ModuleList([Block(2 * grid if i == 0 else grid, grid, told) for i in range(outer)])
        self.leave = nn.Sequential(nn.GroupNorm(16, grid), nn.SiLU(), nn.Conv2d(grid, config.n_codes, 1))

    def __repr__(self) -> str:
        return f"Prior({self.name!r}: {sum(p.numel() for p in self.parameters()) / 1e6:.1f} M weights, {self.config.n_codes:,} codes)"

    def forward(self, latents: Tensor, clarity: Tensor) -> Tensor:
        """Logits float32 `[n, n_codes, h, w]` of blends `[n, dim, h, w]` of clarity `[n]` in 0…1; h and w are multiples of 4. Keeps gradients."""
        told = self.clock(_waves(clarity))  # [n, told]
        x = start = self._run(self.before, self.enter(self._scaled(latents, clarity)), told)  # [n, grid, h, w]
        x = self.down(x)  # [n, half, h / 2, w / 2]
        x = self._run(self.middle[:1], x, told)
        x = self.attention(x)
        whole = self._run(
            self.inmost, self.deeper(x), told
        )  # [n, quarter, h / 4, w / 4]: each place sees all of the picture
        x = self._run(self.middle[1:], x + F.interpolate(self.back(whole), scale_factor=2), told)
        x = F.interpolate(self.up(x), scale_factor=2)  # [n, grid, h, w]
        x = self._run(self.after, torch.cat([x, start], dim=1), told)
        return self.leave(x).float()

    @staticmethod
    def _run(blocks, x: Tensor, told: Tensor) -> Tensor:
        for block in blocks:
            x = block(x, told)
        return x

    def _scaled(self, latents: Tensor, clarity: Tensor) -> Tensor:
        """Blends of any clarity brought to about the same spread."""
        c = clarity[:, None, None, None]
        spread = self.codebook.std() * (c.square() + (1 - c).square()).sqrt()
        return (latents - self.codebook.mean(0)[:, None, None]) / spread

    def restore(self, latents: Tensor, clarity: Tensor | float) -> Tensor:
        """What the picture was, as far as that can be seen: blends `[n, dim, h, w]` → the mean of the likely codes, same shape.

        Keeps gradients. `clarity` is one number for all, or `[n]`.
        """
        clarity = torch.as_tensor(clarity, dtype=torch.float32, device=latents.device).expand(len(latents))
        return torch.einsum("nkhw,kd->ndhw", self(latents, clarity).softmax(dim=1), self.codebook)

    def random_latents(self, n: int, grid: int, generator: torch.Generator) -> Tensor:
        """Latents of random codes, all equally likely: float32 `[n, dim, grid, grid]`. Clarity 0."""
        codes = torch.randint(len(self.codebook), (n, grid, grid), generator=generator)  # [n, grid, grid]
        return F.embedding(codes.to(self.codebook.device), self.codebook).permute(0, 3, 1, 2)

    @torch.no_grad()
    def sample(self, n: int, seed: int, steps: int = 30, grid: int = 12) -> Tensor:
        """Codes of `n` pictures that nobody asked for anything: int64 `[n, grid, grid]`, from random codes in `steps` steps."""
        generator = runtime.generator(seed)
        latents = self.random_latents(n, grid, generator)
        for step in range(steps):
            clarity = schedule(step / steps)
            logits = self(latents, torch.full((n,), clarity, device=latents.device))  # [n, n_codes, h, w]
            drawn = (logits + gumbel(logits.shape, generator).to(logits.device)).argmax(
                1
            )  # [n, h, w]: a draw for each place
            drawn = F.embedding(drawn, self.codebook).permute(0, 3, 1, 2)
            latents = blend(drawn, self.random_latents(n, grid, generator), schedule((step + 1) / steps))
        return self(latents, torch.ones(n, device=latents.device)).argmax(1).cpu()


def blend(latents: Tensor, random: Tensor, clarity: Tensor | float) -> Tensor:
    """clarity · latents + (1 - clarity) · random; all `[n, dim, h, w]`, `clarity` a number or `[n]`."""
    clarity = torch.as_tensor(clarity, dtype=latents.dtype, device=latents.device).view(-1, 1, 1, 1)
    return clarity * latents + (1 - clarity) * random


def schedule(progress):
    """The clarity after a share of the way, a number or a tensor in 0…1: slow at first, where a picture is decided; what follows is detail."""
    return progress**2


def gumbel(shape, generator: torch.Generator) -> Tensor:
    """Gumbel noise: the argmax of logits plus it is a draw from their softmax."""
    return -torch.empty(shape).exponential_(generator=generator).log()


def _waves(clarity: Tensor) -> Tensor:
    """Sines and cosines of a clarity, [n] → [n, 32]: small differences become visible."""
    angles = clarity[:, None].float() * torch.logspace(0, 2, 16, device=clarity.device)  # [n, 16]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# ---------------------------------------------------------------------------------------------------
# Folders


def new_prior(vqgan: VQGAN, config: Config | None = None, seed: int = 0) -> Prior:
    """A fresh, untrained prior over the codes of a VQGAN; its weights depend on the seed alone."""
    config = config or Config(*vqgan.codebook.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = Prior(config)
    prior.codebook.copy_(vqgan.codebook)
    return prior.to(vqgan.device)


def load_prior(vqgan: VQGAN, name: str | None = None) -> Prior:
    """The prior over the codes of a VQGAN: None or "pocket-prior" is the pocket VQGAN's, "local-dir:path" a folder of `save_folder`.

    Frozen, in `eval` mode, float32, on the VQGAN's device. Raises AssetError where files are missing or damaged, or where
    the prior belongs to another VQGAN, ValueError for another name.
    """
    name = POCKET if name is None else name
    prior = load_folder(find_folder(name, POCKET, "prior"), "prior", Prior, Config, name)
    if prior.codebook.shape != vqgan.codebook.shape or not torch.allclose(
        prior.codebook, vqgan.codebook.cpu(), atol=1e-3
    ):
        raise AssetError(
            f"{name} was trained on the codes of another VQGAN than {vqgan.name}: codes of one say nothing to the other."
        )
    return prior.to(vqgan.device, memory_format=torch.channels_last)  # the same numbers, sooner
