"""The worker process: takes one video after the other from its parent, and holds nothing between them.

Forked by ``forkserver``, which has imported and prepared everything. It ends with its parent: on the socket's
end, or by the kernel while FFmpeg is busy.
"""

import gc
import mmap
import os
import select
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import av.logging
import av.subtitles.codeccontext
import av.subtitles.stream
import numpy as np

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.frames.decoder import Job, decode
from tubelet.service.decode.limits import Limits
from tubelet.service.decode.pixels.resample import preload
from tubelet.service.decode.prctl import call_itself
from tubelet.service.decode.probe.probe import Track, probe, probe_front
from tubelet.service.decode.protocol import Refusal, Unpacker, pack
from tubelet.service.decode.worker import sandbox
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import PixelFormat

# The video; for a moment the file that it moves to; the shared memory, and mmap's own copy of that.
_DESCRIPTORS_FOR_A_VIDEO = 4


class _Stopped(Exception):
    """The parent wants no more of this video."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server decides for all of its workers."""

    server_pid: int
    memory_bytes: int
    alive_every_s: float
    limits: Limits


class _Link:
    """The worker's end of the two sockets. Its parent's end is this process's end."""

    def __init__(self, settings: Settings, messages_fd: int, files_fd: int) -> None:
        self._socket = socket.socket(fileno=messages_fd)
        self._files = socket.socket(fileno=files_fd)
        self._unpacker = Unpacker()
        self._received: list[dict[str, Any]] = []
        self._said_at = time.monotonic()
        self._alive_every_s = settings.alive_every_s

    def say(self, says: str, job: int, **content: object) -> None:
        try:
            self._socket.sendall(pack({"says": says, "job": job, **content}))
        except ConnectionError:
            raise SystemExit from None
        self._said_at = time.monotonic()

    def say_alive(self, job: int) -> None:
        """Say so when nothing has been said for a while."""
        if time.monotonic() - self._said_at >= self._alive_every_s:
            self.say("alive", job)

    def hear(self) -> dict[str, Any]:
        """Wait for the next message."""
        while not self._received:
            self._receive()
        return self._received.pop(0)

    def hear_now(self) -> dict[str, Any] | None:
        """The next message if there is one."""
        if not self._received and select.select([self._socket], [], [], 0)[0]:
            self._receive()
        return self._received.pop(0) if self._received else None

    def take_file(self) -> int:
        """The descriptor that came with a message."""
        _, files, _, _ = socket.recv_fds(self._files, 1, 1)
        if not files:
            raise SystemExit("no descriptor came")
        return files[0]

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            raise SystemExit from None
        if not data:
            raise SystemExit
        self._received += self._unpacker.feed(data)


class _SharedSlots:
    """Slots of shared memory, one unit each; a free one is waited for, which is the flow control."""

    def __init__(self, job: "_Job", fd: int, slots: int, unit_shape: tuple[int, ...]) -> None:
        self._job = job
        self._fd = fd
        unit_bytes = int(np.prod(unit_shape))
        memory = mmap.mmap(fd, slots * unit_bytes)
        self._units = np.ndarray((slots, *unit_shape), np.uint8, buffer=memory)
        self._free = list(range(slots))[::-1]  # used from the end: the lowest slots stay in the cache

    def acquire(self) -> tuple[int, np.ndarray]:
        while not self._free:
            self._job.wait()
        slot = self._free.pop()
        return slot, self._units[slot]

    def announce(self, grid: int, unit: int, slot: int) -> None:
        self._job.say("unit", grid=grid, unit=unit, slot=slot)

    def release(self, slot: int) -> None:
        self._free.append(slot)

    def close(self) -> None:
        os.close(self._fd)  # the mapping goes with the last view of it


