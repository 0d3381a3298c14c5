"""The pool of decode workers: each process decodes one video at a time, and a crash costs only that video."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from time import monotonic

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.long_videos import Assignment, LongVideos
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.decode.pool.spawner import Spawner, retry_until_started
from tubelet.service.decode.pool.worker_process import WorkerProcess
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.fair_queue import FairQueue, Flow
from tubelet.service.types.request import Priority
from tubelet.service.types.video import Protection, VideoFile

_NEWEST_WEIGHT = 0.1  # of the latest video in the running mean of session times

_log = logging.getLogger(__name__)


class DecodePool:
    """``config.workers`` worker processes, started and stopped by ``async with``; it is their observer.

    ``on_worker_failure`` is called with the cause for each worker that ends without being asked to.
    ``on_work`` is called with the number of working workers whenever that changes; a worker that waits for a
    video, for a video's bytes or for a free slot does not work. ``protections`` are those of the worker that
    was started last. Workers that no video waits for help with videos that others decode (``spare_session``).

    A worker that has decoded ``config.max_videos_per_worker`` videos is replaced. Workers of ``LongVideos``,
    and those that wait for an upload, have another one beside them.
    """

    def __init__(
        self,
        config: DecodeConfig,
        on_worker_failure: Callable[[WorkerFailure], None] = lambda failure: None,
        on_work: Callable[[int], None] = lambda num_working: None,
    ) -> None:
        self._config = config
        self._on_worker_failure = on_worker_failure
        self._on_work = on_work
        self._num_working = 0
        self.protections: frozenset[Protection] = frozenset()
        self._spawner = Spawner(config)
        self._processes: set[WorkerProcess] = set()
        self._free: deque[WorkerProcess] = deque()  # may hold processes that have ended: they are skipped
        self._assigned: dict[WorkerProcess, Assignment] = {}
        self._waiting: FairQueue[asyncio.Future[WorkerProcess]] = FairQueue()
        self._waiting_identities: dict[asyncio.Future[WorkerProcess], str] = {}
        self._spare_waiting: deque[tuple[asyncio.Future[WorkerProcess], str]] = deque()
        self._long_videos = LongVideos(config, self._on_long_video)
        self._tasks: set[asyncio.Task[None]] = set()
        self._past_busy_s = 0.0  # of processes that have exited
        self._mean_session_s = 0.0  # running mean of how long a video holds its worker
        self._num_starting = 0
        self._num_uploading = 0  # videos that hold a worker while they are still being uploaded

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

    # The thread that serves metrics reads these properties while the sets change: they iterate over a copy.

    @property
    def busy_workers(self) -> int:
        """The number of live workers that hold a video."""
        return sum(process.is_alive for process in tuple(self._assigned))

    @property
    def busy_s(self) -> float:
        """The total working time of all workers, without the time they waited for videos or free slots."""
        return self._past_busy_s + sum(process.busy_s for process in tuple(self._processes))

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The process ids of the fork server and of all workers."""
        return (*self._spawner.process_ids, *(process.pid for process in tuple(self._processes)))

    @property
    def has_waiting(self) -> bool:
        """Whether a video waits for a worker."""
        return len(self._waiting) > 0

    async def reset_busy_time(self) -> None:
        """Wait until all workers have stopped their last videos, then count ``busy_s`` from zero."""
        await asyncio.gather(*self._tasks)
        self._past_busy_s -= self.busy_s

    @asynccontextmanager
    async def session(
        self,
        file: VideoFile | None = None,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        identity: str = "",
    ) -> AsyncIterator[DecodeSession]:
        """Wait for a free worker and hold it for the context; leaving it stops the video.

        Identities of one ``priority`` take turns; videos of one ``identity`` are served in order of arrival.
        ``deadline`` is on the monotonic clock. At most ``config.max_uploading_videos`` videos hold a worker
        while they are still being uploaded. Any further video waits for the rest of its ``file`` first.
        """
        async with self._upload_slot(file):
            flow = Flow[asyncio.Future[WorkerProcess]](priority, deadline, identity=identity)
            process = await self._acquire(flow)  # kept, so that the queue knows whose turn it was
            try:
                yield DecodeSession(process)
            finally:
                self._in_background(self._release(process))

    @asynccontextmanager
    async def spare_session(self, identity: str = "") -> AsyncIterator[DecodeSession]:
        """Wait for a worker that no video waits for, and hold it for the context.

        It is for a part of a video of ``identity`` that another worker decodes. Leave it soon if a video
        waits (``has_waiting``).
        """
        assigned: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._spare_waiting.append((assigned, identity))
        self._assign_workers()
        process = await self._result(assigned)
        try:
            yield DecodeSession(process)
        finally:
            self._in_background(self._release(process))

    # The pool observes its workers.

    def worker_failed(self, process: WorkerProcess, failure: WorkerFailure) -> None:
        """Report and replace a worker that failed."""
        self._on_worker_failure(failure)
        self._spawn_missing()
        self._in_background(self._reap(process, failure))

    def worker_waits_for_upload(self) -> None:
        """Start another worker beside one that waits for the bytes of an upload."""
        self._spawn_missing()

    def work_changed(self, change: int) -> None:
        """Report that the number of working workers has changed by ``change``."""
        self._num_working += change
        self._on_work(self._num_working)

    async def _acquire(self, flow: Flow[asyncio.Future[WorkerProcess]]) -> WorkerProcess:
        """Wait until a worker is assigned to ``flow``."""
        assigned: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.put(flow, assigned)
        self._waiting_identities[assigned] = flow.identity
        self._assign_workers()
        try:
            return await self._result(assigned)
        except asyncio.CancelledError:
            if assigned.cancelled():
                self._waiting.drop(flow)
                self._waiting_identities.pop(assigned, None)
                self._watch_long_videos()  # this may have been the last video that waited
            raise

    async def _result(self, assigned: "asyncio.Future[WorkerProcess]") -> WorkerProcess:
        """Wait until a worker is assigned; if this is cancelled at that moment, give the worker back."""
        try:
            return await assigned
        except asyncio.CancelledError:
            if assigned.done() and not assigned.cancelled():
                self._in_background(self._release(assigned.result()))
            raise

    def _assign_workers(self) -> None:
        """Assign free workers to the videos that wait; if there are none, to parts of others."""
        while self._free:
            process = self._free[0]
            if not process.is_alive:
                self._free.popleft()
                continue
            if (waiting := self._take_waiting()) is None:
                break
            assigned, identity = waiting
            if not assigned.cancelled():
                self._free.popleft()
                self._assigned[process] = Assignment(monotonic(), identity)
                assigned.set_result(process)
        self._watch_long_videos()

    def _take_waiting(self) -> "tuple[asyncio.Future[WorkerProcess], str] | None":
        """Return what is to get the next free worker, and its identity; None if nothing waits for one."""
        if self.has_waiting:
            assigned = self._waiting.take(monotonic(), self._mean_session_s / self._config.workers)
            return assigned, self._waiting_identities.pop(assigned)
        return self._spare_waiting.popleft() if self._spare_waiting else None

    def _watch_long_videos(self) -> None:
        """Watch the assigned workers for long videos while any video waits for a worker."""
        self._long_videos.watch(self._assigned, {*self._waiting_identities.values()})

    def _on_long_video(self) -> None:
        """Start another worker beside one whose video runs long."""
        self._spawn_missing()
        self._watch_long_videos()

    @asynccontextmanager
    async def _upload_slot(self, file: VideoFile | None) -> AsyncIterator[None]:
        """Take a slot for a video still being uploaded; if none is free, wait for all of ``file``."""
        if file is None or file.size_bytes is not None:
            yield
        elif self._num_uploading >= self._config.max_uploading_videos:
            await file.whole()
            yield
        else:
            self._num_uploading += 1
            try:
                yield
            finally:
                self._num_uploading -= 1

    async def _release(self, process: WorkerProcess) -> None:
        """Stop the session of ``process`` and free the worker, or replace it."""
        session_s = monotonic() - self._assigned.pop(process).since
        self._mean_session_s += _NEWEST_WEIGHT * (session_s - self._mean_session_s)
        is_surplus = self._count_active() > self._config.workers  # it replaced one that works again
        is_long = process in self._long_videos
        if process.is_alive and (process.has_reached_video_limit or is_long or is_surplus):
            process.kill()
            self._in_background(self._reap(process, None))
            self._spawn_missing()
        else:
            self._watch_long_videos()  # its video has ended: it never becomes a long one while it stops
            await process.end_session()
            self._free.append(process)
            self._assign_workers()

    def _count_active(self) -> int:
        """Count the live workers without long videos, less ``config.max_uploading_videos`` that may wait."""
        counted = [each for each in self._processes if each.is_alive and each not in self._long_videos]
        num_waiting = sum(process.is_waiting_for_upload for process in counted)
        return len(counted) - min(num_waiting, self._config.max_uploading_videos)

    def _spawn_missing(self) -> None:
        """Start workers until ``config.workers`` are active.

        Some that wait for bytes do not count: otherwise slow clients would hold all workers. Not all: more
        videos may be fetched than there is memory for workers.
        """
        while self._count_active() + self._num_starting < self._config.workers:
            self._num_starting += 1
            self._in_background(self._start_one())

    async def _start_one(self) -> None:
        """Start a worker, however many attempts that takes."""
        try:
            await retry_until_started(self._start, "a decode worker")
        finally:
            self._num_starting -= 1

    async def _start(self) -> None:
        """Start a worker and add it to the free ones."""
        process = WorkerProcess(self._config, self)
        await process.start(self._spawner)
        if process.is_alive:
            self.protections = process.protections
            self._processes.add(process)
            self._free.append(process)
            self._assign_workers()

    async def _reap(self, process: WorkerProcess, failure: WorkerFailure | None) -> None:
        """Wait until ``process`` has exited, log its ``failure`` if any, and remove it from the pool."""
        exit_text = await process.wait_until_exited()
        if failure is not None:
            _log.warning("a decode worker failed, cause %s: %s", failure, exit_text)
        self._processes.discard(process)
        self._long_videos.discard(process)
        self._past_busy_s += process.busy_s

    def _log_protections(self) -> None:
        """Log which layers of the sandbox protect the workers, and which this host lacks."""
        _log.info("decode sandbox: %s", ", ".join(sorted(self.protections)))
        missing = set(Protection) - self.protections
        if missing:
            _log.warning("decode sandbox layers unavailable on this host: %s", ", ".join(sorted(missing)))

    async def _stop(self) -> None:
        """Kill all workers and the fork server, and wait until they have exited."""
        self._long_videos.watch({}, frozenset())
        self._kill_all()  # before the tasks: then no end of a worker starts another one
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._kill_all()
        await asyncio.gather(*(process.wait_until_exited() for process in self._processes))
        self._processes.clear()
        await self._spawner.stop()

    def _kill_all(self) -> None:
        """Kill every worker, as an end that was asked for."""
        for process in self._processes:
            process.kill()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` in a task that the pool keeps until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
