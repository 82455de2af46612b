"""An index and its source: folders that change, lists, broken files."""

import io
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from colours import Colours, assert_equal_indexes, contents, names, noise, synthetic
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from PIL import Image

from mmlesson import ImageIndex, world
from mmlesson.gates import AssetError
from mmlesson.pixels import ImageError
from mmlesson.search import Update, source, vectors

# --------------------------------------------------------------------- what was built, kept, opened


def test_an_index_is_opened_again_without_reading_a_picture(clip, folder, tmp_path):
    built = ImageIndex.build(folder, clip, tmp_path / "index")
    shutil.move(folder, tmp_path / "elsewhere")
    other = Colours()
    again = ImageIndex.open(tmp_path / "index", other)
    assert other.batches == [] and len(again) == 10
    before, after = (index.search(built._vectors[4]) for index in (built, again))
    assert [(hit.path, hit.score) for hit in before] == [(hit.path, hit.score) for hit in after]
    with pytest.raises(ImageError):
        again.search("red", k=1)[0].image  # noqa: B018 - asking is what raises


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


def test_opening_maps_the_embeddings_and_copies_none(clip, tmp_path):
    index = synthetic(5000, clip, tmp_path / "index")
    stored = vectors.load(tmp_path / "index", clip.dim)
    assert isinstance(stored.vectors, np.memmap) and stored.vectors.shape == (5000, clip.dim)
    assert stored.take(stored.places(index._keys)).data_ptr() == stored.vectors.ctypes.data
    assert len(ImageIndex.open(tmp_path / "index", clip)) == 5000 and clip.batches == []


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
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
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


# ---------------------------------------------------------------------------- a folder that changes


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


# ------------------------------------------------------------------------------- difficult pictures


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


def test_a_name_that_is_shown_like_another_does_not_take_its_place(clip, folder, tmp_path):
    """A name that is not Unicode is shown with a question mark, and another file may really have that name."""
    noise(20).save(folder / "caf?.png")
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as file:
        file.write(encoded(noise(21), "PNG"))
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert len(index) == 11 and [name for name, _ in index.skipped] == ["caf?.png"]
    assert str(index.update()) == "0 added, 0 changed, 0 removed, 11 unchanged; 0 embedded, 1 skipped"


def test_an_absurdly_large_file_is_not_even_read(clip, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_BYTES", 10_000)
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
