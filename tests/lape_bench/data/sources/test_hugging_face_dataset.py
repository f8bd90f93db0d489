"""Data sets of Hugging Face become tasks, from Parquet, from Arrow files, and from folders with metadata."""

import csv
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card, own_card
from lape_bench.data.manifest import Manifest
from lape_bench.data.prepare import prepare
from lape_bench.data.sources import hugging_face_dataset as module
from lape_bench.data.sources.hugging_face_dataset import import_dataset

Bench = Callable[..., tuple[int, str, str]]
CLASSES = ["cat", "dog"]
FEATURES = {
    "audio": {"_type": "Audio"},
    "label": {"_type": "ClassLabel", "names": CLASSES},
    "remark": {"dtype": "string", "_type": "Value"},
}


def sound(seed: int, format: str = "WAV") -> bytes:
    noise = np.random.default_rng(seed).normal(0, 0.1, 2000)
    file = io.BytesIO()
    soundfile.write(file, noise, 8000, format=format)
    return file.getvalue()


def rows(first: int, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "audio": {"bytes": sound(n), "path": f"{n}.wav"},
            "label": n % 2,
            "remark": 'said, "so"',
            "vector": [1.0, 2.0],
            **changes,
        }
        for n in range(first, first + count)
    ]


def as_table(content: list[dict[str, Any]], features: dict[str, Any] | None = None) -> pa.Table:
    metadata = {"huggingface": json.dumps({"info": {"features": features or FEATURES}})}
    return pa.Table.from_pylist(content).replace_schema_metadata(metadata)


