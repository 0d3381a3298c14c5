"""An actor of a batch on Ray: one pipeline, which works on many videos at once and commits their rows."""

import asyncio
import os
import pickle
import signal
import socket
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from tubelet.service.batch.classifier import open_batch_classifier
from tubelet.service.batch.destination.commit_log import CommitLog, LogPosition, ShardFiles
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import PartFormat, part_file
from tubelet.service.batch.destination.store import open_store
from tubelet.service.batch.plan import BatchPlan, make_plan
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.ray.errors import ActorFailed
from tubelet.service.batch.rows import VideoRows
from tubelet.service.batch.run import CommitPolicy, RowWriter, VideoRun
from tubelet.service.batch.source.items import Item
from tubelet.service.config.config import Config
from tubelet.service.metrics import Metrics


@dataclass(frozen=True, slots=True)
class ActorTask:
    """What the actors of a run do: for which plan, where their rows go, how often they are committed."""

    settings: dict[str, Any] = field(repr=False)  # of Config, by its tables
    plan: BatchPlan
    out: str
    shard: str
    part_format: PartFormat
    jobs: int
    commit_every_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The rows of videos that have ended, without their segments; ``error`` ends the run."""

    rows: list[VideoRows] = field(default_factory=list)
    error: Exception | None = None


class _Pipeline:
    """A pipeline, and what commits the rows of its videos as ``writer``, another writer of the run."""

    def __init__(self, task: ActorTask, writer: str, position: LogPosition) -> None:
        self._task = task
        self._name = writer
        self._position = position
        self._context = AsyncExitStack()
        self._videos: VideoRun
        self._timer: asyncio.Task[None]
        self._writer: RowWriter | None = None  # None: not started

    async def start(self) -> None:
        """Load the model, and start the decode workers.

        Raises:
            ActorFailed: the model is not that of the plan.
        """
        task = self._task
        config = Config(**task.settings)
        check_model(task.plan, config)
        opened = open_batch_classifier(config, task.plan, task.jobs, Metrics())
        classifier = await self._context.enter_async_context(opened)
        store, part = open_store(task.out, config.fetch), part_file(task.part_format)
        files = ShardFiles(store, task.plan.folder, task.shard, part, f".{task.part_format}")
        log = CommitLog(files, Owner.this_process(self._name), self._position)
        progress = BatchProgress(0)
        self._writer = RowWriter(log, task.plan, progress, CommitPolicy(seconds=task.commit_every_s))
        self._videos = VideoRun(classifier, self._writer, progress)
        self._timer = asyncio.create_task(self._writer.commit_in_time())

    async def run(self, item: Item) -> list[VideoRows]:
        """Classify a video; return the rows of those that have ended so.

        Raises: see ``VideoRun.run``; and what an earlier commit in time has raised.
        """
        if self._timer.done():
            await self._timer
        return await self._videos.run(item)

    async def finish(self) -> list[VideoRows]:
        """Commit all rows, and stop the pipeline; return the rows of videos that were held back."""
        rows = await self._videos.rest()
        await self.commit()
        self._timer.cancel()
        await self._context.aclose()
        return rows

    async def commit(self) -> list[VideoRows]:
        """Commit the rows of the videos that have ended; return none.

        Raises:
            ShardTaken, OSError: they cannot be committed.
        """
        if self._writer is not None:
            await self._writer.commit()
        return []


class BatchActor:
    """A pipeline in an event loop on a thread of its own; its methods block, each on a thread of Ray.

    After SIGTERM it commits what is done, and ends its process. None of its methods is a coroutine: Ray runs
    the constructor of such a class on another thread than the main one, which alone may handle signals.
    """

    def __init__(self, task: ActorTask, writer: str, position: LogPosition) -> None:
        self._pipeline = _Pipeline(task, writer, position)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="tubelet", daemon=True).start()
        self._signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        # The main thread is inside Ray and runs no handler; this descriptor is written at once.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._end_when_terminated, name="sigterm", daemon=True).start()

    def start(self) -> Exception | None:
        """Load the model and start the decode workers; return the error if it fails."""
        return self._ended(self._pipeline.start()).error

    def run(self, item: Item) -> Ended:
        """Classify a video; return the rows of those that have ended so."""
        return self._ended(self._pipeline.run(item))

    def finish(self) -> Ended:
        """Commit all rows, after the last video, and stop the pipeline."""
        return self._ended(self._pipeline.finish())

    def stop(self) -> Ended:
        """Commit the rows of the videos that have ended, while others are in progress."""
        return self._ended(self._pipeline.commit())

    def _ended(self, work: Coroutine[Any, Any, list[VideoRows] | None]) -> Ended:
        """Do ``work`` in the event loop, and return its rows without their segments, or its error."""
        try:
            rows = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except Exception as error:
            return Ended(error=_portable(error))
        return Ended([VideoRows(each.video, failure=each.failure) for each in rows or ()])

    def _end_when_terminated(self) -> None:
        """Wait for SIGTERM, commit what is done, and end the process."""
        while os.read(self._signals, 1)[0] != signal.SIGTERM:
            pass
        self.stop()
        os._exit(128 + signal.SIGTERM)


def check_model(plan: BatchPlan, config: Config) -> None:
    """Check that the plan's model is the same on this node.

    Raises:
        ActorFailed: it is another one of that name.
        tubelet.models.errors.UnknownModel, BrokenModel: there is none, or it cannot be used.
    """
    found = make_plan(plan.options, config, embeddings=plan.has_embeddings)
    if found.fingerprint != plan.fingerprint:
        raise ActorFailed(
            f"on the node {socket.gethostname()}, {found.model} has fingerprint {found.fingerprint}, "
            f"not {plan.fingerprint}"
        )


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error.with_traceback(None)
    except Exception:
        pass
    return ActorFailed(f"{type(error).__name__}: {error}")
