import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.records.record import (
    SEAL,
    ArtifactUse,
    Cell,
    RunRecord,
    cell_folder,
    find_records,
    identity,
    read_record,
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


@pytest.mark.parametrize("version", [0, 1, 99])
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
        ("checkpoint:../a b/c:d.pt", "checkpoint_.._a_b_c_d.pt"),
        (f"hear:mine@{'/deep' * 60}/w.pt", f"{'_deep' * 60}_w.pt"[-120:]),
        ("folder/mine.py:Encoder", "mine.py_Encoder"),
    ],
)
def test_an_argument_of_a_system_makes_no_folders_of_its_own(
    system: str, name: str, tmp_path: Path
) -> None:
    folder = cell_folder(tmp_path, Cell(system=system, task="t", protocol="linear"), "f" * 64)
    assert folder.relative_to(tmp_path).parts == ("t", name, "linear-1-seed0-ffffffff")
    folder.mkdir(parents=True)
