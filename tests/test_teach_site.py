"""The site of the course: built with the network cut off, whole, and readable in a browser, wide, narrow, printed."""

import functools
import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from accessible import faults
from browser import chromium
from bs4 import BeautifulSoup

from mmlesson import gates
from mmlesson.teach.glossary import GLOSSARY
from mmlesson.teach.site import build, glossary, reference, run_site
from mmlesson.teach.site import lessons as lesson_pages

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CARDS = sorted((ROOT / "data" / "models").glob("*/README.md"))

# Boxes around the text that do not flow from sheet to sheet: Firefox cuts lines in two where such a box is divided.
STIFF = """
() => {
  const found = [];
  const text = document.querySelector("article"), top = document.documentElement;
  for (let each = text.parentElement; each != top; each = each.parentElement) {
    const {display, overflowX, overflowY} = getComputedStyle(each);
    if (display != "block" || overflowX != "visible" || overflowY != "visible")
      found.push(`<${each.tagName} class="${each.className}">: ${display}, ${overflowX}, ${overflowY}`);
  }
  return found;
}
"""

# What of a page cannot be seen whole: code that is cut (it neither wraps nor scrolls), pictures wider than the page.
CUT = """
() => {
  const found = [];
  for (const block of document.querySelectorAll("pre, .output, .table-wrapper, .sig")) {
    const scrolls = !matchMedia("print").matches && ["auto", "scroll"].includes(getComputedStyle(block).overflowX);
    if (block.clientWidth && block.scrollWidth > block.clientWidth + 1 && !scrolls)
      found.push(`<${block.tagName} class="${block.className}">: ${block.textContent.trim().slice(0, 60)}`);
  }
  const width = document.documentElement.clientWidth;
  for (const seen of document.querySelectorAll("article pre, article img"))
    if (seen.clientWidth && seen.getBoundingClientRect().right > width + 1 && !seen.closest(".table-wrapper"))
      found.push(`<${seen.tagName}> leaves the page: ${(seen.alt || seen.textContent).trim().slice(0, 60)}`);
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  return found;
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, without_network) -> Path:
    """The site as `mmlesson site` writes it behind the wall, without a complaint."""
    out = tmp_path_factory.mktemp("site") / "course"
    command = [sys.executable, "-m", "mmlesson.cli", "site", "--out", out]
    done = subprocess.run(without_network(command), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert re.fullmatch(rf"{re.escape(str(out))}/index\.html: \d+ pages, \d+\.\d MB\n", done.stdout), done.stdout
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[str, BeautifulSoup]:
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")
        for path in sorted(site.rglob("*.html"))
    }


# ------------------------------------------------------------------------------------------- what it holds


def test_there_is_a_page_for_everything(pages):
    expected = {"index.html", "search.html", "genindex.html", "glossary.html", "measured.html", "api/index.html"}
    expected |= {f"lessons/{path.stem}.html" for path in NOTEBOOKS}
    expected |= {f"models/{path.parent.name}.html" for path in CARDS}
    expected |= {f"api/{name}.html" for name in reference.MODULES}
    assert expected <= pages.keys()
    listed = {link["href"] for link in pages["index.html"].select(".toctree-wrapper a")}
    assert (
        expected - {"index.html", "search.html", "genindex.html"} - {f"api/{n}.html" for n in reference.MODULES}
        <= listed
    )


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(pages, site):
    anchors = {name: {each["id"] for each in page(id=True)} for name, page in pages.items()}
    broken = []
    for name, page in pages.items():
        for element in page.select("[href], [src], [srcset]"):
            address = element.get("href") or element.get("src") or element.get("srcset")
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if element.name != "a":
                    broken.append(f"{name} loads {address}")
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            inside = target.resolve().relative_to(site.resolve()).as_posix()
            if not target.is_file():
                broken.append(f"{name}: {address} is not there")
            elif parts.fragment and unquote(parts.fragment) not in anchors[inside]:
                broken.append(f"{name}: {address} has no such place")
    assert broken == []
    styles = "".join(path.read_text(encoding="utf8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]+", styles) == []


def test_every_picture_has_a_text_alternative(pages):
    pictures = [(name, picture) for name, page in pages.items() for picture in page("img")]
    assert len(pictures) > 60
    assert [name for name, picture in pictures if not picture.get("alt", "").strip()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_shows_what_its_notebook_stores(pages, path):
    page, notebook = pages[f"lessons/{path.stem}.html"], nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    drawn = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(page.select("article div.output img")) == sum(len(re.findall("<img ", each)) for each in drawn)
    folded = page.find_all("summary", string=re.compile(r"olution of exercise"))
    solutions = [cell for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])]
    assert len(folded) == len(solutions) > 0
    for summary in folded:
        details = summary.find_parent("details")
        assert not details.has_attr("open") and details.find("pre")
    widgets = sum("Interactive controls" in output.get("data", {}).get("text/plain", "") for output in outputs)
    assert page.get_text().count(lesson_pages.NO_KERNEL) == widgets > 0
    text = page.select_one("article").get_text()
    for output in outputs:
        if output.output_type == "stream":
            assert output.text.rstrip() in text


def test_every_term_of_the_glossary_is_explained_and_leads_to_its_first_place(pages):
    terms = {term.get_text().rstrip("¶"): term.find_next_sibling("dd") for term in pages["glossary.html"].select("dt")}
    assert set(terms) == set(GLOSSARY)
    for term, said in terms.items():
        text = " ".join(said.get_text().split())
        assert GLOSSARY[term].lower() in text.lower() and "…" not in text.replace("I₁ …", ""), (term, text)
        link = said.find_all("a")[-1]
        name, _, anchor = link["href"].partition("#")
        assert link.get_text().startswith("First in lesson ")
        place = pages[name].find(id=anchor)
        there = " ".join(each.get_text() for each in [place, *place.find_all_next(["p", "li"], limit=40)])
        assert re.search(glossary.word(term), " ".join(there.split()), re.IGNORECASE), term


def test_the_reference_explains_every_name_of_the_package(pages):
    import mmlesson

    explained = {
        term["id"] for name, page in pages.items() if name.startswith("api/") for term in page.select("dt[id]")
    }
    for name, (module, attribute) in mmlesson._LAZY.items():
        wanted = f"{module}.{attribute}"
        if attribute and wanted not in explained:
            assert any(each.endswith(f".{attribute}") for each in explained), wanted
        assert name in pages["api/index.html"].select_one("article").get_text()
    said = pages["api/clip.html"].get_text()
    assert "The loss that trains a CLIP" in said and "PIL picture → float32 [3, image_size, image_size]" in said


def test_measured_tables_are_there(pages):
    text = " ".join(pages["measured.html"].select_one("article").get_text().split())
    assert len(pages["measured.html"]("table")) >= 10 and "zero_shot_top1" in text


# --------------------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_pages_open_from_a_file_wide_and_narrow_light_and_dark(browser_path, site, pages):
    wrong, ground = [], set()
    with chromium(browser_path, 1280, 900) as browser:
        page = browser.page
        page.on("pageerror", lambda error: wrong.append(str(error)))
        for name in pages:
            page.goto((site / name).as_uri())
            shown = page.evaluate("[...document.images].filter(each => each.complete && !each.naturalWidth).length")
            assert shown == 0, f"{name}: {shown} pictures are not shown"
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 900})
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    wrong += [f"{name}, {width} px, {scheme}: {fault}" for fault in page.evaluate(CUT)]
                    ground.add((scheme, page.evaluate("getComputedStyle(document.body).backgroundColor")))
        asked = {address for address in browser.requests if not address.startswith((site.as_uri(), "data:"))}
    assert wrong == [] and asked == set()
    assert len(ground) == 2, f"one ground for light and one for dark: {ground}"


@pytest.mark.browser
def test_nothing_keeps_a_reader_out(browser_path, site):
    both = ("light", "dark")
    kinds = {  # each is opened once: how wide, and on which grounds; lessons take the longest
        "index.html": (1280, both),
        "lessons/04_dalle.html": (1280, ("dark",)),
        "api/clip.html": (390, both),
        "models/pocket-clip.html": (390, both),
        "measured.html": (1280, ("dark",)),
        "glossary.html": (390, both),
        "genindex.html": (390, ("light",)),
        "search.html?q=cosine": (1280, both),
    }
    found = {}
    with chromium(browser_path) as browser:
        for name, (width, schemes) in kinds.items():
            browser.page.set_viewport_size({"width": width, "height": 900})
            browser.page.goto(f"{site.as_uri()}/{name}")
            if "?" in name:
                browser.page.wait_for_selector("#search-results li")
            for scheme in schemes:
                browser.page.emulate_media(color_scheme=scheme)
                browser.page.evaluate(
                    "Promise.all(document.getAnimations().map(each => each.finished)).then(() => true)"
                )
                found[name, scheme] = faults(browser.page)
    assert found == dict.fromkeys(found, [])
    assert len(found) == sum(len(schemes) for _, schemes in kinds.values())


def search(page, words: str) -> None:
    page.fill("input.sidebar-search", words)
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li")


@pytest.mark.browser
def test_the_search_box_finds_words_without_a_server(browser_path, site):
    with chromium(browser_path) as browser:
        browser.page.goto((site / "index.html").as_uri())
        search(browser.page, "hippocampus")
        browser.page.locator("#search-results a", has_text="Lesson 1").click()
        browser.page.wait_for_selector(".highlighted")
        assert urlsplit(browser.page.url).path.endswith("lessons/01_clip.html")
        search(browser.page, "contrastive_loss")
        browser.page.locator("#search-results a", has_text="mmlesson.clip.contrastive_loss").click()
        browser.page.wait_for_selector("#mmlesson\\.clip\\.contrastive_loss")
        browser.page.set_viewport_size({"width": 390, "height": 844})  # where the box is behind a button
        browser.page.locator("header .nav-overlay-icon, .mobile-header label").first.click()
        search(browser.page, "codebook")
        assert browser.page.locator("#search-results a", has_text="Lesson 3").count()
        assert browser.outside == []


@pytest.mark.browser
def test_no_line_is_cut_on_paper(browser_path, site, tmp_path):
    with chromium(browser_path, 680, 960) as browser:  # A4 at 96 pixels an inch, without 15 mm on each side
        page = browser.page
        page.emulate_media(media="print")
        for name in ("lessons/03_vqgan_clip", "api/search", "models/pocket-clip", "lessons/01_clip"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate(CUT) == [] and page.evaluate(STIFF) == []
            assert not page.locator(".skip-to-content, .sidebar-drawer, .mobile-header").locator("visible=true").count()
        page.add_style_tag(content="pre { white-space: pre !important; }")
        assert page.evaluate(CUT), "what is cut is found"
        pdf = page.pdf(format="A4")
        page.emulate_media(media="screen")
        assert page.evaluate(STIFF), "the theme's own boxes are found"
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") > 2


@pytest.mark.browser
def test_it_works_in_any_folder_of_a_server(browser_path, site):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *said) -> None:
            pass

    handler = functools.partial(Handler, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with chromium(browser_path) as browser:
                missing = []
                browser.page.on("response", lambda got: missing.append(got.url) if got.status >= 400 else None)
                start = f"http://127.0.0.1:{server.server_port}/{site.name}/"
                browser.page.goto(start)
                browser.page.locator(".sidebar-tree a", has_text="Lesson 2").click()
                browser.page.wait_for_load_state()
                search(browser.page, "flamingo")
                browser.page.wait_for_selector("#search-results p.context")  # the sentence around the word
                assert [address for address in missing if "favicon" not in address] == []
                assert {address for address in browser.requests if not address.startswith((start, "data:"))} == set()
        finally:
            server.shutdown()


# ------------------------------------------------------------------------------------------------- its parts


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(build, "find_spec", lambda name: None if name == "furo" else found(name))
    with pytest.raises(gates.AssetError, match=r'needs Furo, .*`pip install "mmlesson\[site\]"`'):
        run_site(ROOT / "notebooks", "# Measured", tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_a_lesson_that_was_not_executed_is_refused(tmp_path):
    notebook = nbformat.read(NOTEBOOKS[-1], as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / NOTEBOOKS[-1].name)
    with pytest.raises(gates.AssetError, match="was not executed"):
        run_site(tmp_path / "notebooks", "# Measured", tmp_path / "site")


def test_a_cell_with_fences_stays_whole():
    assert lesson_pages.fenced("{code-block} text", "a\n````\nb") == "`````{code-block} text\na\n````\nb\n`````"


@pytest.mark.parametrize(
    "said, written",
    [
        ("A sentence of `load_clip` and `[n, 3]`.", "A sentence of :py:obj:`load_clip` and ``[n, 3]``."),
        ("    a = 1", ".. code-block:: python\n\n   a = 1"),
        ("    search FOLDER", ".. code-block:: text\n\n   search FOLDER"),
        (
            "k       how many\nquery   a text\n        or two",
            "\n``k``\n    how many\n\n``query``\n    a text\n    or two",
        ),
        ("alt: what it is,\n    in words.\nRaises it.", "\n``alt``\n    what it is,\n    in words.\n\nRaises it."),
        ("Two stages:\n    1. one\n       more\n    2. two", "Two stages:\n\n1. one\n   more\n\n2. two"),
        ("a | b, name_ and 2 * c", r"a \| b, name\_ and 2 \* c"),
    ],
)
def test_docstrings_become_restructured_text(said, written):
    assert "\n".join(reference.rewritten(said.split("\n"))).rstrip() == written


@pytest.mark.parametrize(
    "paragraph, expected",
    [
        ("It begins. A *loss* is one number. It ends.", "A *loss* is one number."),
        ("It makes one number. We call it *loss*. It ends.", "It makes one number. We call it *loss*."),
    ],
)
def test_an_explanation_is_as_short_as_it_can_be(paragraph, expected):
    assert glossary.explanation("loss", "one number", paragraph) == expected


def test_code_and_addresses_come_back_into_an_explanation():
    source = "The `cache`\nkeeps [them](there.html): good."
    assert glossary.as_written("The `…` keeps [them]: good.", source) == "The `cache` keeps [them](there.html): good."
