"""The training loop: epochs of random windows, a learning rate schedule, checkpoints. Inputs and loss are arguments.

A killed run resumes from its last checkpoint and ends with the same bytes. Long epochs consist of sections. Every section draws from
generators named after it, so a checkpoint needs no state of a generator.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError
from lape_bench.data.streams.streamed_clips import CorpusClips
from lape_bench.learning.training.batches import (
    DeviceClips,
    DeviceStream,
    random_windows,
    shuffled,
    to_device,
)
from lape_bench.learning.training.checkpoints import load_tensors, save_tensors
from lape_bench.learning.training.cuda_graph import Graphed
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.runtime.optimizers import SGD, Adam, AdamW
from lape_bench.system import Curve, RunContext

Inputs = Callable[[Tensor, Tensor, BatchRandom], tuple[Tensor, ...]]
"""Waveforms (windows * batch, samples), which clips the batch holds (batch,), on the CPU, and draws of the epoch: what the
loss is computed from, on the device.

With several windows per clip, the first window of every clip comes first. With several processes, each gets the
waveforms of its own clips, and all get the indices of the clips in the batch.
"""

logger = logging.getLogger(__name__)

SECTION = 1_000  # steps of an epoch after which it can be resumed


class OptimizerConfig(Config):
    """An optimizer and its learning rate schedule."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: Literal["sgd", "adam", "adamw"] = Field("adam", description="sgd, adam or adamw")
    learning_rate: float = Field(1e-3, gt=0, description="the highest")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, or the first beta of adam")
    weight_decay: float = Field(
        0.0, ge=0, description="L2 penalty; of adamw, decoupled and on matrices alone"
    )
    warm_up: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the rate rises from zero"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="after warm-up: constant, or cosine to zero"
    )

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return an optimizer of the module's trainable parameters."""
        return self.build_groups([([*module.parameters()], 1.0)])

    def build_groups(
        self, groups: Sequence[tuple[Sequence[nn.Parameter], float]]
    ) -> torch.optim.Optimizer:
        """Return an optimizer of the trainable parameters among those given.

        Args:
            groups: parameters, and the factor of their learning rate.
        """
        by_group: list[dict[str, Any]] = []
        for parameters, factor in groups:
            trainable = [p for p in parameters if p.requires_grad]
            on_gpu = any(p.device.type == "cuda" for p in trainable)
            rate = self.learning_rate * factor
            for decayed in (True, False) if self.name == "adamw" else (True,):
                some = [p for p in trainable if self.name != "adamw" or (p.dim() > 1) == decayed]
                if some:
                    by_group.append(
                        {
                            "params": some,
                            # In a tensor, because a CUDA graph would record a number and never change it.
                            "lr": torch.tensor(rate, device=some[0].device) if on_gpu else rate,
                            "weight_decay": self.weight_decay if decayed else 0.0,
                        }
                    )
        if self.name == "sgd":
            return SGD(by_group, momentum=self.momentum, fused=True)
        kind = AdamW if self.name == "adamw" else Adam
        return kind(by_group, betas=(self.momentum, 0.999), fused=True, capturable=on_gpu)

    def learning_rate_factor(self, progress: float) -> float:
        """Return the factor of the learning rate after a share `progress`, in [0, 1), of the steps."""
        if progress < self.warm_up:
            return progress / self.warm_up
        if self.schedule == "constant":
            return 1.0
        return cosine((progress - self.warm_up) / (1 - self.warm_up))


def cosine(progress: float) -> float:
    """Return a factor that falls from 1 to 0 along half a cosine as `progress` goes from 0 to 1."""
    return (1 + math.cos(math.pi * progress)) / 2


class Stateful(Protocol):
    """An object whose state a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Continue from a saved state."""


@dataclass(frozen=True)
class EpochPlan:
    """The clips of a training, and the number of passes through them.

    Attributes:
        clips: the audio.
        window: samples of a window.
        batch_size: the largest number of clips in a batch; batches are nearly equal, so that none has a single clip.
        epochs: the smallest number of passes through the clips.
        min_steps: further passes are made until there are so many steps.
        windows_per_clip: random windows of each clip in an epoch, drawn independently.
        centered: whether a clip shorter than a window is zero-padded on both sides; see `random_windows`.
    """

    clips: CorpusClips
    window: int
    batch_size: int
    epochs: int
    min_steps: int = 1
    windows_per_clip: int = 1
    centered: bool = True

    @property
    def n_batches(self) -> int:
        """Number of batches, and steps, in an epoch."""
        return math.ceil(len(self.clips) / self.batch_size)

    @property
    def total_epochs(self) -> int:
        """Number of epochs, with those that `min_steps` adds."""
        return max(self.epochs, math.ceil(self.min_steps / self.n_batches))


