"""The ways to ask a server about a clip, and the outcome of each as plain values."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from tests.bench.golden.servers import Server
from tubelet.v1 import classification_pb2 as pb
from tubelet.v1 import video_classifier_pb2 as rpc

CHUNK_BYTES = 256 << 10

Outcome = dict[str, Any]


def upload(server: Server, clip: Path, options: pb.ClassifyOptions) -> Outcome:
    """Return the one answer to an upload, or its error."""

    def messages() -> Iterator[rpc.ClassifyRequest]:
        yield rpc.ClassifyRequest(options=options)
        yield from (rpc.ClassifyRequest(chunk=chunk) for chunk in chunks_of(clip))

    return outcome_of(
        lambda: {"answer": _plain(server.stub.Classify(messages(), timeout=300).classification)}
    )


def stream(server: Server, clip: Path, options: pb.ClassifyOptions) -> Outcome:
    """Return the events of a streamed upload in their order, progress left out, or the error at its end."""
    return streamed(server, options, chunks_of(clip))


def by_uri(server: Server, clip: Path, options: pb.ClassifyOptions) -> Outcome:
    """Return the events for a clip that the server reads by itself."""
    asked = pb.ClassifyOptions()
    asked.CopyFrom(options)
    asked.uri = clip.resolve().as_uri()
    return streamed(server, asked, ())


def streamed(
    server: Server, options: pb.ClassifyOptions, chunks: Iterable[bytes], timeout_s: float = 300
) -> Outcome:
    def events() -> Outcome:
        received: list[dict[str, Any]] = []
        for event in server.stub.ClassifyStreaming(streaming_messages(options, chunks), timeout=timeout_s):
            kind = event.WhichOneof("event")
            if kind == "video":  # as much as a header says, or more where more has come by then
                received.append({kind: {}})
            elif kind != "progress":
                received.append({kind: _plain(getattr(event, kind))})
        return {"events": received}

    return outcome_of(events)


def streaming_messages(
    options: pb.ClassifyOptions, chunks: Iterable[bytes]
) -> Iterator[rpc.ClassifyStreamingRequest]:
    yield rpc.ClassifyStreamingRequest(options=options)
    for chunk in chunks:
        yield rpc.ClassifyStreamingRequest(chunk=chunk)


def outcome_of(call: Callable[[], Outcome]) -> Outcome:
    try:
        return call()
    except grpc.RpcError as error:
        call_error: Any = error  # a grpc.Call, too
        status, reason = rpc_status.from_call(call_error), ""
        for detail in status.details if status else ():
            info = ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
        return {"code": call_error.code().name, "reason": reason, "message": call_error.details()}


def _plain(message: Any) -> dict[str, Any]:
    content = MessageToDict(message, preserving_proto_field_name=True)
    content.pop("stage_seconds", None)
    return content


def chunks_of(clip: Path) -> Iterator[bytes]:
    with clip.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
