"""On a GPU: what recording its steps saves, how much of the time it works, and how much of a run is the model's own step.

The time of a step is the difference between a longer and a shorter run, so that what happens once does not count.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.evaluation.plan import load_system
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training import loop
from lape_bench.learning.training.loop import TrainingLoop
from lape_bench.runtime.device import Compute
from lape_bench.system import LabeledClips, RunContext, TargetTask, TrainingData
from tests.benchmarks.conftest import CLIPS

EPOCHS = 5, 45  # of the shorter and the longer run
BATCH = 64
N_MONITORED_CLIPS = (
    2,
    6,
)  # the same under the profiler, which takes a millisecond to add up each kernel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def steps(epochs: tuple[int, int]) -> int:
    """Return how many steps more the longer of two runs takes."""
    return (epochs[1] - epochs[0]) * CLIPS // BATCH


@dataclass
class Trained:
    """Trains a system for so many epochs, never finding what another call has kept."""

    name: str
    clips: Clips
    context: RunContext
    calls: int = 0

    def __call__(self, epochs: int) -> None:
        self.calls += 1
        work = self.context.work_folder / f"{self.calls}"
        work.mkdir()
        here = replace(
            self.context, work_folder=work, artifact_folder=work / "cache", seeds=Seeds(self.calls)
        )
        stage = {"epochs": epochs, "min_steps": 1, "batch_size": BATCH}
        if self.name == "supervised":
            kind = load_system(self.name)
            target = TargetTask(classes=tuple("abcdefghij"), window_seconds=1.0, metric="accuracy")
            system = kind(kind.Settings.model_validate({"finetune": stage}), target, "finetune")
            labels = torch.arange(len(self.clips)) % 10
            system.train(
                TrainingData(
                    self.clips, LabeledClips(self.clips, labels, torch.arange(len(labels))), None
                ),
                here,
            )
        else:
            upstream = load_upstream(self.name)
            settings = upstream.Settings.model_validate({"pretrain": stage})
            upstream.load_or_pretrain(settings, self.clips, here)

    def seconds_a_step(self) -> float:
        """Time a step."""
        self(EPOCHS[0])  # libraries set themselves up
        short, long = (self._timed(epochs) for epochs in EPOCHS)
        return (long - short) / steps(EPOCHS)

    def busy_seconds_a_step(self) -> float:
        """Add up what the device works in a step."""
        spent = []
        for epochs in N_MONITORED_CLIPS:
            with profile(activities=[ProfilerActivity.CUDA]) as watched:
                self(epochs)
                torch.cuda.synchronize()
            spent.append(1e-6 * sum(each.self_device_time_total for each in watched.key_averages()))
        return (spent[1] - spent[0]) / steps(N_MONITORED_CLIPS)

    def _timed(self, epochs: int) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        self(epochs)
        torch.cuda.synchronize()
        return time.perf_counter() - began


@pytest.fixture
def on_gpu(here: RunContext) -> Iterator[RunContext]:
    before = torch.are_deterministic_algorithms_enabled()
    device, precision = Compute(device="cuda").resolve()
    yield replace(here, device=device, precision=precision)
    torch.use_deterministic_algorithms(before)


def unrecorded(update: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return update


def repeat_first_inputs(patch: pytest.MonkeyPatch) -> None:
    """Compute every step from the first batch of its size, which lies on the device already."""
    run, cut = TrainingLoop.run, loop.random_windows
    windows: dict[int, Tensor] = {}

    def first_windows(clips: Any, indices: Tensor, window: int, random: Any) -> Tensor:
        if len(indices) not in windows:
            windows[len(indices)] = cut(clips, indices, window, random)
        return windows[len(indices)]

    def repeating(loop: TrainingLoop, context: RunContext) -> Any:
        inputs: dict[int, tuple[Tensor, ...]] = {}

        def first_inputs(waveforms: Tensor, batch: Tensor, random: Any) -> tuple[Tensor, ...]:
            if len(batch) not in inputs:
                inputs[len(batch)] = loop.inputs(waveforms, batch, random)
            return inputs[len(batch)]

        return run(replace(loop, inputs=first_inputs), context)

    patch.setattr(loop, "random_windows", first_windows)
    patch.setattr(TrainingLoop, "run", repeating)


@pytest.mark.parametrize("name", ["delores-m", "simclr", "supervised"])
def test_recorded_steps_keep_the_device_busy(
    name: str, clips: Clips, on_gpu: RunContext, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Trained(name, clips, on_gpu)
    recorded = benchmark.pedantic(train.seconds_a_step, rounds=1)
    busy = train.busy_seconds_a_step()
    with monkeypatch.context() as patch:
        repeat_first_inputs(patch)
        alone = train.seconds_a_step()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Graphed", unrecorded)
        plain = train.seconds_a_step()
    benchmark.extra_info[f"{torch.cuda.get_device_name()}, {name}: clips a second"] = round(
        BATCH / recorded
    )
    benchmark.extra_info["times faster than steps that are not recorded"] = round(
        plain / recorded, 1
    )
    benchmark.extra_info["share of the time that the device works"] = round(busy / recorded, 2)
    benchmark.extra_info["share of a step that is the model's"] = round(alone / recorded, 2)
    assert recorded < 0.8 * plain
