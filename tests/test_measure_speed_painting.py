"""The benchmark of painting: both sides do the same work, and the figures have their names."""

import pytest

from mmlesson import load_guide, load_vqgan
from mmlesson.measure import speed_painting as bench_paint
from mmlesson.measure.bars import FIGURES


def test_the_plain_loop_paints():
    frames = bench_paint.paint_plainly(load_guide(), load_vqgan(), 2, 3)
    assert [frame.size for frame in frames] == [(96, 96)] * 2


def test_the_figures_have_their_names():
    figures = bench_paint.bench_paint(steps=2, cutouts=2, rounds=1)
    assert set(figures) == set(FIGURES["bench paint"]) and all(value > 0 for value in figures.values())
    assert figures["ratio"] == pytest.approx(figures["steps_per_second"] / figures["peer_steps_per_second"])
    assert figures["with_prior_steps_per_second"] > 0 and figures["cutouts"] == 2
