"""The page in a real browser: what a reader does with it, by mouse, keyboard, phone and link."""

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lape_bench.report.formatting import percent
from lape_bench.report.leaderboard import leaderboard
from lape_bench.report.page.html_page import page
from lape_bench.results.cells import PREPARATION, read_cells
from lape_bench.results.load import load_results
from tests.lape_bench.report.page.test_html_page import CELLS, add, curve, data_of, page_of
from tests.lape_bench.report.test_leaderboard import stages, write, write_scores

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="the extra [test] is not installed")
if CHROMIUM is None:
    pytest.skip("there is no Chromium here: apt install chromium", allow_module_level=True)

HOSTILE = "</script><b>x</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the repository's board, and of records with curves, two of them on synthetic data."""
    out = tmp_path_factory.mktemp("page")
    for seed in range(2):
        write(
            out / "results", seed, system=HOSTILE, settings={"epochs": 3}, stages=stages(train=60)
        )
        write(out / "results", seed, data="synthetic")
    add(
        out / "results",
        curves=curve(20),
        settings={"epochs": 3, "width": 8},
        environment={"device": "cpu"},
    )
    (out / "page.html").write_text(page_of(CELLS, out / "results"), encoding="utf-8")
    return out / "page.html"


class Reader:
    """Somebody with the page open; notes what the page says to the console and asks of the network."""

    def __init__(self, browser: Any, path: Path, fragment: str = "", **how: Any) -> None:
        self.context = browser.new_context(**{"reduced_motion": "reduce", **how})
        self.page, self.said, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = path.as_uri()
        self.page.goto(self.address + fragment)

    def systems(self, board: int = 0) -> list[str]:
        names: list[str] = (
            self.page.locator("section.board").nth(board).locator(".system").all_text_contents()
        )
        return names

    def column(self, name: str, board: int = 0) -> list[float]:
        """A column of numbers of one board, by its heading."""
        table = self.page.locator("section.board").nth(board).locator("table")
        heads = table.locator("thead th").all_text_contents()
        place = next(n for n, head in enumerate(heads) if head.startswith(name))
        cells = table.locator(f"tbody tr td:nth-child({place + 1})").all_text_contents()
        return [float(re.sub(r"[^\d.]", "", cell)) for cell in cells]

    def boards(self) -> list[str]:
        titles: list[str] = self.page.locator("section.board h2").all_text_contents()
        return titles


@pytest.fixture
def opened(browser: Any, results: Path) -> Iterator[Any]:
    """Open the page as often as a test likes; at its end, it must have kept quiet and to itself."""
    readers: list[Reader] = []

    def open_(fragment: str = "", path: Path = results, **how: Any) -> Reader:
        readers.append(Reader(browser, path, fragment, **how))
        return readers[-1]

    yield open_
    for reader in readers:
        assert reader.said == []
        assert {url.partition("#")[0] for url in reader.asked} <= {reader.address, "data:,"}
        reader.context.close()


def test_boards_stand_apart_and_show_what_the_leaderboard_shows(opened: Any, results: Path) -> None:
    reader = opened()
    board = leaderboard(load_results([CELLS, results.parent / "results"]).cells)
    sizes = board.groupby(["task", "data", "protocol", "labels", *PREPARATION], sort=False).size()
    assert len(reader.boards()) == len(sizes)
    shown = [reader.column("accuracy", n) for n in range(len(sizes))]
    assert [score for scores in shown for score in scores] == [
        float(percent(score, 1)) for score in board["score"]
    ]
    assert [title for title in reader.boards() if "synthetic" in title] == [reader.boards()[-1]]


