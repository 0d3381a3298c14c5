"""The pool of worker processes: one video at a time each, and a dead one costs only the video it had."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.spawner import Spawner, until_started
from tubelet.service.decode.pool.watchdog import Death
from tubelet.service.decode.pool.worker_process import WorkerProcess
from tubelet.service.fair_queue import Claim, FairQueue
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Priority
from tubelet.service.types.video import (
    DecodeSummary,
    PixelFormat,
    Protection,
    UnitFrames,
    VideoFile,
    VideoMetadata,
)

_LEARN = 0.1
_LONG_NICENESS = 5  # a third of the processor time of one that is not nice, where both want it

_log = logging.getLogger(__name__)


class Worker:
    """A worker as one request has it, for one video: probe, then decode.

    ``end`` is there once ``decode`` is through.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self.end: DecodeSummary | None = None

    async def probe(self, file: VideoFile, *, from_front: bool = False) -> VideoMetadata:
        """The metadata of a video, whose descriptor's offset is neither used nor moved.

        ``from_front`` takes the header's word for them, does not wait for more of the file than it takes, and
        goes well with an open plan; without it, all packets have been read.

        Raises:
            NotAVideo, UnsupportedVideo, NoVideoStream, CorruptVideo, VideoTooLarge, DecoderCrashed, or what
            ``file`` raises.
        """
        return await self._process.probe(file, from_front=from_front)

    async def decode(
        self, plan: Plan, pixel_format: PixelFormat, *, fast: bool = False
    ) -> AsyncIterator[UnitFrames]:
        """The plan's units as they end, each to be released by the one who takes it.

        Views that overlap so much that their units do not fit into the shared memory take several passes.
        Where the video ends earlier than the probe said, units stop where ``plan.cut(end.end_ns)`` does. The
        worker waits when no slot is free. ``fast`` takes key frames for what they are near to, and does not
        smooth the edges of blocks.

        Raises:
            CorruptVideo, UnsupportedVideo, VideoTooLarge, DecoderCrashed.
        """
        self.end = None
        ends: list[DecodeSummary] = []
        for first, part in self._process.split_by_memory(plan, pixel_format):
            if ends and ends[-1].end_ns <= part.grids[0].first_ns:
                break
            self._process.decode(part, pixel_format, fast=fast)
            while isinstance(found := await self._process.next_unit(), UnitFrames):
                yield replace(found, grid=first + found.grid) if first else found
            ends.append(found)
        self.end = DecodeSummary(
            end_ns=min(end.end_ns for end in ends),
            frames_decoded=sum(end.frames_decoded for end in ends),
            warnings=tuple(dict.fromkeys(warning for end in ends for warning in end.warnings)),
            metadata=ends[-1].metadata,
            max_frame_offset_ns=max(end.max_frame_offset_ns for end in ends),
        )


