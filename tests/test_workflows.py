"""The workflows of the repository: valid, and the one that checks submissions trusts nothing of a pull request."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = Path(__file__).parents[1] / ".github" / "workflows"


def read(name: str) -> dict[Any, Any]:
    content = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_actionlint_accepts_every_workflow() -> None:
    program = shutil.which("actionlint")
    if program is None:
        pytest.skip("actionlint is not installed")
    files = sorted(map(str, WORKFLOWS.glob("*.yml")))
    done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_puts_no_text_of_an_event_into_a_shell(path: Path) -> None:
    steps = [step for job in read(path.name)["jobs"].values() for step in job["steps"]]
    assert steps
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]


def test_submissions_are_checked_by_the_code_of_the_base_branch() -> None:
    workflow = read("submissions.yml")
    assert workflow[True] == {"pull_request": {"paths": ["results/submissions/**"]}}  # `on`
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    checkouts = [step["with"] for step in job["steps"] if "checkout" in step.get("uses", "")]
    refs = {each["path"]: each.get("ref") for each in checkouts}
    assert refs == {"trusted": "${{ github.event.pull_request.base.sha }}", "proposed": None}
    assert all(each["persist-credentials"] is False for each in checkouts)
    assert "secrets." not in (WORKFLOWS / "submissions.yml").read_text(encoding="utf-8")
    runs = [step for step in job["steps"] if "run" in step]
    assert [step["run"] for step in runs] == [
        "pip install ./trusted",
        "bench submissions check ../proposed/results/submissions",
    ]
    assert runs[1]["working-directory"] == "trusted"
