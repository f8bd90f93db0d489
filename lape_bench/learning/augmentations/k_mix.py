"""k-mix: the background of log-mixup-exp comes from the cluster least similar to the clip (SLICER, arXiv:2211.01519).

As in the authors' code:

1. A clip is described by its log-mel spectrogram averaged over time.
2. Four clusters are fitted by spherical k-means: 20 iterations from random clips.
3. Each clip, and each clip of the memory bank, belongs to the nearest centroid.
4. The cluster whose centroid is farthest from that of the clip's own cluster is chosen, among clusters with clips in the bank.
5. One of 128 of its clips is drawn as the background.

Three things differ:

- The authors fit the clusters once, to a random twentieth of the corpus, and to log-mels that are not normalized although the
  clips sorted into them are. Here the clusters are fitted to the bank's normalized log-mels, again each time as many clips
  have been mixed as the bank holds.
- The authors' 128 clips are the oldest. Here they are those least similar to the clip.
- The authors take any background until the bank holds 128 clips. A corpus may be smaller than that here.

The average of a log-mel spectrogram depends much on its gain, so the clusters are in part clusters of gain.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.learning.augmentations.log_mixup_exp import random_background
from lape_bench.runtime.batch_random import BatchRandom

ITERATIONS = 20


class FarthestCluster(nn.Module):
    """Choose as background a clip of the cluster farthest from the clip's own; a `BackgroundChoice`.

    A checkpoint holds the centroids, and how many clips remain until the next fit.

    Args:
        n_mels: mel bands of a log-mel spectrogram.
        clusters: k of k-means.
        candidates: the background is drawn from at most this many clips of the cluster, those least similar to the
            clip.
    """

    centroids: Tensor

    def __init__(self, n_mels: int, clusters: int = 4, candidates: int = 128) -> None:
        super().__init__()
        self.candidates = candidates
        self.register_buffer("centroids", torch.zeros(clusters, n_mels))
        self.clips_until_fit = 0

    def get_extra_state(self) -> int:
        """Return the state that is not a buffer, for a checkpoint."""
        return self.clips_until_fit

    def set_extra_state(self, state: int) -> None:
        """Continue from a checkpoint."""
        self.clips_until_fit = state

    @torch.no_grad()
    def forward(self, log_mels: Tensor, memory: Tensor, random: BatchRandom) -> Tensor:
        """Choose a background for each log-mel spectrogram.

        As long as the memory holds fewer clips than there are clusters, any of its clips is drawn.

        Args:
            log_mels: shape (batch, n_mels, frames).
            memory: log-mels to choose from, shape (memory, n_mels, frames).
            random: draws for the rows of the batch.

        Returns:
            A row of the memory for each clip, shape (batch,), int64.
        """
        batch, stored, clusters = len(log_mels), len(memory), len(self.centroids)
        if stored < clusters:
            return random_background(log_mels, memory, random)
        spectra, stored_spectra = mean_spectrum(log_mels), mean_spectrum(memory)
        if self.clips_until_fit <= 0:
            starts = random.distinct(stored, clusters).to(memory.device, non_blocking=True)
            self.centroids.copy_(spherical_k_means(stored_spectra, stored_spectra[starts]))
            self.clips_until_fit = stored
        self.clips_until_fit -= random.global_rows(batch)
        cluster_of_stored = nearest(stored_spectra, self.centroids)
        sizes = F.one_hot(cluster_of_stored, clusters).sum(dim=0)
        centroid_similarity = self.centroids @ self.centroids.T
        # For each cluster, the one farthest from it; then, for each clip, the one farthest from its own.
        farthest = centroid_similarity.masked_fill(sizes == 0, torch.inf).argmin(dim=1)
        chosen = farthest[nearest(spectra, self.centroids)]
        similarity = (spectra @ stored_spectra.T).masked_fill(
            cluster_of_stored != chosen[:, None], torch.inf
        )
        least_similar = similarity.topk(min(self.candidates, stored), largest=False).indices
        count = sizes[chosen].clamp(max=self.candidates)
        place = (random.uniform(batch).to(count.device, non_blocking=True) * count).long()
        return least_similar.gather(1, place[:, None])[:, 0]


def mean_spectrum(log_mels: Tensor) -> Tensor:
    """Average log-mels of shape (batch, n_mels, frames) over time, and scale to unit length: shape (batch, n_mels)."""
    return F.normalize(log_mels.mean(dim=2), dim=1)


def nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """Return the index of the centroid with the largest cosine for each row of unit length, shape (rows,)."""
    return (rows @ centroids.T).argmax(dim=1)


def spherical_k_means(rows: Tensor, starts: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Cluster directions by Lloyd's algorithm with the cosine as similarity.

    Args:
        rows: of unit length, shape (rows, features).
        starts: the first centroids, of unit length, shape (clusters, features).
        iterations: how often rows are assigned and centroids moved to the mean direction of their rows.

    Returns:
        Centroids of unit length, shape (clusters, features). A centroid without rows stays where it is.
    """
    centroids = starts
    for _ in range(iterations):
        # A product instead of index_add: the order of its sums is fixed on a GPU too.
        members = F.one_hot(nearest(rows, centroids), len(starts)).to(rows)  # (rows, clusters)
        sums = members.T @ rows
        moved = sums.square().sum(dim=1, keepdim=True) > 0
        centroids = torch.where(moved, F.normalize(sums, dim=1), centroids)
    return centroids
