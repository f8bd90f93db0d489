"""Files that have not changed are decoded once, however often a task is prepared."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data import audio, decoded_before
from lape_bench.data.audio_store import build_store, find_store_damage
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.new_task import new_task
from lape_bench.data.prepare import prepare
from lape_bench.data.recording import ClipFacts, Recording

WriteClip = Callable[..., Path]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded."""
    names: list[str] = []
    decode = decoded_before.decode

    def noting(recording: Recording, rate: int, folder: Path) -> decoded_before.DecodedClip:
        names.append(recording.path.name)
        return decode(recording, rate, folder)

    monkeypatch.setattr(decoded_before, "decode", noting)
    return names


@pytest.fixture
def recordings(tmp_path: Path, write_clip: WriteClip) -> list[Recording]:
    """Two stretches of a file, a whole file, and one that is no audio."""
    write_clip(tmp_path / "long.wav", 0, seconds=1.0)
    write_clip(tmp_path / "whole.wav", 1)
    (tmp_path / "broken.wav").write_text("no audio")
    return [
        Recording("a", tmp_path / "long.wav", segment=(0.0, 0.4)),
        Recording("b", tmp_path / "long.wav", segment=(0.5, 0.4)),
        Recording("c", tmp_path / "whole.wav"),
        Recording("d", tmp_path / "broken.wav"),
    ]


@pytest.fixture
def task(tmp_path: Path, write_clip: WriteClip) -> Path:
    """The folder of an own task "mine" of twelve clips in two classes."""
    for seed in range(12):
        write_clip(tmp_path / "mine" / "ab"[seed % 2] / f"{seed}.wav", seed)
    new_task("mine", tmp_path / "mine", {}).write()
    return tmp_path / "mine"


def prepared(skip_bad: bool = False) -> Manifest:
    prepare(load_card("mine"), None, Progress(quiet=True), skip_bad)
    return load_manifest(load_card("mine"))


def stores(cache: Path) -> list[str]:
    return sorted(folder.name for folder in (cache / "store").iterdir())


def refuse(facts: list[ClipFacts]) -> None:
    raise UserError("refused")


def test_what_has_not_changed_is_not_decoded_again(
    recordings: list[Recording], decoded: list[str], cache: Path
) -> None:
    key, facts = build_store(recordings, 8000, name="task")
    assert len(decoded) == 4
    samples = cache / "store" / stores(cache)[0] / "samples.i16"
    written = samples.stat()
    decoded.clear()
    assert build_store(recordings, 8000, name="task") == (key, facts)
    assert decoded == []
    assert (samples.stat().st_ino, samples.stat().st_mtime) == (written.st_ino, written.st_mtime)


def test_what_was_refused_is_not_decoded_again(
    recordings: list[Recording], decoded: list[str], cache: Path
) -> None:
    with pytest.raises(UserError, match="refused"):
        build_store(recordings, 8000, accept=refuse, name="task")
    decoded.clear()
    with pytest.raises(UserError, match="refused"):
        build_store(recordings, 8000, accept=refuse, name="task")
    key, _ = build_store(recordings, 8000, name="task")
    assert decoded == []
    assert find_store_damage(key, 8000) == ""


def test_a_file_that_changed_is_decoded_and_the_others_are_copied(
    recordings: list[Recording], decoded: list[str], write_clip: WriteClip, tmp_path: Path
) -> None:
    build_store(recordings, 8000, name="task")
    before = (tmp_path / "whole.wav").stat()
    write_clip(tmp_path / "whole.wav", 2)
    os.utime(tmp_path / "whole.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    decoded.clear()
    key, facts = build_store(recordings, 8000, name="task")
    assert decoded == ["whole.wav"]
    assert (key, facts) == build_store(recordings, 8000), "as if all were decoded"
    assert find_store_damage(key, 8000, in_full=True) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "samples.i16").write_bytes(b"damaged"),
        shutil.rmtree,
        lambda folder: (folder / "files.parquet").unlink(),
    ],
    ids=["damaged", "lost", "no list"],
)
def test_from_a_damaged_store_nothing_is_taken(
    change: Callable[[Path], object],
    recordings: list[Recording],
    decoded: list[str],
    cache: Path,
) -> None:
    key, facts = build_store(recordings, 8000, name="task")
    change(cache / "store" / stores(cache)[0])
    decoded.clear()
    assert build_store(recordings, 8000, name="task") == (key, facts)
    assert len(decoded) == 4
    assert find_store_damage(key, 8000, in_full=True) == ""


def test_other_decoders_decode_again(
    recordings: list[Recording], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_store(recordings, 8000, name="task")
    decoded.clear()
    monkeypatch.setattr(decoded_before, "DECODERS", ("lape_bench", "pandas"))
    build_store(recordings, 8000, name="task")
    assert len(decoded) == 4


def test_another_rate_is_decoded(recordings: list[Recording], decoded: list[str]) -> None:
    build_store(recordings, 8000, name="task")
    decoded.clear()
    key, _ = build_store(recordings, 16_000, name="task")
    assert (len(decoded), find_store_damage(key, 16_000)) == (4, "")


def test_a_file_that_could_not_be_reached_is_tried_again(
    recordings: list[Recording], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(audio, "_refuse_special_file", fail)
        _, facts = build_store(recordings, 8000, name="task")
    assert all("Input/output" in fact.problem for fact in facts)
    assert not build_store(recordings, 8000, name="task")[1][2].problem


def test_a_refused_store_gives_way_once_its_files_are_mended(
    recordings: list[Recording], write_clip: WriteClip, tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(UserError, match="refused"):
        build_store(recordings, 8000, accept=refuse, name="task")
    refused = stores(cache)
    write_clip(tmp_path / "broken.wav", 3)
    build_store(recordings, 8000, name="task")
    assert len(stores(cache)) == 1
    assert stores(cache) != refused
    kept = stores(cache)
    write_clip(tmp_path / "broken.wav", 4)
    build_store(recordings, 8000, name="task")
    assert set(kept) < set(stores(cache)), "one that was accepted stays, as a manifest may name it"


def test_preparing_with_skip_bad_decodes_nothing_anew(task: Path, decoded: list[str]) -> None:
    (task / "a" / "0.wav").write_text("no audio")
    soundfile.write(task / "b" / "silent.wav", [0.0] * 4000, 8000)
    with pytest.raises(UserError, match="2 of 13 clips"):
        prepared()
    decoded.clear()
    manifest = prepared(skip_bad=True)
    assert (len(manifest), decoded) == (11, [])
    assert manifest.open_clips(16_000).ids == tuple(manifest.clips["clip_id"])
