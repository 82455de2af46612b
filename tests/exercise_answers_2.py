"""Answers to the exercises of lesson 2, as in exercise_answers_1."""

import math

import numpy as np
import torch


def nearest(features, query, k):
    return (features @ query).topk(k).indices


def threshold(best):
    return sorted(best)[int(0.95 * len(best))]


THRESHOLD_OF_ONE = threshold((0.5 + 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(3))).tolist())

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
}
