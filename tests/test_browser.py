"""The widgets in a real JupyterLab, in a real browser; screenshots are kept in build/screenshots.

One server, one page and one kernel serve all tests here, as they serve a learner.
"""

import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from browser import (
    ERROR,
    SCREENSHOTS,
    choose,
    chromium,
    jupyterlab,
    middle,
    output,
    picture,
    run_all,
    write,
    write_notebook,
)
from PIL import Image
from playwright.sync_api import expect

from mmlesson import ImageIndex, load_clip, world

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]  # one worker: they share a server

CELLS = """
from mmlesson import ImageIndex, load_clip, load_guide, load_vqgan, world
from mmlesson.dalle import DALLEConfig, new_dalle, pieces_of
from mmlesson.teach import widgets

clip, vqgan = load_clip(), load_vqgan()
pieces = pieces_of(["a cat on a blue background", "a dog on a red background"])
dalle = new_dalle(DALLEConfig(pieces, layers=16, vqgan=vqgan.sha256)).to(vqgan.device)  # untrained: any codes will do
photo = world.photos()[0].image
scenes = world.sample(150, "heldout", seed=5)
index = ImageIndex.open("../index", clip)
-----
widgets.own_picture(clip)
-----
widgets.temperature(clip, photo, ["a picture of a cat", "a picture of a dog", "a picture of a person"])
-----
widgets.compose(clip, "cat", "red apple", background="blue")
-----
widgets.search_box(index, scenes[3].caption, k=10)
-----
painting = widgets.painter_box(load_guide(), vqgan, "a cat on a blue background", steps=300)
painting
-----
"The kernel reads: " + painting.children[-1].children[0].value.split(">")[1].split("<")[0]
-----
widgets.token_explorer(dalle, vqgan, world.scene("cat", background="blue").render(96))
-----
widgets.sampler_box(dalle, vqgan, clip, n=16)
"""

SHARE = r"\S+% \(cosine -?\d\.\d\d\)"  # as the chart of an own picture writes it


@pytest.fixture(scope="module")
def lab(browser_path, tmp_path_factory):
    """A browser that has opened the notebook of widgets and run all its cells."""
    scratch = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.split("-----")]
    # sprites and index are made now: else their progress bars would stand under the cells
    subprocess.run([sys.executable, "-c", "from mmlesson import world; world.sprite('cat')"], check=True)
    index = ImageIndex.build(world.sample(150, "heldout", seed=5), load_clip("pocket-clip"), path=scratch / "index")
    index.calibrate(
        [f"a {thing} on a {colour} background" for thing in ("violin", "castle") for colour in world.BACKGROUNDS]
    )
    write_notebook(scratch / "lessons" / "widgets.ipynb", cells)
    with jupyterlab(scratch / "lessons", scratch) as server, chromium(browser_path, 1280, 1000) as browser:
        page = browser.page
        page.goto(server.notebook("widgets.ipynb"))
        run_all(browser, shown=output(browser, 8).get_by_text("Press “Draw”"))
        yield browser


# -------------------------------------------------------------------------------------- the widgets


def test_no_picture_and_a_broken_one_are_a_sentence_and_no_traceback(lab, tmp_path):
    box = output(lab, 1)
    status = box.get_by_role("status")
    expect(status).to_contain_text("Choose a picture")
    box.get_by_role("button", name="Classify").click()
    expect(status).to_contain_text("There is no picture yet")
    lab.screenshot("own-picture-none", box)

    broken = tmp_path / "notes.png"
    broken.write_text("these are notes, not a picture")
    choose(lab, box, broken)
    expect(status).to_contain_text("“notes.png” cannot be used: it is not a picture")
    expect(picture(box)).to_have_count(0)
    lab.screenshot("own-picture-broken", box)


