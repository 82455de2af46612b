"""The page of a deck: one HTML file that requests nothing, with reveal.js, fonts and pictures inside."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ..lessons import exporter
from .code import FOLD
from .fonts import font_faces
from .pages import GAP, Page, Unit, gap_for, table_columns, table_size
from .prose import Piece, plain
from .reveal import reveal_file

HERE = Path(__file__).resolve().parent
LESSON = re.compile(r"^(Lesson \d+)\s*·\s*(?:([^:]+):\s*)?(.+)$")
PICTURE, ALT = re.compile(r"<img\b[^>]*>"), re.compile(r'\balt="([^"]*)"')
KEYS = "Space: next · O: overview · S: speaker's notes · F: full screen · ?: all keys"


def to_deck(units: Sequence[Unit], path: Path) -> str:
    """The HTML of a deck. `path` is where the notebook lies: pictures that its text names are found from there."""
    markdown = _markdown(path)
    columns: list[list[str]] = []
    start = 0.0
    for unit in units:
        if unit.top or not columns:
            columns.append([])
        for number, page in enumerate(unit.pages):
            notes = _notes(unit, number, start, markdown)
            seconds = round(60 * unit.minutes / len(unit.pages))
            label = html.escape(plain(page.title), quote=True)
            state = ' data-state="on-title"' if page.kind == "title" else ""
            columns[-1].append(
                f'<section data-timing="{seconds}" aria-label="{label}"{state}>'
                f'{_page(page, markdown)}<aside class="notes">{notes}</aside></section>'
            )
        start += unit.minutes
    body = "\n".join(f"<section>{''.join(column)}</section>" for column in columns)
    title = plain(units[0].pages[0].title)
    letters = re.sub(r"<[^>]*>", "", re.sub(r'src="data:[^"]*"', "", body))
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            *(f"<style>{reveal_file(name)}</style>" for name in ("dist/reset.css", "dist/reveal.css")),
            f"<style>{font_faces(html.unescape(letters) + title + KEYS + FOLD + ASCII)}</style>",
            f"<style>{(HERE / 'deck.css').read_text(encoding='utf-8')}</style></head>",
            f'<body><div class="reveal"><div class="slides">{body}</div></div>',
            f"<!-- reveal.js: {html.escape(reveal_file('LICENSE'))} -->",
            *(f"<script>{_inline(reveal_file(name))}</script>" for name in ("dist/reveal.js", "dist/plugin/notes.js")),
            f"<script>{_inline((HERE / 'deck.js').read_text(encoding='utf-8'))}</script></body></html>",
        ]
    )


ASCII = "".join(map(chr, range(32, 127)))


def _inline(script: str) -> str:
    """A script as it may stand in a page: what would end it, or begin a comment, is written in another way."""
    return re.sub(r"</(script)", r"<\\/\1", script, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def _markdown(path: Path) -> Callable[[str], str]:
    convert = partial(exporter().markdown2html, {"resources": {"metadata": {"path": str(path.parent.resolve())}}})

    def to_html(text: str) -> str:
        found = PICTURE.sub(lambda tag: (ALT.search(tag[0]) or [""] * 2)[1], convert(text)).strip()
        found = re.sub(r'(href="[^":#?]+)\.ipynb\b', r"\1.html", found)
        alone = re.fullmatch(r"<p>(.*)</p>", found, re.DOTALL)
        return alone[1] if alone and "<p>" not in alone[1] else found

    return to_html


# ------------------------------------------------------------------------------------------------- slides


def _page(page: Page, markdown: Callable[[str], str]) -> str:
    if page.kind == "title":
        return _title_page(page, markdown)
    parts = [f"<h2>{markdown(page.title)}</h2>"]
    if page.lead:
        style = f"font-size: {page.size}px; --gap: {gap_for(page.size) if page.kind == 'prose' else GAP}px"
        parts.append(f'<div class="lead" style="{style}">{"".join(_lead(page, markdown))}</div>')
    if page.code:
        parts.append(f'<div class="code" style="font-size: {page.code_size}px">{"".join(_code(page.code))}</div>')
    if page.output:
        appears = " fragment" if page.later else ""
        lines = "".join(f"<div>{html.escape(line) or ' '}</div>" for line in page.output)
        parts.append(f'<div class="output{appears}" style="font-size: {page.code_size}px">{lines}</div>')
    if page.figure:
        parts.insert(len(parts) - bool(page.output), _figure(page))
    return f'<div class="page of-{page.kind}{" beside" if page.beside else ""}">{"".join(parts)}</div>'


def _title_page(page: Page, markdown: Callable[[str], str]) -> str:
    lesson, name, about = "", "", page.title
    if found := LESSON.match(page.title):
        lesson, name, about = found[1], found[2] or "", found[3]
    words = [f'<p class="lesson">{html.escape(lesson)}</p>'] if lesson else []
    words += [f"<h1>{markdown(name or about)}</h1>"]
    words += [f'<p class="about">{markdown(about)}</p>'] if name else []
    cover = f'<div class="cover">{page.figure.html}</div>' if page.figure else ""
    return f'<div class="page of-title"><div>{"".join(words)}</div>{cover}<p class="keys">{KEYS}</p></div>'


def _lead(page: Page, markdown: Callable[[str], str]) -> Iterator[str]:
    items: list[str] = []
    for piece in [*page.lead, Piece("end", "")]:
        if piece.kind == "item":
            number = f' data-number="{piece.number}"' if piece.number else ""
            items.append(f"<li{number}>{markdown(piece.text)}</li>")
            continue
        if items:
            yield f"<ul>{''.join(items)}</ul>"
            items = []
        if piece.kind == "table":
            columns = "".join(f'<col style="width: {width:.0f}px">' for width in table_columns(piece.text))
            table = markdown(piece.text).replace("<table>", f"<table><colgroup>{columns}</colgroup>", 1)
            yield f'<div class="table" style="font-size: {table_size(piece.text)}px">{table}</div>'
        elif piece.kind == "formula":
            yield f'<div class="formula">{markdown(piece.text)}</div>'
        elif piece.kind == "sentence":
            marked = ' class="notice"' if piece.notice else ""
            yield f"<p{marked}>{markdown(piece.text)}</p>"


def _code(lines: Sequence[str]) -> Iterator[str]:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    source = "\n".join("" if line == FOLD else line for line in lines)
    coloured = highlight(source, PythonLexer(stripnl=False, ensurenl=False), HtmlFormatter(nowrap=True)).split("\n")
    for line, shown in zip(lines, coloured, strict=False):  # pygments ends with a line more
        if line == FOLD:
            yield f'<div class="fold">{FOLD}</div>'
            continue
        indent = len(line) - len(line.lstrip())
        yield f'<div style="--indent: {indent}">{shown or " "}</div>'


def _figure(page: Page) -> str:
    width, height = page.shown
    appears = " fragment" if page.later else ""
    if page.figure.size is None:
        return f'<div class="figure many{appears}">{page.figure.html}</div>'
    tiny = " tiny" if max(page.figure.size) <= 128 else ""
    style = f"width: {width}px; height: {height}px"
    return f'<div class="figure{appears}{tiny}"><div style="{style}">{page.figure.html}</div></div>'


# -------------------------------------------------------------------------------------------------- notes


def _notes(unit: Unit, number: int, start: float, markdown: Callable[[str], str]) -> str:
    """What the speaker sees: the time, what to say and to ask, and on the first page of a unit the lesson's text."""
    parts = []
    if unit.minutes:
        clock = f"minute {start:g} to {start + unit.minutes:g}"
        pages = f", slide {number + 1} of {len(unit.pages)}" if len(unit.pages) > 1 else ""
        parts.append(f"<p><b>{unit.minutes:g} min</b> ({clock}{pages})</p>")
    for key, name in (("say", "Say"), ("ask", "Ask")):
        if unit.notes.get(key):
            parts.append(f"<p><b>{name}:</b> {markdown(unit.notes[key])}</p>")
    if number == 0:
        texts = [cell.source for cell in unit.cells if cell.cell_type == "markdown"]
        texts = [re.sub(r"^#+\s.*$", "", text, flags=re.MULTILINE).strip() for text in texts]
        told = "".join(f"<div>{markdown(text)}</div>" for text in texts if text)
        parts.append(f"<hr><p><i>The lesson's own words:</i></p>{told}" if told else "")
    return "".join(parts)
