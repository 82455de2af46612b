"""Open tasks of lesson 4: a way to choose the next code, and a model of codes that only counts."""

from __future__ import annotations

import functools
import math

from mmlesson.teach.exercises.checking import Case, NotYet, call, every, exercise, number, tensor
from mmlesson.teach.exercises.painting import _vqgan

DRAWS = 200


@exercise(
    "4.7",
    "change the probabilities before you draw: divide the logits, or take away the codes at the unlikely end. Then "
    "draw with the generator that you were given. A choice that is always the same is no draw.",
    "logits.softmax(dim=0).sort(descending=True) gives the likely codes first. Set to 0 what comes after the "
    "first 80 % of the probability, and give the rest to torch.multinomial, with generator=generator.",
)
def _careful_draw(answer) -> str:
    import torch

    from mmlesson import runtime

    if not callable(answer):
        raise NotYet("A function is asked for.")
    generator = runtime.generator(5)
    wide = 2 * torch.randn(60, generator=generator)
    few = torch.full((30,), -math.inf).index_fill(0, torch.arange(4, 20), 0.0) + torch.rand(30, generator=generator)
    far = (3 * torch.randn(1024, generator=generator) - 2000).double()
    came = []
    for says, logits in (
        ("With 60 logits around 0", wide),
        ("With 30 logits, 14 of them -inf", few),
        ("With 1,024 logits around -2,000", far),
    ):
        try:
            came.append(_judge_draws(answer, says, logits))
        except NotYet as verdict:
            said = str(verdict)
            raise NotYet(said if said.startswith(says) else f"{says}: {said}") from None
    return (
        f"How surprising a code is (−log of its probability), with plain draws and with yours: {'; '.join(came)}. "
        "Less surprise and fewer different codes: safer, and duller."
    )


def _judge_draws(answer, says: str, logits) -> str:
    import torch

    from mmlesson import runtime

    def draw(n: int, seed: int) -> list[int]:
        generator = runtime.generator(seed)
        return [_code(call(answer, Case(says, (logits, generator))), len(logits)) for _ in range(n)]

    codes = draw(DRAWS, seed=1)
    if draw(20, seed=1) != codes[:20]:
        raise NotYet("with the same generator it draws other codes: draw with the generator that it is given.")
    probabilities = logits.softmax(0)
    if (probabilities[codes] == 0).any():
        raise NotYet("it draws a code of probability 0.")
    surprise = -probabilities.clamp(min=1e-30).log()
    plain, yours = float((probabilities * surprise).sum()), float(surprise[codes].mean())
    different = len(set(codes))
    if different == 1:
        raise NotYet(f"{DRAWS} times it takes code {codes[0]}: every picture would be the same.")
    if different < 4:
        raise NotYet(f"in {DRAWS} draws it takes only {different} different codes: that leaves no choice.")
    if yours > plain + 0.1 * plain:
        raise NotYet(
            f"it draws unlikely codes more often than likely ones: a surprise of {yours:.2f}, plainly {plain:.2f}."
        )
    flat = torch.isfinite(logits).sum() < 20  # where all codes are about as likely, there is nothing to be careful of
    if not flat and yours > 0.9 * plain:
        raise NotYet(
            f"its codes are as surprising as plain draws ({yours:.2f}, plainly {plain:.2f}): make it one tenth less."
        )
    return f"{plain:.2f} and {yours:.2f}, {different} different codes in {DRAWS} draws"


def _code(value, n: int) -> int:
    code = number(value)
    if code != int(code) or not 0 <= code < n:
        raise NotYet(f"it returns {code:g}, and a code is a whole number from 0 to {n - 1}.")
    return int(code)


# ---------------------------------------------------------------------------------------------------
# A model of codes that only counts


@functools.cache
def _drawn_grids() -> tuple:
    """Codes of 120 training scenes and of 4 held-out ones, int64 [n, 12, 12] each, and the captions of the four."""
    from mmlesson import world

    known, new = (
        [world.in_the_middle(scene, squares=(10, 5)) for scene in world.sample(n, split, seed=9)]
        for n, split in ((120, "train"), (4, "heldout"))
    )
    grids = (_vqgan().encode([scene.render(96) for scene in scenes]) for scenes in (known, new))
    return (*grids, [scene.caption for scene in new])


