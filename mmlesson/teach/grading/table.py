"""The table of a class: a row for each notebook, a column for each exercise, as a CSV that any spreadsheet opens."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmlesson.teach.exercises.checking import EXERCISES
from mmlesson.teach.grading import reading, running
from mmlesson.words import escaped

NOT_RUN = "not run"
HEAD = ("learner", "notebook", "lesson", "run", "right", "not yet", "open", "note")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # spreadsheets compute what begins with one


@dataclass(frozen=True)
class Row:
    """What is known of one notebook. `run` says where the verdicts come from: "run", "not run", or why it stopped."""

    learner: str
    notebook: str
    lesson: int | None  # None where it answers no exercise
    run: str
    states: dict[str, str] = field(default_factory=dict)  # number → "right", "not yet", "open" or "missing"
    note: str = ""


def grade(
    folder: str | Path, limits: running.Limits | None = None, run: bool = False, walled: bool = True
) -> Iterator[Row]:
    """Yields a Row for each notebook below a folder, in the order of their names.

    Without `run` nothing is executed: the verdicts are those of the stored outputs, which anybody can write by hand.
    With `run` each notebook runs in a fresh kernel, see `running.run`. Its learner is the folder below `folder` that it
    lies in, or its own name. Raises ValueError where there are no notebooks, AssetError where walls cannot be built.
    """
    folder = Path(folder)
    for path in reading.find(folder):
        parts = path.relative_to(folder).parts
        learner = parts[0] if len(parts) > 1 else path.stem
        yield _row(path, learner, "/".join(parts), limits or running.Limits(), run, walled)


def _row(path: Path, learner: str, name: str, limits: running.Limits, run: bool, walled: bool) -> Row:
    try:
        cells = reading.cells(path)
    except reading.Unreadable as why:
        return Row(learner, name, None, NOT_RUN, note=f"cannot be read: {why}")
    stored: dict[str, str] = {}
    for number, verdict in reading.stored(cells):
        stored[number] = running.better(stored.get(number), verdict)
    known = [number for number in stored if number in EXERCISES]
    if not known:
        return Row(learner, name, None, NOT_RUN, note="it answers no exercise of the course")
    lesson = max({_lesson(number) for number in known}, key=lambda each: sum(_lesson(n) == each for n in known))
    note = "it gives `check` another meaning" if reading.redefines_check(cells) else ""
    if not run:
        return Row(learner, name, lesson, NOT_RUN, _states(lesson, stored, stored), note)
    outcome = running.run(path, limits, walled)
    how = f"stopped: {outcome.stopped}" if outcome.stopped else "run"
    found = {number: outcome.verdicts.get(number, NOT_RUN) for number in known}
    return Row(learner, name, lesson, how, _states(lesson, stored, found), note)


def _lesson(number: str) -> int:
    return int(number.split(".")[0])


def _states(lesson: int, answered: Iterable[str], verdicts: dict[str, str]) -> dict[str, str]:
    own = sorted((n for n in EXERCISES if _lesson(n) == lesson), key=lambda n: [int(part) for part in n.split(".")])
    return {number: verdicts[number] if number in answered else "missing" for number in own}


# ------------------------------------------------------------------------------------------------ CSV


def as_csv(rows: Iterable[Row]) -> str:
    """The table as text. Nothing in it is a formula, and every row is one line."""
    rows = list(rows)
    columns = list(dict.fromkeys(number for row in sorted(rows, key=lambda r: r.lesson or 0) for number in row.states))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*HEAD, *columns])
    for row in rows:
        counts = [sum(state == each for state in row.states.values()) for each in ("right", "not yet", "open")]
        told = [row.learner, row.notebook, row.lesson or "", row.run, *counts, row.note]
        writer.writerow([_safe(each) for each in (*told, *(row.states.get(number, "") for number in columns))])
    return text.getvalue()


def _safe(value: object) -> object:
    """A cell that no spreadsheet computes, without control characters and half letters."""
    if not isinstance(value, str):
        return value
    text = escaped(value.encode(errors="replace").decode()).replace("\n", "\\n")
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
