"""What holds of every upstream with a momentum teacher and a queue: DeLoRes-M, MoCo, SLICER and SS-MAST."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lape_bench.learning.systems.momentum_contrast import MomentumContrast
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training.loop import OptimizerConfig

KEYS: dict[str, Any] = {"key_features": 5, "key_hidden": 6, "queue": 8}
SMALL: dict[str, dict[str, Any]] = {
    "delores-m": {"width": 8, "projector": 4},
    "moco": {"width": 8},
    "slicer": {"width": 8, "clusters": 6, "cluster_hidden": 7},
    "ss-mast": {"width": 4, "depths": [1, 1]},
}
every = pytest.mark.parametrize("name", SMALL)


def build(name: str, **changes: Any) -> MomentumContrast:
    torch.manual_seed(0)
    kind = load_upstream(name)
    settings = kind.Settings.model_validate(KEYS | SMALL[name] | changes)
    objective = kind.build_objective(kind.new_encoder(settings), settings, clips=100)
    assert isinstance(objective, MomentumContrast)
    return objective


@every
def test_the_teacher_starts_as_the_student_and_shares_no_tensor_with_it(name: str) -> None:
    objective = build(name)
    assert_close(objective.teacher.state_dict(), objective.student.state_dict(), rtol=0, atol=0)
    ours = {p.data_ptr() for p in objective.student.parameters()}
    assert not ours & {p.data_ptr() for p in objective.teacher.parameters()}


@every
def test_all_but_the_teacher_is_optimized(name: str) -> None:
    objective = build(name)
    (group,) = OptimizerConfig().build(objective).param_groups
    held = {id(parameter) for parameter in group["params"]}
    of_teacher = {id(parameter) for parameter in objective.teacher.parameters()}
    assert held == {id(parameter) for parameter in objective.parameters()} - of_teacher


@every
@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_the_teacher_follows_by_an_exponential_average(name: str, decay: float) -> None:
    objective = build(name, momentum=decay)
    with torch.no_grad():
        for parameter in objective.student.parameters():
            parameter.add_(1)
    before = {key: p.clone() for key, p in objective.teacher.named_parameters()}
    objective.after_step()
    for key, found in objective.teacher.named_parameters():
        assert_close(found, before[key] + (1 - decay))
