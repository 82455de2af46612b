"""A learner's progress: noted whole or not at all, theirs alone, and never in the way of an answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from permissions import run as run_as_others

from mmlesson import check, gates, progress
from mmlesson.teach import exercises, record
from mmlesson.teach.exercises.checking import EXERCISES

RIGHT, WRONG = ("1.2", (65536, 256)), ("1.2", (1, 2))
OTHER = ("1.4", 4.1589)


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    """A folder of progress of this test's own; sentences that were said before are said again."""
    monkeypatch.setenv("MMLESSON_PROGRESS", str(tmp_path / "kept"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    record._say.cache_clear()
    return tmp_path / "kept"


def learner(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """A kernel of its own in a folder of its own."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


# ------------------------------------------------------------------------------------------ what is noted


def test_check_notes_and_progress_shows():
    assert progress(1).states["1.2"] == "open"
    check(*WRONG)
    assert progress(1).states["1.2"] == "not yet"
    check(*RIGHT)
    check(*OTHER)
    states = progress(1).states
    assert states["1.2"] == states["1.4"] == "right" and set(states.values()) == {"right", "open"}
    entry = record.read()["1.2"]
    assert (entry.state, entry.tries) == ("right", 2)


def test_what_was_right_stays_right():
    check(*RIGHT)
    check(*WRONG)
    assert progress(1).states["1.2"] == "right" and record.read()["1.2"].tries == 2


def test_an_untouched_stub_notes_nothing(own_file):
    for answer in (..., (..., ...)):
        check("1.2", answer)
    check("1.3", lambda *given: None)
    assert not own_file.exists()


def test_the_file_lies_in_the_users_own_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MMLESSON_PROGRESS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in record.path_of().parents and record.path_of().parent.name == "progress"


def test_off_keeps_nothing_and_says_so(own_file, monkeypatch):
    monkeypatch.setenv("MMLESSON_PROGRESS", "off")
    assert check(*RIGHT)
    assert progress(1).states["1.2"] == "open" and "MMLESSON_PROGRESS is off" in repr(progress())
    assert not own_file.exists()


# ------------------------------------------------------------------------------------------------ whose it is


def test_one_learners_is_never_anothers(tmp_path):
    """Another folder of notebooks, and another user of one account's file system, begin with everything open."""
    solve = "from mmlesson import check, progress; check('1.2', (65536, 256)); print(progress(1).states['1.2'])"
    look = "from mmlesson import progress; print(progress(1).states['1.2'])"
    assert learner(solve, tmp_path / "ann", LOGNAME="ann").stdout == "right\n"
    assert learner(look, tmp_path / "ann", LOGNAME="ann").stdout == "right\n"
    assert learner(look, tmp_path / "ben", LOGNAME="ann").stdout == "open\n"
    assert learner(look, tmp_path / "ann", LOGNAME="ben").stdout == "open\n"


def test_a_cell_that_leaves_the_folder_changes_no_file(tmp_path):
    code = "import os; from mmlesson.teach.record import path_of; a = path_of(); os.chdir('/'); print(a == path_of())"
    assert learner(code, tmp_path / "ann").stdout == "True\n"


def test_a_notebook_below_the_folder_of_the_server_is_found(tmp_path, monkeypatch):
    notebook = tmp_path / "ann" / "01_clip.ipynb"
    notebook.parent.mkdir()
    notebook.touch()
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook))
    assert record.notebooks_folder() == notebook.parent.resolve()
    monkeypatch.setenv("JPY_SESSION_NAME", "console-1")
    assert record.notebooks_folder() == record._START.resolve()


def test_two_notebooks_at_once_lose_nothing(tmp_path):
    """Three processes note thirty exercises each, in one file."""
    code = "import sys; from mmlesson.teach import record; [record.note(f'{sys.argv[1]}.{n}', True) for n in range(30)]"
    path = tmp_path / "class"
    path.mkdir()
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(n)], cwd=path) for n in (7, 8, 9)]
    assert [process.wait() for process in running] == [0, 0, 0]
    [file] = (tmp_path / "kept").glob("*.json")
    assert len(record.read(file)) == 90 and {entry.tries for entry in record.read(file).values()} == {1}


# ------------------------------------------------------------------------------------------- what can go wrong

