"""Published scores, read from CSV files and checked, each with its source.

They are shown beside the scores of records and never averaged with them, since they come from other code, and often
from another split or selection.
"""

import csv
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError, did_you_mean
from lape_bench.core.paths import require_exists
from lape_bench.core.printable import is_printable
from lape_bench.data.catalog import load_card
from lape_bench.records.record import ProtocolName

INSTALLED = "lape_bench.published"  # results/published of the repository


class PublishedFigure(Frozen):
    """One accuracy of one system on one task, measured by others on all labels of real audio."""

    system: str = Field(min_length=1, description="as the source calls it")
    task: str = Field(min_length=1, description="name, or name@variant")
    protocol: ProtocolName
    accuracy_percent: float = Field(ge=0, le=100)
    std_percent: float | None = Field(
        None, ge=0, description="standard deviation, if the source gives it"
    )
    encoder_parameters: int | None = Field(None, ge=0)
    source: str = Field(
        min_length=1, description="place of the number in the source, such as a table"
    )


def load_published(own: Sequence[Path] = ()) -> list[PublishedFigure]:
    """Read the figures that come with the harness, and a user's own.

    Args:
        own: CSV files, or folders of them.

    Raises:
        UserError: a file or folder is not there, or a line does not hold; see `read_published`.
    """
    paths = _csv_files(Path(str(files(INSTALLED))))
    for place in own:
        place = require_exists(place, "the file of published figures")
        found = _csv_files(place) if place.is_dir() else [place]
        if not found:
            raise UserError(f"{place} holds no CSV file of published figures")
        paths += found
    return read_published(paths)


def read_published(paths: Sequence[Path]) -> list[PublishedFigure]:
    """Read and check CSV files of published figures.

    Raises:
        UserError: a column or value is missing or wrong, a task is unknown or generated, or a figure of one
            source appears twice; the message names the file and line.
    """
    places: dict[tuple[str, str, str, str], str] = {}
    figures = []
    for path in paths:
        for line, values in _lines(path):
            where = f"{path}, line {line}"
            figure = _checked(values, where)
            key = (figure.system, figure.task, figure.protocol, figure.source)
            if key in places:
                raise UserError(
                    f"{where}: {figure.system} on {figure.task} ({figure.protocol}) of that source is in "
                    f"{places[key]} too",
                    next_step="keep one of them",
                )
            places[key] = where
            figures.append(figure)
    return figures


def _csv_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.csv"))


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the lines of a CSV file with their numbers; an empty field is none."""
    known = list(PublishedFigure.model_fields)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            for name in reader.fieldnames or ():
                if name not in known:
                    hint = did_you_mean(name, known)
                    raise UserError(
                        f"{path}: there is no column '{name}'" + (f": {hint}" if hint else ""),
                        allowed=f"columns: {', '.join(known)}",
                    )
            return [(reader.line_num, _given(row)) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def _given(row: dict[str, Any]) -> dict[str, Any]:
    stripped = {k: v.strip() if isinstance(v, str) else v for k, v in row.items()}
    return {key: value for key, value in stripped.items() if value}


def _checked(values: dict[str, Any], where: str) -> PublishedFigure:
    try:
        figure = PublishedFigure.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise UserError(
                f"{where}: no {name} is given", next_step="give one, or leave the figure out"
            ) from error
        raise UserError(f"{where}: '{name}': {first['msg']} (it is {first['input']!r})") from error
    if not is_printable(figure.system + figure.source):
        raise UserError(
            f"{where}: 'system' or 'source' holds control characters", allowed="printable text"
        )
    try:
        card = load_card(figure.task)
    except UserError as error:
        raise UserError(f"{where}: {error.what}", allowed=error.allowed) from error
    if card.data != "real":
        raise UserError(f"{where}: {figure.task} is generated, and nobody else has published on it")
    return figure
