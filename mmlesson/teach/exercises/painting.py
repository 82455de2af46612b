"""Exercises of lesson 3: bits, the nearest row, two halves, straight through, patches, the loss of a painting."""

from __future__ import annotations

import functools

from mmlesson.teach.exercises.checking import (
    Case,
    NotYet,
    compare,
    every,
    exercise,
    must_teach,
    near,
    number,
    same,
    scalar,
    tensor,
)


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


@exercise(
    "3.1",
    "count the bits of the picture, then those of all its codes, and divide.",
    "the picture has 96 · 96 pixels of 3 · 8 bits. The grid has 12 · 12 codes of 10 bits.",
)
def _fewer_bits(answer) -> str:
    value = number(answer)
    picture, codes = 96 * 96 * 3 * 8, 12 * 12 * 10
    if abs(value - picture / codes) <= 0.6:  # 153.6, or a whole number beside it
        return "221,184 bits become 1,440, 154 times fewer: the codebook knows the rest of what the world looks like."
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
        if abs(value - mistaken) <= 0.005 * mistaken:
            raise NotYet(wrong)
    raise NotYet(f"It is not {value:g}.")


def _without_cdist(function):
    """The same function, in which torch.cdist says that it is not the way that the exercise asks for."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Without(TorchFunctionMode):
        def __torch_function__(self, called, types, args=(), kwargs=None):
            if called is torch.cdist:
                raise NotYet("it uses cdist: the exercise asks for the way without it.")
            return called(*args, **(kwargs or {}))

    def run(*given):
        with Without():
            return function(*given)

    return run if callable(function) else function


@exercise(
    "3.2",
    "put dim last with latents.permute(0, 2, 3, 1); then |b|² − 2 a·b is smallest for the row that is nearest, and "
    "argmin over the rows gives its place.",
    "codebook.square().sum(1) is |b|², one number a row. From it subtract twice the product of the permuted "
    "latents and codebook.T; then take argmin over the last dimension.",
)
def _nearest(answer) -> str:
    import torch

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for n, dim, h, w, n_codes, kind in (
        (2, 4, 3, 5, 24, torch.float32),
        (1, 7, 6, 2, 9, torch.float32),
        (3, 3, 4, 4, 50, torch.float64),
        (2, 16, 1, 6, 2, torch.float32),
    ):
        lengths = 2 * torch.rand(n_codes, 1, generator=generator)  # rows of all lengths: a long one is not a near one
        codebook = (lengths * torch.randn(n_codes, dim, generator=generator)).to(kind)
        latents = torch.randn(n, dim, h, w, generator=generator).to(kind)
        cases.append(Case(f"With latents {[n, dim, h, w]} and {n_codes} codes", (latents, codebook)))
    every(_without_cdist(answer), cases, _judge_nearest)
    return "Each latent becomes the name of the nearest vector in the codebook: that is all that quantising is."


def _judge_nearest(case: Case, found) -> None:
    import torch

    latents, codebook = case.given
    n, dim, h, w = latents.shape
    if isinstance(found, torch.Tensor) and found.ndim == 4 and dim in (found.shape[1], found.shape[3]):
        raise NotYet("it returns vectors; the number of the row in the codebook is asked for.")
    found = tensor(found, "what it returns", (n, h, w))
    if found.is_floating_point() or found.dtype == torch.bool:
        raise NotYet(f"codes are whole numbers (int64), and these are {found.dtype}.")

    def nearest(vectors, p: float = 2.0):
        return torch.cdist(vectors, codebook, p=p).argmin(-1).reshape(n, h, w)

    flat = latents.permute(0, 2, 3, 1).reshape(-1, dim)
    truth = nearest(flat)
    if torch.equal(found, truth.to(found)):
        return
    torn = [latents.reshape(-1, dim), latents.permute(0, 3, 2, 1).reshape(-1, dim)]
    torn.append(latents.permute(1, 0, 2, 3).reshape(-1, dim))
    apart = "the numbers of a latent were torn apart: reshape alone does not move dim to the end."
    longest = "these are the rows with the largest dot product: a long row wins although it is not near."
    mistakes = [
        (torch.cdist(flat, codebook).argmax(-1).reshape(n, h, w), "these are the farthest rows."),
        ((flat @ codebook.T).argmax(-1).reshape(n, h, w), longest),
        ((codebook.square().sum(1) - flat @ codebook.T).argmin(-1).reshape(n, h, w), "the 2 of 2 a·b is missing."),
        (
            nearest(flat, p=1.0),
            "these are nearest by the sum of absolute differences; the sum of squares is asked for.",
        ),
        *((nearest(each), apart) for each in torn),
    ]
    for mistaken, wrong in mistakes:
        if torch.equal(found, mistaken.to(found)):
            raise NotYet(wrong)
    share = (found == truth).float().mean().item()
    raise NotYet(f"{share:.0%} of your codes are those of the nearest rows.")


@exercise(
    "3.3",
    "the first index of a grid is its row, the second its column; torch.cat(…, dim=1) joins columns.",
    "the left half are the columns 0 to 5, [:, :6]; the right half are the columns 6 to 11.",
)
def _two_halves(answer) -> str:
    import torch

    a, b = two_grids()
    h, w = a.shape
    if isinstance(answer, torch.Tensor) and answer.ndim == 3 and len(answer) == 1:
        answer = answer[0]
    grid = tensor(answer, "Your grid", (h, w))
    if grid.is_floating_point() or grid.dtype == torch.bool:
        raise NotYet(f"Codes are whole numbers, and these are {grid.dtype}.")
    grid = grid.to(a)

    def join(left, right):
        return torch.cat([left[:, : w // 2], right[:, w // 2 :]], dim=1)

    if torch.equal(grid, join(a, b)):
        return (
            "Decode it: each half paints its own picture, and they mix only at the seam, where the decoder sees both."
        )
    if torch.equal(grid, join(b, a)):
        raise NotYet("The halves are the wrong way round.")
    if torch.equal(grid, a) or torch.equal(grid, b):
        raise NotYet("That is one of the two grids, unchanged.")
    if any(torch.equal(grid, torch.cat([up[: h // 2], down[h // 2 :]])) for up, down in ((a, b), (b, a))):
        raise NotYet("That is an upper and a lower half: the first index is the row, the second the column.")
    if torch.equal(grid, torch.cat([a[:, : w // 2], b[:, : w // 2]], dim=1)):
        raise NotYet("The right half of yours is the left half of b.")
    columns = [bool((grid[:, j] == join(a, b)[:, j]).all()) for j in range(w)]
    raise NotYet(f"{columns.count(True)} of its {w} columns are right.")


@exercise(
    "3.4",
    "start from the latents, add what is missing to the rows, and detach that part.",
    "what is missing is rows minus latents. With .detach() behind that difference its value counts, and its "
    "gradient does not.",
)
def _straight_through(answer) -> str:
    import torch

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for shape in ((2, 4, 3, 3), (1, 8, 2, 5), (3, 1, 1, 4)):
        latents, rows = (torch.randn(shape, generator=generator).requires_grad_() for _ in range(2))
        cases.append(Case(f"With latents {list(shape)}", (latents, rows)))

    def judge(case: Case, out) -> None:
        latents, rows = case.given
        out = tensor(out, "what it returns", tuple(latents.shape))
        if not near(out.detach(), rows.detach(), 1e-5):
            if near(out.detach(), latents.detach(), 1e-5):
                raise NotYet("forwards it is the latents: the decoder has to get the rows of the codebook.")
            raise NotYet("forwards it does not equal rows.")
        pull = torch.randn(latents.shape, generator=generator)
        of_latents, of_rows = (
            torch.autograd.grad((out * pull).sum(), case.given, allow_unused=True)
            if out.requires_grad
            else (None, None)
        )
        if of_latents is None:
            raise NotYet("forwards it is right, but backwards nothing reaches the latents.")
        if not of_latents.any():
            cancel = "what is added and what is taken away cancel backwards too."
            raise NotYet(f"the gradient of the latents is 0 everywhere: {cancel}")
        if not near(of_latents, pull, 1e-5):
            raise NotYet(
                "a gradient reaches the latents, but it is not the one that came in: it should pass unchanged."
            )
        if of_rows is not None and of_rows.any():
            raise NotYet(
                "forwards and for the latents it is right, but a gradient reaches the rows as well. Detach them."
            )

    every(answer, cases, judge)
    return "Choosing the nearest row has no gradient of its own, so the step is taken forwards and skipped backwards."


def patch_side(discriminator) -> int:
    """Pixels a side that one logit of a patch discriminator sees, from the sizes and strides of its convolutions."""
    import torch

    side = 1
    for layer in reversed([module for module in discriminator.modules() if isinstance(module, torch.nn.Conv2d)]):
        side = (side - 1) * layer.stride[0] + layer.kernel_size[0]
    return side


@exercise(
    "3.5",
    "walk backwards from one logit. Before a convolution with kernel k and stride s, a square of side r comes from one "
    "of (r - 1) · s + k. Start at r = 1 with the last convolution.",
    "the last convolution, k = 3 and s = 1, makes 3 of 1. The one before it, k = 4 and s = 2, makes (3 − 1) "
    "· 2 + 4 = 8 of 3. Two more like it follow.",
)
def _patch(answer) -> str:
    value, side = number(answer), patch_side(_vqgan().discriminator)
    size = _vqgan().config.image_size
    if value == side:
        return (
            f"{side} of {size} pixels: it can tell whether an edge is crisp, not whether a cat has two eyes. "
            "(Only its normalisation takes the mean and the spread of the whole picture.)"
        )
    mistakes = {
        8: "8 pixels is how far the patches of neighbouring logits lie apart: they overlap.",
        size: "That is the whole picture: such a discriminator would say all or nothing.",
        side**2: "That is how many pixels it sees; the side is asked for.",
        22: "That leaves out the last convolution, which looks at 3 × 3 places.",
        24: "3 places of 8 pixels are 24, but each place has itself seen more than its own 8.",
        15: "That adds the kernels and forgets the strides.",
    }
    raise NotYet(mistakes.get(value, f"It is not {value:g}."))


@exercise(
    "3.6",
    "the cosines are one matrix product, [cutouts, prompts]. Their sum over the prompts, weighted, and divided by "
    "weights.abs().sum(), is one number a cutout.",
    "image_features @ text_features.T is [n, prompts]; a product with weights is [n]. Divide, subtract from "
    "1, and take the mean.",
)
def _guidance(answer) -> str:
    import torch
    import torch.nn.functional as F

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for n, dim, weights in (
        (5, 16, [1.0, 0.5, -0.7]),
        (1, 8, [2.0]),
        (9, 12, [0.3, -1.0]),
        (4, 6, [1, 1, 2, -0.5, -3]),
    ):
        image_features, text_features = (
            F.normalize(torch.randn(count, dim, generator=generator), dim=-1) for count in (n, len(weights))
        )
        says = f"With {n} cutouts and the weights {', '.join(f'{each:g}' for each in weights)}"
        cases.append(Case(says, (image_features.requires_grad_(), text_features, torch.tensor(weights))))
    every(answer, cases, _judge_guidance)
    return "One number says how far the picture is from the sentence, and its gradient how to change every code."


def _judge_guidance(case: Case, loss) -> None:
    import torch

    image_features, text_features, weights = case.given
    cosines = (image_features @ text_features.T).detach()  # [cutouts, prompts]
    size = weights.abs().sum()
    each = 1 - cosines @ weights / size  # [cutouts]
    truth = each.mean().item()
    if isinstance(loss, torch.Tensor) and loss.shape == each.shape and len(each) > 1 and near(loss.detach(), each):
        raise NotYet("that is a number for each cutout: a loss is one number, their mean.")
    value = scalar(loss)
    literal = ((1 - cosines) @ weights / size).mean().item()  # differs by what no gradient sees
    if not same(value, literal):
        positive = weights.clamp(min=0)
        painted = cosines @ weights  # [cutouts]
        towards = "a prompt with a negative weight is painted towards, not away from."
        left_out = "prompts with a negative weight are left out."
        mistakes = [
            (each.sum(), "that is the sum over the cutouts: with more of them it grows. Take their mean."),
            (2 - truth, "the sign is wrong: this loss is lowest where the picture fits least."),
            (truth - 1, "the 1 is missing: the gradient is the same, but a perfect picture should cost 0."),
            (1 - truth, "that is the weighted cosine itself: lowering it paints away from the prompts."),
            (1 - cosines.mean(), "the weights have no effect."),
            (1 - (cosines @ weights.abs() / size).mean(), towards),
            (1 - (cosines @ positive / positive.sum()).mean(), left_out),
            (1 - (cosines @ positive / size).mean(), left_out),
            (
                1 - (painted / weights.sum()).mean(),
                "divide by the weights without their signs: else 1 and -1 divide by 0.",
            ),
            (1 - painted.mean() / len(weights), "divide by the weights' sum without their signs, not by their number."),
            (1 - painted.mean(), "the division by the sum of the weights without their signs is missing."),
        ]
        compare(value, truth, [(float(mistaken), wrong) for mistaken, wrong in mistakes])
    must_teach(loss, image_features, (-(weights @ text_features) / size / len(each)).expand_as(image_features))
