"""Widgets in a class, in a real JupyterLab and a real browser: "Stop" while another cell runs, two works at once, the
keyboard alone, a narrow page, what a checker of accessibility finds, and a kernel that is restarted.
"""

import re
import time

import nbformat
import pytest
from accessible import faults
from browser import chromium, jupyterlab, output, run_all, write, write_notebook
from playwright.sync_api import expect

from mmlesson import world

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

CELLS = """
from pathlib import Path
from mmlesson import load_clip, load_guide, load_vqgan, world
from mmlesson.dalle import DALLEConfig, new_dalle, pieces_of
from mmlesson.teach import widgets

clip, vqgan = load_clip(), load_vqgan()
pieces = pieces_of(["a cat on a blue background", "a dog on a red background"])
dalle = new_dalle(DALLEConfig(pieces, layers=16, vqgan=vqgan.sha256)).to(vqgan.device)  # untrained: any codes will do
photo = world.photos()[0].image
-----
widgets.painter_box(load_guide(), vqgan, "a cat on a blue background", steps=1000)
-----
widgets.sampler_box(dalle, vqgan, clip, n=16)
-----
widgets.temperature(clip, photo, ["a picture of a cat", "a picture of a dog"])
-----
widgets.own_picture(clip)
-----
widgets.token_explorer(dalle, vqgan, world.scene("cat", background="blue").render(96))
-----
widgets.compose(clip)
-----
while not Path("go on").exists():
    sum(range(100_000))  # keeps Python busy, and not asleep
"the other cell has ended"
"""
BOXES = range(1, 7)
PAINTER, SAMPLER, TEMPERATURE, OWN, EXPLORER, COMPOSE, OTHER = range(1, 8)


@pytest.fixture(scope="module")
def lab(browser_path, tmp_path_factory):
    """All cells have run; the last one is free to end, and runs again when a test asks for it."""
    scratch = tmp_path_factory.mktemp("desk")
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.split("-----")]
    world.sprite("cat")
    write_notebook(scratch / "lessons" / "desk.ipynb", cells)
    (scratch / "lessons" / "go on").touch()
    with jupyterlab(scratch / "lessons", scratch) as server, chromium(browser_path, 1280, 1000) as browser:
        browser.page.goto(server.notebook("desk.ipynb"))
        run_all(browser, shown=output(browser, OTHER).get_by_text("has ended"))
        browser.go_on = scratch / "lessons" / "go on"
        yield browser


@pytest.fixture
def other_cell(lab):
    """Another cell runs until the end of the test; returns the sign before it, "[*]:" as long as it runs."""
    lab.go_on.unlink()
    cell = lab.page.locator(".jp-CodeCell").nth(OTHER)
    cell.locator(".cm-content").click()
    lab.page.keyboard.press("Control+Enter")
    prompt = cell.locator(".jp-InputPrompt")
    expect(prompt).to_have_text("[*]:")
    yield prompt
    lab.go_on.touch()
    expect(prompt).to_have_text(re.compile(r"\[\d+\]:"))


def test_pause_and_stop_of_a_painting_answer_while_another_cell_runs(lab, request, record_property):
    box = output(lab, PAINTER)
    status = box.get_by_role("status")
    box.get_by_role("button", name="Start").click()
    expect(status).to_contain_text("At step")
    running = request.getfixturevalue("other_cell")
    for button, said in (("Pause", "Paus"), ("Resume", "At step"), ("Stop", "Stop")):
        box.get_by_role("button", name=button).click()
        pressed = time.monotonic()
        expect(status).to_contain_text(said)
        seconds = time.monotonic() - pressed
        record_property("note", f"{button} of the painter answered in {seconds:.2f} s while another cell ran")
        if button == "Pause":
            expect(status).to_contain_text("Paused at step")
    expect(status).to_contain_text("Stopped at step")
    assert running.inner_text() == "[*]:"
    lab.screenshot("desk-stopped", box)


def test_stop_of_a_drawing_answers_while_another_cell_runs(lab, request, record_property):
    box = output(lab, SAMPLER)
    status = box.get_by_role("status")
    box.get_by_role("button", name="Draw").click()
    expect(status).to_contain_text("At code")
    running = request.getfixturevalue("other_cell")
    box.get_by_role("button", name="Stop").click()
    pressed = time.monotonic()
    expect(status).to_contain_text("Stop")
    record_property(
        "note", f"Stop of the sampler answered in {time.monotonic() - pressed:.2f} s while another cell ran"
    )
    expect(status).to_contain_text("Stopped at code")
    assert running.inner_text() == "[*]:"


@pytest.mark.parametrize("cell, button, at_last", [(PAINTER, "Start", "At step"), (OWN, "Classify", "no picture yet")])
def test_a_button_that_computes_says_at_once_that_it_waits(lab, request, cell, button, at_last):
    box = output(lab, cell)
    status = box.get_by_role("status")
    running = request.getfixturevalue("other_cell")
    before = status.inner_text()
    box.get_by_role("button", name=button).click()
    expect(status).to_contain_text(f"“{button}” waits for the cell that is running.")
    expect(status).to_contain_text(before)
    assert running.inner_text() == "[*]:"
    lab.screenshot(f"desk-waits-{button}", box)
    lab.go_on.touch()
    expect(status).to_contain_text(at_last)
    expect(status).not_to_contain_text("waits for the cell")
    if cell == PAINTER:
        box.get_by_role("button", name="Stop").click()
        expect(status).to_contain_text("Stopped at step")


