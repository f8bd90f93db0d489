"""The page: boards, figures and records in one file that opens offline and asks the network for nothing.

Python writes the data, `page/` holds how it is shown: a template, its style and its script, all put into the one file.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
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
from lape_bench.core.label_budget import LabelBudget
from lape_bench.data.catalog import load_card
from lape_bench.records.pack import record_in
from lape_bench.records.record import RunRecord
from lape_bench.report.display_names import (
    preparation_names,
    system_display_names,
    task_display_names,
)
from lape_bench.report.figures.style import numbered
from lape_bench.report.formatting import known_count, percent
from lape_bench.report.leaderboard import BOARD, ENTRY, contributes, footnotes
from lape_bench.report.overview import SELECTION, overview, selections, with_names
from lape_bench.results.cells import PREPARATION, Preparation
from lape_bench.results.load import Results
from lape_bench.results.scored_cells import CellPredictions
from lape_bench.results.system_card import CARD, SystemCard, read_card

MOST_BYTES = 18 * 2**20  # of data; with template and plain board the file stays below 20 MiB
CURVE_POINTS = 100
DIGITS = 4  # significant ones of a curve
OTHER = "other"
SCRIPTS = (  # joined into one script, in this order
    "elements.js",
    "view.js",
    "board.js",
    "plots.js",
    "label_curves.js",
    "record.js",
    "overview.js",
    "profile.js",
    "curves.js",
    "confusion.js",
    "start.js",
)

SharedValues = dict[
    str, int
]  # JSON texts that many entries refer to, with their positions in the page's data


def page(
    results: Results, board: pd.DataFrame, sources: Sequence[Path], most_bytes: int = MOST_BYTES
) -> str:
    """Return results as one HTML file: the same results give the same bytes.

    Args:
        results: cells and their predictions; a cell without predictions shows its score alone.
        board: `leaderboard.leaderboard` of the cells; ranks are shown if it has rank_best and rank_worst.
        sources: folders that the results were read from; records are named relative to them, and cards are read there.
        most_bytes: of data. If there is more, learning curves and confusion matrices are left out, and the page says so.
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
        style=Markup(_asset("page.css")),
        script=Markup("\n".join(map(_asset, SCRIPTS))),
        data=Markup(_json(data).replace("<", "\\u003c")),  # no text may end the script
        boards=data["boards"],
        entries=data["entries"],
        percent=percent,
        known_count=known_count,
        version=version("lape_bench"),
    )


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:  # a setting is infinite, which JSON cannot say
        return _json(_with_named_infinities(value))


