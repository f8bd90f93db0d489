"""An upstream is trained once for all that it depends on, found for all else, and not confused with another."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.core.config import apply_pairs, validate
from lape_bench.core.errors import UserError
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.losses.barlow_twins import barlow_twins
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream, AudioNTTUpstreamConfig
from lape_bench.learning.systems.momentum_contrast import MomentumContrastConfig
from lape_bench.learning.systems.pretrained_system import (
    PretrainedUpstream,
    UpstreamSystem,
    load_upstream,
)
from lape_bench.learning.training.inference import embed, fit_normalization
from lape_bench.learning.training.momentum_encoder import momentum_copy, momentum_update
from lape_bench.learning.training.pretrain import Objective, effective_rank, feature_spread
from lape_bench.system import RunContext, TargetTask

RATE = 16_000
TARGET = TargetTask(classes=("low", "high"), window_seconds=0.1, metric="accuracy")
SMALL = {
    "width": 8,
    "pretrain": {"epochs": 2, "min_steps": 1, "batch_size": 3, "window_seconds": 0.1},
}


class Stopped(Exception):
    """Stands for a kill."""


class Twins(Objective):
    """Barlow Twins on the embeddings, with a momentum teacher that counts as held."""

    losses: ClassVar[int] = 0
    stop_at: ClassVar[int | None] = None

    def __init__(self, encoder: AudioNTT) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(8, 4)
        self.teacher = momentum_copy(self.head)

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        return self.head(self.encoder(view_a)), self.teacher(self.encoder(view_b))

    def loss(self, *projected: Tensor) -> Tensor:
        type(self).losses += 1
        if self.losses == self.stop_at:
            raise Stopped
        return barlow_twins(*projected)

    def after_step(self) -> None:
        momentum_update(self.teacher, self.head, 0.9)


class Learned(AudioNTTUpstream):
    """A system of the test's own."""

    Settings = AudioNTTUpstreamConfig

    @classmethod
    def build_objective(cls, encoder: AudioNTT, settings: Any, clips: int) -> Objective:
        if settings.width == 8:
            return Twins(encoder)
        objective = Twins(encoder)
        objective.head = nn.Linear(settings.width, 4)
        objective.teacher = momentum_copy(objective.head)
        return objective


class Sibling(Learned):
    """Another system that learns the same."""


@pytest.fixture(autouse=True)
def _count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twins, "losses", 0)
    monkeypatch.setattr(Twins, "stop_at", None)


def clips(count: int = 5, seed: int = 0) -> Clips:
    random = np.random.default_rng(seed)
    waveforms = [
        random.normal(0, 0.1 * (index + 1), random.integers(1_700, 4_000)).astype(np.float32)
        for index in range(count)
    ]
    return Clips.pack([f"clip {index}" for index in range(count)], waveforms, RATE)


def configured(changes: dict[str, Any] | None = None) -> AudioNTTUpstreamConfig:
    changes = changes or {}
    merged = SMALL | changes | {"pretrain": SMALL["pretrain"] | changes.get("pretrain", {})}
    return AudioNTTUpstreamConfig.model_validate(merged)


def learn(
    context: RunContext,
    changes: dict[str, Any] | None = None,
    train: Clips | None = None,
    kind: type[UpstreamSystem] = Learned,
) -> PretrainedUpstream:
    return kind.load_or_pretrain(configured(changes), train or clips(), context)


def with_seed(context: RunContext, seed: int) -> RunContext:
    return replace(context, seeds=Seeds(seed, "test"))


def elsewhere(context: RunContext, name: str) -> RunContext:
    """A context with a cache of its own."""
    return replace(context, artifact_folder=context.work_folder / name, checkpoint_seconds=0.0)


def same(one: PretrainedUpstream, other: PretrainedUpstream) -> bool:
    pairs = zip(one.encoder.state_dict().values(), other.encoder.state_dict().values(), strict=True)
    return one.curve == other.curve and all(torch.equal(*pair) for pair in pairs)


# --- once -------------------------------------------------------------------------------------------------


def test_it_is_trained_once_and_then_found_with_the_same_bytes(context: RunContext) -> None:
    first = learn(context)
    assert first.artifact.computed
    assert Twins.losses == 4
    second = learn(context)
    assert not second.artifact.computed
    assert Twins.losses == 4
    assert same(first, second)
    assert second.n_parameters == first.n_parameters
    assert [found.hash for found in context.artifacts] == [first.artifact.hash] * 2


def test_its_encoder_is_not_the_one_it_started_from(context: RunContext) -> None:
    with Seeds(0, "upstream").globally("initial weights"):
        start = AudioNTT(8)
    learned = dict(learn(context).encoder.named_parameters())
    stayed = [name for name, value in start.named_parameters() if torch.equal(value, learned[name])]
    assert stayed == ["blocks.0.0.bias"]  # before a batch norm a bias does nothing


