"""The lessons' pages in a real browser: they ask for nothing, and a page that asks is found out."""

import shutil
from pathlib import Path

import nbformat
import pytest
from accessible import faults
from browser import SCREENSHOTS, chromium, inside, jupyterlab, render, write_notebook
from PIL import Image
from playwright.sync_api import expect

from mmlesson.teach.lessons import run_lessons, to_html

pytestmark = pytest.mark.browser


def test_a_lessons_page_asks_for_nothing(browser_path, tmp_path):
    markdown = r"""# A lesson

Text with a formula, $\cos(x, y) = \frac{x \cdot y}{|x|\,|y|}$,
a badge ![badge](https://example.org/badge.svg) and a table.

| a | b |
| --- | --- |
| 1 | 2 |

$$\mathrm{loss} = -\frac{1}{n} \sum_i \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}$$
"""
    code = (
        "from PIL import Image\n"
        "import ipywidgets\n"
        "from mmlesson.teach import figures\n"
        "picture = Image.new('RGB', (64, 64), 'orange')\n"
        "display(figures.probabilities(picture, ['an orange', 'a lemon'], [0.8, 0.2], 'An orange'))\n"
        "ipywidgets.IntSlider(description='Unused')"
    )
    cells = [nbformat.v4.new_markdown_cell(markdown), nbformat.v4.new_code_cell(code)]
    write_notebook(tmp_path / "notebooks" / "00_page.ipynb", cells)
    (lesson,) = run_lessons(tmp_path / "notebooks", tmp_path / "pages")
    picture = SCREENSHOTS / "page.png"
    assert render(browser_path, lesson.html, picture) == []
    with Image.open(picture) as drawn:
        assert drawn.width == 1100 and len(drawn.convert("RGB").getcolors(2**24)) > 100


def test_a_page_that_asks_for_something_is_found_out(browser_path, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<link rel=stylesheet href='https://example.org/style.css'><img src='beside.png'>"
        "<div style='height: 20000px'>tall</div>"
        "<script>fetch('http://example.org/asked').catch(() => 0)</script><p style='color: red'>the end</p>"
    )
    asked = render(browser_path, page, tmp_path / "page.png", width=400)
    assert sorted(asked) == sorted(
        ["https://example.org/style.css", "http://example.org/asked", (tmp_path / "beside.png").resolve().as_uri()]
    )
    assert [inside(address) for address in sorted(asked)] == [True, False, False]
    with Image.open(tmp_path / "page.png") as drawn:
        assert drawn.height > 20000
        assert drawn.convert("L").crop((0, 19000, 400, drawn.height)).getextrema()[0] < 200  # the end is in it


# ------------------------------------------------------------------------------- solutions stay folded


LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def folded_until_opened(page, n: int) -> None:
    """Each of the `n` solutions is out of sight, and there once the reader opens it."""
    solutions = page.locator("details").filter(has=page.locator("summary", has_text="olution of exercise"))
    expect(solutions).to_have_count(n)
    for number in range(n):
        solution = solutions.nth(number)
        code = solution.locator("pre").first
        expect(code).to_be_hidden()
        solution.locator("summary").click()
        expect(code).to_be_visible()
        expect(code).to_contain_text("check(")


def n_solutions(notebook) -> int:
    return sum("solution" in cell.metadata.get("tags", []) for cell in notebook.cells)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_page_shows_a_solution_when_the_reader_asks_and_its_checker_finds_nothing_serious(
    browser_path, tmp_path, path
):
    """Every lesson as it is committed, with its outputs; the checker of accessibility sees it with all solutions."""
    notebook = nbformat.read(path, as_version=4)
    page = tmp_path / "page.html"
    page.write_text(to_html(notebook, path), encoding="utf8")
    with chromium(browser_path) as browser:
        browser.page.goto(page.as_uri())
        assert n_solutions(notebook) >= 6
        folded_until_opened(browser.page, n_solutions(notebook))
        assert faults(browser.page) == []


def test_jupyterlab_shows_a_solution_when_the_reader_asks(browser_path, tmp_path):
    path = LESSONS[0]
    (tmp_path / "lessons").mkdir()
    shutil.copy(path, tmp_path / "lessons")
    with jupyterlab(tmp_path / "lessons", tmp_path) as server, chromium(browser_path, 1280, 1000) as browser:
        browser.page.goto(server.notebook(path.name))
        folded_until_opened(browser.page, n_solutions(nbformat.read(path, as_version=4)))


def test_the_checker_of_accessibility_finds_what_is_pale(browser_path):
    with chromium(browser_path) as browser:
        browser.page.set_content('<html lang="en"><title>pale</title><p style="color: #bbb">pale words</p></html>')
        (pale,) = faults(browser.page)
    assert pale.startswith("color-contrast (serious), 1 places")
