"""The namer: it knows scenes, it does not know plain grounds, and who finds all names alike has found none."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import load_judge, world
from mmlesson.measure.namer import Namer, share
from mmlesson.measure.prompts import heldout_prompts


@pytest.fixture(scope="module")
def judge():
    return Namer(load_judge())


@pytest.fixture(scope="module")
def pairs():
    return heldout_prompts(24)


@pytest.fixture(scope="module")
def scenes(pairs):
    return [world.scene(concept, background=background, seed=3).render(96) for concept, background in pairs]


def test_it_names_scenes(judge, pairs, scenes):
    ranks = judge.ranks(scenes, pairs)
    assert share(ranks.concepts == 1) > 0.9 and share(ranks.backgrounds == 1) > 0.9
    first = judge.first(scenes)
    assert [name == concept for name, (concept, _) in zip(first, pairs, strict=True)] == (ranks.concepts == 1).tolist()
    assert judge.rank(scenes[0], first[0]) == 1 and judge.rank(scenes[0], pairs[1][0]) > 1


def test_it_does_not_name_a_plain_ground(judge, pairs):
    ranks = judge.ranks([Image.new("RGB", (96, 96), "grey")] * 24, pairs)
    assert share(ranks.concepts == 1) < 0.1


def test_the_features_are_of_unit_length(judge):
    assert judge.concept_features.shape == (597, judge.clip.dim)
    assert judge.background_features.shape == (12, judge.clip.dim)
    for features in (judge.concept_features, judge.background_features):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))


def test_ranks_by_hand():
    """A CLIP whose texts are the axes: a picture's cosine with a name is one of its coordinates."""

    class Axes:
        def encode_texts(self, texts):
            return torch.eye(len(texts))

    namer = Namer(Axes())
    image_features = F.normalize(torch.arange(1.0, 598.0), dim=0)[None]
    assert namer.concept_ranks(image_features, [namer.concepts[-1]]).tolist() == [1]
    assert namer.concept_ranks(image_features, [namer.concepts[0]]).tolist() == [597]
    assert namer.concept_ranks(torch.ones(1, 597), ["cat"]).tolist() == [597], "all names alike: none is found"


def test_names_and_pictures_are_as_many(judge, scenes):
    """Fault: a shorter list of names would be compared with the first pictures only."""
    image_features = judge.clip.encode_images(scenes[:2])
    for names in (["cat"], ["cat"] * 3):
        with pytest.raises(ValueError, match="There are 2 pictures and"):
            judge.concept_ranks(image_features, names)
    with pytest.raises(ValueError, match="right names"):
        judge.ranks(scenes[:2], [("cat", "blue")])


def test_it_prefers_a_scenes_own_caption(judge):
    pairs = [scene for scene in world.sample(60, "heldout", seed=5, objects=2)][:40]
    pairs = list({scene.caption: scene for scene in pairs}.values())
    pictures = [scene.render(96) for scene in pairs]
    assert share(judge.caption_ranks(pictures, pairs) == 1) > 0.8
    swapped = [scene.swapped() for scene in pairs]
    assert share(judge.caption_ranks(pictures, swapped) == 1) < 0.2, "the same things on the other sides"
    grey = [Image.new("RGB", (96, 96), "grey")] * len(pairs)
    assert share(judge.caption_ranks(grey, pairs) == 1) < 0.2
