"""DALL-E: a caption and a picture as one stream of tokens, and a transformer that predicts the next token.

    dalle = load_dalle()
    codes = dalle.generate("a cat on a blue background", n=8, seed=0)      # int64 [8, 12, 12]
    for step in dalle.generate_steps("a cat on a blue background", n=8):   # the same, step by step
        step.codes, step.filled
    images = vqgan.decode(codes)

A stream begins with a caption, cut into pieces of words by CLIP's tokenizer and padded to a fixed length. The VQGAN's
codes of the picture follow, row by row. One decoder-only transformer predicts every token from the tokens before it.
Only the position embeddings tell it where the text ends and the picture begins. To draw a picture, give it a caption
and let it continue.

The method is Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation" (DALL-E); the network is GPT-2 (Radford et al.
2019, "Language Models are Unsupervised Multitask Learners"), and its parts have GPT-2's names: `wte`, `wpe`, `h`,
`ln_1`, `attn`, `ln_2`, `mlp`, `ln_f`, `lm_head`. Guidance is Ho and Salimans 2022, "Classifier-Free Diffusion
Guidance", as used for token streams by Gafni et al. 2022, "Make-A-Scene"; nucleus sampling (top_p) is Holtzman et al.
2020, "The Curious Case of Neural Text Degeneration".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import gates, runtime, words
from mmlesson.captions import caption_tokens, is_known, piece_name, tokenizer
from mmlesson.captions import pieces_of as pieces_of  # offered here too: it makes `DALLEConfig.pieces`
from mmlesson.gates import AssetError
from mmlesson.models import assets
from mmlesson.models.folders import find_folder, load_folder

POCKET = "pocket-dalle"
POCKET_VQGAN = "models/pocket-vqgan/model.safetensors"  # as the manifest names it
# The defaults of drawing. No other setting was better on training prompts (the model card has the table), and without
# guidance a drawing takes half the time.
TEMPERATURE = 0.5
GUIDANCE = 1.0


@dataclass(frozen=True)
class DALLEConfig:
    """The sizes of a DALL-E. A token is a number: first come the pieces of words, then the padding, then the codes."""

    pieces: tuple[int, ...]  # CLIP's numbers for the pieces of words in captions, with its start and its end
    text_length: int = 26  # tokens of a caption, with start, end and padding
    n_codes: int = 1024
    grid: int = 12  # codes along a side
    dim: int = 192  # small, so that two cores can train it in hours (Hoffmann et al. 2022: about 20 tokens a weight)
    layers: int = 4
    heads: int = 3
    vqgan: str = ""  # sha256 of the weights of the VQGAN whose codes it draws

    def __post_init__(self):
        sizes = (self.n_codes, self.grid, self.dim, self.layers, self.heads)
        if min(sizes) < 1 or self.dim % self.heads or self.text_length < 3:
            raise ValueError(
                "a DALL-E has at least one code, one place, one layer and one head; "
                "its dim is a multiple of its heads; its text_length is at least 3: a start, a piece and an end."
            )
        ends = {tokenizer().sot_token_id, tokenizer().eot_token_id}
        if not ends <= set(self.pieces) or len(set(self.pieces)) < len(self.pieces):
            raise ValueError("pieces are CLIP's numbers, each only once, with those of its start and its end.")

    @property
    def padding(self) -> int:
        """The token that fills a caption up."""
        return len(self.pieces)

    @property
    def first_code(self) -> int:
        """The token of code 0. The token of code 1 is the next one, and so on."""
        return len(self.pieces) + 1

    @property
    def n_tokens(self) -> int:
        """How many different tokens there are."""
        return self.first_code + self.n_codes

    @property
    def length(self) -> int:
        """Tokens of a whole stream."""
        return self.text_length + self.grid**2


# ---------------------------------------------------------------------------------------------------
# The network


class Cache:
    """Keys and values of the tokens read so far, so that each token is computed only once."""

    def __init__(self, config: DALLEConfig, n: int, like: Tensor):
        shape = (config.layers, n, config.heads, config.length, config.dim // config.heads)
        self.keys = like.new_empty(shape)
        self.values = like.new_empty(shape)
        self.filled = 0  # tokens read so far

    def add(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores those of the new tokens, `[n, heads, new, c]` each; returns those of all tokens so far."""
        end = self.filled + keys.shape[2]
        self.keys[layer, :, :, self.filled : end] = keys
        self.values[layer, :, :, self.filled : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def fill_from(self, other: Cache, n: int) -> None:
        """Takes over what another cache holds, each of its streams `n` times."""
        end = other.filled
        self.keys[:, :, :, :end] = other.keys[:, :, :, :end].repeat_interleave(n, dim=1)
        self.values[:, :, :, :end] = other.values[:, :, :, :end].repeat_interleave(n, dim=1)
        self.filled = end


class Attention(nn.Module):
    """Every token looks at itself and at the tokens before it."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(dim, 3 * dim)  # queries, keys and values
        self.c_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, layer: int = 0, cache: Cache | None = None) -> Tensor:
        n, length, dim = x.shape
        qkv = self.c_attn(x).view(n, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [n, heads, length, c] each
        if cache is not None:
            k, v = cache.add(layer, k, v)  # [n, heads, all so far, c]
        # one new token may look at everything; several new tokens follow no cached ones, and each looks only backwards
        y = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)  # [n, heads, length, c]
        return self.c_proj(y.transpose(1, 2).reshape(n, length, dim))


class MLP(nn.Module):
    """Two linear layers, with GELU between them."""

    def __init__(self, dim: int):
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim)
        self.c_proj = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """A block of GPT-2: attention, then the MLP. Each adds to its input."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor, layer: int = 0, cache: Cache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), layer, cache)
        return x + self.mlp(self.ln_2(x))


@dataclass(frozen=True)
class DrawStep:
    """One step of drawing."""

    codes: Tensor  # int64 [n, grid, grid]; -1 where nothing has been drawn yet
    filled: int  # codes that each picture has so far, 1 … grid²


class DALLE(nn.Module):
    """Streams of tokens → for every place, how likely each token is to come next. `load_dalle` makes one."""

    def __init__(self, config: DALLEConfig, name: str = "new"):
        super().__init__()
        self.config = config
        self.name = name
        self.wte = nn.Embedding(config.n_tokens, config.dim)  # token embeddings
        self.wpe_text = nn.Parameter(torch.empty(config.text_length, config.dim))  # position embeddings: see `wpe`
        self.wpe_row = nn.Parameter(torch.empty(config.grid, config.dim))
        self.wpe_column = nn.Parameter(torch.empty(config.grid, config.dim))
        self.h = nn.ModuleList([Block(config.dim, config.heads) for _ in range(config.layers)])
        self.ln_f = nn.LayerNorm(config.dim)
        self.lm_head = nn.Linear(config.dim, config.n_tokens, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Random weights, as GPT-2's."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for positions in (self.wpe_text, self.wpe_row, self.wpe_column):
            nn.init.normal_(positions, std=0.02)
        for block in self.h:  # smaller with more blocks, so that the sum of what they add keeps its size
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * self.config.layers))

    def __repr__(self) -> str:
        c = self.config
        weights = sum(parameter.numel() for parameter in self.parameters())
        return f"DALLE({self.name!r}: {weights / 1e6:.1f} M weights, streams of {c.text_length} + {c.grid**2} tokens)"

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def wpe(self) -> Tensor:
        """The position embeddings of a whole stream, float32 `[length, dim]`.

        A text token has one for its number in the text. A code has the sum of one for its row and one for its column.
        """
        picture = self.wpe_row[:, None] + self.wpe_column  # [grid, grid, dim]
        return torch.cat([self.wpe_text, picture.flatten(0, 1)])

    def features(self, stream: Tensor, cache: Cache | None = None) -> Tensor:
        """The hidden states after the last block and norm: stream int64 `[n, length]` → float32 `[n, length, dim]`.

        With a cache, `stream` is what follows the cached tokens: any number of tokens into an empty cache, then one at
        a time. Raises ValueError where more than one follows cached tokens.
        """
        first = 0 if cache is None else cache.filled
        length = stream.shape[1]
        if first > 0 and length > 1:
            raise ValueError(f"after cached tokens, one token is read at a time, not {length}.")
        x = self.wte(stream) + self.wpe()[first : first + length]  # [n, length, dim]
        for layer, block in enumerate(self.h):
            x = block(x, layer, cache)
        if cache is not None:
            cache.filled += length
        return self.ln_f(x)

    def forward(self, stream: Tensor) -> Tensor:
        """Logits of the token after each: int64 `[n, length]` → float32 `[n, length, n_tokens]`.

        They are minus infinity for text tokens where a code comes next, and for codes where a text token comes next.
        """
        c = self.config
        logits = self.lm_head(self.features(stream)).float()
        places = torch.arange(1, stream.shape[1] + 1, device=stream.device)  # of the tokens that come next
        code_comes = places >= c.text_length  # [length]
        is_code = torch.arange(c.n_tokens, device=stream.device) >= c.first_code  # [n_tokens]
        return logits.masked_fill(code_comes[:, None] != is_code, -math.inf)

    def loss(self, stream: Tensor, soft_codes: Tensor | None = None, text_weight: float = 0.125) -> Tensor:
        """The cross-entropy of whole streams, int64 `[n, text_length + grid²]`: a scalar, in nats a token.

        The text counts an eighth (`text_weight`), as in the paper. Padding does not count.

        soft_codes   float `[n, grid, grid, n_codes]`, how well each code fits in each place (`VQGAN.soft_codes`); None:
                     only the stream's own code is right
        """
        c = self.config
        x = self.features(stream[:, :-1])  # [n, length - 1, dim]
        text_logits = F.linear(x[:, : c.text_length - 1], self.lm_head.weight[: c.first_code])
        code_logits = F.linear(x[:, c.text_length - 1 :], self.lm_head.weight[c.first_code :])  # [n, grid², n_codes]
        text = stream[:, 1 : c.text_length].flatten()  # [n · (text_length - 1)]
        text_loss = F.cross_entropy(text_logits.flatten(0, 1).float(), text, ignore_index=c.padding)
        if soft_codes is None:
            codes = stream[:, c.text_length :].flatten() - c.first_code  # [n · grid²]
        else:
            codes = soft_codes.flatten(0, 2)  # [n · grid², n_codes]
        code_loss = F.cross_entropy(code_logits.flatten(0, 1).float(), codes)
        return text_weight * text_loss + (1 - text_weight) * code_loss

    # ------------------------------------------------------------------------------------ the stream

    def text_tokens(self, texts: str | Sequence[str]) -> Tensor:
        """Captions as tokens: int64 `[n, text_length]`, start, pieces of words, end, padding.

        A word that no training caption contained is left out, and a caption that is too long is cut; a warning says so.
        `captions.caption_tokens` is how. The empty text is no caption at all: guidance compares with it. Raises
        ValueError where a prompt is not a text, or where no training caption contained any of its words.
        """
        c = self.config
        texts = [texts] if isinstance(texts, str) else list(texts)
        found = caption_tokens(texts, c.pieces, c.text_length)
        words.check(self.name, filter(None, texts), functools.partial(is_known, pieces=c.pieces))
        for sentence in found.cut:
            runtime.warn(sentence)
        if found.unknown:
            runtime.warn(words.never_met(self.name, found.unknown, guesses=False))
        return torch.tensor(found.rows, device=self.device).view(len(found.rows), c.text_length)

    def streams(self, text_tokens: Tensor, codes: Tensor) -> Tensor:
        """Whole streams of tokens `[n, text_length]` and codes `[n, grid, grid]`: int64 `[n, text_length + grid²]`."""
        return torch.cat([text_tokens, codes.flatten(1) + self.config.first_code], dim=1)

    def token_name(self, token: int) -> str:
        """A readable name of a token: a piece of a word, "start", "end", "padding", or "code 17"."""
        c = self.config
        if token >= c.first_code:
            return f"code {token - c.first_code}"
        if token == c.padding:
            return "padding"
        return piece_name(c.pieces[token])

    def check_vqgan(self, vqgan) -> None:
        """Raises AssetError unless `vqgan` is the one that this DALL-E was trained with: others have other codes."""
        if not self.config.vqgan or vqgan.sha256 != self.config.vqgan:
            raise AssetError(
                f"{self.name} draws codes of a VQGAN whose weights have the sha256 "
                f"{self.config.vqgan[:12] or 'unknown'}…, "
                f"but those of {vqgan.name} have {vqgan.sha256[:12] or 'none'}…: load the one that it was trained with."
            )

    @torch.no_grad()
    def next_token(self, stream: Tensor | Sequence[int]) -> Tensor:
        """How likely each token is to come next: float32 `[n_tokens]`, sums to 1.

        `stream` is one stream, int64 `[length]`, not yet whole.

        Raises ValueError where it is empty or already whole, or where a number in it is not a token.
        """
        stream = torch.as_tensor(stream, device=self.device).long()
        if stream.ndim != 1 or not 0 < len(stream) < self.config.length:
            raise ValueError(
                f"an unfinished stream has 1 to {self.config.length - 1} tokens, not {list(stream.shape)}."
            )
        if stream.min() < 0 or stream.max() >= self.config.n_tokens:
            raise ValueError(f"tokens are numbers of 0 to {self.config.n_tokens - 1}.")
        return self(stream[None])[0, -1].softmax(dim=-1).cpu()

    # ------------------------------------------------------------------------------------ drawing

    @torch.no_grad()
    def generate_steps(
        self,
        prompt: str,
        n: int = 1,
        seed: int = 0,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = GUIDANCE,
        prefix_codes: Tensor | None = None,
    ) -> Iterator[DrawStep]:
        """Draws `n` pictures of a prompt, all at once, one code of each at a step. Yields a `DrawStep` for each.

        temperature    logits are divided by it; near 0 the likeliest code always wins, above 1 rare codes come often
        top_k          draw only from the k likeliest codes
        top_p          draw only from the likeliest codes that together have at least this share
        guidance       0: ignore the caption; 1: no guidance; above 1: follow the caption more, at twice the time
        prefix_codes   int64 `[rows, grid]`, the upper rows of the picture, which are kept; the rest is drawn

        The same arguments give the same codes on the same machine. `n` is one of them: the first picture of four is
        not the picture that the same seed draws alone. Raises ValueError for arguments that make no sense.
        """
        c = self.config
        given = self._checked(n, temperature, top_k, top_p, guidance, prefix_codes)  # int64 [kept]
        generator = runtime.generator(seed)
        captions = self.text_tokens([prompt] if guidance == 1 else [prompt, ""])  # [1 or 2, text_length]
        words.check(self.name, [prompt])  # "" is no caption, which is nothing to draw
        start = torch.cat([captions, (given + c.first_code).expand(len(captions), -1)], dim=1)
        codes = torch.full((n, c.grid**2), -1)
        codes[:, : len(given)] = given.cpu()

        hidden_states, cache = self.prefill(start, n)  # [rows, dim]; rows: n with the caption, then perhaps n without
        for place in range(len(given), c.grid**2):
            logits = self.next_logits(hidden_states, guidance)  # [n, n_codes]
            drawn = sample(logits.cpu(), temperature, top_k, top_p, generator)  # [n]
            codes[:, place] = drawn
            yield DrawStep(codes.view(n, c.grid, c.grid).clone(), place + 1)
            if place + 1 < c.grid**2:
                tokens = (drawn.to(self.device) + c.first_code).repeat(len(captions))  # [rows]
                hidden_states = self.features(tokens[:, None], cache)[:, -1]

    def prefill(self, start: Tensor, n: int) -> tuple[Tensor, Cache]:
        """Reads the beginnings of streams, int64 `[captions, length]`, once, and repeats each result `n` times.

        Returns the hidden states of the last tokens, `[captions · n, dim]`, and a cache of all tokens. Pictures with
        the same caption begin alike, so one reading is enough for all of them.
        """
        once = Cache(self.config, len(start), self.lm_head.weight)
        hidden_states = self.features(start, once)[:, -1]  # [captions, dim]
        cache = Cache(self.config, len(start) * n, self.lm_head.weight)
        cache.fill_from(once, n)
        return hidden_states.repeat_interleave(n, dim=0), cache

    def next_logits(self, hidden_states: Tensor, guidance: float = GUIDANCE) -> Tensor:
        """Logits of the next code: hidden states `[rows, dim]` → float32 `[n, n_codes]`.

        With a `guidance` other than 1, half of the rows read the caption and the other half an empty one. The logits go
        from those without the caption towards those with it, `guidance` times the way.
        """
        logits = F.linear(hidden_states, self.lm_head.weight[self.config.first_code :]).float()  # [rows, n_codes]
        if guidance == 1:
            return logits
        with_caption, without_caption = logits.chunk(2)  # [n, n_codes] each
        return without_caption + guidance * (with_caption - without_caption)

    def generate(self, prompt: str, n: int = 1, seed: int = 0, **options) -> Tensor:
        """The codes of `n` pictures of a prompt, int64 `[n, grid, grid]`. The options are those of `generate_steps`."""
        *_, last = self.generate_steps(prompt, n, seed, **options)
        return last.codes

    def _checked(self, n, temperature, top_k, top_p, guidance, prefix_codes) -> Tensor:
        """The codes of `prefix_codes`, int64 [kept], none where it is None.

        Raises ValueError for arguments that make no sense.
        """
        c = self.config
        for name, value in {"n": n, "top_k": 1 if top_k is None else top_k}.items():
            gates.whole_number(name, value, 1)
        gates.real_number("temperature", temperature, above=0)
        gates.real_number("top_p", 1 if top_p is None else top_p, above=0, most=1)
        gates.real_number("guidance", guidance, least=0)
        if prefix_codes is None:
            return torch.zeros(0, dtype=torch.long, device=self.device)
        given = torch.as_tensor(prefix_codes)
        if given.ndim != 2 or given.shape[1] != c.grid or not 0 < len(given) < c.grid or given.is_floating_point():
            raise ValueError(
                f"prefix_codes are whole rows of codes, int64 [1 to {c.grid - 1}, {c.grid}], "
                f"not {given.dtype} {list(given.shape)}."
            )
        if given.min() < 0 or given.max() >= c.n_codes:
            raise ValueError(f"codes are numbers of 0 to {c.n_codes - 1}.")
        return given.long().flatten().to(self.device)


