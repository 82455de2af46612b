"""From the cells of a notebook to pages: what stands on each slide, with room for all of it.

A page is 1280 × 720 pixels. Heights are computed from the widths of the letters, with some room to spare.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .fonts import CODE_LETTER, lines_needed
from .prose import Piece

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDTH, HEIGHT = 1152, 544  # of what is below the title
TITLE_SIZE, TITLE_LINE = 44, 52
SIZES = (44, 40, 36, 32, 30, 28)  # of prose, the first that fits with some air
AIR = 0.86  # of the height, for large letters
CAPTION, CODE = 28, 24  # sizes of letters, in pixels
LEADS = (36, 32, 28, 26)  # of text above code, the first that fits
CODES = (32, 28, 26, 24)  # of code, the first in which no line breaks
CODE_LINE, TEXT_LINE = 1.34, 1.36  # heights of lines, in parts of their letters'
GAP, WIDE_GAP = 18, 24  # pixels between blocks, and between paragraphs in large letters
BOX = 36  # the padding of a box of code, above and below together
SIDE = 380  # the width of a caption beside its figure
MOST_PIECES = 8
SHORT = 260  # pixels: a page of prose that is less full is better spared
MOST_OUTPUT = 12  # lines
LARGEST_SCALE, TINY = 2.4, 128  # of pictures; tiny ones (pixels) may grow more
LEGIBLE = 0.85  # of a figure's own size: below it the words in it get too small


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
    code_size: int = CODE  # of the letters of `code` and `output`


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


def height_of(pieces: Iterable[Piece], size: int, width: int = WIDTH, gap: int = GAP) -> float:
    """Of text in letters of `size` pixels."""
    total = 0.0
    for piece in pieces:
        if piece.kind == "table":
            total += table_height(piece.text, table_size(piece.text)) + gap
        elif piece.kind == "formula":
            total += 110 + gap
        else:
            indent = 34 if piece.kind == "item" else 22 if piece.notice else 0
            total += lines_needed(_spoken(piece.text), size, width - indent) * size * TEXT_LINE + gap
    return max(0.0, total - gap)


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


def letters(size: int) -> int:
    """How many letters a line of code holds."""
    return int((WIDTH - 56) / (size * CODE_LETTER))


def code_height(lines: Sequence[str], size: int = CODE) -> float:
    return visual_lines(lines, size) * round(size * CODE_LINE) + BOX if lines else 0


def visual_lines(lines: Iterable[str], size: int = CODE) -> int:
    return sum(max(1, -(-(len(line) + 4) // letters(size)) if len(line) > letters(size) else 1) for line in lines)


def _spoken(text: str) -> str:
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "").replace("`", "ii")


# ------------------------------------------------------------------------------------------------- pages


def prose_pages(title: str, pieces: Sequence[Piece]) -> list[Page]:
    """As few pages as hold the text in large letters; a list stays together where it can."""
    pieces = [
        replace(piece, text=fitting_table(piece.text)) if piece.kind == "table" else piece
        for piece in pieces
        if piece.kind != "heading"
    ]
    if not pieces:
        return []
    room = HEIGHT - extra_title(title)
    if len(pieces) == 1 and height_of(pieces, 56) < 0.6 * room and pieces[0].kind == "sentence":
        return [Page("prose", title, pieces, 56)]
    for count in range(1, len(pieces) + 1):
        groups = _divided(pieces, count, room)
        if groups:
            size = min(_size_for(group, room) for group in groups)
            return [Page("prose", title, group, size) for group in groups]
    return [Page("prose", title, [piece], SIZES[-1]) for piece in pieces]


def gap_for(size: int) -> int:
    """The pixels between paragraphs that stand alone on a page."""
    return WIDE_GAP if size > 30 else GAP


def _size_for(pieces: Sequence[Piece], room: float) -> int:
    return next((size for size in SIZES if height_of(pieces, size, gap=gap_for(size)) <= AIR * room), SIZES[-1])


def _divided(pieces: Sequence[Piece], count: int, room: float) -> list[Sequence[Piece]] | None:
    """Pieces in `count` groups of about equal height, no list broken if that can be; None where they do not fit."""
    best, found = None, None
    size = SIZES[-1] if count == 1 else SIZES[-3]
    for cuts in itertools.combinations(range(1, len(pieces)), count - 1):
        edges = [0, *cuts, len(pieces)]
        groups = [pieces[start:end] for start, end in itertools.pairwise(edges)]
        heights = [height_of(group, size, gap=gap_for(size)) for group in groups]
        if max(heights) > room or max(map(len, groups)) > MOST_PIECES:
            continue
        broken = sum(pieces[cut].kind == "item" and pieces[cut - 1].kind == "item" for cut in cuts)
        cost = max(heights) + 150 * broken
        if best is None or cost < best:
            best, found = cost, groups
    return found


def figure_pages(
    title: str, lead: Sequence[Piece], figure: Figure, code: Sequence[str], output: Sequence[str], later: bool
) -> list[Page]:
    """The figure as large as it can be, its caption above or beside it; text for which there is no room goes before."""
    notices = [piece for piece in lead if piece.notice]
    best, best_worth = None, 0.0
    for caption in (list(lead), notices, notices[:1], []):
        before = [piece for piece in lead if piece not in caption]
        short = before and height_of(before, CAPTION) < SHORT
        for page in _placed(title, caption, figure, code, output, later):
            worth = page.shown[0] * (0.7 if short else 0.9 if before else 1)
            worth *= 0.6 if any(piece.notice for piece in before) else 1  # it says what to look at
            worth *= min(1, scale_of(page) / LEGIBLE)
            if worth > best_worth:
                best, best_worth = page, worth
    if best is None:  # no room beside the code
        return [*code_pages(title, lead, code, output), *figure_pages(title, notices, figure, (), (), later)]
    return [*prose_pages(title, [piece for piece in lead if piece not in best.lead]), best]


def _placed(
    title: str, caption: Sequence[Piece], figure: Figure, code: Sequence[str], output: Sequence[str], later: bool
) -> Iterator[Page]:
    """The ways to place a figure: below its caption, or beside it."""
    room = HEIGHT - extra_title(title)
    output = cut_output(output)
    page = Page("figure", title, caption, CAPTION, code, output, figure, later=later)
    boxes = sum(code_height(lines) + GAP for lines in (code, output) if lines)
    size = figure.size or (WIDTH, 400)
    found = False
    for letter in LEADS:  # larger letters where the figure is no smaller for them, the smallest where no others fit
        above = height_of(caption, letter) + (GAP if caption else 0) + boxes
        if room - above >= 240 and not (found and letter < CAPTION):
            found = True
            yield replace(page, size=letter, shown=scaled(size, WIDTH, room - above))
    if caption and not boxes:
        for letter in (32, CAPTION, 26):
            if height_of(caption, letter, SIDE) <= room:
                yield replace(page, size=letter, shown=scaled(size, WIDTH - SIDE - 40, room), beside=True)
                break


def with_output(page: Page, output: Sequence[str], later: bool) -> Page | None:
    """A page with a figure, and below it what the next cell printed; None where that has no room."""
    size = page.figure.size if page.figure else None
    if page.kind != "figure" or page.output or page.beside or size is None:
        return None
    for letter in (page.size, CAPTION, LEADS[-1]):
        heights = [height_of(page.lead, letter), code_height(page.code), code_height(output)]
        left = HEIGHT - extra_title(page.title) - sum(height + GAP for height in heights if height)
        if left >= 260:
            return replace(page, size=letter, output=output, shown=scaled(size, WIDTH, left), later=later)
    return None


def scaled(size: tuple[int, int], width: float, height: float) -> tuple[int, int]:
    most = LARGEST_SCALE if max(size) > TINY else 5
    scale = min(most, width / size[0], height / size[1])
    return int(size[0] * scale), int(size[1] * scale)


def scale_of(page: Page) -> float:
    """How large the figure of a page is shown, in parts of its own size; 1 where it has no words or is many."""
    size = page.figure.size if page.figure else None
    return 1.0 if size is None or max(size) <= TINY else page.shown[0] / size[0]


def code_pages(
    title: str,
    lead: Sequence[Piece],
    code: Sequence[str],
    output: Sequence[str],
    kind: str = "code",
    later: bool = False,
) -> list[Page]:
    """Code with what it prints, and above it the text for which there is room."""
    room = HEIGHT - extra_title(title)
    output = cut_output(output)
    if not code and not output:
        return prose_pages(title, lead)
    notices = [piece for piece in lead if piece.notice]
    for text in (list(lead), notices, []):
        before = [piece for piece in lead if piece not in text]
        for size, code_size in itertools.product(LEADS, CODES):
            breaks = any(len(line) > letters(code_size) for line in (*code, *output))
            if code_size > min(size, 30 if text else 32) or (breaks and code_size > CODE):
                continue
            boxes = [code_height(lines, code_size) for lines in (code, output) if lines]
            heights = [height_of(text, size), *boxes] if text else boxes
            if sum(heights) + GAP * (len(heights) - 1) <= room * (AIR if size > CAPTION else 1):
                page = Page(kind, title, text, size, code, output, later=later, code_size=code_size)
                return [*prose_pages(title, before), page]
    first = Page(kind, title, (), CAPTION, code, ())
    rest = [piece for piece in lead if not piece.notice]
    return [*prose_pages(title, rest), first, *code_pages(title, notices, (), output)]


def cut_output(lines: Sequence[str]) -> list[str]:
    """At most MOST_OUTPUT lines; the last one says how many are left out."""
    wrapped = []
    for line in lines:
        parts = textwrap.wrap(
            line, letters(CODE) - 1, subsequent_indent="    ", drop_whitespace=False, replace_whitespace=False
        )
        wrapped += parts or [""]
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
            images = re.findall(r"<img[^>]*?\ssrc=\"data:image/[\w+]+;base64,([A-Za-z0-9+/=]+)", text)
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
