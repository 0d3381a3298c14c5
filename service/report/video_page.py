"""The page of one video: its pictures, labels and segments over time, and the answer's other facts."""

import gzip
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tubelet.service.report.maps.page_data import METHOD_NOTES, page_maps
from tubelet.service.report.maps.tracks import MapTrack
from tubelet.service.report.merged_segments import Line, MergedSegment, merge_segments
from tubelet.service.report.page import render_page
from tubelet.service.report.text import printable
from tubelet.service.types.result import Classification, Label, Segment
from tubelet.service.types.video import NS_PER_S, STAGES, Thumbnail

_SCRIPTS = ("answer.js", "player.js", "lanes.js", "timeline.js", "segments.js", "downloads.js", "video.js")
_SCORE_DIGITS = 4
_LEAST_SEGMENT_BYTES = len("0.0, 1.0, 1, ")  # of its start, end and number of labels
_LEAST_LABEL_BYTES = len("0, 0.5, ")


@dataclass(frozen=True, slots=True)
class PlayableVideo:
    """A video that browsers play, to be held by a page: its media type and its bytes."""

    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """A file that a page offers: the name of its format, the file's name, media type and text."""

    title: str
    name: str
    media_type: str
    text: str


def render_video_page(
    name: str,
    answer: Classification,
    video: PlayableVideo | None,
    notes: Sequence[str],
    downloads: Sequence[Download],
    tracks: Sequence[MapTrack] = (),
) -> str:
    """Return the page of the video ``name``.

    ``notes`` are sentences above the answer, such as why the page has no ``video``. ``tracks`` are maps of
    what the model looked at; the first one is shown at the start.
    """
    return render_page(
        "video.html",
        (*_SCRIPTS, "maps.js") if tracks else _SCRIPTS,
        name=name,
        answer=answer,
        stages=[(stage, answer.stage_seconds[stage]) for stage in STAGES if stage in answer.stage_seconds],
        data=_answer_data(answer),
        thumbnails=[_thumbnail_data(each) for each in answer.thumbnails],
        video=video,
        video_text=b64encode(video.content).decode() if video is not None else "",
        notes=notes,
        downloads=[_download_data(each) for each in downloads],
        maps=page_maps(tracks) if tracks else None,
        method_notes=METHOD_NOTES,
        maps_are_cut=any(track.is_cut for track in tracks),
    )


def least_page_bytes(answer: Classification) -> int:
    """Return a size that no page of the answer is below, without rendering one, which may take long."""
    labels = sum(len(segment.labels) for segment in answer.segments)
    return _LEAST_SEGMENT_BYTES * len(answer.segments) + _LEAST_LABEL_BYTES * labels


def _answer_data(answer: Classification) -> dict[str, Any]:
    """Return what the scripts draw: each label's name once, and the segments as flat lists."""
    numbers: dict[str, int] = {}

    def numbered(labels: Sequence[Label]) -> list[int]:
        """Return the numbers of labels; a new one gets the next."""
        return [numbers.setdefault(label.name, len(numbers)) for label in labels]

    whole = numbered(answer.labels)
    segments = answer.segments
    ranked = [number for segment in segments for number in numbered(segment.labels)]
    merged = [_merged_data(line, numbers) for line in merge_segments(segments)]
    return {
        "duration_s": max(answer.metadata.duration_s, segments[-1].end_s if segments else 0.0),
        "labels": [printable(name) for name in numbers],
        "whole": whole,
        "starts_s": [segment.start_s for segment in segments],
        "ends_s": [segment.end_s for segment in segments],
        "counts": [len(segment.labels) for segment in segments],
        "ranked": ranked,
        "scores": [_rounded(label.score) for segment in segments for label in segment.labels],
        "merged": merged,
    }


def _merged_data(line: Line, numbers: dict[str, int]) -> dict[str, Any]:
    """Return a row of the table of merged segments."""
    if isinstance(line, Segment):
        best = line.labels[0] if line.labels else None
        score = best.score if best is not None else 0.0
        line = MergedSegment(line.start_ns, line.end_ns, best, score, score, 1)
    return {
        "start_s": line.start_ns / NS_PER_S,
        "end_s": line.end_ns / NS_PER_S,
        "label": None if line.best is None else numbers[line.best.name],
        "mean": 0.0 if line.best is None else _rounded(line.best.score),
        "lowest": _rounded(line.lowest),
        "highest": _rounded(line.highest),
        "segments": line.segments,
    }


def _thumbnail_data(thumbnail: Thumbnail) -> dict[str, Any]:
    """Return a picture of the strip."""
    return {
        "time_s": thumbnail.time_ns / NS_PER_S,
        "width": thumbnail.width,
        "height": thumbnail.height,
        "jpeg": b64encode(thumbnail.jpeg).decode(),
    }


def _download_data(download: Download) -> dict[str, str]:
    """Return a file to offer, compressed: labels repeat a lot in it."""
    packed = gzip.compress(download.text.encode(errors="backslashreplace"), mtime=0)
    return {
        "title": download.title,
        "name": download.name,
        "type": download.media_type,
        "gzip": b64encode(packed).decode(),
    }


def _rounded(score: float) -> float:
    """Round a score to what can be seen."""
    return round(score, _SCORE_DIGITS)
