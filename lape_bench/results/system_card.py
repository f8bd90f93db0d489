"""The card of a submission: who made a system, what it was trained on, and what it has heard of the test sets."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lape_bench.core.config import Config, read_yaml
from lape_bench.core.errors import UserError
from lape_bench.core.printable import is_printable
from lape_bench.records.record import LABEL

CARD = "card.yaml"
MOST_BYTES = 2**16  # of a card
LONGEST_TEXT = 1_000  # characters of a field
MARKUP = re.compile("[<>]")  # in a name; every report escapes names, and none needs these
DESCRIBED = "docs/how-to/submit-results.md describes the card"

# What a system has heard of a task's test set.
Contamination = Literal["none", "unlabeled", "labels", "unknown"]
FROM_LEAST: tuple[Contamination, ...] = ("none", "unknown", "unlabeled", "labels")


def _text(value: str) -> str:
    text = " ".join(value.split())
    if not text or len(text) > LONGEST_TEXT:
        raise ValueError(f"write 1 to {LONGEST_TEXT:,} characters")
    if not is_printable(value):
        raise ValueError("control characters are not allowed")
    return text


def _name(value: str) -> str:
    if not re.fullmatch(LABEL, value):
        raise ValueError("write 1 to 60 letters, digits, spaces and . + - _ @, without markup")
    return value


def _system(value: str) -> str:
    if MARKUP.search(value):
        raise ValueError("a system has no < or > in its name")
    return _text(value)


def _address(value: str) -> str:
    if not re.fullmatch(r"https://[^\s<>\"'`]+", value):
        raise ValueError("write an address that begins with https://")
    return _text(value)


Text = Annotated[str, AfterValidator(_text)]


class SystemCard(Config):
    """What the authors of a submission say of its systems."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="of the submission, for people")
    systems: tuple[Annotated[str, AfterValidator(_system)], ...] = Field(
        min_length=1, description="the systems of the records, as the leaderboard names them"
    )
    paper: Annotated[str, AfterValidator(_address)] = Field(
        description="address of the paper, or of a page that describes the system"
    )
    license: Text = Field(description="of code and weights, such as Apache-2.0")
    training_data: Text = Field(description="all audio that the system was trained on")
    contact: Text = Field(description="an author and how to reach them")
    contamination: dict[str, Contamination] = Field(
        description="by task, what the system has heard of the test set: none; unlabeled, its audio; labels; or unknown"
    )

    def contamination_of(self, task: str) -> Contamination | None:
        """Return what the systems have heard of a task's test set; None if the card does not say.

        Args:
            task: name, or name@variant; a variant without an entry of its own has that of its task.
        """
        base = task.partition("@")[0]
        return self.contamination.get(task, self.contamination.get(base))


def read_card(folder: Path) -> SystemCard:
    """Read the card of a submission.

    Raises:
        UserError: the card is missing, a link or too large, or a key or value is not allowed.
    """
    path = folder / CARD
    try:
        if path.is_symlink() or not path.is_file():
            raise UserError(f"there is no file {path}")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has more than {MOST_BYTES:,} bytes")
        return read_yaml(path, SystemCard)
    except UserError as error:
        allowed = error.allowed or f"keys: {', '.join(SystemCard.model_fields)}"
        raise UserError(error.what, allowed=allowed, next_step=DESCRIBED) from error
