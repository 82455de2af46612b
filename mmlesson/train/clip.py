"""The recipe of the pocket CLIP, and of the judge: contrastive learning on scenes of the pocket world.

    mmlesson train clip --minutes 120
    mmlesson train judge --minutes 120

The judge is a second CLIP with another image tower (timm's ResNet-10-T of basic blocks, in place of the ModifiedResNet
of bottlenecks), a smaller text tower and another seed. It rates generated pictures and never guides them: a picture that pleases one
network by a quirk of its own does not please another.

Two towers, an image tower (the ModifiedResNet of CLIP's own RN50, small) and a text tower (a transformer
with CLIP's BPE tokenizer), learn to give a picture and its caption the same direction. A batch of N pairs
makes N × N cosines; the loss raises the N on the diagonal and lowers the rest (Radford et al. 2021,
"Learning Transferable Visual Models From Natural Language Supervision"). Three things make a small model
and a short training do. Wrong captions in the same words join as extra wrong answers (two objects
exchanged, one replaced by its like, another background), so that word order and details count (Yuksekgonul
et al. 2023, "When and why vision-language models behave like bags-of-words"). Scenes come in runs on one
background, so that a batch cannot be told apart by colour. And a curriculum goes from the easy to the whole
language (`world.dataset`).

Training is a generator that yields a `Step` at a time; the command line, the tests and a notebook consume
it alike. It stops and resumes without losing work: every scene is a function of the seed and its number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import gates, runtime, world
from mmlesson.models import assets
from mmlesson.train import run as checkpoint

MODEL = {  # what open_clip builds; written to open_clip_config.json beside the weights
    "embed_dim": 256,
    "vision_cfg": {"layers": [1, 2, 2, 2], "width": 32, "head_width": 64, "image_size": 64},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 192, "heads": 6, "layers": 3},
}
JUDGE = {
    "embed_dim": 256,
    "vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "abs_attn", "timm_proj": "", "image_size": 64},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 112, "heads": 4, "layers": 3},
}
MODELS = {"pocket-clip": MODEL, "judge-clip": JUDGE}  # both: pictures of 64 pixels, texts of 32 tokens
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}
ENDLESS = 2**40  # more scenes than any training draws


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on. Two runs of one recipe bounded by steps give the same weights on one machine."""

    minutes: float | None = None  # of training, evaluation and checkpoints left out; the schedule follows the clock
    steps: int | None = None  # or this many steps: the schedule follows the count
    batch_size: int = 256  # N of the N × N matrix
    learning_rate: float = 1e-3  # at its peak
    warmup: float = 0.02  # share of the run in which the rate rises
    weight_decay: float = 0.1  # of matrices and kernels; none on gains, biases and embeddings
    curriculum: tuple[int, int] = (128_000, 388_608)  # scenes at which its stages 2 and 3 begin
    seed: int = 0
    model: str = "pocket-clip"  # a name in MODELS
    workers: int = 1  # processes that render scenes
    evaluate_every: float = 300.0  # seconds
    checkpoint_every: float = 120.0  # seconds

    def __post_init__(self):
        checkpoint.check_length(self)
        if self.model not in MODELS:
            raise ValueError(f"There is no recipe for {self.model!r}; there are {', '.join(MODELS)}.")


def recipe_for(name: str, seed: int | None = None, **lengths) -> Recipe:
    """The recipe of a model of MODELS. The judge has a seed of its own and a shorter curriculum: it reads captions as they are."""
    if name == "judge-clip":
        return Recipe(model=name, seed=seed or 1, curriculum=(96_000, 256_000), **lengths)
    return Recipe(model=name, seed=seed or 0, **lengths)


@dataclass(frozen=True)
class Step:
    """One step of training, as it is logged."""

    step: int
    pairs: int  # seen so far
    seconds: float  # trained so far
    loss: float
    learning_rate: float
    logit_scale: float
    retrieval_r1: float | None = None  # of 400 held-out pairs, where it was measured at this step


# ---------------------------------------------------------------------------------------------------
# Model, data, augmentation, loss


