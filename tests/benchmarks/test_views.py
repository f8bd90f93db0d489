"""A batch of views at once against one clip after the other, as published code makes them."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lape_bench.learning.augment import RandomResizeCrop

BATCH, BANDS, FRAMES = 64, 64, 101


def one_by_one(log_mels: Tensor, generator: torch.Generator) -> Tensor:
    """Crop and resize each clip on a canvas of its own."""
    views = []
    for x in log_mels:
        length = int(FRAMES * 1.5)
        canvas = x.new_zeros(BANDS, length)
        left = (length - FRAMES) // 2
        canvas[:, left : left + FRAMES] = x
        u = torch.rand(4, generator=generator)
        height = min(int(BANDS * (0.6 + 0.9 * u[0])), BANDS)
        width = min(int(FRAMES * (0.6 + 0.9 * u[1])), length)
        top = int(u[2] * (BANDS - height + 1))
        begin = int(u[3] * (length - width + 1))
        crop = canvas[None, None, top : top + height, begin : begin + width]
        views.append(F.interpolate(crop, (BANDS, FRAMES), mode="bicubic", align_corners=True)[0, 0])
    return torch.stack(views)


def seconds(work: Callable[[], object], rounds: int = 20) -> float:
    """Shortest of some runs."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def test_a_batch_of_crops_is_faster_than_its_clips_one_by_one(
    benchmark: Any,
) -> None:
    log_mels = torch.randn(BATCH, BANDS, FRAMES)
    crop, generator = RandomResizeCrop(), torch.Generator()
    benchmark(lambda: crop(log_mels, generator))
    ratio = seconds(lambda: one_by_one(log_mels, generator)) / seconds(
        lambda: crop(log_mels, generator)
    )
    benchmark.extra_info["times faster than one by one"] = round(ratio, 1)
    assert ratio > 1.5
