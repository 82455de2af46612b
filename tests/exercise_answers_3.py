"""Answers to the exercises of lesson 3, as in exercise_answers_1."""

import math

import torch

from mmlesson.teach.exercises import two_grids

A, B = two_grids()
ROOM = (2, 3, 5)  # n, h, w of the first input that 3.2 is tried on


def flat(latents):
    return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def lowest(score):
    """An answer to 3.2: the row with the lowest score of flat latents `[n·h·w, dim]` and the codebook."""

    def answer(latents, codebook):
        n, _, h, w = latents.shape
        return score(flat(latents), codebook).argmin(-1).reshape(n, h, w)

    return answer


nearest_rows = lowest(lambda flat, codebook: codebook.square().sum(1) - 2 * flat @ codebook.T)


def torn(latents, codebook):
    n, dim, h, w = latents.shape
    return (codebook.square().sum(1) - 2 * latents.reshape(-1, dim) @ codebook.T).argmin(-1).reshape(n, h, w)


def join(left, right, dim=1):
    return torch.cat([left.tensor_split(2, dim)[0], right.tensor_split(2, dim)[1]], dim)


def guidance(image_features, text_features, weights):
    return (1 - image_features @ text_features.T @ weights / weights.abs().sum()).mean()


def painted(decode, fits, latents, steps, lr=0.1, sign=-1):
    """A right answer to 3.7, and wrong ones with another rate or sign."""
    latents = latents.clone().requires_grad_()
    optimizer = torch.optim.Adam([latents], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (sign * fits(decode(latents))).backward()
        optimizer.step()
    return latents.detach()


def by_hand(decode, fits, latents, steps):
    for _ in range(steps):
        latents = latents.detach().requires_grad_()
        [gradient] = torch.autograd.grad(fits(decode(latents)), latents)
        latents = latents + 0.1 * gradient / gradient.square().mean().sqrt()
    return latents


def the_best(decode, fits, latents, steps):
    best, latents = (-2.0, latents), latents.clone().requires_grad_()
    optimizer = torch.optim.RMSprop([latents], lr=0.05)
    for _ in range(steps):
        fit = fits(decode(latents))
        best = max(best, (fit.item(), latents.detach().clone()), key=lambda each: each[0])
        optimizer.zero_grad()
        (-fit).backward()
        optimizer.step()
    return best[1]


def edited(row, column, h, w, other=B):
    grid = A.clone()
    grid[row : row + h, column : column + w] = other[row : row + h, column : column + w]
    return grid


RIGHT = {
    "3.1": [153.6, 154, 153, 96 * 96 * 24 / 1440],
    "3.2": [
        nearest_rows,
        lambda latents, codebook: nearest_rows(latents, codebook).int(),
        lambda latents, codebook: nearest_rows(latents, codebook).tolist(),
        lowest(lambda flat, codebook: (flat[:, None] - codebook).square().sum(-1)),
        lowest(lambda flat, codebook: (flat[:, None] - codebook).norm(dim=-1)),
    ],
    "3.3": [join(A, B), join(A, B)[None], join(A, B).int(), join(A, B).numpy(), join(A, B).tolist()],
    "3.4": [
        lambda latents, rows: latents + (rows - latents).detach(),
        lambda latents, rows: rows.detach() + latents - latents.detach(),
        lambda latents, rows: latents - latents.detach() + rows.detach(),
    ],
    "3.5": [38, 38.0, torch.tensor(38)],
    "3.6": [
        guidance,
        lambda I, T, weights: 1 - ((I @ T.T) * weights).sum(1).mean() / weights.abs().sum(),
        lambda I, T, weights: ((1 - I @ T.T) @ weights / weights.abs().sum()).mean(),  # as the sentence may be read
    ],
    "3.7": [painted, by_hand, the_best, lambda *given: painted(*given).tolist()],
    "3.8": [edited(4, 6, 2, 3), edited(8, 6, 2, 2)[None], edited(8, 4, 2, 3).tolist(), edited(4, 6, 2, 2).numpy()],
}
WRONG = {
    "3.1": [
        (51.2, "one channel"),
        (1536, "not their bits"),
        (192, "8 bits"),
        (96, "16 bits"),
        (24, "int64"),
        (19.2, "bytes of the picture"),
        (1228.8, "bytes of the codes"),
        (1.5, "1,024 bits"),
        (64, "pixels a code"),
        (1440 / 221184, "other way round"),
        (100, "not 100"),
        (150, "not 150"),
        (157, "not 157"),
        ("many", "not a number"),
        ("153.6", "without quotation marks"),
        (math.nan, "nan"),
        (torch.tensor([221184, 1440]), "not a number"),
    ],
    "3.2": [
        (4, "A function"),
        (torn, "torn apart"),
        (lambda latents, codebook: nearest_rows(latents.transpose(2, 3), codebook), "shape [2, 5, 3]"),
        (lambda latents, codebook: nearest_rows(latents, codebook).flatten(), "shape [30]"),
        (lambda latents, codebook: codebook[nearest_rows(latents, codebook)], "returns vectors"),
        (lambda latents, codebook: nearest_rows(latents, codebook).float(), "whole numbers"),
        (lambda latents, codebook: nearest_rows(latents, codebook) * math.nan, "NaN"),
        (lowest(lambda flat, codebook: torch.cdist(flat, codebook)), "uses cdist"),
        (lowest(lambda flat, codebook: 2 * flat @ codebook.T - codebook.square().sum(1)), "farthest"),
        (lowest(lambda flat, codebook: -flat @ codebook.T), "dot product"),
        (lowest(lambda flat, codebook: codebook.square().sum(1) - flat @ codebook.T), "2 of 2 a·b"),
        (lowest(lambda flat, codebook: (flat[:, None] - codebook).abs().sum(-1)), "absolute differences"),
        (lambda latents, codebook: torch.zeros(*ROOM, dtype=torch.int64), "of your codes"),
        (lambda latents, codebook: nearest_rows(latents, codebook).reshape(ROOM), "With latents [1, 7, 6, 2]"),
        (lambda latents, codebook: "codes", "no tensor, but str"),
        (lambda latents, codebook: codebook @ latents, "RuntimeError"),
    ],
    "3.3": [
        (join(B, A), "wrong way round"),
        (A, "unchanged"),
        (B.clone(), "unchanged"),
        (join(A, B, dim=0), "upper and a lower"),
        (torch.cat([A[:, :6], B[:, :6]], dim=1), "left half of b"),
        (torch.cat([A[:, :5], B[:, 5:]], dim=1), "11 of its 12 columns"),
        (join(A, B).float(), "whole numbers"),
        (join(A, B) * math.nan, "NaN"),
        (torch.stack([A, B]), "shape [2, 12, 12]"),
        (torch.cat([A, B], dim=1), "shape [12, 24]"),
        ("a and b", "no tensor, but str"),
        (torch.zeros(12, 12, dtype=torch.int64), "0 of its 12 columns"),
    ],
    "3.4": [
        (4, "A function"),
        (lambda latents, rows: rows, "nothing reaches the latents"),
        (lambda latents, rows: latents, "forwards it is the latents"),
        (lambda latents, rows: rows + (latents - rows).detach(), "forwards it is the latents"),
        (lambda latents, rows: latents + rows, "does not equal rows"),
        (lambda latents, rows: latents + (rows - latents), "0 everywhere"),
        (lambda latents, rows: 2 * latents + (rows - 2 * latents).detach(), "should pass unchanged"),
        (lambda latents, rows: rows + latents - latents.detach(), "reaches the rows"),
        (lambda latents, rows: rows[0], "shape [4, 3, 3]"),
        (lambda latents, rows: (latents + (rows - latents).detach())[:2, :4, :3, :3], "With latents [1, 8, 2, 5]"),
        (lambda latents, rows: latents * math.nan, "NaN"),
        (lambda latents, rows: (latents + (rows - latents).detach()).tolist(), "nothing reaches the latents"),
        (lambda latents, rows: latents.detach() + (rows - latents).detach(), "nothing reaches the latents"),
    ],
    "3.5": [
        (8, "overlap"),
        (96, "whole picture"),
        (1444, "the side is asked"),
        (22, "last convolution"),
        (24, "more than its own 8"),
        (15, "strides"),
        (18, "not 18"),
        (None, "not a number"),
        ("38", "without quotation marks"),
        (math.nan, "nan"),
        ((38, 38), "not a number"),
    ],
    "3.6": [
        (0.5, "A function"),
        (lambda I, T, weights: 1 - I @ T.T @ weights / weights.abs().sum(), "for each cutout"),
        (lambda I, T, weights: 1 - I @ T.T, "shape [5, 3]"),
        (lambda I, T, weights: (1 - I @ T.T @ weights / weights.abs().sum()).sum(), "sum over the cutouts"),
        (lambda I, T, weights: 2 - guidance(I, T, weights), "sign is wrong"),
        (lambda I, T, weights: guidance(I, T, weights) - 1, "the 1 is missing"),
        (lambda I, T, weights: 1 - guidance(I, T, weights), "the weighted cosine itself"),
        (lambda I, T, weights: (1 - I @ T.T).mean(), "no effect"),
        (lambda I, T, weights: guidance(I, T, weights.abs()), "not away from"),
        (lambda I, T, weights: guidance(I, T, weights.clamp(min=0)), "left out"),
        (lambda I, T, weights: 1 - (I @ T.T @ weights.clamp(min=0)).mean() / weights.abs().sum(), "left out"),
        (lambda I, T, weights: (1 - I @ T.T @ weights / weights.sum()).mean(), "without their signs"),
        (lambda I, T, weights: (1 - I @ T.T @ weights / len(weights)).mean(), "not by their number"),
        (lambda I, T, weights: (1 - I @ T.T @ weights).mean(), "is missing"),
        (lambda I, T, weights: guidance(I, T, weights).item(), "no gradient"),
        (lambda I, T, weights: guidance(I.detach(), T, weights), "no gradient"),
        (lambda I, T, weights: (1 - I @ T.T @ weights / 2.2).mean(), "With 1 cutouts and the weights 2"),
        (lambda I, T, weights: torch.tensor(3.0), "should be"),
        (lambda I, T, weights: torch.tensor(math.nan), "nan"),
        (lambda I, T, weights: I @ T, "RuntimeError"),
    ],
    "3.7": [
        (4, "A function"),
        (lambda decode, fits, latents, steps: latents, "as at the start"),
        (lambda *given: painted(*given, lr=1e-4), "as at the start"),
        (lambda *given: painted(*given, sign=1), "the sign is wrong"),
        (lambda decode, fits, latents, steps: painted(decode, fits, latents, 200), "decodes 200 times, and 40 steps"),
        (
            lambda decode, fits, latents, steps: painted(decode, fits, latents, 40),
            "[1, 8, 3, 5] and 15 steps: it decodes 40",
        ),
        (lambda decode, fits, latents, steps: painted(decode, fits, latents, 2), "half of the way"),
        (lambda decode, fits, latents, steps: decode(painted(decode, fits, latents, steps)), "shape [1, 3, 4, 4]"),
        (lambda decode, fits, latents, steps: fits(decode(latents)), "shape []"),
        (lambda decode, fits, latents, steps: latents * math.nan, "NaN"),
        (lambda decode, fits, latents, steps: fits(decode(latents)).backward(), "RuntimeError"),
        (lambda decode, fits, latents, steps: "painted", "no tensor, but str"),
        (lambda decode, fits, latents, steps: torch.zeros(1, 16, 4, 4), "With latents"),
    ],
    "3.8": [
        (A.clone(), "unchanged"),
        (B, "at most 6"),
        (edited(4, 4, 3, 4), "12 of the 144 codes are changed"),
        (edited(0, 0, 1, 1), "still names it a cat"),
        (edited(11, 0, 1, 3), "still names it a cat"),
        (edited(4, 6, 2, 2).float(), "whole numbers"),
        (edited(4, 6, 2, 2, B + 1024), "Codes go from 0 to 1023"),
        (edited(4, 6, 2, 2, -B - 1), "Codes go from 0 to 1023"),
        (A * math.nan, "NaN"),
        (torch.stack([A, B]), "shape [2, 12, 12]"),
        ("a dog", "no tensor, but str"),
        (5, "shape []"),
        (torch.zeros(12, 12, dtype=torch.int64), "at most 6"),
    ],
}
