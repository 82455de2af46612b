"""The transformer over captions and codes: what may look at what, that the cache changes nothing, and what a prompt
brings about.
"""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmlesson import dalle as dalles
from mmlesson import gates, runtime
from mmlesson.dalle import Attention, DALLEConfig, new_dalle, pieces_of
from mmlesson.gates import AssetError
from mmlesson.models.folders import WEIGHTS, save_folder

WORDS = ["a cat on a blue background", "a dog on a red background"]


@pytest.fixture(scope="module")
def dalle():
    """Untrained, on a grid of 4×4 codes, its weights large enough that nothing is nearly equal."""
    made = new_dalle(
        DALLEConfig(pieces_of(WORDS), text_length=12, n_codes=20, grid=4, dim=32, layers=3, heads=2, vqgan="ab" * 32),
        seed=1,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return made.eval()


@pytest.fixture
def stream(dalle):
    codes = torch.arange(32).view(2, 4, 4) % 20
    return dalle.streams(dalle.text_tokens(WORDS), codes)


def test_a_stream_is_a_caption_and_then_codes(dalle, stream):
    c = dalle.config
    assert stream.shape == (2, c.length) and c.length == 12 + 16
    names = [dalle.token_name(token) for token in stream[0].tolist()]
    assert names[:8] == ["start", "a", "cat", "on", "a", "blue", "background", "end"] and set(names[8:12]) == {
        "padding"
    }
    assert names[12:] == [f"code {number}" for number in range(16)]


def test_a_word_that_no_caption_held_is_named(dalle):
    with pytest.warns(UserWarning, match="never met the word 'zeppelin'"):
        tokens = dalle.text_tokens("a zeppelin on a blue background")
    assert [dalle.token_name(token) for token in tokens[0].tolist()][:7] == [
        "start",
        "a",
        "on",
        "a",
        "blue",
        "background",
        "end",
    ]
    with pytest.warns(UserWarning, match="is cut"):
        assert dalle.text_tokens("cat " * 30).shape == (1, 12)
    with pytest.raises(ValueError, match="a prompt is a text"):
        dalle.text_tokens([7])


@pytest.mark.parametrize("sign", ["<end_of_text>", "<START_OF_TEXT>", "&lt;end_of_text&gt;"])
def test_the_end_of_a_caption_in_a_prompt_is_text(dalle, sign):
    plain = dalle.text_tokens("a cat on a red background")
    with pytest.warns(UserWarning, match="never met the words .*'text'"):
        tokens = dalle.text_tokens(f"a cat {sign} on a red background")
    assert torch.equal(tokens, plain), "words that no caption held are left out, and named"


def test_no_token_sees_what_comes_behind_it(dalle, stream):
    before = dalle(stream)
    changed = stream.clone()
    changed[:, 15] = dalle.config.first_code + 19
    after = dalle(changed)
    assert torch.equal(before[:, :15], after[:, :15]) and not torch.allclose(before[:, 15:], after[:, 15:])


def test_text_follows_text_and_codes_follow_codes(dalle, stream):
    c, chances = dalle.config, dalle(stream).softmax(-1)
    torch.testing.assert_close(chances.sum(-1), torch.ones(2, c.length))
    assert (
        chances[:, : c.text_length - 1, c.first_code :].sum() == 0
    )  # the last token of the text already has a code behind it
    assert chances[:, c.text_length - 1 :, : c.first_code].sum() == 0


def test_the_loss_is_the_cross_entropy_of_the_whole_stream(dalle, stream):
    c, logits = dalle.config, dalle(stream)[:, :-1]
    each = F.cross_entropy(logits.transpose(1, 2), stream[:, 1:], reduction="none")  # [n, length - 1]
    text, codes = each[:, : c.text_length - 1], each[:, c.text_length - 1 :]
    expected = 0.125 * text[stream[:, 1 : c.text_length] != c.padding].mean() + 0.875 * codes.mean()
    torch.testing.assert_close(dalle.loss(stream), expected)
    assert dalle.loss(stream, text_weight=0).item() == pytest.approx(codes.mean().item(), abs=1e-5)


def test_soft_codes_share_the_answer(dalle, stream):
    c = dalle.config
    alone = F.one_hot(stream[:, c.text_length :] - c.first_code, c.n_codes).float().view(2, c.grid, c.grid, c.n_codes)
    torch.testing.assert_close(dalle.loss(stream, alone), dalle.loss(stream))
    soft = torch.rand(2, c.grid, c.grid, c.n_codes, generator=torch.Generator().manual_seed(0)).softmax(-1)
    said = dalle(stream)[:, c.text_length - 1 : -1, c.first_code :].log_softmax(-1)  # [2, grid², n_codes]
    expected = -(soft.flatten(1, 2) * said).sum(-1).mean().item()
    assert dalle.loss(stream, soft, text_weight=0).item() == pytest.approx(expected, abs=1e-5)


def test_with_and_without_the_cache_it_says_the_same(dalle, stream):
    whole = dalle.features(stream)
    cache = dalles.Cache(dalle.config, 2, whole)
    parts = [dalle.features(stream[:, :12], cache)] + [
        dalle.features(stream[:, i : i + 1], cache) for i in range(12, 28)
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_likeliest_codes_are_those_of_a_plain_loop(dalle, guidance):
    """Near a temperature of 0 drawing is choosing: the same codes as from whole streams without a cache, which
    `forward` reads.
    """
    c = dalle.config
    drawn = dalle.generate(WORDS[0], n=2, temperature=1e-6, guidance=guidance)
    with_caption, without = dalle.text_tokens(WORDS[0]), dalle.text_tokens("")
    for _ in range(c.grid**2):
        a, b = (dalle(stream)[0, -1, c.first_code :] for stream in (with_caption, without))
        code = (b + guidance * (a - b)).argmax() + c.first_code
        with_caption, without = (torch.cat([stream, code.view(1, 1)], 1) for stream in (with_caption, without))
    expected = (with_caption[0, c.text_length :] - c.first_code).view(4, 4)
    assert torch.equal(drawn, expected.expand(2, 4, 4))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_generate_is_prefill_next_logits_and_sample(dalle, guidance):
    """The steps of `generate_steps` by their names, against the same without a cache: whole streams, read again for
    every code.
    """
    c, n, settings = dalle.config, 3, {"temperature": 0.9, "top_k": 10, "top_p": 0.9}
    captions = dalle.text_tokens([WORDS[0]] if guidance == 1 else [WORDS[0], ""])
    hidden_states, cache = dalle.prefill(captions, n)
    assert hidden_states.shape == (len(captions) * n, c.dim) and cache.filled == c.text_length
    streams = captions.repeat_interleave(n, 0)
    generator = runtime.generator(4)
    with torch.no_grad():
        for _ in range(c.grid**2):
            hidden_states = dalle.features(streams)[:, -1]
            logits = dalle.next_logits(hidden_states, guidance)
            assert logits.shape == (n, c.n_codes) and logits.dtype == torch.float32
            tokens = dalles.sample(logits, generator=generator, **settings) + c.first_code
            streams = torch.cat([streams, tokens.repeat(len(captions))[:, None]], 1)
    expected = (streams[:n, c.text_length :] - c.first_code).view(n, 4, 4)
    assert torch.equal(dalle.generate(WORDS[0], n, seed=4, guidance=guidance, **settings), expected)


def test_its_parts_have_the_names_of_gpt2(dalle):
    """So that a reader recognises them in GPT-2's code."""
    linear = [f"{name}.{kind}" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2")
              for kind in ("weight", "bias")]  # fmt: skip
    blocks = {f"h.{number}.{name}" for number in range(3) for name in linear}
    ends = {"wte.weight", "wpe_text", "wpe_row", "wpe_column", "ln_f.weight", "ln_f.bias", "lm_head.weight"}
    assert set(dalle.state_dict()) == blocks | ends


def test_steps_fill_the_grid_one_code_at_a_time(dalle):
    steps = list(dalle.generate_steps(WORDS[0], n=3, seed=5))
    assert [step.filled for step in steps] == list(range(1, 17))
    for step in steps:
        flat = step.codes.flatten(1)
        assert (
            step.codes.shape == (3, 4, 4)
            and (flat[:, : step.filled] >= 0).all()
            and (flat[:, step.filled :] == -1).all()
        )
    assert torch.equal(steps[-1].codes, dalle.generate(WORDS[0], n=3, seed=5))
    assert not torch.equal(steps[-1].codes, dalle.generate(WORDS[0], n=3, seed=6))
    assert not torch.equal(steps[-1].codes[0], steps[-1].codes[1])


def test_the_upper_rows_stay(dalle):
    given = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    steps = list(dalle.generate_steps(WORDS[0], n=2, prefix_codes=given))
    assert len(steps) == 8 and all(torch.equal(step.codes[:, :2], given.expand(2, 2, 4)) for step in steps)
    assert steps[-1].codes.min() >= 0


def test_draws_have_the_frequencies_of_the_softmax():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(4000, 4)

    def shares(**options):
        options = {"temperature": 1.0, "top_k": None, "top_p": None} | options
        return torch.bincount(dalles.sample(logits, generator=runtime.generator(0), **options), minlength=4) / 4000

    torch.testing.assert_close(shares(), logits[0].softmax(0), atol=0.03, rtol=0)
    torch.testing.assert_close(shares(temperature=2.0), (logits[0] / 2).softmax(0), atol=0.03, rtol=0)
    assert shares(top_k=2)[2:].sum() == 0 and shares(top_k=2)[1] > 0.2
    assert shares(top_p=0.5)[0] == 1  # the likeliest alone has 0.64
    assert shares(top_p=0.7)[1] > 0.2 and shares(top_p=0.7)[2:].sum() == 0  # the two have 0.88


def test_next_token_is_a_distribution(dalle, stream):
    chances = dalle.next_token(stream[0, :13])
    assert chances.shape == (dalle.config.n_tokens,) and chances.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(chances, dalle(stream)[0, 12].softmax(-1))
    for wrong in ([], stream[0], [9999]):
        with pytest.raises(ValueError, match="stream|tokens"):
            dalle.next_token(wrong)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"n": 0}, "n must be a whole number"),
        ({"temperature": 0}, "temperature must be"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_p": 0}, "top_p must be"),
        ({"guidance": -1}, "guidance must be"),
        ({"guidance": math.inf}, "guidance must be"),
        ({"seed": -1}, "a seed must be"),
        ({"prefix_codes": torch.zeros(4, 4, dtype=torch.long)}, "whole rows"),
        ({"prefix_codes": torch.full((1, 4), 99)}, "codes are numbers of 0 to 19"),
    ],
)
def test_options_that_make_no_sense_are_said(dalle, options, said):
    with pytest.raises(ValueError, match=said):
        dalle.generate(WORDS[0], **options)