def test_halves_are_rounded_as_in_every_other_report(browser: Any, tmp_path: Path) -> None:
    scores = [
        0.92145,
        0.7465,
        0.57875,
        0.1005,
        0.0005,
    ]  # as percentages, some halves lie below the half in binary
    cells = read_cells(CELLS).iloc[[0] * len(scores)]
    names = [f"s{n}" for n in range(len(scores))]
    cells = cells.assign(system=names, name=names, settings="{}", accuracy=scores)
    cells.to_csv(tmp_path / "cells.csv", index=False)
    (tmp_path / "page.html").write_text(page_of(tmp_path / "cells.csv"), encoding="utf-8")
    shown = Reader(browser, tmp_path / "page.html").column("accuracy")
    assert shown == [float(percent(score, 1)) for score in scores] == [92.1, 74.7, 57.9, 10.1, 0.1]


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_a_heading_sorts_and_sorts_back(opened: Any, how: str) -> None:
    reader = opened()

    def use_heading() -> None:
        heading = (
            reader.page.locator("section.board").get_by_role("button", name="parameters").first
        )
        if how == "mouse":
            heading.click()
        else:
            heading.focus()
            reader.page.keyboard.press("Enter")

    accuracies = reader.column("accuracy")
    assert accuracies == sorted(accuracies, reverse=True)
    for order, sign in (("descending", -1), ("ascending", 1)):
        use_heading()
        values = reader.column("parameters")
        assert values == sorted(values, key=lambda value: sign * value)
        head = reader.page.locator("section.board").first.locator(
            "th[aria-sort]:not([aria-sort=none])"
        )
        assert head.get_attribute("aria-sort") == order
    if how == "keyboard":  # the heading was drawn anew, and still has the focus
        assert reader.page.evaluate("document.activeElement.textContent") == "parameters"


@pytest.mark.parametrize(
    ("label", "value", "holds"),
    [
        ("Suite", "other", lambda title: title.startswith("t,")),
        ("Task", "esc10", lambda title: title.startswith("esc10,")),
        ("Protocol", "linear", lambda title: ", linear," in title),
        ("Labels", "10%", lambda title: "10 % of labels" in title),
        ("Data", "synthetic", lambda title: "synthetic" in title),
    ],
)
def test_a_filter_leaves_just_the_boards_that_have_it(
    opened: Any, label: str, value: str, holds: Any
) -> None:
    reader = opened()
    every = reader.boards()
    reader.page.get_by_role("combobox", name=label).select_option(value)
    assert reader.boards() == [title for title in every if holds(title)]
    assert 0 < len(reader.boards()) < len(every)
    assert f"{len(reader.boards())} board" in reader.page.locator("#count").inner_text()


def test_systems_are_found_by_a_part_of_their_name(opened: Any) -> None:
    reader = opened()
    reader.page.get_by_label("Systems").fill("DELORES")
    for board in range(len(reader.boards())):
        assert all(name.startswith("delores") for name in reader.systems(board))
    reader.page.get_by_label("Systems").fill("nobody has this name")
    assert reader.boards() == []
    reader.page.get_by_role("button", name="Show all").click()
    assert len(reader.boards()) > 10


def test_a_view_is_restored_from_its_link(opened: Any) -> None:
    reader = opened()
    reader.page.get_by_role("combobox", name="Task").select_option("asc-keywords")
    reader.page.get_by_role("combobox", name="Labels").select_option("10%")
    reader.page.get_by_role("button", name="minutes").first.click()
    reader.page.locator(".system").nth(1).click()
    fragment = reader.page.evaluate("location.hash")
    again = opened(fragment)
    assert again.boards() == reader.boards()
    assert again.systems() == reader.systems()
    assert again.page.get_by_role("combobox", name="Task").input_value() == "asc-keywords"
    titles = [each.page.locator("#drawer-title").inner_text() for each in (reader, again)]
    assert titles[0] == titles[1] != ""
    assert opened("#task=esc10&sort=nonsense&open=00000000").boards()[0].startswith("esc10")


def test_a_record_opens_and_closes_by_keyboard_and_gives_the_focus_back(opened: Any) -> None:
    reader = opened("#suite=other&data=real")
    button = reader.page.locator(".system").first
    button.focus()
    reader.page.keyboard.press("Enter")
    drawer = reader.page.get_by_role("dialog")
    assert drawer.is_visible()
    assert "open=" in reader.page.evaluate("location.hash")
    reader.page.keyboard.press("Escape")
    assert not drawer.is_visible()
    # The browser tells the page of the closing a moment after it.
    reader.page.wait_for_function("!location.hash.includes('open=')")
    assert button.evaluate("(button) => button === document.activeElement")


