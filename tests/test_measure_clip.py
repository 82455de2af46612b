"""The shipped pocket CLIP clears its bars, a fresh one fails them, and the command prints what it promises."""

import json
import math
from types import SimpleNamespace

import pytest

from mmlesson import load_clip, load_judge, world
from mmlesson.measure import clip as evaluate

N = 500  # distinct captions and held-out scenes: the least that a figure is quoted for


@pytest.fixture(scope="module")
def figures():
    return evaluate.evaluate_clip(load_clip("pocket-clip"), N)


@pytest.fixture(scope="module")
def chance():
    return evaluate.evaluate_clip(evaluate.untrained_clip(), N)


@pytest.mark.parametrize("name", list(evaluate.CLIP_BARS))
def test_the_shipped_model_clears_its_bar(figures, name):
    bar = evaluate.CLIP_BARS[name]
    assert bar.met(figures[name]), f"{name} is {figures[name]:.3f}, and its bar is {bar}"


def test_a_fresh_model_is_at_chance(chance):
    assert chance["zero_shot_top1"] < 0.02
    assert chance["background_top1"] < 0.30
    assert chance["retrieval_r1"] < 0.02
    assert 0.35 < chance["word_order"] < 0.65
    missed = [name for name, bar in evaluate.CLIP_BARS.items() if not bar.met(chance[name])]
    assert {"zero_shot_top1", "background_top1", "retrieval_r1", "word_order"} <= set(missed)


def test_the_judge_clears_its_bars_and_is_another_network():
    judge, pocket = load_judge(), load_clip("pocket-clip")
    found = evaluate.evaluate_clip(judge, N)
    for name, bar in evaluate.JUDGE_BARS.items():
        assert bar.met(found[name]), f"{name} is {found[name]:.3f}, and its bar is {bar}"
    assert type(judge.model.visual) is not type(pocket.model.visual)


def test_ranks_of_photos(figures):
    ranks = [value for name, value in figures.items() if name.startswith("photo_rank_")]
    assert len(ranks) == len(world.photos()) and all(1 <= rank <= 20 for rank in ranks)


def test_everything_is_measured_on_held_out_scenes(monkeypatch):
    """Whatever the evaluation asks the world for, it asks for held-out scenes, and enough of them."""
    asked = []
    real = world.sample

    def sample(n, split="train", seed=0, objects=None):
        asked.append((n, split))
        return real(n, split, seed, objects)

    monkeypatch.setattr(world, "sample", sample)
    evaluate.evaluate_clip(evaluate.untrained_clip(), 20)
    assert asked and all(split == "heldout" for _, split in asked)


def test_the_last_line_is_one_flat_object_of_numbers(capsys):
    assert evaluate.main(SimpleNamespace(what="clip", model=None, n=20, json=True)) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    numbers = json.loads(printed[-1])
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers.values())
    names = [name for name in numbers if not name.startswith("untrained_")]
    assert set(evaluate.CLIP_BARS) <= set(names)
    assert {f"untrained_{name}" for name in names} == set(numbers) - set(names)
    assert any(line.startswith("| `zero_shot_top1`") for line in printed)


def test_a_bar_that_is_missed_is_called_missed():
    shown = evaluate.table({"zero_shot_top1": 0.5}, {"zero_shot_top1": 0.0}, evaluate.CLIP_BARS, {})
    assert "MISSED" in shown
    assert "MISSED" not in evaluate.table({"zero_shot_top1": 0.96}, {"zero_shot_top1": 0.0}, evaluate.CLIP_BARS, {})
