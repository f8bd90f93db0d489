"""Cells as array jobs of Slurm, on machines that share the folder of the records and the cache."""

import json
import logging
import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from getpass import getuser
from pathlib import Path
from typing import Any

import submitit
from pydantic import Field
from submitit.core.utils import FailedJobError, FailedSubmissionError

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.progress import Progress, Running, show_messages
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.evaluation.runner import RunOptions, finished_record
from lape_bench.records.record import Cell, cell_folder
from lape_bench.sweep.engine import (
    Engine,
    EngineSettings,
    refuse_gpu_of_this_machine,
    with_resources,
)
from lape_bench.sweep.grid import PlannedItem, Resources, SweepItem
from lape_bench.sweep.machine import MachineReport, SubmitHost
from lape_bench.sweep.run_cell import CellOutcome, lost_outcome, try_run
from lape_bench.sweep.schedule import find_producers, producers_first

logger = logging.getLogger(__name__)

FOLDER = ".slurm"  # below the folder of the records: job descriptions, logs, and which job runs which cell
JOB_NAME = "lape_bench"
MOST_OF_AN_ARRAY = 1000  # Slurm's own limit, unless a site raises it, is 1001
POLL_SECONDS = 1.0, 30.0  # at first, and in the end
REPORT_MINUTES = 15
GRACE_SECONDS = 30.0  # for a result to be seen on this machine, once its job has left the queue


class SlurmSettings(EngineSettings):
    """How a sweep uses Slurm."""

    partition: str | None = Field(None, description="unset: the site's default")
    account: str | None = Field(None, description="unset: your default")
    qos: str | None = Field(None, description="unset: your default")
    hours: float = Field(
        24.0, gt=0, description="that a cell may run before its job is queued again, and goes on"
    )
    requeues: int = Field(3, ge=0, description="how often a cell may run out of its hours")
    cells_a_job: int = Field(
        1,
        ge=1,
        description="run one after the other, where starting a job takes longer than a cell",
    )
    at_once: int = Field(256, ge=1, description="jobs of an array that run side by side")
    setup: tuple[str, ...] = Field((), description="shell commands before a cell, in order")
    sbatch: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="more options of sbatch, by their long names"
    )


