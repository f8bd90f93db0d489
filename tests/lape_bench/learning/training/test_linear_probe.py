"""Linear evaluation against scikit-learn's own scaler and regression."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.testing import assert_close

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.learning.training import linear_probe, probe_selection
from lape_bench.learning.training.label_folds import label_folds
from lape_bench.learning.training.linear_probe import LinearConfig, fit_linear, fit_penalties
from lape_bench.learning.training.probe_selection import EmbeddedWindows

QUIET, SEEDS = Progress(quiet=True), Seeds(0)
FEATURES = 5


def windows(
    labels: Sequence[int], windows_a_clip: int = 1, seed: int = 0, spread: float = 1.0
) -> EmbeddedWindows:
    """Embed clips around a center for each class; features differ in size and place."""
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(0, 1, (9, FEATURES))
    owner = np.repeat(np.arange(len(labels)), windows_a_clip)
    drawn = centers[np.array(labels)[owner]] + random.normal(0, spread, (len(owner), FEATURES))
    embeddings = drawn * np.array([1, 30, 0.1, 5, 1]) + np.array([0, 100, -1, 7, 0])
    return EmbeddedWindows(
        torch.from_numpy(embeddings).float(),
        torch.from_numpy(owner),
        torch.tensor(labels),
        torch.arange(len(labels)),
    )


def with_c(*values: float) -> LinearConfig:
    return LinearConfig(C=values)


def by_scikit_learn(train: EmbeddedWindows, c: float) -> Pipeline:
    """Fit on windows, one a clip."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
    return model.fit(train.embeddings.numpy(), train.labels[train.owner].numpy())


def average(rows: NDArray[np.float64], owner: Tensor) -> NDArray[np.float64]:
    """Average rows over the windows of each clip."""
    numbers = owner.numpy()
    return np.stack([rows[numbers == clip].mean(axis=0) for clip in range(numbers.max() + 1)])


@pytest.mark.parametrize(
    ("present", "classes"),
    [([0, 1], 2), ([0, 1, 2, 3], 4), ([0, 2, 3], 5), ([1, 2], 3), ([0, 4], 5)],
    ids=["two", "four", "three of five", "two of three", "first and last of five"],
)
@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_the_folded_layer_gives_the_log_probabilities_of_scikit_learn(
    present: list[int], classes: int, c: float
) -> None:
    train, other = windows(present * 12), windows(present * 5, seed=1)
    layer, *_ = fit_linear(train, None, classes, "accuracy", with_c(c), SEEDS, QUIET)
    assert (layer.in_features, layer.out_features) == (FEATURES, classes)
    found = layer(other.embeddings).log_softmax(dim=1).detach().double()
    model = by_scikit_learn(train, c)
    expected = model.predict_log_proba(other.embeddings.numpy())
    assert_close(found[:, present], torch.from_numpy(expected).double(), rtol=2e-3, atol=2e-3)
    absent = [label for label in range(classes) if label not in present]
    assert (found[:, absent] < -1000).all()
    assert torch.isfinite(found).all()


# Seeds under which each penalty wins somewhere, by the metric or, between equals, by the likelihood, and no
# clip lies so near to a decision that rounding could move it.
@pytest.mark.parametrize(
    ("windows_a_clip", "seed", "winner"),
    [(1, 0, 0.1), (1, 5, 0.01), (1, 9, 0.1), (3, 2, 10.0), (3, 3, 1.0), (3, 4, 0.1), (3, 10, 0.1)],
)
def test_the_chosen_penalty_is_the_best_on_validation_clips(
    windows_a_clip: int, seed: int, winner: float
) -> None:
    candidates = (0.01, 0.1, 1.0, 10.0)
    train = windows([0, 1, 2] * 4, seed=seed, spread=3.0)
    validation = windows([2, 1, 0] * 5, windows_a_clip, seed=100 + seed, spread=3.0)
    labels = validation.labels.numpy()
    ranked = []
    for c in candidates:
        model = by_scikit_learn(train, c)
        rows = average(model.predict_log_proba(validation.embeddings.numpy()), validation.owner)
        normalized = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        likelihood = normalized[np.arange(len(labels)), labels].mean()
        ranked.append((accuracy_score(labels, rows.argmax(axis=1)), likelihood, -c))
    best = -max(ranked)[2]
    assert best == winner
    # Given in the other order, since the order must not matter.
    layer, selection, n_clips, value = fit_linear(
        train, validation, 3, "accuracy", with_c(*candidates[::-1]), SEEDS, QUIET
    )
    assert selection == {f"C = {best:g}": "validation"}
    assert n_clips == len(labels)
    assert value == max(ranked)[0]
    alone, *nothing = fit_linear(train, None, 3, "accuracy", with_c(best), SEEDS, QUIET)
    assert nothing == [{}, 0, None]
    assert torch.equal(layer.weight, alone.weight)
    assert torch.equal(layer.bias, alone.bias)


