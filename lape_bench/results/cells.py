"""The table of cells: one row for each finished cell, with typed columns, kept as a CSV file.

`COLUMNS` is the one description of the table: it types cells read from records, and checks cells read from a file.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from lape_bench import metrics
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.label_budget import PATTERN as LABEL_BUDGET
from lape_bench.core.printable import is_printable, printable
from lape_bench.core.regular_files import MOST_TABLE_BYTES, read_text
from lape_bench.records.record import LABEL
from lape_bench.results.system_card import FROM_LEAST

SOURCES = "a folder of records, or a file that 'bench report --format cells' wrote"


@dataclass(frozen=True)
class Column:
    """Type and allowed values of a column.

    Attributes:
        dtype: as pandas has it; Int64 holds missing values.
        low: least allowed number.
        high: largest allowed number; infinity itself is not allowed.
        pattern: regular expression that a whole text has to match.
        is_json: whether a text has to be a JSON object.
        may_lack: whether a number may be missing (NaN).
    """

    dtype: Literal["str", "int64", "Int64", "float64"]
    low: float = 0
    high: float = math.inf
    pattern: str = ".+"
    is_json: bool = False
    may_lack: bool = False


TEXT, COUNT, KNOWN_COUNT = Column("str"), Column("int64"), Column("Int64", may_lack=True)
COLUMNS = {
    "system": TEXT,  # its label; else its name, with the settings that differ from its defaults
    "name": TEXT,
    "label": Column("str", pattern=f"({LABEL})?"),  # what its user calls it; often empty
    "settings": Column("str", is_json=True),  # those that differ from the defaults
    "system_version": COUNT,
    "provenance_hash": Column("str", pattern="[0-9a-f]*"),  # of weights and plug-ins; often empty
    "task": TEXT,
    "data": Column("str", pattern="real|synthetic"),
    "metric": Column("str", pattern="|".join(metrics.METRICS)),  # that the task is ranked by
    "folds_of_task": Column("int64", low=1),
    "manifest_hash": Column("str", pattern=r"\w+"),
    "card_version": COUNT,
    "protocol": TEXT,
    "protocol_version": COUNT,
    "labels": Column("str", pattern=LABEL_BUDGET),  # the label budget
    "seed": COUNT,
    "fold": COUNT,
    "parameters": KNOWN_COUNT,  # encoder and classifier; missing if unknown, like the next two
    "encoder_parameters": KNOWN_COUNT,
    "trained_parameters": KNOWN_COUNT,  # the most in any training stage
    "upstream": Column("str", pattern=r"\w*"),  # hash of the pre-trained upstream; often empty
    "training_labels": Column("float64", may_lack=True),
    "selection_labels": Column("float64", may_lack=True),  # 0 if nothing was selected
    "seconds": Column("float64"),  # of learning, cached stages included
    "reference": Column("int64", high=1),  # 1 if it came with the harness, or is a submission
    "contamination": Column("str", pattern=f"({'|'.join(FROM_LEAST)})?"),  # empty without a card
    "validation": Column("float64", high=1, may_lack=True),  # score by the task's metric
    **dict.fromkeys(metrics.CLASS_METRICS, Column("float64", high=1)),
    metrics.ROC_AUC: Column("float64", high=1, may_lack=True),  # of two classes
}
NEWER_COLUMNS = [
    metrics.ROC_AUC,
    "upstream",
    "training_labels",
    "selection_labels",
    "label",
    "reference",
    "contamination",
]  # which tables lack that were written before
# A table may hold further columns: floats that help to explain a score, and that most systems lack.
DIAGNOSIS = Column("float64", low=-math.inf, may_lack=True)


class Preparation(NamedTuple):
    """The versions that have to match before scores on a task may be compared; columns of the table."""

    manifest_hash: str
    card_version: int
    protocol_version: int


PREPARATION = [*Preparation._fields]
SYSTEM_VERSION = ["system_version", "provenance_hash"]
# Two rows that agree in these are the same cell.
CELL = [
    "system",
    *SYSTEM_VERSION,
    "task",
    "data",
    "protocol",
    "labels",
    "seed",
    "fold",
    *PREPARATION,
]


def cells_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a table with all columns, each of its type; keys that are not columns are diagnoses."""
    cells = pd.DataFrame(rows)
    cells = cells.reindex(columns=[*dict.fromkeys([*COLUMNS, *cells.columns])])
    return cells.astype({name: _column(name).dtype for name in cells.columns})


