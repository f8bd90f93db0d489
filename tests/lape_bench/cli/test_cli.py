"""The command line as a user meets it."""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from typer.main import get_command

from lape_bench.cli import app as cli
from lape_bench.plugins.registry import TASKS
from lape_bench.records.record import read_record, write_record
from lape_bench.runtime import artifacts
from tests.lape_bench.report.test_leaderboard import write

Bench = Callable[..., tuple[int, str, str]]
TINY = "width=8 projector=8 pretrain.window_seconds=0.2 pretrain.batch_size=32"
SETTINGS = [word for pair in TINY.split() for word in ("--set", pair)]
MACHINE = ["--device", "cpu", "--precision", "float32"]
PRETRAIN = ["pretrain", "--system", "delores-s", *SETTINGS, *MACHINE]
ONE_EPOCH = ["--set", "pretrain.epochs=1", "--set", "pretrain.min_steps=1"]
RUN_FLOOR = ("run", "--system", "log-mel-statistics", "--device", "cpu")


def commands() -> list[list[str]]:
    """Every command and group, as the words that lead to it."""

    def walk(command: object, words: list[str]) -> list[list[str]]:
        below = getattr(command, "commands", {})
        return [words] + [each for name, sub in below.items() for each in walk(sub, [*words, name])]

    return walk(get_command(cli.app), [])


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_help_of_every_command_shows_an_example(words: list[str], bench: Bench) -> None:
    code, out, _ = bench(*words, "--help")
    assert code == 0
    assert f"Example: bench {' '.join(words)}".strip() in " ".join(out.split())


def test_real_recordings_go_from_folder_to_board_in_three_commands(
    esc_folder: Path, bench: Bench, tmp_path: Path
) -> None:
    code, out, _ = bench("data", "prepare", "esc10", "--from", str(esc_folder))
    assert code == 0
    assert "esc10: 50 clips" in out
    assert "differs from the card: clips: 50 instead of 400" in out
    code, out, _ = bench(*RUN_FLOOR, "--task", "esc10", "--out", str(tmp_path / "r"))
    assert code == 0
    board, row = out.splitlines()[1:3]
    assert board.strip() == "esc10, linear"
    assert row.split()[0] == "log-mel-statistics"
    assert row.split()[-3:] == ["1x5", "1,290", "0.0"]
    code, again, _ = bench("report", "--out", str(tmp_path / "r"))
    assert code == 0
    assert again == out
    some = next((tmp_path / "r").rglob("record.json"))
    code, out, _ = bench("show", str(some.parent))
    assert code == 0
    assert "accuracy" in out


def test_a_system_shows_its_presets_as_settings(bench: Bench) -> None:
    code, out, _ = bench("systems", "show", "unfused")
    assert code == 0
    assert "preset paper: distill.optimizer.name=sgd, distill.optimizer.learning_rate=0.03" in out


