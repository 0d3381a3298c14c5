"""Every metric, declared once. Labels come from closed sets, never from what a client sends."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Literal

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tubelet.service.types.video import Protection, Stage


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """The sum over processes, and its measure: pss counts a page that n of them share as 1/n in each."""

    measure: Literal["pss", "rss"]
    total_bytes: int


def read_memory(process_ids: Iterable[int]) -> GroupMemory:
    """Sum up the PSS of the processes, or the RSS where the kernel refuses one's PSS.

    A process that has ended meanwhile counts nothing.
    """
    pss = rss = 0
    is_readable = True
    for process_id in process_ids:
        try:
            process = psutil.Process(process_id)
            rss += process.memory_info().rss
            pss += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except (psutil.AccessDenied, AttributeError):  # the latter of a kernel without PSS
            is_readable = False
    return GroupMemory("pss", pss) if is_readable else GroupMemory("rss", rss)


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One set of metrics on a registry of its own, so that two servers in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "tubelet_requests_total",
            "Requests answered, by the model that answered ('' where none was chosen) and gRPC code.",
            ["method", "model", "code"],
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "tubelet_stage_seconds",
            "Wall time of one stage; queue, encode and classify are of one batch, the others of one video.",
            ["stage", "model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_units = Histogram(
            "tubelet_batch_units",
            "Units in a batch of the spatial stage.",
            ["model"],
            buckets=_BATCH,
            registry=self.registry,
        )
        self.batch_windows = Histogram(
            "tubelet_batch_windows",
            "Windows in a batch of the temporal stage.",
            ["model"],
            buckets=_BATCH,
            registry=self.registry,
        )
        self.unit_cache = Counter(
            "tubelet_unit_cache_total",
            "Units whose embedding was known (hit), on its way (shared), or had to be computed (miss).",
            ["model", "outcome"],
            registry=self.registry,
        )
        self.unit_cache_bytes = Gauge(
            "tubelet_unit_cache_bytes", "Memory of the embeddings that are kept.", registry=self.registry
        )
        self.videos_in_flight = Gauge(
            "tubelet_videos_in_flight", "Videos between their call and its end.", registry=self.registry
        )
        self.uploaded_bytes = Counter(
            "tubelet_uploaded_bytes_total", "Bytes of video received.", registry=self.registry
        )
        self.fetched_bytes = Counter(
            "tubelet_fetched_bytes_total",
            "Bytes of video fetched from where URIs lead.",
            registry=self.registry,
        )
        self.frames_decoded = Counter(
            "tubelet_frames_decoded_total",
            "Frames that came out of the codecs, of videos whose decoding came to its end.",
            ["model"],
            registry=self.registry,
        )
        self.video_seconds = Counter(
            "tubelet_video_seconds_total", "Seconds of video classified.", registry=self.registry
        )
        self.rejected = Counter(
            "tubelet_rejected_total", "Requests refused before any work.", ["reason"], registry=self.registry
        )
        self.failed = Counter(
            "tubelet_failed_total",
            "Requests that failed after work began, by the model that was chosen ('' where none was yet).",
            ["reason", "model"],
            registry=self.registry,
        )
        self.decoder_deaths = Counter(
            "tubelet_decoder_deaths_total",
            "Decode workers that crashed, hung or broke a limit.",
            ["cause"],
            registry=self.registry,
        )
        self.decoders_busy = Gauge(
            "tubelet_decoders_busy", "Decode workers that work for a video.", registry=self.registry
        )
        self.decoder_sandbox = Gauge(
            "tubelet_decoder_sandbox",
            "1 where the layer is in force between decode workers and the rest of the machine.",
            ["protection"],
            registry=self.registry,
        )
        self.engine_busy_seconds = Counter(
            "tubelet_engine_busy_seconds_total",
            "Wall time that the device computed batches.",
            registry=self.registry,
        )
        self.model_info = Gauge(
            "tubelet_model_info",
            "1 for each model that is loaded.",
            ["model", "version", "family", "device", "dtype"],
            registry=self.registry,
        )
        self.model_load_seconds = Gauge(
            "tubelet_model_load_seconds",
            "What reading a model and preparing it for its devices took.",
            ["model", "version"],
            registry=self.registry,
        )
        self.model_warm_up_seconds = Gauge(
            "tubelet_model_warm_up_seconds",
            "What measuring a model's useful batch and its first window took.",
            ["model", "version"],
            registry=self.registry,
        )
        self.device_up = Gauge(
            "tubelet_device_up",
            "1 while the device computes batches, 0 once it is out of service.",
            ["device"],
            registry=self.registry,
        )
        self.ready = Gauge(
            "tubelet_ready", "1 when the default model has answered its warm-up.", registry=self.registry
        )

    def forget_version(self, name: str, version: str, *info: str) -> None:
        """Remove the series of a version that is unloaded. ``info`` is the rest of its ``model_info``."""
        self.model_info.remove(name, version, *info)
        self.model_load_seconds.remove(name, version)
        self.model_warm_up_seconds.remove(name, version)

    def forget_model(self, name: str) -> None:
        """Remove what a model's work was measured by, once none of its versions is loaded.

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
        """Read the state of the pool of decoders and the memory of its processes at every scrape."""
        self.decoders_busy.set_function(busy_workers)
        for protection in Protection:
            layer = self.decoder_sandbox.labels(protection.value)
            layer.set_function(lambda protection=protection: protection in protections())
        self.registry.register(_DecoderMemory(process_ids))

    def count_decoder_seconds(self, busy_s: Callable[[], float]) -> None:
        """Read for how long decode workers have worked at every scrape."""
        self.registry.register(_DecoderSeconds(busy_s))

    def watch_queues(self, lengths: Callable[[], Mapping[tuple[str, str], int]]) -> Callable[[], None]:
        """Read how long queues are, by stage and model, at every scrape until what is returned is called."""
        collector = _QueueLengths(lengths)
        self.registry.register(collector)
        return partial(self.registry.unregister, collector)

    @contextmanager
    def time(self, stage: Stage, model: str, into: dict[str, float]) -> Iterator[None]:
        """Add a stage's wall seconds to the histogram and to a request's own account."""
        start = monotonic()
        try:
            yield
        finally:
            self.add_time(stage, model, monotonic() - start, into)

    def add_time(self, stage: Stage, model: str, seconds: float, into: dict[str, float]) -> None:
        """The same of seconds that somebody else measured."""
        self.stage_seconds.labels(stage, model).observe(seconds)
        into[stage] = into.get(stage, 0.0) + seconds


