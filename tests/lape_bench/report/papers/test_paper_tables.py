"""A paper's tables, from cells that were made by hand: what meets in a row, what does not, what is said of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape_bench.core.config import validate
from lape_bench.core.errors import UserError
from lape_bench.data.catalog import load_card, suite_tasks
from lape_bench.report.papers.paper_tables import paper_tables
from lape_bench.report.papers.published import PublishedFigure
from lape_bench.report.papers.row_assignment import PROVENANCE_REMARK
from lape_bench.report.papers.specification import PaperSpecification
from lape_bench.report.table import NONE, Table, TableEntry, TableRow, as_data, as_json
from tests.lape_bench.report.test_leaderboard import write

SPEECH = ["asc-keywords", "asc-speaker", "fsdd-digits"]
OPEN = [*SPEECH, "esc10"]
PAPER = {
    "title": "Ours",
    "suite": "open",
    "protocol": "linear",
    "groups": [
        {"title": "Speech", "domains": ["speech"]},
        {"title": "Non-speech", "domains": ["sound", "music", "bioacoustics"]},
    ],
    "headings": {"asc-speaker": "WHO", "asc-keywords": "KWS"},
    "defaults": {"net": {"width": 2048}},
    "systems": [
        {"label": "Floor", "name": "floor"},
        {"label": "Net", "name": "net", "settings": {"width": 2048}},
        {"label": "Small net", "name": "net", "settings": {"width": 512}},
    ],
    "reference": "Net",
    "ablations": {"base": "Net", "rows": [{"label": "no loss", "settings": {"loss": 0}}]},
    "label_budgets": ["10%", "100%"],
}


def cell(task: str = "esc10", accuracy: float = 0.5, **how: Any) -> dict[str, Any]:
    """A finished cell; folds and seeds are asked for one by one."""
    settings_ = how.pop("settings", {})
    name = how.pop("name", "net")
    changed = ", ".join(f"{key}={value}" for key, value in settings_.items())
    return {
        "system": f"{name} ({changed})" if changed else name,
        "name": name,
        "settings": json.dumps(settings_),
        "task": task,
        "data": load_card(task).data,
        "metric": "accuracy",
        "protocol": "linear",
        "labels": "100%",
        "seed": 0,
        "fold": 0,
        "folds_of_task": 1,
        "manifest_hash": "m" * 64,
        "card_version": 1,
        "protocol_version": 1,
        "provenance_hash": "",
        "upstream": "",
        "training_labels": 180.0,
        "selection_labels": 0.0,
        "system_version": 1,
        "parameters": 110,
        "encoder_parameters": 100,
        "seconds": 1.0,
        "reference": 0,
        "contamination": "",
        "accuracy": accuracy,
    } | how


def tables(*cells: dict[str, Any], published: Any = (), **changes: Any) -> list[Table]:
    paper = validate({**PAPER, **changes}, PaperSpecification, where="test")
    return paper_tables(paper, pd.DataFrame(cells), published)


def rows(table: Table, block: str = "") -> dict[str, dict[str, TableEntry]]:
    """A block's rows by label, their entries by heading."""
    return {
        row.entries[0].text: dict(zip(table.headings[1:], row.entries[1:], strict=True))
        for row in table.rows
        if row.block == block
    }


def told(table: Table) -> Any:
    """All of a table as data that can be compared, without NaN."""
    return json.loads(as_json(as_data(table)))


def texts(row: dict[str, TableEntry]) -> dict[str, str]:
    return {heading: entry.text for heading, entry in row.items() if entry.text != NONE}


ALL = [cell(task, 0.1 * n) for n, task in enumerate(OPEN, start=2)]  # 0.2, 0.3, 0.4; 0.5


def test_tasks_stand_in_their_groups_in_the_order_of_the_headings_with_averages() -> None:
    (main,) = tables(*ALL)
    assert [(c.group, c.heading) for c in main.columns] == [
        ("", "system"),
        *[("Speech", heading) for heading in ("WHO", "KWS", "fsdd-digits", "average")],
        *[("Non-speech", heading) for heading in ("esc10", "average")],
        *[("All tasks", heading) for heading in ("average", "encoder", "change")],
    ]
    assert texts(rows(main)["Net"]) == {
        "KWS": "20.0",
        "WHO": "30.0",
        "fsdd-digits": "40.0",
        "Speech: average": "30.0",
        "esc10": "50.0",
        "Non-speech: average": "50.0",
        "All tasks: average": "35.0",
        "encoder": "100",
        "change": "0",
    }


