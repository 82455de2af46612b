"""Slides from a notebook: what is shown, what is left out, how it is divided, and what is said when it cannot be."""

import base64
import io
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from mmlesson import cli, gates
from mmlesson.teach.lessons import WIDGET_SENTENCE
from mmlesson.teach.slides import code, pages, prose, reveal, run_slides
from mmlesson.teach.slides.build import settings, slides_of, stale_choices

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
LESSON_MINUTES, SPARE = 90, 5
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="  # 1 × 1


def shown(kind: str | None = None, **more) -> dict:
    return {"slideshow": {**({"slide_type": kind} if kind else {}), **more}}


def text(source: str, kind: str | None = None, **more):
    return new_markdown_cell(source, metadata=shown(kind, **more))


def run(source: str, printed: str = "", picture: bool = False, tags=(), **more):
    outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
    if picture:
        data = {"text/html": f'<img src="data:image/png;base64,{PIXEL}" alt="one dot">', "text/plain": "one dot"}
        outputs.append(new_output("execute_result", data=data, execution_count=1))
    metadata = {**shown(**more), "tags": list(tags)}
    return new_code_cell(source, outputs=outputs, execution_count=1, metadata=metadata)


def made(*cells):
    """The pages after the title page."""
    return [page for unit in slides_of(new_notebook(cells=list(cells))) for page in unit.pages][1:]


def words(page) -> str:
    return " ".join(piece.text for piece in page.lead)


# ------------------------------------------------------------------------------------------------- prose


def test_a_paragraph_is_cut_where_sentences_end():
    paragraph = (
        "**Bold.** Smith et al. 2021 wrote it (Fig. 2). It has 3.5 parts! **Notice that. It goes on.** “Is it?” Yes."
    )
    assert " / ".join(prose.sentences(paragraph)) == (
        "**Bold.** / Smith et al. 2021 wrote it (Fig. 2). / It has 3.5 parts! / "
        "**Notice that. It goes on.** / “Is it?” / Yes."
    )


def test_without_a_choice_a_slide_shows_the_first_sentences_lists_tables_and_what_to_notice():
    source = (
        "## A title\n\nFirst one. Not this. **Notice** this.\n\nAnother\nfirst. Not this.\n\n1. an item\n2. a second\n"
        "   line of it\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n```python\nnot_this()\n```\n\n<details>not this</details>"
    )
    chosen = prose.chosen(source, None)
    assert [piece.kind for piece in chosen] == ["heading", *["sentence"] * 3, *["item"] * 2, "table"]
    assert [piece.text for piece in chosen[:5]] == [
        "A title", "First one.", "**Notice** this.", "Another first.", "an item",
    ]  # fmt: skip
    assert chosen[5].text == "a second line of it" and [piece.number for piece in chosen[4:6]] == ["1.", "2."]
    assert [piece.notice for piece in chosen[:3]] == [False, False, True]


def test_keep_chooses_by_beginnings_and_says_what_it_does_not_find():
    source = "One thing. A *second* thing. A third.\n\n- item"
    assert [piece.text for piece in prose.chosen(source, ["A second", "-"])] == ["A *second* thing.", "item"]
    assert prose.chosen(source, []) == []
    assert prose.not_found(source, ["A second", "|", "Gone"]) == ["|", "Gone"]
    assert prose.not_found(source, None) == []


def test_an_exercise_is_told_whole():
    exercise = text("**Exercise 9.1.** Do this. Then that. Say what.", "slide")
    [page] = made(exercise, run('answer = ...\ncheck("9.1", answer)', "not answered yet", tags=["exercise"]))
    assert (page.kind, page.title) == ("exercise", "Exercise 9.1")
    assert words(page) == "Do this. Then that. Say what."
    assert list(page.code) == ["answer = ...", 'check("9.1", answer)'] and not page.output


# -------------------------------------------------------------------------------------------------- code

SOURCE = """import torch
from mmlesson import load_clip

clip = load_clip()
cosines = clip.similarity(images, texts)  # [6, 6]
assert cosines.shape == (6, 6)
if clip.name == "pocket-clip":
    assert cosines.max() < 1
for number in range(3):
    print(number)
def double(x):
    y = 2 * x

    return y
print(double(2))
figures.similarity(images, texts, cosines)"""


