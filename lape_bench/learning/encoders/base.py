"""Encoders: log-mel spectrograms in, one embedding a clip out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lape_bench.core.errors import UserError
from lape_bench.learning.encoders.folded_batch_norm import FoldedBatchNorm
from lape_bench.learning.encoders.log_mel import LogMel, LogMelConfig


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


def is_whole(value: object) -> bool:
    """Tell whether a value that a stranger's encoder gives can be a rate or a size: a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    return bool(1 <= value < np.inf and int(value) == value)


def as_embeddings(
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


class LogMelEncoder(Encoder):
    """An encoder whose features are log-mels, shape (batch, n_mels, frames)."""

    log_mel: LogMel

    def features(self, waveforms: Tensor) -> Tensor:
        """Return normalized log-mels."""
        log_mels: Tensor = self.log_mel(waveforms)
        return log_mels

    def features_at(self, waveforms: Tensor, gains: Tensor) -> Tensor:
        """Return normalized log-mels at several levels, from one spectrum of each waveform."""
        log_mels: Tensor = self.log_mel(waveforms, gains)
        return log_mels

    def fit_features(self, batches: Iterable[Tensor]) -> None:
        """Normalize by the mean and deviation of all train frames."""
        self.log_mel.fit(batches)


class AudioNTT(LogMelEncoder):
    """The encoder of BYOL-A v1 (arXiv:2103.06695) and LAPE.

    Three blocks of 3x3 convolution with 64 channels, batch norm, ReLU and 2x2 max-pooling; each time step
    then passes two linear layers of `width`, and time is pooled by maximum plus mean.

    Args:
        width: d, the size of the embedding.
        log_mel: the front end; bands must be a multiple of 8.
        dropout: between the two linear layers.
    """

    artifact_name = "audio-ntt"

    CHANNELS = 64
    cuda_graphable = True

    def __init__(
        self, width: int = 2048, log_mel: LogMelConfig | None = None, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.log_mel = LogMel(log_mel)
        self.sample_rate = self.log_mel.config.sample_rate
        self.embedding_size = width
        channels = self.CHANNELS
        # The published order is ReLU, max-pool: the same function, and four times the work for ReLU.
        self.blocks = nn.ModuleList([FoldedBatchNorm(channels, nn.MaxPool2d(2), nn.ReLU())])
        self.blocks.extend(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.MaxPool2d(2),
                nn.ReLU(),
            )
            for _ in range(2)
        )
        # What convolutions are fast in on a CPU, and on a GPU in bf16.
        self.blocks.to(memory_format=torch.channels_last)
        self.steps = nn.Sequential(
            nn.Linear(channels * self.log_mel.config.n_mels // 8, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Embed log-mels of shape (batch, n_mels, frames), of at least 8 frames."""
        return self._pooled(self._blocks(features)[-1])

    def with_layers(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embed log-mels and keep what the blocks saw.

        Returns:
            The embedding, as of `forward`, and each block's output averaged over time, shapes
            (batch, size) with the sizes of `layer_sizes`.
        """
        outputs = self._blocks(features)
        layers = tuple(output.mean(dim=3).flatten(1) for output in outputs)
        return self._pooled(outputs[-1]), layers

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Channels times bands after each block: 2048, 1024 and 512 with 64 bands."""
        n_mels = self.log_mel.config.n_mels
        return tuple(self.CHANNELS * (n_mels >> k) for k in range(1, len(self.blocks) + 1))

    def _blocks(self, features: Tensor) -> list[Tensor]:
        """Return each block's output, shape (batch, channels, n_mels / 2^k, frames / 2^k)."""
        x = features.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs

    def _pooled(self, output: Tensor) -> Tensor:
        x = output.permute(0, 3, 2, 1).flatten(2)  # (batch, frames / 8, n_mels / 8 * channels)
        x = self.steps(x)
        pooled: Tensor = x.amax(dim=1) + x.mean(dim=1)
        return pooled
