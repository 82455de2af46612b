"""Open tasks of lesson 3: the loop that paints, and the fewest codes that change a CLIP's mind."""

from __future__ import annotations

import functools

from mmlesson.teach.exercises.captions import the_clip
from mmlesson.teach.exercises.checking import Case, NotYet, every, exercise, tensor
from mmlesson.teach.exercises.painting import _vqgan, two_grids


class _Easel:
    """A tiny decoder and a tiny CLIP of random numbers, for latents [1, dim, h, w]. It counts the decodings."""

    def __init__(self, dim: int, h: int, w: int, seed: int):
        import torch
        import torch.nn.functional as F

        from mmlesson import runtime

        generator = runtime.generator(seed)
        self.colours = torch.randn(3, dim, generator=generator) / dim**0.5
        self.look = torch.randn(24, 3 * h * w, generator=generator)
        self.start, wanted = 1.1 * torch.randn(2, 1, dim, h, w, generator=generator)
        self.decoded = 0
        self.features = F.normalize(self._see(self.decode(wanted)), dim=-1)
        self.before = float(self.fits(self.decode(self.start)))
        self.decoded = 0

    def decode(self, latents):
        """Latents [n, dim, h, w] → pixels [n, 3, h, w] in 0…1."""
        import torch

        self.decoded += 1
        return torch.einsum("cd,ndhw->nchw", self.colours, latents).sigmoid()

    def _see(self, pixels):
        return (pixels - 0.5).flatten(1) @ self.look.T  # [n, 24]

    def fits(self, pixels):
        """How well pixels [n, 3, h, w] fit what is asked for: the mean cosine, at most 1."""
        import torch.nn.functional as F

        return (F.normalize(self._see(pixels), dim=-1) @ self.features.T).mean()


@exercise(
    "3.7",
    "make the latents a variable with a gradient. In each step: decode, ask how well it fits, go back through both "
    "with the negative of that as the loss, and let an optimizer move the latents.",
    "latents.clone().requires_grad_() and torch.optim.Adam([…], lr=0.1). Then as often as steps says: loss, "
    "zero_grad, backward, step, as in the ten lines. Return the latents detached.",
)
def _painting_loop(answer) -> str:
    cases, easels, came = [], {}, []
    for dim, h, w, steps, seed in ((16, 4, 4, 40, 1), (8, 3, 5, 15, 2), (4, 6, 2, 60, 3)):
        easel = _Easel(dim, h, w, seed)
        case = Case(f"With latents {[1, dim, h, w]} and {steps} steps", (easel.decode, easel.fits, easel.start, steps))
        cases.append(case)
        easels[id(case)] = easel
    every(answer, cases, lambda case, latents: came.append(_judge_painting(case, latents, easels[id(case)])))
    return (
        f"How well it fits, before and after: {'; '.join(came)}. It never asked what decodes and what judges, so it "
        "paints with the real networks too."
    )


def _judge_painting(case: Case, latents, easel: _Easel) -> str:
    _, _, start, steps = case.given
    decoded = easel.decoded
    latents = tensor(latents, "what it returns", tuple(start.shape)).detach().float()
    if decoded > 2 * steps + 1:
        raise NotYet(f"it decodes {decoded} times, and {steps} steps are asked for.")
    after, before = float(easel.fits(easel.decode(latents))), easel.before
    if after < before - 0.05:
        raise NotYet(f"it fits worse at the end ({after:.2f}) than at the start ({before:.2f}): the sign is wrong.")
    if after < before + 0.05:
        raise NotYet(f"it fits as at the start ({before:.2f}): return the latents that the steps have changed.")
    if 1 - after > (1 - before) / 2:
        raise NotYet(
            f"it gets from {before:.2f} to {after:.2f}, and half of the way to 1 is asked for: larger steps, or surer."
        )
    return f"{before:.2f} → {after:.2f} in {steps} steps"


# ---------------------------------------------------------------------------------------------------
# Few codes

FEW = 6  # codes of the 144 that may differ


@functools.cache
def _names() -> tuple:
    """All names of the world, and the features of "a picture of …" for each, [n_names, dim]."""
    from mmlesson import world

    names = [concept.name for concept in world.concepts()]
    return names, the_clip().encode_texts([f"a picture of {concept}" for concept in world.concepts()])


def named(grids):
    """What the CLIP makes of grids of codes [n, h, w]: for each (its first name, the place of "cat", its cosine)."""
    import torch

    names, features = _names()
    with torch.no_grad():
        rows = the_clip().encode_images(_vqgan().decode(grids)) @ features.T  # [n, n_names]
    cat = names.index("cat")
    return [(names[int(row.argmax())], 1 + int((row > row[cat]).sum()), float(row[cat])) for row in rows]


@exercise(
    "3.8",
    "where would you look to tell a cat from other animals? Put other codes there: of the background, or of another "
    "picture. Or try all places, and look at what the CLIP says of each.",
    "the face is in the rows 4 and 5 of the grid, in the columns 6 to 8: two rows of three are six codes. "
    "Take those of the pizza.",
)
def _few_codes(answer) -> str:
    import torch

    a, _ = two_grids()
    if isinstance(answer, torch.Tensor) and answer.ndim == 3 and len(answer) == 1:
        answer = answer[0]
    grid = tensor(answer, "Your grid", tuple(a.shape))
    if grid.is_floating_point() or grid.dtype == torch.bool:
        raise NotYet(f"Codes are whole numbers, and these are {grid.dtype}.")
    grid = grid.to(a)
    n_codes = _vqgan().config.n_codes
    if grid.min() < 0 or grid.max() >= n_codes:
        raise NotYet(f"Codes go from 0 to {n_codes - 1}; yours from {int(grid.min())} to {int(grid.max())}.")
    changed = int((grid != a).sum())
    if not changed:
        raise NotYet("That is the grid a, unchanged.")
    if changed > FEW:
        raise NotYet(f"{changed} of the {a.numel()} codes are changed, and at most {FEW} may be.")
    [before, after] = named(torch.stack([a, grid]))
    if after[1] == 1:
        raise NotYet(
            f"With {changed} of {a.numel()} codes changed, the CLIP still names it a cat, with a cosine of "
            f"{after[2]:.2f} (before: {before[2]:.2f})."
        )
    never = "" if before[1] == 1 else " This CLIP did not name it a cat before either, so little was to change."
    return (
        f"{changed} of {a.numel()} codes, and the CLIP names it “{after[0]}”. “Cat” is at place {after[1]}, with a "
        f"cosine of {after[2]:.2f} (before: place {before[1]}, {before[2]:.2f}). Can fewer do it?{never}"
    )
