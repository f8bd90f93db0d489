"""Two systems on one task and label budget, found by their names."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from lape_bench.core.errors import UserError, unknown
from lape_bench.core.label_budget import LabelBudget
from lape_bench.report.display_names import find_system, preparation_names, system_display_names
from lape_bench.results.cells import PREPARATION, Preparation
from lape_bench.results.load import Results
from lape_bench.results.scored_cells import CellPredictions

BOARD = ["data", "protocol", "labels", *PREPARATION]  # of one task


class SystemPair(NamedTuple):
    """Two systems that were run on one task with one label budget.

    Attributes:
        names: of both, as the leaderboard has them.
        cells: of both.
        predictions: by the index of the cells.
    """

    names: tuple[str, str]
    cells: tuple[pd.DataFrame, pd.DataFrame]
    predictions: Mapping[int, CellPredictions]


def find_pair(
    results: Results,
    a: str,
    b: str,
    task: str,
    protocol: str | None = None,
    labels: str | None = None,
    data: str | None = None,
    other_protocol: str | None = None,
) -> SystemPair:
    """Find the cells of two systems on one task.

    Args:
        results: with predictions.
        a: a system as the leaderboard names it, or without its settings if it has one variant here.
        b: the other one.
        task: the task.
        protocol: of a, and of b if `other_protocol` is None. None for the only one by which both were run; the same holds for
            the next two.
        labels: the label budget, such as 10% or 5-shot.
        data: "real" or "synthetic".
        other_protocol: of b, if it differs; then `protocol` is needed.

    Raises:
        UserError: a name fits no system or several; both names fit the same system; the open choices have no answer
            or several; or a cell comes from a table.
    """
    if other_protocol is not None and protocol is None:
        raise UserError(
            f"the protocol of '{b}' is given, {other_protocol}, and not that of '{a}'",
            next_step="give both",
        )
    cells = results.cells.assign(display_name=system_display_names(results.cells))
    budget = labels if labels is None else str(LabelBudget.parse(labels))
    for column, value in {"task": task, "data": data, "labels": budget}.items():
        cells = _with(cells, column, value)
    protocols = (protocol, other_protocol or protocol)
    own_a, own_b = (_with(cells, "protocol", value) for value in protocols)
    names = (find_system(own_a, a, f" on {task}"), find_system(own_b, b, f" on {task}"))
    if names[0] == names[1] and protocols[0] == protocols[1]:
        raise UserError(
            f"'{a}' and '{b}' are one system, {names[0]}",
            next_step="name another one; 'bench compare' compares two protocols of a system by --protocol and --other-protocol",
        )
    of_systems = [
        own_a[own_a["display_name"] == names[0]],
        own_b[own_b["display_name"] == names[1]],
    ]
    shared = [column for column in BOARD if column != "protocol" or other_protocol is None]
    board = _common_board(names, of_systems, shared)
    compared = [own[(own[shared] == board).all(axis=1)] for own in of_systems]
    for name, own in zip(names, compared, strict=True):
        if any(index not in results.predictions for index in own.index):
            raise UserError(
                f"cells of {name} come from a table, which holds no predictions",
                next_step="give --out a folder of their records",
            )
    return SystemPair(names, (compared[0], compared[1]), results.predictions)


def _with(cells: pd.DataFrame, column: str, value: str | None) -> pd.DataFrame:
    """Return the cells with a value, or all if it is None."""
    if value is None:
        return cells
    kept = cells[cells[column] == value]
    if kept.empty:
        raise unknown(f"{column} with results", value, map(str, cells[column].unique()))
    return kept


def _common_board(
    names: tuple[str, str], of_systems: list[pd.DataFrame], columns: list[str]
) -> pd.Series:
    """Return the only values of some columns of `BOARD` that both systems have."""
    boards = [own[columns].drop_duplicates() for own in of_systems]
    common = boards[0].merge(boards[1])
    if len(common) == 1:
        return common.iloc[0]
    if common.empty:
        what = "protocol and label budget" if "protocol" in columns else "label budget"
        raise UserError(
            f"{names[0]} and {names[1]} share no {what} on one preparation of the task",
            allowed="; ".join(
                f"{name} has {_board_list(own)}" for name, own in zip(names, boards, strict=True)
            ),
        )
    raise UserError(
        f"{names[0]} and {names[1]} can be compared in {len(common)} ways",
        allowed=_board_list(common),
        next_step="choose by --protocol, --labels and --data, or of two preparations (in brackets) by --out",
    )


def _board_list(boards: pd.DataFrame) -> str:
    names = preparation_names(boards)
    texts = []
    for board in boards.sort_values([*boards]).to_dict("records"):
        name = names[Preparation(*(board[column] for column in PREPARATION))]
        words = [board[column] for column in BOARD if column not in PREPARATION and column in board]
        texts.append(" ".join(words) + (f" [{name}]" if name else ""))
    return ", ".join(texts)
