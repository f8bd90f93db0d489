"""The contract of an engine, which runs the cells of a sweep, and the assignment of cells to workers that may be
lost.
"""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from pydantic import Field

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress, Running
from lape_bench.evaluation.plan import ImpossibleCell
from lape_bench.evaluation.runner import RunOptions, finished_record, with_label
from lape_bench.records.record import Cell
from lape_bench.sweep.grid import Gpus, PlannedItem, Resources, SweepItem
from lape_bench.sweep.machine import MachineReport
from lape_bench.sweep.run_cell import CellOutcome, is_finished, lost_outcome
from lape_bench.sweep.schedule import Schedule

logger = logging.getLogger(__name__)


class EngineSettings(Config):
    """Settings that every cluster engine has."""

    cores: int | None = Field(
        None, ge=1, description="CPU cores of each cell, instead of the number in the grid"
    )
    memory_gib: float | None = Field(None, gt=0, description="the same of memory")
    gpus: Gpus | None = Field(None, description="the same of GPUs, or of a share of one")

    def resources_of(self, resources: Resources) -> Resources:
        """Return the resources of a cell, from these settings or else from the grid."""
        return resources.model_copy(
            update=self.model_dump(include=set(Resources.model_fields), exclude_none=True)
        )


class Engine(ABC):
    """Runs cells, on this machine or elsewhere."""

    jobs: int | None = (
        None  # processes that it starts on this machine for itself; none: by the cluster's count
    )
    stopped = "stopped; the same command resumes"  # shown when the user stops it

    def require_available(self, options: RunOptions) -> None:  # noqa: B027  # most engines need nothing
        """Check, before cells are planned, that the engine can be reached and takes these options.

        Raises:
            UserError: it cannot, or does not.
        """

    @abstractmethod
    def run(
        self, items: Sequence[PlannedItem], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """Yield each cell with its record, or with the reason it could not be run, as it ends.

        Args:
            items: cells that are not finished; their planned data goes to the process that runs them.
            options: how.
            progress: shows what happens inside the cells.
            cells: their count, for notes beside it.

        Raises:
            UserError: there is no such engine here, or it cannot run these cells.
        """

    @abstractmethod
    def check(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress
    ) -> list[MachineReport]:
        """Return a report of each machine on which cells may run, starting with this one."""


def run_cells(
    sweep: Sequence[PlannedItem | ImpossibleCell],
    options: RunOptions,
    engine: Engine,
    progress: Progress,
) -> Iterator[tuple[Cell, CellOutcome]]:
    """Run planned cells and yield each with its record, or with the reason it could not be run, as it ends.

    Impossible cells come first, then those that are finished already.
    """
    with progress.task("cells", len(sweep), "cells") as task:
        for cell, outcome in _outcomes(sweep, options, engine, progress, task):
            task.advance()
            yield cell, outcome


def _outcomes(
    sweep: Sequence[PlannedItem | ImpossibleCell],
    options: RunOptions,
    engine: Engine,
    progress: Progress,
    cells: Running,
) -> Iterator[tuple[Cell, CellOutcome]]:
    unfinished: list[PlannedItem] = []
    for item in sweep:
        if isinstance(item, ImpossibleCell):
            yield item.cell, item.reason
        elif (record := finished_record(item.planned, options)) is not None:
            logger.debug(f"finished before: {item.cell.title}")
            yield item.cell, with_label(item.planned, options, record)
        else:
            unfinished.append(item)
    if unfinished:
        yield from engine.run(unfinished, options, progress, cells)


def refuse_gpu_of_this_machine(options: RunOptions) -> None:
    """Raise a `UserError` for `--device cuda:N`, since the engine gives each cell its own GPU.

    Raises:
        UserError: it was asked for.
    """
    if options.compute.device.startswith("cuda:"):
        raise UserError(
            f"--device {options.compute.device} names a GPU of this machine, and an engine gives each cell its own",
            allowed="--device auto, cpu or cuda",
        )


def with_resources(options: RunOptions, resources: Resources, gpus: float | None) -> RunOptions:
    """Make a cell use its resources: one thread per core unless the user sets threads, and the CPU if it has no GPU.

    Args:
        options: how cells are run.
        resources: what the cell asks for.
        gpus: what it is given; none if that is not known.
    """
    compute = options.compute
    device = "cpu" if gpus == 0 and compute.device == "auto" else compute.device
    changed = {"threads": compute.threads or resources.cores, "device": device}
    return options.model_copy(update={"compute": compute.model_copy(update=changed)})


def require_ready_machines(reports: Sequence[MachineReport]) -> None:
    """Raise a `UserError` if a machine lacks something that cells need.

    Raises:
        UserError: the message names each machine with its first problem.
    """
    lacking = [f"{report.name}: {report.problems[0]}" for report in reports if report.problems]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(reports)} machines cannot run this sweep: {' '.join(lacking[:3])}",
            next_step="run the same command with --check to see all problems",
        )


class WorkerLost(NamedTuple):
    """The process or machine of a cell is gone, with the reason."""

    reason: str


class WorkerPool(Protocol):
    """Processes that cells are started in."""

    waits_inside: bool  # whether a cell may start while another computes an artifact that it needs

    def has_room(self) -> bool:
        """Return True if another cell may be started."""

    def start(self, number: int, item: PlannedItem) -> None:
        """Start a cell."""

    def ended(self) -> Sequence[tuple[int, CellOutcome | WorkerLost]]:
        """Wait a while for cells to end; return the number and the outcome of each that did."""


def dispatch(
    items: Sequence[PlannedItem], options: RunOptions, workers: WorkerPool, tries: int
) -> Iterator[tuple[Cell, CellOutcome]]:
    """Start cells and yield their outcomes.

    Cells that compute what most others need, such as an upstream, start first; the others start when these have ended.

    Args:
        items: the cells.
        options: how they are run.
        workers: start them.
        tries: how often a cell may be started whose worker is lost, before it counts as failed.
    """
    schedule = Schedule([item.planned.shared_artifacts for item in items])
    losses, running = Counter[int](), set[int]()
    while schedule or running:
        while schedule and workers.has_room():
            number = schedule.begin() if workers.waits_inside else schedule.begin_free()
            if number is None:
                break
            running.add(number)
            workers.start(number, items[number])
        for number, outcome in workers.ended():
            running.remove(number)
            planned = items[number].planned
            if isinstance(outcome, WorkerLost):
                losses[number] += 1
                if losses[number] < tries:
                    schedule.again(number)
                    continue
                outcome = lost_outcome(planned, options, f"{outcome.reason}, {tries} times")
            schedule.end(number, is_finished(outcome))
            yield planned.cell, outcome
