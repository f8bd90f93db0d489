"""DeLoRes-M: InfoNCE against a momentum encoder, and Barlow Twins on three layers (arXiv:2203.13628), then the labels.

The published setting is a key of 128 features, temperature 0.07, a queue of 65,536 keys, a momentum of 0.999, Barlow heads from
the time-averaged blocks (2048, 1024, 512) to 2048 features, all terms weighted 1, SGD at 3e-4, batches of 128 on each of
four GPUs. LAPE's code scales both Barlow terms by 5e-5 / 32, which all but switches them off; here lambda weighs the
redundancy alone, as in Barlow Twins, and `barlow_weight` the three heads against InfoNCE. The key head has a hidden layer
after MoCo v2 (arXiv:2003.04297), with batch norm. A queue longer than a small
corpus would hold every clip many times over as its own negative, and a momentum of 0.999 would leave the teacher near
its random start for most of a short training: both are smaller by default.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from lape_bench.learning.barlow_twins import TRADE_OFF, barlow_twins
from lape_bench.learning.contrast import info_nce
from lape_bench.learning.downstream import FrozenConfig
from lape_bench.learning.encoders import AudioNTT
from lape_bench.learning.heads import mlp
from lape_bench.learning.momentum import Queue, follow, momentum_copy
from lape_bench.learning.pretrain import Objective
from lape_bench.learning.upstream import UpstreamConfig, UpstreamSystem


class DeloresMConfig(UpstreamConfig):
    """Momentum contrast and layer-wise Barlow Twins on AudioNTT."""

    key_features: int = Field(128, ge=2, description="features of a query and a key")
    key_hidden: int = Field(
        1024, ge=0, description="hidden features of the key head; 0 is a linear head, as published"
    )
    temperature: float = Field(0.1, gt=0, description="tau of InfoNCE; published 0.07")
    queue: int = Field(
        1024,
        ge=1,
        description="keys of earlier batches, the negatives, at most; published 65536",
    )
    momentum: float = Field(
        0.99, ge=0, le=1, description="decay of the momentum encoder; published 0.999"
    )
    projector: int = Field(2048, ge=2, description="features of the Barlow heads' three layers")
    trade_off: float = Field(TRADE_OFF, ge=0, description="lambda of Barlow Twins")
    barlow_weight: float = Field(
        0.01, ge=0, description="weight of each Barlow head, where InfoNCE has 1; 0 is MoCo"
    )


class Branch(nn.Module):
    """An encoder with its key head and the three Barlow heads: the student, or its momentum teacher."""

    def __init__(self, encoder: AudioNTT, settings: DeloresMConfig) -> None:
        super().__init__()
        self.encoder = encoder
        hidden = [settings.key_hidden] if settings.key_hidden else []
        self.key = mlp([encoder.embedding_size, *hidden, settings.key_features])
        self.layers = nn.ModuleList(
            mlp([size] + [settings.projector] * 3, bias=False) for size in encoder.layer_sizes
        )

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the key, (batch, key_features), and a projection of each layer, (batch, projector)."""
        embedding, layers = self.encoder.with_layers(features)
        projections = (head(layer) for head, layer in zip(self.layers, layers, strict=True))
        return self.key(embedding), *projections


class DeloresMObjective(Objective):
    """A student that learns from the first view, and a momentum teacher that sees the second."""

    def __init__(self, encoder: AudioNTT, settings: DeloresMConfig, queue: int) -> None:
        super().__init__()
        self.settings = settings
        self.student = Branch(encoder, settings)
        self.teacher = momentum_copy(self.student)
        self.queue = Queue(queue, settings.key_features)

    @property
    def encoder(self) -> AudioNTT:  # type: ignore[override]  # an attribute elsewhere
        """The student's encoder."""
        return self.student.encoder

    def project(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Return what the student makes of the first view and the teacher of the second."""
        with torch.no_grad():
            taught = self.teacher(view_b)
        return *self.student(view_a), *taught

    def loss(self, *projected: Tensor) -> Tensor:
        """Return InfoNCE plus a Barlow Twins loss for each layer; the keys then join the queue."""
        half = len(projected) // 2
        (query, *layers), (key, *taught) = projected[:half], projected[half:]
        settings = self.settings
        loss = info_nce(query, key, self.queue.held(), settings.temperature)
        self.queue.put(key)
        for ours, theirs in zip(layers, taught, strict=True):
            loss = loss + settings.barlow_weight * barlow_twins(ours, theirs, settings.trade_off)
        return loss

    def after_step(self) -> None:
        """Move the momentum teacher."""
        follow(self.teacher, self.student, self.settings.momentum)


class DeloresM(UpstreamSystem):
    """AudioNTT pre-trained by momentum contrast and layer-wise Barlow Twins."""

    version = 2  # 1 had both views at one level, and a linear key head
    Settings: ClassVar[type[FrozenConfig]] = DeloresMConfig
    brief: ClassVar[dict[str, Any]] = UpstreamSystem.brief | {"projector": 64, "queue": 64}

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: DeloresMConfig, clips: int
    ) -> DeloresMObjective:
        """Return student, teacher and a queue in which no clip meets an older key of its own."""
        others = max(1, clips - settings.pretrain.batch_size)
        return DeloresMObjective(encoder, settings, min(settings.queue, others))
