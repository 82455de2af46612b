"""The lessons' pages in a real browser: they ask for nothing, and a page that asks is found out."""

import nbformat
import pytest
from browser import SCREENSHOTS, inside, render, write_notebook
from PIL import Image

from mmlesson.teach.lessons import run_lessons

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