def test_a_system_without_a_cell_is_a_row_of_dashes_and_a_missing_task_a_dash() -> None:
    (main,) = tables(cell("esc10"))
    assert list(rows(main)) == ["Floor", "Net", "Small net"]
    assert texts(rows(main)["Floor"]) == {}
    assert rows(main)["Net"]["KWS"].text == NONE


def test_a_figure_is_the_mean_over_seeds_of_the_mean_over_folds() -> None:
    scores = np.random.default_rng(0).random((3, 5))
    folds = [
        cell("esc10", float(scores[seed, fold]), seed=seed, fold=fold + 1, folds_of_task=5)
        for seed in range(3)
        for fold in range(5)
    ]
    entry = rows(tables(*folds)[0])["Net"]["esc10"]
    by_seed = scores.mean(axis=1)
    assert entry.text == f"{100 * by_seed.mean():.1f}"
    assert entry.small == f"± {100 * by_seed.std(ddof=1):.1f}"
    assert entry.facts["score"] == pytest.approx(scores.mean())
    assert (entry.facts["seeds"], entry.facts["folds"]) == (3, 5)
    assert entry.facts["manifest_hash"] == "m" * 64


def test_one_column_rounds_all_its_halves_up() -> None:
    (main,) = tables(cell("esc10", 0.9225), cell("esc10", 0.9025, name="floor"))
    assert [rows(main)[label]["esc10"].text for label in ("Net", "Floor")] == ["92.3", "90.3"]


@pytest.mark.parametrize(
    ("seeds", "folds", "said"),
    [
        (1, 1, "Figures are of 1 seed."),
        (3, 1, "Means over 3 seeds ± sample standard deviation."),
        (
            2,
            5,
            "Means over 2 seeds ± sample standard deviation; tasks with folds are averaged over them first (5 of esc10).",
        ),
    ],
)
def test_a_table_says_what_its_deviation_is_and_how_many_seeds_and_folds_stand_behind_it(
    seeds: int, folds: int, said: str
) -> None:
    cells = [
        cell("esc10", 0.5 + 0.1 * seed, seed=seed, fold=fold, folds_of_task=folds)
        for seed in range(seeds)
        for fold in range(1, folds + 1)
    ]
    speech = [cell("asc-keywords", seed=seed) for seed in range(seeds)]
    (main,) = tables(*cells, *speech)
    assert main.remarks[0] == said


def test_the_deviation_of_published_figures_is_said_to_be_theirs() -> None:
    figures = [published("esc10", 99.0, std_percent=0.5)], [published("esc10", 99.0)]
    said = [tables(*ALL, published=each)[0].remarks[0] for each in figures]
    assert said == [
        "Figures are of 1 seed; ± of published figures as published.",
        "Figures are of 1 seed.",
    ]


def test_fewer_seeds_and_missing_folds_are_marked_and_told_and_so_are_averages_over_them() -> None:
    whole = [cell(task, seed=seed) for task in OPEN for seed in (0, 1)]
    few = [cell("asc-keywords", name="floor"), cell("esc10", name="floor", fold=1, folds_of_task=5)]
    (main,) = tables(*whole, *few)
    marked = {
        (label, heading)
        for label, row in rows(main).items()
        for heading, entry in row.items()
        if "†" in entry.marks
    }
    averages = ("Speech: average", "Non-speech: average", "All tasks: average")
    assert marked == {("Floor", heading) for heading in ("KWS", "esc10", *averages)}
    assert main.notes["†"] == (
        "Fewer than 2 seeds, or not every fold: Floor (1 seed) on KWS; Floor (1 seed, 1 of 5 folds) on esc10."
    )


def test_a_figure_over_a_part_of_the_folds_is_not_ranked() -> None:
    part = cell("esc10", 0.9, name="floor", fold=1, folds_of_task=5)
    whole = [cell("esc10", 0.4, fold=fold, folds_of_task=5) for fold in range(1, 6)]
    small = [{**each, **cell("esc10", 0.3, settings={"width": 512}, fold=each["fold"], folds_of_task=5)} for each in whole]  # fmt: skip
    found = rows(tables(part, *whole, *small)[0])
    assert [found[label]["esc10"].rank for label in ("Floor", "Net", "Small net")] == ["", "best", ""]  # fmt: skip


