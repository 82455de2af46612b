"""Open tasks of lesson 2: the cells of an approximate index, and a sentence that does not find its picture."""

from __future__ import annotations

import functools
import warnings

from mmlesson.teach.exercises.captions import name_unknown, the_clip
from mmlesson.teach.exercises.checking import Case, NotYet, every, exercise, number, tensor, text, two
from mmlesson.teach.exercises.words import split, understand

SHARE = 0.25  # of the vectors: so many may a query be compared with
RECALL = 0.7  # so many of the ten nearest must be among them


@exercise(
    "2.7",
    "choose some of the vectors as centres; each vector joins the centre with the largest product. Then a centre may "
    "move to the mean of its cell, and all choose again. A cell that holds nearly everything saves nothing.",
    "torch.randperm chooses the first centres. (features @ centres.T).argmax(dim=1) gives each vector its "
    "cell. index_add adds up the vectors of each cell; scale each sum to length 1. Do the last two five "
    "times.",
)
def _cells(answer) -> str:
    cases, recalls = [], []
    for n, dim, n_cells, seed in ((900, 12, 24, 1), (400, 6, 12, 2), (1500, 20, 40, 3)):
        features, queries = _collection(n, dim, seed)
        says = f"With {n} vectors of {dim} numbers and {n_cells} cells"
        cases.append((Case(says, (features, n_cells)), queries))
    asked = {id(case): queries for case, queries in cases}
    every(
        answer,
        [case for case, _ in cases],
        lambda case, found: recalls.append(_judge_cells(case, found, asked[id(case)])),
    )
    came = ", ".join(f"{recall:.0%}" for recall in recalls)
    return (
        f"A query that is compared with the centres and at most {SHARE:.0%} of the vectors finds {came} of its ten "
        "nearest in the three collections. What would make it more, at the same price?"
    )


