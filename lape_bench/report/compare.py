"""Two systems on one task: the difference of their accuracies, its significance, and the clips on which they differ.

The comparison is over the seeds, folds and test clips that both have.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError
from lape_bench.records.predictions import read_predicted_classes
from lape_bench.records.record import read_record
from lape_bench.report.formatting import join_list
from lape_bench.report.stats.alignment import (
    AlignedPredictions,
    PredictionsBySeed,
    align_predictions,
    predictions_by_seed,
)
from lape_bench.report.stats.significance import interval_half_width, mcnemar, paired_bootstrap
from lape_bench.report.system_pair import SystemPair
from lape_bench.results.load import CellPredictions


class ComparedSystem(Frozen):
    """One of the two systems, over the cells that are compared.

    Attributes:
        system: its name, as the leaderboard has it.
        cells: number of its cells on this board, compared or not.
        scores: accuracy and the task's metric, means over seeds of the mean over folds, in [0, 1].
        stds: sample standard deviations of these over seeds; None for one seed.
    """

    system: str
    cells: int
    scores: dict[str, float]
    stds: dict[str, float | None]


class SeedDisagreement(Frozen):
    """The clips that only one system classifies correctly with a seed, and McNemar's p."""

    seed: int
    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int
    p: float


class ClassDisagreement(Frozen):
    """The clips of a class that only one system classifies correctly, counted over seeds; accuracies are means."""

    name: str
    clips: int
    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int


class ClipDisagreement(Frozen):
    """The number of seeds with which only one system classifies a clip correctly."""

    clip: str
    label: str
    fold: int
    only_a: int
    only_b: int


class Comparison(Frozen):
    """Two systems, compared.

    Attributes:
        metric: the task's own; accuracy is compared even if this is another metric.
        clips: number of test clips, all folds together.
        seeds: those compared.
        folds: those compared, 0 for an official split; of `folds_of_task`.
        difference: accuracy of a minus that of b, in [-1, 1].
        interval: its 95 % interval by paired bootstrap over clips and seeds.
        p: two-sided, of the same bootstrap; `LEAST_P` if no resample contradicts the difference.
        seed_interval: 95 % interval of the difference over seeds alone, by Student's t; None for one seed.
        by_seed: one for each seed.
        by_class: one for each class that occurs.
        by_clip: the clips on which the systems differ with the most seeds.
    """

    task: str
    data: str
    protocol: str
    label_fraction: float
    metric: str
    a: ComparedSystem
    b: ComparedSystem
    clips: int
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    folds_of_task: int
    difference: float
    interval: tuple[float, float]
    p: float
    seed_interval: tuple[float, float] | None
    by_seed: tuple[SeedDisagreement, ...]
    by_class: tuple[ClassDisagreement, ...]
    by_clip: tuple[ClipDisagreement, ...]


def compare(pair: SystemPair, clips: int) -> Comparison:
    """Compare two systems, and name the clips on which they differ most often.

    The same cells give the same interval and p, since the draws have a constant seed.

    Args:
        pair: as `find_pair` gives it.
        clips: most clips to name.

    Raises:
        UserError: the two share no seed and fold, or none with the same test clips.
    """
    common = _common(pair)
    aligned = align_predictions(common)
    a, b = aligned.correct
    bootstrap = paired_bootstrap(a, b, aligned.folds, np.random.default_rng(0))
    sides = [
        _system(name, cells, aligned) for name, cells in zip(pair.names, pair.cells, strict=True)
    ]
    ids, classes = _clip_ids(common[0][aligned.seeds[0]], aligned)
    first = pair.cells[0].iloc[0]
    return Comparison(
        task=first["task"],
        data=first["data"],
        protocol=first["protocol"],
        label_fraction=first["label_fraction"],
        metric=first["metric"],
        a=sides[0],
        b=sides[1],
        clips=len(aligned.labels),
        seeds=aligned.seeds,
        folds=tuple(fold for fold, _ in aligned.test_folds),
        folds_of_task=int(first["folds_of_task"]),
        difference=bootstrap.value,
        interval=(bootstrap.low, bootstrap.high),
        p=bootstrap.p,
        seed_interval=_seed_interval(pair, aligned),
        by_seed=_by_seed(pair, aligned),
        by_class=_by_class(aligned, classes),
        by_clip=_by_clip(aligned, ids, classes, clips),
    )


