import json
import os
import shutil
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.core.paths import manifest_path
from lape_bench.core.progress import Progress
from lape_bench.data import audio
from lape_bench.data.audio_store import STORE_RATE, find_store_damage, open_store
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import COLUMNS, INFO, Manifest, load_manifest
from lape_bench.data.new_task import new_task
from lape_bench.data.prepare import prepare
from lape_bench.data.sources.archives import downloads
from lape_bench.task import ClipEntry, Expected, SplitRule, TaskCard
from lape_bench.tasks.fsdd import FreeSpokenDigits

WriteClip = Callable[..., Path]
DRAWN = SplitRule(rule="drawn", shares={"train": 0.5, "test": 0.5}, origin="ours")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
DIGITS, ESC10, KEYWORDS = load_card("fsdd-digits"), load_card("esc10"), load_card("asc-keywords")


@pytest.fixture
def digits(tmp_path: Path, write_clip: WriteClip) -> Path:
    """Two digits by six speakers, one clip for test and one for train of the official split."""
    folder = tmp_path / "fsdd" / "recordings"
    names = [f"{digit}_{who}_{take}" for digit in (0, 1) for who in SPEAKERS for take in (0, 5)]
    for seed, name in enumerate(names):
        write_clip(folder / f"{name}.wav", seed)
    return folder.parent


def write_keywords(root: Path, write_clip: WriteClip, ending: str = "wav") -> Path:
    """One keyword by three speakers, each on a side of its own."""
    for seed, (side, speaker) in enumerate([("train", 1), ("val", 2), ("test", 3)]):
        name = f"dataset/yes/{speaker:08d}_NO_01"
        write_clip(root / f"{name}.wav", seed)
        (root / f"{side}.csv").write_text(f"file,class\n{name}.{ending},yes\n")
    return root


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def ids_of(manifest: Manifest) -> list[str]:
    return manifest.clips["clip_id"].tolist()


def reasons(manifest: Manifest) -> dict[str, str]:
    return {skipped.clip_id: skipped.reason for skipped in manifest.info.skipped}