class _Job:
    """One video: the messages about it from the probe to the stop."""

    def __init__(self, link: _Link, settings: Settings, number: int) -> None:
        self._link = link
        self._limits = settings.limits
        self._number = number
        self._upload_fd = link.take_file()
        self._waits_for_bytes = False
        self._is_stopped = False
        self._track: Track | None = None
        self._slots: _SharedSlots | None = None
        self._memory_number = 0
        self._cpu_at_start_s = time.process_time()

    def run(self, from_front: bool, size_bytes: int | None, is_whole: bool) -> None:
        """Serve it until the parent has enough of it."""
        self._source = Source(self._upload_fd, None if is_whole else self._need, size_bytes)
        find_track = probe_front if from_front else probe
        try:
            self._answer(lambda: self._probe(find_track))
            while True:
                self._obey(self._link.hear())
        except _Stopped:
            return
        finally:
            if self._track is not None:
                self._track.close()
            self._source.close()

    def say(self, says: str, **content: object) -> None:
        self._link.say(says, self._number, **content)

    def wait(self) -> None:
        """Obey the parent's next message."""
        self._obey(self._link.hear())

    def pulse(self) -> None:
        """Between packets: obey what has come, show life, hold the limit on processor time."""
        self._check_stopped()
        while (message := self._link.hear_now()) is not None:
            self._obey(message)
        self._link.say_alive(self._number)
        used_s = time.process_time() - self._cpu_at_start_s
        if used_s > self._limits.max_cpu_s:
            raise Refusal(
                "VIDEO_TOO_LARGE",
                f"the video needs more than {self._limits.max_cpu_s:g} s of processor time to decode",
                limit=self._limits.max_cpu_s,
                value=used_s,
            )

    def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"says": "stop"}:
                self._is_stopped = True
                self._source.end()
                raise _Stopped
            case {"says": "release", "slot": slot, "memory": memory}:
                # One for a walk that is through says nothing about the slots of the next.
                if self._slots is not None and memory == self._memory_number:
                    self._slots.release(slot)
            case {"says": "have", "start": start, "end": end, "size": size}:
                self._waits_for_bytes = False
                self._source.arrived(start, end, size)
            case {"says": "file"}:
                self._source.move(self._link.take_file())
            case {"says": "decode"}:
                self._answer(lambda: self._decode(message))
            case _:
                raise SystemExit(f"the parent said {message}")

    def _need(self, start: int, end: int) -> None:
        """Wait for some of these bytes."""
        self._waits_for_bytes = True
        self.say("need", start=start, end=end)
        while self._waits_for_bytes:
            self.wait()

    def _answer(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Refusal as refusal:
            self._check_stopped()
            self.say("refused", reason=refusal.reason, message=refusal.message, metadata=refusal.metadata)

    def _check_stopped(self) -> None:
        """Where a read was stopped, FFmpeg may call the file damaged instead of passing that on."""
        if self._is_stopped:
            raise _Stopped

    def _probe(self, find_track: Callable[[Source, Limits, Callable[[], None]], Track]) -> None:
        self._track = find_track(self._source, self._limits, self.pulse)
        self.say("metadata", metadata=asdict(self._track.metadata))

    def _decode(self, message: dict[str, Any]) -> None:
        fd = self._link.take_file()
        pixel_format = PixelFormat(**message["pixel_format"])
        plan = Plan(tuple(SamplingGrid(**grid) for grid in message["grids"]), message["is_unbounded"])
        unit_shape = (plan.grids[0].frames_per_unit, pixel_format.height, pixel_format.width, 3)
        self._memory_number = message["memory"]
        self._slots = _SharedSlots(self, fd, message["slots"], unit_shape)
        try:
            track = self._track or probe(self._source, self._limits, self.pulse)
            self._track = None if track.is_front else track
            job = Job(self._source, track, plan, pixel_format, message["fast"], self._limits)
            end = decode(job, self._slots, self.pulse)
        finally:
            self._slots.close()
            self._slots = None
        self.say("end", **asdict(end))


def prepare() -> None:
    """What every worker needs done and can have from the process that it is forked of."""
    # Before any codec is opened: with PyAV's own callback, closing a frame-threaded codec early deadlocks.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)
    preload()
    sandbox.prepare()


def main(settings: Settings, messages_fd: int, files_fd: int) -> None:
    """Serve until the parent's end; the descriptors are stream sockets.

    Raises:
        SystemExit: in the end, always.
    """
    call_itself("tubelet-decoder")
    sandbox.first_to_go()
    link = _Link(settings, messages_fd, files_fd)
    highest = max(messages_fd, files_fd)
    if accelerator(settings.limits.hardware) is None:
        protections = sandbox.enter(settings.memory_bytes, highest + 1 + _DESCRIPTORS_FOR_A_VIDEO)
    else:
        protections = ()  # a driver opens files, maps much memory and talks to the kernel all the time
    link.say("ready", 0, protections=protections)
    while True:
        message = link.hear()
        if message["says"] == "probe":
            _serve(link, settings, message)


def _serve(link: _Link, settings: Settings, message: dict[str, Any]) -> None:
    number = message["job"]
    try:
        _Job(link, settings, number).run(message["from_front"], message["size"], message["is_whole"])
    except MemoryError as error:
        # FFmpeg may be in pieces after that: this process takes no other video.
        link.say("exhausted", number, detail=_where(error))
        raise SystemExit(1) from None
    except Exception as error:
        link.say("failed", number, detail=_where(error))
        raise SystemExit(1) from None
    # PyAV's objects hold each other, and with them decoded frames: much memory, yet too few objects for the
    # collector to come by itself.
    gc.collect()
    link.say("stopped", number)


def _where(error: Exception) -> str:
    """Not as a traceback: where standard error is a file, the limit on files forbids to write there."""
    steps = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{step.filename}:{step.lineno}" for step in reversed(steps[-6:]))
    return f"{error!r} at {where}"
