"""The loop: its schedule by hand, what it passes through, and that a kill changes nothing."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress, Running
from lape_bench.data.audio_store import Clips
from lape_bench.learning.training import loop
from lape_bench.learning.training.loop import EpochPlan, OptimizerConfig, TrainingLoop, cosine
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.runtime.distributed import ProcessGroup
from lape_bench.system import Curve, RunContext

WINDOW, CLIPS, EPOCHS = 10, 7, 5


class Stopped(Exception):
    """Stands for a kill."""


# --- the schedule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "warm_up", "expected"),
    [
        ("constant", 0.0, {0.0: 1, 0.5: 1, 0.99: 1}),
        ("constant", 0.2, {0.0: 0, 0.05: 0.25, 0.1: 0.5, 0.2: 1, 0.9: 1}),
        ("cosine", 0.0, {0.0: 1, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1.0: 0}),
        # After warm-up the whole half cosine is gone through in what is left.
        ("cosine", 0.2, {0.0: 0, 0.1: 0.5, 0.2: 1, 0.2 + 0.8 / 3: 0.75, 0.6: 0.5, 1.0: 0}),
    ],
)
def test_the_factor_of_the_learning_rate_agrees_with_values_by_hand(
    schedule: str, warm_up: float, expected: dict[float, float]
) -> None:
    config = OptimizerConfig(schedule=schedule, warm_up=warm_up)
    found = {progress: config.learning_rate_factor(progress) for progress in expected}
    assert found == pytest.approx(expected, abs=1e-12)


@given(warm_up=st.floats(0, 0.99), progress=st.floats(0, 1, exclude_max=True))
def test_the_factor_stays_between_zero_and_one_and_turns_once(
    warm_up: float, progress: float
) -> None:
    config = OptimizerConfig(schedule="cosine", warm_up=warm_up)
    later = min(progress + 0.01, 1.0)
    now, then = config.learning_rate_factor(progress), config.learning_rate_factor(later)
    assert 0 <= now <= 1
    if later < warm_up:
        assert then > now
    if progress >= warm_up:
        assert then <= now


def test_the_cosine_falls_from_one_to_zero_symmetrically_about_its_middle() -> None:
    assert [cosine(x) for x in (0, 0.25, 0.5, 1)] == pytest.approx(
        [1, (2 + math.sqrt(2)) / 4, 0.5, 0]
    )
    for x in np.linspace(0, 1, 9):
        assert cosine(x) + cosine(1 - x) == pytest.approx(1)


def one_weight() -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    return module


def steps_of(config: OptimizerConfig, gradients: list[float]) -> float:
    module = one_weight()
    optimizer = config.build(module)
    for gradient in gradients:
        module.weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return module.weight.item()


def test_sgd_agrees_with_its_equations() -> None:
    config = OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.8, weight_decay=0.01)
    theta, velocity = 2.0, 0.0
    for gradient in (1.0, -0.5, 3.0):
        velocity = 0.8 * velocity + gradient + 0.01 * theta
        theta -= 0.1 * velocity
    assert steps_of(config, [1.0, -0.5, 3.0]) == pytest.approx(theta)


def test_adam_agrees_with_its_equations() -> None:
    config = OptimizerConfig(name="adam", learning_rate=0.1, momentum=0.8, weight_decay=0.01)
    theta, first, second = 2.0, 0.0, 0.0
    for step, given_gradient in enumerate((1.0, -0.5, 3.0), start=1):
        gradient = given_gradient + 0.01 * theta
        first = 0.8 * first + 0.2 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        theta -= 0.1 * (first / (1 - 0.8**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert steps_of(config, [1.0, -0.5, 3.0]) == pytest.approx(theta)


def test_parameters_that_take_no_gradient_are_left_out_of_the_optimizer() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1).requires_grad_(False))
    held = OptimizerConfig().build(module).param_groups[0]["params"]
    assert [id(parameter) for parameter in held] == [id(p) for p in module[0].parameters()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"momentum": 1},
        {"warm_up": 1},
        {"schedule": "linear"},
        {"name": "lars"},
        {"weight_decay": -1},
    ],
)
def test_settings_that_cannot_train_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OptimizerConfig.model_validate(wrong)


# --- passes -----------------------------------------------------------------------------------------------


def clips(count: int = CLIPS, length: int = 30) -> Clips:
    """Clips whose samples tell clip and place: 1000 * clip + place."""
    waveforms = [1000 * clip + np.arange(length, dtype=np.float32) for clip in range(count)]
    return Clips.pack([f"clip {index}" for index in range(count)], waveforms, 100)


@pytest.mark.parametrize(
    ("count", "batch_size", "epochs", "min_steps", "batches", "all_epochs"),
    [
        (64, 16, 3, 1, 4, 3),
        (65, 16, 3, 1, 5, 3),
        (5, 64, 3, 1, 1, 3),
        (64, 16, 3, 12, 4, 3),
        (64, 16, 3, 13, 4, 4),
        (5, 64, 3, 200, 1, 200),
    ],
)
def test_a_pass_counts_its_batches_and_its_epochs(
    count: int, batch_size: int, epochs: int, min_steps: int, batches: int, all_epochs: int
) -> None:
    plan = EpochPlan(clips(count, 2), WINDOW, batch_size, epochs, min_steps)
    assert (plan.n_batches, plan.total_epochs) == (batches, all_epochs)


# --- the loop ---------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A linear layer, batch norm and dropout: weights, buffers and global randomness."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(WINDOW, 4), nn.BatchNorm1d(4), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.drop(self.norm(self.linear(x / 1000)))
        return z


class Follower(nn.Module):
    """Something beside the model that moves with it and acts on its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, WINDOW))


