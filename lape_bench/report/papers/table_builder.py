"""One table of a paper while it is filled: rows of systems, averages, differences, sizes and footnotes."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from lape_bench.core.label_budget import LabelBudget
from lape_bench.data.readers.synthetic import SUFFIX
from lape_bench.report.formatting import count, join_list, percent
from lape_bench.report.leaderboard import as_data, leaderboard
from lape_bench.report.papers.published import PublishedFigure
from lape_bench.report.papers.row_assignment import newest_versions, row_label
from lape_bench.report.papers.specification import PaperSpecification, PaperSystem
from lape_bench.report.stats.crossed import with_ties
from lape_bench.report.table import NONE, Table, TableColumn, TableEntry, TableRow
from lape_bench.task import TaskCard

FEWER, PLUS_MINUS = "†", "±"
AVERAGE, DIFFERENCE, PARAMETERS, CHANGE = "average", "Δ", "encoder", "change"
ALL_TASKS = "All tasks"
PUBLISHED = "published"
MILLIONS_FROM = 100_000  # parameters
Figures = dict[str, dict[str, Any]]  # of a row: task -> its row of the leaderboard
Groups = dict[str, list[TaskCard]]


class _Figure(NamedTuple):
    """An entry, and the score that it is ranked by; None if it must not be compared."""

    entry: TableEntry
    ranked: float | None = None


class TableBuilder:
    """One table of a paper.

    Attributes:
        figures: row label and label budget -> the figures of that row.
        blocks: label budgets that have a figure, in order.
        remarks: lines about the whole table, such as cells that were left out.
    """

    def __init__(
        self,
        paper: PaperSpecification,
        groups: Groups,
        assigned: pd.DataFrame,
        specs: Sequence[PaperSystem],
        budgets: Sequence[str],
    ) -> None:
        self.paper, self.groups, self.specs, self.budgets = paper, groups, specs, budgets
        self.cards = [card for group in groups.values() for card in group]
        in_rows = assigned["label"].isin([spec.label for spec in specs])
        kept, self.remarks = newest_versions(assigned[in_rows & assigned["labels"].isin(budgets)])
        runs = kept[["system", "name", "settings"]].itertuples(index=False)
        self.runs = {label: {"name": name, "settings": text} for label, name, text in runs}
        self.extra_settings: dict[str, set[str]] = {}
        for label, extra in zip(kept["label"], kept["extra_settings"], strict=True):
            self.extra_settings.setdefault(label, set()).add(extra)
        self.figures: dict[tuple[str, str], Figures] = {}
        for line in as_data(leaderboard(kept)) if len(kept) else ():
            key = (line["system"], line["labels"])
            self.figures.setdefault(key, {})[line["task"]] = line
        self.blocks = [b for b in budgets if any(b == key[1] for key in self.figures)]
        self.most_seeds = max(
            (line["seeds"] for row in self.figures.values() for line in row.values()), default=0
        )
        self.filled: list[TableRow] = []
        self.notes: dict[str, str] = {}
        self.fewer: dict[str, list[str]] = {}  # row and what it lacks -> headings
        self.columns: list[TableColumn] = []

    def has(self, spec: PaperSystem) -> bool:
        """Return whether a row of this system has a figure."""
        return any(label in self.labels(spec) for label, _ in self.figures)

    def labels(self, spec: PaperSystem) -> list[str]:
        """Return the labels of a system's rows: as described, and a row for each set of further settings."""
        extra_settings = sorted(self.extra_settings.get(spec.label, {""}))
        return [row_label(spec.label, extra) for extra in extra_settings]

    def add_rows(self, sizes: bool = False, base: PaperSystem | None = None) -> None:
        """Write the rows of our own figures.

        Args:
            sizes: whether to show parameters beside the averages.
            base: the system that the averages of the others are compared with.
        """
        self._add_columns(sizes, base)
        several = len(self.budgets) > 1
        for budget in self.blocks:
            rows = []
            for spec in self.specs:
                if several and not self.has(spec):
                    continue
                for label in self.labels(spec):
                    row = self.figures.get((label, budget), {})
                    figures = self._row(label, row)
                    if base:
                        figures.append(self._difference(spec, base, label, row))
                    figures += self._size(_encoders(row)) if sizes else []
                    rows.append(figures)
            block = labels_text(budget) if several else ""
            self.filled += [TableRow(entries, block) for entries in _ranked(rows)]
        empty = [labels_text(budget) for budget in self.budgets if budget not in self.blocks]
        if empty and several:
            self.remarks.append(f"No cell with {' or '.join(empty)}.")

    def add_published_rows(self, published: Sequence[PublishedFigure]) -> None:
        """Write the rows of figures that others published, below ours; none is ranked or averaged."""
        measured = {card.reference for card in self.cards}
        rows: dict[tuple[str, str], dict[str, PublishedFigure]] = {}
        for figure in published:
            if figure.protocol == self.paper.protocol and figure.task in measured:
                rows.setdefault((figure.system, figure.source), {})[figure.task] = figure
        for (system, source), figures in rows.items():
            entries = [
                TableEntry(system, marks=(self._note(f"Published, with other code: {source}."),))
            ]
            for cards in self.groups.values():
                entries += [_published_entry(figures.get(card.reference)) for card in cards]
                entries.append(TableEntry(NONE))
            known = [figure.encoder_parameters for figure in figures.values()]
            sizes = [figure.entry for figure in self._size({n for n in known if n is not None})]
            self.filled.append(TableRow((*entries, TableEntry(NONE), *sizes), PUBLISHED))
        others = {f.protocol for f in published if f.task in measured} - {self.paper.protocol}
        if others and not rows:
            self.remarks.append(
                f"Of {self.paper.protocol} no published figure is known on these tasks; of "
                f"{' and '.join(sorted(others))} there are some."
            )

    def table(self, title: str) -> Table:
        """Return the finished table."""
        lacking = [f"{row} on {join_list(tasks)}" for row, tasks in self.fewer.items()]
        fewer = count(self.most_seeds, "seed")
        dagger = {FEWER: f"Fewer than {fewer}, or not every fold: {'; '.join(lacking)}."}
        notes = {mark: text for text, mark in self.notes.items()}
        return Table(
            tuple(self.columns),
            tuple(self.filled),
            title,
            (dagger if self.fewer else {}) | notes,
            (*self._basis(), *self.remarks),
        )

    def _basis(self) -> list[str]:
        """Say over how many seeds and folds the figures are means, and what ± is."""
        lines = [line for row in self.figures.values() for line in row.values()]
        if not lines:
            return []
        folds = {line["task"]: line["folds_of_task"] for line in lines if line["folds_of_task"] > 1}
        known = [card for card in self.cards if card.reference in folds]
        folds_text = ", ".join(
            f"{folds[card.reference]} of {self._heading(card)}" for card in known
        )
        mean = f"; tasks with folds are averaged over them first ({folds_text})" if known else ""
        template = (
            "Means over {} ± sample standard deviation"
            if self.most_seeds > 1
            else "Figures are of {}"
        )
        published = [
            entry for row in self.filled if row.block == PUBLISHED for entry in row.entries
        ]
        theirs = "; ± of published figures as published" if any(map(_has_std, published)) else ""
        basis = [f"{template.format(count(self.most_seeds, 'seed'))}{mean}{theirs}."]
        if any(entry.rank for row in self.filled for entry in row.entries):
            basis.append("The best two of a column are marked without a test.")
        return basis

    def _add_columns(self, sizes: bool, base: PaperSystem | None) -> None:
        """Write the headings, and explain those beside the last average."""
        self.columns = [TableColumn("system", left=True)]
        for title, cards in self.groups.items():
            headings = [self._heading(card) for card in cards]
            self.columns += [TableColumn(heading, title) for heading in [*headings, AVERAGE]]
        self.columns.append(TableColumn(AVERAGE, ALL_TASKS))
        meanings = {}
        if base:
            meanings[DIFFERENCE] = (
                f"points of the average against {base.label}, over the same tasks"
            )
        if sizes:
            meanings[PARAMETERS] = "parameters of the encoder"
        if sizes and self.paper.reference:
            meanings[CHANGE] = f"the same against {self.paper.reference}, in %"
            if self._reference() is None:
                meanings[CHANGE] += ", which has no encoder of one size here"
        self.columns += [TableColumn(heading, ALL_TASKS) for heading in meanings]
        if meanings:
            explained = [f"{heading}: {meaning}" for heading, meaning in meanings.items()]
            self.remarks.insert(0, f"{'; '.join(explained)}.")

    def _row(self, label: str, row: Figures) -> list[_Figure]:
        figures = [_Figure(TableEntry(label))]
        for cards in self.groups.values():
            figures += [self._figure(label, card, row.get(card.reference)) for card in cards]
            figures.append(self._average(row, cards))
        return [*figures, self._average(row, self.cards)]

    def _figure(self, label: str, card: TaskCard, line: dict[str, Any] | None) -> _Figure:
        if line is None:
            return _Figure(TableEntry(NONE))
        marks = (FEWER,) if self._has_fewer(line) else ()
        if marks:
            lacks = count(line["seeds"], "seed")
            if not line["complete"]:
                lacks += f", {line['folds']} of {line['folds_of_task']} folds"
            part = f" with {labels_text(line['labels'])}" if len(self.budgets) > 1 else ""
            self.fewer.setdefault(f"{label}{part} ({lacks})", []).append(self._heading(card))
        std = line["std"]
        small = "" if pd.isna(std) else f"{PLUS_MINUS} {percent(std, 1)}"
        facts = line | self.runs[line["system"]]
        entry = TableEntry(percent(line["score"], 1), small, marks=marks, facts=facts)
        return _Figure(entry, line["score"] if line["complete"] else None)

    def _average(self, row: Figures, cards: Sequence[TaskCard]) -> _Figure:
        """Average a row's figures over those of the tasks that it has."""
        lines = [row[card.reference] for card in cards if card.reference in row]
        if not lines:
            return _Figure(TableEntry(NONE))
        mean = statistics.fmean(line["score"] for line in lines)
        marks: tuple[str, ...] = (FEWER,) if any(map(self._has_fewer, lines)) else ()
        small = ""
        if len(lines) < len(cards):
            small = f"({len(lines)} of {len(cards)})"
            marks += (self._note(f"Average over {self._names(row, cards)} alone."),)
        facts = {"score": mean, "tasks": [line["task"] for line in lines], "tasks_of": len(cards)}
        whole = not small and all(line["complete"] for line in lines)
        return _Figure(
            TableEntry(percent(mean, 1), small, marks=marks, facts=facts), mean if whole else None
        )

    def _difference(
        self, spec: PaperSystem, base: PaperSystem, label: str, row: Figures
    ) -> _Figure:
        """Compare a row's average with that of the base with the same further settings, over the row's tasks."""
        base_label = base.label + label.removeprefix(spec.label)
        other = self.figures.get((base_label, self.budgets[0]), {})
        pairs = [(line, other.get(task)) for task, line in row.items()]
        whole = [(a, b) for a, b in pairs if b is not None and a["complete"] and b["complete"]]
        if spec is base or not row or len(whole) < len(row):
            return _Figure(TableEntry(NONE))
        points = statistics.fmean(a["score"] - b["score"] for a, b in whole)
        few = any(self._has_fewer(line) for pair in whole for line in pair)
        marks: tuple[str, ...] = (FEWER,) if few else ()
        if len(row) < len(self.cards):
            marks += (self._note(f"Average over {self._names(row, self.cards)} alone."),)
        others = {a["task"]: a for a, b in whole if a["seed_numbers"] != b["seed_numbers"]}
        if others:
            tasks = self._names(others, self.cards)
            marks += (self._note(f"Not of the same seeds as {base_label} on {tasks}."),)
        facts = {"difference": points, "against": base_label, "tasks": list(row)}
        return _Figure(TableEntry(_signed(points, 1), marks=marks, facts=facts))

    def _size(self, encoders: set[int]) -> list[_Figure]:
        """Return parameters of a row's encoder, and how they differ from those of the reference, if there is one."""
        counts = sorted(encoders)
        size = change = TableEntry(NONE)
        if counts:
            ends = dict.fromkeys([counts[0], counts[-1]])
            text = "\N{EN DASH}".join(map(_count, ends))
            size = TableEntry(text, facts={"encoder_parameters": counts})
        reference = self._reference()
        if len(counts) == 1 and reference:
            share = counts[0] / reference - 1
            facts = {"change": share, "reference": self.paper.reference}
            change = TableEntry(_signed(share, 0), facts=facts)
        return [_Figure(size), *([_Figure(change)] if self.paper.reference else [])]

    def _reference(self) -> int | None:
        """Return the reference's encoder parameters, if its rows agree on them."""
        if self.paper.reference is None:
            return None
        labels = self.labels(self.paper.system(self.paper.reference))
        known = {
            n for (label, _), row in self.figures.items() if label in labels for n in _encoders(row)
        }
        return known.pop() if len(known) == 1 else None

    def _has_fewer(self, line: Mapping[str, Any]) -> bool:
        return not line["complete"] or line["seeds"] < self.most_seeds

    def _heading(self, card: TaskCard) -> str:
        return self.paper.headings.get(card.name.removesuffix(SUFFIX), card.name)

    def _names(self, row: Figures, cards: Sequence[TaskCard]) -> str:
        return join_list([self._heading(card) for card in cards if card.reference in row])

    def _note(self, text: str) -> str:
        return self.notes.setdefault(text, str(len(self.notes) + 1))


