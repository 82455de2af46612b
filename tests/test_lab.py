"""`mmlesson lab`: a learner's own copies, JupyterLab's settings, and nothing that runs on when it is told to end."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request

import psutil
import pytest

from mmlesson import cli
from mmlesson.models import assets
from mmlesson.teach import lab
from mmlesson.teach.own_copies import EARLIER, RECORD, own_copies

# ------------------------------------------------------------------------------------------------- own copies


@pytest.fixture
def course(tmp_path):
    """A course of two notebooks."""
    source = tmp_path / "course"
    source.mkdir()
    for name in ("01_clip.ipynb", "02_image_search.ipynb"):
        (source / name).write_text(f"{name} of the course")
    (source / "notes.txt").touch()
    return source


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.ipynb"))


def test_copies_are_made_once_and_are_the_learners_own(course, tmp_path):
    mine = tmp_path / "mine"
    assert list(own_copies(course, mine)) == [f"copied {name} to {mine}" for name in names(course)]
    assert names(mine) == names(course)
    (mine / "01_clip.ipynb").write_text("my work")
    (mine / "02_image_search.ipynb").unlink()
    assert list(own_copies(course, mine)) == [f"copied 02_image_search.ipynb to {mine}"]
    assert (mine / "01_clip.ipynb").read_text() == "my work"
    assert list(own_copies(course, mine)) == []
    assert (course / "01_clip.ipynb").read_text() == "01_clip.ipynb of the course"


def test_an_unchanged_copy_follows_the_course_and_a_changed_one_gets_the_new_one_beside_it(course, tmp_path):
    mine = tmp_path / "mine"
    list(own_copies(course, mine))
    (mine / "01_clip.ipynb").write_text("my work")
    for name in names(course):
        (course / name).write_text("the second edition")
    assert list(own_copies(course, mine)) == [
        "the course has a new 01_clip.ipynb: it is 01_clip_new.ipynb, beside yours, which stays as it is",
        "02_image_search.ipynb follows the course's new one: you had not changed it",
    ]
    assert names(mine) == ["01_clip.ipynb", "01_clip_new.ipynb", "02_image_search.ipynb"]
    assert (mine / "01_clip.ipynb").read_text() == "my work"
    assert (mine / "01_clip_new.ipynb").read_text() == "the second edition"
    assert (mine / "02_image_search.ipynb").read_text() == "the second edition"
    assert list(own_copies(course, mine)) == []  # it is said and written once

    (mine / "01_clip_new.ipynb").write_text("my work on the second")
    (course / "01_clip.ipynb").write_text("the third edition")
    assert "01_clip_new_2.ipynb" in list(own_copies(course, mine))[0]
    assert (mine / "01_clip_new.ipynb").read_text() == "my work on the second"


def test_fresh_starts_anew_and_keeps_what_was_written(course, tmp_path):
    mine = tmp_path / "mine"
    list(own_copies(course, mine))
    (mine / "01_clip.ipynb").write_text("my work")
    (said,) = own_copies(course, mine, fresh=True)
    assert re.fullmatch(rf"01_clip\.ipynb starts anew; yours is {EARLIER}.01_clip-[\d-]+\.ipynb", said)
    assert (mine / "01_clip.ipynb").read_text() == "01_clip.ipynb of the course"
    (kept,) = (mine / EARLIER).iterdir()
    assert kept.read_text() == "my work"


@pytest.mark.parametrize("record", [None, "no JSON", "[]"])
def test_a_folder_without_a_record_loses_nothing(course, tmp_path, record):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "01_clip.ipynb").write_text("the first edition, or my work: nobody knows")
    if record is not None:
        (mine / RECORD).write_text(record)
    list(own_copies(course, mine))
    assert (mine / "01_clip.ipynb").read_text().startswith("the first edition")
    assert (mine / "01_clip_new.ipynb").read_text() == "01_clip.ipynb of the course"


# -------------------------------------------------------------------------------------------------- the server


@pytest.fixture
def served(tmp_path):
    """The real JupyterLab on a free port: the process of `mmlesson lab`, and a function that asks the server."""
    own = {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "run"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_PORT": "0",
    }
    log = tmp_path / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmlesson.cli", "lab", "--no-browser"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **own},
            cwd=tmp_path,
        )
    try:
        address = None
        while address is None and process.poll() is None:
            time.sleep(0.3)
            address = re.search(r"http://127\.0\.0\.1:(\d+)/lab(\S*)\?token=(\w+)", log.read_text())
        assert address, log.read_text()
        port, opens, token = address.groups()
        assert opens == f"/tree/{lab.FIRST_LESSON}"

        def ask(path, **content):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}?token={token}")
            if content:
                request.data = json.dumps(content).encode()
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)

        yield process, ask
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
def test_lab_serves_the_learners_copies_and_ends_all_that_it_started(served, tmp_path):
    process, ask = served
    assert {entry["name"] for entry in ask("/api/contents")["content"]} >= {lab.FIRST_LESSON}
    assert (tmp_path / "mmlesson-lessons" / lab.FIRST_LESSON).is_file()
    for plugin, values in lab.DEFAULTS.items():
        properties = ask(f"/lab/api/settings/{plugin}")["schema"]["properties"]
        assert {name: properties[name]["default"] for name in values} == values

    for _ in range(2):
        ask("/api/kernels", name="python3")
    family = psutil.Process(process.pid).children(recursive=True)
    assert sum("ipykernel_launcher" in " ".join(child.cmdline()) for child in family) == 2
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert process.returncode == 128 + signal.SIGTERM
    assert [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


# A server that will not listen, with a child in a session of its own, as kernels are.
STUBBORN = """
import signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
kernel = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1e6)"],
                          start_new_session=True)
time.sleep(1e6)
"""
OBEDIENT = STUBBORN.replace("signal.signal(number, signal.SIG_IGN)", "pass")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize("server", [OBEDIENT, STUBBORN], ids=["obedient", "stubborn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_signal_ends_the_server_and_its_children(tmp_path, server, number):
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from mmlesson.teach import lab
        lab.LONGEST_END = 1
        sys.exit(lab.serve([sys.executable, "-c", {server!r}], Path({str(tmp_path)!r})))
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == 2
    process.send_signal(number)
    process.wait()
    assert process.returncode == 128 + number
    assert [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_server_that_ends_by_itself_gives_its_status(tmp_path):
    assert lab.serve([sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path) == 3


def test_lab_takes_a_folder_and_fresh(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(lab, "serve", lambda command, settings: asked.append((command, settings)) or 0)
    mine = tmp_path / "mine"
    assert cli.main(["lab", "--folder", str(mine), "--no-browser"]) == 0
    assert names(mine) == names(assets.notebooks_dir())
    ((command, settings),) = asked
    assert f"--ServerApp.root_dir={mine}" in command and f"--LabApp.default_url=/lab/tree/{lab.FIRST_LESSON}" in command
    assert json.loads((settings / "labconfig" / "default_setting_overrides.json").read_text()) == lab.DEFAULTS
    (mine / lab.FIRST_LESSON).write_text("my work")
    capsys.readouterr()
    assert cli.main(["lab", "--folder", str(mine), "--fresh"]) == 0
    assert "starts anew" in capsys.readouterr().out
    assert (mine / lab.FIRST_LESSON).read_bytes() == (assets.notebooks_dir() / lab.FIRST_LESSON).read_bytes()
