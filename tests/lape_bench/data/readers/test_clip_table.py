import os
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.data.readers.clip_table import column_names, list_clips
from lape_bench.task import ClipEntry, Columns, Segment

PLAIN = Columns()


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "clips.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read(tmp_path: Path, text: str, columns: Columns = PLAIN) -> list[ClipEntry]:
    return list_clips(write(tmp_path, text), columns, tmp_path)


def refusal(tmp_path: Path, text: str, columns: Columns = PLAIN) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, columns)
    said = str(caught.value)
    assert "\n" not in said
    assert "clips.csv" in said
    return said


TWO = {"a/1": "wren", "2": "great tit, male"}


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na/1.wav,wren\n2.wav,"great tit, male"\n',
        "path;label\r\na/1.wav;wren\r\n2.wav;great tit, male\r\n",
        "path\tlabel\na/1.wav\twren\n2.wav\tgreat tit, male",
        'label , path\n wren , a/1.wav \n"great tit, male",./a/../2.wav\n',
        "\ufeffpath;label;;\na/1.wav;wren;;\n;;;\n\n2.wav;great tit, male\n",
        '\n"path","label","age"\n"a\\1.wav","wren","3"\n"2.wav","great tit, male",\n',
        "\ufeffsep=;\r\npath;label;a,b,c\r\na/1.wav;wren\r\n2.wav;great tit, male\r\n",
        'sep=,\npath,label\na/1.wav,wren\n2.wav,"great tit, male"\n',
    ],
    ids=[
        "commas",
        "semicolons",
        "tabs",
        "spaces",
        "a spreadsheet's",
        "a Windows path",
        "a named separator",
        "a named comma",
    ],
)
def test_tables_are_read_as_people_and_spreadsheets_write_them(text: str, tmp_path: Path) -> None:
    listing = read(tmp_path, text)
    assert {clip.clip_id: clip.label for clip in listing} == TWO
    assert {clip.path for clip in listing} == {tmp_path / "a/1.wav", tmp_path / "2.wav"}


def test_columns_may_have_any_name_and_others_are_passed_over(tmp_path: Path) -> None:
    columns = Columns(path="file", label="category", split="part", group="who")
    text = "file,category,part,who,path\n1.wav,wren,Training,ann,x\n2.wav,owl,valid,bob,y\n3.wav,owl,TEST,cy,z\n"
    assert [(c.clip_id, c.label, c.split, c.group) for c in read(tmp_path, text, columns)] == [
        ("1", "wren", "train", "ann"),
        ("2", "owl", "val", "bob"),
        ("3", "owl", "test", "cy"),
    ]


@pytest.mark.parametrize(
    ("written", "folds"), [("123", [1, 2, 3]), ("012", [1, 2, 3]), ("232", [2, 3, 2])]
)
def test_folds_count_from_one_or_from_zero(written: str, folds: list[int], tmp_path: Path) -> None:
    lines = [f"{number}.wav,wren,{fold}" for number, fold in enumerate(written)]
    text = "\n".join(["path,label,fold", *lines])
    assert [clip.fold for clip in read(tmp_path, text, Columns(fold="fold"))] == folds


def test_clips_may_be_stretches_of_one_recording(tmp_path: Path) -> None:
    columns = Columns(start_seconds="from", seconds="length")
    text = "path;label;from;length\nday.wav;wren;0;1,5\nday.wav;owl;12.25;2\n"
    assert [(clip.clip_id, clip.label, clip.segment) for clip in read(tmp_path, text, columns)] == [
        ("day@0.000", "wren", Segment(0.0, 1.5)),
        ("day@12.250", "owl", Segment(12.25, 2.0)),
    ]


def test_a_stretch_may_have_an_end_instead_of_a_length(tmp_path: Path) -> None:
    columns = Columns(start_seconds="from", end_seconds="to")
    text = "path;label;from;to\nday.wav;wren;0;1,5\nday.wav;owl;12.25;14\n"
    assert [(clip.clip_id, clip.segment, clip.group) for clip in read(tmp_path, text, columns)] == [
        ("day@0.000", Segment(0.0, 1.5), "day"),
        ("day@12.250", Segment(12.25, 1.75), "day"),
    ]
    said = refusal(tmp_path, f"{text}day.wav;owl;20;20\n", columns)
    assert "line 4 has the to '20'; it may be seconds, above the start at 20" in said


def test_stretches_of_one_recording_are_one_group_unless_the_table_says_otherwise(
    tmp_path: Path,
) -> None:
    text = "path,label,start_seconds,seconds,who\nday.wav,wren,0,2,ann\nday.wav,owl,1,2,bob\n"
    stretches = Columns(start_seconds="start_seconds", seconds="seconds")
    assert [clip.group for clip in read(tmp_path, text, stretches)] == ["day", "day"]
    grouped = stretches.model_copy(update={"group": "who"})
    assert [clip.group for clip in read(tmp_path, text, grouped)] == ["ann", "bob"]


def test_a_group_is_the_same_in_either_form_of_unicode(tmp_path: Path) -> None:
    text = "path,label,group\n1.wav,wren,J\u00fcrgen\n2.wav,owl,Ju\u0308rgen\n"
    one, other = (clip.group for clip in read(tmp_path, text, Columns(group="group")))
    assert one == other


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (".,wren,1,0,1", "which is the folder"),
        ("1.wav,wren,1000000000,0,1", "fold"),
        ("1.wav,wren,1,1e306,1", "start"),
    ],
)
def test_numbers_and_paths_beyond_any_use_are_refused(row: str, said: str, tmp_path: Path) -> None:
    columns = Columns(fold="fold", start_seconds="start", seconds="length")
    assert said in refusal(tmp_path, f"path,label,fold,start,length\n{row}\n", columns)


