"""What a cell found when it first ran, so that a second run begins as the first one did.

A cell that trains a network, or draws random numbers, leaves it changed: run twice, it would go on training. So the
weights of networks that learn, and the states of random generators, are kept before the first run and put back before
each later one. They change in place: whatever else holds the network holds the restored one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

Restore = Callable[[], None]


def kept(variables: Mapping, names: Iterable[str]) -> list[Restore]:
    """Keep what the variables of these names hold now; returns functions that put it back."""
    found = [_kept(variables[name]) for name in sorted(names) if name in variables]
    return [restore for restore in found if restore is not None]


def _kept(value) -> Restore | None:
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    if "torch.Module" in kinds and any(weights.requires_grad for weights in value.parameters()):
        weights = copy.deepcopy(value.state_dict())
        return lambda: value.load_state_dict(weights)
    if "torch.Generator" in kinds:
        state = value.get_state()
        return lambda: value.set_state(state)
    if "numpy.Generator" in kinds:
        numbers = copy.deepcopy(value.bit_generator.state)
        return lambda: setattr(value.bit_generator, "state", numbers)
    return None
