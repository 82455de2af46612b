"""`mmlesson grade`: reads what nobody trusts, runs nothing unasked, and what it runs harms nothing and ends.

The hostile notebooks tell by forged verdicts what they could do: `said(n, ok)` shows itself as check's own. That this
is possible is known, and said to the teacher; it makes each run short.
"""

import csv
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mmlesson import cli, gates
from mmlesson.teach.exercises.checking import EXERCISES
from mmlesson.teach.grading import reading, running, table, walls

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
RIGHT = "Exercise 1.2: right. 65,536 cosines."
ANSWER = 'check("1.2", (65536, 256))'


def result(text: str):
    return new_output("execute_result", data={"text/plain": text}, execution_count=1)


def write(path: Path, *cells) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(c) if isinstance(c, str) else c for c in cells]), path)
    return path


def rows_of(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


# ------------------------------------------------------------------------------------- reading, without running


@pytest.fixture
def class_folder(tmp_path):
    folder = tmp_path / "class"
    write(folder / "ann" / "01_clip.ipynb", new_code_cell(ANSWER, outputs=[result(RIGHT)]),
          new_code_cell('x = 1\ncheck("1.3", lambda *a: 0)', outputs=[result("Exercise 1.3: not yet. It is wrong.")]),
          new_code_cell('check("1.4", ...)', outputs=[result("Exercise 1.4: not answered yet. Put it there.")]),
          new_code_cell('check("1.5", 2)'),
          new_code_cell('print("Exercise 1.6: right. ")', outputs=[new_output("stream", text="Exercise 1.6: right. ")]),
          new_code_cell('check("1.7", 1)', outputs=[result("Exercise 1.8: right. Another one's.")]),
          )  # fmt: skip
    for lesson in ("01_clip", "04_dalle"):
        (folder / "ben").mkdir(exist_ok=True)
        shutil.copy(NOTEBOOKS / f"{lesson}.ipynb", folder / "ben")
    return folder


def test_stored_verdicts_are_read_and_called_not_run(class_folder):
    ann, ben, ben4 = table.grade(class_folder)
    assert ann.learner == "ann" and ann.notebook == "ann/01_clip.ipynb" and ann.lesson == 1 and ann.run == "not run"
    assert [ann.states[f"1.{n}"] for n in range(1, 10)] == [
        "missing", "right", "not yet", "open", "open", "missing", "open", "missing", "missing",
    ]  # fmt: skip
    assert ben.lesson == 1 and set(ben.states.values()) == {"open"} and len(ben.states) == 9
    assert ben4.lesson == 4 and set(ben4.states) == {number for number in EXERCISES if number.startswith("4.")}


def test_nothing_is_executed_without_being_asked(class_folder, tmp_path, monkeypatch, capsys):
    canary = tmp_path / "ran"
    write(class_folder / "eve" / "01.ipynb", f"open({str(canary)!r}, 'w')\n" + ANSWER, ANSWER)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))  # no terminal: nobody can have said so
    assert cli.main(["grade", str(class_folder)]) == 0
    printed = capsys.readouterr()
    assert "Nothing was run: these are stored outputs, which anybody can edit" in printed.err
    assert {row["run"] for row in rows_of(printed.out)} == {"not run"}
    monkeypatch.setattr(running, "walls_here", lambda: "")
    for more in ([], ["--trusted"]):
        assert cli.main(["grade", str(class_folder), "--run", *more]) == 1
        assert "Nothing was run. Without a terminal to ask at, --yes says" in capsys.readouterr().err
    assert not canary.exists()


@pytest.mark.parametrize(
    "typed, agrees", [("yes\n", True), ("YES \n", True), ("y\n", False), ("\n", False), ("", False)]
)
def test_only_yes_agrees(typed, agrees, monkeypatch, capsys):
    from mmlesson import classroom

    terminal = io.StringIO(typed)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert classroom._agrees("Run 3 notebooks? ") is agrees and "Run 3 notebooks?" in capsys.readouterr().err


