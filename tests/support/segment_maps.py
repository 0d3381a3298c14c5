"""Made-up maps of segments, whose steps are half a second long and begin with the video."""

import numpy as np

from tubelet.service.types.explanation import MapQuestion, SegmentMap
from tubelet.service.types.result import Label, Segment
from tubelet.service.types.video import NS_PER_S, Rectangle

RECTANGLE = Rectangle(0.25, 0, 0.75, 1)
_STEP_NS = NS_PER_S // 2


def segment_map(
    start_s: float,
    end_s: float,
    *,
    steps: int,
    label: str = "a",
    values: np.ndarray | None = None,
    rectangle: Rectangle = RECTANGLE,
    seed: int = 0,
) -> SegmentMap:
    """Return a map of ``values`` (U, R, C), by default random, of which a tenth is on no patch.

    Without anything on patches, all of it is on no patch.
    """
    if values is None:
        values = np.random.default_rng(seed).random((steps, 3, 2))
    total = values.sum()
    starts_ns = np.arange(steps, dtype=np.int64) * _STEP_NS
    return SegmentMap(
        Segment(round(start_s * NS_PER_S), round(end_s * NS_PER_S), (Label(label, 0.9), Label("other", 0.1))),
        MapQuestion("relevance", label),
        (values / total * 0.9 if total else values).astype(np.float32),
        0.1 if total else 1.0,
        starts_ns,
        starts_ns + _STEP_NS,
        rectangle,
    )
