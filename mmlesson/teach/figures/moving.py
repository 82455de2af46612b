"""A film that moves by itself, as a GIF of bounded size with a still picture beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mmlesson.pixels import ImageError, load_image


@dataclass(frozen=True)
class Animation:
    """A film that moves by itself: `gif` bytes, and `alt`, what it shows in words.

    It is shown `width` × `height` pixels large. Viewers that show no HTML, and readers who asked their system for
    less motion, get `png`, the last picture.
    """

    gif: bytes = field(repr=False)
    png: bytes = field(repr=False)
    alt: str
    width: int
    height: int

    def _repr_mimebundle_(self, include=None, exclude=None):
        moving, still = (base64.b64encode(each).decode() for each in (self.gif, self.png))
        size = f'width="{self.width}" height="{self.height}"'
        page = (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="data:image/png;base64,{still}">'
            f'<img src="data:image/gif;base64,{moving}" alt="{html.escape(self.alt)}" {size}></picture>'
        )
        shown = {"alt": self.alt, "width": self.width, "height": self.height}
        return {"text/html": page, "image/png": self.png, "text/plain": self.alt}, {"image/png": shown}


def animation(
    images: Sequence[Image.Image], alt: str, fps: float = 12, scale: float = 3, most: int = 300_000
) -> Animation:
    """An `Animation` of pictures of one size. It repeats, and holds the last picture for two seconds.

    alt: what happens in it, in words.
    fps: pictures a second, 0.1 to 50.
    scale: how many times larger than they are the pictures are shown.
    most: bytes that the film may take. To fit, it first uses fewer colours and keeps pixels that hardly change. Where
        that is not enough, it leaves pictures out, evenly. A film of one picture may be larger than `most`.

    Raises ImageError for no picture, for different sizes and for an `fps` outside 0.1…50, and ValueError where `alt`
    is empty.
    """
    if not alt.strip():
        raise ValueError("an animation needs a text alternative: say in `alt` what happens in it.")
    frames = [load_image(image) for image in images]
    if not frames:
        raise ImageError("an animation needs at least one picture.")
    if len({frame.size for frame in frames}) > 1:
        raise ImageError("the pictures of an animation must all have the same size.")
    if not 0.1 <= fps <= 50:
        raise ImageError(f"fps is pictures a second, from 0.1 to 50, not {fps}.")
    every = 1
    while True:
        kept = frames[::-1][::every][::-1]  # the last is always among them
        for colours, tolerance in ((128, 6), (96, 10), (64, 14), (48, 20)):
            gif = _gif(kept, every / fps, colours, tolerance)
            if len(gif) <= most:
                break
        if len(gif) <= most or len(kept) == 1:
            break
        every += 1
    buffer = io.BytesIO()
    frames[-1].quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return Animation(gif, buffer.getvalue(), alt, round(frames[0].width * scale), round(frames[0].height * scale))


def _gif(frames: list[Image.Image], seconds: float, colours: int, tolerance: int) -> bytes:
    """A GIF with one palette for all frames; a pixel stays until it changes by more than `tolerance`, 0…255."""
    shown, settled = np.asarray(frames[0]).astype(np.int16), []
    for frame in frames:
        pixels = np.asarray(frame).astype(np.int16)
        changed = np.abs(pixels - shown).max(-1, keepdims=True) > tolerance
        shown = np.where(changed, pixels, shown)
        settled.append(shown.astype(np.uint8))
    palette = Image.fromarray(np.concatenate(settled)).quantize(colours, Image.Quantize.MEDIANCUT)
    indexed = [Image.fromarray(each).quantize(palette=palette, dither=Image.Dither.NONE) for each in settled]
    each = round(100 * seconds) * 10  # milliseconds; a GIF counts in hundredths of a second
    durations = [each] * (len(frames) - 1) + [2000]
    buffer = io.BytesIO()
    indexed[0].save(buffer, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False)
    return buffer.getvalue()