DAMAGED = [
    b"",
    b"not json",
    b'{"exercises": ',
    b"[1, 2]",
    b'{"exercises": {"1.2": {"state": "brilliant", "tries": 1, "last": "2026-11-27"}}}',
    b'{"exercises": {"<script>": {"state": "right", "tries": 1, "last": "2026-11-27"}}}',
    b'{"exercises": {"1.2": {"state": "right", "tries": 1, "last": "<b>now</b>"}}}',
    b'{"exercises": {"1.2": {"state": "right", "tries": true, "last": "2026"}}}',
    b"[" * 100_000,
    b" " * 2_000_000,
    b"\xff\xfe\x00",
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_a_sentence_and_is_kept(content):
    check(*OTHER)
    path = record.path_of()
    path.write_bytes(content)
    assert "is damaged" in progress(1).problem and path.read_bytes() == content, "looking changes nothing"
    with pytest.warns(UserWarning, match="was damaged: a new file begins, and the damaged one is"):
        assert check(*RIGHT)
    assert progress(1).states["1.2"] == "right"
    [aside] = path.parent.glob("*.damaged-1.json")
    assert aside.read_bytes() == content
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged-2.json"):
        record.note("1.4", True)
    assert {each.name[-7:-5] for each in path.parent.glob("*.damaged-*.json")} == {"-1", "-2"}


def test_a_place_that_takes_nothing_is_said_once_and_check_goes_on(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMLESSON_PROGRESS", str(tmp_path / "file"))
    with pytest.warns(UserWarning) as said:
        assert check(*RIGHT) and check(*OTHER) and not check(*WRONG)
    assert len(said) == 1 and str(said[0].message).endswith("choose another one.")


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")
def test_a_read_only_file_is_a_sentence_and_loses_nothing(tmp_path):
    code = """
import os, warnings
os.environ["MMLESSON_PROGRESS"] = os.getcwd() + "/kept"
from mmlesson import check, progress
from mmlesson.teach import record
check("1.4", 4.1589)
path = record.path_of()
before = path.read_bytes()
os.chmod(path.parent, 0o500)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert check("1.2", (65536, 256))
assert len(said) == 1, said
print(said[0].message)
assert path.read_bytes() == before and progress(1).states["1.4"] == "right"
os.chmod(path, 0)
print(progress(1).problem)
"""
    done = run_as_others(code, tmp_path)
    assert done.returncode == 0, done.stderr
    write, read = done.stdout.splitlines()
    assert "permission denied" in write and "permission denied" in read and "MMLESSON_PROGRESS" in read


def test_another_notebook_that_hangs_does_not_stop_a_check(monkeypatch):
    monkeypatch.setattr(record, "WAIT", 0.05)
    with (
        gates.lock(record.path_of()),
        pytest.warns(UserWarning, match="Another process has been writing your progress"),
    ):
        assert check(*RIGHT)


# ------------------------------------------------------------------------------------------------ the table


def test_the_table_of_a_lesson():
    check(*RIGHT)
    shown = progress(1)
    text = repr(shown).splitlines()
    assert text[0] == "Lesson 1: 1 of 9 exercises are right, 0 not yet, 8 open."
    assert text[2].split() == ["exercise", "state", "tries", "last", "try"] and text[4].split()[:4] == [
        "1.2",
        "✓",
        "right",
        "1",
    ]
    table = BeautifulSoup(shown._repr_html_(), "html.parser").table
    assert [each.get_text() for each in table.thead("th")] == ["exercise", "state", "tries", "last try"]
    assert {each["scope"] for each in table.thead("th")} == {"col"} and table.caption.get_text() == text[0]
    rows = {row.th.get_text(): row.td.get_text() for row in table.tbody("tr")}
    assert rows["1.2"] == "✓ right" and rows["1.3"] == "○ open" and len(rows) == 9


def test_the_table_of_all_lessons():
    check(*RIGHT)
    check("3.1", 2)
    shown = progress()
    assert set(shown.states) == set(EXERCISES)
    rows = {row[0]: row for row in shown.rows}
    assert (
        rows["1"][1:4] == ("1", "0", "8") and rows["3"][1:4] == ("0", "1", "7") and rows["1"][4].startswith("1.1, 1.3")
    )


@pytest.mark.parametrize("lesson", [0, 99, "1", True, 1.0])
def test_a_lesson_that_is_none(lesson):
    with pytest.raises(ValueError, match="lesson"):
        progress(lesson)


def test_the_names_are_where_check_is():
    import mmlesson.teach

    assert mmlesson.progress is mmlesson.teach.progress is exercises.progress
    assert mmlesson.teach.check is mmlesson.check
    with pytest.raises(AttributeError):
        mmlesson.teach.nothing  # noqa: B018 - asking is what raises


def test_the_file_says_whose_notebooks_it_is_about():
    check(*RIGHT)
    assert json.loads(record.path_of().read_text())["notebooks"] == str(record.notebooks_folder())
