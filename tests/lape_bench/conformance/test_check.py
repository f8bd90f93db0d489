"""The conformance check passes systems that keep the contract. A system that breaks one claim fails that claim, with the cause."""

import os
import random
import sys
import textwrap
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.conformance.check import check_system
from lape_bench.conformance.claims import ClaimResult
from lape_bench.conformance.devices import unregistered_tensors
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import Clips
from lape_bench.evaluation.plan import load_system
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.systems.encoder_system import EncoderConfig, EncoderSystem
from lape_bench.learning.systems.plain_encoder import as_system
from lape_bench.learning.systems.pretrained_system import UpstreamSystem
from lape_bench.learning.training.checkpoints import save_tensors
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.record import ParameterCounts
from lape_bench.runtime.device import Compute
from lape_bench.system import RunContext, System, TrainingData, TrainingSummary
from tests.lape_bench.plugins.test_registry import ADAPTERS

CPU = Compute(device="cpu", precision="float32")
PADDING = "a short clip's embedding does not depend on its padding"
Bench = Callable[..., tuple[int, str, str]]
Check = Callable[..., Iterator[ClaimResult]]


@pytest.fixture
def results(synthetic: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check a class that no package registers."""

    def check(kind: type[System], compute: Compute = CPU, **settings: Any) -> Iterator[ClaimResult]:
        monkeypatch.setattr("lape_bench.conformance.check.load_system", lambda name: kind)
        return check_system("stand-in", settings, compute, progress)

    return check


def before_training(results: Iterator[ClaimResult]) -> list[ClaimResult]:
    """Return the results for the class and its encoder."""
    return list(takewhile(lambda result: result.group in ("system", "encoder"), results))


def failing(results: Iterator[ClaimResult] | list[ClaimResult]) -> list[ClaimResult]:
    return [result for result in results if not result.holds]


def failures(name: str, settings: dict[str, Any], progress: Progress) -> list[str]:
    return [
        f"{result.claim}: {result.detail}"
        for result in check_system(name, settings, CPU, progress)
        if not result.holds
    ]


# --- systems that keep the contract --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SYSTEMS.names() if name not in ADAPTERS])
def test_every_registered_system_keeps_the_contract(
    name: str,
    brief_check: dict[str, Any],
    synthetic: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upstream: dict[str, Any] = {"width": 16, "pretrain": {"window_seconds": 0.25}}
    unfused = {
        "teacher_settings": upstream,
        "student_width": 16,
        "distill": {"window_seconds": 0.25},
    }
    brief = brief_check | upstream | unfused
    kind = load_system(name)
    if issubclass(kind, UpstreamSystem) and name != "simclr":
        # They share all code behind the encoder, and pre-train for each protocol again.
        monkeypatch.setattr(kind, "protocols", ("finetune", "linear"))
    fields = kind.Settings.model_fields
    settings = {key: value for key, value in brief.items() if key in fields}
    assert failures(name, settings, progress) == []


def test_the_readme_encoder_keeps_the_contract_and_its_figures_are_reported(
    synthetic: Path, progress: Progress, tmp_path: Path
) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    code = readme.partition("# my_encoder.py\n")[2].partition("```")[0]
    (tmp_path / "my_encoder.py").write_text(code)
    claims = list(check_system(f"{tmp_path}/my_encoder.py:MyEncoder", {}, CPU, progress))
    assert failing(claims) == []
    protocols = ["finetune", "linear", "mlp", "knn"]
    notes = [result.group for result in claims if result.status == "note"]
    assert notes == ["encoder", *protocols]
    details = {(result.group, result.claim): result.detail for result in claims}
    assert details["system", "states its sample rate in Hz"] == "16,000 Hz"
    assert details["encoder", "fine-tuning reaches its parameters"] == "2 of 2 tensors"
    assert "padding changes embeddings" in details["encoder", PADDING]
    assert "one-second windows per second on cpu" in details["finetune", "speed"]
    counted = details["linear", "parameters and operations are counted"]
    assert counted.startswith(f"encoder {401 * 64:,}, with classifier {401 * 64 + 65 * 8:,}, ")


def test_the_check_prints_every_claim_within_80_columns_and_exits_with_1_if_one_fails(
    synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    source = """
        import torch
        from torch import nn

        class Good:
            embedding_size = 3

            def __call__(self, waveforms):
                moves = waveforms.diff(dim=1)
                return torch.stack([waveforms.std(1), waveforms.abs().amax(1), moves.std(1)], 1)

        class Bad(Good):
            def __call__(self, waveforms):
                embeddings = super().__call__(waveforms)
                return embeddings - embeddings.mean(dim=0)
    """
    (tmp_path / "mine.py").write_text(textwrap.dedent(source))
    how = ("--device", "cpu", "--precision", "float32", "--quiet")
    code, output, _ = bench("systems", "check", f"{tmp_path}/mine.py:Good", *how)
    lines = output.splitlines()
    assert (code, [line for line in lines[:-1] if line[0] != " "]) == (
        0,
        ["system", "encoder", "linear", "mlp", "knn"],
    )
    assert max(len(line) for line in lines[:-1]) <= 80
    if not torch.cuda.is_available():
        assert "  skipped  loaded on another device, it gives nearly the same scores" in lines
        assert lines[-1].endswith("mine.py:Good keeps the contract; claims not tried here: 6")
    code, output, _ = bench("systems", "check", f"{tmp_path}/mine.py:Bad", *how)
    lines = output.splitlines()
    at = lines.index("  FAILS    a window's embedding does not depend on its neighbors")
    assert code == 1
    assert lines[at + 1].startswith(" " * 11 + "alone, a window's embedding differs by")
    assert "of the contract's claims do not hold" in output


class Filters(nn.Module):
    """An encoder of a user, who knows nothing of the harness."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding_size = width
        self.filters = nn.Conv1d(1, width, 400, stride=160)

    def bands(self, waveforms: Tensor) -> Tensor:
        """Return logarithms of each filter's output, (batch, width, frames)."""
        return self.filters(waveforms.unsqueeze(1)).abs().add(1e-5).log()

    def forward(self, waveforms: Tensor) -> Tensor:
        bands = self.bands(waveforms).mean(dim=2)
        return 3 * (bands - bands.mean(dim=1, keepdim=True))


# --- the class ----------------------------------------------------------------------------------------------


class InKilohertz(EncoderSystem):
    sample_rate = 16

    def build_encoder(self) -> Encoder:
        raise AssertionError("no encoder is built if the sample rate is wrong")


class Fractional(EncoderSystem):
    sample_rate = 16e3

    def build_encoder(self) -> Encoder:
        raise AssertionError("no encoder is built if the sample rate is wrong")


class Undecided(EncoderSystem):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sample_rate = 8_000

    def build_encoder(self) -> Encoder:
        raise AssertionError("no encoder is built if the sample rate is wrong")


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (InKilohertz, "is it in Hz"),
        (Fractional, "make it an int"),
        (Undecided, "sample_rate is 8,000 in the system and 16,000 in its class"),
    ],
)
def test_no_other_claim_is_checked_if_the_sample_rate_is_wrong(
    kind: type[System], cause: str, results: Check
) -> None:
    claims = list(results(kind))
    assert {result.group for result in claims} == {"system"}
    (failure,) = failing(claims)
    assert failure.claim == "states its sample rate in Hz"
    assert cause in failure.detail


