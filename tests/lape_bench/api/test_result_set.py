"""Results read from Python."""

from pathlib import Path

import lape_bench as lb
from tests.lape_bench.results.test_submissions import write_card, write_honest


def test_submissions_are_added_and_marked_and_one_without_a_card_is_named(tmp_path: Path) -> None:
    write_honest(tmp_path / "own", system="own")
    write_honest(tmp_path / "submissions" / "theirs")
    write_card(tmp_path / "submissions" / "theirs")
    write_honest(tmp_path / "submissions" / "anonymous", system="anonymous")
    results = lb.load_results(tmp_path / "own", submissions=tmp_path / "submissions")
    marked = results.leaderboard().set_index("system")["reference"].to_dict()
    assert marked == {"own": False, "hf:me/encoder": True}
    (problem,) = results.problems
    assert "anonymous has no card.yaml" in problem
    assert [*lb.load_results(tmp_path / "own").leaderboard()["system"]] == ["own"]
