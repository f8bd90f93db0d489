"""Cells as jobs of Slurm: what is asked of it, and on a Slurm of this machine what comes out."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.evaluation.runner import RunOptions, run_cell
from lape_bench.records.record import WORK, Cell, RunRecord, read_record
from lape_bench.sweep import slurm_engine
from lape_bench.sweep.engine import run_cells
from lape_bench.sweep.grid import Resources, SweepItem
from tests.lape_bench.sweep import slurm_nodes
from tests.lape_bench.sweep.conftest import Driver, grid_of, hashes, local, options, planned

pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
from lape_bench.sweep.slurm_engine import SlurmEngine, SlurmSettings

LACKING = slurm_nodes.missing()


def described(recorder: Path) -> list[dict[str, str]]:
    """The options of each job description, in the order of submission."""
    found = []
    for number in range(1, 1 + len(list(recorder.glob("submitted-*")))):
        text = (recorder / f"submitted-{number}").read_text()
        found.append(dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE)))
    return found


def asked(settings: dict[str, object] | None = None) -> SlurmEngine:
    return SlurmEngine(SlurmSettings.model_validate(settings or {}))


def test_makers_are_arrays_and_who_needs_them_waits_for_their_end(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    items = planned(grid_of(seeds=2).items())
    jobs = asked().submit(items, options(tmp_path), progress)
    assert sorted(jobs) == list(range(len(items)))
    ids = {number: job.job_id for number, job in jobs.items()}
    assert len(set(ids.values())) == len(items)
    first, *later = described(recorder)
    assert "dependency" not in first
    upstream = [n for n, item in enumerate(items) if item.cell.system == "delores-s"]
    # The first makes the upstream: nobody waits for it who does not need it, and all who do.
    free = [n for n in range(len(items)) if n not in upstream[1:]]
    assert {ids[n].partition("_")[0] for n in free} == {"1"}
    assert first["array"] == f"0-{len(free) - 1}%{len(free)}"
    assert ids[upstream[0]] == "1_0"  # most wait for it
    assert later
    assert all("1_0" in each["dependency"].removeprefix("afterany:").split(":") for each in later)
    # Of each seed and fraction knn needs the embeddings that linear makes.
    pairs = {}
    for number in upstream:
        cell = items[number].cell
        pairs.setdefault((cell.seed, cell.labels), {})[cell.protocol] = ids[number]
    for of in pairs.values():
        waits = later[int(of["knn"].partition("_")[0]) - 2]["dependency"]
        assert of["linear"] in waits.removeprefix("afterany:").split(":")


def test_a_job_description_asks_for_what_the_cell_and_the_user_ask_for(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    items = planned(
        [
            SweepItem(cell, Resources(cores=4, memory_gib=2.5, gpus=1)),
            SweepItem(cell.model_copy(update={"seed": 1}), Resources()),
        ]
    )
    settings = {
        "partition": "gpu",
        "hours": 8,
        "account": "lab",
        "setup": ["module load cuda"],
        "sbatch": {"constraint": "a100", "exclusive": False},
    }
    asked(settings).submit(items, options(tmp_path), progress)
    big, small = sorted(described(recorder), key=lambda each: "mem" not in each)
    common = {
        "partition": "gpu", "time": "480", "account": "lab", "constraint": "a100", "requeue": "",
        "job-name": "lape_bench", "open-mode": "append", "signal": "USR2@90",
    }  # fmt: skip
    for each in (big, small):
        assert common.items() <= each.items()
    assert (big["cpus-per-task"], big["mem"], big["gpus-per-node"]) == ("4", "2560M", "1")
    assert small["cpus-per-task"] == "1"
    assert not {"mem", "gpus-per-node"} & small.keys()
    assert "exclusive" not in big
    assert "\nmodule load cuda\n" in (recorder / "submitted-1").read_text()


def test_a_sweep_started_again_submits_nothing_that_is_in_the_queue(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    items = planned(grid_of(seeds=1).items())
    jobs = asked().submit(items, options(tmp_path), progress)
    ids = {number: job.job_id for number, job in jobs.items()}
    lost = next(number for number, item in enumerate(items) if item.cell.system == "supervised")
    (recorder / "queue").write_text("".join(f"{ids[n]} PD\n" for n in ids if n != lost))
    before = len(described(recorder))
    again = asked().submit(items, options(tmp_path), progress)
    assert len(described(recorder)) == before + 1
    assert {n: job.job_id for n, job in again.items() if n != lost} == {
        n: each for n, each in ids.items() if n != lost
    }
    assert again[lost].job_id == str(before + 1)
    audited = options(tmp_path).model_copy(
        update={"audit": True}
    )  # those in the queue are run otherwise
    asked().submit(items[:1], audited, progress)
    assert len(described(recorder)) == before + 2


def test_an_array_is_never_longer_than_slurm_takes(
    synthetic: Path,
    recorder: Path,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_engine, "MOST_OF_AN_ARRAY", 3)
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    items = planned(cell.model_copy(update={"seed": seed}) for seed in range(7))
    asked({"at_once": 2}).submit(items, options(tmp_path), progress)
    assert [each.get("array") for each in described(recorder)] == ["0-2%2", "0-2%2", None]


def test_several_cells_may_be_one_job_but_none_for_which_others_wait(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    items = planned(grid_of(seeds=1).items())
    jobs = asked({"cells_a_job": 3}).submit(items, options(tmp_path), progress)
    shared = Counter(job.job_id for job in jobs.values())
    assert sum(shared.values()) == len(items)
    # The first cell of delores-s makes the upstream, and those of linear the embeddings that knn finds.
    of = {number: shared[job.job_id] for number, job in jobs.items()}
    makers = [n for n in jobs if items[n].cell.system == "delores-s" and of[n] == 1][:3]
    assert [items[n].cell.protocol for n in makers] == ["finetune", "linear", "linear"]
    rest = [n for n, item in enumerate(items) if item.cell.system != "delores-s"]
    assert sorted(of[n] for n in rest) == [3, 3, 3, 3, 3, 3]


def test_what_slurm_cannot_give_is_said_in_a_sentence(
    synthetic: Path,
    recorder: Path,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    own = options(tmp_path)
    with pytest.raises(UserError, match=r"asks for 0.5 GPUs, but Slurm assigns whole GPUs"):
        asked({"gpus": 0.5}).submit(planned([cell]), own, progress)
    (recorder / "squeue").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="squeue does not answer"):
        asked().submit(planned([cell]), own, progress)
    (recorder / "squeue").write_text("#!/bin/sh\n")
    (recorder / "sbatch").write_text("#!/bin/sh\necho 'invalid partition: gpux' >&2; exit 1\n")
    with pytest.raises(UserError, match=r"Slurm rejected the jobs .*invalid partition: gpux"):
        asked({"partition": "gpux"}).submit(planned([cell]), own, progress)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch, squeue, srun here"):
        list(run_cells(planned([cell]), own, asked(), progress))


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Submit to a Slurm of this machine."""
    if LACKING:
        pytest.skip(f"no Slurm: {LACKING}")
    with slurm_nodes.slurm() as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        yield


