"""Exercises of lesson 1: captions, the contrastive loss, temperature, what fools a classifier, word order."""

from __future__ import annotations

import difflib
import math

from mmlesson.teach.exercises.captions import (
    another_clip,
    cosines,
    must_show,
    name_unknown,
    read,
    says_the_model,
    the_clip,
)
from mmlesson.teach.exercises.checking import Case, NotYet, compare, every, exercise, number, scalar, text, two
from mmlesson.teach.exercises.words import split, understand


@exercise(
    "1.1",
    'say what is there and what is behind it, in the way of "a frog on a red background".',
    "the picture holds one animal on one colour. Begin with the animal and its article, and end with the "
    "colour of the background.",
)
def _own_caption(answer) -> str:
    from mmlesson import world

    meaning = read(answer)
    must_show(meaning, ("cat",), "blue")
    others = [scene.caption for scene in world.sample(6, "heldout", seed=6)]
    yours, *theirs = cosines(world.scene("cat", background="blue", seed=1).render(256), [answer, *others])
    nearer = others[theirs.index(max(theirs))]
    agreed = "It says what the picture shows, and the model finds it nearer to the picture than all six."
    return (says_the_model(answer, yours > max(theirs), nearer) or agreed) + name_unknown(meaning)


@exercise(
    "1.2",
    "each of the 256 pictures meets each of the 256 texts, and has one text of its own.",
    "a table of 256 rows and 256 columns has so many cells; the true pairs lie on its diagonal, one in each row.",
)
def _cells_of_a_batch(answer) -> str:
    found, true = two(answer, "Two numbers are asked for, as in (10, 5).")
    if number(found) != 256 * 256:
        if number(found) == 256 and number(true) == 256 * 256:
            raise NotYet("These are the two numbers, the other way round.")
        raise NotYet(f"A batch of 256 pairs does not make {found} cosines.")
    if number(true) != 256:
        raise NotYet(f"{true} is not the number of true pairs.")
    return "65,536 cosines, 256 of them of true pairs: 65,280 wrong answers for free."


def _losses(I, T, scale):
    """(of pictures that choose texts, of texts that choose pictures)."""
    import torch
    import torch.nn.functional as F

    right = torch.arange(len(I))
    return F.cross_entropy(scale * I @ T.T, right).item(), F.cross_entropy(scale * T @ I.T, right).item()


@exercise(
    "1.3",
    "logits are cosines times the scale, [n, n]; F.cross_entropy reads rows; which column is right in row i?",
    "the cell with contrastive_loss computes both directions. Keep the one that takes the logits as they "
    "are, and leave out the one that turns them on their side. The right column of row i is i.",
)
def _one_direction(answer) -> str:
    import torch
    import torch.nn.functional as F

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for n, dim, scale in ((6, 16, 10.0), (9, 5, 3.0), (2, 40, 50.0), (17, 8, 1.0)):
        I, T = (F.normalize(torch.randn(n, dim, generator=generator), dim=-1) for _ in range(2))
        cases.append(Case(f"With {n} pairs of {dim} numbers and logit_scale = {scale:g}", (I, T, scale)))

    def judge(case: Case, loss) -> None:
        loss = scalar(loss)
        I, T, scale = case.given
        rows, columns = _losses(I, T, scale)
        mistakes = [
            (columns, "this is the other direction: texts choose their pictures."),
            ((rows + columns) / 2, "this is the loss of both directions."),
            (rows + columns, "this is the sum of both directions."),
            (_losses(I, T, 1)[0], "the logit scale is missing."),
            (_losses(I, T, 1 / scale)[0], "cosines are multiplied by the scale, not divided by it."),
            (rows * len(I), "this is the sum over the pictures: a batch's loss is their mean."),
            (-rows, "the sign is wrong: a loss is smallest where the answers are right."),
        ]
        compare(loss, rows, mistakes)

    every(answer, cases, judge)
    return "Each row of the matrix is a question, and its cross-entropy is the loss of one direction."


@exercise(
    "1.4",
    "the right answer has probability 1/64, and cross-entropy is minus its natural logarithm.",
    "math.log is the natural logarithm. Minus the logarithm of 1/n is the logarithm of n, and here n is 64.",
)
def _blind_guess(answer) -> str:
    value = number(answer)
    if abs(value - math.log2(64)) < 0.01:
        raise NotYet("That is in bits: cross-entropy uses the natural logarithm.")
    if abs(value + math.log(64)) < 0.01:
        raise NotYet("The sign is wrong: a loss is above 0.")
    if abs(value - math.log10(64)) < 0.01:
        raise NotYet("That is the logarithm of base 10: cross-entropy uses the natural one.")
    if abs(value - math.log(64)) > 0.01:
        raise NotYet(f"It is not {value:g}.")
    return "log 64 = 4.16: the dashed line that a loss curve has to leave behind."


