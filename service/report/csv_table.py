"""Segments as a table of comma-separated values, with a row for each label of each segment.

The format is RFC 4180, but that lines end with a line feed alone, as other text files here.
"""

import csv
from collections.abc import Iterable, Iterator
from io import StringIO

from tubelet.service.report.text import decodable
from tubelet.service.types.result import Segment

COLUMNS = ("video", "start_s", "end_s", "rank", "label", "score")
# A spreadsheet takes a cell that begins so for a formula, which may run programs or send data away (OWASP,
# "CSV injection"); the wide signs are those of East Asian keyboards.
_FORMULA_STARTS = tuple("=+-@＝＋－＠")
_QUOTED_BREAKS = "\r\n"  # the writer puts a cell in quotes for the characters that end its lines


def csv_header() -> str:
    """Return the first line of a table."""
    return _lines([COLUMNS])


def csv_rows(video: str, segments: Iterable[Segment]) -> str:
    """Return the lines of a video's segments: best label first, ``rank`` counts from 1.

    A segment without labels has one row, whose last three columns are empty. Text that a spreadsheet would
    take for a formula gets an apostrophe in front.
    """
    return _lines(_rows(decodable(video), segments))


def _rows(video: str, segments: Iterable[Segment]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a video."""
    for segment in segments:
        place = _inert(video), segment.start_s, segment.end_s
        for rank, label in enumerate(segment.labels, 1):
            yield *place, rank, _inert(label.name), label.score
        if not segment.labels:
            yield *place, "", "", ""


def _inert(text: str) -> str:
    """Return ``text`` so that no spreadsheet takes it for a formula; a sign alone is none."""
    begin = text.lstrip()
    return f"'{text}" if begin.startswith(_FORMULA_STARTS) and len(begin) > 1 else text


def _lines(rows: Iterable[tuple[object, ...]]) -> str:
    """Return rows as lines."""
    return "".join(map(_line, rows))


def _line(row: tuple[object, ...]) -> str:
    """Return a row as a line; a cell with a line feed or carriage return is in quotes."""
    file = StringIO(newline="")
    csv.writer(file, lineterminator=_QUOTED_BREAKS).writerow(row)
    return file.getvalue().removesuffix(_QUOTED_BREAKS) + "\n"
