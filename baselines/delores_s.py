"""DeLoRes-S (arXiv:2203.13628): Barlow Twins on two views of a clip.

The published setting is a projector of three layers of 2048 without biases, SGD at 0.03 with momentum 0.9 and weight
decay 1e-4, batches of 32 on each of four GPUs, 50 epochs. LAPE's code scales both terms of the loss by 5e-5, which is
not a trade-off: the whole loss shrinks, and the terms off the diagonal weigh as much as those on it. Here lambda weighs
only the terms off the diagonal, as in the papers and in the authors' first code (0.0051).
"""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.losses.barlow_twins import TRADE_OFF, barlow_twins
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream, AudioNTTUpstreamConfig
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.training.pretrain import Siamese


class DeloresSConfig(AudioNTTUpstreamConfig):
    """Settings of Barlow Twins on AudioNTT."""

    projector: int = Field(2048, ge=2, description="features of the projector's three layers")
    trade_off: float = Field(
        TRADE_OFF, ge=0, description="lambda of Barlow Twins, the weight of the redundancy term"
    )


class BarlowTwins(Siamese):
    """An encoder and a projector, trained by the Barlow Twins loss."""

    def __init__(self, encoder: Encoder, features: int, trade_off: float) -> None:
        super().__init__(encoder, mlp([encoder.embedding_size] + [features] * 3, bias=False))
        self.trade_off = trade_off

    def loss(self, *projected: Tensor) -> Tensor:
        """Return the Barlow Twins loss."""
        z_a, z_b = projected
        return barlow_twins(z_a, z_b, self.trade_off)


class DeloresS(AudioNTTUpstream):
    """AudioNTT pre-trained by Barlow Twins."""

    artifact_name = "delores-s"

    version = 2  # version 1 had no random gain of views
    Settings: ClassVar[type[ProbeConfig]] = DeloresSConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {"projector": 64}

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: DeloresSConfig, clips: int
    ) -> BarlowTwins:
        """Return the encoder with its projector."""
        return BarlowTwins(encoder, settings.projector, settings.trade_off)
