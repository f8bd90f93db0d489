"""How much of training and embedding is the model's own work: the rest is windows, log-mels, views and what is kept on disk.

Both times are of the same run, so that it does not matter what else the machine does. On a CPU: what a GPU is given to do
it does later.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lape_bench.data.audio_store import Clips
from lape_bench.evaluation.plan import load_system
from lape_bench.learning.systems.encoder_system import EncoderSystem
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training import loop
from lape_bench.learning.training.inference import embed
from lape_bench.learning.training.loop import TrainingLoop
from lape_bench.system import LabeledClips, RunContext, TargetTask, TrainingData


@dataclass
class Timed:
    """A function, and the seconds spent in it."""

    function: Callable[..., Any]
    seconds: float = 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.function(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - began


def timed(patch: pytest.MonkeyPatch, owner: type, name: str) -> Timed:
    found = Timed(getattr(owner, name))
    patch.setattr(owner, name, lambda *arguments, **named: found(*arguments, **named))
    return found


@pytest.mark.parametrize("name", ["delores-m", "simclr"])
def test_pre_training_is_mostly_steps(
    name: str, clips: Clips, here: RunContext, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    kind = load_upstream(name)
    steps, save = timed(monkeypatch, TrainingLoop, "_update"), saving(monkeypatch)
    run = timed(monkeypatch, TrainingLoop, "run")
    settings = kind.Settings.model_validate({"pretrain": {"epochs": 2, "min_steps": 1}})
    benchmark.pedantic(lambda: kind.load_or_pretrain(settings, clips, here), rounds=1)
    hold(benchmark, "pre-training", steps.seconds / (run.seconds - save.seconds), 0.8)


def test_fine_tuning_is_mostly_steps(
    clips: Clips, here: RunContext, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    system = supervised({"finetune": {"epochs": 8, "min_steps": 1}})
    steps, save = timed(monkeypatch, TrainingLoop, "_update"), saving(monkeypatch)
    run = timed(monkeypatch, TrainingLoop, "run")
    labels = torch.arange(len(clips)) % 10
    data = TrainingData(clips, LabeledClips(clips, labels, torch.arange(len(labels))), None)
    benchmark.pedantic(lambda: system.train(data, here), rounds=1)
    hold(benchmark, "fine-tuning", steps.seconds / (run.seconds - save.seconds), 0.85)


def test_embedding_is_mostly_the_encoder(
    clips: Clips, here: RunContext, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    encoder = supervised({}).build_encoder()
    forward = timed(monkeypatch, type(encoder), "forward")
    whole = Timed(embed)
    benchmark.pedantic(lambda: whole(encoder, clips, 1.0, here), rounds=1)
    hold(benchmark, "embedding", forward.seconds / whole.seconds, 0.65)


def saving(patch: pytest.MonkeyPatch) -> Timed:
    """What a training writes at its end takes as long however long the training is."""
    return timed(patch, loop._Checkpoint, "save")


def supervised(settings: dict[str, Any]) -> EncoderSystem:
    kind = load_system("supervised")
    assert issubclass(kind, EncoderSystem)
    target = TargetTask(classes=tuple("abcdefghij"), window_seconds=1.0, metric="accuracy")
    return kind(kind.Settings.model_validate(settings), target, "finetune")


def hold(benchmark: Any, what: str, share: float, least: float) -> None:
    benchmark.extra_info[f"share of {what} that is the model's"] = round(share, 2)
    assert least < share < 1
