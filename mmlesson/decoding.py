"""What decoding a picture may cost, whatever file it comes from. `pixels.load_image` is the gate that uses this.

A file of a few kilobytes can claim any number of pixels. Its header is looked at first, and what is too large is
refused before anything is decoded (`check_before`, `check_opened`). Threads that read pictures share an amount of
memory (`bounded`, `take_room`). Pictures whose colours have to be converted are converted in strips (`in_strips`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from PIL import Image

T = TypeVar("T")

MAX_PIXELS = 89_478_485  # Pillow's limit: 256 MB of RGB; a file that claims more is likely a decompression bomb
# of formats whose decoders keep more, measured at the peak: OpenJPEG 20 bytes of each pixel, libwebp 28, AVIF 9
MAX_PIXELS_OF = {"JPEG2000": 20_000_000, "WEBP": 16_000_000, "AVIF": 32_000_000, "HEIF": 42_000_000}
# pixels of a picture that is to be made small: `ImageIndex.build` with the pocket CLIP then stays below 1.5 GB. A JPEG
# counts at the size that it is decoded at.
MAX_DECODED = 42_000_000
READ_WHOLE = 100_000_000  # bytes of a WebP, AVIF or HEIC file: their decoders hold the file in memory, some of it twice
ROOM = 32_000_000  # pixels that threads decode at one time; a larger picture is decoded alone
M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE = 8_000_000  # pixels, after which freed memory is given back
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of TIFF
STRIP = 2**21  # pixels that are converted at one time


class TooLargeError(ValueError):
    """A picture takes too much memory; the message goes on after its name: "has 30000×30000 pixels, more than …"."""


def check_before(file: BinaryIO, size: int) -> None:
    """Raise TooLargeError for a file that must not even be opened; `file` is then back at its beginning.

    Pillow's WebP decoder reserves the memory of the whole picture when it opens the file, and an ICO file contains
    pictures of other sizes than it says.
    """
    head = file.read(32)
    most = MAX_PIXELS_OF["WEBP"]
    if (head[8:12] == b"WEBP" or head[4:8] == b"ftyp") and size > READ_WHOLE:
        raise TooLargeError(f"has {size / 1e6:,.0f} MB, more than {READ_WHOLE // 10**6}")
    if head[8:16] == b"WEBPVP8X" and len(head) >= 30:
        _check(1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little"), most)
    elif head[8:16] == b"WEBPVP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        _check(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), most)
    elif head[8:16] == b"WEBPVP8 " and len(head) >= 30:
        width, height = struct.unpack("<HH", head[26:30])
        _check(width & 0x3FFF, height & 0x3FFF, most)
    elif head[:4] == b"\0\0\1\0":
        for number in range(int.from_bytes(head[4:6], "little")):
            file.seek(6 + 16 * number)
            entry = file.read(16)
            if len(entry) < 16:
                break
            file.seek(int.from_bytes(entry[12:16], "little"))
            inner = file.read(24)
            if inner.startswith(b"\x89PNG") and len(inner) == 24:
                _check(*struct.unpack(">II", inner[16:24]))
            elif len(inner) == 24:
                width, height = struct.unpack("<ii", inner[4:12])
                _check(abs(width), abs(height) // 2)  # the lower half is a mask
    file.seek(0)


def check_opened(image: Image.Image) -> None:
    """Raise TooLargeError for a picture that is open, and not decoded yet, where decoding it would take too much."""
    _check(*image.size, MAX_PIXELS_OF.get(image.format, MAX_PIXELS))
    if image.format == "TIFF":  # its decoder takes a whole tile at one time, which may be larger than the picture
        _check(image.tag_v2.get(TILE_WIDTH, 0), image.tag_v2.get(TILE_LENGTH, 0))


def check_decoded(image: Image.Image) -> None:
    """Raise TooLargeError for a picture that is to be made small, and that is large when it is decoded."""
    _check(*image.size, MAX_DECODED)


def _check(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise TooLargeError(f"has {width}×{height} pixels, more than {most // 10**6} million")


# ---------------------------------------------------------------------------------------------- room for threads

_free = threading.Condition()
_taken = 0  # pixels, of all threads
_mine = threading.local()  # .pixels: what this thread has taken; None outside of `bounded`


def bounded(function: Callable[..., T]) -> Callable[..., T]:
    """A function that reads a picture and returns something small, such that few large ones are read at one time.

    What it decodes counts until it returns. Threads wait for each other where that is more than ROOM pixels together.
    """

    @functools.wraps(function)
    def inside(*arguments, **options) -> T:
        if getattr(_mine, "pixels", None) is not None:
            return function(*arguments, **options)
        _mine.pixels = 0
        try:
            return function(*arguments, **options)
        finally:
            _give_back()

    return inside


def take_room(pixels: int, form: str | None = None) -> None:
    """Wait until there is room to decode so many pixels; outside of `bounded` there always is.

    form: the format of the file; those whose decoders take more memory count for more.
    """
    global _taken
    if getattr(_mine, "pixels", None) != 0:
        return  # it is not bounded, or it has its room: one that waits for more would keep others waiting
    if form in MAX_PIXELS_OF:
        pixels = pixels * MAX_DECODED // MAX_PIXELS_OF[form]
    if pixels > LARGE:
        _map_large_blocks()
    with _free:
        _free.wait_for(lambda: not _taken or _taken + pixels <= ROOM)
        _taken += pixels
        _mine.pixels = pixels


def _give_back() -> None:
    global _taken
    if _mine.pixels > LARGE:
        _trim()
    with _free:
        _taken -= _mine.pixels
        _mine.pixels = None
        _free.notify_all()


@functools.cache
def _map_large_blocks() -> None:
    """Have glibc map each block of 15 MB or more, so that it is given back when it is freed. Pillow's have 16 MB.

    Otherwise glibc keeps them for the thread that freed them: a large picture's, as often as there are threads.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 15 * 2**20)


