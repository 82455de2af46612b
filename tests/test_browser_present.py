"""A presenter's JupyterLab in a real browser: large type, no solutions, what replays, the key T, and the widgets."""

import re
from collections.abc import Iterator

import pytest
from browser import Browser, chromium, jupyterlab, write_notebook
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from playwright.sync_api import expect

from mmlesson import world
from mmlesson.teach.lessons import WIDGET_SENTENCE
from mmlesson.teach.present import copies, lab

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SECRET = "the answer is forty-two"
PICTURE = "<img alt='two scenes' src='data:image/svg+xml;utf8,<svg xmlns=%22http://www.w3.org/2000/svg%22/>'>"
SLOW, ADD, WIDGET, TRAIN = "losses, number = [], 1", "number += 1", "widgets.temperature", "losses.append"
CELLS = [
    new_markdown_cell("# A small lesson\nEach has a solution folded below it. It has a slow cell."),
    new_code_cell(
        f"{SLOW}\nprint('truly', number)",
        id="slow",
        outputs=[
            new_output("stream", name="stdout", text="this is stored\n"),
            new_output("display_data", data={"text/html": PICTURE, "text/plain": "two scenes"}),
        ],
    ),
    new_code_cell(f"{ADD}\nnumber", id="add"),
    new_markdown_cell(f"<details><summary>Solution</summary>{SECRET}</details>", metadata={"tags": ["solution"]}),
    new_markdown_cell("## A training"),
    new_code_cell(
        "import time\nfrom pathlib import Path\nlosses = []\nwhile not Path('enough').exists():\n"
        "    losses.append(1 / (1 + len(losses)))\n    time.sleep(0.05)\nprint(len(losses), 'steps')",
        id="train",
        outputs=[new_output("stream", name="stdout", text="300 steps\n")],
    ),
    new_markdown_cell("## A widget\nIt comes last in the lesson."),
    new_code_cell("from mmlesson import load_clip, world\nclip = load_clip()", id="load"),
    new_code_cell(
        "from mmlesson.teach import widgets\nwidgets.temperature(clip, world.photos()[0].image, ['a cat', 'a dog'])",
        id="widget",
        metadata={"tags": ["widget"]},
        outputs=[new_output("execute_result", data={"text/plain": WIDGET_SENTENCE}, execution_count=5)],
    ),
]


@pytest.fixture(scope="module")
def presented(browser_path, tmp_path_factory) -> Iterator[Browser]:
    """A browser that has opened the presenter's copy of a small lesson; none of its cells ran."""
    scratch = tmp_path_factory.mktemp("presents")
    write_notebook(scratch / "course" / "01_small.ipynb", CELLS)
    world.sprite("cat")
    with pytest.MonkeyPatch.context() as patch:
        times = {"01_small": {"date": "2026-11-27", "seconds": {"slow": 28.0, "train": 36.0}}}
        patch.setattr(copies, "seconds", lambda: times)
        settings = lab.settings_folder(scratch / "settings of present", scratch / "course")
    folder = scratch / "lessons" / "present"
    list(copies.make(scratch / "course", settings / "lessons", folder, fresh=False))
    with (
        jupyterlab(folder, scratch, presents=settings) as server,
        chromium(browser_path, 1280, 800) as browser,
    ):
        browser.folder = folder
        browser.page.goto(server.notebook("01_small.ipynb"))
        expect(browser.page.locator("#jp-main-statusbar")).to_contain_text("| Idle")
        expect(browser.page.get_by_role("heading", name="A small lesson")).to_be_visible()
        yield browser


def run(browser: Browser, source: str) -> None:
    """Run the cell with this source and go on to the next, with Shift+Enter."""
    browser.page.locator(".jp-CodeCell").filter(has_text=source).first.locator(".cm-content").click()
    browser.page.keyboard.press("Shift+Enter")


def below(browser: Browser, source: str):
    return browser.page.locator(".jp-CodeCell").filter(has_text=source).first.locator(".jp-OutputArea")


def size(place) -> float:
    return float(place.evaluate("element => getComputedStyle(element).fontSize").removesuffix("px"))


def test_type_is_large_and_no_solution_is_there(presented):
    page = presented.page
    assert size(page.locator(".jp-RenderedMarkdown p").first) >= 24
    assert size(page.locator(".cm-line").first) >= 20
    assert SECRET not in page.content() and "folded" not in page.content()
    presented.screenshot("present-begins")


def test_a_widget_comes_first_in_its_section(presented):
    cells = presented.page.locator(".jp-Cell").all_inner_texts()
    heading = next(n for n, text in enumerate(cells) if "A widget" in text)
    assert "widgets.temperature" in cells[heading + 1] and "load_clip" in cells[heading + 2]


def test_a_slow_cell_replays_with_a_mark_and_what_follows_has_its_variables(presented):
    run(presented, SLOW)
    shown = below(presented, SLOW)
    expect(shown).to_contain_text("Replayed: the stored result of 2026-11-27, which took 28 s.")
    expect(shown).to_contain_text("this is stored")
    expect(shown.get_by_role("img", name="two scenes")).to_be_attached()
    expect(shown).not_to_contain_text("truly 1")
    presented.screenshot("present-replayed")


def test_the_key_runs_the_replayed_cell_truly(presented):
    page = presented.page
    page.keyboard.press("t")  # after Shift+Enter the next cell is the active one
    shown = below(presented, SLOW)
    expect(shown).to_contain_text("truly 1")
    expect(shown).not_to_contain_text("Replayed")
    run(presented, ADD)
    expect(below(presented, ADD)).to_contain_text("2")  # the slow cell ran once


def test_a_training_that_runs_truly_moves(presented):
    page = presented.page
    run(presented, TRAIN)
    shown = below(presented, TRAIN)
    expect(shown).to_contain_text("300 steps")
    shown.get_by_role("button", name="Run it truly").click()
    curve = shown.get_by_role("img", name=re.compile(r"losses: \d+ values, now 0\.\d+"))
    expect(curve).to_be_visible()
    for _ in range(3):
        before = curve.get_attribute("aria-label")
        expect(curve).not_to_have_attribute("aria-label", before)
    presented.screenshot("present-training")
    (presented.folder / "enough").touch()
    expect(shown).to_contain_text(re.compile(r"\d+ steps"))
    expect(curve).to_have_count(0)
    expect(shown).not_to_contain_text("Replayed")
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def test_a_widget_that_needs_a_cell_below_it_works(presented):
    run(presented, WIDGET)
    box = below(presented, WIDGET)
    expect(box.get_by_role("status").filter(has_text="At temperature")).to_be_visible()
    assert size(box.locator("[data-kind=result]")) >= 20
    box.scroll_into_view_if_needed()
    presented.screenshot("present-widget")
