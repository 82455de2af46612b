"""Pictures from the wild: the files that packages bring, and every format, mode and kind of damage that can be made.

`python tests/wild_pictures.py` gives each of them to `load_image`, and prints how many were read, how many were refused
with a sentence, and how many did anything else. The tests do the same with fewer.
"""

from __future__ import annotations

import importlib.util
import io
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mmlesson.pixels import ImageError, load_image

PACKAGES = ("skimage", "matplotlib", "sklearn", "PIL", "imageio", "torchvision", "timm", "open_clip", "scipy", "sphinx")
ENDINGS = (
    ".jpg .jpeg .png .gif .tif .tiff .bmp .webp .ico .icns .ppm .pgm .pbm .npy .svg .avif .jp2 .tga .xbm .xpm .im .pcx"
).split()
MODES = ("1 L P RGB RGBA CMYK YCbCr LAB HSV I F LA PA RGBX RGBa La I;16 I;16L I;16B").split()
PLACES = 200  # where a byte is changed
STEP = 10  # bytes from one truncation to the next


def of_packages() -> Iterator[tuple[str, bytes]]:
    """The picture files that installed packages bring: a name and the bytes of each."""
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        for root in [] if found is None else found.submodule_search_locations or ():
            for path in sorted(Path(root).rglob("*")):
                if path.suffix.lower() in ENDINGS and path.is_file():
                    yield f"{package}: {path.relative_to(root)}", path.read_bytes()


def gradient(mode: str, size: tuple[int, int]) -> Image.Image:
    """A picture in a mode that Pillow knows, whatever it takes to make one."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    colours = Image.fromarray(np.stack([x, y, 255 - (x + y) / 2], axis=-1).astype(np.uint8))
    if mode.startswith("I;16"):
        return Image.frombytes(mode, size, np.ascontiguousarray(x * 257, "<u2" if mode != "I;16B" else ">u2").tobytes())
    if mode in ("PA", "La"):
        return colours.convert("L" if mode == "PA" else "LA").convert(mode)
    if mode == "RGBa":
        return colours.convert("RGBA").convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", colours.split())
    return colours.convert(mode)


def made(sizes=((1, 1), (23, 17)), modes=MODES) -> Iterator[tuple[str, bytes]]:
    """Every format that Pillow writes × every mode × two sizes, × see-through, × animated, where these can be had."""
    Image.init()
    for form in sorted(Image.SAVE):
        for mode in modes:
            for size in sizes:
                options = {"": {}}
                if mode in ("P", "L", "RGB", "1"):
                    options["see-through"] = {"transparency": (0, 0, 255) if mode == "RGB" else 0}
                if form in Image.SAVE_ALL:
                    options["animated"] = {"save_all": True, "append_images": [gradient(mode, size).transpose(1)] * 2}
                if form == "JPEG":
                    options["progressive"] = {"progressive": True}
                if form == "PNG":
                    options["profile"] = {"icc_profile": bytes(range(256))}
                if form == "TIFF":
                    options |= {
                        name: {"compression": name} for name in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")
                    }
                for kind, extra in options.items():
                    buffer = io.BytesIO()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        try:
                            gradient(mode, size).save(buffer, form, **extra)
                        except Exception:  # this format does not hold such pictures
                            continue
                    if buffer.tell():
                        yield " ".join(filter(None, [form, mode, f"{size[0]}×{size[1]}", kind])), buffer.getvalue()


def truncated(data: bytes, step: int = STEP) -> Iterator[bytes]:
    """The beginnings of a file, `step` bytes longer each."""
    for end in range(0, len(data), step):
        yield data[:end]


def changed(data: bytes, places: int = PLACES) -> Iterator[bytes]:
    """A file with one byte changed, at random places."""
    draw = random.Random(len(data))
    for place in sorted(draw.choices(range(len(data)), k=places)):
        other = bytearray(data)
        other[place] ^= draw.randrange(1, 256)
        yield bytes(other)


def outcome(data: bytes, at_least: int | None = None) -> str:
    """ "read", "refused", or what else happened when a picture was opened."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        started = time.monotonic()
        try:
            picture = load_image(data, at_least)
        except ImageError as error:
            sentence = str(error)
            if "\n" in sentence or not sentence.endswith(".") or "/site-packages/" in sentence:
                return f"else: no sentence: {sentence!r}"
            found = "refused"
        except BaseException as error:
            return f"else: {type(error).__name__}: {error}"
        else:
            if not isinstance(picture, Image.Image) or picture.mode != "RGB" or 0 in picture.size:
                return f"else: {picture!r}"
            found = "read"
    if said:
        return f"else: a warning: {said[0].category.__name__}: {str(said[0].message)[:80]}"
    if time.monotonic() - started > 20:
        return "else: it took longer than 20 s"
    return found


def main() -> None:
    table: dict[str, Counter] = {}
    odd: Counter = Counter()

    def count(row: str, name: str, data: bytes) -> None:
        found = outcome(data)
        table.setdefault(row, Counter())[found.partition(":")[0]] += 1
        if found.startswith("else"):
            odd[found[:150]] += 1
            if odd[found[:150]] == 1:
                print(name, found, flush=True)

    small = []
    for name, data in of_packages():
        count(f"brought by {name.partition(':')[0]}", name, data)
        if len(data) <= 4000:
            small.append((name, data))
    for name, data in made():
        count("made, whole", name, data)
        small.append((name, data))
    for name, data in small:
        for part in truncated(data):
            count("truncated at every tenth byte", name, part)
        for other in changed(data):
            count("one byte changed at 200 places", name, other)
    print(f"\n{'':32}{'read':>9}{'refused':>9}{'else':>9}")
    for row, counts in table.items():
        print(f"{row:32}" + "".join(f"{counts[key]:9,}" for key in ("read", "refused", "else")))
    print(f"{len(small):,} files were damaged")
    sys.exit(1 if odd else 0)


if __name__ == "__main__":
    main()
