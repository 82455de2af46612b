"""The presenter's copies of the lessons, and what is stored of their cells.

A presenter's copy has no solutions and no outputs, and each widget stands at the top of its section, below the words
that introduce it. The teacher may change it: then it stays, as a learner's own copy does.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates
from mmlesson.models import assets
from mmlesson.teach import own_copies
from mmlesson.teach.editions import SAYS
from mmlesson.teach.lessons import WIDGET_SENTENCE, as_file, tidy

if TYPE_CHECKING:
    from nbformat import NotebookNode

SECONDS = "cell_seconds.json"  # in the folder data/: how long each cell of a lesson took, and when that was
LEAST = 0.5  # seconds; what takes less is not kept
# A widget stands above those figures here, and it runs.
NO_WIDGETS = r"\(?(?:The\s[\w\s]*\sabove\sshows?\s[\w\s]*\swhere|Where)\s+widgets\s+do\s+not\s+run(?:,[^.]*)?\.\)?"
HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)


def make(notebooks: Path, scratch: Path, folder: Path, fresh: bool) -> Iterator[str]:
    """Write the copies of the lessons in `notebooks` to `folder`; yields a sentence for each that it writes.

    `scratch` is for the editions that they are copied from. A copy of which only the outputs are others, because
    somebody ran it, starts clean again. One whose cells the teacher changed stays; see own_copies.py.
    """
    import nbformat

    (scratch / own_copies.RECORD).unlink(missing_ok=True)
    for old in scratch.glob("*.ipynb"):
        old.unlink()
    for path in sorted(notebooks.glob("*.ipynb")):
        edition = presented(nbformat.read(path, as_version=4))
        gates.write_atomically(scratch / path.name, as_file(edition))
    for path in sorted(folder.glob("*.ipynb")):
        try:
            run = as_file(_without_outputs(nbformat.read(path, as_version=4)))
        except Exception:  # whatever is no notebook any more stays as it is
            continue
        if run != path.read_bytes() and own_copies.is_the_copied(path, run):
            gates.write_atomically(path, run)
    yield from own_copies.own_copies(scratch, folder, fresh)


def presented(lesson: NotebookNode) -> NotebookNode:
    """The presenter's edition of a lesson, which stays as it is."""
    edition = copy.deepcopy(lesson)
    edition.cells = [cell for cell in edition.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in edition.cells:
        if cell.cell_type == "markdown":
            for pattern in [*(pattern for pattern, _ in SAYS), NO_WIDGETS]:
                cell.source = re.sub(r"\s*" + pattern, "", cell.source)
    edition.cells = widgets_first(edition.cells)
    return _without_outputs(edition)


def widgets_first(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells with each widget, and the words before it, right below the cell that begins its section."""
    ordered: list[NotebookNode] = []
    top = 0  # where the widgets of this section go
    for cell in cells:
        if cell.cell_type == "markdown" and HEADING.match(cell.source):
            ordered.append(cell)
            top = len(ordered)
        elif not is_widget(cell):
            ordered.append(cell)
        else:
            words = []
            if len(ordered) > top and ordered[-1].cell_type == "markdown":
                words = [ordered.pop()]
            ordered[top:top] = [*words, cell]
            top += len(words) + 1
    return ordered


def is_widget(cell: NotebookNode) -> bool:
    """Whether a cell shows a widget: it is tagged as one, or the sentence that stands for one is its stored output."""
    outputs = cell.get("outputs", [])
    shown = any(output.get("data", {}).get("text/plain") == WIDGET_SENTENCE for output in outputs)
    return cell.cell_type == "code" and (shown or "widget" in cell.metadata.get("tags", []))


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    tidy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


# ------------------------------------------------------------------------------------------ what is stored


def stored(notebooks: Path) -> list[dict]:
    """The code cells of the lessons with their outputs and seconds, as `replay.read` takes them."""
    import nbformat

    times = seconds()
    cells = []
    for path in sorted(notebooks.glob("*.ipynb")):
        lesson = nbformat.read(path, as_version=4)
        known = times.get(path.stem, {"date": "", "seconds": {}})
        for cell in lesson.cells:
            if cell.cell_type == "code":
                cells.append(_stored(cell, path.stem, known))
    return cells


def _stored(cell: NotebookNode, lesson: str, known: dict) -> dict:
    must_run = is_widget(cell) or any(output.output_type == "error" for output in cell.outputs)
    return {
        "id": cell.id,
        "lesson": lesson,
        "source": cell.source,
        "outputs": cell.outputs,
        "seconds": known["seconds"].get(cell.id, 0.0),
        "date": known["date"],
        "must_run": must_run,
    }


def seconds() -> dict[str, dict]:
    """What `keep_seconds` kept: the name of a lesson → {"date": …, "seconds": {id of a cell: seconds}}."""
    try:
        return json.loads((assets.data_dir() / SECONDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def keep_seconds(notebook: Path, cell_seconds: Mapping[int, float], date: str) -> None:
    """Keep how long the cells took that were just written back to `notebook`, by the number of In [n]."""
    import nbformat

    lesson = nbformat.read(notebook, as_version=4)
    ids = [cell.id for cell in lesson.cells if cell.cell_type == "code" and cell.source.strip()]
    took = {ids[number - 1]: round(took, 1) for number, took in cell_seconds.items() if took >= LEAST}
    kept = {**seconds(), notebook.stem: {"date": date, "seconds": took}}
    text = json.dumps(dict(sorted(kept.items())), indent=1) + "\n"
    gates.write_atomically(assets.data_dir() / SECONDS, text.encode())
