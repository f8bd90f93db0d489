"""The leaderboard: mean and deviation over seeds, of the mean over folds, with what stands behind them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

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


def leaderboard(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise cells by board and system.

    Args:
        frame: cells, as `load_results` gives them.

    Returns:
        One row a system on a board, best first: score (mean over seeds of the mean over folds, in [0, 1]),
        deviation (sample standard deviation over seeds, NaN for one seed), interval (half of the 95 %
        interval of the mean), seeds, folds, folds_of_task, complete (every seed has every fold), parameters,
        minutes a cell of learning, cached stages with what they took when they were made.
    """
    rows = []
    for key, cells in frame.groupby(ENTRY, sort=False):
        entry = dict(zip(ENTRY, key, strict=True))
        # The same cell from two machines or result folders counts once.
        cells = cells.drop_duplicates(["seed", "fold"], keep="last")
        folds = int(cells["folds_of_task"].iloc[0])
        by_seed = cells.groupby("seed")[str(entry["metric"])].agg(["mean", "size"])
        complete = by_seed["size"] == folds
        used = by_seed["mean"][complete] if complete.any() else by_seed["mean"]
        deviation = float(used.std(ddof=1)) if len(used) > 1 else math.nan
        rows.append(
            entry
            | {
                "score": float(used.mean()),
                "deviation": deviation,
                "interval": _half_interval(deviation, len(used)),
                "seeds": len(used),
                "folds": folds if complete.any() else cells["fold"].nunique(),
                "folds_of_task": folds,
                "complete": bool(complete.any()),
                "minutes": float(cells["seconds"].mean()) / 60,
            }
        )
    board = pd.DataFrame(rows)
    return board.sort_values(
        ["data", "task", "protocol", "label_fraction", "comparable", "score"],
        ascending=[True, True, True, True, True, False],
        ignore_index=True,
    )


def columns(board: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Format a leaderboard as headings and rows of text; scores are percentages."""
    headings = [
        *PLACE,
        "system",
        "score %",
        "±",
        "95 %",
        "seeds",
        "folds",
        "parameters",
        "minutes",
    ]
    preparations = board.groupby("task")["comparable"].nunique()
    versions = board.groupby("system")["system_version"].nunique()
    rows = []
    for row in board.to_dict("records"):
        task = row["task"] + (" [synthetic]" if row["data"] == "synthetic" else "")
        if preparations[row["task"]] > 1:  # shown apart, named by the manifest's hash
            task += f" [{row['comparable'][:6]}]"
        system = row["system"]
        if versions[system] > 1:
            system += f" [version {row['system_version']}]"
        folds = f"{row['folds']}" + ("" if row["complete"] else f" of {row['folds_of_task']}")
        rows.append(
            [
                task,
                row["protocol"],
                f"{row['label_fraction']:.3g}",
                system,
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


def as_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay a leaderboard out: a block for each board, its systems below."""
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
        manifest, card_version, protocol_version = row["comparable"].rsplit("/", 2)
        versions = {"card_version": int(card_version), "protocol_version": int(protocol_version)}
        rows.append(row | {"manifest_hash": manifest} | versions)
    return rows


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.2f}"


def _half_interval(deviation: float, seeds: int) -> float:
    if seeds < 2:
        return math.nan
    return float(stdtrit(seeds - 1, 0.975)) * deviation / math.sqrt(seeds)  # Student's t
