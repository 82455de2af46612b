"""What every recipe shares: the run itself, its learning rate, checkpoints that lose no work, the log, and telling about it.

A checkpoint is one safetensors file (nothing is pickled) of the networks, the moments of their optimisers, the recipe and
how far the run has come. It belongs to one recipe: another one is told so instead of going on with it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from mmlesson import gates, runtime
from mmlesson.models import assets

FILE, LOG = "state.safetensors", "log.jsonl"
FREE = frozenset(
    {"minutes", "steps", "workers", "evaluate_every", "checkpoint_every"}
)  # may change between stop and resume


def rate_at(progress: float, recipe) -> float:
    """The learning rate at a share of the run (0…1): a linear rise over `warmup`, then half a cosine down to nothing."""
    if progress < recipe.warmup:
        return recipe.learning_rate * max(progress / recipe.warmup, 0.01)
    done = (min(progress, 1.0) - recipe.warmup) / (1 - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def progress(recipe, step: int, seconds: float) -> float:
    """How much of the run is done, 0…1: by steps where the recipe counts them, else by the clock."""
    return step / recipe.steps if recipe.steps is not None else seconds / (60 * recipe.minutes)


def check_length(recipe) -> None:
    """Raises ValueError unless the recipe is bounded by minutes or by steps, one of the two, and above 0."""
    if (recipe.minutes is None) == (recipe.steps is None):
        raise ValueError("A training is bounded by minutes or by steps: give one of the two.")
    if (recipe.minutes or recipe.steps or 0) <= 0:
        raise ValueError("A training lasts more than no time: give a number above 0.")


def adamw(
    model: torch.nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW that decays matrices and kernels, and leaves gains, biases and embeddings alone."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim > 1 and "embedding" not in name else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-6)


def save(
    state: Path,
    recipe,
    form: dict,
    parts: dict[str, torch.nn.Module | torch.optim.Optimizer],
    step: int,
    seconds: float,
) -> None:
    """Writes the checkpoint: `parts` are networks and optimisers by name, `form` what the networks were built from."""
    from safetensors.torch import save_file

    tensors = {}
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in part.state_dict().items()}
        else:
            for index, moments in part.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": value.contiguous() for key, value in moments.items()}
    told = {
        "recipe": json.dumps(asdict(recipe)),
        "model": json.dumps(form),
        "step": str(step),
        "seconds": repr(seconds),
    }
    gates.write_atomically(state / FILE, lambda path: save_file(tensors, path, metadata=told))


def load(
    state: Path, recipe, form: dict, parts: dict[str, torch.nn.Module | torch.optim.Optimizer]
) -> tuple[int, float]:
    """Fills `parts` from the checkpoint; returns steps and seconds done, (0, 0.0) where there is none.

    Raises ValueError where the file is damaged, or of another recipe or form.
    """
    from safetensors import SafetensorError, safe_open

    state.mkdir(parents=True, exist_ok=True)
    path = state / FILE
    if not path.exists():
        return 0, 0.0
    now, default = json.loads(json.dumps(asdict(recipe))), json.loads(json.dumps(asdict(type(recipe)(steps=1))))
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        was = default | json.loads(told["recipe"])  # fields that are newer than the checkpoint
        step, seconds = int(told["step"]), float(told["seconds"])
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}, the checkpoint, is damaged ({error}): start again with --fresh.") from error
    differs = [key for key, value in now.items() if key not in FREE and was.get(key) != value]
    if differs or json.loads(told["model"]) != json.loads(json.dumps(form)):
        raise ValueError(
            f"{path} is a checkpoint of another recipe ({', '.join(differs) or 'model'} differs): "
            "train with that recipe, name another folder, or start again with --fresh."
        )
    for name, part in parts.items():
        own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if isinstance(part, torch.nn.Module):
            part.load_state_dict(own)
            continue
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in own.items():
            index, moment = key.split(".")
            moments.setdefault(int(index), {})[moment] = value
        part.load_state_dict({"state": moments, "param_groups": part.state_dict()["param_groups"]})
    return step, seconds


def run(
    recipe, state: Path | None, form: dict, parts: dict, start: Callable, evaluate: Callable[[], dict], record: Callable
) -> Iterator:
    """A training from its beginning, or from its checkpoint in `state`, to the end of its schedule; yields (record, model) for every step.

    parts      networks and optimisers by name, "model" and "optimizer" among them; the rate of the latter follows the schedule
    start      the number of the first step → `learn(step, progress)`, which takes one step and returns what is logged of it
    evaluate   what is measured every `recipe.evaluate_every` seconds of training, as fields of a record
    record     makes one of step, seconds, learning_rate, and what `learn` and `evaluate` returned

    The log and, every `recipe.checkpoint_every` seconds, a checkpoint go to `state`, where one is given; leaving (Ctrl-C, close) writes one too.
    """
    step, seconds = load(state, recipe, form, parts) if state else (0, 0.0)
    evaluated = saved = seconds
    learn = start(step)
    try:
        while (done := progress(recipe, step, seconds)) < 1:
            started = time.perf_counter()
            rate = rate_at(done, recipe)
            for group in parts["optimizer"].param_groups:
                group["lr"] = rate
            values = learn(step, done)
            step += 1
            seconds += time.perf_counter() - started
            if seconds - evaluated >= recipe.evaluate_every:
                evaluated, values = seconds, values | evaluate()
            now = record(step=step, seconds=seconds, learning_rate=rate, **values)
            if state:
                log(state, now)
                if seconds - saved >= recipe.checkpoint_every:
                    save(state, recipe, form, parts, step, seconds)
                    saved = seconds
            yield now, parts["model"]
    finally:
        if state:
            save(state, recipe, form, parts, step, seconds)


def batches(data, recipe, first_step: int, collate: Callable) -> Iterator:
    """Batches of a dataset from step `first_step` on, in its order; its items are drawn by `recipe.workers` processes."""
    loader = torch.utils.data.DataLoader(
        data,
        recipe.batch_size,
        sampler=range(first_step * recipe.batch_size, len(data)),
        num_workers=recipe.workers,
        collate_fn=collate,
        prefetch_factor=3 if recipe.workers else None,
    )
    return iter(loader)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, parameters) -> float:
    """One step down the gradient of a loss, the gradient no longer than 1; returns the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


