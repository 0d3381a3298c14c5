"""One worker process as its parent sees it: started, listened to, watched, and killed when it fails.

What a worker says is checked at arrival: it may have been taken over by the bytes it parses.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool import decode_run, responses
from tubelet.service.decode.pool.byte_feed import Supply
from tubelet.service.decode.pool.decode_run import Walk
from tubelet.service.decode.pool.spawner import Spawner
from tubelet.service.decode.pool.watchdog import Death, Watchdog, error_for
from tubelet.service.decode.protocol import ProtocolError, Unpacker, pack
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

_START_S = 30.0  # a machine under load may need long to start a process; one that needs longer never will
_STOP_S = 2.0  # how long a worker may take to leave a video alone
_MAX_MESSAGE_BYTES = 1 << 16


class WorkerProcess(asyncio.Protocol):
    """A process from ``start`` to ``end``.

    ``on_death`` is called once if it ends without being asked to, ``on_wait`` when it begins to wait for the
    bytes of a video that is on its way, ``on_work`` with 1 when it begins to work and with -1 when it rests.
    """

    def __init__(
        self,
        config: DecodeConfig,
        on_death: Callable[["WorkerProcess", Death], None],
        on_wait: Callable[[], None] = lambda: None,
        on_work: Callable[[int], None] = lambda change: None,
    ) -> None:
        self.is_alive = False
        self.is_taken = False  # by a video; the pool's mark
        self.taken_at = 0.0
        self.is_long = False  # others do not wait for its video to end
        self.protections: frozenset[Protection] = frozenset()  # what stands between it and everything else
        self._config = config
        self._on_death = on_death
        self._on_wait = on_wait
        self._unpacker = Unpacker(_MAX_MESSAGE_BYTES)
        self._inbox: asyncio.Queue[object] = asyncio.Queue()
        self._job = 0
        self._in_job = False
        self._awaited: frozenset[str] = frozenset()
        self._supply: Supply | None = None
        self._sent_fd = -1
        self._walk: Walk | None = None
        self._walks = 0
        self._is_ready = False
        self._watchdog = Watchdog(config, self._exceeded, on_work)
        self._death = Death.CRASHED
        self._error = error_for(Death.CRASHED, config)
        self._detail = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_waiting(self) -> bool:
        """It can do nothing until more of its video has come."""
        return self._supply is not None and self._supply.is_waiting

    @property
    def busy_s(self) -> float:
        """For how long it has owed an answer, seconds; waiting for a free slot is not being busy."""
        return self._watchdog.busy_s

    @property
    def is_spent(self) -> bool:
        """It has had as many videos as one worker shall have."""
        return self._job >= self._config.max_videos_per_worker

    def take(self) -> None:
        """A video has it."""
        self.is_taken, self.taken_at = True, monotonic()

    def make_long(self, niceness: int) -> None:
        """Let others go first from now on; the system does not let it be undone."""
        self.is_long = True
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)

    async def start(self, spawner: Spawner) -> None:
        """Start the process and wait until it listens.

        Raises:
            OSError: no process can be started.
            DecoderCrashed: it ended, or did not answer within ``_START_S``.
        """
        self._process, messages, self._files = await spawner.spawn()
        self.is_alive = True
        self._awaited = frozenset({"ready"})
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, sock=messages)
        try:
            async with asyncio.timeout(_START_S):
                await self._inbox_next()
        except BaseException as error:  # also of who is cancelled the moment it gets ready: nobody has it
            self.end()
            await self.gone()
            if isinstance(error, TimeoutError):
                raise DecoderCrashed(f"a decoder did not start within {_START_S:g} s") from None
            raise

    async def probe(self, file: VideoFile, *, from_front: bool) -> VideoMetadata:
        """Begin a video."""
        self._check_alive()
        if self._in_job:
            raise RuntimeError("a worker has one video at a time")
        self._job += 1
        self._in_job = True
        self._supply = Supply(file, self._bytes_are_there, self._on_wait, self._inbox.put_nowait)
        self._sent_fd = file.fd
        self._watchdog.begin(self._process.pid)
        self._send_file(file.fd)
        self._ask(
            {"metadata", "refused"},
            "probe",
            from_front=from_front,
            size=file.size_bytes,
            is_whole=file.is_whole,
        )
        metadata = await self._inbox_next()
        assert isinstance(metadata, VideoMetadata)
        return metadata

    def decode(self, plan: Plan, pixel_format: PixelFormat, *, fast: bool = False) -> None:
        """Begin to walk through the video; ``next_unit`` has what comes of it."""
        self._check_alive()
        self._walks += 1
        self._walk = Walk(self._walks, plan, pixel_format, self._config.shared_memory_bytes, self._released)
        self._send_file(self._walk.memory.fd)
        self._walk.memory.close_file()
        self._ask({"unit", "end", "refused"}, "decode", **self._walk.order(), fast=fast)

    def split_by_memory(self, plan: Plan, pixel_format: PixelFormat) -> Iterator[tuple[int, Plan]]:
        """The plan in parts that ``decode`` has memory for, with the number of each one's first grid."""
        return decode_run.split_by_memory(plan, pixel_format, self._config.shared_memory_bytes)

    async def next_unit(self) -> UnitFrames | DecodeSummary:
        found = await self._inbox_next()
        assert isinstance(found, UnitFrames | DecodeSummary)
        return found

    async def leave(self) -> None:
        """Make it forget the video. One that does not do so soon is killed."""
        self._walk = None
        self._stop_supply()
        self._inbox.put_nowait(RuntimeError("the worker has been given back"))  # to whoever still waits
        self._inbox = asyncio.Queue()
        if not self._in_job or not self.is_alive:
            return
        self._in_job = False
        self._ask({"stopped"}, "stop")
        try:
            async with asyncio.timeout(_STOP_S):
                await self._inbox_next()
        except TimeoutError:
            self._fail(Death.STUCK)
        except TubeletError:  # it died of whatever it broke: the video's client has gone
            return

    def end(self) -> None:
        """Kill it, being asked to."""
        self._is_ready = False
        self._fail(Death.CRASHED)
        self._process.kill()  # one that was dead for us may still be on its way out

    async def gone(self) -> str:
        """Wait until nothing is left of it; what is known of its end, for the log."""
        try:
            async with asyncio.timeout(_STOP_S):
                status = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            status = await self._process.wait()
        self._files.close()
        return f"status {status} {self._detail}".rstrip()

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._unpacker.feed(data):
                self._hear(message)
        except (ProtocolError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            self._fail(Death.BROKEN, repr(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_alive = False
        self._walk = None  # with its memory, for whoever holds none of its frames
        self._watchdog.end()
        self._stop_supply()
        self._inbox.put_nowait(self._error)
        if self._is_ready:
            self._on_death(self, self._death)

    # Listening.

    def _hear(self, message: dict[str, Any]) -> None:
        says = message["says"]
        if message["job"] != self._job:
            raise ProtocolError(f"{says} about job {message['job']} in job {self._job}")
        if says == "failed":
            self._detail = responses.text(message["detail"])
            return
        if says == "need" and self._supply is not None and "stopped" not in self._awaited:
            self._supply.need(int(message["start"]), int(message["end"]))
            self._watchdog.rest()
            return
        if says == "exhausted":
            self._fail(Death.MEMORY, message["detail"])
            return
        if says == "alive" or (says not in self._awaited and "stopped" in self._awaited):
            self._watch()
            return
        if says not in self._awaited:
            raise ProtocolError(f"{says} is not one of {sorted(self._awaited)}")
        self._inbox.put_nowait(self._understand(says, message))
        if says != "unit":
            self._awaited = frozenset()
        self._watch()

    def _understand(self, says: str, message: dict[str, Any]) -> object:
        match says:
            case "ready":
                self._is_ready = True
                self.protections = responses.protections(message)
                return says
            case "unit":
                assert self._walk is not None
                return self._walk.unit(int(message["grid"]), int(message["unit"]), int(message["slot"]))
            case "metadata":
                return responses.video_metadata(message["metadata"])
            case "end":
                assert self._walk is not None
                end = responses.decode_summary(message)
                self._walk.check_end(end)
                return end
            case "refused":
                return responses.refusal(message)
        return says

    async def _inbox_next(self) -> object:
        found = await self._inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    # Talking.

    def _bytes_are_there(self, start: int, end: int) -> None:
        assert self._supply is not None
        file = self._supply.file
        if file.fd != self._sent_fd:
            self._sent_fd = file.fd
            self._send_file(file.fd)
            self._say("file")
        self._say("have", start=start, end=end, size=file.size_bytes)
        self._watch()

    def _stop_supply(self) -> None:
        if self._supply is not None:
            self._supply.stop()
            self._supply = None

    def _ask(self, answers: set[str], says: str, **content: object) -> None:
        if self._awaited and says != "stop":
            raise RuntimeError(f"{says} while the worker still owes one of {sorted(self._awaited)}")
        self._awaited = frozenset(answers)
        self._say(says, **content)
        self._watch()

    def _say(self, says: str, **content: object) -> None:
        if not self._transport.is_closing():
            self._transport.write(pack({"says": says, "job": self._job, **content}))

    def _send_file(self, fd: int) -> None:
        try:
            socket.send_fds(self._files, [b"f"], [fd])
        except (BrokenPipeError, ConnectionError, BlockingIOError):
            self._fail(Death.BROKEN, "it takes no descriptors")

    def _released(self, walk: Walk, slot: int) -> None:
        if walk is self._walk and self.is_alive:
            self._say("release", memory=walk.memory.number, slot=slot)
            self._watch()

    # Watching.

    def _watch(self) -> None:
        """It has just shown life, or been given something to do: may it be silent from now on?"""
        waits_for_slot = self._walk is not None and self._walk.memory.is_full
        waits_for_bytes = self._supply is not None and self._supply.is_pending
        if self.is_alive and self._awaited and not waits_for_slot and not waits_for_bytes:
            self._watchdog.watch()
        else:
            self._watchdog.rest()

    def _exceeded(self, death: Death, value: float) -> None:
        self._fail(death, f"after {value:.3f} s", value)

    def _fail(self, death: Death, detail: str = "", value: float | None = None) -> None:
        """Kill it; ``connection_lost`` follows."""
        if self.is_alive:
            self.is_alive = False
            self._death, self._detail = death, responses.text(detail)
            self._error = error_for(death, self._config, value)
            self._watchdog.end()
            self._transport.abort()
            self._process.kill()

    def _check_alive(self) -> None:
        if not self.is_alive:
            raise self._error
