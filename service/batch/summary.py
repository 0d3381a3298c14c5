"""What a batch found: counts of labels, failures by reason, the slowest videos. It is bounded in size."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from heapq import heappush, heappushpop

from tubelet.service.batch.rows import OK, Row

_SLOWEST = 20
_NAMED = 50  # failures of each reason


@dataclass(frozen=True, slots=True)
class SlowVideo:
    """A video that took long."""

    wall_s: float
    uri: str
    duration_s: float
    device_s: float


@dataclass(slots=True)
class BatchSummary:
    """Sums over the rows of the table ``videos``; ``labels`` counts each video's best label."""

    classified: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    named: defaultdict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    labels: Counter[str] = field(default_factory=Counter)
    scores: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    without_label: int = 0
    video_s: float = 0.0
    read_bytes: int = 0
    device_s: float = 0.0
    warned: int = 0
    _slowest: list[tuple[float, str, SlowVideo]] = field(default_factory=list)

    @property
    def slowest(self) -> list[SlowVideo]:
        """The videos that took longest, the slowest first."""
        return [each for _, _, each in sorted(self._slowest, reverse=True)]

    def add(self, row: Row) -> None:
        """Add a row of the table ``videos``."""
        self.read_bytes += row["read_bytes"]
        self.device_s += row["device_s"]
        slow = SlowVideo(row["wall_s"], row["uri"], row.get("duration_s", 0.0), row["device_s"])
        push = heappush if len(self._slowest) < _SLOWEST else heappushpop
        push(self._slowest, (slow.wall_s, row["id"], slow))
        if row["code"] != OK:
            self.failures[row["reason"]] += 1
            if len(self.named[row["reason"]]) < _NAMED:
                self.named[row["reason"]].append((row["uri"], row["message"]))
            return
        self.classified += 1
        self.video_s += row["duration_s"]
        self.warned += bool(row["warnings"])
        if row["labels"]:
            self.labels[row["labels"][0]] += 1
            self.scores[row["labels"][0]] += row["scores"][0]
        else:
            self.without_label += 1