def test_figures_that_differ_by_rounding_alone_share_a_mark() -> None:
    net = [cell("esc10", score, seed=seed) for seed, score in enumerate((0.1, 0.2, 0.3))]
    floor = [
        cell("esc10", score, name="floor", seed=seed) for seed, score in enumerate((0.3, 0.2, 0.1))
    ]
    found = rows(tables(*net, *floor)[0])
    assert [found[label]["esc10"].rank for label in ("Floor", "Net")] == ["best", "best"]


def test_an_average_over_a_part_of_the_tasks_says_so_and_is_never_best() -> None:
    part = [cell(task, 0.9, name="floor") for task in ("asc-speaker", "esc10")]
    small = [cell(task, 0.1, settings={"width": 512}) for task in OPEN]
    (main,) = tables(*ALL, *part, *small)
    found = rows(main)
    average = found["Floor"]["Speech: average"]
    assert (average.text, average.small, average.rank) == ("90.0", "(1 of 3)", "")
    assert [main.notes[mark] for mark in average.marks] == ["Average over WHO alone."]
    whole = found["Floor"]["All tasks: average"]
    assert whole.small == "(2 of 4)"
    assert [main.notes[mark] for mark in whole.marks] == ["Average over WHO and esc10 alone."]
    assert found["Net"]["Speech: average"].rank == "best"
    assert found["Net"]["All tasks: average"].rank == "best"


def test_best_and_second_of_each_column_are_marked_and_ties_share_a_mark() -> None:
    found = rows(
        tables(
            cell("esc10", 0.5, name="floor"),
            cell("esc10", 0.7),
            cell("esc10", 0.7, settings={"width": 512}),
            cell("asc-speaker", 0.5, name="floor"),
            cell("asc-speaker", 0.6),
            cell("asc-speaker", 0.4, settings={"width": 512}),
            cell("asc-keywords", 0.4),
        )[0]
    )
    ranks = {h: [found[label][h].rank for label in ("Floor", "Net", "Small net")] for h in found["Net"]}  # fmt: skip
    assert ranks["esc10"] == ["second", "best", "best"]
    assert ranks["WHO"] == ["second", "best", ""]
    assert ranks["KWS"] == ["", "", ""], "one figure is the best of nothing"


def test_further_settings_are_rows_of_their_own_and_the_row_that_asks_for_most_claims() -> None:
    (main,) = tables(
        cell("esc10", 0.1),
        cell("esc10", 0.2, settings={"corpus": ["a", "b"]}),
        cell("esc10", 0.3, settings={"width": 512, "corpus": ["a", "b"]}),
        cell("esc10", 0.4, settings={"width": 512}),
        cell("esc10", 0.5, settings={"width": 64}),
    )
    figures = {label: row["esc10"].text for label, row in rows(main).items()}
    assert figures == {
        "Floor": NONE,
        "Net": "10.0",
        "Net (corpus=a,b)": "20.0",
        "Small net": "40.0",
        "Small net (corpus=a,b)": "30.0",
    }
    assert "Not in the rows of this paper: net (width=64)." in main.remarks


def test_a_default_that_was_given_by_hand_is_the_same_row() -> None:
    (main,) = tables(cell("esc10", 0.2), cell("esc10", 0.4, seed=1, settings={"width": 2048}))
    assert rows(main)["Net"]["esc10"].text == "30.0"


def test_an_older_version_of_a_system_is_left_out_of_every_row_and_named() -> None:
    (main,) = tables(
        cell("esc10", 0.9, system_version=3),
        cell("asc-keywords", 0.1, system_version=2),
        cell("esc10", 0.1, system_version=2, settings={"width": 512}),
        cell("esc10", 0.2, system_version=2, provenance_hash="abc", name="floor"),
        cell("esc10", 0.3, system_version=2, provenance_hash="def", name="floor"),
    )
    found = rows(main)
    assert texts(found["Net"])["esc10"] == "90.0"
    assert found["Net"]["KWS"].text == NONE
    assert texts(found["Small net"]) == {}
    assert texts(found["Floor"])["esc10"] == "30.0", "of equal numbers what was finished last"
    assert (
        "Left out, for the newest counts: net version 2 (2 cells); floor version 2-abc (1 cell)."
        in main.remarks
    )


def test_rows_keep_their_own_weights_and_a_remark_says_that_these_differ() -> None:
    (main,) = tables(
        cell("esc10", 0.2, provenance_hash="abc", settings={"width": 512}),
        cell("esc10", 0.3, provenance_hash="def", settings={"width": 512}),
        cell("esc10", 0.4, provenance_hash="123"),
    )
    found = rows(main)
    assert [found[label]["esc10"].text for label in ("Net", "Small net")] == ["40.0", "30.0"]
    assert "Left out, for the newest counts: net version 1-abc (1 cell)." in main.remarks
    assert f"Rows of net {PROVENANCE_REMARK}." in main.remarks


