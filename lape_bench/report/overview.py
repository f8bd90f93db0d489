"""The overview: systems by tasks under one protocol and label budget, with average, average rank and cost.

Its fields are a contract with programs that read it as JSON or CSV: `VERSION` is raised if one changes its name or meaning.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError
from lape_bench.report.display_names import system_display_names, task_display_names
from lape_bench.report.leaderboard import in_budget_order, leaderboard
from lape_bench.report.stats.crossed import with_ties
from lape_bench.results.load import Results
from lape_bench.results.system_card import FROM_LEAST, Contamination

SCHEMA, VERSION = "lape_bench overview", 1
SELECTION = ["data", "protocol", "labels"]


class OverviewScore(Frozen):
    """The score of a system on a task.

    Attributes:
        score: mean over seeds of the mean over folds, by the task's metric, in [0, 1].
        std: sample standard deviation over seeds; None for one seed.
        interval: half width of the 95 % interval; None if there is none.
        seeds: number of seeds.
        folds: number of folds that were run.
        complete: whether every fold was run.
        rank: the best and the worst rank that the system may have among the systems with a score on every task; None if
            a test is not possible.
        contamination: what the system has heard of the test set, as its card says; None without a card.
    """

    score: float
    std: float | None
    interval: float | None
    seeds: int
    folds: int
    complete: bool
    rank: tuple[int, int] | None
    contamination: Contamination | None = None


class OverviewSystem(Frozen):
    """One system.

    Attributes:
        system: its name, as the leaderboard has it.
        reference: whether others ran all its results: they came with lape_bench or are a submission.
        average: mean of its scores over tasks; None if it lacks one.
        average_rank: mean over tasks of its rank by score among the systems with a score on every task, ties averaged;
            None if it is not among them, or the only one.
        average_rank_interval: means over tasks of the best and of the worst rank that it may have; None if a test is not
            possible on some task.
        encoder_parameters: None if unknown.
        seconds: of learning, mean over tasks of the mean over cells.
        contamination: the most that it has heard of the test set of a task, as its card says; None without a card.
        scores: by the name of the task.
    """

    system: str
    reference: bool
    average: float | None
    average_rank: float | None
    average_rank_interval: tuple[float, float] | None
    encoder_parameters: int | None
    seconds: float
    contamination: Contamination | None = None
    scores: dict[str, OverviewScore]


class OverviewTask(Frozen):
    """A task, and the metric that its scores are of."""

    task: str
    metric: str


class Overview(Frozen):
    """Systems by tasks, the best average first; systems that lack a score come last."""

    schema_name: str = SCHEMA
    schema_version: int = VERSION
    data: str
    protocol: str
    labels: str
    tasks: tuple[OverviewTask, ...]
    systems: tuple[OverviewSystem, ...]


def selections(results: Results) -> list[tuple[str, str, str]]:
    """Return each kind of data, protocol and label budget that has results, budgets from few labels to many."""
    known = results.cells[SELECTION].drop_duplicates().sort_values(SELECTION, key=in_budget_order)
    return [*known.itertuples(index=False, name=None)]


def overviews(results: Results, **chosen: str | None) -> list[Overview]:
    """Return the overview of each selection of results.

    Args:
        results: of any boards.
        chosen: data, protocol and labels; None for all.

    Raises:
        UserError: no results are of the chosen ones.
    """
    wanted = {name: value for name, value in chosen.items() if value is not None}
    found = [
        values
        for values in selections(results)
        if all(dict(zip(SELECTION, values, strict=True))[name] == wanted[name] for name in wanted)
    ]
    if not found:
        known = "; ".join(", ".join(values) for values in selections(results))
        raise UserError(f"there are no results for {', '.join(wanted.values())}", allowed=known)
    return [overview(results, *values) for values in found]


def overview(
    results: Results,
    data: str,
    protocol: str,
    labels: str,
    board: pd.DataFrame | None = None,
) -> Overview:
    """Return the overview of one selection.

    Tasks that only reference results have are left out if there are other results.

    Args:
        results: of any boards; with `board` also with its two columns of names.
        data: "real" or "synthetic".
        protocol: the protocol.
        labels: the label budget.
        board: `leaderboard.leaderboard` of all results with the columns `task_name` and `name_shown`, if it is known.
    """
    selection = [data, protocol, labels]
    names = results.cells[(results.cells[SELECTION] == selection).all(axis=1)]
    if board is None:
        names = with_names(names)
    own = names[names["reference"] == 0]
    if not own.empty:
        names = names[names["task_name"].isin(own["task_name"].unique())]
    if board is None:
        board = _board(names, results)
    else:
        board = board[(board[SELECTION] == selection).all(axis=1)]
        board = board[board["task_name"].isin(names["task_name"].unique())]
    tasks = sorted(board["task_name"].unique())
    scores = board[board["complete"]].pivot(index="name_shown", columns="task_name", values="score")
    scores = scores.reindex(columns=tasks).dropna()
    whole = names[names["name_shown"].isin(scores.index)]
    # Ranks on a board are among all of its systems, and here among those that have every task.
    ranked = board if len(whole) in (0, len(names)) else _board(whole, results)
    ranks = _ranks(ranked) if len(whole) else {}
    average_ranks = dict(
        zip(scores.index, rankdata(-with_ties(scores.to_numpy()), axis=0).mean(axis=1), strict=True)
        if len(scores) > 1
        else ()
    )
    systems = [
        _system(str(name), rows, tasks, ranks, name in scores.index, average_ranks.get(name))
        for name, rows in board.groupby("name_shown", sort=False)
    ]
    systems.sort(key=lambda s: (s.average is None, -(s.average or 0), s.system))
    metrics = board.groupby("task_name")["metric"].first()
    return Overview(
        data=data,
        protocol=protocol,
        labels=labels,
        tasks=tuple(OverviewTask(task=task, metric=metrics[task]) for task in tasks),
        systems=tuple(systems),
    )


def with_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `task_name` and `name_shown`, by which an overview calls tasks and systems."""
    return rows.assign(task_name=task_display_names(rows), name_shown=system_display_names(rows))


