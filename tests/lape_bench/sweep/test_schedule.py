"""What several cells need is made by one of them, before the others begin."""

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


def test_one_makes_what_several_need_and_the_others_wait_for_its_end() -> None:
    schedule = Schedule([["a"], ["a"], ["b"], ["a", "b"], [], []])
    assert [schedule.begin() for _ in range(3)] == [0, 2, 4]
    schedule.end(0, computed=True)
    assert [schedule.begin() for _ in range(2)] == [1, 5]  # 3 needs b too
    schedule.end(2, computed=True)
    assert schedule.begin() == 3
    assert len(schedule) == 0


def test_what_is_made_serves_several_at_once() -> None:
    schedule = Schedule([["a"], ["a"], ["a"], [], []])
    schedule.end(schedule.begin(), computed=True)
    assert [schedule.begin() for _ in range(2)] == [1, 2]


def test_those_that_make_most_for_others_begin_first() -> None:
    schedule = Schedule([["few"], ["few"], ["own"], ["many"], ["many"], ["many"]])
    assert [schedule.begin() for _ in range(3)] == [3, 0, 2]


def test_where_one_fails_the_next_makes_it() -> None:
    schedule = Schedule([["a"], ["a"], ["a"], []])
    schedule.end(schedule.begin(), computed=False)
    assert [schedule.begin() for _ in range(2)] == [1, 3]
    schedule.end(1, computed=True)
    assert schedule.begin() == 2


def test_one_that_did_not_end_begins_again_before_others() -> None:
    schedule = Schedule([["a"], ["a"], []])
    assert schedule.begin() == 0
    schedule.put_back(0)
    assert [schedule.begin() for _ in range(2)] == [0, 2]


def test_where_nothing_else_is_left_one_begins_that_waits_inside_and_makes_it_if_the_first_fails() -> (
    None
):
    schedule = Schedule([["a"], ["a"], ["a"], []])
    assert [schedule.begin() for _ in range(2)] == [0, 3]
    assert schedule.begin() == 1
    schedule.end(0, computed=False)
    assert schedule.begin() == 2  # 1 is making it, and nothing else is left
    schedule = Schedule([["a"], ["a"], ["a"], [], []])
    assert [schedule.begin(), schedule.begin(), schedule.begin(), schedule.begin()] == [0, 3, 4, 1]
    schedule.end(0, computed=True)
    assert schedule.begin() == 2


def test_where_waiting_inside_helps_nobody_none_begins_that_needs_what_is_being_made() -> None:
    schedule = Schedule([["a"], ["a"], ["b", "a"], []])
    assert [schedule.begin_free() for _ in range(3)] == [0, 3, None]
    schedule.end(3, computed=True)
    assert schedule.begin_free() is None
    schedule.end(0, computed=True)
    assert [schedule.begin_free() for _ in range(3)] == [1, 2, None]
    assert len(schedule) == 0


def test_the_first_that_needs_a_thing_makes_it_for_the_others() -> None:
    producers = find_producers([["own"], ["a"], ["a", "b"], ["b"], []])
    assert producers == [{}, {"a": 1}, {"a": 1, "b": 2}, {"b": 2}, {}]
    assert producers_first(find_producers([["b"], ["b"], ["a"], ["a"], ["a"]])) == [2, 0, 1, 3, 4]


NEEDS = st.lists(st.sets(st.sampled_from("abcd"), max_size=3).map(sorted), max_size=12)


@given(needs=NEEDS, picks=st.lists(st.integers(0, 100), min_size=100), processes=st.integers(1, 4))
def test_every_cell_runs_once_and_nothing_is_made_twice_while_something_else_is_left(
    needs: list[list[str]], picks: list[int], processes: int
) -> None:
    schedule, running, ran, made = Schedule(needs), list[int](), Counter[int](), set[str]()

    def making(cells: Iterable[int]) -> Counter[str]:
        return Counter(name for cell in cells for name in needs[cell] if name not in made)

    for pick in picks:
        while len(running) < processes and schedule:
            left = [cell for cell in range(len(needs)) if cell not in ran]
            cell = schedule.begin()
            ran[cell] += 1
            if making(running).keys() & making([cell]).keys():
                assert all(making(running).keys() & making([other]).keys() for other in left)
            running.append(cell)
        if not running:
            break
        cell, failed = running.pop(pick % len(running)), pick % 5 == 0
        schedule.end(cell, computed=not failed)
        made |= set() if failed else set(needs[cell])
    assert ran == dict.fromkeys(range(len(needs)), 1)


def shares(system: str, settings: dict[str, Any] | None = None, **of: Any) -> set[str]:
    cell = Cell(
        system=system,
        settings=settings or {},
        task="synthetic-sounds",
        **{"protocol": "finetune", **of},
    )
    return set(resolve(cell, Progress(quiet=True)).planned.shared_artifacts)


@pytest.fixture
def unfused(synthetic: object) -> Callable[..., set[str]]:
    return lambda **of: shares("unfused", {"teacher_settings": CORPUS}, **of)


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


def test_a_system_and_the_students_of_its_upstream_share_it(
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
