"""The four stages end to end: no label before the last, everything in the record, nothing computed twice."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

from lape_bench.baselines.delores_s import DeloresS
from lape_bench.core.config import changed_settings, merge, validate
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.evaluation import cluster_agreement
from lape_bench.evaluation.plan import load_system, resolve
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.learning.systems.encoder_system import DOWNSTREAM
from lape_bench.records.record import Cell, RunRecord, cell_folder, read_record
from lape_bench.runtime.device import Compute
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import LabeledClips, ProtocolName, RunContext, TargetTask, TrainingData
from lape_bench.unfused import distill as stage_3
from lape_bench.unfused import system as system_module
from lape_bench.unfused.config import UnfusedConfig
from lape_bench.unfused.student import Student
from lape_bench.unfused.system import Unfused

RATE = 16_000
D_TEACHER, D_STUDENT, CLUSTERS, CLASSES = 8, 16, 6, 8
LAYERS = (2048, 1024, 512)
BRIEF = Unfused.with_smoke_settings(
    {
        "teacher_settings": {
            "width": D_TEACHER,
            "projector": 8,
            "key_features": 5,
            "key_hidden": 6,
            "pretrain": {"epochs": 1, "batch_size": 64, "window_seconds": 0.1},
        },
        "student_width": D_STUDENT,
        "clusters": CLUSTERS,
        "components": 4,
        "distill": {"epochs": 2, "batch_size": 64, "window_seconds": 0.1},
        "finetune": {"epochs": 1, "batch_size": 64},
    }
)
SMALL: dict[str, Any] = {
    "teacher": "delores-s",
    "teacher_settings": {
        "width": D_TEACHER,
        "projector": 8,
        "pretrain": {
            "epochs": 1,
            "min_steps": 1,
            "batch_size": 12,
            "window_seconds": 0.1,
        },
    },
    "student_width": D_STUDENT,
    "clusters": 4,
    "components": 3,
    "distill": {"epochs": 2, "min_steps": 1, "batch_size": 12, "window_seconds": 0.1},
    "finetune": {"epochs": 1, "min_steps": 1, "batch_size": 6, "evaluations": 1},
}
TARGET = TargetTask(classes=("low", "middle", "high"), window_seconds=0.2, metric="accuracy")
CLIPS, LABELED = 14, 6


def settings(**how: Any) -> UnfusedConfig:
    return validate(merge(SMALL, how), UnfusedConfig, where="settings of unfused")


def build(protocol: ProtocolName = "knn", **how: Any) -> Unfused:
    return Unfused(settings(**how), TARGET, protocol)


def of_another_kind(**how: Any) -> dict[str, Any]:
    """Settings with a teacher that is no AudioNTT, and whose width is not the size of its embedding."""
    teacher = {"width": D_TEACHER, "depths": [1, 1], "key_features": 5, "key_hidden": 6}
    pretrain = SMALL["teacher_settings"]["pretrain"]
    changed = {"teacher": "ss-mast", "teacher_settings": teacher | {"pretrain": pretrain}}
    return SMALL | changed | how


def noises(count: int, seed: int) -> Clips:
    """Clips of 0.2 s, noise in three colors in turn."""
    random = np.random.default_rng(seed)
    waveforms: list[NDArray[np.float32]] = []
    for index in range(count):
        noise = random.normal(0, 0.1, 3_200)
        shaped = (noise, np.cumsum(noise) / 10, np.diff(noise, prepend=0))[index % 3]
        waveforms.append(shaped.astype(np.float32))
    return Clips.pack([f"{seed}-{index}" for index in range(count)], waveforms, RATE)


def data(labels: Tensor | None = None) -> TrainingData:
    """14 train clips, the first 6 of them labeled, and 6 clips to validate."""
    train = noises(CLIPS, 0)
    given = torch.arange(LABELED) % 3 if labels is None else labels
    labeled = LabeledClips(train.select(range(LABELED)), given, torch.arange(LABELED))
    return TrainingData(train, labeled, None)


def aside(context: RunContext, name: str) -> RunContext:
    """Return a context with a work folder, a cache and a list of artifacts of its own."""
    folder = context.work_folder / name
    folder.mkdir()
    return replace(context, work_folder=folder, artifact_folder=folder / "artifacts", artifacts=[])


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the stages of `build()` for seed 0."""
    folder = tmp_path_factory.mktemp("learned")
    device = torch.device("cpu")
    seeds, progress = Seeds(0, "test"), Progress(quiet=True)
    run = RunContext(
        device,
        "float32",
        seeds,
        progress,
        folder,
        StageProfiler(device),
        artifact_folder=folder / "a",
    )
    build().train(data(), run)
    return run.artifact_folder