CHANGES: list[dict[str, Any]] = [
    {"width": 16},
    {"pretrain": {"epochs": 3}},
    {"pretrain": {"batch_size": 5}},
    {"pretrain": {"window_seconds": 0.12}},
    {"pretrain": {"optimizer": {"learning_rate": 0.01}}},
    {"pretrain": {"seed": 1}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_another_setting_of_the_upstream_is_another_upstream(
    context: RunContext, changes: dict[str, Any]
) -> None:
    first, second = learn(context), learn(context, changes)
    assert second.artifact.computed
    assert second.artifact.hash != first.artifact.hash
    if "width" not in changes:
        assert not same(first, second)


@pytest.mark.parametrize(
    "train", [clips(seed=1), clips(count=4)], ids=["other audio", "fewer clips"]
)
def test_another_corpus_is_another_upstream(context: RunContext, train: Clips) -> None:
    first, second = learn(context), learn(context, train=train)
    assert second.artifact.computed
    assert not same(first, second)


def test_another_system_or_version_is_another_upstream(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(context)
    assert learn(context, kind=Sibling).artifact.computed
    monkeypatch.setattr(Learned, "version", 2)
    assert learn(context).artifact.computed


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune": {"epochs": 3, "learning_rates": [0.5], "augment": False}},
        {"linear": {"C": [1.0]}},
    ],
    ids=str,
)
def test_what_comes_after_the_upstream_does_not_train_it_again(
    context: RunContext, changes: dict[str, Any]
) -> None:
    first, second = learn(context), learn(context, changes)
    assert not second.artifact.computed
    assert second.artifact.hash == first.artifact.hash


def test_how_a_corpus_is_named_does_not_matter_but_what_is_in_it_does(context: RunContext) -> None:
    audio = {("target",): clips(), ("twin",): clips(), ("other",): clips(seed=1)}
    context = replace(context, load_corpus=lambda entries, train, rate: audio[entries])
    first = learn(context)
    assert not learn(context, {"corpus": ["twin"]}).artifact.computed
    other = learn(context, {"corpus": ["other"]})
    assert other.artifact.computed
    assert not same(first, other)


# --- seeds ------------------------------------------------------------------------------------------------


def test_the_upstream_has_a_seed_of_its_own_whatever_the_runs(context: RunContext) -> None:
    learn(with_seed(context, 0))
    other = with_seed(context, 1)
    assert not learn(other).artifact.computed
    # Nor does it matter which task and fold the run's generators are named after.
    assert not learn(replace(context, seeds=Seeds(0, "another", "fold 3"))).artifact.computed


def test_what_is_learned_does_not_depend_on_which_run_was_the_first_to_need_it(
    context: RunContext,
) -> None:
    one, other = elsewhere(context, "one"), elsewhere(context, "other")
    first = learn(replace(one, seeds=Seeds(0, "a task", "fold 1")))
    second = learn(replace(other, seeds=Seeds(3, "another", "fold 2")))
    assert second.artifact.computed
    assert same(first, second)


def test_a_seed_of_null_follows_the_seed_of_the_run(context: RunContext) -> None:
    null = {"pretrain": {"seed": None}}
    by_run = [learn(with_seed(context, seed), null) for seed in (0, 1)]
    fixed = [learn(context, {"pretrain": {"seed": seed}}) for seed in (0, 1)]
    assert not same(by_run[0], by_run[1])
    for one, other in zip(by_run, fixed, strict=True):
        assert same(one, other)


def test_training_draws_from_named_generators_alone(context: RunContext) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = learn(elsewhere(context, "one"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert same(learn(elsewhere(context, "two")), one)


def test_finding_it_leaves_the_global_generator_alone(context: RunContext) -> None:
    learn(context)
    before = torch.get_rng_state()
    learn(context)
    assert torch.equal(torch.get_rng_state(), before)


# --- a kill -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    straight = learn(elsewhere(context, "straight"))
    aside = elsewhere(context, "killed")
    monkeypatch.setattr(Twins, "losses", 0)
    monkeypatch.setattr(Twins, "stop_at", step)
    with pytest.raises(Stopped):
        learn(aside)
    monkeypatch.setattr(Twins, "losses", 0)
    monkeypatch.setattr(Twins, "stop_at", None)
    found = learn(aside)
    assert found.artifact.computed
    assert Twins.losses == (4 if step < 3 else 2)  # of two epochs with two steps each
    assert same(found, straight)


# --- what it holds ----------------------------------------------------------------------------------------


def test_parameters_count_heads_and_teacher(context: RunContext) -> None:
    upstream = learn(context)
    encoder = sum(parameter.numel() for parameter in upstream.encoder.parameters())
    assert upstream.n_parameters == encoder + 2 * (8 * 4 + 4)


def test_the_curve_has_a_row_an_epoch(context: RunContext) -> None:
    curve = learn(context).curve
    assert [row["epoch"] for row in curve] == [1, 2]
    assert all(row.keys() == {"epoch", "loss", "spread", "rank"} for row in curve)


def test_the_encoder_is_the_one_that_the_last_row_of_the_curve_tells_of(
    context: RunContext,
) -> None:
    corpus, window = clips(), round(0.1 * RATE)
    middles = [
        clip[(len(clip) - window) // 2 :][:window] for clip in map(corpus.__getitem__, range(5))
    ]
    watched = Clips.pack(corpus.ids, middles, RATE)
    for _ in range(2):  # trained, and found
        upstream = learn(context)
        embeddings, _ = embed(upstream.encoder, watched, 0.1, context)
        assert feature_spread(embeddings) == pytest.approx(upstream.curve[-1]["spread"], rel=1e-3)
        assert effective_rank(embeddings) == pytest.approx(upstream.curve[-1]["rank"], rel=1e-3)


def system(changes: dict[str, Any] | None = None) -> Learned:
    return Learned(configured(changes), TARGET, "linear")


def test_the_encoder_of_a_system_has_the_feature_statistics_of_the_task_s_windows(
    context: RunContext,
) -> None:
    corpus, train = clips(seed=1), clips(seed=2)
    context = replace(context, load_corpus=lambda entries, given, rate: corpus)
    expected = AudioNTT(8)
    fit_normalization(expected, train, TARGET.window_seconds, context)
    for _ in range(2):  # trained, and found
        encoder = system().prepare_encoder(train, context).encoder
        assert_close(encoder.log_mel.mean, expected.log_mel.mean)
        assert_close(encoder.log_mel.std, expected.log_mel.std)


def test_a_system_learns_its_upstream_from_train_audio_unless_told_otherwise(
    context: RunContext,
) -> None:
    asked: list[Any] = []

    def corpus(entries: tuple[str, ...], train: Clips | None, rate: int) -> Clips:
        asked.append((entries, train, rate))
        return clips()

    train = clips(seed=2)
    context = replace(context, load_corpus=corpus)
    learned = system().prepare_encoder(train, context)
    assert asked == [(("target",), train, RATE)]
    assert learned.summary.curves == {"pre-training": learn(context).curve}
    assert learned.n_parameters == learn(context).n_parameters
    assert torch.equal(
        learned.encoder.blocks[0][0].weight, learn(context).encoder.blocks[0][0].weight
    )


def test_an_audit_of_fine_tuning_hears_nothing_of_the_upstream(context: RunContext) -> None:
    heard: list[int] = []
    context.on_epoch = lambda epoch, score: heard.append(epoch)
    learn(context)
    assert heard == []


def test_the_time_of_training_is_noted_under_its_stage(context: RunContext) -> None:
    learn(context)
    assert [cost.name for cost in context.profiler.costs] == ["pre-training"]


# --- settings and names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("target", ("target",)),
        ("target, speech-commands,/data/a b", ("target", "speech-commands", "/data/a b")),
        (["target", "/data/x"], ("target", "/data/x")),
    ],
)
def test_commas_separate_the_entries_of_a_corpus(given: Any, expected: tuple[str, ...]) -> None:
    assert AudioNTTUpstreamConfig.model_validate({"corpus": given}).corpus == expected


@pytest.mark.parametrize(
    "pair",
    [
        "temperature=.inf",
        "pretrain.window_seconds=.inf",
        "pretrain.optimizer.weight_decay=.inf",
        "finetune.gain_db=.inf",
    ],
)
def test_an_infinite_number_is_no_setting_of_a_training(pair: str) -> None:
    with pytest.raises(UserError, match="should be a finite number"):
        validate(apply_pairs([pair]), MomentumContrastConfig, "--set")


def test_a_corpus_that_cannot_be_found_is_refused_before_anything_is_trained(
    context: RunContext,
) -> None:
    with pytest.raises(UserError, match="the corpus target, elsewhere cannot be found"):
        learn(context, {"corpus": "target, elsewhere"})
    assert Twins.losses == 0


@pytest.mark.parametrize("name", ["delores-s", "delores-m"])
def test_an_upstream_is_loaded_by_its_name(name: str) -> None:
    assert issubclass(load_upstream(name), UpstreamSystem)


@pytest.mark.parametrize("name", ["supervised", "log-mel-statistics"])
def test_a_system_that_learns_nothing_without_labels_is_no_upstream(name: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}' .*is not an upstream"):
        load_upstream(name)


def test_an_unknown_upstream_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'delores-s'"):
        load_upstream("deloress")
