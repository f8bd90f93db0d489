"""Two systems compared: the difference of their scores, its interval and tests, and the clips on which they differ.

The comparison is over the seeds, folds and test clips that both have. A seed of one system is paired with the same seed of the
other, since both drew the same labels by it. With one seed nothing can be said of the systems: how runs vary is not seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError
from lape_bench.records.pack import predicted_classes_in
from lape_bench.report.display_names import data_set
from lape_bench.report.formatting import join_list
from lape_bench.report.stats.alignment import (
    ClipGroups,
    PredictionsBySeed,
    predictions_by_seed,
)
from lape_bench.report.stats.crossed import Array, CrossedMean, mean_over_tasks
from lape_bench.report.stats.grouped_scores import GroupedScores, grouped_scores
from lape_bench.report.stats.significance import holm, interval_half_width, mcnemar
from lape_bench.report.system_pair import SystemPair
from lape_bench.results.scored_cells import CellPredictions

Correct = NDArray[np.bool_]  # shape (seeds, clips)


class ComparedSystem(Frozen):
    """One of the two systems, over the cells that are compared.

    Attributes:
        system: its name, as the leaderboard has it.
        protocol: by which it learned from labels.
        cells: number of its cells on this board, compared or not.
        scores: accuracy and the task's metric, means over seeds of the mean over folds, in [0, 1].
        stds: sample standard deviations of these over seeds; None for one seed.
        fixed_upstream: whether one pre-trained upstream is behind all compared seeds, so that how much another pre-training
            run would differ is not seen.
    """

    system: str
    protocol: str
    cells: int
    scores: dict[str, float]
    stds: dict[str, float | None]
    fixed_upstream: bool


class SeedDisagreement(Frozen):
    """The clips that only one system classifies correctly with a seed, and McNemar's p, which is of these two runs."""

    seed: int
    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int
    p: float


class GroupDifference(Frozen):
    """The accuracies of both systems on the clips of a group, means over seeds."""

    name: str
    clips: int
    accuracy_a: float
    accuracy_b: float


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


class Verdict(Frozen):
    """A difference, in [-1, 1], and what it allows to say. A p is None if there was no test.

    Attributes:
        difference: score of a minus that of b.
        interval: its 95 % interval over groups and seeds; over groups alone, of these two runs, if there is one seed.
            None if there is one group, or nothing varies.
        p: two-sided, of the hypothesis that the systems do not differ.
        p_holm: the same, corrected by Holm for the number of comparisons that were made together.
        margin: what a may be worse by, as a share; None if none was given.
        p_not_worse: one-sided, of the hypothesis that a is worse than b by the margin or more (non-inferiority).
        p_equivalent: the larger of two one-sided p's, of the hypothesis that they differ by the margin or more.
        detectable: the difference that such an experiment finds with a probability of 80 %, by the variances seen here.
        why_untested: why there is no p; empty if there is.
    """

    difference: float
    interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None = None
    margin: float | None = None
    p_not_worse: float | None = None
    p_equivalent: float | None = None
    detectable: float | None
    why_untested: str


class Comparison(Frozen):
    """Two systems, compared on a task.

    Attributes:
        metric: the task's own, by which they are compared; seeds, groups, classes and clips are by accuracy.
        clips: number of test clips, all folds together.
        groups: number of groups of clips, or of clips if predictions name no groups.
        grouped: whether the unit is the group.
        seeds: those compared.
        folds: those compared, 0 for an official split; of `folds_of_task`.
        verdict: the difference and its tests.
        by_seed: one for each seed.
        by_group: one for each group; empty if the unit is the clip.
        by_class: one for each class that occurs.
        by_clip: the clips on which the systems differ with the most seeds.
    """

    task: str
    data: str
    labels: str
    metric: str
    a: ComparedSystem
    b: ComparedSystem
    clips: int
    groups: int
    grouped: bool
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    folds_of_task: int
    verdict: Verdict
    by_seed: tuple[SeedDisagreement, ...]
    by_group: tuple[GroupDifference, ...]
    by_class: tuple[ClassDisagreement, ...]
    by_clip: tuple[ClipDisagreement, ...]


class ComparisonOverTasks(Frozen):
    """Two systems, compared by the mean of their differences on several tasks.

    Attributes:
        a: the name of one.
        b: the name of the other.
        tasks: those compared.
        seeds: that both have on every task.
        verdict: over the groups and seeds of these tasks; it says nothing of other tasks.
        by_task: the difference on each.
        task_std: sample standard deviation of these.
        task_interval: 95 % interval of the mean over tasks, by Student's t over these: what tasks of this kind differ by.
    """

    a: str
    b: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    verdict: Verdict
    by_task: tuple[float, ...]
    task_std: float
    task_interval: tuple[float, float]


AnyComparison = TypeVar("AnyComparison", Comparison, ComparisonOverTasks)


