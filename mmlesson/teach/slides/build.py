"""From notebooks to decks: which cells make which slides, and the files that are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates
from mmlesson.words import shown as spelled

from ..lessons import WIDGET_SENTENCE, choose, embed_picture
from . import code, pages, prose, rows
from .pages import Page, Unit
from .reveal import reveal_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

BEGINS = ("slide", "subslide")
EXERCISE = re.compile(r"^\*\*(Exercise [\d.]+)\*\*\s*")


@dataclass(frozen=True)
class Deck:
    """One lesson as slides."""

    name: str  # "01_clip"
    slides: int
    minutes: float  # what its notes add up to
    html: Path

    def __str__(self) -> str:
        return f"{self.name}: {self.slides} slides, {self.minutes:g} minutes, {self.html}"


def run_slides(
    notebooks: str | Path, out: str | Path = "build/slides", only: str | Sequence[str] | None = None
) -> Iterator[Deck]:
    """Yields a Deck for each notebook of a folder, in the order of their names, as soon as its file is written.

    Nothing is executed: a deck shows the outputs that are stored in the notebook. `only` names the lessons. Raises
    AssetError where a notebook is not there, cannot be read, or was not executed, and where `out` cannot be written;
    ValueError where `out` is a file.
    """
    from .deck import to_deck

    reveal_folder()
    chosen = choose(Path(notebooks), only)
    place = gates.output_folder(out)
    for path in chosen:
        notebook = read(path)
        units = slides_of(notebook)
        if not units:
            raise gates.AssetError(
                f"{spelled(path)} has no slides: none of its cells has the slide type “slide” (in JupyterLab: "
                "View, Right Sidebar, Property Inspector)."
            )
        page = gates.write_result(place / f"{path.stem}.html", to_deck(units, path).encode())
        yield Deck(path.stem, sum(len(unit.pages) for unit in units), sum(unit.minutes for unit in units), page)


def read(path: Path) -> NotebookNode:
    """A notebook whose outputs can be shown. Raises AssetError where it cannot be read, or was not executed."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises whatever its parsers raise
        raise gates.AssetError(f"{spelled(path)} is not a notebook that can be read ({error}).") from error
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip() and not skipped(cell)]
    if any(cell.get("execution_count") is None for cell in cells):
        raise gates.AssetError(
            f"{spelled(path)} was not executed, or only in part, and slides show what its cells drew: "
            f"`mmlesson lessons --write-back --only {path.stem}` executes it."
        )
    return notebook


# ------------------------------------------------------------------------------------------------ cells


def settings(cell: NotebookNode) -> dict:
    """What a cell's metadata say of slides."""
    found = cell.metadata.get("slideshow", {})
    return found if isinstance(found, dict) else {}


def skipped(cell: NotebookNode) -> bool:
    return settings(cell).get("slide_type") in ("skip", "notes") or "solution" in cell.metadata.get("tags", [])


def slides_of(notebook: NotebookNode) -> list[Unit]:
    """The slides of a notebook, in order: the title first, then a unit for each cell that begins a slide."""
    units: list[Unit] = []
    headings: list[str] = []
    cover = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings += [piece.text for piece in prose.pieces(cell.source) if piece.kind == "heading"]
        for output in cell.get("outputs", []):
            embed_picture(output)
        if settings(cell).get("cover"):
            cover = pages.figure_of(cell)
        kind = settings(cell).get("slide_type")
        if skipped(cell):
            continue
        if kind in BEGINS:
            title = headings[-1] if headings else ""
            units.append(Unit(title, kind == "slide" or not units, settings(cell).get("notes") or {}))
        if units:
            units[-1].cells.append(cell)
    for number, unit in enumerate(units):
        unit.pages = _pages(unit)
        if number == 0:
            unit.pages = [Page("title", unit.title, figure=cover), *unit.pages]
    return [unit for unit in units if unit.pages]


