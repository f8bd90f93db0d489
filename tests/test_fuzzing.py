"""A small part of `python -m tests.fuzzing`; its long form is in `docs/concepts/robustness.md`."""

from pathlib import Path

import pytest

from tests import fuzzing


@pytest.mark.parametrize("kind", fuzzing.KINDS)
def test_damaged_and_odd_files_are_read_or_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "FAILURES", tmp_path / "failures")
    outcomes, failures = fuzzing.fuzz(kind, 40, 0, tmp_path)
    assert not failures, failures[0]
    assert outcomes["refused"] > 0
    assert outcomes.total() == 40


def test_what_raises_another_error_or_takes_too_long_is_mishandled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "FAILURES", tmp_path / "failures")

    def read(path: Path) -> None:
        if path.read_bytes() == b"wait":
            fuzzing.time.sleep(10)
        raise KeyError("none of ours")

    for content in (b"fail", b"wait"):
        if content == b"wait":
            monkeypatch.setattr(fuzzing, "MOST_SECONDS", 0.05)
        kind = fuzzing.Kind({"x": content}, read, change=lambda given, _: given)
        monkeypatch.setitem(fuzzing.KINDS, "odd", lambda kind=kind: kind)
        outcomes, [failure] = fuzzing.fuzz("odd", 1, 0, tmp_path)
        assert outcomes["mishandled"] == 1
        assert ("TimeoutError" if content == b"wait" else "KeyError") in failure
        assert next((tmp_path / "failures").iterdir()).read_bytes() in (b"wait", b"fail")
