"""The parent's side of one worker process: starting it, exchanging messages, and killing it on failure.

Every message of a worker is checked on arrival: the bytes that a worker parses may have taken it over.
"""

import asyncio
import os
import socket
from contextlib import suppress
from contextvars import Context, copy_context

from tubelet.models.spec import Preprocessing
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode import protocol
from tubelet.service.decode.pool.byte_feed import ByteFeed
from tubelet.service.decode.pool.decode_run import DecodeRun
from tubelet.service.decode.pool.responses import parse_response, rejection_error
from tubelet.service.decode.pool.spawner import Spawner
from tubelet.service.decode.pool.watchdog import Watchdog
from tubelet.service.decode.pool.worker_state import WorkerFailure, WorkerObserver, WorkerState, client_error
from tubelet.service.decode.protocol import ProtocolError, Request, Response
from tubelet.service.errors import DecoderCrashed, TubeletError
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import DecodeSummary, Protection, UnitFrames, VideoFile, VideoMetadata

_START_TIMEOUT_S = 30.0  # a loaded machine may take long to start a process; beyond this, it never will
_STOP_TIMEOUT_S = 2.0  # for a worker to stop its video


class WorkerProcess(asyncio.Protocol):
    """A worker process, from ``start`` to ``kill``; ``observer`` is told of its failure, work and pauses."""

    def __init__(self, config: DecodeConfig, observer: WorkerObserver) -> None:
        self.config = config
        self.protections: frozenset[Protection] = frozenset()  # the sandbox layers that it has entered
        self.knows_key_frames = False  # of its video, which it can decode from each of them
        self._state = WorkerState.STARTING
        self._observer = observer
        self._unpacker = protocol.Unpacker(protocol.MAX_RESPONSE_BYTES)
        self._inbox: asyncio.Queue[object] = asyncio.Queue()  # of values and errors
        self._session_id = 0  # counts the videos
        self._context = Context()  # of the call whose video it has: lines of the log have the call's id
        self._byte_feed: ByteFeed | None = None
        self._run: DecodeRun | None = None
        self._num_runs = 0
        self._watchdog = Watchdog(config, self._fail, observer.work_changed)
        self._failure: WorkerFailure | None = None  # to report: nothing before it is ready, or after a kill
        self._error = client_error(WorkerFailure.CRASHED, config)
        self._detail = ""

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process can take requests: it has neither ended nor been killed."""
        return self._state is not WorkerState.DEAD

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
        return self._session_id >= self.config.max_videos_per_worker

    def deprioritize(self, niceness: int) -> None:
        """Lower the priority of the process for good: an unprivileged process cannot raise it again."""
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)

    async def start(self, spawner: Spawner) -> None:
        """Start the process and wait until it is ready.

        Raises:
            OSError: no process can be started.
            DecoderCrashed: the process ended, or was not ready within ``_START_TIMEOUT_S``.
        """
        self._process, messages, self._files = await spawner.spawn()
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
        self._check_state(WorkerState.IDLE)
        self._session_id += 1
        self._context = copy_context()
        self._byte_feed = ByteFeed(
            file, self._send_bytes_available, self._observer.worker_waits_for_upload, self._inbox.put_nowait
        )
        self._watchdog.start_video(self._process.pid)
        request = protocol.Probe(header_only, file.size_bytes, file.is_whole)
        self._request(WorkerState.PROBING, request, file.fd)
        metadata = await self._next_response()
        assert isinstance(metadata, VideoMetadata)
        return metadata

    def decode(
        self, plan: Plan, preprocessing: Preprocessing, *, fast: bool = False, thumbnails: int = 0
    ) -> None:
        """Start to decode ``plan``, with at most ``thumbnails``; ``next_unit`` returns what is decoded."""
        self._check_state(WorkerState.OPEN)
        self._num_runs += 1
        room = self.config.shared_memory_bytes
        self._run = DecodeRun(self._num_runs, plan, preprocessing, room, self._send_release, thumbnails)
        self._request(WorkerState.DECODING, self._run.request(fast=fast), self._run.memory.fd)
        self._run.memory.close_file()

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
        if not self._state.has_video:
            return
        self._request(WorkerState.STOPPING, protocol.Stop())
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._next_response()
        except TimeoutError:
            self._fail(WorkerFailure.STOP_TIMEOUT)
        except TubeletError:  # the worker has failed, but its client no longer waits
            return
        else:
            self._context = Context()

    def kill(self) -> None:
        """Kill the process on purpose: its end is not reported as a failure."""
        self._fail(WorkerFailure.CRASHED)
        self._failure = None
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

    # Called by asyncio, in the context of whoever had the worker started.

    def data_received(self, data: bytes) -> None:
        """Handle ``data`` in the context of the video's call."""
        self._context.run(self._on_data, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the process in the context of the video's call."""
        self._context.run(self._on_end)

    def _on_data(self, data: bytes) -> None:
        """Handle the messages that ``data`` completes; one that makes no sense is a failure of the worker."""
        try:
            for body in self._unpacker.feed(data):
                self._on_message(*parse_response(body))
        except ProtocolError as error:
            self._fail(WorkerFailure.PROTOCOL_ERROR, repr(error))

    def _on_end(self) -> None:
        """Clean up after the process, and report its failure unless it was killed on purpose."""
        self._state = WorkerState.DEAD
        self._run = None  # lets go of its memory, unless frames of it are still held
        self._watchdog.stop()
        self._stop_byte_feed()
        self._inbox.put_nowait(self._error)
        if self._failure is not None:
            self._observer.worker_failed(self, self._failure)

    # Receiving.

    def _on_message(self, session_id: int, response: Response) -> None:
        """Handle one message of the worker.

        Raises:
            ProtocolError: the message belongs to another session, or may not come in this state.
        """
        if session_id != self._session_id:
            raise ProtocolError(f"{response.type} for session {session_id} in session {self._session_id}")
        match self._state, response:
            case WorkerState.STARTING, protocol.Ready(protections):
                self.protections = frozenset(protections)
                self._failure = WorkerFailure.CRASHED
                self._finish(WorkerState.IDLE, response)
            case WorkerState.PROBING, protocol.Probed(metadata, knows_key_frames):
                self.knows_key_frames = knows_key_frames
                self._finish(WorkerState.OPEN, metadata)
            case WorkerState.DECODING, protocol.Unit(grid, unit, slot):
                assert self._run is not None
                self._inbox.put_nowait(self._run.receive_unit(grid, unit, slot))
            case WorkerState.DECODING, protocol.End(summary):
                assert self._run is not None
                self._run.check_end(summary)
                self._finish(WorkerState.OPEN, summary)
            case WorkerState.PROBING | WorkerState.DECODING, protocol.Rejected():
                self._finish(WorkerState.OPEN, rejection_error(response))
            case WorkerState.PROBING | WorkerState.DECODING, protocol.BytesNeeded(start, end):
                assert self._byte_feed is not None
                self._byte_feed.request(start, end)
            case WorkerState.STOPPING, protocol.Stopped():
                self._finish(WorkerState.IDLE, response)
            case _, protocol.Failed(detail):
                self._detail = detail
            case _, protocol.OutOfMemory(detail):
                self._fail(WorkerFailure.OOM, detail)
            case _, protocol.Heartbeat():
                pass
            case WorkerState.STOPPING, _:
                pass  # it was sent before the stop arrived
            case _:
                raise ProtocolError(f"{response.type} from a worker that is {self._state}")
        self._update_watchdog()

    def _finish(self, state: WorkerState, result: object) -> None:
        """Enter ``state``, and give ``result`` to the caller who waits for it; an error is raised there."""
        self._state = state
        self._inbox.put_nowait(result)

    async def _next_response(self) -> object:
        """Wait for the next value, or raise the error that arrives instead."""
        found = await self._inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    # Sending.

    def _send_bytes_available(self, start: int, end: int) -> None:
        """Announce the bytes from ``start`` to ``end``."""
        assert self._byte_feed is not None
        self._send(protocol.BytesAvailable(start, end, self._byte_feed.file.size_bytes))

    def _stop_byte_feed(self) -> None:
        """Serve no more requests for bytes."""
        if self._byte_feed is not None:
            self._byte_feed.stop()
            self._byte_feed = None

    def _check_state(self, state: WorkerState) -> None:
        """Raise an error unless the worker is in ``state``: its own error if it has failed."""
        if self._state is WorkerState.DEAD:
            raise self._error
        if self._state is not state:
            raise RuntimeError(f"the worker is {self._state}, but must be {state}")

    def _request(self, state: WorkerState, request: Request, fd: int | None = None) -> None:
        """Send a request, and the descriptor ``fd``; in ``state``, the worker owes the response."""
        self._state = state
        if fd is not None:
            self._send_descriptor(fd)
        self._send(request)

    def _send(self, request: Request) -> None:
        """Send a message, unless the connection is closed."""
        if not self._transport.is_closing():
            self._transport.write(protocol.pack(self._session_id, request))
        self._update_watchdog()

    def _send_descriptor(self, fd: int) -> None:
        """Send a copy of the descriptor ``fd`` over the second socket."""
        try:
            socket.send_fds(self._files, [b"f"], [fd])
        except (ConnectionError, BlockingIOError):
            self._fail(WorkerFailure.PROTOCOL_ERROR, "the worker does not receive descriptors")

    def _send_release(self, run: DecodeRun, slot: int) -> None:
        """Tell the worker that ``slot`` is free again, if ``run`` is still the current one."""
        if run is self._run and self.is_alive:
            self._send(protocol.Release(run.memory.run_id, slot))

    # Watching.

    def _update_watchdog(self) -> None:
        """Arm the watchdog if the worker has something to do; otherwise, disarm it."""
        waits_for_slot = self._run is not None and self._run.memory.is_full
        waits_for_bytes = self._byte_feed is not None and self._byte_feed.is_requested
        if self._state.owes_response and not waits_for_slot and not waits_for_bytes:
            self._watchdog.arm()
        else:
            self._watchdog.disarm()

    def _fail(self, failure: WorkerFailure, detail: str = "", value: float | None = None) -> None:
        """Kill the worker for ``failure``, and keep the error for its client; ``connection_lost`` follows."""
        if self.is_alive:
            self._state = WorkerState.DEAD
            self._detail = detail[: protocol.MAX_TEXT]
            if self._failure is not None:
                self._failure = failure
            self._error = client_error(failure, self.config, value)
            self._watchdog.stop()
            self._transport.abort()
            self._process.kill()
