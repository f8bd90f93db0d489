"""The command line as a user meets it."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from lape_bench import cli
from lape_bench.registry import TASKS

Bench = Callable[..., tuple[int, str, str]]
ESC_FOLDERS = [
    "001 - Dog bark", "002 - Rain", "003 - Sea waves", "004 - Baby cry", "005 - Clock tick",
    "006 - Person sneeze", "007 - Helicopter", "008 - Chainsaw", "009 - Rooster", "010 - Fire crackling",
]  # fmt: skip
RUN_FLOOR = ("run", "--system", "log-mel-statistics", "--device", "cpu")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Run `bench` in this process; returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def esc_folder(tmp_path: Path, write_clip: Callable[..., Path]) -> Path:
    """A small ESC-10: one clip of each class in each fold."""
    root = tmp_path / "esc"
    for number, folder in enumerate(ESC_FOLDERS):
        for fold in range(1, 6):
            path = root / folder / f"{fold}-{100 * number + fold}-A.ogg"
            write_clip(path, 10 * number + fold, rate=16_000, format="OGG", subtype="VORBIS")
    return root


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
    assert row.split()[-2:] == ["5", "1,290"]
    code, again, _ = bench("report", "--out", str(tmp_path / "r"))
    assert code == 0
    assert again == out


def test_verify_ends_with_one_where_something_fails(esc_folder: Path, bench: Bench) -> None:
    bench("data", "prepare", "esc10", "--from", str(esc_folder), "-q")
    (esc_folder / ESC_FOLDERS[0] / "1-1-A.ogg").unlink()
    code, out, _ = bench("data", "verify", "esc10")
    assert code == 1
    assert any("FAILS" in line and "1-1-A.ogg" in line for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--task", "esc11"], "no task 'esc11': did you mean 'esc10'"),
        (["run", "--system", "supervise"], "did you mean 'supervised'"),
        (["run", "--protocol", "fine"], "no protocol 'fine'"),
        (["run", "--system", "log-mel-statistics", "--protocol", "finetune"], "it has linear, knn"),
        (["run", "--set", "widht=3"], "'widht' is not a known key: did you mean 'width'"),
        (
            ["run", "--device", "gpu"],
            "no device 'gpu': did you mean 'cpu'?; known: auto, cpu, cuda",
        ),
        (["run", "--label-fraction", "10"], "--label-fraction is 10.0; above 0, at most 1"),
        (["run", "--task", "esc10"], "'esc10' is not prepared; run 'bench data prepare esc10"),
        (["run", "--fold", "1"], "has no fold 1; its folds: none"),
        (["run", "--fold", "-1"], "has no fold -1; its folds: none"),
        (["run", "--device", "cuda:"], "no device 'cuda:'"),
        (["run", "--set", "linear.inverse_penalty=[0]"], "'linear.inverse_penalty.0'"),
        (["data", "prepare", "synthetic-sounds", "--from", "."], "is generated"),
        (["sweep", "no.yaml"], "no.yaml cannot be read"),
        (["report", "--out", "nowhere"], "no folder nowhere to report on"),
        (["report", "--format", "latex"], "--format is 'latex'; terminal, markdown, csv"),
        (["data", "prepare", "esc10"], "not told where the recordings are"),
        (["data", "prepare", "esc10", "--from", "nowhere"], "nowhere does not exist"),
        (["data", "prepare", "fsdd-digits@official"], "prepared together; give 'fsdd-digits'"),
        (["data", "fetch", "synthetic-sounds"], "no address to fetch"),
        (["data", "verify", "esc10"], "is not prepared"),
        (["tasks", "show", "esc10@other"], "no variant of esc10 'other'"),
        (["systems", "show", "x"], "no system 'x'; known: log-mel-statistics, supervised"),
        (["systems", "check", "supervised", "--set", "finetune.epochs=0"], "'finetune.epochs'"),
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
    from lape_bench.runner import load_system

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


def test_quiet_prints_the_board_alone(synthetic: Path, bench: Bench, tmp_path: Path) -> None:
    code, out, err = bench(*RUN_FLOOR, "--quiet", "--out", str(tmp_path))
    assert code == 0
    assert err == ""
    assert "synthetic-sounds [synthetic], linear" in out


def test_the_audit_is_shown_beside_the_board(synthetic: Path, bench: Bench, tmp_path: Path) -> None:
    _, out, _ = bench(*RUN_FLOOR, "--audit", "--out", str(tmp_path))
    assert "random split" in out
    assert "this protocol" in out


@pytest.mark.parametrize("format", ["markdown", "csv"])
def test_reports_go_into_files_whole(
    format: str, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    bench(*RUN_FLOOR, "--out", str(tmp_path))
    code, out, err = bench("report", "--out", str(tmp_path), "--format", format)
    assert code == 0
    assert err == ""
    assert "\x1b" not in out
    assert "log-mel-statistics" in out


def test_listings_name_every_task_and_say_which_are_prepared(synthetic: Path, bench: Bench) -> None:
    _, out, _ = bench("tasks")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert set(TASKS.names()) <= set(rows)
    assert rows["synthetic-sounds"].rstrip().endswith("yes")
    assert not rows["esc10"].rstrip().endswith("yes")


@pytest.mark.real_audio
def test_the_floor_on_real_recordings_is_the_one_computed_elsewhere(
    real_audio: Path, bench: Bench, tmp_path: Path
) -> None:
    # Accuracies in percent of the independent computation that the data's floor.md describes.
    floors = {
        "fsdd-digits": 56.20,
        "fsdd-digits@official": 95.67,
        "asc-keywords": 51.17,
        "asc-speaker": 90.00,
        "esc10": 79.00,
    }
    archives = {"fsdd-digits": "fsdd.zip", "asc-keywords": "asc-mini.zip"}
    archives |= {"asc-speaker": "asc-mini.zip", "esc10": "esc10.zip"}
    for task, archive in archives.items():
        assert bench("data", "prepare", task, "--from", str(real_audio / archive), "-q")[0] == 0
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
    monkeypatch.setattr("lape_bench.store.SAMPLES", "/dev/full")
    code, _, err = bench("data", "prepare", "esc10", "--from", str(esc_folder))
    assert code == 2
    assert "is full; free some space" in err
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == []
