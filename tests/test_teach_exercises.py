"""Each exercise says right to right answers, and to wrong ones what is wrong."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmlesson.teach import exercises
from mmlesson.teach.exercises import check


def rows(I, T, scale):
    return F.cross_entropy(scale * I @ T.T, torch.arange(len(I)))


def columns(I, T, scale):
    return rows(T, I, scale)


def nearest(features, query, k):
    return (features @ query).topk(k).indices


def nearest_rows(latents, codebook):
    n, dim, h, w = latents.shape
    return torch.cdist(latents.permute(0, 2, 3, 1).reshape(-1, dim), codebook).argmin(-1).reshape(n, h, w)


def torn(latents, codebook):
    n, dim, h, w = latents.shape
    return torch.cdist(latents.reshape(-1, dim), codebook).argmin(-1).reshape(n, h, w)


def largest(score):
    """An answer to 3.2 that takes the row with the largest score, of flat latents `[n·h·w, dim]` and the codebook."""

    def answer(latents, codebook):
        n, dim, h, w = latents.shape
        return score(latents.permute(0, 2, 3, 1).reshape(-1, dim), codebook).argmax(-1).reshape(n, h, w)

    return answer


def join(left, right, dim=1):
    return torch.cat([left.tensor_split(2, dim)[0], right.tensor_split(2, dim)[1]], dim)


def guidance(image_features, text_features, weights):
    return (1 - image_features @ text_features.T @ weights / weights.abs().sum()).mean()


def may_look(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


def next_token_loss(logits, stream):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), stream[:, 1:].flatten())


def top_k(logits, temperature, k):
    return (torch.where(logits < logits.topk(k).values[-1], -math.inf, logits) / temperature).softmax(0)


def guided(told, untold, guidance):
    return untold + guidance * (told - untold)


A, B = exercises.two_grids()

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
    "3.1": [153.6, 154, 96 * 96 * 24 / 1440],
    "3.2": [
        nearest_rows,
        lambda latents, codebook: nearest_rows(latents, codebook).int(),
        lambda *given: nearest_rows(*given).tolist(),
    ],
    "3.3": [join(A, B), join(A, B)[None], join(A, B).int(), join(A, B).numpy(), join(A, B).tolist()],
    "3.4": [
        lambda latents, rows: latents + (rows - latents).detach(),
        lambda latents, rows: rows + latents - latents.detach(),
    ],
    "3.5": [38, 38.0],
    "3.6": [guidance, lambda I, T, weights: 1 - ((I @ T.T) * weights).sum(1).mean() / weights.abs().sum()],
    "4.1": [may_look, lambda length: may_look(length).int(), lambda length: may_look(length).tolist()],
    "4.2": [next_token_loss, lambda logits, stream: next_token_loss(logits, stream).item()],
    "4.3": [(14040, 169), [sum(26 + i for i in range(144)), 26 + 143]],
    "4.4": [top_k, lambda logits, temperature, k: top_k(logits, temperature, k).tolist()],
    "4.5": [guided, lambda told, untold, guidance: guidance * told + (1 - guidance) * untold],
    "4.6": [9, math.ceil(math.log(0.05) / math.log(0.7))],
}
WRONG = {
    "1.1": [
        ("", "not a caption"),
        (3, "not a caption"),
        ("a rocket above a pizza on a red background", "still nearer"),
    ],
    "1.2": [
        (65536, "Two numbers"),
        ((256, 256), "256 cosines"),
        ((65536, 65536), "true pairs"),
        (("a", "b"), "not a number"),
    ],
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
    "1.5": [
        (1, "39%"),
        (0.01, "100%"),
        (0, "above 0"),
        (-1, "above 0"),
        (float("nan"), "above 0"),
        (None, "not a number"),
    ],
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
        ("many", "not a number"),
    ],
    "3.2": [
        (4, "A function"),
        (torn, "torn apart"),
        (lambda latents, codebook: nearest_rows(latents.transpose(2, 3), codebook), "shape [2, 5, 3]"),
        (lambda latents, codebook: nearest_rows(latents, codebook).flatten(), "shape [30]"),
        (lambda latents, codebook: codebook[nearest_rows(latents, codebook)], "returns vectors"),
        (lambda latents, codebook: nearest_rows(latents, codebook).float(), "whole numbers"),
        (largest(torch.cdist), "farthest"),
        (largest(lambda flat, codebook: flat @ codebook.T), "dot product"),
        (largest(lambda flat, codebook: -torch.cdist(flat, codebook, p=1)), "absolute differences"),
        (lambda latents, codebook: torch.zeros(2, 3, 5, dtype=torch.int64), "of your codes"),
        (lambda latents, codebook: "codes", "no tensor, but str"),
        (lambda latents, codebook: None, "returns nothing"),
        (lambda latents, codebook: torch.cdist(latents, codebook), "RuntimeError"),
    ],
    "3.3": [
        (join(B, A), "wrong way round"),
        (A, "unchanged"),
        (B.clone(), "unchanged"),
        (join(A, B, dim=0), "upper and a lower"),
        (torch.cat([A[:, :6], B[:, :6]], dim=1), "left half of b"),
        (torch.cat([A[:, :5], B[:, 5:]], dim=1), "11 of its 12 columns"),
        (join(A, B).float(), "whole numbers"),
        (torch.stack([A, B]), "shape [2, 12, 12]"),
        ("a and b", "no tensor, but str"),
    ],
    "3.4": [
        (4, "A function"),
        (lambda latents, rows: rows, "nothing reaches the latents"),
        (lambda latents, rows: latents, "Forwards it is the latents"),
        (lambda latents, rows: rows + (latents - rows).detach(), "Forwards it is the latents"),
        (lambda latents, rows: latents + rows, "does not equal rows"),
        (lambda latents, rows: latents + (rows - latents), "0 everywhere"),
        (lambda latents, rows: 2 * latents + (rows - 2 * latents).detach(), "should pass unchanged"),
        (lambda latents, rows: rows[0], "shape [4, 3, 3]"),
        (lambda latents, rows: None, "returns nothing"),
    ],
    "3.5": [
        (8, "overlap"),
        (96, "whole picture"),
        (1444, "the side is asked"),
        (22, "last convolution"),
        (24, "more than its own 8"),
        (18, "not 18"),
        (None, "not a number"),
    ],
    "3.6": [
        (0.5, "A function"),
        (lambda I, T, weights: 1 - I @ T.T @ weights / weights.abs().sum(), "for each cutout"),
        (lambda I, T, weights: 1 - I @ T.T, "[5, 3] numbers"),
        (lambda I, T, weights: (1 - I @ T.T @ weights / weights.abs().sum()).sum(), "sum over the cutouts"),
        (lambda I, T, weights: 2 - guidance(I, T, weights), "sign is wrong"),
        (lambda I, T, weights: guidance(I, T, weights) - 1, "The 1 is missing"),
        (lambda I, T, weights: 1 - guidance(I, T, weights), "the weighted cosine itself"),
        (lambda I, T, weights: (1 - I @ T.T).mean(), "no effect"),
        (lambda I, T, weights: guidance(I, T, weights.abs()), "not away from"),
        (lambda I, T, weights: guidance(I, T, weights.clamp(min=0)), "left out"),
        (lambda I, T, weights: 1 - (I @ T.T @ weights.clamp(min=0)).mean() / weights.abs().sum(), "left out"),
        (lambda I, T, weights: (1 - I @ T.T @ weights / weights.sum()).mean(), "without their signs"),
        (lambda I, T, weights: (1 - I @ T.T @ weights / len(weights)).mean(), "how many there are"),
        (lambda I, T, weights: (1 - I @ T.T @ weights).mean(), "is missing"),
        (lambda I, T, weights: guidance(I, T, weights).item(), "no gradient"),
        (lambda I, T, weights: guidance(I.detach(), T, weights), "no gradient"),
        (lambda I, T, weights: torch.tensor(3.0), "should be"),
        (lambda I, T, weights: None, "returns nothing"),
        (lambda I, T, weights: I @ T, "RuntimeError"),
    ],
    "4.1": [
        (4, "A function"),
        (lambda length: may_look(length).T, "only what comes after"),
        (lambda length: may_look(length).tril(-1), "itself too"),
        (lambda length: ~may_look(length), "cheating"),
        (lambda length: torch.ones(length, length), "verything may look"),
        (lambda length: torch.eye(length), "itself alone"),
        (lambda length: torch.randn(length, length), "True and False"),
        (lambda length: may_look(length + 1), "shape [8, 8]"),
        (lambda length: may_look(length).tril(0) & (torch.arange(length) != 1), "Row 3"),
    ],
    "4.2": [
        (lambda logits, stream: F.cross_entropy(logits.flatten(0, 1), stream.flatten()), "has just read"),
        (
            lambda logits, stream: F.cross_entropy(logits[:, 1:].flatten(0, 1), stream[:, :-1].flatten()),
            "the token before",
        ),
        (lambda logits, stream: 15 * next_token_loss(logits, stream), "sum over all"),
        (lambda logits, stream: 5 * next_token_loss(logits, stream), "sum over the places"),
        (lambda logits, stream: -next_token_loss(logits, stream), "sign"),
        (lambda logits, stream: next_token_loss(logits.softmax(-1), stream), "takes logits"),
        (lambda logits, stream: 7, "should be"),
        (lambda logits, stream: F.cross_entropy(logits, stream), "raises"),
    ],
    "4.3": [
        (14040, "Two numbers"),
        ((169, 14040), "other way round"),
        ((26 * 144, 169), "drawn so far are read again"),
        ((sum(range(144)), 169), "caption is read every time"),
        ((sum(range(27, 171)), 169), "never read"),
        ((170 * 144, 169), "short at first"),
        ((7, 169), "not 7"),
        ((14040, 170), "never read"),
        ((14040, 144), "once"),
        ((14040, 7), "not 7"),
        ((math.nan, 169), "not nan"),
        ((26 * 144 + 0.7, 169), "not 3744.7"),
        ((14040, math.inf), "not inf"),
    ],
    "4.4": [
        (lambda logits, t, k: (logits / t).softmax(0), "no effect"),
        (lambda logits, t, k: top_k(logits, 1, k), "temperature has no effect"),
        (lambda logits, t, k: top_k(logits, 1 / t, k), "divided by the temperature: a low"),
        (lambda logits, t, k: (logits / t).softmax(0) * (top_k(logits, t, k) > 0), "before the softmax"),
        (lambda logits, t, k: top_k(logits, 1, k) / t, "not the probabilities"),
        (lambda logits, t, k: torch.where(logits < logits.topk(k).values[-1], 0, logits / t).softmax(0), "-inf is"),
        (lambda logits, t, k: logits, "sum to 1"),
        (lambda logits, t, k: top_k(logits, t, k + 1), "The likeliest of the 4"),
    ],
    "4.5": [
        (lambda told, untold, g: told + g * (told - untold), "start from untold"),
        (lambda told, untold, g: told + g * (untold - told), "towards what would"),
        (lambda told, untold, g: untold + g * (untold - told), "away from the caption"),
        (lambda told, untold, g: told, "no effect"),
        (lambda told, untold, g: g * told, "only sharpens"),
        (lambda told, untold, g: g * (told - untold), "is missing"),
        (lambda told, untold, g: told + untold, "three times as far"),
        (lambda told, untold, g: guided(told, untold, 3), "at 1 it should"),
    ],
    "4.6": [
        (8, "5.8 %"),
        (10, "fewer"),
        (8.4, "round up"),
        (3.17, "do not add up"),
        (4, "on average"),
        (1 / 0.3, "on average"),
        (100, "not 100"),
        (math.inf, "not inf"),
        ("many", "not a number"),
    ],
}


def test_every_exercise_is_tried():
    assert set(WRONG) == set(exercises._CHECKS) == set(RIGHT) | {"1.6"}


@pytest.mark.parametrize(
    "number, answer", [(number, answer) for number, answers in RIGHT.items() for answer in answers]
)
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
    order = (
        load_clip().similarity(world.scene("pizza", background="turquoise", seed=2).render(256), labels)[0].argsort()
    )
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


def test_the_two_grids_are_the_callers_own():
    grid, other = exercises.two_grids()
    assert grid.dtype == torch.int64 and grid.shape == other.shape == (12, 12) and not torch.equal(grid, other)
    grid.zero_()
    assert torch.equal(exercises.two_grids()[0], A)


def test_a_logit_sees_a_patch_as_large_as_the_exercise_says():
    """By gradients: which pixels a logit in the middle depends on, group normalisation aside, which looks at the whole picture."""
    import copy

    from mmlesson import load_vqgan

    discriminator = copy.deepcopy(load_vqgan(device="cpu").discriminator)
    for place, layer in enumerate(discriminator.layers):
        if isinstance(layer, torch.nn.GroupNorm):
            discriminator.layers[place] = torch.nn.Identity()
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    discriminator(pixels)[0, 6, 6].backward()
    seen = pixels.grad[0].abs().sum(0) > 0  # [96, 96]
    side = exercises._patch_side(discriminator)
    assert seen.any(0).sum() == seen.any(1).sum() == side == 38 and seen.sum() == side**2
    assert check("3.5", side)
