"""Full-size VQGANs: the networks and the codebook of a diffusers `VQModel`. `load_vqgan` gives them its own interface.

    parts = from_hub("amused/amused-256/vqvae")
    parts.decoder(parts.encoder(pixels))

diffusers (github.com/huggingface/diffusers, an extra: `pip install "mmlesson[full]"`) builds the networks and reads the
weights. Its `encode` does not quantise, its `decode` quantises again, and what `force_not_quantize` does depends on the
config. So this file calls the layers one by one: here an encoder ends, and a decoder begins, with latents that can be
compared with the codebook's rows. diffusers' pixels are in -1…1, the course's in 0…1.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mmlesson import gates
from mmlesson.gates import AssetError
from mmlesson.models import hub, reading

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
SUB_FOLDERS = ("", "vqvae", "movq")  # a repository, perhaps of a whole pipeline, keeps its VQGAN in one of these
# `sample_size` is the side of the pictures. Many published configs (aMUSEd's too) have 32 there, diffusers' default,
# although the model was trained on larger pictures. So 32 counts as unknown.
UNKNOWN_SIZE = 32
USUAL_SIZE = 256
MOST_SIZE = 4096
WAYS_OUT = (
    "connect this machine to the internet once and load it again",
    "use the pocket VQGAN, load_vqgan()",
    "copy the folder of a diffusers VQModel here and load it with load_vqgan('local-dir:path/to/folder')",
)


@dataclass(frozen=True)
class FullVQGANConfig:
    """The sizes of a full-size VQGAN.

    The networks take pictures of any size: change it with `dataclasses.replace`, and the grid changes with it.
    """

    image_size: int  # pixels; a multiple of `factor`
    n_codes: int  # vectors in the codebook
    dim: int  # numbers in each vector
    factor: int  # pixels for each code, along a side

    @property
    def grid(self) -> int:
        """Codes along a side."""
        return self.image_size // self.factor


@dataclass(frozen=True)
class Parts:
    """The parts of a VQGAN, in float32 on the CPU. There is no discriminator, because diffusers keeps none."""

    config: FullVQGANConfig
    encoder: Encoder
    decoder: Decoder
    codebook: Tensor  # [n_codes, dim]


class Encoder(nn.Module):
    """Pixels [n, 3, side, side] in 0…1 → latents [n, dim, side / factor, side / factor], not quantised."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.network = model.encoder
        self.to_codebook = model.quant_conv

    def forward(self, pixels: Tensor) -> Tensor:
        return self.to_codebook(self.network(2 * pixels - 1))


class Decoder(nn.Module):
    """Latents [n, dim, h, w] → pixels [n, 3, factor · h, factor · w], mostly in 0…1 but not clamped to it.

    Nothing is quantised.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.from_codebook = model.post_quant_conv
        self.network = model.decoder
        self.spatial = model.config.norm_type == "spatial"  # MoVQ (Zheng et al. 2022): the latents also steer the norms

    def forward(self, latents: Tensor) -> Tensor:
        return self.network(self.from_codebook(latents), latents if self.spatial else None) / 2 + 0.5


# ---------------------------------------------------------------------------------------------------
# Where they come from


def is_full(folder: Path) -> bool:
    """True where a folder's config.json was written by diffusers, for a model of any class."""
    try:
        return "_class_name" in reading.read_object(folder / CONFIG)
    except AssetError:
        return False


