"""models/assets.py: the manifest, files that are missing or damaged, the cache, no network."""

import collections
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from mmlesson.gates import AssetError
from mmlesson.models import assets

WEIGHTS = "models/pocket-clip/open_clip_model.safetensors"
CONFIG = "models/pocket-clip/open_clip_config.json"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("MMLESSON_DATA", "MMLESSON_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path) -> Path:
    """A data folder with one made-up model of two files, and their manifest."""
    folder = tmp_path / "data"
    for name, content in {WEIGHTS: b"weights" * 1000, CONFIG: b"{}\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assets.update_manifest(["models/pocket-clip"], data=folder)
    return folder


def same_size_damage(path: Path) -> None:
    """Change one byte of a file and give it its old times back, as a failing disk would."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# ------------------------------------------------------------------------------------------- places


def test_data_of_the_course_is_found():
    assert (assets.data_dir() / "manifest.json").is_file()


def test_data_may_be_put_elsewhere(monkeypatch, data):
    monkeypatch.setenv("MMLESSON_DATA", str(data))
    assert assets.data_dir() == data
    assert assets.check_file(CONFIG) == data / CONFIG
    monkeypatch.setenv("MMLESSON_DATA", str(data / "nowhere"))
    with pytest.raises(AssetError, match="not a folder: unset it"):
        assets.data_dir()


@pytest.mark.parametrize("find, name", [(assets.data_dir, "data"), (assets.notebooks_dir, "notebooks")])
def test_places_in_a_wheel_and_in_a_checkout(monkeypatch, tmp_path, find, name):
    package = tmp_path / "mmlesson"
    package.mkdir()
    monkeypatch.setattr(assets, "PACKAGE", package)
    with pytest.raises(AssetError, match=f"has no folder {name}: reinstall it with"):
        find()

    (tmp_path / name).mkdir()  # some folder of that name beside an installed package is not ours
    with pytest.raises(AssetError, match="reinstall"):
        find()

    (tmp_path / "pyproject.toml").touch()
    assert assets.in_checkout()
    assert find() == tmp_path / name
    (tmp_path / name).rmdir()
    with pytest.raises(AssetError, match=f"git checkout -- {name}"):
        find()

    (package / name).mkdir()
    assert find() == package / name


def test_cache_is_made_and_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "a" / "b"))
    assert assets.cache_dir() == tmp_path / "a" / "b"
    assert list(assets.cache_dir().iterdir()) == []
    (tmp_path / "a" / "b").rmdir()
    assert assets.cache_dir().is_dir()  # also when it was deleted meanwhile


def test_cache_without_a_setting_is_the_users(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    folder = assets.cache_dir()
    assert "mmlesson" in folder.parts
    if sys.platform == "linux":
        assert folder == tmp_path / "mmlesson"


def test_a_home_that_cannot_hold_the_cache_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("MMLESSON_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")  # as that of some services
    monkeypatch.setattr(
        "platformdirs.user_cache_path", lambda *names, **options: Path(os.environ["HOME"]) / ".cache" / "mmlesson"
    )
    with pytest.raises(AssetError, match=r"the cache is /dev/null/.cache/mmlesson: .*MMLESSON_CACHE"):
        assets.cache_dir()
    monkeypatch.setenv("MMLESSON_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(AssetError, match="~nobody-of-this-name/cache begins with a home folder that does not"):
        assets.cache_dir()


def test_cache_that_cannot_be_written_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for place in [
        tmp_path / "file",
        tmp_path / "file" / "below",
        *([Path("/proc/mmlesson")] if sys.platform == "linux" else []),
    ]:
        monkeypatch.setenv("MMLESSON_CACHE", str(place))
        with pytest.raises(
            AssetError, match=r"MMLESSON_CACHE names .*: .*\. Set the environment variable MMLESSON_CACHE to a folder"
        ):
            assets.cache_dir()


# ------------------------------------------------------------------------------------------- manifest


def test_manifest_lists_sha256_bytes_and_licence(data):
    files = assets.manifest(data)["files"]
    assert list(files) == sorted(files) == [CONFIG, WEIGHTS]
    assert files[WEIGHTS] == {
        "sha256": hashlib.sha256(b"weights" * 1000).hexdigest(),
        "bytes": 7000,
        "licence": "CC BY-SA 4.0",
    }


def test_update_manifest_replaces_adds_and_drops(data):
    assets.update_manifest([CONFIG], licence="MIT", data=data)
    (data / WEIGHTS).unlink()
    (data / "models/pocket-clip/vocabulary.json").write_text("[]")
    (data / "models/pocket-clip/README.md").write_text("# a card that people may edit")
    (data / "models/pocket-clip/.hidden").touch()
    (data / "other.csv").write_text("a,b\n")
    new = assets.update_manifest([data / "models/pocket-clip", "other.csv"], data=data)
    assert new == assets.manifest(data)
    assert {name: entry["licence"] for name, entry in new["files"].items()} == {
        CONFIG: "MIT",  # kept
        "models/pocket-clip/vocabulary.json": "CC BY-SA 4.0",
        "other.csv": "CC BY-SA 4.0",
    }
    assert (data / "manifest.json").read_bytes().endswith(b"}\n")


def test_update_manifest_refuses_what_is_not_data(data, tmp_path):
    (tmp_path / "outside").touch()
    before = (data / "manifest.json").read_bytes()
    for outside in (tmp_path / "outside", "../outside", "."):
        with pytest.raises(AssetError, match="only files of data/ are listed"):
            assets.update_manifest([outside], data=data)
    assert (data / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "is missing"),
        ("{", "cannot be read"),
        ("[]", "is not a list of files"),
        ('{"files": {"a": {"sha256": "0"}}}', "is not a list of files"),
        ('{"files": []}', "is not a list of files"),
    ],
)
def test_manifest_that_is_none_says_so(data, content, complaint):
    (data / "manifest.json").unlink()
    if content is not None:
        (data / "manifest.json").write_text(content)
    with pytest.raises(AssetError, match=rf"manifest\.json.* {complaint}.*: put it back into"):
        assets.check_file(CONFIG, data)


# ---------------------------------------------------------------------------------------------- files


def test_a_whole_file_and_a_whole_model(data):
    assert assets.check_file(WEIGHTS, data) == data / WEIGHTS
    assert assets.model_dir("pocket-clip", data) == data / "models/pocket-clip"


def test_sha256_is_that_of_the_standard_tool(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert assets.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_file_says_how_to_get_it_back(data, monkeypatch):
    (data / WEIGHTS).unlink()
    for look in (lambda: assets.check_file(WEIGHTS, data), lambda: assets.model_dir("pocket-clip", data)):
        with pytest.raises(AssetError, match="open_clip_model.safetensors is missing: put it back into"):
            look()
    # the way out is the one of the installation
    monkeypatch.setattr(assets, "PACKAGE", data.parent / "mmlesson")
    assert "pip install --force-reinstall" in assets.how_to_restore(WEIGHTS)
    (data.parent / "pyproject.toml").touch()
    with pytest.raises(AssetError, match=f"is missing: get it back with `git checkout -- data/{WEIGHTS}`"):
        assets.check_file(WEIGHTS)


def test_a_file_of_another_size_is_damaged(data):
    with open(data / WEIGHTS, "ab") as file:
        file.write(b"!")
    with pytest.raises(AssetError, match="is damaged .7,001 bytes instead of 7,000.: put it back"):
        assets.check_file(WEIGHTS, data)


def test_a_file_with_one_bit_changed_is_damaged(data):
    same_size_damage(data / WEIGHTS)
    with pytest.raises(AssetError, match="is damaged .its sha256 is not the manifest's.: put it back"):
        assets.model_dir("pocket-clip", data)


def test_a_file_is_read_once_and_again_when_it_changed(data, monkeypatch):
    read = collections.Counter()
    real = assets.sha256
    monkeypatch.setattr(assets, "sha256", lambda path: (read.update([Path(path).name]), real(path))[1])
    for _ in range(3):
        assets.check_file(WEIGHTS, data)
    assert read == {"open_clip_model.safetensors": 1}

    (data / WEIGHTS).write_bytes(b"Weights" * 1000)
    os.utime(data / WEIGHTS, ns=(1, 1))
    for _ in range(2):
        with pytest.raises(AssetError, match="damaged"):
            assets.check_file(WEIGHTS, data)
    assert read == {"open_clip_model.safetensors": 2}


def test_a_new_manifest_is_believed_over_what_was_verified(data):
    assets.check_file(WEIGHTS, data)
    listed = assets.manifest(data)
    listed["files"][WEIGHTS]["sha256"] = "0" * 64
    (data / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(AssetError, match="damaged"):
        assets.check_file(WEIGHTS, data)


@pytest.mark.parametrize("name", ["models/pocket-clip/other.bin", "../secret", "/etc/passwd"])
def test_a_file_that_the_manifest_does_not_list_is_refused(data, name):
    with pytest.raises(AssetError, match="is not one of the files"):
        assets.check_file(name, data)


def test_a_model_that_is_not_there_names_those_that_are(data):
    with pytest.raises(AssetError, match="no pocket model 'pocket-clop' here; there is pocket-clip"):
        assets.model_dir("pocket-clop", data)


# -------------------------------------------------------------------------------------------- offline


def test_offline_by_setting_and_by_interfaces(monkeypatch):
    import psutil

    Stats, Address = collections.namedtuple("Stats", "isup"), collections.namedtuple("Address", "address")
    up = {"lo": Stats(True), "eth0": Stats(True)}
    monkeypatch.setattr(psutil, "net_if_stats", lambda: up)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"lo": [Address("127.0.0.1")], "eth0": [Address("10.0.0.7")]})
    assert assets.is_offline() is False
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert assets.is_offline() is True
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert assets.is_offline() is False
    up["eth0"] = Stats(False)
    assert assets.is_offline() is True


def test_offline_error_names_the_file_and_the_ways_out():
    error = assets.offline_error("ViT-B-32/laion2b", ["connect once", "copy the file to models/"])
    assert isinstance(error, AssetError)
    assert str(error) == (
        "ViT-B-32/laion2b is not on this machine and cannot be fetched without a network: "
        "connect once, or copy the file to models/."
    )
