"""What all exercises share: the verdict, the register, and ways to look at an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmlesson.teach import record


@dataclass(frozen=True)
class Verdict:
    """What `check` returns. It is true where the answer is right, and shows itself as a sentence."""

    right: bool
    says: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.says


class NotYet(Exception):
    """A check raises it with a sentence that says what is wrong with the answer."""


class NotAnswered(Exception):
    """A check raises it with a sentence that says what is still to do. Its reader gets no hint: they have not tried."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: what judges an answer, and two hints: the first "not yet" brings one, the second the other."""

    judge: Callable  # takes the answer; returns praise, or raises NotYet or NotAnswered
    hint: str
    second: str


EXERCISES: dict[str, Exercise] = {}
SOLUTION = (
    "You have had both hints. The solution is folded below the exercise; in a learner's edition, ask your teacher."
)
_wrong: dict[str, int] = {}  # wrong answers to each exercise since this kernel started


def exercise(number: str, hint: str, second: str):
    """Registers a function as the judge of exercise `number`, with its first and its second hint."""

    def register(judge: Callable) -> Callable:
        if number in EXERCISES:
            raise ValueError(f"there are two exercises {number}.")
        EXERCISES[number] = Exercise(judge, hint, second)
        return judge

    return register


def check(number: str, answer) -> Verdict:
    """The verdict on an answer to an exercise: right, not yet (with a hint), or not answered yet.

    The first wrong answer brings a hint, the second one another hint, and from the third on it says where the solution
    is. They are counted since the kernel started. An answer of three dots, or a function that returns nothing, is not
    answered yet and gets no hint. Right and wrong answers are noted for `progress()`, on this machine only.
    Raises KeyError for a number that no exercise has.
    """
    if number not in EXERCISES:
        raise KeyError(f"There is no exercise {number!r}; there are {', '.join(sorted(EXERCISES))}.")
    if answer is ... or (isinstance(answer, (tuple, list)) and any(part is ... for part in answer)):
        return Verdict(False, f"Exercise {number}: not answered yet. Put your answer in place of the three dots.")
    asked = EXERCISES[number]
    try:
        verdict = Verdict(True, f"Exercise {number}: right. {asked.judge(answer)}")
    except NotAnswered as unanswered:
        return Verdict(False, f"Exercise {number}: not answered yet. {unanswered}")
    except NotYet as wrong:
        verdict = Verdict(False, f"Exercise {number}: not yet. {wrong} {_next_help(number)}")
    record.note(number, verdict.right)
    return verdict


def _next_help(number: str) -> str:
    """What comes with the next wrong answer: the first hint, the second one, then where the solution is."""
    _wrong[number] = _wrong.get(number, 0) + 1
    asked = EXERCISES[number]
    return {1: f"Hint: {asked.hint}", 2: f"Second hint: {asked.second}"}.get(_wrong[number], SOLUTION)


# ---------------------------------------------------------------------------------------------------
# Numbers, texts, tensors


def number(answer) -> float:
    """The answer as a finite float; NotYet for anything that is no number."""
    if isinstance(answer, (str, bytes)):
        raise NotYet(f"{answer!r} is not a number, but text: write it without quotation marks.")
    if answer is None or isinstance(answer, (bool, complex)):
        raise NotYet(f"{answer!r} is not a number.")
    try:
        value = float(answer)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise NotYet(f"{_shown(answer)} is not a number.") from None
    if not math.isfinite(value):
        raise NotYet(f"{value} is not a number that can be right.")
    return value


def two(answer, what: str) -> tuple:
    """The two parts of an answer: a tuple, a list, a tensor or an array; otherwise NotYet, which begins with `what`."""
    if isinstance(answer, (str, bytes, dict, set, frozenset)) or not hasattr(answer, "__iter__"):
        raise NotYet(f"{what} {_shown(answer)} is something else.")
    try:
        parts = list(answer)
    except TypeError:  # a tensor without dimensions
        parts = []
    if len(parts) != 2:
        raise NotYet(f"{what} Yours are {len(parts)}.")
    return parts[0], parts[1]


