"""Every cell of a folder, from its packs and its folders of records, with its predictions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lape_bench.core.errors import UserError
from lape_bench.records.pack import PackedPredictions, find_packs, read_pack
from lape_bench.records.predictions import Predictions, read_predictions
from lape_bench.records.record import RunRecord, read_record


class StoredCell(NamedTuple):
    """A cell that can be read.

    Attributes:
        folder: of the record; for a cell of a pack, the pack's path with the cell's folder behind it.
        record: the record.
        predictions: None if the cell failed, an error if they cannot be read.
    """

    folder: Path
    record: RunRecord
    predictions: Predictions | PackedPredictions | UserError | None


class UnreadableCell(NamedTuple):
    """A pack or a folder of a record that cannot be read, and the reason."""

    folder: Path
    reason: str


def stored_cells(out: Path, folders: Sequence[Path]) -> Iterator[StoredCell | UnreadableCell]:
    """Yield every cell of a folder, those of packs first.

    Args:
        out: the folder; packs are read that lie in it, not below it.
        folders: folders of records below it, as `record_folders` returns them.
    """
    for path in find_packs(out):
        try:
            yield from (StoredCell(*cell) for cell in read_pack(path))
        except UserError as error:
            yield UnreadableCell(path, str(error))
    for folder in folders:
        try:
            record = read_record(folder)
        except UserError as error:
            yield UnreadableCell(folder, str(error))
            continue
        predictions: Predictions | UserError | None = None
        if record.status == "finished":
            try:
                predictions = read_predictions(folder, record)
            except UserError as error:
                predictions = error
        yield StoredCell(folder, record, predictions)
