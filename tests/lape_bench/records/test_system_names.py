"""Names that hold a path: without folders for people, relative for records."""

from pathlib import Path

import pytest

from lape_bench.records.record import Cell, Determinants
from lape_bench.records.system_names import relative_name, short_name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("supervised", "supervised"),
        ("hf:facebook/wav2vec2-base", "hf:facebook/wav2vec2-base"),
        ("torchaudio:WAV2VEC2_BASE", "torchaudio:WAV2VEC2_BASE"),
        ("checkpoint:/home/me/runs/encoder.pt", "checkpoint:encoder.pt"),
        ("checkpoint:runs/encoder.pt", "checkpoint:encoder.pt"),
        ("hf:~/models/mine", "hf:mine"),
        ("hf:./mine/", "hf:mine"),
        ("/home/me/my_encoder.py:MyEncoder", "my_encoder.py:MyEncoder"),
        ("examples/my_encoder.py:MyEncoder", "my_encoder.py:MyEncoder"),
        ("hear:panns_hear@/home/me/w.pth", "hear:panns_hear@w.pth"),
        ("/data/audio", "audio"),
        ("0.5", "0.5"),
    ],
)
def test_a_short_name_has_no_folders(name: str, short: str) -> None:
    assert short_name(name) == short


def test_a_path_below_a_folder_becomes_relative_and_another_one_stays() -> None:
    here = Path("/home/me/project")
    assert relative_name("checkpoint:/home/me/project/runs/e.pt", here) == "checkpoint:runs/e.pt"
    assert relative_name("/home/me/project/e.py:Mine", here) == "e.py:Mine"
    assert relative_name("checkpoint:/elsewhere/e.pt", here) == "checkpoint:/elsewhere/e.pt"
    assert relative_name("supervised", here) == "supervised"


def identity(system: str, label: str = "", provenance: dict[str, str] | None = None) -> str:
    cell = Cell(system=system, task="t", protocol="linear", label=label)
    return Determinants(
        cell=cell,
        settings={},
        system_version=1,
        system_versions={},
        provenance=provenance or {},
        corpora={},
        manifest_hash="a",
        card_version=1,
        window_seconds=1.0,
        metric="accuracy",
    ).identity


def test_neither_a_label_nor_the_folder_of_a_known_file_changes_an_identity() -> None:
    weights = {"weights": "0" * 64}
    assert identity("supervised") == identity("supervised", label="mine")
    assert identity("checkpoint:/a/e.pt", provenance=weights) == identity(
        "checkpoint:b/e.pt", provenance=weights
    )
    assert identity("checkpoint:/a/e.pt") != identity("checkpoint:/b/e.pt")


@pytest.mark.parametrize("label", ["<script>", "a (b)", " a", "a\n", "x" * 61, "a [b]"])
def test_a_label_holds_nothing_that_a_page_or_a_table_could_misread(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        Cell(system="s", task="t", protocol="linear", label=label)
