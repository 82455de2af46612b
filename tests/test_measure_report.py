"""One report for all parts: bars, the table, the line of JSON, and the one command."""

import json
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

from mmlesson import cli
from mmlesson.measure import bars, report
from mmlesson.measure.bars import Bar
from mmlesson.measure.parts import PARTS, UNSTORED
from mmlesson.measure.report import Report

FIGURES = {"zero_shot_top1": 0.96, "photo_rank_coffee": 3, "paraphrase_drop": 0.0}
CHANCE = {"zero_shot_top1": 0.0, "photo_rank_coffee": 12}


@pytest.fixture
def found():
    return Report("eval clip", "pocket-clip on 20 scenes", FIGURES, {"untrained": CHANCE})


@pytest.mark.parametrize(
    "bar, met, missed",
    [(Bar("≥", 0.95), 0.95, 0.949), (Bar("≤", 0), 0, 0.001), (Bar(">", 0), 0.001, 0)],
)
def test_a_bar(bar, met, missed):
    assert bar.met(met) and not bar.met(missed) and not bar.met(math.nan)
    assert str(bar) == f"{bar.sign} {bar.limit:g}"


def test_a_bar_has_a_sign():
    with pytest.raises(ValueError, match="one of ≥ ≤ >, not '<'"):
        Bar("<", 1)


def test_every_part_has_a_list_of_figures_with_meanings():
    assert [*PARTS, *UNSTORED] == list(bars.FIGURES)
    for part, lines in bars.FIGURES.items():
        assert bars.bars(part), f"{part} has no bar"
        assert all(line.meaning and format(1.5, line.form) for line in lines.values())


def test_the_bars_are_those_that_were_promised():
    """Nobody loosens a bar in passing: a change of one changes two files."""
    promised = {
        "eval clip": "zero_shot_top1 ≥ 0.95, background_top1 ≥ 0.98, retrieval_r1 ≥ 0.9, word_order ≥ 0.9, "
        "paraphrase_drop ≤ 0.05",
        "eval judge": "zero_shot_top1 ≥ 0.95, word_order ≥ 0.95",
        "eval search": "recall_at_1 ≥ 0.85, mrr ≥ 0.9, no_answer_false_hits ≤ 0.05, answer_misses ≤ 0.1, "
        "approximate_recall_at_10 ≥ 0.95",
        "eval vqgan": "l1 ≤ 0.03, recognised ≥ 0.95, codebook_used ≥ 0.9",
        "eval paint": "judge_top1 ≥ 0.5, judge_background ≥ 0.9, seconds ≤ 30",
        "eval dalle": "object_top1 ≥ 0.8, background_top1 ≥ 0.95, pair_top1 ≥ 0.5, rerank_gain > 0",
        "bench clip": "ratio ≥ 1.5, min_cosine ≥ 0.999, classify_ms ≤ 20, import_s ≤ 0.1",
        "bench search": "vs_faiss ≥ 1, vs_sklearn ≥ 1, open_s ≤ 1, folder_overhead ≤ 0.1, update_unchanged_s ≤ 1, "
        "disk_ratio ≤ 2",
        "bench scale": "overhead ≤ 1.25, speedup ≥ 1.7, largest_difference ≤ 1e-05, driver_memory_growth ≤ 1.1, "
        "recall_at_10 ≥ 0.95",
        "bench paint": "ratio ≥ 1.5",
        "bench dalle": "sixteen_pictures_seconds ≤ 6, vs_no_cache ≥ 3, vs_transformers ≥ 1.3",
        "bench lessons": "all_lessons_seconds ≤ 600, *_slowest_cell_seconds ≤ 60, *_peak_memory_gb ≤ 3, "
        "03_vqgan_clip_seconds ≤ 200, 04_dalle_seconds ≤ 120, *_seconds ≤ 150",
        "eval photos": "caption_r1 ≥ 0.24, caption_r10 ≥ 0.64, pictures_r10 ≥ 0.64, names_top1 ≥ 0.55, "
        "names_top5 ≥ 0.8, everyday ≥ 14, cat_dog_person ≥ 0.93, nothing_false_hits ≤ 0.1, nothing_misses ≤ 0.25, "
        "unfamiliar_own ≤ 0.05, unfamiliar_other ≥ 0.9, unfamiliar_own_of_pocket ≤ 0.05, "
        "unfamiliar_other_of_pocket ≥ 0.9",
    }
    found = {part: ", ".join(f"{name} {bar}" for name, bar in bars.bars(part).items()) for part in bars.FIGURES}
    assert found == promised


