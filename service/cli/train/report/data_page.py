"""The part of a training's page on its data: labels, what stands out, what was left out, scenes.

Each list is bounded, so that the page stays small, and says what it leaves out. N clips.
"""

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tubelet.service.cli.evaluation.measures import wilson_interval
from tubelet.service.cli.evaluation.page import shorten
from tubelet.service.cli.train.data.checked_clips import Checked
from tubelet.service.cli.train.data.data_checks import Finding
from tubelet.service.cli.train.data.survey import Survey

MAX_FINDINGS, MAX_LEFT_OUT, MAX_TILES = 60, 200, 72
_PICTURES = 4  # of a finding
_LEAK = 0.1  # of accuracy by clip above that with scenes kept apart, from which it is called a leak
_JPEG_QUALITY = 80
_NO_LABEL = "(none)"


def data_of(checked: Checked) -> dict[str, Any]:
    """Return the values that the template shows of the data."""
    survey, scenes = checked.survey, checked.scenes.tolist()
    counts = Counter(label for clip in survey.clips for label in clip.labels)
    assert checked.background is not None, "data without pictures has no page"
    total, (apart, together) = len(survey.clips), checked.background
    several = survey.clips[0].is_multilabel
    tiles = _tiles(survey, scenes)
    return {
        "clips": total,
        "is_multilabel": several,
        "scenes": len(set(scenes)),
        "test_clips": sum(clip.is_test for clip in survey.clips),
        "labels": _label_rows(survey, scenes),
        "apart": _share(apart, total, is_overlap=several),
        "together": _share(together, total, is_overlap=several),
        "most_frequent": _share(max(counts.values(), default=0) / total, total),
        "has_leak": together - apart > _LEAK,
        "findings": [_finding(each, survey) for each in checked.findings[:MAX_FINDINGS]],
        "more_findings": max(0, len(checked.findings) - MAX_FINDINGS),
        "left_out": [
            {"clip": shorten(name), "reason": shorten(reason)} for name, reason in survey.left_out.items()
        ][:MAX_LEFT_OUT],
        "all_left_out": len(survey.left_out),
        "tiles": tiles[:MAX_TILES],
        "more_tiles": max(0, len(tiles) - MAX_TILES),
    }


def _share(value: float, total: int, *, is_overlap: bool = False) -> dict[str, Any]:
    """Return a share of ``total`` clips with its interval; a mean overlap of labels has none."""
    interval = None if is_overlap else wilson_interval(round(value * total), total)
    return {"value": value, "interval": interval}


def _label_rows(survey: Survey, scenes: Sequence[int]) -> list[dict[str, Any]]:
    """Return the clips, test clips, scenes and seconds of each label, those with most clips first."""
    of_label: defaultdict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(survey.clips):
        for label in clip.labels or ("",):
            of_label[label].append(number)
    rows = [
        {
            "label": shorten(label) or _NO_LABEL,
            "clips": len(numbers),
            "test_clips": sum(survey.clips[each].is_test for each in numbers),
            "scenes": len({scenes[each] for each in numbers}),
            "median_s": float(np.median([survey.lengths_s[each] for each in numbers])),
        }
        for label, numbers in of_label.items()
    ]
    most = max(row["clips"] for row in rows)
    return [row | {"share": row["clips"] / most} for row in sorted(rows, key=lambda row: -row["clips"])]


def _finding(finding: Finding, survey: Survey) -> dict[str, Any]:
    """Return a finding, with the pictures of its first clips."""
    shown = [
        {"clip": shorten(name), "picture": b64encode(survey.pictures.get(name, b"")).decode()}
        for name in finding.clips[:_PICTURES]
    ]
    more = len(finding.clips) - len(shown)
    return {"sentence": shorten(finding.sentence), "clips": shown, "more": more}


def _tiles(survey: Survey, scenes: Sequence[int]) -> list[dict[str, Any]]:
    """Return the median picture of the clips of each scene and label; scenes with most clips come first."""
    of_tile: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for number, (clip, scene) in enumerate(zip(survey.clips, scenes, strict=True)):
        of_tile[scene, clip.label].append(number)
    sizes = Counter(scenes)
    ordered = sorted(of_tile.items(), key=lambda item: (-sizes[item[0][0]], item[0]))
    return [
        {
            "scene": scene + 1,
            "label": shorten(label) or _NO_LABEL,
            "clips": len(numbers),
            "picture": _median_jpeg(survey.thumbnails[numbers]) if place < MAX_TILES else "",
        }
        for place, ((scene, label), numbers) in enumerate(ordered)
    ]


def _median_jpeg(thumbnails: NDArray[np.uint8]) -> str:
    """Return the median of the thumbnails of clips as a JPEG in base64: (N, P, H, W, 3)."""
    stream = BytesIO()
    median = np.median(thumbnails, axis=(0, 1)).astype(np.uint8)
    Image.fromarray(median).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return b64encode(stream.getvalue()).decode()