def new_model(seed: int = 0, name: str = "pocket-clip") -> torch.nn.Module:
    """A fresh, untrained CLIP of MODELS; its weights depend on the seed alone."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(**MODELS[name])


def encode_texts_trimmed(model: torch.nn.Module, tokens: Tensor, parts: int = 3) -> Tensor:
    """`model.encode_text(tokens)` without computing the padding behind the texts: [n, dim].

    The attention mask is causal and a text's vector is read at its last token, so what follows that token
    changes nothing. Captions fill a third of the context; sorted by length and cut into `parts`, they cost a
    third of the time. The attention is the plain one: the fused kernel is slower on sequences this short.
    """
    lengths = tokens.argmax(dim=-1) + 1  # the end-of-text token has the highest number
    order = lengths.argsort(stable=True)
    encoded = []
    for rows in order.tensor_split(parts):
        if len(rows):
            n = int(lengths[rows[-1]])
            x = model.token_embedding(tokens[rows, :n]) + model.positional_embedding[:n]  # [n_texts, n, width]
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                x = model.transformer(x, attn_mask=model.attn_mask[:n, :n])
            x = model.ln_final(x)[torch.arange(len(rows)), lengths[rows] - 1]  # [n_texts, width]
            encoded.append(x @ model.text_projection)
    return torch.cat(encoded)[order.argsort()]


class _Collate:
    """Items of world.dataset → uint8 pixels [n, 3, h, w], tokens [n, context], wrong tokens [≤ n, context]."""

    def __init__(self):
        self.tokenizer = None  # made in the worker

    def __call__(self, items):
        if self.tokenizer is None:
            from open_clip import SimpleTokenizer

            self.tokenizer = SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
        pixels, captions, wrong = zip(*items, strict=True)
        wrong = [text for text in wrong if text]
        tokens = self.tokenizer([*captions, *wrong])
        return torch.stack(pixels), tokens[: len(captions)], tokens[len(captions) :]


def scene_batches(recipe: Recipe, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches of training scenes, from step `first_step` on."""
    size = MODEL["vision_cfg"]["image_size"]
    data = world.dataset(ENDLESS, "train", recipe.seed, size, curriculum=recipe.curriculum)
    return checkpoint.batches(data, recipe, first_step, _Collate())


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Scale, shift, light, contrast, colour cast, blur and noise, so that the towers learn shapes and not exact pixels.

    pixels: float32 [n, 3, h, w] in 0…1; returns the same shape and range. Nothing is mirrored: left is left.
    """
    n, device = len(pixels), pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator).to(device) * (high - low) + low

    scale, shift = uniform(0.95, 1.15, 1), uniform(-0.08, 0.08, 2)  # a scale over 1 zooms out
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


def contrastive_loss_with_wrong(images: Tensor, texts: Tensor, wrong: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy with wrong captions added to every picture's choice.

    images, texts: unit features [n, dim] of n pairs; wrong: [m, dim], captions that fit no picture of the
    batch. With m = 0 it is `mmlesson.clip.contrastive_loss`.
    """
    target = torch.arange(len(images), device=images.device)
    per_image = logit_scale * images @ torch.cat([texts, wrong]).T  # [n, n + m]
    per_text = logit_scale * texts @ images.T  # [n, n]
    return (F.cross_entropy(per_image, target) + F.cross_entropy(per_text, target)) / 2


# ---------------------------------------------------------------------------------------------------
# Training


def optimizer_for(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return checkpoint.adamw(model, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98))


def train(
    recipe: Recipe, state: Path | None = None, device: torch.device | str | None = None
) -> Iterator[tuple[Step, torch.nn.Module]]:
    """Trains a pocket CLIP; yields every step with the model as it is then.

    state: a folder for checkpoints and `log.jsonl`. A checkpoint of the same recipe found there is resumed;
    leaving the generator (Ctrl-C, close) writes one. The last step yielded is the end of the schedule.
    """
    device = runtime.device(device)
    model = new_model(recipe.seed, recipe.model).to(device).to(memory_format=torch.channels_last).train()
    optimizer = optimizer_for(model, recipe)
    mean, std = (torch.tensor(PREPROCESS[key], device=device).view(3, 1, 1) for key in ("mean", "std"))

    def start(first_step: int):
        batches = scene_batches(recipe, first_step)

        def learn(step: int, progress: float) -> dict:
            pixels, tokens, wrong = (part.to(device) for part in next(batches))
            pixels = augment(pixels.float() / 255, runtime.generator((recipe.seed << 32) + step))
            pixels = ((pixels - mean) / std).to(memory_format=torch.channels_last)
            with runtime.autocast(device):
                image_features = model.encode_image(pixels)
                text_features = encode_texts_trimmed(model, torch.cat([tokens, wrong]))
            images, texts = (F.normalize(part.float(), dim=-1) for part in (image_features, text_features))
            loss = contrastive_loss_with_wrong(
                images, texts[: len(images)], texts[len(images) :], model.logit_scale.exp()
            )
            loss = checkpoint.descend(loss, optimizer, model.parameters())
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            return {
                "loss": loss,
                "pairs": (step + 1) * recipe.batch_size,
                "logit_scale": model.logit_scale.exp().item(),
            }

        return learn

    def evaluate() -> dict:
        return {"retrieval_r1": _quick_retrieval(model, device)}

    parts = {"model": model, "optimizer": optimizer}
    yield from checkpoint.run(recipe, state, MODELS[recipe.model], parts, start, evaluate, Step)


