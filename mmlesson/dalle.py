"""DALL-E: a caption and a picture as one stream of tokens, and a transformer that says which token comes next.

    dalle = load_dalle()
    codes = dalle.generate("a cat on a blue background", n=8, seed=0)      # int64 [8, 12, 12]
    for step in dalle.generate_steps("a cat on a blue background", n=8):   # the same, watched
        step.codes, step.filled
    images = vqgan.decode(codes)

The stream is a caption in the pieces of words that CLIP's tokenizer makes, filled up to a fixed length, and behind it the VQGAN's codes of
the picture, row by row. One decoder-only transformer predicts every token from those before it. Nothing tells it where the text ends and
the picture begins but the positions. To draw a picture, give it a caption and let it go on.

The method is Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation" (DALL-E); the block is GPT-2's (Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners"). Guidance is Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", as used for token streams by Gafni et al.
2022, "Make-A-Scene"; nucleus sampling is Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import runtime
from mmlesson.gates import AssetError
from mmlesson.models import assets
from mmlesson.models.folders import find_folder, load_folder

POCKET = "pocket-dalle"
POCKET_VQGAN = "models/pocket-vqgan/model.safetensors"  # as the manifest names it
TEMPERATURE, GUIDANCE = (
    0.5,
    1.0,
)  # of drawing, unless asked otherwise: of those tried on training prompts none was better, and without guidance it takes half the time (table in the model card)


@dataclass(frozen=True)
class Config:
    """What a DALL-E is built from. A token of the stream is a number: first the pieces of words, then the padding, then the codes."""

    pieces: tuple[
        int, ...
    ]  # CLIP's numbers for the pieces of words that captions are made of, its start and end among them
    text_length: int = 26  # tokens of a caption, start, end and padding included
    n_codes: int = 1024
    grid: int = 12  # codes a side
    dim: int = (
        192  # small, for what it learns in hours on two cores (Hoffmann et al. 2022: some twenty tokens a weight)
    )
    layers: int = 4
    heads: int = 3
    vqgan: str = ""  # sha256 of the weights of the VQGAN whose codes it speaks

    def __post_init__(self):
        if (
            min(self.n_codes, self.grid, self.dim, self.layers, self.heads) < 1
            or self.dim % self.heads
            or self.text_length < 3
        ):
            raise ValueError(
                "a DALL-E has codes, a grid and layers, a width that its heads divide, and room for a caption's start, a piece and its end."
            )
        if not {_bpe().sot_token_id, _bpe().eot_token_id} <= set(self.pieces) or len(set(self.pieces)) < len(
            self.pieces
        ):
            raise ValueError("pieces are CLIP's numbers, each once, with those of its start and its end.")

    @property
    def padding(self) -> int:
        return len(self.pieces)

    @property
    def first_code(self) -> int:
        """The token of code 0; that of code 1 is the next, and so on."""
        return len(self.pieces) + 1

    @property
    def n_tokens(self) -> int:
        return self.first_code + self.n_codes

    @property
    def length(self) -> int:
        """Tokens of a whole stream."""
        return self.text_length + self.grid**2


# ---------------------------------------------------------------------------------------------------
# The network


class Cache:
    """Keys and values of what has been read, so that each token is computed once."""

    def __init__(self, config: Config, n: int, like: Tensor):
        shape = config.layers, n, config.heads, config.length, config.dim // config.heads
        self.keys, self.values, self.filled = like.new_empty(shape), like.new_empty(shape), 0

    def add(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps those of the new tokens, `[n, heads, new, c]` each; returns those of all tokens so far."""
        end = self.filled + keys.shape[2]
        self.keys[layer, :, :, self.filled : end], self.values[layer, :, :, self.filled : end] = keys, values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Attention(nn.Module):
    """Every token looks at itself and at those before it."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, layer: int = 0, cache: Cache | None = None) -> Tensor:
        n, length, dim = x.shape
        q, k, v = (
            self.qkv(x).view(n, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        )  # [n, heads, length, c] each
        if cache is not None:
            k, v = cache.add(layer, k, v)  # [n, heads, all so far, c]
        # a single new token may look at all there is; several, of which none is cached, only backwards
        y = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)  # [n, heads, length, c]
        return self.out(y.transpose(1, 2).reshape(n, length, dim))


class Block(nn.Module):
    """A block of GPT-2: attention, then two linear layers, each added to what was there."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.rise, self.fall = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, layer: int = 0, cache: Cache | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), layer, cache)
        return x + self.fall(F.gelu(self.rise(self.norm2(x)), approximate="tanh"))


