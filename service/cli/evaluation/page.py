"""The page of an evaluation: the values that its template and its script show.

A page is bounded: it holds a limited number of clips and of bytes of thumbnails, and says what it leaves out.
"""

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from math import isnan
from pathlib import Path
from typing import Any

from tubelet.service.cli.evaluation.measures import BINS, Calibration, wilson_interval
from tubelet.service.cli.evaluation.outcomes import Outcome
from tubelet.service.cli.evaluation.report import Report, surest_mistakes
from tubelet.service.cli.evaluation.report_text import cost_text, multi_label_note, seen_note, windowing_text
from tubelet.service.report.own_files import write_own
from tubelet.service.report.page import render_page
from tubelet.service.report.text import printable
from tubelet.service.types.result import Activation

MAX_CLIPS = 20_000
MAX_THUMBNAIL_BYTES = 8 << 20  # of all thumbnails of a page, as base64
MAX_WHOLE_MATRIX = 30  # classes; with more, the page shows a map of the matrix, and parts of it as a table

SCRIPTS = ("table.js", "clips.js", "confusion.js")
"""The scripts of a page with the parts of ``answers.html``."""

_MISTAKES = 24
_CONFUSIONS = 50
_FAILURES = 100  # of each reason that are named
_MAX_TEXT = 240  # characters of a name or label; a longer one is cut in its middle


def evaluation_page(report: Report, outcomes: Sequence[Outcome], run: Mapping[str, Any]) -> str:
    """Return the page of a report.

    ``run`` has the settings of the run, the model's activation, the speed, and the videos that were skipped.
    """
    return render_page(
        "evaluation.html",
        SCRIPTS,
        title=f"{run['model']} {run['version']}",
        windowing=windowing_text(run),
        cost=cost_text(run),
        run=run,
        notes=list(_notes(report, run)),
        failures=by_reason(run["skipped"]),
        **answers_of(report, outcomes, "video", "results.jsonl"),
    )


def _notes(report: Report, run: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on what the figures mean."""
    if run["activation"] == Activation.SIGMOID.value:
        yield multi_label_note(run["model"], report)
    if seen := run.get("seen_in_training"):
        yield seen_note(seen, report.videos, run["model"])


def answers_of(report: Report, outcomes: Sequence[Outcome], item: str, listed_in: str) -> dict[str, Any]:
    """Return the values of the parts in ``answers.html``: figures, matrix, and clips, bounded in number.

    ``item`` is what is counted, video or clip; the file ``listed_in`` has those that the page leaves out.
    """
    clips = by_importance(outcomes)[:MAX_CLIPS]
    pictures = encode_thumbnails(clip.thumbnail for clip in clips)
    return {
        "report": report,
        "curve": curve_of(report.calibration),
        "confusions": _confusions(report)[:_CONFUSIONS] if len(report.labels) > MAX_WHOLE_MATRIX else [],
        "left_out": left_out(len(outcomes), [clip.thumbnail for clip in clips], pictures, item, listed_in),
        "data": {"item": item, **_data(report, clips, pictures)},
    }


def save_page(path: Path, page: str) -> None:
    """Write a page to ``path``.

    Raises:
        OSError: it cannot be written; the message is a sentence.
    """
    try:
        write_own(path, page)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def by_importance(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Sort outcomes so that a page that has to stop somewhere shows the most useful ones.

    The surest mistakes come first, then the other mistakes and the first right outcome of each label, then
    all others. In these groups, the first outcome of each cell of the confusion matrix comes before the
    second of any, and so on; in a cell, those with the highest score come first.
    """
    mistakes = surest_mistakes(outcomes)[:_MISTAKES]
    is_first = set(map(id, mistakes))
    ranks: defaultdict[tuple[str, str], count[int]] = defaultdict(count)
    ranked = [
        (next(ranks[each.label, each.best.name]), number, each)
        for number, each in enumerate(sorted(outcomes, key=lambda each: -each.best.score))
        if id(each) not in is_first
    ]
    ranked.sort(key=lambda row: (row[2].is_right and row[0] > 0, *row[:2]))
    return [*mistakes, *(each for _, _, each in ranked)]


def encode_thumbnails(thumbnails: Iterable[bytes | None]) -> list[str]:
    """Return each thumbnail in base64; "" where there is none, and for all from the limit of bytes on."""
    encoded: list[str] = []
    room = MAX_THUMBNAIL_BYTES
    for thumbnail in thumbnails:
        text = b64encode(thumbnail or b"").decode()
        room -= len(text)
        encoded.append(text if room >= 0 else "")
    return encoded


def shorten(text: str) -> str:
    """Return a name or label as printable text, cut in its middle if it is long."""
    text, half = printable(text), _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]}…{text[-half:]}"