class SlurmEngine(Engine):
    """The Slurm that this machine submits to.

    Args:
        settings: how it is used.
    """

    stopped = (
        "stopped watching; the jobs stay in the queue, and the same command watches on; "
        f"'scancel --me --name={JOB_NAME}' ends them"
    )

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings

    def run(
        self, items: Sequence[PlannedItem], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """See `Engine`."""
        self.require_available(options)
        options = _absolute(options)
        jobs = self.submit(items, options, progress)
        yield from self._watch(items, jobs, options, cells)

    def check(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress
    ) -> list[MachineReport]:
        """See `Engine`."""
        self.require_available(options)
        options = _absolute(options)
        asked = {
            str(resources): resources
            for resources in (self.settings.resources_of(item.resources) for item in items)
        }
        with SubmitHost.this_machine((item.cell.task for item in items), options) as submit_host:
            jobs = []
            for resources in asked.values():
                executor = self._executor(resources, options)
                executor.update_parameters(time=REPORT_MINUTES)
                jobs += _submitted(executor, [_ReportJob(submit_host)])
            logger.info(
                f"waiting for Slurm to start what looks: {', '.join(j.job_id for j in jobs)}"
            )
            return [submit_host.report(has_device=False), *map(_wait_for_report, jobs)]

    def require_available(self, options: RunOptions) -> None:
        """See `Engine`."""
        lacking = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
        if lacking:
            raise UserError(
                f"there is no {', '.join(lacking)} here, so no Slurm to submit to",
                next_step="run this on a login node of the cluster; --on ray and --jobs need no Slurm",
            )
        refuse_gpu_of_this_machine(options)

    def submit(
        self, items: Sequence[PlannedItem], options: RunOptions, progress: Progress
    ) -> dict[int, submitit.Job[Any]]:
        """Submit the cells that are not in the queue yet: producers of artifacts first, then arrays that wait for them.

        Returns:
            The job of each cell, by its number; several cells may share one.

        Raises:
            UserError: Slurm does not answer, or does not take the jobs.
        """
        journal = _Journal(options.out)
        jobs = _jobs_in_queue(items, options, journal)
        producers = find_producers([item.planned.shared_artifacts for item in items])
        resources = [self.settings.resources_of(item.resources) for item in items]
        awaited = {p for cell, of in enumerate(producers) for p in of.values() if p != cell}
        for waits_for, resource, numbers in _arrays(producers, resources):
            new = [number for number in numbers if number not in jobs]
            # A cell that others wait for is a job of its own, so that no other cell of the job delays them.
            bundles = [[number] for number in new if number in awaited]
            bundles += _parts([n for n in new if n not in awaited], self.settings.cells_a_job)
            for array in _parts(bundles, MOST_OF_AN_ARRAY):
                awaited_jobs = list(dict.fromkeys(jobs[producer].job_id for producer in waits_for))
                executor = self._executor(resource, options, awaited_jobs)
                cell_options = with_resources(options, resource, resource.gpus)
                calls = [_CellsJob([items[n].planned for n in b], cell_options) for b in array]
                for bundle, job in zip(array, _submitted(executor, calls), strict=True):
                    for number in bundle:
                        jobs[number] = job
                        journal.note(items[number].planned.identity, options, job.job_id)
        if jobs:
            arrays = sorted({job.job_id.partition("_")[0] for job in jobs.values()}, key=int)
            logger.info(f"{len(jobs)} cells are in the queue as jobs {', '.join(arrays)}")
        return jobs

    def _executor(
        self, resources: Resources, options: RunOptions, waits_for: Sequence[str] = ()
    ) -> submitit.SlurmExecutor:
        """Return what submits jobs that ask for the same, and wait for the end of the same jobs."""
        own = self.settings
        gpus = float(options.compute.device == "cuda") if resources.gpus is None else resources.gpus
        if gpus != int(gpus):
            raise UserError(
                f"a cell asks for {gpus:g} GPUs, and Slurm gives whole ones",
                next_step="leave gpus out and, where the site has shards, --set sbatch.gres=shard:1",
            )
        with explain_write_errors(options.out):
            executor = submitit.SlurmExecutor(
                folder=options.out / FOLDER, max_num_timeout=own.requeues
            )
        more = {"requeue": True, **own.sbatch}
        parameters = {
            "job_name": JOB_NAME,
            "partition": own.partition,
            "account": own.account,
            "qos": own.qos,
            "time": max(1, round(60 * own.hours)),
            "cpus_per_task": resources.cores,
            "mem": None
            if resources.memory_gib is None
            else f"{round(1024 * resources.memory_gib)}M",
            "gpus_per_node": int(gpus) or None,
            "array_parallelism": own.at_once,
            "setup": list(own.setup) or None,
            "dependency": f"afterany:{':'.join(waits_for)}" if waits_for else None,
            "additional_parameters": {k: value for k, value in more.items() if value is not False},
        }
        executor.update_parameters(
            **{k: value for k, value in parameters.items() if value is not None}
        )
        return executor

    def _watch(
        self,
        items: Sequence[PlannedItem],
        jobs: Mapping[int, submitit.Job[Any]],
        options: RunOptions,
        cells: Running,
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """Yield what becomes of cells as their jobs leave the queue."""
        left, gone, began = dict(jobs), dict[int, float](), time.monotonic()
        shortest, longest = POLL_SECONDS
        while left:
            time.sleep(min(longest, max(shortest, (time.monotonic() - began) / 20)))
            queued = _queue()
            if queued is None:  # the controller is busy or restarts
                continue
            states = [queued[job.job_id] for job in left.values() if job.job_id in queued]
            cells.note(running=f"{states.count('R')}, {len(states) - states.count('R')} waiting")
            for number, job in list(left.items()):
                if job.job_id in queued:
                    gone.pop(number, None)
                    continue
                since = gone.setdefault(number, time.monotonic())
                ended = job.paths.result_pickle.exists()
                if ended or time.monotonic() - since > GRACE_SECONDS:
                    del left[number]
                    planned = items[number].planned
                    yield planned.cell, _outcome(planned, job, ended, options)


class _CellsJob:
    """Cells as Slurm runs them: submitit calls it, and asks it what to call next before a job is queued again."""

    def __init__(self, cells: Sequence[PlannedCell], options: RunOptions) -> None:
        self.cells, self.options = cells, options
        self._started = 0  # cells; --force must not run them from scratch a second time

    def __call__(self) -> dict[str, CellOutcome]:
        """Run the cells and return the outcome of each, by its identity."""
        progress, outcomes = Progress(), dict[str, CellOutcome]()
        show_messages(progress, verbose=True)  # in the log of the job
        for number, planned in enumerate(self.cells):
            with suppress(Exception):  # a full disk, say: the run reports it
                self._log_beside_the_record(planned)
            options = self.options
            if number < self._started:
                options = options.model_copy(update={"force": False})
            self._started = max(self._started, number + 1)
            outcomes[planned.identity] = try_run(planned, options, progress)
        return outcomes

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Resume from the checkpoints of the running cell."""
        return submitit.helpers.DelayedSubmission(self)

    def _log_beside_the_record(self, planned: PlannedCell) -> None:
        folder = cell_folder(self.options.out, planned.cell, planned.identity)
        folder.mkdir(parents=True, exist_ok=True)
        paths = submitit.JobEnvironment().paths
        for name, path in {"slurm.out": paths.stdout, "slurm.err": paths.stderr}.items():
            # Not a copy: what Slurm writes after the process has died, such as a time limit, is in it too.
            (folder / name).unlink(missing_ok=True)
            os.link(path, folder / name)


class _ReportJob:
    """A job that reports its machine."""

    def __init__(self, submit_host: SubmitHost) -> None:
        self.submit_host = submit_host

    def __call__(self) -> MachineReport:
        report = self.submit_host.report()
        if report.sees_records and report.sees_cache:
            return report
        problem = (
            f"it does not see the same {'folder of records' if report.sees_cache else 'cache'}; with Slurm both must be shared: "
            "--out, and LAPE_BENCH_HOME"
        )
        return report.model_copy(update={"problems": (*report.problems, problem)})


class _Journal:
    """Which job runs which cell, so that a sweep started again finds the jobs of the one before."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER
        self._path = self.folder / "jobs.jsonl"

    def read(self, options: RunOptions) -> dict[str, str]:
        """Return the last job of each cell that is run in this way, by the cell's identity."""
        jobs: dict[str, str] = {}
        with suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # half a line, of a kill, or the empty one before each
                    identity, how, job = json.loads(line)
                    if how == options.model_dump(mode="json"):
                        jobs[identity] = job
        return jobs

    def note(self, identity: str, options: RunOptions, job: str) -> None:
        """Add a cell's job."""
        line = json.dumps([identity, options.model_dump(mode="json"), job])
        with explain_write_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")


def _jobs_in_queue(
    items: Sequence[PlannedItem], options: RunOptions, journal: _Journal
) -> dict[int, submitit.Job[Any]]:
    """Return the jobs that an earlier start of this sweep submitted and that have not ended, by the cell's number.

    Raises:
        UserError: Slurm does not answer.
    """
    submitted, queued = journal.read(options), _queue()
    if queued is None:
        raise UserError(
            "squeue does not answer, so which cells are in the queue is not known",
            next_step="'squeue --me' says why; try again later",
        )
    return {
        number: submitit.SlurmJob(folder=journal.folder, job_id=submitted[item.planned.identity])
        for number, item in enumerate(items)
        if submitted.get(item.planned.identity) in queued
    }


def _arrays(
    producers: Sequence[dict[str, int]], resources: Sequence[Resources]
) -> Iterator[tuple[list[int], Resources, list[int]]]:
    """Group cells that wait for the same producers and ask for the same resources.

    Yields:
        The producers, the resources, and the cells; producers come before the cells that wait for them.
    """
    waits_for = [sorted({*of.values()} - {cell}) for cell, of in enumerate(producers)]
    levels: list[
        int
    ] = []  # the first cell that needs an artifact produces it, so its level is known
    for numbers in waits_for:
        levels.append(1 + max((levels[number] for number in numbers), default=-1))
    groups: dict[tuple[int, tuple[int, ...], str], list[int]] = defaultdict(list)
    for cell in producers_first(producers):
        groups[levels[cell], tuple(waits_for[cell]), str(resources[cell])].append(cell)
    for (_, awaited, _), cells in sorted(groups.items(), key=lambda group: group[0][0]):
        yield [*awaited], resources[cells[0]], cells


def _parts(values: list[Any], most: int) -> list[list[Any]]:
    return [values[start : start + most] for start in range(0, len(values), most)]


def _submitted(executor: submitit.SlurmExecutor, calls: Sequence[Any]) -> list[submitit.Job[Any]]:
    """Submit one array."""
    try:
        with executor.batch():
            return [executor.submit(call) for call in calls]
    except (FailedJobError, FailedSubmissionError, OSError, subprocess.SubprocessError) as error:
        message = " ".join(str(error).split())
        raise UserError(
            f"Slurm did not take the jobs ({message[-300:]})",
            next_step="'sinfo' shows the partitions; --set partition=..., hours=..., account=... change what is asked",
        ) from error


def _queue() -> dict[str, str] | None:
    """Return the state of each job of this user that is in the queue, by its id; none if Slurm does not answer."""
    command = ["squeue", "--user", getuser(), "--noheader", "--array", "--format=%i %t"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except subprocess.SubprocessError:
        return None
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return {job: state.strip() for job, _, state in lines}


def _outcome(
    planned: PlannedCell, job: submitit.Job[Any], ended: bool, options: RunOptions
) -> CellOutcome:
    """Return the outcome that a job handed back; if there is none, the record, or why the cell failed."""
    if ended:
        with suppress(Exception):  # the job raised one; the record or the log says which
            outcomes: dict[str, CellOutcome] = job.result()
            return outcomes[planned.identity]
    record = finished_record(planned, options)  # none with --force
    if record is not None:
        return record
    reason = f"its Slurm job {job.job_id} ended without a result{_state_of(job.job_id)}; its log is {job.paths.stderr}"
    return lost_outcome(planned, options, reason)


def _state_of(job: str) -> str:
    """Say what Slurm remembers of a job that has left the queue, which it does for some minutes."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "--oneliner", "show", "job", job]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout
        for word in output.split():
            if word.startswith("JobState="):
                return f" ({word.removeprefix('JobState=')})"
    return ""


def _wait_for_report(job: submitit.Job[Any]) -> MachineReport:
    """Wait for the report of a machine."""
    gone: float | None = None
    while not job.paths.result_pickle.exists():
        queued = _queue()
        if queued is not None and job.job_id not in queued:
            gone = gone or time.monotonic()
            if time.monotonic() - gone > GRACE_SECONDS:
                return _no_report(job, "ended without a result")
        time.sleep(POLL_SECONDS[0])
    try:
        report: MachineReport = job.result()
    except Exception as error:  # whatever a job raised, as text
        return _no_report(job, " ".join(str(error).split())[-300:])
    return report


def _no_report(job: submitit.Job[Any], why: str) -> MachineReport:
    problem = f"job {job.job_id} could not look{_state_of(job.job_id)}: {why}; its log is {job.paths.stderr}"
    return MachineReport(name="a machine of Slurm", problems=(problem,))


def _absolute(options: RunOptions) -> RunOptions:
    return options.model_copy(update={"out": options.out.expanduser().absolute()})
