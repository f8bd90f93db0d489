"""Training steps recorded as CUDA graphs, so that a GPU starts all kernels of a step at once.

A recording holds kernels and the addresses that they work on, and no Python code. A step may be recorded if it does the same
each time, reads no value back from the device, and changes in place whatever outlives it. Dropout draws new numbers in every
replay.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UP_CALLS = 3  # with each shape, so that libraries and the optimizer initialize their state


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Graphed:
    """A function on a GPU that is recorded once for each combination of input shapes, and replayed from then on.

    Args:
        function: from tensors to one tensor; the module's docstring says what it may do.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # untyped in torch
        self._pool = torch.cuda.graph_pool_handle()
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return a copy of the function's output."""
        shapes = tuple(tensor.shape for tensor in inputs)
        self._calls[shapes] += 1
        if self._calls[shapes] <= WARM_UP_CALLS:
            return self._call_directly(inputs)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(inputs)
        recording = self._recordings[shapes]
        for static, value in zip(recording.inputs, inputs, strict=True):
            static.copy_(value)
        recording.graph.replay()
        return recording.output.clone()

    def _call_directly(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Call the function on the stream of the recordings, which its backward pass then uses too."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            output = self.function(*inputs)
        outside.wait_stream(self._stream)
        return output

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        graph, static_inputs = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in inputs)
        # Other threads may go on using the device: the one that moves a batch, say.
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode):
            output = self.function(*static_inputs)
        return _Recording(graph, static_inputs, output)
