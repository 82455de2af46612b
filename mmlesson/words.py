"""Texts that come from outside: their words, which of them a model knows, and how a name is shown.

Every text that a model is to read passes `check`, and every model names the words that it does not know by
`never_met`: search, classification, painting, drawing and the widgets say the same. A text that a person did not write
for people (the name of a file, a caption beside it) is printed by `shown`.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

EXAMPLE = "say what the picture shows, such as 'a red apple'"
MOST_NAMED = 8  # words in a sentence
PLACE = r"[,;(\[]?\s*(\b(at|in) )?[\w./\\~@+-]*[/\\][\w./\\~@+-]*\.(rs|cc|cpp|c|h|go):\d+(:\d+)?[)\]]?"
JOINER = "\u200d"  # joins emoji to one


# --------------------------------------------------------------------------------------------- words


def words_of(text: str) -> list[str]:
    """The words of a text, in order, in lower case.

    A word is a run of letters and digits, or a run of signs that stand for things (emoji). Punctuation marks, spaces
    and control characters are no words, and the s of "cat's" is none.
    """
    text = re.sub(r"['’]s\b", "", text.lower())
    if text.isascii():
        return re.findall(r"[a-z0-9]+", text)
    text = unicodedata.normalize("NFC", text)
    kinds = []
    for letter in text:
        same = letter == JOINER or unicodedata.category(letter).startswith("M")  # an accent belongs to its letter
        kinds.append(kinds[-1] if same and kinds else _kind(letter))
    groups = itertools.groupby(zip(kinds, text, strict=True), key=lambda pair: pair[0])
    return ["".join(letter for _, letter in group) for kind, group in groups if kind]


def _kind(letter: str) -> str:
    if letter.isalnum():
        return "letter"
    category = unicodedata.category(letter)
    is_sign = category in ("So", "Co", "Cn") or (category == "Sk" and ord(letter) > 0xFFFF)  # Sk: colours of skin
    return "sign" if is_sign else ""


def unknown(texts: Iterable[str], knows: Callable[[str], bool]) -> list[str]:
    """The words of `texts` for which `knows` is false, in order, each once."""
    found = dict.fromkeys(word for text in texts for word in words_of(text))
    return [word for word in found if not knows(word)]


def check(model: str, texts: Iterable[str], knows: Callable[[str], bool] | None = None) -> None:
    """Raises ValueError for a text that says nothing to a model: one without a word, or with no word that it knows.

    `model` is the name of the model. `knows` tells whether a word stood in its training; None where nobody can tell.
    """
    for text in texts:
        found = words_of(text)
        if not found:
            what = f"there is no word in {_short(text)}" if text.strip() else "the text is empty"
            raise ValueError(f"{what}: {EXAMPLE}.")
        if knows is not None and not any(map(knows, found)):
            raise ValueError(f"{model} never met any word of {_short(text)} in its training: {EXAMPLE}.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{_short(text)} is not a text: the terminal sent bytes that are not UTF-8.") from None


def never_met(model: str, missing: Sequence[str], guesses: bool = True) -> str:
    """The sentence about words that a model does not know.

    `guesses`: whether it reads them all the same, as CLIP does; else they are left out.
    """
    named = ", ".join(map(_short, missing[:MOST_NAMED]))
    if len(missing) > MOST_NAMED:
        named += f" and {len(missing) - MOST_NAMED} more"
    what, them = ("the word", "it") if len(missing) == 1 else ("the words", "them")
    then = f"what it makes of {them} is a guess" if guesses else f"it reads the text without {them}"
    return f"{model} never met {what} {named} in its training: {then}."


def _short(text: str, most: int = 40) -> str:
    """A text in quotation marks, what cannot be printed escaped, the end of a long one left out."""
    return repr(text if len(text) <= most else text[:most] + "…")


# ------------------------------------------------------------------------------------------- showing


def shown(name) -> str:
    """A name from outside (a path, a caption) as it is printed.

    One with control characters, line breaks or marks that turn the direction of writing comes in quotation marks, with
    these escaped: printed as they are, they could change what a terminal shows, or look like another line.
    """
    text = str(name)
    return text if text.isprintable() else repr(text)


def escaped(sentence: str) -> str:
    """A sentence without control characters, except line breaks: they are written as Python writes them."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in sentence)


def without_places(message: str) -> str:
    """The message of a library without places in its source, such as ", /home/builder/lance/src/io.rs:12:34"."""
    return re.sub(PLACE, "", message).strip()
