"""What every widget is built from: fields, buttons and rows, pictures as text, and numbers in words.

Nothing here knows a model. Every control has a description, which stands beside it or on it, and a tooltip.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

import ipywidgets
import numpy as np
from PIL import Image

MOST_SEED = 2**31 - 1

# Layouts and styles are dicts: each control makes its own ipywidgets.Layout from them, which is itself a widget.
LABEL_WIDTH = "9em"
STYLE = {"description_width": LABEL_WIDTH}
FIELD = {"width": "min(46em, 98%)"}
HALF_FIELD = {"width": "min(23em, 98%)"}
BUTTON = {"width": "auto", "min_width": "12em", "margin": "2px 10px 2px 2px"}
ROW = {"flex_flow": "row wrap", "align_items": "center", "margin": "2px 0"}
TEXT = "font-size: 1.15em; line-height: 1.5;"


# ---------------------------------------------------------------------------------------- fields and buttons


def text_field(description: str, value: str, placeholder: str, tooltip: str, **options) -> ipywidgets.Text:
    """A line of text. With `continuous_update=False` its value changes at Enter, not at every key."""
    return ipywidgets.Text(
        value,
        description=description,
        placeholder=placeholder,
        tooltip=tooltip,
        style=STYLE,
        layout=FIELD,
        **options,
    )


def number_field(description: str, value: int, least: int, most: int, tooltip: str) -> ipywidgets.BoundedIntText:
    """A whole number of `least` to `most`; a number outside becomes the nearest one inside."""
    return ipywidgets.BoundedIntText(
        value, min=least, max=most, description=description, tooltip=tooltip, style=STYLE, layout=HALF_FIELD
    )


def choice_field(description: str, options: Iterable, value, tooltip: str) -> ipywidgets.Dropdown:
    """One of several options."""
    return ipywidgets.Dropdown(
        options=list(options), value=value, description=description, tooltip=tooltip, style=STYLE, layout=HALF_FIELD
    )


def slider(
    description: str, value: float, least: float, most: float, step: float, tooltip: str
) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(
        value, min=least, max=most, step=step, description=description, tooltip=tooltip, style=STYLE, layout=FIELD
    )


def button(description: str, icon: str, tooltip: str, main: bool = False, disabled: bool = False) -> ipywidgets.Button:
    """A button; the `main` one of a widget is coloured."""
    return ipywidgets.Button(
        description=description,
        icon=icon,
        tooltip=tooltip,
        button_style="primary" if main else "",
        disabled=disabled,
        layout=BUTTON,
    )


def row(*children: ipywidgets.Widget) -> ipywidgets.HBox:
    """Controls beside each other, on more lines where the page is narrow."""
    return ipywidgets.HBox(children, layout=ROW)


def half_fields(*children: ipywidgets.Widget) -> ipywidgets.Box:
    """Fields of half the width, two on a line."""
    return ipywidgets.Box(children, layout={**ROW, "max_width": "48em"})


# --------------------------------------------------------------------------------------------------- checks


def check_text(name: str, value) -> None:
    """Raises ValueError unless an argument is a text."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is a text, such as 'a cat on a blue background', not {value!r}.")


def check_texts(name: str, values) -> list[str]:
    """The texts as a list. Raises ValueError for no text, or for a text alone: its letters would become the list."""
    texts = [] if isinstance(values, str) else list(values)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is a list of texts, such as ['a cat', 'a dog'], not {values!r}.")
    return texts


def prompt_in(field: ipywidgets.Text) -> str:
    """The text of a prompt field, its spaces made single. Raises ValueError where it is empty."""
    text = " ".join(field.value.split())
    if not text:
        raise ValueError("There is no prompt. Write what the picture shows, such as: a cat on a blue background")
    return text


# ----------------------------------------------------------------------------------------- pictures as text


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def address(picture: Image.Image | bytes) -> str:
    """A picture, or the bytes of a PNG file, as an address that holds the picture itself (a data URL)."""
    content = picture if isinstance(picture, bytes) else png(picture)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def escape(text) -> str:
    """Text as HTML shows it: its signs are no HTML."""
    return html.escape(str(text))


# ----------------------------------------------------------------------------------------- numbers and words


def as_array(values) -> np.ndarray:
    """Numbers, of a tensor too, as float64."""
    return np.asarray(values, dtype=np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def percent(share: float) -> str:
    """A share in whole percent, as the charts write it."""
    return f"{share:.0%}" if share >= 0.005 or share == 0 else "<1%"


def fine_percent(share: float) -> str:
    """A share among many small ones, in tenths of a percent."""
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else "<0.1%"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


def counted(n: int, thing: str) -> str:
    """A number with its thing: "1 code", "2 codes"."""
    return f"{n:,} {thing}{'s' * (n != 1)}"


def short(name: str) -> str:
    """A name that fits above a chart: its beginning and its end."""
    return name if len(name) <= 60 else f"{name[:36]}…{name[-22:]}"
