"""What to paint, as a text says it: prompts with weights.

    a cat on a blue background      one prompt; its weight is 1
    a cat:2 | a dog | blur:-0.5     three prompts with the weights 2, 1 and -0.5; what has a weight below 0 is avoided

A weight is a number after the last colon of a prompt, at its very end. Everything else is text: a colon inside a
sentence ("Avengers: Infinity"), a colon with nothing behind it, and a colon between two digits, as in a time or a ratio
("a clock at 12:30", "16:9"). With a space before the colon the number is a weight there too ("a clock at 12 :30"). A
backslash before a colon or a bar makes it text: `a score of\\: 2`.

Weighted prompts come from Pixray (github.com/pixray/pixray).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from mmlesson import gates
from mmlesson.pixels import load_image
from mmlesson.words import words_of

# Digits of ASCII only: Python's float also reads "٣", "1_000", "nan" and "Infinity", which are words in a sentence.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST_WEIGHT = 1e6  # of one prompt; weights count in relation to each other, and float32 holds no more


@dataclass(frozen=True)
class Prompt:
    """What to paint; or, with a weight below 0, what to avoid."""

    content: str | Image.Image
    weight: float
    name: str  # its key in `PaintStep.scores`; no two prompts of a painting have the same one

    def __str__(self) -> str:
        return f"“{self.name}” with the weight {self.weight:g}"


def parse_prompts(prompts) -> list[Prompt]:
    """Prompts from a text ("a cat:1 | blur:-0.5"), a picture, or a list of either or of (weight, either).

    How a text is read stands at the head of `prompts.py`. The name of a prompt is its text, or "picture 1", "picture 2"
    and so on; where a text comes again, it is "a cat (2)". Raises ValueError where there is no prompt, where a weight
    has no words before it, is 0, not finite or larger than a million, or where no weight is above 0; ImageError where a
    picture cannot be read.
    """
    parts = prompts if isinstance(prompts, (list, tuple)) and not _is_weighted(prompts) else [prompts]
    found = [pair for part in parts for pair in _parse(part)]  # pairs of content and weight
    if not found:
        raise ValueError('there is no prompt: say what to paint, as in "a cat on a blue background".')
    names = _unique_names([content for content, _ in found])
    read = [Prompt(content, weight, name) for (content, weight), name in zip(found, names, strict=True)]
    if not any(prompt.weight > 0 for prompt in read):
        raise ValueError(
            f"every prompt has a weight below 0 ({', '.join(map(str, read))}): say also what to paint, not only what "
            "to avoid."
        )
    return read


def _is_weighted(part) -> bool:
    is_pair = isinstance(part, tuple) and len(part) == 2
    return is_pair and isinstance(part[0], (int, float)) and not isinstance(part[0], bool)


def _parse(part) -> Iterator[tuple[str | Image.Image, float]]:
    """The contents and weights of one part."""
    weight = 1.0
    if _is_weighted(part):
        weight = _checked_weight("the weight of a prompt", part[0])
        part = part[1]
    if not isinstance(part, str):
        yield load_image(part), weight
        return
    for text in re.split(r"(?<!\\)\|", part):
        text = text.strip()
        if not text:
            continue
        content, own = _split_weight(text)
        yield content, _checked_weight(f"the weight of “{content}”", weight * own)


def _split_weight(text: str) -> tuple[str, float]:
    """ "a cat:0.5" → ("a cat", 0.5); a text without a weight at its end has the weight 1."""
    before, colon, after = text.rpartition(":")
    number = after.strip()
    is_escaped = before.endswith("\\")
    is_time = before[-1:].isdigit() and after[:1].isdigit()
    if not colon or is_escaped or is_time or not NUMBER.fullmatch(number):
        return _without_escapes(text), 1.0
    content = _without_escapes(before.rstrip(" \t:"))  # also of "a cat::2", as Midjourney writes it
    if not words_of(content):
        raise ValueError(f"“{text}” is a weight without a prompt: write the text before the colon.")
    return content, _checked_weight(f"the weight of “{content}”", float(number))


def _without_escapes(text: str) -> str:
    return re.sub(r"\\([:|])", r"\1", text)


def _checked_weight(whose: str, weight: float) -> float:
    gates.real_number(whose, weight, least=-LARGEST_WEIGHT, most=LARGEST_WEIGHT)
    if abs(weight) < 1 / LARGEST_WEIGHT:
        raise ValueError(f"{whose} is a number other than 0, not {weight:g}: leave the prompt out instead.")
    return float(weight)


def _unique_names(contents: Sequence[str | Image.Image]) -> list[str]:
    """A name for each prompt, no two the same."""
    texts = {content for content in contents if isinstance(content, str)}  # the first of each is its own name
    names: list[str] = []
    n_pictures = 0
    for content in contents:
        if isinstance(content, str) and content not in names:
            names.append(content)
            continue
        if isinstance(content, str):
            number = 1 + sum(content == other for other in contents[: len(names)])
            wanted = f"{content} ({number})"
        else:
            n_pictures += 1
            wanted = f"picture {n_pictures}"
        while wanted in texts or wanted in names:  # someone's text looks like a name that we made
            wanted += "'"
        names.append(wanted)
    return names
