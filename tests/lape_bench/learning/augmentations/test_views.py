"""Views against a slow version of one clip, written off the description.

What a view drew is found again from its result, so that no test depends on the order of the draws.
"""

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.learning.augmentations.views import (
    LogMixupExp,
    RandomResizeCrop,
    Views,
    by_comparing,
    by_scattering,
    random_gains,
    resize_matrices,
)
from lape_bench.runtime.batch_random import BatchRandom

repeatable = settings(derandomize=True, deadline=None)


def draw(seed: int) -> BatchRandom:
    return BatchRandom(torch.Generator().manual_seed(seed))


def log_mels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=draw(100 + seed).generator)


# --- log-mixup-exp ----------------------------------------------------------------------------------------


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


@repeatable
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


@repeatable
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


# --- random resize crop -----------------------------------------------------------------------------------


def box_by_hand(x: Tensor, top: int, left: int, height: int, width: int, canvas: float) -> Tensor:
    """Cut a box from the canvas around log-mels (batch, n_mels, frames) and resize it back."""
    _, n_mels, frames = x.shape
    length = int(frames * canvas)
    ground = x.new_zeros(len(x), n_mels, length)
    begin = (length - frames) // 2
    ground[:, :, begin : begin + frames] = x
    crop = ground[:, None, top : top + height, left : left + width]
    return F.interpolate(crop, size=(n_mels, frames), mode="bicubic", align_corners=True)[:, 0]


Box = tuple[int, int, int, int]  # top, left, height, width


def boxes(n_mels: int, frames: int) -> Iterator[Box]:
    """Every box that the published scales allow."""
    length = int(frames * 1.5)
    for height in range(int(0.6 * n_mels), n_mels + 1):
        for width in range(int(0.6 * frames), length + 1):
            for top in range(n_mels - height + 1):
                for left in range(length - width + 1):
                    yield top, left, height, width


def find_boxes(views: Tensor, clips: Tensor) -> list[Box]:
    """Return which one box of its clip each view is."""
    found: list[list[Box]] = [[] for _ in views]
    for box in boxes(*clips.shape[1:]):
        same = (views - box_by_hand(clips, *box, 1.5)).abs().amax(dim=(1, 2)) < 1e-4
        for index in same.nonzero()[:, 0].tolist():
            found[index].append(box)
    assert [len(each) for each in found] == [1] * len(views)
    return [box for (box,) in found]


@pytest.mark.parametrize(("n_mels", "frames"), [(6, 8), (5, 7)])
def test_each_view_is_the_bicubic_resize_of_one_box_of_the_canvas(n_mels: int, frames: int) -> None:
    x = log_mels(1, n_mels, frames).expand(300, -1, -1)
    drawn = find_boxes(RandomResizeCrop()(x, draw(0)), x)
    tops, lefts, heights, widths = (set(each) for each in zip(*drawn, strict=True))
    length = int(frames * 1.5)
    shortest = {size: int(0.6 * size) for size in (n_mels, frames)}
    # Every height, every width but the canvas's own (scale 1.5, drawn with probability 0), and the edges.
    assert heights == set(range(shortest[n_mels], n_mels + 1))
    assert widths >= set(range(shortest[frames], int(frames * 1.5 - 1e-9)))
    assert tops == set(range(n_mels - shortest[n_mels] + 1))
    assert {0, length - shortest[frames]} <= lefts


def test_half_of_the_heights_are_the_whole_height() -> None:
    # The scale is uniform in [0.6, 1.5], and what is over 1 is cut to the canvas, which is 1 high.
    x = torch.arange(64.0)[None, :, None].expand(900, -1, 8)
    views = RandomResizeCrop(canvas=1.0, time_scale=(1.0, 1.0))(x, draw(0))
    whole = torch.isclose(views, x, atol=1e-3).flatten(1).all(dim=1)
    assert whole.double().mean() == pytest.approx(0.5 / 0.9, abs=0.06)


def test_a_box_as_large_as_clip_and_canvas_is_the_clip_itself() -> None:
    x = log_mels(4, 16, 20)
    identity = RandomResizeCrop(canvas=1.0, frequency_scale=(1.0, 1.0), time_scale=(1.0, 1.0))
    assert_close(identity(x, draw(0)), x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 64, 101), (3, 64, 13), (2, 1, 1)])
def test_a_crop_keeps_shape_and_type(shape: tuple[int, ...]) -> None:
    views = RandomResizeCrop()(log_mels(*shape), draw(0))
    assert (views.shape, views.dtype) == (shape, torch.float32)
    assert torch.isfinite(views).all()


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13])
def test_resize_matrices_agree_with_torch_for_every_range(size: int) -> None:
    beside = 2 * size  # zeros on both sides of the signal
    signal = F.pad(log_mels(size), (beside, beside))
    for length in range(1, 2 * size + 1):
        starts = torch.arange(-beside, size + beside - length + 1)
        crops = torch.stack([signal[s + beside : s + beside + length] for s in starts.tolist()])
        expected = F.interpolate(
            crops[:, None, :, None], size=(size, 1), mode="bicubic", align_corners=True
        )[:, 0, :, 0]
        matrices = resize_matrices(starts, torch.full_like(starts, length), size)
        assert matrices.shape == (len(starts), size, size)
        assert_close(matrices @ signal[beside : beside + size], expected, rtol=1e-4, atol=1e-5)


