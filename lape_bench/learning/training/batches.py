"""Clips become batches of waveforms on the device; windows are cut there, for a whole batch at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape_bench.data.audio_store import Clips
from lape_bench.runtime.batch_random import BatchRandom

REMAINDER = 0.1  # a rest of at most this share of a window gets no window of its own
SAMPLES_A_BATCH = 64 * 16_000  # of whole clips of one length, which bounds the memory of a batch


@dataclass(frozen=True)
class DeviceClips:
    """Clips whose audio is on the device where it fits, and is gathered from the store where it does not.

    Attributes:
        samples: all audio, shape (total samples,).
        starts: first sample of each clip, shape (clips,), on the samples' device.
        lengths: samples of each clip, same shape and device.
        device: where batches go.
    """

    samples: Tensor
    starts: Tensor
    lengths: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.starts)


def to_device(clips: Clips, device: torch.device) -> DeviceClips:
    """Move clips to the device if they fit; else leave them mapped and move each batch."""
    held = torch.from_numpy(clips.samples)
    if not isinstance(clips.samples, np.memmap):
        held = held.to(device)
    where = held.device
    starts, lengths = (torch.from_numpy(a).to(where) for a in (clips.starts, clips.lengths))
    return DeviceClips(held, starts, lengths, device)


def random_windows(clips: DeviceClips, indices: Tensor, window: int, random: BatchRandom) -> Tensor:
    """Cut one random window from each clip; a shorter clip is zero-padded on both sides.

    Args:
        clips: the clips.
        indices: which of them, shape (batch,).
        window: samples of a window.
        draws: of the batch.

    Returns:
        Shape (batch, window), on the clips' device.
    """
    where = clips.lengths.device
    indices = indices.to(where, non_blocking=True)
    room = clips.lengths[indices] - window
    uniform = random.uniform(len(indices), dtype=torch.float64)
    uniform = uniform.to(where, non_blocking=True)
    inside = (uniform * (room + 1).clamp(min=1)).long()
    offsets = torch.where(
        room >= 0, inside, room // 2
    )  # a negative offset is padding before the clip
    return cut_windows(clips, indices, offsets, window)


def cut_windows(clips: DeviceClips, indices: Tensor, offsets: Tensor, window: int) -> Tensor:
    """Cut windows at given offsets; what lies outside a clip is zero.

    Args:
        clips: the clips.
        indices: which of them, shape (batch,).
        offsets: first sample of each window in its clip, may be negative, shape (batch,).
        window: samples of a window.

    Returns:
        Shape (batch, window), on the clips' device.
    """
    where = clips.samples.device
    laid = cut_by_copying if where.type == "cpu" else cut_by_indexing
    windows = laid(clips, indices.to(where), offsets.to(where), window)
    return windows.to(clips.device, non_blocking=True)


def cut_by_indexing(clips: DeviceClips, indices: Tensor, offsets: Tensor, window: int) -> Tensor:
    """Cut all windows of a batch by one index, as an accelerator likes it; arguments as of `cut_windows`."""
    position = offsets[:, None] + torch.arange(window, device=offsets.device)
    inside = (position >= 0) & (position < clips.lengths[indices, None])
    source = (clips.starts[indices, None] + position).clamp_(0, len(clips.samples) - 1)
    return torch.where(inside, clips.samples[source], 0)


def cut_by_copying(clips: DeviceClips, indices: Tensor, offsets: Tensor, window: int) -> Tensor:
    """Cut the same windows one by one: on a CPU an index for every sample takes twenty times as long as copying."""
    windows, samples = np.zeros((len(indices), window), np.float32), clips.samples.numpy()
    begins, lengths = clips.starts[indices].tolist(), clips.lengths[indices].tolist()
    for row, begin, length, offset in zip(windows, begins, lengths, offsets.tolist(), strict=True):
        first, last = max(offset, 0), min(offset + window, length)
        if first < last:
            row[first - offset : last - offset] = samples[begin + first : begin + last]
    return torch.from_numpy(windows)


def consecutive_windows(lengths: NDArray[np.int64], window: int) -> tuple[Tensor, Tensor]:
    """Lay windows over whole clips: evenly spaced, the first at the start, the last at the end.

    A clip gets as many as it holds, rounded up unless the rest is at most a tenth of a window;
    a clip of about one window or less gets one, in its middle.

    Args:
        lengths: samples of each clip, shape (clips,).
        window: samples of a window.

    Returns:
        Clip index and offset of each window, both of shape (windows,), in the clips' order.
    """
    counts = np.maximum(1, np.ceil(lengths / window - REMAINDER)).astype(np.int64)
    clip = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)
    room = (lengths - window)[clip]
    steps = np.maximum(counts[clip] - 1, 1)
    offsets = np.where(counts[clip] > 1, nth * room // steps, room // 2)
    return torch.from_numpy(clip), torch.from_numpy(offsets)


def whole_clip_batches(
    clips: Clips, device: torch.device
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Go through whole clips without padding, in batches of one length.

    Yields:
        Clip indices, shape (batch,), and waveforms, shape (batch, samples).
    """
    order = np.argsort(clips.lengths, kind="stable")
    edges = np.flatnonzero(np.diff(clips.lengths[order])) + 1
    for same in np.split(order, edges):
        if len(same):
            size = max(1, SAMPLES_A_BATCH // int(clips.lengths[same[0]]))
            for begin in range(0, len(same), size):
                indices = same[begin : begin + size]
                waveforms = np.stack([clips[int(index)] for index in indices])
                yield indices, torch.from_numpy(waveforms).to(device)