def test_the_drawer_tells_the_record(opened: Any, results: Path) -> None:
    reader = opened("#suite=other&data=real")
    reader.page.locator("tbody tr").first.click()
    drawer = reader.page.get_by_role("dialog")
    text = drawer.inner_text()
    cells = load_results([results.parent / "results"]).cells
    for score in cells.loc[cells["data"] == "real", "accuracy"]:
        assert percent(score) in text
    assert HOSTILE in text
    assert "epochs" in text
    assert "m" * 64 in text
    assert "t/" in text
    for heading in (
        "Seeds and folds",
        "Settings",
        "Stages",
        "Learning curves",
        "Confusion matrix",
        "Environment",
    ):
        assert drawer.get_by_role("heading", name=heading).is_visible()
    assert (
        drawer.locator("svg[role=img]")
        .first.get_attribute("aria-label")
        .startswith("fine-tuning: loss over epochs 1 to 20")
    )


def test_the_confusion_matrix_is_read_by_pointer_and_by_arrow_keys(opened: Any) -> None:
    reader = opened("#suite=other&data=real")
    reader.page.locator(".system").first.click()
    cells, readout = reader.page.locator(".matrix tbody td"), reader.page.locator(".readout")
    cells.nth(0).hover()
    first = readout.inner_text()
    assert re.fullmatch(r"a taken for a: \d+ of \d+ \([\d.]+ %\)", first)
    cells.nth(0).focus()
    reader.page.keyboard.press("ArrowDown")
    reader.page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("b taken for b: ")
    assert cells.nth(4).get_attribute("aria-label") == readout.inner_text()


def test_a_cell_from_a_table_tells_what_the_table_knows(opened: Any) -> None:
    reader = opened("#task=asc-keywords&labels=10%25&protocol=finetune&find=delores-m")
    reader.page.locator(".system").first.click()
    text = reader.page.get_by_role("dialog").inner_text()
    table = pd.read_csv(CELLS)
    rows = table[
        (table["name"] == "delores-m") & (table["task"] == "asc-keywords")
        & (table["protocol"] == "finetune") & (table["labels"] == "10%")
    ]  # fmt: skip
    assert all(percent(score) in text for score in rows["accuracy"])
    assert "from a table of cells" in text
    assert reader.page.locator("dialog .matrix").count() == 0


def test_hovering_and_focusing_tell_seeds_and_interval(opened: Any) -> None:
    reader = opened("#task=asc-keywords&labels=10%25&protocol=finetune")
    tip = reader.page.get_by_role("tooltip")
    reader.page.locator("tbody tr").first.hover()
    board = leaderboard(load_results([CELLS]).cells)
    best = board.iloc[0]
    low, high = 100 * (best["score"] - best["interval"]), 100 * (best["score"] + best["interval"])
    assert f"95 % interval {low:.1f} to {high:.1f} %, over seeds alone" in tip.inner_text()
    assert "seeds 0: " in tip.inner_text()
    reader.page.locator(".system").nth(1).focus()
    assert board.iloc[1]["system"] in tip.inner_text()
    reader.page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_the_figure_follows_the_filter_and_its_axis_is_chosen(opened: Any) -> None:
    reader = opened("#task=asc-keywords&labels=10%25&protocol=finetune")
    assert reader.page.locator("figure .point").count() == len(reader.systems())
    reader.page.get_by_label("Systems").fill("delores")
    assert reader.page.locator("figure .point").count() == 2
    assert " parameters on " in reader.page.locator("svg.plot").first.get_attribute("aria-label")
    reader.page.get_by_role("combobox", name="Figure").select_option("minutes")
    assert "minutes of training" in reader.page.locator("svg.plot").first.get_attribute(
        "aria-label"
    )
    reader.page.locator("figure .point").first.click()
    assert reader.page.get_by_role("dialog").is_visible()


def markers(reader: Reader, kind: str) -> dict[str, float]:
    """Where the marker of each entry's point is drawn, from the left, by the entry's id."""
    moved = reader.page.locator(f"[id^={kind}-]").evaluate_all(
        "(points) => points.map((point) => [point.id, point.querySelector('path').getAttribute('transform')])"
    )
    return {name.partition("-")[2]: float(re.findall(r"[\d.]+", place)[0]) for name, place in moved}


