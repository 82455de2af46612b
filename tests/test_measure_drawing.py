"""The measure of DALL-E: prompts that are held out, a judge that knows word order, and what counts as a copy."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mmlesson import dalle as dalles
from mmlesson import load_vqgan, world
from mmlesson.measure import copies, namer
from mmlesson.measure import drawing as evaluate_dalle
from mmlesson.measure.bars import FIGURES
from mmlesson.measure.copies import Neighbours
from mmlesson.measure.drawing import evaluate_dalle as evaluate
from mmlesson.measure.drawing import heldout_pairs
from mmlesson.measure.prompts import heldout_prompts
from mmlesson.train import dalle as recipe
from mmlesson.world import middle


@pytest.fixture(scope="module")
def vqgan():
    return load_vqgan()


def test_the_pairs_are_held_out_and_different():
    pairs = heldout_pairs(60)
    assert len({scene.caption for scene in pairs}) == 60 and pairs[:5] == heldout_pairs(5)
    assert all(scene.held_out and scene.pair_held_out and len(scene.things) == 2 for scene in pairs)
    trained = {frozenset(scene.concepts) for scene in world.sample(5000, "train", seed=0, objects=2)}
    assert not trained & {frozenset(scene.concepts) for scene in pairs}, "no training scene shows the two together"


def test_a_copy_is_found_and_a_new_picture_is_none(vqgan):
    copy = middle.scenes_in_the_middle(600, "train", 0)[7].render(96)
    found = Neighbours(300).of([copy, Image.effect_noise((96, 96), 90).convert("RGB")])
    assert found.distances[0] < 1e-3 and found.images[0].tobytes() == copy.tobytes()
    assert found.distances[1] > found.among.quantile(0.05) > 0 and found.copies == 0.5
    assert found.among.shape == (300,)
    assert found.among.min() > 0, "a scene that training draws twice counts once"


def test_an_untrained_network_has_every_figure_and_reaches_none(vqgan, monkeypatch):
    """A check that it measures; the figures of the trained one are `mmlesson eval dalle`."""
    monkeypatch.setattr(namer, "OTHERS", 3)
    drawn = evaluate(recipe.new_model(vqgan, dim=32, layers=1, heads=2).eval(), vqgan, n=4, best_of=2, n_scenes=50)
    assert set(drawn.figures) == set(FIGURES["eval dalle"]) and set(drawn.chance) == {
        name for name in drawn.figures if not name.startswith("ceiling")
    }
    assert drawn.figures["object_top1"] <= 0.25 and drawn.figures["ceiling_object_top1"] >= 0.5
    assert drawn.figures["rerank_gain"] == pytest.approx(drawn.figures["reranked_top1"] - drawn.figures["object_top1"])
    assert len(drawn.pictures) == len(drawn.captions) == 8


def test_settings_are_compared_on_training_prompts_and_without_the_judge(vqgan, monkeypatch):
    monkeypatch.setattr(evaluate_dalle, "load_judge", lambda: pytest.fail("the judge is asked once, at the end"))
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
    """A few prompts, with bounds that so few can tell from chance; the figures and their bars are stored."""
    drawn = evaluate(dalles.load_dalle(), vqgan, n=6, best_of=1, n_scenes=50)
    assert drawn.figures["object_top1"] >= 0.5 and drawn.figures["background_top1"] >= 0.8, drawn.figures
    assert drawn.chance["object_top1"] <= 0.2


def test_the_command_counts_its_prompts_and_keeps_the_pictures(vqgan, monkeypatch, tmp_path):
    """More prompts than concepts with a held-out background, and pictures that a perfect network would draw."""
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
    found = evaluate_dalle.report(SimpleNamespace(model=None, n=5, pictures=tmp_path / "drawn", settings=False))
    assert "3 held-out prompts of one object, 5 of two" in found.title
    assert set(found.figures) == set(FIGURES["eval dalle"]) and "untrained_copies" in found.numbers()
    assert found.figures["object_top1"] == 1 > found.beside["untrained"]["object_top1"]
    assert found.figures["rerank_gain"] == 0 and "rerank_gain" in found.missed(), "eight times the same: no gain"
    assert len(list((tmp_path / "drawn").glob("??.png"))) == 8 and (tmp_path / "drawn" / "sheet.png").exists()


def test_settings_are_a_table_of_their_own(vqgan, monkeypatch, capsys):
    monkeypatch.setattr(
        evaluate_dalle, "load_dalle", lambda _: recipe.new_model(vqgan, dim=32, layers=1, heads=2).eval()
    )
    row = {"temperature": 0.5, "guidance": 2.0, "object_top1": 0.25}
    monkeypatch.setattr(evaluate_dalle, "compare_settings", lambda *_: iter([row]))
    assert evaluate_dalle.report(SimpleNamespace(model=None, n=5, settings=True)) is None
    assert capsys.readouterr().out.splitlines()[-1] == "| 0.5 | 2.0 | 0.250 |"


def test_scenes_stand_in_the_middle():
    scenes = middle.scenes_in_the_middle(50, "train", 3)
    assert len(scenes) == 50 and not any(scene.held_out for scene in scenes)
    for scene in scenes:
        side = middle.SQUARES[len(scene.things) - 1] / world.SQUARES
        assert all(thing.size == side for thing in scene.things)


def test_fewer_scenes_than_asked_for_are_refused(monkeypatch):
    """Fault: where scenes repeat, the number that `copies` is measured with was cut without a word."""
    same = middle.scenes_in_the_middle(1, "train", 0)
    monkeypatch.setattr(copies, "scenes_in_the_middle", lambda n, split, seed: same * n)
    with pytest.raises(ValueError, match="Among 8 scenes only 1 are different, and 4 were asked for"):
        Neighbours(4)


@pytest.mark.parametrize("n", [0, 1])
def test_one_scene_has_no_neighbour(n):
    with pytest.raises(ValueError, match="at least 2 scenes"):
        Neighbours(n)


def test_another_vqgan_is_refused(vqgan):
    from mmlesson.gates import AssetError

    dalle = recipe.new_model(vqgan, dim=32, layers=1, heads=2, vqgan="cd" * 32)
    with pytest.raises(AssetError, match="load the one that it was trained with"):
        evaluate(dalle, vqgan, n=1)
