"""A prior over codes: it knows which grids of codes look like pictures.

It was trained on pictures alone, without any text.

    prior = load_prior(vqgan)
    logits = prior(latents, clarity)       # which code belongs in each place of a noisy grid
    latents = prior.restore(latents, clarity)
    codes = prior.sample(8, seed=0)        # int64 [8, 12, 12]: random pictures

Random codes decode to a patchwork, because hardly any of the 1024^144 grids is a picture. The prior knows which grids
are. Its training takes the latents of a scene and *blends* them with the latents of random codes. The `clarity` of a
blend is 1 for the scene alone, 0 for the random codes alone, and something between for a picture with noise over it.
From the blend, the prior says for every place how likely each code is. Repeated from clarity 0 up to 1, this turns
random codes into a picture. In lesson 3, CLIP pushes at every step of that way.

The clarity is to this prior what the time `t` is to a diffusion model, so the parts have the names that diffusers uses:
`conv_in`, `time_embedding`, `down`, `mid`, `up`, `norm_out`, `conv_out`.

The network is a small U-Net (Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image
Segmentation"). It works on the grid, on half of the grid's side and on a quarter of it, with one layer of attention. Ho
et al. 2020, "Denoising Diffusion Probabilistic Models" and Lipman et al. 2023, "Flow Matching for Generative Modeling"
(learning to undo a blend with noise); Dieleman et al. 2022, "Continuous diffusion for categorical data" (the answer is
a distribution over codes, its mean a latent). Van den Oord et al. 2017 (VQ-VAE) first called a model of the grid a
prior.
"""

from __future__ import annotations

from collections.abc import Iterable
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
class PriorConfig:
    """The sizes of a prior. The grid and the codebook are those of its VQGAN."""

    n_codes: int = 1024
    dim: int = 16  # numbers in a code's vector
    widths: tuple[int, int, int] = (128, 192, 384)  # channels on the grid, on its half and on its quarter
    # residual blocks: on the grid (as many down as up), on the half (one down, the others up), on the quarter
    blocks: tuple[int, int, int] = (2, 3, 2)
    heads: int = 4  # of the attention

    def __post_init__(self):
        if self.heads < 1 or self.widths[1] % self.heads:
            raise ValueError(f"the channels on the half grid are a multiple of the heads; {self.widths[1]} are not.")


# ---------------------------------------------------------------------------------------------------
# The parts of the U-Net


