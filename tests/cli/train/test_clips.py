"""The clips that training reads: class folders, lists, and CSVs with parts, groups and splits."""

import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.data.clip_lists import unread_columns
from tubelet.service.cli.train.data.clips import Clip, labels_of, read_clips, sort_labels
from tubelet.service.cli.train.data.label_names import name_labels


def listed(tmp_path: Path, text: str) -> Path:
    (tmp_path / "clips.csv").write_bytes(text.encode())
    return tmp_path / "clips.csv"


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for name in ("a; b/1.mp4", "c/2.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert read_clips(tmp_path) == (
        Clip("a; b/1.mp4", str(tmp_path / "a; b/1.mp4"), "a; b"),
        Clip("c/2.mp4", str(tmp_path / "c/2.mp4"), "c"),
    )


def test_a_list_without_more_columns(tmp_path: Path) -> None:
    assert [(each.name, each.label) for each in read_clips(listed(tmp_path, "1.mp4,a\n2.mp4,b\n"))] == [
        ("1.mp4", "a"),
        ("2.mp4", "b"),
    ]


def test_parts_groups_and_splits_whatever_the_line_ends(tmp_path: Path) -> None:
    text = (
        "\ufeffpath , label,start,end,group,split\r\n"
        "1.mp4,a,0,2.5,,train\r\n"
        "\r\n"
        "1.mp4, b ,2.5,,,train\r\n"
        "2.mp4,a,,,street,test\r\n"
    )
    path = str(tmp_path / "1.mp4")
    assert read_clips(listed(tmp_path, text)) == (
        Clip("1.mp4 0-2.5 s", path, "a", "1.mp4", False, (0, 2.5), is_grouped_by_video=True),
        Clip("1.mp4 2.5-inf s", path, "b", "1.mp4", False, (2.5, float("inf")), is_grouped_by_video=True),
        Clip("2.mp4", str(tmp_path / "2.mp4"), "a", "street", True, None),
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("1.mp4,,0,1,,", "line 2: a path and a label are wanted; found '1.mp4' and ''"),
        (
            "1.mp4,a,0,1,,holdout",
            "line 2: split must be one of train, val, validation, test; found 'holdout'",
        ),
        ("1.mp4,a,x,1,,", "line 2: start and end are seconds; found 'x' and '1'"),
        ("1.mp4,a,2,1,,", "line 2: a part must end after its start; found '2' to '1'"),
        ("1.mp4,a,0,2,,\n1.mp4,b,1,3,,", "1.mp4 0-2 s and 1.mp4 1-3 s overlap, .* labels 'a' and 'b'"),
        ("1.mp4,a,0,9,,\n1.mp4,a,1,2,,\n1.mp4,b,3,4,,", "1.mp4 0-9 s and 1.mp4 3-4 s overlap"),
        ("1.mp4,a,0,2,,\nx/../1.mp4,b,1,3,,", "1.mp4 0-2 s and x/../1.mp4 1-3 s overlap"),
        ("1.mp4,a,,,,\n1.mp4,a,,,,", "names 1.mp4 twice"),
        ("1.mp4,a,,,,\n1.mp4,a,,,,test", "1.mp4 is both in training and in the test split"),
        ("1.mp4,a,0,9,,\n1.mp4,a,1,2,,\n1.mp4,a,1,2,,", "names 1.mp4 1-2 s twice"),
        ("http://host/1.mp4,a,,,,", "names the URI http://host/1.mp4: training reads files"),
        ("1\0.mp4,a,,,,", r"names '1\\x00.mp4', which is no path of a file"),
        ("1.mp4,a,,,g,train\n2.mp4,a,,,g,test", "g is both in training and in the test split"),
        ("1.mp4,a,0,1,,train\n1.mp4,a,1,2,,test", "1.mp4 is both in training and in the test split"),
        ("", "has a header, but names no videos"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, rows: str, says: str) -> None:
    with pytest.raises(InvalidDataset, match=says):
        read_clips(listed(tmp_path, f"path,label,start,end,group,split\n{rows}\n"))


def test_urls_in_a_list_without_more_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"names the URI http://host/1.mp4: training reads files"):
        read_clips(listed(tmp_path, "http://host/1.mp4,a\n2.mp4,b\n"))


def test_parts_of_long_videos_have_names_of_their_own(tmp_path: Path) -> None:
    rows = "path,label,start,end\n1.mp4,a,36000.125,36001.5\n1.mp4,a,36000.126,36001.5\n"
    first, second = read_clips(listed(tmp_path, rows))
    assert (first.name, second.name) == ("1.mp4 36000.125-36001.5 s", "1.mp4 36000.126-36001.5 s")


def test_a_header_without_paths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="the header has no column path; it has name, label, group"):
        read_clips(listed(tmp_path, "name,label,group\n1.mp4,a,b\n"))
    with pytest.raises(InvalidDataset, match="the header has no column path; it has clip, label"):
        read_clips(listed(tmp_path, "clip,label\n1.mp4,a\n"))


