"""One way to ask for a classification, whether a server answers or this process does."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from shlex import quote
from typing import Any, BinaryIO

from tubelet.service.cli.runs.video_sources import STANDARD_INPUT
from tubelet.service.client import AsyncClient, ServerError
from tubelet.service.config.config import Config, FetchConfig
from tubelet.service.engine.daemon_threads import in_own_thread
from tubelet.service.errors import MalformedOption, TubeletError, UnknownModel, UriNotAllowed
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import Options
from tubelet.service.types.result import Activation, Classification, Progress, Segment
from tubelet.service.types.uri import Uri, is_covered, is_uri, parse_prefix, parse_uri
from tubelet.service.types.video import VideoMetadata
from tubelet.service.wire.convert import activation_from_proto
from tubelet.service.wire.retry import Retries
from tubelet.service.wire.status import SERVER_UNREACHABLE

Event = VideoMetadata | Progress | Segment
Emit = Callable[[Event], Awaitable[None]]
Ask = Callable[[str, Options, Emit], Awaitable[Classification]]
"""Of a video by its path, its URI or ``STANDARD_INPUT``."""

_CHUNK_BYTES = 1 << 20
_MAX_QUEUED = 100  # events and answers that wait to be consumed


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a video has no classification, wherever it failed."""

    code: str
    reason: str
    message: str


Answer = Classification | Failure


@dataclass(frozen=True, slots=True)
class Begun:
    """The first event of a video: it is being classified from now on."""


@dataclass(frozen=True, slots=True)
class AskedModel:
    """What must be known of a model to judge its answers."""

    name: str
    version: str
    labels: tuple[str, ...]
    activation: Activation


@asynccontextmanager
async def asking_server(target: str) -> AsyncIterator[Ask]:
    """Ask a server; where it has no room, a video is asked for again when it says so, until it has."""
    async with AsyncClient(target, retries=False) as client:  # also after the first events, which come again

        async def ask(video: str, options: Options, emit: Emit) -> Classification:
            retries = Retries()
            while True:
                try:
                    return await ask_once(video, options, emit)
                except ServerError as error:
                    if video == STANDARD_INPUT:  # what was read of it cannot be read again
                        raise
                    await asyncio.sleep(retries.pause_s(error))

        async def ask_once(video: str, options: Options, emit: Emit) -> Classification:
            answer = None
            # To its end: a stream that is left after the answer counts as cancelled on the server.
            upload = _standard_input() if video == STANDARD_INPUT else video
            async for event in client.stream(upload, options):
                if isinstance(event, Classification):
                    answer = event
                else:
                    await emit(event)
            if answer is None:
                raise ServerError("INTERNAL", "", "the server ended the stream without a classification", {})
            return answer

        yield ask


@asynccontextmanager
async def asking_here(config: Config, model: str = "", version: str = "") -> AsyncIterator[Ask]:
    """The same pipeline in this process, without gRPC, with one model: the default if none is named.

    Where there is no such model, each video is refused, as a server does it.
    """
    # Imported late: a client of a server needs neither torch nor the models.
    from tubelet.models.repository.repository import UnknownModel as NotInStore
    from tubelet.service.metrics import Metrics
    from tubelet.service.server.app import open_stages

    wanted = ModelRef.parse(model, version).or_default(config.models.default_ref)
    only = config.models.model_copy(update={"default": str(wanted), "load": (str(wanted),)})
    async with AsyncExitStack() as stack:
        stages, absent = None, ""
        opening = open_stages(config.model_copy(update={"models": only}), Metrics())
        try:
            stages = await stack.enter_async_context(opening)
        except NotInStore as error:
            absent = str(error)

        async def ask(video: str, options: Options, emit: Emit) -> Classification:
            if stages is None:
                raise UnknownModel(absent, field="model", value=str(wanted))
            pipeline = stages.pipeline
            if video == STANDARD_INPUT:
                return await pipeline.classify(_arriving_chunks(_standard_input()), options, emit)
            if is_uri(video):
                uri = _uri(video)
                _check_allowed(uri, config.fetch)
                return await pipeline.classify(uri, options, emit)
            # Opened here: a file that cannot be read is the asker's trouble, not the pipeline's.
            with _opened(video) as file:
                return await pipeline.classify(_chunks(file), options, emit)

        yield ask


