"""Folders of the course's own networks: config.json says what to build, model.safetensors holds the weights.

Nothing is pickled.

save_folder(model, folder)                              # `model.config` is a dataclass
model = load_folder(folder, "VQGAN", VQGAN, Config, name)    # VQGAN(Config(…), name) with the weights
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args, get_type_hints

from mmlesson import gates
from mmlesson.gates import AssetError
from mmlesson.models import assets, reading

if TYPE_CHECKING:
    from torch import nn

    Network = TypeVar("Network", bound=nn.Module)

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIMITS = {"image_size": (8, 2048)}  # pixels a side
MULTIPLES = {"image_size": 8}  # every network of the course halves the side three times
MOST_SIZE = 10**6  # of any other size


def local_folder(name: str) -> Path:
    """The folder of a name "local-dir:path/to/folder"; "~" stands for the home folder.

    Whether it exists is not looked at. Raises AssetError for what can be no path.
    """
    folder = assets.expanded(name.removeprefix("local-dir:"))
    try:
        folder.is_dir()
    except OSError as error:  # for a name that is too long; what is not there is no error
        raise AssetError(f"{str(folder)[:200]}… is no folder ({gates.reason(error)}): check the path.") from error
    return folder


def find_folder(name: str, pocket: str, what: str) -> Path:
    """The folder that a name stands for: `pocket` is the course's own, "local-dir:path" is any other.

    `what` is the kind of network, for error messages. Raises ValueError for another name, AssetError where the course's
    own folder is missing or damaged.
    """
    if name == pocket:
        return assets.model_dir(pocket)
    if isinstance(name, str) and name.startswith("local-dir:"):
        return local_folder(name)
    raise ValueError(f"there is no {what} {name!r}: give {pocket!r}, or 'local-dir:' and a folder.")


def load_folder(folder: Path, what: str, network: type[Network], config: type, name: str) -> Network:
    """The network of a folder: frozen, in `eval` mode, float32, on the CPU.

    The file has to hold every weight of the network and no other. Raises AssetError where files are missing or damaged.
    """
    holds = f"the folder of a {what} holds {CONFIG} and {WEIGHTS}"
    values = reading.read_object(folder / CONFIG, holds)
    shapes = reading.read_shapes(folder / WEIGHTS, holds)
    try:
        sizes = config(**_checked(values, config))
        with reading.no_more_than(shapes):
            model = network(sizes, name)
    except Exception as error:  # a wrong size makes torch raise errors of every kind
        raise AssetError(
            f"{folder} is not the folder of a {what}, or damaged ({CONFIG}: {reading.short(error)}): {reading.AGAIN}."
        ) from error
    reading.fill(model, folder / WEIGHTS, what)
    return model.eval().requires_grad_(False)


def _checked(values: dict, config: type) -> dict:
    """The values of a dataclass of sizes, from JSON. Raises ValueError where one is missing, or of another kind.

    Sizes are whole numbers from 1, those in tuples from 0. Two kinds of size are not in the shapes of any weight, so
    they have limits of their own: the side of a picture, and `heads`, which the networks check.
    """
    found = {}
    for name, kind in get_type_hints(config).items():
        if name not in values:
            raise ValueError(f"{name} is missing")
        value = values[name]
        if kind is str:
            if not isinstance(value, str):
                raise ValueError(f"{name} must be a text, not {value!r:.60}")
        elif kind is int:
            least, most = LIMITS.get(name, (1, MOST_SIZE))
            gates.whole_number(name, value, least, most)
            if name in MULTIPLES and value % MULTIPLES[name]:
                raise ValueError(f"{name} must be a multiple of {MULTIPLES[name]}, not {value}")
        else:  # tuple[int, int, int], or tuple[int, ...]
            length = None if get_args(kind)[-1] is Ellipsis else len(get_args(kind))
            if not isinstance(value, list) or length not in (None, len(value)):
                raise ValueError(f"{name} must be a list of {length or 'whole'} numbers, not {value!r:.60}")
            value = tuple(gates.whole_number(name, one, 0, MOST_SIZE) for one in value)
        found[name] = value
    return found


def save_folder(model: nn.Module, folder: Path) -> Path:
    """Writes config and fp16 weights into `folder`; returns it. Raises AssetError where nothing can be written."""
    from safetensors.torch import save_file

    tensors = {name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}
    gates.write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    gates.write_atomically(folder / CONFIG, (json.dumps(asdict(model.config)) + "\n").encode())
    return folder
