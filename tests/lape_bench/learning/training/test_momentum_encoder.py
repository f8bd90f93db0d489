"""The momentum teacher against its closed form, and the queue against a list that forgets."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.learning.losses.contrast import info_nce
from lape_bench.learning.training.momentum_encoder import (
    EMPTY,
    Queue,
    momentum_copy,
    momentum_update,
)

few_examples = settings(max_examples=60)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def move(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


# --- the teacher ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_after_some_steps_the_teacher_is_the_weighted_sum_of_what_the_student_was(
    decay: float,
) -> None:
    student = net()
    teacher = momentum_copy(student)
    history = [parameters(student)]
    for step in range(5):
        move(student, step)
        history.append(parameters(student))
        momentum_update(teacher, student, decay)
    # theta_k = m^n theta_0 + (1 - m) sum_t m^(n - t) theta_t
    shares = [decay**5] + [(1 - decay) * decay ** (5 - step) for step in range(1, 6)]
    for name, found in parameters(teacher).items():
        expected = sum(share * then[name] for share, then in zip(shares, history, strict=True))
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_decay_of_one_leaves_the_teacher_to_the_last_bit_and_zero_makes_it_the_student() -> None:
    student = net()
    teacher = momentum_copy(student)
    before = parameters(teacher)
    move(student, 0)
    momentum_update(teacher, student, 1.0)
    assert_close(parameters(teacher), before, rtol=0, atol=0)
    momentum_update(teacher, student, 0.0)
    assert_close(parameters(teacher), parameters(student), rtol=0, atol=0)


def test_following_leaves_the_student_as_it_is() -> None:
    student, teacher = net(), momentum_copy(net(1))
    before = parameters(student)
    momentum_update(teacher, student, 0.3)
    assert_close(parameters(student), before, rtol=0, atol=0)


def test_the_copy_starts_equal_and_shares_no_memory() -> None:
    student = net()
    teacher = momentum_copy(student)
    assert_close(dict(teacher.state_dict()), dict(student.state_dict()), rtol=0, atol=0)
    before = parameters(teacher)
    move(student, 0)
    assert_close(parameters(teacher), before, rtol=0, atol=0)


def test_no_gradient_reaches_the_teacher_and_following_is_no_part_of_a_gradient() -> None:
    student = net()
    teacher = momentum_copy(student)
    assert all(parameter.requires_grad for parameter in student.parameters())
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    momentum_update(teacher, student, 0.5)
    (student(x) - teacher(x)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    for parameter in teacher.parameters():
        assert parameter.grad is None
        assert parameter.is_leaf
        assert not parameter.requires_grad


def test_the_teachers_batch_norm_keeps_statistics_of_its_own() -> None:
    student = net()
    teacher = momentum_copy(student)
    student(5 + torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    momentum_update(teacher, student, 0.5)
    assert_close(teacher[1].running_mean, torch.zeros(4), rtol=0, atol=0)
    assert int(teacher[1].num_batches_tracked) == 0


def test_a_teacher_of_another_architecture_is_not_followed_in_part() -> None:
    with pytest.raises(ValueError, match="zip"):
        momentum_update(net()[:1], net(), 0.5)


# --- the queue --------------------------------------------------------------------------------------------


OTHER = torch.tensor([99])  # a clip that is in no queue


def keys(begin: int, count: int) -> Tensor:
    """Keys that tell how many came before them, the first being key 1."""
    return torch.arange(begin + 1, begin + count + 1).float()[:, None].expand(-1, 2)


@few_examples
@given(size=st.integers(1, 9), batches=st.lists(st.integers(0, 12), min_size=0, max_size=6))
def test_the_queue_holds_the_last_keys_as_a_list_that_forgets_would(
    size: int, batches: list[int]
) -> None:
    queue, by_hand = Queue(size, 2), deque[list[float]](maxlen=size)
    seen = 0
    for count in batches:
        queue.enqueue(keys(seen, count), torch.arange(count))
        by_hand.extend(keys(seen, count).tolist())
        seen += count
        assert sorted(queue.keys[queue.clips >= 0].tolist()) == sorted(by_hand)


def test_the_newest_key_comes_first_and_the_oldest_is_dropped() -> None:
    queue = Queue(5, 2)
    queue.enqueue(keys(0, 4), torch.arange(4))
    assert queue.clips.tolist() == [3, 2, 1, 0, EMPTY]
    assert queue.keys[:4, 0].tolist() == [4, 3, 2, 1]
    queue.enqueue(keys(4, 3), torch.arange(4, 7))
    assert queue.clips.tolist() == [6, 5, 4, 3, 2]
    assert queue.keys[:, 0].tolist() == [7, 6, 5, 4, 3]


def test_nothing_is_held_at_first() -> None:
    assert not Queue(5, 3).negatives_mask(torch.arange(4)).any()


@few_examples
@given(
    size=st.integers(1, 9),
    batches=st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=5),
    queries=st.lists(st.integers(0, 6), min_size=1, max_size=5),
)
def test_the_negatives_of_a_query_are_the_last_keys_of_other_clips(
    size: int, batches: list[list[int]], queries: list[int]
) -> None:
    queue, by_hand = Queue(size, 2), deque[tuple[float, int]](maxlen=size)
    seen = 0
    for clips in batches:
        queue.enqueue(keys(seen, len(clips)), torch.tensor(clips, dtype=torch.long))
        by_hand.extend(zip(keys(seen, len(clips))[:, 0].tolist(), clips, strict=True))
        seen += len(clips)
    mask = queue.negatives_mask(torch.tensor(queries))
    for row, query in zip(mask, queries, strict=True):
        expected = [key for key, clip in by_hand if clip != query]
        assert sorted(queue.keys[row, 0].tolist()) == expected


def test_a_loss_of_the_keys_can_be_backed_through_after_others_came() -> None:
    def gradient(late: bool) -> Tensor:
        queue = Queue(3, 2)
        queue.enqueue(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]), torch.arange(3))
        query = torch.tensor([[1.0, 0.5]], requires_grad=True)
        loss = info_nce(query, query.detach(), queue.keys, 0.2, queue.negatives_mask(OTHER))
        if late:
            queue.enqueue(keys(3, 3), torch.arange(3, 6))
        loss.backward()
        return query.grad

    assert torch.equal(gradient(late=True), gradient(late=False))


def test_the_queue_keeps_no_gradient_of_what_is_put_in() -> None:
    queue = Queue(3, 2)
    queue.enqueue(torch.ones(2, 2, requires_grad=True) * 3, torch.arange(2))
    assert not queue.keys[queue.clips >= 0].requires_grad
    assert list(queue.parameters()) == []


def test_keys_of_half_precision_are_held_in_float32() -> None:
    queue = Queue(3, 2)
    queue.enqueue(keys(0, 2).bfloat16(), torch.arange(2))
    assert queue.keys[queue.clips >= 0].dtype == torch.float32
    assert queue.keys[:2, 0].tolist() == [2, 1]


@pytest.mark.parametrize("before", [0, 2, 5, 8])
def test_a_saved_queue_goes_on_as_the_one_it_was_saved_from(before: int) -> None:
    first, second = Queue(5, 2), Queue(5, 2)
    first.enqueue(keys(0, before), torch.arange(before))
    second.load_state_dict(first.state_dict())
    for step in range(3):
        assert torch.equal(second.keys[second.clips >= 0], first.keys[first.clips >= 0])
        for queue in (first, second):
            queue.enqueue(keys(before + 2 * step, 2), torch.arange(2))
    assert torch.equal(second.keys[second.clips >= 0], first.keys[first.clips >= 0])
