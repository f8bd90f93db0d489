"""AudioNTT from files of others: three layouts, at any depth, to the last tensor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.baselines.checkpoint import EPSILON, Checkpoint, CheckpointEncoder
from lape_bench.baselines.supervised import Supervised
from lape_bench.conformance.check import check_system
from lape_bench.core.errors import UserError
from lape_bench.core.paths import sha256
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import Clips
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.log_mel import LogMel, LogMelConfig
from lape_bench.learning.training.batches import consecutive_windows, cut_windows, to_device
from lape_bench.records.record import Cell
from lape_bench.runtime.device import Compute
from lape_bench.system import LabeledClips, RunContext, TargetTask, TrainingData

CPU = Compute(device="cpu", precision="float32", threads=1)
TARGET = TargetTask(classes=("a", "b"), window_seconds=0.5, metric="accuracy")
WIDTH = 12


class Published(nn.Module):
    """The published network, time step by time step: `fc` sees bands first and the channels of each."""

    def __init__(self, lape: bool, blocks: int = 3, width: int = WIDTH) -> None:
        super().__init__()
        lists = [
            [nn.Conv2d(inputs, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
            for inputs in (1, 64, 64, 64)[:blocks]
        ]
        if lape:
            self.names = [f"features_{number}" for number in range(1, blocks + 1)]
            for name, layers in zip(self.names, lists, strict=True):
                self.add_module(name, nn.Sequential(*layers))
        else:
            self.names = ["features"]
            self.features = nn.Sequential(*(layer for layers in lists for layer in layers))
        bands = 64 >> blocks
        self.fc = nn.Sequential(
            nn.Linear(64 * bands, width),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        for norm in (each for each in self.modules() if isinstance(each, nn.BatchNorm2d)):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, features: Tensor) -> Tensor:
        x = features[:, None]
        for name in self.names:
            x = self.get_submodule(name)(x)
        steps = [
            self.fc(torch.cat([x[:, :, band, step] for band in range(x.shape[2])], dim=1))
            for step in range(x.shape[3])
        ]
        return torch.stack(steps).amax(dim=0) + sum(steps) / len(steps)


@pytest.fixture
def published() -> Published:
    torch.manual_seed(0)
    return Published(lape=False).eval()


@pytest.fixture
def file(published: Published, tmp_path: Path) -> Path:
    return write(tmp_path / "byol.pth", published.state_dict())


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def load(path: Path, **settings: Any) -> CheckpointEncoder:
    kind = Checkpoint.from_argument(str(path))
    return kind(kind.Settings(**settings), TARGET, "linear").build_encoder().eval()


def prefixed(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("lape", [False, True], ids=["byol-a", "lape"])
@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda tensors: tensors, ""),
        (lambda tensors: tensors, "module."),
        (lambda tensors: {"epoch": 3, "state_dict": tensors}, "encoder.encoder."),
        (lambda tensors: {"model_state_dict": {"student": tensors}}, "net."),
    ],
    ids=["plain", "parallel", "lightning", "nested"],
)
def test_a_published_checkpoint_embeds_as_the_published_network(
    lape: bool, wrap: Callable[[Any], Any], prefix: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = Published(lape).eval()
    head = {f"{prefix}projector.weight": torch.ones(3)}
    path = write(tmp_path / "theirs.pt", wrap(prefixed(network, prefix) | head))
    encoder = load(path)
    features = torch.randn(3, 64, 43)
    assert_close(encoder(features), network(features))
    assert encoder.embedding_size == WIDTH
    # 3 convolutions and 2 linear layers of two tensors, 3 batch norms of five
    assert encoder.loaded == {
        "encoder_tensors": 25.0,
        "encoder_tensors_matched": 25.0,
        "file_tensors_not_of_encoder": 1.0,
    }


@pytest.mark.parametrize(
    ("names", "mel_scale", "expected"),
    [
        ("theirs", None, ("slaney", EPSILON)),
        ("theirs", "htk", ("htk", EPSILON)),
        ("ours", None, ("htk", 1e-6)),
        ("ours", "slaney", ("slaney", 1e-6)),
    ],
)
def test_the_log_mels_are_those_of_the_layout_unless_a_setting_says_otherwise(
    names: str,
    mel_scale: str | None,
    expected: tuple[str, float],
    published: Published,
    tmp_path: Path,
) -> None:
    tensors = published.state_dict() if names == "theirs" else AudioNTT(WIDTH).state_dict()
    encoder = load(write(tmp_path / "file.pt", tensors), mel_scale=mel_scale)
    assert (encoder.log_mel.config.mel_scale, encoder.log_mel.config.log_offset) == expected
    config = LogMelConfig(mel_scale=expected[0], log_offset=expected[1])
    windows = 0.1 * torch.randn(2, 8_000)
    assert_close(encoder.features(windows), LogMel(config)(windows))


@pytest.fixture
def clips() -> Clips:
    random = np.random.default_rng(0)
    waveforms = [random.normal(0, 0.1, 9_000).astype(np.float32) for _ in range(8)]
    return Clips.pack([f"clip {index}" for index in range(8)], waveforms, 16_000)


def training(clips: Clips) -> TrainingData:
    sides = [
        LabeledClips(clips.select(rows), torch.arange(4) % 2, torch.arange(4))
        for rows in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    return TrainingData(sides[0].clips, *sides)


@pytest.mark.parametrize("mel_scale", [None, "htk"])
def test_a_model_that_was_kept_hears_what_it_heard(
    mel_scale: str | None, file: Path, clips: Clips, context: RunContext, tmp_path: Path
) -> None:
    kind = Checkpoint.from_argument(str(file))
    system = kind(kind.Settings(mel_scale=mel_scale), TARGET, "knn")
    system.train(training(clips), context)
    system.save(tmp_path)
    again = load(tmp_path / "weights.pt")
    assert again.log_mel.config == system.encoder.log_mel.config
    windows = 0.1 * torch.randn(2, 8_000)
    known = system.encoder.eval()
    assert_close(again(again.features(windows)), known(known.features(windows)))


def test_a_model_of_ours_embeds_as_it_did_until_it_is_given_the_statistics_of_a_task(
    clips: Clips, context: RunContext, tmp_path: Path
) -> None:
    ours = Supervised(Supervised.Settings.model_validate({"width": 8}), TARGET, "linear")
    ours.train(training(clips), context)
    ours.save(tmp_path)
    encoder = load(tmp_path / "weights.pt")
    waveforms = torch.randn(2, 8_000)
    expected = ours.encoder.eval()(ours.encoder.features(waveforms))
    assert torch.equal(encoder(encoder.features(waveforms)), expected)
    encoder.fit_features([waveforms])
    assert not torch.equal(encoder.log_mel.mean, ours.encoder.log_mel.mean)


def test_published_weights_are_given_the_statistics_of_the_train_clips_and_their_count_is_noted(
    clips: Clips, context: RunContext, file: Path
) -> None:
    kind = Checkpoint.from_argument(str(file))
    system = kind(kind.Settings(), TARGET, "linear")
    data = training(clips)
    summary = system.train(data, context)
    window = round(TARGET.window_seconds * data.train.rate)
    owner, offsets = consecutive_windows(data.train.lengths, window)
    on_device = to_device(data.train, torch.device("cpu"))
    plain = cut_windows(on_device, owner, offsets, window)
    values = system.encoder.log_mel(plain) * system.encoder.log_mel.std
    assert_close(values.mean(), torch.zeros(()), atol=1e-4, rtol=0)
    assert (
        summary.diagnosis["encoder_tensors_matched"] == summary.diagnosis["encoder_tensors"] == 25
    )


def test_what_is_missing_is_refused_by_name_unless_it_is_named(
    published: Published, tmp_path: Path
) -> None:
    tensors = published.state_dict()
    del tensors["features.5.num_batches_tracked"]
    path = write(tmp_path / "old.pth", tensors)
    with pytest.raises(
        UserError, match=r"lacks 1 of the encoder's tensors: features\.5\.num_batches"
    ) as said:
        load(path)
    assert "--set allow_missing=[features.5.num_batches_tracked]" in str(said.value)
    encoder = load(path, allow_missing=("features.5.num_batches_tracked",))
    assert encoder.loaded["encoder_tensors_matched"] == 24


def test_of_a_student_and_its_teacher_one_must_be_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, teacher = Published(lape=True).eval(), Published(lape=True).eval()
    content = prefixed(student, "encoder_q.encoder.") | prefixed(teacher, "encoder_k.encoder.")
    path = write(tmp_path / "moco.ckpt", {"state_dict": content})
    with pytest.raises(UserError, match="holds several encoders") as said:
        load(path)
    assert "--set prefix=state_dict.encoder_q.encoder." in str(said.value)
    features = torch.randn(1, 64, 20)
    for network, name in ((student, "encoder_q"), (teacher, "encoder_k")):
        encoder = load(path, prefix=f"state_dict.{name}.encoder")
        assert_close(encoder(features), network(features))
    with pytest.raises(UserError, match=r"no encoder with the prefix 'encoder_q\.'"):
        load(path, prefix="encoder_q")


def test_other_networks_are_refused(tmp_path: Path) -> None:
    for blocks, said in (
        (2, "lacks 7 of the encoder's tensors: features.8"),
        (4, "another network"),
    ):
        path = write(tmp_path / f"{blocks}.pt", Published(lape=False, blocks=blocks).state_dict())
        with pytest.raises(UserError, match=said):
            load(path)
    with pytest.raises(UserError, match="holds no AudioNTT; its first tensors are weight, bias"):
        load(write(tmp_path / "linear.pt", nn.Linear(3, 2).state_dict()))
    wide = Published(lape=False)
    wide.fc[0] = nn.Linear(64 * 16, WIDTH)  # of 128 bands
    with pytest.raises(UserError, match=r"steps\.0\.weight has shape \(12, 1024\) instead of"):
        load(write(tmp_path / "wide.pt", wide.state_dict()))


class Harmful:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("it-ran"),)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "harm.pt", {"state_dict": Harmful()})
    with pytest.raises(UserError, match="could run code; it was not loaded"):
        load(path)
    assert not Path("it-ran").exists()


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(
        UserError, match=r"there is no file nowhere/x\.pt for checkpoint:nowhere/x\.pt"
    ):
        Checkpoint.from_argument("nowhere/x.pt")


def test_a_checkpoint_keeps_the_contract(
    file: Path, brief_check: dict[str, Any], synthetic: Path, progress: Progress
) -> None:
    results = list(check_system(f"checkpoint:{file}", brief_check, CPU, progress))
    assert [result for result in results if not result.holds] == []


def test_a_record_names_the_file_by_its_hash_and_another_file_is_another_cell(
    published: Published, file: Path, synthetic: Path, progress: Progress, tmp_path: Path
) -> None:
    cell = Cell(system=f"checkpoint:{file}", task="synthetic-sounds", protocol="knn")
    options = RunOptions(out=tmp_path / "out", compute=CPU)
    first, again = (run_cell(cell, options, progress) for _ in range(2))
    assert again == first
    assert first.provenance["weights"] == f"byol.pth, SHA-256 {sha256(file)}"
    assert first.diagnosis["encoder_tensors_matched"] == 25
    (path,) = options.out.rglob("record.json")
    assert len(path.relative_to(options.out).parts) == 4  # slashes of the name made no folders
    nn.init.normal_(published.fc[0].weight)
    write(file, published.state_dict())
    second = run_cell(cell, options, progress)
    assert second.identity != first.identity
    assert second.predictions_sha256 != first.predictions_sha256
    assert len(list(options.out.rglob("record.json"))) == 2
