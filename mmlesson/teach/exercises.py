"""The exercises: `check("1.3", answer)` says right, or what is wrong and a hint.

Each check asks for a property, not for the pocket models' exact numbers, so that it holds under another
`MMLESSON_CLIP` too. `...` in place of an answer is not wrong, only not answered yet.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What `check` returns: true where the answer is right; shows itself as a sentence."""

    right: bool
    says: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.says


class NotYet(Exception):
    """Raised by a check: what is wrong, and a hint."""

    def __init__(self, wrong: str, hint: str):
        super().__init__(wrong)
        self.wrong, self.hint = wrong, hint


_CHECKS: dict[str, Callable] = {}


def exercise(number: str):
    """Registers a function that takes an answer and returns praise, or raises NotYet."""

    def register(function: Callable) -> Callable:
        _CHECKS[number] = function
        return function

    return register


def check(number: str, answer) -> Verdict:
    """Checks the answer to an exercise. KeyError for a number that no exercise has."""
    if number not in _CHECKS:
        raise KeyError(f"There is no exercise {number!r}; there are {', '.join(_CHECKS)}.")
    if answer is ... or (isinstance(answer, (tuple, list)) and any(part is ... for part in answer)):
        return Verdict(False, f"Exercise {number}: not answered yet. Put your answer in place of the three dots.")
    try:
        return Verdict(True, f"Exercise {number}: right. {_CHECKS[number](answer)}")
    except NotYet as verdict:
        return Verdict(False, f"Exercise {number}: not yet. {verdict.wrong} Hint: {verdict.hint}")


@functools.cache
def _clip():
    from mmlesson.clip import load_clip

    return load_clip()


def _number(answer, hint: str) -> float:
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise NotYet(f"{answer!r} is not a number.", hint) from None


def _text(answer, hint: str) -> str:
    if not isinstance(answer, str) or not answer.strip():
        raise NotYet(f"{answer!r} is not a caption.", hint)
    return answer


