import hashlib
import io
import os
import shutil
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.paths import staged_folders
from lape_bench.data.sources import checksum_pins
from lape_bench.data.sources.archives import (  # fmt: skip
    BadArchive,
    Download,
    bare_name,
    check,
    check_fetched,
    checksums_of,
    delete_unpacked,
    downloads,
    is_archive,
    opens,
    unpack,
)
from lape_bench.data.sources.checksum_pins import Pin
from lape_bench.task import Source
from tests.lape_bench.data.archives import card_with, card_with_index

FILES = {f"audio/{index}.wav": np.random.default_rng(index).bytes(3000) for index in range(6)}
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
ENDINGS = ["zip", *TAR_MODES]


def write_zip(path: Path, *extra: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
        for member in extra:
            archive.writestr(member, b"/etc/passwd")
    return path


def write_tar(path: Path, *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, TAR_MODES[path.name.partition(".")[2]]) as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


def write_archive(path: Path) -> Path:
    return write_zip(path) if path.suffix == ".zip" else write_tar(path)


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def zip_member(name: str, kind: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (kind | 0o644) << 16
    return member


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_unpacks_to_what_was_packed(ending: str, tmp_path: Path, cache: Path) -> None:
    archive = write_archive(tmp_path / f"sounds.{ending}")
    members: list[int] = []
    folder = unpack(archive, checksum(archive), lambda: members.append(1))
    assert folder.is_relative_to(cache)
    assert contents(folder) == FILES
    assert len(members) == len(FILES)


def test_unpacking_again_finds_the_folder_and_unpacks_nothing(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "sounds.zip")
    known = checksum(archive)
    folder = unpack(archive, known)
    archive.unlink()
    members: list[int] = []
    assert unpack(archive, known, lambda: members.append(1)) == folder
    assert not members


def test_archives_of_one_name_and_other_content_do_not_meet(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "sounds.zip")
    (tmp_path / "other").mkdir()
    second = write_zip(tmp_path / "other" / "sounds.zip", zip_member("more.txt"))
    assert contents(unpack(first, checksum(first))) == FILES
    assert "more.txt" in contents(unpack(second, checksum(second)))


def test_what_is_unpacked_in_stages_is_there_when_all_of_it_is(tmp_path: Path, cache: Path) -> None:
    archives = [write_zip(tmp_path / f"{name}.zip", zip_member(name)) for name in "ab"]
    with staged_folders(cache / "data") as stage:
        folders = [unpack(each, checksum(each), stage=stage) for each in archives]
        assert not any(folder.exists() for folder in folders)
    assert [contents(folder).keys() - FILES.keys() for folder in folders] == [{"a"}, {"b"}]


@pytest.mark.parametrize("ending", ENDINGS)
def test_whether_a_file_is_an_archive_is_told_by_its_content_too(
    ending: str, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / f"sounds.{ending}")
    assert opens(archive)
    archive.write_text("<html><body>Please log in</body></html>\n" * 50)
    assert not opens(archive)


def test_an_unpacking_that_is_interrupted_leaves_nothing_half(tmp_path: Path, cache: Path) -> None:
    archive = write_zip(tmp_path / "sounds.zip")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, checksum(archive), stop)
    assert everything_below(cache) == {cache / "data"}
    assert contents(unpack(archive, checksum(archive))) == FILES


def refused(archive: Path, member: str, reason: str, cache: Path) -> None:
    """Unpacking is refused with this reason, and no file appears anywhere near."""
    before = everything_below(archive.parent)
    with pytest.raises(UserError, match="not safe to unpack") as caught:
        unpack(archive, checksum(archive))
    said = one_line(caught)
    assert str(archive) in said
    assert f"'{member}'" in said
    assert reason in said
    assert everything_below(archive.parent) - before <= {cache, cache / "data"}


@pytest.mark.parametrize("archive", ["bad.zip", "bad.tar", "bad.tar.gz"])
@pytest.mark.parametrize("name", ["../escaped.txt", "audio/../../escaped.txt", "HERE/escaped.txt"])
def test_a_member_outside_the_folder_is_refused_and_nothing_is_unpacked(
    archive: str, name: str, tmp_path: Path, cache: Path
) -> None:
    name = name.replace("HERE", str(tmp_path))  # an absolute path
    path = tmp_path / archive
    if path.suffix == ".zip":
        write_zip(path, zip_member(name))
    else:
        write_tar(path, tar_member(name))
    refused(path, name, "outside the folder", cache)


@pytest.mark.parametrize(
    "name",
    ["..\\escaped.txt", "\\\\server\\share\\escaped.txt", "C:\\escaped.txt", "C:escaped.txt"],
)
def test_a_name_that_leaves_the_folder_on_windows_is_refused_everywhere(
    name: str, tmp_path: Path, cache: Path
) -> None:
    path = write_zip(tmp_path / "bad.zip", zip_member(name))
    refused(path, name, "outside the folder", cache)


def test_a_link_in_a_zip_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "bad.zip", zip_member("passwords", stat.S_IFLNK))
    refused(path, "passwords", "link or a device", cache)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "audio/0.wav"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "audio/0.wav"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
    ids=[
        "symlink out",
        "symlink",
        "hard link out",
        "hard link",
        "character device",
        "disk",
        "pipe",
    ],
)
def test_a_link_or_device_in_a_tar_is_refused(
    kind: bytes, target: str, tmp_path: Path, cache: Path
) -> None:
    path = write_tar(tmp_path / "bad.tar.gz", tar_member("special", kind, target))
    refused(path, "special", "link or a device", cache)


