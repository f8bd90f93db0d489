"""The squared distance of unit vectors, by which one projection predicts another (BYOL, arXiv:2006.07733)."""

from torch import Tensor
from torch.nn import functional as F


def normalized_mse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Bring predictions to the direction of their targets: Eq. (2) of arXiv:2006.07733.

    Gradients reach both: a caller whose targets are fixed detaches them.

    Args:
        predictions: q, shape (batch, features); the length of a row does not matter.
        targets: z', same shape, likewise.

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
