"""BYOL-A (arXiv:2103.06695, v1): from one view, predict the projection of the other view by a momentum target.

There are no negatives. The target changes slowly, gets no gradient and has no predictor, which keeps the embeddings from
collapsing.

The published setting is AudioNTT of 2048 features on 0.95 s, projector and predictor with a hidden layer of 4096 (batch
norm, ReLU) and 256 features out, a decay of 0.99, Adam at 3e-4, batches of 256, 100 epochs; log-mixup-exp and random
resize crop. The defaults here are the same, except for the settings that all upstreams of this project share: the length of
training, batches of 64, windows of 1 s, the schedule (warm-up and cosine; the authors keep the rate constant) and the random gain
of each view.
The authors also normalize each batch of views to mean 0 and standard deviation 1; here log-mels are normalized once, with
the statistics of the corpus. The loss is summed over both directions, so it lies in [0, 8].
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.losses.normalized_mse import normalized_mse
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream, AudioNTTUpstreamConfig
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.training.momentum_encoder import momentum_copy, momentum_update
from lape_bench.learning.training.pretrain import Objective


class ByolAConfig(AudioNTTUpstreamConfig):
    """Settings of BYOL on AudioNTT."""

    projector_hidden: int = Field(
        4096, ge=2, description="hidden features of the projector, and of the predictor"
    )
    projector_features: int = Field(256, ge=2, description="features of a projection")
    momentum: float = Field(0.99, ge=0, le=1, description="decay of the momentum target")


class Online(nn.Module):
    """An encoder with its projector: the online network, or, as a momentum copy, the target."""

    def __init__(self, encoder: AudioNTT, settings: ByolAConfig) -> None:
        super().__init__()
        self.encoder = encoder
        sizes = [encoder.embedding_size, settings.projector_hidden, settings.projector_features]
        self.projector = mlp(sizes)

    def forward(self, features: Tensor) -> Tensor:
        """Return projections of log-mels (batch, n_mels, frames), shape (batch, projector_features)."""
        projections: Tensor = self.projector(self.encoder(features))
        return projections


class ByolAObjective(Objective):
    """An online network that predicts, from each view, the target's projection of the other view."""

    cuda_graphable = True

    def __init__(self, encoder: AudioNTT, settings: ByolAConfig) -> None:
        super().__init__()
        self.momentum = settings.momentum
        self.online = Online(encoder, settings)
        features = settings.projector_features
        self.predictor = mlp([features, settings.projector_hidden, features])
        self.target = momentum_copy(self.online)

    @property
    def encoder(self) -> AudioNTT:  # type: ignore[override]  # an attribute elsewhere
        """The online encoder."""
        return self.online.encoder

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Return the predictions from both views, then the targets of both, each (batch, projector_features)."""
        with torch.no_grad():
            target_a, target_b = self.target(view_a), self.target(view_b)
        predicted = (self.predictor(self.online(view)) for view in (view_a, view_b))
        return *predicted, target_a, target_b

    def loss(self, *projected: Tensor) -> Tensor:
        """Return 2 - 2 cos(prediction, target of the other view), summed over both directions, in [0, 8]."""
        q_a, q_b, target_a, target_b = projected
        return normalized_mse(q_a, target_b) + normalized_mse(q_b, target_a)

    def after_step(self) -> None:
        """Update the momentum target."""
        momentum_update(self.target, self.online, self.momentum)


class ByolA(AudioNTTUpstream):
    """AudioNTT pre-trained by BYOL."""

    artifact_name = "byol-a"

    Settings: ClassVar[type[ProbeConfig]] = ByolAConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {
        "projector_hidden": 64
    }

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: ByolAConfig, clips: int
    ) -> ByolAObjective:
        """Return the online network with its predictor, and the target."""
        return ByolAObjective(encoder, settings)
