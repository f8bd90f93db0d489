"""InfoNCE: tell the other view of the same clip from other clips (arXiv:1807.03748, arXiv:1911.05722)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Classify each query's own key among the negatives: Eq. (1) of arXiv:1911.05722.

    Args:
        queries: shape (batch, features); the length of a row does not matter.
        keys: the other view of each clip, same shape, likewise.
        negatives: keys of other clips, shape (negatives, features), likewise.
        temperature: tau, divides the cosines.

    Returns:
        Mean of -log(exp(q.k+ / tau) / (exp(q.k+ / tau) + sum exp(q.k- / tau))), a scalar.
    """
    q, k, others = (F.normalize(z, dim=1) for z in (queries, keys, negatives))
    positive = (q * k).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, q @ others.T], dim=1) / temperature
    return -logits.log_softmax(dim=1)[:, 0].mean()
