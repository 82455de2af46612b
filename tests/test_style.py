"""What ruff finds, and the rules of the house that it does not know."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [path for folder in ("mmlesson", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
LONGEST_FILE = 500  # lines


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff_finds_nothing(command):
    ruff = [sys.executable, "-m", "ruff", *command.split(), "--no-cache", "--output-format=concise", "."]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"`ruff {command}` says:\n{done.stdout}{done.stderr}"


def waved_through(source: str) -> list[str]:
    """The lines that silence ruff without rules by name and, behind them, a reason."""
    silenced = [
        line.strip() for line in source.splitlines() if re.search(r"#\s*(ruff:\s*)?noqa\b", line, re.IGNORECASE)
    ]
    return [line for line in silenced if not re.search(r"noqa: *[A-Z]+[0-9]+(, *[A-Z]+[0-9]+)*\s+\W*\w+", line)]


def test_nothing_is_waved_through_without_a_reason():
    found = {str(path.relative_to(ROOT)): waved_through(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines and path != "tests/test_style.py"} == {}


@pytest.mark.parametrize(
    "line, found",
    [
        ("import os  # noqa", True),
        ("import os  # noqa: F401", True),
        ("# ruff: noqa", True),
        ("import os  # noqa: F401 (the name is public here)", False),
        ("import os  # noqa: E402, F401 - the name is public here", False),
        ("import os  # a comment", False),
    ],
)
def test_a_reason_is_asked_for(line, found):
    assert bool(waved_through(line)) == found


def test_no_file_is_too_long_to_read():
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > LONGEST_FILE} == {}
