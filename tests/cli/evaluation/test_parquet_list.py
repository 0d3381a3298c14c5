"""Parquet files as lists of labelled videos."""

import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tubelet.models.errors import MissingExtra
from tubelet.service.cli.evaluation.dataset import InvalidDataset, read_labelled


def write(folder: Path, **columns: Any) -> Path:
    """Write a table with these columns."""
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "data.parquet")
    return folder / "data.parquet"


@pytest.mark.parametrize(
    "columns",
    [
        {"path": ["x/1.mp4", "2.mp4"], "label": ["3", "7"]},
        {"Video": ["x/1.mp4", "2.mp4 "], "LABEL": [3, 7], "scene": ["s", None], "start": [0.5, None]},
        {
            "file": pyarrow.array(["x/1.mp4", "2.mp4"]).dictionary_encode(),
            "label": pyarrow.array(["3", "7"], pyarrow.large_string()),
            "vector": [[0.5, 1.0], [2.0, 3.0]],
        },
    ],
    ids=["text", "numbers and other columns", "as pandas writes categories"],
)
def test_columns_are_found_by_name(tmp_path: Path, columns: dict[str, Any]) -> None:
    found = [
        (video.name, Path(video.video), video.label) for video in read_labelled(write(tmp_path, **columns))
    ]
    assert found == [("x/1.mp4", tmp_path / "x/1.mp4", "3"), ("2.mp4", tmp_path / "2.mp4", "7")]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"path": ["1.mp4"], "class": ["a"]},
            "row 1: must have path and label; the columns are 'path', 'class'",
        ),
        ({"path": ["1.mp4", None], "label": ["a", "b"]}, "row 2: must have path and label"),
        ({"path": ["1.mp4", "2.mp4"], "label": ["a", " "]}, "row 2: must have path and label"),
        ({"path": ["1.mp4", "1.mp4"], "label": ["a", "b"]}, "names 1.mp4 twice"),
        ({"path": [], "label": []}, "names no videos"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidDataset, match=says):
        read_labelled(write(tmp_path, **columns))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_text("path,label\n1.mp4,a\n")
    with pytest.raises(InvalidDataset, match=r"data.parquet cannot be read: it is no Parquet file: "):
        read_labelled(tmp_path / "data.parquet")
    with pytest.raises(InvalidDataset, match=r"nothing.parquet cannot be read: No such file or directory"):
        read_labelled(tmp_path / "nothing.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path, path=["1.mp4"], label=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"needs pyarrow: pip install 'tubelet\[parquet\]'"):
        read_labelled(data)
