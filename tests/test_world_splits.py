"""What the pocket world keeps from training, its datasets and its photos."""

import itertools

import numpy as np
import pytest
import torch
from world_rules import (
    NAMES,
    fingerprint,
    kept_from_training,
    pairs_of,
    scenes_of,
    ways_of_saying,
)

from mmlesson import world
from mmlesson.world import sampling, sprites


@pytest.fixture
def training() -> list[world.Scene]:
    return scenes_of("train")


@pytest.fixture
def heldout() -> list[world.Scene]:
    return scenes_of("heldout")


# ------------------------------------------------------------------------------------------- splits


def test_one_pair_in_ten_is_held_out():
    shares = [
        [kept_from_training(name, background) for name in NAMES for background in world.BACKGROUNDS],
        [kept_from_training(*sorted(pair)) for pair in itertools.combinations(NAMES, 2)],
    ]
    assert [len(share) for share in shares] == [597 * 12, 597 * 596 // 2]
    for share in shares:
        assert 0.085 <= np.mean(share) <= 0.115
    for name in NAMES:  # nothing is kept from training altogether
        assert sum(kept_from_training(name, background) for background in world.BACKGROUNDS) <= 7


def test_fixed_pairs_stay_where_they_are():
    held = {background for background in world.BACKGROUNDS if world.scene("cat", background=background).held_out}
    assert held == {"orange", "yellow", "green"}
    assert (
        world.scene("cat", "red apple").held_out and world.scene("red apple", "cat").held_out
    )  # whichever comes first
    assert not world.scene("cat", "dog").held_out and not world.scene("dog", "red apple").held_out
    assert world.scene("dog", "cat", background="green").held_out  # for the cat on green


def test_no_scene_of_a_split_leaks_into_the_other(training, heldout):
    for scenes, split in ((training, False), (heldout, True)):
        for scene in scenes:
            assert scene.held_out == any(kept_from_training(*pair) for pair in pairs_of(scene)) == split


def test_sample_is_stable():
    many = world.sample(60, "heldout", seed=7)
    assert world.sample(20, "heldout", seed=7) == many[:20]
    assert world.sample(20, "heldout", seed=8) != many[:20]
    assert world.sample(0) == []
    assert len({scene.caption for scene in many}) > 55
    assert {len(scene.things) for scene in world.sample(30, "heldout", seed=7, objects=1)} == {1}
    assert {len(scene.things) for scene in world.sample(30, "train", seed=7, objects=2)} == {2}


@pytest.mark.parametrize(("split", "frozen"), [("train", "50f8dc6b6de2e7f2"), ("heldout", "7e8c63230d7a2d5e")])
def test_samples_are_frozen(split, frozen):
    """The same scenes on every machine and for ever: what was trained and measured rests on them."""
    lines = []
    for scene in world.sample(50, split, seed=0):
        lines += [
            scene.caption,
            *(f"{thing.x:.5f} {thing.y:.5f} {thing.size:.5f} {thing.mirrored}" for thing in scene.things),
        ]
    assert fingerprint(lines) == frozen


# ------------------------------------------------------------------------------------------ dataset


def test_dataset_gives_pixels_and_captions():
    data, scenes = world.dataset(20, "heldout", seed=4, size=64), world.sample(20, "heldout", seed=4)
    assert len(data) == 20
    for index, scene in enumerate(scenes):
        pixels, caption, wrong = data[index]
        assert pixels.dtype == torch.uint8 and pixels.shape == (3, 64, 64)
        assert pixels.numpy().transpose(1, 2, 0).tobytes() == scene.render(64).tobytes()
        assert caption in ways_of_saying(scene) and wrong not in ways_of_saying(scene)
    assert world.dataset(1, size=32)[0][0].shape == (3, 32, 32)


@pytest.fixture
def shown(monkeypatch) -> list[world.Scene]:
    """The scenes that a dataset draws, as they are drawn."""
    scenes, draw = [], sampling.random_scene
    monkeypatch.setattr(sampling, "random_scene", lambda *arguments: scenes.append(draw(*arguments)) or scenes[-1])
    return scenes


def test_small_objects_can_be_left_out():
    large = sampling.random_scene(np.random.default_rng(0), "train", 1, smallest=0.9)
    assert large.things[0].size >= 0.9 and not large.held_out
    data = world.dataset(40, seed=1, size=64, objects=1, smallest=0.9)
    for pixels, _, _ in (data[i] for i in range(40)):
        drawn = (pixels != pixels[:, :1, :1]).any(0).nonzero()  # [n, 2]: the places of another colour than the corner's
        assert (drawn.amax(0) - drawn.amin(0) + 1).max() >= 0.9 * 64 - 2
    with pytest.raises(ValueError, match="fills 0.97"):
        world.dataset(1, objects=1, smallest=0.97)
    with pytest.raises(ValueError, match="fills 0.7"):
        world.dataset(1, smallest=0.7)


def test_curriculum(shown):
    data, scenes = world.dataset(400, "train", seed=4, size=16, curriculum=(64, 320)), world.sample(64, "train", seed=4)
    shown.clear()
    captions = [data[index][1] for index in range(400)]
    assert not any(kept_from_training(*pair) for scene in shown for pair in pairs_of(scene))  # nothing leaks this way

    # the first stage: canonical captions, any background; these are the scenes of `sample`
    assert captions[:64] == [scene.caption for scene in shown[:64]]
    assert shown[:64] == scenes
    assert len({scene.background for scene in shown[:64]}) > 8

    # then 64 in a row on one background, then 8, and more ways of saying it
    runs = [shown[start : start + 64] for start in range(64, 320, 64)] + [
        shown[start : start + 8] for start in range(320, 400, 8)
    ]
    assert [len({scene.background for scene in run}) for run in runs] == [1] * 14
    assert len({run[0].background for run in runs}) > 5
    canonical = [caption == scene.caption for caption, scene in zip(captions, shown, strict=True)]
    assert 0.1 < np.mean(canonical[64:]) < 0.6

    assert data[350][1] == captions[350] and shown[400] == shown[350]  # of the seed and the index alone


@pytest.mark.parametrize("curriculum", [None, (5, 9)])
def test_workers_change_nothing(curriculum):
    data = world.dataset(14, seed=3, curriculum=curriculum)
    loads = []
    for workers in (0, 1, 2):
        loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=workers)
        items = [item for batch in loader for item in zip(*batch, strict=True)]
        loads.append([(pixels.numpy().tobytes(), caption, wrong) for pixels, caption, wrong in items])
    assert loads[0] == loads[1] == loads[2]  # the same items in the same order
    assert len(set(loads[2])) == 14  # and no worker repeats another


