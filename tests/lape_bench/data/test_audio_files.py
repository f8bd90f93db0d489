"""No recording below a folder vanishes in silence."""

import logging
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.data.audio_files import files_below, warn_of_passed_over


def place(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"audio")


def test_folders_and_files_behind_links_are_listed(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    place(root / "a" / "1.wav", disk / "bob" / "2.wav", disk / "bob" / "deep" / "3.wav")
    (root / "a" / "bob").symlink_to(disk / "bob")
    (root / "a" / "0.wav").symlink_to(disk / "bob" / "2.wav")
    (root / "a" / "gone.wav").symlink_to(disk / "gone.wav")  # decoding names it
    names = [path.relative_to(root / "a").as_posix() for path in files_below(root)]
    assert names == ["0.wav", "1.wav", "gone.wav", "bob/2.wav", "bob/deep/3.wav"]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_that_leads_back_is_passed_over_by_name(
    target: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place(tmp_path / "root" / "a" / "1.wav")
    (tmp_path / "root" / "a" / "loop").symlink_to(target)
    assert [path.name for path in files_below(tmp_path / "root")] == ["1.wav"]
    with caplog.at_level(logging.WARNING):
        warn_of_passed_over(tmp_path / "root")
    assert "a/loop, a link that leads back" in caplog.text


def test_links_that_lead_to_each_other_are_followed_once(tmp_path: Path) -> None:
    place(tmp_path / "a" / "1.wav", tmp_path / "b" / "2.wav")
    (tmp_path / "a" / "to-b").symlink_to("../b")
    (tmp_path / "b" / "to-a").symlink_to("../a")
    names = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert names == ["a/1.wav", "a/to-b/2.wav", "b/2.wav", "b/to-a/1.wav"]


def test_a_folder_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path / "open" / "1.wav", tmp_path / "shut" / "2.wav")
    scandir = __import__("os").scandir

    def refusing(path: str) -> object:  # the superuser reads every folder
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(UserError, match=r"shut cannot be read \(Permission denied\)"):
        list(files_below(tmp_path))


def test_hidden_audio_is_passed_over_with_a_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place(tmp_path / "a" / "1.wav", tmp_path / "a" / ".2.wav", tmp_path / "a" / ".old" / "3.flac")
    place(tmp_path / "a" / ".old" / "notes.txt")
    assert [path.name for path in files_below(tmp_path)] == ["1.wav"]
    with caplog.at_level(logging.WARNING):
        warn_of_passed_over(tmp_path)
    assert "passed over: 2 hidden audio files" in caplog.text


def test_what_a_mac_leaves_beside_files_is_no_hidden_audio(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place(tmp_path / "1.wav", tmp_path / "._1.wav", tmp_path / "__MACOSX" / "._1.wav")
    warn_of_passed_over(tmp_path)
    assert not caplog.records
