"""Views of a batch at once, from the store, against one clip after the other, from its file, as published code makes them."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lape_bench.learning.augmentations.random_gain import random_gains
from lape_bench.learning.augmentations.random_resize_crop import RandomResizeCrop
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.log_mel import LogMel
from lape_bench.learning.training.batches import DeviceClips, random_windows
from lape_bench.runtime.batch_random import BatchRandom

BATCH, N_MELS, FRAMES, RATE = 64, 64, 101, 16_000


def crop_one(x: Tensor, generator: torch.Generator) -> Tensor:
    """Crop and resize one clip, shape (n_mels, frames), on a canvas of its own."""
    length = int(FRAMES * 1.5)
    canvas = x.new_zeros(N_MELS, length)
    left = (length - FRAMES) // 2
    canvas[:, left : left + FRAMES] = x
    u = torch.rand(4, generator=generator)
    height = min(int(N_MELS * (0.6 + 0.9 * u[0])), N_MELS)
    width = min(int(FRAMES * (0.6 + 0.9 * u[1])), length)
    top = int(u[2] * (N_MELS - height + 1))
    begin = int(u[3] * (length - width + 1))
    crop = canvas[None, None, top : top + height, begin : begin + width]
    return F.interpolate(crop, (N_MELS, FRAMES), mode="bicubic", align_corners=True)[0, 0]


class OneByOne(Dataset[Tensor]):
    """Two views of each clip of a folder, each from its file: read, turned to a log-mel, mixed with the one before, cropped.

    With librosa, as LAPE's code has it.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.wav"))
        self.librosa = pytest.importorskip("librosa", reason="the published way needs librosa")
        self.draw = torch.Generator()
        self.before = torch.zeros(N_MELS, FRAMES)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        samples, _ = self.librosa.load(self.paths[index], sr=RATE)
        power = self.librosa.feature.melspectrogram(
            y=samples, sr=RATE, n_fft=1024, hop_length=160, fmin=60, fmax=7800, n_mels=N_MELS
        )
        log_mel = torch.from_numpy(np.log(power + 1e-6))
        views = []
        for _ in range(2):
            a = 0.4 * float(torch.rand(1, generator=self.draw)) + 1e-6
            mixed = torch.logaddexp(log_mel + math.log(1 - a), self.before + math.log(a))
            views.append(crop_one(mixed, self.draw))
        self.before = log_mel
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
    log_mels = torch.randn(BATCH, N_MELS, FRAMES)
    crop, generator = RandomResizeCrop(), torch.Generator()
    random = BatchRandom(generator)
    benchmark(lambda: crop(log_mels, random))
    one_by_one = seconds(lambda: torch.stack([crop_one(x, generator) for x in log_mels]))
    ratio = one_by_one / seconds(lambda: crop(log_mels, random))
    benchmark.extra_info["crops: times faster than one by one"] = round(ratio, 1)
    assert ratio > 1.5


def test_two_views_of_each_clip_are_made_several_times_faster_than_by_two_workers(
    tmp_path: Path, benchmark: Any
) -> None:
    count = 20 * BATCH
    noise = 0.1 * np.random.default_rng(0).standard_normal((count, RATE), dtype=np.float32)
    for n, samples in enumerate(noise):
        soundfile.write(tmp_path / f"{n:05d}.wav", samples, RATE)
    loader = DataLoader(OneByOne(tmp_path), BATCH, num_workers=2, persistent_workers=True)
    by_workers = seconds(lambda: list(loader), rounds=3)

    starts, lengths = torch.arange(count) * RATE, torch.full((count,), RATE)
    clips = DeviceClips(torch.from_numpy(noise.ravel()), starts, lengths, torch.device("cpu"))
    log_mel, views, draw = LogMel(), Views((N_MELS, FRAMES), count), BatchRandom(torch.Generator())

    def at_once() -> None:
        for batch in torch.arange(count).split(BATCH):
            waveforms = random_windows(clips, batch, RATE, draw)
            views(log_mel(waveforms, random_gains(2, waveforms, 10.0, draw)), draw)

    benchmark.pedantic(at_once, rounds=5, warmup_rounds=1)
    ours = seconds(at_once, rounds=5)
    benchmark.extra_info["two views: times faster than by two workers"] = round(
        by_workers / ours, 1
    )
    benchmark.extra_info["clips a second"] = round(count / ours)
    assert by_workers / ours > 3
