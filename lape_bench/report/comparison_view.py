"""A comparison of two systems as tables for the terminal."""

from typing import Any

from rich.console import Group
from rich.table import Table

from lape_bench.report.compare import Comparison
from lape_bench.report.formatting import join_list, p_value, percent
from lape_bench.report.stats.significance import LEAST_P

CLASSES_SHOWN = 20


def comparison_view(comparison: Comparison) -> Group:
    """Return a comparison as text and tables that rich can print."""
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
    if c.by_clip:
        parts += ["", _by_clip_table(c)]
    if c.metric != "accuracy":
        note = f"The task's metric is {_words(c.metric)}; differences, p and clips are by accuracy."
        parts += ["", note]
    return Group(*parts)


def _paired(c: Comparison) -> str:
    folds = "" if c.folds == (0,) else f"; {len(c.folds)} of {c.folds_of_task} folds"
    seeds = "seed" if len(c.seeds) == 1 else "seeds"
    cells = len(c.seeds) * len(c.folds)
    rest = [f"{side.cells - cells} of {name}" for name, side in (("A", c.a), ("B", c.b))]
    more = [text for text in rest if not text.startswith("0 ")]
    alone = f"; cells without a partner: {', '.join(more)}" if more else ""
    return f"{c.clips:,} clips, paired in {seeds} {join_list(c.seeds)}{folds}{alone}"


def _scores(c: Comparison) -> Table:
    table = _table("", "system")
    for metric in c.a.scores:
        table.add_column(f"{_words(metric)} %", justify="right")
        table.add_column("±", justify="right")
    for name, side in (("A", c.a), ("B", c.b)):
        cells = []
        for metric, score in side.scores.items():
            std = side.stds[metric]
            cells += [percent(score), "" if std is None else percent(std)]
        table.add_row(name, side.system, *cells)
    return table


def _difference(c: Comparison) -> Table:
    name = "A - B" if c.metric == "accuracy" else "A - B, accuracy"
    table = _table("", figures=[name, "95 % interval", "p"])
    drawn = "clips and seeds" if len(c.seeds) > 1 else "clips"
    rows = [(f"paired bootstrap over {drawn}", c.interval, p_value(c.p, LEAST_P))]
    if c.seed_interval:
        rows.append(("over seeds alone, Student's t", c.seed_interval, ""))
    for how, (low, high), p in rows:
        value, start, end = (percent(share, signed=True) for share in (c.difference, low, high))
        table.add_row(how, value, f"{start} to {end}", p)
    return table


def _by_seed_table(c: Comparison) -> Table:
    table = _table("seed", figures=["A %", "B %", "only A right", "only B right", "McNemar p"])
    for each in c.by_seed:
        accuracies = percent(each.accuracy_a), percent(each.accuracy_b)
        table.add_row(
            str(each.seed), *accuracies, str(each.only_a), str(each.only_b), p_value(each.p)
        )
    return table


def _by_class_table(c: Comparison) -> Table:
    table = _table("class", figures=["clips", "A %", "B %", "only A right", "only B right"])
    # Most one-sided first; of hundreds of speakers the rest would bury what matters.
    order = sorted(c.by_class, key=lambda each: -abs(each.only_a - each.only_b))
    for each in order[:CLASSES_SHOWN]:
        accuracies = percent(each.accuracy_a), percent(each.accuracy_b)
        table.add_row(each.name, str(each.clips), *accuracies, str(each.only_a), str(each.only_b))
    return table


def _by_clip_table(c: Comparison) -> Table:
    folds = [] if c.folds == (0,) else ["fold"]
    table = _table("clip", "class", figures=[*folds, "only A right", "only B right"])
    for clip in c.by_clip:
        fold = [str(clip.fold)] if folds else []
        table.add_row(clip.clip, clip.label, *fold, str(clip.only_a), str(clip.only_b))
    return table


def _table(*names: str, figures: list[str] | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in figures or []:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _words(metric: str) -> str:
    return metric.replace("_", " ")
