"""`bench systems`: list, show, check and create systems."""

import shlex
import textwrap
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lape_bench.cli.options import (
    Device,
    PrecisionName,
    Quiet,
    Settings,
    SystemName,
    Threads,
    print_table,
    start_progress,
)
from lape_bench.conformance.claims import ClaimResult
from lape_bench.core.config import apply_pairs, as_pairs, describe
from lape_bench.core.errors import UserError
from lape_bench.plugins.registry import SYSTEMS

app = typer.Typer(
    help="List systems, show or check one, or create a package for a new one.",
    epilog="Example: bench systems show supervised",
)


@app.callback(invoke_without_command=True)
def _systems(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("system", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name in SYSTEMS.names():
        try:
            table.add_row(name, SYSTEMS.summary(name))
        except UserError as error:
            table.add_row(name, f"({error})")
    print_table(table)


@app.command("show", epilog="Example: bench systems show supervised")
def show_system(system: SystemName) -> None:
    """Show the protocols of a system, its settings with their defaults, and its presets."""
    from lape_bench.evaluation.plan import load_system

    kind = load_system(system)
    summary = SYSTEMS.summary(system)
    print(f"{system}, version {kind.version}" + (f": {summary}" if summary else ""))
    print(f"protocols: {', '.join(kind.protocols)} (the first is the default)\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("what it is", overflow="fold")
    for row in describe(kind.Settings):
        table.add_row(*row)
    print_table(table)
    for preset, settings in kind.presets.items():
        print(f"\npreset {preset}: {', '.join(as_pairs(settings))}")


@app.command("check", epilog="Example: bench systems check supervised --set width=256")
def check(
    system: SystemName,
    settings: Settings = None,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Test a system against the contract on a few generated clips. The exit code is 1 if it fails."""
    from lape_bench.conformance.check import check_system
    from lape_bench.runtime.device import Compute

    compute = Compute(device=device, precision=precision, threads=threads)
    group = ""
    outcomes: Counter[str] = Counter()
    for result in check_system(system, apply_pairs(settings or []), compute, start_progress(quiet)):
        if result.group != group:
            group = result.group
            print(group)
        print(_in_lines(result), flush=True)
        outcomes[result.status] += 1
    skipped = f"; claims not tried here: {outcomes['skipped']}" if outcomes["skipped"] else ""
    if outcomes["FAILS"]:
        print(f"{system}: {outcomes['FAILS']} of the contract's claims do not hold{skipped}")
        raise typer.Exit(1)
    print(f"{system} keeps the contract{skipped}")


def _in_lines(result: ClaimResult) -> str:
    """Lay out a claim and its result. A failure gets lines of its own."""
    lines = [f"{result.claim}: {result.detail}" if result.detail else result.claim]
    if result.status in ("FAILS", "skipped"):
        lines = [result.claim, result.detail]
    mark = f"  {result.status:<9}"
    wrap = textwrap.TextWrapper(80 - len(mark), break_long_words=False, break_on_hyphens=False).wrap
    return mark + f"\n{' ' * len(mark)}".join(line for text in lines for line in wrap(text))


@app.command("new", epilog="Example: bench systems new my-encoder")
def new_system(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the system and its package.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
) -> None:
    """Write a small package with an encoder, its settings, a test, and the entry point that registers it."""
    from lape_bench.plugins import scaffold

    folder = scaffold.new_system(name, out)
    print(f"{name}: {folder}, with the encoder in {next(folder.rglob('system.py'))}")
    print(f"next: pip install -e {shlex.quote(str(folder))}")
    print(f"      bench systems check {name}")
    print(f"      bench run --system {name} --task synthetic-sounds")
