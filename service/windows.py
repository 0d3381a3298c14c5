"""Units on their way through the engine -> windows, started as soon as their last unit is queued."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from service.engine.engine import VideoWork
from service.engine.hosted import Embedding, Logits
from service.plan import Plan
from service.values import UnitFrames, VideoFacts


@dataclass(frozen=True, slots=True)
class Planned:
    """The first message: what the video is, and what will be looked at."""

    facts: VideoFacts
    plan: Plan


@dataclass(frozen=True, slots=True)
class StartedWindow:
    """A window whose units are all queued; ``decoded_ns`` of the plan was decoded by then."""

    grid: int
    window: int
    decoded_ns: int
    logits: asyncio.Task[Logits] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """The frames ended; later windows follow this plan, cut to where they did."""

    plan: Plan
    warnings: tuple[str, ...]


Outbox = asyncio.Queue[Planned | StartedWindow | Ended | None]
"""From the decoding side of a request to its responding side; None: nothing more comes."""


class WindowStarter:
    """Keeps the last embeddings of a grid, since units come in order and a window is S of them in a row."""

    def __init__(self, plan: Plan, work: VideoWork, outbox: Outbox) -> None:
        self._plan = plan
        self._work = work
        self._outbox = outbox
        self._grid = 0
        self._started = -1
        self._decoded_ns = 0
        self._recent = self._no_units()

    def add(self, unit: UnitFrames) -> None:
        """Queue the next unit, and the window that it completes."""
        if unit.grid != self._grid:
            self._grid, self._started, self._recent = unit.grid, -1, self._no_units()
        grid = self._plan.grids[unit.grid]
        self._decoded_ns += grid.window_ns // grid.units_per_window
        self._recent.append((unit.unit, self._work.encode(unit)))
        window = grid.window_ending_at(unit.unit)
        if window is not None:
            self._start(window)

    def finish(self, cut: Plan, warnings: tuple[str, ...]) -> None:
        """All units came: a plan that ends early has a last window that was not started yet."""
        self._plan = cut
        self._outbox.put_nowait(Ended(cut, warnings))
        last = cut.grids[self._grid].num_windows - 1
        if self._started < last:
            self._start(last)

    def _start(self, window: int) -> None:
        self._started = window
        units = self._plan.grids[self._grid].window_units(window)
        embeddings = [embedding for unit, embedding in self._recent if unit in units]
        logits = asyncio.create_task(self._work.classify(embeddings))
        self._outbox.put_nowait(StartedWindow(self._grid, window, self._decoded_ns, logits))

    def _no_units(self) -> deque[tuple[int, asyncio.Future[Embedding]]]:
        # One more than a window: the last unit decoded may lie beyond the end of a video that ends early.
        return deque(maxlen=self._plan.grids[self._grid].units_per_window + 1)
