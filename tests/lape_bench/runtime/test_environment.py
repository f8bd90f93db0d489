"""What a run ran on is named so that two states of the code never have one name."""

import subprocess
from pathlib import Path

import pytest

from lape_bench.runtime import environment


def test_the_commit_tells_of_changes_and_of_code_that_git_does_not_track(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lape_bench" / "runtime"
    package.mkdir(parents=True)
    code = package / "environment.py"
    code.write_text("")
    readme = tmp_path / "README.md"
    readme.write_text("first")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init"), git("add", "."), git("commit", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(code))
    named = [environment.commit.__wrapped__()]
    readme.write_text("second")
    assert environment.commit.__wrapped__() == named[0]  # it is no code
    code.write_bytes(bytes([35, 0xE9]))  # no UTF-8
    named.append(environment.commit.__wrapped__())
    for content in ("X = 1", "X = 2"):
        (package / "new.py").write_text(content)
        named.append(environment.commit.__wrapped__())
    assert len(set(named)) == 4
    assert len(named[0]) == 40
    assert all(each.startswith(f"{named[0]}-dirty-") for each in named[1:])
