"""Cells and their records: what was run, the result, and everything needed to recompute it.

A cell's folder holds `record.json` and `predictions.parquet` (`predictions.py`). Each file is written whole or not at
all, and the record is written last.
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
from lape_bench.core.label_budget import LabelBudget, LabelBudgetText
from lape_bench.core.paths import write_text
from lape_bench.core.printable import is_printable, printable
from lape_bench.core.regular_files import read_regular
from lape_bench.records.system_names import short_name

SCHEMA_VERSION = 1
MOST_BYTES = 2**24  # size of a record
LABEL = (
    r"[\w+-][\w .+@-]{0,58}[\w+]|\w"  # label that a user may give a system; brackets hold settings
)
LONGEST_NAME = 120  # characters of a folder name; the argument of a system may be a long path
PROTOCOL_VERSION = 2  # raised whenever the protocol changes in a way that could change a score
RECORD, PREDICTIONS, ERROR = "record.json", "predictions.parquet", "error.txt"
MODEL = "model"  # a folder, if the model is kept
WORK, LOCK = "work", ".lock"  # files that are needed only while a cell runs
SEAL = (
    b',\n  "seal": '  # starts the last line of a record; the SHA-256 of the text before it follows
)


# Limits that no run reaches, so that a table of records cannot overflow.
Count = Annotated[int, Field(ge=0, le=10**15)]
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# Escaped control characters in JSON; this also matches some harmless text.
UNSAFE_BYTES = re.compile(rb"\\[bfru]|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\x8e-\xae]|\xe2\x81[\xa6-\xa9]")
ProtocolName = Literal["finetune", "linear", "mlp", "knn"]


class Cell(Frozen):
    """One run: a system on a task, with a protocol, label budget, seed and fold."""

    system: str = Field(description="a registered name, KIND:ARGUMENT, or file.py:Class")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ from the system's defaults"
    )
    task: str = Field(description="name, or name@variant")
    protocol: ProtocolName
    labels: LabelBudgetText = "100%"
    seed: int = Field(0, ge=0, lt=2**63)
    fold: int = Field(0, ge=0, le=10**6, description="from 1; 0 for an official split")
    label: str = Field(
        "", pattern=f"^({LABEL})?$", description="what its user calls the system; of no effect"
    )

    @property
    def budget(self) -> LabelBudget:
        """The label budget."""
        return LabelBudget.parse(self.labels)

    @property
    def system_name(self) -> str:
        """The name of the system; without folders if it holds a path."""
        return short_name(self.system)

    @property
    def title(self) -> str:
        """The cell in one line, for people."""
        fold = f", fold {self.fold}" if self.fold else ""
        part = "" if self.budget.is_all else f", {self.budget.description}"
        name = self.label or self.system_name
        return f"{name} on {self.task} ({self.protocol}{part}, seed {self.seed}{fold})"


class ParameterCounts(Frozen):
    """Counts of parameters, trainable and fixed; None if unknown, as of an encoder that runs outside torch.

    Attributes:
        encoder: the encoder alone.
        inference: encoder and classifier, as used to score clips.
        training: the largest count of any training stage.
    """

    encoder: Count | None
    inference: Count | None
    training: Count | None


class StageCost(Frozen):
    """Time and memory of one stage of a cell.

    Attributes:
        name: the stage.
        seconds: wall-clock time; in a resumed run, the time since it was resumed.
        peak_memory_mib: peak memory during the stage: resident memory of the process on a CPU, allocated device memory
            on other devices; 0 if the operating system does not report it.
    """

    name: str
    seconds: Seconds
    peak_memory_mib: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class TaskFacts(Frozen):
    """Properties of the task when the cell ran."""

    name: str
    variant: str
    card_version: Count
    data: Literal["real", "synthetic"]
    manifest_hash: str
    classes: tuple[str, ...]
    metric: str
    folds: Count
    clips: dict[str, Count] = Field(description="clips of train, labeled, validation and test")
    skipped: Count
    window_seconds: Seconds | None = Field(None, description="length of a training window")
    level_dbfs: Finite | None = Field(None, description="RMS to which every clip was scaled")


class ArtifactUse(Frozen):
    """An artifact of the cache that a cell computed or loaded.

    Attributes:
        kind: for example "upstream".
        hash: key of the artifact: a hash of everything that determines it, as shown by `bench artifacts list`.
        sha256: SHA-256 of its bytes.
        seconds: time it took to compute, in this run or an earlier one.
        found: whether it was found in the cache.
        waited: seconds that the cell waited for another run to compute it.
    """

    kind: str
    hash: str
    sha256: str = ""
    seconds: Seconds = 0.0
    found: bool = True
    waited: Seconds = 0.0


class RunRecord(Frozen):
    """A cell, its settings and its result."""

    schema_version: int = SCHEMA_VERSION
    protocol_version: Count = PROTOCOL_VERSION
    cell: Cell
    identity: str = Field(description="hash of everything that determines the result")
    settings: dict[str, Any] = Field(description="every setting with its value")
    system_version: Count
    system_versions: dict[str, Count] = Field(
        default_factory=dict, description="versions of the systems that this one uses"
    )
    provenance: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of other things that determine the result, such as a plug-in's file or weights",
    )
    corpora: dict[str, str] = Field(
        default_factory=dict,
        description="state of each entry of the unlabeled corpus: hash of a task's manifest, or of a folder's files",
    )
    task: TaskFacts | None = None
    status: Literal["finished", "failed"]
    error: str | None = None
    metrics: dict[str, Share] = Field(default_factory=dict)
    predictions_sha256: str | None = None
    selection: dict[str, str] = Field(
        default_factory=dict, description="what was selected, and how"
    )
    labels_for_training: Count = Field(0, description="labels that the final model is trained on")
    labels_for_selection: Count = Field(
        0,
        description="labels that were used for selection; they belong to the budget unless the budget says +validation",
    )
    warnings: tuple[str, ...] = Field((), description="reasons to doubt the score")
    validation: Share | None = Field(
        None,
        description="score on the clips used for selection, by the task's metric, for choosing settings",
    )
    validation_origin: str | None = None
    curves: dict[str, tuple[dict[str, float], ...]] = Field(
        default_factory=dict, description="learning curve of each stage, one row per logged epoch"
    )
    diagnosis: dict[str, float | tuple[int, ...]] = Field(
        default_factory=dict,
        description="quantities that help to explain a score; never used by the system",
    )
    audit: dict[str, dict[str, Share]] | None = Field(
        None, description="scores that published shortcuts would have reported; never a result"
    )
    parameters: ParameterCounts | None = None
    macs_per_second: Count | None = Field(
        None, description="multiply-accumulates for one second of audio; null if unknown"
    )
    stages: tuple[StageCost, ...] = ()
    resumed: Count = Field(0, description="how often the run was resumed after a kill")
    artifacts: tuple[ArtifactUse, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    finished_at: str = ""

    @field_validator("schema_version")
    @classmethod
    def _schema_is_known(cls, version: int) -> int:
        if version != SCHEMA_VERSION:
            raise ValueError(f"this release reads schema {SCHEMA_VERSION}")
        return version

    @field_validator("error")
    @classmethod
    def _terminals_can_show_it(cls, error: str | None) -> str | None:
        return None if error is None else printable(error)


def identity(values: dict[str, Any]) -> str:
    """Hash plain data."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Determinants(Frozen):
    """Everything that determines the result of a cell. A record holds all of it.

    `settings` holds every setting with its value, so `cell.settings` does not count. The label does not count. If
    `provenance` identifies a file by its content, its folder does not count.
    """

    cell: Cell
    settings: dict[str, Any]
    system_version: int
    system_versions: dict[str, int]
    provenance: dict[str, str]
    corpora: dict[str, str]
    manifest_hash: str
    card_version: int
    window_seconds: float | None
    metric: str
    protocol_version: int = PROTOCOL_VERSION

    @property
    def identity(self) -> str:
        """The hash that names the cell."""
        values = self.model_dump(mode="json", exclude={"cell": {"settings", "label"}})
        if self.provenance:
            values["cell"]["system"] = self.cell.system_name
        return identity(values)


