"""Classify audio files with a model that a run kept beside its record (`keep_model=True`, `bench run --keep-model`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from lape_bench.core.config import validate
from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.core.folder_checksums import find_damage
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data import audio
from lape_bench.data.audio_store import Clips
from lape_bench.evaluation.plan import load_system
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.record import MODEL, RECORD, RunRecord, read_record
from lape_bench.runtime.device import Compute, torch_settings_restored
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import RunContext, System, TargetTask

AGAIN = "run its cell again with --keep-model, or keep_model=True"
CHUNK = 64  # files that are in memory at a time


def predict(
    model: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    system: type | None = None,
    all_classes: bool = False,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    force: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Classify audio files with a model that a run kept.

    Args:
        model: the cell's folder, its record, or its folder `model`.
        files: one file or several, with any sample rate, length and number of channels; WAV, FLAC, Ogg or MP3.
        system: the class, if the model belongs to a class from a notebook or script.
        all_classes: also return the probability of every class.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "float32" or "bf16".
        threads: CPU threads; None: one per core.
        force: use the model even if its code or weights have changed since.
        progress: show how many files are done.

    Returns:
        A data frame with one row per file, in their order: `file`, `predicted` (the most likely class), `probability`
        (of that class, in [0, 1]) and `problem` (why a file could not be read, otherwise None). With `all_classes` it
        also has a column `P(name)` for each class.

    Raises:
        UserError: there is no kept model, its record was edited, or its code or weights have changed.

    Example:
        >>> import lape_bench as lb, numpy as np, soundfile
        >>> results = lb.evaluate("log-mel-statistics", tasks="synthetic-sounds", keep_model=True)
        >>> noise = np.random.default_rng(0).normal(0, 0.1, 22_050)
        >>> soundfile.write("noise.wav", noise, 22_050)
        >>> table = lb.predict(results.folders[0], ["noise.wav", "missing.wav"])
        >>> table[["file", "problem"]].to_dict("list")
        {'file': ['noise.wav', 'missing.wav'], 'problem': [None, 'cannot be read (No such file or directory)']}
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    if not paths:
        raise UserError("no file is given", next_step="name the audio files to classify")
    folder = _cell_folder(Path(model))
    with torch_settings_restored(), TemporaryDirectory() as work_folder:
        compute = Compute(device=device, precision=precision, threads=threads)
        show = Progress(quiet=not progress)
        kept = _load(folder, system, force, compute, show, Path(work_folder))
        parts = []
        with show.task("predicting", len(paths), "files") as task:
            for start in range(0, len(paths), CHUNK):
                chunk = paths[start : start + CHUNK]
                parts.append(kept.classify(chunk))
                task.advance(len(chunk))
    table = pd.concat(parts, ignore_index=True)
    return table if all_classes else table[["file", "predicted", "probability", "problem"]]


@dataclass(frozen=True)
class _KeptModel:
    """A system with what it learned, ready to score.

    Attributes:
        system: after `load`.
        context: device and precision.
        level_dbfs: RMS to which the clips of its task were scaled; None: they were not.
    """

    system: System
    context: RunContext
    level_dbfs: float | None

    def classify(self, files: Sequence[Path]) -> pd.DataFrame:
        """Return the table of `predict` for a few files, with all classes."""
        classes = self.system.target.classes
        waveforms: list[audio.Samples] = []
        problems: list[str | None] = []
        for file in files:
            try:
                samples, rate = audio.read(file)
                waveforms.append(audio.resample(samples, rate, self.system.sample_rate))
                problems.append(None)
            except audio.AudioProblem as problem:
                problems.append(str(problem))
        readable = np.array([problem is None for problem in problems])
        probabilities = np.full((len(files), len(classes)), np.nan)
        if waveforms:
            ids = [str(number) for number in range(len(waveforms))]
            clips = Clips.pack(ids, waveforms, self.system.sample_rate)
            if self.level_dbfs is not None:
                clips = clips.leveled(self.level_dbfs)
            scores = self.system.score(clips, self.context)
            probabilities[readable] = scores.double().exp().cpu().numpy()
        best = np.nan_to_num(probabilities).argmax(axis=1)
        named = zip(best, readable, strict=True)
        predicted = [classes[index] if there else None for index, there in named]
        return pd.DataFrame(
            {
                "file": [str(file) for file in files],
                "predicted": pd.Series(predicted, dtype=object),
                "probability": probabilities[np.arange(len(files)), best],
                "problem": pd.Series(problems, dtype=object),
                **{f"P({name})": probabilities[:, n] for n, name in enumerate(classes)},
            }
        )


def _cell_folder(given: Path) -> Path:
    """Return the folder of the cell whose folder, record or model is given."""
    folder = given.parent if given.name in (MODEL, RECORD) else given
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", allowed="a cell's folder, or its model")
    if not (folder / MODEL).is_dir():
        raise UserError(
            f"{folder} holds no kept model",
            allowed=f"a cell's folder with a record and a folder {MODEL}",
            next_step=AGAIN,
        )
    if damage := find_damage(folder / MODEL):
        raise DamagedFile(f"the kept model is damaged: {damage}", next_step=AGAIN)
    return folder


def _load(
    folder: Path,
    kind: type | None,
    force: bool,
    compute: Compute,
    progress: Progress,
    work_folder: Path,
) -> _KeptModel:
    """Build the system that a record describes, and load what it learned."""
    record = read_record(folder)
    task, name = record.task, record.cell.system
    if record.status != "finished" or task is None or task.window_seconds is None:
        raise UserError(
            f"the record in {folder} does not say what its model was trained for",
            next_step="run the cell again, with --force",
        )
    if kind is not None and (given := SYSTEMS.register_class(kind)) != name:
        raise UserError(f"the model in {folder} is of {name}, not of {given}")
    if "source" in record.provenance and not SYSTEMS.is_class(name):
        raise UserError(
            f"the model in {folder} is of {name}, a class of a notebook or script",
            next_step=f"define it and call predict(..., system={name})",
        )
    settings = validate(record.settings, load_system(name).Settings, f"settings in {folder}")
    target = TargetTask(
        classes=task.classes, window_seconds=task.window_seconds, metric=task.metric
    )
    system = load_system(name)(settings, target, record.cell.protocol)
    changes = list(_changes(record, system))
    if changes and not force:
        raise UserError(
            f"the model in {folder} was made by other code or weights: {'; '.join(changes)}",
            next_step="run its cell again, or use it all the same with --force, or force=True",
        )
    device, resolved = compute.resolve()
    context = RunContext(
        device,
        resolved,
        Seeds(record.cell.seed, "run"),
        progress,
        work_folder,
        StageProfiler(device),
    )
    return _KeptModel(system.load(folder / MODEL, context), context, task.level_dbfs)


def _changes(record: RunRecord, system: System) -> Iterator[str]:
    """Return the code and weights that have changed since a model was trained."""
    if system.version != record.system_version:
        yield f"version {record.system_version} of {record.cell.system_name}, here {system.version}"
    here = SYSTEMS.provenance(record.cell.system) | system.provenance
    for name in sorted(here.keys() | record.provenance.keys()):
        then, now = record.provenance.get(name, "nothing"), here.get(name, "nothing")
        if then != now:
            yield f"{name} was {then}, and is {now}"