HOSTILE_FILES = {
    "empty": b"",
    "no json": b"{",
    "a list": b"[]",
    "no cells": b"{}",
    "cells of no kind": b'{"cells": [1, null, {"cell_type": "code"}, {"cell_type": "code", "source": {"a": 1}}]}',
    "deep": b'{"cells": ' + b"[" * 200_000,
    "outputs of no kind": b'{"cells": [{"cell_type": "code", "source": "check(\\"1.2\\", 1)", "outputs": [1, '
    b'{"output_type": "execute_result", "data": [2]}, {"output_type": "execute_result", '
    b'"data": {"text/plain": [3, "x"]}}]}]}',
    "bytes": bytes(range(256)) * 10,
    "surrogates": b'{"cells": [{"cell_type": "code", "source": "\\ud800 check(\\"1.2\\", 1)", "outputs": []}]}',
    "deep source": b'{"cells": [{"cell_type": "code", "source": "'
    + b"(" * 50_000
    + b'check(\\"1.2\\", 1)", "outputs": []}]}',
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_a_notebook_that_is_none_is_a_row(name, tmp_path):
    (tmp_path / "x.ipynb").write_bytes(HOSTILE_FILES[name])
    [row] = table.grade(tmp_path)
    assert row.run == "not run" and (row.note or set(row.states.values()) <= {"open", "missing"})
    assert "right" not in table.as_csv([row]).splitlines()[1]


def test_links_hidden_folders_and_large_files_are_left_alone(tmp_path, monkeypatch):
    secret = write(tmp_path / "outside" / "01.ipynb", new_code_cell(ANSWER, outputs=[result(RIGHT)]))
    folder = tmp_path / "class"
    folder.mkdir()
    os.symlink(secret, folder / "link.ipynb")
    os.symlink(secret.parent, folder / "linked")
    write(folder / ".ipynb_checkpoints" / "01.ipynb", ANSWER)
    write(folder / "large.ipynb", ANSWER)
    monkeypatch.setattr(reading, "LARGEST", 20)
    large, link = table.grade(folder)
    assert (large.learner, link.learner) == ("large", "link")
    assert (
        large.note == "cannot be read: larger than 0 MB"
        and link.note == "cannot be read: a link, which is not followed"
    )
    for wrong in (tmp_path / "class" / "linked", tmp_path / "nowhere", secret):
        if wrong.name != "linked":
            with pytest.raises(ValueError, match="is no folder|no notebooks"):
                list(table.grade(wrong))


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    [row] = table.grade(tmp_path)
    assert row.note == "cannot be read: it is a named pipe, not a file" or "invalid" in row.note


@pytest.mark.parametrize(
    "source, found",
    [
        ("def check(n, a): ...", True),
        ("check = print", True),
        ("import x as check", False),
        ("class check: ...", True),
        ("from evil import check", True),
        ("from evil import lie as check", True),
        ("from mmlesson import check", False),
        ("from mmlesson import check, world\ncheck('1.2', 1)", False),
        ("exercises.check = f", True),
        ("checked = 1", False),
        ("for check in (1, 2): ...", True),
        ("(", False),
    ],
)
def test_a_notebook_that_changes_check_is_noted(source, found):
    assert reading.redefines_check([{"source": source, "outputs": []}]) is found


@pytest.mark.parametrize(
    "source, number",
    [
        (ANSWER, "1.2"),
        ("x = 1\n" + ANSWER, "1.2"),
        (ANSWER + ";", "1.2"),
        (ANSWER + "\nx = 1", None),
        ("check()", None),
        ("print(check('1.2', 1))", None),
        ("a.check('1.2', 1)", None),
        ("check(number, 1)", None),
        ("%time check('1')", None),
    ],
)
def test_which_exercise_a_cell_answers(source, number):
    assert reading.exercise_of(source) == number


# ------------------------------------------------------------------------------------------------------ the CSV


def test_no_cell_of_the_table_is_a_formula_or_a_second_line(tmp_path):
    names = [
        "=cmd|' !A0",
        "+1",
        "-1",
        "@SUM(A1)",
        " =1",
        "＝1",
        "<img src=x onerror=alert(1)>",
        'a"b,c',
        "a\nb",
        "a\u202eb",
    ]
    for name in names:
        write(tmp_path / name / "x.ipynb", new_code_cell(ANSWER, outputs=[result(RIGHT)]))
    text = table.as_csv(table.grade(tmp_path))
    assert len(text.splitlines()) == len(names) + 1 and "\u202e" not in text
    rows = rows_of(text)
    for row in rows:
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "＝")), cell
    learners = {row["learner"] for row in rows}
    assert {"'=cmd|' !A0", "' =1", "<img src=x onerror=alert(1)>", 'a"b,c', "a\\nb"} <= learners
    assert {row["1.2"] for row in rows} == {"right"}


