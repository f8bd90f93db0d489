"""k-mix: the background of log-mixup-exp comes from the cluster that sounds least like the clip (SLICER, arXiv:2211.01519).

As in the authors' code, a clip is known by its log-mel averaged over time; four clusters are fitted by spherical k-means (20
iterations, from clips drawn at random); a clip, and each remembered one, belongs to the nearest centroid; of the
clusters that have anything remembered, the one whose centroid lies farthest from that of the clip's own is taken; and one
of 128 of its clips is drawn.

Three things differ. The authors fit the clusters once, to a random twentieth of the corpus, and to log-mels that are not
normalized, while those they sort into them are; here it is the remembered log-mels, normalized as all are, and anew whenever
as many clips have been mixed as are remembered. The authors' 128 are the oldest; here they are those least like the
clip. And they take any background while fewer than 128 are remembered; here a corpus may be smaller than that.
A log-mel's average is much of it level, so clusters are in part clusters by level.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.learning.augmentations.log_mixup_exp import random_background
from lape_bench.runtime.batch_random import BatchRandom

ITERATIONS = 20


class FarthestCluster(nn.Module):
    """Choose as background a clip of the cluster farthest from the clip's own; a `BackgroundChoice`.

    A checkpoint holds the centroids and when they are due.

    Args:
        n_mels: mel bands of a log-mel.
        clusters: k of k-means.
        candidates: how many of the cluster's clips, those least like the clip, one is drawn from; at most.
    """

    centroids: Tensor

    def __init__(self, n_mels: int, clusters: int = 4, candidates: int = 128) -> None:
        super().__init__()
        self.candidates = candidates
        self.register_buffer("centroids", torch.zeros(clusters, n_mels))
        self.due = 0  # clips to the next fit

    def get_extra_state(self) -> int:
        """Return what a checkpoint holds beside the centroids."""
        return self.due

    def set_extra_state(self, state: int) -> None:
        """Take it up again."""
        self.due = state

    @torch.no_grad()
    def forward(self, log_mels: Tensor, memory: Tensor, random: BatchRandom) -> Tensor:
        """Return a row of the memory for each log-mel, shape (batch,).

        While the memory holds fewer clips than there are clusters, any of them is drawn.

        Args:
            log_mels: shape (batch, n_mels, frames).
            memory: shape (memory, n_mels, frames).
            draws: of the batch.
        """
        batch, held, clusters = len(log_mels), len(memory), len(self.centroids)
        if held < clusters:
            return random_background(log_mels, memory, random)
        clips, others = mean_spectrum(log_mels), mean_spectrum(memory)
        if self.due <= 0:
            drawn = random.distinct(held, clusters).to(memory.device, non_blocking=True)
            self.centroids.copy_(spherical_k_means(others, others[drawn]))
            self.due = held
        self.due -= random.global_rows(batch)
        of_others = nearest(others, self.centroids)
        sizes = F.one_hot(of_others, clusters).sum(dim=0)
        between = self.centroids @ self.centroids.T
        farthest = between.masked_fill(sizes == 0, torch.inf).argmin(dim=1)  # of each cluster
        chosen = farthest[nearest(clips, self.centroids)]  # of each clip
        likeness = (clips @ others.T).masked_fill(of_others != chosen[:, None], torch.inf)
        least = likeness.topk(min(self.candidates, held), largest=False).indices
        count = sizes[chosen].clamp(max=self.candidates)
        place = (random.uniform(batch).to(count.device, non_blocking=True) * count).long()
        return least.gather(1, place[:, None])[:, 0]


def mean_spectrum(log_mels: Tensor) -> Tensor:
    """Average log-mels (batch, n_mels, frames) over time, to unit length; shape (batch, n_mels)."""
    return F.normalize(log_mels.mean(dim=2), dim=1)


def nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """Return the centroid of the largest cosine for each unit row, shape (rows,)."""
    return (rows @ centroids.T).argmax(dim=1)


def spherical_k_means(rows: Tensor, starts: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Move centroids to the mean direction of the rows nearest to them, so many times.

    Args:
        rows: of unit length, shape (rows, features).
        starts: the first centroids, likewise, shape (clusters, features).
        iterations: of assigning and moving.

    Returns:
        Centroids of unit length, shape (clusters, features). One without rows stays where it is.
    """
    centroids = starts
    for _ in range(iterations):
        # A product instead of index_add: the order of its sums is fixed on a GPU too.
        members = F.one_hot(nearest(rows, centroids), len(starts)).to(rows)  # (rows, clusters)
        sums = members.T @ rows
        moved = sums.square().sum(dim=1, keepdim=True) > 0
        centroids = torch.where(moved, F.normalize(sums, dim=1), centroids)
    return centroids
