"""What scenes of the pocket world say of themselves, in training and never in training."""

from collections import Counter

import numpy as np
import pytest
from world_rules import (
    TRAINING_TEMPLATES,
    UNSEEN_TEMPLATES,
    say,
    scenes_of,
    scenes_of_two,
    ways_of_saying,
    words,
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


# ----------------------------------------------------------------------------------------- captions


def test_captions():
    assert world.scene("unicorn", background="orange").caption == "a unicorn on an orange background"
    assert world.scene("orange heart", background="orange").caption == "an orange heart on an orange background"
    grapes = world.scene("grapes", "owl", background="purple")
    assert grapes.caption == "grapes left of an owl on a purple background"
    assert "an owl to the right of grapes on a purple background" in grapes.captions()
    assert "owl right of grapes, purple" in grapes.captions()
    assert "on purple, an owl with grapes to the left" in grapes.captions(unseen=True)
    above = world.scene("axe", "Santa Claus", background="grey", relation="above")
    assert above.caption == "an axe above Santa Claus on a grey background"
    assert "there is Santa Claus under an axe against grey" in above.captions()


def test_a_scene_says_it_in_a_dozen_ways(training, pairs):
    for scene in training[:100]:
        captions = scene.captions()
        assert captions[0] == scene.caption
        assert len(captions) >= 12
        if all(world.concept(name).article for name in scene.concepts):
            assert len(set(captions)) == len(captions)  # "{a} on red" and "{A} on red" are one text for grapes
        unseen = scene.captions(unseen=True)
        assert len(set(unseen)) == len(unseen) >= 4
        for caption in captions + unseen:
            assert scene.background in caption and all(name in caption for name in scene.concepts)
            assert "{" not in caption and "  " not in caption and caption == caption.strip()
    for scene in pairs[:100]:  # every way of saying it says the order: its swap is another text
        assert not set(scene.captions()) & set(scene.swapped().captions())
        assert not set(scene.captions(True)) & set(scene.swapped().captions(True))


def test_swapped_exchanges_the_things(pairs):
    for scene in pairs[:200]:
        swapped = scene.swapped()
        assert swapped.concepts == scene.concepts[::-1]
        assert (swapped.background, swapped.relation, swapped.held_out) == (
            scene.background,
            scene.relation,
            scene.held_out,
        )
        assert [(t.x, t.y, t.size, t.mirrored) for t in swapped.things] == [
            (t.x, t.y, t.size, t.mirrored) for t in scene.things
        ]
        assert swapped.caption != scene.caption and words(swapped.caption) == words(scene.caption)
        assert swapped.swapped() == scene
    with pytest.raises(ValueError, match="Only a scene of two objects can be swapped; this one has 1"):
        world.scene("cat").swapped()


def test_no_unseen_wording_is_a_training_wording(training, heldout):
    assert not set(UNSEEN_TEMPLATES) & set(TRAINING_TEMPLATES)
    assert len(set(UNSEEN_TEMPLATES)) == len(UNSEEN_TEMPLATES) >= 12
    said, unseen = set(), set()
    for scene in training[:300] + heldout[:300]:
        unseen.update(scene.captions(unseen=True))
        said.update(scene.captions())
        templates = world.ONE_WITHOUT_BACKGROUND if len(scene.things) == 1 else world.UNORDERED
        said.update(say(template, list(scene.concepts), scene.background) for template in templates)
    assert len(unseen) > 2000 and not said & unseen


def other_backgrounds(scene: world.Scene) -> list[str]:
    return [background for background in world.BACKGROUNDS if background != scene.background]


def test_phrase_of_two_and_its_wrong_caption(pairs):
    rng = np.random.default_rng(5)
    kinds = Counter()
    for scene in pairs[:800]:
        caption, wrong = scene.phrase(rng)
        template, names, background = ways_of_saying(scene)[caption][0]
        kinds[
            "unordered"
            if template in world.UNORDERED
            else "canonical"
            if template in (world.LEFT[0], world.ABOVE[0])
            else "other"
        ] += 1
        kinds["renamed"] += names != list(scene.concepts)
        assert wrong not in ways_of_saying(scene)
        if wrong in [say(template, names, other) for other in other_backgrounds(scene)] and wrong != caption:
            kinds["another background"] += 1
        elif template in world.UNORDERED:
            assert wrong == ""  # exchanged, it would be as true
        else:
            assert wrong == say(template, names[::-1], background)
            assert words(wrong) == words(caption)
            kinds["exchanged"] += 1
    shares = {kind: count / 800 for kind, count in kinds.items()}
    assert 0.05 < shares["unordered"] < 0.15 and 0.2 < shares["canonical"] < 0.45 < shares["other"]
    assert 0.05 < shares["renamed"] < 0.5
    assert shares["exchanged"] > 0.5 and 0.2 < shares["another background"] < 0.5


def test_phrase_of_one_and_its_wrong_caption(training):
    rng = np.random.default_rng(6)
    kinds = Counter()
    scenes = [scene for scene in training if len(scene.things) == 1][:800]
    for scene in scenes:
        caption, wrong = scene.phrase(rng)
        ways = ways_of_saying(scene)[caption]
        kinds["silent"] += all(template in world.ONE_WITHOUT_BACKGROUND for template, _, _ in ways)
        assert wrong and wrong not in ways_of_saying(scene)
        (name,) = scene.concepts
        group = world.concept(name).group
        likes = [each.name for each in world.concepts() if each.group == group and each.name != name]
        another_thing = [say(template, [like], background) for template, _, background in ways for like in likes]
        elsewhere = [say(template, names, other) for template, names, _ in ways for other in other_backgrounds(scene)]
        assert wrong in another_thing + elsewhere
        kinds["another thing"] += wrong in another_thing
    assert 0.05 < kinds["silent"] / len(scenes) < 0.25  # some leave the background out
    assert 0.4 < kinds["another thing"] / len(scenes) < 0.8


def test_phrases_of_the_first_stages(training):
    rng = np.random.default_rng(7)
    for scene in training[:300]:
        caption, wrong = scene.phrase(rng, stage=1)
        assert caption == scene.caption
        if scene.relation:
            assert wrong == scene.swapped().caption
        caption, wrong = scene.phrase(rng, stage=2)
        template, names, background = ways_of_saying(scene)[caption][0]
        few = {"": world.ONE[:15], "left of": world.LEFT[:14], "above": world.ABOVE[:14]}[scene.relation]
        assert template in (*few, *world.UNORDERED, *world.ONE_WITHOUT_BACKGROUND)
        if scene.relation:
            assert wrong == ("" if template in world.UNORDERED else say(template, names[::-1], background))
        assert background == scene.background or background in world.BACKGROUND_ALIASES[scene.background]
