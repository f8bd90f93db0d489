import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from lape_bench.core import paths
from lape_bench.core.errors import UserError
from lape_bench.core.paths import checkpoint_folder, home, new_file, staged_folder


def test_the_cache_is_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "x"))
    assert home() == tmp_path / "x"
    monkeypatch.delenv("LAPE_BENCH_HOME")
    assert home().name == "lape_bench"


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file"

    def fail() -> None:
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(path.parent.iterdir()) == []
    with new_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_folder_finished_by_another_process_first_is_kept(tmp_path: Path) -> None:
    with staged_folder(tmp_path) as staging:
        (staging.path / "mine").touch()
        (tmp_path / "name").mkdir()
        (tmp_path / "name" / "theirs").touch()
        staging.name = "name"
    assert [path.name for path in (tmp_path / "name").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_what_a_killed_process_left_is_removed_after_a_day_and_not_before(tmp_path: Path) -> None:
    for name, age in (("old", paths.ABANDONED_SECONDS + 60), ("young", 60)):
        folder = tmp_path / f"{paths.PART}{name}"
        folder.mkdir()
        (folder / "half").touch()
        then = time.time() - age
        os.utime(folder / "half", (then, then))
        os.utime(folder, (then, then))
    with staged_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [f"{paths.PART}young"]


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


def test_a_file_that_is_missing_elsewhere_is_not_taken_for_a_place_that_cannot_be_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(FileNotFoundError), staged_folder(tmp_path / "cache" / "kind"):
        (tmp_path / "vocabulary.txt").read_text()
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="cannot be written"),
        staged_folder(tmp_path / "file" / "kind"),
    ):
        pass


def test_checkpoints_that_cannot_be_written_are_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        checkpoint_folder(tmp_path / "file" / "work", {})