def test_the_metric_asked_for_decides() -> None:
    # Few clips are of class 1: accuracy is best where all are taken for class 0.
    train = windows([0] * 12 + [1] * 3, spread=2.0)
    validation = windows([0] * 30 + [1] * 6, seed=50, spread=2.0)
    chosen = {
        metric: fit_linear(train, validation, 2, metric, with_c(1e-6, 1e6), SEEDS, QUIET).selection
        for metric in ("accuracy", "balanced_accuracy")
    }
    assert chosen == {
        "accuracy": {"C = 1e-06": "validation"},
        "balanced_accuracy": {"C = 1e+06": "validation"},
    }


def test_between_equals_the_strongest_penalty_is_chosen() -> None:
    # Embeddings that are all the same say nothing, whatever the penalty.
    train = EmbeddedWindows(
        torch.ones(6, FEATURES), torch.arange(6), torch.tensor([0, 1] * 3), torch.arange(6)
    )
    for candidates in ((1.0, 0.01, 0.1), (0.01, 0.1, 1.0)):
        fitted = fit_linear(train, train, 2, "accuracy", with_c(*candidates), SEEDS, QUIET)
        assert fitted.selection == {"C = 0.01": "validation"}


def repeated(clips: EmbeddedWindows, times: Sequence[int]) -> EmbeddedWindows:
    """Give each clip its one window so many times."""
    owner = torch.repeat_interleave(clips.owner, torch.tensor(times))
    return EmbeddedWindows(clips.embeddings[owner], owner, clips.labels, clips.groups)


