"""The recipe of DALL-E: what it reads, what it leaves empty, and a short training on a tiny model."""

import functools
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from test_vqgan import TINY

from mmlesson import vqgan, world
from mmlesson.train import dalle as recipe

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
    run = recipe.Recipe(steps=24, batch_size=4, scenes=60, workers=0, learning_rate=3e-3)
    losses = [step.loss for step, _ in recipe.train(run, device="cpu", vqgan=model, **SMALL)]
    expected = 0.125 * math.log(len(recipe.new_model(model, **SMALL).config.pieces) + 1) + 0.875 * math.log(
        TINY.n_codes
    )
    assert abs(losses[0] - expected) < 0.5 and sum(losses[-4:]) / 4 < losses[0]

    training = recipe.train(run, tmp_path, "cpu", model, **SMALL)
    for step, _ in training:
        if step.step == 10:
            break
    training.close()  # Ctrl-C: the checkpoint is written
    again = [step.loss for step, _ in recipe.train(run, tmp_path, "cpu", model, **SMALL)]
    assert again == pytest.approx(losses[10:], rel=1e-4), "stopped and resumed, it learns the same"
    assert len(list(tmp_path.glob("scenes-*.safetensors"))) == 1, "what the VQGAN made of the scenes is kept"


@pytest.mark.parametrize("dropout, canonical", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.3, 0.5)])
def test_captions_are_empty_canonical_or_in_any_wording(model, dropout, canonical, monkeypatch):
    seen = []

    def watched(dalle, vqgan, latents, captions, *_):
        seen.extend(captions)
        return dalle.lm_head.weight.sum()

    monkeypatch.setattr(recipe, "_loss", watched)
    run = recipe.Recipe(steps=20, batch_size=20, scenes=20, workers=0, dropout=dropout, canonical=canonical)
    list(recipe.train(run, device="cpu", vqgan=model, **SMALL))
    empty = seen.count("") / len(seen)
    plain = sum(
        caption in {scene.caption for scene in recipe.scenes(20, "train", run.seed, run)} for caption in seen
    ) / len(seen)
    assert len(seen) == 400 and empty == pytest.approx(dropout, abs=0.07)
    assert (1 - dropout) * canonical - 0.07 < plain < (1 - dropout) * (canonical + 0.4 * (1 - canonical)) + 0.07


def test_what_is_read_and_what_is_right_are_soft(model, monkeypatch):
    """The answers are shares by distance, and the codes that are read are drawn from them, or forgotten."""
    scenes = recipe.scenes(6, "train", 0, recipe.Recipe(steps=1))
    latents, captions = recipe.encoded(scenes, model), [scene.caption for scene in scenes]
    assert latents.dtype == torch.float16 and latents.shape == (6, TINY.dim, 4, 4)
    latents = latents.float()
    nearest, seen = model.quantise(latents).codes, []
    dalle = recipe.new_model(model, **SMALL)
    monkeypatch.setattr(
        dalle,
        "loss",
        lambda stream, soft: seen.append((stream[:, dalle.config.text_length :] - dalle.config.first_code, soft)),
    )
    for softness, forgetting in ((1e-4, 0.0), (5.0, 0.0), (5.0, 1.0)):
        run = recipe.Recipe(steps=1, softness=softness, forgetting=forgetting)
        recipe._loss(dalle, model, latents, captions, run, torch.Generator().manual_seed(0))
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


def test_the_command_trains_saves_and_saves_again_what_is_done(model, tmp_path, monkeypatch, capsys):
    from mmlesson.dalle import load_dalle

    small = recipe.new_model
    monkeypatch.setattr(recipe.vqgans, "load_vqgan", lambda **_: model)
    monkeypatch.setattr(recipe, "new_model", lambda vqgan, seed, **_: small(vqgan, seed, **SMALL))
    monkeypatch.setattr(
        recipe.Recipe, "__init__", functools.partialmethod(recipe.Recipe.__init__, scenes=30, batch_size=2)
    )
    arguments = {
        "minutes": None,
        "steps": 3,
        "seed": 0,
        "workers": 0,
        "device": "cpu",
        "state": tmp_path / "state",
        "fresh": False,
    }
    for out in ("first", "again"):
        assert recipe.main(SimpleNamespace(**arguments, out=str(tmp_path / out), model_kind="dalle")) == 0
        assert f"The DALL-E is in {tmp_path / out}." in capsys.readouterr().out
    first, again = (load_dalle(f"local-dir:{tmp_path / out}", "cpu") for out in ("first", "again"))
    assert first.config.dim == 32 and torch.equal(first.lm_head.weight, again.lm_head.weight)


def test_ctrl_c_before_the_first_step_promises_nothing(model, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "encoded", interrupted)
    training = recipe.train(recipe.Recipe(steps=2, scenes=20), tmp_path, "cpu", model, **SMALL)
    with pytest.raises(KeyboardInterrupt, match="no step had been taken yet"):
        recipe.checkpoint.told(training, tmp_path, str, lambda step: True)
