"""Results from records and from tables of cells, as one table with predictions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.core.errors import UserError, unknown
from lape_bench.records.pack import find_packs, is_pack
from lape_bench.records.record import RunRecord, record_folders
from lape_bench.results.cells import CELL, SOURCES, cells_table, read_cells
from lape_bench.results.scored_cells import (
    CellPredictions,
    ScoredCell,
    score_folders,
    score_pack,
    score_records,
    with_shared_labels,
    without_garbage_collection,
)
from lape_bench.results.system_card import CARD, read_card
from lape_bench.results.system_titles import with_titles
from lape_bench.runtime.cpu_cores import available

PARALLEL_FROM = 4_000  # records; fewer are read before other processes have started
CHUNK = 200  # records that a process is given at a time


@dataclass(frozen=True)
class Results:
    """Everything that reports are made of.

    Attributes:
        cells: one row for each finished cell, with the columns of `results.cells.COLUMNS`.
        predictions: by the index of `cells`; cells that come from a table have none.
        problems: one line for each record that is failed, damaged, unreadable or a duplicate.
    """

    cells: pd.DataFrame
    predictions: dict[int, CellPredictions]
    problems: list[str]


def load_results(sources: Sequence[Path], references: Sequence[Path] = ()) -> Results:
    """Read folders of records, packs of cells, and tables of cells that a report has written.

    If two sources hold the same cell, the later source counts, and a record or a pack counts before a row of a table.
    Within a folder the cell that was finished last counts. Of references only those cells count that no source has.
    If a folder is a submission, its card says what its systems have heard of the test sets.

    Args:
        sources: folders of records or packs, packs, or CSV files of `bench report --format cells`.
        references: folders of packs or records that others ran; their cells are marked in the column `reference`. Later
            ones count before earlier ones.

    Raises:
        UserError: a folder does not exist, or a file is not a table of cells.
    """
    tables = [_read_table(source) for source in sources if source.is_file() and not is_pack(source)]
    packs = [_read_packs([source]) for source in sources if is_pack(source)]
    folders = [_read_folder(source) for source in sources if not source.is_file()]
    marked = [_as_reference(_read_folder(folder)) for folder in references]
    return _without_duplicates(_concatenate([*marked, *tables, *packs, *folders]))


def with_references(results: Results, references: Sequence[Path]) -> Results:
    """Add the cells of packs that the results do not have, marked as references."""
    packs = [_as_reference(_read_packs(find_packs(folder))) for folder in references]
    return _without_duplicates(_concatenate([*packs, results]))


def _as_reference(results: Results) -> Results:
    return replace(results, cells=results.cells.assign(reference=1))


def _read_packs(paths: Sequence[Path]) -> Results:
    return _collect(chain.from_iterable(map(score_pack, paths)))


def results_of(records: Sequence[tuple[Path, RunRecord]]) -> Results:
    """Return the results of records that are already read, each with its folder."""
    return _without_duplicates(_collect(score_records(records)))


def of_tasks(results: Results, tasks: Sequence[str]) -> Results:
    """Keep the cells of some tasks.

    Args:
        results: of any tasks.
        tasks: names, or name@variant.

    Raises:
        UserError: no finished cell is of one of them.
    """
    present = set(results.cells["task"])
    for task in tasks:
        if task not in present:
            raise unknown("finished cell of the task", task, present)
    return _select(results, np.flatnonzero(results.cells["task"].isin(list(tasks))))


def _read_table(path: Path) -> Results:
    cells = read_cells(path)
    duplicate = cells.duplicated(CELL, keep="last")
    problems = [
        f"{path}, line {row + 2}: a later line holds the same cell"
        for row in np.flatnonzero(duplicate)
    ]
    return Results(cells[~duplicate], {}, problems)


def _read_folder(source: Path) -> Results:
    if not source.is_dir():
        raise UserError(
            f"there is no folder {source} to report on",
            allowed=SOURCES,
            next_step="run something first, such as 'bench run', or give --out",
        )
    folders, problems = record_folders(source)
    packs = chain.from_iterable(map(score_pack, find_packs(source)))
    results = _collect(chain(packs, _score_folders(folders)))
    results = replace(results, problems=problems + results.problems)
    return _with_contamination(results, source) if (source / CARD).exists() else results


def _with_contamination(results: Results, source: Path) -> Results:
    """Add what the card of a submission says; without a readable card nothing of it counts."""
    try:
        card = read_card(source)
    except UserError as error:
        return replace(_collect([]), problems=[str(error)])
    heard = results.cells["task"].map(lambda task: card.contamination_of(task) or "unknown")
    return replace(results, cells=results.cells.assign(contamination=heard.astype(str)))


def _score_folders(folders: Sequence[Path]) -> list[ScoredCell | str]:
    chunks = [folders[start : start + CHUNK] for start in range(0, len(folders), CHUNK)]
    if len(folders) < PARALLEL_FROM:
        return [cell for chunk in chunks for cell in score_folders(chunk)]
    from joblib import Parallel, delayed  # slow to import, and few reports need it

    # joblib starts new processes instead of forking, which is not safe beside the threads of a caller. They do not
    # import the main module, so a user's script needs no `if __name__ == "__main__"`.
    with (
        without_garbage_collection(),
        Parallel(n_jobs=available(), backend="loky") as processes,
    ):
        return [*chain.from_iterable(processes(map(delayed(score_folders), chunks)))]


def _collect(scored: Iterable[ScoredCell | str]) -> Results:
    """Put cells into a table, sorted by when they were finished."""
    problems: list[str] = []
    cells: list[ScoredCell] = []
    for item in with_shared_labels(scored):
        if isinstance(item, str):
            problems.append(item)
        else:
            cells.append(item)
    cells.sort(key=lambda cell: cell.finished_at)
    table = cells_table([cell.row for cell in cells])
    return Results(table, dict(enumerate(cell.predictions for cell in cells)), problems)


def _without_duplicates(results: Results) -> Results:
    """Keep the last row of each cell, and name the records that it replaces."""
    cells, left_out = with_titles(results.cells)
    results = Results(cells, results.predictions, results.problems + left_out)
    duplicate = results.cells.duplicated(CELL, keep="last").to_numpy()
    problems = [
        f"{results.predictions[row].folder} holds a cell that a later record holds too"
        for row in np.flatnonzero(duplicate).tolist()
        if row in results.predictions and not results.cells["reference"].iloc[row]
    ]
    kept = _select(results, np.flatnonzero(~duplicate))
    return Results(kept.cells, kept.predictions, results.problems + problems)


def _concatenate(parts: Sequence[Results]) -> Results:
    starts = np.cumsum([0, *(len(part.cells) for part in parts)]).tolist()
    predictions = {
        start + row: of_cell
        for start, part in zip(starts[:-1], parts, strict=True)
        for row, of_cell in part.predictions.items()
    }
    cells = pd.concat([part.cells for part in parts], ignore_index=True)
    return Results(cells, predictions, [problem for part in parts for problem in part.problems])


def _select(results: Results, rows: NDArray[np.integer[Any]]) -> Results:
    """Take some rows, in an order."""
    predictions = {
        new: results.predictions[old]
        for new, old in enumerate(rows.tolist())
        if old in results.predictions
    }
    cells = results.cells.iloc[rows].reset_index(drop=True)
    return Results(cells, predictions, results.problems)
