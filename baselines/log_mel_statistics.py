"""Mean and standard deviation of the log-mel spectrogram under a logistic regression: a baseline of seconds on a CPU.

An embedding has 128 numbers and covers a whole, unpadded clip. C is 1 and nothing is tuned, so no train clip is held out.
The score shows how much of a task can be solved without a learned representation.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.log_mel import LogMel
from lape_bench.learning.systems.encoder_system import (
    PROBE_SMOKE_SETTINGS,
    EncoderSystem,
    ProbeConfig,
)
from lape_bench.learning.training.linear_probe import LinearConfig
from lape_bench.system import ProtocolName


class StatisticsEncoder(Encoder):
    """Mean and population standard deviation of each band over the time of a whole clip."""

    artifact_name = "log-mel-statistics"

    whole_clip = True

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = LogMel()
        self.embedding_size = 2 * self.log_mel.config.n_mels

    def features(self, waveforms: Tensor) -> Tensor:
        """Return log-mels, shape (batch, n_mels, frames), not normalized."""
        log_mels: Tensor = self.log_mel(waveforms)
        return log_mels

    def forward(self, features: Tensor) -> Tensor:
        """Return means and standard deviations, shape (batch, 2 * n_mels)."""
        return torch.cat([features.mean(dim=2), features.std(dim=2, correction=0)], dim=1)


class StatisticsConfig(ProbeConfig):
    """A classifier on log-mel statistics."""

    linear: LinearConfig = Field(default_factory=lambda: LinearConfig(C=(1.0,)))


class LogMelStatistics(EncoderSystem):
    """The statistics under a probe; there is no encoder to fine-tune."""

    Settings: ClassVar[type[ProbeConfig]] = StatisticsConfig
    protocols: ClassVar[tuple[ProtocolName, ...]] = ("linear", "mlp", "knn")
    smoke_settings: ClassVar[dict[str, Any]] = PROBE_SMOKE_SETTINGS

    def build_encoder(self) -> StatisticsEncoder:
        """Return the encoder, which has no parameters."""
        return StatisticsEncoder()
