import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import (
    SEAL,
    ArtifactUse,
    Cell,
    RunRecord,
    cell_folder,
    find_records,
    identity,
    read_record,
    record_folders,
    write_record,
)


def test_predictions_that_have_lost_their_record_are_named(
    written: tuple[Path, RunRecord],
) -> None:
    folder, _ = written
    (folder / "record.json").unlink()
    found, problems = find_records(folder)
    assert (found, len(problems)) == ([], 1)
    assert f"{folder} holds no record.json" in problems[0]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema_version": 99}', "null"],
    ids=["empty", "cut", "list", "schema", "null"],
)
def test_a_damaged_record_is_named_and_the_others_are_read(
    text: str, written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    (folder / "broken").mkdir()
    (folder / "broken" / "record.json").write_text(text)
    found, problems = find_records(folder)
    assert [each for _, each in found] == [record]
    assert len(problems) == 1
    assert "broken" in problems[0]
    assert "\n" not in problems[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"system_version": 1', '"system_version": 2'),
        lambda text: text.replace("  ", " "),
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "seal"}),
        lambda text: json.dumps(
            {k: v for k, v in json.loads(text).items() if k not in ("seal", "schema_version")}
        ),
        lambda text: text.replace('"seal": "', '"seal": "0'),
        lambda text: text + "\n",
    ],
    ids=[
        "value",
        "layout",
        "written anew",
        "without seal",
        "without seal and schema",
        "other seal",
        "one line more",
    ],
)
def test_a_record_edited_by_hand_is_refused(
    change: Callable[[str], str], written: tuple[Path, RunRecord]
) -> None:
    folder, _ = written
    path = folder / "record.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match="changed after it was written"):
        read_record(folder)


def test_the_seal_is_a_hash_that_any_program_can_recompute(
    written: tuple[Path, RunRecord],
) -> None:
    body, _, seal = (written[0] / "record.json").read_text().rpartition(',\n  "seal": ')
    assert json.loads(body + "}")["identity"] == "0" * 64
    assert json.loads("{" + f'"seal": {seal}') == {"seal": sha256(body.encode()).hexdigest()}


@pytest.mark.parametrize("version", [0, 2, 99])
def test_a_schema_that_this_release_does_not_know_is_refused(
    version: int, written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    write_record(folder, record.model_copy(update={"schema_version": version}))
    with pytest.raises(UserError, match=r"record.json is not a readable record \(schema_version: "):
        read_record(folder)


def test_an_unknown_field_is_refused_by_its_name(written: tuple[Path, RunRecord]) -> None:
    path = written[0] / "record.json"
    body = path.read_bytes().rpartition(SEAL)[0].replace(b'"curves"', b'"curve"')
    path.write_bytes(body + SEAL + f'"{sha256(body).hexdigest()}"\n}}\n'.encode())
    with pytest.raises(UserError, match=r"\(curve: "):
        read_record(path.parent)


def test_curves_clusters_and_artifacts_come_back_as_they_were_written(
    written: tuple[Path, RunRecord],
) -> None:
    folder, record = written
    record = record.model_copy(
        update={
            "curves": {"pre-training": ({"epoch": 1.0, "loss": 3.0},), "fine-tuning": ()},
            "diagnosis": {"cluster_sizes": (5, 3, 0), "purity": 0.5, "agreement": 1.0},
            "artifacts": (
                ArtifactUse(kind="upstream", hash="a", sha256="b", seconds=1.5, found=False),
            ),
        }
    )
    write_record(folder, record)
    assert read_record(folder) == record
    assert read_record(folder).diagnosis["cluster_sizes"] == (5, 3, 0)


def test_an_identity_does_not_depend_on_the_order_of_keys() -> None:
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1}) != identity({"a": 1, "b": 3})


def test_cells_that_differ_have_folders_that_differ(tmp_path: Path) -> None:
    cells = [
        Cell(system=system, task="t", protocol="linear", seed=seed, fold=fold)
        for system in ("hear:module/x", "b")
        for seed in (0, 1)
        for fold in (0, 1, 2)
    ]
    folders = {cell_folder(tmp_path, cell, "f" * 64) for cell in cells}
    assert len(folders) == len(cells)
    assert all(folder.parent.parent.parent == tmp_path for folder in folders)


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("hf:facebook/wav2vec2-base", "hf_facebook_wav2vec2-base"),
        ("checkpoint:../a b/c:d.pt", "checkpoint_c_d.pt"),
        (f"hear:mine@{'/deep' * 60}/w.pt", "hear_mine@w.pt"),
        ("folder/mine.py:Encoder", "mine.py_Encoder"),
    ],
)
def test_an_argument_of_a_system_makes_no_folders_of_its_own(
    system: str, name: str, tmp_path: Path
) -> None:
    folder = cell_folder(tmp_path, Cell(system=system, task="t", protocol="linear"), "f" * 64)
    assert folder.relative_to(tmp_path).parts == ("t", name, "linear-1-seed0-ffffffff")
    folder.mkdir(parents=True)


def write_values(folder: Path, values: dict[str, object]) -> None:
    """Write a record of any values, sealed as a program would."""
    body = json.dumps(values, indent=2).removesuffix("\n}").encode()
    (folder / "record.json").write_bytes(
        body + SEAL + f'"{sha256(body).hexdigest()}"\n}}\n'.encode()
    )


