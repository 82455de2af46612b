"""models/clips.py and the loading in clip.py: names, folders, damage, and the hub with and without a network."""

import json
import math
import os
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import open_clip
import pytest
import torch
from cut_off import load_cut_off, write_hub_cache
from safetensors.torch import load_file, save_file

from mmlesson.clip import POCKET, load_clip
from mmlesson.gates import AssetError
from mmlesson.models import assets, clip_folders, familiar

# ------------------------------------------------------------------------------------------- loading


def test_what_a_loaded_model_says_of_itself(clip, small_folder):
    assert (clip.dim, clip.image_size, clip.context_length, clip.device.type) == (32, 64, 20, "cpu")
    assert repr(clip) == f"CLIP('local-dir:{small_folder}', dim=32, image_size=64, device='cpu')"
    assert clip.name == f"local-dir:{small_folder}"
    assert "apple" in clip.vocabulary and "shirt" in clip.vocabulary


def test_the_environment_chooses(small_folder, monkeypatch):
    monkeypatch.setenv("MMLESSON_CLIP", f"local-dir:{small_folder}")
    assert load_clip().name == f"local-dir:{small_folder}"
    assert load_clip(POCKET).name == POCKET, "a name in the call goes before it"
    monkeypatch.setenv("MMLESSON_CLIP", "ViT-B-32/laion")
    with pytest.raises(ValueError, match="no CLIP named 'ViT-B-32/laion'.*MMLESSON_CLIP"):
        load_clip()
    monkeypatch.setenv("MMLESSON_CLIP", "local-dir:/nowhere")
    with pytest.raises(AssetError, match="no folder /nowhere.*MMLESSON_CLIP"):
        load_clip()
    monkeypatch.setenv("MMLESSON_CLIP", "")
    assert load_clip().name == POCKET


@pytest.mark.parametrize("name, words", [
    ("ViT-B-32", "Near it: ViT-B-32/openai"),
    ("ViT-B-32/laion2b", "Near it: ViT-B-32/laion2b_e16, ViT-B-32/laion2b_s34b_b79k"),
    ("vit-b32/laion2b_s34b_b79k", "ViT-B-32/laion2b_s34b_b79k"),
    ("pocket", "A name is pocket-clip"),
    ("a/b/c", "There is no CLIP named 'a/b/c'"),
    ("hf-hub:not a repository", "organisation/model"),
    ("hf-hub:", "organisation/model"),
    (42, "is a string"),
])  # fmt: skip
def test_an_unknown_name_gets_near_ones(name, words):
    with pytest.raises(ValueError, match=words):
        load_clip(name)


def test_a_folder_without_its_prefix(small_folder, monkeypatch):
    monkeypatch.chdir(small_folder.parent)
    with pytest.raises(ValueError, match="Near it: local-dir:small"):
        load_clip("small")
    assert load_clip("local-dir:small").dim == 32
    with pytest.raises(ValueError, match="not a device"):
        load_clip("local-dir:small", device="abacus")


