"""The leaderboard: mean and deviation over seeds, of the mean over folds, with what stands behind them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lape_bench.report.display_names import as_shown
from lape_bench.report.formatting import count, percent
from lape_bench.report.stats.rank_intervals import MOST_RANKED, rank_boards
from lape_bench.report.stats.significance import half_interval
from lape_bench.report.table import Table, TableColumn, TableEntry, TableRow, markdown
from lape_bench.results.load import CellPredictions, Preparation

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
MOST_NAMED = 3  # boards, systems or pairs in one note; more are counted


def leaderboard(
    frame: pd.DataFrame, outcomes: Mapping[int, CellPredictions] | None = None
) -> pd.DataFrame:
    """Summarize cells by board and system.

    Args:
        frame: cells, as `load_results` gives them.
        outcomes: theirs, from which systems are ranked; without them there are no ranks.

    Returns:
        One row a system on a board, best first: score (mean over seeds of the mean over folds, in [0, 1]),
        deviation (sample standard deviation over seeds, NaN for one seed or if none has every fold), interval
        (half of the 95 % interval of the mean), seeds, seed_numbers (a tuple) and seeds_left_out (for they lack
        folds that others have), folds, folds_of_task, complete (the seeds that count have every fold), parameters,
        minutes a cell of learning, cached stages with what they took when they were made. With outcomes also
        predictions (whether every cell has one) and, where a board has systems to rank, rank_best and rank_worst,
        the ranks that a system may have by its accuracy.
    """
    # The same cell from two machines or result folders counts once.
    cells = frame.drop_duplicates([*ENTRY, "seed", "fold"], keep="last").dropna(subset=ENTRY)
    grouped = cells.groupby(ENTRY, sort=False)
    cells = cells.assign(entry=grouped.ngroup(), score=_scores(cells))
    by_entry = cells.groupby("entry")
    board = by_entry[ENTRY].first().join(_summed_up(cells))
    if outcomes is not None:
        known = cells.index.isin(list(outcomes))
        board["predictions"] = pd.Series(known, cells.index).groupby(cells["entry"]).all()
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
    """Sum up cells by `entry`: over folds first, then over seeds, of the cells that count."""
    in_entry = cells.groupby("entry")
    folds = in_entry["folds_of_task"].first()
    used = cells[counted(cells)]
    by_seed = used.groupby(["entry", "seed"]).agg(score=("score", "mean"), has=("fold", "size"))
    by_entry = by_seed.groupby("entry")
    complete = by_entry["has"].first() == folds
    board = pd.DataFrame(
        {
            "score": by_entry["score"].mean(),
            "std": by_entry["score"].std(),
            "seeds": by_entry.size(),
            "seed_numbers": by_seed.reset_index("seed").groupby("entry")["seed"].agg(tuple),
        }
    )
    interval = [half_interval(d, n) for d, n in zip(board["std"], board["seeds"], strict=True)]
    board.insert(2, "interval", interval)
    # Of seeds with other folds it would be the deviation over folds.
    board[["std", "interval"]] = board[["std", "interval"]].where(complete, axis=0)
    board["seeds_left_out"] = in_entry["seed"].nunique() - board["seeds"]
    board["folds"] = folds.where(complete, in_entry["fold"].nunique())
    board["folds_of_task"] = folds
    board["complete"] = complete
    board["minutes"] = used.groupby("entry")["seconds"].mean() / 60
    return board


def counted(cells: pd.DataFrame) -> pd.Series:
    """Tell which cells stand behind the score of their `entry`.

    Returns:
        True for those of seeds that have every fold, or for all where no seed has; indexed as the cells.
    """
    folds = cells.groupby(["entry", "seed"])["fold"].transform("size")
    whole = folds == cells["folds_of_task"]
    return whole | ~whole.groupby(cells["entry"]).transform("any")


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
                _labels(row["label_fraction"]),
                row["system"],
                *([_rank(row["rank_best"], row["rank_worst"])] if ranked else []),
                percent(row["score"]),
                percent(row["std"]),
                percent(row["interval"]),
                f"{row['seeds']}",
                folds,
                f"{row['parameters']:,}",
                f"{row['minutes']:.1f}",
            ]
        )
    return headings, rows


def notes(board: pd.DataFrame) -> list[str]:
    """Say of a leaderboard what its figures do not: seeds left out, and over what ranks are or why there are none."""
    left_out: list[str] = []
    of_ranks: dict[str, list[str]] = {}  # what is said -> of which boards
    for _, entries in as_shown(board).groupby(BOARD):
        first = entries.iloc[0]
        where = _place(first["task"], first["protocol"], _labels(first["label_fraction"]))
        seeds = entries.set_index("system")["seeds_left_out"]
        left_out += [f"{n} of {system} on {where}" for system, n in seeds[seeds > 0].items()]
        for what in _of_ranks(entries):
            of_ranks.setdefault(what, []).append(where)
    lines = [f"seeds that lack folds are not counted: {_some(left_out)}"] if left_out else []
    for what, boards in of_ranks.items():
        few = len(boards) <= MOST_NAMED
        lines.append(f"{'; '.join(boards) if few else count(len(boards), 'board')}: {what}")
    return lines


def _of_ranks(entries: pd.DataFrame) -> list[str]:
    """Say of a board with several systems what its ranks are of, or why it has none."""
    if len(entries) > MOST_RANKED:
        return [f"no ranks among more than {MOST_RANKED} systems"]
    if len(entries) > 1 and not entries.get("predictions", pd.Series([True])).all():
        return ["no ranks, for cells that are known from a table alone have no predictions"]
    if "rank_best" not in entries or entries["rank_best"].isna().all():
        return []
    ranked = entries[entries["rank_best"].notna()]
    lines = []
    metric = ranked["metric"].iloc[0].replace("_", " ")
    if metric != "accuracy":
        lines.append(f"ranks are by accuracy, scores are {metric}")
    if (ranked["seeds"] == 1).all():
        lines.append("ranks are over clips alone: one seed")
    ran = zip(ranked["system"], map(set, ranked["seed_numbers"]), strict=True)
    apart = [f"{a} with {b}" for (a, of_a), (b, of_b) in combinations(ran, 2) if not of_a & of_b]
    if apart:
        lines.append(f"never compared, for they share no seed: {_some(apart)}")
    return lines


def _some(told: Sequence[str]) -> str:
    """Join the first few of what is told, and count the rest."""
    more = [f"{len(told) - MOST_NAMED} more"] if len(told) > MOST_NAMED else []
    return "; ".join([*told[:MOST_NAMED], *more])


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
    blocks = [_place(*row[:places]) for row in rows]
    return Table(
        _columns(headings[places:]),
        tuple(
            TableRow(tuple(map(TableEntry, row[places:])), block)
            for row, block in zip(rows, blocks, strict=True)
        ),
    )


def as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a leaderboard as a Markdown table."""
    entries = tuple(TableRow(tuple(map(TableEntry, row))) for row in rows)
    return markdown(Table(_columns(headings), entries))


def _columns(headings: Sequence[str]) -> tuple[TableColumn, ...]:
    left = (*PLACE, "system")
    return tuple(TableColumn(heading, left=heading in left) for heading in headings)


def as_csv(board: pd.DataFrame) -> str:
    """Write a leaderboard as CSV, unrounded, scores in [0, 1]; numbers of seeds with spaces between them."""
    seeds = [" ".join(map(str, each)) for each in board["seed_numbers"]]
    return board.assign(seed_numbers=seeds).to_csv(index=False)


def as_data(board: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a leaderboard as plain data, unrounded, scores in [0, 1]; what may be compared, in its parts."""
    rows = []
    for line in board.to_dict("records"):
        row = {str(name): value for name, value in line.items()}
        rows.append(row | Preparation.of(row["comparable"])._asdict())
    return rows


def _labels(fraction: float) -> str:
    return f"{fraction:.3g}"


def _place(task: str, protocol: str, labels: str) -> str:
    """Name a board by the first columns of its rows."""
    return f"{task}, {protocol}" + ("" if labels == "1" else f", {labels} of the labels")


def _rank(best: Any, worst: Any) -> str:
    if pd.isna(best):
        return ""
    return str(best) if best == worst else f"{best}\u2013{worst}"
