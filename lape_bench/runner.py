"""Cells: planned, run, resumed, scored and recorded.

`run_cell` is a function of plain data (a `Cell` and `RunOptions`), so another process or machine can call it.
"""

import json
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from lape_bench import environment, metrics
from lape_bench.audit import EpochsOnTest, one_random_crop
from lape_bench.config import Config, validate
from lape_bench.costs import Meter
from lape_bench.device import Compute
from lape_bench.errors import UserError, unknown, writing
from lape_bench.manifest import Manifest, load_manifest
from lape_bench.paths import manifest_path, write_text
from lape_bench.prepare import prepare
from lape_bench.progress import Progress
from lape_bench.records import (
    PROTOCOL_VERSION,
    RECORD,
    Cell,
    RunRecord,
    TaskFacts,
    cell_folder,
    identity,
    read_predictions,
    read_record,
    write_predictions,
    write_record,
)
from lape_bench.registry import SYSTEMS
from lape_bench.seeding import Seeds
from lape_bench.splits import Split, make_split, random_like
from lape_bench.store import Clips, open_store
from lape_bench.system import (
    LabelledClips,
    RunContext,
    System,
    Target,
    TrainingData,
    TrainingSummary,
)
from lape_bench.task import TaskCard, load_card

WORK, MODEL, LOCK = "work", "model", ".lock"


class RunOptions(Config):
    """How cells are run; none of it is part of a cell.

    Attributes:
        out: folder of the records.
        compute: device, precision, threads.
        force: run again what is finished.
        audit: also note what published shortcuts would have reported.
        keep_model: leave the trained model beside the record.
    """

    out: Path = Path("results")
    compute: Compute = Compute()
    force: bool = False
    audit: bool = False
    keep_model: bool = False


@dataclass(frozen=True)
class Job:
    """A cell with everything it names resolved and checked."""

    cell: Cell
    card: TaskCard
    manifest: Manifest
    system: System
    identity: str

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the system, resolved, as plain data."""
        settings: dict[str, Any] = self.system.settings.model_dump(mode="json")
        return settings


def load_system(name: str) -> type[System]:
    """Import the class of a system."""
    system: type[System] = SYSTEMS.load(
        name,
        lambda loaded: isinstance(loaded, type) and issubclass(loaded, System),
        "a class derived from lape_bench.system.System",
    )
    return system


def ensure_prepared(card: TaskCard, progress: Progress) -> Manifest:
    """Return the task's manifest; a generated task is made first if it is not there yet."""
    if card.data == "synthetic" and not manifest_path(card.reference).is_file():
        prepare(load_card(card.name), None, progress)
    return load_manifest(card)


def resolve(cell: Cell, progress: Progress) -> Job:
    """Find and check everything a cell names.

    Raises:
        UserError: unknown task, system or setting; a protocol that the system does not have; a task that is
            not prepared; a fold that the task does not have.
    """
    card = load_card(cell.task)
    kind = load_system(cell.system)
    if cell.protocol not in kind.protocols:
        raise UserError(
            f"the system '{cell.system}' has no protocol '{cell.protocol}'",
            allowed=f"it has {', '.join(kind.protocols)}",
        )
    if cell.fold not in card.folds:
        folds = f"1 to {card.split.folds}" if card.split.folds else "none, its split is official"
        raise UserError(f"{card.reference} has no fold {cell.fold}", allowed=f"its folds: {folds}")
    settings = validate(cell.settings, kind.Settings, where=f"settings of {cell.system}")
    target = Target(classes=card.classes, window_seconds=card.window_seconds, metric=card.metric)
    system = kind(settings, target, cell.protocol)
    manifest = ensure_prepared(card, progress)
    name = identity(
        {
            "cell": cell.model_dump(mode="json", exclude={"settings"}),
            "settings": settings.model_dump(mode="json"),
            "system_version": kind.version,
            "card_version": card.version,
            "manifest": manifest.hash,
            "protocol_version": PROTOCOL_VERSION,
        }
    )
    return Job(cell, card, manifest, system, name)


def plan(
    systems: Sequence[tuple[str, dict[str, Any]]],
    tasks: Sequence[str],
    protocols: Sequence[str] = (),
    label_fractions: Sequence[float] = (1.0,),
    seeds: int = 1,
    fold: int | None = None,
) -> list[Cell]:
    """Expand a grid into cells.

    Args:
        systems: names, each with the settings that differ from its defaults.
        tasks: names, or name@variant.
        protocols: what to run; none for each system's own. A system skips those it does not have, unless it
            has none of them.
        label_fractions: shares of the labels.
        seeds: how many, from 0.
        fold: the one fold to run; none for all.
    """
    cells = []
    for name, settings in systems:
        own = load_system(name).protocols
        wanted = [own[0]] if not protocols else [p for p in own if p in protocols]
        if not wanted:
            raise UserError(
                f"the system '{name}' has no protocol '{', '.join(protocols)}'",
                allowed=f"it has {', '.join(own)}",
            )
        for task in tasks:
            card = load_card(task)
            folds = card.folds if fold is None else (fold,)
            cells += [
                Cell(
                    system=name,
                    settings=settings,
                    task=card.reference,
                    protocol=protocol,
                    label_fraction=fraction,
                    seed=seed,
                    fold=number,
                )
                for protocol in wanted
                for fraction in label_fractions
                for seed in range(seeds)
                for number in folds
            ]
    return cells


