"""Random resize crop: a random box of a log-mel spectrogram, resized (BYOL-A, arXiv:2103.06695, Sec. III-C)."""

import torch
from torch import Tensor, nn

from lape_bench.runtime.batch_random import BatchRandom

CUBIC_A = -0.75  # of the cubic convolution kernel, as torch's own bicubic interpolation has it


class RandomResizeCrop(nn.Module):
    """Crop a random box from a canvas around each log-mel and resize it back (Sec. III-C).

    The canvas is as high as the log-mel and `canvas` times as long. Its margins are zero, the mean of normalized log-mels.
    Height and width of the box are those of the log-mel times a scale that is uniform in its range, and at most those of
    the canvas. Resizing is bicubic with aligned corners.

    Cubic interpolation is linear and separable. So the crop and resize of a clip is a product with one matrix for frequency
    and one for time, and that of a batch is two batched products.

    Args:
        canvas: length of the canvas, relative to the log-mel.
        frequency_scale: range of the height of the box, relative to the log-mel.
        time_scale: range of its width, relative to the log-mel.
    """

    def __init__(
        self,
        canvas: float = 1.5,
        frequency_scale: tuple[float, float] = (0.6, 1.5),
        time_scale: tuple[float, float] = (0.6, 1.5),
    ) -> None:
        super().__init__()
        self.canvas, self.frequency_scale, self.time_scale = canvas, frequency_scale, time_scale

    @torch.no_grad()
    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        """Crop and resize log-mels.

        Args:
            log_mels: normalized, shape (batch, n_mels, frames).
            random: draws for the rows of the batch.

        Returns:
            Same shape.
        """
        batch, n_mels, frames = log_mels.shape
        length = int(frames * self.canvas)
        top, height = _draw_boxes(batch, n_mels, n_mels, self.frequency_scale, random)
        left, width = _draw_boxes(batch, frames, length, self.time_scale, random)
        left = left - (length - frames) // 2  # from canvas to log-mel coordinates
        drawn = torch.stack([top, height, left, width]).to(log_mels.device, non_blocking=True)
        top, height, left, width = drawn.unbind()
        by_band = resize_matrices(top, height, n_mels).to(log_mels)
        by_frame = resize_matrices(left, width, frames).to(log_mels)
        return by_band @ log_mels @ by_frame.transpose(1, 2)


def resize_matrices(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Build the matrices that cut a range from a signal and resize it back to the signal's size.

    Args:
        start: first sample of each range, shape (batch,), int64; it may be negative.
        length: samples of each range, at least 1, same shape.
        size: samples of the signal, and of the result.

    Returns:
        Shape (batch, size, size), float32, on the device of the arguments; row i holds the weights of output i. Samples
        outside the signal are zero. At the edges of a range its outermost sample is repeated.
    """
    step = (length - 1) / max(size - 1, 1)
    position = torch.arange(size, device=start.device) * step[:, None].double()  # (batch, size)
    left = position.floor()
    t = position - left
    matrices = position.new_zeros(len(start), size, size + 1)
    for tap, distance in ((-1, t + 1), (0, t), (1, 1 - t), (2, 2 - t)):
        inside_range = torch.minimum((left.long() + tap).clamp(min=0), length[:, None] - 1)
        column = inside_range + start[:, None]
        column = torch.where(
            (column >= 0) & (column < size), column, size
        )  # the spare column is cut off
        add = add_by_scatter if matrices.device.type == "cpu" else add_by_comparison
        add(matrices, column[:, :, None], _cubic(distance)[:, :, None])
    return matrices[:, :, :size].float()


def add_by_scatter(matrices: Tensor, column: Tensor, weight: Tensor) -> None:
    """Add a weight to one column of every row of matrices (batch, size, columns), in place.

    Args:
        matrices: shape (batch, size, columns).
        column: index of the column, shape (batch, size, 1).
        weight: same shape.
    """
    matrices.scatter_add_(2, column, weight)


def add_by_comparison(matrices: Tensor, column: Tensor, weight: Tensor) -> None:
    """Do what `add_by_scatter` does, on a GPU: a scatter that repeats exactly there sorts, in many kernels."""
    columns = torch.arange(matrices.shape[2], device=matrices.device)
    matrices.add_(torch.where(columns == column, weight, 0))


def _cubic(distance: Tensor) -> Tensor:
    """Return the cubic convolution kernel of Keys (1981) at distances in [0, 2]."""
    a, d = CUBIC_A, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)


def _draw_boxes(
    batch: int, size: int, room: int, scale: tuple[float, float], random: BatchRandom
) -> tuple[Tensor, Tensor]:
    """Draw start and length of a range within [0, room) for each clip, both of shape (batch,), int64."""
    low, high = scale
    factor = low + (high - low) * random.uniform(batch, dtype=torch.float64)
    length = (size * factor).long().clamp(1, room)
    place = random.uniform(batch, dtype=torch.float64)
    return (place * (room - length + 1)).long(), length
