"""The options of a request: the model, the windows, the time ranges, the priority."""

from dataclasses import dataclass
from enum import Enum

from tubelet.service.types.embeddings import EmbeddingDtype, EmbeddingLevel
from tubelet.service.types.video import to_ns

DEFAULT_TOP_K = 5
MAX_TOP_K = 1000


@dataclass(frozen=True, slots=True)
class WholeVideo:
    """One segment for each time range, covered by as few windows as the model's longest window allows.

    The segment's labels come from the mean of these windows.
    """


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows of one length that start every stride; each stride is one segment.

    A segment's labels come from the mean of the windows over its middle.
    """

    window_ns: int | None = None
    """Length of a window in nanoseconds, within the model's limits. None: the model's own length."""
    stride_ns: int | None = None
    """Time from the start of one window to the start of the next, in nanoseconds, at most one window.

    It is rounded to a whole number of the model's units. None: the model's own stride.
    """

    @classmethod
    def of_seconds(cls, window_s: float | None = None, stride_s: float | None = None) -> "Sliding":
        """Make sliding windows from a length and a stride in seconds; None stands for the model's own.

        Raises:
            ValueError: a time is not a finite number.
        """
        return cls(
            None if window_s is None else to_ns(window_s), None if stride_s is None else to_ns(stride_s)
        )


@dataclass(frozen=True, slots=True)
class Views:
    """One segment for each time range: the mean over clips x crops windows (multi-view testing).

    Papers on SlowFast, ViViT and VideoMAE report their accuracy so.
    """

    clips: int = 1
    """Windows of the model's own length, spread evenly over the range, 1 to 30. One is in the middle."""
    crops: int = 1
    """1: the centre of the picture. 3: the start, centre and end of its longer side."""


class Priority(Enum):
    """Scheduling priority: of 21 units computed while all three wait, 16 are high, 4 normal and 1 low."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Options:
    """How to classify a video. The defaults are the server's default model and sliding windows."""

    model: str = ""
    """Name of the model, as NAME or NAME:VERSION. Empty: the server's default model."""
    version: str = ""
    """Version of the model, where ``model`` has none. Empty: the default's version, or else the newest."""
    top_k: int = DEFAULT_TOP_K
    """Most labels in each segment and for the whole video, 1 to 1000, best first."""
    score_threshold: float = 0.0
    """Lowest score of a label that is returned, 0 to 1."""
    windowing: WholeVideo | Sliding | Views = Sliding()
    """How windows are laid over the video: ``Sliding``, ``WholeVideo`` or ``Views``."""
    ranges_ns: tuple[tuple[int, int], ...] = ()
    """Time ranges [start, end) to classify, in nanoseconds; they must not overlap. Empty: the whole video.

    ``ranges_of_seconds`` makes them from seconds.
    """
    fast: bool = False
    """Whether nearby key frames may stand in for the exact frames: faster, but approximate.

    They are at most half a sampling interval away. The answer says how far away they were.
    """
    thumbnails: int = 0
    """Most thumbnails in the answer, 0 to 60, spread evenly over what is classified.

    They are frames that the model sees, and each frame is one thumbnail at most.
    """
    priority: Priority = Priority.NORMAL
    """Scheduling priority among the videos that the server has in progress."""
    embeddings: EmbeddingLevel | None = None
    """What the answer has vectors of: each unit, each window, or the video. None: it has none."""
    embedding_dtype: EmbeddingDtype = "float32"
    """Format of the numbers in a vector. What float16 cannot hold becomes its largest number, 65,504."""
    normalise_embeddings: bool = False
    """Whether vectors have length 1. That of the video is normalised after the mean."""
    only_embeddings: bool = False
    """Whether the answer has no labels and no segments, which are not computed then."""


def ranges_of_seconds(*ranges_s: tuple[float, float]) -> tuple[tuple[int, int], ...]:
    """Make ``Options.ranges_ns`` from time ranges (start, end) in seconds.

    Raises:
        ValueError: a time is not a finite number.
    """
    return tuple((to_ns(start_s), to_ns(end_s)) for start_s, end_s in ranges_s)
