"""Find clips on two sides that sound nearly the same: the same recording with another gain, or encoded again.

The fingerprint of a clip is its log energy in a few frequency bands and time segments, without its gain. Two clips are
near-duplicates if their fingerprints correlate. Copies with another start are not found.
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lape_bench.core.progress import Running
from lape_bench.data.audio_store import Clips

BANDS, STRETCHES = 12, 16
ALIKE = 0.99  # correlation of fingerprints
SMALLEST = 1e-10  # added to an energy, so that silence has a logarithm
MOST_CLIPS = (
    30_000  # every pair of clips on different sides is compared, which is slow above this number
)
BLOCK = 2_048
KEPT = 100  # pairs

Fingerprints = NDArray[np.float32]
Pair = tuple[int, int, float]  # rows of two clips, the smaller first, and their correlation


class NearDuplicates(NamedTuple):
    """Pairs of clips that sound nearly the same.

    Attributes:
        n_pairs: number of pairs.
        most_alike: the `KEPT` pairs with the highest correlations, in falling order.
    """

    n_pairs: int
    most_alike: tuple[Pair, ...]


def fingerprints(clips: Clips, running: Running) -> Fingerprints:
    """Compute a fingerprint of each clip.

    Args:
        clips: audio at one rate.
        running: counts the clips.

    Returns:
        Shape (clips, BANDS * STRETCHES), each row of mean 0 and norm 1, so that a product is a correlation; 0 for a
        clip whose energy is the same everywhere.
    """
    described = np.empty((len(clips), BANDS * STRETCHES), np.float32)
    for index in range(len(clips)):
        described[index] = _fingerprint(clips[index])
        running.advance()
    return described


def pairs_across(described: Fingerprints, sides: NDArray[np.object_]) -> NearDuplicates:
    """Find pairs of near-duplicates on different sides.

    Steady noises are all alike and may form millions of pairs. Only the most similar pairs are kept.

    Args:
        described: as `fingerprints` returns them.
        sides: the side or fold of each clip, shape (clips,).
    """
    _, side = np.unique(sides.astype(str), return_inverse=True)
    rows = np.arange(len(described))
    count, kept = 0, list[Pair]()
    for start in range(0, len(described), BLOCK):
        block = rows[start : start + BLOCK]
        correlation = described[block] @ described.T
        is_pair = (correlation > ALIKE) & (rows > block[:, None]) & (side != side[block][:, None])
        values = correlation[is_pair]
        count += len(values)
        first, second = np.nonzero(is_pair)
        best = np.argsort(-values, kind="stable")[:KEPT]
        kept += zip(
            block[first[best]].tolist(), second[best].tolist(), values[best].tolist(), strict=True
        )
        kept = sorted(kept, key=lambda pair: -pair[2])[:KEPT]
    return NearDuplicates(count, tuple(kept))


def _fingerprint(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    energies = np.empty((STRETCHES, BANDS))
    for index, stretch in enumerate(np.array_split(samples, STRETCHES)):
        power = np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)))) ** 2
        edges = np.geomspace(1, len(power), BANDS + 1).astype(int)
        energies[index] = [
            power[low : max(high, low + 1)].mean() for low, high in itertools.pairwise(edges)
        ]
    # Relative to the loudest part: anything 100 dB below it comes from the codec.
    shape = np.log(energies / max(energies.max(), SMALLEST) + SMALLEST).ravel()
    shape -= shape.mean()
    norm = np.linalg.norm(shape)
    unit: NDArray[np.float32] = (shape / norm if norm > 0 else shape).astype(np.float32)
    return unit
