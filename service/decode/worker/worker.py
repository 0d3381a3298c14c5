"""The worker process: decodes one video after another for its parent, and keeps nothing between them.

The fork server forks it, with everything imported and prepared. It ends with its parent: when the socket is
closed or, while FFmpeg is busy, by a signal of the kernel.
"""

import gc
import mmap
import os
import select
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import av.logging
import av.subtitles.codeccontext
import av.subtitles.stream
import numpy as np

from tubelet.service.decode import protocol
from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.demux.packet_stats import KnownKeyFrames
from tubelet.service.decode.frames.decoder import Job, decode
from tubelet.service.decode.limits import Limits, too_large
from tubelet.service.decode.pixels import resample, thumbnail
from tubelet.service.decode.prctl import set_process_name
from tubelet.service.decode.probe.probe import Track, probe, probe_header
from tubelet.service.decode.protocol import Request, Response, VideoRejected
from tubelet.service.decode.worker import sandbox
from tubelet.service.types.video import NS_PER_S

_MAX_KEY_DISTANCE_NS = 20 * NS_PER_S  # on average, of parts that may begin at any key frame
_DESCRIPTORS_PER_VIDEO = 3  # the video, the shared memory, and mmap's own copy of its descriptor


class _SessionStopped(Exception):
    """The parent has asked to stop the video."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that the server gives to all of its workers."""

    server_pid: int
    memory_bytes: int
    heartbeat_interval_s: float
    limits: Limits


class _Connection:
    """The worker's ends of the two sockets; the process exits when the parent closes its ends."""

    def __init__(self, settings: Settings, messages_fd: int, files_fd: int) -> None:
        self._socket = socket.socket(fileno=messages_fd)
        self._files = socket.socket(fileno=files_fd)
        self._unpacker = protocol.Unpacker(protocol.MAX_REQUEST_BYTES)
        self._received: list[tuple[int, Request]] = []
        self._last_sent_at = time.monotonic()
        self._heartbeat_interval_s = settings.heartbeat_interval_s

    def send(self, session_id: int, response: Response) -> None:
        """Send a message about session ``session_id``."""
        try:
            self._socket.sendall(protocol.pack(session_id, response))
        except ConnectionError:
            raise SystemExit from None
        self._last_sent_at = time.monotonic()

    def send_heartbeat(self, session_id: int) -> None:
        """Send a heartbeat if nothing has been sent for ``heartbeat_interval_s``."""
        if time.monotonic() - self._last_sent_at >= self._heartbeat_interval_s:
            self.send(session_id, protocol.Heartbeat())

    def receive(self) -> tuple[int, Request]:
        """Wait for the next message; return the number of its session, and its content."""
        while not self._received:
            self._read_socket()
        return self._received.pop(0)

    def receive_nowait(self) -> tuple[int, Request] | None:
        """Return the next message, or None if none has arrived."""
        if not self._received and select.select([self._socket], [], [], 0)[0]:
            self._read_socket()
        return self._received.pop(0) if self._received else None

    def receive_descriptor(self) -> int:
        """Return the descriptor that came with a message."""
        _, files, _, _ = socket.recv_fds(self._files, 1, 1)
        if not files:
            raise SystemExit("the parent sent no descriptor")
        return files[0]

    def _read_socket(self) -> None:
        """Wait for data, and collect the messages that it completes."""
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            raise SystemExit from None
        if not data:
            raise SystemExit
        self._received += map(protocol.parse_request, self._unpacker.feed(data))