def test_two_dots_within_a_name_are_no_way_out(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "sounds.zip", zip_member("audio/take..2.wav"))
    assert "audio/take..2.wav" in contents(unpack(archive, checksum(archive)))


@pytest.mark.parametrize("kept", [0.95, 0.5, 0.1, 0.0])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_truncated_archive_is_refused_and_leaves_nothing(
    ending: str, kept: float, tmp_path: Path, cache: Path
) -> None:
    archive = write_archive(tmp_path / f"sounds.{ending}")
    whole = archive.read_bytes()
    if ending == "tar":  # tar ends in kilobytes of zeros, which nobody misses
        whole = whole.rstrip(b"\0")
    archive.write_bytes(whole[: round(kept * len(whole))])
    with pytest.raises(UserError, match="truncated or damaged") as caught:
        unpack(archive, checksum(archive))
    assert str(archive) in one_line(caught)
    assert everything_below(cache) <= {cache / "data"}


def test_a_tar_cut_off_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "sounds.tar")
    a_member = 512 + 3072  # its header, and 3,000 bytes in blocks of 512
    archive.write_bytes(archive.read_bytes()[: 3 * a_member])
    with pytest.raises(UserError, match="truncated or damaged"):
        unpack(archive, checksum(archive))


def test_a_tar_with_a_damaged_header_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "sounds.tar")
    with tarfile.open(archive) as opened:
        place = opened.getmembers()[1].offset
    content = bytearray(archive.read_bytes())
    content[place] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="truncated or damaged"):
        unpack(archive, checksum(archive))


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_data_after_the_end_of_a_tar_is_told(
    ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As `cat` joins two archives."""
    archive = write_archive(tmp_path / f"sounds.{ending}")
    unpack(archive, checksum(archive))
    assert not caplog.messages
    archive.write_bytes(archive.read_bytes() * 2)
    unpack(archive, checksum(archive))
    assert caplog.messages == [
        f"{archive}: more data follows the end of the archive, perhaps another one; it is not unpacked"
    ]


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_with_a_changed_byte_is_refused(ending: str, tmp_path: Path) -> None:
    """Every one of these formats holds a checksum of its own."""
    archive = write_archive(tmp_path / f"sounds.{ending}")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UserError, match="truncated or damaged") as caught:
        unpack(archive, checksum(archive))
    assert str(archive) in one_line(caught)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_page_saved_under_an_archives_name_is_refused(ending: str, tmp_path: Path) -> None:
    archive = tmp_path / f"sounds.{ending}"
    archive.write_text("<html><body>Please log in</body></html>\n" * 50)
    with pytest.raises(UserError, match="truncated or damaged") as caught:
        unpack(archive, checksum(archive))
    assert str(archive) in one_line(caught)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.zip", True),
        ("A.ZIP", True),
        ("a.tar.gz", True),
        ("a.tgz", True),
        ("a.tar", True),
        ("a.gz", False),
        ("a.wav", False),
        ("zip", False),
    ],
)
def test_an_archive_is_told_by_its_ending(name: str, expected: bool) -> None:
    assert is_archive(Path(name)) is expected


def test_an_archive_that_the_card_names_is_accepted_with_its_checksum(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "sounds.zip")
    known = checksum(archive)
    source = Source(file="sounds.zip", bytes=archive.stat().st_size, sha256=known)
    assert check(archive, card_with(source)) == known


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_wrong_checksum_is_refused_with_both(ending: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"sounds.{ending}")
    source = Source(file=archive.name, sha256="0" * 64)
    with pytest.raises(UserError) as caught:
        check(archive, card_with(source))
    said = one_line(caught)
    assert str(archive) in said
    assert checksum(archive)[:12] in said
    assert "000000000000" in said


def test_where_only_an_md5_is_known_it_is_held(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "sounds.zip")
    known = hashlib.md5(archive.read_bytes()).hexdigest()
    assert check(archive, card_with(Source(file="sounds.zip", md5=known))) == checksum(archive)
    with pytest.raises(UserError) as caught:
        check(archive, card_with(Source(file="sounds.zip", md5="0" * 32)))
    said = one_line(caught)
    assert f"the MD5 {known[:12]}" in said
    assert "000000000000" in said


def test_an_md5_beside_a_sha256_is_not_looked_at(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "sounds.zip")
    source = Source(file="sounds.zip", sha256=checksum(archive), md5="0" * 32)
    assert check(archive, card_with(source)) == checksum(archive)


def test_a_wrong_size_is_refused_with_both(tmp_path: Path) -> None:
    archive = tmp_path / "sounds.zip"
    archive.write_bytes(bytes(1234))
    with pytest.raises(UserError) as caught:
        check(archive, card_with(Source(file="sounds.zip", bytes=56_789)))
    said = one_line(caught)
    assert "1,234 bytes" in said
    assert "56,789" in said
    assert "cut off" in said


def test_an_archive_that_the_card_does_not_name_is_not_held_against_it(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "mine.zip")
    source = Source(file="sounds.zip", bytes=1, sha256="0" * 64)
    assert check(archive, card_with(source)) == checksum(archive)


def test_only_sources_with_an_address_are_fetched_each_to_a_place_of_its_own(cache: Path) -> None:
    sources = [
        Source(file="by-hand.zip"),
        Source(file="a.zip", url="http://one.example/a.zip"),
        Source(file="a.zip", url="http://two.example/a.zip"),
    ]
    found = downloads(card_with(*sources))
    assert [each.source for each in found] == sources[1:]
    places = [each.path for each in found]
    assert [path.name for path in places] == ["a.zip", "a.zip"]
    assert all(path.is_relative_to(cache) for path in places)
    assert len(set(places)) == 2


# --- what was fetched -------------------------------------------------------------------------------------


URL = "http://one.example/sounds.zip"


def fetched(**how: object) -> Download:
    """The one download of a card, with an archive in its place."""
    [each] = downloads(card_with(Source.model_validate({"file": "sounds.zip", "url": URL} | how)))
    each.path.parent.mkdir(parents=True)
    write_zip(each.path)
    return each


def again(each: Download) -> Download:
    """The same download as a later command finds it."""
    card = card_with(each.source.model_copy(update={"sha256": None, "bytes": None}))
    return downloads(card)[0]


def pin(each: Download) -> None:
    checksum_pins.add(URL, Pin(checksum(each.path), each.path.stat().st_size))


def listing(text: str) -> list[Download]:
    """What a fetched list of this text adds to the card's downloads."""
    card = card_with_index("http://one.example/voxforge_urls.txt")
    [index] = downloads(card)
    index.path.parent.mkdir(parents=True)
    index.path.write_text(text)
    first, *named = downloads(card)
    assert first == index
    assert all(each.is_optional for each in named)
    return named


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.zip", "a"),
        ("A.Part.1.ZIP", "A.Part.1"),
        ("en/16kHz_16bit/a.tgz", "en/16kHz_16bit/a"),
        ("a.tar.gz", "a"),
        ("a.zip.tar", "a.zip"),
        ("labels.csv", "labels.csv"),
        ("zip", "zip"),
    ],
)
def test_only_the_ending_that_makes_an_archive_is_taken_off_a_name(
    name: str, expected: str
) -> None:
    assert bare_name(name) == expected
    assert Download(Source(file=name), Path("anywhere")).place == expected


