"""Metrics whose values are read at every scrape, since other parts of the server keep them."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tubelet.service.process_memory import read_memory


class Scraped(Collector):
    """Metrics that ``read`` makes with their present values at every scrape."""

    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics with their present values."""
        return self._read()


def decoder_seconds(busy_s: Callable[[], float]) -> Iterator[Metric]:
    """Yield the counter of the time that decode workers worked, which the pool of workers keeps."""
    yield CounterMetricFamily(
        "tubelet_decoder_busy_seconds",
        "Wall time in which decode workers worked, summed over workers.",
        value=busy_s(),
    )


def energy(read: Callable[[], Mapping[str, float]], start: Mapping[str, float]) -> Iterator[Metric]:
    """Yield the counter of the joules of each device after the reading ``start``."""
    family = CounterMetricFamily(
        "tubelet_energy_joules",
        "Energy of a device since the server was ready, whatever computes on it: cuda:N, cpu:N (a processor "
        "package) and dram:N (its memory). Only where the extra energy is installed and the counter can be "
        "read.",
        labels=["device"],
    )
    for device, joules in read().items():
        if device in start:
            family.add_metric([device], joules - start[device])
    yield family


def connections(count: Callable[[], Mapping[str, int]], limit: int) -> Iterator[Metric]:
    """Yield the gauges of the connections to each port of gRPC, and of their limit."""
    found = GaugeMetricFamily(
        "tubelet_connections", "Open connections to a port of gRPC, at an address.", labels=["address"]
    )
    for address, number in count().items():
        found.add_metric([address], number)
    yield found
    yield GaugeMetricFamily(
        "tubelet_connections_limit",
        "server.max_connections: the most of tubelet_connections at each address and port.",
        value=limit,
    )


def decoder_memory(process_ids: Callable[[], Sequence[int]]) -> Iterator[Metric]:
    """Yield the gauge of the memory of the decode workers and their fork server."""
    memory = read_memory(process_ids())
    family = GaugeMetricFamily(
        "tubelet_decoder_memory_bytes",
        "Memory of the decode workers and their fork server together: pss, which counts shared memory "
        "once, or rss where the kernel does not tell pss, which counts it for each process.",
        labels=["measure"],
    )
    family.add_metric([memory.measure], memory.total_bytes)
    yield family


def queue_lengths(lengths: Callable[[], Mapping[tuple[str, str], int]]) -> Iterator[Metric]:
    """Yield the gauges of queue lengths, which the engine keeps."""
    units = GaugeMetricFamily("tubelet_queued_units", "Units that wait for a device.", labels=["model"])
    windows = GaugeMetricFamily("tubelet_queued_windows", "Windows that wait for a device.", labels=["model"])
    for (stage, model), length in lengths().items():
        (units if stage == "encode" else windows).add_metric([model], length)
    yield units
    yield windows