def test_resize_matrices_of_different_ranges_stand_side_by_side() -> None:
    starts, lengths = torch.tensor([0, -3, 4, 2]), torch.tensor([9, 12, 5, 1])
    together = resize_matrices(starts, lengths, 9)
    alone = [
        resize_matrices(*pair, 9) for pair in zip(starts.split(1), lengths.split(1), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


@repeatable
@given(size=st.integers(1, 12), data=st.data())
def test_a_range_inside_the_signal_keeps_a_constant_signal(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - start))
    matrix = resize_matrices(torch.tensor([start]), torch.tensor([length]), size)[0]
    assert_close(matrix.sum(dim=1), torch.ones(size))


# --- both, and what they share ----------------------------------------------------------------------------


def test_a_view_is_log_mixup_exp_and_then_a_crop_in_the_published_setting() -> None:
    views, crop = Views((8, 10), clips=9_000), RandomResizeCrop(1.5, (0.6, 1.5), (0.6, 1.5))
    mixup = LogMixupExp((8, 10), ratio=0.4, memory=2048)
    ours, theirs = draw(0), draw(0)
    for step in range(3):
        x = log_mels(4, 8, 10, seed=step)
        assert torch.equal(views(x, ours), crop(mixup(x, theirs), theirs))
        mixup.remember(x)
    assert views.mixup.bank.shape == mixup.bank.shape


def test_several_views_of_a_clip_at_once_are_each_drawn_for_itself() -> None:
    views, earlier, x = Views((6, 8), clips=30), log_mels(5, 6, 8), log_mels(7, 6, 8, seed=1)
    views(earlier, draw(0))
    mixtures: list[Tensor] = []
    views.mixup.register_forward_hook(lambda mixup, given, mixed: mixtures.append(mixed))
    together = views(x.repeat(3, 1, 1), draw(1))
    clips = [clip for _ in range(3) for clip in x]
    drawn, by_hand = [], []
    for clip, mixed in zip(clips, mixtures[0], strict=True):
        which, share = find_background(mixed, clip, earlier)
        drawn.append((which, share))
        by_hand.append(mixed_by_hand(clip, earlier[which], share).float())
    cut = find_boxes(together, torch.stack(by_hand))
    assert len({share for _, share in drawn}) == 21
    for clip in range(7):
        assert len({cut[clip], cut[7 + clip], cut[14 + clip]}) > 1


def test_the_first_views_of_all_have_no_background() -> None:
    views, x = Views((6, 8), clips=30), log_mels(4, 6, 8)
    find_boxes(views(x, draw(0)), x)


def test_the_memory_of_a_view_holds_no_more_clips_than_there_are() -> None:
    assert len(Views((8, 10), clips=30).mixup.bank) == 30


@pytest.mark.parametrize("name", ["mixup", "crop", "both"])
def test_the_same_generator_gives_the_same_view_and_another_gives_another(name: str) -> None:
    def view(seed: int) -> Tensor:
        views = Views((8, 10), clips=50)
        module = views if name == "both" else getattr(views, name)
        views.mixup.remember(log_mels(4, 8, 10))
        torch.rand(1)  # the global generator has no part in it
        return module(log_mels(4, 8, 10, seed=1), draw(seed))

    assert torch.equal(view(0), view(0))
    assert not torch.equal(view(0), view(1))


def test_a_view_does_not_change_the_clips_it_is_made_of() -> None:
    views = Views((8, 10), clips=50)
    for step in range(3):
        x = log_mels(4, 8, 10, seed=step)
        kept = x.clone()
        views(x, draw(step))
        assert torch.equal(x, kept)


def test_views_hold_no_parameters_and_pass_no_gradient() -> None:
    views = Views((8, 10), clips=50)
    views(log_mels(4, 8, 10), draw(0))
    x = log_mels(4, 8, 10, seed=1).requires_grad_()
    assert not views(x, draw(1)).requires_grad
    assert list(views.parameters()) == []


def test_random_gains_are_within_their_decibels_and_of_each_waveform_and_level() -> None:
    decibels = 20 * torch.log10(random_gains(2, torch.zeros(1000, 5), 15.0, draw(0)))
    assert decibels.shape == (2, 1000)
    assert len(decibels.unique()) > 1900
    # Uniform in [-15, 15]: mean 0, deviation 30 / sqrt(12).
    assert decibels.abs().max() <= 15.001
    assert abs(float(decibels.mean())) < 0.6
    assert float(decibels.std()) == pytest.approx(30 / 12**0.5, rel=0.05)


def test_no_gain_leaves_waveforms_and_generator_alone() -> None:
    random = draw(0)
    assert torch.equal(random_gains(2, torch.zeros(3, 5), 0.0, random), torch.ones(2, 3))
    assert torch.equal(random.generator.get_state(), draw(0).generator.get_state())


def test_what_a_gpu_compares_adds_up_to_the_bit_to_what_a_cpu_scatters(
    generator: torch.Generator,
) -> None:
    column = torch.randint(0, 9, (5, 8, 1), generator=generator)
    scattered, compared = (torch.zeros(5, 8, 9, dtype=torch.float64) for _ in range(2))
    for _ in range(4):
        weight = torch.randn(5, 8, 1, generator=generator, dtype=torch.float64)
        by_scattering(scattered, column, weight)
        by_comparing(compared, column, weight)
    assert scattered.count_nonzero() == 5 * 8
    assert torch.equal(scattered, compared)
