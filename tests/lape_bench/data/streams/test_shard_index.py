"""The clips of shards are listed once, by what they hold, and a killed listing goes on."""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data import audio
from lape_bench.data.streams import parquet_shard, shard_index
from lape_bench.data.streams.find_shards import find_shards
from lape_bench.data.streams.shard_index import ShardIndex, index_file, open_index
from tests.lape_bench.data.streams.shard_files import noise, write_parquet, write_tar


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files that are decoded, as it happens."""
    contents: list[bytes] = []
    decode = audio.decode

    def noted(file: audio.FileContent, *how: object) -> Iterator[audio.Samples]:
        contents.append(file.content)
        return decode(file, *how)

    monkeypatch.setattr(audio, "decode", noted)
    return contents


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two tar files and a Parquet file with two clips each."""
    folder = tmp_path / "shards"
    for number in range(2):
        members = [(f"{i}.wav", noise(2 * number + i)) for i in range(2)]
        write_tar(folder / f"{number}.tar", [*members, ("0.json", b"{}")])
    write_parquet(folder / "2.parquet", [noise(4), noise(5, rate=16_000, format="FLAC")])
    return folder


def listed(entry: Path, progress: Progress) -> ShardIndex:
    shards = find_shards(str(entry))
    assert shards is not None
    return open_index(shards, progress)


def refusal(entry: Path, progress: Progress) -> str:
    with pytest.raises(UserError) as caught:
        listed(entry, progress)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_clips_are_read_as_from_files_in_the_order_of_the_shards(
    shards: Path, progress: Progress, tmp_path: Path
) -> None:
    index = listed(shards, progress)
    contents = [*map(noise, range(5)), noise(5, rate=16_000, format="FLAC")]
    assert len(index) == len(contents)
    for clip, content in enumerate(contents):
        (tmp_path / "clip").write_bytes(content)
        samples, rate = audio.read(tmp_path / "clip")
        read, own_rate = index.read(clip)
        assert own_rate == rate
        assert np.array_equal(read, samples)
        assert index.samples[clip] == len(samples)


def test_shards_are_decoded_once_and_a_new_one_alone(
    shards: Path, progress: Progress, decoded: list[bytes]
) -> None:
    first = listed(shards, progress)
    assert len(decoded) == 6
    again = listed(shards, progress)
    assert len(decoded) == 6
    assert (again.key, again.state) == (first.key, first.state)
    write_tar(shards / "3.tar", [("x.wav", noise(9))])
    more = listed(shards, progress)
    assert decoded[6:] == [noise(9)]
    assert (len(more), more.key == first.key, more.state == first.state) == (7, False, False)


def test_a_killed_listing_goes_on_at_the_next_shard(
    shards: Path, progress: Progress, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        content_hash = audio.content_hash

        def killed(samples: audio.Samples, rate: int) -> str:
            if len(decoded) > 3:
                raise Killed
            return content_hash(samples, rate)

        patch.setattr(audio, "content_hash", killed)
        with pytest.raises(Killed):
            listed(shards, progress)
    decoded.clear()
    index = listed(shards, progress)
    assert sorted(decoded) == sorted(
        [noise(2), noise(3), noise(4), noise(5, rate=16_000, format="FLAC")]
    )
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "another cache"))
    undisturbed = listed(shards, progress)
    assert (index.key, index.state) == (undisturbed.key, undisturbed.state)


def test_the_same_shards_elsewhere_have_the_same_state_and_key(
    shards: Path, progress: Progress, tmp_path: Path
) -> None:
    first = listed(shards, progress)
    (tmp_path / "moved").mkdir()
    shards.rename(tmp_path / "moved" / "shards")
    moved = listed(tmp_path / "moved" / "shards", progress)
    assert (moved.key, moved.state) == (first.key, first.state)


def test_other_audio_of_the_same_size_and_time_is_noticed(shards: Path, progress: Progress) -> None:
    first, path = listed(shards, progress), shards / "0.tar"
    times = path.stat()
    write_tar(path, [(f"{i}.wav", noise(70 + i)) for i in range(2)] + [("0.json", b"{}")])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = listed(shards, progress)
    assert path.stat().st_size == times.st_size
    assert (again.key != first.key, again.state != first.state) == (True, True)


def test_clips_are_found_by_the_hash_of_their_decoded_audio(
    shards: Path, progress: Progress
) -> None:
    index = listed(shards, progress)
    samples, rate = audio.read(audio.FileContent("", noise(4, format="FLAC")))
    wave, _ = audio.read(audio.FileContent("", noise(3)))
    hashes = [audio.content_hash(samples, rate), audio.content_hash(wave, rate)]
    assert index.clips_among([*hashes, hashlib.sha256(b"other").hexdigest()]) == ["1.tar/1.wav"]
    wave, _ = audio.read(audio.FileContent("", noise(4)))
    assert index.clips_among([audio.content_hash(wave, rate)]) == ["2.parquet/0"]
    assert index.clips_among([]) == []


