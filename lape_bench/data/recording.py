"""Decode a recording of a task to the rate of a store, in memory or, if it is long, through a file."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Self, TypeVar

import numpy as np

from lape_bench.data import audio
from lape_bench.data.stored_samples import SampleFile, StoredSamples, pack
from lape_bench.runtime import cpu_cores

WHOLE_SAMPLES = 2**22  # a recording with up to this many samples is decoded and resampled in memory
AHEAD = 4  # decoded recordings for each core that wait to be written


class Recording(NamedTuple):
    """A clip to decode.

    Attributes:
        clip_id: its ID.
        path: its file.
        content: the hash that it must have, if that is known.
        segment: start and length of the clip in its file, in seconds; None: the whole file.
        shortest_seconds: shorter clips cannot be used.
    """

    clip_id: str
    path: Path
    content: str = ""
    segment: tuple[float, float] | None = None
    shortest_seconds: float = audio.SHORTEST_SECONDS

    def decode(self, checks: audio.ClipChecks) -> Iterator[audio.Samples]:
        """Decode the clip in blocks; see `audio.decode`."""
        return audio.decode(self.path, self.segment, self.shortest_seconds, checks)

    def content_hash(self) -> str:
        """Return the hash of its audio, decoded in blocks.

        Raises:
            AudioProblem: as `audio.decode` raises it.
        """
        checks, samples = _decode_once(self)
        if samples is not None:
            return audio.content_hash(samples, checks.rate)
        digest = audio.ContentHash(checks.samples, checks.rate)
        for block in self.decode(audio.ClipChecks()):
            digest.add(block)
        return digest.hexdigest()


class FileVersion(NamedTuple):
    """Values that change whenever a file is written; programs cannot set the time of its last inode change."""

    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Return the version of a file; None if its status cannot be read."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class ClipFacts(NamedTuple):
    """Facts about a decoded clip; `problem` is empty if the clip is usable."""

    seconds: float
    rate: int
    content: str
    problem: str


@dataclass(frozen=True)
class DecodedClip:
    """A clip at the rate of a store.

    Attributes:
        facts: facts about the clip.
        samples: shape (samples,), int16 if that loses nothing; empty if it has a problem or is long.
        file: the samples of a long clip, float32.
        version: version of the recording's file; None if its problem may disappear without a change to the file, such
            as a disk that cannot be reached.
    """

    facts: ClipFacts
    samples: StoredSamples
    file: IO[bytes] | None = None
    version: FileVersion | None = None

    def write(self, target: SampleFile) -> None:
        """Append the clip to the samples of a store."""
        if self.file is None:
            target.write(self.samples)
            return
        with self.file:
            self.file.seek(0)
            while block := self.file.read(2**20):
                target.write(pack(np.frombuffer(block, np.float32)))


def decode(recording: Recording, rate: int, folder: Path) -> DecodedClip:
    """Decode a recording, and resample it to a rate in Hz.

    Args:
        recording: the recording.
        rate: Hz.
        folder: folder for the temporary file of a long recording.
    """
    version = FileVersion.of(recording.path)  # before it is read
    try:
        checks, samples = _decode_once(recording)
        if samples is None:
            # Decoded once more, since the content hash begins with the number of samples.
            facts, file = _decode_long(recording, rate, folder, checks)
            return DecodedClip(facts, np.empty(0, np.float32), file, version)
    except audio.AudioProblem as problem:
        facts = ClipFacts(0.0, 0, "", str(problem))
        if isinstance(problem.__cause__, OSError):
            version = None
        return DecodedClip(facts, np.empty(0, np.float32), version=version)
    facts = ClipFacts(
        len(samples) / checks.rate, checks.rate, audio.content_hash(samples, checks.rate), ""
    )
    if checks.rate == rate:
        return DecodedClip(facts, pack(samples), version=version)
    return DecodedClip(facts, audio.resample(samples, checks.rate, rate), version=version)


Encoded = TypeVar("Encoded")
Decoded = TypeVar("Decoded")


@contextmanager
def decode_in_order(
    recordings: Iterable[Encoded], decode_one: Callable[[Encoded], Decoded]
) -> Iterator[Iterator[Decoded]]:
    """Decode recordings in parallel: the value is an iterator over them in their order. The threads end with the block."""
    # Threads suffice, since libsndfile, soxr and hashlib release the GIL.
    cores = cpu_cores.available()
    waiting: deque[Future[Decoded]] = deque()

    def in_order() -> Iterator[Decoded]:
        for recording in recordings:
            waiting.append(pool.submit(decode_one, recording))
            # limits the audio in memory between decoding and writing
            if len(waiting) > AHEAD * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with ThreadPoolExecutor(cores) as pool:
        try:
            yield in_order()
        finally:
            for future in waiting:
                future.cancel()


def _decode_once(recording: Recording) -> tuple[audio.ClipChecks, audio.Samples | None]:
    """Decode a recording. Its samples are None if they are too many for memory."""
    checks = audio.ClipChecks()
    blocks: list[audio.Samples] = []
    for block in recording.decode(checks):
        blocks.append(block)
        if checks.samples > WHOLE_SAMPLES:
            blocks.clear()
    if checks.samples > WHOLE_SAMPLES:
        return checks, None
    return checks, blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _decode_long(
    recording: Recording, rate: int, folder: Path, checks: audio.ClipChecks
) -> tuple[ClipFacts, IO[bytes]]:
    """Decode a recording of known length into a file without a name, block by block."""
    digest = audio.ContentHash(checks.samples, checks.rate)

    def hashed() -> Iterator[audio.Samples]:
        for block in recording.decode(audio.ClipChecks()):
            digest.add(block)
            yield block

    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed when it is copied, or collected
    for block in audio.resample_blocks(hashed(), checks.rate, rate):
        file.write(np.ascontiguousarray(block).data)
    facts = ClipFacts(checks.samples / checks.rate, checks.rate, digest.hexdigest(), "")
    return facts, file
