"""What a scene can show, and what it is called: 597 concepts and 12 background colours.

The list is in data/concepts.csv: code, name, article, group, aliases. Names are the short names of Unicode CLDR, as
in the package `emoji`.
"""

from __future__ import annotations

import csv
import difflib
import functools
from dataclasses import dataclass

import numpy as np

from mmlesson.models import assets

BACKGROUNDS = {  # the 12 colour names and what they look like (sRGB)
    "white": (255, 255, 255),
    "grey": (160, 165, 172),
    "black": (48, 48, 56),
    "red": (222, 74, 72),
    "orange": (247, 150, 60),
    "yellow": (252, 220, 84),
    "green": (92, 184, 104),
    "turquoise": (72, 200, 200),
    "blue": (78, 128, 226),
    "purple": (150, 92, 204),
    "pink": (248, 164, 196),
    "brown": (146, 100, 66),
}
ARTICLES = {  # of aliases that do not take "a" or "an" by their first letter
    **dict.fromkeys(
        "beer cheese chips coffee corn dice fries headphones honey meat milk money ramen Saturn wine".split(), ""
    ),
    **{"noodle soup": "", "hourglass": "an", "SUV": "an", "UFO": "a"},
}
BACKGROUND_ALIASES = {"grey": ("gray",), "turquoise": ("teal", "cyan"), "purple": ("violet",)}


@dataclass(frozen=True)
class Concept:
    """One thing that a scene can show."""

    name: str  # CLDR short name: "red apple"
    article: str  # "a", "an", "the" or "" ("grapes")
    group: str  # "food", "animals", …
    code: str  # OpenMoji file name without suffix: "1F34E"
    aliases: tuple[str, ...]  # other words for it: ("apple",)

    def __str__(self) -> str:
        return with_article(self.name, self.article)


def with_article(name: str, article: str | None = None) -> str:
    """`name` with its article before it: `article`, or that of ARTICLES, or "a" or "an" by the first letter."""
    if article is None:
        article = ARTICLES.get(name, "an" if name[:1].lower() in tuple("aeiou") else "a")
    return f"{article} {name}".strip()


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """Every concept, in the order of its code point. The list is frozen: models are trained on it.

    How it was chosen: OpenMoji pictures of one code point, Emoji 13 or older, named in at most three
    words, without flags, signs, arrows, clock faces and skin tones; and the named ones of people at work. Of two
    that look alike (root mean square difference under 0.08 at 24 pixels on grey) the older one.
    """
    with open(assets.data_dir() / "concepts.csv", newline="", encoding="utf8") as file:
        return tuple(
            Concept(
                row["name"], row["article"], row["group"], row["code"], tuple(filter(None, row["aliases"].split("|")))
            )
            for row in csv.DictReader(file)
        )


@functools.cache
def _by_name() -> dict[str, Concept]:
    names = {concept.name: concept for concept in concepts()}
    return {alias: concept for concept in concepts() for alias in concept.aliases} | names


def concept(name: str) -> Concept:
    """The concept called `name` (its CLDR name or an alias). KeyError with near matches where there is none."""
    try:
        return _by_name()[name]
    except KeyError:
        near = difflib.get_close_matches(name, _by_name(), n=3, cutoff=0.5)
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise KeyError(
            f"The pocket world has no {name!r}.{hint} world.concepts() lists all {len(concepts())}."
        ) from None


@functools.cache
def _groups() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for each in concepts():
        groups.setdefault(each.group, []).append(each.name)
    return groups


def sibling(name: str, rng: np.random.Generator) -> str:
    """Another concept of the same group."""
    group = [each for each in _groups()[concept(name).group] if each != name]
    return group[rng.integers(len(group))]
