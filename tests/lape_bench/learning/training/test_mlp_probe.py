"""The probe with a hidden layer: HEAR's layers, trained as a loop by hand would, and what must not move it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.learning.training import mlp_probe
from lape_bench.learning.training.label_folds import label_folds
from lape_bench.learning.training.mlp_probe import MlpConfig, fit_learning_rates, fit_mlp
from lape_bench.learning.training.probe_selection import EmbeddedWindows, FittedProbe

QUIET, CPU, SEEDS = Progress(quiet=True), torch.device("cpu"), Seeds(0)
SMALL = MlpConfig(hidden=16, min_steps=25, learning_rates=(0.01,))


def windows(
    labels: list[int], features: int = 6, a_clip: int = 1, seed: int = 0
) -> EmbeddedWindows:
    """Embed clips around a center for each class."""
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(0, 2, (9, features))
    owner = np.repeat(np.arange(len(labels)), a_clip)
    drawn = centers[np.array(labels)[owner]] + random.normal(0, 1, (len(owner), features))
    count = len(labels)
    return EmbeddedWindows(
        torch.from_numpy(drawn).float() + 3,
        torch.from_numpy(owner),
        torch.tensor(labels),
        torch.arange(count),
    )


def fit(
    train: EmbeddedWindows,
    config: MlpConfig = SMALL,
    validation: EmbeddedWindows | None = None,
    seeds: Seeds = SEEDS,
    classes: int = 3,
) -> FittedProbe:
    return fit_mlp(train, validation, classes, "accuracy", config, seeds, QUIET, CPU)


def rows(head: nn.Module, embeddings: Tensor) -> Tensor:
    return head.eval()(embeddings).log_softmax(dim=1).detach()


@pytest.mark.parametrize("features", [6, 200], ids=["few features", "more than clips"])
def test_it_learns_what_clearly_differs(features: int) -> None:
    train, other = windows([0, 1, 2] * 8, features), windows([0, 1, 2] * 8, features, seed=1)
    # So many steps that the last of them change nothing; after 25 the score depends on how a processor rounds.
    learned = fit(train, SMALL.model_copy(update={"min_steps": 200}))
    predicted = rows(learned.head, other.embeddings).argmax(dim=1)
    assert accuracy_score(other.labels, predicted) > 0.9


def test_its_size_is_that_of_hears_probe() -> None:
    head = fit(windows([0, 1, 2] * 8), MlpConfig(min_steps=1)).head
    assert (head.hidden.in_features, head.hidden.out_features, head.output.out_features) == (
        6,
        1024,
        3,
    )
    assert sum(p.numel() for p in head.parameters()) == 6 * 1024 + 1024 + 2 * 1024 + 1024 * 3 + 3


@pytest.mark.parametrize("n", [3, 4, 5, 7])
def test_no_batch_has_a_single_window(n: int) -> None:
    fit(windows([0, 1, 1, 0, 1, 0, 1][:n]), MlpConfig(min_steps=4, hidden=4, batch_size=3))
    with pytest.raises(ValidationError):
        MlpConfig(batch_size=2)


def test_it_trains_as_a_loop_by_hand_does() -> None:
    train = windows([0, 1, 2] * 8)
    config = SMALL.model_copy(update={"dropout": 0.0, "batch_size": 10})
    mean = train.embeddings.mean(dim=0)
    inputs = (train.embeddings - mean) / (train.embeddings - mean).square().mean().sqrt()
    with SEEDS.globally("mlp probe"):
        first, last = nn.Linear(6, 16), nn.Linear(16, 3)
        nn.init.xavier_uniform_(first.weight, gain=2**0.5)
        nn.init.xavier_uniform_(last.weight)
    model = nn.Sequential(first, nn.BatchNorm1d(16), nn.ReLU(), last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    random = SEEDS.torch("mlp probe")
    batches: list[Tensor] = []
    for step in range(60):  # 20 passes of 3 batches, which are more than 25 steps
        if not batches:
            batches = [*torch.randperm(24, generator=random).split(8)]
        batch = batches.pop()
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 + np.cos(np.pi * step / 60)) / 2
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[batch]), train.labels[batch]).backward()
        optimizer.step()
    found = rows(fit(train, config).head, train.embeddings)
    assert_close(found, rows(model, inputs), rtol=1e-3, atol=1e-3)


def test_inside_the_labels_the_rate_is_the_best_of_the_pooled_folds() -> None:
    train = windows([0, 1, 2] * 10, seed=3)
    rates = (1e-4, 1e-2)
    ranked = []
    for rate in rates:
        pooled = torch.zeros(30, 3)
        for fold in label_folds(train.labels, train.groups, SEEDS).folds:
            (head,) = fit_learning_rates(train.select(fold.train), [rate], 3, SMALL, SEEDS, CPU)
            pooled[fold.held] = rows(head, train.embeddings[fold.held])
        ranked.append(accuracy_score(train.labels, pooled.argmax(dim=1)))
    assert ranked[1] > ranked[0]
    fitted = fit(train, SMALL.model_copy(update={"learning_rates": rates}))
    assert fitted.selection == {
        "learning rate = 0.01": "5-fold cross-validation of the 30 labeled clips"
    }
    assert fitted.score == ranked[1]
    (alone,) = fit_learning_rates(train, [1e-2], 3, SMALL, SEEDS, CPU)
    assert torch.equal(fitted.head.hidden.weight, alone.hidden.weight)


def test_many_labeled_clips_are_selected_on_one_hold_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp_probe, "CROSS_VALIDATED_CLIPS", 29)
    fitted = fit(windows([0, 1, 2] * 10), SMALL.model_copy(update={"learning_rates": (0.1, 0.01)}))
    assert [*fitted.selection.values()] == ["a hold-out of 6 of the 30 labeled clips"]


def test_one_clip_a_class_is_enough() -> None:
    few = windows([0, 1])
    fitted = fit(few, MlpConfig(hidden=16), classes=2)
    assert [*fitted.selection] == ["learning rate = 0.001"]
    assert rows(fitted.head, few.embeddings).argmax(dim=1).tolist() == [0, 1]


def test_a_class_without_a_label_never_wins_and_labels_of_one_class_are_refused() -> None:
    scores = rows(fit(windows([0, 2] * 8)).head, windows([1] * 5).embeddings)
    assert (scores[:, 1] < -1000).all()
    assert torch.isfinite(scores).all()
    with pytest.raises(UserError, match="all of one class"):
        fit(windows([1] * 4))


def test_the_row_of_a_clip_does_not_depend_on_the_clips_beside_it() -> None:
    head, other = fit(windows([0, 1, 2] * 8)).head, windows([0, 1, 2] * 3, seed=1).embeddings
    assert_close(torch.cat([rows(head, row[None]) for row in other]), rows(head, other))


@pytest.mark.parametrize("features", [6, 200])
def test_neither_the_unit_nor_an_offset_of_the_embeddings_matters(features: int) -> None:
    train = windows([0, 1, 2] * 8, features)
    moved = replace(train, embeddings=1000 * train.embeddings + 20)
    first, second = fit(train).head, fit(moved).head
    found, expected = rows(second, moved.embeddings), rows(first, train.embeddings)
    assert_close(found, expected, rtol=0.05, atol=0.05)


def test_a_clip_counts_once_however_many_windows_it_has() -> None:
    train = windows([0, 1, 2] * 4)
    # In one batch each clip has the same weight, however often its window is repeated.
    owner = torch.repeat_interleave(train.owner, 2)
    twice = replace(train, embeddings=train.embeddings[owner], owner=owner)
    config = SMALL.model_copy(update={"dropout": 0.0})
    found, expected = (rows(fit(w, config).head, train.embeddings) for w in (twice, train))
    assert_close(found, expected, rtol=0.05, atol=0.05)


def test_a_fit_is_the_same_again_leaves_global_randomness_alone_and_follows_the_seed() -> None:
    train, before = windows([0, 1, 2] * 8), torch.get_rng_state()
    first = fit(train).head
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = fit(train).head, fit(train, seeds=Seeds(1)).head
    assert torch.equal(first.hidden.weight, again.hidden.weight)
    assert not torch.equal(first.hidden.weight, other.hidden.weight)
