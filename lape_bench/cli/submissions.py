"""`bench submissions`: check results that others propose."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Check results that others propose.",
    epilog="Example: bench submissions check results/submissions",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    pass


@app.command(epilog="Example: bench submissions check results/submissions")
def check(
    folder: Annotated[
        Path, typer.Argument(help="Folder of submissions, each a folder with card.yaml and packs.")
    ] = Path("results/submissions"),
) -> None:
    """Check submissions against their cards, their predictions, the reference results and each other.

    A submission is refused (exit code 1) for each of these reasons: a score or an identity does not follow from its
    records; its predictions are those of another system; its card is missing or does not match its records; a name
    holds markup; a file is a link, too large, or of another kind. Nothing of a submission is run or imported.
    """
    from lape_bench.evaluation.plan import version_if_installed
    from lape_bench.results.reference import reference_folder
    from lape_bench.results.submissions import check_submissions

    results = check_submissions(folder, version_if_installed, [reference_folder()])
    for result in results:
        for line in result.refused:
            print(f"refused: {result.name}: {line}")
        for line in result.remarks:
            print(f"remark: {result.name}: {line}")
    refused = [result for result in results if result.refused]
    for result in results:
        outcome = "refused" if result.refused else "accepted"
        print(f"{result.name}: {outcome}, {result.finished} finished records")
    print(f"{folder}: {len(results)} submissions, {len(refused) or 'none'} refused")
    if refused:
        raise typer.Exit(1)