@dataclass(frozen=True)
class Step:
    """One step of drawing."""

    codes: Tensor  # int64 [n, grid, grid]; -1 where nothing has been drawn yet
    filled: int  # how many codes of each picture are there, 1 … grid²


class DALLE(nn.Module):
    """Streams of tokens → for every place, how likely each token is to come next. `load_dalle` makes one."""

    def __init__(self, config: Config, name: str = "new"):
        super().__init__()
        self.config, self.name = config, name
        self.tokens = nn.Embedding(config.n_tokens, config.dim)
        self.text_places = nn.Parameter(torch.empty(config.text_length, config.dim))
        self.rows, self.columns = (nn.Parameter(torch.empty(config.grid, config.dim)) for _ in range(2))
        self.blocks = nn.ModuleList([Block(config.dim, config.heads) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.n_tokens, bias=False)
        for module in self.modules():  # as GPT-2 begins
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for places in (self.text_places, self.rows, self.columns):
            nn.init.normal_(places, std=0.02)
        for block in self.blocks:  # what is added to the stream stays of one size, however many blocks add
            for layer in (block.attention.out, block.fall):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * config.layers))

    def __repr__(self) -> str:
        c = self.config
        return f"DALLE({self.name!r}: {sum(p.numel() for p in self.parameters()) / 1e6:.1f} M weights, streams of {c.text_length} + {c.grid**2} tokens)"

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def features(self, stream: Tensor, cache: Cache | None = None) -> Tensor:
        """What the blocks make of a stream, int64 `[n, length]` → `[n, length, dim]`.

        With a cache, `stream` is what follows the cached tokens: any number into an empty one, then one at a time, ValueError for more.
        """
        first = 0 if cache is None else cache.filled
        if first and stream.shape[1] > 1:
            raise ValueError(f"behind what is cached one token is read at a time, not {stream.shape[1]}.")
        x = self.tokens(stream) + self.places()[first : first + stream.shape[1]]  # [n, length, dim]
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, cache)
        if cache is not None:
            cache.filled += stream.shape[1]
        return self.norm(x)

    def places(self) -> Tensor:
        """What each place of the stream adds: its number in the text, or its row and its column in the picture. [length, dim]"""
        picture = self.rows[:, None] + self.columns  # [grid, grid, dim]
        return torch.cat([self.text_places, picture.flatten(0, 1)])

    def forward(self, stream: Tensor) -> Tensor:
        """Logits of the token that follows each: int64 `[n, length]` → float32 `[n, length, n_tokens]`, minus infinity for a text token where a code has to come and the reverse."""
        logits = self.head(self.features(stream)).float()
        c, places = self.config, torch.arange(1, stream.shape[1] + 1, device=stream.device)  # of the tokens that follow
        is_code = torch.arange(c.n_tokens, device=stream.device) >= c.first_code
        return logits.masked_fill((places >= c.text_length)[:, None] != is_code, -math.inf)

    def loss(self, stream: Tensor, soft_codes: Tensor | None = None, text_weight: float = 0.125) -> Tensor:
        """The cross-entropy of whole streams, int64 `[n, text_length + grid²]`: a scalar, nats a token; text counts an eighth, as in the paper. Padding is not asked for.

        soft_codes   float `[n, grid, grid, n_codes]`, how right each code would be in each place (`VQGAN.soft_codes`); None: the stream's own code, and no other
        """
        c, x = self.config, self.features(stream[:, :-1])  # [n, length - 1, dim]
        text = F.linear(x[:, : c.text_length - 1], self.head.weight[: c.first_code])  # [n, text_length - 1, pieces]
        codes = F.linear(x[:, c.text_length - 1 :], self.head.weight[c.first_code :])  # [n, grid², n_codes]
        of_text = F.cross_entropy(
            text.flatten(0, 1).float(), stream[:, 1 : c.text_length].flatten(), ignore_index=c.padding
        )
        right = stream[:, c.text_length :].flatten() - c.first_code if soft_codes is None else soft_codes.flatten(0, 2)
        of_codes = F.cross_entropy(codes.flatten(0, 1).float(), right)
        return text_weight * of_text + (1 - text_weight) * of_codes

    # ------------------------------------------------------------------------------------ the stream

    def text_tokens(self, texts: str | Sequence[str]) -> Tensor:
        """Captions as tokens: int64 `[n, text_length]`, start, pieces of words, end, padding.

        A word with a piece that no training caption held is left out, and what is too long is cut; a warning says so. Signs that none held go without a word.
        """
        c, bpe, numbers = self.config, _bpe(), _numbers(self.config.pieces)
        rows, unknown = [], []
        for text in [texts] if isinstance(texts, str) else texts:
            if not isinstance(text, str):
                raise ValueError(f"a prompt is a text, not {text!r:.60}.")
            kept = []
            for word in bpe.pat.findall(text.lower()):
                pieces = [numbers.get(piece) for piece in bpe.encode(word)]
                if None not in pieces:
                    kept += pieces
                elif word.isalnum():
                    unknown.append(word)
            if len(kept) > c.text_length - 2:
                runtime.warn(f"“{text:.40}…” is cut: a caption has room for {c.text_length - 2} pieces of words.")
            row = [numbers[bpe.sot_token_id], *kept[: c.text_length - 2], numbers[bpe.eot_token_id]]
            rows.append(row + [c.padding] * (c.text_length - len(row)))
        if unknown:
            named = ", ".join(repr(word) for word in dict.fromkeys(unknown))
            runtime.warn(f"{self.name} has never read {named}: it draws as if that were not there.")
        return torch.tensor(rows, device=self.device).view(len(rows), c.text_length)

    def streams(self, text_tokens: Tensor, codes: Tensor) -> Tensor:
        """Whole streams of tokens `[n, text_length]` and codes `[n, grid, grid]`: int64 `[n, text_length + grid²]`."""
        return torch.cat([text_tokens, codes.flatten(1) + self.config.first_code], dim=1)

    def token_name(self, token: int) -> str:
        """What stands for a token on a page: a piece of a word, "start", "end", "padding", or "code 17"."""
        c = self.config
        if token >= c.first_code:
            return f"code {token - c.first_code}"
        if token == c.padding:
            return "padding"
        bpe, piece = _bpe(), c.pieces[token]
        return {bpe.sot_token_id: "start", bpe.eot_token_id: "end"}.get(piece) or bpe.decode([piece]).strip()

    def check_vqgan(self, vqgan) -> None:
        """Raises AssetError unless `vqgan`, what `load_vqgan` returns, is the one whose codes it learned: the codes of one say nothing to another."""
        if not self.config.vqgan or vqgan.sha256 != self.config.vqgan:
            raise AssetError(
                f"{self.name} speaks the codes of a VQGAN whose weights have the sha256 {self.config.vqgan[:12] or 'unknown'}…, "
                f"and those of {vqgan.name} have {vqgan.sha256[:12] or 'none'}…: load the one that it was trained with."
            )

    @torch.no_grad()
    def next_token(self, stream: Tensor | Sequence[int]) -> Tensor:
        """How likely each token is to come next: float32 `[n_tokens]`, sums to 1. `stream` is one, int64 `[length]`, shorter than a whole one.

        Raises ValueError where it is empty, whole already, or holds what is no token.
        """
        stream = torch.as_tensor(stream, device=self.device).long()
        if stream.ndim != 1 or not 0 < len(stream) < self.config.length:
            raise ValueError(
                f"a stream that goes on has 1 to {self.config.length - 1} tokens, not {list(stream.shape)}."
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
    ) -> Iterator[Step]:
        """Draws `n` pictures of a prompt, all at once, a code of each at a time.

        temperature    what logits are divided by; near 0 the likeliest code wins always, above 1 rare ones come more often
        top_k, top_p   only the k likeliest codes are drawn from; only the likeliest that together have at least the share p
        guidance       0: as if there were no caption; 1: as it comes. Above 1: away from what would be drawn without a caption, so many times as far
        prefix_codes   int64 `[rows, grid]`, the upper rows of a picture, which stay; the rest is drawn

        The same arguments give the same codes on the same machine. Raises ValueError for arguments that make no sense.
        """
        c = self.config
        given = self._checked(n, temperature, top_k, top_p, guidance, prefix_codes)  # int64 [kept]
        generator = runtime.generator(seed)
        captions = self.text_tokens([prompt, ""] if guidance != 1 else [prompt])  # [1 or 2, text_length]
        start = torch.cat([captions, (given + c.first_code).expand(len(captions), -1)], dim=1)
        cache = Cache(c, len(captions) * n, self.head.weight)
        # all n pictures begin alike: what they share is read once
        once = Cache(c, len(captions), self.head.weight)
        x = self.features(start, once)[:, -1].repeat_interleave(
            n, 0
        )  # [rows, dim]; rows are n with the caption, then n without
        for all_rows, read in ((cache.keys, once.keys), (cache.values, once.values)):
            all_rows[:, :, :, : once.filled] = read[:, :, :, : once.filled].repeat_interleave(n, 1)
        cache.filled = once.filled
        codes = torch.full((n, c.grid**2), -1)
        codes[:, : len(given)] = given.cpu()
        for place in range(len(given), c.grid**2):
            logits = F.linear(x, self.head.weight[c.first_code :]).float()  # [rows, n_codes]
            if guidance != 1:
                told, untold = logits.chunk(2)
                logits = untold + guidance * (told - untold)
            codes[:, place] = drawn = _draw(logits.cpu(), temperature, top_k, top_p, generator)
            yield Step(codes.view(n, c.grid, c.grid).clone(), place + 1)
            if place + 1 < c.grid**2:
                token = (drawn.to(self.device) + c.first_code).repeat(len(captions))[:, None]  # [rows, 1]
                x = self.features(token, cache)[:, -1]

    def generate(self, prompt: str, n: int = 1, seed: int = 0, **options) -> Tensor:
        """The codes of `n` pictures of a prompt, int64 `[n, grid, grid]`: the last of `generate_steps`, which explains the options."""
        for step in self.generate_steps(prompt, n, seed, **options):
            pass
        return step.codes

    def _checked(self, n, temperature, top_k, top_p, guidance, prefix_codes) -> Tensor:
        """The codes that are given, int64 [kept]; ValueError for what makes no sense."""
        c = self.config
        for name, value in (("n", n), ("top_k", top_k)):
            if not (value is None and name == "top_k") and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ValueError(f"{name} is a whole number, at least 1, not {value!r}.")
        if not temperature > 0:
            raise ValueError(f"temperature is a number above 0, not {temperature!r}.")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p is a share above 0, at most 1, not {top_p!r}.")
        if not (math.isfinite(guidance) and guidance >= 0):
            raise ValueError(f"guidance is a number, at least 0, not {guidance!r}.")
        if prefix_codes is None:
            return torch.zeros(0, dtype=torch.long, device=self.device)
        given = torch.as_tensor(prefix_codes)
        if given.ndim != 2 or given.shape[1] != c.grid or not 0 < len(given) < c.grid or given.is_floating_point():
            raise ValueError(
                f"prefix_codes are whole rows of codes, int64 [1 to {c.grid - 1}, {c.grid}], not {given.dtype} {list(given.shape)}."
            )
        if given.min() < 0 or given.max() >= c.n_codes:
            raise ValueError(f"codes are numbers of 0 to {c.n_codes - 1}.")
        return given.long().flatten().to(self.device)


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """A code for each row of logits [n, n_codes]: int64 [n]."""
    logits = (
        logits - logits.amax(dim=1, keepdim=True)
    ) / temperature  # the highest is 0: however small the temperature, nothing overflows upwards
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]  # [n, 1]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.softmax(dim=1).sort(dim=1, descending=True)
        before = ordered.cumsum(dim=1) - ordered  # the share of those that are likelier
        logits = logits.masked_fill(
            torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= top_p), -math.inf
        )
    return torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


