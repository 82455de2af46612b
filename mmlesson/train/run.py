"""The one loop that runs every recipe: steps, learning rate, thermometer, log, checkpoints, and the command.

    training = clip.Training(clip.Recipe(minutes=120))      # networks, data, loss and thermometer of one recipe
    for step in train(training, Path("build/training")):    # stops and resumes without losing work
        print(step.step, step.loss)
    training.save(Path("build/pocket-clip"))

A recipe file defines two classes. Its `Recipe` lists the numbers that a training depends on; its `Training` holds
the networks and takes one step. Everything else is here, and in checkpoint.py.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmlesson import gates, runtime
from mmlesson.models import assets, checkpoints
from mmlesson.train import checkpoint

MOST_WORKERS = 64
PRINT_EVERY = 30.0  # seconds


@dataclass(frozen=True)
class Recipe:
    """What a training depends on. On one machine, two trainings of one recipe with `steps` give the same weights.

    A recipe has either `minutes` or `steps`. The learning rate follows the one that is given.
    Raises ValueError, with a sentence, where a value makes no sense.
    """

    minutes: float | None = None  # of training; evaluation and checkpoints do not count
    steps: int | None = None
    batch_size: int = 16
    learning_rate: float = 1e-3  # at its highest
    warmup: float = 0.02  # share of the training in which the learning rate rises
    weight_decay: float = 0.01
    seed: int = 0
    workers: int = 1  # processes that render scenes; 0: this process renders them itself
    evaluate_every: float = 300.0  # seconds of training
    checkpoint_every: float = 120.0  # seconds of training

    def __post_init__(self):
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("A training lasts some minutes or some steps: give one of the two.")
        if self.minutes is not None:
            gates.real_number("minutes", self.minutes, above=0)
        if self.steps is not None:
            gates.whole_number("steps", self.steps, 1)
        gates.whole_number("batch_size", self.batch_size, 1)
        gates.whole_number("seed", self.seed, 0, 2**31 - 1)
        gates.whole_number("workers", self.workers, 0, MOST_WORKERS)
        gates.real_number("learning_rate", self.learning_rate, above=0)
        gates.real_number("warmup", self.warmup, least=0, most=0.99)
        for name in ("weight_decay", "evaluate_every", "checkpoint_every"):
            gates.real_number(name, getattr(self, name), least=0)


@dataclass(frozen=True)
class TrainStep:
    """One step of a training, as it is logged."""

    step: int  # 1 for the first
    seconds: float  # trained so far
    learning_rate: float
    loss: float
    details: dict[str, float] = field(default_factory=dict)  # more about this step: parts of the loss, for example
    heldout: dict[str, float] = field(default_factory=dict)  # what the thermometer measured; empty at most steps


class Training:
    """The networks of a recipe, and how they take one step. Each recipe file has a subclass.

    A subclass sets in its constructor
        parts   networks and optimisers by name, which checkpoints hold. "model" is the network that comes out; the
                learning rate of "optimizer" follows the schedule
        form    what the networks were built from, as JSON can hold it. A checkpoint of another form is refused
    """

    name: str  # of the model: its folder is called so
    evaluation: ClassVar[str | None] = None  # `mmlesson eval <evaluation>` measures the finished model
    parts: checkpoint.Parts
    form: dict

    def __init__(self, recipe: Recipe, device: torch.device | str | None = None):
        self.recipe = recipe
        self.device = runtime.device(device)

    @property
    def model(self) -> nn.Module:
        return self.parts["model"]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.parts["optimizer"]

    def begin(self, first_step: int, state: Path | None) -> None:
        """Get the data ready. Called once, before step `first_step` (0: the first of all); `state` as in `train`."""
        raise NotImplementedError

    def take_step(self, step: int, progress: float) -> tuple[float, dict[str, float]]:
        """Take step number `step` (0: the first), at `progress` 0…1; returns the loss, and details for the log."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """The thermometer: a few figures on held-out data, measured quickly on the way. It changes nothing."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write the model as the lessons load it."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------- the loop


def train(training: Training, state: Path | None = None) -> Iterator[TrainStep]:
    """Train to the end of the schedule; yields every step after it was taken. `training.model` is the network.

    state: a folder for the checkpoint and the log. A checkpoint found there is resumed. Leaving the generator (Ctrl-C,
    close) writes one, of the last whole step. Where the schedule has already ended, no step is yielded, and
    `training.model` is trained. Raises ValueError where the checkpoint is damaged or belongs to another recipe, or
    where the training diverges; AssetError where a file cannot be written. The last checkpoint is kept then.
    """
    recipe = training.recipe
    step, seconds = 0, 0.0
    if state is not None:
        step, seconds = checkpoint.load(state, recipe, training.form, training.parts)
    if progress(recipe, step, seconds) >= 1:
        return
    if state is not None:
        state.mkdir(parents=True, exist_ok=True)
        checkpoint.shorten_log(state, step)
    training.begin(step, state)

    last_evaluation = last_checkpoint = seconds
    kept = checkpoint.versions(training.parts)  # of the networks after the last whole step
    try:
        while (done := progress(recipe, step, seconds)) < 1:
            with _Interrupts() as interrupts:
                started = time.perf_counter()
                rate = rate_at(done, recipe)
                for group in training.optimizer.param_groups:
                    group["lr"] = rate
                loss, details = training.take_step(step, done)
                if not math.isfinite(loss):
                    raise ValueError(_diverged(step + 1, loss, state))
                step += 1
                seconds += time.perf_counter() - started
                kept = checkpoint.versions(training.parts)

                heldout = {}
                try:
                    if seconds - last_evaluation >= recipe.evaluate_every and not interrupts.asked:
                        interrupts.wait = False  # it takes long, and changes nothing
                        heldout = training.evaluate()
                        last_evaluation = seconds
                finally:
                    interrupts.wait = True
                    now = TrainStep(step, seconds, rate, loss, details, heldout)
                    if state is not None:
                        checkpoint.log(state, now)
            if state is not None and seconds - last_checkpoint >= recipe.checkpoint_every:
                checkpoint.save(state, recipe, training.form, training.parts, step, seconds)
                last_checkpoint = seconds
            yield now
    finally:
        # Where something broke in the middle of a step, the networks are no longer those of the last whole one: the
        # checkpoint from before stays.
        if state is not None and checkpoint.versions(training.parts) == kept:
            checkpoint.save(state, recipe, training.form, training.parts, step, seconds)


