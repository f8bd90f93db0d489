"""Weights of layers and a regression on their sum, learned together: against scikit-learn, by gradients, and on layers that differ."""

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.testing import assert_close

from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.learning.training.linear_probe import LinearConfig, fit_linear
from lape_bench.learning.training.probe_selection import EmbeddedWindows
from lape_bench.learning.training.weighted_layers import _Problem, fit_weighted_layers

SIZE = 5


def windows(labels: list[int], layers: int, informative: int, seed: int = 0) -> EmbeddedWindows:
    """Embed clips by layers of different size and place, of which one depends on the class."""
    random = np.random.default_rng(seed)
    embeddings = random.normal(0, 1, (len(labels), layers, SIZE))
    centers = np.random.default_rng(99).normal(0, 2, (9, SIZE))
    embeddings[:, informative] += centers[labels]
    embeddings = embeddings * np.array([1, 30, 0.1, 5])[:layers, None] + 3
    count = torch.arange(len(labels))
    flat = torch.from_numpy(embeddings.reshape(len(labels), -1)).float()
    return EmbeddedWindows(flat, count, torch.tensor(labels), count)


def log_probabilities(head: torch.nn.Module, embeddings: Tensor) -> Tensor:
    return head(embeddings).log_softmax(dim=1).detach().double()


@pytest.mark.parametrize("present", [[0, 1], [0, 1, 2]], ids=["two classes", "three"])
@pytest.mark.parametrize("c", [1e-3, 1e-1])
def test_a_single_layer_gives_the_regression_of_scikit_learn(present: list[int], c: float) -> None:
    train, other = windows(present * 12, 1, 0), windows(present * 5, 1, 0, seed=1)
    (head,) = fit_weighted_layers(train, [c], len(present), 1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
    model.fit(train.embeddings.numpy(), train.labels.numpy())
    expected = torch.from_numpy(model.predict_log_proba(other.embeddings.numpy())).double()
    assert_close(log_probabilities(head, other.embeddings), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("informative", [0, 1, 2, 3])
def test_the_weight_goes_to_the_layer_that_tells_classes_apart(informative: int) -> None:
    train = windows([0, 1, 2] * 20, 4, informative)
    (head,) = fit_weighted_layers(train, [1.0], 3, 4)
    shares = head.layer_weights.softmax(dim=0)
    assert int(shares.argmax()) == informative
    assert shares[informative] > 0.8
    other = windows([0, 1, 2] * 20, 4, informative, seed=1)
    predicted = log_probabilities(head, other.embeddings).argmax(dim=1)
    assert (predicted == other.labels).double().mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_its_gradient_is_that_of_finite_differences(classes: int) -> None:
    random = np.random.default_rng(0)
    rows = 1 if classes == 2 else classes
    problem = _Problem(
        random.normal(0, 1, (4, 12 * SIZE)),
        np.arange(12) % classes,
        random.uniform(0.5, 1, 12),
        classes,
        SIZE,
    )
    point = random.normal(0, 0.5, 4 + rows * (SIZE + 1))
    error = check_grad(
        lambda p: problem.loss_and_gradient(p, 0.3)[0],
        lambda p: problem.loss_and_gradient(p, 0.3)[1],
        point,
    )
    assert error < 1e-5


def test_the_sum_is_at_least_as_good_a_minimum_as_its_best_layer_alone() -> None:
    train = windows([0, 1, 2] * 12, 3, 1)
    targets, weights = train.labels.numpy(), np.ones(36)
    layers = StandardScaler().fit_transform(train.embeddings.double().numpy())
    by_layer = np.ascontiguousarray(layers.reshape(36, 3, SIZE).swapaxes(0, 1)).reshape(3, -1)
    whole = _Problem(by_layer, targets, weights, 3, SIZE)
    alone = _Problem(by_layer[1:2], targets, weights, 3, SIZE)

    def minimum(problem: _Problem) -> float:
        solution = problem.solve(0.1)
        flat = np.concatenate([part.ravel() for part in solution])
        return problem.loss_and_gradient(flat, 1 / (0.1 * 36))[0]

    assert minimum(whole) < minimum(alone) + 1e-3


def test_a_class_without_a_label_never_wins() -> None:
    (head,) = fit_weighted_layers(windows([0, 2] * 8, 2, 0), [1.0], 4, 2)
    scores = log_probabilities(head, windows([1, 3], 2, 0).embeddings)
    assert (scores[:, [1, 3]] < -1000).all()
    assert torch.isfinite(scores).all()


def test_linear_evaluation_of_several_layers_selects_its_penalty_as_that_of_one() -> None:
    train = windows([0, 1, 2] * 10, 4, 2)
    config, quiet = LinearConfig(C=(1e-4, 1e-1)), Progress(quiet=True)
    fitted = fit_linear(train, None, 3, "accuracy", config, Seeds(0), quiet, layers=4)
    assert fitted.selection == {"C = 0.1": "5-fold cross-validation of the 30 labeled clips"}
    (alone,) = fit_weighted_layers(train, [0.1], 3, 4)
    assert torch.equal(fitted.head.layer_weights, alone.layer_weights)


def test_embeddings_that_are_given_and_global_randomness_are_left_alone() -> None:
    train = windows([0, 1, 2] * 6, 2, 0)
    before, random_state = train.embeddings.clone(), torch.get_rng_state()
    list(fit_weighted_layers(train, [1e-2, 1.0], 3, 2))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(train.embeddings, before)
