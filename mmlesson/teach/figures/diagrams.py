"""Diagrams: the two towers of CLIP, a stream of tokens, which token may look at which, the parts of DALL-E 2.

And how several machines build an index."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from mmlesson.teach.figures.style import (
    BLUE,
    FRAME,
    GREEN,
    INK,
    ORANGE,
    PALE,
    QUIET,
    STYLE,
    Picture,
    finished,
    new_figure,
)


def towers(
    image: Image.Image, tokens: Sequence[str], image_size: int, dim: int, cosine: float | None = None
) -> Picture:
    """The two towers of a CLIP: a picture and the tokens of a text become vectors of one length, and these a cosine.

    tokens: what `CLIP.tokens` says of a text. image_size: pixels a side that the image tower sees. dim: numbers of a
    vector. cosine: that of this picture and this text, if it is known.

    From Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", figure 1.
    Raises ValueError where there is no token.
    """
    if not tokens:
        raise ValueError("a text has at least one token.")
    words = [token.removesuffix("</w>").strip("<>").replace("_", " ") for token in tokens]
    rows, widths = [[]], [0.24 + 0.085 * max(2, len(word)) for word in words]
    for word, width in zip(words, widths, strict=True):
        if rows[-1] and sum(each for _, each in rows[-1]) + width > 2.6:
            rows.append([])
        rows[-1].append((word, width))
    low = max(3.1, 2.45 + 0.23 * len(rows))  # the middle of the lower way
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9.4, low + 1.15 + 0.2 * len(rows))
        axes = figure.add_subplot()
        pixels = np.asarray(image.convert("RGB").resize((160, 160), Image.Resampling.BICUBIC))
        axes.imshow(pixels, extent=(0.7, 2.1, 1.8, 0.4))
        axes.add_patch(Rectangle((0.7, 0.4), 1.4, 1.4, fill=False, edgecolor=FRAME))
        axes.text(1.4, 0.2, f"a picture: {image_size} × {image_size} pixels", ha="center", va="center", fontsize=12)
        top = low - 0.2 * len(rows)
        axes.text(1.4, top - 0.2, f"a text: {len(words)} tokens", ha="center", va="center", fontsize=12)
        for row, boxes in enumerate(rows):
            x = 1.4 - sum(width for _, width in boxes) / 2
            for word, width in boxes:
                place = (x + 0.03, top + 0.4 * row + 0.03)
                box = dict(facecolor=PALE[ORANGE], edgecolor=ORANGE, linewidth=1.2)
                axes.add_patch(Rectangle(place, width - 0.06, 0.34, **box))
                axes.text(x + width / 2, top + 0.4 * row + 0.2, word, ha="center", va="center", fontsize=10)
                x += width
        for y, tower in ((1.1, "image tower"), (low, "text tower")):
            _arrow(axes, (2.85, y), (3.3, y))
            _part(axes, 3.3, y - 0.42, 1.6, 0.84, tower, "trained")
            _arrow(axes, (4.9, y), (5.4, y))
            _part(axes, 5.4, y - 0.42, 1.6, 0.84, f"{dim} numbers", "")
            axes.plot([7.0, 8.2], [y, y], color=INK, linewidth=1.6)
        middle = (1.1 + low) / 2
        for y, edge in ((1.1, middle - 0.42), (low, middle + 0.42)):
            _arrow(axes, (8.2, y), (8.2, edge))
        _part(axes, 7.4, middle - 0.42, 1.6, 0.84, "cosine" if cosine is None else f"cosine\n{cosine:.2f}", "")
        axes.set(xlim=(0, 9.1), ylim=(low + 0.3 + 0.2 * len(rows), 0), aspect="equal")
        axes.set_axis_off()
        comes = "" if cosine is None else f" of {cosine:.2f}"
        return finished(
            figure,
            f"Two towers. A picture of {image_size}×{image_size} pixels → image tower → {dim} numbers. A text of "
            f"{len(words)} tokens ({', '.join(words)}) → text tower → {dim} numbers. Both lead to one cosine{comes}.",
        )


def stream(names: Sequence[str], codes, tiles: Sequence[Image.Image] | None = None, shown: int = 24) -> Picture:
    """One stream of tokens as boxes in reading order: the caption's words, then the numbers of the picture's codes.

    names: what `DALLE.token_name` says of each text token; "padding" becomes a dot.
    codes: integers [h, w], where each row of the picture is a line, or [n], 12 in a line.
    tiles: a picture of each code that has a box.
    shown: how many codes have boxes; a sentence says how many more there are.

    The small numbers are places in the stream, from 1. Raises ValueError where there are not as many tiles as boxes.
    """
    codes = np.asarray(codes)
    columns, codes = codes.shape[1] if codes.ndim == 2 else 12, codes.ravel().tolist()
    boxed, n, total = codes[:shown], len(names), len(names) + len(codes)
    if tiles is not None and len(tiles) != len(boxed):
        raise ValueError(f"{len(boxed)} codes are shown, and there are {len(tiles)} tiles.")
    wide, tall = 0.76, 0.38 if tiles is None else 0.98  # of a code, in inches, as everything here
    reach, places, x, y = columns * wide, [], 0.0, 0.34
    for name in names:
        width = 0.24 if name == "padding" else 0.2 + 0.09 * max(2, len(name))
        if x + width > reach:
            x, y = 0.0, y + 0.64
        places.append((x, y, width))
        x += width + 0.06
    top = y + 1.06  # of the codes
    places += [
        (place % columns * wide, top + place // columns * (tall + 0.24), wide - 0.06) for place in range(len(boxed))
    ]
    x, y = (0.0, top) if not boxed else (places[-1][0] + wide, places[-1][1])  # of the codes that have no box
    with matplotlib.rc_context(STYLE):
        figure = new_figure(reach + 1.1, y + tall + 0.32)
        axes = figure.add_subplot()
        for place, (left, upper, width) in enumerate(places):
            is_code, blank = place >= n, place < n and names[place] == "padding"
            colour, height = (BLUE, tall) if is_code else (ORANGE, 0.38)
            edge = dict(edgecolor=QUIET if blank else colour, linewidth=0.8 if blank else 1.2)
            axes.add_patch(
                Rectangle((left, upper), width, height, facecolor="white" if blank else PALE[colour], **edge)
            )
            word = str(boxed[place - n]) if is_code else "·" if blank else names[place]
            weight = "bold" if blank else "normal"
            axes.text(left + width / 2, upper + height - 0.19, word, ha="center", va="center", fontweight=weight)
            if is_code and tiles is not None:
                pixels = np.asarray(tiles[place - n].convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))
                axes.imshow(pixels, extent=(left + 0.07, left + width - 0.07, upper + 0.63, upper + 0.07), zorder=2)
            if place + 1 in (1, n, n + 1, total):
                axes.text(left + width / 2, upper + height + 0.03, str(place + 1), ha="center", va="top", fontsize=9)
        axes.text(0, 0.2, f"caption: {n} tokens" + (" (· is padding)" if "padding" in names else ""), fontweight="bold")
        axes.text(0, top - 0.14, f"picture: {len(codes)} codes", fontweight="bold")
        if len(boxed) < len(codes):
            axes.text(x + 0.05, y + tall - 0.19, f"… {len(codes) - len(boxed)} more", va="center")
            axes.text(x + 0.95, y + tall + 0.03, str(total), ha="right", va="top", fontsize=9)
        axes.set(xlim=(-0.03, reach + 1.05), ylim=(y + tall + 0.26, 0), aspect="equal")
        axes.set_axis_off()
        words = [name for name in names if name != "padding"]
        blanks = f", and padding {n - len(words)} times" if len(words) < n else ""
        rest = f", and {len(codes) - len(boxed)} more" if len(boxed) < len(codes) else ""
        described = f"caption: {n} tokens, at places 1 to {n}: {', '.join(words)}{blanks}"
        described += f"; picture: {len(codes)} codes, at places {n + 1} to {total}: {', '.join(map(str, boxed))}{rest}"
        return finished(figure, f"A stream of {total} tokens. {described}.")


def causal_mask(text_length: int, n_codes: int) -> Picture:
    """Which token of a stream (row) may look at which (column): itself and those before it.

    The tokens of the caption come first, then the codes.
    Raises ValueError where there is not one token of each kind.
    """
    if text_length < 1 or n_codes < 1:
        raise ValueError("a stream has at least one token of text and one code.")
    length = text_length + n_codes
    is_code = np.arange(length) >= text_length
    names = (
        "never: what has not been said yet",
        "caption looks at caption",
        "picture looks at caption",
        "picture looks at picture",
    )
    kind = np.tril(1 + is_code[:, None].astype(int) + is_code)  # [length, length], numbers of names
    counts = np.bincount(kind.ravel(), minlength=4)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.2, 6.2)
        axes = figure.add_subplot()
        shades = ListedColormap(["white", PALE[ORANGE], PALE[GREEN], PALE[BLUE]])
        axes.imshow(kind, cmap=shades, vmin=0, vmax=3, extent=(0, length, length, 0), interpolation="nearest")
        steps = np.arange(length + 1)
        axes.step(steps, steps, where="post", color=INK, linewidth=1)  # the edge of what may be looked at
        for line in (axes.axhline, axes.axvline):
            line(text_length, color=INK, linewidth=1.4, linestyle="--")
        middle = text_length + n_codes / 2
        words = dict(ha="center", va="center", fontsize=12)
        axes.text(text_length + 0.36 * n_codes, text_length + 0.7 * n_codes, "picture looks\nat picture", **words)
        axes.text(text_length / 2, middle, "picture looks at caption", rotation=90, **words)
        axes.text(
            text_length + 0.66 * n_codes, text_length + 0.28 * n_codes, "never:\nwhat has not\nbeen said yet", **words
        )
        arrow = dict(arrowstyle="->", color=INK, linewidth=1.2)
        at, to = (0.4 * text_length, 0.7 * text_length), (text_length + 0.1 * n_codes, 0.5 * text_length)
        axes.annotate("caption looks at caption", at, to, va="center", fontsize=12, arrowprops=arrow)
        spans = f"caption\n1 … {text_length}", f"picture\n{text_length + 1} … {length}"
        axes.set_xticks([text_length / 2, middle], spans)
        axes.set_yticks([text_length / 2, middle], spans, va="center", multialignment="center")
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_ylabel("the token of this row …", fontweight="bold", labelpad=10)
        axes.set_xlabel("… may look at the token of this column", fontweight="bold", labelpad=10)
        axes.tick_params(length=0)
        axes.spines[:].set(visible=True, color=INK)
        described = "; ".join(f"{names[i]}: {counts[i]:,} pairs" for i in (1, 2, 3, 0))
        alt = f"Which of {length} tokens, {text_length} of a caption and then {n_codes} codes, may look at which:"
        seen = f"each at itself and at those before it, {length**2 - counts[0]:,} of {length**2:,} pairs."
        return finished(figure, f"{alt} {seen} {described}.")


def dalle2_parts() -> Picture:
    """The parts of DALL-E 2 below those of DALL-E 1.

    Round: what goes in and comes out. Thick outline: networks that were trained for this. Hatched and dashed: networks
    that were trained before, then frozen. Left out: the prior reads the caption too, and so may the decoder.

    From Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation", and Ramesh et al. 2022, "Hierarchical
    Text-Conditional Image Generation with CLIP Latents".
    """
    one = (
        ("caption\ntokens", ""),
        ("one\ntransformer", "trained"),
        ("codes", ""),
        ("dVAE\ndecoder", "frozen"),
        ("picture", ""),
    )
    text = (
        ("text", ""),
        ("CLIP text\ntower", "frozen"),
        ("CLIP text\nembedding", ""),
        ("prior", "trained"),
        ("CLIP image\nembedding", ""),
    )
    drawing = (
        ("diffusion\ndecoder\n64×64", "trained"),
        *((f"upsampler\n{side}×{side}", "trained") for side in (256, 1024)),
        ("picture", ""),
    )
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10.2, 5.65)
        axes = figure.add_subplot()
        axes.text(0, 0.15, "DALL-E 1 (2021)", fontsize=13, fontweight="bold")
        _chain(axes, one, 0.3, 0.75)
        axes.text(0, 1.75, "DALL-E 2 (2022)", fontsize=13, fontweight="bold")
        _chain(axes, text, 1.9, 0.95)
        _chain(axes, drawing, 3.5, 0.95)
        axes.plot(
            [9.2, 9.2, 0.8], [2.85, 3.17, 3.17], color=INK, linewidth=1.6
        )  # from the end of a line to the start of the next
        _arrow(axes, (0.8, 3.17), (0.8, 3.5))
        keys = (
            ("", "what goes in and comes out"),
            ("trained", "trained for this"),
            ("frozen", "trained before, then frozen"),
        )
        for x, (kind, meaning) in zip((0, 3.7, 6.4), keys, strict=True):
            _part(axes, x, 4.95, 0.6, 0.4, "", kind)
            axes.text(x + 0.75, 5.15, meaning, va="center", fontsize=12)
        axes.set(xlim=(-0.05, 10.05), ylim=(5.45, -0.1), aspect="equal")
        axes.set_axis_off()
        first, second = (
            " → ".join(words.replace("\n", " ") + (f" ({kind})" if kind else "") for words, kind in parts)
            for parts in (one, text + drawing)
        )
        return finished(figure, f"DALL-E 1: {first}. DALL-E 2: {second}. Frozen: trained before, and left as it was.")


def cluster_build() -> Picture:
    """How a cluster builds an index: a list, files of fragments, one commit.

    Thick outline: processes that work. Round: what they read and write.
    """
    ends = (
        (0, "pictures", ""),
        (2.1, "driver\nlists them", "trained"),
        (6.9, "driver\ncommits once", "trained"),
        (9.0, "table and\nvectors", ""),
    )
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9.4, 3.2)
        axes = figure.add_subplot()
        for x, words, kind in ends:
            _part(axes, x, 1.35, 1.6, 0.8, words, kind)
        _arrow(axes, (1.6, 1.75), (2.1, 1.75))
        _arrow(axes, (8.5, 1.75), (9.0, 1.75))
        for number in (1, 2, 3):
            y = 1.25 * number - 0.75  # of the middle
            _part(axes, 4.2, y - 0.4, 1.2, 0.8, f"worker {number}\nembeds", "trained")
            _part(axes, 5.65, y - 0.2, 0.75, 0.4, "files", "")
            _arrow(axes, (3.7, 1.75), (4.2, y))
            _arrow(axes, (5.4, y), (5.65, y))
            _arrow(axes, (6.4, y), (6.9, 1.75))
        axes.set(xlim=(-0.05, 10.65), ylim=(3.45, 0.05), aspect="equal")
        axes.set_axis_off()
        alt = (
            "How a cluster builds an index. Pictures → driver lists them → three workers, each with a CLIP of its own, "
            "embed parts of the list → files → driver commits once → table and vectors."
        )
        return finished(figure, alt)


def _chain(axes, parts: Sequence[tuple[str, str]], y: float, height: float) -> None:
    """Parts, (words, kind) each, from left to right, and arrows between them."""
    for place, (words, kind) in enumerate(parts):
        _part(axes, 2.1 * place, y, 1.6, height, words, kind)
        if place:
            _arrow(axes, (2.1 * place - 0.5, y + height / 2), (2.1 * place, y + height / 2))


def _part(axes, x: float, y: float, width: float, height: float, words: str, kind: str) -> None:
    style = {
        "": dict(boxstyle="round,pad=0,rounding_size=0.2", facecolor="white", edgecolor=QUIET, linewidth=1.2),
        "trained": dict(boxstyle="square,pad=0", facecolor=PALE[ORANGE], edgecolor=INK, linewidth=2.2),
        "frozen": dict(
            boxstyle="square,pad=0", facecolor=PALE[BLUE], edgecolor=BLUE, linewidth=1.6, linestyle="--", hatch="//"
        ),
    }[kind]
    axes.add_patch(FancyBboxPatch((x, y), width, height, **style))
    back = dict(facecolor=style["facecolor"], edgecolor="none", pad=1.5)  # the hatch leaves room for the words
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=12, bbox=back if words else None)


def _arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = dict(arrowstyle="-|>", color=INK, linewidth=1.6, shrinkA=0, shrinkB=0, mutation_scale=16)
    axes.annotate("", end, start, arrowprops=style)
