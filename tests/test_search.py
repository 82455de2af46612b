"""search.py against numpy, against folders that change, against broken files, crashes and other processes.

Most tests use `Colours`, a stand-in for a CLIP whose embedding is a tiny picture: fast, and equal pictures have equal vectors.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from PIL import Image

from mmlesson import ImageIndex, load_clip, search, world
from mmlesson.gates import AssetError
from mmlesson.pixels import ImageError, load_image
from mmlesson.search import Update, evaluate_retrieval

WORDS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "white": (1.0, 1.0, 1.0)}


class Colours:
    """A picture is its 4 × 4 colours, a text the colours that it names; `batches` holds the size of each batch embedded."""

    image_size, dim = 4, 49

    def __init__(self, name="colours", salt=""):
        self.name, self.salt, self.batches = name, salt, []

    def fingerprint(self):
        return f"{self.name} {self.salt}"

    def prepare(self, image):
        small = load_image(image).resize((4, 4), Image.Resampling.BOX)
        return torch.from_numpy(np.asarray(small).copy()).float() / 255  # [4, 4, 3]

    def encode_prepared(self, prepared):
        self.batches.append(len(prepared))
        flat = torch.stack(list(prepared)).flatten(1) - 0.5  # [n, 48]
        return F.normalize(torch.cat([flat, torch.full((len(flat), 1), 0.1)], dim=1), dim=1)

    def encode_images(self, images):
        return self.encode_prepared(
            [self.prepare(image) for image in ([images] if not isinstance(images, list) else images)]
        )

    def encode_texts(self, texts):
        rows = [
            np.mean([WORDS[word] for word in text.split() if word in WORDS] or [(0.4, 0.5, 0.6)], axis=0)
            for text in texts
        ]
        return self.encode_prepared([torch.tensor(row, dtype=torch.float32).expand(4, 4, 3) for row in rows])


@pytest.fixture
def clip():
    return Colours()


@pytest.fixture(scope="module")
def pocket():
    return load_clip("pocket-clip", "cpu")


def noise(seed: int, size=(6, 5)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of noise, two of them in a folder below."""
    here = tmp_path / "pictures"
    (here / "below").mkdir(parents=True)
    for number in range(10):
        noise(number).save(here / ("below" if number >= 8 else "") / f"{number}.png")
    return here


def names(hits) -> list[str]:
    return [hit.path.name for hit in hits]


def contents(index: ImageIndex) -> dict:
    """All that an index says of each file, and its vector."""
    columns = ["path", "size", "modified", "sha256", "caption", "vector"]
    return {row["path"]: row for row in index._table.search().select(columns).limit(None).to_arrow().to_pylist()}


def assert_equal_indexes(one: ImageIndex, other: ImageIndex) -> None:
    mine, theirs = contents(one), contents(other)
    assert mine.keys() == theirs.keys() and len(one) == len(other) == len(mine)
    for path, row in mine.items():
        np.testing.assert_allclose(row.pop("vector"), theirs[path].pop("vector"), atol=1e-6)
        assert row == theirs[path]
    for index in (one, other):  # the matrix in memory is that of the table
        for place, path in enumerate(index._rows["path"].to_pylist()):
            np.testing.assert_allclose(index._vectors[place], contents(index)[path]["vector"], atol=1e-7)


# -------------------------------------------------------------------------------------- exact search


def test_exact_search_ranks_as_numpy_does(pocket, tmp_path):
    scenes = world.sample(150, "heldout", seed=31)
    index = ImageIndex.build(scenes, pocket, tmp_path / "index")
    features = pocket.encode_images([scene.render(pocket.image_size) for scene in scenes]).numpy()
    for scene in scenes[:30]:
        cosines = features.astype(np.float64) @ pocket.encode_texts([scene.caption])[0].numpy().astype(np.float64)
        hits = index.search(scene.caption, k=150)
        assert sorted(hit.id for hit in hits) == list(range(150))
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-5)
        np.testing.assert_allclose(cosines[[hit.id for hit in hits]], [hit.score for hit in hits], atol=1e-5)
        assert hits[0].caption == scenes[int(cosines.argmax())].caption
        assert [hit.id for hit in index.search(scene.caption, k=7)] == [hit.id for hit in hits[:7]]


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


