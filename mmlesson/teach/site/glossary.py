"""The page of the glossary: each term with the sentences that explain it, from the lesson that uses it first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..glossary import GLOSSARY, prose, word
from ..slides.prose import sentences
from .lessons import fenced

HEAD = """# Glossary

The terms of the field in alphabetical order. Each stands with the words that explain it in the lessons, and with a link
to the place where a reader meets it first.
"""


@dataclass(frozen=True)
class Entry:
    """A term, what the lessons say of it, and where: the lesson ("01_clip") and the id of the cell."""

    term: str
    text: str
    lesson: str
    cell: str


def entries(notebooks: Iterable[Path]) -> list[Entry]:
    """Every term that the notebooks explain, in the order of the alphabet."""
    paths = {path.stem: path for path in notebooks}
    paragraphs = [each for each in prose(paths.values()) if not each.text.startswith("#")]
    found = []
    for term, says in GLOSSARY.items():
        first = next((each for each in paragraphs if each.holds(term)), None)
        if first is not None:
            lesson, cell = first.where.split(", cell ")
            text = as_written(explanation(term, says, first.text), source_of(paths[lesson], cell))
            found.append(Entry(term, text, lesson, cell))
    return sorted(found, key=lambda entry: entry.term.lower())


def explanation(term: str, says: str, paragraph: str) -> str:
    """The sentences of a paragraph from the one with the term to the one that explains it, whichever comes first."""
    parts = sentences(paragraph)
    places = [
        next((place for place, part in enumerate(parts) if found(part)), None)
        for found in (
            lambda part: re.search(word(term), part, re.IGNORECASE),
            lambda part: says.lower() in part.replace("*", "").lower(),
        )
    ]
    if None in places:  # the words of the explanation run over the end of a sentence
        return paragraph
    return " ".join(parts[min(places) : max(places) + 1])


def source_of(path: Path, cell: str) -> str:
    """The text of a cell of a notebook."""
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    return next("".join(each["source"]) for each in cells if each["id"] == cell)


def as_written(text: str, source: str) -> str:
    """`text` with the code and the addresses of links that it has in the cell that it was taken from."""
    pattern = re.escape(text).replace(re.escape("`…`"), "`[^`]*`").replace(r"\]", r"\](?:\([^)]*\))?")
    found = re.search(pattern.replace(r"\ ", r"\s+"), source)
    return " ".join((found[0] if found else text).split())


def page(found: Iterable[Entry]) -> str:
    """The page as Markdown (MyST)."""
    blocks = []
    for entry in found:
        text = re.sub(r"^(?:[-*]|\d+\.)\s+", "", entry.text)
        number = entry.lesson.split("_")[0].lstrip("0")
        blocks.append(f"{entry.term}\n   {text} [First in lesson {number}](#{entry.cell}).")
    listed = fenced("{glossary}", "\n\n".join(blocks))
    return f"{HEAD}\n{listed}\n"
