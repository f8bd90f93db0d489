"""Cells that were read before, to find a cell that is held twice, copied predictions, and changed test sets."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from lape_bench.core.errors import UserError
from lape_bench.records.pack import STEPS, PackedPredictions
from lape_bench.records.predictions import Predictions
from lape_bench.records.record import RunRecord, record_folders
from lape_bench.results.stored_cells import StoredCell, stored_cells

Grade = Literal["wrong", "outdated", "doubtful"]


class KnownCell(NamedTuple):
    """A finished cell that was read before.

    Attributes:
        origin: the folder of results that it belongs to.
        folder: of its record.
        identity: of its record.
        name: of its system.
        system: its system with its label, the settings that differ from its defaults, and its provenance, as a text.
    """

    origin: Path
    folder: Path
    identity: str
    name: str
    system: str


class KnownCells:
    """Finished cells of one or several folders of results."""

    def __init__(self) -> None:
        self._by_identity: dict[str, KnownCell] = {}
        self._by_predictions: dict[tuple[str, bytes], KnownCell] = {}
        # By task, manifest and fold: the hash of the test clips, and where it was first seen.
        self._test_sets: dict[tuple[Any, ...], tuple[bytes, str]] = {}

    def trust(self, origin: Path) -> None:
        """Add the cells of a folder, such as the reference results. Their test sets are taken for the right ones."""
        for cell in stored_cells(origin, record_folders(origin)[0]):
            if not isinstance(cell, StoredCell):
                continue
            folder, record, predictions = cell
            if predictions is not None and not isinstance(predictions, UserError):
                self._test_sets[_test_set(record)] = (
                    _test_digest(predictions),
                    "the reference results",
                )
                [*self.compare(origin, folder, record, predictions)]

    def compare(
        self,
        origin: Path,
        folder: Path,
        record: RunRecord,
        predictions: Predictions | PackedPredictions,
    ) -> Iterator[tuple[Grade, str]]:
        """Compare a cell with the cells that are known, yield its problems, and add it to them.

        Args:
            origin: the folder of results that it belongs to.
            folder: of its record.
            record: of the cell.
            predictions: of the cell.
        """
        name = record.cell.label or record.cell.system_name
        own = KnownCell(origin, folder, record.identity, name, _system(record))
        digest = _test_digest(predictions)
        expected, where = self._test_sets.setdefault(_test_set(record), (digest, str(folder)))
        if digest != expected:
            yield (
                "wrong",
                f"its test clips, or their classes, groups or folds, are not those of {where}",
            )
        first = self._by_identity.setdefault(record.identity, own)
        if first is not own and first.origin == origin:
            yield "outdated", f"{first.folder} holds the same cell"
        elif first is not own:
            yield "doubtful", f"the folder '{first.origin.name}' holds the same cell"
        owner = self._owner(own, predictions)
        if owner.identity == own.identity:
            return
        if owner.origin != origin and owner.system != own.system:
            where = f"{owner.name} in the folder '{owner.origin.name}'"
            yield "wrong", f"it has the predictions of another system, {where}"
        else:
            yield (
                "doubtful",
                f"it has the same predictions as {owner.folder}: one is a copy of the other, or what differs "
                "between them (such as the seed) changes nothing",
            )

    def _owner(self, own: KnownCell, predictions: Predictions | PackedPredictions) -> KnownCell:
        """Return the cell that had the predictions first, and keep whose they are."""
        packed = ("pack", _packed_digest(predictions))
        reduced = ("reduced", packed[1])  # of a record's folder, as a pack would hold them
        if isinstance(predictions, Predictions):
            exact = "folder", hashlib.sha256(predictions.log_probabilities.tobytes()).digest()
            keys, compared_with = [exact, reduced], [exact, packed]
        else:
            keys, compared_with = [packed], [packed, reduced]
        owners = (self._by_predictions.get(key) for key in compared_with)
        owner = next(filter(None, owners), own)
        for key in keys:
            self._by_predictions.setdefault(key, own)
        return owner


def _system(record: RunRecord) -> str:
    # Not `record.settings`, which also holds defaults of settings that an earlier version did not have.
    parts = (record.cell.system_name, record.cell.label, record.cell.settings)
    return json.dumps([*parts, record.provenance, record.corpora], sort_keys=True)


def _test_set(record: RunRecord) -> tuple[Any, ...]:
    return record.cell.task, record.task and record.task.manifest_hash, record.cell.fold


def _test_digest(predictions: Predictions | PackedPredictions) -> bytes:
    """Hash the test clips with their classes, groups and folds."""
    columns = [
        None if column is None else column.to_pylist()
        for column in (predictions.groups, predictions.folds)
    ]
    return hashlib.sha256(json.dumps([predictions.clips.digest, *columns]).encode()).digest()


def _packed_digest(predictions: Predictions | PackedPredictions) -> bytes:
    """Hash what a pack holds: predicted classes and probabilities of the true class, or the log-odds of two classes."""
    rows = np.arange(len(predictions.labels))
    if isinstance(predictions, PackedPredictions):
        odds, truth = predictions.log_odds, predictions.probabilities
    else:
        logarithms = predictions.log_probabilities.astype(np.float64)
        odds = logarithms[:, 1] - logarithms[:, 0] if logarithms.shape[1] == 2 else None
        truth = np.exp(logarithms[rows, predictions.labels]).astype(np.float32)
    # The same operations as in `records.pack`, so that a folder and its pack agree to the byte.
    # Damaged scores, which `verify` reports, may be no probabilities.
    steps = np.rint(STEPS * np.nan_to_num(truth).clip(0, 1)).astype(np.uint8)
    scores = steps.tobytes() if odds is None else odds.tobytes()
    return hashlib.sha256(predictions.predicted.tobytes() + scores).digest()
