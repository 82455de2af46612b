"""Scenes of the pocket world: how they are put together, and how they render."""

import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps
from world_rules import (
    kept_from_training,
    scenes_of,
    scenes_of_two,
)

from mmlesson import world


@pytest.fixture
def training() -> list[world.Scene]:
    return scenes_of("train")


@pytest.fixture
def heldout() -> list[world.Scene]:
    return scenes_of("heldout")


@pytest.fixture
def pairs() -> list[world.Scene]:
    return scenes_of_two()


# ------------------------------------------------------------------------------------------- scenes


def boxes(scene: world.Scene, size: int):
    """The square in which each thing lies, in whole pixels and one more on each side: left, top, right, bottom."""
    for thing in scene.things:
        half, x, y = thing.size * size / 2 + 1, thing.x * size, thing.y * size
        yield [int(np.clip(edge, 0, size)) for edge in (x - half, y - half, np.ceil(x + half), np.ceil(y + half))]


@pytest.mark.parametrize(("size", "n"), [(32, 40), (64, 40), (128, 10), (300, 3)])
def test_scene_renders_at_any_size(training, size, n):
    for scene in training[:n]:
        image = scene.render(size)
        assert image.mode == "RGB" and image.size == (size, size)
        pixels = np.array(image)
        outside = np.ones((size, size), bool)
        for left, top, right, bottom in boxes(scene, size):
            shown = pixels[top:bottom, left:right]
            assert (shown != world.BACKGROUNDS[scene.background]).any()  # there is something there
            outside[top:bottom, left:right] = False
        assert (pixels[outside] == world.BACKGROUNDS[scene.background]).all()


def test_scene_is_the_same_at_every_size(training):
    def coarse(image):
        return np.asarray(image.resize((8, 8), Image.Resampling.BOX), float)

    for index, scene in enumerate(training[:20]):
        for size in (96, 128) if index < 5 else (96,):
            difference = coarse(scene.render(size)) - coarse(scene.render(64))
            assert np.sqrt((difference**2).mean()) < 10, (scene, size)  # of 255; different scenes differ by 40 and more


def test_default_size_is_64_and_rendering_repeats(training):
    assert training[0].render().size == (64, 64)
    assert training[0].render().tobytes() == training[0].render(64).tobytes()


def test_backgrounds_are_twelve_and_apart():
    colours = np.array(list(world.BACKGROUNDS.values()), float)
    assert colours.shape == (12, 3)
    distance = np.linalg.norm(colours[:, None] - colours, axis=-1) + 1000 * np.eye(12)
    assert distance.min() > 40
    assert set(world.BACKGROUND_ALIASES) <= set(world.BACKGROUNDS)


def test_mirrored_thing_is_mirrored():
    thing = world.Thing("guitar", 0.5, 0.5, 0.75)
    assert world.sprite("guitar", 48).width % 2 == 0  # else the middle is half a pixel off
    plain = world.Scene((thing,), "white").render(64)
    mirrored = world.Scene((world.Thing("guitar", 0.5, 0.5, 0.75, mirrored=True),), "white").render(64)
    assert mirrored.tobytes() != plain.tobytes()
    assert mirrored.tobytes() == ImageOps.mirror(plain).tobytes()


def test_things_have_the_stated_sizes_and_stay_inside(training, heldout):
    sizes = {1: [], 2: []}
    for scene in training + heldout:
        low, high = {1: (0.60, 0.95), 2: (0.30, 0.60)}[len(scene.things)]
        for thing in scene.things:
            sizes[len(scene.things)].append(thing.size)
            assert low <= thing.size <= high
            for centre in (thing.x, thing.y):
                assert thing.size / 2 - 1e-9 <= centre <= 1 - thing.size / 2 + 1e-9
    for found, (low, high) in zip(sizes.values(), ((0.60, 0.95), (0.30, 0.60)), strict=True):
        assert min(found) < low + 0.02 and max(found) > high - 0.02  # the whole range is used


def test_pairs_never_overlap_and_their_relation_is_plain(pairs):
    assert Counter(scene.relation for scene in pairs).keys() == {"left of", "above"}
    for scene in pairs:
        first, second = scene.things
        along, across = second.x - first.x, second.y - first.y
        if scene.relation == "above":
            along, across = across, along
        assert along >= (first.size + second.size) / 2 - 1e-9  # first comes first, and there is room between
        assert abs(across) <= along / 2 + 1e-9  # nearer to the named direction than to the other


def test_pairs_do_not_touch_in_pixels(pairs):
    for scene in pairs[:40]:
        shown = []
        for thing in scene.things:  # each alone, at the same place
            alone = np.asarray(world.Scene((thing,), scene.background).render(64), int)
            shown.append((abs(alone - world.BACKGROUNDS[scene.background]) > 30).any(-1))
        assert (shown[0] & shown[1]).sum() <= 2, scene  # rounding to whole pixels at most


