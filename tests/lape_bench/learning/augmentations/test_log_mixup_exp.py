"""log-mixup-exp against its formula, one clip at a time.

What was drawn is found again from the result, so that no test depends on the order of the draws.
"""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from lape_bench.learning.augmentations.log_mixup_exp import LogMixupExp
from lape_bench.runtime.batch_random import BatchRandom


def draw(seed: int) -> BatchRandom:
    return BatchRandom(torch.Generator().manual_seed(seed))


def log_mels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=draw(100 + seed).generator)


def mixed_by_hand(x: Tensor, z: Tensor, a: float) -> Tensor:
    x, z = x.double(), z.double()
    return torch.log((1 - a) * torch.exp(x) + a * torch.exp(z))


def find_background(mixed: Tensor, x: Tensor, memory: Tensor) -> tuple[int, float]:
    """Return which remembered clip was mixed into `x`, and its share."""
    found = []
    for which, z in enumerate(memory):
        # The share solves the equation at the point where x and z differ most, and must hold at all others.
        place = int((z - x).abs().argmax())
        e_mixed, e_x, e_z = (t.flatten()[place].double().exp() for t in (mixed, x, z))
        a = float((e_mixed - e_x) / (e_z - e_x))
        if 0 <= a <= 1 and torch.allclose(
            mixed.double(), mixed_by_hand(x, z, a), rtol=1e-4, atol=1e-4
        ):
            found.append((which, a))
    assert len(found) == 1
    return found[0]


def test_each_clip_is_mixed_with_one_remembered_clip_by_a_share_up_to_the_ratio() -> None:
    mixup = LogMixupExp((3, 4), ratio=0.4, memory=8)
    memory, x = log_mels(5, 3, 4), log_mels(400, 3, 4, seed=1)
    mixup.remember(memory)
    drawn = [find_background(*pair, memory) for pair in zip(mixup(x, draw(1)), x, strict=True)]
    shares = torch.tensor([a for _, a in drawn])
    assert {which for which, _ in drawn} == set(range(5))
    # Uniform in [0, 0.4]: mean 0.2, and a tenth of the draws in each tenth of the range.
    assert 0 <= shares.min() < 0.02
    assert 0.38 < shares.max() <= 0.4 + 1e-4
    assert torch.histc(shares, 10, 0, 0.4).min() > 20
    assert torch.histc(shares, 10, 0, 0.4).max() < 65


def test_the_background_is_the_one_that_is_chosen_among_those_remembered() -> None:
    given = []

    def last(clips: Tensor, memory: Tensor, generator: torch.Generator) -> Tensor:
        given.append((clips, memory))
        return torch.full((len(clips),), len(memory) - 1)

    mixup = LogMixupExp((3, 4), memory=8, choose=last)
    memory, x = log_mels(5, 3, 4), log_mels(20, 3, 4, seed=1)
    mixup.remember(memory)
    mixed = mixup(x, draw(1))
    assert {find_background(*pair, memory)[0] for pair in zip(mixed, x, strict=True)} == {4}
    assert_close(given, [(x, memory)], rtol=0, atol=0)


def test_while_nothing_is_remembered_clips_are_returned_as_they_are() -> None:
    mixup, x = LogMixupExp((3, 4), memory=16), log_mels(6, 3, 4)
    for _ in range(2):
        assert torch.equal(mixup(x, draw(0)), x)


def test_mixing_remembers_nothing() -> None:
    mixup = LogMixupExp((3, 4), memory=16)
    mixup.remember(log_mels(5, 3, 4))
    before = copy.deepcopy(mixup.state_dict())
    mixup(log_mels(6, 3, 4, seed=1), draw(0))
    assert_close(dict(mixup.state_dict()), before, rtol=0, atol=0)


def test_places_of_the_memory_that_were_never_filled_are_no_background() -> None:
    mixup = LogMixupExp((3, 4), ratio=0.9, memory=64)
    x = torch.full((40, 3, 4), 5.0)
    mixup.remember(x[:2])
    # A mixture of equal clips is that clip; one with an empty place, which holds 0, would be lower.
    assert_close(mixup(x, draw(1)), x)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    memory=st.integers(1, 9),
)
def test_the_memory_holds_the_last_clips_unmixed(sizes: list[int], memory: int) -> None:
    mixup = LogMixupExp((2, 3), memory=memory)
    seen = torch.arange(1, sum(sizes) + 1).float()[:, None, None].expand(-1, 2, 3)
    for batch in seen.split(sizes):
        mixup.remember(batch)
    held = sorted(mixup.bank[: min(len(seen), memory)].flatten(1).tolist())
    assert held == seen[-memory:].flatten(1).tolist()


@given(
    pixels=st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=4, max_size=4),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_mixture_lies_between_clip_and_background_wherever_they_are(
    pixels: list[tuple[float, float]], ratio: float, seed: int
) -> None:
    x, z = torch.tensor(pixels).T.reshape(2, 1, 2, 2)
    mixup = LogMixupExp((2, 2), ratio=ratio, memory=1)
    mixup.remember(z)
    mixed = mixup(x, draw(seed))
    rounding = 1e-4
    assert (mixed >= torch.minimum(x, z) - rounding).all()
    assert (mixed <= torch.maximum(x, z) + rounding).all()


def test_a_share_of_zero_leaves_the_clip_as_it_is() -> None:
    mixup = LogMixupExp((3, 4), ratio=0.0, memory=16)
    x = log_mels(6, 3, 4)
    mixup.remember(log_mels(6, 3, 4, seed=1))
    assert torch.equal(mixup(x, draw(1)), x)


def test_a_saved_memory_goes_on_as_the_one_it_was_saved_from() -> None:
    first, second = (LogMixupExp((3, 4), memory=7) for _ in range(2))
    for step in range(3):
        first.remember(log_mels(4, 3, 4, seed=step))
    assert {"bank", "_extra_state"} <= set(first.state_dict())
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        x = log_mels(4, 3, 4, seed=step)
        assert torch.equal(first(x, draw(step)), second(x, draw(step)))
        first.remember(x)
        second.remember(x)
