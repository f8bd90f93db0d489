"""SimCLR (arXiv:2002.05709): each view finds its partner among all other views of the batch.

The published setting is a projector with one hidden layer of 2048 and 128 features out, and temperature 0.1. It is
trained by LARS with weight decay 1e-6, a rate of 0.3 for each 256 images, ten epochs of warm-up and then a cosine to
zero, in batches of 4,096, and up to 1,000 epochs of crops and colors on ResNet-50. Here the encoder, the views and the
optimizer are the same for all upstreams of this project: AudioNTT, random gain, log-mixup-exp and random resize crop, and Adam. Batches of
64 give 126 negatives instead of the paper's 8,190, and LARS is made for far larger batches. The hidden layer has
a batch norm, as in the authors' code, which has one on the output too; here the output has none. That code takes the
batch norm's statistics over both views; here each view has its own.
"""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.losses.contrast import nt_xent
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream, AudioNTTUpstreamConfig
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.training.pretrain import Siamese


class SimCLRConfig(AudioNTTUpstreamConfig):
    """Settings of SimCLR on AudioNTT."""

    projector_hidden: int = Field(2048, ge=2, description="hidden features of the projector")
    projector_features: int = Field(128, ge=2, description="features that are compared")
    temperature: float = Field(0.1, gt=0, description="tau of NT-Xent")


class SimCLRObjective(Siamese):
    """An encoder and a projector, trained by NT-Xent."""

    def __init__(self, encoder: Encoder, settings: SimCLRConfig) -> None:
        sizes = [encoder.embedding_size, settings.projector_hidden, settings.projector_features]
        super().__init__(encoder, mlp(sizes))
        self.temperature = settings.temperature

    def loss(self, *projected: Tensor) -> Tensor:
        """Return NT-Xent."""
        z_a, z_b = projected
        return nt_xent(z_a, z_b, self.temperature)


class SimCLR(AudioNTTUpstream):
    """AudioNTT pre-trained by SimCLR."""

    artifact_name = "simclr"

    Settings: ClassVar[type[ProbeConfig]] = SimCLRConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {
        "projector_hidden": 64
    }

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: SimCLRConfig, clips: int
    ) -> SimCLRObjective:
        """Return the encoder with its projector."""
        return SimCLRObjective(encoder, settings)
