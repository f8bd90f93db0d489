"""Mean and deviation of the log-mel spectrogram, logistic regression: the floor, in seconds on a CPU.

128 numbers a clip, over the whole clip without padding; C = 1 and nothing tuned, so no clip of train is held
out. Says how far a task goes without learning a representation.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.log_mel import LogMel
from lape_bench.learning.systems.encoder_system import EncoderSystem, FrozenConfig
from lape_bench.learning.training.linear_probe import LinearConfig
from lape_bench.system import Protocol


class StatisticsEncoder(Encoder):
    """Mean and population deviation over time of each band, of whole clips."""

    artifact_name = "log-mel-statistics"

    whole_clip = True

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = LogMel()
        self.embedding_size = 2 * self.log_mel.config.bands

    def features(self, waveforms: Tensor) -> Tensor:
        """Return log-mels, shape (batch, bands, frames), not normalised."""
        log_mels: Tensor = self.log_mel(waveforms)
        return log_mels

    def forward(self, features: Tensor) -> Tensor:
        """Return means and deviations, shape (batch, 2 * bands)."""
        return torch.cat([features.mean(dim=2), features.std(dim=2, correction=0)], dim=1)


class StatisticsConfig(FrozenConfig):
    """A classifier on log-mel statistics."""

    linear: LinearConfig = Field(default_factory=lambda: LinearConfig(inverse_penalty=(1.0,)))


class LogMelStatistics(EncoderSystem):
    """The statistics under a probe; there is no encoder to fine-tune."""

    Settings: ClassVar[type[FrozenConfig]] = StatisticsConfig
    protocols: ClassVar[tuple[Protocol, ...]] = ("linear", "knn")
    brief: ClassVar[dict[str, Any]] = {}

    def build_encoder(self) -> StatisticsEncoder:
        """Return the encoder, which has no parameters."""
        return StatisticsEncoder()