class _SharedSlots:
    """Slots of shared memory for one unit each; waiting for a free one is the flow control."""

    def __init__(self, session: "_Session", fd: int, slots: int, unit_shape: tuple[int, ...]) -> None:
        self._session = session
        self._fd = fd
        unit_bytes = int(np.prod(unit_shape))
        memory = mmap.mmap(fd, slots * unit_bytes)
        self._units = np.ndarray((slots, *unit_shape), np.uint8, buffer=memory)
        self._free = list(range(slots))[::-1]  # used from its end: the lowest slots stay in the cache

    def acquire(self) -> tuple[int, np.ndarray]:
        """Wait for a free slot; return its number and its frames, (t, H, W, C)."""
        while not self._free:
            self._session.handle_next()
        slot = self._free.pop()
        return slot, self._units[slot]

    def announce(self, grid: int, unit: int, slot: int) -> None:
        """Tell the parent that ``slot`` holds a finished unit."""
        self._session.send(protocol.Unit(grid, unit, slot))

    def release(self, slot: int) -> None:
        """Mark ``slot`` as free."""
        self._free.append(slot)

    def close(self) -> None:
        """Close the descriptor; the mapping goes with the last view of it."""
        os.close(self._fd)


class _Session:
    """One video that the worker serves, from its probe to its stop."""

    def __init__(self, connection: _Connection, settings: Settings, session_id: int) -> None:
        self._connection = connection
        self._limits = settings.limits
        self._id = session_id
        self._upload_fd = connection.receive_descriptor()
        self._waits_for_bytes = False
        self._is_stopped = False
        self._track: Track | None = None
        self._slots: _SharedSlots | None = None
        self._run_id = 0
        self._cpu_at_start_s = time.process_time()

    def run(self, request: protocol.Probe) -> None:
        """Probe the video, then handle the parent's messages until it stops the session."""
        request_bytes = None if request.is_whole else self._request_bytes
        self._source = ByteSource(self._upload_fd, request_bytes, request.size)
        find_track = probe_header if request.header_only else probe
        try:
            self._run_or_reject(lambda: self._probe(find_track))
            while True:
                self.handle_next()
        except _SessionStopped:
            return
        finally:
            if self._track is not None:
                self._track.close()
            self._source.close()

    def send(self, response: Response) -> None:
        """Send a message about this session."""
        self._connection.send(self._id, response)

    def handle_next(self) -> None:
        """Wait for the parent's next message, and handle it."""
        self._handle(self._connection.receive()[1])

    def heartbeat(self) -> None:
        """Handle messages that have arrived, send a heartbeat, and check ``max_cpu_s``, between packets."""
        self._check_stopped()
        while (message := self._connection.receive_nowait()) is not None:
            self._handle(message[1])
        self._connection.send_heartbeat(self._id)
        limit_s, used_s = self._limits.max_cpu_s, time.process_time() - self._cpu_at_start_s
        if used_s > limit_s:
            explanation = f"the video needs more than {limit_s:g} s of processor time to decode"
            raise too_large(explanation, limit_s, used_s)

    def _handle(self, request: Request) -> None:
        """Do what a message of the parent asks for."""
        match request:
            case protocol.Stop():
                self._is_stopped = True
                self._source.mark_end()
                raise _SessionStopped
            case protocol.Release(run_id, slot):
                # A late release of an earlier run is not about a slot of this one.
                if self._slots is not None and run_id == self._run_id:
                    self._slots.release(slot)
            case protocol.BytesAvailable(start, end, size):
                self._waits_for_bytes = False
                self._source.add_available(start, end, size)
            case protocol.Decode():
                self._run_or_reject(lambda: self._decode(request))
            case protocol.Probe():
                raise SystemExit("unexpected probe from the parent, within a session")

    def _request_bytes(self, start: int, end: int) -> None:
        """Wait until some of the bytes from ``start`` to ``end`` are available."""
        self._waits_for_bytes = True
        self.send(protocol.BytesNeeded(start, end))
        while self._waits_for_bytes:
            self.handle_next()

    def _run_or_reject(self, work: Callable[[], None]) -> None:
        """Call ``work``; if it rejects the video, tell the parent."""
        try:
            work()
        except VideoRejected as rejection:
            self._check_stopped()
            message = rejection.message[: protocol.MAX_TEXT]
            self.send(protocol.Rejected(rejection.reason, message, rejection.limit, rejection.value))

    def _check_stopped(self) -> None:
        """Raise ``_SessionStopped`` if the session has been stopped.

        When a stop interrupts a read, FFmpeg may report a damaged file instead of passing the exception on.
        """
        if self._is_stopped:
            raise _SessionStopped

    def _probe(self, find_track: Callable[[ByteSource, Limits, Callable[[], None]], Track]) -> None:
        """Probe the video with ``find_track``, and send its metadata."""
        self._track = find_track(self._source, self._limits, self.heartbeat)
        keys, metadata = self._track.key_frames, self._track.metadata
        knows_key_frames = (
            isinstance(keys, KnownKeyFrames)
            and not self._track.is_header_only
            and metadata.duration_ns <= _MAX_KEY_DISTANCE_NS * len(keys)
        )
        self.send(protocol.Probed(metadata, knows_key_frames))

    def _decode(self, request: protocol.Decode) -> None:
        """Decode the plan of ``request`` into its shared memory, and send the end."""
        fd = self._connection.receive_descriptor()
        plan, preprocessing = request.plan, request.preprocessing
        unit_shape = (plan.grids[0].frames_per_unit, preprocessing.height, preprocessing.width, 3)
        self._run_id = request.run
        self._slots = _SharedSlots(self, fd, request.slots, unit_shape)
        try:
            track = self._track or probe(self._source, self._limits, self.heartbeat)
            self._track = None if track.is_header_only else track
            job = Job(
                self._source, track, plan, preprocessing, request.fast, self._limits, request.thumbnails
            )
            end = decode(job, self._slots, self.heartbeat)
        finally:
            self._slots.close()
            self._slots = None
        self.send(protocol.End(end))


