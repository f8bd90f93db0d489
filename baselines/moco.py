"""MoCo (arXiv:1911.05722, v2: arXiv:2003.04297): InfoNCE against a momentum encoder and a queue of its keys.

It is `delores-m` without the Barlow heads, with the same settings, so that a comparison shows what those heads add.

The published setting is a key of 128 features, a queue of 65,536 keys and a momentum of 0.999; a linear key head and
temperature 0.07 in the first version, a hidden layer of 2048 and 0.2 in the second; SGD at 0.03 with momentum 0.9 and
weight decay 1e-4, batches of 256 on eight GPUs, 200 epochs. A queue longer than a small corpus would hold every clip
many times over, and a momentum of 0.999 would leave the teacher near its random start for most of a
short training: both are smaller by default, and the optimizer is the same for all upstreams. The hidden layer has batch
norm, which MoCo v2 does not have. There is no shuffled batch norm, which exchanges clips between GPUs: on one device the whole
batch shares its statistics, so it would change nothing.
"""

from typing import Any, ClassVar

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.momentum_contrast import (
    MomentumBranch,
    MomentumContrast,
    MomentumContrastConfig,
)


class MoCo(AudioNTTUpstream):
    """AudioNTT pre-trained by momentum contrast."""

    artifact_name = "moco"

    version = 2  # version 1 had a query's own older keys among its negatives
    Settings: ClassVar[type[ProbeConfig]] = MomentumContrastConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {"queue": 64}

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: MomentumContrastConfig, clips: int
    ) -> MomentumContrast:
        """Return student, teacher and queue."""
        return MomentumContrast(MomentumBranch(encoder, settings), settings, clips)