def _collection(n: int, dim: int, seed: int):
    """Vectors of unit length [n, dim] in groups, as pictures lie, and 40 queries [40, dim] near some of them."""
    import torch
    import torch.nn.functional as F

    from mmlesson import runtime

    generator = runtime.generator(seed)
    groups = F.normalize(torch.randn(n // 12, dim, generator=generator), dim=-1)
    chosen = groups[torch.randint(len(groups), (n,), generator=generator)]
    features = F.normalize(chosen + 0.5 * torch.randn(n, dim, generator=generator) / dim**0.5, dim=-1)
    near = features[torch.randperm(n, generator=generator)[:40]]
    return features, F.normalize(near + 0.3 * torch.randn(40, dim, generator=generator) / dim**0.5, dim=-1)


def _judge_cells(case: Case, found, queries) -> float:
    """The recall@10 of a search in these cells; NotYet where they are no cells, or where it is too low."""
    import torch

    features, n_cells = case.given
    n, dim = features.shape
    centres, cells = two(found, "two things are asked for, the centres and the cell of each vector.")
    centres = tensor(centres, "the first thing that it returns", (n_cells, dim)).float()
    cells = tensor(cells, "the second thing that it returns", (n,))
    if cells.is_floating_point() or cells.dtype == torch.bool:
        raise NotYet(f"cells are whole numbers, and these are {cells.dtype}.")
    if cells.min() < 0 or cells.max() >= n_cells:
        raise NotYet(f"cells are numbers from 0 to {n_cells - 1}; yours go from {cells.min()} to {cells.max()}.")
    if not centres.isfinite().all():
        raise NotYet("a centre holds infinite numbers.")
    sizes = cells.bincount(minlength=n_cells)
    hits = 0
    for query in queries:
        visited, compared = [], 0
        for cell in (centres @ query).argsort(descending=True).tolist():
            if compared + sizes[cell] > SHARE * n:
                break
            visited.append(cell)
            compared += int(sizes[cell])
        nearest = (features @ query).topk(10).indices
        hits += int(torch.isin(cells[nearest], torch.tensor(visited, dtype=cells.dtype)).sum())
    recall = hits / (10 * len(queries))
    if sizes.max() > SHARE * n:
        raise NotYet(f"one cell holds {int(sizes.max())} of the {n} vectors: a query that visits it saves nothing.")
    if recall < RECALL:
        raise NotYet(
            f"a query that is compared with {SHARE:.0%} of the vectors finds only {recall:.0%} of its ten nearest, and "
            f"{RECALL:.0%} is asked for. Vectors that lie together should share a cell, and its centre lie among them."
        )
    return recall


# ---------------------------------------------------------------------------------------------------
# A failure of one's own


@functools.cache
def _gallery() -> tuple:
    """The 600 scenes of the lesson, and their features [600, dim]."""
    from mmlesson import world

    distinct = {scene.caption: scene for scene in world.sample(640, "heldout", seed=20)}
    scenes, clip = tuple(distinct.values())[:600], the_clip()
    return scenes, clip.encode_images([scene.render(clip.image_size) for scene in scenes])


@exercise(
    "2.8",
    "take the caption of a picture and change one thing: the order of its parts, a word for another one with the same "
    "meaning, a longer or a shorter sentence. Look at the rank after each change.",
    "many captions of one thing on a plain colour can be said as “in front of a … wall stands a …”. Try such "
    "a sentence for several scenes of one thing: captions[135] is one.",
)
def _query_that_fails(answer) -> str:
    sentence, place = two(answer, "A sentence and the number of its picture are asked for.")
    sentence, place = text(sentence), number(place)
    if place != int(place) or not 0 <= place < 600:
        raise NotYet(f"{place:g} is not the number of a scene: they go from 0 to 599.")
    scenes, features = _gallery()
    scene, meaning = scenes[int(place)], understand(sentence)
    _must_describe(sentence, scene)
    if split(sentence)[0] == "all" and split(sentence)[2:6] == ("and", "in", "front", "of"):
        raise NotYet("That is the wording of the page that fails. Find one of your own.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it never met a word may be the reason
        yours, canonical = (
            features
            @ the_clip().encode_texts(
                [
                    each,
                ]
            )[0]
            for each in (sentence, scene.caption)
        )
    rank, rank_of_caption = (1 + int((scores > scores[int(place)]).sum()) for scores in (yours, canonical))
    if rank == 1:
        raise NotYet(f"“{sentence}” finds its picture first. That is no failure.")
    unmet = the_clip().unknown_words([sentence])
    why = (
        f"Its training never held {', '.join(f'“{word}”' for word in unmet)}. "
        if unmet
        else ("The model has met all of its words: so it is the wording. " if the_clip().vocabulary is not None else "")
    )
    return (
        f"It says what picture {int(place)} shows, and finds it at rank {rank} of 600; first comes “"
        f"{scenes[int(yours.argmax())].caption}”. The picture's own caption finds it at rank {rank_of_caption}. {why}"
        f"Does another picture fail in the same way?{name_unknown(meaning)}"
    )


def _must_describe(sentence: str, scene) -> None:
    """NotYet where a sentence does not say all of what a scene shows, or says more."""
    meaning, meant = understand(sentence), understand(scene.caption)
    note = name_unknown(meaning)
    shows = f"The picture shows {scene.caption}."
    if sorted(meaning.things) != sorted(meant.things):
        raise NotYet(f"“{sentence}” does not name the things of its picture. {shows}{note}")
    if meaning.background != meant.background or any(meaning.colours):
        raise NotYet(f"“{sentence}” does not say which colour is behind the things. {shows}{note}")
    if (meaning.above, meaning.left, meaning.many, meaning.negated) != (meant.above, meant.left, False, False):
        raise NotYet(f"“{sentence}” does not say how the things stand. {shows}{note}")
    if len(meaning.unknown) > len(meaning.things) + 1:
        raise NotYet(f"Most of its words say nothing here.{note}")
