"""Read an audio file as mono float32 samples, or refuse it with a reason.

libsndfile decodes plain PCM, FLAC and single Ogg streams. FFmpeg decodes MP3, and formats that libsndfile reads only in
part or not at all. soxr resamples in its high quality. Silence, length and level are not changed.
"""

import hashlib
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lape_bench.data.decoding.byte_source import AudioFile
from lape_bench.data.decoding.byte_source import FileContent as FileContent
from lape_bench.data.decoding.containers import KNOWN_STARTS, layout_of
from lape_bench.data.decoding.mono import (
    UNKNOWN_FRAMES,
    Block,
    by_ffmpeg,
    by_libsndfile,
    ends_before_stretch,
    stretch_by_libsndfile,
)
from lape_bench.data.decoding.mono import Samples as Samples
from lape_bench.data.decoding.problem import AudioProblem as AudioProblem

SUFFIXES = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg"}
    | {".opus", ".rf64", ".snd", ".spx", ".w64", ".wav", ".weba", ".webm", ".wma"}
)  # fmt: skip
SHORTEST_SECONDS = 0.1  # in a shorter clip a 64 ms analysis window would hold little but padding
SILENT_BELOW = 2.0**-15  # one step of 16-bit audio
# Decoded MP3 and Ogg exceed full scale by a little. Above this limit, full scale of the floats is not 1.
LOUDEST = 4.0
LOWEST_RATE, HIGHEST_RATE = 2_000, 768_000  # Hz; other rates come from broken headers


@dataclass
class ClipChecks:
    """Check block by block whether samples can be used as a clip.

    Attributes:
        samples: number of samples so far.
        rate: sample rate in Hz.
    """

    samples: int = 0
    rate: int = 0
    _peak: float = 0.0

    def add(self, rate: int, block: Samples) -> None:
        """Check the next block.

        Raises:
            AudioProblem: a sample is NaN, infinite or far above full scale, or the rate is not one of audio.
        """
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioProblem(
                f"its sample rate is {rate:,} Hz; allowed: {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz"
            )
        if self.rate not in (0, rate):
            raise AudioProblem(f"its sample rate changes from {self.rate:,} to {rate:,} Hz")
        self.rate = rate
        self.samples += len(block)
        if len(block):
            peak = float(max(block.max(), -block.min()))  # NaN if there is one
            if not np.isfinite(peak):
                raise AudioProblem("holds NaN or infinite samples")
            self._peak = max(self._peak, peak)

    def finish(self, shortest_seconds: float) -> None:
        """Check the whole clip.

        Raises:
            AudioProblem: the audio is too short or silent, or its peak is far above full scale.
        """
        if self._peak > LOUDEST:
            raise AudioProblem(
                f"its peak is {self._peak:,.0f} times full scale; scale its floats to -1..1"
            )
        if self.samples < shortest_seconds * self.rate or not self.samples:
            seconds = self.samples / (self.rate or 1)
            raise AudioProblem(f"too short: {seconds:.3f} s, at least {shortest_seconds:g} s")
        if self._peak < SILENT_BELOW:
            raise AudioProblem("silent: no sample reaches one step of 16-bit audio")


def read(
    path: AudioFile,
    segment: tuple[float, float] | None = None,
    shortest_seconds: float = SHORTEST_SECONDS,
) -> tuple[Samples, int]:
    """Decode a file to mono at its own sample rate. Channels are averaged.

    Args:
        path: the file, or its content.
        segment: start and length of the part to read, in seconds; None: the whole file.
        shortest_seconds: shorter audio is refused.

    Returns:
        Samples of shape (samples,), full scale at 1.0, and the rate in Hz.

    Raises:
        AudioProblem: as `decode` raises it.
    """
    checks = ClipChecks()
    blocks = list(decode(path, segment, shortest_seconds, checks))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), checks.rate


