"""SLICER (arXiv:2211.01519): symmetric contrast of clips, and contrast of clusters, on views by k-mix.

Each view's query finds the momentum teacher's key of the other view among a queue of earlier keys, as in `moco` but in both
directions. A second head assigns every view softly to clusters, and each cluster finds itself in the other view. A cluster is
represented by its column: its share of every clip of the batch (Contrastive Clustering, arXiv:2009.09687). These clusters are
not those of k-mix, from which backgrounds are chosen (`lape_bench/learning/augmentations/k_mix.py`).

The published setting is a linear head to keys of 128 features, temperature 0.07, a queue of 65,536 keys, a momentum of
0.999; a head of 2048 hidden features to the softmax over 128 clusters, compared at temperature 1; all three terms weighted
1; k-mix with 4 clusters and 128 candidates; SGD at 3e-4 with momentum 0.9 and weight decay 1e-4, batches of 128 on each of
four GPUs, 50 epochs. Optimizer, windows and random gain here are the same for all upstreams. Key head, temperature, queue
and momentum are those of `moco`, for the same reasons. The hidden layers have batch norm, which the published cluster head does
not have.

Everything else follows the authors' code: the student's clusters in one view are compared with the student's in the other,
and the teacher has none. There are four departures:

- There, each view passes log-mixup-exp, a crop, and then k-mix. Here k-mix replaces log-mixup-exp.
- There, the first direction's keys have joined the queue when the second is computed, so that a query meets its own view's
  key as a negative. Here both directions see the queue of the batches before.
- There, the teacher is updated before each direction, twice per step, which equals a momentum of 0.998. Here it is updated
  once, after the student's step.
- There, the term that keeps clusters equally large (the entropy of Contrastive Clustering) is in the code but not in the
  loss. Here it is the setting `balance`, off by default.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from lape_bench.learning.augmentations.k_mix import FarthestCluster
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.losses.contrast import nt_xent
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.momentum_contrast import (
    MomentumBranch,
    MomentumContrast,
    MomentumContrastConfig,
)


class SlicerConfig(MomentumContrastConfig):
    """Symmetric momentum contrast and cluster-level contrast on AudioNTT, with k-mix."""

    clusters: int = Field(128, ge=2, description="number of clusters of the cluster head")
    cluster_hidden: int = Field(2048, ge=2, description="hidden features of the cluster head")
    cluster_temperature: float = Field(1.0, gt=0, description="tau of the cluster-level contrast")
    cluster_weight: float = Field(
        1.0, ge=0, description="weight of the cluster-level contrast relative to each InfoNCE"
    )
    balance: float = Field(
        0.0,
        ge=0,
        description="weight, within the cluster-level contrast, of the term for equally large clusters",
    )
    mix_clusters: int = Field(4, ge=1, description="number of clusters of k-mix")
    mix_candidates: int = Field(
        128, ge=1, description="clips of the farthest cluster from which k-mix draws a background"
    )


def cluster_contrast(p_a: Tensor, p_b: Tensor, temperature: float) -> Tensor:
    """Classify each cluster's own column in the other view among all other columns: NT-Xent of the columns.

    Args:
        p_a: the first view's shares of the clusters, shape (batch, clusters); each row sums to 1.
        p_b: the second view's, same shape.
        temperature: tau, divides the columns' cosines.

    Returns:
        A scalar, without the entropy of arXiv:2009.09687.
    """
    return nt_xent(p_a.T, p_b.T, temperature)


def imbalance(shares: Tensor) -> Tensor:
    """Measure how unequal clusters are in size: log(clusters) minus the entropy of the batch's mean shares, in nats.

    Args:
        shares: shape (batch, clusters); each row sums to 1.

    Returns:
        A scalar: 0 if all clusters are equally large, log(clusters) if one has all clips.
    """
    mean = shares.mean(dim=0).clamp(min=torch.finfo(shares.dtype).tiny)
    return (mean * (mean * len(mean)).log()).sum()


class SlicerObjective(MomentumContrast):
    """Momentum contrast in both directions, with a cluster head on the student's encoder."""

    settings: SlicerConfig

    def __init__(self, encoder: AudioNTT, settings: SlicerConfig, clips: int) -> None:
        super().__init__(MomentumBranch(encoder, settings), settings, clips)
        sizes = [encoder.embedding_size, settings.cluster_hidden, settings.clusters]
        self.cluster = mlp(sizes)

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Return both views' queries and keys, (batch, key_features), and cluster scores, (batch, clusters)."""
        with torch.no_grad():
            (key_a,), (key_b,) = self.teacher(view_a), self.teacher(view_b)
        z_a, z_b = self.encoder(view_a), self.encoder(view_b)
        queries = self.student.key(z_a), self.student.key(z_b)
        return *queries, key_a, key_b, self.cluster(z_a), self.cluster(z_b)

    def loss(self, *compared: Tensor) -> Tensor:
        """Return InfoNCE in both directions plus the cluster-level contrast; the keys then join the queue."""
        query_a, query_b, key_a, key_b, *scores, clips = compared
        settings = self.settings
        p_a, p_b = (score.softmax(dim=1) for score in scores)
        clusters = cluster_contrast(p_a, p_b, settings.cluster_temperature)
        clusters = clusters + settings.balance * (imbalance(p_a) + imbalance(p_b))
        instances = self.symmetric_loss(query_a, query_b, key_a, key_b, clips)
        return instances + settings.cluster_weight * clusters


class Slicer(AudioNTTUpstream):
    """AudioNTT pre-trained by SLICER."""

    artifact_name = "slicer"

    version = 2  # version 1 had a query's own older keys among its negatives
    Settings: ClassVar[type[ProbeConfig]] = SlicerConfig
    smoke_settings: ClassVar[dict[str, Any]] = AudioNTTUpstream.smoke_settings | {
        "queue": 64,
        "cluster_hidden": 64,
    }

    @classmethod
    def new_views(cls, settings: SlicerConfig, shape: tuple[int, ...], clips: int) -> Views:
        """Return k-mix, then random resize crop."""
        n_mels, frames = shape
        choose = FarthestCluster(n_mels, settings.mix_clusters, settings.mix_candidates)
        return Views((n_mels, frames), clips, choose)

    @classmethod
    def build_objective(
        cls, encoder: AudioNTT, settings: SlicerConfig, clips: int
    ) -> SlicerObjective:
        """Return student, teacher, queue and cluster head."""
        return SlicerObjective(encoder, settings, clips)