def test_a_download_is_here_while_its_archive_or_what_was_in_it_is() -> None:
    each = fetched()
    pin(each)
    each = again(each)
    assert each.is_here()
    assert each.unpacked() is None
    folder = unpack(each.path, checksum(each.path))
    assert each.unpacked() == folder
    each.path.unlink()
    assert each.is_here()
    assert each.unpacked() == folder
    folder.rename(folder.with_name("elsewhere"))
    assert not each.is_here()


def test_without_a_checksum_nobody_knows_what_an_archive_was_unpacked_to() -> None:
    each = fetched(pinned=False)
    pin(each)  # for another task
    unpack(each.path, checksum(each.path))
    assert again(each).unpacked() is None


def test_a_file_that_is_no_archive_is_never_unpacked() -> None:
    each = fetched(file="labels.csv", sha256="a" * 64)
    assert each.is_here()
    assert each.unpacked() is None


def test_a_fetched_archive_is_held_against_its_pin() -> None:
    each = fetched()
    pin(each)
    each = again(each)
    assert check_fetched(each) == checksum(each.path)
    whole = each.path.read_bytes()
    for other, reason in ((whole[:-1], "bytes"), (whole[:-1] + b"x", "SHA-256")):
        each.path.write_bytes(other)
        with pytest.raises(UserError) as caught:
            check_fetched(each)
        said = one_line(caught)
        assert reason in said
        assert f"pinned in {checksum_pins.lock_file()}" in said


