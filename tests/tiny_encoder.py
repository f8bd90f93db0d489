"""An encoder that trains in no time, on windows of 96 samples."""

import torch
from torch import Tensor, nn

from lape_bench.learning.encoders.base import Encoder

RATE, WINDOW_SECONDS, SHAPE = 100, 0.96, (9, 6)  # of its audio, its windows, its features


class Tiny(Encoder):
    """Logarithms of six short spectra, one layer, batch norm and dropout."""

    sample_rate = RATE
    embedding_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(54, 8), nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.1)

    def features(self, waveforms: Tensor) -> Tensor:
        frames = waveforms.reshape(len(waveforms), 6, 16)
        return torch.log(torch.fft.rfft(frames).abs() + 0.1).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.drop(self.norm(self.linear(features.flatten(1))))
        return embeddings
