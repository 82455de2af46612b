"""The measured quality of VQGAN+CLIP: `mmlesson eval paint`.

24 prompts "a X on a Y background" of held-out pairs, three seeds each, painted from random codes with the default settings. The judge, a
second CLIP that took no part in painting and in no choice of settings, names each picture among all concepts and all backgrounds.
Beside it stands what the same judge says of decoded random codes (the chance level), and of the scenes themselves and their VQGAN
reconstructions (`ceiling`: nobody can ask a painter for more).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmlesson import gates, painter, runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip, load_guide, load_judge
from mmlesson.measure.clip import Bar, table
from mmlesson.pixels import image_grid, to_images
from mmlesson.prior import blend, load_prior
from mmlesson.vqgan import VQGAN, load_vqgan

BARS = {"judge_top1": Bar(least=0.50), "judge_background": Bar(least=0.90), "seconds": Bar(most=30.0)}
MEANINGS = {
    "judge_top1": "the judge names X first among all concepts",
    "judge_top5": "… among its first five",
    "judge_background": "the judge names Y among 12",
    "seconds": "a picture, median",
    "original_top1": "the same judge on scenes of the prompts",
    "original_background": "… their backgrounds",
    "ceiling_top1": "… on VQGAN reconstructions of these scenes",
    "ceiling_background": "… their backgrounds",
    "restored_codes": "codes that the prior restores from a clarity of 0.3",
    "half_finished_top1": "the guide names the object in what was restored so",
}


@dataclass(frozen=True)
class Judged:
    """What an evaluation made: its figures, the chance level of each, and the pictures with the judge's word on them."""

    figures: dict[str, float]
    chance: dict[str, float]
    pictures: list[Image.Image] = field(repr=False)
    captions: list[str] = field(repr=False)


def heldout_prompts(n: int = 24) -> list[tuple[str, str]]:
    """(concept, background): held-out pairs of `n` different concepts, the first by the hash of their names."""
    pairs = itertools.product((each.name for each in world.concepts()), world.BACKGROUNDS)
    kept = [pair for pair in pairs if world.scene(pair[0], background=pair[1]).held_out]
    kept.sort(key=lambda pair: hashlib.sha256(f"paint|{pair[0]}|{pair[1]}".encode()).digest())
    first = {
        concept: (concept, background) for concept, background in reversed(kept)
    }  # of each concept, the pair that comes first
    return sorted(first.values(), key=kept.index)[:n]


def caption(concept: str, background: str) -> str:
    """ "a cat on a blue background" """
    return world.scene(concept, background=background).caption


