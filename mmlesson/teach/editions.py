"""`mmlesson student`: two editions of the lessons from one source, the notebooks themselves.

The learner's edition has no solutions. Where one was folded, a sentence stands; where an exercise is, the stub of the
lesson, with which "Run All" reaches the end. The teacher's edition has each solution as a cell that runs, below the
stub. Both end with `progress`, which tells which exercises are open. Everything else is the lesson's, with its outputs.

A lesson says what it needs for that by tags alone: `exercise` on the cell with the stub, `solution` on the folded cell.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates
from mmlesson.teach.lessons import as_file, choose

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDED = re.compile(r"<details><summary>(.*)</summary>\n\n```python\n(.*)\n```\n\n</details>", re.DOTALL)
NUMBER = re.compile(r"[Ss]olution of exercise (\d+\.\d+)")
# What the lessons say of their solutions, and what the learner's edition says instead.
SAYS = (
    (
        r"Each\s+has\s+a\s+solution\s+folded\s+below\s+it\.",
        "Wrong answers get two hints; your teacher has the solutions.",
    ),
    (
        r"There\s+is\s+a\s+solution\s+below\s+each,\s+but\s+yours\s+may\s+be\s+better\.",
        "Your teacher has one solution of each.",
    ),
)


def write(notebooks: Path, out: Path) -> Iterator[Path]:
    """Yields each notebook as soon as it is written: out/student/….ipynb and out/teacher/….ipynb for each lesson.

    Raises AssetError where there are no lessons, or where a lesson marks its exercises in another way.
    """
    import nbformat

    for path in choose(notebooks, None):
        lesson = nbformat.read(path, as_version=4)
        for name, edition in (("student", student), ("teacher", teacher)):
            yield gates.write_atomically(out / name / path.name, as_file(edition(lesson)))


def student(lesson: NotebookNode) -> NotebookNode:
    """The learner's edition of a lesson, which stays as it is."""
    edition = copy.deepcopy(lesson)
    for cell in edition.cells:
        if "solution" in _tags(cell):
            number, _ = _solution(cell)
            cell.source = (
                f"*The solution of exercise {number} is in the teacher's edition. `check` gives a hint with the first "
                "wrong answer, and another hint with the second.*"
            )
        elif cell.cell_type == "markdown":
            for pattern, instead in SAYS:
                cell.source = re.sub(pattern, instead, cell.source)
    return _ended(edition, executed=True)


def teacher(lesson: NotebookNode) -> NotebookNode:
    """The teacher's edition of a lesson, which stays as it is. Each solution is a cell that runs, not yet executed."""
    from nbformat.v4 import new_code_cell

    edition = copy.deepcopy(lesson)
    for place, cell in enumerate(edition.cells):
        if "solution" in _tags(cell):
            number, source = _solution(cell)
            edition.cells[place] = new_code_cell(
                f"# Solution of exercise {number}\n{source}", id=cell.id, metadata=copy.deepcopy(cell.metadata)
            )
    return _ended(edition)


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _solution(cell: NotebookNode) -> tuple[str, str]:
    """The number of the exercise and the source in a folded solution."""
    found = FOLDED.fullmatch(cell.source.strip())
    number = found and NUMBER.search(found[1])
    if not number:
        raise gates.AssetError(f"The cell {cell.id} is tagged `solution`, and is no folded Python of one exercise.")
    return number[1], found[2]


def _ended(edition: NotebookNode, executed: bool = False) -> NotebookNode:
    """With the last cells: which exercises are open. `executed`: as somebody sees it who has tried none."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

    from mmlesson.teach.exercises.table import table

    lesson = next(_lesson_of(cell) for cell in edition.cells if "exercise" in _tags(cell))
    skipped = {"slideshow": {"slide_type": "skip"}}
    heading = "## Which exercises are open?\n\nThe table shows your own answers. It stays on this machine."
    last = new_code_cell(f"from mmlesson import progress\n\nprogress({lesson})", id="progress", metadata=skipped)
    if executed:
        count = 1 + max(cell.execution_count or 0 for cell in edition.cells if cell.cell_type == "code")
        all_open = table(lesson, {})
        shown = {"text/html": all_open._repr_html_(), "text/plain": repr(all_open)}
        last.execution_count, last.outputs = count, [new_output("execute_result", data=shown, execution_count=count)]
    edition.cells += [new_markdown_cell(heading, id="progress-heading", metadata=skipped), last]
    return edition


def _lesson_of(cell: NotebookNode) -> int:
    return int(re.search(r'check\("(\d+)\.', cell.source)[1])
