from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.data.catalog import load_card, load_reader, own_card
from lape_bench.data.draft_checks import UNGROUPED
from lape_bench.data.drawn_split import draw_split
from lape_bench.data.new_task import LONGEST_WINDOW, NewTask, new_task
from lape_bench.task import TaskCard
from tests.lape_bench.data.readers.test_class_folders import place

WriteClip = Callable[..., Path]


def folder(root: Path, **clips: int) -> Path:
    """Class folders with so many empty files each."""
    return place(root, *(f"{name}/{n}.wav" for name, count in clips.items() for n in range(count)))


def table(root: Path, text: str, present: bool = True) -> Path:
    """A table whose lines are parted by spaces here, beside the recordings that it names."""
    lines = text.split()
    path = root / "clips.csv"
    root.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))
    if present:
        place(root, *(line.split(",")[0] for line in lines[1:]))
    return path


def draft(source: Path, **how: object) -> NewTask:
    values = {"name": "birds", "columns": {}, "window_seconds": 1.0, **how}
    return new_task(source=source, **values)


def refusal(source: Path, **how: object) -> str:
    with pytest.raises(UserError) as caught:
        draft(source, **how)
    said = str(caught.value)
    assert "\n" not in said
    return said


def sides(card: TaskCard, root: Path) -> dict[tuple[str, str | None], int]:
    return Counter(
        (clip.label, clip.split) for clip in draw_split(load_reader(card).read(root, card), card)
    )


# --- folders -----------------------------------------------------------------------------------------------


def test_a_folder_of_class_folders_becomes_a_card_that_reads_back_as_it_is(tmp_path: Path) -> None:
    root = folder(tmp_path / "mine", wren=10, owl=5)
    drafted = draft(root, title="Garden birds", metric="macro_f1", domain="bioacoustics")
    path = drafted.write()
    card = load_card("birds")
    assert (path, card) == (own_card("birds"), drafted.card)
    assert (card.classes, card.suite, card.version) == (("owl", "wren"), "own", 1)
    assert (card.title, card.metric, card.domain) == ("Garden birds", "macro_f1", "bioacoustics")
    assert card.expected.clips == 15
    assert card.expected.per_class == {"wren": 10, "owl": 5}
    assert card.recordings is not None
    assert card.recordings.folder == root
    assert sides(card, root) == {
        ("wren", "train"): 6, ("wren", "val"): 2, ("wren", "test"): 2,
        ("owl", "train"): 3, ("owl", "val"): 1, ("owl", "test"): 1,
    }  # fmt: skip


def test_sides_that_are_there_are_taken_as_they_are(tmp_path: Path) -> None:
    root = folder(tmp_path, **{"train/a": 3, "train/b": 2, "val/a": 1, "test/a": 1, "test/b": 1})
    card = draft(root).card
    assert (card.split.rule, card.group) == ("official", None)
    assert card.expected.per_side == {"train": 5, "val": 1, "test": 2}
    assert draft(root).notes == ()


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path, a=3, b=3)
    place(
        root, "stray.wav", "readme.txt", "a/1.txt", "a/cover.jpg", "hush/notes.md", ".hidden/1.wav"
    )
    assert draft(root).notes == (
        "left out, in no class folder: stray.wav",
        "left out, not read as audio: 2 .txt, 1 .jpg, 1 .md",
        "no class, since no audio is in it: hush",
        UNGROUPED,
    )


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ({}, "has no class with audio in it; a folder for each class"),
        (
            {"a": 5},
            "has one class only, 'a'; two at least; if the class folders lie in 'a', give that one",
        ),
        ({"a": 5, "b": 1}, "1 of 2 classes are not both in train and in test: b; two clips"),
        ({"Wren": 5, "wren": 5}, "the classes 'Wren' and 'wren' of"),
        ({"train": 5, "test": 5}, "has no class with audio in it"),
    ],
    ids=["empty", "one class", "too few", "alike", "sides without classes"],
)
def test_a_folder_that_is_no_task_is_refused(
    clips: dict[str, int], said: str, tmp_path: Path
) -> None:
    try:
        root = folder(tmp_path / "mine", **clips)
        root.mkdir(exist_ok=True)
    except FileExistsError:
        pytest.skip("this file system does not tell capitals apart")
    assert said in refusal(root)
    assert not own_card("birds").exists()


