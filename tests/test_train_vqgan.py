"""The VQGAN's recipe on a tiny model: every term takes part, and stopped and resumed it learns the same."""

import pytest
from test_vqgan import TINY

from mmlesson.train.run import train
from mmlesson.train.vqgan import Recipe, Training

RUN = Recipe(steps=8, batch_size=2, quantise_from_step=2, restart_codes_every=3, adversarial_start=0.5, workers=0)


def test_training_repeats_and_resumes(tmp_path):
    steps = list(train(Training(RUN, "cpu", TINY)))
    details = [step.details for step in steps]
    assert [each["commitment"] > 0 for each in details] == [False] * 2 + [True] * 6, (
        "the codebook joins after two steps"
    )
    assert details[2]["restarted"] > 0 and details[3]["restarted"] == 0
    joined = [each["discriminator"] != 2.0 for each in details]
    assert joined == [False] * 4 + [True] * 4, "the discriminator joins half way"
    for step, each in zip(steps, details, strict=True):
        terms = each["l1"] + RUN.perceptual_weight * each["perceptual"] + RUN.commitment_weight * each["commitment"]
        assert step.loss == pytest.approx(terms, rel=1e-4)

    going = train(Training(RUN, "cpu", TINY), tmp_path)
    for step in going:
        if step.step == 3:
            break
    going.close()  # Ctrl-C: the checkpoint is written
    again = [step.loss for step in train(Training(RUN, "cpu", TINY), tmp_path)]
    assert again == pytest.approx([step.loss for step in steps[3:]], rel=1e-4)


def test_the_thermometer_counts_codes():
    heldout = Training(RUN, "cpu", TINY).evaluate()
    assert 0 < heldout["l1"] < 1 and 1 <= heldout["codes"] <= TINY.n_codes
