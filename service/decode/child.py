"""A worker as the server's child: killed and waited for by its number, which is not another's until then."""

import asyncio
import os
import signal


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
