"""Evaluate systems on tasks from Python: what `bench run` does, with results as objects.

It is not `lape_bench/evaluate.py`: importing that module would hide the function of its name in `lape_bench`.

Importing this module stays light: torch and pandas are imported when something runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lape_bench.core.config import merge
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.label_budget import ValidationLabels, label_budgets
from lape_bench.core.paths import manifest_path
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import all_cards, load_card, suite_tasks, synthetic
from lape_bench.plugins.registry import SYSTEMS

if TYPE_CHECKING:
    from lape_bench.api.result_set import ResultSet
    from lape_bench.evaluation.plan import ImpossibleCell
    from lape_bench.evaluation.runner import RunOptions
    from lape_bench.records.record import RunRecord
    from lape_bench.sweep.engine import Engine
    from lape_bench.sweep.grid import PlannedItem

SystemLike = str | type | tuple[str | type, Mapping[str, Any]]
"""A system's name, an encoder or System class, or one of these with settings."""


def list_systems() -> list[str]:
    """Return the names of all systems that installed packages register.

    Some take an argument behind a colon, such as `hf:NAME`; a class in a file needs no registration,
    `path/to/file.py:MyEncoder`.

    Example:
        >>> import lape_bench as lb
        >>> "unfused" in lb.list_systems()
        True
    """
    return SYSTEMS.names()


def evaluate(
    system: SystemLike | Sequence[SystemLike],
    tasks: str | Sequence[str] = (),
    *,
    suite: str | None = None,
    data: str = "real",
    protocol: str | Sequence[str] | None = None,
    label_fractions: float | Sequence[float] = (),
    shots: int | Sequence[int] = (),
    validation_labels: ValidationLabels = "budget",
    seeds: int = 1,
    fold: int | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "results",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    force: bool = False,
    audit: bool = False,
    keep_model: bool = False,
    jobs: int = 1,
    progress: bool | None = None,
) -> "ResultSet":
    """Run systems on tasks, every seed and fold, and return the results of these cells.

    Each cell leaves a record and its predictions below `out`. Finished cells are not run again, and an interrupted call
    is resumed by the same call.

    Args:
        system: what to evaluate: a registered name; an encoder, which is a class with `embedding_size` that turns
            waveforms (batch, samples) into embeddings (batch, embedding_size); a class derived from `System`; one of
            these with its settings, `(MyEncoder, {"width": 128})`; or a list of them. A class of a notebook or script is
            known by its source: edit it, and it is another system.
        tasks: a task, or a list; name or name@variant.
        suite: every prepared task of a suite too, such as "open" or "lape".
        data: "real", or "synthetic" for the generated version of each task.
        protocol: "finetune", "linear", "mlp", "knn", or a list; None: each system's first. A system skips protocols that it
            does not have, unless it has none of them.
        label_fractions: shares of the train labels, in (0, 1]; without it and `shots`, all labels.
        shots: numbers of labels a class.
        validation_labels: "budget": what is selected is selected on labels of the budget; "all": on a fully labeled
            validation set beside it.
        seeds: how many, from 0.
        fold: the one fold to run; None: all.
        settings: of every system, nested, such as `{"finetune": {"epochs": 12}}`.
        out: folder of the records.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "float32" or "bf16".
        threads: CPU threads; None: one a core.
        force: run finished cells again.
        audit: also note what published shortcuts would have reported.
        keep_model: keep each trained model beside its record, for `predict`.
        jobs: cells at a time, each in a process of its own if there are several.
        progress: True shows it, False does not; None shows bars in a terminal and nothing elsewhere.

    Returns:
        The finished cells. Failed cells and tasks left out are named in its `problems`.

    Raises:
        UserError: an unknown name, setting or device; a task that is not prepared; a protocol or fold that does not
            exist.

    Example:
        >>> import lape_bench as lb
        >>> results = lb.evaluate("log-mel-statistics", tasks="synthetic-sounds", label_fractions=[0.1, 1.0])
        >>> results.leaderboard()[["labels", "system"]].to_dict("list")
        {'labels': ['10%', '100%'], 'system': ['log-mel-statistics', 'log-mel-statistics']}
        >>> results.problems
        []
    """
    from lape_bench.evaluation.runner import RunOptions
    from lape_bench.runtime.device import Compute, torch_settings_restored
    from lape_bench.sweep.local_engine import LocalEngine

    chosen = choose_tasks(_as_list(tasks), suite, data)
    systems = _named(system, settings or {})
    _check_jobs(jobs, [name for name, _ in systems])
    show = Progress(quiet=not progress)
    if progress is None and show.console.is_terminal:
        show = Progress()
    with torch_settings_restored():
        items = plan_items(
            systems,
            chosen.names,
            _as_list(protocol or ()),
            label_budgets(_as_list(label_fractions), _as_list(shots), validation_labels),
            seeds,
            fold,
            show,
        )
        compute = Compute(device=device, precision=precision, threads=threads)
        options = RunOptions(
            out=Path(out), compute=compute, force=force, audit=audit, keep_model=keep_model
        )
        run = run_items(items, options, LocalEngine(jobs), show)
    return run.results([*chosen.left_out, *run.failures])


@dataclass(frozen=True)
class ChosenTasks:
    """The tasks to run.

    Attributes:
        names: each once.
        left_out: a line for each task of the suite that cannot be run, and why.
    """

    names: list[str]
    left_out: list[str] = field(default_factory=list)