async def find_model(server: str | None, config: Config, name: str, version: str) -> AskedModel:
    """The model that a request for this name and version is answered by; both may be empty.

    Raises:
        tubelet.service.client.ServerError: the server cannot be asked, or has no such model.
        tubelet.models.repository.repository.UnknownModel: the store has none.
    """
    if server:
        async with AsyncClient(server) as client:
            model = await client.model(name, version)
            activation = activation_from_proto(model.activation)
            return AskedModel(model.name, model.version, tuple(model.labels), activation)
    from tubelet.models.repository.repository import ZOO, ModelStore

    wanted = ModelRef.parse(name, version).or_default(config.models.default_ref)
    spec = ModelStore(ZOO, config.models.store).find(wanted.name, wanted.version).spec
    return AskedModel(spec.name, spec.version, spec.labels, Activation(spec.activation))


async def ask_each(
    ask: Ask, videos: Sequence[str], options: Options, at_once: int
) -> AsyncGenerator[tuple[int, Begun | Event | Answer], None]:
    """Classify ``videos``, ``at_once`` of them at a time; each item has the index of its video.

    A video's items are ``Begun``, events and its answer; answers come in the order of ending. If a video is
    asked for once more, its metadata comes again. One failure stops no other video. A slow consumer slows the
    videos down.

    Raises:
        ServerError: no server answers any more; what was answered until then came first.
    """
    items: asyncio.Queue[tuple[int, Begun | Event | Answer | Exception]] = asyncio.Queue(_MAX_QUEUED)

    async def classify(number: int) -> None:
        async def forward(event: Event) -> None:
            await items.put((number, event))

        await items.put((number, Begun()))
        try:
            await items.put((number, await _ask_one(ask, videos[number], options, forward)))
        except Exception as error:
            await items.put((number, error))

    waiting = iter(range(len(videos)))
    running = {number: asyncio.create_task(classify(number)) for number in islice(waiting, at_once)}
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
    while not items.empty():
        number, item = items.get_nowait()
        if isinstance(item, Classification | Failure):
            yield number, item


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what still runs, and wait for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_one(ask: Ask, video: str, options: Options, emit: Emit) -> Answer:
    """Ask for a video.

    Raises:
        ServerError: no server answers, so that it makes no sense to ask for other videos.
    """
    try:
        return await ask(video, options, emit)
    except TubeletError as error:
        return Failure(error.code.name, error.reason, error.message)
    except ServerError as error:
        if error.reason == SERVER_UNREACHABLE:
            raise
        return Failure(error.code, error.reason, error.message)
    except OSError as error:
        return Failure("INVALID_ARGUMENT", "FILE_NOT_READABLE", error.strerror or str(error))


def _uri(video: str) -> Uri:
    try:
        return parse_uri(video)
    except ValueError as error:
        raise MalformedOption(str(error), field="uri") from None


def _check_allowed(uri: Uri, config: FetchConfig) -> None:
    """
    Raises:
        UriNotAllowed: it says how to allow the URI, with a command to paste.
    """
    if is_covered(uri, map(parse_prefix, config.allow)):
        return
    folder = f"{uri.path.rpartition('/')[0]}/" if uri.scheme == "file" else "/"
    allow = quote(json.dumps([*config.allow, f"{uri.scheme}://{uri.authority}{folder}"]))
    command = f"TUBELET_FETCH__ALLOW={allow} tubelet classify {quote(uri.url)}"
    raise UriNotAllowed(f"fetch.allow does not list this place; to allow it: {command}", field="uri")


def _opened(path: str) -> BinaryIO:
    return open(path, "rb")


def _standard_input() -> BinaryIO:
    """Standard input without a buffer, whose lock a thread that waits for input would hold at the end."""
    return open(0, "rb", buffering=0, closefd=False)


async def _arriving_chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await in_own_thread(partial(file.read, _CHUNK_BYTES)):
        yield chunk


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
