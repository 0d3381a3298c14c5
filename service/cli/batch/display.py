"""What ``tubelet batch`` shows: a line of progress while it runs, and a summary."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rich.console import Console
from rich.text import Text

from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.source.items import Item
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.progress import duration_text

_LOG_INTERVAL_S = 30.0  # between lines where there is no terminal
_MAX_REASONS = 3  # of failures in a line
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class BatchDisplay:
    """Shows the progress of a run on ``notes``, standard error, and prints its summary."""

    def __init__(self, notes: Console, progress: BatchProgress, out: str, *, as_json: bool) -> None:
        self._notes = notes
        self._progress = progress
        self._out = out
        self._as_json = as_json

    def begin(self, items: Sequence[Item], todo: Sequence[Item], commits: ShardCommits) -> None:
        """Say how many videos have rows already, and which of those that failed are asked again."""
        ids = {item.id for item in items}
        done = len(ids & commits.done)
        failed = ids & commits.failed.keys()
        again = len(failed & {item.id for item in todo})
        if done or failed:
            left = len(failed) - again
            notes = [
                *([f"{left} failed before (--retry-failed asks again)"] if left else []),
                *([f"{again} failed before and are asked again"] if again else []),
            ]
            classified = f"resumed: {done} of {len(items)} videos are classified in {self._out}"
            self._notes.print("; ".join((classified, *notes)))

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the progress until the context ends; without a terminal, print a line now and then."""
        if self._notes.is_terminal:
            async with LiveRegion(self._notes, self._line).shown():
                yield
            return
        printing = asyncio.create_task(self._print_lines())
        try:
            yield
        finally:
            printing.cancel()

    def end(self, *, is_interrupted: bool) -> None:
        """Print the summary, on standard output if it is JSON."""
        progress = self._progress
        if self._as_json:
            content = {"out": self._out, "interrupted": is_interrupted} | progress.json()
            print(json.dumps(content), flush=True)
        if not progress.total:
            self._notes.print(f"nothing to do: every video has its row in {self._out}")
            return
        counts = [
            f"{progress.classified} classified",
            *([_failures_text(progress)] if progress.failed else []),
        ]
        speed = f", {progress.videos_per_s:.3g} videos/s" if progress.ended else ""
        kept = f"{progress.committed} are committed in {self._out}"
        again = "; the same command with --resume continues" if is_interrupted else ""
        begin = "interrupted: " if is_interrupted else ""
        time = duration_text(progress.elapsed_s)
        self._notes.print(f"{begin}{', '.join(counts)}, in {time}{speed}; {kept}{again}")

    async def _print_lines(self) -> None:
        """Print the progress regularly, until cancelled."""
        while True:
            await asyncio.sleep(_LOG_INTERVAL_S)
            self._notes.print(self._line())

    def _line(self) -> Text:
        """Format the progress in one line."""
        progress = self._progress
        parts = [f"{progress.ended} of {progress.total}"]
        if progress.ended:
            parts.append(f"{progress.videos_per_s:.3g} videos/s")
        if (left := progress.remaining_s()) is not None:
            parts.append(f"{duration_text(left)} left")
        if progress.failed:
            parts.append(_failures_text(progress))
        parts += [size_text(progress.read_bytes), f"{progress.device_s:.0f} device s"]
        parts.append(f"{progress.committed} committed")
        dot = "·" if self._notes.encoding.startswith("utf") else "-"
        return Text(f" {dot} ".join(parts), no_wrap=True, overflow="ellipsis")


def size_text(size: float) -> str:
    """Format a number of bytes, such as 1.2 GB."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def _failures_text(progress: BatchProgress) -> str:
    """Format the failures with their most frequent reasons."""
    common = progress.failures.most_common()
    reasons = [f"{reason} {count}" for reason, count in common[:_MAX_REASONS]]
    more = len(common) - _MAX_REASONS
    return f"{progress.failed} failed ({', '.join(reasons)}{f' and {more} more reasons' if more > 0 else ''})"