def _common(pair: SystemPair) -> tuple[PredictionsBySeed, PredictionsBySeed]:
    """Return the predictions of both systems for the seeds, folds and test clips that both have."""
    a, b = (predictions_by_seed(cells, pair.predictions) for cells in pair.cells)
    kept = {seed: parts for seed in a if seed in b if (parts := a[seed].keys() & b[seed].keys())}
    if not kept:
        runs = "; ".join(
            f"{name} has seeds {join_list(sorted(seeds))} in folds {join_list(sorted(set(cells['fold'])))}"
            for name, seeds, cells in zip(pair.names, (a, b), pair.cells, strict=True)
        )
        raise UserError(
            f"{pair.names[0]} and {pair.names[1]} share no seed and fold with the same test clips",
            allowed=runs,
            next_step="run one of them with the seeds of the other",
        )
    both = [
        {seed: {part: system[seed][part] for part in parts} for seed, parts in kept.items()}
        for system in (a, b)
    ]
    return both[0], both[1]


def _seed_scores(cells: pd.DataFrame, aligned: AlignedPredictions, metric: str) -> pd.Series:
    """Return the score of each compared seed, mean over the compared folds."""
    folds = [fold for fold, _ in aligned.test_folds]
    compared = cells[cells["seed"].isin(aligned.seeds) & cells["fold"].isin(folds)]
    return compared.groupby("seed")[metric].mean()


def _system(name: str, cells: pd.DataFrame, aligned: AlignedPredictions) -> ComparedSystem:
    metrics = dict.fromkeys(["accuracy", cells["metric"].iloc[0]])
    scores = {metric: _seed_scores(cells, aligned, metric) for metric in metrics}
    several = len(aligned.seeds) > 1
    return ComparedSystem(
        system=name,
        cells=len(cells),
        scores={metric: float(by_seed.mean()) for metric, by_seed in scores.items()},
        stds={
            metric: float(by_seed.std(ddof=1)) if several else None
            for metric, by_seed in scores.items()
        },
    )


def _seed_interval(pair: SystemPair, aligned: AlignedPredictions) -> tuple[float, float] | None:
    if len(aligned.seeds) < 2:
        return None
    a, b = (_seed_scores(cells, aligned, "accuracy") for cells in pair.cells)
    mean, half = (a - b).mean(), interval_half_width((a - b).std(ddof=1), len(aligned.seeds))
    return float(mean - half), float(mean + half)


def _clip_ids(
    parts: Mapping[Any, CellPredictions], aligned: AlignedPredictions
) -> tuple[list[str], tuple[str, ...]]:
    """Read the IDs of the clips, in their order, and the names of the classes."""
    ids: list[str] = []
    classes: tuple[str, ...] = ()
    for part in aligned.test_folds:
        folder = parts[part].folder
        predictions = read_predicted_classes(folder, read_record(folder))
        ids += predictions.clip_ids.to_pylist()
        classes = predictions.classes
    return ids, classes


def _disagreements(aligned: AlignedPredictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the seeds with which only the first and only the second system is correct, each of shape (clips,)."""
    a, b = aligned.correct
    return (a & ~b).sum(axis=0), (b & ~a).sum(axis=0)


def _by_seed(pair: SystemPair, aligned: AlignedPredictions) -> tuple[SeedDisagreement, ...]:
    accuracies = [_seed_scores(cells, aligned, "accuracy") for cells in pair.cells]
    rows = []
    for seed, a, b in zip(aligned.seeds, *aligned.correct, strict=True):
        test = mcnemar(a, b)
        rows.append(
            SeedDisagreement(
                seed=seed,
                accuracy_a=accuracies[0][seed],
                accuracy_b=accuracies[1][seed],
                only_a=test.only_a,
                only_b=test.only_b,
                p=test.p,
            )
        )
    return tuple(rows)


def _by_class(
    aligned: AlignedPredictions, classes: tuple[str, ...]
) -> tuple[ClassDisagreement, ...]:
    a, b = aligned.correct
    only_a, only_b = _disagreements(aligned)
    rows = []
    for label in np.unique(aligned.labels):
        in_class = aligned.labels == label
        rows.append(
            ClassDisagreement(
                name=classes[label],
                clips=int(in_class.sum()),
                accuracy_a=float(a[:, in_class].mean()),
                accuracy_b=float(b[:, in_class].mean()),
                only_a=int(only_a[in_class].sum()),
                only_b=int(only_b[in_class].sum()),
            )
        )
    return tuple(rows)


def _by_clip(
    aligned: AlignedPredictions, ids: list[str], classes: tuple[str, ...], most: int
) -> tuple[ClipDisagreement, ...]:
    only_a, only_b = _disagreements(aligned)
    disagreements = only_a + only_b
    # Of equal counts the most one-sided come first, then the order of the test set.
    order = np.lexsort((-abs(only_a - only_b), -disagreements))[:most]
    return tuple(
        ClipDisagreement(
            clip=ids[n],
            label=classes[aligned.labels[n]],
            fold=int(aligned.folds[n]),
            only_a=int(only_a[n]),
            only_b=int(only_b[n]),
        )
        for n in order
        if disagreements[n]
    )
