"""Import a plug-in so that it neither changes the process nor depends on what the process did before.

A script for inference may turn gradients off or choose another default dtype when it starts. Both hold for the whole
process, so every other system would fail or compute other numbers. A module that draws random numbers when it is
imported has to draw the same ones in every process, since they are a part of the system.
"""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

SEED = 0
TORCH_SEED = 67280421310721  # with which torch starts, so that it does not matter who imports it


@contextmanager
def isolated_import() -> Iterator[None]:
    """Start the global random generators from a fixed state, and restore them, and torch's default dtype and gradient
    mode, after the block. torch is not imported for this.
    """
    before = _defaults() or ("float32", True)  # as torch starts, if the block imports it
    states = random.getstate(), np.random.get_state(), _torch_state()
    random.seed(SEED)
    np.random.seed(SEED)
    if states[2] is not None:
        sys.modules["torch"].default_generator.manual_seed(TORCH_SEED)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if (torch := _torch()) is not None:
            if states[2] is not None:
                torch.random.set_rng_state(states[2])
            if _defaults() != before:
                torch.set_default_dtype(getattr(torch, before[0]))
                torch.set_grad_enabled(before[1])


def _torch() -> Any:
    """Return torch; None if it has not been imported, or if its import has failed."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_default_dtype") else None


def _torch_state() -> Any:
    torch = _torch()
    return None if torch is None else torch.random.get_rng_state()


def _defaults() -> tuple[str, bool] | None:
    """Return the name of the default dtype and whether gradients are on; None without torch."""
    torch = _torch()
    if torch is None:
        return None
    return str(torch.get_default_dtype()).removeprefix("torch."), torch.is_grad_enabled()
