"""Tasks of a user's own recordings, from the folder to the board."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import all_cards, load_card, own_card, suite_tasks
from lape_bench.data.manifest import load_manifest
from lape_bench.evaluation.corpus import load_corpus

Bench = Callable[..., tuple[int, str, str]]
RATE, PITCHES = 16_000, {"low": 200, "mid": 450, "high": 1_000}  # Hz


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Ten noisy tones of each of three pitches."""
    random = np.random.default_rng(0)
    for name, pitch in PITCHES.items():
        (tmp_path / "tones" / name).mkdir(parents=True)
        for take in range(10):
            time = np.arange(int(RATE * random.uniform(0.3, 0.5))) / RATE
            tone = 0.2 * np.sin(2 * np.pi * pitch * random.uniform(0.9, 1.1) * time)
            noisy = tone + random.normal(0, 0.02, len(time))
            soundfile.write(tmp_path / "tones" / name / f"{take}.wav", noisy, RATE)
    return tmp_path / "tones"


@pytest.fixture
def made(tones: Path, bench: Bench) -> Path:
    """The tones as the own task `tones`, prepared."""
    bench("tasks", "new", "tones", "--from", str(tones))
    bench("data", "prepare", "tones", "--quiet")
    return tones


def test_a_folder_that_nobody_has_seen_is_on_the_board_after_three_commands(
    tones: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = bench("tasks", "new", "tones", "--from", "tones")
    assert code == 0
    assert out.startswith(f"tones: {own_card('tones')}\n")
    assert "next: bench data prepare tones\n" in out
    assert "  clips: train 18, val 6, test 6\n" in out
    assert "may be on two sides" in err
    code, out, _ = bench("data", "prepare", "tones")
    assert code == 0
    assert out.startswith("tones: 30 clips, ")
    assert "differs" not in out
    code, board, _ = bench("run", "--system", "log-mel-statistics", "--task", "tones", "-q")
    assert code == 0
    assert "tones, linear" in board
    assert "100.0" in board


def test_a_table_of_groups_is_on_the_board_after_three_commands(
    tones: Path, bench: Bench, tmp_path: Path
) -> None:
    lines = [
        f"{p.relative_to(tmp_path)};{p.parent.name};{p.parent.name}{int(p.stem) // 2}"
        for p in tones.rglob("*.wav")
    ]
    (tmp_path / "tones.csv").write_text(
        "\ufefffile;label;take\n" + "\n".join(lines), encoding="utf-8"
    )
    columns = ["--column", "path=file", "--column", "group=take"]
    code, out, err = bench("tasks", "new", "pitch", "--from", str(tmp_path / "tones.csv"), *columns)
    assert (code, err) == (0, "")
    assert "kept apart: take" in out
    assert bench("data", "prepare", "pitch", "-q")[0] == 0
    code, found, _ = bench("data", "verify", "pitch")
    assert code == 0
    assert "no take on two sides" in found
    out_folder = str(tmp_path / "out")
    how = ["--system", "log-mel-statistics", "--task", "pitch", "--out", out_folder, "-q"]
    assert "pitch, linear" in bench("run", *how)[1]


def test_an_own_task_is_listed_shown_suggested_and_has_a_synthetic_version(
    made: Path, bench: Bench, tmp_path: Path
) -> None:
    _, out, err = bench("tasks")
    assert err == ""
    rows = [line.split() for line in out.splitlines()]
    at = rows.index(["suite", "own"])
    assert rows[at + 1] == ["tones", "3", "30", "drawn", "prepared", "tones"]
    assert str(made) in bench("tasks", "show", "tones")[1]
    assert "did you mean 'tones'?" in bench("run", "--task", "tonse")[2]
    assert "tones" not in bench("tasks", "page")[1].split("`")
    assert suite_tasks("own") == ["tones"]
    synthetic = load_card("tones-synthetic")
    assert (synthetic.data, synthetic.suite, synthetic.recordings) == (
        "synthetic",
        "own-synthetic",
        None,
    )
    how = ["--task", "tones", "--data", "synthetic", "--system", "log-mel-statistics"]
    code, board, _ = bench("run", *how, "--out", str(tmp_path / "out"), "-q")
    assert code == 0
    assert "tones-synthetic [synthetic], linear" in board


def test_an_own_task_lives_in_its_cache_folder(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_card("tones").name == "tones"
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "another"))
    with pytest.raises(UserError, match="no task 'tones'"):
        load_card("tones")