def prepare() -> None:
    """Do once, in the fork server, what all workers need and inherit."""
    # Before any codec is opened: with PyAV's own callback, closing a frame-threaded codec early deadlocks.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)
    resample.preload()
    thumbnail.preload()
    sandbox.prepare()


def main(settings: Settings, messages_fd: int, files_fd: int) -> None:
    """Serve videos until the parent closes the two stream sockets.

    Raises:
        SystemExit: always, in the end.
    """
    set_process_name("tubelet-decoder")
    sandbox.prefer_for_oom_kill()
    connection = _Connection(settings, messages_fd, files_fd)
    highest_fd = max(messages_fd, files_fd)
    if accelerator(settings.limits.hardware) is None:
        protections = sandbox.enter(settings.memory_bytes, highest_fd + 1 + _DESCRIPTORS_PER_VIDEO)
    else:
        protections = ()  # a GPU driver opens files, maps much memory, and makes system calls all the time
    connection.send(0, protocol.Ready(protections))
    while True:
        session_id, request = connection.receive()
        if isinstance(request, protocol.Probe):
            _serve_video(connection, settings, session_id, request)


def _serve_video(
    connection: _Connection, settings: Settings, session_id: int, request: protocol.Probe
) -> None:
    """Serve the video that ``request`` begins with; exit after an error that may have damaged the process."""
    try:
        _Session(connection, settings, session_id).run(request)
    except MemoryError as error:
        # FFmpeg may be in an invalid state: this process must take no other video.
        connection.send(session_id, protocol.OutOfMemory(_describe(error)))
        raise SystemExit(1) from None
    except Exception as error:
        connection.send(session_id, protocol.Failed(_describe(error)))
        raise SystemExit(1) from None
    # PyAV's objects refer to each other, and hold decoded frames: much memory, but too few objects for the
    # garbage collector to run by itself.
    gc.collect()
    connection.send(session_id, protocol.Stopped())


def _describe(error: Exception) -> str:
    """Return ``error`` and the lines that raised it, as one line.

    A printed traceback would fail where standard error is a file: the sandbox forbids to write to files.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames[-6:]))
    return f"{error!r} at {where}"[: protocol.MAX_TEXT]
