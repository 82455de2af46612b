"""VQGAN: a picture as a small grid of numbers. Each number names a row of a learned codebook.

    vqgan = load_vqgan()
    codes = vqgan.encode(images)           # int64 [n, 12, 12]
    images = vqgan.decode(codes)           # list of PIL pictures, 96 × 96
    pixels = vqgan.decode_latents(latents) # keeps gradients: lesson 3 paints through it

A VQGAN has three networks. The *encoder* turns a picture of 96 × 96 pixels into 12 × 12 latents, vectors of 16 numbers.
The *quantiser* replaces each latent by the nearest of 1,024 vectors, the codebook; so a picture becomes 144 numbers.
The *decoder* turns these vectors back into a picture. A fourth network, the *patch discriminator*, is needed in
training only. It judges patches of pictures, real or reconstructed. Because of it the decoder draws sharp details
instead of a blur.

The networks' parts have the names that taming-transformers and diffusers use: `conv_in`, `down`, `mid`, `up`,
`norm_out`, `conv_out`, and `norm1`, `conv1`, `norm2`, `conv2` in each `ResnetBlock`.

Esser, Rombach, Ommer 2021, "Taming Transformers for High-Resolution Image Synthesis" (VQGAN); van den Oord et al. 2017,
"Neural Discrete Representation Learning" (the quantiser, straight-through gradients, EMA); Dhariwal et al. 2020,
"Jukebox" (restarts of dead codes); Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial
Networks" (patches).
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
from mmlesson.models import assets, folders, full_vqgan
from mmlesson.pixels import as_list, to_images, to_pixels

POCKET = "pocket-vqgan"


@dataclass(frozen=True)
class VQGANConfig:
    """The sizes of a VQGAN. The grid of codes has an eighth of the picture's side."""

    image_size: int = 96  # pixels along a side; a multiple of 8
    n_codes: int = 1024  # rows of the codebook
    dim: int = 16  # numbers in a row; with so few, training uses all rows (Yu et al. 2022, ViT-VQGAN)
    channels: tuple[int, int, int] = (48, 96, 192)  # at a half, a quarter and an eighth of the side
    encoder_blocks: tuple[int, int, int] = (0, 1, 1)  # residual blocks at each of these
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    discriminator: int = 48  # channels of the discriminator's first layer

    @property
    def grid(self) -> int:
        """Codes along a side."""
        return self.image_size // 8


@dataclass(frozen=True)
class Quantised:
    """Latents after the quantiser."""

    latents: Tensor  # [n, dim, h, w], rows of the codebook; gradients go straight to the latents that came in
    codes: Tensor  # int64 [n, h, w]
    commitment: Tensor  # scalar, the mean squared distance from latents to their rows; training lowers it


# ---------------------------------------------------------------------------------------------------
# The networks


