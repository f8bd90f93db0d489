"""Run cells as array jobs of Slurm, on machines that share the folder of the records and the cache."""

import logging
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import submitit
from pydantic import Field, field_validator
from submitit.core.utils import FailedJobError, FailedSubmissionError

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.progress import Progress, Running
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import finished_record
from lape_bench.records.record import Cell
from lape_bench.sweep.engine import (
    Engine,
    EngineSettings,
    refuse_gpu_of_this_machine,
    with_resources,
)
from lape_bench.sweep.grid import PlannedItem, Resources, SweepItem
from lape_bench.sweep.machine import MachineReport, SubmitHost
from lape_bench.sweep.run_cell import CellOutcome, lost_outcome
from lape_bench.sweep.schedule import find_producers, producers_first
from lape_bench.sweep.slurm_jobs import CellsJob, ReportJob
from lape_bench.sweep.slurm_queue import Journal, jobs_in_queue, most_of_an_array, queue, state_of

logger = logging.getLogger(__name__)

FOLDER = (
    ".slurm"  # below the folder of the records: job descriptions, logs, and the journal of jobs
)
JOB_NAME = "lape_bench"
POLL_SECONDS = 1.0, 30.0  # shortest and longest time between two calls of squeue
REPORT_MINUTES = 15
# Options of sbatch with a setting of their own, which also plans requeues and threads, and those that the sweep needs itself.
OWN_SETTINGS = {
    "time": "hours", "cpus-per-task": "cores", "mem": "memory_gib", "gpus-per-node": "gpus",
    "partition": "partition", "account": "account", "qos": "qos",
}  # fmt: skip
OWN_OPTIONS = {"array", "dependency", "error", "job-name", "open-mode", "output", "signal"}
# A shared file system may show a result only some time after its job has left the queue: NFS keeps the listing of a folder for
# up to 60 s.
GRACE_SECONDS = 75.0


class SlurmSettings(EngineSettings):
    """How a sweep uses Slurm."""

    partition: str | None = Field(None, description="unset: the site's default")
    account: str | None = Field(None, description="unset: your default")
    qos: str | None = Field(None, description="unset: your default")
    hours: float = Field(
        24.0,
        gt=0,
        allow_inf_nan=False,
        description="time limit of a job; a cell that exceeds it resumes in the next job",
    )
    requeues: int = Field(
        3, ge=0, description="how often a cell that exceeds the time limit is queued again"
    )
    cells_a_job: int = Field(
        1,
        ge=1,
        description="cells that a job runs one after the other; more than 1 suits short cells",
    )
    at_once: int = Field(256, ge=1, description="jobs of an array that run side by side")
    setup: tuple[str, ...] = Field((), description="shell commands that a job runs first, in order")
    sbatch: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="more options of sbatch, by their long names"
    )

    @field_validator("sbatch")
    @classmethod
    def _leaves_own_options_alone(cls, options: dict[str, Any]) -> dict[str, Any]:
        for option in options:
            name = option.replace("_", "-")
            if name in OWN_SETTINGS:
                raise ValueError(f"--{name} follows from the setting {OWN_SETTINGS[name]}")
            if name in OWN_OPTIONS:
                raise ValueError(f"--{name} is chosen by the sweep")
        return options


