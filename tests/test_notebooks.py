"""The committed lessons: whole, executed, readable by everybody, and the same again with the network cut off."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mmlesson.teach import editions
from mmlesson.teach.lessons import KEPT_IN_CELLS, KERNELSPEC, PeakMemory

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"

# What each lesson has to teach: these ids stand in the tags of its cells.
POINTS = {
    "01_clip": (
        "0.why",
        "1.similarity",
        "1.batch",
        "1.contrastive",
        "1.probabilities",
        "1.classification",
        "1.references",
        "1.limits",
    ),
    "02_image_search": (
        "2.idea",
        "2.index",
        "2.topk",
        "2.similar",
        "2.arithmetic",
        "2.nothing",
        "2.evaluation",
        "2.failures",
        "2.scale",
        "2.kept",
        "2.own",
        "2.hundred-million",
        "2.limits",
    ),
    "03_vqgan_clip": (
        "3.generator",
        "3.vqgan",
        "3.discriminator",
        "3.random",
        "3.guidance",
        "3.cheating",
        "3.remedies",
        "3.prompts",
        "3.pixray",
        "3.teachers",
        "3.limits",
    ),
    "04_dalle": (
        "4.dalle1",
        "4.stream",
        "4.predict",
        "4.samples",
        "4.complete",
        "4.rerank",
        "4.unseen",
        "4.against",
        "4.dalle2",
        "4.limits",
    ),
}

LONGEST_CELL, USUAL_CELL = 20, 15  # lines
LARGEST_NOTEBOOK = 2_000_000  # bytes
MOST_MEMORY = 3.0  # GB
AN_HOUR = 3600  # seconds: ends a cell or a kernel that hangs
COMPARED = "nbval-check-output"
ABSOLUTE_PATH = re.compile(r"/(root|home|work|tmp|Users|var/folders)/|\b[A-Z]:\\+Users\\")


# ---------------------------------------------------------------------------------- what must hold of one


def faults(notebook: NotebookNode, points: Sequence[str] = ()) -> list[str]:
    """Everything that keeps a notebook from being committed, in words."""
    found = list(faults_of_execution(notebook))
    found += faults_of_metadata(notebook)
    found += faults_of_cells(notebook)
    found += faults_of_pictures(notebook)
    for point in points:
        found += faults_of_point(notebook, point)
    size = len(nbformat.writes(notebook).encode())
    if size >= LARGEST_NOTEBOOK:
        found.append(f"{size / 1e6:.1f} MB is too large")
    return found


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def name(notebook: NotebookNode, cell: NotebookNode) -> str:
    return f"cell {notebook.cells.index(cell) + 1}"


def faults_of_execution(notebook: NotebookNode):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not executed in order from a fresh kernel: {', '.join(map(str, counts))}"
    for cell in code_cells(notebook):
        if "raises-exception" not in tags(cell) and any(output.output_type == "error" for output in cell.outputs):
            yield f"{name(notebook, cell)} failed"
        words = json.dumps([without_pictures(output) for output in cell.outputs])
        if ABSOLUTE_PATH.search(words):
            start = max(0, ABSOLUTE_PATH.search(words).start() - 20)
            yield f"{name(notebook, cell)} shows an absolute path: …{words[start:][:60]}…"
    showing = [cell for cell in code_cells(notebook) if cell.outputs]
    compared = [cell for cell in showing if COMPARED in tags(cell)]
    if 3 * len(compared) < len(showing):
        yield f"of {len(showing)} cells with an output only {len(compared)} are tagged {COMPARED}"
    for cell in code_cells(notebook):
        if COMPARED in tags(cell) and not cell.outputs:
            yield f"{name(notebook, cell)} is tagged {COMPARED} and has no output"


def without_pictures(output: NotebookNode) -> NotebookNode:
    """The same output without base64, in which anything can stand."""
    output = copy.deepcopy(output)
    for kind in list(output.get("data", {})):
        if kind.startswith("image/") and kind != "image/svg+xml":
            del output.data[kind]
        elif isinstance(output.data[kind], str):
            output.data[kind] = re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", output.data[kind])
    return output


def faults_of_metadata(notebook: NotebookNode):
    if notebook.metadata.get("kernelspec") != KERNELSPEC:
        yield f"the kernel is not python3: {notebook.metadata.get('kernelspec')}"
    extra = notebook.metadata.keys() - {"kernelspec", "language_info", "title"}
    if extra:
        yield f"metadata of one program or one run: {sorted(extra)}"
    for cell in notebook.cells:
        extra = cell.metadata.keys() - set(KEPT_IN_CELLS)
        if extra:
            yield f"{name(notebook, cell)} has metadata of one program or one run: {sorted(extra)}"


def faults_of_cells(notebook: NotebookNode):
    lengths = {name(notebook, cell): len(cell.source.strip().splitlines()) for cell in code_cells(notebook)}
    for cell, lines in lengths.items():
        if lines > LONGEST_CELL:
            yield f"{cell} has {lines} lines"
    long = [cell for cell, lines in lengths.items() if lines > USUAL_CELL]
    if 5 * len(long) > len(lengths):
        yield f"more than one code cell in five has over {USUAL_CELL} lines: {', '.join(long)}"


class Images(HTMLParser):
    """Collects the text alternatives of the <img> in a piece of HTML; None where there is none."""

    def __init__(self, text: str):
        super().__init__()
        self.alternatives = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alternatives.append((dict(attributes).get("alt") or "").strip())


def faults_of_pictures(notebook: NotebookNode):
    for cell in notebook.cells:
        alternatives = []
        if cell.cell_type == "markdown":
            alternatives += re.findall(r"!\[([^\]]*)\]\(", cell.source) + Images(cell.source).alternatives
        for output in cell.get("outputs", []):
            for kind, content in output.get("data", {}).items():
                if kind.startswith("image/"):
                    alternatives.append(output.metadata.get(kind, {}).get("alt", ""))
                elif kind == "text/html":
                    alternatives += Images(content).alternatives
        if not all(text.strip() for text in alternatives):
            yield f"{name(notebook, cell)} has a picture without a text alternative"


def faults_of_point(notebook: NotebookNode, point: str):
    """A point is taught where it has prose, something computed to look at, and an exercise or a check."""
    cells = [cell for cell in notebook.cells if point in tags(cell)]
    prose = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    if len(prose.split()) < 20:
        yield f"{point} has no prose (twenty words or more in markdown cells tagged so)"
    code = [cell for cell in cells if cell.cell_type == "code"]
    if not any(cell.outputs for cell in code):
        yield f"{point} has no code cell with an output"
    if not any("exercise" in tags(cell) for cell in cells) and not any(
        re.search(r"^\s*assert\b|\bcheck\(", cell.source, re.MULTILINE) for cell in code
    ):
        yield f"{point} has neither an exercise nor a check (a cell tagged `exercise`, an assertion, a call of check)"
    above = None  # the prose above a cell
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "solution" not in tags(cell):
            above = cell
        elif cell.cell_type == "code" and point in tags(cell) and (above is None or point not in tags(above)):
            yield f"{name(notebook, cell)} is tagged {point}, and the prose above it is not"


# -------------------------------------------------------------------------------------- the lessons

LESSONS = sorted({*POINTS, *(path.stem for path in NOTEBOOKS.glob("*.ipynb"))})
LONGEST = ("03_vqgan_clip", "04_dalle")  # what starts last would keep one core busy while the others idle
LESSONS_LONGEST_FIRST = sorted(LESSONS, key=lambda lesson: LONGEST.index(lesson) if lesson in LONGEST else len(LONGEST))


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_is_whole(lesson):
    assert lesson in POINTS, f"say in POINTS what {lesson} has to teach"
    notebook = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    nbformat.validate(notebook)
    found = faults(notebook, POINTS[lesson])
    assert not found, "\n".join([f"{lesson} (`mmlesson lessons --write-back` executes it):", *found])


@pytest.mark.parametrize("lesson", LESSONS_LONGEST_FIRST)
def test_lesson_runs_again_without_a_network(lesson, tmp_path, without_network, record_property):
    """Every cell runs, those tagged nbval-check-output say what they said, in the memory promised.

    It is the teacher's edition that runs: all cells of the lesson, and the solutions, each of which has to be right.
    (The learner's edition runs in test_lessons_other_clip.) How long it took is said at the end of the tests, and
    judged by `mmlesson bench lessons`.
    """
    notebook = editions.teacher(nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4))
    for cell in notebook.cells:
        if "solution" in tags(cell):
            cell.source = re.sub(r"^check\(", "assert check(", cell.source, flags=re.MULTILINE)
    last = notebook.cells[-1]  # progress(1)
    last.source = re.sub(
        r"^(progress\(.*)$", r'assert set(\1.states.values()) == {"right"}', last.source, flags=re.MULTILINE
    )
    path = tmp_path / f"{lesson}.ipynb"
    nbformat.write(notebook, path)
    cells = len([cell for cell in notebook.cells if cell.cell_type == "code"])
    run = Rerun(path, without_network)
    record_property("note", run.summary)
    assert run.returncode == 0 and f"{cells} passed" in run.stdout, run.stdout + run.stderr
    assert run.memory_gb <= MOST_MEMORY, run.summary


class Rerun:
    """One notebook run by nbval in a process of its own behind the wall, and what that took."""

    def __init__(self, path: Path, without_network):
        options = ["--nbval-lax", "--nbval-current-env", "--color=no", "-p", "no:cacheprovider", "--timeout=0"]
        options += [f"--nbval-cell-timeout={AN_HOUR}", f"--nbval-kernel-startup-timeout={AN_HOUR}"]
        command = without_network([sys.executable, "-m", "pytest", *options, path])
        start, before = time.perf_counter(), os.times()
        quiet = {**os.environ, "TQDM_DISABLE": "1"}  # a bar comes where a machine is slow: it is no output to compare
        process = subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with process, PeakMemory(process.pid) as memory:
            self.stdout, self.stderr = process.communicate()
        self.returncode = process.returncode
        clock, after = time.perf_counter() - start, os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        self.memory_gb = memory.gb
        self.summary = (
            f"{path.name}: {clock:.0f} s by the clock, {processor:.0f} s of the processor, {memory.gb:.1f} GB"
        )


# ----------------------------------------------------------------------- the checks themselves, checked

GOOD_PROSE = (
    "A batch of pairs becomes two matrices of embeddings, one row a picture, one row a caption. "
    "Look at their shapes first."
)


def good_notebook() -> NotebookNode:
    png = {"image/png": "iVBORw0KGgo/tmp/AAAA", "text/plain": "a plot"}
    cells = [
        new_markdown_cell(f"# Lesson\n\n![a cat](cat.png)\n\n{GOOD_PROSE}", metadata={"tags": ["1.batch"]}),
        new_code_cell("x = 1", execution_count=1),
        new_code_cell(
            "x.shape",
            metadata={"tags": ["1.batch", COMPARED]},
            execution_count=2,
            outputs=[new_output("execute_result", data={"text/plain": "(2, 3)"}, execution_count=2)],
        ),
        new_code_cell(""),
        new_code_cell(
            "plot(x)\nassert x.ndim == 2",
            metadata={"tags": ["1.batch"]},
            execution_count=3,
            outputs=[new_output("display_data", data=png, metadata={"image/png": {"alt": "a rising line"}})],
        ),
    ]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": dict(KERNELSPEC), "language_info": {"name": "python"}})
    return notebook


def change(notebook: NotebookNode, what: str) -> None:
    first, _, shapes, _, plot = notebook.cells
    stream = new_output("stream", name="stdout", text="kept in /home/someone/pictures\n")
    {
        "order": lambda: shapes.update(execution_count=5),
        "not executed": lambda: plot.update(execution_count=None),
        "error": lambda: plot.outputs.append(new_output("error", ename="E", evalue="", traceback=[])),
        "path": lambda: shapes.outputs.append(stream),
        "windows path": lambda: shapes.outputs.append(new_output("stream", text="C:\\Users\\someone")),
        "size": lambda: plot.outputs[0].data.update({"text/plain": "x" * 2_000_000}),
        "kernel": lambda: notebook.metadata.kernelspec.update(name="my-env"),
        "widgets": lambda: notebook.metadata.update(widgets={"state": {}}),
        "timing": lambda: plot.metadata.update(execution={"iopub.execute_input": "now"}),
        "long cell": lambda: plot.update(source="\n".join(["assert x"] * 21)),
        "many long cells": lambda: plot.update(source="\n".join(["assert x"] * 16)),
        "no alternative": lambda: plot.outputs[0].metadata.clear(),
        "empty alternative": lambda: plot.outputs[0].metadata["image/png"].update(alt=" "),
        "markdown picture": lambda: first.update(source=first.source.replace("a cat", "")),
        "html picture": lambda: first.update(source=first.source + '<img src="a.png">'),
        "html output": lambda: plot.outputs.append(new_output("display_data", data={"text/html": "<img src='data:'>"})),
        "nothing compared": lambda: shapes.metadata.tags.remove(COMPARED),
        "nothing to compare": lambda: shapes.outputs.clear(),
        "no prose": lambda: first.update(source="# Lesson"),
        "no output": lambda: [cell.metadata.tags.remove("1.batch") for cell in (shapes, plot)],
        "no check": lambda: plot.update(source="plot(x)"),
        "a check elsewhere": lambda: notebook.cells.insert(4, new_markdown_cell("Something else.")),
    }[what]()


@pytest.mark.parametrize(
    "what, said",
    [
        ("order", "not executed in order"),
        ("not executed", "not executed in order"),
        ("error", "cell 5 failed"),
        ("path", "cell 3 shows an absolute path"),
        ("windows path", "cell 3 shows an absolute path"),
        ("size", "MB is too large"),
        ("kernel", "the kernel is not python3"),
        ("widgets", "metadata of one program or one run: ['widgets']"),
        ("timing", "cell 5 has metadata of one program or one run: ['execution']"),
        ("long cell", "cell 5 has 21 lines"),
        ("many long cells", "more than one code cell in five has over 15 lines: cell 5"),
        ("no alternative", "cell 5 has a picture without a text alternative"),
        ("empty alternative", "cell 5 has a picture without a text alternative"),
        ("markdown picture", "cell 1 has a picture without a text alternative"),
        ("html picture", "cell 1 has a picture without a text alternative"),
        ("html output", "cell 5 has a picture without a text alternative"),
        ("nothing compared", "of 2 cells with an output only 0 are tagged"),
        ("nothing to compare", "is tagged nbval-check-output and has no output"),
        ("no prose", "1.batch has no prose"),
        ("no output", "1.batch has no code cell with an output"),
        ("no check", "1.batch has neither an exercise nor a check"),
        ("a check elsewhere", "cell 6 is tagged 1.batch, and the prose above it is not"),
    ],
)
def test_a_fault_is_found(what, said):
    notebook = good_notebook()
    assert faults(notebook, ["1.batch"]) == []
    change(notebook, what)
    assert any(said in fault for fault in faults(notebook, ["1.batch"])), faults(notebook, ["1.batch"])


def test_a_point_that_is_not_taught_is_missed():
    assert [fault.split()[0] for fault in faults(good_notebook(), ["1.batch", "1.limits"])] == ["1.limits"] * 3


def test_nbval_compares_executes_and_has_no_network(tmp_path, without_network):
    """Of these five cells exactly the changed output and the one that needs a network fail."""

    def compared(source: str, text: str):
        outputs = [new_output("stream", name="stdout", text=text)]
        return new_code_cell(source, metadata={"tags": [COMPARED]}, outputs=outputs, execution_count=1)

    connect = "import socket\nsocket.create_connection(('1.1.1.1', 443), timeout=3)"
    cells = [
        compared("print(6 * 7)", "42\n"),
        compared("print(6 * 7)", "41\n"),
        new_code_cell(
            "print('not compared')", outputs=[new_output("stream", name="stdout", text="other\n")], execution_count=1
        ),
        new_code_cell(connect),
        new_code_cell("import pathlib; assert pathlib.Path('here').exists()"),
    ]
    (tmp_path / "here").touch()
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": dict(KERNELSPEC)}), tmp_path / "try.ipynb")
    run = Rerun(tmp_path / "try.ipynb", without_network)
    assert "2 failed, 3 passed" in run.stdout, run.stdout + run.stderr
    assert re.findall(r"FAILED \S*try\.ipynb::Cell (\d)", run.stdout) == ["1", "3"]
    assert run.returncode == 1
    assert re.search(r"try.ipynb: \d+ s by the clock, \d+ s of the processor", run.summary)
    assert 0 < run.memory_gb < 2
