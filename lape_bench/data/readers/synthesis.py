"""Generated sounds of four kinds: syllables, notes, chirps over wind, textured noise.

A sound has three random parts: one fixed by its class, one fixed by its group (a speaker, an instrument, a place), and
one that is new in each clip. The sounds do not imitate real ones, but their classes can be distinguished.
"""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

RATE = 16_000  # Hz
SYLLABLES, HARMONICS, CHIRPS = 3, 8, 4
PEAK = 0.5

Wave = NDArray[np.float64]
Draw = np.random.Generator


def render(
    domain: str, of_class: Draw, of_group: Draw, of_clip: Draw, seconds: float, noise: float
) -> Wave:
    """Generate one clip.

    Args:
        domain: speech, music, bioacoustics or sound.
        of_class: random numbers that all clips of a class share.
        of_group: random numbers that all clips of a group share.
        of_clip: random numbers of this clip.
        seconds: length of the clip in seconds.
        noise: standard deviation of the background, relative to that of the sound; it varies by half between groups.

    Returns:
        Shape (samples,) at `RATE`, unitless, at most `PEAK`.
    """
    samples = round(seconds * RATE)
    sound = KINDS[domain](of_class, of_group, of_clip, samples)
    loudness = of_group.uniform(0.2, 1)
    background = _wind(samples, of_clip) * noise * of_group.uniform(0.5, 1.5)
    clip = sound / (sound.std() + 1e-9) + background
    scaled: Wave = PEAK * loudness * clip / np.abs(clip).max()
    return scaled


def _wind(samples: int, draw: Draw) -> Wave:
    """Return noise that falls with frequency and has unit standard deviation."""
    noise = lfilter([1], [1, -0.9], draw.normal(size=samples))
    even: Wave = noise / noise.std()
    return even


def _resonance(wave: Wave, hertz: float, width_hertz: float = 90.0) -> Wave:
    radius = np.exp(-np.pi * width_hertz / RATE)
    angle = 2 * np.pi * min(hertz, 0.45 * RATE) / RATE
    resonant: Wave = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], wave)
    return resonant


def _fade(samples: int, share: float = 0.1) -> Wave:
    edge = np.linspace(0, 1 / share, samples)
    return np.minimum(1, np.minimum(edge, edge[::-1]))


def _syllables(of_class: Draw, of_group: Draw, of_clip: Draw, samples: int) -> Wave:
    """Return the pulses of a voice through two resonances per syllable."""
    pitch_hertz, tract = of_group.uniform(90, 240), of_group.uniform(0.88, 1.14)
    lengths = of_class.uniform(0.6, 1.4, SYLLABLES) * of_clip.uniform(0.8, 1.2, SYLLABLES)
    edges = np.round(np.cumsum(np.r_[0, lengths / lengths.sum()]) * samples).astype(int)
    speech = np.zeros(samples)
    for start, end in itertools.pairwise(edges):
        first, second, glide = (
            of_class.uniform(280, 900),
            of_class.uniform(950, 2600),
            of_class.uniform(0.8, 1.25),
        )
        course = pitch_hertz * np.geomspace(1, glide, end - start) * of_clip.uniform(0.95, 1.05)
        pulses = np.diff(np.floor(np.cumsum(course) / RATE), prepend=0)
        jitter = of_clip.normal(1, 0.06, 2)
        vowel = _resonance(
            _resonance(pulses, first * tract * jitter[0]), second * tract * jitter[1]
        )
        speech[start:end] = _fade(end - start) * vowel / (vowel.std() + 1e-9)
    return speech


def _note(of_class: Draw, of_group: Draw, of_clip: Draw, samples: int) -> Wave:
    """Return a harmonic tone. The class decides its spectrum, envelope and register, the clip its pitch."""
    numbers = np.arange(1, HARMONICS + 1)
    levels = numbers ** -of_class.uniform(0.3, 2) * of_class.uniform(0.1, 1, HARMONICS)
    attack, decay = of_class.uniform(0.01, 0.3), of_class.uniform(0.5, 8)
    levels = levels * of_group.uniform(0.7, 1.3, HARMONICS)
    semitones = of_class.integers(-18, 13) + of_clip.integers(-7, 8)
    hertz = 440 * 2 ** (semitones / 12)
    time = np.arange(samples) / RATE
    swing = 0.01 * np.sin(2 * np.pi * of_group.uniform(4, 7) * time)
    phase = 2 * np.pi * hertz * np.cumsum(1 + swing) / RATE
    tone = sum(
        (
            level * np.sin(number * phase)
            for number, level in zip(numbers, levels, strict=True)
            if number * hertz < RATE / 2
        ),
        start=np.zeros(samples),
    )
    return tone * np.minimum(1, time / attack) * np.exp(-decay * time)


def _chirps(of_class: Draw, of_group: Draw, of_clip: Draw, samples: int) -> Wave:
    """Return a few sweeps at random places in the clip."""
    low, span = of_class.uniform(1500, 4000), of_class.uniform(0.6, 1.8)
    length = round(of_class.uniform(0.05, 0.2) * RATE)
    heard = 0.02 * of_clip.normal(size=samples)
    pitch = low * of_group.uniform(0.85, 1.15)
    for start in of_clip.integers(0, max(1, samples - length), of_clip.integers(1, CHIRPS + 1)):
        course = pitch * np.geomspace(1, span, length) * of_clip.uniform(0.7, 1.4)
        sweep = _fade(length, 0.3) * np.sin(2 * np.pi * np.cumsum(course) / RATE)
        heard[start : start + length] += sweep[: samples - start]
    return heard


def _texture(of_class: Draw, of_group: Draw, of_clip: Draw, samples: int) -> Wave:
    """Return noise in two bands that swells in a rhythm."""
    noise = of_clip.normal(size=samples)
    bands = [
        _resonance(noise, hertz * of_group.uniform(0.7, 1.4), width)
        for hertz, width in zip(
            np.exp(of_class.uniform(np.log(150), np.log(6000), 2)),
            of_class.uniform(80, 900, 2),
            strict=True,
        )
    ]
    time = np.arange(samples) / RATE
    rhythm, depth = of_class.uniform(0.5, 12), of_class.uniform(0, 1)
    swell = 1 + depth * np.sin(2 * np.pi * (rhythm * time + of_clip.uniform()))
    return swell * sum((band / band.std() for band in bands), start=np.zeros(samples))


KINDS: dict[str, Callable[[Draw, Draw, Draw, int], Wave]] = {
    "speech": _syllables,
    "music": _note,
    "bioacoustics": _chirps,
    "sound": _texture,
}