def identity_of(record: RunRecord) -> str:
    """Compute the identity of a finished record from its other fields.

    Raises:
        ValueError: the record names no task.
    """
    if record.task is None:
        raise ValueError("the record names no task")
    own = Determinants.model_fields.keys() & RunRecord.model_fields.keys()
    of_task = Determinants.model_fields.keys() & TaskFacts.model_fields.keys()
    fields = {name: getattr(record, name) for name in own}
    return Determinants(**fields, **{name: getattr(record.task, name) for name in of_task}).identity


def cell_folder(out: Path, cell: Cell, identity: str) -> Path:
    """Return the folder of a cell below `out`."""
    fold = f"-fold{cell.fold}" if cell.fold else ""
    name = f"{cell.protocol}-{cell.budget.short_name}-seed{cell.seed}{fold}-{identity[:8]}"
    return out / cell.task / _system_folder(cell) / name


def _system_folder(cell: Cell) -> str:
    return re.sub(r"[^\w.@-]+", "_", cell.system_name)[-LONGEST_NAME:]


def _place_problem(record: RunRecord) -> str:
    """Return the reason why a cell cannot have a folder; empty if it can."""
    task, system = record.cell.task, record.cell.system
    if not re.fullmatch(r"[^/\\\n\t]+", task) or task in (".", "..") or len(task.encode()) > 200:
        return f"its task cannot be '{task[:LONGEST_NAME]}'"
    if "\n" in system or _system_folder(record.cell) in ("", ".", ".."):
        return f"its system cannot be '{system[:LONGEST_NAME]}'"
    if not re.fullmatch("[0-9a-f]{1,64}", record.identity):
        return f"its identity cannot be '{record.identity[:LONGEST_NAME]}'"
    return ""


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `record.json`. Its last line is a checksum of the text before it."""
    body = record.model_dump_json(indent=2).removesuffix("\n}").encode()
    write_text(folder / RECORD, (body + SEAL + _checksum_line(body)).decode())


def read_record(folder: Path) -> RunRecord:
    """Read `record.json`.

    Raises:
        UserError: the file is missing, too large or not a regular file, has another schema, holds values that no run
            writes, or has a wrong or missing checksum.
    """
    path = folder / RECORD
    try:
        body, _, checksum = read_regular(path, MOST_BYTES).rpartition(SEAL)
        if checksum != _checksum_line(body):
            raise UserError(
                f"{path} was changed after it was written (its checksum is wrong or missing)",
                next_step="run the cell again, or copy the file from a backup",
            )
        content = body + b"\n}"
        if _may_hold_control_characters(body):
            _refuse_control_characters(from_json(content))
        record = RunRecord.model_validate_json(content)
        if problem := _place_problem(record):
            raise ValueError(problem)
        return record
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path} is not a readable record ({field}: {first['msg']})") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not a readable record ({error})") from error
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} holds no {RECORD}", next_step="run its cell again, or delete the folder"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def _may_hold_control_characters(body: bytes) -> bool:
    # Most records are plain ASCII without a backslash, which takes a tenth of the time to see.
    plain = body.isascii() and b"\\" not in body and b"\x7f" not in body
    return not plain and UNSAFE_BYTES.search(body) is not None


def _refuse_control_characters(values: Any) -> None:
    """Raise a `ValueError` if a text other than the error holds control characters."""
    waiting = [{**values, "error": None}] if isinstance(values, dict) else []
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and not is_printable(value):
            raise ValueError(f"it holds control characters: '{value[:LONGEST_NAME]}'")


def record_from(values: Any) -> RunRecord:
    """Return the record that plain data describe.

    Raises:
        ValueError: a value is none that a run writes.
    """
    _refuse_control_characters(values)
    record = RunRecord.model_validate(values)
    if problem := _place_problem(record):
        raise ValueError(problem)
    return record


def _checksum_line(body: bytes) -> bytes:
    """Return the checksum line that an unchanged record ends with."""
    return f'"{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def record_folders(out: Path) -> tuple[list[Path], list[str]]:
    """Find every folder below `out` that holds a record or predictions, without following links.

    Returns:
        The folders, sorted, and a line for each folder that cannot be listed and each link to a folder.
    """
    folders, problems, waiting = [], [], [os.fspath(out)]
    # Not rglob, which takes four times as long for thousands of folders, nor os.walk, which recurses at each level.
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            problems.append(printable(f"{folder} cannot be listed ({error.strerror})"))
            continue
        if any(entry.name in (RECORD, PREDICTIONS) for entry in entries):
            folders.append(Path(folder))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - Path.is_dir may raise
                problems.append(printable(f"{entry.path} is a link, and is not followed"))
    return sorted(folders), sorted(problems)


def find_records(out: Path) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """Read every record below a folder.

    Returns:
        Folders and records, sorted, and a line for each record or folder that could not be read.
    """
    records = []
    folders, problems = record_folders(out)
    for folder in folders:
        try:
            records.append((folder, read_record(folder)))
        except UserError as error:
            problems.append(str(error))
    return records, problems
