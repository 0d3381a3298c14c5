"""One way to ask for a classification, whether a server answers or this process does."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from shlex import quote
from typing import Any, BinaryIO

from service.client import AsyncClient, ServerError
from service.config import Config, FetchConfig
from service.errors import MalformedOption, StorageFull, TubeletError, UnknownModel, UriNotAllowed
from service.model_ref import ModelRef
from service.status import CONNECTION_LOST, SERVER_UNREACHABLE
from service.uri import Uri, is_covered, is_uri, parse_prefix, parse_uri
from service.values import Activation, Classification, Options, Progress, Segment, VideoFacts
from service.wire import activation_from_proto

Event = VideoFacts | Progress | Segment
Emit = Callable[[Event], Awaitable[None]]
Ask = Callable[[str, Options, Emit], Awaitable[Classification]]
"""Of a video by its path or its URI."""

_CHUNK_BYTES = 1 << 20
_MOST_TRIES = {CONNECTION_LOST: 2, StorageFull.reason: 3}  # of a video, by the reason that it failed for
_LATER = 1.5  # times as long, at most: those who were refused together do not come back together


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a video has no classification, wherever it failed."""

    code: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class AskedModel:
    """What must be known of a model to judge its answers."""

    name: str
    version: str
    labels: tuple[str, ...]
    activation: Activation


@asynccontextmanager
async def asking_server(target: str) -> AsyncIterator[Ask]:
    """Ask a server; where it has no room, a video is asked for again when it says so, until it has.

    After a lost connection a video is asked for once more, since the server may have been started anew; where
    the server's disk is full, twice, since the video may be larger than the disk.
    """
    async with AsyncClient(target) as client:

        async def ask(video: str, options: Options, emit: Emit) -> Classification:
            tries = Counter[str]()
            while True:
                try:
                    return await ask_once(video, options, emit)
                except ServerError as error:
                    tries[error.reason] += 1
                    most = _MOST_TRIES.get(error.reason)
                    is_hopeless = error.retry_after_s is None if most is None else tries[error.reason] >= most
                    if is_hopeless:
                        raise
                    await asyncio.sleep((error.retry_after_s or 0) * random.uniform(1, _LATER))

        async def ask_once(video: str, options: Options, emit: Emit) -> Classification:
            answer = None
            # To its end: a stream that is left after the answer counts as cancelled on the server.
            async for event in client.stream(video, options):
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
    from models.store import UnknownModel as NotInStore
    from service.metrics import Metrics
    from service.server import open_stages

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
        service.client.ServerError: the server cannot be asked, or has no such model.
        models.store.UnknownModel: the store has none.
    """
    if server:
        async with AsyncClient(server) as client:
            model = await client.model(name, version)
            activation = activation_from_proto(model.activation)
            return AskedModel(model.name, model.version, tuple(model.labels), activation)
    from models.store import ZOO, ModelStore

    wanted = ModelRef.parse(name, version).or_default(config.models.default_ref)
    spec = ModelStore(ZOO, config.models.store).find(wanted.name, wanted.version).spec
    return AskedModel(spec.name, spec.version, spec.labels, Activation(spec.activation))


async def ask_all(
    ask: Ask, videos: list[str], options: Options, at_once: int, emit: Callable[[int, Event], None]
) -> AsyncIterator[tuple[int, Classification | Failure]]:
    """Answer ``videos`` in their order, ``at_once`` of them at a time; one failure stops no other.

    Events and answers come with the index of their video.

    Raises:
        ServerError: no server answers any more; what was answered until then came first.
    """
    places = asyncio.Semaphore(at_once)

    async def answer(number: int) -> Classification | Failure:
        async def forward(event: Event) -> None:
            emit(number, event)

        async with places:
            return await _ask_one(ask, videos[number], options, forward)

    tasks = [asyncio.create_task(answer(number)) for number in range(len(videos))]
    waiting = enumerate(tasks)
    try:
        for number, task in waiting:
            yield number, await task
    except ServerError:
        for number, task in waiting:
            if task.done() and task.exception() is None:
                yield number, task.result()
        raise
    finally:
        await _cancel(tasks)


async def ask_each(
    ask: Ask, videos: Sequence[str], options: Options, at_once: int
) -> AsyncIterator[tuple[int, Classification | Failure]]:
    """Answers as they come, with the video's place in ``videos``: none waits for another one's.

    No more than ``at_once`` are held, however many videos there are.

    Raises:
        ServerError: no server answers any more; what was answered until then came first.
    """

    async def ignore(_: Event) -> None:
        pass

    async def answer(number: int) -> tuple[int, Classification | Failure]:
        return number, await _ask_one(ask, videos[number], options, ignore)

    waiting = iter(range(len(videos)))
    running: set[asyncio.Task[tuple[int, Classification | Failure]]] = set()
    try:
        while True:
            running |= {asyncio.create_task(answer(each)) for each in islice(waiting, at_once - len(running))}
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running |= done  # until all of them are looked at
            for task in sorted(done, key=lambda task: task.exception() is not None):
                running.remove(task)
                yield task.result()
    finally:
        await _cancel(running)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what still runs, and wait for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_one(ask: Ask, video: str, options: Options, emit: Emit) -> Classification | Failure:
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


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
