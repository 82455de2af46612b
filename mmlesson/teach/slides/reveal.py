"""Where reveal.js lies on this machine: the package pyreveal brings it, with its licence, and asks for no other."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mmlesson import gates

FILES = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "dist/plugin/notes.js", "LICENSE")


def reveal_folder() -> Path:
    """The folder of reveal.js. Raises AssetError where the package, or a file of it, is not there."""
    found = find_spec("pyreveal")
    places = found.submodule_search_locations if found else None
    folder = Path(next(iter(places))) / "revealjs" if places else None
    if folder is None or not all((folder / file).is_file() for file in FILES):
        raise gates.AssetError(
            "reveal.js, which shows the slides, is not here: the package pyreveal brings it. "
            "`pip install pyreveal` installs it, and `mmlesson doctor` checks all packages."
        )
    return folder


def reveal_file(name: str) -> str:
    return (reveal_folder() / name).read_text(encoding="utf-8")
