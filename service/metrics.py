"""All metrics of the server, and the stage timings of one request.

Labels come from closed sets, never from what a client sends. Identities are those of the server's file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from tubelet.service.scraped_metrics import (
    Scraped,
    connections,
    decoder_memory,
    decoder_seconds,
    energy,
    queue_lengths,
)
from tubelet.service.types.video import Protection, Stage

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, on a registry of its own, so that two servers in a process do not mix.

    The texts are the lines of the reference in ``deploy/README.md``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter(
            "tubelet_requests_total",
            "Requests that were answered, by gRPC code and by the model that answered ('' where none was "
            "chosen).",
            ["method", "model", "code"],
        )
        self.stage_seconds = histogram(
            "tubelet_stage_seconds",
            "Wall time of one stage. queue, encode and classify are of one batch, explain is of one window "
            "with its waiting, the others are of one video.",
            ["stage", "model"],
            buckets=_SECONDS,
        )
        self.batch_units = histogram(
            "tubelet_batch_units", "Units in a batch of the spatial stage.", ["model"], buckets=_BATCH
        )
        self.batch_windows = histogram(
            "tubelet_batch_windows", "Windows in a batch of the temporal stage.", ["model"], buckets=_BATCH
        )
        self.unit_cache = counter(
            "tubelet_unit_cache_lookups_total",
            "Units whose embedding was in the cache (hit), was being computed for another video (shared), or "
            "had to be computed (miss).",
            ["model", "outcome"],
        )
        self.unit_cache_bytes = gauge("tubelet_unit_cache_bytes", "Memory of the embeddings in the cache.")
        self.videos_in_flight = gauge(
            "tubelet_videos_in_flight", "Videos that were admitted and are not answered yet."
        )
        self.uploaded_bytes = counter("tubelet_uploaded_bytes_total", "Bytes of video received from clients.")
        self.fetched_bytes = counter("tubelet_fetched_bytes_total", "Bytes of video fetched from URIs.")
        self.frames_decoded = counter(
            "tubelet_frames_decoded_total",
            "Frames that came out of the codecs, of videos that were decoded to their end.",
            ["model"],
        )
        self.video_seconds = counter("tubelet_video_seconds_total", "Duration of the videos classified.")
        self.rejected = counter(
            "tubelet_rejected_requests_total", "Requests that were refused before any work.", ["reason"]
        )
        self.quota_exceeded = counter(
            "tubelet_quota_exceeded_total",
            "Videos that were refused, or ended in the middle, as a quota of their identity was used up.",
            ["identity", "quota"],
        )
        self.failed = counter(
            "tubelet_failed_requests_total",
            "Requests that failed after work began, by the model that was chosen ('' where none was yet).",
            ["reason", "model"],
        )
        self.decoder_failures = counter(
            "tubelet_decoder_failures_total",
            "Decode workers that crashed, hung or exceeded a limit, and were replaced.",
            ["cause"],
        )
        self.decoders_busy = gauge("tubelet_decoders_busy", "Decode workers that have a video.")
        self.decoder_sandbox = gauge(
            "tubelet_decoder_sandbox",
            "1 where the layer of the sandbox is in force for decode workers.",
            ["protection"],
        )
        self.engine_busy_seconds = counter(
            "tubelet_engine_busy_seconds_total",
            "Wall time in which devices computed batches, summed over devices.",
        )
        self.model_info = gauge(
            "tubelet_model_info",
            "1 for each model that is loaded.",
            ["model", "version", "family", "device", "dtype"],
        )
        self.model_load_seconds = gauge(
            "tubelet_model_load_seconds",
            "Time it took to read the model and prepare it for its devices.",
            ["model", "version"],
        )
        self.model_warm_up_seconds = gauge(
            "tubelet_model_warm_up_seconds",
            "Time it took to measure the model's batch size and compute its first window.",
            ["model", "version"],
        )
        self.explain_model_bytes = gauge(
            "tubelet_explain_model_bytes",
            "Memory of the weights of the copy that explains, which a model has once it was asked to.",
            ["model", "version"],
        )
        self.queued_explanations = gauge(
            "tubelet_queued_explanations", "Windows that wait to be explained, while devices are free."
        )
        self.device_up = gauge(
            "tubelet_device_up",
            "1 while the device computes batches, 0 once it is out of service.",
            ["device"],
        )
        self.ready = gauge("tubelet_ready", "1 while the server takes calls: see /readyz.")
        self.certificate_expiry = gauge(
            "tubelet_certificate_expiry_seconds",
            "Time until a certificate in use expires, negative once it has: the server's own, and the first "
            "to expire of server.tls.client_ca.",
            ["certificate"],
        )
        self.certificate_reload_failed = gauge(
            "tubelet_certificate_reload_failed", "1 while the files of server.tls cannot be used."
        )
        self.identities_reload_failed = gauge(
            "tubelet_identities_reload_failed",
            "1 while server.access.identities cannot be used.",
        )
        self.issuer_keys_reload_failed = gauge(
            "tubelet_issuer_keys_reload_failed", "1 while server.access.jwt.keys cannot be read."
        )

    def set_explain_bytes(self, name: str, version: str, size: int) -> None:
        """Show the memory of the copy of a model that explains; 0 removes the series."""
        if size:
            self.explain_model_bytes.labels(name, version).set(size)
        else:
            self.explain_model_bytes.remove_by_labels({"model": name, "version": version})

    def forget_version(self, name: str, version: str, *info: str) -> None:
        """Remove the series of a version that was unloaded. ``info`` is the rest of its ``model_info``."""
        self.model_info.remove(name, version, *info)
        self.model_load_seconds.remove(name, version)
        self.model_warm_up_seconds.remove(name, version)

    def forget_model(self, name: str) -> None:
        """Remove the series of a model's work, once none of its versions is loaded.

        Requests and failures stay: the last ones are counted when their calls end, after that.
        """
        of_work = (self.stage_seconds, self.batch_units, self.batch_windows, self.unit_cache)
        for metric in (*of_work, self.frames_decoded):
            metric.remove_by_labels({"model": name})

    def watch_decoders(
        self,
        busy_workers: Callable[[], int],
        protections: Callable[[], frozenset[Protection]],
        process_ids: Callable[[], Sequence[int]],
    ) -> None:
        """Read the state of the decode workers, and the memory of their processes, at every scrape."""
        self.decoders_busy.set_function(busy_workers)
        for protection in Protection:
            layer = self.decoder_sandbox.labels(protection.value)
            layer.set_function(lambda protection=protection: protection in protections())
        self.registry.register(Scraped(partial(decoder_memory, process_ids)))

    def watch_connections(self, count: Callable[[], Mapping[str, int]], limit: int) -> None:
        """Count the connections to the ports of gRPC, by address, at every scrape."""
        self.registry.register(Scraped(partial(connections, count, limit)))

    def count_decoder_seconds(self, busy_s: Callable[[], float]) -> None:
        """Read the time that decode workers have worked at every scrape."""
        self.registry.register(Scraped(partial(decoder_seconds, busy_s)))

    def watch_energy(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Read the joules of each device at every scrape, and count those from now on."""
        self.registry.register(Scraped(partial(energy, read, read())))

    def watch_queues(self, lengths: Callable[[], Mapping[tuple[str, str], int]]) -> Callable[[], None]:
        """Read queue lengths, by stage and model, at every scrape; return the function that stops it."""
        collector = Scraped(partial(queue_lengths, lengths))
        self.registry.register(collector)
        return partial(self.registry.unregister, collector)

    def observe_stage(self, stage: Stage, model: str, seconds: float) -> None:
        """Add ``seconds`` of a stage of one video to the histogram."""
        self.stage_seconds.labels(stage, model).observe(seconds)


