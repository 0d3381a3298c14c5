"""Chunks are read from their messages as protobuf reads them."""

from collections.abc import AsyncIterator

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.rpc.request_stream import chunk_payload, parse_unless_chunk
from tubelet.service.rpc.servicer import add_to
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.classification_pb2 import ClassifyOptions
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierServicer, VideoClassifierStub

MESSAGES = (pb.ClassifyRequest, pb.ClassifyStreamingRequest, pb.ExplainRequest)
CHUNK = b"\x12\x03abc"


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_a_chunk_is_found_without_a_copy(
    message: type[pb.ClassifyRequest | pb.ClassifyStreamingRequest | pb.ExplainRequest], size: int
) -> None:
    sent = message(chunk=bytes(range(256)) * (size // 256) + bytes(size % 256)).SerializeToString()
    found = chunk_payload(sent)
    assert isinstance(found, memoryview)
    assert found.obj is sent
    assert found == message.FromString(sent).chunk


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x12",
        b"\x12\x80",
        CHUNK[:-1],
        CHUNK + b"d",
        CHUNK + CHUNK,
        b"\x12" + b"\xff" * 10,
        pb.ClassifyRequest(options=ClassifyOptions(model="m")).SerializeToString(),
    ],
)
def test_other_messages_are_parsed_by_protobuf(sent: bytes) -> None:
    assert chunk_payload(sent) is None
    assert parse_unless_chunk(len)(sent) == len(sent)


@given(st.one_of(st.binary(), st.binary().map(lambda rest: b"\x12" + rest)))
def test_any_bytes_are_read_as_protobuf_reads_them(sent: bytes) -> None:
    found = chunk_payload(sent)
    if found is not None:
        assert pb.ClassifyRequest.FromString(sent) == pb.ClassifyRequest(chunk=bytes(found))


class Recorder(VideoClassifierServicer):
    """A servicer that records the requests it gets."""

    def __init__(self) -> None:
        self.found: list[object] = []

    async def Classify(  # noqa: N802
        self, request_iterator: AsyncIterator[object], context: object
    ) -> pb.ClassifyResponse:
        self.found += [message async for message in request_iterator]
        return pb.ClassifyResponse()

    async def ClassifyStreaming(  # noqa: N802
        self, request_iterator: AsyncIterator[object], context: object
    ) -> None:
        self.found += [message async for message in request_iterator]


@pytest.mark.parametrize(
    ("method", "message"), [("Classify", MESSAGES[0]), ("ClassifyStreaming", MESSAGES[1])]
)
async def test_server_gets_chunks_without_their_messages(
    method: str, message: type[pb.ClassifyRequest | pb.ClassifyStreamingRequest]
) -> None:
    server, recorder = grpc.aio.server(), Recorder()
    add_to(server, recorder)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sent = [message(options=ClassifyOptions(model="m")), message(chunk=b"abc"), message(chunk=b"")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = getattr(VideoClassifierStub(channel), method)(iter(sent))
        _ = [event async for event in call] if method == "ClassifyStreaming" else await call
    await server.stop(None)
    assert recorder.found == [sent[0], b"abc", b""]
    assert [type(found) for found in recorder.found] == [message, memoryview, memoryview]
