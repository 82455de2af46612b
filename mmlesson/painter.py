"""VQGAN+CLIP: a sentence becomes a picture, a step at a time.

    for step in paint("a cat on a blue background", guide, vqgan, seed=0):
        step.image, step.loss, step.scores

The loop is that of Crowson et al. 2022, "VQGAN-CLIP: Open Domain Image Generation and Editing with Natural Language
Guidance": begin with random codes, decode them, let CLIP say how well many *cutouts* of the picture match the prompt,
back-propagate into the latents, and do it again. Nothing is trained: CLIP and VQGAN stay as they are.

Left to itself, the loop finds pictures that please CLIP and show nothing. Two things make it paint. The guide, a CLIP that
was trained on half-finished pictures, so that its gradient shows where a picture of the prompt begins (Kaur et al. 2019, "Are
Perceptually-Aligned Gradients a General Property of Robust Classifiers?"). And the prior over codes (`prior.py`), which has
never read a word and knows what pictures look like: at every step the latents are blended with random codes, the prior
restores a picture from the blend, and CLIP's gradient pushes the blend towards the prompt (Dhariwal and Nichol 2021, "Diffusion Models Beat
GANs on Image Synthesis", classifier guidance; Bansal et al. 2023, "Universal Guidance for Diffusion Models").

Weighted prompts, an initial picture and the animation are what Pixray (github.com/pixray/pixray) is loved for.
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

from mmlesson import gates, runtime, world
from mmlesson import prior as priors
from mmlesson.clip import CLIP
from mmlesson.gates import AssetError
from mmlesson.pixels import load_image, save_gif, to_images
from mmlesson.prior import Prior
from mmlesson.vqgan import POCKET as POCKET_VQGAN
from mmlesson.vqgan import VQGAN

AUTO = "auto"
FIRST = 0.02  # the clarity of a blend that counts as all random


@dataclass(frozen=True)
class Step:
    """One step of a painting."""

    index: int  # 1 … steps
    image: Image.Image  # the painting after it: RGB, as large as the VQGAN makes it
    loss: float  # what is lowered: 1 - the weighted cosine of the cutouts with the prompts
    scores: dict[str, float]  # each prompt -> the mean cosine of the cutouts with it, -1…1
    codes: Tensor  # int64 [h, w], the codes nearest to the latents


# ---------------------------------------------------------------------------------------------------
# Prompts


@dataclass(frozen=True)
class Prompt:
    """What to paint towards, or away from where the weight is below 0."""

    content: str | Image.Image
    weight: float = 1.0

    @property
    def name(self) -> str:
        return self.content if isinstance(self.content, str) else "the picture given"


def parse_prompts(prompts) -> list[Prompt]:
    """Prompts of a text ("a cat:1 | blur:-0.5"), a picture, or a list of either or of (weight, either).

    A number behind the last colon of a part is its weight, 1 where there is none. Raises ValueError for no prompt, a weight that
    is no finite number or 0, or where no weight is above 0; ImageError where a picture cannot be read.
    """
    parts = prompts if isinstance(prompts, (list, tuple)) and not _is_weighted(prompts) else [prompts]
    found = [prompt for part in parts for prompt in _parse(part)]
    if not found:
        raise ValueError('there is no prompt: say what to paint, as in "a cat on a blue background".')
    if not any(prompt.weight > 0 for prompt in found):
        raise ValueError("every prompt has a weight below 0: say also what to paint, not only what to avoid.")
    return found


def _is_weighted(part) -> bool:
    return (
        isinstance(part, tuple)
        and len(part) == 2
        and isinstance(part[0], (int, float))
        and not isinstance(part[0], bool)
    )


def _parse(part) -> Iterator[Prompt]:
    weight = 1.0
    if _is_weighted(part):
        weight, part = part
        if not math.isfinite(weight) or weight == 0:
            raise ValueError(f"the weight of a prompt is a number other than 0, not {weight}.")
    if not isinstance(part, str):
        yield Prompt(load_image(part), float(weight))
        return
    for text in filter(None, map(str.strip, part.split("|"))):
        words, colon, number = text.rpartition(":")
        own = 1.0
        if colon:
            try:
                own = float(number)
            except ValueError:
                words = text  # a colon of the sentence
            if not math.isfinite(own) or own == 0:
                raise ValueError(f"the weight of “{words.strip()}” is a number other than 0, not {number.strip()}.")
        if (words or "" if colon else text).strip():
            yield Prompt((words if colon else text).strip(), weight * own)


# ---------------------------------------------------------------------------------------------------
# What CLIP says of a picture


def cutouts(
    pixels: Tensor, n: int, size: int, generator: torch.Generator, smallest: float = 0.9, jitter: float = 1.0
) -> Tensor:
    """`n` random cutouts of each picture, all at once: pixels `[m, 3, h, w]` in 0…1 → `[m · n, 3, size, size]`. Keeps gradients.

    Each is a square of `smallest` to 1 of the side or a little more, somewhere in the picture, brought to `size` pixels, its light,
    contrast and colours changed a little and noise added. What pleases CLIP in all of them does not hang on single pixels. `jitter` scales the
    changes, 0 leaves none.
    """
    m, device = len(pixels), pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (torch.rand(m * n, *shape, generator=generator) * (high - low) + low).to(device)

    side = uniform(smallest, 1 + 0.1 * jitter, 1)  # of the cutout, as a share of the picture's
    corner = uniform(-1, 1, 2) * (1 - side).abs()  # of its middle
    theta = torch.cat(
        [side, torch.zeros_like(side), corner[:, :1], torch.zeros_like(side), side, corner[:, 1:]], 1
    ).view(-1, 2, 3)
    if pixels.shape[-1] > size:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    grid = F.affine_grid(theta, [m * n, 3, size, size], align_corners=False)
    cut = F.grid_sample(
        pixels.repeat_interleave(n, 0), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    if jitter:
        middle = cut.mean((2, 3), keepdim=True)
        cut = (cut - middle) * (1 + jitter * uniform(-0.15, 0.15, 1, 1, 1)) + middle  # contrast
        cut = cut * (1 + jitter * uniform(-0.08, 0.08, 1, 1, 1)) + jitter * uniform(
            -0.03, 0.03, 3, 1, 1
        )  # light, colour cast
        cut = cut + torch.randn(cut.shape, generator=generator).to(device) * jitter * uniform(0, 0.05, 1, 1, 1)
    return cut


def guidance_loss(image_features: Tensor, text_features: Tensor, weights: Tensor) -> Tensor:
    """1 - the weighted mean cosine, of features of unit length: `[n, dim]`, `[prompts, dim]`, `[prompts]` → a scalar in 0…2."""
    return (1 - image_features @ text_features.T @ weights / weights.abs().sum()).mean()


class _Guide:
    """CLIP's word on pictures, or that of several CLIPs: prompts encoded once, cutouts made anew at every look.

    The cutouts are dealt out among all image towers, each sees its share of them (at least one), and the next time others.
    """

    def __init__(self, prompts: Sequence[Prompt], clips: Sequence[CLIP], options: Options, generator: torch.Generator):
        self.prompts, self.options, self.generator = prompts, options, generator
        self.clips = [one.folded() for clip in clips for one in clip.each_tower()]
        self.share = math.ceil(options.cutouts / len(self.clips))  # cutouts for each
        self.names = [prompt.name for prompt in prompts]
        self.features = [self._encode(prompts, clip) for clip in clips]  # of each, [prompts, dim]
        self.weights = torch.tensor([prompt.weight for prompt in prompts])  # [prompts]

    @staticmethod
    def _encode(prompts: Sequence[Prompt], clip: CLIP) -> Tensor:
        encode = {True: clip.encode_texts, False: clip.encode_images}
        return torch.cat([encode[isinstance(prompt.content, str)]([prompt.content]) for prompt in prompts]).to(
            clip.device
        )

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels `[m, 3, h, w]` → the loss of each, `[m]` with gradients, and its mean cosine with each prompt, `[m, prompts]`."""
        o, n, losses, cosines = self.options, self.share, [], []
        for clip, texts in zip(self.clips, self.features, strict=True):
            cut = cutouts(
                pixels, n, clip.image_size, self.generator, o.smallest_cutout, o.jitter
            )  # [m · n, 3, size, size]
            features = clip.encode_pixels(cut).unflatten(0, (len(pixels), n))  # [m, n, dim]
            losses.append(torch.stack([guidance_loss(each, texts, self.weights.to(texts)) for each in features]))
            cosines.append((features.detach() @ texts.T).mean(1))
        return torch.stack(losses).mean(0), torch.stack(cosines).mean(0)

    def scores(self, cosines: Tensor) -> dict[str, float]:
        return dict(zip(self.names, cosines.tolist(), strict=True))


