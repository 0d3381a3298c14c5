"""What a video was classified as: labels, segments, progress, the whole answer."""

from dataclasses import dataclass
from enum import Enum

from tubelet.service.types.video import NS_PER_S, VideoMetadata


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    score: float


class Activation(Enum):
    """How logits become scores: over all labels together, or for each label by itself (multi-label)."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True)
class Segment:
    """Labels of the time range [start_ns, end_ns)."""

    start_ns: int
    end_ns: int
    labels: tuple[Label, ...]
    activation: Activation = Activation.SOFTMAX

    @property
    def start_s(self) -> float:
        """Where the segment starts, in seconds."""
        return self.start_ns / NS_PER_S

    @property
    def end_s(self) -> float:
        """Where the segment ends, in seconds."""
        return self.end_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a video is: seconds of it decoded, and seconds that the plan covers, view by view."""

    decoded_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The whole answer for one video."""

    metadata: VideoMetadata
    model: str
    version: str
    segments: tuple[Segment, ...]
    labels: tuple[Label, ...]
    stage_seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    max_frame_offset_ns: int = 0  # how far frames were from the wanted times, at most; 0 without ``fast``
    fetched_bytes: int = 0  # of a video at a URI
    activation: Activation = Activation.SOFTMAX
