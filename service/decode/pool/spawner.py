"""The fork server as its pool has it: what it is told, the little it inherits, and how it is asked."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import fields

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.limits import Limits
from tubelet.service.decode.prctl import adopt_orphans
from tubelet.service.decode.protocol import MAX_PACKET_BYTES
from tubelet.service.errors import DecoderCrashed


class Child:
    """A process that somebody forked for us. ``returncode`` is as ``asyncio.subprocess`` has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ending: asyncio.Task[int] | None = None

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Until it has ended; then its number is free again."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._reap())
        return await asyncio.shield(self._ending)

    async def _reap(self) -> int:
        # Only waited for in the thread: were it reaped there, we could kill another process with its number.
        await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.returncode = self._status()
        return self.returncode

    def _status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


_log = logging.getLogger(__name__)
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 10.0


async def until_started(start: Callable[[], Awaitable[None]], what: str) -> None:
    """Call ``start`` until it raises neither DecoderCrashed nor OSError, more and more rarely."""
    wait_s = _FIRST_RETRY_S
    while True:
        try:
            return await start()
        except (DecoderCrashed, OSError) as error:
            _log.error("%s does not start, next attempt in %g s: %r", what, wait_s, error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LAST_RETRY_S)


_NAME = "the fork server of the decoders"
_ALIVE_PER_SILENCE = 4  # how often a worker shows life in the time after which it would count as hung
_LAUNCH_S = 30.0  # a machine under load may need long to import everything; one that needs longer never will
_FORK_S = 10.0

Spawned = tuple[Child, socket.socket, socket.socket]
"""A worker, and our ends of its sockets for messages and for descriptors, both non-blocking."""


class Spawner:
    """Keeps one fork server running between ``start`` and ``stop``; workers outlive it."""

    def __init__(self, config: DecodeConfig) -> None:
        self.config = config
        self.process_ids: tuple[int, ...] = ()  # the fork server's, once there is one
        self._lock = asyncio.Lock()  # held by whoever talks to the fork server, or starts it
        self._asking: set[asyncio.Task[Spawned]] = set()
        self._children: set[Child] = set()

    async def start(self) -> None:
        """
        Raises:
            OSError: it ended, or was not ready within ``_LAUNCH_S``.
        """
        adopt_orphans()
        await self._launch()
        self._keeping = asyncio.create_task(self._keep())

    async def spawn(self) -> Spawned:
        """Fork a worker.

        Raises:
            OSError: there is no fork server just now, or it cannot fork.
        """
        # Whoever is cancelled while it is asked leaves it in order: the answer is taken all the same.
        asking = asyncio.create_task(self._ask())
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        return await asyncio.shield(asking)

    async def stop(self) -> None:
        """Nothing is left of it, nor of any worker."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, *self._asking, return_exceptions=True)
        await self._end()
        for child in self._children:
            child.kill()
        await asyncio.gather(*(child.wait() for child in self._children))

    async def _launch(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            try:
                self._server = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-s", "-m", "tubelet.service.decode.worker.forkserver"),
                    _settings(self.config, theirs.fileno()),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    env=_environment(),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # a Ctrl-C is for the server, which lets videos in flight end
                )
            except BaseException:
                self._control.close()
                raise
        self.process_ids = (self._server.pid,)
        try:
            if not await self._hear(_LAUNCH_S):
                raise OSError(f"{_NAME} ended, or was not ready within {_LAUNCH_S:g} s")
        except BaseException:
            await self._end()
            raise

    async def _keep(self) -> None:
        while True:
            status = await self._server.wait()
            _log.warning("%s ended with status %d: another is started", _NAME, status)
            async with self._lock:
                self._control.close()
                await until_started(self._launch, _NAME)

    async def _ask(self) -> Spawned:
        async with self._lock:
            messages, their_messages = socket.socketpair()
            files, their_files = socket.socketpair()
            try:
                with their_messages, their_files:
                    theirs = [their_messages.fileno(), their_files.fileno()]
                    socket.send_fds(self._control, [b"fork"], theirs)
                    said = await self._hear(_FORK_S)
                if not said.isdecimal():
                    raise OSError(f"{_NAME} did not fork: {said or 'it is gone'}")
            except OSError:
                messages.close()
                files.close()
                raise
            child = Child(int(said))
            self._children = {child, *(other for other in self._children if other.returncode is None)}
        messages.setblocking(False)
        files.setblocking(False)
        return child, messages, files

    async def _hear(self, patience_s: float) -> str:
        """Its next packet; empty when it has ended, or is ended now since it says nothing."""
        try:
            async with asyncio.timeout(patience_s):
                said = await asyncio.get_running_loop().sock_recv(self._control, MAX_PACKET_BYTES)
        except ConnectionError:
            return ""
        except TimeoutError:
            self._kill()
            return ""
        return said.decode()

    async def _end(self) -> None:
        self._kill()
        await self._server.wait()
        self._control.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._server.kill()


def _settings(config: DecodeConfig, control_fd: int) -> str:
    return json.dumps(
        {
            "server_pid": os.getpid(),
            "control_fd": control_fd,
            "memory_bytes": config.memory_bytes,
            "alive_every_s": config.heartbeat_timeout_s / _ALIVE_PER_SILENCE,
            "limits": config.model_dump(include={field.name for field in fields(Limits)}),
        }
    )


def _environment() -> dict[str, str]:
    """Nothing of ours but where modules are; threads of numpy and their heaps would cost address space."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
