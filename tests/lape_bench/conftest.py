"""Fixtures of the harness's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lape_bench.cli import app as cli

from .http_server import Server

Bench = Callable[..., tuple[int, str, str]]
ESC_FOLDERS = [
    "001 - Dog bark", "002 - Rain", "003 - Sea waves", "004 - Baby cry", "005 - Clock tick",
    "006 - Person sneeze", "007 - Helicopter", "008 - Chainsaw", "009 - Rooster", "010 - Fire crackling",
]  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as serving:
        yield serving


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Run `bench` in this process; returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def esc_folder(tmp_path: Path, write_clip: Callable[..., Path]) -> Path:
    """A small ESC-10: one clip of each class in each fold."""
    root = tmp_path / "esc"
    for number, folder in enumerate(ESC_FOLDERS):
        for fold in range(1, 6):
            path = root / folder / f"{fold}-{100 * number + fold}-A.ogg"
            write_clip(path, 10 * number + fold, rate=16_000, format="OGG", subtype="VORBIS")
    return root
