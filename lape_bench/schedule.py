"""In which order the cells of a sweep begin: what several of them need is made by one, and the others wait for it.

Such a thing, an upstream say, goes by a name that each cell which needs it knows. The names are for planning: whether it is
there already, and is really the same, its artefact's hash tells once the cell runs.
"""

from collections import Counter
from collections.abc import Sequence


class Schedule:
    """The cells that have not begun yet, those first which make what most others need.

    Args:
        needs: what each cell needs and others may need too, by name; the cells are numbered in this order.
    """

    def __init__(self, needs: Sequence[Sequence[str]]) -> None:
        wanted = Counter(name for names in needs for name in set(names))
        self._needs = [{name for name in names if wanted[name] > 1} for names in needs]
        first = {name: cell for cell, names in reversed([*enumerate(needs)]) for name in names}
        makes = [
            {name for name in self._needs[cell] if first[name] == cell}
            for cell in range(len(needs))
        ]
        helps = [max((wanted[name] for name in names), default=0) for names in makes]
        self._waiting = dict.fromkeys(sorted(range(len(needs)), key=lambda cell: -helps[cell]))
        self._made: set[str] = set()
        self._making: dict[int, set[str]] = {}

    def __len__(self) -> int:
        """Cells that have not begun."""
        return len(self._waiting)

    def begin(self) -> int:
        """Take the next cell that needs nothing which is being made, else the next one, to wait inside; there is one left."""
        busy = set().union(*self._making.values()) - self._made
        free = (cell for cell in self._waiting if busy.isdisjoint(self._needs[cell]))
        cell = next(free, next(iter(self._waiting)))
        del self._waiting[cell]
        self._making[cell] = self._needs[cell] - self._made
        return cell

    def again(self, cell: int) -> None:
        """Put back a cell that began and did not end."""
        del self._making[cell]
        self._waiting = {cell: None, **self._waiting}

    def end(self, cell: int, made: bool) -> None:
        """Note that a cell ended, and whether it made what it needed; if not, another that needs it does."""
        making = self._making.pop(cell)
        if made:
            self._made |= making
