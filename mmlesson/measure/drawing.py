"""The measured quality of DALL-E: `mmlesson eval dalle`.

200 prompts "a X on a Y background" of held-out pairs, and 200 of two objects that no training showed together; eight pictures of each of the
former, one of each of the latter, with the default settings. The judge, a second CLIP that took no part in training, drawing or re-ranking,
says what they show. Beside each figure stands the same of as many pictures of random codes, which is what an untrained network draws (the chance level), and, as
`ceiling`, what the judge says of VQGAN reconstructions of scenes of the same prompts.

`mmlesson eval dalle --settings` compares temperatures and guidances instead, on prompts of the training split and without the judge: by it the
defaults were chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmlesson import runtime, world
from mmlesson.clip import CLIP, load_clip
from mmlesson.dalle import DALLE, load_dalle, rerank
from mmlesson.measure.clip import Bar, table
from mmlesson.measure.painting import Judge, Judged, caption, heldout_prompts, share, write_pictures
from mmlesson.pixels import to_pixels
from mmlesson.train import dalle as recipe
from mmlesson.vqgan import VQGAN, load_vqgan

BARS = {
    "object_top1": Bar(least=0.80),
    "background_top1": Bar(least=0.95),
    "pair_top1": Bar(least=0.50),
    "rerank_gain": Bar(above=0.0),
}
MEANINGS = {
    "object_top1": "one object: the judge names it first among all concepts",
    "background_top1": "… its background first among 12",
    "pair_top1": "two objects: the caption beats the swapped one and 50 others",
    "reranked_top1": "object_top1 of the best of 8 by the pocket CLIP",
    "rerank_gain": "… less that of one picture",
    "ceiling_object_top1": "the same judge on VQGAN reconstructions of scenes of the prompts",
    "ceiling_background_top1": "… their backgrounds",
    "ceiling_pair_top1": "… of two objects",
    "copies": "pictures nearer to a training scene than 95 % of those are to each other",
}
OTHERS = 50  # captions that a pair's own has to beat, beside the swapped one
TRIED = ((1.0, 1.0), (0.5, 1.0), (0.5, 2.0), (0.5, 3.0), (0.3, 2.0), (0.3, 3.0), (0.7, 3.0))  # temperature and guidance


def heldout_pairs(n: int = 200) -> list[world.Scene]:
    """Scenes of two objects that no training scene shows together, `n` of them with different captions."""
    scenes = world.sample(
        8 * n, "heldout", seed=401, objects=2
    )  # a third of what is held out: of the others only an object and its background are
    return list({scene.caption: scene for scene in scenes if scene.pair_held_out}.values())[:n]


def evaluate_dalle(
    dalle: DALLE, vqgan: VQGAN, n: int = 200, best_of: int = 8, n_scenes: int = 20_000, **options
) -> Judged:
    """The figures of MEANINGS from `n` prompts of each kind; `options` go to `DALLE.generate` (none: its defaults), `n_scenes` is for `copies`.

    There are 430 prompts of one object: of so many concepts a background is held out.
    """
    dalle.check_vqgan(vqgan)
    single, pairs = heldout_prompts(n), heldout_pairs(n)
    drawn = [
        vqgan.decode(dalle.generate(caption(*pair), best_of, seed, **options))
        for seed, pair in enumerate(runtime.progress(single, description="one object", unit="prompt"))
    ]
    of_pairs = [
        vqgan.decode(dalle.generate(scene.caption, 1, seed, **options))[0]
        for seed, scene in enumerate(runtime.progress(pairs, description="two objects", unit="prompt"))
    ]
    shape, generator = (vqgan.config.grid, vqgan.config.grid), runtime.generator(0)
    noise, of_pairs_noise = (
        vqgan.decode(torch.randint(len(vqgan.codebook), (m, *shape), generator=generator))
        for m in (len(single) * best_of, len(pairs))
    )

    judge, clip, near = Judge(), load_clip("pocket-clip"), Neighbours(n_scenes, vqgan.config.image_size)

    def measured(of_single: Sequence[Sequence[Image.Image]], of_pairs: Sequence[Image.Image]) -> dict[str, float]:
        first = [pictures[0] for pictures in of_single]
        best = [
            rerank(pictures, caption(*pair), clip).images[0] for pictures, pair in zip(of_single, single, strict=True)
        ]
        objects, backgrounds = judge.ranks(first, single)
        found = {
            "object_top1": share(objects == 1),
            "background_top1": share(backgrounds == 1),
            "pair_top1": share(pair_ranks(judge.clip, of_pairs, pairs) == 1),
            "reranked_top1": share(judge.ranks(best, single)[0] == 1),
        }
        gain = found["reranked_top1"] - found["object_top1"]
        return found | {"rerank_gain": gain, "copies": near.of([*first, *of_pairs]).copies}

    def standing(some: Sequence[world.Scene]) -> list[Image.Image]:  # as DALL-E has seen them stand
        return [world.in_the_middle(scene, recipe.Recipe.squares).render(vqgan.config.image_size) for scene in some]

    figures = measured(drawn, of_pairs)
    chance = measured([noise[start : start + best_of] for start in range(0, len(noise), best_of)], of_pairs_noise)
    rendered, rendered_pairs = (
        standing([world.scene(name, background=background) for name, background in single]),
        standing(pairs),
    )
    objects, backgrounds = judge.ranks(vqgan.decode(vqgan.encode(rendered)), single)
    figures |= {"ceiling_object_top1": share(objects == 1), "ceiling_background_top1": share(backgrounds == 1)}
    figures["ceiling_pair_top1"] = share(pair_ranks(judge.clip, vqgan.decode(vqgan.encode(rendered_pairs)), pairs) == 1)

    first = [pictures[0] for pictures in drawn]
    said = [f"{caption(*pair)}: {name}" for pair, name in zip(single, judge.first(first), strict=True)]
    return Judged(
        {name: figures[name] for name in MEANINGS}, chance, first + of_pairs, said + [scene.caption for scene in pairs]
    )


def pair_ranks(judge: CLIP, pictures: Sequence, scenes: Sequence[world.Scene]) -> Tensor:
    """The rank of each picture's own caption among it, the swapped one and up to 50 of the other scenes: int64 `[n]`, 1 the best."""
    features = judge.encode_images(pictures)  # [n, dim]
    own, swapped = (
        judge.encode_texts([scene.caption for scene in some])
        for some in (scenes, [scene.swapped() for scene in scenes])
    )
    true = (features * own).sum(1)  # [n]
    ranks = 1 + ((features * swapped).sum(1) > true).long()
    for shift in range(1, min(OTHERS, len(scenes) - 1) + 1):
        ranks += (features * own.roll(shift, 0)).sum(1) > true
    return ranks


