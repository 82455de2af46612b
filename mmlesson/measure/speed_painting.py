"""The speed of VQGAN+CLIP against a plain loop, both in one run on the same models: `mmlesson bench paint`.

The peer is a loop in the manner of the public VQGAN+CLIP scripts. It computes in float32, with the networks as torch
and open_clip build them. At every step it quantises the latents, decodes the picture, makes and augments the cutouts
one at a time, and takes a step of Adam on CLIP's loss. Ours is `painter.paint` with the same weights, the same number
of cutouts and steps. Both paint without a prior, which those scripts do not have.

The guide has two image towers. The peer shows every cutout to both, as those scripts do with two CLIPs; ours deals the
cutouts out between them. `ratio_undealt` separates this saving from the others: it gives ours twice the cutouts, as
many for each tower as the peer has.
"""

from __future__ import annotations

import copy
import math
import time
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import painter, runtime
from mmlesson.clip import CLIP, load_guide
from mmlesson.measure.report import Report
from mmlesson.pixels import to_images
from mmlesson.vqgan import VQGAN, load_vqgan

PROMPT = "a cat on a blue background"


def report(options) -> Report:
    """`mmlesson bench paint`."""
    runtime.set_threads()
    figures = bench_paint()
    title = f"painter.paint against a plain loop: {figures['cutouts']} cutouts, {figures['steps']} steps"
    return Report("bench paint", title, figures)


def bench_paint(steps: int = 30, cutouts: int = 16, rounds: int = 5) -> dict[str, float]:
    """The figures of "bench paint" in bars.py. Both sides take turns; each ratio is of two runs of one round."""
    guide, vqgan = load_guide(), load_vqgan()
    plain = as_built(guide, vqgan)
    towers = len(guide.each_tower())
    ours, undealt, theirs = [], [], []

    def paint(n: int, steps: int = steps) -> None:
        painter.paint(PROMPT, guide, vqgan, steps=steps, cutouts=n, prior=None).finish()

    paint_plainly(*plain, 3, cutouts)  # both warm up before the clock runs
    paint(cutouts, steps=3)
    for _ in runtime.progress(range(rounds), description="rounds"):
        theirs.append(_rate(steps, lambda: paint_plainly(*plain, steps, cutouts)))
        ours.append(_rate(steps, lambda: paint(cutouts)))
        undealt.append(_rate(steps, lambda: paint(towers * cutouts)))
    return {
        "ratio": median(own / peer for own, peer in zip(ours, theirs, strict=True)),
        "ratio_undealt": median(own / peer for own, peer in zip(undealt, theirs, strict=True)),
        "steps_per_second": median(ours),
        "peer_steps_per_second": median(theirs),
        "with_prior_steps_per_second": _rate(steps, lambda: painter.paint(PROMPT, guide, vqgan, steps=steps).finish()),
        "cutouts": cutouts,
        "steps": steps,
        "rounds": rounds,
    }


def _rate(steps: int, work) -> float:
    started = time.perf_counter()
    work()
    return steps / (time.perf_counter() - started)


def as_built(clip: CLIP, vqgan: VQGAN) -> tuple[CLIP, VQGAN]:
    """Copies of both in the memory layout of torch and open_clip: our loading changes it to `channels_last`."""
    clip, vqgan = copy.copy(clip), copy.deepcopy(vqgan)
    clip.model = copy.deepcopy(clip.model).to(memory_format=torch.contiguous_format)
    return clip, vqgan.to(memory_format=torch.contiguous_format)


def paint_plainly(clip: CLIP, vqgan: VQGAN, steps: int, n: int, learning_rate: float = 0.1) -> list:
    """The plain loop: `n` cutouts a step; returns the picture of every step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grid, frames = vqgan.config.grid, []
        text_features = clip.encode_texts([PROMPT]).to(clip.device)
        latents = vqgan.latents(torch.randint(len(vqgan.codebook), (1, grid, grid))).clone().requires_grad_()
        optimizer = torch.optim.Adam([latents], lr=learning_rate)
        for _ in range(steps):
            pixels = vqgan.decode_latents(vqgan.quantise(latents).latents)
            cut = torch.cat([_jitter(_turned(_one_cutout(pixels, clip.image_size))) for _ in range(n)])  # one at a time
            cut = cut + torch.randn_like(cut) * 0.05
            loss = (1 - clip.encode_pixels(cut) @ text_features.T).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            frames += to_images(pixels)
        return frames


def _turned(pixels: Tensor) -> Tensor:
    """Turned by up to 10 degrees and shifted by up to a twentieth, at random: [1, 3, h, w] → the same shape.

    torchvision's own augmentations let no gradient through.
    """
    angle = math.radians(20 * torch.rand(()).item() - 10)
    x, y = (0.2 * torch.rand(2) - 0.1).tolist()
    theta = torch.tensor([[[math.cos(angle), -math.sin(angle), x], [math.sin(angle), math.cos(angle), y]]])
    grid = F.affine_grid(theta.to(pixels), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _jitter(pixels: Tensor) -> Tensor:
    """Contrast and colours changed a little, at random: [1, 3, h, w] → the same shape."""
    middle = pixels.mean()
    contrasted = (pixels - middle) * (0.9 + 0.2 * torch.rand(())) + middle
    return contrasted * (0.95 + 0.1 * torch.rand(3, 1, 1))


def _one_cutout(pixels: Tensor, size: int) -> Tensor:
    """A random square of 0.8 to 1 of the side, pooled to `size` pixels: [1, 3, h, w] → [1, 3, size, size]."""
    side = pixels.shape[-1]
    width = int(side * (0.8 + 0.2 * torch.rand(()).item()))
    x, y = (int(torch.randint(side - width + 1, ())) for _ in range(2))
    part = pixels[:, :, y : y + width, x : x + width]
    pooled = F.adaptive_avg_pool2d(part, size) + F.adaptive_max_pool2d(part, size)
    return pooled / 2
