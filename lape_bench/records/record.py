"""Cells and their records: what was run, what came out, and everything needed to recompute it.

A cell's folder holds `record.json` and `predictions.parquet` (`predictions.py`); both appear whole or not at all, the
record last.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError
from lape_bench.core.paths import write_text

# 1 had one curve, and named artifacts by kind and hash alone; 2 had no seal.
SCHEMA_VERSION = 3
LONGEST_NAME = 120  # of a folder; a system's argument may be a long path
PROTOCOL_VERSION = 1  # raised whenever the protocol changes so that a score could
RECORD, PREDICTIONS, ERROR = "record.json", "predictions.parquet", "error.txt"
WORK, LOCK = "work", ".lock"  # what a run needs beside them while it runs
SEAL = b',\n  "seal": '


ProtocolName = Literal["finetune", "linear", "knn"]
LabelFraction = Annotated[float, Field(gt=0, le=1, description="share of the train labels")]


class Cell(Frozen):
    """The unit of running, resuming and recording, as plain data."""

    system: str = Field(description="a registered name, KIND:ARGUMENT, or file.py:Class")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="what differs from the system's defaults"
    )
    task: str = Field(description="name, or name@variant")
    protocol: ProtocolName
    label_fraction: LabelFraction = 1.0
    seed: int = Field(0, ge=0)
    fold: int = Field(0, ge=0, description="from 1; 0 for an official split")

    @property
    def system_name(self) -> str:
        """The system without the folders of its file."""
        path, colon, kind = self.system.rpartition(":")
        return f"{Path(path).name}{colon}{kind}" if path.endswith(".py") else self.system

    @property
    def title(self) -> str:
        """The cell in a line."""
        fold = f", fold {self.fold}" if self.fold else ""
        part = f", {100 * self.label_fraction:.3g} % of labels" if self.label_fraction < 1 else ""
        return f"{self.system_name} on {self.task} ({self.protocol}{part}, seed {self.seed}{fold})"


class ParameterCounts(Frozen):
    """Trainable and fixed numbers that a system holds.

    Attributes:
        encoder: of the encoder alone.
        inference: of all that scoring needs, encoder and classifier.
        training: the most held in any training stage.
    """

    encoder: int
    inference: int
    training: int


class StageCost(Frozen):
    """What one stage of a cell took.

    Attributes:
        name: the stage.
        seconds: wall-clock time; of a resumed run, since it was resumed.
        peak_memory_mib: most memory held while it ran: resident memory of the process on a CPU, allocated
            device memory elsewhere; 0 where the system does not tell.
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


class ArtifactUse(Frozen):
    """A cached stage that a cell made or found.

    Attributes:
        kind: what it is, such as "upstream".
        hash: of what determines it; `bench artifacts list` shows it.
        sha256: of its bytes.
        seconds: what making it took, in this run or an earlier one.
        found: whether an earlier run had made it.
        waited: seconds until another run had made it.
    """

    kind: str
    hash: str
    sha256: str = ""
    seconds: float = 0.0
    found: bool = True
    waited: float = 0.0


