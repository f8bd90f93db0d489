"""The leaderboard: mean and standard deviation over seeds of the mean over folds, with intervals, ranks and cost."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lape_bench.core.label_budget import LabelBudget, budget_order
from lape_bench.report.display_names import group_noun, with_display_names
from lape_bench.report.formatting import MOST_NAMED, count, first_few, known_count, percent
from lape_bench.report.stats.board_statistics import (
    MOST_RANKED,
    statistics_of_boards,
)
from lape_bench.report.stats.crossed import NOTHING
from lape_bench.report.stats.significance import interval_half_width
from lape_bench.report.table import Table, TableColumn, TableEntry, TableRow, markdown
from lape_bench.results.cells import PREPARATION, SYSTEM_VERSION
from lape_bench.results.scored_cells import CellPredictions
from lape_bench.results.system_card import FROM_LEAST

# Scores that agree in these may be ranked together: they are one board.
BOARD = ["task", "data", "protocol", "labels", *PREPARATION, "metric"]
# Cells that agree in these differ in seed and fold alone: they are one entry of a board.
ENTRY = [*BOARD, "system", *SYSTEM_VERSION, "parameters", "encoder_parameters"]
BOARD_HEADINGS = ("task", "protocol", "labels")
RANKS = ["rank_best", "rank_worst"]
LABELS = ["training_labels", "selection_labels"]  # mean number over the cells of an entry
# What an interval is over. Its unit is the group, or the clip if predictions name no groups.
GROUPS_AND_SEEDS, THIS_RUN, SEEDS, NO_INTERVAL = "groups and seeds", "groups", "seeds", ""
REFERENCE_MARK = " °"  # behind the name of a system whose results others ran
REFERENCE_NOTES = (
    f"{REFERENCE_MARK.strip()} reference results, which came with lape_bench",
    f"{REFERENCE_MARK.strip()} reference results and submissions, which others ran",
)
MIXED_NOTE = "some seeds of these means are reference results or submissions, which others ran"
OTHER_CLIPS_NOTE = (
    "no ranks, since not all cells were tested on the same clips; 'bench verify' may say why"
)
MOST_BY_FOLD = 12  # systems whose scores by fold one footnote shows


def leaderboard(
    cells: pd.DataFrame, predictions: Mapping[int, CellPredictions] | None = None
) -> pd.DataFrame:
    """Summarize cells by board and system.

    Args:
        cells: as in `Results.cells`.
        predictions: as in `Results.predictions`, for ranks; without them there are no ranks.

    Returns:
        One row for each system on a board, best first. Columns: score (mean over seeds of the mean over folds, in [0,
        1]); std (sample standard deviation over seeds, NaN for one seed or if no seed has every fold); interval (half
        width of the 95 % interval); interval_over ("groups and seeds"; "groups" for one seed, whose interval is of that
        run alone; "seeds" for cells without predictions; empty if there is none). Further columns: reference (whether
        others ran it all); reference_seeds (number of seeds with cells that others ran); contamination (the most that a
        card says, empty without a card); seeds; seed_numbers
        (a tuple), seeds_left_out (seeds that lack folds which others have), fixed_upstream (whether one pre-trained
        upstream is behind several seeds), folds, folds_of_task, complete (whether the seeds that count have every
        fold), fold_scores (a tuple of each fold's mean over seeds, in the folds' order; empty without folds, or if some
        lack), training_labels, selection_labels, parameters (missing if unknown), minutes (of learning, mean over
        cells; a cached stage counts with the time it took to compute). With predictions there are also the columns
        predictions (whether every cell has them), groups (number of groups of the test clips), grouped (False if
        predictions name none, so that the unit is the clip) and detectable (see `BoardStatistics`). If a board has
        systems to rank, rank_best and rank_worst are the range of a system's rank.
    """
    cells = cells.drop_duplicates([*ENTRY, "seed", "fold"], keep="last")
    grouped = cells.groupby(ENTRY, sort=False, dropna=False)
    cells = cells.assign(entry=grouped.ngroup(), score=_scores(cells))
    by_entry = cells.groupby("entry")
    board = by_entry[ENTRY].first().join(_summarized(cells))
    if predictions is not None:
        known = cells.index.isin(list(predictions))
        board["predictions"] = pd.Series(known, cells.index).groupby(cells["entry"]).all()
    if predictions:
        board = _with_statistics(board, cells, predictions)
    if "rank_best" in board:
        board = board.astype(dict.fromkeys(RANKS, "Int64"))
    keys = ["data", "task", "protocol", "labels", *PREPARATION]
    return board.sort_values(
        [*keys, "score"],
        ascending=[True] * len(keys) + [False],
        ignore_index=True,
        key=in_budget_order,
    )


def _with_statistics(
    board: pd.DataFrame, cells: pd.DataFrame, predictions: Mapping[int, CellPredictions]
) -> pd.DataFrame:
    """Add what predictions allow to say: intervals over groups, and ranks."""
    members = dict(iter(cells[["entry", "seed", "fold"]].groupby("entry")))
    boards = [rows for _, rows in board.groupby(BOARD)]
    statistics = statistics_of_boards(
        [[members[entry] for entry in rows.index] for rows in boards],
        [rows["metric"].iloc[0] for rows in boards],
        predictions,
    )
    # One assignment for all boards: pandas takes a millisecond for each, and there may be hundreds of boards.
    half_widths, groups, detectable = np.full((3, len(board)), np.nan)
    grouped = np.full(len(board), None, object)
    ranks = np.full((len(board), 2), np.nan)
    analyzed = np.zeros(len(board), np.bool_)
    for rows, of_board in zip(boards, statistics, strict=True):
        if of_board is not None:
            places = board.index.get_indexer(rows.index)
            analyzed[places] = True
            half_widths[places] = of_board.half_widths
            groups[places], grouped[places] = of_board.n_groups, of_board.grouped
            detectable[places], ranks[places] = of_board.detectable, of_board.ranks
    # These intervals replace those over seeds alone.
    known = analyzed & board["complete"] & np.isfinite(half_widths)
    over = np.where(board["seeds"] == 1, THIS_RUN, GROUPS_AND_SEEDS)
    board = board.assign(
        interval=board["interval"].where(~analyzed, np.where(known, half_widths, np.nan)),
        interval_over=board["interval_over"].where(~analyzed, np.where(known, over, NO_INTERVAL)),
        groups=pd.Series(groups, board.index).astype("Int64"),
        grouped=pd.Series(grouped, board.index).astype("boolean"),
        detectable=detectable,
    )
    if np.isfinite(ranks).any():
        board[RANKS] = ranks
    return board


def in_budget_order(column: pd.Series) -> pd.Series:
    """Return a key of a board's column for sorting: budgets of labels go from few to many."""
    return column.map(budget_order) if column.name == "labels" else column


