"""The first stage of the photo CLIP's training: one space for a frozen classifier and a frozen encoder of sentences.

Two light heads are learned on features that are computed once. Pictures and their captions point the same way, and so
do the classifier's 1,000 names and what it takes for them. Names that no picture of the folder shows are learned as
well: the classifier's weights say in which direction its features move for each name, and the features of a real
photograph, moved that way, stand for a picture of it (a "pseudo-picture"; Papyan et al. 2020, "Prevalence of neural
collapse", is why that works).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import gates, runtime
from mmlesson.models.photo_form import new_photo_clip
from mmlesson.train import run
from mmlesson.train.photo_data import Data
from mmlesson.train.photo_tower import augment, dropout, early, folded_trunk, late, pixels_of

if TYPE_CHECKING:
    from mmlesson.train.photos import Recipe

# What the heads depend on, of a recipe.
FIELDS = (
    "size",
    "learning_rate",
    "names",
    "words",
    "dropout",
    "warmup",
    "views",
    "head_steps",
    "anchor",
    "pull",
    "seed",
)
PICTURES, TEXTS, PSEUDO = 512, 512, 256  # of a step: pictures, texts beside their captions, pseudo-pictures


class Heads(nn.Module):
    """Pooled features of pictures, and sentence features → one space. `pictures` becomes the image tower's head."""

    def __init__(self, seed: int):
        super().__init__()
        self.pictures = new_photo_clip(seed).visual.head
        self.sentences = nn.Linear(384, 384)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(20.0)))  # of pictures and captions
        self.name_scale = nn.Parameter(torch.tensor(math.log(20.0)))  # of pictures and names
        self.register_buffer("mean", torch.zeros(1280))  # of the pooled features of photographs
        nn.init.eye_(self.sentences.weight)
        nn.init.zeros_(self.sentences.bias)

    def encode_sentences(self, features: Tensor) -> Tensor:
        """What the sentence encoder makes of texts [n, 384] → unit features [n, 384]."""
        return F.normalize(self.sentences(features), dim=-1)


# ---------------------------------------------------------------------------------------------------
# Losses, of this stage and of those that follow