class ResnetBlock(nn.Module):
    """A residual block that knows the clarity: `t` gives each channel a gain and an offset (FiLM, Perez 2018)."""

    def __init__(self, channels_in: int, channels_out: int, t_dim: int):
        super().__init__()
        same = channels_in == channels_out
        self.norm1 = nn.GroupNorm(16, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(t_dim, 2 * channels_out)
        self.norm2 = nn.GroupNorm(16, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x `[n, channels_in, h, w]`, t `[n, t_dim]` → `[n, channels_out, h, w]`."""
        hidden_states = self.conv1(F.silu(self.norm1(x)))  # [n, channels_out, h, w]
        gain, offset = self.time_emb_proj(t)[:, :, None, None].chunk(2, dim=1)  # [n, channels_out, 1, 1] each
        hidden_states = self.norm2(hidden_states) * (1 + gain) + offset
        hidden_states = self.conv2(F.silu(hidden_states))
        return self.conv_shortcut(x) + hidden_states


class Attention(nn.Module):
    """Every place looks at all places, so that the left of a picture can agree with the right."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(16, width)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.to_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, width, h, w = x.shape
        qkv = self.to_qkv(self.norm(x)).view(n, 3, self.heads, width // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # [n, heads, h · w, width / heads] each
        hidden_states = F.scaled_dot_product_attention(q, k, v)  # [n, heads, h · w, width / heads]
        return x + self.to_out(hidden_states.transpose(-1, -2).reshape(n, width, h, w))


class DownBlock(nn.Module):
    """Residual blocks, then perhaps attention; then a convolution halves the side."""

    def __init__(self, channels_in: int, channels_out: int, n_blocks: int, t_dim: int, heads: int | None = None):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(channels_in, channels_in, t_dim) for _ in range(n_blocks)])
        self.attn = nn.Identity() if heads is None else Attention(channels_in, heads)
        self.downsample = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x `[n, channels_in, h, w]` → the same shape, for the way up, and `[n, channels_out, h / 2, w / 2]`."""
        hidden_states = self.attn(_apply(self.resnets, x, t))
        return hidden_states, self.downsample(hidden_states)


class UpBlock(nn.Module):
    """A doubling of the side; what the way down kept joins in, by a sum or as more channels; then residual blocks."""

    def __init__(self, channels_in: int, channels_out: int, n_blocks: int, t_dim: int, concat: bool):
        super().__init__()
        self.concat = concat
        first = 2 * channels_out if concat else channels_out  # channels that the first block takes
        self.upsample = nn.Conv2d(channels_in, channels_out, 1)
        self.resnets = nn.ModuleList(
            [ResnetBlock(first if i == 0 else channels_out, channels_out, t_dim) for i in range(n_blocks)]
        )

    def forward(self, x: Tensor, kept: Tensor, t: Tensor) -> Tensor:
        """x `[n, channels_in, h, w]`, kept `[n, channels_out, 2 h, 2 w]` → `[n, channels_out, 2 h, 2 w]`."""
        hidden_states = F.interpolate(self.upsample(x), scale_factor=2)  # [n, channels_out, 2 h, 2 w]
        hidden_states = torch.cat([hidden_states, kept], dim=1) if self.concat else kept + hidden_states
        return _apply(self.resnets, hidden_states, t)


def _apply(blocks: Iterable[ResnetBlock], hidden_states: Tensor, t: Tensor) -> Tensor:
    for block in blocks:
        hidden_states = block(hidden_states, t)
    return hidden_states


# ---------------------------------------------------------------------------------------------------
# The prior


class Prior(nn.Module):
    """Blended latents and their clarity → for every place, how likely each code is."""

    def __init__(self, config: PriorConfig, name: str = "new"):
        super().__init__()
        self.config = config
        self.name = name
        grid, half, quarter = config.widths
        on_grid, on_half, on_quarter = config.blocks
        t_dim = 2 * grid
        self.register_buffer("codebook", torch.zeros(config.n_codes, config.dim))  # its VQGAN's, [n_codes, dim]
        self.time_embedding = nn.Sequential(nn.Linear(32, t_dim), nn.SiLU(), nn.Linear(t_dim, t_dim), nn.SiLU())
        self.conv_in = nn.Conv2d(config.dim, grid, 3, padding=1)
        self.down = nn.ModuleList(
            [
                DownBlock(grid, half, on_grid, t_dim),
                DownBlock(half, quarter, 1, t_dim, config.heads),
            ]
        )
        self.mid = nn.ModuleList([ResnetBlock(quarter, quarter, t_dim) for _ in range(on_quarter)])
        self.up = nn.ModuleList(
            [
                UpBlock(quarter, half, on_half - 1, t_dim, concat=False),
                UpBlock(half, grid, on_grid, t_dim, concat=True),
            ]
        )
        self.norm_out = nn.GroupNorm(16, grid)
        self.conv_out = nn.Conv2d(grid, config.n_codes, 1)

    def __repr__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.parameters())
        return f"Prior({self.name!r}: {weights / 1e6:.1f} M weights, {self.config.n_codes:,} codes)"

    def forward(self, latents: Tensor, clarity: Tensor) -> Tensor:
        """Logits float32 `[n, n_codes, h, w]` of blends `[n, dim, h, w]` with clarities `[n]` in 0…1. Keeps gradients.

        h and w are multiples of 4.
        """
        t = self.time_embedding(_waves(clarity))  # [n, 256]
        hidden_states = self.conv_in(self._scaled(latents, clarity))  # [n, 128, h, w]
        on_grid, hidden_states = self.down[0](hidden_states, t)  # [n, 128, h, w], [n, 192, h / 2, w / 2]
        on_half, hidden_states = self.down[1](hidden_states, t)  # [n, 192, h / 2, w / 2], [n, 384, h / 4, w / 4]
        hidden_states = _apply(self.mid, hidden_states, t)  # each place sees the whole picture here
        hidden_states = self.up[0](hidden_states, on_half, t)  # [n, 192, h / 2, w / 2]
        hidden_states = self.up[1](hidden_states, on_grid, t)  # [n, 128, h, w]
        return self.conv_out(F.silu(self.norm_out(hidden_states))).float()  # [n, n_codes, h, w]

    def _scaled(self, latents: Tensor, clarity: Tensor) -> Tensor:
        """Blends `[n, dim, h, w]`, scaled so that those of any clarity have about the same spread."""
        clarity = clarity[:, None, None, None]  # [n, 1, 1, 1]
        spread = self.codebook.std() * (clarity.square() + (1 - clarity).square()).sqrt()
        return (latents - self.codebook.mean(0)[:, None, None]) / spread

    def restore(self, latents: Tensor, clarity: Tensor | float) -> Tensor:
        """The prior's guess at the picture under the noise: blends `[n, dim, h, w]` → latents of the same shape.

        It is the mean of all codes' vectors, weighted by how likely they are. Keeps gradients. `clarity` is a number
        for all blends, or `[n]`.
        """
        clarity = torch.as_tensor(clarity, dtype=torch.float32, device=latents.device).expand(len(latents))
        probabilities = self(latents, clarity).softmax(dim=1)  # [n, n_codes, h, w]
        return torch.einsum("nkhw,kd->ndhw", probabilities, self.codebook)

    def random_latents(self, n: int, grid: int, generator: torch.Generator) -> Tensor:
        """Latents of random codes, each code equally likely: float32 `[n, dim, grid, grid]`. Their clarity is 0."""
        codes = torch.randint(len(self.codebook), (n, grid, grid), generator=generator)  # [n, grid, grid]
        return F.embedding(codes.to(self.codebook.device), self.codebook).permute(0, 3, 1, 2)

    @torch.no_grad()
    def sample(self, n: int, seed: int, steps: int = 30, grid: int = 12) -> Tensor:
        """Codes of `n` random pictures, without a prompt: int64 `[n, grid, grid]`, made in `steps` steps."""
        generator = runtime.generator(seed)
        latents = self.random_latents(n, grid, generator)
        for step in range(steps):
            clarity = torch.full((n,), schedule(step / steps), device=latents.device)
            logits = self(latents, clarity)  # [n, n_codes, h, w]
            noise = gumbel(logits.shape, generator).to(logits.device)
            codes = (logits + noise).argmax(1)  # [n, h, w]: a draw for each place
            drawn = F.embedding(codes, self.codebook).permute(0, 3, 1, 2)  # [n, dim, h, w]
            random = self.random_latents(n, grid, generator)
            latents = blend(drawn, random, schedule((step + 1) / steps))
        return self(latents, torch.ones(n, device=latents.device)).argmax(1).cpu()


def blend(latents: Tensor, random: Tensor, clarity: Tensor | float) -> Tensor:
    """clarity · latents + (1 - clarity) · random; all `[n, dim, h, w]`, `clarity` a number or `[n]`."""
    clarity = torch.as_tensor(clarity, dtype=latents.dtype, device=latents.device).view(-1, 1, 1, 1)
    return clarity * latents + (1 - clarity) * random


def schedule(progress):
    """The clarity after a share of the steps; a number or a tensor in 0…1.

    It grows slowly at first, because the first steps decide what the picture shows; the last ones add detail.
    """
    return progress**2


def gumbel(shape, generator: torch.Generator) -> Tensor:
    """Gumbel noise, float32 of `shape`: the argmax of logits plus this noise is a draw from their softmax."""
    return -torch.empty(shape).exponential_(generator=generator).log()


def _waves(clarity: Tensor) -> Tensor:
    """Sines and cosines of a clarity, [n] → [n, 32]: so the network can see small differences."""
    angles = clarity[:, None].float() * torch.logspace(0, 2, 16, device=clarity.device)  # [n, 16]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# ---------------------------------------------------------------------------------------------------
# Folders


def new_prior(vqgan: VQGAN, config: PriorConfig | None = None, seed: int = 0) -> Prior:
    """A fresh, untrained prior over the codes of a VQGAN. Its weights depend on `config` and `seed` only."""
    if config is None:
        n_codes, dim = vqgan.codebook.shape
        config = PriorConfig(n_codes, dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = Prior(config)
    prior.codebook.copy_(vqgan.codebook)
    return prior.to(vqgan.device)


def load_prior(vqgan: VQGAN, name: str | None = None) -> Prior:
    """The prior over the codes of a VQGAN.

    None or "pocket-prior" is the pocket VQGAN's, "local-dir:path" a folder of `save_folder`.

    Frozen, in `eval` mode, float32, on the VQGAN's device. Raises AssetError where files are missing or damaged, or
    where the prior belongs to another VQGAN; ValueError for another name.
    """
    name = POCKET if name is None else name
    prior = load_folder(find_folder(name, POCKET, "prior"), "prior", Prior, PriorConfig, name)
    same_shape = prior.codebook.shape == vqgan.codebook.shape
    if not same_shape or not torch.allclose(prior.codebook, vqgan.codebook.cpu(), atol=1e-3):
        raise AssetError(
            f"{name} was trained on the codes of another VQGAN, not on those of {vqgan.name}: "
            "load the VQGAN that it belongs to."
        )
    return prior.to(vqgan.device, memory_format=torch.channels_last)  # the same numbers, faster
