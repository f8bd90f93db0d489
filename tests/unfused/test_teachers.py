"""Teachers and students from elsewhere: any encoder teaches, at its own sample rate; any encoder that trains learns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.core.config import validate
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import Clips
from lape_bench.evaluation.plan import resolve
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.records.record import Cell, RunRecord
from lape_bench.runtime.device import Compute
from lape_bench.system import LabeledClips, ProtocolName, RunContext, TargetTask, TrainingData
from lape_bench.unfused.config import UnfusedConfig
from lape_bench.unfused.system import Unfused

RATE = 16_000
TARGET = TargetTask(classes=("low", "middle", "high"), window_seconds=0.2, metric="accuracy")
CLIPS, LABELED, D = 14, 6, 16
HEIGHTS = (300, 1_300, 2_600)  # Hz
BRIEF: dict[str, Any] = {
    "student_width": D,
    "clusters": 3,
    "components": 2,
    "distill": {"epochs": 1, "min_steps": 1, "batch_size": 12, "window_seconds": 0.1},
    "finetune": {"epochs": 1, "min_steps": 1, "batch_size": 6, "evaluations": 1},
}
OF_ANOTHER_STUDENT = {key: value for key, value in BRIEF.items() if key != "student_width"}
CODE = '''"""Encoders for tests."""

import torch
from torch import nn


class Levels:
    """No module, and so no gradients; hears 8 kHz."""

    sample_rate = 8_000
    embedding_size = 4

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def __call__(self, waveforms):
        assert waveforms.shape[1] % 1_600 == 0, waveforms.shape  # windows of 0.2 or 1 s
        spectra = torch.fft.rfft(waveforms).abs()
        return torch.stack([part.mean(1) for part in spectra.tensor_split(4, dim=1)], 1).log1p() + self.offset


class Filters(nn.Module):
    """A convolution over the waveform, without log-mels."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embedding_size = width
        self.filters = nn.Conv1d(1, width, 200, stride=80)

    def forward(self, waveforms):
        return self.filters(waveforms.unsqueeze(1)).abs().mean(dim=2)


class Fast(Filters):
    """Hears 32 kHz."""

    sample_rate = 32_000
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], str]:
    path = tmp_path / "encoders.py"
    path.write_text(CODE)
    return lambda name: f"{path}:{name}"


def config(given: dict[str, Any]) -> UnfusedConfig:
    return validate(given, UnfusedConfig, where="settings of unfused")


def build(protocol: ProtocolName = "knn", base: dict[str, Any] = BRIEF, **how: Any) -> Unfused:
    return Unfused(config(base | how), TARGET, protocol)


