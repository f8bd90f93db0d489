"""Which files an entry of a corpus names as shards."""

import logging
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.data.streams.find_shards import find_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "a-09.json", "below/b.parquet", ".hidden.tar"):
        path = tmp_path / "shards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "shards"


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        (".", ["a-08.tar", "a-09.tar", "a-10.tar", "b.parquet"]),
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("a-{0..0}{8..9}.tar", ["a-08.tar", "a-09.tar"]),
        ("a-0*", ["a-08.tar", "a-09.tar"]),
        ("*.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("**/*", ["a-08.tar", "a-09.tar", "a-10.tar", "b.parquet"]),
        ("a-0?.tar", ["a-08.tar", "a-09.tar"]),
        ("*/*.parquet", ["b.parquet"]),
        ("a-10.tar", ["a-10.tar"]),
    ],
)
def test_an_entry_names_a_shard_a_pattern_or_a_folder(
    entry: str, names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in (str(folder / entry), entry):
        monkeypatch.chdir(folder)
        shards = find_shards(given)
        assert shards is not None
        assert [shard.path.name for shard in shards] == names
        assert all(shard.path.is_absolute() for shard in shards)


@pytest.mark.parametrize("entry", ["", " ", "nowhere", "a-09.json", "below/none", "a-11.tar"])
def test_other_entries_name_none(entry: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert find_shards(entry) is None


def test_a_folder_with_audio_is_a_folder_of_audio(folder: Path) -> None:
    (folder / "below" / "clip.flac").touch()
    assert find_shards(str(folder)) is None


def test_shards_beside_audio_are_named_in_a_warning_unless_they_are_compressed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("recordings.tar.gz", "recordings/clip.flac"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert find_shards(str(tmp_path)) is None
    assert not caplog.messages
    (tmp_path / "0.tar").touch()
    with caplog.at_level(logging.WARNING):
        assert find_shards(str(tmp_path)) is None
    assert caplog.messages == [
        f"passed over: 1 shards below {tmp_path}, which holds audio files too, such as {tmp_path}/0.tar; "
        f"name them by a pattern, such as {tmp_path}/*.tar"
    ]


def test_checksums_and_indices_beside_shards_are_left_alone(folder: Path) -> None:
    for name in ("a-08.tar.md5", "a-08.tar.idx"):
        (folder / name).touch()
    assert len(find_shards(str(folder)) or ()) == 4


def test_a_name_with_brackets_is_no_pattern_if_the_file_exists(tmp_path: Path) -> None:
    (tmp_path / "a [x].tar").touch()
    shards = find_shards(str(tmp_path / "a [x].tar"))
    assert shards is not None
    assert [shard.path.name for shard in shards] == ["a [x].tar"]


@pytest.mark.parametrize("entry", ["", "*.tar", "a-{08..11}.tar"])
def test_a_link_that_leads_nowhere_is_refused(entry: str, folder: Path) -> None:
    (folder / "a-11.tar").symlink_to("nowhere.tar")
    with pytest.raises(UserError, match=r"a-11\.tar is not a file, or a link that leads nowhere"):
        find_shards(str(folder / entry))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a-{07..12}.tar", "and 3 of 6 shards are missing, such as"),
        ("c-*.tar", "and 1 of 1 shards are missing"),
        ("*.json", "and 1 of 1 shards are missing"),
        ("a-{10..08}.tar", r"in which \{10..08\} runs backwards; the smaller number first"),
    ],
)
def test_a_pattern_that_misses_a_shard_is_refused(entry: str, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        find_shards(str(folder / entry))


@pytest.mark.parametrize("name", ["c.tar.gz", "c.tgz", "c.tar.zst"])
def test_a_compressed_shard_is_refused(name: str, folder: Path) -> None:
    (folder / name).touch()
    for entry in (folder, folder / name):
        with pytest.raises(UserError, match=f"{name} is compressed.*uncompress it"):
            find_shards(str(entry))