def asked(arguments, recipe: Callable, name: str):
    """What a command line asks for: its recipe, and the folder for checkpoints, emptied for --fresh; the threads are set too."""
    runtime.set_threads()
    state = Path(arguments.state) if arguments.state else assets.cache_dir() / "training" / name
    if arguments.fresh:
        throw_away(state)
    minutes = arguments.minutes if arguments.steps is None else None
    return recipe(minutes=minutes, steps=arguments.steps, seed=arguments.seed, workers=arguments.workers), state


def throw_away(state: Path) -> None:
    """Removes checkpoint and log, where they are."""
    for file in (FILE, LOG):
        (state / file).unlink(missing_ok=True)


def log(state: Path, step) -> None:
    """Adds a step, a dataclass with None where nothing was measured, to the log: one line of JSON."""
    with open(state / LOG, "a", encoding="utf8") as file:
        file.write(json.dumps({key: value for key, value in asdict(step).items() if value is not None}) + "\n")


def told(
    steps: Iterator,
    state: Path,
    sentence: Callable[[object], str],
    always: Callable[[object], bool],
    every: float = 30.0,
):
    """Runs a training to its end, printing a sentence every 30 seconds of it; returns the last model, None where no step was left.

    Ctrl-C closes the training, which writes its checkpoint, and is raised again with a word on where the work is.
    """
    last, model = -math.inf, None
    try:
        for step, model in steps:
            if step.seconds - last >= every or always(step):
                last = step.seconds
                print(sentence(step), flush=True)
    except KeyboardInterrupt:
        steps.close()
        if not (state / FILE).exists():
            raise KeyboardInterrupt("no step had been taken yet; the same command starts again.") from None
        raise KeyboardInterrupt(f"{state / FILE} holds the work so far; the same command goes on from there.") from None
    return model
