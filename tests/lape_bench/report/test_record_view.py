"""One record in full: found by its folder, told without a line too many, drawn for any width."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lape_bench.core.errors import UserError
from lape_bench.records.record import (
    ArtifactUse,
    Cell,
    ParameterCounts,
    RunRecord,
    StageCost,
    TaskFacts,
    write_record,
)
from lape_bench.report.record_view import find_record, record_view, sparkline

NAN, INFINITY = float("nan"), float("inf")


def cell_of(seed: int = 0) -> Cell:
    return Cell(
        system="unfused",
        settings={
            "clusters": 128,
            "finetune": {"epochs": 12, "learning_rate": 0.001},
            "student_width": 128,
            "distill": {"epochs": 2},
            "teacher_settings": {"width": 64},
        },
        task="asc-keywords",
        protocol="finetune",
        labels="10%",
        seed=seed,
    )


def failed(seed: int = 0) -> RunRecord:
    return RunRecord(
        cell=cell_of(seed),
        identity="0",
        settings={},
        system_version=1,
        status="failed",
        error="RuntimeError: out of luck",
    )


def finished(epochs: int = 30) -> RunRecord:
    """A record in which every part is as long as it gets."""

    def curve(*names: str) -> tuple[dict[str, float], ...]:
        return tuple(
            {"epoch": float(epoch)} | dict.fromkeys(names, 123.456789 / (epoch + 1))
            for epoch in range(1, epochs + 1)
        )

    kinds = ("upstream", "embeddings", "pseudo-labels", "student")
    stages = (
        "audio",
        "pre-training",
        "pseudo-labels",
        "distillation",
        "fine-tuning",
        "train",
        "test",
    )
    return failed().model_copy(
        update={
            "status": "finished",
            "error": None,
            "metrics": {"accuracy": 0.5120, "balanced_accuracy": 0.5034, "macro_f1": 0.4987},
            "task": TaskFacts(
                name="asc-keywords",
                variant="",
                card_version=1,
                data="real",
                manifest_hash="abcdef0123456789" * 4,
                classes=("a", "b"),
                metric="accuracy",
                folds=1,
                clips={"train": 1800, "labeled": 180, "validation": 600, "test": 600},
                skipped=0,
            ),
            "selection": {"epoch 11 of 12": "validation"},
            "validation": 0.5450,
            "curves": {
                "pre-training": curve("loss", "spread", "rank"),
                "distillation": curve("loss"),
                "fine-tuning": curve("loss", "validation", "validation_loss"),
            },
            "diagnosis": {
                "cluster_sizes": (40, 9, 5, 3, 0, 0),
                "normalized_mutual_information": 0.4321,
                "student_agreement": 0.9876,
            },
            "parameters": ParameterCounts(encoder=5_321_856, inference=5_362_836, training=64_211_456),
            "stages": tuple(
                StageCost(name=name, seconds=1234.5, peak_memory_mib=12345.6) for name in stages
            ),
            "resumed": 2,
            "artifacts": tuple(
                ArtifactUse(kind=kind, hash="0123456789abcdef" * 2, seconds=1234.5, found=kind != "student")
                for kind in kinds
            ),
            "environment": {
                "device": "NVIDIA H200", "precision": "bf16", "threads": "16", "torch": "2.11.0",
                "commit": "0123456789abcdef0123",
            },
            "finished_at": "2025-01-02T03:04:05+00:00",
        }
    )  # fmt: skip


def lines_of(record: RunRecord, width: int = 200) -> list[str]:
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(record_view(record))
    return [line.rstrip() for line in captured.get().splitlines()]


def row_of(record: RunRecord, name: str) -> list[str]:
    """The words of the first line that begins with `name`, without it."""
    line = next(line for line in lines_of(record) if f"{line} ".startswith(f"{name} "))
    return line.removeprefix(name).split()


def said(record: RunRecord, name: str) -> str:
    return " ".join(row_of(record, name))


@pytest.mark.parametrize("words", [[], ["record.json"]], ids=["its folder", "the file"])
def test_a_record_is_found_by(words: list[str], tmp_path: Path) -> None:
    write_record(tmp_path / "cell", failed())
    write_record(tmp_path / "other", failed(1))
    assert find_record(tmp_path.joinpath("cell", *words)) == failed()


def test_a_folder_that_holds_one_record_is_enough(tmp_path: Path) -> None:
    write_record(tmp_path / "task" / "system" / "cell", failed())
    assert find_record(tmp_path) == failed()


def test_of_several_records_one_must_be_named(tmp_path: Path) -> None:
    for seed in range(5):
        write_record(tmp_path / f"cell-{seed}", failed(seed))
    with pytest.raises(UserError) as caught:
        find_record(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds 5 records; name one, such as "
        f"{tmp_path / 'cell-0'}, {tmp_path / 'cell-1'}, {tmp_path / 'cell-2'}."
    )


@pytest.mark.parametrize("name", ["empty", "nowhere", "nowhere/record.json", "empty/notes.md"])
def test_where_no_record_is_the_next_step_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("")
    with pytest.raises(UserError, match=r"holds no record; .*'bench run' makes one"):
        find_record(tmp_path / name)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(UserError, match=r"record.json was changed after it was written"):
        find_record(tmp_path)


def test_scores_counts_and_origin_are_told() -> None:
    record = finished()
    assert lines_of(record)[0] == "unfused on asc-keywords (finetune, 10 % of labels, seed 0)"
    assert said(record, "scores") == "accuracy 51.20 %, balanced accuracy 50.34 %, macro f1 49.87 %"
    assert said(record, "clips") == "train 1,800, labeled 180, validation 600, test 600"
    assert said(record, "data") == "real, manifest abcdef012345"
    assert said(record, "parameters").endswith("inference 5,362,836, training 64,211,456")
    assert said(record, "selection") == "epoch 11 of 12 by validation"
    assert said(record, "validation") == "accuracy 54.50 %"
    assert said(record, "settings").endswith("distill.epochs=2, teacher_settings.width=64")
    ran_on = "NVIDIA H200, bf16, 16 threads, torch 2.11.0, commit 0123456789ab"
    assert said(record, "machine") == ran_on
    assert said(record, "resumed") == "2 times after a kill"


def test_stages_artifacts_and_curves_are_told_each_in_a_line() -> None:
    record = finished()
    assert row_of(record, "distillation")[:2] == ["1234.5", "12,346"]
    assert row_of(record, "upstream") == ["0123456789ab", "1234.5", "found", "in", "the", "cache"]
    assert row_of(record, "student") == ["0123456789ab", "1234.5", "computed"]
    curves = lines_of(record)[lines_of(record).index("") :]
    losses = [line.split() for line in curves if " loss " in line and "▁" in line]
    assert losses[0][:5] == ["pre-training", "30", "loss", "61.73", "3.982"]
    assert [words[0] for words in losses[1:]] == ["distillation", "fine-tuning", "validation"]


def test_clusters_are_summed_up_and_what_helps_to_see_why_is_told() -> None:
    lines = lines_of(finished())
    assert "clusters: 6, of 0 to 40 clips (median 4), 2 empty" in lines
    assert "normalized mutual information: 0.432" in lines
    assert "student agreement: 0.988" in lines
    full = finished().model_copy(update={"diagnosis": {"cluster_sizes": (7, 7)}})
    assert "clusters: 2, of 7 to 7 clips (median 7), none empty" in lines_of(full)


def test_a_failed_record_is_told_with_its_error() -> None:
    assert said(failed(), "failed") == "RuntimeError: out of luck"
    assert [line.split()[0] for line in lines_of(failed())[1:]] == ["failed", "settings", "machine"]
    silent = failed().model_copy(update={"error": None})
    assert said(silent, "failed") == "for an unknown reason"


def test_a_cell_without_settings_ran_on_the_defaults() -> None:
    cell = Cell(system="s", task="t", protocol="linear")
    record = failed().model_copy(update={"cell": cell})
    assert said(record, "settings") == "defaults"


@pytest.mark.parametrize("epochs", [1, 24, 1000])
@pytest.mark.parametrize("width", [80, 120])
def test_everything_stands_within_the_terminal_and_nothing_is_cut(width: int, epochs: int) -> None:
    lines = lines_of(finished(epochs), width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    everything = " ".join(" ".join(lines).split())
    for words in (
        "validation loss",
        "found in the cache",
        "teacher_settings.width=64",
        "64,211,456",
    ):
        assert words in everything


def test_a_constant_curve_is_a_flat_line() -> None:
    assert sparkline([0.5] * 7) == "▁" * 7


def test_a_curve_runs_from_its_lowest_to_its_highest_value() -> None:
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert sparkline([-1, 0, 6]) == sparkline([0, 0.9, 7]) == "▁▂█"
    assert sparkline([1e-9, 3e-9]) == "▁█"


def test_what_is_not_finite_is_a_gap_and_moves_no_other_bar() -> None:
    assert sparkline([1, NAN, 8, INFINITY, 1, -INFINITY]) == "▁ █ ▁ "
    assert sparkline([NAN, INFINITY]) == sparkline([]) == ""
    assert sparkline([3.0, NAN]) == "▁ "


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80))
def test_bars_are_ordered_as_the_values_they_stand_for(values: list[float]) -> None:
    bars = sparkline(values)
    assert len(bars) == min(len(values), 24)
    if len(values) <= 24:
        pairs = sorted(zip(values, bars, strict=True))
        assert [bar for _, bar in pairs] == sorted(bar for _, bar in pairs)


@pytest.mark.parametrize("epochs", [25, 47, 48, 100, 1000])
def test_a_curve_longer_than_the_width_keeps_its_shape(epochs: int) -> None:
    bars = sparkline([math.exp(-3 * epoch / epochs) for epoch in range(epochs)])
    assert len(bars) == 24
    assert bars[0] == "█"
    assert bars[-1] == "▁"
    assert list(bars) == sorted(bars, reverse=True)


@pytest.mark.parametrize("epochs", [25, 100])
def test_a_long_curve_that_diverges_at_the_end_shows_it(epochs: int) -> None:
    assert sparkline([1.0] * (epochs - 1) + [9.0]) == "▁" * 23 + "█"
