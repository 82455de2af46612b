"""Exercises of lesson 2: exact search, a query of one's own, a threshold, and the arithmetic of an index."""

from __future__ import annotations

import functools

from mmlesson.teach.exercises.captions import must_show, name_unknown, read, says_the_model, the_clip
from mmlesson.teach.exercises.checking import Case, NotYet, every, exercise, number, two
from mmlesson.teach.exercises.words import ARTICLES, split


@exercise(
    "2.1",
    "one product gives a cosine for each picture; torch's topk finds the places of the largest ones.",
    "features @ query is one number a picture, [n]. Its topk(k) has two parts, values and indices; the "
    "places are the second part.",
)
def _top_k(answer) -> str:
    import torch
    import torch.nn.functional as F

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for n, dim, k, kind in (
        (50, 16, 5, torch.float32),
        (20, 8, 3, torch.float32),
        (7, 64, 1, torch.float64),
        (12, 4, 12, torch.float32),
    ):
        features = F.normalize(torch.randn(n, dim, generator=generator), dim=-1).to(kind)
        query = F.normalize(torch.randn(dim, generator=generator), dim=-1).to(kind)
        cases.append(Case(f"With {n} pictures of {dim} numbers and k = {k}", (features, query, k)))

    def judge(case: Case, found) -> None:
        features, query, k = case.given
        order = (features @ query).argsort(descending=True).tolist()
        found = _places(found)
        if found == order[:k]:
            return
        if found == order[::-1][:k]:
            raise NotYet(f"these are the {k} that fit least.")
        if len(found) != k:
            raise NotYet(f"it returns {len(found)} places, and {k} are asked for.")
        if sorted(found) == sorted(order[:k]):
            raise NotYet("these are the right places, but the best must come first.")
        raise NotYet(f"it finds {found}, and the {k} nearest are {order[:k]}.")

    every(answer, cases, judge)
    return "Exact search is that: one product of a matrix and a vector, and the largest k."


def _places(found) -> list[int]:
    try:
        numbers = [number(place) for place in found]
    except (TypeError, NotYet):
        raise NotYet("it does not return a row of places (whole numbers).") from None
    if any(place != int(place) for place in numbers):
        raise NotYet("it does not return places (whole numbers), but what looks like scores.")
    return [int(place) for place in numbers]


def _bare(sentence: str) -> tuple[str, ...]:
    """The words of a sentence without its articles: what makes two sentences the same words."""
    return tuple(word for word in split(sentence) if word not in ARTICLES)


@functools.cache
def _hidden_among() -> tuple:
    """(the scene to find, the others), and the features of all of them, [66, dim]."""
    from mmlesson import world

    target = world.scene("owl", "rocket", background="turquoise", relation="above", seed=1)
    others = [world.scene("rocket", "owl", background="turquoise", relation="above", seed=2)]
    others += [world.scene(name, background="turquoise", seed=3 + i) for i, name in enumerate(("owl", "rocket"))]
    others += [world.scene("owl", "rocket", background=colour, relation="above", seed=5) for colour in ("red", "white")]
    others += world.sample(60, "heldout", seed=21)
    return target, others, the_clip().encode_images([scene.render(256) for scene in [target, *others]])


