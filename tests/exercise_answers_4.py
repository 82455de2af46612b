"""Answers to the exercises of lesson 4, as in exercise_answers_1."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def may_look(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


def next_token_loss(logits, stream):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), stream[:, 1:].flatten())


def kept(logits, k, instead=-math.inf):
    return torch.where(logits < logits.topk(k).values[-1], instead, logits)


def top_k(logits, temperature, k):
    return (kept(logits, k) / temperature).softmax(0)


def guided(cond, uncond, guidance):
    return uncond + guidance * (cond - uncond)


def drawn(probabilities, generator):
    return torch.multinomial(probabilities, 1, generator=generator)


def cooler(logits, generator):
    return drawn((logits / 0.6).softmax(0), generator)


def from_the_top(logits, generator):
    best = logits.topk(8)
    return best.indices[drawn(best.values.softmax(0), generator)].item()


def nucleus(logits, generator, share=0.7):
    probabilities, order = logits.softmax(0).sort(descending=True)
    probabilities[probabilities.cumsum(0) - probabilities > share] = 0
    return int(order[drawn(probabilities, generator)])


def counting(grids, n_codes, given=5.0, left=True, above=True):
    """A right answer to 4.8: how often a code comes at all, and after the codes beside it. Wrong with neither."""
    width, alone = grids.shape[2], grids.flatten().bincount(minlength=n_codes) + 0.1
    alone = alone / alone.sum()
    beside, under = torch.zeros(2, n_codes, n_codes)
    one = torch.tensor(1.0)
    beside.index_put_((grids[:, :, :-1].flatten(), grids[:, :, 1:].flatten()), one, accumulate=True)
    under.index_put_((grids[:, :-1].flatten(), grids[:, 1:].flatten()), one, accumulate=True)

    def guess(before):
        counts = given * alone
        if left and len(before) % width:
            counts = counts + beside[before[-1]]
        if above and len(before) >= width:
            counts = counts + under[before[-width]]
        return counts / counts.sum()

    return guess


def numpys(grids, n_codes):
    guess = counting(grids, n_codes)
    return lambda before: guess(before).numpy()


RIGHT = {
    "4.1": [
        may_look,
        lambda length: may_look(length).int(),
        lambda length: may_look(length).tolist(),
        lambda length: torch.arange(length)[:, None] >= torch.arange(length),
        lambda length: np.tril(np.ones((length, length), dtype=bool)),
    ],
    "4.2": [
        next_token_loss,
        lambda logits, stream: F.cross_entropy(logits[:, :-1].transpose(1, 2), stream[:, 1:]),
        lambda logits, stream: -logits[:, :-1].log_softmax(-1).gather(-1, stream[:, 1:, None]).mean(),
    ],
    "4.3": [
        (14040, 169),
        [sum(26 + i for i in range(144)), 26 + 143],
        torch.tensor([14040, 169]),
        np.array([14040.0, 169.0]),
    ],
    "4.4": [
        top_k,
        lambda logits, temperature, k: top_k(logits, temperature, k).tolist(),
        lambda logits, temperature, k: (kept(logits, k, -1e9) / temperature).softmax(0),
        lambda logits, temperature, k: kept(logits / temperature, k).softmax(0).numpy(),
    ],
    "4.5": [
        guided,
        lambda cond, uncond, guidance: guidance * cond + (1 - guidance) * uncond,
        lambda cond, uncond, guidance: guided(cond, uncond, guidance).log_softmax(0),
        lambda cond, uncond, guidance: guided(cond.log_softmax(0), uncond.log_softmax(0), guidance),
        lambda cond, uncond, guidance: guided(cond, uncond, guidance).tolist(),
    ],
    "4.6": [9, math.ceil(math.log(0.05) / math.log(0.7)), torch.tensor(9), 9.0],
    "4.7": [
        cooler,
        from_the_top,
        nucleus,
        lambda logits, generator: drawn((logits - logits.max()).exp().pow(1.5), generator),
    ],
    "4.8": [
        counting,
        lambda grids, n_codes: counting(grids, n_codes, above=False),
        numpys,
    ],
}
WRONG = {
    "4.1": [
        (4, "A function"),
        (may_look(7), "A function"),
        (lambda length: may_look(length).T, "only what comes after"),
        (lambda length: may_look(length).tril(-1), "itself too"),
        (lambda length: ~may_look(length), "cheating"),
        (lambda length: torch.ones(length, length), "verything may look"),
        (lambda length: torch.eye(length), "itself alone"),
        (lambda length: torch.randn(length, length), "True and False"),
        (lambda length: torch.full((length, length), math.nan), "NaN"),
        (lambda length: may_look(length + 1), "shape [8, 8]"),
        (lambda length: may_look(7), "With length 12: what it returns has shape [7, 7]"),
        (lambda length: may_look(length) & (torch.arange(length) != 1), "row 2"),
        (lambda length: "lower half", "no tensor, but str"),
        (lambda length: torch.zeros(length, length).masked_fill(~may_look(length), -math.inf), "True and False"),
    ],
    "4.2": [
        (2.5, "A function"),
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
        (lambda logits, stream: next_token_loss(logits, stream).item(), "no gradient"),
        (lambda logits, stream: next_token_loss(logits.detach(), stream), "no gradient"),
        (lambda logits, stream: next_token_loss(logits, stream).detach().numpy(), "no gradient"),
        (lambda logits, stream: torch.tensor(math.nan), "nan"),
        (lambda logits, stream: logits, "a loss is one"),
        (
            lambda logits, stream: F.cross_entropy(logits[:, :5].reshape(-1, 9), stream[:, 1:6].reshape(-1)),
            "With 1 streams",
        ),
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
        ((math.nan, 169), "nan"),
        ((26 * 144 + 0.7, 169), "not 3744.7"),
        ((14040, math.inf), "inf"),
        (("14040", "169"), "without quotation marks"),
        ((26, 144), "not 26"),
    ],
    "4.4": [
        ([0.5, 0.5], "A function"),
        (lambda logits, t, k: (logits / t).softmax(0), "no effect"),
        (lambda logits, t, k: top_k(logits, 1, k), "temperature has no effect"),
        (lambda logits, t, k: top_k(logits, 1 / t, k), "divided by the temperature: a low"),
        (lambda logits, t, k: (logits / t).softmax(0) * (top_k(logits, t, k) > 0), "before the softmax"),
        (lambda logits, t, k: top_k(logits, 1, k) / t, "not the probabilities"),
        (lambda logits, t, k: (kept(logits, k, math.nan) / t).nan_to_num(0).softmax(0), "-inf is"),
        (lambda logits, t, k: logits, "below 0"),
        (lambda logits, t, k: top_k(logits, t, k + 1), "5 codes can be drawn, and 4 should be"),
        (lambda logits, t, k: top_k(logits, t, 4), "k = 11: 4 codes can be drawn"),
        (lambda logits, t, k: top_k(logits, 0.5, k), "temperature 1.7"),
        (lambda logits, t, k: (kept(logits, k, -10.0) / t).softmax(0), "With"),
        (lambda logits, t, k: (kept(logits, k, -100.0) / t).softmax(0), "around -300"),
        (lambda logits, t, k: top_k(logits, t, k).log(), "log-probabilities"),
        (lambda logits, t, k: kept(logits, k) / 0 * 0, "NaN"),
        (lambda logits, t, k: top_k(logits, t, k)[:k], "shape"),
        (lambda logits, t, k: logits.topk(k), "With 12"),
    ],
    "4.5": [
        (3.0, "A function"),
        (lambda cond, uncond, g: cond + g * (cond - uncond), "start from uncond"),
        (lambda cond, uncond, g: cond + g * (uncond - cond), "towards what would"),
        (lambda cond, uncond, g: uncond + g * (uncond - cond), "away from the caption"),
        (lambda cond, uncond, g: cond, "no effect"),
        (lambda cond, uncond, g: g * cond, "only sharpens"),
        (lambda cond, uncond, g: g * (cond - uncond), "is missing"),
        (lambda cond, uncond, g: cond + uncond, "3 times as far"),
        (lambda cond, uncond, g: guided(cond, uncond, 3), "With 33 codes and guidance 7.5"),
        (lambda cond, uncond, g: guided(cond, uncond, g).softmax(0), "these are probabilities"),
        (lambda cond, uncond, g: guided(cond, uncond, g) * math.nan, "NaN"),
        (lambda cond, uncond, g: guided(cond, uncond, g)[:5], "shape [5]"),
        (lambda cond, uncond, g: guided(cond, uncond, g).mean(), "shape []"),
        (lambda cond, uncond, g: "cond", "no tensor, but str"),
    ],
    "4.6": [
        (8, "5.8 %"),
        (10, "fewer"),
        (8.4, "round up"),
        (3.17, "do not add up"),
        (4, "on average"),
        (1 / 0.3, "on average"),
        (100, "not 100"),
        (512, "not 512"),
        (math.inf, "inf"),
        (math.nan, "nan"),
        ("many", "not a number"),
        (True, "not a number"),
    ],
    "4.7": [
        (3, "A function"),
        (lambda logits, generator: logits.argmax(), "times it takes code"),
        (lambda logits, generator: 7, "times it takes code 7"),
        (lambda logits, generator: drawn(logits.softmax(0), generator), "as surprising as plain draws"),
        (lambda logits, generator: drawn((2 * -logits).softmax(0), generator), "unlikely codes more often"),
        (lambda logits, generator: torch.randint(len(logits), (1,), generator=generator), "unlikely codes more often"),
        (lambda logits, generator: drawn((logits / 0.6).softmax(0), None), "with the same generator"),
        (lambda logits, generator: logits.topk(2).indices[drawn(torch.ones(2), generator)], "only 2 different"),
        (lambda logits, generator: logits.softmax(0).max(), "a whole number from 0 to 59"),
        (lambda logits, generator: logits.softmax(0), "not a number"),
        (lambda logits, generator: cooler(logits, generator) + 60, "a whole number from 0 to 59"),
        (lambda logits, generator: math.nan, "nan"),
        (lambda logits, generator: "code 7", "text"),
        (lambda logits, generator: cooler(logits.nan_to_num(neginf=0), generator), "probability 0"),
        (lambda logits, generator: drawn(logits.exp() ** 2, generator), "around -2,000: your function raises"),
    ],
    "4.8": [
        (0.1, "A function"),
        (lambda grids, n_codes: torch.full((n_codes,), 1 / n_codes), "return a function"),
        (lambda grids, n_codes: lambda before: torch.full((n_codes,), 1 / n_codes), "look at the codes before"),
        (lambda grids, n_codes: counting(grids, n_codes, left=False, above=False), "look at the codes before"),
        (lambda grids, n_codes: lambda before: counting(grids, n_codes)(before).log(), "sum to"),
        (lambda grids, n_codes: lambda before: 2 * counting(grids, n_codes)(before), "sum to 2.000"),
        (lambda grids, n_codes: counting(grids, 9), "With the codes of 120 scenes: your function raises"),
        (lambda grids, n_codes: lambda before: torch.eye(n_codes)[int(before[-1]) if len(before) else 0], "a little"),
        (lambda grids, n_codes: lambda before: torch.ones(n_codes) * math.nan, "NaN"),
        (lambda grids, n_codes: lambda before: before[-1], "your function raises IndexError"),
        (lambda grids, n_codes: lambda before: "code 3", "no tensor, but str"),
        (lambda grids, n_codes: grids, "return a function"),
        (lambda grids, n_codes: grids @ grids, "RuntimeError"),
    ],
}
