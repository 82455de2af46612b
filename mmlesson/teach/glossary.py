"""The terms of the field that the lessons use, and where a reader meets each of them first.

`GLOSSARY` lists them in reading order, each with words that stand where it is explained, in the paragraph in which it
appears first. Plurals count as the term. A test asserts that every term is explained there, and the site of the course
(`mmlesson site`) shows the explanations. A term that an everyday word looks like ("key", "value", "judge") is left
out: a program cannot tell them apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GLOSSARY = {
    # Lesson 1
    "CLIP": "stands for",
    "contrastive": "learned by comparing",
    "pre-training": "people train it once",
    "loss": "number that training makes smaller",
    "multimodal": "more than one kind of input",
    "transformer": "reads a list of pieces",
    "patch": "plays the part of a word",
    "DALL-E": "writes pictures as if they were text",
    "pocket world": "drawings (free emoji pictures) on plain backgrounds",
    "held out": "no model in this course was trained on them",
    "neural network": "long formulas with many numbers inside",
    "weight": "many numbers inside",
    "image tower": "turns a picture into",
    "vector": "a list of numbers",
    "text tower": "turns a text into",
    "embedding": "Such a vector",
    "feature": "of its picture or text",
    "dot product": "multiplies them number by number",
    "cosine": "angle between them",
    "tokenizer": "cuts the text into",
    "token": "pieces of text",
    "batch": "group of N pairs",
    "logit scale": "Multiply the cosines by a number",
    "logit": "scores before they become probabilities",
    "softmax": "turns scores into probabilities",
    "cross-entropy": "minus the logarithm of the probability",
    "convolution": "moves small filters over the picture",
    "linear layer": "weighted sums",
    "recurrent network": "one after another and keeps a memory",
    "gradient": "in which direction the loss rises",
    "optimizer": "moves each weight a little",
    "prompt": "a text that you give to a model",
    "temperature": "divides the cosines by a",
    "classify": "to choose its class from a list",
    "template": "the part of the prompt that stays the same",
    "zero-shot": "no example of any class",
    "ensemble": "mean of its vectors over several templates",
    "rank": "1 means that it came first",
    "linear probe": "trains one linear layer",
    "frozen": "their weights do not change",
    "modality gap": "distance between these two points",
    # Lesson 2
    "index": "prepared for searching",
    "top-k": "largest numbers",
    "argmax": "place of the largest",
    "recall": "among the first",
    "threshold": "the lowest score that counts as a hit",
    "calibrating": "choose a threshold that only about one in twenty",
    "MRR": "the mean reciprocal rank",
    "bootstrap": "draws as many as there are, at random, again and again",
    "approximate index": "looks only where the answer probably is",
    "inverted file": "meets all centres first",
    "k-means": "a method that finds groups",
    "sha256": "a fingerprint",
    "LanceDB": "database",
    "product quantisation": "cuts a vector into short pieces",
    "codebook": "a list of typical pieces",
    # Lesson 3
    "generator": "a network that makes a picture from numbers",
    "VQGAN": "stands for",
    "generative adversarial network": "The next sections explain its name",
    "decoder": "a grid of 12 × 12 whole numbers",
    "codes": "whole numbers",
    "encoder": "turns a picture into a grid of vectors",
    "latent": "a grid of vectors",
    "vector quantiser": "replaces each latent by the nearest row",
    "quantise": "round to the nearest allowed value",
    "straight-through": "acts as if there were no jump",
    "discriminator": "learns to tell scenes from reconstructions",
    "normalise": "subtract the mean",
    "stride": "pixels that the window moves at a time",
    "prior": "knows which grids are pictures",
    "autoregressive": "writes one code after the other",
    "denoiser": "which code the scene had",
    "diffusion model": "removing noise step by step",
    "restore": "turn its answer into latents again",
    "U-Net": "makes the grid coarser",
    "clarity": "is the scene alone",
    "guidance": "says in which direction the picture would fit better",
    "cutout": "cropped, shifted and coloured",
    "classifier guidance": "the gradient of a second network leads it",
    "seed": "the number from which all random numbers",
    # Lesson 4
    "GPT": "predicts the next token",
    "dVAE": "discrete variational autoencoder",
    "parameter": "numbers that training sets",
    "token embedding": "looks up in a table",
    "position embedding": "Each place in the stream",
    "padding": "a token without a meaning",
    "causal mask": "which token may look at which",
    "attention": "collects information",
    "multi-layer perceptron": "two linear layers with a curve between them",
    "hidden state": "after the last block",
    "soft label": "a share for each code",
    "cache": "keeps them",
    "classifier-free guidance": "what the caption adds",
    "re-ranking": "kept those that CLIP found to fit best",
}


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of a lesson's prose, an item of a list, or a table: one line, without code and addresses."""

    where: str  # "01_clip, cell lesson1-005"
    text: str

    def holds(self, term: str) -> bool:
        return bool(re.search(word(term), self.text, re.IGNORECASE))


def paragraphs_of(source: str) -> list[str]:
    """The paragraphs of a Markdown cell, each in one line."""
    source = re.sub(r"```.*?```", "", source, flags=re.DOTALL)
    source = re.sub(r"`[^`\n]*`", "`…`", source)  # names of functions are no prose
    source = re.sub(r"\]\([^)]*\)", "]", source)  # addresses of links
    found = []
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", source):
        part = " ".join(part.split())
        if found and re.match(r"(?:[-*]|\d+\.) ", part) and re.search(r":$|: (?:[-*]|\d+\.) ", found[-1]):
            found[-1] += f" {part}"  # a list that a sentence announces with a colon belongs to it
        elif part:
            found.append(part)
    return found


def prose(paths: Iterable[Path]) -> list[Paragraph]:
    """What a reader reads, in order: no code, no output, no folded solution, no references."""
    found = []
    for path in paths:
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
            if cell["cell_type"] == "markdown" and "solution" not in cell["metadata"].get("tags", []):
                for part in paragraphs_of("".join(cell["source"])):
                    if not part.startswith("**References"):
                        found.append(Paragraph(f"{path.stem}, cell {cell['id']}", part))
    return found


def word(term: str) -> str:
    """A pattern that finds a term, its plural included, in any case, and not inside of another word."""
    plural = "(?:es)?" if term.endswith(("ch", "x", "s")) else "s?"
    return rf"(?<![\w-]){re.escape(term)}{plural}(?![\w-])"