@torch.no_grad()
def _quick_retrieval(model: torch.nn.Module, device) -> float:
    """Share of 400 held-out two-object captions whose picture ranks first: a thermometer, not the evaluation."""
    from open_clip import SimpleTokenizer
    from torchvision.transforms.functional import pil_to_tensor

    scenes = world.sample(400, "heldout", seed=1, objects=2)
    pixels = torch.stack([pil_to_tensor(scene.render(MODEL["vision_cfg"]["image_size"])) for scene in scenes])
    mean, std = (torch.tensor(PREPROCESS[key]).view(3, 1, 1) for key in ("mean", "std"))
    tokens = SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])([scene.caption for scene in scenes])
    model.eval()
    images = F.normalize(model.encode_image(((pixels / 255 - mean) / std).to(device)), dim=-1)
    texts = F.normalize(model.encode_text(tokens.to(device)), dim=-1)
    model.train()
    return ((texts @ images.T).argmax(1).cpu() == torch.arange(len(scenes))).float().mean().item()


# ---------------------------------------------------------------------------------------------------
# The finished model


def caption_parts() -> list[str]:
    """What every training caption is put together from: wordings without their gaps, names, colours, articles."""
    import re

    templates = [*world.ONE, *world.ONE_WITHOUT_BACKGROUND, *world.LEFT, *world.ABOVE, *world.UNORDERED]
    parts = [re.sub(r"\{\w+\}", " ", template) for template in templates]
    parts += [*world.BACKGROUNDS, *sum(world.BACKGROUND_ALIASES.values(), ()), "a", "an"]
    for each in world.concepts():
        parts += [each.name, each.article, *each.aliases]
    return parts


def vocabulary() -> list[str]:
    """Every word that a training caption can hold, lower case, sorted."""
    import re

    return sorted(set(re.findall(r"[^\W_]+(?:'[^\W_]+)?", " ".join(caption_parts()).lower())))


def save_model(model: torch.nn.Module, folder: Path, card: str | None = None, name: str = "pocket-clip") -> Path:
    """Writes an open_clip model folder: fp16 safetensors, config, the words it knows, and its card."""
    from safetensors.torch import save_file

    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in model.state_dict().items()
    }
    config = {"model_cfg": MODELS[name], "preprocess_cfg": PREPROCESS}
    gates.write_atomically(
        folder / "open_clip_model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"})
    )
    gates.write_atomically(folder / "open_clip_config.json", (json.dumps(config, indent=2) + "\n").encode())
    gates.write_atomically(folder / "vocabulary.json", (json.dumps({"words": vocabulary()}, indent=0) + "\n").encode())
    if card:
        gates.write_atomically(folder / "README.md", card.encode())
    if assets.data_dir().resolve() in folder.resolve().parents:
        assets.update_manifest([folder])
    return folder


def main(arguments) -> int:
    """`mmlesson train clip`: trains, prints a line now and then, saves the model at the end."""
    runtime.set_threads()
    name = {"clip": "pocket-clip", "judge": "judge-clip"}[getattr(arguments, "model_kind", "clip")]
    state = Path(arguments.state) if getattr(arguments, "state", None) else assets.cache_dir() / "training" / name
    if arguments.fresh:
        checkpoint.throw_away(state)
    minutes = arguments.minutes if arguments.steps is None else None
    recipe = recipe_for(
        name, minutes=minutes, steps=arguments.steps, seed=arguments.seed, workers=getattr(arguments, "workers", 1)
    )

    def sentence(step: Step) -> str:
        found = "" if step.retrieval_r1 is None else f"  retrieval at 1 of 400 held-out pairs {step.retrieval_r1:.1%}"
        rate = step.pairs / step.seconds
        return f"{step.seconds / 60:6.1f} min  step {step.step:6d}  {rate:4.0f} pairs/s  loss {step.loss:.3f}{found}"

    steps = train(recipe, state, arguments.device)
    model = checkpoint.told(steps, state, sentence, lambda step: step.retrieval_r1 is not None) or _finished(
        recipe, state
    )
    folder = save_model(model, Path(arguments.out or f"build/{name}"), name=name)
    print(f"The model is in {folder}; `mmlesson eval clip --model local-dir:{folder}` measures it.")
    return 0


def _finished(recipe: Recipe, state: Path) -> torch.nn.Module:
    """The model of a checkpoint whose schedule had already ended when the command was given."""
    model = new_model(recipe.seed, recipe.model)
    checkpoint.load(state, recipe, MODELS[recipe.model], {"model": model, "optimizer": optimizer_for(model, recipe)})
    return model
