"""cli.py: what each command passes on, and that known mistakes are one sentence and not a traceback."""

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import mmlesson
from mmlesson import cli, gates
from mmlesson.models import assets


def mmlesson_command(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mmlesson.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


# -------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "command",
    [
        "",
        "doctor",
        "lab",
        "lessons",
        "student",
        "site",
        "grade",
        "index",
        "paint",
        "draw",
        "train",
        "train clip",
        "eval clip",
        "eval paint",
        "eval dalle",
        "bench clip",
        "bench scale",
        "world",
    ],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert "usage: mmlesson" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"mmlesson {mmlesson.__version__}\n"


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["train"], "required: PART"),
        (["train", "clop"], "invalid choice: 'clop'"),
        (["train", "clip", "--minutes", "0"], "it must be a number above 0 and at most 1e+06, not 0.0."),
        (["train", "clip", "--steps", "1.5"], "it must be a whole number from 1 to 1000000000, not '1.5'."),
        (["train", "clip", "--minutes", "nan"], "it must be a number above 0"),
        (["train", "clip", "--minutes", "5", "--steps", "5"], "not allowed with"),
        (["train", "clip", "--resume"], "unrecognized arguments"),
        (["train", "photos"], "arguments are required: --data"),
        (["index", "pictures"], "arguments are required: --out"),
        (["index", "pictures", "--out", "x", "--engine", "spark"], "invalid choice: 'spark'"),
        (["eval", "photos"], "arguments are required: --data"),
        (["eval", "clip", "--n", "-3"], "it must be a whole number from 1 to 100000, not -3."),
    ],
)
def test_wrong_options_are_refused(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def every_option() -> list[tuple[tuple[str, ...], argparse.Action]]:
    """Each option of each command: the words of the command, and what argparse knows of the option."""
    found, todo = [], [((), cli._parser())]
    while todo:
        words, parser = todo.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                todo += [((*words, name), below) for name, below in action.choices.items()]
            else:
                found.append((words, action))
    return found


# A value that suits each number, and what no number is. "٣" is three in Arabic: Python's int would read it.
WRONG = ("nan", "inf", "-inf", "-1", "abc", "", "٣", "1_0", "0x10", "1,5", "1e400")
WRONG_WHOLE = ("1e3", "1.0", "1000000000000000000000000000000", "9" * 5000)
ZERO_SUITS = ("seed", "workers", "guidance", "min_score")
NUMBERS = [(words, action) for words, action in every_option() if getattr(action.type, "checks", False)]
NUMBERS = [pair for pair in NUMBERS if pair[1].metavar not in ("FILE", "DIR", "FOLDER", "PICTURE", "SOURCE", "TABLE")]


def test_every_number_and_every_output_passes_a_gate():
    for words, action in every_option():
        name = f"{' '.join(words)} {action.dest}"
        assert action.type not in (int, float), f"{name}: int and float take nan, -1 and ٣; use _whole or _number"
        if action.type is not None:
            assert getattr(action.type, "checks", False), f"{name}: a path passes _path, _file or _folder"
    assert {action.dest for _, action in NUMBERS} >= {"k", "n", "seed", "steps", "temperature", "workers", "min_score"}


@pytest.mark.parametrize(
    "line",
    [
        ["search", "", "a cat"], ["search", "pictures", "--like", ""], ["paint", "a cat", "--start", ""],
        ["models", "--folder", ""], ["world", "--sheet", ""], ["grade", ""], ["train", "photos", "--data", ""],
        ["index", "", "--out", "new"], ["index", "pictures", "--out", ""],
    ],
)  # fmt: skip
def test_no_path_is_not_the_current_folder(line, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(line)
    assert ended.value.code == 2 and len(capsys.readouterr().err.splitlines()[-1]) > 30


def test_a_name_of_thousands_of_letters_does_not_hide_what_is_said_of_it(capsys):
    for line in (["search", "x" * 5000, "a cat"], ["download", "x" * 5000, "--to", "new"]):
        assert cli.main(line) == 1
        said = capsys.readouterr().err
        assert len(said) < 800 and "x…" in said and said.rstrip().endswith(".")


def refused(words: Sequence[str], action: argparse.Action, value: str, capsys) -> str:
    """What `mmlesson` says on stderr when the value is refused, with exit status 2."""
    needed = {"search": ["pictures", "a cat"], "paint": ["a cat"], "draw": ["a cat"], "grade": ["class"]}
    needed["index"] = ["pictures", "--out", "new"]
    with pytest.raises(SystemExit) as ended:
        option = action.option_strings[-1]
        cli.main(
            [*words, *needed.get(words[0], []), f"{option}={value}" if option.startswith("--") else f"{option}{value}"]
        )
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words, action", [pytest.param(*pair, id=f"{' '.join(pair[0])} {pair[1].dest}") for pair in NUMBERS]
)
def test_a_wrong_number_is_refused_in_a_sentence(words, action, capsys):
    whole = action.type("1") == 1 and isinstance(action.type("1"), int)
    wrong = [value for value in WRONG if not (action.dest == "min_score" and value == "-1")]
    wrong += WRONG_WHOLE if whole else ("1e9",)
    for value in (*wrong, *(() if action.dest in ZERO_SUITS else ("0",))):
        if value == "" and len(action.option_strings[-1]) == 2:
            continue  # "-k" with nothing behind it is argparse's own mistake
        said = refused(words, action, value, capsys)
        assert re.search(r"argument \S+: it must be a (whole )?number .*, not .*\.$", said), (value, said)


@pytest.mark.parametrize(
    "option, value", [("--seed", "0"), ("--workers", "0"), ("--steps", "1"), ("--seed", str(2**63 - 1))]
)
def test_a_number_at_its_limit_is_taken(option, value, monkeypatch):
    got = []
    monkeypatch.setattr(cli, "_train", got.append)
    assert cli.main(["train", "clip", option, value]) == 0
    assert getattr(got[0], option.strip("-")) == int(value)


def test_guidance_0_is_a_guidance(monkeypatch):
    got = []
    monkeypatch.setattr(cli, "run_draw", got.append)
    assert cli.main(["draw", "a cat", "--guidance", "0", "--top-p", "1", "-n", "1"]) == 0
    assert (got[0].guidance, got[0].top_p, got[0].n) == (0.0, 1.0, 1)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["paint", "a cat", "--out", "cat.txt"], "cat.txt has to end in .png or .jpg or .jpeg or .webp."),
        (["paint", "a cat", "--animation", "cat.avi"], "cat.avi has to end in .gif or .mp4."),
        (["paint", "a cat", "--out", "folder.png"], "folder.png is a folder: name a file, such as"),
        (["draw", "a cat", "--out", "cat"], "cat has to end in .png"),
        (["draw", "a cat", "--out", "file/cat.png"], "Nothing can be written to file"),
        (["draw", "a cat", "--out", ""], "'' is no name of a file."),
        (["world", "--sheet", f"{'x' * 250}.png"], "is too long for the name of a file"),
        (["search", "pictures", "a cat", "--grid", "found.json"], "found.json has to end in .png"),
        (["lessons", "--out", "file"], "file is a file: name a folder."),
        (["eval", "paint", "--pictures", "file/below"], "Nothing can be written to file/below"),
        (["eval", "paint", "--sheet", "file/below"], "Nothing can be written to file/below"),
        (["train", "clip", "--out", "file"], "file is a file: name a folder."),
        (["index", "pictures", "--out", "file"], "file is a file: name a folder."),
        (["train", "photos", "--data", "file"], "captions.tsv is missing: a folder of captioned pictures has that"),
        (["eval", "photos", "--data", ""], "captions.tsv is missing: a folder of captioned pictures has that file."),
    ],
)
def test_a_place_that_cannot_take_the_result_is_refused_before_the_work(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_train_passes_its_options_on(monkeypatch):
    got = []
    monkeypatch.setattr(cli, "_train", lambda options: got.append(options) or 7)
    full = ["--steps", "12", "--out", "here", "--seed", "3", "--device", "cpu", "--fresh"]
    assert cli.main(["train", "clip"]) == cli.main(["train", "clip", *full]) == 7
    plain, full = got
    assert (plain.minutes, plain.steps, plain.out, plain.device) == (120.0, None, None, None)
    assert (plain.fresh, plain.state, plain.model_kind) == (False, None, "clip")
    assert (full.steps, full.out, full.seed, full.device, full.fresh) == (12, Path("here"), 3, "cpu", True)


def test_eval_and_bench_pass_their_options_on(monkeypatch):
    from mmlesson.measure import report

    got: list[argparse.Namespace] = []
    monkeypatch.setattr(report, "main", lambda options: got.append(options) or 0)
    assert cli.main(["eval", "clip", "--json", "--model", "ViT-B-32", "--n", "600"]) == 0
    assert cli.main(["bench", "clip"]) == 0
    quality, speed = got
    assert (quality.command, quality.part, quality.json, quality.write) == ("eval", "clip", True, False)
    assert (quality.model, quality.n) == ("ViT-B-32", 600)
    assert (speed.command, speed.part, speed.json, speed.write) == ("bench", "clip", False, False)


def test_lessons_prints_a_line_each(monkeypatch, tmp_path, capsys):
    from mmlesson.teach import lessons

    run = lessons.LessonRun("01_clip", cells=63, seconds=91.6, peak_memory_gb=1.84, html=Path("build/01_clip.html"))
    got = []
    monkeypatch.setattr(lessons, "run_lessons", lambda *arguments: got.append(arguments) or iter([run]))
    monkeypatch.setattr(assets, "notebooks_dir", lambda: tmp_path)
    assert cli.main(["lessons", "--only", "01_clip", "--write-back"]) == 0
    assert got == [(tmp_path, Path("build/lessons"), "01_clip", True)]
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    for part in ("01_clip", "63 cells", "92 s", "1.8 GB", str(Path("build/01_clip.html"))):
        assert part in line


# --------------------------------------------------------------------------------------------- errors


def failing(error: BaseException):
    def main(options):
        raise error

    return main


@pytest.mark.parametrize(
    "error, status, sentence",
    [
        (gates.AssetError("weights are missing: get them back."), 1, "mmlesson: weights are missing: get them back."),
        (ModuleNotFoundError(name="torch"), 1, "mmlesson: the package torch is not installed: `mmlesson doctor`"),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            1,
            "mmlesson: torchvision does not match torch: `mmlesson doctor`",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            1,
            "mmlesson: a package cannot be loaded (libtorch_cpu.so: failed to map segment",
        ),
        (MemoryError(), 1, "mmlesson: there is not enough memory for this"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "mmlesson: there is not enough memory for this",
        ),
        (KeyboardInterrupt(), 130, "stopped."),
    ],
)
def test_known_errors_are_one_sentence(monkeypatch, capsys, error, status, sentence):
    monkeypatch.setattr(cli, "run_world", failing(error))
    assert cli.main(["world"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().startswith(sentence)
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("shapes"), FileNotFoundError("x"), ZeroDivisionError(), ModuleNotFoundError(name="mmlesson.gone")],
)
def test_unknown_errors_keep_their_traceback(monkeypatch, error):
    monkeypatch.setattr(cli, "run_world", failing(error))  # raised in this file, which is not the package's
    with pytest.raises(type(error)):
        cli.main(["world"])


RUN = """
import sys, time
from mmlesson import cli, runtime
cli.run_world = lambda options: {}
sys.exit(cli.main(["world"]))
"""


def test_an_error_of_ours_is_a_sentence_on_stderr():
    code = RUN.format("runtime.generator('seven')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "mmlesson: a seed must be a whole number from 0 to 9223372036854775807, not 'seven'.\n"


def test_data_that_is_not_there_is_a_sentence(tmp_path):
    environment = {**os.environ, "MMLESSON_DATA": str(tmp_path / "gone")}
    done = mmlesson_command("world", "--sheet", str(tmp_path / "sheet.png"), env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("mmlesson: MMLESSON_DATA names ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_with_130(tmp_path):
    code = RUN.format("(print('working', flush=True), time.sleep(3600))")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "\nstopped.\n"


def test_a_reader_that_goes_away_is_no_error():
    code = (
        "import sys; from mmlesson import doctor, cli;"
        "doctor.report = lambda as_json: [print('x' * 99) for _ in range(9999)] and 0; sys.exit(cli.main(['doctor']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert err == ""
