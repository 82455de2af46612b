"""The measurement of image search, on few scenes: a fresh CLIP is at chance, and every query is held out.

The figures of the shipped model are stored; tests/test_measured.py holds them fresh and above their bars.
"""

import pytest

from mmlesson import load_clip, world
from mmlesson.measure import search as evaluate_search
from mmlesson.measure.bars import FIGURES, bars
from mmlesson.measure.clip import untrained_clip


def test_the_shipped_model_finds_what_is_there():
    """A check that it measures, on few scenes; the figures and their bars are stored."""
    clip = load_clip("pocket-clip")
    found = evaluate_search.evaluate_search(clip, 150)
    assert all(low <= found.figures[name] <= high for name, (low, high) in found.intervals.items())
    assert found.figures["recall_at_1"] > 0.85 and found.figures["mrr"] > 0.9
    assert found.figures["no_answer_false_hits"] < 0.3 and found.figures["answer_misses"] < 0.3
    near = evaluate_search.evaluate_approximate(clip, n=3000, base=200, queries=10)
    assert 0.8 < near["approximate_recall_at_10"] <= 1
    assert set(found.figures) | set(near) == set(FIGURES["eval search"])


def test_a_fresh_model_is_at_chance():
    chance = evaluate_search.evaluate_search(untrained_clip(), 200).figures
    assert chance["recall_at_1"] < 0.05 and chance["mrr"] < 0.1 and chance["median_rank"] > 30
    assert not bars("eval search")["answer_misses"].met(chance["answer_misses"])


def test_what_is_asked_for_in_vain_is_nowhere_in_the_collection():
    collection = evaluate_search.scenes_about("", 150, seed=1)
    there = {name for scene in collection for name in scene.concepts}
    for which in ("calibrating", "measuring"):
        asked = {name for scene in evaluate_search.scenes_about(which, 60, seed=2) for name in scene.concepts}
        assert asked and not asked & there and {evaluate_search.is_absent(name) for name in asked} == {which}
    for scene in evaluate_search.scenes_about("measuring", 40, seed=3, one_of_two=True):
        assert sorted(map(evaluate_search.is_absent, scene.concepts)) == ["", "measuring"]


@pytest.mark.parametrize("which", ["", "calibrating", "measuring"])
def test_scenes_are_held_out_and_captions_differ(which):
    scenes = evaluate_search.scenes_about(which, 120, seed=4)
    assert len({scene.caption for scene in scenes}) == 120 and all(scene.held_out for scene in scenes)
    assert scenes == evaluate_search.scenes_about(which, 120, seed=4)


def test_who_is_absent_is_decided_by_a_hash():
    kinds = [evaluate_search.is_absent(concept.name) for concept in world.concepts()]
    assert all(15 <= kinds.count(which) <= 50 for which in ("calibrating", "measuring"))
    assert [name for name in ("cat", "dog", "owl", "robot", "key", "tulip") if evaluate_search.is_absent(name)] == []
    measuring = sorted(
        concept.name for concept in world.concepts() if evaluate_search.is_absent(concept.name) == "measuring"
    )
    assert measuring[:3] == ["ambulance", "articulated lorry", "astronaut"], "the same on every machine"
