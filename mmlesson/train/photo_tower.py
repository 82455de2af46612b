"""The image tower of the photo CLIP, taken apart for training, and what happens to pictures on their way into it.

A batch norm that no longer changes is a multiplication and an addition, which the convolution before it can do as well.
So the image tower is trained without batch norms ("folded"), in less time. It gets them back at the end ("unfolded"),
because open_clip builds the model with them.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import runtime
from mmlesson.models.photo_form import new_photo_clip
from mmlesson.models.towers import fold
from mmlesson.train.photo_data import Data


def folded_trunk(classifier: nn.Module) -> nn.Module:
    """The classifier without its last layer, its batch norms folded into its convolutions."""
    trunk = copy.deepcopy(classifier)
    trunk.reset_classifier(0)
    return fold(trunk.eval()).to(memory_format=torch.channels_last)


def unfolded(model: nn.Module) -> nn.Module:
    """The same CLIP as open_clip builds it: the offset of a convolution becomes that of the batch norm behind it."""
    plain, state = new_photo_clip(), model.state_dict()
    convolutions = [part for part in model.visual.trunk.modules() if isinstance(part, nn.Conv2d)]
    pairs = [part for part in plain.visual.trunk.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    with torch.no_grad():
        for folded, convolution, norm in zip(convolutions, pairs[::2], pairs[1::2], strict=True):
            convolution.weight.copy_(folded.weight)
            norm.weight.fill_(1)
            norm.bias.copy_(folded.bias)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    others = {name: value for name, value in state.items() if not name.startswith("visual.trunk.")}
    plain.load_state_dict({**plain.state_dict(), **others})
    return plain.eval()


def early(trunk: nn.Module, pixels: Tensor, frozen: int) -> Tensor:
    """The stages that stay as they are: normalised pixels [n, 3, h, w] → [n, width, h / 8, w / 8]."""
    with torch.no_grad(), runtime.autocast(pixels.device):
        return trunk.blocks[:frozen](trunk.bn1(trunk.conv_stem(pixels)))


def late(trunk: nn.Module, hidden_states: Tensor, frozen: int) -> Tensor:
    """The other stages and the pooling: → [n, 1280]."""
    return trunk.forward_head(trunk.bn2(trunk.conv_head(trunk.blocks[frozen:](hidden_states))), pre_logits=True)


def augment(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Crops, flips, contrast, saturation, light and colour casts; normalised for the tower.

    pixels: uint8 [n, side, side, 3]; returns float32 [n, 3, size, size].
    """
    n = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    area, ratio = uniform(0.3, 1.0), uniform(-0.22, 0.22).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = width * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)  # half of them mirrored
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, (n, 3, size, size), align_corners=False)
    x = F.grid_sample(pixels.permute(0, 3, 1, 2).float() / 255, grid, padding_mode="reflection", align_corners=False)
    middle, grey = x.mean((2, 3), keepdim=True), x.mean(1, keepdim=True)
    x = (x - middle) * uniform(0.7, 1.3, 1, 1, 1) + middle
    x = grey + (x - grey) * uniform(0.5, 1.4, 1, 1, 1)
    x = x * uniform(0.75, 1.25, 1, 1, 1) * uniform(0.93, 1.07, 3, 1, 1)
    return (x.clamp(0, 1) * 2 - 1).contiguous(memory_format=torch.channels_last)


def dropout(features: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """`torch.nn.functional.dropout` with a generator of its own."""
    return features * (torch.rand(features.shape, generator=generator) >= share) / (1 - share)


def pixels_of(data: Data, rows: Tensor) -> Tensor:
    return torch.from_numpy(data.pixels[rows.numpy()])  # uint8 [n, side, side, 3]
