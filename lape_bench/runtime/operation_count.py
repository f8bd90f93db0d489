"""Counts the operations of convolutions, matrix products and attention.

The formulas are those of `torch.utils.flop_counter`. The counter of that module imports torch's compiler, which takes longer than a
probe. So it is used only if the compiler is imported already, or if the counter here cannot handle an operation.

Neither counter has a formula for some fused kernels. Such a kernel would count as nothing, so these are off while operations are counted:
attention, the layers of `nn.TransformerEncoder` and `nn.MultiheadAttention`, and the LSTM of oneDNN and the recurrent layers of cuDNN.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch.backends import cudnn, mha, mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode


def count_operations(forward: Callable[[], object]) -> int:
    """Return the number of additions and multiplications in a call: two for each multiply-accumulate."""
    if "torch._dynamo" not in sys.modules:
        counter = _Counter()
        # If this counter raises an error, torch's counter repeats the call. An error of the call itself is raised again there.
        with suppress(Exception):
            with _fused_kernels_off(), counter:
                forward()
            return counter.operations
    from torch.utils.flop_counter import FlopCounterMode

    with _fused_kernels_off(), FlopCounterMode(display=False) as full_counter:
        forward()
    operations: int = full_counter.get_total_flops()
    return operations


@contextmanager
def _fused_kernels_off() -> Iterator[None]:
    """Compute the block by operations that a counter has formulas for."""
    libraries: Sequence[Any] = (mkldnn, cudnn)
    enabled = [library.enabled for library in libraries]
    fast_path = mha.get_fastpath_enabled()  # of transformer layers in evaluation mode
    try:
        mha.set_fastpath_enabled(False)
        for library in libraries:
            library.enabled = False  # `flags` would change other settings too
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fast_path)
        for library, before in zip(libraries, enabled, strict=True):
            library.enabled = before


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
