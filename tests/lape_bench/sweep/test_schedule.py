"""An artifact that several cells need is computed by one of them, before the others start."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import resolve
from lape_bench.records.record import Cell
from lape_bench.sweep.schedule import Schedule, find_producers, producers_first

CORPUS = {"corpus": ["synthetic-sounds"]}


def test_one_cell_computes_a_shared_artifact_and_the_others_wait_until_it_ends() -> None:
    schedule = Schedule([["a"], ["a"], ["b"], ["a", "b"], [], []])
    assert [schedule.begin() for _ in range(3)] == [0, 2, 4]
    schedule.end(0, computed=True)
    assert [schedule.begin() for _ in range(2)] == [1, 5]  # 3 needs b too
    schedule.end(2, computed=True)
    assert schedule.begin() == 3
    assert len(schedule) == 0


def test_several_cells_start_at_once_when_their_artifact_is_computed() -> None:
    schedule = Schedule([["a"], ["a"], ["a"], [], []])
    schedule.end(schedule.begin(), computed=True)
    assert [schedule.begin() for _ in range(2)] == [1, 2]


def test_producers_for_the_most_cells_start_first() -> None:
    schedule = Schedule([["few"], ["few"], ["own"], ["many"], ["many"], ["many"]])
    assert [schedule.begin() for _ in range(3)] == [3, 0, 2]


def test_if_the_producer_fails_the_next_cell_computes_the_artifact() -> None:
    schedule = Schedule([["a"], ["a"], ["a"], []])
    schedule.end(schedule.begin(), computed=False)
    assert [schedule.begin() for _ in range(2)] == [1, 3]
    schedule.end(1, computed=True)
    assert schedule.begin() == 2


def test_a_lost_cell_is_the_next_to_start() -> None:
    schedule = Schedule([["a"], ["a"], []])
    assert schedule.begin() == 0
    schedule.put_back(0)
    assert [schedule.begin() for _ in range(2)] == [0, 2]


def test_if_no_free_cell_is_left_one_starts_and_waits_and_computes_the_artifact_if_the_producer_fails() -> (
    None
):
    schedule = Schedule([["a"], ["a"], ["a"], []])
    assert [schedule.begin() for _ in range(2)] == [0, 3]
    assert schedule.begin() == 1
    schedule.end(0, computed=False)
    assert schedule.begin() == 2  # 1 is computing it, and no free cell is left
    schedule = Schedule([["a"], ["a"], ["a"], [], []])
    assert [schedule.begin(), schedule.begin(), schedule.begin(), schedule.begin()] == [0, 3, 4, 1]
    schedule.end(0, computed=True)
    assert schedule.begin() == 2


def test_begin_free_starts_no_cell_whose_artifact_is_being_computed() -> None:
    schedule = Schedule([["a"], ["a"], ["b", "a"], []])
    assert [schedule.begin_free() for _ in range(3)] == [0, 3, None]
    schedule.end(3, computed=True)
    assert schedule.begin_free() is None
    schedule.end(0, computed=True)
    assert [schedule.begin_free() for _ in range(3)] == [1, 2, None]
    assert len(schedule) == 0


def test_the_producer_is_the_first_cell_that_needs_an_artifact() -> None:
    producers = find_producers([["own"], ["a"], ["a", "b"], ["b"], []])
    assert producers == [{}, {"a": 1}, {"a": 1, "b": 2}, {"b": 2}, {}]
    assert producers_first(find_producers([["b"], ["b"], ["a"], ["a"], ["a"]])) == [2, 0, 1, 3, 4]


NEEDS = st.lists(st.sets(st.sampled_from("abcd"), max_size=3).map(sorted), max_size=12)


@given(needs=NEEDS, picks=st.lists(st.integers(0, 100), min_size=100), processes=st.integers(1, 4))
def test_every_cell_runs_once_and_no_artifact_is_computed_twice_while_another_cell_could_run(
    needs: list[list[str]], picks: list[int], processes: int
) -> None:
    schedule, running, starts, computed = Schedule(needs), list[int](), Counter[int](), set[str]()

    def computing(cells: Iterable[int]) -> Counter[str]:
        return Counter(name for cell in cells for name in needs[cell] if name not in computed)

    for pick in picks:
        while len(running) < processes and schedule:
            left = [cell for cell in range(len(needs)) if cell not in starts]
            cell = schedule.begin()
            starts[cell] += 1
            if computing(running).keys() & computing([cell]).keys():
                assert all(computing(running).keys() & computing([other]).keys() for other in left)
            running.append(cell)
        if not running:
            break
        cell, failed = running.pop(pick % len(running)), pick % 5 == 0
        schedule.end(cell, computed=not failed)
        computed |= set() if failed else set(needs[cell])
    assert starts == dict.fromkeys(range(len(needs)), 1)


def shares(system: str, settings: dict[str, Any] | None = None, **fields: Any) -> set[str]:
    cell = Cell(
        system=system,
        settings=settings or {},
        task="synthetic-sounds",
        **{"protocol": "finetune", **fields},
    )
    return set(resolve(cell, Progress(quiet=True)).planned.shared_artifacts)


@pytest.fixture
def unfused(synthetic: object) -> Callable[..., set[str]]:
    return lambda **fields: shares("unfused", {"teacher_settings": CORPUS}, **fields)


def test_cells_of_all_seeds_fractions_and_protocols_share_an_upstream(synthetic: object) -> None:
    one = shares("moco", CORPUS)
    assert len(one) == 1
    assert one == shares("moco", CORPUS, seed=1) == shares("moco", CORPUS, labels="10%")
    assert one < shares("moco", CORPUS, protocol="linear")
    assert one == shares("moco", CORPUS | {"finetune": {"epochs": 3}})
    assert not one & shares("moco", CORPUS | {"temperature": 0.2})
    assert not one & shares("simclr", CORPUS)


def test_an_upstream_of_each_seed_or_of_other_audio_is_not_shared(synthetic: object) -> None:
    own = CORPUS | {"pretrain": {"seed": None}}
    assert not shares("moco", own) & shares("moco", own, seed=1)
    assert shares("moco") == shares("moco", seed=1)  # the task has a validation split
    assert shares("moco") == shares("moco", {"corpus": ["target"]})
    assert shares("moco", labels="10%") == shares("moco", labels="20%")


def test_unfused_shares_the_upstream_of_its_teacher(
    unfused: Callable[..., set[str]],
) -> None:
    teacher = shares("delores-m", CORPUS)
    assert teacher < unfused() == unfused(labels="10%")
    assert unfused() & unfused(seed=1) == teacher


def test_a_frozen_encoder_and_its_probes_share_embeddings(synthetic: object) -> None:
    frozen = shares("supervised", protocol="linear")
    assert len(frozen) == 1
    assert not frozen & shares("supervised", protocol="linear", labels="10%")
    assert shares("supervised") == set()
