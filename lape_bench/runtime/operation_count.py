"""Counts the operations of convolutions, matrix products and attention.

The formulas are those of `torch.utils.flop_counter`. The counter of that module imports torch's compiler, which takes longer than a
probe. So it is used only if the compiler is imported already, or if the counter here cannot handle an operation.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


def count_operations(forward: Callable[[], object]) -> int:
    """Return the number of additions and multiplications in a call: two for each multiply-accumulate."""
    if "torch._dynamo" not in sys.modules:
        counter = _Counter()
        # If this counter raises an error, torch's counter repeats the call. An error of the call itself is raised again there.
        with suppress(Exception):
            with counter:
                forward()
            return counter.operations
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as full_counter:
        forward()
    operations: int = full_counter.get_total_flops()
    return operations


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Counts the operations of the block as `FlopCounterMode` does."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # slow to import

        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.operations = 0
        self._formulas = flop_registry

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, since telling the compiler to skip this class would import the compiler."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it, or the operations that it consists of."""
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.operations += formula(*args, **kwargs, out_val=result)
        return result
