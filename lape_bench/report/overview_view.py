"""Writers of the overview: terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from lape_bench.core.label_budget import LabelBudget
from lape_bench.report.formatting import count, first_few, percent
from lape_bench.report.leaderboard import REFERENCE_MARK, REFERENCE_NOTES
from lape_bench.report.overview import Overview, OverviewScore, OverviewSystem
from lape_bench.report.stats.crossed import with_ties
from lape_bench.report.table import Table, TableColumn, TableEntry, TableRow

NARROWEST_NAME = 16  # characters of a system
TASK_WIDTH = 10  # characters of a column of scores, at most
RANK_NOTE = "rank: mean over tasks; in parentheses the means of the best and the worst rank that a test allows"
PART_NOTE = "without every fold of the task, and so in no mean or rank"
CONTAMINATION_NOTE = (
    "contamination: the most that a system has heard of a task's test set, as its authors say"
)
SUMMARY = ("mean", "rank", "params", "s")
CONTAMINATION = "contami-\nnation"


def title(overview: Overview) -> str:
    """Name the selection of an overview, such as `linear, 5 labels per class`."""
    budget = LabelBudget.parse(overview.labels).description
    synthetic = ", synthetic audio" if overview.data == "synthetic" else ""
    return f"{overview.protocol}, {budget}{synthetic}"


def notes(overview: Overview) -> list[str]:
    """Return the lines that belong below an overview."""
    lines = []
    if any(system.average_rank_interval for system in overview.systems):
        lines.append(RANK_NOTE)
    parts = [
        f"{system.system} on {task} ({count(score.folds, 'fold')})"
        for system in overview.systems
        for task, score in system.scores.items()
        if not score.complete
    ]
    if parts:
        lines.append(f"{PART_NOTE}: {first_few(parts)}")
    if any(system.reference for system in overview.systems):
        submitted = any(system.reference and system.contamination for system in overview.systems)
        lines.append(REFERENCE_NOTES[submitted])
    if shows_contamination(overview):
        lines.append(CONTAMINATION_NOTE)
    return lines


def shows_contamination(overview: Overview) -> bool:
    """Return True if the card of a system says more than that nothing of a test set was heard."""
    return any(system.contamination not in (None, "none") for system in overview.systems)


def name_of(system: OverviewSystem) -> str:
    """Return a system's name, marked if others ran its results."""
    return system.system + REFERENCE_MARK * system.reference


def rank_text(system: OverviewSystem) -> str:
    """Write an average rank with its interval, such as `2.3 (1.5-3.0)`."""
    if system.average_rank is None:
        return ""
    if system.average_rank_interval is None:
        return f"{system.average_rank:.1f}"
    low, high = system.average_rank_interval
    return f"{system.average_rank:.1f} ({low:.1f}\u2013{high:.1f})"


def short_count(number: int | None) -> str:
    """Write a number of parameters in few characters, such as 600k or 5.3M."""
    if number is None:
        return "?"
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            share = number / size
            return f"{share:.1f}{letter}" if share < 10 else f"{share:.0f}{letter}"
    return str(number)


def as_table(overview: Overview) -> Table:
    """Return an overview as a table for Markdown and LaTeX; the best score of a task in bold."""
    best = {
        task.task: sorted(
            {
                _ranked(s.scores[task.task])
                for s in overview.systems
                if task.task in s.scores and s.scores[task.task].complete
            }
        )[-2:]
        for task in overview.tasks
    }
    contaminated = shows_contamination(overview)
    rows = []
    for system in overview.systems:
        entries = [TableEntry(name_of(system))]
        for task in overview.tasks:
            score = system.scores.get(task.task)
            if score is None:
                entries.append(TableEntry("—"))
                continue
            leading = best[task.task]
            rank: Any = ""
            if len(overview.systems) > 1 and score.complete and _ranked(score) in leading:
                rank = "best" if _ranked(score) == leading[-1] else "second"
            std = "" if score.std is None else f"± {percent(score.std, 1)}"
            entries.append(TableEntry(percent(score.score, 1), std, rank))
        average = "—" if system.average is None else percent(system.average, 1)
        cost = (short_count(system.encoder_parameters), f"{system.seconds:.0f}")
        entries += map(TableEntry, (average, rank_text(system) or "—", *cost))
        if contaminated:
            entries.append(TableEntry(system.contamination or "—"))
        rows.append(TableRow(tuple(entries)))
    headings = [*(task.task for task in overview.tasks), "mean", "rank", "parameters", "seconds"]
    headings += ["contamination"] if contaminated else []
    columns = (TableColumn("system", left=True), *map(TableColumn, headings))
    return Table(columns, tuple(rows), title(overview), remarks=tuple(notes(overview)))


