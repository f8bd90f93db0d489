"""Cells: run, resumed, refused, failed, recorded."""

import hashlib
import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lape_bench import metrics
from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import LabelBudget
from lape_bench.core.paths import home
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import Clips
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import load_manifest
from lape_bench.data.splits import make_split
from lape_bench.data.stored_samples import unpack
from lape_bench.evaluation import cell_run, runner
from lape_bench.evaluation.evaluation_data import (
    EvaluationData,
    class_numbers,
    group_numbers,
    training_data,
)
from lape_bench.evaluation.plan import expand_grid, load_system, resolve
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.systems import encoder_system
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import Cell, RunRecord, cell_folder, read_record
from lape_bench.runtime.device import Compute
from lape_bench.system import RunContext, TrainingData, TrainingSummary
from tests.lape_bench import killed_runs

BRIEF = {"width": 16, "finetune": {"epochs": 3, "min_steps": 1, "evaluations": 3}}
CPU = Compute(device="cpu", precision="float32")


def options(out: Path, **how: bool) -> RunOptions:
    return RunOptions(out=out, compute=CPU, **how)


def brief_cell(**how: object) -> Cell:
    values = {"system": "supervised", "settings": BRIEF, "task": "synthetic-sounds"}
    return Cell.model_validate(values | {"protocol": "finetune", "labels": "25%"} | how)


def floor_cell(**how: object) -> Cell:
    values = {"system": "log-mel-statistics", "task": "synthetic-sounds", "protocol": "linear"}
    return Cell.model_validate(values | how)


def folder_of(record: RunRecord, out: Path) -> Path:
    return cell_folder(out, record.cell, record.identity)


def predictions_hash(record: RunRecord, out: Path) -> str:
    return hashlib.sha256((folder_of(record, out) / "predictions.parquet").read_bytes()).hexdigest()


