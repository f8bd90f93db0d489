"""Write the pages of the site that the code describes: command line, Python names, systems, tasks, boards.

Run by mkdocs (plugin gen-files), from the repository root.
"""

import ast
import base64
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mkdocs_gen_files
from typer.main import get_command

import lape_bench
from lape_bench.cli import app as cli
from lape_bench.core.config import as_pairs, describe
from lape_bench.data import task_page
from lape_bench.data.catalog import all_cards
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.pack import find_packs
from lape_bench.report.leaderboard import leaderboard
from lape_bench.report.page import html_page
from lape_bench.results.load import load_results

BOARDS = Path("results/boards")


def write(page: str, *parts: str) -> None:
    """Write a page of the site."""
    with mkdocs_gen_files.open(page, "w") as file:
        file.write("\n\n".join(parts) + "\n")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *(map(cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Return text that a Markdown table can hold."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def index(folder: str, title: str, about: str, pages: list[tuple[str, str, str]]) -> None:
    """Write the first page of a folder, and its navigation.

    Args:
        folder: folder of the site.
        title: title of its first page.
        about: text above the list.
        pages: name, file and summary of each page.
    """
    rows = [(f"[`{name}`]({file})", summary) for name, file, summary in pages]
    lines = "\n".join(f"| {link} | {cell(summary)} |" for link, summary in rows)
    write(f"{folder}/index.md", f"# {title}", about, f"| name | what |\n|---|---|\n{lines}")
    links = [f"- [{title}](index.md)", *(f"- [{name}]({file})" for name, file, _ in pages)]
    write(f"{folder}/SUMMARY.md", "\n".join(links))


def command_line() -> None:
    """Write one page with the help of every command."""
    parts = ["# Command line", "Every command has an example in its `--help`."]

    def walk(command: Any, words: list[str]) -> None:
        parts.append(f"{'#' * min(len(words) + 1, 4)} `{' '.join(words)}`")
        parts.extend(filter(None, (inspect.cleandoc(command.help or ""),)))
        rows = [
            (
                f"`{' '.join(p.opts)}`"
                if p.param_type_name == "option"
                else f"`{p.metavar or p.name}`",
                p.help or "",
                "required"
                if p.required
                else ""
                if p.default in (None, False, ())
                else f"`{p.default}`",
            )
            for p in command.params
            if p.name != "help"
        ]
        if rows:
            parts.append(table(("option", "what it does", "default"), rows))
        if command.epilog:
            parts.append(f"Example: `{command.epilog.removeprefix('Example: ')}`")
        for name, below in getattr(command, "commands", {}).items():
            walk(below, [*words, name])

    walk(get_command(cli.app), ["bench"])
    write("reference/cli.md", *parts)


def python_names() -> None:
    """Write one page with every public name of the package."""
    names = [name for name in lape_bench.__all__ if name != "__version__"]
    functions = [name for name in names if name[0].islower()]
    classes = [name for name in names if not name[0].islower()]
    about = "`import lape_bench as lb` gives these names. PyTorch and pandas are imported when they are first needed."
    sections = [
        f"## {title}\n\n" + "\n\n".join(f"::: lape_bench.{name}" for name in group)
        for title, group in (("Functions", functions), ("Classes", classes))
    ]
    write("reference/api.md", "# Python API", about, *sections)


def systems() -> None:
    """Write a page for each system: its docstring, protocols and settings."""
    pages = []
    for name in SYSTEMS.names():
        kind, source = SYSTEMS.load_kind(name), SYSTEMS.source(name)
        text = ast.get_docstring(ast.parse(source.read_bytes())) if source else ""
        summary, _, about = (text or "").partition("\n")
        with_argument = hasattr(kind, "from_argument")
        rows = [
            (f"`{key}`", f"`{default}`", what) for key, default, what in describe(kind.Settings)
        ]
        usage = f"bench run --system {name}{':ARGUMENT' if with_argument else ''} --task esc10"
        write(
            f"reference/systems/{name}.md",
            f"# `{name}`",
            as_markdown(summary),
            as_markdown(about.strip()),
            f"- version: {kind.version}\n- protocols: {', '.join(kind.protocols)} (the first is the default)",
            f"```bash\n{usage}\n```",
            "## Settings",
            "Change one with `--set NAME=VALUE`.",
            table(("setting", "default", "what it is"), rows),
            *presets(kind.presets),
        )
        pages.append((name, f"{name}.md", summary))
    about = "`FILE.py:CLASS` is a system too; see [Add a baseline](../../guides/add_a_baseline.md)."
    index("reference/systems", "Systems", about, pages)


def presets(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs about the presets of a system; none if it has none."""
    rows = [
        (f"`--preset {name}`", f"`{', '.join(as_pairs(own))}`") for name, own in settings.items()
    ]
    return ["## Presets", table(("preset", "settings"), rows)] if rows else []


def as_markdown(docstring: str) -> str:
    """Link the papers that a docstring names."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", docstring)


def tasks() -> None:
    """Write a page for each task: its card."""
    cards = [card for card in all_cards()[0] if card.recordings is None]
    for card in cards:
        section = task_page.section(card).partition("\n")[2].strip()
        name = card.name
        write(
            f"reference/tasks/{name}.md", f"# `{name}`: {card.title}", section.replace("<", "&lt;")
        )
    about = "`bench tasks show TASK` prints the same. The synthetic version of a task is `TASK-synthetic`."
    pages = [(c.name, f"{c.name}.md", f"{c.title} (suite {c.suite})") for c in cards]
    index("reference/tasks", "Tasks", about, pages)


def boards() -> None:
    """Write the first page of the results, a page for each board, and the leaderboard of all their cells."""
    links = ["- [Results](index.md)"]
    for page in sorted(BOARDS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        write(f"results/{page.name}", text)
        links.append(f"- [{title}]({page.name})")
    parts = [Path("docs/results/index.md").read_text(encoding="utf-8").strip()]
    if sources := leaderboard_page():
        parts.append(
            f"[The leaderboard](leaderboard.html) shows the cells of {', '.join(sources)}: sort, filter, and open a row."
        )
    write("results/index.md", *parts, "\n".join(links[1:]))
    write("results/SUMMARY.md", "\n".join(links))


def leaderboard_page() -> list[str]:
    """Write the HTML page of the reference results and of the boards' tables of cells.

    Returns:
        The packs and tables. If there are none, the page is left out.
    """
    sources = [*find_packs(Path("results/reference")), *sorted(BOARDS.glob("*_cells.csv"))]
    if sources:
        results = load_results(sources)
        board = leaderboard(results.cells, results.predictions)
        with mkdocs_gen_files.open("results/leaderboard.html", "w") as file:
            file.write(html_page.page(results, board, sources))
    return [f"`{source.name}`" for source in sources]


def notebooks() -> None:
    """Write a page for each notebook, with the outputs that it was saved with."""
    for notebook in sorted(Path("docs/notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        parts = [part for cell in cells for part in notebook_cell(cell, notebook.stem)]
        parts.insert(1, f"[Download the notebook]({notebook.name}).")
        write(f"notebooks/{notebook.stem}.md", *parts)


def notebook_cell(cell: dict[str, Any], name: str) -> Iterable[str]:
    """Return a cell of a notebook and its outputs as Markdown; images become files."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        title, _, rest = source.partition("\n\n")
        yield from (title, rest) if title.startswith("# ") else (source,)
        return
    yield f"```python\n{source}\n```"
    for number, output in enumerate(cell["outputs"]):
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            file = f"{name}-{cell['id']}-{number}.png"
            with mkdocs_gen_files.open(f"notebooks/{file}", "wb") as image:
                image.write(base64.b64decode(data["image/png"]))
            yield f"![The plot of this cell]({file})"
        elif "text/html" in data:
            lines = "".join(data["text/html"]).splitlines()
            start = next(i for i, line in enumerate(lines) if "<table" in line)
            table = "\n".join(line.strip() for line in lines[start:] if "div>" not in line)
            yield re.sub(
                "<table[^>]*>", "<table>", table
            )  # the theme lays out tables without a class
        else:
            yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"


def contributing() -> None:
    """Take over the pages at the top of the repository."""
    for name in ("contributing", "releasing", "changelog"):
        text = Path(f"{name.upper()}.md").read_text(encoding="utf-8")
        write(f"contributing/{name}.md", text)


for page in (command_line, python_names, systems, tasks, boards, notebooks, contributing):
    page()
