"""The measure of paintings: held-out prompts, a judge that knows scenes and not noise, and what the shipped models paint."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from mmlesson import load_guide, load_vqgan, painter, world
from mmlesson.measure import painting as evaluate_paint
from mmlesson.measure.painting import Judge, caption, heldout_prompts
from mmlesson.measure.painting import evaluate_paint as evaluate

FEW = 6


@pytest.fixture(scope="module")
def painted():
    return evaluate(load_guide(), load_vqgan(), FEW, seeds=(0,), steps=40)  # half of what it takes by default


def test_the_prompts_are_held_out_and_different():
    pairs = heldout_prompts(24)
    assert len({concept for concept, _ in pairs}) == 24 and pairs[:5] == heldout_prompts(5)
    assert all(world.scene(concept, background=background).held_out for concept, background in pairs)
    assert caption("cat", "blue") == "a cat on a blue background"


def test_the_judge_names_scenes_and_no_plain_ground():
    pairs = heldout_prompts(24)
    judge = Judge()
    scenes = [world.scene(concept, background=background, seed=3).render(96) for concept, background in pairs]
    objects, backgrounds = judge.ranks(scenes, pairs)
    assert (objects == 1).float().mean() > 0.9 and (backgrounds == 1).float().mean() > 0.9
    assert [name for name, _ in pairs].count(judge.first(scenes[:1])[0]) <= 1
    objects, _ = judge.ranks([Image.new("RGB", (96, 96), "grey")] * 24, pairs)
    assert (objects == 1).float().mean() < 0.1


def test_the_shipped_models_paint_what_they_are_told(painted):
    """Six pictures are a check that it works, not the measurement; that is `mmlesson eval paint`."""
    figures, chance = painted.figures, painted.chance
    assert figures["judge_top5"] >= 0.3 and figures["judge_background"] >= 0.6, figures
    assert chance["judge_top1"] <= 1 / FEW and figures["judge_top5"] > chance["judge_top5"]
    assert figures["ceiling_top1"] >= 0.85 and figures["original_top1"] >= 0.85
    assert figures["seconds"] <= 60  # the bar is 30 on two idle cores
    assert len(painted.pictures) == len(painted.captions) == FEW


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


IMAGE = Image.new("RGB", (96, 96), "white")


def test_the_command_prints_a_table_and_numbers_and_keeps_the_pictures(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(painter, "paint", lambda *a, **k: SimpleNamespace(finish=lambda: SimpleNamespace(image=IMAGE)))
    assert evaluate_paint.main(SimpleNamespace(model=None, n=2, json=True, pictures=tmp_path / "paint")) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    numbers = json.loads(lines[-1])
    assert (
        set(evaluate_paint.MEANINGS) <= set(numbers) and "random_codes" in numbers and "untrained_judge_top1" in numbers
    )
    assert any(line.startswith("| `judge_top1`") and "≥ 0.50" in line for line in lines)
    assert len(list((tmp_path / "paint").glob("??.png"))) == 6 and (tmp_path / "paint" / "sheet.png").exists()
