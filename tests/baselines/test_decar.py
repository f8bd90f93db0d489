"""DECAR: its loss by hand, from which clips it learns, when clusters are drawn anew, and that a kill changes nothing."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.baselines.decar import (
    Decar,
    DecarConfig,
    DecarObjective,
    balanced_order,
    cluster_cross_entropy,
)
from lape_bench.core.errors import UserError
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.training.loop import OptimizerConfig
from lape_bench.learning.training.pretrain import UnlabeledClips, pretrain
from lape_bench.system import Curve, RunContext
from tests.tiny_encoder import RATE, SHAPE, WINDOW_SECONDS, Tiny

few_examples = settings(max_examples=60)
KINDS, CLIPS, BATCH = 3, 24, 8  # three steps an epoch


class Stopped(Exception):
    """Stands for a kill."""


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the loss ---------------------------------------------------------------------------------------------


def by_hand(logits_a: Tensor, logits_b: Tensor, clusters: Tensor) -> float:
    """Eq. (1) of arXiv:1807.05520, one clip and view at a time."""
    terms = []
    for logits in (logits_a.tolist(), logits_b.tolist()):
        for row, cluster in zip(logits, clusters.tolist(), strict=True):
            terms.append(math.log(sum(math.exp(value) for value in row)) - row[cluster])
    return sum(terms) / len(terms)


def case(seed: int = 0, clips: int = 5, clusters: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    a, b = 3 * torch.randn(2, clips, clusters, generator=draw(seed), dtype=torch.float64)
    return a, b, torch.randint(clusters, (clips,), generator=draw(seed))


@few_examples
@given(seed=st.integers(0, 999), clips=st.integers(1, 6), clusters=st.integers(2, 6))
def test_the_loss_agrees_with_its_equation_and_does_not_care_which_view_or_clip_is_first(
    seed: int, clips: int, clusters: int
) -> None:
    a, b, truth = case(seed, clips, clusters)
    loss = cluster_cross_entropy(a, b, truth)
    assert loss.item() == pytest.approx(by_hand(a, b, truth))
    assert loss > 0
    assert_close(cluster_cross_entropy(b, a, truth), loss)
    order = torch.randperm(clips, generator=draw(seed))
    assert_close(cluster_cross_entropy(a[order], b[order], truth[order]), loss)


def test_clusters_may_be_numbered_otherwise_and_logits_moved() -> None:
    a, b, truth = case()
    loss, numbers = cluster_cross_entropy(a, b, truth), torch.tensor([2, 0, 3, 1])
    renumbered = [torch.empty_like(logits).index_copy_(1, numbers, logits) for logits in (a, b)]
    assert_close(cluster_cross_entropy(*renumbered, numbers[truth]), loss)
    moved = [logits + torch.arange(5.0)[:, None] for logits in (a, b)]
    assert_close(cluster_cross_entropy(*moved, truth), loss)


def test_who_tells_nothing_pays_the_logarithm_of_k_and_who_tells_all_pays_nothing() -> None:
    _, _, truth = case()
    nothing = torch.zeros(5, 4)
    everything = 50 * nn.functional.one_hot(truth, 4).float()
    assert cluster_cross_entropy(nothing, nothing, truth).item() == pytest.approx(math.log(4))
    assert cluster_cross_entropy(everything, everything, truth).item() == pytest.approx(0, abs=1e-6)
    half = cluster_cross_entropy(nothing, everything, truth)
    assert half.item() == pytest.approx(math.log(4) / 2)


# --- from which clips it learns ---------------------------------------------------------------------------


@few_examples
@given(clusters=st.lists(st.integers(0, 6), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_all_clusters_come_equally_often_and_so_do_the_clips_of_one(
    clusters: list[int], seed: int
) -> None:
    order = balanced_order(torch.tensor(clusters), draw(seed))
    assert (order.shape, order.dtype) == ((len(clusters),), torch.int64)
    taken = np.bincount(order, minlength=len(clusters))
    shares = []
    for cluster in set(clusters):
        of_clip = taken[np.array(clusters) == cluster]
        assert of_clip.max() - of_clip.min() <= 1
        shares.append(of_clip.sum())
    assert max(shares) - min(shares) <= 1


def test_a_large_cluster_gives_some_of_its_clips_and_a_small_one_all_of_them_often() -> None:
    clusters = torch.tensor([0] * 90 + [1] * 3 + [7] * 7)  # of which those between hold none
    order = balanced_order(clusters, draw())
    taken = np.bincount(order, minlength=100)
    assert sorted(np.bincount(clusters[order], minlength=8)) == [0, 0, 0, 0, 0, 33, 33, 34]
    assert set(taken[:90]) == {0, 1}
    assert set(taken[90:93]) <= {11, 12}
    assert set(taken[93:]) <= {4, 5}


def test_who_gets_one_more_and_where_a_clip_comes_is_random() -> None:
    clusters = torch.arange(41) % 2
    orders = [balanced_order(clusters, draw(seed)) for seed in range(40)]
    more = [int(torch.bincount(clusters[order]).argmax()) for order in orders]
    assert 8 < sum(more) < 32
    first = [int(clusters[order[0]]) for order in orders]
    assert 8 < sum(first) < 32
    assert len({tuple(order.tolist()) for order in orders}) == 40
    assert torch.equal(orders[3], balanced_order(clusters, draw(3)))


# --- on three kinds of tones ------------------------------------------------------------------------------


def kinds() -> Tensor:
    return torch.arange(CLIPS) % KINDS


def tones(count: int = CLIPS, noise: float = 0.02) -> Clips:
    """Tones of three heights in turn, in a little noise, each as long as the window."""
    random = np.random.default_rng(0)
    time = np.arange(96) / RATE
    waveforms = [
        np.sin(2 * np.pi * (6, 19, 38)[index % KINDS] * time) + random.normal(0, noise, 96)
        for index in range(count)
    ]
    return Clips.pack(
        [f"clip {index}" for index in range(count)], [w.astype(np.float32) for w in waveforms], RATE
    )


def configured(**changes: Any) -> DecarConfig:
    optimizer = OptimizerConfig(learning_rate=0.01, schedule="constant")
    upstream = {
        "optimizer": optimizer,
        "batch_size": BATCH,
        "epochs": 4,
        "min_steps": 1,
        "window_seconds": WINDOW_SECONDS,
    }
    given = {"clusters": KINDS, "components": 2, "redraw_steps": 1, "restarts": 4} | changes
    return DecarConfig.model_validate(given | {"pretrain": upstream | changes.get("pretrain", {})})


def build(config: DecarConfig, seed: int = 0, clips: int = CLIPS) -> DecarObjective:
    torch.manual_seed(seed)
    return DecarObjective(Tiny(), config, clips)


def learn(
    objective: DecarObjective, context: RunContext, config: DecarConfig, clips: Clips | None = None
) -> Curve:
    clips = clips or tones()
    return pretrain(objective, Views(SHAPE, len(clips)), clips, config.pretrain, context)


def begin(
    objective: DecarObjective, context: RunContext, config: DecarConfig, epoch: int = 1
) -> Tensor:
    plan = config.pretrain.epoch_plan(tones())
    seeds = context.seeds.within("epoch", epoch)
    order = objective.before_epoch(epoch, UnlabeledClips(objective.encoder, plan, context), seeds)
    assert order is not None
    return order


def test_an_epoch_begins_with_the_clusters_of_the_encoder_s_own_embeddings(
    context: RunContext,
) -> None:
    config = configured()
    objective = build(config)
    order = begin(objective, context, config)
    assert adjusted_rand_score(kinds(), objective.clusters) == 1
    assert torch.bincount(kinds()[order]).tolist() == [8, 8, 8]
    batch = torch.tensor([4, 0, 4])
    (targets,) = objective.targets(batch)
    assert torch.equal(targets, objective.clusters[batch])


def test_a_new_classifier_has_small_weights_and_the_optimizer_is_told_of_them(
    context: RunContext,
) -> None:
    config = configured(clusters=20)
    objective = build(config)
    assert list(objective.reinitialized_parameters()) == []
    begin(objective, context, config)
    weight, bias = objective.reinitialized_parameters()
    assert weight is objective.projector.weight
    assert weight.shape == (20, 8)
    assert weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert weight.mean().item() == pytest.approx(0, abs=0.003)
    assert not bias.any()


def test_both_views_teach_encoder_and_classifier(context: RunContext) -> None:
    config = configured()
    objective = build(config)
    begin(objective, context, config)
    objective.encoder.drop.p = 0.0
    views = torch.randn(2, BATCH, *SHAPE, generator=draw()).requires_grad_()
    targets = objective.targets(torch.arange(BATCH))
    logits = objective.train().forward_views(*views)
    loss = objective.loss(*logits, *targets)
    assert_close(loss, cluster_cross_entropy(*logits, *targets), rtol=0, atol=0)
    assert loss.item() == pytest.approx(math.log(KINDS), rel=0.05)  # a new classifier knows nothing
    loss.backward()
    assert (views.grad.flatten(2).abs().sum(dim=2) > 0).all()
    assert all(p.grad.abs().sum() > 0 for p in objective.projector.parameters())
    assert objective.encoder.linear.weight.grad.abs().sum() > 0


# --- when clusters are drawn anew -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redraw_steps", "drawn"),
    [
        (1, [1, 2, 3, 4, 5, 6, 7]),
        (3, [1, 2, 3, 4, 5, 6, 7]),  # an epoch has three steps
        (4, [1, 3, 5, 7]),
        (6, [1, 3, 5, 7]),
        (7, [1, 4, 7]),
        (1000, [1]),
    ],
)
def test_clusters_and_classifier_are_kept_for_so_many_steps_rounded_up_to_epochs(
    context: RunContext, redraw_steps: int, drawn: list[int]
) -> None:
    config = configured(redraw_steps=redraw_steps)
    objective, found = build(config), []
    for epoch in range(1, 8):
        before = objective.projector.weight.detach().clone()
        begin(objective, context, config, epoch)
        new = not torch.equal(objective.projector.weight, before)
        assert bool(list(objective.reinitialized_parameters())) == new
        found += [epoch] if new else []
    assert found == drawn


def test_clips_are_taken_anew_in_every_epoch(context: RunContext) -> None:
    config = configured(redraw_steps=1000)
    objective = build(config)
    orders = [begin(objective, context, config, epoch) for epoch in (1, 2, 3)]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[1], orders[2])


def test_the_curve_says_in_the_epochs_that_drew_clusters_what_the_last_ones_told_of_them(
    context: RunContext,
) -> None:
    config = configured(redraw_steps=6, pretrain={"epochs": 7})
    curve = learn(build(config), context, config)
    assert [row["epoch"] for row in curve if "nmi" in row] == [3, 5, 7]
    # Three kinds of tones are three clusters, however they are numbered.
    assert [row["nmi"] for row in curve if "nmi" in row] == pytest.approx([1.0] * 3)


def test_clusters_that_have_nothing_to_do_with_the_last_ones_have_an_nmi_near_nothing(
    context: RunContext,
) -> None:
    config = configured()
    objective = build(config)
    begin(objective, context, config)
    assert objective.epoch_metrics() == {}
    objective.clusters.copy_(torch.arange(CLIPS) // KINDS % 3)
    begin(objective, context, config, 2)
    assert objective.epoch_metrics()["nmi"] < 0.1


def test_it_learns_to_tell_its_clusters(context: RunContext) -> None:
    config = configured(redraw_steps=1000, pretrain={"epochs": 60, "gain_db": 0.0})
    losses = [row["loss"] for row in learn(build(config), context, config)]
    assert np.mean(losses[-5:]) < 0.7 * math.log(KINDS)


# --- seeds and kills --------------------------------------------------------------------------------------


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def apart(context: RunContext, name: str) -> RunContext:
    work = context.work_folder / name
    work.mkdir()
    return replace(context, work_folder=work, checkpoint_seconds=0.0)


@pytest.mark.parametrize("redraw_steps", [1, 6])
def test_the_same_seed_learns_the_same_bytes_and_another_others(
    context: RunContext, redraw_steps: int
) -> None:
    config = configured(clusters=6, redraw_steps=redraw_steps)
    one, two, other = (build(config) for _ in range(3))
    curve = learn(one, apart(context, "one"), config)
    torch.manual_seed(7)  # the global generator has no part in it
    assert learn(two, apart(context, "two"), config) == curve
    assert same(one, two)
    learn(other, replace(apart(context, "other"), seeds=Seeds(1, "test")), config)
    assert not same(one, other)


@pytest.mark.parametrize("redraw_steps", [1, 6, 1000])
@pytest.mark.parametrize("step", [2, 5, 8, 12])
def test_a_run_stopped_and_resumed_ends_with_the_same_bytes(
    context: RunContext, redraw_steps: int, step: int
) -> None:
    config = configured(clusters=6, redraw_steps=redraw_steps)
    straight, stopped, resumed = build(config), build(config), build(config)
    curve = learn(straight, apart(context, "straight"), config)
    plain, taken = stopped.loss, []

    def loss(*compared: Tensor) -> Tensor:
        taken.append(len(compared))
        if len(taken) == step:
            raise Stopped
        return plain(*compared)

    stopped.loss = loss
    aside = apart(context, "stopped")
    with pytest.raises(Stopped):
        learn(stopped, aside, config)
    assert learn(resumed, aside, config) == curve
    assert same(resumed, straight)


# --- corpora and encoders that cannot be clustered --------------------------------------------------------


def test_a_corpus_of_fewer_clips_than_clusters_is_refused(context: RunContext) -> None:
    config = configured(clusters=13)
    few = tones(12)
    with pytest.raises(
        UserError, match=r"clusters is 13, and the corpus holds 12 clips .*--set clusters=2\.$"
    ):
        learn(build(config, clips=12), context, config, few)


def test_as_many_clips_as_clusters_are_enough(context: RunContext) -> None:
    config = configured(clusters=12)
    learn(build(config, clips=12), context, config, tones(12))


def test_clusters_that_stay_empty_are_passed_over(context: RunContext) -> None:
    config = configured(clusters=10)
    objective = build(config)
    curve = learn(objective, context, config, tones(noise=0.0))  # three different clips
    assert adjusted_rand_score(kinds(), objective.clusters) == 1
    assert all(math.isfinite(row["loss"]) for row in curve)


@pytest.mark.parametrize("collapsed_by", ["the corpus", "the encoder"])
def test_one_cluster_of_all_clips_ends_the_run_with_advice(
    context: RunContext, collapsed_by: str
) -> None:
    config = configured()
    objective, clips = build(config), tones()
    if collapsed_by == "the corpus":
        silence = [np.zeros(96, np.float32)] * CLIPS
        clips = Clips.pack([str(clip) for clip in range(CLIPS)], silence, RATE)
    else:
        nn.init.zeros_(objective.encoder.linear.weight)
    with pytest.raises(
        UserError,
        match=r"all 24 clips of the corpus the same embedding.*pretrain\.optimizer\.learning_rate",
    ):
        learn(objective, context, config, clips)


def test_embeddings_that_are_no_longer_finite_end_the_run_with_advice(context: RunContext) -> None:
    config = configured()
    objective = build(config)
    with torch.no_grad():
        objective.encoder.linear.bias[0] = math.nan
    with pytest.raises(UserError, match=r"embeddings of the corpus are no longer finite.*rate"):
        learn(objective, context, config)


# --- the system -------------------------------------------------------------------------------------------


def test_its_classifier_is_as_wide_as_there_are_clusters_and_stands_on_the_embedding() -> None:
    config = DecarConfig.model_validate({"width": 16, "clusters": 7})
    objective = Decar.build_objective(AudioNTT(16), config, clips=100)
    assert isinstance(objective.projector, nn.Linear)
    assert (objective.projector.in_features, objective.projector.out_features) == (16, 7)
    assert objective.clusters.shape == (100,)
    sizes = [p.numel() for p in objective.parameters()]
    assert sum(sizes) == sum(p.numel() for p in AudioNTT(16).parameters()) + 7 * 17


def test_by_default_a_small_corpus_is_clustered_ten_times_and_a_large_one_every_epoch() -> None:
    config = DecarConfig()
    small, large = (
        config.pretrain.epoch_plan(
            Clips.pack([str(i) for i in range(n)], [np.ones(1, np.float32)] * n, RATE)
        )
        for n in (1_800, 20_000)
    )
    kept = math.ceil(config.redraw_steps / small.n_batches)
    assert math.ceil(small.total_epochs / kept) == 10
    assert config.redraw_steps < large.n_batches
