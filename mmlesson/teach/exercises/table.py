"""`progress()`: which exercises are right, which were tried, and which are open, as a table."""

from __future__ import annotations

import html
from dataclasses import dataclass

from mmlesson import gates
from mmlesson.teach import record
from mmlesson.teach.exercises.checking import EXERCISES
from mmlesson.teach.record import Entry

SIGNS = {"right": "✓", "not yet": "…", "open": "○"}  # beside the words: nothing is told by a sign or a colour alone
CELL = "padding: 2px 14px 2px 2px; text-align: left; vertical-align: top;"


@dataclass(frozen=True)
class Progress:
    """A table that a notebook shows as HTML and a terminal as text. `states` is for programs."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    states: dict[str, str]  # number of each exercise → "right", "not yet" or "open"
    problem: str = ""  # a sentence, where the file could not be read

    def __repr__(self) -> str:
        widths = [max(len(row[column]) for row in (self.head, *self.rows)) for column in range(len(self.head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in
                 (self.head, *self.rows)]  # fmt: skip
        return "\n".join([self.title, *([self.problem] if self.problem else []), "", *lines])

    def _repr_html_(self) -> str:
        def cells(kind: str, row: tuple[str, ...], scope: str) -> str:
            first = f'<th scope="{scope}" style="{CELL}">{html.escape(row[0])}</th>'
            rest = (f'<{kind} style="{CELL}">{html.escape(cell)}</{kind}>' for cell in row[1:])
            return f"<tr>{first}{''.join(rest)}</tr>"

        problem = f"<p>{html.escape(self.problem)}</p>" if self.problem else ""
        caption = f'<caption style="text-align: left; padding: 4px 2px;">{html.escape(self.title)}</caption>'
        body = "".join(cells("td", row, "row") for row in self.rows)
        head = cells('th scope="col"', self.head, "col").replace('</th scope="col">', "</th>")
        return f"{problem}<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"


def progress(lesson: int | None = None) -> Progress:
    """How far a learner is, from their own file on this machine: all lessons, or one with each of its exercises.

    It reads what `check` noted for this user and this folder of notebooks. An exercise is "right" once one answer was;
    "not yet" if answers were checked and none was right; else "open". Raises ValueError where there is no such lesson.
    """
    lessons = sorted({_lesson_of(number) for number in EXERCISES})
    if lesson is not None and gates.whole_number("lesson", lesson) not in lessons:
        raise ValueError(f"There is no lesson {lesson}; there are {', '.join(map(str, lessons))}.")
    return table(lesson, *_noted())


def table(lesson: int | None, noted: dict[str, Entry], problem: str = "") -> Progress:
    """The table of one lesson, or of all, from what is noted of the exercises."""
    lessons = sorted({_lesson_of(number) for number in EXERCISES})
    numbers = sorted((n for n in EXERCISES if lesson in (None, _lesson_of(n))), key=_in_order)
    states = {number: noted[number].state if number in noted else "open" for number in numbers}
    title = f"{_count(states, 'right')} of {len(numbers)} exercises are right, {_count(states, 'not yet')} not yet, "
    title += f"{_count(states, 'open')} open."
    if lesson is not None:
        rows = tuple(_row(number, states[number], noted.get(number)) for number in numbers)
        return Progress(f"Lesson {lesson}: {title}", ("exercise", "state", "tries", "last try"), rows, states, problem)
    head = ("lesson", "right", "not yet", "open", "still to do")
    return Progress(title, head, tuple(_summary(each, states) for each in lessons), states, problem)


def _noted() -> tuple[dict[str, Entry], str]:
    try:
        if record.path_of() is None:
            return {}, f"Nothing is kept, because {record.ENVIRONMENT} is off."
        return record.read(), ""
    except gates.AssetError as error:
        return {}, str(error)


def _lesson_of(number: str) -> int:
    return int(number.split(".")[0])


def _in_order(number: str) -> tuple[int, ...]:
    return tuple(map(int, number.split(".")))


def _count(states: dict[str, str], state: str) -> int:
    return sum(each == state for each in states.values())


def _row(number: str, state: str, entry: Entry | None) -> tuple[str, ...]:
    return number, f"{SIGNS[state]} {state}", str(entry.tries) if entry else "", entry.last if entry else ""


def _summary(lesson: int, states: dict[str, str]) -> tuple[str, ...]:
    own = {number: state for number, state in states.items() if _lesson_of(number) == lesson}
    to_do = ", ".join(number for number, state in own.items() if state != "right") or "nothing"
    return (str(lesson), *(str(_count(own, state)) for state in SIGNS), to_do)
