"""Answers in words: what they have to mean, and what the model makes of them."""

from __future__ import annotations

import functools
import warnings

from mmlesson.teach.exercises.checking import NotYet, text
from mmlesson.teach.exercises.words import NOT, Meaning, understand


@functools.cache
def the_clip():
    """The CLIP that answers are tried on: the course's own, or that of `MMLESSON_CLIP`."""
    from mmlesson.clip import load_clip

    return load_clip()


def cosines(image, texts: list[str]) -> list[float]:
    """Cosines of one picture with texts, without the warning about unknown words: an answer may hold any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return the_clip().similarity(image, texts)[0].tolist()


def another_clip() -> str:
    """A sentence for a verdict that rests on the CLIP in use, where that is not the course's own; else ""."""
    from mmlesson.clip import POCKET

    name = the_clip().name
    return "" if name == POCKET else f" (This is {name}. The exercise was made with {POCKET}.)"


def name_unknown(meaning: Meaning) -> str:
    """A sentence that names the words that nobody here knows; "" where there are none."""
    if not meaning.unknown:
        return ""
    words = ", ".join(f"“{word}”" for word in meaning.unknown)
    return f" Not known here: {words}."


def read(answer) -> Meaning:
    """What an answer in words means; NotYet where it is no text, mostly unknown words, or says what is not there."""
    meaning = understand(text(answer))
    known = len(meaning.things) + len(meaning.colours) + len(meaning.background)
    if not meaning.things:
        raise NotYet(f"It names nothing that the pocket world can show.{name_unknown(meaning)}")
    if len(meaning.unknown) > known:
        raise NotYet(f"Most of its words say nothing here.{name_unknown(meaning)}")
    if meaning.negated:
        said = next(word for word in meaning.words if word in NOT)
        raise NotYet(f"It says what is not there (“{said}”). Say what is there.")
    return meaning


def must_show(meaning: Meaning, things: tuple[str, ...], background: str) -> None:
    """NotYet where a meaning names other things than these, more than one of each, or another background."""
    from mmlesson import world

    note = name_unknown(meaning)
    for thing in things:
        if thing not in meaning.things:
            raise NotYet(f"It does not name the {thing}.{note}")
    for thing in meaning.things:
        if thing not in things:
            raise NotYet(f"It names {world.concept(thing)}, which is not in the picture.{note}")
    if meaning.many or len(meaning.things) > len(things):
        raise NotYet(f"It says that there is more than one {things[0] if len(things) == 1 else 'of a thing'}.{note}")
    if any(meaning.colours):
        raise NotYet(
            f"It says that the thing is {next(filter(None, meaning.colours))}; what colour is behind it?{note}"
        )
    if not meaning.background:
        raise NotYet(f"It does not say which colour is behind.{note}")
    if meaning.background != (background,):
        others = " and ".join(colour for colour in meaning.background if colour != background)
        raise NotYet(f"It says {others}, and the background has another colour.{note}")


def says_the_model(answer: str, found: bool, nearer: str) -> str:
    """What the model makes of a right answer: that it agrees, or what it prefers and which words it never met."""
    if found:
        return ""
    unmet = ", ".join(f"“{word}”" for word in the_clip().unknown_words([answer]))
    why = f" Its training never held {unmet}." if unmet else ""
    return f"The model does not agree: it finds “{nearer}” nearer.{why}"
