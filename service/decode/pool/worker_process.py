"""The parent's side of one worker process: starting it, exchanging messages, and killing it on failure.

Every message of a worker is checked on arrival: the bytes that a worker parses may have taken it over.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool import decode_run
from tubelet.service.decode.pool.byte_feed import ByteFeed
from tubelet.service.decode.pool.decode_run import DecodeRun
from tubelet.service.decode.pool.responses import parse_response, rejection_error
from tubelet.service.decode.pool.spawner import Spawner
from tubelet.service.decode.pool.watchdog import Watchdog, WorkerFailure, client_error
from tubelet.service.decode.protocol import (
    MAX_RESPONSE_BYTES,
    MAX_TEXT,
    BytesAvailable,
    BytesNeeded,
    End,
    Failed,
    FileMoved,
    Heartbeat,
    OutOfMemory,
    Probe,
    Probed,
    ProtocolError,
    Ready,
    Rejected,
    Release,
    Request,
    Response,
    Stop,
    Stopped,
    Unit,
    Unpacker,
    pack,
)
from tubelet.service.errors import DecoderCrashed, TubeletError
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import (
    DecodeSummary,
    PixelFormat,
    Protection,
    UnitFrames,
    VideoFile,
    VideoMetadata,
)

_START_TIMEOUT_S = 30.0  # a loaded machine may take long to start a process; beyond this, it never will
_STOP_TIMEOUT_S = 2.0  # for a worker to stop its video


class WorkerProcess(asyncio.Protocol):
    """A worker process, from ``start`` to ``kill``.

    ``on_failure`` is called once if the process ends without being asked to. ``on_upload_wait`` is called
    when it begins to wait for bytes of a video that is still being uploaded. ``on_work`` is called with 1
    when it begins to work and with -1 when it pauses.
    """

    def __init__(
        self,
        config: DecodeConfig,
        on_failure: Callable[["WorkerProcess", WorkerFailure], None],
        on_upload_wait: Callable[[], None] = lambda: None,
        on_work: Callable[[int], None] = lambda change: None,
    ) -> None:
        self.is_alive = False
        self.is_assigned = False  # to a video; set by the pool
        self.assigned_at = 0.0
        self.is_deprioritized = False  # other videos do not wait for the end of its video
        self.protections: frozenset[Protection] = frozenset()  # the sandbox layers that it has entered
        self._config = config
        self._on_failure = on_failure
        self._on_upload_wait = on_upload_wait
        self._unpacker = Unpacker(MAX_RESPONSE_BYTES)
        self._inbox: asyncio.Queue[object] = asyncio.Queue()  # of values and errors
        self._session_id = 0  # counts the videos
        self._in_session = False
        self._expected: tuple[type[Response], ...] = ()  # the types of message that the worker owes one of
        self._byte_feed: ByteFeed | None = None
        self._sent_fd = -1
        self._run: DecodeRun | None = None
        self._num_runs = 0
        self._is_in_service = False  # from ready until killed: an end in between is a failure to report
        self._watchdog = Watchdog(config, self._on_limit_exceeded, on_work)
        self._failure = WorkerFailure.CRASHED
        self._error = client_error(WorkerFailure.CRASHED, config)
        self._detail = ""

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def is_waiting_for_upload(self) -> bool:
        """Whether the worker is held up because bytes of its video have not been uploaded yet."""
        return self._byte_feed is not None and self._byte_feed.is_overdue

    @property
    def busy_s(self) -> float:
        """The total time for which the worker owed a response and did not wait for a free slot or bytes."""
        return self._watchdog.busy_s

    @property
    def has_reached_video_limit(self) -> bool:
        """Whether the worker has had ``max_videos_per_worker`` videos."""
        return self._session_id >= self._config.max_videos_per_worker

    def assign(self) -> None:
        """Mark the worker as assigned to a video."""
        self.is_assigned, self.assigned_at = True, monotonic()

    def deprioritize(self, niceness: int) -> None:
        """Lower the priority of the process for good: an unprivileged process cannot raise it again."""
        self.is_deprioritized = True
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)

    async def start(self, spawner: Spawner) -> None:
        """Start the process and wait until it is ready.

        Raises:
            OSError: no process can be started.
            DecoderCrashed: the process ended, or was not ready within ``_START_TIMEOUT_S``.
        """
        self._process, messages, self._files = await spawner.spawn()
        self.is_alive = True
        self._expected = (Ready,)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, sock=messages)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await self._next_response()
        except BaseException as error:  # also if cancelled just as it gets ready: no one else would end it
            self.kill()
            await self.wait_until_exited()
            if isinstance(error, TimeoutError):
                raise DecoderCrashed(f"a decoder did not start within {_START_TIMEOUT_S:g} s") from None
            raise

    async def probe(self, file: VideoFile, *, header_only: bool) -> VideoMetadata:
        """Start a session with the video in ``file``, and return its metadata."""
        self._check_alive()
        if self._in_session:
            raise RuntimeError("a worker has one video at a time")
        self._session_id += 1
        self._in_session = True
        self._byte_feed = ByteFeed(
            file, self._send_bytes_available, self._on_upload_wait, self._inbox.put_nowait
        )
        self._sent_fd = file.fd
        self._watchdog.start_video(self._process.pid)
        self._send_descriptor(file.fd)
        self._request((Probed, Rejected), Probe(header_only, file.size_bytes, file.is_whole))
        metadata = await self._next_response()
        assert isinstance(metadata, VideoMetadata)
        return metadata

    def decode(self, plan: Plan, pixel_format: PixelFormat, *, fast: bool = False) -> None:
        """Start to decode ``plan``; ``next_unit`` returns what is decoded."""
        self._check_alive()
        self._num_runs += 1
        self._run = DecodeRun(
            self._num_runs, plan, pixel_format, self._config.shared_memory_bytes, self._send_release
        )
        self._send_descriptor(self._run.memory.fd)
        self._run.memory.close_file()
        self._request((Unit, End, Rejected), self._run.request(fast=fast))

    def split_by_memory(self, plan: Plan, pixel_format: PixelFormat) -> Iterator[tuple[int, Plan]]:
        """Yield parts of ``plan`` that fit into the shared memory, each with the number of its first grid."""
        return decode_run.split_by_memory(plan, pixel_format, self._config.shared_memory_bytes)

    async def next_unit(self) -> UnitFrames | DecodeSummary:
        """Wait for the next decoded unit, or for the end of the run."""
        found = await self._next_response()
        assert isinstance(found, UnitFrames | DecodeSummary)
        return found

    async def end_session(self) -> None:
        """Stop the worker's video, so that it can take another; kill the worker if that takes too long."""
        self._run = None
        self._stop_byte_feed()
        self._inbox.put_nowait(RuntimeError("the session has ended"))  # for a caller that still waits
        self._inbox = asyncio.Queue()
        if not self._in_session or not self.is_alive:
            return
        self._in_session = False
        self._request((Stopped,), Stop())
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._next_response()
        except TimeoutError:
            self._fail(WorkerFailure.STOP_TIMEOUT)
        except TubeletError:  # the worker has failed, but its client no longer waits
            return

    def kill(self) -> None:
        """Kill the process on purpose: its end is not reported as a failure."""
        self._is_in_service = False
        self._fail(WorkerFailure.CRASHED)
        self._process.kill()  # after a failure, too, the process may not have exited yet

    async def wait_until_exited(self) -> str:
        """Wait until the process has exited; return its exit status and details for the log."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                status = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            status = await self._process.wait()
        self._files.close()
        return f"status {status} {self._detail}".rstrip()

    # Called by asyncio.

    def data_received(self, data: bytes) -> None:
        """Handle the messages that ``data`` completes; one that makes no sense is a failure of the worker."""
        try:
            for body in self._unpacker.feed(data):
                self._on_message(*parse_response(body))
        except ProtocolError as error:
            self._fail(WorkerFailure.PROTOCOL_ERROR, repr(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the process, and report its failure unless it was killed on purpose."""
        self.is_alive = False
        self._run = None  # lets go of its memory, unless frames of it are still held
        self._watchdog.stop()
        self._stop_byte_feed()
        self._inbox.put_nowait(self._error)
        if self._is_in_service:
            self._on_failure(self, self._failure)

    # Receiving.

    def _on_message(self, session_id: int, response: Response) -> None:
        """Handle one message of the worker.

        Raises:
            ProtocolError: the message belongs to another session, or is not one that is expected.
        """
        name = response.type
        if session_id != self._session_id:
            raise ProtocolError(f"{name} for session {session_id} in session {self._session_id}")
        if isinstance(response, Failed):
            self._detail = response.detail
            return
        is_stopping = Stopped in self._expected
        if isinstance(response, BytesNeeded) and self._byte_feed is not None and not is_stopping:
            self._byte_feed.request(response.start, response.end)
            self._watchdog.disarm()
            return
        if isinstance(response, OutOfMemory):
            self._fail(WorkerFailure.OOM, response.detail)
            return
        is_expected = isinstance(response, self._expected)
        if isinstance(response, Heartbeat) or (not is_expected and is_stopping):
            self._update_watchdog()
            return
        if not is_expected:
            raise ProtocolError(f"{name} is not one of {sorted(each.__name__ for each in self._expected)}")
        self._inbox.put_nowait(self._value_of(response))
        if not isinstance(response, Unit):
            self._expected = ()
        self._update_watchdog()

    def _value_of(self, response: Response) -> object:
        """Convert a message into the value, or the error, that the caller who waits for it gets."""
        match response:
            case Ready(protections):
                self._is_in_service = True
                self.protections = frozenset(protections)
            case Unit(grid, unit, slot):
                assert self._run is not None
                return self._run.receive_unit(grid, unit, slot)
            case Probed(metadata):
                return metadata
            case End(summary):
                assert self._run is not None
                self._run.check_end(summary)
                return summary
            case Rejected():
                return rejection_error(response)
        return response

    async def _next_response(self) -> object:
        """Wait for the next value, or raise the error that arrives instead."""
        found = await self._inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    # Sending.

    def _send_bytes_available(self, start: int, end: int) -> None:
        """Announce the bytes from ``start`` to ``end``; if they moved to another file, send that first."""
        assert self._byte_feed is not None
        file = self._byte_feed.file
        if file.fd != self._sent_fd:
            self._sent_fd = file.fd
            self._send_descriptor(file.fd)
            self._send(FileMoved())
        self._send(BytesAvailable(start, end, file.size_bytes))
        self._update_watchdog()

    def _stop_byte_feed(self) -> None:
        """Serve no more requests for bytes."""
        if self._byte_feed is not None:
            self._byte_feed.stop()
            self._byte_feed = None

    def _request(self, expected: tuple[type[Response], ...], request: Request) -> None:
        """Send a message that the worker answers with one of the ``expected`` types."""
        if self._expected and not isinstance(request, Stop):
            raise RuntimeError(f"{request.type} while the worker still owes a response")
        self._expected = expected
        self._send(request)
        self._update_watchdog()

    def _send(self, request: Request) -> None:
        """Send a message, unless the connection is closed."""
        if not self._transport.is_closing():
            self._transport.write(pack(self._session_id, request))

    def _send_descriptor(self, fd: int) -> None:
        """Send a copy of the descriptor ``fd`` over the second socket."""
        try:
            socket.send_fds(self._files, [b"f"], [fd])
        except (BrokenPipeError, ConnectionError, BlockingIOError):
            self._fail(WorkerFailure.PROTOCOL_ERROR, "the worker does not receive descriptors")

    def _send_release(self, run: DecodeRun, slot: int) -> None:
        """Tell the worker that ``slot`` is free again, if ``run`` is still the current one."""
        if run is self._run and self.is_alive:
            self._send(Release(run.memory.run_id, slot))
            self._update_watchdog()

    # Watching.

    def _update_watchdog(self) -> None:
        """Arm the watchdog if the worker has something to do; otherwise, disarm it."""
        waits_for_slot = self._run is not None and self._run.memory.is_full
        waits_for_bytes = self._byte_feed is not None and self._byte_feed.is_requested
        if self.is_alive and self._expected and not waits_for_slot and not waits_for_bytes:
            self._watchdog.arm()
        else:
            self._watchdog.disarm()

    def _on_limit_exceeded(self, failure: WorkerFailure, value: float) -> None:
        """Kill the worker because it exceeded a limit after ``value`` seconds."""
        self._fail(failure, f"after {value:.3f} s", value)

    def _fail(self, failure: WorkerFailure, detail: str = "", value: float | None = None) -> None:
        """Kill the worker for ``failure``, and keep the error for its client; ``connection_lost`` follows."""
        if self.is_alive:
            self.is_alive = False
            self._failure, self._detail = failure, detail[:MAX_TEXT]
            self._error = client_error(failure, self._config, value)
            self._watchdog.stop()
            self._transport.abort()
            self._process.kill()

    def _check_alive(self) -> None:
        """Raise the worker's error if it has failed."""
        if not self.is_alive:
            raise self._error