def test_a_class_that_official_sides_do_not_test_is_noted_and_not_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, **{"train/a": 2, "train/b": 2, "train/c": 2, "test/a": 1, "test/b": 1})
    assert draft(root).notes == ("1 of 3 classes are not both in train and in test: c",)


# --- windows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "window"),
    [([0.5, 0.5, 0.5, 0.5], 0.5), ([0.2, 0.4, 1.2, 9.0], 0.8), ([0.11, 0.11, 0.11, 0.11], 0.1)],
)
def test_the_window_is_the_median_length_of_the_clips(
    seconds: list[float], window: float, tmp_path: Path, write_clip: WriteClip
) -> None:
    for number, length in enumerate(seconds):
        write_clip(tmp_path / "ab"[number % 2] / f"{number}.wav", number, length)
    drafted = draft(tmp_path, window_seconds=None)
    assert drafted.card.window_seconds == window
    assert (
        f"the median length of 4 clips ({min(seconds):.1f} to {max(seconds):.1f} s)"
        in drafted.window
    )


def test_a_window_has_a_limit_that_is_told_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "path,label,start_seconds,seconds 1.wav,a,0,60 2.wav,a,60,60 3.wav,b,0,60 4.wav,b,60,60",
    )
    drafted = draft(path, window_seconds=None)
    assert drafted.card.window_seconds == LONGEST_WINDOW
    assert "since the median of 4 clips is 60.0 s" in drafted.window
    asked_for = draft(path, window_seconds=30.0)
    assert (asked_for.card.window_seconds, asked_for.window) == (30, "window_seconds was given")


def test_a_window_that_no_clip_fills_is_told(tmp_path: Path, write_clip: WriteClip) -> None:
    for number, length in enumerate([0.5, 0.9, 1.2, 0.7]):
        write_clip(tmp_path / "ab"[number % 2] / f"{number}.wav", number, length)
    assert draft(tmp_path, window_seconds=1.2).window == "window_seconds was given"
    drafted = draft(tmp_path, window_seconds=10.0)
    assert drafted.card.window_seconds == 10
    assert "the longest of 4 clips has 1.2 s, and silence fills the rest" in drafted.window
    assert "has 1.2 s" in draft(tmp_path, window_seconds=1.21).window


def test_recordings_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    said = refusal(folder(tmp_path, a=2, b=2), window_seconds=None)
    assert (
        f"none of the recordings can be read as audio, such as {tmp_path / 'a' / '0.wav'}" in said
    )


# --- tables ------------------------------------------------------------------------------------------------


def test_a_table_becomes_a_card_that_keeps_groups_apart(tmp_path: Path) -> None:
    lines = [f"{who}{n}.wav,{'ab'[n % 2]},{who}" for who in "qrstuv" for n in range(4)]
    path = table(tmp_path, " ".join(["path,label,speaker", *lines]))
    card = draft(path, columns={"group": "speaker"}).card
    draft(path, columns={"group": "speaker"}).write()
    assert load_card("birds") == card
    assert card.group == "speaker"
    assert "all clips of one speaker on one side" in card.split.origin
    drawn = draw_split(load_reader(card).read(tmp_path, card), card)
    assert len({(clip.group, clip.split) for clip in drawn}) == 6
    assert {clip.split for clip in drawn} == {"train", "val", "test"}


def test_the_recordings_may_lie_elsewhere_than_the_table(tmp_path: Path) -> None:
    place(tmp_path / "audio", "1.wav", "2.wav", "3.wav", "4.wav")
    path = table(tmp_path / "meta", "path,label 1.wav,a 2.wav,a 3.wav,b 4.wav,b", present=False)
    said = refusal(path)
    assert f"none of the 4 recordings that {path} names is there" in said
    assert "--audio FOLDER" in said
    card = draft(path, audio=tmp_path / "meta" / ".." / "audio").card
    assert card.recordings is not None
    assert (card.recordings.folder, card.recordings.table) == (tmp_path / "audio", path)


