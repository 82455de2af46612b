"""models/full_vqgan.py: equal to diffusers' own to 1e-5, and a clear sentence for everything that can go wrong.

The models are small random VQModels that the tests save: as amused's, which looks codes up; as the latent diffusion
models', which does not; as MoVQ, whose norms see the latents.
"""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from cut_off import load_cut_off, write_hub_cache
from PIL import Image
from safetensors.torch import load_file, save_file

from mmlesson import runtime
from mmlesson.gates import AssetError
from mmlesson.models import assets
from mmlesson.models.folders import save_folder
from mmlesson.models.full_vqgan import CONFIG, SUB_FOLDERS, WEIGHTS
from mmlesson.pixels import to_pixels
from mmlesson.vqgan import VQGAN, VQGANConfig, load_vqgan, new_vqgan

SMALL = {
    "block_out_channels": [16, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "latent_channels": 8,
    "vq_embed_dim": 4,
    "num_vq_embeddings": 50,
    "norm_num_groups": 8,
    "sample_size": 64,
}
KINDS = {
    "latent diffusion": {},
    "amused": {"lookup_from_codebook": True, "mid_block_add_attention": False, "vq_embed_dim": None},
    "movq": {"norm_type": "spatial", "vq_embed_dim": None, "block_out_channels": [32, 32, 64]},
}


def write_model(folder: Path, seed: int = 0, **options) -> Path:
    """A random VQModel as diffusers saves it, its codebook as wide as its latents."""
    torch.manual_seed(seed)
    from diffusers import VQModel  # here: it takes seconds, and every process of the tests reads this file

    model = VQModel(**{**SMALL, **options})
    with torch.no_grad():
        latents = model.encode(torch.rand(4, 3, 64, 64) * 2 - 1).latents
        model.quantize.embedding.weight.normal_().mul_(latents.std((0, 2, 3))).add_(latents.mean((0, 2, 3)))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / request.param.replace(" ", "-"), **KINDS[request.param])


@pytest.fixture(scope="module")
def pair(folder):
    """Ours, and diffusers' own."""
    from diffusers import VQModel

    return load_vqgan(f"local-dir:{folder}", "cpu"), VQModel.from_pretrained(folder, low_cpu_mem_usage=False).eval()


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "small")


def pictures(n: int) -> list[Image.Image]:
    """Pictures with many codes in them."""
    coarse = np.random.default_rng(0).integers(0, 256, (n, 12, 12, 3), np.uint8)
    return [Image.fromarray(one).resize((64, 64), Image.Resampling.BICUBIC) for one in coarse]


# ---------------------------------------------------------------------------------- equal to diffusers'


@torch.no_grad()
def test_the_parts_equal_diffusers(pair):
    ours, theirs = pair
    pixels = to_pixels(pictures(3), 64)
    latents = theirs.encode(2 * pixels - 1).latents
    assert (ours.encode_pixels(pixels) - latents).abs().max() <= 1e-5
    rows, _, (_, _, codes) = theirs.quantize(latents)
    quantised = ours.quantise(latents)
    assert torch.equal(quantised.codes, codes.view(3, 16, 16)) and codes.unique().numel() > 20
    assert (quantised.latents - rows).abs().max() <= 1e-5
    assert (ours.latents(quantised.codes) - rows).abs().max() <= 1e-5
    assert torch.equal(ours.codebook, theirs.quantize.embedding.weight) and ours.codebook.dtype == torch.float32


@torch.no_grad()
def test_decoding_equals_diffusers(pair):
    """Three ways of diffusers' to decode: quantising again, from the codes, or from the latents as they are."""
    ours, theirs = pair
    latents = theirs.encode(2 * to_pixels(pictures(3), 64) - 1).latents

    def pixels(decoded) -> torch.Tensor:
        return (decoded.sample / 2 + 0.5).clamp(0, 1)

    codes = ours.quantise(latents).codes
    assert (ours.decode_latents(ours.latents(codes)) - pixels(theirs.decode(latents))).abs().max() <= 1e-5
    if theirs.config.lookup_from_codebook:
        reference = theirs.decode(codes.flatten(), force_not_quantize=True, shape=(3, 16, 16, ours.config.dim))
        assert (ours.decode_latents(ours.latents(codes)) - pixels(reference)).abs().max() <= 1e-5
    else:
        reference = theirs.decode(latents, force_not_quantize=True)
        assert (ours.decode_latents(latents) - pixels(reference)).abs().max() <= 1e-5, "latents are taken as they are"
        assert (ours.decode_latents(latents) - pixels(theirs.decode(latents))).abs().max() > 1e-3