def _wait(met: Callable[[], object]) -> None:
    ends = time.monotonic() + 120
    while not met():
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.1)


def _queue() -> str:
    command = ["squeue", "--noheader", "--array", "--format=%i %t"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_sweep_on_slurm_whose_driver_is_killed_has_the_records_of_this_machine(
    own_artifacts: Path, loopback: None, tmp_path: Path, progress: Progress
) -> None:
    grid = grid_of(seeds=1).model_copy(update={"grids": ()})
    check = Driver(tmp_path, grid, "slurm", "--check")
    told = check.finish()
    assert check.process.returncode == 0, told
    how = ["--set", "hours=1", "--set", "cells_a_job=2"]
    driver = Driver(tmp_path, grid, "slurm", *how)
    driver.until(lambda: len(driver.records()) >= 1)
    driver.process.kill()
    driver.process.wait()
    submitted = sorted((driver.out / ".slurm").glob("*_submission.sh"))
    driver = Driver(tmp_path, grid, "slurm", *how)
    said = driver.finish()
    assert driver.process.returncode == 0, said
    assert sorted((driver.out / ".slurm").glob("*_submission.sh")) == submitted
    records = driver.records()
    assert hashes(records) == hashes(local(grid, tmp_path, progress))
    uses = [use for record in records.values() for use in record.artifacts]
    upstreams = [use for use in uses if use.kind == "upstream"]
    assert sum(not use.found for use in upstreams) == 1
    assert all(use.waited < 0.5 for use in upstreams)  # they began when it was there
    logs = list(driver.out.rglob("slurm.err"))
    assert len(logs) == len(records)
    assert all("stage train" in log.read_text() for log in logs)


@pytest.mark.slow
def test_a_preempted_cell_is_queued_again_and_resumes_and_a_cancelled_one_is_told(
    own_artifacts: Path,
    loopback: None,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_engine, "GRACE_SECONDS", 3.0)
    settings = {"width": 16, "finetune": {"epochs": 20, "min_steps": 1, "evaluations": 2}}
    cell = Cell(
        system="supervised", settings=settings, task="synthetic-sounds", protocol="finetune"
    )
    cells = [cell, cell.model_copy(update={"seed": 1})]
    own = options(tmp_path).model_copy(update={"checkpoint_seconds": 0.0})
    engine = asked({"hours": 1})

    def run() -> list[tuple[Cell, object]]:
        return list(run_cells(planned(cells), own, engine, progress))

    def item(seed: int) -> list[Path]:
        return list(own.out.glob(f"synthetic-sounds/supervised/*-seed{seed}-*/{WORK}/*.pt"))

    with ThreadPoolExecutor(1) as background:
        running = background.submit(run)
        _wait(lambda: item(0) and item(1))
        subprocess.run(["scancel", "--signal=USR2", "1_0"], check=True)
        subprocess.run(["scancel", "1_1"], check=True)
        _wait(lambda: "1_0 PD" in _queue())
        # Slurm begins a job again two minutes later, which a test need not wait for.
        subprocess.run(["scontrol", "update", "JobId=1_0", "StartTime=now"], check=True)
        told = {each.seed: outcome for each, outcome in running.result()}
    preempted, cancelled = told[0], told[1]
    assert isinstance(preempted, RunRecord)
    assert preempted.status == "finished"
    assert preempted.resumed >= 1
    elsewhere = RunOptions(out=tmp_path / "reference", compute=own.compute)
    assert preempted.predictions_sha256 == run_cell(cell, elsewhere, progress).predictions_sha256
    assert isinstance(cancelled, RunRecord)
    assert "its Slurm job 1_1 ended without a result (CANCELLED)" in str(cancelled.error)
    (folder,) = own.out.glob("synthetic-sounds/supervised/*-seed1-*")
    assert read_record(folder).status == "failed"


def test_a_machine_of_slurm_whose_job_dies_is_said_not_to_have_looked(
    synthetic: Path,
    recorder: Path,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_engine, "GRACE_SECONDS", 0.0)
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    here, there = asked().check([SweepItem(cell)], options(tmp_path), progress)
    assert here.problems == ()
    assert "job 1 could not check its machine: it ended without a result" in there.problems[0]
    assert described(recorder)[0]["time"] == "15"
