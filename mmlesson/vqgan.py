"""VQGAN: a picture as a small grid of numbers, each the name of a visual part in a learned codebook.

    vqgan = load_vqgan()
    codes = vqgan.encode(images)           # int64 [n, 12, 12]
    images = vqgan.decode(codes)           # list of PIL pictures, 96 × 96
    pixels = vqgan.decode_latents(latents) # keeps gradients: what lesson 3 paints through

Three networks. The *encoder* turns a picture of 96 × 96 pixels into 12 × 12 latents, vectors of 16 numbers. The
*quantiser* replaces each by the nearest of 1,024 vectors, the codebook, so that a picture is 144 numbers. The *decoder*
turns these vectors back into a picture. A fourth network, the *patch discriminator*, is there for the training: it judges
patches of a picture, real or reconstructed, and so keeps the decoder from blurring what it is not sure of.

Esser, Rombach, Ommer 2021, "Taming Transformers for High-Resolution Image Synthesis" (VQGAN); van den Oord et al. 2017,
"Neural Discrete Representation Learning" (the quantiser, straight-through gradients, EMA); Dhariwal et al. 2020, "Jukebox"
(restarts of dead codes); Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks" (patches).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmlesson import runtime
from mmlesson.gates import AssetError
from mmlesson.models import assets, folders
from mmlesson.models import full_vqgan as vqgan_full
from mmlesson.pixels import as_list, to_images, to_pixels

POCKET = "pocket-vqgan"


@dataclass(frozen=True)
class Config:
    """What a VQGAN is built from. The grid is an eighth of the picture's side."""

    image_size: int = 96  # pixels; a multiple of 8
    n_codes: int = 1024  # vectors in the codebook
    dim: int = 16  # numbers in each: few, so that all of them are used (Yu et al. 2022, ViT-VQGAN)
    channels: tuple[int, int, int] = (48, 96, 192)  # at half, a quarter and an eighth of the side
    encoder_blocks: tuple[int, int, int] = (0, 1, 1)  # residual blocks at each of these
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    discriminator: int = 48  # channels of its first layer

    @property
    def grid(self) -> int:
        """Codes along a side."""
        return self.image_size // 8


@dataclass(frozen=True)
class Quantised:
    """What the quantiser made of latents."""

    latents: Tensor  # [n, dim, h, w], rows of the codebook; gradients pass straight through to what was quantised
    codes: Tensor  # int64 [n, h, w]
    commitment: Tensor  # scalar: the mean squared distance of the latents to their codes, which the encoder lowers


# ---------------------------------------------------------------------------------------------------
# The networks