class UnlabeledConfig(Config):
    """Length, windows and optimizer of a training stage without labels."""

    model_config = ConfigDict(allow_inf_nan=False)

    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    batch_size: int = Field(64, ge=3, description="largest number of clips per step")
    epochs: int = Field(20, ge=1, description="passes through the clips")
    min_steps: int = Field(
        1120, ge=1, description="smallest number of steps; with few clips, more passes are made"
    )
    window_seconds: float = Field(
        1.0, ge=0.1, description="of the random window that is cut from a clip; LAPE cuts 0.95 s"
    )
    gain_db: float = Field(10.0, ge=0, description="largest random gain of each view, in decibels")

    def epoch_plan(self, clips: CorpusClips) -> EpochPlan:
        """Return the plan for these clips."""
        window = round(self.window_seconds * clips.rate)
        return EpochPlan(clips, window, self.batch_size, self.epochs, self.min_steps)


@dataclass
class TrainingLoop:
    """One training stage.

    Attributes:
        name: of the stage, for progress and messages, and of the checkpoint file.
        plan: the clips and the number of passes.
        model: the trained module; put into training mode before every epoch.
        optimizer: of the model's parameters; its present learning rates are the highest.
        learning_rate_factor: from progress in [0, 1) to the factor of the learning rates.
        inputs: computes the arguments of the loss from a batch; see `Inputs`.
        loss: from the inputs to a scalar.
        cuda_graphable: true if the loss and `after_step` may be recorded as a CUDA graph (see `cuda_graph`), and no parameter
            has a part in the inputs.
        before_epoch: called with the epoch's number before it; returns the clips that the epoch goes through, shape (clips,), in
            their order. Clips may repeat or be absent. None means each clip once, in random order. A training with such a
            function is resumed at the end of an epoch only, since the function may use the model as it is before the epoch.
        after_step: called after each update, for example to move a momentum teacher.
        after_epoch: called with the number of the epoch after it; returns numbers for the learning curve.
        extra_state: further objects whose state a checkpoint holds, by name.
    """

    name: str
    plan: EpochPlan
    model: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate_factor: Callable[[float], float]
    inputs: Inputs
    loss: Callable[..., Tensor]
    cuda_graphable: bool
    before_epoch: Callable[[int], Tensor | None] | None = None
    after_step: Callable[[], None] = lambda: None
    after_epoch: Callable[[int], dict[str, float]] = lambda epoch: {}
    extra_state: Mapping[str, Stateful] = field(default_factory=dict)

    def run(self, context: RunContext) -> Curve:
        """Train to the end, resuming from the checkpoint of a killed run if there is one.

        Returns:
            For each epoch its number, its mean loss, and what `after_epoch` adds.

        Raises:
            UserError: the loss is not finite.
        """
        plan, epochs = self.plan, self.plan.total_epochs
        clips = to_device(plan.clips, context.device)
        highest = [float(group["lr"]) for group in self.optimizer.param_groups]
        on_gpu = context.device.type == "cuda"
        update = Graphed(self._update) if self.cuda_graphable and on_gpu else self._update
        process_group, parameters = context.process_group, [*self.model.parameters()]
        if process_group.size > 1:
            self.optimizer.register_step_pre_hook(
                lambda *_: process_group.average_gradients(parameters)
            )
        checkpoint = _Checkpoint(self, context)
        with context.progress.task(self.name, epochs * len(clips), "clips") as task:
            task.resume_at(checkpoint.epoch * len(clips))
            for epoch in range(checkpoint.epoch + 1, epochs + 1):
                order = self.before_epoch(epoch) if self.before_epoch else None
                order = process_group.broadcast(order)
                if order is None:
                    order = shuffled(plan.clips, context.seeds.torch("order", epoch))
                self.model.train()
                batches = process_group.batches(order, plan.n_batches)
                losses = torch.zeros(plan.n_batches, device=context.device)
                losses[: checkpoint.step] = checkpoint.losses
                if checkpoint.step:
                    task.resume_at(task.done + sum(map(len, batches[: checkpoint.step])))
                for first in range(checkpoint.step, plan.n_batches, SECTION):
                    process_group.broadcast_module(self.model)  # as all ranks resume from rank 0
                    section = batches[first : first + SECTION]
                    # A word, since a rank adds its number to these names.
                    names = (epoch, f"section {first // SECTION}") if first else (epoch,)
                    random = BatchRandom(context.seeds.torch("views", *names), process_group)
                    before = (epoch - 1) * plan.n_batches + first
                    with context.seeds.globally("dropout", *names, *process_group.name):
                        steps = self._steps(section, before, random, clips, highest, update)
                        for step, (batch, loss) in enumerate(
                            zip(section, steps, strict=True), first
                        ):
                            # In one tensor: many small ones would keep the freed memory around them from the system.
                            losses[step] = loss
                            task.advance(len(batch))
                    checkpoint.step = first + len(section)
                    checkpoint.losses = losses[: checkpoint.step]
                    if self.before_epoch is None and checkpoint.step < plan.n_batches:
                        checkpoint.save(context, last=False)
                mean = float(losses.mean())
                if not math.isfinite(mean):
                    raise UserError(
                        f"{self.name}: the loss is {mean} in epoch {epoch}",
                        next_step="lower the learning rate, or use --precision float32",
                    )
                row = {"epoch": float(epoch), "loss": mean, **self.after_epoch(epoch)}
                checkpoint.curve.append(row)
                shown = {key: f"{value:.3f}" for key, value in row.items() if key != "epoch"}
                task.note(epoch=f"{epoch}/{epochs}", **shown)
                logger.debug(task.line())
                checkpoint.epoch, checkpoint.step, checkpoint.losses = epoch, 0, losses[:0]
                checkpoint.save(context, last=epoch == epochs)
        return tuple(checkpoint.curve)

    def _steps(
        self,
        batches: Sequence[Tensor],
        before: int,
        random: BatchRandom,
        clips: DeviceClips | DeviceStream,
        highest: Sequence[float],
        update: Callable[..., Tensor],
    ) -> Iterator[Tensor]:
        """Take a step for each batch, and yield its loss.

        Args:
            batches: the clips of each step, shape (batch,), of all processes.
            before: number of steps of the training before these.
            random: draws windows and views.
            clips: the audio.
            highest: the highest learning rate of each group of parameters.
            update: takes a step.
        """
        plan, process_group = self.plan, random.process_group
        own_rows = (
            process_group.local_rows(batch).repeat(plan.windows_per_clip) for batch in batches
        )
        n_steps = plan.total_epochs * plan.n_batches
        decoded = zip(batches, clips.batches(own_rows), strict=True)
        for step, (batch, (own, rows)) in enumerate(decoded, before):
            for group, rate in zip(self.optimizer.param_groups, highest, strict=True):
                _set_rate(group, rate * self.learning_rate_factor(step / n_steps))
            waveforms = random_windows(own, rows, plan.window, random, plan.centered)
            yield update(*self.inputs(waveforms, batch, random))

    def _update(self, *inputs: Tensor) -> Tensor:
        """Take one optimizer step, and return the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(*inputs)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        self.optimizer.step()
        self.after_step()
        return loss.detach()


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)  # in place: a recorded step reads it there
    else:
        group["lr"] = rate


class _Checkpoint:
    """The state of a loop after its last section or epoch, in memory and on disk.

    Attributes:
        epoch: the last finished epoch.
        step: number of steps of the next epoch that are done.
        losses: their losses, shape (step,).
        curve: a row for each finished epoch.
    """

    def __init__(self, loop: TrainingLoop, context: RunContext) -> None:
        self.parts: dict[str, Stateful] = {"model": loop.model, "optimizer": loop.optimizer}
        self.parts |= loop.extra_state
        self.path = context.work_folder / f"{loop.name}.pt"
        self.epoch, self.step = 0, 0
        self.losses = torch.zeros(0, device=context.device)
        self.curve: list[dict[str, float]] = []
        self._saved, self._took = time.monotonic(), 0.0
        content = None
        if self.path.is_file():
            try:
                content = load_tensors(self.path, context.device)
            except UserError as error:
                logger.warning(f"{loop.name}: starting again: {error}")
        if content is not None:
            for name, part in self.parts.items():
                part.load_state_dict(content[name])
            self.epoch, self.step = content["epoch"], content["step"]
            self.losses, self.curve = content["losses"], content["curve"]
            steps = f" and {self.step:,} steps" if self.step else ""
            logger.info(f"{loop.name}: resuming after epoch {self.epoch}{steps}")

    def save(self, context: RunContext, last: bool) -> None:
        """Save now and then: a resumed run does not depend on when. Ranks hold the same, and the first alone writes."""
        # A large state takes seconds to write: then rarer, so that saving never takes most of the time.
        wait = context.checkpoint_seconds * max(1.0, 2 * self._took)
        began = time.monotonic()
        if context.process_group.rank:
            return
        if not last and began - self._saved < wait:
            return
        content = {name: part.state_dict() for name, part in self.parts.items()}
        progress = {"epoch": self.epoch, "step": self.step, "losses": self.losses}
        save_tensors(self.path, content | progress | {"curve": self.curve})
        self._saved = time.monotonic()
        self._took = self._saved - began
