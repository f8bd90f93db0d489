"""The guides, executed as they are written."""

import re
from pathlib import Path

import pytest

from tests.environments import make_environment

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = {  # by each guide's last board
    "add_a_baseline.md": [
        "my_encoder.py:MyEncoder (width=128)",
        "log-mel-statistics",
        "small-convnet",
    ],
    "add_a_task.md": ["notes, linear", "notes-by-make, linear"],
}


@pytest.mark.slow
@pytest.mark.parametrize("guide", SHOWN)
def test_every_block_of_a_guide_runs_as_written(guide: str, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    (tmp_path / "work").mkdir()
    environment = make_environment(tmp_path / "env", tmp_path / "cache")
    board = ""
    for kind, text in BLOCK.findall((GUIDES / guide).read_text(encoding="utf-8")):
        if kind == "bash":
            said = environment.succeed("bash", "-exc", text, cwd=tmp_path / "work")
            board = said if "bench report" in text else board
        else:
            name = text.splitlines()[0].removeprefix("# ")
            assert (kind, Path(name).suffix) == ("python", ".py"), "the first line names the file"
            (tmp_path / "work" / name).write_text(text, encoding="utf-8")
    assert not [each for each in SHOWN[guide] if each not in board], board


def test_every_guide_is_executed_and_linked_from_the_readme() -> None:
    assert {path.name for path in GUIDES.glob("*.md")} == set(SHOWN)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [guide for guide in SHOWN if f"(docs/guides/{guide})" not in readme]
