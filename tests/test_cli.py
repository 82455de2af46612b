"""cli.py: what each command passes on, and that known mistakes are one sentence and not a traceback."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import mmlesson
from mmlesson import cli, gates, pixels
from mmlesson.models import assets


def mmlesson_command(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mmlesson.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        **options,
    )


@pytest.fixture
def stand_in(monkeypatch):
    """A function that puts a module in the place of mmlesson.<name>, whose `main` is the given function."""

    def put(name: str, **contents) -> None:
        module = types.ModuleType(f"mmlesson.{name}")
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, f"mmlesson.{name}", module)
        package, _, last = f"mmlesson.{name}".rpartition(".")
        monkeypatch.setattr(
            sys.modules.get(package) or __import__(package, fromlist=["x"]), last, module, raising=False
        )

    return put


# -------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "command",
    [
        "",
        "doctor",
        "lab",
        "lessons",
        "paint",
        "draw",
        "train",
        "train clip",
        "eval clip",
        "eval paint",
        "eval dalle",
        "bench clip",
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
        (["train", "clip", "--minutes", "0"], "must be above zero, not 0"),
        (["train", "clip", "--steps", "1.5"], "invalid whole number value: '1.5'"),
        (["train", "clip", "--minutes", "nan"], "must be above zero"),
        (["train", "clip", "--minutes", "5", "--steps", "5"], "not allowed with"),
        (["train", "clip", "--resume", "--fresh"], "not allowed with"),
        (["eval", "clip", "--n", "-3"], "must be above zero"),
    ],
)
def test_wrong_options_are_refused(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_train_passes_its_options_on(stand_in):
    got = []
    stand_in("train.clip", main=lambda options: got.append(options) or 7)
    assert cli.main(["train", "clip"]) == 7
    assert (
        cli.main(["train", "clip", "--steps", "12", "--out", "here", "--seed", "3", "--device", "cpu", "--fresh"]) == 7
    )
    plain, full = got
    assert (plain.minutes, plain.steps, plain.out, plain.seed, plain.device) == (120.0, None, None, 0, None)
    assert (plain.fresh, plain.resume, plain.state, plain.workers) == (False, False, None, 1)
    assert (full.steps, full.out, full.seed, full.device, full.fresh) == (12, Path("here"), 3, "cpu", True)


def test_eval_and_bench_pass_their_options_on(stand_in):
    got: list[argparse.Namespace] = []
    stand_in("measure.report", main=lambda options: got.append(options) or 0)
    assert cli.main(["eval", "clip", "--json", "--model", "ViT-B-32", "--n", "600"]) == 0
    assert cli.main(["bench", "clip"]) == 0
    quality, speed = got
    assert (quality.command, quality.part, quality.json, quality.write) == ("eval", "clip", True, False)
    assert (quality.model, quality.n) == ("ViT-B-32", 600)
    assert (speed.command, speed.part, speed.json, speed.write) == ("bench", "clip", False, False)


def test_lessons_prints_a_line_each(stand_in, monkeypatch, tmp_path, capsys):
    from mmlesson.teach.lessons import LessonRun

    run = LessonRun("01_clip", cells=63, seconds=91.6, peak_memory_gb=1.84, html=Path("build/01_clip.html"))
    got = []
    stand_in("lessons", run_lessons=lambda *arguments: got.append(arguments) or iter([run]))
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
        (KeyboardInterrupt(), 130, "stopped."),
    ],
)
def test_known_errors_are_one_sentence(stand_in, capsys, error, status, sentence):
    stand_in("measure.report", main=failing(error))
    assert cli.main(["bench", "clip"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().startswith(sentence)
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("shapes"), FileNotFoundError("x"), ZeroDivisionError(), ModuleNotFoundError(name="mmlesson.gone")],
)
def test_unknown_errors_keep_their_traceback(stand_in, error):
    stand_in("measure.report", main=failing(error))  # raised in this file, which is not the package's
    with pytest.raises(type(error)):
        cli.main(["bench", "clip"])


def test_an_error_of_ours_is_a_sentence_on_stderr():
    code = (
        "import sys, types; from mmlesson import cli, runtime; import mmlesson; m = types.ModuleType('mmlesson.measure.speed_clip');"
        "m.report = lambda options: runtime.generator('seven'); sys.modules['mmlesson.measure.speed_clip'] = mmlesson.bench = m;"
        "sys.exit(cli.main(['bench', 'clip']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "mmlesson: a seed is a whole number, such as 0 or 42, not 'seven'.\n"


def test_data_that_is_not_there_is_a_sentence(tmp_path):
    environment = {**os.environ, "MMLESSON_DATA": str(tmp_path / "gone")}
    done = mmlesson_command("world", "--sheet", str(tmp_path / "sheet.png"), env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("mmlesson: MMLESSON_DATA names ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_with_130(tmp_path):
    code = (
        "import sys, time, types; from mmlesson import cli; import mmlesson; m = types.ModuleType('mmlesson.measure.speed_clip');"
        "m.report = lambda options: (print('working', flush=True), time.sleep(60)); sys.modules['mmlesson.measure.speed_clip'] = mmlesson.bench = m;"
        "sys.exit(cli.main(['bench', 'clip']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
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
    assert process.wait(timeout=20) == 1
    assert err == ""


# ------------------------------------------------------------------------------------------- commands


def test_world_draws_a_sheet(tmp_path):
    from PIL import Image

    sheets = []
    for name in ("one.png", "two.png"):
        assert cli.main(["world", "--sheet", str(tmp_path / name), "--seed", "5"]) == 0
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width > 1000 and sheet.height > 500
            assert len(sheet.convert("RGB").getcolors(2**24)) > 1000  # many colours: not an empty page
            sheets.append(sheet.tobytes())
    assert sheets[0] == sheets[1]


def test_copied_lessons_are_the_learners_own(tmp_path, capsys):
    source, target = tmp_path / "installed", tmp_path / "mine"
    source.mkdir()
    for name in ("01_clip.ipynb", "02_image_search.ipynb"):
        (source / name).write_text(json.dumps({"cells": [name]}))
    (source / "notes.txt").touch()
    assert cli.copy_lessons(source, target) == target
    assert sorted(entry.name for entry in target.iterdir()) == ["01_clip.ipynb", "02_image_search.ipynb"]

    (target / "01_clip.ipynb").write_text("my work")
    (target / "02_image_search.ipynb").unlink()
    capsys.readouterr()
    cli.copy_lessons(source, target)
    assert (target / "01_clip.ipynb").read_text() == "my work"
    assert (target / "02_image_search.ipynb").read_text() == (source / "02_image_search.ipynb").read_text()
    assert capsys.readouterr().out == f"copied 02_image_search.ipynb to {target}\n"


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a group of processes")
def test_lab_serves_the_lessons_and_stops(tmp_path):
    """The real JupyterLab, on a free port, answers with the lessons' folder; nothing outside this machine is asked."""
    import re
    import urllib.request

    log = tmp_path / "log"
    own = {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "run"),
        "JUPYTER_PORT": "0",
    }
    environment = {**os.environ, **own}
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmlesson.cli", "lab", "--no-browser"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path, start_new_session=True,
        )  # fmt: skip
    try:
        address = None
        until = time.monotonic() + 60
        while address is None and time.monotonic() < until and process.poll() is None:
            time.sleep(0.3)
            address = re.search(r"http://127\.0\.0\.1:(\d+)/lab\S*\?token=(\w+)", log.read_text())
        assert address, log.read_text()
        port, token = address.groups()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/contents?token={token}", timeout=20) as answer:
            names = {entry["name"] for entry in json.load(answer)["content"]}
        assert cli.FIRST_LESSON in names
        (plugin,) = cli.LAB_DEFAULTS
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/lab/api/settings/{plugin}?token={token}", timeout=20
        ) as answer:
            assert json.load(answer)["schema"]["properties"]["commsOverSubshells"]["default"] == "disabled"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