def test_a_setting_without_a_description_gives_a_note_and_no_failure(results: Check) -> None:
    class Settings(EncoderConfig):
        width: int = 8
        depth: int = Field(2, description="blocks")

    kind = as_system(Filters)
    kind.Settings = Settings
    kind.build_encoder = lambda system: kind.wrapper({})
    claims = before_training(results(kind))
    notes = [result.detail for result in claims if result.status == "note"]
    assert [note for note in notes if note.startswith("settings without a description: width;")]
    assert failing(claims) == []


# --- the encoder --------------------------------------------------------------------------------------------


class Sound(Encoder):
    """An encoder that keeps the contract. Most subclasses below break one claim."""

    embedding_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 8, 400, stride=160)
        self.prepare()

    def prepare(self) -> None:
        """Build further parts."""

    def features(self, waveforms: Tensor) -> Tensor:
        return waveforms

    def bands(self, waveforms: Tensor) -> Tensor:
        return self.filters(waveforms.unsqueeze(1)).abs().add(1e-5).log()

    def forward(self, features: Tensor) -> Tensor:
        return self.bands(features).mean(dim=2)


def of_encoder(kind: type[Encoder]) -> type[EncoderSystem]:
    """Return a system with this encoder."""
    return type(kind.__name__, (EncoderSystem,), {"build_encoder": lambda system: kind()})


class Squeezed(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).squeeze()


