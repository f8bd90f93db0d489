"""Finished stages: made once, found again, trusted only as long as their bytes are those they were made with."""

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.runtime import artifacts
from lape_bench.runtime.artifacts import (
    Artifact,
    ArtifactInfo,
    artifact,
    list_artifacts,
    remove,
    stable_name,
)

Compute = Callable[[Path, Path], None]
# A forked process may inherit a lock that a thread of torch held.
SPAWN = multiprocessing.get_context("spawn")
STAMP = {"torch": "1"}


def fill(folder: Path, work: Path) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "numbers").write_bytes(b"12345")
    (folder / "result").write_bytes(b"678")


def make(
    within: Path,
    compute: Compute = fill,
    stamp: dict[str, Any] | None = None,
    kind: str = "embeddings",
    about: str = "of three clips",
    **determined_by: object,
) -> Artifact:
    return artifact(
        kind, about, determined_by or {"clips": "a"}, compute, within, stamp or dict(STAMP)
    )


def listed(within: Path) -> list[ArtifactInfo]:
    return list(list_artifacts(within))


def results(within: Path) -> list[Path]:
    """Every file but locks."""
    files = (path for path in within.rglob("*") if path.is_file())
    return [path for path in files if not path.name.startswith(".lock-")]


@pytest.fixture
def killed(tmp_path: Path) -> list[str]:
    """Leave a checkpoint of a stage that broke off; what each later call finds is noted here."""

    def breaking(folder: Path, work: Path) -> None:
        (folder / "half").write_text("half")
        (work / "epoch").write_text("3")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        make(tmp_path, breaking)
    return []


def noting(seen: list[str]) -> Compute:
    """Note the names in both folders, then make a result."""

    def compute(folder: Path, work: Path) -> None:
        assert not list(folder.iterdir())
        seen.append(",".join(sorted(path.name for path in work.iterdir())))
        fill(folder, work)

    return compute


def test_the_same_inputs_are_computed_once_and_others_anew(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute(folder: Path, work: Path) -> None:
        calls.append(1)
        (folder / "result").write_text(str(len(calls)))

    first = make(tmp_path, compute, clips="a", how={"width": 2, "bands": 3})
    again = make(tmp_path, compute, how={"bands": 3, "width": 2}, clips="a", about="otherwise")
    other = make(tmp_path, compute, clips="a", how={"width": 3, "bands": 3})
    of_another_kind = make(tmp_path, compute, kind="x", clips="a", how={"width": 2, "bands": 3})
    made = (first, again, other, of_another_kind)
    assert [each.computed for each in made] == [True, False, True, True]
    assert (again.folder / "result").read_text() == "1"
    assert first.hash == again.hash
    assert len({each.hash for each in made}) == 3
    assert again.metadata == first.metadata
    assert len(calls) == 3


def test_an_artifact_says_what_determined_it_and_what_it_took(tmp_path: Path) -> None:
    def slow(folder: Path, work: Path) -> None:
        time.sleep(0.05)
        fill(folder, work)

    made = make(tmp_path, slow, clips="a", width=3)
    assert json.loads((made.folder / "artifact.json").read_text()) == {
        "kind": "embeddings",
        "clips": "a",
        "width": 3,
    }
    assert 0.05 <= made.metadata.seconds < 5
    assert made.metadata.bytes == 8 + (made.folder / "artifact.json").stat().st_size
    assert made.metadata.about == "of three clips"
    assert made.folder == tmp_path / "embeddings" / made.hash


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "result").write_bytes(b"679"),
        lambda folder: (folder / "result").write_bytes(b"67"),
        lambda folder: (folder / "result").unlink(),
        lambda folder: (folder / "result").rename(folder / "other"),
        lambda folder: (folder / "below" / "numbers").write_bytes(b""),
        lambda folder: (folder / "more").write_bytes(b""),
        lambda folder: (folder / "artifact.json").write_text("{}"),
        lambda folder: (folder / "made.json").unlink(),
        lambda folder: (folder / "made.json").write_text('{"seconds": 1'),
        shutil.rmtree,
    ],
    ids=[
        "a byte", "cut", "gone", "renamed", "below", "added", "described otherwise", "unfinished", "unreadable",
        "all gone",
    ],
)  # fmt: skip
def test_a_damaged_artifact_is_noticed_and_made_again(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    whole = make(tmp_path)
    damage(whole.folder)
    again = make(tmp_path)
    assert again.computed
    assert again.metadata.sha256 == whole.metadata.sha256
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "artifact.json", "below", "made.json", "result",
    ]  # fmt: skip
    assert (again.folder / "result").read_bytes() == b"678"
    assert not make(tmp_path).computed


