"""Where a widget says what came out: a sentence, a picture with its text alternative, a table and a note."""

from __future__ import annotations

import functools
import struct
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
from PIL import Image

import mmlesson
from mmlesson import words
from mmlesson.pixels import thumbnail
from mmlesson.teach import figures
from mmlesson.teach.widgets.parts import TEXT, address, escape

if TYPE_CHECKING:
    from mmlesson.clip import CLIP

PACKAGE = Path(mmlesson.__file__).parent
SHOWN_SIDE = 360  # pixels of a picture's longer side, as a widget shows it
GROWING_SIDE = 288  # pixels of a picture that changes while one watches


class Answer(ipywidgets.VBox):
    """The lower part of a widget. Every handler of a control passes `handles`, so that an error becomes a sentence.

    `clip` is the model that reads the texts; None where there is none, and no word is looked up.
    """

    def __init__(self, clip: CLIP | None = None):
        self._clip = clip
        self._sentence = ipywidgets.HTML()
        self._picture = ipywidgets.HTML()
        self._table = ipywidgets.HTML()
        self._note = ipywidgets.HTML()
        self._said = ("", "result")  # the sentence and its kind
        self._waiting = ""  # what a pressed button waits for
        self._pressed = self._answered = 0  # presses of buttons
        self._saying = threading.RLock()  # long works and presses say something in threads of their own
        super().__init__([self._sentence, self._picture, self._table, self._note])

    # ------------------------------------------------------------------------------------------- handlers

    def handles(self, handler: Callable[[], list[str] | None]) -> Callable:
        """A callback for controls that runs `handler` and shows its errors as sentences.

        The handler returns the texts that the model read. A note names the words in them that the model never met. It
        does so every time: the model's own warning comes once only, and from a callback it goes to a log nobody opens.
        """

        @functools.wraps(handler)
        def handle(_event=None) -> None:
            self._stop_waiting()
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", UserWarning)
                    texts = handler()
                    unknown = self._clip.unknown_words(texts) if texts and self._clip is not None else []
            except Exception as error:
                self.say_problem(error)
                return
            self._show_notes(_of_the_models(caught), unknown)

        return handle

    def _show_notes(self, notes: Sequence[str], unknown: Sequence[str]) -> None:
        if unknown:  # said in one note, in place of the model's own
            name = self._clip.name
            notes = [
                text for text in notes if not (text.startswith(name) and any(repr(word) in text for word in unknown))
            ]
            notes.append(words.never_met(name, unknown))
        text = escape(" ".join(notes))
        self._note.value = f'<div style="{TEXT}"><b>Note.</b> {text}</div>' if notes else ""

    # ------------------------------------------------------------------------------------------ sentences

    def say(self, *sentences: str) -> None:
        """What came out. Screen readers announce it, so say it last, when all else is shown."""
        self._say(" ".join(filter(None, sentences)), "result")

    def say_progress(self, text: str) -> None:
        """How far the work is. Screen readers do not announce it: it changes all the time."""
        self._say(text, "progress")

    def say_problem(self, error: Exception) -> None:
        """What went wrong, in place of what was shown."""
        self.clear()
        self._say(_sentence(error), "problem")

    def expect_answer(self) -> int:
        """A button was pressed, and its handler has not begun; returns the number of the press."""
        with self._saying:
            self._pressed += 1
            return self._pressed

    def say_waiting(self, press: int, button: str) -> None:
        """Say that a press waits for the cell that runs, unless it was answered meanwhile."""
        with self._saying:
            if press > self._answered:
                self._waiting = f"“{button}” waits for the cell that is running. It begins as soon as that cell ends."
                self._say(*self._said)

    def _stop_waiting(self) -> None:
        """A handler begins, so the kernel is free, and answers all presses one after the other."""
        with self._saying:
            self._answered = self._pressed
            if self._waiting:
                self._waiting = ""
                self._say(*self._said)

    def _say(self, text: str, kind: str) -> None:
        with self._saying:
            self._said = (text, kind)
            self._show_said(text, kind)

    def _show_said(self, text: str, kind: str) -> None:
        sign = ""
        edge = ""
        live = ' aria-live="off"' if kind == "progress" else ""
        if kind == "problem":
            sign = '<span role="img" aria-label="Problem:">⚠</span> '
            edge = "border-left: 4px solid #c25b00; padding-left: 10px;"
        style = f"{TEXT} margin: 6px 2px; {edge}"
        waits = f'<div data-kind="waiting"><b>{escape(self._waiting)}</b></div>' if self._waiting else ""
        said = f"{sign}{escape(text)}{waits}"
        self._sentence.value = f'<div role="status"{live} data-kind="{kind}" style="{style}">{said}</div>'

    # ------------------------------------------------------------------------------------------- pictures

    def clear(self) -> None:
        """Remove the picture, the table and the note: they belong to other settings."""
        self._picture.value = self._table.value = self._note.value = ""

    def show_chart(
        self, image: Image.Image, labels: Sequence[str], probabilities: np.ndarray, title: str, cosines=None
    ) -> None:
        """A picture beside the probability of each label, and its cosine where they are given."""
        small = thumbnail(image, SHOWN_SIDE)
        figure = figures.probabilities(small, list(labels), probabilities, title=title, cosines=cosines)
        self.show_picture(figure.png, figure.alt)

    def show_picture(self, png: bytes, alt: str) -> None:
        """A PNG at its own size, or at the width of the notebook where that is less."""
        width, height = struct.unpack(">II", png[16:24])  # the page keeps the place free while it decodes the picture
        self._picture.value = (
            f'<img src="{address(png)}" alt="{escape(alt)}" width="{width}" height="{height}"'
            ' style="max-width: 100%; height: auto; display: block; border-radius: 4px;">'
        )

    def show_growing(self, image: Image.Image | None, alt: str, beside: str) -> None:
        """A picture that changes in its place, with HTML beside it. With None the place stays free."""
        size = f"width: {GROWING_SIDE}px; height: {GROWING_SIDE}px; border-radius: 4px;"
        if image is None:
            free = f"{size} border: 1px dashed currentColor; opacity: 0.5;"
            shown = f'<div role="img" aria-label="{escape(alt)}" style="{free}"></div>'
        else:
            shown = _image(image, alt, GROWING_SIDE, size)
        line = "display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start;"
        self._picture.value = f'<div style="{line}">{shown}<div style="min-width: 0;">{beside}</div></div>'

    def show_pictures(
        self, shown: Sequence[tuple[Image.Image, str, str]], side: int, columns: int, above: str = "", beside: str = ""
    ) -> None:
        """Pictures, each with its text alternative and its caption, `columns` on a line.

        `above` and `beside` are HTML that stands above and beside them all.
        """
        size = f"width: {side}px; height: {side}px; display: block; border-radius: 4px;"
        tiles = []
        for image, alt, caption in shown:
            below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
            picture = _image(image, alt, side, size)
            tiles.append(f'<figure style="margin: 0; line-height: 1.4;">{picture}{below}</figure>')
        line = "display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-start;"
        sheet = f'<div style="{line} max-width: {columns * (side + 8)}px;">{"".join(tiles)}</div>'
        if beside:
            sheet = f'<div style="{line} column-gap: 24px;">{sheet}<div style="min-width: 0;">{beside}</div></div>'
        self._picture.value = above + sheet

    def show_table(self, head: Sequence[str], rows: Sequence[Sequence[str]], best: int) -> None:
        """Rows of texts. The row with the number `best` is bold and marked with ▶."""
        style = 'style="padding: 3px 16px 3px 4px; text-align: left;"'
        lines = ["".join(f'<th scope="col" {style}>{escape(name)}</th>' for name in ("", *head))]
        for number, texts in enumerate(rows):
            is_best = number == best
            mark = '<span role="img" aria-label="highest">▶</span>' if is_best else ""
            weight = "bold" if is_best else "normal"
            cells = [mark, *map(escape, texts)]
            lines.append(
                "".join(f'<td {style}><span style="font-weight: {weight};">{cell}</span></td>' for cell in cells)
            )
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        self._table.value = f'<table style="{TEXT} border-collapse: collapse; margin: 4px 0;">{body}</table>'


def _image(image: Image.Image, alt: str, side: int, style: str) -> str:
    """A picture as HTML. It travels with at most `side` pixels; the browser enlarges a smaller one."""
    small = image if max(image.size) <= side else thumbnail(image, side)
    return f'<img src="{address(small)}" alt="{escape(alt)}" decoding="sync" style="{style}">'


def _of_the_models(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """What the models warn of in the texts of a widget, each once. Such a warning points at a line of this package."""
    ours = (
        warning
        for warning in caught
        if issubclass(warning.category, UserWarning) and PACKAGE in Path(warning.filename).parents
    )
    return list(dict.fromkeys(str(warning.message) for warning in ours))


def _sentence(error: Exception) -> str:
    """An error as a sentence: its message where it was written for people, else with its name before it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # str(KeyError) adds quotes
    if not isinstance(error, (ValueError, KeyError, RuntimeError, OSError)) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text[:1].upper() + text[1:]
