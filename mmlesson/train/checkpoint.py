"""The files of a training: the checkpoint, from which it goes on, and the log.

A checkpoint is one safetensors file; nothing is pickled. It holds the networks, the moments of their optimisers, the
recipe, how far the training has come, and a sum over all of that: a file with one changed byte is refused. So is one of
a training with another recipe, or with other networks.

The log is a file with one JSON object a line, one line a step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmlesson import gates
from mmlesson.models import checkpoints
from mmlesson.models.checkpoints import CHECKPOINT

if TYPE_CHECKING:
    from mmlesson.train.run import Recipe, TrainStep

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

    Raises AssetError where nothing can be written; the checkpoint from before is then still there.
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
    metadata[checkpoints.SUM] = checkpoints.sum_of(tensors, metadata)
    gates.write_atomically(state / CHECKPOINT, lambda path: save_file(tensors, path, metadata=metadata))


def load(state: Path, recipe: Recipe, form: dict, parts: Parts) -> tuple[int, float]:
    """Fill `parts` from the checkpoint in `state`; returns how many steps are done and how many seconds they took.

    Without a checkpoint `parts` stay as they are, and nothing is done yet: (0, 0.0).
    Raises ValueError where the checkpoint is damaged, or belongs to another recipe or to networks of another form.
    """
    path = state / CHECKPOINT
    if not path.exists() and not path.is_symlink():
        return 0, 0.0
    try:
        metadata, tensors = checkpoints.read(path)
        stored_recipe = json.loads(metadata["recipe"])
        stored_form = json.loads(metadata["model"])
        step = int(metadata["step"])
        seconds = float(metadata["seconds"])
        if not isinstance(stored_recipe, dict) or step < 0 or not 0 <= seconds < math.inf:
            raise ValueError("it says nothing of a training")
    except (OSError, TypeError, KeyError, ValueError, RecursionError) as error:
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


def check(path: Path) -> None:
    """Raises ValueError where a checkpoint is damaged; the message says so and ends with what to do."""
    try:
        checkpoints.read(path)
    except (OSError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def versions(parts: Parts) -> int:
    """A number that differs after any change of a network or of the moments of its optimiser.

    It is the sum of torch's own counts of changes in place, and costs nothing.
    """
    tensors = [value for part in parts.values() if isinstance(part, nn.Module) for value in part.state_dict().values()]
    for part in parts.values():
        if not isinstance(part, nn.Module):
            tensors += [
                value for moments in part.state.values() for value in moments.values() if isinstance(value, Tensor)
            ]
    return len(tensors) + sum(value._version for value in tensors)


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
    """Delete checkpoint and log, where they exist. Raises AssetError where one of them cannot be deleted."""
    for name in (CHECKPOINT, LOG):
        try:
            (state / name).unlink(missing_ok=True)
        except OSError as error:
            raise gates.AssetError(
                f"{state / name} cannot be deleted ({gates.reason(error)}): delete it, or choose another --state."
            ) from error


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """A context that one training at a time enters for a folder: two would overwrite each other's checkpoints.

    Raises AssetError at once where another one is inside.
    """
    with gates.lock(state / "training", timeout=0, what=f"training in {state}"):
        for left in state.glob(f".{Path(CHECKPOINT).stem}-*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield


# -------------------------------------------------------------------------------------------- the log


def log(state: Path, step: TrainStep) -> None:
    """Add one step to the log. Raises AssetError where it cannot be written."""
    line = json.dumps(asdict(step)) + "\n"
    gates.append(state / LOG, line.encode())


def shorten_log(state: Path, last: int) -> None:
    """Remove the steps after `last` from the log: a training that was killed logged them, but its checkpoint is older.

    They will be trained, and logged, again. So goes all that follows a line that cannot be read. Raises AssetError.
    """
    path = state / LOG
    if not path.exists():
        return
    try:
        with gates.open_file(path) as file:
            lines = file.read().splitlines(keepends=True)
    except OSError as error:
        raise gates.AssetError(
            f"{path}, the log, cannot be read ({gates.reason(error)}): delete it, or choose another --state."
        ) from error
    kept = []
    for line in lines:
        try:
            number = json.loads(line)["step"]
            if number > last or not line.endswith(b"\n"):
                break
        except (ValueError, TypeError, KeyError, RecursionError):
            break  # the process was killed while it wrote this line, or the line is damaged
        kept.append(line)
    gates.write_atomically(path, b"".join(kept))


# --------------------------------------------------------------------------------------- finished weights


def half_precision(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network for a file: floating-point numbers as float16, whole numbers as they are, on the CPU."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in model.state_dict().items()
    }
