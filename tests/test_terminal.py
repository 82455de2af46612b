"""terminal.py: every command prints on any encoding, into a pipe whose reader goes away, and into nothing."""

import argparse
import contextlib
import errno
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence

import pytest
from PIL import Image
from test_cli import every_option

from mmlesson import classroom, cli, runtime, terminal

SIGNS = "“two” – 3 × 4 → … ✓ 猫 🦄 \udc80"


def parsers() -> list[tuple[str, ...]]:
    """The words of every command."""
    return sorted({words for words, action in every_option() if action.dest == "help"})


class Strict(io.TextIOWrapper):
    """Standard output of some encoding that refuses every sign it has not got."""

    def __init__(self, encoding: str):
        super().__init__(io.BytesIO(), encoding, errors="strict", write_through=True)

    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)


class Streams:
    """Standard output and error of one encoding, and the command that prints on them."""

    def __init__(self, encoding: str):
        self.out = Strict(encoding)
        self.err = Strict(encoding)

    def main(self, arguments: Sequence[str]) -> int:
        # inside the test: pytest puts streams of its own in place between a fixture and its test
        with contextlib.redirect_stdout(self.out), contextlib.redirect_stderr(self.err):
            return cli.main(arguments)


@pytest.fixture(params=["ascii", "cp1252", "utf-8"])
def streams(request):
    return Streams(request.param)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with pictures of hostile names, as the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("猫.png", "a\nb.png", "\x1b[31m🦄.png"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "猫.txt").write_text("“a cat” → 猫\u202e")
    (tmp_path / "pictures" / "\x1b[2Jbroken.png").write_bytes(b"no picture")


@pytest.mark.parametrize("words", parsers(), ids=" ".join)
def test_help_is_printed(words, streams):
    with pytest.raises(SystemExit) as ended:
        streams.main([*words, "--help"])
    assert ended.value.code == 0 and streams.out.text().startswith("usage: mmlesson")


CHEAP = {
    "search": ["search", "pictures", "a cat 🦄", "--min-score", "-1", "--grid", "猫.png"],
    "search --json": ["search", "pictures", "a cat", "--json", "--min-score", "-1"],
    "index": ["index", "pictures", "--out", "猫.png"],
    "paint": ["paint", "a cat 🦄", "--steps", "1", "--out", "猫.png", "--side", "8", "--animation", "猫.gif"],
    "draw": ["draw", "a cat 🦄", "-n", "1", "--out", "猫.png"],
    "world": ["world", "--sheet", "猫.png"],
}


@pytest.mark.parametrize("arguments", CHEAP.values(), ids=CHEAP)
def test_every_command_that_writes_prints_what_it_did(arguments, streams, here, tmp_path):
    out, err = streams.out, streams.err
    assert streams.main(arguments) == 0
    lines = out.text().splitlines()
    assert lines and all(line.isprintable() for line in lines)
    assert not any("\x1b" in line for line in err.text().splitlines()), "names are shown quoted"
    assert arguments[0] == "search" or (tmp_path / "猫.png").exists()
    if "--min-score" in arguments and "--json" not in arguments:
        assert len(lines) == 3 and any(r"a\nb.png'" in line for line in lines)


# The other commands: what they do takes minutes, so that something else prints in their place.
OTHERS = {
    "doctor": (cli, "run_doctor", ["doctor"]),
    "lab": (cli, "run_lab", ["lab"]),
    "lessons": (cli, "run_lessons", ["lessons"]),
    "slides": (cli, "run_slides", ["slides"]),
    "train": (cli, "_train", ["train", "clip"]),
    "eval": (cli, "_measure", ["eval", "clip"]),
    "bench": (cli, "_measure", ["bench", "clip"]),
    "measured": (cli, "_measured", ["measured"]),
    "models": (cli, "_list_models", ["models"]),
    "download": (cli, "_download", ["download", "ViT-B-32", "--to", "new"]),
    "grade": (classroom, "run_grade", ["grade", "."]),
    "student": (classroom, "run_student", ["student"]),
    "site": (classroom, "run_site", ["site"]),
    "online": (classroom, "run_online", ["online", "--repository", "x", "--tag", "v1"]),
}


