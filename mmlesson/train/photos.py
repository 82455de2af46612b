"""The recipe of the photo CLIP: `mmlesson train photos --data FOLDER`.

A few thousand captioned photographs are too few to learn seeing and reading from. Two networks that others trained
know both already, and this recipe brings them together in one CLIP, small enough to ship:

1. heads      Between a frozen classifier of pictures and a frozen encoder of sentences, two light heads learn one
              space: pictures and their captions point the same way (a contrastive loss), and so do the classifier's
              1,000 names and what it takes for them (Hinton et al. 2015, "Distilling the Knowledge in a Neural
              Network"). See photo_heads.py.
2. texts      CLIP's own text transformer learns to give texts the direction that the sentence encoder and its head give
              them: captions, the nouns of WordNet, their glosses, single words. It starts with word vectors from the
              encoder.
3. pictures   The last stages of the image tower are fine-tuned at a low rate, together with the text tower: crops,
              flips and colour changes; all captions of a picture are right answers, and all other captions of the
              folder are wrong ones. The classifier's soft labels on the same crops keep its names alive. What comes out
              is a moving average of the weights (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and
              Better Generalization").

The first stage is done before the first step, and what it found is kept beside the checkpoint. The two others are the
steps of the training.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlesson import gates, runtime
from mmlesson.measure.namer import share
from mmlesson.measure.photos import SUBJECTS, subject
from mmlesson.models import assets
from mmlesson.models.photo_form import CONTEXT_LENGTH, FORM, LICENCE, NAME, PREPROCESS, class_names, new_photo_clip
from mmlesson.models.towers import fold
from mmlesson.photo_folder import read_captions
from mmlesson.train import photo_data, run
from mmlesson.train.checkpoint import half_precision
from mmlesson.train.clip import encode_texts_trimmed
from mmlesson.train.photo_data import Data
from mmlesson.train.photo_heads import (
    Heads,
    agreement,
    contrast,
    distance_to_names,
    heads_for,
    pseudo_pictures,
    words_for,
)
from mmlesson.train.photo_tower import augment, dropout, early, folded_trunk, late, pixels_of, unfolded

STAGES = 7  # of the image tower
TEXT_WEIGHT = 4.0  # of the distance of texts from their targets, in the loss


@dataclass(frozen=True)
class Recipe(run.Recipe):
    """The recipe of the photo CLIP. `workers` is not used: crops are cut from memory."""

    batch_size: int = 64  # pictures
    weight_decay: float = 0.05
    text_batch: int = 256  # texts
    texts: float = 0.7  # share of the training in which the text tower learns alone
    frozen: int = 5  # of the seven stages of the image tower, those that stay as they are
    size: int = 176  # pixels a side of the crops; a network that learns from crops sees best at a quarter more
    head_rate: float = 0.3  # with pictures: share of the learning rate for the head of the image tower
    tower_rate: float = 0.1  # … for its fine-tuned stages
    text_rate: float = 0.3  # … for the text tower, which has learned already
    names: float = 0.5  # weight of the classifier's soft labels
    words: float = 0.2  # weight of the short words: nouns of captions, and general words
    pull: float = 0.3  # weight of the pictures' distance from the probability-weighted mean of the name vectors
    dropout: float = 0.3  # of pooled features
    average: float = 0.995  # what remains of the averaged weights after a step
    views: int = 3  # stage 1: crops of each picture
    anchor: float = 1.0  # stage 1: weight of staying near to what the sentence encoder said
    head_steps: int = 700  # stage 1

    def __post_init__(self):
        super().__post_init__()
        for name in ("text_batch", "views", "head_steps"):
            gates.whole_number(name, getattr(self, name), 1)
        gates.whole_number("frozen", self.frozen, 0, STAGES)
        gates.whole_number("size", self.size, 32)
        for name in ("head_rate", "tower_rate", "text_rate", "names", "words", "pull", "anchor"):
            gates.real_number(name, getattr(self, name), least=0)
        for name in ("texts", "average"):
            gates.real_number(name, getattr(self, name), least=0, most=1)
        gates.real_number("dropout", self.dropout, least=0, most=0.99)


class Training(run.Training):
    """Trains a photo CLIP on the captioned pictures of a folder, those of its split "train"; on the processor.

    The network that comes out, `model`, is the moving average. Its image tower is folded (see photo_tower.py); `save`
    writes it as open_clip builds it.
    Details for the log: text (1 - the cosine between text tower and target), and when pictures are learned contrast
    (pictures and captions), names (the classifier's soft labels), words (short words) and away (pictures from the mean
    of names).
    Thermometer: see `Thermometer`.
    """

    name = NAME

    def __init__(self, recipe: Recipe, device: torch.device | str | None = None, *, folder: Path):
        if str(device or "cpu") != "cpu":
            raise ValueError(f"The recipe of the photo CLIP runs on the processor (cpu), not on {device}.")
        super().__init__(recipe, "cpu")
        self.pictures = read_captions(folder, "train")
        self.evaluation = f"photos --data {shlex.quote(str(folder))}"
        self.form = FORM
        learner = new_photo_clip(recipe.seed)
        learner.visual.trunk = fold(learner.visual.trunk.eval()).to(memory_format=torch.channels_last)
        for name, parameter in learner.visual.trunk.named_parameters():
            parameter.requires_grad_(_stage(name) >= recipe.frozen)
        self.learner = learner.train()
        self.learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        average = copy.deepcopy(learner).requires_grad_(False).eval()
        self.parts = {"model": average, "learner": learner, "optimizer": optimizer_for(learner, recipe)}

    def begin(self, first_step: int, state: Path | None) -> None:
        from open_clip import SimpleTokenizer

        self.data = data = photo_data.prepare(self.pictures)
        classifier = photo_data.classifier()
        self.weight, self.bias = classifier.classifier.weight, classifier.classifier.bias  # of its last layer
        self.original = folded_trunk(classifier)
        self.heads = heads_for(self.recipe, data, state, classifier)
        if first_step == 0:
            initialise(self.learner, self.original, self.heads, data)
            self.model.load_state_dict(self.learner.state_dict())
        self.tokens = SimpleTokenizer(context_length=CONTEXT_LENGTH)(data.texts)  # [n_texts, context]
        self.targets = self.heads.encode_sentences(data.features)  # [n_texts, dim]
        self.names = self.heads.encode_sentences(data.names)  # [1000, dim]
        self.words = self.heads.encode_sentences(data.words)  # [n_words, dim]
        self.thermometer = Thermometer(data, self.original, self.weight, self.bias)

    def take_step(self, step: int, progress: float) -> tuple[float, dict[str, float]]:
        recipe = self.recipe
        generator = runtime.generator((recipe.seed << 32) + step)
        pictures_too = progress >= recipe.texts
        # each of the two stages has a schedule of its own
        if pictures_too:
            rate = run.rate_at((progress - recipe.texts) / (1 - recipe.texts), recipe)
        else:
            rate = run.rate_at(progress / recipe.texts, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (group["share"] if pictures_too else 1.0 - group["image"])
        loss, details = self._learn_pictures(generator) if pictures_too else self._learn_texts(generator)
        remains = recipe.average if pictures_too else 0.0
        with torch.no_grad():
            for mean, now in zip(self.model.parameters(), self.learner.parameters(), strict=True):
                if now.requires_grad:
                    mean.lerp_(now, 1 - remains)
        return loss, details

    def _learn_texts(self, generator: torch.Generator) -> tuple[float, dict[str, float]]:
        n = self.recipe.text_batch
        rows = self._draw(n, n * 2 // 5, generator)
        distance, confusion = self._text_losses(self._read(rows), rows)
        loss = run.descend(TEXT_WEIGHT * distance + confusion, self.optimizer, self.learning)
        return loss, {"text": distance.item()}

    def _learn_pictures(self, generator: torch.Generator) -> tuple[float, dict[str, float]]:
        recipe, data, visual = self.recipe, self.data, self.learner.visual
        rows = data.learned[torch.randperm(len(data.learned), generator=generator)[: recipe.batch_size]]
        pixels = augment(pixels_of(data, rows), recipe.size, generator)
        hidden_states = early(visual.trunk, pixels, recipe.frozen).float()
        with torch.no_grad(), runtime.autocast("cpu"):
            was = late(self.original, hidden_states, recipe.frozen).float()  # [n, 1280]
        pooled = late(visual.trunk, hidden_states, recipe.frozen)
        pseudo = pseudo_pictures(was, self.heads.mean, self.weight, generator)
        seen = torch.cat([pooled, pseudo])  # [2 n, 1280]
        image_features = F.normalize(visual.head(dropout(seen, recipe.dropout, generator)), dim=-1)
        logits = torch.cat([was, pseudo]) @ self.weight.T + self.bias  # [2 n, 1000]
        name_scale = self.heads.name_scale.exp()
        naming = agreement(image_features, self.names, name_scale, logits.softmax(-1))
        away = distance_to_names(image_features, self.names, logits)
        wording = agreement(image_features, self.words, name_scale, words_for(data, rows, logits[len(rows) :]))
        image_features = image_features[: len(rows)]

        scale = self.learner.logit_scale.exp()
        own = torch.isin(data.picture_of, rows).nonzero()[:, 0]  # captions of these pictures
        own = own[torch.randperm(len(own), generator=generator)[: len(rows)]]
        text_rows = torch.cat([own, self._draw(recipe.text_batch // 4, 0, generator)])
        text_features = self._read(text_rows)
        distance, confusion = self._text_losses(text_features, text_rows)
        n_captions = len(data.picture_of)
        against_all = contrast(image_features, self.targets[:n_captions], data.picture_of, rows, scale)
        here = torch.isin(rows, data.picture_of[own])
        against_batch = contrast(
            image_features[here], text_features[: len(own)], data.picture_of[own], rows[here], scale
        )
        matching = (against_all + against_batch) / 2
        loss = matching + recipe.names * naming + recipe.words * wording + recipe.pull * away
        loss = loss + TEXT_WEIGHT * distance + confusion / 2
        loss = run.descend(loss, self.optimizer, self.learning)
        with torch.no_grad():
            self.learner.logit_scale.clamp_(0, math.log(100))
        details = {"text": distance, "contrast": matching, "names": naming, "words": wording, "away": away}
        return loss, {name: value.item() for name, value in details.items()}

    def _draw(self, n: int, n_of_captions: int, generator: torch.Generator) -> Tensor:
        """The numbers of `n` random texts, so many of them captions."""
        n_captions = len(self.data.picture_of)
        captions = torch.randint(n_captions, (n_of_captions,), generator=generator)
        others = torch.randint(n_captions, len(self.data.texts), (n - n_of_captions,), generator=generator)
        return torch.cat([captions, others])

    def _read(self, rows: Tensor) -> Tensor:
        """What the text tower makes of texts: unit features [n, dim]."""
        with runtime.autocast("cpu"):
            features = encode_texts_trimmed(self.learner, self.tokens[rows])
        return F.normalize(features.float(), dim=-1)

    def _text_losses(self, text_features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How far texts are from their targets, and whether each is nearest to its own target: two scalars."""
        targets = self.targets[rows]
        distance = (1 - (text_features * targets).sum(1)).mean()
        return distance, F.cross_entropy(20 * text_features @ targets.T, torch.arange(len(rows)))

    def evaluate(self) -> dict[str, float]:
        return self.thermometer.measure(self.model)

    def save(self, folder: Path) -> None:
        texts, _ = photo_data.texts_to_learn(self.pictures)
        save_photo_clip(self.model, folder, texts)


