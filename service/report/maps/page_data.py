"""Tracks of maps as data for the page of a video, whose script draws them."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np

from tubelet.service.report.maps.heat import Scale, scale_colours, to_bytes
from tubelet.service.report.maps.tracks import MapTrack
from tubelet.service.report.text import printable
from tubelet.service.types.explanation import METHODS_OF_LABELS, ExplainMethod, MapQuestion
from tubelet.service.types.video import NS_PER_S

_SCALES: tuple[Scale, ...] = ("shares", "difference")
_DIGITS = 3
METHOD_NOTES: dict[ExplainMethod, str] = {
    "relevance": "Relevance is what the layers' attention adds to the label's logit, by its gradient.",
    "occlusion": "Occlusion is what the label's logit loses where what stands still replaces the picture.",
    "rollout": "Rollout depends on no label: it shows what the model looks at, not why it answers so.",
    "attention": "Attention depends on no label: it shows what a layer looks at, not why the answer is so.",
}
"""What each method shows, in a sentence."""


def page_maps(tracks: Sequence[MapTrack]) -> dict[str, Any]:
    """Return what the script of a page needs: the tracks, and the colours of each scale."""
    return {
        "colours": {scale: _packed(scale_colours(scale)) for scale in _SCALES},
        "tracks": [_track_data(each) for each in tracks],
    }


def explained(question: MapQuestion, *, is_difference: bool = False) -> str:
    """Return what a question explains, in words."""
    if question.method not in METHODS_OF_LABELS:
        return "any label"
    if question.label is None:
        return "best label of each segment"
    if question.against is None:
        return printable(question.label)
    between = "or" if is_difference else "rather than"
    return f"{printable(question.label)} {between} {printable(question.against)}"


def _track_data(track: MapTrack) -> dict[str, Any]:
    """Return a track: its question, its times, and its maps as bytes."""
    question, seen = track.question, track.rectangle
    labels = list(dict.fromkeys(track.labels))
    numbers = {label: number for number, label in enumerate(labels)}
    return {
        "label": explained(question, is_difference=track.scale == "difference"),
        "method": question.method,
        "layer": "last that sees patches" if question.layer is None else f"{question.layer}",
        "head": "mean of all" if question.head is None else f"{question.head}",
        "sides": [printable(each or "") for each in (question.label, question.against)],
        "scale": track.scale,
        "most": float(f"{track.most:.4g}"),
        "rectangle": [seen.left, seen.top, seen.right, seen.bottom],
        "rows": track.patches.shape[1],
        "columns": track.patches.shape[2],
        "starts_s": (track.start_ns / NS_PER_S).round(_DIGITS).tolist(),
        "ends_s": (track.end_ns / NS_PER_S).round(_DIGITS).tolist(),
        "over_time": track.over_time.astype(float).round(_DIGITS).tolist(),
        "on_no_patch": track.on_no_patch.astype(float).round(_DIGITS).tolist(),
        "labels": [printable(label) for label in labels],
        "label_of": [numbers[label] for label in track.labels],
        "maps": _packed(to_bytes(track.patches, track.most, track.scale)),
    }


def _packed(values: np.ndarray) -> str:
    """Return bytes in base64."""
    return b64encode(np.ascontiguousarray(values).tobytes()).decode()