# --------------------------------------------------------------------------------------------- search


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    from mmlesson import world

    folder = tmp_path_factory.mktemp("search") / "pictures"
    folder.mkdir()
    for name in ("cat", "dog", "pizza", "rocket"):
        world.scene(name, background="green", seed=1).render(120).save(folder / f"{name}.png")
    (folder / "pizza.txt").write_text("lunch")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_search_prints_paths_and_scores_best_first(pictures, capsys):
    assert cli.main(["search", str(pictures), "a dog on a green background", "-k", "3"]) == 0
    printed = capsys.readouterr()
    lines = [line.split(None, 1) for line in printed.out.splitlines()]
    assert len(lines) == 3 and lines[0][1] == str(pictures / "dog.png")
    assert [float(score) for score, _ in lines] == sorted((float(score) for score, _ in lines), reverse=True)
    assert "4 pictures, 1 left out:" in printed.err and "broken.png: " in printed.err


def test_search_as_json_filtered_and_as_a_grid(pictures, tmp_path, capsys):
    from PIL import Image

    grid = tmp_path / "found.png"
    assert (
        cli.main(["search", str(pictures), "a dog", "--json", "--where", "caption = 'lunch'", "--grid", str(grid)]) == 0
    )
    (hit,) = json.loads(capsys.readouterr().out)
    assert (
        hit.keys() == {"path", "score", "caption"}
        and hit["path"] == str(pictures / "pizza.png")
        and hit["caption"] == "lunch"
    )
    assert Image.open(grid).width >= 128


