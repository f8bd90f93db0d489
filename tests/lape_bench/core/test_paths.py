import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lape_bench.core import paths
from lape_bench.core.errors import UserError
from lape_bench.core.leftovers import is_left_over, process_tag
from lape_bench.core.paths import home, new_file, staged_folder, write_text


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


def killed_process(*lines: str) -> None:
    """Have a process run some lines and then end without cleaning up."""
    code = "\n".join([*lines, "import os; os._exit(0)"])
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_killed_process_of_this_machine_left_is_removed_at_the_next_start(
    tmp_path: Path,
) -> None:
    killed_process(
        "from pathlib import Path",
        "from lape_bench.core.paths import new_file, staged_folder",
        f"folder = staged_folder(Path({str(tmp_path)!r})); folder.__enter__()",
        f"file = new_file(Path({str(tmp_path)!r}, 'a[1].txt')); file.__enter__()",
    )
    assert len(list(tmp_path.iterdir())) == 2
    with staged_folder(tmp_path) as mine:
        with staged_folder(tmp_path):
            pass
        assert list(tmp_path.glob(".part-*")) == [mine.path], "that of a process that runs stays"
    with new_file(tmp_path / "a[1].txt") as mine_too:
        with new_file(tmp_path / "a[1].txt"):
            pass
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a[1].txt", mine_too])
    assert [path.name for path in tmp_path.iterdir()] == ["a[1].txt"]


@pytest.mark.parametrize(
    "name",
    [
        ".part-abc",
        ".part-00000000-1-2-abc",  # of another machine
        ".part-{kernel}-{pid}-{started}-abc",
        ".part-{kernel}-{pid}-0-abc",  # of a machine that does not tell when processes started
    ],
)
def test_what_may_belong_to_a_process_that_runs_is_no_leftover(name: str) -> None:
    kernel, pid, started, _ = process_tag().split("-")
    assert not is_left_over(name.format(kernel=kernel, pid=pid, started=started))
    other = f".part-{kernel}-{pid}-{int(started) + 1}-abc"
    assert is_left_over(other), "its number was given to another process"


def test_a_device_and_a_pipe_are_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    for name in ("pipe", "null", "stdout"):
        with pytest.raises(UserError, match="not a regular file"):
            write_text(tmp_path / name, "text")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe", "stdout"]
