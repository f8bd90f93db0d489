"""Decode a file to mono float32 blocks with libsndfile or FFmpeg."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from lape_bench.data.decoding.byte_source import AudioFile, FileContent, FileRange
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

Samples = NDArray[np.float32]
Block = tuple[int, Samples]  # the rate in Hz, and samples of shape (samples,)

BLOCK_FRAMES = 2**18
UNKNOWN_FRAMES = 2**62  # number of frames that libsndfile returns for a stream of unknown length
# libsndfile reads what is left of a truncated file of these, and `containers` does not compare their headers with their size.
UNCHECKED = {"AVR", "HTK", "IRCAM", "MAT4", "MAT5", "MPC2K", "PAF", "PVF", "SD2", "SDS", "SVX", "VOC", "WVE", "XI"}  # fmt: skip
MISSING_SECONDS = (
    0.25  # samples that FFmpeg may return less than the container says: padding of a codec
)
FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "flt": 1.0, "dbl": 1.0}


def by_libsndfile(path: AudioFile, layout: Layout) -> Iterator[Block]:
    """Decode concatenated recordings.

    Raises:
        AudioProblem: a recording is truncated or damaged.
        soundfile.SoundFileError: it is not audio.
    """
    if len(layout.parts) == 1:  # as libsndfile opens it by itself
        with _sound_file(path) as file:
            yield from _blocks(file, file.frames)
        return
    for part in layout.parts:
        with FileRange(path, *part) as source, soundfile.SoundFile(source) as file:
            yield from _blocks(file, file.frames)


def stretch_by_libsndfile(path: AudioFile, segment: tuple[float, float]) -> Iterator[Block]:
    """Decode only the part given by a start and a length in seconds. The container must be seekable.

    Raises:
        AudioProblem: the recording ends before the part does, or is truncated or damaged.
        soundfile.SoundFileError: it is not audio.
    """
    with _sound_file(path) as file:
        rate = file.samplerate
        start, length = (round(seconds * rate) for seconds in segment)
        if start + length > file.frames:
            raise ends_before_stretch(file.frames / rate)
        yield from _blocks(file, length, start)


def _sound_file(path: AudioFile) -> soundfile.SoundFile:
    file = soundfile.SoundFile(path.open() if isinstance(path, FileContent) else path)
    if file.format in UNCHECKED:
        file.close()
        raise AudioProblem(
            f"in the format {file.format}, of which nothing tells whether it is whole; convert it to WAV or FLAC"
        )
    return file


def ends_before_stretch(seconds: float) -> AudioProblem:
    """Return the problem of a recording that ends before the requested part."""
    return AudioProblem(f"ends at {seconds:.3f} s, before the part to read")


def _blocks(file: soundfile.SoundFile, left: int, start: int = 0) -> Iterator[Block]:
    """Decode `left` samples of each channel from `start`."""
    try:
        if start:
            file.seek(start)
        while left > 0:
            block = file.read(min(left, BLOCK_FRAMES), dtype="float32", always_2d=True)
            if not len(block):
                break
            left -= len(block)
            yield file.samplerate, _mono(block)
    except soundfile.SoundFileError as error:
        reason = str(error).strip().rstrip(".")
        raise AudioProblem(f"truncated or damaged ({reason})") from error
    if 0 < left < UNKNOWN_FRAMES // 2:
        raise AudioProblem(TRUNCATED)


def _mono(block: Samples) -> Samples:
    """Average channels, shape (samples, channels). A single channel is not copied."""
    mono: Samples = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    return mono


def by_ffmpeg(path: AudioFile, layout: Layout) -> Iterator[Block]:
    """Decode concatenated recordings, and compare their length with that in the container.

    Raises:
        AudioProblem: the file cannot be decoded, or holds less audio than the container says.
    """
    total, rate = 0, 0
    for part in layout.parts:
        with FileRange(path, *part) as file:
            try:
                for rate, block in _by_ffmpeg(file, layout.ffmpeg):
                    total += len(block)
                    yield rate, block
            except (av.error.FFmpegError, ValueError) as error:
                # av's errors are "[Errno 1094995529] Invalid data found when processing input: '<file>'".
                reason = str(getattr(error, "strerror", None) or error)
                raise AudioProblem(f"truncated or damaged ({reason})") from error
    if layout.frames - total > MISSING_SECONDS * rate * len(layout.parts):
        raise AudioProblem(
            f"truncated or damaged: {total:,} of {layout.frames:,} samples can be decoded"
        )


def _by_ffmpeg(file: FileRange, container_format: str) -> Iterator[Block]:
    with av.open(file, mode="r", format=container_format, metadata_errors="ignore") as container:
        streams = container.streams.audio
        if len(streams) != 1:
            found = (
                f"it holds {len(streams)} audio tracks" if streams else "no audio track is found"
            )
            raise AudioProblem(f"{found}; a clip has one")
        stream = streams[0]
        stated = _stated_seconds(container, stream)
        seconds = 0.0
        for packet in container.demux(stream):
            for frame in packet.decode():
                block = _frame_samples(frame)
                seconds += len(block) / frame.sample_rate
                yield frame.sample_rate, block
        if seconds < stated - MISSING_SECONDS:
            raise AudioProblem(TRUNCATED)


def _stated_seconds(container: Any, stream: Any) -> float:
    """Return the length in the header of a container; 0 if it has none, or if FFmpeg would guess it."""
    if container.format.name in ("wav", "mp3", "aac", "amr", "w64"):
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration) / float(av.time_base)
    return 0.0


def _frame_samples(frame: Any) -> Samples:
    """Return the mean of a frame's channels, full scale at 1.0."""
    kind = frame.format.name.removesuffix("p")
    if kind not in FULL_SCALE:
        raise AudioProblem(f"its samples are of a kind that is not read ({kind})")
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    offset = 2.0**7 if kind == "u8" else 0.0
    scaled = ((values - offset) / FULL_SCALE[kind]).astype(np.float32)
    return _mono(scaled.T)