def test_code_is_folded_to_what_matters():
    lines = ["clip = load_clip()", "cosines = clip.similarity(images, texts)  # [6, 6]"]
    function = ["def double(x):", "    y = 2 * x", "    return y"]
    assert code.shown(SOURCE, True, has_figure=True) == [*lines, "", *function]
    assert code.shown(SOURCE, None, has_figure=False) == [*lines, "", *function]
    assert code.shown(SOURCE, None, has_figure=True) == code.shown(SOURCE, False, has_figure=False) == []
    assert code.shown(SOURCE, ["clip =", "def double"], True) == [lines[0], code.FOLD, *function]
    assert code.beginnings_not_found(SOURCE, ["clip =", "loss ="]) == ["loss ="]


def test_code_never_has_more_lines_than_a_slide_holds():
    source = "\n".join(f"x{number} = {number}" for number in range(30))
    lines = code.shown(source, True, has_figure=False)
    assert len(lines) == code.MOST_LINES and lines[-1] == code.FOLD
    assert code.shown("%matplotlib inline\nx = 1", True, False) == ["%matplotlib inline", "x = 1"]


def test_a_comment_goes_before_a_line_breaks():
    long = f"x = function({', '.join(['argument'] * 6)})  # and why it is so"
    assert code.shown(long, True, False) == [long.partition("  #")[0]]
    colour = f'plot({", ".join(["argument"] * 6)}, colour="#aabbcc")'
    assert code.shown(colour, True, False) == [colour]
    apostrophe = f"x = function({', '.join(['argument'] * 6)})  # its value is the row's"
    assert code.shown(apostrophe, True, False) == [apostrophe.partition("  #")[0]]
    opened = f"x = function({', '.join(['argument'] * 7)},\n    'and one')"
    assert code.shown(opened, True, False) == opened.split("\n")


# ------------------------------------------------------------------------------------------------- pages


def test_slide_types_say_what_is_shown():
    units = slides_of(
        new_notebook(
            cells=[
                text("# Lesson 9 · Tests: all of them\n\nHello.", "slide", notes={"minutes": 2, "say": "Hi."}),
                text("Goes on."),
                text("Left out.", "skip"),
                text("## Next\n\nAnother thought.", "subslide"),
                new_markdown_cell("<details>x = 42</details>", metadata={"tags": ["solution"]}),
                text("## Third\n\nA column of its own.", "slide"),
            ]
        )
    )
    assert [(unit.title, unit.top, unit.minutes) for unit in units] == [
        ("Lesson 9 · Tests: all of them", True, 2), ("Next", False, 0), ("Third", True, 0),
    ]  # fmt: skip
    assert [page.kind for page in units[0].pages] == ["title", "prose"]
    assert words(units[0].pages[1]) == "Hello. Goes on."
    assert "x = 42" not in str(units) and "Left out" not in str([unit.pages for unit in units])


def test_a_figure_has_what_to_notice_above_it_and_text_without_room_before_it():
    long = "\n\n".join(f"Paragraph {number} {'says much ' * 12}." for number in range(5))
    first, second = made(
        text(f"## Title\n\n{long}\n\n**Notice** the dot.", "slide"), run("draw()", "hidden", picture=True)
    )
    assert first.kind == "prose" and second.kind == "figure" and words(second) == "**Notice** the dot."
    assert second.figure.size == (1, 1) and not second.output
    [page] = made(text("## Title\n\n**Notice** it.", "slide"), run("draw()", "3 dots", picture=True, prints=True))
    assert list(page.output) == ["3 dots"]


def drawn_rows(gap: int, columns: int = 4) -> str:
    """Three rows of grey squares of 60 pixels, as a cell's output; `gap` white pixels stand between the rows."""
    image = Image.new("P", (80 * columns, 180 + 2 * gap), 255)
    image.putpalette([each for grey in range(256) for each in (grey, grey, grey)])
    for row in range(3):
        for column in range(columns):
            image.paste(100 + row, (80 * column, row * (60 + gap), 80 * column + 60, row * (60 + gap) + 60))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="3 &amp; 4">'


