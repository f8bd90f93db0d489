"""The normalized mean squared error of BYOL (arXiv:2006.07733): squared distance of unit vectors."""

from torch import Tensor
from torch.nn import functional as F


def normalized_mse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Pull predictions towards the direction of their targets: Eq. (2) of arXiv:2006.07733.

    Gradients reach both arguments: detach targets that are fixed.

    Args:
        predictions: q, shape (batch, features); rows are normalized here.
        targets: z', same shape.

    Returns:
        Mean of |q / |q| - z' / |z'||^2 = 2 - 2 cos(q, z'), a scalar in [0, 4].

    Raises:
        ValueError: the shapes differ.
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions have shape {tuple(predictions.shape)}, targets {tuple(targets.shape)}; "
            "need one shape."
        )
    return (2 - 2 * F.cosine_similarity(predictions, targets, dim=1)).mean()
