"""Answers as text for people and as JSON for machines."""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from tubelet.service.cli.runs.runner import Failure
from tubelet.service.report.text import clock, decodable, printable, span_text
from tubelet.service.types.result import Classification, Label, Progress, Segment
from tubelet.service.types.video import NS_PER_S, STAGES, Thumbnail, VideoMetadata

NO_LABEL = "(none above the threshold)"


def answer_json(video: str, answer: Classification | Failure) -> dict[str, Any]:
    """Return the object that ``--json`` prints for a video."""
    match answer:
        case Failure(code, reason, message, request_id):
            error = {"code": code, "reason": reason, "message": decodable(message)}
            if request_id:
                error["request_id"] = request_id
            return {"video": decodable(video), "error": error}
        case Classification():
            content = {
                "video": decodable(video),
                "model": answer.model,
                "version": answer.version,
                "fingerprint": answer.fingerprint,
                "activation": answer.activation.value,
                "duration_s": answer.metadata.duration_s,
                "labels": _labels_json(answer.labels),
                "segments": [_segment_json(segment) for segment in answer.segments],
                "fetched_bytes": answer.fetched_bytes,
                "warnings": list(answer.warnings),
                "max_frame_offset_s": answer.max_frame_offset_ns / NS_PER_S,
            }
            if answer.thumbnails:
                content["thumbnails"] = [_thumbnail_json(thumbnail) for thumbnail in answer.thumbnails]
            return content


def interrupted_json(
    video: str, metadata: VideoMetadata | None, segments: Iterable[Segment]
) -> dict[str, Any]:
    """Return the object that ``--json`` prints for an interrupted video, with the segments so far."""
    return {
        "video": decodable(video),
        "interrupted": True,
        "duration_s": metadata.duration_s if metadata else 0.0,
        "segments": [_segment_json(segment) for segment in segments],
    }


def event_json(video: str, event: VideoMetadata | Progress | Segment) -> dict[str, Any]:
    """Return the object that ``--json --stream`` prints for an event of a video."""
    match event:
        case VideoMetadata():
            content = {
                "event": "metadata",
                "container": event.container,
                "codec": event.codec,
                "width": event.width,
                "height": event.height,
                "fps": event.fps,
                "frames": event.frames,
                "duration_s": event.duration_s,
                "size_bytes": event.size_bytes,
            }
        case Progress(decoded_s, total_s):
            content = {"event": "progress", "decoded_s": decoded_s, "total_s": total_s}
        case Segment():
            content = {"event": "segment"} | _segment_json(event)
    return {"video": decodable(video)} | content


def metadata_text(metadata: VideoMetadata) -> str:
    """Format a video's metadata in one line; what its header does not say (0) is left out."""
    duration = f"{clock(metadata.duration_ns)}, " if metadata.duration_ns else ""
    rate = f"{metadata.fps:.4g} fps, " if metadata.fps else ""
    count = f"{metadata.frames} frames, " if metadata.frames else ""
    return (
        f"{duration}{metadata.width}x{metadata.height}, {rate}{count}{metadata.codec} in {metadata.container}"
    )


def segment_text(segment: Segment) -> str:
    """Format a segment as an indented line: its time range, then its labels."""
    return f"  {span_text(segment.start_ns, segment.end_ns)}  {labels_text(segment.labels)}"


def notes_text(answer: Classification) -> Iterator[str]:
    """Yield the lines below an answer: warnings, bytes fetched, and how inexact the frames were."""
    for warning in answer.warnings:
        yield f"warning: {printable(warning)}"
    if answer.fetched_bytes:
        yield f"fetched {answer.fetched_bytes} of {answer.metadata.size_bytes} bytes"
    if answer.max_frame_offset_ns:
        yield f"fast: frames up to {answer.max_frame_offset_ns / NS_PER_S:.3f} s off the requested times"


def failure_text(video: str, failure: Failure) -> str:
    """Format a failure in one line: the video, the message, code, reason and the server's request id."""
    reason = f", {failure.reason}" if failure.reason else ""
    is_named = not failure.request_id or failure.request_id in failure.message
    request = "" if is_named else f", request id {failure.request_id}"
    return printable(f"{video}: {failure.message} ({failure.code}{reason}{request})")


def stages_text(answer: Classification) -> str:
    """Format the time that each stage of a request took."""
    seconds = answer.stage_seconds
    return ", ".join(f"{stage} {seconds[stage] * 1000:.0f} ms" for stage in STAGES if stage in seconds)


def labels_text(labels: Iterable[Label]) -> str:
    """Format labels with their scores."""
    return "  ".join(f"{label.name} {label.score:.2f}" for label in labels) or NO_LABEL


def _segment_json(segment: Segment) -> dict[str, Any]:
    """Return the JSON object of a segment."""
    return {
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "labels": _labels_json(segment.labels),
    }


def _thumbnail_json(thumbnail: Thumbnail) -> dict[str, Any]:
    """Return the JSON object of a thumbnail, with the JPEG in base64."""
    return {
        "time_s": thumbnail.time_s,
        "width": thumbnail.width,
        "height": thumbnail.height,
        "jpeg": b64encode(thumbnail.jpeg).decode(),
    }


def _labels_json(labels: Iterable[Label]) -> list[dict[str, Any]]:
    """Return the JSON objects of labels."""
    return [{"label": label.name, "score": label.score} for label in labels]
