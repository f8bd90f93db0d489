"""Build the tables of a paper from cells: systems by tasks, with averages over groups of tasks, ablations and label
budgets.

A row or an average never mixes real and synthetic audio, protocols, label budgets, settings, versions of a system, or
versions and preparations of a task. A missing score is a dash, and an average over some of the tasks names them.
"""

from collections.abc import Sequence

import pandas as pd

from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import LabelBudget, budget_order
from lape_bench.data.catalog import load_card, suite_tasks
from lape_bench.data.readers.synthetic import SUFFIX
from lape_bench.report.formatting import join_list
from lape_bench.report.papers.published import PublishedFigure
from lape_bench.report.papers.row_assignment import assign_rows
from lape_bench.report.papers.specification import PaperSpecification, PaperSystem
from lape_bench.report.papers.table_builder import Groups, TableBuilder, labels_text
from lape_bench.report.table import Table


def paper_tables(
    paper: PaperSpecification, cells: pd.DataFrame, published: Sequence[PublishedFigure] = ()
) -> list[Table]:
    """Lay out the tables of a paper.

    Args:
        paper: the description of the tables; its suite, protocol and label budget select the cells.
        cells: as returned by `load_results`.
        published: published scores; those with the table's protocol and tasks form a block of their own.

    Returns:
        The main table; the ablation table and that of label budgets where there is a cell for them.

    Raises:
        UserError: an unknown suite, no task of which is in the paper's groups, or no cell for the main table.
    """
    groups = _groups(paper)
    cards = [card for group in groups.values() for card in group]
    # Papers publish accuracies, whatever a task is ranked by elsewhere.
    assigned, without_row = assign_rows(paper, cells.assign(metric="accuracy"), cards)
    main = TableBuilder(paper, groups, assigned, paper.systems, [paper.labels])
    if not main.figures:
        raise UserError(
            f"there is no finished cell of the suite '{paper.suite}', {paper.protocol} with "
            f"{labels_text(paper.labels)}, for the paper's systems",
            allowed=f"finished: {_finished(cells)}",
            next_step="choose by --suite, --protocol and --labels, or run something",
        )
    synthetic = any(card.data == "synthetic" for card in cards)
    measure = f"accuracy in %, {paper.protocol}"
    suite = f"suite {paper.suite}" + (" (generated audio)" if synthetic else "")
    details = f"{measure}, {labels_text(paper.labels)}, {suite}"
    main.add_rows(sizes=True)
    if not synthetic and LabelBudget.parse(paper.labels).is_all:
        main.add_published_rows(published)
    builders = {f"{paper.title}: {details}": main}
    if paper.ablations:
        base = paper.system(paper.ablations.base)
        ablations = _ablations(paper, groups, assigned, base)
        if any(ablations.has(row) for row in paper.ablated):
            builders[f"{paper.title}, ablations of {base.label}: {details}"] = ablations
        else:
            main.remarks.append("No ablation has a cell here.")
    if paper.label_budgets:
        budgets = sorted(paper.label_budgets, key=budget_order)
        by_budget = TableBuilder(paper, groups, assigned, paper.systems, budgets)
        by_budget.add_rows()
        if len(by_budget.blocks) > 1:
            builders[f"{paper.title}, label budgets: {measure}, {suite}"] = by_budget
        else:
            main.remarks.append("No two label budgets have a cell here.")
    if without_row:
        main.remarks.append(f"Not in the rows of this paper: {'; '.join(without_row)}.")
    return [builder.table(title) for title, builder in builders.items()]


def _ablations(
    paper: PaperSpecification, groups: Groups, assigned: pd.DataFrame, base: PaperSystem
) -> TableBuilder:
    builder = TableBuilder(paper, groups, assigned, (base, *paper.ablated), [paper.labels])
    builder.add_rows(base=base)
    return builder


def _groups(paper: PaperSpecification) -> Groups:
    """Return the suite's tasks by the paper's groups, in its order; groups without a task are left out."""
    cards = [load_card(task) for task in suite_tasks(paper.suite)]
    order = {name: place for place, name in enumerate(paper.headings)}
    cards.sort(key=lambda card: order.get(card.name.removesuffix(SUFFIX), len(order)))
    by_title = {
        group.title: [card for card in cards if card.domain in group.domains]
        for group in paper.groups
    }
    grouped = {title: members for title, members in by_title.items() if members}
    apart = [
        card.name for card in cards if not any(card in members for members in grouped.values())
    ]
    if apart:
        raise UserError(
            f"the paper '{paper.title}' has no group for {', '.join(apart)} of the suite '{paper.suite}'",
            next_step="add the domains of these tasks to its groups, or choose another --suite",
        )
    return grouped


def _finished(cells: pd.DataFrame) -> str:
    tasks: dict[str, set[str]] = {}
    for protocol, labels, task in zip(
        cells["protocol"], cells["labels"], cells["task"], strict=True
    ):
        tasks.setdefault(f"{protocol} with {labels_text(labels)}", set()).add(task)
    return "; ".join(f"{how} on {join_list(sorted(names))}" for how, names in tasks.items())