def test_pinned_archives_are_deleted_once_they_are_unpacked_and_their_bytes_told() -> None:
    each = fetched()
    size = each.path.stat().st_size
    card = card_with(each.source)
    unpack(each.path, checksum(each.path))
    freed, [(name, reason)] = delete_unpacked(card)
    assert (freed, name) == (0, "sounds.zip")
    assert "without a checksum" in reason, "nothing would tell which folder is its own"
    pin(each)
    assert delete_unpacked(card) == (size, ())
    assert not each.path.exists()
    assert again(each).is_here()
    assert delete_unpacked(card) == (0, ())


def test_of_what_is_not_deleted_only_archives_are_named_each_with_its_reason() -> None:
    parts = {"a.zip": "a" * 64, "b.zip": None, "labels.csv": "c" * 64}
    card = card_with(
        *(Source(file=file, url=f"{URL}/{file}", sha256=known) for file, known in parts.items())
    )
    for each in downloads(card):
        each.path.parent.mkdir(parents=True)
        write_zip(each.path)
    freed, kept = delete_unpacked(card)
    assert freed == 0
    assert [name for name, _ in kept] == ["a.zip", "b.zip"]
    assert dict(kept)["a.zip"] == "it is not unpacked"
    assert "without a checksum" in dict(kept)["b.zip"]
    assert all(each.path.is_file() for each in downloads(card))