def _ranked(rows: Sequence[Sequence[_Figure]]) -> list[tuple[TableEntry, ...]]:
    """Mark the best entry of each column, and the second if there are at least three."""
    columns = []
    for figures in zip(*rows, strict=True):
        scores = [
            None if figure.ranked is None else float(with_ties(figure.ranked)) for figure in figures
        ]
        compared = [score for score in scores if score is not None]
        first, second = [*sorted(set(compared), reverse=True), None, None][:2]
        ranks: dict[float | None, Literal["", "best", "second"]] = {}
        if len(compared) > 1:
            ranks[first] = "best"
        if len(compared) > 2:
            ranks[second] = "second"
        ranks[None] = ""
        columns.append(
            [
                figure.entry._replace(rank=ranks.get(score, ""))
                for figure, score in zip(figures, scores, strict=True)
            ]
        )
    return list(zip(*columns, strict=True))


def _published_entry(figure: PublishedFigure | None) -> TableEntry:
    if figure is None:
        return TableEntry(NONE)
    score, small = figure.accuracy_percent / 100, ""
    facts = {"published": True, "task": figure.task, "protocol": figure.protocol}
    facts |= {"score": score, "source": figure.source}
    if figure.std_percent is not None:
        facts["std"] = std = figure.std_percent / 100
        small = f"{PLUS_MINUS} {percent(std, 1)}"
    return TableEntry(percent(score, 1), small, facts=facts)


def _has_std(entry: TableEntry) -> bool:
    return entry.small.startswith(PLUS_MINUS)


def _encoders(row: Figures) -> set[int]:
    counts = [line["encoder_parameters"] for line in row.values()]
    return {int(count) for count in counts if not pd.isna(count)}


def _signed(difference: float, digits: int) -> str:
    """Write a difference of shares in percent with the sign that is set in print."""
    return percent(difference, digits, signed=True).replace("-", "\N{MINUS SIGN}")


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= MILLIONS_FROM else f"{parameters:,}"


def labels_text(labels: str) -> str:
    """Write a label budget in words, such as "10 % of labels"."""
    return LabelBudget.parse(labels).description
