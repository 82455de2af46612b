"""What of a code cell a slide shows: the statements that matter, in at most twelve lines."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Sequence

MOST_LINES = 12
FOLD = "⋯"  # stands for statements that are left out
WIDE = 74  # letters; a longer line loses the comment behind it


def shown(source: str, choice: bool | Sequence[str] | None, has_figure: bool) -> list[str]:
    """The lines of a code cell that a slide shows; FOLD alone in a line stands for left-out statements.

    choice: True for the rule, False for nothing, or how the shown statements begin; None is True without a figure.
    """
    if choice is None:
        choice = not has_figure
    if choice is False:
        return []
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic command of IPython
        return _cut(source.rstrip().splitlines())
    lines = source.splitlines()
    found: list[str] = []
    for number, node in enumerate(body):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(each.lineno for each in decorators)])
        text = lines[first - 1 : node.end_lineno]
        if not _is_shown(node, text, choice):
            if found and found[-1] != FOLD and not _is_noise(node):
                found.append(FOLD)
            continue
        if found and found[-1] != FOLD and isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append("")
        found += [line for line in text if line.strip()] if isinstance(node, ast.FunctionDef) else text
        after = body[number + 1].lineno if number + 1 < len(body) else None
        if isinstance(node, ast.FunctionDef) and after and found[-1] != FOLD:
            found.append("")
    while found and found[-1] in ("", FOLD):
        found.pop()
    return _cut(_without_gaps(found))


def beginnings_not_found(source: str, choice: bool | Sequence[str] | None) -> list[str]:
    """What in a list of beginnings begins no statement: the cell was changed since."""
    if choice is None or isinstance(choice, bool):
        return []
    lines = source.splitlines()
    starts = [lines[node.lineno - 1].strip() for node in ast.parse(source).body]
    return [each for each in choice if not any(start.startswith(each) for start in starts)]


def _is_shown(node: ast.stmt, text: list[str], choice: bool | Sequence[str]) -> bool:
    if choice is True:
        return not _is_noise(node) and not _is_call_of(node, "figures")
    return any(line.strip().startswith(start) for line in text[:1] for start in choice)


def _is_noise(node: ast.stmt) -> bool:
    """Imports, checks, and what prints: what it printed stands below."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "print":
        return True
    return isinstance(node, ast.If | ast.For) and all(_is_noise(each) for each in [*node.body, *node.orelse])


def _is_call_of(node: ast.stmt, module: str) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    function = call.func if isinstance(call, ast.Call) else None
    return isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == module


def _without_gaps(lines: list[str]) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if line.strip() or (kept and kept[-1].strip() and kept[-1] != FOLD):
            kept.append(line)
    return kept


def _without_comment(line: str) -> str:
    try:
        for token in tokenize.generate_tokens(io.StringIO(line.strip()).readline):
            if token.type == tokenize.COMMENT:
                return line[: len(line) - len(line.lstrip()) + token.start[1]].rstrip()
    except (tokenize.TokenError, SyntaxError):  # a statement that goes on in the next line
        pass
    return line


def _cut(lines: list[str]) -> list[str]:
    lines = [_without_comment(line) if len(line) > WIDE else line for line in lines]
    if len(lines) <= MOST_LINES:
        return lines
    lines = [line for line in lines if line.strip()]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], FOLD]
