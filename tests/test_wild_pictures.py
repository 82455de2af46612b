"""Pictures from the wild: read, or refused with a sentence, nothing else; and what decoding one may cost."""

import contextlib
import io
import threading
import time
import warnings

import numpy as np
import pytest
from colours import Colours
from PIL import Image
from wild_pictures import changed, made, of_packages, outcome, truncated

from mmlesson import cli, decoding, pixels
from mmlesson.pixels import ImageError, load_image
from mmlesson.teach.widgets import classify

SMALL = [
    (name, data) for name, data in made(sizes=((9, 7),), modes=("1", "P", "RGB", "RGBA", "I;16")) if "HDF" not in name
]


@pytest.mark.parametrize("form", sorted({name.partition(" ")[0] for name, _ in SMALL}))
def test_a_damaged_picture_is_read_or_refused_with_a_sentence(form):
    """Every format that Pillow writes; `python tests/wild_pictures.py` tries all modes and many more places."""
    for name, data in SMALL:
        if name.partition(" ")[0] == form:
            for part in (data, *truncated(data, max(10, len(data) // 8)), *changed(data, 8)):
                assert outcome(part) in ("read", "refused"), name


def test_every_entry_reads_a_picture_through_one_gate(tmp_path, monkeypatch):
    """The own-picture widget and `mmlesson search --like` read and refuse what `load_image` reads and refuses."""
    assert classify.load_image is pixels.load_image is load_image

    class Clip(Colours):
        def tokenize(self, texts):
            assert texts == []

    monkeypatch.setattr("mmlesson.clip.load_clip", lambda name: Clip())
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (9, 7), "red").save(tmp_path / "pictures" / "red.png")

    def widget(data: bytes) -> str:
        try:
            picture = classify._read_upload("some name", data)
        except ImageError as error:
            assert str(error).startswith("“some name” cannot be used: ") and "\n" not in str(error)
            return "refused"
        assert picture.mode == "RGB"
        return "read"

    def command(data: bytes) -> str:
        (tmp_path / "like").write_bytes(data)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = cli.main(["search", "pictures", "--like", "like"])
        assert status == 0 or "mmlesson: like " in printed.getvalue(), printed.getvalue()
        return "read" if status == 0 else "refused"

    corpus = [data for _, data in SMALL[::7]] + [data for _, data in of_packages() if len(data) < 30_000][::12]
    corpus += [part for data in corpus[::4] for part in (*changed(data, 2), data[: len(data) // 2])]
    found = [(outcome(data), widget(data), command(data)) for data in corpus]
    assert all(len(set(each)) == 1 for each in found), found
    assert min(found.count(("read",) * 3), found.count(("refused",) * 3)) >= 5


def test_the_pictures_that_packages_bring_are_read_or_refused():
    found = [outcome(data) for _, data in of_packages() if len(data) < 300_000]
    assert set(found) <= {"read", "refused"} and found.count("read") > 10


@pytest.mark.parametrize("claim", ["VP8X", "VP8L", "VP8 "])
def test_a_webp_that_claims_too_much_is_refused_before_it_is_opened(claim):
    size = {
        "VP8X": bytes(8) + (12_000 - 1).to_bytes(3, "little") * 2,
        "VP8L": bytes(4) + b"\x2f" + (11_999 | 11_999 << 14).to_bytes(4, "little") + bytes(5),
        "VP8 ": bytes(10) + (12_000).to_bytes(2, "little") * 2,
    }[claim]
    data = b"RIFF" + bytes(4) + b"WEBP" + claim.encode() + size
    with pytest.raises(ImageError, match="12000×12000 pixels, more than 16 million: make it smaller first"):
        load_image(data + bytes(40))


def test_a_picture_inside_of_an_icon_is_looked_at_too():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "ICO", sizes=[(16, 16)])
    data = bytearray(buffer.getvalue())
    assert load_image(bytes(data)).size == (16, 16)
    place = data.index(b"IHDR") + 4
    data[place : place + 8] = (30_000).to_bytes(4, "big") * 2
    with pytest.raises(ImageError, match="30000×30000 pixels"):
        load_image(bytes(data))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "I;16", "I", "F"])
def test_a_picture_in_strips_is_the_same_as_in_one(mode, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (50, 40, 4), np.uint8)
    picture = Image.fromarray(values)
    picture = (
        picture.convert(mode) if mode in ("LA", "RGBA") else Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    )
    if mode == "I":
        picture = picture.convert("I")
    elif mode == "F":
        picture = Image.fromarray(values[..., 0].astype(np.float32) / 255)
    whole = np.asarray(load_image(picture))
    monkeypatch.setattr(decoding, "STRIP", 200)
    assert len(list(decoding.strips(picture))) == 10
    assert (np.asarray(load_image(picture)) == whole).all()


def test_what_is_made_small_may_be_less_large_when_decoded(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODED", 1000)
    png, jpeg = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (80, 60)).save(png, "PNG")
    Image.new("RGB", (80, 60)).save(jpeg, "JPEG")
    assert load_image(png.getvalue()).size == (80, 60), "whoever asks for the picture itself gets it"
    assert load_image(jpeg.getvalue(), at_least=10).size == (20, 15)
    with pytest.raises(ImageError, match="80×60 pixels, more than"):
        load_image(png.getvalue(), at_least=10)


def test_threads_share_the_room_and_none_waits_for_itself(monkeypatch):
    monkeypatch.setattr(decoding, "ROOM", 100)
    now, most = [0], [0]

    @decoding.bounded
    def read(pixels):
        decoding.take_room(pixels)
        decoding.take_room(pixels)  # a second picture of the same work takes no more
        now[0] += pixels
        most[0] = max(most[0], now[0])
        time.sleep(0.002)
        now[0] -= pixels

    threads = [threading.Thread(target=read, args=(pixels,)) for pixels in [40, 30, 250, 60, 10, 100] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 250 and decoding._taken == 0
    decoding.take_room(10**9)  # outside nothing waits
    assert decoding._taken == 0


def test_pillows_warnings_are_not_shown_and_those_of_others_are():
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with decoding.quiet(), decoding.quiet():
            warnings.warn_explicit("of Pillow", UserWarning, "x.py", 1, module="PIL.Image")
            warnings.warn_explicit("of another", UserWarning, "x.py", 1, module="PILOT")
    assert [str(each.message) for each in said] == ["of another"] and list(warnings.filters) == before