class Unpooled(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return self.bands(features)


class Rounded(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).long()


class Twice(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).double()


class StandardizedOverTheBatch(Sound):
    def forward(self, features: Tensor) -> Tensor:
        embeddings = super().forward(features)
        return (embeddings - embeddings.mean(dim=0)) / embeddings.std(dim=0, correction=0)


class BatchNormThatTrains(Sound):
    def prepare(self) -> None:
        self.norm = nn.BatchNorm1d(8)

    def forward(self, features: Tensor) -> Tensor:
        self.norm.train()
        return self.norm(super().forward(features))


class InPlace(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.mul_(0.5))


class NothingOfNoFrames(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return self.bands(features)[:, :, 10:].mean(dim=2)


class WithoutABest(Sound):
    """Has a buffer that is NaN until it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("best", torch.tensor(float("nan")))


class SizedLater(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.LazyLinear(self.embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        return self.wide(super().forward(features))


class Unset(Sound):
    def prepare(self) -> None:
        nn.init.constant_(self.filters.weight, float("nan"))


class StayedBehind(Sound):
    """Raises the error of torch that a check on a GPU would see."""

    def prepare(self) -> None:
        self.scale = torch.ones(8)

    def forward(self, features: Tensor) -> Tensor:
        raise RuntimeError("Expected all tensors to be on the same device")


class AtAnotherRate(Sound):
    def prepare(self) -> None:
        self.sample_rate = 8_000


class OfOneLength(Sound):
    def prepare(self) -> None:
        self.all_frames = nn.Linear(8 * 98, 8)

    def forward(self, features: Tensor) -> Tensor:
        return self.all_frames(self.bands(features).flatten(1))


class Cropped(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return self.bands(features)[:, :, :98].mean(dim=2).repeat(features.shape[1] // 16_000, 1)


class DropoutLeftOn(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return F.dropout(super().forward(features))


class RandomInOneBuffer(Sound):
    def prepare(self) -> None:
        self.buffer = torch.empty(0)  # for all calls, as runtimes for inference have one

    def forward(self, features: Tensor) -> Tensor:
        embeddings = F.dropout(super().forward(features))
        if torch.is_grad_enabled():
            return embeddings
        if len(self.buffer) < len(embeddings):
            self.buffer = torch.empty_like(embeddings)
        return self.buffer[: len(embeddings)].copy_(embeddings)


class DropoutOutOfSight(Sound):
    def prepare(self) -> None:
        self.layers = [nn.Dropout()]

    def forward(self, features: Tensor) -> Tensor:
        return self.layers[0](super().forward(features))


class AlwaysCounting(Sound):
    def prepare(self) -> None:
        self.register_buffer("heard", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        self.heard += 1
        return super().forward(features)


class CenteredOverTheBatch(Sound):
    def forward(self, features: Tensor) -> Tensor:
        embeddings = super().forward(features)
        return embeddings - embeddings.mean(dim=0)


class BatchNormLeftOn(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return F.batch_norm(self.bands(features), None, None, training=True).amax(dim=2)


class PlainTensor(Sound):
    def prepare(self) -> None:
        self.scales = {"bands": torch.full((8,), 2.0)}

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * self.scales["bands"]


class PlainList(Sound):
    def prepare(self) -> None:
        self.layers = [nn.Linear(8, 8)]

    def forward(self, features: Tensor) -> Tensor:
        return self.layers[0](super().forward(features))


class MadeOnTheCPU(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + torch.arange(8)


class AnsweredOnTheCPU(Sound):
    def forward(self, features: Tensor) -> Tensor:
        answer = torch.zeros(len(features), 8)
        answer[:] = super().forward(features)
        return answer


class Frozen(Sound):
    def prepare(self) -> None:
        self.requires_grad_(False)


class CutOff(Sound):
    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(features)


class RootOfSilence(Sound):
    def forward(self, features: Tensor) -> Tensor:
        filtered = F.conv1d(features.unsqueeze(1), self.filters.weight, stride=160)
        return filtered.square().mean(dim=2).sqrt()


EMBEDS = "turns windows into embeddings, (batch, embedding_size)"
RATE = "has the sample rate of the system's audio"
LENGTHS = "takes windows of 1 to 12 s"
SHORT = "takes windows of 0.1 s, which your own tasks may have"
STEADY = "in evaluation, repeats its embeddings and does not change"
ALONE = "a window's embedding does not depend on its neighbors"
MOVES = "moves to another device with all its tensors"
TRAINED = "fine-tuning reaches its parameters"
FINITE = "its gradients are finite, also for a silent window"


@pytest.mark.parametrize(
    ("kind", "claim", "cause"),
    [
        (
            Squeezed,
            EMBEDS,
            "into a tensor of shape (8,); a tensor of shape (1, 8), (batch, embedding_size); leave out squeeze()",
        ),
        (
            Unpooled,
            EMBEDS,
            "4 windows into a tensor of shape (4, 8, 98); a tensor of shape (4, 8), (batch, embedding_size); pool",
        ),
        (Rounded, EMBEDS, "embeddings are torch.int64, and heads are float32; return .float()"),
        (Twice, EMBEDS, "embeddings are torch.float64, and heads are float32; return .float()"),
        (Unset, EMBEDS, "are weights or statistics unset?"),
        (SizedLater, EMBEDS, "wide.weight, wide.bias have no shape before the first batch"),
        (StandardizedOverTheBatch, EMBEDS, "one window alone is not finite; is batch norm"),
        (BatchNormThatTrains, EMBEDS, "one window alone raised ValueError: Expected more than 1"),
        (InPlace, STEADY, "it changes the waveforms that it is given; is there an x.mul_()"),
        (NothingOfNoFrames, SHORT, "their embeddings are not finite; is there an average over no"),
        (StayedBehind, EMBEDS, "same device; plain attributes stay behind: scale"),
        (AtAnotherRate, RATE, "works at 8,000 Hz and is given audio at 16,000 Hz"),
        (OfOneLength, LENGTHS, "a window of 4.7 s raised RuntimeError: mat1 and mat2"),
        (Cropped, LENGTHS, "a window of 4.7 s gave a tensor of shape (4, 8), not (1, 8)"),
        (DropoutLeftOn, STEADY, "is dropout on in evaluation?"),
        (RandomInOneBuffer, STEADY, "is dropout on in evaluation?"),
        (DropoutOutOfSight, STEADY, "eval() finds no module in a list"),
        (AlwaysCounting, STEADY, "evaluation changes heard; are statistics updated"),
        (CenteredOverTheBatch, ALONE, "is something normalized over the batch?"),
        (BatchNormLeftOn, ALONE, "is batch norm still training"),
        (PlainTensor, MOVES, "plain attributes stay behind: scales['bands']; use register_buffer"),
        (PlainList, MOVES, "plain attributes stay behind: layers[0]; use"),
        (MadeOnTheCPU, MOVES, "is a tensor made without a device?"),
        (AnsweredOnTheCPU, MOVES, "the embeddings of waveforms on"),
        (Frozen, TRAINED, "all its parameters are frozen"),
        (CutOff, TRAINED, "is there a torch.no_grad(), .detach() or .numpy()"),
        (
            RootOfSilence,
            FINITE,
            "the gradient of filters.weight is not finite, and one such step ruins a training",
        ),
    ],
)
def test_an_encoder_that_breaks_one_claim_fails_that_claim_with_its_cause(
    kind: type[Encoder], claim: str, cause: str, results: Check
) -> None:
    (failure,) = failing(before_training(results(of_encoder(kind))))
    assert failure.claim == claim
    assert cause in failure.detail


@pytest.mark.parametrize(
    ("kind", "precision"), [(Sound, "float32"), (Sound, "bf16"), (WithoutABest, "float32")]
)
def test_an_encoder_that_keeps_the_contract_fails_no_claim(
    kind: type[Encoder], precision: str, results: Check
) -> None:
    compute = Compute(device="cpu", precision=precision)
    assert failing(before_training(results(of_encoder(kind), compute))) == []


class Masked(Sound):
    """Averages the frames in the clip, without those in the padding."""

    uses_lengths = True

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return waveforms

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        frames = self.bands(features)
        if lengths is None:
            return frames.mean(dim=2)
        last = torch.div(lengths - 400, 160, rounding_mode="floor")
        real = torch.arange(frames.shape[2], device=last.device) <= last[:, None]
        return (frames * real[:, None]).sum(dim=2) / real.sum(dim=1, keepdim=True)


class MaskedByNothing(Masked):
    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        return super().forward(features)


class NotFiniteInPadding(Masked):
    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        louder = features.abs().amax(dim=1, keepdim=True) / (features[:, -1:] != 0)
        return super().forward(features, lengths) + 0 * louder


class Whole(Sound):
    whole_clip = True


@pytest.mark.parametrize(
    ("kind", "status", "detail"),
    [
        (Masked, "ok", "it sets uses_lengths"),
        (MaskedByNothing, "FAILS", "of their largest number; does an average, attention,"),
        (
            NotFiniteInPadding,
            "FAILS",
            "it sets uses_lengths, but padding changes embeddings by nan",
        ),
        (Sound, "note", "padding changes embeddings by up to"),
        (Whole, "ok", "clips are embedded whole, so that none is padded"),
    ],
)
def test_padding_must_not_matter_with_uses_lengths_and_gives_a_note_without_it(
    kind: type[Encoder], status: str, detail: str, results: Check
) -> None:
    claims = before_training(results(of_encoder(kind)))
    (result,) = [result for result in claims if result.claim == PADDING]
    assert (result.status, detail in result.detail) == (status, True), result.detail
    assert [other.claim for other in failing(claims)] == [PADDING] * (status == "FAILS")


class NeedsASecond(Sound):
    def forward(self, features: Tensor) -> Tensor:
        if features.shape[1] < 16_000:
            raise ValueError("too short")
        return super().forward(features)


def test_an_error_on_short_windows_gives_a_note_with_its_place_and_no_failure(
    results: Check,
) -> None:
    claims = before_training(results(of_encoder(NeedsASecond)))
    assert failing(claims) == []
    (note,) = [result for result in claims if result.claim == SHORT]
    assert note.status == "note"
    assert note.detail.startswith("ValueError: too short, at test_check.py:")
    assert note.detail.endswith(" in forward; it cannot run on tasks with such clips")


class Leaves(Sound):
    def forward(self, features: Tensor) -> Tensor:
        sys.exit("no license")


def test_an_encoder_that_calls_sys_exit_fails_and_the_check_continues(results: Check) -> None:
    claims = [result for result in results(of_encoder(Leaves)) if result.group != "system"]
    assert claims[0].detail.startswith("it raised SystemExit: no license, at test_check.py:")
    assert {result.status for result in claims[1:]} == {"skipped"}


def test_training_is_skipped_if_the_encoder_gives_no_embeddings(results: Check) -> None:
    claims = [result for result in results(of_encoder(Unpooled)) if result.group != "system"]
    assert [(result.group, result.status) for result in claims] == [
        ("encoder", "FAILS"),
        ("finetune", "skipped"),
        ("linear", "skipped"),
        ("mlp", "skipped"),
        ("knn", "skipped"),
    ]


class Mixed(Sound):
    """Registers all its tensors, and holds some in plain attributes too."""

    def prepare(self) -> None:
        self.recurrent = nn.GRU(8, 8, batch_first=True)  # keeps its weights in a plain list too
        self.steps = [self.filters, self.recurrent]
        self.doubled = 2 * self.filters.weight  # computed, as by weight normalization
        self.register_buffer("scale", torch.ones(8))
        self.tokens: dict[str, object] = {"itself": self, "name": "mixed", "scale": self.scale}


def test_registered_tensors_are_not_reported_even_if_plain_attributes_hold_them_too() -> None:
    assert unregistered_tensors(Mixed()) == []
    assert unregistered_tensors(PlainTensor()) == ["scales['bands']"]


class ByItsLoudness(Sound):
    """Reads a number, which fake tensors do not have."""

    def prepare(self) -> None:
        self.scale = torch.ones(8)

    def forward(self, features: Tensor) -> Tensor:
        loudest = features.abs().amax(dim=1, keepdim=True).clamp(min=1)
        return super().forward(features) * (self.scale if loudest.max().item() else 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a second device is used instead")
def test_a_skipped_move_names_the_reason_and_suspicious_attributes(results: Check) -> None:
    claims = before_training(results(of_encoder(ByItsLoudness)))
    assert failing(claims) == []
    (skipped,) = [result for result in claims if result.status == "skipped"]
    assert skipped.claim == MOVES
    assert skipped.detail.startswith(
        "torch finds no second device here, and a fake GPU cannot run it (DataDep"
    )
    assert skipped.detail.endswith("; plain attributes may stay behind: scale")


class HalfFrozen(Sound):
    def prepare(self) -> None:
        self.filters.bias.requires_grad_(False)
        self.unused = nn.Linear(3, 3)


def test_parameters_that_fine_tuning_does_not_reach_are_named(results: Check) -> None:
    claims = before_training(results(of_encoder(HalfFrozen)))
    (detail,) = [result.detail for result in claims if result.claim == TRAINED]
    assert detail == "1 of 4 tensors; 1 frozen; without a gradient: unused.weight, unused.bias"


class WithoutParameters(Sound):
    def prepare(self) -> None:
        del self.filters

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([features.std(1)] * 8, dim=1)


def test_the_claim_of_fine_tuning_is_skipped_for_an_encoder_without_parameters(
    results: Check,
) -> None:
    claims = before_training(results(of_encoder(WithoutParameters)))
    assert failing(claims) == []
    (result,) = [result for result in claims if result.claim == TRAINED]
    assert (result.status, result.detail[:21]) == ("skipped", "it has no parameters,")


SECOND = torch.device("cpu", 0)  # the CPU by another name, as a second device


class OtherElsewhere(Sound):
    def to(self, device: torch.device) -> "OtherElsewhere":
        self.louder = 2 if device == SECOND else 1
        return super().to(device)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * self.louder


def test_the_encoder_is_moved_to_a_second_device_if_there_is_one(
    results: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.conformance.encoder.other_device", lambda device: SECOND)
    claims = before_training(results(of_encoder(Sound)))
    assert [result.detail for result in claims if result.claim == MOVES] == ["on cpu:0 as on cpu"]
    (failure,) = failing(before_training(results(of_encoder(OtherElsewhere))))
    assert failure.claim == MOVES
    assert "on cpu:0 embeddings differ by 50.0% of their largest number" in failure.detail


# --- the system under a protocol ----------------------------------------------------------------------------


class Compliant(as_system(Filters)):
    """A system that keeps the contract. Each subclass below breaks one claim."""

    protocols = ("linear",)


class Unnormalized(Compliant):
    def score(self, *arguments: Any) -> Tensor:
        return super().score(*arguments) + 1


class OneClassShort(Compliant):
    def score(self, *arguments: Any) -> Tensor:
        return super().score(*arguments)[:, :-1]


class InDoublePrecision(Compliant):
    def score(self, *arguments: Any) -> Tensor:
        return super().score(*arguments).double()


class RandomlyScoring(Compliant):
    def score(self, *arguments: Any) -> Tensor:
        return super().score(*arguments).mul(2 + torch.rand(1)).log_softmax(dim=1)


class BatchDependent(Compliant):
    def score(self, *arguments: Any) -> Tensor:
        rows = super().score(*arguments)
        return (rows - rows.mean(dim=0)).log_softmax(dim=1)


class Embedder(Filters):
    def bands(self, waveforms: Tensor) -> Tensor:
        return super().bands(self.levelled(waveforms))

    @abstractmethod
    def levelled(self, waveforms: Tensor) -> Tensor:
        """Change the level of waveforms, (batch, samples)."""


class Reseeding(Filters):
    """Leaves the global generator in the same state after every call."""

    def forward(self, waveforms: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().forward(waveforms)


class DividedByItsDeviation(Embedder):
    def levelled(self, waveforms: Tensor) -> Tensor:
        return waveforms / waveforms.std(dim=1, keepdim=True)


class DividedByAPower(Embedder):
    def levelled(self, waveforms: Tensor) -> Tensor:
        power = waveforms.pow(6).mean(dim=1, keepdim=True)
        silent = waveforms.abs().amax(dim=1, keepdim=True) == 0
        return waveforms / torch.where(silent, 1, power)


class Exponential(Embedder):
    def levelled(self, waveforms: Tensor) -> Tensor:
        return waveforms.mul(90).exp().log()


class LengthBound(Compliant):
    def score(self, clips: Any, context: Any) -> Tensor:
        scores = super().score(clips, context)
        scores[clips.lengths <= clips.rate // 10] = torch.nan
        return scores


class Unseeded(Compliant):
    def train(self, *arguments: Any) -> Any:
        summary = super().train(*arguments)
        self.head.bias.data[0] += int.from_bytes(os.urandom(4)) / 2**32
        return summary


class Careless(Compliant):
    def train(self, *arguments: Any) -> Any:
        torch.rand(1)
        return super().train(*arguments)


class SeedingOthers(Compliant):
    def train(self, *arguments: Any) -> Any:
        np.random.seed(0)
        random.seed(0)
        return super().train(*arguments)


class Forgetful(Compliant):
    def load(self, *arguments: Any) -> Any:
        super().load(*arguments)
        self.head.bias.data.zero_()
        return self


class AtHomeOnly(Compliant):
    def load(self, folder: Path, context: Any) -> Any:
        super().load(folder, context)
        if context.work_folder.name == "elsewhere":
            self.head.weight.data.zero_()
        return self


class Trusting(Compliant):
    def load(self, *arguments: Any) -> Any:
        try:
            return super().load(*arguments)
        except UserError:
            return self


class LessInTraining(Compliant):
    def count_parameters(self) -> ParameterCounts:
        counts = super().count_parameters()
        return counts.model_copy(update={"training": counts.encoder})


class Tied(Sound):
    def prepare(self) -> None:
        self.again = self.filters


class CountingSharedOnesTwice(of_encoder(Tied)):
    protocols = ("linear",)

    def count_parameters(self) -> ParameterCounts:
        named = self.encoder.named_parameters(remove_duplicate=False)
        count = sum(parameter.numel() for _, parameter in named)
        return ParameterCounts(encoder=count, inference=count + 72, training=count + 72)


class Deaf(Sound):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * 0


class LearningNothing(of_encoder(Deaf)):
    protocols = ("finetune",)


class Effortless(Compliant):
    def count_macs(self) -> int:
        return 0


class OutOfOrder(Compliant):
    def score(self, *arguments: Any) -> Tensor:
        return super().score(*arguments).roll(1, dims=1)


class Hoarding(Compliant):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hoard: list[Tensor] = []

    def score(self, *arguments: Any) -> Tensor:
        scores = super().score(*arguments)
        self.hoard.append(scores.clone())
        return scores


class ReadingIds(Compliant):
    def score(self, clips: Clips, context: RunContext) -> Tensor:
        scores = super().score(clips, context)
        scores[:, 0] += 1e-3 * torch.tensor([float(clip_id) for clip_id in clips.ids])
        return scores.log_softmax(dim=1)


def of_module(kind: type[nn.Module]) -> type[System]:
    system = as_system(kind)
    system.protocols = ("linear",)
    return system


TRAINS = "trains, and does not change global random state"
LOG_PROBABILITIES = "scores are log-probabilities, (clips, classes)"
EXTREMES = "silent, quiet, constant and loud clips are scored"
COUNTED = "parameters and operations are counted"


@pytest.mark.parametrize(
    ("kind", "claim", "cause"),
    [
        (Careless, TRAINS, "changed the global generator of torch;"),
        (of_module(Reseeding), TRAINS, "changed the global generator of torch;"),
        (SeedingOthers, TRAINS, "changed the global generator of NumPy and of Python;"),
        (OneClassShort, LOG_PROBABILITIES, "the shape is (32, 7), not (32, 8)"),
        (InDoublePrecision, LOG_PROBABILITIES, "scores are torch.float64 on cpu"),
        (Unnormalized, LOG_PROBABILITIES, "sum to e^1; end with log_softmax"),
        (RandomlyScoring, "scoring twice gives the same scores", "is dropout left on?"),
        (
            BatchDependent,
            "a clip's score does not depend on its neighbors",
            "is something normalized over the batch?",
        ),
        (ReadingIds, "a clip's score does not depend on its ID", "score the audio alone"),
        (
            LengthBound,
            "clips from 0.1 s to 3 windows are scored",
            "the score of the short clip is nan; is something divided by the number of windows",
        ),
        (
            of_module(DividedByItsDeviation),
            EXTREMES,
            "the score of the silent clip is nan; is there a logarithm of 0, or a division by a standard",
        ),
        (
            of_module(DividedByAPower),
            EXTREMES,
            "the score of the quiet clip is nan; is there a division by the square",
        ),
        (
            of_module(Exponential),
            EXTREMES,
            "the score of the loud clip is nan; does a power or an exp()",
        ),
        (Forgetful, "a saved and loaded system gives the same scores", "statistics saved too?"),
        (
            Trusting,
            "a checkpoint that does not fit is refused",
            "use lape_bench.learning.training.checkpoints",
        ),
        (LessInTraining, COUNTED, "must not decrease"),
        (CountingSharedOnesTwice, COUNTED, "returns 6,416 for the encoder, which has 3,208"),
        (Effortless, COUNTED, "count_macs() is not positive"),
        (OutOfOrder, "learns: better than chance on its own training clips", "in the same order?"),
        (Hoarding, "keeps no tensors of the clips that it scores", "does a list grow"),
    ],
)
def test_a_system_that_breaks_one_claim_fails_that_claim_with_its_cause(
    kind: type[System], claim: str, cause: str, results: Check
) -> None:
    (failure,) = failing(results(kind))
    assert (failure.group, failure.claim) == ("linear", claim)
    assert cause in failure.detail


def test_a_system_that_learns_nothing_is_trained_for_more_epochs_before_it_fails(
    results: Check,
) -> None:
    (failure,) = failing(results(LearningNothing, finetune={"epochs": 2}))
    assert failure.claim == "learns: better than chance on its own training clips"
    assert "in 16 epochs, and chance is 12.5%" in failure.detail
    assert failure.detail.endswith("or is finetune.learning_rates too low for it?")


def test_a_training_with_unseeded_draws_fails_the_claim_of_repeatability(results: Check) -> None:
    claims = {result.claim: result for result in failing(results(Unseeded))}
    repeated = claims.pop("the same seed gives the same scores")
    # A few steps on random embeddings may learn nothing.
    assert claims.keys() <= {"learns: better than chance on its own training clips"}
    assert repeated.detail == (
        "two trainings differ; does something draw from NumPy's or Python's generator? draw from torch, or in a System from "
        "context.seeds"
    )


def test_the_claim_of_resuming_is_skipped_if_the_training_cannot_be_stopped(results: Check) -> None:
    (skipped,) = (
        result for result in results(Compliant) if result.claim.startswith("a run stopped")
    )
    assert (skipped.status, skipped.detail) == (
        "skipped",
        "nothing called context.on_epoch, so the training could not be stopped",
    )


def test_scores_that_change_from_call_to_call_fail_one_claim_and_skip_the_others(
    results: Check,
) -> None:
    skipped = {
        result.claim: result.detail
        for result in results(RandomlyScoring)
        if result.status == "skipped"
    }
    reason = "own scores differ from call to call, so nothing can be compared"
    assert reason in skipped["the same seed gives the same scores"]
    assert reason in skipped["a saved and loaded system gives the same scores"]


class Foreign(System):
    """A system that is not an EncoderSystem but uses one inside."""

    Settings = Compliant.Settings
    protocols = ("linear",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.inside = Compliant(*arguments)

    def train(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        return self.inside.train(data, context)

    def score(self, clips: Clips, context: RunContext) -> Tensor:
        return self.inside.score(clips, context)

    def count_parameters(self) -> ParameterCounts:
        return self.inside.count_parameters()

    def count_macs(self) -> int:
        return self.inside.count_macs()

    def save(self, folder: Path) -> None:
        self.inside.save(folder)

    def load(self, folder: Path, context: RunContext) -> Self:
        self.inside.load(folder, context)
        return self


def test_the_encoder_claims_are_skipped_for_a_system_that_is_not_an_encoder_system(
    results: Check,
) -> None:
    claims = list(results(Foreign))
    assert failing(claims) == []
    (inside,) = [result for result in claims if result.group == "encoder"]
    assert (inside.status, inside.detail[:36]) == (
        "skipped",
        "the system is not an EncoderSystem, ",
    )


def test_a_saved_system_is_loaded_on_a_second_device_if_there_is_one(
    results: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = "loaded on another device, it gives nearly the same scores"
    monkeypatch.setattr("lape_bench.conformance.trained.other_device", lambda device: device)
    claims = {result.claim: result.detail for result in results(Compliant)}
    assert claims[claim] == "on cpu as on cpu"
    (failure,) = failing(results(AtHomeOnly))
    assert failure.claim == claim
    assert "does a tensor stay behind, or does something ask which device" in failure.detail


def test_a_resumed_run_that_lost_the_state_of_its_optimizer_fails(
    synthetic: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_system("supervised")
    monkeypatch.setattr(kind, "protocols", ("finetune",))
    monkeypatch.setattr("lape_bench.learning.training.loop._Checkpoint.save", _half_a_checkpoint)
    smoke_settings = {"width": 16, "finetune": {"epochs": 3, "min_steps": 1}}
    assert any(
        "the resumed run differs" in line
        for line in failures("supervised", smoke_settings, progress)
    )


def _half_a_checkpoint(checkpoint: Any, context: Any, last: bool) -> None:
    """Save a checkpoint that lacks the state of the optimizer."""
    content = {name: part.state_dict() for name, part in checkpoint.parts.items()}
    content["optimizer"]["state"] = {}
    progress = {"epoch": checkpoint.epoch, "step": checkpoint.step, "losses": checkpoint.losses}
    rest = {**progress, "curve": checkpoint.curve}
    save_tensors(checkpoint.path, content | rest)
