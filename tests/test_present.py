"""`mmlesson lab --present`: the presenter's copies, what a kernel replays and computes behind it, what one watches."""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from mmlesson import cli
from mmlesson.models import assets
from mmlesson.teach import lab as learners_lab
from mmlesson.teach.lessons import WIDGET_SENTENCE
from mmlesson.teach.present import copies, lab, replay, watch
from mmlesson.teach.present.names import names_in, needed

HANG = 3600  # seconds after which an answer will never come


def stream(text):
    return [new_output("stream", name="stdout", text=text)]


def code(name, source, seconds=0.0, shown="", tags=()):
    cell = new_code_cell(source, id=name, outputs=stream(shown) if shown else [], metadata={"tags": list(tags)})
    return cell, seconds


LESSON = [
    code("start", "from pathlib import Path\nruns = []", shown="stored start"),
    code("slow", "runs.append('slow')\nnumber = 1\nprint('true', runs)", 20.0, "stored slow"),
    code("quick", "number += 1\nruns.append('quick')\nprint('true', runs)", 0.1, "stored quick"),
    code("gate", "import os, time\nwhile not os.path.exists('open'): time.sleep(0.01)\ngate = 1", 9.0, "stored gate"),
    code("widget", "runs.append('widget'); print(number, runs)", 0.1, WIDGET_SENTENCE, ["widget"]),
    code(
        "train", "import torch\nfor _ in range(2): net.weight.data += 1\nprint(net.weight.item())", 9.0, "stored train"
    ),
    code("other", "print(number)", 5.0, "stored other"),
    code("parts", "part = 'part'\nwhole = open('no such file')"),
    code("reader", "print(part)"),
    code("bad", "open('no such file')", 5.0, "stored bad"),
]
NET = code("net", "import torch\nnet = torch.nn.Linear(1, 1, bias=False)\nnet.weight.data[:] = 0", shown="net")
LESSON.insert(5, NET)


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    """A course of one small lesson, whose `widget` cell shows a widget's sentence."""
    folder = tmp_path / "course"
    folder.mkdir()
    cells = [cell for cell, _ in LESSON]
    widget = next(cell for cell in cells if cell.id == "widget")
    widget.outputs = [new_output("execute_result", data={"text/plain": WIDGET_SENTENCE}, execution_count=5)]
    nbformat.write(new_notebook(cells=cells), folder / "01_small.ipynb")
    times = {"01_small": {"date": "2026-11-27", "seconds": {cell.id: seconds for cell, seconds in LESSON}}}
    monkeypatch.setattr(copies, "seconds", lambda: times)
    return folder


# ------------------------------------------------------------------------------------------------ the kernel


@dataclass
class Said:
    """What one cell showed."""

    text: str = ""  # of streams
    pages: list[str] = field(default_factory=list)  # HTML of outputs
    error: str = ""

    @property
    def is_replayed(self) -> bool:
        return any("Replayed: the stored result of 2026-11-27" in page for page in self.pages)


