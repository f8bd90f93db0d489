import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core import folder_checksums, sealed_json
from lape_bench.core.errors import explain_write_errors
from lape_bench.core.folder_checksums import (
    CHECKSUMS,
    COMPARED,
    ChecksummingWriter,
    find_damage,
    remember_compared,
    write_checksums,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with checksums, whose largest file has eight blocks of ten bytes."""
    monkeypatch.setattr(folder_checksums, "BLOCK", 10)
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "large").write_bytes(bytes(range(75)))
    (folder / "below" / "small").write_bytes(b"12")
    (folder / "empty").touch()
    write_checksums(folder)
    return folder


def change(path: Path, content: bytes) -> None:
    """Change a file, and have it look as old as before to whoever asks for the time of its last change."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: change(folder / "large", bytes(range(74)) + b"x"), "large is damaged"),
        (lambda folder: change(folder / "large", bytes(range(74))), "large is damaged"),
        (lambda folder: change(folder / "large", bytes(range(76))), "large is damaged"),
        (lambda folder: change(folder / "below" / "small", b"13"), "small is damaged"),
        (lambda folder: change(folder / "empty", b"x"), "empty is damaged"),
        (lambda folder: (folder / "empty").unlink(), "empty is missing"),
        (lambda folder: (folder / "below" / "new").touch(), "new is new"),
        (lambda folder: (folder / CHECKSUMS).unlink(), "cannot be read"),
        (lambda folder: (folder / CHECKSUMS).write_text("{}"), "is damaged"),
        (lambda folder: folder.rename(folder.parent / "other"), "cannot be read"),
    ],
)
@pytest.mark.parametrize("remember", [False, True])
def test_damage_is_named_once_and_again(
    damage: Callable[[Path], object], named: str, remember: bool, folder: Path
) -> None:
    for _ in range(2):
        assert find_damage(folder, remember) == ""
    damage(folder)
    for _ in range(2):
        assert named in find_damage(folder, remember, threads=2)


def test_each_flipped_bit_is_noticed_in_full(folder: Path) -> None:
    whole = (folder / "large").read_bytes()
    for place in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        change(folder / "large", bytes(damaged))
        assert "large is damaged" in find_damage(folder)


def test_a_file_that_nothing_wrote_to_since_it_was_compared_is_looked_at_in_spots(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_damage(folder, remember=True) == ""
    looked_at = []
    fits = folder_checksums._fits

    def noting(path: Path, expected: object, spots: bool) -> bool:
        looked_at.append((path.name, spots))
        return fits(path, expected, spots)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(folder_checksums, "_fits", noting)
    assert find_damage(folder, remember=True) == ""
    assert sorted(looked_at) == [("empty", True), ("large", True), ("small", True)]
    (folder / "large").touch()  # written to
    looked_at.clear()
    assert find_damage(folder, remember=True) == ""
    assert ("large", False) in looked_at


def test_damage_that_left_no_trace_is_found_in_time(folder: Path) -> None:
    (folder / "large").write_bytes(bytes(range(74)) + b"x")
    remember_compared(folder, intact=True)  # as if a disk had changed it
    assert any("large" in find_damage(folder, remember=True) for _ in range(100))
    assert not (folder / COMPARED).exists(), "from then on it is compared in full"
    assert "large" in find_damage(folder, remember=True)


def test_checksums_computed_while_writing_are_those_of_the_file(folder: Path) -> None:
    file = io.BytesIO()
    writer = ChecksummingWriter(file)
    content = bytes(range(75))
    for start, end in ((0, 3), (3, 3), (3, 10), (10, 42), (42, 75)):
        assert writer.tell() == start
        writer.write(memoryview(content[start:end]))
    assert file.getvalue() == content
    (folder / CHECKSUMS).unlink()
    write_checksums(folder, {"large": writer.checksums()})
    assert find_damage(folder) == ""


def test_a_folder_that_may_only_be_read_is_compared_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(folder_checksums, "write_sealed_json", refuse)
    assert find_damage(folder, remember=True) == ""
    assert not (folder / COMPARED).exists()


def test_hidden_files_beside_the_checksums_are_passed_over(folder: Path) -> None:
    (folder / ".DS_Store").write_text("of a Mac")
    assert find_damage(folder) == ""


def test_a_folder_that_cannot_be_written_is_compared_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a cache that was copied to a read-only disk: the copies have other times.
    def refuse(path: Path, text: str) -> None:
        with explain_write_errors(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(sealed_json, "write_text", refuse)
    for _ in range(2):
        assert find_damage(folder, remember=True) == ""
    change(folder / "large", bytes(range(74)) + b"x")
    assert "large is damaged" in find_damage(folder, remember=True)
