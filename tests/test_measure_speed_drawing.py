"""The benchmark of DALL-E: its peer has the same weights and says the same, and all sides do the same work."""

import math
from types import SimpleNamespace

import torch
from test_dalle import dalle, stream  # noqa: F401  fixtures: the untrained network, two streams of it

from mmlesson.measure import speed_drawing as bench_dalle
from mmlesson.measure.bars import FIGURES
from mmlesson.measure.speed_drawing import as_gpt2, draw_without_cache, generate_with_gpt2


def test_a_block_is_that_of_gpt2(dalle, stream):  # noqa: F811 - the fixture of test_dalle
    """Attention and the two linear layers, against the block of transformers with the same weights."""
    peer, x = as_gpt2(dalle), torch.randn(2, 9, dalle.config.dim, generator=torch.Generator().manual_seed(0))
    length = x.shape[1]
    mask = torch.full((length, length), -math.inf).triu(1)[None, None]  # transformers makes it outside of the block
    for ours, theirs in zip(dalle.h, peer.transformer.h, strict=True):
        expected = theirs(x, attention_mask=mask)
        expected = expected[0] if isinstance(expected, tuple) else expected
        torch.testing.assert_close(ours(x), expected, atol=1e-4, rtol=1e-4)


def test_the_whole_network_is_a_gpt2(dalle, stream):  # noqa: F811 - the fixture of test_dalle
    c, logits = dalle.config, as_gpt2(dalle)(stream).logits
    told = dalle(stream)
    asked = torch.isfinite(told)  # the others are ruled out: text where a code has to come, and the reverse
    assert asked[:, c.text_length :, c.first_code :].all()
    torch.testing.assert_close(told[asked], logits[asked], atol=1e-3, rtol=1e-4)


def test_all_sides_draw_whole_pictures(dalle):  # noqa: F811 - the fixture of test_dalle
    codes = draw_without_cache(dalle, "a cat", 3)
    assert codes.shape == (3, 4, 4) and 0 <= codes.min() and codes.max() < dalle.config.n_codes
    assert torch.equal(codes, dalle.generate("a cat", 3, seed=0, **bench_dalle.PLAIN)), (
        "the same draws of the same distributions"
    )
    start = dalle.text_tokens(["a cat"]).expand(3, -1)
    assert generate_with_gpt2(as_gpt2(dalle), start, 16).shape == (3, dalle.config.length)


def test_the_figures_have_their_names(dalle, monkeypatch):  # noqa: F811  the fixture of test_dalle
    monkeypatch.setattr(bench_dalle, "load_dalle", lambda: dalle)
    monkeypatch.setattr(bench_dalle, "PROMPT", "a cat")
    monkeypatch.setattr(bench_dalle, "load_vqgan", lambda: SimpleNamespace(decode=lambda codes: codes))
    found = bench_dalle.report(None)
    assert set(found.figures) == set(FIGURES["bench dalle"]) and all(value > 0 for value in found.figures.values())
