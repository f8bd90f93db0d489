"""The command `bench`, with all its subcommands.

This room only parses options and calls the other rooms. Modules that import torch or pandas are imported inside the
commands that need them, so that `bench --help`, `bench tasks` and `bench systems` are fast.
"""

import os
import sys
from importlib.metadata import version as installed_version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from lape_bench.cli import (
    artifacts,
    comparisons,
    data,
    demo,
    evaluate,
    figures,
    overview,
    power,
    predict,
    reports,
    results,
    runs,
    submissions,
    systems,
    tasks,
)
from lape_bench.core.errors import FULL_DISK, UserError

app = typer.Typer(
    name="bench",
    help="Evaluate audio encoders on classification tasks with few labels, under one protocol.",
    epilog="Example: bench demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for commands in (
    demo,
    evaluate,
    runs,
    reports,
    overview,
    comparisons,
    power,
    figures,
    results,
    predict,
):
    app.add_typer(commands.app)
for group in (data, tasks, systems, submissions, artifacts):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


def main() -> None:
    """Run `bench`. A user's mistake ends in one line and exit code 2."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A character that the locale lacks, such as the plus-minus sign in ASCII, is written as an escape.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app([*map(_with_home, sys.argv[1:])])
        finally:
            if sys.stdout is not None:  # it was not closed before the start
                # Here, since an error at the interpreter's end could not be reported.
                sys.stdout.flush()
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:
        place = error.filename or "a file"
        print(f"bench: {place}: permission denied. Ask its owner.", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        message = "bench: the disk is full. Free some space, or write the output elsewhere."
        print(message, file=sys.stderr)
        _drop_output()
        sys.exit(2)


def _with_home(argument: str) -> str:
    """Replace `~` in an option such as `--out=~/results`. Shells do so only if `~` begins a word."""
    option, equals, value = argument.partition("=")
    if option.startswith("--") and (value == "~" or value.startswith("~/")):
        return f"{option}{equals}{Path(value).expanduser()}"
    return argument


def _drop_output() -> None:
    """Discard unwritten output, since the interpreter would try to write it again when it ends, and fail again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lape_bench {installed_version('lape_bench')}")
        raise typer.Exit


@app.callback()
def _bench(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
