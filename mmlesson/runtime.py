"""The machine under the lessons: device, precision, threads, seeds, progress, memory.

torch is imported inside the functions, so that importing this module costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

from mmlesson import gates

T = TypeVar("T")
LARGEST_SEED = 2**63 - 1


def device(name: str | torch.device | None = None) -> torch.device:
    """The device to compute on: `name`, or the best one here (cuda, then mps, then cpu) for None.

    Raises ValueError, with a sentence for people, where `name` is no device or none of this machine's.
    """
    import torch

    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")

    try:
        chosen = torch.device(name)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"{name!r} is not a device that the course runs on: use {_devices_here()}, or leave it out.")
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ValueError(
                f"This machine has no CUDA GPU that torch can use: use {_devices_here()} instead of {name!s}."
            )
        if (chosen.index or 0) >= count:
            raise ValueError(f"There is no GPU number {chosen.index} here; the last one is cuda:{count - 1}.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            f"This machine has no Apple GPU that torch can use: use {_devices_here()} instead of {name!s}."
        )
    return chosen


def _devices_here() -> str:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return " or ".join(found)


def fast_bf16(device: torch.device | str) -> bool:
    """True where `device` computes bfloat16 in hardware, so that it is faster than float32 and not emulated."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        # oneDNN asks the ARM processor itself; on x86 it says yes to any AVX-512, also where bf16 is emulated
        try:
            return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        except (AttributeError, RuntimeError):
            return False
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, question, bool)()) for question in questions)


def autocast(device: torch.device | str, enabled: bool = True) -> contextlib.AbstractContextManager:
    """A context in which convolutions and matrix products run in bfloat16, where that is faster; float32 elsewhere.

    With `enabled=False`, or on a machine without bfloat16 in hardware, nothing changes precision inside
    (an autocast around it is switched off too). Parameters stay float32; no loss scaling is needed.
    """
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled and fast_bf16(device))


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator on `device` that starts from `seed`: every random number of the course comes from one.

    Raises ValueError where `seed` is not a whole number of 0…2**63-1.
    """
    import torch

    return torch.Generator(device=device).manual_seed(gates.whole_number("a seed", seed, 0, LARGEST_SEED))


def warn(message: str) -> None:
    """A UserWarning that points at the line which called the caller's file; frames of torch and tqdm do not count."""
    frame, level, own = sys._getframe(1), 2, sys._getframe(1).f_code.co_filename
    while frame.f_back and (
        frame.f_code.co_filename == own or frame.f_globals.get("__name__", "").startswith(("torch.", "tqdm."))
    ):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def set_threads(n: int | None = None) -> int:
    """Make torch compute on `n` threads; returns the number set.

    None takes OMP_NUM_THREADS where it is set, else the processor cores that this process may use
    (two hyper-threads of one core gain nothing for matrix products).
    Raises ValueError where `n` is no whole number of 1 or more.
    """
    import torch

    n = _default_threads() if n is None else gates.whole_number("the number of threads", n, 1)
    torch.set_num_threads(n)
    return n


def _default_threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isascii() and asked.isdigit() and int(asked) > 0:
        return int(asked)
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def progress(
    iterable: Iterable[T],
    total: int | None = None,
    description: str = "",
    unit: str = "it",
    after: float = 2.0,
) -> Iterator[T]:
    """Yields from `iterable`, with a progress bar on stderr if that takes longer than `after` seconds.

    `total` is the number of items, `len(iterable)` where it has one. The bar goes away at the end.
    It is text also in a notebook: a bar made of widgets would leave its state in the saved file.
    """
    from tqdm import tqdm

    with tqdm(
        iterable,
        total=total,
        desc=description or None,
        unit=unit,
        delay=after,
        leave=False,
        mininterval=0.5,
        file=sys.stderr,
    ) as bar:
        yield from bar


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Inside, what compiled libraries write to standard error is lost. Python's own messages and errors are not."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def peak_memory_gb() -> float:
    """The most memory that this process ever held at once, in GB (10**9 bytes), as the operating system counted it."""
    if sys.platform == "linux":
        # not getrusage: after fork and exec, ru_maxrss still holds the parent's peak
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e9
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
