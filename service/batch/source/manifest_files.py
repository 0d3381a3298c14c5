"""Manifests: tables of videos in Parquet, CSV or JSON lines, with the columns uri, id, ranges and etag.

Only ``uri`` must be there: a URI, or a path relative to the manifest. Other columns are ignored. A row that
cannot be used becomes an item with a problem; a table that lacks a column or has it in another type is
refused as a whole.
"""

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tubelet.models.errors import MissingExtra
from tubelet.service.batch.source.items import Item, Ranges, UnusableSource, file_item, item_id, uri_item
from tubelet.service.report.text import decodable
from tubelet.service.types.uri import is_uri, parse_uri
from tubelet.service.types.video import NS_PER_S

MANIFESTS = (".parquet", ".csv", ".jsonl", ".ndjson")
"""The suffixes of manifests."""
COLUMNS = ("uri", "id", "ranges", "etag")

_REASON = "BROKEN_ROW"
_MAX_ID = 512  # characters
_MAX_S = 1e9  # about thirty years; in nanoseconds, more does not fit into 64 bits
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes of a file name
_RANGE_TEXT = re.compile(r"\s*([0-9.]+)\s*-\s*([0-9.]+)\s*")
_BATCH_ROWS = 10_000  # of a Parquet file that are in memory at a time


class UnusableRow(ValueError):
    """A row of a manifest is not what it should be; the others may be."""


def read_manifest(file: Path, base: str = "") -> Iterator[Item]:
    """Yield the videos of a manifest, in order; paths are relative to ``base``, a URI, or else to the file.

    Raises:
        UnusableSource: the file cannot be read, lacks a column, has one in another type, or has no rows.
        MissingExtra: pyarrow is not installed.
    """
    readers = {".parquet": _parquet_rows, ".csv": _csv_rows}
    rows = readers.get(file.suffix.lower(), _json_rows)(file)
    empty = True
    try:
        for number, row in enumerate(rows, 1):
            empty = False
            yield _item(file, base, number, row)
    except OSError as error:
        raise UnusableSource(f"{file} cannot be read: {error.strerror}") from None
    if empty:
        raise UnusableSource(f"{file} has no rows")


def _item(file: Path, base: str, number: int, row: Mapping[str, Any] | UnusableRow) -> Item:
    """Return the video of a row."""
    place = f"{base or file.absolute().parent.as_uri()}/{quote(file.name)}#{number}"
    if isinstance(row, UnusableRow):
        return Item(item_id(place, ""), place, problem=f"{file.name}, row {number}: {row}", reason=_REASON)
    # A path keeps bytes that are not UTF-8; ids and versions are text in rows.
    text = {"uri": _text(row.get("uri"))} | {name: decodable(_text(row.get(name))) for name in ("id", "etag")}
    try:
        return _checked_item(file, base, text, row.get("ranges"))
    except ValueError as error:
        name = text["id"][:_MAX_ID] or item_id(place, "")
        problem = f"{file.name}, row {number}: {error}"
        return Item(name, text["uri"] or place, problem=problem, reason=_REASON)


def _checked_item(file: Path, base: str, text: Mapping[str, str], ranges: Any) -> Item:
    """Return the video of a row's values.

    Raises:
        ValueError: one is missing or malformed; the message says which.
    """
    if not text["uri"]:
        raise UnusableRow("there is no uri")
    if len(text["id"]) > _MAX_ID:
        raise UnusableRow(f"the id has {len(text['id'])} characters; the limit is {_MAX_ID}")
    wanted = parse_ranges(ranges)
    is_path = not is_uri(text["uri"])
    if is_path and not base:
        return file_item(os.path.join(file.parent, text["uri"]), wanted, text["id"] or None)
    uri = parse_uri(f"{base}/{quote(text['uri'].lstrip('/'))}" if is_path else text["uri"])
    if uri.scheme == "file":
        return file_item(uri.local_path, wanted, text["id"] or None)
    return uri_item(uri.url, text["etag"], wanted, text["id"] or None)


def parse_ranges(value: Any) -> Ranges:
    """Parse time ranges in seconds into nanoseconds: pairs of numbers, objects with start and end, or text.

    The text is ``0-2.5; 4-6``, or the same as JSON.

    Raises:
        UnusableRow: they are something else.
    """
    if value is None or value == "":
        return ()
    found = _pairs(value) if isinstance(value, str) else value
    try:
        pairs = [(each["start"], each["end"]) if isinstance(each, dict) else tuple(each) for each in found]
        ranges = tuple((_nanoseconds(start), _nanoseconds(end)) for start, end in pairs)
    except (TypeError, ValueError, LookupError):
        raise UnusableRow(f"ranges must be pairs of seconds, such as [[0, 2.5]]; found {value!r}") from None
    if not all(start < end for start, end in ranges):
        raise UnusableRow(f"a range must end after its start; found {value!r}")
    return ranges


