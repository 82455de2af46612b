"""The lessons for Colab and Binder: the cell that installs, tried where the course is missing; the links."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mmlesson import cli
from mmlesson.teach import online

ROOT = Path(__file__).resolve().parents[1]
ADDRESS, TAG = "https://github.com/a-class/mmlesson", "v0.1.0"
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "mmlesson"
version = "0.1.0"
"""
# a build backend in a few lines, so that nothing has to be fetched
BACKEND = """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "mmlesson-0.1.0-py3-none-any.whl"
    info = "mmlesson-0.1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("mmlesson.py", open("mmlesson.py").read())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: mmlesson\\nVersion: 0.1.0\\n")
        about = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{info}/WHEEL", about)
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The Python of an environment that has pip and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with a tag and a package called mmlesson: the course's own has hundreds of megabytes."""
    if not shutil.which("git"):
        pytest.fail("This test needs git.")
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, text in (("pyproject.toml", PROJECT), ("backend.py", BACKEND), ("mmlesson.py", "__version__ = 'tagged'")):
        (folder / name).write_text(text)
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "x"], ["tag", TAG]):
        subprocess.run([*git, *words], check=True)
    (folder / "mmlesson.py").write_text("__version__ = 'newer'")
    subprocess.run([*git, "commit", "--quiet", "-am", "x"], check=True)
    return folder


def run(python: Path, address: str, tmp_path: Path) -> subprocess.CompletedProcess:
    source = online.INSTALL.format(address=address, tag=TAG) + "\nimport mmlesson\nprint(mmlesson.__version__)"
    return subprocess.run([python, "-c", source], cwd=tmp_path, capture_output=True, text=True)


def test_the_first_cell_installs_the_tag_and_then_does_nothing(bare, repository, tmp_path):
    first = run(bare, repository.as_uri(), tmp_path)
    assert first.returncode == 0 and first.stdout.split() == ["tagged"], first.stderr
    shutil.rmtree(repository)
    again = run(bare, repository.as_uri(), tmp_path)
    assert again.returncode == 0 and again.stdout.split() == ["tagged"] and not again.stderr
    subprocess.run([bare, "-m", "pip", "uninstall", "--quiet", "--yes", "mmlesson"], check=True)
    gone = run(bare, repository.as_uri(), tmp_path)
    assert gone.returncode == 1 and "Connect this machine to the internet" in gone.stderr


def test_the_lessons_are_the_same_but_for_that_cell_and_their_links_lead_to_the_tag(tmp_path, capsys):
    arguments = ["online", "--repository", f"{ADDRESS}.git", "--tag", TAG, "--out", str(tmp_path / "online")]
    assert cli.main(arguments) == 0
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))
    guide = (tmp_path / "online" / "README.md").read_text()
    assert len(capsys.readouterr().out.splitlines()) == len(lessons) + 1
    for path in lessons:
        written = nbformat.read(tmp_path / "online" / path.name, as_version=4)
        nbformat.validate(written)
        added = written.cells.pop(1)
        assert written == nbformat.read(path, as_version=4)
        assert f'"git+{ADDRESS}@{TAG}"' in added.source and added.outputs == []
        assert f"https://colab.research.google.com/github/a-class/mmlesson/blob/online/{path.name})" in guide
        assert f"https://mybinder.org/v2/gh/a-class/mmlesson/{TAG}?urlpath=lab/tree/notebooks/{path.name})" in guide


@pytest.mark.parametrize(
    "repository, tag, said",
    [
        ("mmlesson", TAG, "--repository is the address"),
        ("https://github.com/a/b\nimport os", TAG, "--repository is the address"),
        ('https://github.com/a/b"', TAG, "--repository is the address"),
        (ADDRESS, "", "--tag is a tag"),
        (ADDRESS, 'v1"; x', "--tag is a tag"),
        (ADDRESS, "--upgrade", "--tag is a tag"),
    ],
)
def test_what_is_no_address_and_no_tag_is_said(tmp_path, capsys, repository, tag, said):
    arguments = ["online", f"--repository={repository}", f"--tag={tag}", "--out", str(tmp_path / "online")]
    assert cli.main(arguments) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "online").exists()


def test_binder_installs_the_tested_versions(tmp_path):
    """`binder/postBuild` is executed with a `python` that notes what it is asked."""
    assert (ROOT / "binder" / "runtime.txt").read_text().strip() == "python-3.11"
    post_build = ROOT / "binder" / "postBuild"
    assert os.access(post_build, os.X_OK)
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$NOTED"\n')
    (tmp_path / "python").chmod(0o755)
    noted = tmp_path / "noted"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTED": str(noted)}
    subprocess.run([post_build], cwd=ROOT, env=environment, check=True)
    words = noted.read_text().splitlines()
    assert words[:3] == ["-m", "pip", "install"] and words[-2:] == ["--editable", "."]
    assert (ROOT / words[words.index("--constraint") + 1]).is_file()
