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

from lape_bench.core.errors import UserError, writing
from lape_bench.core.progress import Progress, Running, show_messages
from lape_bench.evaluation.runner import RunOptions, resolve
from lape_bench.records.record import Cell, cell_folder
from lape_bench.sweep.engine import (
    Engine,
    EngineSettings,
    as_asked,
    known,
    refuse_gpu_of_this_machine,
)
from lape_bench.sweep.grid import Resources, SweepItem
from lape_bench.sweep.machine import MachineReport, SweepSite
from lape_bench.sweep.run_cell import CellOutcome, attempt, failure, found, shared
from lape_bench.sweep.schedule import makers, order

logger = logging.getLogger(__name__)

FOLDER = ".slurm"  # below the folder of the records: job descriptions, logs, and which job runs which cell
JOB_NAME = "lape_bench"
MOST_OF_AN_ARRAY = 1000  # Slurm's own limit, unless a site raises it, is 1001
LOOKS_EVERY_SECONDS = 1.0, 30.0  # at first, and in the end
LOOKS_FOR_MINUTES = 15
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
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """See `Engine`."""
        self._needs_slurm(options)
        options = _absolute(options)
        told, left = known(items, options, progress)
        yield from told
        jobs = self.submit(left, options, progress)
        yield from self._watch(left, jobs, options, cells)

    def check(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress
    ) -> list[MachineReport]:
        """See `Engine`."""
        self._needs_slurm(options)
        options = _absolute(options)
        asked = {
            str(resources): resources
            for resources in (self.settings.resources_of(item.resources) for item in items)
        }
        with SweepSite.here((item.cell.task for item in items), options) as site:
            jobs = []
            for resources in asked.values():
                executor = self._executor(resources, options)
                executor.update_parameters(time=LOOKS_FOR_MINUTES)
                jobs += _submitted(executor, [_Look(site)])
            logger.info(
                f"waiting for Slurm to start what looks: {', '.join(j.job_id for j in jobs)}"
            )
            return [site.report(has_device=False), *map(_seen, jobs)]

    def _needs_slurm(self, options: RunOptions) -> None:
        lacking = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
        if lacking:
            raise UserError(
                f"there is no {', '.join(lacking)} here, so no Slurm to submit to",
                next_step="run this on a login node of the cluster; --on ray and --jobs need no Slurm",
            )
        refuse_gpu_of_this_machine(options)

    def submit(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress
    ) -> dict[int, submitit.Job[Any]]:
        """Submit what is not in the queue yet: arrays of those that make what others need, then arrays that wait for these."""
        journal, made_by = _Journal(options.out), makers([shared(w.cell, progress) for w in items])
        asked = [self.settings.resources_of(item.resources) for item in items]
        identities = [resolve(item.cell, progress).identity for item in items]
        before, queued = journal.read(options), _queue()
        if queued is None:
            raise UserError(
                "squeue does not answer, so which cells are in the queue is not known",
                next_step="'squeue --me' says why; try again later",
            )
        jobs = {
            number: submitit.SlurmJob(folder=journal.folder, job_id=before[identity])
            for number, identity in enumerate(identities)
            if before.get(identity) in queued
        }
        waited_for = {m for cell, made in enumerate(made_by) for m in made.values() if m != cell}
        for waits_for, resources, numbers in _arrays(made_by, asked):
            new = [number for number in numbers if number not in jobs]
            # One for which others wait is not kept waiting by more cells in its job.
            bundles = [[number] for number in new if number in waited_for]
            bundles += _parts([n for n in new if n not in waited_for], self.settings.cells_a_job)
            for array in _parts(bundles, MOST_OF_AN_ARRAY):
                makers_jobs = dict.fromkeys(jobs[maker].job_id for maker in waits_for)
                executor = self._executor(resources, options, [*makers_jobs])
                own = as_asked(options, resources, resources.gpus)
                calls = [_CellsJob([items[n].cell for n in bundle], own) for bundle in array]
                for bundle, job in zip(array, _submitted(executor, calls), strict=True):
                    for number in bundle:
                        jobs[number] = job
                        journal.note(identities[number], options, job.job_id)
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
        with writing(options.out):
            executor = submitit.SlurmExecutor(
                folder=options.out / FOLDER, max_num_timeout=own.requeues
            )
        more = {"requeue": True, **own.sbatch}
        wanted = {
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
        executor.update_parameters(**{k: value for k, value in wanted.items() if value is not None})
        return executor

    def _watch(
        self,
        items: Sequence[SweepItem],
        jobs: Mapping[int, submitit.Job[Any]],
        options: RunOptions,
        cells: Running,
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """Yield what becomes of cells as their jobs leave the queue."""
        left, gone, began = dict(jobs), dict[int, float](), time.monotonic()
        shortest, longest = LOOKS_EVERY_SECONDS
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
                    cell = items[number].cell
                    yield cell, _outcome(cell, job, ended, options)


class _CellsJob:
    """Cells as Slurm runs them: what submitit calls and, before a job is ended and queued again, asks what to call next."""

    def __init__(self, cells: Sequence[Cell], options: RunOptions) -> None:
        self.cells, self.options = cells, options
        self._forced = 0  # cells that were begun anew already, where that was asked for

    def __call__(self) -> dict[str, CellOutcome]:
        """Run the cells and return what becomes of each, by its description."""
        progress, told = Progress(), dict[str, CellOutcome]()
        show_messages(progress, verbose=True)  # in the log of the job
        for number, cell in enumerate(self.cells):
            with suppress(Exception):  # what is wrong with it, or the disk, its run tells
                self._log_beside_the_record(cell, progress)
            options = self.options
            if number < self._forced:
                options = options.model_copy(update={"force": False})
            self._forced = max(self._forced, number + 1)
            told[str(cell)] = attempt(cell, options, progress)
        return told

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Go on from the checkpoints of the cell that runs."""
        return submitit.helpers.DelayedSubmission(self)

    def _log_beside_the_record(self, cell: Cell, progress: Progress) -> None:
        folder = cell_folder(self.options.out, cell, resolve(cell, progress).identity)
        folder.mkdir(parents=True, exist_ok=True)
        paths = submitit.JobEnvironment().paths
        for name, path in {"slurm.out": paths.stdout, "slurm.err": paths.stderr}.items():
            # Not a copy: what Slurm writes after the process has died, such as a time limit, is in it too.
            (folder / name).unlink(missing_ok=True)
            os.link(path, folder / name)


class _Look:
    """A job that looks at its machine."""

    def __init__(self, site: SweepSite) -> None:
        self.site = site

    def __call__(self) -> MachineReport:
        report = self.site.report()
        if report.sees_records and report.sees_cache:
            return report
        unseen = (
            f"it does not see the same {'folder of records' if report.sees_cache else 'cache'}; with Slurm both must be shared: "
            "--out, and LAPE_BENCH_HOME"
        )
        return report.model_copy(update={"problems": (*report.problems, unseen)})


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
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")


def _arrays(
    made_by: Sequence[dict[str, int]], resources: Sequence[Resources]
) -> Iterator[tuple[list[int], Resources, list[int]]]:
    """Group cells that wait for the same makers and ask for the same.

    Yields:
        The makers, what is asked for, and the cells; makers come before those who wait for them.
    """
    waits_for = [sorted({*made.values()} - {cell}) for cell, made in enumerate(made_by)]
    level: list[int] = []  # a maker is the first that needs a thing, so it stands before the others
    for makers_of_it in waits_for:
        level.append(1 + max((level[maker] for maker in makers_of_it), default=-1))
    groups: dict[tuple[int, tuple[int, ...], str], list[int]] = defaultdict(list)
    for cell in order(made_by):
        groups[level[cell], tuple(waits_for[cell]), str(resources[cell])].append(cell)
    for (_, makers_of_them, _), cells in sorted(groups.items(), key=lambda group: group[0][0]):
        yield [*makers_of_them], resources[cells[0]], cells


def _parts(values: list[Any], most: int) -> list[list[Any]]:
    return [values[start : start + most] for start in range(0, len(values), most)]


def _submitted(executor: submitit.SlurmExecutor, calls: Sequence[Any]) -> list[submitit.Job[Any]]:
    """Submit one array."""
    try:
        with executor.batch():
            return [executor.submit(call) for call in calls]
    except (FailedJobError, FailedSubmissionError, OSError, subprocess.SubprocessError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"Slurm did not take the jobs ({said[-300:]})",
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


def _outcome(cell: Cell, job: submitit.Job[Any], ended: bool, options: RunOptions) -> CellOutcome:
    """Return what a job handed back, or what is known where it could not."""
    if ended:
        with suppress(Exception):  # it raised one; the record or the log says which
            told: dict[str, CellOutcome] = job.result()
            return told[str(cell)]
    recorded = found(cell, options, Progress(quiet=True))  # nothing, where it was to be run anew
    if recorded is not None:
        return recorded
    reason = f"its Slurm job {job.job_id} ended without a result{_state_of(job.job_id)}; its log is {job.paths.stderr}"
    return failure(cell, options, reason)


def _state_of(job: str) -> str:
    """Say what Slurm remembers of a job that has left the queue, which it does for some minutes."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "--oneliner", "show", "job", job]
        said = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout
        for word in said.split():
            if word.startswith("JobState="):
                return f" ({word.removeprefix('JobState=')})"
    return ""


def _seen(job: submitit.Job[Any]) -> MachineReport:
    """Wait for a machine's report."""
    gone: float | None = None
    while not job.paths.result_pickle.exists():
        queued = _queue()
        if queued is not None and job.job_id not in queued:
            gone = gone or time.monotonic()
            if time.monotonic() - gone > GRACE_SECONDS:
                return _unseen(job, "ended without a result")
        time.sleep(LOOKS_EVERY_SECONDS[0])
    try:
        report: MachineReport = job.result()
    except Exception as error:  # whatever a job raised, as text
        return _unseen(job, " ".join(str(error).split())[-300:])
    return report


def _unseen(job: submitit.Job[Any], why: str) -> MachineReport:
    problem = f"job {job.job_id} could not look{_state_of(job.job_id)}: {why}; its log is {job.paths.stderr}"
    return MachineReport(name="a machine of Slurm", problems=(problem,))


def _absolute(options: RunOptions) -> RunOptions:
    return options.model_copy(update={"out": options.out.expanduser().absolute()})
