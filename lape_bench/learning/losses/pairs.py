"""Two views of a batch: each row of the one belongs to a row of the other."""

from torch import Tensor


def check_pairs(z_a: Tensor, z_b: Tensor) -> None:
    """Refuse views that cannot be compared over the batch.

    Args:
        z_a: projections of the first view, shape (batch, features).
        z_b: projections of the second view, same shape.

    Raises:
        ValueError: the shapes differ, or the batch holds fewer than two clips.
    """
    if z_a.shape != z_b.shape or len(z_a) < 2:
        raise ValueError(
            f"views have shapes {tuple(z_a.shape)} and {tuple(z_b.shape)}; need one shape and at least 2 "
            "clips. Raise batch_size."
        )
