"""Captions as tokens: how DALL-E reads a sentence.

CLIP's tokenizer cuts a text into pieces of words, by byte pair encoding (Sennrich et al. 2016, "Neural Machine
Translation of Rare Words with Subword Units"). It knows 49,408 pieces. The course's captions use fewer than 1,000 of
them, so DALL-E numbers only these: its token for a piece is the place of the piece in `DALLEConfig.pieces`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmlesson import words
from mmlesson.models import clip_folders


@functools.lru_cache(maxsize=1)
def tokenizer():
    """CLIP's tokenizer. Its own signs, such as "<end_of_text>", are letters to it where they stand in a text."""
    from mmlesson.models.libraries import open_clip

    bpe = open_clip.SimpleTokenizer()
    clip_folders.plain_text(bpe)
    return bpe


def pieces_of(texts: Iterable[str]) -> tuple[int, ...]:
    """CLIP's numbers for all pieces of the words of `texts`, sorted, with its start and end: `DALLEConfig.pieces`."""
    bpe = tokenizer()
    parts = {part for text in texts for part in bpe.pat.findall(text.lower())}
    pieces = {piece for part in parts for piece in bpe.encode(part)}
    return tuple(sorted(pieces | {bpe.sot_token_id, bpe.eot_token_id}))


@functools.lru_cache(maxsize=4)
def _token_of(pieces: tuple[int, ...]) -> dict[int, int]:
    """From CLIP's number of a piece to DALL-E's token."""
    return {piece: token for token, piece in enumerate(pieces)}


def is_known(word: str, pieces: tuple[int, ...]) -> bool:
    """Whether all pieces of a word are in `pieces`."""
    bpe = tokenizer()
    tokens = _token_of(pieces)
    return all(piece in tokens for part in bpe.pat.findall(word) for piece in bpe.encode(part))


@dataclass(frozen=True)
class CaptionTokens:
    """Texts as tokens, and what could not be kept."""

    rows: list[list[int]]  # of each text: start, pieces of words, end, padding
    cut: list[str]  # a sentence about each text that was too long
    unknown: list[str]  # words that were left out, each once


def caption_tokens(texts: Sequence[str], pieces: tuple[int, ...], length: int) -> CaptionTokens:
    """Texts as rows of `length` tokens.

    A word with a piece that is not in `pieces` is left out, and a text that is too long is cut. Punctuation marks that
    are not in `pieces` are ignored silently. Raises ValueError where a prompt is not a text.
    """
    bpe = tokenizer()
    tokens = _token_of(pieces)
    padding = len(pieces)
    room = length - 2  # for pieces of words; the other two tokens are the start and the end
    rows = []
    cut = []
    unknown = []
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"a prompt is a text, not {text!r:.60}.")
        known = []
        has_gaps = False
        for word in bpe.pat.findall(text.lower()):
            of_word = [tokens.get(piece) for piece in bpe.encode(word)]
            if None not in of_word:
                known += of_word
            else:
                has_gaps = True
        if has_gaps:
            unknown += words.unknown([text], functools.partial(is_known, pieces=pieces))
        if len(known) > room:
            cut.append(f"“{text:.40}…” is cut: a caption has room for {room} pieces of words.")
        row = [tokens[bpe.sot_token_id], *known[:room], tokens[bpe.eot_token_id]]
        rows.append(row + [padding] * (length - len(row)))
    return CaptionTokens(rows, cut, list(dict.fromkeys(unknown)))


def piece_name(piece: int) -> str:
    """A readable name for CLIP's number of a piece: the piece, "start" or "end"."""
    bpe = tokenizer()
    if piece == bpe.sot_token_id:
        return "start"
    if piece == bpe.eot_token_id:
        return "end"
    return bpe.decode([piece]).strip()
