"""Random resize crop against a slow version of one clip, written off the description.

What was drawn is found again from the result, so that no test depends on the order of the draws.
"""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.learning.augmentations.random_resize_crop import (
    RandomResizeCrop,
    add_by_comparison,
    add_by_scatter,
    resize_matrices,
)
from lape_bench.runtime.batch_random import BatchRandom


def draw(seed: int) -> BatchRandom:
    return BatchRandom(torch.Generator().manual_seed(seed))


def log_mels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=draw(100 + seed).generator)


def box_by_hand(x: Tensor, top: int, left: int, height: int, width: int, canvas: float) -> Tensor:
    """Cut a box from the canvas around log-mels (batch, n_mels, frames) and resize it back."""
    _, n_mels, frames = x.shape
    length = int(frames * canvas)
    ground = x.new_zeros(len(x), n_mels, length)
    begin = (length - frames) // 2
    ground[:, :, begin : begin + frames] = x
    crop = ground[:, None, top : top + height, left : left + width]
    return F.interpolate(crop, size=(n_mels, frames), mode="bicubic", align_corners=True)[:, 0]


Box = tuple[int, int, int, int]  # top, left, height, width


def boxes(n_mels: int, frames: int) -> Iterator[Box]:
    """Every box that the published scales allow."""
    length = int(frames * 1.5)
    for height in range(int(0.6 * n_mels), n_mels + 1):
        for width in range(int(0.6 * frames), length + 1):
            for top in range(n_mels - height + 1):
                for left in range(length - width + 1):
                    yield top, left, height, width


def find_boxes(views: Tensor, clips: Tensor) -> list[Box]:
    """Return which one box of its clip each view is."""
    found: list[list[Box]] = [[] for _ in views]
    for box in boxes(*clips.shape[1:]):
        same = (views - box_by_hand(clips, *box, 1.5)).abs().amax(dim=(1, 2)) < 1e-4
        for index in same.nonzero()[:, 0].tolist():
            found[index].append(box)
    assert [len(each) for each in found] == [1] * len(views)
    return [box for (box,) in found]


@pytest.mark.parametrize(("n_mels", "frames"), [(6, 8), (5, 7)])
def test_each_view_is_the_bicubic_resize_of_one_box_of_the_canvas(n_mels: int, frames: int) -> None:
    x = log_mels(1, n_mels, frames).expand(300, -1, -1)
    drawn = find_boxes(RandomResizeCrop()(x, draw(0)), x)
    tops, lefts, heights, widths = (set(each) for each in zip(*drawn, strict=True))
    length = int(frames * 1.5)
    shortest = {size: int(0.6 * size) for size in (n_mels, frames)}
    # Every height, every width but the canvas's own (scale 1.5, drawn with probability 0), and the edges.
    assert heights == set(range(shortest[n_mels], n_mels + 1))
    assert widths >= set(range(shortest[frames], int(frames * 1.5 - 1e-9)))
    assert tops == set(range(n_mels - shortest[n_mels] + 1))
    assert {0, length - shortest[frames]} <= lefts


def test_half_of_the_heights_are_the_whole_height() -> None:
    # The scale is uniform in [0.6, 1.5], and what is over 1 is cut to the canvas, which is 1 high.
    x = torch.arange(64.0)[None, :, None].expand(900, -1, 8)
    views = RandomResizeCrop(canvas=1.0, time_scale=(1.0, 1.0))(x, draw(0))
    whole = torch.isclose(views, x, atol=1e-3).flatten(1).all(dim=1)
    assert whole.double().mean() == pytest.approx(0.5 / 0.9, abs=0.06)


def test_a_box_as_large_as_clip_and_canvas_is_the_clip_itself() -> None:
    x = log_mels(4, 16, 20)
    identity = RandomResizeCrop(canvas=1.0, frequency_scale=(1.0, 1.0), time_scale=(1.0, 1.0))
    assert_close(identity(x, draw(0)), x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 64, 101), (3, 64, 13), (2, 1, 1)])
def test_a_crop_keeps_shape_and_type(shape: tuple[int, ...]) -> None:
    views = RandomResizeCrop()(log_mels(*shape), draw(0))
    assert (views.shape, views.dtype) == (shape, torch.float32)
    assert torch.isfinite(views).all()


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13])
def test_resize_matrices_agree_with_torch_for_every_range(size: int) -> None:
    beside = 2 * size  # zeros on both sides of the signal
    signal = F.pad(log_mels(size), (beside, beside))
    for length in range(1, 2 * size + 1):
        starts = torch.arange(-beside, size + beside - length + 1)
        crops = torch.stack([signal[s + beside : s + beside + length] for s in starts.tolist()])
        expected = F.interpolate(
            crops[:, None, :, None], size=(size, 1), mode="bicubic", align_corners=True
        )[:, 0, :, 0]
        matrices = resize_matrices(starts, torch.full_like(starts, length), size)
        assert matrices.shape == (len(starts), size, size)
        assert_close(matrices @ signal[beside : beside + size], expected, rtol=1e-4, atol=1e-5)


def test_resize_matrices_of_different_ranges_stand_side_by_side() -> None:
    starts, lengths = torch.tensor([0, -3, 4, 2]), torch.tensor([9, 12, 5, 1])
    together = resize_matrices(starts, lengths, 9)
    alone = [
        resize_matrices(*pair, 9) for pair in zip(starts.split(1), lengths.split(1), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


@given(size=st.integers(1, 12), data=st.data())
def test_a_range_inside_the_signal_keeps_a_constant_signal(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - start))
    matrix = resize_matrices(torch.tensor([start]), torch.tensor([length]), size)[0]
    assert_close(matrix.sum(dim=1), torch.ones(size))


def test_what_a_gpu_compares_adds_up_to_the_bit_to_what_a_cpu_scatters(
    generator: torch.Generator,
) -> None:
    column = torch.randint(0, 9, (5, 8, 1), generator=generator)
    scattered, compared = (torch.zeros(5, 8, 9, dtype=torch.float64) for _ in range(2))
    for _ in range(4):
        weight = torch.randn(5, 8, 1, generator=generator, dtype=torch.float64)
        add_by_scatter(scattered, column, weight)
        add_by_comparison(compared, column, weight)
    assert scattered.count_nonzero() == 5 * 8
    assert torch.equal(scattered, compared)