def intervals(reader: Reader) -> dict[str, str]:
    """The line of each interval, as it is drawn, by the point's id."""
    lines: list[list[str]] = reader.page.locator("[id^=point-] line").evaluate_all(
        "(lines) => lines.map((line) => [line.parentNode.id, line.outerHTML])"
    )
    return dict(map(tuple, lines))


@pytest.mark.parametrize("cost", ["parameters", "minutes"])
def test_points_stand_at_their_costs_however_the_table_is_sorted(
    opened: Any, results: Path, cost: str
) -> None:
    reader = opened(f"#task=asc-keywords&labels=10%25&protocol=finetune&cost={cost}")
    entries = {entry["id"]: entry for entry in data_of(results.read_text())["entries"]}
    places, lines = markers(reader, "point"), intervals(reader)
    pairs = [(entries[name][cost], place) for name, place in places.items()]
    assert len(pairs) == 6
    # On a logarithmic axis a place is a straight line over the logarithm, which two points give.
    (low, left), (high, right) = min(pairs), max(pairs)
    slope = (right - left) / math.log(high / low)
    assert left < right
    assert [place for _, place in pairs] == pytest.approx(
        [left + slope * math.log(value / low) for value, _ in pairs], abs=0.02
    )
    for column in ("system", "minutes", "parameters"):
        reader.page.get_by_role("button", name=column).first.click()
        assert markers(reader, "point") == places
        assert intervals(reader) == lines


def test_curves_over_labels_join_the_chosen_scores_of_alike_boards(
    opened: Any, results: Path
) -> None:
    reader = opened("#task=asc-keywords&protocol=finetune")
    data = data_of(results.read_text())
    places = markers(reader, "step")
    boards = {entry["id"]: data["boards"][entry["board"]] for entry in data["entries"]}
    of_budget: dict[str, set[float]] = {}
    for name, place in places.items():
        of_budget.setdefault(boards[name]["labels"], set()).add(place)
    assert len(places) == len(reader.systems(0)) + len(reader.systems(1))
    ((few,), (every,)) = (of_budget[part] for part in ("10%", "100%"))
    assert few < every
    curves = reader.page.locator("svg.plot", has=reader.page.locator("[id^=step-]"))
    assert curves.count() == 1
    label = curves.get_attribute("aria-label")
    assert label.startswith("accuracy over labels on asc-keywords, finetune: ")
    assert re.search(r"supervised [\d.]+ % at 10%, [\d.]+ % at 100%", label)
    reader.page.get_by_role("combobox", name="Labels").select_option("10%")
    assert curves.count() == 0


def test_a_cost_that_is_not_known_is_the_default(opened: Any) -> None:
    reader = opened("#cost=foo")
    assert reader.page.get_by_role("combobox", name="Figure").input_value() == "parameters"
    assert " parameters on " in reader.page.locator("svg.plot").first.get_attribute("aria-label")


def test_the_drawer_marks_what_does_not_count(opened: Any, tmp_path: Path) -> None:
    for fold in (1, 2):
        write(tmp_path / "results", 0, fold, 2)
    write(tmp_path / "results", 1, 1, 2)
    path = tmp_path / "page.html"
    path.write_text(page_of(tmp_path / "results"), encoding="utf-8")
    reader = opened(path=path)
    reader.page.locator(".system").first.click()
    rows = reader.page.locator("dialog table").first.locator("tbody tr").all_inner_texts()
    assert ["not counted: seed 1 has 1 of 2 folds" in row for row in rows] == [False, False, True]
    assert (
        "test sets of the 2 cells behind the score"
        in reader.page.get_by_role("dialog").inner_text()
    )


def test_half_a_percent_is_rounded_up(opened: Any, tmp_path: Path) -> None:
    labels, taken = np.repeat([0, 1, 2], [8, 40, 2]), np.zeros(50, np.int64)
    taken[7], taken[8:31], taken[48:] = 1, 1, 2  # 1 of 8 and 23 of 40 are 12.5 and 57.5 %
    write_scores(tmp_path / "results", labels, np.eye(3, dtype=np.float32)[taken], 0)
    path = tmp_path / "page.html"
    path.write_text(page_of(tmp_path / "results"), encoding="utf-8")
    reader = opened(path=path)
    reader.page.locator(".system").first.click()
    shown = reader.page.locator(".matrix tbody td").all_text_contents()
    assert shown == ["88", "13", "", "43", "58", "", "", "", "100"]


