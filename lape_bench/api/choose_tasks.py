"""Choose the tasks to run: those that are named, and those of a suite that are prepared."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lape_bench.core.errors import UserError, unknown
from lape_bench.core.paths import manifest_path
from lape_bench.data.catalog import all_cards, load_card, suite_tasks, synthetic


@dataclass(frozen=True)
class ChosenTasks:
    """The tasks to run.

    Attributes:
        names: the names of the tasks, without duplicates.
        left_out: one line for each task of the suite that cannot be run, with the reason.
    """

    names: list[str]
    left_out: list[str] = field(default_factory=list)


def choose_tasks(named: Sequence[str], suite: str | None, data: str) -> ChosenTasks:
    """Return the named tasks, and the prepared tasks of the suite.

    Raises:
        UserError: a task, suite or kind of data is unknown, no task is given, or no task of the suite is prepared.
    """
    if data not in (kinds := ("real", "synthetic")):
        raise unknown("kind of data", data, kinds)
    from lape_bench.data.manifest import load_manifest  # pandas

    if not named and suite is None:
        raise UserError("no task is given", next_step="name one, such as synthetic-sounds")
    for name in named:
        if not isinstance(name, str):
            raise UserError(
                f"a task is given as {type(name).__name__}", allowed="its name, such as 'esc10'"
            )
    in_suite = suite_tasks(suite) if suite else []
    left_out = [f"left out: {problem}" for problem in all_cards()[1]] if suite else []
    if data == "synthetic":
        return ChosenTasks(list(dict.fromkeys(map(synthetic, [*named, *in_suite]))), left_out)
    ready, missing = [], []
    for name in in_suite:
        card = load_card(name)
        try:
            if card.data == "real":
                load_manifest(card)
            ready.append(name)
        except UserError as error:
            missing.append(name)
            if manifest_path(
                name
            ).is_file():  # prepared from another version of the card, or damaged
                left_out.append(f"left out: {error}")
    if missing:
        left_out.append(f"left out, not prepared: {', '.join(missing)}")
    if not named and not ready:
        raise UserError(
            f"no task of the suite '{suite}' is prepared",
            next_step="'bench data status' shows what is on disk; or try the synthetic version: --data synthetic, or data='synthetic' in Python",
        )
    return ChosenTasks(list(dict.fromkeys([*named, *ready])), left_out)