def test_an_absolute_path_inside_the_folder_is_the_relative_one(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "audio")
    (tmp_path / "audio" / "2.wav").touch()
    text = f"path,label\n{tmp_path}/audio/1.wav,wren\n{tmp_path}/link/2.wav,owl\n"
    listing = list_clips(write(tmp_path, text), PLAIN, tmp_path / "audio")
    assert [(clip.clip_id, clip.path) for clip in listing] == [
        ("1", tmp_path / "audio" / "1.wav"),
        ("2", tmp_path / "audio" / "2.wav"),
    ]


@pytest.mark.parametrize("path", ["../1.wav", "/elsewhere/1.wav", "a/../../1.wav"])
def test_a_path_outside_the_folder_is_refused_with_its_line(path: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, f"path,label\n0.wav,wren\n{path},owl\n")
    assert f"line 3 names {path}, which is outside {tmp_path}" in said
    assert "--audio FOLDER" in said


ALL = Columns(split="split", fold="fold", group="group", start_seconds="start", seconds="seconds")
FULL = "path,label,split,fold,group,start,seconds\n1.wav,wren,train,1,ann,0,1\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (",wren,train,1,ann,0,1", "line 3 has no path"),
        ("2.wav, ,train,1,ann,0,1", "line 3 has no label; it may be the name of a class"),
        ("2.wav,wren,,1,ann,0,1", "line 3 has no split"),
        (
            "2.wav,wren,both,1,ann,0,1",
            "line 3 has the split 'both'; it may be train, training, val",
        ),
        ("2.wav,wren,train,one,ann,0,1", "has the fold 'one'; it may be a whole number"),
        ("2.wav,wren,train,-1,ann,0,1", "has the fold '-1'"),
        ("2.wav,wren,train,1,,0,1", "has no group"),
        ("2.wav,wren,train,1,ann,-1,1", "has the start '-1'"),
        ("2.wav,wren,train,1,ann,nan,1", "has the start 'nan'"),
        ("2.wav,wren,train,1,ann,0,0", "has the seconds '0'; it may be seconds, above 0"),
        ("2.wav,wren,train,1,ann,0", "has no seconds"),
        ("2.wav,wren,train,1,ann,0,1,great", "line 3 has 8 columns, but the first line 7"),
        ('2.wav,"wren"s,train,1,ann,0,1', "line 3 is not CSV"),
    ],
)
def test_a_line_that_does_not_say_what_it_should_is_named(
    line: str, said: str, tmp_path: Path
) -> None:
    assert said in refusal(tmp_path, FULL + line, ALL)


def test_two_lines_about_one_clip_are_refused_with_both_labels(tmp_path: Path) -> None:
    said = refusal(tmp_path, "path,label\n1.wav,wren\n2.wav,owl\n./1.wav,owl\n")
    assert "two lines about '1': 2, which says 'wren', and 4, which says 'owl'" in said


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        (
            "path,label\n1.wav,K\u00e4uzchen\n",
            "latin-1",
            "is not UTF-8 (byte 18); save it as UTF-8",
        ),
        ("path,label\n1.wav,wren\n", "utf-16", "is not UTF-8 (byte 0)"),
        ("", "utf-8", "is empty; a first line with the names"),
        ("\n ; ;\n", "utf-8", "is empty"),
        ("path,label,label\n", "utf-8", "has two columns 'label'"),
        (
            "file,label\n",
            "utf-8",
            "has no column 'path'; its columns are file, label; 'bench tasks new' takes",
        ),
        ("path,lable\n", "utf-8", "has no column 'label': did you mean 'lable'?"),
    ],
)
def test_what_is_no_table_of_clips_is_refused(
    text: str, encoding: str, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text, encoding)
    with pytest.raises(UserError) as caught:
        list_clips(path, PLAIN, tmp_path)
    assert said in str(caught.value)


def test_the_columns_are_named_in_order_without_nameless_ones(tmp_path: Path) -> None:
    assert column_names(write(tmp_path, "b; a;;c\n1;2;3;4")) == ["b", "a", "c"]


def test_a_table_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the table .*clips.csv cannot be read"):
        list_clips(tmp_path / "clips.csv", PLAIN, tmp_path)


def test_very_many_columns_are_read_in_no_time(tmp_path: Path) -> None:
    head = ",".join(f"column {number}" for number in range(100_000))
    assert len(column_names(write(tmp_path, f"path,label,{head}\n"))) == 100_002


def test_what_is_no_regular_file_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zeros.csv"):
        with pytest.raises(UserError, match="not a regular file"):
            list_clips(tmp_path / name, PLAIN, tmp_path)


def test_a_table_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(write(tmp_path, "path,label\n1.wav,wren\n"))
    assert len(list_clips(tmp_path / "link.csv", PLAIN, tmp_path)) == 1


def test_a_null_character_is_told_by_its_line(tmp_path: Path) -> None:
    assert "line 3 holds a null character" in refusal(tmp_path, "path,label\na.wav,x\nb\0.wav,y\n")
