"""Pictures in and out: whatever a learner has → RGB PIL pictures ⇄ pixels, grids of pictures, GIFs.

Two forms are used everywhere: `images`, a list of PIL pictures in mode RGB, at the edge; and `pixels`,
a float32 tensor `[n, 3, height, width]` in 0…1, inside. torch is imported only where pixels are.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from mmlesson import decoding, gates
from mmlesson.gates import KeptElsewhereError, open_file, reason, write_result
from mmlesson.runtime import warn
from mmlesson.words import shown

if TYPE_CHECKING:
    import torch

# What may be opened. Pillow knows more, some of which start another program to decode (EPS, WMF).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "TGA")
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .webp .avif .bmp .tif .tiff .mpo .ppm .pgm .pbm .ico .jp2 .tga .heic .heif".split()
)
HEIC = (".heic", ".heif")  # what telephones write; Pillow reads them where the package pillow-heif is installed
ORIENTATION = 0x0112  # the EXIF tag


class ImageError(ValueError):
    """Something is not a picture, or not one that can be used; the message names it and says what to do."""


# ------------------------------------------------------------------------------------------ reading


def load_image(source, at_least: int | None = None) -> Image.Image:
    """One picture, from whatever holds one, as a PIL picture in mode RGB, the right way up.

    `source` is a path, the bytes of a picture file (or an open binary file), a PIL picture, or a numpy array
    `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]` (uint8, uint16, bool, or floats in 0…1).
    The EXIF orientation is applied, what is transparent shows white, 16 bits become 8, and of an animation
    it is the first frame. A PIL picture that needs none of this is returned itself, not copied.

    `at_least` allows a JPEG file to be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep
    that many pixels. The decoder then skips most of its work (libjpeg's scaled inverse DCT); the picture is
    close to, not exactly, the full one made smaller. Other kinds of source ignore it.

    Raises ImageError where there is no picture, or a file of more than 89 million pixels: 16 million where it is WebP,
    20 JPEG 2000, 32 AVIF, 42 HEIC, and 42 where `at_least` is given and it is no JPEG that is reduced.
    """
    if isinstance(source, Image.Image):
        decoding.take_room(source.width * source.height)
        return _to_rgb(source, f"the picture given (PIL, mode {source.mode})")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), len(source), f"the {len(source):,} bytes given", at_least)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source, at_least)
    if hasattr(source, "read"):
        return load_image(source.read(), at_least)
    if type(source).__module__ == "torch":
        raise ImageError("a tensor is pixels, not a picture: turn it into pictures with to_images(pixels).")
    raise ImageError(f"a picture is a path, a PIL picture, a numpy array or bytes, not {type(source).__name__}.")


def _from_path(path: str | os.PathLike, at_least: int | None) -> Image.Image:
    name = shown(path)
    if name.startswith(("http://", "https://")):
        raise ImageError(f"{name} is an address, not a file: save the picture first and give its path.")
    try:
        with open_file(path) as file:
            return _decode(file, os.fstat(file.fileno()).st_size, name, at_least)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist: check the path (the current folder is {_here()}).") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder, not a picture: name one of the pictures in it.") from None
    except PermissionError as error:
        if os.path.isdir(path):  # what Windows says when a folder is opened
            raise ImageError(f"{name} is a folder, not a picture: name one of the pictures in it.") from None
        raise ImageError(f"{name} may not be read ({error.strerror}): change its permissions or copy it.") from error
    except OSError as error:
        raise ImageError(f"{name} cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{name!r} is not a path ({error}).") from error  # such as a null character inside


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "gone"


def _decode(file, size: int, name: str, at_least: int | None) -> Image.Image:
    with decoding.quiet():
        return _to_rgb(_opened(file, size, name, at_least), name)  # no name here holds what was opened any longer


def _opened(file, size: int, name: str, at_least: int | None) -> Image.Image:
    """The picture in a file, decoded, in the mode that it has there."""
    if size == 0:
        raise ImageError(f"{name} is empty (0 bytes): the copy or download failed, get it again.")
    try:
        decoding.check_before(file, size)
        image = Image.open(file, formats=(*FORMATS, "HEIF") if _reads_heic() else FORMATS)
        decoding.check_opened(image)
        whole = image.width * image.height
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))  # only JPEG does anything; never below the size asked for
            decoding.check_decoded(image)
        progressive = image.info.get("progressive", 0) and whole // 2  # the decoder keeps its coefficients
        decoding.take_room(max(image.width * image.height, progressive), image.format)
        image.load()
    except decoding.TooLargeError as error:
        raise ImageError(f"{name} {error}: make it smaller first.") from None
    except ImageError:
        raise
    except UnidentifiedImageError:
        if name.lower().endswith(HEIC) and not _reads_heic():
            raise ImageError(
                f"{name} is HEIC, which needs one more package: `pip install pillow-heif`, or save it as JPEG."
            ) from None
        raise ImageError(
            f"{name} is not a picture that can be read: use JPEG, PNG, GIF, WebP, AVIF, BMP or TIFF."
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large ({error}): make it smaller first.") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, EOFError, …
        raise ImageError(f"{name} is damaged or cut off ({_on_one_line(error)}): copy or download it again.") from error
    return image


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@functools.cache
def _reads_heic() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name} has no pixels ({image.width}×{image.height}).")
    try:
        image.load()
    except Exception as error:
        raise ImageError(f"{name} is damaged, cut off or closed ({_on_one_line(error)}): open it again.") from error
    try:
        if image.getexif().get(ORIENTATION, 1) not in (0, 1):
            image = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data is no reason to refuse the pixels
        pass

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    try:
        if image.mode.startswith("I") or image.mode == "F":
            limits = _range_of(map(np.asarray, decoding.strips(image)), name)
            return decoding.in_strips(image, lambda part: Image.fromarray(_to_bytes(np.asarray(part), limits)))
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            return decoding.in_strips(image, _on_white)
        return image.convert("RGB")
    except ImageError:
        raise
    except (ValueError, OSError) as error:
        raise ImageError(
            f"{name} has colours of a kind that cannot be read ({_on_one_line(error)}): save it as PNG or JPEG."
        ) from error


def _on_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _from_array(array: np.ndarray, name: str = "the array given") -> Image.Image:
    """uint8 as it is; bool, 16-bit and wider integers, and floats are brought to 0…255 first."""
    shape = "×".join(map(str, array.shape))
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] not in (3, 4) and array.shape[0] in (1, 3, 4):
        raise ImageError(f"{name} is {shape}, colours first: put them last with array.transpose(1, 2, 0).")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"{name} is {shape}, but a picture is [height, width] or [height, width, 3 or 4].")
    if array.size == 0:
        raise ImageError(f"{name} has no pixels ({shape}).")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        array = _to_bytes(array, _range_of([array], name))
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8)), name)


def _range_of(parts: Iterable[np.ndarray], name: str) -> tuple[float, float]:
    """The least and the greatest number in arrays of one dtype, if they can be a picture's; else raises ImageError."""
    limits, kind = [], ""
    for part in parts:
        kind = part.dtype.kind
        if kind not in "fiu":
            raise ImageError(
                f"{name} holds {part.dtype}, but a picture is made of uint8, uint16, bool or floats in 0…1."
            )
        limits.append((part.min(), part.max()))
    low, high = np.min(limits), np.max(limits)  # NaN where one of them is
    if kind == "f" and not (-1e-3 <= low and high <= 1 + 1e-3):
        raise ImageError(
            f"{name} holds floats from {low:g} to {high:g}, but they must lie in 0…1: divide by 255, perhaps."
        )
    if kind != "f" and (low < 0 or high > 65535):
        raise ImageError(
            f"{name} holds numbers from {low} to {high}, but they must lie in 0…255 (or 0…65535, 16 bits)."
        )
    return low, high


def _to_bytes(array: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Floats in 0…1, or integers of 8 or 16 bits, brought to uint8; `limits` are those of the whole picture."""
    if array.dtype.kind == "f":
        array = np.rint(array.clip(0, 1) * 255.0)
    elif limits[1] > 255 or (array.dtype.kind == "u" and array.dtype.itemsize == 2):
        array = np.rint(array / 257.0)  # 65535 / 255
    return array.astype(np.uint8)


def list_images(folder: str | os.PathLike) -> list[Path]:
    """The picture files in a folder and all folders below it, by their suffix, sorted by path.

    Hidden files and folders are left out. Raises ImageError where there is no such folder or no picture in it.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        what = "is a file" if os.path.exists(folder) else "does not exist"
        raise ImageError(f"{folder} {what}: give the folder that holds the pictures.")
    unreadable: list[OSError] = []
    found = list(walk_images(folder, unreadable.append))
    if unreadable:
        first, more = unreadable[0], len(unreadable) - 1
        others = f" and {more} other folders" if more > 1 else " and another folder" if more else ""
        sentence = (
            f"{first.filename}{others} cannot be read ({reason(first)}): change the permissions, or leave it out."
        )
        if not found:
            raise ImageError(sentence)
        warn(sentence)
    if not found:
        raise ImageError(
            f"There is no picture in {folder} ({', '.join(sorted(SUFFIXES))}): put some there, or give another folder."
        )
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def walk_images(folder: str | os.PathLike, unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """As `list_images`, one at a time, in no order, and without an error where there is none.

    Links to folders are not followed, so that a circle of them ends; links to files are. `unreadable` is called with
    the error of each folder that cannot be read; its `filename` is that folder.
    """
    for here, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(here, name)


# ------------------------------------------------------------------------------------------- pixels


def to_pixels(images, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """Pictures → float32 `[n, 3, height, width]` in 0…1, on the CPU.

    `images` is one picture or many, of any kind that `load_image` takes. `size` is a side or (height, width):
    each picture is then made smaller or larger (bicubic) and its middle cut out to fill that shape.
    None keeps their own size, which must be the same for all. Raises ImageError.
    """
    import torch

    pictures = [load_image(image) for image in as_list(images)]
    if size is None and len({picture.size for picture in pictures}) > 1:
        sizes = sorted({f"{picture.width}×{picture.height}" for picture in pictures})
        raise ImageError(
            f"the pictures differ in size ({', '.join(sizes[:4])}, …): name one, such as to_pixels(images, size=64)."
        )
    if size is not None:
        sides = size if isinstance(size, (tuple, list)) else (size, size)
        height, width = (_whole("size", side, 1) for side in sides)
        pictures = [
            picture
            if picture.size == (width, height)
            else ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
            for picture in pictures
        ]
    if not pictures:
        height, width = (0, 0) if size is None else (height, width)
        return torch.zeros(0, 3, height, width)
    array = np.stack([np.asarray(picture) for picture in pictures])  # [n, h, w, 3] uint8
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().float() / 255  # [n, 3, h, w]


def to_images(pixels: torch.Tensor) -> list[Image.Image]:
    """Pixels, float `[n, 3, height, width]` or `[3, height, width]` in 0…1, → a list of PIL pictures in mode RGB.

    What lies outside 0…1 is cut off. `to_pixels(to_images(pixels))` is within 1/510 of `pixels`, and the other
    way round the pictures come back exactly. Raises ImageError for another shape or for integers.
    """
    shape = list(getattr(pixels, "shape", []))
    if len(shape) == 3:
        pixels, shape = pixels[None], [1, *shape]
    if len(shape) != 4 or shape[1] != 3 or not pixels.is_floating_point():
        raise ImageError(
            f"pixels are floats in 0…1 of shape [n, 3, height, width], not {shape or type(pixels).__name__}."
        )
    array = (pixels.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # [n, h, w, 3]
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in array]


def _whole(name: str, value: object, least: int) -> int:
    """A number of pixels or pictures. Raises ImageError, as everything here does."""
    try:
        return gates.whole_number(name, value, least)
    except ValueError as error:
        raise ImageError(str(error)) from None


def as_list(images) -> list:
    """One picture (path, PIL, array, bytes) or any iterable of them (also an array `[n, h, w, 3]`) → a list."""
    return [images] if is_one(images) else list(images)


def is_one(images) -> bool:
    """True for one picture (or something that was meant as one), False for an iterable of pictures."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or hasattr(images, "read"):
        return True
    # a tensor is taken as one, so that load_image can say what to do with it
    return type(images).__module__ == "torch" or not hasattr(images, "__iter__")


# --------------------------------------------------------------------------------- pictures of pictures


def thumbnail(image, size: int = 96) -> Image.Image:
    """A copy of a picture, its longer side at most `size` pixels, its proportions kept. Raises ImageError."""
    size = _whole("size", size, 1)
    picture = load_image(image, at_least=2 * size)
    if picture is image:
        picture = picture.copy()  # the next line changes it
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def image_grid(
    images,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    padding: int = 8,
    background: str | tuple[int, int, int] = "white",
) -> Image.Image:
    """Pictures side by side, row by row, as one RGB picture; each stands in the middle of a cell of equal size.

    `columns` None makes the grid about square. `captions`, one a picture, stand below, broken into lines
    that fit. `padding` is the space around each cell in pixels. Raises ImageError for no picture, or where
    the captions are not as many as the pictures; AssetError for a sheet that does not fit the free memory.
    """
    pictures = [load_image(image) for image in as_list(images)]
    if not pictures:
        raise ImageError("a grid needs at least one picture.")
    if captions is not None and len(captions) != len(pictures):
        raise ImageError(f"{len(captions)} captions for {len(pictures)} pictures: give one each.")
    if columns is None:
        columns = int(np.ceil(np.sqrt(len(pictures))))
    columns = _whole("columns", columns, 1)
    padding = _whole("padding", padding, 0)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    colour = ImageColor.getrgb(background)[:3] if isinstance(background, str) else tuple(background)

    width, height = (max(picture.size[side] for picture in pictures) for side in (0, 1))
    font = ImageFont.load_default(size=max(11, min(16, width // 9)))
    line_height = sum(font.getmetrics())
    lines = [_wrap(str(caption), font, width) for caption in captions or []]
    tops = [padding]  # of each row, and of what would follow the last
    for row in range(rows):
        longest = max(map(len, lines[row * columns : (row + 1) * columns]), default=0)
        tops.append(tops[-1] + height + longest * line_height + (4 if longest else 0) + padding)

    across = columns * (width + padding) + padding
    what = f"a sheet of {len(pictures):,} pictures, {across:,} x {tops[-1]:,} pixels,"
    gates.check_memory(what, 3 * across * tops[-1], "choose fewer pictures, or smaller ones")
    sheet = Image.new("RGB", (across, tops[-1]), colour)
    draw = ImageDraw.Draw(sheet)
    ink = "black" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 127 else "white"
    for i, picture in enumerate(pictures):
        left, top = padding + i % columns * (width + padding), tops[i // columns]
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        for j, line in enumerate(lines[i] if lines else []):
            draw.text((left + width / 2, top + height + 4 + j * line_height), line, fill=ink, font=font, anchor="ma")
    return sheet


def _wrap(text: str, font, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken between words; a longer word is cut and ends in …"""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    for i, line in enumerate(lines):
        if font.getlength(line) > width:
            while line and font.getlength(line + "…") > width:
                line = line[:-1]
            lines[i] = line + "…"
    return lines


def save_gif(images, path: str | os.PathLike, fps: float = 10) -> Path:
    """Write pictures of one size as an animated GIF that repeats for ever; returns its path.

    `fps` is pictures a second, from 0.1 to 50 (GIF counts in 1/100 s, and viewers slow down what is faster).
    The file appears whole or not at all. Raises ImageError for no picture, different sizes or another
    `fps`, AssetError where the file cannot be written.
    """
    frames = [load_image(image) for image in as_list(images)]
    if not frames:
        raise ImageError("an animation needs at least one picture.")
    if len({frame.size for frame in frames}) > 1:
        raise ImageError("the pictures of an animation must all have the same size.")
    try:
        fps = gates.real_number("fps, pictures a second,", fps, least=0.1, most=50)
    except ValueError as error:
        raise ImageError(str(error)) from None
    duration = round(100 / fps) * 10  # milliseconds, in whole hundredths of a second
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return write_result(path, buffer.getvalue())


# What the formats can hold, in pixels a side
LARGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383, ".gif": 65_535, ".mp4": 16_384, ".png": 2**31 - 1}


def check_size(path: str | os.PathLike, width: int, height: int) -> None:
    """Raises ImageError where a file of that ending cannot hold a picture of that size. Call it before the work."""
    suffix = os.path.splitext(path)[1].lower()
    most = LARGEST_SIDE.get(suffix, 2**31 - 1)
    if max(width, height) > most:
        raise ImageError(
            f"{shown(path)} would have {width:,} x {height:,} pixels, and {suffix} holds {most:,} a side: "
            "choose another ending, such as .png, or a smaller picture."
        )


def save_image(image: Image.Image, path: str | os.PathLike) -> Path:
    """Write one picture, the result of some work; the ending says the format. Returns its path.

    The file appears whole or not at all. Where the format cannot hold it, or the place cannot take it, the work is not
    lost: it goes to a fallback file. Raises AssetError, which names that file.
    """
    path = Path(path)
    try:
        check_size(path, *image.size)
        content = _encoded(image, path.suffix)
    except (ValueError, OSError, KeyError) as error:
        kept = write_result(path.with_suffix(".png"), _encoded(image, ".png"))
        raise KeptElsewhereError(
            f"{shown(path)} could not be written ({error}). The picture is in {shown(kept)}."
        ) from error
    return write_result(path, content)


def _encoded(image: Image.Image, suffix: str) -> bytes:
    """A picture as the bytes of a file: encoded before anything is written, so that errors of the two differ."""
    buffer = io.BytesIO()
    image.save(buffer, Image.registered_extensions()[suffix.lower()])
    return buffer.getvalue()
