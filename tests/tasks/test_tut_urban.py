import codecs
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import open_store
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
    write_lines,
)

WriteClip = Callable[..., Path]
NAME = "TUT-urban-acoustic-scenes-2018-development"
# Segment: scene, identifier (city and place), side.
SEGMENTS = {
    "airport-barcelona-0-0-a": ("airport", "barcelona-0", "train"),
    "airport-barcelona-0-1-a": ("airport", "barcelona-0", "train"),
    "metro_station-london-62-1890-a": ("metro_station", "london-62", "train"),
    "park-stockholm-102-3088-a": ("park", "stockholm-102", "test"),
    "street_pedestrian-vienna-167-5014-a": ("street_pedestrian", "vienna-167", "test"),
    "tram-paris-190-5700-a": ("tram", "paris-190", "test"),
}
STRAY = (
    "audio/._airport-barcelona-0-0-a.wav",
    "audio/airport-barcelona-0-2-a.wav",  # on no list of the fold
    "audio/.DS_Store",
    "evaluation_setup/._fold1_train.txt",
    "LICENSE",
)


def place_meta(root: Path, line_end: str = "\n") -> Path:
    head = "filename\tscene_label\tidentifier\tsource_label"
    rows = [f"audio/{n}.wav\t{scene}\t{where}\ta" for n, (scene, where, _) in SEGMENTS.items()]
    more = "audio/airport-barcelona-0-2-a.wav\tairport\tbarcelona-0\ta"
    files = {"meta.csv": [head, *rows, more]}
    for name, side in {"fold1_train.txt": "train", "fold1_evaluate.txt": "test"}.items():
        files[f"evaluation_setup/{name}"] = [
            f"audio/{n}.wav\t{scene}" for n, (scene, _, own) in SEGMENTS.items() if own == side
        ] + [""]
    files["evaluation_setup/fold1_test.txt"] = [
        line.split("\t")[0] for line in files["evaluation_setup/fold1_evaluate.txt"]
    ]
    for name, lines in files.items():
        path = write_lines(root / name, *lines)
        path.write_bytes(path.read_bytes().replace(b"\n", line_end.encode()))
    return root


def place_audio(root: Path, segments: list[str]) -> Path:
    (root / "audio").mkdir(parents=True, exist_ok=True)
    return place(root, *(f"audio/{name}.wav" for name in segments), *STRAY)


