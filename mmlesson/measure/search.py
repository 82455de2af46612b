"""The measured quality of image search, on held-out scenes: `mmlesson eval search`.

The captions of the collection are all different, so every query has one right answer. A tenth of all concepts,
chosen by a hash, is in no picture of the collection. Queries for half of these concepts calibrate the threshold of
"nothing fits"; queries for the other half measure it.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from mmlesson import runtime, world
from mmlesson.clip import CLIP, load_clip
from mmlesson.measure.clip import untrained_clip
from mmlesson.measure.report import Report
from mmlesson.measure.speed_search import recall_at_10, scene_features, synthetic_index, text_features
from mmlesson.search import ImageIndex, evaluate_retrieval
from mmlesson.world import Scene

# The threshold is calibrated at this share of false hits. At 0.05, one collection in two would have more than 0.05.
STRICTER = 0.03


def is_absent(name: str) -> str:
    """The set that a concept belongs to: "calibrating" or "measuring" (it is in no picture), or "" (the collection)."""
    number = int.from_bytes(hashlib.sha256(f"absent|{name}".encode()).digest()[:8], "big") % 20
    return {0: "calibrating", 1: "measuring"}.get(number, "")


def scenes_about(which: str, n: int, seed: int, one_of_two: bool = False) -> list[Scene]:
    """`n` held-out scenes with different captions, all of whose concepts are in the set `which` (see `is_absent`).

    one_of_two: the scene shows two things; one of them is in the set, and the other is in the collection.
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


@dataclass(frozen=True)
class SearchQuality:
    """The figures of "eval search" in bars.py, and the 95 % bootstrap intervals of those on canonical captions."""

    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def evaluate_search(clip: CLIP, n: int = 1000, seed: int = 301) -> SearchQuality:
    """Searches among `n` held-out scenes of one or two things (100 at least). clip: what `load_clip` returns."""
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
    return SearchQuality(figures, found.intervals)


def evaluate_approximate(clip: CLIP, n: int = 100_000, base: int = 4000, queries: int = 200) -> dict[str, float]:
    """recall@10 of the approximate index against exact search, among `n` moved copies of `base` scene embeddings."""
    with tempfile.TemporaryDirectory(prefix="mmlesson-eval-") as folder:
        index = synthetic_index(n, clip, Path(folder, "index"), scene_features(clip, base))
        index.optimise(approximate=True)
        return {
            "approximate_recall_at_10": recall_at_10(index, text_features(clip, queries)),
            "approximate_recall_by_picture": recall_at_10(index, scene_features(clip, queries, "heldout")),
        }


def report(options) -> Report:
    """`mmlesson eval search`, with `options.n` scenes in the collection."""
    runtime.set_threads()
    clip, fresh = load_clip(options.model), untrained_clip()
    found, without = evaluate_search(clip, options.n), evaluate_search(fresh, options.n)
    figures = found.figures | evaluate_approximate(clip)
    chance = without.figures | evaluate_approximate(fresh)
    title = f"Image search with {clip.name} among {options.n} held-out scenes"
    intervals = ", ".join(f"{name} {low:.3f} … {high:.3f}" for name, (low, high) in found.intervals.items())
    note = f"95 % of bootstrap samples of the queries: {intervals}"
    return Report("eval search", title, figures, {"untrained": chance}, notes=[note])