def test_a_card_may_be_mended_while_the_program_runs(made: Path) -> None:
    path = own_card("tones")
    path.write_text(path.read_text().replace("version: 1", "version: 2"))
    assert load_card("tones").version == load_card("tones-synthetic").version == 2
    with pytest.raises(
        UserError, match=r"was prepared for version 1.*run 'bench data prepare tones'"
    ):
        load_manifest(load_card("tones"))


def test_recordings_that_moved_are_the_same_task_at_their_new_place(
    made: Path, bench: Bench
) -> None:
    before = load_manifest(load_card("tones")).hash
    moved = made.rename(made.with_name("moved"))
    code, _, err = bench("data", "prepare", "tones")
    assert code == 2
    assert f"the folder {made}, where the recordings of tones were, does not exist" in err
    assert "bench data prepare tones --from FOLDER" in err
    assert bench("data", "prepare", "tones", "--from", str(moved), "-q")[0] == 0
    assert load_manifest(load_card("tones")).hash == before


def test_recordings_that_came_later_are_taken_and_the_difference_is_told(
    made: Path, bench: Bench, write_clip: Callable[..., Path]
) -> None:
    write_clip(made / "low" / "later.wav")
    _, out, _ = bench("data", "prepare", "tones")
    assert "differs from the card: clips: 31 instead of 30" in out
    write_clip(made / "noise" / "1.wav", seed=1)
    code, _, err = bench("data", "prepare", "tones")
    assert code == 2
    assert "label 'noise' is not a class of the card" in err


def test_broken_own_cards_are_named_and_left_out(made: Path, bench: Bench) -> None:
    good = own_card("tones").read_text()
    own_card("garbled").write_text("{")
    own_card("named").write_text(good)
    own_card("nowhere").write_text(
        good.replace("tones", "nowhere").partition("recordings:")[0]
        + "license: x\ncitation: x\nexpected: {clips: 1}\n"
    )
    own_card("esc10").write_text(good.replace("name: tones", "name: esc10"))
    spelled = {
        "listed": "classes: {0: a, 1: b}\n",
        "curly": "classes: {pattern: 'id{x}', first: 1, last: 2}\n",
    }
    spelled["many"] = "classes: {pattern: 'id{}', first: 1, last: 1000000000}\n"
    for name, text in spelled.items():
        card = re.sub(r"(?m)^classes:.*\n(?:[- ].*\n)*", lambda _, text=text: text, good)
        own_card(name).write_text(card.replace("name: tones", f"name: {name}"))
    own_card(".tones.yaml.half").write_text("{")
    code, out, err = bench("tasks")
    assert code == 0
    assert "tones" in out
    assert load_card("esc10").suite == "open"
    told = err.splitlines()
    assert all(line.startswith("left out: ") for line in told)
    wanted = {
        "garbled.yaml is not valid YAML",
        "named.yaml: 'name' is 'tones'",
        "nowhere.yaml does not say where the recordings are",
        "esc10.yaml is hidden by the registered task of that name",
        *(f"{name}.yaml: 'classes'" for name in spelled),
    }
    assert len(told) == len(wanted)
    assert not [text for text in wanted if text not in err]
    assert [card.name for card in all_cards()[0] if card.suite == "own"] == ["tones"]
    assert "no task 'tonse': did you mean 'tones'?" in bench("run", "--task", "tonse")[2]
    assert "is not valid YAML" in bench("run", "--task", "garbled")[2]


