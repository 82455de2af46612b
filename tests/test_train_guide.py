"""The guide's recipe and its folder: what it looks at, what moves, what stays."""

import pytest
import torch

from mmlesson import load_clip, load_guide, load_vqgan, runtime, world
from mmlesson.assets import AssetError
from mmlesson.clip import GUIDE_WEIGHTS, guide_from
from mmlesson.prior import load_prior
from mmlesson.train import guide as recipe


def test_no_held_out_pair_is_among_the_captions():
    captions = set(recipe.one_object_captions())
    heldout = {scene.caption for scene in world.sample(300, "heldout", seed=3, objects=1)}
    assert len(captions) > 6000 and not captions & heldout


def test_half_finished_pictures_clear_up():
    """The clearer the blend, the nearer is what the prior makes of it to the scene."""
    model = load_vqgan()
    prior = load_prior(model)
    from mmlesson import images

    pixels = images.to_pixels([scene.render(96) for scene in world.sample(8, "heldout", seed=1)])
    errors = []
    for clarity in (0.02, 0.3, 0.9):
        made = recipe.half_finished(pixels, model, prior, torch.full((8,), clarity), runtime.generator(0))
        assert made.shape == pixels.shape and 0 <= made.min() and made.max() <= 1
        errors.append((made - pixels).abs().mean().item())
    assert errors[0] > errors[1] > errors[2]


def test_perturbations_deceive_and_keep_their_radius():
    goal = torch.rand(4, 3, 8, 8)
    pixels = torch.full((4, 3, 8, 8), 0.5)

    def loss_of(x):
        return (x - goal).square().sum()

    radii = torch.tensor([0.0, 0.1, 0.2, 0.3])
    moved = recipe._perturbed(pixels, radii, loss_of)
    torch.testing.assert_close((moved - pixels).flatten(1).norm(dim=1), radii, atol=1e-5, rtol=1e-4)
    assert loss_of(moved) > loss_of(pixels)


def test_two_steps_move_the_tower_and_resume(tmp_path):
    run = recipe.Recipe(steps=2, batch_size=4, radius=3.0, workers=0)
    before = load_clip("pocket-clip").model.visual.state_dict()
    training = recipe.train(run, tmp_path, "cpu")
    step, tower = next(training)
    training.close()
    assert step.step == 1 and step.loss > 0
    assert any(not torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    assert [step.step for step, _ in recipe.train(run, tmp_path, "cpu")] == [2]


def test_the_guide_reads_texts_as_the_pocket_clip_does():
    guide, plain = load_guide(), load_clip("pocket-clip")
    scene = world.scene("cat", background="blue").render(64)
    assert torch.equal(guide.encode_texts(["a cat"]), plain.encode_texts(["a cat"])) and guide.name == "pocket-guide"
    assert not torch.allclose(guide.encode_images(scene), plain.encode_images(scene))
    assert guide.classify(scene, ["a picture of a cat", "a picture of a dog"])[0, 0] > 0.5


def test_a_folder_brings_the_tower_back(tmp_path):
    tower = load_clip("pocket-clip").model.visual
    recipe.save_guide(tower, tmp_path)
    again = guide_from(tmp_path)
    scene = world.scene("dog").render(64)
    torch.testing.assert_close(again.encode_images(scene), load_clip("pocket-clip").encode_images(scene), atol=1e-2, rtol=0)
    (tmp_path / GUIDE_WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(AssetError, match="missing or damaged"):
        guide_from(tmp_path)
    with pytest.raises(AssetError, match="missing or damaged"):
        guide_from(tmp_path / "nowhere")


def test_the_environment_names_another_guide(monkeypatch):
    monkeypatch.setenv("MMLESSON_CLIP", "pocket-clip")
    assert load_guide().name == "pocket-clip"
