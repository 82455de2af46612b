"""The prior's recipe on a tiny model: it learns, and stopped and resumed it learns the same."""

import math

import pytest
from test_prior import SMALL
from test_vqgan import TINY

from mmlesson.train.prior import Recipe, Training
from mmlesson.train.run import train
from mmlesson.vqgan import new_vqgan


@pytest.fixture
def model():
    return new_vqgan(TINY).eval().requires_grad_(False)


def test_training_learns_resumes_and_repeats(model, tmp_path):
    recipe = Recipe(steps=24, batch_size=4, blends_per_scene=2, workers=0, learning_rate=3e-3)
    losses = [step.loss for step in train(Training(recipe, "cpu", model, SMALL))]
    assert abs(losses[0] - math.log(TINY.n_codes)) < 1 and sum(losses[-4:]) / 4 < losses[0]

    going = train(Training(recipe, "cpu", model, SMALL), tmp_path)
    for step in going:
        if step.step == 10:
            break
    going.close()  # Ctrl-C: the checkpoint is written
    again = [step.loss for step in train(Training(recipe, "cpu", model, SMALL), tmp_path)]
    assert again == pytest.approx(losses[10:], rel=1e-4), "stopped and resumed, it learns the same"
