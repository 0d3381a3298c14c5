"""A real server for tests: on free ports, in a thread of its own, called over a real channel."""

import asyncio
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tubelet.service.config.config import load_config
from tubelet.service.server.app import RunningServer, open_server
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

_PATIENCE_S = 100.0  # limit for what must happen


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready."""

    server: RunningServer
    stop: threading.Event
    thread: threading.Thread

    @property
    def target(self) -> str:
        """The address of the gRPC port."""
        return f"127.0.0.1:{self.server.port}"

    def drain(self) -> None:
        """Make the server stop as SIGTERM would."""
        self.stop.set()

    def wait(self) -> None:
        """Wait until the server has stopped."""
        self.thread.join(timeout=60)
        assert not self.thread.is_alive()

    def metric(self, name: str, **labels: str) -> float:
        """Scrape the metrics; return the sum of the samples of ``name`` that have these labels."""
        url = f"http://127.0.0.1:{self.server.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as response:
            return sum_of_samples(response.read().decode(), name, labels)


def sum_of_samples(page: str, name: str, labels: Mapping[str, str]) -> float:
    """Return the sum of the samples of ``name`` on a metrics page that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


OPTIONS = pb.ClassifyRequest(options=classification_pb2.ClassifyOptions())


class Upload:
    """A call whose chunks the test sends one by one."""

    def __init__(
        self, stub: VideoClassifierStub, timeout_s: float | None = None, metadata: Any = None
    ) -> None:
        self._parts: list[bytes | None] = []
        self._more = threading.Semaphore(0)
        self.call = stub.Classify.future(self._messages(), timeout=timeout_s, metadata=metadata)

    def send(self, chunk: bytes | None) -> None:
        """Send ``chunk``; None ends the upload."""
        self._parts.append(chunk)
        self._more.release()

    def _messages(self) -> Iterator[pb.ClassifyRequest]:
        yield OPTIONS
        while True:
            self._more.acquire()
            chunk = self._parts.pop(0)
            if chunk is None:
                return
            yield pb.ClassifyRequest(chunk=chunk)


def wait_until(served: Served, name: str, value: float, **labels: str) -> None:
    """Scrape until the metric ``name`` has ``value``."""
    end_s = monotonic() + _PATIENCE_S
    while (found := served.metric(name, **labels)) != value:
        assert monotonic() < end_s, f"{name} is {found}, not {value}"


@contextmanager
def serving(**stages: dict[str, Any]) -> Iterator[Served]:
    """Serve with this configuration, a dict for each of its tables, until the context ends."""
    server = {"host": "127.0.0.1", "port": 0, "metrics_port": 0, "drain_s": 60.0} | stages.pop("server", {})
    config = load_config(None, server=server, **stages)
    started, stop = threading.Event(), threading.Event()
    box: list[RunningServer | BaseException] = []

    async def run() -> None:
        async with open_server(config) as running:
            box.append(running)
            started.set()
            await asyncio.to_thread(stop.wait)

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            box.append(error)
            started.set()
            raise

    thread = threading.Thread(target=main, name="server")
    thread.start()
    started.wait(timeout=60)
    assert isinstance(box[0], RunningServer), box
    try:
        yield Served(box[0], stop, thread)
    finally:
        stop.set()
        thread.join(timeout=60)