def _scores(cells: pd.DataFrame) -> pd.Series:
    """Return each cell's score by the metric that its task is ranked by."""
    scores = pd.Series(np.nan, cells.index)
    for metric in cells["metric"].unique():
        scores = scores.where(cells["metric"] != metric, cells[metric])
    return scores


def _summarized(cells: pd.DataFrame) -> pd.DataFrame:
    """Summarize the contributing cells by `entry`: over folds first, then over seeds."""
    in_entry = cells.groupby("entry")
    folds = in_entry["folds_of_task"].first()
    used = cells[contributes(cells)]
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
    interval = [
        # Seeds that do not vary, such as those of a probe with all labels, show nothing of clips.
        interval_half_width(d, n) if d > NOTHING else np.nan
        for d, n in zip(board["std"], board["seeds"], strict=True)
    ]
    board.insert(2, "interval", interval)
    # Seeds with different folds would give the standard deviation over folds instead.
    board[["std", "interval"]] = board[["std", "interval"]].where(complete, axis=0)
    over_seeds = board["interval"].notna().map({True: SEEDS, False: NO_INTERVAL})
    board.insert(3, "interval_over", over_seeds)
    upstreams = used.groupby("entry")["upstream"].agg(["nunique", "min"])
    fixed = (upstreams["nunique"] == 1) & (upstreams["min"] != "")
    board["fixed_upstream"] = fixed & (board["seeds"] > 1)
    board["seeds_left_out"] = in_entry["seed"].nunique() - board["seeds"]
    board["folds"] = folds.where(complete, in_entry["fold"].nunique())
    board["folds_of_task"] = folds
    board["complete"] = complete
    by_fold = used.groupby(["entry", "fold"])["score"].mean().groupby("entry").agg(tuple)
    board["fold_scores"] = [
        scores if whole and len(scores) > 1 else ()
        for scores, whole in zip(by_fold, complete, strict=True)
    ]
    for name in LABELS:
        board[name] = used.groupby("entry")[name].mean()
    board["reference"] = used.groupby("entry")["reference"].min() == 1
    seeds_of_others = used[used["reference"] == 1].groupby("entry")["seed"].nunique()
    board["reference_seeds"] = seeds_of_others.reindex(board.index, fill_value=0)
    heard = used["contamination"].map(["", *FROM_LEAST].index)
    board["contamination"] = [
        ["", *FROM_LEAST][most] for most in heard.groupby(used["entry"]).max()
    ]
    board["minutes"] = used.groupby("entry")["seconds"].mean() / 60
    return board