# ---------------------------------------------------------------------------------------------------
# The beginning


def _stage(name: str) -> int:
    """The stage of the image tower that a parameter of its trunk belongs to: before all others -1, after them 7."""
    if name.startswith("blocks."):
        return int(name.split(".")[1])
    return -1 if name.startswith("conv_stem") else STAGES


def initialise(model: nn.Module, trunk: nn.Module, heads: Heads, data: Data) -> None:
    """Gives a CLIP the classifier's trunk (folded), the head of stage 1, and word vectors from the sentence encoder."""
    model.visual.trunk.load_state_dict(trunk.state_dict())
    model.visual.head.load_state_dict(heads.pictures.state_dict())
    known = data.tokens.norm(dim=1) > 0
    vectors = heads.encode_sentences(data.tokens[known])
    vectors = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(vectors.T @ vectors)
    with torch.no_grad():
        main = vectors @ directions[: FORM["text_cfg"]["width"]].T  # [n_words, width]: their principal components
        model.token_embedding.weight[known] = 0.02 * main / main.std()
        model.logit_scale.copy_(heads.logit_scale)


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW. Each group of parameters has a `share` of the learning rate, from when pictures are learned."""
    rates = {"head": recipe.head_rate, "tower": recipe.tower_rate, "text": recipe.text_rate}
    groups = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        image = name.startswith("visual.")
        groups.append(
            {
                "params": [parameter],
                "weight_decay": recipe.weight_decay if parameter.ndim > 1 and "embedding" not in name else 0.0,
                "share": rates["head" if name.startswith("visual.head") else "tower" if image else "text"],
                "image": image or name == "logit_scale",
            }
        )
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


# ---------------------------------------------------------------------------------------------------
# The thermometer


class Thermometer:
    """A quick look at the held-out pictures of the folder, which no step learned from; not the evaluation.

    caption_r1, caption_r10   the first caption finds its picture first, among the first ten
    names_top1, names_top5    of the pictures that the classifier is sure of: its name first among 1,000, … first five
    cat_dog_person            of the pictures that show one of the three alone: which, as `mmlesson eval photos` asks
    """

    def __init__(self, data: Data, original: nn.Module, weight: Tensor, bias: Tensor):
        from open_clip import SimpleTokenizer

        self.data, self.rows = data, data.held_out
        tokenizer = SimpleTokenizer(context_length=CONTEXT_LENGTH)
        self.captions = tokenizer([data.captions[int(row)][0] for row in self.rows] or [""])
        self.names = tokenizer([f"a photo of a {names[0]}" for names in class_names()])
        self.subjects = tokenizer([f"a picture of {name}" for name in SUBJECTS])
        shown = [subject(data.captions[int(row)]) for row in self.rows]
        self.shown = torch.tensor([SUBJECTS.index(who) if who else -1 for who in shown])  # [n], -1: none alone
        if len(self.rows):
            with torch.no_grad():
                most, self.classes = (self._see(original) @ weight.T + bias).softmax(-1).max(-1)
            self.sure = most > 0.5

    def _see(self, tower: nn.Module) -> Tensor:
        """What an image tower makes of the held-out pictures: [n, …]."""
        seen = []
        for rows in self.rows.split(32):
            pixels = pixels_of(self.data, rows).permute(0, 3, 1, 2).float() / 127.5 - 1
            seen.append(tower(pixels.contiguous(memory_format=torch.channels_last)))
        return torch.cat(seen)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """The figures of a CLIP; none where no picture is held out."""
        if not len(self.rows):
            return {}
        image_features = F.normalize(self._see(model.visual), dim=-1)  # [n, dim]
        cosines = model.encode_text(self.captions, normalize=True) @ image_features.T
        ranks = (cosines >= cosines.diag()[:, None]).sum(1)  # 1 the best
        figures = {"caption_r1": share(ranks <= 1), "caption_r10": share(ranks <= 10)}
        if self.sure.any():
            cosines = image_features[self.sure] @ model.encode_text(self.names, normalize=True).T
            named = cosines.topk(5).indices == self.classes[self.sure, None]  # [n, 5]
            figures |= {"names_top1": share(named[:, 0]), "names_top5": share(named.any(1))}
        alone = self.shown >= 0
        if alone.any():
            cosines = image_features[alone] @ model.encode_text(self.subjects, normalize=True).T
            figures["cat_dog_person"] = share(cosines.argmax(1) == self.shown[alone])
        return figures


# ---------------------------------------------------------------------------------------------------
# The finished model


def save_photo_clip(model: nn.Module, folder: Path, texts: Iterable[str]) -> None:
    """Writes an open_clip model folder: float16 safetensors, its form, and the words of the texts that it learned."""
    from safetensors.torch import save_file

    tensors = half_precision(unfolded(model))
    gates.write_atomically(
        folder / "open_clip_model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"})
    )
    config = {"model_cfg": FORM, "preprocess_cfg": PREPROCESS}
    gates.write_atomically(folder / "open_clip_config.json", (json.dumps(config, indent=2) + "\n").encode())
    words = sorted({word for text in texts for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())})
    listed = json.dumps({"words": words}, indent=0, ensure_ascii=False) + "\n"
    gates.write_atomically(folder / "vocabulary.json", listed.encode())
    if assets.data_dir().resolve() in folder.resolve().parents:
        assets.update_manifest([folder], licence=LICENCE)
