"""The wheel: it carries the course's data and lessons, and works far from the repository with no network."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from mmlesson.models import assets

ROOT = Path(__file__).resolve().parent.parent


def run(command, **options) -> subprocess.CompletedProcess:
    # what a developer's shell may say about where mmlesson lies must not reach the wheel
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "MMLESSON_DATA")
    }
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "--no-build-isolation", "--quiet", "-w", folder])
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def second(wheel, tmp_path_factory) -> Path:
    """The scripts of a second environment with the wheel in it; what it depends on is the first one's.

    The first one's packages are found through a .pth file. Python does not read the .pth files that lie among
    them, so the editable mmlesson there stays unseen.
    """
    folder = tmp_path_factory.mktemp("second") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel])
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout.strip())
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(sorted(places)) + "\n")
    return scripts


def test_name_and_metadata(wheel):
    assert wheel.name == "mmlesson-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read("mmlesson-0.1.0.dist-info/METADATA").decode())
        assert b"MIT License" in archive.read("mmlesson-0.1.0.dist-info/licenses/LICENSE")
        assert b"mmlesson = mmlesson.cli:main" in archive.read("mmlesson-0.1.0.dist-info/entry_points.txt")
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(metadata.get_all("Provides-Extra")) == sorted(project["optional-dependencies"])


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.startswith("mmlesson-0.1.0.dist-info/")}
        for name, entry in assets.manifest(ROOT / "data")["files"].items():
            assert hashlib.sha256(archive.read(f"mmlesson/data/{name}")).hexdigest() == entry["sha256"], name
    assert {name.split("/")[0] for name in inside} == {"mmlesson"}
    assert {"mmlesson/data/manifest.json", "mmlesson/data/cell_seconds.json"} <= inside
    assert "mmlesson/teach/present/page.js" in inside
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mmlesson").rglob("*.py")}
    assert modules <= inside
    assert {f"mmlesson/teach/slides/deck.{kind}" for kind in ("css", "js")} <= inside
    assert {f"mmlesson/teach/site/static/site.{kind}" for kind in ("css", "js")} <= inside
    lessons = {f"mmlesson/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert lessons and lessons <= inside
    assert [name for name in inside if "__pycache__" in name or "/." in name or name.endswith((".lock", ".pyc"))] == []


CLASSIFY = """
import json
import mmlesson
from mmlesson import load_clip, world
from mmlesson.models import assets

clip = load_clip()
labels = ["a cat", "a dog", "a person"]
[shares] = clip.classify([world.scene("cat", background="blue").render(224)], labels).tolist()
print(json.dumps({"file": mmlesson.__file__, "data": str(assets.data_dir()), "shares": dict(zip(labels, shares))}))
"""


def test_classifies_a_picture_from_an_empty_folder_without_a_network(second, tmp_path, without_network):
    done = run(without_network([second / "python", "-c", CLASSIFY]), cwd=tmp_path)
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["file"]).is_relative_to(second.parent), "the installed package, not the repository's"
    assert Path(said["data"]) == Path(said["file"]).parent / "data"
    shares = said["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert max(shares, key=shares.get) == "a cat"
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_installed(second, tmp_path):
    assert run([second / "mmlesson", "--version"], cwd=tmp_path).stdout == "mmlesson 0.1.0\n"