def test_bad_members_are_left_out_and_counted(tmp_path: Path, progress: Progress) -> None:
    members = [
        ("good.wav", noise(0)), ("text.wav", b"some text"), ("good.wav", noise(1)), ("._good.wav", b"macOS"),
        ("empty.flac", b""), ("cut.wav", noise(2)[:-1000]),
    ]  # fmt: skip
    write_tar(tmp_path / "a.tar", members)
    index = listed(tmp_path / "a.tar", progress)
    assert len(index) == 1
    assert index.n_left_out == 4
    assert len(index.examples) == 3
    assert index.examples[0].startswith("a.tar/text.wav (not audio: it looks like text")
    assert index.examples[1] == "a.tar/good.wav (a second file of this name in the shard)"
    samples, _ = audio.read(audio.FileContent("", noise(0)))
    assert np.array_equal(index.read(0)[0], samples)


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path: Path, progress: Progress) -> None:
    write_tar(tmp_path / "a.tar", [("\udcff.wav", noise(0))])
    samples, rate = audio.read(audio.FileContent("", noise(0)))
    index = listed(tmp_path / "a.tar", progress)
    assert index.clips_among([audio.content_hash(samples, rate)]) == ["a.tar/\\udcff.wav"]


def test_rows_without_audio_are_left_out_and_the_rest_keep_their_place(
    tmp_path: Path, progress: Progress
) -> None:
    write_parquet(tmp_path / "a.parquet", [None, noise(0), b"text", noise(1), noise(2)])
    index = listed(tmp_path / "a.parquet", progress)
    assert index.n_left_out == 2
    for clip in range(3):
        samples, _ = audio.read(audio.FileContent("", noise(clip)))
        assert np.array_equal(index.read(clip)[0], samples)


def test_a_truncated_tar_file_is_refused(tmp_path: Path, progress: Progress) -> None:
    path = write_tar(tmp_path / "a.tar", [("0.wav", noise(0)), ("1.wav", noise(1))])
    os.truncate(path, 8000)
    assert "a.tar cannot be read (unexpected end of data); copy or download it again" in refusal(
        path, progress
    )
    assert not list((tmp_path / "cache" / "corpora" / "shards").glob("*.index"))


def test_a_tar_file_that_ends_early_or_goes_on_after_its_end_is_refused(
    tmp_path: Path, progress: Progress
) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{number}.wav", noise(number)) for number in range(3)])
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        place = archive.getmembers()[2].offset
    damaged = bytearray(whole)
    damaged[place] ^= 1  # in the header of the third member
    for content in (damaged, whole[:place], whole[: place + 100]):
        path.write_bytes(content)
        assert f"a.tar cannot be read (truncated or damaged at byte {place:,}: " in refusal(
            path, progress
        )
    path.write_bytes(whole + whole)
    assert "a.tar cannot be read (more data follows the end of the archive" in refusal(
        path, progress
    )
    path.write_bytes(whole)
    assert len(listed(path, progress)) == 3


def test_links_sparse_files_and_hidden_files_of_a_tar_file_are_left_out(
    tmp_path: Path, progress: Progress
) -> None:
    path, content = tmp_path / "a.tar", noise(0)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        (tmp_path / "clip").write_bytes(content)
        for name, kind in (("hard.wav", tarfile.LNKTYPE), ("soft.wav", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "x.wav"
            archive.addfile(link)
        sparse = tarfile.TarInfo("sparse.wav")
        sparse.size = len(content)
        sparse.pax_headers = {"GNU.sparse.map": f"0,{len(content)}"}
        sparse.pax_headers["GNU.sparse.size"] = str(2 * len(content))
        archive.addfile(sparse, (tmp_path / "clip").open("rb"))
        for name in (".trash/x.wav", "./../x.wav"):
            archive.add(tmp_path / "clip", name)
        folder = tarfile.TarInfo("folder.wav")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    index = listed(path, progress)
    assert len(index) == 1
    assert index.n_left_out == 4
    assert index.examples == (
        "a.tar/hard.wav (a link; pack files with tar --dereference --hard-dereference)",
        "a.tar/soft.wav (a link; pack files with tar --dereference --hard-dereference)",
        "a.tar/sparse.wav (a sparse file; pack it without --sparse)",
    )


def test_a_shard_without_audio_is_counted(tmp_path: Path, progress: Progress) -> None:
    write_tar(tmp_path / "shards" / "a.tar", [("a.wav", noise(0))])
    write_tar(tmp_path / "shards" / "b.tar", [("b.sph", noise(1))])
    index = listed(tmp_path / "shards", progress)
    assert len(index) == index.n_left_out == 1
    assert index.examples == ("b.tar (holds no audio files)",)


def test_an_mp3_file_is_read_as_it_was_listed(tmp_path: Path, progress: Progress) -> None:
    """Only the extension tells that frames of MP3 follow other bytes."""
    content = bytes(1_000) + noise(0, rate=16_000, format="MP3")
    path = write_tar(tmp_path / "a.tar", [("0.wav", noise(1)), ("1.MP3", content)])
    index = listed(path, progress)
    samples, _ = audio.read(audio.FileContent("1.MP3", content))
    assert np.array_equal(index.read(1)[0], samples)


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.uint8())])
def test_a_parquet_column_that_holds_no_bytes_is_refused(
    kind: pa.DataType, tmp_path: Path, progress: Progress
) -> None:
    rows = pa.array([{"bytes": "1" if kind == pa.string() else [1]}], pa.struct({"bytes": kind}))
    pq.write_table(pa.table({"audio": rows}), tmp_path / "a.parquet")
    assert "a.parquet has no columns of audio" in refusal(tmp_path / "a.parquet", progress)


