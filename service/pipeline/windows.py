"""Units on their way through the engine -> windows, started as soon as their last unit is queued."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from tubelet.service.engine.model_runner import Embedding, Logits
from tubelet.service.engine.session import VideoSession
from tubelet.service.errors import VideoTooLarge
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import DecodeSummary, UnitFrames, VideoMetadata


@dataclass(frozen=True, slots=True)
class Planned:
    """The first message: what the video is, and what will be looked at. A later one replaces it."""

    metadata: VideoMetadata
    plan: Plan


@dataclass(frozen=True, slots=True)
class StartedWindow:
    """A window whose units are all queued; ``decoded_ns`` of the plan was decoded by then."""

    grid: int
    window: int
    decoded_ns: int
    logits: asyncio.Task[Logits] = field(repr=False)


@dataclass(frozen=True, slots=True)
class DecodingEnded:
    """The frames ended; later windows follow this plan, cut to where they did."""

    plan: Plan
    end: DecodeSummary


DecodingEvents = asyncio.Queue[Planned | StartedWindow | DecodingEnded | None]
"""From the decoding side of a request to its responding side; None: nothing more comes."""


@dataclass(slots=True)
class _RecentUnits:
    """The last units of a grid, which come in order; a window is S of them in a row."""

    recent: deque[tuple[int, asyncio.Future[Embedding]]]
    started: int = -1  # the last window


class WindowStarter:
    """Starts each window with its last unit. A row is kept for each grid that has windows to come.

    Methods raise:
        VideoTooLarge: there are more than ``most`` windows. Two frames can claim to last for a day.
    """

    def __init__(self, plan: Plan, work: VideoSession, events: DecodingEvents, most: int) -> None:
        if not plan.is_unbounded:
            _check(sum(grid.num_windows for grid in plan.grids), most)
        self._plan = plan
        self._most, self._count = most, 0
        self._work = work
        self._events = events
        self._decoded_ns = 0
        self._recent_units: dict[int, _RecentUnits] = {}

    def add(self, unit: UnitFrames) -> None:
        """Queue the next unit, and the window that it completes."""
        grid = self._plan.grids[unit.grid]
        if unit.grid not in self._recent_units:
            self._recent_units[unit.grid] = _RecentUnits(deque(maxlen=grid.units_per_window))
        self._decoded_ns += grid.window_ns // grid.units_per_window
        self._recent_units[unit.grid].recent.append((unit.unit, self._work.encode(unit)))
        window = grid.window_ending_at(unit.unit)
        if window is not None:
            self._start(unit.grid, window)
            if window == grid.num_windows - 1:
                del self._recent_units[unit.grid]

    @property
    def has_started(self) -> bool:
        """Has whoever reads the events heard of a window?"""
        return self._count > 0

    def abandon(self) -> None:
        """Forget all units; no window is started yet."""
        for row in self._recent_units.values():
            for _, embedding in row.recent:
                embedding.cancel()

    def finish(self, cut: Plan, end: DecodeSummary) -> None:
        """All units came: a grid that ends early has a last window that was not started yet."""
        self._plan = cut
        self._events.put_nowait(DecodingEnded(cut, end))
        for grid, row in self._recent_units.items():
            last = cut.grids[grid].num_windows - 1
            if row.started < last:
                self._start(grid, last)

    def _start(self, grid: int, window: int) -> None:
        self._count += 1
        _check(self._count, self._most)
        row = self._recent_units[grid]
        row.started = window
        units = self._plan.grids[grid].window_units(window)
        embeddings = [embedding for unit, embedding in row.recent if unit in units]
        logits = asyncio.create_task(self._work.classify(embeddings))
        self._events.put_nowait(StartedWindow(grid, window, self._decoded_ns, logits))


def _check(windows: int, most: int) -> None:
    if windows > most:
        raise VideoTooLarge(
            f"the video has more windows than the limit of {most}; with a longer stride it has fewer",
            limit=most,
            value=f">={windows}",
        )
