"""Small recordings in the containers that people's files come in."""

import io

import av
import numpy as np
import soundfile
from numpy.typing import NDArray


def tone(seconds: float, rate: int = 16_000, seed: int = 0) -> NDArray[np.float32]:
    """Return a sine with noise, shape (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.2 * np.sin(2 * np.pi * 440 * time) + 0.01 * noise).astype(np.float32)


def by_libsndfile(
    samples: NDArray[np.float32], container: str, subtype: str, rate: int = 16_000
) -> bytes:
    """Encode samples with libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def by_ffmpeg(
    samples: NDArray[np.float32], container: str, codec: str, rate: int = 16_000, tracks: int = 1
) -> bytes:
    """Encode samples with FFmpeg, in as many equal tracks as asked."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = [output.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        for stream in streams:
            if not stream.is_open:
                stream.open()
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(stream.format.name, "mono", rate)
            queue = av.AudioFifo()
            for part in resampler.resample(frame):
                queue.write(part)
            for part in [*queue.read_many(stream.frame_size or 1024, partial=True), None]:
                output.mux(stream.encode(part))
    return file.getvalue()


def without_tag_frame(mp3: bytes) -> bytes:
    """Return an MP3 of MPEG 1 without its first frame, which holds no audio but the length."""
    rate = (44_100, 48_000, 32_000)[mp3[2] >> 2 & 3]
    kbit = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[mp3[2] >> 4]
    size = 144_000 * kbit // rate + (mp3[2] >> 1 & 1)
    assert b"Xing" in mp3[:size] or b"Info" in mp3[:size]
    return mp3[size:]


def with_sizes(wav: bytes, data: int, riff: int) -> bytes:
    """Return a WAV whose header says other sizes."""
    place = wav.index(b"data") + 4
    head = wav[:4] + riff.to_bytes(4, "little") + wav[8:place]
    return head + data.to_bytes(4, "little") + wav[place + 4 :]


def ogg_pages(ogg: bytes) -> list[bytes]:
    """Return the pages of an Ogg file."""
    pages = []
    while ogg:
        size = 27 + ogg[26] + sum(ogg[27 : 27 + ogg[26]])
        pages.append(ogg[:size])
        ogg = ogg[size:]
    return pages
