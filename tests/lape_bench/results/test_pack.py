"""Packs: what reports read from them is what they read from the records, in a small file that tells when it was changed."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from lape_bench.core.errors import UserError
from lape_bench.records.pack import (
    PackedCell,
    groups_in,
    packed,
    predicted_classes_in,
    read_pack,
    record_in,
    write_pack,
)
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import find_records, read_record
from lape_bench.report import compare
from lape_bench.report.leaderboard import footnotes, format_rows, leaderboard
from lape_bench.report.system_pair import find_pair
from lape_bench.results.load import Results, load_results
from lape_bench.results.pack import pack
from lape_bench.results.verify import verify
from tests.lape_bench.conftest import Bench
from tests.lape_bench.report.test_leaderboard import write, write_scores
from tests.lape_bench.results.test_verify import recorded, results  # noqa: F401

Edit = Callable[[dict[str, Any]], None]


def packed_cells(out: Path) -> list[PackedCell]:
    found, problems = find_records(out)
    assert not problems
    return [packed(folder, record, read_predictions(folder, record)) for folder, record in found]


def pack_of(out: Path) -> Path:
    path = out.parent / f"{out.name}-packs" / "t.zip"
    path.parent.mkdir()
    write_pack(path, packed_cells(out))
    return path


def board(loaded: Results) -> Any:
    return leaderboard(loaded.cells, loaded.predictions)


def test_a_pack_gives_the_board_of_its_records(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / "r", seed)
        write(tmp_path / "r", seed, system="other")
    path = pack_of(tmp_path / "r")
    of_records, of_pack = load_results([tmp_path / "r"]), load_results([path.parent])
    assert_frame_equal(board(of_records), board(of_pack))
    assert_frame_equal(board(of_records), board(load_results([path])))


def test_two_systems_of_a_pack_and_a_folder_are_compared_as_two_of_a_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 60)
    for seed in range(2):
        for out, system in (("a", "s"), ("b", "other")):
            scores = random.normal(size=(60, 3)).astype(np.float32)
            groups = [f"group {clip % 6}" for clip in range(60)]
            write_scores(tmp_path / out, labels, scores, seed, groups=groups, system=system)
    packs = pack_of(tmp_path / "b").parent
    pairs = [
        find_pair(load_results([tmp_path / "a", other]), "s", "other", "t", None, None, None)
        for other in (tmp_path / "b", packs)
    ]
    of_records, of_pack = (compare.compare(pair, clips=3) for pair in pairs)
    assert of_records == of_pack


def test_the_area_under_the_roc_curve_of_two_classes_is_the_same_in_a_pack(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    scores = np.log(random.dirichlet([1, 1], 60)).astype(np.float32)
    write_scores(tmp_path / "r", labels, scores, 0, classes=("no", "yes"), metric="roc_auc")
    path = pack_of(tmp_path / "r")
    assert_frame_equal(board(load_results([tmp_path / "r"])), board(load_results([path])))


def test_a_cell_of_a_pack_is_read_by_its_name(tmp_path: Path) -> None:
    labels, scores = np.array([0, 1, 2]), np.eye(3, dtype=np.float32)
    write_scores(tmp_path / "r", labels, scores, 0, groups=["x", None, "y"])
    path = pack_of(tmp_path / "r")
    ((folder, record),) = find_records(tmp_path / "r")[0]
    inside = path / folder.relative_to(tmp_path / "r")
    assert record_in(inside) == record
    assert groups_in(inside).to_pylist() == ["x", None, "y"]
    assert predicted_classes_in(inside).clips.digest == predicted_classes_in(folder).clips.digest
    with pytest.raises(UserError, match="holds no cell"):
        record_in(path / "elsewhere")


def test_probabilities_of_the_true_class_are_kept_to_a_255th(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 3, 50), random.dirichlet([1, 1, 1], 50)
    write_scores(tmp_path / "r", labels, np.log(probabilities).astype(np.float32), 0)
    (cell,) = read_pack(pack_of(tmp_path / "r"))
    error = np.abs(cell.predictions.probabilities - probabilities[np.arange(50), labels])
    assert error.max() < 0.51 / 255


def test_a_file_in_the_place_of_the_folder_of_packs_is_named(
    results: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=r"file cannot be written \(File exists\)"):
        pack([results], file, [], lambda name: None)


def test_the_same_cells_give_the_same_bytes(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / "r", seed)
    cells = packed_cells(tmp_path / "r")
    write_pack(tmp_path / "a.zip", cells)
    write_pack(tmp_path / "b.zip", cells[::-1])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_reference_results_are_marked_and_give_way_to_ones_own(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / "r", seed)
        write(tmp_path / "mine", seed, system="mine")
    packs = pack_of(tmp_path / "r").parent
    mixed = load_results([tmp_path / "mine"], [packs])
    marked = board(mixed)
    assert marked.set_index("system")["reference"].to_dict() == {"mine": False, "s": True}
    assert {row[3] for row in format_rows(marked)[1]} == {"mine", "s °"}
    assert "° reference results, which came with lape_bench" in footnotes(marked)
    own = load_results([tmp_path / "r"], [packs])
    assert (own.problems, list(own.cells["reference"])) == ([], [0, 0])


def edited(path: Path, edit: Edit) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(members["cells.json"])
    edit(content)
    members["cells.json"] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def set_field(name: str, value: Any) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        content["fields"][name]["values"][0] = value

    return edit


def better_metrics(content: dict[str, Any]) -> None:
    content["fields"]["metrics"]["values"][0]["accuracy"] = 1.0


def script(content: dict[str, Any]) -> None:
    content["fields"]["cell"]["values"][0]["label"] = "<script>alert(1)</script>"


def other_labels(content: dict[str, Any]) -> None:
    content["tests"][0]["labels"].reverse()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (better_metrics, "its accuracy is 1.000000, and its predictions give"),
        (set_field("settings", {"linear": {"C": [3.0]}}), "its identity does not follow"),
        (set_field("identity", "0" * 64), "its identity does not follow"),
        (script, "cell.label"),
        (other_labels, "it has another class for"),
    ],
    ids=["score", "settings", "identity", "script", "labels"],
)
def test_an_altered_pack_is_wrong(
    results: Path,  # noqa: F811
    tmp_path: Path,
    edit: Edit,
    reason: str,
) -> None:
    result = pack([results], tmp_path / "packs", [], lambda name: 1)
    (path,) = result.packs
    assert not result.left_out
    assert not verify(tmp_path / "packs", lambda name: 1).findings
    edited(path, edit)
    findings = verify(tmp_path / "packs", lambda name: 1).findings
    assert {finding.grade for finding in findings} == {"wrong"}
    assert reason in " ".join(finding.what for finding in findings)


def many_classes(content: dict[str, Any]) -> None:
    content["tests"][0]["classes"] += [f"class {n}" for n in range(2**16)]


def many_cells(content: dict[str, Any]) -> None:
    content["test_of_cell"] *= 10**6


@pytest.mark.parametrize(
    ("edit", "reason"), [(many_classes, "more than 8,192"), (many_cells, "more than 100,000 cells")]
)
def test_a_pack_that_would_fill_the_memory_is_named(
    tmp_path: Path, edit: Edit, reason: str
) -> None:
    write(tmp_path / "r", 0)
    path = pack_of(tmp_path / "r")
    edited(path, edit)
    (finding,) = verify(path.parent, lambda name: 1).findings
    assert reason in finding.what


@pytest.mark.parametrize("content", [b"", b"no ZIP file", b"PK\x05\x06" + 18 * b"\0"])
def test_a_file_that_is_no_pack_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.zip").write_bytes(content)
    (finding,) = verify(tmp_path, lambda name: 1).findings
    assert "t.zip is not a readable pack" in finding.what
    assert "not a readable pack" in load_results([tmp_path]).problems[0]


def test_wrong_records_are_left_out_of_a_pack(results: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = next(results.rglob("record.json")).parent
    copy = folder.with_name("zz")
    shutil.copytree(folder, copy)
    result = pack([results], tmp_path / "packs", [], lambda name: 1)
    assert [*result.packs.values()] == [1]
    assert "zz is wrong" in result.left_out[0]
    assert read_record(folder).status == "finished"


def test_the_reference_results_of_the_repository_hold(bench: Bench) -> None:
    folder = Path(__file__).parents[3] / "results" / "reference"
    code, out, _ = bench("verify", str(folder))
    assert code == 0
    assert "none wrong" in out
    for path in folder.glob("*.zip"):
        assert path.stat().st_size / len(read_pack(path)) < 1_500
