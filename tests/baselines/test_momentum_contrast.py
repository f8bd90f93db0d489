"""What holds of every upstream with a momentum teacher and a queue: DeLoRes-M, MoCo, SLICER and SS-MAST."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
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


def build(name: str, clips: int = 100, **changes: Any) -> MomentumContrast:
    torch.manual_seed(0)
    kind = load_upstream(name)
    settings = kind.Settings.model_validate(KEYS | SMALL[name] | changes)
    objective = kind.build_objective(kind.new_encoder(settings), settings, clips)
    assert isinstance(objective, MomentumContrast)
    return objective


@every
def test_the_teacher_starts_as_the_student_and_shares_no_tensor_with_it(name: str) -> None:
    objective = build(name)
    assert_close(objective.teacher.state_dict(), objective.student.state_dict(), rtol=0, atol=0)
    ours = {p.data_ptr() for p in objective.student.parameters()}
    assert not ours & {p.data_ptr() for p in objective.teacher.parameters()}


@every
@pytest.mark.parametrize(("clips", "negatives"), [(64, 1), (66, 2)])
def test_a_corpus_that_leaves_few_negatives_is_warned_of(
    name: str, clips: int, negatives: int, caplog: pytest.LogCaptureFixture
) -> None:
    build(name, clips=72)
    assert not caplog.messages
    assert len(build(name, clips=clips).queue.keys) == negatives
    (message,) = caplog.messages
    assert f"{clips} clips in batches of 64 leaves {negatives} negatives for a query" in message


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


@every
def test_no_query_has_an_older_key_of_its_own_clip_as_a_negative(name: str) -> None:
    objective = build(name)
    views = torch.randn(2, 4, 64, 96, generator=torch.Generator().manual_seed(0))

    def loss(queued: list[int]) -> Tensor:
        """The loss of four windows of clip 5 with keys of these clips in the queue."""
        copied = copy.deepcopy(objective)
        keys = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))[: len(queued)]
        copied.queue.enqueue(keys, torch.tensor(queued, dtype=torch.long))
        torch.manual_seed(2)  # of dropout
        return copied.loss(*copied.forward_views(*views), *copied.targets(torch.full((4,), 5)))

    assert_close(loss([5] * 8), loss([]))
    assert_close(loss([6, 5, 5]), loss([6]))
    assert float(loss([6]).detach()) > float(loss([]).detach())