def _cosines(image, texts: list[str]) -> list[float]:
    """Cosines of one picture with texts, without the warning about unknown words: an answer may hold any."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _clip().similarity(image, texts)[0].tolist()


# ---------------------------------------------------------------------------------------------------
# Lesson 1


@exercise("1.1")
def _own_caption(answer) -> str:
    from mmlesson import world

    hint = 'say what is there and what is behind it, as in "a frog on a red background".'
    answer = _text(answer, hint)
    others = [scene.caption for scene in world.sample(6, "heldout", seed=6)]
    yours, *theirs = _cosines(world.scene("cat", background="blue", seed=1).render(256), [answer, *others])
    if answer in others:
        raise NotYet("That is one of the six captions.", hint)
    if yours <= max(theirs):
        nearer = others[theirs.index(max(theirs))]
        raise NotYet(f"“{nearer}” is still nearer to the picture than yours.", hint)
    return "Your caption is nearer to the picture than all six."


@exercise("1.2")
def _cells_of_a_batch(answer) -> str:
    hint = "every one of the 256 pictures meets every one of the 256 texts, and has one text of its own."
    try:
        cosines, true = answer
    except (TypeError, ValueError):
        raise NotYet("Two numbers are asked for, as in (10, 5).", hint) from None
    if _number(cosines, hint) != 256 * 256:
        raise NotYet(f"A batch of 256 pairs does not make {cosines} cosines.", hint)
    if _number(true, hint) != 256:
        raise NotYet(f"{true} is not the number of true pairs.", hint)
    return "65,536 cosines, 256 of them of true pairs: 65,280 wrong answers for free."


@exercise("1.3")
def _one_direction(answer) -> str:
    import torch
    import torch.nn.functional as F

    from mmlesson import runtime

    hint = "logits are scaled cosines [n, n]; F.cross_entropy reads rows; the answer to row i is i."
    if not callable(answer):
        raise NotYet("A function is asked for.", hint)
    generator = runtime.generator(0)
    I, T = (F.normalize(torch.randn(6, 16, generator=generator), dim=-1) for _ in range(2))
    try:
        loss = answer(I, T, 10.0)
    except Exception as error:
        raise NotYet(f"Your function raises {type(error).__name__}: {error}.", hint) from None
    if loss is None:
        raise NotYet("Your function returns nothing.", hint)
    try:
        loss = float(loss)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet("Your function returns no single number.", hint) from None
    rows = F.cross_entropy(10 * I @ T.T, torch.arange(6)).item()
    columns = F.cross_entropy(10 * T @ I.T, torch.arange(6)).item()
    if abs(loss - rows) < 1e-4:
        return "Each row of the matrix is a question, and its cross-entropy is the loss of one direction."
    if abs(loss - columns) < 1e-4:
        raise NotYet("This is the other direction: texts choose their pictures.", hint)
    if abs(loss - (rows + columns) / 2) < 1e-4:
        raise NotYet("This is the loss of both directions.", hint)
    if abs(loss - F.cross_entropy(I @ T.T, torch.arange(6)).item()) < 1e-4:
        raise NotYet("The logit scale is missing.", hint)
    raise NotYet(f"On random features yours gives {loss:.4f}, and it should be {rows:.4f}.", hint)


@exercise("1.4")
def _blind_guess(answer) -> str:
    hint = "the right answer has probability 1/64, and cross-entropy is minus its natural logarithm."
    value = _number(answer, hint)
    if abs(value - math.log2(64)) < 0.01:
        raise NotYet("That is in bits: cross-entropy uses the natural logarithm.", hint)
    if abs(value - math.log(64)) > 0.01:
        raise NotYet(f"It is not {value:g}.", hint)
    return "log 64 = 4.16: the dashed line that a loss curve has to leave behind."


@exercise("1.5")
def _half_sure(answer) -> str:
    hint = "a higher temperature makes the softmax less sure; at T = 1 the best label has 39 %, at T = 0.1 it has 84 %."
    value = _number(answer, hint)
    if not value > 0 or not math.isfinite(value):
        raise NotYet(f"A temperature is above 0; {value:g} is not.", hint)
    weights = [math.exp((cosine - 0.80) / value) for cosine in (0.80, 0.60, 0.50)]
    best = weights[0] / sum(weights)
    if not 0.45 <= best <= 0.55:
        raise NotYet(f"At T = {value:g} the best label gets {best:.0%}.", hint)
    return f"At T = {value:.2g} the best label gets {best:.0%}."


@exercise("1.6")
def _fool_it(answer) -> str:
    import torch

    from mmlesson import world

    hint = "one label that is a little like a pizza and one that is nothing like it; the temperature does the rest."
    if isinstance(answer, str) or not hasattr(answer, "__iter__"):
        raise NotYet("A list of labels is asked for.", hint)
    labels = [_text(label, hint) for label in answer]
    if len(set(labels)) < 2:
        raise NotYet("At least two different labels are asked for: the only one of its kind always gets 100 %.", hint)
    if any("pizza" in label.lower() for label in labels):
        raise NotYet("One of your labels names the pizza.", hint)
    cosines = torch.tensor(_cosines(world.scene("pizza", background="turquoise", seed=2).render(256), labels))
    share = (cosines / _clip().temperature).softmax(dim=0)
    if share.max() <= 0.9:
        raise NotYet(f"It is {share.max():.0%} sure of “{labels[share.argmax()]}”.", hint)
    return "It is sure of a wrong label: among the labels that it was given, that one fits best."


@exercise("1.7")
def _same_words(answer) -> str:
    hint = 'exchange the two things in "a cat left of a dog on a blue background".'
    try:
        one, other = answer
    except (TypeError, ValueError):
        raise NotYet("Two captions are asked for.", hint) from None
    one, other = (_text(caption, hint).lower().split() for caption in (one, other))
    if sorted(one) != sorted(other):
        differ = sorted(set(one) ^ set(other))
        raise NotYet(
            f"Their words differ: {', '.join(differ)}." if differ else "One of them repeats a word more often.", hint
        )
    if one == other:
        raise NotYet("They are the same caption.", hint)
    if len(one) < 4:
        raise NotYet("They are too short to say how two things stand.", hint)
    return "A model that only asks which words are there cannot tell these two apart."


# ---------------------------------------------------------------------------------------------------
# Lesson 2


def _call(function, *arguments, hint: str):
    """What a learner's function returns; NotYet where it is none, raises, or returns nothing."""
    if not callable(function):
        raise NotYet("A function is asked for.", hint)
    try:
        value = function(*arguments)
    except Exception as error:
        raise NotYet(f"Your function raises {type(error).__name__}: {error}.", hint) from None
    if value is None or value is ...:
        raise NotYet("Your function returns nothing yet.", hint)
    return value


