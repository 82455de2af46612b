"""What is damaged in an index, or was made by someone else: a sentence, no wrong answer; a build makes it again."""

import os
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from colours import Colours, assert_equal_indexes, noise

from mmlesson import ImageIndex, doctor
from mmlesson.gates import AssetError
from mmlesson.pixels import ImageError, list_images
from mmlesson.search import source, vectors


def answers(index: ImageIndex) -> list:
    return [(hit.path, round(hit.score, 5)) for hit in index.search("red", k=50)]


@pytest.mark.parametrize("kind", ["one byte", "empty", "half", "gone", "noise"])
def test_no_damaged_file_gives_a_wrong_answer(clip, folder, tmp_path, kind):
    """Each file of an index in turn: it answers rightly or says that it is damaged, and a build makes it whole."""
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    (folder / "1.png").unlink()
    index.update()
    right, draw = answers(index), random.Random(7)
    files = [file.relative_to(tmp_path / "index") for file in (tmp_path / "index").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".f32", ".i64", ".lance", ".manifest", ".arrow", ".json"}
    for number, file in enumerate(sorted(files)):
        here = tmp_path / str(number)
        shutil.copytree(tmp_path / "index", here)
        data = bytearray((here / file).read_bytes())
        if not data:
            continue
        if kind == "gone":
            (here / file).unlink()
        elif kind == "one byte":
            data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
            (here / file).write_bytes(data)
        else:
            (here / file).write_bytes(
                {"empty": b"", "half": data[: len(data) // 2], "noise": os.urandom(len(data))}[kind]
            )
        try:
            assert answers(ImageIndex.open(here, clip)) == right or (kind, file.suffix) == ("gone", ".manifest"), file
        except AssetError as error:
            assert "is damaged" in str(error), file
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert answers(ImageIndex.build(folder, clip, here)) == right, file


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 300.0])
def test_an_embedding_that_changes_under_a_search_is_found(clip, folder, tmp_path, value):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    index._vectors[3, :] = value  # as a mapped file shows what changes on the disk
    with pytest.raises(AssetError, match="has changed on the disk"):
        index.search("white", k=10)
    with pytest.raises(AssetError, match="has changed on the disk"):
        index.scores(["white"])
    assert len(ImageIndex.open(tmp_path / "index", clip)) == 10


