"""What runs the cells of a sweep: the contract of an engine, and how cells are handed out to workers that may be lost."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from pydantic import Field

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress, Running
from lape_bench.evaluation.runner import RunOptions
from lape_bench.records.record import Cell
from lape_bench.sweep.grid import Gpus, Resources, SweepItem
from lape_bench.sweep.machine import MachineReport
from lape_bench.sweep.run_cell import CellOutcome, failure, found, is_finished, shared
from lape_bench.sweep.schedule import Schedule


class EngineSettings(Config):
    """What every engine of a cluster can be told."""

    cores: int | None = Field(None, ge=1, description="of each cell, instead of what the grid says")
    memory_gib: float | None = Field(None, gt=0, description="the same of memory")
    gpus: Gpus | None = Field(None, description="the same of GPUs, or of a share of one")

    def resources_of(self, resources: Resources) -> Resources:
        """Return what a cell asks for, by these settings and else by the grid."""
        return resources.model_copy(
            update=self.model_dump(include=set(Resources.model_fields), exclude_none=True)
        )


class Engine(ABC):
    """Runs cells, here or elsewhere."""

    jobs: int | None = (
        None  # processes that it starts on this machine for itself; none: by the cluster's count
    )
    stopped = "stopped; the same command goes on from here"  # said when the user stops it

    @abstractmethod
    def run(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """Yield each cell with its record, or with the reason it could not be run, as it ends.

        Args:
            works: what to run.
            options: how.
            progress: told of what happens inside the cells.
            cells: their count, for notes beside it.

        Raises:
            UserError: there is no such engine here, or it cannot run these cells.
        """

    @abstractmethod
    def check(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress
    ) -> list[MachineReport]:
        """Have every machine that cells may run on look whether it could; this one is the first."""


def run_cells(
    items: Sequence[SweepItem], options: RunOptions, engine: Engine, progress: Progress
) -> Iterator[tuple[Cell, CellOutcome]]:
    """Run cells and yield each with its record, or with the reason it could not be run, as it ends."""
    with progress.task("cells", len(items), "cells") as task:
        for cell, outcome in engine.run(items, options, progress, task):
            task.advance()
            yield cell, outcome


def refuse_gpu_of_this_machine(options: RunOptions) -> None:
    """Refuse `--device cuda:N`, where an engine gives each cell a GPU of its own.

    Raises:
        UserError: it was asked for.
    """
    if options.compute.device.startswith("cuda:"):
        raise UserError(
            f"--device {options.compute.device} names a GPU of this machine, and an engine gives each cell its own",
            allowed="--device auto, cpu or cuda",
        )


def known(
    items: Sequence[SweepItem], options: RunOptions, progress: Progress
) -> tuple[list[tuple[Cell, CellOutcome]], list[SweepItem]]:
    """Tell the cells that are finished, or cannot be run, from those that an engine has to run."""
    told: list[tuple[Cell, CellOutcome]] = []
    left: list[SweepItem] = []
    for item in items:
        outcome = found(item.cell, options, progress)
        if outcome is None:
            left.append(item)
        else:
            told.append((item.cell, outcome))
    return told, left


def as_asked(options: RunOptions, resources: Resources, gpus: float | None) -> RunOptions:
    """Have a cell compute on what it asks for: a thread a core, unless the user says how many, and without a GPU on the CPU.

    Args:
        options: how cells are run.
        needs: what the cell asks for.
        gpus: that it is given; none where that is not known.
    """
    compute = options.compute
    device = "cpu" if gpus == 0 and compute.device == "auto" else compute.device
    changed = {"threads": compute.threads or resources.cores, "device": device}
    return options.model_copy(update={"compute": compute.model_copy(update=changed)})


def refuse(reports: Sequence[MachineReport]) -> None:
    """Refuse to begin where machines lack what cells need.

    Raises:
        UserError: names each machine with its first problem.
    """
    lacking = [f"{report.name}: {report.problems[0]}" for report in reports if report.problems]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(reports)} machines cannot run this sweep: {' '.join(lacking[:3])}",
            next_step="the same command with --check says all",
        )


class Lost(NamedTuple):
    """What becomes of a cell whose process or machine is gone."""

    reason: str


class Workers(Protocol):
    """Processes that cells are started in."""

    waits_inside: bool  # whether a cell may begin whose upstream, say, is being made by another

    def free(self) -> bool:
        """Tell whether another cell may be started."""

    def start(self, number: int, item: SweepItem) -> None:
        """Start a cell."""

    def ended(self) -> Sequence[tuple[int, CellOutcome | Lost]]:
        """Wait a while for the end of cells that were started, and return the number of each that ended with what it tells."""


def hand_out(
    items: Sequence[SweepItem],
    options: RunOptions,
    workers: Workers,
    tries: int,
    progress: Progress,
) -> Iterator[tuple[Cell, CellOutcome]]:
    """Start cells, those first that make most for others, such as an upstream; who needs it begins when they have ended.

    Args:
        works: the cells.
        options: how they are run.
        workers: start them.
        tries: of a cell that is lost, before it counts as failed.
        progress: told of tasks that are generated.
    """
    schedule = Schedule([shared(item.cell, progress) for item in items])
    lost, running = Counter[int](), set[int]()
    while schedule or running:
        while schedule and workers.free():
            number = schedule.begin() if workers.waits_inside else schedule.begin_free()
            if number is None:
                break
            running.add(number)
            workers.start(number, items[number])
        for number, outcome in workers.ended():
            running.remove(number)
            cell = items[number].cell
            if isinstance(outcome, Lost):
                lost[number] += 1
                if lost[number] < tries:
                    schedule.again(number)
                    continue
                outcome = failure(cell, options, f"{outcome.reason}, {tries} times")
            schedule.end(number, is_finished(outcome))
            yield cell, outcome
