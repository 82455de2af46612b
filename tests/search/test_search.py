"""What a search answers: exact search against numpy, every kind of query, what a notebook shows."""

import json
import re
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from colours import WORDS, names, noise
from PIL import Image

from mmlesson import ImageIndex, search

# ------------------------------------------------------------------------------------- exact search


def test_exact_search_ranks_as_numpy_does(clip, tmp_path):
    pictures = [noise(number, (4, 4)) for number in range(150)]
    index = ImageIndex.build(pictures, clip, tmp_path / "index", captions=[f"noise {n}" for n in range(150)])
    features = clip.encode_images(pictures).numpy()
    for query in [*WORDS, "red blue", "green white", *pictures[:8]]:
        wanted = clip.encode_texts([query])[0] if isinstance(query, str) else clip.encode_images(query)[0]
        cosines = features.astype(np.float64) @ wanted.numpy().astype(np.float64)
        hits = index.search(query, k=150)
        assert sorted(hit.id for hit in hits) == list(range(150))
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-5)
        np.testing.assert_allclose(cosines[[hit.id for hit in hits]], [hit.score for hit in hits], atol=1e-5)
        assert hits[0].caption == f"noise {cosines.argmax()}"
        assert [hit.id for hit in index.search(query, k=7)] == [hit.id for hit in hits[:7]]


def test_equal_pictures_come_in_the_order_of_insertion(clip, tmp_path):
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    index = ImageIndex.build([red, blue] * 40, clip, tmp_path / "index")
    assert [hit.id for hit in index.search("red", k=25)] == list(range(0, 50, 2))
    assert [hit.id for hit in index.search("blue", k=80)] == [*range(1, 80, 2), *range(0, 80, 2)]


