"""The formats of parts, the files that hold rows: Parquet, JSON lines and CSV.

D numbers in an embedding.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from io import BytesIO, StringIO
from typing import Any, Literal, Protocol

import numpy as np

from tubelet.models.errors import MissingExtra
from tubelet.service.batch.rows import Row
from tubelet.service.batch.schema import SCHEMA_VERSION, Column, Kind

PartFormat = Literal["parquet", "jsonl", "csv"]


class PartFile(Protocol):
    """A format of parts."""

    def encode(self, columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
        """Return the bytes of a part with these rows."""
        ...

    def decode(self, columns: Sequence[Column], content: bytes) -> list[Row]:
        """Return the rows of a part; values are as ``encode`` got them."""
        ...


class ParquetPart:
    """Parts in Parquet (``tubelet[parquet]``); the metadata of the schema has tubelet.schema, its version."""

    def __init__(self) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow, self._parquet = pyarrow, pyarrow.parquet

    def encode(self, columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
        arrays = {each.name: self._array(each.kind, [row.get(each.name) for row in rows]) for each in columns}
        table = self._arrow.table(arrays, metadata={"tubelet.schema": str(SCHEMA_VERSION)})
        content = BytesIO()
        self._parquet.write_table(table, content, compression="zstd")
        return content.getvalue()

    def decode(self, columns: Sequence[Column], content: bytes) -> list[Row]:
        rows = self._parquet.read_table(BytesIO(content)).to_pylist()
        return [{name: value for name, value in row.items() if value is not None} for row in rows]

    def _array(self, kind: Kind, values: list[Any]) -> Any:
        """Return the values as an array of the kind's type."""
        arrow = self._arrow
        if kind == "vector":
            vectors = np.stack(values) if values else np.empty((0, 1), np.float32)
            numbers = arrow.array(vectors.reshape(-1), arrow.float32())
            return arrow.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
        types = {
            "text": arrow.string(),
            "integer": arrow.int64(),
            "number": arrow.float64(),
            "time": arrow.timestamp("ms"),
            "texts": arrow.list_(arrow.string()),
            "numbers": arrow.list_(arrow.float32()),
            "ranges": arrow.list_(arrow.list_(arrow.float64(), 2)),
        }
        return arrow.array(values, types[kind])


class JsonLinesPart:
    """Parts of one JSON object a row."""

    def encode(self, columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
        lines = (json.dumps(_plain(columns, row), ensure_ascii=False) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")

    def decode(self, columns: Sequence[Column], content: bytes) -> list[Row]:
        return [_typed(columns, json.loads(line)) for line in content.splitlines()]


class CsvPart:
    """Parts of comma-separated values (RFC 4180, but that lines end with a line feed); lists are JSON."""

    def encode(self, columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
        text = StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
        writer.writerow([each.name for each in columns])
        for row in rows:
            writer.writerow(map(_cell, _plain(columns, row).values()))
        return text.getvalue().encode(errors="backslashreplace")

    def decode(self, columns: Sequence[Column], content: bytes) -> list[Row]:
        lines = csv.DictReader(StringIO(content.decode(), newline=""))
        kinds: dict[str, Kind] = {each.name: each.kind for each in columns}
        texts = ({name: _value(kinds[name], cell) for name, cell in line.items()} for line in lines)
        return [_typed(columns, row) for row in texts]


def part_file(part_format: PartFormat) -> PartFile:
    """Return what writes and reads parts of a format.

    Raises:
        MissingExtra: the format needs a library that is not installed.
    """
    match part_format:
        case "parquet":
            try:
                return ParquetPart()
            except ModuleNotFoundError:
                needs = "--format parquet needs pyarrow: pip install 'tubelet[parquet]'"
                raise MissingExtra(f"{needs}, or choose --format jsonl") from None
        case "jsonl":
            return JsonLinesPart()
        case "csv":
            return CsvPart()


def _plain(columns: Iterable[Column], row: Row) -> dict[str, Any]:
    """Return a row as JSON, with null for columns without a value."""
    plain = {each.name: row.get(each.name) for each in columns}
    for name, value in plain.items():
        if isinstance(value, datetime):
            plain[name] = value.isoformat(timespec="milliseconds") + "Z"
        elif isinstance(value, np.ndarray):
            plain[name] = [float(number) for number in value]
    return plain


def _typed(columns: Iterable[Column], plain: Mapping[str, Any]) -> Row:
    """Return the row of a JSON object."""
    row = {name: value for name, value in plain.items() if value is not None}
    for each in columns:
        if each.kind == "time" and each.name in row:
            row[each.name] = datetime.fromisoformat(row[each.name].removesuffix("Z"))
    return row


def _cell(value: Any) -> Any:
    """Return a value for a cell."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _value(kind: Kind, cell: str) -> Any:
    """Return the value of a cell."""
    match kind:
        case "text" | "time":
            return cell or ("" if kind == "text" else None)
        case "integer":
            return int(cell) if cell else None
        case "number":
            return float(cell) if cell else None
        case _:
            return json.loads(cell) if cell else None