def test_the_manifest_says_of_each_clip_what_its_name_and_file_say(
    digits: Path, progress: Progress
) -> None:
    base, *_ = prepare(DIGITS, digits, progress)
    assert list(base.clips.columns) == COLUMNS
    assert ids_of(base) == sorted(path.stem for path in (digits / "recordings").iterdir())
    pairs = {who: 1 + index // 2 for index, who in enumerate(SPEAKERS)}
    for row in base.clips.itertuples():
        digit, speaker, _ = row.clip_id.split("_")
        assert (row.label, row.group, row.fold, row.split) == (digit, speaker, pairs[speaker], None)
        assert row.path == f"recordings/{row.clip_id}.wav"
        assert (row.seconds, row.rate) == (0.3, 8000)
    assert base.clips["content"].nunique() == 24


def test_groups_and_folds_of_clips_are_those_of_the_manifest(
    digits: Path, progress: Progress
) -> None:
    manifest, *_ = prepare(DIGITS, digits, progress)
    rows = np.array([len(manifest) - 1, 0])
    groups, folds = manifest.groups_and_folds(rows)
    assert groups == [manifest.clips["group"].iloc[row] for row in rows]
    assert folds == [manifest.clips["fold"].iloc[row] for row in rows]
    assert None not in [*groups, *folds]
    table = manifest.clips.assign(group=None, fold=0)
    without = Manifest(manifest.info, table)
    assert without.groups_and_folds(rows) == ([None, None], [None, None])


def test_all_variants_are_prepared_together_over_one_store(
    digits: Path, progress: Progress, cache: Path
) -> None:
    base, _, official = prepare(DIGITS, digits, progress)
    assert (base.reference, official.reference) == ("fsdd-digits", "fsdd-digits@official")
    assert official.clips["split"].value_counts().to_dict() == {"test": 12, "train": 12}
    assert set(official.clips["fold"]) == {0}
    assert base.info.store_key == official.info.store_key
    assert base.hash != official.hash
    assert len(list((cache / "store").iterdir())) == 1
    for each in (base, official):
        assert load_manifest(load_card(each.reference)).hash == each.hash


def test_a_prepared_task_gives_back_its_audio(digits: Path, progress: Progress) -> None:
    base, *_ = prepare(DIGITS, digits, progress)
    clips = open_store(base.info.store_key, 8000, base.recordings)
    for index, recording in enumerate(base.recordings()):
        assert clips.ids[index] == recording.clip_id
        assert clips[index].tolist() == soundfile.read(recording.path, dtype="float32")[0].tolist()


def test_an_archive_gives_the_manifest_of_its_folder(
    digits: Path, progress: Progress, tmp_path: Path, cache: Path
) -> None:
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(digits.rglob("*.wav")):
            opened.write(path, f"free-spoken-digit-dataset-main/{path.relative_to(digits)}")
    from_folder, from_archive = (prepare(DIGITS, each, progress)[0] for each in (digits, archive))
    assert from_archive.hash == from_folder.hash
    assert "mine.zip sha256:" in from_archive.info.source
    assert from_archive.root.is_relative_to(cache)


def test_a_relative_folder_is_found_from_anywhere_later(
    digits: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digits.parent)
    prepare(DIGITS, Path("fsdd"), progress)
    monkeypatch.chdir("/")
    assert all(recording.path.is_file() for recording in load_manifest(DIGITS).recordings())


def test_what_was_fetched_is_prepared_without_naming_it(digits: Path, progress: Progress) -> None:
    place = downloads(DIGITS)[0].path
    place.parent.mkdir(parents=True)
    with zipfile.ZipFile(place, "w") as opened:
        for path in digits.rglob("*.wav"):
            opened.write(path, path.relative_to(digits))
    assert len(prepare(DIGITS, None, progress)[0]) == 24


def test_wav_and_flac_copies_of_the_same_recordings_have_one_manifest_hash(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    wav = write_keywords(tmp_path / "wav", write_clip)
    flac = write_keywords(tmp_path / "flac", write_clip)
    for path in flac.rglob("*.wav"):
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(path.with_suffix(".flac"), samples, rate)
        path.unlink()
    [of_wav], [of_flac] = (prepare(KEYWORDS, each, progress) for each in (wav, flac))
    assert of_wav.hash == of_flac.hash
    assert of_wav.clips["path"].tolist() != of_flac.clips["path"].tolist()


@pytest.mark.parametrize("change", ["audio", "side", "name", "one more"])
def test_whatever_can_move_a_score_changes_the_manifest_hash(
    change: str, tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = write_keywords(tmp_path / "asc", write_clip)
    [before] = prepare(KEYWORDS, root, progress)
    clip, listed = root / "dataset/yes/00000001_NO_01.wav", root / "train.csv"
    if change == "audio":
        write_clip(clip, seed=9)
    elif change == "side":
        listed.write_text((root / "val.csv").read_text())
        (root / "val.csv").write_text("file,class\ndataset/yes/00000001_NO_01.wav,yes\n")
    elif change == "name":
        clip.rename(clip.with_name("00000004_NO_01.wav"))
        listed.write_text(listed.read_text().replace("00000001", "00000004"))
    else:
        write_clip(clip.with_name("00000001_NO_03.wav"), seed=9)
        listed.write_text(listed.read_text() + "dataset/yes/00000001_NO_03.wav,yes\n")
    [after] = prepare(KEYWORDS, root, progress)
    assert after.hash != before.hash


def test_a_label_that_the_card_does_not_know_is_named_with_the_nearest(
    tmp_path: Path, write_clip: WriteClip, progress: Progress, cache: Path
) -> None:
    write_clip(tmp_path / "esc" / "002 - Rain" / "1-1-A.ogg")
    wrong = write_clip(tmp_path / "esc" / "001 - Dog barks" / "1-2-A.ogg", seed=1)
    with pytest.raises(UserError) as caught:
        prepare(ESC10, tmp_path / "esc", progress)
    said = one_line(caught)
    assert str(wrong) in said
    assert "'Dog barks'" in said
    assert "did you mean 'Dog bark'?" in said
    assert "Fire crackling" in said, "the classes are listed"
    assert not files_below(cache / "manifests")


def test_recordings_that_are_not_there_are_named_before_any_is_decoded(
    tmp_path: Path, write_clip: WriteClip, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["path,label"]
    for number in range(40):
        lines.append(f"{number}.wav,{'ab'[number % 2]}")
        if number < 20:
            write_clip(tmp_path / f"{number}.wav", number)
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    new_task("own", tmp_path / "clips.csv", {}).write()
    with monkeypatch.context() as patch:
        patch.setattr(audio, "decode", lambda *arguments: pytest.fail("decoded"))
        with pytest.raises(UserError) as caught:
            prepare(load_card("own"), None, progress)
    message = one_line(caught)
    assert "20 of 40 clips of own cannot be used" in message
    assert "and 10 more" in message
    [manifest] = prepare(load_card("own"), None, progress, skip_bad=True)
    assert (len(manifest), len(manifest.info.skipped)) == (20, 20)


def test_mislabeled_clips_are_all_named_and_can_be_left_out(
    digits: Path, write_clip: WriteClip, progress: Progress
) -> None:
    """A mislabeled clip is one bad clip among others: design.md, section 9."""
    for seed, name in enumerate(["ten_theo_0", "zero_lucas_1"]):
        write_clip(digits / "recordings" / f"{name}.wav", 100 + seed)
    with pytest.raises(UserError) as caught:
        prepare(DIGITS, digits, progress)
    said = one_line(caught)
    assert "ten_theo_0.wav" in said
    assert "zero_lucas_1.wav" in said
    base, *_ = prepare(DIGITS, digits, progress, skip_bad=True)
    assert len(base) == 24
    assert set(reasons(base)) == {"ten_theo_0", "zero_lucas_1"}


@pytest.fixture
def spoilt(digits: Path, write_clip: WriteClip) -> Path:
    """Of 24 clips, an empty, a truncated and a too short one."""
    folder = digits / "recordings"
    (folder / "0_george_0.wav").write_bytes(b"")
    whole = (folder / "0_lucas_5.wav").read_bytes()
    (folder / "0_lucas_5.wav").write_bytes(whole[:1000])
    write_clip(folder / "1_theo_0.wav", seconds=0.05)
    return digits


def test_bad_clips_are_counted_and_listed_by_name_and_no_manifest_is_kept(
    spoilt: Path, progress: Progress, cache: Path
) -> None:
    with pytest.raises(UserError, match="3 of 24 clips of fsdd-digits cannot be used") as caught:
        prepare(DIGITS, spoilt, progress)
    said = one_line(caught)
    assert "0_george_0.wav: empty" in said
    assert "0_lucas_5.wav: truncated" in said
    assert "1_theo_0.wav: too short" in said
    assert "0_george_5.wav" not in said
    assert "--skip-bad" in said
    assert not files_below(cache / "manifests")


def test_of_very_many_bad_clips_the_first_are_named_and_all_are_counted(
    digits: Path, progress: Progress
) -> None:
    paths = sorted((digits / "recordings").iterdir())[:13]
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="13 of 24") as caught:
        prepare(DIGITS, digits, progress)
    said = one_line(caught)
    named = [path for path in paths if str(path) in said]
    assert named == paths[:10]
    assert "and 3 more" in said


def test_skipped_clips_are_left_out_of_every_variant_and_remembered(
    spoilt: Path, progress: Progress
) -> None:
    prepare(DIGITS, spoilt, progress, skip_bad=True)
    for reference in ("fsdd-digits", "fsdd-digits@official"):
        manifest = load_manifest(load_card(reference))
        assert len(manifest) == 21
        assert list(reasons(manifest)) == ["0_george_0", "0_lucas_5", "1_theo_0"]
        assert "truncated" in reasons(manifest)["0_lucas_5"]
        assert not set(reasons(manifest)) & set(ids_of(manifest))


def test_a_class_that_skipping_leaves_untested_is_told(
    digits: Path, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (digits / "recordings").glob("1_*_0.wav"):  # of test
        path.write_bytes(b"")
    prepare(DIGITS, digits, progress, skip_bad=True)
    assert [record.getMessage() for record in caplog.records] == [
        "fsdd-digits@official: without the clips that were left out, 1 of 10 classes are not both in train and in test: 1"
    ]


def test_a_data_set_without_a_usable_clip_is_refused_even_when_skipping(
    digits: Path, progress: Progress, cache: Path
) -> None:
    for path in (digits / "recordings").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no usable clip"):
        prepare(DIGITS, digits, progress, skip_bad=True)
    assert not files_below(cache / "manifests")


def test_one_recording_on_two_sides_is_refused_with_both_names(
    digits: Path, progress: Progress
) -> None:
    folder = digits / "recordings"
    copy(folder / "0_george_0.wav", folder / "0_theo_0.wav")
    with pytest.raises(UserError, match="same audio") as caught:
        prepare(DIGITS, digits, progress)
    said = one_line(caught)
    assert "'0_george_0' (fold 1)" in said
    assert "'0_theo_0' (fold 3)" in said
    assert "--skip-bad" in said


def test_refusing_copies_keeps_no_manifest(digits: Path, progress: Progress, cache: Path) -> None:
    folder = digits / "recordings"
    copy(folder / "0_george_0.wav", folder / "0_theo_0.wav")
    with pytest.raises(UserError):
        prepare(DIGITS, digits, progress)
    assert not files_below(cache / "manifests")


@pytest.mark.parametrize(
    ("sides", "kept"),
    [
        (("train", "test"), "test"),
        (("train", "val"), "val"),
        (("val", "test"), "test"),
        (("train", "val", "test"), "test"),
    ],
    ids=" and ".join,
)
def test_of_copies_on_several_sides_the_one_farthest_from_training_stays(
    sides: Sequence[str], kept: str, tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = write_keywords(tmp_path / "asc", write_clip)
    speakers = {"train": "00000001", "val": "00000002", "test": "00000003"}
    paths = {side: root / f"dataset/yes/{who}_NO_01.wav" for side, who in speakers.items()}
    for side in sides:
        write_clip(paths[side], seed=9)
    [manifest] = prepare(KEYWORDS, root, progress, skip_bad=True)
    dropped = {f"yes/{speakers[side]}_NO_01" for side in sides if side != kept}
    assert set(reasons(manifest)) == dropped
    assert set(ids_of(manifest)) == {f"yes/{who}_NO_01" for who in speakers.values()} - dropped
    assert all(f"yes/{speakers[kept]}" in reason for reason in reasons(manifest).values())


def test_copies_on_one_side_stay(digits: Path, progress: Progress) -> None:
    folder = digits / "recordings"
    copy(folder / "0_george_0.wav", folder / "0_george_1.wav")
    base, _, official = prepare(DIGITS, digits, progress)
    assert len(base) == len(official) == 25


def test_a_copy_is_dropped_only_from_the_variant_in_which_it_stands_on_two_sides(
    digits: Path, progress: Progress
) -> None:
    folder = digits / "recordings"
    copy(folder / "0_george_0.wav", folder / "0_george_5.wav")  # official: test and train
    base, _, official = prepare(DIGITS, digits, progress, skip_bad=True)
    assert (len(base), list(reasons(base))) == (24, [])
    assert (len(official), list(reasons(official))) == (23, ["0_george_5"])


@pytest.mark.parametrize("reference", ["fsdd-digits", "fsdd-digits@official"])
def test_a_task_with_dropped_copies_can_still_be_decoded_at_another_rate(
    reference: str, digits: Path, progress: Progress
) -> None:
    """The store holds the clips of all variants, of which each manifest knows a part."""
    folder = digits / "recordings"
    copy(folder / "0_george_0.wav", folder / "0_george_5.wav")
    prepare(DIGITS, digits, progress, skip_bad=True)
    manifest = load_manifest(load_card(reference))
    for rate in (STORE_RATE, 22_050):
        clips = manifest.open_clips(rate)
        assert list(clips.ids) == ids_of(manifest)
        for recording, waveform in zip(manifest.recordings(), clips, strict=True):
            expected = audio.resample(*audio.read(recording.path), rate)
            assert waveform.tolist() == expected.tolist()


def test_a_prepared_task_moves_with_the_cache(
    digits: Path, progress: Progress, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "fsdd.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(digits, "fsdd")
    before = prepare(DIGITS, archive, progress)[0]
    cache.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "elsewhere"))
    after = load_manifest(DIGITS)
    assert after.hash == before.hash
    assert all(recording.path.is_file() for recording in after.recordings())
    assert len(after.open_clips(22_050)) == 24


def test_an_id_that_comes_twice_is_refused_or_left_out(digits: Path, progress: Progress) -> None:
    source = digits / "recordings" / "0_george_0.wav"
    copy(source, source.with_suffix(".WAV"))
    with pytest.raises(UserError, match=r"have the same clip ID '0_george_0'.*--skip-bad"):
        prepare(DIGITS, digits, progress)
    base, *_ = prepare(DIGITS, digits, progress, skip_bad=True)
    assert len(base) == 24
    assert "0_george_0.wav is a second clip with this ID" in reasons(base)["0_george_0"]


def test_a_name_that_is_no_utf_8_is_told_and_left_out(digits: Path, progress: Progress) -> None:
    wrong = Path(os.fsdecode(bytes(digits / "recordings") + b"/1_g\xfcnter_0.wav"))
    wrong.write_bytes((digits / "recordings" / "1_george_0.wav").read_bytes())
    with pytest.raises(UserError, match=r"g.udcfcnter_0\.wav: its name is not UTF-8") as caught:
        prepare(DIGITS, digits, progress)
    str(caught.value).encode("utf-8")
    assert len(prepare(DIGITS, digits, progress, skip_bad=True)[0]) == 24


def test_the_same_name_in_another_unicode_form_is_the_same_id(
    digits: Path, progress: Progress, tmp_path: Path
) -> None:
    """A Mac gives decomposed names, and sides that are drawn by ids must not depend on it."""
    hashes = []
    for form in ("NFC", "NFD"):
        root = tmp_path / form / "fsdd"
        shutil.copytree(digits, root)
        name = unicodedata.normalize(form, "0_jos\u00e9_0.wav")
        (root / "recordings" / "0_george_0.wav").rename(root / "recordings" / name)
        card = DIGITS.model_copy(
            update={"split": DRAWN, "variants": {}, "group": None, "expected": Expected(clips=24)}
        )
        hashes.append(prepare(card, root, progress)[0].hash)
    assert hashes[0] == hashes[1]


def test_a_variant_that_lacks_its_archive_is_told_and_its_old_manifest_goes(
    digits: Path,
    progress: Progress,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(DIGITS, digits, progress)
    read = FreeSpokenDigits.read

    def lacking(self: FreeSpokenDigits, root: Path, card: TaskCard) -> list[ClipEntry]:
        if card.variant == "official":
            raise UserError("the archive of the variant is not here")
        return read(self, root, card)

    monkeypatch.setattr(FreeSpokenDigits, "read", lacking)
    prepared = [manifest.reference for manifest in prepare(DIGITS, digits, progress)]
    assert prepared == ["fsdd-digits", "fsdd-digits@leveled"]
    assert caplog.messages == [
        "left out fsdd-digits@official: the archive of the variant is not here."
    ]
    with pytest.raises(UserError, match="not prepared"):
        load_manifest(load_card("fsdd-digits@official"))


def test_a_card_may_take_shorter_clips(
    digits: Path, progress: Progress, write_clip: WriteClip
) -> None:
    write_clip(digits / "recordings" / "0_george_0.wav", 99, seconds=0.06)
    with pytest.raises(UserError, match=r"too short: 0\.060 s, at least 0\.1 s"):
        prepare(DIGITS, digits, progress)
    card = DIGITS.model_copy(update={"shortest_seconds": 0.05})
    base, *_ = prepare(card, digits, progress)
    assert base.clips["seconds"].min() == pytest.approx(0.06)
    assert len(base.open_clips(22_050)) == 24


def test_variants_with_other_clips_share_what_was_decoded(
    digits: Path, progress: Progress, cache: Path
) -> None:
    copy(digits / "recordings" / "0_george_0.wav", digits / "recordings" / "0_george_5.wav")
    for manifest in prepare(DIGITS, digits, progress, skip_bad=True):
        manifest.open_clips(STORE_RATE)
    assert len(list((cache / "store").iterdir())) == 1


def nothing(folder: Path) -> Path:
    return folder / "gone"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def no_clips(folder: Path) -> Path:
    (folder / "bare" / "recordings").mkdir(parents=True)
    (folder / "bare" / "recordings" / "readme.txt").touch()
    return folder / "bare"


def a_recording(folder: Path) -> Path:
    (folder / "0_george_0.wav").touch()
    return folder / "0_george_0.wav"


def a_file_for_the_folder(folder: Path) -> Path:
    (folder / "odd").mkdir()
    (folder / "odd" / "recordings").touch()
    return folder / "odd"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nothing, "does not exist"),
        (empty, "no recordings/* in it"),
        (no_clips, "holds no clip of fsdd-digits"),
        (a_recording, "neither a folder nor an archive"),
        (a_file_for_the_folder, ""),
    ],
)
def test_a_source_that_holds_no_data_set_is_refused_by_name(
    make: Callable[[Path], Path], reason: str, tmp_path: Path, progress: Progress, cache: Path
) -> None:
    source = make(tmp_path)
    with pytest.raises(UserError) as caught:
        prepare(DIGITS, source, progress)
    said = one_line(caught)
    assert str(source) in said
    assert reason in said
    assert not files_below(cache)


def test_a_task_without_a_source_says_which_archive_it_wants(progress: Progress) -> None:
    with pytest.raises(UserError) as caught:
        prepare(DIGITS, None, progress)
    said = one_line(caught)
    assert "fsdd.zip" in said
    assert "--from" in said
    assert "bench data fetch fsdd-digits" in said


def test_two_files_of_one_clip_id_are_refused_with_both(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = write_keywords(tmp_path / "asc", write_clip)
    twin = write_clip(root / "dataset/yes/00000001_NO_01.flac", seed=9)
    with pytest.raises(UserError, match="same clip ID 'yes/00000001_NO_01'") as caught:
        prepare(KEYWORDS, root, progress)
    said = one_line(caught)
    assert str(twin) in said
    assert str(twin.with_suffix(".wav")) in said


def test_a_clip_without_a_side_is_refused_by_name(
    digits: Path, write_clip: WriteClip, progress: Progress
) -> None:
    stranger = write_clip(digits / "recordings" / "0_somebody_0.wav", seed=99)
    with pytest.raises(UserError, match="the split has no side for it") as caught:
        prepare(DIGITS, digits, progress)
    assert str(stranger) in one_line(caught)


def test_a_manifest_is_read_as_it_was_saved(spoilt: Path, progress: Progress) -> None:
    base, *_ = prepare(DIGITS, spoilt, progress, skip_bad=True)
    again = load_manifest(DIGITS)
    assert again.hash == base.hash == again.info.hash
    assert again.info.model_copy(update={"hash": "", "checksum": ""}) == base.info
    read, saved = (
        each.clips.astype(object).where(each.clips.notna(), None) for each in (again, base)
    )
    assert read.values.tolist() == saved.values.tolist()
    assert again.recordings() == base.recordings()


def test_preparing_twice_gives_the_same_manifest(digits: Path, progress: Progress) -> None:
    assert prepare(DIGITS, digits, progress)[0].hash == prepare(DIGITS, digits, progress)[0].hash


def test_a_task_that_is_not_prepared_says_how_to(cache: Path) -> None:
    with pytest.raises(UserError, match="'esc10' is not prepared") as caught:
        load_manifest(ESC10)
    assert "bench data prepare esc10" in one_line(caught)


def rewrite(path: Path, columns: dict[str, Any] | None = None, **info: object) -> None:
    """Change columns and the information beside them, as somebody with a Parquet tool could."""
    table = pq.read_table(path)
    beside = json.loads(table.schema.metadata[INFO]) | info
    frame = table.to_pandas().assign(**(columns or {}))
    changed = table.from_pandas(frame, preserve_index=False)
    pq.write_table(changed.replace_schema_metadata({INFO: json.dumps(beside)}), path)


def drop_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["content"]), path)


def drop_info(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def drop_clip(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut_off, "is damaged"),
        (Path.touch, "is damaged"),
        (drop_column, "is damaged"),
        (drop_info, "is damaged"),
        (lambda path: rewrite(path, classes="0, 1"), "is damaged"),
        (lambda path: rewrite(path, unheard_of=1), "is damaged"),
        (lambda path: rewrite(path, {"label": "1"}), "its checksum does not match"),
        (lambda path: rewrite(path, {"fold": 1}), "its checksum does not match"),
        (lambda path: rewrite(path, {"group": None}), "its checksum does not match"),
        (lambda path: rewrite(path, card_version=2), "its checksum does not match"),
        (lambda path: rewrite(path, hash="0" * 64), "its checksum does not match"),
        (lambda path: rewrite(path, {"path": "other.wav"}), "its checksum does not match"),
        (lambda path: rewrite(path, {"start_seconds": 0.5}), "its checksum does not match"),
        (lambda path: rewrite(path, {"seconds": 0.25}), "its checksum does not match"),
        (lambda path: rewrite(path, root="elsewhere"), "its checksum does not match"),
        (lambda path: rewrite(path, store_key="0" * 64), "its checksum does not match"),
        (drop_clip, "its checksum does not match"),
    ],
    ids=[
        "cut off", "empty", "no content", "no info", "classes of another type", "unknown info",
        "label", "fold", "group", "card version", "hash", "path",
        "start", "seconds", "root", "store", "a clip less",
    ],
)  # fmt: skip
def test_a_manifest_that_was_damaged_or_edited_is_refused(
    harm: Callable[[Path], object], reason: str, digits: Path, progress: Progress
) -> None:
    prepare(DIGITS, digits, progress)
    path = manifest_path("fsdd-digits")
    if harm is Path.touch:
        path.unlink()
    harm(path)
    with pytest.raises(UserError) as caught:
        load_manifest(DIGITS)
    said = one_line(caught)
    assert str(path) in said
    assert reason in said
    assert "bench data prepare fsdd-digits" in said


