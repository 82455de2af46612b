"""Answers to the exercises of lesson 1: RIGHT, and WRONG, each with words of the verdict that names its mistake.

Among the wrong ones of each exercise: its own hint, the example, an answer copied from the page, nonsense, another
type, NaN, and where a function is asked for, a result that is right for one input only.
"""

import math
import re

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


def exchanged(caption):
    """A right answer to 1.8: the caption with its two things exchanged, or nothing where there is one thing."""
    for how in (" left of ", " above "):
        one, _, rest = caption.partition(how)
        if rest:
            other, ground = rest.rsplit(" on a", 1)
            return [f"{other}{how}{one} on a{ground}"]
    return []


def recoloured(caption):
    other = "pink" if "pink" not in caption else "brown"
    words = caption.split()
    return " ".join([*words[:-2], other, words[-1]]).replace(" an pink", " a pink")


def by_pattern(caption):
    found = re.fullmatch(r"(.+) (left of|above) (.+) (on an? \w+ background)", caption)
    return (f"{found[3]} {found[2]} {found[1]} {found[4]}",) if found else ()


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
        ("a kitten chases a puppy.", "A puppy chases a kitten."),
        ("a dog is chased by a cat", "a cat is chased by a dog"),
        ("a big cat and a small dog", "a small cat and a big dog"),
        ("three cats and two dogs", "two cats and three dogs"),
        ("a cat behind a dog", "a dog behind a cat"),
        ("a cat watches a guard", "a guard watches a cat"),
    ],
    "1.8": [
        exchanged,
        by_pattern,
        lambda caption: exchanged(caption) + [recoloured(caption)],
        lambda caption: [recoloured(each) for each in exchanged(caption)] + exchanged(caption),
    ],
    "1.9": [
        [
            ("a dog left of an owl", "a dog not left of an owl"),
            ("a cat on a blue background", "a cat not on a blue background"),
            ("the house is red", "the house is not red"),
        ],
        (
            ["a cat behind a dog on red", "a dog behind a cat on red"],
            ["a crown behind a frog on red", "a frog behind a crown on red"],
            ["a rocket behind an owl on red", "an owl behind a rocket on red"],
        ),
        [
            ("a big cat on blue", "a small cat on blue"),
            ("a big owl on blue", "a small owl on blue"),
            ("a big rocket on blue", "a small rocket on blue"),
        ],
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
        (("a cat sdfgs a dog", "a dog sdfgs a cat"), "Not known here: “sdfgs”"),
        (("a cat meets a dog", "a dog meets a cat"), "changes nothing"),
        (("a cat next to a dog", "a dog next to a cat"), "changes nothing"),
        ((1, 2), "not a caption"),
        ((math.nan, "a cat"), "not a caption"),
    ],
    "1.8": [
        ("an owl above a cat", "A function"),
        (["an owl above a cat"], "A function"),
        (lambda caption: [], "an empty list"),
        (lambda caption: [caption], "it says the same"),
        (lambda caption: [caption.replace("left of", "to the left of")], "it says the same"),
        (lambda caption: [recoloured(caption)], "holds the same words"),
        (lambda caption: [caption.replace("above", "below").replace("left", "right")], "holds the same words"),
        (lambda caption: exchanged(caption) if "left of" in caption else [], "“an owl above a rocket"),
        (lambda caption: "".join(exchanged(caption)), "a list of captions"),
        (lambda caption: [" ".join(reversed(caption.split()))], "no caption of this world"),
        (lambda caption: [" ".join(sorted(caption.split()))], "no caption of this world"),
        (lambda caption: ["a dog left of a cat on a red background"], "holds the same words"),
        (lambda caption: ["asdf"], "Not known here: “asdf”"),
        (lambda caption: [math.nan], "not a caption"),
        (lambda caption: [f"{caption.split(' on ')[0]} on {caption.split(' on ')[2]}"], "IndexError"),
        (lambda caption: 3, "a list of captions"),
    ],
    "1.9": [
        ("a cat", "A list of three pairs"),
        ([("a big cat", "a small cat")], "yours are 1"),
        (["a big cat", "a small cat", "a cat"], "Each pair is two captions"),
        ([("a big cat", "a large cat")] * 3, "mean the same"),
        ([("a cat", "a kitten"), ("a dog", "a puppy"), ("an owl", "an owlet")], "mean the same"),
        ([("a qwer cat", "a tyui cat"), ("a big owl", "a small owl"), ("a dog", "no dog")], "“qwer”, “tyui”"),
        ([("asdf", "qwer")] * 3, "names nothing"),
        ([("a big cat on blue", "a small cat on blue")] * 3, "the same things"),
        (
            [
                ("a big cat on blue", "a small cat on blue"),
                ("a dog left of an owl", "a dog not left of an owl"),
                ("a rocket behind a crown on red", "a crown behind a rocket on red"),
            ],
            "differ in different ways",
        ),
        (
            [
                ("a cat above a dog on red", "a dog above a cat on red"),
                ("an owl above a rocket on red", "a rocket above an owl on red"),
                ("a crown above a frog on red", "a frog above a crown on red"),
            ],
            "tells yours apart",
        ),
        ([("a cat on red", "a cat on blue"), ("an owl on red", "an owl on blue"), ("a dog", "a dog on red")], "tells"),
        ([(1, 2), (3, 4), (5, 6)], "not a caption"),
        ([(math.nan, "a cat")] * 3, "not a caption"),
        (math.nan, "A list of three pairs"),
    ],
}