def test_the_embeddings_of_another_index_are_not_believed(clip, folder, tmp_path):
    one = ImageIndex.build(folder, clip, tmp_path / "one")
    shutil.copytree(folder, tmp_path / "others")
    noise(77).save(tmp_path / "others" / "0.png")
    other = ImageIndex.build(tmp_path / "others", clip, tmp_path / "other")
    shutil.copy(other.folder / "vectors-0.f32", one.folder / "vectors-0.f32")
    with pytest.raises(AssetError, match="1 of 10 embeddings have changed"):
        ImageIndex.open(one.folder, clip)
    clip.batches.clear()
    again = ImageIndex.build(folder, clip, one.folder)
    assert clip.batches == [1]
    assert_equal_indexes(again, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


def test_of_many_embeddings_a_sample_is_checked_and_of_few_all():
    stored = vectors.Embeddings(np.arange(1000), np.random.default_rng(0).random((1000, 4), np.float32))
    places, sums = np.arange(1000), vectors.sums_of(stored.vectors)
    assert stored.are_whole(places, sums).all() and stored.are_whole(places, sums, 256).all()
    sums[500] += 1
    assert np.flatnonzero(~stored.are_whole(places, sums)).tolist() == [500]
    sums[:] += 1
    assert 64 <= (~stored.are_whole(places, sums, 256)).sum() <= 256
    assert not stored.are_whole(np.full(3, -1), sums[:3]).any()


def test_a_file_that_becomes_shorter_under_a_search_is_a_sentence(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    os.truncate(tmp_path / "index" / "vectors-0.f32", 10)
    with pytest.raises(AssetError, match="has become shorter"):
        index.search("red")


def test_a_cache_that_is_removed_under_a_search(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    listed = ImageIndex.build([noise(1), noise(2)], clip, tmp_path / "list")
    before = answers(index)
    hit = listed.search("red")[0]
    shutil.rmtree(tmp_path / "index")
    shutil.rmtree(tmp_path / "list")
    assert answers(index) == before
    with pytest.raises(AssetError, match="has been removed meanwhile: build it again"):
        index.search("red", where="size > 0")
    with pytest.raises(ImageError, match="has been removed meanwhile"):
        hit.image  # noqa: B018 - asking is what raises
    assert index.update().added == 10 and answers(index) == before


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/passwd", "below/../../x.png", "a\0b"])
def test_an_index_of_someone_else_leads_nowhere_outside_of_its_source(clip, folder, tmp_path, path):
    assert not source.stays_inside(path)
    if "\0" in path:
        return
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    index._table.update(where="path = '0.png'", values={"path": path})
    shutil.rmtree(tmp_path / "index" / "sums.json", ignore_errors=True)
    with pytest.raises(AssetError, match="outside of .*: it was not made by this package"):
        ImageIndex.open(tmp_path / "index", clip).search("red", k=10)
    again = ImageIndex.build(folder, clip, tmp_path / "index")
    assert_equal_indexes(again, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


@pytest.mark.parametrize(
    "where", ["x" * 100_000, "(" * 5000 + "1=1" + ")" * 5000, "1/0 = 1", "", "\0", "a; DROP TABLE x"]
)
def test_a_filter_that_is_none_is_one_short_sentence(clip, folder, tmp_path, where):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(ValueError, match="is not a filter in SQL over path, size") as said:
        index.search("red", where=where)
    assert len(str(said.value)) < 500 and len(index.search("red", k=50)) == 10


CIRCLE: list = ["red"]
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "query",
    [[(10**400, "red")], [(1e308, "red"), (1e308, "red")], [(float("nan"), "red")], CIRCLE, {"red"}, 3, None,
     np.array(["a"] * 49, object), np.ones(49, complex), np.array(["a"] * 49), torch.ones(49, dtype=torch.complex64)],
    ids=lambda query: f"{query!r:.20}",
)  # fmt: skip
def test_what_is_no_query_is_a_sentence_and_never_a_damaged_index(clip, folder, tmp_path, query):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises((ValueError, ImageError), match=r"\.$") as said:
        index.search(query)
    assert "damaged" not in str(said.value) and not isinstance(said.value, UnicodeError)


def test_arguments_that_make_no_sense_are_sentences(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    for options, said in (({"min_score": "x"}, "min_score is a cosine"), ({"where": 3}, "where is a filter as a text")):
        with pytest.raises(ValueError, match=said):
            index.search("red", **options)
    with pytest.raises(ValueError, match="queries is a list"):
        index.scores(None)
    assert index.scores("red").shape == (1, 10), "one sentence, and not its three letters"
    with pytest.raises(ValueError, match="a threshold from 1 sentences"):
        index.calibrate("a text of more than twenty letters")
    with pytest.raises(ValueError, match="false_hits is a share"):
        index.calibrate(["red"] * 20, false_hits="x")
    for caption in (3, b"red", "\ud800"):
        with pytest.raises(ValueError, match="a caption is a text"):
            ImageIndex.build([noise(1)], clip, tmp_path / "list", captions=[caption])
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (folder / "0.png", tmp_path / "link"):
        with pytest.raises(AssetError, match="is a file or a broken link: give the index a folder"):
            ImageIndex.build(folder, clip, place)


@pytest.mark.parametrize("path", ["a.png", "b/c..png", "..b/c.png", "it's & <i>.png"])
def test_a_path_inside_is_one(path):
    assert source.stays_inside(path)


def test_the_doctor_names_a_damaged_index_and_the_command(clip, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    index = ImageIndex.build(folder, clip)
    listed = ImageIndex.build([noise(1), noise(2)], clip)
    assert list(doctor._indexes()) == []
    for each in (index, listed):
        with open(each.folder / "vectors-0.f32", "r+b") as file:
            file.write(b"damage")
    found = {finding.detail.partition(" ")[0]: finding for finding in doctor._indexes()}
    assert all(finding.status == "warning" for finding in found.values()) and len(found) == 2
    assert "1 of 10 embeddings are lost or have changed" in found[str(index.folder)].detail
    assert found[str(index.folder)].remedy.startswith(f'mmlesson search "{folder}" "a picture" --model "colours"')
    assert f'delete the folder "{listed.folder}"' in found[str(listed.folder)].remedy
    next(index.folder.rglob("*.lance/data/*")).write_bytes(b"damage")
    (again,) = [finding for finding in doctor._indexes() if str(index.folder) in finding.detail]
    assert "has changed since it was written" in again.detail
    ImageIndex.build([noise(1), noise(2)], clip)
    with pytest.warns(UserWarning, match="is made again"):
        ImageIndex.build(folder, clip)
    assert list(doctor._indexes()) == []


# ----------------------------------------------------------------------------- folders that cannot be read


def deep(place: Path) -> None:
    """A folder whose path is longer than the system takes: nobody can list it, not even root."""
    here = os.getcwd()
    os.chdir(place)
    try:
        for _ in range(45):
            os.mkdir("d" * 99)
            os.chdir("d" * 99)
    finally:
        os.chdir(here)


def test_a_folder_that_cannot_be_read_is_counted_and_named(clip, folder, tmp_path):
    deep(folder)
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert len(index) == 10
    ((name, why),) = index.skipped
    assert name.endswith("ddd/") and "this folder cannot be read (" in why
    assert index.update().skipped == 1
    with pytest.warns(UserWarning, match="cannot be read"):
        assert len(list_images(folder)) == 10


def test_a_folder_that_holds_nothing_readable_is_a_sentence(clip, tmp_path):
    (tmp_path / "pictures").mkdir()
    deep(tmp_path / "pictures")
    with pytest.raises(ImageError, match="cannot be read"):
        ImageIndex.build(tmp_path / "pictures", clip, tmp_path / "index")


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300, "/".join(["x" * 99] * 45), "~nobody-here/x"])
def test_a_path_that_is_none_is_a_sentence(clip, path):
    with pytest.raises(ImageError, match="is no path|does not exist"):
        ImageIndex.build(path, clip)


@pytest.mark.parametrize("path", [3, None, b"pictures", ["pictures"]])
def test_what_is_no_path_of_an_index_is_a_sentence(clip, folder, path):
    with pytest.raises(ImageError, match="is no path of a folder"):
        ImageIndex.open(path, clip)
    if path is not None:  # the one in the cache
        with pytest.raises(ImageError, match="is no path of a folder"):
            ImageIndex.build(folder, clip, path)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["new\nline", "cr\r", "tab\there", "esc\x1b[31m", "del\x7f", "not\udcffutf-8"])
def test_a_path_that_lancedb_cannot_open_is_refused_in_our_words(clip, folder, tmp_path, name):
    with pytest.raises(AssetError, match="An index cannot be in '.*': its path has a line break, a control"):
        ImageIndex.build(folder, clip, tmp_path / name)
    assert clip.batches == [] and not (tmp_path / name).exists(), "before the work, and nothing is left"
    ImageIndex.build(folder, clip, tmp_path / "index").folder.rename(tmp_path / name)
    with pytest.raises(AssetError, match="An index cannot be in '"):
        ImageIndex.open(tmp_path / name, clip)
    (tmp_path / name).rename(tmp_path / "index")  # nothing is lost
    assert len(ImageIndex.open(tmp_path / "index", clip)) == 10


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name", ["a b", "it's", 'a"b', "100%", "%20", "-v", "q?x=1#y", "back\\slash", "{a}[b]*", "s3:"]
)
def test_any_other_path_holds_an_index(clip, folder, tmp_path, name):
    index = ImageIndex.build(folder, clip, tmp_path / name)
    assert answers(ImageIndex.open(tmp_path / name, clip)) == answers(index)
    assert index.update().unchanged == 10 and (tmp_path / name / "pictures.lance").is_dir()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["new\nline", "not\udcffutf-8", "-v", "100%", "\u202eabc"])