def compare_settings(
    dalle: DALLE, vqgan: VQGAN, n: int = 40, each: int = 4, tried: Sequence[tuple[float, float]] = TRIED
) -> Iterator[dict[str, float]]:
    """For every (temperature, guidance): what the pocket CLIP says of `each` pictures of `n` training prompts of one object, and of `n` of two."""
    dalle.check_vqgan(vqgan)
    one, two = (world.sample(n, "train", 600 + objects, objects=objects) for objects in (1, 2))
    pairs = [(scene.concepts[0], scene.background) for scene in one]
    names = Judge(load_clip("pocket-clip"))
    for temperature, guidance in tried:

        def draw(
            scenes: Sequence[world.Scene],
        ) -> list[list[Image.Image]]:  # the first of every prompt, then the second of every prompt, …
            options = {"temperature": temperature, "guidance": guidance}
            return list(
                zip(
                    *(
                        vqgan.decode(dalle.generate(scene.caption, each, seed, **options))
                        for seed, scene in enumerate(scenes)
                    ),
                    strict=True,
                )
            )

        objects, backgrounds = (
            torch.cat(ranks) for ranks in zip(*(names.ranks(pictures, pairs) for pictures in draw(one)), strict=True)
        )
        of_pairs = torch.cat([pair_ranks(names.clip, pictures, two) for pictures in draw(two)])
        yield {
            "temperature": temperature,
            "guidance": guidance,
            "object_top1": share(objects == 1),
            "object_top5": share(objects <= 5),
            "background_top1": share(backgrounds == 1),
            "pair_top1": share(of_pairs == 1),
        }


