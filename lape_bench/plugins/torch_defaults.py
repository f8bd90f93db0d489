"""Keep torch's defaults while a plug-in is imported.

A script for inference may turn gradients off or choose another default dtype when it starts. Both hold for the whole
process, so every other system would fail or compute other numbers.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_defaults_kept() -> Iterator[None]:
    """Restore torch's default dtype and gradient mode after the block. torch is not imported for this."""
    before = _defaults() or ("float32", True)  # as torch starts, if the block imports it
    try:
        yield
    finally:
        if (torch := sys.modules.get("torch")) is not None and _defaults() != before:
            torch.set_default_dtype(getattr(torch, before[0]))
            torch.set_grad_enabled(before[1])


def _defaults() -> tuple[str, bool] | None:
    """Return the name of the default dtype and whether gradients are on; None if torch has not been imported."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_dtype"):  # or its import has failed
        return None
    return str(torch.get_default_dtype()).removeprefix("torch."), torch.is_grad_enabled()
