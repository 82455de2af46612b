"""A scene: one or two pictures on a plain background, which renders and describes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from mmlesson.world.concepts import BACKGROUND_ALIASES, BACKGROUNDS, concept, sibling, with_article
from mmlesson.world.splits import is_held_out, is_pair_held_out
from mmlesson.world.sprites import sprite
from mmlesson.world.wordings import (
    ABOVE,
    FEW,
    LEFT,
    ONE,
    ONE_WITHOUT_BACKGROUND,
    UNORDERED,
    UNSEEN_ABOVE,
    UNSEEN_LEFT,
    UNSEEN_ONE,
)

ALONE = (0.60, 0.95)  # how much of the picture's side one object fills
PAIRED = (0.30, 0.60)  # … and each of two
SQUARES = 12  # along a side, where scenes stand on squared paper (`in_the_middle`)


@dataclass(frozen=True)
class Thing:
    """An object in a scene. Lengths are shares of the picture's side."""

    concept: str  # CLDR name
    x: float  # centre, from the left
    y: float  # centre, from the top
    size: float  # longest side
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """Things on a background: renders at any size and describes itself."""

    things: tuple[Thing, ...]
    background: str  # a name in BACKGROUNDS
    relation: str = ""  # of the first thing to the second: "left of", "above", or "" for other scenes

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(thing.concept for thing in self.things)

    @property
    def caption(self) -> str:
        """The canonical caption: "a cat left of a red apple on a blue background"."""
        return self._say(self._templates()[0])

    def captions(self, unseen: bool = False) -> list[str]:
        """All ways of saying it that name everything; `unseen`: those that are never used in training."""
        return [self._say(template) for template in self._templates(unseen)]

    def swapped(self) -> Scene:
        """The same scene with its two objects exchanged: what a reader of word order must tell apart."""
        if len(self.things) != 2:
            raise ValueError(f"Only a scene of two objects can be swapped; this one has {len(self.things)}.")
        first, second = self.things
        things = replace(first, concept=second.concept), replace(second, concept=first.concept)
        return replace(self, things=things)

    @property
    def held_out(self) -> bool:
        """Whether any pair in it is kept from training."""
        return is_held_out(self.concepts, self.background)

    @property
    def pair_held_out(self) -> bool:
        """Whether it shows two objects that no training scene shows together."""
        return is_pair_held_out(self.concepts)

    def render(self, size: int = 64) -> Image.Image:
        """RGB picture of size × size pixels."""
        image = Image.new("RGB", (size, size), BACKGROUNDS[self.background])
        for thing in self.things:
            picture = sprite(thing.concept, max(1, round(thing.size * size)))
            if thing.mirrored:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            corner = round(thing.x * size - picture.width / 2), round(thing.y * size - picture.height / 2)
            image.paste(picture, corner, picture)
        return image

    def phrase(self, rng: np.random.Generator, stage: int = 3) -> tuple[str, str]:
        """A random training caption, and a wrong one in the same words.

        The wrong one exchanges two objects, names another object of the same group in place of a single one, or
        (in stage 3) names another background. It is "" where none of these makes it wrong. `dataset` says how the
        three stages differ.
        """
        single = len(self.things) == 1
        if stage == 1:
            others = (sibling(self.concepts[0], rng),) if single else self.concepts[::-1]
            return self.caption, self._say(self._templates()[0], others)
        wordings = self._templates() if stage == 3 else self._templates()[: FEW[len(self.things)]]
        draw = rng.random()
        ordered = True
        if single and draw < 0.15:
            templates: Sequence[str] = ONE_WITHOUT_BACKGROUND
        elif not single and draw < 0.10:
            templates, ordered = UNORDERED, False
        else:
            templates = wordings[:1] if draw < 0.40 else wordings[1:]
        template = templates[rng.integers(len(templates))]
        others = [sibling(self.concepts[0], rng)] if single else None
        names = [_rename(name, concept(name).aliases, rng) for name in self.concepts]
        background = _rename(self.background, BACKGROUND_ALIASES.get(self.background, ()), rng)
        caption = self._say(template, names, background)
        if stage == 3 and "bg" in template.lower() and (not ordered or rng.random() < (1 / 2 if single else 1 / 3)):
            colours = [colour for colour in BACKGROUNDS if colour != self.background]
            return caption, self._say(template, names, colours[rng.integers(len(colours))])
        if not ordered:
            return caption, ""
        return caption, self._say(template, names[::-1] if others is None else others, background)

    def _templates(self, unseen: bool = False) -> Sequence[str]:
        if len(self.things) == 1:
            return UNSEEN_ONE if unseen else ONE
        if len(self.things) == 2 and self.relation == "left of":
            return UNSEEN_LEFT if unseen else LEFT
        if len(self.things) == 2 and self.relation == "above":
            return UNSEEN_ABOVE if unseen else ABOVE
        raise ValueError("Only scenes of one object, or of two with a relation, describe themselves.")

    def _say(self, template: str, names: Sequence[str] | None = None, background: str | None = None) -> str:
        names = self.concepts if names is None else names
        background = self.background if background is None else background
        words = {}
        for key, name in zip("ab"[: len(names)], names, strict=True):  # one object has no {b}
            known = concept(name)
            words[key] = str(known) if name == known.name else with_article(name)
            words[key.upper()] = name
        return template.format(**words, bg=with_article(background), BG=background)