def test_a_picture_is_chosen_shown_and_classified(lab, tmp_path):
    box = output(lab, 1)
    status = box.get_by_role("status")
    photo = tmp_path / "my cat.png"
    world.photos()[0].image.save(photo)
    choose(lab, box, photo)
    expect(status).to_contain_text("“my cat.png”, 451×300 pixels")
    expect(picture(box)).to_have_attribute("alt", "Your picture, my cat.png")
    preview = picture(box).get_attribute("src")
    lab.screenshot("own-picture-chosen", box)

    box.get_by_role("button", name="Classify").click()
    expect(status).to_contain_text(re.compile(r"Highest: “a picture of a (cat|dog|person)”, \d+%"))
    expect(picture(box)).not_to_have_attribute("src", preview)
    expect(picture(box)).to_have_attribute("alt", re.compile(rf"my cat.png: cat {SHARE}, dog {SHARE}, person {SHARE}"))
    lab.screenshot("own-picture", box)

    chart = picture(box).get_attribute("src")
    box.get_by_label("Labels").fill("a pizza, a rocket, a cat with a zxqv")
    box.get_by_label("Prompt template").fill("{}")
    box.get_by_role("button", name="Classify").click()
    expect(picture(box)).not_to_have_attribute("src", chart)
    expect(picture(box)).to_have_attribute("alt", re.compile(rf"a pizza {SHARE}, a rocket"))
    expect(box).to_contain_text("never met the word 'zxqv'")
    lab.screenshot("own-picture-labels", box)


