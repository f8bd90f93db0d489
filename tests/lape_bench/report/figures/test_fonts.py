"""Names in any script: another installed font draws what the figures' own font lacks, or the user is told."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from lape_bench.report.figures.style import panels, write_figure

NAMES = ["été", "كلب", "犬", "🐶"]  # the first two are in DejaVu Sans


def font(path: Path, name: str, characters: str) -> None:
    """Write a font that draws each of some characters as a square."""
    builder = FontBuilder(1000, isTTF=True)
    glyphs = {".notdef": "", **{f"g{n}": character for n, character in enumerate(characters)}}
    builder.setupGlyphOrder([*glyphs])
    builder.setupCharacterMap({ord(c): glyph for glyph, c in glyphs.items() if c})
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyf(dict.fromkeys(glyphs, square))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (800, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[font_manager.FontEntry]]:
    """The installed fonts: those of matplotlib alone, and what a test adds."""
    own = [
        entry for entry in font_manager.fontManager.ttflist if entry.name.startswith("DejaVu Sans")
    ]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    font_manager.fontManager._findfont_cached.cache_clear()
    yield own
    font_manager.fontManager._findfont_cached.cache_clear()


def named(names: list[str], made: list[Figure] | None = None) -> Figure:
    """Make a figure of bars with names, and add it to a list."""
    figure, (axes,) = panels(1)
    if made is not None:
        made.append(figure)
    axes.barh(range(len(names)), range(1, len(names) + 1))
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_title(names[-1])
    return figure


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_an_installed_font_draws_what_the_own_one_lacks(
    suffix: str, tmp_path: Path, installed: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    font(tmp_path / "kanji.ttf", "Some Kanji", "犬猫")
    font(tmp_path / "emoji.ttf", "Some Emoji", "🐶")
    for path in ("kanji.ttf", "emoji.ttf"):
        font_manager.fontManager.addfont(tmp_path / path)
    figures: list[Figure] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_figure(lambda: named(NAMES, figures), tmp_path / f"a.{suffix}")
    labels = figures[0].axes[0].get_yticklabels()
    families = {text.get_text(): text.get_family() for text in labels}
    assert families["犬"] == families["🐶"] == ["DejaVu Sans", "Some Emoji", "Some Kanji"]
    assert families["été"] == families["كلب"] == ["DejaVu Sans"]
    assert not caplog.messages


def test_what_no_installed_font_has_is_told_once(
    tmp_path: Path, installed: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_figure(lambda: named(NAMES), tmp_path / "a.png")
    (message,) = caplog.messages
    assert "no installed font has the characters 犬🐶" in message
    assert (tmp_path / "a.png").is_file()


def test_a_font_that_cannot_be_drawn_is_not_chosen(
    tmp_path: Path, installed: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    font(tmp_path / "cut.ttf", "Cut Off", "犬🐶")
    font_manager.fontManager.addfont(tmp_path / "cut.ttf")
    (tmp_path / "cut.ttf").write_bytes(b"no font")
    font_manager._get_font.cache_clear()
    write_figure(lambda: named(NAMES), tmp_path / "a.png")
    assert "no installed font" in caplog.text