def _rename(name: str, aliases: Sequence[str], rng: np.random.Generator) -> str:
    """The name, or one time in three one of its aliases."""
    return aliases[rng.integers(len(aliases))] if aliases and rng.random() < 1 / 3 else name


def one_thing(rng: np.random.Generator, name: str, background: str) -> Scene:
    size = rng.uniform(*ALONE)
    x, y = rng.uniform(size / 2, 1 - size / 2, 2)
    return Scene((Thing(name, float(x), float(y), float(size), bool(rng.random() < 0.5)),), background)


def two_things(rng: np.random.Generator, names: Sequence[str], background: str, relation: str) -> Scene:
    low, high = PAIRED
    first = rng.uniform(low, high)
    sizes = [first, rng.uniform(low, min(high, 1 - first))]  # they never overlap
    if rng.random() < 0.5:
        sizes.reverse()
    margins = (1 - sum(sizes)) * np.diff(np.sort(rng.random(2)), prepend=0, append=1)  # before, between, after
    along = [margins[0] + sizes[0] / 2, margins[0] + sizes[0] + margins[1] + sizes[1] / 2]
    across = [rng.uniform(size / 2, 1 - size / 2) for size in sizes]
    reach, middle = (along[1] - along[0]) / 2, sum(across) / 2
    if abs(across[1] - across[0]) > reach:  # keep "left of" from looking like "above"
        across = [middle + np.sign(each - middle) * reach / 2 for each in across]
    things = []
    for name, size, main, other in zip(names, sizes, along, across, strict=True):
        x, y = (main, other) if relation == "left of" else (other, main)
        things.append(Thing(name, float(x), float(y), float(size), bool(rng.random() < 0.5)))
    return Scene(tuple(things), background, relation)


def scene(*names: str, background: str = "white", relation: str = "left of", seed: int = 0) -> Scene:
    """A scene of your choice: `scene("cat")`, or `scene("cat", "dog", background="blue", relation="above")`.

    seed decides sizes, places and mirroring. Raises KeyError for an unknown name, ValueError for another background or
    relation, or where there is not one name or two.
    """
    names = tuple(concept(name).name for name in names)
    if background not in BACKGROUNDS:
        raise ValueError(f"There is no background {background!r}; there are {', '.join(BACKGROUNDS)}.")
    if relation not in ("left of", "above"):
        raise ValueError(f"A relation is 'left of' or 'above', not {relation!r}.")
    rng = np.random.default_rng(seed)
    if len(names) == 1:
        return one_thing(rng, names[0], background)
    if len(names) == 2:
        return two_things(rng, names, background, relation)
    raise ValueError(f"A scene shows one or two things, not {len(names)}.")


def crowd(name: str, count: int, background: str = "white", seed: int = 0) -> Scene:
    """`count` equal objects (1 to 4), each in a quarter of the picture: for counting, which no model here learns."""
    if not 1 <= count <= 4:
        raise ValueError(f"A crowd is 1 to 4 objects, not {count}.")
    rng = np.random.default_rng(seed)
    quarters = rng.permutation([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)])[:count]
    things = []
    for x, y in quarters:
        size = rng.uniform(0.30, 0.42)
        dx, dy = rng.uniform(-0.04, 0.04, 2)
        things.append(Thing(concept(name).name, float(x + dx), float(y + dy), float(size), bool(rng.random() < 0.5)))
    return Scene(tuple(things), background)


def in_the_middle(scene: Scene, squares: tuple[int, int]) -> Scene:
    """The scene with its objects in the middle: one alone, two side by side, or one above the other; none is mirrored.

    squares: how many squares an object fills along a side, alone and as one of two. SQUARES make the side of the
    picture. All objects stand on whole squares, and so on whole codes of the pocket VQGAN. So each object has one look
    alone and one in pairs, in one place or one of four, instead of endlessly many.
    Raises ValueError for a scene of no object or of more than two, and where the objects have no room.
    """
    n = len(scene.things)
    size = squares[n - 1] if n in (1, 2) else 0
    if n not in (1, 2) or not 1 <= size <= SQUARES // n:
        raise ValueError(
            f"In the middle there is room for one or two objects, of {SQUARES} squares together, "
            f"and not for {n} of {squares}."
        )
    along, across = (SQUARES - n * size) // 2, (SQUARES - size) // 2  # of the first one's corner
    things = []
    for place, thing in enumerate(scene.things):
        centre = (along + place * size + size / 2) / SQUARES, (across + size / 2) / SQUARES
        x, y = centre[::-1] if scene.relation == "above" else centre
        things.append(Thing(thing.concept, x, y, size / SQUARES))
    return replace(scene, things=tuple(things))