def _woven(n: int, h: int, w: int, n_codes: int, seed: int):
    """Grids int64 [n, h, w] in which a code mostly follows from the one on its left, or from the one above."""
    import torch

    from mmlesson import runtime

    generator = runtime.generator(seed)
    after, grids = torch.randperm(n_codes, generator=generator), torch.empty(n, h, w, dtype=torch.int64)
    for row in range(h):
        for column in range(w):
            near = grids[:, row, column - 1] if column else grids[:, row - 1, 0] if row else torch.zeros(n).long()
            surprise = torch.rand(n, generator=generator) < 0.3
            grids[:, row, column] = torch.where(
                surprise, torch.randint(n_codes, (n,), generator=generator), after[near]
            )
    return grids


@exercise(
    "4.8",
    "count how often each code comes after each code on its left. Add a little of how often it comes at all, so that "
    "nothing has probability 0, and divide by the sum. The code above is before[-w], if w is the width of a grid.",
    "a table [n_codes, n_codes] counts the pairs (code on the left, code here) of all rows. guess(before) "
    "takes the row of before[-1], adds a small part of how often each code comes at all, and divides by the "
    "sum. At the start of a row there is no code on the left.",
)
def _counting_model(answer) -> str:
    losses = []
    cases = [Case("With 80 grids of 5 × 7 codes out of 9", (_woven(80, 5, 7, 9, 1), 9))]
    new = {id(cases[0]): _woven(6, 5, 7, 9, 1)}
    every(answer, cases, lambda case, guess: losses.append(_judge_guesses(guess, case, new[id(case)], 0.1)))
    known, unknown, captions = _drawn_grids()
    cases = [Case("With the codes of 120 scenes", (known, _vqgan().config.n_codes))]
    every(answer, cases, lambda case, guess: losses.append(_judge_guesses(guess, case, unknown, 0.5)))
    return (
        f"On four new scenes: a loss of {losses[-1][0]:.2f} a code. How often each code comes at all gives "
        f"{losses[-1][1]:.2f}; the pocket DALL-E reads the caption too, and has {_dalle_loss(unknown, captions):.2f}."
    )


def _judge_guesses(guess, case: Case, new, gain: float) -> tuple[float, float]:
    """The loss of guesses and that of counting alone, on grids [n, h, w], in nats a code; NotYet at a small gain."""
    grids, n_codes = case.given
    if not callable(guess):
        raise NotYet("it has to return a function that takes the codes so far.")
    plain = grids.flatten().bincount(minlength=n_codes) + 0.1
    plain, total, alone, places = (plain / plain.sum()).log(), 0.0, 0.0, 0
    for stream in new.flatten(1):
        for place, code in enumerate(stream.tolist()):
            asked = Case(f"after {place} codes", (stream[:place],))
            row = tensor(call(guess, asked), f"after {place} codes, what your guess returns", (n_codes,)).double()
            if (row < 0).any() or abs(float(row.sum()) - 1) > 1e-3:
                raise NotYet(
                    f"after {place} codes the probabilities sum to {float(row.sum()):.3f}, the lowest is "
                    f"{float(row.min()):.3f}: they are not below 0, and sum to 1."
                )
            if not row[code] > 0:
                raise NotYet(f"after {place} codes, what did come had probability 0: leave a little for every code.")
            total -= math.log(float(row[code]))
            alone -= float(plain[code])
            places += 1
    loss, alone = total / places, alone / places
    if loss > alone - gain:
        raise NotYet(
            f"the loss is {loss:.2f} a code, and counting how often each code comes at all gives {alone:.2f}. "
            f"{gain:g} less is asked for: look at the codes before."
        )
    return loss, alone


def _dalle_loss(grids, captions: list[str]) -> float:
    """The cross-entropy of the pocket DALL-E on these codes, in nats a code."""
    import torch
    import torch.nn.functional as F

    from mmlesson.dalle import load_dalle

    dalle = load_dalle()
    streams = dalle.streams(dalle.text_tokens(captions), grids.to(dalle.device))
    with torch.no_grad():
        logits = dalle(streams[:, :-1])[:, dalle.config.text_length - 1 :]
    return F.cross_entropy(logits.flatten(0, 1), streams[:, dalle.config.text_length :].flatten()).item()
