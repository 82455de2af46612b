"""The shipped VQGAN clears its bars, a fresh one fails them, and the command prints what it promises."""

import json
from types import SimpleNamespace

import pytest

from mmlesson import load_clip, load_vqgan, vqgan, world
from mmlesson.measure import vqgan as evaluate_vqgan

N = 400


@pytest.fixture(scope="module")
def figures():
    return evaluate_vqgan.evaluate_vqgan(load_vqgan(), load_clip("pocket-clip"), N)


@pytest.mark.parametrize("name", list(evaluate_vqgan.BARS))
def test_the_shipped_model_clears_its_bar(figures, name):
    bar = evaluate_vqgan.BARS[name]
    assert bar.met(figures[name]), f"{name} is {figures[name]:.3f}, and its bar is {bar}"


def test_the_figures_fit_each_other(figures):
    assert figures["l1"] < figures["l1_background_only"]  # better than painting no object at all
    assert figures["l1_object"] > figures["l1"]  # objects are where it is hard
    assert 0.5 <= figures["patch_auc"] <= 1


def test_a_fresh_model_misses_every_bar():
    fresh = vqgan.new_vqgan(seed=1).eval().requires_grad_(False)
    chance = evaluate_vqgan.evaluate_vqgan(fresh, load_clip("pocket-clip"), 100)
    assert not any(bar.met(chance[name]) for name, bar in evaluate_vqgan.BARS.items())


def test_everything_is_measured_on_held_out_scenes(monkeypatch):
    asked, real = [], world.sample

    def sample(n, split="train", seed=0, objects=None):
        asked.append(split)
        return real(n, split, seed, objects)

    monkeypatch.setattr(world, "sample", sample)
    evaluate_vqgan.evaluate_vqgan(load_vqgan(), load_clip("pocket-clip"), 20)
    assert set(asked) == {"heldout"}


def test_the_last_line_is_one_flat_object_of_numbers(capsys):
    assert evaluate_vqgan.main(SimpleNamespace(model=None, n=20, json=True)) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    numbers = json.loads(printed[-1])
    names = {name for name in numbers if not name.startswith("untrained_")}
    assert names == set(evaluate_vqgan.MEANINGS)
    assert {f"untrained_{name}" for name in names} == set(numbers) - names