def test_a_pattern_stands_for_many_figures():
    assert str(bars.known("bench lessons", "04_dalle_seconds").bar) == "≤ 120"
    assert str(bars.known("bench lessons", "05_dalle2_seconds").bar) == "≤ 150"
    assert str(bars.known("bench lessons", "04_dalle_slowest_cell_seconds").bar) == "≤ 60"
    assert bars.known("bench lessons", "04_dalle_slowest_cell").bar is None


def test_the_table(found):
    lines = found.table().splitlines()
    assert lines[0] == "| figure | measured | untrained | bar |  |"
    assert (
        lines[2]
        == f"| `zero_shot_top1`: {bars.known('eval clip', 'zero_shot_top1').meaning} | 0.960 | 0.000 | ≥ 0.95 | met |"
    )
    assert "| 3 | 12 | reported |  |" in lines[3], "a rank is a whole number"
    assert "| 0.000 |  | ≤ 0.05 | met |" in lines[4], "0 is a value, nothing beside is none"
    below = Report("eval clip", "", {"paraphrase_drop": -0.0002})
    assert "| 0.000 |" in below.table(), "no minus before zero"
    worse = Report("eval clip", "", {"zero_shot_top1": 0.5})
    assert worse.missed() == ["zero_shot_top1"] and "MISSED" in worse.table()
    assert worse.table().splitlines()[0] == "| figure | measured | bar |  |"


def test_the_numbers_are_flat(found):
    numbers = {**FIGURES, "untrained_zero_shot_top1": 0.0, "untrained_photo_rank_coffee": 12}
    assert found.numbers() == numbers


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="has to be a finite number"):
        Report("eval clip", "", {"zero_shot_top1": value})


def test_a_figure_without_a_line_in_the_list_is_refused():
    with pytest.raises(KeyError, match="does not list"):
        Report("eval clip", "", {"zero_shot_top2": 1.0})


def test_two_figures_of_one_name_are_refused(monkeypatch):
    """Fault: one would overwrite the other in the flat JSON object."""
    monkeypatch.setitem(bars.FIGURES["eval clip"], "untrained_word_order", bars.Known("a test"))
    with pytest.raises(ValueError, match="two figures of one name: word_order"):
        Report("eval clip", "", {"untrained_word_order": 1.0}, {"untrained": {"word_order": 0.5}})


def measuring(monkeypatch, report_of) -> None:
    module = ModuleType("mmlesson.measure.clip")
    module.report = report_of
    monkeypatch.setitem(sys.modules, "mmlesson.measure.clip", module)


def test_the_command_prints_a_table_and_a_last_line_of_json(found, monkeypatch, capsys):
    asked = []
    measuring(monkeypatch, lambda options: asked.append(options) or found)
    assert cli.main(["eval", "clip", "--n", "20", "--json"]) == 0
    assert (asked[0].n, asked[0].model, asked[0].part) == (20, None, "clip")
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == found.title and json.loads(lines[-1]) == found.numbers()
    assert cli.main(["eval", "clip"]) == 0
    assert capsys.readouterr().out.strip().endswith("|")


def test_all_parts_run_in_processes_of_their_own(monkeypatch, capsys):
    started = []

    def run(command, check):
        started.append(command[1:])
        return SimpleNamespace(returncode=int("paint" in command))

    monkeypatch.setattr(report.subprocess, "run", run)
    assert cli.main(["bench", "all", "--write"]) == 1
    parts = ["clip", "search", "scale", "paint", "dalle", "lessons"]
    assert started == [["-m", "mmlesson.cli", "bench", part, "--write"] for part in parts]
    assert capsys.readouterr().err == "\nnot measured: bench paint\n"
    started.clear()
    assert cli.main(["eval", "all"]) == 1
    assert [command[3] for command in started] == ["clip", "judge", "search", "vqgan", "paint", "dalle"]