@pytest.mark.parametrize("header", ["path,lable", "lable,path", "path,class_name,group"])
def test_a_header_without_labels_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(InvalidDataset, match=f"no column label; it has {header.replace(',', ', ')}"):
        read_clips(listed(tmp_path, f"{header}\n1.mp4,a,b\n"))


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("path,label,begin,finish\n1.mp4,a,0,1\n", ("begin", "finish")),
        ("path,label,start,end,group,split\n1.mp4,a,0,1,g,train\n", ()),
        ("1.mp4,a,0,1\n", ()),
        ("path;class;time_start;time_end;Who\n1.mp4;a;0;1;me\n", ("who",)),
    ],
)
def test_columns_that_nothing_is_read_from(tmp_path: Path, text: str, unread: tuple[str, ...]) -> None:
    assert unread_columns(listed(tmp_path, text)) == unread


def test_columns_of_a_parquet_file_that_nothing_is_read_from(tmp_path: Path) -> None:
    table = pyarrow.table({"path": ["1.mp4"], "label": ["a"], "begin": [0.5]})
    pyarrow.parquet.write_table(table, tmp_path / "clips.parquet")
    assert unread_columns(tmp_path / "clips.parquet") == ("begin",)


def test_a_parquet_file_has_the_same_columns(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"path": ["1.mp4", "2.mp4"], "label": ["a", "b"], "start": [0.5, None], "end": [2.0, None]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "clips.parquet")
    assert read_clips(tmp_path / "clips.parquet") == (
        Clip(
            "1.mp4 0.5-2 s",
            str(tmp_path / "1.mp4"),
            "a",
            "1.mp4",
            False,
            (0.5, 2.0),
            is_grouped_by_video=True,
        ),
        Clip("2.mp4", str(tmp_path / "2.mp4"), "b"),
    )
    (tmp_path / "clips.parquet").write_bytes(b"no table")
    with pytest.raises(InvalidDataset, match="it is no Parquet file"):
        read_clips(tmp_path / "clips.parquet")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"path,label,group\n" + b"x" * 200_000])
def test_a_file_that_is_no_list_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clips.csv").write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"clips.csv is neither a folder nor a list"):
        read_clips(tmp_path / "clips.csv")


def test_a_list_that_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(InvalidDataset, match=f"{name} cannot be read: No such file"):
            read_clips(tmp_path / name)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_lists_of_spreadsheets_have_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    text = "path,label,group\n1.mp4,a b,x\n2.mp4,c,y\n".replace(",", delimiter)
    assert [(each.name, each.label, each.group) for each in read_clips(listed(tmp_path, text))] == [
        ("1.mp4", "a b", "x"),
        ("2.mp4", "c", "y"),
    ]


def test_a_line_with_too_many_values_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="line 2: has 4 values, but the header has 3; a value with ','"):
        read_clips(listed(tmp_path, "path,label,group\na,b.mp4,x,g\n"))


@pytest.mark.parametrize("header", ["path,label", "path,label,group"])
def test_semicolons_divide_the_labels_of_a_clip(tmp_path: Path, header: str) -> None:
    text = f"{header}\n1.mp4,run; jump;run\n2.mp4,run\n3.mp4,\n"
    clips = read_clips(listed(tmp_path, text))
    assert [each.labels for each in clips] == [("run", "jump"), ("run",), ()]
    assert all(each.is_multilabel for each in clips)


def test_parts_that_overlap_may_have_other_labels_in_a_multi_label_list(tmp_path: Path) -> None:
    text = "path,label,start,end\n1.mp4,run;jump,0,2\n1.mp4,run,1,3\n"
    assert [each.labels for each in read_clips(listed(tmp_path, text))] == [("run", "jump"), ("run",)]


