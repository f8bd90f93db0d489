"""The jobs of a sweep on Slurm: what submitit runs on the machines of the cluster."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import submitit
from submitit.core.utils import UncompletedJobError

from lape_bench.core.progress import Progress, show_messages
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.records.record import cell_folder
from lape_bench.sweep.machine import MachineReport, SubmitHost
from lape_bench.sweep.run_cell import CellOutcome, lost_outcome, try_run

OUT_OF_TIME = (
    "its Slurm job exceeded the time limit and may not be queued again; the same command resumes it, "
    "and --set hours=... or requeues=... gives it more time"
)


class CellsJob:
    """The cells of one job. submitit calls it, and calls `checkpoint` before the job is queued again."""

    def __init__(self, cells: Sequence[PlannedCell], options: RunOptions) -> None:
        self.cells, self.options = cells, options
        self._started = (
            0  # number of cells; --force must not restart them if the job is queued again
        )

    def __call__(self) -> dict[str, CellOutcome]:
        """Run the cells and return the outcome of each, by its identity."""
        outcomes = dict[str, CellOutcome]()
        try:
            with _signals_end_the_job():
                self._run(outcomes)
        except _JobEnded as ended:
            if isinstance(ended.reason, SystemExit):  # it is in the queue again
                raise ended.reason from None
            for planned in self.cells:
                if planned.identity not in outcomes:
                    outcomes[planned.identity] = lost_outcome(planned, self.options, OUT_OF_TIME)
        return outcomes

    def _run(self, outcomes: dict[str, CellOutcome]) -> None:
        progress = Progress()
        show_messages(progress, verbose=True)  # in the log of the job
        for number, planned in enumerate(self.cells):
            with suppress(Exception):  # such as a full disk, which the run itself reports
                self._log_beside_the_record(planned)
            options = self.options
            if number < self._started:
                options = options.model_copy(update={"force": False})
            self._started = max(self._started, number + 1)
            outcomes[planned.identity] = try_run(planned, options, progress)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return the same job, which resumes from the checkpoints of the cell that was running."""
        return submitit.helpers.DelayedSubmission(self)

    def _log_beside_the_record(self, planned: PlannedCell) -> None:
        folder = cell_folder(self.options.out, planned.cell, planned.identity)
        folder.mkdir(parents=True, exist_ok=True)
        paths = submitit.JobEnvironment().paths
        for name, path in {"slurm.out": paths.stdout, "slurm.err": paths.stderr}.items():
            # A link and not a copy, so that it also has lines that Slurm writes after the process has ended.
            (folder / name).unlink(missing_ok=True)
            os.link(path, folder / name)


class ReportJob:
    """A job that reports its machine."""

    def __init__(self, submit_host: SubmitHost) -> None:
        self.submit_host = submit_host

    def __call__(self) -> MachineReport:
        """Return the report, with a problem if the machine does not share the folders."""
        report = self.submit_host.report()
        if report.sees_records and report.sees_cache:
            return report
        problem = (
            f"it does not see the same {'folder of records' if report.sees_cache else 'cache'}; put --out and LAPE_BENCH_HOME "
            "into folders that all machines share"
        )
        return report.model_copy(update={"problems": (*report.problems, problem)})


class _JobEnded(BaseException):
    """The job must end now. No `Exception` or `SystemExit`, since a run would record these as a failure of its cell.

    Args:
        reason: what submitit's handler raised: `SystemExit` if the job is in the queue again.
    """

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def _signals_end_the_job() -> Iterator[None]:
    """Raise `_JobEnded` if submitit ends the job in its handler of the signal for a time limit or a preemption."""
    number = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
    handler = signal.getsignal(number)

    def end(signum: int, frame: FrameType | None) -> None:
        assert callable(handler)
        try:
            handler(signum, frame)
        except (SystemExit, UncompletedJobError) as error:
            raise _JobEnded(error) from None

    if callable(handler):
        signal.signal(number, end)
    try:
        yield
    finally:
        signal.signal(number, handler)