def test_verify_ends_with_one_where_something_fails(esc_folder: Path, bench: Bench) -> None:
    bench("data", "prepare", "esc10", "--from", str(esc_folder), "-q")
    (esc_folder / "001 - Dog bark" / "1-1-A.ogg").unlink()
    code, out, _ = bench("data", "verify", "esc10")
    assert code == 1
    assert any("FAILS" in line and "1-1-A.ogg" in line for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--task", "esc11"], "no task 'esc11': did you mean 'esc10'"),
        (["run", "--system", "supervise"], "did you mean 'supervised'"),
        (["run", "--protocol", "fine"], "no protocol 'fine'"),
        (
            ["run", "--system", "log-mel-statistics", "--protocol", "finetune"],
            "it has linear, mlp, knn",
        ),
        (
            ["run", "--system", "unfused", "--preset", "papr"],
            "no preset 'papr' in the system unfused: did you mean 'paper'?; known: centered, paper, two-rounds",
        ),
        (["run", "--preset", "paper"], "no preset 'paper' in the system supervised; known: none"),
        (["run", "--set", "widht=3"], "'widht' is not a known key: did you mean 'width'"),
        (
            ["run", "--device", "gpu"],
            "no device 'gpu': did you mean 'cpu'?; known: auto, cpu, cuda",
        ),
        (
            ["run", "--label-fraction", "10"],
            "the label fraction 10 is out of range; above 0, and at most 1",
        ),
        (["run", "--task", "esc10"], "'esc10' is not prepared; run 'bench data prepare esc10"),
        (["run", "--fold", "1"], "has no fold 1; its folds: none"),
        (["run", "--fold", "-1"], "has no fold -1; its folds: none"),
        (["run", "--device", "cuda:"], "no device 'cuda:'"),
        (["run", "--set", "linear.C=[0]"], "'linear.C.0'"),
        (["data", "prepare", "synthetic-sounds", "--from", "."], "is generated"),
        (["sweep", "no.yaml"], "no.yaml cannot be read"),
        (["report", "--out", "nowhere"], "no folder nowhere to report on"),
        (
            ["report", "--format", "pdf"],
            "no format 'pdf'; known: cells, csv, json, latex, markdown, terminal",
        ),
        (["report", "--suite", "open"], "--suite goes with --paper"),
        (["report", "--no-published"], "--no-published goes with --paper"),
        (["report", "--validation", "--html", "x.html"], "--validation is for the leaderboard"),
        (["report", "--metric", "accuracy", "--html", "x.html"], "--metric is for the leaderboard"),
        (["report", "--metric", "accuracy", "--validation"], "--metric is for the leaderboard"),
        (["report", "--paper", "unfused", "--format", "cells"], "no format 'cells'"),
        (
            ["report", "--paper", "x", "--published", "y.csv", "--no-published"],
            "--published and --no-published exclude each other",
        ),
        (["data", "prepare", "esc10"], "not told where the recordings are"),
        (["data", "prepare", "esc10", "--from", "nowhere"], "nowhere does not exist"),
        (["data", "prepare", "fsdd-digits@official"], "prepared together; give 'fsdd-digits'"),
        (["data", "fetch", "synthetic-sounds"], "cannot be downloaded, since"),
        (["data", "verify", "esc10"], "is not prepared"),
        (["tasks", "show", "esc10@other"], "no variant 'other' in the task esc10"),
        (["systems", "show", "x"], "no system 'x'; known: byol-a, "),
        (
            [*PRETRAIN, "--corpus", "x", "--system", "supervised"],
            "'supervised' of package lape_bench",
        ),
        ([*PRETRAIN, "--corpus", "x", "--system", "delores"], "no system 'delores': did you mean"),
        ([*PRETRAIN, "--corpus", "x"], "names 'x', which is neither a task nor a folder"),
        ([*PRETRAIN, "--corpus", "asc-keyword"], "did you mean 'asc-keywords'"),
        (
            [*PRETRAIN, "--corpus", "esc10"],
            "'esc10' is not prepared; run 'bench data prepare esc10",
        ),
        (
            [*PRETRAIN, "--corpus", "target"],
            "no task is evaluated here; names of tasks, folders of audio",
        ),
        ([*PRETRAIN, "--corpus", "", "--epochs", "1"], "corpus"),
        ([*PRETRAIN, "--corpus", "x", "--set", "widht=3"], "did you mean 'width'"),
        ([*PRETRAIN, "--corpus", "x", "--device", "gpu"], "no device 'gpu'"),
        (["show", "nowhere"], "nowhere holds no record; a cell's folder, or the record.json in it"),
        (["artifacts", "prune", "--kind", "embedings"], "no kind of artifact 'embedings'"),
        (["systems", "check", "supervised", "--set", "finetune.epochs=0"], "'finetune.epochs'"),
        (["run", "--set", "linear.c=[1]"], "'linear.c' is not a known key: did you mean 'C'?"),
        (["run", "--out", __file__, "--device", "cpu"], "is a file, but records go into a folder"),
        (["power", "a", "b", "--task", "t", "--seeds", "5"], "--seeds goes with --plan"),
        (["power", "--plan", "--task", "t"], "--task chooses records, but --plan reads none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_one_sentence_and_exit_code_2(
    arguments: list[str], said: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = bench(*arguments)
    lines = [line for line in err.splitlines() if line.startswith("bench: ")]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].endswith(".")


def test_a_failing_cell_is_named_and_the_exit_code_is_1(
    synthetic: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lape_bench.evaluation.plan import load_system

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(load_system("log-mel-statistics"), "score", fail)
    code, _, err = bench(*RUN_FLOOR, "--out", str(tmp_path))
    assert code == 1
    assert "failed: RuntimeError: out of luck" in err
    assert "1 of 1 cells failed" in err


def test_a_dry_run_shows_the_plan_and_runs_nothing(
    synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("systems: [log-mel-statistics]\ntasks: [synthetic-sounds, esc10]\nseeds: 2\n")
    out_folder = tmp_path / "results"
    code, out, _ = bench("sweep", str(grid), "--dry-run", "--out", str(out_folder))
    assert code == 0
    assert out.splitlines()[-1] == "0 finished, 2 to run, 10 impossible"
    assert not out_folder.exists()
    bench("run", "--system", "log-mel-statistics", "--out", str(out_folder), "-q")
    _, out, _ = bench("sweep", str(grid), "--dry-run", "--out", str(out_folder))
    assert out.splitlines()[-1] == "1 finished, 1 to run, 10 impossible"


def test_a_sweep_tells_how_far_it_is_by_system_and_task(
    synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("systems: [log-mel-statistics]\ntasks: [synthetic-sounds, esc10]\nseeds: 2\n")
    where = (str(grid), "--out", str(tmp_path / "results"))
    bench("run", "--system", "log-mel-statistics", "--out", str(tmp_path / "results"), "-q")
    code, out, _ = bench("sweep", "status", *where)
    assert code == 0
    heading, first, second, reason, counts = out.splitlines()
    assert heading.split() == ["system", "task", "finished", "to", "run", "impossible"]
    assert first.split() == ["log-mel-statistics", "synthetic-sounds", "1", "1"]
    assert second.split() == ["log-mel-statistics", "esc10", "10"]
    assert reason.startswith("10 impossible: the task 'esc10' is not prepared")
    assert counts == "1 finished, 1 to run, 10 impossible"
    _, out, _ = bench("sweep", "status", *where, "--task", "synthetic-sounds")
    assert out.splitlines()[-1] == "1 finished, 1 to run"


@pytest.mark.parametrize("named", [[], ["run"]])
def test_a_sweep_needs_no_name_of_its_command(
    named: list[str], synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("systems: [log-mel-statistics]\ntasks: [synthetic-sounds]\n")
    code, out, _ = bench("sweep", *named, "--out", str(tmp_path / "out"), "--dry-run", str(grid))
    assert (code, out.splitlines()[-1]) == (0, "0 finished, 1 to run, 0 impossible")
    code, _, err = bench("sweep", *named, str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml cannot be read" in err


def test_quiet_prints_the_board_alone(synthetic: Path, bench: Bench, tmp_path: Path) -> None:
    code, out, err = bench(*RUN_FLOOR, "--quiet", "--out", str(tmp_path))
    assert code == 0
    assert err == ""
    assert "synthetic-sounds [synthetic], linear" in out


def test_the_audit_is_shown_beside_the_board(synthetic: Path, bench: Bench, tmp_path: Path) -> None:
    _, out, _ = bench(*RUN_FLOOR, "--audit", "--out", str(tmp_path))
    assert "random split" in out
    assert "published shortcuts" in out


@pytest.mark.parametrize("format", ["markdown", "csv", "latex", "json"])
def test_reports_go_into_files_whole(
    format: str, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    bench(*RUN_FLOOR, "--out", str(tmp_path))
    code, out, err = bench("report", "--out", str(tmp_path), "--format", format)
    assert code == 0
    below_the_board = [line for line in err.splitlines() if line]
    assert all(
        line.startswith("synthetic-sounds [synthetic], linear: ") for line in below_the_board
    )
    assert "\x1b" not in out
    assert "log-mel-statistics" in out


def test_a_report_shows_the_tasks_that_are_asked_for(bench: Bench, tmp_path: Path) -> None:
    for task in ("bats", "birds"):
        write(tmp_path, 0, task=task)
    ask = ["report", "--out", str(tmp_path), "--format", "json", "--task"]
    code, out, _ = bench(*ask, "bats")
    assert (code, [row["task"] for row in json.loads(out)["rows"]]) == (0, ["bats"])
    code, _, err = bench(*ask, "bat")
    assert (code, err.count("\n")) == (2, 1)
    assert "no finished cell of the task 'bat': did you mean 'bats'?" in err


def test_a_board_is_ranked_by_the_metric_that_is_asked_for(
    synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    bench(*RUN_FLOOR, "--out", str(tmp_path))
    (record,) = (json.loads(path.read_text()) for path in tmp_path.rglob("record.json"))
    ask = ["report", "--out", str(tmp_path), "--format", "json", "--metric"]
    _, out, _ = bench(*ask, "macro_f1")
    (row,) = json.loads(out)["rows"]
    assert (row["metric"], row["score"]) == (
        "macro_f1",
        pytest.approx(record["metrics"]["macro_f1"]),
    )
    code, _, err = bench(*ask, "roc_auc")
    assert code == 2
    assert "no cell has the metric 'roc_auc'; roc_auc for tasks of two classes" in err


def test_listings_name_every_task_and_say_which_are_prepared(synthetic: Path, bench: Bench) -> None:
    _, out, _ = bench("tasks")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert set(TASKS.names()) <= set(rows)
    assert " prepared " in rows["synthetic-sounds"]
    assert " prepared " not in rows["esc10"]


@pytest.mark.slow
@pytest.mark.real_audio
def test_the_floor_on_real_recordings_is_the_one_computed_elsewhere(
    real_recordings: Path, bench: Bench, tmp_path: Path
) -> None:
    # Accuracies in percent of the independent computation that the data's floor.md describes.
    floors = {
        "fsdd-digits": 56.20,
        "fsdd-digits@official": 95.67,
        "asc-keywords": 51.17,
        "asc-speaker": 90.00,
        "esc10": 79.00,
    }
    wanted = [word for task in floors for word in ("--task", task)]
    assert bench(*RUN_FLOOR, *wanted, "--quiet", "--out", str(tmp_path / "r"))[0] == 0
    _, out, _ = bench("report", "--out", str(tmp_path / "r"), "--format", "csv")
    found = {row["task"]: 100 * float(row["score"]) for row in csv.DictReader(out.splitlines())}
    assert found.keys() == floors.keys()
    for task, floor in floors.items():
        assert found[task] == pytest.approx(floor, abs=0.7), task


def test_a_full_cache_disk_is_said_in_one_sentence(
    bench: Bench, esc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # /dev/full answers every write with the error of a full disk.
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    for name in ("INT16_FILE", "FLOAT32_FILE"):
        monkeypatch.setattr(f"lape_bench.data.stored_samples.{name}", "/dev/full")
    code, _, err = bench("data", "prepare", "esc10", "--from", str(esc_folder))
    assert code == 2
    assert "is full; free some space" in err
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == []


PROGRAM = [sys.executable, "-m", "lape_bench"]
# More than a buffer holds, which fails on the way, and less, which fails at the end.
LONG_AND_SHORT = pytest.mark.parametrize("words", [["tasks"], ["--version"]], ids=str)


@LONG_AND_SHORT
def test_a_full_disk_under_the_output_is_said_in_one_sentence(words: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the disk is full" in done.stderr


@LONG_AND_SHORT
def test_a_reader_that_has_seen_enough_is_no_error_of_ours(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, *words], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_output_that_was_closed_before_the_start_is_no_error_of_ours() -> None:
    words = " ".join(map(shlex.quote, [*PROGRAM, "systems"]))
    done = subprocess.run(["sh", "-c", f"{words} >&-"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_character_that_the_locale_lacks_is_written_as_an_escape(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 1)
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    report = [*PROGRAM, "report", "--out", str(tmp_path), "--format", "markdown"]
    done = subprocess.run(report, capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert r"\xb1" in done.stdout  # the plus-minus sign


def test_a_tilde_in_an_option_is_the_home_folder(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = bench("report", "--out=~/nowhere")
    assert code == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in err


def record_below(out: Path) -> dict[str, Any]:
    (path,) = out.rglob("record.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def kept_kinds() -> list[str]:
    return [each.kind for each in artifacts.list_artifacts(artifacts.cache())]


def test_an_upstream_is_pre_trained_once_and_cells_with_its_settings_find_it(
    own_artifacts: Path, bench: Bench, tmp_path: Path
) -> None:
    arguments = [*PRETRAIN, "--corpus", "synthetic-sounds"]
    arguments += ["--epochs", "1", "--set", "pretrain.min_steps=20"]  # six a pass: the epochs win
    code, out, err = bench(*arguments)
    assert code == 0
    first, curve = out.splitlines()
    (upstream,) = artifacts.list_artifacts(artifacts.cache())
    assert first.startswith(f"upstream {upstream.hash[:12]} pre-trained in ")
    assert first.endswith(f" s: {upstream.folder}")
    assert curve.startswith("1 epochs, loss ")
    code, again, _ = bench(*arguments)
    assert code == 0
    assert again.startswith(f"upstream {upstream.hash[:12]} found in the cache in ")
    assert again.splitlines()[1] == curve
    hint = err.splitlines()[-1].removeprefix("next: bench ").removesuffix(" --task TASK")
    for name, fraction in (("all", "1"), ("few", "0.1")):
        how = ["--protocol", "knn", "--label-fraction", fraction, "--out", str(tmp_path / name)]
        code, _, _ = bench(*shlex.split(hint), *MACHINE, *how)
        assert code == 0
        used = record_below(tmp_path / name)["artifacts"][0]
        assert (used["kind"], used["hash"], used["found"]) == ("upstream", upstream.hash, True)
        assert used["sha256"] == upstream.metadata.sha256 if upstream.metadata else False
    assert kept_kinds().count("upstream") == 1


def test_a_cell_keeps_its_upstream_for_bench_pretrain(
    own_artifacts: Path, bench: Bench, tmp_path: Path
) -> None:
    words = ["--system", "delores-s", *SETTINGS, *ONE_EPOCH, *MACHINE]
    bench("run", *words, "--protocol", "knn", "--out", str(tmp_path / "r"))
    used = record_below(tmp_path / "r")["artifacts"][0]
    assert (used["kind"], used["found"]) == ("upstream", False)
    code, out, _ = bench("pretrain", *words, "--corpus", "synthetic-sounds")
    assert code == 0
    assert out.startswith(f"upstream {used['hash'][:12]} found in the cache")


@pytest.mark.parametrize(
    "change", ["width=16", "pretrain.seed=1", "pretrain.optimizer.momentum=0.5"]
)
def test_an_upstream_of_other_settings_is_another(
    change: str, own_artifacts: Path, bench: Bench
) -> None:
    words = [*PRETRAIN, "--corpus", "synthetic-sounds", "--epochs", "1", "-q"]
    bench(*words)
    code, out, err = bench(*words, "--set", change)
    assert code == 0
    assert err == ""
    assert " pre-trained in " in out
    assert kept_kinds() == ["upstream"] * 2


@pytest.mark.parametrize(
    ("corpus", "setting"),
    [("my recordings", "projector=8"), ("recordings", "pretrain.seed=null")],
    ids=str,
)
def test_the_command_that_pretrain_proposes_can_be_pasted(
    corpus: str,
    setting: str,
    own_artifacts: Path,
    bench: Bench,
    tmp_path: Path,
    write_clip: Callable[..., Path],
) -> None:
    for seed in range(4):
        write_clip(tmp_path / corpus / f"{seed}.wav", seed)
    words = [*PRETRAIN, "--corpus", str(tmp_path / corpus), "--epochs", "1", "--set", setting]
    code, _, err = bench(*words)
    assert code == 0
    hint = err.splitlines()[-1].removeprefix("next: bench ").removesuffix(" --task TASK")
    code, _, err = bench(
        *shlex.split(hint), *MACHINE, "--protocol", "knn", "--out", str(tmp_path / "r")
    )
    assert (code, err.count("bench: ")) == (0, 0)
    assert record_below(tmp_path / "r")["artifacts"][0]["found"]


def test_a_corpus_that_holds_test_clips_fails_the_cell_and_says_so(
    own_artifacts: Path, bench: Bench, tmp_path: Path
) -> None:
    (data,) = (own_artifacts / "data").glob("synthetic-sounds-*")
    words = ["--system", "delores-s", *SETTINGS, *ONE_EPOCH, *MACHINE, "--out", str(tmp_path / "r")]
    code, _, err = bench("run", *words, "--set", f"corpus={data}")
    assert code == 1
    assert f"'{data}' holds 64 validation or test clips of synthetic-sounds" in err
    assert record_below(tmp_path / "r")["status"] == "failed"
    assert kept_kinds() == []


@pytest.fixture
def told(bench: Bench, synthetic: Path, tmp_path: Path) -> Path:
    """The folder of a finished cell."""
    bench(*RUN_FLOOR, "--out", str(tmp_path / "r"), "-q")
    return next((tmp_path / "r").rglob("record.json")).parent


def test_a_record_is_shown_by_its_folder_or_its_file(told: Path, bench: Bench) -> None:
    code, out, err = bench("show", str(told))
    assert (code, err) == (0, "")
    assert out.startswith("log-mel-statistics on synthetic-sounds (linear, seed 0)")
    assert bench("show", str(told / "record.json"))[1] == out
    assert bench("show", str(told.parents[2]))[1] == out


def test_of_several_records_show_asks_for_one(told: Path, bench: Bench) -> None:
    bench(*RUN_FLOOR, "--seeds", "2", "--out", str(told.parents[2]), "-q")
    code, out, err = bench("show", str(told.parents[2]))
    assert (code, out) == (2, "")
    assert "holds 2 records; name one, such as" in err


def lengthen(folder: Path) -> str:
    """Give a record settings and an error longer than any line; return the settings as they are shown."""
    record = read_record(folder)
    settings = {f"a_setting_of_some_length_{number}": number for number in range(20)}
    cell = record.cell.model_copy(update={"settings": settings})
    changed = {"cell": cell, "status": "failed", "error": "x" * 300}
    write_record(folder, record.model_copy(update=changed))
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def test_nothing_is_folded_in_a_file(told: Path, bench: Bench) -> None:
    settings = lengthen(told)
    _, out, _ = bench("show", str(told))
    assert any(settings in line for line in out.splitlines())
    assert any("x" * 300 in line for line in out.splitlines())


def test_a_terminal_of_80_columns_holds_every_line(
    told: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengthen(told)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, _ = bench("show", str(told))
    assert code == 0
    lines = Text.from_ansi(out).plain.splitlines()
    assert max(map(len, lines)) == 80
    assert sum(line.count("x") for line in lines) >= 300
    assert "…" not in out


def put(kind: str, name: str, days: float, about: str = "a stage") -> artifacts.Artifact:
    """Keep an artifact that was last used so many days ago."""
    made = artifacts.artifact(
        kind,
        about,
        {"name": name},
        lambda folder, work: (folder / "bytes").write_bytes(bytes(2**20)) and None,
        artifacts.cache(),
        {},
    )
    then = time.time() - days * 86_400
    os.utime(made.folder / "made.json", (then, then))
    return made


@pytest.fixture
def shelf() -> dict[str, artifacts.Artifact]:
    """Artifacts of two kinds and several ages, in the test's own cache."""
    return {
        "old": put("upstream", "old", 40, "DeloresM, d = 2048, on asc-keywords: 1,800 clips"),
        "young": put("upstream", "young", 2),
        "tables": put("embeddings", "tables", 31),
    }


def test_the_artifacts_are_listed_with_size_age_and_what_they_are(
    shelf: dict[str, artifacts.Artifact], bench: Bench, cache: Path
) -> None:
    code, out, _ = bench("artifacts", "list")
    assert code == 0
    _, *rows, total = out.splitlines()
    assert [row.split()[:2] for row in rows] == [
        ["embeddings", shelf["tables"].hash[:12]],
        ["upstream", shelf["old"].hash[:12]],
        ["upstream", shelf["young"].hash[:12]],
    ]
    assert rows[1].split()[2:5] == ["1.0", "0", "40.0"]
    assert rows[1].rstrip().endswith("DeloresM, d = 2048, on asc-keywords: 1,800 clips")
    assert total == f"3.0 MiB in {cache / 'artifacts'}"


def test_an_empty_cache_is_listed_and_pruned(bench: Bench, cache: Path) -> None:
    assert bench("artifacts", "list")[1].splitlines()[-1] == f"0.0 MiB in {cache / 'artifacts'}"
    assert bench("artifacts", "prune")[:2] == (0, "0 of 0 deleted, 0.0 MiB\n")


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], ["old", "tables"]),
        (["--unused-days", "35"], ["old"]),
        (["--unused-days", "0"], ["old", "tables", "young"]),
        (["--unused-days", "100"], []),
        (["--kind", "upstream"], ["old"]),
        (["--kind", "upstream", "--unused-days", "1"], ["old", "young"]),
    ],
    ids=" ".join,
)
def test_pruning_deletes_what_was_unused_for_so_long_and_a_dry_run_deletes_nothing(
    words: list[str], chosen: list[str], shelf: dict[str, artifacts.Artifact], bench: Bench
) -> None:
    named = {shelf[name].hash[:12] for name in chosen}
    code, out, _ = bench("artifacts", "prune", *words, "--dry-run")
    *rows, total = out.splitlines()
    assert code == 0
    assert {row.split()[1] for row in rows} == named
    assert total == f"{len(chosen)} of 3 would be deleted, {len(chosen)}.0 MiB"
    assert all(each.folder.is_dir() for each in shelf.values())
    code, out, _ = bench("artifacts", "prune", *words)
    assert out.splitlines() == [*rows, total.replace("would be deleted", "deleted")]
    assert {name for name, each in shelf.items() if not each.folder.exists()} == set(chosen)


def test_a_kind_that_nothing_is_of_is_named_with_the_nearest(
    shelf: dict[str, artifacts.Artifact], bench: Bench
) -> None:
    code, out, err = bench("artifacts", "prune", "--kind", "upstreams", "--unused-days", "0")
    assert (code, out) == (2, "")
    assert (
        "no kind of artifact 'upstreams': did you mean 'upstream'?; known: embeddings, upstream"
        in err
    )
    assert all(each.folder.is_dir() for each in shelf.values())
