"""A file becomes mono float32 samples; what cannot be trusted is refused with a reason.

Decoding is libsndfile's (WAV, FLAC, Ogg Vorbis, MP3), resampling soxr's high quality. Levels,
silence and length are left as they are.
"""

import hashlib
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SUFFIXES = frozenset({".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"})
SHORTEST_SECONDS = 0.1  # below this a 64 ms analysis window sees little but padding
BLOCK_FRAMES = 2**20
SEEKABLE = {"AIFF", "AU", "FLAC", "RF64", "WAV", "WAVEX"}  # to the sample, unlike MP3 and Ogg
UNKNOWN_FRAMES = 2**62  # libsndfile's count for a stream that does not say its length
KNOWN_STARTS = (b"RIFF", b"fLaC", b"OggS", b"ID3")
SILENT_BELOW = 2.0**-15  # one step of 16-bit audio


class AudioProblem(Exception):
    """Why a file is not a usable clip; the message is a short reason without the file's name."""


def read(
    path: Path,
    segment: tuple[float, float] | None = None,
    shortest_seconds: float = SHORTEST_SECONDS,
) -> tuple[Samples, int]:
    """Decode a file to mono at its own rate; channels are averaged.

    Args:
        path: the file.
        segment: start and length in seconds of the stretch to take; none: all of it.
        shortest_seconds: what is shorter is refused.

    Returns:
        Samples of shape (samples,), full scale at 1.0, and the rate in Hz.

    Raises:
        AudioProblem: the file is missing, empty, no audio, truncated, too short, silent, or holds NaN.
    """
    try:
        str(path).encode()
        mono, rate = _decode_file(path, segment)
    except UnicodeEncodeError as error:
        raise AudioProblem("its name is not UTF-8; rename it") from error
    except OSError as error:
        raise AudioProblem(f"cannot be read ({error.strerror})") from error
    if not np.isfinite(mono).all():
        raise AudioProblem("holds NaN or infinite samples")
    if len(mono) < shortest_seconds * rate:
        raise AudioProblem(f"too short: {len(mono) / rate:.3f} s, at least {shortest_seconds:g} s")
    if np.abs(mono).max() < SILENT_BELOW:
        raise AudioProblem("silent: no sample reaches one step of 16-bit audio")
    return mono, rate


def _decode_file(path: Path, segment: tuple[float, float] | None) -> tuple[Samples, int]:
    """Decode a file, or a stretch of it, to mono; return the samples and their rate in Hz."""
    head = _head(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames, log = file.samplerate, file.frames, file.extra_info
            start, length = (round(seconds * rate) for seconds in segment or (0, 0))
            # A long recording of many stretches is not decoded whole for each of them.
            seeks = length > 0 and file.format in SEEKABLE and start + length <= frames
            mono = _decode(file, start, length) if seeks else _decode(file)
    except soundfile.SoundFileError as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        looks_like_text = _is_text(head) and not head.startswith(KNOWN_STARTS)
        problem = "not audio: it looks like text" if looks_like_text else "not readable as audio"
        raise AudioProblem(f"{problem} ({reason})") from error
    expected = length if seeks else frames
    if (len(mono) < expected < UNKNOWN_FRAMES) or _is_cut_off(path, log):
        raise AudioProblem("truncated: it holds less audio than its header says")
    if segment is None or seeks:
        return mono, rate
    if start + length > len(mono):
        raise AudioProblem(f"ends at {len(mono) / rate:.3f} s, before the stretch to take")
    return mono[start : start + length], rate


def resample(samples: Samples, rate: int, target: int) -> Samples:
    """Bring samples of shape (samples,) from `rate` to `target` Hz."""
    if rate == target:
        return samples
    resampled: Samples = soxr.resample(samples, rate, target)
    return resampled


def content_hash(samples: Samples, rate: int) -> str:
    """SHA-256 of decoded samples and rate: a WAV and a FLAC of one recording agree."""
    digest = hashlib.sha256(f"{rate}/{len(samples)}/".encode())
    digest.update((samples.astype("<f4") + np.float32(0)).tobytes())  # + 0 makes -0.0 and 0.0 one
    return digest.hexdigest()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(256)
    if not head:
        raise AudioProblem("empty file (0 bytes)")
    return head


def _is_text(head: bytes) -> bool:
    try:
        return (
            head.decode("utf-8").replace("\n", "").replace("\t", "").replace("\r", "").isprintable()
        )
    except UnicodeDecodeError:
        return False


def _decode(file: soundfile.SoundFile, start: int = 0, length: int = UNKNOWN_FRAMES) -> Samples:
    """Read frames of an open file, by default all, in blocks, since a stream may not say how long it is; average channels."""
    blocks, left = [], length
    try:
        if start:
            file.seek(start)
        while len(block := file.read(min(left, BLOCK_FRAMES), dtype="float32", always_2d=True)):
            left -= len(block)
            # The mean of one channel would copy it for nothing.
            blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
    except soundfile.SoundFileError as error:
        raise AudioProblem(f"truncated or damaged ({str(error).strip().rstrip('.')})") from error
    return np.concatenate([*blocks, np.empty(0, np.float32)])


def _is_cut_off(path: Path, log: str) -> bool:
    """Tell whether a file ends before its own header says; libsndfile reads such files in silence."""
    # libsndfile's log of a WAV: "data : 32000 (should be 12000)" where the chunk outruns the file.
    if any("data :" in line and "should be" in line for line in log.splitlines()):
        return True
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return False
        file.seek(max(0, path.stat().st_size - 2**16))  # an Ogg page is shorter than 64 KiB
        tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    segments = page[27 : 27 + page[26]] if len(page) > 27 else b""
    ends_stream = len(page) > 27 and bool(page[5] & 4)
    return start < 0 or not ends_stream or len(page) < 27 + page[26] + sum(segments)