def test_a_drawing_that_ends_a_painting_says_so(lab):
    painter, sampler = output(lab, PAINTER), output(lab, SAMPLER)
    painter.get_by_role("button", name="Start").click()
    expect(painter.get_by_role("status")).to_contain_text("At step")
    sampler.get_by_role("button", name="Draw").click()
    expect(painter.get_by_role("status")).to_contain_text(
        re.compile(r"Stopped at step \d+ of 1000, because a new drawing began: a kernel does one at a time\.")
    )
    expect(sampler.get_by_role("status")).to_contain_text("At code")
    sampler.get_by_role("button", name="Stop").click()
    expect(sampler.get_by_role("status")).to_contain_text(re.compile(r"Stopped at code \d+ of 144\. "))


def test_sliders_have_names_and_say_what_one_reads(lab):
    box = output(lab, TEMPERATURE)
    handle = box.get_by_role("slider", name="Temperature")
    readout = box.locator(".widget-readout")
    expect(handle).to_have_attribute("aria-valuetext", readout.inner_text())
    own = handle.get_attribute("aria-valuetext")
    assert 0.001 < float(own) < 10  # a temperature, and not its exponent
    handle.focus()
    lab.page.keyboard.press("Home")
    expect(handle).to_have_attribute("aria-valuetext", "0.00100")
    box.get_by_role("button", name="Back to the model's own").click()
    expect(handle).to_have_attribute("aria-valuetext", own)
    for name in ("Temperature", "Guidance"):
        expect(output(lab, SAMPLER).get_by_role("slider", name=name)).to_have_attribute(
            "aria-valuetext", re.compile(r"^\d\.\d+$")
        )


def test_a_file_that_is_no_picture_is_not_counted(lab, tmp_path):
    box = output(lab, OWN)
    (tmp_path / "notes.png").write_text("no picture")
    with lab.page.expect_file_chooser() as chooser:
        box.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files(tmp_path / "notes.png")
    expect(box.get_by_role("status")).to_contain_text("“notes.png” cannot be used")
    expect(box.get_by_role("button", name="Choose a picture (0)")).to_be_visible()
    named = re.search(r"JPEG, .* or TIFF", box.get_by_role("status").inner_text())[0]
    expect(box).to_contain_text(f"{named}, up to 10 MB")
    box.get_by_role("button", name="Classify").click()
    expect(box.get_by_role("status")).to_contain_text("There is no picture yet")


def test_the_keyboard_alone_goes_through_a_widget_from_its_first_control_to_its_last(lab):
    page, box = lab.page, output(lab, SAMPLER)
    box.get_by_label("Prompt", exact=True).focus()
    names = []
    for _ in range(12):
        names.append(
            page.evaluate(
                "() => { const e = document.activeElement;"
                " return e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent }"
            ).strip()
        )
        page.keyboard.press("Tab")
    expected = ["Prompt", "Pictures", "Seed", "Top-k", "Temperature", "Guidance", "Draw"]
    assert [name for name in dict.fromkeys(names) if name in expected] == expected, names
    box.get_by_label("Pictures", exact=True).fill("1")
    box.get_by_role("button", name="Draw").focus()
    page.keyboard.press("Enter")
    expect(box.get_by_role("status")).to_contain_text("At code")
    box.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Space")
    expect(box.get_by_role("status")).to_contain_text("Stopped at code")


@pytest.mark.parametrize("zoom", [1, 2])
def test_a_page_twice_as_large_wraps(lab, zoom):
    write(output(lab, OWN).get_by_label("Labels"), "")
    output(lab, OWN).get_by_label("Labels").fill("x" * 5000)
    output(lab, COMPOSE).scroll_into_view_if_needed()
    # 200 % of a window of 1280 pixels is a window of 640, drawn twice as large
    lab.page.set_viewport_size({"width": 1280 // zoom, "height": 1000 // zoom})
    try:
        for cell in BOXES:
            box = output(lab, cell)
            wide = box.locator(".mmlesson-widget, .mmlesson-widget *").evaluate_all(
                "all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
                " && getComputedStyle(e).overflowX !== 'visible' && !/^(INPUT|SELECT|svg)$/.test(e.nodeName))"
                ".map(e => e.className)"
            )
            assert not wide, f"cell {cell}: {wide}"
            lab.screenshot(f"desk-{cell}-zoom-{zoom}", box)
        for track in lab.page.locator(".mmlesson-widget .noUi-base").all():
            assert track.bounding_box()["width"] >= 100
    finally:
        lab.page.set_viewport_size({"width": 1280, "height": 1000})


def test_a_checker_of_accessibility_finds_nothing_serious_in_the_widgets(lab):
    assert faults(lab.page, ".mmlesson-widget") == []


def test_after_a_restart_the_widgets_say_that_their_cell_has_to_run_again(lab):
    page = lab.page
    gone = page.get_by_text("their kernel was restarted or has ended. Run the cell again.")
    assert gone.count() == 6 and not gone.first.is_visible()
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm Kernel Restart").click()
    for cell in BOXES:
        expect(output(lab, cell).get_by_role("alert")).to_contain_text("Run the cell again")
    lab.screenshot("desk-restarted", output(lab, PAINTER))
