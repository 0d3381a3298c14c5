"""The driver of a batch on Ray: it keeps actors busy, and gives the videos of those that die to others.

A video belongs to one actor until that actor has committed its row, or was shut out from the shard's log. So
it has one row, even if an actor that was thought dead goes on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError

from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.ray.actor import ActorTask, BatchActor, Ended
from tubelet.service.batch.ray.errors import ActorFailed
from tubelet.service.batch.ray.share import ActorShare
from tubelet.service.batch.rows import VideoRows
from tubelet.service.batch.source.items import Item

_FOLLOW_S = 5.0  # between looks at what actors have committed
_STOP_S = 60.0  # for actors to commit what is done when the run is interrupted
_LOSSES_WITHOUT_ANSWER = 10  # for each actor; then they die of what all have


@dataclass(slots=True)
class _Actor:
    """An actor, its videos that are not known to be committed, and the rows of those that have ended."""

    handle: Any
    writer: str
    is_started: bool = False
    items: dict[str, Item] = field(default_factory=dict)
    ended: dict[str, VideoRows] = field(default_factory=dict)


class ActorPool:
    """Classifies videos with up to ``count`` actors; ``on_end`` gets the rows of each video that has ended.

    An actor that dies is replaced once there is room for it.
    """

    def __init__(
        self,
        task: ActorTask,
        share: ActorShare,
        count: int,
        commits: ShardCommits,
        progress: BatchProgress,
        on_end: Callable[[VideoRows], None],
    ) -> None:
        self._task = task
        self.count = count
        self._commits = commits
        self._progress = progress
        self._on_end = on_end
        self._actor_class = ray.remote(BatchActor).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_concurrency=task.jobs + 2,  # beside videos, start or finish, and stop
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )
        self._failed_before = set(commits.failed)
        self._waiting = deque[Item]()
        self._is_emptied = asyncio.Event()
        self._actors: list[_Actor] = []
        self._number_started = 0
        self._losses = 0  # since a video ended
        self._reading = asyncio.Lock()

    async def run(self, items: Sequence[Item]) -> None:
        """Classify ``items``, in their order; if cancelled, actors commit what is done.

        Raises:
            ActorFailed, RayError: an actor cannot start, or all die.
            NoDevice, SourceOutage, ShardTaken, OSError: no further video can be classified, or committed.
        """
        self._put_back(items)
        slots = [asyncio.create_task(self._fill_slot()) for _ in range(min(self.count, len(items)))]
        all_work = asyncio.gather(*slots)
        following = asyncio.create_task(self._follow_regularly())
        try:
            ended, _ = await asyncio.wait([all_work, following], return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                await each
        finally:
            running: list[asyncio.Future[Any]] = [all_work, *slots, following]
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._stop_actors()

    async def _fill_slot(self) -> None:
        """Keep one actor at work, and replace it when it dies, until no video waits."""
        while self._waiting:
            actor = self._new_actor()
            try:
                if await self._has_started(actor):
                    await self._feed(actor)
                    self._end(actor, await actor.handle.finish.remote())
                    await self._follow()
                    self._check_rows(actor)
            except RayActorError as error:
                await self._replace(actor, error)
            self._forget(actor)

    def _check_rows(self, actor: _Actor) -> None:
        """Raise ActorFailed unless all videos of an actor, which has ended, have rows."""
        if missing := actor.items.keys() - self._commits.failed.keys():
            raise ActorFailed(f"an actor has ended without rows of {len(missing)} videos")

    def _new_actor(self) -> _Actor:
        """Ask Ray for a new actor, which is another writer of the run."""
        writer = f"{self._commits.owner.run}.{self._number_started}"
        self._number_started += 1
        handle: Any = self._actor_class.remote(self._task, writer, self._commits.position)
        self._actors.append(_Actor(handle, writer))
        return self._actors[-1]

    async def _has_started(self, actor: _Actor) -> bool:
        """Wait until an actor has started; return False if no video waits before Ray had room for it.

        Raises:
            ActorFailed: it cannot start.
        """
        starting = asyncio.ensure_future(_result(actor.handle.start.remote()))
        emptied = asyncio.ensure_future(self._is_emptied.wait())
        try:
            await asyncio.wait([starting, emptied], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return False
            error = await starting
        except RayActorError as died:
            if died.actor_init_failed:
                raise ActorFailed(f"actors cannot start: {str(died).splitlines()[-1]}") from died
            raise
        finally:
            starting.cancel()
            emptied.cancel()
        actor.is_started = error is None
        if isinstance(error, ActorFailed):
            raise ActorFailed(f"actors cannot start: {error}")
        if error is not None:
            raise error
        return True

    async def _feed(self, actor: _Actor) -> None:
        """Have an actor classify videos, many at a time, until none waits."""
        working = [asyncio.create_task(self._classify_some(actor)) for _ in range(self._task.jobs)]
        try:
            await asyncio.gather(*working)
        finally:
            for each in working:
                each.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def _classify_some(self, actor: _Actor) -> None:
        """Have an actor classify one video after another, until none waits."""
        while self._waiting:
            item = self._waiting.popleft()
            if not self._waiting:
                self._is_emptied.set()
            actor.items[item.id] = item
            self._progress.begin()
            try:
                ended = await actor.handle.run.remote(item)
            finally:
                self._progress.in_progress -= 1
            self._end(actor, ended)

    def _end(self, actor: _Actor, ended: Ended) -> None:
        """Count videos that have ended; raise the error that ends the run."""
        if ended.error is not None:
            raise ended.error
        for rows in ended.rows:
            self._losses = 0
            self._progress.end(rows)
            self._on_end(rows)
            actor.ended[rows.id] = rows

    async def _replace(self, actor: _Actor, error: RayActorError) -> None:
        """Shut out an actor that is dead, or thought dead, and put back its videos that have no rows.

        Raises:
            ActorFailed: one actor after another dies, and no video ends.
        """
        ray.kill(actor.handle)
        async with self._reading:
            await asyncio.to_thread(self._commits.shut_out, actor.writer)
        self._take_note()
        self._count_unheard(actor)
        for rows in actor.ended.values():
            self._progress.take_back(rows)
        self._progress.redone += len(actor.items)
        self._progress.lost_actors += 1
        self._put_back(list(actor.items.values()))
        self._losses += 1
        if self._losses > _LOSSES_WITHOUT_ANSWER * self.count:
            raise ActorFailed(f"the last {self._losses} actors died, and no video ended: {error}") from error

    def _put_back(self, items: Sequence[Item]) -> None:
        """Put videos in front of those that wait."""
        self._waiting.extendleft(reversed(items))
        if self._waiting:
            self._is_emptied.clear()

    def _forget(self, actor: _Actor) -> None:
        """Give back what an actor had of its node."""
        ray.kill(actor.handle)
        self._actors.remove(actor)

    async def _follow_regularly(self) -> None:
        """Look regularly at what actors have committed, until cancelled."""
        while True:
            await asyncio.sleep(_FOLLOW_S)
            await self._follow()

    async def _follow(self) -> None:
        """Look at what actors have committed."""
        async with self._reading:
            await asyncio.to_thread(self._commits.follow)
        self._take_note()

    def _take_note(self) -> None:
        """Forget the videos that have ended and are committed."""
        self._progress.committed = self._commits.answered
        for actor in self._actors:
            for name in list(filter(self._is_committed, actor.ended)):
                del actor.items[name]
                del actor.ended[name]

    def _count_unheard(self, actor: _Actor) -> None:
        """Count the videos that an actor has committed, but of which it will not answer any more."""
        for name in list(filter(self._is_committed, actor.items)):
            del actor.items[name]
            failed = self._commits.failed.get(name)
            self._progress.end_unheard(None if failed is None else failed.reason)

    def _is_committed(self, name: str) -> bool:
        """Return whether the video of this id has a row of this run."""
        commits = self._commits
        return name in commits.done or (name in commits.failed and name not in self._failed_before)

    async def _stop_actors(self) -> None:
        """Have all actors commit what is done, and end them."""
        stopping = [
            asyncio.create_task(_result(each.handle.stop.remote()))
            for each in self._actors
            if each.is_started
        ]
        if stopping:
            await asyncio.wait(stopping, timeout=_STOP_S)
        for each in stopping:
            each.cancel()
        await asyncio.gather(*stopping, return_exceptions=True)
        await self._follow()
        for actor in list(self._actors):
            self._count_unheard(actor)
            self._forget(actor)


async def _result(reference: Any) -> Any:
    """Return what a call of an actor returns."""
    return await reference