def test_gradients_pass_through_the_decoder_the_codes_and_the_encoder(pair):
    ours, theirs = pair
    latents = torch.randn(2, ours.config.dim, 8, 8, generator=runtime.generator(0)) * ours.codebook.std()
    ours_in, theirs_in = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    decoded = ours.decode_latents(ours.quantise(ours_in).latents)
    assert (
        decoded.shape == (2, 3, 32, 32) and decoded.dtype == torch.float32 and 0 <= decoded.min() and decoded.max() <= 1
    )
    (decoded * torch.linspace(0, 1, 32)).mean().backward()
    ((theirs.decode(theirs_in).sample / 2 + 0.5).clamp(0, 1) * torch.linspace(0, 1, 32)).mean().backward()
    assert (ours_in.grad.abs().sum((1, 2, 3)) > 0).all()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-4, atol=1e-7)
    pixels = torch.rand(1, 3, 64, 64, generator=runtime.generator(0)).requires_grad_()
    ours.encode_pixels(pixels).square().mean().backward()
    assert torch.isfinite(pixels.grad).all() and pixels.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------- the same interface


def test_a_picture_is_a_grid_of_codes_and_back(pair):
    ours, _ = pair
    codes = ours.encode(pictures(5))
    assert codes.dtype == torch.int64 and codes.shape == (5, 16, 16) and 0 <= codes.min() and codes.max() < 50
    assert torch.equal(ours.encode(pictures(5), batch_size=2), codes)
    decoded = ours.decode(codes)
    assert [(image.size, image.mode) for image in decoded] == [((64, 64), "RGB")] * 5
    assert ours.encode(pictures(1)[0]).shape == (1, 16, 16) and len(ours.decode(codes[0])) == 1
    assert ours.encode([]).shape == (0, 16, 16) and ours.decode(codes[:0]) == []
    assert ours.decode(torch.zeros(1, 3, 6, dtype=torch.int64))[0].size == (24, 12), "and any other grid"
    with pytest.raises(ValueError, match="0 to 49"):
        ours.decode(torch.full((1, 4, 4), 50))