class Kernel:
    def __init__(self, client):
        self.client = client
        self.later: list[tuple[str, dict]] = []  # changes of outputs that cells showed before

    def run(self, name: str, source: str | None = None, opening: str | None = None) -> Said:
        """Run a cell of the small lesson, or another source in its place.

        opening: words; an output that holds them opens the gate, for which the cell `gate` waits.
        """
        known = {cell.id: cell.source for cell, _ in LESSON}
        session = self.client.session
        content = {"code": source or known[name], "silent": False, "store_history": True, "allow_stdin": False}
        message = session.msg("execute_request", {**content, "user_expressions": {}, "stop_on_error": True})
        message["metadata"]["cellId"] = name
        self.client.shell_channel.send(message)
        said = Said()
        while True:
            got = self.client.get_iopub_msg(timeout=HANG)
            kind, content = got["msg_type"], got["content"]
            if kind == "update_display_data":
                self.later.append(content["data"]["text/html"])
            if got["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if kind == "stream":
                said.text += content["text"]
            elif kind in ("display_data", "execute_result"):
                said.pages.append(content["data"].get("text/html", content["data"].get("text/plain", "")))
                if opening and opening in said.pages[-1]:
                    (self.folder / "open").touch()
            elif kind == "error":
                said.error = f"{content['ename']}: {content['evalue']}"
            elif kind == "status" and content["execution_state"] == "idle":
                return said


# A presenter's kernel imports behind what lessons need, for seconds. The small lesson needs nothing of it: with this in
# its sitecustomize.py that import finds nothing. One test, of a training, has it import all, and looks at what came.
NO_IMPORTS = "import sys\nsys.modules['mmlesson.models.libraries'] = None\n"
IMPORTS = {"MMLESSON_TEST_IMPORTS": "1"}


@pytest.fixture
def kernel(course, tmp_path, request) -> Iterator[Kernel]:
    """A kernel of a presenter; a test may give it further environment variables."""
    given = getattr(request, "param", {})
    settings = lab.settings_folder(tmp_path / "settings", course)
    spec = json.loads((settings / "kernels" / "python3" / "kernel.json").read_text())
    manager = KernelManager()
    manager._kernel_spec = manager.kernel_spec_manager.get_kernel_spec("python3")
    manager.kernel_spec.argv = spec["argv"]
    (tmp_path / "work").mkdir()
    environment = {**os.environ, **spec["env"], **given}
    if given != IMPORTS:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(NO_IMPORTS)
        places = str(tmp_path / "site"), environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    manager.start_kernel(env=environment, cwd=str(tmp_path / "work"))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=HANG)
        found = Kernel(client)
        found.folder = tmp_path / "work"
        yield found
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_slow_cell_replays_and_is_computed_when_the_class_goes_on(kernel):
    assert kernel.run("start").text == ""  # quick: it ran truly, and printed nothing
    slow = kernel.run("slow")
    assert slow.is_replayed and slow.text == "stored slow"
    new = kernel.run("new", "print(number, runs)")  # a cell of the teacher's own
    assert new.text == "1 ['slow']\n", (new, kernel.later)
    assert not new.is_replayed


def test_run_again_a_cell_runs_truly_and_once(kernel):
    kernel.run("start")
    assert kernel.run("slow").is_replayed
    again = kernel.run("slow")
    assert again.text == "true ['slow']\n" and not again.is_replayed
    assert kernel.run("new", "print(runs)").text == "['slow']\n"


def test_nobody_waits_for_what_is_computed_behind_but_what_has_to_run_truly(kernel):
    kernel.run("start")
    assert kernel.run("gate").is_replayed
    assert kernel.run("slow").is_replayed
    quick = kernel.run("quick")  # what it shows does not wait for the gate, which is still closed
    assert quick.is_replayed and quick.text == "stored quick"
    widget = kernel.run("widget", opening="This runs as soon as")  # it waits, says so, and then the gate opens
    assert not widget.is_replayed
    assert any("This runs as soon as" in page for page in widget.pages)
    assert widget.text == "2 ['slow', 'quick', 'widget']\n"


def test_the_mark_says_that_the_variables_are_computed(kernel):
    kernel.run("start")
    kernel.run("slow")
    kernel.run("new", "number")
    assert any("are being computed" in page for page in kernel.later)
    assert any("are computed (" in page for page in kernel.later)


def test_what_reads_a_changed_cells_names_runs_truly_until_the_cell_is_as_it_was(kernel):
    kernel.run("start")
    kernel.run("slow", "number = 7")
    other = kernel.run("other")
    assert not other.is_replayed and other.text == "7\n"


@pytest.mark.parametrize("kernel", [{"MMLESSON_CLIP": "local-dir:another"}], indirect=True)
def test_nothing_replays_under_another_clip(kernel):
    kernel.run("start")
    slow = kernel.run("slow")
    assert not slow.is_replayed and slow.text == "true ['slow']\n"


