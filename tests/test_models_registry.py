"""models/registry.py: the list of published CLIPs, and downloads from a small local stand-in of the hub."""

import errno
import hashlib
import json
import resource
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from small_clips import SMALL

from mmlesson import cli
from mmlesson.clip import load_clip
from mmlesson.gates import AssetError
from mmlesson.models import assets, registry

NAME, REPOSITORY = "Small-CLIP/tests", "someone/small-clip"
WEIGHTS = "open_clip_model.safetensors"
CARD = "---\nlicense: other\nlicense_name: a-licence-of-ours\n---\n# Small\n"


class StandIn:
    """A hub on this machine: it answers as the hub does for the files of one repository."""

    def __init__(self, files: dict[str, bytes]):
        self.files = dict(files)
        self.sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self.stop_after: int | None = None  # bytes of an answer, then the connection ends
        self.asked: list[tuple[str, str, str | None]] = []
        self.repositories: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body: bool):
                name = self.path.rsplit("/", 1)[1]
                hub.asked.append((self.command, name, self.headers.get("Range")))
                hub.repositories.add(self.path.split("/resolve/")[0].strip("/"))
                data = hub.files.get(name)
                if data is None:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                wanted = self.headers.get("Range")
                start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("X-Repo-Commit", "0123456789" * 4)
                self.send_header("ETag", f'"{hub.sums[name]}"')
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                if body:
                    end = len(data) if hub.stop_after is None else min(len(data), start + hub.stop_after)
                    self.wfile.write(data[start:end])
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(small_folder, tmp_path, monkeypatch):
    """The stand-in, and open_clip with one more name, whose weights it holds."""
    entry = dict(open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k"), hf_hub=f"{REPOSITORY}/")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small-CLIP", {"tests": entry})
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-CLIP", SMALL["model_cfg"])
    monkeypatch.setattr(assets, "is_offline", lambda: False)
    # another hub is not only another address: these are read when huggingface_hub is imported
    stand_in = StandIn({WEIGHTS: (small_folder / WEIGHTS).read_bytes(), "README.md": CARD.encode()})
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", stand_in.address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.address + template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    registry.names.cache_clear()  # another test may have asked before this name was there
    yield stand_in
    registry.names.cache_clear()
    stand_in.server.shutdown()
    stand_in.server.server_close()


def left(folder: Path) -> list[str]:
    """What stands beside and in the place of a download, without the hub's own cache."""
    return sorted(path.name for path in folder.parent.iterdir() if path.name != "hub-cache")


def test_a_downloaded_folder_works_without_the_hub(hub, small_folder, tmp_path, capsys):
    folder = tmp_path / "stick" / "clip"
    assert cli.main(["download", NAME, "--to", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f'load_clip("local-dir:{folder}")' in said and "a-licence-of-ours" in said
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "download.json", "open_clip_config.json", WEIGHTS]
    )
    assert left(folder) == ["clip"]
    hub.server.shutdown()
    ours, theirs = load_clip(f"local-dir:{folder}"), load_clip(f"local-dir:{small_folder}")
    assert (ours.encode_texts("a cat") == theirs.encode_texts("a cat")).all()
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"]["mean"] == list(open_clip.OPENAI_DATASET_MEAN), "the tag's own preprocessing"


def test_what_is_there_is_checked_and_not_fetched_again(hub, tmp_path):
    folder = tmp_path / "clip"
    assert registry.download(NAME, folder) == (folder, True)
    hub.asked.clear()
    assert registry.download(NAME, folder) == (folder, False)
    assert hub.asked == []
    with open(folder / WEIGHTS, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(AssetError, match="missing or damaged: delete .*clip and download"):
        registry.download(NAME, folder)


def ranges_asked(hub: StandIn, file: str) -> list[str | None]:
    return [asked[2] for asked in hub.asked if asked[:2] == ("GET", file)]


def test_a_broken_connection_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    # the hub's library keeps whole chunks of 10 MB, more than the small file has
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1_000_000)
    hub.stop_after = len(hub.files[WEIGHTS]) // 2 + 1
    registry.download(NAME, tmp_path / "clip")
    first, *others = ranges_asked(hub, WEIGHTS)
    starts = [int(one.removeprefix("bytes=").split("-")[0]) for one in others]
    assert first is None and starts and min(starts) > 0 and starts == sorted(starts)
    assert assets.sha256(tmp_path / "clip" / WEIGHTS) == hub.sums[WEIGHTS] and left(tmp_path / "clip") == ["clip"]