@pytest.mark.parametrize("label", ["a\x1b[31m", "a\x07", "a\u2028b", '"a\nb"'])
def test_labels_that_cannot_be_printed_are_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(InvalidDataset, match=r"the label 'a\\\S+' has characters that cannot be printed"):
        read_clips(listed(tmp_path, f"path,label,group\n1.mp4,{label},\n"))


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    (tmp_path / os.fsdecode(b"caf\xe9") / "1.mp4").touch()
    with pytest.raises(InvalidDataset, match=r"the label 'caf\\xe9' has characters"):
        read_clips(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "label,path,note\na,1.mp4,x\nb,2.mp4,y\n",
        "filename,class\n1.mp4,a\n2.mp4,b\n",
        "1.mp4;a\n2.mp4;b\n",
        "1.mp4\ta\n\n2.mp4\tb\n",
        "1.mp4,a\n   \n2.mp4 , b \n , \n",
        '{"video": "1.mp4", "label": "a", "labels": []}\n\n{"video": "2.mp4", "label": "b"}\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_that_other_programs_write(tmp_path: Path, text: str, encoding: str) -> None:
    for name in ("1.mp4", "2.mp4"):
        (tmp_path / name).touch()
    file = tmp_path / ("list.jsonl" if text.startswith("{") else "list.csv")
    file.write_bytes(text.encode(encoding))
    assert [(each.name, each.label) for each in read_clips(file)] == [("1.mp4", "a"), ("2.mp4", "b")]


def test_the_clips_of_a_training_are_a_list(tmp_path: Path) -> None:
    """Scenes, parts and splits stay: what was held out is the test split."""
    lines = [
        {"video": "1.mp4", "path": "1.mp4", "label": "a", "range_s": None, "scene": 0, "split": "train"},
        {"video": "2.mp4 0-2.5 s", "path": "2.mp4", "label": "b", "range_s": [0, 2.5], "scene": 1},
        {"video": "3.mp4", "path": "3.mp4", "label": "b", "range_s": None, "scene": 2, "split": "held_out"},
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_clips(tmp_path / "clips.jsonl") == (
        Clip("1.mp4", str(tmp_path / "1.mp4"), "a", "0"),
        Clip("2.mp4 0-2.5 s", str(tmp_path / "2.mp4"), "b", "1", False, (0, 2.5)),
        Clip("3.mp4", str(tmp_path / "3.mp4"), "b", "2", is_test=True),
    )
    (tmp_path / "clips.jsonl").write_text('{"video": "1.mp4", "label": "a"}\n[1]\n')
    with pytest.raises(
        InvalidDataset, match=r"line 2: an object with path and label is wanted; found '\[1\]'"
    ):
        read_clips(tmp_path / "clips.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        "run\nstand still\njump\n",
        "\ufeff2 jump\r\n0 run\r\n1 stand still\r\n",
        "0:run\n2;jump\n1, stand still",
    ],
)
def test_numbers_get_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.txt").write_bytes(text.encode())
    clips = name_labels(read_clips(listed(tmp_path, "1.mp4 2\n2.mp4 1\n3.mp4 2\n")), tmp_path / "names.txt")
    assert [each.label for each in clips] == ["jump", "stand still", "jump"]
    assert labels_of(clips) == ["stand still", "jump"], "in the order of numbers"
    several = name_labels(read_clips(listed(tmp_path, "path,label\n1.mp4,2;0\n")), tmp_path / "names.txt")
    assert several[0].labels == ("jump", "run")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\nb\n", "names.txt has no class '2', which is the label of 1.mp4: it has 2 classes, 0 to 1"),
        ("a\n\nb\n", "names.txt, line 2: is empty, but each line names a class"),
        ("a\nb\na\n", "names.txt, line 3: the class 2, 'a', is there twice"),
        ("0 a\n0 b\n", "names.txt, line 2: the class 0, 'b', is there twice"),
        ("\n", "names.txt is empty: a line with a name for each class is wanted"),
    ],
)
def test_wrong_names_of_numbers(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(InvalidDataset, match=says):
        name_labels(read_clips(listed(tmp_path, "1.mp4 2\n")), tmp_path / "names.txt")


def test_a_clip_without_a_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"1\.mp4 has no label"):
        read_clips(listed(tmp_path, "1.mp4,\n2.mp4,b\n"))


def test_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="is JSON, which is not read: write a CSV"):
        read_clips(tmp_path / "activitynet.json")


def test_numbers_after_paths(tmp_path: Path) -> None:
    """The lists of PySlowFast (its Kinetics) and mmaction2 (its VideoDataset and RawframeDataset)."""
    for name in ("1.mp4", "2 3.mp4", "3.mp4 4"):
        (tmp_path / name).touch()
    (tmp_path / "frames").mkdir()
    assert [(each.name, each.label) for each in read_clips(listed(tmp_path, "1.mp4 1\n2 3.mp4 0\n"))] == [
        ("1.mp4", "1"),
        ("2 3.mp4", "0"),
    ]
    several = read_clips(listed(tmp_path, "1.mp4 1 4\n2 3.mp4 0\n3.mp4 4 7\n"))
    assert [(each.name, each.labels) for each in several] == [
        ("1.mp4", ("1", "4")),
        ("2 3.mp4", ("0",)),
        ("3.mp4 4", ("7",)),
    ]
    with pytest.raises(InvalidDataset, match="they may be frames and label, or two labels"):
        read_clips(listed(tmp_path, "1.mp4 300 1\n2 3.mp4 250 0\n"))
    with pytest.raises(
        InvalidDataset, match="such as none/4 300 1, and there are no such files: tubelet reads"
    ):
        read_clips(listed(tmp_path, "none/4 300 1\nnone/5 250 0\n"))
    with pytest.raises(InvalidDataset, match="frames is a folder, followed by numbers: tubelet reads videos"):
        read_clips(listed(tmp_path, "frames 300 1\n1.mp4 0\n"))


def test_numbers_are_sorted_by_value() -> None:
    assert sort_labels(["10", "9", "0", "9"]) == ["0", "9", "10"]
    assert sort_labels(["10", "9", "a"]) == ["10", "9", "a"]
