"""Exercises of lesson 4: the mask, the loss of GPT, the cache, top-k at a temperature, guidance, how many to draw."""

from __future__ import annotations

import math

from mmlesson.teach.exercises.checking import (
    Case,
    NotYet,
    compare,
    every,
    exercise,
    must_teach,
    near,
    number,
    scalar,
    tensor,
    two,
)


@exercise(
    "4.1",
    "start from a square of True, and keep of it what lies on the diagonal and below. torch has a word for that.",
    "torch.ones(length, length, dtype=torch.bool) is the square; its method tril keeps the lower left part.",
)
def _may_look(answer) -> str:
    every(answer, [Case(f"With length {length}", (length,)) for length in (7, 12, 1, 2)], _judge_mask)
    return "So one pass over a stream asks as many questions as it has tokens, and none of them is given away."


def _judge_mask(case: Case, mask) -> None:
    import torch

    [length] = case.given
    truth = torch.ones(length, length, dtype=torch.bool).tril()
    mask = tensor(mask, "what it returns", (length, length))
    if mask.dtype != torch.bool and not torch.isin(mask, torch.tensor([0, 1]).to(mask)).all():
        raise NotYet("it does not hold True and False alone.")
    mask = mask.bool().cpu()
    mistakes = [
        (truth.T, "rows look and columns are looked at: yours lets a token see only what comes after it."),
        (truth.tril(-1), "a token may look at itself too: the first one would have nothing to look at."),
        (~truth, "True stands for “may look”, and yours is True where looking would be cheating."),
        (torch.ones_like(truth), "everything may look at everything: then the answer is seen before it is guessed."),
        (torch.eye(length, dtype=torch.bool), "each token sees itself alone: it knows nothing of the caption."),
    ]
    if torch.equal(mask, truth):
        return
    for mistaken, wrong in mistakes:
        if torch.equal(mask, mistaken):
            raise NotYet(wrong)
    row = int((mask != truth).any(dim=1).nonzero()[0])
    should = f"row {row + 1} (counted from 1) should be True in columns 1 to {row + 1} and nowhere else"
    raise NotYet(f"{should}; yours is {mask[row].int().tolist()}.")


@exercise(
    "4.2",
    "place i of the logits is asked for token i + 1: cut the last place of one and the first of the other. "
    "F.cross_entropy wants [questions, n_tokens] and [questions].",
    "logits[:, :-1] are the questions and stream[:, 1:] the answers. flatten(0, 1) makes rows of the first, "
    "and flatten() one list of the second.",
)
def _next_token_loss(answer) -> str:
    import torch

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for n, length, n_tokens in ((3, 6, 9), (1, 2, 5), (4, 11, 30)):
        logits = 2 * torch.randn(n, length, n_tokens, generator=generator)
        stream = torch.randint(n_tokens, (n, length), generator=generator)
        cases.append(Case(f"With {n} streams of {length} tokens out of {n_tokens}", (logits.requires_grad_(), stream)))
    every(answer, cases, _judge_next_token_loss)
    return "That is all there is to GPT and to DALL-E: guess the next token, everywhere at once."


def _judge_next_token_loss(case: Case, loss) -> None:
    import torch
    import torch.nn.functional as F

    logits, stream = case.given
    n, length = stream.shape

    def entropy(guesses, tokens):
        return F.cross_entropy(guesses.flatten(0, 1), tokens.flatten())

    value, right = scalar(loss), entropy(logits[:, :-1], stream[:, 1:])
    truth = right.item()
    mistakes = [
        (entropy(logits, stream), "that asks each place for its own token, which it has just read: shift by one."),
        (entropy(logits[:, 1:], stream[:, :-1]), "that is shifted the wrong way: it asks for the token before."),
        (truth * n * (length - 1), "that is the sum over all questions: take their mean."),
        (truth * (length - 1), "that is the sum over the places: take the mean over all questions."),
        (truth * n, "that is the sum over the streams: take the mean over all questions."),
        (-truth, "the sign is wrong: the loss is smallest where the guesses are right."),
        (
            entropy(logits[:, :-1].softmax(-1), stream[:, 1:]),
            "F.cross_entropy takes logits and does the softmax itself.",
        ),
    ]
    compare(value, truth, [(float(torch.as_tensor(mistaken).detach()), wrong) for mistaken, wrong in mistakes])
    must_teach(loss, logits, torch.autograd.grad(right, logits)[0])