@exercise("2.1")
def _top_k(answer) -> str:
    import torch

    from mmlesson import runtime

    hint = "scores = features @ query is one cosine a picture; scores.topk(k).indices are the places of the k largest."
    generator = runtime.generator(0)
    features = torch.nn.functional.normalize(torch.randn(50, 16, generator=generator), dim=-1)
    query = torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=-1)
    truth = sorted(range(50), key=lambda place: -float(features[place] @ query))
    found = _call(answer, features, query, 5, hint=hint)
    try:
        found = [int(place) for place in found]
    except (TypeError, ValueError):
        raise NotYet("It does not return a row of places (whole numbers).", hint) from None
    if found == truth[:5]:
        return "Exact search is that: one product of a matrix and a vector, and the largest k."
    if found == truth[::-1][:5]:
        raise NotYet("These are the five that fit least.", hint)
    if sorted(found) == sorted(truth[:5]):
        raise NotYet("These are the right five, but the best must come first.", hint)
    if len(found) != 5:
        raise NotYet(f"Asked for 5 places it returns {len(found)}.", hint)
    raise NotYet(f"It finds {found}, and the five nearest are {truth[:5]}.", hint)


@exercise("2.2")
def _query_of_ones_own(answer) -> str:
    from mmlesson import world

    hint = 'say what it shows, where, and what is behind it, as in "on red, a cat with a dog to its right".'
    answer = _text(answer, hint)
    target = world.scene("owl", "rocket", background="turquoise", relation="above", seed=1)
    if answer.strip().lower() == target.caption:
        raise NotYet("That is the caption itself: use words of your own.", hint)
    others = [world.scene("rocket", "owl", background="turquoise", relation="above", seed=2)]
    others += [
        world.scene("owl", background="turquoise", seed=3),
        world.scene("rocket", background="turquoise", seed=4),
    ]
    others += [world.scene("owl", "rocket", background=colour, relation="above", seed=5) for colour in ("red", "white")]
    others += world.sample(60, "heldout", seed=21)
    scores = _clip().encode_images([scene.render(256) for scene in [target, *others]]) @ _query(answer)
    if scores.argmax() != 0:
        found = others[int(scores[1:].argmax())].caption
        raise NotYet(f"It finds “{found}” first.", hint)
    return "Your sentence finds it first among 66 pictures, five of which differ from it in one thing."


def _query(text: str):
    """The embedding of a text, `[dim]`, without the warning about unknown words."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _clip().encode_texts([text])[0]


@exercise("2.3")
def _threshold(answer) -> str:
    import torch

    from mmlesson import runtime

    hint = "sort the best scores of queries without an answer: at most one in twenty may lie at or above the threshold."
    best = (0.5 + 0.1 * torch.randn(400, generator=runtime.generator(3))).tolist()
    threshold = _number(_call(answer, best, hint=hint), hint)
    passing = sum(score >= threshold for score in best) / len(best)
    if passing > 0.05:
        raise NotYet(f"{passing:.1%} of 400 queries that have no answer pass your threshold.", hint)
    if passing < 0.03:
        raise NotYet(
            f"Only {passing:.1%} pass: a threshold this high also turns away queries that do have an answer.", hint
        )
    return (
        f"{passing:.1%} of 400 queries without an answer pass. What it costs those with one has to be measured on them."
    )


@exercise("2.4")
def _recall_and_mrr(answer) -> str:
    hint = "recall@5 is the share of ranks up to 5; MRR is the mean of 1/1, 1/3, 1/12, 1/2 and 1/1."
    try:
        recall, mrr = answer
    except (TypeError, ValueError):
        raise NotYet("Two numbers are asked for, as in (0.5, 0.25).", hint) from None
    ranks = (1, 3, 12, 2, 1)
    if abs(_number(recall, hint) - 0.8) > 0.005:
        raise NotYet(f"Recall@5 is not {recall}.", hint)
    if abs(_number(mrr, hint) - sum(1 / rank for rank in ranks) / 5) > 0.005:
        raise NotYet(f"The mean reciprocal rank is not {mrr}.", hint)
    return "Recall@5 counts four of five; MRR also says how high they stood."


@exercise("2.5")
def _comparisons(answer) -> str:
    hint = "first the query meets the middle of every cell, then every vector in the 8 cells it visits, of 100,000 / 250 each."
    value = _number(answer, hint)
    if value == 8 * 400:
        raise NotYet("These are the vectors in the cells; the middles of the cells were compared as well.", hint)
    if value == 100_000:
        raise NotYet("That is what exact search compares.", hint)
    if value != 250 + 8 * 400:
        raise NotYet(f"It is not {value:g}.", hint)
    return (
        "3,450 in place of 100,000: that is the whole gain, and what lies in the cells not visited is the whole loss."
    )


@exercise("2.6")
def _memory(answer) -> str:
    hint = "100 million vectors, 256 numbers each, 4 bytes a number; 1 GB is 10**9 bytes."
    value = _number(answer, hint)
    if abs(value - 102.4) <= 0.5:
        return (
            "102.4 GB: more than a laptop has, which is why large collections are compressed or spread over machines."
        )
    if abs(value - 102.4 / 4) <= 0.2:
        raise NotYet("A float32 takes 4 bytes, not 1.", hint)
    if abs(value - 102.4e9) <= 1e9:
        raise NotYet("That is in bytes.", hint)
    raise NotYet(f"It is not {value:g} GB.", hint)


# ---------------------------------------------------------------------------------------------------
# Lesson 3


@functools.cache
def _vqgan():
    from mmlesson.vqgan import load_vqgan

    return load_vqgan()


@functools.cache
def _encoded():
    from mmlesson import world

    scenes = world.scene("cat", background="blue", seed=1), world.scene("pizza", background="yellow", seed=2)
    return _vqgan().encode([scene.render(_vqgan().config.image_size) for scene in scenes])  # [2, h, w]


def two_grids():
    """a, b: the codes of the two scenes that exercise 3.3 joins, each int64 `[h, w]` and the caller's own to change."""
    a, b = _encoded().clone()
    return a, b


