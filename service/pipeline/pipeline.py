"""The steps of one request: ingest, probe, plan, decode, encode, classify, emit segments."""

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.stage_queue import EngineCosts
from tubelet.service.ingest.ingest import Ingest, Video
from tubelet.service.metrics import Metrics, RequestTimings
from tubelet.service.pipeline.embeddings import check_embeddings
from tubelet.service.pipeline.planner import check_options
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.pipeline.request import Request
from tubelet.service.pipeline.segments import SegmentAggregator
from tubelet.service.pipeline.window_stream import WindowStream
from tubelet.service.pipeline.windows import ClassifiedWindow
from tubelet.service.types.meter import UNMETERED, Meter
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Emit


class Pipeline:
    """Classifies many videos at a time; they share the decode workers and the engine."""

    def __init__(
        self,
        config: DecodeConfig,
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
        return Request(options, model, timings, deadline, meter)

    async def classify(self, video: Video, request: Request, emit: Emit) -> Classification:
        """Classify ``video``; ``emit`` gets its metadata, then segments and progress as they are known.

        Raises:
            TubeletError: the video cannot be classified; the message is written for the client.
        """
        model, options, timings = request.model, request.options, request.timings
        self._ingest.check(video)
        check_options(model.spec.sampling, model.spec.preprocessing, options)
        check_embeddings(options, model)
        costs = EngineCosts(timings.metrics, request.meter)
        session = self._engine.session(model, options.priority, request.deadline, costs)
        segments = SegmentAggregator(model, options)
        with model.acquire(), timings.time("total"):
            async with (
                self._ingest.open(video, timings, request.meter) as file,
                WindowStream(file, request, session, self._decoders, self._config) as windows,
            ):
                async for window in windows:
                    timings.windows += isinstance(window, ClassifiedWindow)
                    for event in segments.add(window):
                        with timings.client_wait():
                            await emit(event)
        timings.add("queue", costs.queue_s)
        timings.add("encode", costs.encode_s)
        timings.add("classify", costs.classify_s)
        answer = segments.classification(timings)
        timings.metrics.video_seconds.inc(answer.metadata.duration_s)
        return answer

    def clear_cache(self) -> None:
        """Drop all cached embeddings, so that no video is faster because it was seen before."""
        self._engine.clear_cache()
