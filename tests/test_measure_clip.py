"""The measurement of a CLIP, on few scenes: it asks for held-out ones, and a fresh model is at chance.

The figures of the shipped models are stored; tests/test_measured.py holds them fresh and above their bars.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmlesson import load_clip, load_judge, world
from mmlesson.measure import clip as evaluate
from mmlesson.measure.bars import bars

FEW = 60


@pytest.fixture(scope="module")
def figures():
    return evaluate.evaluate_clip(load_clip("pocket-clip"), FEW)


def test_the_shipped_model_is_far_from_chance(figures):
    assert all(figures[name] > 0.8 for name in ("zero_shot_top1", "background_top1", "retrieval_r1", "word_order"))
    assert figures["paraphrase_drop"] == pytest.approx(figures["retrieval_r1"] - figures["paraphrase_r1"])


def test_a_fresh_model_is_at_chance():
    chance = evaluate.evaluate_clip(evaluate.untrained_clip(), 100)
    assert chance["zero_shot_top1"] < 0.05
    assert chance["background_top1"] < 0.30
    assert chance["retrieval_r1"] < 0.06
    assert 0.3 < chance["word_order"] < 0.7
    missed = {name for name, bar in bars("eval clip").items() if not bar.met(chance[name])}
    assert {"zero_shot_top1", "background_top1", "retrieval_r1", "word_order"} <= missed


def test_the_judge_is_another_network():
    judge, pocket = load_judge(), load_clip("pocket-clip")
    assert type(judge.model.visual) is not type(pocket.model.visual)


def test_ranks_of_photos(figures):
    ranks = [value for name, value in figures.items() if name.startswith("photo_rank_")]
    assert len(ranks) == len(world.photos("skimage")) and all(1 <= rank <= 20 for rank in ranks)


def random_features(some) -> torch.Tensor:
    return F.normalize(torch.randn(len(some), 8, generator=torch.Generator().manual_seed(len(some))), dim=1)


def test_everything_is_measured_on_held_out_scenes(monkeypatch):
    """Whatever the evaluation asks the world for, it asks for held-out scenes."""
    asked = []
    real = world.sample

    def sample(n, split="train", seed=0, objects=None):
        asked.append(split)
        return real(n, split, seed, objects)

    monkeypatch.setattr(world, "sample", sample)
    blind = SimpleNamespace(image_size=32, encode_images=random_features, encode_texts=random_features)
    evaluate.evaluate_clip(blind, 20)
    assert asked and set(asked) == {"heldout"}
