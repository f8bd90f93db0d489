"""Windows against slow per-clip loops. A sample's value tells its clip and its place there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lape_bench.data.audio_store import Clips
from lape_bench.data.stored_samples import unpack
from lape_bench.learning.training.batches import (
    SAMPLES_A_BATCH,
    DeviceClips,
    consecutive_windows,
    cut_by_copying,
    cut_by_indexing,
    cut_windows,
    random_windows,
    to_device,
    whole_clip_batches,
)
from lape_bench.runtime.batch_random import BatchRandom

CPU = torch.device("cpu")
RATE = 16_000
lengths_of_clips = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def coded(clip: int, length: int) -> NDArray[np.float32]:
    """Samples that are never zero and never twice the same: 1000 * (clip + 1) + place."""
    return (1000 * (clip + 1) + np.arange(length)).astype(np.float32)


def clips_of(lengths: list[int]) -> Clips:
    ids = [str(index) for index in range(len(lengths))]
    return Clips.pack(ids, [coded(*pair) for pair in enumerate(lengths)], RATE)


def mapped(clips: Clips, folder: Path) -> Clips:
    """Return the same clips over a read-only file, as a store is opened."""
    path = folder / "samples.f32"
    clips.samples.tofile(path)
    samples = np.memmap(path, np.float32, mode="r+")
    return Clips(clips.ids, samples, clips.starts, clips.lengths, clips.rate, clips.key)


def on_device(lengths: list[int]) -> DeviceClips:
    return to_device(clips_of(lengths), CPU)


def slow_cut(waveform: NDArray[np.float32], offset: int, window: int) -> list[float]:
    places = range(offset, offset + window)
    return [float(waveform[place]) if 0 <= place < len(waveform) else 0.0 for place in places]


def draw(seed: int) -> BatchRandom:
    return BatchRandom(torch.Generator().manual_seed(seed))


# --- cut --------------------------------------------------------------------------------------------------


@given(lengths=lengths_of_clips, window=st.integers(1, 30), data=st.data())
def test_cut_agrees_with_a_loop_over_samples_and_is_zero_outside_a_clip(
    lengths: list[int], window: int, data: st.DataObject
) -> None:
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, len(lengths) - 1), st.integers(-45, 45)), min_size=1)
    )
    indices, offsets = (torch.tensor(column) for column in zip(*pairs, strict=True))
    expected = [slow_cut(coded(clip, lengths[clip]), offset, window) for clip, offset in pairs]
    clips = on_device(lengths)
    for laid in (cut_windows, cut_by_copying, cut_by_indexing):
        assert laid(clips, indices, offsets, window).tolist() == expected


# --- random windows ---------------------------------------------------------------------------------------


@given(lengths=lengths_of_clips, window=st.integers(1, 30), seed=st.integers(0, 9), data=st.data())
def test_a_random_window_lies_inside_its_clip_and_a_short_clip_lies_in_the_middle(
    lengths: list[int], window: int, seed: int, data: st.DataObject
) -> None:
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9))
    rows = random_windows(on_device(lengths), torch.tensor(indices), window, draw(seed)).numpy()
    assert rows.shape == (len(indices), window)
    for clip, row in zip(indices, rows, strict=True):
        waveform = coded(clip, lengths[clip])
        if len(waveform) >= window:
            begin = int(row[0] - waveform[0])
            assert 0 <= begin <= len(waveform) - window
            assert row.tolist() == waveform[begin : begin + window].tolist()
        else:
            (places,) = np.nonzero(row)
            before, after = places[0], window - 1 - places[-1]
            assert row[places].tolist() == waveform.tolist()
            assert abs(before - after) <= 1


@given(lengths=lengths_of_clips, window=st.integers(1, 30), seed=st.integers(0, 9))
def test_a_short_clip_stands_at_the_start_of_its_window_if_it_is_not_centered(
    lengths: list[int], window: int, seed: int
) -> None:
    clips, indices = on_device(lengths), torch.arange(len(lengths))
    centered = random_windows(clips, indices, window, draw(seed))
    rows = random_windows(clips, indices, window, draw(seed), centered=False)
    owner, offsets = consecutive_windows(np.array(lengths), window, centered=False)
    laid = cut_windows(clips, owner, offsets, window)
    for clip, length in enumerate(lengths):
        if length >= window:
            assert torch.equal(rows[clip], centered[clip])
            continue
        expected = [*coded(clip, length).tolist(), *[0.0] * (window - length)]
        assert rows[clip].tolist() == expected
        assert laid[owner == clip].tolist() == [expected]


def test_every_window_of_a_clip_is_drawn_equally_often() -> None:
    clips, times = on_device([99, 14]), 2_000
    rows = random_windows(clips, torch.ones(times, dtype=torch.long), 10, draw(0))
    counts = torch.bincount((rows[:, 0] - 2_000).long(), minlength=5)
    assert len(counts) == 5
    deviation = (times * 0.2 * 0.8) ** 0.5
    assert (counts - times / 5).abs().max() < 4 * deviation


def test_the_same_generator_draws_the_same_windows_and_another_draws_others() -> None:
    clips, indices = on_device([500, 700]), torch.tensor([0, 1, 1, 0, 1])
    first, again, other = (random_windows(clips, indices, 100, draw(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_windows_follow_the_indices_they_are_asked_for() -> None:
    rows = random_windows(on_device([5, 9, 7]), torch.tensor([2, 0, 2, 1]), 4, draw(0))
    assert (rows[:, 0] // 1000 - 1).tolist() == [2, 0, 2, 1]


# --- consecutive windows ----------------------------------------------------------------------------------


def laid(length: int, window: int) -> list[int]:
    clip, offsets = consecutive_windows(np.array([length]), window)
    assert clip.tolist() == [0] * len(offsets)
    return offsets.tolist()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (5.0, [0.0]),
        (5.001, [0.0005]),  # 16 samples more than a window are no second window
        (5.4, [0.2]),
        (5.6, [0.0, 0.6]),
        (10.0, [0.0, 5.0]),
        (10.4, [0.0, 5.4]),
        (12.0, [0.0, 3.5, 7.0]),
        (3.0, [-1.0]),
    ],
)
def test_windows_of_five_seconds_are_laid_as_by_hand(seconds: float, expected: list[float]) -> None:
    assert laid(round(seconds * RATE), 5 * RATE) == [round(second * RATE) for second in expected]


@given(length=st.integers(1, 400), window=st.integers(1, 60))
def test_a_clip_gets_the_windows_it_holds_and_one_more_for_a_rest_over_a_tenth(
    length: int, window: int
) -> None:
    whole, rest = divmod(length, window)
    assume(10 * rest != window)
    assert len(laid(length, window)) == max(1, whole + (10 * rest > window))


@given(length=st.integers(1, 400), window=st.integers(1, 60))
def test_windows_span_the_clip_evenly_and_miss_at_most_a_tenth_of_a_window(
    length: int, window: int
) -> None:
    offsets = laid(length, window)
    inside = {place for offset in offsets for place in range(offset, offset + window)}
    assert len(set(range(length)) - inside) <= window / 10
    if len(offsets) > 1:
        assert (offsets[0], offsets[-1]) == (0, length - window)
        assert np.ptp(np.diff(offsets)) <= 1
    else:
        before, after = offsets[0], length - window - offsets[0]
        assert abs(before - after) <= 1


@given(lengths=st.lists(st.integers(1, 90), max_size=8), window=st.integers(1, 30))
def test_many_clips_get_the_windows_each_would_get_alone_in_order(
    lengths: list[int], window: int
) -> None:
    clip, offsets = consecutive_windows(np.array(lengths, np.int64), window)
    expected = [(i, offset) for i, length in enumerate(lengths) for offset in laid(length, window)]
    assert list(zip(clip.tolist(), offsets.tolist(), strict=True)) == expected


# --- whole clips ------------------------------------------------------------------------------------------


@given(lengths=lengths_of_clips)
def test_whole_clips_yields_every_clip_once_unpadded(lengths: list[int]) -> None:
    found = {}
    for indices, waveforms in whole_clip_batches(clips_of(lengths), CPU):
        for index, waveform in zip(indices.tolist(), waveforms, strict=True):
            assert index not in found
            found[index] = waveform.tolist()
    assert found == {i: coded(i, length).tolist() for i, length in enumerate(lengths)}


def test_a_batch_of_whole_clips_holds_a_bounded_number_of_samples() -> None:
    half, longer = SAMPLES_A_BATCH // 2, SAMPLES_A_BATCH + 1
    lengths = [half, longer, half, half, longer]
    batches = [tuple(rows.shape) for _, rows in whole_clip_batches(clips_of(lengths), CPU)]
    assert batches == [(2, half), (1, half), (1, longer), (1, longer)]


# --- where the audio lies ---------------------------------------------------------------------------------


def everything(clips: Clips) -> list[Tensor]:
    held, indices = to_device(clips, CPU), torch.tensor([2, 0, 1, 2])
    windows = [
        random_windows(held, indices, 8, draw(3)),
        cut_windows(held, indices, torch.tensor([-3, 0, 4, 60]), 8),
    ]
    return windows + [waveforms for _, waveforms in whole_clip_batches(clips, CPU)]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 1, 0]])
def test_memory_mapped_clips_give_the_same_as_resident_ones(
    rows: list[int], tmp_path: Path
) -> None:
    clips = clips_of([12, 5, 30, 12])
    resident, over_file = clips.select(rows), mapped(clips, tmp_path).view(rows)
    assert isinstance(over_file.samples, np.memmap)
    for expected, found in zip(everything(resident), everything(over_file), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("is_mapped", [False, True])
def test_16_bit_clips_give_the_same_as_float32(is_mapped: bool, tmp_path: Path) -> None:
    clips = clips_of([12, 5, 30, 12])
    integers = np.random.default_rng(0).integers(-32_768, 32_768, 59, np.int16)
    narrow, wide = (replace(clips, samples=each) for each in (integers, unpack(integers)))
    if is_mapped:
        integers.tofile(tmp_path / "samples.i16")
        samples = np.memmap(tmp_path / "samples.i16", np.int16, mode="r+")
        narrow = replace(clips, samples=samples)
    for expected, found in zip(everything(wide), everything(narrow), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    held = [to_device(each, CPU) for each in (wide, narrow)]
    indices, offsets = torch.tensor([2, 0, 1]), torch.tensor([-3, 4, 60])
    expected, found = (cut_by_indexing(each, indices, offsets, 8) for each in held)
    assert torch.equal(found / 32_768, expected)
    assert torch.equal(cut_by_copying(held[1], indices, offsets, 8), found)


def test_cutting_from_a_mapped_file_does_not_change_it(tmp_path: Path) -> None:
    clips = clips_of([12, 5])
    over_file = mapped(clips, tmp_path)
    windows = cut_windows(to_device(over_file, CPU), torch.tensor([0, 1]), torch.tensor([0, 0]), 12)
    windows.zero_()
    assert np.fromfile(tmp_path / "samples.f32", np.float32).tolist() == clips.samples.tolist()
