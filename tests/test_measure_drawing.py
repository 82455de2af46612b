"""The measure of DALL-E: prompts that are held out, a judge that knows word order, and what counts as a copy."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mmlesson import dalle as dalles
from mmlesson import load_judge, load_vqgan, world
from mmlesson.measure import drawing as evaluate_dalle
from mmlesson.measure import painting as evaluate_paint
from mmlesson.measure.drawing import Neighbours, heldout_pairs, pair_ranks
from mmlesson.measure.drawing import evaluate_dalle as evaluate
from mmlesson.measure.painting import heldout_prompts
from mmlesson.train import dalle as recipe


@pytest.fixture(scope="module")
def vqgan():
    return load_vqgan()


def test_the_pairs_are_held_out_and_different():
    pairs = heldout_pairs(60)
    assert len({scene.caption for scene in pairs}) == 60 and pairs[:5] == heldout_pairs(5)
    assert all(scene.held_out and scene.pair_held_out and len(scene.things) == 2 for scene in pairs)
    trained = {frozenset(scene.concepts) for scene in world.sample(5000, "train", seed=0, objects=2)}
    assert not trained & {frozenset(scene.concepts) for scene in pairs}, "no training scene shows the two together"


def test_the_judge_prefers_a_scenes_own_caption_and_no_plain_ground(vqgan):
    pairs, judge = heldout_pairs(40), load_judge()
    scenes = [scene.render(96) for scene in pairs]
    assert (pair_ranks(judge, scenes, pairs) == 1).float().mean() > 0.8
    swapped = [scene.swapped() for scene in pairs]
    assert (pair_ranks(judge, scenes, swapped) == 1).float().mean() < 0.2, (
        "the same things on the other sides are another caption"
    )
    assert (pair_ranks(judge, [Image.new("RGB", (96, 96), "grey")] * 40, pairs) == 1).float().mean() < 0.2


def test_a_copy_is_found_and_a_new_picture_is_none(vqgan):
    copy = recipe.scenes(24_000, "train", 0, recipe.Recipe(steps=1))[7].render(96)
    found = Neighbours(300).of([copy, Image.effect_noise((96, 96), 90).convert("RGB")])
    assert found.distances[0] < 1e-3 and found.images[0].tobytes() == copy.tobytes()
    assert found.distances[1] > found.among.quantile(0.05) > 0 and found.copies == 0.5
    assert found.among.shape == (300,)
    assert found.among.min() > 0, "a scene that training draws twice counts once"


def test_an_untrained_network_has_every_figure_and_reaches_none(vqgan, monkeypatch):
    """A check that it measures; the figures of the trained one are `mmlesson eval dalle`."""
    monkeypatch.setattr(evaluate_dalle, "OTHERS", 3)
    drawn = evaluate(recipe.new_model(vqgan, dim=32, layers=1, heads=2).eval(), vqgan, n=4, best_of=2, n_scenes=50)
    assert set(drawn.figures) == set(evaluate_dalle.MEANINGS) and set(drawn.chance) == {
        name for name in drawn.figures if not name.startswith("ceiling")
    }
    assert drawn.figures["object_top1"] <= 0.25 and drawn.figures["ceiling_object_top1"] >= 0.5
    assert drawn.figures["rerank_gain"] == pytest.approx(drawn.figures["reranked_top1"] - drawn.figures["object_top1"])
    assert len(drawn.pictures) == len(drawn.captions) == 8


def test_settings_are_compared_on_training_prompts_and_without_the_judge(vqgan, monkeypatch):
    monkeypatch.setattr(evaluate_paint, "load_judge", lambda: pytest.fail("the judge is asked once, at the end"))
    asked = []
    dalle = recipe.new_model(vqgan, dim=32, layers=1, heads=2).eval()
    monkeypatch.setattr(
        dalle,
        "generate",
        lambda prompt, n, seed, **options: (
            asked.append((prompt, n, options)) or torch.zeros(n, 12, 12, dtype=torch.long)
        ),
    )
    rows = list(evaluate_dalle.compare_settings(dalle, vqgan, n=3, each=2, tried=[(0.5, 2.0), (1.0, 1.0)]))
    assert [(row["temperature"], row["guidance"]) for row in rows] == [(0.5, 2.0), (1.0, 1.0)]
    assert all(
        0 <= row[name] <= 1 for row in rows for name in ("object_top1", "object_top5", "background_top1", "pair_top1")
    )
    assert [options for _, _, options in asked[::6]] == [
        {"temperature": t, "guidance": g} for t, g in [(0.5, 2.0), (1.0, 1.0)]
    ]
    trained = {
        scene.caption for objects in (1, 2) for scene in world.sample(3, "train", 600 + objects, objects=objects)
    }
    assert {prompt for prompt, _, _ in asked} == trained and {n for _, n, _ in asked} == {2} and len(asked) == 12


def test_the_shipped_model_draws_what_is_asked(vqgan):
    """A few prompts, with bounds that so few can tell from chance; the figures and their bars are `mmlesson eval dalle`."""
    drawn = evaluate(dalles.load_dalle(), vqgan, n=12, best_of=1, n_scenes=200)
    assert (
        drawn.figures["object_top1"] >= 0.5
        and drawn.figures["background_top1"] >= 0.8
        and drawn.figures["pair_top1"] >= 0.4
    ), drawn.figures
    assert drawn.figures["copies"] <= 0.25
    assert drawn.chance["object_top1"] <= 0.1 and drawn.chance["pair_top1"] <= 0.2


def test_the_command_prints_a_table_and_numbers_and_keeps_the_pictures(vqgan, monkeypatch, capsys, tmp_path):
    """With more prompts than there are concepts whose background is held out, and pictures that are scenes: what a perfect network would draw."""
    monkeypatch.setattr(
        evaluate_dalle, "load_dalle", lambda _: recipe.new_model(vqgan, dim=32, layers=1, heads=2).eval()
    )
    monkeypatch.setattr(evaluate_dalle, "heldout_prompts", lambda n: heldout_prompts(n)[:3])
    monkeypatch.setattr(evaluate_dalle, "Neighbours", lambda n, side: Neighbours(30, side))
    scenes = {
        scene.caption: scene
        for scene in [world.scene(name, background=ground) for name, ground in heldout_prompts(3)] + heldout_pairs(5)
    }
    monkeypatch.setattr(
        dalles.DALLE, "generate", lambda self, prompt, n, seed: vqgan.encode([scenes[prompt].render(96)] * n)
    )
    assert (
        evaluate_dalle.main(SimpleNamespace(model=None, n=5, json=True, pictures=tmp_path / "drawn", settings=False))
        == 0
    )
    lines = capsys.readouterr().out.strip().splitlines()
    numbers = json.loads(lines[-1])
    assert set(evaluate_dalle.MEANINGS) <= set(numbers) and "untrained_copies" in numbers
    assert (
        "3 held-out prompts of one object, 5 of two" in lines[0]
        and numbers["object_top1"] == 1 > numbers["untrained_object_top1"]
    )
    gain, reranked = (
        next(line for line in lines if line.startswith(f"| `{name}`")) for name in ("rerank_gain", "reranked_top1")
    )
    assert "| 0.000 | 0.000 | > 0.00 | MISSED |" in gain and "| 1.000 |" in reranked, "eight times the same: no gain"
    assert len(list((tmp_path / "drawn").glob("??.png"))) == 8 and (tmp_path / "drawn" / "sheet.png").exists()
    monkeypatch.setattr(
        evaluate_dalle,
        "compare_settings",
        lambda *_: iter([{"temperature": 0.5, "guidance": 2.0, "object_top1": 0.25}]),
    )
    assert evaluate_dalle.main(SimpleNamespace(model=None, n=5, settings=True)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| 0.5 | 2.0 | 0.250 |"


def test_another_vqgan_is_refused(vqgan):
    from mmlesson.gates import AssetError

    dalle = recipe.new_model(vqgan, dim=32, layers=1, heads=2, vqgan="cd" * 32)
    with pytest.raises(AssetError, match="load the one that it was trained with"):
        evaluate(dalle, vqgan, n=1)
