"""Which pairs no training shows. A hash decides, never a random draw.

One in ten (concept, background) pairs and one in ten unordered concept pairs are held out from the training of every
pocket model. A scene is held out if it holds such a pair.
"""

import functools
import hashlib
import itertools
from collections.abc import Sequence


def is_held_out(concepts: Sequence[str], background: str) -> bool:
    """Whether no training shows a scene of these concepts on this background."""
    pairs = itertools.combinations(sorted(set(concepts)), 2)
    return any(in_tenth(name, background) for name in concepts) or any(in_tenth(*pair) for pair in pairs)


def is_pair_held_out(concepts: Sequence[str]) -> bool:
    """Whether these are two different concepts that no training shows together."""
    return len(set(concepts)) == 2 and in_tenth(*sorted(set(concepts)))


@functools.cache
def in_tenth(one: str, other: str) -> bool:
    """True for one in ten pairs of names, the same ones everywhere and for ever."""
    return int.from_bytes(hashlib.sha256(f"{one}|{other}".encode()).digest()[:8], "big") % 10 == 0
