"""The optimizers compute what torch's compute, without importing torch's compiler."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lape_bench.runtime import optimizers

KINDS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
    "SGD": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
}

TRAINING = """
import sys, torch
from torch.optim.lr_scheduler import CosineAnnealingLR
from lape_bench.runtime import optimizers

for name in ("Adam", "AdamW", "SGD"):
    model = torch.nn.Linear(3, 2)
    optimizer = getattr(optimizers, name)(model.parameters(), lr=0.01, fused=True)
    schedule = CosineAnnealingLR(optimizer, 2)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""


def trained(module: Any, name: str) -> tuple[list[Tensor], dict[str, Any]]:
    """Return weights and state after five steps, of which the last two follow a restored state."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(5, 4, 3)
    optimizer = getattr(module, name)(model.parameters(), fused=True, **KINDS[name])
    for step, batch in enumerate(x):
        if step == 3:
            state = optimizer.state_dict()
            optimizer = getattr(module, name)(model.parameters(), fused=True, **KINDS[name])
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        model(batch).pow(2).sum().backward()
        optimizer.step()
        assert torch.is_grad_enabled()
    return [*model.parameters()], optimizer.state_dict()


@pytest.mark.parametrize("name", KINDS)
def test_an_optimizer_computes_what_torchs_does(name: str) -> None:
    weights, state = trained(optimizers, name)
    expected_weights, expected_state = trained(torch.optim, name)
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=0)
    assert state.keys() == expected_state.keys()
    torch.testing.assert_close(state["state"], expected_state["state"], rtol=0, atol=0)
    assert state["param_groups"] == expected_state["param_groups"]


@pytest.mark.parametrize("name", KINDS)
def test_a_step_with_a_closure_has_gradients(name: str) -> None:
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    optimizer = getattr(optimizers, name)(model.parameters(), fused=True, **KINDS[name])

    def closure() -> Tensor:
        loss: Tensor = model(torch.ones(1, 3)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert not torch.equal(model.weight, before)


def test_training_does_not_import_the_compiler() -> None:
    run = subprocess.run(
        [sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
