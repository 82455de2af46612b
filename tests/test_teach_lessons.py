"""Executing the notebooks and writing them as pages: what is on a page, what fails how, what stays in a notebook."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

import mmlesson
from mmlesson import cli, gates
from mmlesson.models import assets
from mmlesson.teach import lessons
from mmlesson.teach.lessons import LessonError, LessonRun, PeakMemory, run_lessons

INTRODUCTION = r"""# A *small* lesson

![build passing](https://img.shields.example/badge.svg) The [next lesson](02_next.ipynb#start), a
[paper](https://arxiv.org/abs/2103.00020).

![a red square](red.png)

Inline $\frac{I_i \cdot T_j}{\tau}$, displayed

$$\mathcal{L} = -\frac{1}{N} \sum_{i=1}^{N} \log \frac{\exp(I_i \cdot T_i)}{\sum_j \exp(I_i \cdot T_j)}$$

\begin{align} a &< b \\ c &= d \end{align}
"""
PLOT = """import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([1, 2])
plt.close(figure)
display(figure, metadata={"image/png": {"alt": 'a line that "rises" & rises'}})"""
SVG = """from IPython.display import SVG, display
circle = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>'
display(SVG(circle), metadata={"image/svg+xml": {"alt": "a circle"}})"""
MEMORY = """block = bytearray(400_000_000)
import os, time
time.sleep(0.5)
del block
print(os.getcwd())"""
WIDGET = """import ipywidgets
ipywidgets.IntSlider(description="n")"""
PROGRESS = """import sys
for i in range(3):
    print(f"\\r{i} of 3", end="", file=sys.stderr)
print("\\r      \\r", end="", file=sys.stderr)"""


def write(path: Path, *cells, **metadata) -> None:
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks")
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    write(
        folder / "01_small.ipynb",
        new_markdown_cell(INTRODUCTION, metadata={"slideshow": {"slide_type": "slide"}, "editable": True}),
        new_code_cell(
            "1 + 1", metadata={"tags": ["nbval-check-output"], "ExecuteTime": {"end_time": "now"}}, execution_count=9
        ),
        new_code_cell(PLOT),
        new_code_cell(SVG),
        new_code_cell(WIDGET),
        new_code_cell(""),
        new_code_cell(MEMORY),
        new_code_cell("print('\\x1b[31mred\\x1b[0m <b>')"),
        new_code_cell("from IPython.display import Javascript\nJavascript('document.title = 1')"),
        new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
        new_code_cell(PROGRESS),
        kernelspec={"name": "my-own", "display_name": "Mine", "language": "python"},
        language_info={"name": "python", "version": "2.7"},
        vscode={"interpreter": {"hash": "abc"}},
    )
    write(
        folder / "02_fails.ipynb",
        new_markdown_cell("text"),
        new_code_cell("x = 1"),
        new_code_cell("def f():\n    raise ValueError('\\x1b[31mno cat\\x1b[0m here')\nf()"),
        new_code_cell("open('went_on', 'w')"),
    )
    write(folder / "03_dies.ipynb", new_code_cell("import os\nos._exit(1)"))
    (folder / "04_torn.ipynb").write_text('{"cells": [')
    write(folder / "05_last.ipynb", new_code_cell("x = 1; x"), title="The last one")
    return folder


@pytest.fixture(scope="module")
def ran(folder, tmp_path_factory) -> tuple[dict[str, LessonRun], LessonError, Path]:
    """All five lessons, run once: those that went well, the error at the end, the folder of pages."""
    out = tmp_path_factory.mktemp("pages") / "new" / "folder"
    out.mkdir(parents=True)
    (out / "02_fails.html").write_text("the page of an earlier run")
    runs = {}
    with pytest.raises(LessonError) as caught:
        for run in run_lessons(folder, out, write_back=True):
            assert run.html.is_file(), "a lesson is yielded when its page is there"
            runs[run.name] = run
    return runs, caught.value, out


@pytest.fixture(scope="module")
def page(ran) -> str:
    return ran[0]["01_small"].html.read_text()


@pytest.fixture(scope="module")
def committed(ran, folder) -> nbformat.NotebookNode:
    return nbformat.read(folder / "01_small.ipynb", as_version=4)


# --------------------------------------------------------------------------------------------- summary


def test_summary(ran):
    runs, _, out = ran
    assert list(runs) == ["01_small", "05_last"]
    run = runs["01_small"]
    assert run.cells == 9
    assert run.seconds > 0.5, "a cell sleeps for half a second"
    assert 0.4 < run.peak_memory_gb < 2
    assert runs["05_last"].peak_memory_gb < run.peak_memory_gb
    assert run.html == out / "01_small.html"
    assert re.fullmatch(r"01_small: 9 cells, \d+ s, \d\.\d GB at its peak, .*01_small\.html", str(run))


def test_failures_name_notebook_cell_and_error_and_the_others_run(ran, folder):
    _, error, out = ran
    message = str(error)
    assert message.startswith("3 lessons failed.\n")
    assert "02_fails, cell 3 of 4 (In [2]): ValueError: no cat here\n    def f():\n" in message
    assert "03_dies, cell 1 of 1 (In [1]): the kernel died" in message
    assert "04_torn.ipynb is not a notebook that can be read" in message
    assert "\x1b" not in message
    assert not (folder / "went_on").exists(), "cells after the failing one do not run"
    assert sorted(path.name for path in out.iterdir()) == ["01_small.html", "05_last.html"]


def test_failed_lessons_are_not_written_back(ran, folder):
    failed = nbformat.read(folder / "02_fails.ipynb", as_version=4)
    assert [cell.get("outputs", []) for cell in failed.cells] == [[], [], [], []]
    assert (folder / "04_torn.ipynb").read_text() == '{"cells": ['


def test_no_notebooks(tmp_path):
    with pytest.raises(gates.AssetError, match="There are no notebooks in"):
        list(run_lessons(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize("only", ["06_none", ["05_last", "06_none"]])
def test_unknown_lesson(folder, tmp_path, only):
    with pytest.raises(gates.AssetError, match="There is no lesson '06_none'; there is 01_small, 02_fails"):
        list(run_lessons(folder, tmp_path, only=only))


def test_one_lesson_without_a_page(folder, tmp_path):
    before = (folder / "05_last.ipynb").read_bytes()
    [run] = run_lessons(folder, tmp_path / "out", only="05_last.ipynb", export=False)
    assert run.html is None and run.name == "05_last"
    assert re.fullmatch(r"05_last: 1 cells, \d+ s, \d\.\d GB at its peak", str(run))
    assert not (tmp_path / "out").exists()
    assert (folder / "05_last.ipynb").read_bytes() == before


def test_peak_memory_counts_children():
    child = "x = bytearray(300_000_000); import time; time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code]) as process, PeakMemory(process.pid) as memory:
        process.wait()
    assert 0.3 < memory.gb < 0.6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what processes share")
def test_peak_memory_counts_shared_pages_once():
    code = "import os, time; x = bytearray(b'1') * 300_000_000; os.fork(); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", code]) as process, PeakMemory(process.pid) as memory:
        process.wait()
    assert 0.3 < memory.gb < 0.45


def test_peak_memory_of_a_process_that_is_gone():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with PeakMemory(process.pid) as memory:
        pass
    assert memory.gb == 0


def test_the_command_says_what_failed(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assets, "notebooks_dir", lambda: folder)
    assert cli.main(["lessons", "--out", str(tmp_path), "--only", "02_fails"]) == 1
    assert "02_fails, cell 3 of 4 (In [2]): ValueError: no cat here" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_finished_pages_and_no_kernel(tmp_path):
    write(tmp_path / "01_quick.ipynb", new_code_cell("1"))
    write(
        tmp_path / "02_slow.ipynb",
        new_code_cell("import os\nopen('pid', 'w').write(str(os.getpid()))\nimport time; time.sleep(600)"),
    )
    code = "from mmlesson.teach.lessons import run_lessons\nfor run in run_lessons('.', 'out'): print(run, flush=True)"
    environment = {**os.environ, "PYTHONPATH": str(Path(mmlesson.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    written = tmp_path / "pid"
    while not (written.exists() and written.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    kernel = psutil.Process(int(written.read_text()))
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode != 0 and "KeyboardInterrupt" in errors.decode()
    assert out.decode().startswith("01_quick: 1 cells")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["01_quick.html"]
    kernel.wait()


# ----------------------------------------------------------------------------------------------- pages


class Requests(HTMLParser):
    """Collects what a browser would fetch for a page; links that a reader may follow are none of it."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.style = False

    def handle_starttag(self, tag, attributes):
        self.style = tag == "style"
        if tag in ("script", "iframe", "object", "embed", "base"):
            self.found.append(f"<{tag}>")
        for name, value in attributes:
            value = value or ""
            fetched = name in ("src", "srcset", "data", "poster", "background") or (
                name.endswith("href") and tag != "a"
            )
            if fetched and not value.startswith(("data:", "#")):
                self.found.append(f"<{tag} {name}={value[:60]}>")
            if name == "style":
                self.look_in_style(value)
            if name.startswith("on"):
                self.found.append(f"<{tag} {name}>")
            if tag == "meta" and value.lower() == "refresh":
                self.found.append("<meta refresh>")

    def handle_data(self, data):
        if self.style:
            self.look_in_style(data)

    def handle_endtag(self, tag):
        self.style = False

    def look_in_style(self, text):
        self.found += re.findall(r"@import[^;]*", text)
        self.found += [
            url for url in re.findall(r"url\(\s*['\"]?([^'\")]*)", text) if not url.startswith(("data:", "#"))
        ]


def requests(text: str) -> list[str]:
    parser = Requests()
    parser.feed(text)
    return parser.found


def test_a_page_requests_nothing(page, ran):
    assert requests(page) == []
    assert requests(ran[0]["05_last"].html.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://a.example/require.js"></script>',
        "<script>1</script>",
        '<link rel="stylesheet" href="https://a.example/a.css">',
        '<img src="//a.example/a.png">',
        '<img src="a.png">',
        "<style>@import 'a.css';</style>",
        "<style>a { background: url(https://a.example/a.woff) }</style>",
        "<p style=\"background: url('a.png')\">",
        '<video poster="a.png"></video>',
        '<body onload="fetch()">',
    ],
)
def test_a_request_is_caught(text):
    assert len(requests(text)) >= 1
    assert (
        requests(
            '<a href="https://a.example">a</a><img src="data:image/png;base64,"><style>a { fill: url(#b) }</style>'
        )
        == []
    )


@pytest.mark.browser
def test_a_browser_asks_for_nothing_but_the_page(ran, browser_path):
    # in a thread of its own: Playwright runs once in each, and another test's page may be open
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_asks_for_nothing, ran[0]["01_small"].html.as_uri(), browser_path).result()


