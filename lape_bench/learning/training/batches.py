"""Batches of waveforms on the device: random windows, consecutive windows, and whole clips."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape_bench.data.audio_store import Clips
from lape_bench.data.stored_samples import STEP
from lape_bench.data.streams.streamed_clips import CorpusClips, StreamedClips
from lape_bench.runtime.batch_random import BatchRandom

REMAINDER = 0.1  # a remainder of at most this share of a window gets no window of its own
POOL_BYTES = (
    2**29
)  # of encoded clips that are shuffled together; half of the row groups that stay in memory
SAMPLES_A_BATCH = 64 * 16_000  # of whole clips of one length, which bounds the memory of a batch


@dataclass(frozen=True)
class DeviceClips:
    """Clips whose audio is on the device if it fits there, and otherwise stays in a memory-mapped file.

    Attributes:
        samples: all audio, shape (total samples,), float32 or int16; see `Clips`.
        starts: index of each clip's first sample, shape (clips,), on the device of the samples.
        lengths: samples of each clip, same shape and device.
        device: the device of the batches.
    """

    samples: Tensor
    starts: Tensor
    lengths: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.starts)

    def batches(self, batches: Iterable[Tensor]) -> "Iterator[tuple[DeviceClips, Tensor]]":
        """Yield for each batch of clip indices, shape (batch,), clips that hold it, and its indices among them."""
        for batch in batches:
            yield self, batch


@dataclass(frozen=True)
class DeviceStream:
    """Streamed clips whose audio is decoded for each batch.

    Attributes:
        clips: the clips.
        device: the device of the batches.
    """

    clips: StreamedClips
    device: torch.device

    def __len__(self) -> int:
        return len(self.clips)

    def batches(self, batches: Iterable[Tensor]) -> Iterator[tuple[DeviceClips, Tensor]]:
        """Yield for each batch of clip indices, shape (batch,), its decoded clips, and its indices among them."""
        indices: deque[NDArray[np.int64]] = deque()  # of batches that are decoded ahead

        def distinct() -> Iterator[NDArray[np.int64]]:
            for batch in batches:
                clips, inverse = np.unique(batch.numpy(), return_inverse=True)
                indices.append(inverse)
                yield clips

        for waveforms in self.clips.batches(distinct()):
            lengths = torch.tensor([len(waveform) for waveform in waveforms])
            samples = torch.from_numpy(np.concatenate(waveforms))
            clips = DeviceClips(samples, lengths.cumsum(0) - lengths, lengths, self.device)
            yield clips, torch.from_numpy(indices.popleft())


@overload
def to_device(clips: Clips, device: torch.device) -> DeviceClips: ...
@overload
def to_device(clips: CorpusClips, device: torch.device) -> DeviceClips | DeviceStream: ...
def to_device(clips: CorpusClips, device: torch.device) -> DeviceClips | DeviceStream:
    """Move clips to the device, unless they are memory-mapped or streamed: then each batch is moved."""
    if isinstance(clips, StreamedClips):
        return DeviceStream(clips, device)
    samples = torch.from_numpy(clips.samples)
    if not isinstance(clips.samples, np.memmap):
        samples = samples.to(device)
    where = samples.device
    starts, lengths = (torch.from_numpy(a).to(where) for a in (clips.starts, clips.lengths))
    return DeviceClips(samples, starts, lengths, device)


def shuffled(clips: CorpusClips, generator: torch.Generator) -> Tensor:
    """Return the indices of all clips in random order, shape (clips,), on the CPU.

    If streamed clips are read in blocks that do not fit into memory together, the blocks are shuffled, and then the clips
    of every `POOL_BYTES` of consecutive blocks.
    """
    blocks, sizes = (
        (clips.blocks, clips.block_bytes) if isinstance(clips, StreamedClips) else (None, None)
    )
    if blocks is None or sizes is None or sizes.sum() <= POOL_BYTES:
        return torch.randperm(len(clips), generator=generator)
    ends = np.append(blocks[1:], len(clips))
    order = torch.randperm(len(blocks), generator=generator).numpy()
    sizes = sizes[order]
    pools = np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // POOL_BYTES)) + 1
    indices = []
    for pool in np.split(order, pools):
        rows = np.concatenate([np.arange(blocks[block], ends[block]) for block in pool])
        indices.append(torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)])
    return torch.cat(indices)


def random_windows(
    clips: DeviceClips, indices: Tensor, window: int, random: BatchRandom, centered: bool = True
) -> Tensor:
    """Cut one random window from each clip; a shorter clip is zero-padded.

    Args:
        clips: the clips.
        indices: clips of the batch, shape (batch,).
        window: samples of a window.
        random: draws for the rows of the batch.
        centered: zeros are put on both sides of a shorter clip, as BYOL-A does; otherwise all zeros follow it.

    Returns:
        Shape (batch, window), float32, on the device of the clips.
    """
    device_of_clips = clips.lengths.device
    indices = indices.to(device_of_clips, non_blocking=True)
    room = clips.lengths[indices] - window
    uniform = random.uniform(len(indices), dtype=torch.float64)
    uniform = uniform.to(device_of_clips, non_blocking=True)
    inside = (uniform * (room + 1).clamp(min=1)).long()
    # A negative offset is padding before the clip.
    offsets = torch.where(room >= 0, inside, room // 2 if centered else 0)
    return cut_windows(clips, indices, offsets, window)


def cut_windows(clips: DeviceClips, indices: Tensor, offsets: Tensor, window: int) -> Tensor:
    """Cut windows at given offsets; samples outside a clip are zero.

    Args:
        clips: the clips.
        indices: the clip of each window, shape (batch,).
        offsets: first sample of each window within its clip, shape (batch,); it may be negative.
        window: samples of a window.

    Returns:
        Shape (batch, window), float32, on the device of the clips.
    """
    device_of_clips = clips.samples.device
    cut = cut_by_copying if device_of_clips.type == "cpu" else cut_by_indexing
    windows = cut(clips, indices.to(device_of_clips), offsets.to(device_of_clips), window)
    windows = windows.to(clips.device, non_blocking=True)
    return windows if windows.dtype == torch.float32 else windows.float().mul_(STEP)


def cut_by_indexing(clips: DeviceClips, indices: Tensor, offsets: Tensor, window: int) -> Tensor:
    """Cut all windows of a batch with one index operation, which is fast on a GPU; arguments as of `cut_windows`.

    The windows have the type of the stored samples, and so have those of `cut_by_copying`.
    """
    position = offsets[:, None] + torch.arange(window, device=offsets.device)
    inside = (position >= 0) & (position < clips.lengths[indices, None])
    source = (clips.starts[indices, None] + position).clamp_(0, len(clips.samples) - 1)
    return torch.where(inside, clips.samples[source], 0)


def cut_by_copying(clips: DeviceClips, indices: Tensor, offsets: Tensor, window: int) -> Tensor:
    """Cut windows one by one: on a CPU an index for every sample takes twenty times as long as copying."""
    samples = clips.samples.numpy()
    windows = np.zeros((len(indices), window), samples.dtype)
    begins, lengths = clips.starts[indices].tolist(), clips.lengths[indices].tolist()
    for row, begin, length, offset in zip(windows, begins, lengths, offsets.tolist(), strict=True):
        first, last = max(offset, 0), min(offset + window, length)
        if first < last:
            row[first - offset : last - offset] = samples[begin + first : begin + last]
    return torch.from_numpy(windows)


def consecutive_windows(
    lengths: NDArray[np.int64], window: int, centered: bool = True
) -> tuple[Tensor, Tensor]:
    """Lay evenly spaced windows over whole clips, the first at the start, the last at the end.

    The number of windows is length / window, rounded up unless the remainder is at most a tenth of a window. A clip of about
    one window or less gets one window in its middle.

    Args:
        lengths: samples of each clip, shape (clips,).
        window: samples of a window.
        centered: zeros are put on both sides of a clip that is shorter than a window; otherwise all zeros follow it.

    Returns:
        Clip index and offset of each window, both of shape (windows,), int64, in the order of the clips.
    """
    counts = np.maximum(1, np.ceil(lengths / window - REMAINDER)).astype(np.int64)
    clip = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)
    room = (lengths - window)[clip]
    steps = np.maximum(counts[clip] - 1, 1)
    middle = room // 2 if centered else np.maximum(room // 2, 0)
    offsets = np.where(counts[clip] > 1, nth * room // steps, middle)
    return torch.from_numpy(clip), torch.from_numpy(offsets)


def whole_clip_batches(
    clips: CorpusClips, device: torch.device
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Go through whole clips without padding, in batches of equal length.

    Yields:
        Clip indices, shape (batch,), and waveforms on the device, shape (batch, samples), float32.
    """
    for indices in clips_of_equal_length(clips.lengths):
        waveforms = np.stack([clips[int(index)] for index in indices])
        yield indices, torch.from_numpy(waveforms).to(device)


def clips_of_equal_length(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Divide clips into batches of equal length.

    Args:
        lengths: samples of each clip, shape (clips,).

    Yields:
        Clip indices, shape (batch,).
    """
    order = np.argsort(lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    for same in np.split(order, edges):
        if len(same):
            size = max(1, SAMPLES_A_BATCH // int(lengths[same[0]]))
            for begin in range(0, len(same), size):
                yield same[begin : begin + size]