@pytest.mark.parametrize("module, function, arguments", OTHERS.values(), ids=OTHERS)
def test_every_other_command_may_print_any_sign(module, function, arguments, streams, monkeypatch):
    def work(options: argparse.Namespace) -> int:
        print(SIGNS)
        print(SIGNS, file=sys.stderr)
        runtime.generator("“seven” 猫")

    monkeypatch.setattr(module, function, work)
    assert streams.main(arguments) == 1
    out, err = streams.out, streams.err
    assert "3 x 4 -> ..." in out.text() or out.encoding != "ascii"
    assert "two" in out.text() and "seven" in err.text().splitlines()[-1]


def test_the_commands_are_all_here():
    tried = {arguments[0] for arguments in CHEAP.values()} | set(OTHERS)
    assert tried == {words[0] for words in parsers() if words}


def test_what_an_encoding_has_is_kept_and_the_rest_stays_readable():
    for encoding, said in (
        ("ascii", '"two" - 3 x 4 -> ... ok \\u732b \\U0001f984 \\udc80'),
        ("cp1252", "“two” – 3 × 4 -> … ok \\u732b \\U0001f984 \\udc80"),
        ("utf-8", "“two” – 3 × 4 → … ✓ 猫 🦄 \\udc80"),
    ):
        terminal.codecs.register_error(terminal.ERRORS, terminal._plainly)
        assert SIGNS.encode(encoding, terminal.ERRORS).decode(encoding) == said


# ------------------------------------------------------------------------------------------ readers that go


def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    command = line.replace("MMLESSON", f'"{sys.executable}" -m mmlesson.cli')
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.skipif(os.name != "posix", reason="runs a shell")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_of_one_line_leaves_no_trace(buffered):
    done = shell("MMLESSON train clip --help | head -1", PYTHONUNBUFFERED=buffered)
    assert done.stdout.startswith("usage: ") and done.stdout.count("\n") == 1 and done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="runs a shell")
@pytest.mark.parametrize(
    "line, status",
    [
        ("MMLESSON world --sheet one.png >&-", 0),
        ("MMLESSON world --sheet one.png >&- 2>&-", 0),
        ("MMLESSON search pictures >&- 2>&-", 1),
        ("MMLESSON world --side 3 >&- 2>&-", 2),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 MMLESSON world --sheet one.png", 0),
    ],
)
def test_a_closed_output_is_no_mistake(line, status, tmp_path):
    done = shell(line)
    assert (done.returncode, done.stderr) == (status, "")
    assert (tmp_path / "one.png").exists() == ("one.png" in line)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("words", ["--help", "--version", "search --help"])
def test_help_that_cannot_be_printed_is_a_sentence(words, buffered):
    """argparse passes over such an error; Python buffers its output, so that it may come at the end only."""
    for place, why in (("> /dev/full", "no space left on device"), (">&-", "it is closed")):
        done = shell(f"MMLESSON {words} {place}", PYTHONUNBUFFERED=buffered)
        assert (done.returncode, done.stderr) == (1, f"mmlesson: what it prints could not be written ({why}).\n")
        assert shell(f"MMLESSON {words} {place} 2>&1", PYTHONUNBUFFERED=buffered).returncode == 1
    assert shell("MMLESSON > /dev/full", PYTHONUNBUFFERED=buffered).returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
def test_an_output_on_a_full_disk_is_a_sentence(tmp_path):
    done = shell("MMLESSON world --sheet one.png > /dev/full")
    assert done.returncode == 1 and (tmp_path / "one.png").exists()
    assert done.stderr == "mmlesson: what it prints could not be written (no space left on device).\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_progress_that_cannot_be_shown_stops_no_work(buffered, tmp_path):
    draw = "MMLESSON draw 'a cat' -n 1 --out cat.png 2> /dev/full"
    for line, status in ((draw, 0), ("MMLESSON world --seed x 2> /dev/full", 2), ("MMLESSON draw ' ' 2>/dev/full", 1)):
        assert shell(line, PYTHONUNBUFFERED=buffered).returncode == status, line
    assert (tmp_path / "cat.png").exists()


def test_only_errors_of_the_output_count_as_lost():
    assert not terminal.is_lost(OSError(errno.ENOSPC, "full", "picture.png"))
    assert not terminal.is_lost(OSError(errno.ENOENT, "gone"))


def test_warnings_of_the_package_are_sentences_and_others_stay(capsys, monkeypatch):
    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda *details: shown.append(details))
        with terminal.warnings_as_sentences():
            warnings.warn_explicit("a word", UserWarning, str(terminal.PACKAGE / "clip.py"), 1)
            warnings.warn_explicit("theirs", UserWarning, "/elsewhere/numpy.py", 1)
    assert capsys.readouterr().err == "mmlesson: a word\n" and len(shown) == 1
