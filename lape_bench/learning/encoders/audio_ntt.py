"""AudioNTT: the convolutional encoder of BYOL-A v1 (arXiv:2103.06695) and LAPE."""

import torch
from torch import Tensor, nn

from lape_bench.learning.encoders.folded_batch_norm import FoldedBatchNorm
from lape_bench.learning.encoders.log_mel import LogMel, LogMelConfig, LogMelEncoder


class AudioNTT(LogMelEncoder):
    """The encoder of BYOL-A v1 (arXiv:2103.06695) and LAPE.

    Three blocks of a 3 x 3 convolution with 64 channels, batch norm, ReLU and 2 x 2 max-pooling. Each time step then passes
    two linear layers of `width`, and the steps are pooled by maximum plus mean.

    LAPE's code pools so in pre-training, and by the mean alone when it classifies. Here the pooling is the same in both, as in
    BYOL-A, so that a classifier gets the embedding that was trained.

    A clip that is shorter than a window is zero-padded on both sides, and the padding is heard: its steps enter the maximum and
    the mean, as in BYOL-A's own evaluation. So the encoder does not use lengths.

    Args:
        width: d, the size of the embedding.
        log_mel: settings of the front end; the number of bands must be a multiple of 8.
        dropout: probability of dropout between the two linear layers.
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
        channels, n_mels = self.CHANNELS, self.log_mel.config.n_mels
        # Channels times bands of each block's output: 2048, 1024 and 512 with 64 bands.
        self.layer_sizes = tuple(channels * (n_mels >> halvings) for halvings in (1, 2, 3))
        # Published is ReLU before max-pooling: the same function, and four times the work for ReLU.
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
        # Convolutions are fastest in this layout on a CPU, and on a GPU in bf16.
        self.blocks.to(memory_format=torch.channels_last)
        self.steps = nn.Sequential(
            nn.Linear(channels * n_mels // 8, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Embed log-mels of shape (batch, n_mels, frames) with at least 8 frames: shape (batch, width)."""
        return self._pooled(self._blocks(features)[-1])

    def with_layers(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embed log-mels, and return the outputs of the blocks too.

        Args:
            features: log-mels, shape (batch, n_mels, frames).

        Returns:
            The embeddings of `forward`, and each block's output averaged over time, shape (batch, size) with the sizes of
            `layer_sizes`.
        """
        outputs = self._blocks(features)
        layers = tuple(output.mean(dim=3).flatten(1) for output in outputs)
        return self._pooled(outputs[-1]), layers

    def layers_of_parameters(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each block, and of the linear layers."""
        return [[*part.parameters()] for part in (*self.blocks, self.steps)]

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
