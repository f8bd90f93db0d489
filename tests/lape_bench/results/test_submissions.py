"""Submissions: an honest one is accepted, and each kind of other one is refused by name."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from lape_bench import metrics
from lape_bench.core.errors import UserError
from lape_bench.records.pack import packed, write_pack
from lape_bench.records.predictions import read_predictions, write_predictions
from lape_bench.records.record import (
    Cell,
    ParameterCounts,
    RunRecord,
    TaskFacts,
    cell_folder,
    find_records,
    identity_of,
    read_record,
    write_record,
)
from lape_bench.report.leaderboard import leaderboard
from lape_bench.report.overview import overviews
from lape_bench.report.overview_view import (
    CONTAMINATION_NOTE,
    OverviewView,
    as_csv,
    as_json,
    as_table,
    shows_contamination,
)
from lape_bench.report.page.html_page import page
from lape_bench.report.table import markdown
from lape_bench.results import submissions
from lape_bench.results.load import Results, load_results
from lape_bench.results.submissions import SubmissionResult, check_submissions
from lape_bench.results.system_card import SystemCard, read_card
from tests.lape_bench.conftest import Bench

CLASSES, CLIPS = ("a", "b", "c"), 60
CARD = {
    "name": "my encoder",
    "systems": ["hf:me/encoder"],
    "paper": "https://example.org/paper",
    "license": "Apache-2.0",
    "training_data": "AudioSet, without labels",
    "contact": "Jane Doe <jane@example.org>",
    "contamination": {"t": "unlabeled"},
}


def write_honest(out: Path, seed: int = 0, predictions: int | None = None, **cell: object) -> Path:
    """Write a record whose score and identity follow from it; return its folder.

    Args:
        out: folder of records.
        seed: of the cell.
        predictions: number that its predictions are drawn from; None: the seed.
        cell: further fields of the cell.
    """
    random = np.random.default_rng([7, seed if predictions is None else predictions])
    labels = np.arange(CLIPS) % len(CLASSES)
    scores = random.normal(size=(CLIPS, len(CLASSES)))
    scores[np.arange(CLIPS), labels] += 1
    rows = (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)
    fields = {"system": "hf:me/encoder", "task": "t", "protocol": "linear"} | cell
    draft = RunRecord(
        cell=Cell(seed=seed, **fields),
        identity="0",
        settings=fields.get("settings", {}),
        system_version=1,
        status="finished",
        metrics=metrics.score(rows, labels),
        parameters=ParameterCounts(encoder=10, inference=13, training=20),
        task=TaskFacts(
            name="t", variant="", card_version=1, data="real", manifest_hash="m" * 64, classes=CLASSES,
            metric="accuracy", folds=1, clips={"test": CLIPS}, skipped=0,
        ),
    )  # fmt: skip
    record = draft.model_copy(update={"identity": identity_of(draft)})
    folder = cell_folder(out, record.cell, record.identity)
    ids = [f"clip {n}" for n in range(CLIPS)]
    digest = write_predictions(folder, ids, labels, rows, CLASSES)
    write_record(folder, record.model_copy(update={"predictions_sha256": digest}))
    return folder


def write_card(folder: Path, **changes: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD | changes), encoding="utf-8")


def pack_into(records: Path, path: Path) -> None:
    """Pack records as a submission holds them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found, _ = find_records(records)
    write_pack(path, [packed(f, record, read_predictions(f, record)) for f, record in found])


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Reference results of another system."""
    for seed in range(2):
        write_honest(tmp_path / "theirs", seed, predictions=100 + seed, system="theirs")
    pack_into(tmp_path / "theirs", tmp_path / "reference" / "t.zip")
    return tmp_path / "reference"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An honest submission of two records, with a card."""
    folder = tmp_path / "submissions" / "mine"
    for seed in range(2):
        write_honest(folder, seed)
    write_card(folder)
    return folder


Check = Callable[[], SubmissionResult]


@pytest.fixture
def check(own: Path, reference: Path) -> Check:
    """Check the submissions, and return the result of the own one."""

    def run() -> SubmissionResult:
        results = check_submissions(own.parent, lambda name: 1, [reference])
        return next(each for each in results if each.name == own.name)

    return run


