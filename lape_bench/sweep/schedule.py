"""In which order the cells of a sweep begin: what several of them need is made by one, and the others wait for it.

Such a thing, an upstream say, goes by a name that each cell which needs it knows. The names are for planning: whether it is
there already, and is really the same, its artifact's hash tells once the cell runs.
"""

from collections import Counter
from collections.abc import Sequence


def makers(needs: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """Return, for each cell, which cell makes what it needs and others need too: the first of them, which may be itself.

    Args:
        needs: what each cell needs, by name; the cells are numbered in this order.
    """
    wanted = Counter(name for names in needs for name in set(names))
    first: dict[str, int] = {}
    for cell, names in enumerate(needs):
        for name in names:
            first.setdefault(name, cell)
    return [{name: first[name] for name in names if wanted[name] > 1} for names in needs]


def order(makers: Sequence[dict[str, int]]) -> list[int]:
    """Return the cells, those first that make what most others need."""
    wanted = Counter(name for needed in makers for name in needed)
    helps = [
        max((wanted[name] for name, maker in needed.items() if maker == cell), default=0)
        for cell, needed in enumerate(makers)
    ]
    return sorted(range(len(makers)), key=lambda cell: -helps[cell])


class Schedule:
    """The cells that have not begun yet, those first which make what most others need.

    Args:
        needs: what each cell needs and others may need too, by name; the cells are numbered in this order.
    """

    def __init__(self, needs: Sequence[Sequence[str]]) -> None:
        made_by = makers(needs)
        self._needs = [set(needed) for needed in made_by]
        self._waiting = dict.fromkeys(order(made_by))
        self._made: set[str] = set()
        self._making: dict[int, set[str]] = {}
        self._busy = Counter[str]()  # names that cells are making, and how many of them

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
