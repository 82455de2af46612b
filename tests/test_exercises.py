"""Each exercise says right to right answers, and to wrong ones what is wrong."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmlesson import exercises
from mmlesson.exercises import check


def rows(I, T, scale):
    return F.cross_entropy(scale * I @ T.T, torch.arange(len(I)))


def columns(I, T, scale):
    return rows(T, I, scale)


def nearest(features, query, k):
    return (features @ query).topk(k).indices


RIGHT = {
    "1.1": ["a cat on a blue background", "a picture of a cat on blue"],
    "1.2": [(65536, 256), [256**2, 256]],
    "1.3": [rows, lambda I, T, scale: rows(I, T, scale).item()],
    "1.4": [math.log(64), 4.16],
    "1.5": [0.3, 0.35],
    "1.7": [("a cat left of a dog on blue", "a dog left of a cat on blue")],
    "2.1": [nearest, lambda features, query, k: nearest(features, query, k).tolist()],
    "2.2": ["on turquoise, an owl with a rocket under it"],
    "2.3": [lambda best: torch.tensor(best).quantile(0.955).item(), lambda best: sorted(best)[-20]],
    "2.4": [(0.8, 0.583), (4 / 5, (1 + 1 / 3 + 1 / 12 + 1 / 2 + 1) / 5)],
    "2.5": [3450],
    "2.6": [102.4, 102],
}
WRONG = {
    "1.1": [("", "not a caption"), (3, "not a caption"), ("a rocket above a pizza on a red background", "still nearer")],
    "1.2": [(65536, "Two numbers"), ((256, 256), "256 cosines"), ((65536, 65536), "true pairs"), (("a", "b"), "not a number")],
    "1.3": [
        (columns, "other direction"),
        (lambda I, T, scale: (rows(I, T, scale) + columns(I, T, scale)) / 2, "both directions"),
        (lambda I, T, scale: rows(I, T, 1), "scale is missing"),
        (lambda I, T, scale: None, "returns nothing"),
        (lambda I, T, scale: I, "no single number"),
        (lambda I, T, scale: 1 / 0, "ZeroDivisionError"),
        (lambda I, T, scale: 7, "should be"),
        (4, "A function"),
    ],
    "1.4": [(6, "in bits"), (64, "not 64"), ("much", "not a number")],
    "1.5": [(1, "39%"), (0.01, "100%"), (0, "above 0"), (-1, "above 0"), (float("nan"), "above 0"), (None, "not a number")],
    "1.6": [
        ("a dog", "A list"),
        (["a dog"], "two different"),
        (["a dog", "a dog"], "two different"),
        (["a pizza", "a dog"], "names the pizza"),
        (["a dog", "a  dog"], "sure of"),
        ([3, "a dog"], "not a caption"),
    ],
    "1.7": [
        ("a cat", "Two captions"),
        (("a cat left of a dog", "a cat right of a dog"), "differ: left, right"),
        (("a cat left of a dog", "a cat left of a dog"), "same caption"),
        (("a cat", "cat a"), "too short"),
        (("a cat a dog cat", "a cat a dog dog"), "more often"),
    ],
    "2.1": [
        (4, "A function"),
        (lambda features, query, k: nearest(-features, query, k), "fit least"),
        (lambda features, query, k: nearest(features, query, k).flip(0), "best must come first"),
        (lambda features, query, k: nearest(features, query, k + 1), "returns 6"),
        (lambda features, query, k: (features @ query).topk(k).values.tolist() and "abcde", "whole numbers"),
        (lambda features, query, k: [0, 1, 2, 3, 4], "five nearest are"),
        (lambda features, query, k: None, "returns nothing"),
        (lambda features, query, k: features @ query[:3], "RuntimeError"),
    ],
    "2.2": [
        (7, "not a caption"),
        ("an owl above a rocket on a turquoise background", "the caption itself"),
        ("on turquoise, a rocket with an owl under it", "rocket above an owl"),
        ("an owl, alone, on turquoise", "an owl on a turquoise"),
    ],
    "2.3": [
        (0.7, "A function"),
        (lambda best: "high", "not a number"),
        (lambda best: torch.tensor(best).median().item(), "have no answer pass"),
        (lambda best: max(best) + 1, "this high"),
    ],
    "2.4": [(0.8, "Two numbers"), ((0.6, 0.583), "Recall@5"), ((0.8, 0.5), "reciprocal"), (("a", 1), "not a number")],
    "2.5": [(3200, "middles"), (100_000, "exact search"), (8, "not 8"), (None, "not a number")],
    "2.6": [(25.6, "4 bytes"), (102.4e9, "in bytes"), (12, "not 12"), ([], "not a number")],
}


def test_every_exercise_is_tried():
    assert set(WRONG) == set(exercises._CHECKS) == set(RIGHT) | {"1.6"}


@pytest.mark.parametrize("number, answer", [(number, answer) for number, answers in RIGHT.items() for answer in answers])
def test_right(number, answer):
    verdict = check(number, answer)
    assert verdict and verdict.says.startswith(f"Exercise {number}: right. ")


@pytest.mark.parametrize("number, answer, says", [(number, *case) for number, cases in WRONG.items() for case in cases])
def test_wrong_says_what_and_hints(number, answer, says):
    verdict = check(number, answer)
    assert not verdict
    assert verdict.says.startswith(f"Exercise {number}: not yet. ") and " Hint: " in verdict.says
    assert says in verdict.says


def test_right_fooling_labels():
    """The answer depends on the model; the way to it, the nearest wrong label against the farthest, does not."""
    from mmlesson import load_clip, world

    labels = [f"a picture of {concept}" for concept in world.concepts() if concept.name != "pizza"]
    order = load_clip().similarity(world.scene("pizza", background="turquoise", seed=2).render(256), labels)[0].argsort()
    assert check("1.6", [labels[order[-1]], labels[order[0]]])


def test_one_of_the_six_captions_is_not_ones_own():
    from mmlesson import world

    caption = world.sample(6, "heldout", seed=6)[0].caption
    assert "not yet" in check("1.1", caption).says


@pytest.mark.parametrize("number", list(exercises._CHECKS))
def test_three_dots_are_not_answered_yet(number):
    assert "not answered yet" in check(number, ...).says and not check(number, ...)
    assert "not answered yet" in check(number, (..., ...)).says


def test_an_unknown_number_is_an_error_that_lists_the_known_ones():
    with pytest.raises(KeyError, match="1.1, 1.2"):
        check("9.9", 1)
