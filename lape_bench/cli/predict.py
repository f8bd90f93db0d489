"""`bench predict`: classify audio files with the model of a run."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lape_bench.cli.options import Device, PrecisionName, Quiet, Threads
from lape_bench.core.errors import unknown

app = typer.Typer()


@app.command(
    epilog="Example: bench predict results/esc10/supervised/finetune-1-seed0-fold1-1a2b3c4d *.wav"
)
def predict(
    model: Annotated[
        Path, typer.Argument(help="The folder of a cell that was run with --keep-model.")
    ],
    files: Annotated[list[Path], typer.Argument(help="Audio files with any sample rate.")],
    format: Annotated[str, typer.Option(help="csv or json.")] = "csv",
    all_classes: Annotated[
        bool, typer.Option("--all-classes", help="Print the probability of every class.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Use the model even if the code has changed since.")
    ] = False,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Print the most likely class of each audio file, and its probability, in [0, 1].

    If a file cannot be read, the others are still classified, and the exit code is 1.
    """
    if format not in (formats := ("csv", "json")):
        raise unknown("format", format, formats)
    from lape_bench.evaluation import kept_model

    table = kept_model.predict(
        model,
        files,
        all_classes=all_classes,
        device=device,
        precision=precision,
        threads=threads,
        force=force,
        progress=not quiet,
    )
    unreadable = table[table["problem"].notna()]
    table = table[table["problem"].isna()].drop(columns="problem")
    if format == "csv":
        print(table.to_csv(index=False, float_format="%.6f"), end="")
    else:
        print(json.dumps(table.to_dict("records"), indent=2, ensure_ascii=False))
    for row in unreadable.itertuples():
        print(f"left out: {row.file}: {row.problem}", file=sys.stderr)
    if len(unreadable):
        raise typer.Exit(1)
