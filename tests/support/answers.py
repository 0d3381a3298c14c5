"""The answer of a made-up model for the sample clip: labels that change every two seconds."""

import math
from io import BytesIO

from PIL import Image

from tubelet.service.types.result import Classification, Label, Segment
from tubelet.service.types.video import NS_PER_S, Thumbnail, VideoMetadata

DURATION_S = 16  # of the sample clip
NAMES = ("static", "pan_right", "zoom_in", "tilt_up", "roll_cw", "shake", "pan_left", "zoom_out")


def answer(names: tuple[str, ...] = NAMES, segments: int = DURATION_S) -> Classification:
    """Return an answer in which each second has three labels, which change every two seconds."""
    parts = tuple(
        Segment(
            second * NS_PER_S,
            (second + 1) * NS_PER_S,
            tuple(Label(names[(second // 2 + rank) % len(names)], score(second, rank)) for rank in range(3)),
        )
        for second in range(segments)
    )
    metadata = VideoMetadata(
        "mov", "h264", 480, 270, 25.0, 25 * segments, max(segments, 1) * NS_PER_S, 336978
    )
    pictures = tuple(
        Thumbnail(second * NS_PER_S + NS_PER_S // 2, 160, 90, jpeg(second)) for second in range(DURATION_S)
    )
    whole = tuple(Label(name, 0.5 / (rank + 1)) for rank, name in enumerate(names[:3]))
    return Classification(
        metadata, "camera-motion", "1.1.0", parts, whole, {"total": 0.5}, thumbnails=pictures
    )


def score(second: int, rank: int) -> float:
    """Return the score of the label of a rank in a second."""
    return (0.9, 0.3, 0.1)[rank] - second % 4 / 50


def jpeg(number: int) -> bytes:
    """Return a picture of one colour, as JPEG."""
    packed = BytesIO()
    Image.new("RGB", (160, 90), (number * 15, 80, 120)).save(packed, "JPEG")
    return packed.getvalue()


def expected_score(name: str, second: int) -> float | None:
    """Return the score of a label in a second, None where it is not among the best."""
    labels = answer().segments[second].labels
    return next((label.score for label in labels if label.name == name), None)


def highest(found: Classification, name: str, start_s: float, end_s: float) -> float:
    """Return the highest score of a label in the seconds that begin in a time range; 0 if it has none."""
    segments = found.segments[max(0, math.ceil(start_s)) : max(0, math.ceil(end_s))]
    return max((each.score for part in segments for each in part.labels if each.name == name), default=0)