def test_of_a_task_one_preparation_counts_and_of_the_protocol_one_version() -> None:
    (main,) = tables(
        cell("esc10", 0.1, manifest_hash="b" * 64, card_version=2, protocol_version=1, seed=1),
        cell(
            "esc10", 0.2, manifest_hash="a" * 64, card_version=1, protocol_version=1, name="floor"
        ),
        cell("asc-speaker", 0.3, manifest_hash="c" * 64, card_version=1, protocol_version=1),
        cell(
            "asc-speaker",
            0.4,
            manifest_hash="d" * 64,
            card_version=1,
            protocol_version=1,
            name="floor",
        ),
        cell("asc-keywords", 0.9, manifest_hash="e" * 64, card_version=9, protocol_version=0),
    )
    found = rows(main)
    assert texts(found["Net"]) == {
        "esc10": "10.0",
        "Non-speech: average": "10.0",
        "All tasks: average": "10.0",
        "encoder": "100",
        "change": "0",
    }
    assert {h for h in texts(found["Floor"]) if "average" not in h} == {"WHO", "encoder", "change"}
    (said,) = [remark for remark in main.remarks if remark.startswith("Left out")]
    for part in ("protocol version 0", "esc10 of card version 1, manifest aaaaaa", "manifest cccccc"):  # fmt: skip
        assert part in said


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "knn"},
        {"labels": "10%"},
        {"task": "fsdd-digits@official"},
        {"task": "esc10-synthetic"},
        {"data": "synthetic"},
    ],
    ids=str,
)
def test_what_is_no_cell_of_the_table_changes_nothing_in_it(other: dict[str, Any]) -> None:
    alone = tables(*ALL, label_budgets=[])
    beside = tables(*ALL, {**cell("esc10", 0.9, name="floor"), **other}, label_budgets=[])
    assert list(map(told, beside)) == list(map(told, alone))


def test_a_suite_of_generated_audio_says_so_and_takes_no_real_or_published_figure() -> None:
    twins = suite_tasks("open-synthetic")
    figure = PublishedFigure(system="P", task="esc10", protocol="linear", accuracy_percent=1, source="x")  # fmt: skip
    (main,) = tables(cell(twins[0], 0.3), cell("esc10", 0.9), suite="open-synthetic", published=[figure])  # fmt: skip
    assert "generated audio" in main.title
    assert "KWS" in main.headings, "a twin has the heading of its task"
    assert "90.0" not in {entry.text for row in main.rows for entry in row.entries}
    assert {row.block for row in main.rows} == {""}


def test_parameters_are_those_of_the_encoder_and_compared_with_the_reference() -> None:
    (main,) = tables(
        cell("esc10", encoder_parameters=5_321_856),
        cell("esc10", settings={"width": 512}, encoder_parameters=3_223_680),
        cell("esc10", name="floor", encoder_parameters=0),
    )
    sizes = {label: (row["encoder"].text, row["change"].text) for label, row in rows(main).items()}
    assert sizes == {
        "Net": ("5.32 M", "0"),
        "Small net": ("3.22 M", "\N{MINUS SIGN}39"),
        "Floor": ("0", "\N{MINUS SIGN}100"),
    }


def test_without_a_figure_of_the_reference_nothing_is_compared_with_it() -> None:
    (main,) = tables(cell("esc10", name="floor"))
    assert rows(main)["Floor"]["encoder"].text == "100"
    assert rows(main)["Floor"]["change"].text == NONE


def test_a_paper_without_a_reference_has_no_column_that_compares_sizes() -> None:
    (main,) = tables(*ALL, reference=None)
    assert main.columns[-1].heading == "encoder"
    assert len(main.rows[0].entries) == len(main.columns)


