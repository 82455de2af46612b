"""The files of a model folder are read here. A folder may come from anywhere, so nothing is believed before its check.

    values = read_object(folder / "config.json")     # JSON: an object, of bounded size
    shapes = read_shapes(weights)                    # from the header of safetensors: no weight is read yet
    with no_more_than(shapes):                       # a network that is larger than its weights is never built
        model = Network(...)
    fill(model, weights, "VQGAN")                    # every weight and no other, of its shape, finite

Everything here raises AssetError with the name of the file and what to do. Nothing is unpickled, no pipe or device is
opened, and no more memory is taken than the files themselves need.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates, words
from mmlesson.gates import AssetError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Shapes = dict[str, tuple[str, tuple[int, ...]]]  # by name: the dtype as safetensors writes it, and the shape

LARGEST_JSON = 20 * 10**6  # bytes; a tokenizer's vocabulary takes a few million
FLOATS = ("F16", "BF16", "F32", "F64")  # dtypes of weights, as safetensors names them
AGAIN = "get the folder again"  # what to do about a damaged file

# Building a network also makes numbers that no file holds, such as masks: so many more are allowed, 200 MB of float32.
SPARE_NUMBERS = 50_000_000
NOT_SMALL = 100_000_000  # numbers: from here on the free memory is looked at first


def short(error: BaseException | str) -> str:
    """The first line of an error, at most 160 letters, with the kind of error where that says more.

    Without the places in a library's own source that some libraries name.
    """
    # cut first: looking for places takes a time that grows with the cube of the length, and a message repeats its input
    lines = words.without_places(str(error).strip()[:500]).splitlines()
    text = lines[0] if lines else ""
    if len(lines) > 1 and text.endswith(":"):
        text = f"{text} {lines[1].strip()}"  # torch's list of what does not fit begins in the second line
    text = text if len(text) <= 160 else text[:160] + "…"
    bare = isinstance(error, (KeyError, StopIteration, AssertionError, MemoryError, RecursionError)) or not text
    return f"{type(error).__name__}: {text}".rstrip(": ") if bare and isinstance(error, BaseException) else text


# ------------------------------------------------------------------------------------------------- JSON


def read_object(path: Path, missing: str = "") -> dict:
    """The JSON object in a file. `missing` says what the folder holds, for the error where the file is not there.

    Raises AssetError where the file is missing, is no file, is too large, or holds anything but one object: also where
    it is nested too deeply, or holds NaN, which is not JSON.
    """
    try:
        with gates.open_file(path) as file:
            text = file.read(LARGEST_JSON + 1)
        if len(text) > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON // 10**6} MB")
        values = json.loads(text.decode("utf-8"), parse_constant=_no_number)
        if not isinstance(values, dict):
            raise ValueError("it holds no object, which would begin with {")
    except FileNotFoundError:
        raise AssetError(f"{path} is missing: {missing or AGAIN}.") from None
    except OSError as error:
        raise AssetError(f"{path} cannot be read ({gates.reason(error)}): {AGAIN}.") from error
    except RecursionError as error:
        raise AssetError(f"{path} is damaged (it is nested too deeply): {AGAIN}.") from error
    except ValueError as error:
        raise AssetError(f"{path} is damaged ({short(error)}): {AGAIN}.") from error
    return values


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


# ---------------------------------------------------------------------------------------------- weights


def read_shapes(path: Path, missing: str = "") -> Shapes:
    """The names, dtypes and shapes of the tensors of a safetensors file, from its header alone.

    `missing` is as in `read_object`. Raises AssetError where the file is missing, is no file, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        gates.open_file(path).close()
        shapes = {}
        with safe_open(path, "np") as file:  # checks the header: its size, its JSON, and that it covers the whole file
            for name in file.keys():  # noqa: SIM118 (a safetensors file is no dict)
                part = file.get_slice(name)
                shapes[name] = (part.get_dtype(), tuple(part.get_shape()))
        if not shapes:
            raise ValueError("it holds no weights")
    except FileNotFoundError:
        raise AssetError(f"{path} is missing: {missing or AGAIN}.") from None
    except OSError as error:
        raise AssetError(f"{path} cannot be read ({gates.reason(error)}): {AGAIN}.") from error
    except (ValueError, SafetensorError) as error:
        raise AssetError(f"{path} is damaged, or no safetensors ({short(error)}): {AGAIN}.") from error
    _check_memory(shapes, path)
    return shapes


