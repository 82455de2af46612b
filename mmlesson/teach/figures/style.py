"""What all figures share: colours, fonts, the finished picture with its text alternative, and small layouts.

Nothing is said by colour alone: values stand in their cells, and the best one is outlined.
"""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

INK = "#1c2330"  # text and axes
QUIET = "#8a93a3"  # lines that may be overlooked, never text
FRAME = "#d5d9e0"  # around pictures
EMPTY = "#f3f5f8"  # beside a picture, in a box of another shape
MARK = "#c23b50"  # what to look at
BLUE = "#3c6e9f"
ORANGE = "#e08e2b"
GREEN = "#4f9d69"
SERIES = (BLUE, ORANGE, GREEN, MARK)  # with HATCHES, so that bars differ without colour
HATCHES = ("", "//", "..", "xx")
PALE = {ORANGE: "#fbe6cc", BLUE: "#d9e5f1", GREEN: "#dcebdc"}  # behind words
CLEAR = dict(facecolor="white", edgecolor="none", pad=0.8)  # a box that keeps lines away from words
DPI = 100
LARGE = 80_000  # bytes of a PNG: pictures of many colours are smaller as WebP
STYLE = {
    "font.size": 11,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a learner's "$" is a dollar
}


@dataclass(frozen=True)
class Picture:
    """A finished figure: `png` bytes and `alt`, the text that says the same to those who cannot see it.

    webp: what a notebook shows instead where the PNG is large, as with photographs; None where it is not.
    """

    png: bytes = field(repr=False)
    alt: str
    webp: bytes | None = field(default=None, repr=False)

    def _repr_mimebundle_(self, include=None, exclude=None):
        # As HTML, and not as image/png: Jupyter and nbconvert show an image/png without its text alternative.
        kind, content = ("webp", self.webp) if self.webp else ("png", self.png)
        address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        shown = f'<img src="{address}" alt="{html.escape(self.alt)}" style="max-width: 100%; height: auto;">'
        return {"text/html": shown, "text/plain": self.alt}

    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.png)).convert("RGB")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of width × height inches, which no window shows."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def finished(figure: Figure, alt: str) -> Picture:
    """PNG of 255 colours: a third of the size; a small spot of a rare colour may come out in another.

    Where it is large all the same, as WebP too.
    """
    buffer = io.BytesIO()
    figure.canvas.draw()  # the first drawing measures the words; only the second gives all of them their room
    figure.savefig(buffer, format="png", dpi=DPI)
    image = Image.open(buffer).convert("RGB")
    few_colours = image.quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    png = _encoded(few_colours, "PNG", optimize=True)
    return Picture(png, alt, _encoded(image, "WEBP", quality=85, method=6) if len(png) > LARGE else None)


def _encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def frame(axes) -> None:
    """Axes that hold a picture: no ticks, a thin line around it."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FRAME)


def show(axes, image) -> None:
    """A picture that fills its axes, with a thin line around it."""
    axes.imshow(image, interpolation="antialiased")
    frame(axes)


def box_of(images: Sequence[Image.Image]) -> tuple[float, float]:
    """Width and height of the smallest box that holds each of some pictures, whose longer sides are all 1."""
    shapes = [(image.width / max(image.size), image.height / max(image.size)) for image in images] or [(1.0, 1.0)]
    return max(width for width, _ in shapes), max(height for _, height in shapes)


def show_in_box(axes, image: Image.Image, box: tuple[float, float]) -> None:
    """A picture in the middle of a box, see `box_of`: pictures of several shapes, and their words, then line up."""
    show(axes, image)
    width, height = (side * max(image.size) for side in box)
    left, top = (image.width - width) / 2 - 0.5, (image.height - height) / 2 - 0.5  # -0.5: the edge of the first pixel
    axes.set(xlim=(left, left + width), ylim=(top + height, top), facecolor=EMPTY)


def contrast(one, other) -> float:
    """How well two colours differ in lightness, 1 to 21, as WCAG 2.2 defines it; text needs 4.5.

    Colours are what matplotlib understands as colours: names, "#1c2330", (r, g, b) in 0…1.
    """
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour) -> float:
    channels = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


def readable_on(colour) -> str:
    """A colour for text on `colour`: INK where that can be read, else white or black, whichever is clearer."""
    if contrast(INK, colour) >= 4.5:
        return INK
    return max(("white", "black"), key=lambda text: contrast(text, colour))


def wrap(text: str, width: int) -> str:
    """The text in lines of at most `width` letters, its own lines kept; a space where there is no text."""
    return "\n".join("\n".join(textwrap.wrap(line, width)) for line in text.split("\n")) or " "


def percent(value: float) -> str:
    """0.42 → "42%"; a share above 0 is never written as 0."""
    return f"{value:.0%}" if value >= 0.005 or value == 0 else "<1%"


def tallest(texts: Sequence[str], letters: int) -> int:
    """Lines of the longest of some texts, 0 where there is none."""
    return max((wrap(text, letters).count("\n") + 1 for text in texts), default=0)


def bars(axes, labels, values, form, most: float, width: int = 34) -> None:
    """Lying bars, the first on top, each with its value; the longest has another colour. `most` is the axis' end.

    form: a function from a value to what is written behind its bar, or the written texts themselves.
    """
    best = max(values)
    places = range(len(labels))  # and not the labels themselves: equal ones would share a bar
    axes.set_yticks(places, [wrap(label, width) for label in labels])
    drawn = axes.barh(places, values, color=[MARK if value == best else BLUE for value in values])
    axes.bar_label(drawn, [form(value) for value in values] if callable(form) else form, padding=4, fontsize=10)
    axes.set_xlim(min(0, *values), most * 1.16)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
