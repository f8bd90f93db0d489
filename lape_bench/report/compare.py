"""Two systems on one task: how far apart they are, whether it is chance, and on which clips they differ.

What is compared is accuracy, over the seeds, folds and test clips that both have.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from lape_bench.config import Frozen
from lape_bench.errors import UserError, unknown
from lape_bench.records import read_predictions, read_record
from lape_bench.report.alignment import Aligned, BySeed, align, by_seed
from lape_bench.report.frame import Outcome, Results
from lape_bench.report.leaderboard import shown_systems
from lape_bench.report.significance import half_interval, mcnemar, paired_bootstrap

BOARD = ["data", "protocol", "label_fraction", "comparable"]  # of one task
CLASSES_SHOWN = 20  # in the terminal


class Pair(NamedTuple):
    """Two systems that were run on one board.

    Attributes:
        names: of both, as the leaderboard has them.
        cells: of both.
        outcomes: by the index of the cells.
    """

    names: tuple[str, str]
    cells: tuple[pd.DataFrame, pd.DataFrame]
    outcomes: Mapping[int, Outcome]


class Side(Frozen):
    """One of the two systems, over the cells that are compared.

    Attributes:
        system: its name, as the leaderboard has it.
        cells: how many it has on this board, compared or not.
        scores: accuracy and the task's metric, means over seeds of the mean over folds, in [0, 1].
        deviations: of these, sample standard deviation over seeds; of one seed none.
    """

    system: str
    cells: int
    scores: dict[str, float]
    deviations: dict[str, float | None]


class SeedFlips(Frozen):
    """The clips of a seed that only one system has right, and McNemar's p."""

    seed: int
    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int
    p: float


class ClassFlips(Frozen):
    """The clips of a class that only one system has right, counted over seeds; accuracies are their means."""

    name: str
    clips: int
    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int


class ClipFlips(Frozen):
    """In how many seeds only one system has a clip right."""

    clip: str
    label: str
    fold: int
    only_a: int
    only_b: int


class Comparison(Frozen):
    """Two systems, compared.

    Attributes:
        metric: the task's own; where it is not accuracy, accuracy is what is compared all the same.
        clips: how many test clips, all folds together.
        seeds: those compared.
        folds: those compared, 0 for an official split; of `folds_of_task`.
        difference: accuracy of a minus that of b, in [-1, 1].
        interval: its 95 % interval by paired bootstrap over clips and seeds.
        p: two-sided, of the same bootstrap.
        seed_interval: 95 % interval of the difference over seeds alone, Student's t; of one seed none.
        by_seed: one a seed.
        by_class: one a class that occurs.
        flips: the clips that flip most often.
    """

    task: str
    data: str
    protocol: str
    label_fraction: float
    metric: str
    a: Side
    b: Side
    clips: int
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    folds_of_task: int
    difference: float
    interval: tuple[float, float]
    p: float
    seed_interval: tuple[float, float] | None
    by_seed: tuple[SeedFlips, ...]
    by_class: tuple[ClassFlips, ...]
    flips: tuple[ClipFlips, ...]


def find_pair(
    results: Results,
    a: str,
    b: str,
    task: str,
    protocol: str | None = None,
    label_fraction: float | None = None,
    data: str | None = None,
) -> Pair:
    """Find the cells of two systems on one task.

    Args:
        results: all there are.
        a: a system as the leaderboard names it, or without its settings where it has one variant here.
        b: the other one.
        task: the task.
        protocol: None takes the one by which both were run; so it is with those that follow.
        label_fraction: share of the train labels.
        data: "real" or "synthetic".

    Raises:
        UserError: a name fits none or several; the two are one; what is left open has no answer or several;
            or a cell is known from a table alone.
    """
    cells = results.cells.assign(shown=shown_systems(results.cells))
    for column, value in {
        "task": task,
        "data": data,
        "protocol": protocol,
        "label_fraction": label_fraction,
    }.items():
        if value is not None:
            kept = cells[cells[column] == value]
            if kept.empty:
                kind = f"{column.replace('_', ' ')} with results"
                raise unknown(kind, f"{value}", map(str, cells[column].unique()))
            cells = kept
    names = _resolve(cells, a, task), _resolve(cells, b, task)
    if names[0] == names[1]:
        raise UserError(f"'{a}' and '{b}' are one system, {names[0]}", next_step="name another one")
    sides = [cells[cells["shown"] == name] for name in names]
    board = _common_board(names, sides)
    found = [side[(side[BOARD] == board).all(axis=1)] for side in sides]
    for name, side in zip(names, found, strict=True):
        if any(index not in results.outcomes for index in side.index):
            raise UserError(
                f"cells of {name} are known from a table alone, without predictions",
                next_step="give --out a folder of their records",
            )
    return Pair(names, (found[0], found[1]), results.outcomes)


