"""The letters of a deck: their widths, so that slides are filled and never overflow, and the fonts inside the page.

Text is set in Source Sans Pro, which reveal.js brings (SIL Open Font License), code in DejaVu Sans Mono, which
matplotlib brings; DejaVu Sans has the signs that the first lacks.
"""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path

from .reveal import reveal_folder

CODE_LETTER = 0.6021  # the width of a letter of DejaVu Sans Mono, in parts of its size
FAMILIES = {  # family, style, weight → file
    ("Text", "normal", 400): "source-sans-pro-regular.woff",
    ("Text", "italic", 400): "source-sans-pro-italic.woff",
    ("Text", "normal", 600): "source-sans-pro-semibold.woff",
    ("Signs", "normal", 400): "DejaVuSans.ttf",
    ("Code", "normal", 400): "DejaVuSansMono.ttf",
}


def lines_needed(text: str, size: float, width: float) -> int:
    """How many lines a text takes that is `size` pixels high, in a column of `width` pixels."""
    space = text_width(" ", size)
    lines, used = 1, 0.0
    for word in text.split():
        length = text_width(word, size)
        if used and used + space + length > width:
            lines, used = lines + 1, length
        else:
            used += (space if used else 0) + length
    return lines


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """The width of a text in pixels; a little more than its own, because some of it may be bold or code."""
    return 1.05 * sum(_letters().get(ord(letter), 0.6) for letter in text) * size


@lru_cache(maxsize=1)
def _letters() -> dict[int, float]:
    from fontTools.ttLib import TTFont

    with TTFont(_file("source-sans-pro-semibold.woff")) as font:
        widths, each = font["hmtx"], font["head"].unitsPerEm
        return {code: widths[name][0] / each for code, name in font.getBestCmap().items()}


def font_faces(text: str) -> str:
    """CSS that puts the fonts into the page, each with no more letters than `text` has."""
    rules = []
    for (family, style, weight), file in FAMILIES.items():
        data = base64.b64encode(_subset(_file(file), "".join(sorted(set(text))))).decode()
        rules.append(
            f"@font-face {{ font-family: '{family}'; font-style: {style}; font-weight: {weight}; "
            f"src: url(data:font/woff;base64,{data}) format('woff'); }}"
        )
    return "\n".join(rules)


@lru_cache(maxsize=32)
def _subset(path: Path, letters: str) -> bytes:
    from fontTools import subset

    options = subset.Options(flavor="woff", layout_features=["kern", "liga"], notdef_outline=True, hinting=False)
    options.drop_tables += ["FFTM", "webf"]  # notes of the programs that made the font
    font = subset.load_font(str(path), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=letters)
    subsetter.subset(font)
    buffer = io.BytesIO()
    subset.save_font(font, buffer, options)
    return buffer.getvalue()


def _file(name: str) -> Path:
    if name.startswith("DejaVu"):
        import matplotlib

        return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return reveal_folder() / "css" / "theme" / "fonts" / "source-sans-pro" / name
