"""VQGAN+CLIP: a sentence becomes a picture, step by step.

    for step in paint("a cat on a blue background", guide, vqgan, seed=0):
        step.image, step.loss, step.scores

The method is Crowson et al. 2022, "VQGAN-CLIP: Open Domain Image Generation and Editing with Natural Language
Guidance". Start with random codes and decode them. Let CLIP say how well many *cutouts* of the picture match the
prompt. Compute the gradient of that loss for the latents, and move the latents. Repeat. Nothing is trained: the weights
of CLIP and VQGAN do not change. `paint_plainly` below is this loop.

Alone, the loop finds pictures that get a high score from CLIP and show nothing. Two things make it paint. The first is
the guide, a CLIP that was trained on half-finished pictures: its gradient points to where a picture of the prompt
begins (Kaur et al. 2019, "Are Perceptually-Aligned Gradients a General Property of Robust Classifiers?"). The second is
the prior over codes (`prior.py`), which has never read a word but knows what pictures look like. At every step the
prior restores a picture from a blend of latents and random codes, and CLIP's gradient pushes the blend towards the
prompt (Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", classifier guidance; Bansal et al.
2023, "Universal Guidance for Diffusion Models"). `paint_with_prior` below is this second loop.

Weighted prompts, a picture to start from and the animation come from Pixray (github.com/pixray/pixray).
"""

from __future__ import annotations

import functools
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmlesson import gates, runtime
from mmlesson import prior as priors
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.pixels import check_size, save_gif, to_images
from mmlesson.prior import Prior
from mmlesson.prompts import Prompt, parse_prompts
from mmlesson.vqgan import POCKET as POCKET_VQGAN
from mmlesson.vqgan import VQGAN

AUTO = "auto"
START_CLARITY = 0.02  # the clarity that the prior is given for a blend of random codes alone


@dataclass(frozen=True)
class PaintStep:
    """One step of a painting."""

    index: int  # 1 … steps
    image: Image.Image  # the picture after this step: RGB, as large as the VQGAN makes it
    loss: float  # what the steps lower: 1 - the weighted mean cosine of the cutouts with the prompts
    scores: dict[str, float]  # name of a prompt -> the mean cosine of the cutouts with it, -1…1
    codes: Tensor  # int64 [h, w], the codes nearest to the latents


# ---------------------------------------------------------------------------------------------------
# The two loops. `guide.look` makes cutouts, shows them to CLIP and compares them with the prompts.


def paint_plainly(guide: Guide, vqgan: VQGAN, latents: Tensor, options: PaintOptions) -> Iterator[PaintStep]:
    """The loop as it was first published: Adam moves the latents `[1, dim, h, w]`."""
    learning_rate = 0.1 if options.learning_rate is None else options.learning_rate
    latents = latents.clone().requires_grad_()  # what is painted; all weights stay as they are
    optimizer = torch.optim.Adam([latents], lr=learning_rate)
    for index in range(1, options.steps + 1):
        with torch.enable_grad(), runtime.autocast(vqgan.device):
            quantised = vqgan.quantise(latents)  # the nearest codes; gradients pass straight through
            pixels = vqgan.decode_latents(quantised.latents)  # [1, 3, side, side]
            losses, cosines = guide.look(pixels)  # [1], [1, prompts]
        optimizer.zero_grad()
        losses.sum().backward()  # back through CLIP, the cutouts and the decoder, to the latents
        optimizer.step()
        scores = guide.scores(cosines[0])
        yield PaintStep(index, to_images(pixels)[0], losses.item(), scores, quantised.codes[0].cpu())


