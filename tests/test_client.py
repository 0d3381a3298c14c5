"""The Python clients against a real server."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import grpc
import pytest

from tests.support.running_server import Served, wait_until
from tests.support.sample_clip import panning_clip
from tubelet.service.client import AsyncClient, Client, ServerError
from tubelet.service.rpc.servicer import SERVICE
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Segment


async def test_asyncio_client_gives_the_answers_of_the_blocking_one(served: Served, client: Client) -> None:
    clip = panning_clip(2.0)
    async with AsyncClient(served.target) as other:
        answer = await other.classify(clip)
        events = [event async for event in other.stream(clip)]
        assert await other.models() == client.models()
        assert await other.model("camera-motion") == client.model("camera-motion")
        with pytest.raises(ServerError, match="UNKNOWN_MODEL"):
            await other.model("nobody")
    again = client.classify(clip)
    assert answer.metadata == again.metadata
    assert [segment.end_ns for segment in answer.segments] == [segment.end_ns for segment in again.segments]
    assert isinstance(events[-1], Classification)
    assert events[-1].segments == tuple(event for event in events if isinstance(event, Segment))


def test_video_may_be_a_path_bytes_or_a_file(client: Client, tmp_path: Path) -> None:
    clip = panning_clip(1.0)
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    with path.open("rb") as file:
        metadata = [client.classify(video).metadata for video in (path, str(path), clip, BytesIO(clip), file)]
    assert len(set(metadata)) == 1
    with pytest.raises(FileNotFoundError):
        client.classify(tmp_path / "nothing.mp4")


def test_errors_carry_the_limit_and_the_value(client: Client) -> None:
    with pytest.raises(ServerError) as caught:
        client.classify(bytes(40_000_001))
    assert caught.value.metadata["limit"] == "40000000"
    assert str(caught.value).startswith("RESOURCE_EXHAUSTED UPLOAD_TOO_LARGE: ")


async def test_rejection_during_the_upload_keeps_its_reason(served: Served, client: Client) -> None:
    """The server answers while the client is still writing the body."""
    large = bytes(30_000_000)
    unknown = Options(model="nobody")
    async with AsyncClient(served.target) as other:
        for _ in range(5):
            with pytest.raises(ServerError, match="UNKNOWN_MODEL"):
                await other.classify(large, unknown)
            with pytest.raises(ServerError, match="UNKNOWN_MODEL"):
                _ = [event async for event in other.stream(large, unknown)]
            with pytest.raises(ServerError, match="UNKNOWN_MODEL"):
                client.classify(large, unknown)


async def test_cancelling_the_wait_cancels_the_call(served: Served) -> None:
    before = served.metric("tubelet_requests_total", code="CANCELLED")

    class Slow(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            first_read.set()
            rest.wait()
            return b""

    first_read, rest = threading.Event(), threading.Event()
    async with AsyncClient(served.target) as other:
        waiting = asyncio.create_task(other.classify(Slow()))
        await asyncio.to_thread(first_read.wait)
        wait_until(served, "tubelet_videos_in_flight", 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        wait_until(served, "tubelet_requests_total", before + 1, code="CANCELLED")
        rest.set()


async def test_streams_that_wait_take_no_thread_of_the_default_executor(served: Served) -> None:
    """Here it has a single one, and the program needs it."""

    class Silent(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            rest.wait()
            return b""

    async def read(client: AsyncClient) -> None:
        with pytest.raises(ServerError, match="EMPTY_UPLOAD"):
            _ = [event async for event in client.stream(Silent())]

    rest = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with AsyncClient(served.target) as other:
        reading = [asyncio.create_task(read(other)) for _ in range(3)]
        await asyncio.sleep(0)  # all three wait for their first events now
        try:
            assert await asyncio.wait_for(other.models(), 60)
        finally:
            rest.set()
        await asyncio.gather(*reading)


@pytest.mark.parametrize(("code", "shows"), [("INTERNAL", True), ("UNAVAILABLE", False)])
def test_an_internal_error_shows_the_request_id(code: str, shows: bool) -> None:
    """Whoever reads it is to quote the id."""

    def fail(_: bytes, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("x-request-id", "abc-1"),))
        context.abort(grpc.StatusCode[code], "it broke")

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"ListModels": grpc.unary_unary_rpc_method_handler(fail)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(ServerError) as caught:
        client.models()
    server.stop(None)
    assert caught.value.request_id == "abc-1"
    assert ("it broke (request id abc-1)" in str(caught.value)) == shows


def test_client_imports_neither_torch_nor_pyav() -> None:
    code = (
        "import sys, tubelet.service.client; print(*sys.modules.keys() & {'av', 'torch', 'tubelet.models'})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert said.stdout.split() == []