NAN, INFINITE = float("nan"), float("inf")
COUNTS = {"encoder": 1, "inference": 1, "training": 1}


@pytest.mark.parametrize(
    "update",
    [
        {"metrics": {"accuracy": NAN}},
        {"metrics": {"accuracy": INFINITE}},
        {"metrics": {"accuracy": 10**400}},
        {"validation": NAN},
        {"validation": -1},
        {"audit": {"one_random_crop": {"accuracy": INFINITE}}},
        {"parameters": COUNTS | {"encoder": 10**400}},
        {"parameters": COUNTS | {"encoder": -1}},
        {"macs_per_second": 10**30},
        {"stages": [{"name": "train", "seconds": INFINITE, "peak_memory_mib": 0}]},
        {"stages": [{"name": "train", "seconds": 1, "peak_memory_mib": NAN}]},
        {"artifacts": [{"kind": "upstream", "hash": "0", "seconds": NAN}]},
        {"system_version": 10**30},
        {"protocol_version": -1},
        {"identity": "../../../x"},
        {"provenance": {"file": "\x1b[2J"}},
        {"selection": {"\x1b]0;title\x07": "validation"}},
        {"environment": {"device": "cpu\x9b31m"}},
        {"finished_at": "\u202e6202"},
        {"settings": {"deep": json.loads("[" * 300 + "]" * 300)}},
    ],
    ids=lambda update: str(update)[:40],
)
def test_values_that_no_run_writes_are_refused_in_a_line_that_a_terminal_can_show(
    update: dict[str, object], written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    write_values(folder, {**record.model_dump(mode="json"), **update})
    with pytest.raises(UserError, match=r"record\.json is not a readable record") as refusal:
        read_record(folder)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "update",
    [
        {"task": ".."},
        {"task": "a/b"},
        {"task": "a" * 300},
        {"task": ""},
        {"task": "a\nb"},
        {"system": ".."},
        {"system": "a\nbench: all records hold"},
        {"system": "\x1b[31mred"},
        {"seed": 10**30},
        {"seed": -1},
        {"fold": 10**30},
        {"labels": "nan%"},
        {"labels": "0-shot"},
    ],
    ids=str,
)
def test_a_cell_that_cannot_have_a_folder_or_a_row_is_refused(
    update: dict[str, object], written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    values = record.model_dump(mode="json")
    write_values(folder, {**values, "cell": values["cell"] | update})
    with pytest.raises(UserError, match=r"record\.json is not a readable record"):
        read_record(folder)


def test_an_infinite_setting_is_allowed(written: tuple[Path, RunRecord]) -> None:
    folder, record = written
    write_record(folder, record.model_copy(update={"settings": {"clip": INFINITE}}))
    assert read_record(folder).settings == {"clip": INFINITE}


def test_the_error_of_a_failed_run_is_shown_with_escapes(written: tuple[Path, RunRecord]) -> None:
    folder, record = written
    write_record(folder, record.model_copy(update={"status": "failed", "error": "a\x1b[2Jb"}))
    assert read_record(folder).error == r"a\x1b[2Jb"


def linked(place: Path, record: Path) -> None:
    place.symlink_to(record)


def linked_to_endless_zeros(place: Path, record: Path) -> None:
    place.symlink_to("/dev/zero")


def fifo(place: Path, record: Path) -> None:
    os.mkfifo(place)


def a_folder(place: Path, record: Path) -> None:
    place.mkdir()


def huge(place: Path, record: Path) -> None:
    with place.open("wb") as file:
        file.truncate(2**40)  # a sparse file


@pytest.mark.parametrize("make", [linked, linked_to_endless_zeros, fifo, a_folder, huge])
@pytest.mark.parametrize("name", ["record.json", "predictions.parquet"])
def test_what_is_no_regular_file_of_reasonable_size_is_named_and_the_others_are_read(
    name: str,
    make: Callable[[Path, Path], None],
    written: tuple[Path, RunRecord],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, _ = written
    out = tmp_path_factory.mktemp("results")
    for copy in ("good", "bad"):
        (out / copy).mkdir()
        for file in ("record.json", "predictions.parquet"):
            (out / copy / file).write_bytes((folder / file).read_bytes())
    (out / "bad" / name).unlink()
    make(out / "bad" / name, folder / name)
    records, problems = find_records(out)
    for place, each in records:
        try:
            read_predictions(place, each)
        except UserError as error:
            problems.append(str(error))
    assert out / "good" in [place for place, _ in records]
    (problem,) = problems
    assert str(out / "bad" / name) in problem


def test_a_folder_that_is_a_link_and_one_with_an_odd_name_are_named(
    written: tuple[Path, RunRecord], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, _ = written
    out = tmp_path_factory.mktemp("results")
    (out / "link").symlink_to(folder)
    odd = out / os.fsdecode(b"\x1b[2J\xff")
    odd.mkdir()
    (odd / "record.json").write_text("{")
    records, problems = find_records(out)
    assert records == []
    assert any("link is a link" in problem for problem in problems)
    assert any(r"\x1b[2J\udcff" in problem for problem in problems)
    assert all(problem.isprintable() for problem in problems)


def test_a_link_to_a_name_that_no_file_can_have_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("a" * 300)
    assert record_folders(tmp_path) == ([], [])
