"""What a sentence about the pocket world means: which things it names, how they stand, and what is behind them.

A reader of rules, not a model: it knows the world's names, aliases and wordings, and the words of vocabulary.py. What
it does not know it names, so that a check can tell its reader.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from mmlesson import world
from mmlesson.teach.exercises.vocabulary import COLOURS, DEEDS, MUTUAL, NUMBERS, PAST, THINGS, TRAITS

UP = {"above", "over", "atop", "upon"}
DOWN = {"below", "under", "beneath", "underneath"}
PLACES = {"top": "up", "upper": "up", "bottom": "down", "lower": "down", "left": "left", "right": "right"}
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}
ARTICLES = {"a", "an", "the", "its", "his", "her", "this", "one", "single"}
GROUND = {"background", "backdrop", "ground", "wall", "surface", "scene", "picture", "image", "photo", "drawing"}
BETWEEN = {"behind", "front", "in", "inside", "into", "on", "onto", "for", "from", "to"}  # which side is which matters
NOT = {"no", "not", "without", "never", "isn't", "nothing", "none"}
MANY = {*NUMBERS, "several", "many"}
FILLERS = (  # words that carry no meaning here
    "a an the of in on at to it its is are was there here this that these we see you i can with has have having and "
    "or as all from for by front behind against background backdrop ground picture image photo photograph drawing "
    "drawn emoji scene show shows shown showing side half stands standing sits sitting lies lying placed colour color "
    "coloured colored plain whole his her which where while some one single next near beside alongside both"
).split()


@dataclass(frozen=True)
class Meaning:
    """What a sentence says."""

    things: tuple[str, ...]  # names of concepts, in the order of the sentence
    colours: tuple[str, ...]  # of each thing, "" where it is not said
    traits: tuple[tuple[str, ...], ...]  # of each thing, sorted: what it is like ("big"), or how many ("3")
    background: tuple[str, ...]  # colours of what is behind them; one, if the sentence makes sense
    above: tuple[str, str] | None  # (upper, lower), where the sentence says so
    left: tuple[str, str] | None  # (left, right), where the sentence says so
    deed: tuple[str, str, str] | None  # (who, does what, to whom), where the sentence says so
    negated: bool  # whether it says what is not there
    many: bool  # whether it counts more than one of a thing
    unknown: tuple[str, ...]  # words that neither this reader nor the world knows
    words: tuple[str, ...]  # all of them, in small letters, without punctuation

    @property
    def scene(self) -> tuple:
        """What two sentences have in common that mean the same: compare it with `==`."""
        things = tuple(sorted(zip(self.things, self.colours, self.traits, strict=True)))
        background = tuple(sorted(self.background))
        return things, background, self.above, self.left, self.deed, self.negated, self.many


WORD = r"[^\W_]+(?:[-'’][^\W_]+)*"


def split(text: str) -> tuple[str, ...]:
    """The words of a text in small letters, without punctuation."""
    return tuple(re.findall(WORD, text.lower()))


@functools.cache
def _names() -> dict[tuple[str, ...], str]:
    """Words of a name → the concept that it names."""
    names = {}
    for concept in world.concepts():
        for alias in concept.aliases:
            names.setdefault(split(alias), concept.name)
    for name, others in THINGS.items():
        names.update({split(other): name for other in others.split(",")})
    names.update({split(concept.name): concept.name for concept in world.concepts()})
    return names


@functools.cache
def _colours() -> dict[str, str]:
    colours = {name: name for name in world.BACKGROUNDS}
    for name, others in world.BACKGROUND_ALIASES.items():
        colours.update(dict.fromkeys(others, name))
    for name, others in COLOURS.items():
        colours.update(dict.fromkeys(others.split(), name))
    return colours


@functools.cache
def _traits() -> dict[str, str]:
    traits = {name: name for name in TRAITS} | {number: number for number in NUMBERS.values()} | NUMBERS
    return traits | {other: name for name, others in TRAITS.items() for other in others.split()}


@functools.cache
def _deeds() -> dict[str, str]:
    """Forms of a verb → the verb: "chases", "chasing", "chased" → "chase"."""
    past = {verb: forms for verb, *forms in (each.split() for each in PAST.split(","))}
    forms = {}
    for verb in DEEDS:
        stems = [verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb]
        if verb[-1] not in "aeiouwxy" and verb[-2] in "aeiou" and verb[-3] not in "aeiou":
            stems.append(verb + verb[-1])  # hugging
        known = {verb, verb + "s", verb + "es", *(stem + "ing" for stem in stems)}
        known |= set(past[verb]) if verb in past else {stem + "ed" for stem in stems}
        if verb.endswith("y"):
            known |= {verb[:-1] + "ies", verb[:-1] + "ied"}
        forms.update(dict.fromkeys(known, verb))
    return forms


@dataclass(frozen=True)
class _Token:
    kind: str  # "thing", "colour", "trait", "deed", "up", "down", "left", "right", "word", "unknown"
    value: str


def understand(text: str) -> Meaning:
    """What a text says of a scene of the pocket world."""
    words = split(text)
    tokens, many = _tokens(tuple(re.findall(f"{WORD}|[,;:.]", text.lower())))  # a comma ends what belongs together
    things = [place for place, token in enumerate(tokens) if token.kind == "thing"]
    colours, traits = [""] * len(things), [set() for _ in things]
    background = []
    for place, token in enumerate(tokens):
        if token.kind not in ("colour", "trait"):
            continue
        whose = _described(tokens, place)
        if token.kind == "trait":
            if whose is not None:
                traits[things.index(whose)].add(token.value)
        elif whose is not None:
            colours[things.index(whose)] = token.value
        elif token.value not in background:
            background.append(token.value)
    above = left = deed = None
    if len(things) == 2:
        above, left = _relations(tokens, things)
        deed = _deed(tokens, things)
    return Meaning(
        tuple(tokens[place].value for place in things),
        tuple(colours),
        tuple(tuple(sorted(each)) for each in traits),
        tuple(background),
        above,
        left,
        deed,
        any(token.value in NOT for token in tokens if token.kind == "word"),
        many,
        tuple(dict.fromkeys(token.value for token in tokens if token.kind == "unknown")),
        words,
    )


def _tokens(words: tuple[str, ...]) -> tuple[list[_Token], bool]:
    """Words as tokens, names of several words as one; and whether more than one of a thing is said."""
    names, colours = _names(), _colours()
    longest = max(map(len, names))
    tokens, many, place = [], False, 0
    while place < len(words):
        word = words[place]
        if word in _deeds() and tokens and tokens[-1].kind == "thing":  # "a cat watches …" is no watch
            tokens.append(_Token("deed", _deeds()[word]))
            place += 1
            continue
        for length in range(min(longest, len(words) - place), 0, -1):
            part = words[place : place + length]
            single = (*part[:-1], _singular(part[-1]))
            if part in names or single in names:
                many = many or part not in names
                is_colour = length == 1 and word in colours and not _is_thing(words, place)
                tokens.append(
                    _Token("colour", colours[word]) if is_colour else _Token("thing", names.get(part) or names[single])
                )
                place += length
                break
        else:
            tokens.append(_token(word))
            many = many or word in MANY
            place += 1
    return tokens, many


def _is_thing(words: tuple[str, ...], place: int) -> bool:
    """Whether a word that names a colour and a thing ("orange") means the thing: after an article, before no ground."""
    after = words[place + 1] if place + 1 < len(words) else ""
    return place > 0 and words[place - 1] in ARTICLES and after not in GROUND


def _singular(word: str) -> str:
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending) + instead
    return word


def _token(word: str) -> _Token:
    if word in _colours():
        return _Token("colour", _colours()[word])
    if word in _traits():
        return _Token("trait", _traits()[word])
    if word in _deeds():
        return _Token("deed", _deeds()[word])
    if word in UP | DOWN:
        return _Token("up" if word in UP else "down", "preposition")
    if word in PLACES:
        return _Token(PLACES[word], "place")
    known = word in ",;:." or any(word in words for words in (FILLERS, GROUND, NOT, MANY, ARTICLES, MUTUAL))
    return _Token("word" if known else "unknown", word)


def _described(tokens: list[_Token], place: int) -> int | None:
    """The place of the thing that a colour or a trait belongs to: "a big red cat", "a cat that is big"; or None."""
    for after in range(place + 1, len(tokens)):
        if tokens[after].kind == "thing":
            return after
        if tokens[after].kind not in ("colour", "trait"):
            break
    if tokens[place].kind == "trait" and place > 1 and tokens[place - 1].value in ("is", "are"):
        return next((before for before in reversed(range(place)) if tokens[before].kind == "thing"), None)
    return None


def _deed(tokens: list[_Token], things: list[int]) -> tuple[str, str, str] | None:
    """(who, does what, to whom) of two things with one verb or preposition between them.

    "is chased by" turns them round, and so does "behind", which is the other side of "in front of".
    """
    first, second = things
    between = tokens[first + 1 : second]
    deeds = [each.value for each in between if each.kind == "deed"]
    one, other = tokens[first].value, tokens[second].value
    if len(deeds) == 1:
        passive = any(each.value == "by" for each in between)
        return (other, deeds[0], one) if passive else (one, deeds[0], other)
    said = [each.value for each in between if each.kind not in ("trait", "colour") and each.value not in ARTICLES]
    if said[-2:] == ["front", "of"]:
        return (one, "front", other)
    if deeds or not said or said[-1] not in BETWEEN or said[-2:-1] in (["next"], ["close"]):
        return None
    return (other, "front", one) if said[-1] == "behind" else (one, said[-1], other)


def _relations(tokens: list[_Token], things: list[int]) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """(upper, lower) and (left, right) of two things; None where the sentence does not say, or contradicts itself."""
    said = []  # (direction, which of the two things is there)
    alone = []  # directions that name no other thing: "on the left", "with a dog below"
    for place, token in enumerate(tokens):
        if token.kind not in OPPOSITE:
            continue
        following = [each for each in tokens[place + 1 :] if each.value not in ARTICLES and each.kind != "trait"]
        of = bool(following) and following[0] == _Token("word", "of")
        if of:
            following = following[1:]
        coming = following[0] if following else _Token("word", "")
        if token.value == "preposition" or of:
            if coming.kind == "colour" and len(following) > 1 and following[1].kind == "thing":
                coming = following[1]
            if coming.kind == "thing":
                other = next(which for which, at in enumerate(things) if at > place)
                said.append((token.kind, 1 - other))
                continue
            if coming.kind == "colour" or coming.value in GROUND:
                continue  # "over a turquoise background" says nothing of the two things
            if coming.value == "it":
                said.append((token.kind, 1))
                continue
        alone.append((token.kind, place))
    if len(alone) == 2:  # "on the left a cat, on the right a dog": one each, in order
        said += [(direction, which) for which, (direction, _) in enumerate(alone)]
    elif len(alone) == 1:
        [(direction, place)] = alone
        said.append((direction, _whose(tokens, things, place)))
    pairs = {"up": set(), "left": set()}
    for direction, which in said:
        if direction in ("down", "right"):
            direction, which = OPPOSITE[direction], 1 - which
        pairs[direction].add(which)
    names = [tokens[place].value for place in things]
    above, left = ((names[min(each)], names[1 - min(each)]) if len(each) == 1 else None for each in pairs.values())
    return above, left


def _whose(tokens: list[_Token], things: list[int], place: int) -> int:
    """Which of two things a lonely direction belongs to."""
    first, second = things
    if place < first:
        return 0
    if place > second:
        return 1
    after = tokens[place + 1].value if place + 1 < len(tokens) else ""
    return 1 if after in ("is", "are", "there", "shows", "it", "stands", "sits", "we", "you") else 0
