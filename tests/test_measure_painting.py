"""The measurement of paintings: held-out prompts, and a judge that is asked when all is painted.

The figures of the shipped models are stored; tests/test_measured.py holds them fresh and above their bars.
"""

from types import SimpleNamespace

import torch
from PIL import Image

from mmlesson import load_guide, load_vqgan, painter, world
from mmlesson.measure import painting as evaluate_paint
from mmlesson.measure import report
from mmlesson.measure.bars import FIGURES
from mmlesson.measure.painting import evaluate_paint as evaluate
from mmlesson.measure.prompts import caption, heldout_prompts

IMAGE = Image.new("RGB", (96, 96), "white")


def test_the_prompts_are_held_out_and_different():
    pairs = heldout_prompts(24)
    assert len({concept for concept, _ in pairs}) == 24 and pairs[:5] == heldout_prompts(5)
    assert all(world.scene(concept, background=background).held_out for concept, background in pairs)
    assert caption("cat", "blue") == "a cat on a blue background"


def test_the_judge_names_what_is_there_and_no_random_codes():
    """Four paintings of three steps are a check that it measures: scenes and their reconstructions have a name."""
    painted = evaluate(load_guide(), load_vqgan(), 4, seeds=(0,), steps=3)
    figures = painted.figures
    assert (
        figures["original_top1"] >= 0.75 and figures["ceiling_top1"] >= 0.75 and figures["ceiling_background"] >= 0.75
    )
    assert painted.chance["judge_top1"] <= 0.25 and set(painted.chance) < set(figures)
    assert figures["seconds"] > 0 and figures["judge_top1"] <= figures["judge_top5"] <= 1
    assert len(painted.pictures) == len(painted.captions) == 4


def test_the_remedies_are_measured_beside_what_goes_without_them():
    found = evaluate_paint.evaluate_remedies(load_guide(), load_vqgan(), n=30)
    assert set(found.figures) == set(found.without) == {"restored_codes", "half_finished_top1"}
    assert found.figures["restored_codes"] > found.without["restored_codes"]


def test_the_judge_neither_guides_nor_chooses(monkeypatch):
    """It is not loaded before the last picture is painted."""
    order = []
    monkeypatch.setattr(
        painter,
        "paint",
        lambda *a, **k: SimpleNamespace(finish=lambda: order.append("painted") or SimpleNamespace(image=IMAGE)),
    )
    real = evaluate_paint.load_judge
    monkeypatch.setattr(evaluate_paint, "load_judge", lambda: order.append("judge") or real())
    evaluate(load_guide(), load_vqgan(), 2, seeds=(0, 1))
    assert order == ["painted"] * 4 + ["judge"]


def test_the_command_has_every_figure_and_keeps_the_pictures(monkeypatch, tmp_path):
    monkeypatch.setattr(painter, "paint", lambda *a, **k: SimpleNamespace(finish=lambda: SimpleNamespace(image=IMAGE)))
    monkeypatch.setattr(
        evaluate_paint, "evaluate_remedies", lambda *_: evaluate_paint.Remedies({"restored_codes": 0.4}, {})
    )
    folders = {"pictures": tmp_path / "paint", "sheet": tmp_path / "to read"}
    found = evaluate_paint.report(SimpleNamespace(model=None, n=2, **folders))
    assert isinstance(found, report.Report)
    assert set(found.figures) == set(FIGURES["eval paint"]) - {"half_finished_top1"}
    assert found.numbers()["random_codes"] == found.numbers()["untrained_judge_top1"]
    assert len(list((tmp_path / "paint").glob("??.png"))) == 6 and (tmp_path / "paint" / "sheet.png").exists()
    key = (tmp_path / "to read" / "key.csv").read_text().splitlines()
    assert len(key) == 7 and key[1].startswith("1,") and caption(*heldout_prompts(1)[0]) in key[1]
    with Image.open(tmp_path / "to read" / "sheet.png") as sheet:
        assert sheet.width >= 6 * 192


def test_named_needs_the_judge_and_the_outline():
    pairs = heldout_prompts(6)
    scenes = [world.scene(concept, background=background, seed=1).render(96) for concept, background in pairs]
    smears = [scene.resize((7, 7)).resize((96, 96), Image.Resampling.BICUBIC) for scene in scenes]
    right = evaluate_paint.Ranks(torch.ones(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64))
    wrong = evaluate_paint.Ranks(torch.full((6,), 2), torch.ones(6, dtype=torch.int64))
    assert evaluate_paint.named(scenes, pairs, right).tolist() == [True] * 6
    assert not evaluate_paint.named(smears, pairs, right).any() and not evaluate_paint.named(scenes, pairs, wrong).any()
