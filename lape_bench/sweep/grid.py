"""A grid in a file, and its cells."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, PositiveInt, field_validator

from lape_bench.core.config import Config, flatten
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.label_budget import ValidationLabels, label_budgets
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import ImpossibleCell, PlannedCell, expand_grid, plan, with_preset
from lape_bench.records.record import LABEL, Cell
from lape_bench.results.system_titles import system_title


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("a share of a GPU is at most 1; above 1, give a whole number")
    return gpus


Gpus = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_whole_above_one)]
MemoryGib = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Resources(Config):
    """The resources that a cell needs from a machine."""

    cores: int = Field(1, ge=1, description="CPU cores; a cell has one thread per core")
    memory_gib: MemoryGib | None = Field(None, description="memory in GiB; unset: not requested")
    gpus: Gpus | None = Field(
        None,
        description="GPUs, or a share of one; unset: one if Ray has any, and on Slurm one with --device cuda",
    )


class SweepItem(NamedTuple):
    """A cell of a sweep, with its resources."""

    cell: Cell
    resources: Resources = Resources()


class PlannedItem(NamedTuple):
    """A planned cell of a sweep, with its resources."""

    planned: PlannedCell
    resources: Resources = Resources()

    @property
    def cell(self) -> Cell:
        """The cell itself."""
        return self.planned.cell


def plan_sweep(
    items: Sequence[SweepItem], progress: Progress
) -> list[PlannedItem | ImpossibleCell]:
    """Resolve every cell of a sweep once. A cell that cannot run becomes an `ImpossibleCell`; the others still run.

    If the grids of a sweep hold a cell twice, perhaps with its settings in another spelling, it is planned once.

    Raises:
        UserError: two systems have the same label.
    """
    cells = plan((item.cell for item in items), progress)
    sweep: dict[str, PlannedItem | ImpossibleCell] = {}
    for cell, item in zip(cells, items, strict=True):
        if isinstance(cell, ImpossibleCell):
            sweep.setdefault(cell.cell.model_dump_json(), cell)
        else:
            sweep.setdefault(cell.identity, PlannedItem(cell, item.resources))
    _refuse_shared_labels([item.cell for item in sweep.values() if isinstance(item, PlannedItem)])
    return list(sweep.values())


def _refuse_shared_labels(cells: Iterable[Cell]) -> None:
    owners: dict[str, str] = {}
    for cell in cells:
        title = system_title(cell.system_name, flatten(cell.settings))
        if cell.label and owners.setdefault(cell.label, title) != title:
            raise UserError(
                f"the label '{cell.label}' is given to {owners[cell.label]} and to {title}",
                next_step="give each system of the sweep a label of its own",
            )


def _labeled(cell: Cell, label: str) -> Cell:
    return cell.model_copy(update={"label": label})


class SystemEntry(Config):
    """A system of a sweep, with the settings that differ from its defaults, and its name in reports."""

    name: str
    preset: str = Field("", description="a named set of settings, which `settings` change")
    settings: dict[str, Any] = Field(default_factory=dict)
    label: str = Field("", pattern=f"^({LABEL})?$", description="its name in reports")


class SweepConfig(Config):
    """A grid of cells."""

    systems: tuple[SystemEntry, ...] = Field(
        min_length=1, description="names, or name and settings"
    )
    tasks: tuple[str, ...] = Field(min_length=1)
    protocols: tuple[str, ...] = Field(
        (), description="if empty, the default protocol of each system"
    )
    label_fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="shares of the train labels; all labels if shots is empty too"
    )
    shots: tuple[PositiveInt, ...] = Field((), description="labels per class")
    validation_labels: ValidationLabels = "budget"
    seeds: int = Field(1, ge=1, le=10_000, description="number of seeds, counted from 0")
    resources: Resources = Field(Resources(), description="resources of each cell on a cluster")
    grids: tuple["SweepConfig", ...] = Field((), description="more grids of the same sweep")

    @field_validator("systems", mode="before")
    @classmethod
    def _a_name_is_an_entry(cls, systems: Any) -> Any:
        if not isinstance(systems, list):
            return systems
        return [{"name": entry} if isinstance(entry, str) else entry for entry in systems]

    @property
    def labels(self) -> list[str]:
        """The label budgets."""
        return label_budgets(self.label_fractions, self.shots, self.validation_labels)

    def only(self, tasks: Sequence[str]) -> "SweepConfig":
        """Return the grid of some of its tasks.

        Raises:
            UserError: a task is not in the grid.
        """
        known_tasks = [task for grid in self._grids() for task in grid.tasks]
        for task in tasks:
            if task not in known_tasks:
                raise unknown("task of this grid", task, known_tasks)
        first, *others = (
            grid.model_copy(
                update={"tasks": tuple(t for t in grid.tasks if t in tasks), "grids": ()}
            )
            for grid in self._grids()
        )
        return first.model_copy(update={"grids": tuple(others)})

    def items(self) -> list[SweepItem]:
        """Expand the grid into cells with their resources."""
        items = []
        for grid in self._grids():
            for entry in grid.systems:
                settings = with_preset(entry.name, entry.preset, entry.settings)
                system = [(entry.name, settings)]
                cells = expand_grid(system, grid.tasks, grid.protocols, grid.labels, grid.seeds)
                items += [SweepItem(_labeled(cell, entry.label), grid.resources) for cell in cells]
        return items

    def cells(self) -> list[Cell]:
        """Expand the grid into cells without resources."""
        return [item.cell for item in self.items()]

    def _grids(self) -> "list[SweepConfig]":
        return [self, *(grid for other in self.grids for grid in other._grids())]