def test_scenes_vary(training, heldout):
    for scenes in (training, heldout):
        assert {scene.background for scene in scenes} == set(world.BACKGROUNDS)
        things = [thing for scene in scenes for thing in scene.things]
        assert 0.45 < np.mean([thing.mirrored for thing in things]) < 0.55
        assert 0.2 < np.mean([len(scene.things) == 1 for scene in scenes]) < 0.8
        relations = Counter(scene.relation for scene in scenes if scene.relation)
        assert 0.8 < relations["left of"] / relations["above"] < 1.25
        assert len({name for scene in scenes for name in scene.concepts}) > 570
        assert all(len(set(scene.concepts)) == len(scene.things) for scene in scenes)


def test_scene_is_made_to_order():
    scene = world.scene("apple", "dog", background="blue", relation="above", seed=3)
    assert scene.concepts == ("red apple", "dog")  # an alias stands for its concept
    assert scene == world.scene("red apple", "dog", background="blue", relation="above", seed=3)
    assert scene != world.scene("red apple", "dog", background="blue", relation="above", seed=4)
    assert scene.caption == "a red apple above a dog on a blue background"
    assert world.scene("cat").caption == "a cat on a white background"
    with pytest.raises(AttributeError):
        scene.background = "red"  # frozen


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_crowd(count):
    scene = world.crowd("fish", count, background="turquoise", seed=count)
    assert scene == world.crowd("fish", count, background="turquoise", seed=count)
    assert scene.concepts == ("fish",) * count and scene.background == "turquoise"
    assert scene.render(64).size == (64, 64)
    for thing in scene.things:
        assert thing.size / 2 <= min(thing.x, thing.y) and max(thing.x, thing.y) <= 1 - thing.size / 2
    for one, other in itertools.combinations(scene.things, 2):
        assert max(abs(one.x - other.x), abs(one.y - other.y)) >= (one.size + other.size) / 2
    assert scene.held_out == kept_from_training("fish", "turquoise")
    if count > 1:
        with pytest.raises(ValueError, match="describe themselves"):
            _ = scene.caption


def test_wrong_arguments_have_clear_messages():
    with pytest.raises(ValueError, match=r"no background 'mauve'; there are white, grey, .* brown\."):
        world.scene("cat", background="mauve")
    with pytest.raises(ValueError, match="'left of' or 'above', not 'beside'"):
        world.scene("cat", "dog", relation="beside")
    for names in ((), ("cat", "dog", "fish")):
        with pytest.raises(ValueError, match=rf"one or two things, not {len(names)}\."):
            world.scene(*names)
    with pytest.raises(KeyError, match="no 'zeppelim'"):
        world.scene("zeppelim")
    for count in (0, 5):
        with pytest.raises(ValueError, match=rf"1 to 4 objects, not {count}\."):
            world.crowd("cat", count)
    for make in (world.sample, world.dataset):  # a dataset says so at once, not in a worker
        with pytest.raises(ValueError, match="""A split is "train" or "heldout", not 'test'"""):
            make(3, split="test")
        with pytest.raises(ValueError, match="1 or 2 objects, not 3"):
            make(3, objects=3)
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"Scene {index} of a dataset of 3"):
            world.dataset(3)[index]


# ------------------------------------------------------------------------------------ in the middle
def test_objects_in_the_middle_have_one_size_and_few_places():
    places = set()
    for scene in world.sample(60, seed=3):
        scene = world.in_the_middle(scene, (10, 5))
        pixels = np.asarray(scene.render(96))
        rows, columns = (
            each // 8 for each in (pixels != pixels[:1, :1]).any(2).nonzero()
        )  # in squares; the corner shows the ground
        assert not any(thing.mirrored for thing in scene.things)
        places.add((scene.relation, scene.things[0].x, scene.things[0].y))
        if scene.relation == "above":
            rows, columns = columns, rows
        assert columns.min() >= 1 and columns.max() <= 10, "along"
        least, most = (1, 10) if len(scene.things) == 1 else (3, 7)
        assert rows.min() >= least and rows.max() <= most, "across"
    assert len(places) == 3


def test_in_the_middle_says_what_was_said_before():
    for scene in world.sample(100, seed=4):
        placed = world.in_the_middle(scene, (9, 4))
        assert placed.captions() == scene.captions() and placed.held_out == scene.held_out
        for thing in placed.things:
            for edge in (thing.x - thing.size / 2, thing.y - thing.size / 2, thing.size):
                assert 12 * edge == pytest.approx(round(12 * edge)), "on whole squares"
        if len(placed.things) == 2:
            first, second = placed.things
            apart = (second.x - first.x, second.y - first.y)
            assert apart == pytest.approx((4 / 12, 0) if scene.relation == "left of" else (0, 4 / 12))


def test_in_the_middle_there_is_room_for_two():
    for scene, squares in (
        (world.crowd("cat", 3), (10, 5)),
        (world.scene("cat", "dog"), (10, 7)),
        (world.scene("cat"), (13, 5)),
    ):
        with pytest.raises(ValueError, match="room for one or two"):
            world.in_the_middle(scene, squares)


def test_in_the_middle_an_object_looks_the_same_left_and_above():
    left, above = (
        world.in_the_middle(world.scene("cat", "dog", relation=relation), (10, 5)).render(96)
        for relation in ("left of", "above")
    )
    assert left.crop((8, 24, 48, 64)).tobytes() == above.crop((24, 8, 64, 48)).tobytes()
    assert left.crop((48, 24, 88, 64)).tobytes() == above.crop((24, 48, 64, 88)).tobytes()
