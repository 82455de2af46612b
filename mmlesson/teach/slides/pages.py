"""From the cells of a notebook to pages: what stands on each slide, with room for all of it.

A page is 1280 × 720 pixels. Heights are computed from the widths of the letters, with some room to spare.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .fonts import CODE_LETTER, lines_needed
from .prose import Piece

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDTH, HEIGHT = 1152, 544  # of what is below the title
TITLE_SIZE, TITLE_LINE = 44, 52
SIZES = (36, 32, 28)  # of prose, the first that fits
CAPTION, CODE = 28, 24  # sizes of letters, in pixels
CODE_LINE, TEXT_LINE, GAP = 32, 1.36, 18
BOX = 36  # the padding of a box of code, above and below together
LETTERS = int((WIDTH - 56) / (CODE * CODE_LETTER))  # in a line of code
SIDE = 400  # the width of a caption beside its figure
MOST_PIECES = 6
MOST_OUTPUT = 12  # lines
LARGEST_SCALE, TINY = 2.4, 128  # of pictures; tiny ones (pixels) may grow more


@dataclass(frozen=True)
class Figure:
    """What a cell drew: `html`, and the size of a single picture in pixels (None where it is many)."""

    html: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Page:
    """One slide. `kind` is "title", "prose", "figure", "code" or "exercise"; `lead` is the text, as markdown pieces."""

    kind: str
    title: str
    lead: Sequence[Piece] = ()
    size: int = CAPTION  # of the letters of `lead`
    code: Sequence[str] = ()
    output: Sequence[str] = ()
    figure: Figure | None = None
    shown: tuple[int, int] = (0, 0)  # the figure's width and height on the page
    beside: bool = False  # the text stands beside the figure, and not above it
    later: bool = False  # what was computed appears on a key press


@dataclass
class Unit:
    """A cell that begins a slide and those that go on with it: one thought, on one page or several."""

    title: str
    top: bool  # begins a column of the overview
    notes: dict
    cells: list[NotebookNode] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        return self.notes.get("minutes", 0)


# ------------------------------------------------------------------------------------------------ heights


def height_of(pieces: Iterable[Piece], size: int, width: int = WIDTH) -> float:
    total = 0.0
    for piece in pieces:
        if piece.kind == "table":
            total += table_height(piece.text, table_size(piece.text)) + GAP
        elif piece.kind == "formula":
            total += 110 + GAP
        else:
            indent = 34 if piece.kind == "item" else 22 if piece.notice else 0
            total += lines_needed(_spoken(piece.text), size, width - indent) * size * TEXT_LINE + GAP
    return max(0.0, total - GAP)


def table_columns(text: str, width: float = WIDTH) -> list[float]:
    """The widths of a table's columns: by their longest cells, none too narrow for a word."""
    rows = _rows(text)
    longest = [min(40, max(len(row[i]) for row in rows)) + 3 for i in range(len(rows[0]))]
    return [width * length / sum(longest) for length in longest]


def table_size(text: str) -> int:
    """The size of a table's letters: those of a caption where it fits in them."""
    return next((size for size in (CAPTION, 26, CODE) if table_height(text, size) <= HEIGHT), CODE)


def table_height(text: str, size: int) -> float:
    widths = table_columns(text)
    lines = [
        max(lines_needed(_spoken(cell), size, room - 34) for cell, room in zip(row, widths, strict=True))
        for row in _rows(text)
    ]
    return sum(count * size * 1.3 + 17 for count in lines) + 2


def fitting_table(text: str) -> str:
    """The table without the rows for which a slide has no room; a last row says how many these are."""
    head, rule, *rows = text.splitlines()
    for kept in range(len(rows), 0, -1):
        left = [f"| … {len(rows) - kept} more rows {'| ' * (len(_rows(text)[0]) - 1)}|"] if kept < len(rows) else []
        shorter = "\n".join([head, rule, *rows[:kept], *left])
        if table_height(shorter, table_size(shorter)) <= HEIGHT:
            break
    return shorter


def _rows(text: str) -> list[list[str]]:
    head, _, *rows = text.splitlines()
    columns = head.strip().strip("|").count("|") + 1
    cells = [
        [cell.strip() for cell in row.strip().removeprefix("|").removesuffix("|").split("|")] for row in (head, *rows)
    ]
    return [(row + [""] * columns)[:columns] for row in cells]


def code_height(lines: Sequence[str]) -> float:
    return visual_lines(lines) * CODE_LINE + BOX if lines else 0


