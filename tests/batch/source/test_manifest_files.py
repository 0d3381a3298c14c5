"""Manifests in Parquet, CSV and JSON lines, and what is wrong with some."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.support.batches import PLAN, shard_commits
from tubelet.models.errors import MissingExtra
from tubelet.service.batch.destination.store import FolderStore
from tubelet.service.batch.rows import BatchFailure, Cost, failure_rows
from tubelet.service.batch.source.items import Item, UnusableSource, file_item
from tubelet.service.batch.source.manifest_files import read_manifest
from tubelet.service.types.video import NS_PER_S

RANGES = ((0, 2 * NS_PER_S), (3 * NS_PER_S, round(4.5 * NS_PER_S)))


def parquet(folder: Path, **columns: Any) -> Path:
    """Write a table with these columns."""
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


def text(folder: Path, name: str, content: str) -> Path:
    """Write a manifest of text."""
    (folder / name).write_text(content)
    return folder / name


def only(file: Path) -> Item:
    (item,) = read_manifest(file)
    return item


@pytest.mark.parametrize(
    "form", ["parquet", "pairs in parquet", "text in parquet", "csv", "jsonl", "objects"]
)
def test_a_row_has_a_path_an_id_and_ranges_in_every_format(tmp_path: Path, form: str) -> None:
    pairs = [[0, 2], [3, 4.5]]
    objects = [{"start": start, "end": end} for start, end in pairs]
    file = {
        "parquet": lambda: parquet(tmp_path, uri=["a b.mp4"], id=["x1"], ranges=[objects]),
        "pairs in parquet": lambda: parquet(tmp_path, URI=["a b.mp4"], id=["x1"], ranges=[pairs], other=[1]),
        "text in parquet": lambda: parquet(tmp_path, uri=["a b.mp4 "], id=["x1"], ranges=["0-2; 3-4.5"]),
        "csv": lambda: text(tmp_path, "l.csv", "\ufefflabel,uri,id,ranges\r\nq,a b.mp4,x1,0-2;3-4.5\r\n"),
        "jsonl": lambda: text(
            tmp_path, "l.jsonl", json.dumps({"uri": "a b.mp4", "id": "x1", "ranges": pairs}) + "\n\n"
        ),
        "objects": lambda: text(
            tmp_path, "l.ndjson", json.dumps({"uri": "a b.mp4", "id": "x1", "ranges": objects})
        ),
    }[form]()
    (tmp_path / "a b.mp4").write_bytes(b"1")
    found = only(file)
    assert found == Item("x1", (tmp_path / "a b.mp4").as_uri(), file_item(f"{tmp_path}/a b.mp4").etag, RANGES)


def test_uris_are_kept_with_their_versions(tmp_path: Path) -> None:
    file = text(tmp_path, "l.csv", "uri,etag\ns3://b/a clip%20.mp4,v1\ns3://b/a clip%20.mp4,v2\n")
    first, second = read_manifest(file)
    assert first.uri == second.uri == "s3://b/a%20clip%20.mp4"
    assert (first.etag, second.etag) == ("v1", "v2")
    assert first.id != second.id


def test_a_table_that_is_no_utf_8_has_paths_of_its_bytes_and_ids_of_text(tmp_path: Path) -> None:
    file = tmp_path / "l.csv"
    file.write_bytes("uri,id,etag\ncafé.mp4,Café 1,é\n".encode("cp1252"))
    (tmp_path / "caf\udce9.mp4").write_bytes(b"1")
    found = only(file)
    assert found.etag == file_item(f"{tmp_path}/caf\udce9.mp4").etag
    assert found.id == r"Caf\xe9 1"
    assert only(text(tmp_path, "l.jsonl", json.dumps({"uri": "caf\udce9.mp4", "id": found.id}))) == found
    file.write_bytes("uri,id,etag\ns3://b/1.mp4,Café 1,é\n".encode("cp1252"))
    assert (only(file).id, only(file).etag) == (r"Caf\xe9 1", r"\xe9")
    commits = shard_commits(FolderStore(tmp_path / "rows"))
    commits.commit([failure_rows(only(file), PLAN, BatchFailure("NOT_FOUND", "URI_NOT_FOUND", ""), Cost())])
    assert [row["id"] for row in commits.video_rows()] == [r"Caf\xe9 1"]


def test_the_uri_of_a_file_may_stand_for_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    video = file_item(f"{tmp_path}/caf\udce9 %.mp4")
    (tmp_path / "caf\udce9 %.mp4").write_bytes(b"1")
    found = only(text(tmp_path, "l.csv", f"uri\n{video.uri}\n"))
    assert found.uri == video.uri
    assert found.etag.startswith("1-")


def test_whole_numbers_may_be_ids(tmp_path: Path) -> None:
    assert [
        each.id for each in read_manifest(parquet(tmp_path, uri=["s3://b/1", "s3://b/2"], id=[7, 8]))
    ] == [
        "7",
        "8",
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"uri": null, "id": "b"}', "row 2: there is no uri"),
        ('{"uri": ""}', "row 2: there is no uri"),
        ('{"uri": "s3://b/%zz"}', "row 2: the URI contains a control character, a backslash or a %"),
        ('{"uri": "ftp://b/a"}', "row 2: unsupported URI"),
        ('{"uri": "s3://b/../a"}', r"row 2: the path of the URI contains \., \.\."),
        ('{"uri": 5}', "row 2: uri must be text; found 5"),
        ('{"uri": "a", "ranges": [[2, 1]]}', r"end after its start; found \[\[2, 1\]\]"),
        ('{"uri": "a", "ranges": "2-1; 3-4"}', "row 2: a range must end after its start; found '2-1; 3-4'"),
        ('{"uri": "a", "ranges": [[-1, 1]]}', "row 2: ranges must be pairs of seconds"),
        ('{"uri": "a", "ranges": [[1, 1' + "0" * 400 + "]]}", "row 2: ranges must be pairs of seconds"),
        ('{"uri": "a", "ranges": [[0, NaN]]}', "row 2: ranges must be pairs of seconds"),
        ('{"uri": "a", "ranges": [[0, Infinity]]}', "row 2: ranges must be pairs of seconds"),
        ('{"uri": "a", "ranges": "later"}', "row 2: ranges must be pairs of seconds"),
        ('{"uri": "a", "ranges": 5}', "row 2: ranges must be pairs of seconds"),
        ('{"uri": "a", "id": "' + "x" * 600 + '"}', "row 2: the id has 600 characters; the limit is 512"),
        ('{"uri": "a", "id": "\\ud800"}', r"row 2: id has half of a surrogate pair; found '\\ud800'"),
        ('{"uri": "\\udfff.mp4"}', r"row 2: uri has half of a surrogate pair; found '\\udfff.mp4'"),
        ("[1]", "row 2: it must be an object"),
        ("{torn", "row 2: it is not JSON"),
    ],
)
def test_one_broken_row_spoils_no_other(tmp_path: Path, row: str, says: str) -> None:
    good = '{"uri": "s3://b/1.mp4"}'
    items = list(read_manifest(text(tmp_path, "l.jsonl", f"{good}\n{row}\n{good}\n")))
    assert [each.problem is None for each in items] == [True, False, True]
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(items[1].problem)
    assert items[1].reason == "BROKEN_ROW"
    assert items[1].id == list(read_manifest(tmp_path / "l.jsonl"))[1].id


def test_a_line_of_too_many_cells_is_one_broken_row(tmp_path: Path) -> None:
    first, second = read_manifest(text(tmp_path, "l.csv", "uri,id\ns3://b/1.mp4,1,more\ns3://b/2.mp4,2\n"))
    assert first.problem is not None
    assert "row 1: 3 cells, and the first line names 2 columns" in first.problem
    assert second.problem is None


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"url": ["a"], "label": ["b"]}, "has no column uri; its columns are 'url', 'label'"),
        ({"uri": [1]}, "the column uri must be text; it is int64"),
        ({"uri": ["a"], "id": [1.5]}, "the column id must be text or whole numbers; it is double"),
        ({"uri": ["a"], "ranges": [5]}, "the column ranges must be lists or text; it is int64"),
        ({"uri": pyarrow.array([], pyarrow.string())}, "has no rows"),
    ],
)
def test_tables_with_missing_or_mistyped_columns_are_refused(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnusableSource, match=says):
        list(read_manifest(parquet(tmp_path, **columns)))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("l.parquet", "uri\na\n", "is no Parquet file: "),
        ("l.csv", "url,id\na,b\n", "has no column uri; its columns are 'url', 'id'"),
        ("l.csv", "", "has no column uri; its columns are none"),
        ("l.jsonl", '{"url": "a"}\n{"path": "b"}\n', "has no column uri; its columns are 'url', 'path'"),
        ("l.jsonl", "", "has no rows"),
    ],
)
def test_files_that_are_no_manifest_are_refused(tmp_path: Path, name: str, content: str, says: str) -> None:
    with pytest.raises(UnusableSource, match=says):
        list(read_manifest(text(tmp_path, name, content)))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path, uri=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"needs pyarrow: pip install 'tubelet\[parquet\]'"):
        list(read_manifest(file))