@exercise(
    "1.5",
    "a higher temperature makes the softmax less sure. Try one, look at the share, and go up or down.",
    "the temperatures of the figure above go from 0.03 to 1. At 0.1 the best label has far more than half, "
    "and at 1 less than half: halve the distance between the two until the share fits.",
)
def _half_sure(answer) -> str:
    value = number(answer)
    if value <= 0:
        raise NotYet(f"A temperature is above 0; {value:g} is not.")
    weights = [math.exp((cosine - 0.80) / value) for cosine in (0.80, 0.60, 0.50)]
    best = weights[0] / sum(weights)
    if not 0.45 <= best <= 0.55:
        raise NotYet(f"At T = {value:g} the best label gets {best:.0%}.")
    return f"At T = {value:.2g} the best label gets {best:.0%}."


PIZZA_PROMPTS = ("a picture of a cat", "a picture of a dog", "a picture of a person")  # the labels of the page


@exercise(
    "1.6",
    "one label that is a little like the picture, and one that is nothing like it; the temperature does the rest.",
    'clip.similarity(pizza, ["a picture of …", …]) gives cosines. Look for a label whose cosine is highest '
    "among the wrong ones, and put beside it one whose cosine is far lower.",
)
def _fool_it(answer) -> str:
    import torch

    from mmlesson import world

    if not isinstance(answer, (list, tuple)):
        raise NotYet("A list of labels is asked for.")
    labels = [text(label) for label in answer]
    page = {understand(prompt).scene for prompt in PIZZA_PROMPTS}
    meanings = [understand(label) for label in labels]
    pizza = {name for name in (*split(" ".join(world.concept("pizza").aliases)), "pizza")}
    for label, meaning in zip(labels, meanings, strict=True):
        if "pizza" in meaning.things or any(
            difflib.get_close_matches(word, pizza, cutoff=0.75) for word in meaning.words
        ):
            raise NotYet(f"“{label}” names the pizza.")
        if not meaning.things:
            raise NotYet(f"“{label}” names nothing that the pocket world can show.{name_unknown(meaning)}")
    if len({meaning.scene for meaning in meanings}) < 2:
        raise NotYet("At least two labels that differ are asked for: the only one of its kind always gets 100 %.")
    if {meaning.scene for meaning in meanings} <= page:
        raise NotYet("These are the labels of the cell above. Find labels of your own.")
    picture = world.scene("pizza", background="turquoise", seed=2).render(256)
    share = (torch.tensor(cosines(picture, labels)) / the_clip().temperature).softmax(dim=0)
    if share.max() <= 0.9:
        raise NotYet(f"It is {share.max():.0%} sure of “{labels[share.argmax()]}”.{another_clip()}")
    return "It is sure of a wrong label: among the labels that it was given, that one fits best."


@exercise(
    "1.7",
    "take two things and one word that says how they stand, or what one does to the other; exchange the two things.",
    "write “a cat above a dog on a red background”. Now write it again with the cat and the dog in each "
    "other's places, and every other word where it was.",
)
def _same_words(answer) -> str:
    one, other = (understand(text(caption)) for caption in two(answer, "Two captions are asked for."))
    if sorted(one.words) != sorted(other.words):
        differ = sorted(set(one.words) ^ set(other.words))
        raise NotYet(
            f"Their words differ: {', '.join(differ)}." if differ else "One of them repeats a word more often."
        )
    if one.words == other.words:
        raise NotYet("They are the same caption.")
    note = name_unknown(one)
    if not one.things:
        raise NotYet(f"They name nothing that the pocket world can show.{note}")
    done = "A model that only asks which words are there cannot tell these two apart."
    if one.scene != other.scene:
        return done
    if len(one.things) < 2:
        raise NotYet(f"They say the same, and do not name two things that could be exchanged.{note}")
    if one.above or one.left:
        raise NotYet("Both say the same: in both, the same thing stands in the same place.")
    if one.things == other.things:
        raise NotYet(f"Both name their things in the same order, so they say the same.{note}")
    if note:
        raise NotYet(f"As far as this check can read, they say the same.{note}")
    raise NotYet("They say the same: exchanging what “and” or “with” joins changes nothing.")
