"""Plan cells: find and check everything that the cells name before any cell runs.

A `PlannedCell` is plain data, so another process or machine can take it. The process that runs it builds the system again
and compares identities (see `runner.run_planned_cell`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, get_args

from lape_bench.core.config import changed_settings, merge, validate
from lape_bench.core.errors import FAILURES, UserError, summarize_error, unknown
from lape_bench.core.label_budget import LabelBudget
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.prepare import ensure_prepared
from lape_bench.data.splits import Split, make_split
from lape_bench.evaluation.corpus import corpus_state
from lape_bench.learning.systems.plain_encoder import load_system as load_system
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.record import Cell, Determinants, ProtocolName
from lape_bench.system import System, TargetTask
from lape_bench.task import TaskCard


@dataclass(frozen=True)
class PlannedCell:
    """A cell that can be run, as plain data.

    Attributes:
        cell: what to run; its settings are those that differ from the defaults, in one spelling.
        identity: the hash of everything that its score depends on, which identifies its record.
        manifest_hash: hash of the prepared task.
        settings: every setting of the system, defaults included.
        system_version: of the system's class.
        system_versions: versions of the other systems that it uses, by name.
        provenance: what else determines its result, such as the SHA-256 of weights or of the system's file.
        corpora: state of each entry of the unlabeled corpus.
        shared_artifacts: names of the artifacts that other cells may need too, used to schedule a sweep.
    """

    cell: Cell
    identity: str
    manifest_hash: str
    settings: Mapping[str, Any]
    system_version: int
    system_versions: Mapping[str, int]
    provenance: Mapping[str, str]
    corpora: Mapping[str, str]
    shared_artifacts: tuple[str, ...]


@dataclass(frozen=True)
class ImpossibleCell:
    """A cell that cannot be run, and the reason in a sentence."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class ResolvedCell:
    """A cell with the objects that it names, in the process that built them.

    Attributes:
        planned: the same as plain data.
        card: of the task.
        manifest: of the prepared task.
        system: untrained.
    """

    planned: PlannedCell
    card: TaskCard
    manifest: Manifest
    system: System

    @property
    def split(self) -> Split:
        """The clips that the cell trains, selects and tests on."""
        cell = self.planned.cell
        return make_split(
            self.manifest,
            self.card,
            cell.fold,
            cell.seed,
            cell.budget,
        )


def version_if_installed(name: str) -> int | None:
    """Return the version of a system that an installed package registers.

    Unlike `load_system`, it never runs a file that `name` stands for, nor a module or file that its argument names.

    Returns:
        None if the code is not that of an installed package.

    Raises:
        UserError: no package registers the name, or its module fails to import.
    """
    if SYSTEMS.is_file(name) or SYSTEMS.is_class(name):
        return None
    kind, _, argument = name.partition(":")
    return SYSTEMS.load_kind(kind).version if argument else load_system(kind).version


def resolve(cell: Cell, progress: Progress) -> ResolvedCell:
    """Find and check everything that a cell names. A generated task is prepared if necessary.

    Raises:
        UserError: a task, system or setting is unknown, the system does not support the protocol, the task is not
            prepared, or the task does not have the fold.
    """
    card = load_card(cell.task)
    kind = load_system(cell.system)
    if cell.protocol not in kind.protocols:
        raise _no_protocol(cell.system, kind, cell.protocol)
    card.check_fold(cell.fold)
    where = f"settings of {cell.system}"
    config = validate(cell.settings, kind.Settings, where)
    changed = changed_settings(cell.settings, kind.Settings, where)
    cell = cell.model_copy(update={"settings": changed, "task": card.reference})
    target = TargetTask(
        classes=card.classes, window_seconds=card.window_seconds, metric=card.metric
    )
    system = kind(config, target, cell.protocol)
    manifest = ensure_prepared(card, progress)
    determinants = Determinants(
        cell=cell,
        settings=validate(changed, kind.Settings, where).model_dump(mode="json"),
        system_version=kind.version,
        system_versions=system.system_versions,
        provenance=SYSTEMS.provenance(cell.system) | system.provenance,
        corpora=corpus_state(system.corpus, card.reference, progress),
        manifest_hash=manifest.hash,
        card_version=card.version,
        window_seconds=card.window_seconds,
        metric=card.metric,
    )
    planned = PlannedCell(
        cell,
        determinants.identity,
        manifest.hash,
        determinants.settings,
        kind.version,
        determinants.system_versions,
        determinants.provenance,
        determinants.corpora,
        _shared_artifacts(cell, system, manifest),
    )
    return ResolvedCell(planned, card, manifest, system)


