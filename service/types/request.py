"""What a client asks for: the model, the windows, the ranges, the priority."""

from dataclasses import dataclass
from enum import Enum

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class WholeVideo:
    """One segment for each range, seen by as few windows as the model's longest window allows."""


@dataclass(frozen=True, slots=True)
class Sliding:
    """Overlapping windows; None stands for the model's own lengths."""

    window_ns: int | None = None
    stride_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Views:
    """One segment for each range: the mean over clips x crops, as papers test (SlowFast, ViViT, VideoMAE)."""

    clips: int = 1  # windows of the model's own length, spread evenly over the range; one is in its middle
    crops: int = 1  # 1: the centre; 3: the start, centre and end of the longer side


class Priority(Enum):
    """Whose videos go first where they wait for each other."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Options:
    """What the client asks for. An empty model or version stands for the server's default."""

    model: str = ""
    version: str = ""
    top_k: int = DEFAULT_TOP_K
    score_threshold: float = 0.0
    windowing: WholeVideo | Sliding | Views = Sliding()
    ranges_ns: tuple[tuple[int, int], ...] = ()  # [start, end); none: the whole video
    fast: bool = False  # frames near the wanted ones will do where they cost less
    priority: Priority = Priority.NORMAL
