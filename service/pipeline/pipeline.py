"""The steps of one request: ingest, probe, plan, decode, encode, classify, emit segments; maps of them."""

from functools import partial

from torch import Tensor

from tubelet.models.explain.explanation import Explanation
from tubelet.service.config.config import Config
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.explain_session import ExplainSession
from tubelet.service.engine.session import VideoSession
from tubelet.service.engine.stage_queue import EngineCosts
from tubelet.service.explanation_errors import NothingToExplain
from tubelet.service.ingest.ingest import Ingest, Video
from tubelet.service.metrics import Metrics, RequestTimings
from tubelet.service.pipeline.embeddings import check_embeddings
from tubelet.service.pipeline.explain_question import check_explanation, check_questions, to_question
from tubelet.service.pipeline.explanations import SegmentExplainer
from tubelet.service.pipeline.kept_frames import KeptFrames
from tubelet.service.pipeline.planner import check_options
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.pipeline.request import Request
from tubelet.service.pipeline.segments import SegmentAggregator
from tubelet.service.pipeline.window_stream import WindowStream
from tubelet.service.pipeline.windows import ClassifiedWindow
from tubelet.service.types.explanation import EmitExplained, ExplainOptions, MapQuestion
from tubelet.service.types.meter import UNMETERED, Meter
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Emit, Event


class Pipeline:
    """Classifies and explains many videos at a time; they share the decode workers and the engine."""

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

    def request(
        self,
        options: Options,
        deadline: float | None = None,
        metrics: Metrics | None = None,
        meter: Meter = UNMETERED,
    ) -> Request:
        """Make a request with ``options`` that is to be answered by ``deadline``, a monotonic time.

        ``metrics`` count it; None: those of the pipeline do. ``meter`` counts what it uses.

        Raises:
            UnknownModel: no model is loaded that ``options`` name.
        """
        model = self.registry.find(options.model, options.version)
        timings = RequestTimings(metrics or self._metrics, model.spec.name)
        costs = EngineCosts(timings.metrics, meter)
        return Request(options, model, timings, deadline, meter, costs)

    async def classify(self, video: Video, request: Request, emit: Emit) -> Classification:
        """Classify ``video``; ``emit`` gets its metadata, then segments and progress as they are known.

        Raises:
            TubeletError: the video cannot be classified; the message is written for the client.
        """
        self._check(video, request)
        check_embeddings(request.options, request.model)
        segments = SegmentAggregator(request.model, request.options)

        async def send(event: Event) -> None:
            with request.timings.client_wait():
                await emit(event)

        options, costs = request.options, request.costs
        session = self._engine.session(request.model, options.priority, request.deadline, costs)
        with request.model.acquire(), request.timings.time("total"):
            await self._run(video, request, session, segments, send)
        return _answer(request, segments)

    async def explain(
        self, video: Video, request: Request, asked: ExplainOptions, emit: EmitExplained
    ) -> Classification:
        """Classify ``video``; ``emit`` gets its metadata, progress, and the maps of each segment.

        All is computed while nothing else waits for a device, by a copy of the model, which the first call
        loads.

        Raises:
            TubeletError: the video cannot be explained; the message is written for the client.
        """
        self._check(video, request)
        check_explanation(request.options, asked)
        model, spec = request.model, request.model.spec
        segments = SegmentAggregator(model, request.options)
        with model.acquire(), request.timings.time("total"):
            copy = self._engine.unpacked_copy(model)
            with request.timings.explain_wait():
                parts = check_questions(asked, spec, await copy.describe())
                loaded = await copy.load()
            session = self._engine.explain_session(
                model, loaded, request.options.priority, request.deadline, request.costs
            )
            explain = partial(_explain, request.timings, session)
            frame_bytes = self._config.explain.frame_bytes
            explainer = SegmentExplainer(asked, spec.preprocessing, parts, segments, frame_bytes, explain)

            async def send(event: Event) -> None:
                async for found in explainer.events(event):
                    with request.timings.client_wait():
                        await emit(found)

            await self._run(video, request, session, segments, send, explainer.frames)
        if not explainer.has_found:
            raise NothingToExplain(
                "no segment has a label to explain, since no score reaches score_threshold "
                f"{request.options.score_threshold:g}; lower it, or name labels",
                field="score_threshold",
                value=request.options.score_threshold,
            )
        return _answer(request, segments)

    def clear_cache(self) -> None:
        """Drop all cached embeddings, so that no video is faster because it was seen before."""
        self._engine.clear_cache()

    def _check(self, video: Video, request: Request) -> None:
        """Check all that can be checked before a byte of ``video`` is read."""
        spec = request.model.spec
        self._ingest.check(video)
        check_options(spec.sampling, spec.preprocessing, request.options)

    async def _run(
        self,
        video: Video,
        request: Request,
        session: VideoSession,
        segments: SegmentAggregator,
        send: Emit,
        frames: KeptFrames | None = None,
    ) -> None:
        """Read, decode and classify ``video``; ``send`` gets the events of ``segments``."""
        timings = request.timings
        async with (
            self._ingest.open(video, timings, request.meter) as file,
            WindowStream(file, request, session, self._decoders, self._config.decode, frames) as windows,
        ):
            async for window in windows:
                timings.windows += isinstance(window, ClassifiedWindow)
                for event in segments.add(window):
                    await send(event)


async def _explain(
    timings: RequestTimings, session: ExplainSession, window: Tensor, question: MapQuestion
) -> Explanation:
    """Explain a window (S, t, H, W, C) uint8."""
    with timings.explain_wait(), timings.time("explain"):
        return await session.explain(window, to_question(question))


def _answer(request: Request, segments: SegmentAggregator) -> Classification:
    """Return the answer to ``request``, whose video has ended."""
    timings, costs = request.timings, request.costs
    timings.add("queue", costs.queue_s)
    timings.add("encode", costs.encode_s)
    timings.add("classify", costs.classify_s)
    answer = segments.classification(timings)
    timings.metrics.video_seconds.inc(answer.metadata.duration_s)
    return answer
