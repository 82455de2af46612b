"""The measured quality of DALL-E: `mmlesson eval dalle`.

200 held-out prompts "a X on a Y background" get eight pictures each, and 200 captions of two objects that no training
scene showed together get one picture each, with the default settings. The judge, a second CLIP that took no part in
training, drawing or re-ranking, says what they show. Two comparisons: as many pictures of random codes, which is what
an untrained network draws (the chance level), and VQGAN reconstructions of scenes of the same prompts (`ceiling`).

`mmlesson eval dalle --settings` compares temperatures and guidances instead, on prompts of the training split and
without the judge. The defaults were chosen by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image

from mmlesson import runtime, world
from mmlesson.clip import POCKET, load_clip, load_judge
from mmlesson.dalle import DALLE, load_dalle, rerank
from mmlesson.measure.bars import FIGURES
from mmlesson.measure.copies import Neighbours
from mmlesson.measure.namer import Namer, share
from mmlesson.measure.prompts import Judged, caption, heldout_prompts, write_pictures
from mmlesson.measure.report import Report
from mmlesson.vqgan import VQGAN, load_vqgan
from mmlesson.world.middle import SQUARES

# (temperature, guidance)
TRIED = ((1.0, 1.0), (0.5, 1.0), (0.5, 2.0), (0.5, 3.0), (0.3, 2.0), (0.3, 3.0), (0.7, 3.0))


def heldout_pairs(n: int = 200) -> list[world.Scene]:
    """Up to `n` scenes with different captions, of two objects that no training scene shows together."""
    # in a third of the held-out scenes it is the pair that is held out, in the others one object and its background
    scenes = world.sample(8 * n, "heldout", seed=401, objects=2)
    return list({scene.caption: scene for scene in scenes if scene.pair_held_out}.values())[:n]


def evaluate_dalle(
    dalle: DALLE, vqgan: VQGAN, n: int = 200, best_of: int = 8, n_scenes: int = 20_000, **options
) -> Judged:
    """The figures of "eval dalle" in bars.py, from up to `n` prompts of each kind (430 prompts of one object exist).

    `options` go to `DALLE.generate` (none: its defaults). `n_scenes`: among how many training scenes copies are
    looked for. Raises AssetError where `vqgan` is not the one that `dalle` was trained with.
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

    judge, clip, near = Namer(load_judge()), load_clip(POCKET), Neighbours(n_scenes, vqgan.config.image_size)

    def measured(of_single: Sequence[Sequence[Image.Image]], of_pairs: Sequence[Image.Image]) -> dict[str, float]:
        first = [pictures[0] for pictures in of_single]
        best = [
            rerank(pictures, caption(*pair), clip).images[0] for pictures, pair in zip(of_single, single, strict=True)
        ]
        ranks = judge.ranks(first, single)
        found = {
            "object_top1": share(ranks.concepts == 1),
            "background_top1": share(ranks.backgrounds == 1),
            "pair_top1": share(judge.caption_ranks(of_pairs, pairs) == 1),
            "reranked_top1": share(judge.ranks(best, single).concepts == 1),
        }
        gain = found["reranked_top1"] - found["object_top1"]
        return found | {"rerank_gain": gain, "copies": near.of([*first, *of_pairs]).copies}

    def reconstructed(scenes: Sequence[world.Scene]) -> list[Image.Image]:
        """As DALL-E has seen them: in the middle, and through the VQGAN."""
        placed = [world.in_the_middle(scene, SQUARES).render(vqgan.config.image_size) for scene in scenes]
        return vqgan.decode(vqgan.encode(placed))

    figures = measured(drawn, of_pairs)
    chance = measured([noise[start : start + best_of] for start in range(0, len(noise), best_of)], of_pairs_noise)
    ranks = judge.ranks(reconstructed([world.scene(name, background=ground) for name, ground in single]), single)
    figures["ceiling_object_top1"] = share(ranks.concepts == 1)
    figures["ceiling_background_top1"] = share(ranks.backgrounds == 1)
    figures["ceiling_pair_top1"] = share(judge.caption_ranks(reconstructed(pairs), pairs) == 1)

    first = [pictures[0] for pictures in drawn]
    said = [f"{caption(*pair)}: {name}" for pair, name in zip(single, judge.first(first), strict=True)]
    in_order = {name: figures[name] for name in FIGURES["eval dalle"]}
    return Judged(in_order, chance, first + of_pairs, said + [scene.caption for scene in pairs])


