"""The outline: it fits a thing wherever it stands, and neither another thing nor what is no thing."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import KDTree

from mmlesson import world
from mmlesson.measure.outline import NOTHING_THERE, SIDE, _best_place, _distance, outline_fit
from mmlesson.world.scenes import Scene, Thing


@pytest.mark.parametrize("side", [64, 96, 192])
def test_it_fits_scenes_in_every_size(side):
    scenes = world.sample(40, "heldout", seed=11, objects=1)
    fits = [outline_fit(scene.render(side), scene.concepts[0]) for scene in scenes]
    assert sum(fit.agrees for fit in fits) >= 38
    assert np.median([fit.overlap for fit in fits]) > 0.95 and np.median([fit.distance for fit in fits]) < 0.3


@pytest.mark.parametrize("mirrored", [False, True])
def test_place_size_and_mirroring_are_found(mirrored):
    for x, y, size in ((0.35, 0.4, 0.6), (0.55, 0.6, 0.75), (0.5, 0.5, 0.95)):
        picture = Scene((Thing("guitar", x, y, size, mirrored),), "blue").render(192)
        fit = outline_fit(picture, "guitar")
        assert fit.overlap > 0.95 and fit.distance < 0.3, fit


def test_another_thing_does_not_fit():
    scenes = world.sample(60, "heldout", seed=12, objects=1)
    fits = [
        outline_fit(scene.render(96), other.concepts[0])
        for scene, other in zip(scenes, scenes[1:], strict=False)
        if scene.concepts != other.concepts
    ]
    assert sum(fit.agrees for fit in fits) <= 0.1 * len(fits)


def test_a_smear_and_a_plain_ground_are_no_thing():
    dice = np.random.default_rng(0)
    for _ in range(10):
        coarse = Image.fromarray(dice.integers(0, 255, (12, 12, 3), dtype=np.uint8))
        assert not outline_fit(coarse.resize((96, 96), Image.Resampling.BICUBIC), "cat").agrees
    assert outline_fit(Image.new("RGB", (96, 96), "blue"), "cat") == NOTHING_THERE


def test_the_best_place_is_that_of_trying_all():
    dice = np.random.default_rng(1)
    silhouette = np.zeros((SIDE, SIDE), bool)
    silhouette[20:60, 30:75] = dice.random((40, 45)) < 0.7
    templates = [dice.random((20, 24)) < 0.6, silhouette[24:50, 33:60]]
    overlap, which, row, column = _best_place(silhouette, templates)
    tried = {}
    for number, template in enumerate(templates):
        for top in range(SIDE - template.shape[0] + 1):
            for left in range(SIDE - template.shape[1] + 1):
                placed = np.zeros_like(silhouette)
                placed[top : top + template.shape[0], left : left + template.shape[1]] = template
                tried[number, top, left] = (placed & silhouette).sum() / (placed | silhouette).sum()
    assert (which, row, column) == max(tried, key=tried.get) == (1, 24, 33)
    assert overlap == pytest.approx(max(tried.values()), abs=1e-5)


def test_the_distance_is_that_to_the_nearest_neighbour():
    dice = np.random.default_rng(2)
    edges, others = dice.random((2, SIDE, SIDE)) < 0.01
    here, there = (np.argwhere(each) for each in (edges, others))
    both_ways = KDTree(there).query(here)[0].mean() + KDTree(here).query(there)[0].mean()
    assert _distance(edges, others) == pytest.approx(both_ways / 2 / SIDE * 100, rel=1e-6)


def test_an_unknown_concept_is_said():
    with pytest.raises(KeyError):
        outline_fit(world.scene("cat").render(96), "unheard-of thing")