def test_scenes_of_training_draw_no_file(monkeypatch):
    """What makes them fast (`mmlesson bench` has the time): the sprites are drawn before, and only made smaller."""
    data = world.dataset(300, seed=6, size=64)
    data[0]  # the sprites are loaded now
    monkeypatch.setattr(sprites, "_draw_svg", lambda *_: pytest.fail("a file was drawn"))
    loads = sprites.all_sprites.cache_info().misses
    for index in range(300):
        data[index]
    assert sprites.all_sprites.cache_info().misses == loads


@pytest.mark.parametrize("curriculum", [(), (5,), (9, 5), (-1, 5), (1, 2, 3)])
def test_a_wrong_curriculum_is_a_sentence(curriculum):
    with pytest.raises(ValueError, match="the numbers at which stages 2 and 3 begin"):
        world.dataset(10, curriculum=curriculum)


def test_a_curriculum_may_begin_with_its_last_stage(shown):
    """Zeros are numbers: both stages begin with the first scene."""
    data = world.dataset(80, seed=4, size=16, curriculum=(0, 0))
    shown.clear()
    captions = [data[index][1] for index in range(80)]
    assert [len({scene.background for scene in shown[start : start + 8]}) for start in range(0, 80, 8)] == [1] * 10
    assert sum(caption == scene.caption for caption, scene in zip(captions, shown, strict=True)) < 60


# ------------------------------------------------------------------------------------------- photos


def test_photos():
    photos = world.photos()
    assert len(photos) == 33 and len({photo.name for photo in photos}) == 33
    assert {"a cat", "a dog", "a woman"} <= {photo.label for photo in photos}
    for photo in photos:
        image = photo.image
        assert image.mode == "RGB" and min(image.size) >= 200
        assert np.asarray(image).std() > 10  # a picture, not a blank
        assert photo.label and len(photo.caption.split()) >= 3 and photo.caption in repr(photo)


def test_photos_of_one_package():
    photos = world.photos("skimage")
    assert [photo.name for photo in photos[:2]] == ["chelsea", "astronaut"] and len(photos) == 10
    labels = [photo.label for photo in photos] + list(world.PHOTO_DISTRACTORS)
    assert len(labels) == len(set(labels)) == 20  # the figure `photo_rank_*` ranks the true label among 20
    assert len(world.photos("sklearn", "matplotlib")) == 3
    with pytest.raises(ValueError, match="skimage, foolbox, sklearn, matplotlib, not in 'pillow'"):
        world.photos("pillow")
