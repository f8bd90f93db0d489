from pathlib import Path

import pandas as pd
import pytest

from lape_bench.core.errors import UserError
from lape_bench.data import split_lock
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest
from tests.lape_bench.stand_ins import stand_in

ESC10 = load_card("esc10")


@pytest.fixture
def manifest() -> Manifest:
    return stand_in(ESC10)


def changed(manifest: Manifest, **columns: object) -> Manifest:
    """The same manifest with other values in its first row."""
    clips = manifest.clips.copy()
    for name, value in columns.items():
        clips.loc[0, name] = value
    return Manifest(manifest.info, clips)


def written(path: Path, manifest: Manifest) -> Path:
    path.write_text(split_lock.as_text(manifest))
    return path


def test_a_lock_is_a_table_of_ids_labels_and_sides_under_one_line_of_facts(
    manifest: Manifest, tmp_path: Path
) -> None:
    path = written(tmp_path / "esc10.lock.csv", manifest)
    assert manifest.hash in path.read_text().splitlines()[0]
    table = pd.read_csv(path, comment="#")
    assert list(table.columns) == ["clip_id", "label", "split", "fold"]
    assert table["clip_id"].tolist() == manifest.clips["clip_id"].tolist()
    assert table["fold"].tolist() == manifest.clips["fold"].tolist()


def test_the_same_manifest_holds_against_its_lock(manifest: Manifest, tmp_path: Path) -> None:
    found = split_lock.compare(manifest, written(tmp_path / "lock", manifest))
    assert found.holds
    assert "400 clips" in found.detail


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "Rain"}, "1 with another label or side, such as 1/00000"),
        ({"fold": 5}, "1 with another label or side, such as 1/00000"),
        ({"clip_id": "another"}, "1 clips more, 1 fewer, 0 with another"),
        ({"content": "other audio"}, "same ids, labels and sides, but other audio"),
        ({"group": "another"}, "same ids, labels and sides, but other audio, groups or classes"),
    ],
)
def test_any_difference_fails_and_is_counted(
    manifest: Manifest, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = written(tmp_path / "lock", manifest)
    found = split_lock.compare(changed(manifest, **change), path)
    assert not found.holds
    assert said in found.detail


def test_rows_that_were_changed_in_the_file_fail_though_its_hash_is_right(
    manifest: Manifest, tmp_path: Path
) -> None:
    path = written(tmp_path / "lock", manifest)
    path.write_text(path.read_text().replace("1/00000,Dog bark,,1", "1/00000,Rain,,1"))
    found = split_lock.compare(manifest, path)
    assert not found.holds
    assert "1 with another label or side, such as 1/00000" in found.detail


@pytest.mark.parametrize("text", ["", "clip_id,label\n", '# {"task": "esc10"}\nclip_id\n'])
def test_a_file_that_is_no_lock_is_refused(manifest: Manifest, tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock"
    path.write_text(text)
    with pytest.raises(UserError, match="is not the lock of a manifest") as caught:
        split_lock.compare(manifest, path)
    assert str(path) in str(caught.value)
    assert "bench data lock esc10" in str(caught.value)


def test_the_lock_of_another_task_is_refused_by_name(manifest: Manifest, tmp_path: Path) -> None:
    path = written(tmp_path / "lock", stand_in(load_card("fsdd-digits")))
    with pytest.raises(UserError, match="pins fsdd-digits, version 1, not esc10, version 1"):
        split_lock.compare(manifest, path)


def test_classes_named_like_missing_values_survive(tmp_path: Path) -> None:
    card = ESC10.model_copy(update={"classes": ("null", "NA", *ESC10.classes[2:])})
    manifest = stand_in(card)
    assert split_lock.compare(manifest, written(tmp_path / "lock", manifest)).holds
    moved = changed(manifest, label="NA")
    assert "1 with another label" in split_lock.compare(moved, tmp_path / "lock").detail
