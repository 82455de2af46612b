"""The recipes of the pocket CLIP and of the judge: contrastive learning on scenes of the pocket world.

    mmlesson train clip --minutes 120
    mmlesson train judge --minutes 120

An image tower and a text tower learn to give a picture and its caption the same direction. A batch of N pairs makes
N × N cosines. The loss raises the N cosines of true pairs and lowers all others (Radford et al. 2021, "Learning
Transferable Visual Models From Natural Language Supervision").

Three things make a small model and a short training enough:

- Each picture also gets a wrong caption in nearly the same words: two objects exchanged, one object replaced by a
  similar one, or another background. So word order and details matter (Yuksekgonul et al. 2023, "When and why
  vision-language models behave like bags-of-words").
- Several scenes in a row have the same background. So the pairs of a batch cannot be told apart by their colour.
- A curriculum goes from simple captions to the whole language (`world.dataset`).

The judge is a second CLIP with another image tower, a smaller text tower and another seed. It rates generated
pictures and never guides them. A picture that exploits a weakness of one network does not impress the other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import gates, runtime, world
from mmlesson.models.pocket_forms import CONTEXT_LENGTH, FORMS, IMAGE_SIZE, PREPROCESS, new_clip
from mmlesson.train import run
from mmlesson.train.checkpoint import half_precision
from mmlesson.train.data import scene_batches


@dataclass(frozen=True)
class Recipe(run.Recipe):
    """The recipe of the pocket CLIP."""

    batch_size: int = 256  # N of the N × N matrix
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    curriculum: tuple[int, int] = (128_000, 388_608)  # numbers of the scenes at which stages 2 and 3 begin
    model: str = "pocket-clip"  # a name in FORMS

    def __post_init__(self):
        super().__post_init__()
        if self.model not in FORMS:
            raise ValueError(f"There is no recipe for {self.model!r}; there are {', '.join(FORMS)}.")


@dataclass(frozen=True)
class JudgeRecipe(Recipe):
    """The recipe of the judge: a seed of its own, and a shorter curriculum."""

    curriculum: tuple[int, int] = (96_000, 256_000)
    seed: int = 1
    model: str = "judge-clip"


class Training(run.Training):
    """Trains a CLIP of the form `recipe.model`. Details for the log: logit_scale. Thermometer: retrieval at 1."""

    def __init__(self, recipe: Recipe, device: torch.device | str | None = None):
        super().__init__(recipe, device)
        self.name = recipe.model
        self.evaluation = "judge" if recipe.model == "judge-clip" else "clip"
        self.form = FORMS[recipe.model]
        model = new_clip(recipe.seed, recipe.model).to(self.device).to(memory_format=torch.channels_last).train()
        optimizer = run.adamw(model, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98))
        self.parts = {"model": model, "optimizer": optimizer}

    def begin(self, first_step: int, state: Path | None) -> None:
        self.batches = caption_batches(self.recipe, first_step)

    def take_step(self, step: int, progress: float) -> tuple[float, dict[str, float]]:
        model = self.model
        pixels, tokens, wrong = (part.to(self.device) for part in next(self.batches))
        pixels = augment(pixels.float() / 255, runtime.generator((self.recipe.seed << 32) + step))
        pixels = normalised(pixels).to(memory_format=torch.channels_last)
        with runtime.autocast(self.device):
            image_features = model.encode_image(pixels)
            text_features = encode_texts_trimmed(model, torch.cat([tokens, wrong]))
        images = F.normalize(image_features.float(), dim=-1)  # [n, dim]
        texts = F.normalize(text_features.float(), dim=-1)  # [n + wrong captions, dim]
        n = len(images)
        loss = contrastive_loss_with_wrong(images, texts[:n], texts[n:], model.logit_scale.exp())
        loss = run.descend(loss, self.optimizer, model.parameters())
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return loss, {"logit_scale": model.logit_scale.exp().item()}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The share of 400 held-out captions of two objects that rank their own picture first."""
        from open_clip import SimpleTokenizer
        from torchvision.transforms.functional import pil_to_tensor

        scenes = world.sample(400, "heldout", seed=1, objects=2)
        pixels = torch.stack([pil_to_tensor(scene.render(IMAGE_SIZE)) for scene in scenes]) / 255
        tokens = SimpleTokenizer(context_length=CONTEXT_LENGTH)([scene.caption for scene in scenes])
        self.model.eval()
        images = F.normalize(self.model.encode_image(normalised(pixels).to(self.device)), dim=-1)
        texts = F.normalize(self.model.encode_text(tokens.to(self.device)), dim=-1)
        self.model.train()
        found = (texts @ images.T).argmax(1).cpu()
        return {"retrieval_at_1": (found == torch.arange(len(scenes))).float().mean().item()}

    def save(self, folder: Path) -> None:
        save_clip(self.model, folder, self.recipe.model)


# ---------------------------------------------------------------------------------------------------
# Data


class _Collate:
    """Items of `world.dataset` → uint8 pixels [n, 3, h, w], tokens [n, context], tokens of wrong captions [m, context].

    m ≤ n, because some scenes have no wrong caption.
    """

    def __init__(self):
        self.tokenizer = None  # made in the process that renders

    def __call__(self, items):
        if self.tokenizer is None:
            from open_clip import SimpleTokenizer

            self.tokenizer = SimpleTokenizer(context_length=CONTEXT_LENGTH)
        pixels, captions, wrong = zip(*items, strict=True)
        wrong = [caption for caption in wrong if caption != ""]  # "": this scene has no wrong caption
        tokens = self.tokenizer([*captions, *wrong])
        return torch.stack(pixels), tokens[: len(captions)], tokens[len(captions) :]


