"""The tasks that can be asked for: registered ones, their variants, their synthetic twins, and suites of them.

`name`, `name@variant`, and for the twin of either `name-synthetic`, `name-synthetic@variant`.
"""

from functools import cache
from pathlib import Path

from lape_bench.config import read_yaml
from lape_bench.data.twin import SUFFIX, Twin, twin_card
from lape_bench.errors import UserError, unknown
from lape_bench.registry import TASKS
from lape_bench.task import Reader, TaskCard

LISTED = "'bench tasks' lists them with their titles"


def load_card(reference: str) -> TaskCard:
    """Read the card of `name` or `name@variant`; its reader is not imported.

    Raises:
        UserError: unknown task or variant (the nearest is named), or a card that does not hold.
    """
    name, _, variant = reference.partition("@")
    return _card(name).with_variant(variant)


@cache
def _card(name: str) -> TaskCard:
    if _is_twin(name):
        return twin_card(_card(name.removesuffix(SUFFIX)))
    if name not in TASKS.names():
        twins = [known + SUFFIX for known in TASKS.names() if _is_twin(known + SUFFIX)]
        raise unknown("task", name, [*TASKS.names(), *twins], LISTED)
    module = TASKS.source(name)
    path = (module.parent if module else Path()) / f"{name}.yaml"
    if module is None or not path.is_file():
        raise UserError(
            f"the task '{name}' has no card",
            allowed=f"a card stands beside its reader's module, as {path}",
        )
    return read_card(path)


def _is_twin(name: str) -> bool:
    names, base = TASKS.names(), name.removesuffix(SUFFIX)
    return base != name not in names and base in names and _card(base).data == "real"


def read_card(path: Path) -> TaskCard:
    """Read and check one card file; its name must be the task's."""
    card = read_yaml(path, TaskCard)
    if card.name != path.stem:
        raise UserError(
            f"{path}: 'name' is {card.name!r}", allowed=f"the file's own: {path.stem!r}"
        )
    if card.variant:
        raise UserError(f"{path}: 'variant' is not a key of the file; known: variants")
    return card


def published_lock(card: TaskCard) -> Path | None:
    """Return the lock that stands beside a card, which pins the split that everybody must have, if there is one."""
    module = TASKS.source(card.name) if card.name in TASKS.names() else None
    path = module.parent / "locks" / f"{card.reference}.csv" if module else None
    return path if path is not None and path.is_file() else None


def load_reader(card: TaskCard) -> Reader:
    """Import the reader of a card's data set."""
    if _is_twin(card.name):
        return Twin()
    kind: type[Reader] = TASKS.load(
        card.name,
        lambda loaded: isinstance(loaded, type) and issubclass(loaded, Reader),
        "a class derived from lape_bench.task.Reader",
    )
    return kind()


def synthetic(reference: str) -> str:
    """Return the reference of a task's twin; a task that is generated anyway is its own."""
    card = load_card(reference)
    if card.data == "synthetic":
        return reference
    return card.model_copy(update={"name": card.name + SUFFIX}).reference


def all_cards() -> tuple[list[TaskCard], list[UserError]]:
    """Read every registered card, by suite and name; those that do not hold are told beside."""
    cards, problems = [], []
    for name in TASKS.names():
        try:
            cards.append(load_card(name))
        except UserError as error:
            problems.append(error)
    return sorted(cards, key=lambda card: (card.suite, card.name)), problems


def suite_tasks(suite: str) -> list[str]:
    """Return the tasks of a suite, such as `open`, `lape` or `lape-synthetic`.

    Raises:
        UserError: no task is of that suite.
    """
    cards, _ = all_cards()
    suites: dict[str, list[str]] = {}
    for card in cards:
        suites.setdefault(card.suite, []).append(card.name)
        if card.data == "real":
            suites.setdefault(card.suite + SUFFIX, []).append(card.name + SUFFIX)
    if suite not in suites:
        raise unknown("suite", suite, suites)
    return suites[suite]
