"""The overview of the page in a real browser: its table, its choices, the profile of a system, and the boards of tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lape_bench.report.formatting import percent
from lape_bench.report.overview import overviews
from lape_bench.results.load import load_results
from tests.lape_bench.report.page.test_html_page import page_of
from tests.lape_bench.report.page.test_page_in_a_browser import (
    browser,  # noqa: F401
    opened,  # noqa: F401
)
from tests.lape_bench.report.test_leaderboard import write_scores

TASKS = ("asc-keywords", "esc10", "fsdd-digits")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("overview")
    random, labels = np.random.default_rng(0), np.arange(60) % 3
    for system, right in (("good", 0.9), ("fair", 0.6), ("<b>partial</b>", 0.5)):
        for task in TASKS[: 1 if "partial" in system else 3]:
            for protocol in ("linear", "knn"):
                for seed in range(2):
                    wrong = random.random(60) > right
                    scores = np.zeros((60, 3), np.float32)
                    scores[np.arange(60), (labels + wrong) % 3] = 5
                    groups = [f"g{clip // 6}" for clip in range(60)]
                    how = {"system": system, "task": task, "protocol": protocol}
                    write_scores(out / "results", labels, scores, seed, groups=groups, **how)
    (out / "page.html").write_text(page_of(out / "results"), encoding="utf-8")
    return out / "page.html"


def table(reader: Any) -> list[list[str]]:
    rows = reader.page.locator("table.overview tbody tr")
    return [row.locator("th, td").all_inner_texts() for row in rows.all()]


def test_it_shows_what_the_command_shows(opened: Any, results: Path) -> None:  # noqa: F811
    shown = table(opened())
    (linear,) = overviews(load_results([results.parent / "results"]), protocol="linear")
    assert [row[0] for row in shown] == [system.system for system in linear.systems]
    for row, system in zip(shown, linear.systems, strict=True):
        scores = [
            percent(system.scores[task].score, 1) if task in system.scores else "—"
            for task in TASKS
        ]
        average = "—" if system.average is None else percent(system.average, 1)
        assert row[1:5] == [*scores, average]
    assert shown[0][5].startswith("1.0")


def test_protocol_and_labels_are_chosen_there_or_by_the_filters(opened: Any) -> None:  # noqa: F811
    reader = opened()
    view = reader.page.get_by_label("Shown in the overview")
    first = table(reader)
    view.select_option(label="knn, all labels")
    assert table(reader) != first
    again = opened(reader.page.evaluate("location.hash"))
    assert table(again) == table(reader)
    reader.page.get_by_role("combobox", name="Protocol", exact=True).select_option("linear")
    assert table(reader) == first
    reader.page.get_by_role("combobox", name="Task").select_option("esc10")
    assert not reader.page.locator("#overview").is_visible()


def test_another_metric_gives_scores_and_ranks_by_it(opened: Any, results: Path) -> None:  # noqa: F811
    reader = opened()
    metric = reader.page.get_by_label("Metric")
    assert metric.locator("option").all_inner_texts() == [
        "accuracy",
        "balanced accuracy",
        "macro f1",
    ]
    metric.select_option("macro f1")
    cells = load_results([results.parent / "results"]).cells
    linear = cells[cells["protocol"] == "linear"]
    expected = linear.groupby(["system", "task"])["macro_f1"].mean().unstack()
    shown = {row[0]: row[1:] for row in table(reader)}
    for system in ("good", "fair"):
        scores = [*expected.loc[system], expected.loc[system].mean()]
        assert shown[system][:4] == [percent(score, 1) for score in scores]
    assert {system: row[4] for system, row in shown.items()} == {
        system: "—" if "partial" in system else f"{rank:.1f}"
        for system, rank in expected.dropna().rank(ascending=False).mean(axis=1).items()
    } | {"<b>partial</b>": "—"}
    assert table(opened(reader.page.evaluate("location.hash"))) == table(reader)


def test_columns_sort_by_mouse_keyboard_and_link_and_missing_scores_stay_last(
    opened: Any,  # noqa: F811
) -> None:
    reader = opened()

    def names() -> list[str]:
        return [row[0] for row in table(reader)]

    assert names() == ["good", "fair", "<b>partial</b>"]
    reader.page.get_by_role("button", name="mean").click()
    assert names() == ["fair", "good", "<b>partial</b>"]
    reader.page.get_by_role("button", name="sort by esc10").click()
    assert names() == ["good", "fair", "<b>partial</b>"]
    reader.page.locator("#overview").get_by_role("button", name="system").focus()
    reader.page.keyboard.press("Enter")
    assert names() == ["<b>partial</b>", "fair", "good"]
    assert reader.page.evaluate("document.activeElement.textContent") == "system"
    head = reader.page.locator("table.overview th[aria-sort=ascending]")
    assert head.inner_text() == "system"
    assert table(opened(reader.page.evaluate("location.hash"))) == table(reader)


def test_a_name_opens_the_profile_by_keyboard_and_gets_the_focus_back(
    opened: Any,  # noqa: F811
) -> None:
    reader = opened()
    button = reader.page.locator(".profile").nth(1)
    button.focus()
    reader.page.keyboard.press("Enter")
    drawer = reader.page.get_by_role("dialog")
    assert drawer.is_visible()
    assert "fair" in reader.page.locator("#drawer-title").inner_text()
    assert drawer.locator("button.link").count() == 2 * len(TASKS)
    assert opened(reader.page.evaluate("location.hash")).page.get_by_role("dialog").is_visible()
    reader.page.keyboard.press("Escape")
    reader.page.wait_for_function("!location.hash.includes('open=')")
    assert button.evaluate("(button) => button === document.activeElement")
    button.click()
    drawer.locator("button.link").first.click()
    assert drawer.get_by_role("heading", name="Confusion matrix").is_visible()


def test_a_task_opens_its_board(opened: Any) -> None:  # noqa: F811
    reader = opened()
    reader.page.get_by_role("button", name="board of esc10").click()
    assert reader.boards() == ["esc10, linear, all labels"]


@pytest.mark.parametrize("width", [400, 1280, 2000])
def test_the_page_never_scrolls_sideways(opened: Any, width: int) -> None:  # noqa: F811
    reader = opened(viewport={"width": width, "height": 800})
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
    header = reader.page.get_by_role("table", name="Systems by tasks").get_by_role("columnheader")
    assert header.count() == 1 + len(TASKS) + 4