def _with_named_infinities(value: Any) -> Any:
    """Replace numbers that are not finite by their names, such as "inf"."""
    if isinstance(value, dict):
        return {
            str(key) if isinstance(key, float) else key: _with_named_infinities(part)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_named_infinities(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _data(
    results: Results, board: pd.DataFrame, sources: Sequence[Path], most_bytes: int
) -> dict[str, Any]:
    cells = _by_entry(results.cells)
    cards = {}
    for source in sources:
        if (source / CARD).exists():
            with suppress(UserError):  # `load_results` named it among the problems
                cards[source] = read_card(source)
    by_board = board.groupby(BOARD, sort=False)
    board = board.assign(display_name=system_display_names(board), board=by_board.ngroup())
    mark_numbers = numbered(board["display_name"])
    shared: dict[str, SharedValues] = {
        name: {} for name in ("settings", "environments", "classes", "cards")
    }
    entries, records = [], []
    for row in board.to_dict("records"):
        key = _key([row[name] for name in ENTRY])
        own = cells[key]
        contributing = own[own["contributes"]]
        predictions = {
            n: results.predictions[n] for n in contributing.index if n in results.predictions
        }
        read = {n: record_in(of_cell.folder) for n, of_cell in predictions.items()}
        records.append((predictions, read))
        entries.append(
            {
                "id": hashlib.sha256(_json(list(map(str, key))).encode()).hexdigest()[:8],
                "board": row["board"],
                "system": row["display_name"],
                "look": mark_numbers[row["display_name"]],
                "rank": _rank(row),
                **{name: _finite(row[name]) for name in ("score", "std", "interval")},
                "interval_over": row["interval_over"],
                "metrics": _scores_by_metric(contributing),
                "grouped": bool(pd.notna(grouped := row.get("grouped")) and grouped),
                "groups": _known(row.get("groups")),
                "reference": bool(row["reference"]),
                "card": _card(predictions.values(), cards, shared["cards"]),
                **{name: row[name] for name in ("seeds", "folds", "folds_of_task", "complete")},
                "parameters": _known(row["parameters"]),
                "encoder": _known(row["encoder_parameters"]),
                "minutes": round(row["minutes"], 3),
                "changed": json.loads(own["settings"].iloc[0]),
                "by_seed": _plain_rows(
                    contributing.groupby("seed")[row["metric"]].mean().reset_index()
                ),
                "cells": [
                    [*cell, _record_name(results.predictions.get(n), sources), counts]
                    for n, counts, cell in zip(
                        own.index,
                        own["contributes"].tolist(),
                        _plain_rows(own[["seed", "fold", row["metric"]]]),
                        strict=True,
                    )
                ],
                "details": _entry_details(list(read.values()), shared) if read else None,
            }
        )
    data = {
        "overviews": _overviews(results, board),
        "boards": [_board(rows, board) for _, rows in by_board],
        "entries": entries,
        "metrics": metrics.METRICS,
        "left_out": {"records": len(results.problems), "curves": 0, "confusions": 0},
        **{name: [json.loads(text) for text in texts] for name, texts in shared.items()},
    }
    _add_matrices_and_curves(data, records, most_bytes)
    return data


def _card(
    predictions: Iterable[CellPredictions], cards: Mapping[Path, SystemCard], shared: SharedValues
) -> int | None:
    """Return the position of the card of the submission that an entry's records belong to; None without a card."""
    for of_cell in predictions:
        for source, card in cards.items():
            if of_cell.folder.is_relative_to(source):
                return _share(shared, card.model_dump(mode="json"))
    return None


def _scores_by_metric(cells: pd.DataFrame) -> list[float | None]:
    """Return the mean over seeds of the mean over folds by each of `METRICS`; None if it is not of this task."""
    by_seed = cells.groupby("seed")[[*metrics.METRICS]].mean()
    return [_finite(round(score, 6)) for score in by_seed.mean().tolist()]


def _key(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values of `ENTRY` as a key; what is missing is None, as pandas has several such values."""
    return tuple(None if pd.isna(value) else value for value in values)


def _overviews(results: Results, board: pd.DataFrame) -> list[dict[str, Any]]:
    """Return each overview; its scores are the positions of entries, which the rows of the board have."""
    named = board.assign(task_name=task_display_names(board), name_shown=board["display_name"])
    results = replace(results, cells=with_names(results.cells))
    keys = [*SELECTION, "task_name", "name_shown"]
    places = {key: n for n, key in enumerate(named[keys].itertuples(index=False, name=None))}
    found = []
    for selection in selections(results):
        seen = overview(results, *selection, named)
        tasks = [task.task for task in seen.tasks]
        systems = [
            [
                system.system,
                system.average,
                system.average_rank,
                system.average_rank_interval,
                system.encoder_parameters,
                round(system.seconds, 1),
                [
                    places[*selection, t, system.system] if t in system.scores else None
                    for t in tasks
                ],
                system.contamination,
            ]
            for system in seen.systems
        ]
        labels = LabelBudget.parse(seen.labels).description
        found.append(
            dict(zip(SELECTION, selection, strict=True))
            | {"labels_text": labels, "tasks": tasks, "systems": systems}
        )
    return found


def _by_entry(cells: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """Return the cells of each entry by seed and fold; the column `contributes` tells which its score is made of."""
    # As on the board, a cell that two folders hold counts once.
    cells = cells.drop_duplicates([*ENTRY, "seed", "fold"], keep="last")
    cells = cells.assign(entry=cells.groupby(ENTRY, dropna=False).ngroup()).sort_values(
        ["seed", "fold"]
    )
    grouped = cells.assign(contributes=contributes(cells)).groupby(ENTRY, sort=False, dropna=False)
    return {_key(values): of_entry for values, of_entry in grouped}


def _plain_rows(rows: pd.DataFrame) -> list[list[Any]]:
    """Return rows as lists of plain values."""
    return [list(row) for row in rows.itertuples(index=False, name=None)]


def _share(texts: SharedValues, value: Any) -> int:
    """Store plain data once and return its position."""
    return texts.setdefault(_json(value), len(texts))


def _board(rows: pd.DataFrame, board: pd.DataFrame) -> dict[str, Any]:
    """Describe one board, given its rows and those of all boards."""
    where: dict[str, Any] = dict(zip(BOARD, rows[BOARD].values.tolist()[0], strict=True))
    try:
        suite = load_card(where["task"]).suite
    except UserError:  # the task of a plug-in that is not installed here
        suite = OTHER
    names = preparation_names(board[board["task"] == where["task"]])
    budget = LabelBudget.parse(where["labels"])
    return {
        **where,
        "labels_text": budget.description,
        "labels_unit": budget.unit,
        "labels_amount": budget.amount,
        "labels_order": budget.order,
        "suite": suite,
        "preparation": names[Preparation(*(where[name] for name in PREPARATION))],
        "notes": footnotes(rows),
    }


def _rank(row: Mapping[Any, Any]) -> list[int] | None:
    """Return best and worst rank, if the row has them."""
    best, worst = row.get("rank_best"), row.get("rank_worst")
    return None if pd.isna(best) or pd.isna(worst) else [int(best), int(worst)]


def _record_name(of_cell: CellPredictions | None, sources: Sequence[Path]) -> str | None:
    """Name a record by its folder, relative to the folder of results."""
    if of_cell is None:
        return None
    for source in sources:
        if of_cell.folder.is_relative_to(source):
            return of_cell.folder.relative_to(source).as_posix()
    return of_cell.folder.name


def _entry_details(records: list[RunRecord], shared: dict[str, SharedValues]) -> dict[str, Any]:
    """Summarize the records of one entry, without their scores."""
    first = records[0]
    assert first.task is not None
    environments = [_share(shared["environments"], r.environment) for r in records]
    selection = [
        ", ".join(f"{choice} by {how}" for choice, how in r.selection.items()) for r in records
    ]
    return {
        "settings": _share(shared["settings"], flatten(first.settings)),
        "environments": _value_counts(environments),
        "classes": _share(shared["classes"], first.task.classes),
        "clips": first.task.clips,
        "selection": _value_counts(text for text in selection if text),
        "provenance": first.provenance,
        "stages": _stages(records),
        "artifacts": _artifacts(records),
        "trained": first.parameters.training if first.parameters else None,
        "curves": [],
        "confusion": None,
    }


def _value_counts(values: Iterable[Any]) -> list[list[Any]]:
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
        [name, round(float(np.mean([s for s, _ in runs])), 3), max(round(m, 1) for _, m in runs)]
        for name, runs in costs.items()
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


def _add_matrices_and_curves(
    data: dict[str, Any],
    records: Sequence[tuple[Mapping[int, CellPredictions], Mapping[int, RunRecord]]],
    most_bytes: int,
) -> None:
    """Add confusion matrices, then learning curves (every entry's first cell before a second), while there is room."""
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
    for entry, record in _round_robin(data["entries"], records):
        curves = {stage: _thin_curves(rows) for stage, rows in record.curves.items() if rows}
        if not curves:
            continue
        of_record = {"seed": record.cell.seed, "fold": record.cell.fold, "stages": curves}
        room -= len(_json(of_record).encode()) + 1  # and a comma
        if room >= 0:
            entry["details"]["curves"].append(of_record)
        else:
            data["left_out"]["curves"] += 1


def _round_robin(
    entries: Sequence[dict[str, Any]],
    records: Sequence[tuple[Mapping[int, CellPredictions], Mapping[int, RunRecord]]],
) -> Iterator[tuple[dict[str, Any], RunRecord]]:
    """Yield every entry's first record, then every entry's second, and so on."""
    lists = [list(read.values()) for _, read in records]
    for turn in range(max(map(len, lists), default=0)):
        for entry, own in zip(entries, lists, strict=True):
            if turn < len(own):
                yield entry, own[turn]


def _confusion(predictions: Iterable[CellPredictions], classes: Sequence[str]) -> list[int]:
    """Sum confusion matrices and return the entries that are not 0, as row, column, count, row, ..."""
    total = np.zeros((len(classes), len(classes)), np.int64)
    for of_cell in predictions:
        labels, predicted = of_cell.labels.astype(np.int64), of_cell.predicted.astype(np.int64)
        total += metrics.confusion_matrix(labels, predicted, len(classes))
    rows, columns = np.nonzero(total)
    counts = total[rows, columns]
    flat: list[int] = np.stack([rows, columns, counts], axis=1).ravel().tolist()
    return flat


def _thin_curves(rows: Sequence[Mapping[str, float]]) -> dict[str, list[list[float | None]]]:
    """Return epochs and values of each quantity, thinned evenly to `CURVE_POINTS`."""
    curves = {}
    for name in dict.fromkeys(name for row in rows for name in row if name != "epoch"):
        points = [(row.get("epoch", n + 1), row[name]) for n, row in enumerate(rows) if name in row]
        chosen = np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(int)
        picked = [points[index] for index in chosen]
        curves[name] = [[_rounded(e) for e, _ in picked], [_rounded(v) for _, v in picked]]
    return curves


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _known(count: Any) -> int | None:
    return None if pd.isna(count) else int(count)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
