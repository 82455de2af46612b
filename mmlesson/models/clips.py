"""Where a CLIP's networks, preprocessing and words come from: a folder, the Hugging Face hub, or open_clip's own list.

`clip.load_clip` asks here. open_clip builds every model; what comes back is always trained, and never unpickled.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmlesson.gates import AssetError
from mmlesson.models import clip_folders, familiar, hub, reading
from mmlesson.models.clip_folders import SAFE_WEIGHTS

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
    familiarity: familiar.Familiarity | None = None  # statistics of the pictures that it learned from, where known


def from_folder(folder: Path, name: str, device: torch.device) -> Parts:
    """An open_clip model folder: open_clip_config.json, safetensors, and perhaps vocabulary.json and statistics.

    It may come from anywhere: each file is checked before open_clip sees it (`clip_folders`).
    """
    if not folder.is_dir():
        raise AssetError(f"There is no folder {folder}: check the path after 'local-dir:'.")
    config = clip_folders.read_config(folder)["model_cfg"]
    vocabulary = clip_folders.read_vocabulary(folder)
    weights = clip_folders.find_weights(folder)
    parts = _build(f"local-dir:{folder}", config, name, device, weights, vocabulary)
    return replace(parts, familiarity=familiar.read(folder, parts.model))


def from_hub(repository: str, name: str, device: torch.device) -> Parts:
    """A repository on the hub that is an open_clip model folder, both files of the same commit."""
    weights = hub.hub_file(repository, SAFE_WEIGHTS, name, WAYS_OUT)
    hub.hub_file(repository, ("open_clip_config.json",), name, WAYS_OUT, revision=weights.parent.name)
    return from_folder(weights.parent, name, device)


def from_tag(name: str, device: torch.device) -> Parts:
    """One of open_clip's own "architecture/tag"; its list knows the repository and the preprocessing."""
    from mmlesson.models.libraries import open_clip

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
        architecture, config, name, device, weights,
        pretrained=str(weights), force_preprocess_cfg=preprocess, force_quick_gelu=published.get("quick_gelu", False),
    )  # fmt: skip


def _build(source: str, config: dict, name: str, device: torch.device, weights: Path, words=None, **options) -> Parts:
    """Let open_clip build the model and put the weights in."""
    from mmlesson.models.libraries import open_clip

    text = config.get("text_cfg", {})
    read_by_transformers = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    if read_by_transformers and importlib.util.find_spec("transformers") is None:
        raise AssetError(
            f"{name} reads text with the package transformers: install it with `pip install transformers`."
        )
    if text.get("hf_model_name"):  # asked for here, where a network that is away costs seconds and not minutes
        hub.hub_file(text["hf_model_name"], ("config.json",), name, WAYS_OUT)
    shapes = reading.read_shapes(weights)
    try:
        with reading.no_more_than(shapes), clip_folders.no_foreign_code():
            # open_clip only logs a warning and returns a random model without require_pretrained
            model = open_clip.create_model(
                source, device=device, require_pretrained=True, pretrained_text=False, **options
            )
        reading.check_kinds(model, shapes)
        clip_folders.check_built(model)
    except Exception as error:  # a wrong config makes open_clip, timm and transformers raise errors of every kind
        raise AssetError(
            f"The weights of {name} in {weights} are damaged, or do not fit their configuration "
            f"({reading.short(error)}): delete them and get them again."
        ) from error
    reading.check_finite(model.state_dict(), f"The weights file of {name} in {weights}")
    model.eval().requires_grad_(False)
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)  # the same numbers; convolutions run a fifth faster
    try:
        with clip_folders.no_foreign_code():
            code = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
            tokenizer = open_clip.get_tokenizer(source, **code)
        form = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
        preprocess = open_clip.transform.image_transform_v2(form, is_train=False)
        clip_folders.try_out(model, preprocess, tokenizer)
    except Exception as error:  # as above
        raise AssetError(
            f"{name} in {weights.parent} cannot read texts or pictures ({reading.short(error)}): "
            "its config or its tokenizer is damaged or missing, get the folder again."
        ) from error
    return Parts(model, preprocess, tokenizer, name, words)
