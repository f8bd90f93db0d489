"""Cells as jobs of Slurm: the job descriptions, and the records that Slurm on this machine gives."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.records.record import RECORD, WORK, Cell, RunRecord, read_record
from lape_bench.sweep import slurm_engine
from lape_bench.sweep.engine import run_cells
from lape_bench.sweep.grid import Resources, SweepItem
from lape_bench.system import RunContext
from tests.lape_bench.sweep import slurm_nodes
from tests.lape_bench.sweep.conftest import Driver, grid_of, hashes, local, options, planned

pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
from submitit.core.utils import UncompletedJobError

from lape_bench.sweep.slurm_engine import SlurmEngine, SlurmSettings
from lape_bench.sweep.slurm_jobs import CellsJob
from lape_bench.sweep.slurm_queue import queue

LACKING = slurm_nodes.missing()


def job_descriptions(recorder: Path) -> list[dict[str, str]]:
    """Return the options of each job description, in the order of submission."""
    descriptions = []
    for number in range(1, 1 + len(list(recorder.glob("submitted-*")))):
        text = (recorder / f"submitted-{number}").read_text()
        descriptions.append(dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE)))
    return descriptions


def engine_with(settings: dict[str, object] | None = None) -> SlurmEngine:
    return SlurmEngine(SlurmSettings.model_validate(settings or {}))


def test_producers_are_submitted_first_and_the_cells_that_need_them_wait_for_their_end(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    items = planned(grid_of(seeds=2).items())
    jobs = engine_with().submit(items, options(tmp_path), progress)
    assert sorted(jobs) == list(range(len(items)))
    ids = {number: job.job_id for number, job in jobs.items()}
    assert len(set(ids.values())) == len(items)
    first, *later = job_descriptions(recorder)
    assert "dependency" not in first
    upstream = [n for n, item in enumerate(items) if item.cell.system == "delores-s"]
    # The first cell of delores-s computes the upstream. The others of delores-s wait for it, and no other cell does.
    free = [n for n in range(len(items)) if n not in upstream[1:]]
    assert {ids[n].partition("_")[0] for n in free} == {"1"}
    assert first["array"] == f"0-{len(free) - 1}%{len(free)}"
    assert ids[upstream[0]] == "1_0"  # the producer for the most cells is the first
    assert later
    assert all("1_0" in array["dependency"].removeprefix("afterany:").split(":") for array in later)
    # For each seed and fraction, knn needs the embeddings that linear computes.
    pairs = {}
    for number in upstream:
        cell = items[number].cell
        pairs.setdefault((cell.seed, cell.labels), {})[cell.protocol] = ids[number]
    for id_of in pairs.values():
        waits = later[int(id_of["knn"].partition("_")[0]) - 2]["dependency"]
        assert id_of["linear"] in waits.removeprefix("afterany:").split(":")


def test_a_job_description_has_the_resources_of_the_cell_and_the_settings_of_the_user(
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
    engine_with(settings).submit(items, options(tmp_path), progress)
    big, small = sorted(job_descriptions(recorder), key=lambda options: "mem" not in options)
    common = {
        "partition": "gpu", "time": "480", "account": "lab", "constraint": "a100", "requeue": "",
        "job-name": "lape_bench", "open-mode": "append", "signal": "USR2@90",
    }  # fmt: skip
    for description in (big, small):
        assert common.items() <= description.items()
    assert (big["cpus-per-task"], big["mem"], big["gpus-per-node"]) == ("4", "2560M", "1")
    assert small["cpus-per-task"] == "1"
    assert not {"mem", "gpus-per-node"} & small.keys()
    assert "exclusive" not in big
    assert "\nmodule load cuda\n" in (recorder / "submitted-1").read_text()


def test_a_sweep_that_is_started_again_submits_no_cell_that_is_in_the_queue(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    items = planned(grid_of(seeds=1).items())
    jobs = engine_with().submit(items, options(tmp_path), progress)
    ids = {number: job.job_id for number, job in jobs.items()}
    lost = next(number for number, item in enumerate(items) if item.cell.system == "supervised")
    (recorder / "queue").write_text("".join(f"{ids[n]} PD\n" for n in ids if n != lost))
    before = len(job_descriptions(recorder))
    again = engine_with().submit(items, options(tmp_path), progress)
    assert len(job_descriptions(recorder)) == before + 1
    assert {n: job.job_id for n, job in again.items() if n != lost} == {
        n: job_id for n, job_id in ids.items() if n != lost
    }
    assert again[lost].job_id == str(before + 1)
    # The jobs in the queue have other options.
    audited = options(tmp_path).model_copy(update={"audit": True})
    engine_with().submit(items[:1], audited, progress)
    assert len(job_descriptions(recorder)) == before + 2


def test_an_array_is_never_longer_than_slurm_allows(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    scontrol = recorder / "scontrol"
    scontrol.write_text("#!/bin/sh\necho 'MaxArraySize            = 3'\n")
    scontrol.chmod(0o755)
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    items = planned(cell.model_copy(update={"seed": seed}) for seed in range(7))
    engine_with({"at_once": 2}).submit(items, options(tmp_path), progress)
    assert [array.get("array") for array in job_descriptions(recorder)] == ["0-2%2", "0-2%2", None]


def test_the_queue_holds_all_jobs_of_the_user_whatever_the_environment_asks_for(
    recorder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = '[ -z "$SQUEUE_STATES" ] && [ "$2" = "$(id -u)" ] && echo "7_1 PD"'
    (recorder / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert queue() == {"7_1": "PD"}


def test_several_cells_may_share_a_job_but_a_producer_has_its_own(
    synthetic: Path, recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    items = planned(grid_of(seeds=1).items())
    jobs = engine_with({"cells_a_job": 3}).submit(items, options(tmp_path), progress)
    shared = Counter(job.job_id for job in jobs.values())
    assert sum(shared.values()) == len(items)
    # The first cell of delores-s computes the upstream, and cells of linear compute the embeddings that knn needs.
    job_size = {number: shared[job.job_id] for number, job in jobs.items()}
    producers = [n for n in jobs if items[n].cell.system == "delores-s" and job_size[n] == 1][:3]
    assert [items[n].cell.protocol for n in producers] == ["finetune", "linear", "linear"]
    rest = [n for n, item in enumerate(items) if item.cell.system != "delores-s"]
    assert sorted(job_size[n] for n in rest) == [3, 3, 3, 3, 3, 3]


def test_a_request_that_slurm_refuses_is_explained_in_one_sentence(
    synthetic: Path,
    recorder: Path,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    own = options(tmp_path)
    with pytest.raises(UserError, match=r"asks for 0.5 GPUs, but Slurm assigns whole GPUs"):
        engine_with({"gpus": 0.5}).submit(planned([cell]), own, progress)
    (recorder / "squeue").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="squeue does not answer"):
        engine_with().submit(planned([cell]), own, progress)
    (recorder / "squeue").write_text("#!/bin/sh\n")
    (recorder / "sbatch").write_text("#!/bin/sh\necho 'invalid partition: gpux' >&2; exit 1\n")
    with pytest.raises(UserError, match=r"Slurm rejected the jobs .*invalid partition: gpux"):
        engine_with({"partition": "gpux"}).submit(planned([cell]), own, progress)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch, squeue, srun here"):
        list(run_cells(planned([cell]), own, engine_with(), progress))


@pytest.fixture
def job_of_signals(synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CellsJob:
    """A job of two cells that each receive the signal of a time limit while they train, on every start."""

    def train(self: object, data: object, context: RunContext) -> None:
        (context.work_folder / "checkpoint").touch()
        os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(load_system("log-mel-statistics"), "train", train)
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    items = planned(cell.model_copy(update={"seed": seed}) for seed in range(2))
    return CellsJob([item.planned for item in items], options(tmp_path))


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[..., object]], object]]:
    """Installs a handler, as submitit does before it calls a job."""
    before = signal.getsignal(signal.SIGUSR2)
    yield lambda handler: signal.signal(signal.SIGUSR2, handler)
    signal.signal(signal.SIGUSR2, before)


def test_a_job_that_is_queued_again_keeps_its_checkpoints_and_records_no_failure(
    job_of_signals: CellsJob,
    on_signal: Callable[[Callable[..., object]], object],
    tmp_path: Path,
) -> None:
    on_signal(lambda *_: sys.exit(-1))  # submitit ends a job like this after it has queued it again
    for _ in range(3):
        with pytest.raises(SystemExit):
            job_of_signals()
        assert [path.parent.name for path in tmp_path.rglob("checkpoint")] == [WORK]
        assert not list(tmp_path.rglob(RECORD))


def test_cells_that_may_not_be_queued_again_fail_with_the_reason_and_keep_their_checkpoints(
    job_of_signals: CellsJob,
    on_signal: Callable[[Callable[..., object]], object],
    tmp_path: Path,
) -> None:
    def refuse(*_: object) -> None:
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    on_signal(refuse)
    for _ in range(2):
        outcomes = job_of_signals()
    assert [outcomes[cell.identity].cell.seed for cell in job_of_signals.cells] == [0, 1]
    assert all("time limit" in outcome.error for outcome in outcomes.values())
    assert [path.parent.name for path in tmp_path.rglob("checkpoint")] == [WORK]


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run Slurm on this machine, and submit to it."""
    if LACKING:
        pytest.skip(f"no Slurm: {LACKING}")
    with slurm_nodes.slurm() as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        yield


