"""Options that several commands share, and how a table is printed."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import label_budgets
from lape_bench.core.paths import remove_leftovers
from lape_bench.core.progress import Progress, show_messages

Number = TypeVar("Number", int, float)
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every epoch and stage.")]
Out = Annotated[Path, typer.Option(help="Folder of the records.")]
Sources = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of records, or a CSV of cells; may be repeated."),
]
Reference = Annotated[
    bool,
    typer.Option("--reference", help="Add the reference results that come with lape_bench."),
]
Submissions = Annotated[
    Path | None,
    typer.Option(
        help="Add the submissions in this folder, such as results/submissions of the repository."
    ),
]
ChosenSystems = Annotated[
    list[str] | None,
    typer.Option(
        "--system", help="Only this system, as named on the leaderboard; may be repeated."
    ),
]
LabelFractions = Annotated[
    str | None,
    typer.Option(help="Share of each class's labels, such as 0.1 or 0.01,0.1,1; default: all."),
]
Shots = Annotated[str | None, typer.Option(help="Labels per class, such as 5 or 1,5,10.")]
ValidationLabelsOption = Annotated[
    str,
    typer.Option(
        "--validation-labels",
        help="budget: select on labels of the budget; all: select on a fully labeled validation set.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the system: key=value, dots for nested keys."),
]
Preset = Annotated[
    str,
    typer.Option(
        help="A named set of settings, which --set changes; 'bench systems show' lists them."
    ),
]
Label = Annotated[
    str, typer.Option(help="Name of the system in reports; default: its name and settings.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionName = Annotated[str, typer.Option("--precision", help="auto, float32 or bf16.")]
Force = Annotated[bool, typer.Option("--force", help="Run finished cells again.")]
Audit = Annotated[
    bool, typer.Option("--audit", help="Also record what common shortcuts would have reported.")
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard",
        help="Also write learning curves as event files of TensorBoard into this folder.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=4096, help="CPU threads; default: all cores.")
]
SharedProtocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="finetune, linear, mlp or knn; default: the one that both systems were run with.",
    ),
]
SharedLabels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Label budget, such as 10% or 5-shot; default: the one that both systems have.",
    ),
]
SharedData = Annotated[
    str | None,
    typer.Option("--data", help="real or synthetic; default: the one that both systems have."),
]
Records = Annotated[
    list[Path] | None, typer.Option("--out", help="Folder of records; may be repeated.")
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task; 'bench tasks' lists them.")]
SystemName = Annotated[
    str, typer.Argument(metavar="SYSTEM", help="A system; 'bench systems' lists them.")
]


def given_budgets(
    label_fraction: str | None, shots: str | None, validation_labels: str
) -> list[str]:
    """Return the label budgets that the options name.

    Raises:
        UserError: a value is not a number, or is out of range.
    """
    return label_budgets(
        _numbers("--label-fraction", label_fraction, float),
        _numbers("--shots", shots, int),
        validation_labels,  # type: ignore[arg-type]  # checked there
    )


def _numbers(option: str, text: str | None, kind: Callable[[str], Number]) -> list[Number]:
    """Read numbers that are separated by commas."""
    try:
        return [kind(part) for part in text.split(",")] if text is not None else []
    except ValueError as error:
        raise UserError(
            f"{option} is '{text}'", allowed="a number, or several numbers separated by commas"
        ) from error


def start_progress(quiet: bool, verbose: bool = False) -> Progress:
    """Return the progress bars of a command, print log messages above them, and remove unfinished files of killed
    commands.
    """
    remove_leftovers()
    progress = Progress(quiet)
    show_messages(progress, verbose)
    return progress


def print_table(table: Any) -> None:
    """Print a table. It is not folded if the output is not a screen."""
    # Without markup, since brackets hold text such as [synthetic].
    width = None if Console().is_terminal else 10_000
    Console(width=width, markup=False, highlight=False).print(table)
