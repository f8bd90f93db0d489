"""`bench data`: fetch, prepare and verify the recordings of a task."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lape_bench.cli.options import Quiet, TaskName, Verbose, print_table, start_progress
from lape_bench.core.errors import UserError
from lape_bench.core.paths import home, manifest_path, write_text
from lape_bench.data.catalog import all_cards, load_card, published_lock
from lape_bench.task import TaskCard

if TYPE_CHECKING:
    from lape_bench.data.manifest import SkippedClip

MOST_SKIPPED = 10  # clips that are listed on the screen
MOST_PATHS = 20  # kept files that are listed on the screen
logger = logging.getLogger(__name__)

app = typer.Typer(
    help="Fetch, prepare and verify the recordings of a task.",
    epilog="Example: bench data prepare esc10",
    no_args_is_help=True,
)


@app.command(epilog="Example: bench data prepare us8k --from UrbanSound8K.tar.gz")
def prepare(
    task: TaskName,
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", help="An archive or folder with the recordings; may be repeated."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out clips that cannot be used.")
    ] = False,
    delete_archives: Annotated[
        bool,
        typer.Option("--delete-archives", help="Delete downloaded archives after unpacking."),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Decode and check the recordings of a task and its variants."""
    from lape_bench.data.prepare import prepare as prepare_task
    from lape_bench.data.sources import archives
    from lape_bench.data.verify import differences

    card = _base_card(task)
    progress = start_progress(quiet, verbose)
    for manifest in prepare_task(card, source, progress, skip_bad):
        info = manifest.info
        own_card = card.with_variant(info.variant)
        hours = manifest.clips["seconds"].sum() / 3600
        print(
            f"{own_card.reference}: {len(manifest):,} clips, {hours:.2f} h, manifest {manifest.hash[:12]}"
            + (f", {len(info.skipped)} skipped" if info.skipped else "")
        )
        _list_skipped(own_card.reference, info.skipped)
        for difference in differences(own_card, manifest):
            print(f"  differs from the card: {difference}")
    if delete_archives:
        deleted = archives.delete_unpacked(card)
        print(f"deleted {deleted.bytes / 2**20:,.0f} MiB of archives")
        for name, reason in deleted.kept:
            print(f"  kept {name}: {reason}")


def _list_skipped(reference: str, skipped: "Sequence[SkippedClip]") -> None:
    """Show the first skipped clips, and write a list of all of them beside the manifest."""
    file = manifest_path(reference).with_suffix(".skipped.tsv")
    if not skipped:
        file.unlink(missing_ok=True)
        return
    lines = [f"{clip.clip_id}\t{clip.reason}\n" for clip in skipped]
    write_text(file, "clip_id\treason\n" + "".join(lines))
    for clip in skipped[:MOST_SKIPPED]:
        logger.info(f"skipped {clip.clip_id}: {clip.reason}")
    if len(skipped) > MOST_SKIPPED:
        logger.info(f"skipped {len(skipped):,} clips in all; {file} lists them")


@app.command(epilog="Example: bench data fetch esc10 && bench data prepare esc10")
def fetch(
    task: TaskName,
    parallel: Annotated[
        int, typer.Option(min=1, help="Number of files to download at a time.")
    ] = 4,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Download the recordings of a task, if their owners allow it.

    Interrupted downloads are resumed. If nobody published a checksum, the one of the first download is stored, and
    later downloads must match it.
    """
    from lape_bench.data.sources.fetch import fetch as fetch_task

    card = _base_card(task)
    progress = start_progress(quiet, verbose)
    try:
        paths = fetch_task(card, parallel, progress)
    except KeyboardInterrupt:
        print("stopped; the same command resumes it", file=sys.stderr)
        raise typer.Exit(130) from None
    for path in paths if len(paths) <= MOST_PATHS else [paths[0].parent]:
        print(path)
    logger.info(f"next: {card.obtain or f'bench data prepare {card.name}'}")


@app.command(epilog="Example: bench data verify asc-keywords --deep")
def verify(
    task: TaskName,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every file again.")] = False,
    lock: Annotated[
        Path | None,
        typer.Option(help="A lock file that the split must match; default: the lock of the card."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare a prepared task with its card, split and files. The exit code is 1 if they do not match."""
    from lape_bench.data import split_lock as locks
    from lape_bench.data.inventory import note_verified
    from lape_bench.data.manifest import load_manifest
    from lape_bench.data.verify import verify as verify_task

    card = load_card(task)
    manifest = load_manifest(card)
    findings = verify_task(card, manifest, deep, start_progress(quiet))
    lock = lock or published_lock(card)
    if lock is not None:
        findings.append(locks.compare(manifest, lock))
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = Text("ok", "green") if finding.holds else Text("FAILS", "red")
        table.add_row(mark, finding.what, finding.detail)
    print_table(table)
    print(f"{card.reference}, from {manifest.info.source}")
    print(f"manifest {manifest.hash}")
    if not all(finding.holds for finding in findings):
        raise typer.Exit(1)
    note_verified(manifest)


@app.command(epilog="Example: bench data lock asc-keywords --out asc-keywords.lock.csv")
def lock(
    task: TaskName,
    out: Annotated[Path | None, typer.Option(help="File to write; default: the screen.")] = None,
) -> None:
    """Write the split of a prepared task to a file: ID, label, side and fold of each clip, and the hash of the
    manifest.

    With this file others can check that they have the same split: 'bench data verify TASK --lock FILE'.
    """
    from lape_bench.core.paths import write_text
    from lape_bench.data import split_lock as locks
    from lape_bench.data.manifest import load_manifest

    text = locks.as_text(load_manifest(load_card(task)))
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


@app.command(epilog="Example: bench data status")
def status() -> None:
    """Show what is on disk for each task: missing, fetched, prepared or verified, with size and license."""
    from lape_bench.data.inventory import DiskUsage, disk_usage, measure

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("MiB", justify="right")
    table.add_column("license", overflow="fold")
    cards, problems = all_cards()
    usages: dict[str, DiskUsage] = {}
    for card in cards:
        try:
            usages[card.name] = disk_usage(card)
        except UserError as problem:
            problems.append(problem)
    each, total = measure(list(usages.values()))
    licenses = {card.name: card.license for card in cards}
    for (name, usage), size in zip(usages.items(), each, strict=True):
        table.add_row(name, usage.state, f"{size / 2**20:,.0f}", licenses[name])
    print_table(table)
    print(
        f"{total / 2**20:,.0f} MiB in {home()}; files that tasks share are counted for each of them"
    )
    for error in problems:
        print(f"left out: {error}", file=sys.stderr)


def _base_card(task: str) -> TaskCard:
    card = load_card(task)
    if card.variant:
        raise UserError(
            f"'{task}' names a variant; all variants of a task are prepared together",
            next_step=f"give '{card.name}'",
        )
    return card
