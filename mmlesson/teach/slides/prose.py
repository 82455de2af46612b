"""Markdown of a cell in pieces that fit on slides: headings, sentences, list items, tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# The end of a sentence, with the marks that may close behind it; a capital, a mark or a quote begins the next one.
END = re.compile(r"(?<=[.!?])([*_\"”’)]{0,3})\s+(?=[A-Z0-9*_\"“(`‘])")
ITEM = re.compile(r"^(?:[-*+]|\d+[.)])\s+", re.MULTILINE)
NOTICE = re.compile(r"^\*\*Notice\b")
ABBREVIATED = re.compile(r"\b(et al|e\.g|i\.e|vs|Dr|Fig|No|[A-Z])\.$")


@dataclass(frozen=True)
class Piece:
    """A part of a text cell, as markdown. kind: "heading", "sentence", "item", "table", "formula"."""

    kind: str
    text: str
    first: bool = False  # the first sentence of its paragraph
    number: str = ""  # of an item of a numbered list, "1."

    @property
    def notice(self) -> bool:
        return self.kind == "sentence" and bool(NOTICE.match(self.text))


def pieces(source: str) -> list[Piece]:
    """Everything in a text cell but fenced code and raw HTML, in order."""
    found = []
    source = re.sub(r"^```.*?^```\s*$", "", source, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n", source.strip()):
        block = block.strip()
        if not block or block.startswith("<"):
            continue
        if heading := re.match(r"^#{1,6}\s+(.+)", block):
            found.append(Piece("heading", heading[1].strip()))
            block = block[heading.end() :].strip()
            if not block:
                continue
        if block.startswith("|"):
            found.append(Piece("table", block))
        elif block.startswith("$$") or block.startswith("\\begin"):
            found.append(Piece("formula", block))
        elif ITEM.match(block):
            starts = [match.start() for match in ITEM.finditer(block)]
            for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
                number = ITEM.match(block[start:end])[0].strip()
                text = _joined(ITEM.sub("", block[start:end], count=1))
                found.append(Piece("item", text, number=number if number[0].isdigit() else ""))
        else:
            task = block.startswith("**Exercise")  # of which every sentence counts
            for number, sentence in enumerate(sentences(block)):
                found.append(Piece("sentence", sentence, first=task or number == 0))
    return found


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph, each with the marks that open and close in it."""
    text = _joined(paragraph)
    found, start = [], 0
    for end in END.finditer(text):
        sentence = text[start : end.end(1)]
        if ABBREVIATED.search(sentence) or sentence.count("**") % 2 or sentence.count("`") % 2:
            continue
        found.append(sentence.strip())
        start = end.end()
    return [*found, text[start:].strip()]


def chosen(source: str, keep: Sequence[str] | None) -> list[Piece]:
    """What of a text cell a slide shows: `keep` as the metadata has it, None for the rule."""
    every = pieces(source)
    if keep is None:
        return [piece for piece in every if piece.kind != "sentence" or piece.first or piece.notice]
    return [piece for piece in every if piece.kind == "heading" or any(_is_kept(piece, start) for start in keep)]


def not_found(source: str, keep: Sequence[str] | None) -> list[str]:
    """The beginnings in `keep` with which nothing in the cell begins: its text was changed since."""
    every = pieces(source)
    return [start for start in keep or () if not any(_is_kept(piece, start) for piece in every)]


def _is_kept(piece: Piece, start: str) -> bool:
    if start in ("-", "|"):
        return piece.kind == {"-": "item", "|": "table"}[start]
    return piece.kind != "heading" and plain(piece.text).startswith(plain(start))


def plain(text: str) -> str:
    """Without the marks of markdown and the addresses of links."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[*`]", "", text)


def _joined(text: str) -> str:
    return " ".join(text.split())
