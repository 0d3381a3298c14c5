"""Progress of a run over many videos: one overall line, and a bar for each video in progress."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from time import monotonic

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from tubelet.service.cli.runs.runner import Answer, Failure, Started
from tubelet.service.report.text import clock, printable
from tubelet.service.types.result import Event, Progress, Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_BAR_WIDTH = 24
_LINES_FOR_ANSWERS = 6  # of the screen that bars leave free for answers
_MIN_FRACTION_FOR_ESTIMATE = 0.01  # of a run; before that, its end is not estimated


@dataclass(slots=True)
class VideoInProgress:
    """All that is known so far of a video that is being classified."""

    started_at_s: float
    metadata: VideoMetadata | None = None
    progress: Progress | None = None
    segments: list[Segment] = field(default_factory=list)

    @property
    def total_ns(self) -> int:
        """The length of video to decode; 0 while it is not known."""
        if self.progress is not None:
            return round(self.progress.total_s * NS_PER_S)
        return self.metadata.duration_ns if self.metadata else 0

    @property
    def done_ns(self) -> int:
        """The length of video that is decoded, or has its labels."""
        decoded_ns = round(self.progress.decoded_s * NS_PER_S) if self.progress else 0
        return max(decoded_ns, self.segments[-1].end_ns if self.segments else 0)

    @property
    def done_fraction(self) -> float:
        """The share of the video that is done, from 0 to 1."""
        return min(self.done_ns / self.total_ns, 1.0) if self.total_ns else 0.0

    def remaining_s(self, now_s: float) -> float:
        """Estimate the time until the video is done; 0 while nothing is done."""
        return (now_s - self.started_at_s) * (1 / self.done_fraction - 1) if self.done_fraction else 0.0


class RunProgress:
    """Counts of a run over ``videos``, ``jobs`` at a time; ``in_progress`` maps numbers to videos."""

    def __init__(self, videos: Sequence[str], jobs: int, now_s: Callable[[], float] = monotonic) -> None:
        self.videos = videos
        self.in_progress: dict[int, VideoInProgress] = {}
        self.classified = 0
        self.failed = 0
        self._jobs = jobs
        self._now_s = now_s
        self._started_s: float | None = None

    @property
    def ended(self) -> int:
        """The number of videos that were classified or failed."""
        return self.classified + self.failed

    @property
    def not_started(self) -> int:
        """The number of videos that are still waiting."""
        return len(self.videos) - self.ended - len(self.in_progress)

    @property
    def single_video(self) -> int | None:
        """The number of the only video in progress, if no other starts before it ends; else None."""
        if len(self.in_progress) == 1 and (self._jobs == 1 or not self.not_started):
            return next(iter(self.in_progress))
        return None

    @property
    def elapsed_s(self) -> float:
        """The time since the first video started."""
        return 0.0 if self._started_s is None else self._now_s() - self._started_s

    def update(self, number: int, event: Started | Event) -> VideoInProgress:
        """Record an event of a video, and return what is known of it."""
        if self._started_s is None:
            self._started_s = self._now_s()
        video = self.in_progress.setdefault(number, VideoInProgress(self._now_s()))
        match event:
            case VideoMetadata():  # again after a retry, which starts from the beginning
                video.metadata, video.progress = event, None
                video.segments.clear()
            case Progress():
                video.progress = event
            case Segment():
                video.segments.append(event)
            case Started():
                pass
        return video

    def end(self, number: int, answer: Answer) -> VideoInProgress:
        """Count a video's answer, and return what was known before it."""
        if isinstance(answer, Failure):
            self.failed += 1
        else:
            self.classified += 1
        return self.in_progress.pop(number, VideoInProgress(self._now_s()))

    def remaining_s(self) -> float | None:
        """Estimate the time until all videos are done; None while too little is done to tell."""
        done = self.ended + sum(video.done_fraction for video in self.in_progress.values())
        if done < _MIN_FRACTION_FOR_ESTIMATE * len(self.videos) or not done:
            return None
        by_videos_s = self.elapsed_s / done * (len(self.videos) - done)
        now_s = self._now_s()
        return max([by_videos_s, *(video.remaining_s(now_s) for video in self.in_progress.values())])

    def summary(self) -> str:
        """Format the counts and the time, such as "37 classified, 2 failed, in 0:41"."""
        counts = {
            "classified": self.classified,
            "failed": self.failed,
            "in progress": len(self.in_progress),
            "not started": self.not_started,
        }
        parts = [f"{count} {what}" for what, count in counts.items() if count or what == "classified"]
        return f"{', '.join(parts)}, in {duration_text(self.elapsed_s)}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the overall line, if there are several videos, and as many bars as fit on the screen."""
        room = max(1, options.size.height - _LINES_FOR_ANSWERS)
        shown = list(self.in_progress.items())[:room]
        name_width = max(12, options.max_width - _BAR_WIDTH - 30)
        bars = Table.grid(
            Column(no_wrap=True, overflow="ellipsis", max_width=name_width),
            Column(),
            Column(),
            padding=(0, 1),
        )
        for number, video in shown:
            bars.add_row(*_bar(PurePath(self.videos[number]).name, video))
        lines: list[RenderableType] = [bars] if shown else []
        if len(self.videos) > 1:
            hidden = len(self.in_progress) - len(shown)
            lines.insert(0, Text(self._overall(hidden, "-" if options.ascii_only else "·"), no_wrap=True))
        yield Group(*lines)

    def _overall(self, hidden: int, dot: str) -> str:
        """Format the overall line; ``hidden`` videos in progress have no bar."""
        parts = [f"{self.ended} of {len(self.videos)}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        remaining_s = self.remaining_s()
        if remaining_s is not None:
            parts.append(f"{duration_text(remaining_s)} left")
        if hidden:
            parts.append(f"{hidden} more in progress")
        return f" {dot} ".join(parts)


def _bar(name: str, video: VideoInProgress) -> tuple[RenderableType, ...]:
    """Render a video's name, bar and times."""
    bar = ProgressBar(total=1.0, completed=video.done_fraction, width=_BAR_WIDTH)
    times = f"{clock(video.done_ns)} of {clock(video.total_ns)}" if video.total_ns else clock(video.done_ns)
    return Text(printable(name)), bar, Text(times)


def duration_text(seconds: float) -> str:
    """Format a duration as m:ss, or as h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
