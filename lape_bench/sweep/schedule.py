"""The order in which the cells of a sweep start. If several cells need an artifact, one computes it and the others wait.

Each cell names the artifacts that it needs, such as an upstream. The names are used for scheduling only: when a cell runs,
the hash of the artifact decides whether it is in the cache.
"""

from collections import Counter
from collections.abc import Sequence


def find_producers(needs: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """Choose the producer of each shared artifact: the first cell that needs it.

    Args:
        needs: the names of the artifacts that each cell needs; cells are numbered in this order.

    Returns:
        For each cell, the producer of every artifact that it shares with others, by the artifact's name. A cell may be its
        own producer.
    """
    users = Counter(name for names in needs for name in set(names))
    first: dict[str, int] = {}
    for cell, names in enumerate(needs):
        for name in names:
            first.setdefault(name, cell)
    return [{name: first[name] for name in names if users[name] > 1} for names in needs]


def producers_first(producers: Sequence[dict[str, int]]) -> list[int]:
    """Return the cells in the order to start them: first the producers of artifacts that most cells need."""
    users = Counter(name for of_cell in producers for name in of_cell)
    most_users = [
        max((users[name] for name, producer in of_cell.items() if producer == cell), default=0)
        for cell, of_cell in enumerate(producers)
    ]
    return sorted(range(len(producers)), key=lambda cell: -most_users[cell])


class Schedule:
    """The cells that have not started yet, in the order of `producers_first`.

    Args:
        needs: the names of the artifacts that each cell needs; cells are numbered in this order.
    """

    def __init__(self, needs: Sequence[Sequence[str]]) -> None:
        producers = find_producers(needs)
        self._needs = [set(of_cell) for of_cell in producers]
        self._waiting = dict.fromkeys(producers_first(producers))
        self._computed: set[str] = set()
        self._computing: dict[int, set[str]] = {}  # by running cell
        self._busy = Counter[str]()  # how many running cells compute or await each artifact

    def __len__(self) -> int:
        """Number of cells that have not started."""
        return len(self._waiting)

    def begin_free(self) -> int | None:
        """Start the next cell that needs no artifact that is being computed, if there is one."""
        busy = self._busy.keys() - self._computed
        free = (cell for cell in self._waiting if busy.isdisjoint(self._needs[cell]))
        cell = next(free, None)
        return cell if cell is None else self._begin(cell)

    def begin(self) -> int:
        """Start such a cell or, if there is none, the next cell, which then waits for its artifact. At least one must be left."""
        cell = self.begin_free()
        return self._begin(next(iter(self._waiting))) if cell is None else cell

    def put_back(self, cell: int) -> None:
        """Put back a cell that started and was lost before it ended. It is the next to start."""
        self._end(cell)
        self._waiting = {cell: None, **self._waiting}

    def end(self, cell: int, computed: bool) -> None:
        """Note that a cell ended, and whether it computed its artifacts. If not, another cell that needs them does."""
        artifacts = self._end(cell)
        if computed:
            self._computed |= artifacts

    def _begin(self, cell: int) -> int:
        del self._waiting[cell]
        self._computing[cell] = self._needs[cell] - self._computed
        self._busy.update(self._computing[cell])
        return cell

    def _end(self, cell: int) -> set[str]:
        artifacts = self._computing.pop(cell)
        self._busy -= Counter(artifacts)
        return artifacts