@pytest.mark.parametrize("protocol", ["finetune", "linear", "mlp", "knn"])
def test_the_same_cell_twice_gives_the_same_predictions_to_the_byte(
    protocol: str, synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    few_fits = {"hidden": 32, "min_steps": 10, "learning_rates": [1e-3, 3.2e-3]}
    cell = brief_cell(protocol=protocol, settings=BRIEF | {"mlp": few_fits})
    hashes = set()
    for name in ("one", "two"):
        record = run_cell(cell, options(tmp_path / name), progress)
        assert record.status == "finished", record.error
        hashes.add(predictions_hash(record, tmp_path / name))
    assert len(hashes) == 1


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of windows in each batch that AudioNTT embeds in evaluation of several, as it happens."""
    batches: list[int] = []
    forward = AudioNTT.forward

    def counted(self: AudioNTT, features: torch.Tensor) -> torch.Tensor:
        if len(features) > 1:  # one window alone counts operations
            batches.append(len(features))
        return forward(self, features)

    monkeypatch.setattr(AudioNTT, "forward", counted)
    return batches


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_predictions_do_not_depend_on_what_the_cache_holds(
    protocol: str,
    own_artifacts: Path,
    embedded: list[int],
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = brief_cell(protocol=protocol, labels="10%")
    n_labeled, n_test = 8 * round(24 * 0.1), 64
    hashes = []

    def run(name: str) -> int:
        """Run the cell, and return how many windows were embedded."""
        embedded.clear()
        record = run_cell(cell, options(tmp_path / name), progress)
        assert record.status == "finished", record.error
        hashes.append(predictions_hash(record, tmp_path / name))
        return sum(embedded)

    with monkeypatch.context() as patched:
        patched.setattr(encoder_system, "CACHED_BYTES", 0)
        assert run("without") == n_labeled + n_test
    assert run("cold") == n_test
    assert run("warm") == 0
    for path in (own_artifacts / "artifacts" / "embeddings").glob("*/embeddings.pt"):
        path.write_bytes(path.read_bytes()[:-1])
    assert run("damaged") == n_labeled + n_test
    assert len(set(hashes)) == 1


def test_label_budgets_share_the_embeddings_of_test_clips_and_seeds_of_random_weights_do_not(
    own_artifacts: Path, embedded: list[int], tmp_path: Path, progress: Progress
) -> None:
    n_test = 64
    windows = []
    for how in ({"labels": "10%"}, {"labels": "25%"}, {"labels": "25%", "seed": 1}):
        embedded.clear()
        record = run_cell(brief_cell(protocol="linear", **how), options(tmp_path), progress)
        assert record.task is not None
        windows.append(sum(embedded) - record.task.clips["labeled"])
    assert windows == [n_test, 0, n_test]


def test_only_the_harness_has_embeddings_of_scored_clips_cached(
    own_artifacts: Path, context: RunContext, progress: Progress
) -> None:
    job = resolve(brief_cell(protocol="knn"), progress)
    data = EvaluationData.open(job, progress)
    job.system.train(data.training, context)
    before = len(context.artifacts)
    scores = job.system.score(data.test, context)
    assert len(context.artifacts) == before
    again = job.system.score(data.test, replace(context, caches_scored_clips=True))
    assert len(context.artifacts) == before + 1
    assert torch.equal(scores, again)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "trials", "kills"), [("supervised", 2, 2), ("unfused", 1, 2)])
def test_runs_killed_at_random_moments_and_resumed_end_with_the_same_record(
    system: str, trials: int, kills: int, synthetic: Path, tmp_path: Path
) -> None:
    program = [sys.executable, "-m", killed_runs.__name__]
    done = subprocess.run(
        [*program, system, str(tmp_path), str(trials), str(kills), "7"],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr + done.stdout
    files = sorted(tmp_path.rglob("predictions.parquet"))
    assert len(files) == 1 + trials
    records = [read_record(path.parent) for path in files]
    for record in records[1:]:
        assert told(record) == told(records[0])
    assert len({path.read_bytes() for path in files}) == 1
    assert sum(record.resumed for record in records) >= trials * kills // 2, "the kills missed"
    left = [path for path in tmp_path.rglob("*") if path.name.startswith(("work", ".work-"))]
    assert not left, "checkpoints are left behind"


def told(record: RunRecord) -> dict[str, object]:
    """What a record says of what came out, not of when, where and how fast."""
    part = record.model_dump(
        include={
            "identity",
            "metrics",
            "predictions_sha256",
            "selection",
            "validation",
            "curves",
            "diagnosis",
            "parameters",
        }
    )
    made = sorted((each.kind, each.hash, each.sha256) for each in record.artifacts)
    return part | {"artifacts": made}


def test_a_finished_cell_is_not_run_again_unless_forced(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    first = run_cell(floor_cell(), options(tmp_path), progress)
    path = folder_of(first, tmp_path) / "record.json"
    before = path.stat().st_mtime_ns
    assert run_cell(floor_cell(), options(tmp_path), progress) == first
    assert path.stat().st_mtime_ns == before
    run_cell(floor_cell(), options(tmp_path, force=True), progress)
    assert path.stat().st_mtime_ns > before


@pytest.mark.parametrize("damage", ["predictions.parquet", "record.json"])
def test_a_cell_whose_files_are_damaged_is_run_again(
    damage: str, synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    first = run_cell(floor_cell(), options(tmp_path), progress)
    path = folder_of(first, tmp_path) / damage
    path.write_bytes(path.read_bytes()[:-20])
    again = run_cell(floor_cell(), options(tmp_path), progress)
    assert again.metrics == first.metrics
    assert read_record(folder_of(first, tmp_path)).predictions_sha256 == first.predictions_sha256


def _run_in_process(cell: Cell, out: Path, home_folder: Path) -> str:
    import os

    os.environ["LAPE_BENCH_HOME"] = str(home_folder)
    torch.set_num_threads(1)
    return run_cell(cell, options(out), Progress(quiet=True)).finished_at


@pytest.mark.slow
def test_two_processes_on_one_cell_run_it_once(synthetic: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        arguments = (brief_cell(), tmp_path, home())
        ends = pool.starmap(_run_in_process, [arguments, arguments])
    assert ends[0] == ends[1]
    assert len(list(tmp_path.rglob("record.json"))) == 1


def test_the_record_says_what_is_needed_to_recompute_and_trace_it(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    record = run_cell(brief_cell(labels="25%+validation"), options(tmp_path), progress)
    card = load_card("synthetic-sounds")
    assert record == read_record(folder_of(record, tmp_path))
    assert record.task is not None
    assert record.task.manifest_hash == load_manifest(card).hash
    assert record.task.data == "synthetic"
    assert record.task.clips == {"train": 192, "labeled": 48, "validation": 64, "test": 64}
    assert record.settings["finetune"]["learning_rates"] == [1e-3]
    assert list(record.curves) == ["fine-tuning"]
    assert [row["epoch"] for row in record.curves["fine-tuning"]] == [1, 2, 3]
    assert record.selection == {}
    assert record.validation == record.curves["fine-tuning"][-1]["validation"]
    assert (record.labels_for_training, record.labels_for_selection) == (48, 0)
    probed = run_cell(brief_cell(protocol="linear"), options(tmp_path), progress)
    assert probed.validation is not None
    assert 0 < probed.validation <= 1
    assert run_cell(brief_cell(protocol="knn"), options(tmp_path), progress).validation is None
    assert record.validation_origin == "official"
    assert record.environment["torch"] == torch.__version__.split("+")[0]
    assert {stage.name for stage in record.stages} >= {"audio", "train", "fine-tuning", "test"}
    assert all(stage.peak_memory_mib > 0 for stage in record.stages)
    # By hand: 64 x 9 + 64, twice 64 x 64 x 9 + 64, three batch norms, 512 d + d, d d + d; then 8 d + 8.
    encoder = 640 + 2 * 36_928 + 3 * 128 + 512 * 16 + 16 + 16 * 16 + 16
    assert record.parameters is not None
    assert record.parameters.encoder == encoder
    assert record.parameters.inference == encoder + 8 * 16 + 8
    read = read_predictions(folder_of(record, tmp_path), record)
    assert metrics.score(read.log_probabilities, read.labels) == record.metrics
    assert np.allclose(np.exp(read.log_probabilities).sum(axis=1), 1, atol=1e-5)
    table = load_manifest(load_card("synthetic-sounds")).clips.set_index("clip_id")
    assert read.groups is not None
    assert read.folds is not None
    assert read.groups.to_pylist() == table.loc[read.clip_ids.to_pylist(), "group"].tolist()
    assert set(read.folds.to_pylist()) == {None}  # the split is official


def test_the_audit_reports_shortcuts_and_changes_nothing(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    plain = run_cell(brief_cell(), options(tmp_path / "plain"), progress)
    audited = run_cell(brief_cell(), options(tmp_path / "audited", audit=True), progress)
    assert plain.audit is None
    assert audited.predictions_sha256 == plain.predictions_sha256
    assert audited.audit is not None
    assert set(audited.audit) == {"best_epoch_on_test", "one_random_crop", "random_split"}
    assert audited.audit["best_epoch_on_test"]["accuracy"] >= audited.metrics["accuracy"]
    # Clips of the synthetic task are exactly a window long, so a random crop of one is the clip.
    crop = audited.audit["one_random_crop"]
    assert crop == audited.metrics


def test_an_audit_of_a_finished_cell_runs_it_again(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    run_cell(floor_cell(), options(tmp_path), progress)
    record = run_cell(floor_cell(), options(tmp_path, audit=True), progress)
    assert record.audit is not None
    assert "best_epoch_on_test" not in record.audit  # a probe has no epochs


def test_a_kept_model_scores_as_the_record_says(
    synthetic: Path, tmp_path: Path, progress: Progress, context: RunContext
) -> None:
    record = run_cell(brief_cell(), options(tmp_path, keep_model=True), progress)
    job = resolve(brief_cell(), progress)
    system = job.system.load(folder_of(record, tmp_path) / "model", context)
    clips = job.manifest.open_clips(16_000, progress)
    rows = np.flatnonzero(job.manifest.clips["split"] == "test")
    log_probabilities = read_predictions(folder_of(record, tmp_path), record).log_probabilities
    assert np.array_equal(system.score(clips.select(rows), context).numpy(), log_probabilities)


def test_a_checkpoint_of_another_width_is_refused_by_name(
    synthetic: Path, tmp_path: Path, progress: Progress, context: RunContext
) -> None:
    record = run_cell(brief_cell(), options(tmp_path, keep_model=True), progress)
    wider = resolve(brief_cell(settings={"width": 24}), progress).system
    with pytest.raises(UserError, match=r"encoder in .*weights.pt does not match.*has shape"):
        wider.load(folder_of(record, tmp_path) / "model", context)


def test_a_failing_system_is_recorded_with_its_error_and_retried_later(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr(load_system("log-mel-statistics"), "score", fail)
        record = run_cell(floor_cell(), options(tmp_path), progress)
    assert record.status == "failed"
    assert str(record.error).startswith("RuntimeError: out of luck, at test_runner.py:")
    assert "out of luck" in (folder_of(record, tmp_path) / "error.txt").read_text()
    assert read_record(folder_of(record, tmp_path)) == record
    assert run_cell(floor_cell(), options(tmp_path), progress).status == "finished"
    assert not (folder_of(record, tmp_path) / "error.txt").exists()


def test_an_audit_that_fails_does_not_cost_the_result(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(cell_run, "score_shortcuts", fail)
    told = run_cell(floor_cell(), options(tmp_path, audit=True), progress)
    assert told.status == "failed"
    assert str(told.error).startswith("RuntimeError: out of luck, at test_runner.py:")
    kept = read_record(folder_of(told, tmp_path))
    assert kept.status == "finished"
    assert run_cell(floor_cell(), options(tmp_path), progress) == kept


def test_a_diverged_curve_is_recorded_and_read_back(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_system("log-mel-statistics")
    train = kind.train

    def diverging(*arguments: object) -> TrainingSummary:
        train(*arguments)
        return TrainingSummary(curves={"it": ({"epoch": 1.0, "loss": float("nan")},)})

    monkeypatch.setattr(kind, "train", diverging)
    record = run_cell(floor_cell(), options(tmp_path), progress)
    assert np.isnan(read_record(folder_of(record, tmp_path)).curves["it"][0]["loss"])


def test_scores_that_are_not_finite_are_refused(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan(self: object, clips: Clips, context: RunContext) -> torch.Tensor:
        return torch.full((len(clips), 8), torch.nan)

    monkeypatch.setattr(load_system("log-mel-statistics"), "score", nan)
    record = run_cell(floor_cell(), options(tmp_path), progress)
    assert record.status == "failed"
    assert "not finite" in str(record.error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "superviced"}, "did you mean 'supervised'"),
        ({"task": "synthetic-sound"}, "did you mean 'synthetic-sounds'"),
        ({"task": "fsdd-digits@oficial"}, "did you mean 'official'"),
        ({"settings": {"widht": 3}}, "'widht' is not a known key: did you mean 'width'"),
        ({"fold": 2}, "has no fold 2; its folds: none, its split is official"),
        ({"task": "asc-keywords"}, "not prepared; run 'bench data prepare asc-keywords"),
        ({"system": "log-mel-statistics", "settings": {}}, "no protocol 'finetune'; it has linear"),
    ],
    ids=str,
)
def test_a_cell_that_cannot_be_run_is_refused_before_anything_runs(
    change: dict[str, object], said: str, tmp_path: Path, progress: Progress
) -> None:
    with pytest.raises(UserError, match=said):
        run_cell(brief_cell(**change), options(tmp_path), progress)
    assert not list(tmp_path.rglob("record.json"))


def test_results_that_cannot_be_written_are_a_user_error(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*LAPE_BENCH_HOME for data.*--out"):
        run_cell(floor_cell(), options(tmp_path / "file" / "results"), progress)


def test_a_finished_cell_in_a_folder_that_may_only_be_read_is_found(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_cell(floor_cell(), options(tmp_path), progress)
    (folder_of(record, tmp_path) / ".lock").unlink(missing_ok=True)
    monkeypatch.setattr(runner.os, "access", lambda path, mode: mode != runner.os.W_OK)
    monkeypatch.setattr(runner, "locked", None)
    assert run_cell(floor_cell(), options(tmp_path), progress) == record
    monkeypatch.setattr(runner, "write_record", None)
    labeled = run_cell(
        floor_cell().model_copy(update={"label": "floor"}), options(tmp_path), progress
    )
    assert labeled.cell.label == "floor"
    assert labeled.metrics == record.metrics


def test_a_plan_holds_every_combination_once() -> None:
    cells = expand_grid(
        [("supervised", {"width": 32}), ("log-mel-statistics", {})],
        ["esc10", "fsdd-digits@official"],
        ["linear", "finetune"],
        ["10%", "100%"],
        seeds=3,
    )
    # esc10 has 5 folds and the variant 1; supervised has both protocols, the statistics only one
    assert len(cells) == len(set(map(str, cells))) == (5 + 1) * 2 * 3 * (2 + 1)


def test_a_cell_travels_as_plain_data() -> None:
    cell = brief_cell(labels="10%")
    assert Cell.model_validate_json(json.dumps(cell.model_dump(mode="json"))) == cell


def test_unlabeled_stages_see_all_train_audio_and_no_more(
    synthetic: Path, progress: Progress
) -> None:
    job = resolve(brief_cell(), progress)
    clips, labels = (
        job.manifest.open_clips(16_000, progress),
        class_numbers(job.manifest, job.card),
    )
    split = make_split(job.manifest, job.card, 0, 0, LabelBudget(0.1))
    data = training_data(clips, labels, group_numbers(job.manifest), split)
    sides = zip(clips, job.manifest.clips["split"], strict=True)
    side_of = {waveform.tobytes(): side for waveform, side in sides}

    def sides_in(part: Clips) -> set[str]:
        return {side_of[waveform.tobytes()] for waveform in part}

    assert sides_in(data.train) == {"train"}
    assert len(data.train) == 192
    assert len(data.labeled.clips) == 8 * round(24 * 0.1)
    assert data.validation is None


def test_a_system_is_given_the_group_of_each_train_clip(
    synthetic: Path, progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, given = resolve(brief_cell(), progress), []
    kind = type(job.system)
    train = kind.train

    def noted(system: Any, data: TrainingData, context: RunContext) -> Any:
        given.append((data.train, context.train_groups))
        return train(system, data, context)

    monkeypatch.setattr(kind, "train", noted)
    runner.run_cell(brief_cell(), options(tmp_path), progress)
    ((clips, groups),) = given
    named = zip(job.manifest.open_clips(16_000, progress), job.manifest.clips["group"], strict=True)
    group_of = {waveform.tobytes(): group for waveform, group in named}
    names = [group_of[waveform.tobytes()] for waveform in clips]
    assert len(set(names)) == len(set(groups.tolist())) > 1
    assert len(set(zip(names, groups.tolist(), strict=True))) == len(set(names))
    # The numbers follow the random order of the clips. That of the manifest would tell classes.
    assert [*dict.fromkeys(groups.tolist())] == [*range(len(set(names)))]
    assert [*dict.fromkeys(names)] != sorted(set(names))


def test_training_does_not_change_when_the_test_clips_are_poisoned(
    synthetic: Path, progress: Progress, context: RunContext, tmp_path: Path
) -> None:
    job = resolve(brief_cell(), progress)
    clips, labels = (
        job.manifest.open_clips(16_000, progress),
        class_numbers(job.manifest, job.card),
    )
    groups = group_numbers(job.manifest)
    split = make_split(job.manifest, job.card, 0, 0, LabelBudget(0.25))
    poisoned = unpack(clips.samples).copy()  # float32, since int16 has no NaN
    for row in split.test:
        poisoned[clips.starts[row] : clips.starts[row] + clips.lengths[row]] = np.nan
    wrong = labels.copy()
    wrong[split.test] = 0
    weights = []
    for audio, truth in ((clips.samples, labels), (poisoned, wrong)):
        own = Clips(clips.ids, audio, clips.starts, clips.lengths, clips.rate, clips.key)
        system = resolve(brief_cell(), progress).system
        context.work_folder = tmp_path / f"work-{len(weights)}"
        context.work_folder.mkdir()
        system.train(training_data(own, truth, groups, split), context)
        weights.append(system.encoder.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
