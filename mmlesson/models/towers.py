"""Image towers: several that look as one (the guide's), and any of them made fast for painting.

`load_guide` in `clip.py` puts the guide's two towers into the pocket CLIP; `CLIP.folded` asks for the fast form.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

GUIDE_WEIGHTS = "visual.safetensors"  # the guide's image towers; its text tower is the pocket CLIP's
SECOND_TOWER = "cs3darknet_s"  # the guide's second tower, by timm's name; the first has the form of the pocket CLIP's


class Towers(torch.nn.Module):
    """Several image towers as one: the mean of their features, each brought to unit length first.

    An ensemble of networks that were trained apart is harder to deceive than any of them (Tramèr et al. 2018,
    "Ensemble Adversarial Training"): a quirk of one tower moves the mean only half as far.
    """

    def __init__(self, towers: Iterable[torch.nn.Module], image_size: int):
        super().__init__()
        self.towers = torch.nn.ModuleList(towers)
        self.image_size = image_size  # pixels a side

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised pixels `[n, 3, image_size, image_size]` → float `[n, dim]`, at most of unit length."""
        features = [F.normalize(tower(inputs), dim=-1) for tower in self.towers]  # each [n, dim]
        return torch.stack(features).mean(0)


def guide_towers(clip, seed: int = 0) -> Towers:
    """Image towers for a new guide: that of `clip` (a `CLIP`), and a fresh one of another architecture.

    The fresh one is timm's small CSPDarknet (Wang et al. 2020, "CSPNet"). It costs two thirds of the first, and its
    weights depend on the seed alone.
    """
    from mmlesson.models.libraries import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        second = timm.create_model(SECOND_TOWER, num_classes=clip.dim)
    return Towers([clip.model.visual, second.to(clip.device)], clip.image_size)


def can_fold(tower: torch.nn.Module) -> bool:
    """True for the towers that `fold` makes faster: open_clip's ResNet and the guide's, outside of training."""
    from mmlesson.models.libraries import open_clip, timm

    convolutional = open_clip.modified_resnet.ModifiedResNet, timm.models.cspnet.CspNet, Towers
    return isinstance(tower, convolutional) and not tower.training


def fold(module: torch.nn.Module) -> torch.nn.Module:
    """Folds every batch norm into the convolution before it, in place; returns the module.

    In `eval` mode a batch norm multiplies each channel by a number and adds another: the convolution's weights and its
    bias can do that. Outputs stay the same but for rounding. Attention pooling then computes only the answer it gives.
    """
    from mmlesson.models.libraries import open_clip

    convolution = None  # the name of the last one seen
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, convolution, torch.nn.utils.fuse_conv_bn_eval(getattr(module, convolution), child))
            activation = getattr(child, "act", torch.nn.Identity())  # timm's batch norms hold the activation after them
            if isinstance(activation, torch.nn.SiLU):
                activation.inplace = False  # its gradient needs its input: in place, torch would copy that first
            setattr(module, name, activation)
        elif isinstance(child, torch.nn.Conv2d):
            convolution = name
        elif isinstance(child, open_clip.modified_resnet.AttentionPool2d):
            setattr(module, name, MeanQueryPool(child))
        else:
            fold(child)
    return module


class MeanQueryPool(torch.nn.Module):
    """open_clip's `AttentionPool2d` at the cost of one query.

    The original asks a query for the mean and one for every place, and keeps only the mean's answer.
    """

    def __init__(self, pool: torch.nn.Module):
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[n, width, h, w]` → `[n, dim]`."""
        pool = self.pool
        places = x.flatten(2).transpose(1, 2)  # [n, h w, width]
        places = torch.cat([places.mean(1, keepdim=True), places], 1) + pool.positional_embedding  # [n, 1 + h w, width]
        query = self._heads(pool.q_proj(places[:, :1]))  # [n, heads, 1, width / heads]
        key = self._heads(pool.k_proj(places))  # [n, heads, 1 + h w, width / heads]
        value = self._heads(pool.v_proj(places))
        attended = F.scaled_dot_product_attention(query, key, value)  # [n, heads, 1, width / heads]
        return pool.c_proj(attended.flatten(1))  # [n, dim]

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.pool.num_heads, -1)).transpose(1, 2)
