"""What holds of every upstream: it learns, by its seed alone, and goes on after a kill with the same bytes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.data.audio_store import Clips
from lape_bench.learning.systems.pretrained_system import (
    PretrainedUpstream,
    UpstreamSystem,
    load_upstream,
)
from lape_bench.learning.training import pretrain
from lape_bench.runtime.artifacts import stable_name
from lape_bench.system import RunContext

RATE = 16_000
UPSTREAMS = [
    "byol-a",
    "cola",
    "decar",
    "delores-m",
    "delores-s",
    "moco",
    "simclr",
    "slicer",
    "ss-mast",
]
SMALL = {"width": 16, "pretrain": {"batch_size": 8, "min_steps": 1, "window_seconds": 0.2}}
every_upstream = pytest.mark.parametrize("name", UPSTREAMS)


class Stopped(Exception):
    """Stands for a kill."""


def colored_noise(count: int = 16) -> Clips:
    """Noise of as many colors as there are clips, from 0.1 s (shorter than a window) to 0.6 s."""
    random = np.random.default_rng(0)
    waveforms = []
    for _ in range(count):
        samples = random.integers(RATE // 10, RATE * 6 // 10)
        spectrum = np.fft.rfft(random.normal(0, 0.05, samples))
        decibels = np.interp(
            np.linspace(0, 9, len(spectrum)), np.arange(10), random.normal(0, 15, 10)
        )
        waveforms.append(np.fft.irfft(spectrum * 10 ** (decibels / 20), samples).astype(np.float32))
    return Clips.pack([f"clip {index}" for index in range(count)], waveforms, RATE)


def learn(name: str, context: RunContext, epochs: int, **changes: Any) -> PretrainedUpstream:
    kind: type[UpstreamSystem] = load_upstream(name)
    given = SMALL | {"pretrain": SMALL["pretrain"] | {"epochs": epochs} | changes}
    return kind.load_or_pretrain(
        kind.Settings.model_validate(kind.with_smoke_settings(given)), colored_noise(), context
    )


@every_upstream
def test_upstreams_are_kept_under_the_name_of_their_system(name: str) -> None:
    assert stable_name(load_upstream(name)) == name


def aside(context: RunContext, name: str) -> RunContext:
    return replace(context, artifact_folder=context.work_folder / name, checkpoint_seconds=0.0)


def insist_same(one: PretrainedUpstream, other: PretrainedUpstream) -> None:
    assert one.curve == other.curve
    assert one.artifact.metadata.sha256 == other.artifact.metadata.sha256
    assert_close(one.encoder.state_dict(), other.encoder.state_dict(), rtol=0, atol=0)


@every_upstream
def test_the_loss_falls(name: str, context: RunContext) -> None:
    optimizer = {"learning_rate": 1e-3, "warm_up": 0.0, "schedule": "constant"}
    losses = [row["loss"] for row in learn(name, context, 30, optimizer=optimizer).curve]
    # MoCo and DeLoRes-M have no negatives at first: their queue is full after the first epoch.
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[1:6])


@every_upstream
def test_the_same_seed_learns_the_same_bytes_and_another_seed_others(
    name: str, context: RunContext
) -> None:
    one, two = (learn(name, aside(context, folder), 2) for folder in ("one", "two"))
    assert two.artifact.computed
    insist_same(one, two)
    assert learn(name, aside(context, "other"), 2, seed=1).curve != one.curve


@every_upstream
@pytest.mark.parametrize("step", [2, 5])
def test_a_run_stopped_and_resumed_ends_with_the_same_bytes(
    name: str, step: int, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = learn(name, aside(context, "straight"), 3)
    taken, plain = [], pretrain.random_gains

    def stopping(levels: int, waveforms: Tensor, *rest: Any) -> Tensor:
        taken.append(levels * len(waveforms))
        if len(taken) == step:
            raise Stopped
        return plain(levels, waveforms, *rest)

    monkeypatch.setattr(pretrain, "random_gains", stopping)
    killed = aside(context, "killed")
    with pytest.raises(Stopped):
        learn(name, killed, 3)
    resumed = learn(name, killed, 3)
    insist_same(resumed, straight)
    assert taken == [16] * (
        step + 6 - (step - 1) // 2 * 2
    )  # two steps an epoch, two views of 8 clips


@every_upstream
def test_in_bf16_it_learns_finite_weights(name: str, context: RunContext) -> None:
    found = learn(name, replace(context, precision="bf16"), 2)
    assert all(torch.isfinite(tensor).all() for tensor in found.encoder.state_dict().values())
