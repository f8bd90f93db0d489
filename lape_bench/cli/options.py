"""Options that several commands share, and how a table is printed."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lape_bench.core.paths import remove_leftovers
from lape_bench.core.progress import Progress, show_messages

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every epoch and stage.")]
Out = Annotated[Path, typer.Option(help="Folder of the records.")]
Sources = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of records, or a CSV of cells; may be repeated."),
]
ChosenSystems = Annotated[
    list[str] | None,
    typer.Option("--system", help="Only this one, as the leaderboard names it; may be repeated."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the system: key=value, dots for nested keys."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionName = Annotated[str, typer.Option("--precision", help="auto, float32 or bf16.")]
Force = Annotated[bool, typer.Option("--force", help="Run finished cells again.")]
Audit = Annotated[
    bool, typer.Option("--audit", help="Also note what published shortcuts would report.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=4096, help="CPU threads; default: all cores.")
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task; 'bench tasks' lists them.")]
SystemName = Annotated[
    str, typer.Argument(metavar="SYSTEM", help="A system; 'bench systems' lists them.")
]


def start_progress(quiet: bool, verbose: bool = False) -> Progress:
    """Return the bars of a command, print log messages above them, and remove what killed commands left half."""
    remove_leftovers()
    progress = Progress(quiet)
    show_messages(progress, verbose)
    return progress


def print_table(table: Any) -> None:
    """Print a table, in full where the output is no screen."""
    # Without markup, since what stands in brackets is text of ours, such as [synthetic]. Into a file nothing
    # is folded to the width of a screen.
    width = None if Console().is_terminal else 10_000
    Console(width=width, markup=False, highlight=False).print(table)
