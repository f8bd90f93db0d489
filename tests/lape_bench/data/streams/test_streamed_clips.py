"""Streamed clips are those of the store, decoded ahead of the batch that is asked for."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from lape_bench.core.progress import Progress
from lape_bench.data import audio
from lape_bench.data.audio_store import Clips
from lape_bench.data.streams import streamed_clips
from lape_bench.data.streams.find_shards import find_shards
from lape_bench.data.streams.shard_index import open_index
from lape_bench.data.streams.streamed_clips import StreamedClips
from lape_bench.learning.training import batches as training_batches
from lape_bench.learning.training.batches import shuffled
from tests.lape_bench.data.streams.shard_files import noise, write_parquet, write_tar

RATE = 16_000


def streamed(entry: Path, progress: Progress, rate: int = RATE) -> StreamedClips:
    shards = find_shards(str(entry))
    assert shards is not None
    return StreamedClips.of(open_index(shards, progress), rate)


def made_up(lengths: list[int]) -> StreamedClips:
    """Clips of which each sample is the number of the clip."""
    return StreamedClips(
        np.array(lengths), RATE, "made up", lambda clip: np.full(lengths[clip], clip, np.float32)
    )


@pytest.mark.parametrize("own_rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_lengths_are_known_before_decoding(
    own_rate: int, tmp_path: Path, progress: Progress
) -> None:
    lengths = (1_000_001, 4_801, 9_999, 16_002, 17_333)
    members = [(f"{n}.wav", noise(n, n / own_rate, own_rate)) for n in lengths if n > own_rate / 10]
    write_tar(tmp_path / "a.tar", members)
    clips = streamed(tmp_path / "a.tar", progress)
    assert len(clips) >= 4
    for index in range(len(clips)):
        samples, rate = audio.read(audio.FileContent("", members[index][1]))
        assert np.array_equal(clips[index], audio.resample(samples, rate, RATE))
        assert clips.lengths[index] == len(clips[index])


def test_the_length_is_known_if_it_is_rounded_from_half_a_sample(
    tmp_path: Path, progress: Progress
) -> None:
    lengths = range(1_220, 1_660, 40)  # at 12 kHz: 4,483.5 samples at 44.1 kHz, 4,630.5, ...
    members = [(f"{n}.wav", noise(n, n / 12_000, 12_000)) for n in lengths]
    clips = streamed(write_tar(tmp_path / "a.tar", members), progress, 44_100)
    assert len(clips) == len(lengths)
    assert [len(clips[index]) for index in range(len(clips))] == clips.lengths.tolist()


def test_batches_come_in_order_however_few_are_decoded_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = made_up([300, 100, 200, 400])
    asked = [np.array([3, 1]), np.array([0]), np.array([2, 2, 1]), np.array([1])]
    for ahead in (1, 500, 10**6):
        monkeypatch.setattr(streamed_clips, "AHEAD_SAMPLES", ahead)
        got = [[(int(w[0]), len(w)) for w in batch] for batch in clips.batches(asked)]
        assert got == [[(int(c), int(clips.lengths[c])) for c in batch] for batch in asked]


def test_no_more_is_decoded_ahead_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_clips, "AHEAD_SAMPLES", 1_000)
    asked, begun = [], threading.Lock()

    def decode(clip: int) -> audio.Samples:
        with begun:
            asked.append(clip)
        return np.zeros(100, np.float32)

    clips = StreamedClips(np.full(1_000, 100), RATE, "", decode)
    running = clips.batches(np.array([clip]) for clip in range(1_000))
    for _ in range(3):
        next(running)
    running.close()
    assert len(asked) <= 3 + 1_000 / 100


def test_a_failure_to_decode_reaches_the_training() -> None:
    clips = StreamedClips(np.array([5, 5]), RATE, "", lambda clip: 1 // clip)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        list(clips.batches([np.array([1, 0])]))


def test_joined_clips_are_those_of_the_parts_in_order(tmp_path: Path, progress: Progress) -> None:
    write_tar(tmp_path / "a.tar", [(f"{i}.wav", noise(i)) for i in range(3)])
    write_parquet(tmp_path / "b.parquet", [noise(i) for i in range(3, 6)])
    tar, parquet = (streamed(tmp_path / name, progress) for name in ("a.tar", "b.parquet"))
    decoded = Clips.pack(["x", "y"], [np.zeros(5, np.float32), np.ones(6, np.float32)], RATE)
    joined = StreamedClips.join("abc", [tar, decoded, parquet])
    expected = [part[index] for part in (tar, decoded, parquet) for index in range(len(part))]
    assert len(joined) == 8
    for index, samples in enumerate(expected):
        assert np.array_equal(joined[index], samples)
        assert joined.lengths[index] == len(samples)
    assert joined.blocks is not None
    assert joined.blocks.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert joined.key != StreamedClips.join(["a", "b", "d"], [tar, decoded, parquet]).key


def test_selected_clips_are_decoded_and_a_view_reads_the_same(
    tmp_path: Path, progress: Progress
) -> None:
    write_tar(tmp_path / "a.tar", [(f"{i}.wav", noise(i)) for i in range(4)])
    clips = streamed(tmp_path / "a.tar", progress)
    chosen, view = clips.select([3, 1]), clips.view([3, 1])
    for index, clip in enumerate((3, 1)):
        assert np.array_equal(chosen[index], clips[clip])
        assert np.array_equal(view[index], clips[clip])
    assert view.lengths.tolist() == chosen.lengths.tolist()


def test_all_clips_are_shuffled_together_unless_blocks_are_too_large(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = made_up([1] * 1_000)
    in_blocks = StreamedClips(
        clips.lengths, RATE, "", clips.decode, np.arange(0, 1_000, 10), np.full(100, 50)
    )
    expected = torch.randperm(1_000, generator=generator)
    for each in (clips, in_blocks):
        assert torch.equal(shuffled(each, torch.Generator().manual_seed(0)), expected)
    monkeypatch.setattr(training_batches, "POOL_BYTES", 500)
    order = shuffled(in_blocks, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(1_000))
    pools = order.reshape(10, 100) // 10
    assert all(len(set(pool.tolist())) == 10 for pool in pools), "ten blocks at a time"
    assert all(pool.diff().count_nonzero() > 50 for pool in pools), "mixed within a pool"
    assert not torch.equal(order, shuffled(in_blocks, torch.Generator().manual_seed(1)))
