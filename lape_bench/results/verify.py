"""Compare records with their own predictions, and with the tasks and systems that are installed now.

A record is wrong if it was edited, or if its identity, predictions, scores or test clips do not match. A record is
outdated if a run today could give another result: card, manifest, system or protocol have another version, or the code
differed from its commit. A record is doubtful if another record of other settings or another seed has the same predictions.

Code that a record names is never run: versions are compared only for systems of installed packages. Records are not
signed, so someone who can write records can also write false ones that pass every check.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import logsumexp

from lape_bench import metrics
from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.splits import is_tested
from lape_bench.records.pack import PackedPredictions, find_packs, read_pack
from lape_bench.records.predictions import Predictions, read_predictions
from lape_bench.records.record import (
    PROTOCOL_VERSION,
    RunRecord,
    TaskFacts,
    cell_folder,
    identity_of,
    read_record,
    record_folders,
)
from lape_bench.results.scored_cells import score_packed

TOLERANCE = 1e-9  # of a score recomputed in the same precision
PACKED_TOLERANCE = 1 / 255  # of a probability in a pack
SUM_TOLERANCE = 1e-3  # of the logarithm of a row's probabilities summed up, in float32

# fields of a record that cannot be checked against anything else
UNCHECKED = (
    "selection",
    "validation",
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

Grade = Literal["wrong", "outdated", "doubtful"]
# The folder of a record, the record, and its predictions: None for a failed one, an error if they cannot be read.
StoredCell = tuple[Path, RunRecord, Predictions | PackedPredictions | UserError | None]


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


def verify(out: Path, system_version: Callable[[str], int | None]) -> VerificationResult:
    """Verify every record below a folder, and every pack in it.

    Args:
        out: the folder.
        system_version: gives the version of an installed system, or None if that would run code that is not
            installed; raises a `UserError` if there is no such system.
    """
    today = _Today(system_version)
    findings: list[RecordFinding] = []
    counts = {"finished": 0, "failed": 0}
    not_compared: set[str] = set()
    folders: dict[str, Path] = {}  # by identity
    owners: dict[bytes, tuple[Path, str]] = {}  # folder and identity, by the checksum of scores
    cell_folders, unlisted = record_folders(out)
    for stored in _stored(out, cell_folders):
        if isinstance(stored, RecordFinding):
            findings.append(stored)
            continue
        folder, record, predictions = stored
        counts[record.status] += 1
        if predictions is None:
            continue
        if isinstance(predictions, UserError):
            findings.append(RecordFinding(folder, "wrong", str(predictions)))
            continue
        manifest = today.manifest(record.cell.task)
        comparable = record.task and manifest and manifest.hash == record.task.manifest_hash
        if manifest is None:
            not_compared.add(record.cell.task)
        wrong = [
            *_against_predictions(record, predictions),
            *(today.against_manifest(record, predictions) if comparable else ()),
            *_against_place(record, folder),
            *_against_itself(record),
        ]
        outdated = [*today.against(record)]
        first_folder = folders.setdefault(record.identity, folder)
        if first_folder != folder:
            outdated.append(f"{first_folder} holds the same cell")
        scores = hashlib.sha256(_score_bytes(predictions)).digest()
        owner, owner_identity = owners.setdefault(scores, (folder, record.identity))
        if owner_identity != record.identity:
            what = (
                f"it has the same predictions as {owner}: one is a copy of the other, or what differs "
                "between them (such as the seed) changes nothing"
            )
            findings.append(RecordFinding(folder, "doubtful", what))
        findings += [RecordFinding(folder, "wrong", what) for what in wrong]
        findings += [RecordFinding(folder, "outdated", what) for what in outdated]
    return VerificationResult(
        **counts,
        not_compared=tuple(sorted(not_compared)),
        findings=tuple(findings),
        unlisted=tuple(unlisted),
        versions_not_compared=tuple(sorted(today.versions_not_compared)),
    )


def _stored(out: Path, folders: Sequence[Path]) -> Iterator[StoredCell | RecordFinding]:
    """Yield every record of a folder, those of packs first; a finding for each that cannot be read."""
    for path in find_packs(out):
        try:
            yield from read_pack(path)
        except UserError as error:
            yield RecordFinding(path, "wrong", str(error))
    for folder in folders:
        try:
            record = read_record(folder)
        except UserError as error:
            yield RecordFinding(folder, "wrong", str(error))
            continue
        predictions: Predictions | UserError | None = None
        if record.status == "finished":
            try:
                predictions = read_predictions(folder, record)
            except UserError as error:
                predictions = error
        yield folder, record, predictions


def _score_bytes(predictions: Predictions | PackedPredictions) -> bytes:
    """Return the scores themselves, since the same ones can be written to files that differ."""
    if isinstance(predictions, Predictions):
        return predictions.log_probabilities.tobytes()
    return predictions.predicted.tobytes() + predictions.probabilities.tobytes()


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
    if task.metric not in metrics.METRICS:
        yield f"it is ranked by '{task.metric}', which is not a metric of this release"
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


class _Today:
    """Tasks and systems that are installed here, each looked up once.

    Args:
        system_version: as for `verify`.

    Attributes:
        versions_not_compared: systems whose version is not known.
    """

    def __init__(self, system_version: Callable[[str], int | None]) -> None:
        self.versions_not_compared: set[str] = set()
        self.card = cache(load_card)
        self.manifest = cache(self._manifest)
        self.version = cache(partial(self._version, system_version))

    def against_manifest(
        self, record: RunRecord, predictions: Predictions | PackedPredictions
    ) -> Iterator[str]:
        """Compare test clips and their classes with those of the task."""
        manifest = self.manifest(record.cell.task)
        assert manifest is not None
        card = self.card(record.cell.task)
        tested = manifest.clips[is_tested(manifest, card, record.cell.fold)]
        in_task = dict(zip(tested["clip_id"], tested["label"], strict=True))
        labels = [predictions.classes[label] for label in predictions.labels]
        in_record = dict(zip(predictions.clip_ids.to_pylist(), labels, strict=True))
        if in_record.keys() != in_task.keys():
            example = min(in_record.keys() ^ in_task.keys())
            yield f"its test clips are not those of the task, such as {example}"
        elif in_record != in_task:
            example = min(clip for clip in in_record if in_record[clip] != in_task[clip])
            yield f"it has another class for {example} than the task"
        elif predictions.groups is not None and predictions.folds is not None:
            row_of = {clip_id: row for row, clip_id in enumerate(manifest.clips["clip_id"])}
            rows = np.array([row_of[clip_id] for clip_id in in_record], np.int64)
            groups, folds = manifest.groups_and_folds(rows)
            pairs = zip(in_record, predictions.groups.to_pylist(), groups, strict=True)
            other = [clip_id for clip_id, group, in_manifest in pairs if group != in_manifest]
            if other or predictions.folds.to_pylist() != folds:
                example = f", such as {min(other)}" if other else ""
                yield f"its clips have other groups or folds than in the task{example}"

    def against(self, record: RunRecord) -> Iterator[str]:
        """Compare versions with those installed here."""
        if record.protocol_version != PROTOCOL_VERSION:
            yield f"protocol version {record.protocol_version}, now {PROTOCOL_VERSION}"
        version = self.version(record.cell.system)
        if isinstance(version, UserError):
            yield f"its system cannot be loaded here: {version}"
        elif version is None:
            self.versions_not_compared.add(record.cell.system_name)
        elif version != record.system_version:
            yield f"system version {record.system_version}, now {version}"
        commit = record.environment.get("commit", "none")
        if "-dirty-" in commit:
            yield f"run from code that differs from its commit ({commit})"
        if record.task is not None:
            yield from self._against_card(record.cell.task, record.task)

    def _against_card(self, reference: str, then: TaskFacts) -> Iterator[str]:
        try:
            card = self.card(reference)
        except UserError as error:
            yield f"its task is not known here: {error}"
            return
        manifest = self.manifest(reference)
        if card.version != then.card_version:
            yield f"card version {then.card_version}, now {card.version}"
        elif (card.metric, len(card.folds)) != (then.metric, then.folds):
            yield "its task's card has another metric or other folds now"
        elif card.classes != then.classes:
            yield "its task's card has other classes now"
        elif manifest is not None and manifest.hash != then.manifest_hash:
            yield f"manifest {then.manifest_hash[:12]}, prepared here {manifest.hash[:12]}"

    def _manifest(self, reference: str) -> Manifest | None:
        try:
            return load_manifest(self.card(reference))
        except UserError:
            return None

    @staticmethod
    def _version(system_version: Callable[[str], int | None], name: str) -> int | UserError | None:
        try:
            return system_version(name)
        except UserError as error:
            return error
