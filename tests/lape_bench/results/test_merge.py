"""Records of several machines in one folder: taken whole, never over what is there."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lape_bench.records.record import ERROR, RECORD, find_records, read_record, write_record
from lape_bench.results import merge as merge_module
from lape_bench.results.load import load_results
from tests.lape_bench.conftest import Bench
from tests.lape_bench.report.test_leaderboard import write


def contents(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_cells_of_two_machines_are_one_grid_and_the_sources_stay_as_they_are(
    tmp_path: Path, bench: Bench
) -> None:
    for seed in (0, 1):
        write(tmp_path / "a", seed)
    for seed in (1, 2):
        write(tmp_path / "b", seed)
    before = contents(tmp_path / "a"), contents(tmp_path / "b")
    sources = (str(tmp_path / "a"), str(tmp_path / "b"))
    code, told, _ = bench("merge", str(tmp_path / "all"), *sources, "-q")
    assert (code, told.strip().endswith("3 records taken, 1 there before, 0 left out")) == (0, True)
    results = load_results([tmp_path / "all"])
    assert sorted(results.cells["seed"]) == [0, 1, 2]
    assert not results.problems
    assert before == (contents(tmp_path / "a"), contents(tmp_path / "b"))
    code, told, _ = bench("merge", str(tmp_path / "all"), *sources, "-q")
    assert "0 records taken, 4 there before" in told


def test_what_belongs_to_a_cell_comes_along_and_what_only_a_run_needs_stays_behind(
    tmp_path: Path, bench: Bench
) -> None:
    write(tmp_path / "a", 0)
    (folder,) = (path.parent for path in (tmp_path / "a").rglob("record.json"))
    for name in ("model/weights.bin", "work/stamp.json", ".lock"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    names = {path.name for path in contents(tmp_path / "all") if path.name != ".lock"}
    assert names == {"record.json", "predictions.parquet", "weights.bin"}


def test_other_predictions_of_a_cell_that_is_there_are_named_and_left_out(
    tmp_path: Path, bench: Bench
) -> None:
    write(tmp_path / "a", 0)
    write(tmp_path / "b", 0, diagnosis={"purity": 0.5})  # the same cell; chance fell otherwise
    bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    before = contents(tmp_path / "all")
    code, told, error = bench("merge", str(tmp_path / "all"), str(tmp_path / "b"), "-q")
    assert (code, "has other predictions than" in error, "1 left out" in told) == (1, True, True)
    assert contents(tmp_path / "all") == before


@pytest.mark.parametrize("failed_first", [True, False])
def test_a_finished_record_takes_the_place_of_a_failed_one_and_never_the_other_way(
    failed_first: bool, tmp_path: Path, bench: Bench
) -> None:
    write(tmp_path / "whole", 0)
    ((folder, record),) = find_records(tmp_path / "whole")[0]
    failed = record.model_copy(
        update={"status": "failed", "error": "out of luck", "predictions_sha256": None}
    )
    write_record(tmp_path / "failed" / folder.name, failed)
    (tmp_path / "failed" / folder.name / "error.txt").write_text("Traceback")
    order = ("failed", "whole") if failed_first else ("whole", "failed")
    for name in order:
        assert bench("merge", str(tmp_path / "all"), str(tmp_path / name), "-q")[0] == 0
    ((target, merged),) = find_records(tmp_path / "all")[0]
    assert merged == record
    assert (target / "predictions.parquet").is_file()
    assert not (target / "error.txt").exists()


def test_a_damaged_record_is_named_and_the_others_are_taken(tmp_path: Path, bench: Bench) -> None:
    for seed in (0, 1):
        write(tmp_path / "a", seed)
    damaged = sorted((tmp_path / "a").rglob("predictions.parquet"))[0]
    damaged.write_bytes(b"x")
    code, told, error = bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    assert (code, str(damaged) in error) == (1, True)
    assert "1 records taken" in told
    for folder, _ in find_records(tmp_path / "all")[0]:
        assert read_record(folder).status == "finished"


def test_a_damaged_record_that_is_there_is_replaced(tmp_path: Path, bench: Bench) -> None:
    write(tmp_path / "a", 0)
    bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    next((tmp_path / "all").rglob("record.json")).write_text("{")
    bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    assert not load_results([tmp_path / "all"]).problems


def test_a_source_without_records_is_refused(tmp_path: Path, bench: Bench) -> None:
    code, _, error = bench("merge", str(tmp_path / "all"), str(tmp_path / "nowhere"), "-q")
    assert (code, error.count("\n")) == (2, 1)
    assert "nowhere holds no record" in error
    assert not (tmp_path / "all").exists()


def test_a_record_whose_folder_would_lie_outside_is_left_out(tmp_path: Path, bench: Bench) -> None:
    write(tmp_path / "a", 0)
    ((folder, record),) = find_records(tmp_path / "a")[0]
    elsewhere = record.cell.model_copy(update={"task": "../../elsewhere"})
    write_record(folder, record.model_copy(update={"cell": elsewhere}))
    code, _, error = bench("merge", str(tmp_path / "in" / "all"), str(tmp_path / "a"), "-q")
    assert (code, "its task cannot be '../../elsewhere'" in error) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


@pytest.mark.parametrize(("into", "source"), [("a/b", "a"), ("a", "a/b")])
def test_a_folder_is_not_merged_into_one_that_lies_in_it_or_around_it(
    into: str, source: str, tmp_path: Path, bench: Bench
) -> None:
    write(tmp_path / source, 0)
    code, _, error = bench("merge", str(tmp_path / into), str(tmp_path / source), "-q")
    assert (code, error.count("\n")) == (2, 1)
    assert "contains the other" in error


def link_to_a_file(folder: Path, outside: Path) -> None:
    (folder / "notes.txt").symlink_to(outside / "secret")


def link_to_a_folder(folder: Path, outside: Path) -> None:
    (folder / "more").symlink_to(outside)


def linked_error(folder: Path, outside: Path) -> None:
    (folder / ERROR).symlink_to(outside / "secret")


def linked_model(folder: Path, outside: Path) -> None:
    (folder / "model").symlink_to(outside)


def model_with_a_link(folder: Path, outside: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "weights.pt").symlink_to(outside / "secret")


def model_with_a_linked_folder(folder: Path, outside: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "parts").symlink_to(outside)


def model_with_a_fifo(folder: Path, outside: Path) -> None:
    (folder / "model").mkdir()
    os.mkfifo(folder / "model" / "weights.pt")


def fifo(folder: Path, outside: Path) -> None:
    os.mkfifo(folder / "pipe")


def another_program(folder: Path, outside: Path) -> None:
    (folder / "evil.py").write_text("a private line")


@pytest.mark.parametrize(
    "addition",
    [
        link_to_a_file,
        link_to_a_folder,
        linked_error,
        linked_model,
        model_with_a_link,
        model_with_a_linked_folder,
        model_with_a_fifo,
        fifo,
        another_program,
    ],
)
@pytest.mark.parametrize("status", ["finished", "failed"])
def test_only_the_regular_files_of_a_record_are_taken(
    addition: Callable[[Path, Path], None], status: str, tmp_path: Path, bench: Bench
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("a private line")
    write(tmp_path / "a", 0)
    ((folder, record),) = find_records(tmp_path / "a")[0]
    write_record(folder, record.model_copy(update={"status": status}))
    addition(folder, outside)
    bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    files = contents(tmp_path / "all")
    assert RECORD in {path.name for path in files}
    assert b"a private line" not in files.values()
    assert not any(path.is_symlink() for path in (tmp_path / "all").rglob("*"))


def test_a_model_that_is_too_large_stays_behind_and_its_record_is_taken(
    tmp_path: Path, bench: Bench
) -> None:
    write(tmp_path / "a", 0)
    ((folder, _),) = find_records(tmp_path / "a")[0]
    (folder / "model").mkdir()
    with (folder / "model" / "weights.pt").open("wb") as weights:
        weights.truncate(2**36)  # a sparse file
    code, told, error = bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    assert (code, "1 records taken" in told, "at most" in error) == (1, True, True)
    assert not list((tmp_path / "all").rglob("weights.pt"))


def test_a_model_that_cannot_be_read_stays_behind_and_all_records_are_taken(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        write(tmp_path / "a", seed)
    folder = find_records(tmp_path / "a")[0][0][0]
    (folder / "model").mkdir()
    (folder / "model" / "weights.pt").write_bytes(b"weights")
    monkeypatch.setattr(merge_module, "open_regular", unreadable("weights.pt"))
    code, told, error = bench("merge", str(tmp_path / "all"), str(tmp_path / "a"), "-q")
    assert (code, "2 records taken" in told) == (1, True)
    assert "weights.pt cannot be read (Permission denied)" in error
    assert len(find_records(tmp_path / "all")[0]) == 2


def unreadable(name: str) -> Callable[..., Any]:
    """Open files as before, but for those of one name."""
    opened = merge_module.open_regular

    def open_others(path: Path, most_bytes: int) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, most_bytes)

    return open_others
