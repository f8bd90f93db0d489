"""The published view: log-mixup-exp and then random resize crop."""

import pytest
import torch
from torch import Tensor

from lape_bench.learning.augmentations.log_mixup_exp import LogMixupExp
from lape_bench.learning.augmentations.random_resize_crop import RandomResizeCrop
from lape_bench.learning.augmentations.views import Views
from tests.lape_bench.learning.augmentations.test_log_mixup_exp import (
    draw,
    find_background,
    log_mels,
    mixed_by_hand,
)
from tests.lape_bench.learning.augmentations.test_random_resize_crop import find_boxes


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
