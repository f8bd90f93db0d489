"""The interface of encoders: waveforms to features, and features to one embedding per window.

A clip that is shorter than a window is zero-padded. Most encoders hear the padding: they are given `features(waveforms)` and
`forward(features)`. An encoder that can leave it out says `uses_lengths = True`, and is given the real samples of each window:

    def features(self, waveforms, lengths=None): ...
    def forward(self, features, lengths=None): ...

`lengths` has shape (batch,), int64, on the device of the waveforms. The clip is then at the start of its window and the
zeros follow it, so that a mask is `torch.arange(samples) < lengths[:, None]`. None means that no window is padded. The
embedding of a padded clip must be that of the clip alone; `bench systems check` compares them. In pre-training lengths
are not given.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lape_bench.core.errors import UserError

# A smaller number is probably in kHz, and no recording has a larger one.
SLOWEST_HZ, FASTEST_HZ = 1_000, 400_000


class Encoder(nn.Module, ABC):
    """An encoder in two steps: waveforms to features, and features to embeddings. Augmentation works on the features.

    Attributes:
        sample_rate: of the waveforms, in Hz.
        embedding_size: numbers in an embedding.
        layer_sizes: sizes of the outputs of its blocks, for those whose `with_layers` returns them.
        n_layers: number of layers whose embeddings are concatenated in one; linear evaluation learns their weighted sum.
        whole_clip: true if clips are embedded whole and unpadded, whatever the task's window.
        uses_lengths: true if `features` and `forward` take the real samples of each window as a second argument.
        cuda_graphable: true if a training step may be recorded as a CUDA graph (see `cuda_graph`): `forward` takes no
            decision in Python, and `features` has no trainable parameter.
        artifact_name: the name of exactly this class in the keys of cached embeddings, so that it may move; by default module
            and class name.
    """

    artifact_name: ClassVar[str]
    sample_rate: int = 16_000
    embedding_size: int
    layer_sizes: tuple[int, ...] = ()
    n_layers: int = 1
    whole_clip: bool = False
    uses_lengths: bool = False
    cuda_graphable: bool = False

    @abstractmethod
    def features(self, waveforms: Tensor) -> Tensor:
        """Turn waveforms of shape (batch, samples) into features of shape (batch, ...)."""

    def features_at(self, waveforms: Tensor, gains: Tensor, *lengths: Tensor) -> Tensor:
        """Turn each waveform into features at several gains.

        Args:
            waveforms: shape (batch, samples).
            gains: factors of the amplitude, shape (gains, batch).
            lengths: as `length_arguments`.

        Returns:
            Shape (gains * batch, ...): all clips at their first gain, then all at the second, and so on.
        """
        several = (known.repeat(len(gains)) for known in lengths)
        return self.features((gains[:, :, None] * waveforms).flatten(0, 1), *several)

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Turn features into embeddings of shape (batch, embedding_size)."""

    def with_layers(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Turn features into embeddings, and return outputs of blocks too, each of shape (batch, size); by default none."""
        return self(features), ()

    def length_arguments(self, lengths: Tensor) -> tuple[Tensor, ...]:
        """Return what `features` and `forward` take after their first argument: the lengths, or nothing.

        Args:
            lengths: real samples of each window, shape (batch,), int64, on the device of the waveforms.
        """
        return (lengths,) if self.uses_lengths else ()

    @torch.no_grad()
    def feature_shape(self, window_seconds: float) -> tuple[int, ...]:
        """Return the shape of one window's features, without the batch dimension."""
        device = next(self.buffers(), next(self.parameters(), torch.empty(0))).device
        samples = round(window_seconds * self.sample_rate)
        return tuple(self.features(torch.zeros(1, samples, device=device)).shape[1:])

    def layers_of_parameters(self) -> list[list[nn.Parameter]]:
        """Return its parameters by layer, from the input on, for learning rates that decay by layer; by default one layer."""
        return [[*self.parameters()]]

    def fit_features(self, batches: Iterable[Tensor]) -> None:
        """Fit the normalization of the features to train waveforms, each of shape (batch, samples); by default nothing."""


def full_lengths(waveforms: Tensor) -> Tensor:
    """Return the lengths of windows that are not padded, shape (batch,), int64."""
    return waveforms.new_full((len(waveforms),), waveforms.shape[1], dtype=torch.long)


def is_positive_integer(value: object) -> bool:
    """Return True if a plug-in's value can be a sample rate or a size: a whole number above 0, of any numeric type."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    return bool(1 <= value < np.inf and int(value) == value)


def check_sample_rate(value: int, encoder: str) -> None:
    """Refuse a rate that no audio has, such as one in kHz.

    Raises:
        UserError: see above; it names the encoder.
    """
    if not SLOWEST_HZ <= value <= FASTEST_HZ:
        raise UserError(
            f"sample_rate of {encoder} is {value:,}",
            allowed=f"{SLOWEST_HZ:,} to {FASTEST_HZ:,} Hz, such as 16_000",
        )


def check_embeddings(
    output: object, shape: tuple[int, int], source: str, size: str = "embedding_size"
) -> Tensor:
    """Check the embeddings that a plug-in's encoder returned, and return them as float32.

    Args:
        output: what the encoder returned.
        shape: the expected shape, (windows, embedding size).
        source: what returned it, for the error message.
        size: the name of the embedding size there.

    Raises:
        UserError: it is not a tensor, is complex, or has another shape; the message says what usually helps.
    """
    allowed = f"a tensor of shape {shape}, (batch, {size})"
    if not isinstance(output, Tensor):
        next_step = "return torch.from_numpy(array)" if isinstance(output, np.ndarray) else ""
        raise UserError(
            f"{source} turned windows into a {type(output).__name__}",
            allowed=allowed,
            next_step=next_step,
        )
    if output.is_complex():
        raise UserError(
            f"{source} turned windows into complex numbers",
            allowed="real numbers",
            next_step="return their absolute values, or torch.view_as_real(output).flatten(1)",
        )
    returned = tuple(output.shape)
    if returned != shape:
        if len(returned) < 2:
            next_step = "leave out squeeze(), which drops a batch of one"
        elif len(returned) > 2:
            next_step = "pool over time, such as by .mean(dim=-1)"
        else:
            next_step = f"make {size} the number that it gives, and keep batch and time apart"
        raise UserError(
            f"{source} turned {shape[0]} windows into a tensor of shape {returned}",
            allowed=allowed,
            next_step=next_step,
        )
    return output.float()