def test_a_cell_that_needs_others_has_them_run_first(kernel):
    widget = kernel.run("widget")
    assert widget.error == ""
    assert widget.text == "2 ['slow', 'quick', 'widget']\n"  # and no other cell
    assert kernel.run("new", "gate").error.startswith("NameError")


@pytest.mark.parametrize("kernel", [IMPORTS], indirect=True)
def test_a_training_begins_again_where_it_began_first(kernel):
    waits = "import sys, threading\n[each.join() for each in threading.enumerate() if each.name == 'imports']\n"
    assert kernel.run("new", f"{waits}print('open_clip' in sys.modules)").text == "True\n"
    kernel.run("start")
    kernel.run("net")
    assert kernel.run("train").is_replayed
    assert kernel.run("new", "print(net.weight.item())").text == "2.0\n"
    assert kernel.run("train").text == "2.0\n"
    assert kernel.run("train").text == "2.0\n"


def test_a_cell_that_fails_behind_says_so_and_the_next_ones_run(kernel):
    assert kernel.run("bad").is_replayed
    assert kernel.run("new", "print('goes on')").text == "goes on\n"
    assert any("It failed: FileNotFoundError" in page for page in kernel.later)
    assert kernel.run("bad").error.startswith("FileNotFoundError")


def test_of_a_cell_that_nobody_ran_only_what_is_needed_runs(kernel):
    assert kernel.run("reader").text == "part\n"
    assert kernel.run("other").is_replayed
    assert kernel.run("new", "print(number)").text == "2\n"  # "slow" and "quick" are not run as a whole
    assert kernel.run("new", "runs").error.startswith("NameError")


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "source, reads, sets, makes",
    [
        ("a = b + len(c)", "b c", "a", "a"),
        ("a += 1", "a", "a", ""),
        ("for x in rows:\n    total = x + y", "rows y", "x total", ""),
        ("z = [x for x in rows]", "rows", "z", "z"),
        ("def f(a):\n    return a + g", "g", "f", "f"),
        ("rows.append(1)\nprint(rows)", "rows", "rows", ""),
        ("figures.gallery(rows)", "figures rows", "", ""),
        ("import a.b as c\nfrom d import e", "", "c e", "c e"),
        ("net.bias = b", "net b", "net", ""),
        ("if a:\n    b = 1", "a", "b", ""),
        ("%magic", "", "", ""),
        ("x = 1\ny = x", "", "x y", "x y"),
    ],
)
def test_names_of_a_cell(source, reads, sets, makes):
    names = names_in(source)
    assert (names.reads, names.sets, names.makes) == tuple(frozenset(each.split()) for each in (reads, sets, makes))


def test_cells_that_a_cell_needs():
    before = [names_in(each) for each in ("a = 1", "b = a", "c = 3", "b.append(c)\nd = 1", "c = 4")]
    assert needed(frozenset({"b"}), before) == [0, 1, 2, 3]
    assert needed(frozenset({"c"}), before) == [4]


# --------------------------------------------------------------------------------------------------- copies


def lesson_of(cells):
    return new_notebook(cells=cells)


def test_a_presenters_copy_has_no_solutions_and_no_outputs_and_widgets_first():
    cells = [
        new_markdown_cell("# Lesson\nEach has a solution folded below it. Good."),
        new_code_cell("1", outputs=stream("1"), execution_count=1),
        new_markdown_cell("## Part"),
        new_code_cell("2"),
        new_markdown_cell("About the widget."),
        new_code_cell("widget", metadata={"tags": ["widget"]}),
        new_code_cell("3"),
        new_markdown_cell("<details>", metadata={"tags": ["solution"]}),
    ]
    made = copies.presented(lesson_of(cells))
    assert [cell.source for cell in made.cells] == [
        "# Lesson Good.",
        "1",
        "## Part",
        "About the widget.",
        "widget",
        "2",
        "3",
    ]
    assert all(not cell.outputs and cell.execution_count is None for cell in made.cells if cell.cell_type == "code")
    assert cells[1].outputs