def pseudo_pictures(pooled: Tensor, mean: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor:
    """Pooled features of photographs [n, 1280], each moved towards a random name of the classifier."""
    n = len(pooled)
    towards = F.normalize(weight - weight.mean(0), dim=-1)[torch.randint(len(weight), (n,), generator=generator)]
    remains = torch.rand(n, 1, generator=generator) * 0.7 + 0.3
    strength = torch.rand(n, 1, generator=generator) * 7 + 3
    return (mean + (pooled - mean) * remains + strength * towards).clamp(min=0)


def agreement(image_features: Tensor, name_features: Tensor, scale: Tensor, shares: Tensor) -> Tensor:
    """How far the softmax over names is from the shares that they should have: Kullback and Leibler's, a scalar.

    shares: [n, n_names]; a row whose sum is less than 1 counts less.
    """
    found = (scale * image_features @ name_features.T).log_softmax(-1)
    return F.kl_div(found, shares, reduction="batchmean")


def words_for(data: Data, rows: Tensor, logits: Tensor) -> Tensor:
    """The shares of short words: of pictures by their captions, then of pseudo-pictures by their names [.., n_words].

    logits: of the pseudo-pictures [n, 1000]
    """
    return torch.cat([data.said.pictures[rows], logits.softmax(-1) @ data.said.classes])


def distance_to_names(image_features: Tensor, name_features: Tensor, logits: Tensor) -> Tensor:
    """1 - the cosine between pictures and the mean of the name vectors, each weighted by its probability: a scalar.

    `agreement` compares the names with each other, for one picture; a picture may stay far from all of them. This
    loss draws the pictures to where the texts are. Name vectors do not move.
    """
    target = F.normalize(logits.softmax(-1) @ name_features.detach(), dim=-1)
    return (1 - (image_features * target).sum(-1)).mean()


def contrast(image_features: Tensor, text_features: Tensor, picture_of: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss where several texts [m, dim], of the pictures `picture_of` [m], belong to a picture of `rows` [n]."""
    right = (picture_of == rows[:, None]).float()  # [n, m]
    logits = scale * image_features @ text_features.T  # [n, m]
    per_image = -(logits.log_softmax(1) * right).sum(1) / right.sum(1)
    here = right.any(0)
    per_text = F.cross_entropy(logits[:, here].T, right[:, here].argmax(0))
    return (per_image.mean() + per_text) / 2


# ---------------------------------------------------------------------------------------------------
# The stage


def train_heads(recipe: Recipe, data: Data, classifier: nn.Module) -> Heads:
    """Learns the heads on the features of a few crops of each picture."""
    generator = runtime.generator(recipe.seed)
    weight, bias = classifier.classifier.weight, classifier.classifier.bias
    views = crop_features(recipe, data, folded_trunk(classifier), generator)  # [views, n, 1280]
    heads = Heads(recipe.seed)
    heads.mean.copy_(views.float().mean((0, 1)))
    optimizer = run.adamw(heads, recipe.learning_rate, 0.1, betas=(0.9, 0.98))
    place = {int(picture): place for place, picture in enumerate(data.learned)}
    picture_of = torch.tensor([place[int(picture)] for picture in data.picture_of])
    for step in runtime.progress(range(recipe.head_steps), recipe.head_steps, "heads", "step"):
        for group in optimizer.param_groups:
            group["lr"] = run.rate_at(step / recipe.head_steps, recipe)
        rows = torch.randperm(len(data.learned), generator=generator)[:PICTURES]
        texts = torch.isin(picture_of, rows).nonzero()[:, 0]
        pooled = views[torch.randint(recipe.views, (len(rows),), generator=generator), rows].float()
        seen = torch.cat([pooled, pseudo_pictures(pooled[:PSEUDO], heads.mean, weight, generator)])
        with runtime.autocast("cpu"):
            pictures = F.normalize(heads.pictures(dropout(seen, recipe.dropout, generator)).float(), dim=-1)
            others = torch.randint(len(data.features), (TEXTS,), generator=generator)
            read = data.features[torch.cat([texts, others])]
            sentences = heads.encode_sentences(read).float()
            names = heads.encode_sentences(data.names).float()
            words = heads.encode_sentences(data.words).float()
        logits = seen @ weight.T + bias
        loss = contrast(
            pictures[: len(rows)], sentences[: len(texts)], picture_of[texts], rows, heads.logit_scale.exp()
        )
        name_scale = heads.name_scale.exp()
        loss = loss + 2 * recipe.names * agreement(pictures, names, name_scale, logits.softmax(-1))
        shares = words_for(data, data.learned[rows], logits[len(rows) :])
        loss = loss + 2 * recipe.words * agreement(pictures, words, name_scale, shares)
        loss = loss + recipe.pull * distance_to_names(pictures, names, logits)
        loss = loss + recipe.anchor * (1 - (sentences * read).sum(1)).mean()
        run.descend(loss, optimizer, heads.parameters())
    return heads.requires_grad_(False).eval()


@torch.no_grad()
def crop_features(recipe: Recipe, data: Data, trunk: nn.Module, generator: torch.Generator) -> Tensor:
    """The pooled features of `recipe.views` crops of each picture to learn from: float16 [views, n, 1280]."""
    views = []
    for view in range(recipe.views):
        parts = []
        batches = data.learned.split(64)
        for rows in runtime.progress(batches, len(batches), f"crops {view + 1}", "batch"):
            with runtime.autocast("cpu"):
                pixels = augment(pixels_of(data, rows), recipe.size, generator)
                parts.append(late(trunk, early(trunk, pixels, recipe.frozen), recipe.frozen).half())
        views.append(torch.cat(parts))
    return torch.stack(views)


def heads_for(recipe: Recipe, data: Data, state: Path | None, classifier: nn.Module) -> Heads:
    """The heads of this training: those kept beside its checkpoint, in `state`, or new ones, which are then kept."""
    from safetensors.torch import load_file, save_file

    if state is None:
        return train_heads(recipe, data, classifier)
    kind = {name: value for name, value in asdict(recipe).items() if name in FIELDS}
    said = json.dumps([kind, data.texts])
    file = state / f"heads-{hashlib.sha256(said.encode()).hexdigest()[:8]}.safetensors"
    if not file.exists():
        heads = train_heads(recipe, data, classifier)
        gates.write_atomically(file, lambda path: save_file(heads.state_dict(), path))
        return heads
    heads = Heads(recipe.seed)
    heads.load_state_dict(load_file(file))
    return heads.requires_grad_(False).eval()