def paint_with_prior(
    guide: Guide, vqgan: VQGAN, prior: Prior, latents: Tensor | None, options: PaintOptions, generator: torch.Generator
) -> Iterator[PaintStep]:
    """From random codes to a picture: at each step the prior restores, CLIP pushes, and the blend gets clearer.

    Several sketches grow side by side. After a third and after two thirds of the steps, the half with the higher losses
    is dropped. Each step shows the sketch whose recent losses are the lowest.

    latents   `[1, dim, h, w]` of a picture to start from; None: random codes
    """
    learning_rate = 0.8 if options.learning_rate is None else options.learning_rate
    spread = prior.codebook.std()
    blended = prior.random_latents(options.sketches, vqgan.config.grid, generator)  # [sketches, dim, h, w]
    first = START_CLARITY
    if latents is not None:
        first = max(START_CLARITY, options.keep)
        blended = priors.blend(latents, blended, first)
    recent = torch.zeros(len(blended))  # a running mean of the losses, one for each sketch
    for index in range(1, options.steps + 1):
        if index - 1 in (options.steps // 3, 2 * options.steps // 3):
            better = recent.argsort()[: (len(recent) + 1) // 2]
            blended = blended[better]
            recent = recent[better]
        clarity = first + (1 - first) * priors.schedule((index - 1) / options.steps)  # now
        clearer = first + (1 - first) * priors.schedule(index / options.steps)  # after this step

        with torch.enable_grad(), runtime.autocast(vqgan.device):
            blended = blended.detach().requires_grad_()
            restored = prior.restore(blended, clarity)  # [sketches, dim, h, w]
            pixels = vqgan.decode_latents(restored)  # [sketches, 3, side, side]
            losses, cosines = guide.look(pixels)  # [sketches], [sketches, prompts]
            (gradient,) = torch.autograd.grad(losses.sum(), blended)  # [sketches, dim, h, w]
        restored = restored.detach()
        blended = blended.detach()

        size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12  # of each sketch's gradient
        push = _push_rate(clarity, learning_rate) * spread * gradient / size
        # go towards the restored and pushed picture, as far as the clarity grows; at clarity 1 the blend reaches it
        blended = blended + (clearer - clarity) / (1 - clarity) * (restored - push - blended)

        recent.lerp_(losses.detach().cpu(), 0.3)
        best = int(recent.argmin())
        codes = vqgan.quantise(restored).codes.cpu()  # [sketches, h, w]
        is_last = index == options.steps  # the last picture is exactly what its codes decode to
        image = vqgan.decode(codes[best])[0] if is_last else to_images(pixels[best])[0]
        yield PaintStep(index, image, losses[best].item(), guide.scores(cosines[best]), codes[best])


def _push_rate(clarity: float, rate: float) -> float:
    """How far a step pushes: farthest at the start, when everything is open; not at all at clarity 1."""
    return rate * (1 - clarity) * (1 + 3 * max(0.0, 1 - clarity / 0.15))


# ---------------------------------------------------------------------------------------------------
# What CLIP says about a picture


def cutouts(
    pixels: Tensor, n: int, size: int, generator: torch.Generator, smallest: float = 0.9, jitter: float = 1.0
) -> Tensor:
    """`n` random cutouts of each picture: pixels `[m, 3, h, w]` in 0…1 → `[m · n, 3, size, size]`. Keeps gradients.

    A cutout is a square somewhere in the picture. Its side is `smallest` to 1 of the picture's side or a little more,
    and it is scaled to `size` pixels. Its light, contrast and colours change a little, and noise is added (values can
    leave 0…1). A picture that fits the prompt in all cutouts does not depend on single pixels. `jitter` scales the
    changes; 0 makes none.
    """
    total = len(pixels) * n

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (torch.rand(total, *shape, generator=generator) * (high - low) + low).to(pixels.device)

    side = uniform(smallest, 1 + 0.1 * jitter, 1)  # [total, 1], as a share of the picture's side
    middle = uniform(-1, 1, 2) * (1 - side).abs()  # [total, 2], where the picture goes from -1 to 1
    zero = torch.zeros_like(side)
    theta = torch.cat([side, zero, middle[:, :1], zero, side, middle[:, 1:]], dim=1).view(-1, 2, 3)
    if pixels.shape[-1] > size:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    grid = F.affine_grid(theta, [total, 3, size, size], align_corners=False)
    cut = pixels.repeat_interleave(n, 0)  # [total, 3, h, w]
    cut = F.grid_sample(cut, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if jitter == 0:
        return cut  # [total, 3, size, size]
    contrast = 1 + jitter * uniform(-0.15, 0.15, 1, 1, 1)
    mean = cut.mean((2, 3), keepdim=True)
    cut = (cut - mean) * contrast + mean
    light = 1 + jitter * uniform(-0.08, 0.08, 1, 1, 1)
    colour_cast = jitter * uniform(-0.03, 0.03, 3, 1, 1)
    cut = cut * light + colour_cast
    noise = torch.randn(cut.shape, generator=generator).to(cut.device)
    return cut + noise * jitter * uniform(0, 0.05, 1, 1, 1)


def guidance_loss(image_features: Tensor, text_features: Tensor, weights: Tensor) -> Tensor:
    """1 - the weighted mean cosine of unit features: `[n, dim]`, `[prompts, dim]`, `[prompts]` → a scalar in 0…2."""
    return (1 - image_features @ text_features.T @ weights / weights.abs().sum()).mean()


class Guide:
    """What one or several CLIPs say about pictures. Prompts are encoded once; each look makes new cutouts.

    A CLIP can have several image towers: the course's guide has two. The cutouts of a look are shared out among all
    towers, at least one each. All towers see different cutouts, and every tower compares them with the text features of
    its own CLIP.
    """

    def __init__(
        self, prompts: Sequence[Prompt], clips: Sequence[CLIP], options: PaintOptions, generator: torch.Generator
    ):
        self.names = [prompt.name for prompt in prompts]
        self.weights = torch.tensor([prompt.weight for prompt in prompts])  # [prompts]
        self.options = options
        self.generator = generator
        self.towers: list[
            tuple[CLIP, Tensor]
        ] = []  # a CLIP with this tower alone, and the prompts' features [prompts, dim]
        for clip in clips:
            features = self._encode(prompts, clip)
            self.towers += [(tower.folded(), features) for tower in clip.each_tower()]
        self.share = math.ceil(options.cutouts / len(self.towers))  # cutouts for each tower

    @staticmethod
    def _encode(prompts: Sequence[Prompt], clip: CLIP) -> Tensor:
        features = []
        for prompt in prompts:
            encode = clip.encode_texts if isinstance(prompt.content, str) else clip.encode_images
            features.append(encode([prompt.content]))  # [1, dim]
        return torch.cat(features).to(clip.device)  # [prompts, dim]

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels `[m, 3, h, w]` → the loss of each picture, and its mean cosine with each prompt, over all towers.

        float32 `[m]`, with gradients, and float32 `[m, prompts]`, without.
        """
        options = self.options
        losses = []
        cosines = []
        for tower, texts in self.towers:
            cut = cutouts(
                pixels, self.share, tower.image_size, self.generator, options.smallest_cutout, options.jitter
            )  # [m · share, 3, size, size]
            features = tower.encode_pixels(cut).float().unflatten(0, (len(pixels), self.share))  # [m, share, dim]
            with runtime.autocast(pixels.device, enabled=False):  # bfloat16 is too coarse for cosines
                weights = self.weights.to(texts)
                losses.append(torch.stack([guidance_loss(each, texts, weights) for each in features]))  # [m]
                cosines.append((features.detach() @ texts.T).mean(1))  # [m, prompts]
        return torch.stack(losses).mean(0), torch.stack(cosines).mean(0)

    def scores(self, cosines: Tensor) -> dict[str, float]:
        """Cosines `[prompts]` by the names of the prompts."""
        return dict(zip(self.names, cosines.tolist(), strict=True))


# ---------------------------------------------------------------------------------------------------
# A painting


class Painting:
    """A painting in progress: an iterator of `PaintStep`.

    A step is computed when it is asked for; you may stop at any time.

    steps   all steps so far
    total   how many steps there will be
    best    the step with the highest weighted score, None before the first step; with a prior it is always the last
            step, because the steps before it show unfinished pictures
    """

    def __init__(self, prompts: Sequence[Prompt], steps: Iterator[PaintStep], total: int, counts_from: int):
        self.prompts = list(prompts)
        self.total = total
        self.steps: list[PaintStep] = []
        self.best: PaintStep | None = None
        self._steps = steps
        self._counts_from = counts_from  # before this step, the newest step is the best one

    def __iter__(self) -> Painting:
        return self

    def __next__(self) -> PaintStep:
        step = next(self._steps)
        self.steps.append(step)
        early = self.best is None or self.best.index < self._counts_from
        if early or self.score(step) >= self.score(self.best):
            self.best = step
        return step

    def score(self, step: PaintStep) -> float:
        """The weighted mean cosine of a step with the prompts, -1…1."""
        weighted = sum(prompt.weight * step.scores[prompt.name] for prompt in self.prompts)
        return weighted / sum(abs(prompt.weight) for prompt in self.prompts)

    def finish(self) -> PaintStep:
        """Runs all steps that are left, and returns the best step."""
        for _ in self:
            pass
        return self.best

    def close(self) -> None:
        """Ends the painting: no more steps follow."""
        self._steps.close()

    def save_animation(self, path: str | Path, fps: float = 12, side: int = 288) -> Path:
        """Writes the steps so far as an animation, `side` pixels wide and high; returns its path.

        The best step stays on for a second at the end.

        A path that ends in .gif gives a GIF; .mp4 needs the program ffmpeg. Raises ValueError for another ending, or
        before the first step; AssetError where ffmpeg is missing or fails, or where the file cannot be written.
        """
        path = Path(path)
        if not self.steps:
            raise ValueError("there is nothing to animate yet: paint a few steps first.")
        check_animation(path, len(self.steps), fps, side)
        frames = [step.image for step in self.steps] + [self.best.image] * round(fps)
        frames = [frame.resize((side, side), Image.Resampling.BICUBIC) for frame in frames]
        return save_gif(frames, path, fps) if path.suffix.lower() == ".gif" else _save_mp4(frames, path, fps)


def check_animation(path: str | Path, steps: int, fps: float = 12, side: int = 288) -> None:
    """Raises the errors of `Painting.save_animation` that are known before anything is painted.

    So it does for an animation that is too large for its format (ImageError) or for the free memory (AssetError).
    """
    path = Path(path)
    gates.whole_number("side", side, 1)
    gates.real_number("fps", fps, least=0.1, most=50)
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"an animation is a .gif or a .mp4, not {path.name!r}.")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise AssetError("the program ffmpeg, which writes .mp4 files, is not installed: install it, or save a .gif.")
    check_size(path, side, side)
    n = steps + round(fps)
    what = f"an animation of {n:,} pictures, {side:,} x {side:,} pixels each,"
    gates.check_memory(what, 4 * n * side**2, "choose fewer steps or a smaller side")  # 3 bytes as RGB, 1 in a palette


def _save_mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> Path:
    with tempfile.TemporaryDirectory(prefix="mmlesson-") as folder:
        for number, frame in enumerate(frames):
            frame.save(Path(folder) / f"{number:05d}.png")
        command = ["ffmpeg", "-loglevel", "error", "-y", "-framerate", str(fps), "-i", f"{folder}/%05d.png"]
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", f"{folder}/film.mp4"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise AssetError(f"ffmpeg could not write {path.name}: {result.stderr.strip()[:200]}")
        return gates.write_result(path, (Path(folder) / "film.mp4").read_bytes())


# ---------------------------------------------------------------------------------------------------
# From prompts to a painting


@dataclass(frozen=True)
class PaintOptions:
    """The options of `paint`."""

    steps: int = 80
    seed: int = 0
    cutouts: int = 2  # cutouts a step, shared out among the guide's towers
    smallest_cutout: float = 0.95  # share of the picture's side; 0.5 for full-size models, which know parts of things
    jitter: float = 0.5  # how much cutouts differ in light, colour and noise; 0: not at all
    # with a prior: how far a step pushes, in spreads of the codebook (None: 0.8); without: Adam's (None: 0.1)
    learning_rate: float | None = None
    sketches: int = 4  # with a prior: pictures that grow side by side; the worse half is dropped twice on the way
    keep: float = 0.2  # with a prior and a picture to start from: how much of it is kept, as a clarity in 0…0.95

    def __post_init__(self):
        for name in ("steps", "cutouts", "sketches"):
            gates.whole_number(name, getattr(self, name), 1)
        for name, low, high in (("smallest_cutout", 0.05, 1), ("jitter", 0, 4), ("keep", 0, 0.95)):
            gates.real_number(name, getattr(self, name), least=low, most=high)
        if self.learning_rate is not None:
            gates.real_number("learning_rate", self.learning_rate, above=0)


def paint(
    prompts,
    clip: CLIP | Sequence[CLIP],
    vqgan: VQGAN,
    prior: Prior | str | None = AUTO,
    start=None,
    **options,
) -> Painting:
    """Paints a picture of `prompts`: an iterator of `PaintStep`, which computes one step at a time.

    prompts   a text ("a cat:1 | blur:-0.5"), a picture, or a list of either or of (weight, either)
    clip      the guide: what `load_guide` or `load_clip` returns, or a list of several, whose losses are averaged
    vqgan     what `load_vqgan` returns
    prior     "auto": the pocket prior if `vqgan` is the pocket VQGAN; None: none; or what `load_prior` returns
    start     None: random codes; a picture; or codes, int64 `[h, w]`
    options   the fields of `PaintOptions`

    The same arguments give the same picture on the same machine with the same number of threads
    (`runtime.set_threads`): another number adds up in another order, and the painting becomes another one.

    Raises ValueError for prompts or options that make no sense, ImageError where a picture cannot be read, AssetError
    where the prior's files are missing.
    """
    chosen = PaintOptions(**options)
    parsed = parse_prompts(prompts)
    generator = runtime.generator(chosen.seed)
    if isinstance(prior, str):
        if prior != AUTO:
            raise ValueError(f'prior is "{AUTO}", None, or what load_prior returns, not {prior!r}.')
        prior = _pocket_prior(vqgan) if vqgan.name == POCKET_VQGAN else None
    clips = [clip] if isinstance(clip, CLIP) else list(clip)
    if not clips:
        raise ValueError("there is no guide: give what load_guide or load_clip returns.")
    guide = Guide(parsed, clips, chosen, generator)
    latents = None if start is None else _start_latents(start, vqgan)
    if prior is not None:
        steps = paint_with_prior(guide, vqgan, prior, latents, chosen, generator)
        return Painting(parsed, steps, chosen.steps, counts_from=chosen.steps)
    if latents is None:
        grid = vqgan.config.grid
        latents = vqgan.latents(torch.randint(len(vqgan.codebook), (1, grid, grid), generator=generator))
    return Painting(parsed, paint_plainly(guide, vqgan, latents, chosen), chosen.steps, counts_from=1)


@functools.lru_cache(maxsize=1)
def _pocket_prior(vqgan: VQGAN) -> Prior:
    return priors.load_prior(vqgan)  # kept, because a class paints many pictures


def _start_latents(start, vqgan: VQGAN) -> Tensor:
    """Latents [1, dim, h, w] of a picture or of codes. Raises ValueError where there is more than one."""
    codes = start if isinstance(start, Tensor) else vqgan.encode(start)
    latents = vqgan.latents(codes)
    if len(latents) != 1:
        raise ValueError(f"a painting starts from one picture or one grid of codes, not from {len(latents)}.")
    return latents.clone()
