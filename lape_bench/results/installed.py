"""Tasks and systems that are installed here, for comparing records with them."""

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np

from lape_bench.core.errors import UserError
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.splits import is_tested
from lape_bench.records.pack import PackedPredictions
from lape_bench.records.predictions import Predictions
from lape_bench.records.record import PROTOCOL_VERSION, RunRecord, TaskFacts


class Installed:
    """Tasks and systems that are installed here, each looked up once.

    Args:
        system_version: as for `verify.verify`.

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
        else:
            row_of = {clip_id: row for row, clip_id in enumerate(manifest.clips["clip_id"])}
            rows = np.array([row_of[clip_id] for clip_id in in_record], np.int64)
            groups, folds = manifest.groups_and_folds(rows)
            own_groups, own_folds = (
                [None] * len(rows) if column is None else column.to_pylist()
                for column in (predictions.groups, predictions.folds)
            )
            pairs = zip(in_record, own_groups, groups, strict=True)
            other = [clip_id for clip_id, group, in_manifest in pairs if group != in_manifest]
            if other or own_folds != folds:
                example = f", such as {min(other)}" if other else ""
                yield f"its clips have other groups or folds than in the task{example}"

    def against_data(self, record: RunRecord) -> Iterator[str]:
        """Compare whether the audio was real or generated with the task's card."""
        try:
            data = self.card(record.cell.task).data
        except UserError:
            return
        if record.task is not None and record.task.data != data:
            yield f"it names {record.task.data} data, and its task has {data} data"

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