def write_binaural(path: Path, seed: int) -> None:
    """0.3 s as the recorder has it: 48 kHz, 24 bit, two channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, (14_400, 2))
    soundfile.write(path, noise, 48_000, subtype="PCM_24")


def expected() -> dict[str, tuple[str, str, None, str]]:
    return {name: (scene, side, None, where) for name, (scene, where, side) in SEGMENTS.items()}


@wrapped
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["unix", "dos"])
def test_scenes_stand_on_the_sides_of_the_first_fold_by_place(
    above: str, line_end: str, tmp_path: Path
) -> None:
    root = tmp_path / "given" / above
    place_audio(place_meta(root, line_end), list(SEGMENTS))
    assert facts(listed(tmp_path / "given", "tut-urban-2018")) == expected()


def test_the_audio_may_lie_in_several_folders(tmp_path: Path) -> None:
    place_meta(tmp_path / f"{NAME}.meta" / NAME)
    for number, name in enumerate(SEGMENTS, 1):
        place_audio(tmp_path / f"{NAME}.audio.{number}" / NAME, [name])
    (tmp_path / f"{NAME}.audio.13" / NAME / "audio").mkdir(parents=True)
    assert facts(listed(tmp_path, "tut-urban-2018")) == expected()


@pytest.mark.parametrize("one_folder", [True, False])
def test_binaural_segments_in_several_archives_are_prepared_as_the_mean_of_their_channels(
    one_folder: bool, tmp_path: Path, progress: Progress
) -> None:
    downloads = tmp_path / "downloads"
    place_meta(tmp_path / "meta" / NAME)
    pack(tmp_path / "meta", downloads / f"{NAME}.meta.zip")
    written = {}
    for seed, name in enumerate(SEGMENTS):
        written[name] = tmp_path / f"{seed % 3}" / NAME / "audio" / f"{name}.wav"
        write_binaural(written[name], seed)
    for number in range(3):
        pack(tmp_path / f"{number}", downloads / f"{NAME}.audio.{number + 1}.zip")
    given = [downloads] if one_folder else sorted(downloads.iterdir())
    [manifest] = prepare(without_checksums("tut-urban-2018"), given, progress)
    assert dict(zip(manifest.clips["clip_id"], manifest.clips["split"], strict=True)) == {
        name: side for name, (_, _, side) in SEGMENTS.items()
    }
    assert set(manifest.clips["rate"]) == {48_000}
    clips = open_store(manifest.info.store_key, 48_000, manifest.recordings)
    for index, name in enumerate(clips.ids):
        channels, _ = soundfile.read(written[name])
        assert np.abs(clips[index] - channels.mean(axis=1)).max() < 1e-6


def test_spoiled_and_absent_segments_are_named_and_can_be_left_out(
    tmp_path: Path, progress: Progress
) -> None:
    root = place_meta(tmp_path / "given")
    for seed, name in enumerate(SEGMENTS):
        write_binaural(root / "audio" / f"{name}.wav", seed)
    bad = list(SEGMENTS)[1:4]
    spoiled = spoil(*(root / "audio" / f"{name}.wav" for name in bad))
    assert set(left_out("tut-urban-2018", root, spoiled, progress)) == set(bad)


def test_an_archive_that_is_not_there_is_told_by_its_segments(
    tmp_path: Path, progress: Progress
) -> None:
    place_meta(tmp_path / "given" / "meta")
    for seed, name in enumerate(list(SEGMENTS)[:4]):
        write_binaural(tmp_path / "given" / "audio.1" / "audio" / f"{name}.wav", seed)
    with pytest.raises(UserError, match=r"^2 of 6 .* are missing: .*tram-paris-190-5700-a\.wav"):
        prepare(without_checksums("tut-urban-2018"), tmp_path / "given", progress)


@pytest.mark.parametrize(
    "missing",
    ["meta.csv", "evaluation_setup/fold1_train.txt", "evaluation_setup/fold1_evaluate.txt"],
)
def test_a_missing_list_is_refused(missing: str, tmp_path: Path) -> None:
    (place_audio(place_meta(tmp_path), list(SEGMENTS)) / missing).unlink()
    assert f"no {missing} in it" in refusal(tmp_path, "tut-urban-2018")


@pytest.mark.parametrize("name", ["meta.csv", "evaluation_setup/fold1_train.txt"])
def test_a_byte_order_mark_does_no_harm(name: str, tmp_path: Path) -> None:
    path = place_audio(place_meta(tmp_path), list(SEGMENTS)) / name
    before = facts(listed(tmp_path, "tut-urban-2018"))
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert facts(listed(tmp_path, "tut-urban-2018")) == before


@pytest.mark.parametrize(
    "text",
    [
        b"<html></html>\n<body>\n",
        b"filename,scene_label,identifier,source_label\naudio/a.wav,tram,paris-1,a\n",
        b"audio/airport-barcelona-0-0-a.wav\tairport\tbarcelona-0\ta\n" * 2,
        b"filename\tscene_label\tidentifier\naudio/a.wav\ttram\n",
        b"filename\tscene_label\tidentifier\naudio/\xff.wav\ttram\tparis-1\n",
    ],
    ids=["a web page", "commas", "no header", "cut off", "no text"],
)
def test_meta_data_of_another_form_are_refused(text: bytes, tmp_path: Path) -> None:
    path = place_audio(place_meta(tmp_path), list(SEGMENTS)) / "meta.csv"
    path.write_bytes(text)
    said = refusal(tmp_path, "tut-urban-2018")
    assert f"{path} is not the list of segments" in said
    assert "parted by tabs" in said


@pytest.mark.parametrize("line", [b"<html>", b"audio/park-oslo-1-1-a.wav\tpark", b"\xff\xfe\x00"])
def test_a_list_that_names_what_the_meta_data_do_not_is_refused(
    line: bytes, tmp_path: Path
) -> None:
    root = place_audio(place_meta(tmp_path), list(SEGMENTS))
    path = root / "evaluation_setup" / "fold1_train.txt"
    path.write_bytes(path.read_bytes() + b"\n" + line + b"\n")
    assert f"{path} lists '" in refusal(tmp_path, "tut-urban-2018")


def test_a_segment_on_both_lists_is_refused(tmp_path: Path, progress: Progress) -> None:
    place_audio(place_meta(tmp_path), list(SEGMENTS))
    line = "audio/park-stockholm-102-3088-a.wav\tpark"
    write_lines(tmp_path / "evaluation_setup" / "fold1_train.txt", line)
    with pytest.raises(UserError, match="same clip ID 'park-stockholm-102-3088-a'"):
        prepare(without_checksums("tut-urban-2018"), tmp_path, progress)