def test_k_beyond_the_collection_gives_all(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert len(index.search("red", k=1000)) == len(index) == 10
    scores = [hit.score for hit in index.search("red", k=1000)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "where, expected",
    [
        ("path LIKE 'below/%'", {"8.png", "9.png"}),
        ("caption = 'it''s one'", {"1.png"}),
        ("caption IS NULL AND path < '3'", {"0.png", "2.png"}),
        ("size < 0", set()),
    ],
)
def test_filters(clip, folder, tmp_path, where, expected):
    (folder / "1.txt").write_text("it's one\n")
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    hits = index.search("red", where=where)
    assert set(names(hits)) == expected
    everything = {hit.path: hit.score for hit in index.search("red")}
    assert all(everything[hit.path] == pytest.approx(hit.score, abs=1e-6) for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_filter_that_is_none_is_a_sentence(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(ValueError, match="is not a filter in SQL over path, size, modified, sha256, caption"):
        index.search("red", where="colour = 'red'")


# ------------------------------------------------------------------------------------------ queries


def test_every_kind_of_query(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    own = index._vectors[3]
    picture = Image.open(folder / "3.png").convert("RGB")
    hit = index.search(picture, k=1)[0]
    for query in (folder / "3.png", picture, np.asarray(picture), hit, own, own.numpy() * 7, [picture], [(2.0, hit)]):
        assert names(index.search(query, k=1)) == ["3.png"] and index.search(query, k=1)[0].score == pytest.approx(
            1, abs=1e-5
        )


def test_a_mix_is_the_normalised_weighted_sum(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    red, picture = clip.encode_texts(["red"])[0], index._vectors[2]
    mixed = index.embed(["red", (-0.5, folder / "2.png")])
    torch.testing.assert_close(mixed, F.normalize(red - 0.5 * picture, dim=0))
    scores = [hit.score for hit in index.search(["red", (-0.5, folder / "2.png")])]
    torch.testing.assert_close(torch.tensor(scores), (index._vectors @ mixed).sort(descending=True).values)


@pytest.mark.parametrize(
    "query, said",
    [
        ("", "the text is empty"),
        ("  ", "the text is empty"),
        (None, "a query is a sentence"),
        ((0.5, "red"), "a query is a sentence"),
        (7, "a query is a sentence"),
        ([], "cancel out, or there is none"),
        (["red", (-1, "red")], "cancel out"),
        ([("red", 0.5)], r"a weighted query is \(weight, query\)"),
        ([(float("nan"), "red")], r"a weighted query is \(weight, query\)"),
        (torch.ones(48), "49 finite numbers"),
        (torch.zeros(49), "not all 0"),
        (np.full(49, np.nan), "49 finite numbers"),
    ],
)
def test_what_is_no_query_is_a_sentence(clip, folder, tmp_path, query, said):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(ValueError, match=said):
        index.search(query)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": -1}, {"k": 2.5}, {"k": True}, {"k": "ten"}, {"probes": 0}])
def test_wrong_numbers_are_a_sentence(clip, folder, tmp_path, options):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(ValueError, match="a whole number of at least 1"):
        index.search("red", **options)
    assert len(index.search("red", k=np.int64(2))) == 2


# ------------------------------------------------------------------------------------------ display


def test_captions_and_names_are_escaped(clip, tmp_path):
    evil = "<script>alert('x')</script><img src=x onerror=\"y\">"
    index = ImageIndex.build([Image.new("RGB", (20, 20), "red")], clip, tmp_path / "index", captions=[evil])
    html = index.search("red")._repr_html_()
    assert "<script" not in html and 'onerror="' not in html and html.count("<img") == 1 and "&lt;script&gt;" in html
    with pytest.raises(ValueError):
        index.search("")
    nothing = index.search("<b>nothing</b>", min_score=2.0)._repr_html_()
    assert re.fullmatch(r'<p class="mathjax_ignore tex2jax_ignore">[^<>]+</p>', nothing), "and no formula"
    assert 'class="mathjax_ignore tex2jax_ignore"' in html


def test_a_grid_has_thumbnails_and_no_full_pictures(clip, tmp_path):
    here = tmp_path / "pictures"
    here.mkdir()
    for number in range(10):
        noise(number, (450, 350)).save(here / f"{number}.png")
    hits = ImageIndex.build(here, clip, tmp_path / "index").search("red")
    html = hits._repr_html_()
    assert html.count("<img") == 10 and len(html) < 250_000 < sum(path.stat().st_size for path in here.iterdir())
    assert html.count(' alt="') == 10 and hits[0].path.name in html
    assert hits.grid(columns=5).width >= 5 * 128
    (here / names(hits)[0]).unlink()
    assert hits._repr_html_().count("<img") == 10, "a file that is gone by now is a grey square"


def test_hits_print_best_first_with_path_and_score(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    lines = repr(index.search("red", k=3)).splitlines()
    assert len(lines) == 3 and all(
        re.fullmatch(rf"-?\d\.\d{{3}}  {re.escape(str(folder))}/\S+", line) for line in lines
    )
    assert "Nothing was searched" in repr(index.search("red", where="size < 0"))
    assert repr(index.search("red", min_score=1.1)).startswith("Nothing fits: the best score is ")


# ------------------------------------------------------------------------------------- nothing fits


def test_calibrate_is_the_quantile_and_is_kept(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    absent = [" ".join(np.random.default_rng(n).choice(list(WORDS), 2)) for n in range(60)]
    best = (index._vectors.numpy() @ clip.encode_texts(absent).numpy().T).max(axis=0)
    assert index.min_score is None and len(index.search("red", k=20)) == 10
    threshold = index.calibrate(absent, false_hits=0.1)
    assert threshold == pytest.approx(np.quantile(best, 0.9), abs=1e-6)
    again = ImageIndex.open(tmp_path / "index", clip)
    assert again.min_score == pytest.approx(threshold)
    assert json.loads((tmp_path / "index" / "calibration.json").read_text())["sentences"] == 60

    scores = (index._vectors @ clip.encode_texts(["red"])[0]).tolist()
    assert len(again.search("red", k=20)) == sum(score >= threshold for score in scores) < 10
    assert len(again.search(folder / "1.png", k=20)) == 10, "a picture's scores are of another kind"
    assert len(again.search(["red"], k=20)) == 10 and len(again.search("red", k=20, min_score=-1)) == 10
    nothing = again.search("red", min_score=0.999)
    assert list(nothing) == [] and nothing.best == pytest.approx(max(scores)) and "below 0.999" in repr(nothing)


@pytest.mark.parametrize(
    "n, share, said", [(19, 0.05, "is a guess"), (50, 0, "share between"), (50, 1.0, "share between")]
)
def test_a_guess_is_no_calibration(clip, folder, tmp_path, n, share, said):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(ValueError, match=said):
        index.calibrate(["a sentence"] * n, share)
    assert index.min_score is None


# ------------------------------------------------------------------------------- zeros that mean something


def test_a_min_score_of_zero_is_a_limit(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    opposite = -index._vectors[0]
    scores = (index._vectors @ opposite).tolist()
    assert 0 < sum(score >= 0 for score in scores) < 10, "some are above it and some below"
    assert len(index.search(opposite, k=10, min_score=0)) == sum(score >= 0 for score in scores)
    with pytest.raises(ValueError, match="min_score is a cosine"):
        index.search("red", min_score=float("nan"))


def test_a_weight_of_zero_leaves_a_query_out_and_any_number_is_a_weight(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    torch.testing.assert_close(index.embed([(0, "blue"), "red"]), index.embed("red"))
    torch.testing.assert_close(index.embed([(np.float32(0.5), "blue"), "red"]), index.embed([(0.5, "blue"), "red"]))
    with pytest.raises(ValueError, match="cancel out"):
        index.embed([(0, "blue")])


def test_the_scores_of_no_query_have_no_row(clip, folder, tmp_path):
    assert ImageIndex.build(folder, clip, tmp_path / "index").scores([]).shape == (0, 10)


def test_the_example_in_the_modules_docstring(folder, tmp_path, clip):
    first = textwrap.dedent(search.__doc__).split("\n\n")[1]
    scope = {"ImageIndex": ImageIndex, "clip": clip}
    exec(textwrap.dedent(first).replace('"pictures/"', repr(str(folder))), scope)
    assert len(scope["hits"]) == 5
