"""The measurement of a VQGAN, on few scenes: its figures fit each other, and a fresh model misses every bar.

The figures of the shipped model are stored; tests/test_measured.py holds them fresh and above their bars.
"""

import pytest

from mmlesson import load_clip, load_vqgan, vqgan, world
from mmlesson.measure.bars import FIGURES, bars
from mmlesson.measure.vqgan import evaluate_vqgan


@pytest.fixture(scope="module")
def figures():
    return evaluate_vqgan(load_vqgan(), load_clip("pocket-clip"), 60)


def test_the_figures_fit_each_other(figures):
    assert set(figures) == set(FIGURES["eval vqgan"])
    assert figures["l1"] < figures["l1_background_only"], "better than painting no object at all"
    assert figures["l1_object"] > figures["l1"], "objects are where it is hard"
    assert 0.5 <= figures["patch_auc"] <= 1
    assert figures["recognised"] > 0.8 and figures["codebook_used"] > 0.5


def test_a_fresh_model_misses_every_bar():
    fresh = vqgan.new_vqgan(seed=1).eval().requires_grad_(False)
    chance = evaluate_vqgan(fresh, load_clip("pocket-clip"), 60)
    assert not any(bar.met(chance[name]) for name, bar in bars("eval vqgan").items())


def test_everything_is_measured_on_held_out_scenes(monkeypatch):
    asked, real = [], world.sample

    def sample(n, split="train", seed=0, objects=None):
        asked.append((n, split))
        return real(n, split, seed, objects)

    monkeypatch.setattr(world, "sample", sample)
    evaluate_vqgan(load_vqgan(), load_clip("pocket-clip"), 20)
    assert asked == [(10, "heldout"), (10, "heldout")]


@pytest.mark.parametrize("n", [0, 1, 7])
def test_an_odd_number_of_scenes_is_refused(n):
    """Fault: an odd number was silently rounded down."""
    with pytest.raises(ValueError, match="an even number"):
        evaluate_vqgan(None, None, n)
