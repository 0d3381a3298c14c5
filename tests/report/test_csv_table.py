"""The table of segments, as Python's csv module reads it back."""

import csv
from io import StringIO

import pytest

from tubelet.service.report.csv_table import COLUMNS, csv_header, csv_rows
from tubelet.service.types.result import Classification, Label, Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata

METADATA = VideoMetadata("mov", "h264", 320, 240, 25.0, 50, 2 * NS_PER_S, 1)


def answer_of(*segments: Segment) -> Classification:
    return Classification(METADATA, "m", "1", segments, (), {})


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text, newline=""), strict=True))


def test_each_label_of_each_segment_is_a_row() -> None:
    labels = (Label("pan_left", 0.9644827728023022), Label("static", 0.01))
    answer = answer_of(Segment(0, NS_PER_S, labels), Segment(NS_PER_S, 7_200_033_366_667, ()))
    text = csv_header() + csv_rows("a.mp4", answer.segments)
    assert text.splitlines() == [
        "video,start_s,end_s,rank,label,score",
        "a.mp4,0.0,1.0,1,pan_left,0.9644827728023022",
        "a.mp4,0.0,1.0,2,static,0.01",
        "a.mp4,1.0,7200.033366667,,,",
    ]
    first = read(text)[0]
    assert (float(first["score"]), float(read(text)[2]["end_s"])) == (labels[0].score, 7200.033366667)


@pytest.mark.parametrize(
    "text",
    [
        'quote " comma , semicolon ; tab \t',
        "two\nlines\r\nand a third",
        "a carriage return \r alone",
        "x" * 10_000,
        "</script><b>",
        "größer 猫 \u202eright to left",
        "-",
        "",
    ],
)
def test_text_survives_as_it_is(text: str) -> None:
    (row,) = read(csv_header() + csv_rows(text, [Segment(0, 1, (Label(text, 1.0),))]))
    assert (row["video"], row["label"]) == (text, text)


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "\t=1", "\r\n=cmd|' /C calc'!A0", ' =HYPERLINK("http://x")'],
)
def test_formula_gets_an_apostrophe(text: str) -> None:
    (row,) = read(csv_header() + csv_rows(text, [Segment(0, 1, (Label(text, 1.0),))]))
    assert (row["video"], row["label"]) == (f"'{text}", f"'{text}")


def test_name_that_is_not_utf_8_is_escaped() -> None:
    (row,) = read(csv_header() + csv_rows("caf\udce9.mp4", [Segment(0, 1, ())]))
    assert row == dict.fromkeys(COLUMNS, "") | {"video": "caf\\xe9.mp4", "start_s": "0.0", "end_s": "1e-09"}
