"""Comparisons of systems as tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from lape_bench.core.label_budget import LabelBudget
from lape_bench.report.compare import ComparedSystem, Comparison, ComparisonOverTasks, Verdict
from lape_bench.report.display_names import group_noun
from lape_bench.report.formatting import count, join_list, p_value, percent, points
from lape_bench.report.stats.crossed import LEVEL

ROWS_SHOWN = 20  # classes or groups


def comparison_view(comparison: Comparison) -> Group:
    """Return a comparison on one task as text and tables that rich can print."""
    c = comparison
    parts: list[Any] = [f"{_board(c)}: {_paired(c)}", "", _scores(c), "", _difference(c)]
    parts += _sentences(c)
    parts += ["", _by_seed_table(c)]
    if c.by_group:
        parts += ["", _by_group_table(c)]
        if len(c.by_group) > ROWS_SHOWN:
            parts.append(f"... of {len(c.by_group)} {_groups(c)}; --format json has all")
    parts += ["", _by_class_table(c)]
    if len(c.by_class) > ROWS_SHOWN:
        parts.append(f"... of {len(c.by_class)} classes, the most one-sided; --format json has all")
    if c.by_clip:
        parts += ["", _by_clip_table(c)]
    if c.metric != "accuracy":
        note = f"The difference is of {_words(c.metric)}; the tables of seeds, groups, classes and clips are by accuracy."
        parts += ["", note]
    return Group(*parts)


def comparisons_view(
    comparisons: Sequence[Comparison], over_tasks: Sequence[ComparisonOverTasks]
) -> Group:
    """Return several comparisons, each in a line, and the means over tasks if there are several."""
    margin = comparisons[0].verdict.margin
    parts: list[Any] = []
    table = _table("task", "A", "B", figures=["A %", "B %", *_verdict_headings(margin)])
    for c in comparisons:
        scores = (percent(side.scores[c.metric], 1) for side in (c.a, c.b))
        table.add_row(_board(c), c.a.system, c.b.system, *scores, *_verdict_entries(c.verdict))
    parts += [table]
    over = list(dict.fromkeys(f"{_board(c)}: 95 % interval over {_over(c)}" for c in comparisons))
    parts += ["", *over]
    for c in comparisons:
        if c.verdict.why_untested:
            parts.append(f"{_board(c)}, {c.b.system}: no test, since {c.verdict.why_untested}")
    for o in over_tasks:
        parts += ["", *_over_tasks(o)]
    notes = [side for c in comparisons for side in (c.a, c.b)]
    parts += _upstream_notes(notes)
    parts.append(_holm_note(len(comparisons), margin))
    return Group(*parts)


def _over_tasks(o: ComparisonOverTasks) -> list[Any]:
    table = _table("mean over tasks", figures=_verdict_headings(o.verdict.margin))
    seeds = count(len(o.seeds), "seed")
    table.add_row(f"{o.a} - {o.b}", *_verdict_entries(o.verdict))
    low, high = (percent(end, 1, signed=True) for end in o.task_interval)
    lines = [
        table,
        f"over {seeds} and the groups of these {len(o.tasks)} tasks; it says nothing of other tasks",
        f"the tasks' own differences have a standard deviation of {percent(o.task_std, 1)} points; over tasks alone the 95 % "
        f"interval is {low} to {high}",
    ]
    if o.verdict.why_untested:
        lines.append(f"no test, since {o.verdict.why_untested}")
    return lines


def _board(c: Comparison) -> str:
    budget = LabelBudget.parse(c.labels)
    part = "" if budget.is_all else f", {budget.description}"
    synthetic = " [synthetic]" if c.data == "synthetic" else ""
    protocol = c.a.protocol
    if c.b.protocol != protocol:
        protocol = f"A {c.a.protocol} and B {c.b.protocol}"
    return f"{c.task}{synthetic}, {protocol}{part}"


def _groups(c: Comparison) -> str:
    return group_noun(c.task) if c.grouped else "clips"


def _over(c: Comparison) -> str:
    """Say what the interval of a difference is over."""
    groups = f"{c.groups:,} {_groups(c)}"
    if len(c.seeds) < 2:
        return f"{groups}, of these two runs alone"
    return f"{groups} and {len(c.seeds)} seeds"


def _paired(c: Comparison) -> str:
    folds = "" if c.folds == (0,) else f"; {len(c.folds)} of {c.folds_of_task} folds"
    seeds = "seed" if len(c.seeds) == 1 else "seeds"
    cells = len(c.seeds) * len(c.folds)
    rest = [f"{side.cells - cells} of {name}" for name, side in (("A", c.a), ("B", c.b))]
    more = [text for text in rest if not text.startswith("0 ")]
    alone = f"; cells without a partner: {', '.join(more)}" if more else ""
    groups = f" of {c.groups:,} {_groups(c)}" if c.grouped else ""
    return f"{c.clips:,} clips{groups}, paired in {seeds} {join_list(c.seeds)}{folds}{alone}"


def _scores(c: Comparison) -> Table:
    table = _table("", "system")
    for metric in c.a.scores:
        table.add_column(f"{_words(metric)} %", justify="right")
        table.add_column("±", justify="right")
    for name, side in (("A", c.a), ("B", c.b)):
        cells = []
        for metric, score in side.scores.items():
            std = side.stds[metric]
            cells += [percent(score, 1), "" if std is None else percent(std, 1)]
        table.add_row(name, side.system, *cells)
    return table


def _difference(c: Comparison) -> Table:
    table = _table(figures=_verdict_headings(None)[:3])
    table.add_row(*_verdict_entries(c.verdict)[:3])
    return table


def _verdict_headings(margin: float | None) -> list[str]:
    headings = ["A - B", "95 % interval", "p", "Holm's p"]
    if margin is not None:
        headings += [f"p, A not {points(margin)} worse", f"p, within {points(margin)}"]
    return headings


def _verdict_entries(verdict: Verdict) -> list[str]:
    interval = ""
    if verdict.interval:
        low, high = (percent(end, 1, signed=True) for end in verdict.interval)
        interval = f"{low} to {high}"
    entries = [percent(verdict.difference, 1, signed=True), interval]
    entries += [p_value(verdict.p), p_value(verdict.p_holm)]
    if verdict.margin is not None:
        entries += [p_value(verdict.p_not_worse), p_value(verdict.p_equivalent)]
    return entries


def _sentences(c: Comparison) -> list[str]:
    """Say in words what a difference is over, and what it allows to say."""
    verdict = c.verdict
    lines = [f"The interval is over {_over(c)}."] if verdict.interval else []
    if verdict.p is None:
        lines.append(f"No test of the systems: {verdict.why_untested}.")
    elif verdict.p <= LEVEL:
        better = "A" if verdict.difference > 0 else "B"
        lines.append(f"{better} is better, by a test at the 5 % level over {_over(c)}.")
    else:
        found = ""
        if verdict.detectable is not None:
            found = (
                f"; a difference of about {percent(verdict.detectable, 1)} points would be found in 4 of 5 such "
                "experiments"
            )
        lines.append(f"A and B cannot be told apart{found}.")
    if verdict.margin is not None and verdict.p_not_worse is not None:
        lines += _margin_sentences(verdict.margin, verdict.p_not_worse, verdict.p_equivalent)
    return lines + _upstream_notes((c.a, c.b))


def _margin_sentences(margin: float, p_not_worse: float, p_equivalent: float | None) -> list[str]:
    within = f"{points(margin)} points"
    shown = "" if p_not_worse <= LEVEL else "not shown to be "
    lines = [
        f"A is {shown}at least as good as B, less {within} (one-sided p {p_value(p_not_worse)})."
    ]
    if p_equivalent is not None:
        shown = "" if p_equivalent <= LEVEL else "are not shown to "
        lines.append(f"A and B {shown}differ by less than {within} (p {p_value(p_equivalent)}).")
    return lines


def _upstream_notes(sides: Sequence[ComparedSystem]) -> list[str]:
    fixed = list(dict.fromkeys(side.system for side in sides if side.fixed_upstream))
    if not fixed:
        return []
    return [
        f"All seeds of {join_list(fixed)} rest on one pre-trained upstream: how much another pre-training run would differ "
        "is not in this."
    ]


def _holm_note(comparisons: int, margin: float | None) -> str:
    note = f"Holm's p is corrected for the {comparisons} comparisons that were made here together."
    return note if margin is None else f"{note} The p values of a margin are not corrected."


def _by_seed_table(c: Comparison) -> Table:
    figures = ["A %", "B %", "only A right", "only B right", "McNemar p, these runs"]
    table = _table("seed", figures=figures)
    for each in c.by_seed:
        accuracies = percent(each.accuracy_a, 1), percent(each.accuracy_b, 1)
        table.add_row(
            str(each.seed), *accuracies, str(each.only_a), str(each.only_b), p_value(each.p)
        )
    return table


def _by_group_table(c: Comparison) -> Table:
    table = _table(group_noun(c.task)[:-1], figures=["clips", "A %", "B %", "A - B"])
    rows = sorted(c.by_group, key=lambda each: each.accuracy_b - each.accuracy_a)
    for each in rows if len(rows) <= ROWS_SHOWN else _ends(rows):
        difference = percent(each.accuracy_a - each.accuracy_b, 1, signed=True)
        accuracies = percent(each.accuracy_a, 1), percent(each.accuracy_b, 1)
        table.add_row(each.name, str(each.clips), *accuracies, difference)
    return table


def _ends(rows: Sequence[Any]) -> list[Any]:
    """Take the first and the last rows."""
    half = ROWS_SHOWN // 2
    return [*rows[:half], *rows[-half:]]


def _by_class_table(c: Comparison) -> Table:
    table = _table("class", figures=["clips", "A %", "B %", "only A right", "only B right"])
    # Most one-sided first; of hundreds of speakers the rest would bury what matters.
    order = sorted(c.by_class, key=lambda each: -abs(each.only_a - each.only_b))
    for each in order[:ROWS_SHOWN]:
        accuracies = percent(each.accuracy_a, 1), percent(each.accuracy_b, 1)
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