class Judge:
    """The judge's word on pictures of one object: which concept, which background."""

    def __init__(self, clip: CLIP | None = None):
        self.clip = clip or load_judge()
        self.names, self.colours = [each.name for each in world.concepts()], list(world.BACKGROUNDS)
        self.objects = self.clip.encode_texts([f"a picture of {each}" for each in world.concepts()])  # [597, dim]
        things = world.concepts()[
            ::24
        ]  # a colour's embedding is the mean over 25 things in front of it, as in `evaluate`
        prompts = [f"{thing} on {world.with_article(colour)} background" for colour in self.colours for thing in things]
        self.backgrounds = F.normalize(
            self.clip.encode_texts(prompts).unflatten(0, (len(self.colours), -1)).mean(1), dim=-1
        )  # [12, dim]

    def ranks(self, pictures: Sequence, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        """The ranks of the right concept and of the right background, 1 the best: two int64 `[n]`."""
        features = self.clip.encode_images(pictures)
        here = torch.arange(len(pairs))
        found = []
        for texts, truth in (
            (self.objects, [self.names.index(concept) for concept, _ in pairs]),
            (self.backgrounds, [self.colours.index(background) for _, background in pairs]),
        ):
            cosines = features @ texts.T
            found.append(1 + (cosines > cosines[here, truth][:, None]).sum(1))
        return found[0], found[1]

    def first(self, pictures: Sequence) -> list[str]:
        """The concept that it names first for each picture."""
        return [
            self.names[number] for number in (self.clip.encode_images(pictures) @ self.objects.T).argmax(1).tolist()
        ]


def evaluate_paint(guide: CLIP, vqgan: VQGAN, prompts: int = 24, seeds: Sequence[int] = (0, 1, 2), **options) -> Judged:
    """The figures of MEANINGS; `options` go to `painter.paint` (none: its defaults)."""
    pairs = [pair for pair in heldout_prompts(prompts) for _ in seeds]
    pictures, seconds = [], []
    for number, (pair, seed) in enumerate(
        runtime.progress(list(zip(pairs, itertools.cycle(seeds))), description="painting", unit="picture")
    ):
        started = time.perf_counter()
        pictures.append(painter.paint(caption(*pair), guide, vqgan, seed=seed, **options).finish().image)
        seconds.append(time.perf_counter() - started)
    scenes = [
        world.scene(concept, background=background, seed=seed)
        for (concept, background), seed in zip(pairs, itertools.cycle(seeds))
    ]
    originals = [scene.render(vqgan.config.image_size) for scene in scenes]
    grid = vqgan.config.grid
    codes = torch.randint(len(vqgan.codebook), (len(pairs), grid, grid), generator=runtime.generator(0))

    judge = Judge()
    objects, backgrounds = judge.ranks(pictures, pairs)
    figures = {
        "judge_top1": share(objects == 1),
        "judge_top5": share(objects <= 5),
        "judge_background": share(backgrounds == 1),
        "seconds": statistics.median(seconds),
    }
    for name, shown in (("original", originals), ("ceiling", vqgan.decode(vqgan.encode(originals)))):
        right, behind = judge.ranks(shown, pairs)
        figures |= {f"{name}_top1": share(right == 1), f"{name}_background": share(behind == 1)}
    right, behind = judge.ranks(vqgan.decode(codes), pairs)
    chance = {"judge_top1": share(right == 1), "judge_top5": share(right <= 5), "judge_background": share(behind == 1)}
    said = [f"{caption(*pair)}: {name}" for pair, name in zip(pairs, judge.first(pictures), strict=True)]
    return Judged(figures, chance, pictures, said)


@torch.no_grad()
def evaluate_remedies(
    guide: CLIP, vqgan: VQGAN, n: int = 300, clarity: float = 0.3
) -> tuple[dict[str, float], dict[str, float]]:
    """What the prior restores of `n` held-out scenes of one object, and whether the guide knows it; beside it what nearest rows and the pocket CLIP do."""
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
    pairs = [(scene.concepts[0], scene.background) for scene in scenes]
    named = {
        name: share(Judge(clip).ranks(pictures, pairs)[0] == 1)
        for name, clip in (("guide", guide), ("pocket", load_clip(POCKET)))
    }
    figures = {"restored_codes": share(restored.argmax(1) == codes), "half_finished_top1": named["guide"]}
    nearest = vqgan.quantise(blended / clarity).codes.cpu()
    return figures, {"restored_codes": share(nearest == codes), "half_finished_top1": named["pocket"]}


def share(right: Tensor) -> float:
    """The share of True in bools of any shape, 0…1."""
    return right.float().mean().item()


def main(arguments) -> int:
    """`mmlesson eval paint`: a table, with --pictures the paintings, with --json one flat JSON object as the last line."""
    runtime.set_threads()
    guide, vqgan = load_clip(arguments.model) if arguments.model else load_guide(), load_vqgan()
    painted = evaluate_paint(guide, vqgan, arguments.n)
    print(f"{guide.name} and {vqgan.name}: {len(painted.pictures)} paintings of {arguments.n} held-out prompts\n")
    print(table(painted.figures, painted.chance, BARS, MEANINGS, against="random codes"))
    figures, without = evaluate_remedies(guide, vqgan)
    print(
        "\nThe two remedies on 300 held-out scenes; beside them the nearest rows of the codebook, and the pocket CLIP\n"
    )
    print(table(figures, without, {}, MEANINGS, against="without"))
    if arguments.pictures:
        write_pictures(painted, arguments.pictures)
        print(f"\nThe paintings are in {arguments.pictures}, all of them in sheet.png with what the judge calls them.")
    if arguments.json:
        numbers = {name: round(value, 4) for name, value in (painted.figures | figures).items()}
        numbers |= {f"untrained_{name}": round(value, 4) for name, value in painted.chance.items()}
        numbers |= {f"without_{name}": round(value, 4) for name, value in without.items()}
        print(json.dumps(numbers | {"random_codes": round(painted.chance["judge_top1"], 4)}))
    return 0


def write_pictures(judged: Judged, folder: Path) -> None:
    """Every painting as a PNG of its own, and all of them on one sheet."""
    for number, picture in enumerate(judged.pictures):
        gates.write_atomically(folder / f"{number:02d}.png", picture.save)
    large = [picture.resize((192, 192), Image.Resampling.BICUBIC) for picture in judged.pictures]
    sheet = image_grid(large, 6, judged.captions)
    gates.write_atomically(folder / "sheet.png", sheet.save)