@pytest.mark.parametrize("fragment", ["", "#suite=other&data=real", "#find=unfused"])
def test_a_phone_never_scrolls_sideways(opened: Any, fragment: str) -> None:
    reader = opened(
        fragment, viewport={"width": 375, "height": 700}, has_touch=True, is_mobile=True
    )
    width = "document.documentElement.scrollWidth"
    assert reader.page.evaluate(width) <= 375
    reader.page.locator(".system").first.tap()
    assert reader.page.get_by_role("dialog").is_visible()
    assert reader.page.evaluate(width) <= 375
    assert reader.page.evaluate("document.getElementById('drawer').scrollWidth") <= 375


def test_as_cards_a_table_is_still_a_table_to_a_screen_reader(opened: Any) -> None:
    reader = opened(viewport={"width": 375, "height": 700})
    table = reader.page.locator("section.board").first.get_by_role("table")
    assert (
        table.get_by_role("columnheader").count()
        == table.get_by_role("row").nth(1).get_by_role("cell").count()
    )


def luminance(color: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def of(reader: Reader, selector: str, name: str) -> str:
    value: str = reader.page.locator(selector).first.evaluate(f"(e) => getComputedStyle(e).{name}")
    return value


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_in_dark(opened: Any, scheme: str) -> None:
    reader = opened(color_scheme=scheme)
    grounds = {
        "section.board": luminance(of(reader, "section.board", "backgroundColor")),
        "body": luminance(of(reader, "body", "backgroundColor")),
    }
    assert (grounds["body"] > 0.5) == (scheme == "light")
    for selector, ground in (
        ("h1 span", "body"), ("#count", "body"), ("form label", "body"), ("h2", "section.board"),
        (".about", "section.board"), (".system", "section.board"), (".system small", "section.board"), ("th button", "section.board"),
    ):  # fmt: skip
        dark, light = sorted((luminance(of(reader, selector, "color")), grounds[ground]))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector


def test_a_choice_of_colors_is_kept(opened: Any) -> None:
    reader = opened(color_scheme="light")
    button = reader.page.get_by_role("button", name="Dark")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert luminance(of(reader, "body", "backgroundColor")) < 0.1
    reader.page.reload()
    assert luminance(of(reader, "body", "backgroundColor")) < 0.1


def test_without_scripts_the_plain_boards_are_shown(opened: Any) -> None:
    reader = opened(java_script_enabled=False)
    assert reader.page.locator("noscript table").count() > 10
    assert not reader.page.locator("#filters").is_visible()


def test_a_board_with_ranks_shows_them(opened: Any, tmp_path: Path) -> None:
    cells = load_results([CELLS])
    board = leaderboard(cells.cells)
    board["rank_best"], board["rank_worst"] = 1, [1 + n % 2 for n in range(len(board))]
    board.loc[2, ["rank_best", "rank_worst"]] = float("nan")  # one that could not be ranked
    path = tmp_path / "ranked.html"
    path.write_text(page(cells, board, [CELLS]), encoding="utf-8")
    reader = opened(path=path)
    table = reader.page.locator("section.board").first.locator("tbody")
    assert table.locator("td:first-child").all_text_contents()[:3] == ["1", "1 to 2", ""]


def test_hundreds_of_classes_are_drawn_and_read(opened: Any, tmp_path: Path) -> None:
    write(tmp_path / "results", 0)
    text = page_of(tmp_path / "results")
    names = [f"speaker {n}" for n in range(120)]
    text = text.replace('"classes":[["a","b","c"]]', f'"classes":[{names}]'.replace("'", '"'))
    path = tmp_path / "many.html"
    path.write_text(text, encoding="utf-8")
    reader = opened(path=path)
    reader.page.locator(".system").first.click()
    canvas = reader.page.locator("dialog canvas")
    canvas.focus()
    reader.page.keyboard.press("ArrowRight")
    assert (
        reader.page.locator(".readout").inner_text().startswith("speaker 0 taken for speaker 1: ")
    )
    reader.page.locator("summary", has_text="Most often confused").click()
    assert reader.page.locator("dialog ol li").count() == 6