def test_ablations_are_compared_with_the_base_of_the_same_settings_over_the_same_tasks() -> None:
    plain = [cell(task, 0.1 * n, settings={"loss": 0}) for n, task in enumerate(OPEN, start=1)]
    corpus = [cell("esc10", 0.8, settings={"corpus": "a"}), cell("esc10", 0.6, settings={"loss": 0, "corpus": "a"})]  # fmt: skip
    stray = cell("esc10", 0.1, settings={"loss": 0, "corpus": "b"})
    main, ablations = tables(*ALL, *plain, *corpus, stray)
    assert "no loss" not in rows(main)
    found = rows(ablations)
    assert list(found) == [
        "Net",
        "Net (corpus=a)",
        "no loss",
        "no loss (corpus=a)",
        "no loss (corpus=b)",
    ]
    assert {label: row["Δ"].text for label, row in found.items()} == {
        "Net": NONE,
        "Net (corpus=a)": NONE,
        "no loss": "\N{MINUS SIGN}10.0",
        "no loss (corpus=a)": "\N{MINUS SIGN}20.0",
        "no loss (corpus=b)": NONE,
    }
    (mark,) = found["no loss (corpus=a)"]["Δ"].marks
    assert ablations.notes[mark] == "Average over esc10 alone."


def test_a_difference_between_other_seeds_or_of_fewer_is_marked() -> None:
    ablated = {"settings": {"loss": 0}}
    same = [cell("asc-speaker", seed=seed, **how) for seed in (0, 1) for how in ({}, ablated)]
    base = [cell("esc10", seed=seed) for seed in (0, 1)]

    def notes(*cells: dict[str, Any]) -> list[str]:
        table = tables(*same, *base, *cells)[1]
        marks = rows(table)["no loss"]["Δ"].marks
        assert ("†" in marks) == (len(cells) == 1)
        return [table.notes[mark] for mark in marks if mark != "†"]

    part = "Average over WHO and esc10 alone."
    assert notes(*(cell("esc10", seed=seed, **ablated) for seed in (0, 1))) == [part]
    others = "Not of the same seeds as Net on esc10."
    assert notes(*(cell("esc10", seed=seed, **ablated) for seed in (1, 2))) == [part, others]
    assert notes(cell("esc10", **ablated)) == [part, others]


def test_no_difference_is_taken_where_folds_are_missing_or_the_base_lacks_a_task() -> None:
    ablated = {"settings": {"loss": 0}, "folds_of_task": 2}
    base = [cell("esc10", 0.5, fold=fold, folds_of_task=2) for fold in (1, 2)]
    half = [cell("esc10", 0.4, fold=1, **ablated)]
    both = [cell("esc10", 0.4, fold=fold, **ablated) for fold in (1, 2)]
    more = [*both, cell("asc-speaker", 0.4, settings={"loss": 0})]
    found = [rows(tables(*base, *cells)[1])["no loss"]["Δ"].text for cells in (half, both, more)]
    assert found == [NONE, "\N{MINUS SIGN}10.0", NONE]


def test_label_budgets_are_blocks_that_are_ranked_by_themselves() -> None:
    both = [
        cell("esc10", score, labels=f"{100 * fraction:g}%", **system)
        for fraction, scores in ((0.1, (0.3, 0.2)), (1.0, (0.5, 0.6)))
        for score, system in zip(scores, ({}, {"settings": {"width": 512}}), strict=True)
    ]
    _, by_budget = tables(*both, label_budgets=["1%", "10%", "100%"])
    few, whole = rows(by_budget, "10 % of labels"), rows(by_budget, "all labels")
    assert list(few) == list(whole) == ["Net", "Small net"]
    assert (few["Net"]["esc10"].text, few["Net"]["esc10"].rank) == ("30.0", "best")
    assert (whole["Net"]["esc10"].text, whole["Net"]["esc10"].rank) == ("50.0", "")
    assert by_budget.remarks[-1] == "No cell with 1 % of labels."


def test_tables_without_a_cell_are_named_below_the_first() -> None:
    (main,) = tables(*ALL)
    assert main.remarks[-2:] == (
        "No ablation has a cell here.",
        "No two label budgets have a cell here.",
    )


def published(task: str, percent: float, **how: Any) -> PublishedFigure:
    values = {"system": "P", "protocol": "linear", "source": "a README"} | how
    return PublishedFigure(task=task, accuracy_percent=percent, **values)


