"""Suites, synthetic versions, and what is on disk, as a user meets them on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.api import choose_tasks
from lape_bench.data.catalog import all_cards
from lape_bench.data.task_page import page
from lape_bench.plugins.registry import TASKS
from tests.lape_bench.cli.test_cli import RUN_FLOOR

ROOT = Path(__file__).parents[3]
Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prepared(esc_folder: Path, bench: Bench) -> Path:
    bench("data", "prepare", "esc10", "--from", str(esc_folder), "--quiet")
    return esc_folder


def test_a_task_runs_on_its_synthetic_version_without_a_download_and_the_board_says_so(
    bench: Bench,
    tmp_path: Path,
) -> None:
    code, out, _ = bench(
        *RUN_FLOOR,
        "--task",
        "birdsong",
        "--data",
        "synthetic",
        "--out",
        str(tmp_path / "out"),
        "--quiet",
    )
    assert code == 0
    assert "birdsong-synthetic [synthetic]" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["birdsong-synthetic"]


def test_a_suite_of_synthetic_versions_runs_every_task_of_it(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = ["birdsong-synthetic", "iemocap-synthetic"]
    monkeypatch.setattr(choose_tasks, "suite_tasks", {"lape-synthetic": few}.__getitem__)
    code, out, _ = bench(*RUN_FLOOR, "--suite", "lape-synthetic", "--out", str(tmp_path), "--quiet")
    assert code == 0
    assert len(list(tmp_path.glob("birdsong-synthetic/*/*/record.json"))) == 1
    assert len(list(tmp_path.glob("iemocap-synthetic/*/*/record.json"))) == 5
    assert all(f"{name} [synthetic]" in out for name in few)


def test_a_suite_leaves_out_what_is_not_prepared_and_names_it(
    prepared: Path,
    bench: Bench,
    tmp_path: Path,
) -> None:
    code, out, said = bench(*RUN_FLOOR, "--suite", "open", "--out", str(tmp_path / "r"))
    assert code == 0
    assert "left out, not prepared: asc-keywords, asc-speaker, fsdd-digits" in said
    assert "esc10" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "lape"], "no task of the suite 'lape' is prepared"),
        (["--suite", "lappe"], "there is no suite 'lappe': did you mean 'lape'?"),
        (["--data", "fake"], "there is no kind of data 'fake'"),
        (["--task", "us8k"], "the task 'us8k' is not prepared"),
    ],
)
def test_what_cannot_run_is_said_in_one_sentence(
    words: list[str],
    said: str,
    bench: Bench,
    tmp_path: Path,
) -> None:
    code, out, error = bench(*RUN_FLOOR, *words, "--out", str(tmp_path))
    assert (code, out) == (2, "")
    assert said in error
    assert error.splitlines()[-1].startswith("bench: ")


def test_tasks_are_listed_under_their_suites(bench: Bench) -> None:
    _, out, _ = bench("tasks")
    lines = [line.split()[0:2] for line in out.splitlines()]
    order = [words for words in lines if words and words[0] == "suite"]
    assert order == [["suite", "lape"], ["suite", "open"], ["suite", "synthetic"]]
    names = [words[0] for words in lines if words]
    assert names.index("us8k") < names.index("esc10") < names.index("synthetic-sounds")


def test_a_split_is_locked_and_proved_elsewhere(
    prepared: Path,
    bench: Bench,
    tmp_path: Path,
) -> None:
    lock = tmp_path / "esc10.lock.csv"
    assert bench("data", "lock", "esc10", "--out", str(lock))[0] == 0
    assert bench("data", "lock", "esc10")[1] == lock.read_text()
    verified = ("data", "verify", "esc10", "--lock", str(lock))
    assert "the split that esc10.lock.csv pins" in bench(*verified)[1]
    moved = lock.read_text().replace("Rain,,1", "Rain,,2", 1)
    lock.write_text(moved.replace('"manifest": "', '"manifest": "0', 1))
    code, out, _ = bench(*verified)
    assert code == 1
    assert "1 with another label or side, such as Rain/" in out


@pytest.mark.real_audio
@pytest.mark.parametrize(
    "task",
    [
        "asc-keywords",
        "asc-speaker",
        "esc10",
        "fsdd-digits",
        "fsdd-digits@leveled",
        "fsdd-digits@official",
    ],
)
def test_the_real_recordings_have_the_split_that_is_pinned_beside_their_card(
    task: str, real_recordings: Path, bench: Bench
) -> None:
    code, out, _ = bench("data", "verify", task, "--quiet")
    assert code == 0
    assert f"the split that {task}.csv pins" in out


def test_other_recordings_do_not_have_the_pinned_split(prepared: Path, bench: Bench) -> None:
    code, out, _ = bench("data", "verify", "esc10")
    assert code == 1
    assert "FAILS  the split that esc10.csv pins" in " ".join(out.split(" ")).replace("   ", "  ")


def test_a_data_set_that_only_its_owners_give_says_what_to_do(bench: Bench) -> None:
    for words in (("data", "fetch", "iemocap"), ("data", "prepare", "iemocap")):
        code, _, error = bench(*words)
        assert code == 2
        assert "https://sail.usc.edu/iemocap/" in error
        assert "bench data prepare iemocap --from" in error


def test_the_page_tells_of_every_task_how_to_get_it_its_license_and_its_split(
    bench: Bench,
) -> None:
    _, out, _ = bench("tasks", "page")
    for card in all_cards()[0]:
        section = out.partition(f"### `{card.name}`: ")[2].partition("\n### ")[0]
        assert card.license in section
        assert card.split.origin in section
        assert all(f"`{card.name}@{name}`" in section for name in card.variants)


def test_the_page_in_the_repository_is_the_one_of_the_cards() -> None:
    own = [
        card for card in all_cards()[0] if TASKS.origin(card.name).startswith("package lape_bench ")
    ]
    written = (ROOT / "tasks" / "README.md").read_text(encoding="utf-8")
    assert written == page(own), "run: bench tasks page > tasks/README.md"
