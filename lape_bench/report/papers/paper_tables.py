"""A paper's tables from cells: systems by tasks in groups with averages, ablations, label fractions.

What cannot be compared never meets in a row or an average: real and synthetic audio, protocols, label fractions, other
settings, versions of a system, versions and other preparations of a task. A figure that is missing is a dash, and an
average over a part of the tasks says which.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from lape_bench.core.errors import UserError
from lape_bench.data.catalog import load_card, suite_tasks
from lape_bench.data.readers.synthetic import SUFFIX
from lape_bench.report.formatting import count, join_list, percent
from lape_bench.report.leaderboard import as_data, leaderboard
from lape_bench.report.papers.published import PublishedFigure
from lape_bench.report.papers.row_assignment import assign_rows, newest_versions, row_label
from lape_bench.report.papers.specification import PaperSpecification, PaperSystem
from lape_bench.report.table import NONE, Table, TableColumn, TableEntry, TableRow
from lape_bench.task import TaskCard

FEWER, DEVIATION = "†", "±"
AVERAGE, DIFFERENCE, PARAMETERS, CHANGE = "average", "Δ", "encoder", "change"
ALL_TASKS = "All tasks"
PUBLISHED = "published"
MILLIONS_FROM = 100_000
Figures = dict[str, dict[str, Any]]  # of a row: task -> its line of the leaderboard
Groups = dict[str, list[TaskCard]]


class _Figure(NamedTuple):
    """An entry, and what it is ranked by; none where it must not be compared."""

    entry: TableEntry
    ranked: float | None = None


def paper_tables(
    paper: PaperSpecification, cells: pd.DataFrame, published: Sequence[PublishedFigure] = ()
) -> list[Table]:
    """Lay out the tables of a paper.

    Args:
        paper: what stands in them; its suite, protocol and label fraction choose the cells.
        cells: as `load_results` gives them.
        published: figures of others; those of the table's protocol and tasks stand in a block of their own.

    Returns:
        The main table; the ablation table and that of label fractions where there is a cell for them.

    Raises:
        UserError: an unknown suite, no task of which is in the paper's groups, or no cell for the main table.
    """
    groups = _groups(paper)
    cards = [card for group in groups.values() for card in group]
    assigned, strangers = assign_rows(paper, cells, cards)
    main = _Sheet(paper, groups, assigned, paper.systems, [paper.label_fraction])
    if not main.figures:
        raise UserError(
            f"there is no finished cell of the suite '{paper.suite}', {paper.protocol} with "
            f"{_labels(paper.label_fraction)}, for the paper's systems",
            allowed=f"finished: {_finished(cells)}",
            next_step="choose by --suite, --protocol and --label-fraction, or run something",
        )
    synthetic = any(card.data == "synthetic" for card in cards)
    measured = f"{_metrics(cards)} in %, {paper.protocol}"
    suite = f"suite {paper.suite}" + (" (generated audio)" if synthetic else "")
    asked = f"{measured}, {_labels(paper.label_fraction)}, {suite}"
    main.fill(sizes=True)
    if not synthetic and paper.label_fraction == 1:
        main.fill_published(published)
    sheets = {f"{paper.title}: {asked}": main}
    if paper.ablations:
        base = paper.system(paper.ablations.base)
        rows = (base, *paper.ablated)
        sheet = _Sheet(paper, groups, assigned, rows, [paper.label_fraction])
        sheet.fill(base=base)
        if any(sheet.has(spec) for spec in paper.ablated):
            sheets[f"{paper.title}, ablations of {base.label}: {asked}"] = sheet
        else:
            main.remarks.append("No ablation has a cell here.")
    if paper.label_fractions:
        sheet = _Sheet(paper, groups, assigned, paper.systems, sorted(paper.label_fractions))
        sheet.fill()
        if len(sheet.blocks) > 1:
            sheets[f"{paper.title}, label fractions: {measured}, {suite}"] = sheet
        else:
            main.remarks.append("No two label fractions have a cell here.")
    if strangers:
        main.remarks.append(f"Not in the rows of this paper: {'; '.join(strangers)}.")
    return [sheet.table(title) for title, sheet in sheets.items()]


class _Sheet:
    """One table while it is filled.

    Attributes:
        figures: row label and label fraction -> the figures of that row.
        blocks: label fractions that have a figure, in order.
        remarks: what holds of the whole table, such as what was left out.
    """

    def __init__(
        self,
        paper: PaperSpecification,
        groups: Groups,
        assigned: pd.DataFrame,
        specs: Sequence[PaperSystem],
        fractions: Sequence[float],
    ) -> None:
        self.paper, self.groups, self.specs, self.fractions = paper, groups, specs, fractions
        self.cards = [card for group in groups.values() for card in group]
        wanted = assigned["label"].isin([spec.label for spec in specs])
        kept, self.remarks = newest_versions(
            assigned[wanted & assigned["label_fraction"].isin(fractions)]
        )
        runs = kept[["system", "name", "settings"]].itertuples(index=False)
        self.runs = {label: {"name": name, "settings": text} for label, name, text in runs}
        self.extra_settings: dict[str, set[str]] = {}
        for label, extra in zip(kept["label"], kept["extra_settings"], strict=True):
            self.extra_settings.setdefault(label, set()).add(extra)
        self.figures: dict[tuple[str, float], Figures] = {}
        for line in as_data(leaderboard(kept)) if len(kept) else ():
            key = (line["system"], line["label_fraction"])
            self.figures.setdefault(key, {})[line["task"]] = line
        self.blocks = [f for f in fractions if any(f == key[1] for key in self.figures)]
        self.most_seeds = max(
            (line["seeds"] for row in self.figures.values() for line in row.values()), default=0
        )
        self.filled: list[TableRow] = []
        self.notes: dict[str, str] = {}
        self.fewer: dict[str, list[str]] = {}  # row and what it lacks -> headings
        self.columns: list[TableColumn] = []

    def has(self, spec: PaperSystem) -> bool:
        """Tell whether a row of this system has a figure."""
        return any(label in self.labels(spec) for label, _ in self.figures)

    def labels(self, spec: PaperSystem) -> list[str]:
        """Return the labels of a system's rows: as described, and a row for each set of further settings."""
        extra_settings = sorted(self.extra_settings.get(spec.label, {""}))
        return [row_label(spec.label, extra) for extra in extra_settings]

    def fill(self, sizes: bool = False, base: PaperSystem | None = None) -> None:
        """Write the rows of our own figures.

        Args:
            sizes: whether parameters stand beside the averages.
            base: the system that the averages of the others are compared with.
        """
        self._head(sizes, base)
        several = len(self.fractions) > 1
        for fraction in self.blocks:
            rows = []
            for spec in self.specs:
                if several and not self.has(spec):
                    continue
                for label in self.labels(spec):
                    row = self.figures.get((label, fraction), {})
                    figures = self._row(label, row)
                    if base:
                        figures.append(self._difference(spec, base, label, row))
                    figures += self._size(_encoders(row)) if sizes else []
                    rows.append(figures)
            block = _labels(fraction) if several else ""
            self.filled += [TableRow(entries, block) for entries in _ranked(rows)]
        empty = [_labels(fraction) for fraction in self.fractions if fraction not in self.blocks]
        if empty and several:
            self.remarks.append(f"No cell with {' or '.join(empty)}.")

    def fill_published(self, published: Sequence[PublishedFigure]) -> None:
        """Write the rows of figures that others published, below ours; none is ranked or averaged."""
        measured = {card.reference for card in self.cards if card.metric == "accuracy"}
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
        said = [f"{row} on {join_list(tasks)}" for row, tasks in self.fewer.items()]
        fewer = count(self.most_seeds, "seed")
        dagger = {FEWER: f"Fewer than {fewer}, or not every fold: {'; '.join(said)}."}
        notes = {mark: text for text, mark in self.notes.items()}
        return Table(
            tuple(self.columns),
            tuple(self.filled),
            title,
            (dagger if self.fewer else {}) | notes,
            (*self._behind(), *self.remarks),
        )

    def _behind(self) -> list[str]:
        """Say how many seeds and folds stand behind the figures, and what ± is."""
        lines = [line for row in self.figures.values() for line in row.values()]
        if not lines:
            return []
        folds = {line["task"]: line["folds_of_task"] for line in lines if line["folds_of_task"] > 1}
        known = [card for card in self.cards if card.reference in folds]
        told = ", ".join(f"{folds[card.reference]} of {self._heading(card)}" for card in known)
        mean = f"; tasks with folds are averaged over them first ({told})" if known else ""
        what = "Means over {} ± sample deviation" if self.most_seeds > 1 else "Figures are of {}"
        published = [
            entry for row in self.filled if row.block == PUBLISHED for entry in row.entries
        ]
        theirs = "; ± of published figures as published" if any(map(_deviates, published)) else ""
        return [f"{what.format(count(self.most_seeds, 'seed'))}{mean}{theirs}."]

    def _head(self, sizes: bool, base: PaperSystem | None) -> None:
        """Write the headings, and what those beside the last average mean."""
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
            told = "; ".join(f"{heading}: {meaning}" for heading, meaning in meanings.items())
            self.remarks.insert(0, f"{told}.")

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
            part = f" with {_labels(line['label_fraction'])}" if len(self.fractions) > 1 else ""
            self.fewer.setdefault(f"{label}{part} ({lacks})", []).append(self._heading(card))
        std = line["std"]
        small = "" if pd.isna(std) else f"{DEVIATION} {percent(std, 1)}"
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
        twin = base.label + label.removeprefix(spec.label)
        other = self.figures.get((twin, self.fractions[0]), {})
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
            marks += (self._note(f"Not of the same seeds as {twin} on {tasks}."),)
        facts = {"difference": points, "against": twin, "tasks": list(row)}
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
        """Return the reference's encoder parameters, where its rows agree on them."""
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


