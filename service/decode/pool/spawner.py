"""The parent's side of the fork server: starting it with few privileges, and asking it for new workers."""

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
from tubelet.service.decode.prctl import become_subreaper
from tubelet.service.decode.protocol import MAX_PACKET_BYTES
from tubelet.service.errors import DecoderCrashed

_log = logging.getLogger(__name__)

_NAME = "the fork server of the decode workers"
_HEARTBEATS_PER_TIMEOUT = 4  # that a working worker sends in the time after which it would count as hung
_START_TIMEOUT_S = 30.0  # a loaded machine may take long to import everything; beyond this, it never will
_FORK_TIMEOUT_S = 10.0
_FIRST_RETRY_S, _MAX_RETRY_S = 0.1, 10.0


class Child:
    """A child process that the fork server has forked; ``returncode`` is that of ``asyncio.subprocess``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reaping: asyncio.Task[int] | None = None

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until the process has ended, reap it, and return its exit status."""
        if self._reaping is None:
            self._reaping = asyncio.create_task(self._reap())
        return await asyncio.shield(self._reaping)

    async def _reap(self) -> int:
        """Wait for the end of the process in a thread, then reap it here."""
        # The thread only waits. If it reaped the process, the kernel could give its id to another one, which
        # ``kill`` would then hit.
        await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.returncode = self._status()
        return self.returncode

    def _status(self) -> int:
        """Reap the process, which has ended, and return its exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


async def retry_until_started(start: Callable[[], Awaitable[None]], what: str) -> None:
    """Call ``start`` until it raises neither DecoderCrashed nor OSError; the log names ``what`` it starts."""
    wait_s = _FIRST_RETRY_S
    while True:
        try:
            return await start()
        except (DecoderCrashed, OSError) as error:
            _log.error("could not start %s, next attempt in %g s: %r", what, wait_s, error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _MAX_RETRY_S)


Spawned = tuple[Child, socket.socket, socket.socket]
"""A new worker, and our ends of its sockets for messages and for descriptors, both non-blocking."""


class Spawner:
    """A fork server that is kept running from ``start`` to ``stop``; workers survive its end."""

    def __init__(self, config: DecodeConfig) -> None:
        self.config = config
        self.process_ids: tuple[int, ...] = ()  # the fork server's, once it has been started
        self._lock = asyncio.Lock()  # held while the fork server is asked, or started again
        self._forks: set[asyncio.Task[Spawned]] = set()
        self._children: set[Child] = set()

    async def start(self) -> None:
        """Start the fork server, and wait until it is ready.

        Raises:
            OSError: it ended, or was not ready within ``_START_TIMEOUT_S``.
        """
        become_subreaper()
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def spawn(self) -> Spawned:
        """Fork a worker.

        Raises:
            OSError: the fork server is not running at the moment, or cannot fork.
        """
        # A cancelled caller must not leave the reply for the next one: the task receives it in any case.
        fork = asyncio.create_task(self._request_fork())
        self._forks.add(fork)
        fork.add_done_callback(self._forks.discard)
        return await asyncio.shield(fork)

    async def stop(self) -> None:
        """Kill the fork server and all workers, and wait until they have ended."""
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, *self._forks, return_exceptions=True)
        await self._shut_down()
        for child in self._children:
            child.kill()
        await asyncio.gather(*(child.wait() for child in self._children))

    async def _launch(self) -> None:
        """Start the process of the fork server, and wait until it is ready."""
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
                    start_new_session=True,  # Ctrl-C must reach the server alone, which finishes its videos
                )
            except BaseException:
                self._control.close()
                raise
        self.process_ids = (self._server.pid,)
        try:
            if not await self._receive(_START_TIMEOUT_S):
                raise OSError(f"{_NAME} ended, or was not ready within {_START_TIMEOUT_S:g} s")
        except BaseException:
            await self._shut_down()
            raise

    async def _supervise(self) -> None:
        """Start another fork server whenever one ends."""
        while True:
            status = await self._server.wait()
            _log.warning("%s ended with status %d and is started again", _NAME, status)
            async with self._lock:
                self._control.close()
                await retry_until_started(self._launch, _NAME)

    async def _request_fork(self) -> Spawned:
        """Send the fork server the worker's ends of two new sockets, and receive the worker's process id."""
        async with self._lock:
            messages, their_messages = socket.socketpair()
            files, their_files = socket.socketpair()
            try:
                with their_messages, their_files:
                    theirs = [their_messages.fileno(), their_files.fileno()]
                    socket.send_fds(self._control, [b"fork"], theirs)
                    reply = await self._receive(_FORK_TIMEOUT_S)
                if not reply.isdecimal():
                    raise OSError(f"{_NAME} did not fork: {reply or 'it has ended'}")
            except OSError:
                messages.close()
                files.close()
                raise
            child = Child(int(reply))
            self._children = {child, *(other for other in self._children if other.returncode is None)}
        messages.setblocking(False)
        files.setblocking(False)
        return child, messages, files

    async def _receive(self, timeout_s: float) -> str:
        """Return the fork server's next packet; empty if it has ended, or is killed after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                packet = await asyncio.get_running_loop().sock_recv(self._control, MAX_PACKET_BYTES)
        except ConnectionError:
            return ""
        except TimeoutError:
            self._kill()
            return ""
        return packet.decode()

    async def _shut_down(self) -> None:
        """Kill the fork server, and wait until it has ended."""
        self._kill()
        await self._server.wait()
        self._control.close()

    def _kill(self) -> None:
        """Kill the fork server, unless it has ended."""
        with suppress(ProcessLookupError):
            self._server.kill()


def _settings(config: DecodeConfig, control_fd: int) -> str:
    """Return the command line argument of the fork server: its settings and those of all workers, as JSON."""
    return json.dumps(
        {
            "server_pid": os.getpid(),
            "control_fd": control_fd,
            "memory_bytes": config.memory_bytes,
            "heartbeat_interval_s": config.heartbeat_timeout_s / _HEARTBEATS_PER_TIMEOUT,
            "limits": config.model_dump(include={field.name for field in fields(Limits)}),
        }
    )


def _environment() -> dict[str, str]:
    """Return the environment of the fork server: the module path and nothing else of ours.

    It limits threads and heaps, since those that numpy's libraries do not use would cost address space.
    """
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