# -------------------------------------------------------------------------------------------- queries


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
        ("", "the query is empty"),
        ("  ", "the query is empty"),
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


# ------------------------------------------------------------------------------- what was built, kept, opened


def test_an_index_is_opened_again_without_reading_a_picture(clip, folder, tmp_path):
    built = ImageIndex.build(folder, clip, tmp_path / "index")
    shutil.move(folder, tmp_path / "elsewhere")
    other = Colours()
    again = ImageIndex.open(tmp_path / "index", other)
    assert other.batches == [] and len(again) == 10
    before, after = (index.search(built._vectors[4]) for index in (built, again))
    assert [(hit.path, hit.score) for hit in before] == [(hit.path, hit.score) for hit in after]
    with pytest.raises(ImageError):
        again.search("red", k=1)[0].image  # noqa: B018


def test_without_a_path_it_lies_in_the_cache_and_never_in_the_folder(clip, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    before = sorted(path.name for path in folder.rglob("*"))
    index = ImageIndex.build(folder, clip)
    assert index.folder.is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert len(ImageIndex.open(folder, clip)) == 10, "the picture folder leads to its index"
    ImageIndex.build(folder, clip)
    assert sum(clip.batches) == 10, "a second build has nothing to embed"
    monkeypatch.chdir(folder.parent)
    assert ImageIndex.build("pictures", clip).folder == index.folder, "by whatever name"
    with pytest.raises(AssetError, match="holds the pictures: give the index a folder of its own"):
        ImageIndex.build(folder, clip, path=folder)


def test_opening_five_thousand_takes_less_than_a_second(pocket, tmp_path):
    from mmlesson.measure.speed_search import synthetic_index

    synthetic_index(5000, pocket, tmp_path / "index", F.normalize(torch.randn(50, pocket.dim), dim=1))
    started = time.perf_counter()
    index = ImageIndex.open(tmp_path / "index", pocket)
    assert time.perf_counter() - started < 1 and len(index) == 5000


def test_memory_grows_with_the_batch_and_not_with_the_collection(clip, tmp_path, monkeypatch):
    """Prepared pictures that are alive at one time: never more than a batch, however many files there are."""
    here = tmp_path / "pictures"
    here.mkdir()
    for number in range(60):
        noise(number).save(here / f"{number:02}.png")
    alive, most = set(), [0]
    prepare, encode = clip.prepare, clip.encode_prepared

    def counted(image):
        prepared = prepare(image)
        alive.add(id(prepared))
        most[0] = max(most[0], len(alive))
        return prepared

    def emptied(prepared):
        features = encode(prepared)
        alive.clear()
        return features

    monkeypatch.setattr(clip, "prepare", counted)
    monkeypatch.setattr(clip, "encode_prepared", emptied)
    ImageIndex.build(here, clip, tmp_path / "index", batch_size=8)
    assert clip.batches == [8] * 7 + [4] and most[0] == 8


@pytest.mark.parametrize("batch_size", [0, -3, 1.5])
def test_a_wrong_batch_size_is_a_sentence(clip, folder, tmp_path, batch_size):
    with pytest.raises(ValueError, match="batch_size is a number of pictures"):
        ImageIndex.build(folder, clip, tmp_path / "index", batch_size=batch_size)


def test_captions_stand_beside_their_pictures_and_may_change(clip, folder, tmp_path):
    (folder / "3.txt").write_text("a storm\n")
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert {hit.path.name: hit.caption for hit in index.search("red")}["3.png"] == "a storm"
    (folder / "3.txt").write_text("a calm")
    clip.batches.clear()
    assert index.update() == Update(added=0, changed=1, removed=0, unchanged=9, embedded=0, skipped=0)
    assert clip.batches == [] and {hit.path.name: hit.caption for hit in index.search("red")}["3.png"] == "a calm"


def test_a_list_of_pictures_and_of_scenes(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    pictures = [noise(number, (600, 300)) for number in range(4)]
    index = ImageIndex.build(pictures, clip, captions=["a", "b", "c", "d"])
    hit = index.search(pictures[2], k=1)[0]
    assert (hit.id, hit.caption, hit.path) == (2, "c", None) and hit.image.size == (256, 128)
    assert (
        ImageIndex.build(pictures, clip, captions=["a", "b", "c", "d"]).folder == index.folder
        and sum(clip.batches) == 4 + 1
    )

    scenes = world.sample(5, "heldout", seed=3)
    index = ImageIndex.build(scenes, clip)
    hit = index.search(scenes[1].render(64), k=1)[0]
    assert (hit.id, hit.caption) == (1, scenes[1].caption)
    assert np.array_equal(np.asarray(hit.image), np.asarray(scenes[1].render(256)))
    with pytest.raises(ValueError, match="built from a list"):
        index.update()
    with pytest.raises(ValueError, match="2 captions for 4 pictures"):
        ImageIndex.build(pictures, clip, captions=["a", "b"])
    with pytest.raises(ImageError, match="the list holds no picture"):
        ImageIndex.build([], clip)


def test_another_list_in_the_place_of_one_becomes_that_list(clip, tmp_path):
    ImageIndex.build([noise(0), noise(1), noise(2)], clip, tmp_path / "index")
    index = ImageIndex.build([noise(1), noise(5)], clip, tmp_path / "index")
    assert len(index) == 2 and [hit.id for hit in index.search(noise(5), k=2)] == [1, 0]
    with pytest.raises(AssetError, match="is an index of a list"):
        (tmp_path / "pictures").mkdir()
        noise(1).save(tmp_path / "pictures" / "1.png")
        ImageIndex.build(tmp_path / "pictures", clip, tmp_path / "index")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_folder_that_is_none_or_empty_is_a_sentence(clip, tmp_path, make):
    make(tmp_path / "pictures")
    with pytest.raises(ImageError, match="does not exist|no picture in|is a file"):
        ImageIndex.build(tmp_path / "pictures", clip, tmp_path / "index")


# --------------------------------------------------------------------------------- a folder that changes


class AFolderThatChanges(RuleBasedStateMachine):
    """Whatever happens to a folder between updates, the index ends as one that is built afresh."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.place = Path(tempfile.mkdtemp(prefix="mmlesson-test-"))
        self.folder, self.clip, self.builds, self.seed = self.place / "pictures", Colours(), 0, 0
        self.folder.mkdir()
        self.paint("start.png")
        self.index = ImageIndex.build(self.folder, self.clip, self.place / "index")
        self.was = self.state()

    def teardown(self):
        shutil.rmtree(self.place)

    def state(self) -> dict:
        """What can be read in the folder: bytes and caption of each picture."""
        files = {}
        for path in self.folder.rglob("*.png"):
            beside = path.with_suffix(".txt")
            caption = beside.read_text().strip() if beside.exists() else ""
            if not path.read_bytes().startswith(b"broken"):
                files[path.relative_to(self.folder).as_posix()] = (path.read_bytes(), caption)
        return files

    def paint(self, name: str) -> None:
        self.seed += 1
        (self.folder / name).parent.mkdir(exist_ok=True)
        noise(self.seed, (5 + self.seed % 40, 5)).save(self.folder / name)

    def pictures(self) -> list[Path]:
        return sorted(self.folder.rglob("*.png"))

    name = st.sampled_from(["a.png", "b.png", "it's.png", "sub/ä 🐈.png", "sub/c.png", "d'); --.png"])
    which = st.integers(0, 5)

    @rule(name=name)
    def add_or_change(self, name):
        self.paint(name)

    @rule(which=which, name=name)
    def copy(self, which, name):
        source = self.pictures()[which % len(self.pictures())]
        if source != self.folder / name:
            (self.folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(source, self.folder / name)

    @precondition(lambda self: len(self.pictures()) > 1)
    @rule(which=which, name=name)
    def rename(self, which, name):
        source = self.pictures()[which % len(self.pictures())]
        (self.folder / name).parent.mkdir(exist_ok=True)
        source.rename(self.folder / name)

    @precondition(lambda self: len(self.pictures()) > 1)
    @rule(which=which)
    def delete(self, which):
        self.pictures()[which % len(self.pictures())].unlink()

    @rule(which=which, text=st.sampled_from(["a cat", "", "it's"]))
    def caption(self, which, text):
        self.pictures()[which % len(self.pictures())].with_suffix(".txt").write_text(text)

    @rule(which=which)
    def touch(self, which):
        self.seed += 1
        os.utime(self.pictures()[which % len(self.pictures())], ns=(1, self.seed * 10**9))

    @rule(name=st.sampled_from(["a.png", "z.png"]))
    def spoil(self, name):
        self.seed += 1
        (self.folder / name).write_bytes(b"broken" * self.seed)

    @rule()
    def update(self):
        now, was = self.state(), self.was
        done = self.index.update()
        assert done.added == len(now.keys() - was.keys()) and done.removed == len(was.keys() - now.keys())
        assert done.changed == sum(now[path] != was[path] for path in now.keys() & was.keys())
        assert done.unchanged == sum(now[path] == was[path] for path in now.keys() & was.keys())
        assert done.skipped == len(self.index.skipped) == len(self.pictures()) - len(now)
        known = {data for data, _ in was.values()}
        assert done.embedded <= sum(data not in known for data, _ in now.values()), (
            "what was known is not embedded again"
        )
        self.was = now
        assert str(self.index.update()).startswith(f"0 added, 0 changed, 0 removed, {len(now)} unchanged; 0 embedded")
        if now:
            self.builds += 1
            fresh = ImageIndex.build(self.folder, self.clip, self.place / f"fresh-{self.builds}")
            assert_equal_indexes(self.index, fresh)
            query = fresh._vectors[0]
            scores = [[hit.score for hit in index.search(query, k=20)] for index in (self.index, fresh)]
            np.testing.assert_allclose(*scores, atol=1e-6)
        assert_equal_indexes(self.index, ImageIndex.open(self.place / "index", self.clip))

    @invariant()
    def it_can_be_searched(self):
        assert len(self.index.search("red", k=100)) == len(self.index) == len(self.was)


TestAFolderThatChanges = AFolderThatChanges.TestCase
TestAFolderThatChanges.settings = settings(
    max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


def test_a_folder_that_is_gone_is_a_sentence_and_the_index_stays(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="is gone: put it back"):
        index.update()
    assert len(index.search("red")) == 10


# ------------------------------------------------------------------------------------- difficult pictures


def png_of_a_claimed_size(width: int, height: int) -> bytes:
    """The beginning of a PNG whose header claims a size."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = [
        len(chunk[4:]).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        for chunk in (header, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_difficult_pictures_are_read_or_left_out_with_a_reason(clip, tmp_path):
    import pillow_heif

    here = tmp_path / "pictures"
    here.mkdir()
    red, blue = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 48), "blue")
    half = Image.new("RGB", (64, 32), "red")
    half.paste("blue", (0, 0, 32, 32))  # blue on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°: left becomes top
    heif = io.BytesIO()
    pillow_heif.from_pillow(red).save(heif)
    good = {
        "animated.gif": encoded(red, "GIF", save_all=True, append_images=[blue]),
        "cmyk.jpg": encoded(red.convert("CMYK"), "JPEG"),
        "sixteen.png": encoded(Image.fromarray(np.full((20, 20), 65535, dtype=np.uint16)), "PNG"),
        "turned.jpg": encoded(half, "JPEG", exif=exif, quality=95),
        "really a png.jpg": encoded(red, "PNG"),
        "telephone.heic": heif.getvalue(),
        "see-through.webp": encoded(Image.new("RGBA", (20, 20), (255, 0, 0, 255)), "WEBP", lossless=True),
        "old.tiff": encoded(red, "TIFF"),
        "older.bmp": encoded(red, "BMP"),
        "grüße 🐈 it's.png": encoded(blue, "PNG"),
    }
    whole = encoded(noise(1, (200, 200)), "PNG")
    bad = {
        "zero.png": b"",
        "truncated.png": whole[: len(whole) // 2],
        "corrupted.jpg": b"\xff\xd8\xff" + os.urandom(2000),
        "huge.png": png_of_a_claimed_size(30_000, 30_000),
        "notes.jpg": b"these are notes",
    }
    for name, data in (good | bad).items():
        (here / name).write_bytes(data)
    (here / "folder.png").mkdir()
    noise(2).save(here / "folder.png" / "inside.png")
    (here / "nowhere.png").symlink_to(here / "not there.png")
    (here / "circle").symlink_to(here)
    (here / "itself.png").symlink_to(here / "itself.png")
    with open(os.fsencode(here) + b"/caf\xe9.png", "wb") as file:
        file.write(whole)
    (here / ".hidden.png").write_bytes(whole)

    index = ImageIndex.build(here, clip, tmp_path / "index", batch_size=3)
    assert {row for row in contents(index)} == {*good, "folder.png/inside.png"}
    skipped = dict(index.skipped)
    assert skipped.keys() == {*bad, "nowhere.png", "itself.png", "caf?.png"}
    assert all(len(reason) > 10 and reason.strip().endswith(".") for reason in skipped.values()), skipped
    assert "not valid Unicode" in skipped["caf?.png"] and re.search("pixels|large", skipped["huge.png"])

    assert set(names(index.search("red", k=6))) <= set(good) - {"sixteen.png", "turned.jpg", "grüße 🐈 it's.png"}
    assert names(index.search("blue", k=1)) == ["grüße 🐈 it's.png"] and names(index.search("white", k=1)) == [
        "sixteen.png"
    ]
    (turned,) = (hit.image for hit in index.search("red", k=20) if hit.path.name == "turned.jpg")
    assert turned.size == (32, 64) and turned.getpixel((16, 5))[2] > 200 and turned.getpixel((16, 60))[0] > 200
    assert str(index.update()).startswith("0 added, 0 changed, 0 removed, 11 unchanged; 0 embedded, 8 skipped")


def test_an_absurdly_large_file_is_not_even_read(clip, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "MAX_BYTES", 10_000)
    (folder / "film.png").write_bytes(bytes(20_000))
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert index.skipped == [("film.png", "it has 0 MB, more than 0: make it smaller first.")] and len(index) == 10


def test_nothing_but_broken_files_is_a_sentence(clip, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"None of the 1 pictures can be read. a.png: "):
        ImageIndex.build(tmp_path / "pictures", clip, tmp_path / "index")


def test_a_picture_that_becomes_unreadable_leaves_the_index(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    (folder / "4.png").write_bytes(b"spoilt")
    assert str(index.update()) == "0 added, 0 changed, 1 removed, 9 unchanged; 0 embedded, 1 skipped"
    assert "4.png" not in names(index.search("red", k=20))


# ------------------------------------------------------------------------------------ crashes and neighbours

SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from mmlesson import ImageIndex, search
from test_search import Colours
search.COMMIT_EVERY = (0.0, 1)  # each batch
class Slow(Colours):
    def encode_prepared(self, prepared):
        print("batch", flush=True)
        time.sleep(0.15)
        return super().encode_prepared(prepared)
clip = Slow()
{work}
print("done", flush=True)
"""


def start(work: str) -> subprocess.Popen:
    code = SLOW.format(tests=str(Path(__file__).parent), work=work)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def after_batches(process: subprocess.Popen, n: int) -> None:
    for _ in range(n):
        assert process.stdout.readline() == "batch\n", process.communicate()


def test_a_process_killed_while_building_loses_little(clip, folder, tmp_path):
    work = f"ImageIndex.build({str(folder)!r}, clip, {str(tmp_path / 'index')!r}, batch_size=2)"
    process = start(work)
    after_batches(process, 4)
    process.kill()
    process.communicate()
    index = ImageIndex.build(folder, clip, tmp_path / "index", batch_size=2)
    assert 1 <= sum(clip.batches) <= 8, "what was committed is not embedded again"
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


def test_a_process_killed_while_updating_leaves_an_index_that_works(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    for number in range(10, 18):
        noise(number).save(folder / f"{number}.png")
    noise(50).save(folder / "0.png")
    (folder / "1.png").unlink()
    process = start(f"ImageIndex.open({str(tmp_path / 'index')!r}, clip).update(batch_size=2)")
    after_batches(process, 3)
    process.kill()
    process.communicate()
    between = ImageIndex.open(tmp_path / "index", clip)
    assert 10 <= len(between) < 18 and len(between.search("red", k=50)) == len(between)
    clip.batches.clear()
    assert index.update().embedded == sum(clip.batches) <= 7
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


def test_a_process_killed_before_its_first_commit_is_as_if_it_had_not_been(clip, folder, tmp_path):
    (tmp_path / "index" / "pictures.lance" / "_versions").mkdir(parents=True)  # all that it came to
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert len(index) == 10


def test_ctrl_c_keeps_what_is_done_and_says_so(clip, folder, tmp_path, monkeypatch):
    encode = clip.encode_prepared

    def interrupted(prepared):
        if sum(clip.batches) >= 6:
            raise KeyboardInterrupt
        return encode(prepared)

    monkeypatch.setattr(clip, "encode_prepared", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"^6 of 10 new pictures are in the index .*; the same call goes on from there"
    ):
        ImageIndex.build(folder, clip, tmp_path / "index", batch_size=2)
    assert len(ImageIndex.open(tmp_path / "index", clip)) == 6
    monkeypatch.undo()
    clip.batches.clear()
    assert_equal_indexes(
        ImageIndex.build(folder, clip, tmp_path / "index"), ImageIndex.build(folder, Colours(), tmp_path / "fresh")
    )
    assert sum(clip.batches) == 4


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("lance error: No space left on device")]
)
def test_a_full_disk_is_a_sentence_and_loses_nothing(clip, folder, tmp_path, error, monkeypatch):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    noise(20).save(folder / "20.png")

    def full(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(index._table), "add", full)
        with pytest.raises(AssetError, match="cannot be written .*No space left on device.*: free some space"):
            index.update()
    assert len(index.search("red", k=50)) == 10 == len(ImageIndex.open(tmp_path / "index", clip))
    assert index.update().added == 1


def test_a_disk_without_room_for_the_matrix_still_searches(clip, folder, tmp_path, monkeypatch):
    def full(*_):
        raise AssetError("no space")

    ImageIndex.build(folder, clip, tmp_path / "index")
    for file in (tmp_path / "index").glob("vectors-*.npy"):
        file.unlink()
    monkeypatch.setattr(search.assets, "write_atomically", full)
    assert len(ImageIndex.open(tmp_path / "index", clip).search("red", k=50)) == 10


def test_two_processes_search_while_one_writes(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    for number in range(10, 22):
        noise(number).save(folder / f"{number}.png")
    process = start(f"ImageIndex.open({str(tmp_path / 'index')!r}, clip).update(batch_size=2)")
    after_batches(process, 2)
    assert len(index.search("red", k=50)) == 10, "this one still sees the version that it opened"
    assert len(index.search("red", k=50, where="path LIKE '%.png'")) == 10
    during = ImageIndex.open(tmp_path / "index", clip)
    assert 10 <= len(during) <= 22 and len(during.search("red", k=50)) == len(during)
    assert process.wait(timeout=60) == 0, process.communicate()
    assert len(index.search("red", k=50)) == 10 and len(ImageIndex.open(tmp_path / "index", clip)) == 22


def test_a_second_writer_waits_for_the_first(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    for number in range(10, 16):
        noise(number).save(folder / f"{number}.png")
    process = start(f"ImageIndex.open({str(tmp_path / 'index')!r}, clip).update(batch_size=2)")
    after_batches(process, 1)
    clip.batches.clear()
    done = index.update()  # returns once the other one has finished
    assert done == Update(added=0, changed=0, removed=0, unchanged=16, embedded=0, skipped=0) and clip.batches == []
    assert process.wait(timeout=60) == 0
    assert len(index) == 16


def test_threads_may_search_at_once(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    expected, found = names(index.search("red")), []
    threads = [
        threading.Thread(target=lambda: found.append(names(index.search("red", where="size > 0")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


# ---------------------------------------------------------------------------------- what does not belong


def test_an_index_of_another_clip_is_refused(clip, folder, tmp_path):
    ImageIndex.build(folder, clip, tmp_path / "index")
    for other, said in (
        (Colours("shapes"), r"made with load_clip\('colours'\)"),
        (Colours(salt="2"), "other weights of the same name"),
    ):
        with pytest.raises(AssetError, match=said):
            ImageIndex.open(tmp_path / "index", other)
        with pytest.raises(AssetError, match=said):
            ImageIndex.build(folder, other, tmp_path / "index")
        assert other.batches == []


def test_two_clips_have_two_indexes_of_one_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    one, other = (ImageIndex.build(folder, Colours(name)) for name in ("one", "other"))
    assert one.folder != other.folder


def test_no_index_and_an_old_one_are_a_sentence(clip, folder, tmp_path, monkeypatch):
    with pytest.raises(AssetError, match=r"There is no index of colours at .*: make one with ImageIndex.build"):
        ImageIndex.open(folder, clip)
    with monkeypatch.context() as patch:
        patch.setattr(search, "FORMAT", 0)
        ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(AssetError, match="not made by this version of mmlesson: delete it"):
        ImageIndex.open(tmp_path / "index", clip)


def test_a_damaged_table_is_a_sentence(clip, folder, tmp_path):
    ImageIndex.build(folder, clip, tmp_path / "index")
    for file in (tmp_path / "index").rglob("*.manifest"):
        file.write_bytes(b"damaged")
    with pytest.raises(AssetError, match="is damaged .*: delete that folder and build it again"):
        ImageIndex.open(tmp_path / "index", clip)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:300]),
        lambda file: np.save(file, np.zeros((3, 49), np.float32)),
        lambda file: np.save(file, np.zeros((10, 49), np.float64)),
        lambda file: np.save(file, np.array([{"a": 1}], dtype=object)),
    ],
)
def test_a_matrix_that_is_missing_or_wrong_is_made_anew(clip, folder, tmp_path, spoil):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    expected = [(hit.id, hit.score) for hit in index.search("red")]
    (file,) = (tmp_path / "index").glob("vectors-*.npy")
    spoil(file)
    assert [(hit.id, hit.score) for hit in ImageIndex.open(tmp_path / "index", clip).search("red")] == expected
    assert np.load(file).shape == (10, 49)


# --------------------------------------------------------------------------------------------- display


def test_captions_and_names_are_escaped(clip, tmp_path):
    evil = "<script>alert('x')</script><img src=x onerror=\"y\">"
    index = ImageIndex.build([Image.new("RGB", (20, 20), "red")], clip, tmp_path / "index", captions=[evil])
    html = index.search("red")._repr_html_()
    assert "<script" not in html and 'onerror="' not in html and html.count("<img") == 1 and "&lt;script&gt;" in html
    with pytest.raises(ValueError):
        index.search("")
    assert re.fullmatch(r"<p>[^<>]+</p>", index.search("<b>nothing</b>", min_score=2.0)._repr_html_())


def test_a_grid_has_thumbnails_and_no_full_pictures(clip, tmp_path):
    here = tmp_path / "pictures"
    here.mkdir()
    for number in range(10):
        noise(number, (900, 700)).save(here / f"{number}.png")
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


# -------------------------------------------------------------------------------------------- nothing fits


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


# ------------------------------------------------------------------------------------------- evaluation


def test_evaluation_agrees_with_a_plain_reference(pocket, tmp_path):
    scenes = world.sample(80, "heldout", seed=41)
    index = ImageIndex.build(scenes, pocket, tmp_path / "index")
    queries = [
        (scene.swapped().caption if len(scene.concepts) == 2 else scene.concepts[0], place)
        for place, scene in enumerate(scenes)
    ]
    scores = pocket.encode_texts([text for text, _ in queries]).numpy() @ index._vectors.numpy().T
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


# ------------------------------------------------------------------------------------------- approximate


@pytest.fixture(scope="module")
def large(pocket, tmp_path_factory):
    from mmlesson.measure.speed_search import synthetic_index

    base = F.normalize(torch.randn(300, pocket.dim, generator=torch.Generator().manual_seed(1)), dim=1)
    index = synthetic_index(4000, pocket, tmp_path_factory.mktemp("large") / "index", base)
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
    monkeypatch.setattr(search, "EXACT_UP_TO", 3999)
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


def test_the_example_in_the_modules_docstring(folder, tmp_path, clip):
    first = textwrap.dedent(search.__doc__).split("\n\n")[1]
    scope = {"ImageIndex": ImageIndex, "clip": clip}
    exec(textwrap.dedent(first).replace('"pictures/"', repr(str(folder))), scope)
    assert len(scope["hits"]) == 5


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_in_a_terminal_ends_with_a_sentence(folder, tmp_path):
    process = start(f"ImageIndex.build({str(folder)!r}, clip, {str(tmp_path / 'index')!r}, batch_size=2)")
    after_batches(process, 2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert "done" not in output and re.search(r"KeyboardInterrupt: \d of 10 new pictures are in the index", errors)
    assert 2 <= len(ImageIndex.open(tmp_path / "index", Colours())) < 10
