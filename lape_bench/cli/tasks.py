"""`bench tasks`: list, show and create tasks."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lape_bench.cli.options import TaskName, print_table
from lape_bench.core.errors import UserError
from lape_bench.core.paths import manifest_path
from lape_bench.data import task_page
from lape_bench.data.catalog import all_cards, load_card, own_card

app = typer.Typer(
    help="List tasks, show one, or create one from your recordings.",
    epilog="Example: bench tasks show esc10",
)


@app.callback(invoke_without_command=True)
def _tasks(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from lape_bench.data.sources import archives

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    for heading in ("classes", "clips"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("split", "on disk"):
        table.add_column(heading, no_wrap=True)
    table.add_column("title")
    cards, problems = all_cards()
    for error in problems:
        print(f"left out: {error}", file=sys.stderr)
    suite = None
    for card in cards:
        if card.suite != suite:
            table.add_row(Text(f"suite {card.suite}", "bold"))
            suite = card.suite
        for each in [card, *(card.with_variant(variant) for variant in card.variants)]:
            split = f"{each.split.folds} folds" if each.split.folds else each.split.rule
            counts = (str(len(each.classes)), f"{each.expected.clips:,}")
            here = "prepared" if manifest_path(each.reference).is_file() else ""
            if not (here or each.variant or each.obtain) and archives.is_fetched(each):
                here = "fetched"
            name, title = (
                (f"    @{each.variant}", "") if each.variant else (f"  {card.name}", card.title)
            )
            table.add_row(name, *counts, split, here, title)
    print_table(table)


@app.command("page", epilog="Example: bench tasks page > tasks/README.md")
def page_of_tasks() -> None:
    """Print a Markdown page that describes every task: how to get it, its split, its classes."""
    print(task_page.page([card for card in all_cards()[0] if card.recordings is None]), end="")


@app.command("new", epilog="Example: bench tasks new bird-calls --from recordings/birds")
def new_task(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Lowercase letters, digits, hyphens.")
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="A folder with one folder per class, a CSV file, or a Hugging Face data set: hf:NAME_OR_FOLDER.",
        ),
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="The name of a column in the CSV file, if it is not path, label, split, fold, group, start_seconds, seconds or end_seconds: --column path=filename; may be repeated."
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Folder that paths are relative to; default: the folder of the CSV file."
        ),
    ] = None,
    window_seconds: Annotated[
        float | None,
        typer.Option(help="Length of a training window; default: the median clip length."),
    ] = None,
    may_overlap: Annotated[
        bool,
        typer.Option("--may-overlap", help="Allow clips on two sides of the split to share audio."),
    ] = False,
    metric: Annotated[str, typer.Option(help="Metric to rank systems by.")] = "accuracy",
    domain: Annotated[str, typer.Option(help="speech, sound, music or bioacoustics.")] = "sound",
    title: Annotated[str, typer.Option(help="Title for listings; default: the name.")] = "",
    license: Annotated[str, typer.Option(help="License of the recordings.")] = "not stated",
) -> None:
    """Create a task from your recordings: write its card from a folder with one folder per class, or from a CSV file.

    Folders train, val and test above the class folders, or a column split or fold, are used as the split. Otherwise the
    split is drawn, and clips that share a group stay on one side.
    """
    from lape_bench.data import new_task as tasks
    from lape_bench.data.sources.hugging_face_dataset import PREFIX, import_dataset

    columns = dict(_column(each) for each in column or [])
    origin = Path(source)
    if source.startswith(PREFIX):
        tasks.refuse_name(name)
        imported = import_dataset(source.removeprefix(PREFIX), name)
        origin, audio, columns = (
            imported.source,
            audio or imported.audio,
            imported.columns | columns,
        )
    drafted = tasks.new_task(
        name,
        origin,
        columns,
        audio,
        window_seconds,
        may_overlap,
        metric=metric,
        domain=domain,
        title=title or name,
        license=license,
    )
    for note in drafted.notes:
        print(f"note: {note}", file=sys.stderr)
    card = drafted.card
    print(f"{name}: {drafted.write()}")
    print(f"  {task_page.summary(card)} clips; classes {task_page.classes(card)}")
    print(f"  {card.split.rule}: {card.split.origin}; kept apart: {card.group or 'nothing'}")
    counts = ", ".join(f"{place} {count:,}" for place, count in drafted.places.items())
    print(f"  clips: {counts}")
    print(f"  {drafted.window}")
    print(f"next: bench data prepare {name}")
    print(f"      bench run --system log-mel-statistics --task {name}")


def _column(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(
            f"--column '{text}' is not NAME=COLUMN",
            allowed="write --column path=filename, with the name in the table",
        )
    return key.strip(), value.strip()


@app.command("show", epilog="Example: bench tasks show fsdd-digits@official")
def show_task(task: TaskName) -> None:
    """Show the card of a task."""
    card = load_card(task)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    split = f"{card.split.folds} folds: " if card.split.folds else f"{card.split.rule}: "
    synthetic = (
        ""
        if card.data == "synthetic"
        else f"; the synthetic version, {card.name}-synthetic, needs no download"
    )
    rows = {
        "task": f"{card.reference}, version {card.version}",
        "title": f"{card.title} ({card.domain}, {card.data} data, suite {card.suite})",
        "what": card.about or "-",
        "classes": task_page.classes(card),
        "clips": task_page.summary(card),
        "window": f"{card.window_seconds:g} s",
        "level": task_page.level(card),
        "metric": card.metric,
        "split": split + card.split.origin,
        "kept apart": card.group or "nothing",
        "to get it": task_page.how_to_get(card).replace("`", "") + synthetic,
        "license": card.license,
        "citation": card.citation,
        "prepared": "yes"
        if manifest_path(card.reference).is_file()
        else f"no: bench data prepare {card.name}",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    if card.recordings is not None:
        table.add_row("recordings", str(card.recordings.table or card.recordings.folder))
        table.add_row("card", str(own_card(card.name)))
    for source in card.sources:
        facts = [f"{source.bytes:,} bytes" if source.bytes else "", source.url or "", source.note]
        table.add_row("source", "; ".join([source.file, *filter(None, facts)]))
    for name, variant in card.variants.items():
        table.add_row("variant", f"{card.name}@{name}: {variant.about}")
    print_table(table)
