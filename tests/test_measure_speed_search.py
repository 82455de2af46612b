"""The benchmark of search, on small sizes: it runs and returns its figures. `mmlesson bench search` judges it."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F

from mmlesson import gates, load_clip
from mmlesson.measure import speed_search as bench_search
from mmlesson.measure.bars import FIGURES

COLUMNS = ["vectors", "exact_ms", "approximate_ms", "recall_at_10", "optimise_s", "matrix_gb", "disk_gb", "memory_gb"]


@pytest.fixture(scope="module")
def clip():
    return load_clip("pocket-clip", "cpu")


@pytest.fixture(scope="module")
def base(clip):
    return F.normalize(torch.randn(200, clip.dim, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.fixture(scope="module")
def measured(clip, base):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_search, "scene_features", lambda clip, n: base)
        return bench_search.bench_search(sizes=(1000, 2000), exact_n=3000, files=24, many=30, rounds=1)


def test_the_figures_and_the_rows(measured):
    figures, rows = measured.figures, measured.rows
    assert set(figures) == set(FIGURES["bench search"])
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["same_answers_as_faiss"] >= 0.98, "not a question of speed: exact is exact on any machine"
    assert figures["vs_faiss"] == pytest.approx(figures["faiss_ms"] / figures["exact_ms"])
    assert [list(row) for row in rows] == [COLUMNS] * 2 and [row["vectors"] for row in rows] == [1000, 2000]
    assert figures["disk_ratio"] == pytest.approx(rows[-1]["disk_gb"] / rows[-1]["matrix_gb"])
    for row in rows:
        assert 0.9 < row["recall_at_10"] <= 1 and row["exact_ms"] > 0 and row["approximate_ms"] > 0
        assert row["disk_gb"] > row["matrix_gb"] == pytest.approx(row["vectors"] * 256 * 4 / 1e9)


def test_the_report_has_figures_and_rows(measured, monkeypatch):
    monkeypatch.setattr(bench_search, "bench_search", lambda: measured)
    found = bench_search.report(None)
    assert found.figures == measured.figures and list(found.rows) == measured.rows
    assert "| 1,000 |" in found.second_table() and "| 2,000 |" in found.second_table()


def test_the_million_is_stored_with_the_course():
    rows = {row["vectors"]: row for row in bench_search.stored_rows()}
    assert list(rows) == [1_000, 10_000, 100_000, 1_000_000]
    assert [list(row) for row in rows.values()] == [COLUMNS] * 4 and rows[1_000_000]["recall_at_10"] > 0.9


def test_copies_are_moved_as_far_as_two_drawings_of_one_caption_are_apart(clip, base):
    copies = torch.cat(list(bench_search.moved_copies(base, 2500, seed=4, batch=1000)))
    assert copies.shape == (2500, clip.dim)
    torch.testing.assert_close(copies.norm(dim=1), torch.ones(2500))
    nearest = (copies @ base.T).amax(dim=1)
    assert nearest.mean().item() == pytest.approx(bench_search.same_content_cosine(clip, n=100), abs=0.02)
    again = torch.cat(list(bench_search.moved_copies(base, 2500, seed=4, batch=1000)))
    assert torch.equal(copies, again) and not torch.equal(
        copies[:1000], next(bench_search.moved_copies(base, 1000, seed=5))
    )


def test_a_synthetic_index_is_an_index(clip, base, tmp_path):
    index = bench_search.synthetic_index(1500, clip, tmp_path / "index", base, seed=1)
    vectors = torch.cat(list(bench_search.moved_copies(base, 1500, seed=1)))
    assert len(index) == 1500 and torch.equal(index._vectors, vectors)
    assert index.search(vectors[321], k=1)[0].id == 321
    index.optimise(approximate=True)
    queries = F.normalize(vectors[:20] + vectors[700:720], dim=1)
    assert bench_search.recall_at_10(index, queries, probes=1000) == 1
    assert bench_search.recall_at_10(index, queries, probes=1) < 1
    assert bench_search.milliseconds(index, queries[:5], exact=True) > 0


def test_queries_are_held_out_captions(clip):
    texts = bench_search.text_features(clip, 5)
    assert texts.shape == (5, clip.dim)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(5))


def test_without_the_peer_a_sentence_says_how_to_get_it(clip, base, tmp_path, monkeypatch):
    index = bench_search.synthetic_index(1000, clip, tmp_path / "index", base)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(gates.AssetError, match="`pip install faiss-cpu`"):
        bench_search.against_peers(index, base[:5])
