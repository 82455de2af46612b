"""The measured quality of DALL-E: `mmlesson eval dalle`.

200 prompts "a X on a Y background" of held-out pairs, and 200 of two objects that no training showed together; eight pictures of each of the
former, one of each of the latter, with the default settings. The judge, a second CLIP that took no part in training, drawing or re-ranking,
says what they show. Beside each figure stands what the same judge says of decoded random codes (the chance level) and, as `ceiling`, of VQGAN
reconstructions of scenes of the same prompts.

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

from . import images, runtime, world
from .clip import CLIP, load_clip
from .dalle import DALLE, load_dalle, rerank
from .evaluate import Bar, table
from .evaluate_paint import Judge, Judged, caption, heldout_prompts, share, write_pictures
from .train import dalle as recipe
from .vqgan import VQGAN, load_vqgan

BARS = {"object_top1": Bar(least=0.80), "background_top1": Bar(least=0.95), "pair_top1": Bar(least=0.50), "rerank_gain": Bar(least=0.0)}
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
    """Scenes of two objects with `n` different captions, held out."""
    return list({scene.caption: scene for scene in world.sample(2 * n, "heldout", seed=401, objects=2)}.values())[:n]


def evaluate_dalle(dalle: DALLE, vqgan: VQGAN, n: int = 200, best_of: int = 8, scenes: int = 20_000, **options) -> Judged:
    """The figures of MEANINGS from `n` prompts of each kind; `options` go to `DALLE.generate` (none: its defaults), `scenes` is for `copies`."""
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
    clip = load_clip("pocket-clip")
    best = [rerank(pictures, caption(*pair), clip).images[0] for pictures, pair in zip(drawn, single)]
    first = [pictures[0] for pictures in drawn]

    judge = Judge()
    objects, backgrounds = judge.ranks(first, single)
    figures = {
        "object_top1": share(objects == 1),
        "background_top1": share(backgrounds == 1),
        "pair_top1": share(pair_ranks(judge.clip, of_pairs, pairs) == 1),
        "reranked_top1": share(judge.ranks(best, single)[0] == 1),
    }
    figures["rerank_gain"] = figures["reranked_top1"] - figures["object_top1"]

    def standing(some: Sequence[world.Scene]) -> list[Image.Image]:  # as DALL-E has seen them stand
        return [world.in_the_middle(scene, recipe.Recipe.squares).render(vqgan.config.image_size) for scene in some]

    rendered, rendered_pairs = standing([world.scene(name, background=background) for name, background in single]), standing(pairs)
    objects, backgrounds = judge.ranks(vqgan.decode(vqgan.encode(rendered)), single)
    figures |= {"ceiling_object_top1": share(objects == 1), "ceiling_background_top1": share(backgrounds == 1)}
    figures["ceiling_pair_top1"] = share(pair_ranks(judge.clip, vqgan.decode(vqgan.encode(rendered_pairs)), pairs) == 1)
    figures["copies"] = nearest_scenes(first + of_pairs, vqgan, scenes).copies

    grid = vqgan.config.grid
    noise = vqgan.decode(torch.randint(len(vqgan.codebook), (len(single), grid, grid), generator=runtime.generator(0)))
    objects, backgrounds = judge.ranks(noise, single)
    chance = {"object_top1": share(objects == 1), "background_top1": share(backgrounds == 1)}
    chance["pair_top1"] = share(pair_ranks(judge.clip, noise[: len(pairs)], pairs) == 1)
    said = [f"{caption(*pair)}: {name}" for pair, name in zip(single, judge.first(first))]
    return Judged(figures, chance, first + of_pairs, said + [scene.caption for scene in pairs])


def pair_ranks(judge: CLIP, pictures: Sequence, scenes: Sequence[world.Scene]) -> Tensor:
    """The rank of each picture's own caption among it, the swapped one and up to 50 of the other scenes: int64 `[n]`, 1 the best."""
    features = judge.encode_images(pictures)  # [n, dim]
    own, swapped = (judge.encode_texts([scene.caption for scene in some]) for some in (scenes, [scene.swapped() for scene in scenes]))
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

        def draw(scenes: Sequence[world.Scene]) -> list[list[Image.Image]]:  # the first of every prompt, then the second of every prompt, …
            options = {"temperature": temperature, "guidance": guidance}
            return list(zip(*(vqgan.decode(dalle.generate(scene.caption, each, seed, **options)) for seed, scene in enumerate(scenes))))

        objects, backgrounds = (torch.cat(ranks) for ranks in zip(*(names.ranks(pictures, pairs) for pictures in draw(one))))
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
    scenes: list[Image.Image] = field(repr=False)  # of each picture, the nearest

    @property
    def copies(self) -> float:
        """The share of pictures that are nearer to a scene than all but 5 % of the scenes are to another."""
        return share(self.distances < self.among.quantile(0.05))


def nearest_scenes(pictures: Sequence[Image.Image], vqgan: VQGAN, n: int = 20_000) -> Nearest:
    """Of pictures, the nearest among `n` different scenes (at least 2) of the training split, drawn as training draws them."""
    drawn = recipe.scenes(2 * n, "train", 501, recipe.Recipe(steps=1))
    scenes, side = list(dict.fromkeys(drawn))[:n], vqgan.config.image_size
    small = torch.cat([_small(images.to_pixels(scene.render(side))) for scene in runtime.progress(scenes, description="training scenes", unit="scene")])
    among = torch.cat([torch.cdist(part, small).topk(2, largest=False).values[:, 1] for part in small.split(1000)])  # the first is the scene itself
    exactly = {"compute_mode": "donot_use_mm_for_euclid_dist"}  # through a matrix product it is sooner, and a copy would be 0.1 away from itself
    distances, places = torch.cdist(_small(images.to_pixels(pictures)), small, **exactly).min(1)
    return Nearest(distances, among, [scenes[place].render(side) for place in places.tolist()])


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
        print(f"{dalle.name}: four pictures of each of {arguments.n} training prompts of one object and {arguments.n} of two; the pocket CLIP says what they show\n")
        for number, row in enumerate(compare_settings(dalle, vqgan, arguments.n)):
            if number == 0:
                print(f"| {' | '.join(row)} |\n|{' ---: |' * len(row)}")
            print("| " + " | ".join(f"{value:.1f}" if name in ("temperature", "guidance") else f"{value:.3f}" for name, value in row.items()) + " |", flush=True)
        return 0
    drawn = evaluate_dalle(dalle, vqgan, arguments.n)
    print(f"{dalle.name} and {vqgan.name}: {arguments.n} held-out prompts of one object, {arguments.n} of two\n")
    print(table(drawn.figures, drawn.chance, BARS, MEANINGS, against="random codes"))
    if arguments.pictures:
        write_pictures(drawn, arguments.pictures)
        print(f"\nThe pictures are in {arguments.pictures}, all of them in sheet.png.")
    if arguments.json:
        numbers = {name: round(value, 4) for name, value in drawn.figures.items()}
        print(json.dumps(numbers | {f"untrained_{name}": round(value, 4) for name, value in drawn.chance.items()}))
    return 0