@exercise(
    "4.3",
    "without: 26 for the first code, 27 for the second, and so on. With: each token that is read at all, once.",
    "without a cache, code number d (from 0) needs 26 + d tokens: add these up for d from 0 to 143. With a "
    "cache, 26 tokens of the caption and 143 codes are read, each once.",
)
def _tokens_read(answer) -> str:
    without, with_cache = (
        number(value) for value in two(answer, "Two numbers are asked for: (without the cache, with it).")
    )
    right = sum(range(26, 170)), 169
    if (without, with_cache) == (right[1], right[0]):
        raise NotYet("These are the two numbers, the other way round.")
    mistakes = {
        26 * 144: "That reads the caption again and again, but the codes drawn so far are read again as well.",
        sum(range(144)): "The caption is read every time too.",
        sum(range(27, 171)): "The last code is drawn, and never read.",
        170 * 144: "The stream is short at first: it grows with every code.",
    }
    if without != right[0]:
        raise NotYet(mistakes.get(without, f"Without the cache it is not {without:g}."))
    if with_cache != right[1]:
        caption = "The caption is read too, once."
        mistakes = {170: "The last code is drawn, and never read.", 144: caption, 143: caption}
        raise NotYet(mistakes.get(with_cache, f"With the cache it is not {with_cache:g}."))
    fewer = f"{right[0] / right[1]:.0f} times fewer."
    return f"{fewer} What a token was for the others, its keys and values, does not change when more tokens follow."


def _top_k(logits, temperature: float, k: int):
    import torch

    return (torch.where(logits < logits.topk(k).values[-1], -math.inf, logits) / temperature).softmax(0)


@exercise(
    "4.4",
    "what is not among the k largest logits gets the logit -inf; then divide by the temperature; then softmax.",
    "logits.topk(k).values[-1] is the smallest logit that may stay. masked_fill sets those below it to minus infinity.",
)
def _top_k_at_a_temperature(answer) -> str:
    import torch

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for n, temperature, k, shift, kind in (
        (12, 0.5, 4, 0, torch.float32),
        (30, 1.7, 11, 5, torch.float32),
        (8, 0.2, 1, -300, torch.float64),  # where a mask of -10 or -100 is no mask, but the largest logit
        (9, 1.0, 9, -20, torch.float32),
    ):
        logits = (2 * torch.randn(n, generator=generator)).to(kind) + shift
        says = f"With {n} logits around {shift}, temperature {temperature} and k = {k}"
        cases.append(Case(says, (logits, temperature, k)))
    every(answer, cases, _judge_top_k)
    return "A low temperature and a small k are safe and dull; a high one and all codes are bold, and often wrong."


def _judge_top_k(case: Case, value) -> None:
    import torch

    logits, temperature, k = case.given
    truth = _top_k(logits, temperature, k)
    kept = torch.where(truth > 0, logits, -math.inf)
    value = tensor(value, "what it returns", tuple(logits.shape)).to(truth)
    if near(value, truth, 1e-5):
        return
    everything = (logits / temperature).softmax(0)
    mistakes = [
        (everything, "all codes can still be drawn: the top k has no effect."),
        (kept.softmax(0), "the temperature has no effect."),
        (
            _top_k(logits, 1 / temperature, k),
            "logits are divided by the temperature: a low one makes the likeliest likelier.",
        ),
        (everything * (truth > 0), "these do not sum to 1: what is left out has to go before the softmax."),
        (kept.softmax(0) / temperature, "the logits are divided by the temperature, not the probabilities."),
        (torch.where(truth > 0, logits / temperature, 0).softmax(0), "a logit of 0 is not impossible: -inf is."),
        (truth.log(), "these are log-probabilities: what is drawn from are probabilities, 0 to 1."),
    ]
    for mistaken, wrong in mistakes:
        if torch.allclose(value, mistaken.to(value), atol=1e-5):
            raise NotYet(wrong)
    if (value < 0).any():
        raise NotYet(f"probabilities are not below 0; your lowest is {float(value.min()):.3f}.")
    if abs(float(value.sum()) - 1) > 1e-4:
        raise NotYet(f"probabilities sum to 1; yours to {float(value.sum()):.3f}.")
    drawn = int((value > 1e-6).sum())
    if drawn != k:
        raise NotYet(f"{drawn} codes can be drawn, and {k} should be. What is left out has probability 0.")
    raise NotYet(f"the likeliest should have {float(truth.max()):.3f}; with yours it has {float(value.max()):.3f}.")


