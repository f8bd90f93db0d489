"""A recording of a task, decoded to the rate of a store: in memory, or by way of a file if it is long."""

import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Self

import numpy as np

from lape_bench.core.folder_checksums import ChecksummingWriter
from lape_bench.data import audio
from lape_bench.runtime import cpu_cores

WHOLE_SAMPLES = 2**22  # up to so many samples, a recording is decoded and resampled in memory
AHEAD = 64  # recordings that are decoded and wait to be written


class Recording(NamedTuple):
    """A clip to decode.

    Attributes:
        clip_id: its name.
        path: its file.
        content: the hash it must have, where that is known.
        segment: start and length in seconds of the stretch to take; none: the whole file.
        shortest_seconds: what is shorter cannot be used.
    """

    clip_id: str
    path: Path
    content: str = ""
    segment: tuple[float, float] | None = None
    shortest_seconds: float = audio.SHORTEST_SECONDS

    def decode(self, checks: audio.ClipChecks) -> Iterator[audio.Samples]:
        """Decode it in blocks; see `audio.decode`."""
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
    """What changes if anything writes to a file; nobody can set the time of the last change to its inode."""

    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Return the version of a file; None if it cannot be looked at."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class ClipFacts(NamedTuple):
    """What decoding a clip showed; `problem` is empty if the clip is usable."""

    seconds: float
    rate: int
    content: str
    problem: str


@dataclass(frozen=True)
class DecodedClip:
    """A clip at the rate of a store.

    Attributes:
        facts: what decoding it showed.
        samples: shape (samples,); empty if it has a problem, or is long.
        file: the samples of a long clip.
        version: of the recording's file; None if its problem may pass without a change to the file, such as a disk that
            cannot be reached.
    """

    facts: ClipFacts
    samples: audio.Samples
    file: IO[bytes] | None = None
    version: FileVersion | None = None

    def write(self, target: ChecksummingWriter) -> int:
        """Append the clip to a file, and return how many samples it has."""
        start = target.tell()
        if self.file is None:
            target.write(self.samples.data)
        else:
            with self.file:
                self.file.seek(0)
                shutil.copyfileobj(self.file, target, 2**20)
        return (target.tell() - start) // 4


def decode(recording: Recording, rate: int, folder: Path) -> DecodedClip:
    """Decode a recording, and bring it to a rate in Hz.

    Args:
        recording: the recording.
        rate: Hz.
        folder: takes a temporary file of a long recording.
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
    resampled = np.ascontiguousarray(audio.resample(samples, checks.rate, rate))
    return DecodedClip(facts, resampled, version=version)


def decode_in_order(
    recordings: Sequence[Recording], decode_one: Callable[[Recording], DecodedClip]
) -> Iterator[DecodedClip]:
    """Decode recordings in parallel, and yield them in their order."""
    # Threads suffice: libsndfile, soxr and hashlib let go of the interpreter while they work.
    with ThreadPoolExecutor(cpu_cores.available()) as pool:
        waiting: deque[Future[DecodedClip]] = deque()
        try:
            for recording in recordings:
                waiting.append(pool.submit(decode_one, recording))
                if len(waiting) > AHEAD:  # bounds what lies in memory between decoding and writing
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode_once(recording: Recording) -> tuple[audio.ClipChecks, audio.Samples | None]:
    """Decode a recording; its samples are None if they are too many to be held."""
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