def test_search_by_a_picture_and_less_of_something(pictures, capsys):
    assert cli.main(["search", str(pictures), "--like", str(pictures / "rocket.png"), "-k", "1"]) == 0
    assert capsys.readouterr().out.startswith("1.000  ")
    query = [
        "search",
        str(pictures),
        "a cat",
        "--like",
        str(pictures / "dog.png"),
        "--minus",
        "a cat",
        "--minus",
        "a cat",
        "-k",
        "1",
    ]
    assert cli.main(query) == 0
    assert "dog.png" in capsys.readouterr().out


def test_search_opens_the_best_one(pictures, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert cli.main(["search", str(pictures), "a pizza", "--open"]) == 0
    assert opened == [(pictures / "pizza.png").as_uri()]


def test_search_that_finds_nothing_says_so_by_its_exit_status(pictures, capsys):
    assert cli.main(["search", str(pictures), "a cat", "--min-score", "0.999"]) == 1
    assert capsys.readouterr().out.startswith("Nothing fits: the best score is ")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nowhere", "a cat"], "does not exist"),
        (["PICTURES"], "say what to look for"),
        (["PICTURES", ""], "the query is empty"),
        (["PICTURES", "a cat", "--where", "colour = 1"], "is not a filter in SQL"),
        (["PICTURES", "--like", "nowhere.png"], "nowhere.png"),
    ],
)
def test_search_wrongly_asked_is_a_sentence(pictures, arguments, said, capsys):
    assert cli.main(["search", *(str(pictures) if each == "PICTURES" else each for each in arguments)]) == 1
    printed = capsys.readouterr()
    (line,) = (line for line in printed.err.splitlines() if line.startswith("mmlesson: "))
    assert said in line and printed.out == ""