# ---------------------------------------------------------------------------------------------------
# A painting


class Painting:
    """A painting under way: an iterator of `Step`. Nothing is computed before a step is asked for; it may be left at any time.

    steps   all steps so far
    total   how many there will be, unless it stops before
    best    the step that counts: the highest weighted score of those that count, None before the first
    """

    def __init__(self, prompts: Sequence[Prompt], steps: Iterator[Step], total: int, counts_from: int):
        self.prompts, self.total, self.steps, self.best = list(prompts), total, [], None
        self._steps, self._counts_from = steps, counts_from

    def __iter__(self) -> Painting:
        return self

    def __next__(self) -> Step:
        step = next(self._steps)
        self.steps.append(step)
        early = self.best is None or self.best.index < self._counts_from
        if early or self.score(step) >= self.score(self.best):
            self.best = step
        return step

    def score(self, step: Step) -> float:
        """The weighted mean cosine of a step with the prompts, -1…1."""
        return sum(prompt.weight * step.scores[prompt.name] for prompt in self.prompts) / sum(
            abs(prompt.weight) for prompt in self.prompts
        )

    def finish(self) -> Step:
        """Runs what is left, and returns the best step."""
        for _ in self:
            pass
        return self.best

    def close(self) -> None:
        """Ends it: no step follows."""
        self._steps.close()

    def save_animation(self, path: str | Path, fps: float = 12, side: int = 288) -> Path:
        """Writes the steps so far as an animation of `side` pixels that rests on the best at its end; returns its path.

        A path that ends in .gif is a GIF; .mp4 needs the program ffmpeg. Raises ValueError for another ending, or before the first
        step, AssetError where ffmpeg is missing or fails or nothing can be written.
        """
        path = Path(path)
        if not self.steps:
            raise ValueError("there is nothing to animate yet: paint a few steps first.")
        frames = [step.image for step in self.steps] + [self.best.image] * round(fps)
        frames = [frame.resize((side, side), Image.Resampling.BICUBIC) for frame in frames]
        if path.suffix.lower() == ".gif":
            return save_gif(frames, path, fps)
        if path.suffix.lower() == ".mp4":
            return _save_mp4(frames, path, fps)
        raise ValueError(f"an animation is a .gif or a .mp4, not {path.name!r}.")