def test_published_figures_stand_in_their_own_block_unranked_unaveraged_with_their_source() -> None:
    theirs = [
        published("esc10", 99.0, std_percent=0.5, encoder_parameters=200),
        published("asc-speaker", 98.0),
        published("esc10", 97.0, source="a paper"),
        published("esc10", 96.0, system="Q", protocol="finetune"),
        published("fsdd-digits@official", 95.0, system="R"),
        published("us8k", 94.0, system="S"),
    ]
    ours = [*ALL, *(cell(task, 0.1, name="floor") for task in OPEN)]
    without, beside = tables(*ours)[0], tables(*ours, published=theirs)[0]
    assert told(beside)["rows"][: len(without.rows)] == told(without)["rows"]
    block = beside.rows[len(without.rows) :]
    assert {row.block for row in block} == {"published"}
    assert [texts(dict(zip(beside.headings, row.entries, strict=True))) for row in block] == [
        {"system": "P", "WHO": "98.0", "esc10": "99.0", "encoder": "200", "change": "+100"},
        {"system": "P", "esc10": "97.0"},
    ]
    assert all(not entry.rank for row in block for entry in row.entries)
    sources = [[beside.notes[mark] for mark in row.entries[0].marks] for row in block]
    assert sources == [
        ["Published, with other code: a README."],
        ["Published, with other code: a paper."],
    ]


def test_published_figures_are_of_all_labels_and_in_no_other_table() -> None:
    few = [cell(task, 0.3, labels="10%") for task in OPEN]
    main, fractions = tables(*few, *ALL, labels="10%", published=[published("esc10", 99.0)])
    for table in (main, fractions):
        assert "published" not in {row.block for row in table.rows}


def test_no_cell_for_the_table_is_a_mistake_that_says_what_there_is() -> None:
    with pytest.raises(
        UserError,
        match=r"no finished cell of the suite 'open', knn with all labels.*"
        r"finished: linear with all labels on esc10; choose by --suite",
    ):
        tables(cell("esc10"), protocol="knn")


def test_a_task_whose_domain_has_no_group_is_named() -> None:
    with pytest.raises(UserError, match="no group for esc10 of the suite 'open'"):
        tables(*ALL, groups=PAPER["groups"][:1])


SYSTEMS = st.sampled_from(
    [{"name": "floor"}, {}, {"settings": {"width": 512}}, {"settings": {"x": 1}}]
)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(SYSTEMS, st.sampled_from(OPEN), st.integers(0, 2), st.floats(0, 1)),
        min_size=1,
        unique_by=lambda drawn: (str(drawn[0]), drawn[1], drawn[2]),
    )
)
def test_whatever_is_missing_an_average_is_the_mean_of_the_figures_of_its_row(
    drawn: list[tuple[dict[str, Any], str, int, float]],
) -> None:
    cells = [cell(task, score, seed=seed, **system) for system, task, seed, score in drawn]
    main = tables(*cells, label_budgets=[], ablations=None)[0]
    for row in rows(main).values():
        figures = [row[h] for h in ("WHO", "KWS", "fsdd-digits", "esc10")]
        known = [entry.facts["score"] for entry in figures if entry.text != NONE]
        average = row["All tasks: average"]
        if known:
            assert average.facts["score"] == pytest.approx(np.mean(known))
            assert (average.small == "") == (len(known) == len(OPEN))
        else:
            assert average.text == NONE


def test_a_row_is_as_wide_as_the_table() -> None:
    for table in tables(
        *ALL, cell("esc10", settings={"loss": 0}), published=[published("esc10", 9)]
    ):
        assert all(isinstance(row, TableRow) for row in table.rows)
        assert {len(row.entries) for row in table.rows} == {len(table.columns)}


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv", "latex", "json"])
def test_the_command_line_fills_an_installed_paper_from_records_in_every_format(
    format: str, bench: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    scores = [
        write(tmp_path / "r", seed, task="esc10", system="supervised", fold=fold, folds=5)
        for seed in range(2)
        for fold in range(1, 6)
    ]
    own = tmp_path / "own.csv"
    own.write_text(
        "system,task,protocol,accuracy_percent,source\nElsewhere,esc10,linear,12.3,a_b & c\n"
    )
    asked = ["report", "--out", str(tmp_path / "r"), "--paper", "unfused", "--suite", "open"]
    code, out, _ = bench(
        *asked, "--protocol", "linear", "--published", str(own), "--format", format
    )
    assert code == 0
    mean = np.mean(scores)
    assert f"{100 * mean:.1f}" in out
    assert "Elsewhere" in out
    if format == "json":
        figures = [
            entry["facts"]["score"]
            for row in json.loads(out)["tables"][0]["rows"]
            for entry in row["entries"]
            if row["label"] == "Supervised" and entry["column"] == "esc10"
        ]
        assert figures == [pytest.approx(mean)]
    code, out, _ = bench(*asked, "--protocol", "linear", "--no-published", "--format", format)
    assert code == 0
    assert "Elsewhere" not in out
