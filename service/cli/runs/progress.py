"""How far a run over many videos is: one overall line, and a bar for each video in progress."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from time import monotonic

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from tubelet.service.cli.output import clock, printable
from tubelet.service.cli.runs.runner import Answer, Begun, Event, Failure
from tubelet.service.types.result import Progress, Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_BAR_WIDTH = 24
_LINES_ABOVE = 6  # of the screen, that bars leave to answers
_SURE_AFTER = 0.01  # the part of a run after which its end can be estimated


@dataclass(slots=True)
class VideoInProgress:
    """What is known of a video so far."""

    began_s: float
    metadata: VideoMetadata | None = None
    progress: Progress | None = None
    segments: list[Segment] = field(default_factory=list)

    @property
    def total_ns(self) -> int:
        """How much of the video is to be decoded; 0 while that is not known."""
        if self.progress is not None:
            return round(self.progress.total_s * NS_PER_S)
        return self.metadata.duration_ns if self.metadata else 0

    @property
    def done_ns(self) -> int:
        decoded_ns = round(self.progress.decoded_s * NS_PER_S) if self.progress else 0
        return max(decoded_ns, self.segments[-1].end_ns if self.segments else 0)

    @property
    def done_part(self) -> float:
        return min(self.done_ns / self.total_ns, 1.0) if self.total_ns else 0.0

    def left_s(self, now_s: float) -> float:
        """The estimated time to the video's end; 0 while nothing is done."""
        return (now_s - self.began_s) * (1 / self.done_part - 1) if self.done_part else 0.0


class RunProgress:
    """Counts of a run over ``videos``, ``at_once`` of them at a time, and the videos in progress by index."""

    def __init__(self, videos: Sequence[str], at_once: int, now_s: Callable[[], float] = monotonic) -> None:
        self.videos = videos
        self.in_progress: dict[int, VideoInProgress] = {}
        self.classified = 0
        self.failed = 0
        self._at_once = at_once
        self._now_s = now_s
        self._started_s: float | None = None

    @property
    def ended(self) -> int:
        return self.classified + self.failed

    @property
    def not_begun(self) -> int:
        return len(self.videos) - self.ended - len(self.in_progress)

    @property
    def only_one(self) -> int | None:
        """The video that is in progress alone, and stays so until it ends."""
        if len(self.in_progress) == 1 and (self._at_once == 1 or not self.not_begun):
            return next(iter(self.in_progress))
        return None

    @property
    def elapsed_s(self) -> float:
        """The time since the first video began."""
        return 0.0 if self._started_s is None else self._now_s() - self._started_s

    def update(self, number: int, event: Begun | Event) -> VideoInProgress:
        """Take an event of a video into account."""
        if self._started_s is None:
            self._started_s = self._now_s()
        video = self.in_progress.setdefault(number, VideoInProgress(self._now_s()))
        match event:
            case VideoMetadata():  # again where the video is asked for once more, from its beginning
                video.metadata, video.progress = event, None
                video.segments.clear()
            case Progress():
                video.progress = event
            case Segment():
                video.segments.append(event)
            case Begun():
                pass
        return video

    def end(self, number: int, answer: Answer) -> VideoInProgress:
        """Count a video's answer; returns what was known before it."""
        if isinstance(answer, Failure):
            self.failed += 1
        else:
            self.classified += 1
        return self.in_progress.pop(number, VideoInProgress(self._now_s()))

    def left_s(self) -> float | None:
        """The estimated time to the end, by videos and by the slowest one; None while too little is done."""
        done = self.ended + sum(video.done_part for video in self.in_progress.values())
        if done < _SURE_AFTER * len(self.videos) or not done:
            return None
        by_videos_s = self.elapsed_s / done * (len(self.videos) - done)
        now_s = self._now_s()
        return max([by_videos_s, *(video.left_s(now_s) for video in self.in_progress.values())])

    def summary(self) -> str:
        counts = {
            "classified": self.classified,
            "failed": self.failed,
            "in progress": len(self.in_progress),
            "not begun": self.not_begun,
        }
        parts = [f"{count} {what}" for what, count in counts.items() if count or what == "classified"]
        return f"{', '.join(parts)}, in {_minutes(self.elapsed_s)}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The overall line where there are several videos, and bars as far as the screen has room."""
        room = max(1, options.size.height - _LINES_ABOVE)
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
        parts = [f"{self.ended} of {len(self.videos)}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        left_s = self.left_s()
        if left_s is not None:
            parts.append(f"{_minutes(left_s)} left")
        if hidden:
            parts.append(f"{hidden} more in progress")
        return f" {dot} ".join(parts)


def _bar(name: str, video: VideoInProgress) -> tuple[RenderableType, ...]:
    bar = ProgressBar(total=1.0, completed=video.done_part, width=_BAR_WIDTH)
    times = f"{clock(video.done_ns)} of {clock(video.total_ns)}" if video.total_ns else clock(video.done_ns)
    return Text(printable(name)), bar, Text(times)


def _minutes(seconds: float) -> str:
    """A duration as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
