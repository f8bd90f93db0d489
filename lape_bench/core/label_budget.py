"""The label budget of a cell: how many labels of the train split it may use, for training and selection together.

It is written as text: `100%`, `10%`, `5-shot`. With `+validation`, selection may also use a fully labeled validation
set.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field

from lape_bench.core.errors import UserError, unknown

ALLOWED = "a percentage such as 10%, or a number of clips per class such as 5-shot"
VALIDATION = "+validation"
LARGEST_SHOTS = 10**9
PATTERN = r"\d+-shot(\+validation)?|[\d.e+-]+%(\+validation)?"  # of the text
ValidationLabels = Literal["budget", "all"]


@dataclass(frozen=True)
class LabelBudget:
    """The labels that a cell may use.

    Attributes:
        fraction: share of each class's train clips, in (0, 1]; 1 if `shots` counts.
        shots: train clips per class; 0 if `fraction` counts.
        validation: whether selection may also see all labels of a validation set: the official one, or if the task has
            none, a tenth of train, which is then not trained on.
    """

    fraction: float = 1.0
    shots: int = 0
    validation: bool = False

    def __post_init__(self) -> None:
        """Raise a `UserError` if the budget holds no labels."""
        if not 0 < self.fraction <= 1:
            raise UserError(
                f"the label fraction {self.fraction:g} is out of range",
                allowed="above 0, and at most 1",
            )
        if not 0 <= self.shots <= LARGEST_SHOTS:
            raise UserError(
                f"the number of shots {self.shots} is out of range", allowed="1 or more"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a budget as `str` writes it; `0.1` is `10%`.

        Raises:
            UserError: the text is not a budget.
        """
        plain = text.strip().removesuffix(VALIDATION)
        validation = plain != text.strip()
        if match := re.fullmatch(r"([0-9]{1,10})-shots?", plain):
            if int(match[1]):
                return cls(shots=int(match[1]), validation=validation)
        elif match := re.fullmatch(r"([0-9.]+(?:e-?[0-9]+)?) ?(%?)", plain):
            try:
                share = float(match[1]) / (100 if match[2] else 1)
            except ValueError:
                share = 0.0
            if 0 < share <= 1:
                return cls(fraction=share, validation=validation)
        raise UserError(f"'{text}' is not a label budget", allowed=ALLOWED)

    def __str__(self) -> str:
        """Return the one spelling of this budget."""
        plain = f"{self.shots}-shot" if self.shots else f"{100 * self.fraction:.12g}%"
        return plain + VALIDATION * self.validation

    @property
    def is_all(self) -> bool:
        """Whether the budget holds all labels of the train split, and none of a validation set."""
        return self.fraction == 1 and not self.shots and not self.validation

    @property
    def description(self) -> str:
        """The budget in words, such as "10 % of labels"."""
        if self.shots:
            plain = f"{self.shots} label{'s' * (self.shots > 1)} per class"
        else:
            plain = f"{100 * self.fraction:.3g} % of labels" if self.fraction < 1 else "all labels"
        return plain + (", selected on all validation labels" if self.validation else "")

    @property
    def short_name(self) -> str:
        """The budget in characters that folder names and URLs allow."""
        plain = f"{self.shots}-shot" if self.shots else f"{self.fraction:g}"
        return plain + "-validation" * self.validation

    @property
    def unit(self) -> str:
        """The unit of `amount`; budgets with the same unit are drawn on one curve."""
        plain = "labels per class" if self.shots else "labels (% of train)"
        return plain + (", selected on all validation labels" if self.validation else "")

    @property
    def amount(self) -> float:
        """Labels per class, or percent of train."""
        return self.shots or 100 * self.fraction

    @property
    def order(self) -> float:
        """A key that sorts budgets: shots before fractions, few labels before many, one variant after the other."""
        return self.amount + LARGEST_SHOTS * (not self.shots) + 4 * LARGEST_SHOTS * self.validation

    def count(self, size: int) -> int:
        """Return how many of a class's `size` clips are labeled: at least one."""
        return min(size, self.shots or max(1, round(self.fraction * size)))


def budget_order(text: str) -> float:
    """Return a key that sorts the texts of budgets."""
    return LabelBudget.parse(text).order


def label_budgets(
    fractions: Sequence[float] = (),
    shots: Sequence[int] = (),
    validation_labels: ValidationLabels = "budget",
) -> list[str]:
    """Return budgets as text: one for each number of shots, then one for each fraction; all labels if none is given.

    Args:
        fractions: shares of the train labels, in (0, 1].
        shots: labels per class.
        validation_labels: with "budget", selection sees only the labels of the budget; with "all", it also sees all labels
            of a validation set.

    Raises:
        UserError: a number is out of range, or a value is not a number.
    """
    if validation_labels not in (allowed := get_args(ValidationLabels)):
        raise unknown("value of validation_labels", validation_labels, allowed)
    validation = validation_labels == "all"
    _refuse_other_types(fractions, shots)
    if any(number < 1 for number in shots):
        raise UserError(f"the number of shots {min(shots)} is out of range", allowed="1 or more")
    if not fractions and not shots:
        fractions = (1.0,)
    chosen = [LabelBudget(shots=int(number), validation=validation) for number in shots]
    chosen += [LabelBudget(fraction=share, validation=validation) for share in fractions]
    return [str(budget) for budget in dict.fromkeys(chosen)]


def _refuse_other_types(fractions: Sequence[object], shots: Sequence[object]) -> None:
    for share in fractions:
        if not isinstance(share, Real):
            raise UserError(
                f"the label fraction {share!r} is not a number",
                allowed="above 0, and at most 1: 0.1",
            )
    for number in shots:
        if not isinstance(number, Integral):
            raise UserError(
                f"the number of shots {number!r} is not a whole number", allowed="1 or more"
            )


def _one_spelling(text: str) -> str:
    try:
        return str(LabelBudget.parse(text))
    except UserError as error:
        raise ValueError(str(error)) from error


LabelBudgetText = Annotated[
    str, AfterValidator(_one_spelling), Field(description=f"label budget: {ALLOWED}")
]
