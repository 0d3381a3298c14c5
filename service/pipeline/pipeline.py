"""The steps of one request: ingest, probe, plan, decode, encode, classify, emit segments."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from time import monotonic

from tubelet.models.spec import Preprocessing
from tubelet.service.config.config import Config
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.session import VideoSession
from tubelet.service.errors import CorruptVideo
from tubelet.service.ingest.ingest import Ingest, Video
from tubelet.service.metrics import Metrics, RequestTimings
from tubelet.service.pipeline.planner import (
    can_plan_before_end,
    check_options,
    make_plan,
    make_unbounded_plan,
    stride_warnings,
)
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.pipeline.request import Request
from tubelet.service.pipeline.segments import SegmentAssembler
from tubelet.service.pipeline.windows import (
    DecodingEnded,
    DecodingEvents,
    Planned,
    StartedWindow,
    WindowStarter,
)
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Options
from tubelet.service.types.result import Activation, Classification, Emit, Event, Progress, Segment
from tubelet.service.types.video import (
    NS_PER_S,
    DecodeSummary,
    PixelFormat,
    UnitFrames,
    VideoFile,
    VideoMetadata,
)

_PROGRESS_INTERVAL_S = 0.5
_YIELD_INTERVAL_S = 0.01  # the longest time without a yield to the event loop


class Pipeline:
    """Classifies many videos at a time; they share the decode workers and the engine."""

    def __init__(
        self,
        config: Config,
        registry: ModelRegistry,
        ingest: Ingest,
        decoders: DecodePool,
        engine: Engine,
        metrics: Metrics,
    ) -> None:
        self.registry = registry
        self._config = config
        self._ingest = ingest
        self._decoders = decoders
        self._engine = engine
        self._metrics = metrics

    def request(self, options: Options, deadline: float | None = None) -> Request:
        """Make a request with ``options``, which a device is to answer by ``deadline`` (monotonic clock).

        Raises:
            UnknownModel: no model is loaded that ``options`` name.
        """
        model = self.registry.find(options.model, options.version)
        return Request(options, model, RequestTimings(self._metrics, model.spec.name), deadline)

    async def classify(self, video: Video, request: Request, emit: Emit) -> Classification:
        """Classify ``video``; ``emit`` gets its metadata, then segments and progress as they are known.

        Raises:
            TubeletError: the video cannot be classified; the message is written for the client.
        """
        self._ingest.check(video)
        model, options = request.model, request.options
        check_options(model.spec.sampling, model.spec.preprocessing, options)
        work = self._engine.session(model, options.priority, request.deadline, self._metrics)
        with model.acquire():
            return await self._run(video, request, emit, work)

    def clear_cache(self) -> None:
        """Drop all cached embeddings, so that no video is faster because it was seen before."""
        self._engine.clear_cache()

    async def _run(
        self,
        video: Video,
        request: Request,
        emit: Emit,
        work: VideoSession,
    ) -> Classification:
        model, options, timings = request.model, request.options, request.timings
        events: DecodingEvents = asyncio.Queue()
        async with AsyncExitStack() as stack:
            stack.enter_context(timings.time("total"))
            file = await stack.enter_async_context(self._ingest.open(video, timings))
            decoding = asyncio.create_task(self._decode(file, request, work, events))
            # Callbacks run in reverse order: decoding stops before the file is closed.
            stack.push_async_callback(_stop, decoding)
            stack.callback(work.cancel)
            emit_timed = partial(_emit_timed, emit, timings)
            end, assembler, segments = await emit_segments(events, decoding, options, emit_timed, model)
        self._metrics.video_seconds.inc(end.metadata.duration_s)
        rounded = stride_warnings(end.metadata.duration_ns, model.spec.sampling, options)
        timings.add("queue", work.costs.queue_s)
        timings.add("encode", work.costs.encode_s)
        timings.add("classify", work.costs.classify_s)
        return Classification(
            metadata=end.metadata,
            model=model.spec.name,
            version=model.spec.version,
            segments=segments,
            labels=assembler.video_labels(),
            stage_seconds=dict(timings.seconds),
            warnings=end.metadata.warnings + end.warnings + rounded,
            fetched_bytes=timings.fetched_bytes,
            max_frame_offset_ns=end.max_frame_offset_ns,
            activation=Activation(model.spec.activation),
        )

    async def _decode(
        self,
        file: VideoFile,
        request: Request,
        work: VideoSession,
        events: DecodingEvents,
    ) -> None:
        """Probe, plan and decode ``file`` in one worker; ``events`` gets its plan, windows and end."""
        model, options, timings = request.model, request.options, request.timings
        sampling, pixel_format = model.spec.sampling, _pixel_format(model.spec.preprocessing)
        is_unbounded = can_plan_before_end(options)
        try:
            if not is_unbounded and file.size_bytes is None:
                await file.whole()
            else:
                await file.wait(0, 1)
            asked = monotonic()
            async with self._decoders.session(file, options.priority, work.deadline) as decoder:
                timings.add("queue", monotonic() - asked)
                with timings.time("probe"):
                    metadata = await decoder.probe(file, header_only=is_unbounded)
                if is_unbounded:
                    longest_ns = round(self._config.decode.max_duration_s * NS_PER_S)
                    plan = make_unbounded_plan(longest_ns, sampling, options)
                else:
                    plan = make_plan(metadata, sampling, options)
                with timings.time("decode"):
                    units = partial(decoder.decode, pixel_format=pixel_format, fast=options.fast)
                    shorter = await self._decode_plan(decoder, units, Planned(metadata, plan), work, events)
                    if shorter is not None:
                        plan = make_plan(shorter, sampling, options)
                        await self._decode_plan(decoder, units, Planned(shorter, plan), work, events)
        finally:
            events.put_nowait(None)

    async def _decode_plan(
        self,
        decoder: DecodeSession,
        units: Callable[[Plan], AsyncIterator[UnitFrames]],
        planned: Planned,
        work: VideoSession,
        events: DecodingEvents,
    ) -> VideoMetadata | None:
        """Decode the units of a plan and queue them in the engine.

        Return new metadata if the plan does not fit the decoded video and no window was started yet, so that
        the caller can plan again; None otherwise.
        """
        events.put_nowait(planned)
        plan = planned.plan
        windows = WindowStarter(plan, work, events, self._config.decode.max_windows)
        last_yield_at = monotonic()
        async for unit in units(plan):
            windows.add(unit)
            if monotonic() - last_yield_at >= _YIELD_INTERVAL_S:  # a thousand units may be ready at once
                await asyncio.sleep(0)
                last_yield_at = monotonic()
        end = decoder.end
        assert end is not None  # decoding ended without an error
        self._metrics.frames_decoded.labels(work.model).inc(end.frames_decoded)
        # If timestamps contradict each other, frames may go on for longer than the metadata says.
        if not plan.fits(end.metadata.duration_ns) and not windows.has_started:
            windows.abandon()
            return end.metadata
        cut = plan.cut(end.end_ns)
        if cut is None:
            raise CorruptVideo("no frame could be decoded in the requested time ranges")
        windows.finish(cut, end)
        return None


async def _emit_timed(emit: Emit, timings: RequestTimings, event: Event) -> None:
    """Emit ``event``, and add the time until the client takes it to ``timings``."""
    with timings.client_wait():
        await emit(event)


async def emit_segments(
    events: DecodingEvents, decoding: asyncio.Task[None], options: Options, emit: Emit, model: ServedModel
) -> tuple[DecodeSummary, SegmentAssembler, tuple[Segment, ...]]:
    """Turn windows into segments, in the order of time, and emit each as soon as its logits are known.

    Return the decoder's summary, the assembler with the labels of the whole video, and all segments.
    """
    segments: list[Segment] = []
    activation = Activation(model.spec.activation)
    end: DecodeSummary | None = None
    assembler, total_s, is_header_duration, was_emitted, last_progress_at = (
        None,
        0.0,
        False,
        False,
        monotonic(),
    )

    async def emit_all(ready: Iterator[Segment]) -> None:
        for segment in ready:
            segments.append(segment)
            await emit(segment)

    while (item := await events.get()) is not None:
        match item:
            case Planned(metadata, plan):
                assembler = SegmentAssembler(
                    plan, model.spec.labels, options.top_k, options.score_threshold, activation
                )
                is_header_duration = (
                    plan.is_unbounded
                )  # by a header, which may know no more than the first part of it
                total_s = (metadata.duration_ns if is_header_duration else plan.total_ns) / NS_PER_S
                if not was_emitted:
                    await emit(metadata)
                was_emitted = True
            case StartedWindow(grid, window, decoded_ns, logits):
                assert assembler is not None
                await asyncio.sleep(0)  # let other requests run, also if all logits are ready at once
                await emit_all(assembler.add(grid, window, await logits))
                if monotonic() - last_progress_at >= _PROGRESS_INTERVAL_S:
                    last_progress_at = monotonic()
                    decoded_s = decoded_ns / NS_PER_S
                    is_known = not is_header_duration or decoded_s <= total_s
                    await emit(Progress(decoded_s, total_s if is_known else 0.0))
            case DecodingEnded(plan, end):
                assert assembler is not None
                assembler.cut(plan)
    await decoding  # raises the error that ended decoding early
    assert end is not None
    assert assembler is not None
    await emit_all(assembler.finish())
    return end, assembler, tuple(segments)


def _pixel_format(wanted: Preprocessing) -> PixelFormat:
    return PixelFormat(
        wanted.height,
        wanted.width,
        wanted.resize,
        wanted.resize_height,
        wanted.resize_width,
        wanted.resample,
        wanted.crop_rounding,
    )


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
