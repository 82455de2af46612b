"""The quizzes: five to eight questions a lesson, each about a cell that exists, shown without a script and a kernel."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from browser import chromium
from bs4 import BeautifulSoup

from mmlesson import gates, quiz
from mmlesson.models import assets
from mmlesson.teach import quizzes

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = {int(path.stem[:2]): path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
QUESTIONS = [(lesson, place) for lesson in quizzes.files() for place in range(len(quiz(lesson).questions))]


def read(lesson: int):
    return nbformat.read(LESSONS[lesson], as_version=4)


def section_of(notebook, cell_id: str) -> str:
    """The last heading above a cell, or in it."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
            heading = ([heading] + re.findall(r"^#{1,4} (.+)$", prose, re.MULTILINE))[-1].strip()
        if cell.id == cell_id:
            return heading
    raise AssertionError(f"there is no cell {cell_id}")


def test_every_lesson_has_a_quiz_of_five_to_eight_questions():
    assert set(quizzes.files()) == set(LESSONS)
    for lesson, path in quizzes.files().items():
        assert path.stem == LESSONS[lesson].stem and 5 <= len(quiz(lesson).questions) <= 8


@pytest.mark.parametrize("lesson, place", QUESTIONS)
def test_a_question_is_backed_by_a_cell(lesson, place):
    question, notebook = quiz(lesson).questions[place], read(lesson)
    [cell] = [cell for cell in notebook.cells if cell.id == question.cell]
    assert question.holds in cell.source or question.holds in json.dumps(cell.get("outputs", []), ensure_ascii=False)
    assert question.section == section_of(notebook, question.cell)
    assert len(question.holds) > 10


@pytest.mark.parametrize("lesson, place", QUESTIONS)
def test_a_question_has_one_right_answer_and_a_sentence_for_each(lesson, place):
    question = quiz(lesson).questions[place]
    assert question.question.endswith(("?", ".")) and "?" in question.question
    assert [each.right for each in question.answers].count(True) == 1 and 3 <= len(question.answers) <= 4
    said = [each.feedback for each in question.answers]
    assert len(set(said)) == len(said) and all(len(each.split()) > 6 and each.endswith(".") for each in said)
    lengths = [len(each.answer) for each in question.answers]
    assert max(lengths) < 4 * min(lengths), "the longest answer gives itself away"


def test_no_place_is_right_too_often():
    """Whoever always opens the first answer, or the longest, knows nothing: at most half of them are right."""
    places, longest = [], 0
    for lesson in LESSONS:
        for question in quiz(lesson).questions:
            right = next(place for place, each in enumerate(question.answers) if each.right)
            places.append(right)
            longest += len(question.answers[right].answer) == max(len(each.answer) for each in question.answers)
    assert all(places.count(place) <= len(places) / 2 for place in range(4))
    assert longest <= 0.6 * len(places)


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_lesson_ends_with_its_quiz_and_the_recap(lesson):
    cells = read(lesson).cells
    [place] = [place for place, cell in enumerate(cells) if cell.id == f"quiz-{lesson}"]
    heading, shown, recap = cells[place - 1 : place + 2]
    assert heading.source.startswith("## ") and recap.source.startswith("## Recap")
    assert shown.source == f"from mmlesson import quiz\n\nquiz({lesson})"
    [output] = shown.outputs
    assert output.data == {"text/html": quiz(lesson)._repr_html_(), "text/plain": repr(quiz(lesson))}


# ------------------------------------------------------------------------------------------------ as it is shown


@pytest.mark.parametrize("lesson", LESSONS)
def test_it_is_html_without_a_script(lesson):
    page = BeautifulSoup(quiz(lesson)._repr_html_(), "html.parser")
    assert {each.name for each in page.find_all(True)} == {"div", "p", "ol", "li", "strong", "details", "summary"}
    assert {name for each in page.find_all(True) for name in each.attrs} == {"style", "role", "aria-label"}
    for item, question in zip(page.ol("li"), quiz(lesson).questions, strict=True):
        assert item.p.get_text() == question.question and not item.find_all(open=True)
        for shown, answer in zip(item("details"), question.answers, strict=True):
            assert shown.summary.get_text() == answer.answer
            said = shown("p")[0].get_text()
            assert said.startswith("✓ Right. " if answer.right else "✗ No. ") and answer.feedback in said
            assert ("Read again" in said) != answer.right


def test_a_terminal_shows_the_right_letters_at_the_end():
    text = repr(quiz(1))
    assert "1. In the photo CLIP" in text and text.splitlines()[-1] == "Right: 1 C, 2 A, 3 B, 4 B, 5 C, 6 A."


def test_texts_of_a_quiz_are_no_html():
    answers = (quizzes.Answer("<b>a</b>", True, "<script>1</script>"), quizzes.Answer("&amp;", False, '" onclick="x'))
    shown = quizzes.Quiz(1, (quizzes.Question("<img src=x>?", "c", "h", "<i>s</i>", answers),))._repr_html_()
    page = BeautifulSoup(shown, "html.parser")
    assert not page.find_all(["b", "script", "img", "i"]) and page.summary.get_text() == "<b>a</b>"


@pytest.mark.parametrize("lesson", [0, 9, "1", True, None])
def test_a_lesson_that_is_none(lesson):
    with pytest.raises(ValueError, match="lesson"):
        quiz(lesson)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"questions": [{"question": 1}]}', "[" * 100_000])
def test_a_damaged_file_is_a_sentence(content, tmp_path, monkeypatch):
    shutil.copytree(assets.data_dir() / "quiz", tmp_path / "quiz")
    (tmp_path / "quiz" / "01_clip.json").write_text(content)
    monkeypatch.setenv("MMLESSON_DATA", str(tmp_path))
    with pytest.raises(gates.AssetError, match=r"01_clip\.json cannot be read"):
        quiz(1)
    assert quiz(2).lesson == 2


def test_the_name_is_where_check_is():
    import mmlesson.teach

    assert mmlesson.quiz is mmlesson.teach.quiz is quizzes.quiz


@pytest.mark.browser
def test_a_browser_opens_it_with_keys_and_names_it_for_a_screen_reader(browser_path, tmp_path):
    """Tab reaches each answer in order, Enter opens it, and all of it is in the tree that a screen reader gets."""
    page = tmp_path / "quiz.html"
    page.write_text(f"<!doctype html><html lang=en><title>Quiz</title><body>{quiz(1)._repr_html_()}", encoding="utf8")
    # in a thread of its own: Playwright runs once in each, and another test's page may be open
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_opened_with_keys, page, browser_path).result()


def _opened_with_keys(page: Path, browser_path: str) -> None:
    with chromium(browser_path) as browser:
        tab = browser.page
        tab.goto(page.as_uri())
        answers, feedback = tab.locator("summary"), tab.locator("details > p")
        assert answers.count() == 18 and not feedback.first.is_visible()
        for place in range(3):
            tab.keyboard.press("Tab")
            assert answers.nth(place).evaluate("each => each === document.activeElement")
        tab.keyboard.press("Enter")
        assert feedback.nth(2).is_visible() and feedback.nth(2).inner_text().startswith("✓ Right.")
        assert not feedback.nth(1).is_visible()
        tree = tab.locator("body").aria_snapshot()
        assert 'group "Quiz of lesson 1"' in tree and "list" in tree and "✓ Right." not in tree.split("Right.")[0]
        tab.keyboard.press("Space")
        assert not feedback.nth(2).is_visible() and browser.outside == []