def caption_batches(recipe: Recipe, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches of training scenes, from step `first_step` on: pixels, tokens, tokens of wrong captions."""
    return scene_batches(recipe, first_step, _Collate(), IMAGE_SIZE, curriculum=recipe.curriculum)


def normalised(pixels: Tensor) -> Tensor:
    """Pixels [n, 3, h, w] in 0…1 as the image towers expect them: −1…1."""
    mean, std = (torch.tensor(PREPROCESS[key], device=pixels.device).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels - mean) / std


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Changes scale, place, light, contrast and colour a little, blurs some pictures, and adds noise.

    So the towers learn shapes and not exact pixels. Nothing is mirrored, because captions say left and right.
    pixels: float32 [n, 3, h, w] in 0…1; returns the same shape and range.
    """
    n = len(pixels)
    device = pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator).to(device) * (high - low) + low

    scale = uniform(0.95, 1.15, 1)  # above 1: objects become smaller
    shift = uniform(-0.08, 0.08, 2)
    theta = torch.cat([scale, torch.zeros_like(scale), shift[:, :1], torch.zeros_like(scale), scale, shift[:, 1:]], 1)
    grid = F.affine_grid(theta.view(n, 2, 3), pixels.shape, align_corners=False)
    pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    middle = pixels.mean((2, 3), keepdim=True)
    pixels = (pixels - middle) * uniform(0.8, 1.2, 1, 1, 1) + middle  # contrast
    pixels = pixels * uniform(0.9, 1.1, 1, 1, 1) + uniform(-0.04, 0.04, 3, 1, 1)  # light, colour cast
    some = torch.rand(n, generator=generator) < 0.25
    pixels[some] = F.avg_pool2d(F.pad(pixels[some], (1, 1, 1, 1), mode="replicate"), 3, 1)  # blur
    noise = torch.randn(pixels.shape, generator=generator).to(device) * uniform(0, 0.08, 1, 1, 1)
    return (pixels + noise).clamp(0, 1)


# ---------------------------------------------------------------------------------------------------
# Text tower and loss


def encode_texts_trimmed(model: torch.nn.Module, tokens: Tensor, parts: int = 6) -> Tensor:
    """`model.encode_text(tokens)`, without computing the padding after the texts: [n, dim].

    The attention mask is causal, and the features of a text are read at its last token. So what follows that token
    changes nothing. The texts are sorted by length and cut into `parts`, each only as long as its longest text. That
    takes a third of the time, because captions fill a third of the context. The vectors of all tokens are looked up
    at once: each look-up has a gradient as large as the whole table.
    """
    lengths = tokens.argmax(dim=-1) + 1  # the end-of-text token has the highest number
    order = lengths.argsort(stable=True)
    cut = []  # the texts of each part [n_texts, n]
    for rows in order.tensor_split(parts):
        if len(rows):
            cut.append(tokens[rows, : int(lengths[rows[-1]])])
    vectors = model.token_embedding(torch.cat([part.flatten() for part in cut]))  # [n_tokens, width]
    encoded = []
    for part, embedded in zip(cut, vectors.split([part.numel() for part in cut]), strict=True):
        n_texts, n = part.shape
        x = embedded.view(n_texts, n, -1) + model.positional_embedding[:n]  # [n_texts, n, width]
        # the fused attention is slower on short texts
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            x = model.transformer(x, attn_mask=model.attn_mask[:n, :n])
        x = model.ln_final(x)[torch.arange(n_texts), part.argmax(dim=-1)]  # [n_texts, width]
        encoded.append(x @ model.text_projection)
    return torch.cat(encoded)[order.argsort()]


def contrastive_loss_with_wrong(images: Tensor, texts: Tensor, wrong: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, where each picture also has to reject wrong captions: a scalar.

    images, texts   unit features [n, dim] of n pairs
    wrong           unit features [m, dim] of captions that fit no picture of the batch. With m = 0 this is
                    `mmlesson.clip.contrastive_loss`
    """
    target = torch.arange(len(images), device=images.device)
    per_image = logit_scale * images @ torch.cat([texts, wrong]).T  # [n, n + m]
    per_text = logit_scale * texts @ images.T  # [n, n]
    return (F.cross_entropy(per_image, target) + F.cross_entropy(per_text, target)) / 2


# ---------------------------------------------------------------------------------------------------
# The finished model


def caption_parts() -> list[str]:
    """What training captions consist of: wordings without their gaps, names, colours, articles."""
    templates = [*world.ONE, *world.ONE_WITHOUT_BACKGROUND, *world.LEFT, *world.ABOVE, *world.UNORDERED]
    parts = [re.sub(r"\{\w+\}", " ", template) for template in templates]
    parts += [*world.BACKGROUNDS, *sum(world.BACKGROUND_ALIASES.values(), ()), "a", "an"]
    for each in world.concepts():
        parts += [each.name, each.article, *each.aliases]
    return parts


def vocabulary() -> list[str]:
    """Every word that a training caption can contain, in lower case, sorted."""
    return sorted(set(re.findall(r"[^\W_]+(?:'[^\W_]+)?", " ".join(caption_parts()).lower())))


def save_clip(model: torch.nn.Module, folder: Path, name: str) -> None:
    """Writes an open_clip model folder: float16 safetensors, the form `name` of FORMS, and the words that it knows."""
    from safetensors.torch import save_file

    tensors = half_precision(model)
    gates.write_atomically(
        folder / "open_clip_model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"})
    )
    config = {"model_cfg": FORMS[name], "preprocess_cfg": PREPROCESS}
    gates.write_atomically(folder / "open_clip_config.json", (json.dumps(config, indent=2) + "\n").encode())
    gates.write_atomically(folder / "vocabulary.json", (json.dumps({"words": vocabulary()}, indent=0) + "\n").encode())
