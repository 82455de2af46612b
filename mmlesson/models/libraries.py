"""open_clip and timm, imported without torch's compiler: `from mmlesson.models.libraries import open_clip, timm`.

When they are imported, torchvision asks torch's compiler (`torch._dynamo`) for one function, and timm for another.
Importing the compiler takes about as long as all the rest, and nothing in this package compiles a network. So
placeholders stand in its place meanwhile. Afterwards the compiler can be imported as ever.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator

COMPILER, PART = "torch._dynamo", "torch._dynamo.utils"


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Placeholders for the compiler, where it is not imported yet."""
    import torch

    if COMPILER in sys.modules:
        yield
        return
    compiler, part = types.ModuleType(COMPILER), types.ModuleType(PART)
    compiler.__path__ = []  # it has modules in it
    compiler.utils = part
    compiler.disable = _as_it_is
    part.is_compile_supported = _is_compile_supported
    sys.modules |= {COMPILER: compiler, PART: part}
    torch._dynamo = compiler
    try:
        yield
    finally:
        for name in (COMPILER, PART):
            sys.modules.pop(name, None)
        del torch._dynamo


def _as_it_is(function=None, *_, **__):
    """In place of `torch._dynamo.disable`, which keeps a function from being compiled: nothing is compiled here."""
    return _as_it_is if function is None else function


def _is_compile_supported(device: str) -> bool:
    """The compiler's own answer, when somebody asks."""
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device)


try:
    with without_compiler():
        import open_clip
        import timm
except (AttributeError, ImportError):  # a version that asks the compiler for more; or one of them is not installed
    import open_clip
    import timm

__all__ = ["open_clip", "timm"]
