"""The recipe of the pocket guide: `mmlesson train guide --steps 1000`.

The guide is the pocket CLIP with image towers that have learned to look at half-finished pictures. A scene of one object, large as in the prior's
training, is encoded by the pocket VQGAN, blended with random codes at some clarity, restored by the pocket prior and decoded: what a painting looks
like on its way. From that a tower has to find the caption, among those of all one-object scenes of the training split. A CLIP of clear pictures says "cat" to a smear
that has the right quirks; one that was trained on smears says what might become of them, and its gradient shows how (Dhariwal and Nichol 2021,
"Diffusion Models Beat GANs on Image Synthesis": a classifier that guides is trained on what it will see).

With a `radius` above 0 it is also trained against itself: before it looks, each picture is moved a little in the direction that deceives it most
(Santurkar et al. 2019, "Image Synthesis with a Single (Robust) Classifier"; one step, L2, as in Goodfellow et al. 2015). The shipped guide was not.

There are two towers, which learn the same apart from each other: the pocket CLIP's own goes on, and one of another architecture starts from nothing, at
first with clear pictures. What pleases one of them through a quirk leaves the other cold; what pleases both is more likely to be there.

The text tower is the pocket CLIP's own and stays as it is, so that all speak of texts alike.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlesson import clip, gates, runtime, vqgan, world
from mmlesson import prior as priors
from mmlesson.train import run as checkpoint
from mmlesson.train.clip import MODEL, PREPROCESS, augment

ENDLESS = 2**40  # more scenes than any training draws
FORM = {"vision_cfg": MODEL["vision_cfg"], "embed_dim": MODEL["embed_dim"], "second": clip.SECOND_TOWER}


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on. Two runs of one recipe bounded by steps give the same weights on one machine."""

    minutes: float | None = None  # of training, evaluation and checkpoints left out; the schedule follows the clock
    steps: int | None = None  # or this many steps: the schedule follows the count
    smallest: float = 0.9  # scenes of one object that fills at least so much of the side
    clear: float = 0.5  # share of the run in which pictures are clear, which costs a seventh; the second tower alone learns from them
    batch_size: int = 48
    learning_rate: float = 6e-4  # at its peak
    warmup: float = 0.05  # share of the run in which the rate rises
    weight_decay: float = 0.05
    radius: float = 0.0  # above 0: each picture is first moved by up to so much (L2, 64×64×3 pixels in 0…1) to where it deceives most
    seed: int = 0
    workers: int = 1  # processes that render scenes
    evaluate_every: float = 300.0  # seconds
    checkpoint_every: float = 120.0  # seconds

    def __post_init__(self):
        checkpoint.check_length(self)


@dataclass(frozen=True)
class Step:
    """One step of training, as it is logged."""

    step: int
    pictures: int  # seen so far
    seconds: float  # trained so far
    loss: float  # of both towers, summed; of the second alone while pictures are clear
    learning_rate: float
    heldout_top1: float | None = (
        None  # of 200 held-out scenes of one object, half restored: share named right among all concepts
    )
    heldout_each: tuple[float, ...] | None = None  # the same by each tower alone


def scene_batches(recipe: Recipe, size: int, first_step: int = 0) -> Iterator[tuple[Tensor, list[str]]]:
    """Endless batches of training scenes of one object with their canonical captions."""
    data = world.dataset(
        ENDLESS, "train", recipe.seed, size, 1, curriculum=(ENDLESS, ENDLESS), smallest=recipe.smallest
    )
    return checkpoint.batches(data, recipe, first_step, _columns)


def _columns(items) -> tuple[Tensor, list[str]]:
    pixels, captions, _ = zip(*items, strict=True)
    return torch.stack(pixels), list(captions)


def one_object_captions() -> list[str]:
    """The canonical captions of all one-object scenes of the training split: no held-out pair is among them, right or wrong."""
    scenes = (
        world.scene(each.name, background=colour)
        for each, colour in itertools.product(world.concepts(), world.BACKGROUNDS)
    )
    return [scene.caption for scene in scenes if not scene.held_out]


@torch.no_grad()
def half_finished(
    pixels: Tensor, model: vqgan.VQGAN, prior: priors.Prior, clarity: Tensor, generator: torch.Generator
) -> Tensor:
    """What the prior restores of pictures, `[n, 3, side, side]` in 0…1, blended with random codes at clarities `[n]`; same shape."""
    with runtime.autocast(pixels.device):
        found = model.quantise(
            model.encode_pixels(pixels.contiguous(memory_format=torch.channels_last))
        )  # latents [n, dim, h, w]
        random = prior.random_latents(len(pixels), found.codes.shape[1], generator)
        return model.decode_latents(prior.restore(priors.blend(found.latents, random, clarity), clarity))


