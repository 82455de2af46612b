"""Answers to the exercises of lesson 1: RIGHT, and WRONG, each with words of the verdict that names its mistake.

Among the wrong ones of each exercise: its own hint, the example, an answer copied from the page, nonsense, another
type, NaN, and where a function is asked for, a result that is right for one input only.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F


def rows(I, T, scale):
    return F.cross_entropy(scale * I @ T.T, torch.arange(len(I)))


def columns(I, T, scale):
    return rows(T, I, scale)


def fooling() -> list[str]:
    """The way to an answer of 1.6: the nearest wrong label against the farthest, whatever the model is."""
    from mmlesson import load_clip, world

    labels = [f"a picture of {concept}" for concept in world.concepts() if concept.name != "pizza"]
    order = (
        load_clip().similarity(world.scene("pizza", background="turquoise", seed=2).render(256), labels)[0].argsort()
    )
    return [labels[order[-1]], labels[order[0]], labels[order[1]]]


BEST, WORST, WORSE = fooling()
ROWS_OF_ONE = rows(torch.eye(6, 16), torch.eye(6, 16), 10.0).item()

RIGHT = {
    "1.1": [
        "a cat on a blue background",
        "a picture of a cat on blue",
        "a blue picture with a cat in it",
        "A kitten on a navy backdrop.",
        "blue background, and in front of it a cute cat",
    ],
    "1.2": [(65536, 256), [256**2, 256], torch.tensor([65536, 256]), (65536.0, np.int64(256))],
    "1.3": [
        rows,
        lambda I, T, scale: rows(I, T, scale).item(),
        lambda I, T, scale: -(scale * I @ T.T).log_softmax(1).diagonal().mean(),
    ],
    "1.4": [math.log(64), 4.16, torch.tensor(64.0).log(), -math.log(1 / 64)],
    "1.5": [0.3, 0.35, torch.tensor(0.36)],
    "1.6": [[BEST, WORST], (BEST, WORST, WORSE), [f"{BEST} on turquoise", WORST]],
    "1.7": [
        ("a cat left of a dog on blue", "a dog left of a cat on blue"),
        ("man bites dog", "dog bites man"),
        ("A cat above a dog.", "a dog above a cat"),
        ["a blue cat on a red background", "a red cat on a blue background"],
    ],
}
WRONG = {
    "1.1": [
        ("", "not a caption"),
        (3, "not a caption"),
        (math.nan, "not a caption"),
        (["a cat on blue"], "not a caption"),
        ("asdf", "Not known here: “asdf”"),
        ("a dog on the moon", "does not name the cat"),
        ("a frog on a red background", "does not name the cat"),
        ("a fish on a blue background", "does not name the cat"),
        ("a teddy bear on a grey background", "does not name the cat"),  # one of the six of the page
        ("your caption here", "names nothing"),
        ("a cat", "which colour"),
        ("a blue cat", "what colour is behind it"),
        ("a cat on a red background", "It says red"),
        ("a cat on a blue and red background", "It says red"),
        ("no cat on a blue background", "“no”"),
        ("two cats on a blue background", "more than one"),
        ("a cat left of a dog on a blue background", "names a dog"),
        ("cat qwer blue tyui asdf hjkl", "Most of its words"),
    ],
    "1.2": [
        (65536, "Two numbers"),
        ((10, 5), "10 cosines"),
        ((256, 256), "256 cosines"),
        ((256, 65536), "other way round"),
        ((65536, 65536), "true pairs"),
        ((65536, 255), "true pairs"),
        (("a", "b"), "not a number"),
        (("65536", "256"), "without quotation marks"),
        ((math.nan, 256), "nan"),
        ((65536, 256, 1), "Yours are 3"),
        ({65536, 256}, "Two numbers"),
        ((8 * 8, 8), "64 cosines"),
    ],
    "1.3": [
        (columns, "other direction"),
        (lambda I, T, scale: (rows(I, T, scale) + columns(I, T, scale)) / 2, "both directions"),
        (lambda I, T, scale: rows(I, T, 1), "scale is missing"),
        (lambda I, T, scale: rows(I, T, 1 / scale), "not divided"),
        (lambda I, T, scale: rows(I, T, scale) * len(I), "sum over the pictures"),
        (lambda I, T, scale: -rows(I, T, scale), "sign"),
        (lambda I, T, scale: I, "shape [6, 16]"),
        (lambda I, T, scale: 1 / 0, "ZeroDivisionError"),
        (lambda I, T, scale: 7, "should be"),
        (lambda I, T, scale: "low", "not a number"),
        (lambda I, T, scale: torch.tensor(math.nan), "nan"),
        (lambda I, T, scale: rows(I, T, 10.0), "With 9 pairs of 5 numbers"),
        (lambda I, T, scale: F.cross_entropy(scale * I @ T.T, torch.arange(6)), "With 9 pairs"),
        (lambda I, T, scale: ROWS_OF_ONE, "should be"),
        (4, "A function"),
        (rows(torch.eye(6), torch.eye(6), 10.0), "A function"),
    ],
    "1.4": [
        (6, "in bits"),
        (64, "not 64"),
        (1 / 64, "not 0.015625"),
        (-math.log(64), "sign"),
        (math.log10(64), "base 10"),
        ("much", "not a number"),
        ("4.16", "without quotation marks"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (True, "not a number"),
        (torch.ones(2), "not a number"),
        (math.log(256), "not 5.5"),
    ],
    "1.5": [
        (1, "39%"),
        (0.1, "84%"),
        (0.01, "100%"),
        (0, "above 0"),
        (-1, "above 0"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (None, "not a number"),
        ("0.36", "without quotation marks"),
        ([0.36, 0.36], "not a number"),
        (0.6, "At T = 0.6"),
    ],
    "1.6": [
        ("a dog", "A list"),
        (["a dog"], "two labels"),
        (["a dog", "a dog"], "two labels"),
        (["a dog", "The dog."], "two labels"),
        (["a pizza", "a dog"], "names the pizza"),
        (["a picture of a piza", "a dog"], "names the pizza"),
        (["two pizzas", "a dog"], "names the pizza"),
        (["a picture of a cat", "a picture of a dog", "a picture of a person"], "the cell above"),
        (["a cat", "a person"], "the cell above"),
        ([3, "a dog"], "not a caption"),
        ([math.nan, "a dog"], "not a caption"),
        (["asdf", "a dog"], "Not known here: “asdf”"),
        ([], "two labels"),
        (0.95, "A list"),
    ],
    "1.7": [
        ("a cat", "Two captions"),
        (("a cat left of a dog", "a cat right of a dog"), "differ: left, right"),
        (("a cat left of a dog", "a cat left of a dog"), "same caption"),
        (("a cat left of a dog.", "A cat left of a dog"), "same caption"),
        (("a cat and a dog", "a dog and a cat"), "changes nothing"),
        (("a cat with a dog", "a dog with a cat"), "changes nothing"),
        (("x y z w", "w z y x"), "Not known here: “x”, “y”, “z”, “w”"),
        (("a cat", "cat a"), "two things"),
        (("exchange the two things", "the two things exchange"), "name nothing"),
        (("a cat a dog cat", "a cat a dog dog"), "more often"),
        (("on blue a cat left of a dog", "a cat left of a dog on blue"), "same thing stands in the same place"),
        (("bites cat dog", "bites dog cat"), "changes nothing"),
        ((1, 2), "not a caption"),
        ((math.nan, "a cat"), "not a caption"),
    ],
}
