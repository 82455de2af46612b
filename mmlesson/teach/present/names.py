"""Which names a cell reads and which it sets, from its source alone: so it is known which cells need which.

What only running would tell is not seen: a name that `exec` sets, an object that a function changes. A statement such
as `rows.append(3)`, `frame["a"] = 1` or `net.bias = b` counts as a change of `rows`, `frame` and `net`.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BUILT_IN = frozenset(dir(builtins))


@dataclass(frozen=True)
class Names:
    """The names of a cell."""

    reads: frozenset[str] = frozenset()  # what it takes from other cells
    sets: frozenset[str] = frozenset()  # what it sets or changes
    makes: frozenset[str] = frozenset()  # what it sets in any case, whatever it was before


def names_in(source: str) -> Names:
    """The names of a cell. A source that is no Python (a magic, a mistake) has none."""
    reads, sets, makes = set(), set(), set()
    for _, names in statements_in(source):
        reads |= names.reads - makes
        sets |= names.sets
        makes |= names.makes
    return Names(frozenset(reads), frozenset(sets), frozenset(makes))


def statements_in(source: str) -> list[tuple[str, Names]]:
    """The statements of a cell, each with its names."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return []
    return [(ast.unparse(each), _names_of(each, each is statements[-1])) for each in statements]


def _names_of(statement: ast.stmt, is_last: bool) -> Names:
    table = symtable.symtable(ast.unparse(statement), "cell", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    used = {s.get_name() for s in table.get_symbols() if s.is_referenced()} | set(_globals_used(table))
    if isinstance(statement, ast.AugAssign):
        used |= bound
    if isinstance(statement, ast.For):  # its own names are set before its body reads them
        own = {node.id for node in ast.walk(statement.target) if isinstance(node, ast.Name)}
        used -= own - {node.id for node in ast.walk(statement.iter) if isinstance(node, ast.Name)}
    shows = is_last and isinstance(statement, ast.Expr)  # a last expression is there to be shown
    makes = isinstance(
        statement, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    )
    return Names(
        frozenset(used - BUILT_IN),
        frozenset(bound if shows else bound | set(_changed(statement))),
        frozenset(bound if makes else ()),
    )


def _globals_used(table: symtable.SymbolTable) -> Iterator[str]:
    """What the functions, classes and comprehensions in a table take from the cells."""
    for inner in table.get_children():
        yield from (symbol.get_name() for symbol in inner.get_symbols() if symbol.is_global())
        yield from _globals_used(inner)


def _changed(statement: ast.stmt) -> Iterator[str]:
    """The names whose objects a statement changes."""
    for node in ast.walk(statement):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            yield from _first_name(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if isinstance(node.value.func, ast.Attribute):
                yield from _first_name(node.value.func)


def _first_name(node: ast.expr) -> Iterator[str]:
    """The name at the beginning of `name.more[…].more`."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def needed(reads: frozenset[str], before: Sequence[Names]) -> list[int]:
    """The numbers of the statements in `before`, in their order, that a cell needs which reads these names."""
    wanted = set(reads)
    found = []
    for place in range(len(before) - 1, -1, -1):
        statement = before[place]
        if statement.sets & wanted:
            found.append(place)
            wanted = (wanted - statement.makes) | statement.reads
    return found[::-1]