@pytest.mark.parametrize("cut", [WEIGHTS, "README.md"])
def test_half_a_file_starts_again_and_whole_ones_are_kept(hub, tmp_path, monkeypatch, cut):
    original = huggingface_hub.file_download.http_get

    def one_try(*arguments, **options):  # the hub's own five tries would bring the rest at once
        hub.stop_after = 10 if arguments[0].endswith(cut) else None
        return original(*arguments, **{**options, "_nb_retries": 0})

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.file_download, "http_get", one_try)
        with pytest.raises(AssetError, match=f"{cut} of {NAME} was not downloaded whole .*same command again"):
            registry.download(NAME, tmp_path / "clip")
    assert not (tmp_path / "clip").exists()
    assert left(tmp_path / "clip") == ([] if cut == WEIGHTS else [".clip.Small-CLIP-tests.part"])
    hub.stop_after = None
    hub.asked.clear()
    registry.download(NAME, tmp_path / "clip")
    assert ranges_asked(hub, WEIGHTS) == ([None] if cut == WEIGHTS else []), "weights that came whole are not repeated"
    assert assets.sha256(tmp_path / "clip" / WEIGHTS) == hub.sums[WEIGHTS] and left(tmp_path / "clip") == ["clip"]


@pytest.mark.parametrize("cut", [WEIGHTS, "README.md"])
def test_ctrl_c_keeps_what_came_whole_and_says_where(hub, tmp_path, monkeypatch, capsys, cut):
    original = huggingface_hub.file_download.http_get

    def stopped(*arguments, **options):
        if arguments[0].endswith(cut):
            arguments[1].write(b"half of it")
            raise KeyboardInterrupt
        return original(*arguments, **options)

    command = ["download", NAME, "--to", str(tmp_path / "clip")]
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.file_download, "http_get", stopped)
        assert cli.main(command) == 130
    said, part = capsys.readouterr().err, ".clip.Small-CLIP-tests.part"
    if cut == WEIGHTS:
        assert left(tmp_path / "clip") == [] and said.strip() == "stopped."
    else:
        assert left(tmp_path / "clip") == [part] and {one.name for one in (tmp_path / part).glob("*.*")} >= {WEIGHTS}
        assert not list((tmp_path / part).rglob("*.incomplete"))
        assert f"{tmp_path / part} holds {WEIGHTS}; the same command keeps what came whole" in said
    hub.asked.clear()
    assert cli.main(command) == 0
    assert ranges_asked(hub, WEIGHTS) == ([None] if cut == WEIGHTS else []) and left(tmp_path / "clip") == ["clip"]


@pytest.mark.parametrize("how", ["the connection ends", "Ctrl-C", "the disk is full"])
def test_a_model_of_the_hub_is_loaded_again_after_half_of_it_came(hub, small_folder, tmp_path, monkeypatch, how):
    """The promise of `hub.hub_file`: "load it again to go on"."""
    hub.files["open_clip_config.json"] = (small_folder / "open_clip_config.json").read_bytes()
    hub.sums["open_clip_config.json"] = hashlib.sha256(hub.files["open_clip_config.json"]).hexdigest()
    original = huggingface_hub.file_download.http_get

    def half(*arguments, **options):
        if how == "the connection ends":
            hub.stop_after = 1000
            return original(*arguments, **{**options, "_nb_retries": 0})
        arguments[1].write(b"half of it")
        raise KeyboardInterrupt if how == "Ctrl-C" else OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.file_download, "http_get", half)
        with pytest.raises(
            KeyboardInterrupt if how == "Ctrl-C" else AssetError, match=None if how == "Ctrl-C" else "again"
        ):
            load_clip(f"hf-hub:{REPOSITORY}", device="cpu")
    hub.stop_after = None
    again = load_clip(f"hf-hub:{REPOSITORY}", device="cpu")
    whole = load_clip(f"local-dir:{small_folder}", device="cpu")
    assert torch.equal(again.encode_texts("a cat"), whole.encode_texts("a cat"))
    hub.server.shutdown()
    assert load_clip(f"hf-hub:{REPOSITORY}", device="cpu").dim == 32, "from now on without the hub"


def test_a_wrong_sum_leaves_nothing(hub, tmp_path):
    data = bytearray(hub.files[WEIGHTS])
    data[-5] ^= 1
    hub.files[WEIGHTS] = bytes(data)
    with pytest.raises(AssetError, match="another sha256 than the hub names"):
        registry.download(NAME, tmp_path / "clip")
    assert left(tmp_path / "clip") == []


