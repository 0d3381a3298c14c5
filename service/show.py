"""Answers as text for people and as JSON for machines."""

from collections.abc import Iterable
from typing import Any

from service.ask import Failure
from service.values import NS_PER_S, STAGES, Classification, Label, Segment, VideoFacts


def answer_json(video: str, answer: Classification | Failure) -> dict[str, Any]:
    """The object that ``--json`` prints for a video."""
    match answer:
        case Failure(code, reason, message):
            return {"video": video, "error": {"code": code, "reason": reason, "message": message}}
        case Classification():
            return {
                "video": video,
                "model": answer.model,
                "version": answer.version,
                "activation": answer.activation.value,
                "duration_s": answer.facts.duration_ns / NS_PER_S,
                "labels": _labels_json(answer.labels),
                "segments": [
                    {
                        "start_s": segment.start_ns / NS_PER_S,
                        "end_s": segment.end_ns / NS_PER_S,
                        "labels": _labels_json(segment.labels),
                    }
                    for segment in answer.segments
                ],
                "fetched_bytes": answer.fetched_bytes,
                "warnings": list(answer.warnings),
                "frames_off_s": answer.off_ns / NS_PER_S,
            }


def facts_text(facts: VideoFacts) -> str:
    """In one line; a header that came before the rest may leave duration, rate and count open."""
    duration = f"{facts.duration_ns / NS_PER_S:.2f} s, " if facts.duration_ns else ""
    rate = f"{facts.fps:.4g} fps, " if facts.fps else ""
    count = f"{facts.frames} frames, " if facts.frames else ""
    return f"{duration}{facts.width}x{facts.height}, {rate}{count}{facts.codec} in {facts.container}"


def segment_text(segment: Segment) -> str:
    start, end = segment.start_ns / NS_PER_S, segment.end_ns / NS_PER_S
    return f"  {start:8.2f} - {end:8.2f} s   {labels_text(segment.labels)}"


def answer_text(video: str, answer: Classification | Failure) -> str:
    match answer:
        case Failure(code, reason, message):
            return f"{video}: {message} ({code}{f', {reason}' if reason else ''})"
        case Classification():
            lines = [f"{video}: {facts_text(answer.facts)}"]
            lines += [segment_text(segment) for segment in answer.segments]
            lines += [f"  {'whole video':21}   {labels_text(answer.labels)}"]
            lines += [f"  warning: {warning}" for warning in answer.warnings]
            if answer.fetched_bytes:
                lines += [f"  fetched {answer.fetched_bytes} of {answer.facts.size_bytes} bytes"]
            if answer.off_ns:
                lines.append(f"  fast: frames up to {answer.off_ns / NS_PER_S:.3f} s off the wanted times")
            return "\n".join(lines)


def stages_text(answer: Classification) -> str:
    seconds = answer.stage_seconds
    return ", ".join(f"{stage} {seconds[stage] * 1000:.0f} ms" for stage in STAGES if stage in seconds)


def labels_text(labels: Iterable[Label]) -> str:
    return "  ".join(f"{label.name} {label.score:.2f}" for label in labels) or "(none above the threshold)"


def _labels_json(labels: Iterable[Label]) -> list[dict[str, Any]]:
    return [{"label": label.name, "score": label.score} for label in labels]