def check_protocols(protocols: Sequence[str]) -> None:
    """Refuse a protocol that no system could have."""
    known = ("finetune", "linear", "knn")
    for protocol in protocols:
        if protocol not in known:
            raise unknown("protocol", protocol, known)


def finished_record(job: Job, options: RunOptions) -> RunRecord | None:
    """Return the record of a cell that needs no further run under these options."""
    folder = cell_folder(options.out, job.cell, job.identity)
    if not (folder / RECORD).is_file():
        return None
    try:
        record = read_record(folder)
        if record.status != "finished" or record.identity != job.identity:
            return None
        read_predictions(folder, record)
    except UserError:
        return None  # damaged: it is run again
    lacks_audit = options.audit and record.audit is None
    lacks_model = options.keep_model and not (folder / MODEL).is_dir()
    return None if lacks_audit or lacks_model else record


def run_cell(cell: Cell, options: RunOptions, progress: Progress) -> RunRecord:
    """Run one cell, or return its record if it is finished; a failure is recorded too.

    Raises:
        UserError: the cell cannot be run at all (see `resolve`), or results cannot be written.
    """
    job = resolve(cell, progress)
    folder = cell_folder(options.out, cell, job.identity)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A second process on the same cell waits here and then finds it finished.
        with FileLock(folder / LOCK):
            if options.force:
                (folder / RECORD).unlink(missing_ok=True)
                shutil.rmtree(folder / WORK, ignore_errors=True)
            done = finished_record(job, options)
            if done is not None:
                progress.detail(f"finished before: {cell.title}")
                return done
            return _run_and_record(job, options, folder, progress)


def _run_and_record(job: Job, options: RunOptions, folder: Path, progress: Progress) -> RunRecord:
    basis = RunRecord(
        cell=job.cell,
        identity=job.identity,
        settings=job.settings,
        system_version=job.system.version,
        status="failed",
        environment=environment.describe(),
    )
    try:
        record = _run(job, options, folder, progress, basis)
    except Exception as error:  # whatever a system raises, the record says so and other cells go on
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        write_text(folder / "error.txt", traceback.format_exc())
        record = basis.model_copy(update={"error": message, "finished_at": _now()})
    write_record(folder, record)
    if record.status == "finished":
        (folder / "error.txt").unlink(missing_ok=True)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return record


def _run(
    job: Job, options: RunOptions, folder: Path, progress: Progress, basis: RunRecord
) -> RunRecord:
    cell, card = job.cell, job.card
    device, precision = options.compute.resolve()
    seeds = Seeds(cell.seed, "run")
    split = make_split(
        job.manifest, card, cell.fold, cell.seed, cell.label_fraction, job.system.selects
    )
    work, resumed = _work_folder(folder, f"{device} {precision} {torch.get_num_threads()}", options)
    context = RunContext(device, precision, seeds, progress, work, Meter(device))
    labels = _labels(job.manifest, card)
    with context.stage("audio"):
        clips = _clips(job.manifest, job.system.sample_rate)
        data = _training_data(clips, labels, split)
        test, truth = clips.select(split.test), labels[split.test]
    listener = None
    if options.audit:
        listener = EpochsOnTest(test, truth, card.metric, work / "epochs_on_test.json")
        context.on_epoch = listener
    summary = _trained(job.system, data, context)
    with context.stage("test"):
        log_probabilities = _scored(job.system, test, context)
    audit = None
    if listener is not None:
        context.on_epoch = None
        with context.stage("audit"):
            audit = _audit(job, listener, clips, labels, split, context)
    if options.keep_model:
        _keep_model(job.system, folder)
    prediction_hash = write_predictions(
        folder, list(test.ids), truth, log_probabilities, card.classes
    )
    sides = {"train": split.train, "labelled": split.labelled, "validation": split.validation}
    return basis.model_copy(
        update={
            "status": "finished",
            "task": TaskFacts(
                name=card.name,
                variant=card.variant,
                card_version=card.version,
                data=card.data,
                manifest_hash=job.manifest.hash,
                classes=card.classes,
                metric=card.metric,
                folds=card.split.folds or 1,
                clips={name: len(side) for name, side in sides.items()} | {"test": len(test)},
                skipped=len(job.manifest.info.skipped),
            ),
            "metrics": metrics.score(log_probabilities, truth),
            "predictions_sha256": prediction_hash,
            "decided": summary.decided,
            "validation_origin": split.validation_origin,
            "curve": summary.curve,
            "audit": audit,
            "parameters": job.system.count_parameters(),
            "macs_per_second": job.system.count_macs(),
            "stages": tuple(context.meter.costs),
            "resumed": resumed,
            "artifacts": tuple({"kind": a.kind, "hash": a.hash} for a in context.artifacts),
            "environment": basis.environment
            | {
                "device": torch.cuda.get_device_name(device)
                if device.type == "cuda"
                else device.type,
                "precision": precision,
                "threads": str(torch.get_num_threads()),
            },
            "finished_at": _now(),
        }
    )


