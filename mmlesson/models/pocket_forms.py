"""The forms of the course's two small CLIPs: what open_clip builds them from, and a fresh model of either.

pocket-clip   the ModifiedResNet of CLIP's own RN50, made small, and a small text transformer
judge-clip    timm's ResNet-10-T and a smaller text transformer, so that its mistakes differ from the pocket CLIP's
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

IMAGE_SIZE = 64  # pixels a side, of both models
CONTEXT_LENGTH = 32  # tokens of a text, start and end included, of both models
FORMS = {  # by name, the arguments of open_clip.CLIP; written to open_clip_config.json beside the weights
    "pocket-clip": {
        "embed_dim": 256,
        "vision_cfg": {"layers": [1, 2, 2, 2], "width": 32, "head_width": 64, "image_size": IMAGE_SIZE},
        "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 192, "heads": 6, "layers": 3},
    },
    "judge-clip": {
        "embed_dim": 256,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_pool": "abs_attn",
            "timm_proj": "",
            "image_size": IMAGE_SIZE,
        },
        "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 112, "heads": 4, "layers": 3},
    },
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}


def new_clip(seed: int = 0, name: str = "pocket-clip") -> nn.Module:
    """A fresh, untrained open_clip model of the form `name`, float32, on the CPU. Its weights depend on the seed alone.

    Raises ValueError where FORMS has no such name.
    """
    if name not in FORMS:
        raise ValueError(f"There is no form {name!r} of a CLIP; there are {', '.join(FORMS)}.")
    import torch

    from mmlesson.models.libraries import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(**FORMS[name])
