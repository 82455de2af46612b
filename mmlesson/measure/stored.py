"""The figures that are kept in data/measured/, one JSON file for each part, and whether they are still true.

A stored table carries the sha256 of the weights that it was measured with and of the code that measured it. When
either has changed the table is *stale*: `stale` says so, and by which command it is made again. A test holds all
tables fresh and every bar met, so the tests need not repeat the whole evaluations.

The sha256 of the code is that of its syntax trees (`ast.dump`), with what cannot change a figure left out: comments,
formatting, docstrings, type annotations, imports, and the words of errors. The top-level statements of all files of
a part are sorted before they are hashed, so a function may move from one of these files to another.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates
from mmlesson.measure.parts import PARTS, Part
from mmlesson.models import assets, reading

if TYPE_CHECKING:
    from mmlesson.measure.report import Report

FOLDER = "measured"  # in data/


@dataclass(frozen=True)
class Stored:
    """A stored table: what was measured, when and on which machine, with which weights and code."""

    report: Report
    date: str  # "2026-11-26"
    machine: str
    weights: dict[str, str]  # sha256 of each file of the models, by its name in the manifest
    code: str  # sha256


def path_of(name: str) -> Path:
    """Where the table of a part ("eval clip") is stored."""
    return assets.data_dir() / _relative(name)


def _relative(name: str) -> str:
    return f"{FOLDER}/{name.replace(' ', '_')}.json"


# ------------------------------------------------------------------------------- what a table depends on


def weights_of(part: Part) -> dict[str, str]:
    """The sha256 of every file of the models of a part, as the manifest lists them. Raises AssetError."""
    files = assets.manifest()["files"]
    found = {}
    for model in part.weights:
        mine = {name: entry["sha256"] for name, entry in files.items() if name.startswith(f"models/{model}/")}
        if not mine:
            raise gates.AssetError(
                f"data/{assets.MANIFEST} lists no model {model}: {assets.how_to_restore(assets.MANIFEST)}."
            )
        found |= mine
    return found


def code_of(part: Part) -> str:
    """The sha256 of the code that produces the figures of a part; see the top of this file for what counts."""
    statements = []
    for relative in part.code:
        statements += _statements(relative)
    if part.lessons:
        statements += _cells()
    digest = hashlib.sha256()
    for statement in sorted(statements):
        digest.update(statement.encode() + b"\0")
    return digest.hexdigest()


@cache
def _statements(relative: str) -> tuple[str, ...]:
    """The normalised top-level statements of a file of the package, or of all files of a folder of it."""
    path = assets.PACKAGE / relative
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    found = []
    for file in files:
        found += normalised(file.read_text(encoding="utf-8"))
    return tuple(found)


def normalised(source: str) -> list[str]:
    """The top-level statements of a source as text, without what cannot change a figure."""
    tree = _Bare().visit(ast.parse(source))
    return [ast.dump(statement) for statement in tree.body]


class _Bare(ast.NodeTransformer):
    """Leaves out docstrings and other lone strings, annotations, imports, and the words of errors."""

    def visit_Expr(self, node: ast.Expr):
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import):
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom):
        return None

    def visit_Raise(self, node: ast.Raise):
        return ast.Raise(None, None)

    def visit_arg(self, node: ast.arg):
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node: ast.AnnAssign):
        if node.value is None:
            return ast.Expr(node.target)  # a field of a dataclass: its name still counts
        return self.generic_visit(ast.Assign([node.target], node.value))

    def _function(self, node):
        node.returns = None
        return self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = _function


def _cells() -> list[str]:
    """The code cells of all notebooks, each with the name of its notebook."""
    found = []
    for path in sorted(assets.notebooks_dir().glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found += [f"{path.name}\0{''.join(cell['source'])}" for cell in cells if cell["cell_type"] == "code"]
    return found


# ----------------------------------------------------------------------------------- writing and reading


def check_options(part: Part, options) -> None:
    """Raises ValueError where `options` ask for something else than the figures that are worth keeping."""
    if getattr(options, "model", None) is not None:
        raise ValueError("--write keeps the figures of the course's own models: leave --model out.")
    if getattr(options, "settings", False):
        raise ValueError("--write keeps figures, and --settings measures none: leave one of them out.")
    if part.n is not None and options.n < part.n:
        raise ValueError(f"--write keeps figures of at least {part.n}: leave --n out, or give a larger number.")


def write(report: Report) -> Path:
    """Stores a report in data/measured/ and lists the file in the manifest; returns its path. Raises AssetError."""
    part = PARTS[report.part]
    content = {
        "part": report.part,
        "title": report.title,
        "date": date.today().isoformat(),
        "machine": machine(),
        "figures": _rounded(report.figures),
        "beside": {kind: _rounded(values) for kind, values in report.beside.items()},
        "against": report.against,
        "notes": list(report.notes),
        "rows": [_rounded(row) for row in report.rows],
        "weights": weights_of(part),
        "code": code_of(part),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path = gates.write_result(path_of(report.part), text.encode())
    assets.update_manifest([path], licence="MIT")
    return path


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    from mmlesson.measure.report import rounded

    return {name: rounded(value) for name, value in values.items()}


def read(name: str) -> Stored:
    """The stored table of a part. Raises AssetError where there is none, or the file is damaged."""
    from mmlesson.measure.report import Report

    relative = _relative(name)
    content = reading.read_object(assets.check_file(relative))
    try:
        report = Report(
            content["part"],
            content["title"],
            content["figures"],
            content["beside"],
            content["against"],
            content["notes"],
            content["rows"],
        )
        stored = Stored(report, content["date"], content["machine"], dict(content["weights"]), content["code"])
        numbers = [*report.figures.values(), *(value for values in report.beside.values() for value in values.values())]
        for number in numbers:
            gates.real_number("a figure", number)
        if not (isinstance(report.notes, list) and isinstance(report.rows, list) and report.part == name):
            raise ValueError(f"it is no table of {name}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise gates.AssetError(
            f"{path_of(name)} is damaged ({reading.short(error)}): make it again with `mmlesson {name} --write`."
        ) from error
    return stored


def stale(name: str) -> str:
    """Why the stored table of a part has to be made again, and by which command; "" where it is fresh."""
    again = f"make it again with `mmlesson {name} --write`"
    if not path_of(name).is_file():
        return f"mmlesson {name}: there is no stored table ({again})"
    found, part = read(name), PARTS[name]
    weights = weights_of(part)
    changed = sorted(
        file for file in weights.keys() | found.weights.keys() if weights.get(file) != found.weights.get(file)
    )
    if changed:
        return f"mmlesson {name}: the weights have changed since it was measured: {', '.join(changed)} ({again})"
    if found.code != code_of(part):
        files = [*part.code, *(["the code cells of the notebooks"] if part.lessons else [])]
        return f"mmlesson {name}: the code has changed since it was measured: one of {', '.join(files)} ({again})"
    return ""


def machine() -> str:
    """The machine in a few words: "2 cores, 2 threads, x86_64 with AVX512 and bfloat16, torch 2.6.0"."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    sets = torch.backends.cpu.get_cpu_capability()
    if "avx512_bf16" in _processor_flags():
        sets += " and bfloat16"
    version = torch.__version__.split("+")[0]
    threads = torch.get_num_threads()
    counts = [f"{n} {what}{'s' if n != 1 else ''}" for n, what in ((cores, "core"), (threads, "thread"))]
    return f"{', '.join(counts)}, {platform.machine()} with {sets}, torch {version}"


def _processor_flags() -> Sequence[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return ()
    return next((line.split() for line in lines if line.startswith("flags")), ())
