"""Speed of DALL-E against itself without a cache and against a peer, all in one run on the same weights: `mmlesson bench dalle --json`.

The peer is `transformers`: its GPT-2 with the weights of our DALL-E, and its `generate`, which keeps keys and values too. All three draw the pictures of
one prompt, all at once, a code at a time, at temperature 1 and without guidance; what they are given and how much they draw is the same. How long
sixteen pictures take, from prompt to pixels, is measured with the settings that `DALLE.generate` has by itself.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import runtime
from mmlesson.dalle import DALLE, load_dalle
from mmlesson.gates import AssetError
from mmlesson.vqgan import VQGAN, load_vqgan

BARS = {"sixteen_pictures_seconds": 6.0, "vs_no_cache": 3.0, "vs_transformers": 1.3}
PROMPT = "a cat on a blue background"
PLAIN = {"temperature": 1.0, "guidance": 1.0}  # as the logits come


def main(options: argparse.Namespace) -> int:
    """`mmlesson bench dalle [--json]`: print the figures, and with `options.json` a flat JSON object as the last line."""
    runtime.set_threads()
    figures = bench_dalle(load_dalle(), load_vqgan())
    seconds, ratios = BARS["sixteen_pictures_seconds"], ("vs_no_cache", "vs_transformers")
    said = {
        "sixteen_pictures_seconds": f"16 pictures of one prompt, decoding included; at most {seconds}: {_met(figures['sixteen_pictures_seconds'] <= seconds)}",
        "tokens_per_second": "ours",
        "no_cache_tokens_per_second": "ours, the whole stream read again for every code",
        "transformers_tokens_per_second": "GPT-2 of the same weights",
    }
    said |= {
        key: f"times as many tokens a second; at least {BARS[key]}: {_met(figures[key] >= BARS[key])}" for key in ratios
    }
    for key, value in figures.items():
        print(f"{key:32} {value:9.4g}  {said.get(key, '')}".rstrip())
    if options.json:
        print(json.dumps(figures))
    return 0


def _met(met: bool) -> str:
    return "met" if met else "NOT MET"


def bench_dalle(dalle: DALLE, vqgan: VQGAN, n: int = 16, rounds: int = 3) -> dict[str, float]:
    """Tokens a second of the three, and seconds for pictures, in turns, `rounds` times; each ratio is of runs of one round."""
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
    """Codes of `n` pictures, int64 [n, grid, grid], each drawn from the whole stream so far, read anew: the plain loop that a cache is measured by."""
    c, generator = dalle.config, runtime.generator(seed)
    stream = dalle.text_tokens([prompt]).expand(n, -1)  # [n, text_length], longer with every code
    for _ in range(c.grid**2):
        logits = F.linear(dalle.features(stream)[:, -1], dalle.lm_head.weight[c.first_code :])  # [n, n_codes]
        drawn = torch.multinomial(logits.float().softmax(-1).cpu(), 1, generator=generator).to(stream)  # [n, 1]
        stream = torch.cat([stream, drawn + c.first_code], dim=1)
    return (stream[:, c.text_length :] - c.first_code).view(n, c.grid, c.grid).cpu()


def as_gpt2(dalle: DALLE):
    """The GPT-2 of `transformers` with the weights of a DALL-E: the same logits, before a text token is ruled out where a code has to come."""
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
    """What the peer's own `generate` adds to streams `[n, text_length]`, `new` tokens each, drawn at temperature 1: int64 `[n, text_length + new]`."""
    return peer.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=new, min_new_tokens=new
    )
