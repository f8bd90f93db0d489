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
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import finished_record, with_label
from lape_bench.records.record import Cell
from lape_bench.sweep.grid import Gpus, MemoryGib, PlannedItem, Resources, SweepItem
from lape_bench.sweep.machine import MachineReport
from lape_bench.sweep.run_cell import CellOutcome, is_finished, lost_outcome
from lape_bench.sweep.schedule import Schedule

logger = logging.getLogger(__name__)


class EngineSettings(Config):
    """Settings that every cluster engine has."""

    cores: int | None = Field(
        None, ge=1, description="CPU cores of each cell, instead of the number in the grid"
    )
    memory_gib: MemoryGib | None = Field(
        None, description="memory of each cell in GiB, instead of the amount in the grid"
    )
    gpus: Gpus | None = Field(
        None, description="GPUs of each cell, or a share of one, instead of the number in the grid"
    )

    def resources_of(self, resources: Resources) -> Resources:
        """Return the resources of a cell, from these settings or else from the grid."""
        return resources.model_copy(
            update=self.model_dump(include=set(Resources.model_fields), exclude_none=True)
        )


class Engine(ABC):
    """Runs cells, on this machine or elsewhere."""

    jobs: int | None = None  # processes on this machine; None: the cluster decides
    stopped = "stopped; the same command resumes it"  # shown when the user stops the sweep

    def require_available(self, options: RunOptions) -> None:  # noqa: B027  # most engines need nothing
        """Check, before cells are planned, that the engine can be reached and accepts these options.

        Raises:
            UserError: the engine cannot be reached, or does not accept an option.
        """

    @abstractmethod
    def run(
        self, items: Sequence[PlannedItem], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """Run cells. When one ends, yield it with its record, or with the reason why it could not be run.

        Args:
            items: cells that are not finished; each is sent, as planned, to the process that runs it.
            options: how cells are run.
            progress: shows the stages inside the cells.
            cells: the progress of the whole sweep, for notes such as the number of running cells.

        Raises:
            UserError: the engine cannot be reached, or cannot run these cells.
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
    """Run planned cells. When one ends, yield it with its record, or with the reason why it could not be run.

    Impossible and finished cells are yielded before any cell runs.
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
        UserError: `--device` names a single GPU.
    """
    if options.compute.device.startswith("cuda:"):
        raise UserError(
            f"--device {options.compute.device} names a GPU of this machine, but the engine chooses the GPU of each cell",
            allowed="--device auto, cpu or cuda",
        )


def with_resources(options: RunOptions, resources: Resources, gpus: float | None) -> RunOptions:
    """Make a cell use its resources: one thread per core unless the user sets threads, and the CPU if it has no GPU.

    Args:
        options: how cells are run.
        resources: the resources that the cell asks for.
        gpus: the number of GPUs that it gets; None if that is not known.
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

    waits_inside: bool  # whether a started cell can wait for an artifact that another cell computes

    def has_room(self) -> bool:
        """Return True if another cell may be started."""

    def start(self, number: int, item: PlannedItem) -> None:
        """Start a cell."""

    def ended(self) -> Sequence[tuple[int, CellOutcome | WorkerLost]]:
        """Wait a while for cells to end. Return the number and the outcome of each cell that ended."""


def dispatch(
    items: Sequence[PlannedItem], options: RunOptions, workers: WorkerPool, tries: int
) -> Iterator[tuple[Cell, CellOutcome]]:
    """Start cells and yield their outcomes.

    A cell that computes an artifact for many others, such as an upstream, starts first. The others start when it has ended.

    Args:
        items: the cells.
        options: how they are run.
        workers: the processes that run them.
        tries: how often a cell is started if its worker is lost each time; then it counts as failed.
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
                    schedule.put_back(number)
                    continue
                outcome = lost_outcome(planned, options, f"{outcome.reason}, {tries} times")
            schedule.end(number, is_finished(outcome))
            yield planned.cell, outcome
