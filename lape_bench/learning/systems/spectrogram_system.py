"""Systems whose encoder reads log-mel spectrograms, with BYOL-A's views as augmentation."""

from typing import ClassVar

from pydantic import Field
from torch import nn

from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.systems.encoder_system import EncoderConfig, EncoderSystem, ProbeConfig
from lape_bench.learning.training.finetune import FinetuneConfig


class SpectrogramFinetuneConfig(FinetuneConfig):
    """Fine-tuning on log-mel spectrograms."""

    augment: bool = Field(True, description="train on views instead of the plain log-mels")


class SpectrogramConfig(EncoderConfig):
    """Settings of an encoder of log-mel spectrograms."""

    finetune: SpectrogramFinetuneConfig = Field(default_factory=SpectrogramFinetuneConfig)


class SpectrogramSystem(EncoderSystem):
    """An encoder whose features have the shape (batch, n_mels, frames)."""

    Settings: ClassVar[type[ProbeConfig]] = SpectrogramConfig

    def build_views(self, shape: tuple[int, ...], clips: int) -> nn.Module | None:
        """Return log-mixup-exp and random resize crop, or None if `finetune.augment` is false."""
        if not self.settings.finetune.augment:
            return None
        n_mels, frames = shape
        return Views((n_mels, frames), clips)
