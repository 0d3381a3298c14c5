"""A run of a batch: many videos at a time, whose rows are committed as they come."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from tubelet.service.batch.classifier import BatchClassifier
from tubelet.service.batch.destination.commit_log import CommitLog
from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.outage import OutageGuard
from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.rows import VideoRows
from tubelet.service.batch.schema import EMBEDDING, SEGMENTS
from tubelet.service.batch.source.items import Item


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """When rows are committed: at most so many videos and rows of segments, or so long after the first."""

    videos: int = 1000
    segments: int = 100_000
    seconds: float = 60.0


class RowWriter:
    """Collects the rows of videos, and commits them by ``policy``; ``close`` commits the rest.

    While a commit is written, rows of further videos are taken; those who add wait if it takes long.
    """

    def __init__(
        self,
        commits: ShardCommits | CommitLog,
        plan: BatchPlan,
        progress: BatchProgress,
        policy: CommitPolicy,
    ) -> None:
        self._commits = commits
        self._columns = (*SEGMENTS, EMBEDDING) if plan.has_embeddings else SEGMENTS
        self._progress = progress
        self._policy = policy
        self._rows: list[VideoRows] = []
        self._num_segments = 0
        self._since_s = monotonic()
        self._writing = asyncio.Lock()

    async def add(self, rows: VideoRows) -> None:
        """Add the rows of a video; commit what has been collected, if it is time.

        Raises:
            ShardTaken, OSError: see ``ShardCommits.commit``.
        """
        if not self._rows:
            self._since_s = monotonic()
        self._rows.append(rows)
        self._num_segments += len(rows.segments)
        if len(self._rows) >= self._policy.videos or self._num_segments >= self._policy.segments:
            await self.commit()

    async def commit_in_time(self) -> None:
        """Commit rows that have waited for as long as they may, until cancelled."""
        while True:
            waited = monotonic() - self._since_s if self._rows else 0.0
            await asyncio.sleep(max(0.0, self._policy.seconds - waited))
            if self._rows and monotonic() - self._since_s >= self._policy.seconds:
                await self.commit()

    async def commit(self) -> None:
        """Commit the rows that have been collected; a commit that has begun is not left before its end."""
        await asyncio.shield(asyncio.ensure_future(self._commit()))

    async def _commit(self) -> None:
        """Commit the rows that have been collected, after a commit that is being written."""
        async with self._writing:
            rows, self._rows, self._num_segments = self._rows, [], 0
            if not rows:
                return
            try:
                await asyncio.to_thread(self._commits.commit, rows, self._columns)
            except OSError:  # the next commit tries again, or finds that these are committed
                self._rows = rows + self._rows
                raise
            self._progress.committed += len(rows)


class VideoRun:
    """Classifies videos one by one, and hands their rows to ``writer``, but for those of an outage.

    Many calls of ``run`` may be under way at a time.
    """

    def __init__(self, classifier: BatchClassifier, writer: RowWriter, progress: BatchProgress) -> None:
        self._classifier = classifier
        self._writer = writer
        self._progress = progress
        self._guard = OutageGuard(classifier.classify)

    async def run(self, item: Item) -> list[VideoRows]:
        """Classify a video; return the rows of the videos that have ended so, of which it may be none.

        Raises:
            NoDevice, SourceOutage, ShardTaken, OSError: no further video can be classified, or committed.
        """
        self._progress.begin()
        try:
            rows = await self._classifier.classify(item)
        finally:
            self._progress.in_progress -= 1
        return await self._end(await self._guard.passed(item, rows))

    async def rest(self) -> list[VideoRows]:
        """Return the rows of the videos that were held back, after the last one.

        Raises:
            NoDevice, SourceOutage, ShardTaken, OSError: they have none, or cannot be committed.
        """
        return await self._end(await self._guard.end())

    async def _end(self, ended: list[VideoRows]) -> list[VideoRows]:
        """Count videos that have ended, and hand on their rows, which are returned."""
        for rows in ended:
            self._progress.end(rows)
            await self._writer.add(rows)
        return ended


async def run_batch(
    items: Iterable[Item], classifier: BatchClassifier, writer: RowWriter, progress: BatchProgress, jobs: int
) -> None:
    """Classify ``items``, ``jobs`` at a time, and commit their rows; if cancelled, commit what is done.

    Raises:
        NoDevice, SourceOutage, ShardTaken, OSError: no further video can be classified, or committed.
    """
    waiting, videos = iter(items), VideoRun(classifier, writer, progress)

    async def work() -> None:
        """Classify one video after another."""
        for item in waiting:
            await videos.run(item)

    working = [asyncio.create_task(work()) for _ in range(jobs)]
    all_work = asyncio.gather(*working)  # the first error ends it
    timer = asyncio.create_task(writer.commit_in_time())
    try:
        ended, _ = await asyncio.wait([all_work, timer], return_when=asyncio.FIRST_COMPLETED)
        for each in ended:
            await each
        await videos.rest()
    finally:
        running: list[asyncio.Future[Any]] = [all_work, *working, timer]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await writer.commit()