def _groups(paper: PaperSpecification) -> Groups:
    """Return the suite's tasks by the paper's groups, in its order; groups without a task are left out."""
    cards = [load_card(task) for task in suite_tasks(paper.suite)]
    order = {name: place for place, name in enumerate(paper.headings)}
    cards.sort(key=lambda card: order.get(card.name.removesuffix(SUFFIX), len(order)))
    found = {
        group.title: [card for card in cards if card.domain in group.domains]
        for group in paper.groups
    }
    grouped = {title: members for title, members in found.items() if members}
    apart = [
        card.name for card in cards if not any(card in members for members in grouped.values())
    ]
    if apart:
        raise UserError(
            f"the paper '{paper.title}' has no group for {', '.join(apart)} of the suite '{paper.suite}'",
            next_step="add the domains of these tasks to its groups, or choose another --suite",
        )
    return grouped


def _ranked(rows: Sequence[Sequence[_Figure]]) -> list[tuple[TableEntry, ...]]:
    """Mark the best of each column, and the second where there is a third."""
    columns = []
    for figures in zip(*rows, strict=True):
        compared = [figure.ranked for figure in figures if figure.ranked is not None]
        first, second = [*sorted(set(compared), reverse=True), None, None][:2]
        ranks: dict[float | None, Literal["", "best", "second"]] = {}
        if len(compared) > 1:
            ranks[first] = "best"
        if len(compared) > 2:
            ranks[second] = "second"
        ranks[None] = ""
        columns.append([f.entry._replace(rank=ranks.get(f.ranked, "")) for f in figures])
    return list(zip(*columns, strict=True))