@dataclass(frozen=True)
class Nearest:
    """How near pictures are to training scenes. Distances are Euclidean, of pixels in 0…1 at 32 × 32."""

    distances: Tensor  # [pictures], to the nearest scene
    among: Tensor  # [scenes], of each scene to the nearest other one
    images: list[Image.Image] = field(repr=False)  # of each picture, the nearest scene

    @property
    def copies(self) -> float:
        """The share of pictures that are nearer to a scene than all but 5 % of the scenes are to another."""
        return share(self.distances < self.among.quantile(0.05))


class Neighbours:
    """`n` different scenes (at least 2) of the training split, among which the nearest to a picture is looked for: those that the recipe trains on come first."""

    def __init__(self, n: int = 20_000, side: int = 96):
        drawn = recipe.scenes(2 * n, "train", recipe.Recipe.seed, recipe.Recipe(steps=1))
        self.scenes, self.side = list(dict.fromkeys(drawn))[:n], side
        shown = runtime.progress(self.scenes, description="training scenes", unit="scene")
        self.small = torch.cat([_small(to_pixels(scene.render(side))) for scene in shown])  # [n, 3 · 32 · 32]
        parts = self.small.split(1000)
        self.among = torch.cat(
            [torch.cdist(part, self.small).topk(2, largest=False).values[:, 1] for part in parts]
        )  # the first is the scene itself

    def of(self, pictures: Sequence[Image.Image]) -> Nearest:
        exactly = {
            "compute_mode": "donot_use_mm_for_euclid_dist"
        }  # through a matrix product it is sooner, and a copy would be 0.1 away from itself
        distances, places = torch.cdist(_small(to_pixels(pictures)), self.small, **exactly).min(1)
        return Nearest(distances, self.among, [self.scenes[place].render(self.side) for place in places.tolist()])


def _small(pixels: Tensor) -> Tensor:
    """Pixels [n, 3, side, side] → [n, 3 · 32 · 32]."""
    return F.interpolate(pixels, size=(32, 32), mode="area").flatten(1)


def main(arguments) -> int:
    """`mmlesson eval dalle`: a table, with --pictures what was drawn, with --json one flat JSON object as the last line.

    With --settings a table of temperatures and guidances, and nothing else.
    """
    runtime.set_threads()
    dalle, vqgan = load_dalle(arguments.model), load_vqgan()
    if arguments.settings:
        print(
            f"{dalle.name}: four pictures of each of {arguments.n} training prompts of one object and {arguments.n} of two; the pocket CLIP says what they show\n"
        )
        for number, row in enumerate(compare_settings(dalle, vqgan, arguments.n)):
            if number == 0:
                print(f"| {' | '.join(row)} |\n|{' ---: |' * len(row)}")
            print(
                "| "
                + " | ".join(
                    f"{value:.1f}" if name in ("temperature", "guidance") else f"{value:.3f}"
                    for name, value in row.items()
                )
                + " |",
                flush=True,
            )
        return 0
    drawn = evaluate_dalle(dalle, vqgan, arguments.n)
    n_pairs = len(heldout_pairs(arguments.n))
    print(
        f"{dalle.name} and {vqgan.name}: {len(drawn.pictures) - n_pairs} held-out prompts of one object, {n_pairs} of two\n"
    )
    print(table(drawn.figures, drawn.chance, BARS, MEANINGS, against="random codes"))
    if arguments.pictures:
        write_pictures(drawn, arguments.pictures)
        print(f"\nThe pictures are in {arguments.pictures}, all of them in sheet.png.")
    if arguments.json:
        numbers = {name: round(value, 4) for name, value in drawn.figures.items()}
        print(json.dumps(numbers | {f"untrained_{name}": round(value, 4) for name, value in drawn.chance.items()}))
    return 0
