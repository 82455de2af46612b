"""An open_clip model folder, checked before open_clip builds anything from it. `clips.from_folder` asks here.

A folder holds open_clip_config.json, safetensors, perhaps vocabulary.json, and perhaps the files of a tokenizer. The
config is data: it chooses among open_clip's own parts and gives them sizes. It cannot name a Python object, a file or a
program of its own, and what transformers might fetch is refused where it brings code.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates
from mmlesson.gates import AssetError
from mmlesson.models import reading

if TYPE_CHECKING:
    import torch

CONFIG, VOCABULARY = "open_clip_config.json", "vocabulary.json"
SAFE_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
MOST_SIDE = 1024  # pixels: published CLIPs see at most about half of it
MOST_LAYERS = 1000
MOST_SIZE = 10**7  # of any other number in a config; a vocabulary of words is the largest
KEYS = {
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "multimodal_cfg", "init_logit_scale",
    "init_logit_bias", "nonscalar_logit_scale",
}  # fmt: skip
# What the dicts inside a config may hold; open_clip would hand anything on as arguments of constructors.
ARGUMENTS = {
    "norm_kwargs": {"eps": (int, float)},
    "act_kwargs": {"approximate": (str,)},
    "tokenizer_kwargs": {"clean": (str,), "strip_sep_token": (bool,), "language": (str,)},
}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def read_config(folder: Path) -> dict:
    """The config of a model folder, {"model_cfg": {…}, …}. Raises AssetError where it is missing or makes no sense."""
    path = folder / CONFIG
    config = reading.read_object(path, f"a model folder holds it beside {SAFE_WEIGHTS[0]}")
    try:
        _check_model(config.get("model_cfg"))
        _check_preprocess(config.get("preprocess_cfg"))
    except ValueError as error:
        raise AssetError(f"{path} is not the config of an open_clip model, or damaged ({error}).") from error
    return config


def read_vocabulary(folder: Path) -> list[str] | None:
    """The words of the training captions; None where the folder does not list them. Raises AssetError."""
    path = folder / VOCABULARY
    if not path.exists() and not path.is_symlink():
        return None
    words = reading.read_object(path).get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise AssetError(f'{path} is not a list of words, or damaged: it holds {{"words": ["a", "cat", …]}}.')
    return words


def find_weights(folder: Path) -> Path:
    """The weights that open_clip takes from a folder. Raises AssetError where they are missing, or pickled."""
    # open_clip takes SAFE_WEIGHTS first, but a pickle before safetensors of any other name
    try:
        found = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise AssetError(f"{folder} cannot be read ({gates.reason(error)}): {reading.AGAIN}.") from error
    for name in SAFE_WEIGHTS:
        if name in found:
            return folder / name
    pickles = sorted(name for name in found if name.endswith((".bin", ".pth", ".pt")))
    others = sorted(name for name in found if name.endswith(".safetensors"))
    if others and not pickles:
        return folder / ("model.safetensors" if "model.safetensors" in others else others[0])
    what = (
        f"there is only {pickles[0]}, a pickle, which can run any code when it is opened"
        if pickles
        else "there are no weights"
    )
    raise AssetError(
        f"{folder / SAFE_WEIGHTS[0]} is missing ({what}): save the weights as safetensors under that name."
    )


# ------------------------------------------------------------------------------------------- the config


def _check_model(model: object) -> None:
    """Raises ValueError unless this is a `model_cfg` that open_clip can build."""
    from mmlesson.models.libraries import open_clip

    if not isinstance(model, dict):
        raise ValueError('it has no "model_cfg"')
    for key in model:
        if key not in KEYS:
            raise ValueError(f"model_cfg has {key!r}, which no model of open_clip has")
    gates.whole_number("embed_dim", model.get("embed_dim"), 1, MOST_SIZE)
    for name, fields in (("vision_cfg", open_clip.CLIPVisionCfg), ("text_cfg", open_clip.CLIPTextCfg)):
        if not isinstance(model.get(name), dict):
            raise ValueError(f"it has no {name!r}")
        _check_part(name, model[name], {field.name: field.type for field in dataclasses.fields(fields)})
    _check_side(model["vision_cfg"].get("image_size", 224))
    _check_names(model["vision_cfg"], model["text_cfg"])


def _check_part(name: str, part: dict, types: dict) -> None:
    for key, value in part.items():
        what = f"{name}.{key}"
        if key not in types:
            raise ValueError(f"{name} has {key!r}, which no model of open_clip has")
        if value is None or key == "image_size":
            continue
        if key in ARGUMENTS:
            _check_arguments(what, value, ARGUMENTS[key])
        elif isinstance(value, list):
            if key not in ("layers", "patch_size") or len(value) not in (2, 4):
                raise ValueError(f"{what} must not be a list of {len(value)}")
            for one in value:
                gates.whole_number(what, one, 1, MOST_LAYERS)
        elif types[key] is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{what} must be true or false, not {value!r:.60}")
        elif types[key] is int or key in ("layers", "patch_size"):
            most = MOST_LAYERS if key == "layers" else MOST_SIZE
            gates.whole_number(what, value, 0 if key in ("pad_id", "eos_id") else 1, most)
        elif isinstance(value, dict) or (types[key] is str) != isinstance(value, str) and types[key] in (str, float):
            raise ValueError(f"{what} must not be {value!r:.60}")
        elif not isinstance(value, str):
            gates.real_number(what, value, least=0, most=MOST_SIZE)


def _check_arguments(what: str, given: object, known: dict[str, tuple[type, ...]]) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{what} must be an object, not {given!r:.60}")
    for key, value in given.items():
        if key not in known or not isinstance(value, known[key]):
            raise ValueError(f"{what} must not hold {key!r}: {value!r:.60}")


def _check_side(size: object) -> None:
    for one in size if isinstance(size, list) and len(size) == 2 else [size]:
        gates.whole_number("vision_cfg.image_size", one, 8, MOST_SIDE)


def _check_names(vision: dict, text: dict) -> None:
    """Raises ValueError where a config names a network of another library that there is not, or a path."""
    network = vision.get("timm_model_name")
    if network is not None:
        from mmlesson.models.libraries import timm

        if not isinstance(network, str) or not timm.is_model(network):
            raise ValueError(f"vision_cfg.timm_model_name: timm has no network {network!r:.60}")
    for key in ("hf_model_name", "hf_tokenizer_name"):
        name = text.get(key)
        if name in (None, ""):
            continue
        if not isinstance(name, str) or not HUB_NAME.fullmatch(name) or ".." in name or Path(name).exists():
            raise ValueError(f"text_cfg.{key}: {name!r:.60} is no name on the hub")


def _check_preprocess(values: object) -> None:
    if values is None:
        return
    if not isinstance(values, dict):
        raise ValueError(f"preprocess_cfg must be an object, not {values!r:.60}")
    for key, least in (("mean", -1e3), ("std", 1e-3)):
        found = values.get(key)
        if found is None:
            continue
        if not isinstance(found, list) or len(found) != 3:
            raise ValueError(f"preprocess_cfg.{key} must be three numbers, not {found!r:.60}")
        for one in found:
            gates.real_number(f"preprocess_cfg.{key}", one, least=least, most=1e3)
    for key, known in (
        ("interpolation", ("bicubic", "bilinear", "random")),
        ("resize_mode", ("shortest", "longest", "squash")),
        ("mode", ("RGB",)),
    ):
        if values.get(key) not in (None, *known):
            raise ValueError(f"preprocess_cfg.{key} must be {' or '.join(known)}, not {values[key]!r:.60}")
    gates.whole_number("preprocess_cfg.fill_color", values.get("fill_color", 0), 0, 255)


# ------------------------------------------------------------------------------------------- the network


@contextmanager
def no_foreign_code() -> Iterator[None]:
    """A context in which transformers, where it is installed, refuses code that a model brings, and does not ask."""
    try:
        from transformers import dynamic_module_utils
    except ImportError:
        yield
        return
    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds that a question "run this code?" would wait
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


def check_built(model: torch.nn.Module) -> None:
    """Raises ValueError where the network that was built sees pictures of an absurd size."""
    size = model.visual.image_size
    _check_side(list(size) if isinstance(size, tuple) else size)


def plain_text(tokenizer) -> None:
    """Have a tokenizer read its own signs, such as "<end_of_text>", as letters where they stand in a text.

    Otherwise a text could end itself in the middle: CLIP reads the place of the first end. All other texts become the
    same tokens as before.
    """
    import regex

    if hasattr(tokenizer, "pat"):  # open_clip's own: the signs are the first alternatives of its pattern
        signs = [tokenizer.decoder[number] for number in tokenizer.all_special_ids]
        pattern = tokenizer.pat.pattern.removeprefix("|".join(signs) + "|")
        tokenizer.pat = regex.compile(pattern, regex.IGNORECASE)
    elif hasattr(tokenizer, "tokenizer"):  # of transformers
        tokenizer.tokenizer.split_special_tokens = True


def try_out(model: torch.nn.Module, preprocess, tokenizer) -> None:
    """Embeds one text and one small picture. The tokenizer reads texts from outside from now on (`plain_text`).

    Raises ValueError where no two vectors of one length come out.
    """
    import torch
    from PIL import Image

    plain_text(tokenizer)
    with torch.no_grad():
        device = next(model.parameters()).device
        text = model.encode_text(tokenizer(["a"]).to(device))
        image = model.encode_image(preprocess(Image.new("RGB", (8, 8)))[None].to(device))
    if text.shape != image.shape or text.ndim != 2 or len(text) != 1:
        raise ValueError(f"a text becomes {list(text.shape)} and a picture {list(image.shape)}")
    length = (text.norm() * image.norm()).item()
    if not math.isfinite(length):
        raise ValueError("its embeddings are not finite")