def compare(pair: Pair, clips: int) -> Comparison:
    """Compare two systems, and name the clips that flip most often.

    The same cells give the same interval and p: the draws are seeded by a constant.

    Args:
        pair: as `find_pair` gives it.
        clips: how many clips to name at most.

    Raises:
        UserError: the two share no seed and fold, or none with the same test clips.
    """
    common = _common(pair)
    aligned = align(common)
    a, b = aligned.right
    found = paired_bootstrap(a, b, aligned.folds, np.random.default_rng(0))
    sides = [
        _side(name, cells, aligned) for name, cells in zip(pair.names, pair.cells, strict=True)
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
        folds=tuple(fold for fold, _ in aligned.parts),
        folds_of_task=int(first["folds_of_task"]),
        difference=found.value,
        interval=(found.low, found.high),
        p=found.p,
        seed_interval=_seed_interval(pair, aligned),
        by_seed=_flips_by_seed(pair, aligned),
        by_class=_by_class(aligned, classes),
        flips=_flips(aligned, ids, classes, clips),
    )


def as_text(comparison: Comparison) -> Group:
    """Lay a comparison out for the terminal."""
    c = comparison
    part = "" if c.label_fraction == 1 else f", {c.label_fraction:.3g} of the labels"
    task = c.task + (" [synthetic]" if c.data == "synthetic" else "")
    parts: list[Any] = [
        f"{task}, {c.protocol}{part}: {_paired(c)}",
        "",
        _scores(c),
        "",
        _difference(c),
        "",
        _by_seed_table(c),
        "",
        _by_class_table(c),
    ]
    if len(c.by_class) > CLASSES_SHOWN:
        parts.append(f"... of {len(c.by_class)} classes, the most one-sided; --format json has all")
    if c.flips:
        parts += ["", _flips_table(c)]
    if c.metric != "accuracy":
        note = f"The task's metric is {_words(c.metric)}; differences, p and flips are of accuracy."
        parts += ["", note]
    return Group(*parts)


def _resolve(cells: pd.DataFrame, name: str, task: str) -> str:
    """Return the system's name on the leaderboard."""
    shown = sorted(cells["shown"].unique())
    if name in shown:
        return name
    variants = sorted(cells["shown"][(cells["system"] == name) | (cells["name"] == name)].unique())
    if len(variants) == 1:
        return str(variants[0])
    if variants:
        raise UserError(
            f"'{name}' has {len(variants)} variants on {task}",
            allowed="one of " + ", ".join(f"'{variant}'" for variant in variants),
        )
    raise unknown(f"system with results on {task}", name, shown)


def _common_board(names: tuple[str, str], sides: list[pd.DataFrame]) -> pd.Series:
    """Return the one board on which both systems stand."""
    boards = [side[BOARD].drop_duplicates() for side in sides]
    common = boards[0].merge(boards[1])
    if len(common) == 1:
        return common.iloc[0]
    if common.empty:
        raise UserError(
            f"{names[0]} and {names[1]} share no protocol and label fraction on one preparation of the task",
            allowed="; ".join(
                f"{name} has {_listed(each)}" for name, each in zip(names, boards, strict=True)
            ),
        )
    raise UserError(
        f"{names[0]} and {names[1]} can be compared in {len(common)} ways",
        allowed=_listed(common),
        next_step="choose by --protocol, --label-fraction and --data, or of two preparations (in brackets) by --out",
    )


