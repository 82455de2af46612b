"""Image search with the shipped CLIP clears its bars, with a fresh one it does not, and all of it is held out."""

import json
import math
from types import SimpleNamespace

import pytest

from mmlesson import load_clip, world
from mmlesson.measure import search as evaluate_search
from mmlesson.measure.clip import untrained_clip


@pytest.fixture(scope="module")
def figures():
    clip = load_clip("pocket-clip")
    found, intervals = evaluate_search.evaluate_search(clip, 1000)
    assert all(low <= found[name] <= high for name, (low, high) in intervals.items())
    return found | evaluate_search.evaluate_approximate(clip, base=1000, queries=60)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(evaluate_search.BARS))
def test_the_shipped_model_clears_its_bar(figures, name):
    bar = evaluate_search.BARS[name]
    assert bar.met(figures[name]), f"{name} is {figures[name]:.3f}, and its bar is {bar}"


def test_a_fresh_model_is_at_chance():
    chance, _ = evaluate_search.evaluate_search(untrained_clip(), 200)
    assert chance["recall_at_1"] < 0.05 and chance["mrr"] < 0.1 and chance["median_rank"] > 30
    assert not evaluate_search.BARS["answer_misses"].met(chance["answer_misses"])


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


def test_the_last_line_is_one_flat_object_of_numbers(capsys, monkeypatch):
    monkeypatch.setattr(evaluate_search, "evaluate_approximate", lambda clip: {"approximate_recall_at_10": 0.99})
    assert evaluate_search.main(SimpleNamespace(model=None, n=60, json=True)) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    numbers = json.loads(printed[-1])
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers.values())
    names = {name for name in numbers if not name.startswith("untrained_")}
    assert set(evaluate_search.BARS) <= names and {f"untrained_{name}" for name in names} == set(numbers) - names
    assert any(line.startswith("| `recall_at_1`") for line in printed)
