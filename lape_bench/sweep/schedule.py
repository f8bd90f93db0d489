"""The order in which the cells of a sweep start: one of the cells that need an artifact computes it, and the others wait.

Such an artifact, an upstream for example, goes by a name that each cell which needs it knows. The names are for scheduling only:
when a cell runs, the hash of the artifact decides whether it is in the cache.
"""

from collections import Counter
from collections.abc import Sequence


def find_producers(needs: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """Return, for each cell, which cell produces each artifact that it shares: the first that needs it, perhaps itself.

    Args:
        needs: the artifacts that each cell needs, by name; the cells are numbered in this order.
    """
    users = Counter(name for names in needs for name in set(names))
    first: dict[str, int] = {}
    for cell, names in enumerate(needs):
        for name in names:
            first.setdefault(name, cell)
    return [{name: first[name] for name in names if users[name] > 1} for names in needs]


def producers_first(producers: Sequence[dict[str, int]]) -> list[int]:
    """Return the cells in the order to start them: first those that produce what most others need."""
    users = Counter(name for of_cell in producers for name in of_cell)
    helped = [
        max((users[name] for name, producer in of_cell.items() if producer == cell), default=0)
        for cell, of_cell in enumerate(producers)
    ]
    return sorted(range(len(producers)), key=lambda cell: -helped[cell])


class Schedule:
    """The cells that have not started yet, in the order of `producers_first`.

    Args:
        needs: the artifacts that each cell needs, by name; the cells are numbered in this order.
    """

    def __init__(self, needs: Sequence[Sequence[str]]) -> None:
        producers = find_producers(needs)
        self._needs = [set(of_cell) for of_cell in producers]
        self._waiting = dict.fromkeys(producers_first(producers))
        self._made: set[str] = set()
        self._making: dict[int, set[str]] = {}
        self._busy = Counter[str]()  # artifacts that are being computed, and by how many cells

    def __len__(self) -> int:
        """Cells that have not begun."""
        return len(self._waiting)

    def begin_free(self) -> int | None:
        """Take the next cell that needs nothing which is being made, if there is one."""
        busy = self._busy.keys() - self._made
        free = (cell for cell in self._waiting if busy.isdisjoint(self._needs[cell]))
        cell = next(free, None)
        return cell if cell is None else self._begin(cell)

    def begin(self) -> int:
        """Take such a cell, else the next one, to wait inside; there is one left."""
        cell = self.begin_free()
        return self._begin(next(iter(self._waiting))) if cell is None else cell

    def again(self, cell: int) -> None:
        """Put back a cell that began and did not end."""
        self._end(cell)
        self._waiting = {cell: None, **self._waiting}

    def end(self, cell: int, made: bool) -> None:
        """Note that a cell ended, and whether it made what it needed; if not, another that needs it does."""
        making = self._end(cell)
        if made:
            self._made |= making

    def _begin(self, cell: int) -> int:
        del self._waiting[cell]
        self._making[cell] = self._needs[cell] - self._made
        self._busy.update(self._making[cell])
        return cell

    def _end(self, cell: int) -> set[str]:
        making = self._making.pop(cell)
        self._busy -= Counter(making)
        return making
