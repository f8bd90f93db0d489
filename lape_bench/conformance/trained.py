"""What must hold of a system under a protocol: of its training, its scores, what it saves and what it counts."""

import gc
import pickle
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lape_bench.conformance.claims import Failed, Note, Result, Skipped, hold
from lape_bench.conformance.devices import other_device
from lape_bench.conformance.harness import SAME_WITHIN, Bench
from lape_bench.core.errors import UserError
from lape_bench.data.audio_store import Clips
from lape_bench.learning.systems.encoder_system import EncoderConfig, EncoderSystem
from lape_bench.system import System

TRAINS = "trains, and leaves global random state alone"
PATIENCE = 8  # times the check's epochs before an encoder is said to learn nothing


class _Stopped(Exception):
    """Stands for a kill in the middle of training."""


def check_trained(bench: Bench, protocol: str) -> Iterator[Result]:
    """Train a system and hold it against every claim."""
    system: System | None = None

    def train() -> None:
        nonlocal system
        before = _global_state()
        system = bench.trained("first")
        after = _global_state()
        moved = [name for name in before if before[name] != after[name]]
        if moved:
            raise Failed(
                f"the global generator of {' and of '.join(moved)} moved; is dropout on in evaluation, or a seed set? a "
                "System draws from context.seeds, or with torch inside its globally()"
            )

    yield hold(protocol, TRAINS, train)
    if system is None:
        return
    checks: list[tuple[str, Callable[[Bench, System], str | None]]] = [
        ("scores are log-probabilities, (clips, classes)", _log_probabilities),
        ("scoring twice gives the same scores", _steady),
        ("a clip's score does not depend on its neighbours", _independent),
        ("clips from 0.1 s to 3 windows are scored", _lengths),
        ("silent, quiet, constant and loud clips are scored", _extremes),
        ("the same seed gives the same scores", _repeatable),
        ("a run stopped in training and resumed gives the same scores", _resumable),
        ("what is saved and loaded scores the same", _saved),
        ("loaded on another device, it scores alike", _moved),
        ("a checkpoint that does not fit is refused", _strict),
        ("parameters and operations are counted", _counted),
        ("learns: better than chance on its own training clips", _learns),
        ("keeps nothing of the clips that it scores", _forgets),
        ("speed", _speed),
    ]
    for claim, check in checks:
        yield hold(protocol, claim, partial(check, bench, system))


def _global_state() -> dict[str, Any]:
    """Return the state of the CPU's generators that anything may draw from without being asked."""
    numpy, python = pickle.dumps(np.random.get_state()), random.getstate()
    return {"torch": torch.get_rng_state().tolist(), "NumPy": numpy, "Python": python}


def _log_probabilities(bench: Bench, system: System) -> None:
    scores = bench.scores(system, bench.test.clips)
    expected = (len(bench.test.clips), len(system.target.classes))
    if tuple(scores.shape) != expected:
        raise Failed(f"the shape is {tuple(scores.shape)}, not {expected}; average over windows?")
    if scores.dtype != torch.float32 or scores.device.type != "cpu":
        raise Failed(f"they are {scores.dtype} on {scores.device}; return .float().cpu()")
    off = float(scores.logsumexp(dim=1).abs().max())
    if not off < 1e-3:
        raise Failed(f"a row's probabilities sum to e^{off:.3g}; end with log_softmax(dim=1)")


def _steady(bench: Bench, system: System) -> None:
    scores, again = (bench.scores(system, bench.test.clips) for _ in range(2))
    if not bench.same(scores, again):
        off = float((scores - again).abs().max())
        raise Failed(f"they differ by {off:.3g}; is dropout left on? call eval() before scoring")


