"""COLA (arXiv:2010.10915): contrast of two segments of a clip by a learned bilinear similarity.

The published setting is segments of 960 ms, a linear projector to 512 features with layer norm and tanh, a bilinear
similarity whose weights start normal with standard deviation 0.05, cross-entropy over batches of 1,024, and Adam, on
EfficientNet-B0 and AudioSet. The segments are two random windows of a clip that is scaled to unit norm, with a little noise
on the second as the only augmentation. Here, too, each view has a window of its own. Windows are 1 s long, batches 64, and
encoder, optimizer and views (random gain, log-mixup-exp, random resize crop) are the same for all upstreams of this project.
The views are needed: a clip that is not longer than the window gives the same audio twice, so its two segments differ only
by augmentation. On a task with such clips COLA is SimCLR with another head and another similarity. The published code
computes batch norm statistics over anchors and positives together; here each has its own. The similarity starts with smaller
weights. With the published ones the loss starts far above chance (10 instead of 4), and a short training spends much of its
time reducing it to 4.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.losses.contrast import bilinear_contrast
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream, AudioNTTUpstreamConfig
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.training.pretrain import Siamese


class ColaConfig(AudioNTTUpstreamConfig):
    """Settings of COLA on AudioNTT."""

    projector_features: int = Field(512, ge=2, description="features that are compared")
    similarity_std: float = Field(
        0.01,
        gt=0,
        description="standard deviation of the similarity's initial weights; published 0.05",
    )


class ColaObjective(Siamese):
    """Projections of two segments, and the weights by which they are compared."""

    windows_per_clip: ClassVar[int] = 2

    def __init__(self, encoder: Encoder, settings: ColaConfig) -> None:
        features = settings.projector_features
        projector = nn.Sequential(
            nn.Linear(encoder.embedding_size, features), nn.LayerNorm(features), nn.Tanh()
        )
        super().__init__(encoder, projector)
        self.similarity = nn.Parameter(settings.similarity_std * torch.randn(features, features))

    def loss(self, *projected: Tensor) -> Tensor:
        """Return the cross-entropy of finding each first segment's partner among all second segments, a scalar."""
        anchors, positives = projected
        return bilinear_contrast(anchors, positives, self.similarity)


class Cola(AudioNTTUpstream):
    """AudioNTT pre-trained by COLA."""

    artifact_name = "cola"

    Settings: ClassVar[type[ProbeConfig]] = ColaConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {
        "projector_features": 64
    }

    @classmethod
    def build_objective(cls, encoder: AudioNTT, settings: ColaConfig, clips: int) -> ColaObjective:
        """Return the encoder with its projector and its similarity."""
        return ColaObjective(encoder, settings)
