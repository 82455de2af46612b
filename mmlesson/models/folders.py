"""Folders of the course's own networks: config.json says what to build, model.safetensors holds the weights.

Nothing is pickled.

save_folder(model, folder)                              # `model.config` is a dataclass
model = load_folder(folder, "VQGAN", VQGAN, Config, name)    # VQGAN(Config(…), name) with the weights
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmlesson import gates
from mmlesson.gates import AssetError
from mmlesson.models import assets

if TYPE_CHECKING:
    from torch import Tensor, nn

    Network = TypeVar("Network", bound=nn.Module)

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def find_folder(name: str, pocket: str, what: str) -> Path:
    """The folder that a name stands for: `pocket` is the course's own, "local-dir:path" is any other.

    `what` is the kind of network, for error messages. Raises ValueError for another name, AssetError where the course's
    own folder is missing or damaged.
    """
    if name == pocket:
        return assets.model_dir(pocket)
    if isinstance(name, str) and name.startswith("local-dir:"):
        return Path(name.removeprefix("local-dir:")).expanduser()
    raise ValueError(f"there is no {what} {name!r}: give {pocket!r}, or 'local-dir:' and a folder.")


def load_folder(folder: Path, what: str, network: type[Network], config: type, name: str) -> Network:
    """The network of a folder: frozen, in `eval` mode, float32, on the CPU.

    The file has to hold every weight of the network and no other. Raises AssetError where files are missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for file in (folder / CONFIG, folder / WEIGHTS):
        if not file.is_file():
            raise AssetError(f"{file} is missing: the folder of a {what} holds {CONFIG} and {WEIGHTS}.")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        model = network(config(**{field.name: values[field.name] for field in fields(config)}), name)
        weights = {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
        model.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        raise AssetError(
            f"{folder} is not the folder of a {what}, or damaged ({type(error).__name__}: {error})."
        ) from error
    check_finite(weights, folder / WEIGHTS)
    return model.eval().requires_grad_(False)


def check_finite(weights: dict[str, Tensor], where: Path | str) -> None:
    """Raises AssetError where a weight is NaN or infinite: such a network answers nonsense."""
    bad = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise AssetError(f"{where} is damaged: {bad[0]} holds numbers that are not finite. Get the file again.")


def save_folder(model: nn.Module, folder: Path) -> Path:
    """Writes config and fp16 weights into `folder`; returns it. Raises AssetError where nothing can be written."""
    from safetensors.torch import save_file

    tensors = {name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}
    gates.write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    gates.write_atomically(folder / CONFIG, (json.dumps(asdict(model.config)) + "\n").encode())
    return folder
