"""The answer for a video: labels, segments, progress, classification."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from tubelet.service.types.embeddings import Embeddings
from tubelet.service.types.video import NS_PER_S, Thumbnail, VideoMetadata


@dataclass(frozen=True, slots=True)
class Label:
    """A class of the model and its score, 0 to 1."""

    name: str
    score: float


class Activation(Enum):
    """How logits become scores: softmax over all labels, or a sigmoid for each label (multi-label)."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True)
class Segment:
    """The labels of the time range [start_ns, end_ns), best first."""

    start_ns: int
    end_ns: int
    labels: tuple[Label, ...]
    activation: Activation = Activation.SOFTMAX

    @property
    def start_s(self) -> float:
        """The start of the segment in seconds."""
        return self.start_ns / NS_PER_S

    @property
    def end_s(self) -> float:
        """The end of the segment in seconds."""
        return self.end_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of decoding: seconds decoded, and seconds to decode in total; each view counts.

    ``total_s`` is 0 while the end of the video is not known.
    """

    decoded_s: float
    total_s: float


Event = VideoMetadata | Progress | Segment | Embeddings
"""What is known of a video before its answer."""
Emit = Callable[[Event], Awaitable[None]]
"""Takes the events of one video, one after another."""


async def ignore_event(_: Event) -> None:
    """Take an event of a video of which only the answer is wanted."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one video: the labels of its segments and of the whole video."""

    metadata: VideoMetadata
    model: str
    version: str
    segments: tuple[Segment, ...]
    labels: tuple[Label, ...]
    stage_seconds: dict[str, float]  # wall time of each stage
    warnings: tuple[str, ...] = ()
    max_frame_offset_ns: int = 0  # largest distance of a frame from the time wanted; 0 without ``fast``
    fetched_bytes: int = 0  # of a video at a URI; 0 for an upload
    activation: Activation = Activation.SOFTMAX
    fingerprint: str = ""  # of the model; empty from servers that do not know it
    thumbnails: tuple[Thumbnail, ...] = ()  # in the order of time; empty unless the options ask for them
    request_id: str = ""  # of the call, in the server's log; empty without a server
    embeddings: Embeddings | None = None  # if they were asked for; a stream has them in events instead
