"""The leaderboard: mean and deviation over seeds, of the mean over folds, with what stands behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lape_bench.report.frame import Outcome, Preparation
from lape_bench.report.names import as_shown
from lape_bench.report.ranks import MOST_RANKED, rank_boards
from lape_bench.report.significance import half_interval
from lape_bench.report.table import Column, Entry, Row, Table, markdown

BOARD = [
    "task",
    "data",
    "protocol",
    "label_fraction",
    "comparable",
    "metric",
]  # figures that may be ranked
ENTRY = [*BOARD, "system", "system_version", "parameters", "encoder_parameters"]


PLACE = ("task", "protocol", "labels")  # the first columns: which board a row stands on
RANKS = ["rank_best", "rank_worst"]


def leaderboard(frame: pd.DataFrame, outcomes: Mapping[int, Outcome] | None = None) -> pd.DataFrame:
    """Summarise cells by board and system.

    Args:
        frame: cells, as `load_results` gives them.
        outcomes: theirs, from which systems are ranked; without them there are no ranks.

    Returns:
        One row a system on a board, best first: score (mean over seeds of the mean over folds, in [0, 1]),
        deviation (sample standard deviation over seeds, NaN for one seed or if none has every fold), interval
        (half of the 95 % interval of the mean), seeds, folds, folds_of_task, complete (the seeds that count have
        every fold), parameters, minutes a cell of learning, cached stages with what they took when they were
        made. Where a board has systems to rank, also rank_best and rank_worst, the ranks that a system may have
        by its accuracy.
    """
    # The same cell from two machines or result folders counts once.
    cells = frame.drop_duplicates([*ENTRY, "seed", "fold"], keep="last").dropna(subset=ENTRY)
    grouped = cells.groupby(ENTRY, sort=False)
    cells = cells.assign(entry=grouped.ngroup(), score=_scores(cells))
    by_entry = cells.groupby("entry")
    board = by_entry[ENTRY].first().join(_summed_up(cells))
    if outcomes:
        members = dict(iter(cells[["entry", "seed", "fold"]].groupby("entry")))
        entries = [each.index for _, each in board.groupby(BOARD)]
        boards = [[members[number] for number in each] for each in entries]
        for each, ranks in zip(entries, rank_boards(boards, outcomes), strict=True):
            if ranks is not None:
                board.loc[each, RANKS] = ranks
    if "rank_best" in board:
        board = board.astype(dict.fromkeys(RANKS, "Int64"))
    return board.sort_values(
        ["data", "task", "protocol", "label_fraction", "comparable", "score"],
        ascending=[True, True, True, True, True, False],
        ignore_index=True,
    )


def _scores(cells: pd.DataFrame) -> pd.Series:
    """Return each cell's score by the metric that its task is ranked by."""
    scores = pd.Series(np.nan, cells.index)
    for metric in cells["metric"].unique():
        scores = scores.where(cells["metric"] != metric, cells[metric])
    return scores


def _summed_up(cells: pd.DataFrame) -> pd.DataFrame:
    """Sum up cells by `entry`: over folds first, then over the seeds that have every fold, or over all if none has."""
    by_seed = cells.groupby(["entry", "seed"]).agg(
        score=("score", "mean"), has=("fold", "size"), folds=("folds_of_task", "first")
    )
    whole = by_seed["has"] == by_seed["folds"]
    complete = whole.groupby("entry").any()
    used = by_seed["score"][
        whole | ~complete.loc[by_seed.index.get_level_values("entry")].to_numpy()
    ]
    by_entry = used.groupby("entry")
    board = pd.DataFrame(
        {"score": by_entry.mean(), "deviation": by_entry.std(), "seeds": by_entry.size()}
    )
    interval = [
        half_interval(d, n) for d, n in zip(board["deviation"], board["seeds"], strict=True)
    ]
    board.insert(2, "interval", interval)
    # Of seeds with other folds it would be the deviation over folds.
    board[["deviation", "interval"]] = board[["deviation", "interval"]].where(complete, axis=0)
    in_entry = cells.groupby("entry")
    folds = in_entry["folds_of_task"].first()
    board["folds"] = folds.where(complete, in_entry["fold"].nunique())
    board["folds_of_task"] = folds
    board["complete"] = complete
    board["minutes"] = in_entry["seconds"].mean() / 60
    return board


