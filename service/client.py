"""The Python client, blocking and for asyncio; it imports neither torch nor PyAV.

with Client("localhost:8500") as client:
    print(client.classify("clip.mp4").labels[0])
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Any

import grpc

from tubelet.service.types.explanation import ExplainedVideo, ExplainOptions
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification
from tubelet.service.types.target import parse_target
from tubelet.service.types.tls import Tls
from tubelet.service.types.token import Token
from tubelet.service.wire.answer import classification_from_proto
from tubelet.service.wire.channel import choose_tls, choose_token, open_channel, to_metadata
from tubelet.service.wire.events import Event, event_from_proto, with_embeddings
from tubelet.service.wire.explanation import explain_event_from_proto, explained_video
from tubelet.service.wire.retry import Retries
from tubelet.service.wire.status import ServerError, from_rpc_error
from tubelet.service.wire.upload import Video, explain_requests, requests, streaming_requests
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.model_pb2 import Model
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

__all__ = ["AsyncClient", "Client", "Options", "ServerError", "Tls", "Token", "Video"]

_DEFAULTS = Options()
_RELEVANCE = ExplainOptions()
_MAX_STREAMS = 1000  # of one client for asyncio at a time; each has a thread, and further ones wait


class Client:
    """A client whose calls block; threads may share it. Failed calls raise ServerError.

    ``target`` is HOST, HOST:PORT or [IPV6]:PORT; the default port is 8500. If the server asks for a retry,
    for example because it is overloaded, the video is sent again within ``timeout_s``, or without limit if
    that is None; but then a quota is waited for no longer than a minute. A file that is open is never sent
    again. ``retries=False`` raises the first error instead.

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
        """Upload ``video`` and wait for its classification, for at most ``timeout_s`` seconds.

        With ``options.embeddings``, the vectors are streamed, since one message could not hold those of a
        long video.
        """
        retries = Retries(timeout_s)
        while True:
            try:
                if options.embeddings is not None:
                    return with_embeddings([*self._events(video, options, retries.timeout_s)])
                messages = requests(video, options)
                with _server_errors(self):
                    response = self._stub.Classify(messages, **self._call(retries.timeout_s))
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
                for event in self._events(video, options, retries.timeout_s):
                    has_begun = True
                    yield event
                return
            except ServerError as error:
                if has_begun:
                    raise
                time.sleep(self._pause_s(video, retries, error))

    def explain(
        self,
        video: Video,
        asked: ExplainOptions = _RELEVANCE,
        options: Options = _DEFAULTS,
        timeout_s: float | None = None,
    ) -> ExplainedVideo:
        """Upload ``video`` and wait for maps of what the model looked at, for at most ``timeout_s`` seconds.

        ``options`` decide which segments there are. A busy server explains last of all.
        """
        retries = Retries(timeout_s)
        while True:
            try:
                messages = explain_requests(video, asked, options)
                with _server_errors(self):
                    call = self._stub.Explain(messages, **self._call(retries.timeout_s))
                    return explained_video([explain_event_from_proto(response) for response in call])
            except ServerError as error:
                time.sleep(self._pause_s(video, retries, error))

    def _events(self, video: Video, options: Options, timeout_s: float | None) -> Iterator[Event]:
        """Make one streaming call, and yield its events."""
        messages = streaming_requests(video, options)
        with _server_errors(self):
            for response in self._stub.ClassifyStreaming(messages, **self._call(timeout_s)):
                yield event_from_proto(response)

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
    the upload is complete, as ours does when it rejects one (grpc/grpc issue 36066). Streams have threads of
    their own: a server may be silent for minutes, and the default executor has but a few threads.
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
        self._threads = ThreadPoolExecutor(_MAX_STREAMS, "tubelet-stream")

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._client.__exit__(*exc)
        self._threads.shutdown(wait=False)

    async def classify(
        self, video: Video, options: Options = _DEFAULTS, timeout_s: float | None = None
    ) -> Classification:
        """Upload ``video`` and wait for its classification, for at most ``timeout_s`` seconds.

        With ``options.embeddings``, the vectors are streamed, as by ``Client``.
        """
        retries = Retries(timeout_s)
        while True:
            try:
                if options.embeddings is not None:
                    events = self._events(video, options, retries.timeout_s)
                    return with_embeddings([event async for event in events])
                messages = requests(video, options)
                with _server_errors(self._client):
                    how = self._client._call(retries.timeout_s)
                    call = self._client._stub.Classify.future(messages, **how)
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
                async with aclosing(self._events(video, options, retries.timeout_s)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                return
            except ServerError as error:
                if has_begun:
                    raise
                await asyncio.sleep(self._client._pause_s(video, retries, error))

    async def explain(
        self,
        video: Video,
        asked: ExplainOptions = _RELEVANCE,
        options: Options = _DEFAULTS,
        timeout_s: float | None = None,
    ) -> ExplainedVideo:
        """Upload ``video`` and wait for maps of what the model looked at, as ``Client`` does."""
        retries = Retries(timeout_s)
        while True:
            try:
                messages = explain_requests(video, asked, options)
                with _server_errors(self._client):
                    call = self._client._stub.Explain(messages, **self._client._call(retries.timeout_s))
                    async with aclosing(_responses(call, self._threads)) as responses:
                        return explained_video([explain_event_from_proto(each) async for each in responses])
            except ServerError as error:
                await asyncio.sleep(self._client._pause_s(video, retries, error))

    async def _events(
        self, video: Video, options: Options, timeout_s: float | None
    ) -> AsyncGenerator[Event, None]:
        """Make one streaming call, and yield its events."""
        messages = streaming_requests(video, options)
        with _server_errors(self._client):
            call = self._client._stub.ClassifyStreaming(messages, **self._client._call(timeout_s))
            async with aclosing(_responses(call, self._threads)) as responses:
                async for response in responses:
                    yield event_from_proto(response)

    async def models(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """Return the models that the server has loaded, the default first."""
        return await asyncio.to_thread(self._client.models, timeout_s)

    async def models_not_loaded(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """Return the models that are installed on the server but not loaded."""
        return await asyncio.to_thread(self._client.models_not_loaded, timeout_s)

    async def model(self, name: str, version: str = "", timeout_s: float | None = None) -> Model:
        """Return a loaded model by NAME or NAME:VERSION; without a version, the default's or the newest."""
        return await asyncio.to_thread(self._client.model, name, version, timeout_s)


async def _responses(call: Any, threads: ThreadPoolExecutor) -> AsyncGenerator[Any, None]:
    """Yield the messages of a blocking channel's call, read on ``threads``; the end cancels the call."""
    loop = asyncio.get_running_loop()
    try:
        while (response := await loop.run_in_executor(threads, next, call, None)) is not None:
            yield response
    finally:
        call.cancel()


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
