"""`bench verify`, `bench merge` and `bench pack`: check records, and merge or pack folders of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lape_bench.cli.options import Quiet, start_progress
from lape_bench.core.errors import UserError
from lape_bench.core.printable import printable

app = typer.Typer()


@app.command(epilog="Example: bench verify results --strict")
def verify(
    results: Annotated[list[Path], typer.Argument(help="Folders of records.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for outdated records too.")
    ] = False,
) -> None:
    """Recompute every score from its predictions, and compare records with the installed tasks and systems.

    A record is wrong (exit code 1) if it was edited, or if its identity, predictions, scores or test clips do not match.
    A record is outdated if a run today could give another result: card, manifest, system or protocol have another
    version, or the code differed from its commit. A record is doubtful if another one has the same predictions.
    Code that a record names is never run. Records are not signed: someone who can write them can also forge them.
    """
    from lape_bench.evaluation.plan import version_if_installed
    from lape_bench.results.verify import UNCHECKED
    from lape_bench.results.verify import verify as verified

    wrong = outdated = 0
    for out in results:
        if not out.is_dir():
            raise UserError(f"there is no folder {out}", allowed="a folder of records")
        seen = verified(out, version_if_installed)
        for line in seen.unlisted:
            print(f"not searched: {line}", file=sys.stderr)
        if not seen.finished + seen.failed + len(seen.findings):
            raise UserError(f"{out} holds no record", next_step="check the path")
        groups: dict[tuple[str, str], list[Path]] = {}
        for finding in seen.findings:
            groups.setdefault((finding.grade, finding.what), []).append(finding.folder)
        for (grade, what), folders in groups.items():
            others = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
            print(printable(f"{grade}: {folders[0]}{others}: {what}"))
        counts = {
            grade: len({finding.folder for finding in seen.findings if finding.grade == grade})
            for grade in ("wrong", "outdated", "doubtful")
        }
        doubtful = f", {counts['doubtful']} doubtful" if counts["doubtful"] else ""
        print(
            f"{out}: {seen.finished} finished and {seen.failed} failed records; "
            f"{counts['wrong'] or 'none'} wrong, {counts['outdated'] or 'none'} outdated{doubtful}"
        )
        if seen.finished:
            print(f"not checked, since nothing can confirm them: {', '.join(UNCHECKED)}")
        if seen.versions_not_compared:
            systems = printable(", ".join(seen.versions_not_compared))
            print(f"version not compared, since their code would have to be run: {systems}")
        if seen.not_compared:
            tasks = ", ".join(seen.not_compared)
            print(
                printable(
                    f"test clips not checked, since these tasks are not prepared here: {tasks}"
                )
            )
        wrong, outdated = wrong + counts["wrong"], outdated + counts["outdated"]
    if wrong or (strict and outdated):
        raise typer.Exit(1)


@app.command(epilog="Example: bench merge results machine-a/results machine-b/results")
def merge(
    into: Annotated[Path, typer.Argument(help="The folder that receives the records.")],
    sources: Annotated[list[Path], typer.Argument(help="Folders of records to copy from.")],
    quiet: Quiet = False,
) -> None:
    """Copy the records of several machines into one folder. Finished records are never overwritten."""
    from lape_bench.results.merge import merge as merged

    progress = start_progress(quiet)
    with progress.task("merging", None, "records") as task:
        result = merged(into, sources, task.advance)
    for line in result.left_out:
        print(f"left out: {printable(line)}", file=sys.stderr)
    print(
        f"{into}: {len(result.taken)} records taken, {len(result.there)} there before, "
        f"{len(result.left_out)} left out"
    )
    if result.left_out:
        raise typer.Exit(1)


@app.command(epilog="Example: bench pack results --into my-packs")
def pack(
    sources: Annotated[list[Path], typer.Argument(help="Folders of records or packs.")],
    into: Annotated[Path, typer.Option(help="Folder of the packs.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task, or name@variant; may be repeated.")
    ] = None,
) -> None:
    """Pack the finished records of each task into one small file that reports read like a folder of records.

    A pack holds the records without learning curves and, for each test clip, the predicted class and the probability of
    the true class. Records that are wrong or outdated are left out. A pack of the same task is replaced; to add to it,
    name its folder as a source too.
    """
    from lape_bench.evaluation.plan import version_if_installed
    from lape_bench.results.pack import pack as packed

    result = packed(sources, into, task or [], version_if_installed)
    for line in result.left_out:
        print(f"left out: {printable(line)}", file=sys.stderr)
    for path, cells in result.packs.items():
        size = path.stat().st_size
        print(f"{path}: {cells:,} cells, {size:,} bytes, {size / cells:,.0f} per cell")