def _pages(unit: Unit) -> list[Page]:
    title, waiting, made = unit.title, [], []
    for cell in unit.cells:
        if cell.cell_type == "markdown":
            pieces = prose.chosen(cell.source, settings(cell).get("keep"))
            for piece in pieces:
                if piece.kind == "heading":
                    title = piece.text
                else:
                    waiting.append(piece)
            continue
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        later = settings(cell).get("slide_type") == "fragment"
        if "exercise" in cell.metadata.get("tags", []):
            made += _exercise(waiting, cell)
        else:
            new = _computed(title, waiting, cell, later)
            if made and _is_short_output(new) and (joined := pages.with_output(made[-1], new[0].output, later)):
                made[-1] = joined
            else:
                made += new
        waiting = []
    return [*made, *pages.prose_pages(title, waiting)]


def _is_short_output(made: list[Page]) -> bool:
    """Whether all that a cell adds are a few printed lines, for which the page before may have room."""
    return len(made) == 1 and made[0].kind == "code" and not made[0].code and not made[0].lead and bool(made[0].output)


def _computed(title: str, lead: list, cell: NotebookNode, later: bool) -> list[Page]:
    figure, output = pages.figure_of(cell), pages.printed(cell)
    lines = code.shown(cell.source, settings(cell).get("code"), has_figure=figure is not None)
    if output == [WIDGET_SENTENCE]:
        live = prose.Piece("sentence", "**Live:** this is a widget. Open the lesson in JupyterLab and run this cell.")
        return pages.code_pages(title, [*lead, live], lines, ())
    if figure is None:
        return pages.code_pages(title, lead, lines, output, later=later)
    said = output if settings(cell).get("prints") else ()
    parts = rows.divided(figure, settings(cell).get("rows") or [])
    texts = _divided(lead, len(parts))
    first = pages.figure_pages(title, texts[0], parts[0], lines, () if parts[1:] else said, later)
    if lines and (len(lines) > 3 or pages.scale_of(first[-1]) < pages.LEGIBLE):  # the code on a page of its own
        before = pages.code_pages(title, [piece for piece in texts[0] if not piece.notice], lines, ())
        notices = [piece for piece in texts[0] if piece.notice]
        first = [*before, *pages.figure_pages(title, notices, parts[0], (), () if parts[1:] else said, later)]
    made = first
    for number, (text, part) in enumerate(zip(texts[1:], parts[1:], strict=True), 2):
        made += pages.figure_pages(title, text, part, (), said if number == len(parts) else (), later)
    return made


def _divided(lead: list, count: int) -> list[list]:
    """The text of a figure for each of its parts: all of it to the first one, what to notice to the others too."""
    notices = [piece for piece in lead if piece.notice]
    if len(notices) == count > 1:  # a part, and what to notice in it
        return [[piece for piece in lead if piece not in notices[1:]], *([notice] for notice in notices[1:])]
    return [lead, *([notices] * (count - 1))]


def _exercise(lead: list, cell: NotebookNode) -> list[Page]:
    title = "Exercise"
    pieces = []
    for piece in lead:
        if found := EXERCISE.match(piece.text):
            title = found[1].rstrip(".")
            piece = prose.Piece(piece.kind, EXERCISE.sub("", piece.text), piece.first)
        if piece.text:
            pieces.append(piece)
    stub = code.shown(cell.source, True, has_figure=False)
    return pages.code_pages(title, pieces, stub, (), kind="exercise")


def stale_choices(notebook: NotebookNode) -> list[str]:
    """In words, what the metadata choose and the cells no longer have: a sentence or a statement was rewritten."""
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            missing, what = prose.not_found(cell.source, settings(cell).get("keep")), "sentence"
        else:
            missing, what = code.beginnings_not_found(cell.source, settings(cell).get("code")), "statement"
            wanted, figure = settings(cell).get("rows") or [], pages.figure_of(cell)
            if wanted and (figure is None or len(rows.divided(figure, wanted)) != len(wanted)):
                found.append(f"cell {number} ({cell.get('id', '')}): its figure cannot be divided into rows {wanted}")
        found += [f"cell {number} ({cell.get('id', '')}): no {what} begins with {start!r}" for start in missing]
    return found