def test_official_sides_and_folds_of_a_table_are_taken(tmp_path: Path) -> None:
    sided = draft(
        table(tmp_path, "path,label,split 1.wav,a,train 2.wav,b,train 3.wav,a,test 4.wav,b,test")
    )
    assert sided.card.split.rule == "official"
    assert sided.card.expected.per_side == {"train": 2, "test": 2}
    assert sided.places == {"train": 2, "test": 2}
    folded = draft(table(tmp_path, "path,label,fold 1.wav,a,0 2.wav,b,0 3.wav,a,1 4.wav,b,1"))
    assert (folded.card.split.rule, folded.card.folds) == ("folds", (1, 2))
    assert folded.card.expected.per_side == {"1": 2, "2": 2}
    assert folded.places == {"fold 1": 2, "fold 2": 2}


def test_an_optional_column_can_be_left_out(tmp_path: Path) -> None:
    path = table(
        tmp_path, "path,label,split 1.wav,a,train 2.wav,a,train 3.wav,b,train 4.wav,b,train"
    )
    said = refusal(path)
    assert "no clip of birds is in test; train and test, and perhaps val; put clips there" in said
    assert "--column split=" in said
    assert draft(path, columns={"split": ""}).card.split.rule == "drawn"


def test_recordings_that_are_missing_are_noted(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label 1.wav,a 2.wav,a 3.wav,b 4.wav,b")
    (tmp_path / "3.wav").unlink()
    assert draft(path).notes == ("not there, of 4 recordings: 3", UNGROUPED)


def test_groups_on_two_sides_that_may_be_one_are_told(tmp_path: Path) -> None:
    rows = (
        "1.wav,a,train,Eve 2.wav,b,train,Ann 3.wav,a,train,eve 4.wav,a,test,ann 5.wav,b,test,bob"
        " 6.wav,b,train,bob;eve 7.wav,b,train,b 8.wav,b,test,ob"
    )
    assert draft(table(tmp_path, f"path,label,split,group {rows}")).notes == (
        "one group may be on two sides, by the names of its groups: 'Ann' and 'ann', 'bob' and 'bob;eve'",
    )


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("path,label 1.wav,a 2.wav,a", {}, "has one class only, 'a'; two at least."),
        ("path,label", {}, "has no line below the names of its columns"),
        ("path,label 1.wav,a 2.wav,A", {}, "differ in capitals or spaces alone"),
        ("path,label 1.wav,a 2.wav,a 3.wav,\x1b[2J 4.wav,\x1b[2J", {}, "'\\x1b[2J' holds control"),
        (f"path,label 1.wav,a 2.wav,a 3.wav,{'b' * 300} 4.wav,{'b' * 300}", {}, "than 200"),
        ("path,label 1.wav,a 2.wav,a 3.wav,b", {}, "not both in train and in test: b; two clips"),
        ("path,label,group 1.wav,a,x 2.wav,a,y 3.wav,b,z 4.wav,b,z", {}, "of different group"),
        ("path,label,split,fold 1.wav,a,train,1", {}, "has sides in 'split' and folds in 'fold'"),
        ("path,label,seconds 1.wav,a,1", {}, "has only one of start_seconds and seconds"),
        ("path,label,end_seconds 1.wav,a,1", {}, "start_seconds and either seconds or end_seconds"),
        (
            "path,label,start_seconds,seconds,end_seconds 1.wav,a,1,1,2",
            {},
            "has lengths in 'seconds' and ends in 'end_seconds'",
        ),
        (
            "path,label,from,duration,end 1.wav,a,1,1,2 1.wav,b,3,2,5",
            {"start_seconds": "from"},
            "'duration' may be its seconds, 'end' may be its end_seconds",
        ),
        (
            "path,label,fold 1.wav,a,1 2.wav,b,1 3.wav,a,3 4.wav,b,3",
            {},
            "no clip of birds is in fold 2",
        ),
        ("path,label,fold 1.wav,a,1 2.wav,b,1", {}, "'split.folds'"),
        (
            "path,label,split,group 1.wav,a,train,x 2.wav,b,train,y 3.wav,a,test,x 4.wav,b,test,z",
            {},
            "1 of 3 groups (group) are on several sides: x; all clips of a group belong on one side",
        ),
        (
            "path,label,split,start_seconds,seconds 1.wav,a,train,0,1 1.wav,b,train,1,1 1.wav,a,test,2,1 1.wav,b,test,3,1",
            {},
            "or name other groups in a column, with --column group=NAME",
        ),
        ("path,label 1.wav,a", {"labl": "x"}, "no column of a clip 'labl': did you mean 'label'"),
        ("path,label 1.wav,a", {"label": "x"}, "has no column 'x'; its columns are path, label"),
        ("path,label 1.wav,a", {"group": "who"}, "has no column 'who'"),
    ],
)
def test_a_table_that_is_no_task_is_refused(
    text: str, columns: dict[str, str], said: str, tmp_path: Path
) -> None:
    assert said in refusal(table(tmp_path, text), columns=columns)
    assert not own_card("birds").exists()