class RunRecord(Frozen):
    """What one cell was and what came out."""

    schema_version: int = SCHEMA_VERSION
    protocol_version: int = PROTOCOL_VERSION
    cell: Cell
    identity: str = Field(description="hash of all that determines the result")
    settings: dict[str, Any] = Field(description="every setting, resolved")
    system_version: int
    provenance: dict[str, str] = Field(
        default_factory=dict,
        description="what else a result rests on, such as a plug-in's file or weights by their SHA-256",
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
        description="the task's metric on validation, of what was chosen: to choose settings by",
    )
    validation_origin: str | None = None
    curves: dict[str, tuple[dict[str, float], ...]] = Field(
        default_factory=dict, description="learning curve of each stage, a row a logged epoch"
    )
    diagnosis: dict[str, float | tuple[int, ...]] = Field(
        default_factory=dict, description="what says why a score came out; never used by the system"
    )
    audit: dict[str, dict[str, float]] | None = Field(
        None, description="what published shortcuts would have reported; never a result"
    )
    parameters: ParameterCounts | None = None
    macs_per_second: int | None = Field(None, description="a second of audio")
    stages: tuple[StageCost, ...] = ()
    resumed: int = Field(0, description="times the run was taken up after a kill")
    artifacts: tuple[ArtifactUse, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    finished_at: str = ""

    @model_validator(mode="before")
    @classmethod
    def _bring_up(cls, values: Any) -> Any:
        """Read what earlier schemas wrote."""
        if isinstance(values, dict) and values.get("schema_version") in (1, 2):
            before, values = values["schema_version"], {**values, "schema_version": SCHEMA_VERSION}
            if before == 1:
                curve = values.pop("curve", ())
                values["curves"] = {"fine-tuning": curve} if curve else {}
        return values

    @field_validator("schema_version")
    @classmethod
    def _schema_is_known(cls, version: int) -> int:
        if version != SCHEMA_VERSION:
            raise ValueError(f"this release reads schemas 1 to {SCHEMA_VERSION}")
        return version


def identity(values: dict[str, Any]) -> str:
    """Hash plain data that determines a result."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def cell_folder(out: Path, cell: Cell, identity: str) -> Path:
    """Return the folder of a cell below `out`."""
    fold = f"-fold{cell.fold}" if cell.fold else ""
    name = f"{cell.protocol}-{cell.label_fraction:g}-seed{cell.seed}{fold}-{identity[:8]}"
    system = re.sub(r"[^\w.@-]+", "_", cell.system_name)[-LONGEST_NAME:]
    return out / cell.task / system / name


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `record.json`, sealed: its last line is a hash of the text before it."""
    body = record.model_dump_json(indent=2).removesuffix("\n}").encode()
    write_text(folder / RECORD, (body + SEAL + _sealing(body)).decode())


def read_record(folder: Path) -> RunRecord:
    """Read `record.json`.

    Raises:
        UserError: it is missing, not JSON, of another schema, or was changed after it was written.
    """
    path = folder / RECORD
    try:
        content = path.read_bytes()
        body, sealed, seal = content.rpartition(SEAL)
        # Parsed and checked in two steps: together, with a check of ours before, they take three times as long.
        values = from_json(body + b"\n}" if sealed else content)
        if seal != _sealing(body) and _should_be_sealed(values, bool(sealed)):
            raise UserError(
                f"{path} was changed after it was written (its seal does not fit)",
                next_step="run the cell again, or take the file from a copy",
            )
        return RunRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path} is no readable record ({where}: {first['msg']})") from error
    except ValueError as error:
        raise UserError(f"{path} is no readable record ({error})") from error
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} holds no {RECORD}", next_step="run its cell again, or delete the folder"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def is_sealed(folder: Path) -> bool:
    """Tell whether a record that can be read has a seal; those of schemas 1 and 2 have none."""
    return SEAL in (folder / RECORD).read_bytes()


def _should_be_sealed(values: Any, sealed: bool) -> bool:
    """Tell whether a text without a fitting seal was changed, and is not one of a time before seals."""
    if not isinstance(values, dict):
        return False
    version = values.get("schema_version", SCHEMA_VERSION)
    return sealed or "seal" in values or version == SCHEMA_VERSION


def _sealing(body: bytes) -> bytes:
    """Return what follows `SEAL` in a record that nobody has changed."""
    return f'"{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def record_folders(out: Path) -> list[Path]:
    """Return every folder below `out` that holds a record, or predictions that have lost theirs, sorted."""
    # Not rglob, which takes four times as long over thousands of folders.
    cells = (f for f, _, files in os.walk(out) if RECORD in files or PREDICTIONS in files)
    return [Path(folder) for folder in sorted(cells)]


def find_records(out: Path) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """Read every record below a folder.

    Returns:
        Folders and records, sorted, and a line for each record that could not be read.
    """
    found, problems = [], []
    for folder in record_folders(out):
        try:
            found.append((folder, read_record(folder)))
        except UserError as error:
            problems.append(str(error))
    return found, problems