class Bench:
    """A training that notes what reaches each step."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model, self.follower = Net(), Follower()
        self.waveforms: list[Tensor] = []
        self.batches: list[Tensor] = []
        self.rates: list[float] = []
        self.noise: list[Tensor] = []
        self.dropped: list[Tensor] = []
        self.modes: list[bool] = []
        self.stop_after_epochs: set[int] = set()
        self.stop_at_step: int | None = None
        config = OptimizerConfig(name="sgd", learning_rate=0.1, schedule="cosine", warm_up=0.2)
        self.optimizer, self.learning_rate_factor = (
            config.build(self.model),
            config.learning_rate_factor,
        )

    def inputs(self, waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
        if len(self.batches) == self.stop_at_step:
            raise Stopped
        noise = torch.rand(len(batch), 4, generator=random.generator)
        self.waveforms.append(waveforms)
        self.batches.append(batch)
        self.noise.append(noise)
        return waveforms, noise

    def loss(self, waveforms: Tensor, noise: Tensor) -> Tensor:
        z = self.model(waveforms)
        self.dropped.append(z == 0)
        self.modes.append(self.model.training)
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        pulled = (self.model.linear.weight - self.follower.mean).square().sum()
        return (z - noise).square().mean() + 0.1 * pulled

    def after_step(self) -> None:
        self.follower.mean.lerp_(self.model.linear.weight.detach(), 0.3)

    def after_epoch(self, epoch: int) -> dict[str, float]:
        self.model.eval()
        if epoch in self.stop_after_epochs:
            raise Stopped
        return {"weight": float(self.model.linear.weight.detach().abs().sum())}

    def loop(self, **changes: Any) -> TrainingLoop:
        loop = TrainingLoop(
            "lesson",
            EpochPlan(clips(), WINDOW, 4, EPOCHS),
            self.model,
            self.optimizer,
            self.learning_rate_factor,
            self.inputs,
            self.loss,
            cuda_graphable=False,
            after_step=self.after_step,
            after_epoch=self.after_epoch,
            extra_state={"follower": self.follower},
        )
        return replace(loop, **changes)

    def tensors(self) -> dict[str, Tensor]:
        state = self.model.state_dict() | self.follower.state_dict()
        return {name: tensor.clone() for name, tensor in state.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def apart(context: RunContext, name: str) -> RunContext:
    work = context.work_folder / name
    work.mkdir()
    return replace(context, work_folder=work, checkpoint_seconds=0.0)


@pytest.fixture
def straight(context: RunContext) -> tuple[dict[str, Tensor], Curve]:
    """What an undisturbed run ends with."""
    bench = Bench()
    curve = bench.loop().run(apart(context, "straight"))
    return bench.tensors(), curve


def test_each_epoch_has_a_row_with_its_mean_loss_and_what_is_added(context: RunContext) -> None:
    bench, losses = Bench(), []

    def told(*inputs: Tensor) -> Tensor:
        loss = bench.loss(*inputs)
        losses.append(loss.item())
        return loss

    curve = bench.loop(loss=told).run(context)
    by_epoch = np.array(losses).reshape(EPOCHS, 2).mean(axis=1)
    assert [row["epoch"] for row in curve] == [1, 2, 3, 4, 5]
    assert [row["loss"] for row in curve] == pytest.approx(by_epoch)
    assert curve[-1]["weight"] == bench.model.linear.weight.abs().sum().item()
    assert curve[0].keys() == {"epoch", "loss", "weight"}


def test_every_clip_is_in_one_nearly_equal_batch_of_every_epoch(context: RunContext) -> None:
    bench = Bench()
    bench.loop(plan=EpochPlan(clips(9), WINDOW, 4, 3)).run(context)
    assert [len(batch) for batch in bench.batches] == [3, 3, 3] * 3
    for epoch in range(3):
        assert sorted(torch.cat(bench.batches[3 * epoch : 3 * epoch + 3]).tolist()) == [*range(9)]


def test_a_step_gets_one_window_of_each_clip_it_is_told(context: RunContext) -> None:
    bench = Bench()
    bench.loop().run(context)
    for waveforms, batch in zip(bench.waveforms, bench.batches, strict=True):
        assert waveforms.shape == (len(batch), WINDOW)
        first = waveforms[:, :1]
        assert (first // 1000)[:, 0].tolist() == batch.tolist()
        assert (first % 1000 <= 30 - WINDOW).all()
        assert torch.equal(waveforms, first + torch.arange(WINDOW))


def test_with_several_windows_a_step_gets_the_first_of_every_clip_and_then_the_second(
    context: RunContext,
) -> None:
    bench = Bench()

    def firsts(waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
        assert waveforms.shape == (2 * len(batch), WINDOW)
        assert (waveforms[:, 0] // 1000).tolist() == batch.tolist() * 2
        first, second = waveforms.chunk(2)
        apart.extend((first != second).any(dim=1).tolist())
        return bench.inputs(first, batch, random)

    apart: list[bool] = []
    bench.loop(plan=EpochPlan(clips(), WINDOW, 4, EPOCHS, windows_per_clip=2), inputs=firsts).run(
        context
    )
    assert len(apart) == EPOCHS * CLIPS
    assert sum(apart) > len(apart) / 2  # two may coincide, being drawn independently


def test_every_epoch_draws_order_windows_views_and_dropout_of_its_own(context: RunContext) -> None:
    bench = Bench()
    bench.loop(plan=EpochPlan(clips(), WINDOW, 99, 4)).run(context)
    for one in range(4):
        for other in range(one):
            assert not torch.equal(bench.batches[one], bench.batches[other])
            assert not torch.equal(bench.waveforms[one] % 1000, bench.waveforms[other] % 1000)
            assert not torch.equal(bench.noise[one], bench.noise[other])
            assert not torch.equal(bench.dropped[one], bench.dropped[other])


def test_generators_are_named_by_the_epoch(context: RunContext) -> None:
    bench = Bench()
    bench.loop(plan=EpochPlan(clips(), WINDOW, 99, 3)).run(context)
    for epoch in (1, 2, 3):
        order = torch.randperm(CLIPS, generator=context.seeds.torch("order", epoch))
        assert torch.equal(bench.batches[epoch - 1], order)
        draw = context.seeds.torch("views", epoch)
        torch.rand(CLIPS, generator=draw, dtype=torch.float64)  # the windows
        assert torch.equal(bench.noise[epoch - 1], torch.rand(CLIPS, 4, generator=draw))
        with context.seeds.globally("dropout", epoch):
            assert torch.equal(bench.dropped[epoch - 1], nn.Dropout(0.3)(torch.ones(CLIPS, 4)) == 0)


def own_order(epoch: int) -> Tensor:
    """Another order each epoch, of which some clips come twice and some not."""
    return torch.arange(CLIPS).roll(epoch) // 2


def test_an_epoch_goes_through_the_clips_it_is_given_in_their_order(context: RunContext) -> None:
    bench = Bench()
    bench.loop(plan=EpochPlan(clips(), WINDOW, 3, 3), before_epoch=own_order).run(context)
    assert [len(batch) for batch in bench.batches] == [3, 2, 2] * 3
    for epoch in (1, 2, 3):
        gone_through = torch.cat(bench.batches[3 * epoch - 3 : 3 * epoch])
        assert torch.equal(gone_through, own_order(epoch))
    for waveforms, batch in zip(bench.waveforms, bench.batches, strict=True):
        assert torch.equal(waveforms[:, 0] // 1000, batch.float())


def test_an_epoch_that_is_given_no_clips_goes_through_all_as_if_it_had_not_been_asked(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    bench, asked = Bench(), []
    curve = bench.loop(before_epoch=asked.append).run(apart(context, "asked"))
    assert asked == [1, 2, 3, 4, 5]
    assert curve == straight[1]
    assert same(bench.tensors(), straight[0])


def test_windows_views_and_dropout_do_not_depend_on_who_gives_the_order(
    context: RunContext,
) -> None:
    own, given = Bench(), Bench()
    own.loop().run(apart(context, "own"))
    orders = [torch.cat(own.batches[2 * e : 2 * e + 2]) for e in range(EPOCHS)]
    given.loop(before_epoch=lambda epoch: orders[epoch - 1]).run(apart(context, "given"))
    assert same(own.tensors(), given.tensors())


def test_before_an_epoch_the_model_may_be_put_into_eval_mode(context: RunContext) -> None:
    bench = Bench()
    bench.loop(before_epoch=lambda epoch: bench.model.eval() and None).run(context)
    assert bench.modes == [True] * 2 * EPOCHS


def test_longer_training_begins_with_the_draws_of_a_shorter_one(context: RunContext) -> None:
    short, long = Bench(), Bench()
    short.loop(plan=EpochPlan(clips(), WINDOW, 4, 2)).run(apart(context, "short"))
    long.loop(plan=EpochPlan(clips(), WINDOW, 4, 5)).run(apart(context, "long"))
    for one, other in zip(short.waveforms, long.waveforms, strict=False):
        assert torch.equal(one, other)


def test_each_step_has_the_rate_of_the_share_of_steps_that_are_done(context: RunContext) -> None:
    bench = Bench()
    bench.loop().run(context)
    steps, warm = 2 * EPOCHS, 0.2
    expected = []
    for step in range(steps):
        done = step / steps
        after = math.cos(math.pi * (done - warm) / (1 - warm))
        expected.append(0.1 * (done / warm if done < warm else (1 + after) / 2))
    assert bench.rates == pytest.approx(expected)


def test_groups_keep_the_proportion_of_their_rates(context: RunContext) -> None:
    bench, seen = Bench(), []
    groups = [
        {"params": bench.model.linear.parameters(), "lr": 0.1},
        {"params": bench.model.norm.parameters(), "lr": 0.02},
    ]
    bench.optimizer = torch.optim.SGD(groups, lr=1.0)

    def told(*inputs: Tensor) -> Tensor:
        seen.append([group["lr"] for group in bench.optimizer.param_groups])
        return bench.loss(*inputs)

    bench.loop(learning_rate_factor=lambda progress: 1 - progress, loss=told).run(context)
    for done, (first, second) in enumerate(seen):
        assert first == pytest.approx(0.1 * (1 - done / 10))
        assert second == pytest.approx(0.02 * (1 - done / 10))


def test_the_model_is_in_training_mode_in_every_step(context: RunContext) -> None:
    bench = Bench()  # whose after_epoch leaves it in eval mode
    bench.model.eval()
    bench.loop().run(context)
    assert bench.modes == [True] * 2 * EPOCHS


def test_each_update_is_one_of_plain_gradient_descent(context: RunContext) -> None:
    module, theta = one_weight(), 2.0

    def inputs(waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
        return (batch,)

    def loss(batch: Tensor) -> Tensor:
        return module.weight.square() * len(batch)

    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    plan = EpochPlan(clips(), WINDOW, 4, 3)
    loop = TrainingLoop(
        "lesson", plan, module, optimizer, lambda progress: 1.0, inputs, loss, False
    )
    loop.run(context)
    for size in (4, 3) * 3:
        theta -= 0.01 * size * 2 * theta
    assert module.weight.item() == pytest.approx(theta)


def test_after_every_update_what_follows_is_called_once(context: RunContext) -> None:
    bench, weights = Bench(), []
    plain = bench.model.linear.weight
    bench.loop(after_step=lambda: weights.append(plain.detach().clone())).run(context)
    assert len(weights) == 2 * EPOCHS
    # The first rate is zero, by the warm-up; from then on each call sees weights that were just updated.
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 2 * EPOCHS
    assert torch.equal(weights[-1], plain.detach())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step_of_epoch", [0, 1])
def test_a_loss_that_is_no_longer_finite_ends_the_run_with_advice(
    context: RunContext, value: float, step_of_epoch: int
) -> None:
    bench = Bench()

    def told(*inputs: Tensor) -> Tensor:
        loss = bench.loss(*inputs)
        return loss * value if len(bench.batches) == 2 * 2 + step_of_epoch + 1 else loss

    with pytest.raises(
        UserError, match=r"lesson: the loss is (nan|inf) in epoch 3;.*rate"
    ) as error:
        bench.loop(loss=told).run(replace(context, checkpoint_seconds=0.0))
    assert error.value.next_step
    content = torch.load(context.work_folder / "lesson.pt", weights_only=True)
    assert content["epoch"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in content["model"].values())


# --- seeds ------------------------------------------------------------------------------------------------


def test_the_same_seed_learns_the_same_bytes_whatever_the_global_generator(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    bench = Bench()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    curve = bench.loop().run(apart(context, "again"))
    assert same(bench.tensors(), straight[0])
    assert curve == straight[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_learns_something_else(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    bench = Bench()
    bench.loop().run(replace(apart(context, "other"), seeds=type(context.seeds)(1, "test")))
    assert not same(bench.tensors(), straight[0])


# --- a kill -----------------------------------------------------------------------------------------------


def resumed(context: RunContext, stop: Callable[[Bench], None]) -> tuple[dict[str, Tensor], Curve]:
    """Stop a run, and go on with a bench of other weights, as a new process would."""
    bench = Bench()
    stop(bench)
    with pytest.raises(Stopped):
        bench.loop().run(context)
    bench = Bench(seed=0 if not (context.work_folder / "lesson.pt").is_file() else 1)
    curve = bench.loop().run(context)
    return bench.tensors(), curve


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_a_run_stopped_in_any_epoch_and_resumed_ends_with_the_same_bytes(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve], epoch: int
) -> None:
    found = resumed(apart(context, "stopped"), lambda bench: bench.stop_after_epochs.add(epoch))
    assert same(found[0], straight[0])
    assert found[1] == straight[1]


@pytest.mark.parametrize("step", [0, 1, 5, 8])
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_with_the_same_bytes(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve], step: int
) -> None:
    found = resumed(apart(context, "stopped"), lambda bench: setattr(bench, "stop_at_step", step))
    assert same(found[0], straight[0])
    assert found[1] == straight[1]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 10, 14])
def test_a_long_epoch_is_resumed_after_its_last_section(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(loop, "SECTION", 2)
    plan = EpochPlan(clips(), WINDOW, 3, EPOCHS)  # of three steps
    undisturbed, stopped, again = Bench(), Bench(), Bench(seed=1 if step > 1 else 0)
    curve = undisturbed.loop(plan=plan).run(apart(context, "undisturbed"))
    stopped.stop_at_step = step
    aside = apart(context, "stopped")
    with pytest.raises(Stopped):
        stopped.loop(plan=plan).run(aside)
    assert again.loop(plan=plan).run(aside) == curve
    assert same(again.tensors(), undisturbed.tensors())
    assert len(again.batches) == 3 * EPOCHS - step + step % 3 % 2


def test_sections_draw_from_generators_of_their_own(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECTION", 1)
    bench = Bench()
    bench.loop(plan=EpochPlan(clips(), WINDOW, 4, 2)).run(context)
    for step, names in enumerate([(1,), (1, "section 1"), (2,), (2, "section 1")]):
        draw, rows = context.seeds.torch("views", *names), len(bench.batches[step])
        torch.rand(rows, generator=draw, dtype=torch.float64)  # the windows
        assert torch.equal(bench.noise[step], torch.rand(rows, 4, generator=draw))
        with context.seeds.globally("dropout", *names):
            assert torch.equal(bench.dropped[step], nn.Dropout(0.3)(torch.ones(rows, 4)) == 0)


def test_every_section_begins_with_the_model_of_rank_0(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECTION", 2)
    bench, steps = Bench(), []
    monkeypatch.setattr(
        ProcessGroup, "broadcast_module", lambda _, module: steps.append(len(bench.batches))
    )
    bench.loop(plan=EpochPlan(clips(), WINDOW, 3, 2)).run(context)
    assert steps == [0, 2, 3, 5]


def test_an_epoch_with_an_order_of_its_own_is_resumed_at_its_start(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECTION", 1)
    undisturbed, stopped, again = Bench(), Bench(), Bench(seed=1)
    curve = undisturbed.loop(before_epoch=own_order).run(apart(context, "undisturbed"))
    stopped.stop_at_step = 3
    aside = apart(context, "stopped")
    with pytest.raises(Stopped):
        stopped.loop(before_epoch=own_order).run(aside)
    assert again.loop(before_epoch=own_order).run(aside) == curve
    assert len(again.batches) == 2 * (EPOCHS - 1)


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_a_run_with_orders_of_its_own_stopped_and_resumed_ends_with_the_same_bytes(
    context: RunContext, epoch: int
) -> None:
    undisturbed, stopped, again = Bench(), Bench(), Bench()
    curve = undisturbed.loop(before_epoch=own_order).run(apart(context, "undisturbed"))
    stopped.stop_after_epochs.add(epoch)
    aside, asked = apart(context, "stopped"), []
    with pytest.raises(Stopped):
        stopped.loop(before_epoch=own_order).run(aside)

    def noted_order(number: int) -> Tensor:
        asked.append(number)
        return own_order(number)

    assert again.loop(before_epoch=noted_order).run(aside) == curve
    assert same(again.tensors(), undisturbed.tensors())
    assert asked == list(range(epoch, EPOCHS + 1))  # the epoch that was not saved, and the rest


def test_a_finished_run_asks_for_no_order(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    asked: list[int] = []
    aside = replace(context, work_folder=context.work_folder / "straight")
    Bench(seed=1).loop(before_epoch=asked.append).run(aside)
    assert asked == []


def test_a_run_stopped_again_and_again_ends_with_the_same_bytes(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    aside = apart(context, "stopped")
    for epoch in range(1, EPOCHS + 1):
        bench = Bench()
        bench.stop_after_epochs.add(epoch)
        with pytest.raises(Stopped):
            bench.loop().run(aside)
    bench = Bench()
    assert bench.loop().run(aside) == straight[1]
    assert same(bench.tensors(), straight[0])


def test_a_resumed_run_goes_through_the_rest_alone(context: RunContext) -> None:
    aside = apart(context, "stopped")
    bench = Bench()
    bench.stop_after_epochs.add(4)
    with pytest.raises(Stopped):
        bench.loop().run(aside)
    again = Bench()
    again.loop().run(aside)
    assert len(again.batches) == 2 * (EPOCHS - 3)


def test_the_count_of_a_resumed_run_starts_where_the_stopped_one_was_saved(
    context: RunContext,
) -> None:
    aside = apart(context, "stopped")
    bench = Bench()
    bench.stop_after_epochs.add(4)
    with pytest.raises(Stopped):
        bench.loop().run(aside)
    tasks: list[Running] = []

    class ArtifactInfo(Progress):
        @contextmanager
        def task(self, title: str, total: int | None, unit: str) -> Iterator[Running]:
            with super().task(title, total, unit) as running:
                tasks.append(running)
                yield running

    Bench().loop().run(replace(aside, progress=ArtifactInfo(quiet=True)))
    (running,) = tasks
    assert (running.title, running.done, running.total) == ("lesson", 35, 35)


def test_a_finished_run_is_not_trained_again(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    aside = replace(context, work_folder=context.work_folder / "straight")
    again = Bench(seed=1)
    assert again.loop().run(aside) == straight[1]
    assert again.batches == []
    assert same(again.tensors(), straight[0])


def test_two_stages_in_one_folder_keep_checkpoints_of_their_own(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    aside = apart(context, "both")
    Bench(seed=3).loop(name="other lesson").run(aside)
    bench = Bench()
    assert bench.loop().run(aside) == straight[1]


class Clock:
    """A clock that each save moves on by what it takes, and each epoch by a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, save_seconds: float) -> None:
        self.now = 1000.0
        self.saved: list[int] = []
        plain = loop.save_tensors

        def save(path: Any, content: Any) -> None:
            plain(path, content)
            self.saved.append(content["epoch"])
            self.now += save_seconds

        monkeypatch.setattr(loop.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(loop, "save_tensors", save)

    def after_epoch(self, epoch: int) -> dict[str, float]:
        self.now += 1.0
        return {}


@pytest.mark.parametrize(
    ("at_least", "save_seconds", "expected"),
    [
        (0.0, 0.0, list(range(1, 31))),
        (10.0, 0.0, [10, 20, 30]),
        (7.0, 0.0, [7, 14, 21, 28, 30]),
        (1000.0, 0.0, [30]),
        (10.0, 0.5, [10, 20, 30]),
        # A save that takes a second or more is followed by a longer wait.
        (10.0, 1.0, [10, 30]),
        (5.0, 2.0, [5, 25, 30]),
    ],
)
def test_a_checkpoint_is_written_no_more_often_than_allowed_and_always_at_the_end(
    context: RunContext,
    monkeypatch: pytest.MonkeyPatch,
    at_least: float,
    save_seconds: float,
    expected: list[int],
) -> None:
    clock = Clock(monkeypatch, save_seconds)
    plan = EpochPlan(clips(), WINDOW, 4, 30)
    loop = Bench().loop(plan=plan, after_epoch=clock.after_epoch)
    loop.run(replace(context, checkpoint_seconds=at_least))
    assert clock.saved == expected


def test_when_checkpoints_are_written_changes_nothing(
    context: RunContext, straight: tuple[dict[str, Tensor], Curve]
) -> None:
    aside = replace(apart(context, "rare"), checkpoint_seconds=1e9)
    found = resumed(aside, lambda bench: bench.stop_after_epochs.add(4))
    assert same(found[0], straight[0])
    assert_close([row["loss"] for row in found[1]], [row["loss"] for row in straight[1]])
