"""The stored figures: made with these weights and this code, above every bar, and the page that shows them.

They stand for whole evaluations, which take an hour. Where a test here fails it names the command that measures again.
"""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmlesson import cli, gates
from mmlesson.measure import bars, page, stored
from mmlesson.measure.parts import PARTS
from mmlesson.measure.report import Report
from mmlesson.models import assets

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", PARTS)
def test_no_stored_table_is_stale(name):
    assert stored.stale(name) == ""


@pytest.mark.parametrize("name", PARTS)
def test_every_figure_is_there_and_every_bar_is_met(name):
    found = stored.read(name).report
    assert found.part == name and found.missed() == []
    with_bars = [pattern for pattern in bars.bars(name) if "*" not in pattern]
    assert [figure for figure in with_bars if figure not in found.figures] == []
    if name == "bench lessons":
        lessons = {path.stem for path in assets.notebooks_dir().glob("*.ipynb")}
        assert {f"{lesson}_{what}" for lesson in lessons for what in ("seconds", "peak_memory_gb")} <= set(
            found.figures
        )
    elif name.startswith("eval"):
        missing = [figure for figure in with_bars if figure != "seconds" and figure not in found.beside["untrained"]]
        assert missing == [], "without a chance level"


@pytest.mark.parametrize("name", PARTS)
def test_an_untrained_model_misses_a_bar(name):
    """A measurement that an untrained model passes measures nothing."""
    chance = stored.read(name).report.beside.get("untrained")
    if chance is None:
        assert name.startswith("bench"), "only a speed has no chance level"
        return
    assert [figure for figure, bar in bars.bars(name).items() if figure in chance and not bar.met(chance[figure])]


def test_the_page_shows_the_stored_tables():
    assert (ROOT / "MEASURED.md").read_text() == page.page(), "`mmlesson measured --write MEASURED.md` writes it"


def test_the_page_has_every_part_once():
    assert sorted(name for parts in page.SECTIONS.values() for name, _, _ in parts) == sorted(PARTS)


def test_stored_tables_say_nothing_of_a_folder_or_a_host():
    for path in (ROOT / "data" / stored.FOLDER).glob("*.json"):
        assert "/root" not in path.read_text() and "/home" not in path.read_text()