def _pairs(text: str) -> Any:
    """Return the pairs that a text has, as JSON or as ``START-END; ...``; else the text."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    found = [_RANGE_TEXT.fullmatch(part) for part in text.split(";")]
    return [(float(each[1]), float(each[2])) for each in found if each] if all(found) else text


def _nanoseconds(seconds: Any) -> int:
    """Convert a time in seconds to nanoseconds; raise ValueError or TypeError if it is none."""
    if isinstance(seconds, bool) or not 0 <= seconds <= _MAX_S:
        raise ValueError
    return round(seconds * NS_PER_S)


def _text(value: Any) -> str:
    """Return a value as text without blanks around it; "" stands for none."""
    return "" if value is None else str(value).strip()


def _parquet_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a Parquet file."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtra(f"{file} needs pyarrow: pip install 'tubelet[parquet]'") from None
    types = pyarrow.types
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowException as error:
        raise UnusableSource(f"{file} is no Parquet file: {str(error).splitlines()[0]}") from None
    schema = table.schema_arrow
    names = _column_names(file, schema.names)
    for column, name in names.items():
        kind = schema.field(name).type
        plain = kind.value_type if types.is_dictionary(kind) else kind
        is_text = types.is_string(plain) or types.is_large_string(plain)
        is_right = {
            "uri": is_text,
            "etag": is_text,
            "id": is_text or types.is_integer(plain),
            "ranges": is_text or types.is_list(plain) or types.is_large_list(plain),
        }[column]
        if not is_right:
            wanted = {"id": "text or whole numbers", "ranges": "lists or text"}.get(column, "text")
            raise UnusableSource(f"{file}: the column {name} must be {wanted}; it is {kind}")
    try:
        for batch in table.iter_batches(_BATCH_ROWS, columns=list(names.values())):
            for row in batch.to_pylist():
                yield {column: row[name] for column, name in names.items()}
    except pyarrow.ArrowException as error:
        raise UnusableSource(f"{file} is damaged: {str(error).splitlines()[0]}") from None


def _csv_rows(file: Path) -> Iterator[Mapping[str, Any] | UnusableRow]:
    """Yield the rows of a table of comma-separated values, whose first line names the columns."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines)
        try:
            header = next(reader, [])
            names = _column_names(file, header)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield UnusableRow(f"{len(cells)} cells, and the first line names {len(header)} columns")
                    continue
                row = dict(zip(header, cells, strict=True))
                yield {column: row[name] for column, name in names.items()}
        except csv.Error as error:
            raise UnusableSource(f"{file}, line {reader.line_num}: {error}") from None


def _json_rows(file: Path) -> Iterator[Mapping[str, Any] | UnusableRow]:
    """Yield the objects of a file with one JSON object a line."""
    names: dict[str, None] | None = {}  # that were seen; None once one is uri
    with file.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            row = _json_row(line)
            if names is not None and isinstance(row, dict):
                names = None if "uri" in row else names | dict.fromkeys(row)
            yield row
    if names:
        _column_names(file, names)


def _json_row(line: bytes) -> dict[str, Any] | UnusableRow:
    """Return the object of a line."""
    try:
        found = json.loads(line)
    except ValueError as error:
        return UnusableRow(f"it is not JSON: {error}")
    if not isinstance(found, dict):
        return UnusableRow(f'it must be an object, such as {{"uri": "clip.mp4"}}; found {found!r:.60}')
    row = {name.strip().lower(): value for name, value in found.items()}
    for column, kinds in {"uri": (str,), "etag": (str,), "id": (str, int)}.items():
        value = row.get(column)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            return UnusableRow(f"{column} must be text; found {value!r:.60}")
        if _SURROGATE.search(str(value)):
            return UnusableRow(f"{column} has half of a surrogate pair; found {value!r:.60}")
    return row


def _column_names(file: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the names of the columns that a manifest may have, as this one writes them.

    Raises:
        UnusableSource: it has no column uri.
    """
    found = {name.strip().lower(): name for name in names}
    if "uri" not in found:
        listed = ", ".join(map(repr, found)) or "none"
        raise UnusableSource(f"{file} has no column uri; its columns are {listed}")
    return {column: found[column] for column in COLUMNS if column in found}
