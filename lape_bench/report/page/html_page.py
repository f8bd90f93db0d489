"""The page: boards, figures and records in one file that opens offline and asks the network for nothing.

Python writes the data, `page/` holds how it is shown: a template, its style and its script, all put into the one file.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lape_bench import metrics
from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError
from lape_bench.data.catalog import load_card
from lape_bench.records.record import RunRecord, read_record
from lape_bench.report.display_names import preparation_names, system_display_names
from lape_bench.report.figures.style import numbered
from lape_bench.report.formatting import percent
from lape_bench.report.leaderboard import BOARD, ENTRY, contributes, footnotes
from lape_bench.results.cells import PREPARATION, Preparation
from lape_bench.results.load import CellPredictions, Results

MOST_BYTES = 18 * 2**20  # of data; with template and plain board the file stays below 20 MiB
CURVE_POINTS = 100
DIGITS = 4  # significant ones of a curve
OTHER = "other"
SCRIPTS = (  # one script, in this order
    "elements.js",
    "view.js",
    "board.js",
    "plots.js",
    "fractions.js",
    "record.js",
    "curves.js",
    "confusion.js",
    "start.js",
)

Interned = dict[str, int]  # plain data as JSON, by the place where it is kept once


def page(
    results: Results, board: pd.DataFrame, sources: Sequence[Path], most_bytes: int = MOST_BYTES
) -> str:
    """Lay results out as one HTML file: same results, same bytes.

    Args:
        results: cells and their predictions; of a cell that has none only its score is told.
        board: `leaderboard.leaderboard` of the cells; a rank is shown where it has rank_best and rank_worst.
        sources: what the results were read from; records are named relative to it.
        most_bytes: of data. Beyond it learning curves and confusion matrices are left out, which the page says.
    """
    data = _data(results, board, sources, most_bytes)
    environment = Environment(
        loader=PackageLoader("lape_bench.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        style=Markup(_part("page.css")),
        script=Markup("\n".join(map(_part, SCRIPTS))),
        data=Markup(_json(data).replace("<", "\\u003c")),  # no text may end the script
        boards=data["boards"],
        entries=data["entries"],
        percent=percent,
        version=version("lape_bench"),
    )


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _data(
    results: Results, board: pd.DataFrame, sources: Sequence[Path], most_bytes: int
) -> dict[str, Any]:
    cells = _by_entry(results.cells)
    by_board = board.groupby(BOARD, sort=False)
    board = board.assign(display_name=system_display_names(board), board=by_board.ngroup())
    looks = numbered(board["display_name"])
    shared: dict[str, Interned] = {"settings": {}, "environments": {}, "classes": {}}
    entries, records = [], []
    for row in board.to_dict("records"):
        key = tuple(row[name] for name in ENTRY)
        own = cells[key]
        behind = own[own["contributes"]]
        predictions = {n: results.predictions[n] for n in behind.index if n in results.predictions}
        read = {n: read_record(of_cell.folder) for n, of_cell in predictions.items()}
        records.append((predictions, read))
        entries.append(
            {
                "id": hashlib.sha256(_json(list(map(str, key))).encode()).hexdigest()[:8],
                "board": row["board"],
                "system": row["display_name"],
                "look": looks[row["display_name"]],
                "rank": _rank(row),
                **{name: _finite(row[name]) for name in ("score", "std", "interval")},
                **{name: row[name] for name in ("seeds", "folds", "folds_of_task", "complete")},
                "parameters": row["parameters"],
                "encoder": row["encoder_parameters"],
                "minutes": round(row["minutes"], 3),
                "changed": json.loads(own["settings"].iloc[0]),
                "by_seed": _listed(behind.groupby("seed")[row["metric"]].mean().reset_index()),
                "cells": [
                    [*cell, _told(results.predictions.get(n), sources), counts]
                    for n, counts, cell in zip(
                        own.index,
                        own["contributes"].tolist(),
                        _listed(own[["seed", "fold", row["metric"]]]),
                        strict=True,
                    )
                ],
                "details": _details(list(read.values()), shared) if read else None,
            }
        )
    data = {
        "boards": [_board(rows, board) for _, rows in by_board],
        "entries": entries,
        "left_out": {"records": len(results.problems), "curves": 0, "confusions": 0},
        **{name: [json.loads(text) for text in texts] for name, texts in shared.items()},
    }
    _fill(data, records, most_bytes)
    return data


def _by_entry(cells: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """Return the cells of each entry by seed and fold, and in the column `counted` whether its score is of them."""
    # As on the board: a cell that two folders hold is there once.
    cells = cells.drop_duplicates([*ENTRY, "seed", "fold"], keep="last")
    cells = cells.assign(entry=cells.groupby(ENTRY).ngroup()).sort_values(["seed", "fold"])
    return dict(iter(cells.assign(contributes=contributes(cells)).groupby(ENTRY, sort=False)))


def _listed(rows: pd.DataFrame) -> list[list[Any]]:
    """Return rows as plain numbers, each of its column's type."""
    return [list(row) for row in rows.itertuples(index=False, name=None)]


def _kept(texts: Interned, value: Any) -> int:
    """Keep plain data once and return its place."""
    return texts.setdefault(_json(value), len(texts))


def _board(rows: pd.DataFrame, board: pd.DataFrame) -> dict[str, Any]:
    """Tell of one board, given its rows and those of all, what it is and what is to be noted of it."""
    where: dict[str, Any] = dict(zip(BOARD, rows[BOARD].values.tolist()[0], strict=True))
    try:
        suite = load_card(where["task"]).suite
    except UserError:  # a task of another machine, or of a plug-in that is not installed here
        suite = OTHER
    names = preparation_names(board[board["task"] == where["task"]])
    return {
        **where,
        "suite": suite,
        "preparation": names[Preparation(*(where[name] for name in PREPARATION))],
        "notes": footnotes(rows),
    }


