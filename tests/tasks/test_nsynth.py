import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core.progress import Progress
from lape_bench.data.prepare import prepare
from tests.tasks.layouts import (
    facts,
    left_out,
    listed,
    pack,
    place,
    refusal,
    spoil,
    without_checksums,
    wrapped,
)

WriteClip = Callable[..., Path]
NOTES = {
    "train": [
        "bass_synthetic_033-022-050",
        "bass_synthetic_033-023-050",
        "guitar_acoustic_010-066-100",
        "synth_lead_synthetic_003-061-127",
    ],
    "valid": ["bass_synthetic_068-049-025", "keyboard_electronic_003-064-075"],
    "test": ["bass_synthetic_068-090-100", "keyboard_electronic_003-018-127"],
}
SIDES = {"train": "train", "valid": "val", "test": "test"}
STRAY = (
    "examples.json.part",
    "audio/._bass_synthetic_033-022-050.wav",
    "audio/bass_synthetic_068-050-025.wav",  # not among the examples
    "audio/.DS_Store",
)


def parts(note: str) -> tuple[str, str]:
    """Family and instrument of a note."""
    instrument = note.split("-")[0]
    return instrument.rsplit("_", 2)[0], instrument


def place_side(root: Path, side: str) -> Path:
    folder = root / f"nsynth-{side}"
    place(folder, *(f"audio/{note}.wav" for note in NOTES[side]), *STRAY)
    examples = {}
    for note in NOTES[side]:
        family, instrument = parts(note)
        _, pitch, velocity = note.split("-")
        examples[note] = {
            "note_str": note,
            "instrument_str": instrument,
            "instrument_family_str": family,
            "instrument_family": 0,
            "pitch": int(pitch),
            "velocity": int(velocity),
            "sample_rate": 16_000,
            "qualities": [0] * 10,
            "qualities_str": ["dark"],
        }
    (folder / "examples.json").write_text(json.dumps(examples, indent=2))
    return folder


def place_all(root: Path) -> Path:
    for side in NOTES:
        place_side(root, side)
    return root


def fill(root: Path, write_clip: WriteClip) -> Path:
    notes = [f"nsynth-{side}/audio/{note}.wav" for side in NOTES for note in NOTES[side]]
    for seed, name in enumerate(notes):
        write_clip(root / name, seed)
    return root


def expected() -> dict[str, tuple[str, str, None, str]]:
    return {
        note: (parts(note)[0], SIDES[side], None, parts(note)[1])
        for side, notes in NOTES.items()
        for note in notes
    }


@wrapped
def test_families_stand_on_the_official_sides_by_instrument(above: str, tmp_path: Path) -> None:
    place_all(tmp_path / "given" / above)
    assert facts(listed(tmp_path / "given", "nsynth")) == expected()


def test_the_variant_leaves_out_the_family_that_is_not_tested(tmp_path: Path) -> None:
    place_all(tmp_path)
    ten = {note: fact for note, fact in expected().items() if fact[0] != "synth_lead"}
    assert facts(listed(tmp_path, "nsynth@ten-families")) == ten
    assert len(ten) == len(expected()) - 1


def test_a_family_that_the_card_does_not_have_is_told(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = fill(place_all(tmp_path / "given"), write_clip)
    path = root / "nsynth-test" / "examples.json"
    path.write_text(path.read_text().replace('"keyboard"', '"keyboards"'))
    wrong = root / "nsynth-test" / "audio" / f"{NOTES['test'][1]}.wav"
    found = left_out("nsynth", root, {wrong: "label 'keyboards' is not a class"}, progress)
    assert set(found) == {NOTES["test"][1]}


def test_the_three_archives_are_prepared_together(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    fill(place_all(tmp_path / "in"), write_clip)
    archives = []
    for side in NOTES:
        (tmp_path / side).mkdir()
        (tmp_path / "in" / f"nsynth-{side}").rename(tmp_path / side / f"nsynth-{side}")
        archives.append(pack(tmp_path / side, tmp_path / f"nsynth-{side}.jsonwav.tar.gz"))
    base, ten = prepare(without_checksums("nsynth"), archives, progress)
    found = dict(zip(base.clips["clip_id"], base.clips["split"], strict=True))
    assert found == {note: side for note, (_, side, _, _) in expected().items()}
    assert len(ten) == len(base) - 1


def test_spoiled_and_absent_notes_are_named_and_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = fill(place_all(tmp_path / "given"), write_clip)
    bad = {side: notes[0] for side, notes in NOTES.items()}
    spoiled = spoil(*(root / f"nsynth-{side}/audio/{note}.wav" for side, note in bad.items()))
    assert set(left_out("nsynth", root, spoiled, progress)) == set(bad.values())


@pytest.mark.parametrize("side", NOTES)
def test_a_missing_side_is_refused(side: str, tmp_path: Path) -> None:
    (place_all(tmp_path) / f"nsynth-{side}" / "examples.json").unlink()
    assert f"no nsynth-{side}/examples.json in it" in refusal(tmp_path, "nsynth")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html></html>",
        b'{"bass_synthetic_033-022-050": {"pitch": 22',
        b'{"bass_synthetic_033-022-050": {"pitch": 22}}',
        b'["bass_synthetic_033-022-050"]',
        b'{"bass_synthetic_033-022-050": null}',
        b"\xff\xfe\x00",
    ],
)
def test_examples_of_another_form_are_refused(text: bytes, tmp_path: Path) -> None:
    path = place_all(tmp_path) / "nsynth-valid" / "examples.json"
    path.write_bytes(text)
    assert f"{path} is not the list of notes" in refusal(tmp_path, "nsynth")
