"""Claims about a system under a protocol: its training, its scores, the files it saves and the numbers it counts."""

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

from lape_bench.conformance.claims import (
    ClaimFailed,
    ClaimNote,
    ClaimResult,
    ClaimSkipped,
    check_claim,
)
from lape_bench.conformance.devices import other_device
from lape_bench.conformance.harness import SAME_WITHIN, Harness
from lape_bench.core.errors import UserError
from lape_bench.data.audio_store import Clips
from lape_bench.learning.systems.encoder_system import EncoderConfig, EncoderSystem
from lape_bench.report.formatting import known_count
from lape_bench.system import System

TRAINS = "trains, and does not change global random state"
PATIENCE = 8  # times as many epochs for an encoder that has learned nothing at first


class _Stopped(Exception):
    """Raised instead of a kill in the middle of training."""


def check_trained(harness: Harness, protocol: str) -> Iterator[ClaimResult]:
    """Train a system and check every claim.

    Args:
        harness: a harness for the protocol.
        protocol: its name, as the group of the results.
    """
    system: System | None = None

    def train() -> None:
        nonlocal system
        _advance_global_generators()
        before = _global_state()
        system = harness.trained("first")
        after = _global_state()
        changed = [name for name in before if before[name] != after[name]]
        if changed:
            raise ClaimFailed(
                f"training changed the global generator of {' and of '.join(changed)}; is dropout on in evaluation, or a seed "
                "set? draw from context.seeds, or within context.seeds.globally()"
            )

    yield check_claim(protocol, TRAINS, train)
    if system is None:
        return
    checks: list[tuple[str, Callable[[Harness, System], str | None]]] = [
        ("scores are log-probabilities, (clips, classes)", _log_probabilities),
        ("scoring twice gives the same scores", _steady),
        ("a clip's score does not depend on its neighbors", _independent),
        ("a clip's score does not depend on its ID", _blind_to_ids),
        ("clips from 0.1 s to 3 windows are scored", _lengths),
        ("silent, quiet, constant and loud clips are scored", _extremes),
        ("the same seed gives the same scores", _repeatable),
        ("a run stopped in training and resumed gives the same scores", _resumable),
        ("a saved and loaded system gives the same scores", _saved),
        ("loaded on another device, it gives nearly the same scores", _moved),
        ("a checkpoint that does not fit is refused", _strict),
        ("parameters and operations are counted", _counted),
        ("learns: better than chance on its own training clips", _learns),
        ("keeps no tensors of the clips that it scores", _forgets),
        ("speed", _speed),
    ]
    for claim, check in checks:
        yield check_claim(protocol, claim, partial(check, harness, system))


def _advance_global_generators() -> None:
    """Draw from each global generator, so that a system that seeds it again changes its state."""
    torch.rand(1)
    np.random.rand()
    random.random()


def _global_state() -> dict[str, Any]:
    """Return the state of each global generator on the CPU, by the name of its library."""
    numpy, python = pickle.dumps(np.random.get_state()), random.getstate()
    return {"torch": torch.get_rng_state().tolist(), "NumPy": numpy, "Python": python}


def _log_probabilities(harness: Harness, system: System) -> None:
    scores = harness.scores(system, harness.test.clips)
    expected = (len(harness.test.clips), len(system.target.classes))
    if tuple(scores.shape) != expected:
        raise ClaimFailed(
            f"the shape is {tuple(scores.shape)}, not {expected}; average over windows?"
        )
    if scores.dtype != torch.float32 or scores.device.type != "cpu":
        raise ClaimFailed(f"scores are {scores.dtype} on {scores.device}; return .float().cpu()")
    difference = float(scores.logsumexp(dim=1).abs().max())
    if not difference < 1e-3:
        raise ClaimFailed(
            f"a row's probabilities sum to e^{difference:.3g}; end with log_softmax(dim=1)"
        )


def _steady(harness: Harness, system: System) -> None:
    scores, again = (harness.scores(system, harness.test.clips) for _ in range(2))
    if not harness.equal_scores(scores, again):
        difference = float((scores - again).abs().max())
        raise ClaimFailed(
            f"the scores differ by {difference:.3g}; is dropout left on? call eval() before scoring"
        )