class SlurmEngine(Engine):
    """Submits cells to Slurm.

    Args:
        settings: how Slurm is used.
    """

    stopped = (
        "stopped watching; the jobs stay in the queue, and the same command watches them again; "
        f"'scancel --me --name={JOB_NAME}' cancels them"
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
        distinct = {
            str(resources): resources
            for resources in (self.settings.resources_of(item.resources) for item in items)
        }
        with SubmitHost.this_machine((item.cell.task for item in items), options) as submit_host:
            jobs = []
            for resources in distinct.values():
                executor = self._executor(resources, options)
                executor.update_parameters(time=REPORT_MINUTES)
                jobs += _submitted(executor, [ReportJob(submit_host)])
            logger.info(
                f"waiting for the jobs that check the machines: {', '.join(j.job_id for j in jobs)}"
            )
            return [submit_host.report(has_device=False), *map(_wait_for_report, jobs)]

    def require_available(self, options: RunOptions) -> None:
        """See `Engine`."""
        lacking = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
        if lacking:
            raise UserError(
                f"there is no {', '.join(lacking)} here, so cells cannot be submitted to Slurm",
                next_step="run this on a login node of the cluster, or use --jobs or --on ray",
            )
        refuse_gpu_of_this_machine(options)

    def submit(
        self, items: Sequence[PlannedItem], options: RunOptions, progress: Progress
    ) -> dict[int, submitit.Job[Any]]:
        """Submit the cells that are not in the queue yet: producers of artifacts first, then arrays that wait for them.

        Returns:
            The job of each cell, by the cell's number; several cells may share a job.

        Raises:
            UserError: Slurm does not answer, or rejects the jobs.
        """
        journal, longest_array = Journal(options.out / FOLDER), most_of_an_array()
        jobs = jobs_in_queue(items, options, journal)
        producers = find_producers([item.planned.shared_artifacts for item in items])
        resources = [self.settings.resources_of(item.resources) for item in items]
        awaited = {
            producer
            for cell, producer_of in enumerate(producers)
            for producer in producer_of.values()
            if producer != cell
        }
        for waits_for, resource, numbers in _arrays(producers, resources):
            new = [number for number in numbers if number not in jobs]
            # A cell that others wait for gets a job of its own, so that no further cell in its job delays them.
            bundles = [[number] for number in new if number in awaited]
            bundles += _parts([n for n in new if n not in awaited], self.settings.cells_a_job)
            for array in _parts(bundles, longest_array):
                awaited_jobs = list(dict.fromkeys(jobs[producer].job_id for producer in waits_for))
                executor = self._executor(resource, options, awaited_jobs)
                cell_options = with_resources(options, resource, resource.gpus)
                calls = [CellsJob([items[n].planned for n in b], cell_options) for b in array]
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
        """Return an executor for jobs with these resources, which start when the jobs `waits_for` have ended."""
        settings = self.settings
        gpus = float(options.compute.device == "cuda") if resources.gpus is None else resources.gpus
        if gpus != int(gpus):
            raise UserError(
                f"a cell asks for {gpus:g} GPUs, but Slurm assigns whole GPUs",
                next_step="set gpus to a whole number; if the site has shards, leave gpus out and --set sbatch.gres=shard:1",
            )
        with explain_write_errors(options.out):
            executor = submitit.SlurmExecutor(
                folder=options.out / FOLDER, max_num_timeout=settings.requeues
            )
        more = {"requeue": True, **settings.sbatch}
        parameters = {
            "job_name": JOB_NAME,
            "partition": settings.partition,
            "account": settings.account,
            "qos": settings.qos,
            "time": max(1, round(60 * settings.hours)),
            "cpus_per_task": resources.cores,
            "mem": None
            if resources.memory_gib is None
            else f"{round(1024 * resources.memory_gib)}M",
            "gpus_per_node": int(gpus) or None,
            "array_parallelism": settings.at_once,
            "setup": list(settings.setup) or None,
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
        """Yield the outcome of each cell after its job has left the queue."""
        remaining, left_queue_at, began = dict(jobs), dict[int, float](), time.monotonic()
        shortest, longest = POLL_SECONDS
        while remaining:
            time.sleep(min(longest, max(shortest, (time.monotonic() - began) / 20)))
            queued = queue()
            if queued is None:  # the controller is busy or restarts
                continue
            states = [queued[job.job_id] for job in remaining.values() if job.job_id in queued]
            cells.note(running=f"{states.count('R')}, {len(states) - states.count('R')} waiting")
            for number, job in list(remaining.items()):
                if job.job_id in queued:
                    left_queue_at.pop(number, None)
                    continue
                since = left_queue_at.setdefault(number, time.monotonic())
                has_result = job.paths.result_pickle.exists()
                if has_result or time.monotonic() - since > GRACE_SECONDS:
                    del remaining[number]
                    planned = items[number].planned
                    yield planned.cell, _outcome(planned, job, has_result, options)


def _arrays(
    producers: Sequence[dict[str, int]], resources: Sequence[Resources]
) -> Iterator[tuple[list[int], Resources, list[int]]]:
    """Group cells that wait for the same producers and ask for the same resources.

    Yields:
        The producers, the resources, and the cells; producers come before the cells that wait for them.
    """
    waits_for = [
        sorted({*producer_of.values()} - {cell}) for cell, producer_of in enumerate(producers)
    ]
    # A producer is the first cell that needs its artifact, so its level is known before the levels of the others.
    levels: list[int] = []
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
            f"Slurm rejected the jobs ({message[-300:]})",
            next_step="see the partitions with 'sinfo', and change --set partition=..., hours=... or account=...",
        ) from error


def _outcome(
    planned: PlannedCell, job: submitit.Job[Any], has_result: bool, options: RunOptions
) -> CellOutcome:
    """Return the outcome of a cell: the job's result or, without one, the record on disk, or the reason of the failure."""
    if has_result:
        with suppress(Exception):  # the job raised an error, which is in the record or the log
            outcomes: dict[str, CellOutcome] = job.result()
            return outcomes[planned.identity]
    record = finished_record(planned, options)  # none with --force
    if record is not None:
        return record
    reason = f"its Slurm job {job.job_id} ended without a result{state_of(job.job_id)}; its log is {job.paths.stderr}"
    return lost_outcome(planned, options, reason)


def _wait_for_report(job: submitit.Job[Any]) -> MachineReport:
    """Wait for the report of a machine."""
    left_queue_at: float | None = None
    while not job.paths.result_pickle.exists():
        queued = queue()
        if queued is not None and job.job_id not in queued:
            left_queue_at = left_queue_at or time.monotonic()
            if time.monotonic() - left_queue_at > GRACE_SECONDS:
                return _no_report(job, "it ended without a result")
        time.sleep(POLL_SECONDS[0])
    try:
        report: MachineReport = job.result()
    except Exception as error:  # a job may raise anything
        return _no_report(job, " ".join(str(error).split())[-300:])
    return report


def _no_report(job: submitit.Job[Any], reason: str) -> MachineReport:
    problem = (
        f"job {job.job_id} could not check its machine{state_of(job.job_id)}: {reason}; "
        f"its log is {job.paths.stderr}"
    )
    return MachineReport(name="a machine of Slurm", problems=(problem,))


def _absolute(options: RunOptions) -> RunOptions:
    return options.model_copy(update={"out": options.out.expanduser().absolute()})
