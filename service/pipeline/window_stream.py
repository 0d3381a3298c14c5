"""The window stream: decodes one video in a task, and yields its windows as the engine classifies them."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from time import monotonic

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.engine.session import VideoSession
from tubelet.service.errors import CorruptVideo
from tubelet.service.pipeline.kept_frames import KeptFrames
from tubelet.service.pipeline.plan_parts import LONG_NS, split_plan
from tubelet.service.pipeline.planner import can_plan_before_end, make_plan, make_unbounded_plan
from tubelet.service.pipeline.request import Request
from tubelet.service.pipeline.split_decoding import SplitDecoding, SplitJob
from tubelet.service.pipeline.unread_vectors import UnreadVectors
from tubelet.service.pipeline.window_outputs import choose_outputs
from tubelet.service.pipeline.windows import (
    PlanCut,
    Planned,
    QueuedUnit,
    StartedWindow,
    WindowEvent,
    WindowStarter,
)
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import NS_PER_S, DecodeSummary, VideoFile, VideoMetadata

_YIELD_INTERVAL_S = 0.01  # the longest time without a yield to the event loop


class WindowStream:
    """The windows of one video as events, in the order of time; the summary of decoding is the last one.

    A task decodes ahead of whoever iterates, in one worker; a long video, with ``config.workers_per_video``,
    in several. ``async with`` starts and stops it. ``frames`` keeps the pixels of units, if they are needed
    again.
    """

    def __init__(
        self,
        file: VideoFile,
        request: Request,
        session: VideoSession,
        decoders: DecodePool,
        config: DecodeConfig,
        frames: KeptFrames | None = None,
    ) -> None:
        self._file = file
        self._request = request
        self._session = session
        self._decoders = decoders
        self._config = config
        self._workers = config.workers_per_video or 1
        self._frames = frames
        self._events: asyncio.Queue[Planned | StartedWindow | PlanCut | DecodeSummary | None] = (
            asyncio.Queue()
        )
        self._unread = UnreadVectors() if request.options.embeddings else None
        self._decoding: asyncio.Task[None]

    async def __aenter__(self) -> "WindowStream":
        self._decoding = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._session.cancel()
        self._decoding.cancel()
        await asyncio.wait([self._decoding])
        left = [event for event in self._events_left() if isinstance(event, asyncio.Task)]
        for window in left:
            window.cancel()
        await asyncio.gather(*left, return_exceptions=True)  # marks their errors as seen

    def __aiter__(self) -> "WindowStream":
        return self

    async def __anext__(self) -> WindowEvent:
        event = await self._events.get()
        if event is None:
            await self._decoding  # raises the error that ended decoding early
            raise StopAsyncIteration
        if not isinstance(event, asyncio.Task):
            return event
        await asyncio.sleep(0)  # let other requests run, also if all logits are ready at once
        window = await event
        if self._unread is not None:
            self._unread.take(event)
        return window

    def _events_left(self) -> Iterator[WindowEvent | StartedWindow | None]:
        """Take and yield the events that nobody has taken."""
        while not self._events.empty():
            yield self._events.get_nowait()

    async def _run(self) -> None:
        """Probe, plan and decode the file, and queue the events; None is the last."""
        options, timings = self._request.options, self._request.timings
        can_start = can_plan_before_end(options)
        try:
            if can_start or self._file.size_bytes is not None:
                await self._file.wait(0, 1)
            else:
                await self._file.whole()
            asked = monotonic()
            identity = self._request.meter.identity
            async with self._decoders.session(
                self._file, options.priority, self._request.deadline, identity
            ) as decoder:
                timings.add("queue", monotonic() - asked)
                with timings.time("probe"):
                    metadata = await decoder.probe(self._file, header_only=can_start)
                    if can_start and self._may_split(metadata):
                        metadata = await decoder.probe(self._file)  # parts begin at key frames
                        can_start = False
                planned = self._plan_unbounded(metadata) if can_start else self._plan(metadata)
                with timings.time("decode"):
                    summary = await self._decode(decoder, planned)
            self._events.put_nowait(summary)
        finally:
            self._events.put_nowait(None)

    def _may_split(self, metadata: VideoMetadata) -> bool:
        """Whether several workers may decode parts of the video, whose bytes can be read in any order."""
        is_split = self._workers > 1 and self._file.size_bytes is not None
        is_whole = self._frames is not None or self._request.options.thumbnails > 0
        return is_split and not is_whole and metadata.duration_ns >= LONG_NS

    def _plan(self, metadata: VideoMetadata) -> Planned:
        sampling = self._request.model.spec.sampling
        return Planned(metadata, make_plan(metadata, sampling, self._request.options))

    def _plan_unbounded(self, metadata: VideoMetadata) -> Planned:
        """Plan as for the longest video: a header may know no more than the first part of it."""
        longest_ns = round(self._config.max_duration_s * NS_PER_S)
        sampling = self._request.model.spec.sampling
        return Planned(metadata, make_unbounded_plan(longest_ns, sampling, self._request.options))

    async def _decode(self, decoder: DecodeSession, planned: Planned) -> DecodeSummary:
        """Decode a plan, and start its windows; do both again if the video is shorter than a window."""
        windows, end = await self._decode_units(decoder, planned)
        # If timestamps contradict each other, frames may go on for longer than the metadata says.
        if not planned.plan.fits(end.metadata.duration_ns) and not windows.has_started:
            windows.abandon()
            planned = self._plan(end.metadata)
            windows, end = await self._decode_units(decoder, planned)
        cut = planned.plan.cut(end.end_ns)
        if cut is None:
            raise CorruptVideo("no frame could be decoded in the requested time ranges")
        self._events.put_nowait(PlanCut(cut))
        for window in windows.finish(cut):
            await self._put(window)
        return end

    async def _put(self, window: StartedWindow) -> None:
        """Queue a window as an event; wait while the client has too many vectors to read."""
        self._events.put_nowait(window)
        if self._unread is not None:
            self._unread.watch(window)
            await self._unread.wait_for_room()

    async def _decode_units(
        self, decoder: DecodeSession, planned: Planned
    ) -> tuple[WindowStarter, DecodeSummary]:
        """Decode the units of a plan, queue them in the engine, and start the windows that they complete."""
        self._events.put_nowait(planned)
        compute = choose_outputs(self._request.options)
        windows = WindowStarter(planned.plan, self._session, compute, self._config.max_windows)
        if self._frames is not None:
            self._frames.use_plan(planned.plan, self._request.model.spec.preprocessing)
        split = self._split(decoder, planned)
        last_yield_at = monotonic()
        async with aclosing(split.units(decoder) if split else self._units(decoder, planned.plan)) as units:
            async for unit in units:
                if (window := windows.add(unit)) is not None:
                    await self._put(window)
                if monotonic() - last_yield_at >= _YIELD_INTERVAL_S:  # a thousand units may be ready at once
                    await asyncio.sleep(0)
                    last_yield_at = monotonic()
        end = split.end if split else decoder.end
        assert end is not None  # decoding ended without an error
        frames = self._request.timings.metrics.frames_decoded
        frames.labels(self._request.model.spec.name).inc(end.frames_decoded)
        return windows, end

    async def _units(self, decoder: DecodeSession, plan: Plan) -> AsyncGenerator[QueuedUnit]:
        """Decode the units of a plan by one worker, and yield them, queued in the engine."""
        preprocessing, options = self._request.model.spec.preprocessing, self._request.options
        async for unit in decoder.decode(
            plan, preprocessing, fast=options.fast, thumbnails=options.thumbnails
        ):
            if self._frames is not None:
                await self._frames.keep(unit)
            yield QueuedUnit(unit.grid, unit.unit, self._session.encode(unit))

    def _split(self, decoder: DecodeSession, planned: Planned) -> SplitDecoding | None:
        """Return what decodes a plan in parts by several workers; None if one worker decodes it."""
        if not (self._may_split(planned.metadata) and decoder.knows_key_frames):
            return None
        parts = split_plan(planned.plan, self._workers)
        if len(parts) == 1:
            return None
        job = SplitJob(
            self._file,
            planned.plan,
            parts,
            self._request.model.spec.preprocessing,
            self._request.options.fast,
            self._session.encode,
            self._request.meter.identity,
        )
        return SplitDecoding(job, self._decoders, self._workers - 1)
