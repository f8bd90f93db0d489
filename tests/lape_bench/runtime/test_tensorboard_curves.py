"""Event files of TensorBoard: read back, they are the record's curves, and writing them moves no prediction."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lape_bench.core.errors import UserError
from lape_bench.records.record import find_records
from lape_bench.runtime import tensorboard_curves
from lape_bench.runtime.tensorboard_curves import EVENTS, write_curves
from tests.lape_bench.conftest import Bench

BRIEF = ("--set", "width=16", "--set", "finetune.epochs=2", "--set", "finetune.min_steps=1")
RUN = ("run", "--system", "supervised", "--shots", "2", *BRIEF, "--device", "cpu", "-q")


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the event files of a run: steps and values by tag."""
    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_curves_of_a_run_are_read_back_and_its_predictions_are_those_without_the_option(
    synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    with_curves, without, events = (tmp_path / name for name in ("with", "without", "events"))
    code, _, errors = bench(*RUN, "--out", str(with_curves), "--tensorboard", str(events))
    assert code == 0, errors
    bench(*RUN, "--out", str(without))
    ((folder, record),) = find_records(with_curves)[0]
    ((_, plain),) = find_records(without)[0]
    assert record.predictions_sha256 == plain.predictions_sha256
    assert (record.identity, record.metrics) == (plain.identity, plain.metrics)
    written = scalars(events / folder.relative_to(with_curves))
    expected = {
        f"{stage}/{name}": [(int(row["epoch"]), pytest.approx(row[name])) for row in rows]
        for stage, rows in record.curves.items()
        for name in rows[0]
        if name != "epoch"
    }
    assert "fine-tuning/loss" in written
    assert written == expected


def test_a_run_that_is_written_again_has_one_event_file(tmp_path: Path) -> None:
    for loss in (3.0, 2.0):
        write_curves(tmp_path, "t/s", {"stage": [{"epoch": 1.0, "loss": loss}]})
    assert len([*(tmp_path / "t" / "s").glob(EVENTS)]) == 1
    assert scalars(tmp_path / "t" / "s") == {"stage/loss": [(1, 2.0)]}


def test_without_curves_nothing_is_written(tmp_path: Path) -> None:
    write_curves(tmp_path / "events", "t/s", {"stage": []})
    assert not (tmp_path / "events").exists()


def test_a_missing_package_is_named_before_anything_runs(
    synthetic: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_curves, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package tensorboard"):
        write_curves(tmp_path, "t/s", {})
    code, _, errors = bench(*RUN, "--out", str(tmp_path / "r"), "--tensorboard", str(tmp_path))
    assert (code, "pip install 'lape_bench[tensorboard]'" in errors) == (2, True)
    assert not (tmp_path / "r").exists()
