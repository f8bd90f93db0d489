"""Cells on a Ray cluster of several nodes give the records of one machine, even if processes are killed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lape_bench.core.progress import Progress
from lape_bench.runtime.artifacts import cache, list_artifacts
from lape_bench.sweep.grid import SweepConfig
from tests.lape_bench.conftest import Bench
from tests.lape_bench.sweep.conftest import Driver, grid_of, hashes, local
from tests.lape_bench.sweep.ray_nodes import add_node, nodes, workers

pytest.importorskip("ray", reason="the extra [ray] is not installed")


def on(cluster: Any) -> str:
    return f"ray:{cluster.address}"


@pytest.fixture(scope="module")
def local_hashes(
    synthetic_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str | None]:
    """Hashes of the grid's predictions by this machine, with a cache of its own."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPE_BENCH_HOME", str(own_home(folder / "cache", synthetic_home)))
        return hashes(local(grid_of(seeds=1), folder, Progress(quiet=True)))


def own_home(folder: Path, synthetic_home: Path) -> Path:
    """A cache folder in which the synthetic task is prepared and no artifact is kept."""
    folder.mkdir()
    for name in ("data", "manifests", "store"):
        (folder / name).symlink_to(synthetic_home / name)
    return folder


@pytest.mark.slow
def test_killed_workers_nodes_and_drivers_change_and_duplicate_no_record(
    own_artifacts: Path, local_hashes: dict[str, str | None], tmp_path: Path
) -> None:
    grid = grid_of(seeds=1)
    with nodes([{}, {}]) as cluster:
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
        driver = Driver(tmp_path, grid, on(cluster))
        output = driver.finish()
    assert driver.process.returncode == 0, output
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
    local_hashes: dict[str, str | None],
    synthetic_home: Path,
    tmp_path: Path,
) -> None:
    both = grid_of(seeds=1).model_copy(update={"grids": ()})
    first = both.model_copy(update={"protocols": ("linear",)})
    homes = [own_home(tmp_path / name, synthetic_home) for name in ("a", "b")]
    a, b = ({"LAPE_BENCH_HOME": str(home)} for home in homes)
    with nodes([{}], num_cpus=0) as cluster:
        for grid, home in ((first, a), (both, b)):
            node = add_node(cluster, home)
            driver = Driver(tmp_path, grid, on(cluster), "--set", "shared=false")
            output = driver.finish()
            assert driver.process.returncode == 0, output
            cluster.remove_node(node, allow_graceful=False)
    records = driver.records()
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
    carried = [list((home / "carried").rglob("record.json")) for home in homes]
    assert [len(paths) for paths in carried] == [2, 4]  # each cell ran on the node of its time
    for home in homes:
        assert len(list((home / "artifacts" / "upstream").glob("[0-9a-f]*"))) == 1


@pytest.mark.slow
def test_a_missing_task_on_a_node_is_reported_before_the_sweep_starts(
    bench: Bench, esc_folder: Path, tmp_path: Path
) -> None:
    assert bench("data", "prepare", "esc10", "--from", str(esc_folder))[0] == 0
    grid = SweepConfig.model_validate({"systems": ["log-mel-statistics"], "tasks": ["esc10"]})
    with nodes([{}, {"LAPE_BENCH_HOME": str(tmp_path / "empty")}]) as cluster:
        check = Driver(tmp_path, grid, on(cluster), "--check")
        report = check.finish()
        driver = Driver(tmp_path, grid, on(cluster))
        output = driver.finish()
    assert check.process.returncode == 1
    assert report.count("'esc10' is not prepared") == 1
    assert "1 of 3 machines cannot run this sweep yet" in report
    assert driver.process.returncode == 2
    assert "1 of 3 machines cannot run this sweep" in output
    assert "'esc10' is not prepared" in output
    assert not list(driver.out.rglob("record.json"))
