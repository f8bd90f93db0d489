"""Systems of the family: AudioNTT under the protocols, with BYOL-A's views as augmentation."""

from typing import ClassVar

from pydantic import Field
from torch import nn

from lape_bench.learning.augment import Views
from lape_bench.learning.downstream import EncoderConfig, EncoderSystem, FrozenConfig
from lape_bench.learning.encoders import AudioNTT


class AudioNTTConfig(EncoderConfig):
    """Settings of a system whose encoder is AudioNTT."""

    width: int = Field(2048, ge=8, description="d of AudioNTT, the size of its embedding")


class AudioNTTSystem(EncoderSystem):
    """AudioNTT (BYOL-A v1, arXiv:2103.06695), from random weights unless a subclass learns them."""

    Settings: ClassVar[type[FrozenConfig]] = AudioNTTConfig

    def build_encoder(self) -> AudioNTT:
        """Return a new AudioNTT."""
        return AudioNTT(self.settings.width)

    def build_views(self, shape: tuple[int, ...], clips: int) -> nn.Module:
        """Return log-mixup-exp and random resize crop."""
        bands, frames = shape
        return Views((bands, frames), clips)
