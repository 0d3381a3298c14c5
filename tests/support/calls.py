"""Calls by gRPC's own stub, as a client in any language makes them, and the errors that they get."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.support.running_server import OPTIONS
from tubelet.service.wire.status import ServerError, from_rpc_error
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb


def refusal(call: Callable[[], Any]) -> ServerError:
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value, "server")


def message_of(clip: bytes) -> Iterator[pb.ClassifyRequest]:
    yield OPTIONS
    yield pb.ClassifyRequest(chunk=clip)


def options(**wanted: Any) -> Iterator[pb.ClassifyRequest]:
    yield pb.ClassifyRequest(options=classification_pb2.ClassifyOptions(**wanted))
