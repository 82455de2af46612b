"""Every slide of every deck in a real browser: nothing overflows, all can be read, nothing is asked of a network."""

from pathlib import Path

import nbformat
import pytest
from browser import chromium

from mmlesson.teach.slides import run_slides
from mmlesson.teach.slides.code import MOST_LINES

pytestmark = pytest.mark.browser

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
SCREENS = ((1280, 720), (1920, 1080))
LEAST_LETTER = 24  # pixels on the screen
LEAST_CONTRAST = 4.5

# Shows one slide after the other and returns what is wrong with each, in words.
MEASURE = """
([leastLetter, leastContrast, mostLines]) => {
  const scale = Reveal.getScale(), found = [];
  const channels = colour => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return {rgb: [r, g, b], a};
  };
  const luminance = rgb => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const {rgb, a} = channels(getComputedStyle(each).backgroundColor);
      if (a === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const contrast = element => {
    const [low, high] = [channels(getComputedStyle(element).color).rgb, behind(element)].map(luminance)
      .sort((one, other) => one - other);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = root => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), nodes = [];
    while (walker.nextNode()) {
      const parent = walker.currentNode.parentElement;
      const seen = walker.currentNode.data.trim() && !parent.closest("aside.notes, style, script");
      if (seen) nodes.push(walker.currentNode);
    }
    return nodes;
  };
  const slides = Reveal.getSlides();
  slides.forEach((slide, number) => {
    const {h, v} = Reveal.getIndices(slide);
    Reveal.slide(h, v, 99);
    const say = what => found.push(`slide ${number + 1} (${slide.getAttribute("aria-label")}): ${what}`);
    const page = slide.querySelector(".page"), room = page.getBoundingClientRect();
    if (room.left < -1 || room.top < -1 || room.right > innerWidth + 1 || room.bottom > innerHeight + 1)
      say(`the page is larger than the screen`);
    const style = getComputedStyle(page);
    const bottom = room.bottom - 0.5 * scale * parseFloat(style.paddingBottom);
    for (const element of page.querySelectorAll("*:not(source, col, colgroup)")) {
      const box = element.getBoundingClientRect();
      if (!box.width && !box.height) say(`<${element.tagName}> is not seen: ${element.textContent.slice(0, 40)}`);
      if (box.right > room.right - 8 || box.left < room.left - 1 || (box.bottom > bottom && !element.closest(".keys")))
        say(`<${element.tagName} class="${element.className}"> overflows: ${element.textContent.slice(0, 40)}`);
      const cut = element.clientWidth && element.scrollWidth > element.clientWidth + 1;
      if (cut && getComputedStyle(element).display != "inline")
        say(`<${element.tagName} class="${element.className}"> is cut: ${element.textContent.slice(0, 40)}`);
    }
    const blocks = [...page.children].filter(block => getComputedStyle(block).position != "absolute");
    blocks.forEach((one, i) => blocks.slice(i + 1).forEach(other => {
      const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
          && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
        say(`${one.className || one.tagName} and ${other.className || other.tagName} overlap`);
    }));
    for (const node of [...texts(page), ...texts(document.querySelector(".slide-number"))]) {
      const element = node.parentElement;
      const inside = element.closest(".slides") ? scale : 1;
      const size = parseFloat(getComputedStyle(element).fontSize) * inside;
      if (size < leastLetter - 0.01) say(`${size.toFixed(1)} px: ${node.data.trim().slice(0, 40)}`);
      if (element.closest(".page, .slide-number") && contrast(element) < leastContrast && element.closest(".page"))
        say(`contrast ${contrast(element).toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
    }
    for (const image of page.querySelectorAll("img")) {
      if (!image.complete || !image.naturalWidth) say("a picture is not shown");
      if (!image.alt.trim()) say("a picture has no text alternative");
    }
    if (page.querySelectorAll(".code > div").length > mostLines) say("more lines of code than a slide holds");
    if (!slide.querySelector("aside.notes").textContent.trim()) say("no speaker's notes");
  });
  return {found, slides: slides.length, scale};
}
"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    """All decks, made once."""
    return {deck.name: deck for deck in run_slides(NOTEBOOKS, tmp_path_factory.mktemp("slides"))}


def open_deck(browser, path: Path) -> None:
    browser.page.goto(path.as_uri())
    browser.page.wait_for_function("window.Reveal && Reveal.isReady()")
    browser.page.evaluate("document.fonts.ready.then(() => true)")


def measured(browser) -> dict:
    return browser.page.evaluate(MEASURE, [LEAST_LETTER, LEAST_CONTRAST, MOST_LINES])


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_slide_can_be_read_and_nothing_is_asked_for(browser_path, decks, lesson):
    deck = decks[lesson]
    with chromium(browser_path) as browser:
        for width, height in SCREENS:
            browser.page.goto("about:blank")
            browser.page.set_viewport_size({"width": width, "height": height})
            browser.requests.clear()
            open_deck(browser, deck.html)
            result = measured(browser)
            assert result["found"] == [], f"{lesson} at {width} × {height}:\n" + "\n".join(result["found"])
            assert result["slides"] == deck.slides and result["scale"] == pytest.approx(width / 1280)
            asked = [address for address in browser.requests if not address.startswith(("data:", deck.html.as_uri()))]
            assert asked == []


def test_a_slide_that_cannot_be_read_is_found_out(browser_path, decks):
    spoil = """
    () => {
      const pages = [...document.querySelectorAll(".page")];
      const add = (i, css, text) => pages[i].insertAdjacentHTML("beforeend", `<p style="${css}">${text}</p>`);
      add(1, "font-size: 20px; flex: none", "too small");
      add(2, "color: #aaaaaa; flex: none", "too pale");
      add(3, "height: 900px; flex: none", "too high");
      add(4, "width: 2000px; white-space: nowrap; flex: none", "too wide ".repeat(60));
      pages[5].insertAdjacentHTML("beforeend", "<img src='data:image/png;base64,AAAA' width='30'>");
      pages[6].parentElement.querySelector("aside.notes").textContent = "";
    }
    """
    with chromium(browser_path, 1280, 720) as browser:
        open_deck(browser, decks["01_clip"].html)
        browser.page.evaluate(spoil)
        found = "\n".join(measured(browser)["found"])
    for said in ("20.0 px: too small", "contrast", "overflows: too high", "overflows: too wide", "no text alternative",
                 "no speaker's notes"):  # fmt: skip
        assert said in found, found


def test_the_keys_and_the_print(browser_path, decks, tmp_path):
    deck = decks["04_dalle"]
    with chromium(browser_path, 1280, 720) as browser:
        open_deck(browser, deck.html)
        page = browser.page
        page.keyboard.press("Space")
        assert page.evaluate("Reveal.getSlidePastCount()") == 1
        page.keyboard.press("o")
        assert page.evaluate("Reveal.isOverview()")
        page.keyboard.press("o")
        pressed = 1
        while not page.evaluate("Reveal.isLastSlide()"):  # as a teacher walks through it
            page.keyboard.press("Space")
            pressed += 1
        assert pressed >= deck.slides - 1
        assert page.evaluate("Reveal.getProgress()") == 1
        page.wait_for_function(
            "document.querySelector('.progress span').getBoundingClientRect().width > 0.99 * innerWidth"
        )

        with page.expect_popup() as popup:
            page.keyboard.press("s")
        notes = popup.value
        notes.wait_for_function("document.querySelector('.speaker-controls-notes .value')?.innerText.includes('Say:')")
        assert "min" in notes.locator(".speaker-controls-notes .value").inner_text()
        notes.close()

        page.goto(deck.html.as_uri() + "?print-pdf")
        page.wait_for_function("document.querySelectorAll('.pdf-page').length > 1")
        pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert pdf.count(b"/Type /Page\n") == deck.slides


@pytest.mark.parametrize("lesson", LESSONS)
def test_titles_say_where_one_is(decks, lesson):
    notebook = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    begins = sum(
        cell.metadata.get("slideshow", {}).get("slide_type") in ("slide", "subslide") for cell in notebook.cells
    )
    assert begins < decks[lesson].slides  # the title slide has no cell of its own
