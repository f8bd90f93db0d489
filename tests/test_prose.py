"""Rules for texts find what they are for, and no text of the project breaks one."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import prose

RULES: list[dict[str, Any]] = tomllib.loads(
    (prose.ROOT / "tests" / "prose.toml").read_text(encoding="utf-8")
)["rules"]


@pytest.mark.parametrize("rule", RULES, ids=[rule["instead"] for rule in RULES])
def test_a_rule_rejects_its_bad_example_and_accepts_its_good_one(rule: dict[str, Any]) -> None:
    pattern = re.compile(rule["find"], re.IGNORECASE | re.MULTILINE)
    assert pattern.search(rule["bad"])
    assert not pattern.search(rule["good"])


def test_texts_of_the_project_follow_the_rules() -> None:
    assert prose.problems(prose.all_files()) == []


@pytest.fixture
def problems_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function from the name and content of a file to the problems in it."""
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    rules, longest = [prose.Rule(re.compile("anew"), "again")], 8
    monkeypatch.setattr(prose, "read_rules", lambda: (rules, longest))

    def problems(name: str, content: str) -> list[str]:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return prose.problems([path])

    return problems


def test_docstrings_comments_and_messages_are_read(problems_in: Any) -> None:
    source = '''"""Run it anew."""
x = 1  # and
# set
# anew
print(f"run {x} anew, please", "anew")
'''
    assert problems_in("a.py", source) == [
        "a.py:1: 'anew': write again",
        "a.py:5: 'anew': write again",
        "a.py:3: 'anew': write again",
    ]


def test_pages_are_read_without_code_and_links(problems_in: Any) -> None:
    page = "# Title\n\nRun `anew`, [x](anew.md).\n\n```bash\nanew\n```\n\n- one\n- run it\n  anew\n"
    assert problems_in("a.md", page) == ["a.md:10: 'anew': write again"]


def test_long_sentences_are_found_and_lines_of_a_list_are_sentences(problems_in: Any) -> None:
    long = "one two three four five six seven eight nine."
    assert problems_in("a.md", f"{long}\n") == [
        "a.md:1: a sentence of 9 words: 'one two three four five six seven eight nine...'"
    ]
    args = '"""One two three four.\n\n    Args:\n        a: one two three.\n        b: four five six.\n    """\n'
    assert problems_in("a.py", args) == []


def test_strings_and_comments_of_scripts_are_read(problems_in: Any) -> None:
    script = 'const x = `run ${anew} now, please`; // run it anew\nconst y = "run it anew";\n'
    assert problems_in("a.js", script) == [
        "a.js:1: 'anew': write again",
        "a.js:2: 'anew': write again",
    ]