def write_cells(cells: pd.DataFrame) -> str:
    """Write a table of cells as CSV, unrounded."""
    return cells.to_csv(index=False)


def read_cells(path: Path) -> pd.DataFrame:
    """Read and check a CSV file that `write_cells` wrote.

    Raises:
        UserError: a column is missing, or a value is not allowed; the column or line is named.
    """
    try:
        # As text, since pandas would read a system called None as a missing value.
        content = io.StringIO(read_text(path, MOST_TABLE_BYTES))
        texts = pd.read_csv(content, dtype="str", keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a table of cells: {reason}", allowed=SOURCES) from error
    newer = dict.fromkeys(NEWER_COLUMNS, "") | {"reference": "0"}
    texts = texts.assign(**{name: value for name, value in newer.items() if name not in texts})
    for name in COLUMNS:
        if name not in texts:
            raise UserError(f"{path} has no column '{name}'", allowed=SOURCES)
    cells = pd.DataFrame({name: _checked(path, texts[name], _column(name)) for name in texts})
    return cells[[*dict.fromkeys([*COLUMNS, *texts])]]


def _column(name: Any) -> Column:
    return COLUMNS.get(name, DIAGNOSIS)


def _checked(path: Path, texts: pd.Series, column: Column) -> pd.Series:
    """Return a column of texts with the column's type."""
    if column.is_json:
        values, allowed = texts, texts.map(_is_json) & texts.map(is_printable)
    elif column.dtype == "str":
        values, allowed = texts, texts.str.fullmatch(column.pattern) & texts.map(is_printable)
    else:
        values = texts.map(_number).astype("float64")
        allowed = values.between(column.low, column.high) & np.isfinite(values)
        if column.dtype in ("int64", "Int64"):
            allowed &= (values % 1 == 0) & (values < 2.0**63)
        if column.may_lack:
            allowed |= texts == ""
    wrong = ~allowed.astype(bool).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path}, line {row + 2}: '{texts.name}' is '{printable(texts.iloc[row])}'",
            allowed=SOURCES,
        )
    if column.dtype == "int64":  # a float has no room for a large seed
        return texts.map(lambda text: int(text) if text.isdecimal() else int(float(text))).astype(
            "int64"
        )
    return values.astype(column.dtype)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def on_validation(cells: pd.DataFrame) -> pd.DataFrame:
    """Replace test scores by validation scores, for choosing settings; cells without one are left out.

    Raises:
        UserError: no cell has a validation score; cells of `knn` never have one.
    """
    validated = cells[cells["validation"].notna()]
    if validated.empty:
        raise UserError(
            "no cell has a score on validation",
            allowed="cells of finetune and linear, of systems that use the validation split",
        )
    return validated.assign(**dict.fromkeys(validated["metric"].unique(), validated["validation"]))


def by_metric(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Have cells ranked by one metric instead of that of each task; cells that lack it are left out.

    Raises:
        UserError: the metric is unknown, or no cell has it.
    """
    if metric not in metrics.METRICS:
        raise unknown("metric", metric, metrics.METRICS)
    having = cells[cells[metric].notna()]
    if having.empty:
        raise UserError(
            f"no cell has the metric '{metric}'",
            allowed=f"{metrics.ROC_AUC} for tasks of two classes, {', '.join(metrics.CLASS_METRICS)} for all",
        )
    return having.assign(metric=metric)
