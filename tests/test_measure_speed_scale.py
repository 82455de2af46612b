"""The benchmark of a cluster's build, on small sizes; its builds by Ray are tried in test_search_cluster.py."""

import fnmatch
import os

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import gates, load_clip
from mmlesson.measure import speed_scale as bench_scale
from mmlesson.measure.bars import FIGURES


@pytest.fixture(scope="module")
def clip():
    return load_clip("pocket-clip", "cpu")


@pytest.fixture(scope="module")
def base(clip):
    return F.normalize(torch.randn(200, clip.dim, generator=torch.Generator().manual_seed(3)), dim=1)


def test_the_neighbours_by_parts_are_those_of_one_product(base, monkeypatch):
    queries = F.normalize(base[:7] + 0.1, dim=1)
    whole = (queries @ base.T).topk(10, dim=1).indices.tolist()
    assert bench_scale.nearest(base, queries) == whole
    assert bench_scale.nearest(base[:4], queries) == (queries @ base[:4].T).topk(4, dim=1).indices.tolist()
    assert bench_scale.recall(whole, whole) == 1 and bench_scale.recall([[1, 2]], [[2, 3]]) == 0.5


def test_a_row_of_the_table(clip, base, tmp_path):
    """An index of some vectors is opened and asked in a process of its own."""
    queries = F.normalize(base[:9] + 0.02 * base[9:18], dim=1)
    row = bench_scale.measure_size(3000, clip, tmp_path / "index", base, queries)
    assert row["vectors"] == 3000 and 0.9 < row["recall_at_10"] <= 1 and not (tmp_path / "index").exists()
    assert row["disk_gb"] > 3000 * clip.dim * 4 / 1e9
    assert min(row["open_s"], row["query_ms"], row["cells_s"]) > 0 and row["own_memory_gb"] < 1


def test_the_peer_searches_the_same_vectors(clip, base, tmp_path):
    queries = F.normalize(base[:9] + 0.02 * base[9:18], dim=1)
    found = bench_scale.faiss_way(clip, tmp_path, 3000, base, queries)
    assert set(found) == {"peer_query_ms", "peer_recall_at_10", "peer_cells_s"} and found["peer_recall_at_10"] > 0.9


def test_builds_by_one_process_and_in_the_peer_s_way(tmp_path):
    """What the children do, in this process."""
    for number in range(5):
        Image.new("RGB", (64, 48), (50 * number, 99, 0)).save(tmp_path / f"{number}.jpg")
    bench_scale.several_names(sorted(tmp_path.glob("*.jpg")), tmp_path / "many", 12)
    files = sorted((tmp_path / "many").rglob("*.jpg"))
    assert len(files) == 12 and files[0].samefile(tmp_path / "0.jpg") and files[6].samefile(tmp_path / "1.jpg")
    assert bench_scale.build_local(str(tmp_path / "many"), str(tmp_path / "local"))["seconds"] > 0
    assert bench_scale.build_files(str(tmp_path / "many"), str(tmp_path / "files"))["seconds"] > 0
    assert {path.name for path in (tmp_path / "files").iterdir()} == {"img_emb_0.npy", "metadata_0.txt", "image.index"}


def test_memory_of_its_own_counts_what_was_made_and_not_what_was_mapped(tmp_path):
    with bench_scale.peak() as most:
        before = bench_scale.own_memory_gb()
        made = bytearray(os.urandom(1)) * 300_000_000
        for _ in range(40):
            bench_scale.time.sleep(0.01)
    assert most[0] >= before + 0.25 and len(made) == 300_000_000


def test_the_figures_are_those_of_the_list(clip, base, tmp_path, monkeypatch):
    monkeypatch.setattr(
        bench_scale, "child", lambda *_: {"seconds": 2.0, "per_second": 3.0, "start_s": 1.0, "memory_gb": 0.5}
    )
    monkeypatch.setattr(bench_scale, "same_index", lambda *_: 0.0)
    figures = bench_scale.building(clip, tmp_path, 4) | bench_scale.driver_memory(tmp_path, (10, 20))
    figures |= {"recall_at_10": 1.0, "peer_query_ms": 1.0, "peer_recall_at_10": 1.0, "peer_cells_s": 1.0}
    assert all(any(fnmatch.fnmatch(name, known) for known in FIGURES["bench scale"]) for name in figures)
    assert all(any(fnmatch.fnmatch(name, known) for name in figures) for known in FIGURES["bench scale"])
    assert figures["driver_memory_growth"] == 1 and figures["overhead"] == 1


def test_a_light_clip_is_a_clip(tmp_path, monkeypatch):
    clip = load_clip(f"local-dir:{bench_scale.light_clip(tmp_path / 'light')}", "cpu")
    assert clip.encode_images([Image.new("RGB", (32, 32), "red")]).shape == (1, 64)


def test_without_ray_or_faiss_a_sentence_says_how_to_get_them(monkeypatch):
    monkeypatch.setitem(bench_scale.sys.modules, "ray", None)
    with pytest.raises(gates.AssetError, match=r'is not installed.*`pip install "mmlesson\[bench,cluster\]"`'):
        bench_scale.check_peers()