def compare(pair: SystemPair, clips: int, margin: float | None = None) -> Comparison:
    """Compare two systems on a task, and name the clips on which they differ most often.

    Args:
        pair: as `find_pair` gives it.
        clips: most clips to name.
        margin: what the first may be worse by, as a share, such as 0.02; None: test for a difference only.

    Raises:
        UserError: the two share no seed and fold, or none with the same test clips.
    """
    common = _common(pair)
    first = pair.cells[0].iloc[0]
    grouped = paired_scores(pair)
    compared = _compared_cells(pair, grouped)
    right = [_correct(system, grouped) for system in common]
    test_clips = grouped.clips
    ids, labels, classes = _test_set(common[0][grouped.seeds[0]], test_clips)
    return Comparison(
        task=first["task"],
        data=first["data"],
        labels=first["labels"],
        metric=first["metric"],
        a=_system(pair.names[0], len(pair.cells[0]), compared[0]),
        b=_system(pair.names[1], len(pair.cells[1]), compared[1]),
        clips=len(labels),
        groups=test_clips.n_groups,
        grouped=test_clips.names is not None,
        seeds=grouped.seeds,
        folds=tuple(fold for fold, _ in test_clips.test_folds),
        folds_of_task=int(first["folds_of_task"]),
        verdict=verdict(grouped.difference(0, 1), margin),
        by_seed=_by_seed(grouped.seeds, compared, right),
        by_group=_by_group(test_clips, right),
        by_class=_by_class(labels, classes, right),
        by_clip=_by_clip(test_clips, ids, [classes[label] for label in labels], right, clips),
    )


def compare_over_tasks(
    pairs: Sequence[SystemPair], margin: float | None = None
) -> ComparisonOverTasks:
    """Compare two systems by the mean of their differences on several tasks.

    Args:
        pairs: the same two systems on each task, at least two.
        margin: as for `compare`.

    Raises:
        UserError: the two share no seed that was run on every task.
    """
    of_tasks = [paired_scores(pair) for pair in pairs]
    seeds = sorted(set.intersection(*(set(grouped.seeds) for grouped in of_tasks)))
    a, b = pairs[0].names
    if not seeds:
        raise UserError(
            f"{a} and {b} share no seed that was run on every one of these tasks",
            next_step="run them with the same seeds, or compare them on each task by itself",
        )
    chosen = [_with_seeds(grouped, seeds) for grouped in of_tasks]
    scores = np.stack([grouped.scores[0] - grouped.scores[1] for grouped in chosen])
    by_task = scores.mean(axis=1)
    tasks = tuple(pair.cells[0]["task"].iloc[0] for pair in pairs)
    differences = [grouped.difference(0, 1) for grouped in chosen]
    mean = mean_over_tasks(differences, scores, [*map(data_set, tasks)])
    std = float(by_task.std(ddof=1))
    half = interval_half_width(std, len(by_task))
    return ComparisonOverTasks(
        a=a,
        b=b,
        tasks=tasks,
        seeds=tuple(seeds),
        verdict=verdict(mean, margin),
        by_task=tuple(by_task.tolist()),
        task_std=std,
        task_interval=(float(mean.value) - half, float(mean.value) + half),
    )


def paired_scores(pair: SystemPair) -> GroupedScores:
    """Return the scores of two systems by the task's metric, over what both have.

    Raises:
        UserError: as for `compare`.
    """
    return grouped_scores(_common(pair), pair.cells[0]["metric"].iloc[0])


def _with_seeds(grouped: GroupedScores, seeds: Sequence[int]) -> GroupedScores:
    places = [grouped.seeds.index(seed) for seed in seeds]
    return grouped._replace(
        scores=grouped.scores[:, places],
        deviations=grouped.deviations[:, places],
        was_run=grouped.was_run[:, places],
        seeds=tuple(seeds),
    )


def verdict(mean: CrossedMean, margin: float | None = None) -> Verdict:
    """Say what a difference, a single number, allows to say.

    Args:
        mean: the difference.
        margin: as for `compare`.
    """
    value, half = float(mean.value), float(mean.half_width())
    p = _known(mean.p())
    not_worse = equivalent = None
    if margin is not None and p is not None:
        not_worse = _known(mean.p_above(-margin))
        below = _known(mean.p_below(margin))
        if not_worse is not None and below is not None:
            equivalent = max(not_worse, below)
    return Verdict(
        difference=value,
        interval=None if np.isnan(half) else (value - half, value + half),
        p=p,
        margin=margin,
        p_not_worse=not_worse,
        p_equivalent=equivalent,
        detectable=_known(mean.detectable()),
        why_untested="" if p is not None else _why_untested(mean),
    )


def _known(value: Array) -> float | None:
    return None if np.isnan(value) else float(value)


def _why_untested(mean: CrossedMean) -> str:
    if mean.seeds < 2:
        return "one seed does not show how runs vary"
    if np.isnan(mean.group_df):
        return "all test clips are of one group"
    return "neither seeds nor groups vary"


