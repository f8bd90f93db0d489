"""Barlow Twins (arXiv:2103.03230): each feature agrees over two views, and different features are uncorrelated."""

from torch import Tensor
from torch.nn import functional as F

from lape_bench.learning.losses.pairs import check_pairs

CONSTANT = 1e-6  # a feature with a standard deviation below this share of its mean is constant except for rounding
TRADE_OFF = 0.0051  # lambda, of the paper and of DeLoRes' first code


def cross_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Correlate two views' features over the batch: C in Eq. (2).

    Args:
        z_a: projections of the first view, shape (batch, features).
        z_b: projections of the second view, same shape.

    Returns:
        Shape (features, features), unitless, every entry in [-1, 1].

    Raises:
        ValueError: the shapes differ, or the batch holds fewer than two clips.
    """
    check_pairs(z_a, z_b)
    a, b = _standardized(z_a), _standardized(z_b)
    return a.T @ b


def barlow_twins(z_a: Tensor, z_b: Tensor, trade_off: float = TRADE_OFF) -> Tensor:
    """Pull the cross-correlation towards the identity: Eq. (1).

    Args:
        z_a: projections of the first view, shape (batch, features).
        z_b: projections of the second view, same shape.
        trade_off: lambda, the weight of the terms off the diagonal.

    Returns:
        sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, a scalar.

    Raises:
        ValueError: as `cross_correlation`.
    """
    c = cross_correlation(z_a, z_b)
    diagonal = c.diagonal()
    invariance = (1 - diagonal).square().sum()
    redundancy = c.square().sum() - diagonal.square().sum()
    return invariance + trade_off * redundancy


def _standardized(z: Tensor) -> Tensor:
    """Center each feature over the batch and scale it to unit length; a constant feature becomes 0.

    A centered constant is rounding error. Scaled to unit length it would correlate perfectly, and its gradient would be
    enormous. This way a dead unit costs its term and not the run.
    """
    mean = z.mean(dim=0)
    centered = z - mean
    constant = centered.square().mean(dim=0).sqrt() <= CONSTANT * mean.abs().clamp(min=CONSTANT)
    return F.normalize(centered.masked_fill(constant, 0.0), dim=0)
