"""The form of log lines: text or JSON. No text of a client can break a line or begin one.

A record of ``logging`` may have ``extra={"fields": {...}}``: they follow its message as ``key=value``, or are
keys of the JSON object. The request id of the call that logs is one of them.
"""

import json
import logging
import re
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from math import isfinite
from typing import Literal, TextIO

Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]
Fields = Mapping[str, str | float]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The request id of the call that the current task works for; empty outside of calls."""

_MAX_VALUE = 256  # characters of a field
_MAX_MESSAGE = 4000  # characters of a message, and of each half of a traceback
_CUT = "…"
_GRPC = "grpc._cython.cygrpc"  # the logger of gRPC's Python part
_UNWANTED = (
    "Invalid encoding on",  # repeats a header that is no UTF-8, which may be a token
    "ExecuteBatchError raised in core",  # a client left before its answer: the line of its call says so
)
_BARE = re.compile(r"[\w.:/+%@-]+", re.ASCII)  # a value that needs no quotation marks


def start_logging(form: Format, level: Level, stream: TextIO | None = None) -> None:
    """Write all records from ``level`` on to ``stream`` (None: standard error); Python's warnings, too."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger(_GRPC).addFilter(_is_wanted)
    logging.captureWarnings(True)


def _is_wanted(record: logging.LogRecord) -> bool:
    """Tell whether a record of gRPC is one for the log."""
    return not str(record.msg).startswith(_UNWANTED)


class TextLines(logging.Formatter):
    """Text: time, level, logger, message, fields. The lines of a traceback follow, each with an indent."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, without a line break at its end."""
        fields = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        head = f"{_time(record)} {record.levelname} {record.name}: {_printable(_message(record))}{fields}"
        return "\n    ".join([head, *map(_printable, _traceback(record).splitlines())])


class JsonLines(logging.Formatter):
    """JSON: an object a line; a traceback is its ``exception``. All characters beyond ASCII are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of ``record``, without a line break at its end."""
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        line |= _fields(record)
        if exception := _traceback(record):
            line["exception"] = exception
        return json.dumps(line)


def _time(record: logging.LogRecord) -> str:
    """Return the time of ``record`` in UTC, in milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _message(record: logging.LogRecord) -> str:
    """Return the message of ``record``; a long one is cut."""
    return _cut(record.getMessage(), _MAX_MESSAGE)


def _fields(record: logging.LogRecord) -> dict[str, str | float]:
    """Return the fields of ``record``, and the request id; long texts are cut."""
    fields: Fields = getattr(record, "fields", {})
    current = request_id.get()
    if current and "request_id" not in fields:
        fields = {"request_id": current, **fields}
    return {key: _value(value) for key, value in fields.items()}


def _value(value: str | float) -> str | float:
    """Cut a long text; turn a number that JSON lacks into text."""
    if isinstance(value, str):
        return _cut(value, _MAX_VALUE)
    return value if isfinite(value) else str(value)


def _traceback(record: logging.LogRecord) -> str:
    """Return the traceback of ``record`` as text; empty if it has none. Of a long one the middle is cut."""
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    text = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
    if len(text) <= 2 * _MAX_MESSAGE:
        return text
    return f"{text[:_MAX_MESSAGE]}\n{_CUT}\n{text[-_MAX_MESSAGE:]}"


def _cut(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters; an ellipsis marks the cut."""
    return text if len(text) <= length else text[: length - 1] + _CUT


def _printable(text: str) -> str:
    """Escape what is not printable: line breaks, control characters, marks of direction."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _quoted(value: str | float) -> str:
    """Return ``value`` as text, in quotation marks where it could be taken for more than one field."""
    text = str(value)
    return text if _BARE.fullmatch(text) else _printable(json.dumps(text, ensure_ascii=False))
