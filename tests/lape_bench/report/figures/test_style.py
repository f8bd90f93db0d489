"""Marks that differ, files that do not."""

from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from lape_bench.core.errors import UserError
from lape_bench.report.figures.style import (
    FORMATS,
    board_title,
    legend_below,
    marks,
    panels,
    styled,
    write_figure,
)
from tests.lape_bench.report.figures.test_boards import board


def contrast(first: str, second: str) -> float:
    """Ratio of relative luminances, by the formula of WCAG 2."""

    def luminance(color: str) -> float:
        shares = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_fifty_six_systems_differ_and_neighbors_in_color_and_marker() -> None:
    looks = list(marks(f"system {n:02}" for n in range(56)).values())
    assert len(set(looks)) == 56
    for one, other in pairwise(looks):
        assert one.color != other.color
        assert one.marker != other.marker


def test_a_mark_depends_on_the_set_of_names_and_not_on_their_order() -> None:
    assert marks(["b", "a", "c", "a"]) == marks(["c", "b", "a"])


def test_no_color_vanishes_on_white() -> None:
    assert min(contrast(look.color, "#ffffff") for look in marks(map(str, range(8))).values()) > 2


def drawn() -> Figure:
    figure, (axis,) = panels(1)
    (line,) = axis.plot([0, 1], [1, 0], label="a")
    legend_below(figure, {"a": line})
    return figure


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_figure_has_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.{suffix}" for n in range(2)]
    for path in paths:
        write_figure(drawn, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert first.startswith(start)


def test_a_user_s_own_style_does_not_reach_the_file(tmp_path: Path) -> None:
    write_figure(drawn, tmp_path / "plain.svg")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        write_figure(drawn, tmp_path / "loud.svg")
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "loud.svg").read_bytes()


def test_an_unknown_suffix_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no figure format '.gif'; known: .pdf, .png, .svg"):
        write_figure(drawn, tmp_path / "a.gif")


def test_a_figure_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="13 panels"):
        write_figure(lambda: panels(13)[0], tmp_path / "a.png")
    assert not list(tmp_path.glob("*a.png*"))


def test_a_dollar_in_a_name_is_drawn_as_it_stands(tmp_path: Path) -> None:
    def draw() -> Figure:
        figure, (axis,) = panels(1)
        axis.set_title("my$alpha$system")
        return figure

    with styled():
        figure = draw()
        assert not figure.axes[0].title.get_parse_math()
    write_figure(draw, tmp_path / "a.pdf")


def test_a_long_legend_makes_the_figure_higher_and_is_not_cut() -> None:
    with styled():
        figure, (axis,) = panels(1)
        before = figure.get_size_inches()[1]
        lines = {f"{'system ' * 20}{n}": axis.plot([n])[0] for n in range(9)}
        legend_below(figure, lines)
        figure.draw_without_rendering()
        (legend,) = (child for child in figure.get_children() if isinstance(child, Legend))
        box, page = legend.get_window_extent(), figure.bbox
    assert figure.get_size_inches()[1] > before
    assert box.y0 >= 0
    assert box.x0 >= 0
    assert box.x1 <= page.x1
    assert box.y1 <= axis.get_window_extent().y0


def test_a_title_says_what_sets_boards_apart() -> None:
    rows = board(
        data=["real", "synthetic"],
        manifest_hash=["abcdefgh", "ijklmnop"],
        card_version=[1, 1],
        protocol_version=[1, 1],
    )
    where = {"task": "t", "protocol": "linear", "labels": "5%", "data": "synthetic"}
    preparation = {"manifest_hash": "ijklmnop", "card_version": 1, "protocol_version": 1}
    title = board_title(where | preparation, rows)
    assert title == "t, linear, 5 % of labels [synthetic] [ijklmn]"
