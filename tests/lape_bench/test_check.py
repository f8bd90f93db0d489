"""The conformance check passes what keeps the contract, and finds what breaks it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lape_bench.check import check_system
from lape_bench.device import Compute
from lape_bench.learning.weights import save_tensors
from lape_bench.progress import Progress
from lape_bench.registry import SYSTEMS
from lape_bench.runner import load_system

CPU = Compute(device="cpu", precision="float32")


def failures(name: str, settings: dict[str, Any], progress: Progress) -> list[str]:
    return [
        f"{result.claim}: {result.detail}"
        for result in check_system(name, settings, CPU, progress)
        if not result.holds
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS.names())
def test_every_registered_system_keeps_the_contract(
    name: str, synthetic: Path, progress: Progress
) -> None:
    settings = {"width": 32} if "width" in load_system(name).Settings.model_fields else {}
    assert failures(name, settings, progress) == []


Score = Callable[..., Tensor]


def _unnormalised(score: Score) -> Score:
    return lambda *arguments: score(*arguments) + 1


def _batch_dependent(score: Score) -> Score:
    def wrong(*arguments: Any) -> Tensor:
        rows = score(*arguments)
        return (rows - rows.mean(dim=0)).log_softmax(dim=1)

    return wrong


def _random(score: Score) -> Score:
    return lambda *arguments: score(*arguments).mul(torch.rand(1)).log_softmax(dim=1)


def _wrong_shape(score: Score) -> Score:
    return lambda *arguments: score(*arguments)[:, :-1]


def _not_a_number(score: Score) -> Score:
    return lambda *arguments: score(*arguments).log()


@pytest.mark.parametrize(
    ("breakage", "claim"),
    [
        (_unnormalised, "sum to e^"),
        (_batch_dependent, "is something normalised over the batch?"),
        (_random, "something draw outside context.seeds"),
        (_wrong_shape, "the shape is"),
        (_not_a_number, "is scored nan"),
    ],
)
def test_a_breach_is_found_and_explained(
    breakage: Callable[[Score], Score],
    claim: str,
    synthetic: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = load_system("log-mel-statistics")
    monkeypatch.setattr(kind, "protocols", ("linear",))
    monkeypatch.setattr(kind, "score", breakage(kind.score))
    assert any(claim in failure for failure in failures("log-mel-statistics", {}, progress))


def test_training_that_moves_global_randomness_is_found(
    synthetic: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_system("log-mel-statistics")
    monkeypatch.setattr(kind, "protocols", ("linear",))
    train = kind.train

    def careless(*arguments: Any) -> Any:
        torch.rand(1)
        return train(*arguments)

    monkeypatch.setattr(kind, "train", careless)
    assert "global generator moved" in failures("log-mel-statistics", {}, progress)[0]


def test_a_resumed_run_that_starts_anew_with_other_draws_is_found(
    synthetic: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_system("supervised")
    monkeypatch.setattr(kind, "protocols", ("finetune",))
    monkeypatch.setattr("lape_bench.learning.training._Checkpoint.save", _half_a_checkpoint)
    brief = {"width": 16, "finetune": {"epochs": 3, "least_steps": 1}}
    assert any(
        "the resumed run differs" in line for line in failures("supervised", brief, progress)
    )


def _half_a_checkpoint(checkpoint: Any, context: Any, last: bool) -> None:
    """Keep the epoch but lose the optimiser's state."""
    content = {name: part.state_dict() for name, part in checkpoint.parts.items()}
    content["optimizer"]["state"] = {}
    rest = {"epoch": checkpoint.epoch, "curve": checkpoint.curve}
    save_tensors(checkpoint.path, content | rest)