def corrected(comparisons: Sequence[AnyComparison]) -> list[AnyComparison]:
    """Correct the p-values of comparisons that are made together by Holm; those without a test do not count."""
    tested = [c.verdict.p for c in comparisons if c.verdict.p is not None]
    adjusted = iter(holm(np.array(tested)).tolist())
    verdicts = [
        c.verdict
        if c.verdict.p is None
        else c.verdict.model_copy(update={"p_holm": next(adjusted)})
        for c in comparisons
    ]
    return [c.model_copy(update={"verdict": v}) for c, v in zip(comparisons, verdicts, strict=True)]


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


def _compared_cells(pair: SystemPair, grouped: GroupedScores) -> list[pd.DataFrame]:
    """Return the cells of both systems that are compared."""
    folds = [fold for fold, _ in grouped.clips.test_folds]
    return [
        cells[cells["seed"].isin(grouped.seeds) & cells["fold"].isin(folds)] for cells in pair.cells
    ]


def _system(name: str, n_cells: int, compared: pd.DataFrame) -> ComparedSystem:
    metrics = dict.fromkeys(["accuracy", compared["metric"].iloc[0]])
    scores = {metric: compared.groupby("seed")[metric].mean() for metric in metrics}
    several = compared["seed"].nunique() > 1
    upstreams = set(compared["upstream"])
    return ComparedSystem(
        system=name,
        protocol=compared["protocol"].iloc[0],
        cells=n_cells,
        scores={metric: float(by_seed.mean()) for metric, by_seed in scores.items()},
        stds={
            metric: float(by_seed.std(ddof=1)) if several else None
            for metric, by_seed in scores.items()
        },
        fixed_upstream=several and len(upstreams) == 1 and "" not in upstreams,
    )


def _correct(system: PredictionsBySeed, grouped: GroupedScores) -> Correct:
    """Return whether a system classified each clip correctly with each seed."""
    rows = []
    for seed in grouped.seeds:
        cells = [system[seed][test_fold] for test_fold in grouped.clips.test_folds]
        rows.append(np.concatenate([cell.labels == cell.predicted for cell in cells]))
    return np.stack(rows)


def _test_set(
    parts: Mapping[Any, CellPredictions], clips: ClipGroups
) -> tuple[list[str], NDArray[np.int16], tuple[str, ...]]:
    """Read the IDs and labels of the clips, in their order, and the names of the classes."""
    ids: list[str] = []
    classes: tuple[str, ...] = ()
    for part in clips.test_folds:
        folder = parts[part].folder
        predictions = predicted_classes_in(folder)
        ids += predictions.clip_ids.to_pylist()
        classes = predictions.classes
    return ids, np.concatenate([parts[part].labels for part in clips.test_folds]), classes


def _disagreements(right: Sequence[Correct]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the seeds with which only the first and only the second system is correct, each of shape (clips,)."""
    a, b = right
    return (a & ~b).sum(axis=0), (b & ~a).sum(axis=0)


def _by_seed(
    seeds: Sequence[int], compared: Sequence[pd.DataFrame], right: Sequence[Correct]
) -> tuple[SeedDisagreement, ...]:
    accuracies = [cells.groupby("seed")["accuracy"].mean() for cells in compared]
    rows = []
    for seed, a, b in zip(seeds, *right, strict=True):
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


def _by_group(clips: ClipGroups, right: Sequence[Correct]) -> tuple[GroupDifference, ...]:
    if clips.names is None:
        return ()
    counts = np.bincount(clips.groups)
    a, b = (np.bincount(clips.groups, side.mean(axis=0)) / counts for side in right)
    return tuple(
        GroupDifference(name=name, clips=int(n), accuracy_a=float(x), accuracy_b=float(y))
        for name, n, x, y in zip(clips.names, counts, a, b, strict=True)
    )


def _by_class(
    labels: NDArray[np.int16], classes: tuple[str, ...], right: Sequence[Correct]
) -> tuple[ClassDisagreement, ...]:
    a, b = right
    only_a, only_b = _disagreements(right)
    rows = []
    for label in np.unique(labels):
        in_class = labels == label
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
    clips: ClipGroups, ids: list[str], labels: list[str], right: Sequence[Correct], most: int
) -> tuple[ClipDisagreement, ...]:
    only_a, only_b = _disagreements(right)
    disagreements = only_a + only_b
    # Of equal counts the most one-sided come first, then the order of the test set.
    order = np.lexsort((-abs(only_a - only_b), -disagreements))[:most]
    return tuple(
        ClipDisagreement(
            clip=ids[n],
            label=labels[n],
            fold=int(clips.folds[n]),
            only_a=int(only_a[n]),
            only_b=int(only_b[n]),
        )
        for n in order
        if disagreements[n]
    )
