"""Training steps recorded as CUDA graphs: a GPU starts a thousand kernels at once, where Python starts them one by one.

What is recorded are kernels and the addresses they work on, and no Python: a step may be recorded if it does the same each
time, asks the device for no value, and changes in place what outlives it. Dropout draws anew in every replay.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UP_CALLS = 3  # of each shape, in which libraries set themselves up and the optimizer its state


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Graphed:
    """A function of tensors on a GPU that is recorded for each shape of them, and from then on replayed.

    Args:
        function: of tensors to one tensor; see the module for what it may do.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # untyped in torch
        self._pool = torch.cuda.graph_pool_handle()
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what the function does."""
        shapes = tuple(tensor.shape for tensor in inputs)
        self._calls[shapes] += 1
        if self._calls[shapes] <= WARM_UP_CALLS:
            return self._call_directly(inputs)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(inputs)
        recording = self._recordings[shapes]
        for ours, given in zip(recording.inputs, inputs, strict=True):
            ours.copy_(given)
        recording.graph.replay()
        return recording.output.clone()

    def _call_directly(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Call it on the stream of the recordings, which the nodes of its backward pass remember."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            output = self.function(*inputs)
        outside.wait_stream(self._stream)
        return output

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        graph, held = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in inputs)
        # Other threads may go on using the device: the one that moves a batch, say.
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode):
            output = self.function(*held)
        return _Recording(graph, held, output)
