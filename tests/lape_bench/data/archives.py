"""Small archives, and a card whose recordings come in them."""

import io
import zipfile
from collections.abc import Mapping

from lape_bench.data.catalog import load_card
from lape_bench.task import Source, TaskCard
from lape_bench.tasks.voxforge import VoxForge


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """Return a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # without today's time: the same bytes
    return buffer.getvalue()


def card_with(*sources: Source, **changes: object) -> TaskCard:
    """A card with these sources, and a reader that does not matter."""
    return load_card("esc10").model_copy(update={"sources": sources} | changes)


def card_with_index(url: str, *others: Source) -> TaskCard:
    """A card whose archives are named by an index at this address."""
    sources = (Source(file=VoxForge.index, url=url), *others)
    return load_card("voxforge").model_copy(update={"sources": sources})