def choose_tasks(named: Sequence[str], suite: str | None, data: str) -> ChosenTasks:
    """Return the tasks that were named, and those of a suite that are prepared.

    Raises:
        UserError: an unknown task or suite or kind of data; no task at all, or none that is prepared.
    """
    if data not in (kinds := ("real", "synthetic")):
        raise unknown("kind of data", data, kinds)
    from lape_bench.data.manifest import load_manifest  # pandas

    if not named and suite is None:
        raise UserError("no task is given", next_step="name one, such as synthetic-sounds")
    in_suite = suite_tasks(suite) if suite else []
    left_out = [f"left out: {problem}" for problem in all_cards()[1]] if suite else []
    if data == "synthetic":
        return ChosenTasks(list(dict.fromkeys(map(synthetic, [*named, *in_suite]))), left_out)
    ready, missing = [], []
    for name in in_suite:
        card = load_card(name)
        try:
            if card.data == "real":
                load_manifest(card)
            ready.append(name)
        except UserError as error:
            missing.append(name)
            if manifest_path(name).is_file():  # of another version of the card, or damaged
                left_out.append(f"left out: {error}")
    if missing:
        left_out.append(f"left out, not prepared: {', '.join(missing)}")
    if not named and not ready:
        raise UserError(
            f"no task of the suite '{suite}' is prepared",
            next_step="'bench data status' says what is on disk; or try its synthetic version, --data synthetic or data='synthetic'",
        )
    return ChosenTasks(list(dict.fromkeys([*named, *ready])), left_out)


def plan_items(
    systems: Sequence[tuple[str, dict[str, Any]]],
    tasks: Sequence[str],
    protocols: Sequence[str],
    labels: Sequence[str],
    seeds: int,
    fold: int | None,
    progress: Progress,
) -> "list[PlannedItem]":
    """Plan every cell, so that a mistake is reported before the first one runs.

    Raises:
        UserError: see `evaluate`.
    """
    from lape_bench.evaluation.plan import expand_grid, resolve
    from lape_bench.sweep.grid import PlannedItem

    if seeds < 1:
        raise UserError(f"the number of seeds is {seeds}", allowed="1 or more")
    cells = expand_grid(systems, tasks, protocols, labels, seeds, fold)
    return [PlannedItem(resolve(cell, progress).planned) for cell in cells]


@dataclass
class CompletedRun:
    """What became of cells.

    Attributes:
        records: of the finished cells, each with its folder.
        failures: a line for each other cell, and why.
    """

    records: "list[tuple[Path, RunRecord]]" = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def results(self, problems: Iterable[str] = ()) -> "ResultSet":
        """Return the results of the finished cells; `problems` are named beside them."""
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
        options: how they are run.
        engine: runs them, here or elsewhere.
        progress: shows how far they are.
        on_record: called with the record of each cell that finishes.
        on_failure: called with a line for each cell that does not, and why.

    Raises:
        UserError: this machine lacks the device, or torchrun started several processes.
    """
    from lape_bench.records.record import cell_folder
    from lape_bench.runtime import distributed
    from lape_bench.sweep.engine import run_cells
    from lape_bench.sweep.run_cell import is_finished

    if distributed.is_distributed():
        raise UserError(
            "torchrun started several processes, and a cell is run by one",
            next_step="pre-train with 'torchrun --no-python bench pretrain', then run without it; cells side by side: bench "
            "sweep --jobs",
        )
    if engine.jobs is not None:  # on this machine: a device that it lacks ends the run
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


def _as_list(value: Any) -> list[Any]:
    """Return one value as a list of it, and several as they are."""
    return [value] if isinstance(value, str | int | float) else list(value)


def _named(
    system: SystemLike | Sequence[SystemLike], settings: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return each system's name and settings; classes are registered by their names.

    Raises:
        UserError: something is not a system, or two classes have one name.
    """
    several = isinstance(system, Sequence) and not isinstance(system, str)
    given: Any = system if several and not _has_settings(system) else [system]
    systems: list[tuple[str, dict[str, Any]]] = []
    classes: dict[str, type] = {}
    for one in given:
        kind, own = one if _has_settings(one) else (one, {})
        if not isinstance(kind, str | type):
            raise UserError(
                f"{kind!r} is not a system",
                allowed="a name, an encoder class, a System class, or one of them with settings: (MyEncoder, {'width': 64})",
                next_step="give the class itself, not an instance of it",
            )
        name = kind if isinstance(kind, str) else SYSTEMS.register_class(kind)
        if isinstance(kind, type) and classes.setdefault(name, kind) is not kind:
            raise UserError(f"two classes are called {name}", next_step="rename one of them")
        systems.append((name, merge(settings, own)))
    if not systems:
        raise UserError("no system is given", next_step="name one; list_systems() lists them")
    return systems


def _has_settings(system: Any) -> bool:
    """Tell whether something is a system with its settings, such as `(MyEncoder, {"width": 128})`."""
    return isinstance(system, tuple) and len(system) == 2 and isinstance(system[1], Mapping)


def _check_jobs(jobs: int, systems: Iterable[str]) -> None:
    if jobs < 1:
        raise UserError(f"jobs is {jobs}", allowed="1 or more")
    for name in systems:
        if jobs > 1 and SYSTEMS.is_class(name):
            raise UserError(
                f"{name} is a class that only this process knows, and jobs={jobs} starts others",
                next_step=f"leave jobs out, or put the class into a file and name it 'file.py:{name}'",
            )
