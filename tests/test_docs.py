"""What pages show is true: commands and options exist, files are there, Python compiles."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lape_bench.cli import app as cli
from lape_bench.plugins.registry import SYSTEMS, TASKS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
IDS = [str(path.relative_to(ROOT)) for path in PAGES]
BLOCK = re.compile(r"^```(\w*).*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROOMS = "lape_bench|tests|tasks|baselines|unfused|results/boards|results/published|results/reference|results/submissions|docs"
# Names that pages use for what a reader would make.
OF_THE_READER = {
    *("bird-calls", "notes", "notes-by-make", "small-convnet", "tests/test_system.py"),
    *("results/submissions/my-encoder", "results/submissions/my-encoder/card.yaml"),
}


def commands(text: str) -> Iterator[list[str]]:
    """Every `bench` command of a page: in blocks of commands, and in the running text."""
    blocks = [body for kind, body in BLOCK.findall(text) if kind == "bash"]
    spans = [
        " ".join(span.split()) for span in re.findall(r"`(bench\s[^`]+)`", BLOCK.sub("", text))
    ]
    for line in "\n".join([*blocks, *spans]).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for position, word in enumerate(words):
            if word.rpartition("/")[2] == "bench":
                rest = words[position + 1 :]
                ends = [i for i, each in enumerate(rest) if each in ("&&", "|", ">", ";")]
                yield rest[: ends[0]] if ends else rest


def parse(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Parse a command by the options of its command line, and run nothing.

    Returns:
        The options, and the arguments that are left.
    """
    command, path = get_command(cli.app), ["bench"]
    while subcommands := getattr(command, "commands", None):
        if not words:
            return {}, []
        if words[0] not in subcommands and path[-1] == "sweep":
            words = ["run", *words]  # which may be left out
        if words[0].startswith("-"):
            break
        assert words[0] in subcommands, f"{' '.join(path)} has no command {words[0]}"
        path.append(words[0])
        command, words = subcommands[words[0]], words[1:]
    context = command.make_context(path[-1], ["--help"], resilient_parsing=True)
    context.resilient_parsing = False  # or else an unknown option is passed over
    options, arguments, _ = command.make_parser(context).parse_args(list(words))
    return options, arguments


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_of_a_page_is_one_of_bench_with_its_options(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        options, _ = parse(words)
        systems, tasks = options.get("system") or [], options.get("task") or []
        for name in systems if isinstance(systems, list) else [systems]:
            known = SYSTEMS.is_file(name) or name.partition(":")[0] in SYSTEMS.names()
            assert known or name in OF_THE_READER, name
        for name in tasks if isinstance(tasks, list) else [tasks]:
            base = name.partition("@")[0].removesuffix("-synthetic")
            assert base in TASKS.names() or name in {"TASK", *OF_THE_READER}, name


def test_a_command_with_an_option_that_does_not_exist_is_found() -> None:
    with pytest.raises(Exception, match="label-fractions"):
        parse(["run", "--label-fractions", "0.1"])
    with pytest.raises(AssertionError, match="has no command"):
        parse(["data", "download"])


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_on_a_page_compiles(page: Path) -> None:
    for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            ast.parse(body)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_path_of_the_project_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w/.])((?:{ROOMS})/[\w./-]*[\w/])", text))
    assert not [path for path in named if path not in OF_THE_READER and not (ROOT / path).exists()]


def test_the_readme_is_read_in_five_minutes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert len(text.split()) <= 1300
