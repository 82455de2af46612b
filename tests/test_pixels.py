"""pixels.py: every kind of source becomes an RGB picture or a sentence; pixels, grids and GIFs."""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmlesson import decoding, pixels
from mmlesson.gates import AssetError
from mmlesson.pixels import (
    ImageError,
    image_grid,
    list_images,
    load_image,
    save_gif,
    thumbnail,
    to_images,
    to_pixels,
    walk_images,
)


def gradient(width=40, height=30) -> Image.Image:
    """A smooth picture, different in each channel and not symmetric."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - (x + y) / 2], axis=-1).astype(np.uint8))


def encoded(image, format, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def array(image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ------------------------------------------------------------------------------------------ reading


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    picture = gradient()
    path = tmp_path / "a picture.png"
    picture.save(path)
    data = path.read_bytes()
    sources = [path, str(path), picture, data, bytearray(data), memoryview(data), io.BytesIO(data)]
    sources += [np.asarray(picture), np.asarray(picture).astype(np.int64), np.asarray(picture) / 255.0]
    for source in sources:
        loaded = load_image(source)
        assert loaded.mode == "RGB" and loaded.size == (40, 30)
        assert (array(loaded) == array(picture)).all(), type(source)
    assert load_image(picture) is picture


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000"])
def test_the_common_formats_are_read(format):
    loaded = load_image(encoded(gradient(), format))
    assert loaded.mode == "RGB" and loaded.size == (40, 30)
    assert abs(array(loaded) - array(gradient())).mean() < 12  # GIF has 256 colours


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    picture = gradient(48, 32)
    turned = picture  # how a camera stores what is upright after its orientation is applied
    if orientation > 1:
        way = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")
        turned = picture.transpose(Image.Transpose[way[orientation - 2]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    turned.save(path, exif=exif)
    assert (array(load_image(path)) == array(picture)).all()
    assert (array(load_image(Image.open(path))) == array(picture)).all()


def test_broken_exif_is_no_reason_to_refuse_a_picture():
    data = encoded(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x99broken")
    assert load_image(data).size == (40, 30)


def test_what_is_transparent_shows_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, 2:] = [200, 0, 0, 255]  # left: black, but fully transparent; right: opaque red
    rgba[0, 3, 3] = 128
    picture = Image.fromarray(rgba)
    palette = picture.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 3))
    for source in [
        picture,
        rgba,
        encoded(picture, "PNG"),
        encoded(picture, "WEBP", lossless=True),
        picture.convert("RGBa"),
    ]:
        loaded = array(load_image(source))
        assert (loaded[:, :2] == 255).all(), "transparent is white"
        assert (loaded[1:, 2:] == [200, 0, 0]).all(), "opaque is as it was"
        assert abs(loaded[0, 3] - [227, 127, 127]).max() <= 2, "half is mixed with white"
    assert (array(load_image(encoded(palette, "PNG", transparency=palette.info["transparency"])))[3, :2] == 255).all()
    grey = Image.new("LA", (3, 3), (10, 0))
    assert (array(load_image(encoded(grey, "PNG"))) == 255).all()
    keyed = encoded(Image.new("RGB", (3, 3), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert (array(load_image(keyed)) == 255).all(), "a PNG colour key is transparency too"


def test_other_kinds_of_colour():
    ramp16 = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    expected = np.rint(ramp16 / 257.0).astype(int)
    for source in [
        ramp16,
        encoded(Image.fromarray(ramp16), "PNG"),
        encoded(Image.fromarray(ramp16), "TIFF"),
        ramp16.astype(np.int32),
    ]:
        assert (array(load_image(source))[:, :, 0] == expected).all(), "16 bits are scaled, not cut off at 255"
    assert array(load_image(np.full((2, 2), 300, np.uint16)))[0, 0, 0] == 1, "a dark 16-bit picture stays dark"

    cmyk = load_image(encoded(gradient().convert("CMYK"), "JPEG", quality=95))
    assert cmyk.mode == "RGB" and abs(array(cmyk) - array(gradient())).mean() < 4
    assert (array(load_image(Image.new("1", (2, 2), 1))) == 255).all()
    assert (array(load_image(gradient().convert("L")))[:, :, 0] == np.asarray(gradient().convert("L"))).all()
    assert (
        abs(array(load_image(gradient().convert("P", palette=Image.Palette.ADAPTIVE))) - array(gradient())).mean() < 12
    )
    assert abs(array(load_image(gradient().convert("HSV"))) - array(gradient())).mean() < 4
    assert (array(load_image(Image.fromarray(np.full((2, 2), 0.5, np.float32)))) == 128).all()
    assert (array(load_image(np.eye(3, dtype=bool)))[:, :, 0] == np.eye(3) * 255).all()
    assert load_image(np.zeros((5, 6, 1), np.uint8)).size == (6, 5)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert abs(array(load_image(data)) - [255, 0, 0]).max() <= 4


def test_a_reduced_jpeg_never_falls_below_the_size_asked_for():
    data = encoded(gradient(640, 480), "JPEG")
    for at_least, width in [(None, 640), (480, 640), (240, 320), (121, 320), (120, 160), (64, 160), (60, 80), (1, 80)]:
        assert load_image(data, at_least=at_least).width == width
    assert load_image(encoded(gradient(640, 480), "PNG"), at_least=1).width == 640
    small = load_image(data, at_least=60)
    exact = gradient(640, 480).resize((80, 60), Image.Resampling.BOX)
    assert abs(array(small) - array(exact)).mean() < 2


def bomb() -> bytes:
    """A PNG of few bytes that claims 30,000 × 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name, data, words", [
    ("empty.jpg", b"", "empty"),
    ("notes.png", b"these are words, not a picture", "not a picture"),
    ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ("cut.jpg", encoded(gradient(200, 200), "JPEG")[:900], "cut off"),
    ("cut.png", encoded(gradient(200, 200), "PNG")[:300], "cut off"),
    ("bomb.png", bomb(), "too large"),
    ("head.png", b"\x89PNG\r\n\x1a\n", "not a picture"),
])  # fmt: skip
def test_a_file_that_is_no_picture_is_named(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageError, match=words) as caught:
        load_image(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ImageError, match=f"{len(data):,} bytes"):
        load_image(data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    link = tmp_path / "link.jpg"
    link.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.jpg"))
        for path, kind in ((pipe, "named pipe"), (link, "device"), (tmp_path / "socket.jpg", "cannot be read")):
            with pytest.raises(ImageError, match=kind) as caught:
                load_image(path)
            assert path.name in str(caught.value)


def test_a_large_file_is_refused_by_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="40×30 pixels, more than"):
        load_image(encoded(gradient(), "PNG"))
    load_image(gradient())  # in memory already: no bomb