def _listed(boards: pd.DataFrame) -> str:
    rows = boards.sort_values(BOARD).itertuples(index=False)
    preparations = boards["comparable"].nunique()
    return ", ".join(
        f"{data} {protocol} {fraction:.3g}" + (f" [{comparable[:6]}]" if preparations > 1 else "")
        for data, protocol, fraction, comparable in rows
    )


def _common(pair: Pair) -> tuple[BySeed, BySeed]:
    """Return both systems' outcomes where the other one has the same seed, fold and test clips."""
    a, b = (by_seed(cells, pair.outcomes) for cells in pair.cells)
    kept = {seed: parts for seed in a if seed in b if (parts := a[seed].keys() & b[seed].keys())}
    if not kept:
        runs = "; ".join(
            f"{name} has seeds {_numbers(sorted(each))} in folds {_numbers(sorted(set(cells['fold'])))}"
            for name, each, cells in zip(pair.names, (a, b), pair.cells, strict=True)
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


def _seed_scores(cells: pd.DataFrame, aligned: Aligned, metric: str) -> pd.Series:
    """Return a score of each seed that is compared, mean over the folds that are."""
    folds = [fold for fold, _ in aligned.parts]
    compared = cells[cells["seed"].isin(aligned.seeds) & cells["fold"].isin(folds)]
    return compared.groupby("seed")[metric].mean()


def _side(name: str, cells: pd.DataFrame, aligned: Aligned) -> Side:
    metrics = dict.fromkeys(["accuracy", cells["metric"].iloc[0]])
    scores = {metric: _seed_scores(cells, aligned, metric) for metric in metrics}
    several = len(aligned.seeds) > 1
    return Side(
        system=name,
        cells=len(cells),
        scores={metric: float(each.mean()) for metric, each in scores.items()},
        deviations={
            metric: float(each.std(ddof=1)) if several else None for metric, each in scores.items()
        },
    )


def _seed_interval(pair: Pair, aligned: Aligned) -> tuple[float, float] | None:
    if len(aligned.seeds) < 2:
        return None
    a, b = (_seed_scores(cells, aligned, "accuracy") for cells in pair.cells)
    mean, half = (a - b).mean(), half_interval((a - b).std(ddof=1), len(aligned.seeds))
    return float(mean - half), float(mean + half)


def _clip_ids(parts: Mapping[Any, Outcome], aligned: Aligned) -> tuple[list[str], tuple[str, ...]]:
    """Read the ids of the clips, in their order, and the names of the classes."""
    ids: list[str] = []
    classes: tuple[str, ...] = ()
    for part in aligned.parts:
        folder = parts[part].folder
        predictions = read_predictions(folder, read_record(folder))
        ids += predictions.clip_ids.to_pylist()
        classes = predictions.classes
    return ids, classes


def _only(aligned: Aligned) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """In how many seeds only the first and only the second has a clip right, each of shape (clips,)."""
    a, b = aligned.right
    return (a & ~b).sum(axis=0), (b & ~a).sum(axis=0)


def _flips_by_seed(pair: Pair, aligned: Aligned) -> tuple[SeedFlips, ...]:
    accuracies = [_seed_scores(cells, aligned, "accuracy") for cells in pair.cells]
    rows = []
    for seed, a, b in zip(aligned.seeds, *aligned.right, strict=True):
        test = mcnemar(a, b)
        rows.append(
            SeedFlips(
                seed=seed,
                accuracy_a=accuracies[0][seed],
                accuracy_b=accuracies[1][seed],
                only_a=test.only_a,
                only_b=test.only_b,
                p=test.p,
            )
        )
    return tuple(rows)


def _by_class(aligned: Aligned, classes: tuple[str, ...]) -> tuple[ClassFlips, ...]:
    a, b = aligned.right
    only_a, only_b = _only(aligned)
    rows = []
    for label in np.unique(aligned.labels):
        here = aligned.labels == label
        rows.append(
            ClassFlips(
                name=classes[label],
                clips=int(here.sum()),
                accuracy_a=float(a[:, here].mean()),
                accuracy_b=float(b[:, here].mean()),
                only_a=int(only_a[here].sum()),
                only_b=int(only_b[here].sum()),
            )
        )
    return tuple(rows)


def _flips(
    aligned: Aligned, ids: list[str], classes: tuple[str, ...], most: int
) -> tuple[ClipFlips, ...]:
    only_a, only_b = _only(aligned)
    flips = only_a + only_b
    # Of equally many flips, the most one-sided first; then as they stand in the test set.
    order = np.lexsort((-abs(only_a - only_b), -flips))[:most]
    return tuple(
        ClipFlips(
            clip=ids[n],
            label=classes[aligned.labels[n]],
            fold=int(aligned.folds[n]),
            only_a=int(only_a[n]),
            only_b=int(only_b[n]),
        )
        for n in order
        if flips[n]
    )


def _paired(c: Comparison) -> str:
    folds = "" if c.folds == (0,) else f", {len(c.folds)} of {c.folds_of_task} folds"
    seeds = "seed" if len(c.seeds) == 1 else "seeds"
    cells = len(c.seeds) * len(c.folds)
    rest = [f"{side.cells - cells} of {name}" for name, side in (("A", c.a), ("B", c.b))]
    more = [each for each in rest if not each.startswith("0 ")]
    alone = f"; cells without a partner: {', '.join(more)}" if more else ""
    return f"{c.clips:,} clips, paired in {seeds} {_numbers(c.seeds)}{folds}{alone}"


def _scores(c: Comparison) -> Table:
    table = _table("", "system")
    for metric in c.a.scores:
        table.add_column(f"{_words(metric)} %", justify="right")
        table.add_column("±", justify="right")
    for name, side in (("A", c.a), ("B", c.b)):
        cells = []
        for metric, score in side.scores.items():
            deviation = side.deviations[metric]
            cells += [f"{100 * score:.2f}", "" if deviation is None else f"{100 * deviation:.2f}"]
        table.add_row(name, side.system, *cells)
    return table


def _difference(c: Comparison) -> Table:
    name = "A - B" if c.metric == "accuracy" else "A - B, accuracy"
    table = _table("", numbers=[name, "95 % interval", "p"])
    drawn = "clips and seeds" if len(c.seeds) > 1 else "clips"
    rows = [(f"paired bootstrap over {drawn}", c.interval, f"{c.p:.2g}")]
    if c.seed_interval:
        rows.append(("over seeds alone, Student's t", c.seed_interval, ""))
    for how, (low, high), p in rows:
        table.add_row(how, _points(c.difference), f"{_points(low)} to {_points(high)}", p)
    return table


def _by_seed_table(c: Comparison) -> Table:
    table = _table("seed", numbers=["A %", "B %", "only A right", "only B right", "McNemar p"])
    for each in c.by_seed:
        accuracies = _accuracies(each.accuracy_a, each.accuracy_b)
        table.add_row(
            str(each.seed), *accuracies, str(each.only_a), str(each.only_b), f"{each.p:.2g}"
        )
    return table


def _by_class_table(c: Comparison) -> Table:
    table = _table("class", numbers=["clips", "A %", "B %", "only A right", "only B right"])
    # Most one-sided first; of hundreds of speakers the rest would bury what matters.
    order = sorted(c.by_class, key=lambda each: -abs(each.only_a - each.only_b))
    for each in order[:CLASSES_SHOWN]:
        accuracies = _accuracies(each.accuracy_a, each.accuracy_b)
        table.add_row(each.name, str(each.clips), *accuracies, str(each.only_a), str(each.only_b))
    return table


def _flips_table(c: Comparison) -> Table:
    folds = [] if c.folds == (0,) else ["fold"]
    table = _table("clip", "class", numbers=[*folds, "only A right", "only B right"])
    for each in c.flips:
        fold = [str(each.fold)] if folds else []
        table.add_row(each.clip, each.label, *fold, str(each.only_a), str(each.only_b))
    return table


def _table(*names: str, numbers: list[str] | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in numbers or []:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _accuracies(*values: float) -> list[str]:
    return [f"{100 * value:.2f}" for value in values]


def _points(value: float) -> str:
    return f"{100 * value:+.2f}"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _numbers(values: Any) -> str:
    return ", ".join(map(str, values))
