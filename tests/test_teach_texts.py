"""Texts from outside, in figures, widgets and pages: HTML and LaTeX in them are shown as text, and break nothing."""

import matplotlib.mathtext
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from mmlesson.teach import figures
from mmlesson.teach.widgets.answer import Answer
from mmlesson.teach.widgets.frame import NAMES, framed
from mmlesson.teach.widgets.painting import _curve

TEXTS = [
    "$x^2$", "$\\frac{1}{", "\\$5 and $6", "$$", "\\begin{x}", "a_b^c", "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>', "<b>bold</b> &amp; &lt;", "{} {0} %s %(a)s", "`code` **strong**", "two\nlines",
    "</svg><script>", "\u202ereversed", "\x1b[31mred", " ", "x" * 300,
]  # fmt: skip
BLANK = Image.new("RGB", (32, 32), "white")
DRAW = {
    "gallery": lambda text: figures.gallery([BLANK], [text], marks=[text]),
    "similarity": lambda text: figures.similarity([BLANK, BLANK], [text, "a"], np.eye(2), text),
    "probabilities": lambda text: figures.probabilities(BLANK, [text, "a"], [0.7, 0.3], text),
    "temperature": lambda text: figures.temperature([text, "a"], [0.8, 0.5], [1.0, 0.1]),
    "grouped_bars": lambda text: figures.grouped_bars([text, "a"], {text: [0.5, 0.9]}, text),
    "histogram": lambda text: figures.histogram({text: [0.7, 0.8, 0.9]}, text),
    "versus": lambda text: figures.versus({text: [BLANK], "a": [BLANK]}, {text: [text]}, [text]),
    "film": lambda text: figures.film([BLANK], [text]),
    "next_tokens": lambda text: figures.next_tokens([text, "a"], [0.5, 0.4], [BLANK, BLANK], text),
    "painting_curves": lambda text: figures.painting_curves([0.9, 0.4], {text: [0.1, 0.6]}),
    "completion": lambda text: figures.completion([BLANK], 5, 12, [text]),
}


@pytest.fixture(autouse=True)
def no_formulas(monkeypatch):
    def parse(self, text, *arguments, **options):
        pytest.fail(f"{text!r} was typeset as a formula")

    monkeypatch.setattr(matplotlib.mathtext.MathTextParser, "parse", parse)


@pytest.mark.filterwarnings("ignore:Glyph")  # a control character has no picture in the font
@pytest.mark.parametrize("name", DRAW)
def test_a_figure_shows_any_text_and_is_embedded_as_text(name):
    for text in TEXTS[:6] if name != "gallery" else TEXTS:
        picture = DRAW[name](text)
        page = BeautifulSoup(picture._repr_mimebundle_()["text/html"], "html.parser")
        (image,) = page.find_all(True)
        assert image.name == "img" and image["alt"] == picture.alt and set(image.attrs) == {"src", "alt", "style"}


@pytest.mark.parametrize("text", TEXTS)
def test_a_widget_shows_any_text_as_text(text):
    answer = Answer()
    answer.say(text)
    answer.show_table([text], [[text], [text]], 0)
    answer._show_notes([text], [])
    shown = [answer._sentence.value, answer._table.value, answer._note.value]
    answer.show_pictures([(BLANK, text, text)], 32, 1)
    shown.append(answer._picture.value)
    answer.show_growing(BLANK, text, _curve([0.5, 0.4], {text: [0.1, 0.2], "a": [0.1, 0.2]}, 5))
    shown.append(answer._picture.value)
    answer.show_growing(None, text, "")
    shown += [answer._picture.value, framed(text).children[0].value]
    for value in shown:
        page = BeautifulSoup(value, "html.parser")
        assert not page.find_all("script") and not page.find_all("b", string="bold")
        assert {tag["onerror"] for tag in page.find_all(onerror=True)} <= {NAMES}, "what names the sliders, no more"
    page = BeautifulSoup(shown[1], "html.parser")
    assert page.find_all("td")[1].get_text() == text


def test_a_widget_says_what_went_wrong_as_text():
    answer = Answer()
    answer.say_problem(ValueError("no picture <script>alert(1)</script>"))
    assert "<script" not in answer._sentence.value and "&lt;script&gt;" in answer._sentence.value
