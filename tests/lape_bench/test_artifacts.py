from pathlib import Path

import pytest

from lape_bench.artifacts import artifact


def test_the_same_inputs_are_computed_once_and_others_anew() -> None:
    calls: list[int] = []

    def compute(folder: Path) -> None:
        calls.append(1)
        (folder / "result").write_text(str(len(calls)))

    first = artifact("embeddings", {"clips": "a", "width": 2}, compute)
    again = artifact("embeddings", {"width": 2, "clips": "a"}, compute)
    other = artifact("embeddings", {"clips": "a", "width": 3}, compute)
    assert (first.computed, again.computed, other.computed) == (True, False, True)
    assert (again.folder / "result").read_text() == "1"
    assert first.hash == again.hash != other.hash
    assert len(calls) == 2


def test_a_stage_that_fails_leaves_no_artefact(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        artifact("embeddings", {"clips": "a"}, fail)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_an_artefact_says_what_determined_it() -> None:
    made = artifact("embeddings", {"clips": "a"}, lambda folder: None)
    assert '"clips": "a"' in (made.folder / "artifact.json").read_text()