def test_a_column_for_each_exercise_of_the_lessons_that_are_there(class_folder, tmp_path, capsys):
    out = tmp_path / "grades.csv"
    assert cli.main(["grade", str(class_folder), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\xef\xbb\xbf"), "a spreadsheet sees that it is UTF-8"
    rows = rows_of(out.read_text(encoding="utf-8-sig"))
    assert [row["learner"] for row in rows] == ["ann", "ben", "ben"]
    assert (rows[0]["right"], rows[0]["not yet"], rows[0]["open"]) == ("1", "1", "3") and rows[0]["4.1"] == ""
    assert list(rows[0])[8:10] == ["1.1", "1.2"] and "2.1" not in rows[0] and rows[2]["4.1"] == "open"


# ------------------------------------------------------------------------------------------------ running behind walls

SAID = """
import os, socket, ctypes, subprocess
class said:
    def __init__(self, number, ok):
        self.says = f"Exercise {number}: {'right' if ok else 'not yet'}. "
    def __repr__(self):
        return self.says
def fails(do):
    try:
        do()
    except (OSError, MemoryError):
        return True
check = said
"""
SMALL = running.Limits(seconds=600, cell_seconds=300, memory=2_000_000_000, disk=60_000_000, processes=60)
needs_walls = pytest.mark.skipif(
    sys.platform != "linux" or bool(running.walls_here()), reason="no walls can be built on this machine"
)


@needs_walls
def test_a_hostile_notebook_sees_and_harms_nothing(tmp_path, monkeypatch, capsys):
    """One notebook, from the command line: honest answers first, then tries. Each says "right" where a wall held."""
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    outside, submitted = tmp_path / "secret.txt", tmp_path / "class" / "eve" / "01.ipynb"
    outside.write_text("keep me")
    listener, local = socket.socket(), socket.socket(socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    local.bind(str(tmp_path / "agent"))
    local.listen()
    port, package = listener.getsockname()[1], Path(gates.__file__)
    tries = {
        "1.1": f"not os.path.exists({str(outside)!r}) and not os.path.exists({str(Path.home() / '.ssh')!r})",
        "1.3": f"fails(lambda: open({str(outside)!r}, 'w')) and fails(lambda: open({str(package)!r}, 'a'))",
        "1.5": f"fails(lambda: os.remove({str(submitted)!r})) and fails(lambda: os.remove({str(package)!r}))",
        "1.6": "fails(lambda: socket.create_connection(('1.1.1.1', 443), timeout=5))",
        "1.7": f"fails(lambda: socket.create_connection(('127.0.0.1', {port}), timeout=5))",
        "1.8": f"fails(lambda: socket.socket(socket.AF_UNIX).connect({str(tmp_path / 'agent')!r}))",
        "1.9": "fails(lambda: bytearray(50 * 10**9))",
        "2.1": "fails(lambda: open('/tmp/large', 'wb').write(bytes(100_000_000)))",
        "2.2": "fails(lambda: open('/proc/sys/kernel/core_pattern', 'w'))",
        "2.3": "subprocess.run(['unshare', '-rn', 'true'], capture_output=True).returncode != 0",
        "2.4": "'SECRET_TOKEN' not in os.environ and not os.path.exists('/run') and not os.path.exists('/home')",
        "2.5": "sorted(os.listdir('/dev')) == ['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', "
        "'urandom', 'zero']",
        "2.6": "ctypes.CDLL(None).mount(b'none', b'/usr', b'none', 32 | 4096, b'') != 0",
        "2.7": "all(int(name) < 1000 for name in os.listdir('/proc') if name.isdigit())",
        "2.8": "open('mine.txt').read() == 'beside' and os.listdir('.').sort() is None and not os.path.exists('link')",
        "3.1": "len(sorted(os.listdir('.'))) == 2 and [os.remove(name) for name in os.listdir('.')] != []",
        "3.2": "print('x' * 10**7) or print('x' * 10**7, file=__import__('sys').stderr) is None",
        "3.3": "open('/proc/self/status').read().count('0000000000000000') >= 5",
    }
    lie = new_code_cell('check("1.4", 1)', outputs=[result("Exercise 1.4: right. A lie.")])
    hangs = "import time\nwhile True: time.sleep(1)"
    write(submitted, "from mmlesson import check", ANSWER, lie, hangs, "1 / 0", SAID,
          *(f'check("{number}", {what})' for number, what in tries.items()))  # fmt: skip
    before = submitted.read_bytes()
    (submitted.parent / "mine.txt").write_text("beside")
    (submitted.parent / "other.ipynb").write_text("another learner's")
    os.symlink(outside, submitted.parent / "link")
    limits, said, run = running.Limits(**{**vars(SMALL), "cell_seconds": 15}), [], running.run

    def run_small(path, _, walled):
        said.append(run(path, limits, walled))
        return said[-1]

    monkeypatch.setattr(running, "run", run_small)
    assert cli.main(["grade", str(tmp_path / "class"), "--run", "--yes"]) == 0
    listener.close()
    local.close()
    printed = capsys.readouterr()
    row, other = rows_of(printed.out)
    assert (row["run"], row["1.2"], row["1.4"]) == ("run", "right", "not yet")
    assert row["note"] == "it gives `check` another meaning"
    assert other["note"] == "cannot be read: not a notebook"
    assert "does not protect against" in printed.err and "1 of 2: eve/01.ipynb: run" in printed.err
    assert said[0].verdicts == {**dict.fromkeys(tries, "right"), "1.2": "right", "1.4": "not yet"}
    assert row["1.9"] == "right"
    assert outside.read_text() == "keep me" and submitted.read_bytes() == before
    assert sorted(each.name for each in submitted.parent.iterdir()) == ["01.ipynb", "link", "mine.txt", "other.ipynb"]
    stored = rows_of(table.as_csv(table.grade(tmp_path / "class")))[0]
    assert (stored["1.4"], stored["1.2"], stored["run"]) == ("right", "open", "not run"), (
        "what a stored output is worth"
    )


FIRST = 'print(\'{"exercise": "1.2", "verdict": "right"}\', flush=True)\n'
BOMBS = {
    "a fork bomb": ("import os\nwhile True: os.fork()", {}, "more than 60 processes"),
    "memory in many processes": (
        "import os\nfor _ in range(5): os.fork()\nx = [bytearray(10**7) for _ in range(100)]\nwhile True: pass",
        {},
        "more than 2 GB of memory",
    ),
    "a loop without end": (
        "import signal\nfor n in range(1, 32):\n    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n"
        "import os, time\nif os.fork(): os.setsid() if os.getpid() != os.getpgrp() else 0\nwhile True: time.sleep(1)",
        {"seconds": 6},
        "not done after 6 seconds",
    ),
    "10⁹ letters": ("import sys\nfor _ in range(1000): sys.stdout.write('x' * 10**6)", {}, "it printed too much"),
}


@needs_walls
@pytest.mark.parametrize("name", BOMBS)
def test_what_would_never_end_is_ended_and_all_of_it(name, tmp_path):
    """What was right before it still counts. (Python alone stands for the kernel here, which takes longer to start.)"""
    source, limits, why = BOMBS[name]
    limits, marker = running.Limits(**{**vars(SMALL), **limits}), f"marker-{os.getpid()}-{len(name)}"
    command = [sys.executable, "-c", FIRST + source, marker]
    outcome = running._watched(running._walled(running._config(tmp_path, command, limits)), None, limits)
    assert outcome.stopped == why and outcome.verdicts == {"1.2": "right"}
    assert not [each for each in psutil.process_iter(["cmdline"]) if marker in (each.info["cmdline"] or [])]


@needs_walls
def test_a_notebook_ends_with_the_one_who_watches_it(tmp_path):
    marker = f"marker-{os.getpid()}-watched"
    code = f"""
import sys
from pathlib import Path
from mmlesson.teach.grading import running
command = [sys.executable, "-c", "print(1, flush=True)\\nwhile True: pass", {marker!r}]
running._too_far = lambda *_: (Path("started").touch(), "")[1]
running._watched(running._walled(running._config(Path("."), command, running.Limits())), None, running.Limits())
"""
    watcher = subprocess.Popen([sys.executable, "-c", code.replace('Path(".")', "Path.cwd()")], cwd=tmp_path)
    while not (tmp_path / "started").exists():
        assert watcher.poll() is None
    watcher.kill()
    watcher.wait()
    while any(marker in (each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])):
        pass  # it is being ended; the test's own time would run out otherwise


def test_what_comes_out_is_not_believed():
    lines = [b'{"exercise": "1.2", "verdict": "right"}', b"[1]", b"\xff", b'{"exercise": 5, "verdict": "right"}',
             b'{"exercise": "1.3", "verdict": "=cmd"}', b'{"exercise": "1.4", "verdict": null}', b"[" * 9999,
             b'{"exercise": "1.2", "verdict": "not yet"}', b'{"stopped": "' + b"x" * 500 + b'"}']  # fmt: skip
    outcome = running._believed(b"\n".join(lines))
    assert outcome.verdicts == {"1.2": "right", "1.3": "open", "1.4": "open"} and len(outcome.stopped) == 100


# ----------------------------------------------------------------------------------------------- without walls


def test_without_walls_nothing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMLESSON_NO_NAMESPACE", "1")
    write(tmp_path / "01.ipynb", ANSWER)
    assert cli.main(["grade", str(tmp_path), "--run", "--yes"]) == 1
    assert "Nothing was run, because" in (said := capsys.readouterr().err) and "--trusted" in said
    with pytest.raises(gates.AssetError, match="Nothing was run, because"):
        running.run(tmp_path / "01.ipynb", SMALL)


@pytest.mark.skipif(os.name != "posix", reason="starts a process that leaves its parents")
def test_trusted_notebooks_have_limits_and_no_network(tmp_path):
    (tmp_path / "work").mkdir()
    pid = tmp_path / "pid"
    source = f"""
import json, os, socket, subprocess
{SAID.partition("def fails")[1] + SAID.partition("def fails")[2].partition("check = ")[0]}
for number, do in (1, lambda: socket.create_connection(("1.1.1.1", 443), 5)), (2, lambda: bytearray(50 * 10**9)):
    print(json.dumps(dict(exercise=f"1.{{number}}", verdict="right" if fails(do) else "not yet")), flush=True)
home = os.environ["HOME"].startswith({str(tmp_path)!r}) and os.getcwd() == {str(tmp_path / "work")!r}
print(json.dumps(dict(exercise="1.3", verdict="right" if home else "not yet")), flush=True)
open({str(pid)!r}, "w").write(str(subprocess.Popen(["sleep", "99999"]).pid))
print(json.dumps(dict(stopped="")), flush=True)
"""
    outcome = running._watched([sys.executable, "-c", source], running._options_without_walls(tmp_path, SMALL), SMALL)
    assert outcome == running.Outcome({"1.1": "right", "1.2": "right", "1.3": "right"}, "")
    left = int(pid.read_text())
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        pass  # it was killed, and is on its way out


@needs_walls
def test_only_what_is_needed_is_visible():
    """Neither the folder of the course's repository nor a home folder is shown as a whole."""
    visible = [Path(each) for each in json.loads(json.dumps(running._visible()))]
    assert Path.home() not in visible and Path(gates.__file__).parents[1] not in visible and Path("/") not in visible
    assert {"DEVICES", "SYSTEM"} <= set(dir(walls)) and "home" not in walls.SYSTEM and "run" not in walls.SYSTEM