def _tensor(value, what: str, shape: tuple[int, ...], hint: str):
    """What a learner's function returned, as a tensor of `shape`; NotYet where it is none."""
    import torch

    if not isinstance(value, torch.Tensor):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise NotYet(f"{what} is no tensor, but {type(value).__name__}.", hint) from None
    if tuple(value.shape) != shape:
        raise NotYet(f"{what} has shape {list(value.shape)}, and {list(shape)} is asked for.", hint)
    return value


def _near(value, other, tolerance: float = 1e-4) -> bool:
    return bool(((value - other).abs() <= tolerance).all())


@exercise("3.1")
def _fewer_bits(answer) -> str:
    hint = "the picture is 96 × 96 pixels of 3 channels of 8 bits; its codes are 12 × 12, and a number below 1,024 = 2¹⁰ takes 10 bits."
    value = _number(answer, hint)
    picture, codes = 96 * 96 * 3 * 8, 12 * 12 * 10
    if 150 <= value <= 157:
        return (
            "221,184 bits become 1,440, 154 times fewer: what the codebook knows of the world need not be written down."
        )
    mistakes = {
        picture / 3 / codes: "That is for one channel: a pixel has red, green and blue.",
        picture / 144: "That counts the codes, not their bits: to name one of 1,024 takes more than one bit.",
        picture / 144 / 8: "That counts numbers, or a code as 8 bits, which name 256 codes and not 1,024.",
        picture / 144 / 16: "That counts a code as 16 bits: they would name 65,536 codes.",
        picture / 144 / 64: "That counts a code as the 64 bits of an int64: its name needs fewer.",
        picture / 8 / codes: "That is bytes of the picture over bits of the codes.",
        picture / (codes / 8): "That is bits of the picture over bytes of the codes.",
        picture / 144 / 1024: "That counts a code as 1,024 bits: 1,024 is how many codes there are.",
        96 * 96 / 144: "That is pixels a code: what counts here is bits.",
        codes / picture: "That is the other way round.",
    }
    for mistaken, wrong in mistakes.items():
        if abs(value - mistaken) <= 0.02 * mistaken:
            raise NotYet(wrong, hint)
    raise NotYet(f"It is not {value:g}.", hint)