def _save_mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> Path:
    if shutil.which("ffmpeg") is None:
        raise AssetError("a .mp4 is written by the program ffmpeg, which is not here: install it, or save a .gif.")
    with tempfile.TemporaryDirectory(prefix="mmlesson-") as folder:
        for number, frame in enumerate(frames):
            frame.save(Path(folder) / f"{number:05d}.png")
        command = ["ffmpeg", "-loglevel", "error", "-y", "-framerate", str(fps), "-i", f"{folder}/%05d.png"]
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", f"{folder}/film.mp4"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise AssetError(f"ffmpeg could not write {path.name}: {done.stderr.strip()[:200]}")
        return gates.write_atomically(path, (Path(folder) / "film.mp4").read_bytes())


# ---------------------------------------------------------------------------------------------------
# The loop


@dataclass(frozen=True)
class Options:
    """How `paint` paints."""

    steps: int = 80
    seed: int = 0
    cutouts: int = 2  # looks at each step, dealt out among the towers of the guide
    smallest_cutout: float = 0.95  # share of the side; full-size models, which know parts of things, take 0.5
    jitter: float = 0.5  # how much the looks differ in light, colour and noise; 0: not at all
    learning_rate: float | None = (
        None  # with a prior: how far a step pushes, in spreads of the codebook (0.8); else Adam's (0.1)
    )
    sketches: int = 4  # with a prior: paintings that grow side by side; at a third and at two thirds of the way the worse half is dropped
    keep: float = 0.2  # of a picture to start from: the clarity at which the prior takes it up, 0…1
    stop_at: float | None = None  # ends where the weighted score reaches this

    def __post_init__(self):
        for name, least in (("steps", 1), ("cutouts", 1), ("sketches", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is a whole number, at least {least}, not {value!r}.")
        for name, low, high in (("smallest_cutout", 0.05, 1), ("jitter", 0, 4), ("keep", 0, 0.95)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} lies between {low} and {high}, not at {getattr(self, name)!r}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate is a number above 0, not {self.learning_rate!r}.")


def paint(
    prompts,
    clip: CLIP | Sequence[CLIP],
    vqgan: VQGAN,
    prior: Prior | str | None = AUTO,
    start=None,
    **options,
) -> Painting:
    """Paints a picture of `prompts`: an iterator of `Step`, which computes one at a time.

    prompts   a text ("a cat on a blue background", "a cat:1 | blur:-0.5"), a picture, or a list of either or of (weight, either)
    clip      the guide: what `load_guide` or `load_clip` returns, or a list of several, whose losses are averaged
    vqgan     what `load_vqgan` returns
    prior     "auto": the pocket prior where `vqgan` is the pocket VQGAN, none elsewhere; None: none; or what `load_prior` returns
    start     None: random codes; a picture; codes, int64 `[h, w]`; "nearest": of 300 scenes of the training split the one nearest to the prompts
    options   the fields of `Options`

    The same arguments give the same picture on the same machine. Raises ValueError for prompts or options that make no sense,
    ImageError where a picture cannot be read, AssetError where the prior's files are missing.
    """
    chosen, parsed = Options(**options), parse_prompts(prompts)
    generator = runtime.generator(chosen.seed)
    if isinstance(prior, str) and prior != AUTO:
        raise ValueError(f'prior is "{AUTO}", None, or what load_prior returns, not {prior!r}.')
    if prior == AUTO:
        prior = _pocket_prior(vqgan) if vqgan.name == POCKET_VQGAN else None
    clips = [clip] if isinstance(clip, CLIP) else list(clip)
    guide = _Guide(parsed, clips, chosen, generator)
    latents = None if start is None else _start(start, guide, vqgan)
    if prior is None:
        steps = _plainly(guide, vqgan, latents, chosen, generator)
    else:
        steps = _with_prior(guide, vqgan, prior, latents, chosen, generator)
    return Painting(parsed, steps, chosen.steps, counts_from=1 if prior is None else chosen.steps)


@functools.lru_cache(maxsize=1)
def _pocket_prior(vqgan: VQGAN) -> Prior:
    return priors.load_prior(vqgan)  # once: a class paints many pictures


def _start(start, guide: _Guide, vqgan: VQGAN) -> Tensor:
    """Latents [1, dim, h, w] of a picture, of codes, or of the nearest scene."""
    if isinstance(start, Tensor):
        return vqgan.latents(start)[:1].clone()
    if isinstance(start, str) and start == "nearest":
        scenes = world.sample(300, "train", seed=0, objects=1)
        features = guide.clips[0].encode_images(
            [scene.render(vqgan.config.image_size) for scene in scenes]
        )  # [300, dim]
        scores = features @ guide.features[0].T.cpu() @ guide.weights
        start = scenes[int(scores.argmax())].render(vqgan.config.image_size)
    return vqgan.latents(vqgan.encode(start))[:1].clone()


def _plainly(
    guide: _Guide, vqgan: VQGAN, latents: Tensor | None, options: Options, generator: torch.Generator
) -> Iterator[Step]:
    """The loop as it was first published: Adam moves the latents, quantised with straight-through gradients."""
    if latents is None:
        grid = vqgan.config.grid
        latents = vqgan.latents(torch.randint(len(vqgan.codebook), (1, grid, grid), generator=generator))
    latents = latents.clone().requires_grad_()  # [1, dim, h, w]
    optimizer = torch.optim.Adam([latents], lr=options.learning_rate or 0.1)
    for index in range(1, options.steps + 1):
        with torch.enable_grad(), runtime.autocast(vqgan.device):
            quantised = vqgan.quantise(latents)
            pixels = vqgan.decode_latents(quantised.latents)  # [1, 3, side, side]
            losses, cosines = guide.look(pixels)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        step = Step(index, to_images(pixels)[0], losses.item(), guide.scores(cosines[0]), quantised.codes[0].cpu())
        yield step
        if options.stop_at is not None and 1 - step.loss >= options.stop_at:
            return


def _with_prior(
    guide: _Guide, vqgan: VQGAN, prior: Prior, latents: Tensor | None, options: Options, generator: torch.Generator
) -> Iterator[Step]:
    """From blends that are all random codes to pictures: at each step the prior restores, CLIP pushes, the blend clears.

    Several sketches grow side by side. At a third and at two thirds of the way, the half that pleased the guide less is dropped. Each step shows the
    one that has pleased the guide best lately.
    """
    spread = prior.codebook.std()
    random = prior.random_latents(options.sketches, vqgan.config.grid, generator)  # [sketches, dim, h, w]
    first = FIRST if latents is None else max(FIRST, options.keep)
    blended = random if latents is None else priors.blend(latents, random, first)
    recent = torch.zeros(len(blended))  # losses, the last ones counting most
    for index in range(1, options.steps + 1):
        if index - 1 in (options.steps // 3, 2 * options.steps // 3):
            better = recent.argsort()[: (len(recent) + 1) // 2]
            blended, recent = blended[better], recent[better]
        clarity, clearer = (first + (1 - first) * priors.schedule(i / options.steps) for i in (index - 1, index))
        with torch.enable_grad(), runtime.autocast(vqgan.device):
            blended = blended.detach().requires_grad_()
            restored = prior.restore(blended, clarity)  # [sketches, dim, h, w]
            pixels = vqgan.decode_latents(restored)  # [sketches, 3, side, side]
            losses, cosines = guide.look(pixels)  # [sketches], [sketches, prompts]
            (gradient,) = torch.autograd.grad(losses.sum(), blended)
        restored, blended = restored.detach(), blended.detach()
        size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12
        push = _rate(clarity, options.learning_rate or 0.8) * spread * gradient / size
        # towards what was restored and pushed, as far as the clarity grows; at clarity 1 that is where it stands
        blended = blended + (clearer - clarity) / (1 - clarity) * (restored - push - blended)
        recent.lerp_(losses.detach().cpu(), 0.3)
        best, codes = int(recent.argmin()), vqgan.quantise(restored).codes.cpu()  # [sketches, h, w]
        image = to_images(pixels[best])[0] if index < options.steps else vqgan.decode(codes[best])[0]
        step = Step(index, image, losses[best].item(), guide.scores(cosines[best]), codes[best])
        yield step
        if options.stop_at is not None and 1 - step.loss >= options.stop_at:
            return


def _rate(clarity: float, rate: float) -> float:
    """How far a step pushes: most where the picture is all open, not at all where it is settled."""
    return rate * (1 - clarity) * (1 + 3 * max(0.0, 1 - clarity / 0.15))