def test_an_own_task_can_be_learned_from(made: Path, progress: Progress) -> None:
    clips = load_corpus(["tones"], None, RATE, None, progress)
    assert len(clips) == 18
    with pytest.raises(UserError, match=r"names 'tonse', which is neither.*did you mean 'tones'"):
        load_corpus(["tonse"], None, RATE, None, progress)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "nowhere"], "the folder or table"),
        (["--from", "tones", "--column", "label"], "--column 'label' is not NAME=COLUMN"),
        (["--from", "tones", "--window-seconds", "-1"], "'window_seconds'"),
        (["--from", "tones", "--metric", "f2"], "no metric 'f2'"),
        (["--from", "tones/low"], "has no class with audio in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_one_sentence_and_leaves_no_card(
    arguments: list[str], said: str, tones: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tones.parent)
    code, out, err = bench("tasks", "new", "pitch", *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("bench: ")
    assert said in line
    assert not own_card("pitch").exists()


def test_a_card_that_was_edited_is_not_run_on_what_was_prepared_before(
    made: Path, bench: Bench
) -> None:
    path = own_card("tones")
    edited = path.read_text(encoding="utf-8").replace("train: 0.6", "train: 0.4")
    path.write_text(edited.replace("test: 0.2", "test: 0.4"), encoding="utf-8")
    code, _, err = bench("run", "--system", "log-mel-statistics", "--task", "tones", "-q")
    assert code == 2
    assert "prepared with other recordings, split or group" in err
    assert bench("data", "prepare", "tones", "-q")[0] == 0
    assert bench("run", "--system", "log-mel-statistics", "--task", "tones", "-q")[0] == 0


def test_another_window_is_another_cell(made: Path, bench: Bench, tmp_path: Path) -> None:
    run = ("run", "--system", "log-mel-statistics", "--task", "tones", "--out", str(tmp_path), "-q")
    bench(*run)
    path = own_card("tones")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("window_seconds: 0.4", "window_seconds: 0.2"), encoding="utf-8")
    bench(*run)
    assert len(list(tmp_path.glob("tones/*/*/record.json"))) == 2


def test_one_recording_under_two_classes_is_refused_or_left_out(made: Path, bench: Bench) -> None:
    for copy in ("high/copy.wav", "low/again.wav"):
        (made / copy).write_bytes((made / "low" / "3.wav").read_bytes())
    code, _, err = bench("data", "prepare", "tones")
    assert code == 2
    assert "same audio as low/3, of class 'low'" in err
    assert bench("data", "prepare", "tones", "--skip-bad", "-q")[0] == 0
    kept = load_manifest(load_card("tones")).clips["clip_id"]
    assert not {"low/3", "low/again", "high/copy"} & set(kept)


def test_what_was_left_out_when_it_was_prepared_is_not_missed_later(
    made: Path, bench: Bench
) -> None:
    (made / "high" / "3.wav").write_bytes(b"no audio")
    assert bench("data", "prepare", "tones", "--skip-bad", "-q")[0] == 0
    code, out, _ = bench("data", "verify", "tones")
    assert code == 0
    assert "29 of 30 (1 skipped)" in out


def test_groups_that_a_changed_table_puts_on_two_sides_stop_prepare(
    tones: Path, bench: Bench
) -> None:
    rows = [f"{name}/{take}.wav,{name},{name}{take}" for name in PITCHES for take in range(10)]
    sides = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    table = tones / "tones.csv"

    def write(groups: list[str]) -> None:
        lines = [f"{row},{side}" for row, side in zip(groups, sides * 3, strict=True)]
        table.write_text("\n".join(["path,label,group,split", *lines]), encoding="utf-8")

    write(rows)
    assert bench("tasks", "new", "tones", "--from", str(table))[0] == 0
    write([row.replace("low9", "low0") for row in rows])
    code, _, err = bench("data", "prepare", "tones")
    assert code == 2
    assert "1 groups (group) of tones are on several sides, such as 'low0'" in err


def test_a_table_that_moved_with_its_recordings_is_found(tones: Path, bench: Bench) -> None:
    rows = [f"{name}/{take}.wav,{name}" for name in PITCHES for take in range(10)]
    (tones / "tones.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    bench("tasks", "new", "tones", "--from", str(tones / "tones.csv"))
    moved = tones.rename(tones.with_name("moved"))
    assert bench("data", "prepare", "tones", "--from", str(moved), "-q")[0] == 0


def test_a_suite_names_the_cards_that_it_cannot_read(made: Path, bench: Bench) -> None:
    own_card("bad").write_text("- a", encoding="utf-8")
    code, _, err = bench("run", "--suite", "own", "--system", "log-mel-statistics", "-q")
    assert code == 0
    assert "left out: " in err
    assert "bad.yaml" in err
