"""Explanations as text for people and as JSON for machines: where each map has its mass."""

from collections.abc import Iterator, Sequence
from typing import Any

from tubelet.service.cli.explain.explained_files import ExplainedFiles
from tubelet.service.cli.explain.questions import ExplainedRun
from tubelet.service.cli.output import metadata_text, notes_text
from tubelet.service.report.maps.page_data import METHOD_NOTES, explained
from tubelet.service.report.maps.summary import MapSummary, steps_inside, summarise
from tubelet.service.report.text import decodable, printable, span_text
from tubelet.service.types.explanation import SegmentMap
from tubelet.service.types.video import NS_PER_S

_MAX_LABEL = 24  # characters of a label in a table
_HEADINGS = ("segment", "label", "half of it in", "half of it on", "strongest", "on no patch")


def explained_lines(video: str, runs: Sequence[ExplainedRun], files: ExplainedFiles) -> Iterator[str]:
    """Yield the lines for people: a table for the first method's runs, then notes and files."""
    answer = runs[0].answer.classification
    yield f"{printable(video)}: {metadata_text(answer.metadata)}"
    method = runs[0].asked.method
    shown = [run for run in runs if run.asked.method == method and run.asked.layer == runs[0].asked.layer]
    shown = [run for run in shown if run.asked.head == runs[0].asked.head]
    for run in shown:
        yield f"What {answer.model} {answer.version} looked at, by {method}: {explained(run.question)}"
        yield from _table(run.answer.maps)
    yield METHOD_NOTES[method]
    if len(shown) < len(runs):
        others = ", ".join(_name(run) for run in runs if run not in shown)
        yield f"Also on the page: {others}"
    yield from notes_text(answer)
    yield from map(printable, _notes(runs, files))
    yield printable(f"written to {files.folder}: {', '.join(path.name for path in files.written)}")


def explained_json(video: str, runs: Sequence[ExplainedRun], files: ExplainedFiles) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    answer = runs[0].answer.classification
    return {
        "video": decodable(video),
        "model": answer.model,
        "version": answer.version,
        "fingerprint": answer.fingerprint,
        "duration_s": answer.metadata.duration_s,
        "maps": [_map_json(found) for run in runs for found in run.answer.maps],
        "files": {path.name: decodable(str(path)) for path in files.written},
        "notes": _notes(runs, files),
        "warnings": list(answer.warnings),
    }


def _table(maps: Sequence[SegmentMap]) -> Iterator[str]:
    """Yield a line for each map, in columns."""
    rows = [_HEADINGS, *(_row(found) for found in maps)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        yield "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(found: SegmentMap) -> tuple[str, ...]:
    """Return the cells of a map."""
    segment, summary = found.segment, summarise(found)
    best = found.question.label or (segment.labels[0].name if segment.labels else "")
    score = next((f" {label.score:.2f}" for label in segment.labels if label.name == best), "")
    label = printable(best)
    label = label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…"
    if summary is None:
        where = ("nothing found", "", "")
    else:
        seconds = f"{summary.start_ns / NS_PER_S:.1f}-{summary.end_ns / NS_PER_S:.1f} s"
        where = (
            seconds,
            f"{_percent(summary.area)} of picture",
            f"{summary.place} {_percent(summary.place_share)}",
        )
    return span_text(segment.start_ns, segment.end_ns), label + score, *where, _percent(found.on_no_patch)


def _percent(share: float) -> str:
    """Format a share, such as 37 %."""
    return f"{100 * share:.0f} %"


def _map_json(found: SegmentMap) -> dict[str, Any]:
    """Return the object of a map: its question, and where it has its mass."""
    question, summary, seen = found.question, summarise(found), found.rectangle
    return {
        "start_s": found.segment.start_s,
        "end_s": found.segment.end_s,
        "method": question.method,
        "label": question.label,
        "against": question.against,
        "layer": question.layer,
        "head": question.head,
        "on_no_patch": round(found.on_no_patch, 6),
        "half": None if summary is None else _summary_json(summary),
        "steps": len(found.map),
        "rows": found.map.shape[1],
        "columns": found.map.shape[2],
        "rectangle": [seen.left, seen.top, seen.right, seen.bottom],
        "runs": found.runs,
        "steps_left_out": found.steps_left_out,
    }


def _summary_json(summary: MapSummary) -> dict[str, Any]:
    """Return the object of where half of a map is."""
    return {
        "start_s": summary.start_ns / NS_PER_S,
        "end_s": summary.end_ns / NS_PER_S,
        "area": round(summary.area, 6),
        "place": summary.place,
        "place_share": round(summary.place_share, 6),
    }


def _notes(runs: Sequence[ExplainedRun], files: ExplainedFiles) -> list[str]:
    """Return sentences about what is missing, or may surprise."""
    maps = [found for run in runs for found in run.answer.maps]
    notes = list(files.notes)
    if left_out := sum(found.steps_left_out for found in maps):
        steps = sum(len(found.map) for found in maps if found.runs)
        notes.append(
            f"occlusion had no runs left for {left_out} of {steps} time steps: their share is spread evenly "
            "over the picture"
        )
    if not all(steps_inside(found).all() for found in maps):
        notes.append(
            "the model's windows are longer than the segments, so that a map may have its mass in seconds "
            "before or after its segment"
        )
    return notes


def _name(run: ExplainedRun) -> str:
    """Return a run in words."""
    asked = run.asked
    layer = "" if asked.layer is None else f" layer {asked.layer}"
    head = "" if asked.head is None else f" head {asked.head}"
    return f"{asked.method}{layer}{head}"