def train(
    recipe: Recipe,
    state: Path | None = None,
    device: torch.device | str | None = None,
    prior: priors.Prior | None = None,
) -> Iterator[tuple[Step, torch.nn.Module]]:
    """Trains the guide's image towers; yields every step with the `clip.Towers` as they are then.

    state: a folder for checkpoints and `log.jsonl`. A checkpoint of the same recipe found there is resumed;
    leaving the generator (Ctrl-C, close) writes one. The last step yielded is the end of the schedule.
    """
    device = runtime.device(device)
    model = vqgan.load_vqgan(device=device)
    prior = prior or priors.load_prior(model)
    plain = clip.load_clip(clip.POCKET, device)
    towers, parts = _parts(recipe, plain)
    numbers = {caption: number for number, caption in enumerate(one_object_captions())}
    texts = plain.encode_texts(list(numbers)).to(device)  # [6,424, dim]

    def start(first_step: int):
        batches = scene_batches(recipe, model.config.image_size, first_step)

        def learn(step: int, progress: float) -> dict:
            pixels, captions = next(batches)
            pixels, generator = pixels.to(device).float() / 255, runtime.generator((recipe.seed << 32) + step)
            learning = towers.towers[1:] if progress < recipe.clear else towers.towers
            if progress >= recipe.clear:
                clarity = priors.schedule(torch.rand(len(pixels), generator=generator)).to(device)
                pixels = half_finished(pixels, model, prior, clarity, generator)
            target = torch.tensor([numbers[caption] for caption in captions], device=device)

            def loss_of(pixels: Tensor) -> Tensor:
                return sum(
                    F.cross_entropy(plain.logit_scale * _features(tower, pixels) @ texts.T, target)
                    for tower in learning
                )

            pixels = augment(_small(pixels), generator)
            if recipe.radius:
                pixels = _perturbed(
                    pixels, recipe.radius * torch.rand(len(pixels), generator=generator).to(device), loss_of
                )
            loss = checkpoint.descend(loss_of(pixels), parts["optimizer"], learning.parameters())
            return {"loss": loss, "pictures": (step + 1) * recipe.batch_size}

        return learn

    def evaluate() -> dict:
        together, *each = _quick_evaluation([towers, *towers.towers], plain, model, prior)
        return {"heldout_top1": together, "heldout_each": tuple(each)}

    yield from checkpoint.run(recipe, state, FORM, parts, start, evaluate, Step)


def _parts(recipe: Recipe, plain: clip.CLIP):
    """A copy of the pocket CLIP's image tower to go on with, a fresh one, and what a checkpoint of them holds."""
    towers = (
        copy.deepcopy(clip.guide_towers(plain, recipe.seed))
        .requires_grad_(True)
        .train()
        .to(memory_format=torch.channels_last)
    )
    return towers, {
        "model": towers,
        "optimizer": checkpoint.adamw(towers, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98)),
    }


def _perturbed(pixels: Tensor, radii: Tensor, loss_of) -> Tensor:
    """Pixels [n, 3, h, w] moved by `radii` [n] in the direction, at each picture, in which the loss rises fastest."""
    pixels = pixels.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(pixels), pixels)
    direction = F.normalize(gradient.flatten(1), dim=1).view_as(pixels)
    return (pixels + radii[:, None, None, None] * direction).detach().clamp(0, 1)


def _small(pixels: Tensor) -> Tensor:
    size = MODEL["vision_cfg"]["image_size"]
    return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def _features(tower: torch.nn.Module, pixels: Tensor) -> Tensor:
    """Unit features [n, dim] of pixels [n, 3, 64, 64] in 0…1."""
    mean, std = (torch.tensor(PREPROCESS[key], device=pixels.device).view(3, 1, 1) for key in ("mean", "std"))
    with runtime.autocast(pixels.device):
        features = tower(((pixels - mean) / std).contiguous(memory_format=torch.channels_last))
    return F.normalize(features.float(), dim=-1)


@torch.no_grad()
def _quick_evaluation(
    towers: list[torch.nn.Module], plain: clip.CLIP, model: vqgan.VQGAN, prior: priors.Prior, clarity: float = 0.25
) -> list[float]:
    """A thermometer for each of `towers`, on 200 held-out scenes of one object, restored from a clarity of one quarter; not the evaluation."""
    from mmlesson.pixels import to_pixels

    scenes = world.sample(200, "heldout", seed=1, objects=1)
    names = [concept.name for concept in world.concepts()]
    texts = plain.encode_texts([f"a picture of {concept}" for concept in world.concepts()]).to(plain.device)
    pixels, generator = (
        to_pixels([scene.render(model.config.image_size) for scene in scenes]).to(plain.device),
        runtime.generator(0),
    )
    seen = [
        half_finished(part, model, prior, torch.full((len(part),), clarity, device=part.device), generator)
        for part in pixels.split(50)
    ]
    shares = []
    for tower in towers:
        tower.eval()
        found = [int(number) for part in seen for number in (_features(tower, _small(part)) @ texts.T).argmax(1)]
        tower.train()
        shares.append(
            sum(names[number] == scene.concepts[0] for number, scene in zip(found, scenes, strict=True)) / len(scenes)
        )
    return shares


def save_guide(towers: clip.Towers, folder: Path) -> Path:
    """Writes the image towers, fp16 safetensors, where `load_guide` finds them beside the pocket CLIP's text tower."""
    from safetensors.torch import save_file

    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in towers.state_dict().items()
    }
    gates.write_atomically(
        folder / clip.GUIDE_WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"})
    )
    return folder


def main(arguments) -> int:
    """`mmlesson train guide`: trains, prints a line now and then, saves the image towers at the end."""
    recipe, state = checkpoint.asked(arguments, Recipe, clip.GUIDE)

    def sentence(step: Step) -> str:
        first, second = step.heldout_each or (0.0, 0.0)
        found = (
            ""
            if step.heldout_top1 is None
            else f"  200 held-out objects, restored from a quarter: {step.heldout_top1:.1%} named (alone {first:.1%}, {second:.1%})"
        )
        rate = step.pictures / step.seconds
        return f"{step.seconds / 60:6.1f} min  step {step.step:6d}  {rate:4.0f} pictures/s  loss {step.loss:.3f}{found}"

    towers = checkpoint.told(
        train(recipe, state, arguments.device), state, sentence, lambda step: step.heldout_top1 is not None
    )
    if towers is None:  # the schedule of the checkpoint had already ended
        towers, parts = _parts(recipe, clip.load_clip(clip.POCKET, arguments.device))
        checkpoint.load(state, recipe, FORM, parts)
    folder = save_guide(towers.eval(), Path(arguments.out or f"build/{clip.GUIDE}"))
    print(f"The guide is in {folder}.")
    return 0
