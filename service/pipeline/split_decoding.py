"""Decoding of one long video by several workers: each takes parts of its plan; the units come in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tubelet.models.spec import Preprocessing
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession, join_summaries
from tubelet.service.engine.model_runner import Embedding
from tubelet.service.errors import CorruptVideo, UnsupportedVideo
from tubelet.service.pipeline.plan_parts import PlanPart
from tubelet.service.pipeline.windows import QueuedUnit
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import DecodeSummary, UnitFrames, VideoFile

_PARTS_AHEAD = 2  # for each worker: most parts whose units wait until those before them are there


@dataclass(frozen=True, slots=True)
class SplitJob:
    """A video whose plan is decoded in ``parts``; ``encode`` queues a unit in the engine.

    ``identity`` is whose video it is; empty: nobody's in particular.
    """

    file: VideoFile
    plan: Plan
    parts: Sequence[PlanPart]
    preprocessing: Preprocessing
    fast: bool
    encode: Callable[[UnitFrames], "asyncio.Future[Embedding]"]
    identity: str = ""


class _PartFailed(Exception):
    """A part cannot be decoded by itself, or not as it would be after the parts before it."""


@dataclass(slots=True)
class _Part:
    """A part, and its units as they come; the last item is its summary, or the error that ended it."""

    part: PlanPart
    arrived: asyncio.Queue[QueuedUnit | DecodeSummary | Exception] = field(default_factory=asyncio.Queue)

    async def units(self) -> AsyncGenerator[QueuedUnit | DecodeSummary]:
        """Yield the units, then the summary.

        Raises:
            _PartFailed: the part cannot be decoded.
            TubeletError: what else has ended it, such as a crash.
        """
        while True:
            found = await self.arrived.get()
            if isinstance(found, CorruptVideo | UnsupportedVideo):
                raise _PartFailed from found
            if isinstance(found, Exception):
                raise found
            yield found
            if isinstance(found, DecodeSummary):
                return

    def abandon(self) -> None:
        """Cancel the embeddings of the units that nobody took."""
        while not self.arrived.empty():
            if isinstance(found := self.arrived.get_nowait(), QueuedUnit):
                found.embedding.cancel()


class SplitDecoding:
    """Decodes ``job`` by a worker of its own, and up to ``helpers`` workers that no video waits for.

    ``end`` is None until ``units`` has yielded the last one.
    """

    def __init__(self, job: SplitJob, decoders: DecodePool, helpers: int) -> None:
        self.end: DecodeSummary | None = None
        self._job = job
        self._decoders = decoders
        self._helpers = helpers
        self._parts = [_Part(part) for part in job.parts]
        self._waiting = deque(self._parts)
        self._room = asyncio.Semaphore(_PARTS_AHEAD * (1 + helpers))
        self._next_unit = 0

    async def units(self, own: DecodeSession) -> AsyncGenerator[QueuedUnit]:
        """Yield the units in order; ``own`` is the worker that the video has anyway, and has been probed.

        If a part is damaged or ends early, ``own`` decodes the whole plan, as if there were no parts: only
        so are frames, warnings and errors the same.

        Raises: see ``DecodeSession.decode``.
        """
        try:
            async with aclosing(self._units_of_parts(own)) as units:
                async for unit in units:
                    self._next_unit = unit.unit + 1
                    yield unit
        except _PartFailed:
            async with aclosing(self._units_of_plan(own)) as units:
                async for unit in units:
                    yield unit

    async def _units_of_parts(self, own: DecodeSession) -> AsyncGenerator[QueuedUnit]:
        """Yield the units of one part after another, while workers decode them and those after them."""
        working = [asyncio.create_task(self._decode_all(own))]
        working += [asyncio.create_task(self._help()) for _ in range(self._helpers)]
        ends: list[DecodeSummary] = []
        try:
            for each in self._parts:
                async for found in each.units():
                    if isinstance(found, QueuedUnit):
                        yield found
                    else:
                        ends.append(found)
                if each is not self._parts[-1]:
                    _check_whole(each.part, ends[-1])
                self._room.release()
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            for each in self._parts:
                each.abandon()
        self.end = join_summaries(ends)

    async def _units_of_plan(self, own: DecodeSession) -> AsyncGenerator[QueuedUnit]:
        """Yield the units that are still missing, of a decoding from the start."""
        job = self._job
        await own.probe(job.file)
        async for unit in own.decode(job.plan, job.preprocessing, fast=job.fast):
            if unit.unit < self._next_unit:
                unit.release()
            else:
                yield QueuedUnit(unit.grid, unit.unit, job.encode(unit))
        self.end = own.end

    async def _decode_all(self, own: DecodeSession) -> None:
        """Decode parts by the video's own worker until none waits."""
        while self._waiting:
            await self._room.acquire()
            await self._decode_next(own)

    async def _help(self) -> None:
        """Decode parts by a worker that no video waits for, until none waits; the first error is the end."""
        while self._waiting:
            async with self._decoders.spare_session(self._job.identity) as helper:
                await helper.probe(self._job.file)
                while self._waiting and not self._room.locked() and not self._decoders.has_waiting:
                    await self._room.acquire()
                    await self._decode_next(helper)
            async with self._room:  # wait, without a worker meanwhile
                pass

    async def _decode_next(self, decoder: DecodeSession) -> None:
        """Decode the next part, if there is one, and queue its units."""
        if not self._waiting:
            return
        each, job = self._waiting.popleft(), self._job
        first = each.part.first_unit
        try:
            async for unit in decoder.decode(each.part.plan, job.preprocessing, fast=job.fast):
                each.arrived.put_nowait(QueuedUnit(0, first + unit.unit, job.encode(unit)))
            assert decoder.end is not None  # decoding ended without an error
            each.arrived.put_nowait(decoder.end)
        except Exception as error:
            each.arrived.put_nowait(error)
            raise


def _check_whole(part: PlanPart, end: DecodeSummary) -> None:
    """Check that a part that is not the last one has been decoded to its end, without damage.

    Raises:
        _PartFailed: it has not.
    """
    if end.warnings or end.end_ns < part.plan.grids[0].end_ns:
        raise _PartFailed
