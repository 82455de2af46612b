"""The VQGAN's recipe on a tiny model: every term takes part, and stopped and resumed it learns the same."""

import pytest
from test_vqgan import TINY

from mmlesson.train import vqgan as recipe

RUN = recipe.Recipe(steps=8, batch_size=2, quantise_from=2, restart_every=3, adversarial_from=0.5, workers=0)


def test_training_repeats_and_resumes(tmp_path):
    steps = [step for step, _ in recipe.train(RUN, device="cpu", config=TINY)]
    assert [step.step for step in steps] == list(range(1, 9)) and steps[-1].pictures == 16
    assert [step.commitment > 0 for step in steps] == [False] * 2 + [True] * 6, "the codebook joins after two steps"
    assert steps[2].restarted > 0 and steps[3].restarted == 0
    assert [step.discriminator != 2.0 for step in steps] == [False] * 4 + [True] * 4, "the discriminator joins half way"

    training = recipe.train(RUN, tmp_path, "cpu", TINY)
    for step, _ in training:
        if step.step == 3:
            break
    training.close()  # Ctrl-C: the checkpoint is written
    again = [step.l1 for step, _ in recipe.train(RUN, tmp_path, "cpu", TINY)]
    assert again == pytest.approx([step.l1 for step in steps[3:]], rel=1e-4)
