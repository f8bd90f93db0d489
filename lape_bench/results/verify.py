"""Compare records with their own predictions, and with the tasks and systems that are installed now.

A record is wrong if it was edited, or if its identity, predictions, scores or test clips do not match. A record is
outdated if a run today could give another result: card, manifest, system or protocol have another version, or the code
differed from its commit. A record is doubtful if another record of other settings or another seed has the same predictions.

Code that a record names is never run: versions are compared only for systems of installed packages. Records are not
signed, so someone who can write records can also write false ones that pass every check.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from lape_bench import metrics
from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError
from lape_bench.records.pack import PackedPredictions
from lape_bench.records.predictions import Predictions
from lape_bench.records.record import RunRecord, cell_folder, identity_of, record_folders
from lape_bench.results.installed import Installed
from lape_bench.results.known_cells import Grade, KnownCells
from lape_bench.results.scored_cells import score_packed
from lape_bench.results.stored_cells import StoredCell, UnreadableCell, stored_cells

TOLERANCE = 1e-9  # of a score recomputed in the same precision
PACKED_TOLERANCE = 1 / 255  # of a probability in a pack
SUM_TOLERANCE = 1e-3  # of the logarithm of a row's probabilities summed up, in float32

# fields of a record that cannot be checked against anything else
UNCHECKED = (
    "selection",
    "validation",
    "labels_for_selection",
    "curves",
    "diagnosis",
    "audit",
    "parameters",
    "macs_per_second",
    "stages",
    "artifacts",
    "environment",
    "finished_at",
    "label",
)


class RecordFinding(NamedTuple):
    """A problem of a record."""

    folder: Path
    grade: Grade
    what: str


class VerificationResult(NamedTuple):
    """The records of a folder, and their problems.

    Attributes:
        finished: records of finished cells.
        failed: records of failed cells, which hold no score.
        not_compared: tasks whose test clips could not be checked, since they are not prepared here with the
            records' manifest.
        findings: all problems.
        unlisted: a line for each folder or link that was not searched for records.
        versions_not_compared: systems whose version could not be compared without running code that a record names.
    """

    finished: int
    failed: int
    not_compared: tuple[str, ...]
    findings: tuple[RecordFinding, ...]
    unlisted: tuple[str, ...] = ()
    versions_not_compared: tuple[str, ...] = ()


def verify(
    out: Path, system_version: Callable[[str], int | None], known: KnownCells | None = None
) -> VerificationResult:
    """Verify every record below a folder, and every pack in it.

    Args:
        out: the folder.
        system_version: gives the version of an installed system, or None if that would run code that is not
            installed; raises a `UserError` if there is no such system.
        known: cells of other folders to compare with; the cells of this folder are added to them.
    """
    verification = _Verification(out, Installed(system_version), known or KnownCells())
    cell_folders, unlisted = record_folders(out)
    for cell in stored_cells(out, cell_folders):
        verification.add(cell)
    return verification.result(unlisted)


class _Verification:
    """The counts and problems of the cells that were added.

    Args:
        out: the folder that they belong to.
        installed: tasks and systems to compare with.
        known: cells to compare with.
    """

    def __init__(self, out: Path, installed: Installed, known: KnownCells) -> None:
        self.out, self.installed, self.known = out, installed, known
        self.findings: list[RecordFinding] = []
        self.counts = {"finished": 0, "failed": 0}
        self.not_compared: set[str] = set()

    def add(self, cell: StoredCell | UnreadableCell) -> None:
        """Check a cell."""
        if isinstance(cell, UnreadableCell):
            self.findings.append(RecordFinding(cell.folder, "wrong", cell.reason))
            return
        folder, record, predictions = cell
        self.counts[record.status] += 1
        if isinstance(predictions, UserError):
            self.findings.append(RecordFinding(folder, "wrong", str(predictions)))
        elif predictions is not None:
            problems = self._problems(folder, record, predictions)
            self.findings += [RecordFinding(folder, grade, what) for grade, what in problems]

    def _problems(
        self, folder: Path, record: RunRecord, predictions: Predictions | PackedPredictions
    ) -> Iterator[tuple[Grade, str]]:
        manifest = self.installed.manifest(record.cell.task)
        if manifest is None:
            self.not_compared.add(record.cell.task)
        yield from _graded("wrong", _against_predictions(record, predictions))
        if manifest and record.task and manifest.hash == record.task.manifest_hash:
            yield from _graded("wrong", self.installed.against_manifest(record, predictions))
        yield from _graded("wrong", self.installed.against_data(record))
        yield from _graded("wrong", _against_place(record, folder))
        yield from _graded("wrong", _against_itself(record))
        yield from _graded("outdated", self.installed.against(record))
        yield from self.known.compare(self.out, folder, record, predictions)

    def result(self, unlisted: Sequence[str]) -> VerificationResult:
        """Return the counts and problems, with the folders and links that were not searched."""
        return VerificationResult(
            **self.counts,
            not_compared=tuple(sorted(self.not_compared)),
            findings=tuple(self.findings),
            unlisted=tuple(unlisted),
            versions_not_compared=tuple(sorted(self.installed.versions_not_compared)),
        )


def _graded(grade: Grade, problems: Iterable[str]) -> Iterator[tuple[Grade, str]]:
    return ((grade, what) for what in problems)


def _against_itself(record: RunRecord) -> Iterator[str]:
    """Compare the identity, and the settings that reports show, with the fields that they follow from."""
    if record.task is not None and identity_of(record) != record.identity:
        yield f"its identity does not follow from its fields, which give {identity_of(record)[:8]}"
    resolved = flatten(record.settings)
    for name, value in flatten(record.cell.settings).items():
        if repr(resolved.get(name)) != repr(value):
            yield f"its cell has {name} = {value}, and its resolved settings {resolved.get(name)}"


def _against_predictions(
    record: RunRecord, predictions: Predictions | PackedPredictions
) -> Iterator[str]:
    task = record.task
    if task is None:
        yield "it is finished, but names no task"
        return
    task_name = f"{task.name}@{task.variant}" if task.variant else task.name
    if record.cell.task != task_name:
        yield f"its cell names the task {record.cell.task}, and its facts are of {task_name}"
    if predictions.classes != task.classes:
        yield "its predictions are of other classes than its task"
    clips = len(predictions.labels)
    if "test" in task.clips and clips != task.clips["test"]:
        yield f"it has predictions of {clips} clips, and tested {task.clips['test']}"
    ids = predictions.clip_ids
    if len(ids.unique()) != len(ids):
        yield "its predictions hold a clip twice"
    if not metrics.metric_exists(task.metric, len(task.classes)):
        yield f"it is ranked by '{task.metric}', which is not a metric of this release for {len(task.classes)} classes"
    if "labeled" in task.clips and record.labels_for_training != task.clips["labeled"]:
        yield f"it names {record.labels_for_training} labels for training, and {task.clips['labeled']} labeled clips"
    if isinstance(predictions, Predictions):
        yield from _score_problems(predictions)
        recomputed = metrics.score(predictions.log_probabilities, predictions.labels)
    else:
        yield from _probability_problems(predictions)
        recomputed = score_packed(predictions)
    for name in recomputed.keys() - record.metrics.keys():
        yield f"it has no {name}"
    for name, value in record.metrics.items():
        if name not in recomputed:
            yield f"it has a score '{name}', which is not a metric of this release"
        elif not math.isclose(value, recomputed[name], abs_tol=TOLERANCE):
            yield f"its {name} is {value:.6f}, and its predictions give {recomputed[name]:.6f}"


def _score_problems(predictions: Predictions) -> Iterator[str]:
    rows = predictions.log_probabilities
    if not np.isfinite(logsumexp(rows, axis=1)).all():
        yield "its predictions hold clips without a finite score"
    elif np.abs(logsumexp(rows, axis=1)).max(initial=0) > SUM_TOLERANCE:
        yield "its predictions are not log-probabilities: probabilities do not sum to one"
    if (predictions.predicted != rows.argmax(axis=1)).any():
        yield "its predictions name classes that are not the most likely ones"


def _probability_problems(predictions: PackedPredictions) -> Iterator[str]:
    """Compare classes with the probability of the true class, which is the largest one only if the class is right."""
    right = predictions.predicted == predictions.labels
    least = 1 / len(predictions.classes) - PACKED_TOLERANCE
    truth = predictions.probabilities
    if (truth[right] < least).any() or (truth[~right] > 0.5 + PACKED_TOLERANCE).any():
        yield "its predictions name classes that are not the most likely ones"


def _against_place(record: RunRecord, folder: Path) -> Iterator[str]:
    place = cell_folder(Path(), record.cell, record.identity)
    if folder.resolve().parts[-len(place.parts) :] != place.parts:
        yield f"its folder is not that of its cell, which is {place}"
