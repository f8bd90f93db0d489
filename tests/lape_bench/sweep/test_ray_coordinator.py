"""Artifacts are sent to the coordinator and fetched from it, whole or not at all."""

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed")
from lape_bench.runtime import artifacts
from lape_bench.runtime.artifacts import artifact
from lape_bench.sweep import ray_coordinator
from lape_bench.sweep.ray_coordinator import CellProgress, Coordinator


class LocalActor:
    """An actor that is a coordinator of this process."""

    def __init__(self, own: Coordinator) -> None:
        self._own = own

    def __getattr__(self, name: str) -> object:
        call = getattr(self._own, name)
        return type("Method", (), {"remote": staticmethod(call)})


@pytest.fixture
def remote_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ray_coordinator.RemoteArtifactStore:
    monkeypatch.setattr(ray_coordinator.ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray_coordinator, "CHUNK", 7)
    return ray_coordinator.RemoteArtifactStore(LocalActor(Coordinator(tmp_path / "coordinator")))


def make(
    within: Path, artifact_store: ray_coordinator.RemoteArtifactStore, computed_in: list[Path]
) -> artifacts.Artifact:
    def compute(folder: Path, item: Path) -> None:
        computed_in.append(folder)
        (folder / "weights").write_bytes(bytes(range(23)))
        (folder / "deep").mkdir()
        (folder / "deep" / "empty").touch()

    return artifact(
        "upstream", "a test", {"x": 1}, compute, within, {}, artifact_store=artifact_store
    )


def test_a_machine_fetches_the_artifact_that_another_computed(
    remote_store: ray_coordinator.RemoteArtifactStore, tmp_path: Path
) -> None:
    computed_in: list[Path] = []
    first = make(tmp_path / "a", remote_store, computed_in)
    second = make(tmp_path / "b", remote_store, computed_in)
    assert len(computed_in) == 1
    assert (first.computed, second.computed) == (True, False)
    assert second.waited > 0
    assert first.metadata.sha256 == second.metadata.sha256
    assert (second.folder / "weights").read_bytes() == bytes(range(23))
    assert (second.folder / "deep" / "empty").is_file()


def test_an_artifact_that_a_machine_had_before_is_sent_too(
    remote_store: ray_coordinator.RemoteArtifactStore, tmp_path: Path
) -> None:
    computed_in: list[Path] = []
    make(tmp_path / "a", None, computed_in)
    make(tmp_path / "a", remote_store, computed_in)
    make(tmp_path / "b", remote_store, computed_in)
    assert len(computed_in) == 1


def test_a_damaged_artifact_of_the_coordinator_is_computed_again(
    remote_store: ray_coordinator.RemoteArtifactStore, tmp_path: Path
) -> None:
    computed_in: list[Path] = []
    make(tmp_path / "a", remote_store, computed_in)
    (kept,) = (tmp_path / "coordinator" / "upstream").iterdir()
    (kept / "weights").write_bytes(b"other")
    assert make(tmp_path / "b", remote_store, computed_in).computed
    assert len(computed_in) == 2


def test_an_incomplete_artifact_is_not_kept(tmp_path: Path) -> None:
    own = Coordinator(tmp_path)
    part = own.open_part("upstream")
    own.write(part, "weights", b"half")
    own.keep(part, "name")
    assert not own.has("upstream", "name")
    assert list((tmp_path / "upstream").iterdir()) == []


def test_the_coordinator_has_the_progress_of_a_cell_until_it_ends(tmp_path: Path) -> None:
    own, step = Coordinator(tmp_path), CellProgress("node", "pre-training", 3, 8, "steps")
    own.note_progress(4, step)
    own.note_progress(5, step)
    own.note_progress(4, None)
    assert own.progress() == {5: step}
