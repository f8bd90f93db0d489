"""A stream is a function of the run's seed and of its own name, and of nothing else."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lape_bench.core.seeding import Seeds, derive_seed

names = st.lists(st.text("abc xyz-@.", min_size=1, max_size=5), max_size=3).map(tuple)
runs = st.tuples(st.integers(0, 5), names)


def from_numpy(seeds: Seeds, *name: str | int) -> list[float]:
    return seeds.numpy(*name).random(4).tolist()


def from_torch(seeds: Seeds, *name: str | int) -> list[float]:
    return torch.rand(4, generator=seeds.torch(*name)).tolist()


def from_global(seeds: Seeds, *name: str | int) -> list[float]:
    with seeds.globally(*name):
        return torch.rand(4).tolist()


Draw = Callable[..., list[float]]
every_kind = pytest.mark.parametrize("draw", [from_numpy, from_torch, from_global])


@every_kind
def test_a_stream_does_not_depend_on_what_was_drawn_before(draw: Draw) -> None:
    alone = draw(Seeds(3, "run"), "views", 7)
    seeds = Seeds(3, "run")
    draw(seeds, "order", 7)
    draw(seeds, "views", 6)
    torch.rand(5)
    np.random.default_rng().random(5)
    assert draw(seeds, "views", 7) == alone
    assert draw(seeds, "views", 7) == alone


@every_kind
@pytest.mark.parametrize(
    ("seeds", "name"),
    [
        (Seeds(1, "run"), ("views", 7)),
        (Seeds(0, "check"), ("views", 7)),
        (Seeds(0, "run", 2), ("views", 7)),
        (Seeds(0, "run"), ("views", 8)),
        (Seeds(0, "run"), ("order", 7)),
        (Seeds(0, "run"), ("views",)),
    ],
)
def test_another_seed_scope_or_name_gives_another_stream(
    draw: Draw, seeds: Seeds, name: tuple[str | int, ...]
) -> None:
    assert draw(seeds, *name) != draw(Seeds(0, "run"), "views", 7)


@every_kind
def test_the_generators_of_a_stage_are_those_of_its_name_in_front(draw: Draw) -> None:
    run = Seeds(3, "run")
    stage = run.within("pre-training", 2)
    assert draw(stage, "views", 7) == draw(run, "pre-training", 2, "views", 7)
    assert draw(stage, "views", 7) != draw(run, "views", 7)
    assert draw(stage, "views", 7) != draw(run.within("distillation", 2), "views", 7)
    assert draw(stage, "views", 7) != draw(Seeds(4, "run").within("pre-training", 2), "views", 7)
    assert (run.seed, run.scope) == (3, ("run",))


@given(one=runs, other=runs)
def test_seeds_are_equal_for_equal_names_alone(
    one: tuple[int, tuple[str, ...]], other: tuple[int, tuple[str, ...]]
) -> None:
    assert (derive_seed(one[0], *one[1]) == derive_seed(other[0], *other[1])) == (one == other)


@given(run=runs)
def test_a_seed_has_63_bits_which_numpy_and_torch_both_take(
    run: tuple[int, tuple[str, ...]],
) -> None:
    assert 0 <= derive_seed(run[0], *run[1]) < 2**63


def test_a_seed_is_the_start_of_a_sha256_on_every_machine_and_in_every_process() -> None:
    # printf '0/run/order/3' | sha256sum gives 978941c9fd1ede5a...; half of it leaves 63 bits
    assert derive_seed(0, "run", "order", 3) == 0x978941C9FD1EDE5A >> 1


def test_globally_leaves_the_global_state_as_it_found_it() -> None:
    torch.manual_seed(5)
    expected = torch.rand(6)
    torch.manual_seed(5)
    before = torch.rand(3)
    with Seeds(0).globally("initial weights"):
        nn.Dropout()(torch.ones(100))
        nn.Linear(20, 20)
    assert torch.equal(torch.cat([before, torch.rand(3)]), expected)


def test_globally_restores_the_state_after_an_error_too() -> None:
    @Seeds(0).globally("a")
    def fail() -> None:
        torch.rand(3)
        raise KeyError

    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_globally_decides_initial_weights_whatever_the_global_state() -> None:
    weights = []
    for state in (1, 2):
        torch.manual_seed(state)
        with Seeds(0).globally("initial weights"):
            weights.append(nn.Linear(4, 4).weight)
    assert torch.equal(*weights)


def test_globally_seeds_numpy_and_python_too_and_restores_them() -> None:
    drawn = []
    for state in (1, 2):
        np.random.seed(state)
        random.seed(state)
        expected = np.random.RandomState(state).rand(), random.Random(state).random()
        with Seeds(0).globally("initial weights"):
            drawn.append((np.random.rand(), random.random()))
        assert (np.random.rand(), random.random()) == expected
    assert drawn[0] == drawn[1]


def test_a_block_inside_another_leaves_its_stream_alone() -> None:
    seeds = Seeds(0)
    with seeds.globally("outer"):
        expected = torch.rand(4)
    with seeds.globally("outer"):
        start = torch.rand(2)
        with seeds.globally("inner"):
            torch.rand(9)
        assert torch.equal(torch.cat([start, torch.rand(2)]), expected)
