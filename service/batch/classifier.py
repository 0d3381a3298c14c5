"""Classification of one video of a batch into rows, by a pipeline in this process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic

from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.rows import BatchFailure, Cost, VideoRows, answer_rows, failure_rows
from tubelet.service.batch.source.items import Item, file_etag
from tubelet.service.config.config import Config
from tubelet.service.errors import NoDevice, TubeletError, UriChanged
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.planner import check_options
from tubelet.service.pipeline.request import Request
from tubelet.service.server.local import LocalPipeline, parse_uri_option
from tubelet.service.types.embeddings import Embeddings, join
from tubelet.service.types.meter import Meter
from tubelet.service.types.result import Classification, Event
from tubelet.service.types.uri import Uri

_METHOD = "batch"  # in metrics, where a server has the RPC
_ATTEMPTS = 3  # for a video whose error says that a retry may help

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_batch_classifier(
    config: Config, plan: BatchPlan, jobs: int, metrics: Metrics
) -> AsyncIterator["BatchClassifier"]:
    """Start a pipeline with the plan's model for ``jobs`` videos at a time, and yield what classifies.

    It reads all files of this machine that its user may read, and URIs that ``fetch.allow`` covers. All
    decode workers share a long video once none else waits, unless the configuration says how many may.

    Raises:
        MalformedOption: the model does not answer with these options.
    """
    allow = (*config.fetch.allow, "file:///")
    fetch = config.fetch.model_copy(update={"allow": allow, "max_concurrent_videos": jobs})
    decode = config.decode
    if decode.workers_per_video is None:
        decode = decode.model_copy(update={"workers_per_video": decode.workers})
    async with LocalPipeline(
        config.model_copy(update={"fetch": fetch, "decode": decode}), metrics
    ) as pipeline:
        spec = (await pipeline.request(plan.options)).model.spec
        check_options(spec.sampling, spec.preprocessing, plan.options)
        yield BatchClassifier(pipeline, plan, metrics)


class BatchClassifier:
    """Classifies videos by one plan; many calls may run at a time."""

    def __init__(self, pipeline: LocalPipeline, plan: BatchPlan, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._plan = plan
        self._metrics = metrics

    async def classify(self, item: Item, content: bytes | None = None) -> VideoRows:
        """Return the rows of a video, and count it; what goes wrong with it is in its row.

        ``content`` are the bytes of its file, if they are here already.

        Raises:
            NoDevice: no device is left, so that all videos would fail.
        """
        self._metrics.videos_in_flight.inc()
        try:
            rows = await self._rows(item, content)
        finally:
            self._metrics.videos_in_flight.dec()
        count_video(self._metrics, rows)
        return rows

    async def _rows(self, item: Item, content: bytes | None) -> VideoRows:
        """Return the rows of a video, of several attempts if they may help."""
        started, devices = monotonic(), list[float]()
        read_bytes, failure = 0, BatchFailure("INVALID_ARGUMENT", item.reason, item.problem or "")
        attempt = 0
        while item.problem is None and attempt < _ATTEMPTS:
            attempt += 1
            request = await self._pipeline.request(
                replace(self._plan.options, ranges_ns=item.ranges_ns), Meter(count_device_s=devices.append)
            )
            try:
                if content is None:
                    answer, etag = await self._answer_uri(item, request)
                else:
                    answer, etag = await self._answer(_chunks(content), request), ""
                arrived_bytes = read_bytes + request.timings.arrived.bytes
                cost = Cost(arrived_bytes, sum(devices), monotonic() - started, attempt)
                return answer_rows(item, self._plan, answer, etag, cost)
            except NoDevice:
                raise
            except TubeletError as error:
                failure = BatchFailure(
                    error.code.name, error.reason, error.message, error.retry_after_s is not None
                )
                if error.retry_after_s is None or attempt == _ATTEMPTS:
                    break
                await asyncio.sleep(error.retry_after_s)
            except Exception as error:  # a fault of ours concerns this video alone
                logger.exception("cannot classify %s", item.uri)
                failure = BatchFailure("INTERNAL", "INTERNAL", f"unexpected {type(error).__name__}: {error}")
                break
            finally:
                read_bytes += request.timings.arrived.bytes
        cost = Cost(read_bytes, sum(devices), monotonic() - started, max(attempt, 1))
        return failure_rows(item, self._plan, failure, cost)

    async def _answer_uri(self, item: Item, request: Request) -> tuple[Classification, str]:
        """Classify the video at a URI once, and return its version, too.

        Raises:
            UriChanged: it is not the version that was found.
        """
        uri = parse_uri_option(item.uri)
        _check_version(item, uri, _etag(uri) or item.etag)
        answer = await self._answer(uri, request)
        etag = _etag(uri) or request.timings.arrived.etag or item.etag
        _check_version(item, uri, etag)
        return answer, etag

    async def _answer(self, video: AsyncIterator[bytes] | Uri, request: Request) -> Classification:
        """Classify a video once."""
        parts: list[Embeddings] = []

        async def keep(event: Event) -> None:
            """Keep the embeddings among the events."""
            if isinstance(event, Embeddings):
                parts.append(event)

        return replace(await self._pipeline.answer(video, request, keep), embeddings=join(parts))


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    """Yield the bytes of a file."""
    yield content


def count_video(metrics: Metrics, rows: VideoRows) -> None:
    """Count a video that has ended, as a server counts a call."""
    model = rows.video["model"]
    metrics.requests.labels(_METHOD, model, rows.video["code"]).inc()
    if rows.failure is not None:
        metrics.failed.labels(rows.failure.reason, model).inc()


def _etag(uri: Uri) -> str:
    """Return the present version of a file of this machine; "" for other URIs, and if there is none."""
    return file_etag(uri.local_path) if uri.scheme == "file" else ""


def _check_version(item: Item, uri: Uri, etag: str) -> None:
    """Check that a video still is the version that was found.

    Raises:
        UriChanged: it is not.
    """
    if item.etag and etag != item.etag:
        raise UriChanged(
            f"the file at {uri} was replaced after it was found: it was version {item.etag}, and is {etag}; "
            "run again to classify the new one"
        )
