"""Where a CLIP's networks, preprocessing and words come from: a folder, the Hugging Face hub, or open_clip's own list.

`clip.load_clip` asks here. open_clip builds every model; what comes back is always trained, and never unpickled.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmlesson.gates import AssetError
from mmlesson.models import folders, hub

SAFE_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
WAYS_OUT = (
    "connect this machine to the internet once and load it again",
    "use the pocket model, load_clip()",
    "copy a model folder here and load it with load_clip('local-dir:path/to/folder')",
)


@dataclass(frozen=True)
class Parts:
    """What a CLIP is made of."""

    model: (
        torch.nn.Module
    )  # open_clip's: `encode_image(pixels)`, `encode_text(tokens)`, `logit_scale`; frozen, in `eval` mode
    preprocess: Callable  # PIL picture → float32 [3, image_size, image_size], normalised
    tokenizer: Callable  # texts → int64 [n, context_length]
    name: str  # what was asked for
    vocabulary: Sequence[str] | None  # the words that the training captions held; None where that is not known


def from_folder(folder: Path, name: str, device: torch.device) -> Parts:
    """An open_clip model folder: open_clip_config.json, safetensors, and perhaps vocabulary.json."""
    if not folder.is_dir():
        raise AssetError(f"There is no folder {folder}: check the path after 'local-dir:'.")
    config_file = folder / "open_clip_config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))["model_cfg"]
        words = folder / "vocabulary.json"
        vocabulary = json.loads(words.read_text(encoding="utf-8"))["words"] if words.is_file() else None
    except FileNotFoundError:
        raise AssetError(f"{config_file} is missing: a model folder holds it beside {SAFE_WEIGHTS[0]}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{folder} is not an open_clip model folder, or damaged ({type(error).__name__}: {error})."
        ) from error
    # open_clip takes SAFE_WEIGHTS first, but a pickle before safetensors of any other name
    pickles = sorted(path.name for suffix in ("bin", "pth", "pt") for path in folder.glob(f"*.{suffix}"))
    if not any((folder / weights).is_file() for weights in SAFE_WEIGHTS) and (
        pickles or not any(folder.glob("*.safetensors"))
    ):
        found = (
            f"there is only {pickles[0]}, a pickle, which can run any code when it is opened"
            if pickles
            else "there are no weights"
        )
        raise AssetError(
            f"{folder / SAFE_WEIGHTS[0]} is missing ({found}): save the weights as safetensors under that name."
        )
    return _build(f"local-dir:{folder}", config, name, device, str(folder), vocabulary)


def from_hub(repository: str, name: str, device: torch.device) -> Parts:
    """A repository on the hub that is an open_clip model folder, both files of the same commit."""
    weights = hub.hub_file(repository, SAFE_WEIGHTS, name, WAYS_OUT)
    hub.hub_file(repository, ("open_clip_config.json",), name, WAYS_OUT, revision=weights.parent.name)
    return from_folder(weights.parent, name, device)


def from_tag(name: str, device: torch.device) -> Parts:
    """One of open_clip's own "architecture/tag"; its list knows the repository and the preprocessing."""
    import open_clip

    architecture, _, tag = name.rpartition("/")
    published = open_clip.get_pretrained_cfg(architecture.replace("/", "-"), tag)  # ViT-B/32 is ViT-B-32
    if not published:
        known = ["/".join(pair) for pair in open_clip.list_pretrained()]
        near = [one for one in known if one.lower().startswith(name.lower())] or difflib.get_close_matches(
            name, known, 3, 0.3
        )
        if Path(name).is_dir():
            near = [f"local-dir:{name}"]
        raise ValueError(
            f"There is no CLIP named {name!r}. Near it: {', '.join(near[:3]) or 'nothing'}. "
            f"A name is pocket-clip, ARCHITECTURE/WEIGHTS of open_clip, hf-hub:… or local-dir:…."
        )
    architecture = architecture.replace("/", "-")
    repository, filename = os.path.split(published["hf_hub"])
    candidates = (str(Path(filename).with_suffix(".safetensors")),) if filename else ()
    weights = hub.hub_file(repository, candidates + SAFE_WEIGHTS, name, WAYS_OUT)
    preprocess = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    config = open_clip.get_model_config(architecture)
    return _build(
        architecture, config, name, device, str(weights),
        pretrained=str(weights), force_preprocess_cfg=preprocess, force_quick_gelu=published.get("quick_gelu", False),
    )  # fmt: skip


def _build(source: str, config: dict, name: str, device: torch.device, where: str, vocabulary=None, **options) -> Parts:
    """Let open_clip build the model and put the weights in."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from safetensors import SafetensorError

    text = config.get("text_cfg", {})
    if (text.get("hf_model_name") or text.get("hf_tokenizer_name")) and importlib.util.find_spec(
        "transformers"
    ) is None:
        raise AssetError(
            f"{name} reads text with the package transformers: install it with `pip install transformers`."
        )
    try:
        # open_clip only logs a warning and returns a random model without require_pretrained
        model = open_clip.create_model(source, device=device, require_pretrained=True, pretrained_text=False, **options)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        raise AssetError(
            f"The weights of {name} in {where} are damaged, or do not fit their configuration "
            f"({str(error).strip().splitlines()[0][:160]}): delete them and get them again."
        ) from error
    folders.check_finite(model.state_dict(), f"The weights file of {name} in {where}")
    model.eval().requires_grad_(False)
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)  # the same numbers; convolutions run a fifth faster
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return Parts(model, preprocess, open_clip.get_tokenizer(source), name, vocabulary)