def sample(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """Draws a code for each row of logits, float `[n, n_codes]`: int64 `[n]`.

    `DALLE.generate_steps` explains the options.
    """
    logits = logits - logits.amax(dim=1, keepdim=True)  # the highest is 0, so that a tiny temperature cannot overflow
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]  # [n, 1]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.softmax(dim=1).sort(dim=1, descending=True)
        likelier = ordered.cumsum(dim=1) - ordered  # the share of all codes that are likelier
        left_out = torch.zeros_like(likelier, dtype=torch.bool).scatter(1, order, likelier >= top_p)
        logits = logits.masked_fill(left_out, -math.inf)
    return torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


# ---------------------------------------------------------------------------------------------------
# Re-ranking


@dataclass(frozen=True)
class Ranked:
    """Pictures sorted by how well they fit a prompt, the best first."""

    images: list
    scores: list[float]  # cosines, the highest first
    places: list[int]  # the place of each in the list that was given


def rerank(images: Sequence, prompt: str, clip) -> Ranked:
    """Sorts pictures by CLIP's cosine with the prompt, as DALL-E's authors chose the best of 512.

    `clip` is what `load_clip` returns.

    Raises ValueError where there is no picture.
    """
    if len(images) == 0:
        raise ValueError("there are no pictures to rank.")
    cosines = clip.similarity(list(images), [prompt])[:, 0]  # [n]
    order = cosines.argsort(descending=True, stable=True).tolist()
    return Ranked([images[place] for place in order], cosines[order].tolist(), order)


# ---------------------------------------------------------------------------------------------------
# Folders


def new_dalle(config: DALLEConfig, seed: int = 0) -> DALLE:
    """A fresh, untrained DALL-E. Its weights depend on `config` and `seed` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DALLE(config)


def load_dalle(name: str | None = None, device: torch.device | str | None = None) -> DALLE:
    """A trained DALL-E: None or "pocket-dalle" is the course's own, "local-dir:path" a folder of `save_folder`.

    Frozen, in `eval` mode, float32. Raises AssetError where files are missing or damaged, or where the course's DALL-E
    and the course's VQGAN do not belong together; ValueError for another name. For any other pair, `DALLE.check_vqgan`
    checks that.
    """
    name = POCKET if name is None else name
    dalle = load_folder(find_folder(name, POCKET, "DALL-E"), "DALL-E", DALLE, DALLEConfig, name)
    known = assets.manifest()["files"].get(POCKET_VQGAN, {}).get("sha256")
    if name == POCKET and dalle.config.vqgan != known:
        raise AssetError(
            f"{POCKET} was trained on the codes of another VQGAN than {POCKET_VQGAN} in data/: "
            f"{assets.how_to_restore(POCKET_VQGAN)}."
        )
    return dalle.to(runtime.device(device))
