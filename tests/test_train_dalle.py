"""The recipe of DALL-E: what it reads, what it leaves empty, and a short training on a tiny model."""

import math
import warnings

import pytest
import torch
from test_vqgan import TINY

from mmlesson import vqgan, world
from mmlesson.train import dalle as recipe
from mmlesson.train.dalle import Recipe, Training
from mmlesson.train.run import train
from mmlesson.world.middle import scenes_in_the_middle

SMALL = {"dim": 32, "layers": 2, "heads": 2}


@pytest.fixture
def model():
    return vqgan.new_vqgan(TINY).eval().requires_grad_(False)


def test_no_training_caption_has_an_unknown_word_or_is_cut(model):
    dalle = recipe.new_model(model, **SMALL)
    data = world.dataset(2000, "train", seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = dalle.text_tokens([data[i][1] for i in range(len(data))])
    assert tokens.shape == (2000, dalle.config.text_length) and len(dalle.config.pieces) < 1100
    assert (tokens == dalle.config.padding).any(1).float().mean() > 0.99, "there is room for what captions say"


def test_training_learns_resumes_and_repeats(model, tmp_path):
    short = Recipe(steps=24, batch_size=4, n_scenes=60, workers=0, learning_rate=3e-3)
    losses = [step.loss for step in train(Training(short, "cpu", model, **SMALL))]
    expected = 0.125 * math.log(len(recipe.new_model(model, **SMALL).config.pieces) + 1) + 0.875 * math.log(
        TINY.n_codes
    )
    assert abs(losses[0] - expected) < 0.5 and sum(losses[-4:]) / 4 < losses[0]

    going = train(Training(short, "cpu", model, **SMALL), tmp_path)
    for step in going:
        if step.step == 10:
            break
    going.close()  # Ctrl-C: the checkpoint is written
    (stored,) = tmp_path.glob("scenes-*.latents")
    before = stored.read_bytes()
    stored.write_bytes(before[:1000] + bytes([before[1000] ^ 1]) + before[1001:])  # damaged: made again
    again = [step.loss for step in train(Training(short, "cpu", model, **SMALL), tmp_path)]
    assert again == pytest.approx(losses[10:], rel=1e-4), "stopped and resumed, it learns the same"
    assert stored.read_bytes() == before, "what the VQGAN made of the scenes is kept"


@pytest.mark.parametrize("dropout, canonical", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.3, 0.5)])
def test_captions_are_empty_canonical_or_in_any_wording(model, dropout, canonical, monkeypatch):
    seen = []

    def watched(training, latents, captions, *_):
        seen.extend(captions)
        return training.model.lm_head.weight.sum()

    monkeypatch.setattr(Training, "_loss", watched)
    shares = {"empty_caption_share": dropout, "canonical_share": canonical}
    short = Recipe(steps=20, batch_size=20, n_scenes=20, workers=0, **shares)
    list(train(Training(short, "cpu", model, **SMALL)))
    empty = seen.count("") / len(seen)
    plain_captions = {scene.caption for scene in scenes_in_the_middle(20, "train", short.seed)}
    plain = sum(caption in plain_captions for caption in seen) / len(seen)
    assert len(seen) == 400 and empty == pytest.approx(dropout, abs=0.07)
    assert (1 - dropout) * canonical - 0.07 < plain < (1 - dropout) * (canonical + 0.4 * (1 - canonical)) + 0.07


def test_what_is_read_and_what_is_right_are_soft(model, monkeypatch):
    """The answers are shares by distance, and the codes that are read are drawn from them, or forgotten."""
    scenes = scenes_in_the_middle(6, "train", 0)
    latents, captions = recipe.encoded(scenes, model), [scene.caption for scene in scenes]
    assert latents.dtype == torch.float16 and latents.shape == (6, TINY.dim, 4, 4)
    latents = latents.float()
    nearest, seen = model.quantise(latents).codes, []
    for temperature, blanked in ((1e-4, 0.0), (5.0, 0.0), (5.0, 1.0)):
        training = Training(Recipe(steps=1, soft_label_temperature=temperature), "cpu", model, **SMALL)
        dalle = training.model

        def keep(stream, soft, config=dalle.config):
            seen.append((stream[:, config.text_length :] - config.first_code, soft))

        monkeypatch.setattr(dalle, "loss", keep)
        training._loss(latents, captions, torch.Generator().manual_seed(0), blanked)
    (sharp, _), (drawn, shares), (left, whole) = seen
    assert (sharp == nearest.flatten(1)).float().mean() > 0.95
    torch.testing.assert_close(
        shares, (-torch.cdist(latents.permute(0, 2, 3, 1), model.codebook).square() / 5).softmax(-1)
    )
    of_drawn = shares.flatten(1, 2).gather(2, drawn[..., None]).mean()
    assert torch.equal(shares, whole), "what is forgotten has to be said all the same"
    gone = left == dalle.config.padding - dalle.config.first_code
    assert torch.equal(left[~gone], drawn[~gone]) and 0.2 < gone.float().mean() < 0.8
    assert of_drawn == pytest.approx(shares.square().sum(-1).mean().item(), abs=0.02), "as often as their shares say"


def test_the_model_remembers_its_vqgan():
    from mmlesson.models import assets

    dalle = recipe.new_model(vqgan.load_vqgan(), **SMALL)
    assert dalle.config.vqgan == assets.manifest()["files"]["models/pocket-vqgan/model.safetensors"]["sha256"]
    assert torch.equal(dalle.lm_head.weight, recipe.new_model(vqgan.load_vqgan(), **SMALL).lm_head.weight)


def test_the_folder_is_one_that_the_lessons_load(model, tmp_path):
    from mmlesson.dalle import load_dalle

    training = Training(Recipe(steps=1, n_scenes=30, batch_size=2, workers=0), "cpu", model, **SMALL)
    list(train(training))
    training.save(tmp_path)
    loaded = load_dalle(f"local-dir:{tmp_path}", "cpu")
    assert loaded.config == training.model.config
    assert torch.equal(loaded.lm_head.weight, training.model.lm_head.weight.half().float())