def refused(check: Check) -> str:
    """Return the one reason to refuse."""
    (line,) = check().refused
    return line


def first_record(own: Path) -> tuple[Path, RunRecord]:
    folder = sorted(path.parent for path in own.rglob("record.json"))[0]
    return folder, read_record(folder)


def test_an_honest_submission_of_folders_or_packs_is_accepted(own: Path, check: Check) -> None:
    assert check()[:3] == ("mine", 2, ())
    records = own.parent.parent / "records"
    shutil.move(own, records)
    pack_into(records, own / "t.zip")
    write_card(own)
    assert check()[:3] == ("mine", 2, ())


def test_an_altered_score_is_refused(own: Path, check: Check) -> None:
    folder, record = first_record(own)
    write_record(folder, record.model_copy(update={"metrics": record.metrics | {"accuracy": 1.0}}))
    assert "its accuracy is 1.000000" in refused(check)


def test_a_file_that_was_edited_is_refused(own: Path, check: Check) -> None:
    path = first_record(own)[0] / "record.json"
    path.write_text(path.read_text().replace('"accuracy": 0.', '"accuracy": 0.9'))
    assert "was changed after it was written" in refused(check)


def test_an_altered_identity_is_refused(own: Path, check: Check) -> None:
    folder, record = first_record(own)
    other = record.model_copy(update={"system_version": 2})
    write_record(folder, other)
    assert "its identity does not follow from its fields" in refused(check)


@pytest.mark.parametrize("kind", ["folder", "pack"])
def test_predictions_of_a_reference_system_are_refused(
    kind: str, own: Path, check: Check, tmp_path: Path
) -> None:
    write_honest(tmp_path / "copied", 5, predictions=100)
    if kind == "pack":
        pack_into(tmp_path / "copied", own / "t.zip")
    else:
        shutil.copytree(tmp_path / "copied", own, dirs_exist_ok=True)
    line = refused(check)
    assert "it has the predictions of another system" in line
    assert "theirs in the folder 'reference'" in line


def test_predictions_of_another_submission_are_refused(own: Path, check: Check) -> None:
    earlier = own.parent / "earlier"
    write_honest(earlier, 3, predictions=0, system="hf:them/encoder")
    write_card(earlier, name="their encoder", systems=["hf:them/encoder"])
    assert "it has the predictions of another system" in refused(check)


def test_the_same_system_before_a_setting_was_added_is_not_another_one(
    own: Path, reference: Path, check: Check, tmp_path: Path
) -> None:
    pack_into(own, reference / "earlier.zip")
    folder, record = first_record(own)
    newer = record.model_copy(update={"settings": {"added": 0}})
    newer = newer.model_copy(update={"identity": identity_of(newer)})
    place = cell_folder(own, newer.cell, newer.identity)
    folder.rename(place)
    write_record(place, newer)
    assert check().refused == ()
    assert any("it has the same predictions" in line for line in check().remarks)


def test_seeds_that_change_nothing_are_a_remark(own: Path, check: Check) -> None:
    write_honest(own, 2, predictions=1)
    assert check().refused == ()
    assert any("it has the same predictions" in line for line in check().remarks)