def _independent(bench: Bench, system: System) -> None:
    clips = bench.test.clips
    together = bench.scores(system, clips)
    for index in (0, len(together) // 2, len(together) - 1):
        alone = bench.scores(system, clips.select([index]))[0]
        off = float((alone - together[index]).abs().max())
        if not off < SAME_WITHIN:
            if not bench.same(bench.scores(system, clips), together):
                raise Skipped("its scores differ from call to call, which hides it")
            raise Failed(
                f"clip {index} scored alone differs by {off:.3g}; is batch norm still training, or is "
                "something normalised over the batch?"
            )


def _lengths(bench: Bench, system: System) -> None:
    rate, window = bench.test.clips.rate, _window(bench, system)
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * window + 7).astype(np.float32)
    clips = {"short": noise[: rate // 10], "window-long": noise[:window], "long": noise}
    _insist_finite(bench, system, clips, "is something divided by the number of windows or frames?")


def _extremes(bench: Bench, system: System) -> None:
    rate, window = bench.test.clips.rate, _window(bench, system)
    noise = np.random.default_rng(0).normal(0, 1, window)
    phase = np.arange(window) / rate * 440
    nothing = "is there a logarithm of 0, or a division by a deviation or norm of 0? add a little"
    _insist_finite(
        bench, system, {"silent": np.zeros(window), "constant": 0.5 + noise * 0}, nothing
    )
    square = np.where(phase % 1 < 0.5, 1.0, -1.0)
    too_small = "is the square of a small number divided by, or its logarithm taken? add a little"
    _insist_finite(bench, system, {"quiet": 1e-10 * noise}, too_small)
    _insist_finite(bench, system, {"loud": square}, "does a power or an exp() overflow?")


def _insist_finite(
    bench: Bench, system: System, waveforms: dict[str, NDArray[Any]], cause: str
) -> None:
    samples = [waveform.astype(np.float32) for waveform in waveforms.values()]
    clips = Clips.pack(list(waveforms), samples, bench.test.clips.rate)
    for name, row in zip(clips.ids, bench.scores(system, clips), strict=True):
        if not torch.isfinite(row).all():
            raise Failed(f"the {name} clip is scored {row[0]:.3g}; {cause}")


def _window(bench: Bench, system: System) -> int:
    return round(system.target.window_seconds * bench.test.clips.rate)


def _repeatable(bench: Bench, system: System) -> None:
    bench.insist_trained_alike(
        bench.trained("second"),
        system,
        "two trainings differ; does something draw from NumPy or random? draw by torch, in a System from context.seeds",
    )


def _resumable(bench: Bench, system: System) -> None:
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
    else:
        raise Skipped("nothing called context.on_epoch, so that there was nowhere to stop it")
    bench.insist_trained_alike(
        resumed, system, "the resumed run differs; name generators by the epoch, save every state"
    )


def _saved(bench: Bench, system: System) -> None:
    loaded = bench.make().load(bench.saved(system, "saved"), bench.context("load"))
    bench.insist_same(
        loaded, system, "the loaded system differs; are normalisation statistics saved too?"
    )


def _moved(bench: Bench, system: System) -> str:
    device = other_device(bench.device)
    if device is None:
        raise Skipped("torch finds no second device here")
    context = bench.context("elsewhere", device)
    loaded = bench.make().load(bench.saved(system, "moved"), context)
    here = bench.scores(system, bench.test.clips)
    off = float((loaded.score(bench.test.clips, context) - here).abs().max())
    if not off < SAME_WITHIN:
        raise Failed(
            f"on {device} its scores differ by {off:.3g}; does a tensor stay behind, or does something ask "
            "which device it is on?"
        )
    return f"on {device} as on {bench.device}"


def _strict(bench: Bench, system: System) -> None:
    folder = bench.saved(system, "foreign")
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"not a checkpoint")
    try:
        bench.make().load(folder, bench.context("load"))
    except UserError:
        return
    raise Failed("files of nonsense were loaded without a UserError; use learning.weights")


def _counted(bench: Bench, system: System) -> str:
    counts = system.count_parameters()
    if not 0 <= counts.encoder <= counts.inference <= counts.training:
        raise Failed(
            f"encoder {counts.encoder}, inference {counts.inference} and training {counts.training} "
            "must not fall"
        )
    if isinstance(system, EncoderSystem):
        _insist_count("the encoder", counts.encoder, system.encoder)
        _insist_count("encoder and classifier", counts.inference, system.encoder, system.head)
    macs = system.count_macs()
    if macs <= 0:
        raise Failed("count_macs() is not positive")
    return (
        f"encoder {counts.encoder:,}, with classifier {counts.inference:,}, in training {counts.training:,}; "
        f"{macs / 1e6:,.3g} million multiply-accumulates a second of audio"
    )


def _insist_count(what: str, said: int, *modules: nn.Module) -> None:
    # By memory, not by name: what two layers share is counted once.
    parameters = {
        (p.data_ptr(), p.numel()) for module in modules for p in module.parameters() if p.numel()
    }
    held = sum(count for _, count in parameters)
    if said != held:
        raise Failed(
            f"count_parameters() says {said:,} of {what}, where {held:,} are held; frozen ones count, buffers do not, "
            "shared ones count once"
        )


def _learns(bench: Bench, system: System) -> str:
    chance, said = 1 / len(system.target.classes), ""
    accuracy = _accuracy(bench, system)
    settings = system.settings
    if accuracy <= chance and system.protocol == "finetune" and isinstance(settings, EncoderConfig):
        # The check's epochs are few, and an encoder may be right and only slow.
        epochs = PATIENCE * settings.finetune.epochs
        longer = settings.finetune.model_copy(update={"epochs": epochs})
        patient = settings.model_copy(update={"finetune": longer})
        system = type(system)(patient, system.target, system.protocol)
        system.train(bench.data, bench.context("patient"))
        accuracy, said = _accuracy(bench, system), f" in {epochs} epochs"
    if not accuracy > chance:
        slow = " or is finetune.learning_rate too low for it?" if said else ""
        raise Failed(
            f"accuracy is {accuracy:.1%}{said}, chance {chance:.1%}; are labels and clips in one order?{slow}"
        )
    return f"{accuracy:.1%}{said}, where chance is {chance:.1%}"


def _accuracy(bench: Bench, system: System) -> float:
    labelled = bench.data.labelled
    found = bench.scores(system, labelled.clips).argmax(dim=1)
    return float((found == labelled.labels).float().mean())


def _forgets(bench: Bench, system: System) -> None:
    few = bench.test.clips.select([0, 1])

    def held() -> int:
        """Bytes of all tensors of this process, after scoring once more."""
        bench.scores(system, few)
        # Not isinstance(), which would ask lazy objects for their class.
        tensors = (each for each in gc.get_objects() if issubclass(type(each), Tensor))
        return sum(tensor.nbytes for tensor in tensors)

    first = held()
    if held() <= first:
        return
    gc.collect()  # a cycle may hold tensors for a while, which is no leak
    before = held()
    gc.collect()
    grown = held() - before
    if grown > 0:
        raise Failed(
            f"each scoring leaves {grown:,} bytes in tensors; does a list grow, or keep what forward() computed?"
        )


def _speed(bench: Bench, system: System) -> None:
    clips, context = bench.test.clips, bench.context("score")
    with context.stage("measured"):
        system.score(clips, context)
    cost = context.meter.costs[-1]
    windows = float(clips.lengths.sum()) / clips.rate / max(cost.seconds, 1e-3)
    peak = f", peak memory {cost.peak_memory_mib:,.0f} MiB" if cost.peak_memory_mib else ""
    raise Note(f"scores {windows:,.0f} one-second windows a second on {bench.device}{peak}")
