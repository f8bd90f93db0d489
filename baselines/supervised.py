"""Random start, fine-tuned with the labels: the line every claim of pre-training is measured from.

AudioNTT (BYOL-A v1, arXiv:2103.06695) from random weights, Adam at 1e-3 with a cosine, the family's views as
augmentation. Under `linear` and `knn` the encoder stays random, which is the floor of a frozen encoder.
"""

from typing import ClassVar

from pydantic import Field
from torch import nn

from lape_bench.learning.augment import Views
from lape_bench.learning.downstream import EncoderConfig, EncoderSystem, FrozenConfig
from lape_bench.learning.encoders import AudioNTT


class SupervisedConfig(EncoderConfig):
    """AudioNTT without pre-training."""

    width: int = Field(2048, ge=8, description="d of AudioNTT, the size of its embedding")


class Supervised(EncoderSystem):
    """AudioNTT from random weights."""

    Settings: ClassVar[type[FrozenConfig]] = SupervisedConfig

    def build_encoder(self) -> AudioNTT:
        """Return a new AudioNTT."""
        return AudioNTT(self.settings.width)

    def build_views(self, shape: tuple[int, ...], clips: int) -> nn.Module:
        """Return log-mixup-exp and random resize crop."""
        bands, frames = shape
        return Views((bands, frames), clips)
