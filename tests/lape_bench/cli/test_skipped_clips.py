"""What `--skip-bad` leaves out is counted on the terminal and listed in a file."""

import logging

import pytest

from lape_bench.cli import data
from lape_bench.core.paths import manifest_path
from lape_bench.data.manifest import SkippedClip


def test_ten_skipped_clips_are_shown_and_all_are_written_beside_the_manifest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    skipped = [SkippedClip(clip_id=f"clip-{n}", reason="silent") for n in range(500)]
    with caplog.at_level(logging.INFO, "lape_bench"):
        data._list_skipped("own", skipped)
    file = manifest_path("own").with_suffix(".skipped.tsv")
    assert len(caplog.records) == 11
    assert f"skipped 500 clips in all; {file} lists them" in caplog.text
    assert len(file.read_text(encoding="utf-8").splitlines()) == 501
    data._list_skipped("own", [])
    assert not file.exists(), "a list of another preparation does not stay"
