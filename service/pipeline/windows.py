"""Windows of a request: each is started in the engine as soon as its last unit is queued."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tubelet.service.engine.model_runner import Embedding, Logits
from tubelet.service.engine.session import VideoSession
from tubelet.service.errors import VideoTooLarge
from tubelet.service.pipeline.window_outputs import ComputeWindow, Vector
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import DecodeSummary, VideoMetadata


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of a video and its metadata; the first event. A later one replaces it."""

    metadata: VideoMetadata
    plan: Plan


@dataclass(frozen=True, slots=True)
class QueuedUnit:
    """A unit of a plan that is queued in the engine, and its future embedding (D,)."""

    grid: int
    unit: int
    embedding: asyncio.Future[Embedding] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClassifiedWindow:
    """The logits (K,) of a window, and how much of the plan had been decoded when its last unit came.

    ``logits`` are None where only vectors are asked for. ``vectors`` has the vector of the window, or those
    of ``new_units``, which are in no earlier window; it is empty where none are asked for.
    """

    grid: int
    window: int
    decoded_ns: int
    logits: Logits | None = field(repr=False)
    new_units: range = range(0)
    vectors: Sequence[Vector] = field(repr=False, default=())

    @property
    def vector_bytes(self) -> int:
        """The bytes that the vectors take."""
        return sum(vector.nbytes for vector in self.vectors)


@dataclass(frozen=True, slots=True)
class PlanCut:
    """The plan, cut to where the frames ended; the windows after this event are those of ``plan``."""

    plan: Plan


WindowEvent = Planned | ClassifiedWindow | PlanCut | DecodeSummary
"""What a window stream yields; the summary is the last event."""

StartedWindow = asyncio.Task[ClassifiedWindow]
"""A window whose units are all queued in the engine."""


@dataclass(slots=True)
class _RecentUnits:
    """The last S units of a grid, with their embeddings; units arrive in order."""

    recent: deque[tuple[int, asyncio.Future[Embedding]]]
    started: int = -1  # the last window that was started


class WindowStarter:
    """Starts each window when its last unit arrives; ``compute`` has the engine compute it.

    All methods raise VideoTooLarge if the video has more than ``most`` windows: two frames are enough to
    claim a duration of a day.
    """

    def __init__(self, plan: Plan, session: VideoSession, compute: ComputeWindow, most: int) -> None:
        if not plan.is_unbounded:
            _check(sum(grid.num_windows for grid in plan.grids), most)
        self._plan = plan
        self._session = session
        self._compute = compute
        self._most, self._count = most, 0
        self._decoded_ns = 0
        self._recent_units: dict[int, _RecentUnits] = {}

    def add(self, unit: QueuedUnit) -> StartedWindow | None:
        """Take the next unit of its grid, and start and return the window that it completes, if any."""
        grid = self._plan.grids[unit.grid]
        if unit.grid not in self._recent_units:
            self._recent_units[unit.grid] = _RecentUnits(deque(maxlen=grid.units_per_window))
        self._decoded_ns += grid.window_ns // grid.units_per_window
        self._recent_units[unit.grid].recent.append((unit.unit, unit.embedding))
        window = grid.window_ending_at(unit.unit)
        if window is None:
            return None
        started = self._start(unit.grid, window)
        if window == grid.num_windows - 1:
            del self._recent_units[unit.grid]
        return started

    @property
    def has_started(self) -> bool:
        """Whether a window was started."""
        return self._count > 0

    def abandon(self) -> None:
        """Cancel the embeddings of all units; no window has been started yet."""
        for row in self._recent_units.values():
            for _, embedding in row.recent:
                embedding.cancel()

    def finish(self, cut: Plan) -> Iterator[StartedWindow]:
        """Start and yield the last window of each grid of ``cut`` that ended early, after all units."""
        self._plan = cut
        for grid, row in self._recent_units.items():
            last = cut.grids[grid].num_windows - 1
            if row.started < last:
                yield self._start(grid, last)

    def _start(self, grid: int, window: int) -> StartedWindow:
        self._count += 1
        _check(self._count, self._most)
        row, sampling = self._recent_units[grid], self._plan.grids[grid]
        units = sampling.window_units(window)
        seen = sampling.window_units(row.started).stop if row.started >= 0 else units.start
        row.started = window
        embeddings = [embedding for unit, embedding in row.recent if unit in units]
        return asyncio.create_task(
            self._run(grid, window, self._decoded_ns, range(seen, units.stop), embeddings)
        )

    async def _run(
        self,
        grid: int,
        window: int,
        decoded_ns: int,
        new_units: range,
        embeddings: list[asyncio.Future[Embedding]],
    ) -> ClassifiedWindow:
        logits, vectors = await self._compute(self._session, embeddings, len(new_units))
        return ClassifiedWindow(grid, window, decoded_ns, logits, new_units, vectors)


def _check(windows: int, most: int) -> None:
    if windows > most:
        raise VideoTooLarge(
            f"the video has more windows than the limit of {most}; a longer stride makes fewer",
            limit=most,
            value=f">={windows}",
        )
