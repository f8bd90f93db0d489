"""The catalog of tasks: registered tasks, own tasks, variants, synthetic versions and suites.

A reference is `name` or `name@variant`, and `name-synthetic` or `name-synthetic@variant` for the synthetic version.
Plug-ins register tasks. An own task is a card that `bench tasks new` wrote to the cache folder. A registered task hides
an own one with the same name.
"""

from functools import cache
from pathlib import Path

from lape_bench.core.config import read_yaml
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.paths import home
from lape_bench.data.readers.synthetic import SUFFIX, SyntheticReader, synthetic_card
from lape_bench.plugins.registry import TASKS
from lape_bench.task import Reader, TaskCard

LISTED = "'bench tasks' lists them with their titles"


def load_card(reference: str) -> TaskCard:
    """Read the card of `name` or `name@variant` without importing its reader.

    Raises:
        UserError: the task or variant is unknown, which suggests the nearest name, or the card is not valid.
    """
    name, _, variant = reference.partition("@")
    return _card(name).with_variant(variant)


def task_names() -> list[str]:
    """Return the names of all registered and own tasks, sorted, without synthetic versions."""
    return sorted([*TASKS.names(), *own_names()])


def own_card(name: str) -> Path:
    """Return the path of the card of an own task."""
    return home() / "tasks" / f"{name}.yaml"


def own_names() -> list[str]:
    """Return the names of own tasks that are not hidden by a registered task, sorted."""
    written = _written_names()
    return sorted(written - set(TASKS.names())) if written else []


def _written_names() -> set[str]:
    return {path.stem for path in own_card("any").parent.glob("[!.]*.yaml")}


def _card(name: str) -> TaskCard:
    own, base = own_names(), name.removesuffix(SUFFIX)
    # Read again each time: a user may edit a card, or choose another cache folder.
    if name in own:
        return _read_own(own_card(name))
    if base in own and _is_synthetic(name):
        return synthetic_card(_card(base))
    return _registered(name)


@cache
def _registered(name: str) -> TaskCard:
    if _is_synthetic(name):
        return synthetic_card(_card(name.removesuffix(SUFFIX)))
    if name not in TASKS.names():
        synthetic_names = {card.name + SUFFIX for card in all_cards()[0] if card.data == "real"}
        raise unknown("task", name, synthetic_names.union(task_names()), LISTED)
    return read_card(TASKS.yaml_file(name, "card"))


def _read_own(path: Path) -> TaskCard:
    card = read_card(path)
    if card.recordings is None:
        raise UserError(
            f"{path} does not say where the recordings are",
            allowed="recordings: {folder: ...}, and table: ... if a CSV file lists the clips",
            next_step="write the card again with 'bench tasks new'",
        )
    return card


def _is_synthetic(name: str) -> bool:
    names, base = task_names(), name.removesuffix(SUFFIX)
    return base != name not in names and base in names and _card(base).data == "real"


def read_card(path: Path) -> TaskCard:
    """Read and check a card file. Its name must be the name of the task."""
    card = read_yaml(path, TaskCard)
    if card.name != path.stem:
        raise UserError(
            f"{path}: 'name' is {card.name!r}", allowed=f"the file's own: {path.stem!r}"
        )
    if card.variant:
        raise UserError(f"{path}: 'variant' is not a key of the file; known: variants")
    return card


def published_lock(card: TaskCard) -> Path | None:
    """Return the lock file beside a card, which pins the split; None if there is none."""
    module = TASKS.source(card.name) if card.name in TASKS.names() else None
    path = module.parent / "locks" / f"{card.reference}.csv" if module else None
    return path if path is not None and path.is_file() else None


def load_reader(card: TaskCard) -> Reader:
    """Import the reader of a card's data set."""
    if _is_synthetic(card.name):
        return SyntheticReader()
    if card.recordings is not None:
        # Here, since listing tasks must not import libraries that read audio.
        from lape_bench.data.readers.class_folders import ClassFolders
        from lape_bench.data.readers.clip_table import ClipTable

        return ClassFolders() if card.recordings.table is None else ClipTable()
    kind: type[Reader] = TASKS.load(
        card.name,
        lambda loaded: isinstance(loaded, type) and issubclass(loaded, Reader),
        "a class derived from lape_bench.task.Reader",
    )
    return kind()


def synthetic(reference: str) -> str:
    """Return the reference of the synthetic version of a task. A generated task is its own synthetic version."""
    card = load_card(reference)
    if card.data == "synthetic":
        return reference
    return card.model_copy(update={"name": card.name + SUFFIX}).reference


def all_cards() -> tuple[list[TaskCard], list[UserError]]:
    """Read every registered and own card, sorted by suite and name. Also return the problems of cards that cannot be
    used.
    """
    cards, problems = [], []
    for name in task_names():
        try:
            cards.append(load_card(name))
        except UserError as error:
            problems.append(error)
    problems += [
        UserError(
            f"{own_card(name)} is hidden by the registered task of that name",
            next_step="rename the file and the task in it",
        )
        for name in sorted(_written_names().intersection(TASKS.names()))
    ]
    return sorted(cards, key=lambda card: (card.suite, card.name)), problems


def suite_tasks(suite: str) -> list[str]:
    """Return the tasks of a suite, such as `open`, `lape` or `lape-synthetic`.

    Raises:
        UserError: no task belongs to the suite.
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
