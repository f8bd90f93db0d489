"""The contract of a system as runnable checks, on a few clips of the synthetic task.

Each check says what must hold; a failure also says what was seen and what usually causes it.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lape_bench.catalog import load_card
from lape_bench.config import validate
from lape_bench.costs import Meter
from lape_bench.data.prepare import ensure_prepared
from lape_bench.device import Compute
from lape_bench.errors import UserError
from lape_bench.progress import Progress
from lape_bench.runner import load_system
from lape_bench.seeding import Seeds
from lape_bench.store import Clips
from lape_bench.system import LabelledClips, Protocol, RunContext, System, Target, TrainingData

TASK = "synthetic-sounds"
CLIPS_A_CLASS = {"train": 8, "val": 4, "test": 4}
SAME_WITHIN = (
    0.05  # of log-probabilities: kernels may round differently for another batch size in bf16
)


class Result(NamedTuple):
    """Outcome of one check; `detail` is empty where it held."""

    protocol: str
    claim: str
    holds: bool
    detail: str


class _Failed(Exception):
    """What was seen, and its usual cause."""


class _Stopped(Exception):
    """Stands for a kill in the middle of training."""


def check_system(
    name: str, settings: dict[str, Any], compute: Compute, progress: Progress
) -> Iterator[Result]:
    """Run every check for each protocol of a system.

    Args:
        name: the registered name.
        settings: what to change of the class's `brief` settings.
        compute: device, precision and threads.
        progress: told of preparing the synthetic task.

    Raises:
        UserError: unknown system, or settings that its model refuses.
    """
    kind = load_system(name)
    config = validate(kind.brief_settings(settings), kind.Settings, where=f"settings of {name}")
    clips, labels, sides, target = _synthetic(kind.sample_rate, progress)
    for protocol in kind.protocols:
        with tempfile.TemporaryDirectory() as folder:
            bench = _Bench(
                partial(kind, config, target, protocol),
                clips,
                labels,
                sides,
                compute,
                Path(folder),
            )
            yield from _results(bench, protocol)


class _Bench:
    """A system's class on the check's data."""

    def __init__(
        self,
        make: Callable[[], System],
        clips: Clips,
        labels: Tensor,
        sides: dict[str, list[int]],
        compute: Compute,
        folder: Path,
    ) -> None:
        self.make, self.folder = make, folder
        self.device, self.precision = compute.resolve()

        def side(rows: list[int]) -> LabelledClips:
            return LabelledClips(clips.select(rows), labels[rows])

        train, validation = side(sides["train"]), side(sides["val"])
        has_validation = make().selects
        self.data = TrainingData(train.clips, train, validation if has_validation else None)
        self.test = side(sides["test"])

    def context(self, name: str) -> RunContext:
        work = self.folder / name
        work.mkdir(exist_ok=True)
        seeds, meter = Seeds(0, "check"), Meter(self.device)
        context = RunContext(self.device, self.precision, seeds, Progress(quiet=True), work, meter)
        context.cache = (
            work / "artifacts"
        )  # its own, or a second training would find the first one's
        context.checkpoint_seconds = 0.0  # a stopped run must find something to go on from
        return context

    def trained(self, name: str) -> System:
        system = self.make()
        system.train(self.data, self.context(name))
        return system

    def scores(self, system: System, clips: Clips) -> Tensor:
        return system.score(clips, self.context("score"))

    def insist_same(self, one: System, other: System, otherwise: str) -> None:
        """Fail, saying `otherwise`, unless two systems score the test clips alike to the bit."""
        if not torch.equal(self.scores(one, self.test.clips), self.scores(other, self.test.clips)):
            raise _Failed(otherwise)


def _results(bench: _Bench, protocol: Protocol) -> Iterator[Result]:
    system: System | None = None

    def train() -> None:
        nonlocal system
        before = torch.get_rng_state()
        system = bench.trained("first")
        if not torch.equal(before, torch.get_rng_state()):
            raise _Failed(
                "torch's global generator moved; draw from context.seeds, or inside its globally()"
            )

    yield _run(protocol, "trains, and leaves global random state alone", train)
    if system is None:
        return
    checks: list[tuple[str, Callable[[_Bench, System], None]]] = [
        ("scores are log-probabilities, (clips, classes)", _log_probabilities),
        ("a clip's score does not depend on its neighbours", _independent),
        ("clips from 0.1 s to 3 windows, and silence, are scored", _lengths),
        ("the same seed gives the same scores", _repeatable),
        ("a run stopped in training and resumed gives the same scores", _resumable),
        ("what is saved and loaded scores the same", _saved),
        ("a checkpoint that does not fit is refused", _strict),
        ("parameters and operations are counted", _counted),
        ("it learns: better than chance on its own training clips", _learns),
    ]
    for claim, check in checks:
        yield _run(protocol, claim, partial(check, bench, system))


def _run(protocol: Protocol, claim: str, check: Callable[[], None]) -> Result:
    try:
        check()
    except _Failed as failure:
        return Result(protocol, claim, False, str(failure))
    except Exception as error:  # a plug-in may fail in any way; the check says how
        return Result(protocol, claim, False, f"it raised {type(error).__name__}: {error}")
    return Result(protocol, claim, True, "")


def _log_probabilities(bench: _Bench, system: System) -> None:
    scores = bench.scores(system, bench.test.clips)
    expected = (len(bench.test.clips), len(system.target.classes))
    if tuple(scores.shape) != expected:
        raise _Failed(f"the shape is {tuple(scores.shape)}, not {expected}; average over windows?")
    if scores.dtype != torch.float32 or scores.device.type != "cpu":
        raise _Failed(f"they are {scores.dtype} on {scores.device}; return .float().cpu()")
    off = float(scores.logsumexp(dim=1).abs().max())
    if not off < 1e-3:
        raise _Failed(f"a row's probabilities sum to e^{off:.3g}; end with log_softmax(dim=1)")


def _independent(bench: _Bench, system: System) -> None:
    together = bench.scores(system, bench.test.clips)
    for index in (0, len(together) // 2, len(together) - 1):
        alone = bench.scores(system, bench.test.clips.select([index]))[0]
        off = float((alone - together[index]).abs().max())
        if not off < SAME_WITHIN:
            raise _Failed(
                f"clip {index} scored alone differs by {off:.3g}; is batch norm still training, or is "
                "something normalised over the batch?"
            )


def _lengths(bench: _Bench, system: System) -> None:
    rate = bench.test.clips.rate
    window = round(system.target.window_seconds * rate)
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * window + 7).astype(np.float32)
    waveforms = [noise[: rate // 10], noise[:window], noise, np.zeros(window, np.float32)]
    clips = Clips.pack(["short", "window", "long", "silence"], waveforms, rate)
    scores = bench.scores(system, clips)
    for name, row in zip(clips.ids, scores, strict=True):
        if not torch.isfinite(row).all():
            raise _Failed(f"the {name} clip is scored {row[0]:.3g}; is something divided by 0?")


def _repeatable(bench: _Bench, system: System) -> None:
    bench.insist_same(
        bench.trained("second"),
        system,
        "two trainings differ; does something draw outside context.seeds?",
    )


def _resumable(bench: _Bench, system: System) -> None:
    def stop(epoch: int, score: object) -> None:
        if epoch == 2:
            raise _Stopped

    context = bench.context("stopped")
    context.on_epoch = stop
    resumed = bench.make()
    try:
        resumed.train(bench.data, context)
    except _Stopped:
        resumed = bench.make()
        context.on_epoch = None
        resumed.train(bench.data, context)
    bench.insist_same(
        resumed, system, "the resumed run differs; name generators by the epoch, save every state"
    )


def _saved(bench: _Bench, system: System) -> None:
    folder = bench.folder / "saved"
    folder.mkdir(exist_ok=True)
    system.save(folder)
    loaded = bench.make().load(folder, bench.context("load"))
    bench.insist_same(
        loaded, system, "the loaded system differs; are normalisation statistics saved too?"
    )


def _strict(bench: _Bench, system: System) -> None:
    folder = bench.folder / "foreign"
    folder.mkdir(exist_ok=True)
    system.save(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"not a checkpoint")
    try:
        bench.make().load(folder, bench.context("load"))
    except UserError:
        return
    raise _Failed("files of nonsense were loaded without a UserError; use learning.weights")


def _counted(bench: _Bench, system: System) -> None:
    counts = system.count_parameters()
    if not 0 <= counts.encoder <= counts.inference <= counts.training:
        raise _Failed(
            f"encoder {counts.encoder}, inference {counts.inference} and training {counts.training} "
            "must not fall"
        )
    if system.count_macs() <= 0:
        raise _Failed("count_macs() is not positive")


def _learns(bench: _Bench, system: System) -> None:
    labelled = bench.data.labelled
    found = bench.scores(system, labelled.clips).argmax(dim=1)
    accuracy = float((found == labelled.labels).float().mean())
    chance = 1 / len(system.target.classes)
    if not accuracy > chance:
        raise _Failed(
            f"accuracy is {accuracy:.1%}, chance {chance:.1%}; are labels and clips in one order?"
        )


def _synthetic(rate: int, progress: Progress) -> tuple[Clips, Tensor, dict[str, list[int]], Target]:
    card = load_card(TASK)
    manifest = ensure_prepared(card, progress)
    clips = manifest.open_clips(rate)
    table = manifest.clips
    number = {label: index for index, label in enumerate(card.classes)}
    labels = torch.tensor([number[label] for label in table["label"]])
    sides = {
        side: [
            int(row)
            for _, rows in table[table["split"] == side].groupby("label").indices.items()
            for row in np.flatnonzero(table["split"] == side)[rows[:count]]
        ]
        for side, count in CLIPS_A_CLASS.items()
    }
    target = Target(classes=card.classes, window_seconds=card.window_seconds, metric=card.metric)
    return clips, labels, sides, target
