"""A submission on the page: contamination as a column of the overview, and its card in the profile, as plain text."""

from pathlib import Path
from typing import Any

import pytest

from lape_bench.report.leaderboard import leaderboard
from lape_bench.report.page.html_page import page
from lape_bench.results.load import load_results
from tests.lape_bench.report.page.test_page_in_a_browser import (
    browser,  # noqa: F401
    opened,  # noqa: F401
)
from tests.lape_bench.results.test_submissions import write_card, write_honest

MARKUP = "<img src=x onerror=alert(1)> and <b>others</b>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("submission")
    for seed in range(2):
        write_honest(out / "mine", seed)
        write_honest(out / "own", seed, predictions=50 + seed, system="own")
    write_card(out / "mine", training_data=MARKUP)
    loaded = load_results([out / "own"], [out / "mine"])
    board = leaderboard(loaded.cells, loaded.predictions)
    path = out / "page.html"
    path.write_text(page(loaded, board, [out / "own", out / "mine"]), encoding="utf-8")
    return path


def test_contamination_is_a_column_and_the_card_is_in_the_profile(
    opened: Any,  # noqa: F811
) -> None:
    reader = opened()
    heads = reader.page.locator("table.overview thead th").all_inner_texts()
    assert heads[-1] == "contamination"
    rows = reader.page.locator("table.overview tbody tr").all()
    shown = {row.locator("th").inner_text(): row.locator("td").last.inner_text() for row in rows}
    assert {name.split()[0]: heard for name, heard in shown.items()} == {
        "hf:me/encoder": "unlabeled",
        "own": "—",
    }
    assert any("submission" in name for name in shown)
    assert not any("reference" in name for name in shown)
    reader.page.get_by_role("button", name="hf:me/encoder").first.click()
    drawer = reader.page.get_by_role("dialog")
    assert drawer.get_by_role("heading", name="System card").is_visible()
    assert drawer.get_by_text(MARKUP).is_visible()
    assert drawer.locator("img").count() == 0
    assert drawer.get_by_role("link").get_attribute("href") == "https://example.org/paper"
    reader.page.keyboard.press("Escape")
    reader.page.get_by_role("button", name="own").first.click()
    assert reader.page.get_by_role("heading", name="System card").count() == 0
