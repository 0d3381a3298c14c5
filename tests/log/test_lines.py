"""One line a record, whatever text it holds."""

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from tubelet.service.log.lines import Format, JsonLines, TextLines, request_id, start_logging

HOSTILE = (
    "a\nb",
    "a\r\n2026-11-29T00:00:00.000Z INFO tubelet.call: call code=OK",
    "\x1b[2J\x07\x00\x7f\x85",
    "\u2028\u2029\u202e",
    "\ud800",
    'quote " and \\ back',
    "a b=c",
    "x" * (1 << 20),
)
FORMATTERS = {"text": TextLines(), "json": JsonLines()}


def record(message: str, *arguments: object, **fields: str | float) -> logging.LogRecord:
    made = logging.LogRecord("tubelet.test", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__["fields"] = fields
    return made


def failed(message: str) -> logging.LogRecord:
    """Return a record with the traceback of an error with this message."""
    made = record("it failed")
    try:
        raise ValueError(message)
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    return made


@contextmanager
def call(call_id: str) -> Iterator[None]:
    token = request_id.set(call_id)
    try:
        yield
    finally:
        request_id.reset(token)


def test_text_has_time_level_logger_message_and_fields() -> None:
    line = TextLines().format(record("%d calls", 3, code="OK", peer="ipv4:1.2.3.4:5", label="pan left", n=2))
    time, _, rest = line.partition(" ")
    assert datetime.fromisoformat(time).utcoffset() is not None
    assert rest == 'WARNING tubelet.test: 3 calls code=OK peer=ipv4:1.2.3.4:5 label="pan left" n=2'


def test_json_has_the_same() -> None:
    line = json.loads(JsonLines().format(record("%d calls", 3, label="pan left", n=2, score=0.5)))
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "WARNING",
        "logger": "tubelet.test",
        "message": "3 calls",
        "label": "pan left",
        "n": 2,
        "score": 0.5,
    }


@pytest.mark.parametrize("form", FORMATTERS)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_hostile_text_stays_in_its_line(form: Format, text: str) -> None:
    with call(text):
        line = FORMATTERS[form].format(record("said %s", text, label=text))
    assert len(line) < 50_000
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    if form == "json":
        parsed = json.loads(line)
        whole = "said " + text
        assert parsed["message"] in (whole, f"{whole[:3999]}…")
        assert parsed["label"] == parsed["request_id"] in (text, f"{text[:255]}…")
    else:
        values = re.findall(r' (?:request_id|label)=(\S+|"(?:[^"\\]|\\.)*")(?= |$)', line)
        assert len(values) == 2


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_traceback_cannot_begin_a_line(text: str) -> None:
    lines = TextLines().format(failed(text)).split("\n")
    assert lines[0].endswith("WARNING tubelet.test: it failed")
    assert len(lines) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:])
    assert sum(map(len, lines)) < 50_000
    one = JsonLines().format(failed(text))
    assert len(one.splitlines()) == 1
    assert "ValueError" in json.loads(one)["exception"]


def test_numbers_that_json_lacks_are_text() -> None:
    line = JsonLines().format(record("", score=float("nan"), size=float("inf")))
    parsed = json.loads(line, parse_constant=pytest.fail)
    assert (parsed["score"], parsed["size"]) == ("nan", "inf")


def test_lines_of_a_call_have_its_id_once() -> None:
    with call("abc"):
        assert TextLines().format(record("x")).endswith(": x request_id=abc")
        assert json.loads(JsonLines().format(record("x", request_id="own")))["request_id"] == "own"
    assert "request_id" not in TextLines().format(record("x"))


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, whose handlers and level come back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield root
    logging.captureWarnings(False)
    root.handlers[:], level = before
    root.setLevel(level)


@pytest.mark.parametrize("form", FORMATTERS)
def test_all_loggers_write_in_one_form_from_a_level_on(root: logging.Logger, form: Format) -> None:
    stream = io.StringIO()
    start_logging(form, "warning", stream)
    logging.getLogger("grpc._cython.cygrpc").error("of a library")
    logging.getLogger("tubelet.service").info("below the level")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "of a library" in lines[0]
    assert lines[0].startswith("{") == (form == "json")