@dataclass(slots=True)
class Arrived:
    """The bytes of a video that have arrived, and what identifies them.

    ``digest`` is of the whole upload. ``etag`` is that of the file at a URI.
    """

    bytes: int = 0
    digest: str = ""
    etag: str = ""


class RequestTimings:
    """The wall time of each stage of one request, the bytes that arrived for it, the windows of its video.

    ``metrics`` count the request. They observe the stages of the video alone under the name of the ``model``.
    """

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.metrics = metrics
        self.seconds: dict[str, float] = {}
        self.arrived = Arrived()
        self.fetched_bytes = 0
        self.windows = 0  # classified so far
        self._model = model
        self._client_wait_s = 0.0
        self._explain_wait_s = 0.0

    @property
    def server_s(self) -> float:
        """The total time without that in which the client uploaded or read, or segments were explained."""
        client_s = self.seconds.get("upload", 0.0) + self._client_wait_s
        return max(0.0, self.seconds.get("total", 0.0) - client_s - self._explain_wait_s)

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Measure and observe the time that ``stage`` of this video takes."""
        start = monotonic()
        try:
            yield
        finally:
            self.observe(stage, monotonic() - start)

    @contextmanager
    def client_wait(self) -> Iterator[None]:
        """Measure the time until the client has read an event."""
        start = monotonic()
        try:
            yield
        finally:
            self._client_wait_s += monotonic() - start

    @contextmanager
    def explain_wait(self) -> Iterator[None]:
        """Measure the time until a window is explained, or the copy that explains is loaded."""
        start = monotonic()
        try:
            yield
        finally:
            self._explain_wait_s += monotonic() - start

    def observe(self, stage: Stage, seconds: float) -> None:
        """Add ``seconds`` to a stage of this video, and observe them in the metrics."""
        self.metrics.observe_stage(stage, self._model, seconds)
        self.add(stage, seconds)

    def add(self, stage: Stage, seconds: float) -> None:
        """Add ``seconds`` to a stage whose batches are observed by the engine."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