def text(answer) -> str:
    """The answer, if it is a text with at least one letter; NotYet otherwise."""
    if not isinstance(answer, str) or not any(letter.isalpha() for letter in answer):
        raise NotYet(f"{_shown(answer)} is not a caption.")
    return answer


def tensor(value, what: str, shape: tuple[int, ...]):
    """What a learner's function returned, as a tensor of `shape`; NotYet where it is none, or holds NaN."""
    import torch

    if not isinstance(value, torch.Tensor):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise NotYet(f"{what} is no tensor, but {type(value).__name__}.") from None
    if tuple(value.shape) != shape:
        raise NotYet(f"{what} has shape {list(value.shape)}, and {list(shape)} is asked for.")
    if value.is_complex():
        raise NotYet(f"{what} holds complex numbers.")
    if value.isnan().any():
        raise NotYet(f"{what} holds NaN, which is not a number.")
    return value


def near(value, other, tolerance: float = 1e-4) -> bool:
    """Whether two tensors of one shape differ nowhere by more than `tolerance`."""
    return bool(((value - other).abs() <= tolerance).all())


def _shown(answer) -> str:
    shown = repr(answer)
    return shown if len(shown) <= 80 else f"a {type(answer).__name__}"


# ---------------------------------------------------------------------------------------------------
# Functions


@dataclass(frozen=True)
class Case:
    """One input that a learner's function is tried on. `says` names it: "With k = 3 …"."""

    says: str
    given: tuple


def every(function, cases: Sequence[Case], judge: Callable) -> None:
    """Calls the function on each case and `judge(case, value)` on what comes back.

    A NotYet of `judge` is raised again with the name of the case before it: so the reader knows which input failed.
    """
    if not callable(function):
        raise NotYet("A function is asked for.")
    for case in cases:
        value = call(function, case)
        try:
            judge(case, value)
        except NotYet as verdict:
            raise NotYet(f"{case.says}: {verdict}") from None


def call(function, case: Case):
    """What the function returns for copies of the inputs; NotYet where it raises, NotAnswered where nothing comes."""
    try:
        value = function(*(_copied(each) for each in case.given))
    except NotYet:
        raise
    except Exception as error:
        raise NotYet(f"{case.says}: your function raises {type(error).__name__}: {error}.") from None
    if value is None or value is ...:
        raise NotAnswered("Your function returns nothing yet.")
    return value


def _copied(given):
    """The learner's own: they may change it. A tensor stays in the graph, so that gradients arrive at the original."""
    import torch

    if isinstance(given, torch.Tensor):
        return given.clone()
    return list(given) if isinstance(given, list) else given


def scalar(value):
    """A loss as a float; NotYet where it is not one number."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise NotYet(f"it returns numbers of shape {list(value.shape)}, and a loss is one.")
        value = value.detach()
    return number(value)


def same(found: float, truth: float, tolerance: float = 1e-4) -> bool:
    """Whether two numbers are the same up to rounding."""
    return abs(found - truth) <= tolerance * max(1.0, abs(truth))


def compare(found: float, truth: float, mistakes: Sequence[tuple[float, str]]) -> None:
    """NotYet where a number is not the truth, with the mistake that gives this number, if it is one that we know."""
    if same(found, truth):
        return
    for mistaken, wrong in mistakes:
        if same(found, mistaken):
            raise NotYet(wrong)
    raise NotYet(f"yours gives {found:.4f}, and it should be {truth:.4f}.")


def must_teach(loss, given, truth) -> None:
    """NotYet where no gradient, or another one than `truth`, comes from a loss back to `given`."""
    import torch

    kept = "keep it a tensor, without .item(), float() and .detach()."
    if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
        raise NotYet(f"the number is right, but no gradient comes back from it: {kept}")
    [gradient] = torch.autograd.grad(loss.sum(), given, allow_unused=True)
    if gradient is None or not near(gradient, truth):
        raise NotYet(f"the number is right, but its gradient is not: {kept}")
