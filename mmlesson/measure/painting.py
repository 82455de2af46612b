"""The measured quality of VQGAN+CLIP: `mmlesson eval paint`.

24 held-out prompts "a X on a Y background", three seeds each, are painted from random codes with the default settings.
Then the judge names each picture among all concepts and all backgrounds. The judge is a second CLIP that took no part
in painting and in no choice of settings.

The judge names smears too. So `named` counts the pictures that the judge names right and that have the outline of the
thing (`measure/outline.py`), which is measured without a network. `--sheet` writes the paintings for the third witness,
people: numbered, and without their names.

Two comparisons: what the same judge says of decoded random codes (the chance level), and what it says of scenes of
the prompts and of their VQGAN reconstructions (`original`, `ceiling`: no painter can be expected to do better).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlesson import painter, runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip, load_guide, load_judge
from mmlesson.measure.namer import Namer, Ranks, share
from mmlesson.measure.outline import outline_fit
from mmlesson.measure.prompts import Judged, caption, heldout_prompts, write_pictures
from mmlesson.measure.report import Report
from mmlesson.measure.sheet import write_sheet
from mmlesson.pixels import to_images
from mmlesson.prior import blend, load_prior
from mmlesson.vqgan import VQGAN, load_vqgan


def evaluate_paint(guide: CLIP, vqgan: VQGAN, prompts: int = 24, seeds: Sequence[int] = (0, 1, 2), **options) -> Judged:
    """Paints every prompt with every seed; `options` go to `painter.paint` (none: its defaults)."""
    jobs = [(pair, seed) for pair in heldout_prompts(prompts) for seed in seeds]
    pairs = [pair for pair, _ in jobs]
    pictures, seconds = [], []
    for pair, seed in runtime.progress(jobs, description="painting", unit="picture"):
        started = time.perf_counter()
        pictures.append(painter.paint(caption(*pair), guide, vqgan, seed=seed, **options).finish().image)
        seconds.append(time.perf_counter() - started)
    scenes = [world.scene(concept, background=background, seed=seed) for (concept, background), seed in jobs]
    originals = [scene.render(vqgan.config.image_size) for scene in scenes]
    grid = vqgan.config.grid
    codes = torch.randint(len(vqgan.codebook), (len(pairs), grid, grid), generator=runtime.generator(0))

    judge = Namer(load_judge())  # not before the last picture is painted
    ranks = judge.ranks(pictures, pairs)
    figures = {
        "named": share(named(pictures, pairs, ranks)),
        "judge_top1": share(ranks.concepts == 1),
        "judge_top5": share(ranks.concepts <= 5),
        "judge_background": share(ranks.backgrounds == 1),
        "seconds": statistics.median(seconds),
    }
    for name, shown in (("original", originals), ("ceiling", vqgan.decode(vqgan.encode(originals)))):
        ranks = judge.ranks(shown, pairs)
        figures[f"{name}_named"] = share(named(shown, pairs, ranks))
        figures[f"{name}_top1"] = share(ranks.concepts == 1)
        figures[f"{name}_background"] = share(ranks.backgrounds == 1)
    patchwork = vqgan.decode(codes)
    ranks = judge.ranks(patchwork, pairs)
    chance = {
        "named": share(named(patchwork, pairs, ranks)),
        "judge_top1": share(ranks.concepts == 1),
        "judge_top5": share(ranks.concepts <= 5),
        "judge_background": share(ranks.backgrounds == 1),
    }
    said = [f"{caption(*pair)}: {name}" for pair, name in zip(pairs, judge.first(pictures), strict=True)]
    return Judged(figures, chance, pictures, said)


def named(pictures: Sequence, pairs: Sequence[tuple[str, str]], ranks: Ranks) -> Tensor:
    """Whether the judge names the thing first, and the picture has its outline: bool `[n]`."""
    fits = [outline_fit(picture, concept) for picture, (concept, _) in zip(pictures, pairs, strict=True)]
    return (ranks.concepts == 1) & torch.tensor([fit.agrees for fit in fits])


@dataclass(frozen=True)
class Remedies:
    """What prior and guide do, and the same figures without them."""

    figures: dict[str, float]
    without: dict[str, float]  # the nearest rows of the codebook, and the pocket CLIP


@torch.no_grad()
def evaluate_remedies(guide: CLIP, vqgan: VQGAN, n: int = 300, clarity: float = 0.3) -> Remedies:
    """What the prior restores of `n` held-out scenes of one object, and whether the guide recognises it."""
    prior = load_prior(vqgan)
    scenes = world.sample(n, "heldout", seed=301, objects=1)
    codes = vqgan.encode([scene.render(vqgan.config.image_size) for scene in scenes])  # [n, h, w]
    blended = blend(vqgan.latents(codes), prior.random_latents(n, codes.shape[1], runtime.generator(301)), clarity)
    restored = torch.cat(
        [prior(part, torch.full((len(part),), clarity, device=part.device)).cpu() for part in blended.split(50)]
    )
    pictures = [
        picture
        for part in blended.split(50)
        for picture in to_images(vqgan.decode_latents(prior.restore(part, clarity)))
    ]
    concepts = [scene.concepts[0] for scene in scenes]

    def named(clip: CLIP) -> float:
        return share(Namer(clip).concept_ranks(clip.encode_images(pictures), concepts) == 1)

    nearest = vqgan.quantise(blended / clarity).codes.cpu()
    return Remedies(
        {"restored_codes": share(restored.argmax(1) == codes), "half_finished_top1": named(guide)},
        {"restored_codes": share(nearest == codes), "half_finished_top1": named(load_clip(POCKET))},
    )


def report(options) -> Report:
    """`mmlesson eval paint`: `options.n` prompts; the paintings go to the folder `options.pictures` (None: nowhere).

    To the folder `options.sheet` they go numbered and without their names, for people to read.
    """
    runtime.set_threads()
    guide = load_guide() if options.model is None else load_clip(options.model)
    vqgan = load_vqgan()
    painted = evaluate_paint(guide, vqgan, options.n)
    remedies = evaluate_remedies(guide, vqgan)
    if options.pictures is not None:
        write_pictures(painted, options.pictures)
    if options.sheet is not None:
        write_sheet(painted, options.sheet)
    title = f"{guide.name} and {vqgan.name}: {len(painted.pictures)} paintings of {options.n} held-out prompts"
    figures = painted.figures | remedies.figures | {"random_codes": painted.chance["judge_top1"]}
    beside = {"untrained": painted.chance, "without": remedies.without}
    return Report("eval paint", title, figures, beside, against="random codes")
