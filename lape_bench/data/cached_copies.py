"""Tell recordings that the harness has copied to the cache folder from those that a user keeps, there or elsewhere."""

from pathlib import Path

from lape_bench.core.paths import home

UNPACKED, IMPORTED, DOWNLOADED = "data", "imported", "downloads"  # folders of copies


def is_imported(folder: Path) -> bool:
    """Return True if a folder holds recordings of an imported data set."""
    return folder.is_relative_to(home() / IMPORTED)


def is_copy(root: Path) -> bool:
    """Return True if all recordings of a task are copies: unpacked, generated or imported.

    Args:
        root: the folder that was passed to the reader. If a data set was given as several parts, it holds links to them, and
            some of these may lead to a folder of the user.
    """
    if not any(root.is_relative_to(home() / place) for place in (UNPACKED, IMPORTED)):
        return False
    places = [(home() / place).resolve() for place in (UNPACKED, IMPORTED, DOWNLOADED)]
    links = [path.resolve() for path in root.iterdir() if path.is_symlink()]
    return all(any(link.is_relative_to(place) for place in places) for link in links)