def compare_settings(
    dalle: DALLE, vqgan: VQGAN, n: int = 40, each: int = 4, tried: Sequence[tuple[float, float]] = TRIED
) -> Iterator[dict[str, float]]:
    """For every (temperature, guidance): what the pocket CLIP says of `each` pictures of training prompts.

    There are `n` prompts of one object, and `n` of two.
    """
    dalle.check_vqgan(vqgan)
    one, two = (world.sample(n, "train", 600 + objects, objects=objects) for objects in (1, 2))
    pairs = [(scene.concepts[0], scene.background) for scene in one]
    namer = Namer(load_clip(POCKET))

    def draw(scenes: Sequence[world.Scene], **options) -> list[list[Image.Image]]:
        """`each` pictures of every scene's caption."""
        return [vqgan.decode(dalle.generate(scene.caption, each, seed, **options)) for seed, scene in enumerate(scenes)]

    for temperature, guidance in tried:
        # turned round: the first picture of every prompt, then the second of every prompt, …
        of_one = list(zip(*draw(one, temperature=temperature, guidance=guidance), strict=True))
        of_two = list(zip(*draw(two, temperature=temperature, guidance=guidance), strict=True))
        ranks = [namer.ranks(pictures, pairs) for pictures in of_one]
        concepts = torch.cat([some.concepts for some in ranks])
        backgrounds = torch.cat([some.backgrounds for some in ranks])
        captions = torch.cat([namer.caption_ranks(pictures, two) for pictures in of_two])
        yield {
            "temperature": temperature,
            "guidance": guidance,
            "object_top1": share(concepts == 1),
            "object_top5": share(concepts <= 5),
            "background_top1": share(backgrounds == 1),
            "pair_top1": share(captions == 1),
        }


def report(options) -> Report | None:
    """`mmlesson eval dalle`: `options.n` prompts of each kind; drawings go to `options.pictures` (None: nowhere).

    None with `options.settings`: that prints a table of temperatures and guidances, row by row, and measures nothing.
    """
    runtime.set_threads()
    dalle, vqgan = load_dalle(options.model), load_vqgan()
    if options.settings:
        _print_settings(dalle, vqgan, options.n)
        return None
    drawn = evaluate_dalle(dalle, vqgan, options.n)
    n_pairs = len(heldout_pairs(options.n))
    prompts = f"{len(drawn.pictures) - n_pairs} held-out prompts of one object, {n_pairs} of two"
    title = f"{dalle.name} and {vqgan.name}: {prompts}"
    if options.pictures is not None:
        write_pictures(drawn, options.pictures)
    return Report("eval dalle", title, drawn.figures, {"untrained": drawn.chance}, against="random codes")


def _print_settings(dalle: DALLE, vqgan: VQGAN, n: int) -> None:
    print(f"{dalle.name}: four pictures of each of {n} training prompts of one object and {n} of two;")
    print("the pocket CLIP says what they show\n")
    for number, row in enumerate(compare_settings(dalle, vqgan, n)):
        if number == 0:
            print(f"| {' | '.join(row)} |\n|{' ---: |' * len(row)}")
        forms = {"temperature": ".1f", "guidance": ".1f"}
        print(f"| {' | '.join(format(value, forms.get(name, '.3f')) for name, value in row.items())} |", flush=True)