# ---------------------------------------------------------------------------- how staleness is found


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with one made-up model, and a part that measures it."""
    folder = tmp_path / "data"
    model = folder / "models" / "pocket-clip"
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(b"weights")
    (folder / "manifest.json").write_text('{"files": {}}')
    assets.update_manifest(["models/pocket-clip"], data=folder)
    monkeypatch.setenv("MMLESSON_DATA", str(folder))
    return folder


def store(value: float = 0.96) -> Path:
    return stored.write(
        Report("eval clip", "a title", {"zero_shot_top1": value}, {"untrained": {"zero_shot_top1": 0.0}})
    )


def test_a_table_is_read_as_it_was_written(data):
    path = store()
    found = stored.read("eval clip")
    assert path == data / "measured" / "eval_clip.json"
    assert found.report == Report(
        "eval clip", "a title", {"zero_shot_top1": 0.96}, {"untrained": {"zero_shot_top1": 0.0}}, notes=[], rows=[]
    )
    assert "core" in found.machine and len(found.date) == 10
    assert list(found.weights) == ["models/pocket-clip/weights.safetensors"] and len(found.code) == 64
    assert assets.manifest()["files"]["measured/eval_clip.json"]["licence"] == "MIT"
    assert stored.stale("eval clip") == ""


def test_a_table_that_is_not_there_is_stale(data):
    assert "no stored table (make it again with `mmlesson eval clip --write`)" in stored.stale("eval clip")
    with pytest.raises(gates.AssetError, match="eval_clip.json"):
        stored.read("eval clip")


def test_other_weights_make_it_stale(data):
    store()
    (data / "models" / "pocket-clip" / "weights.safetensors").write_bytes(b"others")
    assets.update_manifest(["models/pocket-clip"])
    assert "the weights have changed since it was measured: models/pocket-clip/weights.safetensors" in stored.stale(
        "eval clip"
    )


def test_other_code_makes_it_stale(data, monkeypatch):
    store()
    monkeypatch.setattr(stored, "code_of", lambda part: "ab" * 32)
    said = stored.stale("eval clip")
    assert "the code has changed" in said and "measure/clip.py" in said and "`mmlesson eval clip --write`" in said


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "[" * 100_000, '{"part": "eval clip", "figures": {"x": "1"}}', None]
)
def test_a_table_that_is_none_is_refused_with_its_command(data, text):
    path = store()
    if text is None:  # a figure that is no number
        text = path.read_text().replace("0.96", '"0.96"')
    path.write_text(text)
    assets.update_manifest([path])  # its sha256 is right
    with pytest.raises(gates.AssetError, match="eval_clip.json is damaged"):
        stored.read("eval clip")


def test_a_table_that_was_edited_by_hand_is_refused(data):
    path = store()
    path.write_text(path.read_text().replace("0.96", "0.99"))
    with pytest.raises(gates.AssetError, match="damaged"):
        stored.read("eval clip")


SOURCE = '''
"""A docstring."""
import math

LIMIT = 3  # a comment

def f(x: int, *, y: float = 2.0) -> int:
    """Another."""
    if x > LIMIT:
        raise ValueError(f"{x} is too large")
    return x + 1

class C:
    """A third."""
    n: int
    m: int = 4
'''


@pytest.mark.parametrize(
    "old, new",
    [
        ("A docstring.", "Other words."),
        ("  # a comment", ""),
        ("Another.", "Other words."),
        ("import math", "import math, json\nfrom os import path"),
        ("x: int", "x: float"),
        (" -> int", ""),
        ("is too large", "is larger than it may be"),
        ("*, y: float = 2.0", "*,\n      y=2.0"),
        ("m: int = 4", "m = 4"),
    ],
)
def test_what_cannot_change_a_figure_does_not_make_it_stale(old, new):
    assert old in SOURCE
    assert stored.normalised(SOURCE.replace(old, new)) == stored.normalised(SOURCE)


@pytest.mark.parametrize(
    "old, new",
    [("LIMIT = 3", "LIMIT = 4"), ("x + 1", "x + 2"), ("x > LIMIT", "x >= LIMIT"), ("y: float = 2.0", "y: float = 3.0")]
    + [("n: int", "k: int"), ("m: int = 4", "m: int = 5"), ("raise ValueError(f", "return (f")],
)
def test_what_can_change_a_figure_makes_it_stale(old, new):
    changed = SOURCE.replace(old, new)
    ast.parse(changed)
    assert stored.normalised(changed) != stored.normalised(SOURCE)


def test_a_function_may_move_between_the_files_of_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "PACKAGE", tmp_path)
    part = SimpleNamespace(code=("a.py", "room"), lessons=False)
    (tmp_path / "room").mkdir()

    def code(first: str, second: str) -> str:
        (tmp_path / "a.py").write_text(first)
        (tmp_path / "room" / "b.py").write_text(second)
        stored._statements.cache_clear()
        return stored.code_of(part)

    one, other = "def f():\n    return 1\n", "def g():\n    return 2\n"
    assert code(one, other) == code(one + other, "") != code(one, "")
    stored._statements.cache_clear()


def test_the_files_of_every_part_are_there():
    for part in PARTS.values():
        assert all((assets.PACKAGE / relative).exists() for relative in part.code)
        assert (assets.PACKAGE / "measure" / f"{part.module}.py").is_file() and stored.weights_of(part)


def test_cells_of_the_lessons_count_and_their_prose_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "notebooks_dir", lambda: tmp_path)

    def cells(prose: str, code: str) -> list[str]:
        found = [{"cell_type": "markdown", "source": [prose]}, {"cell_type": "code", "source": [code]}]
        (tmp_path / "01.ipynb").write_text(json.dumps({"cells": found}))
        return stored._cells()

    assert cells("a", "x = 1") == cells("b", "x = 1") != cells("a", "x = 2")


# ------------------------------------------------------------------------------------- the commands


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["eval", "clip", "--n", "20", "--write"], "at least 500"),
        (["eval", "clip", "--model", "x", "--write"], "leave --model out"),
        (["eval", "dalle", "--settings", "--write"], "--settings measures none"),
    ],
)
def test_only_figures_worth_keeping_are_written(arguments, said, capsys):
    assert cli.main(arguments) == 1
    assert said in capsys.readouterr().err


def test_measured_says_what_is_stale_and_what_misses_its_bar(data, capsys):
    store(0.5)
    assert cli.main(["measured"]) == 1
    said = capsys.readouterr().out
    assert "mmlesson eval clip: zero_shot_top1 misses its bar" in said
    assert "mmlesson eval paint: there is no stored table" in said and "eval clip: there is" not in said


def test_measured_writes_the_page(data, tmp_path, capsys):
    store()
    assert cli.main(["measured", "--write", str(tmp_path / "M.md")]) == 0
    text = (tmp_path / "M.md").read_text()
    assert "| 0.960 | 0.000 | ≥ 0.95 | met |" in text and "`mmlesson eval paint --write` measures it" in text