def _trim() -> None:
    """Give the smaller blocks that were freed back to the system."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


# ------------------------------------------------------------------------------------------------------ strips


def strips(image: Image.Image) -> Iterator[Image.Image]:
    """A picture from the top down, in parts of its whole width and at most STRIP pixels (one row at least)."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(image.height, top + rows)))


def in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """A picture in mode RGB, converted strip by strip: in memory there are the old one, the new one and one strip."""
    converted = Image.new("RGB", image.size)
    top = 0
    for strip in strips(image):
        converted.paste(convert(strip), (0, top))
        top += strip.height
    return converted


# ------------------------------------------------------------------------------------------------------- silence

_quiet = threading.Lock()
_readers = 0
_silence = contextlib.ExitStack()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, Pillow does not warn: `load_image` says itself what is wrong with a file, or passes over it.

    Filters of warnings belong to the whole process. The first thread in sets this one, the last one out removes it.
    """
    global _readers
    with _quiet:
        if not _readers:
            _silence.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\b")
            warnings.filterwarnings("ignore", module=r"pillow_heif\b")
        _readers += 1
    try:
        yield
    finally:
        with _quiet:
            _readers -= 1
            if not _readers:
                _silence.close()


def middle(picture: Image.Image, most: int = 4) -> Image.Image:
    """The middle of a picture whose longer side is more than `most` times the shorter; any other comes back as it is.

    Preprocessing enlarges the shorter side to the model's and then keeps the middle square. Without this cut, a picture
    of 1 × 60,000 pixels would become one of 64 × 3,840,000 on the way. The margin keeps the result the same.
    """
    width, height = picture.size
    side = most * min(width, height)
    if max(width, height) <= side:
        return picture
    left = max(0, (width - side) // 2)
    top = max(0, (height - side) // 2)
    return picture.crop((left, top, min(width, left + side), min(height, top + side)))
