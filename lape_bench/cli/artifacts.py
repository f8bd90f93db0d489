"""`bench artifacts`: list and delete cached stages."""

from typing import Annotated

import typer
from rich.table import Table

from lape_bench.cli.options import print_table
from lape_bench.core.errors import unknown

app = typer.Typer(
    help="List or delete cached stages: pre-trained encoders, normalization, embeddings, pseudo-labels, students.",
    epilog="Example: bench artifacts prune --unused-days 30 --dry-run",
    no_args_is_help=True,
)


@app.command("list", epilog="Example: bench artifacts list")
def list_artifacts() -> None:
    """List cached stages, the longest unused first."""
    from lape_bench.runtime import artifacts

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind", no_wrap=True)
    table.add_column("hash", no_wrap=True)
    for heading in ("MiB", "took s", "unused days"):
        table.add_column(heading, justify="right")
    table.add_column("what", overflow="fold")
    total = 0
    for each in artifacts.list_artifacts(artifacts.cache()):
        total += each.bytes
        table.add_row(
            each.kind,
            each.hash[:12],
            f"{each.bytes / 2**20:.1f}",
            f"{each.metadata.seconds:.0f}" if each.metadata else "",
            f"{each.unused_days:.1f}",
            each.about,
        )
    print_table(table)
    print(f"{total / 2**20:.1f} MiB in {artifacts.cache()}")


@app.command("prune", epilog="Example: bench artifacts prune --kind embeddings")
def prune_artifacts(
    unused_days: Annotated[
        float,
        typer.Option(min=0, help="Delete artifacts that have not been used for this many days."),
    ] = 30.0,
    kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted.")] = False,
) -> None:
    """Delete cached stages that no run has used for a while. A later run computes them again."""
    from lape_bench.runtime import artifacts

    everything = list(artifacts.list_artifacts(artifacts.cache()))
    kinds = sorted({each.kind for each in everything})
    if kind is not None and kind not in kinds:
        raise unknown("kind of artifact", kind, kinds)
    chosen = [
        each for each in everything if each.unused_days >= unused_days and kind in (None, each.kind)
    ]
    for each in chosen:
        print(f"{each.kind} {each.hash[:12]} {each.bytes / 2**20:.1f} MiB {each.about}".rstrip())
        if not dry_run:
            artifacts.remove(each)
    size = sum(each.bytes for each in chosen) / 2**20
    done = "would be deleted" if dry_run else "deleted"
    print(f"{len(chosen)} of {len(everything)} {done}, {size:.1f} MiB")