def from_hub(name: str) -> Parts:
    """The VQGAN of a repository on the Hugging Face hub: "organisation/model", or "organisation/model/sub-folder".

    Without a sub-folder, the top of the repository, "vqvae" and "movq" are searched. Weights and config come from the
    same commit. Where the hub's cache has them, the network is not used. Raises ValueError where this is not such a
    name or repository; AssetError as `from_folder`, or where the files are not here and cannot be downloaded.
    """
    if importlib.util.find_spec("diffusers") is None:  # before anything is downloaded; importing it takes seconds
        raise _no_diffusers(name, "it is not installed")
    organisation, _, rest = name.partition("/")
    model, _, sub_folder = rest.partition("/")
    folders = (sub_folder.strip("/"),) if sub_folder else SUB_FOLDERS
    candidates = [f"{folder}/{WEIGHTS}".removeprefix("/") for folder in folders]
    repository = f"{organisation}/{model}"
    weights = hub.hub_file(repository, candidates, name, WAYS_OUT)
    # in the cache: …/snapshots/<commit>/<sub-folder>/<file>
    found = next(file for file in reversed(candidates) if weights.as_posix().endswith("/" + file))
    commit = weights.parents[found.count("/")].name
    hub.hub_file(repository, (found.replace(WEIGHTS, CONFIG),), name, WAYS_OUT, revision=commit)
    return from_folder(weights.parent, name)


def from_folder(folder: Path, name: str) -> Parts:
    """The VQGAN of a folder that diffusers' `VQModel.save_pretrained` wrote.

    The folder holds config.json and diffusion_pytorch_model.safetensors. Nothing is unpickled. Raises AssetError where
    a file is missing or damaged or belongs to another kind of model, or where diffusers is not installed.
    """
    vq_model = _vq_model_class(name)
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(path.name for suffix in ("bin", "pth", "pt", "ckpt") for path in folder.glob(f"*.{suffix}"))
        found = (
            f"there is only {pickles[0]}, a pickle, which can run any code when it is opened"
            if pickles
            else "there are no weights"
        )
        raise AssetError(f"{folder / WEIGHTS} is missing ({found}): save the weights as safetensors under that name.")
    config = reading.read_object(folder / CONFIG)
    kind, channels = config.get("_class_name"), (config.get("in_channels", 3), config.get("out_channels", 3))
    if kind != "VQModel":
        raise AssetError(f"{folder} holds diffusers' {kind}, which is not a VQGAN: give the folder of a VQModel.")
    if channels != (3, 3):
        raise AssetError(
            f"{folder} holds a VQModel of {channels[0]} channels in and {channels[1]} out: "
            "the course's pictures have 3."
        )
    shapes = reading.read_shapes(folder / WEIGHTS)
    try:
        with reading.no_more_than(shapes):
            model, report = vq_model.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
        # diffusers only warns about missing tensors, and leaves their values random
        unfit = sorted([*report["missing_keys"], *report["unexpected_keys"]])
        if unfit:
            raise ValueError(f"missing or too many: {', '.join(unfit[:2])}{' …' if len(unfit) > 2 else ''}")
        reading.check_kinds(model, shapes)
        parts = _parts(model.float())
    except Exception as error:  # a damaged file or a wrong config makes it raise errors of many kinds
        raise AssetError(
            f"The weights of {name} in {folder} are damaged, or do not fit their configuration "
            f"({reading.short(error)}): delete them and get them again."
        ) from error
    reading.check_finite(model.state_dict(), folder / WEIGHTS)
    return parts


def _parts(model: nn.Module) -> Parts:
    codebook = model.quantize.embedding.weight.detach()  # [n_codes, dim]
    factor = 2 ** (len(model.config.block_out_channels) - 1)  # each level but the last halves the side
    side = USUAL_SIZE if model.config.sample_size == UNKNOWN_SIZE else model.config.sample_size
    gates.whole_number("sample_size", side, 1, MOST_SIZE)
    config = FullVQGANConfig(max(side // factor, 1) * factor, *codebook.shape, factor)
    return Parts(config, Encoder(model), Decoder(model), codebook)


def _vq_model_class(name: str) -> type:
    try:
        from diffusers import VQModel
    except (ImportError, RuntimeError) as error:  # diffusers turns an ImportError inside it into a RuntimeError
        raise _no_diffusers(name, reading.short(error)) from error
    return VQModel


def _no_diffusers(name: str, why: str) -> AssetError:
    return AssetError(
        f"{name} needs the package diffusers, which cannot be imported ({why}): "
        'install it with `pip install "mmlesson[full]"`.'
    )
