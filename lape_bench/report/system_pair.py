"""Two systems of one board, found by their names."""

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
    """Two systems that were run on one board.

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
) -> SystemPair:
    """Find the cells of two systems on one task.

    Args:
        results: with predictions.
        a: a system as the leaderboard names it, or without its settings if it has one variant here.
        b: the other one.
        task: the task.
        protocol: None for the only one by which both were run; the same holds for the next two.
        labels: the label budget, such as 10% or 5-shot.
        data: "real" or "synthetic".

    Raises:
        UserError: a name fits no system or several; both names fit the same system; the open choices have no answer
            or several; or a cell comes from a table.
    """
    cells = results.cells.assign(display_name=system_display_names(results.cells))
    for column, value in {
        "task": task,
        "data": data,
        "protocol": protocol,
        "labels": labels if labels is None else str(LabelBudget.parse(labels)),
    }.items():
        if value is not None:
            kept = cells[cells[column] == value]
            if kept.empty:
                kind = f"{column.replace('_', ' ')} with results"
                raise unknown(kind, f"{value}", map(str, cells[column].unique()))
            cells = kept
    names = (find_system(cells, a, f" on {task}"), find_system(cells, b, f" on {task}"))
    if names[0] == names[1]:
        raise UserError(f"'{a}' and '{b}' are one system, {names[0]}", next_step="name another one")
    of_systems = [cells[cells["display_name"] == name] for name in names]
    board = _common_board(names, of_systems)
    compared = [own[(own[BOARD] == board).all(axis=1)] for own in of_systems]
    for name, own in zip(names, compared, strict=True):
        if any(index not in results.predictions for index in own.index):
            raise UserError(
                f"cells of {name} come from a table, which holds no predictions",
                next_step="give --out a folder of their records",
            )
    return SystemPair(names, (compared[0], compared[1]), results.predictions)


def _common_board(names: tuple[str, str], of_systems: list[pd.DataFrame]) -> pd.Series:
    """Return the only board that has both systems."""
    boards = [own[BOARD].drop_duplicates() for own in of_systems]
    common = boards[0].merge(boards[1])
    if len(common) == 1:
        return common.iloc[0]
    if common.empty:
        raise UserError(
            f"{names[0]} and {names[1]} share no protocol and label budget on one preparation of the task",
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
    for data, protocol, labels, *preparation in boards.sort_values(BOARD).itertuples(index=False):
        name = names[Preparation(*preparation)]
        texts.append(f"{data} {protocol} {labels}" + (f" [{name}]" if name else ""))
    return ", ".join(texts)
