from collections.abc import Mapping
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.work_folder import checkpoint_folder


def test_a_run_that_was_killed_keeps_its_checkpoints_and_counts_how_often(tmp_path: Path) -> None:
    work, stamp = tmp_path / "below" / "work", {"torch": "1", "audit": False}
    assert checkpoint_folder(work, stamp) == 0
    (work / "model").mkdir()
    (work / "model" / "epoch").write_text("3")
    for times in (1, 2, 3):
        assert checkpoint_folder(work, dict(reversed(stamp.items()))) == times
    assert (work / "model" / "epoch").read_text() == "3"


@pytest.mark.parametrize(
    "other", [{"torch": "2", "audit": False}, {"torch": "1"}, {}, {"torch": "1", "audit": True}]
)
def test_checkpoints_under_another_stamp_are_dropped(
    other: Mapping[str, object], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    for _ in range(3):
        checkpoint_folder(work, {"torch": "1", "audit": False})
    (work / "epoch").write_text("3")
    assert checkpoint_folder(work, other) == 0
    assert [path.name for path in work.iterdir()] == ["stamp.json"]
    assert checkpoint_folder(work, other) == 1


def test_checkpoints_without_a_stamp_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "epoch").write_text("3")
    assert checkpoint_folder(tmp_path / "work", {}) == 0
    assert not (tmp_path / "work" / "epoch").exists()


def test_checkpoints_that_cannot_be_written_are_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        checkpoint_folder(tmp_path / "file" / "work", {})


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"[]", b'{"content": {}}'], ids=repr)
def test_checkpoints_under_a_damaged_stamp_are_dropped_with_a_word(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        checkpoint_folder(tmp_path / "work", {"torch": "1"})
    (tmp_path / "work" / "epoch").write_text("3")
    (tmp_path / "work" / "stamp.json").write_bytes(damage)
    assert checkpoint_folder(tmp_path / "work", {"torch": "1"}) == 0
    assert "damaged" in caplog.text
    assert not (tmp_path / "work" / "epoch").exists()