def _wait(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.1)


def _queue() -> str:
    command = ["squeue", "--noheader", "--array", "--format=%i %t"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_sweep_on_slurm_gives_the_records_of_this_machine_even_if_its_driver_is_killed(
    own_artifacts: Path, loopback: None, tmp_path: Path, progress: Progress
) -> None:
    grid = grid_of(seeds=1).model_copy(update={"grids": ()})
    check = Driver(tmp_path, grid, "slurm", "--check")
    report = check.finish()
    assert check.process.returncode == 0, report
    settings = ["--set", "hours=1", "--set", "cells_a_job=2"]
    driver = Driver(tmp_path, grid, "slurm", *settings)
    driver.until(lambda: len(driver.records()) >= 1)
    driver.process.kill()
    driver.process.wait()
    submitted = sorted((driver.out / ".slurm").glob("*_submission.sh"))
    driver = Driver(tmp_path, grid, "slurm", *settings)
    output = driver.finish()
    assert driver.process.returncode == 0, output
    assert sorted((driver.out / ".slurm").glob("*_submission.sh")) == submitted
    records = driver.records()
    assert hashes(records) == hashes(local(grid, tmp_path, progress))
    uses = [use for record in records.values() for use in record.artifacts]
    upstreams = [use for use in uses if use.kind == "upstream"]
    assert sum(not use.found for use in upstreams) == 1
    assert all(use.waited < 0.5 for use in upstreams)  # they started when it was complete
    logs = list(driver.out.rglob("slurm.err"))
    assert len(logs) == len(records)
    assert all("stage train" in log.read_text() for log in logs)


@pytest.mark.slow
def test_a_preempted_cell_is_queued_again_and_resumes_and_a_cancelled_one_fails(
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
    engine = engine_with({"hours": 1})

    def run() -> list[tuple[Cell, object]]:
        return list(run_cells(planned(cells), own, engine, progress))

    def checkpoints(seed: int) -> list[Path]:
        return list(own.out.glob(f"synthetic-sounds/supervised/*-seed{seed}-*/{WORK}/*.pt"))

    with ThreadPoolExecutor(1) as background:
        running = background.submit(run)
        _wait(lambda: checkpoints(0) and checkpoints(1))
        subprocess.run(["scancel", "--signal=USR2", "1_0"], check=True)
        subprocess.run(["scancel", "1_1"], check=True)
        _wait(lambda: "1_0 PD" in _queue())
        # Slurm would restart a job after two minutes; the test does not wait that long.
        subprocess.run(["scontrol", "update", "JobId=1_0", "StartTime=now"], check=True)
        outcomes = {own_cell.seed: outcome for own_cell, outcome in running.result()}
    preempted, cancelled = outcomes[0], outcomes[1]
    assert isinstance(preempted, RunRecord)
    assert preempted.status == "finished"
    assert preempted.resumed >= 1
    elsewhere = RunOptions(out=tmp_path / "reference", compute=own.compute)
    assert preempted.predictions_sha256 == run_cell(cell, elsewhere, progress).predictions_sha256
    assert isinstance(cancelled, RunRecord)
    assert "its Slurm job 1_1 ended without a result (CANCELLED)" in str(cancelled.error)
    (folder,) = own.out.glob("synthetic-sounds/supervised/*-seed1-*")
    assert read_record(folder).status == "failed"


def test_check_reports_a_machine_whose_job_ended_without_a_result(
    synthetic: Path,
    recorder: Path,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_engine, "GRACE_SECONDS", 0.0)
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    here, there = engine_with().check([SweepItem(cell)], options(tmp_path), progress)
    assert here.problems == ()
    assert "job 1 could not check its machine: it ended without a result" in there.problems[0]
    assert job_descriptions(recorder)[0]["time"] == "15"