def test_a_manifest_rewritten_without_a_change_is_read(digits: Path, progress: Progress) -> None:
    base, *_ = prepare(DIGITS, digits, progress)
    rewrite(manifest_path("fsdd-digits"))
    assert load_manifest(DIGITS).hash == base.hash


def test_the_manifest_of_another_task_is_not_read(digits: Path, progress: Progress) -> None:
    prepare(DIGITS, digits, progress)
    shutil.copy(manifest_path("fsdd-digits"), manifest_path("fsdd-digits@official"))
    with pytest.raises(DamagedFile, match="is that of the task 'fsdd-digits'; run 'bench data"):
        load_manifest(DIGITS.with_variant("official"))


def test_a_task_prepared_for_another_version_of_its_card_is_refused(
    digits: Path, progress: Progress
) -> None:
    prepare(DIGITS, digits, progress)
    newer = DIGITS.model_copy(update={"version": DIGITS.version + 1})
    with pytest.raises(UserError, match="prepared for version 1 of its card") as caught:
        load_manifest(newer)
    assert "now at version 2" in one_line(caught)


def test_the_leveled_variant_differs_in_level_alone(digits: Path, progress: Progress) -> None:
    base, leveled, _ = prepare(DIGITS, digits, progress)
    assert leveled.reference == "fsdd-digits@leveled"
    assert leveled.clips.equals(base.clips)
    assert leveled.hash != base.hash
    plain, scaled = (manifest.open_clips(16_000) for manifest in (base, leveled))
    assert plain.key != scaled.key, "what is computed from one is not taken for the other"
    for index in range(len(plain)):
        rms = np.sqrt(np.mean(scaled[index].astype(np.float64) ** 2))
        assert 20 * np.log10(rms) == pytest.approx(-26, abs=1e-4)
        gain = np.abs(scaled[index]).max() / np.abs(plain[index]).max()
        np.testing.assert_allclose(scaled[index], gain * plain[index], atol=1e-6)


