"""`quiz(1)`: the questions at a lesson's end, with a sentence of feedback behind each answer.

A quiz is plain HTML: each answer is a <details>, which opens to its feedback. So it works where a notebook is shown: in
JupyterLab with a kernel or without one, trusted or not, in a page, on GitHub. Browsers bring the keyboard (Tab, Enter,
Space), and screen readers say "collapsed" and "expanded" and read the feedback next.

jupyterquiz (2.9.6, looked at in November 2026) was the alternative. It is a script that fills an empty box, so that a
page without scripts and an untrusted notebook show nothing, and its answers have no role and no state that a screen
reader could name. A widget of ipywidgets needs a kernel; a page would show one sentence in its place.

The questions lie in data/quiz/, a file for each lesson. Each names the cell that it is about, words which that cell
holds, and the section to read again; a test compares all three with the notebook.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path

from mmlesson import gates
from mmlesson.models import assets

FOLDER = "quiz"  # in data/
LETTERS = "ABCDEF"
HOW = "Open an answer to see whether it is right, and why: click on it, or go to it with Tab and press Enter."
# Inline styles, because JupyterLab removes style sheets from notebooks that it does not trust.
BOX = "max-width: 46em; line-height: 1.5;"
ANSWER = "border: 1px solid #8a93a3; border-radius: 4px; margin: 6px 0; padding: 0;"
SUMMARY = "padding: 6px 12px; cursor: pointer;"
FEEDBACK = "margin: 0; padding: 6px 12px 10px 32px; border-top: 1px solid #8a93a3;"


@dataclass(frozen=True)
class Answer:
    """One of the answers that a reader can choose, and what is said of it."""

    answer: str
    right: bool
    feedback: str  # one or two sentences

    @property
    def verdict(self) -> str:
        return "✓ Right." if self.right else "✗ No."


@dataclass(frozen=True)
class Question:
    """A question with its answers, of which one is right."""

    question: str
    cell: str  # the id of the cell that it is about
    holds: str  # words in the source or in an output of that cell
    section: str  # the heading that this cell stands under
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Quiz:
    """The questions of a lesson, shown as HTML in a notebook, and as text with the right letters in a terminal."""

    lesson: int
    questions: tuple[Question, ...]

    def _repr_html_(self) -> str:
        return (
            f'<div style="{BOX}" role="group" aria-label="Quiz of lesson {self.lesson}"><p>{HOW}</p>'
            f"<ol>{''.join(map(_shown, self.questions))}</ol></div>"
        )

    def __repr__(self) -> str:
        lines, right = [], []
        for place, question in enumerate(self.questions, 1):
            lines += ["", f"{place}. {question.question}"]
            for letter, answer in zip(LETTERS, question.answers, strict=False):
                lines.append(f"   {letter}  {answer.answer}")
                right += [f"{place} {letter}"] if answer.right else []
        return "\n".join([f"Quiz of lesson {self.lesson}", *lines, "", f"Right: {', '.join(right)}."])


def _shown(question: Question) -> str:
    answers = "".join(
        f'<details style="{ANSWER}"><summary style="{SUMMARY}">{html.escape(each.answer)}</summary>'
        f'<p style="{FEEDBACK}"><strong>{each.verdict}</strong> {html.escape(each.feedback)}'
        f"{'' if each.right else _read_again(question)}</p></details>"
        for each in question.answers
    )
    return f'<li style="margin: 0 0 18px 0;"><p><strong>{html.escape(question.question)}</strong></p>{answers}</li>'


def _read_again(question: Question) -> str:
    return f" Read again: “{html.escape(question.section)}”."


# ------------------------------------------------------------------------------------------ the questions


def files() -> dict[int, Path]:
    """Number of each lesson → the file of its questions."""
    folder = assets.data_dir() / FOLDER
    return {int(path.stem[:2]): path for path in sorted(folder.glob("[0-9][0-9]_*.json"))}


def quiz(lesson: int) -> Quiz:
    """The quiz of a lesson, by its number. Raises ValueError for no lesson, AssetError where its file is damaged."""
    known = files()
    if gates.whole_number("lesson", lesson) not in known:
        raise ValueError(f"There is no quiz of lesson {lesson}; there are {', '.join(map(str, known)) or 'none'}.")
    path = known[lesson]
    try:
        found = json.loads(path.read_text(encoding="utf8"))["questions"]
        questions = tuple(
            Question(**{**each, "answers": tuple(Answer(**answer) for answer in each["answers"])}) for each in found
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise gates.AssetError(
            f"The questions {path} cannot be read: {assets.how_to_restore(f'{FOLDER}/{path.name}')}."
        ) from error
    return Quiz(lesson, questions)