def write_parquet(path: Path, content: list[dict[str, Any]], **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(as_table(content, **how), path)


def write_arrow(path: Path, content: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = as_table(content)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def made(bench: Bench, source: Path | str, *options: str) -> Manifest:
    """Make the data set a task by the command line, and prepare it."""
    code, _, err = bench("tasks", "new", "pets", "--from", f"hf:{source}", *options)
    assert code == 0, err
    return prepare(load_card("pets"), None, Progress(quiet=True))[0]


def check(manifest: Manifest) -> None:
    """All clips have their class, and the audio that was put in."""
    for row in manifest.clips.itertuples():
        number = int(Path(row.path).stem)
        assert row.label == CLASSES[number % 2]
        assert (manifest.root / row.path).read_bytes() == sound(number)


def test_parquet_files_with_splits_become_a_task_with_official_sides(
    bench: Bench, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "ds" / "data" / "train-00000-of-00002.parquet", rows(0, 70))
    write_parquet(tmp_path / "ds" / "data" / "train-00001-of-00002.parquet", rows(70, 2))
    write_parquet(tmp_path / "ds" / "data" / "validation-00000-of-00001.parquet", rows(80, 4))
    write_parquet(tmp_path / "ds" / "data" / "test-00000-of-00001.parquet", rows(90, 6))
    manifest = made(bench, tmp_path / "ds")
    check(manifest)
    assert manifest.clips["split"].value_counts().to_dict() == {"train": 72, "test": 6, "val": 4}
    assert manifest.info.classes == tuple(CLASSES)


def test_file_names_that_end_with_a_hash_are_read_as_those_without(
    bench: Bench, tmp_path: Path
) -> None:
    for name, first in (
        ("train-00000-of-00002-b42a775f407cee45", 0),
        ("train-00001-of-00002-0f3c0a1be0a3ad6e", 10),
        ("test-00000-of-00001-1234567890abcdef", 20),
    ):
        write_parquet(tmp_path / "ds" / "data" / f"{name}.parquet", rows(first, 6))
    manifest = made(bench, tmp_path / "ds")
    check(manifest)
    assert manifest.clips["split"].value_counts().to_dict() == {"train": 12, "test": 6}


def test_folders_of_splits_are_sides_too_as_on_the_hubs_own_branch(
    bench: Bench, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "ds" / "default" / "train" / "0000.parquet", rows(0, 6))
    write_parquet(tmp_path / "ds" / "default" / "test" / "0000.parquet", rows(10, 4))
    manifest = made(bench, tmp_path / "ds")
    check(manifest)
    assert manifest.clips["split"].value_counts().to_dict() == {"train": 6, "test": 4}


def test_files_of_save_to_disk_are_read(bench: Bench, tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 10)):
        write_arrow(tmp_path / "ds" / split / "data-00000-of-00001.arrow", rows(first, 6))
        (tmp_path / "ds" / split / "state.json").write_text("{}")
    manifest = made(bench, tmp_path / "ds")
    check(manifest)
    assert manifest.clips["split"].value_counts().to_dict() == {"train": 6, "test": 6}


def test_sides_of_one_split_are_drawn_and_other_columns_can_be_named(
    bench: Bench, tmp_path: Path
) -> None:
    content = [
        row | {"emotion": row["label"], "label": n // 2} for n, row in enumerate(rows(0, 20))
    ]
    features = FEATURES | {"emotion": FEATURES["label"], "label": {"_type": "Value"}}
    write_parquet(tmp_path / "ds" / "train.parquet", content, features=features)
    manifest = made(bench, tmp_path / "ds", "--column", "label=emotion", "--column", "group=label")
    check(manifest)
    assert set(manifest.clips["group"]) == set(map(str, range(10)))
    assert load_card("pets").split.rule == "drawn"


def test_rows_without_a_label_are_not_a_class_of_their_own(bench: Bench, tmp_path: Path) -> None:
    write_parquet(tmp_path / "ds" / "train.parquet", rows(0, 12))
    unlabeled = [row | {"label": -1} for row in rows(20, 4)]
    write_parquet(tmp_path / "ds" / "test.parquet", unlabeled)
    code, _, err = bench("tasks", "new", "pets", "--from", f"hf:{tmp_path / 'ds'}")
    assert code == 2
    assert "line 2 has no label" in err  # the rows of test come first


def test_the_only_column_of_classes_is_the_label(bench: Bench, tmp_path: Path) -> None:
    content = [
        {("species" if k == "label" else k): v for k, v in row.items()} for row in rows(0, 12)
    ]
    features = {"audio": FEATURES["audio"], "species": FEATURES["label"]}
    write_parquet(tmp_path / "ds" / "train.parquet", content, features=features)
    check(made(bench, tmp_path / "ds"))


def test_files_whose_names_lead_elsewhere_or_come_twice_stay_in_the_cache(
    tmp_path: Path, cache: Path
) -> None:
    names = [
        "../../evil.wav",
        "/etc/passwd",
        "a/b/c.flac",
        "same.wav",
        "Same.wav",
        "",
        None,
        "..",
        "x\\y.mp3",
    ]
    content = [
        row | {"audio": {"bytes": sound(n, "FLAC"), "path": name}}
        for n, (row, name) in enumerate(zip(rows(0, len(names)), names, strict=True))
    ]
    write_parquet(tmp_path / "ds" / "train.parquet", content)
    table = import_dataset(str(tmp_path / "ds"), "pets").source
    with table.open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert len({path.lower() for path in paths}) == len(names)
    for n, path in enumerate(paths):
        assert (table.parent / path).resolve().is_relative_to(cache / "imported")
        assert (table.parent / path).read_bytes() == sound(n, "FLAC")
    assert paths[5].endswith(".flac"), "told by its first bytes"


def test_very_many_rows_of_one_file_name_are_named_in_one_step_each() -> None:
    uses: dict[str, int] = {"all/clip-3": 1}
    names = [module._unused("all/clip", uses) for _ in range(5)]
    assert names == ["all/clip", "all/clip-2", "all/clip-4", "all/clip-5", "all/clip-6"]
    uses["all/clip"] = 1_000_000
    assert module._unused("all/clip", uses) == "all/clip-1000001"


def test_a_folder_with_metadata_is_read_where_it_lies(bench: Bench, tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 10)):
        folder = tmp_path / "ds" / split
        folder.mkdir(parents=True)
        with (folder / "metadata.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "label"])
            for n in range(first, first + 6):
                (folder / f"{n}.wav").write_bytes(sound(n))
                table.writerow([f"{n}.wav", CLASSES[n % 2]])
    manifest = made(bench, tmp_path / "ds")
    check(manifest)
    assert manifest.root == tmp_path / "ds"
    assert manifest.clips["split"].value_counts().to_dict() == {"train": 6, "test": 6}


def test_class_folders_without_metadata_are_class_folders(bench: Bench, tmp_path: Path) -> None:
    for n in range(12):
        path = tmp_path / "ds" / CLASSES[n % 2] / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound(n))
    check(made(bench, tmp_path / "ds"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/train.parquet": rows(0, 2), "b/train.parquet": rows(0, 2)}, "several configurations: a, b; name one: hf:"),
        ({"train.parquet": [{"label": 1}]}, "has no columns of audio; its columns are label"),
        ({"train.parquet": rows(0, 6), "words.parquet": [{"word": 1}]}, "words.parquet has no columns of audio"),
        ({"train.parquet": [{"x": {"bytes": b""}, "y": {"bytes": b""}}]}, "has 2 columns of audio"),
        ({"train.parquet": rows(0, 2, audio={"bytes": None, "path": "gone.wav"})}, "the audio file 'gone.wav'"),
        ({"train.parquet": b"broken"}, "train.parquet cannot be read"),
        ({"data-0-of-1.arrow": b"broken"}, "arrow cannot be read"),
        ({"metadata.csv": b"path,label\nx.wav,cat"}, "line 2 has no file_name"),
        ({"extra.parquet": rows(0, 6), "train.parquet": rows(10, 6)}, "'hf_split' may be its split"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_task_is_refused_in_one_line(
    files: dict[str, Any], said: str, bench: Bench, tmp_path: Path
) -> None:
    for name, content in files.items():
        path = tmp_path / "ds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(pa.Table.from_pylist(content), path)
    code, _, err = bench("tasks", "new", "pets", "--from", f"hf:{tmp_path / 'ds'}")
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_data_set_of_the_hub_is_downloaded(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "hub" / "en" / "train-00000-of-00001.parquet", rows(0, 12))
    asked = []

    def snapshot_download(repository: str, **how: Any) -> str:
        asked.append((repository, how["revision"], how["allow_patterns"][0]))
        return str(tmp_path / ("empty" if how["revision"] is None else "hub"))

    (tmp_path / "empty" / "en").mkdir(parents=True)
    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    check(made(bench, "owner/pets/en"))
    assert asked == [
        ("owner/pets", None, "en/*.parquet"),
        ("owner/pets", "refs/convert/parquet", "en/*.parquet"),
    ]


def test_the_hub_needs_its_package_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'lape_bench\[hf\]'"):
        import_dataset("owner/pets", "pets")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=fail)
    )
    with pytest.raises(UserError, match=r"hf:owner/pets is not a folder.*no connection"):
        import_dataset("owner/pets", "pets")


def test_a_damaged_import_is_told_and_replaced_by_the_next_one(
    bench: Bench, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "ds" / "train.parquet", rows(0, 12))
    manifest = made(bench, tmp_path / "ds")
    (manifest.root / manifest.clips["path"][0]).write_bytes(b"damaged")
    code, _, err = bench("data", "prepare", "pets")
    assert code == 2
    assert "in the cache are damaged" in err
    own_card("pets").unlink()
    again = made(bench, tmp_path / "ds")
    assert again.root == manifest.root
    check(again)
