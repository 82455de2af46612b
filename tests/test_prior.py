"""prior.py: blends, shapes, gradients, sampling and folders; on a tiny model."""

import pytest
import torch
from test_vqgan import TINY

from mmlesson import prior as priors
from mmlesson import runtime, vqgan
from mmlesson.gates import AssetError
from mmlesson.models.folders import WEIGHTS, save_folder
from mmlesson.prior import PriorConfig, blend, load_prior, new_prior, schedule

SMALL = PriorConfig(TINY.n_codes, TINY.dim, widths=(16, 32, 32), blocks=(1, 2, 1), heads=2)


@pytest.fixture
def model():
    return vqgan.new_vqgan(TINY).eval().requires_grad_(False)


@pytest.fixture
def prior(model):
    return new_prior(model, SMALL).eval().requires_grad_(False)


def test_a_blend_runs_from_random_to_clear():
    clear, random = torch.ones(3, 4, 2, 2), torch.zeros(3, 4, 2, 2)
    assert torch.equal(blend(clear, random, 1.0), clear) and torch.equal(blend(clear, random, 0.0), random)
    assert blend(clear, random, torch.tensor([0.0, 0.5, 1.0]))[:, 0, 0, 0].tolist() == [0, 0.5, 1]
    assert schedule(0) == 0 and schedule(1) == 1 and schedule(0.5) < 0.5


def test_every_place_gets_a_distribution_over_codes(prior):
    latents = torch.randn(3, TINY.dim, 4, 4)
    logits = prior(latents, torch.tensor([0.1, 0.5, 0.9]))
    assert logits.shape == (3, TINY.n_codes, 4, 4) and logits.dtype == torch.float32
    restored = prior.restore(latents, 0.5)
    expected = torch.einsum("nkhw,kd->ndhw", prior(latents, torch.full((3,), 0.5)).softmax(1), prior.codebook)
    torch.testing.assert_close(restored, expected)
    assert prior.restore(latents, torch.tensor([0.1, 0.5, 0.9])).shape == latents.shape


def test_the_clarity_is_heard_and_gradients_flow(prior):
    latents = torch.randn(1, TINY.dim, 4, 4, requires_grad=True)
    assert not torch.allclose(prior.restore(latents, 0.1), prior.restore(latents, 0.9))
    prior.restore(latents, 0.5).square().sum().backward()
    assert latents.grad.abs().min() > 0, "every place sees every other"


def test_attention_is_that_of_torch():
    attention = priors.Attention(32, heads=2).requires_grad_(False)
    x = torch.randn(2, 32, 4, 4)
    flat = attention.norm(x).flatten(2).transpose(1, 2)  # [n, hw, width]
    theirs = torch.nn.MultiheadAttention(32, 2, batch_first=True).requires_grad_(False)
    theirs.in_proj_weight.copy_(attention.to_qkv.weight[:, :, 0, 0])
    theirs.in_proj_bias.copy_(attention.to_qkv.bias)
    theirs.out_proj.weight.copy_(attention.to_out.weight[:, :, 0, 0])
    theirs.out_proj.bias.copy_(attention.to_out.bias)
    expected = x + theirs(flat, flat, flat)[0].transpose(1, 2).view_as(x)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-4)


def test_gumbel_draws_from_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    drawn = (logits + priors.gumbel(logits.shape, runtime.generator(0))).argmax(1).bincount(minlength=3) / len(logits)
    torch.testing.assert_close(drawn, logits[0].softmax(0), atol=0.015, rtol=0)


def test_samples_are_codes_and_come_again(prior):
    codes = prior.sample(2, seed=3, steps=4, grid=4)
    assert codes.shape == (2, 4, 4) and codes.dtype == torch.int64 and 0 <= codes.min() and codes.max() < TINY.n_codes
    assert torch.equal(codes, prior.sample(2, seed=3, steps=4, grid=4)) and not torch.equal(
        codes, prior.sample(2, seed=4, steps=4, grid=4)
    )


# ------------------------------------------------------------------------------------------- folders


def test_a_folder_brings_it_back(prior, model, tmp_path):
    save_folder(prior, tmp_path)
    again = load_prior(model, f"local-dir:{tmp_path}")
    latents = torch.randn(1, TINY.dim, 4, 4)
    torch.testing.assert_close(again.restore(latents, 0.5), prior.restore(latents, 0.5), atol=5e-3, rtol=5e-2)
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_another_vqgans_prior_is_refused(prior, tmp_path):
    save_folder(prior, tmp_path)
    with pytest.raises(AssetError, match="another VQGAN"):
        load_prior(vqgan.new_vqgan(TINY, seed=5), f"local-dir:{tmp_path}")


def test_what_is_missing_or_damaged_is_said(prior, model, tmp_path):
    with pytest.raises(AssetError, match="config.json is missing"):
        load_prior(model, f"local-dir:{tmp_path}")
    save_folder(prior, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(AssetError, match="damaged"):
        load_prior(model, f"local-dir:{tmp_path}")
    with pytest.raises(ValueError, match="there is no prior 'ghost'"):
        load_prior(model, "ghost")


def test_the_pocket_prior_belongs_to_the_pocket_vqgan():
    model = vqgan.load_vqgan()
    prior = load_prior(model)
    assert prior.config.n_codes == 1024 and torch.allclose(prior.codebook, model.codebook)


def test_the_pocket_prior_restores_what_random_codes_hide():
    """From a blend of clarity 0.3 it names far more codes of held-out scenes than the nearest row does, and its pixels
    are nearer.
    """
    from mmlesson import world

    model = vqgan.load_vqgan()
    prior = load_prior(model)
    codes = model.encode([scene.render(96) for scene in world.sample(20, "heldout", seed=8)])
    blended = blend(model.latents(codes), prior.random_latents(20, 12, runtime.generator(0)), 0.3)
    restored = prior(blended, torch.full((20,), 0.3)).argmax(1)
    nearest = model.quantise(blended / 0.3).codes
    right, alone = ((found == codes).float().mean().item() for found in (restored, nearest))
    assert right > 0.12 and right > 10 * alone, (right, alone)
    original, by_prior, by_row = (model.decode_latents(model.latents(grid)) for grid in (codes, restored, nearest))
    assert (by_prior - original).abs().mean() < 0.5 * (by_row - original).abs().mean()
