"""How the widgets of lesson 4 show codes: pictures drawn in part, places outlined, the stream, the likeliest codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from mmlesson.teach import figures
from mmlesson.teach.widgets import parts

if TYPE_CHECKING:
    from torch import Tensor

    from mmlesson.dalle import DALLE
    from mmlesson.vqgan import VQGAN

EXPLORED_SIDE = 240  # pixels of a picture whose places are looked at
NOT_DRAWN = "#b8b8b8"
SHOWN_CODES = 5  # of the stream before the place


def drawn_so_far(vqgan: VQGAN, codes: Tensor) -> list[Image.Image]:
    """Pictures of codes, int64 [n, h, w]. All are drawn up to the same place; from there on codes are -1 and grey."""
    import torch

    n, h, w = codes.shape
    filled = int((codes[0] >= 0).sum())
    # The decoder looks around each code. Places that are not drawn yet repeat the row above them, so that the border
    # of what is drawn looks natural.
    source = torch.arange(h * w)
    while filled and source.max() >= filled:
        source = torch.where(source >= filled, source - w, source)
    images = vqgan.decode(codes.flatten(1)[:, source.clamp(min=0)].clamp(min=0).view(n, h, w))
    row, column = divmod(filled, w)
    for image in images:
        across = image.width // w  # pixels a code
        down = image.height // h
        image.paste(NOT_DRAWN, (column * across, row * down, image.width, (row + 1) * down))
        image.paste(NOT_DRAWN, (0, (row + 1) * down, image.width, image.height))
    return images


def outlined(image: Image.Image, row: int, column: int, grid: int) -> Image.Image:
    """A picture as a widget shows it, with one of its `grid` × `grid` places outlined.

    The outline has two colours, so that one of them is seen on any picture.
    """
    cell = max(1, EXPLORED_SIDE // grid)
    large = image.resize((grid * cell, grid * cell), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(large)
    left = column * cell
    top = row * cell
    draw.rectangle((left - 2, top - 2, left + cell + 1, top + cell + 1), outline="white", width=2)
    draw.rectangle((left, top, left + cell - 1, top + cell - 1), outline=figures.MARK, width=2)
    return large


def add_tiles(vqgan: VQGAN, tiles: dict[int, str], codes: Iterable[int]) -> None:
    """Add a picture of each code to `tiles` where it is missing, as a data URL."""
    import torch

    missing = [code for code in dict.fromkeys(codes) if code not in tiles]
    if missing:
        images = vqgan.code_images(torch.tensor(missing))
        tiles.update((code, parts.address(image)) for code, image in zip(missing, images, strict=True))


def stream_html(dalle: DALLE, stream: Tensor) -> str:
    """The tokens of the caption, the last few codes before the place, and the place."""
    config = dalle.config
    tokens = stream.tolist()
    caption = tokens[: config.text_length]
    words = [token for token in caption if token != config.padding]  # by number: "padding" may be a word of the caption
    shown = [dalle.token_name(token) for token in words]
    if len(words) < len(caption):
        shown.append(f"padding × {len(caption) - len(words)}")
    codes = [dalle.token_name(token) for token in tokens[config.text_length :]]
    if len(codes) > SHOWN_CODES:
        left_out = len(codes) - (SHOWN_CODES - 1)
        codes = [f"… {left_out} codes …", *codes[left_out:]]
    box = (
        "display: inline-block; border: 1px solid var(--jp-border-color2, #bbb); border-radius: 4px; padding: 0 6px;"
        " margin: 2px 4px 2px 0;"
    )
    boxes = [f'<span style="{box}">{parts.escape(name)}</span>' for name in (*shown, *codes)]
    mark = f"{box} border: 2px solid {figures.MARK}; font-weight: bold;"
    boxes.append(f'<span style="{mark}" role="img" aria-label="the place">?</span>')
    label = 'role="group" aria-label="The stream up to the place"'
    return f'<div {label} style="line-height: 1.6; margin: 4px 0;">{"".join(boxes)}</div>'


def chances_html(shares: np.ndarray, best: Sequence[int], now: int, rank: int, tiles: Mapping[int, str]) -> str:
    """The likeliest codes as a table, and the code that is there now.

    Each has its picture, from `tiles`, and its probability as a bar. `shares` are the probabilities of all codes,
    float64 [n_codes].
    """
    cell = "padding: 2px 12px 2px 2px; text-align: left;"
    heads = ("rank", "picture", "code", "probability")
    lines = ["".join(f'<th scope="col" style="{cell}">{name}</th>' for name in heads)]

    def line(number: str, picture: str, name: str, share: float, weight: str = "normal") -> str:
        bar = f"width: {160 * share:.1f}px; height: 0.9em; margin-right: 8px; background: {figures.BLUE};"
        number_and_bar = f'<div style="{bar}"></div>{parts.escape(parts.fine_percent(share))}'
        cells = (
            number,
            picture,
            f'<span style="font-weight: {weight};">{name}</span>',
            f'<div style="display: flex; align-items: center;">{number_and_bar}</div>',
        )
        return "".join(f'<td style="{cell}">{content}</td>' for content in cells)

    def code_line(number: int, code: int) -> str:
        size = 'width="28" height="28" style="display: block;"'
        picture = f'<img src="{tiles[code]}" alt="Code {code} alone" {size}>'
        if code == now:
            return line(f"{number:,}", picture, f"{code} ◀ there now", shares[code], "bold")
        return line(f"{number:,}", picture, str(code), shares[code])

    lines += [code_line(number, code) for number, code in enumerate(best, 1)]
    listed = list(best)
    if now not in best:
        lines.append(code_line(rank, now))
        listed.append(now)
    if len(listed) < len(shares):
        lines.append(line("", "", "all others", max(0.0, shares.sum() - shares[listed].sum())))
    body = "".join(f"<tr>{content}</tr>" for content in lines)
    style = "border-collapse: collapse; white-space: nowrap;"
    return f'<table style="{style}" aria-label="The likeliest codes at the place">{body}</table>'