@functools.lru_cache(maxsize=1)
def _bpe():
    """CLIP's tokenizer: byte pair encoding, Sennrich et al. 2016."""
    import open_clip

    return open_clip.SimpleTokenizer()


@functools.lru_cache(maxsize=4)
def _numbers(pieces: tuple[int, ...]) -> dict[int, int]:
    return {piece: number for number, piece in enumerate(pieces)}


def pieces_of(texts) -> tuple[int, ...]:
    """CLIP's numbers for all pieces of the words of `texts`, in rising order, with its start and end: what `Config.pieces` takes."""
    bpe = _bpe()
    words = {word for text in texts for word in bpe.pat.findall(text.lower())}
    return tuple(sorted({bpe.sot_token_id, bpe.eot_token_id, *(piece for word in words for piece in bpe.encode(word))}))


# ---------------------------------------------------------------------------------------------------
# Re-ranking


@dataclass(frozen=True)
class Ranked:
    """Pictures in the order of how well they fit a prompt, the best first."""

    images: list
    scores: list[float]  # cosines, falling
    places: list[int]  # where each stood before


def rerank(images: Sequence, prompt: str, clip) -> Ranked:
    """Orders pictures by CLIP's cosine with the prompt (as DALL-E's authors chose the best of 512). `clip` is what `load_clip` returns.

    Raises ValueError where there is no picture.
    """
    if not len(images):
        raise ValueError("there are no pictures to rank.")
    cosines = clip.similarity(list(images), [prompt])[:, 0]  # [n]
    order = cosines.argsort(descending=True, stable=True).tolist()
    return Ranked([images[place] for place in order], cosines[order].tolist(), order)


# ---------------------------------------------------------------------------------------------------
# Folders


def new_dalle(config: Config, seed: int = 0) -> DALLE:
    """A fresh, untrained DALL-E; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DALLE(config)


def load_dalle(name: str | None = None, device: torch.device | str | None = None) -> DALLE:
    """A trained DALL-E: None or "pocket-dalle" is the course's own, "local-dir:path" a folder of `save_folder`.

    Frozen, in `eval` mode, float32. Raises AssetError where files are missing or damaged, or where the course's DALL-E and the course's VQGAN
    do not belong together, ValueError for another name. Whether any other two do, `DALLE.check_vqgan` says.
    """
    name = POCKET if name is None else name
    dalle = load_folder(find_folder(name, POCKET, "DALL-E"), "DALL-E", DALLE, Config, name)
    known = assets.manifest()["files"].get(POCKET_VQGAN, {}).get("sha256")
    if name == POCKET and dalle.config.vqgan != known:
        raise AssetError(
            f"{POCKET} was trained on the codes of another VQGAN than {POCKET_VQGAN} in data/: {assets.how_to_mend(POCKET_VQGAN)}."
        )
    return dalle.to(runtime.device(device))