@exercise(
    "4.5",
    "start where nothing was said, and walk towards what the caption says: guidance times the whole way.",
    "the whole way from one to the other is cond minus uncond. At guidance 0 you stay at uncond, at guidance "
    "1 you arrive at cond.",
)
def _away_from_no_caption(answer) -> str:
    import torch

    from mmlesson import runtime

    generator = runtime.generator(0)
    cases = []
    for n, guidance in ((10, 3.0), (33, 7.5), (10, 1.0), (5, 0.0), (17, 0.5)):
        cond, uncond = torch.randn(2, n, generator=generator)
        cases.append(Case(f"With {n} codes and guidance {guidance:g}", (cond, uncond, guidance)))
    every(answer, cases, _judge_guided)
    return (
        "What the caption adds is made so many times as large: this helps a network that hardly listens, and is too "
        "much for one that listens well."
    )


def _judge_guided(case: Case, value) -> None:
    cond, uncond, guidance = case.given
    value = tensor(value, "what it returns", tuple(cond.shape)).to(cond)

    def same(other) -> bool:
        """Whether the same is drawn from both: logits and log-probabilities differ by one number for all codes."""
        return near(value - value.mean(), other - other.mean())

    if same(uncond + guidance * (cond - uncond)):
        return
    mistakes = [
        (cond + guidance * (cond - uncond), "at guidance 1 nothing should change, and yours moves: start from uncond."),
        (cond + guidance * (uncond - cond), "that moves towards what would be drawn without a caption."),
        (uncond + guidance * (uncond - cond), "that moves away from the caption."),
        (guidance * cond, "that only sharpens what the caption says; what would come anyway is not taken away."),
        (guidance * (cond - uncond), "the starting point, uncond, is missing."),
        (cond, "guidance has no effect."),
        ((uncond + guidance * (cond - uncond)).softmax(0), "these are probabilities; logits are asked for."),
    ]
    for mistaken, wrong in mistakes:
        if same(mistaken):
            raise NotYet(wrong)
    if guidance in (0.0, 1.0):
        raise NotYet(f"what comes should be {'cond' if guidance else 'uncond'} itself.")
    raise NotYet(f"it is not {guidance:g} times as far from uncond as cond is.")


@exercise(
    "4.6",
    "all n fail with probability (1 - 0.3)ⁿ; find the first n for which that is at most 0.05.",
    "0.7ⁿ ≤ 0.05 holds from n = log(0.05) / log(0.7) on. That is no whole number: take the next one.",
)
def _how_many_to_choose_from(answer) -> str:
    value = number(answer)
    if value == 9:
        return (
            "Nine, if somebody can tell which of them is right. That is what CLIP does here; DALL-E's authors let it "
            "choose from 512."
        )
    mistakes = {
        8: "With 8, all fail in 5.8 % of all cases: nearly.",
        10: "It is enough, but fewer are.",
        4: "That is 1 / 0.3: so many show one right picture on average.",
    }
    if 8 < value < 9:
        raise NotYet("Nobody draws part of a picture: round up.")
    if abs(value - 1 / 0.3) < 0.01:
        raise NotYet(mistakes[4])
    if abs(value - 0.95 / 0.3) < 0.1:
        raise NotYet("Chances do not add up: two pictures with 0.3 each fail together with 0.7 · 0.7.")
    raise NotYet(mistakes.get(value, f"It is not {value:g}."))
