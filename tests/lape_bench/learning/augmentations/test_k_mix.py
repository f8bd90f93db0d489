"""k-mix against a slow version of one clip, written off the description, and its clusters against a loop.

What was drawn is found again from the result, so that no test depends on the order of the draws.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.learning.augmentations.k_mix import (
    FarthestCluster,
    mean_spectrum,
    spherical_k_means,
)
from lape_bench.learning.augmentations.views import Views
from tests.lape_bench.learning.augmentations.test_views import (
    draw,
    find_background,
    find_boxes,
    log_mels,
    mixed_by_hand,
)

N_MELS, FRAMES = 6, 8


def spectrum_by_hand(log_mel: Tensor) -> NDArray[np.float64]:
    mean = log_mel.double().numpy().mean(axis=1)
    return mean / np.sqrt((mean**2).sum())


def candidates_by_hand(clip: Tensor, memory: Tensor, centroids: Tensor, most: int) -> set[int]:
    """Rows of the memory that may be mixed into one clip."""
    centers = centroids.double().numpy()

    def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(one - other))

    def cluster(log_mel: Tensor) -> int:
        return min(
            range(len(centers)), key=lambda k: distance(spectrum_by_hand(log_mel), centers[k])
        )

    held: dict[int, list[int]] = {}
    for row, log_mel in enumerate(memory):
        held.setdefault(cluster(log_mel), []).append(row)
    own = cluster(clip)
    farthest = max(held, key=lambda k: distance(centers[own], centers[k]))
    ours = spectrum_by_hand(clip)
    by_distance = sorted(
        held[farthest], key=lambda row: -distance(spectrum_by_hand(memory[row]), ours)
    )
    return set(by_distance[:most])


def k_means_by_hand(
    rows: NDArray[np.float64], starts: NDArray[np.float64], iterations: int
) -> NDArray[np.float64]:
    centroids = starts.copy()
    for _ in range(iterations):
        owners = [int(np.argmax([row @ center for center in centroids])) for row in rows]
        for k in range(len(centroids)):
            members = [row for row, owner in zip(rows, owners, strict=True) if owner == k]
            if members:
                total = np.sum(members, axis=0)
                centroids[k] = total / np.linalg.norm(total)
    return centroids


def unit_rows(count: int, seed: int, features: int = 5) -> Tensor:
    return F.normalize(
        torch.randn(count, features, generator=draw(seed).generator, dtype=torch.float64), dim=1
    )


# --- clusters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 3, 20])
@pytest.mark.parametrize("clusters", [1, 4, 7])
def test_spherical_k_means_agrees_with_a_loop_over_rows(clusters: int, iterations: int) -> None:
    rows = unit_rows(40, 0)
    found = spherical_k_means(rows, rows[:clusters], iterations)
    expected = k_means_by_hand(rows.numpy(), rows[:clusters].numpy(), iterations)
    assert_close(found, torch.from_numpy(expected))


def test_it_finds_the_directions_that_rows_were_scattered_around() -> None:
    directions = torch.eye(3, dtype=torch.float64)
    rows = F.normalize(directions.repeat_interleave(30, dim=0) + 0.1 * unit_rows(90, 1, 3), dim=1)
    found = spherical_k_means(rows, rows[[5, 45, 75]])
    assert (found * directions).sum(dim=1).min() > 0.99


def test_an_iteration_never_lowers_how_near_the_rows_are_to_their_centroids() -> None:
    rows = unit_rows(60, 2)
    near = [
        float((rows @ spherical_k_means(rows, rows[:6], steps).T).amax(dim=1).sum())
        for steps in range(8)
    ]
    assert near == sorted(near)
    assert near[0] < near[-1]


def test_turning_all_rows_turns_the_centroids_and_their_order_does_not_matter() -> None:
    rows, starts = unit_rows(40, 3), unit_rows(4, 4)
    turn, _ = torch.linalg.qr(unit_rows(5, 5))
    found = spherical_k_means(rows, starts)
    assert_close(spherical_k_means(rows @ turn, starts @ turn), found @ turn)
    assert_close(spherical_k_means(rows.flip(0), starts), found)


def test_a_centroid_without_rows_or_with_rows_that_cancel_stays_where_it_is() -> None:
    along, across = torch.eye(2, dtype=torch.float64)
    rows = torch.stack([along, along])
    starts = torch.stack([along, -along])
    assert torch.equal(spherical_k_means(rows, starts), starts)
    # Both rows lie at right angles to the first centroid, and all but on the other side of the second.
    assert torch.equal(
        spherical_k_means(torch.stack([across, -across]), along[None], 1), along[None]
    )


def test_a_clip_is_known_by_its_mean_over_time_whatever_the_order_of_frames_and_its_length() -> (
    None
):
    x = log_mels(5, N_MELS, FRAMES)
    expected = torch.from_numpy(np.stack([spectrum_by_hand(clip) for clip in x]))
    assert_close(mean_spectrum(x).double(), expected, rtol=1e-5, atol=1e-6)
    assert_close(mean_spectrum(3 * x.flip(2)), mean_spectrum(x))
    assert torch.equal(mean_spectrum(torch.zeros(2, N_MELS, FRAMES)), torch.zeros(2, N_MELS))


# --- the background ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clusters", "candidates"), [(4, 128), (4, 3), (1, 5), (9, 128)])
def test_each_background_is_one_of_the_least_similar_clips_of_the_farthest_cluster(
    clusters: int, candidates: int
) -> None:
    choose = FarthestCluster(N_MELS, clusters, candidates)
    memory, x = log_mels(40, N_MELS, FRAMES), log_mels(8, N_MELS, FRAMES, seed=1)
    choose(x, memory, draw(0))
    choose.clips_until_fit = 10_000  # the clusters stay
    drawn = [choose(x, memory, draw(seed)).tolist() for seed in range(90)]
    for clip, found in zip(x, zip(*drawn, strict=True), strict=True):
        allowed = candidates_by_hand(clip, memory, choose.centroids, candidates)
        # With three candidates each has a third of 90 draws, and not one is left out.
        assert set(found) <= allowed
        if len(allowed) <= 5:
            assert set(found) == allowed
            assert min(Counter(found).values()) > 0.4 * 90 / len(allowed)


def test_a_background_sounds_less_like_the_clip_than_one_drawn_at_random() -> None:
    memory, x = log_mels(400, N_MELS, FRAMES), log_mels(200, N_MELS, FRAMES, seed=1)
    likeness = mean_spectrum(x) @ mean_spectrum(memory).T
    means = [likeness.mean()]
    for candidates in (128, 10):
        found = FarthestCluster(N_MELS, candidates=candidates)(x, memory, draw(0))
        means.append(likeness.gather(1, found[:, None]).mean())
    assert means[0] - 0.05 > means[1]
    assert means[1] - 0.2 > means[2]


def test_a_batch_chooses_as_its_clips_would_alone() -> None:
    choose = FarthestCluster(N_MELS, candidates=1)  # nothing is left to chance
    memory, x = log_mels(40, N_MELS, FRAMES), log_mels(12, N_MELS, FRAMES, seed=1)
    together = choose(x, memory, draw(0))
    choose.clips_until_fit = 1000
    assert torch.equal(torch.cat([choose(clip[None], memory, draw(1)) for clip in x]), together)


def test_with_fewer_clips_than_clusters_any_of_them_is_drawn() -> None:
    choose = FarthestCluster(N_MELS, clusters=4)
    memory, x = log_mels(3, N_MELS, FRAMES), log_mels(60, N_MELS, FRAMES, seed=1)
    assert set(choose(x, memory, draw(0)).tolist()) == {0, 1, 2}
    assert not choose.centroids.any()


def test_clusters_without_a_remembered_clip_are_passed_over() -> None:
    choose = FarthestCluster(N_MELS, clusters=3)
    axes = torch.eye(N_MELS)
    choose.centroids.copy_(torch.stack([axes[0], axes[1], -axes[0]]))
    choose.clips_until_fit = 1000
    memory = axes[[0, 1, 1]][:, :, None].expand(-1, -1, FRAMES)
    # The farthest from the first is the last, which has nothing; of what is left it is the second.
    found = choose(memory[:1].expand(40, -1, -1), memory, draw(0))
    assert set(found.tolist()) == {1, 2}


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_clips_that_all_sound_alike_are_drawn_from_all_the_same(value: float) -> None:
    memory = torch.full((20, N_MELS, FRAMES), value)
    found = FarthestCluster(N_MELS)(memory.repeat(20, 1, 1), memory, draw(0))
    assert set(found.tolist()) == set(range(20))


def test_clusters_are_fitted_anew_when_as_many_clips_were_mixed_as_are_remembered() -> None:
    choose, seen = FarthestCluster(N_MELS), []
    for step in range(9):
        memory = log_mels(20, N_MELS, FRAMES, seed=step)
        choose(log_mels(5, N_MELS, FRAMES), memory, draw(step))
        seen.append(choose.centroids.clone())
    changed = [step for step in range(1, 9) if not torch.equal(seen[step], seen[step - 1])]
    assert changed == [4, 8]


def test_centroids_are_fitted_to_what_is_remembered() -> None:
    choose, memory = FarthestCluster(N_MELS), log_mels(30, N_MELS, FRAMES)
    choose(log_mels(5, N_MELS, FRAMES, seed=1), memory, draw(0))
    rows = mean_spectrum(memory)
    assert_close(spherical_k_means(rows, choose.centroids, 1), choose.centroids)  # no more to move
    assert_close(choose.centroids.norm(dim=1), torch.ones(4))


def test_saved_clusters_go_on_as_those_they_were_saved_from() -> None:
    first, second = (Views((N_MELS, FRAMES), 20, FarthestCluster(N_MELS)) for _ in range(2))
    for step in range(5):
        first(log_mels(7, N_MELS, FRAMES, seed=step), draw(step))
    second.load_state_dict(first.state_dict())
    for step in range(5, 12):
        x = log_mels(7, N_MELS, FRAMES, seed=step)
        assert torch.equal(first(x, draw(step)), second(x, draw(step)))
    assert_close(dict(first.state_dict()), dict(second.state_dict()), rtol=0, atol=0)


def test_the_same_generator_chooses_the_same_and_another_others() -> None:
    memory, x = log_mels(40, N_MELS, FRAMES), log_mels(30, N_MELS, FRAMES, seed=1)

    def found(seed: int) -> list[int]:
        torch.rand(1)  # the global generator has no part in it
        return FarthestCluster(N_MELS)(x, memory, draw(seed)).tolist()

    assert found(0) == found(0)
    assert found(0) != found(1)


# --- the whole view ---------------------------------------------------------------------------------------


def test_a_view_is_the_crop_of_a_mixture_with_a_clip_of_the_farthest_cluster() -> None:
    choose = FarthestCluster(N_MELS, candidates=3)
    views = Views((N_MELS, FRAMES), clips=30, choose=choose)
    earlier, x = log_mels(25, N_MELS, FRAMES), log_mels(20, N_MELS, FRAMES, seed=1)
    views(earlier, draw(0))
    mixtures: list[Tensor] = []
    views.mixup.register_forward_hook(lambda mixup, given, mixed: mixtures.append(mixed))
    found = views(x, draw(1))
    by_hand = []
    for clip, mixed in zip(x, mixtures[0], strict=True):
        which, share = find_background(mixed, clip, earlier)
        assert which in candidates_by_hand(clip, earlier, choose.centroids, 3)
        assert share <= 0.4 + 1e-4
        by_hand.append(mixed_by_hand(clip, earlier[which], share).float())
    find_boxes(found, torch.stack(by_hand))
