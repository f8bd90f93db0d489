"""A small convolutional encoder on the log-mel spectrogram, from random weights."""

from itertools import pairwise

from lape_bench.learning.encoders.log_mel import LogMel, LogMelEncoder
from lape_bench.learning.systems.encoder_system import EncoderConfig, EncoderSystem
from pydantic import Field
from torch import Tensor, nn


class SmallConvNet(LogMelEncoder):
    """Three strided convolutions, averaged over time but not over mel bands.

    `LogMelEncoder` turns waveforms (batch, samples) into log-mels, and normalizes them with the
    statistics of the train split.

    Args:
        width: channels of the last convolution, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_mel = LogMel()  # 64 mel bands, one frame every 10 ms at 16 kHz
        self.sample_rate = self.log_mel.config.sample_rate
        self.embedding_size = width * self.log_mel.config.n_mels // 8
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                )
                for inputs, outputs in pairwise((1, width // 4, width // 2, width))
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """Turn log-mels (batch, n_mels, frames) into embeddings (batch, embedding_size)."""
        x = self.blocks(features.unsqueeze(1))  # (batch, width, n_mels / 8, frames / 8)
        embeddings: Tensor = x.mean(dim=3).flatten(1)
        return embeddings


class SmallConvNetConfig(EncoderConfig):
    """Settings of the encoder. Those of fine-tuning and the probes are inherited."""

    width: int = Field(64, ge=4, multiple_of=4, description="channels of the last convolution")


class SmallConvNetSystem(EncoderSystem):
    """The encoder under every protocol: fine-tuned, or frozen under a probe or k-NN."""

    Settings = SmallConvNetConfig
    version = 1  # raise it whenever a score could change

    def build_encoder(self) -> SmallConvNet:
        """Return the encoder; the harness seeds its random weights."""
        return SmallConvNet(self.settings.width)