def _published_entry(figure: PublishedFigure | None) -> TableEntry:
    if figure is None:
        return TableEntry(NONE)
    score, small = figure.accuracy_percent / 100, ""
    facts = {"published": True, "task": figure.task, "protocol": figure.protocol}
    facts |= {"score": score, "source": figure.source}
    if figure.std_percent is not None:
        facts["std"] = std = figure.std_percent / 100
        small = f"{DEVIATION} {percent(std, 1)}"
    return TableEntry(percent(score, 1), small, facts=facts)


def _deviates(entry: TableEntry) -> bool:
    return entry.small.startswith(DEVIATION)


def _encoders(row: Figures) -> set[int]:
    return {int(line["encoder_parameters"]) for line in row.values()}


def _labels(fraction: float) -> str:
    return "all labels" if fraction == 1 else f"{100 * fraction:.3g} % of the labels"


def _metrics(cards: Sequence[TaskCard]) -> str:
    return " and ".join(sorted({card.metric.replace("_", " ") for card in cards}))


def _finished(cells: pd.DataFrame) -> str:
    tasks: dict[str, set[str]] = {}
    told = zip(cells["protocol"], cells["label_fraction"], cells["task"], strict=True)
    for protocol, fraction, task in told:
        tasks.setdefault(f"{protocol} with {_labels(fraction)}", set()).add(task)
    return "; ".join(f"{how} on {join_list(sorted(names))}" for how, names in tasks.items())


def _signed(difference: float, digits: int) -> str:
    """Write a difference of shares in percent with the sign that is set in print."""
    return percent(difference, digits, signed=True).replace("-", "\N{MINUS SIGN}")


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= MILLIONS_FROM else f"{parameters:,}"
