"""DECAR (arXiv:2110.08895): the encoder learns to classify clusters of its own embeddings, which are computed again and again.

It is DeepCluster (arXiv:1807.05520) on audio. A random window of each clip is embedded without augmentation. k-means on
whitened principal components of unit length gives every clip a pseudo-label. A new classifier learns the pseudo-labels from
clips that are drawn from every cluster equally often; the optimizer's state for it is reset.

The published code draws new clusters every epoch, by one k-means of 20 iterations on 128 components; the classifier's
weights start normal with standard deviation 0.01. Its other settings are SGD at 0.05 with momentum 0.9 (the classifier without) and
weight decay 1e-5, batches of 32, 200 epochs, one view of each clip (log-mixup-exp and random resize crop), and 256
clusters of a balanced part of AudioSet. Between encoder and classifier it has two hidden layers of 512 with dropout of 0.5,
and clusters the output of the last one before its ReLU. Here the encoder's embedding is clustered, and the classifier is on
top of it. Encoder, views and optimizer are the same for all upstreams. Both views of a clip are classified, and the loss is the
mean over both.

An epoch of DeepCluster has 5,000 steps. An epoch of 1,800 clips has 29, in which a new classifier learns little. So the same
clusters are kept for `redraw_steps` steps, rounded up to whole epochs: by default a tenth of the shortest training. A corpus
whose epochs are longer is clustered every epoch, as published. `redraw_steps=1` clusters any corpus every epoch. On the 1,800
clips, a probe of the encoder then scored below a probe of random weights, under version 1 of the protocol (see also
arXiv:2207.11839). In epochs that draw new clusters, the learning curve holds `nmi`, the normalized mutual information of new
and previous clusters.
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

CLASSIFIER_STD = 0.01  # standard deviation of a new classifier's weights, as published


class DecarConfig(ClusteringConfig, AudioNTTUpstreamConfig):
    """Settings of DECAR on AudioNTT."""

    restarts: int = Field(
        1, ge=1, description="runs of k-means from different centers; the best is kept"
    )
    redraw_steps: int = Field(
        240,
        ge=1,
        description="least number of steps until clusters are drawn again; 1 means every epoch, as published",
    )


def cluster_cross_entropy(logits_a: Tensor, logits_b: Tensor, clusters: Tensor) -> Tensor:
    """Classify each clip's cluster from each of its views: the loss of arXiv:1807.05520, Eq. (1), over two views.

    Args:
        logits_a: logits of the first view, shape (batch, clusters).
        logits_b: logits of the second view, same shape.
        clusters: cluster of each clip, shape (batch,), in [0, clusters).

    Returns:
        Mean of -log(softmax(logits)[cluster]) over clips and views, a scalar.
    """
    return F.cross_entropy(torch.cat([logits_a, logits_b]), clusters.repeat(2))


def balanced_order(clusters: Tensor, draw: torch.Generator) -> Tensor:
    """Draw an order of clips in which all non-empty clusters are equally frequent.

    Args:
        clusters: cluster of each clip, shape (clips,), on the CPU.
        draw: a generator on the CPU.

    Returns:
        Indices of clips, shape (clips,), in random order. The frequencies of two non-empty clusters differ by at most one. The
        frequencies of two clips of one cluster also differ by at most one.
    """
    nonempty = clusters.bincount().nonzero()[:, 0]
    share, rest = divmod(len(clusters), len(nonempty))
    extra_clips = torch.randperm(len(nonempty), generator=draw) < rest
    drawn = []
    for kind, extra in zip(nonempty, extra_clips.tolist(), strict=True):
        members = (clusters == kind).nonzero()[:, 0]
        rounds = math.ceil((share + extra) / len(members))
        shuffled = [members[torch.randperm(len(members), generator=draw)] for _ in range(rounds)]
        drawn.append(torch.cat(shuffled)[: share + extra])
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=draw)]


class DecarObjective(Siamese):
    """An encoder with a linear classifier of the clusters of its embeddings."""

    projector: nn.Linear  # the classifier, for both views
    clusters: Tensor

    def __init__(self, encoder: Encoder, settings: DecarConfig, clips: int) -> None:
        super().__init__(encoder, nn.Linear(encoder.embedding_size, settings.clusters))
        self.settings = settings
        # A buffer, because later epochs of a resumed run need it.
        self.register_buffer("clusters", torch.full((clips,), -1))
        self._redrawn = False  # in this epoch
        self._metrics: dict[str, float] = {}

    def before_epoch(self, epoch: int, corpus: UnlabeledClips, seeds: Seeds) -> Tensor | None:
        """Draw clusters and classifier again if they are due, and return a balanced order of the clips."""
        epochs_kept = math.ceil(self.settings.redraw_steps / corpus.plan.n_batches)
        self._redrawn, self._metrics = (epoch - 1) % epochs_kept == 0, {}
        if self._redrawn:
            self._redraw(corpus, seeds)
        return balanced_order(self.clusters.cpu(), seeds.torch("balanced order"))

    def targets(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the clusters of these clips, shape (batch,)."""
        return (self.clusters[batch.to(self.clusters.device, non_blocking=True)],)

    def loss(self, *compared: Tensor) -> Tensor:
        """Return the cross-entropy of the clusters, over both views."""
        logits_a, logits_b, clusters = compared
        return cluster_cross_entropy(logits_a, logits_b, clusters)

    def reinitialized_parameters(self) -> list[nn.Parameter]:
        """Return the classifier's parameters if they have just been drawn again."""
        return list(self.projector.parameters()) if self._redrawn else []

    def epoch_metrics(self) -> dict[str, float]:
        """Return the normalized mutual information of new and previous clusters, if there are both."""
        return self._metrics

    @torch.no_grad()
    def _redraw(self, corpus: UnlabeledClips, seeds: Seeds) -> None:
        embeddings = corpus.embeddings(seeds.torch("windows")).numpy()
        clusters = cluster(embeddings, self.settings, seeds.numpy("clusters"), held_by="the corpus")
        if (clusters == clusters[0]).all():
            raise UserError(
                f"the encoder gives all {len(clusters)} clips of the corpus the same embedding, so DECAR has no clusters to "
                "learn",
                next_step="lower pretrain.optimizer.learning_rate, or name a corpus whose clips differ",
            )
        previous = self.clusters.cpu().numpy()
        if (previous >= 0).all():
            self._metrics = {"nmi": float(normalized_mutual_info_score(previous, clusters))}
        self.clusters.copy_(torch.from_numpy(clusters))
        # Drawn on the CPU, so that the draw does not depend on the device.
        weight, draw = self.projector.weight, seeds.torch("classifier")
        weight.copy_(CLASSIFIER_STD * torch.randn(weight.shape, generator=draw))
        self.projector.bias.zero_()


class Decar(AudioNTTUpstream):
    """AudioNTT pre-trained by deep clustering."""

    artifact_name = "decar"
    version = 2  # version 1 could separate clips whose embeddings are equal up to rounding

    Settings: ClassVar[type[ProbeConfig]] = DecarConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {"clusters": 8}

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: DecarConfig, clips: int
    ) -> DecarObjective:
        """Return the encoder with its classifier."""
        return DecarObjective(encoder, settings, clips)
