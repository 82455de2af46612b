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


# ---------------------------------------------------------------------------------------------------
# Lesson 2


def _call(function, *arguments, hint: str):
    """What a learner's function returns; NotYet where it is none, raises, or returns nothing."""
    if not callable(function):
        raise NotYet("A function is asked for.", hint)
    try:
        value = function(*arguments)
    except Exception as error:
        raise NotYet(f"Your function raises {type(error).__name__}: {error}.", hint) from None
    if value is None or value is ...:
        raise NotYet("Your function returns nothing yet.", hint)
    return value


@exercise("2.1")
def _top_k(answer) -> str:
    import torch

    from . import runtime

    hint = "scores = features @ query is one cosine a picture; scores.topk(k).indices are the places of the k largest."
    generator = runtime.generator(0)
    features = torch.nn.functional.normalize(torch.randn(50, 16, generator=generator), dim=-1)
    query = torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=-1)
    truth = sorted(range(50), key=lambda place: -float(features[place] @ query))
    found = _call(answer, features, query, 5, hint=hint)
    try:
        found = [int(place) for place in found]
    except (TypeError, ValueError):
        raise NotYet("It does not return a row of places (whole numbers).", hint) from None
    if found == truth[:5]:
        return "Exact search is that: one product of a matrix and a vector, and the largest k."
    if found == truth[::-1][:5]:
        raise NotYet("These are the five that fit least.", hint)
    if sorted(found) == sorted(truth[:5]):
        raise NotYet("These are the right five, but the best must come first.", hint)
    if len(found) != 5:
        raise NotYet(f"Asked for 5 places it returns {len(found)}.", hint)
    raise NotYet(f"It finds {found}, and the five nearest are {truth[:5]}.", hint)


@exercise("2.2")
def _query_of_ones_own(answer) -> str:
    from . import world

    hint = 'say what it shows, where, and what is behind it, as in "on red, a cat with a dog to its right".'
    answer = _text(answer, hint)
    target = world.scene("owl", "rocket", background="turquoise", relation="above", seed=1)
    if answer.strip().lower() == target.caption:
        raise NotYet("That is the caption itself: use words of your own.", hint)
    others = [world.scene("rocket", "owl", background="turquoise", relation="above", seed=2)]
    others += [world.scene("owl", background="turquoise", seed=3), world.scene("rocket", background="turquoise", seed=4)]
    others += [world.scene("owl", "rocket", background=colour, relation="above", seed=5) for colour in ("red", "white")]
    others += world.sample(60, "heldout", seed=21)
    scores = _clip().encode_images([scene.render(256) for scene in [target, *others]]) @ _query(answer)
    if scores.argmax() != 0:
        found = others[int(scores[1:].argmax())].caption
        raise NotYet(f"It finds “{found}” first.", hint)
    return "Your sentence finds it first among 66 pictures, five of which differ from it in one thing."


def _query(text: str):
    """The embedding of a text, `[dim]`, without the warning about unknown words."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _clip().encode_texts([text])[0]


@exercise("2.3")
def _threshold(answer) -> str:
    import torch

    from . import runtime

    hint = "sort the best scores of queries without an answer: at most one in twenty may lie at or above the threshold."
    best = (0.5 + 0.1 * torch.randn(400, generator=runtime.generator(3))).tolist()
    threshold = _number(_call(answer, best, hint=hint), hint)
    passing = sum(score >= threshold for score in best) / len(best)
    if passing > 0.05:
        raise NotYet(f"{passing:.1%} of 400 queries that have no answer pass your threshold.", hint)
    if passing < 0.03:
        raise NotYet(f"Only {passing:.1%} pass: a threshold this high also turns away queries that do have an answer.", hint)
    return f"{passing:.1%} of 400 queries without an answer pass. What it costs those with one has to be measured on them."


@exercise("2.4")
def _recall_and_mrr(answer) -> str:
    hint = "recall@5 is the share of ranks up to 5; MRR is the mean of 1/1, 1/3, 1/12, 1/2 and 1/1."
    try:
        recall, mrr = answer
    except (TypeError, ValueError):
        raise NotYet("Two numbers are asked for, as in (0.5, 0.25).", hint) from None
    ranks = (1, 3, 12, 2, 1)
    if abs(_number(recall, hint) - 0.8) > 0.005:
        raise NotYet(f"Recall@5 is not {recall}.", hint)
    if abs(_number(mrr, hint) - sum(1 / rank for rank in ranks) / 5) > 0.005:
        raise NotYet(f"The mean reciprocal rank is not {mrr}.", hint)
    return "Recall@5 counts four of five; MRR also says how high they stood."


@exercise("2.5")
def _comparisons(answer) -> str:
    hint = "first the query meets the middle of every cell, then every vector in the 8 cells it visits, of 100,000 / 250 each."
    value = _number(answer, hint)
    if value == 8 * 400:
        raise NotYet("These are the vectors in the cells; the middles of the cells were compared as well.", hint)
    if value == 100_000:
        raise NotYet("That is what exact search compares.", hint)
    if value != 250 + 8 * 400:
        raise NotYet(f"It is not {value:g}.", hint)
    return "3,450 in place of 100,000: that is the whole gain, and what lies in the cells not visited is the whole loss."


@exercise("2.6")
def _memory(answer) -> str:
    hint = "100 million vectors, 256 numbers each, 4 bytes a number; 1 GB is 10**9 bytes."
    value = _number(answer, hint)
    if abs(value - 102.4) <= 0.5:
        return "102.4 GB: more than a laptop has, which is why large collections are compressed or spread over machines."
    if abs(value - 102.4 / 4) <= 0.2:
        raise NotYet("A float32 takes 4 bytes, not 1.", hint)
    if abs(value - 102.4e9) <= 1e9:
        raise NotYet("That is in bytes.", hint)
    raise NotYet(f"It is not {value:g} GB.", hint)
