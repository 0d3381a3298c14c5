"""Chunks are taken out of their messages as protobuf would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.chunk import chunk_of, chunk_or
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.classification_pb2 import ClassifyOptions

MESSAGES = (pb.ClassifyRequest, pb.ClassifyStreamingRequest)
CHUNK = b"\x12\x03abc"


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_a_chunk_is_found_without_a_copy(
    message: type[pb.ClassifyRequest | pb.ClassifyStreamingRequest], size: int
) -> None:
    sent = message(chunk=bytes(range(256)) * (size // 256) + bytes(size % 256)).SerializeToString()
    found = chunk_of(sent)
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
def test_whatever_else_is_parsed(sent: bytes) -> None:
    assert chunk_of(sent) is None
    assert chunk_or(len)(sent) == len(sent)


@given(st.one_of(st.binary(), st.binary().map(lambda rest: b"\x12" + rest)))
def test_any_bytes_are_read_as_protobuf_reads_them(sent: bytes) -> None:
    found = chunk_of(sent)
    if found is not None:
        assert pb.ClassifyRequest.FromString(sent) == pb.ClassifyRequest(chunk=bytes(found))
