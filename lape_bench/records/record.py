"""Cells and their records: what was run, the result, and everything needed to recompute it.

A cell's folder holds `record.json` and `predictions.parquet` (`predictions.py`). Each file is written whole or not at
all, the record last.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import from_json

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError
from lape_bench.core.paths import write_text

SCHEMA_VERSION = 1
LONGEST_NAME = 120  # characters of a folder's name; a system's argument may be a long path
PROTOCOL_VERSION = 1  # raised whenever the protocol changes in a way that could change a score
RECORD, PREDICTIONS, ERROR = "record.json", "predictions.parquet", "error.txt"
WORK, LOCK = "work", ".lock"  # needed beside them only while a cell runs
SEAL = (
    b',\n  "seal": '  # begins the last line of a record; the SHA-256 of the text before it follows
)


ProtocolName = Literal["finetune", "linear", "knn"]
LabelFraction = Annotated[float, Field(gt=0, le=1, description="share of the train labels")]


class Cell(Frozen):
    """One run: a system on a task, by a protocol, with a label fraction, seed and fold."""

    system: str = Field(description="a registered name, KIND:ARGUMENT, or file.py:Class")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ from the system's defaults"
    )
    task: str = Field(description="name, or name@variant")
    protocol: ProtocolName
    label_fraction: LabelFraction = 1.0
    seed: int = Field(0, ge=0)
    fold: int = Field(0, ge=0, description="from 1; 0 for an official split")

    @property
    def system_name(self) -> str:
        """The system; of a file, its name without the folders."""
        path, colon, kind = self.system.rpartition(":")
        return f"{Path(path).name}{colon}{kind}" if path.endswith(".py") else self.system

    @property
    def title(self) -> str:
        """The cell in one line."""
        fold = f", fold {self.fold}" if self.fold else ""
        part = f", {100 * self.label_fraction:.3g} % of labels" if self.label_fraction < 1 else ""
        return f"{self.system_name} on {self.task} ({self.protocol}{part}, seed {self.seed}{fold})"


class ParameterCounts(Frozen):
    """Counts of parameters, trainable and fixed.

    Attributes:
        encoder: the encoder alone.
        inference: encoder and classifier, as scoring needs them.
        training: the largest count of any training stage.
    """

    encoder: int
    inference: int
    training: int


class StageCost(Frozen):
    """Time and memory of one stage of a cell.

    Attributes:
        name: the stage.
        seconds: wall-clock time; if the run was resumed, the time since then.
        peak_memory_mib: peak memory while it ran: resident memory of the process on a CPU, allocated device
            memory elsewhere; 0 if the operating system does not report it.
    """

    name: str
    seconds: float
    peak_memory_mib: float


class TaskFacts(Frozen):
    """The task as it was when the cell ran."""

    name: str
    variant: str
    card_version: int
    data: Literal["real", "synthetic"]
    manifest_hash: str
    classes: tuple[str, ...]
    metric: str
    folds: int
    clips: dict[str, int] = Field(description="clips of train, labeled, validation and test")
    skipped: int
    window_seconds: float | None = Field(None, description="length of a training window")


class ArtifactUse(Frozen):
    """A cached artifact that a cell computed or loaded.

    Attributes:
        kind: such as "upstream".
        hash: key of the artifact, a hash of everything that determines it; `bench artifacts list` shows it.
        sha256: of its bytes.
        seconds: time it took to compute, in this run or an earlier one.
        found: whether an earlier run had computed it.
        waited: seconds of waiting until another run had computed it.
    """

    kind: str
    hash: str
    sha256: str = ""
    seconds: float = 0.0
    found: bool = True
    waited: float = 0.0


class RunRecord(Frozen):
    """A cell, its settings and its result."""

    schema_version: int = SCHEMA_VERSION
    protocol_version: int = PROTOCOL_VERSION
    cell: Cell
    identity: str = Field(description="hash of everything that determines the result")
    settings: dict[str, Any] = Field(description="every setting, resolved")
    system_version: int
    provenance: dict[str, str] = Field(
        default_factory=dict,
        description="what else determines the result, such as a plug-in's file or weights, by SHA-256",
    )
    task: TaskFacts | None = None
    status: Literal["finished", "failed"]
    error: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    predictions_sha256: str | None = None
    selection: dict[str, str] = Field(
        default_factory=dict, description="what was chosen, and on which split"
    )
    validation: float | None = Field(
        None,
        description="the task's metric on the validation split, for choosing settings",
    )
    validation_origin: str | None = None
    curves: dict[str, tuple[dict[str, float], ...]] = Field(
        default_factory=dict, description="learning curve of each stage, a row a logged epoch"
    )
    diagnosis: dict[str, float | tuple[int, ...]] = Field(
        default_factory=dict,
        description="quantities that help to explain a score; never used by the system",
    )
    audit: dict[str, dict[str, float]] | None = Field(
        None, description="scores that published shortcuts would have reported; never a result"
    )
    parameters: ParameterCounts | None = None
    macs_per_second: int | None = Field(
        None, description="multiply-accumulates for one second of audio"
    )
    stages: tuple[StageCost, ...] = ()
    resumed: int = Field(0, description="number of times the run was resumed after a kill")
    artifacts: tuple[ArtifactUse, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    finished_at: str = ""

    @field_validator("schema_version")
    @classmethod
    def _schema_is_known(cls, version: int) -> int:
        if version != SCHEMA_VERSION:
            raise ValueError(f"this release reads schema {SCHEMA_VERSION}")
        return version


def identity(values: dict[str, Any]) -> str:
    """Hash the plain data that determines a result."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def cell_folder(out: Path, cell: Cell, identity: str) -> Path:
    """Return the folder of a cell below `out`."""
    fold = f"-fold{cell.fold}" if cell.fold else ""
    name = f"{cell.protocol}-{cell.label_fraction:g}-seed{cell.seed}{fold}-{identity[:8]}"
    system = re.sub(r"[^\w.@-]+", "_", cell.system_name)[-LONGEST_NAME:]
    return out / cell.task / system / name


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `record.json`; its last line is a checksum of the text before it."""
    body = record.model_dump_json(indent=2).removesuffix("\n}").encode()
    write_text(folder / RECORD, (body + SEAL + _checksum_line(body)).decode())


def read_record(folder: Path) -> RunRecord:
    """Read `record.json`.

    Raises:
        UserError: the file is missing, has another schema, or its checksum is wrong or missing.
    """
    path = folder / RECORD
    try:
        body, _, checksum = path.read_bytes().rpartition(SEAL)
        if checksum != _checksum_line(body):
            raise UserError(
                f"{path} was changed after it was written (its checksum is wrong or missing)",
                next_step="run the cell again, or copy the file from a backup",
            )
        # Two steps take a sixth less time than model_validate_json, and a report reads thousands.
        return RunRecord.model_validate(from_json(body + b"\n}"))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path} is not a readable record ({field}: {first['msg']})") from error
    except ValueError as error:
        raise UserError(f"{path} is not a readable record ({error})") from error
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} holds no {RECORD}", next_step="run its cell again, or delete the folder"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def _checksum_line(body: bytes) -> bytes:
    """Return the text that follows `SEAL` in an unchanged record."""
    return f'"{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def record_folders(out: Path) -> list[Path]:
    """Return every folder below `out` that holds a record or predictions, sorted."""
    # Not rglob, which takes four times as long over thousands of folders.
    cells = (f for f, _, files in os.walk(out) if RECORD in files or PREDICTIONS in files)
    return [Path(folder) for folder in sorted(cells)]


def find_records(out: Path) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """Read every record below a folder.

    Returns:
        Folders and records, sorted, and a line for each record that could not be read.
    """
    records, problems = [], []
    for folder in record_folders(out):
        try:
            records.append((folder, read_record(folder)))
        except UserError as error:
            problems.append(str(error))
    return records, problems
