import numpy as np
import pytest

from lape_bench.core.progress import Progress
from lape_bench.data import near_duplicates
from lape_bench.data.audio_store import Clips
from lape_bench.data.near_duplicates import ALIKE, fingerprints, pairs_across

RATE = 16_000


def recording(seed: int, seconds: float = 1.0) -> np.ndarray:
    """Noise whose color and level change four times."""
    draw = np.random.default_rng(seed)
    parts = []
    for _ in range(4):
        noise = draw.normal(size=round(seconds * RATE / 4))
        width = int(draw.integers(1, 40))
        parts.append(draw.uniform(0.05, 1) * np.convolve(noise, np.ones(width) / width, "same"))
    return (0.3 * np.concatenate(parts)).astype(np.float32)


def found(
    waveforms: list[np.ndarray], sides: list[str], progress: Progress
) -> list[tuple[int, int]]:
    clips = Clips.pack([str(number) for number in range(len(waveforms))], waveforms, RATE)
    with progress.task("", len(clips), "clips") as running:
        described = fingerprints(clips, running)
    pairs = pairs_across(described, np.array(sides, object))
    assert pairs.n_pairs == len(pairs.most_alike)
    return [pair[:2] for pair in pairs.most_alike]


@pytest.fixture
def copies() -> list[np.ndarray]:
    """A recording, and what somebody may make of it."""
    first = recording(0)
    noise = np.random.default_rng(1).normal(0, 1e-4, len(first)).astype(np.float32)
    rounded = (np.round(first * 2**11) / 2**11).astype(np.float32)
    return [first, 0.2 * first, first + noise, rounded, first[:-100]]


def test_copies_at_another_level_or_coded_anew_are_found_across_sides(
    copies: list[np.ndarray], progress: Progress
) -> None:
    sides = ["test", "train", "train", "train", "train"]
    assert sorted(found(copies, sides, progress)) == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_copies_on_one_side_are_no_matter(copies: list[np.ndarray], progress: Progress) -> None:
    assert not found(copies, ["train"] * len(copies), progress)


def test_different_recordings_are_not_taken_for_copies(progress: Progress) -> None:
    waveforms = [recording(seed) for seed in range(60)]
    assert not found(waveforms, ["train", "test"] * 30, progress)


def test_of_very_many_pairs_the_most_alike_are_kept_and_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    monkeypatch.setattr(near_duplicates, "KEPT", 3)
    monkeypatch.setattr(near_duplicates, "ALIKE", 0.5)
    draw = np.random.default_rng(0)
    described = draw.normal(size=(40, 5)).astype(np.float32)
    described /= np.linalg.norm(described, axis=1, keepdims=True)
    sides = draw.choice(np.array([1, 2, 3], object), 40)
    pairs = [
        (first, second, float(described[first] @ described[second]))
        for first in range(40)
        for second in range(first + 1, 40)
        if sides[first] != sides[second] and described[first] @ described[second] > 0.5
    ]
    found = pairs_across(described, sides)
    assert found.n_pairs == len(pairs) > 20
    best = sorted(pairs, key=lambda pair: -pair[2])[:3]
    assert [pair[:2] for pair in found.most_alike] == [pair[:2] for pair in best]
    assert [pair[2] for pair in found.most_alike] == pytest.approx([pair[2] for pair in best])


def test_silence_and_steady_tones_do_not_fail(progress: Progress) -> None:
    tone = np.full(RATE, 0.5, np.float32)
    assert not found([np.zeros(RATE, np.float32), tone, recording(0)], ["a", "b", "c"], progress)


def test_a_row_is_a_unit_vector_so_that_a_product_is_a_correlation(progress: Progress) -> None:
    clips = Clips.pack(["a", "b"], [recording(0), recording(1)], RATE)
    with progress.task("", 2, "clips") as running:
        described = fingerprints(clips, running).astype(float)
    assert np.corrcoef(described)[0, 1] == pytest.approx(described[0] @ described[1], abs=1e-5)
    assert described[0] @ described[1] < ALIKE
