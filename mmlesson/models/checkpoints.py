"""The file of a training that was stopped: where it is, and whether it is whole.

It is one safetensors file, and nothing in it is pickled. Its metadata says of which training it is, and holds a sum
over everything else. `train/checkpoint.py` writes it and goes on from it; `mmlesson doctor` only looks whether it is
whole.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates
from mmlesson.models import assets, reading

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT = "state.safetensors"
HEAD = {"recipe", "model", "step", "seconds"}  # the metadata of a checkpoint
SUM = "sha256"  # in the metadata of a checkpoint: over all tensors, and over the rest of the metadata


def folder() -> Path:
    """The folder in the cache whose folders hold the checkpoints that have no place of their own."""
    return assets.cache_dir() / "training"


def examine(path: Path) -> str | None:
    """What is wrong with a checkpoint; None where it is whole. Reads all of it."""
    try:
        read(path)
    except (OSError, TypeError, ValueError) as error:
        return gates.reason(error) if isinstance(error, OSError) else reading.short(error)
    return None


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a checkpoint, as they were written. Raises OSError or ValueError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    gates.open_file(path).close()  # a pipe would wait for ever
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    # checkpoints of earlier versions have no sum; one whose name a damaged byte changed is not missing
    if not metadata.keys() <= HEAD | {SUM} or (SUM in metadata and metadata[SUM] != sum_of(tensors, metadata)):
        raise ValueError("its content is not what was written")
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
    return metadata, tensors


def sum_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The sha256 of everything that a checkpoint holds, but for the sum itself."""
    import torch

    digest = hashlib.sha256(json.dumps({key: metadata[key] for key in sorted(metadata) if key != SUM}).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())  # the bytes, of any dtype
    return digest.hexdigest()