def test_a_full_disk_leaves_nothing(hub, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(AssetError, match="The disk is full: .*nothing of it is left"):
            registry.download(NAME, tmp_path / "clip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(tmp_path / "clip") == []


def test_a_disk_too_small_is_said_before_the_weights_come(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 10))
    with pytest.raises(AssetError, match="The disk is full"):
        registry.download(NAME, tmp_path / "clip")
    assert ("GET", WEIGHTS, None) not in hub.asked


@pytest.fixture
def other_tokenizer(hub, monkeypatch):
    """The model with a tokenizer of transformers, from a repository of its own, as SigLIP 2 has one."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "cat": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    text = {**SMALL["model_cfg"]["text_cfg"], "hf_tokenizer_name": "someone/tokens"}
    form = {**SMALL["model_cfg"], "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-CLIP", form)
    files = {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}
    hub.files.update(files)
    hub.sums.update({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    return hub


def test_another_tokenizer_comes_from_its_own_repository(other_tokenizer, tmp_path):
    folder, _ = registry.download(NAME, tmp_path / "clip")
    assert other_tokenizer.repositories == {REPOSITORY, "someone/tokens"}
    other_tokenizer.server.shutdown()
    tokens = load_clip(f"local-dir:{folder}").tokenizer(["a cat"])
    assert tokens[0, :3].tolist() == [2, 3, 0]


def test_a_model_whose_tokenizer_would_need_the_hub_is_refused_before_its_weights(other_tokenizer, tmp_path):
    del other_tokenizer.files["tokenizer.json"]
    with pytest.raises(AssetError, match="someone/tokens, which has no tokenizer.json"):
        registry.download(NAME, tmp_path / "clip")
    assert ranges_asked(other_tokenizer, WEIGHTS) == [] and left(tmp_path / "clip") == []


def test_what_does_not_load_is_said_and_deleted(other_tokenizer, tmp_path):
    other_tokenizer.files["tokenizer.json"] = b"{}"
    other_tokenizer.sums["tokenizer.json"] = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(AssetError, match=f"{NAME} came whole, but does not load .*choose another"):
        registry.download(NAME, tmp_path / "clip")
    assert left(tmp_path / "clip") == []


def test_only_a_pickle_is_refused(hub, tmp_path):
    hub.files = {"open_clip_pytorch_model.bin": b"pickle"}
    with pytest.raises(AssetError, match="has none of .*a pickle can run any code"):
        registry.download(NAME, tmp_path / "clip")
    assert not (tmp_path / "clip").exists()


@pytest.mark.parametrize("offline", [True, False], ids=["no interface", "nobody answers"])
def test_without_a_network_one_sentence(hub, tmp_path, monkeypatch, capsys, offline):
    monkeypatch.setattr(assets, "is_offline", lambda: offline)
    hub.server.shutdown()
    hub.server.server_close()
    assert cli.main(["download", NAME, "--to", str(tmp_path / "clip")]) == 1
    said = capsys.readouterr().err
    assert "cannot be fetched without a network: connect this machine" in said and said.count("\n") == 1
    assert left(tmp_path / "clip") == []


def test_a_folder_with_something_else_is_left_alone(hub, tmp_path, capsys):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "homework.txt").write_text("mine")
    assert cli.main(["download", NAME, "--to", str(tmp_path / "clip")]) == 1
    assert "holds something else than Small-CLIP/tests" in capsys.readouterr().err
    assert left(tmp_path / "clip") == ["clip"] and hub.asked == []
    (tmp_path / "empty").mkdir()
    assert registry.download(NAME, tmp_path / "empty")[1], "an empty folder is taken"


@pytest.mark.parametrize(
    "name, near",
    [
        ("MobileCLIP2-S0", "MobileCLIP2-S0/dfndr2b"),
        ("mobileclip2-s0/dfndr", "MobileCLIP2-S0/dfndr2b"),
        ("ViT-B-32/opanai", "ViT-B-32/openai"),
        ("", "nothing"),
    ],
)
def test_an_unknown_name_brings_the_nearest(name, near, tmp_path):
    with pytest.raises(ValueError, match=f"no model named .*Near it: .*{near}"):
        registry.download(name, tmp_path / "clip")


# -------------------------------------------------------------------------------------------- the list


def test_parameters_are_counted_as_open_clip_counts_them(hub, small_folder):
    row = registry.published(NAME)
    assert row.parameters == sum(
        one.numel() for one in open_clip.create_model(f"local-dir:{small_folder}").parameters()
    )
    assert row.dim == 32 and row.side == 64 and row.repository == REPOSITORY and not row.needs_transformers


def test_the_short_list_holds_the_families_for_a_laptop():
    rows = {row.name: row for row in registry.list_models()}
    assert registry.RECOMMENDED in rows and "ViT-B-32/openai" in rows and "ViT-B-32-SigLIP2-256/webli" in rows
    assert rows["ViT-B-32/openai"].parameters == 151_277_313  # as CLIP's paper counts: 151 million
    mobile = [row for row in rows.values() if row.name.startswith("MobileCLIP2-")]
    assert len(mobile) >= 5 and rows[registry.RECOMMENDED].parameters == min(row.parameters for row in rows.values())
    assert rows["ViT-B-32-SigLIP2-256/webli"].needs_transformers and not rows[registry.RECOMMENDED].needs_transformers


@pytest.mark.parametrize("columns", [80, 120])
def test_the_page_fits_and_says_what_is_here(small_folder, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["models", "--folder", str(small_folder.parent)]) == 0
    said = capsys.readouterr().out
    assert "pocket-clip" in said and f"local-dir:{small_folder}" in said and "no ImageNet figures" in said
    table = [line for line in said.splitlines() if "local-dir:" not in line and "CC BY-SA" not in line]
    assert max(map(len, table)) <= columns
    assert ("repository on the hub" in said) == (columns >= 120)
    assert cli.main(["models", "no such name"]) == 1