def test_search_stopped_says_what_is_kept(pictures, monkeypatch, capsys):
    from mmlesson.clip import CLIP

    def stopped(*_):
        raise KeyboardInterrupt

    (pictures / "new.png").write_bytes((pictures / "cat.png").read_bytes() + b" ")
    monkeypatch.setattr(CLIP, "encode_prepared", stopped)
    assert cli.main(["search", str(pictures), "a cat"]) == 130
    assert "0 of 2 new pictures are in the index" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_search_is_measured_by_its_own_modules(command, monkeypatch, capsys):
    from mmlesson.measure import search as evaluate_search
    from mmlesson.measure import speed_search as bench_search
    from mmlesson.measure.report import Report

    figures = {"eval": {"recall_at_1": 0.9}, "bench": {"vs_faiss": 1.2}}
    for name, module in (("eval", evaluate_search), ("bench", bench_search)):
        found = Report(f"{name} search", "a title", figures[name])
        monkeypatch.setattr(module, "report", lambda options, found=found: found)
    assert cli.main([command, "search", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures[command]


# ---------------------------------------------------------------------------------------------- paint


def paint(*arguments) -> int:
    return cli.main(["paint", *map(str, arguments)])


def test_paint_writes_the_picture_and_how_it_grew(tmp_path, capsys):
    from PIL import Image

    picture, film = tmp_path / "cat.png", tmp_path / "cat.gif"
    assert (
        paint("a", "cat", "on", "a blue background", "--out", picture, "--animation", film, "--steps", 3, "--side", 128)
        == 0
    )
    assert Image.open(picture).size == Image.open(film).size == (128, 128)
    assert "step 3 of 3, a cat on a blue background: cosine" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["a cat", "--out", "cat.txt"], "cat.txt has to end in .png"),
        (["a cat", "--animation", "cat.avi"], "cat.avi has to end in .gif or .mp4"),
        (["a cat:-1"], "say also what to paint"),
        ([" "], "there is no prompt"),
        (["a cat", "--start", "nowhere.png"], "nowhere.png"),
        (["a cat", "--seed", "-1"], "a seed is a whole number"),
    ],
)
def test_paint_says_what_is_wrong_in_a_sentence(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paint(*arguments) == 1
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_paint_keeps_what_there_is_on_ctrl_c(tmp_path, capsys, monkeypatch):
    from PIL import Image

    from mmlesson import painter

    real = painter._with_prior

    def interrupted(*arguments):
        for step in real(*arguments):
            yield step
            if step.index == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(painter, "_with_prior", interrupted)
    picture = tmp_path / "cat.png"
    assert paint("a cat", "--out", picture, "--steps", 50) == 130
    assert Image.open(picture).size == (384, 384) and "holds the painting so far" in capsys.readouterr().err


@pytest.fixture(scope="module")
def untrained_dalle(tmp_path_factory):
    """The folder of a tiny DALL-E for the codes of the pocket VQGAN, under the name that `--model` takes."""
    from mmlesson import load_vqgan
    from mmlesson.models.folders import save_folder
    from mmlesson.train.dalle import new_model

    return (
        f"local-dir:{save_folder(new_model(load_vqgan(), dim=32, layers=1, heads=2), tmp_path_factory.mktemp('dalle'))}"
    )


def test_draw_writes_one_sheet_of_all_pictures(untrained_dalle, tmp_path, capsys, monkeypatch):
    from PIL import Image

    from mmlesson import dalle as dalles
    from mmlesson.pixels import image_grid

    drawing, grid, asked, given, shown = dalles.DALLE.generate_steps, image_grid, [], [], []
    monkeypatch.setattr(
        dalles.DALLE,
        "generate_steps",
        lambda self, *settings, **more: asked.append((settings, more)) or drawing(self, *settings, **more),
    )
    monkeypatch.setattr(
        dalles,
        "rerank",
        lambda pictures, *_: given.extend(pictures) or dalles.Ranked(pictures[::-1], [0.3, 0.2, 0.1], [2, 1, 0]),
    )
    monkeypatch.setattr(pixels, "image_grid", lambda pictures, *more: shown.extend(pictures) or grid(pictures, *more))
    out = tmp_path / "cats.png"
    options = [
        "--model",
        untrained_dalle,
        "-n",
        "3",
        "--seed",
        "7",
        "--top-k",
        "5",
        "--guidance",
        "2",
        "--rerank",
        "--out",
        str(out),
    ]
    assert cli.main(["draw", "a cat", "on a blue background", *options]) == 0
    assert asked == [(("a cat on a blue background", 3, 7), {"top_k": 5, "guidance": 2.0})]
    assert [picture.tobytes() for picture in shown] == [
        picture.resize((192, 192)).tobytes() for picture in given[::-1]
    ], "the best first"
    sheet = Image.open(out)
    assert sheet.width > 3 * 192 and sheet.height >= 192
    assert "3 pictures of “a cat on a blue background”" in capsys.readouterr().out


def test_draw_tells_the_settings_that_it_takes_by_itself(capsys):
    from mmlesson.dalle import GUIDANCE, TEMPERATURE

    with pytest.raises(SystemExit):
        cli.main(["draw", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"bolder; default: {TEMPERATURE:g} " in told and f"sentence; default: {GUIDANCE:g} " in told


def test_draw_says_what_is_wrong_before_it_works(untrained_dalle, tmp_path, capsys):
    assert cli.main(["draw", "a cat", "--out", str(tmp_path / "cat.txt")]) == 1
    assert "has to end in .png or .jpg or .jpeg or .webp" in capsys.readouterr().err
    assert cli.main(["draw", "a cat", "--model", "local-dir:nowhere"]) == 1
    assert "is missing" in capsys.readouterr().err
    assert (
        cli.main(["draw", "a cat", "--model", untrained_dalle, "--top-p", "3", "--out", str(tmp_path / "cat.png")]) == 1
    )
    assert "top_p is a share" in capsys.readouterr().err and not list(tmp_path.iterdir())