def test_the_lessons_own_copies_lose_every_solution_and_no_other_cell():
    for path in sorted(assets.notebooks_dir().glob("*.ipynb")):
        lesson = nbformat.read(path, as_version=4)
        made = copies.presented(lesson)
        text = "\n".join(cell.source for cell in made.cells)
        assert "<details><summary>Solution" not in text and "<details><summary>One solution" not in text
        assert not re.search(r"widgets\s+do\s+not\s+run", text)
        assert "solution below" not in text and "solution folded" not in text
        gone = {cell.id for cell in lesson.cells} - {cell.id for cell in made.cells}
        assert gone == {cell.id for cell in lesson.cells if "solution" in cell.metadata.get("tags", [])} and gone
        widgets = {cell.id for cell in lesson.cells if copies.is_widget(cell)}
        assert widgets
        for place, cell in enumerate(made.cells):
            if cell.id in widgets:  # nothing but words and other widgets stand above it in its section
                heading = max(n for n, c in enumerate(made.cells[:place]) if copies.HEADING.match(c.source))
                above = {each.id for each in made.cells[heading:place] if each.cell_type == "code"}
                assert above <= widgets


def test_a_copy_that_was_only_run_starts_clean_and_a_changed_one_stays(course, tmp_path):
    folder, scratch = tmp_path / "mine" / "present", tmp_path / "scratch"
    assert list(copies.make(course, scratch, folder, False)) == [f"copied 01_small.ipynb to {folder}"]
    own = folder / "01_small.ipynb"
    clean = own.read_bytes()
    run = nbformat.read(own, as_version=4)
    run.cells[1].outputs, run.cells[1].execution_count = stream("run in class"), 3
    run.cells[1].metadata["execution"] = {"shell.execute_reply": "2026"}
    run.metadata["widgets"] = {"state": {}}
    nbformat.write(run, own)
    assert own.read_bytes() != clean
    assert list(copies.make(course, scratch, folder, False)) == []
    assert own.read_bytes() == clean

    run.cells[1].source = "my own"
    nbformat.write(run, own)
    mine = own.read_bytes()
    list(copies.make(course, scratch, folder, False))
    assert own.read_bytes() == mine
    assert "starts anew" in list(copies.make(course, scratch, folder, True))[0]
    assert own.read_bytes() == clean


def test_what_is_stored_of_the_lessons_is_what_their_notebooks_hold():
    cells = copies.stored(assets.notebooks_dir())
    by_id = {cell["id"]: cell for cell in cells}
    assert len(by_id) == len(cells)  # an id names one cell of the course
    known = copies.seconds()
    for path in sorted(assets.notebooks_dir().glob("*.ipynb")):
        lesson = nbformat.read(path, as_version=4)
        ids = {cell.id for cell in lesson.cells if cell.cell_type == "code"}
        assert known[path.stem]["seconds"].keys() <= ids, "a cell is gone: `mmlesson lessons --write-back`"
        for cell in lesson.cells:
            if cell.cell_type == "code":
                assert by_id[cell.id]["outputs"] == cell.outputs
                assert by_id[cell.id]["must_run"] or not copies.is_widget(cell)
    assert sum(cell["seconds"] >= replay.SLOW for cell in cells) >= 10