@exercise("3.2")
def _nearest(answer) -> str:
    import torch

    from mmlesson import runtime
    from mmlesson.vqgan import Quantiser

    hint = (
        "put dim last with latents.permute(0, 2, 3, 1); torch.cdist of [n·h·w, dim] and the codebook is a distance to each row; "
        "the smallest one's place is the code; reshape to [n, h, w]."
    )
    n, dim, h, w, n_codes = 2, 4, 3, 5, 24
    generator = runtime.generator(0)
    quantiser = Quantiser(n_codes, dim)
    quantiser.codebook.copy_(
        2 * torch.rand(n_codes, 1, generator=generator) * torch.randn(n_codes, dim, generator=generator)
    )
    latents = torch.randn(n, dim, h, w, generator=generator)
    truth, codebook = quantiser.nearest(latents), quantiser.codebook.clone()
    found = _call(answer, latents.clone(), codebook.clone(), hint=hint)
    if isinstance(found, torch.Tensor) and found.ndim == 4 and dim in (found.shape[1], found.shape[3]):
        raise NotYet("It returns vectors; the number of the row in the codebook is asked for.", hint)
    found = _tensor(found, "What it returns", (n, h, w), hint)
    if found.is_floating_point() or found.dtype == torch.bool:
        raise NotYet(f"Codes are whole numbers (int64), and these are {found.dtype}.", hint)

    def by(measure, flat, largest: bool = False):
        values = measure(flat)  # [n·h·w, n_codes]
        return (values.argmax(-1) if largest else values.argmin(-1)).reshape(n, h, w)

    flat = latents.permute(0, 2, 3, 1).reshape(-1, dim)
    if torch.equal(found, truth):
        return "Each latent becomes the name of the nearest vector in the codebook: that is all that quantising is."
    if torch.equal(found, by(lambda flat: torch.cdist(flat, codebook), flat, largest=True)):
        raise NotYet("These are the farthest rows.", hint)
    if torch.equal(found, by(lambda flat: flat @ codebook.T, flat, largest=True)):
        raise NotYet("These are the rows with the largest dot product: a long row wins although it is not near.", hint)
    if torch.equal(found, by(lambda flat: torch.cdist(flat, codebook, p=1), flat)):
        raise NotYet(
            "These are nearest by the sum of absolute differences; the square root of the sum of squares is asked for.",
            hint,
        )
    torn = [
        latents.reshape(-1, dim),
        latents.permute(0, 3, 2, 1).reshape(-1, dim),
        latents.permute(1, 0, 2, 3).reshape(-1, dim),
    ]
    if any(torch.equal(found, by(lambda flat: torch.cdist(flat, codebook), each)) for each in torn):
        raise NotYet(
            "The shape is right, but the numbers of a latent were torn apart: reshape alone does not move dim to the end.",
            hint,
        )
    share = (found == truth).float().mean().item()
    raise NotYet(f"On random numbers {share:.0%} of your codes are those of the nearest rows.", hint)