class Bomb:
    """A pickle that does something when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def damage(folder: Path, what: str) -> None:
    weights, config = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    if what == "no config":
        config.unlink()
    elif what == "config that is not JSON":
        config.write_text("{")
    elif what == "config of something else":
        config.write_text('{"model_type": "bert"}')
    elif what == "config of no model":
        config.write_text('{"model_cfg": {"embed_dim": 8}}')
    elif what == "vocabulary that is none":
        (folder / "vocabulary.json").write_text('["a"]')
    elif what == "no weights":
        weights.unlink()
    elif what == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif what == "weights of noise":
        weights.write_bytes(os.urandom(5000))
    elif what == "empty weights":
        weights.write_bytes(b"")
    elif what == "weights without one tensor":
        save_file({key: value for key, value in load_file(weights).items() if key != "logit_scale"}, weights)
    elif what == "weights of another shape":
        save_file({**load_file(weights), "text_projection": torch.zeros(3, 3)}, weights)
    elif what.startswith("pickle"):
        safe = load_file(weights)
        weights.unlink()
        torch.save(Bomb(folder / "it ran"), folder / what.split()[1])
        if what.endswith("beside"):
            save_file(safe, folder / "mine.safetensors")


@pytest.mark.parametrize("what, words", [
    ("no config", "open_clip_config.json is missing"),
    ("config that is not JSON", "open_clip_config.json is damaged"),
    ("config of something else", "is not the config of an open_clip model, or damaged .it has no .model_cfg"),
    ("config of no model", "is not the config of an open_clip model, or damaged .it has no .vision_cfg"),
    ("vocabulary that is none", "vocabulary.json is damaged .it holds no object"),
    ("no weights", "open_clip_model.safetensors is missing .there are no weights"),
    ("weights cut off", "model.safetensors is damaged, or no safetensors"),
    ("weights of noise", "model.safetensors is damaged, or no safetensors"),
    ("empty weights", "model.safetensors is damaged, or no safetensors"),
    ("weights without one tensor", "are damaged, or do not fit"),
    ("weights of another shape", "are damaged, or do not fit"),
    ("pickle open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin, a pickle"),
    ("pickle model.pth", "model.pth, a pickle"),
    ("pickle weights.pt", "weights.pt, a pickle"),
    ("pickle open_clip_pytorch_model.bin beside", "open_clip_pytorch_model.bin, a pickle"),
])  # fmt: skip
def test_a_folder_without_sound_weights_is_refused(small_folder, tmp_path, what, words):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    damage(folder, what)
    with pytest.raises(AssetError, match=words) as caught:
        load_clip(f"local-dir:{folder}")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (folder / "it ran").exists(), "nothing was unpickled"


def test_safetensors_go_before_a_pickle(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    torch.save(Bomb(folder / "it ran"), folder / "open_clip_pytorch_model.bin")
    load_clip(f"local-dir:{folder}")
    (folder / "open_clip_pytorch_model.bin").unlink()
    (folder / "open_clip_model.safetensors").rename(folder / "mine.safetensors")
    load_clip(f"local-dir:{folder}")
    assert not (folder / "it ran").exists()


def test_a_damaged_or_missing_pocket_model(tmp_path, monkeypatch):
    for file in [*assets.model_dir(POCKET).iterdir(), assets.data_dir() / assets.MANIFEST]:
        copy = tmp_path / file.relative_to(assets.data_dir())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    manifest = json.loads((tmp_path / assets.MANIFEST).read_text())
    keep = {name: entry for name, entry in manifest["files"].items() if name.startswith(f"models/{POCKET}/")}
    (tmp_path / assets.MANIFEST).write_text(json.dumps({"files": keep}))
    monkeypatch.setenv("MMLESSON_DATA", str(tmp_path))
    assert load_clip().name == POCKET
    weights = tmp_path / "models" / POCKET / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(AssetError, match="open_clip_model.safetensors is damaged"):
        load_clip()
    weights.unlink()
    with pytest.raises(AssetError, match="open_clip_model.safetensors is missing"):
        load_clip()


# ------------------------------------------------------------------------------------------ the network

WEIGHTS = "open_clip_model.safetensors"
LOAD = "mmlesson.load_clip(name, device='cpu').encode_texts(['a cat'])[0].tolist()"


@pytest.mark.parametrize(
    "how", [{}, {"offline": True}, {"HF_HUB_OFFLINE": "1"}], ids=["cut off", "no interface", "HF_HUB_OFFLINE"]
)
def test_without_a_network_one_sentence_names_the_file_and_the_ways_out(tmp_path, how):
    needs = {
        "ViT-B-32/laion2b_s34b_b79k": "open_clip_model.safetensors of laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "hf-hub:someone/their-clip": "open_clip_model.safetensors of someone/their-clip",
        "ViTamin-S/datacomp1b": "pytorch_model.safetensors of jienengchen/ViTamin-S",
    }
    for (name, file), result in zip(needs.items(), load_cut_off(LOAD, *needs, cache=tmp_path, **how), strict=True):
        assert result.said.startswith(f"AssetError: {file}, which {name} needs, is not on this machine")
        assert "connect" in result.said and "pocket model" in result.said and "local-dir:" in result.said
        assert result.said.count(". ") == 0
        assert (result.asked > 0) == (not how), "nothing is asked where the network is known to be away"


def test_a_network_that_never_answers_does_not_hang(tmp_path):
    for_ever = "threading.Event().wait()"  # a load that waits for the answer ends by the test's hang guard
    (result,) = load_cut_off(LOAD, "ViT-B-32/laion2b_s34b_b79k", cache=tmp_path, how=for_ever)
    assert result.said.startswith("AssetError: open_clip_model.safetensors of laion") and result.asked


def test_what_is_cached_is_loaded_without_a_question(small_folder, vit_folder, tmp_path, clip):
    write_hub_cache(tmp_path, "someone/their-clip", {file.name: file for file in small_folder.iterdir()})
    write_hub_cache(tmp_path, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", {WEIGHTS: vit_folder / WEIGHTS})
    write_hub_cache(tmp_path, "someone/half", {WEIGHTS: small_folder / WEIGHTS})
    names = "hf-hub:someone/their-clip", "ViT-B-32/laion2b_s34b_b79k", POCKET, "hf-hub:someone/half"
    hub, tag, pocket, half = load_cut_off(LOAD, *names, cache=tmp_path)
    assert hub.said == pytest.approx(clip.encode_texts("a cat")[0].tolist(), abs=1e-6)
    assert len(tag.said) == 512 and math.hypot(*tag.said) == pytest.approx(1, abs=1e-5)
    assert math.hypot(*pocket.said) == pytest.approx(1, abs=1e-5)
    assert hub.asked == tag.asked == pocket.asked == 0
    assert half.said.startswith("AssetError: open_clip_config.json of someone/half") and half.asked


def test_a_tag_brings_its_own_preprocessing(small_folder, monkeypatch):
    """Mean, std and QuickGELU belong to the weights; the architecture's defaults are another's."""
    published = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    seen = {}
    monkeypatch.setattr("mmlesson.models.hub.hub_file", lambda *arguments: small_folder / "open_clip_model.safetensors")
    monkeypatch.setattr("mmlesson.models.clips._build", lambda *arguments, **options: seen.update(options))
    monkeypatch.setattr("mmlesson.clip._assemble", lambda parts: parts)
    load_clip("ViT-B/32/openai")
    assert seen["force_quick_gelu"] is True
    assert seen["force_preprocess_cfg"] == {
        key: published[key] for key in ("mean", "std", "interpolation", "resize_mode")
    }
    load_clip("ViT-B-16-SigLIP/webli")
    assert seen["force_preprocess_cfg"]["resize_mode"] == "squash" and seen["force_preprocess_cfg"]["mean"] == (
        0.5,
        0.5,
        0.5,
    )


class Hub:
    """Stands in for huggingface_hub's questions: a repository with these files."""

    def __init__(self, monkeypatch, folder: Path, files: list[str]):
        import huggingface_hub
        from huggingface_hub.errors import RemoteEntryNotFoundError

        self.downloaded = []

        def metadata(url, timeout):
            if url.rsplit("/", 1)[1] not in files:
                raise RemoteEntryNotFoundError("404", response=MagicMock())

        def download(repository, file, revision=None):
            self.downloaded.append(file)
            return str(folder / file)

        monkeypatch.setattr(assets, "is_offline", lambda: False)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *arguments, **options: None)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def test_the_hub_is_asked_for_safetensors_only(small_folder, monkeypatch):
    hub = Hub(
        monkeypatch,
        small_folder,
        ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
    )
    assert load_clip("hf-hub:someone/their-clip").dim == 32
    assert hub.downloaded == ["open_clip_model.safetensors", "open_clip_config.json"]
    hub = Hub(monkeypatch, small_folder, ["open_clip_config.json", "open_clip_pytorch_model.bin"])
    for name in ("hf-hub:someone/their-clip", "ViT-B-32/laion2b_s34b_b79k"):
        with pytest.raises(AssetError, match="has none of open_clip_model.safetensors.*pickle"):
            load_clip(name)
    assert hub.downloaded == []


