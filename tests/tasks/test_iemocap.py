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
# Who speaks is told by the last letter, not by the dialogue's: both speakers take part in each.
EMOTIONS = {
    "Ses01F_impro01_F000": "neu",
    "Ses01F_impro01_M001": "ang",
    "Ses01F_impro01_F005": "xxx",
    "Ses02M_script01_1b_F012": "sad",
    "Ses03M_impro05a_M010": "exc",
    "Ses04F_script03_2_M044": "hap",
    "Ses04F_script03_2_F031": "exc",
    "Ses04F_script03_2_F032": "fru",
    "Ses05M_impro07_F003": "hap",
    "Ses05M_impro07_MXX0": "neu",
    "Ses05M_impro07_M004": "oth",
}
SPEAKERS = {
    "Ses01F_impro01_F000": "1F",
    "Ses01F_impro01_M001": "1M",
    "Ses02M_script01_1b_F012": "2F",
    "Ses03M_impro05a_M010": "3M",
    "Ses04F_script03_2_M044": "4M",
    "Ses04F_script03_2_F031": "4F",
    "Ses05M_impro07_F003": "5F",
    "Ses05M_impro07_MXX0": "5M",
}
HEADING = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
EVALUATORS = "C-E2:\tNeutral;\t()\nC-F1:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
LABELS = "Session{}/dialog/EmoEvaluation"
STRAY = (
    "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt",
    "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt",
    "Session1/dialog/EmoEvaluation/Attribute/Ses01F_impro01_e2_atr.txt",
    "Session1/dialog/EmoEvaluation/Self-evaluation/Ses01F_impro01_f1.anvil",
    "Session1/dialog/transcriptions/Ses01F_impro01.txt",
    "Session1/sentences/wav/.DS_Store",
    "Session1/sentences/wav/Ses01F_impro01/._Ses01F_impro01_F000.wav",
    "Documentation/speakers.txt",
)


def dialogue(utterance: str) -> str:
    return utterance.rpartition("_")[0]


def wav(utterance: str) -> str:
    folder = f"Session{utterance[4]}/sentences/wav"
    return f"{folder}/{dialogue(utterance)}/{utterance}.wav"


def place_sessions(root: Path, line_end: str = "\n") -> Path:
    place(root, *map(wav, EMOTIONS), *STRAY)
    (root / "Session2" / "sentences" / "wav" / "Ses02F_impro01").mkdir(parents=True)
    for each in {dialogue(name) for name in EMOTIONS}:
        text = HEADING
        for name, emotion in EMOTIONS.items():
            if dialogue(name) == each:
                text += f"[6.2901 - 8.2357]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"
                text += EVALUATORS
        path = root / LABELS.format(each[4]) / f"{each}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.replace("\n", line_end).encode())
    return root


def expected(happy: set[str], scripted: bool = True) -> dict[str, tuple[str, None, int, str]]:
    labels = {"neu": "neu", "ang": "ang", "sad": "sad"} | dict.fromkeys(happy, "hap")
    return {
        name: (labels[emotion], None, int(name[4]), SPEAKERS[name])
        for name, emotion in EMOTIONS.items()
        if emotion in labels and (scripted or "impro" in name)
    }


@wrapped
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["unix", "dos"])
def test_four_emotions_in_a_fold_a_session(above: str, line_end: str, tmp_path: Path) -> None:
    place_sessions(tmp_path / "given" / above, line_end)
    assert facts(listed(tmp_path / "given", "iemocap")) == expected({"hap"})


def test_excited_counts_as_happy_in_the_variant(tmp_path: Path) -> None:
    place_sessions(tmp_path)
    found = facts(listed(tmp_path, "iemocap@excited"))
    assert found == expected({"hap", "exc"})
    assert len(found) == len(expected({"hap"})) + 2


def test_the_improvised_variant_leaves_out_scripts(tmp_path: Path) -> None:
    place_sessions(tmp_path)
    found = facts(listed(tmp_path, "iemocap@improvised"))
    assert found == expected({"hap"}, scripted=False)
    assert not [name for name in found if "script" in name]


def test_a_release_without_sentences_is_refused(tmp_path: Path) -> None:
    place_sessions(tmp_path)
    (tmp_path / "Session4" / "sentences").rename(tmp_path / "elsewhere")
    said = refusal(tmp_path, "iemocap")
    assert f"{tmp_path}/Session4/sentences/wav is missing" in said
    assert "full release" in said


def test_a_release_without_evaluations_is_refused(tmp_path: Path) -> None:
    place(tmp_path, *map(wav, EMOTIONS))
    assert "no Session[1-5]/dialog/EmoEvaluation in it" in refusal(tmp_path, "iemocap")


def test_the_archive_is_prepared_with_its_variants(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = place_sessions(tmp_path / "in" / "IEMOCAP_full_release")
    for seed, name in enumerate(EMOTIONS):
        write_clip(root / wav(name), seed)
    archive = pack(tmp_path / "in", tmp_path / "IEMOCAP_full_release.tar.gz")
    manifests = prepare(without_checksums("iemocap"), archive, progress)
    assert {manifest.info.variant: len(manifest) for manifest in manifests} == {
        "": 6,
        "excited": 8,
        "improvised": 4,
    }


def test_spoiled_and_absent_utterances_are_named_and_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = place_sessions(tmp_path / "given")
    for seed, name in enumerate(EMOTIONS):
        write_clip(root / wav(name), seed)
    bad = ["Ses01F_impro01_F000", "Ses02M_script01_1b_F012", "Ses05M_impro07_F003"]
    spoiled = spoil(*(root / wav(name) for name in bad))
    assert set(left_out("iemocap", root, spoiled, progress)) == set(bad)