def _check_memory(shapes: Shapes, path: Path) -> None:
    """Raises AssetError where the weights do not fit into the memory that is free."""
    numbers = _numbers(shapes)
    if numbers < NOT_SMALL:
        return
    import psutil

    needed = 2 * 4 * numbers  # bytes: the file's and the network's, float32
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if needed > free:
        raise AssetError(
            f"{path} holds {numbers / 1e6:,.0f} million weights. Loading them takes {needed / 1e9:,.0f} GB of memory, "
            f"and {free / 1e9:,.1f} GB are free: close other programs, or choose a smaller model."
        )


def _numbers(shapes: Shapes) -> int:
    return sum(math.prod(shape) for _, shape in shapes.values())


class TooLargeError(ValueError):
    """A configuration describes a network that is larger than its weights."""

    def __init__(self) -> None:
        super().__init__("the configuration describes a larger network than the weights are for")


@contextmanager
def no_more_than(shapes: Shapes) -> Iterator[None]:
    """A context in which a network may be built that the weights of `shapes` can fill, and no larger one.

    A configuration is a few letters, and it can ask for a trillion weights or a billion layers. Sizes are not estimated
    from it, because every kind of network would need its own formula. Instead every tensor that torch is asked to make
    in here is counted before it is made: all together may hold four times the numbers of the weights, and some more for
    what no file holds. Raises TooLargeError.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    sized = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye, torch.empty_strided}
    ranges = {torch.arange, torch.linspace, torch.logspace}

    class Allowance(TorchFunctionMode):
        numbers = 4 * _numbers(shapes) + SPARE_NUMBERS
        tensors = 20 * len(shapes) + 5_000

        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if function in sized or function in ranges:
                self.tensors -= 1
                self.numbers -= _asked(args, kwargs, function in ranges)
                if self.numbers < 0 or self.tensors < 0:
                    raise TooLargeError
            return function(*args, **kwargs)

    with Allowance():
        yield


def _asked(args: tuple, kwargs: dict, is_range: bool) -> int:
    """How many numbers a tensor would hold, at most; 0 where the arguments make no sense, and torch says so."""
    found = kwargs.get("size", args[0] if args and isinstance(args[0], (tuple, list)) else args)
    whole = [abs(value) for value in found if isinstance(value, int)] if isinstance(found, (tuple, list)) else []
    if is_range:
        return max([*whole, *(abs(value) for value in kwargs.values() if isinstance(value, int))], default=0)
    return math.prod(whole) if whole else 0


def fill(model: nn.Module, path: Path, what: str) -> None:
    """Put the weights of a safetensors file into a network, as float32; whole numbers stay whole.

    The file has to hold every weight of the network and no other, each of its shape, and finite. Raises AssetError
    otherwise; `what` names the kind of network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    shapes, own = read_shapes(path), model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in shapes]
    wrong += [f"{name} is not a part of it" for name in shapes if name not in own]
    for name, (dtype, shape) in shapes.items():
        if name not in own:
            continue
        if shape != tuple(own[name].shape):
            wrong.append(f"{name} is {list(shape)} and not {list(own[name].shape)}")
        elif own[name].is_floating_point() and dtype not in FLOATS:
            wrong.append(f"{name} holds {dtype}, which are no weights")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise AssetError(
            f"{path} is damaged, or does not fit the configuration of the {what} ({wrong[0][:160]}{more}): {AGAIN}."
        )
    try:
        weights = {name: value.to(own[name].dtype) for name, value in load_file(path).items()}
        model.load_state_dict(weights)
    except (OSError, RuntimeError, ValueError, MemoryError, SafetensorError) as error:
        raise AssetError(f"{path} cannot be read ({short(error)}): {AGAIN}.") from error
    check_finite(weights, path)


def check_kinds(model: nn.Module, shapes: Shapes) -> None:
    """Raises ValueError where weights of a file are no floating-point numbers; torch would convert them silently.

    For networks that a library fills; `fill` checks this too. `shapes` are those of the file.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and name in shapes and shapes[name][0] not in FLOATS:
            raise ValueError(f"{name} holds {shapes[name][0]}, which are no weights")


def check_finite(weights: dict[str, Tensor], where: Path | str) -> None:
    """Raises AssetError where a weight is NaN or infinite: such a network answers nonsense."""
    bad = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise AssetError(f"{where} is damaged: {bad[0]} holds numbers that are not finite. Get the file again.")