def test_an_attention_looks_back_and_no_further():
    """Against the formula, written out with loops."""
    torch.manual_seed(0)
    attention, x = Attention(8, 2), torch.randn(1, 5, 8)
    q, k, v = attention.c_attn(x)[0].view(5, 3, 2, 4).unbind(1)  # [5, 2, 4] each
    expected = torch.zeros(5, 2, 4)
    for place in range(5):
        for head in range(2):
            weights = torch.stack([q[place, head] @ k[other, head] / 2 for other in range(place + 1)]).softmax(0)
            expected[place, head] = sum(weight * v[other, head] for other, weight in enumerate(weights))
    torch.testing.assert_close(attention(x), attention.c_proj(expected.flatten(1))[None])


def test_a_filled_cache_takes_one_token_at_a_time(dalle, stream):
    cache = dalles.Cache(dalle.config, 2, dalle.lm_head.weight)
    dalle.features(stream[:, :5], cache)
    with pytest.raises(ValueError, match="one token is read at a time, not 2"):
        dalle.features(stream[:, 5:7], cache)


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"layers": 0}, {"text_length": 2}, {"pieces": (1, 2)}, {"pieces": pieces_of(WORDS) * 2}]
)
def test_a_form_that_makes_no_sense_is_said(wrong):
    with pytest.raises(ValueError, match="a DALL-E has|pieces are"):
        DALLEConfig(**({"pieces": pieces_of(WORDS), "dim": 32, "heads": 2} | wrong))


