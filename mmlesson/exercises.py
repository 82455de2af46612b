"""The exercises: `check("1.3", answer)` says right, or what is wrong and a hint.

Each check asks for a property, not for the pocket models' exact numbers, so that it holds under another
`MMLESSON_CLIP` too. `...` in place of an answer is not wrong, only not answered yet.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What `check` returns: true where the answer is right; shows itself as a sentence."""

    right: bool
    says: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.says


class NotYet(Exception):
    """Raised by a check: what is wrong, and a hint."""

    def __init__(self, wrong: str, hint: str):
        super().__init__(wrong)
        self.wrong, self.hint = wrong, hint


_CHECKS: dict[str, Callable] = {}


def exercise(number: str):
    """Registers a function that takes an answer and returns praise, or raises NotYet."""

    def register(function: Callable) -> Callable:
        _CHECKS[number] = function
        return function

    return register


def check(number: str, answer) -> Verdict:
    """Checks the answer to an exercise. KeyError for a number that no exercise has."""
    if number not in _CHECKS:
        raise KeyError(f"There is no exercise {number!r}; there are {', '.join(_CHECKS)}.")
    if answer is ... or (isinstance(answer, (tuple, list)) and any(part is ... for part in answer)):
        return Verdict(False, f"Exercise {number}: not answered yet. Put your answer in place of the three dots.")
    try:
        return Verdict(True, f"Exercise {number}: right. {_CHECKS[number](answer)}")
    except NotYet as verdict:
        return Verdict(False, f"Exercise {number}: not yet. {verdict.wrong} Hint: {verdict.hint}")


@functools.cache
def _clip():
    from .clip import load_clip

    return load_clip()


def _number(answer, hint: str) -> float:
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise NotYet(f"{answer!r} is not a number.", hint) from None


def _text(answer, hint: str) -> str:
    if not isinstance(answer, str) or not answer.strip():
        raise NotYet(f"{answer!r} is not a caption.", hint)
    return answer


