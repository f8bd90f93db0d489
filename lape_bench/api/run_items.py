"""Plan, label and run cells, for Python and the command line alike.

torch and pandas are imported when a cell runs and not when this module is imported.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.plugins.registry import SYSTEMS

if TYPE_CHECKING:
    from lape_bench.api.result_set import ResultSet
    from lape_bench.evaluation.plan import ImpossibleCell
    from lape_bench.evaluation.run_options import RunOptions
    from lape_bench.records.record import RunRecord
    from lape_bench.sweep.engine import Engine
    from lape_bench.sweep.grid import PlannedItem


def plan_items(
    systems: Sequence[tuple[str, dict[str, Any]]],
    tasks: Sequence[str],
    protocols: Sequence[str],
    labels: Sequence[str],
    seeds: int,
    fold: int | None,
    progress: Progress,
) -> "list[PlannedItem]":
    """Plan every cell once, so that mistakes are reported before the first cell runs.

    Raises:
        UserError: see `evaluate`.
    """
    from lape_bench.evaluation.plan import expand_grid, resolve
    from lape_bench.sweep.grid import PlannedItem

    cells = expand_grid(systems, tasks, protocols, labels, seeds, fold)
    items = (PlannedItem(resolve(cell, progress).planned) for cell in cells)
    # A system may be given twice, with its settings in another spelling.
    return list({item.planned.identity: item for item in items}.values())


def label_items(items: "Sequence[PlannedItem]", label: str, out: Path) -> "list[PlannedItem]":
    """Give the system of planned cells a label; an empty one changes nothing.

    Raises:
        UserError: the label is not one, is the name of a system or task, is given to several systems, or is that of
            another system in the folder of results.
    """
    if not label:
        return list(items)
    from lape_bench.results.system_titles import check_label, refuse_taken_label

    check_label(label, len({(item.cell.system, str(item.cell.settings)) for item in items}))
    if label in SYSTEMS.names() and label != items[0].cell.system:
        raise UserError(
            f"the label '{label}' is the name of another system", next_step="choose another label"
        )
    refuse_taken_label(out, items[0].cell, label)
    cells = [item.cell.model_copy(update={"label": label}) for item in items]
    return [
        item._replace(planned=replace(item.planned, cell=cell))
        for item, cell in zip(items, cells, strict=True)
    ]


@dataclass
class CompletedRun:
    """The outcome of cells that were run.

    Attributes:
        records: the record of each finished cell, with its folder.
        failures: one line for each other cell, with the reason.
    """

    records: "list[tuple[Path, RunRecord]]" = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def results(self, problems: Iterable[str] = ()) -> "ResultSet":
        """Return the results of the finished cells, with `problems` added to theirs."""
        from lape_bench.api.result_set import ResultSet
        from lape_bench.results.load import results_of

        results = results_of(self.records)
        return ResultSet(results.cells, results.predictions, [*problems, *results.problems])


def run_items(
    items: "Sequence[PlannedItem | ImpossibleCell]",
    options: "RunOptions",
    engine: "Engine",
    progress: Progress,
    on_record: "Callable[[RunRecord], None]" = lambda record: None,
    on_failure: Callable[[str], None] = lambda line: None,
) -> CompletedRun:
    """Run cells by an engine.

    Args:
        items: the cells.
        options: device, precision and other options.
        engine: runs them, here or elsewhere.
        progress: shows the progress.
        on_record: called with the record of each finished cell.
        on_failure: called with one line for each cell that failed, with the reason.

    Raises:
        UserError: this machine lacks the device, the folder of the records is a file, or torchrun started several
            processes.
    """
    from lape_bench.records.record import cell_folder
    from lape_bench.runtime import distributed
    from lape_bench.sweep.engine import run_cells
    from lape_bench.sweep.run_cell import is_finished

    if distributed.is_distributed():
        raise UserError(
            "torchrun started several processes, but a cell is run by one process",
            next_step="pre-train with 'torchrun --no-python bench pretrain', then run without torchrun; 'bench sweep --jobs' runs several cells at a time",
        )
    if options.out.exists() and not options.out.is_dir():
        raise UserError(
            f"{options.out} is a file, but records go into a folder",
            next_step="choose another folder with --out, or out= in Python",
        )
    if engine.jobs is not None:  # raises an error if this machine lacks the device
        options.compute.resolve()
    run = CompletedRun()
    for cell, outcome in run_cells(items, options, engine, progress):
        if not isinstance(outcome, str) and is_finished(outcome):
            run.records.append((cell_folder(options.out, cell, outcome.identity), outcome))
            on_record(outcome)
        else:
            reason = outcome if isinstance(outcome, str) else outcome.error
            run.failures.append(f"{cell.title} failed: {reason}")
            on_failure(run.failures[-1])
    return run