@exercise("3.3")
def _two_halves(answer) -> str:
    import torch

    a, b = two_grids()
    h, w = a.shape
    hint = f"columns 0 to {w // 2 - 1} are a[:, :{w // 2}], the others b[:, {w // 2}:]; torch.cat(…, dim=1) joins them."
    if isinstance(answer, torch.Tensor) and answer.ndim == 3 and len(answer) == 1:
        answer = answer[0]
    grid = _tensor(answer, "Your grid", (h, w), hint)
    if grid.is_floating_point():
        raise NotYet(f"Codes are whole numbers, and these are {grid.dtype}.", hint)

    def join(left, right):
        return torch.cat([left[:, : w // 2], right[:, w // 2 :]], dim=1)

    if torch.equal(grid, join(a, b)):
        return "Decode it: each half paints its own picture, and only at the seam, where the decoder looks at both, do they mix."
    if torch.equal(grid, join(b, a)):
        raise NotYet("The halves are the wrong way round.", hint)
    if torch.equal(grid, a) or torch.equal(grid, b):
        raise NotYet("That is one of the two grids, unchanged.", hint)
    if any(torch.equal(grid, torch.cat([up[: h // 2], down[h // 2 :]])) for up, down in ((a, b), (b, a))):
        raise NotYet("That is an upper and a lower half: the first index is the row, the second the column.", hint)
    if torch.equal(grid, torch.cat([a[:, : w // 2], b[:, : w // 2]], dim=1)):
        raise NotYet("The right half of yours is the left half of b.", hint)
    columns = [bool((grid[:, j] == join(a, b)[:, j]).all()) for j in range(w)]
    raise NotYet(f"{columns.count(True)} of its {w} columns are right.", hint)


def _patch_side(discriminator) -> int:
    """Pixels a side that one logit of a patch discriminator sees, from the sizes and strides of its convolutions."""
    import torch

    side = 1
    for layer in reversed([module for module in discriminator.modules() if isinstance(module, torch.nn.Conv2d)]):
        side = (side - 1) * layer.stride[0] + layer.kernel_size[0]
    return side


@exercise("3.4")
def _straight_through(answer) -> str:
    import torch

    from mmlesson import runtime

    hint = "latents + (rows - latents) equals rows; detach the bracket, and backwards only the first term is left."
    generator = runtime.generator(0)
    latents, rows, pull = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    latents.requires_grad_()
    out = _tensor(_call(answer, latents, rows, hint=hint), "What it returns", (2, 4, 3, 3), hint)
    if not _near(out.detach(), rows, 1e-5):
        if _near(out.detach(), latents.detach(), 1e-5):
            raise NotYet("Forwards it is the latents: the decoder has to get the rows of the codebook.", hint)
        raise NotYet("Forwards it does not equal rows.", hint)
    gradient = torch.autograd.grad((out * pull).sum(), latents, allow_unused=True)[0] if out.requires_grad else None
    if gradient is None:
        raise NotYet("Forwards it is right, but backwards nothing reaches the latents.", hint)
    if not gradient.any():
        raise NotYet(
            "The gradient of the latents is 0 everywhere: what is added and what is taken away cancel backwards too.",
            hint,
        )
    if not _near(gradient, pull, 1e-5):
        raise NotYet(
            "A gradient reaches the latents, but it is not the one that came in: it should pass unchanged.", hint
        )
    return "Choosing the nearest row has no gradient of its own, so the step is taken forwards and skipped backwards."


@exercise("3.5")
def _patch(answer) -> str:
    hint = (
        "walk backwards from one logit: before a convolution with kernel k and stride s, a square of side r comes from one of "
        "(r - 1) · s + k; start at r = 1, first the last convolution (3, stride 1), then three of (4, stride 2)."
    )
    value, side = _number(answer, hint), _patch_side(_vqgan().discriminator)
    size = _vqgan().config.image_size
    if value == side:
        return (
            f"{side} of {size} pixels: it can tell whether an edge is crisp, not whether a cat has two eyes. "
            "(Only its normalisation takes the mean and the spread of the whole picture.)"
        )
    if value == 8:
        raise NotYet("8 pixels is how far the patches of neighbouring logits lie apart: they overlap.", hint)
    if value == size:
        raise NotYet("That is the whole picture: such a discriminator would say all or nothing.", hint)
    if value == side**2:
        raise NotYet("That is how many pixels it sees; the side is asked for.", hint)
    if value == 22:
        raise NotYet("That leaves out the last convolution, which looks at 3 × 3 places.", hint)
    if value == 24:
        raise NotYet("3 places of 8 pixels are 24, but each place has itself seen more than its own 8.", hint)
    raise NotYet(f"It is not {value:g}.", hint)


@exercise("3.6")
def _guidance(answer) -> str:
    import torch
    import torch.nn.functional as F

    from mmlesson import runtime

    hint = (
        "cosines = image_features @ text_features.T, [cutouts, prompts]; their weighted sum over the prompts, divided by "
        "weights.abs().sum(), is one number a cutout; the loss is the mean of 1 minus it."
    )
    generator = runtime.generator(0)
    image_features, text_features = (
        F.normalize(torch.randn(count, 16, generator=generator), dim=-1) for count in (5, 3)
    )
    weights = torch.tensor([1.0, 0.5, -0.7])
    cosines = image_features @ text_features.T  # [cutouts, prompts]
    each = 1 - cosines @ weights / weights.abs().sum()  # [cutouts]
    truth = each.mean()
    loss = _call(answer, image_features.clone().requires_grad_(), text_features.clone(), weights.clone(), hint=hint)
    if isinstance(loss, torch.Tensor) and loss.numel() > 1:
        if loss.shape == each.shape and _near(loss.detach(), each):
            raise NotYet("That is a number for each cutout: a loss is one number, their mean.", hint)
        raise NotYet(f"It returns {list(loss.shape)} numbers, and a loss is one.", hint)
    value = _number(loss.detach() if isinstance(loss, torch.Tensor) else loss, hint)
    mistakes = {
        each.sum(): "That is the sum over the cutouts: with more of them it grows. Take their mean.",
        2 - truth: "The sign is wrong: this loss is lowest where the picture fits least.",
        truth - 1: "The 1 is missing: the gradient is the same, but a perfect picture should cost 0.",
        1 - truth: "That is the weighted cosine itself: lowering it paints away from the prompts.",
        1 - cosines.mean(): "The weights have no effect.",
        1
        - (cosines @ weights.abs()).mean()
        / weights.abs().sum(): "A prompt with a negative weight is painted towards, not away from.",
        1
        - (cosines @ weights.clamp(min=0)).mean()
        / weights.clamp(min=0).sum(): "Prompts with a negative weight are left out.",
        1
        - (cosines @ weights.clamp(min=0)).mean() / weights.abs().sum(): "Prompts with a negative weight are left out.",
        1
        - (cosines @ weights).mean()
        / weights.sum(): "Divide by the sum of the weights without their signs: 1 and -1 would divide by 0.",
        1
        - (cosines @ weights).mean() / 3: "Divide by the weights' sum without their signs, not by how many there are.",
        1 - (cosines @ weights).mean(): "The division by the sum of the weights without their signs is missing.",
    }
    if abs(value - truth) > 1e-4:
        for mistaken, wrong in mistakes.items():
            if abs(value - mistaken) <= 1e-4:
                raise NotYet(wrong, hint)
        raise NotYet(f"On random features yours gives {value:.4f}, and it should be {truth:.4f}.", hint)
    if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
        raise NotYet(
            "The number is right, but no gradient comes back from it: keep it a tensor, without .item() and .detach().",
            hint,
        )
    return "One number says how far the picture is from the sentence, and its gradient says which way to change every code."


# ---------------------------------------------------------------------------------------------------
# Lesson 4


@exercise("4.1")
def _may_look(answer) -> str:
    import torch

    hint = "torch.ones(length, length, dtype=torch.bool).tril() is True on the diagonal and below it."
    truth = torch.ones(7, 7, dtype=torch.bool).tril()
    mask = _tensor(_call(answer, 7, hint=hint), "What it returns", (7, 7), hint)
    if mask.dtype != torch.bool and not torch.isin(mask, torch.tensor([0, 1]).to(mask)).all():
        raise NotYet("It does not hold True and False alone.", hint)
    mask = mask.bool()
    mistakes = [
        (truth.T, "Rows look and columns are looked at: yours lets a token see only what comes after it."),
        (truth.tril(-1), "A token may look at itself too: the first one would have nothing to look at."),
        (~truth, "True stands for “may look”, and yours is True where looking would be cheating."),
        (torch.ones_like(truth), "Everything may look at everything: then the answer is seen before it is guessed."),
        (torch.eye(7, dtype=torch.bool), "Each token sees itself alone: it knows nothing of the caption."),
    ]
    for mistaken, wrong in mistakes:
        if torch.equal(mask, mistaken):
            raise NotYet(wrong, hint)
    if not torch.equal(mask, truth):
        raise NotYet(
            f"Row 3 (counted from 1) should be True in columns 1 to 3; yours is {mask[2].int().tolist()}.", hint
        )
    return "So one pass over a stream asks as many questions as it has tokens, and none of them is given away."


@exercise("4.2")
def _next_token_loss(answer) -> str:
    import torch
    import torch.nn.functional as F

    from mmlesson import runtime

    hint = "logits[:, :-1] are the guesses and stream[:, 1:] what came; F.cross_entropy wants [questions, n_tokens] and [questions]: flatten(0, 1) both."
    generator = runtime.generator(0)
    logits = 2 * torch.randn(3, 6, 9, generator=generator)  # [n, length, n_tokens]
    stream = torch.randint(9, (3, 6), generator=generator)

    def entropy(guesses, tokens):
        return F.cross_entropy(guesses.flatten(0, 1), tokens.flatten()).item()

    truth = entropy(logits[:, :-1], stream[:, 1:])
    value = _number(_call(answer, logits.clone(), stream.clone(), hint=hint), hint)
    if abs(value - truth) <= 1e-4:
        return "That is all there is to GPT and to DALL-E: guess the next token, everywhere at once."
    mistakes = {
        entropy(logits, stream): "That asks each place for its own token, which it has just read: shift by one.",
        entropy(logits[:, 1:], stream[:, :-1]): "That is shifted the wrong way: it asks for the token before.",
        truth * 15: "That is the sum over all questions: take their mean.",
        truth * 5: "That is the sum over the places: take the mean over all questions.",
        -truth: "The sign is wrong: the loss is smallest where the guesses are right.",
        entropy(logits[:, :-1].softmax(-1), stream[:, 1:]): "F.cross_entropy takes logits and does the softmax itself.",
    }
    for mistaken, wrong in mistakes.items():
        if abs(value - mistaken) <= 1e-4:
            raise NotYet(wrong, hint)
    raise NotYet(f"On random logits yours gives {value:.4f}, and it should be {truth:.4f}.", hint)


@exercise("4.3")
def _tokens_read(answer) -> str:
    hint = "without: 26 for the first code, 27 for the second, …, 169 for the last; with: each of the 26 + 143 tokens that are read at all, once."
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise NotYet("Two numbers are asked for: (without the cache, with it).", hint)
    without, with_cache = (_number(value, hint) for value in answer)
    right = sum(range(26, 170)), 169
    if (without, with_cache) == (right[1], right[0]):
        raise NotYet("These are the two, the other way round.", hint)
    wrong = {
        26 * 144: "That reads the caption again and again, but the codes drawn so far are read again as well.",
        sum(range(144)): "The caption is read every time too.",
        sum(range(27, 171)): "The last code is drawn, and never read.",
        170 * 144: "The stream is short at first: it grows with every code.",
    }
    if without != right[0]:
        raise NotYet(wrong.get(without, f"Without the cache it is not {without:g}."), hint)
    if with_cache != right[1]:
        said = {
            170: "The last code is drawn, and never read.",
            144: "The caption is read too, once.",
            143: "The caption is read too, once.",
        }
        raise NotYet(said.get(with_cache, f"With the cache it is not {with_cache:g}."), hint)
    return f"{right[0] / right[1]:.0f} times fewer. What a token was for the others, its keys and values, does not change when more tokens follow."


@exercise("4.4")
def _top_k_at_a_temperature(answer) -> str:
    import torch

    from mmlesson import runtime

    hint = "least = logits.topk(k).values[-1]; put -inf where logits < least, divide by the temperature, softmax."
    logits, temperature, k = 2 * torch.randn(12, generator=runtime.generator(0)), 0.5, 4
    kept = torch.where(logits < logits.topk(k).values[-1], -math.inf, logits)
    truth = (kept / temperature).softmax(0)
    value = _tensor(_call(answer, logits.clone(), temperature, k, hint=hint), "What it returns", (12,), hint).float()
    if _near(value, truth):
        return "A low temperature and a small k are safe and dull; a high one and all codes are bold, and often wrong."
    mistakes = [
        ((logits / temperature).softmax(0), "All codes can still be drawn: the top k has no effect."),
        (kept.softmax(0), "The temperature has no effect."),
        (
            (kept * temperature).softmax(0),
            "Logits are divided by the temperature: a low one makes the likeliest likelier.",
        ),
        (
            (logits / temperature).softmax(0) * torch.isfinite(kept),
            "These do not sum to 1: what is left out has to go before the softmax.",
        ),
        (kept.softmax(0) / temperature, "The logits are divided by the temperature, not the probabilities."),
        (
            torch.where(logits < logits.topk(k).values[-1], 0, logits / temperature).softmax(0),
            "A logit of 0 is not impossible: -inf is.",
        ),
    ]
    for mistaken, wrong in mistakes:
        if _near(value, mistaken):
            raise NotYet(wrong, hint)
    if abs(float(value.sum()) - 1) > 1e-4:
        raise NotYet(f"Probabilities sum to 1; yours to {float(value.sum()):.3f}.", hint)
    raise NotYet(
        f"The likeliest of the {k} should have {float(truth.max()):.3f}; with yours it has {float(value.max()):.3f}.",
        hint,
    )


@exercise("4.5")
def _away_from_no_caption(answer) -> str:
    import torch

    from mmlesson import runtime

    hint = "start at untold, and go so many times as far as from untold to told: untold + guidance * (told - untold)."
    told, untold = torch.randn(2, 10, generator=runtime.generator(0))

    def asked(guidance: float):
        return _tensor(
            _call(answer, told.clone(), untold.clone(), guidance, hint=hint), "What it returns", (10,), hint
        ).float()

    value, truth = asked(3.0), untold + 3 * (told - untold)
    mistakes = [
        (told + 3 * (told - untold), "At guidance 1 nothing should change, and yours moves: start from untold."),
        (told + 3 * (untold - told), "That moves towards what would be drawn without a caption."),
        (untold + 3 * (untold - told), "That moves away from the caption."),
        (told, "Guidance has no effect."),
        (3 * told, "That only sharpens what the caption says; what would come anyway is not taken away."),
        (3 * (told - untold), "The starting point, untold, is missing."),
    ]
    for mistaken, wrong in mistakes:
        if _near(value, mistaken):
            raise NotYet(wrong, hint)
    if not _near(value, truth):
        raise NotYet("At guidance 3 it is not three times as far from untold as told is.", hint)
    if not (_near(asked(1.0), told) and _near(asked(0.0), untold)):
        raise NotYet("It is right for 3, but at 1 it should be told itself, and at 0 untold.", hint)
    return "What the caption adds is made three times as large: a help to a network that hardly listens, too much for one that listens well."


@exercise("4.6")
def _how_many_to_choose_from(answer) -> str:
    hint = "all n fail with probability (1 - 0.3)ⁿ; find the first n for which that is at most 0.05."
    value = _number(answer, hint)
    if value == 9:
        return "Nine, if somebody can tell which of them is right. That is what CLIP is for; DALL-E's authors let it choose from 512."
    mistakes = {
        8: "With 8, all fail in 5.8 % of all cases: nearly.",
        10: "It is enough, but fewer are.",
        4: "That is 1 / 0.3: so many show one right picture on average.",
    }
    if 8 < value < 9:
        raise NotYet("Nobody draws part of a picture: round up.", hint)
    if abs(value - 1 / 0.3) < 0.01:
        raise NotYet(mistakes[4], hint)
    if abs(value - 0.95 / 0.3) < 0.1:
        raise NotYet("Chances do not add up: two pictures with 0.3 each fail together with 0.7 · 0.7.", hint)
    raise NotYet(mistakes.get(value, f"It is not {value:g}."), hint)