def noises(rate: int) -> Clips:
    """The same clips at any rate: tones of three heights in noise, of 0.4 s."""
    random = np.random.default_rng(0)
    time = np.arange(2 * rate // 5) / rate
    waveforms = [
        np.sin(2 * np.pi * HEIGHTS[index % 3] * time) + random.normal(0, 0.01, len(time))
        for index in range(CLIPS)
    ]
    ids = [str(index) for index in range(CLIPS)]
    return Clips.pack(ids, [waveform.astype(np.float32) for waveform in waveforms], rate)


def data() -> TrainingData:
    train = noises(RATE)
    labels, groups = torch.arange(LABELED) % 3, torch.arange(LABELED)
    return TrainingData(train, LabeledClips(train.select(range(LABELED)), labels, groups), None)


def save_checkpoint(path: Path, width: int = D) -> AudioNTT:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = AudioNTT(width)
    log_mel = encoder.log_mel.config.model_dump()
    torch.save({"encoder": encoder.state_dict(), "log_mel": log_mel}, path)
    return encoder


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- teachers ---------------------------------------------------------------------------------------------


def test_a_teacher_that_is_no_module_teaches_at_its_own_rate(
    plugin: Callable[[str], str], context: RunContext
) -> None:
    system = build("knn", teacher=plugin("Levels"))
    assert system.further_rates == (8_000,)
    context.resampled_train = {8_000: noises(8_000)}
    summary = system.train(data(), context)
    assert summary.clusters is not None
    by_height = [set(summary.clusters[height::3]) for height in range(3)]
    assert sorted(map(len, by_height)) == [1, 1, 1]  # it tells tones apart
    assert len(set.union(*by_height)) == 3
    assert set(summary.curves) == {"distillation"}
    assert "teacher_parameters" not in summary.diagnosis  # no parameters of which anybody knows
    assert system.count_parameters().encoder == count(AudioNTT(D))


def test_without_the_audio_at_the_teacher_s_rate_nothing_is_taught(
    plugin: Callable[[str], str], context: RunContext
) -> None:
    with pytest.raises(UserError, match=r"not given at 8,000 Hz; 16,000 Hz"):
        build(teacher=plugin("Levels")).train(data(), context)


def test_embeddings_are_cached_by_what_the_teacher_is(
    plugin: Callable[[str], str], context: RunContext
) -> None:
    context.resampled_train = {8_000: noises(8_000)}

    def computed(**how: Any) -> dict[str, bool]:
        run = replace(context, artifacts=[])
        build("finetune", teacher=plugin("Levels"), **how).train(data(), run)
        stages = ("embeddings", "pseudo-labels", "student")
        uses = [use for use in run.artifacts if use.kind in stages]
        return {use.kind: use.computed for use in reversed(uses)}

    assert all(computed().values())
    assert not any(computed().values())
    assert computed(teacher_settings={"offset": 1.0})["embeddings"]
    assert not any(computed(finetune=BRIEF["finetune"] | {"epochs": 2}).values())


@pytest.mark.parametrize("start", ["random", "teacher"])
def test_a_checkpoint_teaches_and_gives_its_weights(
    start: str, context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.unfused.distill.distill", lambda *_: ())
    path = tmp_path / "weights.pt"
    saved = save_checkpoint(path)
    system = build(teacher=f"checkpoint:{path}", student_start=start)
    assert set(system.provenance) == {"teacher weights"}
    summary = system.train(data(), context)
    assert summary.diagnosis["teacher_encoder_tensors_matched"] > 0
    assert summary.diagnosis["teacher_parameters"] == count(saved)
    theirs = dict(saved.named_parameters())
    same = [torch.equal(p, theirs[name]) for name, p in system.encoder.named_parameters()]
    assert all(same) == (start == "teacher")


@pytest.mark.parametrize(
    ("width", "layout", "reason"),
    [(8, "ours", r"steps\.0\.weight has shape \(16, 512\), and"), (D, "published", "log-mels")],
)
def test_a_checkpoint_of_another_width_or_of_other_log_mels_gives_no_weights(
    width: int, layout: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    save_checkpoint(path, width)
    if layout == "published":  # which hears librosa's log-mels
        tensors = torch.load(path)["encoder"]
        names = {"blocks.0": "features.0", "blocks.1": "features.4", "blocks.2": "features.8"}
        parts = {
            f"{old}.{part}": f"{new[:9]}{int(new[9:]) + part}"
            for old, new in names.items()
            for part in (0, 1)
        }
        parts |= {"steps.0": "fc.0", "steps.3": "fc.3"}
        torch.save(
            {
                f"{parts[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value
                for name, value in tensors.items()
                if name.rpartition(".")[0] in parts
            },
            path,
        )
    with pytest.raises(UserError, match=reason):
        build(teacher=f"checkpoint:{path}", student_start="teacher")


def test_a_student_teaches_a_second_round(context: RunContext, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save_checkpoint(path)
    first = OF_ANOTHER_STUDENT | {"student_width": 8, "teacher": f"checkpoint:{path}"}
    first.pop("finetune")
    system = build(teacher="unfused", teacher_settings=first)
    summary = system.train(data(), context)
    assert set(summary.curves) == {"distillation of the teacher", "distillation"}
    assert summary.diagnosis["teacher_parameters"] == count(AudioNTT(8))
    assert [use.kind for use in context.artifacts].count("student") == 2
    assert set(system.system_versions) == {"unfused", f"checkpoint:{path}"}
    assert set(system.provenance) == {"teacher teacher weights"}


def test_a_teacher_of_another_rate_is_not_brought_to_stage_4(plugin: Callable[[str], str]) -> None:
    with pytest.raises(UserError, match=r"has a sample rate of 8,000 Hz.*--system .*Levels"):
        build("linear", teacher=plugin("Levels"), downstream_encoder="teacher")


def test_a_teacher_that_cannot_be_trained_is_brought_to_stage_4_frozen(context: RunContext) -> None:
    how = {"teacher": "log-mel-statistics", "downstream_encoder": "teacher"}
    with pytest.raises(UserError, match="has no protocol 'finetune'"):
        build("finetune", **how)
    summary = build("linear", **how).train(data(), context)
    assert summary.clusters is None


# --- students ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mast", "Filters"])
def test_another_encoder_learns_without_shallow_heads(
    name: str, plugin: Callable[[str], str], context: RunContext, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    save_checkpoint(path)
    own = {"width": D, "depths": [1, 1]} if name == "mast" else {"width": 5}
    how = {
        "teacher": f"checkpoint:{path}",
        "student": name if name == "mast" else plugin(name),
        "student_settings": own,
    }
    system = build("finetune", OF_ANOTHER_STUDENT, **how)
    summary = system.train(data(), context)
    assert len(summary.curves["distillation"]) == 1
    assert set(summary.curves) == {"distillation", "fine-tuning"}
    assert system.encoder.embedding_size == (2 * D if name == "mast" else 5)
    folder = tmp_path / "model"
    folder.mkdir()
    system.save(folder)
    loaded = build("finetune", OF_ANOTHER_STUDENT, **how).load(folder, context)
    scores = system.score(noises(RATE), context)
    assert_close(loaded.score(noises(RATE), context), scores, rtol=0, atol=0)
    assert ("student file" in system.provenance) == (name != "mast")
    assert system.system_versions[how["student"]] == (2 if name == "mast" else 1)


def test_a_plug_in_starts_from_the_same_plug_in_as_its_teacher(
    plugin: Callable[[str], str], context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.unfused.distill.distill", lambda *_: ())
    name = plugin("Filters")
    how: dict[str, Any] = {"teacher": name, "student": name, "student_start": "teacher"}
    system = build("knn", OF_ANOTHER_STUDENT, **how)
    teacher: list[Tensor] = []
    prepare = system.teacher.prepare_encoder

    def noted(*arguments: Any) -> Any:
        learned = prepare(*arguments)
        teacher.extend(learned.encoder.parameters())
        return learned

    monkeypatch.setattr(system.teacher, "prepare_encoder", noted)
    system.train(data(), context)
    assert all(map(torch.equal, system.encoder.parameters(), teacher))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Fast", r"student .*Fast has a sample rate of 32,000 Hz"),
        ("Levels", r"Levels cannot be trained.*as the teacher"),
    ],
)
def test_a_student_has_the_rate_of_the_system_and_can_be_trained(
    name: str, reason: str, plugin: Callable[[str], str]
) -> None:
    with pytest.raises(UserError, match=reason):
        build(base=OF_ANOTHER_STUDENT, student=plugin(name))


def test_smoke_settings_are_those_of_teacher_and_student(plugin: Callable[[str], str]) -> None:
    given = {"teacher": plugin("Levels"), "student": "mast"}
    small = config(Unfused.with_smoke_settings(given))
    assert small.student_settings["depths"] == [1, 1]
    assert small.teacher_settings == {"offset": 0.0}


# --- a run ------------------------------------------------------------------------------------------------


def run(cell: Cell, out: Path, progress: Progress) -> RunRecord:
    compute = Compute(device="cpu", precision="float32", threads=1)
    record = run_cell(cell, RunOptions(out=out, compute=compute), progress)
    assert record.status == "finished", record.error
    return record


def test_a_run_gives_the_teacher_its_audio_and_the_record_says_what_it_was(
    synthetic: Path, plugin: Callable[[str], str], tmp_path: Path, progress: Progress
) -> None:
    name = plugin("Levels")
    cell = Cell.model_validate(
        {
            "system": "unfused",
            "task": "synthetic-sounds",
            "protocol": "linear",
            "labels": "10%",
            "settings": BRIEF | {"teacher": name},
        }
    )
    record = run(cell, tmp_path / "results", progress)
    assert record.system_versions == {name: 1}
    assert record.provenance["teacher file"].startswith("file encoders.py, SHA-256 ")
    assert record.settings["teacher_settings"] == {"offset": 0.0}
    sizes = record.diagnosis["cluster_sizes"]
    assert isinstance(sizes, tuple)
    assert sum(sizes) == 192
    Path(name.partition(":")[0]).write_text(CODE.replace("log1p()", "sqrt()"))
    changed = resolve(cell, progress).planned
    assert changed.identity != record.identity
    assert changed.settings == record.settings