@exercise(
    "2.2",
    'say what it shows, where, and what is behind it, in the way of "on red, a cat with a dog to its right".',
    "four facts have to be in it: an owl, a rocket, which of them is higher, and the turquoise behind them. "
    "Begin with the background, so that it is not the caption itself.",
)
def _query_of_ones_own(answer) -> str:
    import warnings

    meaning = read(answer)
    target, others, features = _hidden_among()
    must_show(meaning, target.concepts, target.background)
    if meaning.left is not None or meaning.above is None:
        raise NotYet("It does not say which of the two is above the other.")
    if meaning.above != target.concepts:
        raise NotYet(f"It says that the {meaning.above[0]} is above the {meaning.above[1]}.")
    if _bare(answer) == _bare(target.caption):
        raise NotYet("That is the caption itself: use words of your own.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an answer may hold words that the model never met
        scores = features @ the_clip().encode_texts([answer])[0]
    found = others[int(scores[1:].argmax())].caption
    agreed = "Your sentence finds it first among 66 pictures, five of which differ from it in one thing."
    return (says_the_model(answer, int(scores.argmax()) == 0, found) or agreed) + name_unknown(meaning)


@exercise(
    "2.3",
    "sort the scores: how many of them may lie at or above the threshold, if one in twenty may pass?",
    "in a sorted list of n scores, n // 20 may lie at or above the threshold: count that many from the end.",
)
def _threshold(answer) -> str:
    import torch

    from mmlesson import runtime

    cases = []
    for n, middle, spread, seed in (
        (400, 0.5, 0.1, 3),
        (1000, 0.3, 0.02, 4),
        (60, -0.2, 0.3, 5),
        (20, 5.0, 2.0, 6),
        (228, 0.2, 0.1, 7),
    ):
        best = (middle + spread * torch.randn(n, generator=runtime.generator(seed))).tolist()
        cases.append(Case(f"With {n} scores around {middle}", (best,)))

    def judge(case: Case, threshold) -> None:
        threshold, [best] = number(threshold), case.given
        passing = sum(score >= threshold for score in best)
        if passing > len(best) // 20:
            raise NotYet(
                f"{passing} of {len(best)} queries that have no answer pass your threshold, more than 1 in 20."
            )
        if passing < int(0.03 * len(best)):
            raise NotYet(
                f"only {passing} of {len(best)} pass: a threshold this high also turns away queries with an answer."
            )

    every(answer, cases, judge)
    return "At most 1 in 20 queries without an answer passes. What it costs those with one has to be measured on them."


@exercise(
    "2.4",
    "recall@5 is the share of ranks up to 5; MRR is the mean of one over each rank.",
    "four of the five ranks are at most 5. For MRR add 1/1, 1/3, 1/12, 1/2 and 1/1, and divide by five.",
)
def _recall_and_mrr(answer) -> str:
    recall, mrr = (number(each) for each in two(answer, "Two numbers are asked for, as in (0.5, 0.25)."))
    ranks = (1, 3, 12, 2, 1)
    truth = 0.8, sum(1 / rank for rank in ranks) / 5
    if abs(recall - truth[1]) <= 0.005 and abs(mrr - truth[0]) <= 0.005:
        raise NotYet("These are the two numbers, the other way round.")
    if abs(recall - truth[0]) > 0.005:
        raise NotYet(f"Recall@5 is not {recall:g}.")
    if abs(mrr - truth[1]) > 0.005:
        raise NotYet(f"The mean reciprocal rank is not {mrr:g}.")
    return "Recall@5 counts four of five; MRR also says how high they stood."


@exercise(
    "2.5",
    "first the query meets the middle of every cell, then every vector in each of the cells that it visits.",
    "there are 250 centres. A cell holds 100,000 / 250 vectors, and the query visits 8 such cells. Add the two.",
)
def _comparisons(answer) -> str:
    value = number(answer)
    mistakes = {
        8 * 400: "These are the vectors in the cells; the middles of the cells were compared as well.",
        100_000: "That is what exact search compares.",
        8 + 8 * 400: "The query does not know which cells are near before it has met the middles of all.",
        250 + 400: "It visits 8 cells and not one.",
    }
    if value != 250 + 8 * 400:
        raise NotYet(mistakes.get(value, f"It is not {value:g}."))
    return (
        "3,450 in place of 100,000: that is the whole gain, and what lies in the cells not visited is the whole loss."
    )


@exercise(
    "2.6",
    "multiply pictures, numbers in a vector and bytes in a number; 1 GB is 10**9 bytes.",
    "100 million times 256 numbers, times 4 bytes each. Then divide by a billion.",
)
def _memory(answer) -> str:
    value = number(answer)
    if abs(value - 102.4) <= 0.5:
        return (
            "102.4 GB: more than a laptop has, which is why large collections are compressed or spread over machines."
        )
    if abs(value - 102.4 / 4) <= 0.2:
        raise NotYet("A float32 takes 4 bytes, not 1.")
    if abs(value - 102.4 / 2) <= 0.2:
        raise NotYet("A float32 takes 4 bytes, not 2.")
    if abs(value - 102.4e9 / 2**30) <= 0.5:
        raise NotYet("That is in units of 2**30 bytes (GiB): 1 GB is 10**9 bytes.")
    if abs(value - 102.4e9) <= 1e9:
        raise NotYet("That is in bytes.")
    raise NotYet(f"It is not {value:g} GB.")
