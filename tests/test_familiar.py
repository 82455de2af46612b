"""Which pictures are like those that a CLIP learned from: the statistics, their files, and what they say."""

import json

import numpy as np
import pytest
import torch

from mmlesson import gates, load_clip, world
from mmlesson.clip import PHOTO, POCKET
from mmlesson.models import familiar


@pytest.fixture(scope="module")
def clips():
    return {name: load_clip(name) for name in (POCKET, PHOTO)}


@pytest.fixture(scope="module")
def kinds():
    """Ten held-out scenes, and ten photographs as they come."""
    scenes = [scene.render(200) for scene in world.sample(10, "heldout", seed=3)]
    return {POCKET: scenes, PHOTO: [photo.image for photo in world.photos("foolbox")[:10]]}


@pytest.mark.parametrize("name", [POCKET, PHOTO])
def test_each_clip_knows_its_own_kind(name, clips, kinds):
    other = PHOTO if name == POCKET else POCKET
    own, others = (clips[name].familiar(kinds[kind]) for kind in (name, other))
    assert own.shape == (10,) and own.dtype == torch.float32 and 0 <= own.min() and own.max() <= 1
    assert (own >= familiar.UNFAMILIAR).sum() >= 9 and (others < familiar.UNFAMILIAR).sum() >= 8
    assert own.mean() > others.mean() + 0.4


def test_a_note_names_the_clip_its_kind_and_the_other_one(clips, kinds):
    assert clips[PHOTO].note_on(kinds[PHOTO][0]) == ""
    note = clips[PHOTO].note_on(kinds[POCKET][0])
    assert "unlike those that photo-clip learned from (photographs)" in note and "pocket-clip" in note


def test_distances_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(6) + 0.3 * torch.randn(6, 6, generator=generator)
    learned = torch.randn(400, 6, generator=generator) @ mixing + 3
    held_out, others = learned[:50] + 0.1, torch.randn(50, 6, generator=generator) * 20
    found = familiar.fit("visual.layer1", learned, held_out, others)
    # scikit-learn gives the squares, and divides by n in place of n - 1
    from sklearn.covariance import EmpiricalCovariance  # here: it takes seconds to import

    expected = EmpiricalCovariance().fit(learned.numpy()).mahalanobis(others.numpy()) * 399 / 400
    np.testing.assert_allclose(found.distances(others).square(), expected, rtol=0.02)
    probabilities = torch.sigmoid(found.line[0] + found.line[1] * found.distances(torch.cat([held_out, others])).log())
    assert found.line[1] < 0 and probabilities[:50].mean() > 0.9 > 0.1 > probabilities[50:].mean()


def test_a_clip_without_statistics_says_so(clips):
    bare = load_clip(POCKET)
    bare.familiarity = None
    assert bare.note_on(world.photos()[0].image) == ""
    with pytest.raises(ValueError, match="brings no statistics"):
        bare.familiar(world.photos()[0].image)


def test_what_is_saved_is_read_again(tmp_path, clips, kinds):
    clips[POCKET].familiarity.save(tmp_path)
    found = familiar.read(tmp_path, clips[POCKET].model)
    inputs = torch.stack([clips[POCKET].prepare(image) for image in kinds[POCKET]])
    again, before = (each(clips[POCKET].model, inputs) for each in (found, clips[POCKET].familiarity))
    torch.testing.assert_close(again, before, rtol=0, atol=1e-6)
    assert familiar.read(tmp_path / "elsewhere", clips[POCKET].model) is None


@pytest.mark.parametrize("layer", ["visual.no_such", "visual", "", 3, None, "visual.layer3", "token_embedding"])
def test_statistics_of_another_layer_are_refused(tmp_path, layer, clips):
    clips[POCKET].familiarity.save(tmp_path)
    (tmp_path / familiar.LAYER).write_text(json.dumps({"layer": layer}))
    with pytest.raises(gates.AssetError, match="damaged, or belongs to another model"):
        familiar.read(tmp_path, clips[POCKET].model)


def test_damaged_statistics_are_refused(tmp_path, clips):
    broken = familiar.Familiarity("visual.layer1", 256)
    broken.mean[3] = float("nan")
    broken.save(tmp_path)
    with pytest.raises(gates.AssetError, match="not finite"):
        familiar.read(tmp_path, clips[POCKET].model)
    (tmp_path / familiar.STATISTICS).unlink()
    with pytest.raises(gates.AssetError, match="is missing"):
        familiar.read(tmp_path, clips[POCKET].model)
