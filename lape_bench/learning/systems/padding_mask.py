"""Leave padding out of wav2vec 2.0 and its kin (HuBERT, WavLM, ...), in the code of transformers and of torchaudio.

A window is embedded as the clip in it would be alone. An attention mask is not enough for that:

- Base models normalize the output of their first convolution over time, each channel by itself. Here the statistics are those
  of the clip's own frames. transformers' documentation gives such models no mask and lets them hear zeros, since they were
  trained on unpadded audio. Here they hear unpadded audio.
- Convolutions over frames, such as those for positions, see zeros beyond the end of a clip that is alone. Both libraries put
  zeros there before the first such convolution. Biases and earlier layers have changed them before a later one.

Both are done by hooks that are removed afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lape_bench.learning.encoders.base import full_lengths

CONVOLUTIONS = "feature_extractor.conv_layers"  # over samples, in both libraries
ENCODER = "encoder"


def is_padded(waveforms: Tensor, lengths: Tensor | None) -> bool:
    """Return True if a window of shape (batch, samples) is longer than its clip; lengths are samples, shape (batch,)."""
    return lengths is not None and bool((lengths < waveforms.shape[1]).any())


def real_places(lengths: Tensor, size: int) -> Tensor:
    """Return which of `size` places come before the padding, shape (batch, size), bool; lengths have shape (batch,)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def normalize_clips(waveforms: Tensor, lengths: Tensor | None, epsilon: float) -> Tensor:
    """Normalize each clip to mean 0 and variance 1; its padding stays zero.

    Args:
        waveforms: shape (batch, samples).
        lengths: real samples of each, shape (batch,); None: all.
        epsilon: added to the variance.

    Returns:
        Shape (batch, samples).
    """
    if lengths is None:
        lengths = full_lengths(waveforms)
    return _standardized(waveforms, real_places(lengths, waveforms.shape[1]), epsilon)


def with_a_frame(model: nn.Module, lengths: Tensor) -> Tensor:
    """Return lengths in samples, shape (batch,), of which each is enough for one frame: shorter clips take zeros along."""
    samples = 1
    for convolution in reversed(_convolutions(model)):
        samples = (samples - 1) * convolution.stride[0] + convolution.kernel_size[0]
    return lengths.clamp(min=samples)


def count_frames(model: nn.Module, lengths: Tensor) -> Tensor:
    """Return how many frames a model makes of so many samples, both of shape (batch,)."""
    for convolution in _convolutions(model):
        lengths = _count_outputs(convolution, lengths)
    return lengths


def average_frames(states: Tensor, frames: Tensor | None) -> Tensor:
    """Average vectors over time.

    Args:
        states: shape (batch, time, size).
        frames: how many of them to average, shape (batch,), from the first on; None: all.

    Returns:
        Shape (batch, size).
    """
    if frames is None:
        return states.mean(dim=1)
    padding = ~real_places(frames, states.shape[1])
    return states.masked_fill(padding[..., None], 0).sum(dim=1) / frames[:, None]


@contextmanager
def padding_left_out(model: nn.Module, lengths: Tensor) -> Iterator[None]:
    """Let a model normalize and convolve, inside this block, as if no window were padded; attention is left to the caller.

    Args:
        model: with `feature_extractor.conv_layers` and `encoder`, of transformers or torchaudio.
        lengths: real samples of each window, shape (batch,), each enough for a frame.
    """
    first: Any = model.get_submodule(f"{CONVOLUTIONS}.0")
    after_first, frames = _count_outputs(first.conv, lengths), count_frames(model, lengths)

    def normalize(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        real = real_places(after_first, output.shape[2])[:, None]
        normalized = _standardized(inputs[0].float(), real, norm.eps)
        scaled: Tensor = normalized * norm.weight[:, None] + norm.bias[:, None]
        return scaled.to(output.dtype)

    def silence(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        real = real_places(frames, inputs[0].shape[2])[:, None]
        return (inputs[0].masked_fill(~real, 0), *inputs[1:])

    hooks: list[RemovableHandle] = [
        module.register_forward_pre_hook(silence)
        for module in model.get_submodule(ENCODER).modules()
        if isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1
    ]
    if isinstance(first.layer_norm, nn.GroupNorm):
        hooks.append(first.layer_norm.register_forward_hook(normalize))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _convolutions(model: nn.Module) -> list[Any]:
    layers: Any = model.get_submodule(CONVOLUTIONS)
    return [layer.conv for layer in layers]


def _count_outputs(convolution: Any, lengths: Tensor) -> Tensor:
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    return torch.div(lengths - kernel, stride, rounding_mode="floor") + 1


def _standardized(x: Tensor, real: Tensor, epsilon: float) -> Tensor:
    """Normalize over the real places of the last dimension, and set the others to zero."""
    count = real.sum(dim=-1, keepdim=True)
    mean = (x * real).sum(dim=-1, keepdim=True) / count
    centered = (x - mean) * real
    variance = centered.square().sum(dim=-1, keepdim=True) / count
    return centered / (variance + epsilon).sqrt()
