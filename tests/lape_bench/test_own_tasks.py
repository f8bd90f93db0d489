"""Tasks of a user's own recordings, from the folder to the board."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lape_bench.catalog import all_cards, load_card, own_card, suite_tasks
from lape_bench.corpus import load_corpus
from lape_bench.data.manifest import load_manifest
from lape_bench.errors import UserError
from lape_bench.progress import Progress

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
    assert "may stand on two sides" in err
    code, out, _ = bench("data", "prepare", "tones")
    assert code == 0
    assert out.startswith("tones: 30 clips, ")
    assert "differs" not in out
    code, board, _ = bench("run", "--system", "log-mel-statistics", "--task", "tones", "-q")
    assert code == 0
    assert "tones, linear" in board
    assert "100.00" in board


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


def test_an_own_task_is_listed_shown_suggested_and_has_a_twin(
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
    twin = load_card("tones-synthetic")
    assert (twin.data, twin.suite, twin.recordings) == ("synthetic", "own-synthetic", None)
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
    assert "label 'noise' is no class of the card" in err


def test_broken_own_cards_are_named_and_left_out(made: Path, bench: Bench) -> None:
    good = own_card("tones").read_text()
    own_card("garbled").write_text("{")
    own_card("named").write_text(good)
    own_card("nowhere").write_text(
        good.replace("tones", "nowhere").partition("recordings:")[0]
        + "licence: x\ncitation: x\nexpected: {clips: 1}\n"
    )
    own_card("esc10").write_text(good.replace("name: tones", "name: esc10"))
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
    }
    assert len(told) == len(wanted)
    assert not [text for text in wanted if text not in err]
    assert [card.name for card in all_cards()[0] if card.suite == "own"] == ["tones"]
    assert "no task 'tonse': did you mean 'tones'?" in bench("run", "--task", "tonse")[2]
    assert "is not valid YAML" in bench("run", "--task", "garbled")[2]


def test_an_own_task_can_be_learnt_from(made: Path, progress: Progress) -> None:
    clips = load_corpus(["tones"], None, None, RATE, progress)
    assert len(clips) == 18
    with pytest.raises(UserError, match=r"names 'tonse', which is neither.*did you mean 'tones'"):
        load_corpus(["tonse"], None, None, RATE, progress)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "nowhere"], "the folder or table"),
        (["--from", "tones", "--column", "label"], "--column 'label' says nothing"),
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
