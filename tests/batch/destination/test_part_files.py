"""Parts in each format: what comes back, and what other programs read."""

import csv
import json
from io import BytesIO, StringIO

import numpy as np
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest

from tests.support.batches import classified, failed
from tubelet.service.batch.destination.part_files import PartFormat, part_file
from tubelet.service.batch.schema import EMBEDDING, SCHEMA_VERSION, SEGMENTS, VIDEOS

FORMATS: tuple[PartFormat, ...] = ("parquet", "jsonl", "csv")
ROWS = [classified(1).video, failed(2).video]
WITH_VECTORS = [row | {"embedding": np.array([0.5, 2.0], np.float32)} for row in classified(1).segments]


@pytest.mark.parametrize("part_format", FORMATS)
def test_rows_come_back_as_they_were(part_format: PartFormat) -> None:
    part = part_file(part_format)
    found = part.decode(VIDEOS, part.encode(VIDEOS, ROWS))
    assert [row["finished_at"].replace(microsecond=0) for row in found] == [
        row["finished_at"].replace(microsecond=0) for row in ROWS
    ]
    for row, wanted in zip(found, ROWS, strict=True):
        # CSV cannot tell a text without characters from none.
        kept = {name: value for name, value in row.items() if name in wanted or value != ""}
        assert kept | {"finished_at": 0} == wanted | {"finished_at": 0}
    assert part.encode(VIDEOS, found) == part.encode(VIDEOS, part.decode(VIDEOS, part.encode(VIDEOS, found)))


def test_parquet_has_documented_types_and_the_version_of_the_schema() -> None:
    segments = (*SEGMENTS, EMBEDDING)
    table = pyarrow.parquet.read_table(BytesIO(part_file("parquet").encode(segments, WITH_VECTORS)))
    assert table.schema.names == [each.name for each in segments]
    assert table.schema.metadata[b"tubelet.schema"] == str(SCHEMA_VERSION).encode()
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[2]"
    assert str(table.schema.field("scores").type) == "list<element: float>"
    assert table.column("embedding").to_pylist() == [[0.5, 2.0]] * 2


def test_columns_keep_their_types_where_no_row_has_a_value() -> None:
    parts = [part_file("parquet").encode(VIDEOS, [row]) for row in ROWS]
    schemas = [pyarrow.parquet.read_schema(BytesIO(part)) for part in parts]
    assert schemas[0] == schemas[1]


def test_other_programs_read_json_lines_and_csv() -> None:
    lines = part_file("jsonl").encode(SEGMENTS, classified(1).segments)
    assert pyarrow.json.read_json(BytesIO(lines)).column("labels").to_pylist() == [["static", "pan"]] * 2
    assert [json.loads(line)["start_s"] for line in lines.splitlines()] == [0.0, 1.0]
    table = part_file("csv").encode((*SEGMENTS, EMBEDDING), WITH_VECTORS)
    rows = list(csv.DictReader(StringIO(table.decode())))
    assert [json.loads(row["embedding"]) for row in rows] == [[0.5, 2.0]] * 2
    assert pyarrow.csv.read_csv(BytesIO(table)).column("end_s").to_pylist() == [1.0, 2.0]