def test_the_coldest_temperature_is_the_likeliest_code(dalle):
    coldest = gates.SMALLEST * (1 + 1e-6)
    assert torch.equal(dalle.generate(WORDS[0], temperature=coldest), dalle.generate(WORDS[0], temperature=1e-6))
    with pytest.raises(ValueError, match="temperature .* is too small to compute with"):
        dalle.generate(WORDS[0], temperature=gates.SMALLEST / 10)


def test_a_warning_points_at_the_line_that_drew(dalle):
    for draw in (lambda: dalle.generate("a zeppelin"), lambda: dalle.text_tokens("a zeppelin")):
        with pytest.warns(UserWarning, match="never met the word 'zeppelin'") as said:
            draw()
        assert [warning.filename for warning in said] == [__file__]


def test_the_courses_own_speaks_the_codes_of_the_courses_vqgan(monkeypatch):
    from mmlesson import load_vqgan
    from mmlesson.models import assets

    dalle = dalles.load_dalle(device="cpu")
    dalle.check_vqgan(load_vqgan())
    manifest = copy.deepcopy(assets.manifest())
    manifest["files"][dalles.POCKET_VQGAN]["sha256"] = "cd" * 32
    monkeypatch.setattr(assets, "manifest", lambda *_: manifest)
    with pytest.raises(AssetError, match="codes of another VQGAN"):
        dalles.load_dalle(device="cpu")


def test_a_folder_brings_it_back(dalle, stream, tmp_path):
    save_folder(dalle, tmp_path)
    again = dalles.load_dalle(f"local-dir:{tmp_path}", "cpu")
    torch.testing.assert_close(again.features(stream), dalle.features(stream), atol=0.05, rtol=0.05)
    assert again.config == dalle.config and not any(parameter.requires_grad for parameter in again.parameters())
    again.check_vqgan(SimpleNamespace(name="its own", sha256="ab" * 32))
    for other in ("cd" * 32, ""):
        with pytest.raises(AssetError, match="load the one that it was trained with"):
            again.check_vqgan(SimpleNamespace(name="another", sha256=other))
    (tmp_path / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(AssetError, match="damaged"):
        dalles.load_dalle(f"local-dir:{tmp_path}", "cpu")
    with pytest.raises(AssetError, match="missing"):
        dalles.load_dalle("local-dir:nowhere", "cpu")
    with pytest.raises(ValueError, match="there is no DALL-E"):
        dalles.load_dalle("ghost")


def test_rerank_puts_what_fits_first():
    class Fixed:
        def similarity(self, images, texts):
            return torch.tensor([[0.1], [0.9], [0.5]])

    ranked = dalles.rerank(["a", "b", "c"], "a cat", Fixed())
    assert (
        ranked.images == ["b", "c", "a"]
        and ranked.places == [1, 2, 0]
        and ranked.scores == sorted(ranked.scores, reverse=True)
    )
    with pytest.raises(ValueError, match="no pictures"):
        dalles.rerank([], "a cat", Fixed())