def visual_lines(lines: Iterable[str]) -> int:
    return sum(max(1, -(-len(line) // LETTERS)) for line in lines)


def _spoken(text: str) -> str:
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "").replace("`", "ii")


# ------------------------------------------------------------------------------------------------- pages


def prose_pages(title: str, pieces: Sequence[Piece]) -> list[Page]:
    """As few pages as hold the text in large letters, each about equally full."""
    pieces = [
        replace(piece, text=fitting_table(piece.text)) if piece.kind == "table" else piece
        for piece in pieces
        if piece.kind != "heading"
    ]
    if not pieces:
        return []
    room = HEIGHT - extra_title(title)
    for size in SIZES:
        if len(pieces) <= MOST_PIECES and height_of(pieces, size) <= room:
            return [Page("prose", title, pieces, size)]
    size = SIZES[1]
    for count in range(2, len(pieces) + 1):
        groups = _in_order(pieces, count, size)
        if all(len(group) <= MOST_PIECES and height_of(group, size) <= room for group in groups):
            return [Page("prose", title, group, size) for group in groups]
    return [Page("prose", title, [piece], SIZES[-1]) for piece in pieces]


def _in_order(pieces: Sequence[Piece], count: int, size: int) -> list[list[Piece]]:
    """Pieces in `count` groups of about equal height."""
    aim = height_of(pieces, size) / count
    groups: list[list[Piece]] = [[]]
    for number, piece in enumerate(pieces):
        full = height_of(groups[-1], size) + height_of([piece], size) / 2 > aim
        left = len(pieces) - number
        if groups[-1] and len(groups) < count and (full or left <= count - len(groups)):
            groups.append([])
        groups[-1].append(piece)
    return groups


def figure_pages(title: str, lead: Sequence[Piece], figure: Figure, code: Sequence[str], later: bool) -> list[Page]:
    """The figure as large as it can be, its caption above or beside it; text for which there is no room goes before."""
    notices = [piece for piece in lead if piece.notice]
    best = None
    for caption in (list(lead), notices, notices[:1], []):
        for strip in [code] if code else [()]:
            placed = _placed(title, caption, figure, strip, later)
            if placed and (best is None or placed.shown[0] > 1.25 * best.shown[0]):
                best = placed
        if best and (best.shown[1] >= 300 or best.shown[0] >= 900):
            break
    if best is None:  # no room beside the code
        return [*code_pages(title, lead, code, ()), *figure_pages(title, notices, figure, (), later)]
    before = [piece for piece in lead if piece not in best.lead]
    return [*prose_pages(title, before), best]


def _placed(title: str, caption: Sequence[Piece], figure: Figure, code: Sequence[str], later: bool) -> Page | None:
    room = HEIGHT - extra_title(title)
    above = height_of(caption, CAPTION) + (GAP if caption else 0) + code_height(code) + (GAP if code else 0)
    size = figure.size or (WIDTH, 400)
    page = Page("figure", title, caption, CAPTION, code, (), figure, later=later)
    placed = []
    if room - above >= 240:
        placed.append(replace(page, shown=scaled(size, WIDTH, room - above)))
    if caption and not code and height_of(caption, CAPTION, SIDE) <= room:
        placed.append(replace(page, shown=scaled(size, WIDTH - SIDE - 40, room), beside=True))
    return max(placed, key=lambda each: each.shown[0], default=None)


def scaled(size: tuple[int, int], width: float, height: float) -> tuple[int, int]:
    most = LARGEST_SCALE if max(size) > TINY else 5
    scale = min(most, width / size[0], height / size[1])
    return int(size[0] * scale), int(size[1] * scale)


def code_pages(
    title: str, lead: Sequence[Piece], code: Sequence[str], output: Sequence[str], kind: str = "code", later=False
) -> list[Page]:
    """Code with what it prints, and above it the text for which there is room."""
    room = HEIGHT - extra_title(title)
    output = cut_output(output)
    below = code_height(code) + (GAP if code and output else 0) + code_height(output)
    notices = [piece for piece in lead if piece.notice]
    for text in (list(lead), notices, []):
        if height_of(text, CAPTION) + (GAP if text else 0) + below <= room:
            before = [piece for piece in lead if piece not in text]
            page = Page(kind, title, text, CAPTION, code, output, later=later)
            return [*prose_pages(title, before), page]
    first = Page(kind, title, (), CAPTION, code, ())
    return [
        *prose_pages(title, [piece for piece in lead if not piece.notice]),
        first,
        *code_pages(title, notices, (), output),
    ]


def cut_output(lines: Sequence[str]) -> list[str]:
    """At most MOST_OUTPUT lines; the last one says how many are left out."""
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(
            line, LETTERS - 2, subsequent_indent="    ", drop_whitespace=False, replace_whitespace=False
        )
        or [""]
    ]
    if len(wrapped) <= MOST_OUTPUT:
        return wrapped
    return [*wrapped[: MOST_OUTPUT - 1], f"… and {len(wrapped) - MOST_OUTPUT + 1} more lines"]


def extra_title(title: str) -> int:
    return TITLE_LINE * (lines_needed(_spoken(title), TITLE_SIZE, WIDTH) - 1)


# ----------------------------------------------------------------------------------------------- outputs


def figure_of(cell: NotebookNode) -> Figure | None:
    """The last picture among a cell's outputs."""
    for output in reversed(cell.get("outputs", [])):
        text = output.get("data", {}).get("text/html", "")
        if "<img" in text:
            images = re.findall(r"data:image/[\w+]+;base64,([A-Za-z0-9+/=]+)", text)
            return Figure(text, _size(images[0]) if len(images) == 1 else None)
    return None


def _size(encoded: str) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            return image.size
    except OSError:
        return None


def printed(cell: NotebookNode) -> list[str]:
    """The lines that a cell printed, and the text of a result that is no picture."""
    lines: list[str] = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream" and output.get("name") == "stdout":
            lines += output.text.rstrip("\n").splitlines()
        elif "data" in output and "<img" not in output.data.get("text/html", ""):
            lines += output.data.get("text/plain", "").rstrip("\n").splitlines()
    return lines
