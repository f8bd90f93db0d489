"""Systems evaluated from Python, with classes that lie in no package."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from torch import nn

import lape_bench as lb
from lape_bench.evaluation.plan import load_system
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import RunRecord, read_record
from lape_bench.results.verify import verify
from lape_bench.task import TaskCard
from tests.lape_bench.conftest import Bench

TASK = "synthetic-sounds"
ENCODER = """
import torch
from torch import nn

class MyEncoder(nn.Module):
    sample_rate = 16_000

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding_size = width
        self.filters = nn.Conv1d(1, width, 400, stride=160)

    def forward(self, waveforms):
        return self.filters(waveforms.unsqueeze(1)).abs().mean(dim=2)
"""


class MyEncoder(nn.Module):
    """Mean energies of random filters."""

    sample_rate = 16_000

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding_size = width
        self.filters = nn.Conv1d(1, width, 400, stride=160)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.filters(waveforms.unsqueeze(1)).abs().mean(dim=2)
        return embeddings


class Broken(MyEncoder):
    """Fails when it is used."""

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a bug of the user's")


@pytest.fixture(autouse=True)
def here(own_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records go to `results` in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(results: lb.ResultSet) -> list[RunRecord]:
    return [read_record(folder) for folder in results.folders]


def test_a_class_is_evaluated_on_every_label_fraction_and_seed() -> None:
    results = lb.evaluate(
        MyEncoder, tasks=[TASK], protocol="linear", label_fractions=[0.5, 1.0], seeds=2
    )
    assert results.problems == []
    board = results.leaderboard()
    assert isinstance(board, pd.DataFrame)
    assert board["labels"].tolist() == ["50%", "100%"]
    assert board["system"].tolist() == ["MyEncoder"] * 2
    assert board["seeds"].tolist() == [2, 2]
    whole = results.cells[results.cells["labels"] == "100%"]["accuracy"]
    assert board["score_percent"].iloc[1] == pytest.approx(100 * whole.mean())
    assert board["std_percent"].iloc[1] == pytest.approx(100 * whole.std())
    for record in records(results):
        assert record.provenance["source"].startswith("class MyEncoder, SHA-256 ")


def test_a_finished_cell_of_a_class_is_found_again_and_of_a_changed_class_is_not() -> None:
    first = lb.evaluate(MyEncoder, TASK, protocol="knn")
    again = lb.evaluate(MyEncoder, TASK, protocol="knn")
    assert records(again) == records(first)

    class Changed(MyEncoder):
        def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
            return super().forward(waveforms).log1p()

    Changed.__name__ = "MyEncoder"
    changed = lb.evaluate(Changed, TASK, protocol="knn")
    assert records(changed)[0].identity != records(first)[0].identity
    assert len(lb.load_results().leaderboard()) == 2  # other code is another system


def test_a_class_without_source_says_so_and_leaves_nothing_that_another_could_find(
    own_artifacts: Path,
) -> None:
    identities = []
    for _ in range(2):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(ENCODER, namespace)
        (record,) = records(lb.evaluate(namespace["MyEncoder"], TASK, protocol="linear"))
        assert "is not known" in record.provenance["source"]
        assert {use.kind for use in record.artifacts} == {"embeddings"}
        identities.append(record.identity)
    assert identities[0] != identities[1]
    assert not list(own_artifacts.glob("artifacts/embeddings/*"))
    lb.evaluate(MyEncoder, TASK, protocol="linear")
    assert list(own_artifacts.glob("artifacts/embeddings/*"))


def test_verify_takes_the_record_of_a_class_that_is_gone_for_outdated() -> None:
    lb.evaluate(MyEncoder, TASK, protocol="knn")

    def versions(name: str) -> int:
        return load_system(name).version

    there = verify(Path("results"), versions)
    assert "cannot be loaded" not in " ".join(finding.what for finding in there.findings)
    SYSTEMS._classes.clear()  # another process
    gone = verify(Path("results"), versions)
    assert gone.finished == 1
    assert {finding.grade for finding in gone.findings} == {"outdated"}
    assert any("its system cannot be loaded here" in finding.what for finding in gone.findings)


def test_systems_with_settings_stand_on_one_board_and_can_be_compared() -> None:
    systems = ["log-mel-statistics", (MyEncoder, {"width": 8})]
    results = lb.evaluate(systems, TASK, protocol="linear", seeds=2)
    board = results.leaderboard()
    assert set(board["system"]) == {"log-mel-statistics", "MyEncoder (width=8)"}
    comparison = results.compare("log-mel-statistics", "MyEncoder", task=TASK)
    by_system = board.set_index("system")["score_percent"]
    difference = by_system["log-mel-statistics"] - by_system["MyEncoder (width=8)"]
    assert 100 * comparison.verdict.difference == pytest.approx(difference)
    loaded = lb.load_results("results")
    assert loaded.leaderboard().equals(board)
    assert loaded.compare("log-mel-statistics", "MyEncoder", task=TASK) == comparison


def test_a_system_that_is_named_twice_is_run_once() -> None:
    systems = [MyEncoder, (MyEncoder, {"width": 4})]
    results = lb.evaluate(systems, TASK, protocol="knn", shots=np.int64(5), force=True)
    assert len(results.cells) == 1
    assert results.cells["labels"].tolist() == ["5-shot"]


def test_a_tilde_is_the_home_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    lb.evaluate(MyEncoder, TASK, protocol="knn", out="~/results")
    assert (here / "home" / "results").is_dir()
    assert len(lb.load_results("~/results").cells) == 1


def test_results_are_those_of_the_command_line(bench: Bench) -> None:
    run = ("run", "--system", "log-mel-statistics", "--label-fraction", "0.5", "--out", "typed")
    assert bench(*run, "-q")[0] == 0
    (record,) = records(lb.load_results("typed"))
    (same,) = records(lb.evaluate("log-mel-statistics", TASK, label_fractions=0.5))
    assert (same.identity, same.predictions_sha256) == (record.identity, record.predictions_sha256)


def test_a_notebook_shows_results_as_a_table_with_what_is_missing() -> None:
    results = lb.evaluate(["log-mel-statistics", Broken], TASK, protocol="linear")
    html = results._repr_html_()
    assert html.count("<table") == 1
    assert "log-mel-statistics" in html
    assert "RuntimeError: a bug of the user&#x27;s" in html
    assert "score_percent" in repr(results)


def test_failed_cells_are_named_and_no_board_is_made_of_them() -> None:
    results = lb.evaluate(Broken, TASK, protocol="linear", seeds=2)
    assert [problem.partition(" failed: ")[0] for problem in results.problems] == [
        f"Broken on {TASK} (linear, seed {seed})" for seed in range(2)
    ]
    for ask in (results.leaderboard, lambda: results.compare("a", "b", task=TASK)):
        with pytest.raises(lb.UserError, match=r"no cell has finished: Broken on .* a bug of"):
            ask()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("log-mel-statistics",), "no task is given"),
        (([], TASK), "no system is given"),
        ((MyEncoder(), TASK), "is not a system;.*; give the class itself"),
        (("log-mel-statistic", TASK), "did you mean 'log-mel-statistics'"),
        (("log-mel-statistics", "esc-10"), "did you mean 'esc10'"),
        (("log-mel-statistics", "esc10"), "the task 'esc10' is not prepared"),
        (([MyEncoder, type("MyEncoder", (MyEncoder,), {})], TASK), "two classes have the name"),
        ((int, TASK), "int is not a class derived from"),
        ((MyEncoder, None), "no task is given"),
        ((MyEncoder, [lb.get_task]), "a task is given as function; its name, such as 'esc10'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_told_in_a_sentence_before_anything_runs(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(lb.UserError, match=message):
        lb.evaluate(*arguments)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_fractions": 0}, "the label fraction 0 is out of range; above 0, and at most 1"),
        ({"seeds": 0}, "the number of seeds is 0; 1 or more"),
        ({"protocol": "lineer"}, "did you mean 'linear'"),
        ({"settings": {"widht": 3}}, "did you mean 'width'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"data": "unreal"}, "did you mean 'real'"),
        ({"jobs": 0}, "jobs is 0; 1 or more"),
        ({"label_fractions": "10%"}, "the label fraction '10%' is not a number"),
        ({"shots": 2.5}, "the number of shots 2.5 is not a whole number; 1 or more"),
        ({"shots": "5"}, "the number of shots '5' is not a whole number"),
        ({"seeds": [0, 1]}, r"the number of seeds is \[0, 1\]; a whole number"),
        ({"fold": "1"}, "fold is '1'; a whole number"),
        ({"threads": 0}, "threads is 0; 1 or more"),
        ({"settings": ["width=3"]}, "a nested dictionary: {'finetune': {'epochs': 12}}"),
        ({"jobs": 2}, "only this process knows.*; leave out jobs, or put the class into a file"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(lb.UserError, match=message):
        lb.evaluate(MyEncoder, TASK, **options)
    assert not Path("results").exists()


def test_a_suite_leaves_out_what_is_not_prepared_and_says_so() -> None:
    with pytest.raises(lb.UserError, match="no task of the suite 'open' is prepared"):
        lb.evaluate("log-mel-statistics", suite="open")
    results = lb.evaluate("log-mel-statistics", TASK, suite="open")
    assert results.problems == [
        "left out, not prepared: asc-keywords, asc-speaker, esc10, fsdd-digits"
    ]
    assert results.cells["task"].tolist() == [TASK]


def test_torch_is_left_as_it_was() -> None:
    torch.set_num_threads(2)
    lb.evaluate("log-mel-statistics", TASK, threads=1)
    assert torch.get_num_threads() == 2


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    lb.evaluate("log-mel-statistics", TASK)
    assert capfd.readouterr() == ("", "")


def test_the_split_of_a_task_is_that_of_a_run() -> None:
    split = lb.get_task(TASK).load_split(seed=3, labels="50%")
    (folder,) = lb.evaluate(MyEncoder, TASK, label_fractions=0.5, protocol="knn").folders
    record = read_record(folder)
    assert record.task is not None
    predictions = read_predictions(folder, record)
    true_labels = dict(
        zip(predictions.clip_ids.to_pylist(), predictions.labels.tolist(), strict=True)
    )
    assert dict(zip(split.test.ids, split.test.labels.tolist(), strict=True)) == true_labels
    assert split.classes == record.task.classes
    assert len(split.train) == record.task.clips["labeled"]
    assert len(split.train) + len(split.unlabeled) == record.task.clips["train"]


def test_the_sides_of_a_split_are_disjoint_waveforms_with_labels_and_groups() -> None:
    split = lb.get_task(TASK).load_split(labels="50%+validation", sample_rate=8_000)
    sides = [split.train.ids, split.unlabeled.ids, split.validation.ids, split.test.ids]
    assert sum(map(len, sides)) == len({*sides[0], *sides[1], *sides[2], *sides[3]}) == 320
    assert not {*split.train.groups} & {*split.test.groups}
    assert split.sample_rate == split.train.clips.rate == 8_000
    waveforms = split.train.waveforms
    assert all(each.dtype == np.float32 and each.ndim == 1 for each in waveforms)
    assert len(np.concatenate(waveforms)) == split.train.clips.lengths.sum()
    assert np.array_equal(waveforms[1:][-1], waveforms[-1])
    batch = next(iter(torch.utils.data.DataLoader(split.train, batch_size=1)))
    assert batch.waveform.shape == (1, len(waveforms[0]))
    assert batch.label.item() == split.train.labels[0]


def test_a_split_that_cannot_be_is_refused(card_with_folds: TaskCard) -> None:
    task = lb.get_task(card_with_folds.reference)
    with pytest.raises(lb.UserError, match="has 5 folds, but no fold is given; give fold=1 to 5"):
        task.load_split()
    with pytest.raises(lb.UserError, match="has no fold 6"):
        task.load_split(fold=6)
    assert len(task.load_split(fold=1).train)
    with pytest.raises(lb.UserError, match="'0' is not a label budget"):
        lb.get_task(TASK).load_split(labels="0")
    with pytest.raises(lb.UserError, match="'esc10' is not prepared; run 'bench data prepare"):
        lb.get_task("esc10").load_split(fold=1)


@pytest.fixture
def card_with_folds() -> TaskCard:
    """A generated task with five folds."""
    return lb.get_task("esc10-synthetic").card


def test_a_card_that_a_task_is_asked_for_by_is_the_registered_one() -> None:
    assert lb.list_tasks(suite="open") == ["asc-keywords", "asc-speaker", "esc10", "fsdd-digits"]
    assert {*lb.list_tasks(suite="open")} < {*lb.list_tasks()}
    assert lb.get_task("fsdd-digits@official").card.folds == (0,)


@pytest.mark.slow
def test_a_notebook_evaluates_its_own_class_and_sees_that_it_has_changed(
    here: Path, own_artifacts: Path
) -> None:
    cells = [
        f"import lape_bench as lb\n{ENCODER}",
        f"results = lb.evaluate(MyEncoder, tasks=['{TASK}'], protocol='linear', label_fractions=[0.5, 1.0])\nresults",
        "results.leaderboard()",
        ENCODER.replace(".abs()", ".square()"),
        f"_ = lb.evaluate(MyEncoder, '{TASK}', protocol='linear')\nlen(lb.load_results().leaderboard())",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": here}}
    ).execute()
    for shown in notebook.cells[1:3]:
        (output,) = shown.outputs
        assert "<table" in output.data["text/html"]
        assert "MyEncoder" in output.data["text/html"]
    (last,) = notebook.cells[4].outputs
    assert last.data["text/plain"] == "3"
    sources = {record.provenance["source"] for record in records(lb.load_results())}
    assert len(sources) == 2
    assert all("SHA-256" in source for source in sources)


@pytest.mark.slow
def test_a_script_evaluates_its_own_class_and_finds_its_results_again(here: Path) -> None:
    script = here / "study.py"
    call = f"\nimport lape_bench as lb\nresults = lb.evaluate(MyEncoder, '{TASK}', protocol='linear', seeds=SEEDS)\n"
    identities = []
    for seeds in (1, 2):  # a line that the class does not use
        script.write_text(ENCODER + call.replace("SEEDS", str(seeds)))
        subprocess.run([sys.executable, script.name], cwd=here, check=True, env=os.environ)
        results = lb.load_results()
        identities.append({record.identity for record in records(results)})
    assert [len(each) for each in identities] == [1, 2]
    assert identities[0] < identities[1]