def decode(
    path: AudioFile,
    segment: tuple[float, float] | None,
    shortest_seconds: float,
    checks: ClipChecks,
) -> Iterator[Samples]:
    """Decode a file to mono at its own sample rate, in blocks, so that long files need little memory.

    Args:
        path: the file, or its content.
        segment: start and length of the part to read, in seconds; None: the whole file.
        shortest_seconds: shorter audio is refused.
        checks: holds the number of samples and the rate of the blocks so far.

    Yields:
        Samples of shape (samples,), full scale at 1.0.

    Raises:
        AudioProblem: the file is missing, empty, not audio, truncated, damaged, too short, silent, far above full
            scale, or holds NaN. Most problems are found only at the end.
    """
    try:
        str(path).encode()
        _refuse_special_file(path)
        for rate, block in _stretch(path, segment):
            checks.add(rate, block)
            yield block
    except UnicodeEncodeError as error:
        raise AudioProblem("its name is not UTF-8; rename it") from error
    except OSError as error:
        raise AudioProblem(f"cannot be read ({error.strerror})") from error
    except soundfile.SoundFileError as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        problem = "not audio: it looks like text" if _is_text(path) else "not readable as audio"
        raise AudioProblem(f"{problem} ({reason})") from error
    checks.finish(shortest_seconds)


def seconds_of(path: Path) -> float:
    """Return a file's length in seconds, from its header if that is reliable; 0 if the file cannot be read."""
    try:
        _refuse_special_file(path)
        layout = layout_of(path)
        if not layout.ffmpeg and len(layout.parts) == 1:
            info = soundfile.info(path)
            if info.frames < UNKNOWN_FRAMES:
                return float(info.frames / info.samplerate)
        return sum(len(block) / rate for rate, block in _stretch(path, None))
    except (AudioProblem, soundfile.SoundFileError, OSError, UnicodeEncodeError):
        return 0.0


def _refuse_special_file(path: AudioFile) -> None:
    """Raise an `AudioProblem` for a named pipe, a socket or a device, since reading it might never end."""
    if isinstance(path, FileContent):
        return
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
        raise AudioProblem(f"not a file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _stretch(path: AudioFile, segment: tuple[float, float] | None) -> Iterator[Block]:
    """Decode a file, or the part given by a start and a length in seconds."""
    layout = layout_of(path)
    # A long recording with many clips must not be decoded whole for each clip.
    if segment and layout.seekable and not layout.ffmpeg and len(layout.parts) == 1:
        yield from stretch_by_libsndfile(path, segment)
        return
    blocks = by_ffmpeg(path, layout) if layout.ffmpeg else by_libsndfile(path, layout)
    if segment is None:
        yield from blocks
        return
    place, rate = 0, 1
    for rate, block in blocks:
        start, length = (round(seconds * rate) for seconds in segment)
        taken = block[max(0, start - place) : max(0, start + length - place)]
        place += len(block)
        if len(taken):
            yield rate, taken
        if place >= start + length:
            return
    raise ends_before_stretch(place / rate)


def resample(samples: Samples, rate: int, target: int) -> Samples:
    """Resample samples of shape (samples,) from `rate` to `target` Hz."""
    if rate == target:
        return samples
    resampled: Samples = soxr.resample(samples, rate, target)
    return resampled


def resample_blocks(blocks: Iterable[Samples], rate: int, target: int) -> Iterator[Samples]:
    """Resample blocks from `rate` to `target` Hz. Together they equal `resample` of the whole."""
    if rate == target:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, target, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


class ContentHash:
    """SHA-256 of decoded samples and sample rate. A WAV and a FLAC file of the same recording have the same hash."""

    def __init__(self, samples: int, rate: int) -> None:
        self._digest = hashlib.sha256(f"{rate}/{samples}/".encode())

    def add(self, block: Samples) -> None:
        """Add the next samples, shape (samples,)."""
        # The sum turns -0.0 into 0.0.
        self._digest.update(np.add(block, np.float32(0)).astype("<f4", copy=False).data)

    def hexdigest(self) -> str:
        """Return the hash of all samples."""
        return self._digest.hexdigest()


def content_hash(samples: Samples, rate: int) -> str:
    """Return the `ContentHash` of samples of shape (samples,)."""
    digest = ContentHash(len(samples), rate)
    digest.add(samples)
    return digest.hexdigest()


def _is_text(path: AudioFile) -> bool:
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(KNOWN_STARTS):
        return False
    try:
        return (
            head.decode("utf-8").replace("\n", "").replace("\t", "").replace("\r", "").isprintable()
        )
    except UnicodeDecodeError:
        return False
