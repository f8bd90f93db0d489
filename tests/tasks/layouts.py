"""Miniatures of data sets' layouts: placed, read, packed, spoiled."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card, load_reader
from lape_bench.data.drawn_split import draw_split
from lape_bench.data.prepare import prepare
from lape_bench.task import ClipEntry, SplitName, TaskCard

STRAY = ("README.md", "NOTICE.txt", ".DS_Store", "images/overview.png")
NO_AUDIO = b"ID3\x03\x00\x00\x00\x00\x0f\x76" + bytes(
    2000
)  # the tag of an MP3, and nothing after it

wrapped = pytest.mark.parametrize(
    "above", ["", "archive", "disk/archive"], ids=["bare", "one folder above", "two folders above"]
)


def place(root: Path, *names: str) -> Path:
    """Create empty files; a reader goes by names alone."""
    for name in (*names, *STRAY):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def listed(root: Path, task: str) -> dict[str, ClipEntry]:
    card = load_card(task)
    clips = load_reader(card).read(root, card)
    assert len({clip.clip_id for clip in clips}) == len(clips)
    assert all(clip.path.is_file() and clip.path.is_relative_to(root) for clip in clips)
    return {clip.clip_id: clip for clip in clips}


def facts(
    clips: dict[str, ClipEntry],
) -> dict[str, tuple[str, SplitName | None, int | None, str | None]]:
    """Label, side, fold and group of each clip."""
    return {name: (clip.label, clip.split, clip.fold, clip.group) for name, clip in clips.items()}


def drawn(clips: Iterable[ClipEntry], task: str) -> dict[str, SplitName | None]:
    return {clip.clip_id: clip.split for clip in draw_split(list(clips), load_card(task))}


def refusal(root: Path, task: str) -> str:
    with pytest.raises(UserError) as caught:
        listed(root, task)
    said = str(caught.value)
    assert "\n" not in said
    assert str(root) in said
    return said


def without_checksums(task: str) -> TaskCard:
    """The card as it would be if it did not know its archives, so that small ones may bear their names."""
    card = load_card(task)
    unknown = {"bytes": None, "sha256": None, "md5": None}
    sources = tuple(source.model_copy(update=unknown) for source in card.sources)
    return card.model_copy(update={"sources": sources})


def pack(folder: Path, archive: Path) -> Path:
    """Pack what is in a folder as .zip, .tar.gz or .tgz."""
    kind = "zip" if archive.suffix == ".zip" else "gztar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    made = shutil.make_archive(str(archive.with_name("packed")), kind, folder)
    return Path(made).rename(archive)


def spoil(no_wav: Path, cut: Path, absent: Path | None = None) -> dict[Path, str]:
    """Spoil recordings in ways that releases come with; return what is to be said of each."""
    no_wav.write_bytes(NO_AUDIO)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    reasons = {no_wav: "not readable as audio", cut: "truncated"}
    if absent is not None:
        absent.unlink()
        reasons[absent] = "cannot be read (No such file or directory)"
    return reasons


def left_out(
    task: str, given: Path | Sequence[Path], spoiled: dict[Path, str], progress: Progress
) -> dict[str, str]:
    """Prepare, be told of the spoiled files, and go on without them; return the ids left out, and why."""
    card = without_checksums(task)
    # Absent recordings are named before any other is decoded.
    named = {path: "" for path in spoiled if not path.exists()} or spoiled
    with pytest.raises(UserError) as caught:
        prepare(card, given, progress)
    message = str(caught.value)
    assert message.startswith(f"{len(named)} of ")
    for path, reason in named.items():
        assert (f"{path}: {reason}" if reason else str(path)) in message
    manifest = prepare(card, given, progress, skip_bad=True)[0]
    reasons = {clip.clip_id: clip.reason for clip in manifest.info.skipped}
    for reason in spoiled.values():
        assert any(reason in skipped for skipped in reasons.values())
    return reasons
