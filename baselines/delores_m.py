"""DeLoRes-M (arXiv:2203.13628): InfoNCE against a momentum encoder, and Barlow Twins on three layers.

The published setting is a key of 128 features, temperature 0.07, a queue of 65,536 keys, a momentum of 0.999, and
Barlow heads from the time-averaged blocks (2048, 1024, 512) to 2048 features. All terms have the weight 1. The
optimizer is SGD at 3e-4, batches of 128 on each of four GPUs. LAPE's code scales both Barlow terms by 5e-5 / 32, which
all but switches them off; here lambda weighs only the redundancy term, as in Barlow Twins, and `barlow_weight` the three
heads against InfoNCE. The key head has a hidden layer after MoCo v2 (arXiv:2003.04297), with batch norm.

Another departure is in the Barlow heads. LAPE's code has one head per layer, and applies it to the layer of the student and to
that of the teacher, so that gradients reach the head from both sides. Here the teacher has a momentum copy of each head, which
gets no gradient.

A queue longer than a small corpus would hold every clip many times over, and a momentum of 0.999 would leave the teacher
near its random start for most of a short training: both are smaller by default.
"""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.losses.barlow_twins import TRADE_OFF, barlow_twins
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.momentum_contrast import (
    MomentumBranch,
    MomentumContrast,
    MomentumContrastConfig,
)


class DeloresMConfig(MomentumContrastConfig):
    """Momentum contrast and layer-wise Barlow Twins on AudioNTT."""

    projector: int = Field(2048, ge=2, description="features of the Barlow heads' three layers")
    trade_off: float = Field(TRADE_OFF, ge=0, description="lambda of Barlow Twins")
    barlow_weight: float = Field(
        0.01, ge=0, description="weight of each Barlow head relative to InfoNCE; 0 is MoCo"
    )


class LayeredMomentumBranch(MomentumBranch):
    """An encoder with its key head and the three Barlow heads: the student, or its momentum teacher."""

    encoder: AudioNTT

    def __init__(self, encoder: AudioNTT, settings: DeloresMConfig) -> None:
        super().__init__(encoder, settings)
        self.layers = nn.ModuleList(
            mlp([size] + [settings.projector] * 3, bias=False) for size in encoder.layer_sizes
        )

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the key, (batch, key_features), and a projection of each layer, (batch, projector)."""
        embedding, layers = self.encoder.with_layers(features)
        projections = (head(layer) for head, layer in zip(self.layers, layers, strict=True))
        return self.key(embedding), *projections


class DeloresMObjective(MomentumContrast):
    """Momentum contrast, and Barlow Twins between each layer of the student and the teacher."""

    settings: DeloresMConfig

    def __init__(self, encoder: AudioNTT, settings: DeloresMConfig, clips: int) -> None:
        super().__init__(LayeredMomentumBranch(encoder, settings), settings, clips)

    def loss(self, *compared: Tensor) -> Tensor:
        """Return InfoNCE plus a Barlow Twins loss for each layer; the keys then join the queue."""
        *projected, clips = compared
        half = len(projected) // 2
        (query, *layers), (key, *teacher_layers) = projected[:half], projected[half:]
        settings = self.settings
        loss = super().loss(query, key, clips)
        for ours, theirs in zip(layers, teacher_layers, strict=True):
            loss = loss + settings.barlow_weight * barlow_twins(ours, theirs, settings.trade_off)
        return loss


class DeloresM(AudioNTTUpstream):
    """AudioNTT pre-trained by momentum contrast and layer-wise Barlow Twins."""

    artifact_name = "delores-m"

    # Versions 1 and 2 had a query's own older keys among its negatives. Version 1 also had no random gain of views, and a linear
    # key head.
    version = 3
    Settings: ClassVar[type[ProbeConfig]] = DeloresMConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {
        "projector": 64,
        "queue": 64,
    }

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: DeloresMConfig, clips: int
    ) -> DeloresMObjective:
        """Return student, teacher and queue."""
        return DeloresMObjective(encoder, settings, clips)
