"""DECAR: the encoder learns to tell its own clusters apart, drawn anew as it changes (arXiv:2110.08895), then the labels.

It is DeepCluster (arXiv:1807.05520) on audio. A random window of each clip is embedded without views; k-means on whitened
components of unit length gives every clip its pseudo-label. A classifier with new weights, of which the optimizer knows
nothing yet, learns them from clips that are taken from every cluster equally often.

The published code draws clusters anew every epoch, by one k-means of 20 iterations on 128 components; the classifier's
weights start normal with deviation 0.01. Its other settings are SGD at 0.05 with momentum 0.9 (the classifier without) and
weight decay 1e-5, batches of 32, 200 epochs, one view of each clip (log-mixup-exp and random resize crop), and 256
clusters of a balanced part of AudioSet. What is clustered there is the last of two hidden layers of 512, with dropout of
0.5, between encoder and classifier, before its ReLU. Here it is the encoder's own embedding, and the classifier stands on
that. Encoder, views and optimizer are those of every upstream. Both views of a clip are to tell its cluster, and the loss
is the mean over both.

An epoch of DeepCluster is 5,000 steps; one of 1,800 clips is 29, in which a new classifier learns little. So the same
clusters are kept for `redraw_steps` steps, rounded up to whole epochs: by default a tenth of the shortest training. A
corpus whose epochs are longer is clustered every epoch, as published, and `redraw_steps=1` does so for any; on those 1,800
a probe of the encoder is then below one of random weights (`results/boards/decar.md`; see also arXiv:2207.11839). The curve
tells what became of the clusters: `nmi`, the normalized mutual information of new and last ones, in the epochs that drew
any.
"""

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.core.errors import UserError
from lape_bench.core.seeding import Seeds
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream, AudioNTTUpstreamConfig
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.training.clustering import ClusteringConfig, cluster
from lape_bench.learning.training.pretrain import Siamese, UnlabeledClips

DEVIATION = 0.01  # of a new classifier's weights, as published


class DecarConfig(ClusteringConfig, AudioNTTUpstreamConfig):
    """Clusters of the encoder's own embeddings on AudioNTT."""

    restarts: int = Field(1, ge=1, description="of k-means, from other centers; the best is taken")
    redraw_steps: int = Field(
        240,
        ge=1,
        description="that clusters are kept for, at least; 1 is every epoch, as published",
    )


def cluster_cross_entropy(logits_a: Tensor, logits_b: Tensor, clusters: Tensor) -> Tensor:
    """Tell each clip's cluster from each of its views: the loss of arXiv:1807.05520, Eq. (1), over two views.

    Args:
        logits_a: of the first view, shape (batch, clusters).
        logits_b: of the second view, same shape.
        clusters: of the clips, shape (batch,), in [0, clusters).

    Returns:
        Mean of -log(softmax(logits)[cluster]) over clips and views, a scalar.
    """
    return F.cross_entropy(torch.cat([logits_a, logits_b]), clusters.repeat(2))


def balanced_order(clusters: Tensor, draw: torch.Generator) -> Tensor:
    """Go through as many clips as there are, equally many of each cluster that has any.

    Args:
        clusters: of the clips, shape (clips,), on the CPU.
        draw: on the CPU.

    Returns:
        Clips, shape (clips,), in random order. Of all clusters there are equally many, to within one, and of a cluster's
        clips each comes equally often, to within one.
    """
    found = clusters.bincount().nonzero()[:, 0]
    share, rest = divmod(len(clusters), len(found))
    one_more = torch.randperm(len(found), generator=draw) < rest
    drawn = []
    for kind, extra in zip(found, one_more.tolist(), strict=True):
        members = (clusters == kind).nonzero()[:, 0]
        rounds = math.ceil((share + extra) / len(members))
        shuffled = [members[torch.randperm(len(members), generator=draw)] for _ in range(rounds)]
        drawn.append(torch.cat(shuffled)[: share + extra])
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=draw)]


class DecarObjective(Siamese):
    """An encoder with a linear classifier of the clusters that its embeddings lie in."""

    projector: nn.Linear  # the classifier, of both views
    clusters: Tensor

    def __init__(self, encoder: Encoder, settings: DecarConfig, clips: int) -> None:
        super().__init__(encoder, nn.Linear(encoder.embedding_size, settings.clusters))
        self.settings = settings
        # A buffer, so that a checkpoint holds it: later epochs learn the same clusters.
        self.register_buffer("clusters", torch.full((clips,), -1))
        self._redrawn = False  # in this epoch
        self._metrics: dict[str, float] = {}

    def before_epoch(self, epoch: int, corpus: UnlabeledClips, seeds: Seeds) -> Tensor | None:
        """Draw clusters and classifier anew if it is time, and take clips from every cluster equally often."""
        epochs_kept = math.ceil(self.settings.redraw_steps / corpus.plan.n_batches)
        self._redrawn, self._metrics = (epoch - 1) % epochs_kept == 0, {}
        if self._redrawn:
            self._redraw(corpus, seeds)
        return balanced_order(self.clusters.cpu(), seeds.torch("balanced order"))

    def targets(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the clusters of these clips."""
        return (self.clusters[batch.to(self.clusters.device, non_blocking=True)],)

    def loss(self, *compared: Tensor) -> Tensor:
        """Return the cross-entropy of both views' clusters."""
        logits_a, logits_b, clusters = compared
        return cluster_cross_entropy(logits_a, logits_b, clusters)

    def reinitialized_parameters(self) -> list[nn.Parameter]:
        """Return the classifier's parameters if they were drawn anew."""
        return list(self.projector.parameters()) if self._redrawn else []

    def epoch_metrics(self) -> dict[str, float]:
        """Return how much the last clusters tell of the new ones, if there are both."""
        return self._metrics

    @torch.no_grad()
    def _redraw(self, corpus: UnlabeledClips, seeds: Seeds) -> None:
        embeddings = corpus.embeddings(seeds.torch("windows")).numpy()
        found = cluster(embeddings, self.settings, seeds.numpy("clusters"), held_by="the corpus")
        if (found == found[0]).all():
            raise UserError(
                f"the encoder tells none of the corpus's {len(found)} clips from another, and DECAR learns from "
                "their clusters",
                next_step="lower pretrain.optimizer.learning_rate, or name a corpus whose clips differ",
            )
        last = self.clusters.cpu().numpy()
        if (last >= 0).all():
            self._metrics = {"nmi": float(normalized_mutual_info_score(last, found))}
        self.clusters.copy_(torch.from_numpy(found))
        # Drawn on the CPU, so that the draw does not depend on the device.
        weight, draw = self.projector.weight, seeds.torch("classifier")
        weight.copy_(DEVIATION * torch.randn(weight.shape, generator=draw))
        self.projector.bias.zero_()


class Decar(AudioNTTUpstream):
    """AudioNTT pre-trained by deep clustering."""

    artifact_name = "decar"

    Settings: ClassVar[type[ProbeConfig]] = DecarConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {"clusters": 8}

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: DecarConfig, clips: int
    ) -> DecarObjective:
        """Return the encoder with its classifier."""
        return DecarObjective(encoder, settings, clips)
