"""Linear evaluation: a logistic regression on the embeddings of a frozen encoder.

scikit-learn and scipy are imported in the functions, because importing them takes as long as importing torch, and fine-tuning needs
neither.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from threadpoolctl import ThreadpoolController
from torch import nn

from lape_bench.core.config import Config
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.learning.encoders.heads import layer_of_present_classes
from lape_bench.learning.training.probe_selection import (
    EmbeddedWindows,
    FittedProbe,
    select_and_fit,
)

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

logger = logging.getLogger(__name__)

MAX_ITERATIONS = 5000
# With more labeled clips, one hold-out selects. Five penalties in five folds of 1,800 clips, 2,048 features and 20 classes take
# about 20 seconds on one core, and the time grows with clips and classes.
CROSS_VALIDATED_CLIPS = 2_000


class LinearConfig(Config):
    """Linear evaluation: standardized embeddings, logistic regression with an L2 penalty."""

    C: tuple[PositiveFloat, ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        min_length=1,
        description="inverse strength of the L2 penalty; of several, the labeled clips select one by cross-validation, or the "
        "middle one is taken if there are too few of them",
    )


def fit_linear(
    train: EmbeddedWindows,
    validation: EmbeddedWindows | None,
    classes: int,
    metric: str,
    config: LinearConfig,
    seeds: Seeds,
    progress: Progress,
    layers: int = 1,
) -> FittedProbe:
    """Fit a logistic regression to standardized embeddings of labeled clips, and select its penalty (`select_and_fit`).

    Every window is an example, weighted so that each clip counts once. Each fit has a scaler of its own.

    Args:
        train: the labeled windows.
        validation: windows of further labeled clips that select C, or None to select inside the labeled ones.
        classes: number of classes.
        metric: selects C.
        config: the values of C.
        seeds: of the run, for the folds.
        progress: shows the fits.
        layers: how many layers of equal size the embeddings are of; of several the probe learns a weighted sum too.

    Raises:
        UserError: all labels are of one class.
    """

    def fit(windows: EmbeddedWindows, values: Sequence[float]) -> Iterator[nn.Module]:
        if layers > 1:
            from lape_bench.learning.training.weighted_layers import fit_weighted_layers

            return fit_weighted_layers(windows, values, classes, layers)
        return fit_penalties(windows, values, classes)

    return select_and_fit(
        fit, "C", config.C, train, validation, metric, seeds, progress, CROSS_VALIDATED_CLIPS
    )


def fit_penalties(
    windows: EmbeddedWindows, values: Sequence[float], classes: int
) -> Iterator[nn.Linear]:
    """Fit one logistic regression for each inverse penalty.

    Args:
        windows: examples; the scaler is fitted to them too.
        values: of C.
        classes: number of classes.
    """
    from sklearn.preprocessing import StandardScaler

    targets = windows.labels[windows.owner].numpy()
    weights = windows.window_weights().numpy()
    # In float64: in float32 the point where the solver stops depends on how sums are rounded.
    exact = windows.embeddings.to(torch.float64, copy=True).numpy()
    scaler = StandardScaler(copy=False).fit(exact, sample_weight=weights)
    # In place: for a large task this is most of the memory of a run.
    examples = scaler.transform(exact)
    basis, libraries = None, ThreadpoolController()  # found once, since looking for them takes long
    if 2 * len(examples) <= examples.shape[1]:
        # Weights with an L2 penalty lie in the span of the examples. In a basis of it the fit is the same, and takes less time.
        with libraries.limit(limits=1):
            basis, coordinates = np.linalg.qr(examples.T)
        examples = np.ascontiguousarray(coordinates.T)
    for value in values:
        model = _fit_regression(value, examples, targets, weights, libraries)
        coefficients = model.coef_ if basis is None else model.coef_ @ basis.T
        yield _as_layer(scaler, model, coefficients, classes)


def _fit_regression(
    inverse_penalty: float,
    examples: NDArray[np.float64],
    targets: NDArray[np.int64],
    weights: NDArray[np.float64],
    libraries: ThreadpoolController,
) -> "LogisticRegression":
    """Fit one logistic regression on one thread of the libraries, and report if it does not converge."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS)
    # On one thread: more threads take longer, several times so if another process uses the cores.
    with libraries.limit(limits=1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(examples, targets, sample_weight=weights)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        logger.warning(
            f"logistic regression with C = {inverse_penalty} stopped after {MAX_ITERATIONS} iterations"
        )
    return model


def _as_layer(
    scaler: "StandardScaler",
    model: "LogisticRegression",
    coefficients: NDArray[np.float64],
    classes: int,
) -> nn.Linear:
    """Fold standardization and regression into one layer; a class without a label never wins."""
    intercepts = model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    weight = coefficients / scaler.scale_
    return layer_of_present_classes(
        torch.from_numpy(weight),
        torch.from_numpy(intercepts - weight @ scaler.mean_),
        torch.from_numpy(model.classes_),
        classes,
    )
