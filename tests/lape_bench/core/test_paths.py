import os
import time
from pathlib import Path

import pytest

from lape_bench.core import paths
from lape_bench.core.errors import UserError
from lape_bench.core.paths import home, new_file, staged_folder


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