def left_out(
    total: int,
    thumbnails: Sequence[bytes | None],
    pictures: Sequence[str],
    item: str = "video",
    listed_in: str = "results.jsonl",
) -> list[str]:
    """Return sentences on what a page leaves out: of ``total`` items, it lists these thumbnails."""
    notes: list[str] = []
    if total > len(thumbnails):
        notes.append(
            f"{total - len(thumbnails)} of {total} {item}s are not listed here, to keep the page small; "
            f"all are in {listed_in}."
        )
    absent = sum(not thumbnail for thumbnail in thumbnails)
    if absent:
        notes.append(
            f"{absent} of {len(thumbnails)} {item}s have no picture: their answers came without one."
        )
    too_many = sum(not picture for picture in pictures) - absent
    if too_many:
        limit = f"{MAX_THUMBNAIL_BYTES >> 20} MiB"
        notes.append(
            f"{too_many} of {len(thumbnails)} {item}s have no picture here: the page holds {limit} of them."
        )
    return notes


def _data(report: Report, clips: Sequence[Outcome], pictures: Sequence[str]) -> dict[str, Any]:
    """Return the labels, the cells of the matrix (true, predicted, count), and the clips with pictures."""
    index_of = {label: index for index, label in enumerate(report.labels)}
    rows, columns = report.confusion.nonzero()
    counts = report.confusion[rows, columns]
    return {
        "labels": [shorten(label) for label in report.labels],
        "cells": list(zip(rows.tolist(), columns.tolist(), counts.tolist(), strict=True)),
        "whole_matrix": len(report.labels) <= MAX_WHOLE_MATRIX,
        "mistakes": min(_MISTAKES, sum(not clip.is_right for clip in clips)),
        "clips": [
            {
                "name": shorten(clip.video),
                "true": index_of[clip.label],
                "predicted": index_of[clip.best.name],
                "score": round(clip.best.score, 4),
                "picture": picture,
            }
            for clip, picture in zip(clips, pictures, strict=True)
        ],
    }


def _confusions(report: Report) -> list[dict[str, Any]]:
    """Return the cells off the diagonal, those with most videos first."""
    rows, columns = report.confusion.nonzero()
    cells = [
        {"true": int(row), "predicted": int(column), "videos": int(report.confusion[row, column])}
        for row, column in zip(rows, columns, strict=True)
        if row != column
    ]
    return sorted(cells, key=lambda cell: -cell["videos"])


def curve_of(found: Calibration) -> list[dict[str, Any]]:
    """Return the bins of a calibration curve that hold videos, with the interval of each accuracy."""
    most = found.counts.max()
    return [
        {
            "start": index / BINS,
            "videos": int(videos),
            "share_of_most": float(videos / most),
            "score": float(score),
            "accuracy": float(accuracy),
            "interval": wilson_interval(round(accuracy * videos), int(videos)),
        }
        for index, (videos, score, accuracy) in enumerate(
            zip(found.counts, found.scores, found.accuracies, strict=True)
        )
        if not isnan(score)
    ]


def by_reason(failures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group failures by their reason, the most frequent reason first."""
    reasons = Counter(each["reason"] or each["code"] for each in failures)
    return [
        {
            "reason": reason,
            "videos": videos,
            "named": [
                (shorten(each["video"]), shorten(each["message"]))
                for each in failures
                if (each["reason"] or each["code"]) == reason
            ][:_FAILURES],
        }
        for reason, videos in reasons.most_common()
    ]
