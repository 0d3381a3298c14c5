"""The lock of a shard, which says who writes it; its owner renews it, and others take over a silent one.

The lock only keeps two runs from doing the same work: what keeps their rows apart are the commits. So clocks
of machines are not compared; who waits for a lock measures how long it does not change.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.store import Store

HEARTBEAT_S = 10.0
TAKE_OVER_S = 60.0
_LOOK_S = 2.0  # how often a lock that another run holds is looked at


class ShardInUse(Exception):
    """Another run is writing to the shard."""


@dataclass(frozen=True, slots=True)
class LockTimes:
    """How often a lock is renewed, how long it must be silent to be taken over, how often it is looked at."""

    heartbeat_s: float = HEARTBEAT_S
    take_over_s: float = TAKE_OVER_S
    look_s: float = _LOOK_S


class ShardLock:
    """The lock of a shard in a file of the destination; ``say`` gets a sentence about who holds it."""

    def __init__(
        self,
        store: Store,
        name: str,
        owner: Owner,
        say: Callable[[str], None],
        times: LockTimes | None = None,
    ) -> None:
        self._store = store
        self._file = f"_tubelet/locks/{name}.json"
        self._name = name
        self._owner = owner
        self._say = say
        self._times = times or LockTimes()
        self._beats = 0
        self._writing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def hold(self, is_taken: Callable[[], bool]) -> AsyncIterator[None]:
        """Hold the lock, and renew it until the context ends.

        Once ``is_taken``, another run has it: then it is neither renewed nor removed.

        Raises:
            ShardInUse: another run holds it, and renews it.
            OSError: it cannot be written.
        """
        await self._wait()
        await self._write()
        renewing = asyncio.create_task(self._renew(is_taken))
        try:
            yield
        finally:
            is_own = not renewing.done()
            renewing.cancel()
            # A write that has begun goes on in its thread, and would put the lock back.
            await asyncio.wait([renewing, *([self._writing] if self._writing is not None else [])])
            if is_own:
                await asyncio.to_thread(self._store.delete, self._file)

    async def _wait(self) -> None:
        """Wait until nobody holds the lock, or its owner has not renewed it for long enough."""
        first = await asyncio.to_thread(self._read)
        if first is None:
            return
        owner = Owner.of_json(first["owner"])
        held = f"{self._name} of {self._store.name} is held by {owner}, last heartbeat at {first['time']}"
        if owner.is_gone:
            self._say(f"{held}; that process has ended, so this run takes over")
            return
        seconds = self._times.take_over_s
        self._say(f"{held}; this run takes over if no other comes for {seconds:g} s")
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            await asyncio.sleep(min(self._times.look_s, left))
            found = await asyncio.to_thread(self._read)
            if found is None:
                return
            if (found["owner"], found["beats"]) != (first["owner"], first["beats"]):
                other = Owner.of_json(found["owner"])
                raise ShardInUse(
                    f"{self._name} of {self._store.name} is being written by {other}, "
                    f"last heartbeat at {found['time']}; wait for it, or name another --out"
                )
        self._say(f"{owner} was silent for {seconds:g} s; this run takes over")

    async def _renew(self, is_taken: Callable[[], bool]) -> None:
        """Renew the lock regularly, until cancelled or taken."""
        while True:
            await asyncio.sleep(self._times.heartbeat_s)
            try:
                if await asyncio.to_thread(is_taken):
                    return
                self._writing = asyncio.create_task(self._write())
                await asyncio.shield(self._writing)
            except OSError as error:  # the next commit will tell whether it lasts
                self._say(f"cannot renew {self._file} of {self._store.name}: {error}")

    async def _write(self) -> None:
        """Write the lock with the next heartbeat."""
        self._beats += 1
        time = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"owner": self._owner.json, "beats": self._beats, "time": time}
        await asyncio.to_thread(self._store.put, self._file, json.dumps(content).encode())

    def _read(self) -> dict[str, Any] | None:
        """Return what the lock says; None: there is none."""
        try:
            return dict(json.loads(self._store.read(self._file)))
        except FileNotFoundError:
            return None
