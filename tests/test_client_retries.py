"""Retries of the Python clients after a rejection, within the caller's timeout."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import grpc
import pytest

from tests.support.running_server import Served, Upload, serving, wait_until
from tests.support.sample_clip import panning_clip
from tubelet.service.client import AsyncClient, Client, ServerError
from tubelet.service.types.result import Classification, Segment
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    """A server with room for one video."""
    with serving(server={"max_videos_in_flight": 1, "retry_after_s": 0.2}) as served:
        yield served


@pytest.fixture
def full(small: Served) -> Iterator[Upload]:
    """An upload that fills the server until the test ends it."""
    with grpc.insecure_channel(small.target) as channel:
        upload = Upload(VideoClassifierStub(channel))
        upload.send(panning_clip(1.0))
        wait_until(small, "tubelet_videos_in_flight", 1)
        yield upload
        upload.call.cancel()
        wait_until(small, "tubelet_videos_in_flight", 0)


@pytest.mark.parametrize("kind", ["bytes", "path"])
def test_rejected_call_is_retried_until_there_is_room(
    small: Served, full: Upload, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(panning_clip(1.0))
    refused = small.metric("tubelet_rejected_requests_total", reason="OVERLOADED")
    with Client(small.target) as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.classify, panning_clip(1.0) if kind == "bytes" else path)
        while small.metric("tubelet_rejected_requests_total", reason="OVERLOADED") < refused + 2:
            assert not answer.done()
        full.send(None)
        assert answer.result().segments


def test_rejected_asyncio_stream_is_retried_until_there_is_room(small: Served, full: Upload) -> None:
    overloaded = partial(small.metric, "tubelet_rejected_requests_total", reason="OVERLOADED")
    refused = overloaded()

    async def events() -> list[object]:
        async with AsyncClient(small.target) as client:
            waiting = asyncio.create_task(collected(client))
            while await asyncio.to_thread(overloaded) < refused + 2:
                assert not waiting.done()
            full.send(None)
            return await waiting

    async def collected(client: AsyncClient) -> list[object]:
        return [event async for event in client.stream(panning_clip(1.0))]

    received = asyncio.run(events())
    assert isinstance(received[-1], Classification)
    assert any(isinstance(event, Segment) for event in received)


def test_retries_end_with_the_callers_timeout(small: Served, full: Upload) -> None:
    with Client(small.target) as client, pytest.raises(ServerError) as caught:
        client.classify(panning_clip(1.0), timeout_s=2.0)
    assert caught.value.reason in ("OVERLOADED", "")  # refused once more, or the timeout itself
    assert caught.value.code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("retries", [True, False])
def test_no_retry_for_open_files_or_when_switched_off(small: Served, full: Upload, retries: bool) -> None:
    video = BytesIO(panning_clip(1.0)) if retries else panning_clip(1.0)
    with Client(small.target, retries=retries) as client, pytest.raises(ServerError) as caught:
        client.classify(video)
    assert (caught.value.reason, caught.value.retry_after_s) == ("OVERLOADED", 0.2)