def made(context: RunContext) -> list[tuple[str, bool]]:
    return [(each.kind, each.computed) for each in context.artifacts]


def encoder_by_hand(d: int) -> int:
    convolutions = sum(64 * (9 * inputs + 1) + 2 * 64 for inputs in (1, 64, 64))
    return convolutions + (512 * d + d) + (d * d + d)


def student_by_hand(d: int, k: int) -> int:
    heads = sum((size * k + k) + 2 * (k * k + k) + 4 * k for size in LAYERS)
    return encoder_by_hand(d) + d * k + k + heads


# --- settings ---------------------------------------------------------------------------------------------


def test_the_teachers_defaults_are_filled_in_and_its_downstream_settings_left_out() -> None:
    resolved = UnfusedConfig().teacher_settings
    kind = load_system("delores-m")
    expected = kind.Settings().model_dump(mode="json")
    assert set(expected) > DOWNSTREAM
    assert resolved == {key: value for key, value in expected.items() if key not in DOWNSTREAM}
    given = UnfusedConfig(teacher_settings={"queue": 9, "pretrain": {"epochs": 3}})
    assert given.teacher_settings["queue"] == 9
    assert given.teacher_settings["pretrain"]["epochs"] == 3
    assert given.teacher_settings["pretrain"] == expected["pretrain"] | {"epochs": 3}
    assert "queue" not in UnfusedConfig(teacher="delores-s").teacher_settings


def test_resolved_settings_are_settings_too() -> None:
    resolved = settings(teacher_settings={"corpus": "target"})
    assert UnfusedConfig.model_validate(resolved.model_dump(mode="json")) == resolved


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"teacher_settings": {"finetune": {"epochs": 3}}},
            r"teacher_settings\.finetune would do nothing: .* no label\. Set finetune itself",
        ),
        ({"teacher_settings": {"linear": {}}}, r"teacher_settings\.linear would do nothing"),
        ({"teacher_settings": {"widht": 8}}, r"settings of delores-s.*did you mean 'width'"),
        ({"teacher_settings": {"width": "wide"}}, r"settings of delores-s: 'width'"),
        ({"teacher_settings": 3}, r"teacher_settings"),
        ({"teacher": "delores-x"}, r"there is no system 'delores-x'.*did you mean 'delores-"),
        ({"student": "ss-mast"}, r"ss-mast pre-trains its encoder itself.*mast"),
        ({"student": "unfused"}, r"unfused pre-trains its encoder itself"),
        (
            {"student": "log-mel-statistics"},
            r"log-mel-statistics cannot be trained.*as the teacher",
        ),
        ({"student": "mats"}, r"there is no system 'mats'"),
        ({"student": "mast"}, r"student_width applies only to audio-ntt, and the student is mast"),
        ({"student_settings": {"width": 8}}, r"do not apply to audio-ntt: set student_width"),
        ({"teacher": 3}, r"teacher"),
        ({"student_start": "pupil"}, r"student_start"),
        ({"clusters": 1}, r"clusters"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_by_what_is_wrong(
    how: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        settings(**how)


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({}, (1e-3,)),
        ({"student": "mast"}, (2.5e-4,)),
        ({"student": "mast", "finetune": {"learning_rates": [1e-3]}}, (1e-3,)),
        ({"teacher": "ss-mast"}, (1e-3,)),
        ({"teacher": "ss-mast", "downstream_encoder": "teacher"}, (2.5e-4,)),
    ],
)
def test_the_encoder_that_is_fine_tuned_brings_its_own_defaults(
    given: dict[str, Any], rates: tuple[float, ...]
) -> None:
    config = validate(given, UnfusedConfig, where="settings of unfused")
    assert config.finetune.learning_rates == rates
    again = validate(config.model_dump(mode="json"), UnfusedConfig, where="a record")
    assert again == config
    assert changed_settings(config.model_dump(mode="json"), UnfusedConfig, "a record") == given


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (SMALL, r"its width is 16, and the teacher's is 8; make"),
        (
            of_another_kind(student_width=D_TEACHER),
            r"its width|of class AudioNTT, and the teacher's of Multi",
        ),
        (
            of_another_kind(
                student="mast",
                student_settings={"width": D_TEACHER, "depths": [1, 2]},
                student_width=2048,
            ),
            r"its depths is \(1, 2\), and the teacher's is \(1, 1\)",
        ),
    ],
    ids=["width", "kind", "depths"],
)
def test_a_student_cannot_start_from_a_teacher_of_another_architecture(
    given: dict[str, Any], reason: str
) -> None:
    config = validate(
        given | {"student_start": "teacher"}, UnfusedConfig, where="settings of unfused"
    )
    with pytest.raises(UserError, match=reason):
        Unfused(config, TARGET, "knn")