def test_rows_of_a_figure_go_on_several_slides():
    def cells(gap: int, **more):
        cell = run("draw()", picture=True, **more)
        cell.outputs[0].data["text/html"] = drawn_rows(gap)
        return [text("## Title\n\nLook. **Notice** the rows.", "slide"), cell]

    first, second = made(*cells(30, rows=[1, 2]))
    assert (first.figure.size, second.figure.size) == ((320, 75), (320, 165))  # cut in the middle of the gap
    assert words(first) == "Look. **Notice** the rows." and words(second) == "**Notice** the rows."
    assert 'alt="Of the following, row 1 of 3: 3 &amp; 4"' in first.figure.html
    assert "rows 2 to 3 of 3" in second.figure.html
    [whole] = made(*cells(0, rows=[1, 2]))
    assert whole.figure.size == (320, 180)
    assert stale_choices(new_notebook(cells=cells(30, rows=[1, 2]))) == []
    [said] = stale_choices(new_notebook(cells=cells(0, rows=[1, 2])))
    assert said.endswith("its figure cannot be divided into rows [1, 2]")
    two = cells(30, rows=[1, 2])
    two[0].source += " **Notice** more."
    assert [words(page) for page in made(*two)] == ["Look. **Notice** the rows.", "**Notice** more."]


def test_what_the_next_cell_prints_goes_below_a_figure_with_room():
    [page] = made(text("## Title\n\nLook.", "slide"), run("draw()", picture=True), run("print(1)", "one\n", code=False))
    assert page.kind == "figure" and list(page.output) == ["one"]


def test_a_fragment_comes_on_a_key_press():
    [page] = made(text("## Title\n\nGuess.", "slide"), run("x = 1\nprint(x)", "1\n", slide_type="fragment"))
    assert page.later and list(page.output) == ["1"] and list(page.code) == ["x = 1"]


def test_long_text_goes_on_over_several_slides_and_lists_stay_whole():
    items = "\n".join(f"- item {number} {'of words ' * 22}" for number in range(3))
    sentences = "\n\n".join(f"Sentence {number} {'is long ' * 20}." for number in range(3))
    first, second = made(text(f"## Title\n\n{sentences}\n\n{items}", "slide"))
    assert {piece.kind for piece in first.lead} == {"sentence"} and {piece.kind for piece in second.lead} == {"item"}
    assert first.size == second.size >= 28


def test_long_output_and_long_tables_say_what_is_left_out():
    assert pages.cut_output([f"line {number}" for number in range(40)])[-1] == "… and 29 more lines"
    assert pages.cut_output(["short"]) == ["short"]
    table = "| name | what |\n| --- | --- |\n" + "\n".join(f"| row {number} | {'words ' * 9} |" for number in range(30))
    shorter = pages.fitting_table(table).splitlines()
    left = int(re.search(r"… (\d+) more rows", shorter[-1])[1])
    assert left + len(shorter) - 3 == 30 and pages.table_height("\n".join(shorter), 24) <= pages.HEIGHT


def test_a_widget_is_announced():
    [page] = made(text("## Title\n\nTry it.", "slide"), run("widgets.box()", WIDGET_SENTENCE + "\n"))
    assert "Open the lesson in JupyterLab" in words(page) and list(page.code) == ["widgets.box()"]


# ------------------------------------------------------------------------------------------- the lessons


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_ninety_minutes_with_notes_for_every_slide(path):
    notebook = nbformat.read(path, as_version=4)
    units = slides_of(notebook)
    assert abs(sum(unit.minutes for unit in units) - LESSON_MINUTES) <= SPARE
    for unit in units:
        assert unit.minutes > 0 and len(unit.notes["say"].split()) >= 8, unit.title
    asked = [unit for unit in units if unit.notes.get("ask", "").strip().endswith("?")]
    assert len(asked) >= 0.9 * len(units)
    assert stale_choices(notebook) == [], "a sentence or a statement that stood on a slide was rewritten"
    assert [cell.id for cell in notebook.cells if settings(cell).get("cover")] != []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_solution_is_on_a_slide(path):
    notebook = nbformat.read(path, as_version=4)
    on_slides = {cell.id for unit in slides_of(notebook) for cell in unit.cells}
    solutions = {cell.id for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])}
    assert len(solutions) >= 6 and not on_slides & solutions