class Block(nn.Module):
    """A residual block: what it adds to its input has been normalised, bent and convolved twice."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.GroupNorm(16, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.GroupNorm(16, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Encoder(nn.Module):
    """Pixels [n, 3, side, side] in 0…1 → latents [n, dim, side / 8, side / 8]."""

    def __init__(self, config: Config):
        super().__init__()
        layers, width = [], 3
        for channels, blocks in zip(config.channels, config.encoder_blocks, strict=True):
            layers.append(nn.Conv2d(width, channels, 4, stride=2, padding=1))  # half the side
            layers += [Block(channels) for _ in range(blocks)]
            width = channels
        self.layers = nn.Sequential(*layers, nn.GroupNorm(16, width), nn.SiLU(), nn.Conv2d(width, config.dim, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(2 * pixels - 1)


class Decoder(nn.Module):
    """Latents [n, dim, h, w] → pixels [n, 3, 8 h, 8 w], not yet held in 0…1."""

    def __init__(self, config: Config):
        super().__init__()
        width = config.channels[-1]
        layers = [nn.Conv2d(config.dim, width, 3, padding=1)]
        for level in (2, 1, 0):
            if level < 2:  # twice the side
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, config.channels[level], 3, padding=1)]
                width = config.channels[level]
            layers += [Block(width) for _ in range(config.decoder_blocks[level])]
        # the last doubling makes four pixels of each place, which costs a quarter of convolving at full size
        layers += [nn.GroupNorm(16, width), nn.SiLU(), nn.Conv2d(width, 4 * 3, 3, padding=1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents) / 2 + 0.5


class Quantiser(nn.Module):
    """The codebook, and the rule that the nearest row stands for a latent.

    The rows are no parameters that a gradient moves. In training each follows the running mean of the latents that
    chose it (EMA); a row that hardly any chose is *dead*, and starts again as one of the batch's latents.
    """

    def __init__(self, n_codes: int, dim: int, decay: float = 0.99, dead_below: float = 0.1):
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("codebook", torch.randn(n_codes, dim))  # [n_codes, dim]
        self.register_buffer("counts", torch.ones(n_codes))  # running mean of how many latents of a batch chose each
        self.register_buffer("sums", self.codebook.clone())  # … and of their sum

    def nearest(self, latents: Tensor) -> Tensor:
        """The number of the nearest row, by Euclidean distance: float [n, dim, h, w] → int64 [n, h, w]."""
        return self.distances(latents).argmin(dim=-1)

    def distances(self, latents: Tensor) -> Tensor:
        """Squared, to every row, less the latent's own length, which is the same for all: float [n, dim, h, w] → [n, h, w, n_codes]."""
        flat = latents.permute(0, 2, 3, 1)  # [n, h, w, dim]
        return self.codebook.square().sum(1) - 2 * flat @ self.codebook.T

    def forward(self, latents: Tensor) -> Quantised:
        """[n, dim, h, w] → the nearest rows in their places, their numbers, and how far they are."""
        codes = self.nearest(latents.detach().float())  # [n, h, w]
        rows = F.embedding(codes, self.codebook).permute(0, 3, 1, 2)  # [n, dim, h, w]
        commitment = F.mse_loss(latents, rows)
        if self.training:
            self._follow(latents.detach().float(), codes)
        # straight through: forwards it is the rows, backwards the gradient goes to the latents as if nothing had happened
        return Quantised(latents + (rows - latents).detach(), codes, commitment)

    @torch.no_grad()
    def _follow(self, latents: Tensor, codes: Tensor) -> None:
        flat, codes = latents.permute(0, 2, 3, 1).flatten(0, 2), codes.flatten()  # [m, dim], [m]
        counts = torch.bincount(codes, minlength=len(self.codebook)).float()  # [n_codes]
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)  # [n_codes, dim]
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.codebook.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])

    @torch.no_grad()
    def restart(self, latents: Tensor, generator: torch.Generator) -> int:
        """Dead rows start again as random latents of a batch `[n, dim, h, w]`; returns how many there were."""
        flat = latents.detach().float().permute(0, 2, 3, 1).flatten(0, 2)  # [m, dim]
        dead = (self.counts < self.dead_below).nonzero()[:, 0]
        chosen = flat[torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)]
        self.codebook[dead], self.sums[dead], self.counts[dead] = chosen, chosen, 1.0
        return len(dead)