def _cosines(image, texts: list[str]) -> list[float]:
    """Cosines of one picture with texts, without the warning about unknown words: an answer may hold any."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _clip().similarity(image, texts)[0].tolist()


# ---------------------------------------------------------------------------------------------------
# Lesson 1


@exercise("1.1")
def _own_caption(answer) -> str:
    from . import world

    hint = 'say what is there and what is behind it, as in "a frog on a red background".'
    answer = _text(answer, hint)
    others = [scene.caption for scene in world.sample(6, "heldout", seed=6)]
    yours, *theirs = _cosines(world.scene("cat", background="blue", seed=1).render(256), [answer, *others])
    if answer in others:
        raise NotYet("That is one of the six captions.", hint)
    if yours <= max(theirs):
        nearer = others[theirs.index(max(theirs))]
        raise NotYet(f"“{nearer}” is still nearer to the picture than yours.", hint)
    return "Your caption is nearer to the picture than all six."


@exercise("1.2")
def _cells_of_a_batch(answer) -> str:
    hint = "every one of the 256 pictures meets every one of the 256 texts, and has one text of its own."
    try:
        cosines, true = answer
    except (TypeError, ValueError):
        raise NotYet("Two numbers are asked for, as in (10, 5).", hint) from None
    if _number(cosines, hint) != 256 * 256:
        raise NotYet(f"A batch of 256 pairs does not make {cosines} cosines.", hint)
    if _number(true, hint) != 256:
        raise NotYet(f"{true} is not the number of true pairs.", hint)
    return "65,536 cosines, 256 of them of true pairs: 65,280 wrong answers for free."


@exercise("1.3")
def _one_direction(answer) -> str:
    import torch
    import torch.nn.functional as F

    from . import runtime

    hint = "logits are scaled cosines [n, n]; F.cross_entropy reads rows; the answer to row i is i."
    if not callable(answer):
        raise NotYet("A function is asked for.", hint)
    generator = runtime.generator(0)
    I, T = (F.normalize(torch.randn(6, 16, generator=generator), dim=-1) for _ in range(2))
    try:
        loss = answer(I, T, 10.0)
    except Exception as error:
        raise NotYet(f"Your function raises {type(error).__name__}: {error}.", hint) from None
    if loss is None:
        raise NotYet("Your function returns nothing.", hint)
    try:
        loss = float(loss)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet("Your function returns no single number.", hint) from None
    rows = F.cross_entropy(10 * I @ T.T, torch.arange(6)).item()
    columns = F.cross_entropy(10 * T @ I.T, torch.arange(6)).item()
    if abs(loss - rows) < 1e-4:
        return "Each row of the matrix is a question, and its cross-entropy is the loss of one direction."
    if abs(loss - columns) < 1e-4:
        raise NotYet("This is the other direction: texts choose their pictures.", hint)
    if abs(loss - (rows + columns) / 2) < 1e-4:
        raise NotYet("This is the loss of both directions.", hint)
    if abs(loss - F.cross_entropy(I @ T.T, torch.arange(6)).item()) < 1e-4:
        raise NotYet("The logit scale is missing.", hint)
    raise NotYet(f"On random features yours gives {loss:.4f}, and it should be {rows:.4f}.", hint)


@exercise("1.4")
def _blind_guess(answer) -> str:
    hint = "the right answer has probability 1/64, and cross-entropy is minus its natural logarithm."
    value = _number(answer, hint)
    if abs(value - math.log2(64)) < 0.01:
        raise NotYet("That is in bits: cross-entropy uses the natural logarithm.", hint)
    if abs(value - math.log(64)) > 0.01:
        raise NotYet(f"It is not {value:g}.", hint)
    return "log 64 = 4.16: the dashed line that a loss curve has to leave behind."


@exercise("1.5")
def _half_sure(answer) -> str:
    hint = "a higher temperature makes the softmax less sure; at T = 1 the best label has 39 %, at T = 0.1 it has 84 %."
    value = _number(answer, hint)
    if not value > 0 or not math.isfinite(value):
        raise NotYet(f"A temperature is above 0; {value:g} is not.", hint)
    weights = [math.exp((cosine - 0.80) / value) for cosine in (0.80, 0.60, 0.50)]
    best = weights[0] / sum(weights)
    if not 0.45 <= best <= 0.55:
        raise NotYet(f"At T = {value:g} the best label gets {best:.0%}.", hint)
    return f"At T = {value:.2g} the best label gets {best:.0%}."


@exercise("1.6")
def _fool_it(answer) -> str:
    import torch

    from . import world

    hint = "one label that is a little like a pizza and one that is nothing like it; the temperature does the rest."
    if isinstance(answer, str) or not hasattr(answer, "__iter__"):
        raise NotYet("A list of labels is asked for.", hint)
    labels = [_text(label, hint) for label in answer]
    if len(set(labels)) < 2:
        raise NotYet("At least two different labels are asked for: the only one of its kind always gets 100 %.", hint)
    if any("pizza" in label.lower() for label in labels):
        raise NotYet("One of your labels names the pizza.", hint)
    cosines = torch.tensor(_cosines(world.scene("pizza", background="turquoise", seed=2).render(256), labels))
    share = (cosines / _clip().temperature).softmax(dim=0)
    if share.max() <= 0.9:
        raise NotYet(f"It is {share.max():.0%} sure of “{labels[share.argmax()]}”.", hint)
    return "It is sure of a wrong label: among the labels that it was given, that one fits best."


@exercise("1.7")
def _same_words(answer) -> str:
    hint = 'exchange the two things in "a cat left of a dog on a blue background".'
    try:
        one, other = answer
    except (TypeError, ValueError):
        raise NotYet("Two captions are asked for.", hint) from None
    one, other = (_text(caption, hint).lower().split() for caption in (one, other))
    if sorted(one) != sorted(other):
        differ = sorted(set(one) ^ set(other))
        raise NotYet(f"Their words differ: {', '.join(differ)}." if differ else "One of them repeats a word more often.", hint)
    if one == other:
        raise NotYet("They are the same caption.", hint)
    if len(one) < 4:
        raise NotYet("They are too short to say how two things stand.", hint)
    return "A model that only asks which words are there cannot tell these two apart."