def contributes(cells: pd.DataFrame) -> pd.Series:
    """Return which cells contribute to the score of their `entry`.

    Returns:
        True for the cells of seeds that have every fold, or for all cells if no seed has; indexed as the cells.
    """
    folds = cells.groupby(["entry", "seed"])["fold"].transform("size")
    whole = folds == cells["folds_of_task"]
    return whole | ~whole.groupby(cells["entry"]).transform("any")


def format_rows(board: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return a leaderboard as headings and rows of text; scores are percentages."""
    ranked = "rank_best" in board
    headings = [
        *BOARD_HEADINGS,
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
    for row in with_display_names(board).to_dict("records"):
        folds = f"{row['folds']}" + ("" if row["complete"] else f" of {row['folds_of_task']}")
        rows.append(
            [
                row["task"],
                row["protocol"],
                row["labels"],
                row["system"] + REFERENCE_MARK * row["reference"],
                *([_rank(row["rank_best"], row["rank_worst"])] if ranked else []),
                percent(row["score"], 1),
                percent(row["std"], 1),
                percent(row["interval"], 1),
                f"{row['seeds']}",
                folds,
                known_count(row["parameters"]),
                f"{row['minutes']:.1f}",
            ]
        )
    return headings, rows


def footnotes(board: pd.DataFrame) -> list[str]:
    """Return what a reader of a leaderboard should know: what its intervals and ranks are over, and what was left out."""
    left_out: list[str] = []
    mixed: list[str] = []
    boards_by_footnote: dict[str, list[str]] = {}
    boards = [entries for _, entries in with_display_names(board).groupby(BOARD)]
    for entries in boards:
        first = entries.iloc[0]
        name = _board_name(first["task"], first["protocol"], first["labels"])
        seeds = zip(entries["system"], entries["seeds_left_out"], strict=True)
        left_out += [f"{n} of {system} on {name}" for system, n in seeds if n > 0]
        others = zip(
            entries["system"], entries["reference"], entries["reference_seeds"], strict=True
        )
        mixed += [
            f"{n} of {system} on {name}" for system, whole, n in others if n > 0 and not whole
        ]
        for footnote in _footnotes(entries, in_figures=len(boards) <= MOST_NAMED):
            boards_by_footnote.setdefault(footnote, []).append(name)
    lines = [f"seeds that lack folds are not counted: {first_few(left_out)}"] if left_out else []
    if board["reference"].any():
        submitted = bool((board["reference"] & (board["contamination"] != "")).any())
        lines.append(REFERENCE_NOTES[submitted])
    if mixed:
        lines.append(f"{MIXED_NOTE}: {first_few(mixed)}")
    for footnote, names in boards_by_footnote.items():
        few = len(names) <= MOST_NAMED
        lines.append(f"{'; '.join(names) if few else count(len(names), 'board')}: {footnote}")
    return lines


def _footnotes(entries: pd.DataFrame, in_figures: bool) -> list[str]:
    """Say of one board what its intervals and ranks are over.

    Args:
        entries: its rows.
        in_figures: whether to say how many groups and seeds, which differs from board to board.
    """
    lines = _interval_footnotes(entries, in_figures)
    if _on_other_clips(entries):
        lines.append(OTHER_CLIPS_NOTE)
    if in_figures and entries[LABELS].notna().all(axis=None) and (entries[LABELS[0]] > 0).all():
        training, selection = (_span(entries[name]) for name in LABELS)
        lines.append(f"labels per run: {training} for training, {selection} for selection")
    scores = zip(entries["system"], entries["fold_scores"], strict=True)
    by_fold = [f"{name} {_in_percent(folds)}" for name, folds in scores if folds]
    if by_fold and in_figures:
        lines.append(f"% by fold: {first_few(by_fold, MOST_BY_FOLD)}")
    if len(entries) > 1:
        lines += _rank_footnotes(entries, in_figures)
    fixed = entries.loc[entries["fixed_upstream"], "system"].tolist()
    if fixed:
        whose = first_few(fixed) if in_figures else "some systems"
        lines.append(
            f"all seeds of {whose} rest on one pre-trained upstream, so intervals and ranks leave out how much another "
            "pre-training run would differ"
        )
    return lines


def _on_other_clips(entries: pd.DataFrame) -> bool:
    """Return whether the cells of a board have predictions, but of different test clips."""
    if len(entries) > MOST_RANKED or "predictions" not in entries or "groups" not in entries:
        return False
    return bool(entries["predictions"].all() and entries["groups"].isna().all())


def _interval_footnotes(entries: pd.DataFrame, in_figures: bool) -> list[str]:
    """Say what the intervals of a board are over, one line for each kind that it has."""
    groups = "clips"
    if "grouped" in entries and entries["grouped"].fillna(False).any():
        groups = group_noun(entries["task"].iloc[0].partition(" [")[0]) if in_figures else "groups"
    if in_figures and "groups" in entries and entries["groups"].notna().any():
        groups = f"{entries['groups'].max():,} {groups}"
    lines = []
    for over, rows in entries.groupby("interval_over", sort=False):
        least, most = rows["seeds"].min(), rows["seeds"].max()
        seeds = "seeds"
        if in_figures:
            seeds = count(most, "seed") if least == most else f"{least} to {most} seeds"
        if over == GROUPS_AND_SEEDS:
            lines.append(f"95 % intervals are over {groups} and {seeds}")
        elif over == THIS_RUN:
            lines.append(f"one seed: 95 % intervals are over {groups}, of this run alone")
        elif over == SEEDS:
            lines.append(f"95 % intervals are over {seeds} alone, on these test clips")
    return lines


def _rank_footnotes(entries: pd.DataFrame, in_figures: bool) -> list[str]:
    """Say of a board with several systems what its ranks rest on, or why it has none."""
    if len(entries) > MOST_RANKED:
        return [f"no ranks among more than {MOST_RANKED} systems"]
    if not entries.get("predictions", pd.Series([True])).all():
        return ["no ranks, since cells from a table have no predictions"]
    if "groups" not in entries or entries["groups"].isna().all():
        return []
    ranked = entries
    if "rank_best" in entries:
        ranked = entries[entries["rank_best"].notna()]
    if "rank_best" not in entries or ranked.empty:
        if (entries["groups"] == 1).all():
            return ["no ranks: the test clips are of one group"]
        if (entries["seeds"] == 1).all():
            return ["no ranks: one seed does not show how runs vary"]
        return ["no ranks: no two systems share two seeds"]
    lines = []
    if in_figures and pd.notna(detectable := ranked["detectable"].iloc[0]):
        lines.append(
            f"systems share ranks unless a test over groups and seeds tells them apart; it finds a difference of about "
            f"{percent(detectable, 1)} points in 4 of 5 such experiments, and fewer after the correction for all pairs"
        )
    seeds = zip(entries["system"], map(set, entries["seed_numbers"]), strict=True)
    apart = [
        f"{a} with {b}"
        for (a, seeds_a), (b, seeds_b) in combinations(seeds, 2)
        if len(seeds_a & seeds_b) < 2
    ]
    if apart:
        lines.append(f"not compared, since they do not share two seeds: {first_few(apart)}")
    return lines


def _span(numbers: pd.Series) -> str:
    """Write the least and the greatest of whole numbers, or the one that they all are."""
    least, most = round(numbers.min()), round(numbers.max())
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _in_percent(scores: Sequence[float]) -> str:
    return ", ".join(percent(score, 1) for score in scores)


def as_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a leaderboard as a table for the terminal: a block for each board, its systems below."""
    # To fit 80 characters, seeds and folds share a column, and two headings are shortened.
    seeds = headings.index("seeds")
    headings = [*headings[:seeds], "runs", "params", "min"]
    rows = [
        [*r[:seeds], f"{r[seeds]}x{r[seeds + 1].replace(' of ', '/')}", *r[seeds + 2 :]]
        for r in rows
    ]
    places = len(BOARD_HEADINGS)
    blocks = [_board_name(*row[:places]) for row in rows]
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
    left = (*BOARD_HEADINGS, "system")
    return tuple(TableColumn(heading, left=heading in left) for heading in headings)


def as_csv(board: pd.DataFrame) -> str:
    """Write a leaderboard as CSV, unrounded, scores in [0, 1]; seed numbers and scores by fold are separated by spaces."""
    lists = {
        name: [" ".join(map(str, values)) for values in board[name]]
        for name in ("seed_numbers", "fold_scores")
    }
    return board.assign(**lists).to_csv(index=False)


def as_data(board: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a leaderboard as plain data, unrounded, scores in [0, 1]."""
    return [{str(name): value for name, value in row.items()} for row in board.to_dict("records")]


def _board_name(task: str, protocol: str, labels: str) -> str:
    """Name a board by the entries of its rows below `BOARD_HEADINGS`."""
    return f"{task}, {protocol}" + (
        "" if (budget := LabelBudget.parse(labels)).is_all else f", {budget.description}"
    )


def _rank(best: Any, worst: Any) -> str:
    if pd.isna(best):
        return ""
    return str(best) if best == worst else f"{best}\u2013{worst}"
