"""The files of a training: the checkpoint, from which it goes on, and the log.

A checkpoint is one safetensors file; nothing is pickled. It holds the networks, the moments of their optimisers, the
recipe, and how far the training has come. A training with another recipe, or with other networks, refuses it.

The log is a file with one JSON object a line, one line a step.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmlesson import gates

if TYPE_CHECKING:
    from mmlesson.train.run import Recipe, TrainStep

CHECKPOINT = "state.safetensors"
LOG = "log.jsonl"
# These fields of a recipe may change between stopping and resuming.
MAY_CHANGE = frozenset({"minutes", "steps", "workers", "evaluate_every", "checkpoint_every"})

Parts = dict[str, nn.Module | torch.optim.Optimizer]  # by name; no name contains a dot


def save(state: Path, recipe: Recipe, form: dict, parts: Parts, step: int, seconds: float) -> None:
    """Write the checkpoint of a training into the folder `state`.

    form      what the networks were built from, as JSON can hold it
    parts     networks and optimisers by name
    step      how many steps are done
    seconds   how long they took
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in _tensors(part).items()}
    metadata = {
        "recipe": json.dumps(asdict(recipe)),
        "model": json.dumps(form),
        "step": str(step),
        "seconds": repr(seconds),
    }
    gates.write_atomically(state / CHECKPOINT, lambda path: save_file(tensors, path, metadata=metadata))


def load(state: Path, recipe: Recipe, form: dict, parts: Parts) -> tuple[int, float]:
    """Fill `parts` from the checkpoint in `state`; returns how many steps are done and how many seconds they took.

    Without a checkpoint `parts` stay as they are, and nothing is done yet: (0, 0.0).
    Raises ValueError where the checkpoint is damaged, or belongs to another recipe or to networks of another form.
    """
    from safetensors import SafetensorError, safe_open

    path = state / CHECKPOINT
    if not path.exists():
        return 0, 0.0
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        stored_recipe = json.loads(metadata["recipe"])
        stored_form = json.loads(metadata["model"])
        step = int(metadata["step"])
        seconds = float(metadata["seconds"])
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error

    # A field that is newer than the checkpoint had its default value then; one that exists no longer is ignored.
    stored_recipe = _as_json(asdict(type(recipe)(steps=1))) | stored_recipe
    now = _as_json(asdict(recipe))
    differing = [name for name, value in now.items() if name not in MAY_CHANGE and stored_recipe[name] != value]
    if not differing and stored_form != _as_json(form):
        differing = ["the form of the model"]
    if differing:
        raise ValueError(
            f"{path} is a checkpoint of another recipe (different: {', '.join(differing)}). Train with that recipe, "
            "choose another folder with --state, or start again with --fresh."
        )

    try:
        unknown = {key.partition(".")[0] for key in tensors} - parts.keys()
        if unknown:
            raise ValueError(f"it holds {', '.join(sorted(unknown))}, which this training does not have")
        for name, part in parts.items():
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            _fill(part, own)
    except (ValueError, RuntimeError, KeyError) as error:
        raise _damaged(path, error) from error
    return step, seconds


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())  # torch's have several lines
    return ValueError(f"{path}, the checkpoint, is damaged ({reason}). Start again with --fresh.")


def _as_json(values: dict) -> dict:
    """What JSON makes of values: tuples become lists."""
    return json.loads(json.dumps(values))


def _tensors(part: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of a network by name, or the moments of an optimiser as "<number of the parameter>.<moment>"."""
    if isinstance(part, nn.Module):
        return part.state_dict()
    moments = part.state_dict()["state"]
    return {f"{index}.{name}": value for index, each in moments.items() for name, value in each.items()}


def _fill(part: nn.Module | torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `_tensors`."""
    if isinstance(part, nn.Module):
        part.load_state_dict(tensors)
        return
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    part.load_state_dict({"state": moments, "param_groups": part.state_dict()["param_groups"]})


def remove(state: Path) -> None:
    """Delete checkpoint and log, where they exist."""
    for name in (CHECKPOINT, LOG):
        (state / name).unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------- the log


def log(state: Path, step: TrainStep) -> None:
    """Add one step to the log."""
    with open(state / LOG, "a", encoding="utf8") as file:
        file.write(json.dumps(asdict(step)) + "\n")


def shorten_log(state: Path, last: int) -> None:
    """Remove the steps after `last` from the log: a training that was killed logged them, but its checkpoint is older.

    They will be trained, and logged, again.
    """
    path = state / LOG
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf8").splitlines(keepends=True):
        try:
            number = json.loads(line)["step"]
        except ValueError:
            break  # the process was killed while it wrote this line
        if number > last:
            break
        kept.append(line)
    gates.write_atomically(path, "".join(kept).encode())


# --------------------------------------------------------------------------------------- finished weights


def half_precision(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network for a file: floating-point numbers as float16, whole numbers as they are, on the CPU."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in model.state_dict().items()
    }
