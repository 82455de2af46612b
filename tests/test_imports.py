"""Imports run one way through the package, and `import mmlesson` costs next to nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmlesson

PACKAGE = Path(mmlesson.__file__).resolve().parent

# From the top floor down: a module imports from floors below its own. On a floor of several rooms, each a set,
# rooms never import each other; the modules of one room may, in one direction.
FLOORS = [
    [{"cli", "classroom", "commands", "indexing", "terminal"}],
    [{"train"}, {"doctor", "doctor_tries"}],
    [{"measure"}],
    [{"teach"}],
    [{"search"}, {"painter", "prompts"}, {"dalle", "captions"}],
    [{"clip"}, {"vqgan", "prior"}],
    [{"world"}],
    [{"models"}],
    [{"pixels", "decoding"}, {"photo_folder"}],
    [{"runtime", "gates", "words"}],
]
PLACE = {
    module: (floor, room)
    for floor, rooms in enumerate(FLOORS)
    for room, modules in enumerate(rooms)
    for module in modules
}


def top(path: Path) -> str:
    """The module of the house that a file belongs to: "clip", or "train" for train/clip.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str, path: Path) -> set[str]:
    """The modules of the house that a source imports anywhere in it, by any spelling."""
    package = ("mmlesson", *path.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            found.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            found.update(argument.value for argument in node.args if isinstance(argument, ast.Constant))
    names = {name.split(".")[1] for name in found if name.startswith("mmlesson.")}
    lazy = {name: module.split(".")[1] for name, (module, _) in mmlesson._LAZY.items()}
    return {lazy.get(name, name) for name in names if not name.startswith("__")}


def forbidden(module: str, target: str) -> str:
    """Why `module` may not import `target`; "" where it may."""
    if module == target:
        return ""
    if target not in PLACE:
        return f"{module} imports {target}, which has no place in the house"
    (floor, room), (target_floor, target_room) = PLACE[module], PLACE[target]
    if target_floor < floor:
        return f"{module} imports {target}, which stands above it"
    if target_floor == floor and target_room != room:
        return f"{module} imports its neighbour {target}"
    return ""


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_place():
    assert {top(path) for path in SOURCES} - PLACE.keys() - {"__init__", "__main__"} == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    module = top(path)
    targets = imported(path.read_text(), path)
    if module == "__init__":
        assert targets == set(), "what __init__ offers it imports when it is first used"
        return
    assert list(filter(None, (forbidden(module, target) for target in sorted(targets)))) == []


def test_no_two_modules_of_a_room_import_each_other():
    graph = {module: set() for module in PLACE}
    for path in SOURCES:
        if top(path) in graph:
            graph[top(path)] |= imported(path.read_text(), path) & graph.keys() - {top(path)}
    while graph:
        free = [module for module, targets in graph.items() if not targets & graph.keys()]
        assert free, f"imports run in a circle among {sorted(graph)}"
        for module in free:
            del graph[module]


@pytest.mark.parametrize(
    "module, line, why",
    [
        ("pixels", "from mmlesson import world", "stands above"),
        ("runtime", "import mmlesson.models.assets", "stands above"),
        ("world", "def f():\n    from . import clip", "stands above"),
        ("world", "from mmlesson import load_clip", "stands above"),
        ("clip", "from .vqgan import VQGAN", "neighbour"),
        ("search", "import importlib\nimportlib.import_module('mmlesson.dalle')", "neighbour"),
        ("train/clip", "from ..cli import main", "stands above"),
        ("train/clip", "from mmlesson.kitchen import pot", "no place"),
    ],
)
def test_a_wrong_import_is_caught(module, line, why):
    path = PACKAGE / f"{module}.py"
    [target] = imported(line, path)
    assert why in forbidden(top(path), target)


@pytest.mark.parametrize(
    "line", ["from . import runtime", "import mmlesson.runtime as r", "from mmlesson.runtime import device"]
)
def test_a_right_import_is_let_through(line):
    [target] = imported(line, PACKAGE / "clip.py")
    assert forbidden("clip", target) == ""


def test_only_widgets_imports_ipywidgets():
    importers = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "ipywidgets" for name in names):
                importers.add(top(path))
    # doctor_tries imports it in a child process to see whether it works
    assert importers <= {"teach", "doctor_tries"}


# ------------------------------------------------------------------------------------------------ cost


def python(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)


def test_importing_the_package_brings_in_nothing_heavy():
    heavy = {
        "torch",
        "torchvision",
        "open_clip",
        "timm",
        "numpy",
        "PIL",
        "matplotlib",
        "ipywidgets",
        "IPython",
        "skimage",
        "sklearn",
    }
    loaded = python("import sys, mmlesson; print(*sys.modules)").stdout.split()
    assert heavy & set(loaded) == set()


def test_importing_the_package_reads_few_files():
    """Why `import mmlesson` takes less than a tenth of a second: it runs almost nothing. Counted, not timed."""
    code = "import sys; before = set(sys.modules); import mmlesson; print(*(set(sys.modules) - before))"
    loaded = python(code).stdout.split()
    assert "mmlesson" in loaded and len(loaded) <= 20, loaded


def test_a_name_that_is_not_there_says_so():
    with pytest.raises(AttributeError, match="no attribute 'load_clop'"):
        _ = mmlesson.load_clop
    assert {"load_clip", "world", "check", "__version__"} <= set(dir(mmlesson))
