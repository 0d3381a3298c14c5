"""What a run of a batch has done so far: counts, failures by reason, costs, and the time left."""

from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

from tubelet.service.batch.rows import VideoRows


class BatchProgress:
    """Counts of a run over ``total`` videos; ``in_progress`` of them are being classified."""

    def __init__(self, total: int, now_s: Callable[[], float] = monotonic) -> None:
        self.total = total
        self.classified = 0
        self.failures: Counter[str] = Counter()
        self.committed = 0
        self.in_progress = 0
        self.redone = 0  # videos of processes that died, which others began again
        self.lost_actors = 0
        self.read_bytes = 0
        self.device_s = 0.0
        self.video_s = 0.0
        self._now_s = now_s
        self._started_s: float | None = None

    @property
    def failed(self) -> int:
        """The number of videos that failed."""
        return self.failures.total()

    @property
    def ended(self) -> int:
        """The number of videos that were classified or failed."""
        return self.classified + self.failed

    @property
    def elapsed_s(self) -> float:
        """The time since the first video began."""
        return 0.0 if self._started_s is None else self._now_s() - self._started_s

    @property
    def videos_per_s(self) -> float:
        """The videos that ended in a second, since the first one began."""
        return self.ended / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def remaining_s(self) -> float | None:
        """Estimate the time until all videos have ended; None while no video has."""
        return (self.total - self.ended) / self.videos_per_s if self.ended and self.elapsed_s else None

    def begin(self) -> None:
        """Count a video that begins."""
        if self._started_s is None:
            self._started_s = self._now_s()
        self.in_progress += 1

    def end(self, rows: VideoRows) -> None:
        """Count a video that has ended."""
        if rows.failure is None:
            self.classified += 1
        else:
            self.failures[rows.failure.reason] += 1
        self.read_bytes += rows.video["read_bytes"]
        self.device_s += rows.video["device_s"]
        self.video_s += rows.video.get("duration_s", 0.0)

    def end_unheard(self, reason: str | None) -> None:
        """Count a video of another process, of which no more is known than why it failed, if it did."""
        if reason is None:
            self.classified += 1
        else:
            self.failures[reason] += 1

    def take_back(self, rows: VideoRows) -> None:
        """Take back a video that had ended, whose rows were lost."""
        if rows.failure is None:
            self.classified -= 1
        else:
            self.failures[rows.failure.reason] -= 1
        self.read_bytes -= rows.video["read_bytes"]
        self.device_s = max(0.0, self.device_s - rows.video["device_s"])  # not -0.0, which sums may give
        self.video_s -= rows.video.get("duration_s", 0.0)

    def json(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        left = self.remaining_s()
        return {
            "videos": self.total,
            "classified": self.classified,
            "failed": self.failed,
            "failures": dict((+self.failures).most_common()),
            "committed": self.committed,
            "redone": self.redone,
            "lost_actors": self.lost_actors,
            "elapsed_s": round(self.elapsed_s, 3),
            "videos_per_s": round(self.videos_per_s, 3),
            "remaining_s": None if left is None else round(left, 1),
            "video_s": round(self.video_s, 3),
            "read_bytes": self.read_bytes,
            "device_s": round(self.device_s, 3),
        }
