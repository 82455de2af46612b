"""The guide's recipe and its folder: what it looks at, what moves, what stays."""

import pytest
import torch

from mmlesson import load_clip, load_guide, load_vqgan, runtime, world
from mmlesson.clip import guide_from
from mmlesson.gates import AssetError
from mmlesson.models.towers import GUIDE_WEIGHTS, Towers, guide_towers
from mmlesson.pixels import to_pixels
from mmlesson.prior import load_prior
from mmlesson.train import guide as recipe
from mmlesson.train.data import ENDLESS, pixels_and_captions, scene_batches
from mmlesson.train.guide import Recipe, Training
from mmlesson.train.run import train


def test_no_held_out_pair_is_among_the_captions():
    captions = recipe.one_object_captions()
    assert len(set(captions)) == len(captions), "a caption is one answer"
    heldout = {scene.caption for scene in world.sample(300, "heldout", seed=3, objects=1)}
    assert len(captions) > 6000 and not heldout & set(captions)


def test_half_finished_pictures_clear_up():
    """The clearer the blend, the nearer is what the prior makes of it to the scene."""
    model = load_vqgan()
    prior = load_prior(model)
    pixels = to_pixels([scene.render(96) for scene in world.sample(8, "heldout", seed=1)])
    errors = []
    for clarity in (0.02, 0.3, 0.9):
        made = recipe.half_finished(pixels, model, prior, torch.full((8,), clarity), runtime.generator(0))
        assert made.shape == pixels.shape and 0 <= made.min() and made.max() <= 1
        errors.append((made - pixels).abs().mean().item())
    assert errors[0] > errors[1] > errors[2]


def test_clear_pictures_teach_the_second_tower_alone_and_half_finished_ones_both(tmp_path, monkeypatch):
    short = Recipe(steps=2, clear_share=0.5, batch_size=4, workers=0)
    every, seen = (ENDLESS, ENDLESS), {"objects": 1, "smallest": short.smallest_object}
    batches = scene_batches(short, 0, pixels_and_captions, 96, curriculum=every, **seen)
    captions = [caption for _ in range(2) for caption in next(batches)[1]]
    monkeypatch.setattr(recipe, "one_object_captions", lambda: list(dict.fromkeys(captions)))  # not all 6,424
    was = guide_towers(load_clip("pocket-clip"), short.seed)
    training = Training(short, "cpu")
    going = train(training, tmp_path)
    first = next(going)
    going.close()
    one = training.model.towers
    assert first.step == 1 and first.loss > 0
    assert _same(one[0].state_dict(), was.towers[0].state_dict())
    assert not _same(one[1].state_dict(), was.towers[1].state_dict())
    resumed = Training(short, "cpu")
    (second,) = train(resumed, tmp_path)
    assert second.step == 2
    for now, before in zip(resumed.model.towers, one, strict=True):
        assert not _same(now.state_dict(), before.state_dict())


def _same(one: dict, other: dict) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_guide_reads_texts_as_the_pocket_clip_does():
    guide, plain = load_guide(), load_clip("pocket-clip")
    scene = world.scene("cat", background="blue").render(64)
    assert torch.equal(guide.encode_texts(["a cat"]), plain.encode_texts(["a cat"])) and guide.name == "pocket-guide"
    assert not torch.allclose(guide.encode_images(scene), plain.encode_images(scene))
    assert guide.classify(scene, ["a picture of a cat", "a picture of a dog"])[0, 0] > 0.5


def test_towers_answer_with_the_mean_of_unit_features():
    class Fixed(torch.nn.Module):
        def __init__(self, *numbers):
            super().__init__()
            self.numbers = torch.tensor([numbers])

        def forward(self, inputs):
            return self.numbers.expand(len(inputs), -1)

    towers = Towers([Fixed(3.0, 4.0), Fixed(0.0, 0.1)], image_size=8)
    torch.testing.assert_close(towers(torch.zeros(2, 3, 8, 8)), torch.tensor([[0.3, 0.9]] * 2))


def test_each_tower_is_a_clip_of_its_own():
    """Its features are one of the two whose mean is the guide's; texts have the same features."""
    guide, plain = load_guide(), load_clip("pocket-clip")
    pixels = torch.rand(2, 3, 64, 64, generator=runtime.generator(0))
    each = [clip.encode_pixels(pixels) for clip in guide.each_tower()]
    assert len(each) == 2 and not torch.allclose(*each, atol=0.05)
    torch.testing.assert_close(
        torch.nn.functional.normalize(sum(each), dim=-1), guide.encode_pixels(pixels), atol=1e-5, rtol=0
    )
    assert torch.equal(guide.each_tower()[1].encode_texts("a cat"), guide.encode_texts("a cat"))
    assert plain.each_tower() == [plain]


def test_a_folder_brings_the_towers_back(tmp_path):
    plain, scene = load_clip("pocket-clip"), world.scene("dog").render(64)
    towers = guide_towers(plain, seed=3).eval()
    recipe.save_guide(towers, tmp_path)
    again, pixels = guide_from(tmp_path), plain.preprocess(scene)[None]
    torch.testing.assert_close(again.model.visual(pixels), towers(pixels), atol=1e-2, rtol=0)
    assert again.image_size == 64 and not again.model.visual.training
    (tmp_path / GUIDE_WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(AssetError, match="visual.safetensors is damaged, or no safetensors"):
        guide_from(tmp_path)
    with pytest.raises(AssetError, match="visual.safetensors is missing"):
        guide_from(tmp_path / "nowhere")


def test_the_environment_names_another_guide(monkeypatch):
    monkeypatch.setenv("MMLESSON_CLIP", "pocket-clip")
    assert load_guide().name == "pocket-clip"
