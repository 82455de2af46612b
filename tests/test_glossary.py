"""Each term of the field is explained where a reader meets it first, as `mmlesson.teach.glossary` lists them."""

import re
from pathlib import Path

import pytest

from mmlesson.teach.glossary import GLOSSARY, Paragraph, paragraphs_of, prose, word

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def marked(term: str) -> str:
    """A pattern that finds a term in italics or bold, alone or with words beside it."""
    return rf"\*[^*]*{word(term)}[^*]*\*"


def faults_of(term: str, says: str, paragraphs: list[Paragraph]) -> list[str]:
    """What is wrong with how a term is introduced: [] where its first paragraph marks and explains it.

    A heading may name a term that its own cell explains, and the title of a lesson any term.
    """
    heading = next((each for each in paragraphs if each.text.startswith("##") and each.holds(term)), None)
    first = next((each for each in paragraphs if not each.text.startswith("#") and each.holds(term)), None)
    if first is None:
        return [f"“{term}” stands nowhere: take it out of the glossary."]
    found = []
    if heading and paragraphs.index(heading) < paragraphs.index(first) and heading.where != first.where:
        found.append(f"“{term}” stands in a heading in {heading.where}, and is explained later, in {first.where}.")
    if not re.search(marked(term), first.text, re.IGNORECASE):
        found.append(f"“{term}” appears first in {first.where}, unmarked: …{around(term, first.text)}…")
    if says.lower() not in re.sub(r"\*", "", first.text).lower():
        found.append(f"“{term}” is not explained (“{says}”) in {first.where}: …{around(term, first.text)}…")
    return found


def around(term: str, text: str) -> str:
    place = re.search(word(term), text, re.IGNORECASE).start()
    return text[max(0, place - 50) : place + 60]


PROSE = prose(sorted(NOTEBOOKS.glob("*.ipynb")))


@pytest.mark.parametrize("term", list(GLOSSARY))
def test_a_term_is_explained_where_it_first_appears(term):
    assert faults_of(term, GLOSSARY[term], PROSE) == []


def test_the_glossary_is_in_reading_order():
    places = [
        next(place for place, each in enumerate(PROSE) if each.holds(term) and not each.text.startswith("#"))
        for term in GLOSSARY
    ]
    late = [term for term, place, before in zip(list(GLOSSARY)[1:], places[1:], places, strict=False) if place < before]
    assert late == []


@pytest.mark.parametrize(
    "text, fault",
    [
        ("A *loss* is one number.", None),
        ("The **loss** is one number.", None),
        ("*Losses* are one number each.\n\nA loss is high.", None),
        ("A loss is one number.", "unmarked"),
        ("A *loss* is bad.", "not explained"),
        ("The glossary is one number.", "stands nowhere"),
        ("The `loss` is high.\n\nA *loss* is one number.", None),
        ("```python\nloss\n```\n\nA *loss* is one number.", None),
        ("# The loss\n\nA *loss* is one number.", None),
        ("A *loss* is this:\n\n- one number", None),
        ("A *loss* is this\n\n- one number", "not explained"),
        ("The loss falls.\n\nA *loss* is one number.", "unmarked"),
        ("- write the loss\n- a *loss* is one number", "unmarked"),
        ("[a loss](loss.html)", "unmarked"),
        ("[a list](loss.html): a *loss* is one number", None),
    ],
)
def test_a_term_without_an_explanation_is_found(text, fault):
    said = faults_of("loss", "one number", [Paragraph("here", each) for each in paragraphs_of(text)])
    assert bool(said) == (fault is not None)
    assert fault is None or fault in said[0]


def test_a_heading_that_is_explained_elsewhere_is_found():
    apart = [Paragraph("cell 1", "## The loss"), Paragraph("cell 2", "A *loss* is one number.")]
    assert "stands in a heading in cell 1" in faults_of("loss", "one number", apart)[0]
