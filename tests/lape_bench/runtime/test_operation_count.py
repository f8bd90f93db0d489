"""Operations are counted as torch's own counter does, without importing torch's compiler."""

import importlib
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.runtime.operation_count import _Counter, count_operations

LEAN = """
import sys, torch
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.heads import layer_of_present_classes
from lape_bench.runtime.operation_count import _Counter, count_operations

head = layer_of_present_classes(torch.ones(2, 8), torch.ones(2), torch.tensor([0, 2]), 3)
encoder = AudioNTT(8).eval()
with torch.no_grad():
    assert count_operations(lambda: head(encoder(torch.zeros(1, 64, 32)))) > 0
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def by_torch(forward: Callable[[], object]) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()


def products(x: Tensor) -> Tensor:
    attended = F.scaled_dot_product_attention(x, x, x)
    return torch.einsum("bij,bjk->bik", attended, x.transpose(1, 2)) @ x


CALLS: dict[str, tuple[Callable[[Tensor], object], tuple[int, ...]]] = {
    "AudioNTT": (AudioNTT(16).eval(), (2, 64, 32)),
    "recurrent": (nn.GRU(8, 4, batch_first=True).eval(), (2, 5, 8)),
    "grouped convolution": (nn.Conv1d(8, 8, 3, groups=4), (2, 8, 9)),
    "attention and products": (products, (2, 5, 8)),
    "none": (torch.tanh, (3,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_count_is_that_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call, shape = CALLS[name]
    x = torch.zeros(shape)
    with torch.no_grad():
        expected = by_torch(lambda: call(x))
        monkeypatch.delitem(sys.modules, "torch._dynamo")  # or torch's counter would count
        with sdpa_kernel(SDPBackend.MATH), _Counter() as counter:
            call(x)
        assert counter.operations == count_operations(lambda: call(x)) == expected
    assert (expected == 0) == (name == "none")


def test_a_product_by_hand() -> None:
    assert count_operations(lambda: torch.zeros(3, 4) @ torch.zeros(4, 5)) == 2 * 3 * 4 * 5


FEATURES, STEPS, HIDDEN = 8, 5, 16
ATTENTION = STEPS * FEATURES * 4 * FEATURES + 2 * STEPS * STEPS * FEATURES


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # one argument here
        attended: Tensor = super().forward(x, x, x, need_weights=False)[0]
        return attended


@pytest.mark.parametrize("compiler", [False, True], ids=["ours", "torch's"])
@pytest.mark.parametrize(
    ("module", "multiply_accumulates"),
    [
        (SelfAttention(FEATURES, 2, batch_first=True), ATTENTION),
        (
            nn.TransformerEncoderLayer(FEATURES, 2, HIDDEN, batch_first=True),
            ATTENTION + 2 * STEPS * FEATURES * HIDDEN,
        ),
        (nn.LSTM(FEATURES, HIDDEN, batch_first=True), STEPS * 4 * HIDDEN * (FEATURES + HIDDEN)),
        (nn.GRU(FEATURES, HIDDEN, batch_first=True), STEPS * 3 * HIDDEN * (FEATURES + HIDDEN)),
    ],
    ids=["attention", "transformer layer", "LSTM", "GRU"],
)
def test_layers_with_fused_kernels_are_counted_by_hand(
    module: nn.Module,
    multiply_accumulates: int,
    compiler: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if compiler:
        importlib.import_module("torch._dynamo")
    else:
        monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    module.eval()
    x = torch.zeros(1, STEPS, FEATURES)
    with torch.no_grad():
        assert count_operations(lambda: module(x)) == 2 * multiply_accumulates
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled == torch.backends.mkldnn.is_available()  # type: ignore[attr-defined]


def test_counting_and_heads_import_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAN], check=True, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == "[]"


def test_an_error_of_the_call_is_raised() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        count_operations(lambda: torch.zeros(3, 4) @ torch.zeros(5, 6))
