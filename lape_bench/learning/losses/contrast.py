"""Contrastive losses: tell the other view of the same clip from other clips.

InfoNCE (arXiv:1807.03748) as three systems have it: against a queue of negatives (MoCo), among all views of the batch
(SimCLR), and by a learned similarity (COLA).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lape_bench.learning.losses.pairs import check_pairs


def info_nce(
    queries: Tensor,
    keys: Tensor,
    negatives: Tensor,
    temperature: float,
    allowed: Tensor | None = None,
) -> Tensor:
    """Classify each query's own key among the negatives: Eq. (1) of arXiv:1911.05722.

    Args:
        queries: shape (batch, features); rows are normalized here.
        keys: keys of the other view of each clip, same shape.
        negatives: keys of other clips, shape (negatives, features).
        temperature: tau, divides the cosines.
        allowed: True for rows of `negatives` that count for a query, shape (batch, negatives); None counts all.

    Returns:
        Mean of -log(exp(q.k+ / tau) / (exp(q.k+ / tau) + sum exp(q.k- / tau))), a scalar.
    """
    q, k, others = (F.normalize(z, dim=1) for z in (queries, keys, negatives))
    positive = (q * k).sum(dim=1, keepdim=True)
    against = q @ others.T
    if allowed is not None:
        against = against.masked_fill(~allowed, -torch.inf)
    logits = torch.cat([positive, against], dim=1) / temperature
    return -logits.log_softmax(dim=1)[:, 0].mean()


def nt_xent(z_a: Tensor, z_b: Tensor, temperature: float) -> Tensor:
    """Classify each view's own partner among all other views of the batch: Eq. (1) of arXiv:2002.05709.

    Args:
        z_a: projections of the first view, shape (batch, features); rows are normalized here.
        z_b: projections of the second view, same shape.
        temperature: tau, divides the cosines.

    Returns:
        Mean over the 2 batch views i, with partner j, of -log(exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau)),
        a scalar.

    Raises:
        ValueError: the shapes differ, or the batch holds fewer than two clips.
    """
    check_pairs(z_a, z_b)
    batch = len(z_a)
    z = F.normalize(torch.cat([z_a, z_b]), dim=1)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(2 * batch, dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(2 * batch, device=z.device).roll(batch)
    return F.cross_entropy(logits, partner)


def bilinear_contrast(anchors: Tensor, positives: Tensor, weight: Tensor) -> Tensor:
    """Classify each anchor's own positive among those of the batch by a learned similarity (arXiv:2010.10915, Sec. 2).

    Args:
        anchors: projections g(x) of one segment of each clip, shape (batch, features).
        positives: projections g(x') of another segment of each clip, same shape.
        weight: W of the similarity s(x, x') = g(x)^T W g(x'), shape (features, features).

    Returns:
        Mean over the anchors i of -log(exp(s_ii) / sum_j exp(s_ij)), a scalar.

    Raises:
        ValueError: the shapes differ, or the batch holds fewer than two clips.
    """
    check_pairs(anchors, positives)
    similarity = anchors @ weight @ positives.T
    return -similarity.log_softmax(dim=1).diagonal().mean()