# --- names and values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Birds", "'Birds' is not a name for a task: did you mean 'birds'?; lowercase letters"),
        ("my_birds", "did you mean 'my-birds'?"),
        ("", "'' is not a name for a task"),
        ("-", "'-' is not a name for a task"),
        ("birds@home", "is not a name for a task"),
        ("../birds", "is not a name for a task"),
        ("V\u00f6gel", "is not a name for a task"),
        ("birds-synthetic", "names that end in -synthetic are those of synthetic versions"),
        ("esc10", "there is a task 'esc10' already"),
    ],
)
def test_a_name_that_cannot_be_or_is_taken_is_refused(name: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(folder(tmp_path, a=2, b=2), name=name)


def test_a_card_is_never_overwritten(tmp_path: Path) -> None:
    root = folder(tmp_path, a=2, b=2)
    path = draft(root).write()
    said = refusal(root)
    assert f"there is an own task 'birds' already: {path}; edit or delete that file" in said


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"metric": "acuracy"}, "no metric 'acuracy': did you mean 'accuracy'"),
        ({"domain": "noise"}, "'domain'"),
        (
            {"window_seconds": 0.05},
            "'window_seconds': Input should be greater than or equal to 0.1",
        ),
        ({"columns": {"label": "x"}}, "--column and --audio go with a table"),
        ({"audio": Path()}, "--column and --audio go with a table"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(
    how: dict[str, object], said: str, tmp_path: Path
) -> None:
    assert said in refusal(folder(tmp_path, a=2, b=2), **how)


def test_a_source_that_is_neither_folder_nor_table_is_refused(tmp_path: Path) -> None:
    assert "nowhere does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "birds.zip").touch()
    assert "birds.zip is neither a folder nor a table" in refusal(tmp_path / "birds.zip")


# --- what is asked about ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "texts", "key"),
    [
        ("SPLIT", "train,test", "split"),
        ("data_split", "a,b", "split"),
        ("usage", "training,testing", "split"),
        ("whatever", "train,test,valid", "split"),
        ("Fold", "1,2", "fold"),
        ("cvFold", "1,2,3", "fold"),
        ("Group", "x,y", "group"),
        ("speaker_id", "7,8,9", "group"),
        ("patientID", "p1,p2", "group"),
        ("client id", "x,y", "group"),
        ("song", "x,y", "group"),
        ("onset", "0,1.5", "start_seconds"),
        ("offset", "0,1.5", "start_seconds"),
        ("starttime", "0,1.5", "start_seconds"),
        ("StartSec", "0,1.5", "start_seconds"),
        ("speakerid", "7,8,9", "group"),
        ("SPEAKERID", "7,8,9", "group"),
        ("foldid", "1,2", "fold"),
    ],
)
def test_a_column_that_looks_like_one_that_counts_is_asked_about(
    column: str, texts: str, key: str, tmp_path: Path
) -> None:
    given = texts.split(",")
    rows = [f"{n}.wav,{'ab'[n % 2]},{given[n % len(given)]}" for n in range(12)]
    source = table(tmp_path, "")
    source.write_text("\n".join([f"path,label,{column}", *rows]))
    place(tmp_path, *(f"{n}.wav" for n in range(12)))
    said = refusal(source)
    assert f"'{column}' may be its {key}" in said
    assert f"--column {key}='{column}'" in said
    assert f"do without: --column {key}=" in said
    assert draft(source, columns={key: ""}).card.split.rule == "drawn"


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ("remark", "train of thought,test"),
        ("speaker", "ann"),  # the same of all
        ("recording", ",".join(map(str, range(12)))),  # another of each
        ("duration", "0.5,0.7"),
        ("end", "0.5,0.7"),
        ("start", "soon,late"),
        ("dataset", "x,y"),
        ("setting", "x,y"),
    ],
)
def test_other_columns_are_not_asked_about(column: str, texts: str, tmp_path: Path) -> None:
    given = texts.split(",")
    rows = [f"{n}.wav,{'ab'[n % 2]},{given[n % len(given)]}" for n in range(12)]
    source = table(tmp_path, "")
    source.write_text("\n".join([f"path,label,{column}", *rows]))
    place(tmp_path, *(f"{n}.wav" for n in range(12)))
    assert draft(source).card.split.rule == "drawn"


