"""Stage 3's loss: self-distillation from a classifier to shallow heads (arXiv:2303.05668, after arXiv:1905.08094)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from lape_bench.learning.losses.normalized_mse import normalized_mse


def self_distillation(
    z: Tensor,
    shallow: Sequence[Tensor],
    labels: Tensor,
    *,
    shallow_weight: float = 0.7,
    kl_weight: float = 0.3,
    feature_weight: float = 0.003,
    label_smoothing: float = 0.0,
    stop_gradient: bool = True,
) -> Tensor:
    """Return the student's loss: classifier and shallow heads learn the pseudo-labels, and the heads follow the classifier.

    L = CE(z, y) + 0.7 sum CE(z_i, y) + 0.3 sum KL(softmax z || softmax z_i) + 0.003 sum (2 - 2 cos(z_i, z))

    Args:
        z: logits of the classifier, shape (batch, clusters).
        shallow: logits z_i of the shallow heads, each of the same shape; may be empty.
        labels: pseudo-labels y, shape (batch,).
        shallow_weight: weight of the shallow heads' cross-entropies.
        kl_weight: weight of the divergences.
        feature_weight: weight of the cosine terms.
        label_smoothing: share of each pseudo-label that all clusters divide, in the cross-entropies (arXiv:1512.00567).
        stop_gradient: True makes z a fixed target in the last two terms, as in self-distillation (arXiv:1905.08094). In the
            published code of UnFuSeD, z gets gradients from them.

    Returns:
        The mean over the batch, a scalar.
    """
    target = z.detach() if stop_gradient else z
    loss = F.cross_entropy(z, labels, label_smoothing=label_smoothing)
    for z_i in shallow:
        loss = loss + shallow_weight * F.cross_entropy(z_i, labels, label_smoothing=label_smoothing)
        loss = loss + kl_weight * kl_divergence(target, z_i)
        loss = loss + feature_weight * normalized_mse(z_i, target)
    return loss


def kl_divergence(z: Tensor, z_i: Tensor) -> Tensor:
    """Return KL(softmax z || softmax z_i) in nats, averaged over the batch.

    Args:
        z: logits of the target distribution, shape (batch, classes).
        z_i: logits of the other distribution, same shape.
    """
    p, q = z.log_softmax(dim=1), z_i.log_softmax(dim=1)
    return (p.exp() * (p - q)).sum(dim=1).mean()