class ResnetBlock(nn.Module):
    """A residual block (He et al. 2016): normalise, apply SiLU, convolve, twice; then add the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(16, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(16, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden_states = self.conv1(F.silu(self.norm1(x)))  # [n, channels, h, w]
        hidden_states = self.conv2(F.silu(self.norm2(hidden_states)))
        return x + hidden_states


def _resnet_blocks(channels: int, n: int) -> list[ResnetBlock]:
    return [ResnetBlock(channels) for _ in range(n)]


class Encoder(nn.Module):
    """Pixels [n, 3, side, side] in 0…1 → latents [n, dim, side / 8, side / 8]."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        half, quarter, eighth = config.channels
        at_half, at_quarter, at_eighth = config.encoder_blocks
        self.conv_in = nn.Conv2d(3, half, 4, stride=2, padding=1)  # stride 2: half the side
        self.down = nn.Sequential(
            *_resnet_blocks(half, at_half),
            nn.Conv2d(half, quarter, 4, stride=2, padding=1),
            *_resnet_blocks(quarter, at_quarter),
            nn.Conv2d(quarter, eighth, 4, stride=2, padding=1),
        )
        self.mid = nn.Sequential(*_resnet_blocks(eighth, at_eighth))
        self.norm_out = nn.GroupNorm(16, eighth)
        self.conv_out = nn.Conv2d(eighth, config.dim, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden_states = self.conv_in(2 * pixels - 1)  # [n, 48, side / 2, side / 2]; the network sees -1…1
        hidden_states = self.down(hidden_states)  # [n, 192, side / 8, side / 8]
        hidden_states = self.mid(hidden_states)
        return self.conv_out(F.silu(self.norm_out(hidden_states)))  # [n, 16, side / 8, side / 8]


class Decoder(nn.Module):
    """Latents [n, dim, h, w] → pixels [n, 3, 8 h, 8 w], mostly in 0…1 but not clamped to it."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        half, quarter, eighth = config.channels
        at_half, at_quarter, at_eighth = config.decoder_blocks
        self.conv_in = nn.Conv2d(config.dim, eighth, 3, padding=1)
        self.mid = nn.Sequential(*_resnet_blocks(eighth, at_eighth))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(eighth, quarter, 3, padding=1),
            *_resnet_blocks(quarter, at_quarter),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(quarter, half, 3, padding=1),
            *_resnet_blocks(half, at_half),
        )
        self.norm_out = nn.GroupNorm(16, half)
        self.conv_out = nn.Conv2d(half, 4 * 3, 3, padding=1)  # four pixels for each place

    def forward(self, latents: Tensor) -> Tensor:
        hidden_states = self.conv_in(latents)  # [n, 192, h, w]
        hidden_states = self.mid(hidden_states)
        hidden_states = self.up(hidden_states)  # [n, 48, 4 h, 4 w]
        hidden_states = self.conv_out(F.silu(self.norm_out(hidden_states)))  # [n, 12, 4 h, 4 w]
        # the 12 channels become 2 × 2 pixels of 3 colours: a quarter of the cost of a convolution at full size
        return F.pixel_shuffle(hidden_states, 2) / 2 + 0.5  # [n, 3, 8 h, 8 w]


class Quantiser(nn.Module):
    """The codebook, and the rule that replaces a latent by the nearest row.

    No gradient moves the rows. In training each row follows the running mean (EMA) of the latents that chose it. A row
    that hardly any latent chose is *dead*: `restart` sets it to one of the batch's latents.
    """

    def __init__(self, n_codes: int, dim: int, decay: float = 0.99, dead_below: float = 0.1):
        super().__init__()
        self.decay = decay
        self.dead_below = dead_below
        self.register_buffer("codebook", torch.randn(n_codes, dim))  # [n_codes, dim]
        self.register_buffer("counts", torch.ones(n_codes))  # running mean: how many latents of a batch chose each row
        self.register_buffer("sums", self.codebook.clone())  # running mean: the sum of these latents

    def nearest(self, latents: Tensor) -> Tensor:
        """The number of the nearest row, by Euclidean distance: float [n, dim, h, w] → int64 [n, h, w]."""
        return self.distances(latents).argmin(dim=-1)

    def distances(self, latents: Tensor) -> Tensor:
        """Squared distances to all rows, without the term |latent|²: float [n, dim, h, w] → [n, h, w, n_codes].

        |latent - row|² = |latent|² - 2 latent · row + |row|². The first term is the same for all rows, so no comparison
        needs it.
        """
        flat = latents.permute(0, 2, 3, 1)  # [n, h, w, dim]
        return self.codebook.square().sum(1) - 2 * flat @ self.codebook.T

    def forward(self, latents: Tensor) -> Quantised:
        """Latents [n, dim, h, w] → their nearest rows, the numbers of these rows, and the mean squared distance."""
        codes = self.nearest(latents.detach().float())  # [n, h, w]
        rows = F.embedding(codes, self.codebook).permute(0, 3, 1, 2)  # [n, dim, h, w]
        commitment = F.mse_loss(latents, rows)
        if self.training:
            self._follow(latents.detach().float(), codes)
        # straight through: the value is that of the rows, the gradient goes to the latents unchanged
        straight_through = latents + (rows - latents).detach()
        return Quantised(straight_through, codes, commitment)

    @torch.no_grad()
    def _follow(self, latents: Tensor, codes: Tensor) -> None:
        """Moves each row to the running mean of the latents [n, dim, h, w] that chose it, by codes [n, h, w]."""
        flat = latents.permute(0, 2, 3, 1).flatten(0, 2)  # [n · h · w, dim]
        codes = codes.flatten()  # [n · h · w]
        counts = torch.bincount(codes, minlength=len(self.codebook)).float()  # [n_codes]
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)  # [n_codes, dim]
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.codebook.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])

    @torch.no_grad()
    def restart(self, latents: Tensor, generator: torch.Generator) -> int:
        """Sets dead rows to random latents of a batch `[n, dim, h, w]`; returns how many rows were dead."""
        flat = latents.detach().float().permute(0, 2, 3, 1).flatten(0, 2)  # [n · h · w, dim]
        dead = (self.counts < self.dead_below).nonzero()[:, 0]  # [dead]
        chosen = flat[torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)]  # [dead, dim]
        self.codebook[dead] = chosen
        self.sums[dead] = chosen
        self.counts[dead] = 1.0
        return len(dead)


class PatchDiscriminator(nn.Module):
    """Pixels [n, 3, side, side] in 0…1 → logits [n, side / 8, side / 8]: above 0 where a patch looks real.

    Through the convolutions each logit sees a patch of 38 × 38 pixels, not the whole picture. (The norms also use the
    mean and the spread of the whole picture.)
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GroupNorm(16, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.GroupNorm(16, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(2 * pixels - 1)[:, 0]


# ---------------------------------------------------------------------------------------------------
# The model that lessons use


class VQGAN(nn.Module):
    """Encoder, quantiser, decoder and patch discriminator. `encode` takes pictures, `decode` returns pictures."""

    sha256 = ""  # of the weights file; DALL-E remembers it, because codes mean something to one VQGAN only

    def __init__(self, config: VQGANConfig, name: str = "new"):
        super().__init__()
        self.config = config
        self.name = name
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
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
        """One vector for each code: float32 `[n_codes, dim]`."""
        return self.quantiser.codebook

    # ----------------------------------------------------------------------------- pictures and codes

    def encode(self, pictures, batch_size: int = 32) -> Tensor:
        """Codes of pictures (one or many, of any kind that `load_image` takes): int64 `[n, h, w]` on the CPU.

        Each picture is scaled, and its middle square is used, `image_size` pixels a side. Raises ImageError where a
        picture cannot be read.
        """
        sources = as_list(pictures)
        if not sources:
            return torch.zeros(0, self.config.grid, self.config.grid, dtype=torch.int64)
        codes = []
        with torch.no_grad():
            for start in range(0, len(sources), batch_size):
                batch = sources[start : start + batch_size]
                pixels = to_pixels(batch, self.config.image_size).to(self.device)  # [≤ batch_size, 3, side, side]
                codes.append(self.quantiser.nearest(self.encode_pixels(pixels)).cpu())
        return torch.cat(codes)

    def decode(self, codes: Tensor, batch_size: int = 32) -> list[Image.Image]:
        """Pictures of codes, int64 `[n, h, w]` or `[h, w]`: RGB, eight pixels a code.

        Raises ValueError where `codes` are not codes.
        """
        latents = self.latents(codes)  # [n, dim, h, w]
        with torch.no_grad():
            return [image for part in latents.split(batch_size) for image in to_images(self.decode_latents(part))]

    def code_images(self, codes: Tensor) -> list[Image.Image]:
        """One RGB picture for each code of int64 `[n]`: what the code looks like.

        The decoder also looks at the neighbours of a code. So each code is decoded as a grid of 3 × 3 equal codes, and
        the middle is cut out.
        """
        grids = torch.as_tensor(codes)[:, None, None].expand(-1, 3, 3)  # [n, 3, 3]
        pictures = self.decode(grids)
        return [
            image.crop((image.width // 6, image.height // 6, image.width * 5 // 6, image.height * 5 // 6))
            for image in pictures
        ]

    def latents(self, codes: Tensor) -> Tensor:
        """The codebook's row for each code: int64 `[n, h, w]` or `[h, w]` → float32 `[n, dim, h, w]`.

        Raises ValueError where `codes` are not whole numbers of that shape, or name no row.
        """
        codes = torch.as_tensor(codes)
        if codes.ndim == 2:
            codes = codes[None]
        if codes.ndim != 3 or codes.is_floating_point() or codes.dtype == torch.bool:
            raise ValueError(f"codes are whole numbers of shape [n, h, w], not {codes.dtype} {list(codes.shape)}.")
        if codes.numel():
            low, high = int(codes.min()), int(codes.max())
            if low < 0 or high >= len(self.codebook):
                raise ValueError(
                    f"codes are numbers of 0 to {len(self.codebook) - 1:,}; these are {low:,} to {high:,}."
                )
        return F.embedding(codes.to(self.device), self.codebook).permute(0, 3, 1, 2)

    # ------------------------------------------------------------------------------- with gradients

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels `[n, 3, side, side]` in 0…1 → latents, not quantised, float32 `[n, dim, h, w]`. Keeps gradients."""
        return self.encoder(pixels).float()

    def quantise(self, latents: Tensor) -> Quantised:
        """The nearest codes of latents `[n, dim, h, w]`, and the rows of these codes.

        Gradients pass straight through the rows.
        """
        return self.quantiser(latents)

    def soft_codes(self, latents: Tensor, temperature: float) -> Tensor:
        """How well each code fits each latent: `[n, dim, h, w]` → float32 `[n, h, w, n_codes]`.

        It is a softmax over minus the squared distances, divided by `temperature`. At a `temperature` near 0 the
        nearest code gets everything. At a higher one, codes that are nearly as near get a share too (soft labels: Lee
        et al. 2022, "Autoregressive Image Generation using Residual Quantization").
        """
        return (-self.quantiser.distances(latents) / temperature).softmax(dim=-1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels of latents `[n, dim, h, w]`: float32 `[n, 3, 8 h, 8 w]`, clamped to 0…1.

        Keeps gradients, except where a value was clamped.
        """
        return self.decoder(latents.contiguous(memory_format=torch.channels_last)).float().clamp(0, 1)

    def patch_scores(self, pictures) -> Tensor:
        """How real each patch looks to the patch discriminator: float32 `[n, h, w]` in 0…1, on the CPU."""
        with torch.no_grad():
            pixels = to_pixels(pictures, self.config.image_size).to(self.device)
            return self.discriminator(pixels).float().sigmoid().cpu()


class FullVQGAN(VQGAN):
    """A full-size VQGAN: the networks of diffusers with the interface of `VQGAN`. It has no patch discriminator."""

    def __init__(self, parts: full_vqgan.Parts, name: str):
        nn.Module.__init__(self)  # VQGAN's own __init__ would build the pocket networks
        self.config = parts.config
        self.name = name
        self.encoder = parts.encoder
        self.decoder = parts.decoder
        self.discriminator = None
        self.quantiser = Quantiser(*parts.codebook.shape)
        self.quantiser.codebook.copy_(parts.codebook)
        self.quantiser.sums.copy_(parts.codebook)

    def encode(self, pictures, batch_size: int = 4) -> Tensor:
        """As `VQGAN.encode`, in smaller batches: one picture takes hundreds of megabytes in these networks."""
        return super().encode(pictures, batch_size)

    def decode(self, codes: Tensor, batch_size: int = 4) -> list[Image.Image]:
        """As `VQGAN.decode`, in smaller batches; `config.factor` pixels a code."""
        if torch.as_tensor(codes).numel() == 0:
            return []  # the attention in these networks fails on an empty batch
        return super().decode(codes, batch_size)

    def patch_scores(self, pictures) -> Tensor:
        """Always raises AssetError: there is no discriminator."""
        raise AssetError(
            f"{self.name} cannot score patches, because diffusers keeps no discriminator: "
            "use the pocket VQGAN, load_vqgan()."
        )


# ---------------------------------------------------------------------------------------------------
# Folders


def new_vqgan(config: VQGANConfig = VQGANConfig(), seed: int = 0) -> VQGAN:  # noqa: B008 (frozen)
    """A fresh, untrained VQGAN. Its weights depend on `config` and `seed` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VQGAN(config)


def load_vqgan(name: str | None = None, device: str | torch.device | None = None) -> VQGAN:
    """A trained VQGAN by its name; None is the pocket model.

    "pocket-vqgan"                    the course's own, from data/, its sha256 checked; no network
    "organisation/model"              a diffusers `VQModel` on the Hugging Face hub, at its top, in "vqvae" or in "movq"
    "organisation/model/sub-folder"   the same, in another folder of the repository
    "local-dir:path/to/folder"        a folder of `save_folder`, or of diffusers' `VQModel.save_pretrained`

    The models of diffusers, such as "amused/amused-256/vqvae", need `pip install "mmlesson[full]"`. They can do
    everything except `patch_scores`. Their `config.image_size` is the one in their own config, or 256 where that says
    nothing. Smaller pictures are faster: `vqgan.config = dataclasses.replace(vqgan.config, image_size=128)`. Files from
    the hub are downloaded once, and then read from the hub's cache without the network.

    Weights are safetensors and never unpickled. They are float32, frozen, in `eval` mode, on `device` (None: the best
    one here). Raises ValueError for an unknown name. Raises AssetError where a file or diffusers is missing, where a
    file is damaged or belongs to another kind of model, where a weight is missing, or where a download fails; the
    message says what to do.
    """
    name = POCKET if name is None else name
    device = runtime.device(device)
    if name == POCKET:
        return _from_folder(assets.model_dir(POCKET), name).to(device)
    if isinstance(name, str) and name.startswith("local-dir:"):
        folder = folders.local_folder(name)
        if not full_vqgan.is_full(folder):
            return _from_folder(folder, name).to(device)
        parts = full_vqgan.from_folder(folder, name)
    elif isinstance(name, str) and all(name.partition("/")) and not Path(name).is_dir():
        parts = full_vqgan.from_hub(name)
    else:
        raise ValueError(
            f"there is no VQGAN {name!r}: give {POCKET!r}, the name of one on the hub, or 'local-dir:' and a folder."
        )
    return FullVQGAN(parts, name).eval().requires_grad_(False).to(device)


def _from_folder(folder: Path, name: str) -> VQGAN:
    model = folders.load_folder(folder, "VQGAN", VQGAN, VQGANConfig, name)
    model.sha256 = assets.sha256(folder / folders.WEIGHTS)
    return model.to(memory_format=torch.channels_last)  # the same numbers, faster