def test_the_hash_of_the_bytes_does_not_depend_on_when_where_or_how_often_they_were_made(
    tmp_path: Path,
) -> None:
    first = make(tmp_path / "one")
    for path in first.folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    again, elsewhere = make(tmp_path / "one"), make(tmp_path / "two", about="something else")
    assert not again.computed
    assert first.metadata.sha256 == again.metadata.sha256 == elsewhere.metadata.sha256

    def otherwise(folder: Path, work: Path) -> None:
        fill(folder, work)
        (folder / "result").write_bytes(b"679")

    assert make(tmp_path / "three", otherwise).metadata.sha256 != first.metadata.sha256


def test_a_stage_that_fails_leaves_its_checkpoints_and_nothing_else(
    killed: list[str], tmp_path: Path
) -> None:
    assert sorted(path.name for path in results(tmp_path)) == ["epoch", "stamp.json"]
    assert not list(tmp_path.rglob(".part-*"))


def test_a_killed_stage_goes_on_from_its_checkpoints(killed: list[str], tmp_path: Path) -> None:
    made = make(tmp_path, noting(killed), {"torch": "1"})
    assert killed == ["epoch,stamp.json"]
    assert not list(tmp_path.rglob("epoch"))
    assert sorted(made.folder.parent.iterdir()) == sorted(
        [made.folder, made.folder.parent / f".lock-{made.hash}"]
    )


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (MemoryError(), True),
        (UserError("the corpus is too small"), True),
        (ValueError("it cannot read its own state"), False),
        (RuntimeError("size mismatch for head.weight"), False),
        (DamagedFile("the checkpoint is damaged"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_resumed_stage_that_fails_keeps_its_checkpoints_unless_they_may_be_the_cause(
    error: Exception, kept: bool, killed: list[str], tmp_path: Path
) -> None:
    def failing(folder: Path, work: Path) -> None:
        raise error

    with pytest.raises(type(error)):
        make(tmp_path, failing)
    assert len(list(tmp_path.rglob("epoch"))) == kept


@pytest.mark.parametrize("stamp", [{"torch": "2"}, {"torch": "1", "threads": "2"}], ids=str)
def test_checkpoints_of_other_code_or_another_machine_are_dropped(
    stamp: dict[str, str], killed: list[str], tmp_path: Path
) -> None:
    made = make(tmp_path, noting(killed), stamp)
    assert killed == ["stamp.json"]
    assert made.computed


def test_checkpoints_of_one_artifact_are_not_taken_for_another(
    killed: list[str], tmp_path: Path
) -> None:
    make(tmp_path, noting(killed), clips="b")
    assert killed == ["stamp.json"]
    make(tmp_path, noting(killed))
    assert killed[1] == "epoch,stamp.json"


def _compute_slowly(within: Path, calls: Path, barrier: Any) -> bool:
    def compute(folder: Path, work: Path) -> None:
        with calls.open("a") as file:
            file.write("called\n")
        time.sleep(0.3)
        fill(folder, work)

    barrier.wait(120)  # the other process may still import what it needs
    return make(within, compute).computed


def test_two_processes_that_need_one_artifact_compute_it_once(tmp_path: Path) -> None:
    with SPAWN.Manager() as manager, SPAWN.Pool(2) as pool:
        arguments = (tmp_path / "cache", tmp_path / "calls", manager.Barrier(2))
        computed = pool.starmap(_compute_slowly, [arguments, arguments], chunksize=1)
    assert sorted(computed) == [False, True]
    assert (tmp_path / "calls").read_text() == "called\n"


@pytest.fixture
def shelf(tmp_path: Path, killed: list[str]) -> Path:
    """Two finished artifacts, one that is unfinished, one without what it took."""
    old, young = make(tmp_path, clips="old"), make(tmp_path, kind="student", clips="young")
    unreadable = make(tmp_path, clips="unreadable")
    (unreadable.folder / "made.json").write_text("{}")
    now = time.time()
    os.utime(old.folder / "made.json", (now - 3 * 86_400,) * 2)
    os.utime(young.folder / "made.json", (now - 86_400,) * 2)
    return tmp_path


def test_a_listing_names_finished_unfinished_and_unreadable_ones(shelf: Path) -> None:
    found = {each.about: each for each in listed(shelf)}
    assert len(listed(shelf)) == 4
    assert {each.kind for each in found.values()} == {"embeddings", "student"}
    unfinished = found["unfinished: from a killed run, or being computed now"]
    assert unfinished.hash == make(shelf).hash
    assert unfinished.metadata is None
    assert found["not readable"].metadata is None
    finished = [each for each in listed(shelf) if each.metadata]
    assert {each.about for each in finished} == {"of three clips"}
    for each in listed(shelf):
        files = [path for path in each.folder.rglob("*") if path.is_file()]
        assert each.bytes == sum(path.stat().st_size for path in files) > 0


def test_a_listing_does_without_what_its_writer_takes_away_meanwhile(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, walk = listed(shelf), os.walk

    def vanishing(folder: Path) -> Any:
        for within, folders, names in walk(folder):
            yield within, [*folders, "gone"], [*names, "gone.tmp"]

    monkeypatch.setattr(os, "walk", vanishing)
    assert listed(shelf) == before


def test_a_listing_goes_by_kind_and_the_longest_unused_first(shelf: Path) -> None:
    each = listed(shelf)
    assert [one.kind for one in each] == ["embeddings"] * 3 + ["student"]
    assert [round(one.unused_days, 2) for one in each] == [3.0, 0.0, 0.0, 1.0]


def test_an_artifact_that_is_found_counts_as_used(shelf: Path) -> None:
    make(shelf, clips="old")
    assert max(each.unused_days for each in listed(shelf) if each.kind == "embeddings") < 0.01


def test_an_empty_or_missing_cache_lists_nothing(tmp_path: Path) -> None:
    assert listed(tmp_path) == listed(tmp_path / "nowhere") == []


def test_what_is_removed_is_gone_and_the_rest_stays(shelf: Path) -> None:
    before = listed(shelf)
    for index, each in enumerate(before):
        remove(each)
        assert not each.folder.exists()
        assert not (each.folder.parent / f".lock-{each.hash}").exists()
        assert [one.folder for one in listed(shelf)] == [one.folder for one in before[index + 1 :]]
    assert not [path for path in shelf.rglob("*") if path.is_file() and "lock" not in path.name]
    assert make(shelf, clips="old").computed


def _compute_until_told(within: Path, told: Path) -> str:
    def compute(folder: Path, work: Path) -> None:
        fill(folder, work)
        (work / "epoch").write_text("3")
        told.touch()
        time.sleep(0.5)

    return str(make(within, compute).folder)


def test_what_another_process_is_making_is_not_pulled_from_under_it(tmp_path: Path) -> None:
    with SPAWN.Pool(1) as pool:
        under_way = pool.apply_async(
            _compute_until_told, (tmp_path / "cache", tmp_path / "under way")
        )
        while not (tmp_path / "under way").exists():
            assert not under_way.ready(), under_way.get()
            time.sleep(0.01)
        for each in listed(tmp_path / "cache"):
            remove(each)
        folder = Path(under_way.get(timeout=120))
    assert (folder / "result").read_bytes() == b"678"
    assert (folder / "below" / "numbers").read_bytes() == b"12345"


def test_the_cache_lies_in_the_folder_of_the_harness(cache: Path) -> None:
    assert artifacts.cache() == cache / "artifacts"


class _Named:
    artifact_name = "named"


class _Derived(_Named):
    pass


def test_a_class_is_named_by_itself_and_a_subclass_by_its_module() -> None:
    assert stable_name(_Named) == "named"
    assert stable_name(_Derived) == f"{__name__}:_Derived"
