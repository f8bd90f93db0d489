"""The description of a paper's tables: its systems, their order and groups, and the reference.

A description is a YAML file. An installed one is registered in the entry-point group `lape_bench.papers`. It is the
file `<name>.yaml` beside the module of its entry point; the module is not imported.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from lape_bench.core.config import Config, flatten, read_yaml
from lape_bench.core.errors import unknown
from lape_bench.core.label_budget import LabelBudgetText
from lape_bench.plugins.registry import PAPERS
from lape_bench.records.record import ProtocolName
from lape_bench.task import Domain


class PaperSystem(Config):
    """A row: the cells of a system that have these settings."""

    label: str = Field(min_length=1, description="name of the system in the table")
    name: str = Field(description="the system as it is run: a registered name, or KIND:ARGUMENT")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="what a cell must have been run with"
    )

    @field_validator("settings")
    @classmethod
    def _keys_are_dotted(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return flatten(settings)


class PaperTaskGroup(Config):
    """Columns that have an average of their own: the tasks of some domains."""

    title: str = Field(min_length=1)
    domains: tuple[Domain, ...] = Field(min_length=1)


class PaperAblation(Config):
    """A row of the ablation table: what it changes of the base."""

    label: str = Field(min_length=1)
    settings: dict[str, Any] = Field(min_length=1)


class PaperAblations(Config):
    """The ablation table: a row of the main table, and what becomes of it where something is taken away."""

    base: str = Field(description="label of a system")
    rows: tuple[PaperAblation, ...] = Field(min_length=1)


class PaperSpecification(Config):
    """The tables of a paper."""

    title: str
    source: str = Field("", description="where the paper can be read")
    suite: str = Field("lape", description="its tasks")
    protocol: ProtocolName = "finetune"
    labels: LabelBudgetText = "100%"
    label_budgets: tuple[LabelBudgetText, ...] = Field(
        (), description="of the table that compares them; none: no such table"
    )
    groups: tuple[PaperTaskGroup, ...] = Field(min_length=1)
    headings: dict[str, str] = Field(
        default_factory=dict, description="short names of tasks, in the order of the columns"
    )
    defaults: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="defaults of systems, of those settings that rows ask for: a record names only what was changed",
    )
    systems: tuple[PaperSystem, ...] = Field(min_length=1)
    reference: str | None = Field(
        None, description="label of the system whose encoder the others' are compared with in size"
    )
    ablations: PaperAblations | None = None

    @model_validator(mode="after")
    def _labels_are_known_and_differ(self) -> Self:
        labels = [system.label for system in self.systems]
        taken = [*labels, *(row.label for row in self.ablations.rows)] if self.ablations else labels
        twice = sorted({label for label in taken if taken.count(label) > 1})
        if twice:
            raise ValueError(f"the label '{twice[0]}' appears twice")
        wanted = {"reference": self.reference}
        wanted |= {"ablations.base": self.ablations.base if self.ablations else None}
        for where, label in wanted.items():
            if label is not None and label not in labels:
                raise ValueError(f"{where}: {unknown('label', label, labels)}")
        return self

    @model_validator(mode="after")
    def _a_domain_has_one_group(self) -> Self:
        domains = [domain for group in self.groups for domain in group.domains]
        if len(domains) > len(set(domains)):
            raise ValueError("groups: a domain is in two of them")
        return self

    @property
    def ablated(self) -> tuple[PaperSystem, ...]:
        """The rows of the ablation table below its base, with every setting they ask for."""
        if self.ablations is None:
            return ()
        base = self.system(self.ablations.base)
        return tuple(
            PaperSystem(
                label=row.label, name=base.name, settings=base.settings | flatten(row.settings)
            )
            for row in self.ablations.rows
        )

    def system(self, label: str) -> PaperSystem:
        """Return the system with this label, which is one of the paper's."""
        return next(system for system in self.systems if system.label == label)


def load_paper(name: str) -> PaperSpecification:
    """Read a description: an installed one by its name, or a file.

    Raises:
        UserError: there is no such paper or file, or it is not valid.
    """
    if name.endswith((".yaml", ".yml")):
        return read_yaml(Path(name), PaperSpecification)
    if name not in PAPERS.names():
        raise unknown("paper", name, PAPERS.names(), "or give a YAML file, --paper my/paper.yaml")
    return read_yaml(PAPERS.yaml_file(name, "description"), PaperSpecification)
