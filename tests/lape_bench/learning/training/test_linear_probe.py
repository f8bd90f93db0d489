"""Linear evaluation against scikit-learn's own scaler and regression."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.testing import assert_close

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.learning.training import linear_probe
from lape_bench.learning.training.linear_probe import EmbeddedWindows, LinearConfig, fit_linear

QUIET = Progress(quiet=True)
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
        torch.from_numpy(embeddings).float(), torch.from_numpy(owner), torch.tensor(labels)
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
    layer, *_ = fit_linear(train, None, classes, "accuracy", with_c(c), QUIET)
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
    layer, chosen, value = fit_linear(
        train, validation, 3, "accuracy", with_c(*candidates[::-1]), QUIET
    )
    assert chosen == f"C = {best:g}"
    assert value == max(ranked)[0]
    alone, _, nothing = fit_linear(train, None, 3, "accuracy", with_c(best), QUIET)
    assert nothing is None
    assert torch.equal(layer.weight, alone.weight)
    assert torch.equal(layer.bias, alone.bias)


def test_the_metric_asked_for_decides() -> None:
    # Few clips are of class 1: accuracy is best where all are taken for class 0.
    train = windows([0] * 12 + [1] * 3, spread=2.0)
    validation = windows([0] * 30 + [1] * 6, seed=50, spread=2.0)
    chosen = {
        metric: fit_linear(train, validation, 2, metric, with_c(1e-6, 1e6), QUIET).chosen
        for metric in ("accuracy", "balanced_accuracy")
    }
    assert chosen == {"accuracy": "C = 1e-06", "balanced_accuracy": "C = 1e+06"}


def test_between_equals_the_strongest_penalty_is_chosen() -> None:
    # Embeddings that are all the same say nothing, whatever the penalty.
    train = EmbeddedWindows(torch.ones(6, FEATURES), torch.arange(6), torch.tensor([0, 1] * 3))
    for candidates in ((1.0, 0.01, 0.1), (0.01, 0.1, 1.0)):
        assert (
            fit_linear(train, train, 2, "accuracy", with_c(*candidates), QUIET).chosen == "C = 0.01"
        )


def repeated(clips: EmbeddedWindows, times: Sequence[int]) -> EmbeddedWindows:
    """Give each clip its one window so many times."""
    owner = torch.repeat_interleave(clips.owner, torch.tensor(times))
    return EmbeddedWindows(clips.embeddings[owner], owner, clips.labels)


@pytest.mark.parametrize(
    "times", [[3] * 24, [1, 2, 4, 1, 6, 1] * 4], ids=["three each", "one to six"]
)
def test_a_clip_counts_once_however_many_windows_it_has(times: list[int]) -> None:
    train, other = windows([0, 1, 2] * 8, spread=2.0), windows([0, 1, 2], seed=1)
    once, *_ = fit_linear(train, None, 3, "accuracy", with_c(0.01), QUIET)
    often, *_ = fit_linear(repeated(train, times), None, 3, "accuracy", with_c(0.01), QUIET)
    rows, expected = (layer(other.embeddings).log_softmax(dim=1) for layer in (often, once))
    assert_close(rows, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("validation", [None, windows([1, 0])], ids=["without", "with"])
def test_labels_of_one_class_alone_are_refused(validation: EmbeddedWindows | None) -> None:
    with pytest.raises(UserError, match="all of one class"):
        fit_linear(windows([2, 2, 2]), validation, 3, "accuracy", with_c(1.0), QUIET)


def test_several_penalties_without_validation_are_refused_and_one_is_not() -> None:
    train = windows([0, 1] * 4)
    with pytest.raises(UserError, match="names 2 values, but the task leaves no clips"):
        fit_linear(train, None, 2, "accuracy", with_c(0.1, 1.0), QUIET)
    assert fit_linear(train, None, 2, "accuracy", with_c(0.1), QUIET).chosen == "C = 0.1"


def test_a_fit_leaves_global_randomness_alone_and_is_the_same_again() -> None:
    train, before = windows([0, 1, 2] * 8), torch.get_rng_state()
    first, *_ = fit_linear(train, None, 3, "accuracy", with_c(1.0), QUIET)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, *_ = fit_linear(train, None, 3, "accuracy", with_c(1.0), QUIET)
    assert torch.equal(first.weight, again.weight)


def test_a_regression_that_did_not_converge_is_said_by_its_penalty(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linear_probe, "MAX_ITERATIONS", 1)
    fit_linear(windows([0, 1] * 9), None, 2, "accuracy", with_c(10.0), QUIET)
    assert "C = 10.0 stopped after 1 iterations" in caplog.text