# --- no label before stage 4 ------------------------------------------------------------------------------


@pytest.mark.parametrize("downstream_encoder", ["student", "teacher"])
def test_other_labels_leave_the_encoder_of_the_first_three_stages_to_the_byte(
    context: RunContext, downstream_encoder: str
) -> None:
    found = []
    for name, labels in (("true", None), ("wrong", torch.tensor([2, 2, 0, 1, 1, 0]))):
        system = build(downstream_encoder=downstream_encoder)
        summary = system.train(data(labels), aside(context, name))
        found.append((system.encoder.state_dict(), summary))
    (encoder, summary), (other, other_summary) = found
    assert_close(other, encoder, rtol=0, atol=0)
    assert other_summary.clusters == summary.clusters
    assert other_summary.curves == summary.curves


def test_all_train_clips_are_put_in_clusters_and_taught_whatever_share_is_labeled(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[Clips, Tensor]] = []

    def distill(student: Student, views: object, clips: Clips, labels: Tensor, *_: object) -> Any:
        taught.append((clips, labels))
        return ()

    monkeypatch.setattr(stage_3, "distill", distill)
    given = data()
    summary = build().train(given, aside(context, "run"))
    assert summary.clusters is not None
    assert len(summary.clusters) == CLIPS
    ((clips, labels),) = taught
    assert clips.ids == given.train.ids
    assert labels.tolist() == list(summary.clusters)
    counted = sorted((summary.clusters.count(k) for k in range(4)), reverse=True)
    assert summary.diagnosis["cluster_sizes"] == tuple(counted)
    assert sum(counted) == CLIPS