def test_a_picture_of_nearly_ten_megabytes_arrives(lab, tmp_path):
    box = output(lab, 1)
    expect(box).to_contain_text("up to 10 MB")
    noise = np.random.default_rng(0).integers(0, 256, (1800, 1800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png", compress_level=0)
    assert 9.7e6 < (tmp_path / "noise.png").stat().st_size < 10e6
    choose(lab, box, tmp_path / "noise.png")
    expect(box.get_by_role("status")).to_contain_text("“noise.png”, 1800×1800 pixels")


def test_the_temperature_follows_the_slider(lab):
    box = output(lab, 2)
    status, handle = box.get_by_role("status"), box.get_by_role("slider")
    box.scroll_into_view_if_needed()
    expect(status).to_contain_text("(the model's own)")
    mark = box.locator("[data-mark=own] > span").first
    assert abs(middle(handle) - middle(mark)) < 3  # the mark points at the handle
    lab.screenshot("temperature-own", box)

    before = picture(box).get_attribute("src")
    track = box.locator(".noUi-base").bounding_box()
    mouse = lab.page.mouse
    mouse.move(middle(handle), track["y"] + track["height"] / 2)
    mouse.down()
    for share in (0.5, 0.7, 0.85, 1.0):
        mouse.move(track["x"] + share * track["width"], track["y"] + track["height"] / 2)
    mouse.up()
    expect(status).to_contain_text("At temperature 10 (the model's own: ")
    expect(picture(box)).not_to_have_attribute("src", before)
    expect(picture(box)).to_have_attribute(
        "alt", re.compile(r"temperature 10 .*: a picture of a cat 3\d%, a picture of a dog 3\d%")
    )
    lab.screenshot("temperature-hot", box)

    handle.focus()
    lab.page.keyboard.press("Home")
    expect(status).to_contain_text("At temperature 0.001 ")
    lab.screenshot("temperature-cold", box)
    box.get_by_role("button", name="Back to the model's own").click()
    expect(status).to_contain_text("(the model's own)")
    expect(picture(box)).to_have_attribute("src", before)


def test_a_scene_is_composed_and_its_captions_compared(lab):
    box = output(lab, 3)
    status = box.get_by_role("status")
    expect(status).to_contain_text(re.compile(r"caption .*wins.*: \d+%"))
    expect(box.get_by_role("row")).to_have_count(4)
    expect(box).to_contain_text("a red apple left of a cat on a blue background")
    lab.screenshot("compose", box)

    before = picture(box).get_attribute("src")
    box.get_by_label("First object").select_option("astronaut")
    expect(status).to_contain_text("You changed the scene")
    expect(picture(box)).to_have_count(0)
    box.get_by_label("Second object").select_option("astronaut")
    box.get_by_role("button", name="Draw and compare").click()
    expect(status).to_contain_text("Choose two different objects")
    lab.screenshot("compose-same", box)

    box.get_by_label("Second object").select_option("pizza")
    box.get_by_label("Relation").select_option("above")
    box.get_by_label("Background").select_option("yellow")
    box.get_by_role("button", name="Draw and compare").click()
    expect(picture(box)).not_to_have_attribute("src", before)
    expect(picture(box)).to_have_attribute(
        "alt", re.compile("an astronaut above a pizza on a yellow background: true .*%")
    )
    expect(box).to_contain_text("a pizza above an astronaut on a yellow background")
    lab.screenshot("compose-changed", box)


def test_pictures_are_found_by_a_sentence_and_by_pointing(lab):
    box = output(lab, 4)
    status, found = box.get_by_role("status"), picture(box)
    sentence = box.get_by_label("Sentence")
    box.scroll_into_view_if_needed()
    expect(status).to_contain_text(re.compile(r"\d found, scores 0.\d+ to 0.\d+"))
    lab.screenshot("search", box)

    some = world.sample(150, "heldout", seed=5)[7].caption
    box.get_by_label("Show the nearest even where nothing fits").check()
    write(sentence, some)
    sentence.press("Enter")
    expect(status).to_contain_text(f"“{some}”: 10 found")
    expect(found).to_have_count(10)
    expect(found.first).to_have_attribute("alt", some)
    other = found.nth(4).get_attribute("alt")
    lab.screenshot("search-sentence", box)

    box.get_by_title(f"More like this: {other}").click()
    expect(status).to_contain_text("more like 1 picture")
    lab.screenshot("search-example", box)
    expect(box.get_by_role("figure").filter(has_text="+ example")).to_contain_text(other)
    box.get_by_title(re.compile("Less like this: ")).nth(2).click()
    expect(status).to_contain_text("more like 1 picture, less like 1 picture")
    lab.screenshot("search-examples", box)

    box.get_by_role("button", name="No examples (now 2)").click()
    expect(status).not_to_contain_text("more like")
    box.get_by_label("How many").fill("3")
    box.get_by_label("How many").press("Enter")
    expect(found).to_have_count(3)

    box.get_by_label("Show the nearest even where nothing fits").uncheck()
    write(sentence, "a zxqv with a zxqv")
    box.get_by_role("button", name="Search").click()
    expect(box).to_contain_text("never met the word 'zxqv'")
    expect(status).to_contain_text("nothing fits")
    expect(found).to_have_count(0)
    lab.screenshot("search-nothing", box)
    box.get_by_label("Show the nearest even where nothing fits").check()
    expect(found).to_have_count(3)
    write(sentence, "")
    box.get_by_role("button", name="Search").click()
    expect(status).to_contain_text("Say what to look for")
    expect(found).to_have_count(0)
    write(sentence, "an animal")
    sentence.press("Enter")
    expect(found).to_have_count(3)


def test_a_picture_grows_while_another_cell_runs(lab):
    box = output(lab, 5)
    status = box.get_by_role("status")
    box.scroll_into_view_if_needed()
    expect(status).to_contain_text("Press “Start”")
    expect(box.get_by_role("img", name="No picture yet")).to_be_visible()
    expect(box.get_by_role("button", name="Pause")).to_be_disabled()
    expect(box.get_by_role("button", name="Stop")).to_be_disabled()
    lab.screenshot("painter", box)

    box.get_by_role("button", name="Start").click()
    expect(status).to_contain_text(re.compile(r"At step \d+ of 300: loss \d\.\d\d, score -?\d\.\d\d, \d+ s left"))
    expect(picture(box)).to_have_attribute("alt", re.compile(r"Step \d+ of 300: a cat on a blue background"))
    expect(picture(box)).not_to_have_attribute("src", picture(box).get_attribute("src"))
    expect(box.get_by_role("img", name=re.compile(r"Curves over \d+ of 300 steps: loss from"))).to_be_visible()
    lab.screenshot("painter-paints", box)

    lab.page.locator(".jp-CodeCell").nth(6).locator(".cm-content").click()
    lab.page.keyboard.press("Control+Enter")
    expect(output(lab, 6)).to_contain_text(
        re.compile(r"The kernel reads: At step \d+ of 300")
    )  # so it ran before the end

    box.get_by_role("button", name="Pause").click()
    expect(status).to_contain_text(re.compile(r"Paused at step \d+ of 300"))
    held = status.inner_text()
    lab.page.wait_for_timeout(2000)
    assert status.inner_text() == held
    expect(picture(box)).to_have_attribute("alt", re.compile("paused"))
    lab.screenshot("painter-paused", box)

    box.get_by_role("button", name="Resume").click()
    expect(status).to_contain_text("At step")
    expect(status).not_to_contain_text(held.removeprefix("Paused at ").split(":")[0])
    box.get_by_role("button", name="Stop").click()
    expect(status).to_contain_text(re.compile(r"Stopped at step \d+ of 300\. The best is shown: step \d+, loss"))
    expect(picture(box)).to_have_attribute("alt", re.compile(r"The best of \d+ steps, step \d+: a cat"))
    expect(box.get_by_role("button", name="Pause")).to_be_disabled()
    lab.screenshot("painter-stopped", box)

    box.get_by_label("Steps", exact=True).fill("3")
    box.get_by_label("Steps", exact=True).press("Enter")
    write(box.get_by_label("Prompt", exact=True), "")
    box.get_by_role("button", name="Start").click()
    expect(status).to_contain_text("There is no prompt")
    expect(picture(box)).to_have_count(0)
    write(box.get_by_label("Prompt", exact=True), "a zxqv on a red background")
    box.get_by_role("button", name="Start").click()
    expect(box).to_contain_text("never met the word 'zxqv'")
    expect(status).to_contain_text(re.compile(r"Done: 3 steps in .*\. The best is shown"))
    lab.screenshot("painter-done", box)


def test_a_place_of_a_picture_is_explored(lab):
    box = output(lab, 7)
    status, prompt = box.get_by_role("status"), box.get_by_label("Prompt", exact=True)
    box.scroll_into_view_if_needed()
    expect(status).to_contain_text(
        re.compile(r"At row 7, column 7, given the caption and 78 codes, the likeliest is code \d+, \d+\.\d%")
    )
    expect(box.get_by_role("img", name="What it has read of the picture: 78 codes")).to_be_visible()
    expect(box.get_by_role("row").last).to_contain_text("all others")
    expect(box.get_by_role("button", name="Undo")).to_be_disabled()
    lab.screenshot("explorer", box)

    box.get_by_label("Row", exact=True).fill("3")
    box.get_by_label("Row", exact=True).press("Enter")
    expect(status).to_contain_text("At row 3, column 7, given the caption and 30 codes")
    box.get_by_label("Put in", exact=True).select_option(index=1)
    box.get_by_role("button", name="Put it here").click()
    expect(status).to_contain_text("rank 2 of 1,024")
    before, after = (
        box.get_by_role("img", name=f"The picture {when}, row 3, column 7 outlined") for when in ("before", "after")
    )
    expect(before).to_be_visible()
    expect(after).not_to_have_attribute("src", before.get_attribute("src"))
    expect(box.get_by_role("row").nth(2)).to_contain_text("there now")
    lab.screenshot("explorer-put", box)

    box.get_by_role("button", name="Put the likeliest here").click()
    expect(status).to_contain_text("rank 1 of 1,024")
    box.get_by_role("button", name="Let it draw the rest").click()
    expect(status).to_contain_text("Rows 3 to 12 are drawn anew, with seed 0.")
    lab.screenshot("explorer-rest", box)
    for _ in range(3):
        box.get_by_role("button", name="Undo").click()
    expect(box.get_by_role("button", name="Undo")).to_be_disabled()

    write(prompt, "a zxqv on a red background")
    prompt.press("Enter")
    expect(box).to_contain_text("never met the word 'zxqv'")
    write(prompt, "")
    prompt.press("Enter")
    expect(status).to_contain_text("There is no prompt")
    expect(picture(box)).to_have_count(0)
    lab.screenshot("explorer-no-prompt", box)
    write(prompt, "a dog on a red background")
    prompt.press("Enter")
    expect(box.get_by_role("img", name="The picture, row 3, column 7 outlined")).to_be_visible()


def test_pictures_are_drawn_code_by_code(lab):
    box = output(lab, 8)
    status, prompt = box.get_by_role("status"), box.get_by_label("Prompt", exact=True)
    draw, stop = box.get_by_role("button", name="Draw"), box.get_by_role("button", name="Stop")
    box.scroll_into_view_if_needed()
    expect(box.get_by_role("img", name="No picture yet")).to_be_visible()
    expect(stop).to_be_disabled()
    lab.screenshot("sampler", box)

    draw.click()
    expect(status).to_contain_text(re.compile(r"At code \d+ of 144, \d+ s left"))
    expect(picture(box)).to_have_count(16)
    expect(picture(box).first).to_have_attribute(
        "alt", re.compile(r"Picture 1 of 16, code \d+ of 144: a cat on a blue background")
    )
    lab.screenshot("sampler-draws", box)
    stop.click()
    expect(status).to_contain_text(re.compile(r"Stopped at code \d+ of 144\. What is grey was not drawn\."))
    expect(stop).to_be_disabled()
    lab.screenshot("sampler-stopped", box)

    write(prompt, "")
    draw.click()
    expect(status).to_contain_text("There is no prompt")
    box.get_by_label("Pictures", exact=True).fill("2")
    box.get_by_label("Pictures", exact=True).press("Enter")
    write(prompt, "a zxqv on a red background")
    draw.click()
    expect(box).to_contain_text("never met the word 'zxqv'")
    expect(status).to_contain_text(re.compile(r"Done: 2 pictures in .*\. The best is first\. Below each"))
    expect(picture(box)).to_have_count(2)
    expect(picture(box).first).to_have_attribute("alt", re.compile(r"Picture 1 of 2, cosine -?0\.\d+: a zxqv"))
    lab.screenshot("sampler-done", box)


@pytest.mark.parametrize("width", [1280, 760])
def test_nothing_is_cut_off_and_everything_has_a_name(lab, width):
    lab.page.set_viewport_size({"width": width, "height": 1000})
    try:
        for cell in (1, 2, 3, 4, 5, 7, 8):
            box = output(lab, cell)
            cut = box.locator(".widget-label, .widget-button, .widget-upload, .widget-html-content").evaluate_all(
                "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
            )
            assert not cut, cut
            wide = box.locator(".lm-Panel").evaluate_all(
                "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
            )
            assert not wide, f"cell {cell} is wider than its place"
            lab.screenshot(f"cell-{cell}-at-{width}", box)
        nameless = (
            lab.page.locator(".jp-OutputArea")
            .locator("input:not([type=file]), select, textarea")
            .evaluate_all(
                "all => all.filter(e => !e.labels?.length && !e.getAttribute('aria-label')).map(e => e.outerHTML)"
            )
        )
        assert not nameless, nameless
        assert lab.page.locator(".jp-OutputArea img:not([alt])").count() == 0
    finally:
        lab.page.set_viewport_size({"width": 1280, "height": 1000})


def test_the_page_asked_this_machine_alone_and_showed_no_traceback(lab):
    lab.page.screenshot(path=SCREENSHOTS / "notebook.png")
    assert lab.page.locator(ERROR).count() == 0
    assert any(address.startswith("ws://127.0.0.1") for address in lab.requests) and len(lab.requests) > 20
    assert lab.outside == []