# --- lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "http://one.example/en/Main/a.tgz",
        "one.example/en/Main/a.tgz",
        "'one.example/en/Main/a.tgz'",
        '"http://one.example/en/Main/a.tgz"',
        "  one.example/en/Main/a.tgz\t\r",
    ],
    ids=["address", "no scheme", "quoted", "quoted twice", "spaces"],
)
def test_a_line_of_a_list_is_an_address_with_or_without_scheme_and_quotes(line: str) -> None:
    [found] = listing(f"\n{line}\n\n  \n")
    assert found.source.url == "http://one.example/en/Main/a.tgz"
    assert found.path.as_posix().endswith("/en/Main/a.tgz")
    assert found.place == "en/Main/a"


def test_another_scheme_than_http_is_kept() -> None:
    [found] = listing("https://one.example/a.tgz\n")
    assert found.source.url == "https://one.example/a.tgz"


def test_listed_files_of_one_name_in_two_folders_do_not_meet() -> None:
    found = listing("one.example/en/a.tgz\none.example/de/a.tgz\n")
    assert len({each.path for each in found}) == len({each.place for each in found}) == 2


def test_a_listed_archive_is_pinned_like_another() -> None:
    checksum_pins.add("http://one.example/a.tgz", Pin("a" * 64, 7))
    found = listing("one.example/a.tgz\none.example/b.tgz\n")
    assert [(each.source.sha256, each.source.bytes) for each in found] == [
        ("a" * 64, 7),
        (None, None),
    ]


@pytest.mark.parametrize("line", ["one.example/../../a.tgz", "one.example/%2e%2e/%2e%2e/a.tgz"])
def test_a_listed_address_that_leaves_the_folder_is_refused(line: str, cache: Path) -> None:
    with pytest.raises(UserError, match="outside the folder"):
        listing(line)


@pytest.mark.parametrize(
    "text", ["http://[one.example/a.tgz", "<html>log in</html>", "one.example/"]
)
def test_a_list_that_holds_something_else_is_said_by_name(text: str) -> None:
    with pytest.raises(UserError) as caught:
        listing(text)
    assert "voxforge_urls.txt" in one_line(caught)


# --- damage in the cache ----------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder, _: flip(folder / "audio" / "3.wav"),
        lambda folder, _: (folder / "audio" / "3.wav").write_bytes(b""),
        lambda folder, _: (folder / "audio" / "3.wav").unlink(),
        lambda folder, _: (folder / "audio" / "new.wav").touch(),
        lambda _, checksums: checksums.unlink(),
        lambda _, checksums: checksums.write_text("{}"),
    ],
    ids=["a bit", "cut off", "lost", "added", "no checksums", "damaged checksums"],
)
def test_a_damaged_folder_is_unpacked_again_with_a_word(
    damage: Callable[[Path, Path], object],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive = write_zip(tmp_path / "a.zip")
    folder = unpack(archive, checksum(archive))
    damage(folder, checksums_of(folder))
    assert unpack(archive, checksum(archive)) == folder
    assert "unpacking a.zip again, since the cache is damaged" in caplog.text
    assert {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.wav")
    } == FILES
    caplog.clear()
    unpack(archive, checksum(archive))
    assert not caplog.text


# --- broken names and directories ---------------------------------------------------------------------------


def renamed(path: Path, name: bytes, to: bytes) -> None:
    """Write other bytes of the same number in the place of a name."""
    content = path.read_bytes()
    assert name in content
    path.write_bytes(content.replace(name, to))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["", "a.wav"], "without a name"),
        (["."], "without a name"),
        (["a" * 300], "File name too long"),
        (["a", "a/b.wav"], "damaged"),
        (["a/b.wav", "a"], "damaged"),
    ],
    ids=["empty", "dot", "long", "file as folder", "folder as file"],
)
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_names_that_no_file_can_have_are_refused_in_one_line(
    names: list[str], reason: str, ending: str, tmp_path: Path, cache: Path
) -> None:
    archive = tmp_path / f"a.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(archive, "w") as written:
            for name in names:
                written.writestr(zipfile.ZipInfo(name), b"x")
    else:
        with tarfile.open(archive, "w") as packed:
            for name in names:
                packed.addfile(tarfile.TarInfo(name))
    with pytest.raises(BadArchive) as caught:
        unpack(archive, checksum(archive))
    assert "\n" not in str(caught.value)
    assert str(archive) in str(caught.value)
    assert reason in str(caught.value)
    assert not list((cache / "data").iterdir())