class PatchDiscriminator(nn.Module):
    """Pixels [n, 3, side, side] in 0…1 → logits [n, side / 8, side / 8]: above 0 where a patch looks real.

    Each logit sees a patch of 38 × 38 pixels through the convolutions (their normalisation also takes the mean and the spread of the
    whole picture): it judges the parts of a picture, not the whole.
    """

    def __init__(self, width: int):
        super().__init__()
        layers, before = [], 3
        for channels in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(before, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            if before != 3:
                layers.insert(-1, nn.GroupNorm(16, channels))
            before = channels
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(2 * pixels - 1)[:, 0]


# ---------------------------------------------------------------------------------------------------
# The model that lessons use


class VQGAN(nn.Module):
    """Encoder, quantiser, decoder and patch discriminator, with pictures at the edges."""

    sha256 = ""  # of the file that the weights came from: what was trained on its codes remembers it

    def __init__(self, config: Config, name: str = "new"):
        super().__init__()
        self.config, self.name = config, name
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantiser = Quantiser(config.n_codes, config.dim)
        self.discriminator = PatchDiscriminator(config.discriminator)

    def __repr__(self) -> str:
        size, grid = self.config.image_size, self.config.grid
        return f"VQGAN({self.name!r}: {size}×{size} pixels as {grid}×{grid} of {self.config.n_codes:,} codes)"

    @property
    def device(self) -> torch.device:
        return self.codebook.device

    @property
    def codebook(self) -> Tensor:
        """The vectors that the codes stand for: float32 `[n_codes, dim]`."""
        return self.quantiser.codebook

    # ----------------------------------------------------------------------------- pictures and codes

    def encode(self, pictures, batch_size: int = 32) -> Tensor:
        """Codes of pictures (one or many, of any kind that `load_image` takes): int64 `[n, h, w]` on the CPU.

        Pictures are scaled and their middle cut out to `image_size`. Raises ImageError where one cannot be read.
        """
        sources, codes = as_list(pictures), []
        with torch.no_grad():
            for start in range(0, len(sources), batch_size):
                pixels = to_pixels(
                    sources[start : start + batch_size], self.config.image_size
                )  # [≤ batch, 3, side, side]
                codes.append(self.quantiser.nearest(self.encode_pixels(pixels.to(self.device))).cpu())
        return torch.cat(codes) if codes else torch.zeros(0, self.config.grid, self.config.grid, dtype=torch.int64)

    def decode(self, codes: Tensor, batch_size: int = 32) -> list[Image.Image]:
        """Pictures of codes, int64 `[n, h, w]` or `[h, w]`: RGB, eight pixels a code. Raises ValueError for what are no codes."""
        latents = self.latents(codes)  # [n, dim, h, w]
        with torch.no_grad():
            return [image for part in latents.split(batch_size) for image in to_images(self.decode_latents(part))]

    def code_images(self, codes: Tensor) -> list[Image.Image]:
        """What single codes, int64 `[n]`, look like: RGB pictures, of each the middle of 3 × 3 times the same code, for the decoder also looks around."""
        alone = self.decode(torch.as_tensor(codes)[:, None, None].expand(-1, 3, 3))
        return [
            image.crop((image.width // 6, image.height // 6, image.width * 5 // 6, image.height * 5 // 6))
            for image in alone
        ]

    def latents(self, codes: Tensor) -> Tensor:
        """The codebook's vectors in the places of codes: int64 `[n, h, w]` or `[h, w]` → float32 `[n, dim, h, w]`."""
        codes = torch.as_tensor(codes)
        codes = codes[None] if codes.ndim == 2 else codes
        if codes.ndim != 3 or codes.is_floating_point() or codes.dtype == torch.bool:
            raise ValueError(f"codes are whole numbers of shape [n, h, w], not {codes.dtype} {list(codes.shape)}.")
        low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
        if low < 0 or high >= len(self.codebook):
            raise ValueError(f"codes are numbers of 0 to {len(self.codebook) - 1:,}, and here are {low:,} to {high:,}.")
        return F.embedding(codes.to(self.device), self.codebook).permute(0, 3, 1, 2)

    # ------------------------------------------------------------------------------- with gradients

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Latents before they are quantised: pixels `[n, 3, side, side]` in 0…1 → float32 `[n, dim, h, w]`. Keeps gradients."""
        return self.encoder(pixels).float()

    def quantise(self, latents: Tensor) -> Quantised:
        """The nearest codes of latents `[n, dim, h, w]`, and their vectors, through which gradients pass straight."""
        return self.quantiser(latents)

    def soft_codes(self, latents: Tensor, temperature: float) -> Tensor:
        """How well each code would stand for each latent: `[n, dim, h, w]` → float32 `[n, h, w, n_codes]`, a softmax over minus the squared distances.

        Near 0 the nearest code has everything; the warmer, the more is left to others that are nearly as near (soft labels: Lee et al. 2022, "Autoregressive
        Image Generation using Residual Quantization").
        """
        return (-self.quantiser.distances(latents) / temperature).softmax(dim=-1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels of latents `[n, dim, h, w]`: float32 `[n, 3, 8 h, 8 w]` in 0…1. Keeps gradients, but where it cuts off."""
        return self.decoder(latents.contiguous(memory_format=torch.channels_last)).float().clamp(0, 1)

    def patch_scores(self, pictures) -> Tensor:
        """How real the patch discriminator finds each patch: float32 `[n, h, w]` in 0…1, on the CPU."""
        with torch.no_grad():
            pixels = to_pixels(pictures, self.config.image_size).to(self.device)
            return self.discriminator(pixels).float().sigmoid().cpu()


class FullVQGAN(VQGAN):
    """A VQGAN of full size: diffusers' networks behind the same interface. There is no patch discriminator."""

    def __init__(self, parts: vqgan_full.Parts, name: str):
        nn.Module.__init__(self)  # not VQGAN's, which would build the pocket networks
        self.config, self.name = parts.config, name
        self.encoder, self.decoder, self.discriminator = parts.encoder, parts.decoder, None
        self.quantiser = Quantiser(*parts.codebook.shape)
        for rows in (self.quantiser.codebook, self.quantiser.sums):
            rows.copy_(parts.codebook)

    def encode(self, pictures, batch_size: int = 4) -> Tensor:
        """As `VQGAN.encode`, fewer at a time: a picture here takes hundreds of megabytes on its way through the networks."""
        return super().encode(pictures, batch_size)

    def decode(self, codes: Tensor, batch_size: int = 4) -> list[Image.Image]:
        """As `VQGAN.decode`, fewer at a time; `config.factor` pixels a code."""
        return (
            super().decode(codes, batch_size) if torch.as_tensor(codes).numel() else []
        )  # their attention takes no empty batch

    def patch_scores(self, pictures) -> Tensor:
        """Raises AssetError: there is nothing to score with."""
        raise AssetError(
            f"{self.name} cannot score patches, for diffusers keeps no discriminator: use the pocket VQGAN, load_vqgan()."
        )


# ---------------------------------------------------------------------------------------------------
# Folders


def new_vqgan(config: Config = Config(), seed: int = 0) -> VQGAN:  # noqa: B008 (frozen)
    """A fresh, untrained VQGAN; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VQGAN(config)


def load_vqgan(name: str | None = None, device: str | torch.device | None = None) -> VQGAN:
    """A trained VQGAN by its name; None is the pocket model.

    "pocket-vqgan"                    the course's own, from data/, its sha256 checked; no network
    "organisation/model"              a diffusers `VQModel` on the Hugging Face hub, at its top, in "vqvae" or in "movq"
    "organisation/model/sub-folder"   the same, in another folder of the repository
    "local-dir:path/to/folder"        a folder that `save_folder` wrote, or diffusers' `VQModel.save_pretrained`

    Those of diffusers, such as "amused/amused-256/vqvae", need `pip install "mmlesson[full]"`, and have everything but
    `patch_scores`. Their `config.image_size` is what their own config says, 256 where it says nothing; smaller pictures are faster:
    `vqgan.config = dataclasses.replace(vqgan.config, image_size=128)`. Files from the hub are downloaded once; while they are
    in its cache the network is not asked again.

    Weights are safetensors, never unpickled, in float32, frozen, in `eval` mode, on `device` (None: the best one here). A model
    without all its trained weights is never returned. Raises ValueError for an unknown name, AssetError where files or
    diffusers are missing, files are damaged, not a VQGAN's, or cannot be fetched; each says what to do.
    """
    name, device = POCKET if name is None else name, runtime.device(device)
    if name == POCKET:
        return _from_folder(assets.model_dir(POCKET), name).to(device)
    if isinstance(name, str) and name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if not vqgan_full.is_full(folder):
            return _from_folder(folder, name).to(device)
        parts = vqgan_full.from_folder(folder, name)
    elif isinstance(name, str) and all(name.partition("/")) and not Path(name).is_dir():
        parts = vqgan_full.from_hub(name)
    else:
        raise ValueError(
            f"there is no VQGAN {name!r}: give {POCKET!r}, the name of one on the hub, or 'local-dir:' and a folder."
        )
    return FullVQGAN(parts, name).eval().requires_grad_(False).to(device)


def _from_folder(folder: Path, name: str) -> VQGAN:
    model = folders.load_folder(folder, "VQGAN", VQGAN, Config, name)
    model.sha256 = assets.sha256(folder / folders.WEIGHTS)
    return model.to(memory_format=torch.channels_last)  # the same numbers, sooner
