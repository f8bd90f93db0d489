"""Figures of others: each with a source, each of a task that is known, none of them twice."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.report.papers.published import load_published, read_published

ROOT = Path(__file__).parents[4]
HEADER = "system,task,protocol,accuracy_percent,std_percent,encoder_parameters,source"
LINE = "M2D,us8k,linear,87.6,0.2,,a README"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(*lines: str, name: str = "own.csv", header: str = HEADER) -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
        return path

    return written


def test_what_comes_with_the_harness_holds_and_is_what_the_repository_shows() -> None:
    shown = [
        row
        for path in sorted((ROOT / "results" / "published").glob("*.csv"))
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    ]
    figures = load_published()
    assert [f.accuracy_percent for f in figures] == [float(r["accuracy_percent"]) for r in shown]
    assert [f.source for f in figures] == [r["source"] for r in shown]
    assert len(figures) >= 200


def test_an_empty_field_is_an_unknown_one(write: Write) -> None:
    (figure,) = read_published([write(LINE)])
    assert figure.encoder_parameters is None
    assert (figure.accuracy_percent, figure.std_percent) == (87.6, 0.2)


def test_a_user_s_own_come_after_ours_from_a_file_or_a_folder(write: Write, tmp_path: Path) -> None:
    path = write("mine,esc10,knn,90,,,my paper")
    for place in (path, tmp_path):
        assert load_published([place])[-1].system == "mine"
        assert load_published([place])[:-1] == load_published()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("M2D,us8k,linear,87.6,0.2,,", "own.csv, line 2: no source is given; give one"),
        ("M2D,us8k,linear,87.6,0.2,,  ", "line 2: no source is given"),
        (",us8k,linear,87.6,0.2,,x", "no system is given"),
        ("M2D\x1b[31m,us8k,linear,1,0.2,,x", "holds control characters"),
        ("M2D,us8k,linear,,0.2,,x", "no accuracy_percent is given"),
        ("M2D,us8k,,87.6,0.2,,x", "no protocol is given"),
        ("M2D,us8k,probe,87.6,0.2,,x", "'protocol'.*'probe'"),
        ("M2D,us8k,linear,0.876e3,0.2,,x", "'accuracy_percent'.*less than or equal to 100"),
        ("M2D,us8k,linear,many,0.2,,x", "'accuracy_percent'.*'many'"),
        ("M2D,us9k,linear,87.6,0.2,,x", "line 2: there is no task 'us9k': did you mean 'us8k'"),
        ("M2D,us8k@mine,linear,87.6,0.2,,x", "no variant 'mine' in the task us8k"),
        ("M2D,us8k-synthetic,linear,87.6,0.2,,x", "us8k-synthetic is generated"),
        ("M2D,us8k,linear,87.6,0.2,,x,and more", "line 2"),
    ],
)
def test_a_line_that_does_not_hold_is_refused_by_its_place(
    line: str, said: str, write: Write
) -> None:
    with pytest.raises(UserError, match=said):
        read_published([write(line)])


def test_a_figure_that_stands_twice_is_refused_by_both_places(write: Write) -> None:
    files = [write(LINE, name="a.csv"), write("X,us8k,knn,1,,,x", LINE, name="b.csv")]
    with pytest.raises(UserError, match=r"b\.csv, line 3: M2D on us8k .*a\.csv, line 2 too"):
        read_published(files)


def test_two_sources_may_differ_on_one_system(write: Write) -> None:
    assert len(read_published([write(LINE, LINE.replace("a README", "a paper"))])) == 2


def test_an_unknown_column_and_a_missing_file_are_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'sorce': did you mean 'source'"):
        read_published([write(header="system,sorce")])
    with pytest.raises(UserError, match="nowhere does not exist"):
        load_published([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no CSV file"):
        load_published([tmp_path / "empty"])