def test_the_windows_of_a_clip_are_averaged_before_clips_are_clustered(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    clustered: list[NDArray[np.float32]] = []

    def noted(embeddings: NDArray[np.float32], *_: object) -> NDArray[np.int64]:
        clustered.append(embeddings)
        return np.arange(len(embeddings)) % 4

    monkeypatch.setattr(system_module, "pseudo_labels", noted)
    short, run, system = noises(9, 0), aside(context, "run"), build()
    waveforms = [np.concatenate([short[(i + j) % 9] for j in range(1 + i % 3)]) for i in range(9)]
    train = Clips.pack(short.ids, waveforms, RATE)
    teacher_settings = DeloresS.Settings.model_validate(system.settings.teacher_settings)
    teacher = DeloresS.load_or_pretrain(teacher_settings, train, run)
    system._pseudo_labels(teacher.encoder, train, run)
    encoder = teacher.encoder.eval()
    with torch.no_grad():
        expected = [
            encoder(encoder.features(torch.from_numpy(waveform.reshape(-1, 3_200)))).mean(dim=0)
            for waveform in waveforms
        ]
    assert_close(torch.from_numpy(clustered[0]), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_pseudo_labels_follow_the_order_of_the_clips_they_are_of(context: RunContext) -> None:
    given = data()
    order = np.random.default_rng(0).permutation(CLIPS)
    moved = replace(given, train=given.train.select(order))
    plain = build(teacher_settings={"corpus": "target"})
    one = aside(context, "one")
    teacher = DeloresS.load_or_pretrain(
        DeloresS.Settings.model_validate(plain.settings.teacher_settings), given.train, one
    )
    labels, _ = plain._pseudo_labels(teacher.encoder, given.train, one)
    again, _ = plain._pseudo_labels(teacher.encoder, moved.train, one)
    same_cluster = labels[:, None] == labels[None, :]
    assert torch.equal(again[:, None] == again[None, :], same_cluster[order][:, order])


# --- stage 3's start, stage 4's encoder -------------------------------------------------------------------


@pytest.mark.parametrize("start", ["random", "teacher"])
def test_a_student_starts_from_the_teachers_weights_or_from_random_ones(
    start: str, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_3, "distill", lambda *_: ())
    student = build(student_start=start, student_width=D_TEACHER)
    teacher = build(downstream_encoder="teacher")
    run = aside(context, "run")
    for system in (student, teacher):
        system.train(data(), run)
    ours, theirs = student.encoder.state_dict(), teacher.encoder.state_dict()
    weights = [name for name, p in student.encoder.named_parameters() if p.ndim > 1]
    assert all(torch.equal(ours[name], theirs[name]) == (start == "teacher") for name in weights)
    assert_close(ours["log_mel.mean"], theirs["log_mel.mean"])
    assert_close(ours["log_mel.std"], theirs["log_mel.std"])
    if start == "teacher":
        assert_close(ours, theirs, rtol=0, atol=0)


def test_a_student_that_starts_from_another_teacher_is_another_artifact(
    context: RunContext,
) -> None:
    run = aside(context, "run")
    sha256 = []
    for start in ("random", "teacher"):
        build(student_start=start, student_width=D_TEACHER).train(data(), run)
        sha256.append([a.metadata.sha256 for a in run.artifacts if a.kind == "student"][-1])
    assert sha256[0] != sha256[1]


def test_at_stage_4_the_teacher_is_the_encoder_of_the_teachers_own_system(
    context: RunContext,
) -> None:
    system, run = build(downstream_encoder="teacher"), aside(context, "unfused")
    summary = system.train(data(), run)
    own = DeloresS(DeloresS.Settings.model_validate(SMALL["teacher_settings"]), TARGET, "knn")
    alone = aside(context, "delores")
    own_summary = own.train(data(), alone)
    assert_close(system.encoder.state_dict(), own.encoder.state_dict(), rtol=0, atol=0)
    assert system.encoder.embedding_size == D_TEACHER
    assert system.count_parameters() == own.count_parameters()
    assert summary.curves == own_summary.curves
    assert summary.clusters is None
    found = [
        next(each for each in each_run.artifacts if each.kind == "upstream")
        for each_run in (run, alone)
    ]
    assert found[0].hash == found[1].hash
    assert found[0].metadata.sha256 == found[1].metadata.sha256


@pytest.mark.parametrize("downstream_encoder", ["student", "teacher"])
def test_a_teacher_may_be_of_another_kind_than_the_student(
    downstream_encoder: str, context: RunContext, tmp_path: Path
) -> None:
    given = validate(
        of_another_kind(downstream_encoder=downstream_encoder),
        UnfusedConfig,
        where="settings of unfused",
    )
    system, run = Unfused(given, TARGET, "linear"), aside(context, "run")
    summary = system.train(data(), run)
    kind = load_system("ss-mast")
    teacher = kind.new_encoder(kind.Settings.model_validate(given.teacher_settings))
    held = sum(parameter.numel() for parameter in teacher.parameters())
    assert teacher.embedding_size == 2 * D_TEACHER
    expected = held if downstream_encoder == "teacher" else encoder_by_hand(D_STUDENT)
    assert system.count_parameters().encoder == expected
    assert (summary.clusters is None) == (downstream_encoder == "teacher")
    scores = system.score(noises(5, 2), run)
    system.save(tmp_path)
    loaded = Unfused(given, TARGET, "linear").load(tmp_path, run)
    assert type(loaded.encoder) is type(system.encoder)
    assert torch.equal(loaded.score(noises(5, 2), run), scores)


@pytest.mark.parametrize(
    "how", [{}, {"downstream_encoder": "teacher"}, {"student_width": 24}], ids=str
)
def test_what_is_brought_to_the_task_is_saved_loaded_and_scores_the_same(
    how: dict[str, Any], context: RunContext, tmp_path: Path
) -> None:
    system, run = build("linear", **how), aside(context, "run")
    system.train(data(), run)
    test = noises(5, 2)
    scores = system.score(test, run)
    system.save(tmp_path)
    loaded = build("linear", **how).load(tmp_path, run)
    assert torch.equal(loaded.score(test, run), scores)
    assert loaded.count_parameters() == system.count_parameters()
    expected = D_TEACHER if "downstream_encoder" in how else how.get("student_width", D_STUDENT)
    assert loaded.count_parameters().encoder == encoder_by_hand(expected)


def test_a_student_larger_than_its_teacher_is_the_most_that_is_held(
    context: RunContext, learned: Path
) -> None:
    system = build()
    system.train(data(), replace(aside(context, "run"), artifact_folder=learned))
    teacher = encoder_by_hand(D_TEACHER) + D_TEACHER * 8 + 2 * 8 * 8 + 2 * 2 * 8
    held = student_by_hand(D_STUDENT, 4)
    assert teacher < held
    assert system.count_parameters().training == held


# --- the same bytes, another run --------------------------------------------------------------------------


def test_the_same_seed_trains_the_same_student_and_leaves_the_global_generator_alone(
    context: RunContext,
) -> None:
    hashes = []
    for name in ("one", "two"):
        torch.rand(3)
        run, state = aside(context, name), torch.get_rng_state()
        build().train(data(), run)
        assert torch.equal(torch.get_rng_state(), state)
        # The student finds the normalization of its teacher.
        assert all(each.computed for each in run.artifacts if each.kind != "normalization")
        hashes.append([each.metadata.sha256 for each in run.artifacts])
    assert hashes[0] == hashes[1]


def test_another_seed_shares_the_upstream_and_draws_its_own_clusters_and_student(
    context: RunContext, learned: Path
) -> None:
    run = replace(aside(context, "run"), artifact_folder=learned, seeds=Seeds(1, "test"))
    build().train(data(), run)
    stages = [stage for stage in made(run) if stage[0] != "normalization"]
    assert stages[:4] == [
        ("upstream", False),
        ("embeddings", False),
        ("pseudo-labels", True),
        ("student", True),
    ]


@pytest.mark.parametrize(
    ("how", "computed"),
    [
        ({"finetune": {"epochs": 3}}, []),
        ({"distill": {"epochs": 1}}, ["student"]),
        ({"distill": {"shallow_heads": False}}, ["student"]),
        ({"student_width": 24}, ["student"]),
        ({"clusters": 3}, ["pseudo-labels", "student"]),
        ({"shuffle_pseudo_labels": True}, ["pseudo-labels", "student"]),
        ({"teacher_settings": {"trade_off": 0.1}}, ["upstream", "pseudo-labels", "student"]),
    ],
    ids=str,
)
def test_a_changed_setting_computes_its_own_stage_and_those_after_it(
    how: dict[str, Any], computed: list[str], context: RunContext, learned: Path
) -> None:
    run = replace(aside(context, "run"), artifact_folder=learned)
    build(**how).train(data(), run)
    stages = {"upstream", "pseudo-labels", "student"}
    found = dict(each for each in made(run) if each[0] in stages)
    assert found == {kind: kind in computed for kind in stages}


def test_centered_groups_are_those_of_the_train_clips_and_determine_the_pseudo_labels(
    context: RunContext, learned: Path
) -> None:
    halves, thirds = torch.arange(CLIPS) // 7, torch.arange(CLIPS) % 3
    computed = []
    for name, how, groups in (
        ("halves", {"center_groups": True}, halves),
        ("again", {"center_groups": True}, halves),
        ("thirds", {"center_groups": True}, thirds),
        ("not centered", {}, thirds),
    ):
        run = replace(aside(context, name), artifact_folder=learned, train_groups=groups)
        build(**how).train(data(), run)
        computed.append(dict(made(run))["pseudo-labels"])
    assert computed == [True, False, True, False]
    with pytest.raises(UserError, match="center_groups is set"):
        build(center_groups=True).train(data(), aside(context, "no groups"))


def test_a_run_killed_after_stage_3_is_taken_up_and_ends_with_the_same_student(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(*_: object) -> float:
        raise Stopped

    straight, stopped = aside(context, "straight"), aside(context, "stopped")
    build().train(data(), straight)
    with monkeypatch.context() as patched:
        patched.setattr(stage_3, "agreement", stop)
        with pytest.raises(Stopped):
            build().train(data(), stopped)
    stopped.artifacts.clear()
    began: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(stage_3, "self_distillation", lambda *_, **__: began.append(1))
        build().train(data(), stopped)
    assert not began
    ours, theirs = (
        {each.kind: each.metadata.sha256 for each in run.artifacts if each.kind != "embeddings"}
        for run in (stopped, straight)
    )
    assert ours == theirs


# --- few clips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["finetune", "linear", "mlp", "knn"])
def test_a_class_with_a_single_clip_is_learned_from_and_described(
    protocol: ProtocolName, context: RunContext
) -> None:
    system = build(protocol)
    summary = system.train(data(torch.tensor([0, 0, 0, 1, 1, 2])), aside(context, "run"))
    scores = system.score(noises(4, 2), context)
    assert scores.shape == (4, 3)
    assert torch.isfinite(scores).all()
    truth = np.array([0] * 9 + [1] * 4 + [2])
    found = cluster_agreement.describe(np.array(summary.clusters), truth)
    assert all(0 <= value <= 1 for value in found.values())


def test_as_many_clusters_as_clips_can_be_taught(context: RunContext) -> None:
    summary = build(clusters=CLIPS).train(data(), aside(context, "run"))
    assert summary.diagnosis["cluster_sizes"] == (1,) * CLIPS


def test_a_teacher_in_which_every_embedding_is_the_same_still_gives_a_student(
    context: RunContext,
) -> None:
    silent = [np.zeros(3_200, np.float32)] * CLIPS
    train = Clips.pack([str(index) for index in range(CLIPS)], silent, RATE)
    labeled = LabeledClips(
        train.select(range(LABELED)), torch.arange(LABELED) % 3, torch.arange(LABELED)
    )
    summary = build().train(TrainingData(train, labeled, None), aside(context, "run"))
    assert summary.diagnosis["cluster_sizes"] == (CLIPS, 0, 0, 0)


# --- records ----------------------------------------------------------------------------------------------


def cell(**how: Any) -> Cell:
    given = how.pop("settings", {})
    values = {"system": "unfused", "task": "synthetic-sounds", "protocol": "finetune"}
    values |= {"settings": merge(BRIEF, given), "labels": "10%"}
    return Cell.model_validate(values | how)


def options(out: Path) -> RunOptions:
    return RunOptions(out=out, compute=Compute(device="cpu", precision="float32", threads=1))


@pytest.fixture(scope="module")
def prepared(synthetic_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the synthetic task is prepared, and nothing computed yet."""
    folder = tmp_path_factory.mktemp("unfused") / "home"
    shutil.copytree(synthetic_home, folder, ignore=shutil.ignore_patterns("artifacts"))
    return folder


@pytest.fixture(scope="module")
def first(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunRecord]:
    """The record of a cell with a tenth of the labels, whose artifacts stay in the cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LAPE_BENCH_HOME", str(prepared))
        out = tmp_path_factory.mktemp("first")
        record = run_cell(cell(), options(out), Progress(quiet=True))
        assert record.status == "finished", record.error
        assert read_record(cell_folder(out, record.cell, record.identity)) == record
        yield record


@pytest.fixture
def beside(first: RunRecord, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> RunRecord:
    """The same record, with its cache in use."""
    monkeypatch.setenv("LAPE_BENCH_HOME", str(prepared))
    return first


def hashes(record: RunRecord) -> dict[str, str]:
    kinds = ("upstream", "pseudo-labels", "student")
    return {use.kind: use.sha256 for use in record.artifacts if use.kind in kinds}


def test_the_record_holds_the_clusters_held_against_the_classes(first: RunRecord) -> None:
    found = first.diagnosis
    counted = {"cluster_sizes", "teacher_parameters"}
    assert set(found) == counted | {"student_agreement", "nmi", "nmi_shuffled", "purity"}
    assert found["teacher_parameters"] == encoder_by_hand(D_TEACHER)
    sizes = found["cluster_sizes"]
    assert isinstance(sizes, tuple)
    assert (len(sizes), sum(sizes)) == (CLUSTERS, 192)  # the whole train split, not 10 % of it
    assert list(sizes) == sorted(sizes, reverse=True)
    assert all(0 <= found[name] <= 1 for name in set(found) - counted)
    assert found["purity"] >= 1 / CLASSES
    assert found["nmi_shuffled"] < 0.15


def test_the_record_holds_the_curves_of_three_stages_and_what_each_cost(first: RunRecord) -> None:
    epochs = {stage: [row["epoch"] for row in curve] for stage, curve in first.curves.items()}
    assert epochs == {"pre-training": [1], "distillation": [1, 2], "fine-tuning": [1]}
    assert set(epochs) | {"pseudo-labels"} <= {stage.name for stage in first.stages}


def test_the_record_names_every_artifact_and_the_hash_of_its_bytes(first: RunRecord) -> None:
    kinds = [use.kind for use in first.artifacts if use.kind != "normalization"]
    assert kinds == ["upstream", "embeddings", "pseudo-labels", "student"]
    # The student finds the normalization of its teacher.
    assert [use.found for use in first.artifacts if use.kind == "normalization"] == [False, True]
    assert not any(use.found for use in first.artifacts if use.kind != "normalization")
    assert all(len(bytes.fromhex(use.sha256)) == 32 for use in first.artifacts)
    assert all(use.seconds > 0 for use in first.artifacts)


def test_the_record_counts_parameters_as_by_hand(first: RunRecord) -> None:
    k, projector, hidden, key = CLUSTERS, 8, 6, 5
    teacher = encoder_by_hand(D_TEACHER) + D_TEACHER * hidden + 3 * hidden + hidden * key + key
    teacher += sum(size * projector + 2 * projector**2 + 4 * projector for size in LAYERS)
    student = student_by_hand(D_STUDENT, k)
    assert first.parameters is not None
    assert first.parameters.encoder == encoder_by_hand(D_STUDENT)
    assert first.parameters.inference == encoder_by_hand(D_STUDENT) + D_STUDENT * 8 + 8
    assert first.parameters.training == max(2 * teacher, student) == 2 * teacher


def test_the_record_holds_the_teachers_settings_resolved(first: RunRecord) -> None:
    found = first.settings["teacher_settings"]
    assert found["width"] == D_TEACHER
    kind = load_system("delores-m")
    assert found["momentum"] == kind.Settings().momentum
    assert found["pretrain"]["optimizer"] == kind.Settings().pretrain.optimizer.model_dump()
    assert not {"finetune", "linear"} & set(found)


def test_another_share_of_the_labels_finds_every_stage_and_trains_no_student_again(
    beside: RunRecord, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: object) -> None:
        raise AssertionError("a student is trained again")

    monkeypatch.setattr(stage_3, "distill", again)
    record = run_cell(cell(labels="30%"), options(tmp_path), progress)
    assert record.status == "finished", record.error
    assert record.task is not None
    assert record.task.clips["labeled"] == 8 * round(24 * 0.3)
    assert all(use.found for use in record.artifacts)
    assert hashes(record) == hashes(beside)
    assert record.diagnosis == beside.diagnosis
    assert record.identity != beside.identity


def test_a_student_of_another_width_reuses_teacher_and_pseudo_labels(
    beside: RunRecord, tmp_path: Path, progress: Progress
) -> None:
    other = cell(settings={"student_width": 24, "distill": {"epochs": 1}}, protocol="knn")
    record = run_cell(other, options(tmp_path), progress)
    assert record.status == "finished", record.error
    stages = ("upstream", "pseudo-labels", "student")
    found = {use.kind: use.found for use in record.artifacts if use.kind in stages}
    assert found == {"upstream": True, "pseudo-labels": True, "student": False}
    assert record.parameters is not None
    assert record.parameters.encoder == encoder_by_hand(24)
    assert hashes(record)["pseudo-labels"] == hashes(beside)["pseudo-labels"]


def test_more_clusters_than_clips_fail_with_a_sentence_in_the_record(
    beside: RunRecord, tmp_path: Path, progress: Progress
) -> None:
    record = run_cell(cell(settings={"clusters": 193}), options(tmp_path), progress)
    assert record.status == "failed"
    assert record.error == (
        "clusters is 193, and the train split holds 192 clips to put into them; 2 to 192; "
        "give fewer, such as --set clusters=19."
    )


def test_the_code_of_a_teacher_from_a_file_is_what_the_run_rests_on(tmp_path: Path) -> None:
    path, kind = tmp_path / "mine.py", load_system("unfused")
    target = TargetTask(classes=("a", "b"), window_seconds=1.0, metric="accuracy")
    found = []
    for margin in (1, 2):
        code = f"from lape_bench.baselines.delores_s import DeloresS\n\nclass Mine(DeloresS):\n    margin = {margin}\n"
        path.write_text(code)
        settings = kind.Settings.model_validate({"teacher": f"{path}:Mine"})
        found.append(kind(settings, target, "finetune").provenance["teacher file"])
    assert found[0] != found[1]
    assert all(each.startswith("file mine.py, SHA-256 ") for each in found)
    assert kind(kind.Settings(), target, "finetune").provenance == {}


def test_a_cell_is_another_one_when_its_teacher_has_a_new_version(
    beside: RunRecord, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = resolve(cell(), progress)
    assert job.planned.identity == beside.identity
    assert job.system.system_versions == {"delores-m": load_system("delores-m").version}
    assert resolve(
        cell(settings={"teacher_settings": {"queue": 65}}), progress
    ).planned.identity != (job.planned.identity)
    monkeypatch.setattr(load_system("delores-s"), "version", 7)
    assert resolve(cell(), progress).planned.identity == job.planned.identity
    monkeypatch.setattr(load_system("delores-m"), "version", 7)
    assert resolve(cell(), progress).planned.identity != job.planned.identity
