"""Cells on a Ray cluster of several nodes give the records of one machine, even if processes are killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lape_bench.core.progress import Progress
from lape_bench.records.record import Cell, RunRecord
from lape_bench.runtime.artifacts import cache, list_artifacts
from lape_bench.sweep.grid import SweepConfig
from tests.conftest import own_home
from tests.lape_bench.conftest import Bench
from tests.lape_bench.sweep.conftest import (
    Driver,
    finished_records,
    grid_of,
    hashes,
    local,
    options,
    planned,
    sweep_arguments,
    swept,
)
from tests.lape_bench.sweep.ray_nodes import head, nodes, workers

pytest.importorskip("ray", reason="the extra [ray] is not installed")


def on(cluster: Any) -> str:
    return f"ray:{cluster.address}"


@pytest.fixture(scope="module")
def cluster(synthetic_home: Path) -> Iterator[Any]:
    """A cluster to which tests add nodes; its head has no task but the synthetic one."""
    with head(LAPE_BENCH_HOME=str(synthetic_home)) as started:
        yield started


@pytest.fixture(scope="module")
def local_hashes(
    synthetic_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str | None]:
    """Hashes of the grid's predictions by this machine, with a cache of its own."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPE_BENCH_HOME", str(own_home(folder / "cache", synthetic_home)))
        return hashes(local(grid_of(seeds=1), folder, Progress(quiet=True)))


@pytest.mark.slow
def test_killed_workers_nodes_and_drivers_change_and_duplicate_no_record(
    own_artifacts: Path,
    cluster: Any,
    local_hashes: dict[str, str | None],
    bench: Bench,
    tmp_path: Path,
) -> None:
    grid = grid_of(seeds=1)
    with nodes(cluster, 2):
        driver = Driver(tmp_path, grid, on(cluster))
        driver.until(lambda: len(driver.records()) >= 1 and workers())
        os.kill(next(iter(workers())), signal.SIGKILL)
        driver.until(lambda: len(driver.records()) >= 2 and workers())
        os.kill(next(iter(workers())), signal.SIGTERM)
        driver.until(lambda: len(driver.records()) >= 3)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        driver.until(lambda: len(driver.records()) >= 5)
        driver.process.kill()
        driver.process.wait()
        before = {path: path.stat().st_mtime_ns for path in driver.out.rglob("record.json")}
        code, *output = bench(*sweep_arguments(tmp_path, grid, on(cluster)))
    assert code == 0, output
    records = driver.records()
    assert len(records) == len(grid.cells()) == len(list(driver.out.rglob("record.json")))
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    uses = [use for record in records.values() for use in record.artifacts]
    upstreams = [use for use in uses if use.kind == "upstream"]
    assert len(upstreams) == 6
    assert len({use.sha256 for use in upstreams}) == 1
    assert (
        sum(not use.found for use in upstreams) <= 1
    )  # none if the cell that computed it was killed later
    assert hashes(records) == local_hashes


@pytest.mark.slow
def test_nodes_without_shared_folders_send_records_and_receive_artifacts(
    own_artifacts: Path,
    cluster: Any,
    local_hashes: dict[str, str | None],
    synthetic_home: Path,
    bench: Bench,
    tmp_path: Path,
) -> None:
    both = grid_of(seeds=1).model_copy(update={"grids": ()})
    first = both.model_copy(update={"protocols": ("linear",)})
    homes = [own_home(tmp_path / name, synthetic_home) for name in ("a", "b")]
    for grid, home in zip((first, both), homes, strict=True):
        with nodes(cluster, LAPE_BENCH_HOME=str(home)):
            arguments = sweep_arguments(tmp_path, grid, on(cluster), "--set", "shared=false")
            code, *output = bench(*arguments)
        assert code == 0, output
    records = finished_records(swept(tmp_path))
    assert set(records) == {str(cell) for cell in both.cells()}
    assert hashes(records).items() <= local_hashes.items()
    uses = [use for record in records.values() for use in record.artifacts]
    for kind in ("upstream", "embeddings"):
        hashes_of = [use.hash for use in uses if use.kind == kind]
        assert len(set(hashes_of)) < len(hashes_of)
        computed = [use.hash for use in uses if use.kind == kind and not use.found]
        assert sorted(computed) == sorted(set(hashes_of))  # each once
    # Artifacts of the first node went to the cache of this machine, and from there to the second node.
    assert {info.kind for info in list_artifacts(cache())} == {
        "upstream",
        "normalization",
        "embeddings",
    }
    carried = [list((home / "carried").rglob(".lock")) for home in homes]
    assert [len(paths) for paths in carried] == [2, 4]  # each cell ran on the node of its time
    for home in homes:
        assert len(list((home / "artifacts" / "upstream").glob("[0-9a-f]*"))) == 1


@pytest.mark.slow
def test_a_missing_task_on_a_node_is_reported_before_the_sweep_starts(
    bench: Bench, cluster: Any, esc_folder: Path, tmp_path: Path
) -> None:
    assert bench("data", "prepare", "esc10", "--from", str(esc_folder))[0] == 0
    grid = SweepConfig.model_validate({"systems": ["log-mel-statistics"], "tasks": ["esc10"]})
    with nodes(cluster):  # a second one that has the task, unlike the head
        arguments = sweep_arguments(tmp_path, grid, on(cluster))
        checked, report, _ = bench(*arguments, "--check")
        code, _, error = bench(*arguments)
    assert checked == 1
    assert report.count("'esc10' is not prepared") == 1
    assert "1 of 3 machines cannot run this sweep yet" in report
    assert code == 2
    assert "1 of 3 machines cannot run this sweep" in error
    assert "'esc10' is not prepared" in error
    assert not list(swept(tmp_path).rglob("record.json"))


def test_a_machine_keeps_no_record_that_it_sent_back(
    own_artifacts: Path, tmp_path: Path, progress: Progress
) -> None:
    from lape_bench.sweep.ray_engine import _run_and_carry  # needs the extra [ray]

    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    (item,) = planned([cell])
    for _ in range(2):
        outcome, files = _run_and_carry(item.planned, options(tmp_path), progress, None)
        assert isinstance(outcome, RunRecord)
        assert set(files) == {"record.json", "predictions.parquet"}
        carried = [path.name for path in (own_artifacts / "carried").rglob("*") if path.is_file()]
        assert carried == [".lock"]
