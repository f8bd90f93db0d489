"""A Markdown page that describes every task, from its card."""

from collections.abc import Sequence

from lape_bench.task import TaskCard

MOST_NAMED = 40  # classes

HEAD = """# Tasks

Written from the task cards by `bench tasks page > tasks/README.md`. `bench data status` shows what is on disk. If you have the
recordings already, run `bench data prepare TASK --from FOLDER_OR_ARCHIVE`. The synthetic version of a task, `TASK-synthetic`, has the
same classes, kind of split, folds and groups. Its clips are generated, so it needs no download.
"""


def page(cards: Sequence[TaskCard]) -> str:
    """Write the page.

    Args:
        cards: base cards in the order of the page; cards of a suite are consecutive.
    """
    parts = [HEAD]
    suite = None
    for card in cards:
        if card.suite != suite:
            suite = card.suite
            parts.append(f"## Suite `{suite}`\n")
        parts.append(section(card))
    return "\n".join(parts)


def summary(card: TaskCard) -> str:
    """Return the number of clips on each side or in each fold."""
    sides = ", ".join(
        f"{'fold ' if card.split.folds else ''}{side}: {count:,}"
        for side, count in card.expected.per_side.items()
    )
    return f"{card.expected.clips:,}" + (f" ({sides})" if sides else "")


def classes(card: TaskCard) -> str:
    """Return the names of the classes; if there are many, the first and the last."""
    if len(card.classes) > MOST_NAMED:
        return f"{len(card.classes):,}, {card.classes[0]} to {card.classes[-1]}"
    return f"{len(card.classes)}: {', '.join(card.classes)}"


def size(card: TaskCard) -> str:
    """Return the size of the download, as far as the card has it."""
    known = [source.bytes for source in card.sources if source.url and source.bytes]
    unknown = sum(source.url is not None and source.bytes is None for source in card.sources)
    parts = [f"{sum(known) / 1e9:,.3g} GB"] if known else []
    if unknown:
        parts.append(f"{unknown} {'file' if unknown == 1 else 'files'} of unknown size")
    return " and ".join(parts)


def level(card: TaskCard) -> str:
    """Return the level to which clips are scaled."""
    if card.level_dbfs is None:
        return "as recorded"
    return f"every clip at an RMS of {card.level_dbfs:g} dBFS"


def how_to_get(card: TaskCard) -> str:
    """Return how a user gets the recordings."""
    if card.data == "synthetic":
        return "generated on first use"
    if card.obtain:
        return card.obtain
    return f"`bench data fetch {card.name} && bench data prepare {card.name}` ({size(card)})"


def section(card: TaskCard) -> str:
    """Write the section of a card: a heading, a description, and a list of facts."""
    lines = [f"### `{card.name}`: {card.title}\n"]
    if card.about:
        lines.append(card.about[0].upper() + card.about[1:] + ".\n")
    rows = {
        "classes": classes(card),
        "clips": summary(card),
        "split": f"{_rule(card)}: {card.split.origin}",
        "kept apart": card.group or "nothing",
        "window": f"{card.window_seconds:g} s",
        **({"level": level(card)} if card.level_dbfs is not None else {}),
        "ranked by": card.metric,
        "to get it": how_to_get(card),
        "license": card.license,
        "to cite": card.citation,
    }
    lines += [f"- {name}: {text}" for name, text in rows.items()]
    for name, variant in card.variants.items():
        own = card.with_variant(name)
        lines.append(f"- variant `{own.reference}`: {variant.about}; clips: {summary(own)}")
    return "\n".join(lines) + "\n"


def _rule(card: TaskCard) -> str:
    return f"{card.split.folds} folds" if card.split.folds else card.split.rule
