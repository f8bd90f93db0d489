import math
from pathlib import Path

import pytest

from lape_bench.core.errors import DamagedFile
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json

CONTENT = {"b": [1, 0.1 + 0.2, None, "é\udcff"], "a": {"nested": True}}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_sealed_json(tmp_path / "a.json", CONTENT)
    assert read_sealed_json(tmp_path / "a.json") == CONTENT
    write_sealed_json(tmp_path / "a.json", [math.nan, math.inf])
    assert str(read_sealed_json(tmp_path / "a.json")) == "[nan, inf]"


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed_json(path, CONTENT)
    whole = path.read_bytes()
    noticed = 0
    for place in range(0, 8 * len(whole), 5):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            assert read_sealed_json(path) == CONTENT
        except DamagedFile:
            noticed += 1
    assert noticed > 0.95 * 8 / 5 * len(whole)  # a space may become a tab


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"content": 1}', "[" * 20_000])
def test_what_has_no_checksum_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"a\.json is damaged"):
        read_sealed_json(tmp_path / "a.json")


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_sealed_json(tmp_path / "a.json")
