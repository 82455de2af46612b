"""bench.py: what it prints, on a few files; the bars themselves are what `mmlesson bench clip` is for."""

import argparse
import json

import pytest
import torch
from PIL import Image

from mmlesson.measure import speed_clip as bench

FIGURES = {"ratio", "min_cosine", "classify_ms", "classify_same_labels_ms", "import_s"}
FIGURES |= {"images_per_second", "peer_images_per_second", "images", "rounds"}


@pytest.fixture(scope="module")
def figures():
    return bench.bench_clip(n=24, rounds=2)


def test_the_figures(figures):
    assert set(figures) == FIGURES
    assert all(isinstance(value, (int, float)) for value in figures.values())
    assert (figures["images"], figures["rounds"]) == (24, 2)
    assert figures["min_cosine"] >= 0.999, "not a question of speed: it holds on any machine"
    for name in FIGURES - {"import_s"}:
        assert figures[name] > 0


def test_the_command_prints_a_table_and_one_line_of_json(figures, monkeypatch, capsys):
    monkeypatch.setattr(bench, "bench_clip", lambda: figures)
    assert bench.main(argparse.Namespace(json=True)) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == figures
    assert len(table) == len(FIGURES) and any("ratio" in line and "at least 1.5" in line for line in table)
    monkeypatch.setattr(bench, "bench_clip", lambda: {**figures, "ratio": 1.0})
    bench.main(argparse.Namespace(json=False))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("ratio"))
    assert "NOT MET" in line


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


def test_import_costs_little():
    assert bench.import_seconds(repeats=3) < 0.5, "torch alone would take longer"
