"""Small random CLIPs for the tests, as folders that open_clip itself can load, and the fixtures that bring them.

Every process of the tests loads this file, also those that only watch the others: so it imports torch where it uses it.
"""

import importlib
import json
import shutil
from pathlib import Path

import pytest

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP
SMALL = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.6],
        "std": [0.5, 0.25, 0.3],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
OTHER = {  # nothing of it is the pocket CLIP's: not the towers, not the size of a picture, a vector or a text
    "model_cfg": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 80, "patch_size": 16, "width": 48, "layers": 1, "head_width": 24},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": MEAN, "std": STD},
}
WORDS = ["a", "picture", "of", "red", "apple", "t-shirt", "cat", "dog", "photo", "the"]


def pytest_collectstart():
    """In a process that runs tests: open_clip without torch's compiler, before a test imports it with."""
    importlib.import_module("mmlesson.models.libraries")


def write_model(folder: Path, config: dict, words: list[str] | None = None) -> Path:
    """A random model of `config` as a model folder."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    if words:
        (folder / "vocabulary.json").write_text(json.dumps({"words": words}))
    return folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "small", SMALL, WORDS)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory):
    """A CLIP of another size than the pocket CLIP, with CLIP's own tokenizer and no list of words."""
    return write_model(tmp_path_factory.mktemp("models") / "other", OTHER)


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    import open_clip

    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {"mean": MEAN, "std": STD}}
    folder = write_model(tmp_path_factory.mktemp("models") / "vit-b-32", config)
    yield folder
    shutil.rmtree(folder)  # 600 MB


@pytest.fixture(scope="session")
def small_model(small_folder):
    from mmlesson.clip import load_clip

    return load_clip(f"local-dir:{small_folder}", device="cpu")


@pytest.fixture
def clip(small_model):
    """The small model as fresh as after loading: nothing warned of, nothing kept."""
    small_model._warned.clear()
    small_model._label_features.clear()
    return small_model