def test_what_a_loaded_model_says_of_itself(small_folder):
    model = load_vqgan(f"local-dir:{small_folder}", "cpu")
    assert (
        isinstance(model, VQGAN) and model.device == torch.device("cpu") and model.name == f"local-dir:{small_folder}"
    )
    assert (
        dataclasses.asdict(model.config) == {"image_size": 64, "n_codes": 50, "dim": 4, "factor": 4}
        and model.config.grid == 16
    )
    assert repr(model) == f"VQGAN('local-dir:{small_folder}': 64×64 pixels as 16×16 of 50 codes)"
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    with pytest.raises(AssetError, match="diffusers keeps no discriminator") as caught:
        model.patch_scores(pictures(1))
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize(
    "levels, sample_size, size, grid", [(3, 64, 64, 16), (3, 32, 256, 64), (2, 97, 96, 48), (1, 40, 40, 40)]
)
def test_the_grid_is_the_config_s(tmp_path, levels, sample_size, size, grid):
    """And where the config holds diffusers' default, 32, it says nothing: then 256."""
    blocks = {
        "block_out_channels": [8] * levels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    model = load_vqgan(f"local-dir:{write_model(tmp_path / 'model', sample_size=sample_size, **blocks)}", "cpu")
    assert (model.config.image_size, model.config.grid) == (size, grid)
    model.config = dataclasses.replace(model.config, image_size=48)
    codes = model.encode(pictures(1))
    assert codes.shape[1] == model.config.grid == 48 // 2 ** (levels - 1) and model.decode(codes)[0].size == (48, 48)


def test_half_precision_weights_become_float32(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "half")
    save_file({key: value.half() for key, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    half, whole = load_vqgan(f"local-dir:{folder}", "cpu"), load_vqgan(f"local-dir:{small_folder}", "cpu")
    pixels = to_pixels(pictures(1), 64)
    torch.testing.assert_close(half.encode_pixels(pixels), whole.encode_pixels(pixels), rtol=0, atol=0.02)


def test_the_old_names_of_attention_are_understood(small_folder, tmp_path):
    """As the first published VQModels have them."""
    folder = shutil.copytree(small_folder, tmp_path / "old")
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(folder / WEIGHTS)
    for new, name in old.items():
        assert any(new in key for key in tensors)
        tensors = {key.replace(new, name): value for key, value in tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    one, same = load_vqgan(f"local-dir:{folder}", "cpu"), load_vqgan(f"local-dir:{small_folder}", "cpu")
    assert torch.equal(
        one.encode_pixels(torch.full((1, 3, 64, 64), 0.3)), same.encode_pixels(torch.full((1, 3, 64, 64), 0.3))
    )


# -------------------------------------------------------------------------------------------- folders


class Bomb:
    """A pickle that does something when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def damage(folder: Path, what: str) -> None:
    weights, config = folder / WEIGHTS, folder / CONFIG
    values = json.loads(config.read_text())
    if what == "no config":
        config.unlink()
    elif what == "another model":
        config.write_text(json.dumps({**values, "_class_name": "AutoencoderKL"}))
    elif what == "grey pictures":
        config.write_text(json.dumps({**values, "in_channels": 1}))
    elif what == "config of no model":
        config.write_text(json.dumps({**values, "block_out_channels": []}))
    elif what == "config of a larger model":
        config.write_text(json.dumps({**values, "layers_per_block": 2}))
    elif what == "config of a smaller model":
        config.write_text(json.dumps({**values, "mid_block_add_attention": False}))
    elif what == "no weights":
        weights.unlink()
    elif what == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif what == "weights of noise":
        weights.write_bytes(os.urandom(5000))
    elif what == "empty weights":
        weights.write_bytes(b"")
    elif what == "weights without one tensor":
        save_file({key: value for key, value in load_file(weights).items() if key != "quant_conv.bias"}, weights)
    elif what == "weights of another shape":
        save_file({**load_file(weights), "quantize.embedding.weight": torch.zeros(3, 4)}, weights)
    elif what == "pickle":
        weights.unlink()
        torch.save(Bomb(folder / "it ran"), folder / "diffusion_pytorch_model.bin")
    elif what == "pickle by the name of weights":
        torch.save(Bomb(folder / "it ran"), weights)


@pytest.mark.parametrize("what, words", [
    ("no config", "config.json is missing"),
    ("another model", "holds diffusers' AutoencoderKL, which is not a VQGAN"),
    ("grey pictures", "a VQModel of 1 channels in and 3 out"),
    ("config of no model", "are damaged, or do not fit"),
    ("config of a larger model", "are damaged, or do not fit .*missing or too many: decoder.* …"),
    ("config of a smaller model", "are damaged, or do not fit .*missing or too many: .*attentions"),
    ("no weights", "diffusion_pytorch_model.safetensors is missing .there are no weights"),
    ("weights cut off", "safetensors is damaged, or no safetensors"),
    ("weights of noise", "safetensors is damaged, or no safetensors"),
    ("empty weights", "safetensors is damaged, or no safetensors"),
    ("weights without one tensor", "are damaged, or do not fit .*missing or too many: quant_conv.bias.:"),
    ("weights of another shape", "are damaged, or do not fit"),
    ("pickle", "diffusion_pytorch_model.bin, a pickle"),
    ("pickle by the name of weights", "safetensors is damaged, or no safetensors"),
])  # fmt: skip
def test_a_folder_without_a_sound_model_is_refused(small_folder, tmp_path, what, words):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    damage(folder, what)
    with pytest.raises(AssetError, match=words) as caught:
        load_vqgan(f"local-dir:{folder}")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (folder / "it ran").exists(), "nothing was unpickled"


def test_safetensors_go_before_a_pickle(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    torch.save(Bomb(folder / "it ran"), folder / "diffusion_pytorch_model.bin")
    assert load_vqgan(f"local-dir:{folder}").config.n_codes == 50 and not (folder / "it ran").exists()


def test_a_folder_of_the_course_s_own_kind_still_loads(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as where it is not installed
    tiny = VQGANConfig(image_size=32, n_codes=20, dim=4, channels=(16, 16, 32), discriminator=16)
    assert load_vqgan(f"local-dir:{save_folder(new_vqgan(tiny), tmp_path / 'tiny')}").config == tiny


def test_without_diffusers_a_sentence_says_how_to_install_it(small_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.setattr(
        "mmlesson.models.hub.hub_file", lambda *arguments, **options: pytest.fail("nothing is downloaded in vain")
    )
    for name in (f"local-dir:{small_folder}", "someone/their-vqgan"):
        with pytest.raises(
            AssetError, match=r'needs the package diffusers.*: install it with `pip install "mmlesson\[full\]"`'
        ):
            load_vqgan(name)


@pytest.mark.parametrize("name", ["taming", "/", "someone/", "/model", "", 42])
def test_an_unknown_name_is_a_sentence(name):
    with pytest.raises(
        ValueError, match="there is no VQGAN .*: give 'pocket-vqgan', the name of one on the hub, or 'local-dir:'"
    ):
        load_vqgan(name)


def test_names_that_are_no_repository_s_and_devices_that_are_none(small_folder, monkeypatch):
    with pytest.raises(ValueError, match="organisation/model"):
        load_vqgan("not a/repository")
    with pytest.raises(ValueError, match="not a device"):
        load_vqgan(f"local-dir:{small_folder}", device="abacus")
    monkeypatch.chdir(small_folder.parent.parent)
    with pytest.raises(ValueError, match="'local-dir:' and a folder"):
        load_vqgan(f"{small_folder.parent.name}/small")


# ------------------------------------------------------------------------------------------ the network

LOAD = "mmlesson.load_vqgan(name, device='cpu').encode_pixels(torch.full((1, 3, 64, 64), 0.3)).flatten()[:8].tolist()"


@pytest.mark.parametrize("how", [{}, {"offline": True, "HF_HUB_OFFLINE": "1"}], ids=["cut off", "HF_HUB_OFFLINE"])
def test_without_a_network_one_sentence_names_the_file_and_the_ways_out(tmp_path, how):
    needs = {
        "someone/their-vqgan": f"{WEIGHTS} of someone/their-vqgan",
        "amused/amused-256/vqvae": f"vqvae/{WEIGHTS} of amused/amused-256",
    }
    for (name, file), result in zip(needs.items(), load_cut_off(LOAD, *needs, cache=tmp_path, **how), strict=True):
        assert result.said.startswith(f"AssetError: {file}, which {name} needs, is not on this machine")
        assert "connect" in result.said and "load_vqgan()" in result.said and "local-dir:" in result.said
        assert result.said.count(". ") == 0
        asked = range(1) if how else range(1, 13)
        assert result.asked in asked, "never where the network is known to be away, else a few times and no more"


def test_what_is_cached_is_loaded_without_a_question(small_folder, tmp_path):
    both = [WEIGHTS, CONFIG]
    write_hub_cache(tmp_path, "someone/top", {name: small_folder / name for name in both})
    write_hub_cache(tmp_path, "someone/pipeline", {f"vqvae/{name}": small_folder / name for name in both})
    write_hub_cache(tmp_path, "someone/deep", {f"parts/vq/{name}": small_folder / name for name in both})
    write_hub_cache(tmp_path, "someone/half", {WEIGHTS: small_folder / WEIGHTS})
    names = "someone/top", "someone/pipeline", "someone/pipeline/vqvae", "someone/deep/parts/vq", "someone/half"
    *whole, half = load_cut_off(LOAD, *names, cache=tmp_path)
    expected = (
        load_vqgan(f"local-dir:{small_folder}", "cpu")
        .encode_pixels(torch.full((1, 3, 64, 64), 0.3))
        .flatten()[:8]
        .tolist()
    )
    for result in whole:
        assert result.said == pytest.approx(expected, abs=1e-5) and result.asked == 0
    assert half.said.startswith("AssetError: config.json of someone/half") and half.asked


class Hub:
    """Stands in for huggingface_hub's questions: a repository with these files, as they are in `folder`."""

    def __init__(self, monkeypatch, folder: Path, files: list[str]):
        import huggingface_hub
        from huggingface_hub.errors import RemoteEntryNotFoundError

        self.downloaded = []

        def metadata(url, timeout):
            if not any(url.endswith(f"/{'0' * 40}/{file}") or url.endswith(f"/main/{file}") for file in files):
                raise RemoteEntryNotFoundError("404", response=MagicMock())

        def download(repository, file, revision=None):
            self.downloaded.append((file, revision))
            return str(folder / file)

        monkeypatch.setattr(assets, "is_offline", lambda: False)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *arguments, **options: None)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


@pytest.mark.parametrize("sub_folder", SUB_FOLDERS)
def test_the_hub_is_asked_for_safetensors_and_the_config_of_the_same_commit(
    small_folder, tmp_path, monkeypatch, sub_folder
):
    snapshot = tmp_path / ("0" * 40)
    shutil.copytree(small_folder, snapshot / sub_folder)
    files = [f"{sub_folder}/{name}".removeprefix("/") for name in (WEIGHTS, CONFIG)]
    hub = Hub(monkeypatch, snapshot, [*files, "diffusion_pytorch_model.bin"])
    assert load_vqgan("someone/their-vqgan").config.n_codes == 50
    assert hub.downloaded == [(files[0], None), (files[1], "0" * 40)]


def test_a_repository_of_pickles_only_is_refused(small_folder, monkeypatch):
    hub = Hub(monkeypatch, small_folder, [CONFIG, "diffusion_pytorch_model.bin", "vqvae/diffusion_pytorch_model.bin"])
    for name in ("someone/their-vqgan", "someone/their-vqgan/vqvae"):
        with pytest.raises(AssetError, match=f"someone/their-vqgan has none of .*{WEIGHTS}.*pickle"):
            load_vqgan(name)
    assert hub.downloaded == []