def test_row_groups_are_part_of_the_key_since_they_decide_the_order(
    tmp_path: Path, progress: Progress
) -> None:
    contents, indices = [*map(noise, range(4))], []
    for rows_at_once in (2, 3):
        write_parquet(tmp_path / "a.parquet", contents, rows_at_once)
        indices.append(listed(tmp_path / "a.parquet", progress))
    first, second = indices
    assert first.key != second.key
    assert first.state != second.state


def test_another_version_of_a_decoder_lists_again(
    shards: Path, progress: Progress, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(shards, progress)
    monkeypatch.setattr(shard_index, "decoder_version", lambda: "another")
    listed(shards, progress)
    assert len(decoded) == 12


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_file_of_another_kind_is_refused(name: str, tmp_path: Path, progress: Progress) -> None:
    (tmp_path / name).write_bytes(b"no shard at all " * 100)
    assert f"{name} cannot be read" in refusal(tmp_path / name, progress)


def test_a_parquet_file_without_audio_is_refused(tmp_path: Path, progress: Progress) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "a.parquet")
    said = refusal(tmp_path / "a.parquet", progress)
    assert "a.parquet has no columns of audio; its columns are text, label; one column of" in said


def test_shards_without_usable_audio_are_refused(tmp_path: Path, progress: Progress) -> None:
    write_tar(tmp_path / "a.tar", [("a.json", b"{}")])
    assert f"the 1 shards in {tmp_path} hold no audio that can be read" in refusal(
        tmp_path / "a.tar", progress
    )
    write_tar(tmp_path / "b.tar", [("a.wav", b"text")])
    assert "1 files are left out, such as b.tar/a.wav (" in refusal(tmp_path / "b.tar", progress)


def test_a_damaged_index_is_made_again(
    shards: Path, progress: Progress, cache: Path, decoded: list[bytes]
) -> None:
    before = listed(shards, progress).key
    for place in (40, -60, -1):  # in the table, in its footer, in the checksum
        for file in (cache / "corpora" / "shards").glob("*.index"):
            content = bytearray(file.read_bytes())
            content[place] ^= 1
            file.write_bytes(content)
        decoded.clear()
        assert listed(shards, progress).key == before
        assert len(decoded) == 6


@pytest.mark.parametrize("seconds", [0.3, 0.2])
def test_a_shard_that_changes_during_a_run_is_refused(
    seconds: float, shards: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = listed(shards, progress)
    monkeypatch.setattr(parquet_shard, "ROW_GROUPS", parquet_shard._RowGroups())
    contents = [noise(seed, seconds) for seed in (10, 11)]
    write_tar(shards / "0.tar", [("0.wav", contents[0]), ("1.wav", contents[1])])
    write_parquet(shards / "2.parquet", contents)
    for clip, name in ((0, "0.tar"), (4, "2.parquet")):
        with pytest.raises(UserError, match=rf"{name} has changed since the run began"):
            index.read(clip)
    (shards / "1.tar").unlink()
    with pytest.raises(UserError, match=r"1\.tar has changed since the run began"):
        index.read(2)


def test_a_list_that_another_process_removes_is_told_in_a_sentence(
    shards: Path, progress: Progress
) -> None:
    index = listed(shards, progress)
    index_file(index.shards[1]).unlink()
    with pytest.raises(UserError, match="run the same command again; another process"):
        index.clips_among([])


def test_old_indices_of_a_shard_are_removed(shards: Path, progress: Progress, cache: Path) -> None:
    for seed in range(3):
        write_tar(shards / "0.tar", [("0.wav", noise(seed))])
        listed(shards / "0.tar", progress)
    assert len(list((cache / "corpora" / "shards").glob("*.index"))) == 1
