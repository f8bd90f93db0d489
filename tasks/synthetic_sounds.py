"""Eight generated sound classes by twenty sources, so that everything runs without a download.

    {class}/{source}-{take}.wav

Each source has a pitch range, loudness and background noise of its own, and is heard on one side of
the split only, so a system must tell the kinds of sound apart and not the recordings.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from lape_bench.core.seeding import Seeds
from lape_bench.task import ClipEntry, Generator, SplitName, TaskCard

RATE = 16_000
SECONDS = 1.0
SOURCES = 20
TAKES = 2
TRAIN_SOURCES, VAL_SOURCES = 12, 4

Wave = NDArray[np.float64]
Draw = np.random.Generator


class SyntheticSounds(Generator):
    """Generates the clips and lists them."""

    def generate(self, root: Path, card: TaskCard) -> None:
        """Write 16-bit mono WAV files of one second; the card's version seeds them."""
        seeds = Seeds(card.version, card.name)
        for label in card.classes:
            (root / label).mkdir()
            for source in range(SOURCES):
                voice = seeds.numpy("source", source)
                pitch_hz, loudness, noise = (
                    voice.uniform(250, 1200),
                    voice.uniform(0.05, 0.5),
                    voice.uniform(0.1, 0.5),
                )
                for take in range(TAKES):
                    draw = seeds.numpy(label, source, take)
                    wave = loudness * _clip(SHAPES[label], pitch_hz, noise, draw)
                    path = root / label / f"{source:02d}-{take}.wav"
                    soundfile.write(path, np.clip(wave, -1, 1), RATE, subtype="PCM_16")

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips: sources 0-11 train, 12-15 validate, 16-19 test."""
        return [
            ClipEntry(
                f"{path.parent.name}/{path.stem}",
                path,
                path.parent.name,
                _side(int(path.stem[:2])),
                None,
                path.stem[:2],
            )
            for path in sorted(root.glob("*/*.wav"))
        ]


def _side(source: int) -> SplitName:
    if source < TRAIN_SOURCES:
        return "train"
    return "val" if source < TRAIN_SOURCES + VAL_SOURCES else "test"


def _clip(
    shape: Callable[[Wave, float, Draw], Wave], pitch_hz: float, noise: float, draw: Draw
) -> Wave:
    """One sound somewhere in a second of colored noise."""
    background = np.cumsum(draw.normal(size=int(RATE * SECONDS)))
    background -= np.convolve(background, np.ones(64) / 64, mode="same")
    length = int(RATE * draw.uniform(0.3, 0.9))
    start = draw.integers(0, len(background) - length)
    time_seconds = np.arange(length) / RATE
    fade = np.minimum(1, 20 * np.minimum(time_seconds, time_seconds[::-1]))
    sound = fade * shape(time_seconds, pitch_hz * draw.uniform(0.7, 1.4), draw)
    clip = noise * background / background.std()
    clip[start : start + length] += sound / sound.std()
    scaled: Wave = 0.5 * clip / np.abs(clip).max()
    return scaled


def _sweep(frequency_hz: Wave) -> Wave:
    return np.sin(2 * np.pi * np.cumsum(frequency_hz) / RATE)


def _tone(time: Wave, hz: float, draw: Draw) -> Wave:
    return _sweep(np.full_like(time, hz))


def _rise(time: Wave, hz: float, draw: Draw) -> Wave:
    return _sweep(hz * np.geomspace(0.7, 1.8, len(time)))


def _fall(time: Wave, hz: float, draw: Draw) -> Wave:
    return _sweep(hz * np.geomspace(1.8, 0.7, len(time)))


def _warble(time: Wave, hz: float, draw: Draw) -> Wave:
    return _sweep(hz * (1 + 0.25 * np.sin(2 * np.pi * draw.uniform(6, 12) * time)))


def _tremolo(time: Wave, hz: float, draw: Draw) -> Wave:
    swell = 1 + np.sin(2 * np.pi * draw.uniform(6, 12) * time)
    return swell * _tone(time, hz, draw)


def _hum(time: Wave, hz: float, draw: Draw) -> Wave:
    return sum((_tone(time, hz * k, draw) / k for k in range(1, 6)), start=np.zeros_like(time))


def _hiss(time: Wave, hz: float, draw: Draw) -> Wave:
    spectrum = np.fft.rfft(draw.normal(size=len(time)))
    frequency_hz = np.fft.rfftfreq(len(time), 1 / RATE)
    return np.fft.irfft(spectrum * (np.abs(np.log2((frequency_hz + 1) / hz)) < 0.5), len(time))


def _clicks(time: Wave, hz: float, draw: Draw) -> Wave:
    phase = (time * draw.uniform(6, 12)) % 1
    return np.exp(-phase * 40) * _tone(time, hz, draw)


SHAPES: dict[str, Callable[[Wave, float, Draw], Wave]] = {
    "tone": _tone,
    "rise": _rise,
    "fall": _fall,
    "warble": _warble,
    "tremolo": _tremolo,
    "hum": _hum,
    "hiss": _hiss,
    "clicks": _clicks,
}