def plan(cells: Iterable[Cell], progress: Progress) -> list[PlannedCell | ImpossibleCell]:
    """Resolve every cell, so that a mistake is found before other cells run for hours."""
    return [_plan(cell, progress) for cell in cells]


def _plan(cell: Cell, progress: Progress) -> PlannedCell | ImpossibleCell:
    try:
        return resolve(cell, progress).planned
    except FAILURES as error:  # a plug-in may fail in any way
        return ImpossibleCell(cell, summarize_error(error))


def _shared_artifacts(cell: Cell, system: System, manifest: Manifest) -> tuple[str, ...]:
    """Return the names of artifacts that other cells may need too."""
    validation = cell.budget.validation
    train = partial(_train_name, cell.task, manifest.hash, cell.fold, cell.seed, validation)
    try:
        artifacts = system.shared_artifacts(cell, train)
        return tuple(json.dumps(artifact, sort_keys=True) for artifact in artifacts)
    except FAILURES:  # they only affect scheduling, and the run reports the error
        return ()


@lru_cache(maxsize=4096)
def _train_name(task: str, manifest_hash: str, fold: int, seed: int, validation: bool) -> str:
    """Return a hash that identifies the train audio of cells."""
    card = load_card(task)
    budget = LabelBudget(validation=validation)
    rows = make_split(load_manifest(card), card, fold, seed, budget).train
    return hashlib.sha256(manifest_hash.encode() + rows.tobytes()).hexdigest()


def with_preset(system: str, preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a system's preset, changed by further settings.

    Args:
        system: the name of the system.
        preset: one of `System.presets`; empty: no preset.
        settings: settings that take precedence.

    Raises:
        UserError: the system or the preset is unknown.
    """
    if not preset:
        return dict(settings)
    presets = load_system(system).presets
    if preset not in presets:
        raise unknown("preset", preset, presets, where=f"the system {system}")
    return merge(presets[preset], settings)


def expand_grid(
    systems: Sequence[tuple[str, dict[str, Any]]],
    tasks: Sequence[str],
    protocols: Sequence[str] = (),
    labels: Sequence[str] = ("100%",),
    seeds: int = 1,
    fold: int | None = None,
) -> list[Cell]:
    """Expand a grid into cells.

    Args:
        systems: names, each with the settings that differ from its defaults.
        tasks: names, or name@variant.
        protocols: protocols to run; empty: the default of each system. A system skips protocols that it does not
            support, unless it supports none of them.
        labels: label budgets, such as 10% and 5-shot.
        seeds: number of seeds, counted from 0.
        fold: the only fold to run; None: all folds.

    Raises:
        UserError: unknown protocol, system or task; a system that has none of the protocols; a fold that a
            task does not have.
    """
    for protocol in protocols:
        if protocol not in get_args(ProtocolName):
            raise unknown("protocol", protocol, get_args(ProtocolName))
    cells = []
    for name, settings in systems:
        kind = load_system(name)
        own = kind.protocols
        chosen = [own[0]] if not protocols else [p for p in own if p in protocols]
        if not chosen:
            raise _no_protocol(name, kind, ", ".join(protocols))
        for task in tasks:
            card = load_card(task)
            if fold is not None:
                card.check_fold(fold)
            folds = card.folds if fold is None else (fold,)
            cells += [
                Cell(
                    system=name,
                    settings=settings,
                    task=card.reference,
                    protocol=protocol,
                    labels=budget,
                    seed=seed,
                    fold=number,
                )
                for protocol in chosen
                for budget in labels
                for seed in range(seeds)
                for number in folds
            ]
    return cells


def _no_protocol(name: str, kind: type[System], protocol: str) -> UserError:
    because = f" ({kind.frozen_because})" if kind.frozen_because else ""
    return UserError(
        f"the system '{name}' has no protocol '{protocol}'{because}",
        allowed=f"it has {', '.join(kind.protocols)}",
    )