@pytest.mark.parametrize(
    "times", [[3] * 24, [1, 2, 4, 1, 6, 1] * 4], ids=["three each", "one to six"]
)
def test_a_clip_counts_once_however_many_windows_it_has(times: list[int]) -> None:
    train, other = windows([0, 1, 2] * 8, spread=2.0), windows([0, 1, 2], seed=1)
    once, *_ = fit_linear(train, None, 3, "accuracy", with_c(0.01), SEEDS, QUIET)
    often, *_ = fit_linear(repeated(train, times), None, 3, "accuracy", with_c(0.01), SEEDS, QUIET)
    rows, expected = (layer(other.embeddings).log_softmax(dim=1) for layer in (often, once))
    assert_close(rows, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("validation", [None, windows([1, 0])], ids=["without", "with"])
def test_labels_of_one_class_alone_are_refused(validation: EmbeddedWindows | None) -> None:
    with pytest.raises(UserError, match="all of one class"):
        fit_linear(windows([2, 2, 2]), validation, 3, "accuracy", with_c(1.0), SEEDS, QUIET)


@pytest.mark.parametrize("features", [FEATURES, 200], ids=["few features", "more than clips"])
def test_a_wide_fit_is_that_of_scikit_learn_on_all_features(features: int) -> None:
    random = np.random.default_rng(0)
    labels = torch.arange(24) % 3
    embeddings = torch.from_numpy(random.normal(0, 1, (24, features))).float()
    train = EmbeddedWindows(embeddings, torch.arange(24), labels, torch.arange(24))
    for c in (1e-3, 1e-1):
        layer, *_ = fit_linear(train, None, 3, "accuracy", with_c(c), SEEDS, QUIET)
        rows = layer(embeddings).log_softmax(dim=1).detach().double()
        expected = by_scikit_learn(train, c).predict_log_proba(embeddings.numpy())
        assert_close(rows, torch.from_numpy(expected).double(), rtol=2e-3, atol=2e-3)


CANDIDATES = (1e-4, 1e-2, 1.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grouped", [False, True])
def test_inside_the_labels_the_penalty_is_that_of_cross_val_predict_on_the_same_folds(
    seed: int, grouped: bool
) -> None:
    train = windows([0, 1, 2] * 14, seed=seed, spread=2.5)
    groups = torch.arange(42) // 6 if grouped else train.groups
    train = replace(train, groups=groups)
    folds = label_folds(train.labels, groups, SEEDS).folds
    labels = train.labels.numpy()
    ranked = []
    for c in CANDIDATES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
        rows = cross_val_predict(
            model,
            train.embeddings.numpy(),
            labels,
            cv=[(fold.train, fold.held) for fold in folds],
            method="predict_log_proba",
        )
        likelihood = rows[np.arange(42), labels].mean()
        ranked.append((accuracy_score(labels, rows.argmax(axis=1)), likelihood, -c))
    best = -max(ranked)[2]
    fitted = fit_linear(train, None, 3, "accuracy", with_c(*CANDIDATES), SEEDS, QUIET)
    kept = ", groups kept whole" if grouped else ""
    how = f"5-fold cross-validation of the 42 labeled clips{kept}"
    assert fitted.selection == {f"C = {best:g}": how}
    assert fitted.score == max(ranked)[0]
    assert fitted.n_selection_clips == 42
    alone, *_ = fit_linear(train, None, 3, "accuracy", with_c(best), SEEDS, QUIET)
    assert torch.equal(fitted.head.weight, alone.weight)


def test_the_order_of_the_clips_does_not_change_what_folds_select(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = windows([0, 1, 2] * 14, windows_a_clip=2, spread=2.5)
    divided = label_folds(train.labels, train.groups, SEEDS)
    order = np.random.default_rng(0).permutation(42)
    place = np.argsort(order)  # of each clip, once they are in this order
    row_order = torch.from_numpy(np.concatenate([[2 * clip, 2 * clip + 1] for clip in order]))
    permuted = EmbeddedWindows(
        train.embeddings[row_order],
        train.owner,
        train.labels[order],
        train.groups[order],
    )
    first = fit_linear(train, None, 3, "accuracy", with_c(*CANDIDATES), SEEDS, QUIET)
    same_folds = tuple(
        fold._replace(train=np.sort(place[fold.train]), held=np.sort(place[fold.held]))
        for fold in divided.folds
    )
    monkeypatch.setattr(
        probe_selection, "label_folds", lambda *_: replace(divided, folds=same_folds)
    )
    second = fit_linear(permuted, None, 3, "accuracy", with_c(*CANDIDATES), SEEDS, QUIET)
    assert second.selection == first.selection
    assert second.score == first.score
    assert_close(second.head.weight, first.head.weight, rtol=1e-3, atol=1e-4)


def test_with_one_clip_a_class_the_middle_penalty_is_taken() -> None:
    few = windows([0, 1, 2])
    fitted = fit_linear(few, None, 3, "accuracy", with_c(1e-3, 1e-2, 1e-1), SEEDS, QUIET)
    how = "a default, since there are too few labeled clips to hold any out"
    assert fitted.selection == {"C = 0.01": how}
    assert (fitted.n_selection_clips, fitted.score) == (0, None)


def test_many_labeled_clips_are_selected_on_one_hold_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "CROSS_VALIDATED_CLIPS", 29)
    fitted = fit_linear(windows([0, 1, 2] * 10), None, 3, "accuracy", with_c(1e-2, 1), SEEDS, QUIET)
    assert [*fitted.selection.values()] == ["a hold-out of 6 of the 30 labeled clips"]
    assert fitted.n_selection_clips == 6


def test_the_held_clips_of_a_fold_move_neither_its_scaler_nor_its_weights() -> None:
    train = windows([0, 1] * 10, windows_a_clip=2)
    held = np.arange(0, 20, 5)
    rest = np.setdiff1d(np.arange(20), held)
    changed = torch.where(
        torch.isin(train.owner, torch.from_numpy(held))[:, None], 1e6, train.embeddings
    )
    (first,) = fit_penalties(train.select(rest), [0.1], 2)
    (second,) = fit_penalties(replace(train, embeddings=changed).select(rest), [0.1], 2)
    assert torch.equal(first.weight, second.weight)


def test_the_windows_of_some_clips_keep_their_labels_groups_and_owners() -> None:
    train = replace(windows([2, 0, 1, 2], windows_a_clip=2), groups=torch.tensor([7, 7, 8, 9]))
    some = train.select(np.array([1, 3]))
    assert_close(some.embeddings, train.embeddings[[2, 3, 6, 7]])
    assert some.owner.tolist() == [0, 0, 1, 1]
    assert some.labels.tolist() == [0, 2]
    assert some.groups.tolist() == [7, 9]


def test_a_fit_leaves_global_randomness_alone_and_is_the_same_again() -> None:
    train, before = windows([0, 1, 2] * 8), torch.get_rng_state()
    first, *_ = fit_linear(train, None, 3, "accuracy", with_c(1.0), SEEDS, QUIET)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, *_ = fit_linear(train, None, 3, "accuracy", with_c(1.0), SEEDS, QUIET)
    assert torch.equal(first.weight, again.weight)


def test_a_regression_that_did_not_converge_is_said_by_its_penalty(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linear_probe, "MAX_ITERATIONS", 1)
    fit_linear(windows([0, 1] * 9), None, 2, "accuracy", with_c(10.0), SEEDS, QUIET)
    assert "C = 10.0 stopped after 1 iterations" in caplog.text
