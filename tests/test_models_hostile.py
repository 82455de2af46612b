"""Model folders that were damaged, or made to do harm: each is one sentence, in little memory; nothing runs."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_folders
import open_clip
import pytest
import torch
from hostile_folders import CLIPS, WEIGHTS
from safetensors.torch import load_file, save_file

from mmlesson.clip import GUIDE_WEIGHTS, guide_from, load_clip
from mmlesson.dalle import DALLEConfig, load_dalle, new_dalle, tokenizer
from mmlesson.gates import AssetError
from mmlesson.models import clip_folders, reading
from mmlesson.models.folders import save_folder
from mmlesson.models.full_vqgan import WEIGHTS as FULL_WEIGHTS
from mmlesson.models.towers import guide_towers
from mmlesson.prior import PriorConfig, load_prior, new_prior
from mmlesson.vqgan import VQGANConfig, load_vqgan, new_vqgan

VQGAN = new_vqgan(VQGANConfig(32, 32, 8, (16, 16, 32), (0, 1, 1), (1, 1, 1), 16))
LOAD: dict[str, Callable[[str], object]] = {
    "VQGAN": lambda name: load_vqgan(name, "cpu"),
    "prior": lambda name: load_prior(VQGAN, name),
    "DALL-E": lambda name: load_dalle(name, "cpu"),
}
OWN = [(kind, what) for kind in LOAD for what in hostile_folders.own(kind)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    """A folder of each of the course's own networks, small and untrained."""
    base = tmp_path_factory.mktemp("sound")
    pieces = (1, 2, 3, tokenizer().sot_token_id, tokenizer().eot_token_id)
    prior = new_prior(VQGAN, PriorConfig(32, 8, (16, 32, 32), (1, 2, 1), 4))
    dalle = new_dalle(DALLEConfig(pieces, text_length=8, n_codes=32, grid=4, dim=24, layers=2, heads=3))
    models = {"VQGAN": VQGAN, "prior": prior, "DALL-E": dalle}
    folders = {kind: save_folder(model, base / kind) for kind, model in models.items()}
    for kind, folder in folders.items():
        LOAD[kind](f"local-dir:{folder}")  # what is damaged below was sound
    return folders


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Fails where the peak of the memory grows by more than 300 MB."""
    if not sys.platform.startswith("linux"):
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = _peak()
    yield
    assert _peak() - before < 300e6


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def refused(load: Callable[[], object], folder: Path) -> str:
    """The sentence with which a folder is refused."""
    with pytest.raises(AssetError) as caught:
        load()
    said = str(caught.value)
    assert str(folder) in said and "\n" not in said and len(said) < 600 + len(str(folder))
    assert not (folder / "it ran").exists(), "nothing was unpickled"
    return said


@pytest.mark.parametrize("what", CLIPS)
def test_a_damaged_clip_is_one_sentence(small_folder, tmp_path, little_memory, monkeypatch, what):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = shutil.copytree(small_folder, tmp_path / "model")
    CLIPS[what](folder)
    try:
        refused(lambda: load_clip(f"local-dir:{folder}", "cpu"), folder)
    except AssertionError as error:
        # a text tower that transformers builds: what is missing is not in the folder, and is named
        assert "hf_model_name" in what and "is not on this machine" in str(error)


@pytest.mark.parametrize("kind, what", OWN)
def test_a_damaged_network_of_the_course_is_one_sentence(sound, tmp_path, little_memory, kind, what):
    folder = shutil.copytree(sound[kind], tmp_path / "model")
    hostile_folders.own(kind)[what](folder)
    refused(lambda: LOAD[kind](f"local-dir:{folder}"), folder)


@pytest.fixture(scope="module")
def guide_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guide")
    towers = guide_towers(load_clip("pocket-clip", "cpu"))
    save_file({key: value.contiguous() for key, value in towers.state_dict().items()}, folder / GUIDE_WEIGHTS)
    return folder


FOR_THE_GUIDE = (
    "a pickle under the name of safetensors",
    "a header that says 2 GB",
    "weights cut off",
    "one tensor too few",
    "a tensor of another shape",
    "whole numbers in place of weights",
    "NaN in the last weight",
)


@pytest.mark.parametrize("what", FOR_THE_GUIDE)
def test_a_damaged_guide_is_one_sentence(guide_folder, tmp_path, what):
    folder = shutil.copytree(guide_folder, tmp_path / "model")
    WEIGHTS[what](folder / GUIDE_WEIGHTS)
    refused(lambda: guide_from(folder, "cpu"), folder)


@pytest.mark.parametrize("make", ["a file", "a pipe", "a circle", "nothing", "a name too long", "a null byte"])
@pytest.mark.parametrize("kind", ["CLIP", *LOAD])
def test_what_is_no_folder_is_one_sentence(tmp_path, kind, make):
    path = tmp_path / "model"
    if make == "a file":
        path.write_text("{}")
    elif make == "a pipe":
        os.mkfifo(path)
    elif make == "a circle":
        path.symlink_to(tmp_path / "other")
        (tmp_path / "other").symlink_to(path)
    name = f"local-dir:{path}" + {"a name too long": "x" * 5000, "a null byte": "\0"}.get(make, "")
    load = LOAD.get(kind, lambda name: load_clip(name, "cpu"))
    refused(lambda: load(name), path)


def test_a_home_folder_that_does_not_exist(monkeypatch):
    for load in (lambda name: load_clip(name, "cpu"), *LOAD.values()):
        with pytest.raises(
            AssetError, match="~nobody-of-this-name/model begins with a home folder that does not exist"
        ):
            load("local-dir:~nobody-of-this-name/model")


def test_the_environment_names_a_hostile_folder(small_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    CLIPS["a pickle under the name of safetensors"](folder)
    monkeypatch.setenv("MMLESSON_CLIP", f"local-dir:{folder}")
    assert "MMLESSON_CLIP" in refused(load_clip, folder)


def test_code_beside_a_tokenizer_does_not_run_and_nobody_is_asked(small_folder, tmp_path, monkeypatch):
    """transformers would ask "run the custom code? [y/N]" for a quarter of a minute."""
    folder = shutil.copytree(small_folder, tmp_path / "model")
    hostile_folders._set(folder / "open_clip_config.json", "model_cfg.text_cfg.hf_tokenizer_name", "someone/evil")
    code = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(code))
    (folder / "evil.py").write_text(f"open({str(folder / 'it ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *arguments: pytest.fail("a question was asked"))
    refused(lambda: load_clip(f"local-dir:{folder}", "cpu"), folder)


@pytest.mark.parametrize("name", open_clip.list_models())
def test_what_open_clip_publishes_passes(name):
    clip_folders._check_model(open_clip.get_model_config(name))


def test_half_and_double_precision_load_as_float32(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    weights = folder / "open_clip_model.safetensors"
    whole = load_file(weights)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        save_file({name: value.to(dtype) for name, value in whole.items()}, weights)
        clip = load_clip(f"local-dir:{folder}", "cpu")
        assert {weight.dtype for weight in clip.model.parameters()} == {torch.float32}


def test_a_network_larger_than_memory_is_refused_by_its_header(tmp_path, monkeypatch):
    """A file with a hole takes no place on the disk, and says that it holds a terabyte."""
    path, numbers = tmp_path / "model.safetensors", 2**38
    header = json.dumps({"a": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * numbers)
    with pytest.raises(AssetError, match="274,878 million weights.*2,199 GB of memory.*choose a smaller model"):
        reading.read_shapes(path)


def test_no_more_than_the_weights_are_for():
    shapes = {"a": ("F32", (1000, 1000))}
    with reading.no_more_than(shapes):
        torch.nn.Linear(1000, 1000)
        for size in ((10**5, 10**5), (2**40,)):
            for make in (torch.empty, torch.zeros, torch.ones, torch.randn, torch.rand):
                with pytest.raises(reading.TooLargeError):
                    make(size)
                with pytest.raises(reading.TooLargeError):
                    make(*size)
    with reading.no_more_than(shapes), pytest.raises(reading.TooLargeError):
        torch.arange(10**12)
    with reading.no_more_than(shapes), pytest.raises(reading.TooLargeError):
        for _ in range(10**9):
            torch.nn.LayerNorm(1)


# ------------------------------------------------------------------------------- full-size VQGANs, of diffusers

FULL_VALUES = {
    "sample_size": (0, -1, 10**7, "64", None, 2.5, []),
    "block_out_channels": ([], [10**9] * 3, [16], 7, "abc", [-16, 16, 16], [10**6] * 3),
    "layers_per_block": (10**9, -1, "x"),
    "num_vq_embeddings": (0, 10**12, "x"),
    "vq_embed_dim": (10**12, "x"),
    "norm_num_groups": (0, 7),
    "down_block_types": ([], ["os.system"] * 3, "abc", ["DownEncoderBlock2D"] * 10**5),
    "_class_name": ("UNet2DModel", "os.system", 7, None),
    "in_channels": (10**9, "x", 0),
    "latent_channels": (10**9, 0),
}
FULL = {
    **{what: lambda folder, damage=damage: damage(folder / FULL_WEIGHTS) for what, damage in WEIGHTS.items()},
    **{
        f"config.json: {what}": lambda folder, text=text: (folder / "config.json").write_bytes(text)
        for what, text in hostile_folders.TEXTS.items()
    },
    **{
        f"{file} {what}": lambda folder, file=file, make=make: hostile_folders._replaced(folder / file, make)
        for file in ("config.json", FULL_WEIGHTS)
        for what, make in hostile_folders.NO_FILES.items()
    },
    **{
        f"{field} = {hostile_folders._short(value)}": lambda folder, field=field, value=value: hostile_folders._set(
            folder / "config.json", field, value
        )
        for field, values in FULL_VALUES.items()
        for value in values
    },
}


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "vqvae"
    import diffusers  # here: it takes seconds, and every process of the tests reads this file

    diffusers.VQModel(
        block_out_channels=[16, 32, 32],
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        latent_channels=8,
        vq_embed_dim=4,
        num_vq_embeddings=50,
        norm_num_groups=8,
        sample_size=64,
    ).save_pretrained(folder)
    load_vqgan(f"local-dir:{folder}", "cpu")
    return folder


@pytest.mark.parametrize("what", FULL)
def test_a_damaged_full_size_vqgan_is_one_sentence(full_folder, tmp_path, little_memory, what):
    folder = shutil.copytree(full_folder, tmp_path / "model")
    FULL[what](folder)
    refused(lambda: load_vqgan(f"local-dir:{folder}", "cpu"), folder)


@pytest.mark.parametrize("part", ["x", "/", "a/", "/.rs", "x\n", " "])
def test_the_message_of_an_error_is_short_and_soon_made_however_long_it_is(part):
    """A library's message repeats its input: 100,000 letters of a filter took minutes."""
    started = time.process_time()
    said = reading.short(ValueError(part * 100_000))
    assert 0 < len(said) <= 161 + len("ValueError: ") and "\n" not in said
    assert time.process_time() - started < 10
