"""Figures of one record: confusions, curves, embeddings, and the command that draws them."""

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from typer.testing import CliRunner

from lape_bench.cli.app import app
from lape_bench.core.errors import UserError
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import read_record, record_folders, write_record
from lape_bench.report.figures.confusion import confusion_figure, most_confused
from lape_bench.report.figures.embedding_map import embedding_map, project
from lape_bench.report.figures.learning_curves import learning_curves, quantities
from lape_bench.report.figures.style import styled
from tests.lape_bench.report.test_leaderboard import write
from tests.lape_bench.report.test_record_view import failed


def run(*arguments: object) -> None:
    """Run `bench figure` and let its error through."""
    CliRunner().invoke(app, ["figure", *map(str, arguments)], catch_exceptions=False)


def test_the_matrix_holds_the_percentage_of_each_class() -> None:
    labels, taken = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 2]
    counts = confusion_matrix(labels, taken, labels=range(4))  # the last class has no clip
    with styled():
        figure = confusion_figure(counts, ["a", "b", "c", "d"], "title")
    axis = figure.axes[0]
    expected = [[75, 25, 0, 0], [50, 50, 0, 0], [0, 0, 100, 0], [0, 0, 0, 0]]
    assert np.array_equal(axis.images[0].get_array(), expected)
    assert sorted(text.get_text() for text in axis.texts) == ["100", "25", "50", "50", "75"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b", "c", "d"]


def test_half_a_percent_is_rounded_up() -> None:
    counts = np.array([[1, 7], [17, 23]])  # 12.5, 87.5, 42.5 and 57.5 %
    with styled():
        axis = confusion_figure(counts, ["a", "b"], "title").axes[0]
    assert [text.get_text() for text in axis.texts] == ["13", "88", "43", "58"]


def test_hundreds_of_classes_are_numbered_and_their_worst_confusions_told_in_words() -> None:
    counts = np.diag(np.full(100, 5))
    counts[7, 9] = 3
    with styled():
        figure = confusion_figure(counts, [f"speaker {n}" for n in range(100)], "title")
    assert len(figure.axes[0].get_yticks()) < 20
    words = figure.get_supxlabel().splitlines()
    assert words == ["most often confused:", "speaker 7 (7) for speaker 9 (9): 3 of 8"]


def test_confusions_are_told_largest_first_without_what_was_right() -> None:
    counts = np.array([[50, 1, 4], [0, 60, 7], [2, 0, 70]])
    assert most_confused(counts, 3) == [(1, 2, 7), (0, 2, 4), (2, 0, 2)]
    assert counts[0, 0] == 50


def test_a_curve_of_validation_shares_the_panel_of_the_same_of_train() -> None:
    rows = [
        {"epoch": 1.0, "loss": 3.0, "validation": 0.2},
        {"epoch": 2.0, "loss": 2.0, "validation": 0.4, "validation_loss": 2.5},
    ]
    assert quantities(rows) == ["loss", "validation"]
    with styled():
        figure = learning_curves({"fine-tuning": rows}, "title", "it", "balanced_accuracy")
    loss, validation = figure.axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 3], [2, 2]], [[2, 2.5]]]
    assert [line.get_xydata().tolist() for line in validation.lines] == [[[1, 20], [2, 40]]]
    assert validation.get_ylabel() == "balanced accuracy (%)"
    assert loss.get_title() == "fine-tuning: loss"


def test_a_record_without_epochs_is_told_so() -> None:
    with pytest.raises(UserError, match="it has no learning curve"):
        learning_curves({}, "title", "it", "accuracy")


def test_the_map_is_the_plane_of_most_variance() -> None:
    embeddings = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    expected = PCA(5).fit(embeddings)
    places, axes = project(embeddings, "pca")
    assert np.allclose(np.abs(places), np.abs(expected.transform(embeddings)[:, :2]), atol=1e-4)
    assert (
        axes[0] == f"component 1 ({100 * expected.explained_variance_ratio_[0]:.1f} % of variance)"
    )


def test_neighbors_stay_neighbors_and_the_same_map_comes_twice() -> None:
    labels = np.repeat([0, 1], 20)
    embeddings = np.random.default_rng(0).normal(size=(40, 6)) + 20 * labels[:, None]
    maps = [project(embeddings.astype(np.float32), "tsne")[0] for _ in range(2)]
    assert np.array_equal(*maps)
    distances = np.linalg.norm(maps[0][:, None] - maps[0][None], axis=2) + 1e9 * np.eye(40)
    assert np.array_equal(labels[distances.argmin(axis=1)], labels)


def test_every_clip_is_a_point_of_its_class_and_rare_classes_share_a_color() -> None:
    labels = np.concatenate([np.arange(30), np.arange(24)])  # the last six have one clip
    embeddings = np.random.default_rng(0).normal(size=(54, 4)).astype(np.float32)
    with styled():
        figure = embedding_map(embeddings, labels, [f"c{n}" for n in range(30)], "title")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    sizes = [len(points.get_offsets()) for points in figure.axes[0].collections]
    assert legend == ["6 other classes", *(f"c{n}" for n in range(24))]
    assert sizes == [6, *[2] * 24]


def test_two_clips_have_no_map() -> None:
    with pytest.raises(UserError, match="at least 3"):
        embedding_map(np.zeros((2, 4), np.float32), np.array([0, 1]), ["a", "b"], "two clips")


def test_the_command_draws_a_record_and_a_board(tmp_path: Path) -> None:
    write(tmp_path / "results", 0)
    (folder,) = record_folders(tmp_path / "results")[0]
    run("confusion", folder, "--file", tmp_path / "confusion.svg")
    run("seconds", "--out", tmp_path / "results", "--file", tmp_path / "seconds.png")
    record = read_record(folder)
    text = (tmp_path / "confusion.svg").read_text(encoding="utf-8")
    assert f"<!-- {record.cell.title} -->" in text
    predictions = read_predictions(folder, record)
    taken = predictions.log_probabilities.argmax(axis=1)
    shares = 100 * confusion_matrix(predictions.labels, taken, normalize="true")
    halves_up = [Decimal(share).quantize(Decimal(1), ROUND_HALF_UP) for share in shares.ravel()]
    assert all(f"<!-- {share} -->" in text for share in halves_up if share)
    assert (tmp_path / "seconds.png").stat().st_size > 1_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["confusions", "--file", "a.png"], "did you mean 'confusion'"),
        (["parameters", "--file", "a.gif"], "no figure format '.gif'"),
        (["confusion", "--file", "a.png"], "needs a record"),
        (["confusion", "there", "--task", "t", "--file", "a.png"], "shows one record"),
        (["parameters", "there", "--file", "a.png"], "takes no record"),
        (["parameters", "--tsne", "--file", "a.png"], "--tsne goes with"),
        (["parameters", "--out", ".", "--task", "tt", "--file", "a.png"], "did you mean 't'"),
        (["parameters", "--out", ".", "--labels", "10%", "--file", "a.png"], "known: 100%"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        run(*arguments)
    assert not (tmp_path / "a.png").exists()


def test_a_failed_record_has_no_figure(tmp_path: Path) -> None:
    write_record(tmp_path / "cell", failed())
    with pytest.raises(UserError, match="out of luck"):
        run("confusion", tmp_path / "cell", "--file", tmp_path / "a.png")
