"""The parts of a page on independent labels: a table, the surest mistakes with pictures, calibration.

C clips, K labels.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tubelet.service.cli.evaluation.multilabel.label_report import HALF, LabelReport, Scores, Truth
from tubelet.service.cli.evaluation.page import curve_of, shorten

_MISTAKES = 12  # of each kind


def label_parts(
    report: LabelReport, scores: Scores, truth: Truth, clips: Sequence[tuple[str, bytes | None]]
) -> dict[str, Any]:
    """Return the values of the parts in ``multilabel.html``.

    ``clips`` has the name and a JPEG of each row of ``scores`` and ``truth``, (C, K).
    """
    names = [shorten(each.label) for each in report.labels]
    wrong = np.argwhere(~truth & (scores >= HALF)).tolist()
    missed = np.argwhere(truth & (scores < HALF)).tolist()

    def cards(pairs: Iterable[list[int]]) -> list[dict[str, Any]]:
        return [
            {
                "label": names[label],
                "score": float(scores[clip, label]),
                "clip": shorten(clips[clip][0]),
                "has": [name for name, has in zip(names, truth[clip], strict=True) if has],
                "picture": b64encode(clips[clip][1] or b"").decode(),
            }
            for clip, label in pairs
        ]

    return {
        "rows": [
            {"label": name, "figures": each, "share": each.clips / max(1, report.clips)}
            for name, each in zip(names, report.labels, strict=True)
        ],
        "wrong": cards(sorted(wrong, key=lambda pair: -scores[pair[0], pair[1]])[:_MISTAKES]),
        "more_wrong": max(0, len(wrong) - _MISTAKES),
        "missed": cards(sorted(missed, key=lambda pair: scores[pair[0], pair[1]])[:_MISTAKES]),
        "more_missed": max(0, len(missed) - _MISTAKES),
        "calibration": report.calibration,
        "curve": curve_of(report.calibration),
    }
