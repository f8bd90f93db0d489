"""Embeddings are computed once, and anew whenever something that acts on them is another."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.cached_embeddings import cached_embeddings, state_checksum
from lape_bench.learning.training.inference import embed
from lape_bench.system import RunContext

RATE = 100


class Scaled(Encoder):
    """Mean and maximum of a window, times a weight, plus a buffer; counts how often it is used."""

    sample_rate = RATE
    embedding_size = 2

    def __init__(self, whole_clip: bool = False) -> None:
        super().__init__()
        self.whole_clip = whole_clip
        self.calls: list[None] = []
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.register_buffer("place", torch.tensor([0.5, 0.0]))

    @property
    def used(self) -> int:
        return len(self.calls)

    def features(self, waveforms: Tensor) -> Tensor:
        return torch.stack([waveforms.mean(dim=1), waveforms.amax(dim=1)], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        self.calls.append(None)
        embeddings: Tensor = features * self.weight + self.place
        return embeddings


class Stateful(Scaled):
    """The same tensors, in another precision, and a state that is no tensor."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.to(torch.bfloat16)

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "scale": torch.tensor(float(self.steps))}


class Remembering(Scaled):
    """Its state holds whatever it is given."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.state = state

    def get_extra_state(self) -> Any:
        return self.state


class Other(Scaled):
    """The same tensors under another name."""


def clips(seed: int = 0, lengths: tuple[int, ...] = (50, 120, 20)) -> Clips:
    random = np.random.default_rng(seed)
    waveforms = [random.normal(0, 1, length).astype(np.float32) for length in lengths]
    return Clips.pack([f"clip {index}" for index in range(len(lengths))], waveforms, RATE)


def cached(
    encoder: Encoder,
    context: RunContext,
    given: Clips | None = None,
    window_seconds: float = 0.5,
    **determined_by: Any,
) -> tuple[Tensor, Tensor]:
    return cached_embeddings(
        encoder, given or clips(), window_seconds, {"pooling": "none"} | determined_by, context
    )


@pytest.mark.parametrize("whole_clip", [False, True])
def test_they_are_those_of_the_encoder_both_when_computed_and_when_found(
    context: RunContext, whole_clip: bool
) -> None:
    encoder = Scaled(whole_clip)
    expected, expected_owner = embed(encoder, clips(), 0.5, context)
    for _ in range(2):
        embeddings, owner = cached(encoder, context)
        assert torch.equal(embeddings, expected)
        assert torch.equal(owner, expected_owner)
    assert [found.computed for found in context.artifacts] == [True, False]
    assert len({found.hash for found in context.artifacts}) == 1


def test_the_second_time_the_encoder_is_not_used(context: RunContext) -> None:
    cached(Scaled(), context)
    again = Scaled()
    cached(again, context)
    assert again.used == 0


def moved(name: str) -> Callable[[], Scaled]:
    def build() -> Scaled:
        encoder = Scaled()
        with torch.no_grad():
            encoder.state_dict()[name][1] += 1e-6
        return encoder

    return build


@pytest.mark.parametrize(
    "build", [moved("weight"), moved("place"), Other], ids=["parameter", "buffer", "class"]
)
def test_another_encoder_computes_anew(context: RunContext, build: Callable[[], Scaled]) -> None:
    cached(Scaled(), context)
    encoder = build()
    embeddings, _ = cached(encoder, context)
    assert encoder.used > 0
    assert_close(embeddings, embed(encoder, clips(), 0.5, context)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"given": clips(seed=1)},
        {"given": clips(lengths=(50, 120))},
        {"window_seconds": 0.25},
        {"pooling": "mean"},
    ],
    ids=["audio", "number", "window", "setting"],
)
def test_other_clips_windows_or_settings_compute_anew(
    context: RunContext, change: dict[str, Any]
) -> None:
    cached(Scaled(), context)
    cached(Scaled(), context, **change)
    assert [found.computed for found in context.artifacts] == [True, True]


def test_another_precision_computes_anew(context: RunContext) -> None:
    cached(Scaled(), context)
    cached(Scaled(), replace(context, precision="bf16"))
    assert [found.computed for found in context.artifacts] == [True, True]


def test_the_window_of_a_task_does_not_matter_to_an_encoder_of_whole_clips(
    context: RunContext,
) -> None:
    cached(Scaled(whole_clip=True), context, window_seconds=0.5)
    cached(Scaled(whole_clip=True), context, window_seconds=0.25)
    assert [found.computed for found in context.artifacts] == [True, False]


def test_finding_embeddings_puts_them_on_the_cpu_without_a_gradient(context: RunContext) -> None:
    for _ in range(2):
        embeddings, owner = cached(Scaled(), context)
        assert (embeddings.device.type, embeddings.requires_grad) == ("cpu", False)
        assert owner.tolist() == [0, 1, 1, 1, 2]


def scaling(factor: float) -> nn.Linear:
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, factor)
    nn.init.zeros_(module.bias)
    return module


class Slotted:
    """A plain object without a dictionary of its attributes."""

    __slots__ = ("factor",)

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor


class Hiding(Scaled):
    """A factor that no entry of its state shows."""

    def __init__(self, where: str, factor: float) -> None:
        super().__init__()
        tensor = torch.tensor([factor])
        if where == "buffer that is not saved":
            self.register_buffer("factor", tensor, persistent=False)
        elif where == "attribute":
            self.factor = tensor
        elif where == "number":
            self.factor = factor
        elif where == "list of numbers":
            self.bins = [1, int(factor)]
        elif where == "module in a list":
            self.layers = [scaling(factor)]
        elif where == "module in a plain object":
            self.plain = SimpleNamespace(layers=[scaling(factor)])
        elif where == "partial":
            self.call = partial(torch.mul, tensor)
        elif where == "method":
            self.call = scaling(factor).forward
        elif where == "function":
            self.call = lambda waveforms: waveforms * tensor
        elif where == "slot":
            self.plain = Slotted(tensor)
        else:
            self.plain = SimpleNamespace(layers=[tensor.numpy()])


@pytest.mark.parametrize(
    "where",
    [
        *("buffer that is not saved", "attribute", "plain object", "number", "list of numbers"),
        *("module in a list", "module in a plain object", "partial", "method", "function", "slot"),
    ],
)
def test_another_tensor_or_number_outside_of_the_state_computes_anew(
    context: RunContext, where: str
) -> None:
    for factor in (1.0, 2.0, 1.0):
        cached(Hiding(where, factor), context)
    assert [found.computed for found in context.artifacts] == [True, True, False]


def test_what_a_python_module_in_an_attribute_holds_does_not_matter(context: RunContext) -> None:
    for count in (1, 2):
        encoder, library = Scaled(), ModuleType("library")
        library.count = count  # type: ignore[attr-defined]  # such as how often it was called
        encoder.plain = SimpleNamespace(library=library)  # type: ignore[assignment]  # not a module of torch
        cached(encoder, context)
    assert [found.computed for found in context.artifacts] == [True, False]


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_the_digest_tells_modules_apart_by_names_types_and_bytes() -> None:
    same = linear()
    renamed = nn.ModuleDict({"linear": linear()})
    moved_one = linear()
    with torch.no_grad():
        moved_one.bias[0].add_(1e-6)
    retyped = linear().double()
    digests = [state_checksum(each) for each in (same, renamed, moved_one, retyped)]
    assert len(set(digests)) == 4
    assert state_checksum(linear()) == digests[0]


def test_the_digest_tells_shapes_apart_over_the_same_bytes() -> None:
    digests = set()
    for shape in ((2, 3), (3, 2), (6, 1)):
        module = nn.Linear(*shape[::-1], bias=False)
        nn.init.ones_(module.weight)
        digests.add(state_checksum(module))
    assert len(digests) == 3


def test_the_digest_does_not_depend_on_how_a_tensor_lies_in_memory() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3)
    before = state_checksum(plain)
    assert state_checksum(plain.to(memory_format=torch.channels_last)) == before


def test_a_digest_sees_every_kind_of_state() -> None:
    found = {state_checksum(each) for each in (Scaled(), Stateful(1), Stateful(2), Stateful(2))}
    assert len(found) == 3


def changed(place: int) -> Any:
    long = np.zeros(5_000, dtype=np.float32)
    long[place] = 1
    return long


@pytest.mark.parametrize(
    "state",
    [
        lambda place: [torch.from_numpy(changed(place))],
        lambda place: (1, {"a": changed(place)}),
        lambda place: {f"name {place}", "other"},
        lambda place: bytes([place]),
    ],
)
def test_a_digest_sees_every_entry_of_a_state(state: Callable[[int], Any]) -> None:
    found = [state_checksum(Remembering(state(place))) for place in (196, 7, 7)]
    assert found[0] != found[1] == found[2]
