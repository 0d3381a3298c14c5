"""The Python client, blocking and for asyncio; it imports neither torch nor PyAV.

with Client("localhost:8500") as client:
    print(client.classify("clip.mp4").labels[0])
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import chain
from typing import Any, BinaryIO

import grpc

from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Progress, Segment
from tubelet.service.types.target import parse_target
from tubelet.service.types.tls import Tls
from tubelet.service.types.token import Token
from tubelet.service.types.uri import is_uri
from tubelet.service.types.video import VideoMetadata
from tubelet.service.wire.channel import choose_tls, choose_token, open_channel, to_metadata
from tubelet.service.wire.convert import (
    classification_from_proto,
    metadata_from_proto,
    options_to_proto,
    progress_from_proto,
    segment_from_proto,
)
from tubelet.service.wire.retry import Retries
from tubelet.service.wire.status import ServerError, from_rpc_error
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.model_pb2 import Model
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

__all__ = ["AsyncClient", "Client", "Options", "ServerError", "Tls", "Token", "Video"]

Video = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, a file open for reading, or a URI for the server to fetch (https://...)."""

Event = VideoMetadata | Progress | Segment | Classification

_DEFAULTS = Options()
_CHUNK_BYTES = 1 << 20


class Client:
    """A client whose calls block; threads may share it. Failed calls raise ServerError.

    ``target`` is HOST, HOST:PORT or [IPV6]:PORT; the default port is 8500. If the server asks for a retry,
    for example because it is overloaded, the video is sent again within ``timeout_s``, or without limit if
    that is None. A file that is open is never sent again. ``retries=False`` raises the first error instead.

    ``tls`` says whether and how to use TLS: ``Tls(ca="ca.pem")``, True for a server whose certificate is of a
    well-known authority, False for none. None is what ``TUBELET_CLIENT__TLS``, ``TUBELET_CLIENT__CA`` and the
    like in the environment say, or a target that begins with ``https://``. The files are read once.

    ``token`` says who calls: its text, or ``Token(file="alice.token")``. None is what the environment gives
    by ``TUBELET_CLIENT__TOKEN`` or ``TUBELET_CLIENT__TOKEN_FILE``.

    Raises:
        ValueError: ``target`` is no address, or ``token`` would cross a network without TLS.
        OSError: a file of ``tls`` cannot be read, or does not hold what it should.
    """

    def __init__(
        self,
        target: str,
        *,
        retries: bool = True,
        tls: Tls | bool | None = None,
        token: Token | str | None = None,
    ) -> None:
        self.target = parse_target(target)
        self.retries = retries
        self.tls = choose_tls(target, tls)
        self._token = choose_token(token)
        if self._token and self.tls is None:
            self._token.check_target(self.target)
        self._channel = open_channel(self.target, self.tls)
        self._stub = VideoClassifierStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def classify(
        self, video: Video, options: Options = _DEFAULTS, timeout_s: float | None = None
    ) -> Classification:
        """Upload ``video`` and wait for its classification, for at most ``timeout_s`` seconds."""
        retries = Retries(timeout_s)
        while True:
            try:
                requests = _requests(video, options)
                with _server_errors(self):
                    response = self._stub.Classify(requests, **self._call(retries.timeout_s))
                return classification_from_proto(response.classification)
            except ServerError as error:
                time.sleep(self._pause_s(video, retries, error))

    def stream(
        self, video: Video, options: Options = _DEFAULTS, timeout_s: float | None = None
    ) -> Iterator[Event]:
        """Upload a video; yield its metadata, segments and progress as they arrive, the classification last.

        A failed call is made again only while no event has arrived.
        """
        retries, has_begun = Retries(timeout_s), False
        while True:
            try:
                requests = _streaming_requests(video, options)
                with _server_errors(self):
                    for response in self._stub.ClassifyStreaming(requests, **self._call(retries.timeout_s)):
                        has_begun = True
                        yield _event_from_proto(response)
                return
            except ServerError as error:
                if has_begun:
                    raise
                time.sleep(self._pause_s(video, retries, error))

    def _call(self, timeout_s: float | None) -> dict[str, Any]:
        """Return a call's timeout, and the metadata with the token; raise BadToken if it cannot be read."""
        return {"timeout": timeout_s, "metadata": to_metadata(self._token)}

    def _pause_s(self, video: Video, retries: Retries, error: ServerError) -> float:
        """Return how many seconds to wait before ``video`` is sent again; raise ``error`` if it cannot be."""
        if not self.retries or not isinstance(video, str | bytes | os.PathLike):
            raise error  # an open file cannot be read a second time
        return retries.pause_s(error)

    def models(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """Return the models that the server has loaded, the default first."""
        with _server_errors(self):
            return tuple(self._stub.ListModels(pb.ListModelsRequest(), **self._call(timeout_s)).models)

    def models_not_loaded(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """Return the models that are installed on the server but not loaded."""
        with _server_errors(self):
            return tuple(self._stub.ListModels(pb.ListModelsRequest(), **self._call(timeout_s)).not_loaded)

    def model(self, name: str, version: str = "", timeout_s: float | None = None) -> Model:
        """Return a loaded model by NAME or NAME:VERSION; without a version, the default's or the newest."""
        with _server_errors(self):
            request = pb.GetModelRequest(name=name, version=version)
            return self._stub.GetModel(request, **self._call(timeout_s)).model


class AsyncClient:
    """A client for asyncio, with the calls of ``Client``.

    It uses a blocking channel in threads, since grpc.aio may lose the status of a server that answers before
    the upload is complete, as ours does when it rejects one (grpc/grpc issue 36066).
    """

    def __init__(
        self,
        target: str,
        *,
        retries: bool = True,
        tls: Tls | bool | None = None,
        token: Token | str | None = None,
    ) -> None:
        self._client = Client(target, retries=retries, tls=tls, token=token)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._client.__exit__(*exc)

    async def classify(
        self, video: Video, options: Options = _DEFAULTS, timeout_s: float | None = None
    ) -> Classification:
        """Upload ``video`` and wait for its classification, for at most ``timeout_s`` seconds."""
        retries = Retries(timeout_s)
        while True:
            try:
                requests = _requests(video, options)
                with _server_errors(self._client):
                    how = self._client._call(retries.timeout_s)
                    call = self._client._stub.Classify.future(requests, **how)
                    response = await _ended(call)
                return classification_from_proto(response.classification)
            except ServerError as error:
                await asyncio.sleep(self._client._pause_s(video, retries, error))

    async def stream(
        self, video: Video, options: Options = _DEFAULTS, timeout_s: float | None = None
    ) -> AsyncIterator[Event]:
        """Upload a video; yield its metadata, segments and progress as they arrive, the classification last.

        A failed call is made again only while no event has arrived.
        """
        retries, has_begun = Retries(timeout_s), False
        while True:
            try:
                requests = _streaming_requests(video, options)
                with _server_errors(self._client):
                    how = self._client._call(retries.timeout_s)
                    call = self._client._stub.ClassifyStreaming(requests, **how)
                    try:
                        while (response := await asyncio.to_thread(next, call, None)) is not None:
                            has_begun = True
                            yield _event_from_proto(response)
                    finally:
                        call.cancel()
                return
            except ServerError as error:
                if has_begun:
                    raise
                await asyncio.sleep(self._client._pause_s(video, retries, error))

    async def models(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """Return the models that the server has loaded, the default first."""
        return await asyncio.to_thread(self._client.models, timeout_s)

    async def models_not_loaded(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """Return the models that are installed on the server but not loaded."""
        return await asyncio.to_thread(self._client.models_not_loaded, timeout_s)

    async def model(self, name: str, version: str = "", timeout_s: float | None = None) -> Model:
        """Return a loaded model by NAME or NAME:VERSION; without a version, the default's or the newest."""
        return await asyncio.to_thread(self._client.model, name, version, timeout_s)


async def _ended(call: Any) -> Any:
    """Wait for the result of a blocking channel's call; cancelling the wait cancels the call."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    call.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    try:
        await ended.wait()
    finally:
        call.cancel()
    return call.result()


@contextmanager
def _server_errors(client: Client) -> Iterator[None]:
    """Raise gRPC errors of calls of ``client`` as ServerError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, client.target, client.tls) from None


def _requests(video: Video, options: Options) -> Iterator[pb.ClassifyRequest]:
    """Return the messages of ``Classify``: the options, then the chunks of ``video``."""
    uri, chunks = read_video(video)
    head = pb.ClassifyRequest(options=options_to_proto(options, uri))
    return chain([head], (pb.ClassifyRequest(chunk=chunk) for chunk in chunks))


def _streaming_requests(video: Video, options: Options) -> Iterator[pb.ClassifyStreamingRequest]:
    """Return the messages of ``ClassifyStreaming``: the options, then the chunks of ``video``."""
    uri, chunks = read_video(video)
    head = pb.ClassifyStreamingRequest(options=options_to_proto(options, uri))
    return chain([head], (pb.ClassifyStreamingRequest(chunk=chunk) for chunk in chunks))


def read_video(video: Video) -> tuple[str, Iterator[bytes]]:
    """Return the URI of ``video``, or its chunks; the other one is empty.

    Raises:
        OSError: the file cannot be opened.
    """
    if isinstance(video, str) and is_uri(video):
        return video, iter(())
    return "", _chunks(video)


def _chunks(video: Video) -> Iterator[bytes]:
    """Return the chunks of ``video``. A path is opened here, so that the caller gets its errors.

    The iterator closes the file: gRPC reads it on a thread that may outlive the call for a moment.
    """
    match video:
        case bytes():
            return iter(partial(BytesIO(video).read, _CHUNK_BYTES), b"")
        case str() | os.PathLike():
            return _chunks_of_file(open(video, "rb"))
        case _:
            return iter(partial(video.read, _CHUNK_BYTES), b"")


def _chunks_of_file(file: BinaryIO) -> Iterator[bytes]:
    """Yield the chunks of ``file``, and close it."""
    with file:
        yield from iter(partial(file.read, _CHUNK_BYTES), b"")


def _event_from_proto(response: pb.ClassifyStreamingResponse) -> Event:
    """Convert a message of ``ClassifyStreaming`` to its event.

    Raises:
        ValueError: the message has an event of an unknown kind.
    """
    match response.WhichOneof("event"):
        case "video":
            return metadata_from_proto(response.video)
        case "progress":
            return progress_from_proto(response.progress)
        case "segment":
            return segment_from_proto(response.segment)
        case "classification":
            return classification_from_proto(response.classification)
        case unknown:
            raise ValueError(
                f"the server sent an event of an unknown kind: {unknown}; the client may be too old"
            )
