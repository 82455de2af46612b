"""Answers to the exercises of lesson 2, as in exercise_answers_1."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def nearest(features, query, k):
    return (features @ query).topk(k).indices


def threshold(best):
    return sorted(best)[len(best) - len(best) // 20]


THRESHOLD_OF_ONE = threshold((0.5 + 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(3))).tolist())


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def around(centres, features):
    return centres, (features @ centres.T).argmax(dim=1)


def chosen(features, n_cells):
    return around(features[torch.randperm(len(features), generator=draws())[:n_cells]], features)


def k_means(features, n_cells):
    centres, cells = chosen(features, n_cells)
    for _ in range(5):
        sums = torch.zeros_like(centres).index_add(0, cells, features)
        centres, cells = around(F.normalize(sums + 1e-6 * centres, dim=1), features)
    return centres, cells


def far_apart(features, n_cells):
    places = [0]
    while len(places) < n_cells:
        places.append(int((features @ features[places].T).amax(dim=1).argmin()))
    return around(features[places], features)


def at_random(features, n_cells):
    cells = torch.randint(n_cells, (len(features),), generator=draws())
    return torch.stack([features[cells == cell].mean(dim=0) for cell in range(n_cells)]), cells


def in_slices(features, n_cells):
    cells = features[:, 0].argsort().argsort() * n_cells // len(features)
    return torch.stack([features[cells == cell].mean(dim=0) for cell in range(n_cells)]), cells


RIGHT = {
    "2.1": [
        nearest,
        lambda features, query, k: nearest(features, query, k).tolist(),
        lambda features, query, k: (features @ query).argsort(descending=True)[:k].numpy(),
        lambda features, query, k: sorted(range(len(features)), key=lambda i: -float(features[i] @ query))[:k],
    ],
    "2.2": [
        "on turquoise, an owl with a rocket under it",
        "a rocket below an owl, turquoise background",
        "an owl on top of a spaceship, all teal",
        "at the bottom a rocket, at the top an owl, in front of an aqua backdrop",
    ],
    "2.3": [
        threshold,
        lambda best: torch.tensor(best).quantile(0.955).item(),
        lambda best: np.sort(best)[-(len(best) // 20)],
        lambda best: torch.tensor(best).topk(len(best) // 20).values[-1],
    ],
    "2.4": [
        (0.8, 0.583),
        (4 / 5, (1 + 1 / 3 + 1 / 12 + 1 / 2 + 1) / 5),
        torch.tensor([0.8, 0.5833]),
        [np.float64(0.8), 0.58],
    ],
    "2.5": [3450, 250 + 8 * 100_000 // 250, torch.tensor(3450), 3450.0],
    "2.6": [102.4, 102, 100_000_000 * 256 * 4 / 1e9],
    "2.7": [
        chosen,
        k_means,
        far_apart,
        lambda features, n_cells: [each.numpy() for each in k_means(features, n_cells)],
    ],
    "2.8": [
        ("in front of a green wall stands a cat", 135),
        ["the whole background of this picture is white and in it we see a swan", 22],
        ("i can see a mobile phone and behind it the colour turquoise", torch.tensor(154)),
        ("Everything here is grey, except a motorcycle.", 6.0),
    ],
}
WRONG = {
    "2.1": [
        (4, "A function"),
        ([3, 1, 2], "A function"),
        (lambda features, query, k: nearest(-features, query, k), "fit least"),
        (lambda features, query, k: nearest(features, query, k).flip(0), "best must come first"),
        (lambda features, query, k: nearest(features, query, k + 1), "returns 6"),
        (
            lambda features, query, k: nearest(features, query, 5),
            "With 20 pictures of 8 numbers and k = 3: it returns 5",
        ),
        (lambda features, query, k: (features @ query).topk(k).values, "whole numbers"),
        (lambda features, query, k: "abcde", "whole numbers"),
        (lambda features, query, k: (features @ query).topk(k), "whole numbers"),
        (lambda features, query, k: [math.nan] * k, "whole numbers"),
        (lambda features, query, k: list(range(k)), "nearest are"),
        (lambda features, query, k: features[:50] @ query[:3], "RuntimeError"),
        (lambda features, query, k: (features @ query.float()).topk(k).indices, "With 7 pictures"),
        (lambda features, query, k: 0, "whole numbers"),
    ],
    "2.2": [
        (7, "not a caption"),
        (math.nan, "not a caption"),
        ("an owl above a rocket on a turquoise background", "the caption itself"),
        ("An owl above a rocket on a turquoise background.", "the caption itself"),
        ("owl above rocket on turquoise background", "the caption itself"),
        ("turquoise owl rocket", "that the thing is turquoise"),
        ("an owl and a rocket on turquoise", "which of the two is above"),
        ("on turquoise, a rocket with an owl under it", "rocket is above the owl"),
        ("an owl, alone, on turquoise", "does not name the rocket"),
        ("on red, a cat with a dog to its right", "does not name the owl"),
        ("an owl over a rocket on a red background", "It says red"),
        ("an owl over a rocket", "which colour"),
        ("an owl left of a rocket on turquoise", "which of the two is above"),
        ("asdf qwer", "Not known here: “asdf”, “qwer”"),
        ("owl over rocket, turquoise, no background", "“no”"),
    ],
    "2.3": [
        (0.7, "A function"),
        (lambda best: "high", "text"),
        (lambda best: torch.tensor(best).median().item(), "have no answer pass"),
        (lambda best: max(best) + 1, "this high"),
        (lambda best: sorted(best)[-20], "With 1000 scores around 0.3: only 20 of 1000"),
        (lambda best: 0.66, "With"),
        (lambda best: best[int(0.95 * len(best))], "With"),  # not sorted
        (lambda best: sorted(best)[int(0.95 * len(best))], "With 228 scores around 0.2: 12 of 228"),
        (lambda best: math.nan, "nan"),
        (lambda best: sorted(best)[int(0.05 * len(best))], "more than 1 in 20"),
        (lambda best: [threshold(best)] * 2, "not a number"),
        (lambda best: 0.05, "more than 1 in 20"),
        (lambda best: THRESHOLD_OF_ONE, "With 1000"),
    ],
    "2.4": [
        (0.8, "Two numbers"),
        ((0.5, 0.25), "Recall@5 is not 0.5"),
        ((0.6, 0.583), "Recall@5"),
        ((0.583, 0.8), "other way round"),
        ((0.8, 0.5), "reciprocal"),
        ((80, 58.3), "Recall@5"),
        ((4, 0.583), "Recall@5"),
        (("a", 1), "not a number"),
        ((0.8, math.nan), "nan"),
        ((0.8, 3.8), "reciprocal"),
        ((None, 0.583), "not a number"),
    ],
    "2.5": [
        (3200, "middles"),
        (100_000, "exact search"),
        (8, "not 8"),
        (3208, "middles of all"),
        (650, "8 cells"),
        (400, "not 400"),
        (None, "not a number"),
        ("3450", "without quotation marks"),
        (math.nan, "nan"),
        (3450.5, "not 3450.5"),
    ],
    "2.6": [
        (25.6, "4 bytes"),
        (51.2, "4 bytes"),
        (102.4e9, "in bytes"),
        (102.4e9 / 2**30, "2**30"),
        (12, "not 12"),
        (100_000_000, "not 1e+08"),
        (0.1024, "not 0.1024"),
        ([], "not a number"),
        ("102.4 GB", "without quotation marks"),
        (math.nan, "nan"),
    ],
    "2.7": [
        (4, "A function"),
        (lambda features, n_cells: chosen(features, n_cells)[1], "Yours are 900"),
        (lambda features, n_cells: "cells", "two things are asked for"),
        (lambda features, n_cells: chosen(features, n_cells)[::-1], "shape [900]"),
        (lambda features, n_cells: chosen(features, 24), "With 400 vectors"),
        (at_random, "finds only"),
        (in_slices, "finds only"),
        (
            lambda features, n_cells: (features[:n_cells], torch.zeros(len(features), dtype=torch.int64)),
            "one cell holds 900",
        ),
        (lambda features, n_cells: (chosen(features, n_cells)[0].flip(0), chosen(features, n_cells)[1]), "finds only"),
        (lambda features, n_cells: (features[:n_cells], chosen(features, n_cells)[1] + 1), "from 0 to 23"),
        (lambda features, n_cells: (features[:n_cells], features @ features[0]), "whole numbers"),
        (lambda features, n_cells: (features[:n_cells] * math.nan, chosen(features, n_cells)[1]), "NaN"),
        (lambda features, n_cells: features[:n_cells] @ features, "RuntimeError"),
    ],
    "2.8": [
        ("a cat on green", "A sentence and the number"),
        (("a cat on a green background", 135), "finds its picture first"),
        (("all green, and in front of it a cat", 135), "wording of the page"),
        (("in front of a red wall stands a cat", 135), "which colour"),
        (("in front of a green wall stands a dog", 135), "does not name the things"),
        (("in front of a green wall stand two cats", 135), "how the things stand"),
        (("in front of a green wall stands no cat", 135), "how the things stand"),
        (("a dog on a purple background with a thinking face", 140), "how the things stand"),
        (("asdf", 135), "Not known here: “asdf”"),
        (("qwer tyui a cat asdf on green", 135), "Most of its words"),
        (("in front of a green wall stands a cat", 600), "from 0 to 599"),
        (("in front of a green wall stands a cat", "135"), "without quotation marks"),
        (("in front of a green wall stands a cat", math.nan), "nan"),
        ((135, "a cat on green"), "not a caption"),
    ],
}
