"""The pages of the reference: what the package offers, by module, read from the docstrings by Sphinx's autodoc."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap

# module -> (title, what it is for)
MODULES = {
    "clip": ("CLIP", "mmlesson.clip"),
    "search": ("Image search", "mmlesson.search"),
    "vqgan": ("VQGAN", "mmlesson.vqgan"),
    "prior": ("The prior over codes", "mmlesson.prior"),
    "painter": ("VQGAN+CLIP: the painter", "mmlesson.painter"),
    "prompts": ("Prompts with weights", "mmlesson.prompts"),
    "dalle": ("DALL-E", "mmlesson.dalle"),
    "world": ("The pocket world", "mmlesson.world"),
    "pixels": ("Pictures and pixels", "mmlesson.pixels"),
    "exercises": ("Exercises", "mmlesson.teach.exercises"),
    "quizzes": ("Quizzes", "mmlesson.teach.quizzes"),
    "figures": ("Figures", "mmlesson.teach.figures"),
    "widgets": ("Widgets", "mmlesson.teach.widgets"),
}
FIELD = re.compile(r"^    (\w+): [^#\n]+# (.+)$", re.MULTILINE)
NAME = re.compile(r"^`([A-Za-z_][\w.]*\w)`$")
NAMED = re.compile(r"^([a-z_]\w*): (\S.*)$")
ITEM = re.compile(r"^ +(?:\d+\.|-) ")
ROW = re.compile(r"^(\S(?:.*?\S)?) {2,}(\S.*)$")


def page(title: str, module: str) -> str:
    """The page of a module, in reStructuredText."""
    return f"{title}\n{'=' * len(title)}\n\n.. automodule:: {module}\n   :members:\n   :member-order: bysource\n"


def index() -> str:
    """The page that lists the names to import from `mmlesson` itself, each with a link to where it is explained."""
    import mmlesson

    rows = []
    for name, (module, _) in sorted(mmlesson._LAZY.items()):
        home = next(page for page, (_, its) in MODULES.items() if module == its)
        target = f"[`{name}`]({home}.rst)"
        said = inspect.getdoc(getattr(mmlesson, name)) or ""
        first = said.split("\n\n")[0].replace("\n", " ")
        rows.append(f"{target}\n: {first}")
    listed = "\n".join(MODULES)
    return (
        "# Reference\n\nThese names can be imported from `mmlesson` itself: `from mmlesson import load_clip`.\n\n"
        + "\n\n".join(rows)
        + f"\n\n```{{toctree}}\n:maxdepth: 1\n:caption: By module\n\n{listed}\n```\n"
    )


# ------------------------------------------------------------------------------------------- docstrings


def rewritten(lines: list[str], what: object = None) -> list[str]:
    """A docstring of the course as reStructuredText.

    Indented blocks become code, rows of a name and its meaning become lists of definitions. The comments beside the
    fields of a dataclass are its documentation: they come last.
    """
    found: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        rows = block.split("\n")
        found += _code(rows) if all(row.startswith("    ") for row in rows) else _prose(rows)
        found.append("")
    return [*found, *_fields(what)]


def _prose(rows: list[str]) -> list[str]:
    """Sentences; among them definitions ("name: …", "name   …") and items ("    1. …"), each with its further rows."""
    found: list[str] = []
    kind = "sentence"
    for place, row in enumerate(rows):
        definition = ROW.match(row) or ((place == 0 or kind == "definition") and NAMED.match(row))
        if definition:
            kind = "definition"
            found += ["", f"``{definition[1].strip('`')}``", f"    {escaped(definition[2])}"]
        elif ITEM.match(row):
            kind = "item"
            found += ["", escaped(row.strip())]
        elif row.startswith(" ") and kind != "sentence":
            found.append(("    " if kind == "definition" else "   ") + escaped(row.strip()))
        else:
            found += [""] * (kind != "sentence")
            kind = "sentence"
            found.append(escaped(row.strip()))
    return found


def _code(rows: list[str]) -> list[str]:
    text = textwrap.dedent("\n".join(rows))
    try:
        ast.parse(text)
        language = "python"
    except SyntaxError:
        language = "text"
    return [f".. code-block:: {language}", "", *textwrap.indent(text, "   ").split("\n")]


def _fields(what: object) -> list[str]:
    """The fields of a dataclass, with the comments beside them in its source."""
    if not (inspect.isclass(what) and dataclasses.is_dataclass(what)):
        return []
    names = {field.name for field in dataclasses.fields(what)}
    try:
        source = inspect.getsource(what)
    except OSError:
        return []
    rows = [f"{name}  {said}" for name, said in FIELD.findall(source) if name in names]
    return [*_prose(rows), ""] if rows else []


def escaped(row: str) -> str:
    """A row of prose in which no sign has a meaning that it has in reStructuredText alone."""
    parts = re.split(r"(`[^`]*`)", row)  # what stands between backticks is left alone
    for place in range(0, len(parts), 2):
        part = re.sub(r"([|\\])", r"\\\1", parts[place])
        part = re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", part)
        parts[place] = re.sub(r"(?<![*\w])\*(?=[\s(]|$)|(?<=\s)\*(?=\s)", r"\\*", part)
    for place in range(1, len(parts), 2):
        name = NAME.match(parts[place])  # a name becomes a link, where Sphinx knows it
        parts[place] = f":py:obj:`{name[1]}`" if name else f"`{parts[place]}`"
    return "".join(parts)