def _rank(row: Mapping[Any, Any]) -> list[int] | None:
    """Return best and worst rank, where the board has ranks and this row one."""
    best, worst = row.get("rank_best"), row.get("rank_worst")
    return None if pd.isna(best) or pd.isna(worst) else [int(best), int(worst)]


def _told(of_cell: CellPredictions | None, sources: Sequence[Path]) -> str | None:
    """Name a record by its folder, relative to the folder of results."""
    if of_cell is None:
        return None
    for source in sources:
        if of_cell.folder.is_relative_to(source):
            return of_cell.folder.relative_to(source).as_posix()
    return of_cell.folder.name


def _details(records: list[RunRecord], shared: dict[str, Interned]) -> dict[str, Any]:
    """Sum up what the records of one entry say beside their scores."""
    first = records[0]
    assert first.task is not None
    environments = [_kept(shared["environments"], each.environment) for each in records]
    selection = [
        ", ".join(f"{what} on {side}" for what, side in r.selection.items()) for r in records
    ]
    return {
        "settings": _kept(shared["settings"], flatten(first.settings)),
        "environments": _counted(environments),
        "classes": _kept(shared["classes"], first.task.classes),
        "clips": first.task.clips,
        "selection": _counted(text for text in selection if text),
        "provenance": first.provenance,
        "stages": _stages(records),
        "artifacts": _artifacts(records),
        "trained": first.parameters.training if first.parameters else None,
        "curves": [],
        "confusion": None,
    }


def _counted(values: Iterable[Any]) -> list[list[Any]]:
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return [[value, count] for value, count in counts.items()]


def _stages(records: list[RunRecord]) -> list[list[Any]]:
    """Return name, mean seconds and highest peak memory in MiB of each stage."""
    costs: dict[str, list[tuple[float, float]]] = {}
    for stage in (stage for record in records for stage in record.stages):
        costs.setdefault(stage.name, []).append((stage.seconds, stage.peak_memory_mib))
    return [
        [name, round(float(np.mean([s for s, _ in each])), 3), max(round(m, 1) for _, m in each)]
        for name, each in costs.items()
    ]


def _artifacts(records: list[RunRecord]) -> list[list[Any]]:
    """Return kind, mean seconds of making and hashes of each kind of cached stage."""
    made: dict[str, dict[str, float]] = {}
    for use in (use for record in records for use in record.artifacts):
        made.setdefault(use.kind, {})[use.hash] = use.seconds
    return [
        [kind, round(float(np.mean(list(each.values()))), 3), [name[:12] for name in each]]
        for kind, each in made.items()
    ]


def _fill(
    data: dict[str, Any],
    records: Sequence[tuple[Mapping[int, CellPredictions], Mapping[int, RunRecord]]],
    most_bytes: int,
) -> None:
    """Add confusion matrices, then learning curves, every entry's first cell before a second, as far as room is left."""
    room = most_bytes - len(_json(data).encode())
    for entry, (predictions, _) in zip(data["entries"], records, strict=True):
        if predictions:
            confusion = _confusion(
                predictions.values(), data["classes"][entry["details"]["classes"]]
            )
            room -= len(_json(confusion))
            if room >= 0:
                entry["details"]["confusion"] = confusion
            else:
                data["left_out"]["confusions"] += 1
    for entry, record in _in_turn(data["entries"], records):
        curves = {stage: _thinned(rows) for stage, rows in record.curves.items() if rows}
        if not curves:
            continue
        told = {"seed": record.cell.seed, "fold": record.cell.fold, "stages": curves}
        room -= len(_json(told).encode()) + 1  # and a comma
        if room >= 0:
            entry["details"]["curves"].append(told)
        else:
            data["left_out"]["curves"] += 1


def _in_turn(
    entries: Sequence[dict[str, Any]],
    records: Sequence[tuple[Mapping[int, CellPredictions], Mapping[int, RunRecord]]],
) -> Iterator[tuple[dict[str, Any], RunRecord]]:
    """Go through every entry's first record, then every entry's second, and so on."""
    lists = [list(read.values()) for _, read in records]
    for turn in range(max(map(len, lists), default=0)):
        for entry, own in zip(entries, lists, strict=True):
            if turn < len(own):
                yield entry, own[turn]


def _confusion(predictions: Iterable[CellPredictions], classes: Sequence[str]) -> list[int]:
    """Sum confusion matrices and return the entries that are not 0, as row, column, count, row, ..."""
    total = np.zeros((len(classes), len(classes)), np.int64)
    for of_cell in predictions:
        labels, taken = of_cell.labels.astype(np.int64), of_cell.predicted.astype(np.int64)
        total += metrics.confusion_matrix(labels, taken, len(classes))
    rows, columns = np.nonzero(total)
    counts = total[rows, columns]
    flat: list[int] = np.stack([rows, columns, counts], axis=1).ravel().tolist()
    return flat


def _thinned(rows: Sequence[Mapping[str, float]]) -> dict[str, list[list[float | None]]]:
    """Return epochs and values of each quantity, evenly thinned to what a small panel can show."""
    curves = {}
    for name in dict.fromkeys(name for row in rows for name in row if name != "epoch"):
        points = [(row.get("epoch", n + 1), row[name]) for n, row in enumerate(rows) if name in row]
        kept = np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(int)
        picked = [points[index] for index in kept]
        curves[name] = [[_rounded(e) for e, _ in picked], [_rounded(v) for _, v in picked]]
    return curves


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
