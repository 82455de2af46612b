"""The speed of DALL-E against itself without a cache, and against a peer: `mmlesson bench dalle`.

All run in one process on the same weights. The peer is `transformers`: its GPT-2 with the weights of our DALL-E, and
its `generate`, which keeps keys and values too.
All three draw the pictures of one prompt together, code by code, at temperature 1 and without guidance. They get the
same prompt and draw the same number of codes. The time for sixteen pictures, from prompt to pixels, is measured with
the default settings of `DALLE.generate`.
"""

from __future__ import annotations

import time
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import runtime
from mmlesson.dalle import DALLE, load_dalle
from mmlesson.gates import AssetError
from mmlesson.measure.report import Report
from mmlesson.vqgan import VQGAN, load_vqgan

PROMPT = "a cat on a blue background"
PLAIN = {"temperature": 1.0, "guidance": 1.0}  # as the logits come


def report(options) -> Report:
    """`mmlesson bench dalle`."""
    runtime.set_threads()
    dalle, vqgan = load_dalle(), load_vqgan()
    title = f"{dalle.name} against itself without the cache, and against the GPT-2 of transformers"
    return Report("bench dalle", title, bench_dalle(dalle, vqgan))


def bench_dalle(dalle: DALLE, vqgan: VQGAN, n: int = 16, rounds: int = 3) -> dict[str, float]:
    """The figures of "bench dalle" in bars.py. The ways take turns; each ratio is of two runs of one round."""
    peer, tokens = as_gpt2(dalle), n * dalle.config.grid**2
    start = dalle.text_tokens([PROMPT]).expand(n, -1)
    ways = {
        "ours": lambda: dalle.generate(PROMPT, n, **PLAIN),
        "by_itself": lambda: vqgan.decode(dalle.generate(PROMPT, n)),
        "no_cache": lambda: draw_without_cache(dalle, PROMPT, n),
        "transformers": lambda: generate_with_gpt2(peer, start, dalle.config.grid**2),
    }
    dalle.generate(PROMPT, n)  # both warm up before the clock runs
    generate_with_gpt2(peer, start, 8)
    seconds = {way: [] for way in ways}
    for _ in runtime.progress(range(rounds), description="rounds"):
        for way, draw in ways.items():
            started = time.perf_counter()
            draw()
            seconds[way].append(time.perf_counter() - started)
    middle = {way: median(taken) for way, taken in seconds.items()}
    ratio = {
        way: median(theirs / own for own, theirs in zip(seconds["ours"], taken, strict=True))
        for way, taken in seconds.items()
    }
    return {
        "sixteen_pictures_seconds": middle["by_itself"] * 16 / n,
        "vs_no_cache": ratio["no_cache"],
        "vs_transformers": ratio["transformers"],
        "tokens_per_second": tokens / middle["ours"],
        "no_cache_tokens_per_second": tokens / middle["no_cache"],
        "transformers_tokens_per_second": tokens / middle["transformers"],
        "rounds": rounds,
    }


@torch.no_grad()
def draw_without_cache(dalle: DALLE, prompt: str, n: int, seed: int = 0) -> Tensor:
    """Codes of `n` pictures, int64 [n, grid, grid]. The plain loop: it reads the whole stream again for every code."""
    c, generator = dalle.config, runtime.generator(seed)
    stream = dalle.text_tokens([prompt]).expand(n, -1)  # [n, text_length], longer with every code
    for _ in range(c.grid**2):
        logits = F.linear(dalle.features(stream)[:, -1], dalle.lm_head.weight[c.first_code :])  # [n, n_codes]
        drawn = torch.multinomial(logits.float().softmax(-1).cpu(), 1, generator=generator).to(stream)  # [n, 1]
        stream = torch.cat([stream, drawn + c.first_code], dim=1)
    return (stream[:, c.text_length :] - c.first_code).view(n, c.grid, c.grid).cpu()


def as_gpt2(dalle: DALLE):
    """The GPT-2 of `transformers` with the weights of a DALL-E: the same logits.

    Our DALL-E then rules out text tokens where a code has to come; this GPT-2 does not. Raises AssetError where
    `transformers` is not installed.
    """
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        raise AssetError(
            "the comparison needs the package transformers: install it with `pip install transformers`."
        ) from None
    c = dalle.config
    sizes = {"vocab_size": c.n_tokens, "n_positions": c.length, "n_embd": c.dim, "n_layer": c.layers, "n_head": c.heads}
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": c.padding}
    peer = (
        GPT2LMHeadModel(GPT2Config(**sizes, **ids, tie_word_embeddings=False))
        .eval()
        .requires_grad_(False)
        .to(dalle.device)
    )
    body = peer.transformer
    pairs = [
        (body.wte.weight, dalle.wte.weight),
        (body.wpe.weight, dalle.wpe()),
        (peer.lm_head.weight, dalle.lm_head.weight),
    ]
    norms, linears = [(body.ln_f, dalle.ln_f)], []
    for theirs, ours in zip(body.h, dalle.h, strict=True):
        norms += [(theirs.ln_1, ours.ln_1), (theirs.ln_2, ours.ln_2)]
        linears += [(theirs.attn.c_attn, ours.attn.c_attn), (theirs.attn.c_proj, ours.attn.c_proj)]
        linears += [(theirs.mlp.c_fc, ours.mlp.c_fc), (theirs.mlp.c_proj, ours.mlp.c_proj)]
    pairs += [(theirs.weight, ours.weight) for theirs, ours in norms]
    pairs += [(theirs.weight, ours.weight.T) for theirs, ours in linears]  # theirs are [in, out]
    pairs += [(theirs.bias, ours.bias) for theirs, ours in norms + linears]
    for theirs, ours in pairs:
        theirs.copy_(ours)
    return peer


@torch.no_grad()
def generate_with_gpt2(peer, start: Tensor, new: int) -> Tensor:
    """The peer's own `generate` at temperature 1: streams `[n, text_length]` → int64 `[n, text_length + new]`."""
    return peer.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=new, min_new_tokens=new
    )
