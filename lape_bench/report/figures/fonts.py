"""Draw characters that the font of the figures lacks with another installed font, or warn the user.

Class names may be in any script. matplotlib's own font, DejaVu Sans, has no Chinese, Japanese or Korean characters and few emoji.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

logger = logging.getLogger(__name__)

FAMILY = "DejaVu Sans"  # comes with matplotlib
MOST_SHOWN = 10  # characters in a message


@contextmanager
def fonts_for(figure: Figure, path: Path) -> Iterator[None]:
    """Give the texts of a figure fonts that have their characters, and tell which characters none has.

    Args:
        figure: made, but not written yet; it is written in the block.
        path: named in the message.
    """
    texts = _texts(figure)
    missing = {character for text in texts for character in text.get_text()} - _has(FAMILY)
    missing = {character for character in missing if character.isprintable()}
    families, lacking = _fallbacks(missing)
    for text in texts:
        if families and missing & set(text.get_text()):
            text.set_fontfamily([FAMILY, *families])
    if lacking:
        shown = "".join(sorted(lacking)[:MOST_SHOWN]) + ("..." if len(lacking) > MOST_SHOWN else "")
        logger.warning(
            f"{path}: no installed font has the characters {shown}, which are drawn as boxes; install one that has them, "
            "such as Noto Sans CJK or Noto Emoji"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _texts(figure: Figure) -> list[Text]:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # writes the labels, which are empty before
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def _has(family: str) -> set[str]:
    """Return the characters that a font has."""
    path = font_manager.findfont(family)
    return set(map(chr, font_manager.get_font(path).get_charmap()))


def _fallbacks(missing: set[str]) -> tuple[list[str], set[str]]:
    """Choose installed fonts that have characters, those with most of them first.

    Returns:
        Their families, and the characters that no font has.
    """
    candidates: dict[str, set[str]] = {}
    for entry in font_manager.fontManager.ttflist if missing else ():
        if entry.style == "normal" and entry.name not in candidates:
            candidates[entry.name] = _drawable(entry.fname, missing)
    families: list[str] = []
    while missing and candidates:
        best = min(candidates, key=lambda family: (-len(candidates[family] & missing), family))
        if not candidates[best] & missing:
            break
        families.append(best)
        missing = missing - candidates.pop(best)
    return families, missing


def _drawable(path: str, characters: set[str]) -> set[str]:
    """Return which characters a font file can draw; those of colored bitmaps cannot be drawn."""
    try:
        font = font_manager.get_font(path)
        found = {character for character in characters if ord(character) in font.get_charmap()}
        if found:
            font.set_size(10, 72)
            font.load_char(ord(min(found)))
    except (OSError, RuntimeError, ValueError):
        return set()
    return found
