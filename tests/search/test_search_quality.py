"""The figures of an evaluation against plain references, and the approximate index against exact search."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from colours import Wide, noise, synthetic
from PIL import Image

from mmlesson import ImageIndex, search
from mmlesson.search import evaluate_retrieval, store, vectors

# --------------------------------------------------------------------------------------- evaluation


def test_evaluation_agrees_with_a_plain_reference(clip, tmp_path):
    index = ImageIndex.build([noise(number) for number in range(80)], clip, tmp_path / "index")
    moves = torch.randn(80, clip.dim, generator=torch.Generator().manual_seed(5))
    features = F.normalize(index._vectors + 0.35 * moves, dim=1)  # [80, dim]: some are nearer to another picture
    queries = [(query, place) for place, query in enumerate(features)]
    scores = features.numpy() @ index._vectors.numpy().T
    ranks = []
    for row, (_, place) in zip(scores, queries, strict=True):
        order = sorted(range(80), key=lambda i: (-row[i], i))
        ranks.append(1 + order.index(place))
    ranks = np.array(ranks)
    found = evaluate_retrieval(index, queries)
    assert found.n == 80 and 0 < found.recall_at_1 < 1
    for k in (1, 5, 10):
        assert getattr(found, f"recall_at_{k}") == pytest.approx(
            (ranks <= k).mean(), abs=0.013
        )  # one query may stand on an edge
    assert found.mrr == pytest.approx((1 / ranks).mean(), abs=0.01)
    assert found.median_rank == pytest.approx(np.median(ranks), abs=1)
    for name, (low, high) in found.intervals.items():
        assert low <= getattr(found, name) <= high
    share = found.recall_at_1
    width = 2 * 1.96 * (share * (1 - share) / 80) ** 0.5  # of the normal approximation
    low, high = found.intervals["recall_at_1"]
    assert high - low == pytest.approx(width, rel=0.25)
    assert (
        found == evaluate_retrieval(index, queries) and found.intervals == evaluate_retrieval(index, queries).intervals
    )


def test_ties_in_an_evaluation_go_to_the_first(clip, tmp_path):
    same = [Image.new("RGB", (8, 8), "red")] * 3
    index = ImageIndex.build(same, clip, tmp_path / "index")
    assert [1 / evaluate_retrieval(index, [("red", place)]).mrr for place in range(3)] == pytest.approx([1, 2, 3])


def test_answers_may_be_paths(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    pairs = [
        (folder / "3.png", folder / "3.png"),
        (folder / "below" / "9.png", "below/9.png"),
        (folder / "0.png", Path("0.png")),
    ]
    assert evaluate_retrieval(index, pairs).recall_at_1 == 1
    with pytest.raises(ValueError, match="'other.png' is not in the index"):
        evaluate_retrieval(index, [("red", "other.png")])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_retrieval(index, [])


# -------------------------------------------------------------------------------------- approximate


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    index = synthetic(4000, Wide(), tmp_path_factory.mktemp("large") / "index", n_base=300)
    index.optimise(approximate=True)
    return index


def test_approximate_search_of_all_cells_is_exact(large):
    assert large.is_approximate
    query = large._vectors[17] + 0.5 * large._vectors[400]
    exact = large.search(query, k=20, exact=True)
    for where in (None, "id < 2000"):
        exact = large.search(query, k=20, exact=True, where=where)
        near = large.search(query, k=20, exact=False, probes=1000, where=where)
        assert [hit.id for hit in near] == [hit.id for hit in exact]
        np.testing.assert_allclose([hit.score for hit in near], [hit.score for hit in exact], atol=1e-5)


def test_fewer_cells_find_less(large):
    from mmlesson.measure.speed_search import recall_at_10

    queries = F.normalize(large._vectors[:40] + large._vectors[1000:1040], dim=1)
    few, some, most = (recall_at_10(large, queries, probes=probes) for probes in (1, 2, 1000))
    assert few < some <= most == 1


def test_exact_up_to_a_size_and_approximate_beyond(large, monkeypatch):
    asked = []
    real = ImageIndex._approximate
    monkeypatch.setattr(ImageIndex, "_approximate", lambda self, *arguments: asked.append(1) or real(self, *arguments))
    large.search(large._vectors[0])
    assert asked == []
    monkeypatch.setattr(search.index, "EXACT_UP_TO", 3999)
    assert large.search(large._vectors[0])[0].id == 0 and asked == [1]


def test_what_is_added_after_the_approximate_index_is_found(clip, tmp_path):
    pictures = [noise(number) for number in range(1000)]
    index = ImageIndex.build(pictures, clip, tmp_path / "index", batch_size=500)
    with pytest.raises(ValueError, match="there is no approximate index here"):
        index.search("red", exact=False)
    index.optimise(approximate=True)
    index = ImageIndex.build([*pictures, *(noise(number) for number in range(2000, 2010))], clip, tmp_path / "index")
    for number in range(10):
        assert index.search(noise(2000 + number), k=1, exact=False)[0].id == 1000 + number


def test_too_few_for_an_approximate_index(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(ValueError, match="needs 1,000 pictures or more, and this one has 10"):
        index.optimise(approximate=True)
    index.optimise()
    assert not index.is_approximate and len(index.search("red", k=50)) == 10


# ------------------------------------------------------------------------------------------ on disk


def on_disk(index: ImageIndex) -> int:
    return sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file())


def test_an_index_takes_little_more_than_its_vectors(tmp_path):
    index = synthetic(20_000, Wide(), tmp_path / "index")
    vectors_alone = 20_000 * Wide.dim * 4
    assert on_disk(index) < 1.2 * vectors_alone
    index.optimise(approximate=True)
    assert on_disk(index) < 1.2 * vectors_alone, "no embedding is there twice, and no older version"


def test_updates_leave_nothing_behind(clip, tmp_path):
    """The keys of the embeddings, the pairs of files and the versions of the table do not pile up."""
    for start in range(0, 24, 2):
        index = ImageIndex.build([noise(start + number) for number in range(20)], clip, tmp_path / "index")
    assert sorted(vectors.load(index.folder, clip.dim).keys) == sorted(index._keys)
    assert len(list(index.folder.glob("vectors-*"))) == len(list(index.folder.glob("keys-*"))) == 1
    assert len(index._table.list_versions()) <= 2 * store.VERSIONS
    index.optimise()
    assert len(index._table.list_versions()) == 1


def test_a_cell_is_that_of_the_embedding_and_not_of_its_number(clip, tmp_path):
    """In a list picture 3 stays number 3 when it changes: its old cell would hide it."""
    pictures = [noise(number) for number in range(1000)]
    index = ImageIndex.build(pictures, clip, tmp_path / "index", batch_size=500)
    index.optimise(approximate=True)
    pictures[3] = noise(5000)
    index = ImageIndex.build(pictures, clip, tmp_path / "index")
    assert index.search(noise(5000), k=1, exact=False, probes=1)[0].id == 3
    optimised = [hit.id for hit in index.search(noise(5000), k=20, exact=False, probes=1000)]
    assert optimised == [hit.id for hit in index.search(noise(5000), k=20)]


def test_evaluation_says_what_is_wrong_with_its_arguments(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(ValueError, match="resamples is a number of bootstrap samples, at least 1, not 0"):
        evaluate_retrieval(index, [("red", "0.png")], resamples=0)
    with pytest.raises(ValueError, match="is not in the index"):
        evaluate_retrieval(index, [("red", tmp_path / "elsewhere" / "0.png")])