def columns(board: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Format a leaderboard as headings and rows of text; scores are percentages."""
    ranked = "rank_best" in board
    headings = [
        *PLACE,
        "system",
        *(["rank"] if ranked else []),
        "score %",
        "±",
        "95 %",
        "seeds",
        "folds",
        "parameters",
        "minutes",
    ]
    rows = []
    for row in as_shown(board).to_dict("records"):
        folds = f"{row['folds']}" + ("" if row["complete"] else f" of {row['folds_of_task']}")
        rows.append(
            [
                row["task"],
                row["protocol"],
                f"{row['label_fraction']:.3g}",
                row["system"],
                *([_rank(row["rank_best"], row["rank_worst"])] if ranked else []),
                _percent(row["score"]),
                _percent(row["deviation"]),
                _percent(row["interval"]),
                f"{row['seeds']}",
                folds,
                f"{row['parameters']:,}",
                f"{row['minutes']:.1f}",
            ]
        )
    return headings, rows


def notes(board: pd.DataFrame) -> list[str]:
    """Say of a leaderboard what its ranks do not: by what they are, and where there are none."""
    lines = []
    for (task, _, protocol, _, _, metric), entries in board.groupby(BOARD):
        where, words = f"{task}, {protocol}", str(metric).replace("_", " ")
        ranked = "rank_best" in board and entries["rank_best"].notna().any()
        if len(entries) > MOST_RANKED:
            lines.append(f"{where}: no ranks among more than {MOST_RANKED} systems")
        elif ranked and words != "accuracy":
            lines.append(f"{where}: ranks are by accuracy, scores are {words}")
    return list(dict.fromkeys(lines))


def as_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay a leaderboard out: a block for each board, its systems below."""
    # 80 characters have to do: seeds and folds share a column, and two headings are cut.
    seeds = headings.index("seeds")
    headings = [*headings[:seeds], "runs", "params", "min"]
    rows = [
        [*r[:seeds], f"{r[seeds]}x{r[seeds + 1].replace(' of ', '/')}", *r[seeds + 2 :]]
        for r in rows
    ]
    places = len(PLACE)
    blocks = []
    for task, protocol, labels in (row[:places] for row in rows):
        part = "" if labels == "1" else f", {labels} of the labels"
        blocks.append(f"{task}, {protocol}{part}")
    return Table(
        _columns(headings[places:]),
        tuple(
            Row(tuple(map(Entry, row[places:])), block)
            for row, block in zip(rows, blocks, strict=True)
        ),
    )


def as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a leaderboard as a Markdown table."""
    entries = tuple(Row(tuple(map(Entry, row))) for row in rows)
    return markdown(Table(_columns(headings), entries))


def _columns(headings: Sequence[str]) -> tuple[Column, ...]:
    left = (*PLACE, "system")
    return tuple(Column(heading, left=heading in left) for heading in headings)


def as_csv(board: pd.DataFrame) -> str:
    """Write a leaderboard as CSV, unrounded, scores in [0, 1]."""
    return board.to_csv(index=False)


def as_data(board: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a leaderboard as plain data, unrounded, scores in [0, 1]; what may be compared, in its parts."""
    rows = []
    for line in board.to_dict("records"):
        row = {str(name): value for name, value in line.items()}
        rows.append(row | Preparation.of(row["comparable"])._asdict())
    return rows


def _rank(best: Any, worst: Any) -> str:
    if pd.isna(best):
        return ""
    return str(best) if best == worst else f"{best}\u2013{worst}"


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.2f}"
