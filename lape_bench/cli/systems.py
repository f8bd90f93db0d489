"""`bench systems`: what can be run."""

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
)
from lape_bench.config import apply_pairs, describe
from lape_bench.errors import UserError
from lape_bench.progress import Progress
from lape_bench.registry import SYSTEMS

app = typer.Typer(
    help="List the systems, show the settings of one, or check it against the contract.",
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
    """Show what a system is, its protocols, and its settings with their defaults."""
    from lape_bench.runner import load_system

    kind = load_system(system)
    print(f"{system}, version {kind.version}: {SYSTEMS.summary(system)}")
    print(f"protocols: {', '.join(kind.protocols)} (the first is the default)\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("what it is", overflow="fold")
    for row in describe(kind.Settings):
        table.add_row(*row)
    print_table(table)


@app.command("check", epilog="Example: bench systems check supervised --set width=256")
def check(
    system: SystemName,
    settings: Settings = None,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Hold a system against the contract, on a few synthetic clips; exit code 1 if it fails."""
    from lape_bench.check import check_system
    from lape_bench.device import Compute

    compute = Compute(device=device, precision=precision, threads=threads)
    failed = 0
    for result in check_system(system, apply_pairs(settings or []), compute, Progress(quiet)):
        failed += not result.holds
        mark = "ok    " if result.holds else "FAILS "
        print(f"{mark}{result.protocol}: {result.claim}", flush=True)
        if result.detail:
            print(f"      {result.detail}")
    if failed:
        print(f"{system}: {failed} of the contract's claims do not hold")
        raise typer.Exit(1)
    print(f"{system} keeps the contract")
