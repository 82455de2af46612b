"""The form of the photo CLIP: what open_clip builds, a fresh model of it, and the names that its backbone knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

NAME = "photo-clip"
LICENCE = "research and teaching"  # of its weights: as of the photographs that it learned from
SIDE = 224  # pixels a side of the pictures that it sees
BACKBONE = "tf_efficientnet_lite2"  # of the image tower, by timm's name
CONTEXT_LENGTH = 32  # tokens of a text, start and end included
FORM = {  # the arguments of open_clip.CLIP; written to open_clip_config.json beside the weights
    "embed_dim": 384,
    "vision_cfg": {"timm_model_name": BACKBONE, "timm_pool": "avg", "timm_proj": "mlp", "image_size": SIDE},
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}


def new_photo_clip(seed: int = 0) -> nn.Module:
    """A fresh, untrained photo CLIP, float32, on the CPU. Its weights depend on the seed alone."""
    import torch

    from mmlesson.models.libraries import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(**FORM)


def class_names() -> list[list[str]]:
    """The 1,000 names of ImageNet, which the backbone was trained on, each with its synonyms."""
    from mmlesson.models.libraries import timm

    return [[name.strip() for name in names.split(",")] for names in timm.data.ImageNetInfo().label_descriptions()]