def test_a_name_that_is_not_in_the_encoding_that_the_archive_says_is_refused(
    tmp_path: Path,
) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("ü.wav", b"x")
    renamed(archive, "ü".encode(), b"\x92\x92")
    with pytest.raises(BadArchive, match=r"a\.zip is truncated or damaged"):
        unpack(archive, checksum(archive))


def test_a_folder_that_names_itself_is_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr(zipfile.ZipInfo("./"), b"")
        written.writestr("./a.wav", b"x")
    assert [path.name for path in unpack(archive, checksum(archive)).iterdir()] == ["a.wav"]


@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.parametrize("again", ["a.wav", "./a.wav"])
def test_a_name_that_comes_twice_is_told(
    again: str, ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = tmp_path / f"a.{ending}"
    members = (("a.wav", b"first"), (again, b"last"))
    if ending == "zip":
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(archive, "w") as written:
            for name, content in members:
                written.writestr(name, content)
    else:
        with tarfile.open(archive, "w") as packed:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    assert (unpack(archive, checksum(archive)) / "a.wav").read_bytes() == b"last"
    assert "more than once" in caplog.text
    assert "a.wav" in caplog.text


def test_an_archive_that_unpacks_to_more_than_the_disk_holds_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_zip(tmp_path / "a.zip")
    free = shutil.disk_usage(tmp_path)._replace(free=17_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(BadArchive, match="unpacks to 18,000 bytes, and 17,999 are free"):
        unpack(archive, checksum(archive))


def test_a_file_of_a_tar_that_is_larger_than_what_is_free_is_refused(tmp_path: Path) -> None:
    # As of a sparse file, most of which is not in the archive.
    archive, size = tmp_path / "a.tar", 2**50
    member = tarfile.TarInfo("a.wav")
    member.type, member.pax_headers = (
        tarfile.REGTYPE,
        {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "a.wav",
            "GNU.sparse.realsize": f"{size}",
        },
    )
    content = b"0\n".ljust(512, b"\0")
    member.size = len(content)
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as packed:
        packed.addfile(member, io.BytesIO(content))
    with pytest.raises(BadArchive, match=f"unpacks to {size:,} bytes"):
        unpack(archive, checksum(archive))


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_with_any_damage_is_unpacked_or_refused_in_one_line(
    ending: str, tmp_path: Path
) -> None:
    archive, random = write_archive(tmp_path / f"a.{ending}"), np.random.default_rng(0)
    whole = archive.read_bytes()
    outcomes = set()
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] = random.integers(256)
        archive.write_bytes(
            damaged[: random.integers(1, len(whole) + 1) if random.random() < 0.3 else None]
        )
        try:
            unpack(archive, checksum(archive))
            outcomes.add("unpacked")
        except BadArchive as error:
            assert "\n" not in str(error)  # noqa: PT017  both ends are right
            outcomes.add("refused")
    assert "refused" in outcomes


def test_an_archive_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(BadArchive, match="not a regular file"):
        check(tmp_path / "a.zip", card_with(Source(file="a.zip")))