def test_a_rewritten_sentence_is_missed():
    notebook = new_notebook(
        cells=[text("Now it reads so.", "slide", keep=["Once it read"]), run("x = 1", code=["y ="])]
    )
    assert [re.sub(r"\(.*\)", "", said) for said in stale_choices(notebook)] == [
        "cell 1 : no sentence begins with 'Once it read'", "cell 2 : no statement begins with 'y ='",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- the files


@pytest.fixture
def notebooks(tmp_path):
    cells = [
        text("# Lesson 9 · Tests: <all> of them\n\nHello $x^2$.", "slide", notes={"minutes": 3, "say": "Say *this*."}),
        run("draw()", picture=True, cover=True),
        text("## A table\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nSee [there](https://example.org/).", "slide"),
        text("![a badge](https://example.org/badge.svg) shown.", "slide"),
    ]
    folder = tmp_path / "lessons"
    folder.mkdir()
    nbformat.write(new_notebook(cells=cells), folder / "09_tests.ipynb")
    return folder


def test_a_deck_is_one_file_with_everything_inside(notebooks, tmp_path):
    [deck] = run_slides(notebooks, tmp_path / "out")
    page = deck.html.read_text()
    assert str(deck) == f"09_tests: {deck.slides} slides, 3 minutes, {tmp_path / 'out' / '09_tests.html'}"
    assert not re.search(
        r"""(src|href)=["'](?!data:|#|https://example.org/["'])""",
        re.sub(r"<script>.*?</script>", "", page, flags=re.S),
    )
    assert "<math" in page and "@font-face" in page and "RevealNotes" in page and "Permission is hereby granted" in page
    assert "<p><b>3 min</b> (minute 0 to 3" in page and "Say <em>this</em>." in page
    assert page.count("<section data-timing") == deck.slides
    assert "badge.svg" not in page and "a badge" in page


def test_a_script_inside_a_page_does_not_end_it():
    from mmlesson.teach.slides.deck import _inline

    assert _inline("a = '</script>'; b = '<!-- c'") == r"a = '<\/script>'; b = '<\!-- c'"


@pytest.mark.parametrize(
    "what, said",
    [
        ("none", "There are no notebooks in"),
        ("other", "There is no lesson '05_more'; there is 09_tests."),
        ("broken", "is not a notebook that can be read"),
        ("not executed", "`mmlesson lessons --write-back --only 09_tests` executes it."),
        ("no slides", "has no slides: none of its cells has the slide type “slide”"),
        ("no place", "is a file: name a folder."),
    ],
)
def test_what_cannot_be_made_is_said_in_a_sentence(notebooks, tmp_path, what, said):
    path, out, only = notebooks / "09_tests.ipynb", tmp_path / "out", None
    notebook = nbformat.read(path, as_version=4)
    if what == "none":
        path.unlink()
    elif what == "other":
        only = "05_more"
    elif what == "broken":
        path.write_text("{")
    elif what == "not executed":
        notebook.cells[1].update(outputs=[], execution_count=None)
        nbformat.write(notebook, path)
    elif what == "no slides":
        for cell in notebook.cells:
            cell.metadata.clear()
        nbformat.write(notebook, path)
    else:
        out.write_text("here is a file")
    with pytest.raises((gates.AssetError, ValueError)) as error:
        list(run_slides(notebooks, out, only))
    assert said in str(error.value)
    assert not out.is_dir() or not list(out.iterdir())


def test_without_reveal_a_sentence_says_what_to_install(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr(reveal, "find_spec", lambda name: None)
    with pytest.raises(gates.AssetError, match="`pip install pyreveal` installs it"):
        list(run_slides(notebooks, tmp_path / "out"))


def test_the_command_writes_one_deck(monkeypatch, notebooks, tmp_path, capsys):
    from mmlesson.models import assets

    monkeypatch.setattr(assets, "notebooks_dir", lambda: notebooks)
    assert cli.main(["slides", "--out", str(tmp_path / "decks"), "--only", "09_tests"]) == 0
    assert re.match(r"09_tests: \d+ slides, 3 minutes, .*09_tests.html\n", capsys.readouterr().out)
    assert cli.main(["slides", "--out", str(tmp_path / "decks"), "--only", "nothing"]) == 1
    assert "There is no lesson 'nothing'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        cli.main(["slides", "--out", os.fspath(tmp_path / "file" / "below")])
    assert stop.value.code == 2 and "--out" in capsys.readouterr().err
