"""Evaluate systems on tasks from Python, as `bench run` does on the command line.

This file is not `lape_bench/evaluate.py`, since importing such a module would hide the function `lape_bench.evaluate`.

torch and pandas are imported when a cell runs and not when this module is imported.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lape_bench.api.choose_tasks import choose_tasks
from lape_bench.api.run_items import label_items, plan_items, run_items
from lape_bench.core.config import merge
from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import ValidationLabels, label_budgets
from lape_bench.core.progress import Progress
from lape_bench.plugins.registry import SYSTEMS

if TYPE_CHECKING:
    from lape_bench.api.result_set import ResultSet

SystemLike = str | type | tuple[str | type, Mapping[str, Any]]
"""A system's name, an encoder or System class, or one of these with settings."""


def list_systems() -> list[str]:
    """Return the names of all systems that installed packages register.

    Some take an argument after a colon, such as `hf:NAME`. A class in a file needs no registration:
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
    preset: str = "",
    settings: Mapping[str, Any] | None = None,
    label: str = "",
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
    """Run systems on tasks, with every seed and fold, and return the results of these cells.

    The record and predictions of each cell are written below `out`. Finished cells are not run again. If a call is
    interrupted, the same call resumes it.

    Args:
        system: what to evaluate: a registered name; an encoder, which is a class with `embedding_size` that turns
            waveforms (batch, samples) into embeddings (batch, embedding_size); a class derived from `System`; one of
            these with its settings, `(MyEncoder, {"width": 128})`; or a list of them. A class from a notebook or script
            is identified by its source: if you edit it, its cells run again.
        tasks: a task, or a list; name or name@variant.
        suite: also run every prepared task of a suite, such as "open" or "lape".
        data: "real", or "synthetic" for the generated version of each task.
        protocol: "finetune", "linear", "mlp", "knn", or a list; None: the first protocol of each system. A system skips
            protocols that it does not support, unless it supports none of them.
        label_fractions: shares of the train labels, in (0, 1]; all labels if `shots` is absent too.
        shots: numbers of labels per class.
        validation_labels: "budget": selection uses labels of the budget; "all": it uses a fully labeled validation set.
        seeds: number of seeds, counted from 0.
        fold: the only fold to run; None: all folds.
        preset: a named set of settings of every system, such as "paper" of `unfused`; `settings` change it.
        settings: settings of every system, as a nested dictionary such as `{"finetune": {"epochs": 12}}`.
        label: what to call the system in reports; empty: its name and settings.
        out: folder of the records.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "float32" or "bf16".
        threads: CPU threads; None: one per core.
        force: run finished cells again.
        audit: also record what published shortcuts would have reported.
        keep_model: keep each trained model beside its record, for `predict`.
        jobs: number of cells that run at the same time, each in its own process if there are several. These processes import
            the script that calls `evaluate`, so a script needs `if __name__ == "__main__":` around the call.
        progress: whether to show progress; None: show it in a terminal only.

    Returns:
        The results of the finished cells. Failed cells and omitted tasks are named in `problems`.

    Raises:
        UserError: a name, setting or device is unknown, an argument has a value of another type, a task is not
            prepared, or a protocol or fold does not exist.

    Example:
        >>> import lape_bench as lb
        >>> results = lb.evaluate("log-mel-statistics", tasks="synthetic-sounds", label_fractions=[0.1, 1.0])
        >>> results.leaderboard()[["labels", "system"]].to_dict("list")
        {'labels': ['10%', '100%'], 'system': ['log-mel-statistics', 'log-mel-statistics']}
        >>> results.problems
        []
    """
    from lape_bench.evaluation.plan import with_preset
    from lape_bench.evaluation.run_options import RunOptions
    from lape_bench.runtime.device import Compute, torch_settings_restored
    from lape_bench.sweep.local_engine import LocalEngine

    out = Path(out).expanduser()
    seeds, jobs = _at_least_1("the number of seeds", seeds), _at_least_1("jobs", jobs)
    fold = None if fold is None else _whole_number("fold", fold)
    threads = None if threads is None else _at_least_1("threads", threads)
    chosen = choose_tasks(_as_list(tasks), suite, data)
    systems = [
        (name, with_preset(name, preset, given)) for name, given in _named(system, settings or {})
    ]
    _refuse_local_classes(jobs, [name for name, _ in systems])
    show = Progress(quiet=not progress)
    if progress is None and show.console.is_terminal:
        show = Progress()
    with torch_settings_restored():
        items = plan_items(
            systems,
            chosen.names,
            _as_list(protocol),
            label_budgets(_as_list(label_fractions), _as_list(shots), validation_labels),
            seeds,
            fold,
            show,
        )
        items = label_items(items, label, out)
        compute = Compute(device=device, precision=precision, threads=threads)
        options = RunOptions(
            out=out, compute=compute, force=force, audit=audit, keep_model=keep_model
        )
        run = run_items(items, options, LocalEngine(jobs), show)
    return run.results([*chosen.left_out, *run.failures])


def _as_list(value: Any) -> list[Any]:
    """Return several values as a list, a single value as a list of one, and None as an empty list."""
    if value is None:
        return []
    is_several = isinstance(value, Iterable) and not isinstance(value, str)
    return list(value) if is_several else [value]


def _whole_number(name: str, value: Any) -> int:
    """Return an argument as an int; NumPy's are accepted too.

    Raises:
        UserError: it is not a whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} is {value!r}", allowed="a whole number") from None


def _at_least_1(name: str, value: Any) -> int:
    number = _whole_number(name, value)
    if number < 1:
        raise UserError(f"{name} is {number}", allowed="1 or more")
    return number


def _named(
    system: SystemLike | Sequence[SystemLike], settings: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return each system's name and settings, and register classes under their names.

    Raises:
        UserError: a value is not a system, two classes have the same name, or the settings are not a dictionary.
    """
    if not isinstance(settings, Mapping):
        raise UserError(
            f"settings is {settings!r}", allowed="a nested dictionary: {'finetune': {'epochs': 12}}"
        )
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
            raise UserError(f"two classes have the name {name}", next_step="rename one of them")
        systems.append((name, merge(settings, own)))
    if not systems:
        raise UserError("no system is given", next_step="name one; list_systems() lists them")
    return systems


def _has_settings(system: Any) -> bool:
    """Return True if a value is a system with its settings, such as `(MyEncoder, {"width": 128})`."""
    return isinstance(system, tuple) and len(system) == 2 and isinstance(system[1], Mapping)


def _refuse_local_classes(jobs: int, systems: Iterable[str]) -> None:
    """Raise a `UserError` if several processes are asked for and one of the systems is a class of this process."""
    for name in systems:
        if jobs > 1 and SYSTEMS.is_class(name):
            raise UserError(
                f"{name} is a class that only this process knows, but jobs={jobs} starts other processes",
                next_step=f"leave out jobs, or put the class into a file and name it 'file.py:{name}'",
            )