def test_a_task_prepared_at_another_level_is_refused(digits: Path, progress: Progress) -> None:
    prepare(DIGITS, digits, progress)
    moved = DIGITS.with_variant("leveled").model_copy(update={"level_dbfs": -20.0})
    with pytest.raises(UserError, match="another level_dbfs than its card has now") as caught:
        load_manifest(moved)
    assert "bench data prepare fsdd-digits" in one_line(caught)


def test_a_task_prepared_for_other_classes_is_refused_for_its_classes(
    digits: Path, progress: Progress
) -> None:
    prepare(DIGITS, digits, progress)
    other = DIGITS.model_copy(update={"classes": ("0", "1")})
    with pytest.raises(UserError) as caught:
        load_manifest(other)
    assert "classes" in one_line(caught)


def test_the_synthetic_task_needs_no_source_and_is_generated_once(
    progress: Progress, cache: Path
) -> None:
    card = load_card("synthetic-sounds")
    [first] = prepare(card, None, progress)
    generated = {path: path.stat().st_mtime_ns for path in files_below(cache / "data")}
    [second] = prepare(card, None, progress)
    assert {path: path.stat().st_mtime_ns for path in files_below(cache / "data")} == generated
    assert first.hash == second.hash
    assert (first.info.data, len(first)) == ("synthetic", 320)


def test_a_damaged_store_of_several_variants_costs_each_of_them_a_decoding_and_no_error(
    digits: Path, progress: Progress, cache: Path
) -> None:
    (digits / "recordings" / "0_george_5.wav").write_bytes(
        (digits / "recordings" / "0_george_0.wav").read_bytes()
    )
    manifests = prepare(DIGITS, digits, progress, skip_bad=True)
    whole = [manifest.open_clips(STORE_RATE) for manifest in manifests]
    expected = [[clips[row].tobytes() for row in range(len(clips))] for clips in whole]
    with next((cache / "store").glob("*-16000/samples.*")).open("r+b") as file:
        file.write(bytes(3000))
    again = [manifest.open_clips(STORE_RATE) for manifest in manifests]
    assert [[clips[row].tobytes() for row in range(len(clips))] for clips in again] == expected
    prepare(DIGITS, digits, progress, skip_bad=True)
    assert not find_store_damage(manifests[0].info.store_key, STORE_RATE, in_full=True)
