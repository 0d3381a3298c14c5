"""Classification of videos by a server or by a pipeline in this process, several at a time."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from shlex import quote
from typing import Any, BinaryIO

from tubelet.service.cli.runs.video_sources import STANDARD_INPUT
from tubelet.service.client import AsyncClient, ServerError
from tubelet.service.config.config import Config, FetchConfig
from tubelet.service.engine.daemon_threads import run_in_daemon_thread
from tubelet.service.errors import TubeletError, Unauthenticated, UnknownModel, UriNotAllowed
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import Options
from tubelet.service.types.result import Activation, Classification, Emit, Event
from tubelet.service.types.tls import Tls
from tubelet.service.types.token import BadToken, Token
from tubelet.service.types.uri import Uri, is_covered, is_uri, parse_prefix
from tubelet.service.wire.answer import activation_from_proto
from tubelet.service.wire.connection_failure import SERVER_UNREACHABLE
from tubelet.service.wire.retry import Retries

ClassifyVideo = Callable[[str, Options, Emit], Awaitable[Classification]]
"""Classifies a video, given by its path, its URI or ``STANDARD_INPUT``; events go to ``Emit``."""

_CHUNK_BYTES = 1 << 20
_MAX_QUEUED = 100  # events and answers that the consumer has not taken yet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a video that could not be classified; ``request_id`` is empty if no server answered."""

    code: str
    reason: str
    message: str
    request_id: str = ""


Answer = Classification | Failure


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of a video: its classification starts."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The properties of a model that are needed to interpret its answers.

    ``fingerprint`` is empty if the server has not loaded the model.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    activation: Activation
    fingerprint: str


@asynccontextmanager
async def open_remote(
    target: str, tls: Tls | bool | None = None, token: Token | None = None
) -> AsyncIterator[ClassifyVideo]:
    """Open a connection to a server, and yield a function that classifies a video there.

    ``tls`` and ``token`` are as for ``Client``.

    A video that the server has no room for is retried whenever the server says, until it is accepted.
    """
    # The client itself would not retry after the first event; here, events of a retry come again.
    async with AsyncClient(target, retries=False, tls=tls, token=token) as client:

        async def classify_video(video: str, options: Options, emit: Emit) -> Classification:
            """Classify a video; call again as long as the server asks for it."""
            retries = Retries()
            while True:
                try:
                    return await classify_once(video, options, emit)
                except ServerError as error:
                    if video == STANDARD_INPUT:  # it cannot be read again
                        raise
                    await asyncio.sleep(retries.pause_s(error))

        async def classify_once(video: str, options: Options, emit: Emit) -> Classification:
            """Classify a video in one call."""
            answer = None
            # Read to its end: on the server, a stream that is left after the answer counts as cancelled.
            upload = _standard_input() if video == STANDARD_INPUT else video
            async for event in client.stream(upload, options):
                if isinstance(event, Classification):
                    answer = event
                else:
                    await emit(event)
            if answer is None:
                raise ServerError("INTERNAL", "", "the server ended the stream without a classification", {})
            return answer

        yield classify_video


@asynccontextmanager
async def open_local(config: Config, model: str = "", version: str = "") -> AsyncIterator[ClassifyVideo]:
    """Start a pipeline with one model in this process, and yield a function that classifies a video.

    An empty ``model`` is the default one. If there is no such model, each video is rejected, as by a server.
    """
    # Imported late: a client of a server needs neither torch nor the models.
    from tubelet.service.server.local import LocalPipeline, parse_uri_option

    async with LocalPipeline(config) as pipeline:
        with suppress(UnknownModel):  # each video will say so
            await pipeline.load(model, version)

        async def classify_video(video: str, options: Options, emit: Emit) -> Classification:
            """Classify a video by the pipeline in this process."""
            if video == STANDARD_INPUT:
                return await pipeline.classify(_pipe_chunks(_standard_input()), options, emit)
            if is_uri(video):
                uri = parse_uri_option(video)
                _check_uri_is_allowed(uri, config.fetch)
                return await pipeline.classify(uri, options, emit)
            with _open_file(video) as file:
                return await pipeline.classify(file_chunks(file), options, emit)

        yield classify_video


def open_classifier(
    server: str | None, config: Config, options: Options
) -> AbstractAsyncContextManager[ClassifyVideo]:
    """Open a connection to the server, or a pipeline in this process; yield the function that classifies."""
    if server:
        return open_remote(server, config.client.chosen, config.client.chosen_token)
    return open_local(config, options.model, options.version)


