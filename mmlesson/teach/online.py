"""`mmlesson online`: the lessons for Colab and Kaggle, where nothing is installed, and links that open them.

Each notebook gets one more cell, the first that has code. Where the course is missing, the cell installs it from a tag
of the repository. Binder needs no such cell: the folder `binder/` says what it installs. The committed lessons name no
address, so that a copy of the repository (a fork, a class of its own) gets links to itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates
from mmlesson.teach.lessons import as_file, choose

if TYPE_CHECKING:
    from nbformat import NotebookNode

REPOSITORY = re.compile(r"https://github\.com/([A-Za-z0-9-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
BRANCH = "online"  # what the links to Colab expect
INSTALL = """# Where the course is missing, as on Colab, this cell installs it in minutes. Elsewhere it does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("mmlesson") is None:
    course = "git+{address}@{tag}"
    if subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", course]).returncode:
        raise RuntimeError("The course was not installed, see above why. Connect this machine to the internet, "
                           "and run this cell again.")
    importlib.invalidate_caches()"""
GUIDE = """# The lessons, without installing anything

| lesson | on Colab | on Binder |
| --- | --- | --- |
{rows}

Colab asks for an account, and the first cell installs the course in some minutes. Binder needs no account, takes some
minutes to start, and has little memory.

*This folder was written by `mmlesson online`. Its place is the branch `{branch}` of {address}, alone and at the top;
the course itself is at the tag `{tag}`.*
"""
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"


def write(notebooks: Path, out: Path, repository: str, tag: str) -> Iterator[Path]:
    """Yields each file as soon as it is written: the notebooks, and a README.md with a link to each.

    repository: the address of the course on GitHub, such as https://github.com/NAME/mmlesson. tag: a tag there.
    Raises ValueError for another address or no name of a tag, and AssetError where there are no lessons.
    """
    import nbformat

    address, owner, name = _parts(repository)
    if not TAG.fullmatch(tag):
        raise ValueError(f"--tag is a tag of the repository, such as v0.1.0, not {tag[:100]!r}.")
    rows = []
    for path in choose(notebooks, None):
        lesson = installing(nbformat.read(path, as_version=4), address, tag)
        yield gates.write_atomically(out / path.name, as_file(lesson))
        colab = f"{COLAB}/github/{owner}/{name}/blob/{BRANCH}/{path.name}"
        binder = f"{BINDER}/v2/gh/{owner}/{name}/{tag}?urlpath=lab/tree/notebooks/{path.name}"
        rows.append(
            f"| {_title(lesson)} | [![Open in Colab]({COLAB}/assets/colab-badge.svg)]({colab}) "
            f"| [![Open in Binder]({BINDER}/badge_logo.svg)]({binder}) |"
        )
    text = GUIDE.format(rows="\n".join(rows), branch=BRANCH, address=address, tag=tag)
    yield gates.write_atomically(out / "README.md", text.encode())


def installing(lesson: NotebookNode, address: str, tag: str) -> NotebookNode:
    """The lesson, which is changed: a cell below its title installs the course where it is missing."""
    from nbformat.v4 import new_code_cell

    source = INSTALL.format(address=address, tag=tag)
    lesson.cells.insert(1, new_code_cell(source, id="install", metadata={"slideshow": {"slide_type": "skip"}}))
    return lesson


def _parts(repository: str) -> tuple[str, str, str]:
    found = REPOSITORY.fullmatch(repository)
    if not found:
        raise ValueError(
            "--repository is the address of the course on GitHub, such as https://github.com/NAME/mmlesson, "
            f"not {repository[:100]!r}."
        )
    return f"https://github.com/{found[1]}/{found[2]}", found[1], found[2]


def _title(lesson: NotebookNode) -> str:
    return lesson.cells[0].source.split("\n")[0].lstrip("# ").replace("|", "\\|")