def _diverged(step: int, loss: float, state: Path | None) -> str:
    where = "" if state is None else f" The last checkpoint in {state} is from before, and kept."
    return (
        f"The loss of step {step} is {loss}: the training has diverged.{where} Train with a lower learning rate, or "
        "start again with --fresh and another --seed."
    )


class _Interrupts:
    """A context in which Ctrl-C waits for the end: half a step must not become a checkpoint. The second one does not.

    Elsewhere than in the main thread Python delivers no signals, and nothing has to wait.
    """

    asked = False  # Ctrl-C came, and waits
    wait = True  # False: let it through at once

    def __enter__(self) -> _Interrupts:
        here = threading.current_thread() is threading.main_thread()
        self.before = signal.getsignal(signal.SIGINT) if here else None
        if callable(self.before):  # not where signals are ignored, or another program handles them
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number, frame) -> None:
        if self.asked or not self.wait:
            self.before(number, frame)
        self.asked = True

    def __exit__(self, *error) -> None:
        if callable(self.before):
            signal.signal(signal.SIGINT, self.before)
            if self.asked:
                self.before(signal.SIGINT, None)  # raises KeyboardInterrupt


def progress(recipe: Recipe, step: int, seconds: float) -> float:
    """How much of the training is done, 0…1: by steps where the recipe has steps, else by the clock."""
    return step / recipe.steps if recipe.steps is not None else seconds / (60 * recipe.minutes)


def rate_at(progress: float, recipe: Recipe) -> float:
    """The learning rate at a share of the training (0…1): a linear rise over `warmup`, then half a cosine down to 0."""
    if progress < recipe.warmup:
        return recipe.learning_rate * max(progress / recipe.warmup, 0.01)
    done = (min(progress, 1.0) - recipe.warmup) / (1 - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def adamw(
    model: nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices and kernels, and without it on gains, biases and embeddings."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim > 1 and "embedding" not in name else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-6)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, parameters) -> float:
    """One step of an optimiser, with the gradient of `parameters` clipped to a length of 1; returns the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


# ---------------------------------------------------------------------------------------- the command


def main(options, recipe_class: type[Recipe], training_class: type[Training]) -> int:
    """`mmlesson train …`: trains, prints a line now and then, saves the model at the end; returns the exit status."""
    runtime.set_threads()
    recipe = command_recipe(options, recipe_class)  # wrong values end here, before anything is built or deleted
    training = training_class(recipe, options.device)
    state = options.state if options.state is not None else checkpoints.folder() / training.name
    out = options.out if options.out is not None else Path("build") / training.name
    for folder in (state, out):
        gates.output_folder(folder)
    with checkpoint.alone(state):
        if options.fresh:
            checkpoint.remove(state)
        if not report(training, state):
            print(f"The training in {state} had already ended. Give more steps or minutes, or --fresh to start again.")
        training.save(out)
    if assets.data_dir().resolve() in out.resolve().parents:
        assets.update_manifest([out])  # the sha256 of a model that the course brings
    if training.evaluation is None:
        print(f"The model is in {out}.")
    else:
        print(f"The model is in {out}; `mmlesson eval {training.evaluation} --model local-dir:{out}` measures it.")
    return 0


def command_recipe(options, recipe_class: type[Recipe]) -> Recipe:
    """The recipe that a command line describes. What it does not name has the default value of this recipe."""
    length = {"minutes": options.minutes} if options.steps is None else {"steps": options.steps}
    given = {name: getattr(options, name) for name in ("seed", "workers")}
    return recipe_class(**length, **{name: value for name, value in given.items() if value is not None})


def report(training: Training, state: Path) -> bool:
    """Run a training and print a line now and then; returns False where the schedule had already ended.

    Ctrl-C writes a checkpoint. The KeyboardInterrupt is then raised again, with a sentence about where the work is.
    """
    printed = -math.inf
    steps = train(training, state)
    try:
        for step in steps:
            if step.seconds - printed >= PRINT_EVERY or step.heldout:
                printed = step.seconds
                print(sentence(step, training.recipe), flush=True)
    except KeyboardInterrupt:
        steps.close()
        path = state / checkpoint.CHECKPOINT
        if not path.exists():
            raise KeyboardInterrupt("No step was finished yet. The same command starts again.") from None
        raise KeyboardInterrupt(f"{path} holds the work so far. The same command goes on from there.") from None
    return printed > -math.inf


def sentence(step: TrainStep, recipe: Recipe) -> str:
    """One line about a step for people."""
    rate = step.step * recipe.batch_size / step.seconds
    line = f"{step.seconds / 60:6.1f} min  step {step.step:6d}  {rate:4.0f} pictures/s  loss {step.loss:.3f}"
    measured = step.details | {f"held-out {name}": value for name, value in step.heldout.items()}
    return "  ".join([line, *(f"{name} {value:.4g}" for name, value in measured.items())])
