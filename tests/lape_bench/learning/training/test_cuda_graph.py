"""What a recording needs, checked without a GPU: each step does what the one before did, in the same places, and asks for no value."""

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lape_bench.conformance import check
from lape_bench.conformance.harness import Harness
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.learning.training import loop
from lape_bench.learning.training.cuda_graph import WARM_UP_CALLS
from lape_bench.learning.training.loop import TrainingLoop
from lape_bench.runtime.device import Compute
from lape_bench.system import ProtocolName
from tests.lape_bench.learning.test_cuda import LEARNING

STEPS = {"epochs": 2, "min_steps": 1, "batch_size": 8, "window_seconds": 0.2}
SMALL: dict[str, Any] = {"width": 16}
TUNED: dict[str, Any] = {"finetune": {"epochs": 2, "min_steps": 1, "batch_size": 8}}
LONGER: dict[str, Any] = {
    "supervised": SMALL | TUNED,
    "mast": TUNED,
    "unfused": TUNED
    | {"distill": STEPS, "student_width": 16, "teacher_settings": {"pretrain": STEPS}},
    "decar": SMALL | {"pretrain": STEPS, "redraw_steps": 1},
    "ss-mast": {"pretrain": STEPS},
}
READ = {
    "aten._local_scalar_dense",
    "aten.nonzero",
    "aten.equal",
    "aten.masked_select",
    "aten._unique2",
}


class Calls(TorchDispatchMode):
    """What torch is asked to do: operations, shapes and numbers, but no tensor's content."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "profiler":
            given = tree_leaves((args, kwargs))
            told = [(tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x for x in given]
            self.made.append(f"{func} {told}")
        return func(*args, **(kwargs or {}))


def places(loop: TrainingLoop) -> list[int]:
    """Where the tensors lie that a step finds and leaves."""
    states = loop.optimizer.state.values()
    tensors = [*loop.model.parameters(), *loop.model.buffers()]
    return [t.data_ptr() for t in [*tensors, *(t for state in states for t in state.values())]]


@pytest.mark.parametrize("system", LEARNING)
def test_a_step_that_may_be_recorded_does_the_same_each_time(
    system: str,
    brief_check: dict[str, Any],  # fewer and shorter clips
    synthetic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Counter[Any] = Counter()
    steps: dict[Any, list[tuple[list[str], list[int]]]] = defaultdict(list)
    update = TrainingLoop._update

    def told(loop: TrainingLoop, *inputs: Tensor) -> Tensor:
        assert loop.cuda_graphable
        assert not any(tensor.requires_grad for tensor in inputs)
        step = loop.name, tuple(tensor.shape for tensor in inputs)
        seen[step] += 1
        if seen[step] <= WARM_UP_CALLS:
            return update(loop, *inputs)
        with Calls() as calls:
            loss = update(loop, *inputs)
        steps[step].append((calls.made, places(loop)))
        return loss

    monkeypatch.setattr(TrainingLoop, "_update", told)
    # On a GPU the rate is a tensor that changes in place.
    monkeypatch.setattr(loop, "_set_rate", lambda group, rate: None)
    kind = load_system(system)
    settings = kind.with_smoke_settings(LONGER.get(system, SMALL | {"pretrain": STEPS}))
    protocol: ProtocolName = "linear" if "pretrain" in settings else "finetune"
    make = partial(kind, kind.Settings.model_validate(settings), check.target_task(), protocol)
    clips = check.load_check_data(kind.sample_rate, Progress(quiet=True))
    harness = Harness(make, clips, Compute(device="cpu", precision="float32"), tmp_path)
    summary = make().train(harness.data, harness.context("run"))
    assert {name for name, _ in steps} == set(summary.curves)
    for made in steps.values():
        first, *others = made
        assert others
        for other in others:
            assert other[0] == first[0]
            assert other[1] == first[1]
        assert not any(call.split(".default")[0] in READ for call in first[0])