class DecodePool:
    """``config.workers`` processes between ``async with`` and its end.

    ``on_worker_death`` is called for each that ended without being asked to, ``on_work`` with how many are at
    work whenever that changes: not waiting for a video, for its bytes, or for a free slot. One that has had
    ``config.max_videos_per_worker`` videos makes room for another. Where videos wait, one that has had its
    worker for ``config.long_video_after_s`` goes on beside another, at a lower priority of the system, so
    that a few long videos do not keep all short ones waiting. ``protections`` are those of the last worker
    that was started.
    """

    def __init__(
        self,
        config: DecodeConfig,
        on_worker_death: Callable[[Death], None] = lambda death: None,
        on_work: Callable[[int], None] = lambda at_work: None,
    ) -> None:
        self._config = config
        self._on_worker_death = on_worker_death
        self._on_work = on_work
        self._at_work = 0
        self.protections: frozenset[Protection] = frozenset()
        self._spawner = Spawner(config)
        self._processes: set[WorkerProcess] = set()
        self._free: deque[WorkerProcess] = deque()  # dead ones too: they are skipped
        self._waiting: FairQueue[asyncio.Future[WorkerProcess]] = FairQueue()
        self._patience: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy_before_s = 0.0
        self._video_s = 0.0  # for which a video has its worker, in the running mean
        self._starting = 0
        self._uploading = 0  # videos with a worker that are on their way still

    async def __aenter__(self) -> "DecodePool":
        await self._spawner.start()
        starts = [asyncio.ensure_future(self._start()) for _ in range(self._config.workers)]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self._stop()
            raise
        self._log_protections()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    # The metrics' thread asks for these too, while the set changes: a copy of it is looked at.

    @property
    def free_workers(self) -> int:
        return sum(process.is_alive and not process.is_taken for process in tuple(self._processes))

    @property
    def busy_workers(self) -> int:
        return sum(process.is_alive and process.is_taken for process in tuple(self._processes))

    @property
    def busy_s(self) -> float:
        """For how long workers have worked, in sum: not while they waited for videos or free slots."""
        return self._busy_before_s + sum(process.busy_s for process in tuple(self._processes))

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Those of the fork server and of all workers."""
        return (*self._spawner.process_ids, *(process.pid for process in tuple(self._processes)))

    async def forget_busy(self) -> None:
        """Count ``busy_s`` from now on, once all workers have left their videos."""
        await asyncio.gather(*self._tasks)
        self._busy_before_s -= self.busy_s

    @asynccontextmanager
    async def worker(
        self,
        file: VideoFile | None = None,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
    ) -> AsyncIterator[Worker]:
        """Wait for a free worker; leaving stops whatever it does. ``deadline`` is on the monotonic clock.

        First come, first served within a priority. Of videos that are on their way, no more than
        ``config.max_uploading_videos`` have one at the same time; for the others it is waited until they are
        there.
        """
        async with self._upload_place(file):
            process = await self._next_free(Claim(priority, deadline))
            try:
                yield Worker(process)
            finally:
                self._in_background(self._give_back(process))

    async def _next_free(self, claim: Claim[asyncio.Future[WorkerProcess]]) -> WorkerProcess:
        turn: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.put(claim, turn)
        self._hand_out()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._in_background(self._give_back(turn.result()))
            else:
                self._waiting.drop(claim)
                self._watch_patience()  # nobody may be left who has lost it
            raise

    def _hand_out(self) -> None:
        """Free workers to those who wait."""
        while self._free and len(self._waiting):
            process = self._free[0]
            if not process.is_alive:
                self._free.popleft()
                continue
            turn = self._waiting.take(monotonic(), self._video_s / self._config.workers)
            if not turn.cancelled():
                self._free.popleft()
                process.take()
                turn.set_result(process)
        self._watch_patience()

    def _watch_patience(self) -> None:
        """See to it that the next video to have had its worker for too long is noticed."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        long = sum(process.is_long for process in self._processes)
        if not len(self._waiting) or long >= self._config.max_long_videos:
            return
        short = [each for each in self._processes if each.is_alive and each.is_taken and not each.is_long]
        if short:
            first = min(short, key=lambda process: process.taken_at)
            wait_s = first.taken_at + self._config.long_video_after_s - monotonic()
            self._patience = asyncio.get_running_loop().call_later(wait_s, self._outlast, first)

    def _outlast(self, process: WorkerProcess) -> None:
        """It has had its video for too long: another works beside it."""
        if process.is_alive and process.is_taken:
            process.make_long(_LONG_NICENESS)
            self._fill()
        self._watch_patience()

    @asynccontextmanager
    async def _upload_place(self, file: VideoFile | None) -> AsyncIterator[None]:
        if file is None or file.size_bytes is not None:
            yield
        elif self._uploading >= self._config.max_uploading_videos:
            await file.whole()
            yield
        else:
            self._uploading += 1
            try:
                yield
            finally:
                self._uploading -= 1

    async def _give_back(self, process: WorkerProcess) -> None:
        self._video_s += _LEARN * (monotonic() - process.taken_at - self._video_s)
        is_over = self._working() > self._config.workers  # it stood in for one that is back at work
        if process.is_alive and (process.is_spent or process.is_long or is_over):
            process.end()
            self._in_background(self._bury(process, None))
            self._fill()
        else:
            await process.leave()
            process.is_taken = False
            self._free.append(process)
            self._hand_out()

    def _working(self) -> int:
        """Workers that can work, neither wait for the bytes of an upload nor have a long video."""
        return sum(
            process.is_alive and not process.is_waiting and not process.is_long for process in self._processes
        )

    def _fill(self) -> None:
        """Start what is missing. Who waits for bytes is stood in for, or slow clients would hold them all."""
        while self._working() + self._starting < self._config.workers:
            self._starting += 1
            self._in_background(self._start_one())

    async def _start_one(self) -> None:
        try:
            await until_started(self._start, "a decode worker")
        finally:
            self._starting -= 1

    async def _start(self) -> None:
        process = WorkerProcess(self._config, self._died, self._fill, self._works)
        await process.start(self._spawner)
        if process.is_alive:
            self.protections = process.protections
            self._processes.add(process)
            self._free.append(process)
            self._hand_out()

    def _died(self, process: WorkerProcess, death: Death) -> None:
        self._on_worker_death(death)
        self._fill()
        self._in_background(self._bury(process, death))

    async def _bury(self, process: WorkerProcess, death: Death | None) -> None:
        how = await process.gone()
        if death is not None:
            _log.warning("a decode worker ended, %s: %s", death, how)
        self._processes.discard(process)
        self._busy_before_s += process.busy_s

    def _works(self, change: int) -> None:
        self._at_work += change
        self._on_work(self._at_work)

    def _log_protections(self) -> None:
        _log.info("decode workers are held by %s", ", ".join(sorted(self.protections)))
        missing = set(Protection) - self.protections
        if missing:
            _log.warning("decode workers are not held by %s: not to be had here", ", ".join(sorted(missing)))

    async def _stop(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._end_all()  # before the tasks: from now on nobody's death is a reason to start another
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end_all()
        await asyncio.gather(*(process.gone() for process in self._processes))
        self._processes.clear()
        await self._spawner.stop()

    def _end_all(self) -> None:
        for process in self._processes:
            process.end()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
