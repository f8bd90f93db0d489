"""Systems whose encoder is AudioNTT, with random weights or pre-trained without labels."""

from typing import Any, ClassVar

from pydantic import Field

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.pretrained_system import UpstreamConfig, UpstreamSystem
from lape_bench.learning.systems.spectrogram_system import SpectrogramConfig, SpectrogramSystem


class AudioNTTConfig(SpectrogramConfig):
    """Settings of a system whose encoder is AudioNTT."""

    width: int = Field(2048, ge=8, description="d of AudioNTT, the size of its embedding")


class AudioNTTSystem(SpectrogramSystem):
    """AudioNTT (BYOL-A v1, arXiv:2103.06695), by default with random weights."""

    Settings: ClassVar[type[ProbeConfig]] = AudioNTTConfig

    def build_encoder(self) -> AudioNTT:
        """Return a new AudioNTT."""
        return AudioNTT(self.settings.width)


class AudioNTTUpstreamConfig(UpstreamConfig, AudioNTTConfig):
    """Settings of an AudioNTT that is pre-trained on unlabeled audio."""


class AudioNTTUpstream(UpstreamSystem):
    """AudioNTT, pre-trained by the objective that a subclass defines."""

    Settings: ClassVar[type[ProbeConfig]] = AudioNTTUpstreamConfig
    smoke_settings: ClassVar[dict[str, Any]] = UpstreamSystem.smoke_settings | {"width": 128}

    @classmethod
    def new_encoder(cls, settings: Any) -> AudioNTT:
        """Return a new AudioNTT."""
        return AudioNTT(settings.width)