def test_labels_that_differ_from_those_of_the_reference_results_are_refused(
    own: Path, check: Check
) -> None:
    folder, record = first_record(own)
    seen = read_predictions(folder, record)
    labels = seen.predicted  # every prediction is right now
    ids = seen.clip_ids.to_pylist()
    digest = write_predictions(folder, ids, labels, seen.log_probabilities, CLASSES)
    scores = metrics.score(seen.log_probabilities, labels)
    changes = {"metrics": scores, "predictions_sha256": digest}
    write_record(folder, record.model_copy(update=changes))
    assert "are not those of the reference results" in refused(check)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\x1b[2Jb", "a\nb", ""])
def test_a_card_with_a_script_or_control_characters_in_its_name_is_refused(
    name: str, own: Path, check: Check
) -> None:
    write_card(own, name=name)
    line = refused(check)
    assert "'name': write 1 to 60 letters" in line
    assert line.isprintable()


def test_a_record_with_a_script_in_the_name_of_its_system_is_refused(
    own: Path, check: Check
) -> None:
    script = "<script>alert(1)</script>"
    write_honest(own, 2, system=script)
    assert f"a record has markup in the name '{script}'" in check().refused


def test_a_submission_without_a_card_is_refused(own: Path, check: Check) -> None:
    (own / "card.yaml").unlink()
    assert "there is no file" in refused(check)
    assert "keys: name, systems, paper" in refused(check)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"licence": "MIT"}, "did you mean 'license'?"),
        ({"license": ""}, "'license': write 1 to 1,000 characters"),
        ({"paper": "javascript:alert(1)"}, "begins with https://"),
        ({"contact": "a\x07b"}, "control characters"),
        ({"systems": []}, "systems"),
        ({"contamination": {"t": "a little"}}, "'none', 'unlabeled', 'labels' or 'unknown'"),
        ({"systems": ["hf:me/encoder", "hf:me/other"]}, "names the system 'hf:me/other'"),
        ({"contamination": {"u": "none"}}, "what the system has heard of t"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_by_the_field(
    changes: dict[str, object], reason: str, own: Path, check: Check
) -> None:
    write_card(own, **changes)
    assert reason in refused(check)


def test_a_system_that_the_card_does_not_name_is_refused(own: Path, check: Check) -> None:
    write_honest(own, 2, system="hf:me/other")
    assert refused(check) == "card.yaml does not name the system 'hf:me/other', which has records"


def test_two_submissions_of_one_name_are_refused(own: Path, check: Check) -> None:
    write_honest(own.parent / "earlier", 7)
    write_card(own.parent / "earlier")
    assert refused(check) == "its card has the name of earlier: 'my encoder'"


def test_a_link_that_leads_out_of_the_folder_is_refused_and_not_followed(
    own: Path, check: Check, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: 1234")
    (own / "card.yaml").unlink()
    (own / "card.yaml").symlink_to(secret)
    (own / "t").rename(own.parent.parent / "t")
    (own / "t").symlink_to(own.parent.parent / "t")
    assert check() == ("mine", 0, ("card.yaml is a link", "t is a link"), ())


def test_a_folder_that_is_a_link_is_refused(own: Path, check: Check, tmp_path: Path) -> None:
    own.rename(tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    assert refused(check) == "it is a link"


def test_an_oversized_file_is_refused_before_it_is_read(
    own: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (own / "t.zip").open("wb") as file:
        file.truncate(submissions.MOST_FILE_BYTES + 1)
    assert refused(check) == "t.zip has 10,485,761 bytes; allowed: at most 10,485,760"
    (own / "t.zip").unlink()
    monkeypatch.setattr(submissions, "MOST_SUBMISSION_BYTES", 100)
    assert "allowed: at most 100" in refused(check)
    monkeypatch.setattr(submissions, "MOST_FILES", 3)
    assert "more than 3 files" in refused(check)


def test_code_is_refused(own: Path, check: Check) -> None:
    (own / "encoder.py").write_text("raise SystemExit")
    assert "encoder.py does not belong to a submission" in refused(check)


def test_a_name_of_a_folder_that_could_command_a_log_is_refused_in_one_line(
    own: Path, reference: Path
) -> None:
    own.rename(own.with_name("a\n::error::b"))
    (result,) = check_submissions(own.parent, lambda name: 1, [reference])
    assert result.refused
    assert "\n" not in result.name + "".join(result.refused)


def test_one_submission_is_not_a_folder_of_submissions(own: Path) -> None:
    with pytest.raises(UserError, match="give the folder of submissions"):
        check_submissions(own, lambda name: 1, [])


def test_a_variant_of_a_task_has_the_contamination_of_its_task(own: Path) -> None:
    write_card(own, contamination={"t": "labels", "t@clean": "none"})
    card = read_card(own)
    assert isinstance(card, SystemCard)
    assert [card.contamination_of(task) for task in ("t", "t@clean", "t@noisy", "u")] == [
        *("labels", "none", "labels", None)
    ]


def test_the_command_names_what_it_refuses(own: Path, bench: Bench) -> None:
    code, text, _ = bench("submissions", "check", str(own.parent))
    assert (code, "mine: accepted, 2 finished records" in text) == (0, True)
    (own / "card.yaml").unlink()
    code, text, _ = bench("submissions", "check", str(own.parent))
    assert (code, text.splitlines()[0].startswith("refused: mine: there is no file")) == (1, True)


@pytest.fixture
def shown(own: Path, reference: Path) -> Results:
    """The submission beside the reference results."""
    return load_results([], [own, reference])


def test_an_overview_shows_what_a_system_has_heard(shown: Results) -> None:
    (overview,) = overviews(shown)
    heard = {each.system: each.contamination for each in overview.systems}
    assert heard == {"hf:me/encoder": "unlabeled", "theirs": None}
    assert all(each.reference for each in overview.systems)
    console = Console(width=80, file=io.StringIO())
    console.print(OverviewView(overview))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "unlabeled" in text
    assert CONTAMINATION_NOTE in " ".join(text.split())
    assert "contamination" in markdown(as_table(overview))
    rows = {row["system"]: row for row in csv.DictReader(io.StringIO(as_csv([overview])))}
    values = [rows[name]["contamination"] for name in ("hf:me/encoder", "theirs")]
    assert values == ["unlabeled", ""]
    (plain,) = json.loads(as_json([overview]))
    of_system = {each["system"]: each for each in plain["systems"]}["hf:me/encoder"]
    assert of_system["contamination"] == of_system["scores"]["t"]["contamination"] == "unlabeled"


def test_contamination_is_no_column_if_no_system_has_heard_anything(
    own: Path, reference: Path
) -> None:
    write_card(own, contamination={"t": "none"})
    (overview,) = overviews(load_results([], [own, reference]))
    assert not shows_contamination(overview)
    assert "contamination" not in markdown(as_table(overview))


def test_the_page_has_the_card_of_a_submission(shown: Results, own: Path, reference: Path) -> None:
    text = page(shown, leaderboard(shown.cells, shown.predictions), [own, reference])
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert [card["name"] for card in data["cards"]] == ["my encoder"]
    assert {entry["system"]: entry["card"] for entry in data["entries"]} == {
        "hf:me/encoder": 0,
        "theirs": None,
    }


def test_a_submission_with_a_wrong_card_does_not_count(own: Path, reference: Path) -> None:
    (own / "card.yaml").write_text("name: x\n")
    results = load_results([], [own, reference])
    assert {*results.cells["system"]} == {"theirs"}
    assert any("card.yaml" in problem for problem in results.problems)


def test_reference_results_count_before_a_submission_of_the_same_cell(
    own: Path, reference: Path
) -> None:
    write_honest(own, 0, predictions=9, system="theirs")
    write_card(own, systems=["hf:me/encoder", "theirs"])
    results = load_results([], [own, reference])
    theirs = results.cells[results.cells["system"] == "theirs"]
    assert {*theirs["contamination"]} == {""}


def test_reports_take_submissions_in(own: Path, bench: Bench) -> None:
    (own.parent / "empty").mkdir()
    folder = str(own.parent)
    code, text, errors = bench("report", "--submissions", folder, "--out", str(own / "t"))
    assert (code, "hf:me/encoder" in text) == (0, True)
    assert "empty has no card.yaml" in errors


def test_a_page_with_a_submission_whose_card_cannot_be_read_has_the_others(
    own: Path, bench: Bench, tmp_path: Path
) -> None:
    (own / "card.yaml").write_text("name: [")
    write_honest(tmp_path / "mine")
    page = tmp_path / "page.html"
    given = ("--out", str(tmp_path / "mine"), "--submissions", str(own.parent))
    code, _, error = bench("report", *given, "--html", str(page))
    assert (code, "card.yaml" in error, page.is_file()) == (0, True, True)