def test_a_folder_of_pictures_may_have_any_name(clip, folder, tmp_path, monkeypatch, name):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    folder.rename(tmp_path / name)
    index = ImageIndex.build(tmp_path / name, clip)
    assert len(ImageIndex.open(tmp_path / name, clip)) == 10
    assert index.search("red")[0].image.size == (6, 5)


def test_links_in_circles_are_passed_over(clip, folder, tmp_path):
    (folder / "below" / "up").symlink_to(folder)
    (folder / "self.png").symlink_to(folder / "self.png")
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert len(index) == 10 and all(name == "self.png" or name.endswith("up/") for name, _ in index.skipped)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "index"):
        with pytest.raises((AssetError, ImageError)):
            ImageIndex.build(folder, clip, path)
        with pytest.raises((AssetError, ImageError)):
            ImageIndex.build(path, clip)
        with pytest.raises((AssetError, ImageError)):
            ImageIndex.open(path, clip)


def test_a_picture_that_changes_while_it_is_read_is_left_out(clip, folder, tmp_path, monkeypatch):
    prepare = clip.prepare

    def slow(path):
        if path.name == "3.png":
            noise(99, (9, 9)).save(path)
        return prepare(path)

    with monkeypatch.context() as patch:
        patch.setattr(clip, "prepare", slow)
        index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert [name for name, _ in index.skipped] == ["3.png"] and "changed while it was read" in index.skipped[0][1]
    assert index.update().added == 1
    assert torch.equal(index.embed(index.search(noise(99, (9, 9)), k=1)[0]), clip.encode_images(noise(99, (9, 9)))[0])
