"""The benchmark of CLIP, on a few files: it runs and returns its figures. `mmlesson bench clip` judges the speed."""

import pytest
import torch
from PIL import Image

from mmlesson.measure import speed_clip as bench
from mmlesson.measure.bars import FIGURES


@pytest.fixture(scope="module")
def figures():
    return bench.bench_clip(n=24, rounds=2)


def test_the_figures(figures):
    assert set(figures) == set(FIGURES["bench clip"])
    assert all(isinstance(value, (int, float)) for value in figures.values())
    assert (figures["images"], figures["rounds"]) == (24, 2)
    assert figures["min_cosine"] >= 0.999, "not a question of speed: it holds on any machine"
    for name in set(FIGURES["bench clip"]) - {"import_s"}:
        assert figures[name] > 0


def test_the_report_has_every_figure(figures, monkeypatch):
    monkeypatch.setattr(bench, "bench_clip", lambda: figures)
    found = bench.report(None)
    assert found.figures == figures and set(figures) == set(FIGURES["bench clip"])


def test_the_files_are_photos_in_kind(tmp_path):
    paths = bench.write_photos(tmp_path, 12)
    assert len({path.read_bytes() for path in paths}) == 12, "all different"
    for path in paths:
        with Image.open(path) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (640, 480), "RGB")
        assert path.stat().st_size > 25_000, "detail that costs a decoder something"
    other = tmp_path / "again"
    other.mkdir()
    assert bench.write_photos(other, 3)[2].read_bytes() == paths[2].read_bytes(), "the same for the same seed"


def test_the_peer_is_the_plain_loop(tmp_path):
    model, preprocess = bench.load_peer(torch.device("cpu"))
    paths = bench.write_photos(tmp_path, 5)
    with torch.no_grad():
        one_by_one = [model.encode_image(preprocess(Image.open(path))[None], normalize=True) for path in paths]
    peer = bench.encode_like_readme(model, preprocess, paths, batch_size=2)
    assert (peer - torch.cat(one_by_one)).abs().max() < 1e-5


def test_the_cost_of_importing_is_a_number():
    assert isinstance(bench.import_seconds(repeats=1), float)