def _trained(system: System, data: TrainingData, context: RunContext) -> TrainingSummary:
    """Train, or take up a model whose training an earlier, killed run had finished."""
    model, summary_path = context.work / MODEL, context.work / "summary.json"
    if summary_path.is_file():
        with context.stage("load"):
            system.load(model, context)
        return TrainingSummary.model_validate_json(summary_path.read_text(encoding="utf-8"))
    with context.stage("train"):
        summary = system.train(data, context)
    model.mkdir(exist_ok=True)
    system.save(model)
    write_text(summary_path, summary.model_dump_json())
    return summary


def _scored(system: System, clips: Clips, context: RunContext) -> NDArray[np.float32]:
    """Score clips and hold the system to its promise."""
    scores = system.score(clips, context)
    shape = (len(clips), len(system.target.classes))
    if tuple(scores.shape) != shape or not torch.isfinite(scores).all():
        raise UserError(
            f"the system scored {len(clips)} clips with a tensor of shape {tuple(scores.shape)}"
            + ("" if torch.isfinite(scores).all() else " that is not finite"),
            allowed=f"finite log-probabilities of shape {shape}",
            next_step="'bench systems check' says more",
        )
    log_probabilities: NDArray[np.float32] = scores.float().cpu().numpy()
    return log_probabilities


def _audit(
    job: Job,
    listener: EpochsOnTest,
    clips: Clips,
    labels: NDArray[np.int64],
    split: Split,
    context: RunContext,
) -> dict[str, dict[str, float]]:
    """Score the shortcuts; the last one trains again, on a random split of the same sizes."""
    found = {}
    best = listener.best()
    if best is not None:
        found["best_epoch_on_test"] = best
    crops = one_random_crop(listener.test, job.card.window_seconds, context.seeds)
    found["one_random_crop"] = metrics.score(_scored(job.system, crops, context), listener.labels)
    names = job.manifest.clips["label"].to_numpy(object)
    dealt = random_like(split, names, context.seeds.numpy("random split"))
    again = type(job.system)(job.system.settings, job.system.target, job.system.protocol)
    work = context.work / "random-split"
    work.mkdir(exist_ok=True)
    aside = replace(context, work=work, meter=Meter(context.device), artifacts=[])
    _trained(again, _training_data(clips, labels, dealt), aside)
    scores = _scored(again, clips.select(dealt.test), aside)
    found["random_split"] = metrics.score(scores, labels[dealt.test])
    return found


def _clips(manifest: Manifest, rate: int) -> Clips:
    """Open the manifest's clips at a rate, in the manifest's order."""
    # A store is shared by the variants of a task and may hold more clips than this manifest.
    stored = open_store(manifest.info.store_key, rate, manifest.recordings)
    place = {clip_id: index for index, clip_id in enumerate(stored.ids)}
    rows = np.array([place[clip_id] for clip_id in manifest.clips["clip_id"]], np.int64)
    return stored.view(rows)


def _labels(manifest: Manifest, card: TaskCard) -> NDArray[np.int64]:
    number = {label: index for index, label in enumerate(card.classes)}
    return np.array([number[label] for label in manifest.clips["label"]], np.int64)


def _training_data(clips: Clips, labels: NDArray[np.int64], split: Split) -> TrainingData:
    def side(indices: NDArray[np.int64]) -> LabelledClips:
        return LabelledClips(clips.select(indices), torch.from_numpy(labels[indices]))

    labelled = side(split.labelled)
    same = len(split.labelled) == len(split.train)
    return TrainingData(
        train=labelled.clips if same else clips.select(split.train),
        labelled=labelled,
        validation=side(split.validation) if len(split.validation) else None,
    )


def _work_folder(folder: Path, compute: str, options: RunOptions) -> tuple[Path, int]:
    """Return the folder of a run's checkpoints, and how often it was taken up after a kill.

    What another device, precision, number of threads or state of the code left there is dropped: a run that
    went on from it could end with other bytes.
    """
    work = folder / WORK
    stamp = {
        "compute": compute,
        "audit": options.audit,
        "commit": environment.commit(),
        "torch": torch.__version__,
    }
    path = work / "stamp.json"
    resumed = 0
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        resumed = before.pop("resumed") + 1
        if before != stamp:
            resumed = 0
    if not resumed:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    write_text(path, json.dumps({**stamp, "resumed": resumed}))
    return work, resumed


def _keep_model(system: System, folder: Path) -> None:
    model = folder / MODEL
    model.mkdir(exist_ok=True)
    system.save(model)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