def test_what_is_no_picture_at_all(tmp_path):
    closed = Image.open(io.BytesIO(encoded(gradient(), "PNG")))
    closed.close()
    for source, words in [
        (tmp_path / "nothing.png", "does not exist"),
        (tmp_path, "is a folder"),
        ("https://example.org/cat.jpg", "is an address"),
        ("a\0b.png", "not a path"),
        (None, "not NoneType"),
        (3.5, "not float"),
        (torch.zeros(3, 4, 4), "to_images"),
        (closed, "open it again"),
        (np.zeros((3, 20, 30), np.uint8), "transpose"),
        (np.zeros((2, 3, 4, 5), np.uint8), r"\[height, width\]"),
        (np.zeros((5, 5, 7), np.uint8), r"\[height, width\]"),
        (np.zeros(7, np.uint8), r"\[height, width\]"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.full((4, 4), 200.0), "divide by 255"),
        (np.full((4, 4), np.nan), "0…1"),
        (np.full((4, 4), -3), "0…255"),
        (np.full((4, 4), 70_000), "0…255"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.array([["a", "b"]]), "made of uint8"),
    ]:  # fmt: skip
        with pytest.raises(ImageError, match=words):
            load_image(source)


def test_list_images(tmp_path):
    for name in [
        "b.JPG",
        "a.png",
        "notes.txt",
        ".hidden.png",
        "deep/er/c.webp",
        "deep/d.gif",
        ".thumbnails/x.png",
        "ä.jpeg",
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.png", "b.JPG", "deep/d.gif", "deep/er/c.webp", "ä.jpeg"]
    assert list_images(str(tmp_path)) == list_images(tmp_path)
    (tmp_path / "nothing").mkdir()
    for folder, words in [("nothing", "no picture"), ("gone", "does not exist"), ("a.png", "is a file")]:
        with pytest.raises(ImageError, match=words) as caught:
            list_images(tmp_path / folder)
        assert str(tmp_path / folder) in str(caught.value)


# ------------------------------------------------------------------------------------------- pixels


def test_pixels_and_back():
    pictures = [gradient(), gradient().transpose(Image.Transpose.ROTATE_180)]
    pixels = to_pixels(pictures)
    assert pixels.shape == (2, 3, 30, 40) and pixels.dtype == torch.float32
    assert pixels.min() >= 0 and pixels.max() <= 1
    assert pixels[0, 0, 3, 5] == pictures[0].getpixel((5, 3))[0] / 255
    back = to_images(pixels)
    assert all((array(one) == array(other)).all() for one, other in zip(pictures, back, strict=True))
    values = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (to_pixels(to_images(values)) - values).abs().max() <= 1 / 510 + 1e-6


def test_to_pixels_sizes():
    assert to_pixels(gradient(), size=16).shape == (1, 3, 16, 16)
    assert to_pixels([gradient(), gradient(9, 50)], size=(20, 10)).shape == (2, 3, 20, 10)
    assert to_pixels([]).shape == (0, 3, 0, 0) and to_pixels([], size=8).shape == (0, 3, 8, 8)
    assert to_pixels(np.zeros((5, 6, 7, 3), np.uint8)).shape == (5, 3, 6, 7), "an array of pictures is many"
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert to_pixels(wide, size=10).min() == 1, "the middle is cut out, not squeezed"
    with pytest.raises(ImageError, match="differ in size"):
        to_pixels([gradient(), gradient(9, 9)])


def test_to_images_takes_any_float_and_cuts_off():
    pixels = torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1).requires_grad_()
    (picture,) = to_images(pixels)
    assert picture.getpixel((0, 0)) == (0, 128, 255)
    assert to_images(torch.zeros(3, 4, 5, dtype=torch.bfloat16))[0].size == (5, 4)
    assert to_images(torch.zeros(0, 3, 4, 4)) == []
    for wrong in [torch.zeros(2, 4, 4, 4), torch.zeros(4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "cat"]:
        with pytest.raises(ImageError, match=r"\[n, 3, height, width\]"):
            to_images(wrong)


# --------------------------------------------------------------------------------- pictures of pictures


def test_grid_places_each_picture():
    colours = ["red", "lime", "blue", "white", "yellow"]
    sheet = image_grid(
        [Image.new("RGB", (20, 10), colour) for colour in colours], columns=3, padding=4, background="black"
    )
    assert sheet.mode == "RGB" and sheet.size == (3 * 24 + 4, 2 * 14 + 4)
    for i, colour in enumerate(colours):
        middle = 4 + i % 3 * 24 + 10, 4 + i // 3 * 14 + 5
        assert sheet.getpixel(middle) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    assert sheet.getpixel((2, 2)) == (0, 0, 0) and sheet.getpixel((70, 25)) == (0, 0, 0)
    assert image_grid([gradient()] * 7, padding=0).size == (3 * 40, 3 * 30), "about square without columns"
    assert image_grid(gradient(), columns=5, padding=0).size == (40, 30)


def test_grid_writes_captions_that_fit():
    plain = image_grid([gradient(90, 60)] * 2, columns=2)
    captions = ["a cat left of a red apple on a blue background", "an unbreakable" + "x" * 80]
    captioned = image_grid([gradient(90, 60)] * 2, columns=2, captions=captions)
    assert captioned.width == plain.width and captioned.height > plain.height + 30
    below = array(captioned)[75:, :]
    assert (below.min(axis=2) < 100).sum() > 100, "something is written there"
    assert (below[:, :6] > 250).all() and (below[:, -6:] > 250).all(), "and not over the edge"
    dark = array(image_grid([gradient(90, 60)], captions=["cat"], background=(0, 0, 0)))[75:]
    assert dark.max() > 200, "light ink on a dark background"
    image_grid([gradient()], captions=[""])


def test_grid_errors():
    for arguments, words in [
        (([],), "at least one picture"),
        (([gradient()], 0), "columns must be a whole number of at least 1"),
        (([gradient()], None, ["a", "b"]), "2 captions for 1"),
        ((["gone.png"],), "does not exist"),
    ]:
        with pytest.raises(ImageError, match=words):
            image_grid(*arguments)


def test_thumbnails(tmp_path):
    gradient(640, 480).save(tmp_path / "wide.jpg")
    gradient(30, 600).save(tmp_path / "tall.png")
    gradient(10, 10).save(tmp_path / "tiny.png")
    assert thumbnail(tmp_path / "wide.jpg", 96).size == (96, 72)
    assert thumbnail(tmp_path / "tall.png", 100).size == (5, 100)
    assert thumbnail(tmp_path / "tiny.png").size == (10, 10), "never enlarged"
    original = gradient(200, 200)
    thumbnail(original, 20)
    assert original.size == (200, 200), "the picture given is not changed"


def test_save_gif(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (12, 8), (20 * i, 0, 0)) for i in range(6)]
    path = save_gif(frames, tmp_path / "new folder" / "a.gif", fps=20)
    with Image.open(path) as animation:
        assert (animation.n_frames, animation.size, animation.info["loop"], animation.info["duration"]) == (
            6,
            (12, 8),
            0,
            50,
        )
        animation.seek(5)
        assert abs(array(animation.convert("RGB")) - [100, 0, 0]).max() <= 4
    assert [file.name for file in path.parent.iterdir()] == ["a.gif"], "nothing is left beside it"
    for arguments, words in [
        (([],), "at least one"),
        ((frames + [gradient()],), "same size"),
        ((frames, 0), "fps"),
        ((frames, 90), "fps"),
    ]:
        with pytest.raises(ImageError, match=words):
            save_gif(arguments[0], tmp_path / "b.gif", *arguments[1:])
    assert not (tmp_path / "b.gif").exists()
    (tmp_path / "c.gif").mkdir()
    monkeypatch.chdir(tmp_path / "new folder")  # where the film goes that its own place does not take
    with pytest.raises((AssetError, OSError)):
        save_gif(frames, tmp_path / "c.gif")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.gif", "new folder"]


def test_pictures_are_walked_through_without_following_circles(tmp_path):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("a.png", "deep/b.JPG", "deep/deeper/c.heic", ".hidden/d.png", "deep/.e.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deep" / "circle").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found = {path.relative_to(tmp_path).as_posix() for path in walk_images(tmp_path)}
    assert found == {"a.png", "deep/b.JPG", "deep/deeper/c.heic", "link.png"}
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.heic", "link.png"]
    assert list(walk_images(tmp_path / "nowhere")) == []


def test_a_telephones_picture_is_read_where_its_plug_in_is(tmp_path, monkeypatch):
    import pillow_heif

    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(tmp_path / "photo.heic")
    picture = load_image(tmp_path / "photo.heic")
    assert picture.size == (64, 48) and picture.getpixel((30, 20))[0] > 200 > 50 > picture.getpixel((30, 20))[2]
    monkeypatch.setattr(pixels, "_reads_heic", lambda: False)
    with pytest.raises(ImageError, match="pillow-heif|HEIC"):
        load_image(tmp_path / "photo.heic")