def _asks_for_nothing(address: str, browser_path: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        try:
            tab = browser.new_page()
            asked = []
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(address)
            tab.wait_for_load_state("networkidle")
            assert [url for url in asked if not url.startswith("data:")] == [address]
            sizes = tab.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
            assert len(sizes) == 3 and min(sizes) > 0, "every picture shows"
            fraction = tab.locator("mfrac").first.bounding_box()
            assert fraction["height"] > 15, "the formula is drawn, not written out"
            assert tab.title() == "A small lesson"
        finally:
            browser.close()


def pictures(text: str) -> dict[str, str]:
    """Text alternative -> source of every picture of a page."""
    found = {}

    class Pictures(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "img":
                attributes = dict(attributes)
                found[attributes["alt"]] = attributes["src"]

    Pictures().feed(text)
    return found


def test_pictures_are_inside_with_their_text_alternatives(page, folder):
    shown = pictures(page)
    assert set(shown) == {"a red square", 'a line that "rises" & rises', "a circle"}
    assert base64.b64decode(shown["a red square"].partition(",")[2]) == (folder / "red.png").read_bytes()
    assert shown['a line that "rises" & rises'].startswith("data:image/png;base64,iVBOR")
    assert base64.b64decode(shown["a circle"].partition(",")[2]).startswith(b"<svg")


def test_a_picture_from_elsewhere_leaves_its_words(page):
    assert "build passing" in page and "shields.example" not in page


def test_links(page):
    assert 'href="02_next.html#start"' in page
    assert 'href="https://arxiv.org/abs/2103.00020"' in page


def test_formulas_are_mathml(page):
    assert page.count("<math") == 3 and page.count("<mfrac>") >= 3
    assert "<mtable" in page and r"\frac" not in page and "$" not in re.sub(r"(?s)<style.*?</style>", "", page)


def test_a_formula_that_cannot_be_converted_stands_as_written(monkeypatch):
    import latex2mathml.converter

    def fail(*_, **__):
        raise IndexError

    monkeypatch.setattr(latex2mathml.converter, "convert", fail)
    assert lessons.mathml(r"a < \nonsense", "inline") == r"<code>a &lt; \nonsense</code>"


def test_titles_and_text(page, ran):
    assert "<title>A small lesson</title>" in page
    assert "<title>The last one</title>" in ran[0]["05_last"].html.read_text()
    assert 'lang="en"' in page
    assert lessons.WIDGET_SENTENCE in page
    assert "&lt;b&gt;" in page and "\x1b" not in page
    assert "ZeroDivisionError" in page


# ------------------------------------------------------------------------------------------- notebooks


def test_a_notebook_is_written_back_executed(committed):
    code = [cell for cell in committed.cells if cell.cell_type == "code" and cell.source]
    assert [cell.execution_count for cell in code] == list(range(1, 10))
    assert code[0].outputs[0].data["text/plain"] == "2"
    assert "image/png" in code[1].outputs[0].data
    assert code[1].outputs[0].metadata["image/png"]["alt"] == 'a line that "rises" & rises'
    nbformat.validate(committed)


def test_metadata_is_reduced(committed):
    assert committed.metadata == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    assert [cell.metadata for cell in committed.cells[:3]] == [
        {"slideshow": {"slide_type": "slide"}},
        {"tags": ["nbval-check-output"]},
        {},
    ]
    assert "my-own" not in json.dumps(committed) and "ExecuteTime" not in json.dumps(committed)


def test_the_title_is_kept(ran, folder):
    assert nbformat.read(folder / "05_last.ipynb", as_version=4).metadata["title"] == "The last one"


def test_widgets_leave_a_sentence(committed):
    [output] = committed.cells[4].outputs
    assert output.data == {"text/plain": lessons.WIDGET_SENTENCE}
    assert "widget" not in json.dumps(committed.metadata)


def test_progress_bars_leave_nothing(committed):
    assert committed.cells[-1].outputs == []


def test_cells_run_in_the_folder_of_the_notebooks(committed, folder):
    assert Path(committed.cells[6].outputs[0].text.strip()).samefile(folder)


@pytest.mark.parametrize(
    "words, is_of_ray",
    [
        (["ray::MapWorker(MapBatches(Worker))"], True),
        (["/x/site-packages/ray/core/src/ray/gcs/gcs_server", "--log_dir=/tmp"], True),
        (["python", "-u", "/x/site-packages/ray/autoscaler/_private/monitor.py"], True),
        (["python", "-m", "ipykernel_launcher"], False),
        (["python", "/home/ray/report.py"], False),
        ([], False),
    ],
)
def test_memory_is_the_kernel_s_and_its_children_s_but_not_a_cluster_s(words, is_of_ray):
    assert lessons._is_of_ray(SimpleNamespace(cmdline=lambda: words)) is is_of_ray