def _ranked(score: OverviewScore) -> float:
    """Return the score by which it is the best of a task or not."""
    return float(with_ties(score.score))


def as_csv(overviews: Sequence[Overview]) -> str:
    """Write overviews as CSV: one line for each score, with the fields of its system; unrounded."""
    lines = []
    for overview in overviews:
        metrics = {task.task: task.metric for task in overview.tasks}
        head = overview.model_dump(include={"schema_version", "data", "protocol", "labels"})
        for system in overview.systems:
            own = system.model_dump(exclude={"scores", "average_rank_interval", "contamination"})
            low, high = system.average_rank_interval or ("", "")
            own |= {"average_rank_low": low, "average_rank_high": high}
            for task, score in system.scores.items():
                values = score.model_dump(exclude={"rank"})
                best, worst = score.rank or ("", "")
                ranks = {"rank_best": best, "rank_worst": worst}
                lines.append(head | own | {"task": task, "metric": metrics[task]} | values | ranks)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(lines[0] if lines else ())], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: "" if value is None else value for name, value in line.items()} for line in lines
    )
    return text.getvalue()


def as_json(overviews: Sequence[Overview]) -> str:
    """Write overviews as JSON: a list of objects with the fields of `Overview`."""
    return json.dumps([each.model_dump(mode="json") for each in overviews], indent=2) + "\n"


class OverviewView:
    """An overview that rich can print; tasks that do not fit beside the summary follow below it.

    Args:
        overview: what to print.
        marked: name of a system that is printed in bold, or an empty string.
    """

    def __init__(self, overview: Overview, marked: str = "") -> None:
        self.overview, self.marked = overview, marked

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the overview out for the console's width."""
        yield Text(title(self.overview), "bold")
        tasks = [task.task for task in self.overview.tasks]
        widths = [max(map(len, [*_heading(task).split("\n"), "100.0"])) + 2 for task in tasks]
        longest_rank = max([4, *(len(rank_text(system)) for system in self.overview.systems)])
        summary = 6 + longest_rank + 2 + 8 + 6
        summary += (2 + 9) * shows_contamination(self.overview)
        room = options.max_width - NARROWEST_NAME - summary
        start = 0
        while start < len(tasks) or not start:
            end, left = start, room if not start else options.max_width - NARROWEST_NAME
            while end < len(tasks) and (left >= widths[end] or end == start):
                left -= widths[end]
                end += 1
            if start:
                yield ""
            yield self._part(tasks[start:end], with_summary=not start)
            start = max(end, 1)
        for note in notes(self.overview):
            yield Text(note)

    def _part(self, tasks: Sequence[str], with_summary: bool) -> RichTable:
        table = RichTable(box=None, pad_edge=False, header_style="bold")
        table.add_column("system", overflow="fold")
        summary = SUMMARY if with_summary else ()
        contaminated = with_summary and shows_contamination(self.overview)
        for heading in [*map(_heading, tasks), *summary, *([CONTAMINATION] * contaminated)]:
            table.add_column(Text(heading), justify="right", no_wrap=True, vertical="bottom")
        for system in self.overview.systems:
            scores = (system.scores.get(task) for task in tasks)
            entries = ["" if score is None else percent(score.score, 1) for score in scores]
            if with_summary:
                average = "" if system.average is None else percent(system.average, 1)
                cost = (short_count(system.encoder_parameters), f"{system.seconds:.0f}")
                entries += [average, rank_text(system), *cost]
                entries += [system.contamination or ""] * contaminated
            style = "bold" if system.system == self.marked else ""
            table.add_row(Text(name_of(system)), *map(Text, entries), style=style)
        return table


def _heading(task: str) -> str:
    """Write the name of a task in lines of at most `TASK_WIDTH` characters, as far as its hyphens allow."""
    lines = [""]
    for part in task.replace("-", "-\0").replace("@", "\0@").replace(" ", "\0").split("\0"):
        if lines[-1] and len(lines[-1] + part) > TASK_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