def test_a_repository_that_is_not_there_and_a_download_that_breaks(small_folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    Hub(monkeypatch, small_folder, ["open_clip_model.safetensors"])

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(AssetError, match="was not downloaded whole .*No space left on device"):
        load_clip("hf-hub:someone/their-clip")

    def unknown(url, timeout):
        raise RepositoryNotFoundError("401", response=MagicMock())

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unknown)
    with pytest.raises(ValueError, match="no open repository 'someone/nothing'"):
        load_clip("hf-hub:someone/nothing")


# --------------------------------------------------------------------- signs that only a tokenizer itself may set


SIGNS = ["<end_of_text>", "<START_OF_TEXT>", "&lt;end_of_text&gt;", "＜end_of_text＞"]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("name", ["small_folder", "other_folder", None])
def test_the_end_of_a_text_in_a_text_is_text(name, sign, request):
    """Otherwise all that follows is left out silently: CLIP reads a text at its first end."""
    clip = load_clip(POCKET if name is None else f"local-dir:{request.getfixturevalue(name)}", device="cpu")
    clip._warned.update(clip.unknown_words([sign]))
    ends = {clip.tokenizer.sot_token_id, clip.tokenizer.eot_token_id}
    rows = clip.tokenize([f"a {sign} cat", f"a {sign} dog"])
    assert [sum(token in ends for token in row) for row in rows.tolist()] == [2, 2]
    assert clip.tokens(f"a {sign}")[1:-1] == clip.tokens("a")[1:-1] + clip.tokens(sign)[1:-1]
    one, other = clip.encode_texts([f"a {sign} cat", f"a {sign} dog"])
    assert not torch.allclose(one, other), "what follows is read"


def test_any_other_text_has_the_tokens_of_open_clip(clip):
    theirs = open_clip.SimpleTokenizer()
    for text in ("It's 12:30, isn't it?", "<b>&amp;</b> end_of_text <end of text>", "猫 x—y 3.5 %", "they'LL've", ""):
        assert clip.tokenizer.encode(text) == theirs.encode(text)


def test_a_tokenizer_of_transformers_reads_its_signs_as_text_too(tmp_path):
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[UNK]", "[SEP]", "[PAD]", "a", "cat", "[", "]", "SEP"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", sep_token="[SEP]", pad_token="[PAD]"
    ).save_pretrained(tmp_path)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=8)
    assert tokenizer(["a [SEP] cat"]).tolist() == [[3, 1, 4, 2, 2, 2, 2, 2]]
    clip_folders.plain_text(tokenizer)
    assert tokenizer(["a [SEP] cat"]).tolist() == [[3, 5, 7, 6, 4, 2, 2, 2]]


def test_the_statistics_of_a_tower_that_says_height_and_width(tmp_path):
    """As timm's towers do: the photo CLIP has one."""
    visual = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    visual.image_size = (8, 8)
    model = torch.nn.Module()
    model.visual = visual
    familiar.Familiarity("visual.0", 8).save(tmp_path)
    assert familiar.read(tmp_path, model).layer == "visual.0"