class _DecoderSeconds(Collector):
    """A counter that somebody else counts."""

    def __init__(self, busy_s: Callable[[], float]) -> None:
        self._busy_s = busy_s

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "tubelet_decoder_busy_seconds",
            "Wall time that decode workers worked, summed over workers.",
            value=self._busy_s(),
        )


class _DecoderMemory(Collector):
    """A gauge of the memory of other processes."""

    def __init__(self, process_ids: Callable[[], Sequence[int]]) -> None:
        self._process_ids = process_ids

    def describe(self) -> Iterator[Metric]:
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        family, memory = self._family(), read_memory(self._process_ids())
        family.add_metric([memory.measure], memory.total_bytes)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "tubelet_decoder_memory_bytes",
            "Memory of the decode workers and their fork server: pss counts what processes share once, rss "
            "counts it for each, where the kernel does not tell the other.",
            labels=["measure"],
        )


class _QueueLengths(Collector):
    """Gauges of what somebody else holds."""

    def __init__(self, lengths: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._lengths = lengths

    def describe(self) -> Iterator[Metric]:
        yield from self._families().values()

    def collect(self) -> Iterator[Metric]:
        families = self._families()
        for (stage, model), length in self._lengths().items():
            families[stage].add_metric([model], length)
        yield from families.values()

    def _families(self) -> dict[str, GaugeMetricFamily]:
        """By stage."""
        return {
            "encode": GaugeMetricFamily(
                "tubelet_queued_units", "Units that wait for the device.", labels=["model"]
            ),
            "classify": GaugeMetricFamily(
                "tubelet_queued_windows", "Windows that wait for the device.", labels=["model"]
            ),
        }
