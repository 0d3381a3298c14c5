"""The clips that training reads: class folders, lists, and CSVs with parts, groups and splits."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.clips import Clip, read_clips


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
        Clip("1.mp4 0-2.5 s", path, "a", "1.mp4", False, (0, 2.5)),
        Clip("1.mp4 2.5-inf s", path, "b", "1.mp4", False, (2.5, float("inf"))),
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


def test_a_parquet_file_has_the_same_columns(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"path": ["1.mp4", "2.mp4"], "label": ["a", "b"], "start": [0.5, None], "end": [2.0, None]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "clips.parquet")
    assert read_clips(tmp_path / "clips.parquet") == (
        Clip("1.mp4 0.5-2 s", str(tmp_path / "1.mp4"), "a", "1.mp4", False, (0.5, 2.0)),
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
