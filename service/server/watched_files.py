"""What the server read from files, which is read again as they change, without a restart."""

import asyncio
import errno
import logging
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, Self, TypeVar

from prometheus_client import Gauge

from tubelet.service.config.problems import BadConfig

# Time between two looks at the files. The kernel's notices of changes (inotify) would miss those on network
# volumes, and those of files behind links, as Kubernetes mounts Secrets.
_INTERVAL_S = 5.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class WatchedFiles(ABC, Generic[T]):
    """A value that is read from files, and follows them while the context is open.

    ``stays`` says in the log that the old value does, as the files are wrong; ``reload_failed`` is 1 then.
    """

    def __init__(self, stays: str, reload_failed: Gauge) -> None:
        self._stays = stays
        self._reload_failed = reload_failed
        self._value: T | None = None
        self._problem = ""  # what is wrong with the files; empty: nothing
        self._lock = asyncio.Lock()  # a signal may ask for a look while another one is under way
        self._watching: asyncio.Task[None] | None = None

    @abstractmethod
    def _read(self, current: T | None) -> T:
        """Read and check the files, on a thread of its own; return ``current`` if nothing has changed.

        Raises:
            BadConfig: a file cannot be read, or what it holds is wrong.
        """

    @abstractmethod
    def _use(self, value: T) -> None:
        """Take note of a value that is in use from now on."""

    async def __aenter__(self) -> Self:
        """Read the files.

        Raises:
            BadConfig: a file cannot be read, or what it holds is wrong.
        """
        await self._update()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        self._watching.cancel()

    def current(self) -> T:
        """Return the value in use; there is one once the context is open."""
        assert self._value is not None
        return self._value

    async def reload(self) -> None:
        """Read the files; use what they hold if it has changed. An error is logged, and changes nothing."""
        try:
            await self._update()
        except BadConfig as error:
            if str(error) != self._problem:  # one line for each state of the files
                logger.error("%s: %s", self._stays, error)
            self._problem = str(error)
        except Exception as error:  # the next look may succeed
            logger.exception("%s", self._stays)
            self._problem = str(error)
        else:
            self._problem = ""
        self._reload_failed.set(bool(self._problem))

    async def _update(self) -> None:
        """Read the files; use what they hold if it has changed."""
        async with self._lock:
            found = await asyncio.to_thread(self._read, self._value)
            if found is not self._value:
                self._value = found
                self._use(found)

    async def _watch(self) -> None:
        """Reload again and again, until the task is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.reload()


def read_regular_file(path: Path) -> bytes:
    """Return what the file at ``path`` holds.

    Raises:
        OSError: it cannot be read, or is a pipe or a device: to read it again could wait forever.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file, which could be read again", str(path))
        return file.read()
