"""vqgan.py: shapes and gradients, the quantiser against vector-quantize-pytorch's, folders; all on a tiny, untrained
model.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from vector_quantize_pytorch import VectorQuantize

from mmlesson.gates import AssetError
from mmlesson.models.folders import CONFIG, WEIGHTS, save_folder
from mmlesson.pixels import ImageError
from mmlesson.vqgan import Quantiser, VQGANConfig, load_vqgan, new_vqgan

TINY = VQGANConfig(image_size=32, n_codes=20, dim=4, channels=(16, 16, 32), discriminator=16)


@pytest.fixture
def model():
    return new_vqgan(TINY).eval().requires_grad_(False)


def pictures(n: int) -> list[Image.Image]:
    return [Image.new("RGB", (50 + i, 40), (30 * i % 256, 200, 90)) for i in range(n)]


# -------------------------------------------------------------------------------------------- shapes


def test_a_picture_is_a_grid_of_codes_and_back(model):
    codes = model.encode(pictures(5), batch_size=2)
    assert codes.dtype == torch.int64 and codes.shape == (5, 4, 4) and 0 <= codes.min() and codes.max() < 20
    decoded = model.decode(codes, batch_size=2)
    assert [(image.size, image.mode) for image in decoded] == [((32, 32), "RGB")] * 5
    assert torch.equal(model.encode(pictures(5)), codes), "whatever the batches"
    assert model.encode(pictures(1)[0]).shape == (1, 4, 4) and len(model.decode(codes[0])) == 1
    assert model.encode([]).shape == (0, 4, 4) and model.decode(codes[:0]) == []


def test_a_single_code_has_a_look(model):
    one, other = model.code_images(torch.tensor([3, 7]))
    assert one.size == other.size == (16, 16)
    assert one.tobytes() == model.decode(torch.full((3, 3), 3))[0].crop((4, 4, 20, 20)).tobytes() != other.tobytes()


def test_the_parts_fit_together(model):
    pixels = torch.rand(3, 3, 32, 32)
    latents = model.encode_pixels(pixels)
    assert latents.shape == (3, 4, 4, 4) and latents.dtype == torch.float32
    quantised = model.quantise(latents)
    assert torch.equal(quantised.codes, model.quantiser.nearest(latents))
    torch.testing.assert_close(quantised.latents, model.latents(quantised.codes))
    decoded = model.decode_latents(quantised.latents)
    assert decoded.shape == pixels.shape and decoded.min() >= 0 and decoded.max() <= 1
    assert model.discriminator(pixels).shape == (3, 4, 4)
    scores = model.patch_scores(pictures(2))
    assert scores.shape == (2, 4, 4) and 0 < scores.min() and scores.max() < 1


def test_any_grid_is_decoded(model):
    """Codes at other shapes too: a decoder that only convolves paints as far as its grid goes."""
    assert model.decode(torch.zeros(1, 3, 6, dtype=torch.int64))[0].size == (48, 24)


def test_the_real_one_is_small_enough():
    model = new_vqgan()
    assert 2 * sum(value.numel() for value in model.state_dict().values()) < 16e6, "bytes in fp16"
    assert model.config.grid == 12 and repr(model) == "VQGAN('new': 96×96 pixels as 12×12 of 1,024 codes)"
    assert model.encoder(torch.zeros(1, 3, 96, 96)).shape == (1, 16, 12, 12)


def test_a_patch_is_all_that_a_score_sees():
    """The discriminator judges parts: what lies farther than its patch of 38 pixels changes a logit by nothing but
    the norms.
    """
    layers = [layer for layer in new_vqgan(TINY).discriminator.layers if not isinstance(layer, torch.nn.GroupNorm)]
    pixels = torch.zeros(1, 3, 96, 96, requires_grad=True)
    torch.nn.Sequential(*layers)(pixels + 0.3)[0, 0, 6, 6].backward()
    seen = pixels.grad.abs().sum((0, 1)).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [38, 38]


def test_its_parts_have_the_names_of_the_field(model):
    """Those of taming-transformers and diffusers, so that a reader recognises them there."""
    ends = {"conv_in", "mid", "norm_out", "conv_out"}
    assert {name for name, _ in model.encoder.named_children()} == ends | {"down"}
    assert {name for name, _ in model.decoder.named_children()} == ends | {"up"}
    assert [name for name, _ in model.decoder.mid[0].named_children()] == ["norm1", "conv1", "norm2", "conv2"]


# ----------------------------------------------------------------------------------------- quantiser


def reference(quantiser: Quantiser, **options) -> VectorQuantize:
    """vector-quantize-pytorch's quantiser with the same codebook."""
    n, dim = quantiser.codebook.shape
    theirs = VectorQuantize(dim, n, accept_image_fmap=True, **options)
    with torch.no_grad():
        theirs._codebook.embed.copy_(quantiser.codebook[None])
        theirs._codebook.embed_avg.copy_(quantiser.sums[None])
        theirs._codebook.cluster_size.copy_(quantiser.counts[None])
    return theirs


def test_the_nearest_codes_are_those_of_a_reference():
    torch.manual_seed(0)
    ours = Quantiser(50, 6).eval()
    theirs = reference(ours).eval()
    latents = torch.randn(3, 6, 5, 7)
    quantised, (latents_theirs, codes_theirs, _) = ours(latents), theirs(latents)
    assert torch.equal(quantised.codes, codes_theirs)
    torch.testing.assert_close(quantised.latents, latents_theirs)
    distances = torch.cdist(latents.permute(0, 2, 3, 1).reshape(-1, 6), ours.codebook)
    assert torch.equal(quantised.codes.flatten(), distances.argmin(1)), "and of the definition"


