"""Notebooks that nobody trusts: found in a folder, read without running them, and asked for their verdicts.

Nothing here raises for what a file holds. A notebook that cannot be read is a sentence in the table.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmlesson import gates

LARGEST = 100_000_000  # bytes of a notebook: the lessons have less than 2 MB
LONGEST_CELL = 200_000  # letters of a cell that is parsed
MOST_NOTEBOOKS = 5_000
VERDICTS = {"right. ": "right", "not yet. ": "not yet", "not answered yet. ": "open"}


class Unreadable(Exception):
    """A file is no notebook that can be read; the message says why, in a few words."""


def find(folder: Path) -> list[Path]:
    """The notebooks below a folder, in the order of their names. Links and hidden folders are left out.

    Raises ValueError where `folder` is none, or holds no notebook or too many.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name the one with the learners' notebooks.")
    found = []
    for place, folders, names in os.walk(folder):  # it does not follow links to folders
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if name.endswith(".ipynb") and not name.startswith(".")]
        if len(found) > MOST_NOTEBOOKS:
            raise ValueError(f"{folder} holds more than {MOST_NOTEBOOKS:,} notebooks: name a smaller folder.")
    if not found:
        raise ValueError(f"There are no notebooks in {folder}.")
    return found


def cells(path: Path) -> list[dict]:
    """The code cells of a notebook: dicts with "source", a text, and "outputs", a list. Raises Unreadable."""
    if path.is_symlink():
        raise Unreadable("a link, which is not followed")
    try:
        with gates.open_file(path) as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise Unreadable(gates.reason(error)) from None
    if len(content) > LARGEST:
        raise Unreadable(f"larger than {LARGEST // 1_000_000} MB")
    try:
        found = json.loads(content)["cells"]
        return [_code(cell) for cell in found if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreadable("not a notebook") from None


def _code(cell: dict) -> dict:
    outputs = cell.get("outputs")
    return {"source": _text(cell.get("source")), "outputs": outputs if isinstance(outputs, list) else []}


def _text(value) -> str:
    """A text of the notebook format: a string, or a list of strings."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def exercise_of(source: str) -> str | None:
    """The number of the exercise that a cell answers: its last line is `check("1.3", …)`. None for another cell."""
    if "check(" not in source or len(source) > LONGEST_CELL:
        return None
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    call = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check" and call.args):
        return None
    number = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
    return number if isinstance(number, str) else None


def verdict_in(number: str, outputs: Iterable) -> str | None:
    """What the result of a cell says of an exercise: "right", "not yet" or "open"; None where it says nothing."""
    for output in outputs:
        if not isinstance(output, dict) or output.get("output_type") != "execute_result":
            continue
        data = output.get("data")
        said = _text(data.get("text/plain")) if isinstance(data, dict) else ""
        for words, state in VERDICTS.items():
            if said.startswith(f"Exercise {number}: {words}"):
                return state
    return None


def stored(found: Iterable[dict]) -> Iterator[tuple[str, str | None]]:
    """(number, verdict) for each cell that answers an exercise, from the stored outputs."""
    for cell in found:
        number = exercise_of(cell["source"])
        if number is not None:
            yield number, verdict_in(number, cell["outputs"])


def redefines_check(found: Iterable[dict]) -> bool:
    """Whether a cell gives the name `check` to something of its own, or sets an attribute or an item called so."""
    for cell in found:
        try:
            tree = (
                ast.parse(cell["source"]) if "check" in cell["source"] and len(cell["source"]) < LONGEST_CELL else None
            )
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if tree is not None and any(_names_check(node) for node in ast.walk(tree)):
            return True
    return False


def _names_check(node: ast.AST) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name == "check"
    if isinstance(node, ast.ImportFrom):
        own = (node.module or "").split(".")[0] == "mmlesson"
        return any((each.asname or each.name) == "check" for each in node.names) and not own
    stores = isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del))
    return stores and getattr(node, "id", getattr(node, "attr", "")) == "check"
