"""On a GPU: the same bytes in every run, a killed run's too, and what the CPU computes. Skipped where torch finds none."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import nn

from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.training import loop
from lape_bench.learning.training.cuda_graph import Graphed
from lape_bench.records.record import Cell, RunRecord, cell_folder
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.runtime.device import Compute
from lape_bench.system import TargetTask

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")

LEARNING = ["supervised", "mast", "delores-s", "delores-m", "simclr", "moco", "byol-a", "cola", "slicer", "decar",
            "ss-mast", "unfused"]  # fmt: skip


def cell(system: str, changed: Mapping[str, Any] = MappingProxyType({})) -> Cell:
    settings = load_system(system).with_smoke_settings(changed)
    return Cell(system=system, settings=settings, task="synthetic-sounds", protocol="finetune")


def run(of: Cell, out: Path) -> tuple[RunRecord, str]:
    options = RunOptions(out=out, compute=Compute(device="cuda"), checkpoint_seconds=0.0)
    record = run_cell(of, options, Progress(quiet=True))
    assert record.status == "finished", record.error
    predictions = cell_folder(out, of, record.identity) / "predictions.parquet"
    return record, hashlib.sha256(predictions.read_bytes()).hexdigest()


def forget(home: Path) -> None:
    """Have the next run find no artifact."""
    shutil.rmtree(home / "artifacts", ignore_errors=True)


@pytest.mark.parametrize("system", LEARNING)
def test_two_runs_end_with_the_same_bytes(system: str, own_artifacts: Path, tmp_path: Path) -> None:
    record, first = run(cell(system), tmp_path / "one")
    assert record.environment["device"] == torch.cuda.get_device_name()
    assert record.environment["precision"] == "bf16"
    forget(own_artifacts)
    again, second = run(cell(system), tmp_path / "two")
    assert again.curves == record.curves
    assert second == first


class Killed(BaseException):
    """What no one catches."""


@pytest.mark.parametrize("system", ["supervised", "unfused"])
def test_a_run_killed_in_every_stage_ends_with_the_bytes_it_would_have_had(
    system: str, own_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, wanted = run(cell(system), tmp_path / "whole")
    forget(own_artifacts)
    save = loop._Checkpoint.save
    killed: set[str] = set()

    def save_and_die(self: Any, *arguments: Any, **named: Any) -> None:
        save(self, *arguments, **named)
        if self.path.name not in killed:
            killed.add(self.path.name)
            raise Killed

    monkeypatch.setattr(loop._Checkpoint, "save", save_and_die)
    for _ in whole.curves:
        with pytest.raises(Killed):
            run(cell(system), tmp_path / "killed")
    record, predictions = run(cell(system), tmp_path / "killed")
    assert len(killed) == len(whole.curves)
    assert record.resumed == len(killed)
    assert record.curves == whole.curves
    assert predictions == wanted


@pytest.mark.parametrize("system", ["supervised", "mast"])
def test_float32_is_that_of_the_cpu_forward_and_backward(system: str) -> None:
    Compute(device="cuda").resolve()
    kind = load_system(system)
    made = kind(
        kind.Settings(),
        TargetTask(classes=("a", "b"), window_seconds=1.0, metric="accuracy"),
        "finetune",
    )
    torch.manual_seed(0)
    encoder = made.build_encoder()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # drawn on the device
    waveforms = torch.randn(8, 16_000, generator=torch.Generator().manual_seed(1))
    found = []
    for device in ("cpu", "cuda"):
        encoder.to(device).train()
        encoder.zero_grad()
        embeddings = encoder(encoder.features(waveforms.to(device)))
        embeddings.square().sum().backward()
        gradients = [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
        found.append((embeddings.detach().cpu(), torch.cat(gradients).cpu()))
    for ours, theirs in zip(*found, strict=True):
        assert float((theirs - ours).norm() / ours.norm()) < 1e-4


def test_views_are_those_of_the_cpu() -> None:
    log_mels = torch.randn(16, 64, 96, generator=torch.Generator().manual_seed(0))
    made = []
    for device in ("cpu", "cuda"):
        views, draw = Views((64, 96), 64).to(device), BatchRandom(torch.Generator().manual_seed(1))
        views(log_mels.to(device), draw)
        made.append(views(log_mels.to(device), draw).cpu())
    torch.testing.assert_close(made[1], made[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("system", LEARNING)
def test_steps_that_are_recorded_end_with_the_bytes_of_plain_ones(
    system: str, own_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"epochs": 5, "min_steps": 20}
    longer: dict[str, Any] = {"finetune": steps}
    if system == "unfused":
        longer |= {"distill": steps, "teacher_settings": {"pretrain": steps}}
    elif system not in ("supervised", "mast"):
        longer |= {"pretrain": steps}
    recorded: list[Graphed] = []
    record = Graphed._record

    def record_and_tell(self: Graphed, inputs: Any) -> Any:
        recorded.append(self)
        return record(self, inputs)

    monkeypatch.setattr(Graphed, "_record", record_and_tell)
    graphed, first = run(cell(system, longer), tmp_path / "graphed")
    assert len(set(recorded)) == len(graphed.curves)
    forget(own_artifacts)
    monkeypatch.setattr(loop, "Graphed", lambda update: update)
    plain, second = run(cell(system, longer), tmp_path / "plain")
    assert graphed.curves == plain.curves
    assert second == first