async def find_model(server: str | None, config: Config, name: str, version: str) -> ModelInfo:
    """Return the model that answers requests for ``name`` and ``version``; either may be empty.

    Raises:
        tubelet.service.client.ServerError: the server does not answer, or has no such model.
        tubelet.models.errors.UnknownModel: the store has no such model.
    """
    if server:
        async with AsyncClient(server, tls=config.client.chosen, token=config.client.chosen_token) as client:
            model = await client.model(name, version)
            activation = activation_from_proto(model.activation)
            return ModelInfo(model.name, model.version, tuple(model.labels), activation, model.fingerprint)
    from tubelet.models.repository.repository import ZOO, ModelStore

    wanted = ModelRef.parse(name, version).or_default(config.models.default_ref)
    entry = ModelStore(ZOO, config.models.store).find(wanted.name, wanted.version)
    spec = entry.spec
    return ModelInfo(spec.name, spec.version, spec.labels, Activation(spec.activation), entry.fingerprint)


async def run_as_completed(
    classify_video: ClassifyVideo, videos: Sequence[tuple[str, Options]], jobs: int
) -> AsyncGenerator[tuple[int, Started | Event | Answer], None]:
    """Classify ``videos``, ``jobs`` at a time; yield items, each with the index of its video.

    Each video has options of its own. A video's items are ``Started``, its events and its answer; answers
    come as they are ready. If a video is retried, its metadata comes again. One failure does not stop other
    videos. A slow consumer slows the videos down.

    Raises:
        ServerError, BadToken: no server answers any more, or lets us in; answers until then were yielded.
    """
    items: asyncio.Queue[tuple[int, Started | Event | Answer | Exception]] = asyncio.Queue(_MAX_QUEUED)

    async def classify(number: int) -> None:
        """Put a video's items into the queue; an unexpected error is its last item."""

        async def forward(event: Event) -> None:
            """Put an event of the video into the queue."""
            await items.put((number, event))

        await items.put((number, Started()))
        try:
            await items.put((number, await _classify_one(classify_video, *videos[number], forward)))
        except Exception as error:
            await items.put((number, error))

    waiting = iter(range(len(videos)))
    running = {number: asyncio.create_task(classify(number)) for number in islice(waiting, jobs)}
    try:
        while running:
            number, item = await items.get()
            if isinstance(item, Exception):
                for answered in _answers_queued(items):
                    yield answered
                raise item
            if isinstance(item, Classification | Failure):
                del running[number]
                running |= {next_: asyncio.create_task(classify(next_)) for next_ in islice(waiting, 1)}
            yield number, item
    finally:
        await _cancel(running.values())


def _answers_queued(items: asyncio.Queue[tuple[int, Any]]) -> Iterator[tuple[int, Answer]]:
    """Take all items out of the queue and yield the answers among them."""
    while not items.empty():
        number, item = items.get_nowait()
        if isinstance(item, Classification | Failure):
            yield number, item


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _classify_one(classify_video: ClassifyVideo, video: str, options: Options, emit: Emit) -> Answer:
    """Classify a video; an error that concerns only this video becomes a Failure.

    Raises:
        ServerError, BadToken: no server answers, or lets us in, so that other videos would fail, too.
    """
    try:
        return await classify_video(video, options, emit)
    except TubeletError as error:
        return Failure(error.code.name, error.reason, error.message)
    except ServerError as error:
        if error.reason in (SERVER_UNREACHABLE, Unauthenticated.reason):
            raise
        return Failure(error.code, error.reason, error.message, error.request_id)
    except OSError as error:
        return Failure("INVALID_ARGUMENT", "FILE_NOT_READABLE", error.strerror or str(error))
    except BadToken:
        raise
    except Exception as error:  # a fault of ours concerns this video alone
        logger.exception("cannot classify %s", video)
        return Failure("INTERNAL", "INTERNAL", f"unexpected {type(error).__name__}: {error}")


def _check_uri_is_allowed(uri: Uri, config: FetchConfig) -> None:
    """Check that ``fetch.allow`` covers the URI.

    Raises:
        UriNotAllowed: it does not; the message has a command to paste that allows it.
    """
    if is_covered(uri, map(parse_prefix, config.allow)):
        return
    folder = f"{uri.path.rpartition('/')[0]}/" if uri.scheme == "file" else "/"
    allow = quote(json.dumps([*config.allow, f"{uri.scheme}://{uri.authority}{folder}"]))
    command = f"TUBELET_FETCH__ALLOW={allow} tubelet classify {quote(uri.url)}"
    raise UriNotAllowed(f"fetch.allow does not cover this URI; to allow it: {command}", field="uri")


def _open_file(path: str) -> BinaryIO:
    """Open a video file for reading."""
    return open(path, "rb")


def _standard_input() -> BinaryIO:
    """Open standard input unbuffered: a buffer's lock, held by a waiting thread, would block the exit."""
    return open(0, "rb", buffering=0, closefd=False)


async def _pipe_chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    """Yield chunks of a pipe; each is read on a thread, since it may have to be waited for."""
    while chunk := await run_in_daemon_thread(partial(file.read, _CHUNK_BYTES)):
        yield chunk


async def file_chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    """Yield chunks of a regular file."""
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