def test_a_column_that_has_an_answer_already_is_not_asked_about(tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'ab'[n % 2]},{n // 4},{n // 6},{'xyz'[n // 4]}" for n in range(12)]
    source = table(tmp_path, "\n".join(["path,label,group,speaker,kind", *rows]))
    assert draft(source).card.group == "group"
    assert draft(source, columns={"group": "kind"}).card.group == "kind"


@pytest.mark.parametrize("fold", ["1.0", "1.00", "1e0"])
def test_folds_that_are_written_as_decimal_numbers_are_folds(fold: str, tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'ab'[n % 2]},{fold if n < 6 else '2.0'}" for n in range(12)]
    source = table(tmp_path, "\n".join(["path,label,fold", *rows]))
    assert draft(source).places == {"fold 1": 6, "fold 2": 6}
    source.write_text(source.read_text().replace("2.0", "2.5"))
    assert "has the fold '2.5'; it may be a whole number" in refusal(source)


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ("dog\u00a0bark", r"dog\xa0bark"),
        ("dog\u2009bark", r"dog\u2009bark"),
        ("dog  bark", "dog  bark"),
        ("dog \u200bbark", r"dog \u200bbark"),
        ("Dog Bark", "Dog Bark"),
    ],
)
def test_labels_that_differ_by_a_kind_of_space_are_told_with_it(
    other: str, shown: str, tmp_path: Path
) -> None:
    rows = [f"{n}.wav,{('dog bark', other)[n % 2]}" for n in range(12)]
    source = table(tmp_path, "")
    source.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    place(tmp_path, *(f"{n}.wav" for n in range(12)))
    said = refusal(source)
    assert f"'{shown}'" in said
    assert "differ in capitals or spaces alone" in said


def test_a_drawn_split_that_misses_its_shares_says_so(tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'ab'[n % 2]},{n // 10}" for n in range(30)]
    source = table(tmp_path, "\n".join(["path,label,group", *rows]))
    [note] = draft(source).notes
    assert note.startswith(
        "the drawn split has 33 % train instead of 60 %, 33 % val instead of 20 %"
    )
    rows = [f"{n}.wav,{'ab'[n % 2]},{n // 2}" for n in range(60)]
    source = table(tmp_path, "\n".join(["path,label,group", *rows]))
    assert draft(source).notes == ()


# --- stretches that overlap -------------------------------------------------------------------------------


def stretches(root: Path, step: float, group: str) -> Path:
    """Stretches of a second by two speakers in each of sixteen recordings, the second one later by a step."""
    rows = [
        f"{n}.wav,{'ab'[n % 2]},{2 * k + step * who:g},1,{group.format(n=n, who=who)}"
        for n in range(16)
        for k in range(3)
        for who in range(2)
    ]
    return table(root, "\n".join(["path,label,start_seconds,seconds,group", *rows]))


def test_stretches_that_overlap_one_of_another_side_are_refused_unless_that_is_asked_for(
    tmp_path: Path,
) -> None:
    said = refusal(stretches(tmp_path / "a", 0.5, "{n}-{who}"))
    assert "clips of birds overlap a clip on another side of the split, such as '" in said
    assert "--may-overlap" in said
    allowed = draft(stretches(tmp_path / "b", 0.5, "{n}-{who}"), may_overlap=True)
    assert allowed.card.split.may_overlap


@pytest.mark.parametrize(("step", "group"), [(1.0, "{n}-{who}"), (0.5, "{n}")])
def test_stretches_that_only_touch_or_stay_together_are_taken(
    step: float, group: str, tmp_path: Path
) -> None:
    assert not draft(stretches(tmp_path, step, group)).card.split.may_overlap


def test_a_long_stretch_overlaps_those_that_lie_in_it(tmp_path: Path) -> None:
    rows = [f"0.wav,a,0,100,{0}", *(f"0.wav,{'ab'[n % 2]},{5 * n},1,{n}" for n in range(1, 13))]
    said = refusal(table(tmp_path, "\n".join(["path,label,start_seconds,seconds,group", *rows])))
    assert "'0@0.000'" in said
