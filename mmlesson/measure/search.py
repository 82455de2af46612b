"""The measured quality of image search, on held-out scenes alone: `mmlesson eval search`.

The collection holds scenes whose captions are all different, so that every query has one right answer. A tenth of
all concepts, chosen by a hash, is kept out of it: queries for half of these calibrate the threshold of "nothing
fits", queries for the other half measure it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import torch

from mmlesson import runtime, world
from mmlesson.clip import load_clip
from mmlesson.measure.clip import Bar, table, untrained_clip
from mmlesson.measure.speed_search import recall_at_10, scene_features, synthetic_index, text_features
from mmlesson.search import ImageIndex, evaluate_retrieval
from mmlesson.world import Scene

BARS = {
    "recall_at_1": Bar(least=0.85),
    "mrr": Bar(least=0.90),
    "no_answer_false_hits": Bar(most=0.05),
    "answer_misses": Bar(most=0.10),
    "approximate_recall_at_10": Bar(least=0.95),
}
MEANINGS = {
    "recall_at_1": "canonical captions: the right picture is first",
    "recall_at_5": "… among the first five",
    "recall_at_10": "… among the first ten",
    "mrr": "mean of 1 / rank",
    "median_rank": "of the right picture",
    "paraphrase_recall_at_1": "six wordings that no training used",
    "paraphrase_mrr": "the same",
    "no_answer_false_hits": "nothing here fits, and a hit comes all the same",
    "answer_misses": "the right picture is here, and no hit comes",
    "half_absent_false_hits": "one of two things is nowhere, and a hit comes",
    "approximate_recall_at_10": "of exact search's ten, by sentences",
    "approximate_recall_by_picture": "… by pictures",
}
STRICTER = 0.03  # calibrated at this share of false hits: at 0.05 one collection in two would show more than 0.05


def is_absent(name: str) -> str:
    """ "calibrating", "measuring" or "": which of the two sets of concepts that are kept out of the collection has `name`."""
    number = int.from_bytes(hashlib.sha256(f"absent|{name}".encode()).digest()[:8], "big") % 20
    return {0: "calibrating", 1: "measuring"}.get(number, "")


def scenes_about(which: str, n: int, seed: int, one_of_two: bool = False) -> list[Scene]:
    """`n` held-out scenes with different captions whose concepts are all in a set ("": in the collection).

    one_of_two: two things, exactly one of them in the set and the other in the collection.
    """
    found: dict[str, Scene] = {}
    rng = runtime.generator(seed)
    names = [concept.name for concept in world.concepts() if is_absent(concept.name) == which]
    others = [concept.name for concept in world.concepts() if not is_absent(concept.name)]
    colours = list(world.BACKGROUNDS)

    def draw(values: list[str]) -> str:
        return values[int(torch.randint(len(values), (1,), generator=rng))]

    while len(found) < n:
        things = [draw(names)]
        if one_of_two or torch.rand(1, generator=rng) < 0.5:
            things.append(draw(others if one_of_two else names))
        if len(set(things)) < len(things):
            continue
        if one_of_two and torch.rand(1, generator=rng) < 0.5:
            things.reverse()
        relation = draw(["left of", "above"])
        scene = world.scene(*things, background=draw(colours), relation=relation, seed=seed + len(found))
        if scene.held_out:
            found.setdefault(scene.caption, scene)
    return list(found.values())


def evaluate_search(clip, n: int = 1000, seed: int = 301) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The figures of BARS and their companions, and the 95 % bootstrap intervals of those on canonical captions.

    clip: what `load_clip` returns. n: scenes in the collection (one or two things each), 100 at least.
    """
    scenes = scenes_about("", n, seed)
    with tempfile.TemporaryDirectory(prefix="mmlesson-eval-") as folder:
        index = ImageIndex.build(scenes, clip, path=Path(folder, "index"))
        found = evaluate_retrieval(index, [(scene.caption, place) for place, scene in enumerate(scenes)])
        wordings = [(text, place) for place, scene in enumerate(scenes) for text in scene.captions(unseen=True)]
        paraphrased = evaluate_retrieval(index, wordings, resamples=1)

        calibrating, measuring = (scenes_about(which, n // 2, seed + 1) for which in ("calibrating", "measuring"))
        half = scenes_about("measuring", n // 2, seed + 2, one_of_two=True)
        threshold = index.calibrate([scene.caption for scene in calibrating], STRICTER)

        def passing(queries: list[Scene]) -> float:
            return (index.scores([scene.caption for scene in queries]).amax(dim=1) >= threshold).float().mean().item()

        figures = {name: getattr(found, name) for name in found.intervals}
        figures["paraphrase_recall_at_1"], figures["paraphrase_mrr"] = paraphrased.recall_at_1, paraphrased.mrr
        figures["min_score"] = threshold
        figures["no_answer_false_hits"] = passing(measuring)
        figures["answer_misses"] = 1 - passing(scenes)
        figures["half_absent_false_hits"] = passing(half)
    return figures, found.intervals


def evaluate_approximate(clip, n: int = 100_000, base: int = 4000, queries: int = 200) -> dict[str, float]:
    """recall@10 of the approximate index against exact search, among `n` moved copies of `base` scene embeddings."""
    with tempfile.TemporaryDirectory(prefix="mmlesson-eval-") as folder:
        index = synthetic_index(n, clip, Path(folder, "index"), scene_features(clip, base))
        index.optimise(approximate=True)
        return {
            "approximate_recall_at_10": recall_at_10(index, text_features(clip, queries)),
            "approximate_recall_by_picture": recall_at_10(index, scene_features(clip, queries, "heldout")),
        }


def main(arguments) -> int:
    """`mmlesson eval search`: a table, and with --json one flat JSON object as the last line."""
    runtime.set_threads()
    clip, fresh = load_clip(arguments.model), untrained_clip()
    figures, intervals = evaluate_search(clip, arguments.n)
    chance, _ = evaluate_search(fresh, arguments.n)
    figures |= evaluate_approximate(clip)
    chance |= evaluate_approximate(fresh)
    print(f"Image search with {clip.name} among {arguments.n} held-out scenes\n")
    print(table(figures, chance, BARS, MEANINGS))
    print(
        "\n95 % of bootstrap samples of the queries: "
        + ", ".join(f"{name} {a:.3f} … {b:.3f}" for name, (a, b) in intervals.items())
    )
    if arguments.json:
        numbers = {name: round(value, 4) for name, value in figures.items()}
        numbers |= {f"untrained_{name}": round(value, 4) for name, value in chance.items()}
        print(json.dumps(numbers))
    return 0