def test_seconds_are_kept_by_the_ids_of_cells(course, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("MMLESSON_DATA", str(tmp_path))
    assert copies.seconds() == {}
    copies.keep_seconds(course / "01_small.ipynb", {1: 0.1, 2: 20.04}, "2026-11-28")
    assert copies.seconds() == {"01_small": {"date": "2026-11-28", "seconds": {"slow": 20.0}}}


# ------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("asked", [["--present"], "1", "0"])
def test_lab_presents(monkeypatch, tmp_path, asked):
    served = []
    monkeypatch.setattr(learners_lab, "serve", lambda command, settings: served.append((command, settings)) or 0)
    options = asked if isinstance(asked, list) else []
    if isinstance(asked, str):
        monkeypatch.setenv(lab.ENVIRONMENT, asked)
    assert cli.main(["lab", "--folder", str(tmp_path / "mine"), "--no-browser", *options]) == 0
    ((command, settings),) = served
    if asked == "0":
        assert f"--ServerApp.root_dir={tmp_path / 'mine'}" in command
        return
    assert f"--ServerApp.root_dir={tmp_path / 'mine' / 'present'}" in command
    assert {path.name for path in (tmp_path / "mine" / "present").glob("*.ipynb")} == {
        path.name for path in assets.notebooks_dir().glob("*.ipynb")
    }
    assert not list((tmp_path / "mine").glob("*.ipynb"))
    kernel = json.loads((settings / "kernels" / "python3" / "kernel.json").read_text())
    assert Path(kernel["env"][replay.ENVIRONMENT]).is_file()
    assert (settings / "labextensions" / lab.NAME / "page.js").is_file()


# ----------------------------------------------------------------------------------------------- watching


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_watched_training_shows_a_new_frame_for_every_look():
    clock, variables = Clock(), {"old": [1, 2, 3]}
    seen = watch.Watch(variables, {"losses", "old"}, 36.0, clock)
    assert seen.frame() is None  # a cell that ends at once shows nothing but its outputs
    variables["losses"] = []
    frames = []
    for step in range(20):
        variables["losses"].append(4.0 - 0.1 * step)
        clock.now += watch.REFRESH
        frames.append(seen.frame())
    shown = [frame for frame in frames if frame is not None]
    assert len(set(shown)) == len(shown) >= 16
    assert "losses: 20 values, now 2.1" in shown[-1] and "old" not in shown[-1]
    assert "stored in 36 s" in shown[-1]
    assert watch.REFRESH <= 0.5  # seconds: two frames a second at least


def test_a_watched_painting_shows_its_latest_picture():
    clock, variables = Clock(), {}
    seen = watch.Watch(variables, {"frames"}, clock=clock)
    clock.now = 2.0
    assert "<img" not in seen.frame()
    variables["frames"] = [Image.new("RGB", (8, 8), "red")]
    first = seen.frame()
    variables["frames"].append(Image.new("RGB", (8, 8), "blue"))
    assert "<img" in first and seen.frame() != first and "picture 2" in seen.frame()


def test_each_step_of_a_painting_in_the_cells_own_thread_is_a_frame(monkeypatch):
    class Painting:
        total = 3

        def __init__(self):
            self.index = 0

        def __next__(self):
            self.index += 1
            return SimpleNamespace(index=self.index, image=Image.new("RGB", (8, 8), (self.index, 0, 0)))

    monkeypatch.setitem(sys.modules, "mmlesson.painter", SimpleNamespace(Painting=Painting))
    clock = Clock()
    seen = watch.Watch({}, set(), clock=clock)
    monkeypatch.setattr(watch, "_now", (seen, threading.Event()))
    watch._see_paintings()
    watch._see_paintings()
    clock.now = 2.0
    painting, frames = Painting(), []
    for index in (1, 2, 3):
        assert next(painting).index == index
        frames.append(seen.frame())
        assert f"step {index} of 3" in frames[-1]
    other = threading.Thread(target=lambda: next(Painting()))  # a widget's own painting
    other.start()
    other.join(HANG)
    assert seen.frame() == frames[-1] and len(set(frames)) == 3


@pytest.mark.parametrize("values", [[True, False], ["a", "b"], [float("nan"), float("inf")], [1.0]])
def test_what_is_no_curve_is_none(values):
    clock, variables = Clock(), {"values": values}
    seen = watch.Watch({}, {"values"}, clock=clock)
    seen._variables = variables
    clock.now = 2.0
    assert "<svg" not in seen.frame()
