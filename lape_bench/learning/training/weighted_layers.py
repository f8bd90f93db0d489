"""Linear evaluation on a weighted sum of an encoder's layers, whose weights the probe learns (SUPERB, arXiv:2105.01051).

The encoder is frozen, and the embeddings of all its layers are cached. With the softmax weights m of the layers, the standardized
embeddings z_l of a window, and its class scores W x + b of x = sum_l m_l z_l, the probe minimizes

    |W|^2 / 2 + C sum_i w_i CE(W x_i + b, y_i)

over m, W and b together; w_i is such that each clip counts once. With a single layer this is the regression of `linear_probe`. SUPERB has no
penalty and does not standardize; its learning rate and number of steps do what C does here.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

from lape_bench.learning.encoders.heads import WeightedLayers, layer_of_present_classes
from lape_bench.learning.training.probe_selection import EmbeddedWindows

logger = logging.getLogger(__name__)

MAX_ITERATIONS = 5000
Numbers = NDArray[np.float64]


def fit_weighted_layers(
    windows: EmbeddedWindows, values: Sequence[float], classes: int, layers: int
) -> Iterator[WeightedLayers]:
    """Fit layer weights and logistic regression together, once for each inverse penalty.

    Args:
        windows: examples; their features are those of one layer after the other, of equal size. The scaler is fitted to them too.
        values: of C.
        classes: number of classes. Those without a clip never win.
        layers: number of layers.
    """
    present, of_clip = np.unique(windows.labels.numpy(), return_inverse=True)
    weights = windows.window_weights().numpy()
    exact = windows.embeddings.double().numpy()
    mean = np.average(exact, axis=0, weights=weights)
    exact -= mean
    scale = np.sqrt(np.average(exact**2, axis=0, weights=weights))
    scale[scale <= np.finfo(np.float64).eps * len(exact) * np.abs(mean)] = 1  # a constant feature
    exact /= scale
    size = exact.shape[1] // layers
    by_layer = np.ascontiguousarray(
        exact.reshape(len(exact), layers, size).swapaxes(0, 1).reshape(layers, -1)
    )
    problem = _Problem(by_layer, of_clip[windows.owner.numpy()], weights, len(present), size)
    for value in values:
        layer_weights, coefficients, intercepts = problem.solve(value)
        classifier = layer_of_present_classes(
            torch.from_numpy(coefficients),
            torch.from_numpy(intercepts),
            torch.from_numpy(present),
            classes,
        )
        head = WeightedLayers(layers, size, classifier)
        with torch.no_grad():
            head.mean.copy_(torch.from_numpy(mean.reshape(layers, size)))
            head.scale.copy_(torch.from_numpy(scale.reshape(layers, size)))
            head.layer_weights.copy_(torch.from_numpy(layer_weights))
        yield head


@dataclass(frozen=True)
class _Problem:
    """The minimization; its numbers are those of scikit-learn's regression, and so are the solver's settings.

    Attributes:
        by_layer: standardized embeddings, shape (layers, windows * size).
        targets: class of each window among those present, shape (windows,).
        weights: of each window, shape (windows,).
        classes: number of classes present. Of two, only the second has coefficients, as in scikit-learn.
        size: features of a layer.
    """

    by_layer: Numbers
    targets: NDArray[np.int64]
    weights: Numbers
    classes: int
    size: int

    def solve(self, inverse_penalty: float) -> tuple[Numbers, Numbers, Numbers]:
        """Return layer weights before the softmax (layers,), coefficients (classes, size) and intercepts (classes,)."""
        start = np.zeros(len(self.by_layer) + self._rows * (self.size + 1))
        with threadpool_limits(1):
            result = minimize(
                self.loss_and_gradient,
                start,
                args=(1 / (inverse_penalty * self.weights.sum()),),
                method="L-BFGS-B",
                jac=True,
                options={
                    "maxiter": MAX_ITERATIONS,
                    "maxls": 50,
                    "gtol": 1e-4,
                    "ftol": 64 * np.finfo(float).eps,
                },
            )
        if result.nit >= MAX_ITERATIONS:
            logger.warning(
                f"weighted layers with C = {inverse_penalty} stopped after {MAX_ITERATIONS} iterations"
            )
        layer_weights, rows, intercepts = self._parts(result.x)
        if self.classes == 2:
            rows = np.concatenate([np.zeros_like(rows), rows])
            intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
        return layer_weights, rows, intercepts

    def loss_and_gradient(self, parameters: Numbers, strength: float) -> tuple[float, Numbers]:
        """Return the mean loss with its penalty of this strength, and its gradient."""
        layer_weights, rows, intercepts = self._parts(parameters)
        shares = softmax(layer_weights)
        summed = (shares @ self.by_layer).reshape(-1, self.size)
        scores = summed @ rows.T + intercepts
        if self.classes == 2:
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        log_probabilities = log_softmax(scores, axis=1)
        share = self.weights / self.weights.sum()
        own = np.arange(len(self.targets)), self.targets
        loss = -share @ log_probabilities[own] + strength * (rows**2).sum() / 2
        errors = np.exp(log_probabilities)
        errors[own] -= 1
        errors = (errors * share[:, None])[:, -self._rows :]
        of_shares = self.by_layer @ (errors @ rows).ravel()
        gradient = [
            shares * (of_shares - shares @ of_shares),
            (errors.T @ summed + strength * rows).ravel(),
            errors.sum(axis=0),
        ]
        return float(loss), np.concatenate(gradient)

    @property
    def _rows(self) -> int:
        return 1 if self.classes == 2 else self.classes

    def _parts(self, parameters: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        layers, rows = len(self.by_layer), self._rows
        layer_weights, coefficients, intercepts = np.split(
            parameters, [layers, layers + rows * self.size]
        )
        return layer_weights, coefficients.reshape(rows, self.size), intercepts