def _board(cells: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Return the leaderboard of cells, with the names that are shown."""
    predictions = {n: results.predictions[n] for n in cells.index if n in results.predictions}
    board = leaderboard(cells.drop(columns=["task_name", "name_shown"]), predictions)
    return with_names(board)


def _ranks(board: pd.DataFrame) -> dict[tuple[str, str], tuple[int, int]]:
    """Return best and worst rank by system and task."""
    if "rank_best" not in board:
        return {}
    known = board[board["rank_best"].notna() & board["rank_worst"].notna()]
    columns = (known[name] for name in ("name_shown", "task_name", "rank_best", "rank_worst"))
    return {(s, t): (int(best), int(worst)) for s, t, best, worst in zip(*columns, strict=True)}


def _system(
    name: str,
    rows: pd.DataFrame,
    tasks: Sequence[str],
    ranks: dict[tuple[str, str], tuple[int, int]],
    whole: bool,
    average_rank: float | None,
) -> OverviewSystem:
    """Summarize the rows of a system; `whole` tells whether it has a score on every task."""
    scores = {
        row["task_name"]: OverviewScore(
            score=row["score"],
            std=_known(row["std"]),
            interval=_known(row["interval"]),
            seeds=row["seeds"],
            folds=row["folds"],
            complete=row["complete"],
            rank=ranks.get((name, row["task_name"])),
            contamination=row["contamination"] or None,
        )
        for row in rows.to_dict("records")
    }
    own = [ranks.get((name, task)) for task in tasks]
    ends = [rank for rank in own if rank is not None]
    interval = None
    if whole and len(ends) == len(tasks):
        low, high = np.mean(ends, axis=0).tolist()
        interval = (low, high)
    heard = [score.contamination for score in scores.values() if score.contamination]
    parameters = _known(rows["encoder_parameters"].iloc[0])
    return OverviewSystem(
        system=name,
        reference=bool(rows["reference"].all()),
        average=float(np.mean([scores[task].score for task in tasks])) if whole else None,
        average_rank=None if average_rank is None else float(average_rank),
        average_rank_interval=interval,
        encoder_parameters=None if parameters is None else int(parameters),
        seconds=60 * float(rows["minutes"].mean()),
        contamination=max(heard, key=FROM_LEAST.index, default=None),
        scores={task: scores[task] for task in tasks if task in scores},
    )


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value
