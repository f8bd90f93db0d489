"""Clips that threads decode shortly before they are needed."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lape_bench.data import audio
from lape_bench.data.audio_store import Clips
from lape_bench.data.streams.shard_index import ShardIndex
from lape_bench.runtime import cpu_cores

AHEAD_SAMPLES = 2**26  # largest number of samples that are decoded in advance; 256 MiB


@dataclass(frozen=True)
class StreamedClips:
    """Clips with one sample rate whose samples are not kept, in memory or on disk. They have no names.

    Attributes:
        lengths: samples of each clip, shape (clips,).
        rate: Hz.
        key: hash of names, audio and rate; artifacts that are computed from the clips are identified by it.
        decode: from the number of a clip to its samples, shape (samples,), float32; called from several threads.
        blocks: first clip of each block, which is read as a whole, shape (blocks,); None if clips are read one by one.
        block_bytes: encoded bytes of each block, same shape.
    """

    lengths: NDArray[np.int64]
    rate: int
    key: str
    decode: Callable[[int], audio.Samples]
    blocks: NDArray[np.int64] | None = None
    block_bytes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> audio.Samples:
        """Return one clip's samples, shape (samples,), float32."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self.decode(int(index))

    @classmethod
    def of(cls, index: ShardIndex, rate: int) -> "StreamedClips":
        """Return the clips of shards, resampled to a rate in Hz."""

        def decode(clip: int) -> audio.Samples:
            samples = audio.resample(*index.read(clip), rate)
            assert len(samples) == lengths[clip], "soxr rounds as below"
            return samples

        # In floats and in this order, as soxr computes it: half a sample is rounded as the ratio of the rates is.
        lengths = np.floor(index.samples / (index.rate / rate) + 0.5).astype(np.int64)
        key = hashlib.sha256(f"{rate}/{index.key}".encode()).hexdigest()
        if not any(shard.in_blocks for shard in index.shards):
            return cls(lengths, rate, key, decode)
        begins = (np.diff(index.shard, prepend=-1) != 0) | (np.diff(index.block, prepend=-1) != 0)
        blocks = np.flatnonzero(begins)
        return cls(lengths, rate, key, decode, blocks, np.add.reduceat(index.size, blocks))

    def view(self, indices: Sequence[int] | NDArray[np.int64]) -> "StreamedClips":
        """Return the clips at `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        key = hashlib.sha256(self.key.encode() + rows.tobytes()).hexdigest()
        return StreamedClips(
            self.lengths[rows], self.rate, key, lambda clip: self.decode(int(rows[clip]))
        )

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Clips:
        """Return the decoded clips at `indices`, in that order, numbered from 0."""
        (waveforms,) = self.batches([np.asarray(indices, dtype=np.int64)])
        return Clips.pack([str(number) for number in range(len(waveforms))], waveforms, self.rate)

    def batches(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[list[audio.Samples]]:
        """Decode batches in threads, ahead of the batch that is asked for.

        Args:
            batches: clips of each batch, shape (batch,).

        Yields:
            The samples of each clip of a batch, shape (samples,), float32.
        """
        with ThreadPoolExecutor(cpu_cores.available()) as pool:
            waiting: deque[tuple[int, list[Future[audio.Samples]]]] = deque()
            n_samples = 0
            try:
                for batch in batches:
                    size = int(self.lengths[batch].sum())
                    futures = [pool.submit(self.decode, int(clip)) for clip in batch]
                    waiting.append((size, futures))
                    n_samples += size
                    while n_samples > AHEAD_SAMPLES and len(waiting) > 1:
                        size, futures = waiting.popleft()
                        n_samples -= size
                        yield [future.result() for future in futures]
                while waiting:
                    _, futures = waiting.popleft()
                    yield [future.result() for future in futures]
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    @classmethod
    def join(
        cls, names: Sequence[str], parts: Sequence["Clips | StreamedClips"]
    ) -> "StreamedClips":
        """Put clips of several sources, at one rate, one after the other."""
        firsts = np.cumsum([0, *map(len, parts)])
        key = hashlib.sha256()
        for name, part in zip(names, parts, strict=True):
            key.update(f"{name}\0{part.key}\0".encode())

        def decode(clip: int) -> audio.Samples:
            number = int(np.searchsorted(firsts, clip, side="right")) - 1
            return parts[number][clip - int(firsts[number])]

        lengths = np.concatenate([part.lengths for part in parts])
        joined = cls(lengths, parts[0].rate, key.hexdigest(), decode)
        if not any(isinstance(part, cls) and part.blocks is not None for part in parts):
            return joined
        blocks, sizes = zip(*map(_blocks_of, parts), strict=True)
        starts = [own + first for own, first in zip(blocks, firsts, strict=False)]
        return cls(
            lengths, joined.rate, joined.key, decode, np.concatenate(starts), np.concatenate(sizes)
        )


CorpusClips = Clips | StreamedClips


def _blocks_of(part: CorpusClips) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first clip and the bytes of each block; a clip that is read alone is a block of no bytes."""
    if isinstance(part, StreamedClips) and part.blocks is not None:
        assert part.block_bytes is not None
        return part.blocks, part.block_bytes
    return np.arange(len(part)), np.zeros(len(part), np.int64)
