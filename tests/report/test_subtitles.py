"""Subtitles as the ffmpeg program reads them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tubelet.service.report.subtitles import srt_text, webvtt_text
from tubelet.service.types.result import Classification, Label, Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata

METADATA = VideoMetadata("mov", "h264", 320, 240, 25.0, 50, 2 * NS_PER_S, 1)
HOUR = 3600 * NS_PER_S
pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
WRITERS = [pytest.param(srt_text, "srt", id="srt"), pytest.param(webvtt_text, "vtt", id="vtt")]


def answer_of(*segments: tuple[int, int, str]) -> Classification:
    """Return an answer with a label for each (start, end) in ns; none where its name is empty."""
    return Classification(
        METADATA,
        "m",
        "1",
        tuple(Segment(start, end, (Label(name, 0.5),) if name else ()) for start, end, name in segments),
        (),
        {},
    )


def cues_by_ffmpeg(path: Path) -> list[tuple[float, float, str]]:
    """Return start and end in seconds and the text of each cue of a file."""
    command = ["ffprobe", "-v", "error", "-show_entries", "packet=pts_time,duration_time", "-of", "json"]
    packets = json.loads(subprocess.run([*command, str(path)], capture_output=True, check=True).stdout)[
        "packets"
    ]
    ass = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "ass", "-"], capture_output=True, check=True
    ).stdout.decode()
    texts = re.findall(r"^Dialogue: (?:[^,\n]*,){9}([^\r\n]*)\r?$", ass, re.MULTILINE)
    times = [(float(each["pts_time"]), float(each["duration_time"])) for each in packets]
    return [
        (start, round(start + length, 3), text) for (start, length), text in zip(times, texts, strict=True)
    ]


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
def test_times_and_labels_are_those_of_the_merged_segments(tmp_path: Path, write, suffix: str) -> None:
    answer = answer_of(
        (0, NS_PER_S, "static"),
        (NS_PER_S, 2 * NS_PER_S, "static"),
        (2 * NS_PER_S, 2_033_366_667, "pan_left"),
        (2_033_366_667, 4 * NS_PER_S, ""),
        (HOUR - 1, 2 * HOUR + 1_500_000, "zoom_in"),
        (25 * HOUR, 25 * HOUR + 1, "roll_cw"),
    )
    path = tmp_path / f"labels.{suffix}"
    path.write_text(write(answer))
    assert cues_by_ffmpeg(path) == [
        (0.0, 2.0, "static 0.50"),
        (2.0, 2.033, "pan_left 0.50"),
        (3600.0, 7200.002, "zoom_in 0.50"),
        (90000.0, 90000.001, "roll_cw 0.50"),
    ]


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
@pytest.mark.parametrize(
    "name",
    [
        "a --> b",
        "<b>bold</b>",
        "{\\an8}top",
        "a & b &amp; &lt;i&gt;",
        "</script><script>alert(1)</script>",
        "one\n\n2\n00:00:00,000 --> 00:00:09,000\ntwo",
        "\u202eright to left\u2028",
        "-->",
        "NOTE",
        "größer 猫",
    ],
)
def test_hostile_labels_are_one_line_of_plain_text(tmp_path: Path, write, suffix: str, name: str) -> None:
    path = tmp_path / f"labels.{suffix}"
    path.write_text(
        write(answer_of((0, NS_PER_S, name), (NS_PER_S, 2 * NS_PER_S, "after"))), encoding="utf-8"
    )
    (start, end, text), after = cues_by_ffmpeg(path)
    assert (start, end, after) == (0.0, 1.0, (1.0, 2.0, "after 0.50"))
    seen = text.replace("\u2060", "").replace("\\{", "{").replace("\\}", "}").removesuffix(" 0.50")
    escaped = {"\n": "\\n", "\u202e": "\\u202e", "\u2028": "\\u2028"}
    assert seen == "".join(escaped.get(each, each) for each in name)


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
def test_long_label_is_cut_and_no_segment_is_a_valid_file(tmp_path: Path, write, suffix: str) -> None:
    path = tmp_path / f"labels.{suffix}"
    path.write_text(write(answer_of((0, NS_PER_S, "x" * 10_000))))
    ((_, _, text),) = cues_by_ffmpeg(path)
    assert text == f"{'x' * 99}… 0.50"
    assert write(answer_of()) == {"srt": "", "vtt": "WEBVTT\n\nNOTE Labels by tubelet\n\n"}[suffix]
