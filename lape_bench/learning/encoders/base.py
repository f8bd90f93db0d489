"""Encoders: log-mel spectrograms in, one embedding a clip out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lape_bench.core.errors import UserError


class Encoder(nn.Module, ABC):
    """What a protocol needs of an encoder: waveforms to features to embeddings.

    Views work on the features in between.

    Attributes:
        sample_rate: Hz, of the waveforms.
        embedding_size: numbers in an embedding.
        whole_clip: true where clips are embedded whole and unpadded, whatever the task's window.
        cuda_graphable: true where its training may be recorded as a CUDA graph (see `cuda_graph`): Python decides nothing in
            `forward`, and `features` has no parameter.
        artifact_name: what cached embeddings of exactly this class are named by; without one, its module and name.
    """

    artifact_name: ClassVar[str]
    sample_rate: int = 16_000
    embedding_size: int
    whole_clip: bool = False
    cuda_graphable: bool = False

    @abstractmethod
    def features(self, waveforms: Tensor) -> Tensor:
        """Turn waveforms of shape (batch, samples) into features (batch, ...)."""

    def features_at(self, waveforms: Tensor, gains: Tensor) -> Tensor:
        """Turn each waveform, at several levels, into features.

        Args:
            waveforms: shape (batch, samples).
            gains: factors of them, shape (levels, batch).

        Returns:
            Shape (levels * batch, ...), all of the first level first.
        """
        return self.features((gains[:, :, None] * waveforms).flatten(0, 1))

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Turn features into embeddings of shape (batch, embedding_size)."""

    @torch.no_grad()
    def feature_shape(self, window_seconds: float) -> tuple[int, ...]:
        """Return the shape of one window's features, without the batch."""
        device = next(self.buffers(), next(self.parameters(), torch.empty(0))).device
        samples = round(window_seconds * self.sample_rate)
        return tuple(self.features(torch.zeros(1, samples, device=device)).shape[1:])

    def fit_features(self, batches: Iterable[Tensor]) -> None:
        """Take normalization statistics from train waveforms, (batch, samples) each; by default none."""


def is_positive_integer(value: object) -> bool:
    """Tell whether a value that a stranger's encoder gives can be a rate or a size: a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    return bool(1 <= value < np.inf and int(value) == value)


def check_embeddings(
    found: object, wanted: tuple[int, int], whose: str, size: str = "embedding_size"
) -> Tensor:
    """Take what a stranger's encoder gives, as float32.

    Args:
        found: what it gave for some windows.
        wanted: windows and embedding size.
        whose: what gave it, in messages.
        size: what the embedding size is called there.

    Raises:
        UserError: it is no tensor, or of another shape; the usual cure is told.
    """
    allowed = f"a tensor of shape {wanted}, (batch, {size})"
    if not isinstance(found, Tensor):
        raise UserError(f"{whose} turned windows into a {type(found).__name__}", allowed=allowed)
    shape = tuple(found.shape)
    if shape != wanted:
        if len(shape) < 2:
            cure = "leave out squeeze(), which drops a batch of one"
        elif len(shape) > 2:
            cure = "pool over time, such as by .mean(dim=-1)"
        else:
            cure = f"make {size} the number that it gives, and keep batch and time apart"
        raise UserError(
            f"{whose} turned {wanted[0]} windows into a tensor of shape {shape}",
            allowed=allowed,
            next_step=cure,
        )
    return found.float()