def _independent(harness: Harness, system: System) -> None:
    clips = harness.test.clips
    together = harness.scores(system, clips)
    for index in (0, len(together) // 2, len(together) - 1):
        alone = harness.scores(system, clips.select([index]))[0]
        difference = float((alone - together[index]).abs().max())
        if not difference < SAME_WITHIN:
            if not harness.equal_scores(harness.scores(system, clips), together):
                raise ClaimSkipped(
                    "its scores differ from call to call, so nothing can be compared"
                )
            raise ClaimFailed(
                f"clip {index} scored alone differs by {difference:.3g}; is batch norm still training, or is "
                "something normalized over the batch?"
            )


def _blind_to_ids(harness: Harness, system: System) -> None:
    clips = harness.test.clips
    scores = harness.scores(system, clips)
    renamed = harness.scores(system, clips.numbered(np.arange(len(clips))[::-1]))
    if harness.equal_scores(renamed, scores):
        return
    if not harness.equal_scores(harness.scores(system, clips), scores):
        raise ClaimSkipped("its scores differ from call to call, so nothing can be compared")
    difference = float((renamed - scores).abs().max())
    raise ClaimFailed(
        f"with other IDs, scores differ by {difference:.3g}; IDs carry no information, so score the audio alone"
    )


def _lengths(harness: Harness, system: System) -> None:
    rate, window = harness.test.clips.rate, _window(harness, system)
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * window + 7).astype(np.float32)
    clips = {"short": noise[: rate // 10], "window-long": noise[:window], "long": noise}
    _require_finite(
        harness, system, clips, "is something divided by the number of windows or frames?"
    )


def _extremes(harness: Harness, system: System) -> None:
    rate, window = harness.test.clips.rate, _window(harness, system)
    noise = np.random.default_rng(0).normal(0, 1, window)
    phase = np.arange(window) / rate * 440
    zero = "is there a logarithm of 0, or a division by a standard deviation or norm of 0? add a small number"
    _require_finite(
        harness, system, {"silent": np.zeros(window), "constant": 0.5 + noise * 0}, zero
    )
    underflow = (
        "is there a division by the square of a small number, or its logarithm? add a small number"
    )
    _require_finite(harness, system, {"quiet": 1e-10 * noise}, underflow)
    square = np.where(phase % 1 < 0.5, 1.0, -1.0)
    _require_finite(harness, system, {"loud": square}, "does a power or an exp() overflow?")


def _require_finite(
    harness: Harness, system: System, waveforms: dict[str, NDArray[Any]], cause: str
) -> None:
    samples = [waveform.astype(np.float32) for waveform in waveforms.values()]
    clips = Clips.pack(list(waveforms), samples, harness.test.clips.rate).numbered()
    for name, row in zip(waveforms, harness.scores(system, clips), strict=True):
        if not torch.isfinite(row).all():
            raise ClaimFailed(f"the score of the {name} clip is {row[0]:.3g}; {cause}")


def _window(harness: Harness, system: System) -> int:
    return round(system.target.window_seconds * harness.test.clips.rate)


def _repeatable(harness: Harness, system: System) -> None:
    harness.require_same_training(
        harness.trained("second"),
        system,
        "two trainings differ; does something draw from NumPy's or Python's generator? draw from torch, or in a System from "
        "context.seeds",
    )


def _resumable(harness: Harness, system: System) -> None:
    not_stopped = "nothing called context.on_epoch, so the training could not be stopped"
    if not harness.reported_epochs:
        raise ClaimSkipped(not_stopped)

    def stop(epoch: int, score: object) -> None:
        if epoch == 2:
            raise _Stopped

    context = harness.context("stopped")
    context.on_epoch = stop
    resumed = harness.make()
    try:
        resumed.train(harness.data, context)
    except _Stopped:
        resumed = harness.make()
        context.on_epoch = None
        resumed.train(harness.data, context)
    else:
        raise ClaimSkipped(not_stopped)
    harness.require_same_training(
        resumed,
        system,
        "the resumed run differs; name generators by the epoch, and save every state",
    )


def _saved(harness: Harness, system: System) -> None:
    loaded = harness.make().load(harness.saved(system, "saved"), harness.context("load"))
    harness.require_same_scores(
        loaded,
        system,
        "the loaded system's scores differ; are normalization statistics saved too?",
    )


def _moved(harness: Harness, system: System) -> str:
    device = other_device(harness.device)
    if device is None:
        raise ClaimSkipped("torch finds no second device here")
    context = harness.context("elsewhere", device)
    loaded = harness.make().load(harness.saved(system, "moved"), context)
    scores = harness.scores(system, harness.test.clips)
    difference = float((loaded.score(harness.test.clips, context) - scores).abs().max())
    if not difference < SAME_WITHIN:
        raise ClaimFailed(
            f"on {device} its scores differ by {difference:.3g}; does a tensor stay behind, or does something ask "
            "which device it is on?"
        )
    return f"on {device} as on {harness.device}"


def _strict(harness: Harness, system: System) -> None:
    folder = harness.saved(system, "foreign")
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"not a checkpoint")
    try:
        harness.make().load(folder, harness.context("load"))
    except UserError:
        return
    raise ClaimFailed(
        "files that hold no checkpoint were loaded without a UserError; use lape_bench.learning.training.checkpoints"
    )


def _counted(harness: Harness, system: System) -> str:
    counts = system.count_parameters()
    known = [n for n in (counts.encoder, counts.inference, counts.training) if n is not None]
    if known != sorted(known):
        raise ClaimFailed(
            f"the counts must not decrease from encoder ({counts.encoder}) to inference ({counts.inference}) to training "
            f"({counts.training})"
        )
    if isinstance(system, EncoderSystem):
        _require_count("the encoder", counts.encoder, system.encoder)
        _require_count("encoder and classifier", counts.inference, system.encoder, system.head)
    macs = system.count_macs()
    if macs is not None and macs <= 0:
        raise ClaimFailed("count_macs() is not positive")
    operations = "an unknown number of" if macs is None else f"{macs / 1e6:,.3g} million"
    return (
        f"encoder {known_count(counts.encoder)}, with classifier {known_count(counts.inference)}, in training "
        f"{known_count(counts.training)}; {operations} multiply-accumulates per second of audio"
    )


def _require_count(part: str, count: int | None, *modules: nn.Module) -> None:
    if count is None:
        return
    # By memory address, so that a parameter that two layers share is counted once.
    parameters = {
        (p.data_ptr(), p.numel()) for module in modules for p in module.parameters() if p.numel()
    }
    counted = sum(size for _, size in parameters)
    if count != counted:
        raise ClaimFailed(
            f"count_parameters() returns {count:,} for {part}, which has {counted:,}; frozen parameters count, buffers do not, "
            "and shared parameters count once"
        )


def _learns(harness: Harness, system: System) -> str:
    chance, duration = 1 / len(system.target.classes), ""
    accuracy = _accuracy(harness, system)
    settings = system.settings
    if accuracy <= chance and system.protocol == "finetune" and isinstance(settings, EncoderConfig):
        # The check trains for few epochs, and a correct encoder may only learn slowly.
        epochs = PATIENCE * settings.finetune.epochs
        longer = settings.finetune.model_copy(update={"epochs": epochs})
        patient = settings.model_copy(update={"finetune": longer})
        system = type(system)(patient, system.target, system.protocol)
        system.train(harness.data, harness.context("patient"))
        accuracy, duration = _accuracy(harness, system), f" in {epochs} epochs"
    if not accuracy > chance:
        slow = " or is finetune.learning_rates too low for it?" if duration else ""
        raise ClaimFailed(
            f"accuracy is {accuracy:.1%}{duration}, and chance is {chance:.1%}; are labels and clips in the same order?{slow}"
        )
    return f"{accuracy:.1%}{duration}; chance is {chance:.1%}"


def _accuracy(harness: Harness, system: System) -> float:
    labeled = harness.data.labeled
    predicted = harness.scores(system, labeled.clips).argmax(dim=1)
    return float((predicted == labeled.labels).float().mean())


def _forgets(harness: Harness, system: System) -> None:
    two_clips = harness.test.clips.select([0, 1])

    def tensor_bytes() -> int:
        """Score two clips, and return the size in bytes of all tensors of this process."""
        harness.scores(system, two_clips)
        # isinstance() would make lazy objects load their class.
        tensors = (item for item in gc.get_objects() if issubclass(type(item), Tensor))
        return sum(tensor.nbytes for tensor in tensors)

    first = tensor_bytes()
    if tensor_bytes() <= first:
        return
    gc.collect()  # a reference cycle may hold tensors for a while, which is not a leak
    before = tensor_bytes()
    gc.collect()
    grown = tensor_bytes() - before
    if grown > 0:
        raise ClaimFailed(
            f"each scoring leaves {grown:,} bytes in tensors; does a list grow, or keep outputs of forward()?"
        )


def _speed(harness: Harness, system: System) -> None:
    clips, context = harness.test.clips, harness.context("score")
    with context.stage("measured"):
        system.score(clips, context)
    cost = context.profiler.costs[-1]
    windows = float(clips.lengths.sum()) / clips.rate / max(cost.seconds, 1e-3)
    peak = f", peak memory {cost.peak_memory_mib:,.0f} MiB" if cost.peak_memory_mib else ""
    raise ClaimNote(
        f"scores {windows:,.0f} one-second windows per second on {harness.device}{peak}"
    )