def test_soft_codes_are_shares_by_distance(model):
    latents = torch.randn(2, model.config.dim, 5, 4, generator=torch.Generator().manual_seed(0))
    shares = model.soft_codes(latents, 0.5)
    reference = (-torch.cdist(latents.permute(0, 2, 3, 1), model.codebook).square() / 0.5).softmax(-1)
    torch.testing.assert_close(shares, reference, atol=1e-5, rtol=1e-4)
    assert torch.equal(model.soft_codes(latents, 1e-3).argmax(-1), model.quantiser.nearest(latents))


def test_a_step_of_training_moves_the_codebook_as_in_a_reference():
    torch.manual_seed(1)
    ours = Quantiser(12, 4, decay=0.8).train()
    theirs = reference(ours, decay=0.8, threshold_ema_dead_code=0, eps=1e-12).train()
    for _ in range(3):
        latents = torch.randn(4, 4, 6, 6)
        quantised, (_, codes, loss) = ours(latents), theirs(latents)
        assert torch.equal(quantised.codes, codes)
        torch.testing.assert_close(quantised.commitment, loss.squeeze(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0], rtol=1e-4, atol=1e-5)


def test_gradients_pass_straight_through_and_commitment_pulls_to_the_code():
    quantiser = Quantiser(10, 4).eval()
    latents = torch.randn(2, 4, 3, 3, requires_grad=True)
    weights = torch.randn(2, 4, 3, 3)
    (quantiser(latents).latents * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)
    latents.grad = None
    quantised = quantiser(latents)
    quantised.commitment.backward()
    rows = F.embedding(quantised.codes, quantiser.codebook).permute(0, 3, 1, 2)
    torch.testing.assert_close(latents.grad, 2 * (latents - rows).detach() / latents.numel())


def test_evaluation_leaves_the_codebook_alone():
    quantiser = Quantiser(10, 4).eval()
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    quantiser(torch.randn(2, 4, 3, 3))
    assert all(torch.equal(value, before[name]) for name, value in quantiser.state_dict().items())


def test_dead_codes_start_again_among_the_latents():
    quantiser = Quantiser(30, 4, decay=0.5).train()
    with torch.no_grad():
        for rows in (quantiser.codebook, quantiser.sums):
            rows[10:] += 100  # nobody chooses these
    latents = torch.randn(4, 4, 8, 8)
    for _ in range(20):
        used = quantiser(latents).codes.unique()
    assert used.max() < 10
    restarted = quantiser.restart(latents, torch.Generator().manual_seed(2))
    assert restarted >= 20 and quantiser(latents).codes.unique().numel() > 10
    assert quantiser.restart(latents, torch.Generator().manual_seed(2)) == 0


def test_gradients_reach_the_encoder_through_the_codes():
    model = new_vqgan(TINY).train()
    quantised = model.quantise(model.encode_pixels(torch.rand(2, 3, 32, 32)))
    model.decoder(quantised.latents).square().mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters()
    )


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "codes, said",
    [
        (torch.rand(1, 4, 4), "whole numbers"),
        (torch.zeros(4, dtype=torch.int64), "shape"),
        (torch.full((1, 4, 4), 20), "0 to 19"),
        (torch.full((1, 4, 4), -1), "0 to 19"),
    ],
)
def test_what_are_no_codes_is_a_sentence(model, codes, said):
    with pytest.raises(ValueError, match=said):
        model.decode(codes)


def test_a_broken_picture_is_a_sentence(model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(ImageError, match="a.png"):
        model.encode(tmp_path / "a.png")


# ------------------------------------------------------------------------------------------- folders


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    save_folder(model, tmp_path / "tiny")
    loaded = load_vqgan(f"local-dir:{tmp_path / 'tiny'}", "cpu")
    assert loaded.config == TINY and not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert {value.dtype for value in load_file(tmp_path / "tiny" / WEIGHTS).values()} == {torch.float16}
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    pixels = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded.encode_pixels(pixels), model.encode_pixels(pixels), rtol=0, atol=0.02)


def test_the_seed_alone_decides_a_fresh_one():
    one, same, other = (new_vqgan(TINY, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["quantiser.codebook"], other["quantiser.codebook"])


def test_wrong_names_and_folders_are_a_sentence(model, tmp_path):
    with pytest.raises(ValueError, match="there is no VQGAN 'taming'"):
        load_vqgan("taming")
    with pytest.raises(AssetError, match="config.json is missing"):
        load_vqgan(f"local-dir:{tmp_path}")
    folder = save_folder(model, tmp_path / "tiny")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:100])
    with pytest.raises(AssetError, match="model.safetensors is damaged, or no safetensors"):
        load_vqgan(f"local-dir:{folder}")
    tensors = {name: value for name, value in model.state_dict().items() if "decoder" not in name}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(AssetError, match="damaged"):
        load_vqgan(f"local-dir:{folder}")
    config = json.loads((folder / CONFIG).read_text())
    del config["n_codes"]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(AssetError, match="n_codes"):
        load_vqgan(f"local-dir:{folder}")
