"""The leaderboard: mean and deviation over seeds, of the mean over folds, with what stands behind them."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text
from scipy.special import stdtrit

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
    """Draw a leaderboard for the terminal: a line for each board, its systems below."""
    places = len(PLACE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(headings[places], overflow="fold")
    for heading in headings[places + 1 :]:
        table.add_column(heading, justify="right", no_wrap=True)
    before: Sequence[str] = ()
    for row in rows:
        if row[:places] != before:
            before = row[:places]
            task, protocol, labels = before
            part = "" if labels == "1" else f", {labels} of the labels"
            table.add_row(Text(f"{task}, {protocol}{part}", "bold"))
        table.add_row("  " + row[places], *row[places + 1 :])
    return table


def as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a leaderboard as a Markdown table."""
    left = (*PLACE, "system")
    lines = [
        "| " + " | ".join(headings) + " |",
        "|" + "|".join("---" if heading in left else "---:" for heading in headings) + "|",
    ]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def as_csv(board: pd.DataFrame) -> str:
    """Write a leaderboard as CSV, unrounded, scores in [0, 1]."""
    return board.to_csv(index=False)


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.2f}"


def _half_interval(deviation: float, seeds: int) -> float:
    if seeds < 2:
        return math.nan
    return float(stdtrit(seeds - 1, 0.975)) * deviation / math.sqrt(seeds)  # Student's t
